"""Reporter assays: sequences and the activities that were measured for them.

A table of any shape in which labs pass such data on becomes a `ReporterSet`: codes padded to one length,
targets with NaN where nothing was measured, and notes of everything that was done on the way. Counts of
barcodes become activities with `activity_from_counts`, and `loader` deals a set out in batches.
"""

import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray
from torch.utils.data import DataLoader, Dataset

from ciscribe.data.order import EpochOrder
from ciscribe.data.windows import Batch
from ciscribe.errors import ConfigError, InputError, SchemaError, nearest
from ciscribe.io.text import (
    PathLike,
    coerce_numbers,
    existing_file,
    need_columns,
    numbers_or_words,
    parse_rows,
    read_lines,
    real_numbers,
    reject_rows,
)
from ciscribe.sequence import N, check_codes, encode

Duplicates = Literal["error", "mean", "keep"]
Log = Literal["log2", "log10", "ln"]

_WHAT = "reporter table"
_LOGS = {"log2": np.log2, "log10": np.log10, "ln": np.log}
_FASTA = (".fa", ".fasta", ".fna", ".fas")


@dataclass(frozen=True, eq=False)
class ReporterSet:
    """Sequences with their measured activities; row i of every member is the same example."""

    table: pd.DataFrame
    """``name``, ``sequence`` (upper case) and every further column of the file, one row an example."""
    codes: UInt8[ndarray, "N L"]
    """Codes 0..4, each sequence in the middle, N on both sides."""
    targets: Float[ndarray, "N T"]
    """float32, NaN = not measured."""
    target_names: tuple[str, ...]
    """Name of each target."""
    notes: tuple[str, ...] = field(default=())
    """What was done to the data on the way, one sentence each."""

    def __post_init__(self) -> None:
        check_codes(self.codes)
        sizes = (len(self.table), len(self.codes), len(self.targets))
        if len(set(sizes)) > 1 or self.targets.shape[1] != len(self.target_names):
            raise SchemaError(f"table, codes and targets need one row an example, and targets one name a column; got "
                              f"{sizes} rows and {len(self.target_names)} names of {self.targets.shape[1]} columns")

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"ReporterSet({len(self):,} sequences × {self.codes.shape[1]:,} bp, {', '.join(self.target_names)})"

    def take(self, rows: Shaped[ndarray, " n"] | Sequence[int]) -> "ReporterSet":
        """Set of some rows, by number or by a mask of all rows."""
        rows = _row_numbers(rows, len(self))
        return ReporterSet(self.table.iloc[rows].reset_index(drop=True), self.codes[rows], self.targets[rows],
                           self.target_names, self.notes)


def _row_numbers(rows: Any, n: int) -> ndarray:
    rows = np.asarray(list(rows) if not isinstance(rows, ndarray) else rows)
    if rows.dtype == bool:
        if len(rows) != n:
            raise SchemaError(f"a mask of rows needs {n:,} entries; got {len(rows):,}")
        return np.flatnonzero(rows)
    return rows.astype(np.int64)


