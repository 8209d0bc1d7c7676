"""How elements stand up to what is known, and what predictions are made of: folds over chance, shares of a whole."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ciscribe.plot.style import (
    BLUE,
    DASHES,
    INK,
    LINE,
    MUTED,
    SERIES,
    SLATE,
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

_LEFT = 3.3  # most inches for names


@style()
def plot_folds(table: pd.DataFrame, *, goal: float | None = None) -> Figure:
    """Area under precision and recall over that of chance, one row a method, best first; controls are hollow.

    Parameters
    ----------
    table
        Columns ``method, fold`` and, where known, ``control`` and the interval ``low, high``.
    goal
        Drawn as a second dashed line beside chance (1).
    """
    check_columns(table, ("method", "fold"), "a table of folds over chance")
    rows = table.sort_values("fold", ascending=False, kind="stable").reset_index(drop=True)
    names = [fit_text(display_name(str(name)), (_LEFT - 0.3) * 72) for name in rows["method"]]
    left = 0.3 + max((text_width(name) for name in names), default=0.0) / 72
    figure, (ax,) = axes_grid(1, 1, width=8.4, panel_height=0.25 * max(1, len(rows)) + 0.1, left=left, right=0.7)
    y = -np.arange(len(rows), dtype=float)
    value = rows["fold"].to_numpy(float)
    control = rows["control"].to_numpy(bool) if "control" in rows else np.zeros(len(rows), dtype=bool)
    ax.hlines(y, 0, value, color=LINE, lw=1.2)
    if {"low", "high"} <= set(rows.columns):
        ax.hlines(y, rows["low"].to_numpy(float), rows["high"].to_numpy(float), color=MUTED, lw=2.6, alpha=0.45)
    ax.scatter(value[~control], y[~control], s=40, color=BLUE, linewidths=0, zorder=3)
    ax.scatter(value[control], y[control], s=36, facecolor=SURFACE, edgecolor=SLATE, linewidths=1.4, zorder=3)
    edge = np.fmax(value, rows["high"].to_numpy(float)) if "high" in rows else value
    for x, at, right in zip(value, y, edge, strict=True):
        ax.annotate(f"{x:.2f}", (right, at), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9.5,
                    color=MUTED)
    ax.axvline(1, color=MUTED, lw=1.0, ls=(0, (4, 3)))
    if goal is not None:
        ax.axvline(goal, color=INK, lw=1.0, ls=(0, (1, 2)))
    ax.set_yticks(y, names)
    ax.set(ylim=(-len(rows) + 0.4, 0.6), xlim=(0, 1.12 * max([1.0, goal or 1.0, *edge])), xlabel="AUPRC over chance")
    return figure


@style()
def plot_by_distance(table: pd.DataFrame, *, main: str | None = None) -> Figure:
    """Folds over chance within bands of distance from the TSS, one line a method.

    Parameters
    ----------
    table
        Columns ``method, band, fold``; bands in order.
    main
        Method drawn strongest.
    """
    check_columns(table, ("method", "band", "fold"), "a table of folds by distance")
    methods, bands = ([str(v) for v in table[c].unique()] for c in ("method", "band"))
    colors = series_colors(methods, main)
    dashes = dict(zip(colors, DASHES * len(colors), strict=False))
    right = 3.3
    figure, (ax,) = axes_grid(1, 1, panel_height=2.9, right=right)
    for name in colors:
        own = table.loc[table["method"].astype(str) == name].set_index("band")["fold"].reindex(bands)
        ax.plot(range(len(bands)), own.to_numpy(float), color=colors[name], ls=dashes[name], marker="o", ms=4.5,
                lw=2.4 if name == main else 1.6, label=fit_text(display_name(name), (right - 0.8) * 72))
    ax.axhline(1, color=MUTED, lw=1.0, ls=(0, (4, 3)))
    ax.set_xticks(range(len(bands)), bands)
    ax.set(xlabel="distance from the nearest TSS (bp)", ylabel="AUPRC over chance")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.06, y=0.1)
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), labelspacing=0.6)
    return figure


@style()
def plot_shares(table: pd.DataFrame, *, name: str, part: str, value: str, order: Sequence[str] | None = None,
                xlabel: str = "", percent: bool = True) -> Figure:
    """Parts of a whole as stacked bars, one bar a name; parts below 0 go to the left.

    Parameters
    ----------
    table
        Columns `name`, `part` and `value`, one row each.
    order
        Parts from the left; as they come unless given.
    percent
        Whether values are shares.
    """
    check_columns(table, (name, part, value), "a table of shares")
    wide = table.pivot_table(index=name, columns=part, values=value, sort=False, observed=True).fillna(0.0)
    wide = wide.loc[:, [p for p in (order or list(wide.columns)) if p in wide.columns]]
    names = [fit_text(display_name(str(n)), (_LEFT - 0.3) * 72) for n in wide.index]
    left = 0.3 + max((text_width(n) for n in names), default=0.0) / 72
    row = 0.3
    figure, (ax,) = axes_grid(1, 1, width=WIDTH, panel_height=row * max(1, len(wide)) + 0.1, left=left, top=0.62)
    y = -np.arange(len(wide), dtype=float)
    up, down = np.zeros(len(wide)), np.zeros(len(wide))
    for i, column in enumerate(wide.columns):
        values = wide[column].to_numpy(float)
        start = np.where(values >= 0, up, down)
        ax.barh(y, values, left=start, height=0.68, color=SERIES[i % len(SERIES)], edgecolor=SURFACE, linewidth=0.8,
                hatch="///" if i >= len(SERIES) else None, label=display_name(str(column)))
        up, down = up + values.clip(min=0), down + values.clip(max=0)
    if (down < 0).any():
        ax.axvline(0, color=MUTED, lw=0.8)
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(visible=False, axis="y")
    ax.set_yticks(y, names)
    ax.set(ylim=(-len(wide) + 0.4, 0.6), xlabel=xlabel)
    ax.margins(x=0.01)
    figure.legend(loc="upper left", bbox_to_anchor=(left / WIDTH - 0.01, 1.0), ncols=min(6, len(wide.columns)),
                  borderaxespad=0.2, columnspacing=1.5, handlelength=1.2)
    return figure
