"""Tables of variants that are no VCF: TSV or CSV, columns by their usual names, no rsIDs needed."""

from collections.abc import Iterable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pandas as pd
from numpy import ndarray

from ciscribe.errors import InputError, nearest
from ciscribe.io.text import PathLike, need_columns, numbers_or_words, open_bytes, parse_rows
from ciscribe.io.variants import (
    VariantChunk,
    gather,
    iter_vcf,
    pieces,
    refuse,
    split_alleles,
    whole_positions,
)
from ciscribe.sequence import Reference, decode

_WHAT = "variant table"
_USUAL = {
    "chrom": ("chrom", "chr", "chromosome", "contig"),
    "pos": ("pos", "position", "bp"),
    "ref": ("ref", "reference", "ref_allele", "reference_allele", "allele1"),
    "alt": ("alt", "alternative", "alt_allele", "alternative_allele", "alternate_allele", "allele2"),
    "name": ("id", "rsid", "name", "snp", "variant", "variant_id"),
}


def read_variant_table(
    path: PathLike,
    *,
    one_based: bool,
    columns: Mapping[str, str] | None = None,
    genome: Reference | None = None,
) -> pd.DataFrame:
    """Read variants from a TSV or CSV (plain or gzipped) whose header names chromosome, position and alleles.

    Parameters
    ----------
    path
        The file. Columns are found by their usual names, in any letter case: ``chrom chr chromosome contig``,
        ``pos position bp``, ``ref reference ref_allele allele1``, ``alt alternative alt_allele allele2`` and, if there
        is one, ``id rsid name snp variant_id``.
    one_based
        Whether the first base of a chromosome is 1 (as in VCF) or 0 (as in BED). Files do not say it and a wrong guess
        passes unseen at one SNV in four, so it must be stated.
    columns
        ``chrom``, ``pos``, ``ref``, ``alt``, ``name`` → the file's column, where it is called otherwise.
    genome
        For alleles written ``-``: they get the base before them, as in VCF. A deletion's position is that of the first
        base that is lost, an insertion's that of the base *before* which bases come in (Ensembl's start; where a tool
        gives the base after which they come in, as ANNOVAR does, add 1 first).

    Returns
    -------
    DataFrame
        ``chrom, pos, ref, alt, name`` (`pos` 0-based, upper case, `name` ``.`` without such a column), then the file's
        other columns, numbers where all are (but none that is called as one of these five is). Several alternative
        alleles (``C,T``) become a row each; rows without one (``.``) are left out.

    Raises
    ------
    InputError
        If a column is missing (with the nearest), positions are not whole numbers, an allele is not letters, or is
        ``-`` without a `genome` or at a chromosome's first base; with the count and the first row.
    """
    chunks = _iter_table(Path(path), 100_000, one_based, columns or {}, genome)
    table = gather(chunks, _WHAT)
    extra = table.columns[5:]
    return table.assign(**{column: numbers_or_words(table[column]) for column in extra})


def iter_variants(
    path: PathLike,
    *,
    chunk: int = 10_000,
    one_based: bool | None = None,
    columns: Mapping[str, str] | None = None,
    genome: Reference | None = None,
) -> Iterator[VariantChunk]:
    """Go through the variants of a VCF or of a table, whichever the file is, some rows at a time.

    A file is a VCF when it starts as one, or is called one and has no header of a table; `one_based`, `columns` and
    `genome` are for tables, see `read_variant_table`, and are not looked at for a VCF. Alleles that are no sequence are
    left out and counted in both, see `iter_vcf`. A table's other columns follow as words.

    Raises
    ------
    InputError
        As `iter_vcf` and `read_variant_table`, and if the file is a table and `one_based` is None.
    """
    path = Path(path)
    if _is_vcf(path):
        yield from iter_vcf(path, chunk=chunk)
    elif one_based is None:
        raise InputError(f"{path} is a table, not VCF, and tables do not say where positions start; "
                         "state one_based=True (the first base is 1) or one_based=False (it is 0)")
    else:
        yield from _iter_table(path, chunk, one_based, columns or {}, genome)


def _is_vcf(path: Path) -> bool:
    with open_bytes(path, "variants") as handle:
        line = handle.readline(1 << 16).decode("utf-8-sig", "replace").rstrip("\r\n")
    if line.startswith(("##fileformat=VCF", "#CHROM\tPOS\tID\tREF\tALT")):
        return True
    titles = set(line.lower().lstrip("# ").replace(",", " ").split())
    named = any(suffix in (".vcf", ".bcf") for suffix in path.suffixes)
    return named and not (titles & set(_USUAL["chrom"]) and titles & set(_USUAL["pos"]))


