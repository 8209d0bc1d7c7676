"""Borzoi: RNA-seq coverage and thousands of other tracks from 524,288 bp, in bins of 32 bp.

Linder et al., "Predicting RNA-seq coverage from DNA sequence as a unifying model of gene regulation", Nat Genet 2025,
doi:10.1038/s41588-024-02053-6. Written from the description in the paper and from facts of
calico/borzoi@5c93582:examples/params_pred.json and calico/baskerville@544073b:blocks.py; released weights in the
layout of johahi/borzoi-pytorch@37686b4 are read by `ciscribe.models.borzoi_weights`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.nn.attention import Transformer, full_precision, recompute
from ciscribe.nn.conv import BatchNorm1d, Conv1d, MaxPool1d, activation, need_bins

CARD = Card(
    name="borzoi", kind="model", task="tracks", attribution=("gradient", "ism", "deeplift", "attention"),
    summary="Predicts RNA-seq coverage and thousands of other tracks from 524,288 bp in bins of 32 bp.",
    paper="Linder et al., Nat Genet 2025, doi:10.1038/s41588-024-02053-6",
    code="calico/borzoi@5c93582:examples/params_pred.json; calico/baskerville@544073b:blocks.py; "
         "layout of weights: johahi/borzoi-pytorch@37686b4",
    licence="MIT; published weights Apache-2.0",
    parameters=185_892_699, input_length=524_288, receptive_field=524_288, resolution=32, crop=163_840,
    differences=(
        "The default has the human head alone; n_targets={'human': 7611, 'mouse': 2608} has both (190,902,667).",
        "Returns the central 6,144 bins as in training; the published prediction configuration crops 16 bins a side "
        "(crop=512).",
        "Positional features scale with the number of tokens that came, as in the published code; the PyTorch port "
        "keeps those of 4,096.",
        "Outside the attention, weights start as PyTorch starts them.",
    ),
)

PRESETS = {"cpu": {"n_targets": 4, "widths": (32, 40, 48, 56, 64, 80), "d_model": 96, "n_layers": 2, "n_heads": 4,
                   "key_size": 16, "value_size": 24, "final_width": 128, "crop": 1_024}}

_EPS = 1e-3  # of every norm


def _conv_block(c_in: int, c_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(BatchNorm1d(c_in, eps=_EPS), activation("gelu_tanh"),
                         Conv1d(c_in, c_out, kernel, padding="same"))


class _Up(nn.Module):
    """Double the length, add what was there before pooling, and smooth with a separable convolution."""

    def __init__(self, d_model: int, skip_width: int):
        super().__init__()
        self.below, self.skip = _conv_block(d_model, d_model, 1), _conv_block(skip_width, d_model, 1)
        self.depthwise = Conv1d(d_model, d_model, 3, padding="same", groups=d_model, bias=False)
        self.pointwise = Conv1d(d_model, d_model, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = self.below(x).transpose(1, 2).repeat_interleave(2, dim=1).transpose(1, 2)  # nearest, layout kept
        return self.pointwise(self.depthwise(up + self.skip(skip)))


class Borzoi(nn.Module):
    """Sequence to tracks in bins of 32 bp: a convolutional tower, a transformer at 128 bp, and two steps back up.

    Parameters
    ----------
    n_targets
        Tracks. A number gives one head, called human, and forward returns its tensor; a mapping such as
        ``{"human": 7611, "mouse": 2608}`` gives a head for each name, and forward returns a dictionary.
    widths
        Channels of the first convolution and of the tower; all but the last halve the length, so the bin is 2 to the
        number of those.
    d_model, n_layers, n_heads, key_size, value_size
        The transformer, on tokens of four bins.
    n_positions
        Features of a distance, an even number.
    final_width
        Channels before the heads.
    crop
        bp cut off the output on either side (163,840 are 5,120 bins), a multiple of the bin.
    dropout, attention_dropout, position_dropout, final_dropout
        In the transformer, of the attention weights, of the positions, before the heads.
    checkpointing
        Trade a third more time for a smaller memory of training: stages and blocks are computed again in the
        backward pass.
    """

    def __init__(self, n_targets: int | Mapping[str, int] = 7611, *,
                 widths: Sequence[int] = (512, 608, 736, 896, 1056, 1280), d_model: int = 1536, n_layers: int = 8,
                 n_heads: int = 8, key_size: int = 64, value_size: int = 192, n_positions: int = 32,
                 final_width: int = 1920, crop: int = 163_840, dropout: float = 0.2, attention_dropout: float = 0.05,
                 position_dropout: float = 0.01, final_dropout: float = 0.1, checkpointing: bool = False):
        super().__init__()
        self.one_head = isinstance(n_targets, int)
        self.bin, self.crop, self.checkpointing = 2 ** (len(widths) - 1), crop, checkpointing
        if crop < 0 or crop % self.bin:
            raise ValueError(f"crop is a multiple of {self.bin} bp; got {crop}")
        self.stem = nn.Sequential(Conv1d(4, widths[0], 15, padding="same"), MaxPool1d(2))
        self.tower = nn.ModuleList()  # the last stage is not pooled: it is kept for the way up
        for i in range(1, len(widths)):
            block = _conv_block(widths[i - 1], widths[i], 5)
            self.tower.append(block if i == len(widths) - 1 else nn.Sequential(*block, MaxPool1d(2)))
        self.bottom = nn.Sequential(MaxPool1d(2), *_conv_block(widths[-1], d_model, 5))
        self.pool = MaxPool1d(2)
        self.transformer = Transformer(
            d_model, n_layers, positions="borzoi", n_positions=n_positions, checkpointing=checkpointing,
            n_heads=n_heads, key_size=key_size, value_size=value_size, dropout=dropout,
            attention_dropout=attention_dropout, position_dropout=position_dropout, norm_eps=_EPS)
        self.up1, self.up0 = _Up(d_model, d_model), _Up(d_model, widths[-1])
        self.final = nn.Sequential(*_conv_block(d_model, final_width, 1), nn.Dropout(final_dropout),
                                   activation("gelu_tanh"))
        organisms = {"human": n_targets} if isinstance(n_targets, int) else n_targets
        self.heads = nn.ModuleDict({name: nn.Sequential(Conv1d(final_width, n, 1), nn.Softplus())
                                    for name, n in organisms.items()})

    def _run(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        return recompute(module, *inputs) if self.checkpointing else module(*inputs)

    def _down(self, X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bins of 32 and 64 bp (``B C L``) and tokens of 128 bp (``B n d``)."""
        need_bins(X, 4 * self.bin, self.crop, "Borzoi")
        for stage in (self.stem, *self.tower):
            X = self._run(stage, X)
        half = self._run(self.bottom, X)
        return X, half, self.pool(half).transpose(1, 2)

    def embed(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B d bins"]:
        """What the heads read: `final_width` numbers for each bin that is kept."""
        bins, half, tokens = self._down(X)
        H = self._run(self.up1, self.transformer(tokens).transpose(1, 2), half)
        H = self._run(self.up0, H, bins)
        margin = self.crop // self.bin
        return self.final(H[:, :, margin:H.shape[2] - margin])

    def attention(self, X: Float[Tensor, "B 4 L"], *, per_head: bool = False) -> Float[Tensor, "B layers ..."]:
        """Attention weights between all tokens, the cropped ones too; see `Transformer.weights`."""
        return self.transformer.weights(self._down(X)[2], per_head=per_head)

    def forward(self, X: Float[Tensor, "B 4 L"]
                ) -> Float[Tensor, "B T bins"] | dict[str, Float[Tensor, "B _T bins"]]:
        """Predict tracks ≥ 0 in the squashed scale: ``(B, T, L / 32 − 10,240)`` with the published sizes.

        Raises
        ------
        SchemaError
            When L is not a multiple of the token, or no bin is left after the crop.
        """
        H = self.embed(X)
        with full_precision(H.device):  # sums over thousands of channels
            tracks = {name: head(H.to(head[0].weight.dtype)) for name, head in self.heads.items()}  # pyright: ignore
        return tracks["human"] if self.one_head else tracks


Scale = Literal["older", "newer"]


def squash(coverage: Float[Tensor, "B T bins"], targets: pd.DataFrame, *, form: Scale = "older",
           power: float = 0.75) -> Float[Tensor, "B T bins"]:
    """Coverage to the scale that Borzoi is trained on: power, soft clip and scale of each track.

    Parameters
    ----------
    coverage
        Summed coverage of each bin, ≥ 0.
    targets
        A row for each track, in order: `scale`, `clip_soft` and `sum_stat` (tracks whose statistic ends in ``_sqrt``,
        RNA-seq in the published table, are raised to `power`).
    form
        ``"older"``, of the published weights: ``v = x^¾``; above the clip c, ``c + √(v − c)``; times the scale.
        ``"newer"``: times the scale; ``(v + 1)^¾ − 1``; above the clip, ``c − 1 + √(v − c + 1)``.

    Raises
    ------
    SchemaError
        Without these columns for every track: no scale can be guessed.

    References
    ----------
    calico/baskerville:src/baskerville/dataset.py undoes both forms.
    """
    scale, clip, raised = _columns(coverage, targets, form)
    if form == "older":
        v = torch.where(raised, coverage**power, coverage)
        return torch.where(v > clip, clip + torch.where(v > clip, v - clip, 1).sqrt(), v) * scale
    v = coverage * scale
    v = torch.where(raised, (v + 1) ** power - 1, v)
    return torch.where(v > clip, clip - 1 + (v - clip + 1).clamp(min=1).sqrt(), v)


def unsquash(predicted: Float[Tensor, "B T bins"], targets: pd.DataFrame, *, form: Scale = "older",
             power: float = 0.75) -> Float[Tensor, "B T bins"]:
    """Predictions back to coverage, the inverse of `squash`; arguments and errors as there."""
    scale, clip, raised = _columns(predicted, targets, form)
    if form == "older":
        v = predicted / scale
        v = torch.where(v > clip, clip + (v - clip) ** 2, v)
        return torch.where(raised, v.clamp(min=0) ** (1 / power), v)
    v = torch.where(predicted > clip, clip - 1 + (predicted - clip + 1) ** 2, predicted)
    return torch.where(raised, (v + 1) ** (1 / power) - 1, v) / scale


def _columns(values: Tensor, targets: pd.DataFrame, form: str) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, soft clip and whether a power is taken, each ``(T, 1)``."""
    if form not in ("older", "newer"):
        raise ValueError(f"form is 'older' or 'newer'; got {form!r}")
    missing = [c for c in ("scale", "clip_soft", "sum_stat") if c not in targets]
    if missing:
        raise SchemaError("the table of targets needs the columns scale, clip_soft and sum_stat of each track; "
                          f"{', '.join(missing)} missing; take the table that came with the weights")
    if len(targets) != values.shape[1]:
        raise SchemaError(f"the table of targets has {len(targets):,} rows, but there are {values.shape[1]:,} tracks; "
                          "give the rows of these tracks, in their order")
    numbers = targets[["scale", "clip_soft"]].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    bad = ~(np.isfinite(numbers) & (numbers > 0)).all(axis=1)
    if bad.any():
        first = int(bad.argmax())
        raise SchemaError(f"scale and clip_soft are positive numbers; {bad.sum():,} tracks have others, the first in "
                          f"row {first} (scale {targets['scale'].iloc[first]!r}, clip_soft "
                          f"{targets['clip_soft'].iloc[first]!r})")
    scale, clip = values.new_tensor(numbers).T.unsqueeze(-1)
    raised = targets["sum_stat"].astype(str).str.endswith("_sqrt").to_numpy(bool)
    return scale, clip, torch.as_tensor(raised, device=values.device)[:, None]
