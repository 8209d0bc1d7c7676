"""Slow twin of DeepLIFT: a network as a list of layers, one matrix of multipliers a layer, in float64."""

import numpy as np
import torch
from torch import Tensor, nn


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(x[None])[0]


def _matrix(layer: nn.Module, shape: torch.Size) -> np.ndarray:
    """Weights of a linear layer, out × in, found by asking for the change that each input makes."""
    n = shape.numel()
    with torch.no_grad():
        moved = layer(torch.eye(n, dtype=torch.float64).view(n, *shape)).flatten(1)
        still = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten(1)
    return (moved - still).numpy().T


def _max_pool(layer: nn.MaxPool1d, x: Tensor, r: Tensor) -> np.ndarray:
    """The difference of two maxima goes to where the larger one is."""
    out = _apply(layer, x)
    n_channels, length, n_out = len(x), x.shape[1], out.shape[1]
    matrix = np.zeros((n_channels, n_out, n_channels, length))
    for c in range(n_channels):
        for o in range(n_out):
            start = o * layer.stride - layer.padding
            window = [i for i in range(start, start + layer.kernel_size) if 0 <= i < length]
            a, b = ([float(t[c, i]) for i in window] for t in (x, r))
            top, top_r = max(a), max(b)
            k = a.index(top) if top >= top_r else b.index(top_r)
            matrix[c, o, c, window[k]] = 1.0 if a[k] == b[k] else (top - top_r) / (a[k] - b[k])
    return matrix.reshape(n_channels * n_out, n_channels * length)


def _slope(layer: nn.Module, a: Tensor, r: Tensor) -> np.ndarray:
    fa, fr = _apply(layer, a).flatten(), _apply(layer, r).flatten()
    a, r = a.flatten(), r.flatten()
    return np.array([float((u - v) / (x - y)) if x != y else _derivative(layer, y)
                     for x, y, u, v in zip(a, r, fa, fr, strict=True)])


def _derivative(layer: nn.Module, x: Tensor) -> float:
    x = x.clone().requires_grad_()
    layer(x[None]).sum().backward()
    return float(x.grad)


def rescale(layers: nn.Sequential, x: Tensor, r: Tensor) -> np.ndarray:
    """Multipliers of the output 0 of one sequence against one reference, by the Rescale rule."""
    total = np.eye(x.numel())
    shape = x.shape
    for layer in layers.double():
        if isinstance(layer, nn.MaxPool1d):
            step = _max_pool(layer, x, r)
        elif isinstance(layer, nn.ReLU | nn.Sigmoid | nn.GELU):
            step = np.diag(_slope(layer, x, r))
        else:
            step = _matrix(layer, x.shape)
        total = step @ total
        x, r = _apply(layer, x), _apply(layer, r)
    return total[0].reshape(shape)


def reveal_cancel(layers: nn.Sequential, x: Tensor, r: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers of positive and of negative differences, by the RevealCancel rule."""
    shape, n = x.shape, x.numel()
    up, down = (x - r).clamp(min=0), (x - r).clamp(max=0)
    total = np.eye(2 * n)  # positive parts, then negative parts
    for layer in layers.double():
        if isinstance(layer, nn.MaxPool1d):
            same = _max_pool(layer, x, r)
            step = np.block([[same, 0 * same], [0 * same, same]])
            n_out = len(same)
        elif isinstance(layer, nn.ReLU | nn.Sigmoid | nn.GELU):
            ups = (_slope(layer, r + up, r) + _slope(layer, r + down + up, r + down)) / 2
            downs = (_slope(layer, r + down, r) + _slope(layer, r + down + up, r + up)) / 2
            step, n_out = np.diag(np.concatenate([ups, downs])), len(ups)
        else:
            weight = _matrix(layer, r.shape)
            plus, minus = np.maximum(weight, 0), np.minimum(weight, 0)
            step, n_out = np.block([[plus, minus], [minus, plus]]), len(weight)
        total = step @ total
        parts = step @ np.concatenate([up.flatten().numpy(), down.flatten().numpy()])
        x, r = _apply(layer, x), _apply(layer, r)
        up, down = (torch.from_numpy(part).view(r.shape) for part in (parts[:n_out], parts[n_out:]))
    n_out = len(total) // 2
    both = total[0] + total[n_out]  # the output is the sum of its parts
    return both[:n].reshape(shape), both[n:].reshape(shape)


def hypothetical(plus: np.ndarray, minus: np.ndarray, r: np.ndarray) -> np.ndarray:
    """What each base ``(4, L)`` would contribute in the place of the reference."""
    out = np.zeros_like(plus)
    for base in range(4):
        for position in range(plus.shape[1]):
            for c in range(4):
                difference = (c == base) - r[c, position]
                out[base, position] += (plus if difference > 0 else minus)[c, position] * difference
    return out
