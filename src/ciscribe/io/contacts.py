"""Contact maps (Hi-C and its kin) as one object: .cool, .mcool, .hic, dense .npz, sparse text.

A map is asked one chromosome at a time and opened when it is asked, so that a `Contacts` can be made early, sent to
another process, and costs no memory until then. Bins count from 0 at the chromosome's start; contacts between
chromosomes are not read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import sparse

from ciscribe.errors import DependencyError, InputError, SchemaError, nearest
from ciscribe.io.chroms import reconcile
from ciscribe.io.text import PathLike, existing_file, open_bytes, reject_rows

_HIC_NORMALIZATIONS = ("SCALE", "KR")
_AGAIN = "download or copy it again, and compare its size or checksum with the source's"


@dataclass(frozen=True, eq=False)
class Contacts:
    """How often each pair of bins of a chromosome was found in contact.

    Parameters
    ----------
    source
        File it comes from, for messages and records.
    resolution
        bp a bin.
    n_bins
        Chromosome, as the file names it, → number of bins.
    balanced
        Whether the values are corrected for the visibility of each bin (each row then sums to about the same) or
        counts as they were read.
    load
        Chromosome, as the file names it, → upper triangle ``(n_bins, n_bins)``, `scipy.sparse.csr_array`; called when
        the chromosome is asked for.
    """

    source: str
    resolution: int
    n_bins: dict[str, int]
    balanced: bool
    load: Callable[[str], sparse.csr_array]
    _last: dict[str, sparse.csr_array] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": {}}  # another process reads for itself

    @classmethod
    def of(cls, matrices: Mapping[str, Any], resolution: int, *, balanced: bool = False,
           source: str = "memory") -> "Contacts":
        """Contacts of maps in memory: chromosome → square matrix, dense or sparse, symmetric or upper triangle."""
        if resolution < 1:
            raise SchemaError(f"resolution must be at least 1 bp; got {resolution}")
        upper = {}
        for chrom, matrix in matrices.items():
            if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
                raise SchemaError(f"contacts of {chrom} must be a square matrix; got shape {tuple(matrix.shape)}")
            upper[chrom] = _upper(sparse.csr_array(matrix), source, chrom)
        sizes = {chrom: matrix.shape[0] for chrom, matrix in upper.items()}
        return cls(source, int(resolution), sizes, balanced, upper.__getitem__)

    @property
    def chroms(self) -> tuple[str, ...]:
        """Chromosomes, as the file names them."""
        return tuple(self.n_bins)

    def name_of(self, chrom: str) -> str:
        """Name in the file of a chromosome of the genome: ``chr22`` and ``22`` are the same.

        Raises
        ------
        InputError
            If the file does not have the chromosome.
        """
        try:
            return reconcile([chrom], self.chroms, "contacts").mapping[chrom]
        except InputError as error:
            raise InputError(f"contact file {self.source} has no chromosome '{chrom}'; {nearest(chrom, self.chroms)}; "
                             "leave its elements out, or use a contact map that covers it") from error

    def matrix(self, chrom: str) -> sparse.csr_array:
        """Upper triangle of a chromosome's map, ``(n_bins, n_bins)``, rows sorted; NaN where the file says so.

        The chromosome that was asked for last is kept, others are read again: memory stays that of one chromosome.
        """
        name = self.name_of(chrom)
        if name not in self._last:
            matrix = self.load(name)
            self._last.clear()
            self._last[name] = matrix
        return self._last[name]

    def pairs(self, chrom: str, bin_a: Int[ndarray, " n"], bin_b: Int[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Contact of each pair of bins, in either order; 0 where nothing was read and beyond the chromosome's end.

        Raises
        ------
        InputError
            If the file does not have the chromosome.
        SchemaError
            If a bin lies before 0.
        """
        return look_up(self.matrix(chrom), bin_a, bin_b)

    def row(self, chrom: str, bin_: int) -> Float[ndarray, " n_bins"]:
        """Contacts of one bin with every bin of its chromosome."""
        n = self.n_bins[self.name_of(chrom)]
        if not 0 <= bin_ < n:
            raise SchemaError(f"bin must lie in 0..{n - 1} on {chrom} at {self.resolution:,} bp; got {bin_}")
        return self.pairs(chrom, np.full(n, bin_), np.arange(n))


