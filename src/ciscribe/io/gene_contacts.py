"""Hi-C as Seq2Exp publishes it: how often each base of a gene's window touches the gene's TSS.

One HDF5 file a chromosome, in it one array a TSS, called ``<chrom>_<tss>``: contact of base i of the window
``[tss − width/2, tss + width/2)`` with the TSS, in the direction of the chromosome, on a linear scale; bases off the
chromosome are 0. Contacts come in bins of 5 kb, so an array is a few dozen runs of equal value, which is how it is
handed on.

References
----------
Layout of divelab/AIRS@3aa7ceb:OpenBio/Seq2Exp (arXiv:2502.13991), read for its facts; no code is taken. There, windows
off the chromosome are padded again when they are read, which moves their contacts by half of what is missing; here
every contact stays on its base.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from ciscribe.errors import InputError, nearest
from ciscribe.io.hdf5 import open_hdf5
from ciscribe.io.tracks import Runs

_WHAT = "contacts"


@dataclass(frozen=True)
class GeneContacts:
    """Contacts of genes with the bases around them, in HDF5 files that are opened when they are read.

    Parameters
    ----------
    path
        Of the files; ``{chrom}`` in it stands for the chromosome (``HiC/K562/hic_feat_{chrom}.h5``). Without it, one
        file holds all.
    name
        Of the track.
    max_missing
        Largest share of a file's genes whose contacts may be NaN on more than half of their window. NaN is read as 0;
        where most genes have nothing else, the file says nothing.
    """

    path: str
    name: str = "hic"
    max_missing: float = 0.5

    def file_of(self, chrom: str) -> str:
        """Path of the file of a chromosome."""
        return self.path.replace("{chrom}", chrom)

    def read(self, genes: pd.DataFrame, half_width: int) -> Iterator[tuple[int, Runs, float]]:
        """Contacts of every gene, one array in memory at a time.

        Parameters
        ----------
        genes
            With ``gene_id, chrom, tss``.
        half_width
            bp around the TSS that must be covered.

        Yields
        ------
        int, Runs, float
            Row of the gene (a chromosome's genes together); its contacts, in bp of the chromosome, where what is 0 or
            NaN has no run; and the share of its window that is NaN.

        Raises
        ------
        DataMissingError
            If the file of a chromosome is absent.
        InputError
            If a file is damaged; lacks a gene; holds arrays of another length than the others, or shorter than the
            window; negative or infinite contacts; or almost nothing but NaN.
        DependencyError
            If h5py is not installed.
        """
        width: tuple[int, str] | None = None
        for chrom, own in genes.reset_index(drop=True).groupby("chrom", sort=False):
            path = self.file_of(str(chrom))
            keys = [f"{chrom}_{tss}" for tss in own["tss"]]
            missing: list[str] = []
            with open_hdf5(path, _WHAT) as file:
                _need_genes(file, keys, own["gene_id"].tolist(), str(chrom), path)
                for row, key, tss in zip(own.index, keys, own["tss"], strict=True):
                    width = _same_width(file[key], f"'{key}' in {path}", width, half_width)
                    values = np.asarray(file[key], dtype=np.float32)
                    absent = np.isnan(values)
                    share = float(absent.mean())
                    if share > 0.5:
                        missing.append(key)
                    values = np.where(absent, np.float32(0), values)
                    bad = ~np.isfinite(values) | (values < 0)
                    if bad.any():
                        raise InputError(f"{_WHAT} '{key}' in {path}: {int(bad.sum()):,} of {len(bad):,} values are "
                                         f"negative or infinite; first: {values[bad][0]} at base {int(bad.argmax())}")
                    yield int(row), _runs(values, int(tss) - len(values) // 2), share
            if len(missing) > self.max_missing * len(keys):
                raise InputError(f"{_WHAT} {path}: {len(missing):,} of {len(keys):,} genes are NaN on more than half "
                                 f"of their window; first: {missing[0]}; NaN is read as 0, so this file says little; "
                                 "make it again, leave contacts out, or allow it with max_missing")


def _need_genes(file: Any, keys: list[str], gene_ids: list[str], chrom: str, path: str) -> None:
    absent = [i for i, key in enumerate(keys) if key not in file]
    if not absent:
        return
    held = [str(name) for name in file]
    if not any(name.startswith(f"{chrom}_") for name in held):
        raise InputError(f"{_WHAT} {path} have no chromosome '{chrom}', on which {len(keys):,} genes lie; "
                         + nearest(chrom, {name.rpartition("_")[0] for name in held}))
    key = keys[absent[0]]
    raise InputError(f"{_WHAT} {path} lack {len(absent):,} of {len(keys):,} genes; first: {gene_ids[absent[0]]} as "
                     f"'{key}'; an array is called chrom_tss, and the TSS must be that of the gene table; "
                     f"{nearest(key, held).partition(' options')[0]}")


def _same_width(array: Any, where: str, width: tuple[int, str] | None, half_width: int) -> tuple[int, str]:
    """Length of an array and where it was seen first; raises where it is another, or shorter than the window."""
    shape = tuple(getattr(array, "shape", ()))
    if len(shape) != 1 or shape[0] % 2 or (width is not None and shape[0] != width[0]):
        wanted = "an even number of bases" if width is None else f"{width[0]:,} bases, as {width[1]} has"
        raise InputError(f"{_WHAT} {where} must have {wanted}; got shape {shape}; all genes must have one window: make "
                         "the files again with one length")
    if shape[0] < 2 * half_width:
        raise InputError(f"{_WHAT} {where} cover {shape[0]:,} bp, the window is {2 * half_width:,} bp; lower "
                         f"window.half_width to {shape[0] // 2:,} or make the files again")
    return width or (shape[0], where)


def _runs(values: ndarray, start: int) -> Runs:
    """Runs of equal value that are not 0; the first base lies at `start`."""
    first = np.r_[0, np.flatnonzero(np.diff(values)) + 1]
    last = np.r_[first[1:], len(values)]
    some = values[first] != 0
    return Runs((first[some] + start).astype(np.int32), (last[some] + start).astype(np.int32), values[first[some]])
