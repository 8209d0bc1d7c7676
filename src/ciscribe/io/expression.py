"""Tables of gene expression: one row a gene, one column a cell type or stage.

`read_expression` takes ready values, or raw counts that it turns into TPM library by library, and averages
the libraries of each cell type or stage.
"""

from typing import Literal

import numpy as np
import pandas as pd

from ciscribe.errors import InputError
from ciscribe.io.text import (
    PathLike,
    coerce_numbers,
    naming,
    need_columns,
    read_table,
    real_numbers,
    reject_rows,
)
from ciscribe.schema import check_expression


def read_expression(
    path: PathLike,
    *,
    gene_id: str = "gene_id",
    columns: dict[str, list[str]] | list[str] | None = None,
    counts_length: str | None = None,
    transform: Literal["none", "log10p1", "log2p1"] = "none",
) -> pd.DataFrame:
    """Read an expression table (TSV or CSV with a header, plain or gzipped).

    Parameters
    ----------
    path
        The table. Rows whose gene id is empty are left out of the result (not of the TPM).
    gene_id
        Its column of gene ids.
    columns
        Target → columns (libraries) that are averaged; or the columns to keep as they are; None keeps every
        column of numbers (apart from `counts_length`).
    counts_length
        Column of transcript or CDS lengths in bp. When given, the values are read counts: each library
        becomes TPM over all rows of the file, before libraries are averaged.
    transform
        Of the average: ``"log10p1"`` is log10(x + 1), ``"log2p1"`` log2(x + 1).

    Returns
    -------
    DataFrame
        Index `gene_id`, one float column per target, in the order of `columns`.

    Raises
    ------
    InputError
        If values are missing or negative, gene ids repeat, a column is missing (the nearest is named), a
        length is not positive, or a library has no reads; with the count and the first offender.

    References
    ----------
    TPM: Wagner, Kin & Lynch 2012, Theory Biosci 131:281, doi:10.1007/s12064-012-0162-3.
    """
    scale = {"none": None, "log10p1": np.log(10), "log2p1": np.log(2)}
    if transform not in scale:
        raise ValueError(f"transform must be one of {', '.join(scale)}; got {transform!r}")
    what = "expression"
    raw = read_table(path, what)
    need_columns(raw, [gene_id], path, what)
    if columns is None:
        columns = [c for c in raw.columns if c not in (gene_id, counts_length) and _is_numeric(raw, c)]
    targets = columns if isinstance(columns, dict) else {column: [column] for column in columns}
    empty = [target for target, libraries in targets.items() if not libraries]
    if empty or not targets:
        raise InputError(
            f"{what} {path}: expected at least one column of numbers per target; none for "
            f"{empty[0] if empty else 'the table'}; its columns: {', '.join(map(str, raw.columns))}"
        )
    libraries = list(dict.fromkeys(library for group in targets.values() for library in group))
    need_columns(raw, libraries, path, what)
    ids = np.array([str(word).strip() for word in raw[gene_id]], dtype=object)
    values = pd.DataFrame({c: real_numbers(raw, c, path, what) for c in libraries})
    values.index = pd.Index(ids, name="gene_id")
    with naming(path):
        check_expression(values.loc[ids != ""])
    if counts_length is not None:
        need_columns(raw, [counts_length], path, what)
        length = real_numbers(raw, counts_length, path, what)
        reject_rows(
            ~(length > 0),
            f"have a {counts_length} that is not positive",
            lambda i: f"gene {ids[i]} = {length[i]}",
            path,
            what,
        )
        values = _tpm(values, length, path)
    table = pd.DataFrame({target: values[group].mean(axis=1) for target, group in targets.items()})
    table = table.loc[ids != ""]
    return table if transform == "none" else np.log1p(table) / scale[transform]


def _is_numeric(table: pd.DataFrame, column: str) -> bool:
    # More than half, so that a stray word in a column of numbers becomes an error and not a column left out.
    return bool(np.isfinite(coerce_numbers(table[column])).mean() > 0.5)


def _tpm(counts: pd.DataFrame, length: np.ndarray, path: PathLike) -> pd.DataFrame:
    """Transcripts per million of each library; columns sum to 1e6. A missing count is 0."""
    rate = counts.fillna(0).to_numpy(float) / (length[:, None] / 1e3)
    total = rate.sum(axis=0)
    if (total <= 0).any():
        raise InputError(
            f"expression {path}: {int((total <= 0).sum())} of {len(total)} libraries hold no reads; "
            f"first: {counts.columns[int((total <= 0).argmax())]}; leave it out"
        )
    return pd.DataFrame(rate / total * 1e6, index=counts.index, columns=counts.columns)
