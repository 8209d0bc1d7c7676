"""VCF files as tables of variants; VCF's 1-based positions exist only here."""

import pandas as pd
import pysam

from ciscribe.errors import InputError
from ciscribe.io.text import PathLike, naming, parse_rows, read_lines, reject_rows, whole_numbers
from ciscribe.provenance import atomic_path
from ciscribe.schema import check_variants

_COLUMNS = ("CHROM", "POS", "ID", "REF", "ALT")


def read_vcf(path: PathLike) -> pd.DataFrame:
    """Read the variants of a VCF (plain, gzip or bgzip), one row per alternative allele.

    Returns
    -------
    DataFrame
        ``chrom, pos, ref, alt, name``; `pos` 0-based, alleles in upper case, `name` the VCF's ID (``.`` for none).
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
        return pd.DataFrame({"chrom": [], "pos": [], "ref": [], "alt": [], "name": []}).astype(
            {"pos": "int64"}
        )
    table = parse_rows(rows, path, what, header=False, sep="\t")
    if table.shape[1] != 5:
        raise InputError(
            f"VCF {path} must have at least 5 tab-separated columns; first row: {rows[0][:120]!r}"
        )
    table.columns = pd.Index(["chrom", "pos", "name", "ref", "alt"])
    table["pos"] = whole_numbers(table, "pos", path, what) - 1
    table = table.assign(alt=table["alt"].str.split(",")).explode("alt", ignore_index=True)
    table = table[table["alt"] != "."].reset_index(drop=True)
    table["ref"], table["alt"] = table["ref"].str.upper(), table["alt"].str.upper()
    for column in ("ref", "alt"):
        reject_rows(
            ~table[column].str.fullmatch("[ACGTN]+"),
            f"have a {column.upper()} that is not a sequence; leave out symbolic alleles and break ends "
            '(bcftools view -e \'ALT~"<" || ALT="*"\')',
            lambda i, column=column: (
                f"{table['chrom'].iloc[i]}:{table['pos'].iloc[i] + 1} {table[column].iloc[i]}"
            ),
            path,
            what,
        )
    with naming(path):
        check_variants(table)
    return table[["chrom", "pos", "ref", "alt", "name"]]


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
    size = variants["chrom"].map(chrom_sizes)
    reject_rows(
        ~(variants["pos"] + variants["ref"].str.len() <= size),
        "lie off the genome's chromosomes",
        lambda i: f"{variants['chrom'].iloc[i]}:{variants['pos'].iloc[i] + 1}",
        path,
        "VCF",
    )
    order = {chrom: i for i, chrom in enumerate(chrom_sizes)}
    table = variants.assign(order=variants["chrom"].map(order)).sort_values(["order", "pos"], kind="stable")
    table = pd.DataFrame(
        {
            "chrom": table["chrom"],
            "pos": table["pos"] + 1,
            "name": table["name"] if "name" in table else ".",
            "ref": table["ref"],
            "alt": table["alt"],
            "qual": ".",
            "filter": ".",
            "info": ".",
        }
    )
    contigs = "".join(f"##contig=<ID={chrom},length={length}>\n" for chrom, length in chrom_sizes.items())
    text = f"##fileformat=VCFv4.3\n{contigs}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + table.to_csv(
        sep="\t", header=False, index=False
    )
    with atomic_path(path) as temporary:
        handle = pysam.BGZFile(str(temporary), "wb") if str(path).endswith(".gz") else open(temporary, "wb")
        try:
            handle.write(text.encode())
        finally:
            handle.close()
