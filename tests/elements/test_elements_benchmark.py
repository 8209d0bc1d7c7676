import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ciscribe.elements import benchmark_calls, benchmark_links, sufficiency_necessity
from ciscribe.elements.benchmark import _Axis
from ciscribe.errors import SchemaError, UnknownNameError

L = 211


def frame(rows, columns=("chrom", "start", "end", "score")):
    return pd.DataFrame(rows, columns=list(columns))


def draw(rng, n, low=1, high=30):
    start = rng.integers(0, L - high, n)
    return pd.DataFrame({"chrom": rng.choice(["chr1", "chr2", "chr3"], n), "start": start,
                         "end": start + rng.integers(low, high, n), "score": rng.permutation(n).astype(float)})


def brute_force(calls, truth, universe, budget):
    """Base by base: the obvious twin. Scores must be distinct."""
    def paint(table):
        on = {c: np.zeros(L, bool) for c in ("chr1", "chr2", "chr3")}
        for row in table.itertuples():
            on[row.chrom][row.start:row.end] = True
        return on

    inside, true = paint(universe), paint(truth)
    n_true = sum((inside[c] & true[c]).sum() for c in inside)
    taken = {c: np.zeros(L, bool) for c in inside}
    called = found = used = got = 0.0
    full = cut = 0.0
    for row in calls.sort_values("score", ascending=False).itertuples():
        size = hit = 0
        for i in range(row.start, row.end):
            if inside[row.chrom][i] and not taken[row.chrom][i]:
                taken[row.chrom][i] = True
                size += 1
                hit += true[row.chrom][i]
        if not size:
            continue
        part = min(1.0, max(0.0, budget - called) / size)
        called, found = called + size, found + hit
        full += hit / n_true * found / called
        if part:
            used, got = used + part * size, got + part * hit
            cut += part * hit / n_true * got / used
    return {"auprc": cut, "auprc_full": full, "recall": got / n_true, "precision": got / used if used else np.nan,
            "called_bp": used, "total_bp": called}


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 23), budget=st.integers(1, 150))
def test_benchmark_calls__equals_the_brute_force(seed, n, budget):
    rng = np.random.default_rng(seed)
    universe, truth, calls = draw(rng, 7, 20, 80), draw(rng, 5), draw(rng, n)
    truth = pd.concat([truth, universe.head(1).assign(end=lambda x: x["start"] + 3)])  # some truth is inside
    result = benchmark_calls({"m": calls}, truth, universe, budget_bp=budget)
    expected = brute_force(calls, truth, universe, budget)
    row = result.table.iloc[0]
    for column, value in expected.items():
        assert row[column] == pytest.approx(value, nan_ok=True), column
    assert 0 <= row["auprc"] <= 1
    last = result.curves[result.curves["method"] == "m"].tail(1)
    if len(last):
        assert last["bp"].item() == expected["total_bp"]


def test_benchmark_calls__perfect_calls_score_one_and_calling_more_gains_nothing():
    truth = frame([("chr1", 100, 200, 1.0), ("chr1", 500, 600, 1.0)])
    universe = frame([("chr1", 0, 5000, 1.0)])
    greedy = pd.concat([truth.assign(score=2.0), frame([("chr1", 0, 5000, 1.0)])])
    table = benchmark_calls({"exact": truth, "greedy": greedy}, truth, universe).table.set_index("method")
    assert table.loc["exact", ["auprc", "auprc_full", "precision", "recall", "f1"]].tolist() == [1, 1, 1, 1, 1]
    assert table.loc["greedy", ["auprc", "auprc_full"]].tolist() == [1, 1]
    assert table.loc["greedy", ["called_bp", "total_bp"]].tolist() == [200, 5000]
    half = benchmark_calls({"exact": truth}, truth, universe, budget_bp=50).table.iloc[0]
    assert half["auprc"] == pytest.approx(0.25)


def test_benchmark_calls__controls_are_at_prevalence():
    rng = np.random.default_rng(1)
    starts = np.arange(0, 1_000_000, 2000)
    truth = frame([("chr1", s, s + 200, 1.0) for s in starts])
    universe = frame([("chr1", 0, 1_000_000, 1.0)])
    calls = frame([("chr1", s + 50, s + 250, rng.random()) for s in rng.permutation(starts)[:400]])
    calls = pd.concat([calls, frame([("chr1", s + 900, s + 1100, -1.0) for s in starts])])
    result = benchmark_calls({"m": calls}, truth, universe)
    assert result.prevalence == pytest.approx(0.1)
    table = result.table.set_index("method")
    assert table["control"].tolist() == [False, True, True]
    assert table.loc["random", "precision"] == pytest.approx(0.1, abs=0.03)
    # permuting the scores leaves the precision of all calls together: 400 × 150 of 900 × 200 bp
    assert table.loc["shuffled", "precision"] == pytest.approx(1 / 3, abs=0.06)
    assert table.loc["m", "precision"] == pytest.approx(0.6)  # the 80,000 good bp, then random ones that miss
    again = benchmark_calls({"m": calls}, truth, universe)
    pd.testing.assert_frame_equal(result.table, again.table)


