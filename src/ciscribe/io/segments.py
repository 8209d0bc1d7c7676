"""Promoters with their candidate elements, cut out and encoded, as EPInformer publishes them.

One HDF5 file a cell type: ``ensid`` (genes), ``pe_code`` (genes, slots, bp, 4), one-hot A C G T, slot 0 the promoter
and the others the candidates, nearest first; ``distance`` (bp), ``activity`` and ``hic`` (genes, slots). A free slot is
all zeros, and so is what a short element leaves of its slot. Contacts may be NaN.

References
----------
Lin, Luo & Pinello, Nat Commun 2026, doi:10.1038/s41467-026-70535-8; files of Zenodo 12738705 as
pinellolab/EPInformer@0163369:scripts/utils_forTraining.py reads them. Its names and shapes are facts that were read;
no code is taken.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from ciscribe.errors import InputError
from ciscribe.io.hdf5 import need_arrays, open_hdf5
from ciscribe.io.text import PathLike
from ciscribe.sequence import N

_WHAT = "segments"
_FEATURES = ("distance", "activity", "hic")


class Segments:
    """Genes as sets of segments, in a file that is read when asked.

    Parameters
    ----------
    path
        Of the HDF5 file.
    max_missing
        Largest share of the candidates' contacts that may be NaN; NaN is read as 0.

    Attributes
    ----------
    gene_ids
        Of the rows.
    n_segments, length
        Slots a gene, and bp a slot.
    distance, activity, contact
        float32 ``(genes, slots)``, in memory (sequences stay in the file).

    Raises
    ------
    DataMissingError
        If there is no file.
    InputError
        If it is damaged; lacks an array, or holds one of another shape; repeats a gene; or if contacts are mostly NaN.
    DependencyError
        If h5py is not installed.
    """

    def __init__(self, path: PathLike, max_missing: float = 0.5):
        self.path = str(path)
        with open_hdf5(path, _WHAT) as file:
            need_arrays(file, {"ensid": (None,), "pe_code": (None, None, None, 4)}, path, _WHAT)
            n_genes, self.n_segments, self.length = (int(n) for n in file["pe_code"].shape[:3])
            shape = (n_genes, self.n_segments)
            columns = {name: tuple(getattr(file.get(name), "shape", ())) == (*shape, 1) for name in _FEATURES}
            need_arrays(file, {"ensid": (n_genes,)} | {n: (*shape, 1) if c else shape for n, c in columns.items()},
                        path, _WHAT)
            self.gene_ids = [w.decode() if isinstance(w, bytes) else str(w) for w in file["ensid"][:]]
            features = {name: file[name][:].reshape(shape).astype(np.float32) for name in _FEATURES}
        twice = len(self.gene_ids) - len(set(self.gene_ids))
        if twice:
            first = next(g for i, g in enumerate(self.gene_ids) if g in self.gene_ids[:i])
            raise InputError(f"{_WHAT} {path}: {twice:,} of {n_genes:,} genes come twice; first: {first}")
        self.missing = self._check(features, max_missing)
        self.distance, self.activity, self.contact = (np.nan_to_num(features[name], nan=0.0) for name in _FEATURES)

    def _check(self, features: dict[str, ndarray], max_missing: float) -> float:
        """Share of the candidates' contacts that are NaN; raises if too large, or if another feature is no number."""
        features = {name: values[:, 1:] for name, values in features.items()}  # nobody reads the promoter's
        for name in ("distance", "activity"):
            bad = ~np.isfinite(features[name])
            if bad.any():
                row, slot = np.argwhere(bad)[0]
                raise InputError(f"{_WHAT} {self.path}: {int(bad.sum()):,} values of '{name}' are no numbers; first: "
                                 f"{self.gene_ids[row]}, slot {slot + 1}")
        taken = (features["distance"] != 0) | (features["activity"] != 0)
        absent = np.isnan(features["hic"]) & taken
        share = float(absent.sum() / max(1, taken.sum()))
        if share > max_missing:
            row, slot = np.argwhere(absent)[0]
            raise InputError(f"{_WHAT} {self.path}: {int(absent.sum()):,} of {int(taken.sum()):,} contacts ('hic') "
                             f"are NaN; first: {self.gene_ids[row]}, slot {slot + 1}; NaN is read as 0, so they say "
                             "little; make the file again, or allow it with max_missing")
        return share

    def __len__(self) -> int:
        return len(self.gene_ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Gene id → row."""
        return {gene: row for row, gene in enumerate(self.gene_ids)}

    def features(self, rows: Sequence[int] | ndarray) -> Float32[ndarray, "B 3 slots"]:
        """Distance, activity and contact of some rows."""
        return np.stack([self.distance[rows], self.activity[rows], self.contact[rows]], axis=1)

    def codes(self, rows: Sequence[int] | ndarray) -> UInt8[ndarray, "B slots bp"]:
        """Sequences of some rows, as codes; what is no base is N.

        Raises
        ------
        InputError
            If a position is neither one base nor none.
        """
        out = np.empty((len(rows), self.n_segments, self.length), dtype=np.uint8)
        with open_hdf5(self.path, _WHAT) as file:
            for i, row in enumerate(rows):
                X = np.asarray(file["pe_code"][int(row)])
                sums = X.sum(axis=-1)
                bad = ((X != 0) & (X != 1)).any(axis=-1) | (sums > 1)
                if bad.any():
                    slot, position = np.argwhere(bad)[0]
                    raise InputError(f"{_WHAT} {self.path}: {int(bad.sum()):,} positions of gene {self.gene_ids[row]} "
                                     f"are not one-hot; first: slot {slot}, base {position}: {X[slot, position]}")
                out[i] = np.where(sums == 1, X.argmax(axis=-1), N)
        return out
