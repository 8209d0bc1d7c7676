"""In-silico evolution: random screens, greedy steps, strong selection, drift.

All steps are substitutions that `Constraints.moves` allows, so every sequence on the way could be ordered.
"""

from itertools import count
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.design.archive import spread
from ciscribe.design.constraints import Constraints
from ciscribe.design.designer import Neighbors, Problem, Proposal
from ciscribe.design.rounds import RoundDesigner, Search, mutate, opening
from ciscribe.errors import ConfigError
from ciscribe.perturb.edits import Edits

_SCREENED = 2**12  # random sequences a round
_ROUNDS = 10  # that a budget should be enough for, where there are no starts


class Screen(RoundDesigner):
    """Draws random sequences that are allowed; the baseline that everything else has to beat.

    Parameters
    ----------
    gc
        Share of G and C of the random sequences; None takes that of the starts, and 0.5 where there are none.
    """

    card: ClassVar[Card] = Card(
        name="screen", kind="designer",
        summary="Scores random sequences with the base composition of the starts and keeps the best.",
        paper="de Almeida et al., Nat Genet 2022, doi:10.1038/s41588-022-01048-5 (synthetic enhancers)",
        differences=(
            "Random sequences are drawn within the constraints; the publication filters afterwards.",
            "As many as the budget pays for; the publication scored a very large pool.",
        ))

    def __init__(self, *, gc: float | None = None):
        if gc is not None and not 0 < gc < 1:
            raise ConfigError(f"screen: gc is a share of bases between 0 and 1; got {gc}")
        self.gc = gc

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        shares = np.array([0.5]) if problem.starts is None else ((problem.starts == 1) | (problem.starts == 2)
                                                                 ).mean(axis=1)
        shares = np.full(len(shares), self.gc) if self.gc is not None else shares
        n_each = max(1, _SCREENED // len(shares))
        while True:
            for i in range(0, len(shares), _SCREENED):
                starts = np.arange(i, min(i + _SCREENED, len(shares)))
                origin = np.repeat(starts, n_each)
                codes = [problem.constraints.random(n_each, problem.rng, float(shares[start]), origin[origin == start])
                         for start in starts]
                yield Proposal(np.concatenate(codes), origin)


class Greedy(RoundDesigner):
    """Scores every allowed substitution of a sequence, takes the best, and goes on until none is an improvement.

    Each start goes its own way and stops when its own score does not rise any more. With an objective such as
    ``Target`` the best is the closest to the target.

    Parameters
    ----------
    beam
        Best sequences of each start that are carried from round to round; 1 is greedy evolution.
    rounds
        Most substitutions of a start; None goes on to the end.

    Raises
    ------
    ConfigError
        When the budget does not pay for one round of all starts.
    """

    card: ClassVar[Card] = Card(
        name="greedy", kind="designer",
        summary="Takes the best of all single substitutions, round after round, until none is an improvement.",
        paper="Jores et al., Nat Plants 2021, doi:10.1038/s41477-021-00932-y; Vaishnav et al., Nature 2022, "
              "doi:10.1038/s41586-022-04506-6; Taskiran et al., Nature 2024, doi:10.1038/s41586-023-06936-2",
        differences=(
            "A substitution is accepted only if it raises the score; the publications take the best in any case.",
            "Substitutions that break a constraint are never scored; the publications repair designs afterwards.",
            "With beam, the best sequences of a start compete in every round; only new ones are expanded.",
            "Without starts it begins at random sequences, as many as the budget takes ten rounds far.",
        ))

    def __init__(self, *, beam: int = 1, rounds: int | None = None):
        if beam < 1 or (rounds is not None and rounds < 1):
            raise ConfigError(f"greedy: beam and rounds are at least 1; got beam={beam}, rounds={rounds}")
        self.beam, self.rounds = beam, rounds

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        affordable = problem.budget // (_ROUNDS * 3 * problem.length * self.beam)
        codes, origin, score = yield from opening(problem, 1 if problem.starts is not None
                                                  else min(max(affordable, 1), problem.n))
        beams = [(codes[i:i + 1], score[i:i + 1]) for i in range(len(codes))]
        front, line = codes, np.arange(len(codes))  # what is new in the beams, and in whose
        for done in count() if self.rounds is None else range(self.rounds):
            edits = substitutions(problem.constraints, front, origin[line])
            if not done and problem.budget < len(edits.row):
                raise ConfigError(f"a round of greedy evolution scores all {len(edits.row):,} allowed substitutions of "
                                  f"{len(front):,} sequences; the budget pays for {problem.budget:,}; raise it, or "
                                  "give fewer starts")
            if not len(edits.row):
                return
            round_ = Neighbors.of(front, origin[line], edits)
            score = yield round_
            news = []
            order = np.argsort(line[edits.row], kind="stable")
            lines, first = np.unique(line[edits.row[order]], return_index=True)
            for i, mine in zip(lines, np.split(order, first[1:]), strict=True):
                mine = mine[score[mine] > -np.inf]
                kept, kept_score = beams[i]
                pool = np.concatenate([kept, round_.codes[mine]])
                pool_score = np.concatenate([kept_score, score[mine]])
                best = spread(pool, pool_score, self.beam, 1)
                beams[i] = pool[best], pool_score[best]
                news.append((pool[best[best >= len(kept)]], i))
            front = np.concatenate([new for new, _ in news])
            line = np.repeat([i for _, i in news], [len(new) for new, _ in news])


class SSWM(RoundDesigner):
    """Walks uphill as evolution does when mutations are rare and selection is strong: one improvement fixes at a time.

    Parameters
    ----------
    accept
        ``any``: the first improvement, of substitutions tried in random order. ``best``: the greatest of all.
    walks
        Independent walks, shared out among the starts, one each at least; None is one a design that is wanted.
    block
        Substitutions of a walk that are scored together.
    """

    card: ClassVar[Card] = Card(
        name="sswm", kind="designer",
        summary="Accepts improving substitutions one at a time, as under strong selection and weak mutation.",
        paper="Gillespie, Evolution 1984, doi:10.2307/2408444; Vaishnav et al., Nature 2022, "
              "doi:10.1038/s41586-022-04506-6",
        differences=(
            "Any improvement is as likely to be taken as any other (accept='any'); Vaishnav et al. take the best.",
            "A substitution that does not improve is never accepted; a walk ends where none improves.",
        ))

    def __init__(self, *, accept: Literal["any", "best"] = "any", walks: int | None = None, block: int = 16):
        if accept not in ("any", "best"):
            raise ConfigError(f"sswm: accept is any or best; got {accept!r}")
        if (walks is not None and walks < 1) or block < 1:
            raise ConfigError(f"sswm: walks and block are at least 1; got walks={walks}, block={block}")
        self.accept, self.walks, self.block = accept, walks, block

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        codes, origin, score = yield from opening(problem, problem.n if self.walks is None else self.walks)
        codes, score = codes.copy(), score.copy()
        tried = np.zeros(len(codes), np.int64)
        ways = [_shuffled(problem, codes[i:i + 1], origin[i:i + 1]) for i in range(len(codes))]
        while True:
            going = np.flatnonzero(tried < [len(way) for way in ways])
            if not len(going):
                return
            blocks = [ways[i][tried[i]:] if self.accept == "best" else ways[i][tried[i]:tried[i] + self.block]
                      for i in going]
            step = np.concatenate(blocks)
            edits = Edits(np.repeat(np.arange(len(going)), [len(block) for block in blocks]), step[:, 0],
                          step[:, 1:].astype(np.uint8))
            round_ = Neighbors.of(codes[going], origin[going], edits)
            found = yield round_
            begin = 0
            for i, block in zip(going, blocks, strict=True):
                mine = found[begin:begin + len(block)]
                chosen = int(mine.argmax() if self.accept == "best" else (mine > score[i]).argmax())
                if mine[chosen] > score[i]:
                    codes[i], score[i], tried[i] = round_.codes[begin + chosen], mine[chosen], 0
                    ways[i] = _shuffled(problem, codes[i:i + 1], origin[i:i + 1])
                else:
                    tried[i] += len(block)
                begin += len(block)


class Drift(RoundDesigner):
    """Walks at random: every allowed substitution is accepted; what change without selection does.

    Parameters
    ----------
    walks
        Independent walks, shared out among the starts, one each at least; None is one a design that is wanted.
    steps
        Substitutions of a walk; None goes on until the budget is spent.
    """

    card: ClassVar[Card] = Card(
        name="drift", kind="designer",
        summary="Accepts random substitutions whatever they score, as genetic drift does.",
        paper="Vaishnav et al., Nature 2022, doi:10.1038/s41586-022-04506-6",
        differences=("Every allowed substitution is as likely as any other.",))

    def __init__(self, *, walks: int | None = None, steps: int | None = None):
        if (walks is not None and walks < 1) or (steps is not None and steps < 1):
            raise ConfigError(f"drift: walks and steps are at least 1; got walks={walks}, steps={steps}")
        self.walks, self.steps = walks, steps

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        codes, origin, _ = yield from opening(problem, problem.n if self.walks is None else self.walks)
        for _ in count() if self.steps is None else range(self.steps):
            codes = mutate(codes, origin, np.ones(len(codes), np.int64), problem.constraints, problem.rng)
            yield Proposal(codes, origin)


def substitutions(constraints: Constraints, codes: UInt8[ndarray, "P L"], origin: Int[ndarray, " P"]) -> Edits:
    """All allowed substitutions of each sequence, by sequence and position."""
    row, position, base = np.nonzero(constraints.moves(codes, origin).transpose(0, 2, 1))
    return Edits(row, position, base[:, None].astype(np.uint8))


def _shuffled(problem: Problem, codes: UInt8[ndarray, "1 L"], origin: Int[ndarray, " 1"]) -> Int[ndarray, "n 2"]:
    """Position and base of the allowed substitutions of one sequence, in random order."""
    edits = substitutions(problem.constraints, codes, origin)
    return problem.rng.permutation(np.column_stack([edits.start, edits.bases[:, 0]]).astype(np.int64))
