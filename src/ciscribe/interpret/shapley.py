"""What each element of a gene is worth when elements act together: Shapley values.

Erasing one element at a time shows nothing where two stand in for each other, and counts twice where both are needed.
The Shapley value of an element is its effect averaged over all orders in which the elements could come; the values of
all elements add up to what they do together.
"""

from collections.abc import Callable
from math import factorial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Shaped, UInt8
from numpy import ndarray
from rich.progress import track
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnknownNameError, UnsupportedError, nearest
from ciscribe.oracle import Oracle
from ciscribe.sequence import N, codes_of, dinucleotide_shuffle

EXACT = 12
"""Most players of which all coalitions (4,096) are asked."""

HIDE = ("keep", "shuffle", "N")
CARDS = {
    "shapley": Card(
        name="shapley", kind="attribution", n_policy="an element of N alone is worth 0 where bases are replaced",
        summary="Share of each regulatory element in what the elements of a gene do together.",
        paper="Shapley 1953, doi:10.1515/9781400881970-018; sampling: Castro, Gómez & Tejada 2009, "
              "doi:10.1016/j.cor.2008.04.004; antithetic: Mitchell et al., JMLR 2022, arXiv:2104.12199",
        differences=("All coalitions are asked up to 12 elements; beyond, permutations are drawn with their reverses.",
                     "The standard error is that of the means of such pairs.")),
}


class Shapley(NamedTuple):
    """Shapley values of a game.

    `values` and `standard_error` are float64 ``(players, T)``; the error is 0 where all coalitions were asked.
    `together` is the worth of all players minus that of none, ``(T,)``: the sum of the values.
    """

    values: ndarray
    standard_error: ndarray
    together: ndarray


