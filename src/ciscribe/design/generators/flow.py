"""Dirichlet flow matching: bases grow out of noise on the simplex along a flow that is known in closed form."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.distributions import Gamma
from torch.nn import functional as F

from ciscribe.card import Card
from ciscribe.design.generators.base import FREE, Allowed, Generator, guided, gumbel
from ciscribe.design.generators.network import DilatedConvs, LabelEmbedding, TimeEmbedding, one_hot_codes
from ciscribe.errors import ConfigError
from ciscribe.nn.conv import Conv1d
from ciscribe.train.generative import Examples, GenerativeSpec

_MEAN_TIME = 2.0  # of the exponential from which training times are drawn


class DirichletFlow(Generator):
    """Moves each position from an even mixture of the bases to one of them, all positions together.

    At time a the path to base i is ``Dirichlet(1 + (a − 1) e_i)``, from a = 1 (uniform on the simplex) on. The
    network reads such points and says which base each came from.

    Parameters
    ----------
    length, n_labels, n_targets
        As in `Generator`.
    channels, n_layers, kernel
        Of the dilated convolutions; the defaults have 0.8 million weights.

    References
    ----------
    Stark et al., "Dirichlet flow matching with applications to DNA sequence design", ICML 2024, arXiv:2402.05841.
    """

    card: ClassVar[Card] = Card(
        name="dirichlet_flow", kind="designer",
        summary="Lets every position flow from an even mixture of the bases to one of them, for a wanted activity.",
        paper="Stark et al., ICML 2024, arXiv:2402.05841 (Dirichlet flow matching)",
        parameters=835_204,
        differences=(
            "The network reads what each position says alone, x^(a - 1) normalized, and adds what its surroundings say "
            "to the logarithm of it: Bayes' rule for these paths. It need not learn the paths.",
            "The derivative of the incomplete beta function is exact, in closed form for four bases, instead of a "
            "finite difference.",
            "Guidance mixes log-probabilities of the bases instead of scores.",
            "At the end the bases are drawn from the network's probabilities (Gumbel-max) instead of taking the most "
            "probable, which would sharpen the distribution; constraints hold by projecting those noisy "
            "log-probabilities.",
            "Bases that are given flow to themselves, so that their neighbors see them at every time.",
            "Trained with weights averaged; no distillation to one step.",
        ),
        n_policy="refused in training; in `fixed`, a base that is to be made",
    )
    spec: ClassVar[GenerativeSpec] = GenerativeSpec(average=0.99)

    def __init__(self, length: int, *, n_labels: int = 5, n_targets: int = 1, channels: int = 128, n_layers: int = 8,
                 kernel: int = 5):
        super().__init__(length, n_labels, n_targets,
                         {"channels": channels, "n_layers": n_layers, "kernel": kernel})
        self.stem = Conv1d(4, channels, 1)
        self.label = LabelEmbedding(n_targets, n_labels, channels)
        self.time = TimeEmbedding(channels)
        self.network = DilatedConvs(channels, n_layers, kernel, length, causal=False)

    def forward(self, X: Float[Tensor, "N 4 L"], time: Float[Tensor, " N"], labels: Int64[Tensor, "N T"] | None = None
                ) -> Float[Tensor, "N 4 L"]:
        """Logits of the base to which each position flows.

        Parameters
        ----------
        X
            Points on the simplex.
        time
            a ≥ 1 of each sequence.
        labels
            `n_labels` is unknown; None knows none.
        """
        if labels is None:
            labels = torch.full((len(X), self.n_targets), self.n_labels, device=X.device)
        evidence = ((time[:, None, None] - 1) * X.clamp(min=1e-20).log()).log_softmax(1)  # of each position alone
        context = self.network(self.stem(evidence.exp()), self.label(labels) + self.time(time))
        return context + evidence

    def loss(self, batch: Examples) -> Float[Tensor, ""]:
        """Cross-entropy of the base, nats a base, at a random time."""
        n, device = len(batch.codes), batch.codes.device
        spread = (torch.randperm(n, device=device) + torch.rand(n, device=device)) / n  # evenly over the batch
        time = 1 - _MEAN_TIME * torch.log1p(-spread.clamp(max=1 - 1e-6))
        X = dirichlet(one_hot_codes(batch.codes, 4), time)
        return F.cross_entropy(self(X, time, self.hide(batch.labels)), batch.codes.long())

    def draw(self, labels: Int64[Tensor, "n T"], allowed: Allowed, rng: np.random.Generator, *,
             steps: int = 100, last_time: float = 8.0, temperature: float = 1.0,
             guidance: float = 0.0) -> UInt8[ndarray, "n L"]:
        """Follow the flow for one batch.

        Parameters
        ----------
        labels, allowed, rng
            See `Generator.sample`.
        steps
            Of Euler's method, and passes of the network.
        last_time
            Where the flow, which would take forever, is stopped.
        temperature
            Of the probabilities from which the bases are drawn in the end.
        guidance
            See `guided`.
        """
        if steps < 1 or last_time <= 1 or temperature <= 0:
            raise ConfigError("sampling needs steps >= 1, last_time > 1 and temperature > 0; got "
                              f"{steps}, {last_time} and {temperature}")
        start = rng.exponential(size=(len(allowed.fixed), 4, self.length))
        X = torch.from_numpy(start / start.sum(axis=1, keepdims=True)).to(self.device)
        given = torch.from_numpy(allowed.fixed).to(self.device)[:, None]
        target = one_hot_codes(given[:, 0], 4).double()
        known = given != FREE

        def predict(time: float) -> Tensor:
            a = torch.full((len(X),), time, device=self.device)
            return guided(lambda some: self(X.float(), a, some), labels, self.n_labels, guidance)

        times = np.linspace(1.0, last_time, steps + 1)
        for time, step in zip(times[:-1], np.diff(times), strict=True):
            p = torch.where(known, target, predict(time).double().exp())
            speed = p * c_factor(X, float(time))
            X = X + step * (speed - speed.sum(1, keepdim=True) * X)  # the sum over i of speed_i (e_i - x)
            X = X.clamp(min=0)
            X = X / X.sum(1, keepdim=True)
        logp = predict(last_time) / temperature
        return allowed.best(logp + gumbel(rng, logp))


def c_factor(x: Float[Tensor, "*any"], time: float) -> Float[Tensor, "*any"]:
    """How fast a position whose component is `x` flows to that base, so that the flow has the Dirichlet paths.

    ``C(x, a) = −d/da I_x(a, 3) · B(a, 3) / ((1 − x)³ x^(a − 1))`` with I the regularized incomplete beta function.
    For four bases I is ``x^a (1 + a u + a (a + 1) u² / 2)`` with u = 1 − x, so the derivative is elementary.

    Parameters
    ----------
    x
        In [0, 1].
    time
        a ≥ 1.

    Returns
    -------
    Tensor
        float64; at 0 it is 0, at 1 it is finite.
    """
    a = time
    x = x.double().clamp(1e-12, 1 - 1e-4)  # the numerator cancels to u³: 1e-4 leaves four digits
    u = 1 - x
    level = 1 + a * u + a * (a + 1) / 2 * u**2
    slope = u + (a + 0.5) * u**2
    beta = 2 / (a * (a + 1) * (a + 2))
    return -(x.log() * level + slope) * x * beta / u**3


def dirichlet(one_hot: Float[Tensor, "N 4 L"], time: Float[Tensor, " N"]) -> Float[Tensor, "N 4 L"]:
    """Draw from ``Dirichlet(1 + (a − 1) e)`` at each position; randomness comes from PyTorch's own generator."""
    grown = Gamma(1 + (time[:, None, None] - 1) * one_hot, torch.ones(()), validate_args=False).sample()
    return grown / grown.sum(1, keepdim=True)