def read_reporter(
    path: PathLike | Sequence[PathLike], *, sequence: str = "sequence", activity: str | Sequence[str] = "activity",
    name: str | None = None, columns: Sequence[str] | None = None, activities: PathLike | None = None,
    where: Mapping[str, Any] | None = None, log: Log | None = None, pseudocount: float = 0.0,
    floor: float | None = None, length: int | None = None, mixed_lengths: Literal["pad", "error"] = "pad",
    duplicates: Duplicates = "error", separator: str | None = None,
) -> ReporterSet:
    """Read sequences and activities of a reporter assay.

    CSV, TSV and text are read plain or gzipped, also parquet and FASTA. A FASTA header holds the activities
    as ``>name activity=1.2`` or, in the order of `activity`, as ``>name 1.2``; or they lie in a second table.
    A ``.npy`` of strings (also gzipped, never pickled) is a list of sequences; its `activities` are a second one.

    Parameters
    ----------
    path
        One file or several, whose rows are joined and get a column ``source`` with the file's name.
    sequence, activity, name
        Columns; several activities are several targets, ``()`` is none (sequences to predict). An empty cell
        or ``NA`` is not measured. Without `name`, a column ``name`` or the row number names an example.
    columns
        Names of the columns of a file that has no header.
    activities
        Table with a column ``name`` and the activities, for a FASTA without them.
    where
        Column → value or list of values: only such rows are read.
    log, pseudocount, floor
        Targets become ``log(max(activity, floor) + pseudocount)``; natural scale and no floor by default.
        The table keeps what the file says.
    length
        Pad to this many bp instead of to the longest sequence.
    mixed_lengths
        ``pad`` puts shorter sequences in the middle of N; ``error`` refuses sets of several lengths.
    duplicates
        The same sequence twice: ``mean`` averages its targets (after the log), ``keep`` keeps all rows, and
        ``error`` refuses different activities, but joins equal ones.
    separator
        Of the columns; None takes tabs or commas, whichever the first line has, else blanks.

    Raises
    ------
    DataMissingError
        When a file is not there.
    InputError
        With the count and the first row, when letters are not ACGTN, a column is missing or not numeric, no
        activity varies, a logarithm has no value, or sequences are duplicated or of mixed length against
        what was asked for.
    """
    paths = [path] if isinstance(path, str | Path) or not isinstance(path, Sequence) else list(path)
    if not paths:
        raise InputError("no reporter table was named; expected at least one path")
    targets = [activity] if isinstance(activity, str) else list(activity)
    parts = []
    for one in paths:
        if _is_fasta(one):
            part = _read_fasta(one, targets, activities)
            sequence_column = "sequence"
        elif _is_array(one):
            part = _read_arrays(one, targets, activities)
            sequence_column = "sequence"
        else:
            part = _read_words(one, columns, separator)
            sequence_column = sequence
        chosen = _where(part, where or {}, one)
        need_columns(chosen, [sequence_column, *targets, *([name] if name else [])], one, _WHAT)
        chosen = chosen.rename(columns={sequence_column: "sequence"} if sequence_column != "sequence" else {})
        if not chosen.columns.is_unique:
            twice = chosen.columns[np.asarray(chosen.columns.duplicated())][0]
            raise InputError(f"{_WHAT} {one} has two columns {twice!r} (the column {sequence_column!r} is called "
                             "'sequence' in the result); rename one")
        for target in targets:
            chosen[target] = real_numbers(chosen, target, one, _WHAT)
        parts.append(chosen.assign(source=Path(one).name) if len(paths) > 1 and "source" not in chosen else chosen)
    table = pd.concat(parts, ignore_index=True)
    for column in table.columns.difference(["sequence", *targets]):
        words = np.asarray(table[column])
        if words.dtype == object and not pd.isna(words).any():
            table[column] = numbers_or_words(words)
    if name or "name" not in table:
        table["name"] = table[name].astype(str) if name else [f"seq{i}" for i in range(len(table))]
    where_from = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    return reporter_set(table, activity=targets, log=log, pseudocount=pseudocount, floor=floor, length=length,
                        mixed_lengths=mixed_lengths, duplicates=duplicates, origin=where_from)


