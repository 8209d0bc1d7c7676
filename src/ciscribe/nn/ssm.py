"""Selective state-space layers: how a model reads a long stretch of DNA at a cost linear in its length.

`selective_scan` is the recurrence of Mamba as a chunked parallel scan in plain PyTorch, with a hand-written
backward pass: no loop over positions, memory linear in length, any device. `BiMamba` is the mixer that runs
it in both directions; `BiMambaBlock` and `BiMambaStack` are the residual network that sequence models use.

How the scan works: the sequence is cut into chunks that follow each other, a chunk into blocks that run side
by side. Inside a chunk all blocks advance together, one offset per step, first from a zero state to learn where
each block ends, then from the state in which the block before it really ended. Only the states between
chunks are kept for the backward pass, which computes the others anew, chunk by chunk. A chunk is sized to
stay in the cache of a CPU, or to fill a GPU.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ciscribe.errors import SchemaError

# Elements of one chunk buffer (chunk x state x channels): 2 MiB of fp32 per CPU thread; 256 MiB on a GPU.
_CPU_BUFFER = 2**19
_GPU_BUFFER = 2**26
_MIN_CHUNK = 16
_LOG2_E = 1 / math.log(2)


class _Tiling(NamedTuple):
    """How one scan is cut: `group` sequences at a time, `chunk` positions, blocks of `block` positions."""

    group: int
    chunk: int
    block: int

    @classmethod
    def of(cls, x: Tensor, n_states: int, chunk: int | None) -> "_Tiling":
        n_batch, length, n_channels = x.shape
        width = n_states * n_channels
        buffer = _CPU_BUFFER * torch.get_num_threads() if x.device.type == "cpu" else _GPU_BUFFER
        # Many sequences side by side make wide steps, so they come before long chunks.
        group = max(1, min(n_batch, buffer // (width * (chunk or min(_MIN_CHUNK, length)))))
        if chunk is None:
            n_chunks = math.ceil(length / max(_MIN_CHUNK, buffer // (group * width)))
            chunk = math.ceil(length / n_chunks)
        chunk = min(chunk, length)
        block = max(1, round(math.sqrt(chunk / 2)))  # 2 passes over a block, 1 over the blocks
        return cls(group, math.ceil(chunk / block) * block, block)

    def tiles(self, n_batch: int, length: int, backwards: bool) -> Iterator[tuple[slice, int, slice]]:
        """Give (sequences, index of the chunk, its positions), chunks in the order of the recurrence."""
        starts = list(enumerate(range(0, length, self.chunk)))
        for row in range(0, n_batch, self.group):
            for i_chunk, start in reversed(starts) if backwards else starts:
                yield slice(row, row + self.group), i_chunk, slice(start, min(start + self.chunk, length))

    def load(self, tensor: Tensor, rows: slice, columns: slice, dtype: torch.dtype) -> Tensor:
        """One tile as (sequence, block, offset, feature); zeros complete the last block."""
        part = tensor[rows, columns].to(dtype)
        missing = -part.shape[1] % self.block
        if missing:  # delta = 0 leaves a state as it is, so these positions change nothing
            part = F.pad(part, (0, 0, 0, missing))
        return part.unflatten(1, (-1, self.block))


def _carry(local: Tensor, decay: Tensor, state: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """State with which each block starts, and the one that leaves the last block; `local` are ends from zero."""
    starts = torch.empty_like(local)
    locals_, decays, states = local.unbind(1), decay.unbind(1), starts.unbind(1)
    if backwards:
        locals_, decays, states = locals_[::-1], decays[::-1], states[::-1]
    states[0].copy_(state)
    for i in range(len(states) - 1):
        torch.addcmul(locals_[i], decays[i], states[i], out=states[i + 1])
    return starts, torch.addcmul(locals_[-1], decays[-1], states[-1])


def _states(
    a: Tensor, h: Tensor, delta: Tensor, u: Tensor, B: Tensor, log2_decay: Tensor, state: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Fill `a` with exp(delta A) and `h` with the states of one tile; both (sequence, block, offset, N, E).

    Returns the decay over each block, the state before each block, and the state after the tile.
    """
    torch.mul(delta[..., None, :], log2_decay, out=a).exp2_()  # several times faster than exp on some CPUs
    torch.mul(u[..., None, :], B[..., None], out=h)
    decay = torch.mul(delta.sum(2)[..., None, :], log2_decay).exp2_()
    a_at, h_at = a.unbind(2), h.unbind(2)
    if reverse:
        a_at, h_at = a_at[::-1], h_at[::-1]
    end = h_at[0].clone()
    for a_r, h_r in zip(a_at[1:], h_at[1:], strict=True):
        torch.addcmul(h_r, a_r, end, out=end)
    starts, state = _carry(end, decay, state, reverse)
    before = starts
    for a_r, h_r in zip(a_at, h_at, strict=True):
        h_r.addcmul_(a_r, before)
        before = h_r
    return decay, starts, state