def shapley(value: Callable[[Bool[ndarray, "n players"]], ndarray], n_players: int, *, n_permutations: int = 200,
            seed: int = 0, exact: int = EXACT) -> Shapley:
    """Share of each player in what all of them achieve together.

    Parameters
    ----------
    value
        Worth of coalitions: bool ``(n, players)``, true for who takes part, to numbers ``(n, T)`` or ``(n,)``. No
        coalition is asked twice.
    n_players
        Up to `exact` of them the values are exact: all coalitions are asked, at once. Beyond, orders are drawn.
    n_permutations
        Even, at least 4: half are drawn, the others are their reverses. About ``n_permutations * n_players`` questions.
    seed
        Of the permutations.
    exact
        Most players of whom all coalitions are asked.

    Notes
    -----
    Values sum to the worth of all minus that of none, exactly, in both ways.

    References
    ----------
    See `CARDS`.

    Examples
    --------
    Two who achieve something only together share it:

    >>> shapley(lambda who: who.all(axis=1).astype(float), 2).values[:, 0].tolist()
    [0.5, 0.5]
    """
    if n_players < 1:
        raise SchemaError(f"a game has at least 1 player; got {n_players}")
    if n_players <= exact:
        return _exact(value, n_players)
    if n_permutations < 4 or n_permutations % 2:
        raise SchemaError(f"permutations come in pairs, at least 2 of them; got n_permutations={n_permutations}")
    return _sampled(value, n_players, n_permutations // 2, np.random.default_rng(seed))


def _exact(value: Callable[[ndarray], ndarray], n: int) -> Shapley:
    index = np.arange(2**n)
    member = (index[:, None] >> np.arange(n) & 1).astype(bool)
    worth = _worth(value, member)
    size = member.sum(axis=1)
    weight = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    values = np.empty((n, worth.shape[1]))
    for i in range(n):
        without = index[~member[:, i]]
        values[i] = weight[size[without]] @ (worth[without + (1 << i)] - worth[without])
    return Shapley(values, np.zeros_like(values), worth[-1] - worth[0])


def _sampled(value: Callable[[ndarray], ndarray], n: int, n_pairs: int, rng: np.random.Generator) -> Shapley:
    drawn = np.stack([rng.permutation(n) for _ in range(n_pairs)])
    orders = np.stack([drawn, drawn[:, ::-1]], axis=1)  # pairs 2 n: who comes first, second …
    arrives = np.argsort(orders, axis=2)  # when each player comes
    members = arrives[:, :, None, :] < np.arange(n + 1)[:, None]  # pairs 2 n+1 n
    packed, back = np.unique(np.packbits(members.reshape(-1, n), axis=1), axis=0, return_inverse=True)
    worth = _worth(value, np.unpackbits(packed, axis=1, count=n).astype(bool))[back.ravel()]
    gains = np.diff(worth.reshape(n_pairs, 2, n + 1, -1), axis=2)
    pairs = np.take_along_axis(gains, arrives[..., None], axis=2).mean(axis=1)  # pairs n T
    ends = worth.reshape(n_pairs, 2, n + 1, -1)[0, 0]
    return Shapley(pairs.mean(axis=0), pairs.std(axis=0, ddof=1) / np.sqrt(n_pairs), ends[-1] - ends[0])


def _worth(value: Callable[[ndarray], ndarray], members: ndarray) -> ndarray:
    worth = np.asarray(value(members), dtype=np.float64)
    worth = worth[:, None] if worth.ndim == 1 else worth
    if worth.ndim != 2 or len(worth) != len(members) or not np.isfinite(worth).all():
        raise SchemaError(f"the worth of {len(members)} coalitions is finite numbers ({len(members)}, T); got shape "
                          f"{worth.shape}{'' if np.isfinite(worth).all() else ' with NaN or infinite ones'}")
    return worth


def element_shapley(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], elements: pd.DataFrame,
                    S: Tensor | None = None, covariates: Tensor | None = None, *, hide: str | None = None,
                    resolution: int | None = None, n_shuffles: int = 10, n_permutations: int = 200,
                    batch_size: int = 64, seed: int = 0, progress: bool = False) -> pd.DataFrame:
    """Share of each regulatory element of a gene in what its elements do to the prediction together.

    Parameters
    ----------
    oracle, X, S, covariates
        Model and inputs, one row a gene window.
    elements
        One row an element: ``region`` (row of `X`), ``start, end`` in bp within the window as the model reads it,
        0-based half-open; other columns are kept. What lies in several elements is hidden when one of them is.
    hide
        How an element is taken out: ``"keep"`` erases its bins from the mask, signals included (models with a mask);
        ``"shuffle"`` replaces its bases by dinucleotide shuffles of them, mean over `n_shuffles`; ``"N"`` replaces them
        by N. Replacing bases leaves the signals as they are. None: ``"keep"`` for models with a mask, else
        ``"shuffle"``.
    resolution
        bp a bin of the mask; needed to keep. Bins that an element touches count as its own.
    n_shuffles
        Shuffles of each element.
    n_permutations
        For genes with more than `EXACT` elements; see `shapley`.
    batch_size
        Rows a forward pass.
    seed
        Of shuffles and permutations.
    progress
        Show a bar.

    Returns
    -------
    DataFrame
        One row an element and target, in the order of `elements`: its columns, then ``track``, ``shapley`` in units of
        the readout (positive: the element raises the output) and ``standard_error`` (0 where exact). The values of a
        gene sum to its prediction minus that with all of its elements hidden.

    Raises
    ------
    SchemaError
        When an element leaves its window, or `resolution` is missing or does not divide the window.
    UnsupportedError
        When the mask of a model without one is to be used.

    References
    ----------
    See `CARDS`.
    """
    codes = codes_of(X)
    hide = hide or ("keep" if oracle.has_mask else "shuffle")
    _check(oracle, codes, elements, hide, resolution)
    region, start, end = (elements[name].to_numpy(np.int64) for name in ("region", "start", "end"))
    parts: dict[int, Shapley] = {}
    for row in track(np.unique(region).tolist(), description="elements", disable=not progress):
        own = np.flatnonzero(region == row)

        def ask(rows: Tensor, keep: Tensor | None = None, row: int = row) -> ndarray:
            given = [None if v is None else v[row:row + 1].expand(len(rows), *v.shape[1:]) for v in (S, covariates)]
            return oracle.predict(rows, *given, keep=keep, batch_size=batch_size).numpy()

        window = _Window(codes[row], start[own], end[own], ask)
        if hide == "keep":
            value = window.masked(resolution or 1)
        else:
            value = window.replaced(hide, n_shuffles, seed)
        parts[row] = shapley(value, len(own), n_permutations=n_permutations, seed=seed)
    n_targets = next(iter(parts.values())).values.shape[1] if parts else 0
    values, errors = np.empty((2, len(elements), n_targets))
    for row, found in parts.items():
        values[region == row], errors[region == row] = found.values, found.standard_error
    long = elements.iloc[np.repeat(np.arange(len(elements)), n_targets)].reset_index(drop=True)
    return long.assign(track=np.tile(np.arange(n_targets), len(elements)), shapley=values.ravel(),
                       standard_error=errors.ravel())


