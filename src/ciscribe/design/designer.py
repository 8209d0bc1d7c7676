"""What a designer is: it proposes sequences and learns from their scores, and knows nothing of budgets and archives.

`ciscribe.design.runner.design` owns everything else: which proposals are new and allowed, what they cost, what is kept.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from ciscribe.card import Card
from ciscribe.design.constraints import Constraints
from ciscribe.perturb.edits import Edits, apply_edits


class Proposal(NamedTuple):
    """Sequences to be scored.

    Parameters
    ----------
    codes
        uint8 ``(n, L)``, A C G T = 0..3.
    origin
        Which of the starts each comes from, int64 ``(n,)``; 0 where there are none.
    """

    codes: UInt8[ndarray, "n L"]
    origin: Int[ndarray, " n"]

    def part(self, rows: slice | ndarray) -> "Proposal":
        """Some of the sequences."""
        return Proposal(self.codes[rows], self.origin[rows])


class Neighbors(Proposal):
    """Sequences that are each a small change of one of a few others, and remember which.

    `ciscribe.design.score.Objective.score_edits` computes only what the edits can reach.
    """

    parents: UInt8[ndarray, "P L"]
    edits: Edits

    @classmethod
    def of(cls, parents: UInt8[ndarray, "P L"], origin: Int[ndarray, " P"], edits: Edits) -> "Neighbors":
        """Write out the edited sequences; `origin` is that of the parents."""
        made = cls(apply_edits(parents, edits), origin[edits.row])
        made.parents, made.edits = parents, edits
        return made

    def part(self, rows: slice | ndarray) -> "Neighbors":
        """Some of the sequences."""
        made = Neighbors(self.codes[rows], self.origin[rows])
        made.parents, made.edits = self.parents, Edits._make(field[rows] for field in self.edits)
        return made


@dataclass(frozen=True, eq=False)
class Problem:
    """What a designer is told.

    Parameters
    ----------
    starts
        Sequences to improve, uint8 ``(S, L)``, allowed by the constraints; None where designs are made from nothing.
    start_score
        Their scores ``(S,)``, paid for already; None without starts.
    length
        Of all sequences, bp.
    constraints
        What is allowed. `Constraints.moves`, `project` and `sample` let a designer stay inside from the first base on;
        the runner refuses (and counts) what is not.
    n
        Designs that are wanted in the end.
    budget
        Sequences that can be scored, in all.
    rng
        The only source of chance.
    ask
        For designers that follow gradients: relaxed or one-hot sequences ``(B, 4, L)`` → scores ``(B,)`` that carry
        gradients. Each costs as much as two sequences (forward and backward). None where the objective has no gradient.
    """

    starts: UInt8[ndarray, "S L"] | None
    start_score: Float[ndarray, " S"] | None
    length: int
    constraints: Constraints
    n: int
    budget: int
    rng: np.random.Generator
    ask: Callable[[Float[Tensor, "B 4 L"]], Float[Tensor, " B"]] | None = None


class Designer(ABC):
    """Proposes sequences and learns from their scores; made anew for every run.

    The runner calls `start` once, then `propose` and `observe` in turn. A proposal that was scored before costs
    nothing and comes back with its score; one that is not allowed comes back with −infinity.
    """

    card: ClassVar[Card]
    """What it is, who published it, and what is different here."""
    needs_gradient: ClassVar[bool] = False
    """Whether it cannot do without `Problem.ask`; the runner refuses objectives that have no gradient."""

    @abstractmethod
    def start(self, problem: Problem) -> None:
        """Take the problem; all state begins here."""

    @abstractmethod
    def propose(self, n: int) -> Proposal:
        """At most `n` sequences, which is what can be paid for; none ends the run."""

    @abstractmethod
    def observe(self, proposal: Proposal, score: Float[ndarray, " n"]) -> None:
        """Learn what the proposed sequences score, in their order; higher is better, −infinity was not allowed."""
