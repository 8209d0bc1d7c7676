"""Names for new motifs: the known ones that they resemble, boxes of textbooks, letters."""

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import ConfigError
from ciscribe.interpret import motifs as M
from ciscribe.interpret.patterns import SEQLET_COLUMNS, Pattern
from ciscribe.io.motifs import read_meme
from ciscribe.schema import Motif
from ciscribe.sequence import encode, one_hot


def random_motif(name, width, seed, concentration=0.5):
    rng = np.random.default_rng(seed)
    return Motif(name, rng.dirichlet(np.full(4, concentration), width).T.copy())


def word_motif(name, word, sure=0.94):
    return Motif(name, np.where(one_hot(encode(word)) == 1, sure, (1 - sure) / 3).astype(np.float64))


def library(n=41):
    return [random_motif(f"db{i}", 7 + i % 5, 100 + i, 0.3) for i in range(n)]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("cut", "ahead"), [(0, 0), (2, 0), (0, 3), (1, 5)])
def test_match_motifs__finds_the_origin_where_it_lies(turned, cut, ahead):
    database = library()
    known = database[17].ppm[:, ::-1][::-1] if turned else database[17].ppm
    sharp = np.random.default_rng(2).dirichlet(np.full(4, 0.1), ahead).T.reshape(4, ahead)
    flat = np.full((4, 2), 0.25)  # trimmed away, yet counted in the offset
    query = Motif("q", np.concatenate([flat, sharp, known[:, cut:], flat], axis=1))
    table = M.match_motifs([query, database[5]], database, n_best=3)
    assert list(table.columns) == list(M.MATCH_COLUMNS)
    assert table["pattern"].tolist() == ["q"] * 3 + ["db5"] * 3
    best = table.iloc[0]
    assert (best["match"], best["offset"], best["strand"]) == ("db17", 2 + ahead - cut, "-" if turned else "+")
    assert best["overlap"] == known.shape[1] - max(cut - ahead, 0)
    assert best["q_value"] < 1e-3
    assert table.iloc[3]["similarity"] == pytest.approx(1)
    assert best["similarity"] == pytest.approx(M.align_motifs(query, database[17]).similarity)
    assert table["similarity"].iloc[[1, 2]].max() < best["similarity"]
    assert table["similarity"].iloc[[4, 5]].max() < 0.9
    assert (table["q_value"] >= table["p_value"]).all()


def test_match_motifs__corrects_for_the_size_of_the_database():
    table = M.match_motifs([random_motif("new", 9, 1)], library(), n_best=41)
    p = table["p_value"].to_numpy()
    q = [min(min(p[j:] * 41 / np.arange(j + 1, 42)), 1) for j in range(41)]
    assert (np.diff(p) >= 0).all()
    np.testing.assert_allclose(table["q_value"], q)


def test_match_motifs__of_bad_input():
    with pytest.raises(ConfigError, match="needs a database"):
        M.match_motifs([random_motif("a", 5, 0)], [])
    assert M.match_motifs([], library()).empty


def test_consensus__writes_iupac_letters():
    ppm = np.array([[0.97, 0.01, 0.01, 0.01], [0.45, 0.05, 0.45, 0.05], [0.25] * 4, [0.05, 0.55, 0.05, 0.35],
                    [0.5, 0.2, 0.15, 0.15], [0.02, 0.03, 0.05, 0.9]]).T
    assert M.consensus(Motif("m", ppm)) == "ARNYNT"


def test_match_consensus__finds_boxes_in_long_patterns():
    gap = np.full((4, 17), 0.25)
    boxes = [word_motif("a", "TTGACA", 0.7).ppm, gap, word_motif("b", "TATAAT", 0.6).ppm]
    both = Motif("promoter", np.concatenate(boxes, axis=1))
    pattern = Pattern(both, both.ppm, both.ppm, pd.DataFrame(columns=list(SEQLET_COLUMNS)))
    assert M.match_consensus(pattern, "TATAAT") == (pytest.approx(1), 23, "+")
    assert M.match_consensus(pattern, "TTGACA") == (pytest.approx(1), 0, "+")
    assert M.match_consensus(pattern, "attata")[1:] == (23, "-")
    assert M.match_consensus(pattern, "TTGNCA")[:2] == (pytest.approx((5 / 6) ** 0.5), 0)  # N says nothing of the A
    assert M.match_consensus(word_motif("m", "GGGCGG"), "TATAAT").similarity < 0.5
    assert M.match_consensus(Motif("flat", gap), "TATAAT").similarity == 0
    for wrong in ("TAXAAT", "", "NNN"):
        with pytest.raises(ConfigError, match="consensus is letters"):
            M.match_consensus(pattern, wrong)


def test_align_motifs__knows_a_motif_turned_and_shifted():
    a = random_motif("a", 11, 0)
    assert M.align_motifs(a, a) == (pytest.approx(1), 0, "+")
    assert M.align_motifs(a, Motif("b", a.ppm[::-1, ::-1][:, 2:].copy()))[1:] == (0, "-")
    shifted = M.align_motifs(a, Motif("b", a.ppm[:, 3:].copy()))
    assert shifted[1:] == (3, "+")
    assert 0.7 < shifted.similarity < 0.99


def test_trim_motif__cuts_flat_flanks_only():
    core = word_motif("m", "TGANTCA".replace("N", "A"), 0.9)
    core.ppm[:, 3] = 0.25
    wide = Motif("m", np.pad(core.ppm, ((0, 0), (3, 5)), constant_values=0.25), "source")
    trimmed = M.trim_motif(wide)
    np.testing.assert_array_equal(trimmed.ppm, core.ppm)
    assert trimmed.source == "source"
    flat = Motif("flat", np.full((4, 5), 0.25))
    assert M.trim_motif(flat).ppm.shape == (4, 5)


@pytest.mark.realdata
def test_match_motifs__names_the_tata_box_and_sp1(data_dir):
    database = read_meme(data_dir / "motifs/H12CORE_meme_format.meme.gz")
    table = M.match_motifs([word_motif("gc box", "GGGGCGGGGC", 0.85), word_motif("ap1", "TGACTCA", 0.85)], database)
    best = table.groupby("pattern")["match"].agg(lambda m: " ".join(m))
    assert "SP" in best["gc box"] or "KLF" in best["gc box"]
    assert "FOS" in best["ap1"] or "JUN" in best["ap1"] or "BATF" in best["ap1"]
    assert (table["q_value"] < 0.05).all()
