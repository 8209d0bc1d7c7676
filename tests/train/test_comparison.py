import numpy as np
import pytest

from ciscribe.errors import SchemaError
from ciscribe.train.comparison import Fitted, by_decile, calibration, ensemble, paired_differences, spread
from ciscribe.train.metrics import across_target_r, pearson

G, T = 211, 3
ROWS = {"chrI": np.arange(0, 101), "chrII": np.arange(101, 211)}


def make(noise, seeds=2, folds=ROWS, begin=0):
    rng = np.random.default_rng(begin)
    return [Fitted(fold, s, rows, OBSERVED[rows] + noise * rng.normal(size=(len(rows), T)))
            for fold, rows in folds.items() for s in range(seeds)]


OBSERVED = np.random.default_rng(5).normal(size=(G, T)) + np.random.default_rng(6).normal(size=(G, 1))


def test_spread__is_the_mean_over_targets_of_each_fit():
    fits = make(0.7)
    table = spread(OBSERVED, fits)
    assert table[["fold", "seed"]].to_numpy().tolist() == [[f.fold, f.seed] for f in fits]
    for row, f in zip(table.to_dict("records"), fits, strict=True):
        o = OBSERVED[f.rows]
        assert row["pearson"] == pytest.approx(np.mean([pearson(o[:, t], f.predicted[:, t]) for t in range(T)]))
        assert row["across_target"] == pytest.approx(across_target_r(o, f.predicted))
        assert row["mse"] == pytest.approx(((o - f.predicted) ** 2).mean())


def test_paired_differences__value_and_gain_are_those_of_the_fits():
    fits = {"good": make(0.4), "poor": make(1.3, begin=9)}
    table = paired_differences(OBSERVED, fits, "poor", n_bootstrap=200).set_index(["model", "figure"])
    for model, of in fits.items():
        expected = spread(OBSERVED, of).groupby("fold")[["pearson", "across_target"]].mean().mean()
        for figure in ("pearson", "across_target"):
            assert table.loc[(model, figure), "value"] == pytest.approx(expected[figure])
    row = table.loc[("good", "pearson")]
    assert row["gain"] == pytest.approx(row["value"] - table.loc[("poor", "pearson"), "value"])
    assert row["gain_low"] > 0
    assert row["p"] == pytest.approx(1 / 200)
    own = table.loc[("poor", "pearson")]
    assert own["gain"] == own["gain_low"] == own["gain_high"] == 0
    assert own["p"] == 1


def test_paired_differences__interval_of_equals_covers_nothing_gained():
    covered = 0
    for begin in range(20):
        fits = {"a": make(1.0, begin=2 * begin), "b": make(1.0, begin=2 * begin + 1)}
        row = paired_differences(OBSERVED, fits, "a", n_bootstrap=200).query("model == 'b' and figure == 'pearson'")
        covered += bool(row["gain_low"].iloc[0] <= 0 <= row["gain_high"].iloc[0])
    assert covered >= 16


def test_paired_differences__over_common_folds_only():
    one = {"chrII": ROWS["chrII"]}
    fits = {"all": make(0.5), "one": make(0.5, folds=one, begin=3)}
    table = paired_differences(OBSERVED, fits, "all", n_bootstrap=50)
    row = table.query("model == 'one' and figure == 'pearson'").iloc[0]
    mine = spread(OBSERVED, fits["one"])["pearson"].mean()
    other = spread(OBSERVED, [f for f in fits["all"] if f.fold == "chrII"])["pearson"].mean()
    assert row["n_folds"] == 1
    assert row["gain"] == pytest.approx(mine - other)


def test_paired_differences__constant_predictions_count_as_none():
    flat = [f._replace(predicted=np.full_like(f.predicted, 2.0)) for f in make(1.0)]
    table = paired_differences(OBSERVED, {"flat": flat, "good": make(0.4)}, "good", n_bootstrap=50)
    row = table.query("model == 'flat' and figure == 'pearson'").iloc[0]
    assert row["value"] == 0
    assert row["gain_high"] < 0


def test_paired_differences__says_what_cannot_be_compared():
    with pytest.raises(SchemaError, match="has no fits"):
        paired_differences(OBSERVED, {"a": make(1.0)}, "b")
    with pytest.raises(SchemaError, match="no fold in common"):
        paired_differences(OBSERVED, {"a": make(1.0, folds={"chrI": ROWS["chrI"]}),
                                      "b": make(1.0, folds={"chrII": ROWS["chrII"]})}, "a")
    moved = make(1.0)
    moved[0] = moved[0]._replace(rows=moved[0].rows[::-1])
    with pytest.raises(SchemaError, match="hold out different genes"):
        paired_differences(OBSERVED, {"a": moved}, "a")


def test_ensemble__is_the_mean_of_the_seeds():
    fits = make(0.9)
    got = ensemble(fits)
    assert [(f.fold, f.seed) for f in got] == [("chrI", -1), ("chrII", -1)]
    assert np.allclose(got[0].predicted, (fits[0].predicted + fits[1].predicted) / 2)


def test_by_decile__genes_are_sorted_by_what_was_measured():
    fits = make(0.5, seeds=1, folds={"chrI": ROWS["chrI"]})
    table = by_decile(OBSERVED, fits, n=4)
    o, p = OBSERVED[fits[0].rows], fits[0].predicted
    expected = []
    for t in range(T):
        order = np.argsort(o[:, t], kind="stable")
        expected.append([pearson(o[part, t], p[part, t]) for part in np.array_split(order, 4)])
    assert table["decile"].tolist() == [1, 2, 3, 4]
    assert np.allclose(table["r"], np.mean(expected, axis=0))
    assert table["observed"].is_monotonic_increasing


def test_calibration__finds_the_line():
    fits = [f._replace(predicted=(OBSERVED[f.rows] - 0.5) / 2) for f in make(0.0)]
    table = calibration(OBSERVED, fits, n=5)
    assert np.allclose(table["slope"], 2)
    assert np.allclose(table["intercept"], 0.5)
    assert np.allclose(table["observed"], 2 * table["predicted"] + 0.5)
    assert len(table) == 5
