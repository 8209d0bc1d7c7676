"""The scanner against a loop, and its p-values against all words."""

import numpy as np
import pandas as pd
import pytest

from ciscribe import pwm as M
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.schema import Motif, check_hits
from ciscribe.sequence import encode, one_hot, reverse_complement_codes
from reference import motif_scan as slow

AT_RICH = (0.31, 0.19, 0.19, 0.31)


def random_motif(name, width, seed, concentration=0.5):
    rng = np.random.default_rng(seed)
    return Motif(name, rng.dirichlet(np.full(4, concentration), width).T.copy())


def word_motif(name, word, sure=0.94):
    return Motif(name, np.where(one_hot(encode(word)) == 1, sure, (1 - sure) / 3).astype(np.float64))


def sequences(n=3, length=101, seed=0):
    codes = np.random.default_rng(seed).choice(4, (n, length), p=AT_RICH).astype(np.uint8)
    codes[1, 43] = 4
    codes[2, -1] = 4
    return codes


@pytest.mark.parametrize("width", [3, 5, 6, 7, 12, 13, 19])  # around and between the pieces of a lookup
@pytest.mark.parametrize("level", [1.0, 0.05])
def test_scan_motifs__finds_what_the_loop_finds(width, level):
    codes, motif = sequences(), random_motif("m", width, width)
    hits = M.scan_motifs(codes, [motif], p_value=level, background=AT_RICH)
    check_hits(hits)
    scores = slow.log_odds(motif.ppm, AT_RICH, M.PSEUDOCOUNT)
    every = {(row, start, strand): score for row, start, strand, score in slow.windows(codes, scores)}
    found = dict(zip(zip(hits["region"], hits["start"], hits["strand"], strict=True), hits["score"], strict=True))
    assert set(found) <= set(every)
    for key, score in found.items():
        assert score == pytest.approx(every[key], abs=1e-9)
    if level == 1:
        assert set(found) == set(every)
        assert (hits["end"] - hits["start"] == width).all()
    else:  # none above the lowest hit is missed, but for the rounding of a score
        step = sum(max(c) - min(c) for c in scores) / M.N_BINS
        missed = [score for key, score in every.items() if key not in found]
        assert not found or max(missed) <= min(found.values()) + width * step
        assert len(found) < len(every) / 4


@pytest.mark.parametrize(("width", "background"), [(4, AT_RICH), (6, (0.25,) * 4), (7, (0.4, 0.1, 0.2, 0.3))])
def test_score_tail__is_exact_over_all_words(width, background):
    motif = random_motif("m", width, 11)
    scores = M.log_odds(motif, np.array(background))
    whole, tail = M.score_tail(scores, np.array(background))
    totals = np.array(slow.all_words(whole.T.tolist(), background))
    for s in range(len(tail)):
        assert tail[s] == pytest.approx(totals[totals[:, 0] >= s, 1].sum(), rel=1e-9, abs=1e-15)
    # And, apart from rounding, exact for the scores themselves.
    slack = width / 2 * (scores.max(axis=0) - scores.min(axis=0)).sum() / M.N_BINS + 1e-9
    exact = np.array(slow.all_words(slow.log_odds(motif.ppm, background, M.PSEUDOCOUNT), background))
    for score, total in zip(exact[::37, 0], totals[::37, 0], strict=True):
        low, high = (exact[exact[:, 0] >= score + d, 1].sum() for d in (slack, -slack))
        assert low - 1e-12 <= tail[int(total)] <= high + 1e-12


def test_scan_motifs__is_calibrated_on_random_bases():
    codes = np.random.default_rng(5).choice(4, (7, 30_011), p=AT_RICH).astype(np.uint8)
    motifs = [random_motif(str(i), w, i) for i, w in enumerate((8, 11, 17, 23))]
    hits = M.scan_motifs(codes, motifs, p_value=1e-3)
    for name, n in hits["motif"].value_counts().items():
        expected = 2 * codes.size * 1e-3
        assert 0.85 * expected < n < 1.15 * expected, name
    assert hits["p_value"].max() <= 1e-3


