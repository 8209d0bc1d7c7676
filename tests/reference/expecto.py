"""ExPecto's features, one bin, one strand and one weight after the other, as slow and as obvious as it gets."""

import math

import torch
from torch import Tensor

COMPLEMENT = [3, 2, 1, 0]


def naive_spatial(chromatin: Tensor, distance: list[float], step: int = 200) -> Tensor:
    out = []
    for gene in chromatin:
        features = []
        for side in ("up", "down"):
            for rate in (0.01, 0.02, 0.05, 0.1, 0.2):
                for feature in gene:
                    total = 0.0
                    for value, d in zip(feature.tolist(), distance, strict=True):
                        if d == 0 or (d < 0) == (side == "up"):
                            total += math.exp(-rate * math.floor(abs(d) / step)) * value
                    features.append(total)
        out.append(features)
    return torch.tensor(out, dtype=chromatin.dtype)


def naive_features(beluga, X: Tensor, tss: int, n_bins: int, step: int, context: int) -> Tensor:
    """Features of genes whose start is base `tss` of X; what lies off X is N."""
    distance = [float(step * (i - n_bins // 2)) for i in range(n_bins)]
    chromatin = []
    for x in X:
        bins = []
        for d in distance:
            window = torch.zeros(4, context, dtype=X.dtype)
            for i in range(context):
                p = tss + int(d) - context // 2 + i
                if 0 <= p < x.shape[1]:
                    window[:, i] = x[:, p]
            back = torch.stack([window[c].flip(0) for c in COMPLEMENT])
            bins.append((torch.sigmoid(beluga(window[None])[0]) + torch.sigmoid(beluga(back[None])[0])) / 2)
        chromatin.append(torch.stack(bins, dim=1))
    return naive_spatial(torch.stack(chromatin), distance, step)
