"""Masked discrete diffusion: bases are hidden, and a network that sees both sides learns to put them back."""

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from ciscribe.card import Card
from ciscribe.design.generators.base import FREE, Allowed, Generator, guided, gumbel, rows
from ciscribe.design.generators.network import DilatedConvs, LabelEmbedding, one_hot_codes
from ciscribe.errors import ConfigError
from ciscribe.nn.conv import Conv1d
from ciscribe.train.generative import Examples, GenerativeSpec

MASK = FREE
"""Code of a hidden base."""


class MaskedDiffusion(Generator):
    """Starts from nothing but masks and reveals bases in random order, each given all that is there already.

    Bases that are given are simply never masked, so that it fills in what lies between them, on both sides.

    Parameters
    ----------
    length, n_labels, n_targets
        As in `Generator`.
    channels, n_layers, kernel
        Of the dilated convolutions; the defaults have 0.8 million weights.

    References
    ----------
    Sahoo et al., "Simple and effective masked diffusion language models" (MDLM), NeurIPS 2024, arXiv:2406.07524; on
    DNA: Wang et al. (DRAKES), ICLR 2025, arXiv:2410.13643; the loss by the number of masks, and why the network needs
    no time: Ou et al. 2024, arXiv:2406.03736.
    """

    card: ClassVar[Card] = Card(
        name="masked_diffusion", kind="designer",
        summary="Reveals a hidden sequence base by base in random order; fills in around bases that are given.",
        paper="Sahoo et al., NeurIPS 2024, arXiv:2406.07524 (MDLM); on DNA: Wang et al., ICLR 2025, arXiv:2410.13643",
        parameters=814_596,
        differences=(
            "The number of masks is drawn evenly from 1..L instead of a time t and a mask with probability t each: the "
            "same bound (log-linear noise) with less variance.",
            "The network is not told the time; the number of masks says it.",
            "A step reveals the same number of bases in all sequences; with as many steps as bases it is exact.",
            "8 layers of kernel 5 and 128 channels instead of 20 of kernel 9.",
            "Classifier-free guidance on the labels; constraints hold by projecting the noisy log-probabilities with "
            "which each base was revealed onto the most probable allowed sequence.",
        ),
        n_policy="refused in training; in `fixed`, a base that is to be made",
    )
    spec: ClassVar[GenerativeSpec] = GenerativeSpec(average=0.99)

    def __init__(self, length: int, *, n_labels: int = 5, n_targets: int = 1, channels: int = 128, n_layers: int = 8,
                 kernel: int = 5):
        super().__init__(length, n_labels, n_targets,
                         {"channels": channels, "n_layers": n_layers, "kernel": kernel})
        self.stem = Conv1d(5, channels, 1)
        self.label = LabelEmbedding(n_targets, n_labels, channels)
        self.network = DilatedConvs(channels, n_layers, kernel, length, causal=False)

    def forward(self, X: Float[Tensor, "N 5 L"], labels: Int64[Tensor, "N T"] | None = None) -> Float[Tensor, "N 4 L"]:
        """Logits of what each base is; differentiable with respect to weights and sequences.

        Parameters
        ----------
        X
            One-hot or relaxed, the fifth channel is the mask.
        labels
            `n_labels` is unknown; None knows none.
        """
        if labels is None:
            labels = torch.full((len(X), self.n_targets), self.n_labels, device=X.device)
        return self.network(self.stem(X), self.label(labels))

    def bound(self, codes: Integer[Tensor, "N L"], labels: Int64[Tensor, "N T"], n_masked: Int64[Tensor, " N"]
              ) -> Float[Tensor, " N"]:
        """An unbiased estimate of the bound on the log-likelihood of each sequence, from one random set of masks.

        Parameters
        ----------
        codes, labels
            Sequences and their labels.
        n_masked
            How many masks, 1..L; averaged over all of these with equal weight it is the bound.
        """
        order = torch.rand(codes.shape, device=codes.device).argsort(1).argsort(1)
        masked = order < n_masked[:, None]
        logits = self(one_hot_codes(torch.where(masked, MASK, codes.long()), 5), labels)
        errors = F.cross_entropy(logits, codes.long(), reduction="none")
        return -(errors * masked).sum(1) * self.length / n_masked

    def loss(self, batch: Examples) -> Float[Tensor, ""]:
        """Minus the bound, nats a base."""
        n = len(batch.codes)
        spread = (torch.randperm(n, device=batch.codes.device) + torch.rand(1, device=batch.codes.device)) / n
        n_masked = (spread % 1 * self.length).long().clamp(max=self.length - 1) + 1  # evenly over the batch
        return -self.bound(batch.codes, self.hide(batch.labels), n_masked).mean() / self.length

    @torch.no_grad()
    def loglik(self, codes: UInt8[ndarray, "N L"], y: Any = None, *, n_samples: int = 16, batch_size: int = 256,
               seed: int = 0) -> Float[ndarray, " N"]:
        """Lower bound (ELBO) on the log-likelihood, nats a sequence; see `Generator.loglik`.

        Parameters
        ----------
        codes, y
            Sequences; activities they are given.
        n_samples
            Sets of masks that are averaged, their sizes evenly from 1 to L: the estimate of the bound is unbiased and
            its noise falls with their number; with `L` or more, every size is there.
        batch_size, seed
            Sequences at a time; of the masks.
        """
        self._check(codes)
        labels = self.wanted(y, len(codes))
        rng = np.random.default_rng(seed)
        total = np.zeros(len(codes))
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            for sample in range(n_samples):
                spread = (sample + rng.random(len(codes))) / n_samples
                n_masked = torch.from_numpy((spread * self.length).astype(np.int64) + 1)
                for some in rows(len(codes), batch_size):
                    estimate = self.bound(torch.from_numpy(codes[some]).to(self.device),
                                          labels[some].to(self.device), n_masked[some].to(self.device))
                    total[some] += estimate.double().cpu().numpy()
        return total / n_samples

    def draw(self, labels: Int64[Tensor, "n T"], allowed: Allowed, rng: np.random.Generator, *,
             steps: int | None = None, temperature: float = 1.0, guidance: float = 0.0
             ) -> UInt8[ndarray, "n L"]:
        """Reveal one batch.

        Parameters
        ----------
        labels, allowed, rng
            See `Generator.sample`.
        steps
            Passes of the network; bases that are revealed in the same step do not see each other. None: as many as
            bases, which is exact; half as many already blur what neighbors say about each other.
        temperature
            Of the probabilities of a base.
        guidance
            See `guided`.
        """
        if (steps is not None and steps < 1) or temperature <= 0:
            raise ConfigError(f"sampling needs steps >= 1 and temperature > 0; got {steps} and {temperature}")
        codes = allowed.fixed.copy()
        hidden = codes == MASK
        rank = np.where(hidden, rng.random(codes.shape), 2.0).argsort(axis=1).argsort(axis=1)
        n_hidden = hidden.sum(axis=1, keepdims=True)
        most = int(n_hidden.max(initial=0))
        steps = most if steps is None else min(steps, most)
        when = np.where(hidden, rank * steps // np.maximum(n_hidden, 1), -1)
        scores = torch.zeros(len(codes), 4, self.length, device=self.device)
        for step in range(steps):
            X = one_hot_codes(torch.from_numpy(codes).to(self.device), 5)
            logp = guided(lambda known, X=X: self(X, known), labels, self.n_labels, guidance) / temperature
            logp = logp + gumbel(rng, logp)
            now = when == step
            scores = torch.where(torch.from_numpy(now).to(self.device)[:, None], logp, scores)
            codes = np.where(now, logp.argmax(1).cpu().numpy(), codes).astype(np.uint8)
        return allowed.best(scores)
