"""The recurrence of Mamba, one position after the other, as slow and as obvious as it gets."""

import torch
from torch import Tensor


def naive_scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
               reverse: bool = False) -> Tensor:
    if reverse:
        x, delta, B, C = (t.flip(1) for t in (x, delta, B, C))
    n_batch, length, n_channels = x.shape
    h = x.new_zeros(n_batch, n_channels, A.shape[1])
    ys = []
    for t in range(length):
        h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * x[:, t])[..., None] * B[:, t, None, :]
        ys.append((h * C[:, t, None, :]).sum(-1))
    y = torch.stack(ys, 1)
    if D is not None:
        y = y + D * x
    return y.flip(1) if reverse else y
