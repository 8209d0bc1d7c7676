import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import SchemaError
from ciscribe.plot import plot_budget_curves, plot_precision_recall, plot_training, plot_truncation


def benchmark(n=5):
    methods = [f"method_{i}_with_a_really_long_descriptive_name" for i in range(n)]
    table = pd.DataFrame({"method": methods, "auprc": np.linspace(0.2, 0.8, n), "precision": 0.5, "recall": 0.4})
    curves = pd.concat(
        [
            pd.DataFrame(
                {
                    "method": m,
                    "bp": np.arange(7),
                    "precision": np.linspace(1, 0.1, 7),
                    "recall": np.linspace(0, 1, 7),
                }
            )
            for m in methods
        ]
    )
    return curves, table


def budgets(orders=("model", "random"), scale=1.0):
    return pd.DataFrame(
        [
            {"budget": b * scale, "kind": k, "order": o, "r": 0.5}
            for b in (0.01, 0.1, 0.3)
            for k in ("sufficiency", "necessity")
            for o in orders
        ]
    )


def test_plot_training__readable_and_skips_missing(assert_readable):
    log = pd.DataFrame(
        {
            "epoch": range(7),
            "train_loss": np.linspace(1, 0.2, 7),
            "valid_loss": [np.nan, *[0.5] * 6],
            "valid_pearson": [0.1, 0.3, np.nan, 0.7, 0.6, 0.5, 0.5],
        }
    )
    figure = plot_training(log)
    assert_readable(figure, at_least=8)
    assert len(figure.axes[0].lines[1].get_xdata()) == 6
    assert "kept: epoch 4, r 0.700" in [t.get_text() for t in figure.axes[1].get_legend().get_texts()]


def test_plot_training__without_correlation_one_panel():
    assert len(plot_training(pd.DataFrame({"epoch": [0, 1], "train_loss": [1, 0.5]})).axes) == 1


def test_plot_training__nothing_logged_is_an_error():
    with pytest.raises(SchemaError, match="needs a value in train_loss"):
        plot_training(pd.DataFrame({"epoch": [0], "valid_loss": [np.nan]}))


@pytest.mark.parametrize("n", [1, 5, 11])
def test_plot_precision_recall__readable_and_ranked(n, assert_readable):
    figure = plot_precision_recall(*benchmark(n))
    assert_readable(figure, at_least=n + 3)
    labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert labels[0].startswith("0.800" if n > 1 else "0.200")
    assert len(labels) == n


def test_plot_budget_curves__two_panels_in_percent(assert_readable):
    figure = plot_budget_curves(budgets())
    assert_readable(figure, at_least=10)
    assert len(figure.axes) == 2
    assert figure.axes[0].get_xlabel() == "share of the window"


def test_plot_budget_curves__base_pairs_keep_thousands(assert_readable):
    figure = plot_budget_curves(budgets(scale=300_000))
    assert_readable(figure)
    assert figure.axes[0].get_xlabel() == "base pairs a gene"


def test_plot_budget_curves__unknown_kind_is_named():
    with pytest.raises(SchemaError, match="got: both"):
        plot_budget_curves(budgets().assign(kind="both"))


@pytest.mark.parametrize("n", [1, 3, 19])
def test_plot_truncation__last_window_keeps_its_label(n, assert_readable):
    ax = plot_truncation([{"window_bp": int(200 * 1.5**i), "pearson": 0.5 + 0.01 * i} for i in range(n)])
    assert_readable(ax.get_figure())
    assert len(ax.lines[0].get_xdata()) == n
    assert ax.get_xticks().max() == int(200 * 1.5 ** (n - 1))


def test_plot_training__marks_the_epoch_that_was_kept():
    log = pd.DataFrame({"epoch": [0, 1, 2], "train_loss": [1, 0.5, 0.4], "valid_pearson": [0.1, 0.5, 0.6],
                        "valid_mse": [1.0, 0.3, 0.4]})
    assert "kept: epoch 2, r 0.500" in [t.get_text() for t in plot_training(log).axes[1].get_legend().get_texts()]
