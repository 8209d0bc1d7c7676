import matplotlib
import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import SchemaError
from ciscribe.plot import plot_metric_bars, plot_scatter, plot_scatter_grid

LONG = "embryo, mixed stages, N2 wild type (mean of four libraries)"


def names(n):
    return [LONG, *(f"L{i} larva, mixed sex, fed" for i in range(1, n))][:n]


def metrics(targets, models=("seq2exp", "gbm_sequence_signals", "gbm_signals"), ceiling=True):
    def score(v):
        return {"value": v, "low": v - 0.03, "high": v + 0.02}

    scores = {
        m: {
            "per_target": {t: {"pearson": score(0.7 - 0.07 * i)} for t in targets},
            "mean": {"pearson": score(0.7 - 0.07 * i)},
            "across_target": None,
        }
        for i, m in enumerate(models)
    }
    return {
        "targets": targets,
        "main": "seq2exp",
        "models": scores,
        "noise_ceiling": {"pearson": dict.fromkeys([*targets, "mean"], 0.9)} if ceiling else None,
    }


def predictions(targets, n):
    rng = np.random.default_rng(0)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "cell": t,
                    "fold": "test",
                    "observed": (x := rng.gamma(2, 1, n)),
                    "predicted": x + rng.normal(0, 1, n),
                }
            )
            for t in targets
        ]
    )


def test_plot_scatter__r_and_n_of_known_pairs():
    ax = plot_scatter(np.array([1.0, 2, 3, np.nan, 5]), np.array([2.0, 4, 6, 8, np.nan]))
    assert ax.texts[0].get_text() == "r = 1.000 · n = 3"


def test_plot_scatter__constant_prediction_has_no_r():
    assert "r = n/a" in plot_scatter(np.arange(5.0), np.full(5, 2.0)).texts[0].get_text()


def test_plot_scatter__many_points_become_hexagons_that_count_all():
    rng = np.random.default_rng(1)
    x = rng.normal(size=2003)
    ax = plot_scatter(x, x + rng.normal(size=2003))
    assert ax.collections[0].get_array().sum() == 2003


def test_plot_scatter__lengths_must_agree():
    with pytest.raises(SchemaError, match=r"\(3,\) and \(5,\)"):
        plot_scatter(np.zeros(3), np.zeros(5))


@pytest.mark.parametrize("n", [1, 2, 3, 6, 11])
def test_plot_scatter_grid__readable(n, assert_readable):
    figure = plot_scatter_grid(predictions(names(n), 31), units="log10(TPM + 1)")
    assert len(figure.axes) == n
    assert_readable(figure, at_least=3 * n)


def test_plot_scatter_grid__fold_without_genes_lists_the_folds():
    with pytest.raises(SchemaError, match="no row in fold 'valid'; folds in the table: test"):
        plot_scatter_grid(predictions(["a"], 5), fold="valid")


@pytest.mark.parametrize("n", [1, 3, 11])
@pytest.mark.parametrize("models", [("seq2exp",), ("gbm_signals", "seq2exp", "gbm_sequence_signals", "prism")])
def test_plot_metric_bars__readable(n, models, assert_readable):
    assert_readable(plot_metric_bars(metrics(names(n), models)), at_least=n + 3)


def test_plot_metric_bars__bars_whiskers_and_ceiling_are_where_the_numbers_are():
    ax = plot_metric_bars(metrics(["a", "b"])).axes[0]
    widths = sorted({round(p.get_width(), 3) for p in ax.patches})
    assert widths == [0.56, 0.63, 0.7]
    assert len(ax.patches) == 9  # (mean + 2 targets) x 3 models
    whisker = ax.collections[-1].get_segments()[0]
    assert whisker[:, 0].tolist() == pytest.approx([0.53, 0.58])
    assert sum(list(line.get_xdata()) == [0.9, 0.9] for line in ax.lines) == 3


def test_plot_metric_bars__missing_numbers_draw_nothing():
    result = metrics(["a"], ceiling=False)
    result["models"]["gbm_signals"]["per_target"]["a"]["pearson"] = {"value": None, "low": None, "high": None}
    ax = plot_metric_bars(result).axes[0]
    assert [p.get_width() for p in ax.patches].count(0) == 1


def test_plots__leave_global_settings_alone():
    before = dict(matplotlib.rcParams)
    plot_metric_bars(metrics(["a"]))
    plot_scatter(np.arange(3.0), np.arange(3.0))
    with pytest.raises(SchemaError):
        plot_scatter(np.zeros(3), np.zeros(5))
    assert dict(matplotlib.rcParams) == before
