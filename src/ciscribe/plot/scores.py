"""How good a model is, drawn: measured against predicted, metrics beside baselines, training, element curves.

Every function takes a result table (or the metrics dictionary of a run) and returns the axes or the figure it
drew. Missing numbers are left out, never drawn as zero.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ciscribe.errors import SchemaError
from ciscribe.plot.style import (
    BLUE,
    BODY,
    DASHES,
    INK,
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
    series_colors,
    style,
    text_width,
)

_MANY_POINTS = 900  # above this, dots hide each other and the SVG grows; hexagons count them instead


@style()
def plot_scatter(
    observed: np.ndarray | pd.Series,
    predicted: np.ndarray | pd.Series,
    *,
    title: str = "",
    units: str = "",
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Measured against predicted values, with Pearson r, the number of genes and the line of equality.

    Parameters
    ----------
    observed, predicted
        One value a gene, same length and order; pairs with a missing value are left out.
    title
        Name of the target; shortened when it is wider than the panel.
    units
        Of both axes, e.g. ``log10(TPM + 1)``.
    limits
        Range of both axes; None takes it from the data.
    ax
        Where to draw; None makes a figure.

    Raises
    ------
    SchemaError
        If the lengths differ.
    """
    x, y = np.asarray(observed, dtype=float), np.asarray(predicted, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise SchemaError(
            f"observed and predicted must be vectors of one length; got shapes {x.shape} and {y.shape}"
        )
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if ax is None:
        ax = axes_grid(1, 1, width=4.6, panel_height=3.7)[1][0]
    low, high = limits or _limits(x, y)
    ax.plot([low, high], [low, high], color=INK, lw=0.9, ls=(0, (4, 3)), zorder=3)
    if len(x) > _MANY_POINTS:
        # One hue that thickens with the count reads the same on light and on dark paper.
        shades = LinearSegmentedColormap.from_list("density", [(*to_rgb(BLUE), 0.13), (*to_rgb(BLUE), 1.0)])
        ax.hexbin(
            x,
            y,
            gridsize=34,
            extent=(low, high, low, high),
            mincnt=1,
            cmap=shades,
            norm=LogNorm(),
            linewidths=0,
            zorder=2,
        )
    else:
        ax.scatter(x, y, s=11, color=BLUE, alpha=0.4, linewidths=0, zorder=2)
    ax.set(
        xlim=(low, high),
        ylim=(low, high),
        xlabel=f"measured{f', {units}' if units else ''}",
        ylabel="predicted",
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    if title:
        ax.set_title(fit_text(title, _width_points(ax), BODY, bold=True))
    ax.text(
        0.03,
        0.97,
        f"r = {_number(_pearson(x, y))}   n = {len(x):,}",
        transform=ax.transAxes,
        va="top",
        fontsize=SMALL,
        zorder=4,
        bbox={"boxstyle": "square,pad=0.25", "facecolor": SURFACE, "edgecolor": "none", "alpha": 0.85},
    )
    return ax


@style()
def plot_scatter_grid(predictions: pd.DataFrame, *, fold: str = "test", units: str = "") -> Figure:
    """One scatter for every target of the predictions of one fold, all on the same scale.

    Parameters
    ----------
    predictions
        Long table with the columns ``cell, fold, observed, predicted``; targets keep the order of the table.
    fold
        Which genes: ``train``, ``valid`` or ``test``.
    units
        Of the values.

    Raises
    ------
    SchemaError
        If a column is missing or the fold has no row.
    """
    check_columns(predictions, ("cell", "fold", "observed", "predicted"), "a table of predictions")
    rows = predictions.loc[predictions["fold"] == fold]
    if not len(rows):
        folds = ", ".join(map(str, predictions["fold"].unique())) or "(none)"
        raise SchemaError(f"predictions have no gene in fold {fold!r}; folds in the table: {folds}")
    targets = list(rows["cell"].unique())
    n_columns = len(targets) if len(targets) <= 3 else 3 if len(targets) <= 6 else 4
    # One or two panels stretched over the page would be wide and flat; a scatter wants to be square.
    width = {1: 4.9, 2: 7.6}.get(n_columns, WIDTH)
    height = {1: 4.0, 2: 3.1, 3: 2.62}.get(n_columns, 1.92)
    figure, axes = axes_grid(len(targets), n_columns, width=width, panel_height=height)
    limits = _limits(rows["observed"].to_numpy(float), rows["predicted"].to_numpy(float))
    for i, (target, ax) in enumerate(zip(targets, axes, strict=True)):
        of_target = rows.loc[rows["cell"] == target]
        plot_scatter(
            of_target["observed"].to_numpy(float),
            of_target["predicted"].to_numpy(float),
            title=str(target),
            units=units,
            limits=limits,
            ax=ax,
        )
        if i % n_columns:
            ax.set_ylabel("")
        if i + n_columns < len(targets):
            ax.set_xlabel("")
    return figure


@style()
def plot_metric_bars(metrics: Mapping[str, Any], metric: str = "pearson") -> Figure:
    """One metric of every model, side by side for every target and their mean, with confidence intervals.

    Parameters
    ----------
    metrics
        The metrics of a run: ``targets``, ``main``, ``models`` and, where known, ``noise_ceiling``.
    metric
        ``pearson``, ``spearman``, ``mse`` or ``mae``; the noise ceiling is drawn where it is known for it.
    """
    models = metrics["models"]
    main = metrics.get("main")
    colors = series_colors(models, main)
    names = list(colors)
    targets = list(metrics["targets"])
    groups = ["mean of targets", *targets] if len(targets) > 1 else targets
    ceiling = (metrics.get("noise_ceiling") or {}).get(metric)
    ceiling = {**(ceiling or {}), "mean of targets": (ceiling or {}).get("mean")}

    left, right, top, bottom = 2.3, 0.3, 0.42, 0.55
    bar, pad = 0.15, 0.17
    group_height = bar * len(names) + pad
    height = top + bottom + group_height * len(groups)
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, 1 - (top + bottom) / height)
    )
    centers = -np.arange(len(groups)) * group_height
    for i, name in enumerate(names):
        result = models[name]
        scores = [
            (result["mean"] if group == "mean of targets" else result["per_target"].get(group, {})).get(
                metric
            )
            for group in groups
        ]
        value = np.array([_get(s, "value") for s in scores])
        y = centers + ((len(names) - 1) / 2 - i) * bar
        ax.barh(
            y, np.nan_to_num(value), height=bar * 0.8, color=colors[name], alpha=1.0 if name == main else 0.85
        )
        span = np.array(
            [[v - _get(s, "low"), _get(s, "high") - v] for s, v in zip(scores, value, strict=True)]
        ).T
        known = np.isfinite(span).all(axis=0)
        ax.errorbar(
            value[known],
            y[known],
            xerr=span[:, known].clip(min=0),
            fmt="none",
            ecolor=INK,
            elinewidth=1.1,
            capsize=0,
        )
    handles = [
        Line2D([], [], color=colors[n], lw=6, solid_capstyle="butt", label=display_name(n)) for n in names
    ]
    drawn = False
    for group, center in zip(groups, centers, strict=True):
        value = ceiling.get(group)
        if value is not None and np.isfinite(value):
            half = (group_height - pad * 0.55) / 2
            ax.plot([value, value], [center - half, center + half], color=INK, lw=1.6, ls=(0, (2, 1)))
            drawn = True
    if drawn:
        handles.append(Line2D([], [], color=INK, lw=1.6, ls=(0, (2, 1)), label="noise ceiling"))
    if len(groups) > 1:
        ax.axhline(-group_height / 2, color=MUTED, lw=0.6)
    ax.set_yticks(centers, [fit_text(str(g), (left - 0.15) * 72) for g in groups])
    ax.get_yticklabels()[0].set_fontweight("bold" if len(groups) > 1 else "normal")
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set(ylim=(centers[-1] - group_height / 2, group_height / 2), xlabel=_METRIC_NAMES.get(metric, metric))
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(8))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=((left - 0.1) / WIDTH, 1),
        ncols=len(handles),
        borderaxespad=0.2,
        columnspacing=1.8,
    )
    return figure


