"""Slow twin of the motif scan: every window by a loop, every p-value by writing out all words of the motif's length."""

from itertools import product
from math import log2, prod

COMPLEMENT = {0: 3, 1: 2, 2: 1, 3: 0}


def log_odds(ppm, background, pseudocount):
    """List of columns, each the four scores."""
    return [[log2((column[b] + pseudocount * background[b]) / (1 + pseudocount) / background[b]) for b in range(4)]
            for column in ppm.T]


def windows(codes, scores):
    """``(row, start, strand, score)`` of every window without N on both strands."""
    width = len(scores)
    for row, sequence in enumerate(codes.tolist()):
        for start in range(len(sequence) - width + 1):
            word = sequence[start:start + width]
            if max(word) < 4:
                yield row, start, "+", sum(scores[j][b] for j, b in enumerate(word))
                turned = [COMPLEMENT[b] for b in reversed(word)]
                yield row, start, "-", sum(scores[j][b] for j, b in enumerate(turned))


def all_words(scores, background):
    """``(score, probability)`` of each of the 4^W words."""
    return [(sum(scores[j][b] for j, b in enumerate(word)), prod(background[b] for b in word))
            for word in product(range(4), repeat=len(scores))]
