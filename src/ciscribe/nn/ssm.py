"""Selective state-space layers: how a model reads a long stretch of DNA at a cost linear in its length.

`BiMamba` mixes positions in both directions with `selective_scan`; `BiMambaBlock` wraps it in a residual, and
`BiMambaStack` is the network that the sequence models use.
"""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ciscribe.nn.scan import selective_scan

__all__ = ["BiMamba", "BiMambaBlock", "BiMambaStack", "selective_scan"]


class _DepthwiseConv(torch.autograd.Function):
    """Every channel convolved over the positions up to here (`reverse`: from here on); features last.

    On (B, L, E) this takes fewer passes over memory than conv1d between two transpositions, and it keeps
    nothing but its arguments. `weight` is (width, E), its last tap is at the position itself.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, reverse):
        ctx.save_for_backward(x, weight)
        ctx.reverse = reverse
        y = torch.addcmul(bias, x, weight[-1])
        for here, there, tap in _shifts(weight, x.shape[1], reverse):
            y[:, here].addcmul_(x[:, there], tap)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dx, dweight = dy * weight[-1], torch.zeros_like(weight)
        dweight[-1] = (dy * x).sum((0, 1))
        for i, (here, there, tap) in enumerate(_shifts(weight, x.shape[1], ctx.reverse), start=2):
            dx[:, there].addcmul_(dy[:, here], tap)
            dweight[-i] = (dy[:, here] * x[:, there]).sum((0, 1))
        return dx, dweight, dy.sum((0, 1)), None


def _shifts(weight: Tensor, length: int, reverse: bool) -> Iterator[tuple[slice, slice, Tensor]]:
    """Give, for 1, 2, ... positions away, the positions that look, those they see, and the tap."""
    for shift in range(1, min(weight.shape[0], length)):
        late, early = slice(shift, None), slice(None, -shift)
        yield (early, late, weight[-1 - shift]) if reverse else (late, early, weight[-1 - shift])


class _Scanner(nn.Module):
    """What one direction owns: causal convolution, the projections to (delta, B, C), and the scan."""

    def __init__(self, d_inner: int, d_state: int, d_conv: int, dt_rank: int, reverse: bool) -> None:
        super().__init__()
        self.reverse = reverse
        self.sizes = (dt_rank, d_state, d_state)
        bound = d_conv**-0.5
        self.conv_weight = nn.Parameter(torch.empty(d_inner, d_conv).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.empty(d_inner).uniform_(-bound, bound))
        self.x_proj = nn.Linear(d_inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(dt_rank, d_inner)
        nn.init.uniform_(self.dt_proj.weight, -(dt_rank**-0.5), dt_rank**-0.5)
        dt = torch.exp(torch.empty(d_inner).uniform_(math.log(1e-3), math.log(1e-1)))
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(d_inner, 1))
        self.D = nn.Parameter(torch.ones(d_inner))

    def forward(self, x: Float[Tensor, "B L E"]) -> Float[Tensor, "B L E"]:
        weight, bias = self.conv_weight.to(x.dtype).t(), self.conv_bias.to(x.dtype)
        x = F.silu(_DepthwiseConv.apply(x, weight, bias, self.reverse))  # B L E
        dt, B, C = self.x_proj(x).split(self.sizes, dim=-1)  # B L r, B L N, B L N
        # The bias is added apart, so that under autocast the step sizes are fp32.
        delta = F.softplus(F.linear(dt, self.dt_proj.weight) + self.dt_proj.bias)
        return selective_scan(x, delta, -torch.exp(self.A_log), B, C, self.D, reverse=self.reverse)


class BiMamba(nn.Module):
    """Mixes positions along a sequence in both directions with selective state spaces.

    Each direction: projection to two streams, a short causal depthwise convolution and SiLU on the first, the
    selective scan, a gate by SiLU of the second, projection back. The backward direction reads the sequence
    from its end; the two outputs are added.

    Parameters
    ----------
    d_model
        Features per position, in and out.
    d_state
        States per channel of the recurrence.
    d_conv
        Width of the causal convolution in positions.
    expand
        Channels of the recurrence per feature.
    dt_rank
        Rank of the projection to the step sizes; ``"auto"`` is ``ceil(d_model / 16)``.
    tie_directions
        Both directions share the input and output projections (Caduceus), which is then also computed once.
        Convolution, step sizes and states are always per direction.

    References
    ----------
    Gu and Dao 2023, arXiv:2312.00752 (mixer and initialisation); Schiff et al. 2024, arXiv:2403.03234 (the
    bidirectional block with tied projections); Gupta et al. 2022, arXiv:2206.11893 (S4D-real,
    ``A_n = -n``).
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        tie_directions: bool = True,
    ) -> None:
        super().__init__()
        d_inner = expand * d_model
        rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        n_proj = 1 if tie_directions else 2
        self.in_proj = nn.ModuleList(nn.Linear(d_model, 2 * d_inner, bias=False) for _ in range(n_proj))
        self.out_proj = nn.ModuleList(nn.Linear(d_inner, d_model, bias=False) for _ in range(n_proj))
        self.scanners = nn.ModuleList(
            _Scanner(d_inner, d_state, d_conv, rank, reverse) for reverse in (False, True)
        )

    def forward(self, x: Float[Tensor, "B L d_model"]) -> Float[Tensor, "B L d_model"]:
        """Mix ``(B, L, d_model)``; the shape stays."""
        forward, backward = self.scanners
        if len(self.in_proj) == 1:  # then gate and projections serve both directions and are computed once
            stream, gate = self.in_proj[0](x).chunk(2, dim=-1)  # B L E
            return self.out_proj[0]((forward(stream) + backward(stream)) * F.silu(gate))
        total = torch.zeros_like(x)
        for scanner, in_proj, out_proj in zip(self.scanners, self.in_proj, self.out_proj, strict=True):
            stream, gate = in_proj(x).chunk(2, dim=-1)
            total = total + out_proj(scanner(stream) * F.silu(gate))
        return total


