"""Draw one gene of a small simulated genome: signals, peaks, the elements that really drive it, genes.

Run it as ``python examples/plot_locus.py [FIGURE]``; the figure is locus.svg unless named (.svg, .png, .pdf).

A peak is where a signal is high. An element is where the gene's expression falls when the bases are taken away.
The simulated world knows both, and the two rows differ: some peaks are open chromatin that does nothing.
"""

import sys
from pathlib import Path

import numpy as np

from ciscribe.data.world import world
from ciscribe.elements import call_peaks
from ciscribe.io.tracks import bin_means
from ciscribe.plot import GenePanel, IntervalPanel, SignalPanel, plot_region

HALF, BIN = 12_000, 128  # bp on each side of the TSS, and bp a bin


def draw(figure: Path, cell: str = "liver") -> str:
    """Write the figure and return the name of the gene on it."""
    w = world(n_genes=30, n_chroms=3, seed=3)
    links = w.links.query("cell == @cell and label == 1")
    gene_id = links["gene_id"].value_counts().index[0]  # the gene with the most true elements
    gene = w.genes.set_index("gene_id").loc[gene_id]
    chrom, tss = str(gene["chrom"]), int(gene["tss"])
    start = max(0, tss - HALF)
    n_bins = min(2 * HALF, w.chrom_sizes[chrom] - start) // BIN
    edges = start + BIN * np.arange(n_bins + 1)

    tracks = {t.name: t for t in w.tracks if t.name.endswith(cell)}
    signals = [SignalPanel(name, edges, bin_means(t.runs[chrom], np.array([start]), n_bins, BIN)[0])
               for name, t in tracks.items()]
    peaks = call_peaks(tracks[f"atac_{cell}"], w.chrom_sizes, method="local")
    true = links.loc[links["gene_id"] == gene_id]
    true = true.assign(text=[f"{e:+.2f}" for e in true["effect"]])

    panels = [*signals, IntervalPanel("ATAC peaks", peaks.loc[peaks["chrom"] == chrom]),
              IntervalPanel("true elements (effect)", true, "text", "#b3541e"),
              GenePanel("genes", w.genes.loc[w.genes["chrom"] == chrom], gene_id)]
    plot = plot_region(panels, chrom, start, int(edges[-1]), title=f"{gene['gene_name']} in {cell}", tss=tss)
    plot.savefig(figure)
    return str(gene["gene_name"])


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "locus.svg")
    print(f"{draw(target)}: {target}")
