"""Designers that follow the slope of the objective: FastSeqProp, Ledidi-style minimal edits, ascent in a latent space.

All three share one step. Relaxed sequences p = softmax(θ) are made hard, `Constraints.project` sees to it that the
hard ones are allowed, the objective is asked about the hard ones only, and its slope with respect to them passes
straight through to p. So every score that a designer sees, and every sequence that it proposes, is one that could be
ordered. A sequence whose slope is known already is not asked again; the answer is the same.
"""

from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.design.designer import Problem, Proposal
from ciscribe.design.rounds import RoundDesigner, Search, draw
from ciscribe.errors import ConfigError, DivergedError, SchemaError, UnsupportedError
from ciscribe.sequence import one_hot, one_hot_tensor

_POSITIONS = 2**16  # of the sequences of one forward and backward pass
_REPORT = 10  # steps between proposals
_LEAST = 50  # steps of a climb, before fewer samples are drawn
_REMEMBERED = 2**24  # numbers of known slopes that are kept

Climb = Generator[Proposal, ndarray, ndarray]
"""A `Search` that gives back the value ``(C,)`` that each of its chains has reached."""


@runtime_checkable
class Decoder(Protocol):
    """What `Latent` climbs in: a network from latent numbers to relaxed sequences."""

    n_latent: int

    def decode(self, z: Float[Tensor, "n Z"]) -> Float[Tensor, "n 4 L"]:
        """Relaxed one-hot sequences, each column adding up to 1."""
        ...


