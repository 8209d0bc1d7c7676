"""Basenji: coverage of thousands of experiments along 131 kb, from sequence.

Kelley et al., "Sequential regulatory activity prediction across chromosomes with convolutional neural networks",
Genome Research 2018, doi:10.1101/gr.227819.117. Reference code: calico/basenji@76ff5b6:basenji/{seqnn,layers}.py
and manuscripts/genome_research2018/params.txt. Written from the paper and the published parameter file.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.nn.conv import Activation, BatchNorm1d, Conv1d, MaxPool1d, activation, need_bins

CARD = Card(
    name="basenji", kind="model", task="tracks", parameters=15_190_636,
    summary="Predicts the coverage of 4,229 experiments in bins of 128 bp from 131 kb of sequence.",
    paper="Kelley et al., Genome Research 2018, doi:10.1101/gr.227819.117",
    code="calico/basenji@76ff5b6:basenji/seqnn.py, basenji/layers.py, manuscripts/genome_research2018/params.txt",
    licence="MIT (ours); published weights Apache-2.0",
    input_length=131_072, receptive_field=32_871, resolution=128, crop=4_096,
    attribution=("gradient", "ism", "deeplift"),
    differences=(
        "Plain batch normalization (eps 1e-3) instead of batch renormalization; both are the same function at test.",
        "Any length that fills its bins is read; the publication reads 131,072 bp.",
    ),
)
PRESETS = {"cpu": {"channels": (32, 40, 48, 56, 64, 72), "n_dilated": 4, "dilated_channels": 16, "head_channels": 128,
                   "crop": 0}}

_KERNELS = (22, 1, 6, 6, 6, 3)
_POOLS = (1, 2, 4, 4, 4, 1)
_BIN = 128


class _Block(nn.Module):
    """Activation → convolution without bias → batch norm → dropout → max-pool; or joined to its input."""

    def __init__(self, n_in: int, n_out: int, kernel: int, *, pool: int = 1, dilation: int = 1, dropout: float = 0.0,
                 join: bool = False, act: Activation = "relu"):
        super().__init__()
        self.join = join
        self.layers = nn.Sequential(
            activation(act), Conv1d(n_in, n_out, kernel, padding="same", dilation=dilation, bias=False),
            BatchNorm1d(n_out, eps=1e-3), nn.Dropout(dropout), *([MaxPool1d(pool)] if pool > 1 else []))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return torch.cat([x, y], dim=1) if self.join else y


class _ExpLinear(nn.Module):
    """The link of Basenji: exp(y) up to 0, y + 1 above; positive, and linear where counts are high."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp())  # clamped: the unused branch must not overflow


class Basenji(nn.Module):
    """Convolutions with pooling to 128-bp bins, then densely joined dilated convolutions.

    Parameters
    ----------
    n_targets
        Tracks out.
    channels
        Filters of the six layers (widths 22, 1, 6, 6, 6, 3; pools 1, 2, 4, 4, 4, 1).
    n_dilated, dilated_channels
        Dilated layers (width 3, dilation 2, 4, 8 …), each joined to its input, and their filters.
    head_channels
        Filters of the last convolution, of width 1.
    dropout, dilated_dropout
        Of the ordinary and of the dilated layers, in training.
    crop
        bp taken off either side of the output, a multiple of 128.
    first_activation
        What follows the first convolution (and its batch norm).

    References
    ----------
    See the head of this file.
    """

    def __init__(self, n_targets: int = 4_229, *, channels: tuple[int, ...] = (312, 368, 435, 514, 607, 717),
                 n_dilated: int = 6, dilated_channels: int = 108, head_channels: int = 1_365, dropout: float = 0.05,
                 dilated_dropout: float = 0.1, crop: int = 4_096, first_activation: Activation = "relu"):
        super().__init__()
        if len(channels) != len(_KERNELS):
            raise ValueError(f"channels are those of {len(_KERNELS)} layers; got {len(channels)}")
        if crop < 0 or crop % _BIN:
            raise ValueError(f"crop is a multiple of {_BIN} bp; got {crop}")
        self.crop = crop
        blocks: list[nn.Module] = []
        n_in = 4
        for i, (n_out, kernel, pool) in enumerate(zip(channels, _KERNELS, _POOLS, strict=True)):
            # the activation of block 1 reads one-hot DNA; that of block 2 is the one after the first convolution
            act = first_activation if i == 1 else "relu"
            blocks.append(_Block(n_in, n_out, kernel, pool=pool, dropout=dropout, act=act))
            n_in = n_out
        for i in range(n_dilated):
            blocks.append(_Block(n_in, dilated_channels, 3, dilation=2 ** (i + 1), dropout=dilated_dropout, join=True))
            n_in += dilated_channels
        self.trunk = nn.Sequential(*blocks, _Block(n_in, head_channels, 1, dropout=dropout), nn.ReLU())
        self.head = Conv1d(head_channels, n_targets, 1)
        self.link = _ExpLinear()

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T bins"]:
        """Predict the coverage of every bin that is not cropped, per track.

        Raises
        ------
        SchemaError
            When the sequence is not a multiple of 128 bp, or shorter than what is cropped.
        """
        need_bins(X, _BIN, self.crop, "Basenji")
        h = self.trunk(X)
        margin = self.crop // _BIN
        return self.link(self.head(h[:, :, margin:h.shape[-1] - margin]))