def _iter_table(
    path: Path, chunk: int, one_based: bool, columns: Mapping[str, str], genome: Reference | None
) -> Iterator[VariantChunk]:
    with open_bytes(path, _WHAT) as handle:
        text = TextIOWrapper(cast(BinaryIO, handle), encoding="utf-8-sig", errors="surrogateescape")
        # A header may start with one #, as in a BED; other lines that do are remarks.
        header = next((line for line in text if line.strip() and (line[0] != "#" or "\t" in line)), "").strip("# \n")
        if not header or "\0" in header or any("\udc80" <= letter <= "\udcff" for letter in header):
            raise InputError(f"{_WHAT} {path} must be text, plain or gzipped, whose first line names the columns; "
                             f"got {header[:80]!r}")
        ours: dict[str, str] | None = None
        for first, lines, last in pieces((line for line in text if line.strip()), chunk):
            # Without rows pandas would not split the header: one empty row stands in.
            table = parse_rows([header, *(lines or [header])], path, _WHAT, header=True).fillna("")
            table = table if lines else table.iloc[:0]
            ours = ours or _find_columns(table, columns, path)
            taken = [title for title in table.columns if title in ours and title not in ours.values()]
            table = table.drop(columns=taken).rename(columns={theirs: name for name, theirs in ours.items()})
            yield _parse(table, lines, path, one_based, genome, first, last)


def _find_columns(table: pd.DataFrame, columns: Mapping[str, str], path: Path) -> dict[str, str]:
    """Our name of a column → the file's."""
    for name in columns:
        if name not in _USUAL:
            raise ValueError(f"there is no column '{name}' of variants; {nearest(name, _USUAL)}")
    need_columns(table, list(columns.values()), path, _WHAT)
    by_lower = {str(title).strip().lower(): str(title) for title in reversed(table.columns)}
    found = {name: next((by_lower[usual] for usual in names if usual in by_lower), None)
             for name, names in _USUAL.items()} | dict(columns)
    missing = [name for name, title in found.items() if title is None and name != "name"]
    if missing:
        raise InputError(
            f"{_WHAT} {path} lacks {len(missing)} of 4 columns ({', '.join(missing)}); '{missing[0]}' may be called "
            f"{', '.join(_USUAL[missing[0]])}; the file has: {', '.join(map(str, table.columns))}; "
            f"name it with columns={{'{missing[0]}': …}}"
        )
    return {name: title for name, title in found.items() if title is not None}


def _parse(
    table: pd.DataFrame,
    lines: list[str],
    path: Path,
    one_based: bool,
    genome: Reference | None,
    first: int,
    last: bool,
) -> VariantChunk:
    columns: dict[str, ndarray] = {str(name): table[name].to_numpy(dtype=object) for name in table.columns}
    columns.setdefault("name", np.full(len(table), ".", dtype=object))
    quote = lines.__getitem__
    columns["pos"] = whole_positions(columns["pos"], int(one_based), quote, path, _WHAT, first)
    gap = np.array(["-" in f"{ref},{alt}".split(",") and ref != alt
                    for ref, alt in zip(columns["ref"], columns["alt"], strict=True)], dtype=bool)
    if gap.any():
        if genome is None:
            refuse(gap, "have an allele '-'; write it with the base before it, as VCF does, or give the genome, from "
                   "which that base is taken", quote, path, _WHAT, first)
        refuse(gap & (columns["pos"] == 0), "have an allele '-' at the first base, with no base before it; "
               "write both alleles with the base behind them", quote, path, _WHAT, first)
        _anchor(columns, np.flatnonzero(gap).tolist(), cast(Reference, genome))
    return split_alleles(columns, quote, path, _WHAT, first=first, last=last)


def _anchor(columns: dict[str, ndarray], rows: Iterable[int], genome: Reference) -> None:
    """Put the base before them in front of alleles of which one is empty."""
    for i in rows:
        columns["pos"][i] -= 1
        chrom, pos = columns["chrom"][i], int(columns["pos"][i])
        base = decode(genome.fetch(chrom, pos, pos + 1))
        for column in ("ref", "alt"):
            alleles = columns[column][i].split(",")
            columns[column][i] = ",".join(base if allele == "-" else base + allele for allele in alleles)
