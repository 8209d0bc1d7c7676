"""GraphReg-like baseline: expression from local features that meet along a graph of chromatin contacts.

Karbalayghareh, Sahin & Leslie, "Chromatin interaction-aware gene regulatory modeling with graph attention networks",
Genome Research 2022, doi:10.1101/gr.275870.121. Written from the paper's description; the authors' code
(karbalayghareh/GraphReg) was not read.

Convolutions turn the window into nodes of a few hundred or thousand bp; graph attention lets every node read those
that it meets, more where contact is more frequent; the node of the TSS predicts.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.nn.conv import Conv1d, ConvStem
from ciscribe.nn.heads import ExpressionHead

CARD = Card(
    name="graphreg", kind="model", task="regression", parameters=391_504,
    summary="Predicts a gene's expression from stretches of DNA and signals that reach it along a graph of contacts.",
    paper="Karbalayghareh, Sahin & Leslie, Genome Research 2022, doi:10.1101/gr.275870.121",
    code="karbalayghareh/GraphReg, not read; written from the paper's description",
    attribution=("gradient", "ism", "attention"),
    differences=(
        "GraphReg-like, not GraphReg: one gene a window, whose middle node is read, instead of all bins of 6 Mb.",
        "Contacts are the power law of the distance between nodes, not a Hi-C map: every pair within reach is an edge, "
        "and the log of its expected contact is added to what attention makes of it. A measured contact track of the "
        "TSS can be among the signals.",
        "Sequence and signals are read together, each by its own embedding (the paper trains Seq- and Epi-GraphReg).",
        "Expression is regressed; the paper predicts CAGE counts along the bins with a Poisson loss.",
    ),
    n_policy="N is four zeros",
)


class _Attention(nn.Module):
    """One layer of graph attention: a node keeps itself and adds what its neighbors say, heads side by side."""

    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(d_model)
        self.value, self.own = nn.Linear(d_model, d_model, bias=False), nn.Linear(d_model, d_model)
        self.sender, self.reader = nn.Linear(d_model, n_heads), nn.Linear(d_model, n_heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, H: Float[Tensor, "B n d"], prior: Float[Tensor, "n n"]
                ) -> tuple[Float[Tensor, "B n d"], Float[Tensor, "B heads n n"]]:
        h = self.norm(H)
        reads, sends = self.reader(h).mT.unsqueeze(-1), self.sender(h).mT.unsqueeze(-2)
        logits = F.leaky_relu(reads + sends, 0.2)
        weights = (logits + prior).softmax(dim=-1)  # B heads n n, readers in rows
        values = self.value(h).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        heard = (weights @ values).transpose(1, 2).flatten(2)
        return H + self.dropout(F.elu(self.own(h) + heard)), weights


class GraphReg(nn.Module):
    """Window of DNA and signals to expression, by graph attention between its stretches.

    Parameters
    ----------
    n_targets, n_signals, n_covariates
        As in `ciscribe.models.seq2exp.Seq2Exp`.
    resolution
        Bin of the signals and of the convolutional stem in bp.
    node_bp
        Length of a node in bp, a multiple of `resolution`; the paper: 5,000.
    d_model, n_layers, n_heads
        Of the graph attention; the paper: 3 layers of 4 heads.
    gamma
        Exponent of contact by distance.
    reach_bp
        Nodes farther apart than this share no edge.
    stem_channels, dropout
        Of the stem; in the layers.
    """

    def __init__(self, n_targets: int = 1, n_signals: int = 3, n_covariates: int = 0, *, resolution: int = 128,
                 node_bp: int = 5120, d_model: int = 128, n_layers: int = 3, n_heads: int = 4, gamma: float = 1.0,
                 reach_bp: int = 2_000_000, stem_channels: int = 48, dropout: float = 0.0):
        super().__init__()
        if node_bp % resolution:
            raise ValueError(f"a node is a whole number of bins of {resolution} bp; got node_bp={node_bp}")
        if d_model % n_heads:
            raise ValueError(f"d_model is shared out among {n_heads} heads; got {d_model}")
        self.resolution, self.node_bp, self.gamma, self.reach_bp = resolution, node_bp, gamma, reach_bp
        self.n_signals = n_signals
        self.embed = ConvStem(d_model, resolution, channels=stem_channels)
        self.embed_signals = nn.Linear(n_signals, d_model) if n_signals else None
        self.mix = Conv1d(d_model, d_model, 5, padding=2)
        self.layers = nn.ModuleList(_Attention(d_model, n_heads, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = ExpressionHead(d_model, n_targets, n_covariates=n_covariates, center_bins=1, dropout=dropout)

    def _nodes(self, X: Tensor, S: Tensor | None, keep: Tensor | None) -> Float[Tensor, "B n d"]:
        """Vectors of an odd number of nodes, the middle one around the TSS."""
        if self.n_signals and S is None:
            raise ValueError(f"this model reads {self.n_signals} signal tracks; got none; pass S (B, S, bins)")
        H = self.embed(X)
        if self.embed_signals is not None and S is not None:
            H = H + self.embed_signals(S.transpose(1, 2))
        H = H if keep is None else H * keep.unsqueeze(-1)
        H = F.elu(self.mix(H.transpose(1, 2)))
        width, bins = self.node_bp // self.resolution, H.shape[-1]
        n = 2 * ((bins - width) // (2 * width)) + 1
        if n < 3:
            raise SchemaError(f"a graph needs 3 nodes of {self.node_bp:,} bp or more; got a window of "
                              f"{X.shape[-1]:,} bp; use a smaller node_bp")
        first = (bins - n * width) // 2  # what does not fill a node at either end is left out
        return H[..., first:first + n * width].unflatten(-1, (n, width)).amax(dim=-1).transpose(1, 2)

    def _prior(self, n: int, like: Tensor) -> Float[Tensor, "n n"]:
        """Log of the contact that the distance of two nodes lets expect; −1e9 where there is no edge."""
        at = torch.arange(n, device=like.device, dtype=like.dtype)
        nodes = (at[:, None] - at).abs()
        return torch.where(nodes * self.node_bp <= self.reach_bp, -self.gamma * nodes.clamp_min(1).log(), -1e9)

    def attention(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"] | None = None, *,
                  keep: Float[Tensor, "B bins"] | None = None, per_head: bool = False) -> Float[Tensor, "B layers ..."]:
        """How much each node reads of each other one: ``(B, layers, n, n)``, readers in rows, mean over the heads."""
        H = self._nodes(X, S, keep)
        prior, layers = self._prior(H.shape[1], H), []
        for layer in self.layers:
            H, weights = layer(H, prior)
            layers.append(weights if per_head else weights.mean(dim=1))
        return torch.stack(layers, dim=1)

    def forward(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"] | None = None,
                covariates: Float[Tensor, "B C"] | None = None, keep: Float[Tensor, "B bins"] | None = None
                ) -> dict[str, Tensor]:
        """Predict ``{"expression": (B, T)}``; arguments as in `ciscribe.models.seq2exp.Seq2Exp.forward`.

        Raises
        ------
        SchemaError
            When the window holds fewer than 3 nodes.
        """
        H = self._nodes(X, S, keep)
        prior = self._prior(H.shape[1], H)
        for layer in self.layers:
            H, _ = layer(H, prior)
        return {"expression": self.head(self.norm(H), covariates)}
