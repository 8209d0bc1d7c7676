"""Whether an explanation can be believed, drawn: does the model act on it, does it repeat, does it see the weights."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ciscribe.errors import SchemaError
from ciscribe.plot.logo import MINUS
from ciscribe.plot.style import (
    BLUE,
    DASHES,
    INK,
    MUTED,
    SERIES,
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
    side_label,
    style,
    text_width,
)
from ciscribe.plot.syntax import check_single, draw_matrix, matrix_of

_CURVES = {"insertion": "only the best bases kept  (higher is better)",
           "deletion": "the best bases destroyed  (lower is better)"}
_CONTROLS = ("random", "center")
_METRICS = {"pearson": "Pearson r", "spearman": "Spearman ρ", "spearman_abs": "Spearman ρ of |contributions|"}


@style()
def plot_faithfulness(curves: pd.DataFrame) -> Figure:
    """How fast the output returns or falls when bases are kept or destroyed in the order of their importance.

    Parameters
    ----------
    curves
        Of one track: ``method, curve`` (``insertion`` or ``deletion``), ``fraction`` (of the bases), ``score`` (share
        of what the sequence does beyond its background), and where known ``low, high``. Random and central orders are
        grey.

    Raises
    ------
    SchemaError
        If a column is missing, no row is an insertion or deletion, or there are several tracks.
    """
    check_columns(curves, ("method", "curve", "fraction", "score"), "a table of faithfulness curves")
    check_single(curves, "faithfulness curves", ("track",))
    kinds = [k for k in _CURVES if (curves["curve"] == k).any()]
    if not kinds:
        raise SchemaError("faithfulness curves are of the kind insertion or deletion; got: "
                          f"{', '.join(map(str, curves['curve'].unique())) or '(no rows)'}")
    methods = [str(m) for m in curves["method"].unique()]
    methods = [m for m in methods if m not in _CONTROLS] + [m for m in methods if m in _CONTROLS]
    hues = [c for c in SERIES if c != SLATE]  # grey is for the orders that know nothing
    colors = {m: SLATE if m in _CONTROLS else hues[i % len(hues)] for i, m in enumerate(methods)}
    dashes = dict(zip(methods, DASHES * len(methods), strict=False)) | {"random": DASHES[2], "center": DASHES[1]}
    labels = {m: {"random": "random order", "center": "from the center"}.get(m, display_name(m)) for m in methods}
    columns = max(1, min(len(methods), int(9.2 * 72 // (max(text_width(v) for v in labels.values()) + 50))))
    n_lines = -(-len(methods) // columns)
    figure, axes = axes_grid(len(kinds), len(kinds), width=WIDTH if len(kinds) > 1 else 6, panel_height=2.7,
                             top=0.42 + 0.22 * n_lines, gap=0.6)
    for ax, kind in zip(axes, kinds, strict=True):
        for method in methods:
            rows = curves.loc[(curves["curve"] == kind) & (curves["method"].astype(str) == method)]
            rows = rows.sort_values("fraction", kind="stable")
            at, score = rows["fraction"].to_numpy(float), rows["score"].to_numpy(float)
            if {"low", "high"} <= set(rows.columns) and method not in _CONTROLS:
                ax.fill_between(at, rows["low"].to_numpy(float), rows["high"].to_numpy(float), color=colors[method],
                                alpha=0.14, lw=0)
            ax.plot(at, score, color=colors[method], ls=dashes[method], marker="o", ms=3)
        ax.set_title(_CURVES[kind])
        # bases that matter are few: half of the axis for the first tenth
        ax.set_xscale("function", functions=(np.sqrt, np.square))
        ax.set_xlim(0, 1)
        ax.set_xticks([0.01, 0.05, 0.1, 0.2, 0.5, 1])
        ax.set_xticks([], minor=True)
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.yaxis.set_major_locator(MaxNLocator(6))
        ax.set_xlabel("share of the bases (root scale)")
    axes[0].set_ylabel("share of the effect that is there")
    handles = [Line2D([], [], color=colors[m], ls=dashes[m], lw=2, label=fit_text(labels[m], 600)) for m in methods]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.5 / figure.get_figwidth(), 1), ncols=columns,
                  borderaxespad=0.2, columnspacing=1.8)
    return figure


@style()
def plot_consistency(agreement: pd.DataFrame, *, metric: str = "pearson", matrix: bool | None = None) -> Figure:
    """How well several methods, seeds or folds agree on which bases matter.

    Parameters
    ----------
    agreement
        Of one track: ``metric, value`` and the pair ``a, b``, or ``model`` where all are compared with one map; where
        known ``low, high`` (the interval) and ``chance`` (what unrelated maps reach, a tick).
    metric
        Which rows.
    matrix
        True draws a matrix of all pairs, False a dot for each; None takes the matrix from four names on.

    Raises
    ------
    SchemaError
        If a column is missing, no row is of the metric, or there are several tracks.
    """
    pairs = "model" not in agreement.columns
    check_columns(agreement, (*(("a", "b") if pairs else ("model",)), "metric", "value"), "a table of agreement")
    rows = agreement.loc[agreement["metric"] == metric]
    if not len(rows):
        raise SchemaError(f"no agreement is measured as {metric!r}; metrics in the table: "
                          f"{', '.join(map(str, agreement['metric'].unique())) or '(none)'}")
    check_single(rows, "a figure of agreement", ("track",))
    label = _METRICS.get(metric, _top(metric))
    if pairs:
        names = [str(n) for n in dict.fromkeys([*rows["a"], *rows["b"]])]
        if matrix if matrix is not None else len(names) >= 4:
            grid = matrix_of(rows, names, "value", "a", "b")
            grid = np.where(np.isfinite(grid), grid, grid.T)
            np.fill_diagonal(grid, np.nan)
            return draw_matrix(grid, [display_name(n) for n in names], 1.0, units=label)
        labels = [f"{display_name(str(a))} – {display_name(str(b))}" for a, b in zip(rows["a"], rows["b"], strict=True)]
    else:
        labels = [display_name(str(m)) for m in rows["model"]]
    left, row, top, bottom, width = 2.6, 0.28, 0.12, 0.52, 7.6
    figure, (ax,) = axes_grid(1, 1, width=width, panel_height=row * len(rows) + 0.1, left=left, right=0.7, top=top,
                              bottom=bottom)
    y = -np.arange(len(rows))
    value = rows["value"].to_numpy(float)
    if {"low", "high"} <= set(rows.columns):
        ax.hlines(y, rows["low"].to_numpy(float), rows["high"].to_numpy(float), color=BLUE, lw=2.2, alpha=0.5)
    ax.plot(value, y, marker="o", ms=7, mfc=BLUE, mec=SURFACE, mew=1, ls="", zorder=4)
    if "chance" in rows.columns:
        ax.vlines(rows["chance"].to_numpy(float), y - 0.32, y + 0.32, color=INK, lw=1.3, linestyles=(0, (2, 1)))
    shown = np.concatenate([rows[c].to_numpy(float) for c in ("value", "low", "chance") if c in rows.columns])
    low = min(0.0, float(np.nanmin(shown)) if np.isfinite(shown).any() else 0.0)
    ax.set(yticks=[], ylim=(y[-1] - 0.6, 0.6), xlim=(low - 0.03 * (low < 0), 1.02), xlabel=label)
    ax.spines["left"].set_visible(False)
    for i, name in enumerate(labels):
        side_label(ax, (y[i] - y[-1] + 0.6) / (len(rows) + 0.2), name, (left - 0.15) * 72, 1)
        ax.annotate(number(value[i]).replace("-", MINUS), (1, y[i]), xycoords=("axes fraction", "data"), xytext=(8, 0),
                    textcoords="offset points", va="center", color=MUTED, fontsize=SMALL)
    return figure


@style()
def plot_randomization(check: pd.DataFrame, *, metric: str = "spearman_abs") -> Figure:
    """Whether an explanation notices that the weights of the model are destroyed, from the output layer down.

    Parameters
    ----------
    check
        Of one track: ``n_layers`` (drawn anew), ``metric, value``, and where known ``method`` (one line each),
        ``draw`` (averaged), ``chance``.
    metric
        Which rows.
    """
    check_columns(check, ("n_layers", "metric", "value"), "a randomization check")
    rows = check.loc[check["metric"] == metric]
    if not len(rows):
        raise SchemaError(f"no agreement is measured as {metric!r}; metrics in the table: "
                          f"{', '.join(map(str, check['metric'].unique())) or '(none)'}")
    check_single(rows, "a randomization check", ("track",))
    rows = rows.assign(method=rows["method"].astype(str) if "method" in rows.columns else "agreement")
    figure, (ax,) = axes_grid(1, 1, width=6.4, panel_height=2.5, top=0.42)
    methods = list(rows["method"].unique())
    for (method, color), dash in zip(series_colors(methods).items(), DASHES * len(methods), strict=False):
        mean = rows.loc[rows["method"] == method].groupby("n_layers")["value"].mean()
        ax.plot([0, *mean.index], [1.0, *mean], color=color, ls=dash, marker="o", ms=3.5, label=display_name(method))
    if "chance" in rows.columns:
        ax.axhline(float(rows["chance"].mean()), color=MUTED, lw=1, ls=(0, (2, 2)), label="unrelated maps")
    ax.set(xlabel="layers drawn anew, from the output down", ylabel=_METRICS.get(metric, _top(metric)))
    ax.set_ylim(top=1.04)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    figure.legend(loc="upper left", bbox_to_anchor=(0.55 / 6.4, 1), ncols=3, borderaxespad=0.2, columnspacing=1.8)
    return figure


def _top(metric: str) -> str:
    """``jaccard_0.05`` as a person says it."""
    share = metric.removeprefix("jaccard_")
    return f"overlap of the top {float(share):.0%} (Jaccard)" if share != metric else metric.replace("_", " ")
