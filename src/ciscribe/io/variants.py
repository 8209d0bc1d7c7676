"""VCF files as tables of variants, read in pieces and annotated; VCF's 1-based positions exist only here.

`iter_vcf` goes through a file of any size in the memory of one piece; `ciscribe.io.annotate` writes each piece back
with scores in its INFO. Whether a variant fits a genome (contig, end, reference allele) is not a matter of its file.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import numpy as np
import pandas as pd
from jaxtyping import Int
from numpy import ndarray
from numpy.typing import ArrayLike

from ciscribe.errors import InputError
from ciscribe.io.text import PathLike, atomic_bgzip, ends_bgzip, existing_file, open_bytes, reject_rows
from ciscribe.schema import check_variants

_TITLES = ("#CHROM", "POS", "ID", "REF", "ALT")
_OURS = ("chrom", "pos", "ref", "alt", "name")
_PIECE = 1 << 25  # characters of a piece: thousands of genotype columns would make 10,000 rows very large
_KINDS = {
    "missing": re.compile(r"\."),
    "star": re.compile(r"\*"),
    "symbolic": re.compile(r"<[^<>]+>"),
    "breakend": re.compile(r"[^\[\]]*([\[\]])[^\[\]]+\1[^\[\]]*|\.[A-Z]+|[A-Z]+\."),
    "ambiguous": re.compile("[ACGTNRYSWKMBDHV]+"),
}


@dataclass(frozen=True)
class Skipped:
    """How many alternative alleles were left out because they are no sequence, and the first of each kind.

    Tallies add up: ``sum((chunk.skipped for chunk in chunks), Skipped())``.

    Parameters
    ----------
    counts
        Kind → alleles: ``missing`` (ALT ``.``), ``star`` (``*``: deleted by another row), ``symbolic`` (``<DEL>``),
        ``breakend``, ``ambiguous`` (REF or ALT holds a letter that stands for several bases, such as R).
    first
        Kind → the row of the first one, as the file has it.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: "Skipped") -> "Skipped":
        counts = {kind: self.counts.get(kind, 0) + other.counts.get(kind, 0) for kind in self.counts | other.counts}
        return Skipped(counts, other.first | self.first)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        kinds = (f"{n:,} {kind} (first: {self.first[kind]})" for kind, n in self.counts.items())
        return f"{len(self):,} alleles left out: {', '.join(kinds)}" if self else "no allele left out"


@dataclass(frozen=True, eq=False)
class VariantChunk:
    """Some consecutive rows of a file of variants.

    Parameters
    ----------
    variants
        ``chrom, pos, ref, alt, name``, one row per alternative allele; index 0, 1, 2 …
    row, allele
        For each variant, the row of this chunk it is of, and which alternative allele of that row (from 0).
    n_alts
        Alternative alleles of each row, those left out included.
    skipped
        What is left out of `variants`.
    lines
        The rows as the file has them, without line ends; empty for tables that are not VCF.
    first
        Rows of the file before this chunk.
    last
        Whether the file ends here.
    source
        The file.
    """

    variants: pd.DataFrame
    row: Int[ndarray, " variant"]
    allele: Int[ndarray, " variant"]
    n_alts: Int[ndarray, " row"]
    skipped: Skipped
    lines: Sequence[str]
    first: int
    last: bool
    source: Path


