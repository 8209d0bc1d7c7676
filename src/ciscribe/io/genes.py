"""Gene annotations (GTF, GFF3, BED, tables) as one table of genes with their TSS.

Coordinates leave here 0-based and half-open; the TSS is the gene's first transcribed base: `start` on the
plus strand, ``end - 1`` on the minus strand, unless the file states it. Beside them what is said of genes
elsewhere: numbers, and the fold that each is in.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd

from ciscribe.errors import InputError
from ciscribe.io.bed import read_bed
from ciscribe.io.text import (
    PathLike,
    naming,
    need_columns,
    numbers_or_words,
    read_lines,
    read_table,
    real_numbers,
    reject_rows,
    whole_numbers,
    write_text_file,
)
from ciscribe.schema import GENE_COLUMNS, check_genes

_GENES = ("gene", "ncRNA_gene", "pseudogene")
_TRANSCRIPTS = ("transcript", "mRNA")
FOLD_NAMES = ("train", "valid", "test")


def read_genes(path: PathLike, *, columns: dict[str, str] | list[str] | None = None) -> pd.DataFrame:
    """Read the genes of a GTF, GFF3, BED or table (plain or gzipped).

    Parameters
    ----------
    path
        The format is read from the name: ``.gtf``, ``.gff``, ``.gff3``; ``.bed`` without `columns` is BED
        whose `name` is the gene id; anything else is a TSV or CSV with a header. A GTF or GFF3 without gene
        features gets its genes from its transcripts, from the first start to the last end.
    columns
        A list names the columns of a table that has no header. A dict says which column of the file holds
        which of ours, e.g. ``{"gene_id": "Gene stable ID"}``; the others keep their names.

    Returns
    -------
    DataFrame
        ``chrom, start, end, strand, gene_id, gene_name, tss`` and the file's other columns (for GTF and GFF3
        `biotype`, when stated); file order. A gene without a name is named by its id.

    Raises
    ------
    InputError
        If gene ids repeat or are empty, a strand is neither + nor −, coordinates are wrong, or a column is
        missing; with the count and the first row.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in (".gtf", ".gff", ".gff3"):
        genes = _read_annotation(path)
    elif isinstance(columns, list):
        genes = read_table(path, "genes", names=columns)
    elif suffix == ".bed":
        genes = read_bed(path)
    else:
        genes = read_table(path, "genes")
    if isinstance(columns, dict):
        need_columns(genes, list(columns.values()), path, "genes")
        genes = genes.rename(columns={theirs: ours for ours, theirs in columns.items()})
    if "gene_id" not in genes.columns and "name" in genes.columns:
        genes = genes.rename(columns={"name": "gene_id"})
    if genes.columns.has_duplicates:
        twice = genes.columns[genes.columns.duplicated()][0]
        raise InputError(f"genes {path} have two columns '{twice}' after renaming; name each column once")
    return _complete(genes, path)


def _complete(genes: pd.DataFrame, path: PathLike) -> pd.DataFrame:
    """Whole numbers, TSS and names filled in, contract checked, our columns first."""
    need_columns(genes, ["chrom", "start", "end", "strand", "gene_id"], path, "genes")
    for column in ("start", "end", "tss"):
        if column in genes.columns:
            genes[column] = whole_numbers(genes, column, path, "genes")
    reject_rows(
        ~genes["strand"].isin(["+", "-"]),
        "have a strand other than + and -, so their TSS is not known",
        lambda i: f"{genes['gene_id'].iloc[i]} has {genes['strand'].iloc[i]!r}",
        path,
        "genes",
    )
    if "tss" not in genes.columns:
        genes["tss"] = np.where(genes["strand"] == "+", genes["start"], genes["end"] - 1)
    if "gene_name" not in genes.columns:
        genes["gene_name"] = genes["gene_id"]
    unnamed = genes["gene_name"].isna() | genes["gene_name"].isin(["", "."])
    genes["gene_name"] = genes["gene_name"].where(~unnamed, genes["gene_id"])
    for column in genes.columns.difference([*GENE_COLUMNS, "name", "biotype"]):
        genes[column] = numbers_or_words(genes[column])
    with naming(path):
        check_genes(genes)
    order = [*GENE_COLUMNS, *(c for c in genes.columns if c not in GENE_COLUMNS)]
    return pd.DataFrame({column: genes[column] for column in order}).reset_index(drop=True)


def _read_annotation(path: PathLike) -> pd.DataFrame:
    """Gene lines of a GTF or GFF3, or genes merged from transcript lines when there are none."""
    genes: list[dict[str, object]] = []
    transcripts: list[dict[str, object]] = []
    for line in read_lines(path, "annotation"):
        if line.startswith("##FASTA"):
            break
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 9:
            raise InputError(
                f"annotation {path} must have 9 tab-separated columns (GTF or GFF3); got {len(fields)} in "
                f"{line[:120]!r}; is the file whole?"
            )
        if fields[2] in _GENES:
            genes.append(_feature(fields))
        elif fields[2] in _TRANSCRIPTS and not genes:
            transcripts.append(_feature(fields))
    if not genes and not transcripts:
        raise InputError(f"annotation {path} holds no gene, transcript or mRNA feature; expected a gene annotation")
    table = pd.DataFrame(genes or transcripts)
    for column in ("start", "end"):
        table[column] = whole_numbers(table, column, path, "annotation")
    table["start"] = table["start"] - 1
    if not genes:
        table["gene_id"] = [row["parent"] or row["gene_id"] for row in transcripts]
        by = table.groupby(["gene_id", "chrom", "strand"], sort=False, as_index=False, dropna=False)
        table = by.agg({"start": "min", "end": "max", "gene_name": "first", "biotype": "first"})
    absent = ["parent"] if any(value is not None for value in table["biotype"]) else ["parent", "biotype"]
    return pd.DataFrame({column: table[column] for column in table.columns.difference(absent, sort=False)})


