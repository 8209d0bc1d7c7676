"""Tables of element–gene links: ours, ABC's and ENCODE-rE2G's; and as arcs for genome browsers."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ciscribe.errors import InputError
from ciscribe.io.text import (
    PathLike,
    coerce_numbers,
    existing_file,
    naming,
    need_columns,
    numbers_or_words,
    read_table,
    real_numbers,
    reject_rows,
    whole_numbers,
    write_text_file,
)
from ciscribe.provenance import atomic_path, provenance, write_json
from ciscribe.schema import LINK_COLUMNS, check_links

_ABC = {
    "chrom": "chr", "start": "start", "end": "end", "class": "class", "activity": "activity_base",
    "gene_name": "TargetGene", "tss": "TargetGeneTSS", "expression": "TargetGeneExpression",
    "promoter_activity_quantile": "TargetGenePromoterActivityQuantile", "is_expressed": "TargetGeneIsExpressed",
    "gene_id": "TargetGeneEnsembl_ID", "distance": "distance", "is_self_promoter": "isSelfPromoter",
    "powerlaw_contact": "powerlaw_contact", "powerlaw_contact_reference": "powerlaw_contact_reference",
    "hic_contact": "hic_contact", "hic_contact_scaled": "hic_contact_pl_scaled", "hic_pseudocount": "hic_pseudocount",
    "contact": "hic_contact_pl_scaled_adj", "abc_numerator": "ABC.Score.Numerator", "abc_reported": "ABC.Score",
    "powerlaw_numerator": "powerlaw.Score.Numerator", "powerlaw_abc_reported": "powerlaw.Score", "cell": "CellType",
}
"""Our columns and those of EnhancerPredictionsAllPutative."""
_FLAGS = ("is_self_promoter", "is_expressed")
_WORDS = ("chrom", "gene_id", "gene_name", "cell", "class", "name", "contact_source", "method")
_SYNONYMS = {"TargetGeneEnsemblID": "TargetGeneEnsembl_ID", "DistanceToTSS": "distance", "distanceToTSS": "distance",
             "ENCODE-rE2G.Score": "re2g"}


def from_abc_columns(table: pd.DataFrame, *, gene: Literal["id", "symbol"] = "id") -> pd.DataFrame:
    """Links from a table with the column names of the ABC pipeline or of ENCODE-rE2G.

    `score` is ENCODE-rE2G's own where there is one, else the reported ABC score, else the power-law score. A missing
    `distance` is taken from the element's middle and the TSS. Columns that we do not know keep their names.

    Parameters
    ----------
    table
        Predictions.
    gene
        What becomes `gene_id`: the Ensembl ``id`` (the symbol where the file gives none), or the ``symbol``. The
        published gene lists hold a few ids twice under different symbols, whose pairs then repeat: take the symbol.

    Raises
    ------
    SchemaError, InputError
        If columns are missing or the rows break the contract of links.
    """
    out = table.rename(columns=_SYNONYMS)
    need_columns(out, ["chr", "start", "end", "TargetGene"], "(in memory)", "ABC predictions")
    out = out.rename(columns={theirs: ours for ours, theirs in _ABC.items()})
    ids = out["gene_id"].astype(str) if "gene_id" in out.columns else pd.Series("", index=out.index)
    absent = ids.str.lower().isin(["", "na", "nan", "none", "."])
    out["gene_id"] = ids.where(~absent & (gene == "id"), out["gene_name"].astype(str))
    if "cell" not in out.columns:
        out["cell"] = ""
    for name in _FLAGS:
        if name in out.columns:
            out[name] = out[name].astype(str).str.lower().isin(["true", "1"])
    measured = np.full(len(out), np.nan)
    if "tss" in out.columns:
        measured = np.abs((out["start"] + out["end"]).to_numpy(float) / 2 - out["tss"].to_numpy(float))
    stated = coerce_numbers(out["distance"]) if "distance" in out.columns else measured
    out["distance"] = np.where(np.isnan(stated), measured, stated)
    if {"contact", "powerlaw_contact"} <= set(out.columns):
        out["contact"] = coerce_numbers(out["contact"])
        out["contact"] = out["contact"].fillna(pd.Series(coerce_numbers(out["powerlaw_contact"]), index=out.index))
    score = next((name for name in ("re2g", "abc_reported", "powerlaw_abc_reported") if name in out.columns), None)
    if score is None:
        raise InputError("ABC predictions hold none of the scores ENCODE-rE2G.Score, ABC.Score, powerlaw.Score; got "
                         f"{', '.join(map(str, table.columns))}")
    out["score"] = out[score].to_numpy(np.float64)
    order = [*LINK_COLUMNS, *(c for c in out.columns if c not in LINK_COLUMNS)]
    out = pd.DataFrame({c: out[c].to_numpy() for c in order})
    check_links(out)
    return out


def to_abc_columns(links: pd.DataFrame) -> pd.DataFrame:
    """Links with the published column names (EnhancerPredictionsAllPutative), for programs that read those.

    ``ABC.Score`` is the reported score, in which a gene's own promoter is 1; without a contact map it is there as well,
    and equals ``powerlaw.Score``. Our other columns follow under their names.
    """
    check_links(links)
    out = links.copy()
    if {"powerlaw_abc", "is_self_promoter"} <= set(out.columns):
        out["powerlaw_abc_reported"] = np.where(out["is_self_promoter"], 1.0, out["powerlaw_abc"])
    if {"contact", "hic_contact"} <= set(out.columns):  # the published column is of Hi-C only
        out["contact"] = out["contact"].where(out["hic_contact"].notna())
    out = out.rename(columns=_ABC)
    if "class" in out.columns:
        out.insert(3, "name", out["class"].astype(str) + "|" + out["chr"].astype(str) + ":" + out["start"].astype(str)
                   + "-" + out["end"].astype(str))
    first = ["chr", "start", "end", "name", *(c for c in _ABC.values() if c not in ("chr", "start", "end"))]
    first = [c for c in first if c in out.columns]
    return pd.DataFrame({c: out[c] for c in [*first, *(c for c in out.columns if c not in first)]})


def read_links(path: PathLike, *, gene: Literal["id", "symbol"] = "id") -> pd.DataFrame:
    """Read links: parquet or TSV of `write_links`, predictions of ABC or of ENCODE-rE2G (plain or gzipped).

    Parameters
    ----------
    path
        File; whose columns they are is seen from their names.
    gene
        What becomes `gene_id` of ABC and ENCODE-rE2G predictions, as in `from_abc_columns`.

    Returns
    -------
    DataFrame
        Links (`schema.check_links`); ``attrs`` are those that were written, from the file beside it.

    Raises
    ------
    InputError
        If columns are missing or rows are no links; with the count and the first row.
    """
    existing_file(path, "links")
    if Path(path).suffix.lower() == ".parquet":
        try:
            links = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"links {path} are truncated or no parquet ({error}); write or copy them again") from error
        theirs = "chr" in links.columns and "chrom" not in links.columns
    else:
        links = read_table(path, "links")
        theirs = "chr" in links.columns and "chrom" not in links.columns
        needed = ("chr", "start", "end", "TargetGene") if theirs else LINK_COLUMNS
        need_columns(links, [*needed], path, "links")
        words = {*_WORDS, *(_ABC[w] for w in _WORDS if w in _ABC), "TargetGeneEnsemblID"}
        for column in links.columns:
            if column in ("start", "end"):
                links[column] = whole_numbers(links, column, path, "links")
            elif column in ("distance", "score"):
                links[column] = real_numbers(links, column, path, "links")
            elif column not in words:
                links[column] = _values(pd.Series(links[column]))
    with naming(path):
        if theirs:
            links = from_abc_columns(links, gene=gene)
        check_links(links)
    bad = ~np.isfinite(links["score"].to_numpy(float))
    reject_rows(bad, "have no finite score", lambda i: f"{links['gene_id'].iloc[i]}", path, "links")
    beside = _beside(path)
    links.attrs = json.loads(beside.read_text())["attrs"] if beside.is_file() else {}
    return links


def _values(words: pd.Series) -> np.ndarray:
    """Flags, numbers (empty cells are NaN), or the words as they came."""
    lower = words.str.strip().str.lower()
    if len(words) and lower.isin(["true", "false"]).all():
        return (lower == "true").to_numpy()
    empty = lower.isin(["", "na", "nan"])
    if empty.all():
        return np.full(len(words), np.nan)
    numbers = numbers_or_words(words[~empty])
    if numbers.dtype.kind not in "if" or not empty.any():
        return numbers if not empty.any() else words.to_numpy()
    out = np.full(len(words), np.nan)
    out[~empty.to_numpy()] = numbers
    return out


def write_links(path: PathLike, links: pd.DataFrame, **facts: Any) -> None:
    """Write links as ``.parquet`` or TSV (``.tsv``, ``.tsv.gz``), whole or not at all, with a JSON of what made them.

    The JSON lies beside the file under the same name and ``.json``: the table's ``attrs`` (gene universe, parameters),
    columns, versions, and `facts` (e.g. ``inputs={"peaks": checksum}``).
    """
    check_links(links)
    suffix = "".join(Path(path).suffixes[-2:]).lower()
    if suffix.endswith(".parquet"):
        bare = links.copy()
        bare.attrs = {}
        with atomic_path(path) as temporary:
            bare.to_parquet(temporary, index=False)
    elif re.search(r"\.(tsv|txt)(\.gz)?$", suffix):
        write_text_file(path, links.to_csv(sep="\t", index=False, float_format="%.9g"))
    else:
        raise InputError(f"links are written as .parquet, .tsv or .tsv.gz; got {path}")
    write_json(_beside(path), provenance(schema="links", rows=len(links), columns=list(map(str, links.columns)),
                                         attrs=links.attrs, **facts))


def write_bedpe(path: PathLike, links: pd.DataFrame) -> None:
    """Write links as BEDPE for genome browsers: an arc from each element to the TSS of its gene.

    Columns ``chrom1 start1 end1 chrom2 start2 end2 name score strand1 strand2``; the name is gene and cell, the score
    the link's. Needs the column `tss`.
    """
    check_links(links)
    if "tss" not in links.columns:
        raise InputError("links need the column tss to be drawn as arcs (score_abc gives it); got "
                         f"{', '.join(map(str, links.columns))}")
    name = (links["gene_name"] if "gene_name" in links.columns else links["gene_id"]).astype(str)
    cell = links["cell"].astype(str)
    table = pd.DataFrame({
        "chrom1": links["chrom"], "start1": links["start"], "end1": links["end"], "chrom2": links["chrom"],
        "start2": links["tss"], "end2": links["tss"] + 1, "name": name.where(cell == "", name + "|" + cell),
        "score": links["score"], "strand1": ".", "strand2": ".",
    })
    write_text_file(path, "#" + table.to_csv(sep="\t", index=False, float_format="%.6g"))


def _beside(path: PathLike) -> Path:
    return Path(f"{path}.json")
