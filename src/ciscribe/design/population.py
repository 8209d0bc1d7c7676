"""Designers that ask for scores only and keep many sequences: simulated annealing, a genetic algorithm, AdaLead.

Given starts are improved each on its own: sequences of one start never compete with, or borrow from, those of another,
so that a strong start does not hide that a weak one was left behind. Children of two parents that are not allowed are
moved to the nearest allowed sequence; mutations are allowed ones to begin with.
"""

from typing import ClassVar

import numpy as np
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.design.designer import Problem, Proposal
from ciscribe.design.rounds import RoundDesigner, Search, mutate, opening, settle
from ciscribe.errors import ConfigError

_LEAST = 8  # individuals of a start
_DECAY = 0.501  # of the temperature, the slowest power of time that still cools (Robbins & Monro)


class Anneal(RoundDesigner):
    """Simulated annealing: random changes, also for the worse while it is warm.

    As many chains as designs are wanted take a change that costs ``d`` with probability exp(−d / T), where the
    temperature is ``T = temperature · (1 + step)^−0.501``.

    Parameters
    ----------
    n_positions
        A step changes 1 to this many bases.
    temperature
        At the first step, in units of the score.

    References
    ----------
    Kirkpatrick, Gelatt & Vecchi, Science 220:671 (1983), doi:10.1126/science.220.4598.671; Gosai et al., Nature
    634:1211 (2024), doi:10.1038/s41586-024-08070-z (defaults). Differences: `card`.
    """

    card: ClassVar[Card] = Card(
        name="anneal", kind="designer",
        summary="Changes a few random bases at a time and accepts losses less and less often.",
        paper="Kirkpatrick, Gelatt & Vecchi, Science 1983, doi:10.1126/science.220.4598.671; Gosai et al., Nature "
              "2024, doi:10.1038/s41586-024-08070-z",
        differences=("A step changes one to five bases (CODA: five), all of them within the constraints.",
                     "As many steps as the budget allows (CODA: 2,000)."))

    def __init__(self, *, n_positions: int = 5, temperature: float = 1.0):
        self.n_positions, self.temperature = n_positions, temperature
        if n_positions < 1 or temperature < 0:
            raise ConfigError(f"n_positions is 1 or more and temperature 0 or more; got {n_positions} and "
                              f"{temperature}")

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        rng = problem.rng
        codes, origin, score = yield from opening(problem, problem.n)
        step = 0
        while True:
            temperature = self.temperature * (1 + step)**-_DECAY
            counts = rng.integers(1, self.n_positions + 1, len(codes))
            changed = mutate(codes, origin, counts, problem.constraints, rng)
            new = yield Proposal(changed, origin)
            taken = new - score >= temperature * np.log(rng.random(len(codes)))
            codes, score = np.where(taken[:, None], changed, codes), np.where(taken, new, score)
            step += 1


