"""Design by drawing from a generator: it writes allowed sequences of the wanted activity, and the best are kept."""

from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.design.designer import Designer, Problem, Proposal
from ciscribe.design.generators.base import Generator

_MOST_ROUNDS = 10  # draws in a row that may bring nothing new


class Sample(Designer):
    """Draws from a fitted generator until the budget is spent; nothing is learned from the scores.

    With starts, each draw belongs to one of them in turn, and the constraints that are bound to it hold (kept
    positions, most edits).

    Parameters
    ----------
    generator
        Fitted.
    y, fixed
        Wanted activity and given bases, as in `Generator.sample`; the same for all draws.
    **options
        Of the generator's `draw`: temperature, steps, guidance …

    References
    ----------
    Lal et al. (regLM), Genome Research 2024, doi:10.1101/gr.279142.124: sample, then filter by an oracle.
    """

    card: ClassVar[Card] = Card(
        name="sample", kind="designer",
        summary="Draws sequences of the wanted activity from a generator and keeps those that score best.",
        paper="Lal et al., Genome Research 2024, doi:10.1101/gr.279142.124 (regLM)",
        differences=("Any generator, not only a language model.",
                     "Every drawn sequence is allowed by the constraints, so that none is filtered for that.",
                     "Sequences that were proposed before are not proposed again; ten draws without a new one end it."),
    )

    def __init__(self, generator: Generator, *, y: Shaped[ndarray, "..."] | float | None = None,
                 fixed: UInt8[ndarray, " L"] | None = None, **options: Any):
        self.generator, self.y, self.fixed, self.options = generator, y, fixed, options

    def start(self, problem: Problem) -> None:
        """Take the problem.

        Raises
        ------
        ConfigError
            When the generator draws sequences of another length.
        """
        self.generator.check_writes(problem.length)
        self.problem = problem
        self.n_starts = 1 if problem.starts is None else len(problem.starts)
        self.turn, self.seen = 0, set[bytes]()

    def propose(self, n: int) -> Proposal:
        """Up to `n` sequences that were not proposed before."""
        found: list[tuple[ndarray, int]] = []
        fruitless = 0
        while len(found) < n and fruitless < _MOST_ROUNDS:
            missing = n - len(found)
            origin = (self.turn + np.arange(missing)) % self.n_starts
            self.turn = int(origin[-1]) + 1
            codes = self.generator.sample(missing, y=self.y, fixed=self.fixed, constraints=self.problem.constraints,
                                          origin=None if self.problem.starts is None else origin,
                                          seed=int(self.problem.rng.integers(2**31)), **self.options)
            fruitless += 1
            for row, start in zip(codes, origin, strict=True):
                if (key := row.tobytes()) not in self.seen:
                    self.seen.add(key)
                    found.append((row, int(start)))
                    fruitless = 0
        codes = np.array([row for row, _ in found], dtype=np.uint8).reshape(-1, self.problem.length)
        return Proposal(codes, np.array([start for _, start in found], dtype=np.int64))

    def observe(self, proposal: Proposal, score: Float[ndarray, " n"]) -> None:
        """Scores change nothing."""
