"""EPInformer: expression from a promoter and the candidate elements around it, joined by attention.

Lin, Luo & Pinello, "EPInformer: scalable and integrative prediction of gene expression from promoter-enhancer
sequences with multimodal epigenomic profiles", Nat Commun 2026, doi:10.1038/s41467-026-70535-8. Written from the
paper's description; the authors' code (pinellolab/EPInformer@8ffc6ee:EPInformer/models.py) was not read.

A gene is no window here but a set: its promoter and up to 60 candidate elements, each cut out on its own. One tower of
convolutions turns each into a vector, features of the element (distance, activity, contact) are added, a transformer
without positions mixes them, and the promoter's vector predicts. Where the promoter looks ranks the elements.

One sequence batch holds the set: the segments stand side by side, the promoter in the middle, as the TSS stands in the
middle of a window. So a bin of signals is a segment, an all-N segment is a free slot, and the reverse complement of the
batch is the gene read from the other strand.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.nn.conv import BatchNorm1d, Conv1d, MaxPool1d
from ciscribe.nn.heads import ExpressionHead

CARD = Card(
    name="epinformer", kind="model", task="regression", parameters=655_489,
    summary="Predicts a gene's expression from its promoter and candidate elements, and shows which ones it looks at.",
    paper="Lin, Luo & Pinello, Nat Commun 2026, doi:10.1038/s41467-026-70535-8",
    code="pinellolab/EPInformer@8ffc6ee:EPInformer/models.py, not read; written from the paper's description",
    attribution=("gradient", "ism", "deeplift", "attention"),
    differences=(
        "Segments stand side by side in one batch, the promoter in the middle; features of the segments are signals "
        "of one bin a segment; the mRNA features and the promoter's activity are covariates.",
        "Ours, because the description leaves them open: positions of a segment are averaged after the tower; a block "
        "adds a 1×1 convolution of its input before it pools; features enter through one linear layer; the "
        "transformer's MLPs are twice as wide as its vectors; widths of the prediction MLP.",
        "Every vector attends to every other one; free slots are attended to by none.",
        "The tower is trained with the rest; the paper may first train it on the activity of elements alone.",
        "keep=0 on a segment takes an element away as if it were no candidate; on the promoter it does nothing.",
    ),
    n_policy="N is four zeros; a segment of nothing but N is a free slot",
)
PRESETS = {"cpu": {"length": 512, "channels": (64, 48, 48, 48, 48), "n_layers": 2}}

_STEM = 8
_KERNEL = 3


class _Block(nn.Module):
    """Convolution, batch norm, ELU, joined by a 1×1 convolution of the input, pooled by 2."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.main = nn.Sequential(Conv1d(n_in, n_out, _KERNEL, padding="same"), BatchNorm1d(n_out), nn.ELU())
        self.point = Conv1d(n_in, n_out, 1)
        self.pool = MaxPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.main(x) + self.point(x))


class _Mix(nn.Module):
    """One layer of the transformer: norm and attention, norm and MLP, each added to its input."""

    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__()
        self.n_heads = n_heads
        self.norm, self.dropout = nn.LayerNorm(d_model), nn.Dropout(dropout)
        self.query, self.key, self.value, self.output = (nn.Linear(d_model, d_model) for _ in range(4))
        self.mlp = nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, 2 * d_model), nn.ReLU(),
                                 nn.Dropout(dropout), nn.Linear(2 * d_model, d_model), nn.Dropout(dropout))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # B heads n size

    def forward(self, x: Float[Tensor, "B n d"], present: Float[Tensor, "B n"]
                ) -> tuple[Float[Tensor, "B n d"], Float[Tensor, "B heads n n"]]:
        """Mix; the second value are the weights, queries in rows, before dropout."""
        h = self.norm(x)
        q, k, v = self._split(self.query(h)), self._split(self.key(h)), self._split(self.value(h))
        free = (1 - present)[:, None, None] * -1e9
        weights = (q @ k.mT * q.shape[-1]**-0.5 + free).softmax(dim=-1)
        x = x + self.dropout(self.output((self.dropout(weights) @ v).transpose(1, 2).flatten(2)))
        return x + self.mlp(x), weights