class Genetic(RoundDesigner):
    """Genetic algorithm: winners of small tournaments are crossed and mutated; the best of all survives.

    Parameters
    ----------
    population
        Individuals, shared out among the starts, but 8 of each at least.
    tournament
        Individuals drawn for each parent, of which the best is taken.
    crossover
        Probability that a child takes what lies between two random points from a second parent.
    mutation
        Probability that a base is substituted by one of the three others, all equally probable; 1 / length unless
        given.

    References
    ----------
    Vaishnav et al., Nature 603:455 (2022), doi:10.1038/s41586-022-04506-6; 1edv/evolution. Differences: `card`.
    """

    card: ClassVar[Card] = Card(
        name="genetic", kind="designer",
        summary="Breeds better sequences by selection, crossing and mutation.",
        paper="Vaishnav et al., Nature 2022, doi:10.1038/s41586-022-04506-6",
        differences=("All twelve substitutions are equally probable; in the published notebook G and T never become A "
                     "and may become themselves.",
                     "The best individual survives.",
                     "200 individuals, half of the children crossed, one mutation a child on average (published: "
                     "100,000, one in ten, two mutations in one child of ten).",
                     "Each start has a population of its own."))

    def __init__(self, *, population: int = 200, tournament: int = 3, crossover: float = 0.5,
                 mutation: float | None = None):
        self.population, self.tournament, self.crossover, self.mutation = population, tournament, crossover, mutation
        if population < 2 or tournament < 1:
            raise ConfigError(f"population is 2 or more and tournament 1 or more; got {population} and {tournament}")
        for name, share in (("crossover", crossover), ("mutation", mutation or 0)):
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} is a probability; got {share}")

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        rng, length = problem.rng, problem.length
        n_starts = 1 if problem.starts is None else len(problem.starts)
        size = max(self.population // n_starts, _LEAST if n_starts > 1 else 2)
        codes, origin, score = yield from opening(problem, size * n_starts)
        order = np.argsort(origin, kind="stable")
        codes, origin, score = codes[order], origin[order], score[order].reshape(n_starts, size)
        first = np.arange(n_starts)[:, None] * size  # of each population, among all individuals
        rate = 1 / length if self.mutation is None else self.mutation
        while True:
            one, other = (first + self._winners(score, rng) for _ in range(2))
            children = _crossed(codes[one.ravel()], codes[other.ravel()], self.crossover, rng)
            children, is_possible = settle(children, origin, problem.constraints)
            children = np.where(is_possible[:, None], children, codes[one.ravel()])
            children = mutate(children, origin, rng.binomial(length, rate, len(codes)), problem.constraints, rng)
            best = (first[:, 0] + score.argmax(axis=1))
            children[first[:, 0]] = codes[best]
            codes, score = children, (yield Proposal(children, origin)).reshape(n_starts, size)

    def _winners(self, score: ndarray, rng: np.random.Generator) -> ndarray:
        """As many winners as individuals, of every population."""
        entrants = rng.integers(score.shape[1], size=(*score.shape, self.tournament))
        entered = np.take_along_axis(score[:, None], entrants, axis=2)
        return np.take_along_axis(entrants, entered.argmax(axis=2)[:, :, None], axis=2)[:, :, 0]


def _crossed(one: ndarray, other: ndarray, probability: float, rng: np.random.Generator) -> ndarray:
    """Two-point crossover: what lies between two random points comes from the other parent."""
    n, length = one.shape
    left, right = np.sort(rng.integers(length + 1, size=(n, 2)), axis=1).T[:, :, None]
    inside = (left <= np.arange(length)) & (np.arange(length) < right)
    return np.where(inside & (rng.random(n) < probability)[:, None], other, one)


class AdaLead(RoundDesigner):
    """Adaptive greedy search: sequences close to the best are recombined, then mutated on and on until they get worse.

    Parameters
    ----------
    kappa
        Parents are all sequences that score at least ``best − kappa · (best − worst of the first generation)``.
    mu
        Expected mutations of a child.
    recombination
        Probability that a root changes over to the other parent, a base.
    n_roots
        Sequences from which a generation rolls out, shared out among the starts, but 8 of each at least.

    References
    ----------
    Sinai et al., "AdaLead: a simple and robust adaptive greedy search algorithm for sequence design" (2020),
    arXiv:2010.02141; samsinai/FLEXS. Differences: `card`.
    """

    card: ClassVar[Card] = Card(
        name="adalead", kind="designer",
        summary="Recombines the best sequences and mutates each on and on until it gets worse.",
        paper="Sinai et al. 2020, arXiv:2010.02141; Gosai et al., Nature 2024, doi:10.1038/s41586-024-08070-z "
              "(recombination)",
        differences=("There is one model, so that rolling out costs queries of the same kind as all else.",
                     "Kappa is a share of the range of scores, as scores may be negative; with scores from 0 to the "
                     "best it is the published rule.",
                     "A child has one mutation at least.",
                     "Given starts are the first parents; each has descendants of its own."))

    def __init__(self, *, kappa: float = 0.05, mu: float = 1.0, recombination: float = 0.1, n_roots: int = 100):
        self.kappa, self.mu, self.recombination, self.n_roots = kappa, mu, recombination, n_roots
        if not (0 <= kappa <= 1 and 0 <= recombination <= 1):
            raise ConfigError(f"kappa and recombination are shares; got {kappa} and {recombination}")
        if mu <= 0 or n_roots < 1:
            raise ConfigError(f"mu is above 0 and n_roots 1 or more; got {mu} and {n_roots}")

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        rng, length = problem.rng, problem.length
        n_starts = 1 if problem.starts is None else len(problem.starts)
        size = max(self.n_roots // n_starts, _LEAST if n_starts > 1 else 1)
        codes, origin, score = yield from opening(problem, self.n_roots)
        worst = np.array([score[origin == start].min() for start in range(n_starts)])
        root_origin = np.repeat(np.arange(n_starts), size)
        while True:
            codes, origin, score = self._parents(codes, origin, score, worst)
            one, other = (_member(origin, root_origin, rng) for _ in range(2))
            switched = (rng.random((len(one), length)) < self.recombination).cumsum(axis=1) % 2 == 1
            roots, is_possible = settle(np.where(switched, codes[other], codes[one]), root_origin, problem.constraints)
            roots = np.where(is_possible[:, None], roots, codes[one])
            root_score = yield Proposal(roots, root_origin)
            met = [(codes, origin, score), (roots, root_origin, root_score)]
            nodes, active = roots, np.arange(len(roots))
            while len(active):
                counts = np.maximum(rng.binomial(length, min(self.mu / length, 1), len(active)), 1)
                children = mutate(nodes, root_origin[active], counts, problem.constraints, rng)
                new = yield Proposal(children, root_origin[active])
                met.append((children, root_origin[active], new))
                goes_on = (new >= root_score[active]) & (children != nodes).any(axis=1)
                nodes, active = children[goes_on], active[goes_on]
            codes, origin, score = (np.concatenate(parts) for parts in zip(*met, strict=True))

    def _parents(self, codes: ndarray, origin: ndarray, score: ndarray, worst: ndarray
                 ) -> tuple[ndarray, ndarray, ndarray]:
        """Of every start, different sequences that are close to the best, and no more than there are roots."""
        best = np.full(len(worst), -np.inf)
        np.maximum.at(best, origin, score)
        close = np.flatnonzero(score >= (best - self.kappa * (best - worst))[origin])
        close = close[np.unique(np.column_stack([origin[close], codes[close]]), axis=0, return_index=True)[1]]
        close = close[np.lexsort((-score[close], origin[close]))]
        place = np.arange(len(close)) - np.searchsorted(origin[close], origin[close])
        close = close[place < self.n_roots]
        return codes[close], origin[close], score[close]


def _member(origin: ndarray, wanted: ndarray, rng: np.random.Generator) -> ndarray:
    """A random row of each wanted origin; `origin` is sorted."""
    first, last = np.searchsorted(origin, wanted), np.searchsorted(origin, wanted, side="right")
    return rng.integers(first, last)
