"""The Beta information bottleneck: a learned mask over positions, around any generator and predictor.

A generator looks at the sequence and a parameter-free branch looks at the signals; each says, bin by bin,
how much of the position the predictor may see, as a Beta distribution. Their fusion is the posterior mask
``m`` in [0, 1]. A KL term pulls it towards a sparse prior, so that only what pays for itself stays open.

References
----------
Su et al., ICLR 2025, arXiv:2502.13991 (Seq2Exp). Written from the paper. Our differences: signals are
calibrated track by track, so that their units do not decide the mask (``calibrate``; switch it off for the
published behaviour); include/exclude/keep intervals and a requested sparsity are arguments.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.errors import SchemaError

_TINY = 1e-4


class Posterior(NamedTuple):
    """Beta distribution of the mask, bin by bin; both parameters ``(B, n_bins)``, positive."""

    alpha: Tensor
    beta: Tensor

    @property
    def mean(self) -> Tensor:
        """Expected mask, ``(B, n_bins)`` in (0, 1)."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def sd(self) -> Tensor:
        """Standard deviation of the mask, ``(B, n_bins)``."""
        total = self.alpha + self.beta
        return (self.alpha * self.beta / (total.square() * (total + 1))).sqrt()


def beta_kl(alpha: Tensor, beta: Tensor, prior_alpha: float, prior_beta: float) -> Tensor:
    """Kullback–Leibler divergence of ``Beta(alpha, beta)`` from the prior, in nats, element by element.

    Closed form: ``ln B(a0,b0) − ln B(a,b) + (a−a0)ψ(a) + (b−b0)ψ(b) + (a0−a+b0−b)ψ(a+b)``.
    """
    prior = alpha.new_tensor([prior_alpha, prior_beta])
    log_b0 = torch.lgamma(prior).sum() - torch.lgamma(prior.sum())
    total = alpha + beta
    log_b = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(total)
    return (log_b0 - log_b + (alpha - prior_alpha) * torch.digamma(alpha)
            + (beta - prior_beta) * torch.digamma(beta)
            + (prior_alpha + prior_beta - total) * torch.digamma(total))


def top_fraction(score: Float[Tensor, "B bins"], fraction: float) -> Float[Tensor, "B bins"]:
    """Hard mask that keeps the best `fraction` of the bins of every row (at least one); ties go left."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction lies in (0, 1]; got {fraction}")
    n = max(1, round(fraction * score.shape[1]))
    index = torch.sort(score, dim=1, descending=True, stable=True).indices[:, :n]
    return torch.zeros_like(score).scatter_(1, index, 1.0)


class BetaMask(nn.Module):
    """Posterior mask over bins from a generator's two numbers a bin and from the signals.

    Parameters
    ----------
    n_signals
        Number of signal tracks; 0 leaves the generator alone.
    kind
        ``"soft"``: a sample in training, the mean at test. ``"hard"``: 0 or 1 by the 0.5 line, with the
        straight-through gradient.
    sparsity
        Prior mean ρ: the fraction of bins expected to be open.
    concentration
        Prior concentration κ: the prior is ``Beta(κ, κ(1−ρ)/ρ)``.
    prior_scale, beta_min, z_scale
        k, β_min and z of the paper.
    thresholds
        c, one a track: the signal (after calibration, if any) at which a track alone is undecided.
        None means 1 for every track.
    weights
        Weight of each track in the signal branch, normalized to sum 1; None means equal.
    use_generator, use_signals
        Ablations: False drops that branch from the mask.

    Notes
    -----
    Signals must be non-negative; negative values are read as 0. Until `calibrate` is called the scales
    are 1, as published.
    """

    thresholds: Tensor
    weights: Tensor
    scale: Tensor

    def __init__(self, n_signals: int, *, kind: Literal["soft", "hard"] = "soft", sparsity: float = 0.1,
                 concentration: float = 10.0, prior_scale: float = 10.0, beta_min: float = 1.0,
                 z_scale: float = 1.0, thresholds: tuple[float, ...] | None = None,
                 weights: tuple[float, ...] | None = None, use_generator: bool = True,
                 use_signals: bool = True):
        super().__init__()
        if kind not in ("soft", "hard"):
            raise ValueError(f"kind is 'soft' or 'hard'; got {kind!r}")
        if not 0 < sparsity < 1:
            raise ValueError(f"sparsity lies in (0, 1); got {sparsity}")
        for name, value in (("thresholds", thresholds), ("weights", weights)):
            if value is not None and len(value) != n_signals:
                raise ValueError(f"{name} needs one number a track: expected {n_signals}, got {len(value)}")
        self.kind = kind
        self.sparsity, self.concentration = sparsity, concentration
        self.prior_scale, self.beta_min, self.z_scale = prior_scale, beta_min, z_scale
        self.use_generator = use_generator
        self.use_signals = use_signals and n_signals > 0
        if not (self.use_generator or self.use_signals):
            raise ValueError("a mask needs the generator or at least one signal; both are switched off")
        c = torch.tensor(thresholds if thresholds is not None else (1.0,) * n_signals)
        w = torch.tensor(weights if weights is not None else (1.0,) * n_signals)
        self.register_buffer("thresholds", c)
        self.register_buffer("weights", w / w.sum() if n_signals else w)
        self.register_buffer("scale", torch.ones(n_signals))

    @property
    def prior(self) -> tuple[float, float]:
        """The prior's two Beta parameters."""
        return self.concentration, self.concentration * (1 - self.sparsity) / self.sparsity

    @torch.no_grad()
    def calibrate(self, signals: Float[Tensor, "B S bins"]) -> None:
        """Scale each track so that its ``1 − sparsity`` quantile sits at the track's threshold.

        The signal branch alone is then undecided (mask 0.5) exactly at the bins that the requested
        sparsity would cut, whatever the units of the track. A track with less than that fraction of
        positive bins is scaled by its median positive value. Use training windows only.
        """
        for s in range(signals.shape[1]):
            values = signals[:, s].flatten().clamp_min(0).float()
            positive = values[values > 0]
            if not len(positive):
                continue
            q = torch.sort(values).values[int((1 - self.sparsity) * (len(values) - 1))]
            q = q if q > 0 else positive.median()
            self.scale[s] = self.thresholds[s] / q

    def posterior(self, z: Float[Tensor, "B bins 2"] | None, S: Float[Tensor, "B S bins"] | None) -> Posterior:
        """Fuse generator output `z` and signals `S` to the Beta of every bin."""
        alpha = beta = None
        if self.use_generator:
            if z is None:
                raise SchemaError("this mask uses the generator; expected its output (B, bins, 2), got None")
            alpha = F.softplus(z[..., 1].float()) + self.beta_min
            beta = F.softplus(z[..., 0].float()) + self.beta_min
        if self.use_signals:
            if S is None:
                raise SchemaError(f"this mask uses {len(self.scale)} signal tracks; got none; pass S (B, S, bins)")
            x = S.float().clamp_min(0) * self.scale[:, None]
            a2 = torch.einsum("bsl,s->bl", x + self.beta_min, self.weights) * self.prior_scale
            b2 = ((self.thresholds + self.beta_min) * self.weights).sum() * self.prior_scale
            alpha = a2 if alpha is None else alpha + a2
            beta = b2.expand_as(a2) if beta is None else beta + b2
        if alpha is None or beta is None:
            raise SchemaError("a mask without branches has no posterior")
        return Posterior((alpha * self.z_scale).clamp_min(_TINY), (beta * self.z_scale).clamp_min(_TINY))

    def kl(self, posterior: Posterior) -> Float[Tensor, "B bins"]:
        """KL of the posterior from the sparse prior, nats per bin."""
        return beta_kl(posterior.alpha, posterior.beta, *self.prior)

    def draw(self, posterior: Posterior, keep: Float[Tensor, "B bins"] | None = None,
             include: Float[Tensor, " bins"] | None = None) -> Float[Tensor, "B bins"]:
        """Turn the posterior into the mask: a sample in training, the mean (or its 0.5 line) at test.

        Parameters
        ----------
        posterior
            From `posterior`.
        keep
            Multiplied in last: 0 erases a bin (blacklist, an element whose effect is asked), 1 leaves it.
        include
            1 where the mask is forced open (the core promoter), else 0.
        """
        if self.training:
            m = torch.distributions.Beta(posterior.alpha, posterior.beta, validate_args=False).rsample()
        else:
            m = posterior.mean
        if self.kind == "hard":
            m = m + ((m >= 0.5).to(m.dtype) - m).detach()
        if include is not None:
            m = m + (1 - m) * include
        if keep is not None:
            m = m * keep
        return m


