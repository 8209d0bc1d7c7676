"""Xpresso: two convolutions over the promoter and the half-life features of the mRNA, to its steady-state level.

Agarwal & Shendure, "Predicting mRNA abundance directly from genomic sequence using deep convolutional neural
networks", Cell Rep 2020, doi:10.1016/j.celrep.2020.107663. Reference code, not copied:
vagarwal87/Xpresso@b5d1da2:Fig1_S2/Xpresso.py. What differs is on the card.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.nn.conv import Activation, Conv1d, MaxPool1d, activation, need_length

CARD = Card(
    name="xpresso", kind="model",
    summary="Predicts a gene's mRNA level from 10,500 bp around its start and eight features of its mRNA.",
    paper="Agarwal & Shendure, Cell Rep 2020, doi:10.1016/j.celrep.2020.107663",
    code="vagarwal87/Xpresso@b5d1da2:Fig1_S2/Xpresso.py",
    differences=(
        "The features are the model's covariates, n_covariates=0 to go without; a later release has 6 (112,357 "
        "parameters).",
        "PyTorch's initial weights instead of Keras's.",
        "Published recipe: Adam with rate .001, batches of 128, at most 100 epochs, patience 5; log10(RPKM + .1) and "
        "the features z-scored over genes; window from -7,000 to +3,500 bp of the TSS.",
    ),
    input_length=10_500, receptive_field=10_500, parameters=112_485, task="regression",
    attribution=("gradient", "ism", "deeplift"),
)

PRESETS: dict[str, dict[str, object]] = {"cpu": {}}


class Xpresso(nn.Module):
    """Promoter sequence of `length` bp and features of the mRNA to its level.

    The flattened features run channel by channel, ``(C, L)``; Keras flattens ``(L, C)``, so that its first dense
    weight, without the columns of the covariates, ``(out, L, C)`` is to be transposed to ``(out, C, L)``.

    Parameters
    ----------
    n_targets
        Numbers out: published one, log10 of the level, z-scored over genes.
    n_covariates
        Features of a gene, z-scored. Published: log10(x + 0.1) of the lengths of 5′UTR, CDS, 3′UTR and introns and
        of the exon density of the ORF, and the GC content of 5′UTR, CDS and 3′UTR.
    length
        Sequence in bp, at least 300.
    filters
        Of the two convolutions, 6 and 9 bp wide, max-pooled by 30 and 10.
    hidden
        Widths of the two dense layers. Both units of the published second one may die in training, and the
        prediction is constant then: start again with another seed, or widen it.
    dropout
        After each dense layer.
    first_activation
        After the first convolution.

    Raises
    ------
    ConfigError
        When `length` is too short.
    """

    def __init__(self, n_targets: int = 1, n_covariates: int = 8, *, length: int = 10_500,
                 filters: tuple[int, int] = (128, 32), hidden: tuple[int, int] = (64, 2),
                 dropout: tuple[float, float] = (0.00099, 0.01546), first_activation: Activation = "relu"):
        super().__init__()
        bins = length // 300
        if bins < 1:
            raise ConfigError(f"xpresso needs sequences of at least 300 bp for its two pools; got length={length}")
        self.length, self.n_covariates = length, n_covariates
        a, b = filters
        self.scan = nn.Sequential(Conv1d(4, a, 6, padding="same"), activation(first_activation), MaxPool1d(30),
                                  Conv1d(a, b, 9, padding="same"), nn.ReLU(), MaxPool1d(10), nn.Flatten())
        self.trunk = nn.Sequential(nn.Linear(b * bins + n_covariates, hidden[0]), nn.ReLU(), nn.Dropout(dropout[0]),
                                   nn.Linear(hidden[0], hidden[1]), nn.ReLU(), nn.Dropout(dropout[1]))
        self.head = nn.Linear(hidden[1], n_targets)

    def forward(self, X: Float[Tensor, "B 4 L"], covariates: Float[Tensor, "B C"] | None = None
                ) -> Float[Tensor, "B T"]:
        """Predict mRNA levels; `covariates` are needed exactly when `n_covariates` is not 0."""
        need_length(X, self.length, "xpresso")
        given = 0 if covariates is None else covariates.shape[1]
        if given != self.n_covariates:
            raise SchemaError(f"this xpresso expects {self.n_covariates} covariates a gene; got {given}; "
                              f"pass covariates (B, {self.n_covariates}) or create it with n_covariates={given}")
        H = self.scan(X)
        if covariates is not None:
            H = torch.cat([H, covariates.to(H.dtype)], dim=1)
        return self.head(self.trunk(H))
