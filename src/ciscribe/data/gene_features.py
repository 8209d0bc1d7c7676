"""What the annotation alone says of a gene: how long it is, and who its neighbors are.

Expression models are given features of the mRNA beside the sequence, because a window around the TSS does not show
them (published: lengths and GC of UTRs, CDS and introns). From a table of gene bodies the following can be read in any
species; in compact genomes they tell a good deal, since a gene close behind another on the same strand may have no
promoter of its own (an operon).
"""

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped
from numpy import ndarray

from ciscribe.schema import check_genes

GENE_FEATURES = ("gene_length", "upstream_gap", "upstream_same_strand", "downstream_gap", "downstream_same_strand",
                 "genes_nearby", "place_in_run")
NEARBY = 10_000
"""bp on each side of the TSS within which genes are counted."""
RUN_GAP = 500
"""Largest gap in bp between genes of one strand that run on from each other."""
_LONGEST_RUN = 8
_FARTHEST = 50_000


def gene_features(genes: pd.DataFrame) -> pd.DataFrame:
    """Describe every gene by its own length and its neighbors on the chromosome.

    Parameters
    ----------
    genes
        All annotated genes, also those whose expression is not known: they are neighbors too.

    Returns
    -------
    DataFrame
        Index of `genes`; columns `GENE_FEATURES`, float. Up- and downstream are along the gene. ``gene_length``: log10
        of bp. Gaps g between gene bodies in bp: sign(g) · log10(1 + abs(g)), negative where they overlap, capped at 50
        kb, which is also that of the first and last gene of a chromosome. ``…_same_strand``: 1, 0, or ½ where there is
        no neighbor. ``genes_nearby``: bodies that reach into TSS ± 10 kb, itself included. ``place_in_run``: genes that
        stand before it in a run of the same strand with gaps of at most 500 bp (up to 8).

    Examples
    --------
    >>> genes = pd.DataFrame({"chrom": "chr1", "start": [0, 1200], "end": [1000, 3200], "strand": "+",
    ...                       "gene_id": ["a", "b"], "gene_name": ["a", "b"], "tss": [0, 1200]})
    >>> gene_features(genes)["place_in_run"].tolist()
    [0.0, 1.0]
    """
    check_genes(genes)
    out = np.zeros((len(genes), len(GENE_FEATURES)))
    for _, group in genes.reset_index(drop=True).groupby("chrom", sort=False):
        group = group.sort_values(["start", "end"], kind="stable")
        out[group.index.to_numpy()] = _of_chromosome(
            group["start"].to_numpy(np.int64), group["end"].to_numpy(np.int64), group["tss"].to_numpy(np.int64),
            (group["strand"] != "-").to_numpy())
    return pd.DataFrame(out, index=genes.index, columns=pd.Index(GENE_FEATURES))


def _of_chromosome(start: Int[ndarray, " G"], end: Int[ndarray, " G"], tss: Int[ndarray, " G"],
                   forward: Shaped[ndarray, " G"]) -> ndarray:
    """Features of the genes of one chromosome, sorted by start."""
    n = len(start)
    gap = np.full(n + 1, _FARTHEST)  # before gene i on the + strand; the last one is behind all
    gap[1:n] = np.clip(start[1:] - end[:-1], -_FARTHEST, _FARTHEST)
    same = np.full(n + 1, 0.5)
    same[1:n] = forward[1:] == forward[:-1]
    joined = (gap <= RUN_GAP) & (same == 1)
    signed = np.sign(gap) * np.log10(1 + np.abs(gap))
    before, behind = np.arange(n), np.arange(1, n + 1)
    up, down = np.where(forward, before, behind), np.where(forward, behind, before)
    place = np.zeros(n)
    for order, link in ((range(1, n), joined), (range(n - 2, -1, -1), np.roll(joined, -1))):
        for i in order:
            ahead = order.step == 1
            if forward[i] == ahead and link[i]:
                place[i] = min(place[i - order.step] + 1, _LONGEST_RUN)
    ends = np.sort(end)
    nearby = np.searchsorted(start, tss + NEARBY, side="right") - np.searchsorted(ends, tss - NEARBY, side="right")
    length = np.log10(np.maximum(end - start, 1))
    return np.column_stack([length, signed[up], same[up], signed[down], same[down], nearby, place])
