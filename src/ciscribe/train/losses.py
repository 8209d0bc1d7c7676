"""What training minimizes, as functions of numbers: one published formula each.

A NaN in the targets means "not measured": it is left out of every mean, and a mean over nothing is 0. `weights`
count the targets (axis 1): a weighted mean is taken, so their scale does not matter. `expression_loss` adds the
penalties that a model names by the keys of its output; their weights are here, so that no model knows a loss.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-7
"""Added inside logarithms of rates, as published."""


def _known(y: Tensor) -> tuple[Tensor, Tensor]:
    """Where the targets were measured, and the targets with 0 elsewhere (a NaN would poison the gradient)."""
    measured = ~y.isnan()
    return measured, torch.where(measured, y, 0)


def _mean(values: Tensor, measured: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean of the measured `values`; 0, with a gradient of 0, when nothing was measured."""
    weight = measured.to(values.dtype)
    if weights is not None:
        weight = weight * weights.to(weight).reshape(1, -1, *[1] * (values.ndim - 2))
    total = weight.sum()
    return (torch.where(measured, values, 0) * weight).sum() / torch.where(total > 0, total, 1)


# ---- numbers


def mse(predicted: Float[Tensor, "B T *bins"], y: Float[Tensor, "B T *bins"],
        weights: Float[Tensor, " T"] | None = None) -> Float[Tensor, ""]:
    """Mean squared error. The sum of DeepSTARR's two tasks is twice this."""
    measured, y = _known(y)
    return _mean((predicted - y).square(), measured, weights)


def smooth_l1(predicted: Float[Tensor, "B T *bins"], y: Float[Tensor, "B T *bins"],
              weights: Float[Tensor, " T"] | None = None) -> Float[Tensor, ""]:
    """Huber's error with threshold 1: ½ d² where ``|d| < 1``, else ``|d| − ½``."""
    measured, y = _known(y)
    return _mean(F.smooth_l1_loss(predicted, y, reduction="none"), measured, weights)


def l1_kl(predicted: Float[Tensor, "B T"], y: Float[Tensor, "B T"], weights: Float[Tensor, " T"] | None = None, *,
          kl_weight: float = 5.0) -> Float[Tensor, ""]:
    """Mean absolute error + `kl_weight` · KL(softmax over targets of `y` ‖ the same of the prediction).

    The KL is divided by the number of its terms, rows times targets, as published; a row with a target that was
    not measured has none. `weights` count in the absolute error only.

    References
    ----------
    Malinois: Gosai et al., Nature 2024, doi:10.1038/s41586-024-08070-z; sjgosai/boda2@d74deca.
    """
    measured, y = _known(y)
    kl = F.kl_div(predicted.log_softmax(1), y.log_softmax(1), reduction="none", log_target=True)
    whole = measured.all(dim=1, keepdim=True).expand_as(kl)
    return _mean((predicted - y).abs(), measured, weights) + kl_weight * _mean(kl, whole)


# ---- labels


def bce_from_logits(logits: Float[Tensor, "B T"], y: Float[Tensor, "B T"], weights: Float[Tensor, " T"] | None = None,
                    positive_weights: Float[Tensor, " T"] | None = None) -> Float[Tensor, ""]:
    """Binary cross-entropy: mean of ``−[w y ln p + (1 − y) ln(1 − p)]``; `positive_weights` are the w, else 1."""
    measured, y = _known(y)
    values = F.binary_cross_entropy_with_logits(logits, y, reduction="none", pos_weight=positive_weights)
    return _mean(values, measured, weights)


def soft_classes(y: Float[Tensor, " B"], n_bins: int = 18, sd: float = 0.5) -> Float[Tensor, "B n_bins"]:
    """Share of N(y + ½, sd) that falls in each bin [k, k + 1); the first and the last bin are open to their ends."""
    edges = torch.arange(1, n_bins, device=y.device, dtype=y.dtype)
    below = torch.special.ndtr((edges - (y[:, None] + 0.5)) / sd)
    return torch.diff(F.pad(F.pad(below, (1, 0)), (0, 1), value=1.0), dim=1)


def soft_class_kl(logits: Float[Tensor, "B n_bins"], y: Float[Tensor, " B"], *, sd: float = 0.5) -> Float[Tensor, ""]:
    """KL(`soft_classes` of the measured bin ‖ softmax of the logits), mean over the batch.

    References
    ----------
    LegNet: Penzar et al., Bioinformatics 2023, doi:10.1093/bioinformatics/btad457; autosome-ru/LegNet@63773bb.
    """
    measured, y = _known(y)
    divergence = F.kl_div(logits.log_softmax(1), soft_classes(y, logits.shape[1], sd), reduction="none").sum(1)
    return _mean(divergence, measured)


# ---- tracks and profiles


def poisson(predicted: Float[Tensor, "B T *bins"], y: Float[Tensor, "B T *bins"],
            weights: Float[Tensor, " T"] | None = None) -> Float[Tensor, ""]:
    """Poisson: mean of ``ŷ − y ln(ŷ + 1e-7)``; `predicted` are rates, 0 or more.

    References
    ----------
    Basenji: Kelley et al., Genome Res 2018, doi:10.1101/gr.227819.117.
    """
    measured, y = _known(y)
    return _mean(predicted - y * (predicted + EPSILON).log(), measured, weights)