class _Slopes:
    """Scores of hard sequences and their slopes, and what is left to ask for."""

    def __init__(self, problem: Problem):
        if problem.ask is None:
            raise UnsupportedError("the designer follows the gradient of the objective, and this objective has none; "
                                   "use one that asks for scores only: greedy, genetic, adalead or anneal")
        self.ask, self.left = problem.ask, problem.budget
        self.known: dict[bytes, tuple[float, ndarray]] = {}
        self.room = max(_REMEMBERED // (4 * problem.length), 1)

    def __call__(self, codes: UInt8[ndarray, "n L"]) -> tuple[Float[ndarray, " n"], Float[ndarray, "n 4 L"]]:
        """Score and slope of each."""
        keys = [row.tobytes() for row in codes]
        new = list({key: i for i, key in enumerate(keys) if key not in self.known}.values())
        if len(self.known) + len(new) > self.room:
            self.known = {key: self.known[key] for key in keys if key in self.known}
        step = max(_POSITIONS // codes.shape[1], 1)
        for i in range(0, len(new), step):
            rows = new[i:i + step]
            X = one_hot_tensor(torch.from_numpy(codes[rows])).requires_grad_()
            with torch.enable_grad():
                score = self.ask(X)
                slope, = torch.autograd.grad(score.sum(), X)
            if not torch.isfinite(slope).all():
                first = rows[int((~torch.isfinite(slope)).any(dim=2).any(dim=1).nonzero()[0, 0])]
                raise DivergedError("the gradient of the objective is NaN or infinite at a sequence that has a score; "
                                    f"first: {one_hot(codes[first]).shape[1]} bp, row {first}; use a designer that "
                                    "asks for scores only, such as genetic")
            self.left -= 2 * len(rows)
            found = zip(score.detach().double().cpu().tolist(), slope.cpu().numpy(), strict=True)
            self.known |= dict(zip((keys[j] for j in rows), found, strict=True))
        return np.array([self.known[key][0] for key in keys]), np.stack([self.known[key][1] for key in keys])

    def paid(self, proposal: Proposal) -> Proposal:
        """Count a proposal as one query each; it costs less where the runner knows its score."""
        self.left -= len(proposal.codes)
        return proposal


class _Plan(NamedTuple):
    """How many sequences are climbed from, for how many steps, with how many samples a step."""

    chains: int
    steps: int
    samples: int

    def within(self, budget: int) -> "_Plan":
        """What of the plan can be paid for: fewer steps, down to 50; else fewer samples; else fewer chains."""
        least = min(self.steps, _LEAST)
        each = budget // self.chains
        samples = min(max((each - 1) // (2 * least + 1), 1), self.samples)
        steps = min((each - 1) * _REPORT // (2 * samples * _REPORT + 1), self.steps)
        if steps >= least:
            return _Plan(self.chains, steps, samples)
        return _Plan(budget // (2 * least + least // _REPORT + 2), least, 1)


class _Best:
    """The best sequence that each chain has met."""

    def __init__(self, codes: UInt8[ndarray, "C L"], value: Float[ndarray, " C"]):
        self.codes, self.value = codes.copy(), value.copy()
        self.is_new = np.zeros(len(codes), bool)

    def update(self, chains: Int[ndarray, " c"], codes: UInt8[ndarray, "c S L"], value: Float[ndarray, "c S"]
               ) -> ndarray:
        """Take what is better than before; which of the chains got better."""
        best = value.argmax(axis=1)
        value = value[np.arange(len(chains)), best]
        better = value > self.value[chains]
        self.value[chains[better]] = value[better]
        self.codes[chains[better]] = codes[better, best[better]]
        self.is_new[chains[better]] = True
        return better

    def news(self, origin: Int[ndarray, " C"]) -> Proposal:
        """What got better since the last time."""
        new, self.is_new = self.is_new, np.zeros_like(self.is_new)
        return Proposal(self.codes[new], origin[new])


class _Climber(RoundDesigner):
    """Climbs from many sequences at once, and from new ones while the budget allows."""

    n_steps: int
    n_samples: int = 1
    share = 1.0  # of the budget that the climb itself may use
    is_tireless = True  # goes on with new chains, though the last ones reached nothing better

    @abstractmethod
    def climb(self, problem: Problem, slopes: _Slopes, plan: _Plan, origin: Int[ndarray, " C"]) -> Climb:
        """Take the chains of the plan to their ends; what each has reached. `origin` says whose start each has."""

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        slopes, begun = _Slopes(problem), 0
        n_starts = 1 if problem.starts is None else len(problem.starts)
        self._reached = np.full(n_starts, -np.inf)  # by the best chain of each start
        wanted = _Plan(max(problem.n, n_starts), self.n_steps, self.n_samples)
        while True:
            left = slopes.left
            plan = wanted.within(int(self.share * left))
            if not plan.chains and not begun:
                raise ConfigError(f"{self.card.name} needs {2 * plan.steps} queries and a few more for one design; the "
                                  f"budget left is {left:,}; raise it, or lower n_steps")
            if not plan.chains:
                return
            origin, reached = (begun + np.arange(plan.chains)) % n_starts, self._reached.copy()
            best = yield from self.climb(problem, slopes, plan, origin)
            np.maximum.at(self._reached, origin, best)
            begun += plan.chains
            if slopes.left == left or not (self.is_tireless or (self._reached > reached).any()):
                return


class SeqProp(_Climber):
    """Fast activation maximization: random logits of every base climb until what is drawn from them scores high.

    Parameters
    ----------
    n_steps
        Steps of a climb; fewer where the budget does not allow them for every design.
    n_samples
        Hard sequences a step and design.
    learning_rate
        Of Adam, falling to almost 0 along a cosine.
    start_weight
        Added to the logits of the bases of a start, where starts are given; what is drawn at first keeps most of
        them. 0 forgets the starts.

    Raises
    ------
    UnsupportedError
        For an objective without gradient.

    References
    ----------
    Linder & Seelig, BMC Bioinformatics 22:510 (2021), doi:10.1186/s12859-021-04437-5; Gosai et al., Nature 634:1211
    (2024), doi:10.1038/s41586-024-08070-z (defaults). Differences: `card`.
    """

    card: ClassVar[Card] = Card(
        name="seqprop", kind="designer",
        summary="Climbs the model's slope from random sequences; needs few queries, and fools models most readily.",
        paper="Linder & Seelig, BMC Bioinformatics 2021, doi:10.1186/s12859-021-04437-5 (FastSeqProp); Gosai et al., "
              "Nature 2024, doi:10.1038/s41586-024-08070-z",
        differences=("What is drawn is projected onto the constraints, and the slope passes straight through to the "
                     "unprojected probabilities.",
                     "Of every climb the best sequence ever drawn is kept, not the best of a last draw.",
                     "150 steps of 4 samples (CODA: 200 of 10), fewer where the budget is small."))
    needs_gradient: ClassVar[bool] = True

    def __init__(self, *, n_steps: int = 150, n_samples: int = 4, learning_rate: float = 0.5,
                 start_weight: float = 3.0):
        self.n_steps, self.n_samples = _positive("n_steps", n_steps), _positive("n_samples", n_samples)
        self.learning_rate, self.start_weight = learning_rate, start_weight

    def climb(self, problem: Problem, slopes: _Slopes, plan: _Plan, origin: Int[ndarray, " C"]) -> Climb:
        """Take the chains of the plan to their ends; what each has reached."""
        rng, shape = problem.rng, (plan.chains, 4, problem.length)
        theta = torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).requires_grad_()
        given = torch.zeros(()) if problem.starts is None else torch.from_numpy(one_hot(problem.starts[origin]))
        scale = torch.ones(plan.chains, 4, 1, requires_grad=True)
        shift = torch.zeros(plan.chains, 4, 1, requires_grad=True)
        optimizer = torch.optim.Adam([theta, scale, shift], lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps, 1e-6)
        best = _Best(np.zeros((plan.chains, problem.length), np.uint8), np.full(plan.chains, -np.inf))
        chains = np.arange(plan.chains)
        for step in range(plan.steps):
            if slopes.left < plan.chains * (2 * plan.samples + 1):
                break
            logits = nn.functional.instance_norm(theta) * scale + shift
            log_p = (logits + self.start_weight * given).log_softmax(dim=1)
            noise = rng.gumbel(size=(plan.chains, plan.samples, *shape[1:]))
            codes, score, slope = _sampled(log_p.detach().numpy()[:, None] + noise, origin, problem, slopes)
            optimizer.zero_grad()
            log_p.exp().backward(-torch.from_numpy(slope.mean(axis=1)).to(log_p))
            optimizer.step()
            schedule.step()
            best.update(chains, codes, score)
            if step % _REPORT == _REPORT - 1:
                yield slopes.paid(best.news(origin))
        yield slopes.paid(best.news(origin))
        return best.value


class Edit(_Climber):
    """As few edits of given sequences as bring what they cost (Ledidi): all starts at once, pruned at the end.

    Parameters
    ----------
    penalty
        What an edit costs, in units of `label_sd`. A model that explains little of its labels may grant no single
        edit a tenth of their spread; starts then come back as they were, and the penalty is to be lowered.
    label_sd
        Standard deviation of the labels that the model was trained on, in units of the score.
    n_steps
        Most steps of a climb.
    n_samples
        Hard sequences a step and start; fewer where the budget is small.
    patience
        Steps without a better sequence after which a start is left alone.
    learning_rate
        Of AdamW.
    temperature
        Of the softmax through which slopes pass.
    prune
        At the end, take back every edit that brings less than it costs, the least useful first.

    Raises
    ------
    ConfigError
        Without starts.
    UnsupportedError
        For an objective without gradient.

    References
    ----------
    Schreiber, Lu & Noble, "Ledidi: Designing genomic edits that induce functional activity", bioRxiv (2020),
    doi:10.1101/2020.05.21.109686. Differences: `card`.
    """

    card: ClassVar[Card] = Card(
        name="edit", kind="designer",
        summary="Finds a few edits of a given sequence that bring it close to what is wanted.",
        paper="Schreiber, Lu & Noble, bioRxiv 2020, doi:10.1101/2020.05.21.109686 (Ledidi)",
        differences=("All starts are edited at once, each with its own best sequence and patience.",
                     "The best sequence is kept, by score minus cost of edits, not the best batch.",
                     "Drawn sequences are projected onto the constraints; frozen positions are one of them.",
                     "Sequences that were drawn before are not asked again: the answer is known.",
                     "Pruning takes back edits that bring less than they cost, in all sequences at once; an edit that "
                     "was worth its cost is not tried again.",
                     "The cost of an edit is 0.1 standard deviations of the labels."))
    needs_gradient: ClassVar[bool] = True
    is_tireless = False

    def __init__(self, *, penalty: float = 0.1, label_sd: float = 1.0, n_steps: int = 1000, n_samples: int = 16,
                 patience: int = 100, learning_rate: float = 1.0, temperature: float = 1.0, prune: bool = True):
        self.n_steps, self.n_samples = _positive("n_steps", n_steps), _positive("n_samples", n_samples)
        self.cost, self.patience = penalty * label_sd, _positive("patience", patience)
        self.learning_rate, self.temperature, self.prune = learning_rate, temperature, prune
        self.share = 0.9 if prune else 1.0
        if self.cost < 0:
            raise ConfigError(f"penalty and label_sd are 0 or more; got {penalty} and {label_sd}")

    def climb(self, problem: Problem, slopes: _Slopes, plan: _Plan, origin: Int[ndarray, " C"]) -> Climb:
        """Take the chains of the plan to their ends; what each has reached."""
        if problem.starts is None or problem.start_score is None:
            raise ConfigError("edit changes given sequences, and none came; pass start=, or use seqprop")
        starts = problem.starts[origin]
        given = one_hot(starts).astype(np.float32)
        weights = torch.zeros(given.shape, requires_grad=True)
        optimizer = torch.optim.AdamW([weights], lr=self.learning_rate)
        best = _Best(starts, np.asarray(problem.start_score, float)[origin])
        waited = np.zeros(plan.chains, int)
        kept = int((1 - self.share) * slopes.left) + plan.chains  # for pruning, and the proposal
        for _ in range(self.n_steps):  # more than planned, as what is known already costs nothing
            chains = np.flatnonzero(waited < self.patience)
            if not len(chains) or slopes.left < len(chains) * 2 * plan.samples + kept:
                break
            logits = torch.from_numpy(given[chains] + 1e-4).log() + weights[chains]
            noise = problem.rng.gumbel(size=(len(chains), plan.samples, *given.shape[1:]))
            noisy = logits[:, None] + torch.from_numpy(noise.astype(np.float32))
            codes, score, slope = _sampled(noisy.detach().numpy(), origin[chains], problem, slopes)
            changes = one_hot(codes) - given[chains, None]
            optimizer.zero_grad()
            slope = (slope - self.cost / 2 * changes) / plan.samples
            (noisy / self.temperature).softmax(dim=2).backward(-torch.from_numpy(slope).to(noisy))
            optimizer.step()
            edits = (codes != starts[chains, None]).sum(axis=2)
            better = best.update(chains, codes, score - self.cost * edits)
            waited[chains] = np.where(better, 0, waited[chains] + 1)
        if self.prune:
            self._prune(best, starts, origin, problem, slopes)
        yield slopes.paid(Proposal(best.codes, origin))
        return best.value

    def _prune(self, best: _Best, starts: ndarray, origin: ndarray, problem: Problem, slopes: _Slopes) -> None:
        """Take back one edit of every sequence at a time, while one brings less than it costs."""
        asked = best.codes != starts
        while asked.any():
            rows, positions = np.nonzero(asked)
            tried = best.codes[rows]
            tried[np.arange(len(rows)), positions] = starts[rows, positions]
            which = np.flatnonzero(problem.constraints.ok(tried, origin[rows]))
            which = which[:max(slopes.left - len(starts), 0) // 2]
            if not len(which):
                return
            rows, positions, tried = rows[which], positions[which], tried[which]
            value = slopes(tried)[0] - self.cost * (tried != starts[rows]).sum(axis=1)
            asked[:] = False
            asked[rows, positions] = value >= best.value[rows]
            order = np.lexsort((-value, rows))
            first = order[np.unique(rows[order], return_index=True)[1]]
            first = first[value[first] >= best.value[rows[first]]]
            best.codes[rows[first]], best.value[rows[first]] = tried[first], value[first]
            asked[rows[first], positions[first]] = False


class Latent(_Climber):
    """Climbs in the latent space of a generator, so that designs stay what it could have made.

    Parameters
    ----------
    generator
        Fitted; anything with ``n_latent`` and ``decode(z) -> relaxed one-hot (n, 4, L)``, such as a `WGAN`.
    n_steps
        Steps of a climb; fewer where the budget does not allow them for every design.
    learning_rate
        Of Adam.
    prior
        Weight of |z|²/2, the Gaussian prior, in units of the score.
    noise
        Standard deviation of what is added to z in every step.

    Raises
    ------
    ConfigError
        With starts, which have no place in the latent space.
    SchemaError
        When the generator makes sequences of another length.
    UnsupportedError
        For an objective without gradient.

    References
    ----------
    Zrimec et al., Nature Communications 13:5099 (2022), doi:10.1038/s41467-022-32818-8; Killoran et al. (2017),
    arXiv:1712.06148. Differences: `card`.
    """

    card: ClassVar[Card] = Card(
        name="latent", kind="designer",
        summary="Climbs the model's slope through a generator of natural-looking sequences.",
        paper="Zrimec et al., Nature Communications 2022, doi:10.1038/s41467-022-32818-8 (ExpressionGAN); Killoran et "
              "al., arXiv:1712.06148",
        differences=("The model is asked about hard, allowed sequences; the slope passes straight through to the "
                     "generator's relaxed ones, which are never scored.",
                     "The best hard sequence of every climb is kept."))
    needs_gradient: ClassVar[bool] = True

    def __init__(self, generator: Decoder, *, n_steps: int = 200, learning_rate: float = 1e-2, prior: float = 0.0,
                 noise: float = 1e-5):
        self.generator, self.n_steps = generator, _positive("n_steps", n_steps)
        self.learning_rate, self.prior, self.noise = learning_rate, prior, noise

    def climb(self, problem: Problem, slopes: _Slopes, plan: _Plan, origin: Int[ndarray, " C"]) -> Climb:
        """Take the chains of the plan to their ends; what each has reached."""
        if problem.starts is not None:
            raise ConfigError("latent takes its sequences from a generator, and starts have no place there; leave out "
                              "start=, or use edit")
        rng, chains = problem.rng, np.arange(plan.chains)
        z = torch.from_numpy(rng.standard_normal((plan.chains, self.generator.n_latent)).astype(np.float32))
        optimizer = torch.optim.Adam([z], lr=self.learning_rate)
        best = _Best(np.zeros((plan.chains, problem.length), np.uint8), np.full(plan.chains, -np.inf))
        for step in range(plan.steps):
            if slopes.left < 3 * plan.chains:
                break
            with _decoding(self.generator) as device, torch.enable_grad():
                at = z.to(device, copy=True).requires_grad_()
                p = self.generator.decode(at)
                if p.shape != (plan.chains, 4, problem.length):
                    raise SchemaError(f"the generator decodes {plan.chains} points to {tuple(p.shape)}; designs need "
                                      f"{(plan.chains, 4, problem.length)}")
                relaxed = p.detach().double().cpu().clamp_min(1e-30).log().numpy()
                codes, score, slope = _sampled(relaxed[:, None], origin, problem, slopes)
                z.grad, = torch.autograd.grad(p, at, -torch.from_numpy(slope[:, 0]).to(p))
            z.grad = z.grad.cpu() + self.prior * z
            optimizer.step()
            z += self.noise * torch.from_numpy(rng.standard_normal(z.shape).astype(np.float32))
            best.update(chains, codes, score)
            if step % _REPORT == _REPORT - 1:
                yield slopes.paid(best.news(origin))
        yield slopes.paid(best.news(origin))
        return best.value


def _sampled(logits: Float[ndarray, "C S 4 L"], origin: Int[ndarray, " C"], problem: Problem, slopes: _Slopes
             ) -> tuple[ndarray, ndarray, ndarray]:
    """Hard sequences ``(C, S, L)`` of noisy logits, their scores ``(C, S)`` and slopes ``(C, S, 4, L)``."""
    shape = logits.shape
    codes = draw(logits.reshape(-1, *shape[2:]), np.repeat(origin, shape[1]), problem.constraints,
                 problem.rng)
    score, slope = slopes(codes)
    return codes.reshape(*shape[:2], -1), score.reshape(shape[:2]), slope.reshape(shape)


@contextmanager
def _decoding(generator: Decoder) -> Iterator[torch.device]:
    """Hold a generator in evaluation mode and leave it as it was; the device that it is on."""
    if not isinstance(generator, nn.Module):
        yield torch.device("cpu")
        return
    modes = [(module, module.training) for module in generator.modules()]
    first = next(generator.parameters(), None)
    try:
        generator.eval()
        yield torch.device("cpu") if first is None else first.device
    finally:
        for module, mode in modes:
            module.training = mode


def _positive(name: str, number: int) -> int:
    if number < 1:
        raise ConfigError(f"{name} is 1 or more; got {number}")
    return number
