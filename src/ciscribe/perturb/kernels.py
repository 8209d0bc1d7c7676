"""Two inner loops of `ciscribe.perturb.local` on a CPU, each one pass over memory.

PyTorch does the same in five to eight passes, which take longer than the arithmetic. Windows are ``(n, w, C)``,
references ``(R, L, C)``, both float32; positions outside of the sequence are 0.
"""

from typing import no_type_check

import numba
import numpy as np
import torch
from torch import Tensor


def serves(*tensors: Tensor) -> bool:
    """Whether the loops can take these tensors."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def relu_windows(delta: Tensor, reference: Tensor, row: Tensor, start: Tensor) -> Tensor:
    """max(0, r + δ) − max(0, r) in each window."""
    out = torch.empty_like(delta)
    _relu_windows(_view(delta), _view(reference), _view(row), _view(start), _view(out))
    return out


def lay_taps(made: Tensor, far: int, start: Tensor, length: int) -> Tensor:
    """Sum what each tap of a convolution made of the windows, each shifted by `far` positions more than the last.

    Parameters
    ----------
    made
        ``(n, w, taps, C)``.
    start
        First position of each window of the output.
    length
        Positions of the sequence; sums outside of it are 0.
    """
    n, width, taps, channels = made.shape
    out = made.new_empty(n, width + (taps - 1) * far, channels)
    _lay_taps(_view(made), far, _view(start), length, _view(out))
    return out


def _view(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@no_type_check
@numba.njit(cache=True, nogil=True, fastmath={"nnan", "ninf", "nsz"})
def _relu_windows(delta, reference, row, start, out):  # pragma: no cover - compiled
    n, width, channels = delta.shape
    length = reference.shape[1]
    zero = np.float32(0)
    for i in range(n):
        for j in range(width):
            at = start[i] + j
            if at < 0 or at >= length:
                for c in range(channels):
                    out[i, j, c] = zero
                continue
            r, d, o = reference[row[i], at], delta[i, j], out[i, j]
            for c in range(channels):
                o[c] = max(r[c] + d[c], zero) - max(r[c], zero)


@no_type_check
@numba.njit(cache=True, nogil=True)
def _lay_taps(made, far, start, length, out):  # pragma: no cover - compiled
    n, width, taps, channels = made.shape
    for i in range(n):
        for j in range(out.shape[1]):
            o = out[i, j]
            at = start[i] + j
            for c in range(channels):
                o[c] = 0
            if at < 0 or at >= length:
                continue
            for tap in range(taps):
                k = j - tap * far
                if 0 <= k < width:
                    m = made[i, k, tap]
                    for c in range(channels):
                        o[c] += m[c]
