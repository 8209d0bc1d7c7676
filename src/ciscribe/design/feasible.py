"""The sequences of one length that keep all rules: which belong to it, the best of them, and drawing from them.

Forbidden words and homopolymers are an automaton, kept positions a table of bases, edits and total GC are counted
along its paths (Viterbi). GC content in windows and repeats are no regular language: the best path is narrowed down
until it keeps them (positions tied to G/C or A/T by an integer program, repeated words broken up one by one), and
sequences that are drawn look ahead as far as can be.
"""

import copy
from collections.abc import Callable, Sequence
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from numpy import ndarray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, eye_array

from ciscribe.design.automaton import NEVER, Automaton
from ciscribe.design.rules import (
    GC,
    Avoid,
    EditScope,
    Homopolymer,
    Keep,
    MaxEdits,
    Repeats,
    Rule,
    is_gc,
    window_sums,
    with_flanks,
)
from ciscribe.errors import ConfigError, SchemaError

PASSES = 10
"""Passes of a sampling under rules that no automaton holds, for the sequences that ran into a dead end."""
_ATTEMPTS = 8  # of a projection under such rules, each from other logits
_ROWS = 64  # starts that are looked at together
_BASES = np.arange(4, dtype=np.uint8)[:, None]


class FeasibleSet:
    """Rules, compiled for designs of one length.

    Methods take of each sequence the `row` of the start that it is held against; without starts that is 0.

    Parameters
    ----------
    rules
        What is kept.
    around
        Codes of the constant DNA before and after the design.
    length
        Of the designs, bp.
    """

    def __init__(self, rules: Sequence[Rule], around: tuple[UInt8[ndarray, " before"], UInt8[ndarray, " behind"]],
                 length: int):
        self.rules, self.around, self.length = tuple(rules), around, length
        self.starts: ndarray | None = None
        for rule in self.rules:
            rule.check_length(length)
        words = [word for rule in self.rules if isinstance(rule, Avoid) for word in rule.spelled()]
        total = length + sum(map(len, around))
        runs = [rule for rule in self.rules if isinstance(rule, Homopolymer) and rule.most < total]
        words += [word for rule in runs for word in rule.spelled()]
        self.automaton = Automaton.of(words, self.around)
        self.max_edits = min((rule.k for rule in self.rules if isinstance(rule, MaxEdits)), default=None)
        self.gc_rules = [rule for rule in self.rules if isinstance(rule, GC)]
        self.repeats = [rule for rule in self.rules if isinstance(rule, Repeats)]
        bounds = [rule.bounds(length) for rule in self.gc_rules]
        whole = [bound for bound in bounds if bound[0] == length]
        self.gc = (max(low for _, low, _ in whole), min(high for *_, high in whole)) if whole else None
        self.windows = [bound for bound in bounds if bound[0] < length]
        self.is_loose = bool(self.windows or self.repeats)
        self.anyhow = np.ones((1, 4, length), dtype=np.bool_)  # allowed whatever the starts are
        for rule in self.rules:
            if isinstance(rule, Keep) and not rule.needs_starts:
                self.anyhow &= rule.allowed(np.zeros((1, length), dtype=np.uint8))
        self.allowed = self.anyhow
        self._closed: dict[bytes, ndarray] = {}  # of `closure`

    @property
    def needs_starts(self) -> bool:
        """Whether a rule looks at the starts."""
        return any(rule.needs_starts for rule in self.rules)

    def bound(self, starts: UInt8[ndarray, "S L"]) -> "FeasibleSet":
        """The same rules, with the starts that they look at."""
        me = copy.copy(self)
        me.starts = starts
        if me.needs_starts:
            me.allowed = np.repeat(me.anyhow, len(starts), axis=0)
            for rule in me.rules:
                if isinstance(rule, Keep | EditScope):
                    me.allowed &= rule.allowed(starts)
        return me

    def only(self, rules: Sequence[Rule], starts: UInt8[ndarray, "S L"] | None) -> "FeasibleSet":
        """Some of the rules alone."""
        some = FeasibleSet(rules, self.around, self.length)
        return some if starts is None else some.bound(starts)

    def impossible(self) -> ndarray:
        """For which rows of `allowed` there is no sequence, as far as can be told without searching for one."""
        n, _, length = self.allowed.shape
        out = np.zeros(n, dtype=np.bool_)
        for i in range(0, n, _ROWS):
            needed = self.automaton.edits_to_finish(self.allowed[i:i + _ROWS], None, self.gc if n == 1 else None)
            out[i:i + _ROWS] = needed[:, 0, self.automaton.start, 0] == NEVER
        if self.gc is not None:
            strong, weak = (self.allowed[:, bases].any(axis=1).sum(axis=1) for bases in ([1, 2], [0, 3]))
            out |= (np.maximum(self.gc[0], length - weak) > np.minimum(self.gc[1], strong))
        if self.windows:
            out |= [not is_bad and bool((np.diag(self.closure(a)) < 0).any()) for a, is_bad in enumerate(out)]
        before, behind = self.around
        is_single = (self.allowed.sum(axis=1) == 1).astype(np.uint8)
        fixed = with_flanks(is_single, (np.ones_like(before), np.ones_like(behind)))
        bases = with_flanks(self.allowed.argmax(axis=1).astype(np.uint8), self.around)
        for rule in self.repeats:
            words = rule.words(bases)
            if not words.size:
                continue
            out |= words.shape[1] > rule.n_words
            is_fixed = window_sums(fixed == 1, rule.length) == rule.length
            words = np.sort(np.where(is_fixed, words, -1 - np.arange(words.shape[1])), axis=1)
            out |= (words[:, 1:] == words[:, :-1]).any(axis=1)
        return out

    def ok(self, codes: UInt8[ndarray, "N L"], row: Int[ndarray, " N"]) -> Bool[ndarray, " N"]:
        """Whether each sequence keeps all rules."""
        fine = self.automaton.accepts(codes) & self._holds_allowed(codes, row).all(axis=1)
        if self.max_edits is not None and self.starts is not None:
            fine &= (codes != self.starts[row]).sum(axis=1) <= self.max_edits
        for rule in self.gc_rules:
            fine &= rule.ok(codes)
        for rule in self.repeats:
            fine &= rule.ok(codes, self.around)
        return fine

    def moves(self, codes: UInt8[ndarray, "N L"], row: Int[ndarray, " N"]) -> Bool[ndarray, "N 4 L"]:
        """Which single substitutions give a sequence that keeps all rules."""
        legal = self.automaton.substitutions(codes)
        wrong = ~self._holds_allowed(codes, row)
        legal &= self.allowed[row] & (wrong.sum(axis=1, keepdims=True) == wrong)[:, None]
        if self.max_edits is not None and self.starts is not None:
            start = self.starts[row]
            changed = codes != start
            others = changed.sum(axis=1, keepdims=True) - changed
            legal &= others[:, None] + (start[:, None] != _BASES) <= self.max_edits
        for rule in self.gc_rules:
            legal &= rule.moves(codes)
        for rule in self.repeats:
            legal &= rule.moves(codes, self.around)
        return legal

    def best(self, value: Float[ndarray, "N 4 L"], row: Int[ndarray, " N"]
             ) -> tuple[UInt8[ndarray, "N L"], Float[ndarray, " N"]]:
        """The sequence with the highest sum of values; its codes are 4 and the sum −infinity where none was found."""
        codes, score = self._viterbi(value, self.allowed, self.starts if self.needs_starts else None, row)
        found = np.flatnonzero(score > -np.inf)
        for i in found[~self._keeps_loose(codes[found])]:
            codes[i], score[i] = self._search(value[i], int(row[i]))
        return codes, score

    def draw(self, step: Callable[[ndarray], ndarray], row: ndarray, rng: np.random.Generator
             ) -> tuple[ndarray, ndarray]:
        """Sequences that were drawn, and which of them break a rule after all passes."""
        codes = np.zeros((len(row), self.allowed.shape[2]), dtype=np.uint8)
        left = np.arange(len(row))
        for _ in range(PASSES if self.is_loose else 1):
            walk, again = Walk(self, row), np.isin(np.arange(len(row)), left)
            for i in range(codes.shape[1]):
                legal = walk.legal()
                stuck = np.flatnonzero(~legal.any(axis=1))
                if len(stuck):
                    raise self.unfinished(stuck, row, "there is none for")
                walk.take(np.where(again, _draw(step(walk.prefix), legal, rng), codes[:, i]))
            codes = walk.prefix.copy()
            left = np.flatnonzero(~self.ok(codes, row)) if self.is_loose else left[:0]
            if not len(left):
                break
        return codes, left

    def closure(self, a: int) -> ndarray:
        """Most G and C between any two positions ``(L + 1, L + 1)`` by all rules of GC content; row of `allowed`.

        The shortest paths of a system of difference constraints: what is consistent so far can then be finished,
        without looking further (Dechter, Meiri & Pearl 1991, doi:10.1016/0004-3702(91)90006-6).
        """
        strong, weak = (self.allowed[a][bases].any(axis=0) for bases in ([1, 2], [0, 3]))
        key = strong.tobytes() + weak.tobytes()
        if key not in self._closed:
            length = len(strong)
            most = np.full((length + 1, length + 1), length, dtype=np.int32)
            np.fill_diagonal(most, 0)
            i = np.arange(length)
            most[i, i + 1] = strong
            most[i + 1, i] = -1 + weak
            for width, low, high in (rule.bounds(length) for rule in self.gc_rules):
                i = np.arange(length - width + 1)
                most[i, i + width] = np.minimum(most[i, i + width], high)
                most[i + width, i] = np.minimum(most[i + width, i], -low)
            _shortest_paths(most)
            self._closed[key] = most
        return self._closed[key]

    def unfinished(self, which: ndarray, row: ndarray, why: str) -> ConfigError:
        """What to say of sequences that could not be finished."""
        start = f" (start {row[which[0]]})" if self.needs_starts else ""
        return ConfigError(f"no sequence keeps all of {', '.join(map(str, self.rules))}: {why} {len(which):,} of "
                           f"{len(row):,}; first: {which[0]}{start}; loosen a rule")

    # -------------------------------------------------------------------------------- what the methods are made of

    def _holds_allowed(self, codes: ndarray, row: ndarray) -> ndarray:
        return self.allowed[row[:, None], codes, np.arange(codes.shape[1])]

    def _keeps_loose(self, codes: ndarray) -> ndarray:
        """Whether each sequence keeps the rules that no automaton holds."""
        fine = np.ones(len(codes), dtype=np.bool_)
        for rule in self.gc_rules if self.windows else ():
            fine &= rule.ok(codes)
        for rule in self.repeats:
            fine &= rule.ok(codes, self.around)
        return fine

    def _viterbi(self, value: ndarray, allowed: ndarray, starts: ndarray | None, row: ndarray
                 ) -> tuple[ndarray, ndarray]:
        """Viterbi, in steps that each look only at what the cheaper one before could not settle.

        Edits are first spent where they bring most, whatever words arise; G and C are counted only for sequences that
        would have too few or too many.
        """
        if self.max_edits is not None and starts is not None:
            codes, score, settled = self._dearest_edits(value, allowed, starts, row)
            if not settled.all():
                left = np.flatnonzero(~settled)
                codes[left], score[left] = self._paths(value[left], allowed, starts, row[left])
            return codes, score
        return self._paths(value, allowed, None, row)

    def _dearest_edits(self, value: ndarray, allowed: ndarray, starts: ndarray, row: ndarray
                       ) -> tuple[ndarray, ndarray, ndarray]:
        """Best sequences with so many edits, without regard to words; and which are, beyond doubt, the best of all."""
        worth = np.where(allowed[row], value, -np.inf)
        start, edits = starts[row], min(self.max_edits or 0, value.shape[2])
        second, first = np.moveaxis(np.partition(worth, 2, axis=1)[:, 2:], 1, 0)
        with np.errstate(invalid="ignore"):
            gain = first - np.take_along_axis(worth, start[:, None], axis=1)[:, 0]  # NaN: nothing is allowed here
        falling = np.column_stack([np.full(len(gain), np.inf), -np.sort(-gain, axis=1), np.zeros(len(gain))])
        least, beyond = falling[:, edits], falling[:, edits + 1]
        codes = np.where((gain > 0) & (gain >= least[:, None]), worth.argmax(axis=1), start).astype(np.uint8)
        score = np.take_along_axis(worth, codes[:, None], axis=1)[:, 0].sum(axis=1)
        settled = (first > second).all(axis=1) & ((beyond <= 0) | (least > beyond))  # else others are as good
        settled &= np.isfinite(score)
        settled[settled] = self.automaton.accepts(codes[settled])
        if self.gc is not None:
            n_gc = is_gc(codes).sum(axis=1)
            settled &= (n_gc >= self.gc[0]) & (n_gc <= self.gc[1])
        return codes, score, settled

    def _paths(self, value: ndarray, allowed: ndarray, starts: ndarray | None, row: ndarray
               ) -> tuple[ndarray, ndarray]:
        codes, score = self.automaton.best(value, allowed, row, starts, self.max_edits)
        if self.gc is not None:
            n_gc = is_gc(codes).sum(axis=1)
            redo = np.flatnonzero((score > -np.inf) & ((n_gc < self.gc[0]) | (n_gc > self.gc[1])))
            if len(redo):
                codes[redo], score[redo] = self.automaton.best(value[redo], allowed, row[redo], starts,
                                                               self.max_edits, self.gc)
        return codes, score

    def _search(self, value: ndarray, a: int) -> tuple[ndarray, float]:
        """Project one sequence under the rules that no automaton holds; codes 4 and −infinity when none is found."""
        alone = copy.copy(self)  # with one start, and the bases that may be
        alone.allowed = self.allowed[a:a + 1] & (value > -np.inf)
        alone.starts = None if self.starts is None else self.starts[a:a + 1]
        value = np.where(value > -np.inf, value, 0)
        scale, rng, first = float(value.std()) or 1.0, np.random.default_rng(0), np.zeros(1, dtype=np.int64)
        for attempt in range(_ATTEMPTS):
            codes = alone._tighten(value + 0.3 * attempt * scale * rng.gumbel(size=value.shape), attempt)
            if codes is not None:
                break
        else:
            drawn, left = alone.draw(lambda prefix: 4 / scale * value[None, :, prefix.shape[1]], first, rng)
            if len(left):
                return np.full(value.shape[1], 4, dtype=np.uint8), -np.inf
            codes = drawn[0]
        at = np.arange(len(codes))
        while True:  # climb by legal substitutions
            gain = np.where(alone.moves(codes[None], first)[0], value - value[codes, at], -np.inf)
            base, i = np.unravel_index(gain.argmax(), gain.shape)
            if gain[base, i] <= 1e-9:
                return codes, float(value[codes, at].sum())
            codes[i] = base

    def _tighten(self, value: ndarray, spare: int) -> ndarray | None:
        """Narrow down the bases that are allowed until the best sequence keeps all rules, or there is none."""
        allowed = self.allowed.copy()
        while True:
            codes, score = self._viterbi(value[None], allowed, self.starts, np.zeros(1, dtype=np.int64))
            if score[0] == -np.inf:
                return None
            if not all(rule.ok(codes)[0] for rule in self.gc_rules):
                weak = self._weak(value, allowed[0], spare)
                if weak is None:
                    return None
                allowed &= np.where(is_gc(_BASES), ~weak, weak)
                continue
            pair = next((pair for rule in self.repeats for pair in rule.pairs(codes[0], self.around)), None)
            if pair is None:
                return codes[0]
            at = np.unique(np.concatenate([np.arange(max(start, 0), min(end, codes.shape[1])) for start, end in pair]))
            others = np.where(allowed[0][:, at] & (codes[0, at] != _BASES), value[:, at], -np.inf).max(axis=0)
            loss = value[codes[0, at], at] - others
            if not len(at) or loss.min() == np.inf:
                return None
            i = at[loss.argmin()]
            allowed[0, codes[0, i], i] = False  # where another base costs least

    def _weak(self, value: ndarray, allowed: ndarray, spare: int) -> ndarray | None:
        """Positions of A or T that suit the logits best, among those that keep all rules of GC content.

        Of the edits that are allowed, `spare` are left for other rules.
        """
        length = len(allowed[0])
        weak, strong = (np.where(allowed[bases], value[bases], -np.inf).max(axis=0) for bases in ([0, 3], [1, 2]))
        cost = np.zeros(length)  # of G or C
        free = (weak > -np.inf) & (strong > -np.inf)
        cost[free] = (weak - strong)[free]
        # The unknowns are the numbers of G and C before each position: every row is then a difference of two of them,
        # and the linear program has whole numbers as its solution, unless edits are counted.
        before = csr_array(eye_array(length + 1))
        each = before[1:] - before[:-1]
        rows = [LinearConstraint(each, (weak == -np.inf).astype(float), (strong > -np.inf).astype(float))]
        for width, low, high in (rule.bounds(length) for rule in self.gc_rules):
            rows.append(LinearConstraint(before[width:] - before[:-width], low, high))
        counts_edits = False
        if self.starts is not None and self.max_edits is not None:
            counts_edits = True
            was = is_gc(self.starts[0])
            rows.append(LinearConstraint((1.0 - 2 * was) @ each, ub=max(self.max_edits - spare, 0) - was.sum()))
        found = milp(each.T @ cost, constraints=rows, bounds=Bounds(0, length),
                     integrality=np.full(length + 1, int(counts_edits)))
        return None if found.x is None else np.diff(found.x) < 0.5