class _Window(NamedTuple):
    """One gene window with its elements, and how to have changed copies of it predicted."""

    codes: ndarray
    start: ndarray
    end: ndarray
    ask: Callable[..., ndarray]

    def masked(self, resolution: int) -> Callable[[ndarray], ndarray]:
        """Worth of coalitions when the bins of everybody else are erased from the mask."""
        edge = np.arange(0, len(self.codes), resolution)
        bins = (edge < self.end[:, None]) & (edge + resolution > self.start[:, None])  # players bins

        def value(who: ndarray) -> ndarray:
            keep = ~((~who).astype(np.float32) @ bins.astype(np.float32) > 0)
            return self.ask(torch.from_numpy(self.codes).expand(len(who), -1), torch.from_numpy(keep).float())
        return value

    def replaced(self, hide: str, n: int, seed: int) -> Callable[[ndarray], ndarray]:
        """Worth of coalitions when the bases of everybody else are replaced."""
        n = n if hide == "shuffle" else 1
        fills = [dinucleotide_shuffle(self.codes[s:e], n, seed=seed) if hide == "shuffle"
                 else np.full((1, e - s), N, np.uint8) for s, e in zip(self.start, self.end, strict=True)]

        def value(who: ndarray) -> ndarray:
            total = 0.0
            for i in range(n):
                rows = np.repeat(self.codes[None], len(who), axis=0)
                for absent, s, e, fill in zip((~who).T, self.start, self.end, fills, strict=True):
                    rows[absent, s:e] = fill[i]
                total = total + self.ask(torch.from_numpy(rows)).astype(np.float64) / n
            return np.asarray(total)
        return value


def _check(oracle: Oracle, codes: UInt8[ndarray, "B L"], elements: pd.DataFrame, hide: str,
           resolution: int | None) -> None:
    """Raise unless the elements can be hidden in this way."""
    if hide not in HIDE:
        raise UnknownNameError(f"elements are not hidden by {hide!r}; {nearest(hide, HIDE)}")
    missing = [c for c in ("region", "start", "end") if c not in elements.columns]
    if missing:
        raise SchemaError(f"elements need the columns region, start, end; missing: {', '.join(missing)}")
    n, length = codes.shape
    bad = (~elements["region"].isin(range(n)) | (elements["start"] < 0) | (elements["end"] > length)
           | (elements["start"] >= elements["end"])).to_numpy()
    if bad.any():
        first = elements.iloc[int(bad.argmax())]
        raise SchemaError(f"{int(bad.sum()):,} of {len(elements):,} elements are not an interval in one of the {n} "
                          f"windows of {length:,} bp; first: row {int(bad.argmax())}, region {first['region']}, "
                          f"{first['start']}-{first['end']}")
    if hide != "keep":
        return
    if not oracle.has_mask:
        raise UnsupportedError(f"{type(oracle.model).__name__} has no mask to erase elements from; use hide='shuffle' "
                               "or hide='N'")
    if resolution is None or resolution < 1 or length % resolution:
        raise SchemaError("to erase elements from the mask, give the resolution of its bins, which divides the window "
                          f"of {length:,} bp; got {resolution}")
