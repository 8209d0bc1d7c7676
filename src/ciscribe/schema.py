"""The objects that flow between the rooms, one ``check_*`` per row of `docs/spec.md`.

Every check returns nothing and raises `SchemaError` with the count of offending rows and the first one.
All coordinates are 0-based and half-open.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ciscribe.errors import SchemaError

DIMS = ("region", "base", "position", "bin", "track", "head", "gene", "variant", "motif", "seqlet", "shuffle",
        "step", "cell")
"""The closed vocabulary of dimension names."""

INTERVAL_COLUMNS = ("chrom", "start", "end")
GENE_COLUMNS = ("chrom", "start", "end", "strand", "gene_id", "gene_name", "tss")
ELEMENT_COLUMNS = ("chrom", "start", "end", "gene_id", "cell", "score", "score_sd", "effect", "evidence")
LINK_COLUMNS = ("chrom", "start", "end", "gene_id", "cell", "distance", "score")
VARIANT_COLUMNS = ("chrom", "pos", "ref", "alt")
EFFECT_COLUMNS = (*VARIANT_COLUMNS, "name", "track", "gene_id")
HIT_COLUMNS = ("chrom", "start", "end", "strand", "motif", "score", "p_value", "region")
STRANDS = ("+", "-", ".")


@dataclass(frozen=True, eq=False)
class Motif:
    """What a factor prefers to bind, as the probability of each base at each position.

    Parameters
    ----------
    name
        Unique among the motifs that are used together.
    ppm
        float64 ``(4, W)``, rows A C G T; every column sums to 1.
    source
        Where it comes from: a file, a database, a paper.
    """

    name: str
    ppm: np.ndarray
    source: str = ""


def check_one_hot(X: ArrayLike, name: str = "X") -> None:
    """Sequence batch: ``(B, 4, L)``, each column one 1 or (for N) four 0."""
    array = _array(X)
    if array.ndim != 3 or array.shape[1] != 4:
        last = array.ndim == 3 and array.shape[2] == 4
        hint = "; if channels are last, transpose to (B, 4, L)" if last else ""
        raise SchemaError(f"{name} must be one-hot (B, 4, L); got shape {array.shape}{hint}")
    bad = ~(np.isin(array, (0, 1)).all(axis=1) & np.isin(array.sum(axis=1), (0, 1)))
    if bad.any():
        i, position = np.argwhere(bad)[0]
        raise SchemaError(f"{name} must be one-hot, 0 or 1 and at most one base a position; "
                          f"{int(bad.sum()):,} of {bad.size:,} positions are not; "
                          f"first: sequence {i}, position {position} = {array[i, :, position].tolist()}")


def check_signals(S: ArrayLike, length: int | None = None, resolution: int = 1, name: str = "S") -> None:
    """Signals: ``(B, S, L / resolution)``, finite."""
    array = _array(S)
    if array.ndim != 3:
        raise SchemaError(f"{name} must be signals (B, S, bins); got shape {array.shape}")
    if length is not None and array.shape[2] * resolution != length:
        raise SchemaError(f"{name} has {array.shape[2]} bins of {resolution} bp = "
                          f"{array.shape[2] * resolution} bp, but the sequence has {length} bp")
    bad = ~np.isfinite(array)
    if bad.any():
        i, track, bin_ = np.argwhere(bad)[0]
        raise SchemaError(f"{int(bad.sum()):,} of {bad.size:,} values of {name} are NaN or infinite; "
                          f"first: sequence {i}, track {track}, bin {bin_}; "
                          "fill them before the model (uncovered bases of a bigWig read as NaN)")


def _array(values: ArrayLike) -> np.ndarray:
    """View as NumPy, also of a tensor that carries gradients or lies on a GPU."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)  # type: ignore[union-attr]


def _whole(table: pd.DataFrame, columns: tuple[str, ...], name: str) -> None:
    """Raise unless the columns are integers without gaps."""
    for column in columns:
        if not pd.api.types.is_integer_dtype(table[column]):
            raise SchemaError(f"column {column} of {name} must be whole numbers of bp; "
                              f"got dtype {table[column].dtype}")
        _rows(table, table[column].isna(), f"have no {column}", name)