def test_benchmark_calls__random_intervals_stay_in_the_universe_and_keep_their_length():
    universe = frame([("chr1", 0, 37, 1.0), ("chr2", 100, 111, 1.0)])
    axis = _Axis(universe, frame([("chr1", 0, 5, 1.0)]))
    length = np.repeat([5, 11, 29], 100)
    start, end = axis.scatter(length, np.random.default_rng(0))
    assert (end - start == length).all()
    inside = ((start >= 0) & (end <= 37)) | ((start >= 37 + 100) & (end <= 37 + 111))
    assert inside.all()
    start, end = axis.scatter(np.array([50]), np.random.default_rng(0))  # fits nowhere: cut
    assert 0 < (end - start)[0] <= 37


def test_benchmark_calls__ties_follow_the_seed_only():
    universe, truth = frame([("chr1", 0, 1000, 1.0)]), frame([("chr1", 0, 50, 1.0)])
    calls = frame([("chr1", i * 10, i * 10 + 10, 1.0) for i in range(100)])
    a, b, c = (benchmark_calls({"m": calls}, truth, universe, budget_bp=200, seed=s).table.loc[0, "recall"]
               for s in (3, 3, 4))
    assert a == b
    assert a != c


def test_benchmark_calls__no_calls_is_a_result():
    universe, truth = frame([("chr1", 0, 1000, 1.0)]), frame([("chr1", 0, 50, 1.0)])
    row = benchmark_calls({"none": truth.iloc[:0]}, truth, universe).table.iloc[0]
    assert row[["auprc", "auprc_full", "recall", "f1", "called_bp"]].tolist() == [0, 0, 0, 0, 0]
    assert np.isnan(row["precision"])


def test_benchmark_calls__says_what_is_wrong():
    universe, truth = frame([("chr1", 0, 1000, 1.0)]), frame([("chr1", 0, 50, 1.0)])
    with pytest.raises(SchemaError, match="need a column score"):
        benchmark_calls({"m": truth[["chrom", "start", "end"]]}, truth, universe)
    with pytest.raises(SchemaError, match="1 of 1 calls of m have no finite score; first: chr1:0-50 = nan"):
        benchmark_calls({"m": truth.assign(score=np.nan)}, truth, universe)
    with pytest.raises(SchemaError, match="none of its 1 intervals lies in the 1,000 bp"):
        benchmark_calls({"m": truth}, truth.assign(chrom="1"), universe)
    with pytest.raises(UnknownNameError, match="did you mean 'mask'"):
        benchmark_calls({"mask": truth}, truth, universe, control_of="msk")
    with pytest.raises(ValueError, match="rename the method random"):
        benchmark_calls({"random": truth}, truth, universe)
    with pytest.raises(ValueError, match="at least one method"):
        benchmark_calls({}, truth, universe)
    with pytest.raises(ValueError, match="budget must be at least 1 bp"):
        benchmark_calls({"m": truth}, truth, universe, budget_bp=0)


LINK = ("chrom", "start", "end", "gene_id", "label")


def test_benchmark_links__takes_the_best_overlapping_call_of_the_right_gene():
    truth = frame([("chr1", 0, 100, "a", 1), ("chr1", 0, 100, "b", 0), ("chr1", 500, 600, "a", 0),
                   ("chr2", 0, 100, "a", 1)], LINK)
    calls = frame([("chr1", 90, 130, "a", 0.2), ("chr1", 20, 40, "a", 0.9), ("chr1", 100, 130, "b", 5.0),
                   ("chr1", 590, 700, "a", 0.5), ("chr2", 300, 400, "a", 9.0)],
                  ("chrom", "start", "end", "gene_id", "score"))
    result = benchmark_links({"m": calls}, truth)
    row = result.table.iloc[0]
    assert result.prevalence == 0.5
    assert row["total_pairs"] == 2  # a at 0–100 (0.9) and a at 500–600 (0.5); b touches only, chr2 is missed
    assert row["auprc"] == row["auprc_full"] == pytest.approx(0.5)
    assert row[["precision", "recall", "budget_pairs"]].tolist() == [0.5, 0.5, 2]


def test_benchmark_links__full_area_is_average_precision():
    rng = np.random.default_rng(0)
    n = 997
    label, score = rng.random(n) < 0.2, rng.normal(size=n)
    truth = pd.DataFrame({"chrom": "chr1", "start": np.arange(n) * 10, "end": np.arange(n) * 10 + 10,
                          "gene_id": rng.choice(["a", "b", "c"], n), "label": label})
    calls = truth.drop(columns="label").assign(score=score + label)
    table = benchmark_links({"m": calls}, truth).table.set_index("method")
    assert table.loc["m", "auprc_full"] == pytest.approx(average_precision_score(label, score + label))
    for control in ("random", "shuffled"):
        assert table.loc[control, "auprc_full"] == pytest.approx(0.2, abs=0.05)