def poisson_multinomial(predicted: Float[Tensor, "B T bins"], y: Float[Tensor, "B T bins"],
                        weights: Float[Tensor, " T"] | None = None, *, total_weight: float = 0.2,
                        rescale: bool = False) -> Float[Tensor, ""]:
    """Shape and total of each track apart: multinomial over bins + `total_weight` · Poisson of the sums.

    Of one example and track, with ŝ and s the sums over its L bins and ε = 1e-7:
    ``{−Σ (y + ε) ln((ŷ + ε) / ŝ) + w (ŝ − s ln ŝ)} / L``; then the mean. Bins that were not measured are left out
    of the sums and of L. `rescale` multiplies by ``2 / (1 + w)``.

    References
    ----------
    Borzoi: Linder et al., Nat Genet 2025, doi:10.1038/s41588-024-02053-6; calico/baskerville@544073b.
    """
    measured, y = _known(y)
    predicted = torch.where(measured, predicted, 0)
    total, expected = y.sum(-1), predicted.sum(-1).clamp_min(EPSILON)
    shape = -(y + EPSILON) * ((predicted + EPSILON) / expected.unsqueeze(-1)).log()
    error = torch.where(measured, shape, 0).sum(-1) + total_weight * (expected - total * expected.log())
    n = measured.sum(-1)
    return _mean(error / n.clamp_min(1), n > 0, weights) * (2 / (1 + total_weight) if rescale else 1)


def multinomial_nll(logits: Float[Tensor, "B tracks L"], counts: Float[Tensor, "B tracks L"]) -> Float[Tensor, ""]:
    """Negative log-likelihood of where the counts of a profile fall, given their number N.

    ``−ln Γ(N + 1) + Σ ln Γ(k + 1) − Σ k log_softmax(logits)``, mean over examples and tracks. A profile with a
    position that was not measured is left out.

    References
    ----------
    BPNet: Avsec et al., Nat Genet 2021, doi:10.1038/s41588-021-00782-6.
    """
    measured, counts = _known(counts)
    nll = (torch.lgamma(counts + 1) - counts * logits.log_softmax(-1)).sum(-1) - torch.lgamma(counts.sum(-1) + 1)
    return _mean(nll, measured.all(-1))


def count_mse(log_counts: Float[Tensor, "B n"], totals: Float[Tensor, "B n"]) -> Float[Tensor, ""]:
    """Squared error of the log count: mean of ``(ln(1 + N) − ĉ)²``."""
    return mse(log_counts, totals.log1p())


# ---- the loss of Seq2Exp and Prism


@dataclass(frozen=True)
class LossSpec:
    """Weights of the terms of `expression_loss`.

    Parameters
    ----------
    kind
        ``smooth_l1`` (Huber with threshold 1, as published) or ``mse``.
    contrast
        Weight of the error of the differences between targets: the same error after each gene's mean over targets
        is taken off prediction and target. 0 switches it off.
    mask_kl
        λ of Seq2Exp: weight of the mask's mean KL (nats a bin).
    expression_do
        α of Prism: weight of the error of the adjusted prediction.
    diversity
        β of Prism: weight of the penalty that keeps the backgrounds apart.
    signal_error
        Of Beacon: weight of the error with which the sequence alone says where the signals are.
    """

    kind: Literal["smooth_l1", "mse"] = "smooth_l1"
    contrast: float = 0.0
    mask_kl: float = 0.01
    expression_do: float = 1.0
    diversity: float = 0.1
    signal_error: float = 1.0


def expression_loss(output: dict[str, Tensor], y: Float[Tensor, "B T"], spec: LossSpec) -> dict[str, Tensor]:
    """Terms of the loss, each a scalar already weighted; their sum is minimized.

    Returns
    -------
    dict
        ``error``, ``contrast`` if it is on, and, where the output has them, ``mask_kl``, ``expression_do``,
        ``diversity``, ``signal_error``.
    """
    error = smooth_l1 if spec.kind == "smooth_l1" else mse
    predicted = output["expression"].float()
    terms = {"error": error(predicted, y)}
    if spec.contrast:
        terms["contrast"] = spec.contrast * error(_within(predicted, y), _within(y, y))
    if "mask_kl" in output:
        terms["mask_kl"] = spec.mask_kl * output["mask_kl"].mean()
    if "expression_do" in output:
        terms["expression_do"] = spec.expression_do * error(output["expression_do"].float(), y)
    if "diversity" in output:
        terms["diversity"] = spec.diversity * output["diversity"].mean()
    if "signal_error" in output:
        terms["signal_error"] = spec.signal_error * output["signal_error"].mean()
    return terms


def _within(values: Shaped[Tensor, "B T"], y: Shaped[Tensor, "B T"]) -> Tensor:
    """Values less the gene's mean over its measured targets."""
    measured = ~y.isnan()
    n = measured.sum(dim=1, keepdim=True).clamp_min(1)
    return values - torch.where(measured, values, 0).sum(dim=1, keepdim=True) / n
