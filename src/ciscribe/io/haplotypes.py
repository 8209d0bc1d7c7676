"""Phased genotypes of a region: which variants each of a person's two chromosomes carries."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pysam
from jaxtyping import Int8
from numpy import ndarray

from ciscribe.errors import InputError, UnknownNameError, nearest
from ciscribe.io.text import PathLike
from ciscribe.io.variants import Skipped, VariantChunk, open_vcf, pieces, refuse, vcf_chunk

_FORMAT = 8  # column of FORMAT; samples come after it
_MISSING, _UNPHASED, _WRONG = -1, -2, -3


@dataclass(frozen=True, eq=False)
class Haplotypes:
    """The variants of a region and who carries them on which chromosome.

    Parameters
    ----------
    variants
        ``chrom, pos, ref, alt, name``, one row per alternative allele, in the file's order.
    samples
        Names of the people.
    alleles
        1 where the chromosome carries the variant; 0 where it has the reference or another allele of the
        site; −1 where the genotype is missing, which is to be taken as the reference: ``alleles > 0`` are the carriers.
        Where a person has one chromosome (X and Y of males, the mitochondrion) both columns hold it, so that the mean
        over the two is that of the one.
    n_missing
        Alleles that are −1.
    n_haploid
        Genotypes of one chromosome.
    n_unphased
        Variants that were dropped because somebody's genotype is heterozygous and not phased.
    skipped
        Alleles that were left out because they are no sequence.
    """

    variants: pd.DataFrame
    samples: tuple[str, ...]
    alleles: Int8[ndarray, "variant sample 2"]
    n_missing: int
    n_haploid: int
    n_unphased: int
    skipped: Skipped


def read_haplotypes(
    path: PathLike,
    chrom: str,
    start: int,
    end: int,
    samples: Sequence[str] | None = None,
    *,
    unphased: Literal["error", "drop"] = "error",
) -> Haplotypes:
    """Read which variants of a region each of a person's two chromosomes carries, from a phased VCF.

    Parameters
    ----------
    path
        The VCF (plain, gzip, bgzip); with an index beside it (``.tbi`` or ``.csi``) only the region is read, else the
        whole file, row by row.
    chrom, start, end
        The region, 0-based and half-open: variants with ``start <= pos < end``. A deletion that begins before `start`
        is not among them, one that reaches over `end` is.
    samples
        Whom to read, in this order; None is everybody.
    unphased
        What to do with heterozygous genotypes that are not phased (``0/1``): raise, or ``"drop"`` the rows, for
        everybody, and count their variants. Homozygous and haploid genotypes need no phase.

    Returns
    -------
    Haplotypes
        Phase is taken as the file states it; that it holds across the region (one phase set) is not checked.

    Raises
    ------
    InputError
        If the file does not know the chromosome, has no samples, no genotypes (GT) or unphased ones (count and first
        row), or genotypes that are none of one or two of the row's alleles; and as `iter_vcf`.
    UnknownNameError
        If there is no such sample.
    """
    path = Path(path)
    if not 0 <= start <= end:
        raise ValueError(f"expected 0 <= start <= end; got {chrom}:{start}-{end}")
    with open_vcf(path) as (header, rows):
        titles = header[-1].split("\t")
        chosen = _choose(titles[_FORMAT + 1:], samples, path)
        known = {match[1]: None for line in header if (match := re.match("##contig=<ID=([^,>]+)", line))}
        index = next((name for suffix in (".tbi", ".csi") if (name := Path(f"{path}{suffix}")).exists()), None)
        if index is None:
            lines = _streamed(rows, chrom, start, end, known)
        else:
            lines = _indexed(path, index, chrom, start, end, known)
        parts = [_genotypes(vcf_chunk(piece, path, len(titles), first=first, last=last), chosen, unphased)
                 for first, piece, last in pieces(lines, 10_000)]
    if chrom not in known:
        raise InputError(f"VCF {path} has no chromosome '{chrom}'; {nearest(chrom, known)}")
    alleles = np.concatenate([part.alleles for part in parts])
    return Haplotypes(
        variants=pd.concat([part.variants for part in parts], ignore_index=True),
        samples=tuple(titles[_FORMAT + 1 + i] for i in chosen),
        alleles=alleles,
        n_missing=int((alleles == _MISSING).sum()),
        n_haploid=sum(part.n_haploid for part in parts),
        n_unphased=sum(part.n_unphased for part in parts),
        skipped=sum((part.skipped for part in parts), Skipped()),
    )


def _choose(names: list[str], samples: Sequence[str] | None, path: Path) -> list[int]:
    if not names:
        raise InputError(f"VCF {path} has no samples; expected columns of genotypes after FORMAT")
    if samples is None:
        return list(range(len(names)))
    place = {name: i for i, name in enumerate(names)}
    unknown = [name for name in samples if name not in place]
    if unknown:
        some = get_close_matches(unknown[0], names, 5) or names[:5]
        raise UnknownNameError(f"{len(unknown):,} of {len(samples):,} samples are not among the {len(names):,} of VCF "
                               f"{path}; first: '{unknown[0]}'; {nearest(unknown[0], some)}")
    return [place[name] for name in samples]


def _indexed(path: Path, index: Path, chrom: str, start: int, end: int, known: dict[str, None]) -> Iterator[str]:
    # INFO may hold any bytes
    with pysam.TabixFile(str(path), index=str(index), encoding="latin-1") as file:
        known |= dict.fromkeys(file.contigs)
        if chrom not in file.contigs or start == end:
            return
        for line in file.fetch(chrom, start, end):
            if int(line.split("\t", 2)[1]) > start:  # a deletion that begins before is found, too
                yield line


def _streamed(rows: Iterator[str], chrom: str, start: int, end: int, known: dict[str, None]) -> Iterator[str]:
    for line in rows:
        name, _, rest = line.partition("\t")
        known[name] = None
        if name == chrom:
            word = rest[:20].partition("\t")[0]
            if not word.isdecimal() or start < int(word) <= end:  # what is no position is for vcf_chunk to refuse
                yield line


def _genotypes(chunk: VariantChunk, chosen: list[int], unphased: str) -> Haplotypes:
    """Haplotypes of one chunk."""
    lines, path = chunk.lines, chunk.source
    calls = np.empty((len(lines), len(chosen), 2), dtype=np.int32)  # number of the allele in its row
    codes: dict[str, tuple[int, int, bool]] = {}  # genotypes repeat: each distinct one is parsed once
    n_haploid = 0
    for i, line in enumerate(lines):
        cells = line.split("\t")
        keys = cells[_FORMAT].split(":")
        if "GT" not in keys:
            refuse(np.arange(len(lines)) == i, "have no genotypes (GT) in FORMAT", lines.__getitem__, path, "VCF",
                   chunk.first)
        at = keys.index("GT")
        cells = [cells[_FORMAT + 1 + j] for j in chosen]
        if len(keys) > 1:
            cells = [cell.split(":", at + 1)[at] if cell.count(":") >= at else "." for cell in cells]
        for cell in set(cells).difference(codes):
            codes[cell] = _code(cell)
        found = [codes[cell] for cell in cells]
        calls[i] = [pair[:2] for pair in found]
        n_haploid += sum(pair[2] for pair in found)

    def quote(i: int) -> str:
        cells = lines[i].split("\t")
        faults = (calls[i] < _MISSING) | (calls[i] > chunk.n_alts[i])
        return f"{' '.join(cells[:5])[:50]} … {cells[_FORMAT + 1 + chosen[int(faults.any(axis=1).argmax())]]}"

    wrong = (calls == _WRONG) | (calls > chunk.n_alts[:, None, None])
    refuse(wrong.any(axis=(1, 2)), "have genotypes that are none: expected one or two numbers of the row's alleles "
           "(0|1)", quote, path, "VCF", chunk.first)
    open_phase = (calls == _UNPHASED).any(axis=(1, 2))
    if unphased == "error":
        refuse(open_phase, "have heterozygous genotypes that are not phased (0/1); phase them, or leave these rows out "
               'with unphased="drop"', quote, path, "VCF", chunk.first)
    kept = ~open_phase[chunk.row]
    row, allele = chunk.row[kept], chunk.allele[kept]
    mine = calls[row]
    alleles = np.where(mine < 0, _MISSING, mine == (allele + 1)[:, None, None]).astype(np.int8)
    return Haplotypes(chunk.variants.loc[kept], (), alleles, 0, n_haploid, int((~kept).sum()), chunk.skipped)


def _code(genotype: str) -> tuple[int, int, bool]:
    """Allele on either chromosome (or what is wrong with both), and whether there is one chromosome only."""
    match = re.fullmatch(r"(\d+|\.)(?:([|/])(\d+|\.))?", genotype)
    if match is None or len(genotype) > 9:
        return _WRONG, _WRONG, False
    a, b = (_MISSING if word == "." else int(word) for word in (match[1], match[3] or match[1]))
    if match[2] == "/" and a != b:
        return _UNPHASED, _UNPHASED, False
    return a, b, match[2] is None and a != _MISSING
