import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ciscribe.errors import SchemaError, UnknownNameError
from ciscribe.links.benchmark import METRICS, _Ranking, benchmark_crispri, pr_curve, pr_metrics
from ciscribe.links.crispri import Predictor, Protocol
from reference import pr_curve as twin

QUICK = Protocol(n_bootstrap=53, distance_bins=())

# --- the curve ---------------------------------------------------------------------------------------------------

labels_and_scores = st.lists(st.tuples(st.booleans(), st.integers(0, 7)), min_size=1, max_size=23).filter(
    lambda rows: any(y for y, _ in rows))


@given(labels_and_scores, st.sampled_from([0.1, 0.5, 0.7, 1.0]))
def test_pr_metrics__equal_the_loop(rows, recall):
    label, score = (np.array(x) for x in zip(*rows, strict=True))
    found = pr_metrics(label, score, recall=recall)
    np.testing.assert_allclose(list(found.values()), twin.metrics(label, score, recall), atol=1e-12)
    curve = pr_curve(label, score)
    np.testing.assert_allclose(curve[["precision", "recall"]].to_numpy(), twin.points(label, score))
    assert found["average_precision"] == pytest.approx(average_precision_score(label, score))


@given(labels_and_scores.filter(lambda rows: len({s for _, s in rows}) > 2), st.integers(0, 10**6))
def test_resampled_metrics__equal_the_loop_over_copies(rows, seed):
    label, score = (np.array(x) for x in zip(*rows, strict=True))
    copies = np.random.default_rng(seed).integers(0, 4, (5, len(label))).astype(float)
    copies = copies[(copies * label).sum(axis=1) > 0]
    found = _Ranking(label, score).metrics(copies, 0.7)
    for row, n in zip(found, copies, strict=True):
        area, average, at = twin.resampled(label, score, n)
        # fewer than three thresholds left in a resample: the loop calls the area undefined, the sum is empty
        np.testing.assert_allclose(row, [0.0 if np.isnan(area) else area, average, at], atol=1e-12)


def test_resample_without_positive_is_undefined():
    found = _Ranking(np.array([1, 0, 0]), np.array([3.0, 2, 1])).metrics(np.array([[0.0, 2, 1]]), 0.7)
    assert np.isnan(found).all()


def test_tied_top_scores_lose_area_by_the_protocol_but_not_average_precision():
    label = np.array([1] * 5 + [0] * 7)
    clear = np.arange(12, 0, -1.0)
    tied = np.where(clear > 8, 10.0, clear)  # the same order, the best four in one
    assert pr_metrics(label, tied)["average_precision"] == pr_metrics(label, clear)["average_precision"] == 1
    assert pr_metrics(label, clear)["auprc"] == pytest.approx(0.8)
    assert pr_metrics(label, tied)["auprc"] == pytest.approx(0.2)


def test_a_yes_or_no_has_no_area():
    found = pr_metrics(np.array([1, 0, 1, 0]), np.array([1.0, 1, 0, 0]))
    assert np.isnan(found["auprc"])
    assert found["average_precision"] == 0.5
    assert np.isnan(found["precision_at_recall"])


def test_curve__bad_input():
    with pytest.raises(SchemaError, match="no pair is positive"):
        pr_curve(np.zeros(3), np.arange(3.0))
    with pytest.raises(SchemaError, match="1 of 3 scores are NaN"):
        pr_metrics(np.array([1, 0, 1]), np.array([1.0, np.nan, 2]))


# --- the benchmark -----------------------------------------------------------------------------------------------

def scored(seed=0, cells=("K562",), n=211):
    """Tested pairs in which near elements are the enhancers, with a good and a useless score."""
    rng = np.random.default_rng(seed)
    distance = rng.integers(500, 900_000, n)
    label = rng.random(n) < 0.9 * np.exp(-distance / 150_000)
    start = rng.permutation(n) * 5_003
    return pd.DataFrame({"chrom": "chr1", "start": start, "end": start + 500, "cell": rng.choice(cells, n),
                         "distance": distance, "label": label, "good": label + rng.normal(0, 0.3, n),
                         "noise": rng.random(n)})


PREDICTORS = {"distance": Predictor("distance", "min", inverse=True, threshold=50_000), "good": Predictor("good"),
              "noise": Predictor("noise")}


