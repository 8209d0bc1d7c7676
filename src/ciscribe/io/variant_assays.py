"""Files of measured variants: saturation mutagenesis of regulatory elements, and pairs of alleles.

Neither needs a genome: an element that was mutated at every base holds its own sequence in its reference alleles, and
a pair of alleles comes with the bases around it.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ciscribe.errors import InputError
from ciscribe.io.genome import MemoryGenome
from ciscribe.io.text import PathLike, need_columns, read_lines, read_table, real_numbers, reject_rows, whole_numbers
from ciscribe.sequence import N, decode, encode

_SATURATION_COLUMNS = ["Chrom", "Pos", "Ref", "Alt", "Barcodes", "Coefficient", "pValue", "Element"]
_MISSING = ("", "NA")


@dataclass(frozen=True, eq=False)
class SaturationAssay:
    """Elements whose every base was changed, with what each change did to the expression of a reporter.

    Parameters
    ----------
    genome
        One sequence an experiment, named as the experiment, rebuilt from the reference alleles.
    variants
        ``chrom`` (experiment), ``pos`` (0-based, within its sequence), ``ref, alt, name``, and what was measured:
        ``experiment``, ``barcodes``, ``coefficient`` (log2 expression, alternative minus reference), ``p_value``;
        ``genome_chrom, genome_pos`` (0-based).
    n_unplaced
        Rows of the file without a position, which are left out.
    """

    genome: MemoryGenome
    variants: pd.DataFrame
    n_unplaced: int


@dataclass(frozen=True, eq=False)
class AllelePairs:
    """Sequences that differ by one base, of which the first was measured to be higher.

    Parameters
    ----------
    table
        ``name, at`` (0-based position of the difference), ``high_base, low_base``; and ``chrom, pos`` (0-based) and
        what else is known of them where a table was given.
    high, low
        Codes ``(P, L)``: the allele that is more open or better bound, and the other.
    """

    table: pd.DataFrame
    high: np.ndarray
    low: np.ndarray


def read_saturation_mutagenesis(path: PathLike) -> SaturationAssay:
    """Read variants of saturation mutagenesis and rebuild the elements they lie in.

    Parameters
    ----------
    path
        Table ``Chrom, Pos (1-based), Ref, Alt (- is the deletion of one base), Barcodes, Coefficient, pValue,
        Element``, as of the saturation-mutagenesis MPRA.

    Returns
    -------
    SaturationAssay
        Deletions are written as in VCF, with the base before them (after them, at the first base of an element).
        Positions that no row measures are N. Rows without a position (``NA``) are left out.

    Raises
    ------
    InputError
        When a column is missing, an allele is no base, numbers are not, rows disagree on a reference base, or an
        element is spread over two chromosomes; with the count and the first.

    References
    ----------
    Kircher et al. 2019, doi:10.1038/s41467-019-11526-w.
    """
    what = "saturation mutagenesis"
    table = read_table(path, what)
    need_columns(table, _SATURATION_COLUMNS, path, what)
    placed = ~table["Pos"].isin(_MISSING).to_numpy()
    n_unplaced = int((~placed).sum())
    table = table.loc[placed].reset_index(drop=True)
    if table.empty:
        raise InputError(f"{what} {path} has no row with a position")
    for column, letters in (("Ref", "[ACGT]"), ("Alt", "[ACGT-]")):
        reject_rows([not re.fullmatch(letters, allele) for allele in table[column]],
                    f"have a {column} other than {letters}", lambda i, c=column: repr(table[c][i]), path, what)
    pos = whole_numbers(table, "Pos", path, what) - 1
    measured = {c: real_numbers(table, c, path, what) for c in ("Barcodes", "Coefficient", "pValue")}
    bad = ~np.isfinite(np.stack(list(measured.values()))).all(axis=0)
    reject_rows(bad, "lack a number of barcodes, a coefficient or a p-value",
                lambda i: f"{table['Element'][i]}:{table['Pos'][i]}", path, what)
    chroms = table.groupby("Element")["Chrom"].nunique()
    if (chroms > 1).any():
        raise InputError(f"{what} {path}: {int((chroms > 1).sum())} elements lie on more than one chromosome; first: "
                         f"{chroms.index[chroms > 1][0]}")
    sequences: dict[str, np.ndarray] = {}
    first = table.assign(pos=pos).groupby("Element")["pos"].transform("min").to_numpy(np.int64)
    ref = encode("".join(table["Ref"]))
    for element in table["Element"].unique():
        rows = np.flatnonzero(table["Element"] == element)
        at = pos[rows] - first[rows]
        codes = np.full(int(at.max()) + 1, N, np.uint8)
        codes[at] = ref[rows]
        sequences[str(element)] = codes
    here = np.array([sequences[e][p] for e, p in zip(table["Element"], pos - first, strict=True)])
    reject_rows(here != ref, "name another reference base than other rows of their position",
                lambda i: f"{table['Element'][i]}:{table['Pos'][i]} {table['Ref'][i]}", path, what)
    alleles = [_anchored(sequences[e], int(p), r, a)
               for e, p, r, a in zip(table["Element"], pos - first, table["Ref"], table["Alt"], strict=True)]
    element = table["Element"].to_numpy()
    name = [f"{e}:{p}{r}>{a}" for e, p, r, a in zip(element, pos - first, table["Ref"], table["Alt"], strict=True)]
    variants = pd.DataFrame({
        "chrom": element, "pos": np.array([a[0] for a in alleles], np.int64), "ref": [a[1] for a in alleles],
        "alt": [a[2] for a in alleles], "name": name, "experiment": element,
        "barcodes": measured["Barcodes"].astype(np.int64), "coefficient": measured["Coefficient"],
        "p_value": measured["pValue"], "genome_chrom": ["chr" + chrom.removeprefix("chr") for chrom in table["Chrom"]],
        "genome_pos": pos})
    return SaturationAssay(MemoryGenome(sequences), variants, n_unplaced)


def _anchored(codes: np.ndarray, pos: int, ref: str, alt: str) -> tuple[int, str, str]:
    """Position and alleles as VCF has them: a deletion with the base before it, or after it where there is none."""
    if alt != "-":
        return pos, ref, alt
    if pos > 0 and codes[pos - 1] < N:
        before = decode(codes[pos - 1:pos])
        return pos - 1, before + ref, before
    after = decode(codes[pos + 1:pos + 2]) or "N"
    return pos, ref + after, after


def read_allele_pairs(high: PathLike, low: PathLike, table: PathLike | None = None) -> AllelePairs:
    """Read two FASTA files of the same sequences with either allele.

    Parameters
    ----------
    high, low
        FASTA of the allele that is more open or better bound, and of the other; the same names in the same order, one
        line of bases each, all of one length, differing at one base.
    table
        Of the variants, if there is one: ``Chr, Pos (1-based), ID, Ref, Alt`` and an effect ``Beta``; rows without
        sequences are left out.

    Raises
    ------
    InputError
        For names that differ or repeat, lengths that differ, pairs with other than one difference, or a sequence that
        the table does not list; with the count and the first.

    References
    ----------
    Degner et al. 2012, doi:10.1038/nature10808 (DNase I sensitivity QTL).
    """
    what = "allele FASTA"
    names, codes = _fasta(high, what)
    others, other_codes = _fasta(low, what)
    if names != others:
        differ = [(a, b) for a, b in zip(names, others, strict=False) if a != b]
        raise InputError(f"{what} {low} must name the {len(names):,} sequences of {high} in their order; it has "
                         f"{len(others):,}" + (f", and first names '{differ[0][1]}' for '{differ[0][0]}'"
                                               if differ else ""))
    if codes.shape != other_codes.shape:
        raise InputError(f"{what} {low} has sequences of {other_codes.shape[1]} bp, {high} of {codes.shape[1]} bp")
    differences = codes != other_codes
    reject_rows(differences.sum(axis=1) != 1, f"differ from {high} at other than one base",
                lambda i: f"{names[i]}: {int(differences[i].sum())}", low, what)
    at = differences.argmax(axis=1)
    rows = np.arange(len(at))
    out = pd.DataFrame({"name": names, "at": at.astype(np.int64), "high_base": list(decode(codes[rows, at])),
                        "low_base": list(decode(other_codes[rows, at]))})
    if table is not None:
        listed = read_table(table, "allele table")
        need_columns(listed, ["Chr", "Pos", "ID", "Ref", "Alt", "Beta"], table, "allele table")
        listed = pd.DataFrame({"name": listed["ID"], "chrom": listed["Chr"],
                               "pos": whole_numbers(listed, "Pos", table, "allele table") - 1,
                               "ref": listed["Ref"], "alt": listed["Alt"],
                               "beta": real_numbers(listed, "Beta", table, "allele table")})
        reject_rows(listed["name"].duplicated(), "repeat an ID", lambda i: listed["name"][i], table, "allele table")
        missing = ~out["name"].isin(listed["name"])
        reject_rows(missing, f"are not in {table}", lambda i: out["name"][i], high, what)
        out = out.merge(listed, on="name", how="left", validate="one_to_one")
    return AllelePairs(out, codes, other_codes)


def _fasta(path: PathLike, what: str) -> tuple[list[str], np.ndarray]:
    """Names and codes of sequences of one length."""
    names: list[str] = []
    parts: list[list[str]] = []
    for line in read_lines(path, what):
        if line.startswith(">"):
            names.append(line[1:].split()[0] if line[1:].split() else "")
            parts.append([])
        elif not parts:
            raise InputError(f"{what} {path} begins without a name; expected '>' and a name, then bases")
        else:
            parts[-1].append(line.strip())
    reject_rows(pd.Series(names, dtype=object).duplicated(), "repeat a name", lambda i: names[i], path, what)
    length = np.array([sum(map(len, part)) for part in parts])
    reject_rows(length != length[:1], f"have another length than the first ({length[:1].sum()} bp)",
                lambda i: f"{names[i]}: {length[i]} bp", path, what)
    return names, encode("".join("".join(part) for part in parts)).reshape(len(names), -1)
