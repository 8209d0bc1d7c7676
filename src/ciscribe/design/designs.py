"""What a run of design returns: the designs with all that is known of them, chosen among, and pruned."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.design.archive import spread
from ciscribe.design.constraints import Constraints, Rule
from ciscribe.design.designer import Neighbors, Proposal
from ciscribe.design.score import Objective, check_finite
from ciscribe.errors import ConfigError
from ciscribe.perturb.edits import Edits
from ciscribe.sequence import decode, one_hot_tensor


@dataclass(frozen=True, eq=False)
class Designs:
    """What a run found, best first, and what it took.

    Parameters
    ----------
    codes
        Designs, uint8 ``(n, L)``, A C G T = 0..3.
    score
        Of the objective, ``(n,)``; higher is better. Computed in full, also where the search had a shorter way.
    components
        Each term of the objective, a column each, ``n`` rows.
    origin
        Which of the starts each comes from, int64 ``(n,)``; 0 where there are none.
    edits
        Positions in which each differs from its start, int64 ``(n,)``; None without starts.
    found_at
        Queries that had been paid when each was found, int64 ``(n,)``.
    history
        One row a round: ``queries`` so far, ``best`` and ``mean`` score of the archive (so many designs of every
        start), and how many sequences the round ``proposed``, of which ``infeasible`` and ``repeated``.
    judge_score
        Of the judge, ``(n,)``; None without one.
    card
        Of the designer.
    queries
        Model calls of the whole run: starts, search and the last look at the designs. Those of the judge are apart.
    seconds
        Wall-clock time.
    seed
        Of all chance.
    starts, start_score, judge_start_score
        Sequences that were given, ``(S, L)``, and their scores ``(S,)``; None without.
    flanks
        Constant bases on both sides that the constraints read, too.
    attrs
        What else made it: method, options, budget, ``stopped`` (budget, exhausted, patience, target or interrupted),
        ``judge_queries``, ``repaired`` starts.
    """

    codes: UInt8[ndarray, "n L"]
    score: Float[ndarray, " n"]
    components: pd.DataFrame
    origin: Int[ndarray, " n"]
    edits: Int[ndarray, " n"] | None
    found_at: Int[ndarray, " n"]
    history: pd.DataFrame
    judge_score: Float[ndarray, " n"] | None
    card: Card
    queries: int
    seconds: float
    seed: int
    starts: UInt8[ndarray, "S L"] | None
    start_score: Float[ndarray, " S"] | None
    judge_start_score: Float[ndarray, " S"] | None
    flanks: tuple[str, str]
    attrs: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def gain(self) -> Float[ndarray, " n"] | None:
        """Score of each minus that of its start; None without starts."""
        return None if self.start_score is None else self.score - self.start_score[self.origin]

    def table(self) -> pd.DataFrame:
        """One row a design: sequence, score, components, judge_score, origin, start_score, gain, edits, found_at."""
        columns: dict[str, Any] = {"sequence": [decode(row) for row in self.codes], "score": self.score}
        columns |= {name: self.components[name].to_numpy() for name in self.components if name not in columns}
        if self.judge_score is not None:
            columns["judge_score"] = self.judge_score
        if self.start_score is not None:
            columns |= {"origin": self.origin, "start_score": self.start_score[self.origin], "gain": self.gain,
                        "edits": self.edits}
        return pd.DataFrame(columns | {"found_at": self.found_at})

    def take(self, rows: Int[ndarray, " k"]) -> "Designs":
        """Some of the designs, in that order."""
        def some(values: ndarray | None) -> ndarray | None:
            return None if values is None else values[rows]

        return replace(self, codes=self.codes[rows], score=self.score[rows], origin=self.origin[rows],
                       components=self.components.iloc[rows].reset_index(drop=True), edits=some(self.edits),
                       found_at=self.found_at[rows], judge_score=some(self.judge_score))

    def select(self, n: int, diversity: float = 0.0) -> "Designs":
        """Take the best `n`, any two of which differ in at least that share of their positions."""
        check_diversity(diversity)
        return self.take(spread(self.codes, self.score, n, diversity * self.codes.shape[1]))


def prune(designs: Designs, objective: Objective, constraints: Constraints | Sequence[Rule] = (), *,
          tolerance: float = 0.0, batch_size: int = 256) -> Designs:
    """Take back edits that are not needed, the least costly first, while the score falls by no more than `tolerance`.

    Parameters
    ----------
    designs
        With starts.
    objective, constraints
        Those of the run; a step that would leave the constraints is not taken.
    tolerance
        In the units of the score, for all edits of a design together.
    batch_size
        Sequences a call of the model.

    Returns
    -------
    Designs
        With fewer edits; `queries` grows by what it took. Scores of a judge are dropped: they were of other sequences.

    References
    ----------
    Ledidi's greedy pruning: jmschrei/ledidi@2.2.0. Differences: all designs advance together, the tolerance is for
    the sum of all steps, and constraints hold on the way.
    """
    if designs.starts is None:
        raise ConfigError("pruning takes edits back, and these designs have no starts that they were edited from")
    if not tolerance >= 0:
        raise ConfigError(f"tolerance is what the score may lose, 0 or more; got {tolerance}")
    begun = time.perf_counter()
    rules = compile_rules(constraints, designs.flanks, designs.starts.shape[1], None).bind(designs.starts)
    codes, origin, last = designs.codes.copy(), designs.origin, designs.score.copy()
    going, queries = np.arange(len(codes)), 0
    with objective.evaluating():
        while len(going):
            native = designs.starts[origin[going]]
            row, position = np.nonzero(codes[going] != native)
            edits = Edits(row, position, native[row, position][:, None])
            reverted = Neighbors.of(codes[going], origin[going], edits)
            reverted = reverted.part(np.flatnonzero(rules.ok(reverted.codes, reverted.origin)))
            if not len(reverted.codes):
                break
            values = score_proposal(objective, reverted, batch_size)
            queries += len(values) * objective.n_calls
            order = np.lexsort((-values, reverted.edits.row))
            rows, first = np.unique(reverted.edits.row[order], return_index=True)
            best = order[first]
            fine = values[best] >= designs.score[going[rows]] - tolerance
            going, best = going[rows[fine]], best[fine]
            codes[going], last[going] = reverted.codes[best], values[best]
        parts = objective.components(torch.from_numpy(codes))
        total = objective.combine(parts).detach().cpu().double().numpy()
    queries += len(codes) * objective.n_calls
    table = pd.DataFrame({name: value.detach().cpu().double().numpy() for name, value in parts.items()})
    edited = (codes != designs.starts[origin]).sum(axis=1)
    return replace(designs, codes=codes, score=total, components=table, edits=edited, judge_score=None,
                   queries=designs.queries + queries, seconds=designs.seconds + time.perf_counter() - begun,
                   attrs=designs.attrs | {"pruned": tolerance})


def score_proposal(objective: Objective, proposal: Proposal, batch_size: int) -> Float[ndarray, " n"]:
    """Score sequences; small changes by what they can reach, where the objective can do so."""
    codes = torch.from_numpy(np.ascontiguousarray(proposal.codes))
    with torch.no_grad():
        if isinstance(proposal, Neighbors):
            values = objective.score_edits(proposal.parents, proposal.edits).cpu()
        else:
            values = torch.cat([objective(part).cpu() for part in codes.split(batch_size)])
    if tuple(values.shape) != (len(codes),) or not torch.isfinite(values).all():
        check_finite({"score": values}, one_hot_tensor(codes))
    return values.double().numpy()


def compile_rules(constraints: Constraints | Sequence[Rule], flanks: tuple[str, str], length: int | None,
             told: int | None) -> Constraints:
    """Constraints of that length; `told` is the length that the user gave beside the starts."""
    if length is None:
        raise ConfigError("designs from nothing need a length in bp; give length, or sequences to start from")
    if told is not None and told != length:
        raise ConfigError(f"length is {told} bp and the starts have {length}; leave it out")
    if not isinstance(constraints, Constraints):
        return Constraints(constraints, flanks=flanks, length=length)
    if tuple(flanks) not in (("", ""), constraints.flanks):
        raise ConfigError(f"the constraints were compiled with flanks {constraints.flanks}; got {flanks}; leave them "
                          "out")
    return constraints.sized(length)


def check_diversity(diversity: float) -> None:
    """Raise ConfigError unless it is a share."""
    if not 0 <= diversity <= 1:
        raise ConfigError(f"diversity is a share of positions, 0 to 1; got {diversity}")
