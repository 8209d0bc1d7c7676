"""Jores: a convolution that reads both strands with the same kernels, from 170 bp to plant promoter strength.

Jores et al., "Synthetic promoter designs enabled by a comprehensive analysis of plant core promoters", Nat Plants
2021, doi:10.1038/s41477-021-00932-y. Reference code, not copied:
tobjores/Synthetic-Promoter-Designs-Enabled-by-a-Comprehensive-Analysis-of-Plant-Core-Promoters@fd211ee:
CNN/CNN_train+evaluate.ipynb. What differs is on the card.
"""

from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import ConfigError
from ciscribe.nn.conv import Activation, BatchNorm1d, Conv1d, activation, need_length
from ciscribe.sequence import reverse_complement

CARD = Card(
    name="jores", kind="model",
    summary="Predicts the strength of plant core promoters of 170 bp, reading both strands with the same kernels.",
    paper="Jores et al., Nat Plants 2021, doi:10.1038/s41477-021-00932-y",
    code="tobjores/Synthetic-Promoter-Designs-Enabled-by-a-Comprehensive-Analysis-of-Plant-Core-Promoters@fd211ee:"
         "CNN/CNN_train+evaluate.ipynb",
    licence="MIT; the reference code states no licence",
    differences=(
        "The reverse branch reads the reverse strand. In the published code its bias is added to the forward "
        "activations, so that the reversed kernels never act; faithful=True does the same (with one dropout mask for "
        "the two equal branches).",
        "The second kernels of the reverse branch are reversed in length only: their channels are filters, which have "
        "no complement.",
        "Dropout stops after training; in the published code it goes on, and predictions are random.",
        "Every sequence has four channels; the published encoder gives three to a sequence that lacks a base.",
        "Kernels start at random; ciscribe.nn.motifs.start_from_motifs(model, ppms, scale='jores') sets them as "
        "published (core-promoter elements and 72 clusters of plant factors).",
        "Published recipe: Adam, batches of 128, 25 epochs, patience 5, a lower rate after 2 epochs without progress; "
        "one network for leaf and one for protoplasts.",
    ),
    input_length=170, receptive_field=170, parameters=1_825_921, task="regression",
    attribution=("gradient", "ism", "deeplift"),
)

PRESETS = {"cpu": {"filters": 32}}


class Jores(nn.Module):
    """Sequence of `length` bp to promoter strength, log2 enrichment in the publication.

    The flattened features run channel by channel, ``(C, L)``; Keras flattens ``(L, C)``, so that its first dense
    weight ``(out, L, C)`` is to be transposed to ``(out, C, L)``.

    Parameters
    ----------
    n_targets
        Numbers out; published: one.
    length
        Sequence in bp.
    filters, kernel
        Of the three convolutions; an odd number of bp.
    hidden
        Width of the dense layer.
    dropout
        After each convolution.
    faithful
        True reproduces the published computation, in which both branches read the forward strand.
    first_activation
        After the first convolution, in each strand.

    Raises
    ------
    ConfigError
        When `length` is less than one bp or `kernel` is even.
    """

    def __init__(self, n_targets: int = 1, *, length: int = 170, filters: int = 128, kernel: int = 13,
                 hidden: int = 64, dropout: float = 0.15, faithful: bool = False,
                 first_activation: Activation = "relu"):
        super().__init__()
        if length < 1:
            raise ConfigError(f"jores needs sequences of at least 1 bp; got length={length}")
        if kernel % 2 == 0:
            raise ConfigError(f"jores needs an odd kernel, whose center stays when it is reversed; got kernel={kernel}")
        self.length, self.faithful = length, faithful
        self.conv1 = Conv1d(4, filters, kernel, padding="same")
        self.conv2 = Conv1d(filters, filters, kernel, padding="same")
        # the strands share their kernels, but not what attributions hook
        strands = 1 if faithful else 2
        self.act1 = nn.ModuleList(nn.Sequential(activation(first_activation), nn.Dropout(dropout))
                                  for _ in range(strands))
        self.act2 = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Dropout(dropout)) for _ in range(strands))
        self.trunk = nn.Sequential(
            Conv1d(filters, filters, kernel, padding="same"), nn.ReLU(), nn.Dropout(dropout),
            nn.Flatten(), nn.Linear(filters * length, hidden), BatchNorm1d(hidden, eps=1e-3, momentum=0.01), nn.ReLU())
        self.head = nn.Linear(hidden, n_targets)

    def _read(self, X: Tensor, strand: int) -> Tensor:
        return self.act2[strand](self.conv2(self.act1[strand](self.conv1(X))))

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Promoter strength."""
        need_length(X, self.length, "jores")
        H = self._read(X, 0)
        # kernels reversed in length and base, run over X, are the kernels run over the other strand and turned back
        H = 2 * H if self.faithful else H + self._read(reverse_complement(X), 1).flip(-1)
        return self.head(self.trunk(H))
