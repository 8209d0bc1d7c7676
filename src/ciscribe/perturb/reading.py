"""What is read off a model before and after a change, and how many repeats become one row with its error.

A *reading* is any function ``f(oracle, X, S, covariates, **options)`` that returns an array with one row a sequence:
`predict`, or every attribution method of `ciscribe.interpret`. So a change needs to be written once for all readings,
and a reading once for all changes: `before_after` joins any two.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from numpy import ndarray
from scipy.stats import t as student
from torch import Tensor

from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import Edits, apply_edits, predict_edited
from ciscribe.results import Perturbation
from ciscribe.sequence import codes_of, dinucleotide_shuffle

Sequences = Shaped[Tensor, "_ ..."] | Shaped[ndarray, "_ ..."]
Reading = Callable[..., Any]  # f(oracle, X, S, covariates, **options) -> (B, ...); given batch_size by experiments
AT_ONCE = 4096  # edited sequences whose answers are held before they are averaged


def predict(oracle: Oracle, X: Sequences, S: Tensor | None = None, covariates: Tensor | None = None, *,
            batch_size: int = 64, progress: bool = False) -> Float[ndarray, "B T"]:
    """What the model predicts: the reading that every experiment takes unless told otherwise.

    Takes codes or one-hot, as an array or a tensor; otherwise `Oracle.predict`.
    """
    codes = torch.tensor(codes_of(X))
    return oracle.predict(codes, S, covariates, batch_size=batch_size, progress=progress).numpy()


def before_after(oracle: Oracle, X: Sequences, X_edited: Sequences, S: Tensor | None = None,
                 covariates: Tensor | None = None, *, func: Reading = predict, **options: Any) -> Perturbation:
    """Read sequences and their changed versions in the same way.

    Parameters
    ----------
    oracle
        The model.
    X, X_edited
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``, row by row before and after. The lengths may differ where the
        reading has no positions.
    S, covariates
        Further inputs; the same before and after.
    func
        What is read: `predict`, or an attribution method for what the change does to the importance of every base.
    **options
        Handed to `func`.

    Returns
    -------
    Perturbation
        ``before`` and ``after``, arrays ``(B, ...)``; ``effect`` is before − after.

    Raises
    ------
    SchemaError
        When the two differ in their number of sequences, or their readings in shape.
    """
    codes, edited = codes_of(X), codes_of(X_edited)
    if len(codes) != len(edited):
        raise SchemaError(f"before and after are compared row by row; got {len(codes)} and {len(edited)} sequences")
    before, after = (np.asarray(func(oracle, torch.tensor(x), S, covariates, **options)) for x in (codes, edited))
    if before.shape != after.shape:
        raise SchemaError(f"the readings before and after differ in shape, {before.shape} and {after.shape}; a change "
                          "of length can only be read by something without positions, such as predict")
    return Perturbation(before, after)


def read(oracle: Oracle, codes: UInt8[ndarray, "B L"], edits: Edits | None = None, S: Tensor | None = None,
         covariates: Tensor | None = None, *, func: Reading = predict, batch_size: int = 64, progress: bool = False
         ) -> Float[ndarray, "n T"]:
    """Read sequences, or edits of them, where one number a track is needed.

    Raises
    ------
    SchemaError
        When `func` returns anything else than ``(n, T)``.
    """
    if edits is not None and func is predict:
        return predict_edited(oracle, codes, edits, S, covariates, batch_size=batch_size, progress=progress)
    n = len(codes) if edits is None else len(edits.row)
    out = []
    for i in range(0, n, AT_ONCE):
        rows = np.arange(i, min(i + AT_ONCE, n))
        X = codes[rows] if edits is None else apply_edits(codes, Edits(*(field[rows] for field in edits)))
        of = torch.from_numpy(rows if edits is None else edits.row[rows])
        extras = (None if value is None else value[of] for value in (S, covariates))
        out.append(np.asarray(func(oracle, torch.tensor(X), *extras, batch_size=batch_size), dtype=np.float64))
        if out[-1].ndim != 2 or len(out[-1]) != len(rows):
            raise SchemaError(f"this experiment needs readings (n, T), one number a sequence and track; func gave "
                              f"{out[-1].shape} for {len(rows)} sequences; compare larger readings with before_after")
    return np.concatenate(out) if out else np.zeros((0, 0), np.float32)


def read_repeats(oracle: Oracle, codes: UInt8[ndarray, "B L"], before: Float[ndarray, "B T"], edits: Edits,
                 repeats: int, S: Tensor | None = None, covariates: Tensor | None = None, **options: Any
                 ) -> tuple[Float[ndarray, "n T"], Float[ndarray, "n T"]]:
    """Mean of after − before and its standard error, of `n` items that are each edited `repeats` times in a row.

    Each edit is compared with `before` of the sequence that it changes. Only a few thousand readings are held at once.
    The error is NaN of a single repeat.
    """
    if not len(edits.row):
        return np.zeros((0, before.shape[1])), np.zeros((0, before.shape[1]))
    means, errors = [], []
    step = max(1, AT_ONCE // repeats) * repeats
    for i in range(0, len(edits.row), step):
        part = Edits(*(field[i:i + step] for field in edits))
        change = read(oracle, codes, part, S, covariates, **options).astype(np.float64) - before[part.row]
        change = change.reshape(-1, repeats, change.shape[1])
        means.append(change.mean(axis=1))
        errors.append(standard_error(change))
    return np.concatenate(means), np.concatenate(errors)


def removal_table(oracle: Oracle, codes: UInt8[ndarray, "B L"], keys: pd.DataFrame, region: Shaped[ndarray, " n"],
                  edits: Edits, repeats: int, S: Tensor | None = None, covariates: Tensor | None = None,
                  **options: Any) -> pd.DataFrame:
    """What is lost by edits that are repeated for each row of `keys`, which changes the sequence `region`.

    Returns
    -------
    DataFrame
        The columns of `keys`, ``track, before, after, effect`` = before − after, ``se`` and ``relative``.
    """
    quiet = {k: v for k, v in options.items() if k != "progress"}
    wild = read(oracle, codes, None, S, covariates, **quiet).astype(np.float64)
    change, error = read_repeats(oracle, codes, wild, edits, repeats, S, covariates, **options)
    before = wild[region]
    return tabulate(keys, before=before, after=before + change, effect=-change, se=error,
                    relative=relative(-change, before))


def standard_error(y: Float[ndarray, "n R T"]) -> Float[ndarray, "n T"]:
    """Standard error of the mean over repeats; NaN of a single one."""
    n, repeats, n_tracks = y.shape
    return np.full((n, n_tracks), np.nan) if repeats < 2 else y.std(axis=1, ddof=1) / np.sqrt(repeats)


def t_test(mean: Float[ndarray, "*shape"], error: Float[ndarray, "*shape"], n: int) -> Float[ndarray, "*shape"]:
    """Two-sided p-value of a mean of `n` differences being zero, by Student's t.

    Differences that are all the same have no error: p is 1 where they are zero, else 0.
    """
    if n < 2:
        return np.full_like(mean, np.nan)
    exact = error == 0
    p = 2 * student.sf(np.abs(mean) / np.where(exact, 1, error), n - 1)
    return np.where(exact, (mean == 0).astype(float), p)


def tabulate(keys: pd.DataFrame | Mapping[str, Any], **values: Shaped[ndarray, "n T"]) -> pd.DataFrame:
    """Long table: the columns of `keys` (`n` rows), ``track``, and one column for each array of values."""
    keys = pd.DataFrame(keys).reset_index(drop=True)
    n, n_tracks = next(iter(values.values())).shape
    table = keys.drop(columns=[c for c in ("track", *values) if c in keys]).iloc[np.repeat(np.arange(n), n_tracks)]
    table = table.reset_index(drop=True)
    return table.assign(track=np.tile(np.arange(n_tracks), n), **{name: v.reshape(-1) for name, v in values.items()})


def relative(effect: Float[ndarray, "n T"], to: Float[ndarray, "n T"]) -> Float[ndarray, "n T"]:
    """Effect as a share of an output; NaN where that is 0."""
    return np.divide(effect, to, out=np.full(np.shape(effect), np.nan), where=to != 0)


def padded_edits(codes: UInt8[ndarray, "B L"], row: list[int], start: list[int], bases: list[ndarray]) -> Edits:
    """Edits out of pieces of any lengths: shorter ones are made up with the bases that stand beside them anyway."""
    width, length = max(map(len, bases), default=0), codes.shape[1]
    first = np.minimum(start, length - width).astype(np.int64)
    rows = np.asarray(row, dtype=np.int64)
    full = codes[rows[:, None], first[:, None] + np.arange(width)] if len(rows) else np.zeros((0, width), np.uint8)
    for i, piece in enumerate(bases):
        at = start[i] - first[i]
        full[i, at:at + len(piece)] = piece
    return Edits(rows, first, full)


def shuffles(X: Sequences, n: int, *, seed: int | None = 0) -> UInt8[ndarray, "B n L"]:
    """Dinucleotide shuffles of each sequence: backgrounds that have its composition and none of its sites.

    The shuffles of a row depend on its bases, its place in the batch and the seed, not on the other rows.
    """
    codes = codes_of(X)
    seeds = row_seeds(len(codes), seed)
    made = [dinucleotide_shuffle(c, n, seed=s) for c, s in zip(codes, seeds, strict=True)]
    return np.array(made, dtype=np.uint8).reshape(len(codes), n, codes.shape[1])


def row_seeds(n: int, seed: int | None) -> list[int]:
    """Seed of each row, the same for any number of rows after it."""
    return np.random.default_rng(seed).integers(2**63, size=n).tolist()


def by_region(table: pd.DataFrame) -> Iterator[tuple[int, Int[ndarray, " k"]]]:
    """Every sequence that a table names, and the places of its rows in the table."""
    region = table["region"].to_numpy()
    for r in np.unique(region):
        yield int(r), np.flatnonzero(region == r)


def check_intervals_within(intervals: pd.DataFrame, n_sequences: int, length: int, name: str = "intervals") -> None:
    """Raise SchemaError unless a table ``region, start, end`` lies within its sequences."""
    missing = [c for c in ("region", "start", "end") if c not in intervals]
    if missing:
        raise SchemaError(f"{name} need the columns region (row of X), start, end (within the sequence); missing: "
                          f"{', '.join(missing)}; got: {', '.join(map(str, intervals.columns))}")
    for column in ("region", "start", "end"):
        if not pd.api.types.is_integer_dtype(intervals[column]):
            raise SchemaError(f"column {column} of {name} must be whole numbers; got dtype {intervals[column].dtype}")
    region, start, end = (intervals[c].to_numpy() for c in ("region", "start", "end"))
    for bad, fault in (((region < 0) | (region >= n_sequences), f"name a sequence that is not among {n_sequences}"),
                       (start >= end, "are empty"),
                       ((start < 0) | (end > length), f"leave their sequence of {length:,} bp")):
        if bad.any():
            i = int(bad.argmax())
            raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} {name} {fault}; first: row {i}, sequence "
                              f"{region[i]}, {start[i]}-{end[i]}")


def check_span(span: tuple[int, int], length: int, name: str) -> None:
    """Raise SchemaError unless `span` is a half-open interval within a sequence."""
    start, end = span
    if not 0 <= start < end <= length:
        raise SchemaError(f"{name} is an interval (start, end) within the sequence of {length:,} bp; got {start}-{end}")
