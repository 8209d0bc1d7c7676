"""Slow twins of motif effects: the whole allele written out, every window scored by a loop; gapped words by a dict."""

from collections import Counter
from itertools import combinations
from math import exp, log, log2, sqrt

from reference.motif_scan import log_odds, windows

TURN = str.maketrans("ACGT", "TGCA")


def effect(context, start, ref, alt, ppm, *, background, threshold, temperature, floor, pseudocount):
    """(best of ref, best of alt, log2 ratio of occupancies) of a variant at `start` of a list of codes."""
    scores = log_odds(ppm, background, pseudocount)
    found = []
    for allele in (ref, alt):
        codes = [*context[:start], *allele, *context[start + len(ref):]]
        over = [score for _, at, _, score in windows(_Rows([codes]), scores)
                if at < start + len(allele) and at + len(scores) > start]
        bound = sum(1 / (1 + exp((threshold - s) * log(2) / temperature)) for s in over)
        found.append((max(over), bound + floor))
    return found[0][0], found[1][0], log2(found[1][1] / found[0][1])


class _Rows(list):
    def tolist(self):
        return list(self)


def gapped_words(sequence, length, k):
    """Word with gaps (as text, the smaller of both strands) → its count, divided by the length of the vector."""
    counts = Counter()
    for offsets in combinations(range(length), k):
        if offsets[0]:
            continue
        for start in range(len(sequence) - offsets[-1]):
            word = "".join(sequence[start + o] if o in offsets else "-" for o in range(offsets[-1] + 1))
            if "N" not in word:
                counts[min(word, word.translate(TURN)[::-1])] += 1
    norm = sqrt(sum(c * c for c in counts.values())) or 1
    return {word: c / norm for word, c in counts.items()}
