"""Slow, obvious designers: everything written out, one sequence at a time."""

from collections.abc import Callable
from itertools import product

BASES = "ACGT"


def neighbours(text: str) -> list[str]:
    """All single substitutions, by position and base."""
    return [text[:i] + base + text[i + 1:] for i, old in enumerate(text) for base in BASES if base != old]


def greedy(text: str, score: Callable[[str], float], allowed: Callable[[str], bool], rounds: int) -> list[str]:
    """Sequences on the way of greedy evolution; ends early where no substitution improves."""
    way = [text]
    for _ in range(rounds):
        options = [other for other in neighbours(way[-1]) if allowed(other)]
        best = max(options, key=score, default=way[-1])
        if score(best) <= score(way[-1]):
            break
        way.append(best)
    return way


def beam(text: str, score: Callable[[str], float], allowed: Callable[[str], bool], rounds: int, width: int
         ) -> list[str]:
    """The best `width` sequences that beam search ends with, best first."""
    kept, front = [text], [text]
    for _ in range(rounds):
        pool = {*kept, *(other for parent in front for other in neighbours(parent) if allowed(other))}
        best = sorted(pool, key=score, reverse=True)[:width]
        front = [one for one in best if one not in kept]
        kept = best
    return kept


def local_optima(score: Callable[[str], float], length: int) -> set[str]:
    """All sequences that no substitution improves."""
    scores = {"".join(bases): score("".join(bases)) for bases in product(BASES, repeat=length)}
    return {text for text, value in scores.items() if all(scores[other] <= value for other in neighbours(text))}


def prune(text: str, start: str, score: Callable[[str], float], tolerance: float) -> str:
    """Take edits back one by one, the least costly first, while the score stays within `tolerance`."""
    least = score(text) - tolerance
    while True:
        options = [text[:i] + old + text[i + 1:] for i, old in enumerate(start) if text[i] != old]
        best = max(options, key=score, default=None)
        if best is None or score(best) < least:
            return text
        text = best