@style()
def plot_training(log: pd.DataFrame) -> Figure:
    """Loss, and the validation correlation where it was logged, over the epochs of training.

    Parameters
    ----------
    log
        Columns ``epoch`` and any of ``train_loss, valid_loss, valid_pearson``; missing values are skipped.
    """
    check_columns(log, ("epoch",), "a training log")
    losses = [
        c for c in ("train_loss", "valid_loss") if c in log.columns and bool(log[c].notna().to_numpy().any())
    ]
    scores = [c for c in ("valid_pearson",) if c in log.columns and bool(log[c].notna().to_numpy().any())]
    panels = [p for p in (losses, scores) if p]
    if not panels:
        raise SchemaError(
            "a training log needs a value in train_loss, valid_loss or valid_pearson; "
            f"got the columns {', '.join(map(str, log.columns))} without any"
        )
    figure, axes = axes_grid(
        len(panels), len(panels), width=WIDTH if len(panels) > 1 else 6, panel_height=2.5, gap=0.8
    )
    for ax, columns in zip(axes, panels, strict=True):
        for column in columns:
            rows = log[["epoch", column]].dropna()
            color, dash = (SLATE, DASHES[1]) if column == "train_loss" else (BLUE, "-")
            ax.plot(
                rows["epoch"],
                rows[column],
                color=color,
                ls=dash,
                marker="o",
                ms=3.5,
                label=column.split("_")[0].replace("valid", "validation"),
            )
        ax.set(xlabel="epoch", title="loss" if columns is losses else "Pearson r on validation genes")
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(6))
        ax.margins(x=0.03, y=0.12)
        if columns is losses:
            ax.legend(loc="upper right")
        else:
            rows = log[["epoch", *columns]].dropna()
            best = rows.loc[rows[columns[0]].idxmax()]
            ax.plot(
                best["epoch"],
                best[columns[0]],
                marker="o",
                ms=8,
                mfc="none",
                mec=ORANGE,
                mew=1.8,
                ls="",
                label=f"best {best[columns[0]]:.3f} in epoch {best['epoch']:g}",
            )
            ax.legend(loc="lower right")
    return figure


