"""Caduceus as an expression model: bidirectional state space over the whole window, with or without signals.

Schiff et al., "Caduceus: Bi-directional equivariant long-range DNA sequence modeling", ICML 2024,
arXiv:2403.03234; used as the sequence baseline (and, with signals added to the embedding, as the strongest
baseline) of Seq2Exp, arXiv:2502.13991. Written from the papers.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.nn.conv import ConvStem
from ciscribe.nn.heads import ExpressionHead
from ciscribe.nn.ssm import BiMambaStack
from ciscribe.sequence import reverse_complement

CARD = Card(
    name="caduceus", kind="model",
    summary="Predicts a gene's expression from the whole window, without a mask: the unmasked reference.",
    paper="Schiff et al., ICML 2024, arXiv:2403.03234; as baseline in Su et al., ICLR 2025, arXiv:2502.13991",
    parameters=574_209, task="regression", attribution=("gradient", "ism"),
    differences=(
        "The two directions of a layer share the in- and out-projection; convolution, step sizes and state matrix are "
        "each direction's own.",
        "resolution > 1 runs on bins after a convolutional stem.",
        "Reverse-complement equivariance (PS) runs the shared layers on both strands and averages what the head "
        "sees; the published layers, which never mix the two halves, compute the same.",
        "Trained from scratch; no masked-language pretraining.",
    ),
)


class Caduceus(nn.Module):
    """Bidirectional state-space network from sequence (and signals) to expression.

    Parameters
    ----------
    n_targets, n_signals, n_covariates
        As in `ciscribe.models.seq2exp.Seq2Exp`; ``n_signals=0`` is the sequence-only model.
    resolution, d_model, n_layers, d_state, d_conv, expand, stem_channels, dropout, center_bp, pool
        As there.
    rc_equivariant
        True makes the prediction of a sequence equal to that of its reverse complement (with its signals
        reversed), at twice the cost. Windows read 5'→3' of the gene do not need it.
    """

    def __init__(self, n_targets: int = 1, n_signals: int = 0, n_covariates: int = 9, *, resolution: int = 1,
                 d_model: int = 128, n_layers: int = 4, d_state: int = 16, d_conv: int = 4, expand: int = 2,
                 center_bp: int = 2000, pool: Literal["center", "window", "attention"] = "center",
                 stem_channels: int = 48, dropout: float = 0.0, rc_equivariant: bool = False):
        super().__init__()
        self.resolution, self.rc_equivariant, self.n_signals = resolution, rc_equivariant, n_signals
        self.embed = ConvStem(d_model, resolution, channels=stem_channels)
        self.embed_signals = nn.Linear(n_signals, d_model) if n_signals else None
        self.stack = BiMambaStack(d_model, n_layers, d_state=d_state, d_conv=d_conv, expand=expand, dropout=dropout)
        self.head = ExpressionHead(d_model, n_targets, n_covariates=n_covariates,
                                   center_bins=max(1, center_bp // resolution), pool=pool, dropout=dropout)

    def _encode(self, X: Tensor, S: Tensor | None, keep: Tensor | None) -> Tensor:
        tokens = self.embed(X)
        if self.embed_signals is not None and S is not None:
            tokens = tokens + self.embed_signals(S.transpose(1, 2))
        if keep is not None:
            tokens = tokens * keep.unsqueeze(-1)
        return self.stack(tokens)  # B bins d

    def forward(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"] | None = None,
                covariates: Float[Tensor, "B C"] | None = None, keep: Float[Tensor, "B bins"] | None = None
                ) -> dict[str, Tensor]:
        """Predict ``{"expression": (B, T)}``; arguments as in `ciscribe.models.seq2exp.Seq2Exp.forward`."""
        if self.n_signals and S is None:
            raise ValueError(f"this model reads {self.n_signals} signal tracks; got none; pass S (B, S, bins)")
        S = S if self.n_signals else None
        H = self._encode(X, S, keep)
        if self.rc_equivariant:
            back = self._encode(reverse_complement(X), None if S is None else S.flip(-1),
                                None if keep is None else keep.flip(-1))
            H = torch.stack([H, back.flip(1)]).mean(dim=0)
        return {"expression": self.head(H, covariates)}
