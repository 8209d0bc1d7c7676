"""BED, narrowPeak and other tables of intervals, and back."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ciscribe.errors import InputError
from ciscribe.io.text import (
    PathLike,
    is_remark,
    naming,
    numbers_or_words,
    parse_rows,
    read_lines,
    read_table,
    real_numbers,
    whole_numbers,
    write_text_file,
)
from ciscribe.schema import check_intervals

BED_COLUMNS = (
    "chrom",
    "start",
    "end",
    "name",
    "score",
    "strand",
    "thick_start",
    "thick_end",
    "item_rgb",
    "block_count",
    "block_sizes",
    "block_starts",
)
NARROWPEAK_COLUMNS = (
    "chrom",
    "start",
    "end",
    "name",
    "score",
    "strand",
    "signal",
    "p_value",
    "q_value",
    "summit",
)


def read_bed(path: PathLike) -> pd.DataFrame:
    """Read a BED file (3 or more columns, plain or gzipped) as intervals.

    Columns are named by a ``#chrom start end …`` line when the file has one that fits, else as BED names them
    (``chrom start end name score strand thick_start …``; beyond twelve ``column_13 …``). Columns after the
    third become numbers where every row is one. ``track``, ``browser`` and ``#`` lines are passed over.

    Raises
    ------
    InputError
        If rows are not intervals (count and first row), have fewer than 3 columns, or differ in length.
    """
    lines = read_lines(path, "BED")
    rows = [line for line in lines if not is_remark(line)]
    table = parse_rows(rows, path, "BED", header=False)
    n = table.shape[1]
    if n < 3:
        raise InputError(
            f"BED {path} must have at least 3 columns (chrom start end); got {n}; first row: {rows[0][:120]!r}"
        )
    titles = [line[1:].split("\t") for line in lines if line.startswith(("#chrom\tstart\tend", "#chrom\tchromStart"))]
    names = [*BED_COLUMNS[:n], *(f"column_{i}" for i in range(len(BED_COLUMNS) + 1, n + 1))]
    if titles and len(titles[-1]) == n:
        names = ["chrom", "start", "end", *(title.strip() for title in titles[-1][3:])]
    table.columns = pd.Index(names)
    return _intervals(table, path, "BED")


def read_intervals(path: PathLike, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read intervals of any of the usual kinds: narrowPeak, BED, or a table whose header names the columns.

    Parameters
    ----------
    path
        The end of the name tells the kind (``.narrowPeak``, ``.bed``, ``.bedgraph``, else a table; all may be gzipped).
    columns
        Of a table: our names → those of its header. ``chr``, ``chromStart`` and ``chromEnd`` are known.

    Raises
    ------
    InputError
        For rows that are not intervals, or a header without chrom, start and end.
    """
    name = Path(path).name.removesuffix(".gz").lower()
    if name.endswith("narrowpeak"):
        return read_narrowpeak(path)
    if name.endswith((".bed", ".bedgraph")):
        return read_bed(path)
    theirs = {"chr": "chrom", "chromStart": "start", "chromEnd": "end"} | {v: k for k, v in (columns or {}).items()}
    table = read_table(path, "elements").rename(columns=theirs)
    if missing := [c for c in ("chrom", "start", "end") if c not in table]:
        raise InputError(f"elements {path} must have the columns chrom, start and end in its header; missing: "
                         f"{', '.join(missing)}; got {', '.join(map(str, table.columns[:8]))}; name them with columns")
    order = ["chrom", "start", "end", *(c for c in table.columns if c not in ("chrom", "start", "end"))]
    return _intervals(table.reindex(columns=order), path, "table")


def read_narrowpeak(path: PathLike) -> pd.DataFrame:
    """Read a narrowPeak file as intervals with ``name score strand signal p_value q_value summit``.

    `p_value` and `q_value` are −log10 (−1: not given); `summit` is in bp from `start` (−1: not given).

    Raises
    ------
    InputError
        If rows do not have ten columns or are not intervals.
    """
    rows = [line for line in read_lines(path, "narrowPeak") if not is_remark(line)]
    table = parse_rows(rows, path, "narrowPeak", header=False)
    if table.shape[1] != len(NARROWPEAK_COLUMNS):
        raise InputError(
            f"narrowPeak {path} must have 10 columns ({' '.join(NARROWPEAK_COLUMNS)}); got "
            f"{table.shape[1]}; first row: {rows[0][:120]!r}"
        )
    table.columns = pd.Index(NARROWPEAK_COLUMNS)
    for column in ("score", "signal", "p_value", "q_value"):
        table[column] = real_numbers(table, column, path, "narrowPeak")
    table["summit"] = whole_numbers(table, "summit", path, "narrowPeak")
    return _intervals(table, path, "narrowPeak")


def _intervals(table: pd.DataFrame, path: PathLike, what: str) -> pd.DataFrame:
    """Coordinates as whole numbers, other columns as numbers where they are, contract checked."""
    for column in table.columns[1:]:
        if column in ("start", "end"):
            table[column] = whole_numbers(table, column, path, what)
        elif column not in ("name", "strand") and table[column].dtype == object:
            table[column] = numbers_or_words(table[column])
    with naming(path):
        check_intervals(table)
    return table


def write_bed(path: PathLike, table: pd.DataFrame, header: str | None = None) -> None:
    """Write intervals as BED, whole or not at all; gzipped when the name ends in ``.gz``.

    Columns are ``chrom start end`` and, when the table has more, ``name score strand`` (``.``, 0 and ``.``
    where it lacks them) and then every other numeric column in the table's order.

    Parameters
    ----------
    path
        Where to.
    table
        Intervals.
    header
        Text of a first comment line, without ``#``. None names the columns there when there are more than
        six, so that `read_bed` gives the extra columns back under their names.
    """
    check_intervals(table)
    extra = [c for c in table.columns if c not in BED_COLUMNS[:6] and pd.api.types.is_numeric_dtype(table[c])]
    columns: list[str] = list(BED_COLUMNS[:3])
    if extra or {"name", "score", "strand"} & set(table.columns):
        columns += [*BED_COLUMNS[3:6], *extra]
    if header is None and extra:
        header = "\t".join(map(str, columns))
    _write(path, _with_defaults(table), columns, header)


def write_narrowpeak(path: PathLike, table: pd.DataFrame) -> None:
    """Write intervals as narrowPeak, whole or not at all; gzipped when the name ends in ``.gz``.

    `signal` falls back to `score`; the integer score column holds `score` cut to 0–1000; `p_value`, `q_value`
    and `summit` are −1 where the table lacks them.
    """
    check_intervals(table)
    table = _with_defaults(table)
    table = pd.DataFrame({"signal": table["score"], "p_value": -1, "q_value": -1, "summit": -1} | dict(table.items()))
    table["score"] = np.clip(np.rint(table["score"].to_numpy(float)), 0, 1000).astype(int)
    _write(path, table, list(NARROWPEAK_COLUMNS), None)


def _with_defaults(table: pd.DataFrame) -> pd.DataFrame:
    defaults = {"name": ".", "score": 0, "strand": "."}
    return table.assign(**{k: v for k, v in defaults.items() if k not in table.columns})


def _write(path: PathLike, table: pd.DataFrame, columns: list[str], header: str | None) -> None:
    text = table.to_csv(
        columns=columns, sep="\t", header=False, index=False, float_format="%.9g", na_rep=".", quoting=3
    )
    write_text_file(path, f"#{header}\n{text}" if header is not None else text)
