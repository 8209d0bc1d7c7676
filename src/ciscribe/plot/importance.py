"""What single bases and stretches do to the output: mutagenesis maps, tiling deletions, a track under a gene."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ciscribe.errors import SchemaError
from ciscribe.plot.glyphs import BASES, draw_bars, draw_cells, draw_dots, draw_letters, draw_scale
from ciscribe.plot.logo import LETTER_POINTS, MINUS, busiest_window, letter_heights, sequence_axes, with_units
from ciscribe.plot.panels import View
from ciscribe.plot.style import (
    BODY,
    INK,
    MUTED,
    SMALL,
    axes_grid,
    check_columns,
    fit_text,
    style,
    width_points,
)
from ciscribe.plot.syntax import check_single

_LEFT, _RIGHT = 0.82, 0.78  # inches beside a map; its scale stands at the right
_MOST_CELLS = 300  # columns of a map that can be told apart
_MAP_WINDOW = 120
_MOST_TILES = 400


@style()
def plot_mutagenesis(
    effects: Any,
    codes: np.ndarray,
    *,
    start: int = 0,
    window: tuple[int, int] | None = None,
    title: str = "",
    units: str = "",
) -> Figure:
    """What every possible substitution does to the output, under the contribution of each base.

    Parameters
    ----------
    effects
        In-silico mutagenesis of one sequence, ``(4, L)``: the output with each base at each place, up to a constant a
        position; differences to the reference and hypothetical contributions both are such numbers. Drawn is the
        change from the base that is there: blue raises the output, orange lowers it.
    codes
        The sequence, codes 0..4, ``(L,)``. At an N (4) the change is from the mean of the four bases.
    start
        Position of the first base.
    window
        First and last (exclusive) base to show, counted like `start`. None shows all of at most 300 bp, else the 120 bp
        that matter most.
    title, units
        Above the figure; of the output.

    Notes
    -----
    The logo above shows the base that is there minus the mean of the four, on the same x axis. Squares mark the bases
    that are there.

    Raises
    ------
    SchemaError
        If the shapes do not fit, a value is not finite, or the window is not in the sequence.
    """
    values, codes = letter_heights(effects), np.asarray(codes)
    n = values.shape[1]
    if codes.shape != (n,):
        raise SchemaError(f"a map of {n} bp needs codes ({n},); got shape {codes.shape}")
    centered = values - values.mean(axis=0)
    contribution = letter_heights(centered, codes)
    first, last = _window(contribution.sum(axis=0), start, window)
    here = slice(first, last)
    change = (centered - contribution.sum(axis=0))[:, here]
    top = 0.12 + (0.26 if title else 0)
    figure, (above, ax) = axes_grid(2, 1, panel_height=1.1, left=_LEFT, right=_RIGHT, top=top, row_gap=0.14)
    limit = float(np.abs(change).max()) or 1.0
    draw_letters(above, contribution[:, here], start + first)
    sequence_axes(above, "contribution", xlabel="")
    above.tick_params(axis="x", bottom=False, labelbottom=False)
    draw_cells(ax, change, limit, start=start + first)
    row, column = np.nonzero(codes[None, here] == np.arange(4)[:, None])
    if width_points(ax) / (last - first) >= 2:
        draw_dots(ax, row, column, start + first)
    note = "" if last - first == n else f"; {last - first:,} of {n:,} bp{'' if window else ', the most important'}"
    sequence_axes(ax, "change to", xlabel=f"position in the sequence (bp){note}")
    ax.set_yticks(-np.arange(4) - 0.5, list(BASES))
    width, height = figure.get_figwidth(), figure.get_figheight()
    scale = figure.add_axes(((width - _RIGHT + 0.12) / width, 0.5 / height, 0.1 / width, 1.1 / height))
    draw_scale(scale, limit)
    if units:
        scale.text(1, 1.04, fit_text(units, 300), transform=scale.transAxes, ha="right", va="bottom",
                   fontsize=SMALL, color=MUTED)
    if title:
        figure.text(_LEFT / width, 1 - 0.06 / height, fit_text(title, (width - _LEFT - _RIGHT) * 72, BODY, bold=True),
                    fontsize=BODY, fontweight="bold", va="top")
    return figure


@style()
def plot_tiles(
    windows: pd.DataFrame,
    scores: np.ndarray | None = None,
    *,
    ax: Axes | None = None,
    start: int = 0,
    title: str = "",
    units: str = "",
) -> Axes:
    """What the output loses when each stretch of a sequence is destroyed.

    Parameters
    ----------
    windows
        Deleted windows of one sequence and track: ``start, end`` (within the sequence) and ``effect`` (output before
        minus after: positive where the stretch raises the output). Each is a dash at its effect.
    scores
        One value a base ``(L,)``, filled; None takes the mean effect of the windows that cover a base.
    ax
        Where to draw; None makes a figure.
    start
        Position of the first base.
    title, units
        Above the axes; of the output.

    Raises
    ------
    SchemaError
        If a column is missing, there is no window, or there are several sequences or tracks.
    """
    check_columns(windows, ("start", "end", "effect"), "a table of deleted windows")
    check_single(windows, "a tiling curve", ("region", "track"))
    first, last, effect = (windows[c].to_numpy() for c in ("start", "end", "effect"))
    if scores is None:
        total, count = np.zeros(int(last.max())), np.zeros(int(last.max()))
        for a, b, value in zip(first, last, effect, strict=True):
            total[a:b] += value
            count[a:b] += 1
        scores = total / np.maximum(count, 1)
    if ax is None:
        ax = axes_grid(1, 1, panel_height=1.6, left=_LEFT, right=0.2, top=0.38 if title else 0.14)[1][0]
    draw_bars(ax, np.asarray(scores, dtype=float), start)
    if len(windows) <= _MOST_TILES:
        ax.hlines(effect, start + first, start + last, color=INK, lw=0.9, alpha=0.6)
        low, high = min(0.0, float(effect.min())), max(0.0, float(effect.max()))
        pad = 0.06 * (high - low) or 1.0
        ax.set_ylim(low - (pad if low < 0 else 0), high + pad)
    sequence_axes(ax, with_units("lost without it", units, 1.6 * 72 + 20))
    if title:
        ax.set_title(fit_text(title, width_points(ax), BODY, bold=True))
    return ax


@dataclass(frozen=True)
class AttributionPanel:
    """Contributions of the bases of a region, as a track of `ciscribe.plot.tracks.plot_region`.

    A view of at most some 260 bp, in which letters have `LETTER_POINTS`, spells out the bases; a wider one shows steps,
    blue for what raises the output and orange for what lowers it, each as high as the largest value under it.

    Parameters
    ----------
    label
        What stands at the left.
    start
        Position of the first base on the chromosome, 0-based.
    values
        Contribution of every base on the forward strand. Shape ``(L,)``.
    codes
        The bases, codes 0..4; None always shows steps. Shape ``(L,)``.
    """

    label: str
    start: int
    values: np.ndarray
    codes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.values) != 1 or (self.codes is not None and np.shape(self.codes) != np.shape(self.values)):
            raise SchemaError(f"panel '{self.label}' needs contributions (L,) and codes of the same length; got "
                              f"{np.shape(self.values)} and {None if self.codes is None else np.shape(self.codes)}")

    def height(self, view: View) -> float:
        """Nearly an inch where bases are spelled out, else a little less."""
        return 1.1 if self._spelled(view) else 0.75

    def draw(self, ax: Axes, view: View) -> None:
        """Letters or steps, with the scale at the right."""
        first = max(view.start - self.start, 0)
        last = min(view.end - self.start, len(self.values))
        if last <= first:
            ax.text(0.0, 0.5, "none in this region", transform=ax.transAxes, va="center", fontsize=SMALL, color=MUTED)
            return
        here = slice(first, last)
        values = np.nan_to_num(np.asarray(self.values[here], dtype=float))
        if self.codes is not None and self._spelled(view):
            draw_letters(ax, letter_heights(values, self.codes[here]), self.start + first)
        else:
            draw_bars(ax, values, self.start + first)
        ax.axhline(0, color=MUTED, lw=0.6)
        ax.set_xlim(view.start, view.end)
        high, low = max(0.0, float(values.max())), min(0.0, float(values.min()))
        for value, y, va in ((high, 1.0, "top"), (low, 0.0, "bottom")):
            if value:
                ax.text(1.008, y, f"{value:+.2g}".replace("-", MINUS), transform=ax.transAxes, va=va, fontsize=SMALL,
                        color=MUTED)

    def _spelled(self, view: View) -> bool:
        return self.codes is not None and view.bp_per_point * LETTER_POINTS <= 1


def _window(contribution: np.ndarray, start: int, window: tuple[int, int] | None) -> tuple[int, int]:
    n = len(contribution)
    if window is None:
        return (0, n) if n <= _MOST_CELLS else busiest_window(contribution, _MAP_WINDOW)
    first, last = window[0] - start, window[1] - start
    if not 0 <= first < last <= n:
        raise SchemaError(f"the window {window[0]} to {window[1]} does not lie in the sequence, {start} to {start + n}")
    return first, last
