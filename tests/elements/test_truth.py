"""Scores of bins against what is known: the twin is `benchmark_calls`, and small worlds have known answers."""

import numpy as np
import pandas as pd
import pytest

from ciscribe.elements.benchmark import benchmark_calls, benchmark_links
from ciscribe.elements.bins import Bins
from ciscribe.elements.truth import (
    agreement,
    benchmark_bins,
    best_pieces,
    by_distance,
    composition,
    fold_intervals,
    pair_scores,
    specific_sites,
    target_pairs,
)
from ciscribe.errors import SchemaError

R, B, G = 10, 13, 7


def genes(seed=0):
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.integers(0, 601, G))
    return Bins(starts, ["chr1"] * G, [f"g{i}" for i in range(G)], starts + R * B // 2, resolution=R, n_bins=B)


def frame(rows, columns=("chrom", "start", "end")):
    return pd.DataFrame(rows, columns=list(columns))


@pytest.mark.parametrize("seed", range(5))
def test_benchmark_bins__is_benchmark_calls_where_every_bin_is_called(seed):
    bins, rng = genes(seed), np.random.default_rng(seed)
    scores = rng.permutation(G * B).reshape(G, B).astype(float)
    start = rng.integers(0, 700, 5)
    truth = frame(zip(["chr1"] * 5, start, start + 17, strict=True)).assign(end=lambda t: t["end"] + 3)
    truth.loc[0, ["start", "end"]] = bins.starts[2] + np.array([3, 28])
    left = bins.starts[:, None] + np.arange(B) * R
    calls = pd.DataFrame({"chrom": "chr1", "start": left.ravel(), "end": left.ravel() + R, "score": scores.ravel()})
    expected = benchmark_calls({"m": calls}, truth, bins.table)
    found = benchmark_bins(bins, {"m": bins.pool(scores)}, truth)
    assert (found.truth, found.universe) == (expected.truth, expected.universe)
    # a call of several pieces is one call there, and pieces of one score come in random order here
    assert found.table["auprc_full"].item() == pytest.approx(expected.table["auprc_full"][0], abs=0.03)
    assert found.table["precision"].item() == pytest.approx(expected.table["precision"][0], abs=0.05)


def test_benchmark_bins__chance_perfect_and_worst():
    starts = np.arange(0, 13_000, 130)
    bins = Bins(starts, ["chr1"] * 100, [f"g{i}" for i in range(100)], starts + 65, resolution=R, n_bins=B)
    truth = frame([("chr1", s, s + 30) for s in range(0, 13_000, 130)])
    hit = (bins.cover(truth) > 0).astype(float)
    rng = np.random.default_rng(0)
    found = benchmark_bins(bins, {"best": hit, "none": rng.random(len(bins)), "worst": -hit}, truth, controls=["none"])
    table = found.table.set_index("method")
    assert found.prevalence == pytest.approx(3 / 13)
    assert table.loc["best", "auprc_full"] == 1
    assert table.loc["none", "auprc_full"] == pytest.approx(3 / 13, abs=0.03)
    assert table.loc["worst", "auprc_full"] < 3 / 13
    assert table["control"].tolist() == [False, True, False]


def test_fold_intervals__hold_the_value_and_say_which_is_better():
    n = 211
    starts = np.arange(n) * 1_000
    bins = Bins(starts, ["chr1"] * n, [f"g{i}" for i in range(n)], starts + 65, resolution=R, n_bins=B)
    rng = np.random.default_rng(0)
    true = rng.random(len(bins)) < 0.2
    truth = bins.table.loc[true]
    methods = {"good": true + rng.normal(0, 0.5, len(bins)), "fair": true + rng.normal(0, 1.0, len(bins)),
               "none": rng.random(len(bins))}
    found = benchmark_bins(bins, methods, truth).table.set_index("method")["auprc_full"]
    table = fold_intervals(bins, methods, truth, versus="fair", block_bp=5_000).set_index("method")
    for name in methods:
        assert table.loc[name, "low"] < found[name] / true.mean() < table.loc[name, "high"]
    assert table.loc["good", "ratio_low"] > 1 > table.loc["none", "ratio_high"]
    assert table.loc["fair", ["ratio", "ratio_low", "ratio_high"]].tolist() == [1, 1, 1]
    assert table.loc["good", "ratio"] == pytest.approx(found["good"] / found["fair"], rel=1e-6)


def test_by_distance__distance_alone_is_worth_nothing_within_a_band():
    n = 101
    starts = np.arange(n) * 1_000
    bins = Bins(starts, ["chr1"] * n, [f"g{i}" for i in range(n)], starts + 230, resolution=10, n_bins=46)
    rng = np.random.default_rng(1)
    # true near the TSS more often, without regard to anything else
    near = bins.distance < 60
    true = rng.random(len(bins)) < np.where(near, 0.6, 0.05)
    truth = bins.table.loc[true]
    methods = {"distance": -bins.distance, "knows": true + rng.normal(0, 0.1, len(bins))}
    whole = benchmark_bins(bins, methods, truth).table.set_index("method")["auprc_full"]
    bands = by_distance(bins, methods, truth, (0, 60, 230)).set_index(["method", "band"])["fold"]
    assert whole["distance"] > 2 * true.mean()
    assert bands["distance", "0–60"] == pytest.approx(1, abs=0.15)
    assert bands["distance", "60–230"] == pytest.approx(1, abs=0.3)
    assert bands["knows", "60–230"] > 10
    with pytest.raises(SchemaError, match="no band of 500, 900 bp"):
        by_distance(bins, methods, truth, (500, 900))


def test_composition__counts_each_base_once_in_the_order_of_kinds():
    bins = Bins([0, 1000], ["chr1", "chr1"], ["a", "b"], [65, 1065], resolution=R, n_bins=B)
    score = np.zeros(len(bins))
    score[:3] = [3.0, 2.0, 1.0]  # 0–30
    known = frame([("chr1", 0, 15, "decoy_open"), ("chr1", 10, 20, "enhancer")], ("chrom", "start", "end", "kind"))
    table = composition(bins, {"m": score}, known, ["enhancer", "decoy_open"], 30).set_index("kind")
    assert table["bp"].to_dict() == {"enhancer": 10, "decoy_open": 10, "none": 10}
    assert table.loc["enhancer", "enrichment"] == pytest.approx(260 / 30)
    with pytest.raises(SchemaError, match="needs the column kind"):
        composition(bins, {"m": score}, known.drop(columns="kind"), ["enhancer"], 30)


def test_agreement__is_one_for_a_twin_and_chance_for_a_stranger():
    n = 211
    starts = np.arange(n) * 131
    bins = Bins(starts, ["chr1"] * n, [f"g{i}" for i in range(n)], starts + 65, resolution=R, n_bins=B)
    rng = np.random.default_rng(0)
    a = rng.random(len(bins))
    table = agreement(bins, {"a": a, "twin": 2 * a + 1, "b": rng.random(len(bins))}, (0.1, 0.3)).set_index(
        ["a", "b", "budget"])
    assert table.loc[("a", "twin", 0.1), "jaccard"] == 1
    assert table.loc[("a", "b", 0.3), "jaccard"] == pytest.approx(0.3 / 1.7, abs=0.03)
    assert table.loc[("a", "b", 0.3), "chance"] == pytest.approx(0.3 / 1.7)
    assert bins.size[best_pieces(bins, a, 1_007)].sum() == 1_000  # whole pieces only


def test_target_pairs__are_the_windows_that_hold_an_element_with_a_known_target():
    bins = Bins([0, 60, 900], ["chr1", "chr1", "chr1"], ["a", "b", "c"], [65, 125, 965], resolution=R, n_bins=B)
    elements = frame([("chr1", 100, 120, ("b",)), ("chr1", 5, 9, ("a", "c")), ("chr1", 910, 950, ()),
                      ("chr1", 70, 80, ("zz",))], ("chrom", "start", "end", "targets"))
    pairs = target_pairs(bins, elements)
    assert pairs[["gene_id", "label", "distance"]].to_numpy().tolist() == [
        ["a", False, 45], ["b", True, 15], ["a", True, 58]]
    scores = np.zeros(bins.shape)
    scores[1, 5] = 4.0  # of b, 110–120
    assert pair_scores(bins, scores, pairs).tolist() == [0, 4, 0]
    found = benchmark_links({"m": pairs.assign(score=pair_scores(bins, scores, pairs))}, pairs)
    assert found.table.loc[0, "auprc_full"] > found.prevalence
    with pytest.raises(SchemaError, match="need the columns chrom, start, end, targets; got chrom, start, end"):
        target_pairs(bins, elements.drop(columns="targets"))
    with pytest.raises(SchemaError, match="1 of 1 pairs lie off the window of their gene; first: chr1:100-120 c"):
        pair_scores(bins, scores, pairs.head(1).assign(gene_id="c"))


def test_specific_sites__are_high_here_and_low_there():
    sites = frame([("chr1", 0, 9, 9.0, 1.0), ("chr1", 20, 29, 9.0, 8.0), ("chr1", 40, 49, 0.2, 0.0)],
                  ("chrom", "start", "end", "ya", "emb"))
    assert specific_sites(sites, "ya", "emb")["start"].tolist() == [0]
    with pytest.raises(SchemaError, match="column of heights called 'l3'; they have ya, emb"):
        specific_sites(sites, "l3", "emb")
    with pytest.raises(SchemaError, match=r"1 of 3 sites are not; first: chr1:20-29, -1.0 and 8.0"):
        specific_sites(sites.assign(ya=[9.0, -1.0, 0.2]), "ya", "emb")
    with pytest.raises(SchemaError, match="no site of 3 is 40 times as high"):
        specific_sites(sites, "ya", "emb", fold=40)


def test_scores__that_are_missing_are_named():
    bins = genes()
    truth = frame([("chr1", int(bins.starts[0]), int(bins.starts[0]) + 20)])
    with pytest.raises(SchemaError, match=rf"m holds one score for each of the {len(bins)} pieces; got shape \(3,\)"):
        benchmark_bins(bins, {"m": np.zeros(3)}, truth)
    bad = np.zeros(len(bins))
    bad[2] = np.inf
    with pytest.raises(SchemaError, match=rf"1 of {len(bins)} pieces have no finite score of m; first: chr1:"):
        benchmark_bins(bins, {"m": bad}, truth)
    with pytest.raises(SchemaError, match="none of its 1 intervals lies in the"):
        benchmark_bins(bins, {"m": np.zeros(len(bins))}, truth.assign(chrom="chr9"))
    with pytest.raises(SchemaError, match="the budget lies in 1 to"):
        best_pieces(bins, np.zeros(len(bins)), 0)