def reporter_set(
    table: pd.DataFrame, *, activity: str | Sequence[str] = "activity", log: Log | None = None,
    pseudocount: float = 0.0, floor: float | None = None, length: int | None = None,
    mixed_lengths: Literal["pad", "error"] = "pad", duplicates: Duplicates = "error", origin: PathLike = "in memory",
) -> ReporterSet:
    """Make a set of a table with ``sequence`` and numeric activities; everything else as in `read_reporter`.

    Parameters
    ----------
    origin
        Where the table comes from, for the errors.
    """
    for option, value, allowed in (("duplicates", duplicates, ("error", "mean", "keep")),
                                   ("mixed_lengths", mixed_lengths, ("pad", "error")), ("log", log, (None, *_LOGS))):
        if value not in allowed:
            raise ConfigError(f"{option} is one of {', '.join(map(str, allowed))}; got {value!r}")
    names = (activity,) if isinstance(activity, str) else tuple(activity)
    need_columns(table, ["sequence", *names], origin, _WHAT)
    if not len(table):
        raise InputError(f"{_WHAT} {origin} holds no rows; expected at least one sequence")
    table = table.reset_index(drop=True)
    table["sequence"] = _letters(table, origin)
    if "name" not in table:
        table["name"] = [f"seq{i}" for i in range(len(table))]
    notes: list[str] = []
    raw = np.stack([real_numbers(table, n, origin, _WHAT) for n in names], axis=1) if names else \
        np.zeros((len(table), 0))
    reject_rows(np.isinf(raw).any(axis=1), "have an infinite activity", lambda i: raw[i].tolist(), origin, _WHAT)
    values = _transform(raw, names, log, pseudocount, floor, origin, notes)
    if names:
        nothing = np.isnan(values).all(axis=1)
        if nothing.any():
            notes.append(f"{int(nothing.sum()):,} of {len(table):,} rows without any activity were left out")
            table, values = table.loc[~nothing].reset_index(drop=True), values[~nothing]
        _varying(values, names, origin)
    table, values = _duplicates(table, values, names, duplicates, origin, notes)
    codes = _codes(table["sequence"].tolist(), length, mixed_lengths, origin, notes)
    first = ["name", "sequence"]
    order = [*first, *(c for c in table.columns if c not in first)]
    return ReporterSet(table.loc[:, order], codes, values.astype(np.float32), names, tuple(notes))


def _is_fasta(path: PathLike) -> bool:
    suffixes = [s.lower() for s in Path(path).suffixes]
    return bool(suffixes) and (suffixes[-2] if suffixes[-1] == ".gz" and len(suffixes) > 1 else suffixes[-1]) in _FASTA


def _is_array(path: PathLike) -> bool:
    return str(path).lower().endswith((".npy", ".npy.gz"))


def _read_arrays(path: PathLike, targets: Sequence[str], activities: PathLike | None) -> pd.DataFrame:
    """Table of an array of strings and one of activities, ``(N,)`` or ``(N, T)``, numbers or their text."""
    sequences = _load_array(path)
    table = pd.DataFrame({"sequence": sequences.astype(str).reshape(-1)})
    if not targets:
        return table
    if activities is None:
        raise InputError(f"{path} holds sequences only; name the array of activities with activities=, or ask for "
                         "none with activity=()")
    values = _load_array(activities)
    values = values.reshape(len(values), -1)
    if values.shape != (len(table), len(targets)):
        raise InputError(f"{activities} must hold {len(table):,} rows of {len(targets)} activities, as {path} and "
                         f"activity= ask for; it holds {values.shape[0]:,} of {values.shape[1]}")
    for i, target in enumerate(targets):
        table[target] = values[:, i].astype(str)
    return table


def _load_array(path: PathLike) -> ndarray:
    existing_file(path, _WHAT)
    try:
        with gzip.open(path) if str(path).lower().endswith(".gz") else open(path, "rb") as file:
            return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array of plain values ({error}); save it with "
                         "numpy.save(..., allow_pickle=False)") from error


def _read_words(path: PathLike, columns: Sequence[str] | None, separator: str | None) -> pd.DataFrame:
    """Table of words; parquet keeps its own types."""
    if Path(path).suffix.lower() in (".parquet", ".pq"):
        try:
            return pd.read_parquet(existing_file(path, _WHAT))
        except (OSError, ValueError) as error:
            raise InputError(f"{_WHAT} {path} cannot be read as parquet ({error}); copy it again") from error
    lines = read_lines(path, _WHAT)
    while lines and lines[0].startswith("#") and len(lines) > 1 and (columns or lines[1].startswith("#")):
        del lines[0]
    if lines and not columns:
        lines[0] = lines[0].lstrip("# ")
    first = lines[0] if lines else ""
    if separator is None:
        separator = next((mark for mark in "\t," if mark in first), r"\s+")
    elif separator not in ("\t", ",", r"\s+"):  # the shared reader knows these three
        lines, separator = [line.replace(separator, "\t") for line in lines], "\t"
    table = parse_rows(lines, path, _WHAT, header=not columns, sep=separator)
    if columns:
        if len(columns) != table.shape[1]:
            raise InputError(f"{_WHAT} {path} has {table.shape[1]} columns, but {len(columns)} names were given "
                             f"({', '.join(columns)}); its first row: {first[:80]!r}")
        table.columns = pd.Index(columns)
    return table


