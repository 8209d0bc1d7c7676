"""Several aims at once: designs none of which is beaten by another in all of them (a Pareto front).

A designer climbs a single number. It is run once for each of several weights of the aims, and of all that it found the
front is kept.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from ciscribe.design.designer import Proposal
from ciscribe.design.designs import Designs, score_proposal
from ciscribe.design.runner import design, read_starts
from ciscribe.design.score import Combined, Objective, Parts
from ciscribe.errors import ConfigError


class Pareto(Combined):
    """Several aims of which none is traded for another; a designer climbs their weighted mean.

    `design` takes it with its weights as they are; `design_front` goes through many weights and keeps the front.

    Parameters
    ----------
    *objectives
        Aims, two or more; each higher is better.
    weights
        Of the mean; equal unless given.
    name
        Label within other objectives.
    """

    def __init__(self, *objectives: Objective, weights: Sequence[float] | None = None, name: str = ""):
        if len(objectives) < 2:
            raise ConfigError(f"Pareto needs two or more objectives; got {len(objectives)}")
        super().__init__(objectives, name)
        share = np.ones(len(objectives)) if weights is None else np.asarray(weights, dtype=float)
        if len(share) != len(objectives) or not (share >= 0).all() or not share.sum() > 0:
            raise ConfigError(f"{len(objectives)} objectives need as many weights, 0 or more and not all 0; got "
                              f"{weights}")
        self.weights = tuple((share / share.sum()).tolist())

    def values(self, parts: Parts) -> Float[Tensor, "N K"]:
        """Score of each aim."""
        return self.scores(parts).T

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the weighted mean."""
        scores = self.scores(parts)
        return scores.new_tensor(self.weights) @ scores


def design_front(objective: Pareto, start: Any = None, method: Any = "greedy", *, n_weights: int = 5, n: int = 64,
                 budget: int = 50_000, judge: Objective | None = None, seed: int = 0, **settings: Any) -> Designs:
    """Design a front: sequences none of which is beaten by another in all aims.

    The designer is run once for each of `n_weights` weights with an equal share of the budget. Two aims: weights from
    all for the first to all for the second; more: each aim alone, all equally, then weights drawn evenly. Bring aims to
    like units before (``2 * Maximize(a)``). Weighted means reach the convex part of a front; in its hollows are only
    designs that a run passed on its way.

    Parameters
    ----------
    objective
        The aims. Its own weights order what is equal, and are those of `Designs.score`.
    start, method, judge, **settings
        As in `ciscribe.design.runner.design`.
    n_weights
        Runs, one an aim at least.
    n
        Designs that are wanted, first the front, then the front without it, and so on; of one front the loneliest.
    budget
        Most model calls of all runs together.
    seed
        The same seed makes the same designs.

    Returns
    -------
    Designs
        Best fronts first; ``components`` has the column ``front`` (0 is the best); ``history`` the column ``run``.
        ``attrs["weights"]`` holds the weights of each run.

    Raises
    ------
    ConfigError
        For fewer runs than aims, or a share of the budget that does not pay for a run.

    References
    ----------
    Weighted sums: Das & Dennis, Structural Optimization 1997, doi:10.1007/BF01197559 (and their limits); sorting and
    crowding: Deb et al., IEEE Trans Evol Comput 2002, doi:10.1109/4235.996017.
    """
    aims = len(objective.objectives)
    if n_weights < aims:
        raise ConfigError(f"a front of {aims} aims needs n_weights of {aims} or more; got {n_weights}")
    starts = None if start is None else read_starts(start)
    last = 0 if starts is None else len(starts) * objective.n_calls  # the starts once more, by the weights given
    weights, runs = _weights(aims, n_weights, seed), list[Designs]()
    for i, share in enumerate(weights):
        one = Pareto(*objective.objectives, weights=share.tolist(), name=objective.name)
        runs.append(design(one, starts, method, n=n, budget=(budget - last) // n_weights, judge=judge, seed=seed + i,
                           **settings))
        if runs[-1].attrs["stopped"] == "interrupted":
            break
    paid = np.cumsum([0, *(run.queries for run in runs)])
    table = pd.concat([run.components for run in runs], ignore_index=True)
    parts = {name: torch.from_numpy(table[name].to_numpy()) for name in table}
    values, score = objective.values(parts).numpy(), objective.combine(parts).numpy()
    codes, origin = np.concatenate([run.codes for run in runs]), np.concatenate([run.origin for run in runs])
    kept = np.sort(np.unique(np.column_stack([origin, codes]), axis=0, return_index=True)[1])
    rank = front(values[kept])
    order = np.lexsort((-score[kept], -crowding(values[kept], rank), rank))[:n]
    rows = kept[order]

    def together(name: str) -> Any:
        each = [getattr(run, name) for run in runs]
        return None if each[0] is None else np.concatenate(each)[rows]

    start_score = None
    if starts is not None:
        with objective.evaluating():
            start_score = score_proposal(objective, Proposal(starts, np.arange(len(starts))), 256)
    found_at = np.concatenate([run.found_at + spent for run, spent in zip(runs, paid, strict=False)])[rows]
    history = pd.concat([run.history.assign(queries=run.history["queries"] + spent, run=i)
                         for i, (run, spent) in enumerate(zip(runs, paid, strict=False))], ignore_index=True)
    first = runs[0]
    return replace(first, codes=codes[rows], score=score[rows], origin=origin[rows], edits=together("edits"),
                   components=table.iloc[rows].reset_index(drop=True).assign(front=rank[order]), found_at=found_at,
                   history=history, judge_score=together("judge_score"), queries=int(paid[-1]) + last, seed=seed,
                   seconds=sum(run.seconds for run in runs), start_score=start_score,
                   attrs=first.attrs | {"budget": budget, "stopped": runs[-1].attrs["stopped"],
                                        "weights": weights[:len(runs)].tolist(),
                                        "judge_queries": sum(run.attrs["judge_queries"] for run in runs)})