@style()
def plot_precision_recall(curves: pd.DataFrame, table: pd.DataFrame, *, main: str | None = None) -> Figure:
    """Precision against recall of the element calls of every method; the legend ranks them by area.

    Parameters
    ----------
    curves
        Columns ``method, bp, precision, recall``, one row for each number of base pairs called.
    table
        Columns ``method, auprc``; where it has ``precision`` and ``recall``, the point at the shared budget
        is marked.
    main
        Method drawn first and strongest; None takes the first of the table.
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
        label = f"{_number(row['auprc'])}  {fit_text(display_name(name), (right - 1.2) * 72)}"
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
        xlabel="recall (share of the true base pairs that are called)",
        ylabel="precision (share of calls that are true)",
    )
    if len(ranked):
        legend = ax.legend(
            loc="upper left",
            bbox_to_anchor=(1.03, 1.02),
            title="AUPRC   method",
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
    figure, axes = axes_grid(
        len(kinds), len(kinds), width=WIDTH if len(kinds) > 1 else 6, panel_height=2.7, top=0.66, gap=0.7
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
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=None) if share else _THOUSANDS)
        ax.xaxis.set_major_locator(MaxNLocator(6))
    axes[0].set_ylabel("Pearson r")
    handles = [
        Line2D([], [], color=colors[o], ls=dashes[o], lw=2, marker="o", ms=3.5, label=display_name(o))
        for o in orders
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.5 / figure.get_figwidth(), 1),
        ncols=min(5, len(handles)),
        borderaxespad=0.2,
        columnspacing=1.8,
    )
    return figure


@style()
def plot_truncation(truncation: Sequence[Mapping[str, float]]) -> Axes:
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
    labels = [f"{b / 1000:g} kb" if b >= 1000 else f"{b:g} bp" for b in bp]
    position = np.log2(bp) / max(np.ptp(np.log2(bp)), 1e-9) * _width_points(ax) * 0.9
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


_METRIC_NAMES = {
    "pearson": "Pearson r",
    "spearman": "Spearman ρ",
    "mse": "mean squared error",
    "mae": "mean absolute error",
}
_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


def _get(score: Mapping[str, Any] | None, key: str) -> float:
    value = (score or {}).get(key)
    return np.nan if value is None else float(value)


def _limits(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    values = np.concatenate([x, y])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    pad = 0.04 * (high - low) or 0.5
    return low - pad, high + pad


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or not x.std() or not y.std():
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def _number(value: float | None) -> str:
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _width_points(ax: Axes) -> float:
    figure = ax.get_figure(root=True)
    return ax.get_position().width * (figure.get_figwidth() if figure else WIDTH) * 72