def iter_vcf(path: PathLike, *, chunk: int = 10_000, ordered: bool = False) -> Iterator[VariantChunk]:
    """Go through the variants of a VCF (plain, gzip or bgzip) of any size, some rows at a time.

    Rows with several alternative alleles become one variant each. Alleles that are no sequence are left out and
    counted in `VariantChunk.skipped`. Genotypes are carried along, but not parsed.

    Parameters
    ----------
    path
        The file.
    chunk
        Most rows in one piece; fewer when rows are so long (genotypes) that the text would exceed 32 MiB.
    ordered
        Demand that positions do not fall within a contig and that each contig is one block, as an index needs;
        nothing here does.

    Yields
    ------
    VariantChunk
        At least one: a file without rows gives one without variants.

    Raises
    ------
    InputError
        If the file is cut off, has no header line, or (count and first row) a row has another number of columns
        than the header, a position is not a whole number from 1 on, or an allele is neither letters nor one of the
        kinds of `Skipped`; if rows are out of order and `ordered`. A bgzip file that was cut off is refused before
        its first row, a gzip file where it ends, a plain one when it ends within a row's columns.
    """
    path = Path(path)
    with open_vcf(path) as (header, rows):
        n_columns = header[-1].count("\t") + 1
        seen: dict[str, int] = {}  # contig → its last position
        for first, lines, last in pieces(rows, chunk):
            piece = vcf_chunk(lines, path, n_columns, first=first, last=last)
            if ordered:
                _check_order(lines, seen, path, first)
            yield piece


def read_vcf(path: PathLike) -> pd.DataFrame:
    """Read the variants of a VCF (plain, gzip or bgzip) at once, one row per alternative allele.

    Returns
    -------
    DataFrame
        ``chrom, pos, ref, alt, name``; `pos` 0-based, alleles in upper case, `name` the VCF's ID or ``.``.
        Rows without an alternative allele (ALT ``.``) are left out. Genotypes and INFO are not read.

    Raises
    ------
    InputError
        As `iter_vcf`, and for alleles that are no sequence (``<DEL>``, ``*``, break ends), which `iter_vcf` counts.
    """
    return gather(iter_vcf(path), "VCF")


def gather(chunks: Iterable[VariantChunk], what: str) -> pd.DataFrame:
    """Join the variants of all chunks, or raise InputError if any allele but a missing one was left out."""
    tables, skipped, source = [], Skipped(), Path()
    for chunk in chunks:
        source = chunk.source
        skipped += chunk.skipped
        tables.append(chunk.variants)
    if skipped.counts.keys() - {"missing"}:
        raise InputError(
            f"{what} {source} must hold sequences as alleles; {skipped}; leave such rows out "
            "(bcftools view -e 'ALT~\"<\" || ALT=\"*\"'), or go through the file with iter_variants, which counts them"
        )
    return pd.concat(tables, ignore_index=True)


@contextmanager
def open_vcf(path: PathLike) -> Iterator[tuple[list[str], TextIO]]:
    """Open a VCF: its header lines (the last one names the columns) and a handle that stands at the first row."""
    path = existing_file(path, "VCF")
    with open(path, "rb") as raw:
        cut = raw.read(16)[12:14] == b"BC" and not ends_bgzip(path)
    if cut:
        raise InputError(
            f"VCF {path} is truncated: the closing block of bgzip is missing; download or copy it again, "
            "and compare its size or checksum with the source's"
        )
    with open_bytes(path, "VCF") as handle:
        # Bytes that are no UTF-8 (INFO holds anything) come back as they were when the row is written again.
        text = TextIOWrapper(cast(BinaryIO, handle), encoding="utf-8-sig", errors="surrogateescape")
        header = []
        for line in text:
            header.append(line.rstrip("\n"))
            if not line.startswith("##"):
                break
        if not header or tuple(header[-1].split("\t")[:5]) != _TITLES:
            binary = bool(header) and header[0].startswith("BCF")
            raise InputError(
                f"VCF {path} must have a header line '#CHROM POS ID REF ALT …', tab-separated, behind its ## lines; "
                + ("it is BCF: convert it (bcftools view)" if binary else f"got {header[-1][:80] if header else ''!r}")
            )
        yield header, text


def pieces(handle: Iterable[str], n: int) -> Iterator[tuple[int, list[str], bool]]:
    """Lines in lists of at most `n` and about 32 MiB: lines before it, the list, whether it is the last.

    Empty lines and those that start with ``#`` are left out. There is always a last list, maybe an empty one.
    """
    if n < 1:
        raise ValueError(f"a chunk holds at least 1 row; got {n}")
    first, size = 0, 0
    lines: list[str] = []
    for line in handle:
        if line[0] in "#\n":
            continue
        if len(lines) == n or size > _PIECE:
            yield first, lines, False
            first, size, lines = first + len(lines), 0, []
        lines.append(line.rstrip("\n"))
        size += len(line)
    yield first, lines, True


