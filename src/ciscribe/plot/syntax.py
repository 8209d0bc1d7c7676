"""The rules between motifs: distance, position, who works with whom."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ciscribe.errors import SchemaError
from ciscribe.plot.glyphs import draw_cells
from ciscribe.plot.logo import MINUS, with_units
from ciscribe.plot.style import (
    BODY,
    DASHES,
    INK,
    MUTED,
    SLATE,
    SMALL,
    SURFACE,
    WIDTH,
    axes_grid,
    check_columns,
    display_name,
    fit_text,
    series_colors,
    side_label,
    style,
    text_width,
)

_LEFT, _RIGHT = 0.82, 0.2
_LEGEND = 220  # points of a name in a legend, at most
_SIGNED = FuncFormatter(lambda value, _: f"{value:g}".replace("-", MINUS))


@style()
def plot_spacing(spacing: pd.DataFrame, observed: pd.DataFrame | None = None, *, title: str = "", units: str = ""
                 ) -> Figure:
    """How strongly two motifs act together by the distance between them, and how often they stand so.

    Parameters
    ----------
    spacing
        Cooperativity of one pair and track: ``gap`` (bp), ``mean``, and where known ``order, orientation`` (one line
        each) and ``low, high`` (the band). The gap with the largest absolute cooperativity is marked.
    observed
        Gaps in the sequences: ``gap, count``, and where known ``expected, low, high`` (by chance); counts of all orders
        and orientations are summed for the bars, as is what chance expects.
    title, units
        Above the figure; of the cooperativity.

    Raises
    ------
    SchemaError
        If a column is missing, there is no row, or there are several pairs or tracks.
    """
    check_columns(spacing, ("gap", "mean"), "a spacing curve")
    check_single(spacing, "a spacing curve", ("motif_a", "motif_b", "track"))
    if observed is not None:
        check_columns(observed, ("gap", "count"), "a table of observed gaps")
    names = series_of(spacing)
    figure, (ax, *below) = axes_grid(1 if observed is None else 2, 1, panel_height=1.7, left=_LEFT, right=_RIGHT,
                                     top=_head_height(title, names), row_gap=0.42)
    _draw_lines(ax, names, "gap")
    best = spacing.iloc[int(np.nanargmax(spacing["mean"].abs().to_numpy(float)))]
    ax.plot(best["gap"], best["mean"], marker="o", ms=8, mfc="none", mec=INK, mew=1.5, ls="", zorder=6)
    _annotate(ax, float(best["gap"]), float(best["mean"]), f"{best['gap']:g} bp")
    ax.axhline(0, color=MUTED, lw=0.6)
    ax.set_ylabel(with_units("cooperativity", units, 1.7 * 72 + 20))
    ax.set_xlim(spacing["gap"].min() - 0.5, spacing["gap"].max() + 0.5)
    if observed is not None:
        _draw_counts(below[0], observed)
        below[0].set(xlim=ax.get_xlim(), ylabel="pairs seen")
    (below or [ax])[-1].set_xlabel("gap between the motifs (bp)")
    for panel in (ax, *below):
        panel.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    _head(figure, ax, title, names)
    return figure


@style()
def plot_position_effect(position: pd.DataFrame, *, title: str = "", units: str = "", xlabel: str =
                         "position of the motif (bp)") -> Figure:
    """What a motif does to the output by where it stands.

    Parameters
    ----------
    position
        ``position`` (bp), ``mean``, of one track; where known ``motif, strand`` (one line each) and ``low, high``.
    title, units, xlabel
        Above the figure; of the effect; of the axis.
    """
    check_columns(position, ("position", "mean"), "a table of position effects")
    check_single(position, "a table of position effects", ("track",))
    names = series_of(position)
    figure, (ax,) = axes_grid(1, 1, panel_height=1.9, left=_LEFT, right=_RIGHT, top=_head_height(title, names))
    _draw_lines(ax, names, "position")
    ax.axhline(0, color=MUTED, lw=0.6)
    ax.margins(x=0.01)
    ax.set(xlabel=xlabel, ylabel=with_units("effect", units, 1.9 * 72 + 20))
    ax.xaxis.set_major_locator(MaxNLocator(9))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace("-", MINUS)))
    _head(figure, ax, title, names)
    return figure


@style()
def plot_interactions(
    interactions: pd.DataFrame, *, value: str = "mean", sure: float = 0.05, units: str = ""
) -> Figure:
    """Which motifs do more (blue) or less (orange) together than the sum of each alone.

    Parameters
    ----------
    interactions
        ``motif_a, motif_b`` (A stands before B) and `value`, of one track; where there is ``q_value``, a value with a
        larger one than `sure` is written in grey. Pairs that were not asked stay open.
    value
        Column that is drawn and written.
    sure
        The largest q-value of a value written in black.
    units
        Of the value.
    """
    check_columns(interactions, ("motif_a", "motif_b", value), "an interaction matrix")
    check_single(interactions, "an interaction matrix", ("track",))
    names = [str(n) for n in dict.fromkeys([*interactions["motif_a"], *interactions["motif_b"]])]
    grid = matrix_of(interactions, names, value)
    known = matrix_of(interactions, names, "q_value") if "q_value" in interactions.columns else np.zeros(grid.shape)
    return draw_matrix(grid, names, float(np.nanmax(np.abs(grid))) or 1.0, faint=~(known <= sure),
                       xlabel="second motif", ylabel="first motif", units=units)


def draw_matrix(values: np.ndarray, names: Sequence[str], limit: float, *, faint: np.ndarray | None = None,
                xlabel: str = "", ylabel: str = "", units: str = "") -> Figure:
    """Square matrix of coloured cells with their values, names at both sides.

    Parameters
    ----------
    values
        ``(n, n)``; NaN stays open.
    names
        Of rows and columns.
    limit
        The value of full colour.
    faint
        Cells whose value is written in grey.
    xlabel, ylabel, units
        Of the columns and rows; of the values, above the matrix.
    """
    n = len(names)
    text = [[_short(v) for v in row] for row in values]
    cell = min(0.9, max(0.46, 7.4 / n))
    written = max(text_width(t) for row in text for t in row) <= cell * 72 - 2
    longest = max(text_width(name) for name in names) / 72
    left = min(2.2, longest) + (0.45 if ylabel else 0.2)
    cell = min(cell, (WIDTH - left - 0.9) / n)
    upright = longest > cell - 0.06  # names wider than their column
    under = min(2.0, longest) + 0.14 if upright else 0.26
    foot, top = under + (0.3 if xlabel else 0.04), 0.34 if units else 0.12
    width, height = max(3.2, left + n * cell + 0.9), top + n * cell * 0.62 + foot
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((left / width, foot / height, n * cell / width, n * cell * 0.62 / height))
    draw_cells(ax, values, limit, strongest=0.55)
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        if written:
            ax.text(j + 0.5, -i - 0.5, text[i][j], ha="center", va="center", fontsize=SMALL,
                    color=MUTED if faint is not None and faint[i, j] else INK)
    for i, name in enumerate(names):
        side_label(ax, 1 - (i + 0.5) / n, name, (left - (0.45 if ylabel else 0.2)) * 72 + 1, 1, gap=5)
    ax.set_yticks([])
    ax.set_xticks(np.arange(n) + 0.5, [fit_text(name, 2.0 * 72) for name in names], rotation=90 if upright else 0,
                  color=INK)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if ylabel:
        figure.text(0.06 / width, (foot + n * cell * 0.31) / height, ylabel, rotation=90, va="center", ha="left",
                    color=MUTED, fontsize=BODY)
    if xlabel:
        figure.text((left + n * cell / 2) / width, 0.06 / height, xlabel, ha="center", va="bottom", color=MUTED,
                    fontsize=BODY)
    if units:
        figure.text(left / width, 1 - 0.06 / height, fit_text(units, (width - left) * 72 - 4), va="top", color=MUTED,
                    fontsize=SMALL)
    return figure


def matrix_of(table: pd.DataFrame, names: Sequence[str], value: str, a: str = "motif_a", b: str = "motif_b"
              ) -> np.ndarray:
    """Column `value` of a table of pairs as a matrix, NaN where a pair is missing."""
    place = {name: i for i, name in enumerate(names)}
    out = np.full((len(names), len(names)), np.nan)
    out[[place[str(n)] for n in table[a]], [place[str(n)] for n in table[b]]] = table[value]
    return out


def series_of(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The curves of a long table by the name that a legend gives them.

    Orders and orientations are written as the motifs stand: ``A(+) B(−)`` has A first, on the forward strand, and B on
    the reverse one; where the table names one pair, by its names.
    """
    keys = [c for c in ("motif", "strand", "order", "orientation") if c in table.columns]
    if not keys:
        return {"": table}
    pair = [str(table[c].iloc[0]) if c in table.columns else c[-1].upper() for c in ("motif_a", "motif_b")]
    pair = pair if max(map(len, pair)) <= 14 else ["A", "B"]
    parts = [part for _, part in table.groupby(keys, sort=False)]
    return {_series_name(part.iloc[0][keys].to_dict(), pair): part for part in parts}


