"""Text files of the field, plain or gzipped, with errors that say what to do.

Every reader of this room opens its file here, so that a missing, truncated or binary file gets the same
clear answer everywhere, and every text writer leaves a whole file or the old one.
"""

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import IO, cast

import numpy as np
import pandas as pd
import pysam
from numpy.typing import ArrayLike

from ciscribe.errors import DataMissingError, InputError, SchemaError, nearest
from ciscribe.provenance import atomic_path

PathLike = str | os.PathLike[str]

_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_EMPTY = ("", "na", "nan", "n/a", "null", "none")


def existing_file(path: PathLike, what: str = "file") -> Path:
    """Give the path back, or say that it is missing, a folder, or empty.

    Raises
    ------
    DataMissingError
        If there is no file at `path`.
    InputError
        If the file holds no byte.
    """
    path = Path(path)
    if not path.is_file():
        here = "a folder is there" if path.is_dir() else "nothing is there"
        raise DataMissingError(
            f"{what} expected at {path}, but {here}; check the path in the configuration "
            "and the folder that $CISCRIBE_DATA names"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{what} {path} is empty (0 bytes); download or copy it again")
    return path


def is_gzip(path: PathLike) -> bool:
    """Whether the file starts as gzip does, whatever its name."""
    with open(path, "rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def ends_bgzip(path: PathLike) -> bool:
    """Whether a file ends with the closing block of bgzip; without it, it was cut off."""
    with open(path, "rb") as handle:
        handle.seek(0, os.SEEK_END)
        handle.seek(max(handle.tell() - len(_BGZF_END), 0))
        return handle.read() == _BGZF_END


@contextmanager
def open_bytes(path: PathLike, what: str = "file") -> Iterator[IO[bytes]]:
    """Open a plain or gzipped file for reading; damage of the compression is an InputError.

    The errors cover what the caller reads inside the block.
    """
    path = existing_file(path, what)
    try:
        with open(path, "rb") as raw:
            if is_gzip(path):
                with gzip.GzipFile(fileobj=raw) as handle:
                    yield cast(IO[bytes], handle)
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{what} {path} is truncated or damaged ({error}); download or copy it again, "
            "and compare its size or checksum with the source's"
        ) from error


def read_lines(path: PathLike, what: str = "file") -> list[str]:
    """Lines of a text file without their line ends; empty lines are left out."""
    with open_bytes(path, what) as handle:
        data = handle.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} {path} is not text (byte {error.start:,} is {data[error.start]:#04x}); "
            "expected a plain or gzipped text file"
        ) from error
    return [line for line in text.splitlines() if line.strip()]


def is_remark(line: str) -> bool:
    """Whether a BED-like line carries no interval: ``#…``, ``track …`` or ``browser …``."""
    return line.startswith("#") or line.split(maxsplit=1)[0] in ("track", "browser")


def parse_rows(lines: list[str], path: PathLike, what: str, *, header: bool, sep: str | None = None) -> pd.DataFrame:
    r"""Split lines into a table of strings; no word is read as missing, so a gene may be called ``NA``.

    Parameters
    ----------
    lines
        Rows, with the column names in the first one when `header`.
    path, what
        For the errors.
    header
        Without it the columns are numbered from 0.
    sep
        None chooses by the file name (``.csv`` is commas), then by the first line (tabs, else blanks).
    """
    if len(lines) <= header:
        raise InputError(f"{what} {path} holds no rows; expected at least one line of data")
    if sep is None:
        sep = "," if ".csv" in Path(path).suffixes else "\t" if "\t" in lines[0] else r"\s+"
    if sep != ",":  # pandas would fill short rows and cut long ones
        n = [line.count(sep) if sep == "\t" else len(line.split()) - 1 for line in lines]
        reject_rows(
            np.array(n) != n[0],
            f"have another number of columns than the first line ({n[0] + 1})",
            lambda i: f"{n[i] + 1} columns: {lines[i][:80]!r}",
            path,
            what,
        )
    try:
        return pd.read_csv(
            StringIO("\n".join(lines)),
            sep=sep,
            header=0 if header else None,
            dtype=str,
            keep_default_na=False,
            na_values=[],
            index_col=False,
            quoting=0 if sep == "," else 3,
        )
    except pd.errors.ParserError as error:
        raise InputError(f"{what} {path} has rows of different lengths: {error}") from error


def read_table(path: PathLike, what: str = "table", names: list[str] | None = None) -> pd.DataFrame:
    """Read a TSV or CSV (plain or gzipped) as strings.

    Columns are named by the header or, for a file without one, by `names`. A header may start with ``#``;
    other lines that do are left out.
    """
    lines = read_lines(path, what)
    if lines and names is None and lines[0].startswith("#") and "\t" in lines[0]:
        lines[0] = lines[0].lstrip("# ")
    lines = [line for line in lines if not line.startswith("#")]
    table = parse_rows(lines, path, what, header=names is None)
    if names is not None:
        if len(names) != table.shape[1]:
            raise InputError(
                f"{what} {path} has {table.shape[1]} columns, but {len(names)} names were given "
                f"({', '.join(names)}); its first row: {lines[0][:120]!r}"
            )
        table.columns = pd.Index(names)
    return table


def need_columns(table: pd.DataFrame, columns: list[str], path: PathLike, what: str) -> None:
    """Raise InputError for the first of `columns` that the table lacks, naming the nearest that it has."""
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise InputError(
            f"{what} {path} lacks {len(missing)} of {len(columns)} columns; first: "
            f"'{missing[0]}'; {nearest(missing[0], map(str, table.columns))}"
        )


def reject_rows(bad: ArrayLike, fault: str, first: Callable[[int], object], path: PathLike, what: str) -> None:
    """Raise InputError when any row is bad, quoting the count and what `first` says of the first one."""
    bad = np.asarray(bad, dtype=bool)
    if bad.any():
        i = int(bad.argmax())
        raise InputError(
            f"{int(bad.sum()):,} of {len(bad):,} rows of {what} {path} {fault}; first: row {i}, {first(i)}"
        )


def coerce_numbers(values: ArrayLike) -> np.ndarray:
    """Turn words into float64, NaN where a word is not a number."""
    return np.asarray(pd.to_numeric(pd.Series(np.asarray(values)), errors="coerce"), dtype=np.float64)


def numbers_or_words(values: ArrayLike) -> np.ndarray:
    """Numbers (int64 where all are whole) when every word is one, else the words as they came."""
    words = np.asarray(values)
    number = coerce_numbers(words)
    if not np.isfinite(number).all():
        return words
    whole = (number == np.floor(number)).all() and (np.abs(number) < 2**53).all()
    return number.astype(np.int64) if whole else number


def whole_numbers(table: pd.DataFrame, column: str, path: PathLike, what: str) -> np.ndarray:
    """Turn a column of words into int64, or say which row is not a whole number."""
    words = np.asarray(table[column])
    number = coerce_numbers(words)
    bad = ~np.isfinite(number) | (number != np.floor(number))
    reject_rows(bad, f"have a {column} that is not a whole number", lambda i: repr(words[i]), path, what)
    return number.astype(np.int64)


def real_numbers(table: pd.DataFrame, column: str, path: PathLike, what: str) -> np.ndarray:
    """Turn a column of words into float64; an empty cell or ``NA`` is NaN, other words are an error."""
    words = np.asarray(table[column])
    number = coerce_numbers(words)
    empty = np.array([str(word).strip().lower() in _EMPTY for word in words[np.isnan(number)]], dtype=bool)
    bad = np.isnan(number)
    bad[bad] = ~empty
    reject_rows(bad, f"have a {column} that is not a number", lambda i: repr(words[i]), path, what)
    return number


@contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """Turn a SchemaError about an object that was just read into an InputError that names its file."""
    try:
        yield
    except SchemaError as error:
        raise InputError(f"{path}: {error}") from error


@contextmanager
def atomic_bgzip(path: PathLike) -> Iterator[Callable[[bytes], object]]:
    """Give a function that writes bytes, whole file or none; bgzipped when the name ends in ``.gz``."""
    with atomic_path(path) as temporary:
        if not str(path).endswith(".gz"):
            with open(temporary, "wb") as plain:
                yield plain.write
            return
        handle = pysam.BGZFile(str(temporary), "wb", index=None)
        try:
            yield handle.write
        finally:
            handle.close()
        if not ends_bgzip(temporary):
            raise OSError(f"{path} could not be written whole; is the disk full?")


def write_text_file(path: PathLike, text: str) -> None:
    """Write text whole or not at all; gzipped when the name ends in ``.gz`` (same text, same bytes)."""
    data = text.encode("utf-8")
    if str(path).endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
