"""Curves: training over epochs, element calls over base pairs, correlation over the width of the window.

Every function takes a result table and returns the axes or the figure it drew.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ciscribe.errors import SchemaError
from ciscribe.plot.style import (
    BLUE,
    DASHES,
    MUTED,
    ORANGE,
    SLATE,
    SMALL,
    SURFACE,
    WIDTH,
    axes_grid,
    check_columns,
    display_name,
    fit_text,
    number,
    series_colors,
    style,
    text_width,
    width_points,
)

_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


@style()
def plot_training(log: pd.DataFrame) -> Figure:
    """Loss, and the validation correlation where it was logged, over the epochs of training.

    Parameters
    ----------
    log
        Columns ``epoch`` (from 0; shown from 1) and any of ``train_loss, valid_loss, valid_pearson``; missing values
        are skipped. The epoch with the lowest ``valid_mse`` (else the highest correlation) is marked as kept.
    """
    check_columns(log, ("epoch",), "a training log")
    losses = [c for c in ("train_loss", "valid_loss") if c in log.columns and bool(log[c].notna().to_numpy().any())]
    scores = [c for c in ("valid_pearson",) if c in log.columns and bool(log[c].notna().to_numpy().any())]
    panels = [p for p in (losses, scores) if p]
    if not panels:
        raise SchemaError(
            "a training log needs a value in train_loss, valid_loss or valid_pearson; "
            f"got the columns {', '.join(map(str, log.columns))} without any"
        )
    figure, axes = axes_grid(len(panels), len(panels), width=WIDTH if len(panels) > 1 else 6, panel_height=2.5, gap=0.8)
    for ax, columns in zip(axes, panels, strict=True):
        for column in columns:
            rows = log[["epoch", column]].dropna()
            color, dash = (SLATE, DASHES[1]) if column == "train_loss" else (BLUE, "-")
            ax.plot(
                rows["epoch"] + 1,
                rows[column],
                color=color,
                ls=dash,
                marker="o",
                ms=3.5,
                label=column.split("_")[0].replace("valid", "validation"),
            )
        ax.set(xlabel="epoch", title="loss" if columns is losses else "Pearson r, validation")
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(6))
        ax.margins(x=0.03, y=0.12)
        if columns is losses:
            ax.legend(loc="upper right")
        else:
            # the weights of the epoch with the lowest validation error are kept, not those of the highest r
            error = "valid_mse" if "valid_mse" in log.columns else None
            kept = -log[error].to_numpy(float) if error else log[columns[0]].to_numpy(float)
            best = log.iloc[int(np.nanargmax(kept))]
            ax.plot(
                best["epoch"] + 1,
                best[columns[0]],
                marker="o",
                ms=8,
                mfc="none",
                mec=ORANGE,
                mew=1.8,
                ls="",
                label=f"kept: epoch {best['epoch'] + 1:g}, r {best[columns[0]]:.3f}",
            )
            ax.legend(loc="lower right")
    return figure


@style()
def plot_precision_recall(curves: pd.DataFrame, table: pd.DataFrame, *, main: str | None = None,
                          calls: str = "base pairs") -> Figure:
    """Precision against recall of the calls of every method; the legend ranks them by area.

    Parameters
    ----------
    curves
        Columns ``method, bp, precision, recall``, one row for each number of base pairs called.
    table
        Columns ``method, auprc``; where it has ``precision`` and ``recall``, the point at the shared budget
        is marked.
    main
        Method drawn first and strongest; None takes the first of the table.
    calls
        What is called: ``base pairs`` of elements, or ``pairs`` of an element and a gene.
    """
    check_columns(curves, ("method", "precision", "recall"), "a table of precision–recall curves")
    check_columns(table, ("method", "auprc"), "a benchmark table")
    main = main if main is not None else str(table["method"].iloc[0]) if len(table) else None
    ranked = table.sort_values("auprc", ascending=False, kind="stable")
    colors = series_colors(map(str, table["method"]), main)
    dashes = dict(zip(colors, DASHES * len(colors), strict=False))
    right = 3.6
    figure, (ax,) = axes_grid(1, 1, panel_height=3.7, right=right)
    for row in ranked.to_dict("records"):
        name = str(row["method"])
        curve = curves.loc[curves["method"] == row["method"]].sort_values("recall", kind="stable")
        label = f"{number(row['auprc'])}  {fit_text(display_name(name), (right - 1.45) * 72)}"
        ax.plot(
            curve["recall"],
            curve["precision"],
            color=colors[name],
            ls=dashes[name],
            lw=2.4 if name == main else 1.6,
            label=label,
            zorder=4 if name == main else 3,
        )
        point = row.get("recall", np.nan), row.get("precision", np.nan)
        if np.isfinite(point).all():
            ax.plot(*point, marker="o", ms=7, mfc=colors[name], mec=SURFACE, mew=1.2, ls="", zorder=5)
    ax.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel=f"recall (share of the true {calls} that are called)",
        ylabel="precision (share of calls that are true)",
    )
    if len(ranked):
        legend = ax.legend(
            loc="upper left",
            bbox_to_anchor=(1.03, 1.02),
            title="AUPRC, method",
            labelspacing=0.7,
            alignment="left",
        )
        legend.get_title().set(color=MUTED, fontsize=SMALL)
    return figure


@style()
def plot_budget_curves(suff_nec: pd.DataFrame) -> Figure:
    """Draw what is left of the predictions when only the ranked base pairs are kept, and without them.

    Parameters
    ----------
    suff_nec
        Columns ``budget`` (share of the window, or bp), ``kind`` (``sufficiency`` or ``necessity``),
        ``order`` (who ranked the base pairs) and ``r``.
    """
    check_columns(suff_nec, ("budget", "kind", "order", "r"), "a sufficiency and necessity table")
    titles = {
        "sufficiency": "only these base pairs kept  (higher is better)",
        "necessity": "these base pairs removed  (lower is better)",
    }
    kinds = [k for k in titles if (suff_nec["kind"] == k).any()]
    if not kinds:
        raise SchemaError(
            "a sufficiency and necessity table needs rows of kind sufficiency or necessity; "
            f"got: {', '.join(map(str, suff_nec['kind'].unique())) or '(no rows)'}"
        )
    orders = [str(o) for o in suff_nec["order"].unique()]
    colors = series_colors(orders)
    dashes = dict(zip(orders, DASHES * len(orders), strict=False))
    width = WIDTH if len(kinds) > 1 else 6
    longest = max(text_width(display_name(o)) for o in orders)
    columns = max(1, min(len(orders), int((width - 0.7) * 72 / (longest + 42))))
    rows_of_names = -(-len(orders) // columns)
    figure, axes = axes_grid(
        len(kinds), len(kinds), width=width, panel_height=2.7, top=0.45 + 0.21 * rows_of_names, gap=0.7
    )
    share = suff_nec["budget"].max() <= 1
    low, high = min(0.0, float(suff_nec["r"].min())), max(1.0, float(suff_nec["r"].max()))
    for ax, kind in zip(axes, kinds, strict=True):
        for order in orders:
            rows = suff_nec.loc[(suff_nec["kind"] == kind) & (suff_nec["order"].astype(str) == order)]
            rows = rows.sort_values("budget", kind="stable")
            ax.plot(
                rows["budget"],
                rows["r"],
                color=colors[order],
                ls=dashes[order],
                marker="o",
                ms=3.5,
                lw=2.2 if order == orders[0] else 1.6,
                zorder=4 if order == orders[0] else 3,
            )
        ax.set_title(titles[kind])
        ax.set(ylim=(low - 0.03, high + 0.03), xlabel="share of the window" if share else "base pairs a gene")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0) if share else _THOUSANDS)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes[0].set_ylabel("Pearson r")
    handles = [
        Line2D([], [], color=colors[o], ls=dashes[o], lw=2, marker="o", ms=3.5, label=display_name(o)) for o in orders
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.5 / figure.get_figwidth(), 1),
        ncols=columns,
        borderaxespad=0.2,
        columnspacing=1.8,
    )
    return figure


@style()
def plot_truncation(truncation: Sequence[Mapping[str, int | float]]) -> Axes:
    """Correlation when the model sees only the middle of its window: how far the useful context reaches.

    Parameters
    ----------
    truncation
        Rows of ``window_bp`` (bp left around the TSS) and ``pearson``.
    """
    rows = sorted(truncation, key=lambda row: row["window_bp"])
    figure, (ax,) = axes_grid(1, 1, width=6.4, panel_height=2.7)
    del figure  # the axes keep it
    bp = [row["window_bp"] for row in rows]
    r = [row["pearson"] for row in rows]
    ax.plot(bp, r, color=BLUE, marker="o", ms=5)
    ax.set_xscale("log", base=2)
    labels = [f"{b / 1000:.3g} kb" if b >= 1000 else f"{b:g} bp" for b in bp]
    position = np.log2(bp) / max(np.ptp(np.log2(bp)), 1e-9) * width_points(ax) * 0.9
    shown, last = [], -np.inf
    for i in range(len(bp))[::-1]:  # the full window is the one that must keep its label
        half = text_width(labels[i]) / 2
        if not shown or position[i] + half + 6 < last:
            shown.append(i)
            last = position[i] - half
    ax.set_xticks([bp[i] for i in shown], [labels[i] for i in shown])
    ax.set_xticks([], minor=True)
    ax.margins(x=0.05, y=0.2)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set(xlabel="window that the model sees around the TSS", ylabel="Pearson r")
    return ax
