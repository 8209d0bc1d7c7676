"""Basenji2: Basenji with residual dilated convolutions, trained on human and mouse together.

Kelley, "Cross-species regulatory sequence activity prediction", PLoS Computational Biology 2020,
doi:10.1371/journal.pcbi.1008050. Reference code: calico/basenji@74b8671:manuscripts/cross2020/params_human.json and
basenji/blocks.py. Written from the paper and the published parameter file.
"""

from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.nn.conv import Activation, BatchNorm1d, Conv1d, MaxPool1d, activation, need_bins

CARD = Card(
    name="basenji2", kind="model", task="tracks", parameters=30_088_228,
    summary="Predicts the coverage of 5,313 human (or 1,643 mouse) experiments in bins of 128 bp from 131 kb of "
            "sequence.",
    paper="Kelley, PLoS Comput Biol 2020, doi:10.1371/journal.pcbi.1008050",
    code="calico/basenji@74b8671:manuscripts/cross2020/params_human.json, basenji/blocks.py",
    licence="MIT (ours); published weights Apache-2.0",
    input_length=131_072, receptive_field=54_918, resolution=128, crop=8_192,
    attribution=("gradient", "ism", "deeplift"),
    differences=(
        "One head a model, as the published weights are kept; both species trained together is two models that share "
        "a trunk.",
        "Any length that fills its bins is read; the publication reads 131,072 bp.",
    ),
)
PRESETS = {"cpu": {"stem_channels": 48, "channels": (56, 64, 72, 80, 88, 96), "n_residual": 5,
                   "residual_channels": 48, "head_channels": 192, "crop": 2_048}}

_BIN = 128


def dilations(n: int) -> list[int]:
    """Dilation rates of the residual blocks: times 1.5 each, rounded half to even *at every step*.

    Examples
    --------
    >>> dilations(11)
    [1, 2, 3, 4, 6, 9, 14, 21, 32, 48, 72]
    """
    rates = [1]
    while len(rates) < n:
        rates.append(round(rates[-1] * 1.5))
    return rates[:n]


def _block(n_in: int, n_out: int, kernel: int, *, dilation: int = 1, act: Activation = "gelu_sigmoid",
           zero: bool = False) -> list[nn.Module]:
    """Activation → convolution without bias → batch norm, whose gamma starts at 0 where `zero`."""
    norm = BatchNorm1d(n_out, eps=1e-3, momentum=0.1)
    if zero:
        nn.init.zeros_(norm.weight)
    return [activation(act), Conv1d(n_in, n_out, kernel, padding="same", dilation=dilation, bias=False), norm]


class _Residual(nn.Module):
    def __init__(self, channels: int, inner: int, dilation: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(*_block(channels, inner, 3, dilation=dilation),
                                    *_block(inner, channels, 1, zero=True), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Basenji2(nn.Module):
    """A convolutional tower to 128-bp bins, then residual dilated convolutions.

    Parameters
    ----------
    n_targets
        Tracks out: 5,313 human or 1,643 mouse as published.
    stem_channels, channels
        Filters of the 15-wide stem and of the tower's 5-wide layers. Each pools by 2; seven in all make 128 bp.
    n_residual, residual_channels
        Residual blocks and the filters inside them; their dilations are those of `dilations`.
    head_channels
        Filters of the last convolution, of width 1.
    dropout, head_dropout
        Of the residual blocks and before the head, in training.
    crop
        bp taken off either side of the output, a multiple of 128.
    first_activation
        What follows the stem. The activation *before* the stem acts on one-hot DNA (1 becomes 0.846), as published.

    References
    ----------
    See the head of this file.
    """

    def __init__(self, n_targets: int = 5_313, *, stem_channels: int = 288,
                 channels: tuple[int, ...] = (339, 399, 470, 554, 652, 768), n_residual: int = 11,
                 residual_channels: int = 384, head_channels: int = 1_536, dropout: float = 0.3,
                 head_dropout: float = 0.05, crop: int = 8_192, first_activation: Activation = "gelu_sigmoid"):
        super().__init__()
        if len(channels) != 6:
            raise ValueError(f"channels are those of 6 layers, which make bins of {_BIN} bp; got {len(channels)}")
        if crop < 0 or crop % _BIN:
            raise ValueError(f"crop is a multiple of {_BIN} bp; got {crop}")
        self.crop = crop
        layers = [*_block(4, stem_channels, 15), MaxPool1d(2)]
        n_in = stem_channels
        for i, n_out in enumerate(channels):
            layers += [*_block(n_in, n_out, 5, act="gelu_sigmoid" if i else first_activation), MaxPool1d(2)]
            n_in = n_out
        layers += [_Residual(n_in, residual_channels, d, dropout) for d in dilations(n_residual)]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(*_block(n_in, head_channels, 1), nn.Dropout(head_dropout), activation("gelu_sigmoid"),
                                  Conv1d(head_channels, n_targets, 1), nn.Softplus())

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T bins"]:
        """Predict the coverage of every bin that is not cropped, per track.

        Raises
        ------
        SchemaError
            When the sequence is not a multiple of 128 bp, or shorter than what is cropped.
        """
        need_bins(X, _BIN, self.crop, "Basenji2")
        h = self.trunk(X)
        margin = self.crop // _BIN
        return self.head(h[:, :, margin:h.shape[-1] - margin])