def _feature(fields: list[str]) -> dict[str, object]:
    """One line as a dictionary; understands GTF (``key "value";``) and GFF3 (``key=value;``) attributes."""
    if re.match(r"\s*\w+=", fields[8]):
        pairs = (item.partition("=") for item in fields[8].split(";"))
        attributes = {key.strip(): unquote(value.strip()) for key, _, value in pairs}
    else:
        attributes = dict(re.findall(r'(\w+)\s+"([^"]*)"', fields[8]))
    get = attributes.get
    is_gene = fields[2] in _GENES
    parent = get("gene_id") or get("Parent")
    return {
        "chrom": fields[0],
        "start": fields[3],
        "end": fields[4],
        "strand": fields[6],
        "gene_id": get("gene_id") or re.sub(r"^gene[:-]", "", get("ID", "")),
        "gene_name": get("gene_name") or (get("Name") if is_gene else None),
        "biotype": get("gene_biotype") or get("gene_type") or get("biotype"),
        "parent": None if is_gene or parent is None else re.sub(r"^gene[:-]", "", parent),
    }


def read_gene_features(path: PathLike, columns: Sequence[str], *, gene_id: str = "gene_id",
                       geometric_mean: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
    """Read numbers that describe genes (lengths, GC, activity of the promoter) from a table with a header.

    Parameters
    ----------
    path
        TSV or CSV, plain or gzipped.
    columns
        Columns that are taken as they are.
    gene_id
        Column of gene ids; rows without one are left out.
    geometric_mean
        New column → columns whose geometric mean it is; of two, the square root of the product.

    Returns
    -------
    DataFrame
        Index `gene_id`; `columns`, then those of `geometric_mean`.

    Raises
    ------
    InputError
        If a column is missing (the nearest is named), a gene comes twice, a value is missing or no number, or a factor
        of a geometric mean is negative; with the count and the first gene.
    """
    what = "gene features"
    means = dict(geometric_mean or {})
    table = read_table(path, what)
    need_columns(table, [gene_id], path, what)
    table = table.loc[table[gene_id].str.strip() != ""].reset_index(drop=True)
    ids = table[gene_id].str.strip().to_numpy()
    reject_rows(pd.Series(ids).duplicated(), f"repeat a {gene_id}", lambda i: ids[i], path, what)
    sources = list(dict.fromkeys([*columns, *(c for parts in means.values() for c in parts)]))
    need_columns(table, sources, path, what)
    values = {c: real_numbers(table, c, path, what) for c in sources}
    for column, value in values.items():
        reject_rows(~np.isfinite(value), f"have no finite {column}",
                    lambda i, v=value: f"gene {ids[i]} = {v[i]}", path, what)
    found = {c: values[c] for c in columns}
    for name, parts in means.items():
        for part in parts:
            reject_rows(values[part] < 0, f"have a negative {part}, of which '{name}' is to take the geometric mean",
                        lambda i, v=values[part]: f"gene {ids[i]} = {v[i]}", path, what)
        found[name] = np.prod([values[part] for part in parts], axis=0) ** (1 / len(parts))
    return pd.DataFrame(found, index=pd.Index(ids, name="gene_id"))


def read_folds(path: PathLike, column: str, *, gene_id: str = "gene_id") -> dict[str, str]:
    """Read which fold each gene is in from a table with a header, one column a way to split.

    Parameters
    ----------
    path
        TSV or CSV, plain or gzipped.
    column
        Of the folds: ``train``, ``valid`` or ``test`` for every gene.
    gene_id
        Column of gene ids.

    Returns
    -------
    dict
        Gene id → ``train``, ``valid`` or ``test``.

    Raises
    ------
    InputError
        If a column is missing (the nearest is named), a gene comes twice, a word is no fold, or a fold has no gene.
    """
    what = "folds"
    table = read_table(path, what)
    need_columns(table, [gene_id, column], path, what)
    ids = table[gene_id].str.strip().to_numpy()
    words = table[column].str.strip().to_numpy()
    reject_rows(pd.Series(ids).duplicated(), f"repeat a {gene_id}", lambda i: ids[i], path, what)
    reject_rows(~pd.Series(words).isin(FOLD_NAMES), f"have a {column} other than {', '.join(FOLD_NAMES)}",
                lambda i: f"gene {ids[i]} has {words[i]!r}", path, what)
    empty = [name for name in FOLD_NAMES if not (words == name).any()]
    if empty:
        raise InputError(f"{what} {path}: column '{column}' puts none of {len(words):,} genes into {empty[0]}; name "
                         "another column, or complete this one")
    return dict(zip(ids.tolist(), words.tolist(), strict=True))


def write_gtf(path: PathLike, genes: pd.DataFrame) -> None:
    """Write genes as GTF (a gene, a transcript and an exon line each), whole or not at all.

    The TSS is not written: a reader takes the gene's end that the strand names.
    """
    check_genes(genes)
    lines = []
    for gene in genes.to_dict("records"):
        about = f'gene_id "{gene["gene_id"]}"; gene_name "{gene["gene_name"]}";'
        about += f' gene_biotype "{gene["biotype"]}";' if isinstance(gene.get("biotype"), str) else ""
        for feature in ("gene", "transcript", "exon"):
            more = "" if feature == "gene" else f' transcript_id "{gene["gene_id"]}.1";'
            lines.append(
                f"{gene['chrom']}\tciscribe\t{feature}\t{gene['start'] + 1}\t{gene['end']}\t.\t"
                f"{gene['strand']}\t.\t{about}{more}\n"
            )
    write_text_file(path, "".join(lines))
