"""Hits on simulated contributions: planted instances are found, and the fit is the one the slow twin finds."""

import numpy as np
import pandas as pd
import pytest
import torch

from ciscribe.errors import ConfigError, SchemaError, UnknownNameError
from ciscribe.interpret import hits as H
from ciscribe.interpret.hits import HIT_EXTRAS, call_hits
from ciscribe.interpret.patterns import SEQLET_COLUMNS, Pattern
from ciscribe.results import attribution_array
from ciscribe.schema import Motif, check_hits
from ciscribe.sequence import encode, one_hot, reverse_complement_codes
from reference import hits as slow

FLANK = 3  # columns beside the core of a pattern that mean nothing


def pattern(name, word, strength, flank=FLANK):
    """A pattern of one word; its bases differ in weight, so that it is unlike its shifts."""
    core = one_hot(encode(word)).astype(float)
    weight = strength * (1 + 0.3 * ((np.arange(len(word)) * 7) % 5 - 2) / 2)
    ppm = np.pad(0.04 + 0.84 * core, ((0, 0), (flank, flank)), constant_values=0.25)
    hypothetical = np.pad(weight * (core - (1 - core) / 3), ((0, 0), (flank, flank)))
    return Pattern(Motif(name, ppm), ppm * hypothetical, hypothetical,
                   pd.DataFrame({c: [] for c in SEQLET_COLUMNS}))


PATTERNS = [pattern("ap1", "TGACTCAGC", 0.4), pattern("ccaat", "CCAATCG", 0.3),
            pattern("repressor", "GGTACACTTG", -0.3), pattern("tata", "TATAAAGG", 0.5)]


