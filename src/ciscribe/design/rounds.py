"""Designers that work in rounds: a search written as one loop, and the steps that never leave the constraints."""

from abc import abstractmethod
from collections.abc import Generator

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from ciscribe.design.constraints import Constraints
from ciscribe.design.designer import Designer, Problem, Proposal
from ciscribe.sequence import one_hot

Search = Generator[Proposal, ndarray, None]
"""A loop that yields sequences and is sent their scores; where it ends, the run ends."""


class RoundDesigner(Designer):
    """Asks the scores of a whole round of sequences before it goes on.

    A subclass writes its `search` as if a round were scored at once; one that is larger than what the runner takes is
    handed out in pieces.
    """

    @abstractmethod
    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""

    def start(self, problem: Problem) -> None:
        """Take the problem; all state begins here."""
        self.most = 1  # sequences that the runner takes at a time
        self._search = self._pieces(problem)
        self._answer: ndarray | None = None

    def _pieces(self, problem: Problem) -> Search:
        search, score = self.search(problem), None
        while True:
            try:
                whole = next(search) if score is None else search.send(score)
            except StopIteration:
                return
            scores, i = [np.empty(0)], 0
            while i < len(whole.codes):
                piece = slice(i, i + self.most)
                i = piece.stop
                scores.append((yield whole.part(piece)))
            score = np.concatenate(scores)

    def propose(self, n: int) -> Proposal:
        """At most `n` sequences; none ends the run."""
        self.most = n
        try:
            proposal = next(self._search) if self._answer is None else self._search.send(self._answer)
        except StopIteration:
            proposal = Proposal(np.empty((0, 0), np.uint8), np.empty(0, np.int64))
        return proposal

    def observe(self, proposal: Proposal, score: Float[ndarray, " n"]) -> None:
        """Learn what the proposed sequences score, in their order."""
        self._answer = np.asarray(score, float)


def opening(problem: Problem, n: int) -> Generator[Proposal, ndarray, tuple[ndarray, ndarray, ndarray]]:
    """Codes ``(n, L)``, origin and score of the first generation.

    The starts, each about equally often and once at least, which are paid for already; without any, `n` random
    sequences that are allowed.
    """
    if problem.starts is not None and problem.start_score is not None:
        origin = np.arange(max(n, len(problem.starts))) % len(problem.starts)
        return problem.starts[origin], origin, np.asarray(problem.start_score, float)[origin]
    codes, origin = problem.constraints.random(n, problem.rng), np.zeros(n, np.int64)
    return codes, origin, (yield Proposal(codes, origin))


def mutate(codes: UInt8[ndarray, "n L"], origin: Int[ndarray, " n"], counts: Int[ndarray, " n"],
           constraints: Constraints, rng: np.random.Generator) -> UInt8[ndarray, "n L"]:
    """Substitute `counts` bases of each sequence, each at another position.

    Without constraints every position is equally probable, and every one of the twelve changes of a base. What would
    not be allowed is drawn again, one allowed substitution at a time; where none is left a sequence gets fewer.
    """
    chosen = rng.random(codes.shape).argsort(axis=1).argsort(axis=1) < counts[:, None]
    made = np.where(chosen, (codes + rng.integers(1, 4, codes.shape, dtype=np.uint8)) % 4, codes)
    bad = np.flatnonzero(~constraints.ok(made, origin))
    made[bad] = codes[bad]
    untouched = np.ones(codes.shape, bool)
    for step in range(int(counts[bad].max(initial=0))):
        rows = bad[counts[bad] > step]
        allowed = constraints.moves(made[rows], origin[rows]) & untouched[rows, None]
        has_any = allowed.any(axis=(1, 2))
        rows, allowed = rows[has_any], allowed[has_any]
        drawn = (rng.random(allowed.shape) * allowed).reshape(len(rows), 4 * codes.shape[1]).argmax(axis=1)
        base, position = np.divmod(drawn, codes.shape[1])
        made[rows, position], untouched[rows, position] = base, False
    return made


def settle(codes: UInt8[ndarray, "n L"], origin: Int[ndarray, " n"], constraints: Constraints,
           fixed: Bool[ndarray, "n L"] | None = None) -> tuple[UInt8[ndarray, "n L"], Bool[ndarray, " n"]]:
    """The nearest allowed sequence of each, in substitutions, and whether there is one.

    Parameters
    ----------
    codes, origin
        Sequences, and the start that each belongs to.
    constraints
        What is allowed.
    fixed
        Positions that may not change.
    """
    bad = np.flatnonzero(~constraints.ok(codes, origin))
    codes, is_possible = codes.copy(), np.ones(len(codes), bool)
    if len(bad):
        logits = one_hot(codes[bad]).astype(float)
        if fixed is not None:
            logits[(logits == 0) & fixed[bad, None]] = -np.inf
        settled, score = constraints.project(logits, origin[bad])
        is_possible[bad] = np.isfinite(score)
        codes[bad[is_possible[bad]]] = settled[is_possible[bad]]
    return codes, is_possible


def draw(logits: Float[ndarray, "n 4 L"], origin: Int[ndarray, " n"], constraints: Constraints,
         rng: np.random.Generator) -> UInt8[ndarray, "n L"]:
    """The most probable allowed sequence of each; where the best bases are allowed as they stand, those.

    Of logits to which Gumbel noise was added, it is a random sequence: the exact categorical where everything is
    allowed, else perturb-and-MAP (Papandreou & Yuille, ICCV 2011, doi:10.1109/ICCV.2011.6126242). A projection that
    finds nothing, as may be under rules that no automaton holds, gives way to a random sequence that is allowed.
    """
    codes = logits.argmax(axis=1).astype(np.uint8)
    bad = np.flatnonzero(~constraints.ok(codes, origin))
    if len(bad):
        codes[bad], score = constraints.project(logits[bad], origin[bad])
        if len(lost := bad[~np.isfinite(score)]):
            codes[lost] = constraints.random(len(lost), rng, origin=origin[lost])
    return codes
