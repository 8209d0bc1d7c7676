"""Genes as sets: a promoter and the candidate elements around it, each cut out on its own.

Models of candidates (`ciscribe.models.epinformer`) read no window but segments side by side, the promoter in the
middle. The candidates come from any table of peaks; the most promising of each gene are taken, by activity over
distance as in activity by contact, and described by where they are and how active.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy import ndarray

from ciscribe.data.windows import Batch, WindowSpec, WindowStore
from ciscribe.errors import SchemaError
from ciscribe.schema import check_intervals
from ciscribe.sequence import N

_NEAREST = 5_000
"""bp below which contact no longer rises, as in activity by contact."""


@dataclass(frozen=True)
class CandidateSpec:
    """Which candidates a gene has.

    Parameters
    ----------
    n
        Most candidates a gene, an even number; the paper: 60.
    length
        bp of a segment around the middle of an element, and around the TSS; the paper: 2,000.
    max_distance, min_distance
        Of the middle of an element from the TSS in bp; the paper: 100,000 and 1,000.
    """

    n: int = 60
    length: int = 2000
    max_distance: int = 100_000
    min_distance: int = 1000

    def __post_init__(self) -> None:
        if self.n < 2 or self.n % 2:
            raise SchemaError("candidates stand on both sides of the promoter, so n is even and 2 or more; got "
                              f"{self.n}")
        if self.length < 2 or not 0 <= self.min_distance < self.max_distance:
            raise SchemaError("a segment has 2 bp or more, and distances rise from min_distance to max_distance; got "
                              f"{self.length}, {self.min_distance}, {self.max_distance}")


class CandidateStore:
    """Genes of a window store as promoters with candidate elements.

    A batch holds ``(n + 1) · length`` codes, n / 2 segments before and behind the promoter in order of preference, a
    free slot all N; signals ``(B, features, n + 1)``, standardized over the training genes' segments: log10 of the
    distance + 1, then the log1p of the mean of each track over the segment, then log10 of the contact by distance;
    all 0 in free slots. Segments are read in the direction of the gene.

    Parameters
    ----------
    store
        Genes, targets, folds, covariates, sequence and signals.
    elements
        Intervals on the chromosomes of the store; other columns are not used.
    spec
        Which of them a gene has.

    Raises
    ------
    SchemaError
        When no gene has a candidate.
    """

    def __init__(self, store: WindowStore, elements: pd.DataFrame, spec: CandidateSpec):
        check_intervals(elements, name="candidate elements")
        if not len(elements):
            raise SchemaError("candidates are chosen among elements; the table of elements is empty")
        self.store, self.candidates = store, spec
        self.genes, self.targets, self.covariates = store.genes, store.targets, store.covariates
        self.target_names, self.covariate_names = store.target_names, store.covariate_names
        tracks = store.track_names[:len(store.meta["units"])]  # a track of contacts is none of theirs
        self.track_names = ["distance", *tracks, "contact"]
        self._at, self._flip = self._choose(elements)
        self._features = self._describe(len(tracks))

    def __len__(self) -> int:
        return len(self.store)

    def rows(self, fold: str) -> ndarray:
        """Row numbers of the genes of a fold."""
        return self.store.rows(fold)

    @property
    def present(self) -> ndarray:
        """Which slots hold an element (or the promoter), bool ``(G, n + 1)``."""
        return self._at >= 0

    def elements_of(self, row: int) -> pd.DataFrame:
        """Segments of a gene as intervals with ``slot`` and ``distance`` of their middle from the TSS in bp."""
        slots = np.flatnonzero(self.present[row])
        middle, gene = self._at[row, slots], self.genes.iloc[row]
        start = self._first_base(middle, self._flip[[row]])
        sign = -1 if gene["strand"] == "-" else 1
        return pd.DataFrame({"chrom": gene["chrom"], "start": np.maximum(start, 0),
                             "end": start + self.candidates.length, "slot": slots,
                             "distance": sign * (middle - gene["tss"])})

    def _first_base(self, middle: ndarray, flip: ndarray) -> ndarray:
        """Where segments begin, so that read in their direction the middle is base ``length // 2``."""
        half = self.candidates.length // 2
        return middle - np.where(flip, self.candidates.length - 1 - half, half)

    def _choose(self, elements: pd.DataFrame) -> tuple[ndarray, ndarray]:
        """Middle of the element in each slot ``(G, n + 1)``, −1 where free; and which genes are read backwards."""
        store, spec = self.store, self.candidates
        chroms = store.meta["chroms"]
        middle = (elements["start"].to_numpy(np.int64) + elements["end"].to_numpy(np.int64)) // 2
        number = pd.Series(range(len(chroms)), index=chroms).reindex(elements["chrom"]).fillna(-1).to_numpy(np.int64)
        genes = store.genes
        tss, own = genes["tss"].to_numpy(np.int64), genes["i_chrom"].to_numpy()
        at = np.full((len(genes), spec.n + 1), -1, np.int64)
        at[:, spec.n // 2] = tss
        order = np.array([spec.n // 2 + step * side for step in range(1, spec.n // 2 + 1) for side in (-1, 1)])
        for c in np.unique(own):
            here = np.unique(middle[number == c])
            activity = self._activity(int(c), here)
            for g in np.flatnonzero(own == c):
                first, last = np.searchsorted(here, [tss[g] - spec.max_distance, tss[g] + spec.max_distance + 1])
                near = here[first:last]
                distance = np.abs(near - tss[g])
                worth = activity[first:last] / np.maximum(distance, _NEAREST)
                far = np.flatnonzero(distance >= spec.min_distance)
                best = far[np.lexsort((distance[far], -worth[far]))][:spec.n]
                at[g, order[:len(best)]] = near[best]
        if len(genes) and (at >= 0).sum() == len(genes):
            raise SchemaError(f"none of {len(genes):,} genes has a candidate among {len(elements):,} elements between "
                              f"{spec.min_distance:,} and {spec.max_distance:,} bp from its TSS; first gene on "
                              f"{genes['chrom'].iloc[0]}, first element on {elements['chrom'].iloc[0]}")
        return at, ((genes["strand"] == "-") & store.spec.strand_aware).to_numpy()

    def _activity(self, i_chrom: int, middle: ndarray) -> ndarray:
        """Geometric mean over tracks of the mean signal of segments; 1 where there is no track."""
        n_tracks = len(self.track_names) - 2
        if not n_tracks or not len(middle):
            return np.ones(len(middle))
        return np.exp(np.log(self._means(np.full(len(middle), i_chrom), middle) + 1e-3).mean(axis=1))

    def _means(self, i_chrom: ndarray, middle: ndarray) -> ndarray:
        """Mean of each track over segments, ``(n, tracks)``."""
        length = self.candidates.length
        raw = self.store.cut_signals(i_chrom, middle - length // 2, np.zeros(len(middle), bool), 1, length)
        return np.maximum(raw[..., 0], 0)

    def _describe(self, n_tracks: int) -> ndarray:
        n_slots = self._at.shape[1]
        gene, slot = np.nonzero(self.present)
        middle = self._at[gene, slot]
        distance = np.abs(middle - self.genes["tss"].to_numpy(np.int64)[gene])
        contact = -np.log10(np.maximum(distance, _NEAREST))
        signals = (np.log1p(self._means(self.genes["i_chrom"].to_numpy()[gene], middle)) if n_tracks
                   else np.zeros((len(gene), 0)))
        values = np.column_stack([np.log10(distance + 1), signals, contact])
        known = np.isin(gene, self.rows("train"))
        mean, sd = values[known].mean(axis=0), values[known].std(axis=0)
        out = np.zeros((len(self), values.shape[1], n_slots), np.float32)
        out[gene, :, slot] = (values - mean) / np.maximum(sd, 1e-6)
        return out

    @property
    def spec(self) -> WindowSpec:
        """The window that holds all candidates, for curves over its width."""
        reach = self.candidates.max_distance + self.candidates.length // 2
        return replace(self.store.spec, half_width=-(-reach // self.store.spec.resolution) * self.store.spec.resolution)

    def cut(self, batch: Batch, window_bp: int) -> Batch:
        """Take the elements of a batch away that reach beyond the central `window_bp`, and the promoter's ends."""
        at, length = self._at[batch.index.numpy()], self.candidates.length
        n_slots = at.shape[1]
        away = np.abs(at - at[:, [n_slots // 2]])
        inside = torch.from_numpy((at >= 0) & (away + length / 2 <= window_bp / 2))
        inside[:, n_slots // 2] = True
        codes = torch.where(inside.repeat_interleave(length, dim=1), batch.codes, N)
        promoter = codes[:, n_slots // 2 * length:(n_slots // 2 + 1) * length]
        beyond = (torch.arange(length) - length // 2).abs() > window_bp / 2
        promoter[:, beyond] = N
        return batch._replace(codes=codes, signals=batch.signals * inside.unsqueeze(1), keep=batch.keep * inside)

    def batch(self, rows: Sequence[int] | ndarray, shift: ndarray | None = None) -> Batch:
        """Examples of some rows, in their order; `shift` moves all segments of a gene by so many bp."""
        rows = np.asarray(rows, dtype=np.int64)
        at, length = self._at[rows], self.candidates.length
        n_slots = at.shape[1]
        flip = np.repeat(self._flip[rows], n_slots)
        middle = (at if shift is None else at + np.asarray(shift)[:, None]).ravel()
        start = self._first_base(middle, flip)
        chrom = np.repeat(self.genes["i_chrom"].to_numpy()[rows], n_slots)
        codes = self.store.cut_codes(chrom, start, flip, length)
        codes[(at < 0).ravel()] = N
        return Batch(torch.from_numpy(codes.reshape(len(rows), n_slots * length)),
                     torch.from_numpy(self._features[rows]), torch.from_numpy(self.covariates[rows]),
                     torch.from_numpy(self.targets[rows]), torch.ones(len(rows), n_slots), torch.from_numpy(rows))
