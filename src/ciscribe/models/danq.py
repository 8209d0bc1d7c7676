"""DanQ: a motif convolution read by a bidirectional LSTM, from 1,000 bp to 919 chromatin profiles.

Quang & Xie, "DanQ: a hybrid convolutional and recurrent deep neural network for quantifying the function of DNA
sequences", Nucleic Acids Res 2016, doi:10.1093/nar/gkw226. Reference code, not copied:
uci-cbcl/DanQ@98341e0:DanQ_train.py. What differs is on the card.
"""

from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import ConfigError
from ciscribe.nn.conv import Activation, Conv1d, MaxPool1d, activation, need_length

CARD = Card(
    name="danq", kind="model",
    summary="Predicts factor binding and chromatin marks of 1,000 bp, reading the order of motifs with an LSTM.",
    paper="Quang & Xie, Nucleic Acids Res 2016, doi:10.1093/nar/gkw226",
    code="uci-cbcl/DanQ@98341e0:DanQ_train.py",
    licence="MIT; reference code and published weights: non-commercial",
    differences=(
        "The LSTM has PyTorch's two biases a gate, of which only the sum acts: 46,929,039 parameters; with the one "
        "bias of the publication they are 46,926,479.",
        "Gates are logistic; the published weights were trained with the piecewise linear one of old Keras.",
        "Logits instead of probabilities.",
        "Published recipe: RMSprop, batches of 100, at most 60 epochs, patience 5, both strands in training and their "
        "mean at test.",
    ),
    input_length=1_000, receptive_field=1_000, parameters=46_929_039, task="classification",
    attribution=("gradient", "ism"),
)

PRESETS = {"cpu": {"filters": 32, "lstm": 32, "hidden": 64}}


class DanQ(nn.Module):
    """Sequence of `length` bp to one logit a chromatin profile.

    The flattened features run channel by channel, ``(C, L)``; Keras flattens ``(L, C)``, so that its first dense
    weight ``(out, L, C)`` is to be transposed to ``(out, C, L)``.

    Parameters
    ----------
    n_targets
        Chromatin profiles.
    length
        Sequence in bp, at least ``kernel + pool - 1``.
    filters, kernel, pool
        Motif convolution without padding and its max-pool. The version that starts from JASPAR motifs has
        ``filters=1024, kernel=30, pool=15, lstm=512``; see `ciscribe.nn.motifs.start_from_motifs`.
    lstm
        State of the LSTM in each direction.
    hidden
        Width of the dense layer.
    dropout
        After the pool and after the LSTM.
    first_activation
        After the convolution.

    Raises
    ------
    ConfigError
        When `length` is too short.
    """

    def __init__(self, n_targets: int = 919, *, length: int = 1_000, filters: int = 320, kernel: int = 26,
                 pool: int = 13, lstm: int = 320, hidden: int = 925, dropout: tuple[float, float] = (0.2, 0.5),
                 first_activation: Activation = "relu"):
        super().__init__()
        bins = (length - kernel + 1) // pool
        if bins < 1:
            raise ConfigError(f"danq with kernel={kernel} and pool={pool} needs sequences of at least "
                              f"{kernel + pool - 1} bp; got length={length}")
        self.length = length
        self.scan = nn.Sequential(Conv1d(4, filters, kernel), activation(first_activation), MaxPool1d(pool),
                                  nn.Dropout(dropout[0]))
        self.lstm = nn.LSTM(filters, lstm, batch_first=True, bidirectional=True)
        self.trunk = nn.Sequential(nn.Dropout(dropout[1]), nn.Flatten(), nn.Linear(2 * lstm * bins, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, n_targets)

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Logits of the profiles."""
        need_length(X, self.length, "danq")
        H, _ = self.lstm(self.scan(X).transpose(1, 2))  # B bins d: the recurrence runs over bins
        return self.head(self.trunk(H.transpose(1, 2)))