def test_scan_motifs__counts_places_alike_on_both_strands():
    codes, motif = sequences(), random_motif("m", 7, 3)
    there = M.scan_motifs(codes, [motif], p_value=0.01)
    back = M.scan_motifs(reverse_complement_codes(codes), [motif], p_value=0.01)
    mirrored = back.assign(start=101 - back["end"], end=101 - back["start"],
                           strand=back["strand"].map({"+": "-", "-": "+"}))
    order = ["region", "start", "strand"]
    assert len(there) > 3
    pd.testing.assert_frame_equal(there.sort_values(order, ignore_index=True),
                                  mirrored.sort_values(order, ignore_index=True))


def test_scan_motifs__of_a_planted_site():
    codes = encode("TTTTTTACGAATCATTTTTTGATTNGTTTTTGATTCGTC")[None]
    hits = M.scan_motifs(one_hot(codes), [word_motif("m", "ACGAATCA")], p_value=1e-3, names=["chrX"])
    assert hits[["chrom", "start", "end", "strand", "region"]].to_numpy().tolist() == [
        ["chrX", 6, 14, "+", 0], ["chrX", 30, 38, "-", 0]]
    forward = M.scan_motifs(codes, [word_motif("m", "ACGAATCA")], p_value=1e-3, both_strands=False)
    assert forward["start"].tolist() == [6]


def test_scan_motifs__takes_its_background_from_the_sequences():
    codes = np.random.default_rng(0).choice(4, (3, 5_003), p=(0.4, 0.1, 0.1, 0.4)).astype(np.uint8)
    poor, rich = word_motif("tata", "TATATAAT"), word_motif("gc", "GCCGCGGC")
    own = M.scan_motifs(codes, [poor, rich], p_value=1e-3)
    equal = M.scan_motifs(codes, [poor, rich], p_value=1e-3, background=[0.25] * 4)
    assert (own["motif"] == "tata").sum() < 2 * 2 * codes.size * 1e-3 < (equal["motif"] == "tata").sum()


def test_scan_motifs__says_which_motifs_cannot_be_found():
    with pytest.warns(UserWarning, match=r"1 of 2 motifs are too short .* first: TAT, whose best match has p = 0.016"):
        hits = M.scan_motifs(np.zeros((2, 31), np.uint8), [word_motif("a", "AAAAAAAAA"), word_motif("TAT", "TAT")],
                             p_value=1e-3, background=[0.25] * 4)
    assert set(hits["motif"]) == {"a"}
    assert M.scan_motifs(np.zeros((1, 5), np.uint8), [word_motif("a", "AAAAAAAAA")], background=[0.25] * 4).empty
    empty = M.scan_motifs(np.zeros((2, 31), np.uint8), [])
    check_hits(empty)
    assert empty.empty


@pytest.mark.parametrize(("error", "message", "options"), [
    (ConfigError, "p_value lies above 0", {"p_value": 0}),
    (ConfigError, "frequencies of A C G T", {"background": [0.5, 0.5, 0, 0]}),
    (ConfigError, "frequencies of A C G T", {"background": [0.3, 0.3, 0.3, 0.3]}),
    (ConfigError, "pseudocount lies above 0", {"pseudocount": 0}),
    (SchemaError, "3 sequences need as many names; got 2", {"names": ["a", "b"]}),
    (SchemaError, "repeats the name", {"motifs": [random_motif("m", 5, 0)] * 2}),
    (SchemaError, "one-hot", {"X": np.full((3, 4, 11), 0.25)}),
])
def test_scan_motifs__of_bad_input(error, message, options):
    options = {"X": sequences(), "motifs": [random_motif("m", 5, 0)]} | options
    with pytest.raises(error, match=message):
        M.scan_motifs(**options)
