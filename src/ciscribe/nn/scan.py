"""The recurrence of a selective state-space layer, at a cost linear in the length of the sequence.

`selective_scan` is a chunked parallel scan in plain PyTorch with a hand-written backward pass: no loop over
positions, memory linear in length with a small constant, any device. The layers around it are in `ssm`.

How it works: the sequence is cut into chunks that follow each other, a chunk into blocks that run side by
side. Inside a chunk all blocks advance together, one offset per step, first from a zero state to learn where
each block ends, then from the state in which the block before it really ended. Only the states between
chunks are kept for the backward pass, which computes the others anew, chunk by chunk. A chunk is sized to
stay in the cache of a CPU, or to fill a GPU.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
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

    def groups(self, n_batch: int) -> Iterator[slice]:
        """Give the sequences that are worked on side by side."""
        for start in range(0, n_batch, self.group):
            yield slice(start, start + self.group)

    def chunks(self, length: int, backwards: bool) -> Iterator[tuple[int, slice]]:
        """Give (index of the chunk, its positions) in the order of the recurrence."""
        starts = range(0, length, self.chunk)
        for i_chunk in reversed(range(len(starts))) if backwards else range(len(starts)):
            yield i_chunk, slice(starts[i_chunk], min(starts[i_chunk] + self.chunk, length))

    def load(self, tensor: Tensor, rows: slice, columns: slice, dtype: torch.dtype) -> Tensor:
        """One tile as (sequence, block, offset, feature); zeros complete the last block."""
        part = tensor[rows, columns].to(dtype)
        missing = -part.shape[1] % self.block
        if missing:  # delta = 0 leaves a state as it is, so these positions change nothing
            part = F.pad(part, (0, 0, 0, missing))
        return part.unflatten(1, (-1, self.block))

    @staticmethod
    def unload(tile: Tensor, columns: slice) -> Tensor:
        """Undo `load`: (sequence, position, feature) without the zeros of the last block."""
        return tile.flatten(1, 2)[:, : columns.stop - columns.start]


def _carry(local: Tensor, decay: Tensor, state: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """State before each block and after the last one, from `local`, the states after blocks begun at zero."""
    starts = torch.empty_like(local)
    locals_, decays, states = local.unbind(1), decay.unbind(1), starts.unbind(1)
    if backwards:
        locals_, decays, states = locals_[::-1], decays[::-1], states[::-1]
    states[0].copy_(state)
    for i in range(len(states) - 1):
        torch.addcmul(locals_[i], decays[i], states[i], out=states[i + 1])
    return starts, torch.addcmul(locals_[-1], decays[-1], states[-1])


def _states(
    a: Tensor, h: Tensor, delta: Tensor, u: Tensor, B: Tensor, log2_decay: Tensor, state: Tensor,
    reverse: bool,
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


def _workspace(n: int, tiling: _Tiling, x: Tensor, n_states: int, dtype: torch.dtype) -> list[Tensor]:
    """`n` flat buffers that hold the largest tile; every tile reuses them."""
    size = min(tiling.group, x.shape[0]) * tiling.chunk * n_states * x.shape[2]
    return [x.new_empty(size, dtype=dtype) for _ in range(n)]


def _buffers(work: list[Tensor], delta: Tensor, n_states: int) -> list[Tensor]:
    shape = (*delta.shape[:3], n_states, delta.shape[3])
    return [buffer[: math.prod(shape)].view(shape) for buffer in work]


class _SelectiveScan(torch.autograd.Function):
    """The scan and its gradient. States live in fp32 (fp64 for fp64 input), whatever the inputs are."""

    @staticmethod
    def forward(ctx, x, delta, A, B, C, D, chunk, reverse):
        tiling = _Tiling.of(x, A.shape[1], chunk)
        dtype = torch.promote_types(x.dtype, torch.float32)
        n_batch, length, n_channels = x.shape
        n_states = A.shape[1]
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        bounds = x.new_empty((n_batch, math.ceil(length / tiling.chunk), n_states, n_channels), dtype=dtype)
        work = _workspace(2, tiling, x, n_states, dtype)
        with torch.autocast(x.device.type, enabled=False):
            log2_decay = A.to(dtype).t().contiguous() * _LOG2_E
            skip = D.to(dtype)
            for rows in tiling.groups(n_batch):
                state = torch.zeros_like(bounds[rows, 0])
                for i_chunk, columns in tiling.chunks(length, reverse):
                    d, v, b, c = (tiling.load(t, rows, columns, dtype) for t in (delta, x, B, C))
                    a, h = _buffers(work, d, n_states)
                    bounds[rows, i_chunk] = state
                    _, _, state = _states(a, h, d, d * v, b, log2_decay, state, reverse)
                    out = torch.bmm(c.reshape(-1, 1, n_states), h.view(-1, n_states, n_channels))
                    y[rows, columns] = tiling.unload(out.view(v.shape).addcmul_(v, skip), columns)
        ctx.save_for_backward(x, delta, A, B, C, D, bounds)
        ctx.tiling, ctx.reverse = tiling, reverse
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, delta, A, B, C, D, bounds = ctx.saved_tensors
        tiling, reverse = ctx.tiling, ctx.reverse
        n_states, n_channels = bounds.shape[2:]
        dtype = bounds.dtype
        wholes = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, delta, B, C)]
        work = _workspace(3, tiling, x, n_states, dtype)
        with torch.autocast(x.device.type, enabled=False):
            At, skip = A.to(dtype).t().contiguous(), D.to(dtype)
            log2_decay = At * _LOG2_E
            dAt, dD = torch.zeros_like(At), torch.zeros_like(skip)
            for rows in tiling.groups(x.shape[0]):
                state = torch.zeros_like(bounds[rows, 0])
                for i_chunk, columns in tiling.chunks(x.shape[1], not reverse):
                    d, v, b, c, e = (tiling.load(t, rows, columns, dtype) for t in (delta, x, B, C, dy))
                    a, h, g = _buffers(work, d, n_states)
                    u = d * v
                    decay, starts, _ = _states(a, h, d, u, b, log2_decay, bounds[rows, i_chunk], reverse)
                    torch.mul(e[..., None, :], c[..., None], out=g)
                    state = _adjoints(a, g, decay, state, reverse)

                    # Each buffer ends in the hands of its last reader.
                    q = a.mul_(g)  # becomes d loss / d (delta_t A) = g_t exp(delta_t A) h_{t-1}
                    if reverse:
                        q[:, :, :-1].mul_(h[:, :, 1:])
                        q[:, :, -1].mul_(starts)
                    else:
                        q[:, :, 1:].mul_(h[:, :, :-1])
                        q[:, :, 0].mul_(starts)
                    du = torch.bmm(b.reshape(-1, 1, n_states), g.view(-1, n_states, n_channels)).view(u.shape)
                    db = g.mul_(u[..., None, :]).sum(-1)
                    dc = h.mul_(e[..., None, :]).sum(-1)
                    dAt += torch.mul(q, d[..., None, :], out=h).sum((0, 1, 2))
                    dd = q.mul_(At).sum(-2).addcmul_(du, v)
                    dD += (e * v).sum((0, 1, 2))
                    dv = du.mul_(d).addcmul_(e, skip)
                    for whole, part in zip(wholes, (dv, dd, db, dc), strict=True):
                        whole[rows, columns] = tiling.unload(part, columns)
        dx, ddelta, dB, dC = wholes
        return dx, ddelta, dAt.t().to(A.dtype), dB, dC, dD.to(D.dtype), None, None


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
    D = x.new_zeros(n_channels) if D is None else D
    expected = {
        "delta": (delta, x.shape),
        "A": (A, (n_channels, n_states)),
        "B": (B, per_state),
        "C": (C, per_state),
        "D": (D, (n_channels,)),
    }
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
