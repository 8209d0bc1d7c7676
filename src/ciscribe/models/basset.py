"""Basset: three normalized convolutions and two dense layers, from 600 bp to accessibility in 164 cell types.

Kelley, Snoek & Rinn, "Basset: learning the regulatory code of the accessible genome with deep convolutional neural
networks", Genome Res 2016, doi:10.1101/gr.200535.115. Reference code, not copied:
davek44/Basset@71cd801:src/convnet.lua. What differs is on the card.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import ConfigError
from ciscribe.nn.conv import Activation, BatchNorm1d, Conv1d, MaxPool1d, activation, need_length

CARD = Card(
    name="basset", kind="model",
    summary="Predicts in which cell types the chromatin of 600 bp is accessible.",
    paper="Kelley, Snoek & Rinn, Genome Res 2016, doi:10.1101/gr.200535.115",
    code="davek44/Basset@71cd801:src/convnet.lua",
    differences=(
        "Without padding, as the released weights; padding='same' is the later code's form (4,735,064 parameters).",
        "Logits instead of probabilities.",
        "Published recipe: RMSprop with rate .002 and alpha .98, batches of 128, max-norm 7, no augmentation.",
    ),
    input_length=600, receptive_field=600, parameters=4_135_064, task="classification",
    attribution=("gradient", "ism", "deeplift"),
)

PRESETS = {"cpu": {"filters": (64, 48, 48), "hidden": 128}}


class Basset(nn.Module):
    """Sequence of `length` bp to one logit a cell type.

    The flattened features run channel by channel, ``(C, L)``, as in the published weights.

    Parameters
    ----------
    n_targets
        Cell types.
    length
        Sequence in bp: at least 168, or 1 with ``padding="same"``.
    filters
        Of the three convolutions, 19, 11 and 7 bp wide, max-pooled by 3, 4 and 4.
    hidden
        Width of the two dense layers.
    dropout
        After each dense layer.
    padding
        ``"valid"`` as the released weights; ``"same"`` pads the convolutions and keeps the last, incomplete pool.
    first_activation
        After the first convolution.

    Raises
    ------
    ConfigError
        When `length` is too short or `padding` is neither.
    """

    def __init__(self, n_targets: int = 164, *, length: int = 600, filters: tuple[int, int, int] = (300, 200, 200),
                 hidden: int = 1_000, dropout: float = 0.3, padding: Literal["valid", "same"] = "valid",
                 first_activation: Activation = "relu"):
        super().__init__()
        if padding not in ("valid", "same"):
            raise ConfigError(f"padding is 'valid' or 'same'; got {padding!r}")
        same = padding == "same"
        bins = -(-length // 48) if same else (((length - 18) // 3 - 10) // 4 - 6) // 4
        if bins < 1:
            raise ConfigError(f"basset needs sequences of at least {1 if same else 168} bp for its three convolutions "
                              f"and pools; got length={length}" + ("" if same else "; or take padding='same'"))
        self.length = length
        layers: list[nn.Module] = []
        width = 4
        for i, (n, kernel, pool) in enumerate(zip(filters, (19, 11, 7), (3, 4, 4), strict=True)):
            layers += [Conv1d(width, n, kernel, padding=padding), BatchNorm1d(n),
                       nn.ReLU() if i else activation(first_activation), MaxPool1d(pool, ceil_mode=same)]
            width = n
        layers.append(nn.Flatten())
        width *= bins
        for _ in range(2):
            layers += [nn.Linear(width, hidden), BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout)]
            width = hidden
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(hidden, n_targets)

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Logits of the cell types."""
        need_length(X, self.length, "basset")
        return self.head(self.trunk(X))
