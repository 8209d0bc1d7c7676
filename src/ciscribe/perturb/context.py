"""How much of a regulatory element's work depends on where it stands and what stands around it.

Tests on stretches of hundreds of bp, after CREME: `core` is the stretch around a TSS that is kept, `tiles` are the
elements in question, and a *background* is a dinucleotide shuffle of the whole sequence with the core put back.

=================== ===================================================================================
test of the paper   here
=================== ===================================================================================
context dependence  `context_dependence`
context swap        `context_dependence` with ``contexts=``
necessity           `ciscribe.perturb.tiles.ablate` with ``fill="dinucleotide"``
sufficiency         `sufficiency`
distance            `sufficiency` with ``positions=``
multiplicity        `multiplicity`
higher order        `higher_order`
=================== ===================================================================================

Effects are *with − without* what is tested: positive where it raises the output. ``relative`` divides by the
prediction of the unchanged sequence and means something only for outputs that are amounts, such as coverage.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int, UInt8
from numpy import ndarray
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import Edits
from ciscribe.perturb.reading import (
    Sequences,
    by_region,
    check_intervals_within,
    check_span,
    padded_edits,
    read,
    read_repeats,
    relative,
    removal_table,
    row_seeds,
    shuffles,
    tabulate,
)
from ciscribe.sequence import codes_of, dinucleotide_shuffle

Span = tuple[int, int]

CARD = Card(
    name="context_tests", kind="interpretation",
    summary="Keeps, moves, copies or destroys whole regulatory elements of a sequence and asks what that does to the "
            "prediction.",
    paper="Toneyan & Koo 2024, Nat Genet 56:2517, doi:10.1038/s41588-024-01923-3 (CREME)",
    differences=("Every mean over shuffles has a standard error; comparisons with a control are paired by background.",
                 "Context swap, distance and necessity are arguments of the other tests.",
                 "Greedy searches optimize one track and report all.",
                 "Copies of an element do not overlap each other or the core."),
    n_policy="an N is shuffled like a fifth base")


def context_dependence(oracle: Oracle, X: Sequences, core: Span, S: Tensor | None = None,
                       covariates: Tensor | None = None, *, contexts: Sequences | None = None, n_shuffles: int = 10,
                       batch_size: int = 64, seed: int | None = 0) -> pd.DataFrame:
    """How much of a prediction comes from what lies around a core, such as a promoter.

    Everything outside of the core is replaced: by shuffles of the sequence, or, with `contexts`, by what other
    sequences have there (*context swap*).

    Parameters
    ----------
    oracle, X, S, covariates
        The model, codes ``(B, L)`` or one-hot ``(B, 4, L)``, and further inputs, which stay as they are.
    core
        Start and end of what is kept, the same in all sequences.
    contexts
        Sequences ``(C, L)`` whose surroundings each core gets.
    n_shuffles
        Shuffles that are averaged where no contexts are given.
    batch_size
        Sequences a forward pass.
    seed
        Of the shuffles. None draws fresh entropy.

    Returns
    -------
    DataFrame
        One row a sequence (and context) and track: ``region[, context], track, before, after, effect`` = before −
        after (positive: the own surroundings raise the output), ``se`` over shuffles, ``relative`` = effect / before.

    Raises
    ------
    SchemaError
        When the core or the contexts do not fit.

    References
    ----------
    Toneyan & Koo 2024, Nat Genet 56:2517, doi:10.1038/s41588-024-01923-3. Differences: see `CARD`.
    """
    codes = codes_of(X)
    n, length = codes.shape
    check_span(core, length, "core")
    _check_repeats(n_shuffles)
    if contexts is None:
        made, repeats = shuffles(codes, n_shuffles, seed=seed), n_shuffles
        keys = pd.DataFrame({"region": np.arange(n)})
    else:
        others, repeats = codes_of(contexts), 1
        if not len(others) or others.shape[1] != length:
            raise SchemaError(f"contexts are sequences of {length:,} bp; got {others.shape}")
        made = np.repeat(others[None], n, axis=0)
        keys = pd.DataFrame({"region": np.repeat(np.arange(n), len(others)),
                             "context": np.tile(np.arange(len(others)), n)})
    made[:, :, core[0]:core[1]] = codes[:, None, core[0]:core[1]]
    row = np.repeat(np.arange(n), made.shape[1])
    edits = Edits(row, np.zeros(len(row), np.int64), made.reshape(-1, length))
    return removal_table(oracle, codes, keys, keys["region"].to_numpy(), edits, repeats, S, covariates,
                         batch_size=batch_size)


def sufficiency(oracle: Oracle, X: Sequences, core: Span, tiles: pd.DataFrame, S: Tensor | None = None,
                covariates: Tensor | None = None, *,
                positions: Sequence[int] | Int[ndarray, " P"] | range | None = None, n_shuffles: int = 10,
                batch_size: int = 64, seed: int | None = 0) -> pd.DataFrame:
    """What an element does for a core when nothing else is there, where it stands or at other distances.

    Parameters
    ----------
    oracle, X, S, covariates
        The model, codes ``(B, L)`` or one-hot ``(B, 4, L)``, and further inputs, which stay as they are.
    core
        Start and end of what every background keeps, the same in all sequences.
    tiles
        Elements: ``region`` (row of `X`), ``start, end``. Further columns are kept.
    positions
        Where the first base of each element is put (*distance*); None leaves it where it is.
    n_shuffles
        Backgrounds of each sequence.
    batch_size
        Sequences a forward pass.
    seed
        Of the shuffles. None draws fresh entropy.

    Returns
    -------
    DataFrame
        One row an element, position and track: the columns of `tiles`, ``position`` (where the element was put),
        ``track``, ``wild_type`` (the unchanged sequence), ``control`` (mean of backgrounds with the core alone),
        ``with_tile``, ``effect`` = with_tile − control, its ``se`` over backgrounds, ``relative`` = effect / wild_type.

    Raises
    ------
    SchemaError
        When an element would leave the sequence or lie on the core.

    References
    ----------
    Toneyan & Koo 2024, Nat Genet 56:2517, doi:10.1038/s41588-024-01923-3. Differences: see `CARD`.
    """
    codes = codes_of(X)
    check_span(core, codes.shape[1], "core")
    check_intervals_within(tiles, *codes.shape, name="tiles")
    _check_repeats(n_shuffles)
    tiles = tiles.reset_index(drop=True)
    n_places = 1 if positions is None else len(positions)
    keys = tiles.loc[np.repeat(np.arange(len(tiles)), n_places)].reset_index(drop=True)
    if positions is None:
        keys["position"] = keys["start"]
    else:
        keys["position"] = np.tile(np.asarray(positions, dtype=np.int64), len(tiles))
    _check_places(keys["position"].to_numpy(), (keys["end"] - keys["start"]).to_numpy(), codes.shape[1], core)
    wild = read(oracle, codes, None, S, covariates, batch_size=batch_size).astype(np.float64)
    seeds = row_seeds(len(codes), seed)
    control, change, error = (np.zeros((len(keys), wild.shape[1])) for _ in range(3))
    for r, rows in by_region(keys):
        trial = _Trial(oracle, _backgrounds(codes[r], core, n_shuffles, seeds[r]), r, S, covariates, batch_size)
        start, end, at = (keys.loc[rows, c].to_numpy() for c in ("start", "end", "position"))
        candidates = [_Candidate(int(to), np.tile(codes[r, s:e], (n_shuffles, 1)))
                      for s, e, to in zip(start, end, at, strict=True)]
        change[rows], error[rows] = trial.try_all(candidates)
        control[rows] = trial.before.mean(axis=0)
    wild_type = wild[keys["region"].to_numpy()]
    return tabulate(keys, wild_type=wild_type, control=control, with_tile=control + change, effect=change, se=error,
                    relative=relative(change, wild_type))


def multiplicity(oracle: Oracle, X: Sequences, core: Span, tile: Span,
                 positions: Sequence[int] | Int[ndarray, " P"] | range, S: Tensor | None = None,
                 covariates: Tensor | None = None, *, n_copies: int | None = None, goal: str = "raise", track: int = 0,
                 n_shuffles: int = 10, batch_size: int = 64, seed: int | None = 0) -> pd.DataFrame:
    """Whether more copies of an element do more, and when they stop to.

    In backgrounds that hold nothing but the core, one copy after the other is put where it helps most, given the
    copies before it.

    Parameters
    ----------
    oracle, X, core, S, covariates, n_shuffles, batch_size, seed
        See `sufficiency`.
    tile
        Start and end of the element, the same in all sequences.
    positions
        Where the first base of a copy may be put.
    n_copies
        Copies to put in; None: as many as fit. Places that overlap a copy are no longer free, so there may be fewer.
    goal
        Choose the place that raises the output most, or lowers it most (for silencers).
    track
        Target of the readout that the choice is made for.

    Returns
    -------
    DataFrame
        One row a sequence, number of copies and track: ``region, copies, position`` (of the copy that came last),
        ``track, wild_type, control, with_copies, effect`` = with_copies − control, ``se``, ``expected`` (sum of what
        each of these copies does alone in its place: above the effect, copies saturate; below, they help each other),
        ``relative`` = effect / wild_type.

    Raises
    ------
    SchemaError
        When a copy would leave the sequence or lie on the core.

    References
    ----------
    Toneyan & Koo 2024, Nat Genet 56:2517, doi:10.1038/s41588-024-01923-3. Differences: see `CARD`.
    """
    codes = codes_of(X)
    length, (start, end) = codes.shape[1], tile
    check_span(core, length, "core")
    check_span(tile, length, "tile")
    _check_repeats(n_shuffles)
    places = np.unique(np.asarray(positions, dtype=np.int64))
    _check_places(places, np.full(len(places), end - start), length, core)
    wild = read(oracle, codes, None, S, covariates, batch_size=batch_size).astype(np.float64)
    found = []
    for r, row_seed in enumerate(row_seeds(len(codes), seed)):
        trial = _Trial(oracle, _backgrounds(codes[r], core, n_shuffles, row_seed), r, S, covariates, batch_size)
        copy = np.tile(codes[r, start:end], (n_shuffles, 1))
        found += [(r, step, int(places[i]), trial.before.mean(axis=0), *values) for step, i, *values in
                  trial.greedy([_Candidate(int(at), copy) for at in places], n_copies, goal, track)]
    region, copies, position, *values = zip(*found, strict=True) if found else ((),) * 7
    control, change, error, expected = (np.reshape(v, (-1, wild.shape[1])) for v in values)
    wild_type = wild[list(region)]
    return tabulate({"region": region, "copies": copies, "position": position}, wild_type=wild_type, control=control,
                    with_copies=control + change, effect=change, se=error, expected=expected,
                    relative=relative(change, wild_type))


def higher_order(oracle: Oracle, X: Sequences, tiles: pd.DataFrame, S: Tensor | None = None,
                 covariates: Tensor | None = None, *, n_steps: int | None = None, goal: str = "lower", track: int = 0,
                 n_shuffles: int = 10, batch_size: int = 64, seed: int | None = 0) -> pd.DataFrame:
    """Which elements of a sequence act together: one after the other is destroyed, always the one that matters most.

    Parameters
    ----------
    oracle, X, S, covariates, n_shuffles, batch_size, seed
        See `sufficiency`; here the shuffles are those of each element, in its place.
    tiles
        Elements ``region, start, end`` that do not overlap within a sequence.
    n_steps
        Elements to destroy; None: all.
    goal
        Choose the element whose loss lowers the output most, or raises it most (silencers).
    track
        Target of the readout that the choice is made for.

    Returns
    -------
    DataFrame
        One row a sequence, step and track: ``region, step, start, end`` (of the element that went last), ``track,
        before, after, effect`` = before − after of all elements so far, ``se``, ``expected`` (sum of their effects one
        by one), ``interaction`` = effect − expected (positive: elements stand in for each other, so that together they
        matter more than one by one; negative: one without the other does little), ``relative`` = effect / before.

    Raises
    ------
    SchemaError
        When elements leave their sequence or overlap.

    References
    ----------
    Toneyan & Koo 2024, Nat Genet 56:2517, doi:10.1038/s41588-024-01923-3. Differences: see `CARD`.
    """
    codes = codes_of(X)
    check_intervals_within(tiles, *codes.shape, name="tiles")
    _check_repeats(n_shuffles)
    tiles = tiles.sort_values(["region", "start"], ignore_index=True)
    overlaps = (tiles["region"].diff() == 0) & (tiles["start"] < tiles["end"].shift())
    if overlaps.any():
        i = int(overlaps.to_numpy().argmax())
        raise SchemaError(f"{int(overlaps.sum()):,} of {len(tiles):,} tiles overlap the one before; first: sequence "
                          f"{tiles['region'][i]}, {tiles['start'][i]}-{tiles['end'][i]}; merge them")
    seeds = row_seeds(len(codes), seed)
    n_tracks = read(oracle, codes[:1], None, *(None if v is None else v[:1] for v in (S, covariates))).shape[1]
    found = []
    for r, rows in by_region(tiles):
        start, end = (tiles.loc[rows, c].to_numpy() for c in ("start", "end"))
        rng = np.random.default_rng(seeds[r])
        candidates = [_Candidate(int(s), dinucleotide_shuffle(codes[r, s:e], n_shuffles, seed=int(rng.integers(2**63))))
                      for s, e in zip(start, end, strict=True)]
        trial = _Trial(oracle, np.tile(codes[r], (n_shuffles, 1)), r, S, covariates, batch_size)
        found += [(r, step, int(start[i]), int(end[i]), trial.before[0], *values)
                  for step, i, *values in trial.greedy(candidates, n_steps, goal, track)]
    region, step, start, end, *values = zip(*found, strict=True) if found else ((),) * 8
    before, change, error, expected = (np.reshape(v, (-1, n_tracks)) for v in values)
    return tabulate({"region": region, "step": step, "start": start, "end": end}, before=before, after=before + change,
                    effect=-change, se=error, expected=-expected, interaction=expected - change,
                    relative=relative(-change, before))


class _Candidate(NamedTuple):
    """Bases ``(n, w)`` that may be written from `start` on, one row a state."""

    start: int
    bases: ndarray

    def meets(self, other: "_Candidate") -> bool:
        return self.start < other.start + other.bases.shape[1] and other.start < self.start + self.bases.shape[1]


class _Trial:
    """States of one sequence, codes ``(n, L)``, into which candidates are written: each alone, or one on the other."""

    def __init__(self, oracle: Oracle, states: UInt8[ndarray, "n L"], region: int, S: Tensor | None,
                 covariates: Tensor | None, batch_size: int):
        self.oracle, self.states, self.batch_size = oracle, states, batch_size
        self.extras = [None if v is None else v[region:region + 1].expand(len(states), *v.shape[1:])
                       for v in (S, covariates)]
        self.before = read(oracle, states, None, *self.extras, batch_size=batch_size).astype(np.float64)

    def try_all(self, candidates: list[_Candidate]) -> tuple[ndarray, ndarray]:
        """Mean of after − before over states and its standard error, ``(candidates, T)`` each."""
        n = len(self.states)
        edits = padded_edits(self.states, list(range(n)) * len(candidates),
                             [c.start for c in candidates for _ in range(n)],
                             [bases for c in candidates for bases in c.bases])
        return read_repeats(self.oracle, self.states, self.before, edits, n, *self.extras, batch_size=self.batch_size)

    def greedy(self, candidates: list[_Candidate], n_steps: int | None, goal: str, track: int
               ) -> list[tuple[int, int, ndarray, ndarray, ndarray]]:
        """Write candidates one on the other, always the best: (step, which, change, its error, sum of singles)."""
        if goal not in ("raise", "lower"):
            raise SchemaError(f"goal is raise or lower; got {goal!r}")
        if not 0 <= track < self.before.shape[1]:
            raise SchemaError(f"the readout has tracks 0 to {self.before.shape[1] - 1}; got track {track}")
        self.states = self.states.copy()
        free, out = list(range(len(candidates))), []
        alone, expected = np.zeros(0), np.zeros(self.before.shape[1])
        while free and (n_steps is None or len(out) < n_steps):
            change, error = self.try_all([candidates[i] for i in free])
            alone = alone if out else change
            best = int(np.argmax(change[:, track] if goal == "raise" else -change[:, track]))
            chosen = candidates[free[best]]
            expected = expected + alone[free[best]]
            out.append((len(out) + 1, free[best], change[best], error[best], expected))
            self.states[:, chosen.start:chosen.start + chosen.bases.shape[1]] = chosen.bases
            free = [i for i in free if not candidates[i].meets(chosen)]
        return out


def _backgrounds(codes: UInt8[ndarray, " L"], core: Span, n: int, seed: int) -> UInt8[ndarray, "n L"]:
    made = dinucleotide_shuffle(codes, n, seed=seed)
    made[:, core[0]:core[1]] = codes[core[0]:core[1]]
    return made


def _check_repeats(n_shuffles: int) -> None:
    if n_shuffles < 1:
        raise SchemaError(f"at least one shuffle is needed; got n_shuffles={n_shuffles}")


def _check_places(position: Int[ndarray, " n"], width: Int[ndarray, " n"], length: int, core: Span) -> None:
    for bad, fault in (((position < 0) | (position + width > length), f"leave the sequence of {length:,} bp"),
                       ((position < core[1]) & (position + width > core[0]), f"lie on the core {core[0]}-{core[1]}")):
        if bad.any():
            i = int(bad.argmax())
            raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} elements would {fault}; first: {position[i]}-"
                              f"{position[i] + width[i]}")
