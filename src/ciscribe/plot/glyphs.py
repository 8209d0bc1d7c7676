"""Letters and coloured cells as few vector paths: a logo of 200 letters is eight shapes, a heat map one per shade.

Everything is drawn in palette colours with an opacity, so that `to_svg` can turn them for a dark page.
"""

from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from ciscribe.plot.style import BLUE, INK, MUTED, ORANGE, PURPLE, SMALL, TEAL

BASE_COLORS: dict[str, str] = {"A": TEAL, "C": BLUE, "G": ORANGE, "T": PURPLE}
"""One colour a base, in every logo of the house; rows of a matrix are in this order."""
BASES = "".join(BASE_COLORS)
RAISES, LOWERS = BLUE, ORANGE
"""Colours of what raises the output and of what lowers it."""

_SIDE = 0.03  # white beside a letter, of its width
_SMEAR = 0.005  # letters lower than this share of the tallest stack are a line that nobody can read
_LEVELS = 24  # shades of a heat map to each side of 0
_STRONGEST = 0.92  # opacity of the largest value
_MOST_BINS = 700  # more than the pixels that a reader can tell apart only makes the page heavy


def draw_letters(ax: Axes, values: np.ndarray, start: int | float = 0) -> None:
    """Draw a stack of letters at every position; what is negative hangs below the axis, upside down and paler.

    Parameters
    ----------
    ax
        Its limits are set to fit.
    values
        Height of each base, rows A C G T; the largest of a stack lies outermost. Shape ``(4, W)``.
    start
        Left edge of the first letter; letter i fills ``start + i`` to ``start + i + 1``.
    """
    tall = np.abs(values).max(initial=0)
    for sign in (1, -1):
        height = np.clip(sign * values, 0, None)
        order = height.argsort(axis=0, kind="stable")
        foot = np.empty_like(height)
        top = np.take_along_axis(height, order, axis=0).cumsum(axis=0)
        np.put_along_axis(foot, order, top - np.take_along_axis(height, order, axis=0), axis=0)
        for base, h, y in zip(BASES, height, foot, strict=True):
            at = np.flatnonzero(h > _SMEAR * tall)
            glyph, codes = _glyph(base)
            points = np.empty((len(at), *glyph.shape))
            points[..., 0] = start + at[:, None] + glyph[:, 0]
            points[..., 1] = sign * (y[at, None] + h[at, None] * glyph[:, 1])
            _add(ax, points, codes, BASE_COLORS[base], 1.0 if sign > 0 else 0.6)
    high, low = np.clip(values, 0, None).sum(axis=0).max(initial=0), np.clip(values, None, 0).sum(axis=0).min(initial=0)
    _fit(ax, start, values.shape[1], float(low), float(high))


def draw_bars(ax: Axes, values: np.ndarray, start: int | float = 0) -> None:
    """Draw signed values along the sequence as filled steps; neighbours that share a pixel are joined.

    A joined step reaches from the lowest to the highest value under it, so that no peak is averaged away.

    Parameters
    ----------
    ax
        Its limits are set to fit.
    values
        One value a base. Shape ``(L,)``.
    start
        Left edge of the first base.
    """
    step = max(1, -(-len(values) // _MOST_BINS))
    firsts = np.arange(0, len(values), step)
    edges = start + np.append(firsts, len(values))
    high = np.maximum.reduceat(np.clip(values, 0, None), firsts)
    low = np.minimum.reduceat(np.clip(values, None, 0), firsts)
    ax.stairs(high, edges, fill=True, color=RAISES, baseline=0)
    ax.stairs(low, edges, fill=True, color=LOWERS, baseline=0)
    _fit(ax, start, len(values), float(low.min()), float(high.max()))


def draw_cells(ax: Axes, values: np.ndarray, limit: float, *, start: int | float = 0, strongest: float = _STRONGEST
               ) -> None:
    """Draw a matrix as coloured cells around 0: blue above, orange below, nothing at 0 and where nothing is known.

    Parameters
    ----------
    ax
        The first row is drawn at the top; row r fills ``-r - 1`` to ``-r``. Its limits are set to fit.
    values
        Shape ``(rows, columns)``; NaN is left open.
    limit
        The value of full colour, positive; what is beyond it gets full colour too.
    start
        Left edge of the first column.
    strongest
        Opacity of full colour; lower where text stands on the cells.
    """
    level = np.rint(np.clip(np.nan_to_num(values) / (limit or 1), -1, 1) * _LEVELS).astype(int)
    box, codes = _unit_box()
    for shade in np.unique(level[level != 0]):
        row, column = np.nonzero(level == shade)
        points = np.stack((start + column[:, None] + box[:, 0], -row[:, None] - 1 + box[:, 1]), axis=-1)
        _add(ax, points, codes, RAISES if shade > 0 else LOWERS, strongest * abs(int(shade)) / _LEVELS)
    ax.set(xlim=(start, start + values.shape[1]), ylim=(-values.shape[0], 0))


def draw_scale(ax: Axes, limit: float, label: str = "") -> None:
    """Explain the colours of `draw_cells`: a bar from −limit to +limit on axes of its own."""
    ramp = np.linspace(1, -1, 2 * _LEVELS + 1)[:, None]
    draw_cells(ax, ramp, 1)
    ax.set(xticks=[], ylabel=label)
    digits = f"{limit:.2g}"
    ax.set_yticks([-0.5, -_LEVELS - 0.5, -2 * _LEVELS - 0.5], [f"+{digits}", "0", f"−{digits}"])
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    ax.yaxis.label.set(color=MUTED, fontsize=SMALL)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def draw_dots(ax: Axes, row: np.ndarray, column: np.ndarray, start: int | float = 0) -> None:
    """Mark cells of `draw_cells` with a small square in ink, such as the bases that are there."""
    box, codes = _unit_box()
    x, y = start + column[:, None] + 0.25 + box[:, 0] / 2, -row[:, None] - 0.62 + box[:, 1] * 0.24
    _add(ax, np.stack((x, y), axis=-1), codes, INK, 0.65)


def _fit(ax: Axes, start: int | float, width: int, low: float, high: float) -> None:
    pad = 0.06 * (high - low) or 1.0
    ax.set(xlim=(start, start + width), ylim=(low - (pad if low < 0 else 0), high + pad))


def _add(ax: Axes, points: np.ndarray, codes: np.ndarray, color: str, alpha: float) -> None:
    """Many copies of one shape as one path; `add_artist` does not walk all of it to find its extent."""
    if len(points):
        path = Path(points.reshape(-1, 2), np.tile(codes, len(points)))
        ax.add_artist(PathPatch(path, facecolor=color, alpha=alpha, lw=0))


@cache
def _glyph(base: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and codes of a letter stretched to the unit square."""
    path = TextPath((0, 0), base, size=10, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    points, codes = np.array(path.vertices, dtype=float), np.asarray(path.codes)
    # the vertex that closes a ring is not drawn, but must not count when the letter is stretched
    ends = np.flatnonzero(codes == Path.CLOSEPOLY)
    points[ends] = points[ends - 1]
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - low) / (high - low)
    points[:, 0] = _SIDE + points[:, 0] * (1 - 2 * _SIDE)
    return points, codes


def _unit_box() -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], dtype=float)
    return corners, np.array([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], dtype=np.uint8)
