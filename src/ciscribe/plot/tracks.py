"""A piece of the genome as a list of panels on one axis, and one gene with all that a run knows about it.

`plot_region` stacks panels (signals, mask, intervals, genes; see `ciscribe.plot.panels`) on a shared axis in
kb. `Locus` bundles what a run knows about one gene; `plot_locus` chooses its panels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ciscribe.plot.panels import (
    LEFT,
    RIGHT,
    GenePanel,
    IntervalPanel,
    MaskPanel,
    Panel,
    SignalPanel,
    View,
    inside,
)
from ciscribe.plot.style import (
    BLUE,
    BODY,
    INK,
    ORANGE,
    WIDTH,
    check_columns,
    fit_text,
    side_label,
    style,
)

_TOP, _BOTTOM, _GAP = 0.12, 0.52, 0.11  # inches above, below and between the panels
_LABEL_POINTS = (LEFT - 0.25) * 72


@style()
def plot_region(
    panels: Sequence[Panel],
    chrom: str,
    start: int,
    end: int,
    *,
    title: str = "",
    tss: int | None = None,
    bands: pd.DataFrame | None = None,
) -> Figure:
    """Draw panels one above the other on one genomic axis.

    Parameters
    ----------
    panels
        From top to bottom.
    chrom, start, end
        The region, 0-based half-open.
    title
        Above the figure; shortened when too wide.
    tss
        A position to mark through all panels.
    bands
        Intervals (``start, end``) shaded through all panels, e.g. the called elements.

    Raises
    ------
    ValueError
        If the region is empty or there is no panel.
    """
    if end <= start or not panels:
        raise ValueError(
            f"a region needs start < end and at least one panel; got {chrom}:{start}-{end} with {len(panels)} panels"
        )
    view = View(chrom, start, end)
    heights = [panel.height(view) for panel in panels]
    top = _TOP + (0.28 if title else 0)
    total = top + sum(heights) + _GAP * (len(panels) - 1) + _BOTTOM
    figure = Figure(figsize=(WIDTH, total))
    if title:
        figure.text(
            0.002,
            1 - 0.06 / total,
            fit_text(title, (WIDTH - 0.2) * 72, BODY, bold=True),
            fontsize=BODY,
            fontweight="bold",
            va="top",
        )
    wide = (WIDTH - LEFT - RIGHT) / WIDTH
    # One empty set of axes behind everything carries what runs through all panels, and the axis in kb.
    back = figure.add_axes((LEFT / WIDTH, _BOTTOM / total, wide, 1 - (top + _BOTTOM) / total), zorder=0)
    back.set(xlim=(start, end), ylim=(0, 1), yticks=[])
    back.spines["left"].set_visible(False)
    back.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    back.xaxis.set_major_formatter(FuncFormatter(_kb_formatter(end - start)))
    back.set_xlabel(f"position on {fit_text(chrom, 200)} (kb)")
    if bands is not None:
        for low, high in inside(bands, view)[["start", "end"]].itertuples(index=False):
            back.axvspan(max(low, start), min(high, end), color=BLUE, alpha=0.09, lw=0)
    if tss is not None and start <= tss < end:
        back.axvline(tss, color=INK, lw=0.9, ls=(0, (3, 3)), alpha=0.7)
    y = total - top
    for panel, height in zip(panels, heights, strict=True):
        y -= height
        ax = figure.add_axes((LEFT / WIDTH, y / total, wide, height / total), zorder=1)
        y -= _GAP
        ax.set(xlim=(start, end), xticks=[], yticks=[])
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        panel.draw(ax, view)
        side_label(ax, 0.5, panel.label, _LABEL_POINTS, max(1, min(2, int(height / 0.19))))
    return figure


@dataclass(frozen=True)
class Locus:
    """What a run knows about one gene and its surroundings.

    Parameters
    ----------
    chrom, start, end
        The region in view, 0-based half-open.
    gene_id, gene_name, tss, strand
        The gene that the mask belongs to.
    signals
        Track name to bin edges ``(n_bins + 1,)`` in bp and values ``(n_bins,)``.
    mask_edges, mask_mean, mask_sd
        Bin edges in bp; posterior mean and sd of the mask, one value a bin.
    elements
        Called elements: ``start, end, score`` and, where known, ``effect`` (prediction with minus without).
    genes
        Genes in the region, columns of `GenePanel`.
    truth
        True elements or an annotation to compare with: ``start, end`` and ``name`` or ``kind``;
        None if unknown.
    truth_label
        What `truth` is, for the reader: ``true elements`` or the name of the annotation.
    observed, predicted
        Value of each cell type or stage.
    """

    chrom: str
    start: int
    end: int
    gene_id: str
    gene_name: str
    tss: int
    strand: str
    signals: Mapping[str, tuple[np.ndarray, np.ndarray]]
    mask_edges: np.ndarray
    mask_mean: np.ndarray
    mask_sd: np.ndarray
    elements: pd.DataFrame
    genes: pd.DataFrame
    truth: pd.DataFrame | None = None
    truth_label: str = "annotation"
    observed: Mapping[str, float] = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)


def locus_panels(locus: Locus) -> list[Panel]:
    """Panels of one gene, top to bottom: signals, mask, called elements, truth or annotation, genes."""
    panels: list[Panel] = [SignalPanel(name, *track) for name, track in locus.signals.items()]
    panels.append(MaskPanel("mask, mean ± sd", locus.mask_edges, locus.mask_mean, locus.mask_sd))
    column = "effect" if "effect" in locus.elements.columns else "score"
    check_columns(locus.elements, ("start", "end", column), f"elements of {locus.gene_id}")
    pattern = "{:+.2f}" if column == "effect" else "{:.2f}"
    texts = ["" if pd.isna(value) else pattern.format(value).replace("-", "−") for value in locus.elements[column]]
    panels.append(IntervalPanel(f"called elements ({column})", locus.elements.assign(text=texts), "text", BLUE))
    if locus.truth is not None:
        named = next((c for c in ("name", "kind") if c in locus.truth.columns), None)
        panels.append(IntervalPanel(locus.truth_label, locus.truth, named, ORANGE))
    panels.append(GenePanel("genes", locus.genes, locus.gene_id))
    return panels


def plot_locus(locus: Locus, *, title: str = "") -> Figure:
    """Everything known about one gene in one figure, with called elements shaded through all panels."""
    return plot_region(
        locus_panels(locus),
        locus.chrom,
        locus.start,
        locus.end,
        title=title,
        tss=locus.tss,
        bands=locus.elements,
    )


def _kb_formatter(width: int) -> Callable[[float, int | None], str]:
    """Whole kb for wide regions, decimals where ticks are closer than that."""
    decimals = 0 if width >= 6000 else 1 if width >= 1200 else 2
    return lambda bp, _: f"{bp / 1000:,.{decimals}f}"
