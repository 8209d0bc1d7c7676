"""The panels of a genome figure, and the packing that keeps their labels apart.

Each panel is a small frozen record that knows its height and how to draw itself on axes whose x runs over the
region in bp. Labels are packed into rows before anything is drawn, so they never overlap; where a region is
too crowded, the box stays and its label is dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ciscribe.errors import SchemaError
from ciscribe.plot.style import BLUE, INK, MUTED, SLATE, SMALL, TEAL, WIDTH, check_columns, text_width

LEFT, RIGHT = 1.95, 0.6
"""Inches left of the panels, for their names, and right of them, for their scale."""
_POINTS_WIDE = (WIDTH - LEFT - RIGHT) * 72
_MOST_BINS = 700  # more than the pixels that a reader can tell apart only makes the page heavy
_MOST_ROWS = 6


@dataclass(frozen=True)
class View:
    """The region in view: 0-based half-open bp, and how wide a point of text is in bp."""

    chrom: str
    start: int
    end: int

    @property
    def bp_per_point(self) -> float:
        """Base pairs under one point (1/72 inch) of the axis."""
        return (self.end - self.start) / _POINTS_WIDE


@runtime_checkable
class Panel(Protocol):
    """What `plot_region` asks of a panel; anything with these can be stacked."""

    @property
    def label(self) -> str:
        """What stands left of the panel."""
        ...

    def height(self, view: View) -> float:
        """Height in inches that the panel needs for what is in view."""
        ...

    def draw(self, ax: Axes, view: View) -> None:
        """Draw onto axes whose x runs over the view in bp."""
        ...


@dataclass(frozen=True)
class SignalPanel:
    """A chromatin signal as a filled profile; its own scale, maximum at the right.

    Parameters
    ----------
    label
        Name of the track.
    edges
        Bin edges, bp on the chromosome. Shape ``(n_bins + 1,)``.
    values
        Height of each bin. Shape ``(n_bins,)``; when there are too many,
        neighbours are joined by their maximum.
    color
        Of the fill.
    """

    label: str
    edges: np.ndarray
    values: np.ndarray
    color: str = TEAL

    def __post_init__(self) -> None:
        _check_bins(self.label, self.edges, self.values)

    def height(self, view: View) -> float:
        """Half an inch, whatever is in view."""
        return 0.5

    def draw(self, ax: Axes, view: View) -> None:
        """Fill under the profile."""
        edges, values = _visible(view, self.edges, np.nan_to_num(self.values))
        top = float(values.max()) if len(values) and values.max() > 0 else 1.0
        bottom = min(0.0, float(values.min())) if len(values) else 0.0
        if len(values):
            ax.stairs(values, edges, fill=True, color=self.color, baseline=0)
        ax.set_ylim(bottom, top * 1.08)
        _scale(ax, f"{top:.3g}")


@dataclass(frozen=True)
class MaskPanel:
    """The model's mask: the share of each bin that it lets through, with a band of one sd to each side.

    Parameters
    ----------
    label
        What stands at the left.
    edges
        Bin edges in bp. Shape ``(n_bins + 1,)``.
    mean, sd
        Posterior mean and standard deviation, between 0 and 1. Shape ``(n_bins,)``.
    """

    label: str
    edges: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    color: str = BLUE

    def __post_init__(self) -> None:
        _check_bins(self.label, self.edges, self.mean)
        _check_bins(f"{self.label} sd", self.edges, self.sd)

    def height(self, view: View) -> float:
        """Nearly an inch, whatever is in view."""
        return 0.9

    def draw(self, ax: Axes, view: View) -> None:
        """Step line of the mean inside its band."""
        edges, mean, sd = _visible(view, self.edges, np.nan_to_num(self.mean), np.nan_to_num(self.sd))
        if len(mean):
            ax.stairs(
                np.minimum(mean + sd, 1),
                edges,
                baseline=np.maximum(mean - sd, 0),
                fill=True,
                color=self.color,
                alpha=0.25,
            )
            ax.stairs(mean, edges, color=self.color, lw=1.3, baseline=None)
        ax.set_ylim(0, 1.08)
        ax.plot([view.start, view.end], [1, 1], color=MUTED, lw=0.5, ls=(0, (1, 3)))
        _scale(ax, "1")


@dataclass(frozen=True)
class IntervalPanel:
    """Intervals as boxes, stacked in rows where they or their labels would touch.

    Parameters
    ----------
    label
        What stands at the left.
    intervals
        Columns ``start, end``; ``chrom``, where there is one, must match for a row to be drawn.
    text
        Column whose value is written above each box; None writes nothing.
    color
        Of the boxes.
    """

    label: str
    intervals: pd.DataFrame
    text: str | None = None
    color: str = BLUE

    def __post_init__(self) -> None:
        text = [self.text] if self.text else []
        check_columns(self.intervals, ("start", "end", *text), f"panel '{self.label}'")

    def _layout(self, view: View) -> tuple[pd.DataFrame, list[str], "Rows"]:
        table = inside(self.intervals, view)
        texts = [
            "" if self.text is None or pd.isna(t) else str(t)
            for t in (table[self.text] if self.text else [""] * len(table))
        ]
        return table, texts, stack_rows(table["start"].to_numpy(), table["end"].to_numpy(), texts, view)

    def height(self, view: View) -> float:
        """Height of as many rows as the stacking needs."""
        return max(1, self._layout(view)[2].n_rows) * (0.32 if self.text else 0.17) + 0.04

    def draw(self, ax: Axes, view: View) -> None:
        """Boxes with their labels above."""
        table, texts, rows = self._layout(view)
        _rows_axis(ax, rows.n_rows)
        height = 0.34 if self.text else 0.62
        for i, (start, end) in enumerate(zip(table["start"], table["end"], strict=True)):
            if rows.row[i] < 0:
                continue
            # A box thinner than a hair vanishes in a wide view; half a point is the least that is seen.
            width = max(end - start, 1.5 * view.bp_per_point)
            ax.add_patch(Rectangle((start, -rows.row[i] - 0.9), width, height, color=self.color))
            _row_text(ax, rows, i, texts[i], height)
        _notes(ax, rows)


@dataclass(frozen=True)
class GenePanel:
    """Genes as bars with an arrow at the TSS that points the way of transcription.

    Parameters
    ----------
    label
        What stands at the left.
    genes
        Columns ``start, end, strand, gene_name`` and, for the arrow, ``tss``; ``gene_id`` to find the
        highlight.
    highlight
        The `gene_id` that the figure is about; drawn in strong colour and packed first, so it is
        always named.
    """

    label: str
    genes: pd.DataFrame
    highlight: str | None = None

    def __post_init__(self) -> None:
        check_columns(self.genes, ("start", "end", "strand", "gene_name"), f"panel '{self.label}'")

    def _layout(self, view: View) -> tuple[pd.DataFrame, list[str], "Rows"]:
        table = inside(self.genes, view)
        ids = table["gene_id"] if "gene_id" in table.columns else pd.Series("", table.index)
        table = table.assign(main=ids == self.highlight, length=table["end"] - table["start"])
        table = table.sort_values(["main", "length"], ascending=False, kind="stable")
        texts = [str(name) for name in table["gene_name"]]
        return table, texts, stack_rows(table["start"].to_numpy(), table["end"].to_numpy(), texts, view)

    def height(self, view: View) -> float:
        """Height of as many rows as the stacking needs."""
        return max(1, self._layout(view)[2].n_rows) * 0.38 + 0.04

    def draw(self, ax: Axes, view: View) -> None:
        """Bars, arrows and names."""
        table, texts, rows = self._layout(view)
        _rows_axis(ax, rows.n_rows)
        for i, gene in enumerate(table.to_dict("records")):
            if rows.row[i] < 0:
                continue
            color = INK if gene["main"] else SLATE
            y = -rows.row[i] - 0.83
            ax.add_patch(
                Rectangle(
                    (gene["start"], y - 0.07),
                    max(gene["end"] - gene["start"], view.bp_per_point),
                    0.18,
                    color=color,
                )
            )
            tss = gene.get("tss", gene["start"] if gene["strand"] != "-" else gene["end"] - 1)
            if gene["strand"] in ("+", "-") and view.start <= tss < view.end:
                _tss_arrow(ax, tss, y, 1 if gene["strand"] == "+" else -1, color, view)
            _row_text(ax, rows, i, texts[i], 0.42, bold=bool(gene["main"]), color=color if gene["main"] else MUTED)
        _notes(ax, rows)


@dataclass(frozen=True)
class Rows:
    """Where stacked items go.

    Parameters
    ----------
    row
        Row of each item, 0 at the top; -1 for what found no room. Shape ``(n,)``.
    text_x
        Left end of each label in bp; NaN where the label was dropped. Shape ``(n,)``.
    n_rows
        Rows in use.
    """

    row: np.ndarray
    text_x: np.ndarray
    n_rows: int


def stack_rows(
    starts: np.ndarray, ends: np.ndarray, texts: Sequence[str], view: View, most_rows: int = _MOST_ROWS
) -> Rows:
    """Put items into rows so that neither boxes nor labels of one row touch; earlier items choose first.

    A label starts with its box and is moved left at the end of the view. An item that fits nowhere with its
    label is placed without it; one that still does not fit gets row -1.

    Parameters
    ----------
    starts, ends
        Of the boxes in bp, half-open. Shape ``(n,)``.
    texts
        Labels; "" for none.
    view
        The region that is drawn.
    most_rows
        Rows to use at most.
    """
    margin = 5 * view.bp_per_point
    taken: list[list[tuple[float, float]]] = []
    row = np.full(len(starts), -1)
    text_x = np.full(len(starts), np.nan)

    def place(low: float, high: float) -> int:
        for r, spans in enumerate(taken):
            if all(high + margin <= a or b + margin <= low for a, b in spans):
                spans.append((low, high))
                return r
        if len(taken) < most_rows:
            taken.append([(low, high)])
            return len(taken) - 1
        return -1

    for i, (start, end, text) in enumerate(zip(starts, ends, texts, strict=True)):
        low, high = float(max(start, view.start)), float(min(end, view.end))
        high = max(high, low + 1.5 * view.bp_per_point)
        if text:
            width = text_width(text, bold=True) * view.bp_per_point
            x = max(float(view.start), min(low, view.end - width))
            row[i] = place(min(low, x), max(high, x + width))
            if row[i] >= 0:
                text_x[i] = x
                continue
        row[i] = place(low, high)
    return Rows(row, text_x, len(taken))


def _check_bins(label: str, edges: np.ndarray, values: np.ndarray) -> None:
    if np.ndim(edges) != 1 or np.shape(edges) != (np.size(values) + 1,):
        raise SchemaError(
            f"panel '{label}' needs one bin edge more than values; got {np.shape(edges)} edges "
            f"and {np.shape(values)} values"
        )


def inside(table: pd.DataFrame, view: View) -> pd.DataFrame:
    """Rows of a table of intervals that lie in view, by start."""
    keep = (table["start"] < view.end) & (table["end"] > view.start)
    if "chrom" in table.columns:
        keep &= table["chrom"] == view.chrom
    return table.loc[keep].sort_values("start", kind="stable")


def _visible(view: View, edges: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Bins that lie in the view, thinned; of joined bins, the one with the highest first array stays."""
    edges = np.asarray(edges, dtype=float)
    keep = np.flatnonzero((edges[:-1] < view.end) & (edges[1:] > view.start))
    if not len(keep):
        return (edges[:0], *(np.asarray(v)[:0] for v in values))
    edges = np.clip(edges[keep[0] : keep[-1] + 2], view.start, view.end)
    arrays = [np.asarray(v, dtype=float)[keep] for v in values]
    step = -(-len(keep) // _MOST_BINS)
    if step > 1:
        firsts = np.arange(0, len(keep), step)
        best = np.array([i + int(arrays[0][i : i + step].argmax()) for i in firsts])
        edges = np.append(edges[firsts], edges[-1])
        arrays = [a[best] for a in arrays]
    return (edges, *arrays)


def _scale(ax: Axes, text: str) -> None:
    """Baseline, and the maximum written beside the right end."""
    ax.axhline(0, color=MUTED, lw=0.6)
    ax.text(1.008, 1.0, text, transform=ax.transAxes, va="top", fontsize=SMALL, color=MUTED)


def _rows_axis(ax: Axes, n_rows: int) -> None:
    ax.set_ylim(-max(1, n_rows), 0.02)


def _row_text(ax: Axes, rows: Rows, i: int, text: str, box: float, *, bold: bool = False, color: str = INK) -> None:
    if text and np.isfinite(rows.text_x[i]):
        ax.text(
            rows.text_x[i],
            -rows.row[i] - 0.9 + box + 0.1,
            text,
            fontsize=SMALL,
            va="baseline",
            color=color,
            fontweight="bold" if bold else "normal",
        )


def _notes(ax: Axes, rows: Rows) -> None:
    if not len(rows.row):
        ax.text(0.0, 0.5, "none in this region", transform=ax.transAxes, va="center", fontsize=SMALL, color=MUTED)
    if hidden := int((rows.row < 0).sum()):
        ax.text(1.008, 0.0, f"+{hidden}", transform=ax.transAxes, va="bottom", fontsize=SMALL, color=MUTED)


def _tss_arrow(ax: Axes, tss: int, y: float, direction: int, color: str, view: View) -> None:
    """Bent arrow: up from the TSS, then along transcription."""
    reach, tip = 9 * view.bp_per_point, 4 * view.bp_per_point
    ax.plot(
        [tss, tss, tss + direction * reach],
        [y, y + 0.2, y + 0.2],
        color=color,
        lw=1.2,
        solid_joinstyle="miter",
        solid_capstyle="butt",
        clip_on=False,
    )
    x = tss + direction * reach
    ax.fill([x, x + direction * tip, x], [y + 0.28, y + 0.2, y + 0.12], color=color, clip_on=False, lw=0)
