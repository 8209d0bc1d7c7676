"""DeepSEA: three convolutions and two dense layers, from 1,000 bp to 919 chromatin profiles.

Zhou & Troyanskaya, "Predicting effects of noncoding variants with deep learning-based sequence model", Nat Methods
2015, doi:10.1038/nmeth.3547. Reference code, not copied: kipoi/models@06bfe84:DeepSEA/model_architecture.py,
FunctionLab/selene@9f8c441:models/deepsea.py. What differs is on the card.
"""

from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import ConfigError
from ciscribe.nn.conv import Activation, Conv1d, MaxPool1d, activation, need_length

CARD = Card(
    name="deepsea", kind="model",
    summary="Predicts which transcription factors bind and which chromatin marks lie at the middle of 1,000 bp.",
    paper="Zhou & Troyanskaya, Nat Methods 2015, doi:10.1038/nmeth.3547",
    code="kipoi/models@06bfe84:DeepSEA/model_architecture.py; FunctionLab/selene@9f8c441:models/deepsea.py",
    licence="MIT; published weights: CC-BY 3.0",
    differences=(
        "Channels are A C G T; the published weights read A G C T and are loaded with the two middle ones swapped.",
        "ReLU gives 0 where the Torch7 network gives 1e-6; threshold=1e-6 restores it, as the published weights want.",
        "Logits instead of probabilities.",
        "Published recipe: SGD with momentum .9, L2, max-norm .9, L1 of 1e-8 on the last hidden layer, both strands in "
        "training and their mean at test.",
    ),
    input_length=1_000, receptive_field=1_000, parameters=52_843_119, task="classification",
    attribution=("gradient", "ism", "deeplift"),
)

PRESETS = {"cpu": {"filters": (32, 48, 96), "hidden": 64}}


class DeepSEA(nn.Module):
    """Sequence of `length` bp to one logit a chromatin profile.

    The flattened features run channel by channel, ``(C, L)``, as in the published weights.

    Parameters
    ----------
    n_targets
        Chromatin profiles.
    length
        Sequence in bp, at least 163.
    filters
        Of the three convolutions, each 8 bp wide and without padding; the first two are max-pooled by 4.
    hidden
        Width of the dense layer.
    dropout
        After each convolution.
    threshold
        What activations of 0 and less become: 0 is ReLU; 1e-6 is the Torch7 layer of the published weights.
    first_activation
        After the first convolution.

    Raises
    ------
    ConfigError
        When `length` is too short, or a threshold is asked for beside an activation that has none.
    """

    def __init__(self, n_targets: int = 919, *, length: int = 1_000, filters: tuple[int, int, int] = (320, 480, 960),
                 hidden: int = 925, dropout: tuple[float, float, float] = (0.2, 0.2, 0.5), threshold: float = 0.0,
                 first_activation: Activation = "relu"):
        super().__init__()
        bins = ((length - 7) // 4 - 7) // 4 - 7
        if bins < 1:
            raise ConfigError(f"deepsea needs sequences of at least 163 bp for its three convolutions and two pools; "
                              f"got length={length}")
        if threshold and first_activation != "relu":
            raise ConfigError(f"threshold={threshold} is a variant of first_activation='relu'; got "
                              f"{first_activation!r}; leave one of the two out")

        def rectify() -> nn.Module:
            return nn.Threshold(0.0, threshold) if threshold else nn.ReLU()

        self.length = length
        a, b, c = filters
        self.trunk = nn.Sequential(
            Conv1d(4, a, 8), rectify() if threshold else activation(first_activation), MaxPool1d(4),
            nn.Dropout(dropout[0]),
            Conv1d(a, b, 8), rectify(), MaxPool1d(4), nn.Dropout(dropout[1]),
            Conv1d(b, c, 8), rectify(), nn.Dropout(dropout[2]),
            nn.Flatten(), nn.Linear(c * bins, hidden), rectify())
        self.head = nn.Linear(hidden, n_targets)

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Logits of the profiles."""
        need_length(X, self.length, "deepsea")
        return self.head(self.trunk(X))
