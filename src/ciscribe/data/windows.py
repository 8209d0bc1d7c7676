"""Training examples: one window of DNA and signals around the TSS of each gene.

A store is a folder that is built once and memory-mapped after: the genome at one byte a base, each track as
runs of constant value, the gene table and the targets. A window is cut, binned, flipped and shifted when it
is asked for, by compiled loops, so that any half-width and resolution costs nothing at rest and every
worker reads the same bytes.
"""

import copy
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, no_type_check, runtime_checkable

import numba
import numpy as np
import pandas as pd
import torch
from numpy import ndarray
from torch.utils.data import DataLoader, Dataset

from ciscribe.data.order import EpochOrder
from ciscribe.data.split import FOLDS
from ciscribe.errors import CheckpointError, ConfigError, DataMissingError, SchemaError, nearest
from ciscribe.intervals import merge
from ciscribe.io.gene_contacts import GeneContacts
from ciscribe.io.genome import Genome
from ciscribe.io.tracks import Runs, Track, bin_means, check_build
from ciscribe.provenance import atomic_folder, provenance, write_json
from ciscribe.schema import check_expression, check_genes
from ciscribe.sequence import N

VERSION = 1
RESOLUTIONS = (1, 4, 8, 10, 16, 32, 64, 128, 256)
_RUN_PARTS = (("start", np.int32), ("end", np.int32), ("value", np.float32))


@dataclass(frozen=True)
class WindowSpec:
    """What a window is.

    Parameters
    ----------
    half_width
        Bases on each side of the TSS, bp; the window is ``[TSS − half_width, TSS + half_width)`` in the
        direction of reading.
    resolution
        Bin of the signals, bp; one of `RESOLUTIONS`, and a divisor of the window.
    strand_aware
        True reads every window 5'→3' of its gene, so that genes on − are reverse-complemented.
    transform
        Of the signals: ``none``; ``log1p``; ``quantile`` (rank among the training windows, 0..1).
    contact
        Adds a last track, ``log10(contact + 1)`` with the TSS by the power law ``scale·(1 + d/d0)^−gamma``;
        the parameters are ``contact_d0`` (bp), ``contact_gamma`` and ``contact_scale``.
    context_half_width, context_resolution
        Adds the coarse surroundings to the covariates: log1p of each track's mean in bins of
        `context_resolution` bp over TSS ± `context_half_width` bp; 0 for none. They are no part of the mask.
    """

    half_width: int
    resolution: int = 1
    strand_aware: bool = True
    transform: Literal["none", "log1p", "quantile"] = "log1p"
    contact: bool = False
    contact_d0: float = 5_000.0
    contact_gamma: float = 1.0
    contact_scale: float = 100.0
    context_half_width: int = 0
    context_resolution: int = 1024

    def __post_init__(self) -> None:
        if self.resolution not in RESOLUTIONS:
            raise ConfigError(f"resolution is one of {', '.join(map(str, RESOLUTIONS))} bp; got {self.resolution}")
        if self.half_width <= 0 or (2 * self.half_width) % self.resolution:
            raise ConfigError(f"the window of 2 × half_width = {2 * self.half_width} bp must be a positive multiple "
                              f"of the resolution {self.resolution} bp")
        if (2 * self.context_half_width) % self.context_resolution:
            raise ConfigError(f"the context of 2 × {self.context_half_width} bp must be a multiple of its bins of "
                              f"{self.context_resolution} bp")
        if self.transform not in ("none", "log1p", "quantile"):
            raise ConfigError(f"transform is none, log1p or quantile; got {self.transform!r}")

    @property
    def length(self) -> int:
        """Window length, bp."""
        return 2 * self.half_width

    @property
    def n_bins(self) -> int:
        """Signal bins a window."""
        return self.length // self.resolution


