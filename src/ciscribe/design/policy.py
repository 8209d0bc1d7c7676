"""A generator that is rewarded: it writes what scores high, and is held near the natural sequences that it learned.

Without the second half a reward finds the errors of the model that gives it. The Kullback-Leibler divergence (KL) to
the generator as it was is what holds; rewards are counted in standard deviations of what it drew first, so that one
weight of the KL means the same for every objective: standard deviations that a nat has to earn.
"""

import copy
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.card import Card
from ciscribe.design.designer import Designer, Problem, Proposal
from ciscribe.design.generators.autoregressive import AutoregressiveLM
from ciscribe.design.generators.base import FREE, Allowed, Generator, gumbel
from ciscribe.design.generators.diffusion import MASK, MaskedDiffusion
from ciscribe.design.generators.network import one_hot_codes
from ciscribe.errors import ConfigError, DivergedError

_FRUITLESS = 20  # groups in a row without a new sequence: it has settled
_CLIP = 1.0  # largest norm of a gradient
_FORBIDDEN = -1e9  # a logit, finite so that 0 · log 0 is 0

G = TypeVar("G", bound=Generator)


class _Tuned(Designer, Generic[G]):
    """A copy of a generator that is trained on scores, beside the generator as it was.

    Parameters
    ----------
    generator
        Fitted on natural sequences; it is copied and stays as it is.
    y
        Activity that is wanted of it, as in `Generator.sample`; None: whatever.
    batch
        Sequences a step.
    learning_rate
        Of Adam.
    kl
        Weight of the divergence from the generator as it was.
    """

    def __init__(self, generator: G, y: Any, batch: int, learning_rate: float, kl: float):
        name = self.card.name
        if batch < 2:
            raise ConfigError(f"{name}: a batch compares at least 2 sequences; got {batch}")
        if not learning_rate > 0 or not kl >= 0:
            raise ConfigError(f"{name}: learning_rate is above 0 and kl 0 or more; got {learning_rate} and {kl}")
        self.generator, self.y, self.batch, self.learning_rate, self.kl = generator, y, batch, learning_rate, kl

    def start(self, problem: Problem) -> None:
        """Take the problem; all state begins here.

        Raises
        ------
        ConfigError
            When the generator writes sequences of another length.
        """
        self.generator.check_writes(problem.length)
        self.problem = problem
        self.reference = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.policy = copy.deepcopy(self.reference).requires_grad_(True)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.learning_rate)
        self.scale: float | None = None  # standard deviation of the first scores
        self.turn, self.fruitless, self.seen = 0, 0, set[bytes]()

    def labels(self, n: int) -> Int64[Tensor, "n T"]:
        """What is wanted, for `n` sequences."""
        return self.generator.wanted(self.y, n).to(self.generator.device)

    def next_origin(self, n: int) -> Int[ndarray, " n"]:
        """One start after the other: a batch is of one, so that its scores compare."""
        n_starts = 1 if self.problem.starts is None else len(self.problem.starts)
        origin = np.full(n, self.turn % n_starts)
        self.turn += 1
        return origin

    def in_deviations(self, score: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Scores in standard deviations of the first batch."""
        if self.scale is None:
            self.scale = float(score.detach().std(correction=0)) or 1.0
        return score / self.scale

    def descend(self, loss: Float[Tensor, ""]) -> None:
        """One step of the policy."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), _CLIP)
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss of {self.card.name} became {float(loss)}; lower learning_rate")
        self.optimizer.step()

    def settled(self, codes: UInt8[ndarray, "n L"]) -> bool:
        """Whether nothing new has come for long."""
        new = {row.tobytes() for row in codes} - self.seen
        self.seen |= new
        self.fruitless = 0 if new else self.fruitless + 1
        return self.fruitless > _FRUITLESS


class _PolicyGradient(_Tuned[AutoregressiveLM]):
    """What both policy gradients share: write a batch within the constraints, learn from its scores."""

    def propose(self, n: int) -> Proposal:
        """A batch of the policy; none when it has settled on sequences that are known."""
        origin = self.next_origin(min(n, self.batch))
        codes = self.write(origin)
        return Proposal(codes[:0], origin[:0]) if self.settled(codes) else Proposal(codes, origin)

    def write(self, origin: Int[ndarray, " n"]) -> UInt8[ndarray, "n L"]:
        """Draw from the policy, within the constraints."""
        fixed = np.full((len(origin), self.problem.length), FREE, np.uint8)
        allowed = Allowed(fixed, self.problem.constraints, origin)
        with torch.no_grad():
            return self.policy.draw(self.labels(len(origin)), allowed, self.problem.rng)

    def observe(self, proposal: Proposal, score: Float[ndarray, " n"]) -> None:
        """Make what scored above the batch more probable, what scored below less."""
        fine = np.flatnonzero(np.isfinite(score))
        if len(fine) < 2:
            return
        codes, origin = proposal.codes[fine], proposal.origin[fine]
        legal = self.problem.constraints.continuations(codes, origin)
        with torch.enable_grad():
            self.learn(codes, legal, self.in_deviations(torch.from_numpy(np.asarray(score, float)[fine]).float()))

    @abstractmethod
    def learn(self, codes: UInt8[ndarray, "n L"], legal: Bool[ndarray, "n 4 L"], reward: Float[Tensor, " n"]) -> None:
        """Train on one batch; rewards in standard deviations."""

    def logps(self, model: AutoregressiveLM, codes: UInt8[ndarray, "n L"], legal: Bool[ndarray, "n 4 L"]
              ) -> Float[Tensor, "n L"]:
        """Log-probability of every base among those that were legal."""
        return masked_logps(model, codes, self.labels(len(codes)), legal)


class Reinforce(_PolicyGradient):
    """Trains a language model to write what scores high, by policy gradients (REINFORCE).

    It ascends the mean reward minus `kl` times the KL to the model as it was. Within the constraints all of this is
    exact: illegal bases have probability 0 in both models, so that neither probability nor gradient is spent on
    them, and in expectation the step is the gradient.

    Parameters
    ----------
    generator, y, batch, learning_rate, kl
        A fitted `AutoregressiveLM`; wanted activity; sequences a step; of Adam; standard deviations of the first
        scores a nat.

    References
    ----------
    Williams, Mach Learn 1992, doi:10.1007/BF00992696; the baseline of each sequence, the mean of the others: Kool et
    al. 2019 (RLOO), openreview.net/forum?id=r1lgTGL5DE; on DNA: Yang et al. (TACO), ICLR 2025; the best policy under
    such a KL: Korbak et al. 2022, arXiv:2205.11275.
    """

    card: ClassVar[Card] = Card(
        name="reinforce", kind="designer",
        summary="Rewards a language model for writing sequences that score high, and holds it near natural ones.",
        paper="Williams, Mach Learn 1992, doi:10.1007/BF00992696; on DNA: Yang et al., ICLR 2025 (TACO)",
        differences=(
            "The KL to the model as it was is part of the reward; TACO rewards entropy instead.",
            "Each sequence is compared with the mean of the others of its batch; TACO has no baseline.",
            "No reward for motifs on the way and no replay of old sequences.",
            "Bases that no allowed sequence could go on with have probability 0; sequences that were drawn again under "
            "rules of repeats or GC in windows are taken as if they had been drawn at once.",
            "Starts say what constraints allow (most edits, kept bases); a batch is of one start.",
        ))

    def __init__(self, generator: AutoregressiveLM, *, y: Shaped[ndarray, "..."] | float | None = None,
                 batch: int = 128, learning_rate: float = 1e-4, kl: float = 0.02):
        super().__init__(generator, y, batch, learning_rate, kl)

    def learn(self, codes: UInt8[ndarray, "n L"], legal: Bool[ndarray, "n 4 L"], reward: Float[Tensor, " n"]) -> None:
        """One step up the gradient."""
        self.descend(self.loss(codes, legal, reward))

    def loss(self, codes: UInt8[ndarray, "n L"], legal: Bool[ndarray, "n 4 L"], reward: Float[Tensor, " n"]
             ) -> Float[Tensor, ""]:
        """What has minus the gradient of mean reward − kl · KL, in expectation over batches of the policy."""
        logp = self.logps(self.policy, codes, legal).sum(1)
        with torch.no_grad():
            reward = reward.to(logp) - self.kl * (logp - self.logps(self.reference, codes, legal).sum(1))
            advantage = (reward - reward.mean()) * len(reward) / (len(reward) - 1)  # to the mean of the others
        return -(advantage * logp).mean()


class GRPO(_PolicyGradient):
    """Trains a language model by comparing the sequences of a group, several careful steps a group.

    Parameters
    ----------
    generator, y, batch, learning_rate
        A fitted `AutoregressiveLM`; wanted activity; sequences of a group; of Adam.
    kl
        Weight of the KL to the model as it was, of each base.
    clip
        Largest change of the probability of a base that pays, as a share.
    epochs
        Steps a group.

    References
    ----------
    Shao et al. 2024, arXiv:2402.03300 (GRPO); Schulman et al. 2017, arXiv:1707.06347 (clipped steps); on DNA:
    Ctrl-DNA, NeurIPS 2025, bowang-lab/Ctrl-DNA.
    """

    card: ClassVar[Card] = Card(
        name="grpo", kind="designer",
        summary="Trains a language model to write what scores above the others of its group, in clipped steps.",
        paper="Shao et al. 2024, arXiv:2402.03300; on DNA: Ctrl-DNA, NeurIPS 2025",
        code="written from the papers",
        differences=(
            "One objective instead of rewards with Lagrange multipliers: off-target cell types belong to the objective "
            "(Specific), motifs and restriction sites to objective and constraints.",
            "Groups of 128, no replay of old sequences.",
            "Bases that no allowed sequence could go on with have probability 0 in all models.",
            "A group is of one start.",
        ))

    def __init__(self, generator: AutoregressiveLM, *, y: Shaped[ndarray, "..."] | float | None = None,
                 batch: int = 128, learning_rate: float = 1e-4, kl: float = 0.01, clip: float = 0.2, epochs: int = 5):
        super().__init__(generator, y, batch, learning_rate, kl)
        if not 0 < clip < 1 or epochs < 1:
            raise ConfigError(f"grpo: clip lies between 0 and 1, epochs is at least 1; got {clip} and {epochs}")
        self.clip, self.epochs = clip, epochs

    def learn(self, codes: UInt8[ndarray, "n L"], legal: Bool[ndarray, "n 4 L"], reward: Float[Tensor, " n"]) -> None:
        """Several steps, none of which leaves the policy that wrote the group far behind."""
        with torch.no_grad():
            before, reference = (self.logps(model, codes, legal) for model in (self.policy, self.reference))
        advantage = ((reward - reward.mean()) / (reward.std(correction=0) + 1e-6)).to(before)[:, None]
        for _ in range(self.epochs):
            logp = self.logps(self.policy, codes, legal)
            ratio = (logp - before).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
            away = reference - logp
            self.descend((self.kl * (away.exp() - away - 1) - gain).mean())


class Drakes(_Tuned[MaskedDiffusion]):
    """Trains a masked diffusion model on the gradient of the score, through its own last steps of denoising.

    Each batch is revealed from nothing. In the last steps the revealed bases stay connected to the probabilities
    that they were drawn from (straight-through Gumbel-softmax), so that the gradient of the score reaches the network
    at several steps. The finished sequences are projected onto the constraints; the gradient passes through that as if
    nothing had changed.

    Parameters
    ----------
    generator, y, batch, learning_rate
        A fitted `MaskedDiffusion`; wanted activity; sequences a step; of Adam.
    kl
        Weight of the KL of the denoising to that of the model as it was, standard deviations of the first scores a
        nat.
    steps, last
        Steps of denoising, and how many of them, at the end, are trained.
    temperature
        Of the Gumbel-softmax whose gradient is used.

    References
    ----------
    Wang et al., "Fine-tuning discrete diffusion models via reward optimization with applications to DNA and protein
    design" (DRAKES), ICLR 2025, arXiv:2410.13643.
    """

    card: ClassVar[Card] = Card(
        name="drakes", kind="designer",
        summary="Trains a diffusion model on the gradient of the score through its last steps, held near natural ones.",
        paper="Wang et al., ICLR 2025, arXiv:2410.13643 (DRAKES)",
        differences=(
            "32 steps, of which the last 13 are trained, instead of 128 and 50: the same share.",
            "A step reveals the same number of bases in all sequences, and the KL is that of the bases revealed: with "
            "this order it is the KL of the two ways of denoising, over the trained steps.",
            "The score is in standard deviations of the first batch.",
            "The score is asked of the sequences projected onto the constraints.",
            "A sequence costs three queries: score and gradient, and once more as a design.",
        ),
        n_policy="refused")
    needs_gradient: ClassVar[bool] = True

    def __init__(self, generator: MaskedDiffusion, *, y: Shaped[ndarray, "..."] | float | None = None,
                 batch: int = 32, learning_rate: float = 1e-4, kl: float = 1e-3, steps: int = 32, last: int = 13,
                 temperature: float = 1.0):
        super().__init__(generator, y, batch, learning_rate, kl)
        if not 1 <= last <= steps or not temperature > 0:
            raise ConfigError("drakes: the last of all steps are trained, 1 <= last <= steps, at a temperature above "
                              f"0; got last={last}, steps={steps}, temperature={temperature}")
        self.steps, self.last, self.temperature = steps, last, temperature

    def propose(self, n: int) -> Proposal:
        """A batch of the policy, which has learned from it already."""
        size = min(self.batch, n // 3)
        origin = self.next_origin(size if size >= 2 else n)
        learns = size >= 2 and self.problem.ask is not None
        with torch.enable_grad() if learns else torch.no_grad():
            codes, relaxed, kl = self.denoise(origin)
            if learns and self.problem.ask is not None:
                device = relaxed.device
                exact = one_hot_codes(torch.from_numpy(codes).long().to(device), 4)
                score = self.problem.ask(exact + relaxed - relaxed.detach())
                self.descend(self.kl * kl.mean() - self.in_deviations(score).mean())
        return Proposal(codes[:0], origin[:0]) if self.settled(codes) else Proposal(codes, origin)

    def observe(self, proposal: Proposal, score: Float[ndarray, " n"]) -> None:
        """It has learned from the gradient already."""

    def denoise(self, origin: Int[ndarray, " n"]) -> tuple[UInt8[ndarray, "n L"], Float[Tensor, "n 4 L"],
                                                           Float[Tensor, " n"]]:
        """Reveal a batch: allowed sequences, what they were before the constraints with its gradient, and the KL."""
        n, length, rng = len(origin), self.problem.length, self.problem.rng
        device, labels = self.policy.device, self.labels(n)
        X = one_hot_codes(torch.full((n, length), MASK, device=device), 5)
        steps = min(self.steps, length)
        when = torch.from_numpy(rng.random((n, length)).argsort(axis=1).argsort(axis=1) * steps // length).to(device)
        noisy = X.new_zeros(n, 4, length)
        kl = X.new_zeros(n)
        for step in range(steps):
            now = (when == step)[:, None]
            with _gradient_if(step >= steps - self.last):
                logp = self.policy(X, labels).log_softmax(1)
                drawn = logp + gumbel(rng, logp)
                soft = (drawn / self.temperature).softmax(1)
                hard = F.one_hot(drawn.argmax(1), 4).transpose(1, 2).to(soft)
                if step >= steps - self.last:
                    kl = kl + divergence(logp, self.reference(X, labels).log_softmax(1), now)
                X = torch.where(now, F.pad(hard + soft - soft.detach(), (0, 0, 0, 1)), X)
                noisy = torch.where(now, drawn.detach(), noisy)
        fixed = np.full((n, length), FREE, np.uint8)
        codes = Allowed(fixed, self.problem.constraints, origin).best(noisy)
        return codes, X[:, :4], kl


def masked_logps(model: AutoregressiveLM, codes: UInt8[ndarray, "n L"], labels: Int64[Tensor, "n T"],
                 legal: Bool[ndarray, "n 4 L"]) -> Float[Tensor, "n L"]:
    """Log-probability of every base given those before it, where only legal bases can be drawn.

    Parameters
    ----------
    model
        Language model; the gradient reaches its weights.
    codes, labels
        Sequences, and what was wanted of each.
    legal
        From `Constraints.continuations`.
    """
    X = torch.from_numpy(codes).long().to(model.device)
    logits = model(X, labels).masked_fill(~torch.from_numpy(legal).to(model.device), _FORBIDDEN)
    return logits.log_softmax(1).gather(1, X[:, None])[:, 0]


def divergence(logp: Float[Tensor, "n 4 L"], logq: Float[Tensor, "n 4 L"], where: Bool[Tensor, "n 1 L"]
               ) -> Float[Tensor, " n"]:
    """KL of two models of the bases of each sequence, nats, summed over some positions."""
    return (logp.exp() * (logp - logq) * where).sum((1, 2))


@contextmanager
def _gradient_if(wanted: bool) -> Iterator[None]:
    """Record operations only if `wanted`, and never where they are not recorded already."""
    with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
        yield
