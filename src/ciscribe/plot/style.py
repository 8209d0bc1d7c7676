"""The one look of all figures: colours, type sizes, and figures as small, repeatable inline SVG.

A page with several inline SVGs shares one id space and one style sheet, so `to_svg` gives every figure its
own ids and turns palette colours into CSS variables; the same drawing then serves light and dark pages. Text
stays text: it is laid out with the metrics of DejaVu Sans (which ships with Matplotlib and is wider than the
system fonts that a browser puts in its place), so labels that do not touch here do not touch there.
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import Any, NamedTuple, SupportsFloat

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from ciscribe.errors import SchemaError


class Shade(NamedTuple):
    """One colour of the palette on a light and on a dark page."""

    light: str
    dark: str


COLORS: dict[str, Shade] = {
    "ink": Shade("#1f2933", "#e4e8ec"),
    "muted": Shade("#5c6875", "#a2adb9"),
    "line": Shade("#c3cbd4", "#4a5561"),
    "grid": Shade("#e6eaee", "#2b333c"),
    "surface": Shade("#fffffe", "#161b21"),
    "blue": Shade("#0b62a4", "#5fb0f0"),
    "orange": Shade("#d5720a", "#f2a24b"),
    "slate": Shade("#84909c", "#8894a0"),
    "teal": Shade("#2a8c82", "#4fc0b3"),
    "purple": Shade("#8b4f8f", "#cf95d3"),
    "gold": Shade("#b8941f", "#dfc158"),
}
"""Palette, safe for the common colour-vision deficiencies (blue against orange carries the contrast)."""

INK, MUTED, LINE, GRID, SURFACE = (COLORS[name].light for name in ("ink", "muted", "line", "grid", "surface"))
BLUE, ORANGE, SLATE, TEAL, PURPLE, GOLD = (
    COLORS[name].light for name in ("blue", "orange", "slate", "teal", "purple", "gold")
)
SERIES = (BLUE, ORANGE, SLATE, TEAL, PURPLE, GOLD)
"""Colours of the first, second, … thing compared; the thing that the report is about comes first."""
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.4, 1.2, 1.4)), (0, (3, 1)), (0, (8, 2)))
"""Line styles in step with `SERIES`, so that no reader depends on colour alone."""

WIDTH = 10.0
"""Width of a full figure in inches; 960 px in a browser, the width of the report's text."""
SMALL, BODY = 9.5, 10.5
"""Type sizes in points (12.7 and 14 px in a browser)."""

_RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": BODY,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelsize": BODY,
    "axes.labelcolor": MUTED,
    "axes.titlesize": BODY,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "patch.linewidth": 0,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.labelcolor": INK,
    "legend.handlelength": 2.2,
    "figure.facecolor": "none",
    "figure.dpi": 72,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "ciscribe",
    "svg.image_inline": True,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's look, in a ``with`` block or a decorated function; settings return afterwards."""
    with matplotlib.rc_context(_RC):
        yield


def series_colors(names: Iterable[str], main: str | None = None) -> dict[str, str]:
    """Colour of each name: `main` is blue, the others follow in their order and repeat after six."""
    names = list(names)
    ordered = [n for n in names if n == main] + [n for n in names if n != main]
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(ordered)}


def display_name(name: str) -> str:
    """Name of a model, method or target as people read it.

    Examples
    --------
    >>> display_name("gbm_sequence_signals"), display_name("seq2exp")
    ('GBM, sequence + signals', 'seq2exp')
    """
    if name.startswith("gbm_"):
        return "GBM, " + name.removeprefix("gbm_").replace("_", " + ")
    return name.replace("_", " ")


