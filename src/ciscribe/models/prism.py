"""Prism: expression from the proximal 2 kb with a backdoor adjustment for confounding signals.

Yang et al., ICLR 2026, arXiv:2602.21550. Written from the paper's description.

A light convolutional encoder turns the raw signals of a window into n weightings of the signal features,
hypothetical "backgrounds"; the prediction is averaged over them, and a penalty keeps them apart.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.card import Card
from ciscribe.nn.conv import ConvStem
from ciscribe.nn.heads import ExpressionHead
from ciscribe.nn.ssm import BiMambaStack

CARD = Card(
    name="prism", kind="model",
    summary="Predicts a gene's expression from the 2 kb around its start, averaging over signal backgrounds.",
    paper="Yang et al., ICLR 2026, arXiv:2602.21550",
    parameters=584_697, task="regression", attribution=("gradient", "ism"),
    differences=(
        "The two directions of a layer share the in- and out-projection; convolution, step sizes and state matrix are "
        "each direction's own.",
        "resolution > 1 runs on bins after a convolutional stem.",
        "The confounder encoder's kernel sizes are not published; ours (9, 5, pooled mean) has about as many "
        "parameters.",
    ),
    input_length=2000,
)


class _Confounders(nn.Module):
    """n weight vectors in (0, 1) over the signal features, from the raw signals of the window."""

    def __init__(self, n_signals: int, d_model: int, n: int, width: int = 24):
        super().__init__()
        self.n = n
        self.conv = nn.Sequential(nn.Conv1d(n_signals, width, 9, padding=4), nn.ReLU(),
                                  nn.Conv1d(width, width, 5, padding=2), nn.ReLU())
        self.out = nn.Linear(width, n * d_model)

    def forward(self, S: Float[Tensor, "B S bins"]) -> Float[Tensor, "B n d"]:
        return torch.sigmoid(self.out(self.conv(S).mean(dim=-1))).unflatten(1, (self.n, -1))


class Prism(nn.Module):
    """Sequence and signals of the proximal window to expression, averaged over learned backgrounds.

    Parameters
    ----------
    n_targets, n_signals, n_covariates
        As in `ciscribe.models.seq2exp.Seq2Exp`; at least one signal.
    n_confounders
        Backgrounds n: the paper reports 2, and 4 as best.
    temperature
        t of the diversity penalty.
    resolution, d_model, n_layers, d_state, d_conv, expand, stem_channels, dropout
        As in Seq2Exp.
    window_bp
        The model uses this many central bp of what it is given.
    """

    def __init__(self, n_targets: int = 1, n_signals: int = 3, n_covariates: int = 9, *, n_confounders: int = 2,
                 temperature: float = 1.0, resolution: int = 1, d_model: int = 128, n_layers: int = 4,
                 d_state: int = 16, d_conv: int = 4, expand: int = 2, window_bp: int = 2000,
                 stem_channels: int = 48, dropout: float = 0.0):
        super().__init__()
        if n_signals < 1 or n_confounders < 1:
            raise ValueError("Prism needs at least one signal track and one confounder; "
                             f"got {n_signals}, {n_confounders}")
        self.resolution, self.temperature = resolution, temperature
        self.window_bins = max(1, window_bp // resolution)
        self.embed = ConvStem(d_model, resolution, channels=stem_channels)
        self.embed_signals = nn.Linear(n_signals, d_model)
        self.confounders = _Confounders(n_signals, d_model, n_confounders)
        self.stack = BiMambaStack(d_model, n_layers, d_state=d_state, d_conv=d_conv, expand=expand, dropout=dropout)
        self.head = ExpressionHead(d_model, n_targets, n_covariates=n_covariates, dropout=dropout)

    def forward(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"],
                covariates: Float[Tensor, "B C"] | None = None, keep: Float[Tensor, "B bins"] | None = None
                ) -> dict[str, Tensor]:
        """Predict expression.

        Returns
        -------
        dict
            In training ``expression`` (B, T) without adjustment, ``expression_do`` (B, T) averaged over the
            backgrounds, and ``diversity`` (B, 1), small when the backgrounds differ. At test ``expression`` is the
            adjusted one, and the only key.
        """
        n_bins = S.shape[-1]
        k = min(self.window_bins, n_bins)
        a = (n_bins - k) // 2
        X = X[..., a * self.resolution:(a + k) * self.resolution]
        S = S[..., a:a + k]
        E = self.embed(X)  # B bins d
        H = self.embed_signals(S.transpose(1, 2))
        if keep is not None:
            gate = keep[:, a:a + k].unsqueeze(-1)
            E, H = E * gate, H * gate
        weights = self.confounders(S)  # B n d
        n = weights.shape[1]
        seen = E.unsqueeze(1) + H.unsqueeze(1) * weights.unsqueeze(2)  # B n bins d, all through the layers at once
        repeated = None if covariates is None else covariates.repeat_interleave(n, dim=0)
        adjusted = self.head(self.stack(seen.flatten(0, 1)), repeated).unflatten(0, (-1, n)).mean(dim=1)
        if not self.training:
            return {"expression": adjusted}
        unit = F.normalize(weights, dim=-1)
        similarity = 2 * self.temperature * (torch.einsum("bid,bjd->bij", unit, unit) - 1)
        diversity = torch.logsumexp(similarity.flatten(1), dim=1) - math.log(n)
        return {"expression": self.head(self.stack(E + H), covariates), "expression_do": adjusted,
                "diversity": diversity.unsqueeze(1)}
