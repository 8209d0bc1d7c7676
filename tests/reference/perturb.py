"""A model whose law is known, and slow twins of the experiments: strings, loops, one prediction at a time."""

from itertools import combinations

import torch
from torch import nn

A, B, R = "TGACTCA", "GGAAC", "CACCTGT"
GAP = 11  # bp between A and B at which they help each other
PAIR = str.maketrans("ACGTN", "TGCAN")


def grammar(sequence, scale=1.0, shift=0.0):
    """Two tracks: activators A and B with a synergy at one gap and a repressor R; and R against A."""
    at = {m: [i for i in range(len(sequence)) if sequence[i:i + len(m)] == m] for m in (A, B, R)}
    pairs = sum(a + len(A) + GAP in at[B] for a in at[A])
    values = [2 * len(at[A]) + len(at[B]) - 3 * len(at[R]) + 5 * pairs + 7, len(at[R]) - 0.5 * len(at[A])]
    return [scale * v + shift for v in values]


class Grammar(nn.Module):
    """The same as a network: one filter a motif that is 1 where the motif is and 0 elsewhere."""

    def __init__(self):
        super().__init__()
        for name, motif in (("a", A), ("b", B), ("r", R)):
            conv = nn.Conv1d(4, 1, len(motif))
            with torch.no_grad():
                conv.weight[:] = torch.tensor([[float(letter == base) for letter in motif] for base in "ACGT"])
                conv.bias[:] = 1.0 - len(motif)
            setattr(self, name, conv)

    def forward(self, X, S=None, covariates=None):
        a, b, r = (conv(X).relu()[:, 0] for conv in (self.a, self.b, self.r))
        far = len(A) + GAP
        n = min(a.shape[1], b.shape[1] - far)
        pairs = (a[:, :n] * b[:, far:far + n]).sum(1)
        n_a, n_b, n_r = (x.sum(1) for x in (a, b, r))
        y = torch.stack([2 * n_a + n_b - 3 * n_r + 5 * pairs + 7, n_r - 0.5 * n_a], dim=1)
        y = y if S is None else y * S.mean((1, 2))[:, None]
        return y if covariates is None else y + covariates.sum(1, keepdim=True)


def replaced(sequence, start, piece):
    """Write a piece over a sequence; N keeps what is there."""
    letters = list(sequence)
    for i, letter in enumerate(piece):
        if letter != "N":
            letters[start + i] = letter
    return "".join(letters)


def erased(sequence, intervals):
    for start, end in intervals:
        sequence = sequence[:start] + "N" * (end - start) + sequence[end:]
    return sequence


def tile_windows(length, width, stride):
    out, start = [], 0
    while True:
        out.append((start, min(start + width, length)))
        if start + width >= length:
            return out
        start += stride


def tile_deletion(f, sequence, width, stride):
    """Effects of windows that become N, and the mean for each base; one list a track."""
    windows = tile_windows(len(sequence), width, stride)
    before = f(sequence)
    effects = [[x - y for x, y in zip(before, f(erased(sequence, [w])), strict=True)] for w in windows]
    scores = []
    for i in range(len(sequence)):
        over = [e for e, (start, end) in zip(effects, windows, strict=True) if start <= i < end]
        scores.append([sum(e[t] for e in over) / len(over) for t in range(len(before))])
    return effects, scores


def on_strand(motif, strand):
    return motif if strand == "+" else motif.translate(PAIR)[::-1]


def cooperativity(f, background, motif_a, motif_b, at, gap, orientation):
    """f(AB) − f(A) − f(B) + f(none), a number a track."""
    a, b = on_strand(motif_a, orientation[0]), on_strand(motif_b, orientation[1])
    there = at + len(a) + gap
    only_a, only_b = replaced(background, at, a), replaced(background, there, b)
    both = replaced(only_a, there, b)
    return [ab - x - y + none for ab, x, y, none in
            zip(f(both), f(only_a), f(only_b), f(background), strict=True)]


def double_mutants(f, sequence, positions):
    """(p, base, q, base) → effects of the first, the second, both, and epistasis; a number a track each."""
    out = {}
    wild = f(sequence)
    for p, q in combinations(positions, 2):
        for x in "ACGT":
            for y in "ACGT":
                if "N" in (sequence[p], sequence[q]) or x == sequence[p] or y == sequence[q]:
                    continue
                one, two = replaced(sequence, p, x), replaced(sequence, q, y)
                both = replaced(one, q, y)
                effects = [[w - v for w, v in zip(wild, f(s), strict=True)] for s in (one, two, both)]
                effects.append([v - a - b + w for v, a, b, w in zip(f(both), f(one), f(two), wild, strict=True)])
                out[p, x, q, y] = effects
    return out