class Batch(NamedTuple):
    """Examples of one step, as tensors on the CPU."""

    codes: torch.Tensor
    """uint8 ``(B, L)``."""
    signals: torch.Tensor
    """float32 ``(B, S, n_bins)``, transformed."""
    covariates: torch.Tensor
    """float32 ``(B, C)``; C may be 0."""
    targets: torch.Tensor
    """float32 ``(B, T)``."""
    keep: torch.Tensor
    """float32 ``(B, n_bins)``: 0 in the blacklist, else 1."""
    index: torch.Tensor
    """int64 ``(B,)``: row of the gene table."""


@runtime_checkable
class Examples(Protocol):
    """Genes to train on: windows of a store, or segments (`ciscribe.data.candidates`, `ciscribe.data.segments`)."""

    targets: ndarray
    track_names: list[str]
    target_names: list[str]
    covariate_names: list[str]

    def rows(self, fold: str) -> ndarray:
        """Row numbers of the genes of a fold."""
        ...

    def batch(self, rows: Sequence[int] | ndarray, shift: ndarray | None = None) -> Batch:
        """Examples of some rows, in their order, moved by so many bp."""
        ...

    def cut(self, batch: Batch, window_bp: int) -> Batch:
        """The same batch without what lies outside the central `window_bp`."""
        ...


@numba.njit(cache=True, nogil=True)
@no_type_check  # pytest's shape checks cannot wrap compiled functions
def _cut_codes(genome, offset, size, start, flip, out):  # pragma: no cover - compiled
    for i in range(out.shape[0]):
        length = out.shape[1]
        lo, hi = start[i], start[i] + length
        a, b = max(lo, 0), min(hi, size[i])
        row = out[i]
        row[:] = 4
        if b <= a:
            continue
        if flip[i]:
            for p in range(a, b):
                c = genome[offset[i] + p]
                row[hi - 1 - p] = 3 - c if c < 4 else 4
        else:
            row[a - lo:b - lo] = genome[offset[i] + a:offset[i] + b]