def vcf_chunk(lines: list[str], source: Path, n_columns: int, *, first: int = 0, last: bool = True) -> VariantChunk:
    """Parse rows of a VCF with `n_columns` columns; errors as `iter_vcf`."""
    tabs = np.fromiter(map(str.count, lines, repeat("\t")), dtype=np.int64, count=len(lines))
    refuse(tabs != n_columns - 1, f"have another number of columns than the header ({n_columns}); "
           "is the file cut off, or are its columns not separated by tabs?", lambda i: lines[i], source, "VCF", first)
    words = np.empty((len(lines), 5), dtype=object)
    words[:] = [line.split("\t", 5)[:5] for line in lines] or words
    chrom, pos, name, ref, alt = words.T
    columns = {"chrom": chrom, "pos": whole_positions(pos, 1, lines.__getitem__, source, "VCF", first),
               "ref": ref, "alt": alt, "name": name}
    return split_alleles(columns, lines.__getitem__, source, "VCF", lines=lines, first=first, last=last)


def whole_positions(words: Iterable[str], base: int, quote: Callable[[int], str], source: Path, what: str, first: int
                    ) -> Int[ndarray, " row"]:
    """Turn words that count from `base` (0 or 1) into 0-based positions."""
    words = list(words)
    bad = [not (word.isdecimal() and len(word) < 19) for word in words]
    refuse(bad, "have a position that is not a whole number", quote, source, what, first)
    pos = np.fromiter(map(int, words), dtype=np.int64, count=len(words)) - base
    refuse(pos < 0, f"have a position before {base}, where counting starts", quote, source, what, first)
    return pos


def split_alleles(
    columns: Mapping[str, ndarray],
    quote: Callable[[int], str],
    source: Path,
    what: str,
    *,
    lines: Sequence[str] = (),
    first: int = 0,
    last: bool = True,
) -> VariantChunk:
    """Give each alternative allele a row of its own, leaving out and counting those that are no sequence.

    Parameters
    ----------
    columns
        ``chrom``, ``pos`` (0-based), ``ref``, ``alt`` (several with commas between them), ``name`` and any more.
    quote
        Index of a row → what an error says of it.
    source, what, lines, first, last
        As in `VariantChunk`; `what` kind of file, for the errors.

    Raises
    ------
    InputError
        If an allele is neither letters nor one of the kinds of `Skipped`.
    """
    # Alleles repeat (most are single bases): each distinct one is looked at once.
    split = {alt: alt.upper().split(",") for alt in set(columns["alt"])}
    upper = {ref: ref.upper() for ref in set(columns["ref"])}
    kinds = {allele: _kind(allele) for allele in {a for alts in split.values() for a in alts}}
    ref_kinds = {ref: kind if (kind := _kind(up)) in ("", "ambiguous") else "bad" for ref, up in upper.items()}

    n_alts = np.fromiter((len(split[alt]) for alt in columns["alt"]), dtype=np.int64, count=len(columns["alt"]))
    row = np.repeat(np.arange(len(n_alts)), n_alts)
    allele = np.arange(len(row)) - np.repeat(np.cumsum(n_alts) - n_alts, n_alts)
    alt = np.array([a for word in columns["alt"] for a in split[word]], dtype=object)
    skipped = Skipped()
    if any(kinds.values()) or any(ref_kinds.values()):
        ref = columns["ref"]
        kind = np.array([ref_kinds[ref[i]] or kinds[a] for i, a in zip(row.tolist(), alt, strict=True)])
        bad = np.bincount(row[kind == "bad"], minlength=len(n_alts))
        refuse(bad, "have a REF or ALT that is not letters; write insertions and deletions with the base before them "
               "(bcftools norm)", quote, source, what, first)
        for name in _KINDS:
            rows = row[kind == name]
            if len(rows):
                skipped += Skipped({name: len(rows)}, {name: f"row {first + rows[0]:,}, {_short(quote(rows[0]))}"})
        row, allele, alt = row[kind == ""], allele[kind == ""], alt[kind == ""]

    table = {column: np.asarray(values)[row] for column, values in columns.items() if column not in ("ref", "alt")}
    table |= {"ref": np.array([upper[ref] for ref in columns["ref"]], dtype=object)[row], "alt": alt}
    variants = pd.DataFrame({column: table[column] for column in dict.fromkeys([*_OURS, *table])})
    return VariantChunk(variants, row, allele, n_alts, skipped, lines, first, last, source)