class Walk:
    """Sequences that are written from left to right, side by side; from `Constraints.walk`."""

    def __init__(self, feasible: FeasibleSet, row: Int[ndarray, " n"]):
        self._feasible, n = feasible, len(row)
        used, self._row = np.unique(row, return_inverse=True)
        self._allowed = feasible.allowed[used]
        counts_edits = feasible.max_edits is not None and feasible.starts is not None
        self._starts = feasible.starts[used] if counts_edits and feasible.starts is not None else None
        self._edits_left = np.full(n, feasible.max_edits or 0)
        self._needed = feasible.automaton.edits_to_finish(self._allowed, self._starts, self._gc_bounds())
        self._state = np.full(n, feasible.automaton.start)
        before, behind = feasible.around
        self._full = np.zeros((n, len(before) + self._allowed.shape[2]), dtype=np.uint8)
        self._full[:, :len(before)] = before
        self._offset, self._i = len(before), 0
        self._n_gc = np.zeros((n, self._allowed.shape[2] + 1), dtype=np.int64)  # before each position
        self._most = np.stack([feasible.closure(a) for a in used.tolist()]) if feasible.windows and n else None
        self._seen = []  # words so far, of each rule that forbids repeats
        for rule in feasible.repeats:
            known = np.concatenate([rule.words(before[None])[0], rule.words(behind[None])[0]])
            self._seen.append(np.broadcast_to(known, (n, len(known))))

    @property
    def prefix(self) -> UInt8[ndarray, "n i"]:
        """The bases so far."""
        return self._full[:, self._offset:self._offset + self._i]

    def legal(self) -> Bool[ndarray, "n 4"]:
        """Bases that may come next.

        With any of them the sequence can be finished. Only where GC content in windows or repeats have led into a
        dead end these two are let go, and `Constraints.ok` tells in the end.
        """
        state = self._feasible.automaton.next[self._state]
        strong = is_gc(_BASES[:, 0])
        n_gc = np.minimum(self._n_gc[:, self._i, None] + strong, self._needed.shape[3] - 1)
        needed = self._needed[self._row[:, None], self._i + 1, state, n_gc].astype(np.int64)
        if self._starts is not None:
            needed += self._starts[self._row, self._i, None] != _BASES[:, 0]
        legal = (needed <= self._edits_left[:, None]) & self._allowed[self._row, :, self._i]
        strict = legal.copy()
        if self._most is not None:
            strict &= np.where(strong, self._is_consistent(1)[:, None], self._is_consistent(0)[:, None])
        for rule, seen in zip(self._feasible.repeats, self._seen, strict=True):
            words = self._last_words(rule)
            if words is not None:
                strict &= (words[:, :, None] != seen[:, None]).all(axis=2)
        return np.where(strict.any(axis=1, keepdims=True), strict, legal)

    def take(self, bases: Shaped[ndarray, " n"]) -> None:
        """Write the next base of each sequence."""
        every = np.arange(len(bases))
        bases = bases.astype(np.uint8)
        for k, rule in enumerate(self._feasible.repeats):
            words = self._last_words(rule)
            if words is not None:
                self._seen[k] = np.concatenate([self._seen[k], words[every, bases][:, None]], axis=1)
        if self._starts is not None:
            self._edits_left = self._edits_left - (bases != self._starts[self._row, self._i])
        self._state = self._feasible.automaton.next[self._state, bases]
        self._n_gc[:, self._i + 1] = self._n_gc[:, self._i] + is_gc(bases)
        self._full[:, self._offset + self._i] = bases
        self._i += 1

    def _gc_bounds(self) -> tuple[int, int] | None:
        """Bounds of G and C in all, or None where they cannot be left: the table is a hundredfold smaller then."""
        gc = self._feasible.gc
        if gc is None:
            return None
        strong, weak = (self._allowed[:, bases].any(axis=1).sum(axis=1) for bases in ([1, 2], [0, 3]))
        fewest, most = self._allowed.shape[2] - weak, strong
        if self._starts is not None:
            was, k = is_gc(self._starts).sum(axis=1), self._feasible.max_edits or 0
            fewest, most = np.maximum(fewest, was - k), np.minimum(most, was + k)
        return gc if np.any(fewest < gc[0]) or np.any(most > gc[1]) else None

    def _last_words(self, rule: Repeats) -> ndarray | None:
        """Words ``(n, 4)`` that end with each possible next base."""
        end = self._offset + self._i
        if end < rule.length - 1:
            return None
        ends = np.repeat(self._full[:, None, end - rule.length + 1:end], 4, axis=1)
        bases = np.broadcast_to(_BASES, (len(ends), 4, 1))
        return rule.words(np.concatenate([ends, bases], axis=2).reshape(-1, rule.length)).reshape(-1, 4)

    def _is_consistent(self, strong: int) -> ndarray:
        """Whether G or C (1), or A or T (0), leave a way to keep all rules of GC content."""
        if self._most is None:
            return np.ones(len(self._row), dtype=np.bool_)
        i = self._i
        between = self._n_gc[:, i, None] + strong - self._n_gc[:, :i + 1]
        most, fewest = self._most[self._row, :i + 1, i + 1], -self._most[self._row, i + 1, :i + 1]
        return np.all((fewest <= between) & (between <= most), axis=1)


def _draw(logits: ndarray, legal: ndarray, rng: np.random.Generator) -> ndarray:
    """Draw bases in proportion to exp(logits) among the legal ones (largest logit plus Gumbel noise)."""
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape != legal.shape or np.isnan(logits).any():
        raise SchemaError(f"step gives logits of the next base, {legal.shape} without NaN; got {logits.shape}"
                          + (", NaN among them" if np.isnan(logits).any() else ""))
    masked = np.where(legal, logits, -np.inf)
    masked = np.where(legal & (masked == -np.inf).all(axis=1, keepdims=True), 0, masked)
    return (masked + rng.gumbel(size=masked.shape)).argmax(axis=1)


@numba.njit(cache=True, nogil=True)
@no_type_check  # pytest's shape checks cannot wrap compiled functions
def _shortest_paths(distance):  # pragma: no cover - compiled
    n = len(distance)
    for k in range(n):
        for i in range(n):
            via = distance[i, k]
            for j in range(n):
                if via + distance[k, j] < distance[i, j]:
                    distance[i, j] = via + distance[k, j]
