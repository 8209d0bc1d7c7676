"""Scores of every bin of every gene window, laid over the genome: what elements are tested with when nothing is called.

A caller decides how much to call; a test at equal base pairs should not depend on it. Here a method gives a number to
each bin of each window (`erasure_scores` makes one from any model), and `Bins` lays the windows, which overlap, over
the genome: pieces between neighboring borders, of which each takes the best score over it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from numpy import ndarray
from rich.progress import track as progress_bar
from torch import Tensor

from ciscribe.elements.call import MaskedOracle
from ciscribe.errors import SchemaError
from ciscribe.intervals import overlap_bp, overlapping
from ciscribe.sequence import N, codes_of

Scores = Float[ndarray, "G n_bins"]


class Bins:
    """The bins of gene windows on the genome.

    Parameters
    ----------
    starts, chroms, gene_ids, tss
        First base on the + strand (0-based; may be negative), chromosome, gene and TSS of each window.
    resolution, n_bins
        bp a bin, and bins a window.
    strands
        Strand that each window is read on; rows with ``-`` have bin 0 at the right end. None: all on +.
    chrom_sizes
        bp of the chromosomes; bins end there.

    Attributes
    ----------
    table
        The pieces, ``chrom, start, end``: disjoint, sorted, each in one bin or more.
    size, distance
        bp of each piece, and from its middle to the nearest TSS of these genes.
    """

    def __init__(self, starts: Sequence[int] | Int[ndarray, " G"], chroms: Sequence[str], gene_ids: Sequence[str],
                 tss: Sequence[int] | Int[ndarray, " G"], *, resolution: int, n_bins: int,
                 strands: Sequence[str] | None = None, chrom_sizes: Mapping[str, int] | None = None):
        self.starts, self.tss = np.asarray(starts, dtype=np.int64), np.asarray(tss, dtype=np.int64)
        self.chroms, self.gene_ids = np.asarray(chroms, dtype=object), np.asarray(gene_ids, dtype=object)
        n = len(self.starts)
        strands = ["+"] * n if strands is None else list(strands)
        for name, values in (("chroms", chroms), ("gene_ids", gene_ids), ("tss", tss), ("strands", strands)):
            if len(values) != n:
                raise SchemaError(f"{name} must hold one value for each of the {n:,} windows; got {len(values):,}")
        if resolution < 1 or n_bins < 1 or not n:
            raise SchemaError("bins need at least 1 window of 1 bin of 1 bp; got "
                              f"{n:,} windows of {n_bins} bins of {resolution} bp")
        self.resolution, self.n_bins = resolution, n_bins
        self.reverse = np.asarray(strands, dtype=object) == "-"
        place = np.arange(n_bins)
        place = np.where(self.reverse[:, None], n_bins - 1 - place, place)
        left = self.starts[:, None] + place * resolution
        limit = np.full(n, np.iinfo(np.int64).max) if chrom_sizes is None else np.array(
            [chrom_sizes[c] for c in self.chroms], dtype=np.int64)
        right = np.minimum(left + resolution, limit[:, None])
        left = np.maximum(left, 0)
        tables, piece, which, count = [], [], [], 0
        for chrom in sorted(set(self.chroms)):
            rows = np.flatnonzero(self.chroms == chrom)
            flat = (rows[:, None] * n_bins + np.arange(n_bins)).ravel()
            a, b = left[rows].ravel(), right[rows].ravel()
            flat, a, b = flat[a < b], a[a < b], b[a < b]
            edges = np.unique(np.concatenate([a, b]))
            first, last = np.searchsorted(edges, a), np.searchsorted(edges, b)
            width = last - first
            own = np.repeat(first - np.cumsum(width) + width, width) + np.arange(width.sum())
            covered, place_of = np.unique(own, return_inverse=True)
            piece.append(place_of + count)
            which.append(np.repeat(flat, width))
            middle = (edges[covered] + edges[covered + 1]) / 2
            tables.append(pd.DataFrame({"chrom": chrom, "start": edges[covered], "end": edges[covered + 1],
                                        "distance": _nearest(middle, np.sort(self.tss[rows]))}))
            count += len(covered)
        table = pd.concat(tables, ignore_index=True)
        self.distance = table.pop("distance").to_numpy(float)
        self.table = table
        self.size = (table["end"] - table["start"]).to_numpy(np.int64)
        order = np.argsort(np.concatenate(piece), kind="stable")
        self._which = np.concatenate(which)[order]
        self._heads = np.searchsorted(np.concatenate(piece)[order], np.arange(count))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def shape(self) -> tuple[int, int]:
        """Windows and bins a window."""
        return len(self.starts), self.n_bins

    def pool(self, scores: Scores) -> Float[ndarray, " pieces"]:
        """Best score of the bins over each piece.

        Raises
        ------
        SchemaError
            If the scores are not one finite number a bin.
        """
        scores = np.asarray(scores, dtype=np.float64)
        if scores.shape != self.shape:
            raise SchemaError(f"scores hold one number a window and bin, {self.shape}; got {scores.shape}")
        bad = ~np.isfinite(scores)
        if bad.any():
            i, j = np.argwhere(bad)[0]
            raise SchemaError(f"{int(bad.sum()):,} of {scores.size:,} bins have no finite score; first: "
                              f"{self.gene_ids[i]}, bin {j} = {scores[i, j]}")
        return np.maximum.reduceat(scores.ravel()[self._which], self._heads)

    def cover(self, intervals: pd.DataFrame) -> Int[ndarray, " pieces"]:
        """Count the bp of each piece that intervals cover."""
        return overlap_bp(self.table, intervals)

    def height(self, intervals: pd.DataFrame, heights: Float[ndarray, " n"]) -> Float[ndarray, " pieces"]:
        """Highest of the intervals on each piece, times the share of it that is covered; 0 where there is none."""
        out = np.zeros(len(self))
        i, j = overlapping(self.table, intervals)
        start, end = (np.stack([self.table[c].to_numpy()[i], intervals[c].to_numpy()[j]]) for c in ("start", "end"))
        share = (end.min(axis=0) - start.max(axis=0)) / self.size[i]
        np.maximum.at(out, i, np.asarray(heights, dtype=float)[j] * share)
        return out

    def pairs(self, intervals: pd.DataFrame) -> tuple[ndarray, ndarray, ndarray, ndarray]:
        """Every interval in every window that it touches: rows of both, first and end bin as the model reads them."""
        span = pd.DataFrame({"chrom": self.chroms, "start": np.maximum(self.starts, 0),
                             "end": self.starts + self.n_bins * self.resolution})
        row, gene = overlapping(intervals, span)
        first = (intervals["start"].to_numpy(np.int64)[row] - self.starts[gene]) // self.resolution
        last = -((self.starts[gene] - intervals["end"].to_numpy(np.int64)[row]) // self.resolution)
        first, last = first.clip(0, self.n_bins - 1), last.clip(1, self.n_bins)
        back = self.reverse[gene]
        return (row, gene, np.where(back, self.n_bins - last, first), np.where(back, self.n_bins - first, last))


def _nearest(at: ndarray, points: ndarray) -> ndarray:
    right = np.searchsorted(points, at).clip(0, len(points) - 1)
    return np.minimum(np.abs(points[right] - at), np.abs(points[(right - 1).clip(0)] - at))


def distance_scores(n_windows: int, n_bins: int) -> Scores:
    """Score of a caller that knows only where the TSS is: minus the distance in bins from the middle of the window."""
    return np.broadcast_to(-np.abs(np.arange(n_bins) - (n_bins - 1) / 2), (n_windows, n_bins)).copy()


def smoothed_mask(mean: Scores, reach: int) -> Scores:
    """Mean log-odds of the mask over each bin and `reach` bins to either side, fewer at the ends of the window.

    An accessible site is wider than a bin; log-odds, because a mask that is sparse says most by how far it is from 0.
    """
    odds = np.asarray(mean, dtype=np.float64).clip(1e-6, 1 - 1e-6)
    odds = np.log(odds / (1 - odds))
    total = np.concatenate([np.zeros((len(odds), 1)), np.cumsum(odds, axis=1)], axis=1)
    place = np.arange(odds.shape[1])
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, odds.shape[1])
    return (total[:, high] - total[:, low]) / (high - low)


def of_another_gene(scores: Scores, seed: int = 0) -> Scores:
    """Scores with the genes changed in a random cycle: every distance from a TSS keeps its scores, no gene its own."""
    cycle = np.random.default_rng(seed).permutation(len(scores))
    other = np.empty(len(scores), dtype=np.int64)
    other[cycle] = np.roll(cycle, 1)
    return scores[other]


def erasure_scores(oracle: MaskedOracle, X: Shaped[Tensor, "G ..."] | UInt8[ndarray, "G L"], S: Tensor | None = None,
                   covariates: Tensor | None = None, keep: Tensor | None = None, *, resolution: int, width: int = 4,
                   how: str = "mask", batch_size: int = 64, progress: bool = False
                   ) -> Float[ndarray, "G n_bins T"]:
    """Change of the prediction when the tile around each bin is taken away.

    Parameters
    ----------
    oracle
        The model.
    X, S, covariates, keep
        Model input, one row a gene window; `keep` holds 0 where a bin is erased anyway (a blacklist).
    resolution
        bp a bin.
    width
        Bins of a tile. Tiles lie side by side, the last one may be shorter; all bins of a tile share its effect.
    how
        ``mask`` closes the mask over the tile: the predictor sees neither its bases nor its signals, and what the model
        thinks of the other bins stays as it was (models with a mask). ``sequence`` turns its bases into N and leaves
        signals alone.
    batch_size, progress
        Windows a forward pass; show a bar.

    Returns
    -------
    ndarray
        Before − after in the units of the readout: positive where the tile raises the output.
    """
    if how not in ("mask", "sequence"):
        raise ValueError(f"how is mask or sequence; got {how!r}")
    codes = torch.from_numpy(np.ascontiguousarray(codes_of(X)))
    n, length = codes.shape
    if resolution < 1 or width < 1 or length % resolution:
        raise SchemaError(f"a window of {length:,} bp has whole bins of `resolution` bp, and tiles at least 1 of them; "
                          f"got {resolution=}, {width=}")
    n_bins = length // resolution
    tiles = [(a, min(a + width, n_bins)) for a in range(0, n_bins, width)]
    base = torch.ones(n, n_bins) if keep is None else keep
    out = None
    per = max(1, batch_size // (len(tiles) + 1))
    for i in progress_bar(range(0, n, per), description=f"erasing tiles ({how})", disable=not progress):
        rows = torch.arange(i, min(i + per, n)).repeat_interleave(len(tiles) + 1)
        x, open_ = codes[rows].clone(), base[rows].clone()
        for t, (a, b) in enumerate(tiles):
            if how == "mask":
                open_[t + 1::len(tiles) + 1, a:b] = 0
            else:
                x[t + 1::len(tiles) + 1, a * resolution:b * resolution] = N
        y = oracle.predict(x, S=None if S is None else S[rows],
                           covariates=None if covariates is None else covariates[rows],
                           keep=None if keep is None and how == "sequence" else open_, batch_size=batch_size)
        y = y.detach().cpu().numpy().reshape(-1, len(tiles) + 1, y.shape[1])
        if out is None:
            out = np.empty((n, n_bins, y.shape[2]), dtype=np.float32)
        for t, (a, b) in enumerate(tiles):
            out[i:i + len(y), a:b] = (y[:, 0] - y[:, t + 1])[:, None]
    return np.zeros((0, n_bins, 0), np.float32) if out is None else out
