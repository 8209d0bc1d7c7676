"""Slow twin of the hit caller's fit: one sequence, the design written out in full, one amplitude at a time."""

import numpy as np


def design(codes, cwms):
    """``{(atom, start): contributions (L,)}`` for matrices of norm 1, one after another, that lie in the sequence."""
    columns = {}
    for i, cwm in enumerate(cwms):
        for start in range(len(codes) - cwm.shape[1] + 1):
            column = np.zeros(len(codes))
            for j in range(cwm.shape[1]):
                if codes[start + j] < 4:
                    column[start + j] = cwm[codes[start + j], j]
            columns[i, start] = column
    return columns


def fit(v, codes, cwms, alpha, ripple_power=0.0, rounds=3000):
    """Minimize ``1/2 |v - D a|² + alpha Σ s a``, a >= 0, by coordinate descent: ``{(atom, start): amplitude}``."""
    columns = design(codes, cwms)
    penalty, a = {}, {}
    for (i, start), column in columns.items():
        width = cwms[i].shape[1]
        power = (v[start:start + width] ** 2).sum()
        if power > 0 and column.any():
            penalty[i, start] = alpha * np.sqrt(power + width * ripple_power)
            a[i, start] = 0.0
    r = v.copy()
    for _ in range(rounds):
        largest = 0.0
        for key in a:
            d = columns[key]
            new = max(a[key] + (d @ r - penalty[key]) / (d @ d), 0)
            r -= (new - a[key]) * d
            largest, a[key] = max(largest, abs(new - a[key])), new
        if largest < 1e-12:
            break
    return a
