"""Slow, obvious numbers of sequences and sets: text in, one comparison at a time."""

import math
from collections import Counter
from itertools import combinations, groupby, product


def words(text: str, k: int) -> list[str]:
    """All overlapping words."""
    return [text[i:i + k] for i in range(len(text) - k + 1)]


def longest_match(text: str, others: list[str]) -> int:
    """Longest piece of a text that any other holds; a piece with N is none."""
    return max((j - i for i, j in combinations(range(len(text) + 1), 2)
                if "N" not in text[i:j] and any(text[i:j] in other for other in others)), default=0)


def homopolymer(text: str) -> int:
    """Longest run of one base."""
    return max((len(list(run)) for base, run in groupby(text) if base != "N"), default=0)


def hamming(a: str, b: str) -> int:
    """Positions that differ; N differs from everything."""
    return sum(x != y or x == "N" for x, y in zip(a, b, strict=True))


def tfidf(texts: list[str], natives: list[str], k: int = 6) -> list[dict[str, float]]:
    """Unit vectors of the words of texts, rare words of the natives weigh more."""
    found = Counter(word for native in natives for word in set(words(native, k)))
    out = []
    for text in texts:
        weighed = {word: n * (math.log((1 + len(natives)) / (1 + found[word])) + 1)
                   for word, n in Counter(words(text, k)).items()}
        norm = math.sqrt(sum(v * v for v in weighed.values()))
        out.append({word: v / norm for word, v in weighed.items()})
    return out


def knn_distance(text: str, natives: list[str], n: int = 5, skip: int | None = None) -> float:
    """Mean cosine distance to the nearest natives, one of which may be left out."""
    profiles = tfidf([text, *natives], natives)
    similar = sorted((sum(v * other.get(word, 0.0) for word, v in profiles[0].items())
                      for i, other in enumerate(profiles[1:]) if i != skip), reverse=True)
    return 1 - sum(similar[:n]) / n


def markov_loglik(text: str, natives: list[str], order: int = 5, pseudocount: float = 0.25) -> float:
    """Mean log-probability of a base given the ones before it."""
    counts = Counter(word for native in natives for word in words(native, order + 1))
    total = 0.0
    for word in words(text, order + 1):
        row = [counts[word[:-1] + base] + pseudocount for base in "ACGT"]
        total += math.log((counts[word] + pseudocount) / sum(row))
    return total / (len(text) - order)


def diversity(texts: list[str]) -> float:
    """Mean share of positions in which two texts differ."""
    pairs = list(combinations(texts, 2))
    return sum(hamming(a, b) for a, b in pairs) / len(pairs) / len(texts[0])


def jensen_shannon(a: list[str], b: list[str], k: int) -> float:
    """Divergence of the words of two sets, bits."""
    counts = [Counter(word for text in texts for word in words(text, k)) for texts in (a, b)]
    share = [{word: c[word] / sum(c.values()) for word in map("".join, product("ACGT", repeat=k))} for c in counts]
    total = 0.0
    for word in share[0]:
        p, q = share[0][word], share[1][word]
        total += sum(x * math.log2(x / ((p + q) / 2)) for x in (p, q) if x) / 2
    return total
