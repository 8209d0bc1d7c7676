"""Slow twin of the CRISPRi benchmark's curve: one threshold after another, each pair looked at again."""

import itertools

import numpy as np


def points(label, score):
    """``[(precision, recall)]`` of calling all pairs at or above each distinct score, best first."""
    out = []
    for threshold in sorted(set(score), reverse=True):
        called = [bool(y) for y, s in zip(label, score, strict=True) if s >= threshold]
        out.append((sum(called) / len(called), sum(called) / sum(bool(y) for y in label)))
    return out


def metrics(label, score, recall=0.7):
    """Area by the protocol's rule, average precision, precision at a recall."""
    curve = points(label, score)
    kept = curve[:-1]
    area = 0.0
    for (p0, r0), (p1, r1) in itertools.pairwise(kept):
        area += (r1 - r0) * (p0 + p1) / 2
    average, before = 0.0, 0.0
    for p, r in curve:
        average += (r - before) * p
        before = r
    at = next((p for p, r in kept if r >= recall - 1e-9), np.nan)
    return area if len(curve) > 2 else np.nan, average, at


def resampled(label, score, copies, recall=0.7):
    """The same when each pair is held `copies` times."""
    rows = [i for i, n in enumerate(copies) for _ in range(int(n))]
    return metrics([label[i] for i in rows], [score[i] for i in rows], recall)