def text_width(text: str, size: int | float = SMALL, *, bold: bool = False) -> float:
    """Width of one line of text in points, in the metrics of DejaVu Sans."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in another script is drawn by the browser
        return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def fit_text(text: str, width: int | float, size: int | float = SMALL, *, bold: bool = False) -> str:
    """Shorten `text` with an ellipsis until it is at most `width` points wide."""
    if text_width(text, size, bold=bold) <= width:
        return text
    while text and text_width(text + "…", size, bold=bold) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def wrap_text(text: str, width: int | float, n_lines: int, size: int | float = SMALL) -> list[str]:
    """Break `text` at spaces into at most `n_lines` lines of `width` points; the last may be shortened."""
    lines: list[str] = []
    rest = text.split(" ")
    while rest:
        if len(lines) == n_lines - 1:
            lines.append(fit_text(" ".join(rest), width, size))
            break
        n = 1
        while n < len(rest) and text_width(" ".join(rest[: n + 1]), size) <= width:
            n += 1
        lines.append(fit_text(" ".join(rest[:n]), width, size))
        rest = rest[n:]
    return lines


def side_label(
    ax: Axes, y: int | float, text: str, width: int | float, n_lines: int, *, gap: int | float = 8, bold: bool = False
) -> None:
    """Write a name left of axes, right-aligned, `gap` points away, centred on `y` (axes fraction)."""
    lines = wrap_text(text, width, n_lines)
    for i, line in enumerate(lines):  # one text a line: a browser aligns single lines with its own font
        ax.annotate(
            line,
            (0, y),
            xytext=(-gap, ((len(lines) - 1) / 2 - i) * SMALL * 1.25),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=SMALL,
            color=INK,
            fontweight="bold" if bold else "normal",
        )


def number(value: SupportsFloat | None) -> str:
    """Three decimals, or ``n/a`` where there is no number."""
    return "n/a" if value is None or not np.isfinite(float(value)) else f"{float(value):.3f}"


def width_points(ax: Axes) -> float:
    """Width of axes in points."""
    figure = ax.get_figure(root=True)
    return ax.get_position().width * (figure.get_figwidth() if figure else WIDTH) * 72


def check_columns(table: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Raise SchemaError unless `table` has all `columns`; `name` says which table in the message."""
    columns = list(columns)
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise SchemaError(
            f"{name} needs the columns {', '.join(columns)}; missing: {', '.join(missing)}; "
            f"got: {', '.join(map(str, table.columns)) or '(none)'}"
        )


def axes_grid(
    n: int,
    n_columns: int,
    *,
    width: int | float = WIDTH,
    panel_height: int | float = 2.6,
    left: int | float = 0.62,
    right: int | float = 0.28,
    top: int | float = 0.32,
    bottom: int | float = 0.5,
    gap: int | float = 0.55,
    row_gap: int | float = 0.62,
) -> tuple[Figure, list[Axes]]:
    """Make a figure with `n` equal panels in rows of `n_columns`; all lengths in inches.

    Returns
    -------
    tuple
        The figure and its axes in reading order.
    """
    n_rows = -(-n // n_columns)
    panel_width = (width - left - right - gap * (n_columns - 1)) / n_columns
    height = top + bottom + n_rows * panel_height + (n_rows - 1) * row_gap
    figure = Figure(figsize=(width, height))
    axes = []
    for i in range(n):
        row, column = divmod(i, n_columns)
        x = left + column * (panel_width + gap)
        y = height - top - panel_height - row * (panel_height + row_gap)
        axes.append(figure.add_axes((x / width, y / height, panel_width / width, panel_height / height)))
    return figure, axes


def to_svg(figure: Figure, prefix: str, alt: str) -> str:
    """Write a figure as one inline ``<svg>`` element; the same figure gives the same bytes.

    Parameters
    ----------
    figure
        Drawn in the project's `style`.
    prefix
        Start of every id; unique on the page, letters, digits and hyphens.
    alt
        What the figure shows, for screen readers; escaped here.

    Raises
    ------
    ValueError
        If `prefix` cannot start an id.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", prefix):
        raise ValueError(f"prefix must be letters, digits and hyphens, a letter first; got {prefix!r}")
    stream = StringIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    # A style sheet inside one drawing would restyle the whole page; namespaces mean nothing in HTML.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    head, body = svg.split(">", 1)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", head) + ">" + body
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'style="[^"]*"', lambda m: _themed(m.group()), svg)
    svg = re.sub(r'\b(?:d|x|y|width|height|transform)="[^"]*"', lambda m: _rounded(m.group()), svg)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r'\sid="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1).strip()


def _themed(style_attribute: str) -> str:
    for name, shade in COLORS.items():
        style_attribute = style_attribute.replace(shade.light, f"var(--{name})")
    return style_attribute


def _rounded(attribute: str) -> str:
    """Keep two decimals of a pixel; nobody sees the other four and they are half of the file."""
    return re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), attribute)