def _columns(table: pd.DataFrame, needed: tuple[str, ...], name: str) -> None:
    missing = [c for c in needed if c not in table.columns]
    if missing:
        raise SchemaError(f"{name} need the columns {', '.join(needed)}; missing: {', '.join(missing)}; "
                          f"got: {', '.join(map(str, table.columns))}")


def _rows(table: pd.DataFrame, bad: ArrayLike, fault: str, name: str) -> None:
    """Raise when any row is bad, quoting the count and the first."""
    bad = np.asarray(bad, dtype=bool)
    if bad.any():
        i = int(bad.argmax())
        row = table.iloc[i]
        where = ""
        if {"chrom", "start", "end"} <= set(table.columns):
            where = f" {row['chrom']}:{row['start']}-{row['end']}"
        elif {"chrom", "pos"} <= set(table.columns):
            where = f" {row['chrom']}:{row['pos']}"
        gene = f" {row['gene_id']}" if "gene_id" in table.columns else ""
        raise SchemaError(f"{int(bad.sum()):,} of {len(table):,} {name} {fault}; first: row {i}{where}{gene}")


def check_intervals(table: pd.DataFrame, chrom_sizes: dict[str, int] | None = None,
                    name: str = "intervals") -> None:
    """Intervals: ``chrom, start, end[, name, score, strand]``, ``0 <= start < end``, on the chromosome."""
    _columns(table, INTERVAL_COLUMNS, name)
    _whole(table, ("start", "end"), name)
    _rows(table, table["chrom"].isna(), "have no chromosome", name)
    _rows(table, table["start"] < 0, "start before 0", name)
    _rows(table, table["end"] <= table["start"], "end at or before their start", name)
    if "strand" in table.columns:
        _rows(table, ~table["strand"].isin(STRANDS), "have a strand other than + - .", name)
    if chrom_sizes is not None:
        unknown = ~table["chrom"].isin(list(chrom_sizes))
        _rows(table, unknown, f"lie on chromosomes that the genome lacks ({_some(chrom_sizes)})", name)
        _rows(table, table["end"] > _sizes(table, chrom_sizes), "run off the end of their chromosome", name)


def check_genes(table: pd.DataFrame, chrom_sizes: dict[str, int] | None = None) -> None:
    """Genes: intervals with ``strand, gene_id, gene_name, tss``; ids unique; TSS on the chromosome."""
    _columns(table, GENE_COLUMNS, "genes")
    check_intervals(table, chrom_sizes, "genes")
    _rows(table, table["gene_id"].isna() | (table["gene_id"] == ""), "have no gene_id", "genes")
    _rows(table, table["gene_id"].duplicated(), "repeat a gene_id", "genes")
    _whole(table, ("tss",), "genes")
    _rows(table, table["tss"] < 0, "have a TSS before 0", "genes")
    if chrom_sizes is not None:
        _rows(table, table["tss"] >= _sizes(table, chrom_sizes), "have a TSS off the end of their chromosome",
              "genes")


def check_elements(table: pd.DataFrame) -> None:
    """Elements: intervals with ``gene_id, cell, score, score_sd, effect, evidence``; scores finite."""
    _columns(table, ELEMENT_COLUMNS, "elements")
    check_intervals(table, name="elements")
    _rows(table, ~np.isfinite(table["score"].to_numpy(float)), "have no finite score", "elements")


def check_links(table: pd.DataFrame) -> None:
    """Links: ``chrom, start, end, gene_id, cell, distance, score[, label]``; one row a pair and cell."""
    _columns(table, LINK_COLUMNS, "links")
    check_intervals(table, name="links")
    _rows(table, table["gene_id"].isna(), "have no gene_id", "links")
    _rows(table, table.duplicated(["chrom", "start", "end", "gene_id", "cell"]), "repeat a pair", "links")


def check_variants(table: pd.DataFrame) -> None:
    """Variants: ``chrom, pos, ref, alt[, name]``, `pos` 0-based."""
    _columns(table, VARIANT_COLUMNS, "variants")
    _whole(table, ("pos",), "variants")
    _rows(table, table["chrom"].isna(), "have no chromosome", "variants")
    _rows(table, table["pos"] < 0, "lie before position 0", "variants")
    for column in ("ref", "alt"):
        bad = ~table[column].astype(str).str.fullmatch("[ACGTN]+")
        _rows(table, bad, f"have something other than letters of ACGTN as {column}", "variants")


