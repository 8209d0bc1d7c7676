"""What training minimizes: the error of the prediction, and the penalties that a model asks for.

A model names its penalties by the keys of its output; their weights are here, so that no model knows a loss.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LossSpec:
    """Weights of the terms.

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
    """

    kind: Literal["smooth_l1", "mse"] = "smooth_l1"
    contrast: float = 0.0
    mask_kl: float = 0.01
    expression_do: float = 1.0
    diversity: float = 0.1


def expression_loss(output: dict[str, Tensor], y: Float[Tensor, "B T"], spec: LossSpec) -> dict[str, Tensor]:
    """Terms of the loss, each a scalar already weighted; their sum is minimized.

    Returns
    -------
    dict
        ``error``, ``contrast`` if it is on, and, where the output has them, ``mask_kl``, ``expression_do``,
        ``diversity``.
    """
    error = F.smooth_l1_loss if spec.kind == "smooth_l1" else F.mse_loss
    predicted = output["expression"].float()
    terms = {"error": error(predicted, y)}
    if spec.contrast:
        terms["contrast"] = spec.contrast * error(predicted - predicted.mean(dim=1, keepdim=True),
                                                  y - y.mean(dim=1, keepdim=True))
    if "mask_kl" in output:
        terms["mask_kl"] = spec.mask_kl * output["mask_kl"].mean()
    if "expression_do" in output:
        terms["expression_do"] = spec.expression_do * error(output["expression_do"].float(), y)
    if "diversity" in output:
        terms["diversity"] = spec.diversity * output["diversity"].mean()
    return terms