class Bottleneck(nn.Module):
    """Predictor that sees its input only through the mask that the generator and the signals draw.

    Parameters
    ----------
    generator
        ``(B, bins, d) -> (B, bins, 2)``, or None when the mask does not use one.
    mask
        The `BetaMask`.
    predictor
        ``(B, bins, d), covariates -> (B, T)``.
    d_empty
        Width of the learned token that closed bins show; None shows zeros.
    """

    def __init__(self, generator: nn.Module | None, mask: BetaMask, predictor: nn.Module,
                 d_empty: int | None = None):
        super().__init__()
        self.generator, self.mask, self.predictor = generator, mask, predictor
        self.empty = None if d_empty is None else nn.Parameter(torch.randn(d_empty))

    def cover(self, tokens: Float[Tensor, "B bins d"], m: Float[Tensor, "B bins"]) -> Float[Tensor, "B bins d"]:
        """Show each token to the degree `m`; a closed bin shows the empty token (or zeros).

        With an empty token, tokens are brought to unit root mean square first, so that `m` alone says how much
        of a bin is seen next to it.
        """
        m = m.unsqueeze(-1).to(tokens.dtype)
        if self.empty is None:
            return tokens * m
        return torch.lerp(self.empty.to(tokens.dtype).expand_as(tokens), F.rms_norm(tokens, tokens.shape[-1:]), m)

    def posterior(self, E: Float[Tensor, "B bins d"], S: Float[Tensor, "B S bins"] | None) -> Posterior:
        """Beta of the mask from what the generator may see, `E`, and the signals."""
        return self.mask.posterior(None if self.generator is None else self.generator(E), S)

    def forward(self, E: Float[Tensor, "B bins d"], tokens: Float[Tensor, "B bins d"],
                S: Float[Tensor, "B S bins"] | None = None, covariates: Float[Tensor, "B C"] | None = None,
                keep: Float[Tensor, "B bins"] | None = None, include: Float[Tensor, " bins"] | None = None
                ) -> tuple[Tensor, Tensor]:
        """Prediction ``(B, T)`` from the masked `tokens`, and the mean KL of each row ``(B,)``."""
        posterior = self.posterior(E, S)
        m = self.mask.draw(posterior, keep, include)
        y = self.predictor(self.cover(tokens, m), covariates)
        return y, self.mask.kl(posterior).mean(dim=1)
