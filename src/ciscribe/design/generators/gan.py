"""A Wasserstein GAN: a generator learns to fool a critic; its latent space can be searched for better sequences."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.card import Card
from ciscribe.design.generators.base import Allowed, Generator
from ciscribe.design.generators.network import LabelEmbedding, one_hot_codes
from ciscribe.nn.conv import Conv1d
from ciscribe.train.generative import Examples, GenerativeSpec

_PENALTY = 10.0  # on the gradient of the critic
_N_BLOCKS = 5


class _Block(nn.Module):
    """x + 0.3 · (relu, conv, relu, conv)."""

    def __init__(self, channels: int):
        super().__init__()
        self.convs = nn.Sequential(nn.ReLU(), Conv1d(channels, channels, 5, padding=2),
                                   nn.ReLU(), Conv1d(channels, channels, 5, padding=2))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * self.convs(x)


class _Writer(nn.Module):
    """Noise and labels → logits of the bases."""

    def __init__(self, length: int, n_latent: int, channels: int, label: LabelEmbedding):
        super().__init__()
        self.shape = channels, length
        self.label = label
        self.dense = nn.Linear(n_latent, channels * length)
        self.blocks = nn.Sequential(*(_Block(channels) for _ in range(_N_BLOCKS)), Conv1d(channels, 4, 1))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.blocks(self.dense(z).view(-1, *self.shape) + self.label(labels)[:, :, None])


class _Critic(nn.Module):
    """Sequences and labels → how real they look."""

    def __init__(self, length: int, channels: int, label: LabelEmbedding):
        super().__init__()
        self.label = label
        self.stem = Conv1d(4, channels, 1)
        self.blocks = nn.Sequential(*(_Block(channels) for _ in range(_N_BLOCKS)), nn.Flatten(),
                                    nn.Linear(channels * length, 1))

    def forward(self, X: Tensor, labels: Tensor) -> Tensor:
        return self.blocks(self.stem(X) + self.label(labels)[:, :, None])[:, 0]


class WGAN(Generator):
    """Turns noise into sequences that a critic cannot tell from natural ones; no likelihood.

    `decode` is differentiable, so that an objective can be followed through the latent space.

    Parameters
    ----------
    length, n_labels, n_targets
        As in `Generator`.
    n_latent
        Numbers of noise, standard normal.
    channels
        Of generator and critic (512 as published).

    References
    ----------
    Wang et al., "Synthetic promoter design in Escherichia coli based on a deep generative network", Nucleic Acids
    Research 2020, doi:10.1093/nar/gkaa325; Gulrajani et al., NeurIPS 2017, arXiv:1704.00028 (gradient penalty).
    """

    card: ClassVar[Card] = Card(
        name="wgan", kind="designer",
        summary="Turns noise into sequences that a critic cannot tell from natural ones.",
        paper="Wang et al., Nucleic Acids Research 2020, doi:10.1093/nar/gkaa325; Gulrajani et al., NeurIPS 2017, "
              "arXiv:1704.00028",
        differences=(
            "64 channels instead of 512, so that it trains on a CPU in minutes.",
            "Generator and critic are told the labels of activity (in a tenth of the examples, none).",
            "Epochs are compared by the 3-mers of drawn and held-out sequences; the published code only watches them.",
            "Bases that are given are laid over what was drawn: their neighbors do not know of them.",
            "Constraints hold by projecting the log-probabilities of the bases.",
        ),
        n_policy="refused in training; in `fixed`, a base that is to be made",
    )
    spec: ClassVar[GenerativeSpec] = GenerativeSpec(epochs=200, batch_size=32, learning_rate=1e-4, betas=(0.5, 0.9),
                                                    weight_decay=0.0, gradient_clip=0.0)

    def __init__(self, length: int, *, n_labels: int = 5, n_targets: int = 1, n_latent: int = 128, channels: int = 64):
        super().__init__(length, n_labels, n_targets, {"n_latent": n_latent, "channels": channels})
        self.n_latent = n_latent
        self.generator = _Writer(length, n_latent, channels, LabelEmbedding(n_targets, n_labels, channels))
        self.critic = _Critic(length, channels, LabelEmbedding(n_targets, n_labels, channels))

    def decode(self, z: Float[Tensor, "n Z"], labels: Int64[Tensor, "n T"] | None = None) -> Float[Tensor, "n 4 L"]:
        """Probabilities of the bases, differentiable; score the most probable bases, never these.

        Parameters
        ----------
        z
            Latent points ``(n, n_latent)``.
        labels
            `n_labels` is unknown; None knows none.
        """
        if labels is None:
            labels = torch.full((len(z), self.n_targets), self.n_labels, device=z.device)
        return self.generator(z, labels).softmax(1)

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Generator and critic."""
        return self.generator, self.critic

    def _drawn(self, labels: Tensor) -> Tensor:
        return self.decode(torch.randn(len(labels), self.n_latent, device=labels.device), labels)

    def critic_loss(self, batch: Examples) -> Float[Tensor, ""]:
        """Made minus real, and the penalty that keeps the gradient between them at 1."""
        labels = self.hide(batch.labels)
        real = one_hot_codes(batch.codes, 4)
        made = self._drawn(labels).detach()
        between = torch.lerp(made, real, torch.rand(len(real), 1, 1, device=real.device)).requires_grad_()
        gradient, = torch.autograd.grad(self.critic(between, labels).sum(), between, create_graph=True)
        penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        return self.critic(made, labels).mean() - self.critic(real, labels).mean() + _PENALTY * penalty

    def generator_loss(self, batch: Examples) -> Float[Tensor, ""]:
        """How unreal the critic finds what was made."""
        labels = self.hide(batch.labels)
        return -self.critic(self._drawn(labels), labels).mean()

    def loss(self, batch: Examples) -> Float[Tensor, ""]:
        """Jensen–Shannon divergence of the 3-mers of as many made sequences; compares epochs, is not minimized."""
        made = one_hot_codes(self._drawn(batch.labels).argmax(1), 4)
        p, q = _trimers(made), _trimers(one_hot_codes(batch.codes, 4))
        middle = ((p + q) / 2).clamp(min=1e-12).log()
        return sum(F.kl_div(middle, side, reduction="sum") for side in (p, q)) / 2  # type: ignore[return-value]

    def draw(self, labels: Int64[Tensor, "n T"], allowed: Allowed, rng: np.random.Generator, *,
             spread: float = 1.0) -> UInt8[ndarray, "n L"]:
        """Decode one batch of noise.

        Parameters
        ----------
        labels, allowed, rng
            See `Generator.sample`.
        spread
            Standard deviation of the noise; below 1 keeps to what is typical.
        """
        z = torch.from_numpy(spread * rng.normal(size=(len(allowed.fixed), self.n_latent))).float().to(self.device)
        return allowed.best(self.generator(z, labels).log_softmax(1))


def _trimers(X: Float[Tensor, "N 4 L"]) -> Float[Tensor, "64"]:
    """Frequencies of 3-mers."""
    counts = torch.einsum("nil,njl,nkl->ijk", X[..., :-2], X[..., 1:-1], X[..., 2:])
    return counts.flatten() / counts.sum()
