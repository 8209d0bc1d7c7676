"""What is lost when a piece of a sequence is removed, or when pieces change places.

One idea, three choices of the piece: a window that slides over the whole sequence (`tile_deletion`), intervals that
somebody named, such as motif hits or elements (`ablate`), and the order of blocks that stay intact (`block_shuffle`).
All effects are before − after: positive where the piece *raises* the output.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Int, UInt8
from numpy import ndarray
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError, nearest
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import Edits
from ciscribe.perturb.reading import (
    Reading,
    Sequences,
    by_region,
    check_intervals_within,
    padded_edits,
    predict,
    removal_table,
    row_seeds,
)
from ciscribe.sequence import N, codes_of, dinucleotide_shuffle

FILLS = ("shuffle", "dinucleotide", "N", "donor")

CARD = Card(
    name="tile_deletion", kind="attribution",
    summary="Destroys one short window of a sequence after the other and asks how much the prediction falls.",
    paper="windows of 10 bp every 5 bp: de Almeida et al. 2022, Nat Genet 54:613, doi:10.1038/s41588-022-01048-5 "
          "(DeepSTARR)",
    differences=("The window is filled with shuffles of its own bases and the mean of several is taken; N (zeros), to "
                 "which networks that never saw N answer unpredictably, is an option.",
                 "The last window is cut at the end of the sequence instead of left out.",
                 "The score of a base is the mean over the windows that cover it."),
    n_policy="an N is shuffled with the other bases of its window")


class TileDeletion(NamedTuple):
    """Effect of every window, and the score of every base.

    Parameters
    ----------
    windows
        Columns ``region, start, end, track, before, after, effect, se, relative``, see `ablate`.
    scores
        ``(region, position, track)`` float64: mean effect of the windows that cover a base, in units of the readout.
        Its attrs say how the windows were filled.
    """

    windows: pd.DataFrame
    scores: xr.DataArray


def tile_windows(length: int, width: int, stride: int) -> Int[ndarray, "n 2"]:
    """Start and end of windows that cover a sequence; the last one is cut at its end.

    Raises
    ------
    SchemaError
        Unless ``1 <= stride <= width <= length``.

    Examples
    --------
    >>> tile_windows(23, 10, 5).tolist()
    [[0, 10], [5, 15], [10, 20], [15, 23]]
    """
    if not 1 <= width <= length:
        raise SchemaError(f"a tile of {width} bp does not fit into a sequence of {length} bp; choose a width of 1 to "
                          f"{length}")
    if not 1 <= stride <= width:
        raise SchemaError(f"a stride lies between 1 and the width of {width} bp, or bases are left out; got {stride}")
    start = np.arange(0, length - width + stride, stride)
    return np.stack([start, np.minimum(start + width, length)], axis=1)


def tile_deletion(oracle: Oracle, X: Sequences, S: Tensor | None = None, covariates: Tensor | None = None, *,
                  width: int = 10, stride: int = 5, fill: str = "shuffle", n_fills: int = 10,
                  donors: Sequences | None = None, func: Reading = predict, batch_size: int = 64, seed: int | None = 0,
                  progress: bool = False) -> TileDeletion:
    """How much the prediction falls when each short window of a sequence is destroyed.

    The same as `ablate` with a grid of intervals, joined to a score for every base.

    Parameters
    ----------
    oracle, X, S, covariates
        The model, codes ``(B, L)`` or one-hot ``(B, 4, L)``, and further inputs, which stay as they are.
    width, stride
        Size of a window and step to the next, bp; see `tile_windows`.
    fill, n_fills, donors
        What stands in a window instead; see `ablate`.
    func
        What is read, ``(B, T)``; see `ciscribe.perturb.reading`.
    batch_size, progress
        Sequences a forward pass; show a bar.
    seed
        Of the fills. None draws fresh entropy.

    Returns
    -------
    TileDeletion
        Table of windows and array of scores.

    Raises
    ------
    SchemaError
        When a window is wider than the sequence, or windows leave gaps.

    Notes
    -----
    Costs ``B · n_fills · ⌈(L − width) / stride + 1⌉`` predictions of edits.

    References
    ----------
    de Almeida, Reiter, Pagani & Stark 2022, Nat Genet 54:613, doi:10.1038/s41588-022-01048-5. Differences: see `CARD`.
    """
    codes = codes_of(X)
    n, length = codes.shape
    windows = tile_windows(length, width, stride)
    grid = pd.DataFrame({"region": np.repeat(np.arange(n), len(windows)), "start": np.tile(windows[:, 0], n),
                         "end": np.tile(windows[:, 1], n)})
    table = ablate(oracle, codes, grid, S, covariates, fill=fill, n_fills=n_fills, donors=donors, func=func,
                   batch_size=batch_size, seed=seed, progress=progress)
    effect = table["effect"].to_numpy().reshape(n, len(windows), -1)
    total, count = np.zeros((n, length, effect.shape[2])), np.zeros((length, 1))
    for k, (start, end) in enumerate(windows):
        total[:, start:end] += effect[:, k, None]
        count[start:end] += 1
    attrs: dict[str, Any] = {"method": "tile_deletion", "units": str(oracle.readout), "width": width,
                             "stride": stride, "fill": fill}
    attrs |= {} if fill == "N" else {"n_fills": n_fills, "seed": "fresh" if seed is None else seed}
    scores = xr.DataArray(total / count, dims=("region", "position", "track"), attrs=attrs,
                          coords={"region": np.arange(n), "position": np.arange(length),
                                  "track": np.arange(effect.shape[2])})
    return TileDeletion(table, scores)


def ablate(oracle: Oracle, X: Sequences, intervals: pd.DataFrame, S: Tensor | None = None,
           covariates: Tensor | None = None, *, together: bool = False, fill: str = "shuffle", n_fills: int = 10,
           donors: Sequences | None = None, func: Reading = predict, batch_size: int = 64, seed: int | None = 0,
           progress: bool = False) -> pd.DataFrame:
    """How much the prediction falls when chosen pieces, such as motif instances or elements, are destroyed.

    Parameters
    ----------
    oracle, X, S, covariates
        The model, codes ``(B, L)`` or one-hot ``(B, 4, L)``, and further inputs, which stay as they are.
    intervals
        ``region`` (row of `X`), ``start, end`` (within the sequence, 0-based half-open); hits and seqlets are such
        tables. Further columns are kept.
    together
        False: each interval on its own. True: all intervals of a sequence at once; where the sum over single intervals
        is another number, they act together. Where intervals overlap, the later one is written last.
    fill
        What stands in an interval instead. ``"shuffle"``: its own bases in random order. ``"dinucleotide"``: shuffled
        so that pairs of neighbors are kept; only for long intervals, as of 10 random bp it leaves more than half of
        the bases as they are. ``"N"``: nothing, four zeros. ``"donor"``: what stands there in other sequences.
    n_fills
        Number of fills that are averaged; one for ``"N"``.
    donors
        Sequences of the same length for ``"donor"``, at least `n_fills`; each sequence draws its own among them.
    func
        What is read, ``(B, T)``; see `ciscribe.perturb.reading`.
    batch_size, progress
        Sequences a forward pass; show a bar.
    seed
        Of the fills. None draws fresh entropy.

    Returns
    -------
    DataFrame
        One row an interval (or, `together`, one a sequence: ``region, start, end, n_intervals``) and track: the
        columns of `intervals`, then ``track``, ``before``, ``after`` (mean over fills), ``effect`` = before − after,
        ``se`` (its standard error over fills; NaN of a single one) and ``relative`` = effect / before, which means
        something only for outputs that are amounts.

    Raises
    ------
    SchemaError
        When intervals lie outside of their sequences, or donors are missing or do not fit.

    Notes
    -----
    With ``fill="dinucleotide"``, intervals of some hundred bp or more and the column ``relative`` this is the
    *necessity* test of CREME.

    References
    ----------
    Toneyan & Koo 2024, Nat Genet 56:2517, doi:10.1038/s41588-024-01923-3. Differences: any fill; standard errors.
    """
    codes = codes_of(X)
    check_intervals_within(intervals, *codes.shape)
    repeats, fills = _fills(codes, intervals, fill, n_fills, None if donors is None else codes_of(donors), seed)
    if together:
        intervals, fills = _joined(codes, intervals, fills, repeats)
    region, first = intervals["region"].to_numpy(), intervals["start"].to_numpy()
    edits = padded_edits(codes, np.repeat(region, repeats).tolist(), np.repeat(first, repeats).tolist(),
                         [piece for several in fills for piece in several])
    return removal_table(oracle, codes, intervals, region, edits, repeats, S, covariates, func=func,
                         batch_size=batch_size, progress=progress)


def block_shuffle(oracle: Oracle, X: Sequences, S: Tensor | None = None, covariates: Tensor | None = None, *,
                  block: int = 50, n_shuffles: int = 10, func: Reading = predict, batch_size: int = 64,
                  seed: int | None = 0, progress: bool = False) -> pd.DataFrame:
    """How much the prediction depends on the order of pieces that stay intact themselves.

    The sequence is cut into blocks and these change places; no base changes its neighbors but at the cuts. A model
    that counts motifs does not care, one that reads arrangement does. Cuts destroy what they hit, so the grid starts
    elsewhere in each shuffle; small blocks cut more.

    Parameters
    ----------
    oracle, X, S, covariates, func, batch_size, progress
        See `ablate`.
    block
        Size of the blocks, bp, at most half of the sequence; those at the ends may be shorter.
    n_shuffles
        Number of orders that are averaged.
    seed
        Of the cuts and orders. None draws fresh entropy.

    Returns
    -------
    DataFrame
        One row a sequence and track: ``region, track, before, after, effect, se, relative``, as in `ablate`.

    Raises
    ------
    SchemaError
        When there are not two blocks.
    """
    codes = codes_of(X)
    n, length = codes.shape
    if not 1 <= block <= length // 2:
        raise SchemaError(f"blocks that change places hold 1 to {length // 2} of {length} bp; got {block}")
    shuffled = np.stack([_reordered(c, block, n_shuffles, s) for c, s in zip(codes, row_seeds(n, seed), strict=True)])
    region = np.arange(n)
    edits = Edits(np.repeat(region, n_shuffles), np.zeros(n * n_shuffles, np.int64), shuffled.reshape(-1, length))
    return removal_table(oracle, codes, pd.DataFrame({"region": region}), region, edits, n_shuffles, S, covariates,
                         func=func, batch_size=batch_size, progress=progress)


def _fills(codes: UInt8[ndarray, "B L"], intervals: pd.DataFrame, fill: str, n_fills: int, donors: ndarray | None,
           seed: int | None) -> tuple[int, list[UInt8[ndarray, "R _"]]]:
    """What stands in each interval instead, `R` times."""
    if fill not in FILLS:
        raise SchemaError(f"unknown fill {fill!r}; {nearest(fill, FILLS)}")
    if n_fills < 1:
        raise SchemaError(f"at least one fill is needed; got n_fills={n_fills}")
    if (fill == "donor") != (donors is not None):
        raise SchemaError("fill='donor' and donors=... go together: give sequences to take the bases from, or choose "
                          "another fill")
    if donors is not None and (donors.shape[1] != codes.shape[1] or len(donors) < n_fills):
        raise SchemaError(f"donors are at least n_fills={n_fills} sequences of {codes.shape[1]} bp; got {len(donors)} "
                          f"of {donors.shape[1]} bp")
    rngs = [np.random.default_rng(s) for s in row_seeds(len(codes), seed)]
    drawn: Sequence[ndarray] = [rng.permutation(len(donors))[:n_fills] for rng in rngs] if donors is not None else ()
    out = []
    for r, start, end in zip(*(intervals[c] for c in ("region", "start", "end")), strict=True):
        piece = codes[r, start:end]
        if fill == "N":
            out.append(np.full((1, end - start), N, np.uint8))
        elif donors is not None:
            out.append(donors[drawn[r], start:end])
        elif fill == "shuffle":
            out.append(rngs[r].permuted(np.tile(piece, (n_fills, 1)), axis=1))
        else:
            out.append(dinucleotide_shuffle(piece, n_fills, seed=int(rngs[r].integers(2**63))))
    return 1 if fill == "N" else n_fills, out


def _joined(codes: UInt8[ndarray, "B L"], intervals: pd.DataFrame, fills: list[UInt8[ndarray, "R _"]], repeats: int
            ) -> tuple[pd.DataFrame, list[UInt8[ndarray, "R _"]]]:
    """One interval a sequence, from the first to the last, with the fills of all in it."""
    keys, joined = [], []
    for region, rows in by_region(intervals):
        some = intervals.iloc[rows]
        first, last = int(some["start"].min()), int(some["end"].max())
        made = np.repeat(codes[region:region + 1, first:last], repeats, axis=0)
        for i, start in zip(rows, some["start"], strict=True):
            made[:, start - first:start - first + fills[i].shape[1]] = fills[i]
        keys.append((region, first, last, len(rows)))
        joined.append(made)
    return pd.DataFrame(np.array(keys, dtype=np.int64).reshape(-1, 4),
                        columns=pd.Index(["region", "start", "end", "n_intervals"])), joined


def _reordered(codes: UInt8[ndarray, " L"], block: int, n: int, seed: int) -> UInt8[ndarray, "n L"]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        pieces = np.split(codes, np.arange(rng.integers(1, block + 1), len(codes), block))
        out.append(np.concatenate([pieces[i] for i in rng.permutation(len(pieces))]))
    return np.stack(out)