def _read_fasta(path: PathLike, targets: Sequence[str], activities: PathLike | None) -> pd.DataFrame:
    """Table of a FASTA: name, sequence, the ``key=value`` words of the header, and its numbers as activities."""
    rows: list[dict[str, str]] = []
    letters: list[list[str]] = []
    for line in read_lines(path, "FASTA"):
        if line.startswith(">"):
            words = line[1:].split()
            if not words:
                raise InputError(f"FASTA {path} has a record without a name; first: record {len(rows)}")
            pairs = dict(word.split("=", 1) for word in words[1:] if "=" in word)
            numbers = [word for word in words[1:] if "=" not in word and np.isfinite(coerce_numbers([word])[0])]
            rows.append({"name": words[0], **dict(zip(targets, numbers, strict=False)), **pairs})
            letters.append([])
        elif not rows:
            raise InputError(f"FASTA {path} does not start with '>'; its first line: {line[:80]!r}")
        else:
            letters[-1].append(line.strip())
    table = pd.DataFrame(rows).assign(sequence=["".join(part) for part in letters])
    if activities is None:
        for target in targets:
            lacks = pd.isna(np.asarray(table[target])) if target in table else np.ones(len(table), bool)
            reject_rows(lacks, f"have no {target!r} in the header (write '>name {target}=1.2', or name a table "
                        "with activities=)", lambda i: repr(rows[i]["name"]), path, "FASTA")
        return table
    second = _read_words(activities, None, None)
    need_columns(second, ["name", *targets], activities, _WHAT)
    reject_rows(second.duplicated("name"), "repeat a name", lambda i: repr(second["name"][i]), activities, _WHAT)
    reject_rows(~np.isin(table["name"], second["name"]), f"have no row of their name in {activities}",
                lambda i: repr(rows[i]["name"]), path, "FASTA")
    return table.drop(columns=[c for c in second if c in table and c != "name"]).merge(second, on="name", how="left")


def _where(table: pd.DataFrame, where: Mapping[str, Any], path: PathLike) -> pd.DataFrame:
    need_columns(table, list(where), path, _WHAT)
    keep = np.ones(len(table), bool)
    for column, value in where.items():
        one = isinstance(value, str) or not isinstance(value, Iterable)
        wanted = [str(v) for v in ([value] if one else value)]
        hit = table[column].astype(str).isin(wanted).to_numpy()
        if not hit.any():
            raise InputError(f"no row of {_WHAT} {path} has {column} = {' or '.join(wanted)}; "
                             + nearest(wanted[0], table[column].astype(str).unique()[:20]))
        keep &= hit
    if not keep.any():
        raise InputError(f"no row of {_WHAT} {path} fits all of {dict(where)}")
    return table.loc[keep].reset_index(drop=True)


def _letters(table: pd.DataFrame, origin: PathLike) -> list[str]:
    """Upper-case sequences, or an error about the first letter that is none of ACGTN."""
    sequences = pd.Series(np.asarray(table["sequence"], dtype=object))
    missing = sequences.isna() | (sequences.astype(str).str.strip() == "")
    reject_rows(missing, "have no sequence", lambda i: repr(sequences[i]), origin, _WHAT)
    upper = sequences.astype(str).str.strip().str.upper()

    def offender(i: int) -> str:
        at = re.search("[^ACGTN]", upper[i])
        letter = at[0] if at else ""
        hint = "; RNA? write U as T" if letter == "U" else ""
        return f"{letter!r} at position {at.start() if at else 0} of {upper[i][:40]!r}{hint}"

    reject_rows(upper.str.contains("[^ACGTN]"), "hold letters other than ACGTN", offender, origin, _WHAT)
    return upper.tolist()


