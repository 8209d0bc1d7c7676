"""Designs: how a run climbed, what was changed, how it compares with what was judged, and what alleles can reach."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ciscribe.errors import SchemaError
from ciscribe.plot.glyphs import draw_letters
from ciscribe.plot.style import (
    BLUE,
    DASHES,
    GRID,
    INK,
    MUTED,
    ORANGE,
    SLATE,
    SMALL,
    WIDTH,
    axes_grid,
    check_columns,
    display_name,
    series_colors,
    style,
)

_COLUMNS = 100  # bases a line


@style()
def plot_trajectory(history: pd.DataFrame, *, units: str = "") -> Figure:
    """Best and mean score of the kept designs against the queries that were paid.

    Parameters
    ----------
    history
        Columns ``queries, best, mean``, one row a round.
    units
        Of the score.
    """
    check_columns(history, ("queries", "best", "mean"), "the history of a design run")
    figure, (ax,) = axes_grid(1, 1, width=7.4, panel_height=2.6, left=0.8)
    for column, color, dash in (("best", BLUE, DASHES[0]), ("mean", SLATE, DASHES[1])):
        rows = history.loc[np.isfinite(history[column].to_numpy(float))]
        ax.plot(rows["queries"], rows[column], color=color, ls=dash, label=column)
    ax.set(xlabel="model calls", ylabel=f"score{f', {units}' if units else ''}")
    ax.legend(loc="upper left")  # where a curve that climbs never is
    return figure


@style()
def plot_edits(start: np.ndarray, designs: np.ndarray, names: list[str] | None = None) -> Figure:
    """The start letter by letter, and under it each design, in which only what was changed is written.

    Parameters
    ----------
    start
        Codes ``(L,)``.
    designs
        Codes ``(n, L)``.
    names
        Of the designs.

    Raises
    ------
    SchemaError
        When lengths differ.
    """
    if designs.ndim != 2 or designs.shape[1] != len(start):
        raise SchemaError(f"designs and their start have one length; got {designs.shape} and {start.shape}")
    length, n = len(start), len(designs)
    lines = -(-length // _COLUMNS)
    height = 0.3 + lines * (0.34 + 0.26 * n + 0.3)
    figure = Figure(figsize=(WIDTH, height))
    shown = min(_COLUMNS, length)
    left = 1.1
    for line in range(lines):
        lo, hi = line * _COLUMNS, min(length, (line + 1) * _COLUMNS)
        for row in range(n + 1):
            tall = 0.3 if row == 0 else 0.22
            top = height - 0.15 - line * (0.34 + 0.26 * n + 0.3) - (0 if row == 0 else 0.34 + 0.26 * (row - 1))
            wide = (WIDTH - left - 0.1) * (hi - lo) / shown
            ax = figure.add_axes((left / WIDTH, (top - tall) / height, wide / WIDTH, tall / height))
            codes = start[lo:hi] if row == 0 else designs[row - 1, lo:hi]
            _draw_line(ax, codes, np.ones(hi - lo, bool) if row == 0 else codes != start[lo:hi], faint=row > 0)
            label = f"from {lo + 1}" if row == 0 else (names[row - 1] if names else f"design {row}")
            ax.text(-0.008, 0.5, label, transform=ax.transAxes, ha="right", va="center", fontsize=SMALL,
                    color=INK if row == 0 else MUTED)
    return figure


def _draw_line(ax: Axes, codes: np.ndarray, shown: np.ndarray, *, faint: bool) -> None:
    """Letters of some positions; a line through the others."""
    if faint:
        ax.axhline(0.5, color=GRID, lw=1.0)
        for at in np.flatnonzero(shown):
            ax.add_patch(Rectangle((float(at), 0), 1, 1, color=ORANGE, alpha=0.18))
    heights = np.zeros((4, len(codes)))
    at = np.flatnonzero(shown)
    heights[codes[at], at] = 1.0
    draw_letters(ax, heights)
    ax.set(xlim=(0, len(codes)), ylim=(0, 1), xticks=[], yticks=[])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


@style()
def plot_predicted_judged(table: pd.DataFrame, *, units: str = "") -> Figure:
    """Gain that the oracle predicts against the gain that the judge sees, one point a design.

    Parameters
    ----------
    table
        Columns ``gain, judge_gain``.
    units
        Of both.
    """
    check_columns(table, ("gain", "judge_gain"), "a table of judged designs")
    figure, (ax,) = axes_grid(1, 1, width=4.8, panel_height=3.3, left=0.8)
    x, y = table["gain"].to_numpy(float), table["judge_gain"].to_numpy(float)
    known = np.isfinite(x) & np.isfinite(y)
    low, top = float(min(x[known].min(initial=0.0), y[known].min(initial=0.0))), \
        float(max(x[known].max(initial=1e-9), y[known].max(initial=1e-9)))
    ax.plot([low, top], [low, top], color=INK, lw=0.9, ls=(0, (4, 3)))
    ax.scatter(x[known], y[known], s=18, color=BLUE, alpha=0.6, linewidths=0)
    unit = f", {units}" if units else ""
    ax.set(xlabel=f"predicted gain{unit}", ylabel=f"judged gain{unit}")
    return figure


@style()
def plot_league(table: pd.DataFrame, *, value: str = "judge_gain", ylabel: str = "judged gain") -> Figure:
    """Judged gain of several designers at several budgets, one line a designer.

    Parameters
    ----------
    table
        Columns ``method, budget`` and `value`; ``low, high`` where the interval is known.
    """
    check_columns(table, ("method", "budget", value), "a league of designers")
    figure, (ax,) = axes_grid(1, 1, width=8.6, panel_height=3.4, left=0.8, right=2.4)
    names = [str(n) for n in dict.fromkeys(table["method"])]
    colors = series_colors(names)
    for i, name in enumerate(names):
        rows = table.loc[table["method"] == name].sort_values("budget")
        ax.plot(rows["budget"], rows[value], color=colors[name], ls=DASHES[i % len(DASHES)], marker="o", ms=4,
                label=name)
    ax.set(xscale="log", xlabel="model calls", ylabel=ylabel)
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02))
    return figure


@style()
def plot_alleles(table: pd.DataFrame, *, value: str = "score", ylabel: str = "") -> Figure:
    """What alleles of a promoter reach by the bp that they lose, a panel for each number of guides.

    Parameters
    ----------
    table
        From `ciscribe.design.alleles.Alleles.score`: ``kind, n_guides, deleted, front`` and `value`.
    value, ylabel
        Column that is drawn, and what it is called.
    """
    check_columns(table, ("kind", "n_guides", "deleted", "front", value), "a table of scored alleles")
    made = table.loc[table["kind"] != "wild type"]
    numbers = sorted(set(made["n_guides"]))
    figure, axes = axes_grid(max(1, len(numbers)), 2, width=WIDTH, panel_height=2.4, left=0.8)
    limits = np.array([table[value].min(), table[value].max()], float)
    pad = 0.05 * max(float(np.ptp(limits)), 1e-9)
    for ax, n in zip(axes, numbers, strict=False):
        rows = made.loc[made["n_guides"] == n]
        for on_front, color, size in ((False, SLATE, 9), (True, BLUE, 22)):
            part = rows.loc[rows["front"] == on_front]
            ax.scatter(part["deleted"], part[value], s=size, color=color, alpha=0.9 if on_front else 0.35,
                       linewidths=0, zorder=3 if on_front else 2)
        ax.set_title(f"{n} guide{'s' if n > 1 else ''}")
    for ax in axes:
        for wild in table.loc[table["kind"] == "wild type", value]:
            ax.axhline(wild, color=INK, lw=0.9, ls=(0, (4, 3)))
        ax.set(xlabel="bp lost", ylabel=ylabel or display_name(value), ylim=(limits[0] - pad, limits[1] + pad))
    return figure