def _adjoints(a: Tensor, g: Tensor, decay: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Turn `g` = d loss / d h through y alone into the whole of it, in place; same layout as in `_states`.

    `state` is what comes from the tile after this one; what goes to the one before is returned.
    """
    a_at, g_at = a.unbind(2), g.unbind(2)
    if not reverse:
        a_at, g_at = a_at[::-1], g_at[::-1]
    end = g_at[0].clone()
    for a_r, g_r in zip(a_at[:-1], g_at[1:], strict=True):
        torch.addcmul(g_r, a_r, end, out=end)
    starts, state = _carry(end.mul_(a_at[-1]), decay, state, not reverse)
    g_at[0].add_(starts)
    for i in range(1, len(g_at)):
        g_at[i].addcmul_(a_at[i - 1], g_at[i - 1])
    return state


class _SelectiveScan(torch.autograd.Function):
    """The scan and its gradient. States live in fp32 (fp64 for fp64 input), whatever the inputs are."""

    @staticmethod
    def forward(ctx, x, delta, A, B, C, D, chunk, reverse):
        tiling = _Tiling.of(x, A.shape[1], chunk)
        dtype = torch.promote_types(x.dtype, torch.float32)
        n_batch, length, n_channels = x.shape
        n_states, n_chunks = A.shape[1], math.ceil(length / tiling.chunk)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        bounds = x.new_empty((n_batch, n_chunks, n_states, n_channels), dtype=dtype)
        with torch.autocast(x.device.type, enabled=False):
            log2_decay = A.to(dtype).t().contiguous() * _LOG2_E
            work = _workspace(2, tiling, x, n_states, dtype)
            state = None
            for rows, i_chunk, columns in tiling.tiles(n_batch, length, reverse):
                d, v, b, c = (tiling.load(t, rows, columns, dtype) for t in (delta, x, B, C))
                if i_chunk == (n_chunks - 1 if reverse else 0):
                    state = bounds.new_zeros((d.shape[0], n_states, n_channels))
                bounds[rows, i_chunk] = state
                a, h = _buffers(work, d, n_states)
                _, _, state = _states(a, h, d, d * v, b, log2_decay, state, reverse)
                out = torch.bmm(c.reshape(-1, 1, n_states), h.view(-1, n_states, n_channels)).view(v.shape)
                if D is not None:
                    out.addcmul_(v, D.to(dtype))
                y[rows, columns] = _cut(out, columns)
        ctx.save_for_backward(x, delta, A, B, C, D, bounds)
        ctx.tiling, ctx.reverse = tiling, reverse
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, delta, A, B, C, D, bounds = ctx.saved_tensors
        tiling, reverse = ctx.tiling, ctx.reverse
        n_batch, length, n_channels = x.shape
        n_chunks, n_states, dtype = bounds.shape[1], bounds.shape[2], bounds.dtype
        dx, ddelta, dB, dC = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, delta, B, C))
        with torch.autocast(x.device.type, enabled=False):
            At = A.to(dtype).t().contiguous()
            log2_decay, dAt = At * _LOG2_E, torch.zeros_like(At)
            skip = None if D is None else D.to(dtype)
            dD = None if D is None else torch.zeros_like(D, dtype=dtype)
            work = _workspace(3, tiling, x, n_states, dtype)
            state = None
            for rows, i_chunk, columns in tiling.tiles(n_batch, length, not reverse):
                d, v, b, c, e = (tiling.load(t, rows, columns, dtype) for t in (delta, x, B, C, dy))
                if i_chunk == (0 if reverse else n_chunks - 1):
                    state = bounds.new_zeros((d.shape[0], n_states, n_channels))
                a, h, g = _buffers(work, d, n_states)
                u = d * v
                decay, starts, _ = _states(a, h, d, u, b, log2_decay, bounds[rows, i_chunk], reverse)
                torch.mul(e[..., None, :], c[..., None], out=g)
                state = _adjoints(a, g, decay, state, reverse)

                # d loss / d (delta A) = g_t exp(delta_t A) h_{t-1}; each buffer is used up by its last reader
                q = a.mul_(g)
                if reverse:
                    q[:, :, :-1].mul_(h[:, :, 1:])
                    q[:, :, -1].mul_(starts)
                else:
                    q[:, :, 1:].mul_(h[:, :, :-1])
                    q[:, :, 0].mul_(starts)
                flat = (-1, n_states, n_channels)
                du = torch.bmm(b.reshape(-1, 1, n_states), g.view(flat)).view(u.shape)
                db = g.mul_(u[..., None, :]).sum(-1)
                dc = h.mul_(e[..., None, :]).sum(-1)
                dAt += torch.mul(q, d[..., None, :], out=h).view(flat).sum(0)
                dd = q.mul_(At).sum(-2).addcmul_(du, v)
                dv = du.mul_(d)
                if dD is not None:
                    dv.addcmul_(e, skip)
                    dD += (e * v).sum((0, 1, 2))
                for whole, part in ((dx, dv), (ddelta, dd), (dB, db), (dC, dc)):
                    whole[rows, columns] = _cut(part, columns)
        return (dx, ddelta, dAt.t().to(A.dtype), dB, dC, None if D is None else dD.to(D.dtype), None, None)


def _workspace(n: int, tiling: _Tiling, x: Tensor, n_states: int, dtype: torch.dtype) -> list[Tensor]:
    """`n` flat buffers that hold the largest tile; every tile reuses them."""
    length = math.ceil(tiling.chunk / tiling.block) * tiling.block
    size = min(tiling.group, x.shape[0]) * length * n_states * x.shape[2]
    return [x.new_empty(size, dtype=dtype) for _ in range(n)]


def _buffers(work: list[Tensor], delta: Tensor, n_states: int) -> list[Tensor]:
    shape = (*delta.shape[:3], n_states, delta.shape[3])
    return [buffer[: math.prod(shape)].view(shape) for buffer in work]


def _cut(tile: Tensor, columns: slice) -> Tensor:
    """Undo `_Tiling.load`: (sequence, position, feature) without the zeros of the last block."""
    return tile.flatten(1, 2)[:, : columns.stop - columns.start]


def selective_scan(
    x: Float[Tensor, "B L E"],
    delta: Float[Tensor, "B L E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B L N"],
    C: Float[Tensor, "B L N"],
    D: Float[Tensor, " E"] | None = None,
    *,
    chunk: int | None = None,
    reverse: bool = False,
) -> Float[Tensor, "B L E"]:
    """Run the input-dependent linear recurrence of Mamba along the sequence.

    ``h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t`` and ``y_t = C_t . h_t + D x_t``, with ``h`` zero before
    the first position; every channel has its own N states.

    Parameters
    ----------
    x
        What enters each channel. Shape ``(B, L, E)``.
    delta
        Step sizes, not negative. Shape ``(B, L, E)``; 0 leaves the state of that channel as it was.
    A
        Decay rates, negative. Shape ``(E, N)``.
    B, C
        How the input enters the states and how the states are read. Shape ``(B, L, N)``.
    D
        Weight of the input that goes straight to the output. Shape ``(E,)``; None is 0.
    chunk
        Positions that are worked on at once. None chooses by size and device; the result does not depend on
        it beyond rounding, speed and memory do.
    reverse
        Scan from the last position to the first.

    Returns
    -------
    Tensor
        ``(B, L, E)``, type of `x`. States are fp32 for half-precision input and under autocast.

    Raises
    ------
    SchemaError
        If the shapes do not fit each other.
    ValueError
        If `chunk` is less than 1.

    Notes
    -----
    Time and memory are linear in L. Kept for the backward pass: the arguments and one ``(B, N, E)`` state
    per chunk. The gradient cannot be differentiated again.

    References
    ----------
    Gu and Dao 2023, arXiv:2312.00752, Algorithm 2. Differences: written as a two-level scan in plain
    PyTorch instead of one CUDA kernel; the zero-order hold of B is simplified to ``delta B`` as there.
    """
    n_batch, length, n_channels = x.shape
    n_states = A.shape[-1]
    per_state = (n_batch, length, n_states)
    expected = {"delta": (delta, x.shape), "A": (A, (n_channels, n_states)), "B": (B, per_state), "C": (C, per_state)}
    if D is not None:
        expected["D"] = (D, (n_channels,))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != tuple(shape):
            raise SchemaError(
                f"{name} must be {tuple(shape)} beside x {tuple(x.shape)} and {n_states} states; "
                f"got {tuple(tensor.shape)}. Features come last, positions second."
            )
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 position; got {chunk}. Leave it None to choose by size.")
    if x.numel() == 0:
        return x * delta
    return _SelectiveScan.apply(x, delta, A, B, C, D, chunk, reverse)  # pyright: ignore[reportReturnType]


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
        width, length = self.conv_weight.shape[1], x.shape[1]
        weight = self.conv_weight.flip(1) if self.reverse else self.conv_weight
        padded = F.pad(x, (0, 0, 0, width - 1) if self.reverse else (0, 0, width - 1, 0))
        x = self.conv_bias + sum(padded[:, k : k + length] * weight[:, k] for k in range(width))
        x = F.silu(x)  # B L E
        dt, B, C = self.x_proj(x).split(self.sizes, dim=-1)  # B L r, B L N, B L N
        delta = F.softplus(self.dt_proj(dt))
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
        n_projections = 1 if tie_directions else 2
        self.in_proj = nn.ModuleList(nn.Linear(d_model, 2 * d_inner, bias=False) for _ in range(n_projections))
        self.out_proj = nn.ModuleList(nn.Linear(d_inner, d_model, bias=False) for _ in range(n_projections))
        self.scanners = nn.ModuleList(_Scanner(d_inner, d_state, d_conv, rank, reverse) for reverse in (False, True))

    def forward(self, x: Float[Tensor, "B L d_model"]) -> Float[Tensor, "B L d_model"]:
        """Mix ``(B, L, d_model)``; the shape stays."""
        forward, backward = self.scanners
        if len(self.in_proj) == 1:  # the gate and both projections are linear in, or common to, the directions
            stream, gate = self.in_proj[0](x).chunk(2, dim=-1)  # B L E
            return self.out_proj[0]((forward(stream) + backward(stream)) * F.silu(gate))
        total = torch.zeros_like(x)
        for scanner, in_proj, out_proj in zip(self.scanners, self.in_proj, self.out_proj, strict=True):
            stream, gate = in_proj(x).chunk(2, dim=-1)
            total = total + out_proj(scanner(stream) * F.silu(gate))
        return total


class BiMambaBlock(nn.Module):
    """One residual layer: ``x + dropout(BiMamba(RMSNorm(x)))``; parameters as in `BiMamba`."""

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model, eps=1e-5)
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
        self.norm = nn.RMSNorm(d_model, eps=1e-5)

    def forward(self, x: Float[Tensor, "B L d_model"]) -> Float[Tensor, "B L d_model"]:
        """Encode ``(B, L, d_model)``; the shape stays."""
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
