"""DeepSTARR: four normalized convolutions and two dense layers, from 249 bp to two enhancer activities.

de Almeida, Reiter, Pagani & Stark, "DeepSTARR predicts enhancer activity from DNA sequence and enables the de novo
design of synthetic enhancers", Nat Genet 2022, doi:10.1038/s41588-022-01048-5. Reference code, not copied:
bernardo-de-almeida/DeepSTARR@b02e460:DeepSTARR/DeepSTARR_training.ipynb. What differs is on the card.
"""

from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import ConfigError
from ciscribe.nn.conv import Activation, BatchNorm1d, Conv1d, MaxPool1d, activation, need_length

CARD = Card(
    name="deepstarr", kind="model",
    summary="Predicts how strongly 249 bp enhance a developmental and a housekeeping promoter in fly cells.",
    paper="de Almeida et al., Nat Genet 2022, doi:10.1038/s41588-022-01048-5",
    code="bernardo-de-almeida/DeepSTARR@b02e460:DeepSTARR/DeepSTARR_training.ipynb",
    differences=(
        "One linear layer of n_targets numbers instead of a head of one number each: the same function.",
        "PyTorch's initial weights instead of Keras's.",
        "256 first filters, as in the notebook; 246 in some figures and ports (620,612 parameters).",
        "Published recipe: Adam with rate .002, batches of 128, at most 100 epochs, patience 10, each window in both "
        "strands.",
    ),
    input_length=249, receptive_field=249, parameters=622_722, task="regression",
    attribution=("gradient", "ism", "deeplift"),
)

PRESETS: dict[str, dict[str, object]] = {"cpu": {}}


class DeepSTARR(nn.Module):
    """Sequence of `length` bp to activities, log2 enrichment in the publication.

    The flattened features run channel by channel, ``(C, L)``; Keras flattens ``(L, C)``, so that its first dense
    weight ``(out, L, C)`` is to be transposed to ``(out, C, L)``.

    Parameters
    ----------
    n_targets
        Activities; published: developmental, housekeeping.
    length
        Sequence in bp, at least 16.
    filters
        Of the four convolutions, 7, 3, 5 and 3 bp wide, each max-pooled by 2.
    hidden
        Width of the two dense layers.
    dropout
        After each dense layer.
    first_activation
        After the first convolution and its normalization.

    Raises
    ------
    ConfigError
        When `length` is too short.
    """

    def __init__(self, n_targets: int = 2, *, length: int = 249,
                 filters: tuple[int, int, int, int] = (256, 60, 60, 120), hidden: int = 256, dropout: float = 0.4,
                 first_activation: Activation = "relu"):
        super().__init__()
        bins = length // 16
        if bins < 1:
            raise ConfigError(f"deepstarr needs sequences of at least 16 bp for its four pools; got length={length}")
        self.length = length
        layers: list[nn.Module] = []
        width = 4
        for i, (n, kernel) in enumerate(zip(filters, (7, 3, 5, 3), strict=True)):
            layers += [Conv1d(width, n, kernel, padding="same"), _norm(n),
                       nn.ReLU() if i else activation(first_activation), MaxPool1d(2)]
            width = n
        layers.append(nn.Flatten())
        width *= bins
        for _ in range(2):
            layers += [nn.Linear(width, hidden), _norm(hidden), nn.ReLU(), nn.Dropout(dropout)]
            width = hidden
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(hidden, n_targets)

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Activities."""
        need_length(X, self.length, "deepstarr")
        return self.head(self.trunk(X))


def _norm(width: int) -> BatchNorm1d:
    """Keras's constants: running statistics lag by some hundred steps, and so does the model in evaluation."""
    return BatchNorm1d(width, eps=1e-3, momentum=0.01)