def check_effects(table: pd.DataFrame) -> None:
    """Effects of variants: ``chrom, pos, ref, alt, name, track, gene_id`` and scores; one row a variant, track, gene.

    Scores are alternative minus reference: positive where the alternative allele raises the output. `gene_id` is
    ``.`` where the output belongs to no gene.
    """
    _columns(table, EFFECT_COLUMNS, "effects")
    check_variants(table)
    for column in ("track", "gene_id"):
        _rows(table, table[column].isna(), f"have no {column}", "effects")
    _rows(table, table.duplicated(list(EFFECT_COLUMNS)), "repeat a variant, track and gene", "effects")


def check_expression(table: pd.DataFrame) -> None:
    """Expression: index `gene_id` (unique), one number column a cell or stage; finite, not negative."""
    if table.index.name != "gene_id":
        raise SchemaError(f"expression is indexed by gene_id; got index {table.index.name!r}")
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()]
        raise SchemaError(f"{len(twice):,} of {len(table):,} expression rows repeat a gene_id; "
                          f"first: {twice[0]}")
    for column in table.columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise SchemaError(f"column {column} of expression must be numbers; "
                              f"got dtype {table[column].dtype}")
    values = table.to_numpy(dtype=float)
    for bad, fault in ((~np.isfinite(values), "missing or infinite"), (values < 0, "negative")):
        if bad.any():
            i, j = np.argwhere(bad)[0]
            raise SchemaError(f"{int(bad.sum()):,} of {values.size:,} expression values are {fault}; "
                              f"first: gene {table.index[i]}, column {table.columns[j]} = {values[i, j]}")


def check_motifs(motifs: Sequence[Motif]) -> None:
    """Motifs: ``Motif(name, ppm (4, W), source)``; names unique, columns are probabilities that sum to 1."""
    names: set[str] = set()
    for i, motif in enumerate(motifs):
        if not motif.name.strip() or motif.name in names:
            fault = "repeats the name of an earlier one" if motif.name in names else "has no name"
            raise SchemaError(f"motif {i} of {len(motifs):,} {fault}: {motif.name!r}")
        names.add(motif.name)
        ppm = motif.ppm
        if ppm.ndim != 2 or ppm.shape[0] != 4 or not ppm.shape[1] or ppm.dtype != np.float64:
            turned = ppm.ndim == 2 and ppm.shape[0] != 4 and ppm.shape[1] == 4
            raise SchemaError(f"the ppm of motif {motif.name} must be float64 (4, W), W at least 1; got {ppm.dtype} "
                              f"{ppm.shape}{'; transpose it' if turned else ''}")
        bad = ~((ppm >= 0).all(axis=0) & (np.abs(ppm.sum(axis=0) - 1) <= 1e-6))  # NaN is bad, too
        if bad.any():
            w = int(bad.argmax())
            raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} columns of motif {motif.name} are not probabilities "
                              f"that sum to 1; first: column {w} = {ppm[:, w].tolist()}")


def check_hits(table: pd.DataFrame) -> None:
    """Hits: intervals within sequences with ``strand, motif, score, p_value, region``; p-values in 0..1 or NaN."""
    _columns(table, HIT_COLUMNS, "hits")
    check_intervals(table, name="hits")
    _rows(table, ~table["strand"].isin(STRANDS[:2]), "have a strand other than + -", "hits")
    _rows(table, table["motif"].isna() | (table["motif"] == ""), "name no motif", "hits")
    _rows(table, ~np.isfinite(table["score"].to_numpy(float)), "have no finite score", "hits")
    p_value = table["p_value"].to_numpy(float)
    _rows(table, ~(np.isnan(p_value) | ((p_value >= 0) & (p_value <= 1))), "have a p_value outside of 0..1", "hits")
    _whole(table, ("region",), "hits")
    _rows(table, table["region"] < 0, "have a region before 0", "hits")


def _sizes(table: pd.DataFrame, chrom_sizes: dict[str, int]) -> np.ndarray:
    return np.array([chrom_sizes[chrom] for chrom in table["chrom"]], dtype=np.int64)


def _some(names: dict[str, int]) -> str:
    names_ = list(names)
    return ", ".join(names_[:5]) + (" …" if len(names_) > 5 else "")
