"""What a design run remembers: every score it paid for, and the best designs of every start."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt64
from numpy import ndarray

_RECENT = 2**16  # scores that wait to be sorted in


class Scores:
    """Scores of all sequences that were paid for, 16 bytes each.

    A sequence is known by a hash of 64 bits, the exclusive or of a random number for every position and base (Zobrist):
    two sequences are confused with probability 2⁻⁶⁴, any two of a million with 3 · 10⁻⁸.

    Parameters
    ----------
    length
        Of the sequences.
    """

    def __init__(self, length: int):
        draw = np.random.default_rng(length)
        self._numbers = draw.integers(0, 2**64, (length, 4), dtype=np.uint64)
        self._keys, self._scores = np.zeros(0, np.uint64), np.zeros(0)  # sorted
        self._recent: dict[int, float] = {}

    def keys(self, codes: UInt8[ndarray, "n L"]) -> UInt64[ndarray, " n"]:
        """Hash of each sequence."""
        return np.bitwise_xor.reduce(self._numbers[np.arange(codes.shape[1]), codes], axis=1)

    def find(self, keys: UInt64[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Scores of the sequences, NaN where they were never paid for."""
        found = np.array([self._recent.get(key, np.nan) for key in keys.tolist()], dtype=float)
        if len(self._keys):
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            found = np.where(self._keys[at] == keys, self._scores[at], found)
        return found

    def add(self, keys: UInt64[ndarray, " n"], scores: Float[ndarray, " n"]) -> None:
        """Remember scores of new sequences."""
        self._recent.update(zip(keys.tolist(), scores.tolist(), strict=True))
        if len(self._recent) > _RECENT:
            merged = np.concatenate([self._keys, np.fromiter(self._recent, np.uint64, len(self._recent))])
            order = np.argsort(merged, kind="stable")
            scores = np.concatenate([self._scores, np.fromiter(self._recent.values(), float, len(self._recent))])
            self._keys, self._scores, self._recent = merged[order], scores[order], {}


class Archive:
    """The best designs of each start, so that no start's success or stall decides about another.

    Parameters
    ----------
    n_starts, n_each, length
        Starts (1 where there are none), designs kept of each, and their length.
    diversity
        Share of positions in which any two designs of one start differ at least.

    Attributes
    ----------
    codes, score, found_at
        ``(n_starts, n_each, ...)``, best first; a score of −infinity is an empty place.
    """

    def __init__(self, n_starts: int, n_each: int, length: int, diversity: float):
        self.codes = np.zeros((n_starts, n_each, length), np.uint8)
        self.score = np.full((n_starts, n_each), -np.inf)
        self.found_at = np.zeros((n_starts, n_each), np.int64)
        self._apart = diversity * length

    def add(self, codes: UInt8[ndarray, "n L"], score: Float[ndarray, " n"], origin: Int[ndarray, " n"],
            found_at: Int[ndarray, " n"]) -> bool:
        """Keep what is better than what is kept; say whether any was."""
        rows = np.flatnonzero(score > self.score[origin, -1])
        changed = False
        for start in np.unique(origin[rows]):
            mine = rows[origin[rows] == start]
            places = np.flatnonzero(self.score[start] > -np.inf)
            pool = np.concatenate([self.codes[start, places], codes[mine]])
            pool_score = np.concatenate([self.score[start, places], score[mine]])
            pool_found = np.concatenate([self.found_at[start, places], found_at[mine]])
            best = spread(pool, pool_score, len(self.score[start]), max(1.0, self._apart))
            changed |= bool((best >= len(places)).any())
            k = len(best)
            self.codes[start, :k], self.score[start, :k] = pool[best], pool_score[best]
            self.found_at[start, :k], self.score[start, k:] = pool_found[best], -np.inf
        return changed

    def best(self, n: int) -> tuple[Int[ndarray, " k"], Int[ndarray, " k"]]:
        """Start and place of at most `n` designs: the best of every start before the second of any."""
        start, place = np.nonzero(self.score > -np.inf)
        order = np.lexsort((-self.score[start, place], place))[:n]
        return start[order], place[order]


def spread(codes: UInt8[ndarray, "n L"], score: Float[ndarray, " n"], n: int, apart: float) -> Int[ndarray, " k"]:
    """Rows of at most `n` sequences, the best first, each at least `apart` positions from all better ones."""
    chosen: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        if not chosen or ((codes[chosen] != codes[i]).sum(axis=1) >= apart).all():
            chosen.append(int(i))
            if len(chosen) == n:
                break
    return np.array(chosen, np.int64)


def is_first(keys: UInt64[ndarray, " n"]) -> Bool[ndarray, " n"]:
    """Mark the first of equal keys."""
    first = np.zeros(len(keys), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first
