"""ExpResNet: expression per tissue from 95 kb around a gene's start. A reconstruction.

bioRxiv 2020, doi:10.1101/2020.06.21.163956. No code and no weights are public: only the length (95 kb), the four
residual units and the idea are the paper's. Kernel sizes, widths, dilations and the head are ours to choose; no number
from this network is ExpResNet's.
"""

from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.nn.conv import AvgPool1d, BatchNorm1d, Conv1d, need_length

CARD = Card(
    name="expresnet", kind="model", task="regression", parameters=2_976_833,
    summary="Predicts expression per tissue from 95 kb around the gene's start; a reconstruction of ExpResNet.",
    paper="ExpResNet, bioRxiv 2020, doi:10.1101/2020.06.21.163956",
    code="none is public; a reconstruction",
    input_length=95_000, attribution=("gradient", "ism", "deeplift"),
    differences=(
        "A reconstruction: the paper's layer table, loss, training set and weights are not public. Only the length and "
        "the number of residual units are known to be the paper's.",
        "Positions are averaged before the dense layers by default; pool='flatten' keeps them apart and needs one "
        "length.",
    ),
)
PRESETS = {"cpu": {"channels": (16, 32, 48, 64), "hidden": 64, "pool": "flatten", "length": 9_500}}

_KERNELS = (5, 3, 3, 3)
_DILATIONS = (1, 2, 2, 4)
_POOL = 4


class _Unit(nn.Module):
    """Convolution (valid), plus a bottleneck of three pre-activated convolutions, pooled by 4."""

    def __init__(self, n_in: int, n_out: int, kernel: int, dilation: int):
        super().__init__()
        half = n_out // 2
        self.conv = Conv1d(n_in, n_out, kernel)
        self.bottleneck = nn.Sequential(
            BatchNorm1d(n_out), nn.ReLU(), Conv1d(n_out, half, 1),
            BatchNorm1d(half), nn.ReLU(), Conv1d(half, half, 3, padding="same", dilation=dilation),
            BatchNorm1d(half), nn.ReLU(), Conv1d(half, n_out, 1))
        self.pool = AvgPool1d(_POOL)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.pool(x + self.bottleneck(x))


class ExpResNet(nn.Module):
    """Four residual units with pooling, then two dense layers.

    Parameters
    ----------
    n_targets
        Tissues.
    length
        bp of the sequences; fixed with ``pool="flatten"``, free otherwise.
    channels
        Filters of the four units.
    hidden
        Width of the dense layer.
    pool
        ``"gap"`` averages the positions, ``"flatten"`` keeps them.

    References
    ----------
    See the head of this file.
    """

    def __init__(self, n_targets: int = 1, *, length: int = 95_000, channels: tuple[int, ...] = (160, 320, 480, 640),
                 hidden: int = 128, pool: Literal["gap", "flatten"] = "gap"):
        super().__init__()
        if pool not in ("gap", "flatten"):
            raise ValueError(f"pool is 'gap' or 'flatten'; got {pool!r}")
        if len(channels) != len(_KERNELS):
            raise ValueError(f"channels are those of {len(_KERNELS)} units; got {len(channels)}")
        if pool == "flatten" and _n_positions(length) < 1:
            raise ValueError(f"length is at least {_shortest()} bp; got {length}")
        self.length = length if pool == "flatten" else None
        self.units = nn.Sequential(*(_Unit(*io, k, d) for io, k, d in
                                     zip(pairwise((4, *channels)), _KERNELS, _DILATIONS, strict=True)))
        n_in = channels[-1] * (_n_positions(length) if pool == "flatten" else 1)
        self.head = nn.Sequential(nn.Linear(n_in, hidden), BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, n_targets))

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Predict one value a tissue.

        Raises
        ------
        SchemaError
            When the sequence has not the length that ``pool="flatten"`` was built for, or too few bases to pool.
        """
        if self.length is not None:
            need_length(X, self.length, "ExpResNet")
        elif _n_positions(X.shape[-1]) < 1:
            raise SchemaError(f"ExpResNet reads sequences of {_shortest()} bp and more; got {X.shape[-1]} bp; "
                              "give longer sequences, or pad them with N")
        h = self.units(X)
        return self.head(h.mean(dim=-1) if self.length is None else h.flatten(1))


def _n_positions(length: int) -> int:
    """Positions that the four units leave."""
    for kernel in _KERNELS:
        length = (length - kernel + 1) // _POOL
    return length


def _shortest() -> int:
    length = 1
    for kernel in reversed(_KERNELS):
        length = length * _POOL + kernel - 1
    return length
