"""Forbidden words as one machine that reads a sequence base by base, and what can be computed exactly with it.

All words compile to one deterministic automaton. Its state is all that the bases read so far have to say about those
to come, so the best, the nearest and every reachable sequence without a forbidden word come from dynamic programming
over (position, state), with counters beside the state for edits and for G and C.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from ciscribe.data.motif_table import IUPAC
from ciscribe.errors import ConfigError
from ciscribe.sequence import BASES

MAX_STATES = 2**14
NEVER = 2**14  # more edits than any sequence has: it cannot be finished


@dataclass(frozen=True, eq=False)
class Automaton:
    """A reader that dies when it has read a forbidden word.

    For plain words this is the automaton of Aho & Corasick without the states in which a word has ended. Letters
    that stand for several bases are not spelled out: a state is the set of all word beginnings that the last bases
    match, found by bit-parallel matching (Baeza-Yates & Gonnet).

    Parameters
    ----------
    next
        State after state `s` and base `c`, int32 ``(S, 4)``. State 0 has read nothing; the last state is dead.
    start
        State after the 5' flank.
    end
        States in which a sequence may end, so that the 3' flank can be read alive; bool ``(S,)``.

    References
    ----------
    Aho & Corasick 1975, doi:10.1145/360825.360855; Baeza-Yates & Gonnet 1992, doi:10.1145/135239.135243.
    """

    next: Int[ndarray, "S 4"]
    start: int
    end: Bool[ndarray, " S"]

    @classmethod
    def of(cls, words: Sequence[str], flanks: tuple[UInt8[ndarray, " A"], UInt8[ndarray, " B"]]) -> "Automaton":
        """Compile words of IUPAC letters (upper case, one strand) for sequences between two flanks.

        Raises
        ------
        ConfigError
            When the words need more than `MAX_STATES` states.
        """
        first, last, at = 0, 0, 0
        accept = [0, 0, 0, 0]
        for word in words:
            first |= 1 << at
            for letter in word:
                for base in IUPAC[letter]:
                    accept[BASES.index(base)] |= 1 << at
                at += 1
            last |= 1 << (at - 1)
        number, found, table = {0: 0}, [0], []
        for state in found:  # grows while it is read
            row = []
            for matching in accept:
                after = (state << 1 | first) & matching  # a bit is the beginning of a word up to there
                if after & last:
                    row.append(-1)
                    continue
                if after not in number:
                    number[after] = len(found)
                    found.append(after)
                row.append(number[after])
            table.append(row)
            if len(found) > MAX_STATES:
                raise ConfigError(f"{len(words):,} forbidden words need more than {MAX_STATES:,} states; forbid fewer "
                                  "words, shorter ones, or ones with fewer letters N")
        dead = len(table)
        step = np.array([*table, [dead] * 4], dtype=np.int32)
        step[step < 0] = dead
        start, end = 0, np.arange(dead + 1)
        for base in flanks[0]:
            start = int(step[start, base])
        for base in flanks[1]:
            end = step[end, base]
        return cls(step, start, end != dead)

    def accepts(self, codes: UInt8[ndarray, "N L"]) -> Bool[ndarray, " N"]:
        """Whether no forbidden word stands in the sequence or across its junctions with the flanks."""
        out = np.empty(len(codes), dtype=np.bool_)
        _accepts(np.ascontiguousarray(codes), self.next, self.start, self.end, out)
        return out

    def substitutions(self, codes: UInt8[ndarray, "N L"]) -> Bool[ndarray, "N 4 L"]:
        """Which single substitutions give an accepted sequence; the present base counts as none.

        Only the bases behind a substitution are read, until the reader is in the state it was in without it.
        """
        n, length = codes.shape
        out = np.zeros((n, 4, length), dtype=np.bool_)
        _substitutions(np.ascontiguousarray(codes), self.next, self.start, self.end, out)
        return out

    def best(self, logits: Float[ndarray, "N 4 L"], allowed: Bool[ndarray, "A 4 L"], row: Int[ndarray, " N"],
             starts: UInt8[ndarray, "A L"] | None = None, max_edits: int | None = None,
             gc: tuple[int, int] | None = None) -> tuple[UInt8[ndarray, "N L"], Float[ndarray, " N"]]:
        """Find the accepted sequence with the highest sum of logits (Viterbi), exactly.

        Parameters
        ----------
        logits
            Any numbers, −infinity included; not NaN.
        allowed
            Bases that each position may hold; `row` says which of the ``A`` sets is a sequence's.
        starts, max_edits
            At most so many bases may differ from the start in the same row.
        gc
            Fewest and most G and C together.

        Returns
        -------
        tuple of ndarray
            Codes and sums; −infinity and codes 4 where there is no such sequence. Of equally good bases the first in
            the alphabet stands furthest to the left.
        """
        n, _, length = logits.shape
        codes, score = np.empty((n, length), dtype=np.uint8), np.empty(n)
        low, high = gc or (0, -1)
        _viterbi(np.ascontiguousarray(logits, dtype=np.float64), allowed, _some(starts, length), row,
                 self.next, self.start, self.end, -1 if max_edits is None else min(max_edits, length), low, high,
                 codes, score)
        return codes, score

    def edits_to_finish(self, allowed: Bool[ndarray, "A 4 L"], starts: UInt8[ndarray, "A L"] | None = None,
                        gc: tuple[int, int] | None = None) -> Int[ndarray, "A P S G"]:
        """Fewest edits with which a sequence can be finished from each position, state and number of G and C so far.

        Returns
        -------
        ndarray
            int16 ``(A, L + 1, S, high + 2)``, the last axis 1 without `gc`; 0 without `starts`; `NEVER` where there
            is no way.
        """
        n, _, length = allowed.shape
        low, high = gc or (0, -1)
        out = np.full((n, length + 1, len(self.next), high + 2), NEVER, dtype=np.int16)
        _edits_to_finish(allowed, _some(starts, length), self.next, self.end, starts is not None, low, high, out)
        return out


def _some(starts: ndarray | None, length: int) -> ndarray:
    return np.zeros((1, length), dtype=np.uint8) if starts is None else np.ascontiguousarray(starts)


@numba.njit(cache=True, nogil=True)
@no_type_check  # pytest's shape checks cannot wrap compiled functions
def _accepts(codes, step, start, end, out):  # pragma: no cover - compiled
    for n in range(len(codes)):
        state = start
        for base in codes[n]:
            state = step[state, base]
        out[n] = end[state]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _substitutions(codes, step, start, end, out):  # pragma: no cover - compiled
    n_sequences, length = codes.shape
    dead = len(step) - 1
    path = np.empty(length + 1, np.int32)  # state before each position
    for n in range(n_sequences):
        path[0] = start
        for i in range(length):
            path[i + 1] = step[path[i], codes[n, i]]
        whole = end[path[length]]
        for i in range(length):
            if path[i] == dead:
                break  # too late to help
            for base in range(4):
                if base == codes[n, i]:
                    continue
                state, j = step[path[i], base], i + 1
                while j < length and state != path[j] and state != dead:
                    state = step[state, codes[n, j]]
                    j += 1
                out[n, base, i] = whole if state == path[j] else end[state]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _viterbi(logits, allowed, starts, row, step, start, end, max_edits, low, high, codes, score
             ):  # pragma: no cover - compiled
    """Values run from the last position to the first: what the rest is worth from (state, edits, G and C) so far."""
    n_sequences, _, length = logits.shape
    n_states = len(step)
    dead = n_states - 1
    counts_edits, counts_gc = max_edits >= 0, high >= 0
    n_edits, n_gc = (max_edits if counts_edits else 0) + 1, (high if counts_gc else 0) + 1
    choice = np.empty((length, n_states, n_edits, n_gc), np.uint8)
    value = np.empty((2, n_states, n_edits, n_gc))
    seen = np.empty((length + 1, n_states), np.bool_)
    for n in range(n_sequences):
        a = row[n]
        seen[:] = False
        seen[0, start] = start != dead
        for i in range(length):
            for s in range(dead):
                if seen[i, s]:
                    for base in range(4):
                        if allowed[a, base, i] and logits[n, base, i] > -np.inf:
                            seen[i + 1, step[s, base]] = True
            seen[i + 1, dead] = False
        last = value[length % 2]
        last[:] = -np.inf
        for s in range(dead):
            if end[s]:
                last[s, :, low if counts_gc else 0:] = 0
        for i in range(length - 1, -1, -1):
            here, there = value[i % 2], value[(i + 1) % 2]
            for s in range(dead):
                if not seen[i, s]:
                    continue
                here[s] = -np.inf
                for base in range(4):
                    t, gain = step[s, base], logits[n, base, i]
                    if t == dead or not allowed[a, base, i] or gain == -np.inf:
                        continue
                    edit = 1 if counts_edits and base != starts[a, i] else 0
                    more = 1 if counts_gc and (base == 1 or base == 2) else 0
                    fewest = max(0, low - (length - i)) if counts_gc else 0
                    most = min(i, n_gc - 1 - more)
                    for e in range(min(i + 1, n_edits - edit)):
                        for g in range(fewest, most + 1):
                            candidate = there[t, e + edit, g + more] + gain
                            if candidate > here[s, e, g]:
                                here[s, e, g] = candidate
                                choice[i, s, e, g] = base
        score[n] = value[0, start, 0, 0] if start != dead else -np.inf
        if score[n] == -np.inf:
            codes[n] = 4
            continue
        s, e, g = start, 0, 0
        for i in range(length):
            base = choice[i, s, e, g]
            codes[n, i] = base
            s = step[s, base]
            e += 1 if counts_edits and base != starts[a, i] else 0
            g += 1 if counts_gc and (base == 1 or base == 2) else 0


@numba.njit(cache=True, nogil=True)
@no_type_check
def _edits_to_finish(allowed, starts, step, end, counts_edits, low, high, out):  # pragma: no cover - compiled
    n_rows, _, length = allowed.shape
    dead = len(step) - 1
    counts_gc = high >= 0
    n_gc = high + 1 if counts_gc else 1
    for a in range(n_rows):
        for s in range(dead):
            if end[s]:
                out[a, length, s, low if counts_gc else 0:n_gc] = 0
        for i in range(length - 1, -1, -1):
            for base in range(4):
                if not allowed[a, base, i]:
                    continue
                edit = 1 if counts_edits and base != starts[a, i] else 0
                more = 1 if counts_gc and (base == 1 or base == 2) else 0
                for s in range(dead):
                    t = step[s, base]
                    if t == dead:
                        continue
                    for g in range(min(i + 1, n_gc - more)):
                        needed = out[a, i + 1, t, g + more] + edit
                        if needed < out[a, i, s, g]:
                            out[a, i, s, g] = needed