def test_benchmark_links__says_what_is_wrong():
    truth = frame([("chr1", 0, 100, "a", 1)], LINK)
    calls = truth.assign(score=1.0)
    with pytest.raises(SchemaError, match="tested pairs need the columns"):
        benchmark_links({"m": calls}, truth.drop(columns="label"))
    with pytest.raises(SchemaError, match="1 of 2 repeat; first: chr1:0-100 a"):
        benchmark_links({"m": calls}, pd.concat([truth, truth]))
    with pytest.raises(SchemaError, match="all 1 labels are 0"):
        benchmark_links({"m": calls}, truth.assign(label=0))
    with pytest.raises(SchemaError, match="need a column gene_id"):
        benchmark_links({"m": calls.drop(columns="gene_id")}, truth)


G, N, T = 41, 101, 2


class Additive:
    """y = Σ keep · gain; few bins of each gene carry it all."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.gain = np.zeros((G, T, N), np.float32)
        for g in range(G):
            bins = rng.choice(N, 5, replace=False)
            self.gain[g][:, bins] = rng.uniform(0.5, 2, (T, 5))

    def predict(self, X, S=None, covariates=None, keep=None, batch_size=64, progress=False):
        keep = torch.ones(len(X), N) if keep is None else keep
        return (torch.from_numpy(self.gain) * keep[:, None]).sum(-1)


def test_sufficiency_necessity__the_right_bins_are_sufficient_and_necessary():
    oracle = Additive()
    scores = oracle.gain.sum(axis=1)
    table = sufficiency_necessity(oracle, torch.zeros(G, 7, dtype=torch.uint8), None, None, scores,
                                  budgets=(0.01, 0.05), n_random=3)
    assert len(table) == 2 * 2 * 4
    at = table.set_index(["budget", "kind", "order"])
    whole = oracle.gain.sum(-1).mean()
    assert at.loc[(0.05, "sufficiency", "model"), "r"] == pytest.approx(1)
    assert at.loc[(0.05, "sufficiency", "model"), "mean_abs_change"] == pytest.approx(0, abs=1e-6)
    assert at.loc[(0.05, "necessity", "model"), "mean_abs_change"] == pytest.approx(whole, rel=1e-5)
    assert np.isnan(at.loc[(0.05, "necessity", "model"), "r"])  # nothing is left to correlate
    for order in ("random", "shuffled", "distance"):
        assert at.loc[(0.05, "sufficiency", order), "r"] < 0.7
        assert at.loc[(0.05, "necessity", order), "mean_abs_change"] < 0.3 * whole
    one_bin = at.loc[(0.01, "necessity", "model"), "mean_abs_change"]
    top = np.take_along_axis(oracle.gain, scores.argmax(-1)[:, None, None], axis=2).mean()
    assert one_bin == pytest.approx(top, rel=1e-5)


def test_sufficiency_necessity__observed_expression_and_seed():
    oracle = Additive()
    y = oracle.gain.sum(-1) + np.random.default_rng(0).normal(size=(G, T)).astype(np.float32)
    arguments = (oracle, torch.zeros(G, 7, dtype=torch.uint8), None, None, oracle.gain.sum(axis=1), (0.05,), y)
    a, b = sufficiency_necessity(*arguments, seed=2), sufficiency_necessity(*arguments, seed=2)
    pd.testing.assert_frame_equal(a, b)
    expected = np.mean([np.corrcoef(y[:, t], oracle.gain.sum(-1)[:, t])[0, 1] for t in range(T)])
    assert a.loc[0, "r"] == pytest.approx(expected, rel=1e-5)


def test_sufficiency_necessity__says_what_is_wrong():
    X, scores = torch.zeros(G, 7, dtype=torch.uint8), np.zeros((G, N))
    with pytest.raises(ValueError, match="budgets are fractions"):
        sufficiency_necessity(Additive(), X, None, None, scores, budgets=(0.1, 5.0))
    with pytest.raises(SchemaError, match="at least 3 windows; got 2 rows, 2 windows"):
        sufficiency_necessity(Additive(), X[:2], None, None, scores[:2])
    with pytest.raises(SchemaError, match=r"y must have the shape of the prediction, \(41, 2\); got \(41, 3\)"):
        sufficiency_necessity(Additive(), X, None, None, scores, y=np.zeros((G, T + 1)))
    with pytest.raises(SchemaError, match="1 of 4,141 are not"):
        sufficiency_necessity(Additive(), X, None, None, np.where(np.arange(G * N).reshape(G, N) == 7, np.nan, 0.0))