def _transform(raw: ndarray, names: Sequence[str], log: Log | None, pseudocount: float, floor: float | None,
               origin: PathLike, notes: list[str]) -> ndarray:
    values = raw if floor is None else np.fmax(raw, np.where(np.isnan(raw), np.nan, floor))
    raised = int((raw < values).sum())
    if raised:
        notes.append(f"{raised:,} of {raw.size:,} activities below {floor:g} were raised to it")
    if log is None:
        return values + pseudocount
    bad = values + pseudocount <= 0
    if bad.any():
        i, t = np.argwhere(bad)[0]
        raise InputError(f"{int(bad.sum()):,} of {bad.size:,} activities of {_WHAT} {origin} have no {log}: they are "
                         f"not positive with the pseudocount {pseudocount:g}; first: row {i}, {names[t]} = "
                         f"{raw[i, t]:g}; give a larger pseudocount=, or floor= for values below background")
    notes.append(f"targets are {log}(activity + {pseudocount:g})" if pseudocount else f"targets are {log}(activity)")
    return _LOGS[log](values + pseudocount)


def _varying(values: ndarray, names: Sequence[str], origin: PathLike) -> None:
    for name, column in zip(names, values.T, strict=True):
        measured = column[np.isfinite(column)]
        if not len(measured):
            raise InputError(f"{_WHAT} {origin} has no number in the column {name!r}; leave it out of activity=")
        if len(measured) > 1 and measured.min() == measured.max():
            raise InputError(f"all {len(measured):,} activities in {name!r} of {_WHAT} {origin} are {measured[0]:g}: "
                             "there is nothing to learn; is it the right column?")


def _duplicates(table: pd.DataFrame, values: ndarray, names: Sequence[str], duplicates: Duplicates, origin: PathLike,
                notes: list[str]) -> tuple[pd.DataFrame, ndarray]:
    group, _ = pd.factorize(table["sequence"])
    n_extra = len(group) - (int(group.max()) + 1)
    if not n_extra:
        return table, values
    if duplicates == "keep":
        notes.append(f"{n_extra:,} of {len(group):,} rows repeat a sequence and were kept; put them into one fold")
        return table, values
    grouped = pd.DataFrame(values).groupby(group)
    spread = grouped.max().to_numpy() - grouped.min().to_numpy()  # NaN is skipped
    differs = (np.nan_to_num(spread) > 0).any(axis=1)
    if differs.any() and duplicates == "error":
        g = int(differs.argmax())
        rows = np.flatnonzero(group == g)
        t = int((spread[g] > 0).argmax())
        shown = ", ".join(f"row {i} {names[t]} = {values[i, t]:.6g}" for i in rows[:3])
        raise InputError(f"{int(differs.sum()):,} sequences of {_WHAT} {origin} occur more than once with different "
                         f"activities; first: {shown} ({table['sequence'][rows[0]][:30]}…); give duplicates='mean' to "
                         "average them or duplicates='keep' to keep every row")
    first = ~pd.Series(group).duplicated().to_numpy()
    how = f"different activities of {int(differs.sum()):,} sequences were averaged" if differs.any() else \
        "their activities were equal"
    notes.append(f"{n_extra:,} of {len(group):,} rows repeated a sequence and were joined with it; {how}")
    means = grouped.mean().to_numpy().reshape(int(first.sum()), values.shape[1])
    return table.loc[first].reset_index(drop=True), means


