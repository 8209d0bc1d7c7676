"""Tables of CRISPRi element–gene pairs as links that were tested."""

import re

import numpy as np
import pandas as pd

from ciscribe.io.text import (
    PathLike,
    naming,
    need_columns,
    numbers_or_words,
    read_table,
    real_numbers,
    reject_rows,
    whole_numbers,
)
from ciscribe.schema import LINK_COLUMNS, check_links

BENCHMARK_COLUMNS = {
    "chromStart": "start", "chromEnd": "end", "EffectSize": "effect", "startTSS": "tss",
    "measuredGeneSymbol": "gene_name", "measuredGeneEnsemblId": "gene_id", "Significant": "significant",
    "pValueAdjusted": "p_adjusted", "ValidConnection": "connection", "CellType": "cell", "Reference": "reference",
    "Regulated": "regulated", "Dataset": "dataset", "distanceToTSS": "distance",
    "measuredGeneUbiquitousExpressed": "ubiquitous", "elementChromatinCategory": "category",
}
"""EPCrisprBenchmark column → ours. Signals follow a rule: ``H3K27ac.RPM.expandedRegion`` → ``h3k27ac_rpm_expanded``,
``PowerAtEffectSize25`` → ``power_25``; other columns keep their names."""
_FLAGS = ("significant", "regulated", "ubiquitous")
_TRUE, _FALSE, _MISSING = ("true", "1", "t", "yes"), ("false", "0", "f", "no"), ("", "na", "nan", ".")


def read_crispri(path: PathLike) -> pd.DataFrame:
    """Read which element–gene pairs a CRISPRi screen tested, and which of them respond.

    Parameters
    ----------
    path
        Plain or gzipped. EPCrisprBenchmark (``chrom chromStart chromEnd … measuredGeneSymbol … Regulated``), or a
        TSV or CSV with ``chrom, start, end, gene_id, label`` and whatever else of the columns below.

    Returns
    -------
    DataFrame
        One row a pair, in file order: a links table (``chrom, start, end, gene_id, cell, distance, score``) with
        ``gene_name`` and the file's other columns by our names (`BENCHMARK_COLUMNS`). `gene_id` is the Ensembl id
        where the file has one, else the symbol. `effect` is the relative change of expression when the element is
        silenced (−0.3: 30 % less); `score` is ``-effect`` (NaN in tables without one), so that higher means a
        stronger enhancer. `distance` in bp, from the file, else from the element's middle to `tss`, NaN where
        neither is known. `tss` is 0-based. `connection` is the file's word on whether the pair is a valid test
        (``TRUE`` or the reason why not). `significant`, `regulated`, `ubiquitous` and `label` are booleans that may
        be missing. `cell` is ``.`` in a plain table without one.

    Raises
    ------
    InputError
        If a column is missing, a coordinate or flag cannot be read, or a pair of one cell and dataset repeats.

    References
    ----------
    Gschwind et al., bioRxiv 2023, doi:10.1101/2023.11.09.563812; files of EngreitzLab/CRISPR_comparison.
    """
    what = "CRISPRi pairs"
    raw = read_table(path, what)
    if "chromStart" in raw.columns:
        need_columns(raw, ["chrom", *(c for c in BENCHMARK_COLUMNS if c in (
            "chromStart", "chromEnd", "EffectSize", "measuredGeneSymbol", "Significant", "ValidConnection", "CellType",
            "Regulated"))], path, what)
        table = raw.rename(columns={c: BENCHMARK_COLUMNS.get(c, _signal_name(c)) for c in raw.columns})
    else:
        need_columns(raw, ["chrom", "start", "end", "gene_id", "label"], path, what)
        table = raw.copy()
    out = {"chrom": table["chrom"].astype(str)}
    for column in ("start", "end"):
        out[column] = whole_numbers(table, column, path, what)
    gene = "gene_id" if "gene_id" in table.columns else "gene_name"
    out["gene_id"] = table[gene].astype(str)
    out["gene_name"] = table["gene_name" if "gene_name" in table.columns else gene].astype(str)
    out["cell"] = table["cell"].astype(str) if "cell" in table.columns else "."
    for column in (*_FLAGS, "label"):
        if column in table.columns:
            out[column] = _flags(table[column].to_list(), column, path, what)
    for column in ("effect", "tss", "distance", "score"):
        if column in table.columns:
            out[column] = real_numbers(table, column, path, what)
    for column in table.columns.difference(list(out), sort=False):
        words = table[column].where(~table[column].str.lower().isin(_MISSING), "nan")
        number = numbers_or_words(words[words != "nan"])
        out[column] = real_numbers(table, column, path, what) if number.dtype.kind in "if" else table[column]
    middle = (np.asarray(out["start"]) + np.asarray(out["end"])) // 2
    if "distance" not in out:
        out["distance"] = np.abs(middle - np.asarray(out["tss"])) if "tss" in out else np.full(len(table), np.nan)
    if "score" not in out:
        out["score"] = -np.asarray(out["effect"]) if "effect" in out else np.full(len(table), np.nan)
    pairs = pd.DataFrame(out).reset_index(drop=True)
    with naming(path):
        check_links(pairs)
    return pairs.reindex(columns=[*LINK_COLUMNS, *(c for c in pairs.columns if c not in LINK_COLUMNS)])


def _signal_name(column: str) -> str:
    """``DHS.RPM`` → ``dhs_rpm``, ``PowerAtEffectSize25`` → ``power_25``; names in lower case stay."""
    power = re.fullmatch(r"PowerAtEffectSize(\d+)", column)
    if power:
        return f"power_{power[1]}"
    signal = re.fullmatch(r"(\w+)\.(?:(expandedRegion)\.)?(RPM|percentile)(?:\.(expandedRegion))?", column)
    if signal:
        return f"{signal[1]}_{signal[3]}{'_expanded' if signal[2] or signal[4] else ''}".lower()
    overlap = re.fullmatch(r"(\w+)_peak_overlap", column)
    return f"{overlap[1]}_peak".lower() if overlap else column


def _flags(words: list[str], column: str, path: PathLike, what: str) -> pd.Series:
    """TRUE/FALSE, 1/0 as booleans; an empty cell or NA is missing, another word an error."""
    lower = [word.strip().lower() for word in words]
    reject_rows([word not in (*_TRUE, *_FALSE, *_MISSING) for word in lower],
                f"have a {column} other than TRUE, FALSE and NA", lambda i: repr(words[i]), path, what)
    return pd.Series([pd.NA if word in _MISSING else word in _TRUE for word in lower], dtype="boolean")