class WindowStore:
    """Windows of all genes, read from a folder that `build` made.

    Parameters
    ----------
    folder
        Made by `WindowStore.build`.

    Attributes
    ----------
    spec, genes, targets, covariates
        The `WindowSpec`; the gene table with its ``fold``; float32 ``(G, T)``; float32 ``(G, C)``.
    track_names, target_names, covariate_names
        Names along the axes; the contact track, by distance or measured, is last.

    Raises
    ------
    DataMissingError, CheckpointError
        When the folder is not a store, or one of another version.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "meta.json").exists():
            raise DataMissingError(f"{self.folder} is not a window store (no meta.json); "
                                   "make one with: ciscribe data build CONFIG")
        self.meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        if self.meta.get("format") != VERSION:
            raise CheckpointError(f"{self.folder} has store format {self.meta.get('format')}, this ciscribe reads "
                                  f"{VERSION}; build it again: ciscribe data build CONFIG")
        self.spec = WindowSpec(**self.meta["spec"])
        self.track_names: list[str] = self.meta["tracks"]
        self.target_names: list[str] = self.meta["targets"]
        self.covariate_names: list[str] = self.meta["covariates"]
        self.genes = pd.read_parquet(self.folder / "genes.parquet")
        self.targets = np.load(self.folder / "targets.npy")
        self.covariates = np.load(self.folder / "covariates.npy")
        self._quantiles: ndarray | None = None  # those of other folds than the folder's
        self._tables = self._open()

    def _open(self) -> dict[str, ndarray]:
        names = ("codes", "run_start", "run_end", "run_value", "bounds", "blacklist_start", "blacklist_end",
                 "blacklist_value", "blacklist_bounds", "quantiles")
        tables = {n: np.load(self.folder / f"{n}.npy", mmap_mode="r") for n in names}
        if self.meta.get("contacts"):
            tables["contact_bounds"] = np.load(self.folder / "contact_bounds.npy")
            for part, dtype in _RUN_PARTS:
                path = self.folder / f"contact_{part}.bin"
                tables[f"contact_{part}"] = (np.memmap(path, dtype, mode="r") if path.stat().st_size
                                             else np.zeros(0, dtype))
        return tables if self._quantiles is None else tables | {"quantiles": self._quantiles}

    def __getstate__(self) -> dict[str, Any]:  # memory maps are opened again by each worker
        return {k: v for k, v in self.__dict__.items() if k != "_tables"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._tables = self._open()

    def __len__(self) -> int:
        return len(self.genes)

    def __repr__(self) -> str:
        return (f"WindowStore({len(self):,} genes × {self.spec.length:,} bp, {len(self.track_names)} tracks at "
                f"{self.spec.resolution} bp, {len(self.target_names)} targets)")

    def rows(self, fold: str) -> ndarray:
        """Row numbers of the genes of a fold."""
        return np.flatnonzero((self.genes["fold"] == fold).to_numpy())

    def windows(self, half_width: int | None = None) -> pd.DataFrame:
        """Bases that each gene's window covers, as intervals with ``gene_id`` (may run off the chromosome)."""
        return gene_windows(self.genes, half_width or self.spec.half_width, self.spec.strand_aware)

    def starts(self, rows: ndarray, half_width: int | None = None) -> tuple[ndarray, ndarray]:
        """Leftmost base and reading direction (True = reversed) of the windows of some rows."""
        # as in `gene_windows`, but on arrays: a table a batch would cost more than cutting it
        flip = (self.genes["strand"].to_numpy()[rows] == "-") & self.spec.strand_aware
        return self.genes["tss"].to_numpy(np.int64)[rows] - (half_width or self.spec.half_width) + flip, flip

    def read_codes(self, rows: Sequence[int] | ndarray, shift: ndarray | None = None,
                   half_width: int | None = None) -> ndarray:
        """Codes of some windows, uint8 ``(B, L)``; bases off the chromosome are 4 (N)."""
        rows = np.asarray(rows, dtype=np.int64)
        start, flip = self.starts(rows, half_width)
        return self.cut_codes(self.genes["i_chrom"].to_numpy()[rows], start if shift is None else start + shift, flip,
                              2 * (half_width or self.spec.half_width))

    def cut_codes(self, i_chrom: ndarray, start: ndarray, flip: ndarray, length: int) -> ndarray:
        """Codes of any stretches, uint8 ``(n, length)``: chromosomes by number, first bases, True to read backwards."""
        out = np.empty((len(start), length), dtype=np.uint8)
        _cut_codes(self._tables["codes"], np.asarray(self.meta["offsets"], np.int64)[i_chrom],
                   np.asarray(self.meta["sizes"], np.int64)[i_chrom], start, flip, out)
        return out

    def cut_signals(self, i_chrom: ndarray, start: ndarray, flip: ndarray, n_bins: int, resolution: int) -> ndarray:
        """Bin means of the signals over any stretches, in raw units, float32 ``(n, S, n_bins)``; as `cut_codes`."""
        return self._bin("run", self._tables["bounds"], i_chrom, start, flip, n_bins, resolution)

    def read_signals(self, rows: Sequence[int] | ndarray, shift: ndarray | None = None, *,
                     half_width: int | None = None, resolution: int | None = None, raw: bool = False) -> ndarray:
        """Signals of some windows, float32 ``(B, S, n_bins)``: bin means in bp-exact arithmetic.

        ``raw=True`` leaves out transform and contact track. Measured contacts are 0 beyond what their file covers.
        """
        rows = np.asarray(rows, dtype=np.int64)
        start, flip = self.starts(rows, half_width)
        resolution = resolution or self.spec.resolution
        n_bins = 2 * (half_width or self.spec.half_width) // resolution
        if shift is not None:
            start = start + shift
        out = self.cut_signals(self.genes["i_chrom"].to_numpy()[rows], start, flip, n_bins, resolution)
        if raw:
            return out
        out = self._transform(out)
        if self.spec.contact:
            d = np.abs((np.arange(n_bins) + 0.5) * resolution - n_bins * resolution / 2)
            if shift is not None:  # a shifted window moves its TSS
                move = np.where(flip, shift, -shift)[:, None]
                d = np.abs((np.arange(n_bins) + 0.5) * resolution - n_bins * resolution / 2 - move)
            contact = self.spec.contact_scale * (1 + d / self.spec.contact_d0) ** -self.spec.contact_gamma
            track = np.broadcast_to(np.log10(contact + 1), (len(rows), n_bins)).astype(np.float32)
            out = np.concatenate([out, track[:, None]], axis=1)
        if self.meta.get("contacts"):
            out = np.concatenate([out, self._contacts(rows, start, flip, n_bins, resolution)], axis=1)
        return out

    def _contacts(self, rows: ndarray, start: ndarray, flip: ndarray, n_bins: int, resolution: int) -> ndarray:
        """log10(contact + 1) of each bin with the gene's own TSS, ``(B, 1, n_bins)``, in the direction of reading."""
        runs = Runs(*(self._tables[f"contact_{part}"] for part, _ in _RUN_PARTS))
        out = np.empty((len(rows), 1, n_bins), dtype=np.float32)
        for i, (first, last) in enumerate(self._tables["contact_bounds"][rows]):
            out[i] = bin_means(Runs(*(column[first:last] for column in runs)), start[i:i + 1], n_bins, resolution)
        out[flip] = out[flip][..., ::-1]
        return np.log10(out + 1)

    def read_keep(self, rows: Sequence[int] | ndarray, shift: ndarray | None = None) -> ndarray:
        """1 where a bin may be used, 0 where the blacklist covers more than half of it; ``(B, n_bins)``."""
        rows = np.asarray(rows, dtype=np.int64)
        if not len(self._tables["blacklist_start"]):
            return np.ones((len(rows), self.spec.n_bins), dtype=np.float32)
        start, flip = self.starts(rows)
        if shift is not None:
            start = start + shift
        covered = self._bin("blacklist", self._tables["blacklist_bounds"][None],
                            self.genes["i_chrom"].to_numpy()[rows], start, flip, self.spec.n_bins, self.spec.resolution)
        return (covered[:, 0] <= 0.5).astype(np.float32)

    def _bin(self, table: str, bounds: ndarray, chrom: ndarray, start: ndarray, flip: ndarray, n_bins: int,
             resolution: int) -> ndarray:
        """Bin means of stored runs, ``(B, tracks, n_bins)``, in the direction of reading."""
        runs = Runs(*(self._tables[f"{table}_{part}"] for part in ("start", "end", "value")))
        out = np.empty((len(start), len(bounds), n_bins), dtype=np.float32)
        for c in np.unique(chrom):
            here = np.flatnonzero(chrom == c)
            for t, (first, last) in enumerate(bounds[:, c]):
                part = Runs(*(column[first:last] for column in runs))
                out[here, t] = bin_means(part, start[here], n_bins, resolution)
        out[flip] = out[flip][..., ::-1]
        return out

    def _transform(self, x: ndarray) -> ndarray:
        if self.spec.transform == "log1p":
            return np.log1p(np.maximum(x, 0, out=x), out=x)
        if self.spec.transform == "quantile":
            grid = np.linspace(0, 1, self._tables["quantiles"].shape[1], dtype=np.float32)
            for t, table in enumerate(self._tables["quantiles"]):
                # ties (most bins of a sparse track are 0) take their lowest rank; 0 stays 0
                table, first = np.unique(table, return_index=True)
                x[:, t] = np.interp(x[:, t], table, grid[first])
        return x

    def batch(self, rows: Sequence[int] | ndarray, shift: ndarray | None = None) -> Batch:
        """Examples of some rows, in their order."""
        rows = np.asarray(rows, dtype=np.int64)
        return Batch(*(torch.from_numpy(a) for a in (
            self.read_codes(rows, shift), self.read_signals(rows, shift), self.covariates[rows],
            self.targets[rows], self.read_keep(rows, shift), rows)))

    def cut(self, batch: Batch, window_bp: int) -> Batch:
        """Blank everything outside the central `window_bp` of a batch: N, no signal, closed to the mask."""
        n_bins = batch.keep.shape[1]
        middle = (torch.arange(n_bins) + 0.5) * self.spec.resolution - n_bins * self.spec.resolution / 2
        inside = middle.abs() < window_bp / 2
        codes = torch.where(inside.repeat_interleave(self.spec.resolution), batch.codes, N)
        return batch._replace(codes=codes, signals=batch.signals * inside, keep=batch.keep * inside)

    def refold(self, fold: Sequence[str] | ndarray) -> "WindowStore":
        """The same windows under other folds; what was fitted to training genes is fitted to the new ones.

        Parameters
        ----------
        fold
            Of every gene, as `data.split` names them.

        Returns
        -------
        WindowStore
            It reads the same folder, which stays as it is. Covariates are standardized anew, quantiles found anew.

        Raises
        ------
        SchemaError
            When there is not one fold a gene, or no gene to train on.
        """
        if len(fold) != len(self):
            raise SchemaError(f"folds are one a gene, {len(self):,}; got {len(fold):,}")
        store = copy.copy(self)
        store.genes = self.genes.assign(fold=np.asarray(fold, dtype=object))
        train = store.rows("train")
        if not len(train):
            raise SchemaError(f"these folds leave none of {len(self):,} genes to train on")
        if store.covariates.shape[1]:
            mean, sd = store.covariates[train].mean(axis=0), store.covariates[train].std(axis=0)
            store.covariates = ((store.covariates - mean) / np.maximum(sd, 1e-6)).astype(np.float32)
        if self.spec.transform == "quantile":
            store._quantiles = store._fit_quantiles()
            store._tables = store._open()
        return store

    @classmethod
    def build(cls, folder: str | Path, genome: Genome, tracks: Sequence[Track], genes: pd.DataFrame,
              expression: pd.DataFrame, spec: WindowSpec, *, covariates: Sequence[str] = (),
              blacklist: pd.DataFrame | None = None, contacts: GeneContacts | None = None,
              facts: dict[str, Any] | None = None) -> "WindowStore":
        """Write a store and open it.

        Parameters
        ----------
        folder
            Written whole or not at all.
        genome
            Read chromosome by chromosome; only those with genes are kept.
        tracks
            Signals with the genome's chromosome names.
        genes
            Gene table with a ``fold`` column; genes without expression must be gone already.
        expression
            Indexed by gene_id, one column a target.
        spec
            The window.
        covariates
            Numeric columns of `genes`, standardized with mean and sd of the training genes.
        blacklist
            Intervals whose bins are erased from the mask.
        contacts
            Measured contacts of each gene's window with its TSS: a last track, log10(contact + 1) of the bins' means.
            They are stored as runs of equal value, one gene in memory at a time.
        facts
            Goes into the provenance.

        Raises
        ------
        SchemaError, InputError
            Broken tables; genes off the end; tracks of another build; contacts that lack a gene or are broken.
        ConfigError
            A covariate that is no column of numbers; contacts both measured and by distance.
        """
        if contacts is not None and spec.contact:
            raise ConfigError("contacts are either measured (contacts=) or made from the distance (spec.contact); "
                              "leave one out")
        sizes = genome.chrom_sizes
        check_genes(genes, sizes)
        check_expression(expression)
        off = genes["tss"].to_numpy() >= np.array([sizes[c] for c in genes["chrom"]])
        if off.any():
            g = genes.iloc[int(off.argmax())]
            raise SchemaError(f"{int(off.sum()):,} of {len(genes):,} genes have their TSS off the end of the "
                              f"chromosome; first: {g['gene_id']} at {g['chrom']}:{g['tss']:,} of "
                              f"{sizes[g['chrom']]:,} bp")
        for track in tracks:
            check_build(track, sizes)
        genes = genes.reset_index(drop=True)
        chroms = [c for c in sizes if c in set(genes["chrom"])]
        place = {c: i for i, c in enumerate(chroms)}
        genes = genes.assign(i_chrom=np.array([place[c] for c in genes["chrom"]], dtype=np.int64))
        with atomic_folder(folder) as temporary:
            lengths = np.array([sizes[c] for c in chroms], dtype=np.int64)
            offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            codes = np.lib.format.open_memmap(temporary / "codes.npy", mode="w+", dtype=np.uint8,
                                              shape=(int(lengths.sum()),))
            for chrom, offset, length in zip(chroms, offsets, lengths, strict=True):
                codes[offset:offset + length] = genome.codes(chrom)
            codes.flush()
            _write_runs(temporary, tracks, chroms)
            _write_blacklist(temporary, blacklist, chroms)
            missing = None if contacts is None else _write_contacts(temporary, contacts, genes, spec.half_width)
            for name in covariates:
                if name not in genes.columns or not pd.api.types.is_numeric_dtype(genes[name]):
                    numbers = genes.select_dtypes("number").columns
                    raise ConfigError(f"covariate {name!r} is no column of numbers of the genes; "
                                      f"{nearest(name, numbers)}")
            table = genes[list(covariates)].to_numpy(np.float32)
            if not np.isfinite(table).all():
                raise SchemaError(f"{int((~np.isfinite(table)).any(axis=1).sum()):,} genes have a missing covariate "
                                  f"({', '.join(covariates)}); fill it or leave it out")
            np.save(temporary / "covariates.npy", table)
            np.save(temporary / "targets.npy", expression.loc[genes["gene_id"]].to_numpy(np.float32))
            np.save(temporary / "quantiles.npy", np.zeros((len(tracks), 2), np.float32))
            genes.to_parquet(temporary / "genes.parquet")
            write_json(temporary / "meta.json", {
                "format": VERSION, "spec": asdict(spec), "chroms": chroms, "sizes": lengths, "offsets": offsets,
                "tracks": [t.name for t in tracks] + (["contact"] if spec.contact else [])
                + ([contacts.name] if contacts is not None else []), "contacts": contacts is not None,
                "contacts_missing": missing,
                "units": [t.units for t in tracks], "targets": list(expression.columns),
                "covariates": list(covariates), "provenance": provenance(**(facts or {}))})
            store = cls(temporary)
            if spec.transform == "quantile":
                np.save(temporary / "quantiles.npy", store._fit_quantiles())
            context, context_names = store._context()
            table = np.concatenate([table, context], axis=1)
            train = store.rows("train")
            if table.shape[1]:
                table = (table - table[train].mean(axis=0)) / np.maximum(table[train].std(axis=0), 1e-6)
            np.save(temporary / "covariates.npy", table.astype(np.float32))
            write_json(temporary / "meta.json", store.meta | {"covariates": [*covariates, *context_names]})
        return cls(folder)

    def _context(self) -> tuple[ndarray, list[str]]:
        half, step = self.spec.context_half_width, self.spec.context_resolution
        if not half:
            return np.zeros((len(self), 0), np.float32), []
        raw = self.read_signals(np.arange(len(self)), half_width=half, resolution=step, raw=True)
        names = [f"{t}@{x:+d}" for t in self.track_names[:raw.shape[1]] for x in range(-half, half, step)]
        return np.log1p(np.maximum(raw, 0)).reshape(len(self), -1), names

    def _fit_quantiles(self, n: int = 1001, sample: int = 2000) -> ndarray:
        rows = self.rows("train")
        rows = rows[:: max(1, len(rows) // sample)]
        raw = self.read_signals(rows, raw=True)
        table = np.quantile(raw.transpose(1, 0, 2).reshape(raw.shape[1], -1), np.linspace(0, 1, n), axis=1).T
        return table.astype(np.float32)


def gene_windows(genes: pd.DataFrame, half_width: int, strand_aware: bool = True) -> pd.DataFrame:
    """Window of every gene as intervals; read 5'→3', position `half_width` of the window is the TSS.

    A reversed window covers ``[tss − half_width + 1, tss + half_width + 1)``, so that the TSS has the same
    place in it.
    """
    reverse = ((genes["strand"] == "-") & strand_aware).astype(np.int64)
    start = genes["tss"].astype(np.int64) - half_width + reverse
    return pd.DataFrame({"chrom": genes["chrom"], "start": start, "end": start + 2 * half_width,
                         "gene_id": genes["gene_id"]})


def _write_runs(folder: Path, tracks: Sequence[Track], chroms: Sequence[str]) -> None:
    bounds = np.zeros((len(tracks), len(chroms), 2), dtype=np.int64)
    parts: list[Any] = []
    at = 0
    for t, track in enumerate(tracks):
        for c, chrom in enumerate(chroms):
            runs = track.runs.get(chrom)
            n = 0 if runs is None else len(runs.start)
            bounds[t, c] = at, at + n
            if runs is not None and n:
                parts.append(runs)
            at += n
    for i, (name, dtype) in enumerate(_RUN_PARTS):
        np.save(folder / f"run_{name}.npy", np.concatenate([p[i] for p in parts]).astype(dtype) if parts
                else np.zeros(0, dtype))
    np.save(folder / "bounds.npy", bounds)


def _write_contacts(folder: Path, contacts: GeneContacts, genes: pd.DataFrame, half_width: int) -> float:
    """Runs of all genes one after the other, and of each gene the first and the one after its last; share of NaN."""
    bounds = np.zeros((len(genes), 2), dtype=np.int64)
    at, missing = 0, 0.0
    with ExitStack() as stack:
        files = [stack.enter_context(open(folder / f"contact_{part}.bin", "wb")) for part, _ in _RUN_PARTS]
        for row, runs, share in contacts.read(genes, half_width):
            for file, column, (_, dtype) in zip(files, runs, _RUN_PARTS, strict=True):
                file.write(column.astype(dtype).tobytes())
            bounds[row] = at, at + len(runs.start)
            at += len(runs.start)
            missing += share / len(genes)
    np.save(folder / "contact_bounds.npy", bounds)
    return missing


def _write_blacklist(folder: Path, blacklist: pd.DataFrame | None, chroms: Sequence[str]) -> None:
    bounds = np.zeros((len(chroms), 2), dtype=np.int64)
    parts = []
    for c, chrom in enumerate(chroms):
        part = None if blacklist is None else merge(blacklist.loc[blacklist["chrom"] == chrom])
        n = 0 if part is None else len(part)
        bounds[c] = bounds[c - 1, 1] if c else 0
        bounds[c, 1] += n
        if part is not None:
            parts.append(part)
    table = pd.concat(parts) if parts else pd.DataFrame({"start": [], "end": []})
    np.save(folder / "blacklist_start.npy", table["start"].to_numpy(np.int32))
    np.save(folder / "blacklist_end.npy", table["end"].to_numpy(np.int32))
    np.save(folder / "blacklist_value.npy", np.ones(len(table), np.float32))
    np.save(folder / "blacklist_bounds.npy", bounds)


class _Steps(Dataset):
    """Each item is a whole batch: rows and shifts were drawn beforehand, so workers cannot change them."""

    def __init__(self, store: Examples):
        self.store = store

    def __getitem__(self, step: tuple[ndarray, ndarray | None]) -> Batch:
        rows, shift = step
        return self.store.batch(rows, shift)


def loader(store: Examples, rows: Iterable[int] | str, batch_size: int, *, shuffle: bool = False,
           max_shift: int = 0, seed: int = 0, n_workers: int = 0) -> DataLoader:
    """Batches of a store, identical for any number of workers.

    Parameters
    ----------
    store
        The windows, or other examples.
    rows
        Row numbers, or the name of a fold.
    batch_size
        Genes a step; the last step may be smaller.
    shuffle
        New order every epoch, from `seed` and the epoch.
    max_shift
        Augmentation: every window moves by up to this many bp, drawn per gene and epoch.
    seed
        Of order and shifts.
    n_workers
        Reading processes; 0 reads in this one.
    """
    if isinstance(rows, str):
        if rows not in FOLDS:
            raise ConfigError(f"fold is one of {', '.join(FOLDS)}; got {rows!r}")
        rows = store.rows(rows)
    plan = EpochOrder(np.asarray(rows, dtype=np.int64), batch_size, shuffle=shuffle, max_shift=max_shift, seed=seed)
    return DataLoader(_Steps(store), sampler=plan, batch_size=None, num_workers=n_workers,
                      persistent_workers=n_workers > 0)