def _codes(sequences: list[str], length: int | None, mixed_lengths: str, origin: PathLike, notes: list[str]
           ) -> ndarray:
    sizes = np.array([len(s) for s in sequences])
    longest = int(sizes.max())
    if mixed_lengths == "error" and sizes.min() < longest:
        i = int((sizes != sizes[0]).argmax())
        raise InputError(f"sequences of {_WHAT} {origin} have {len(np.unique(sizes))} lengths, {sizes.min()} to "
                         f"{longest} bp, where one is needed; first: row 0 has {sizes[0]} bp, row {i} has {sizes[i]}; "
                         "cut them to one length, or give mixed_lengths='pad'")
    width = longest if length is None else length
    reject_rows(sizes > width, f"are longer than length={width} bp (cut them, or give a larger length)",
                lambda i: f"{sizes[i]} bp", origin, _WHAT)
    short = int((sizes < width).sum())
    if short:
        notes.append(f"{short:,} of {len(sizes):,} sequences of {sizes.min()} to {sizes.max()} bp were padded with N "
                     f"on both sides to {width} bp")
    codes = np.full((len(sizes), width), N, np.uint8)
    start = np.cumsum(sizes) - sizes
    column = np.arange(int(sizes.sum())) + np.repeat((width - sizes) // 2 - start, sizes)
    codes[np.repeat(np.arange(len(sizes)), sizes), column] = encode("".join(sequences))
    return codes


def activity_from_counts(
    counts: pd.DataFrame, *, dna: Sequence[str], rna: Sequence[str], element: str = "name", pseudocount: float = 1.0,
    min_dna: int = 10, min_barcodes: int = 3,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Turn counts of barcodes into the activity of each element, log2 RNA/DNA, with replicate quality control.

    In each replicate an element's counts are summed over its barcodes and divided by the library's total;
    the activity is the mean over replicates of ``log2((RNA + pseudocount)/ΣRNA) − log2((DNA + pseudocount)/ΣDNA)``.

    Parameters
    ----------
    counts
        One row a barcode.
    dna, rna
        Columns of counts, paired by replicate; a single DNA column (the plasmid pool) serves all.
    element
        Column that says which sequence a barcode marks.
    pseudocount
        Added to the summed counts of an element.
    min_dna
        A barcode counts when every DNA library has at least this many reads of it.
    min_barcodes
        An element counts when it has at least this many such barcodes.

    Returns
    -------
    table
        ``name, activity, activity_sd`` (between replicates, NaN with one), ``n_barcodes``, and one column a
        replicate named after its RNA column; sorted by first appearance.
    quality
        ``pairs`` (a, b, n, pearson, spearman of every two replicates), ``n_barcodes, barcodes_dropped,
        n_elements, elements_dropped, barcodes_per_element`` (median) and ``depth`` (reads a library).

    Raises
    ------
    InputError
        When a column is missing or is not counts, a library is empty, or no element is left.

    References
    ----------
    Sums over barcodes before the ratio, as the "aggregated" ratio of Gordon et al. 2020, Nat Protoc 15:2387
    (MPRAflow), doi:10.1038/s41596-020-0333-5; written by us.
    """
    dna, rna = list(dna), list(rna)
    if not rna or len(dna) not in (1, len(rna)):
        raise ConfigError(f"dna names one column, or one for each of the {len(rna)} rna columns; got {len(dna)}")
    need_columns(counts, [element, *dna, *rna], "in memory", "barcode table")
    reads = np.stack([coerce_numbers(counts[c]) for c in (*dna, *rna)], axis=1)
    bad = ~(np.isfinite(reads) & (reads >= 0) & (reads == np.floor(reads)))

    def offender(i: int) -> str:
        column = [*dna, *rna][int(bad[i].argmax())]
        return f"{column} = {counts[column].iloc[i]}"

    reject_rows(bad.any(axis=1), "have something other than whole numbers of reads, 0 or more", offender, "in memory",
                "barcode table")
    depth = dict(zip((*dna, *rna), reads.sum(axis=0).astype(int).tolist(), strict=True))
    empty = [c for c, total in depth.items() if not total]
    if empty:
        raise InputError(f"{len(empty)} of {len(depth)} libraries hold no read; first: {empty[0]}")
    of, elements = pd.factorize(counts[element])
    kept = (reads[:, :len(dna)] >= min_dna).all(axis=1) & (of >= 0)
    n_barcodes = np.bincount(of[kept], minlength=len(elements))
    enough = n_barcodes >= min_barcodes
    if not enough.any():
        raise InputError(f"none of {len(elements):,} elements has {min_barcodes} barcodes with {min_dna} DNA reads "
                         f"(the best has {n_barcodes.max(initial=0)}); lower min_barcodes or min_dna")
    sums = np.stack([np.bincount(of[kept], weights=c[kept], minlength=len(elements)) for c in reads.T], axis=1)
    log = np.log2((sums[enough] + pseudocount) / reads.sum(axis=0))
    ratio = log[:, len(dna):] - log[:, :len(dna)]
    table = pd.DataFrame({"name": np.asarray(elements)[enough], "activity": ratio.mean(axis=1),
                          "activity_sd": ratio.std(axis=1, ddof=1) if len(rna) > 1 else np.nan,
                          "n_barcodes": n_barcodes[enough]}).assign(**dict(zip(rna, ratio.T, strict=True)))
    pairs = []
    for i, j in combinations(range(len(rna)), 2):
        a, b = pd.Series(ratio[:, i]), pd.Series(ratio[:, j])
        pairs.append({"a": rna[i], "b": rna[j], "n": len(table), "pearson": float(a.corr(b)),
                      "spearman": float(a.rank().corr(b.rank()))})
    return table, {"pairs": pairs, "n_barcodes": len(counts), "barcodes_dropped": int((~kept).sum()),
                   "n_elements": len(elements), "elements_dropped": int((~enough).sum()),
                   "barcodes_per_element": float(np.median(n_barcodes[enough])), "depth": depth}


class _Rows(Dataset):
    """Each item is a whole batch, taken from tensors in memory."""

    def __init__(self, codes: ndarray, signals: ndarray, covariates: ndarray, targets: ndarray):
        self.parts = [torch.from_numpy(np.ascontiguousarray(a)) for a in (codes, signals, covariates, targets)]

    def __getitem__(self, step: tuple[ndarray, None]) -> Batch:
        rows = torch.from_numpy(step[0])
        codes, signals, covariates, targets = (part.index_select(0, rows) for part in self.parts)
        keep = torch.ones(len(rows), 0)
        return Batch(codes=codes, signals=signals, covariates=covariates, targets=targets, keep=keep, index=rows)


def loader(data: ReporterSet, rows: Iterable[int] | Shaped[ndarray, " n"], batch_size: int, *, shuffle: bool = False,
           seed: int = 0, n_workers: int = 0, covariates: Shaped[ndarray, "N C"] | None = None,
           signals: Shaped[ndarray, "N S bins"] | None = None) -> DataLoader:
    """Batches of a set, identical for any number of workers.

    Parameters
    ----------
    data
        The examples.
    rows
        Row numbers, or a mask of all rows.
    batch_size
        Examples a step. The last step may be smaller; when shuffling, a single left-over example joins the
        step before it.
    shuffle
        New order every epoch, from `seed` and the epoch (``loader.sampler.set_epoch``).
    seed
        Of the order.
    n_workers
        Reading processes; 0, in this one, is the fastest for sets that fit into memory.
    covariates, signals
        One row an example of `data`; none by default.

    Returns
    -------
    DataLoader
        Of `ciscribe.data.windows.Batch` with ``index`` = row of `data` and ``keep`` of shape ``(B, 0)``.

    Raises
    ------
    SchemaError
        When no row is named, one does not exist, or covariates or signals have another number of rows.
    """
    n, chosen = len(data), _row_numbers(rows, len(data))
    if batch_size < 1:
        raise ConfigError(f"batch_size is at least 1; got {batch_size}")
    bad = (chosen < 0) | (chosen >= n)
    if bad.any() or not len(chosen):
        first = f"; first: {chosen[bad][0]}" if bad.any() else ""
        raise SchemaError(f"rows lie in 0..{n - 1} and are not empty; {int(bad.sum()):,} of {len(chosen):,} do "
                          f"not{first}")
    S = np.zeros((n, 0, data.codes.shape[1])) if signals is None else signals
    C = np.zeros((n, 0)) if covariates is None else covariates
    for what, value, n_axes in (("signals", S, 3), ("covariates", C, 2)):
        if value.ndim != n_axes or len(value) != n:
            raise SchemaError(f"{what} need {n_axes} axes and {n:,} rows; got shape {value.shape}")
    examples = _Rows(data.codes, S.astype(np.float32), C.astype(np.float32), data.targets)
    return DataLoader(examples, sampler=EpochOrder(chosen, batch_size, shuffle=shuffle, seed=seed),
                      batch_size=None, num_workers=n_workers, persistent_workers=n_workers > 0)