class EPInformer(nn.Module):
    """Promoter, candidate elements and their features to expression, by attention between them.

    Parameters
    ----------
    n_targets
        Cell types predicted; the paper trains one model a cell.
    n_signals
        Features of a segment; 0 for none. The paper: distance to the TSS, activity and contact; the promoter has its
        own (distance 0).
    n_covariates
        Features of the gene; 0 for none. The paper: eight of its mRNA, and the activity of its promoter.
    length
        bp of a segment.
    channels
        Filters of the stem (8 bp wide) and of the blocks (3 wide), each of which halves the length; the last is the
        width of the transformer.
    n_layers, n_heads
        Of the transformer.
    dropout
        In the transformer and the prediction MLP.

    References
    ----------
    See the head of this file.
    """

    def __init__(self, n_targets: int = 1, n_signals: int = 3, n_covariates: int = 9, *, length: int = 2000,
                 channels: tuple[int, ...] = (256, 128, 64, 64, 128), n_layers: int = 3, n_heads: int = 4,
                 dropout: float = 0.1):
        super().__init__()
        if length < (shortest := 2 ** (len(channels) - 1)):
            raise ValueError(f"{len(channels) - 1} blocks halve a segment, so length is at least {shortest} bp; got "
                             f"{length}")
        d_model = channels[-1]
        if d_model % n_heads:
            raise ValueError(f"the last of channels is shared out among {n_heads} heads; got {d_model}")
        self.length, self.n_signals = length, n_signals
        self.tower = nn.Sequential(Conv1d(4, channels[0], _STEM, padding="same"), nn.ELU(),
                                   *(_Block(*io) for io in pairwise(channels)))
        self.features = nn.Linear(n_signals, d_model) if n_signals else None
        self.layers = nn.ModuleList(_Mix(d_model, n_heads, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = ExpressionHead(d_model, n_targets, n_covariates=n_covariates, center_bins=1, dropout=dropout)

    def _tokens(self, X: Tensor, S: Tensor | None, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """Vectors of the segments ``(B, n, d)``, and 1 where there is one ``(B, n)``."""
        n, rest = divmod(X.shape[-1], self.length)
        if rest or not n % 2:
            raise SchemaError(f"EPInformer reads an odd number of segments of {self.length:,} bp side by side, the "
                              f"promoter in the middle; got {X.shape[-1]:,} bp; fill free slots with N")
        given = None if S is None else (S.shape[1], S.shape[2])
        if given != ((self.n_signals, n) if self.n_signals else None):
            raise SchemaError(f"this EPInformer takes {self.n_signals} features of each of the {n} segments, S (B, "
                              f"{self.n_signals}, {n}); got {given or 'none'}")
        segments = X.unflatten(-1, (n, self.length)).transpose(1, 2)  # B n 4 length
        H = self.tower(segments.flatten(0, 1)).mean(dim=-1).unflatten(0, (-1, n))
        if self.features is not None and S is not None:
            H = H + self.features(S.transpose(1, 2))
        present = (X.detach().unflatten(-1, (n, self.length)).sum(dim=(1, 3)) > 0).to(H.dtype)
        if keep is not None:
            present = present * (keep > 0)
        promoter = torch.zeros_like(present)
        promoter[:, n // 2] = 1
        return H, torch.maximum(present, promoter)

    def attention(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S n"] | None = None, *,
                  keep: Float[Tensor, "B n"] | None = None, per_head: bool = False) -> Float[Tensor, "B layers ..."]:
        """How much each segment looks at each other one.

        Returns
        -------
        Tensor
            ``(B, layers, n, n)``, queries in rows, mean over the heads; ``(B, layers, heads, n, n)`` with `per_head`.
            The promoter is row ``n // 2``; columns of free slots are 0.
        """
        H, present = self._tokens(X, S, keep)
        layers = []
        for layer in self.layers:
            H, weights = layer(H, present)
            layers.append(weights if per_head else weights.mean(dim=1))
        return torch.stack(layers, dim=1)

    def forward(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S n"] | None = None,
                covariates: Float[Tensor, "B C"] | None = None, keep: Float[Tensor, "B n"] | None = None
                ) -> Float[Tensor, "B T"]:
        """Predict expression.

        Parameters
        ----------
        X
            One-hot segments of `length` bp side by side, an odd number of them, the promoter (TSS at its middle) in
            the middle. The order of the others does not matter; a segment of nothing but N is a free slot.
        S
            Features of the segments, in the same order, standardized.
        covariates
            Features of the gene, standardized.
        keep
            0 takes a segment away.

        Raises
        ------
        SchemaError
            When the segments are not whole and odd in number, or S does not fit them.
        """
        H, present = self._tokens(X, S, keep)
        for layer in self.layers:
            H, _ = layer(H, present)
        return self.head(self.norm(H), covariates)
