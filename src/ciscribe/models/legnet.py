"""LegNet: EfficientNet-like convolutions for short regulatory sequences, in the three forms that were published.

Penzar et al., "LegNet: a best-in-class deep learning model for short DNA regulatory regions", Bioinformatics 2023,
doi:10.1093/bioinformatics/btad457 (yeast; winner of the DREAM 2022 challenge), and the network of Agarwal et al. 2025
for human lentiMPRA. Reference code: autosome-ru/LegNet@63773bb:legnet/model.py (``version="dream"``), the same
repository's dream_ablation/ (``"optimised"``), autosome-ru/human_legnet@a20dbc7:model.py (``"human"``). Written from
the papers and the published layer tables.

The yeast versions return one logit a bin of the sorter. They are trained on soft classes of the measured bin
(``train.tasks.SoftBins``), and the readout `ciscribe.oracle.ExpectedBin` gives the expression, Σ p · bin::

    model = LegNet(version="optimised")                     # (B, 18) logits
    Oracle(model, ExpectedBin()).predict(X, covariates=...)  # (B, 1)
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.nn.conv import Activation, BatchNorm1d, Conv1d, MaxPool1d, activation

CARD = Card(
    name="legnet", kind="model", task="regression", parameters=857_825,
    summary="Predicts the activity of a short regulatory sequence, the strongest network of the DREAM 2022 challenge.",
    paper="Penzar et al., Bioinformatics 2023, doi:10.1093/bioinformatics/btad457; human form: Agarwal et al. 2025",
    code="autosome-ru/human_legnet@a20dbc7:model.py; yeast: autosome-ru/LegNet@63773bb:legnet/model.py, "
         "dream_ablation/",
    input_length=230, n_policy="N becomes 0.25 in each channel", attribution=("gradient", "ism", "deeplift"),
    differences=(
        "version='human' is the default: four channels in, one value out.",
        "version='dream' has a plain squeeze-and-excite in place of the low-rank bilinear one: 1,725,122 parameters.",
        "Strand and singleton flags of the yeast versions come as covariates, not as channels 5 and 6 of the sequence; "
        "left out, they are 0.",
    ),
)
PRESETS = {"cpu": {"stem_channels": 16, "channels": (24, 32, 32)}}

Version = Literal["human", "optimised", "dream"]


def _conv(n_in: int, n_out: int, kernel: int, groups: int = 1, act: Activation = "silu") -> list[nn.Module]:
    return [Conv1d(n_in, n_out, kernel, padding="same", groups=groups, bias=False), BatchNorm1d(n_out), activation(act)]


class _SqueezeExcite(nn.Module):
    """Scale every channel by a gate that sees the mean of all of them."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(dim=-1)).unsqueeze(-1)


class _Block(nn.Module):
    """Inverted bottleneck joined to its input, then a convolution to the block's width."""

    def __init__(self, n_in: int, n_out: int, inner: int, kernel: int, *, group_size: int, squeeze: int):
        super().__init__()
        self.bottleneck = nn.Sequential(*_conv(n_in, inner, 1), *_conv(inner, inner, kernel, inner // group_size),
                                        _SqueezeExcite(inner, squeeze), *_conv(inner, n_in, 1))
        self.widen = nn.Sequential(*_conv(2 * n_in, n_out, kernel))

    def forward(self, x: Tensor) -> Tensor:
        return self.widen(torch.cat([self.bottleneck(x), x], dim=1))


class LegNet(nn.Module):
    """EfficientNet-like convolutions; ``version`` chooses the published form.

    Parameters
    ----------
    n_targets
        Values out; None is the version's own: 1 for human, 18 bins for the yeast versions. A yeast version with
        ``n_targets=1`` is a plain regression.
    version
        ``"human"`` (lentiMPRA, 230 bp, pooled by 2 after each block), ``"optimised"`` or ``"dream"`` (yeast, 150 bp).
    stem_channels, channels
        Filters of the stem and of the blocks; None is as published. Kernels are 5 and 3 wide for human, 7 for yeast.
    first_activation
        After the stem.

    References
    ----------
    See the head of this file.
    """

    def __init__(self, n_targets: int | None = None, *, version: Version = "human", stem_channels: int | None = None,
                 channels: tuple[int, ...] | None = None, first_activation: Activation = "silu"):
        super().__init__()
        if version not in ("human", "optimised", "dream"):
            raise ValueError(f"version is 'human', 'optimised' or 'dream'; got {version!r}")
        self.version, human = version, version == "human"
        if n_targets is None:
            n_targets = 1 if human else 18
        if stem_channels is None:
            stem_channels = 64 if human else 256
        if channels is None:
            channels = (80, 96, 112, 128) if human else (128, 128, 64, 64, 64, 64)
        layers = _conv(4 if human else 6, stem_channels, 5 if human else 7, act=first_activation)
        n_in = stem_channels
        for n_out in channels:
            inner = 4 * (n_out if version == "dream" else n_in)
            layers.append(_Block(n_in, n_out, inner, 3 if human else 7, group_size=2 if version == "dream" else 1,
                                 squeeze=inner // 4 if human else n_in // 4))
            if human:
                layers.append(MaxPool1d(2))
            n_in = n_out
        self.shortest = 2 ** len(channels) if human else 1
        self.trunk = nn.Sequential(*layers)
        if human:
            self.tail: nn.Module = nn.Sequential(BatchNorm1d(n_in), Conv1d(n_in, 2 * n_in, 1))
            self.head: nn.Module = nn.Sequential(nn.Linear(2 * n_in, 2 * n_in), BatchNorm1d(2 * n_in), nn.SiLU(),
                                                 nn.Linear(2 * n_in, n_targets))
        else:
            self.tail = nn.Sequential(Conv1d(n_in, n_targets, 1), *([nn.SiLU()] if version == "dream" else []))
            self.head = nn.Identity()

    def forward(self, X: Float[Tensor, "B 4 L"], covariates: Float[Tensor, "B C"] | None = None
                ) -> Float[Tensor, "B T"]:
        """Predict from sequences of any length; human needs what its pools divide by, 16 bp as published.

        Parameters
        ----------
        X
            One-hot sequences; what is missing of a column (all of an N) is spread over the four bases.
        covariates
            Yeast versions: two columns, *is reverse* and *is singleton* (0 or 1); None is 0. The published score is
            the mean of a sequence (0) and its reverse complement (1), with *is singleton* 0.

        Raises
        ------
        SchemaError
            When the sequences are too short, or the covariates are not those of the version.
        """
        if X.shape[-1] < self.shortest:
            raise SchemaError(f"this LegNet reads sequences of {self.shortest} bp and more; got {X.shape[-1]} bp; "
                              "give longer sequences, or pad them with N")
        wanted = 0 if self.version == "human" else 2
        if covariates is not None and covariates.shape[1] not in (0, wanted):
            names = " (is reverse, is singleton)" if wanted else ""
            raise SchemaError(f"LegNet version {self.version!r} reads {wanted} covariates{names}; got "
                              f"{covariates.shape[1]}; leave the others out, or create another version")
        h = X + (1 - X.sum(dim=1, keepdim=True)) / 4
        if wanted:
            flags = X.new_zeros(len(X), wanted)
            if covariates is not None and covariates.shape[1]:
                flags = covariates.to(X.dtype)
            h = torch.cat([h, flags.unsqueeze(-1).expand(-1, -1, X.shape[-1])], dim=1)
        return self.head(self.tail(self.trunk(h)).mean(dim=-1))