class _RMSNorm(nn.RMSNorm):
    """RMSNorm whose weight follows the precision of its input, as its fused implementation wants under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class BiMambaBlock(nn.Module):
    """One residual layer: ``x + dropout(BiMamba(RMSNorm(x)))``; parameters as in `BiMamba`."""

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = _RMSNorm(d_model, eps=1e-5)
        self.mixer = BiMamba(d_model, d_state, d_conv, expand)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B L d_model"]) -> Float[Tensor, "B L d_model"]:
        """Refine ``(B, L, d_model)``; the shape stays."""
        return x + self.dropout(self.mixer(self.norm(x)))


class BiMambaStack(nn.Module):
    """A bidirectional state-space network over embedded positions: residual layers, then RMSNorm.

    Parameters
    ----------
    d_model
        Features per position, in and out.
    n_layers
        Number of `BiMambaBlock` layers.
    d_state, d_conv, expand
        As in `BiMamba`.
    dropout
        Share of the features of each layer's output set to zero in training.

    References
    ----------
    Schiff et al. 2024, arXiv:2403.03234. Differences: not reverse-complement equivariant by itself.
    """

    def __init__(
        self,
        d_model: int,
        n_layers: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            BiMambaBlock(d_model, d_state, d_conv, expand, dropout) for _ in range(n_layers)
        )
        self.norm = _RMSNorm(d_model, eps=1e-5)
        with torch.no_grad():  # the variance of the sum of the layers does not grow with their number
            for mixer in self.modules():
                if isinstance(mixer, BiMamba):
                    for weight in mixer.out_proj.parameters():
                        weight /= math.sqrt(n_layers)

    def forward(self, x: Float[Tensor, "B L d_model"]) -> Float[Tensor, "B L d_model"]:
        """Encode ``(B, L, d_model)``; the shape stays."""
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
