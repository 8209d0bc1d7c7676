"""What the generators are built of: dilated convolutions that see left only or both sides, and embedded labels.

A label never shares a table with the bases, so that none can be taken for the other, however many there are.
"""

import math

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.nn.conv import Conv1d

_DILATIONS = (1, 2, 4, 8, 16, 32, 64)


class PositionNorm(nn.LayerNorm):
    """Layer norm over the channels of each position of ``(B, C, L)``."""

    def forward(self, input: Float[Tensor, "B C L"]) -> Float[Tensor, "B C L"]:
        """Normalize."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class Residual(nn.Module):
    """``x + mix(gelu(conv(norm(x) + condition)))``, of both sides or (`causal`) of what came before."""

    def __init__(self, channels: int, kernel: int, dilation: int, causal: bool):
        super().__init__()
        self.reach, self.dilation, self.causal = (kernel - 1) * dilation, dilation, causal
        self.norm = PositionNorm(channels)
        self.conv = Conv1d(channels, channels, kernel, dilation=dilation)
        self.mix = Conv1d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "B C L"], condition: Float[Tensor, "B C"]) -> Float[Tensor, "B C L"]:
        """All positions at once."""
        before = self.reach if self.causal else self.reach // 2
        h = F.pad(self.norm(x) + condition[:, :, None], (before, self.reach - before))
        return x + self.mix(F.gelu(self.conv(h)))

    def step(self, x: Float[Tensor, "B C"], condition: Float[Tensor, "B C"], past: Float[Tensor, "B P C"], i: int
             ) -> Float[Tensor, "B C"]:
        """Position `i` alone, if causal; `past` holds what the convolution read before, `reach` zeros first."""
        past[:, self.reach + i] = F.layer_norm(x, (x.shape[1],), self.norm.weight, self.norm.bias) + condition
        taps = past[:, i:i + self.reach + 1:self.dilation].transpose(1, 2)  # (B, C, kernel)
        h = F.gelu(F.linear(taps.flatten(1), self.conv.weight.flatten(1), self.conv.bias))
        return x + F.linear(h, self.mix.weight[:, :, 0], self.mix.bias)


class DilatedConvs(nn.Module):
    """A stack of `Residual` with dilations 1, 2, 4 … 64, again from 1, and an output for each base.

    Parameters
    ----------
    channels, n_layers, kernel
        Of the stack.
    length
        Of the sequences, bp: each position has a bias of its own (promoters are aligned), and dilations stay below.
    causal
        Position i sees positions up to i only.
    """

    def __init__(self, channels: int, n_layers: int, kernel: int, length: int, *, causal: bool):
        super().__init__()
        dilations = [d for d in _DILATIONS if d < length] or [1]
        self.position = nn.Parameter(torch.zeros(channels, length))
        self.layers = nn.ModuleList(Residual(channels, kernel, dilations[i % len(dilations)], causal)
                                    for i in range(n_layers))
        self.norm = PositionNorm(channels)
        self.head = Conv1d(channels, 4, 1)

    def forward(self, x: Float[Tensor, "B C L"], condition: Float[Tensor, "B C"]) -> Float[Tensor, "B 4 L"]:
        """Logits of the bases."""
        x = x + self.position
        for layer in self.layers:
            x = layer(x, condition)
        return self.head(self.norm(x))

    def pasts(self, n: int) -> list[Float[Tensor, "B _ C"]]:
        """Empty memories for `step`, one a layer."""
        channels, length = self.position.shape
        return [self.position.new_zeros(n, layer.reach + length, channels)  # type: ignore[operator]
                for layer in self.layers]

    def step(self, x: Float[Tensor, "B C"], condition: Float[Tensor, "B C"], pasts: list[Tensor], i: int
             ) -> Float[Tensor, "B 4"]:
        """Logits at position `i`, if causal; positions come in order."""
        x = x + self.position[:, i]
        for layer, past in zip(self.layers, pasts, strict=True):
            x = layer.step(x, condition, past, i)  # type: ignore[operator]
        return F.linear(F.layer_norm(x, (x.shape[1],), self.norm.weight, self.norm.bias),
                        self.head.weight[:, :, 0], self.head.bias)


class LabelEmbedding(nn.Module):
    """One vector for the labels of a sequence: the sum over targets; label `n_labels` means unknown."""

    def __init__(self, n_targets: int, n_labels: int, channels: int):
        super().__init__()
        self.n_labels = n_labels
        self.table = nn.Embedding(n_targets * (n_labels + 1), channels)

    def forward(self, labels: Int64[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """Embed."""
        first = torch.arange(labels.shape[1], device=labels.device) * (self.n_labels + 1)
        return self.table(labels + first).sum(1)


class TimeEmbedding(nn.Module):
    """A vector for how much noise there is, from sines and cosines of the logarithm of the time."""

    def __init__(self, channels: int, n_waves: int = 16):
        super().__init__()
        self.register_buffer("waves", 2 * math.pi * 2.0 ** torch.linspace(-2, 3, n_waves))
        self.dense = nn.Sequential(nn.Linear(2 * n_waves, channels), nn.GELU(), nn.Linear(channels, channels))

    def forward(self, time: Float[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Embed positive times."""
        angle = time.log()[:, None] * self.waves  # type: ignore[operator]
        return self.dense(torch.cat([angle.sin(), angle.cos()], dim=1))


def one_hot_codes(codes: Integer[Tensor, "B L"], n: int) -> Float[Tensor, "B n L"]:
    """One-hot of codes below `n`, channels before positions; codes from `n` on are zeros."""
    return (codes[:, None] == torch.arange(n, device=codes.device)[:, None]).float()
