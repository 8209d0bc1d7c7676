"""Signals along the genome as runs of equal value: bigWig, bedGraph, tables of sites with heights.

A `Track` keeps each chromosome as sorted, disjoint `Runs`; what no run covers is 0. This is the files' own
form: exact, small, and `bin_means` takes bins of any size from it without ever unrolling a chromosome.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, no_type_check

import numba
import numpy as np
import pandas as pd
import pybigtools
import pyBigWig
from jaxtyping import Float32, Int
from numpy import ndarray

from ciscribe.errors import InputError, SchemaError
from ciscribe.io.chroms import NameMap, reconcile
from ciscribe.io.text import (
    PathLike,
    existing_file,
    is_remark,
    naming,
    need_columns,
    parse_rows,
    read_lines,
    read_table,
    real_numbers,
    whole_numbers,
    write_text_file,
)
from ciscribe.provenance import atomic_path
from ciscribe.schema import check_intervals

_BBIReadError: type[Exception] = pybigtools.BBIReadError  # pyright: ignore[reportAttributeAccessIssue]
_RECORD = np.dtype([("start", np.int32), ("end", np.int32), ("value", np.float32)])


class Runs(NamedTuple):
    """Piecewise-constant signal of one chromosome: sorted, disjoint ``[start, end)``, 0 elsewhere."""

    start: ndarray  # int32 (R,)
    end: ndarray  # int32 (R,)
    value: ndarray  # float32 (R,)


@dataclass(frozen=True)
class Track:
    """One signal over the genome.

    Parameters
    ----------
    name
        What was measured where, e.g. ``"K562 DNase"``.
    runs
        Chromosome → `Runs`. A chromosome that is absent is 0 throughout.
    units
        Units of the values.
    chrom_sizes
        Chromosome lengths that the file itself states (a bigWig does), else None.

    Raises
    ------
    SchemaError
        If runs are not sorted, overlap, start before 0, or hold NaN or infinite values.
    """

    name: str
    runs: dict[str, Runs]
    units: str = "signal"
    chrom_sizes: dict[str, int] | None = None

    def __post_init__(self) -> None:
        for chrom, (start, end, value) in self.runs.items():
            if not len(start) == len(end) == len(value):
                raise SchemaError(
                    f"track {self.name}: start, end and value on {chrom} must be equally long; "
                    f"got {len(start)}, {len(end)}, {len(value)}"
                )
            for bad, fault in (
                (~np.isfinite(value), "hold NaN or infinite values"),
                (start < 0, "start before 0"),
                (end <= start, "end at or before their start"),
                (np.r_[False, start[1:] < end[:-1]], "overlap the run before or are not sorted"),
            ):
                if bad.any():
                    i = int(bad.argmax())
                    raise SchemaError(
                        f"track {self.name}: {int(bad.sum()):,} of {len(bad):,} runs on {chrom} {fault}; "
                        f"first: row {i} {chrom}:{start[i]}-{end[i]} = {value[i]}"
                    )

    def rename_chroms(self, reference_sizes: Iterable[str]) -> tuple["Track", NameMap]:
        """Copy with chromosomes named as in the genome, and the map that says what was renamed or dropped.

        Raises
        ------
        InputError
            If the track has chromosomes and none is in the genome.
        """
        names = reconcile([*(self.chrom_sizes or {}), *self.runs], reference_sizes, f"track {self.name}")
        to = names.mapping
        sizes = self.chrom_sizes
        return replace(
            self,
            runs={to[c]: r for c, r in self.runs.items() if c in to},
            chrom_sizes=sizes and {to[c]: n for c, n in sizes.items() if c in to},
        ), names


def check_build(track: Track, chrom_sizes: dict[str, int]) -> None:
    """Raise InputError when a track was made on another build of the genome.

    Compares the chromosome lengths that the file states, and the ends of the runs, with the genome's. The
    names must be reconciled before (`Track.rename_chroms`); chromosomes of one side only are overlooked.
    """
    own = {c: n for c, n in (track.chrom_sizes or {}).items() if c in chrom_sizes}
    differ = [c for c, n in own.items() if n != chrom_sizes[c]]
    if differ:
        c = differ[0]
        raise InputError(
            f"track {track.name}: {len(differ)} of {len(own)} chromosomes have another length than the "
            f"genome's; first: {c} has {own[c]:,} bp in the track, {chrom_sizes[c]:,} in the genome: "
            "another build? use the genome that the track was mapped to, or lift the track over"
        )
    ends = {c: int(r.end[-1]) for c, r in track.runs.items() if c in chrom_sizes and len(r.end)}
    beyond = [c for c, end in ends.items() if end > chrom_sizes[c]]
    if beyond:
        c = beyond[0]
        raise InputError(
            f"track {track.name}: runs on {len(beyond)} of {len(ends)} chromosomes go past the end; first: "
            f"{c} has {chrom_sizes[c]:,} bp in the genome, its last run ends at {ends[c]:,}: another build? "
            "use the genome that the track was mapped to, or lift the track over"
        )


def read_bigwig(path: PathLike, name: str | None = None) -> Track:
    """Read a bigWig whole; uncovered bases and NaN are absent, so they count as 0.

    Parameters
    ----------
    path
        ``.bw`` or ``.bigWig``.
    name
        Track name; the file's name by default.

    Raises
    ------
    DataMissingError
        If there is no file.
    InputError
        If it is empty, truncated, not a bigWig, or its values overlap or are infinite.
    """
    path = existing_file(path, "bigWig")
    try:
        file = pybigtools.open(str(path))
        if not file.is_bigwig:
            raise InputError(f"{path} is a bigBed, expected a bigWig; read its intervals as BED (bigBedToBed)")
        sizes = {str(c): int(n) for c, n in file.chroms().items()}
        with open(path, "rb") as raw:
            has_index = raw.read(32)[24:] != bytes(8)  # a bigWig without any value has none, and cannot be asked
        records = {c: np.fromiter(file.records(c), dtype=_RECORD) for c in sizes if has_index}
        file.close()
    except (_BBIReadError, OSError, ValueError, KeyError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not a whole bigWig ({type(error).__name__}: {error}); it may be truncated "
            "or another format; download it again and compare its size with the source's"
        ) from error
    runs = {}
    for chrom, r in records.items():
        r = r[~np.isnan(r["value"])]
        if len(r):
            runs[chrom] = Runs(r["start"].copy(), r["end"].copy(), r["value"].copy())
    with naming(path):
        return Track(name or _stem(path), runs, chrom_sizes=sizes)


def read_bedgraph(path: PathLike, name: str | None = None) -> Track:
    """Read a bedGraph (plain or gzipped), sorted or not; NaN values are absent.

    Raises
    ------
    InputError
        If rows overlap, or a coordinate or value is not a number; the count and the first row are named.
    """
    what = "bedGraph"
    lines = [line for line in read_lines(path, what) if not is_remark(line)]
    table = parse_rows(lines, path, what, header=False)
    if table.shape[1] != 4:
        raise InputError(
            f"{what} {path} must have 4 columns (chrom start end value); got {table.shape[1]}; "
            f"first row: {lines[0][:120]!r}"
        )
    table.columns = pd.Index(["chrom", "start", "end", "value"])
    table = table.assign(
        start=whole_numbers(table, "start", path, what),
        end=whole_numbers(table, "end", path, what),
        value=real_numbers(table, "value", path, what),
    )
    with naming(path):
        return Track(name or _stem(Path(path)), _runs_of(table.dropna(subset="value"), "value"))


def read_sites(path: PathLike, chrom: str, start: str, end: str, values: list[str] | dict[str, str]) -> list[Track]:
    """Read a table of sites with one column of heights per condition as one track each.

    Parameters
    ----------
    path
        TSV or CSV with a header, plain or gzipped.
    chrom, start, end
        Names of the coordinate columns (0-based, half-open).
    values
        Columns of heights, or column → track name.

    Returns
    -------
    list of Track
        In the order of `values`. Where sites overlap, the larger height counts. Sites without a height
        (empty, NA) are absent in that track.

    Raises
    ------
    InputError
        If a column is missing, a coordinate is not a whole number, a site is empty, or a height is not a
        number.
    """
    what = "table of sites"
    names = values if isinstance(values, dict) else {column: column for column in values}
    raw = read_table(path, what)
    need_columns(raw, [chrom, start, end, *names], path, what)
    table = pd.DataFrame(
        {
            "chrom": raw[chrom],
            "start": whole_numbers(raw, start, path, what),
            "end": whole_numbers(raw, end, path, what),
        }
        | {column: real_numbers(raw, column, path, what) for column in names}
    )
    with naming(path):
        check_intervals(table, name="sites")
        return [
            Track(track, _flatten(table.dropna(subset=column), column), units="height")
            for column, track in names.items()
        ]


def _runs_of(table: pd.DataFrame, column: str) -> dict[str, Runs]:
    """Turn a table of disjoint intervals into runs, by chromosome."""
    runs = {}
    for chrom, rows in table.groupby("chrom", sort=False):
        rows = rows.sort_values("start", kind="stable")
        runs[str(chrom)] = Runs(
            rows["start"].to_numpy(np.int32),
            rows["end"].to_numpy(np.int32),
            rows[column].to_numpy(np.float32),
        )
    return runs


def _flatten(table: pd.DataFrame, column: str) -> dict[str, Runs]:
    """Turn intervals that may overlap into runs: a piece between two borders has the largest value on it."""
    runs = {}
    for chrom, rows in table.groupby("chrom", sort=False):
        start, end = rows["start"].to_numpy(np.int64), rows["end"].to_numpy(np.int64)
        borders = np.unique(np.concatenate([start, end]))
        first, last = np.searchsorted(borders, start), np.searchsorted(borders, end)
        n = last - first  # pieces that each site covers
        piece = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(first, n)
        value = np.full(len(borders) - 1, -np.inf, dtype=np.float64)
        np.maximum.at(value, piece, np.repeat(rows[column].to_numpy(np.float64), n))
        covered = np.zeros(len(value), dtype=bool)
        covered[piece] = True
        runs[str(chrom)] = Runs(
            borders[:-1][covered].astype(np.int32),
            borders[1:][covered].astype(np.int32),
            value[covered].astype(np.float32),
        )
    return runs


def write_bigwig(path: PathLike, track: Track, chrom_sizes: dict[str, int]) -> None:
    """Write a track as bigWig, whole or not at all; chromosomes in the order of `chrom_sizes`.

    Raises
    ------
    InputError
        If runs go past the end of their chromosome or lie on one that `chrom_sizes` lacks.
    OSError
        If the disk is full; the old file is then still there.
    """
    check_build(replace(track, chrom_sizes=None), chrom_sizes)
    unknown = [c for c in track.runs if c not in chrom_sizes]
    if unknown:
        raise InputError(
            f"track {track.name}: {len(unknown)} of {len(track.runs)} chromosomes are not in the genome; "
            f"first: {unknown[0]}; use Track.rename_chroms first"
        )
    with atomic_path(path) as temporary:
        try:
            file = pyBigWig.open(str(temporary), "w")
            file.addHeader([(chrom, int(size)) for chrom, size in chrom_sizes.items()])
            for chrom in chrom_sizes:
                start, end, value = track.runs.get(chrom, _NO_RUNS)
                for i in range(0, len(start), 1 << 20):
                    j = slice(i, i + (1 << 20))
                    file.addEntries(
                        [chrom] * len(start[j]),
                        start[j].tolist(),
                        ends=end[j].tolist(),
                        values=value[j].astype(float).tolist(),
                    )
            file.close()
        except RuntimeError as error:
            raise OSError(f"bigWig {path} could not be written ({error}); is the disk full?") from error
        # pyBigWig does not report a failed last write, so the file is looked at before it takes its name.
        written = sum(int((r.end.astype(np.int64) - r.start).sum()) for r in track.runs.values())
        with pyBigWig.open(str(temporary)) as file:
            found = file.header()["nBasesCovered"]
        if found != written:
            raise OSError(f"bigWig {path} could not be written: {found:,} of {written:,} bp arrived; is the disk full?")


def write_bedgraph(path: PathLike, track: Track) -> None:
    """Write a track as bedGraph, whole or not at all; gzipped when the name ends in ``.gz``."""
    parts = [
        pd.DataFrame({"chrom": chrom, "start": r.start, "end": r.end, "value": r.value})
        for chrom, r in track.runs.items()
    ]
    text = "".join(part.to_csv(sep="\t", header=False, index=False, float_format="%.9g") for part in parts)
    write_text_file(path, f'track type=bedGraph name="{track.name}"\n{text}')


_NO_RUNS = Runs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))


def bin_means(runs: Runs, starts: Int[ndarray, " B"], n_bins: int, resolution: int) -> Float32[ndarray, "B n_bins"]:
    """Exact mean signal in ``n_bins`` neighbouring bins of each window.

    Bin ``i`` of window ``b`` covers ``[starts[b] + i * resolution, + resolution)``. Bases without a run,
    before the chromosome or past its end count as 0.

    Parameters
    ----------
    runs
        Signal of the windows' chromosome.
    starts
        First bp of each window, any order; may be negative. Shape ``(B,)``.
    n_bins
        Bins per window.
    resolution
        bp per bin.

    Examples
    --------
    >>> runs = Runs(np.int32([2]), np.int32([5]), np.float32([4]))
    >>> bin_means(runs, np.array([0]), n_bins=3, resolution=2).tolist()
    [[0.0, 4.0, 2.0]]
    """
    if n_bins < 1 or resolution < 1:
        raise ValueError(f"n_bins and resolution must be at least 1; got {n_bins} and {resolution}")
    out = np.zeros((len(starts), n_bins), dtype=np.float32)
    _bin_means(runs.start, runs.end, runs.value, np.asarray(starts, dtype=np.int64), resolution, out)
    return out


@numba.njit(cache=True, nogil=True)
@no_type_check  # numba compiles the bare function; a type checker's wrapper would be in its way
def _bin_means(start, end, value, windows, resolution, out):
    n_runs, n_bins = len(start), out.shape[1]
    for b in range(len(windows)):
        lo = windows[b]
        hi = lo + n_bins * resolution
        left, right = 0, n_runs  # first run that ends after lo
        while left < right:
            middle = (left + right) // 2
            if end[middle] <= lo:
                left = middle + 1
            else:
                right = middle
        bin_, total = 0, 0.0  # the bin being filled; float64, so that long bins stay exact
        for r in range(left, n_runs):
            if start[r] >= hi:
                break
            s, e = max(np.int64(start[r]), lo) - lo, min(np.int64(end[r]), hi) - lo
            if resolution == 1:
                for i in range(s, e):
                    out[b, i] = value[r]
                continue
            while s < e:
                i = s // resolution
                if i != bin_:
                    out[b, bin_] = total / resolution
                    bin_, total = i, 0.0
                stop = min(e, (i + 1) * resolution)
                total += (stop - s) * np.float64(value[r])
                s = stop
        if resolution > 1:
            out[b, bin_] = total / resolution


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