def _kind(allele: str) -> str:
    """Kind of `Skipped` that an allele (upper case) is, ``""`` for a sequence, ``"bad"`` for neither."""
    if allele and not allele.strip("ACGTN"):
        return ""
    return next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(allele)), "bad")


def refuse(
    bad: ArrayLike, fault: str, quote: Callable[[int], str], source: Path, what: str, first: int = 0
) -> None:
    """Raise InputError when any row of a piece is bad: how many, the number of the first in the file, and its words."""
    bad = np.asarray(bad, dtype=bool)
    if bad.any():
        i = int(bad.argmax())
        after = f" (after the first {first:,})" if first else ""
        raise InputError(f"{int(bad.sum()):,} of {len(bad):,} rows{after} of {what} {source} {fault}; "
                         f"first: row {first + i:,}, {_short(quote(i))}")


def _short(line: str) -> str:
    words = " ".join(line.split("\t", 5)[:5])
    return repr(words[:80] + "…" if len(words) > 80 else words)


def _check_order(lines: list[str], seen: dict[str, int], path: Path, first: int) -> None:
    """Raise unless rows stand in order; `seen` is carried from piece to piece, its last key the current contig."""
    current = next(reversed(seen), None)
    bad = []
    for line in lines:
        chrom, word, _ = line.split("\t", 2)
        pos = int(word)
        bad.append(pos < seen.get(chrom, 0) or (chrom != current and chrom in seen))
        seen[chrom] = pos
        current = chrom
    refuse(bad, "lie before an earlier row of their contig, or apart from its others; sort the file (bcftools sort)",
           lambda i: lines[i], path, "VCF", first)


def write_vcf(path: PathLike, variants: pd.DataFrame, chrom_sizes: dict[str, int]) -> None:
    """Write variants as VCF, sorted, whole or not at all; bgzipped when the name ends in ``.gz``.

    Parameters
    ----------
    path
        Where to.
    variants
        ``chrom, pos, ref, alt[, name]``, `pos` 0-based.
    chrom_sizes
        Contigs of the header, in their order.

    Raises
    ------
    InputError
        If a variant lies off the chromosomes of `chrom_sizes`.
    """
    check_variants(variants)
    chrom, pos, ref = (variants[column].to_numpy() for column in ("chrom", "pos", "ref"))
    size = np.array([chrom_sizes.get(c, -1) for c in chrom])
    last = pos + np.array([len(r) for r in ref], dtype=np.int64)
    reject_rows(last > size, "lie off the genome's chromosomes", lambda i: f"{chrom[i]}:{pos[i] + 1}", path, "VCF")
    order = {name: i for i, name in enumerate(chrom_sizes)}
    table = pd.DataFrame(
        {
            "chrom": chrom,
            "pos": pos + 1,
            "name": variants.get("name", "."),
            "ref": ref,
            "alt": variants["alt"],
            "qual": ".",
            "filter": ".",
            "info": ".",
        }
    )
    table = table.iloc[np.lexsort((pos, np.array([order[c] for c in chrom], dtype=int)))]
    contigs = "".join(f"##contig=<ID={chrom},length={length}>\n" for chrom, length in chrom_sizes.items())
    text = f"##fileformat=VCFv4.3\n{contigs}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + table.to_csv(
        sep="\t", header=False, index=False
    )
    with atomic_bgzip(path) as write:
        write(text.encode())
