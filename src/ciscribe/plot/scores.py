"""How good a model is, drawn: measured against predicted values, and metrics beside the baselines.

Every function takes a result table (or the metrics dictionary of a run) and returns the axes or the figure it
drew. Missing numbers are left out, never drawn as zero.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ciscribe.errors import SchemaError
from ciscribe.plot.style import (
    BLUE,
    BODY,
    INK,
    MUTED,
    SMALL,
    SURFACE,
    WIDTH,
    axes_grid,
    check_columns,
    display_name,
    fit_text,
    number,
    series_colors,
    side_label,
    style,
    width_points,
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
    """Measured against predicted values, with Pearson r, the number of points and the line of equality.

    Parameters
    ----------
    observed, predicted
        One value a point (a gene, a sequence), same length and order; pairs with a missing value are left out.
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
        raise SchemaError(f"observed and predicted must be vectors of one length; got shapes {x.shape} and {y.shape}")
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
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if title:
        ax.set_title(fit_text(title, width_points(ax), BODY, bold=True))
    ax.text(
        0.03,
        0.97,
        f"r = {number(_pearson(x, y))} · n = {len(x):,}",
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
        Which rows: ``train``, ``valid`` or ``test``.
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
        raise SchemaError(f"predictions have no row in fold {fold!r}; folds in the table: {folds}")
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
        ``pearson``, ``spearman``, ``mse``, ``mae``, ``auroc`` or ``auprc``; the noise ceiling is drawn where it
        is known for it.
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
    ax = figure.add_axes((left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, 1 - (top + bottom) / height))
    centers = -np.arange(len(groups)) * group_height
    for i, name in enumerate(names):
        result = models[name]
        scores = [
            (result["mean"] if group == "mean of targets" else result["per_target"].get(group, {})).get(metric)
            for group in groups
        ]
        value = np.array([_get(s, "value") for s in scores])
        y = centers + ((len(names) - 1) / 2 - i) * bar
        ax.barh(y, np.nan_to_num(value), height=bar * 0.8, color=colors[name], alpha=1.0 if name == main else 0.85)
        span = np.array([[v - _get(s, "low"), _get(s, "high") - v] for s, v in zip(scores, value, strict=True)]).T
        known = np.isfinite(span).all(axis=0)
        for color, lw in ((SURFACE, 3.0), (INK, 1.2)):  # a light casing keeps the line visible on a dark bar
            ax.errorbar(
                value[known],
                y[known],
                xerr=span[:, known].clip(min=0),
                fmt="none",
                ecolor=color,
                elinewidth=lw,
            )
    handles = [Line2D([], [], color=colors[n], lw=6, solid_capstyle="butt", label=display_name(n)) for n in names]
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
    ax.set(
        yticks=[],
        ylim=(centers[-1] - group_height / 2, group_height / 2),
        xlabel=_METRIC_NAMES.get(metric, metric),
    )
    bottom_y, top_y = ax.get_ylim()
    for i, (group, center) in enumerate(zip(groups, centers, strict=True)):
        side_label(
            ax,
            (center - bottom_y) / (top_y - bottom_y),
            str(group),
            (left - 0.15) * 72,
            min(2, len(names)),
            gap=5,
            bold=i == 0 and len(groups) > 1,
        )
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=((left - 0.1) / WIDTH, 1),
        ncols=len(handles),
        borderaxespad=0.2,
        columnspacing=1.8,
    )
    return figure


_METRIC_NAMES = {
    "pearson": "Pearson r",
    "spearman": "Spearman ρ",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "auroc": "AUROC",
    "auprc": "AUPRC",
}


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
