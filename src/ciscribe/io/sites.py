"""Known elements as tables: sites with heights, elements that name their target genes, and what genes are called."""

import re
from collections import defaultdict
from collections.abc import Mapping

import pandas as pd

from ciscribe.errors import InputError
from ciscribe.io.bed import read_bed
from ciscribe.io.text import PathLike, is_remark, naming, numbers_or_words, read_lines, read_table, whole_numbers
from ciscribe.schema import check_intervals

_NAME = re.compile(r"(?:^|;)\s*Name=([^;]*)", re.IGNORECASE)


def read_site_table(path: PathLike) -> pd.DataFrame:
    """Read intervals with whatever else is known of them: a BED file, or a table whose first columns are the place.

    Parameters
    ----------
    path
        BED (no header), or TSV or CSV with a header whose first three columns are chromosome, start and end (0-based,
        half-open), whatever they are called. Plain or gzipped.

    Returns
    -------
    DataFrame
        ``chrom, start, end`` and the other columns under their names, numbers where every row is one.

    Raises
    ------
    InputError
        If the file is neither, or rows are no intervals.
    """
    what = "table of sites"
    lines = [line for line in read_lines(path, what) if not is_remark(line)]
    second = re.split(r"[\t,]|\s+", lines[0].strip())[1:2] if lines else []
    if second and second[0].isdigit():
        return read_bed(path)
    table = read_table(path, what)
    if table.shape[1] < 3:
        raise InputError(f"{what} {path} must begin with the columns chromosome, start and end; got "
                         f"{', '.join(map(str, table.columns))}")
    table.columns = pd.Index(["chrom", "start", "end", *table.columns[3:]])
    for column in table.columns[1:]:
        table[column] = (whole_numbers(table, column, path, what) if column in ("start", "end")
                         else numbers_or_words(table[column]))
    with naming(path):
        check_intervals(table, name="sites")
    return table


def read_targets(path: PathLike, genes: Mapping[str, set[str]]) -> pd.DataFrame:
    """Read elements that name their candidate target genes.

    Parameters
    ----------
    path
        BED whose column 4 holds names: ``Name=a,b;…`` (other fields are passed over; brackets around the names too), or
        names with commas between them. Or a table with a header that has a column ``target`` or ``gene_id`` of such
        names.
    genes
        Name → gene ids; see `gene_names`.

    Returns
    -------
    DataFrame
        ``chrom, start, end, targets``: gene ids as a sorted tuple, empty where none is known. ``attrs`` holds ``named``
        and ``unknown``: elements that name a target, and those of them none of whose names is a gene.

    Raises
    ------
    InputError
        If no element names a target, or no name is a gene's.
    """
    table = read_site_table(path)
    column = next((c for c in ("target", "targets", "gene_id", "name") if c in table.columns), None)
    if column is None:
        raise InputError(f"elements with targets {path} need target genes in column 4 of a BED file, or in a column "
                         f"target, gene_id or name; got {', '.join(map(str, table.columns))}")
    names = [_names(str(text)) for text in table[column]]
    named = [i for i, own in enumerate(names) if own]
    if not named:
        raise InputError(f"elements with targets {path} name no target gene in column {column!r} of any of their "
                         f"{len(table):,} rows; first: {table[column].iloc[0]!r}; expected Name=GENE or GENE,GENE")
    targets = [tuple(sorted({gene for name in own for gene in genes.get(name, ())})) for own in names]
    unknown = [i for i in named if not targets[i]]
    if len(unknown) == len(named):
        raise InputError(f"none of the target genes that {path} names is a gene of this run ({len(named):,} rows); "
                         f"first: {names[named[0]][0]!r}; the run's are called like {next(iter(genes), '(none)')!r}; "
                         "give a table of gene_id and name with --names")
    found = table[["chrom", "start", "end"]].assign(targets=targets)
    found.attrs |= {"named": len(named), "unknown": len(unknown)}
    return found


def gene_names(genes: pd.DataFrame, path: PathLike | None = None) -> dict[str, set[str]]:
    """Every name of genes → their ids.

    Parameters
    ----------
    genes
        Columns ``gene_id, gene_name``.
    path
        A table with a header that has ``gene_id`` and further names (symbol, sequence name …): every column of words.

    Raises
    ------
    InputError
        If the table has no ``gene_id``, or no row is about one of the genes.
    """
    known: dict[str, set[str]] = defaultdict(set)
    for name in ("gene_id", "gene_name"):
        for gene, value in zip(genes["gene_id"].astype(str), genes[name].astype(str), strict=True):
            known[value].add(gene)
    if path is None:
        return dict(known)
    table = read_table(path, "table of gene names")
    if "gene_id" not in table.columns:
        raise InputError(f"table of gene names {path} needs the column gene_id beside names; got "
                         f"{', '.join(map(str, table.columns[:8]))}")
    own = table.loc[table["gene_id"].isin(genes["gene_id"].astype(str).tolist())]
    if not len(own):
        raise InputError(f"table of gene names {path} is about none of the {len(genes):,} genes; its first gene_id is "
                         f"{table['gene_id'].iloc[0]!r}, theirs {genes['gene_id'].iloc[0]!r}")
    words = [c for c in own.columns if c != "gene_id" and not pd.api.types.is_numeric_dtype(numbers_or_words(own[c]))]
    for column in words:
        for gene, value in zip(own["gene_id"], own[column].astype(str), strict=True):
            if value not in ("", "."):
                known[value].add(gene)
    return dict(known)


def _names(text: str) -> list[str]:
    found = _NAME.search(text)
    if found is None and "=" in text:
        return []
    value = (found.group(1) if found else text).strip().strip("()")
    return [name for name in (part.strip().strip("()") for part in value.split(",")) if name not in ("", ".")]