def look_up(upper: sparse.csr_array, bin_a: Int[ndarray, " n"], bin_b: Int[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Values of an upper triangle at pairs of bins in either order; 0 where nothing is stored or beyond its edge."""
    first, second = np.minimum(bin_a, bin_b), np.maximum(bin_a, bin_b)
    if len(first) and first.min() < 0:
        raise SchemaError(f"{int((first < 0).sum()):,} of {len(first):,} pairs have a bin before 0; first: pair "
                          f"{int((first < 0).argmax())}")
    out = np.zeros(len(first), dtype=np.float64)
    inside = second < len(upper.indptr) - 1
    if inside.any():
        out[inside] = np.asarray(upper[first[inside], second[inside]], dtype=np.float64).ravel()
    return out


def open_contacts(path: PathLike, *, resolution: int | None = None, balanced: bool | None = None,
                  chrom: str | None = None, normalization: str | None = None) -> Contacts:
    """Open a contact map of any of the field's formats.

    Parameters
    ----------
    path
        The format is read from the name. ``.cool``; ``.mcool``, also as ``file.mcool::/resolutions/5000``; ``.hic``;
        ``.npz`` with ``matrix`` (dense, square) and ``start`` (of each bin in bp, or of the first); anything else is
        text, plain or gzipped: ``bin1 bin2 count`` without a header, starts of bins in bp, each pair once.
    resolution
        bp a bin. Needed for .mcool and .hic with several; of text it is the largest that fits all bins unless given.
    balanced
        None takes balanced values where the file has them, else counts. True insists: a .cool or .hic without them is
        an error; of text and .npz it states that the values are balanced already. False takes counts.
    chrom
        Chromosome of a text or .npz file, which do not name it.
    normalization
        Column of weights in a .cool (``weight``) or name of the normalization in a .hic (``SCALE``, else ``KR``).

    Raises
    ------
    DataMissingError
        If there is no file.
    InputError
        If the file is damaged, lacks the resolution (those that it has are listed) or balanced values, or does not name
        its chromosome and `chrom` is not given.
    DependencyError
        If the package that reads the format is not installed.
    """
    text = str(path)
    file, _, inner = text.partition("::")
    suffix = Path(file).suffix.lower()
    existing_file(file, "contact file")
    if suffix in (".cool", ".mcool"):
        return _open_cooler(file, inner, resolution, balanced, normalization or "weight")
    if suffix == ".hic":
        return _open_hic(file, resolution, balanced, normalization)
    if chrom is None:
        raise InputError(f"contact file {file} does not name its chromosome; give chrom=, e.g. chrom='chr22'")
    read = _read_npz if suffix == ".npz" else _read_triplets
    bin1, bin2, count, resolution, n = read(file, resolution)
    bad = ~(count >= 0) & ~np.isnan(count)
    reject_rows(bad, "have a negative count", lambda i: f"{bin1[i] * resolution} {bin2[i] * resolution} {count[i]}",
                file, "contact file")
    matrix = sparse.coo_array((count, (np.minimum(bin1, bin2), np.maximum(bin1, bin2))), shape=(n, n)).tocsr()
    return Contacts.of({chrom: matrix}, resolution, balanced=bool(balanced), source=file)


def _upper(matrix: sparse.csr_array, source: str, chrom: str) -> sparse.csr_array:
    """Upper triangle in float32 with sorted rows; a map that is neither symmetric nor upper is an error."""
    upper = sparse.csr_array(sparse.triu(matrix, format="csr"), dtype=np.float32)
    lower = sparse.csr_array(sparse.tril(matrix, -1, format="csr"))
    if lower.nnz:
        differ = lower.T - sparse.triu(matrix, 1)
        if np.nanmax(np.abs(differ.data), initial=0) > 1e-5 * np.nanmax(np.abs(matrix.data), initial=0):
            raise InputError(f"contacts of {chrom} in {source} are neither symmetric nor an upper triangle; give each "
                             "pair of bins once, or both ways with the same value")
    upper.sum_duplicates()
    return upper


def _need(package: str, what: str) -> ModuleType:
    """Import an optional reader by name."""
    try:
        if package == "cooler":
            import cooler as module
        else:
            import hictkpy as module
    except ImportError as error:
        raise DependencyError.of(package, "hic", what) from error
    return module


def _open_cooler(file: str, inner: str, resolution: int | None, balanced: bool | None, column: str) -> Contacts:
    cooler = _need("cooler", "reading .cool and .mcool files")
    try:
        groups = [inner] if inner else cooler.fileops.list_coolers(file) or ["/"]  # files of 2016 are not listed
        by_resolution = {int(cooler.Cooler(f"{file}::{group}").binsize or 0): group for group in groups}
        chosen = _choose(file, resolution, by_resolution)
        uri = f"{file}::{by_resolution[chosen]}"
        handle = cooler.Cooler(uri)
        weighted = column in handle.bins().columns
        lengths = handle.chromsizes
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"contact file {file} is truncated or no cooler ({error}); {_AGAIN}") from error
    if balanced and not weighted:
        raise InputError(f"contact file {uri} has no balanced values (column '{column}' of its bins is missing); run "
                         f"`cooler balance {uri}`, or take counts with balanced=False")
    use = weighted and balanced is not False
    n_bins = {str(c): -(-int(n) // chosen) for c, n in lengths.items()}
    return Contacts(uri, chosen, n_bins, use, partial(_load_cooler, uri, column if use else False))


def _load_cooler(uri: str, balance: str | bool, chrom: str) -> sparse.csr_array:
    cooler = _need("cooler", "reading .cool and .mcool files")
    try:
        matrix = cooler.Cooler(uri).matrix(balance=balance, sparse=True).fetch(chrom)
    except (OSError, RuntimeError) as error:
        raise InputError(f"contact file {uri} cannot be read at {chrom} ({error}); {_AGAIN}") from error
    return _upper(sparse.csr_array(sparse.triu(matrix)), uri, chrom)


def _open_hic(file: str, resolution: int | None, balanced: bool | None, normalization: str | None) -> Contacts:
    hictkpy = _need("hictkpy", "reading .hic files")
    try:
        chosen = _choose(file, resolution, hictkpy.MultiResFile(file).resolutions())
        handle = hictkpy.File(file, chosen)
        has = [str(name) for name in handle.avail_normalizations()]
        lengths = handle.chromosomes()
    except RuntimeError as error:
        raise InputError(f"contact file {file} is truncated or no .hic ({error}); {_AGAIN}") from error
    wanted = [normalization] if normalization else list(_HIC_NORMALIZATIONS)
    found = next((name for name in wanted if name in has), None)
    if found is None and (balanced or (normalization and balanced is None)):
        raise InputError(f"contact file {file} has no normalization {' or '.join(wanted)} at {chosen:,} bp; it has "
                         f"{', '.join(has) or 'none'}; name one of them with normalization=, or take counts with "
                         "balanced=False")
    use = found if balanced is not False else None
    n_bins = {str(c): -(-int(n) // chosen) for c, n in lengths.items() if str(c).lower() != "all"}
    return Contacts(file, chosen, n_bins, use is not None, partial(_load_hic, file, chosen, use))


def _load_hic(file: str, resolution: int, normalization: str | None, chrom: str) -> sparse.csr_array:
    hictkpy = _need("hictkpy", "reading .hic files")
    try:
        pixels = hictkpy.File(file, resolution).fetch(chrom, normalization=normalization, count_type="float32")
        return _upper(sparse.csr_array(pixels.to_csr()), file, chrom)
    except RuntimeError as error:
        raise InputError(f"contact file {file} cannot be read at {chrom} ({error}); {_AGAIN}") from error


def _choose(file: str, resolution: int | None, available: Any) -> int:
    """The resolution asked for, or the only one; those that the file has are listed otherwise."""
    has = sorted(int(r) for r in available)
    listed = ", ".join(f"{r:,}" for r in has) or "none"
    if resolution is None:
        if len(has) != 1:
            raise InputError(f"contact file {file} has several resolutions; choose one with resolution=: {listed} bp")
        return has[0]
    if resolution not in has:
        raise InputError(f"contact file {file} has no contacts at {resolution:,} bp; it has {listed} bp")
    return resolution


Triplets = tuple[ndarray, ndarray, ndarray, int, int]


def _read_triplets(file: str, resolution: int | None) -> Triplets:
    """Rows ``bin1 bin2 count`` in bp as bins, counts, resolution and number of bins."""
    with open_bytes(file, "contact file") as handle:
        try:
            table = pd.read_csv(handle, sep=r"\s+", header=None, comment="#", dtype=np.float64)
        except ValueError as error:  # also pandas' own parser error
            raise InputError(f"contact file {file} must be three columns of numbers without a header, "
                             f"'bin1 bin2 count', bins as starts in bp; {error}") from error
    if table.shape[1] != 3:
        raise InputError(f"contact file {file} must have 3 columns (bin1 bin2 count); got {table.shape[1]}")
    bins = table.iloc[:, :2].to_numpy()
    odd = ~(np.isfinite(bins).all(axis=1) & (bins >= 0).all(axis=1) & (bins == np.floor(bins)).all(axis=1))
    reject_rows(odd, "have a bin that is not a whole number of bp from 0 up", lambda i: str(bins[i].tolist()), file,
                "contact file")
    start = bins.astype(np.int64)
    step = int(np.gcd.reduce(start, axis=None))
    if resolution is None:
        resolution = step
    if not step or step % resolution:
        off = (start % resolution != 0).any(axis=1)
        raise InputError(f"contact file {file} has bins that do not start at multiples of {resolution:,} bp: "
                         f"{int(off.sum()):,} of {len(start):,} rows; the largest bin that fits is {step:,} bp")
    index = start // resolution
    return index[:, 0], index[:, 1], table[2].to_numpy(), resolution, int(index.max()) + 1


def _read_npz(file: str, resolution: int | None) -> Triplets:
    """Dense ``matrix`` and ``start`` as bins, counts, resolution and number of bins."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, KeyError, BadZipFile) as error:
        raise InputError(f"contact file {file} is truncated or no .npz of plain arrays ({error}); {_AGAIN}") from error
    if not {"matrix", "start"} <= set(held):
        raise InputError(f"contact file {file} must hold the arrays matrix and start; got {', '.join(held) or 'none'}")
    matrix, start = held["matrix"], np.atleast_1d(held["start"]).astype(np.int64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(start) not in (1, len(matrix)):
        raise InputError(f"contact file {file} must hold a square matrix and the start of its first or of each bin; "
                         f"got shapes {matrix.shape} and {start.shape}")
    steps = np.unique(np.diff(start))
    if len(steps) > 1:
        raise InputError(f"contact file {file} must have bins of one size without gaps; got steps of "
                         f"{', '.join(f'{s:,}' for s in steps[:5])} bp")
    stated = int(steps[0]) if len(steps) else int(held["resolution"]) if "resolution" in held else resolution
    if stated is None or (resolution is not None and resolution != stated):
        raise InputError(f"contact file {file} has bins of {stated or 'unstated'} bp; resolution= says {resolution}")
    if start[0] % stated:
        raise InputError(f"contact file {file}: its first bin starts at {start[0]:,}, no multiple of {stated:,} bp")
    if not np.allclose(matrix, matrix.T, equal_nan=True) and np.tril(matrix, -1).any():
        raise InputError(f"contact file {file}: the matrix is neither symmetric nor an upper triangle")
    first, second = np.nonzero(np.triu(matrix))
    shift = int(start[0]) // stated
    return first + shift, second + shift, matrix[first, second].astype(np.float64), stated, len(matrix) + shift


def row_sums(upper: sparse.csr_array) -> Float[ndarray, " n_bins"]:
    """Sum of each row of the symmetric map whose upper triangle is given; NaN counts as 0."""
    finite = sparse.csr_array((np.nan_to_num(upper.data), upper.indices, upper.indptr), shape=upper.shape)
    finite = finite.astype(np.float64)
    return finite.sum(axis=1) + finite.sum(axis=0) - finite.diagonal()
