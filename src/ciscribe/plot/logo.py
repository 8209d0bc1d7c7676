"""Logos: which bases a model listens to, and how a motif looks.

Letters are vector shapes, scaled by value. Where letters would be too narrow to read, steps stand in their place, and
a second panel spells out the stretch that matters most.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ciscribe.errors import SchemaError
from ciscribe.plot.glyphs import BASES, draw_bars, draw_letters
from ciscribe.plot.style import (
    BLUE,
    BODY,
    MUTED,
    SMALL,
    WIDTH,
    axes_grid,
    fit_text,
    style,
    text_width,
    width_points,
)

LETTER_POINTS = 2.0
"""Narrower letters than this (points) are not drawn; steps are."""
ZOOM = 100
"""Bases that a closer view spells out."""
MINUS = "−"
_LEFT, _RIGHT = 0.82, 0.2  # inches beside a logo
_SIGNED = FuncFormatter(lambda value, _: f"{value:g}".replace("-", MINUS))


@style()
def plot_logo(
    matrix: Any,
    codes: np.ndarray | None = None,
    *,
    ax: Axes | None = None,
    start: int = 0,
    title: str = "",
    ylabel: str = "contribution",
) -> Axes:
    """Letters as tall as what each base contributes; what lowers the output hangs below the axis, upside down.

    Parameters
    ----------
    matrix
        Values of A C G T at every position, ``(4, W)``: a matrix, or one region and track of an attribution array.
        With `codes` also the contributions of the bases that are there, ``(W,)``.
    codes
        The sequence as codes 0..4, ``(W,)``: only the base that is there is drawn, nothing at an N (4). Needed for
        hypothetical contributions, which speak of all four bases.
    ax
        Where to draw; None makes a figure.
    start
        Position of the first base; base i fills ``start + i`` to ``start + i + 1`` of the axis.
    title
        Above the axes; shortened when too wide.
    ylabel
        What the height is.

    Notes
    -----
    Where a letter would be narrower than `LETTER_POINTS`, the sum of each position is drawn as steps, and a note says
    so; `plot_contributions` adds a closer view.

    Raises
    ------
    SchemaError
        If the shapes do not fit or a value is not finite.
    """
    values = letter_heights(matrix, codes)
    if ax is None:
        ax = axes_grid(1, 1, panel_height=1.35, left=_LEFT, right=_RIGHT)[1][0]
    if width_points(ax) / values.shape[1] >= LETTER_POINTS:
        draw_letters(ax, values, start)
    else:
        draw_bars(ax, values.sum(axis=0), start)
        ax.text(1, 1.02, f"steps instead of letters: {values.shape[1]:,} bp", transform=ax.transAxes, ha="right",
                va="bottom", fontsize=SMALL, color=MUTED)
    sequence_axes(ax, ylabel)
    if title:
        ax.set_title(fit_text(title, width_points(ax), BODY, bold=True))
    return ax


@style()
def plot_motif(ppm: np.ndarray, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Sequence logo of a motif: letters share the information of their column, 0 to 2 bits.

    Parameters
    ----------
    ppm
        Probability of A C G T at every position, ``(4, W)``; columns sum to 1. Information is against equal bases,
        without a small-sample correction.
    ax
        Where to draw; None makes a figure.
    title
        Above the axes; shortened when too wide.

    References
    ----------
    Schneider & Stephens, Nucleic Acids Research 18:6097 (1990), doi:10.1093/nar/18.20.6097.
    """
    ppm = letter_heights(ppm)
    if (ppm < 0).any() or not np.allclose(ppm.sum(axis=0), 1, atol=1e-3):
        column = int(np.argmax(np.abs(ppm.sum(axis=0) - 1)))
        raise SchemaError(f"a motif holds probabilities whose columns sum to 1; column {column} is "
                          f"{ppm[:, column].round(4).tolist()}; contributions go to plot_logo()")
    if ax is None:
        ax = axes_grid(1, 1, width=min(WIDTH, 1.4 + 0.28 * ppm.shape[1]), panel_height=1.2, left=_LEFT, right=_RIGHT
                       )[1][0]
    draw_letters(ax, ppm * (2 + (ppm * np.log2(np.maximum(ppm, 1e-12))).sum(axis=0)))
    sequence_axes(ax, "bits")
    ax.set(ylim=(0, 2), yticks=[0, 1, 2], xlabel="position in the motif")
    every = max(1, -(-ppm.shape[1] // 12))
    ax.set_xticks(np.arange(0, ppm.shape[1], every) + 0.5, [str(i + 1) for i in range(0, ppm.shape[1], every)])
    if title:
        ax.set_title(fit_text(title, width_points(ax), BODY, bold=True))
    return ax


@style()
def plot_contributions(
    matrix: Any, codes: np.ndarray, *, start: int = 0, title: str = "", units: str = "", zoom: int = ZOOM
) -> Figure:
    """Contributions along one sequence, with a closer view of the stretch that matters most where it is long.

    Parameters
    ----------
    matrix, codes, start
        As in `plot_logo`.
    title
        Above the figure; shortened when too wide.
    units
        Of the contributions.
    zoom
        Bases of the closer view, the ones with the largest sum of absolute contributions.
    """
    values = letter_heights(matrix, codes)
    width = values.shape[1]
    inches = WIDTH - _LEFT - _RIGHT
    fits = inches * 72 / width >= 2 * LETTER_POINTS
    top = 0.12 + (0.26 if title else 0)
    if fits:
        figure, (ax,) = axes_grid(1, 1, panel_height=1.35, left=_LEFT, right=_RIGHT, top=top)
        plot_logo(values, ax=ax, start=start)
        whole = ax
    else:
        figure, (whole, ax) = axes_grid(2, 1, panel_height=1.2, left=_LEFT, right=_RIGHT, top=top, row_gap=0.34)
        draw_bars(whole, values.sum(axis=0), start)
        sequence_axes(whole, "", xlabel="")
        first, last = busiest_window(values.sum(axis=0), zoom)
        plot_logo(values[:, first:last], ax=ax, start=start + first, ylabel="")
        whole.axvspan(start + first, start + last, color=BLUE, alpha=0.12, lw=0)
        height = figure.get_figheight()
        figure.text(0.012, 0.5 + (0.5 - top) / 2 / height, with_units("contribution", units, (height - top) * 72),
                    rotation=90, va="center", ha="left", color=MUTED, fontsize=BODY)
        ax.set_xlabel(f"position in the sequence (bp); above: all {width:,} bp, below: the shaded {last - first} bp")
    if fits:
        whole.set_ylabel(with_units("contribution", units, 1.35 * 72 + 12))
    if title:
        figure.text(_LEFT / WIDTH, 1 - 0.06 / figure.get_figheight(), fit_text(title, inches * 72, BODY, bold=True),
                    fontsize=BODY, fontweight="bold", va="top")
    return figure


def letter_heights(matrix: Any, codes: np.ndarray | None = None) -> np.ndarray:
    """Heights ``(4, W)`` of the letters of a matrix, an attribution of one region and track, or a contribution track.

    Parameters
    ----------
    matrix
        ``(4, W)``; an array with named dimensions ``base`` and ``position``; or ``(W,)`` with `codes`.
    codes
        The sequence; the other bases get 0.

    Raises
    ------
    SchemaError
        If the shapes do not fit or a value is not finite.
    """
    if hasattr(matrix, "dims"):
        left = [d for d in matrix.dims if d not in ("base", "position") and matrix.sizes[d] > 1]
        if left:
            example = ", ".join(f"{d}=0" for d in left)
            raise SchemaError(f"a logo shows one region and track; choose with .isel({example})")
        matrix = matrix.squeeze([d for d in matrix.dims if d not in ("base", "position")])
        matrix = matrix.transpose(*(d for d in ("base", "position") if d in matrix.dims))
    values = np.asarray(matrix, dtype=float)
    there = None if codes is None else np.asarray(codes)[None] == np.arange(4)[:, None]
    if values.ndim == 1 and there is not None and there.shape[1] == len(values):
        values = np.where(there, values, 0)
    if values.ndim != 2 or len(values) != 4 or not values.shape[1]:
        hint = "; transpose it" if values.ndim == 2 and values.shape[1] == 4 else ""
        raise SchemaError(f"a logo needs a matrix (4, W), rows {' '.join(BASES)}, or contributions (W,) with the codes "
                          f"of the sequence; got shape {values.shape}{hint}")
    if there is not None and there.shape != values.shape:
        raise SchemaError(f"codes of {there.shape[1]} bp do not fit a matrix of {values.shape[1]} bp")
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise SchemaError(f"{int(bad.sum()):,} of {bad.size:,} values of a logo are NaN or infinite; first: base "
                          f"{BASES[row]}, position {column}")
    return values if there is None else np.where(there, values, 0)


def busiest_window(values: np.ndarray, width: int) -> tuple[int, int]:
    """First and last (exclusive) position of the window with the largest sum of absolute values.

    Of neighbouring windows that hold 98 % of it or more, the middle one, so that a peak does not touch the edge.
    """
    width = min(width, len(values))
    total = np.concatenate([[0], np.abs(values).cumsum()])
    held = total[width:] - total[:-width]
    best, good = int(held.argmax()), held >= 0.98 * held.max()
    before = np.flatnonzero(~good[:best])
    after = np.flatnonzero(~good[best:])
    left = before[-1] + 1 if len(before) else 0
    right = best + after[0] - 1 if len(after) else len(held) - 1
    first = int((left + right) // 2)
    return first, first + width


def with_units(word: str, units: str, points: int | float) -> str:
    """Name of an axis of so many points, with its units where they fit (a readout can be long)."""
    named = f"{word} ({units})"
    return named if units and text_width(named, BODY) <= points else word


def sequence_axes(ax: Axes, ylabel: str, *, xlabel: str = "position in the sequence (bp)") -> None:
    """Axes of anything along a sequence: no grid, a line at 0, few ticks."""
    ax.grid(visible=False)
    ax.axhline(0, color=MUTED, lw=0.6)
    ax.spines["bottom"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(9, integer=True, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace("-", MINUS)))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(_SIGNED)
    ax.set(xlabel=xlabel, ylabel=ylabel)
