"""VCF files as tables of variants; VCF's 1-based positions exist only here."""

import re

import numpy as np
import pandas as pd

from ciscribe.errors import InputError
from ciscribe.io.text import (
    PathLike,
    atomic_bgzip,
    naming,
    parse_rows,
    read_lines,
    reject_rows,
    whole_numbers,
)
from ciscribe.schema import check_variants

_COLUMNS = ("CHROM", "POS", "ID", "REF", "ALT")
_OURS = ("chrom", "pos", "ref", "alt", "name")


def read_vcf(path: PathLike) -> pd.DataFrame:
    """Read the variants of a VCF (plain, gzip or bgzip), one row per alternative allele.

    Returns
    -------
    DataFrame
        ``chrom, pos, ref, alt, name``; `pos` 0-based, alleles in upper case, `name` the VCF's ID or ``.``.
        Rows without an alternative allele (ALT ``.``) are left out. Genotypes and INFO are not read.

    Raises
    ------
    InputError
        If the header line is missing, a position is not a whole number, or an allele is not a sequence
        (``<DEL>``, ``*``, break ends); with the count and the first row.
    """
    what = "VCF"
    lines = read_lines(path, what)
    titles = next((line for line in lines if line.startswith("#CHROM")), None)
    if titles is None or tuple(titles[1:].split("\t")[:5]) != _COLUMNS:
        raise InputError(
            f"VCF {path} must have a header line '#CHROM POS ID REF ALT …', tab-separated; "
            f"its first line: {lines[0][:120] if lines else ''!r}"
        )
    # Genotype columns can be thousands: cut each row behind ALT.
    rows = ["\t".join(line.split("\t", 5)[:5]) for line in lines if not line.startswith("#")]
    if not rows:
        return pd.DataFrame(columns=pd.Index(_OURS)).astype({"pos": "int64"})
    table = parse_rows(rows, path, what, header=False, sep="\t")
    if table.shape[1] != 5:
        raise InputError(f"VCF {path} must have at least 5 tab-separated columns; first row: {rows[0][:120]!r}")
    table.columns = pd.Index(["chrom", "pos", "name", "ref", "alt"])
    pos = whole_numbers(table, "pos", path, what) - 1
    split = [alt.upper().split(",") for alt in table["alt"]]
    row = np.repeat(np.arange(len(table)), [len(alts) for alts in split])
    table = table.iloc[row].assign(pos=pos[row], alt=[alt for alts in split for alt in alts])
    table = table.assign(ref=[ref.upper() for ref in table["ref"]]).loc[[alt != "." for alt in table["alt"]]]
    for column in ("ref", "alt"):
        reject_rows(
            [not re.fullmatch("[ACGTN]+", allele) for allele in table[column]],
            f"have a {column.upper()} that is not a sequence; leave out "
            'symbolic alleles and break ends (bcftools view -e \'ALT~"<" || ALT="*"\')',
            lambda i: "{chrom}:{pos} (0-based) {ref} → {alt}".format(**table.iloc[i]),
            path,
            what,
        )
    with naming(path):
        check_variants(table)
    return pd.DataFrame({c: table[c].to_numpy() for c in _OURS})


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