def simulate(n, length, *, noise, gaps, seed, patterns=PATTERNS):
    """Random sequences with instances of patterns of varied strength; a negative gap overlaps the one before."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (n, length)).astype(np.uint8)
    values = rng.normal(0, noise, (n, 4, length))
    truth = set()
    for i in range(n):
        at = 5
        while True:
            p, turned = patterns[rng.integers(len(patterns))], rng.random() < 0.5
            ppm, hyp = p.motif.ppm[:, FLANK:-FLANK], p.hypothetical[:, FLANK:-FLANK]
            if turned:
                ppm, hyp = ppm[::-1, ::-1], hyp[::-1, ::-1]
            width = ppm.shape[1]
            if at + width > length:
                break
            codes[i, at:at + width] = [rng.choice(4, p=column) for column in ppm.T]
            values[i, :, at:at + width] += hyp * rng.uniform(0.5, 1.5)
            truth.add((i, at, at + width, "-" if turned else "+", p.name))
            at += width + int(rng.choice(gaps))
    return codes, attribution_array(values[..., None], "simulated", units="test"), truth


def places(hits):
    return set(hits[["region", "start", "end", "strand", "motif"]].itertuples(index=False, name=None))


def f1(hits, truth):
    return 2 * len(places(hits) & truth) / (len(hits) + len(truth))


@pytest.mark.parametrize(("noise", "gaps", "least"), [(0.05, (17, 31), 0.95), (0.05, (-2, 0, 3, 17), 0.9),
                                                      (0.1, (-2, 0, 3, 17), 0.85), (0.15, (31, 61), 0.9)])
def test_call_hits__finds_planted_instances(noise, gaps, least):
    codes, attributions, truth = simulate(29, 211, noise=noise, gaps=gaps, seed=0)
    hits = call_hits(codes, attributions, PATTERNS)
    check_hits(hits)
    assert f1(hits, truth) >= least
    for (name, strand), part in hits.groupby(["motif", "strand"]):
        same = {t for t in truth if t[3:] == (strand, name)}
        assert f1(part, same) >= least - 0.1
    lowers = hits["motif"] == "repressor"
    assert (hits.loc[lowers, "importance"] < 0).all()
    assert (hits.loc[~lowers, "importance"] > 0).all()
    assert (hits["score"] == hits["coefficient"]).all()
    assert hits["p_value"].isna().all()


def test_call_hits__ignores_motifs_that_the_model_does_not_use():
    codes, attributions, truth = simulate(7, 97, noise=0.02, gaps=(17,), seed=1)
    half = attributions.copy()
    half[:, :, 48:] *= 0.0
    hits = call_hits(codes, half, PATTERNS)
    assert places(hits) <= truth
    assert hits["end"].max() <= 48
    assert len(hits) >= 7


def test_call_hits__of_noise_are_few():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (13, 503)).astype(np.uint8)
    noise = attribution_array(rng.normal(size=(13, 4, 503, 1)), "noise", units="test")
    assert len(call_hits(codes, noise, PATTERNS)) <= 2
    assert len(call_hits(codes, noise, PATTERNS, alpha=0.4, noise=0)) > 40  # it can find any


@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_call_hits__is_the_minimum_that_coordinate_descent_finds(noise):
    codes, attributions, _ = simulate(3, 61, noise=0.05, gaps=(-4, -2, 0), seed=2)
    codes[0, 30] = 4
    hits = call_hits(codes, attributions, PATTERNS, alpha=0.5, noise=noise, trim=0.3, max_overlap=1, tolerance=1e-7,
                     max_steps=20_000)
    cwms = [p.cwm[:, FLANK:-FLANK] / np.linalg.norm(p.cwm[:, FLANK:-FLANK]) for p in PATTERNS]
    cwms = [m for cwm in cwms for m in (cwm, cwm[::-1, ::-1])]
    expected = {}
    for i in range(3):
        v = np.array([attributions.values[i, b, p, 0] if b < 4 else 0 for p, b in enumerate(codes[i])], dtype=float)
        ripple = noise * (np.quantile(np.abs(v), 0.25) / 0.3186) ** 2
        for (atom, start), a in slow.fit(v, codes[i], cwms, 0.5, ripple).items():
            if a > 2e-3:
                expected[i, start, "+-"[atom % 2], PATTERNS[atom // 2].name] = a
    found = hits.set_index(["region", "start", "strand", "motif"])["coefficient"]
    assert len(expected) > 10
    assert set(found[found > 5e-3].index) <= set(expected)
    for key, a in expected.items():
        assert found.get(key, 0.0) == pytest.approx(a, abs=2e-3), key


def test_call_hits__of_one_perfect_site():
    p = PATTERNS[3]
    for codes, strand in ((encode("GCGCG" + "TATAAAGG" + "GCGCGCG"), "+"), (encode("GCGCG" + "CCTTTATA" + "GCG"), "-")):
        hyp = p.hypothetical[:, FLANK:-FLANK]
        values = np.zeros((1, 4, len(codes), 1), np.float32)
        values[0, :, 5:13, 0] = hyp if strand == "+" else hyp[::-1, ::-1]
        hits = call_hits(codes[None], attribution_array(values, "m", units="u", regions=["chr1:10-30"]), PATTERNS)
        assert places(hits) == {(0, 5, 13, strand, "tata")}
        row = hits.iloc[0]
        size = np.linalg.norm(hyp[hyp > 0])
        cwm = p.cwm / np.linalg.norm(p.cwm[:, FLANK:-FLANK])
        reach = np.linalg.norm(cwm[cwm > 0])  # of the matrix, what the consensus reads
        assert row["similarity"] == pytest.approx(reach, abs=1e-5)
        assert row["coefficient"] == pytest.approx(size * (reach - 0.7) / reach**2, rel=1e-2)
        assert row["importance"] == pytest.approx(hyp[hyp > 0].sum(), rel=1e-5)
        assert row["chrom"] == "chr1:10-30"


def test_call_hits__mirrors_with_the_strand():
    codes, attributions, _ = simulate(5, 89, noise=0.05, gaps=(-2, 3), seed=3)
    turned = attributions.copy(data=attributions.values[:, ::-1, ::-1].copy())
    there = call_hits(codes, attributions, PATTERNS)
    back = call_hits(reverse_complement_codes(codes), turned, PATTERNS)
    mirrored = {(r, 89 - e, 89 - s, "+-"[d == "+"], m) for r, s, e, d, m in places(back)}
    assert len(there) > 15
    assert mirrored == places(there)


def test_call_hits__does_not_depend_on_scale_batch_or_neighbours(monkeypatch):
    codes, attributions, _ = simulate(7, 101, noise=0.05, gaps=(-2, 3, 17), seed=4)
    whole = call_hits(codes, attributions, PATTERNS)
    columns = [c for c in whole if c not in (*HIT_EXTRAS, "score")]
    loud = call_hits(one_hot(codes), attributions * 1e6, PATTERNS)
    pd.testing.assert_frame_equal(whole[columns], loud[columns])
    np.testing.assert_allclose(loud["coefficient"], whole["coefficient"] * 1e6, rtol=1e-3)
    silent = attributions.copy()
    silent[3] = 0.0
    monkeypatch.setattr(H, "_MEMORY", 1)  # one sequence at a time
    one = call_hits(torch.from_numpy(codes), silent, PATTERNS)
    # The region stays in the table: a sequence without hits shifts nobody.
    pd.testing.assert_frame_equal(one, whole[whole["region"] != 3].reset_index(drop=True), rtol=1e-2, atol=1e-3)


def test_call_hits__counts_a_palindrome_once():
    p = pattern("ebox", "CACGTG", 0.5)
    half = (p.cwm + p.cwm[::-1, ::-1]) / 2
    p = Pattern(p.motif, half, half, p.seqlets)
    codes = encode("TTTTTCACGTGTTTTT")[None]
    values = np.zeros((1, 4, 16, 1))
    values[0, :, 5:11, 0] = half[:, FLANK:-FLANK]
    array = attribution_array(values, "m", units="u")
    both = call_hits(codes, array, [p])
    assert places(both) in ({(0, 5, 11, "+", "ebox")}, {(0, 5, 11, "-", "ebox")})
    reach = np.linalg.norm(np.maximum(half, 0)) / np.linalg.norm(half)
    size = np.linalg.norm(half[half > 0])
    assert both["coefficient"].sum() == pytest.approx(size * (reach - 0.7) / reach**2, rel=1e-2)


def test_call_hits__keeps_the_stronger_of_two_that_overlap():
    table = pd.DataFrame({"region": [0, 0, 0, 1], "start": [10, 12, 17, 10], "end": [20, 20, 27, 20],
                          "motif": list("abca"), "strand": "+", "coefficient": [2.0, 3.0, 1.0, 1.0]})
    kept = H._resolve(table, 0.5)
    assert set(zip(kept["region"], kept["motif"], strict=True)) == {(0, "b"), (0, "c"), (1, "a")}
    assert len(H._resolve(table, 1.0)) == 4
    assert len(H._resolve(table.iloc[:0], 0.5)) == 0


def test_call_hits__trims_flanks_by_weight():
    codes, attributions, _ = simulate(3, 61, noise=0.01, gaps=(3,), seed=5)
    wide = call_hits(codes, attributions, PATTERNS, trim=0.0)
    assert set(wide["end"] - wide["start"]) <= {p.cwm.shape[1] for p in PATTERNS}
    narrow = call_hits(codes, attributions, PATTERNS)
    assert set(narrow["end"] - narrow["start"]) <= {p.cwm.shape[1] - 2 * FLANK for p in PATTERNS}
    assert len(narrow) >= len(wide) > 3


def test_call_hits__without_any_is_an_empty_table():
    codes, attributions, _ = simulate(3, 61, noise=0.1, gaps=(3,), seed=6)
    empty = call_hits(codes, attributions, PATTERNS, alpha=0.999)
    check_hits(empty)
    assert empty.empty


def test_call_hits__says_when_it_has_not_converged():
    codes, attributions, _ = simulate(3, 61, noise=0.1, gaps=(-4, 0), seed=6)
    with pytest.warns(UserWarning, match=r"fit of . of 3 sequences has not reached .* after 2 steps"):
        call_hits(codes, attributions, PATTERNS, max_steps=2)


def zeros(n=3, length=61, tracks=("a", "b")):
    return attribution_array(np.zeros((n, 4, length, len(tracks))), "m", units="u", tracks=tracks)


def test_call_hits__reads_the_track_that_is_asked_for():
    codes, attributions, _ = simulate(3, 61, noise=0.02, gaps=(3,), seed=7)
    both = zeros()
    both[..., 1] = attributions.values[..., 0]
    expected = call_hits(codes, attributions, PATTERNS)
    for track in (1, "b"):
        pd.testing.assert_frame_equal(call_hits(codes, both, PATTERNS, track=track), expected)
    with pytest.raises(SchemaError, match="all contributions of track a are 0"):
        call_hits(codes, both, PATTERNS)
    with pytest.raises(UnknownNameError, match="no track 'bb'; did you mean 'b'"):
        call_hits(codes, both, PATTERNS, track="bb")
    with pytest.raises(ConfigError, match=r"track lies in 0\.\.1; got 2"):
        call_hits(codes, both, PATTERNS, track=2)


@pytest.mark.parametrize(("error", "message", "options"), [
    (SchemaError, "attributions of 3 regions of 59 bp do not fit 3 sequences of 61 bp", {"attributions": zeros(3, 59)}),
    (SchemaError, "attributions are a DataArray", {"attributions": zeros().transpose("region", "position", ...)}),
    (SchemaError, "1 of 5 patterns are longer than the sequences of 61 bp; first: long, 67 bp",
     {"patterns": [*PATTERNS, pattern("long", "A" * 67, 1.0)]}),
    (SchemaError, "matrix of pattern nil is zero", {"patterns": [pattern("nil", "ACG", 0.0)]}),
    (SchemaError, "repeats the name", {"patterns": [PATTERNS[0]] * 2}),
    (ConfigError, "no pattern to look for", {"patterns": []}),
    (ConfigError, "alpha lies between 0 and 1", {"alpha": 1.0}),
    (ConfigError, "noise is not negative", {"noise": -1.0}),
])
def test_call_hits__of_bad_input(error, message, options):
    codes, attributions, _ = simulate(3, 61, noise=0.1, gaps=(3,), seed=8)
    options = {"attributions": attributions, "patterns": PATTERNS} | options
    with pytest.raises(error, match=message):
        call_hits(codes, **options)


@pytest.mark.gpu
def test_call_hits__is_the_same_on_a_gpu():
    codes, attributions, _ = simulate(7, 211, noise=0.05, gaps=(-2, 3, 17), seed=9)
    there, here = (call_hits(codes, attributions, PATTERNS, device=device) for device in ("cuda", "cpu"))
    assert places(there) == places(here)
    np.testing.assert_allclose(there["coefficient"], here["coefficient"], rtol=1e-2)
