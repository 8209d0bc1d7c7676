"""Sequences from a Markov chain: draws, their exact likelihood, and the exact posterior of bases seen through noise."""

import numpy as np
from numpy import ndarray


def table(order: int, evenness: float, seed: int = 0) -> ndarray:
    """Random probabilities of the next base after each word, shape ``(4,) * order + (4,)``."""
    return np.random.default_rng(seed).dirichlet([evenness] * 4, size=(4,) * order)


def draw(step: ndarray, n: int, length: int, seed: int) -> ndarray:
    """Codes ``(n, length)``; the first bases are even."""
    order, rng = step.ndim - 1, np.random.default_rng(seed)
    codes = np.zeros((n, length), np.uint8)
    codes[:, :order] = rng.integers(0, 4, (n, order))
    for i in range(order, length):
        p = step[tuple(codes[:, i - order:i].T)]
        codes[:, i] = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=3)
    return codes


def loglik(step: ndarray, codes: ndarray) -> ndarray:
    """Exact log-likelihood of each sequence."""
    order = step.ndim - 1
    total = np.full(len(codes), order * np.log(0.25))
    for i in range(order, codes.shape[1]):
        total += np.log(step[tuple(codes[:, i - order:i + 1].T)])
    return total


def posterior(step: ndarray, evidence: ndarray) -> ndarray:
    """Log-probability of each base of a chain of order 1, given evidence ``(n, 4, L)`` in logarithms at each."""
    seen = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    before, after = np.zeros_like(seen), np.ones_like(seen)
    before[:, :, 0] = seen[:, :, 0] / seen[:, :, 0].sum(axis=1, keepdims=True)
    for i in range(1, seen.shape[2]):
        before[:, :, i] = (before[:, :, i - 1] @ step) * seen[:, :, i]
        before[:, :, i] /= before[:, :, i].sum(axis=1, keepdims=True)
    for i in range(seen.shape[2] - 2, -1, -1):
        after[:, :, i] = (after[:, :, i + 1] * seen[:, :, i + 1]) @ step.T
        after[:, :, i] /= after[:, :, i].sum(axis=1, keepdims=True)
    joint = before * after
    return np.log(joint / joint.sum(axis=1, keepdims=True) + 1e-300)


def divergence(a: ndarray, b: ndarray, k: int = 3) -> float:
    """Jensen–Shannon divergence of the k-mers of two sets of sequences, nats."""
    words = [sum(x[:, i:x.shape[1] - k + 1 + i].astype(int) * 4**i for i in range(k)).ravel() for x in (a, b)]
    p, q = (np.bincount(w, minlength=4**k) / len(w) for w in words)
    middle = (p + q) / 2
    return sum(float((s[s > 0] * np.log(s[s > 0] / middle[s > 0])).sum()) for s in (p, q)) / 2
