"""Which genes, and of which build: what every table of links depends on."""

import hashlib
import warnings
from typing import Literal

import numpy as np
import pandas as pd

from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.intervals import overlapping, region_id

NEAR_TSS = 500


def gene_universe(genes: pd.DataFrame) -> dict[str, int | str]:
    """Fingerprint of a set of genes and their TSS: scores of two tables compare only where it is the same.

    Returns
    -------
    dict
        ``n`` genes and ``sha256`` over the sorted lines ``gene_id chrom tss strand``; the order of rows and other
        columns do not matter.
    """
    rows = genes[["gene_id", "chrom", "tss", "strand"]].astype(str).agg("\t".join, axis=1)
    return {"n": len(genes), "sha256": hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()}


def match_genes(names: pd.Series, genes: pd.DataFrame, *, missing: Literal["raise", "drop"] = "raise") -> pd.Series:
    """Find the `gene_id` of each name, which may be an id (with or without version) or a symbol.

    Parameters
    ----------
    names
        Ids or symbols.
    genes
        Genes with ``gene_id, gene_name``.
    missing
        ``raise`` on names that no gene has; ``drop`` leaves them NaN.

    Returns
    -------
    Series
        `gene_id` with the index of `names`.

    Raises
    ------
    SchemaError
        If a symbol belongs to two genes or more (count, first, and the ids that it could mean).
    UnknownNameError
        If a name is not among the genes and `missing` is ``raise``.
    """
    ids = genes["gene_id"].astype(str)
    bare = ids.str.replace(r"\.\d+$", "", regex=True)
    wanted = names.astype(str)
    found = pd.Series(wanted.where(wanted.isin(list(ids))), dtype=object)
    for key in (bare, genes["gene_name"].astype(str)):
        left = found.isna()
        if not left.any():
            break
        repeated = key.loc[key.duplicated(keep=False)]
        twice = pd.Series(wanted.loc[left & wanted.isin(list(repeated))])
        if len(twice):
            could = ids[key.to_numpy() == twice.iloc[0]].tolist()
            raise SchemaError(f"{twice.nunique():,} of {wanted.nunique():,} gene names match several genes; first: "
                              f"'{twice.iloc[0]}' is {', '.join(could[:4])}; use gene ids, or leave out the genes that "
                              "are not meant")
        known = dict(zip(key, ids, strict=True))
        found.loc[left] = [known.get(name) for name in wanted.loc[left]]
    absent = pd.Series(wanted.loc[found.isna()])
    if len(absent) and missing == "raise":
        close = nearest(absent.iloc[0], genes["gene_name"].astype(str)).split("options:")[0]
        raise UnknownNameError(f"{absent.nunique():,} of {wanted.nunique():,} gene names are not in the gene list of "
                               f"{len(genes):,}; first: '{absent.iloc[0]}'; {close}use the annotation that the table "
                               "was made with, or missing='drop'")
    return found.rename("gene_id")


def check_build(intervals: pd.DataFrame, chrom_sizes: dict[str, int] | None, name: str,
                genes: pd.DataFrame | None = None) -> None:
    """Notice intervals of another build of the genome than the one in use.

    Two signs: they run off the ends of chromosomes, and promoters lie at no TSS. Of intervals with a column `class`
    more than half of the promoters must be within 500 bp of a TSS; of others a warning says that hardly any TSS has
    one near (an active cell opens most promoters; by chance it is a few percent).

    Raises
    ------
    SchemaError
        If any interval ends beyond its chromosome, or most promoters are at no TSS.
    """
    advice = "use annotation, elements and contacts of one build, or lift them over"
    if chrom_sizes is not None:
        size = np.array([chrom_sizes.get(c, np.iinfo(np.int64).max) for c in intervals["chrom"]])
        off = intervals["end"].to_numpy() > size
        if off.any():
            i = int(off.argmax())
            raise SchemaError(f"{int(off.sum()):,} of {len(off):,} {name} end beyond their chromosome; first: "
                              f"{region_id(intervals).iloc[i]} ({size[i]:,} bp): another build? {advice}")
    if genes is None or not len(intervals) or not len(genes):
        return
    tss = genes["tss"].to_numpy()
    near = pd.DataFrame({"chrom": genes["chrom"], "start": np.maximum(tss - NEAR_TSS, 0), "end": tss + NEAR_TSS})
    row, gene = overlapping(intervals, near)
    if "class" in intervals.columns:
        promoter = (intervals["class"] == "promoter").to_numpy()
        at_tss = np.zeros(len(intervals), dtype=bool)
        at_tss[row] = True
        lost = promoter & ~at_tss & intervals["chrom"].isin(list(genes["chrom"])).to_numpy()
        if promoter.sum() >= 20 and 2 * lost.sum() > promoter.sum():
            raise SchemaError(f"{int(lost.sum()):,} of {int(promoter.sum()):,} {name} of class promoter have no TSS "
                              f"within {NEAR_TSS} bp; first: {region_id(intervals).iloc[int(lost.argmax())]}: another "
                              f"build or another gene list? {advice}")
    shared = genes["chrom"].isin(list(intervals["chrom"])).to_numpy()
    has = np.zeros(len(genes), dtype=bool)
    has[gene] = True
    if shared.sum() >= 50 and has[shared].mean() < 0.1:
        warnings.warn(f"only {int(has[shared].sum()):,} of {int(shared.sum()):,} genes have one of the {name} within "
                      f"{NEAR_TSS} bp of their TSS: another build, or promoters left out? {advice}", stacklevel=3)