def _series_name(key: dict[Any, Any], pair: Sequence[str]) -> str:
    words = []
    if "motif" in key:
        words.append(display_name(str(key["motif"])))
    if "strand" in key:
        words.append({"+": "forward", "-": "reverse"}.get(str(key["strand"]), str(key["strand"])))
    orientation = str(key.get("orientation", ""))
    if len(orientation) == 2 and set(orientation) <= set("+-"):
        a, b = (f"{name}({strand.replace('-', MINUS)})" for name, strand in zip(pair, orientation, strict=True))
        words.append(f"{b} {a}" if key.get("order") == "ba" else f"{a} {b}")
    else:
        words += [str(key[k]) for k in ("order", "orientation") if k in key]
    return " ".join(words)


def _draw_lines(ax: Axes, names: dict[str, pd.DataFrame], x: str) -> None:
    """One line with its band for each series."""
    colors = series_colors(names)
    for i, (name, part) in enumerate(names.items()):
        rows = part.sort_values(x, kind="stable")
        at = rows[x].to_numpy(float)
        if {"low", "high"} <= set(rows.columns):
            ax.fill_between(at, rows["low"].to_numpy(float), rows["high"].to_numpy(float), color=colors[name],
                            alpha=0.18, lw=0)
        ax.plot(at, rows["mean"].to_numpy(float), color=colors[name], ls=DASHES[i % len(DASHES)], label=name,
                marker="o" if len(rows) <= 40 else None, ms=3, zorder=4 if i == 0 else 3)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(_SIGNED)


