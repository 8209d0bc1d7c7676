"""A language model of regulatory DNA that writes base after base, for a wanted activity."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.card import Card
from ciscribe.design.generators.base import FREE, Allowed, Generator, rows
from ciscribe.design.generators.network import DilatedConvs, LabelEmbedding
from ciscribe.errors import ConfigError
from ciscribe.train.generative import Examples

_START = 4  # the token before the first base


class AutoregressiveLM(Generator):
    """Writes sequences from left to right, each base by its probability given all before it and the wanted activity.

    Its likelihood is exact, which makes it a measure of naturalness and a policy for reinforcement learning.

    Parameters
    ----------
    length, n_labels, n_targets
        As in `Generator`.
    channels, n_layers, kernel
        Of the causal dilated convolutions; the defaults see 256 bp back and have 0.55 million weights.

    References
    ----------
    Lal et al., "Designing realistic regulatory DNA with autoregressive language models" (regLM), Genome Research
    2024, doi:10.1101/gr.279142.124; dilated causal convolutions: van den Oord et al. 2016, arXiv:1609.03499.
    """

    card: ClassVar[Card] = Card(
        name="autoregressive", kind="designer",
        summary="A language model that writes regulatory DNA base after base, for a wanted quantile of activity.",
        paper="Lal et al., Genome Research 2024, doi:10.1101/gr.279142.124 (regLM)",
        parameters=552_324,
        differences=(
            "A small network of causal dilated convolutions, trained from scratch, instead of a pretrained HyenaDNA.",
            "Labels are vectors added in each layer, from a table of their own, instead of tokens before the sequence: "
            "any number of them can never be taken for bases.",
            "Labels are hidden in a tenth of the examples, so that it also writes, and judges, without any.",
            "All sequences have one length, so there is no end token, and each position has a bias of its own.",
            "Hard constraints hold while it writes: a base after which no allowed sequence is left is never chosen; "
            "with given bases, by projecting the noisy log-probabilities afterwards.",
        ),
        n_policy="refused in training; in `fixed`, a base that is to be made",
    )

    def __init__(self, length: int, *, n_labels: int = 5, n_targets: int = 1, channels: int = 128, n_layers: int = 8,
                 kernel: int = 3):
        super().__init__(length, n_labels, n_targets,
                         {"channels": channels, "n_layers": n_layers, "kernel": kernel})
        self.base = nn.Embedding(5, channels)
        self.label = LabelEmbedding(n_targets, n_labels, channels)
        self.network = DilatedConvs(channels, n_layers, kernel, length, causal=True)

    def forward(self, codes: Integer[Tensor, "N L"], labels: Int64[Tensor, "N T"] | None = None
                ) -> Float[Tensor, "N 4 L"]:
        """Logits of each base given those before it; differentiable with respect to the weights.

        Parameters
        ----------
        codes
            A C G T = 0..3.
        labels
            `n_labels` is unknown; None knows none.
        """
        if labels is None:
            labels = torch.full((len(codes), self.n_targets), self.n_labels, device=codes.device)
        shifted = F.pad(codes.long()[:, :-1], (1, 0), value=_START)
        return self.network(self.base(shifted).transpose(1, 2), self.label(labels))

    def loss(self, batch: Examples) -> Float[Tensor, ""]:
        """Cross-entropy, nats a base."""
        return F.cross_entropy(self(batch.codes, self.hide(batch.labels)), batch.codes.long())

    @torch.no_grad()
    def loglik(self, codes: UInt8[ndarray, "N L"], y: Any = None, *, batch_size: int = 256, seed: int = 0
               ) -> Float[ndarray, " N"]:
        """Exact log-likelihood, nats a sequence; see `Generator.loglik`."""
        self._check(codes)
        labels = self.wanted(y, len(codes))
        return self._loglik(codes, labels, batch_size)

    @torch.no_grad()
    def posterior(self, codes: UInt8[ndarray, "N L"], *, target: int = 0, batch_size: int = 256
                  ) -> Float[ndarray, "N labels"]:
        """Probability of each label given the sequence, all equally probable before; regLM's filter of its designs.

        Parameters
        ----------
        codes
            Of the generator's length.
        target
            Whose labels; those of other targets are unknown.
        """
        self._check(codes)
        if not self.is_conditional:
            raise ConfigError(f"this {self.card.name} was fitted without activities and knows no labels; give y to "
                              "fit()")
        n_used = int(self.levels[target].isfinite().sum())
        scores = np.full((len(codes), self.n_labels), -np.inf)
        for label in range(n_used):
            labels = torch.full((len(codes), self.n_targets), self.n_labels)
            labels[:, target] = label
            scores[:, label] = self._loglik(codes, labels, batch_size)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def _loglik(self, codes: ndarray, labels: Tensor, batch_size: int) -> Float[ndarray, " N"]:
        found = np.empty(len(codes))
        for some in rows(len(codes), batch_size):
            X = torch.from_numpy(codes[some]).to(self.device)
            logp = self(X, labels[some].to(self.device)).double().log_softmax(1)
            found[some] = logp.gather(1, X.long()[:, None]).sum((1, 2)).cpu().numpy()
        return found

    def writer(self, labels: Int64[Tensor, "n T"]) -> Callable[[UInt8[ndarray, "n i"]], Float[Tensor, "n 4"]]:
        """A function from what was written so far to the logits of the next base, for `Constraints.sample`.

        It remembers what it has read, so that a base costs one position and not the whole sequence; prefixes that
        do not go on from the last call are read anew.

        Parameters
        ----------
        labels
            Of each row; a prefix has as many rows.
        """
        condition = self.label(labels)
        n = len(labels)
        pasts, read = self.network.pasts(n), np.empty((n, 0), np.uint8)
        logits = torch.empty(0)

        @torch.no_grad()
        def step(prefix: ndarray) -> Tensor:
            nonlocal read, logits
            if len(prefix) != n:
                raise ConfigError(f"a writer of {n} sequences was asked for {len(prefix)}")
            i = prefix.shape[1]
            goes_on = read.shape[1] == i > 0 and np.array_equal(read[:, 1:], prefix[:, :i - 1])
            for j in range(i if goes_on else 0, i + 1):
                token = prefix[:, j - 1] if j else np.full(n, _START)
                x = self.base(torch.from_numpy(token.astype(np.int64)).to(self.device))
                logits = self.network.step(x, condition, pasts, j)
            read = np.concatenate([np.full((n, 1), _START, np.uint8), prefix], axis=1)
            return logits

        return step

    def draw(self, labels: Int64[Tensor, "n T"], allowed: Allowed, rng: np.random.Generator, *,
             temperature: float = 1.0, top_k: int | None = None,
             top_p: float | None = None) -> UInt8[ndarray, "n L"]:
        """Write one batch.

        Parameters
        ----------
        labels, allowed, rng
            See `Generator.sample`. Bases that are fixed are read by those after them, not by those before.
        temperature
            Below 1 keeps to the probable, above 1 explores.
        top_k, top_p
            Only the `top_k` most probable bases; only the fewest whose probabilities reach `top_p`. A base outside of
            them is still chosen where constraints leave nothing else.
        """
        step, fixed = self.writer(labels), allowed.fixed

        def choose(prefix: ndarray) -> Float[ndarray, "n 4"]:
            return shaped(step(prefix).double().cpu().numpy(), temperature, top_k, top_p)

        if allowed.constraints is not None and (fixed == FREE).all():
            return allowed.constraints.sample(choose, len(fixed), rng, allowed.origin)
        codes, scores = fixed.copy(), np.zeros((len(fixed), 4, self.length))
        for i in range(self.length):
            scores[:, :, i] = choose(codes[:, :i]) + rng.gumbel(size=(len(fixed), 4))
            codes[:, i] = np.where(fixed[:, i] == FREE, scores[:, :, i].argmax(axis=1), fixed[:, i])
        return allowed.best(scores)


def shaped(logits: Float[ndarray, "n 4"], temperature: float, top_k: int | None, top_p: float | None
           ) -> Float[ndarray, "n 4"]:
    """Logits made sharper or flatter, with the improbable bases pushed far down (−1,000, not −infinity).

    Raises
    ------
    ConfigError
        For a temperature, count or share that makes no sense.
    """
    if temperature <= 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ConfigError("sampling needs temperature > 0, top_k >= 1 and top_p in (0, 1]; got "
                          f"{temperature}, {top_k} and {top_p}")
    logits = logits / temperature
    order = (-logits).argsort(axis=1)
    rank = order.argsort(axis=1)
    dropped = np.zeros(logits.shape, bool)
    if top_k is not None:
        dropped |= rank >= top_k
    if top_p is not None:
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = np.take_along_axis(p / p.sum(axis=1, keepdims=True), order, axis=1)
        dropped |= np.take_along_axis(p.cumsum(axis=1) - p >= top_p, rank, axis=1)
    return np.where(dropped, logits - 1000.0, logits)