def test_benchmark__strata_values_and_intervals():
    pairs = scored(cells=("K562", "HCT116"))
    result = benchmark_crispri(pairs, PREDICTORS, Protocol(n_bootstrap=53, distance_bins=(0, 100_000, 2_500_000)))
    table = result.table.set_index(["predictor", "stratum"])
    assert list(result.table["stratum"].unique()) == ["all", "0–100 kb", "100–2500 kb", "cell K562", "cell HCT116"] or \
        list(result.table["stratum"].unique()) == ["all", "0–100 kb", "100–2500 kb", "cell HCT116", "cell K562"]
    for stratum, inside in (("0–100 kb", pairs["distance"] <= 100_000), ("cell K562", pairs["cell"] == "K562"),
                            ("all", pairs["distance"] >= 0)):
        part = pairs[inside]
        row = table.loc[("good", stratum)]
        assert row["n_pairs"] == len(part)
        assert row["n_positive"] == part["label"].sum()
        wanted = twin.metrics(part["label"].tolist(), part["good"].tolist())
        np.testing.assert_allclose(row[list(METRICS)].to_numpy(float), wanted)
        assert row["auprc_low"] < row["auprc"] < row["auprc_high"]
    assert (table["n_pairs"].xs("0–100 kb", level=1) + table["n_pairs"].xs("100–2500 kb", level=1) == len(pairs)).all()
    near = pairs["distance"] <= 50_000
    assert table.loc[("distance", "all"), "precision_at_threshold"] == pairs.loc[near, "label"].mean()
    assert table.loc[("distance", "all"), "recall_at_threshold"] == near[pairs["label"]].mean()
    assert 0 < table.loc[("distance", "all"), "threshold_at_recall"] <= pairs["distance"].max()
    curve = result.curves[(result.curves["predictor"] == "distance") & (result.curves["stratum"] == "all")]
    assert curve["threshold"].is_monotonic_increasing
    assert curve["threshold"].iloc[0] == pairs["distance"].min()
    assert json.loads(json.dumps(result.to_dict()))["protocol"]["recall"] == 0.7
    assert "53 resamples of pairs, seed 0" in result.protocol.describe()


def test_difference__is_paired_and_knows_which_is_better():
    pairs = scored().assign(twin=lambda t: t["good"] * 2)
    result = benchmark_crispri(pairs, {**PREDICTORS, "twin": Predictor("twin")}, Protocol(n_bootstrap=199))
    better = result.difference("good", "noise").loc["auprc"]
    assert better["delta"] > 0.3
    assert better["low"] > 0
    assert better["p"] == pytest.approx(2 / 200)
    same = result.difference("twin", "good")
    assert (same[["delta", "low", "high"]] == 0).all().all()
    assert (same["p"] == 1).all()
    worse = result.difference("noise", "good").loc["auprc"]
    np.testing.assert_allclose([worse["delta"], worse["low"], worse["high"]],
                               [-better["delta"], -better["high"], -better["low"]])
    with pytest.raises(UnknownNameError, match="did you mean 'good'"):
        result.difference("goud", "noise")


def test_benchmark__same_seed_same_intervals_other_seed_others():
    pairs = scored()
    first, again, other = (benchmark_crispri(pairs, PREDICTORS, Protocol(n_bootstrap=31, distance_bins=(), seed=seed)
                                             ).table for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert (first["auprc"] == other["auprc"]).all()
    assert (first["auprc_low"] != other["auprc_low"]).all()


def test_benchmark__bad_input():
    pairs = scored()
    with pytest.raises(SchemaError, match=r"no pair is positive in the stratum '1e\+06–2e\+06 kb' \(0 pairs\)"):
        benchmark_crispri(pairs, PREDICTORS, Protocol(n_bootstrap=2, distance_bins=(1e9, 2e9)))
    with pytest.raises(SchemaError, match="3 of 211 pairs have a good that is NaN"):
        benchmark_crispri(pairs.assign(good=pairs["good"].where(pairs.index > 2)), PREDICTORS, QUICK)
    with pytest.raises(SchemaError, match="at least one predictor"):
        benchmark_crispri(pairs, {}, QUICK)
    with pytest.raises(SchemaError, match="rising distance_bins"):
        Protocol(distance_bins=(5, 3))