def _weights(aims: int, n: int, seed: int) -> Float[ndarray, "n K"]:
    """Weights of each run; the aims alone among them."""
    if aims == 2:
        second = np.linspace(0, 1, n)
        return np.column_stack([1 - second, second])
    even = np.full((1, aims), 1 / aims)
    drawn = np.random.default_rng(seed).dirichlet(np.ones(aims), max(0, n - aims - 1))
    return np.concatenate([np.eye(aims), even, drawn])[:n]


def front(values: Float[ndarray, "N K"]) -> Int[ndarray, " N"]:
    """Non-dominated sorting: 0 for rows that no other beats in all aims (and one strictly), 1 without those, and so on.

    Parameters
    ----------
    values
        Scores of the aims, higher is better. Equal rows do not beat each other.

    References
    ----------
    Deb et al., IEEE Trans Evol Comput 2002, doi:10.1109/4235.996017 (NSGA-II).
    """
    beats, better = np.ones((len(values),) * 2, bool), np.zeros((len(values),) * 2, bool)
    for column in values.T:
        beats &= column[:, None] >= column
        better |= column[:, None] > column
    beats &= better
    n_better = beats.sum(axis=0)
    rank = np.full(len(values), -1, dtype=np.int64)
    level = 0
    while (best := (n_better == 0) & (rank < 0)).any():
        rank[best] = level
        n_better -= beats[best].sum(axis=0)
        level += 1
    return rank


def crowding(values: Float[ndarray, "N K"], rank: Int[ndarray, " N"]) -> Float[ndarray, " N"]:
    """How alone each row is on its front: distance between its neighbours, summed over aims in units of their range.

    Infinite at the ends of a front. The best `n` are the first of ``np.lexsort((-crowding, front))``.

    References
    ----------
    Deb et al., IEEE Trans Evol Comput 2002, doi:10.1109/4235.996017 (NSGA-II).
    """
    out = np.zeros(len(values))
    for level in range(int(rank.max(initial=-1)) + 1):
        rows = np.flatnonzero(rank == level)
        for column in values[rows].T:
            order = np.argsort(column, kind="stable")
            spread = column[order[-1]] - column[order[0]]
            out[rows[order[[0, -1]]]] = np.inf
            if len(rows) > 2 and spread > 0:
                out[rows[order[1:-1]]] += (column[order[2:]] - column[order[:-2]]) / spread
    return out