def _draw_counts(ax: Axes, observed: pd.DataFrame) -> None:
    """Counts as bars, and what chance makes of them as a line with its band."""
    gap = np.unique(observed["gap"].to_numpy(float))
    place = np.searchsorted(gap, observed["gap"].to_numpy(float))
    ax.bar(gap, np.bincount(place, observed["count"].to_numpy(float)), width=0.8, color=SLATE)
    if {"expected", "low", "high"} <= set(observed.columns):
        expected, low, high = (observed[c].to_numpy(float) for c in ("expected", "low", "high"))
        # limits of a sum are not the sum of limits; squared widths add up (as of normal variables)
        middle, half = np.bincount(place, expected), np.sqrt(np.bincount(place, (high - low) ** 2)) / 2
        ax.fill_between(gap, np.maximum(middle - half, 0), middle + half, color=INK, alpha=0.22, lw=0, step="mid")
        ax.plot(gap, middle, color=INK, lw=1.1, ls=DASHES[1], drawstyle="steps-mid")
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _annotate(ax: Axes, x: float, y: float, text: str) -> None:
    """A word beside a marked point, on the side where there is room, above a peak and below a dip."""
    low, high = ax.get_xlim()
    left = x > low + 0.85 * (high - low)
    ax.margins(y=0.22)
    ax.annotate(text, (x, y), xytext=(-9 if left else 9, 0), textcoords="offset points", ha="right" if left else "left",
                va="center", fontsize=SMALL, color=INK, fontweight="bold",
                bbox={"boxstyle": "square,pad=0.15", "facecolor": SURFACE, "edgecolor": "none", "alpha": 0.8}, zorder=7)


def _legend_columns(names: Iterable[str]) -> int:
    """Entries of a legend that fit side by side."""
    widest = max(text_width(fit_text(name, _LEGEND)) for name in names) + 50
    return max(1, int((WIDTH - _LEFT - _RIGHT) * 72 // widest))


def _head_height(title: str, names: Collection[str]) -> float:
    """Inches above the axes: title, and the lines of the legend where there are several series."""
    lines = -(-len(names) // _legend_columns(names)) if len(names) > 1 else 0
    return 0.14 + (0.26 if title else 0) + (0.08 + 0.22 * lines if lines else 0)


def _head(figure: Figure, ax: Axes, title: str, names: Collection[str]) -> None:
    """Title, and below it the legend where there are several series."""
    height = figure.get_figheight()
    if title:
        figure.text(_LEFT / WIDTH, 1 - 0.06 / height, fit_text(title, (WIDTH - _LEFT - _RIGHT) * 72, BODY, bold=True),
                    fontsize=BODY, fontweight="bold", va="top")
    if len(names) > 1:
        lines = {line.get_label(): line for line in ax.get_lines()}
        figure.legend(handles=[lines[n] for n in names], labels=[fit_text(n, _LEGEND) for n in names], loc="upper left",
                      bbox_to_anchor=(_LEFT / WIDTH - 0.005, 1 - (0.3 if title else 0.02) / height),
                      ncols=min(len(names), _legend_columns(names)), borderaxespad=0.2, columnspacing=1.8)


def check_single(table: pd.DataFrame, what: str, columns: Sequence[str]) -> None:
    """Raise SchemaError unless `table` has rows, and one value in each of those `columns` that it has."""
    if not len(table):
        raise SchemaError(f"{what} needs at least one row; the table is empty")
    for column in columns:
        values = list(table[column].unique()) if column in table.columns else []
        if len(values) > 1:
            raise SchemaError(f"{what} shows one {column}; the table holds {len(values):,}: "
                              f"{', '.join(map(str, values[:5]))}; choose one with table[table.{column} == …]")


def _short(value: float) -> str:
    """Two decimals while there is room for them; never a negative zero."""
    if not np.isfinite(value):
        return ""
    text = f"{round(value, 2) + 0.0:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return text.replace("-", MINUS)
