"""What a designed sequence may be, so that it can be ordered and cloned: kept during the search, not checked after it.

Rules are compiled once (`Constraints`); designers ask which substitutions are legal (`moves`), for the most probable
legal sequence (`project`), or for legal sequences base by base (`sample`).

Whatever comes back keeps all rules. `ok`, `moves` and `violations` are exact for all of them. `project`, `sample`,
`random` and `repair` are exact (the best, the nearest, an answer whenever there is one) for forbidden words,
homopolymers, kept and editable positions, the most edits, and GC content of the whole design. GC content in windows
and repeats are beyond an automaton: under those two what comes back may be neither the best nor the nearest, and
"none" means that none was found.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import no_type_check

import numba
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from numpy import ndarray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, eye_array
from torch import Tensor

from ciscribe.design.automaton import NEVER, Automaton
from ciscribe.design.rules import (
    ENZYMES,
    GC,
    Avoid,
    EditScope,
    Homopolymer,
    Keep,
    MaxEdits,
    Repeats,
    Rule,
    flank_codes,
    is_gc,
    window_sums,
    with_flanks,
)
from ciscribe.errors import ConfigError, SchemaError

__all__ = ["ENZYMES", "GC", "Avoid", "Constraints", "EditScope", "Homopolymer", "Keep", "MaxEdits", "Repeats", "Rule",
           "Walk", "repair"]

_ATTEMPTS = 8  # of a projection under rules that no automaton holds, each from other logits
_PASSES = 10  # of a sampling under such rules, for the sequences that ran into a dead end
_ROWS = 64  # starts that are looked at together
_BASES = np.arange(4, dtype=np.uint8)[:, None]


class Constraints:
    """All rules that a design has to keep, compiled.

    Methods that take `origin` need it where a rule looks at the starts (`MaxEdits`, `EditScope`, `Keep` without `at`)
    and there are several: the row of the start that each sequence comes from. `starts` in a call stands in for those
    of `bind`; bind them where many calls follow.

    Parameters
    ----------
    rules
        One rule or several: `Avoid`, `Homopolymer`, `Repeats`, `GC`, `Keep`, `MaxEdits`, `EditScope`.
    flanks
        Constant DNA before and after the design (letters): primer sites, vector. Words across the junctions count.
    length
        Of the designs, bp; None takes any length, and looks for contradictions when it first meets one.

    Raises
    ------
    ConfigError
        When rules contradict each other (the pair is named), when a rule cannot be kept, when a flank breaks one.
    """

    def __init__(self, rules: Rule | Iterable[Rule] = (), *, flanks: tuple[str, str] = ("", ""),
                 length: int | None = None):
        self.rules: tuple[Rule, ...] = (rules,) if isinstance(rules, Rule) else tuple(rules)
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise ConfigError(f"expected rules like Avoid('BsaI') or Homopolymer(6); got {rule!r}; "
                                  f"options: {', '.join(sorted(c.__name__ for c in Rule.__subclasses__()))}")
        if length is not None and length < 1:
            raise ConfigError(f"a design has at least 1 bp; got length {length}")
        self.flanks, self.length = (flanks[0].upper(), flanks[1].upper()), length
        self.starts: ndarray | None = None
        self._around = flank_codes(flanks)
        self._lengths: dict[int, Constraints] = {}
        self._check_flanks()
        if length is not None:
            self._compile(length)
            self._check()

    def __repr__(self) -> str:
        parts = [", ".join(map(str, self.rules)) or "no rules"]
        parts += [f"{self.length} bp"] if self.length else []
        parts += [f"{len(self.starts)} starts"] if self.starts is not None else []
        return f"Constraints({'; '.join(parts)})"

    @property
    def needs_starts(self) -> bool:
        """Whether a rule looks at the starts, so that `bind` must come before everything else."""
        return any(rule.needs_starts for rule in self.rules)

    def sized(self, length: int) -> "Constraints":
        """Give the same constraints for designs of one length.

        Raises
        ------
        SchemaError
            When they were made for another.
        """
        if self.length == length:
            return self
        if self.length is not None:
            raise SchemaError(f"these constraints are for designs of {self.length:,} bp; got {length:,} bp")
        if length not in self._lengths:
            self._lengths[length] = Constraints(self.rules, flanks=self.flanks, length=length)
        return self._lengths[length]

    def bind(self, starts: UInt8[ndarray, "S L"]) -> "Constraints":
        """Give the same constraints, with the starts that edits are counted from and whose bases are kept.

        A start may break the rules; `ok` tells, and `repair` mends it.

        Raises
        ------
        ConfigError
            When the bases that a start must keep break a rule whatever else changes.
        """
        bound = self._bound(starts)
        for rule in self.rules:
            if isinstance(rule, Keep):
                rule.check_starts(starts)
        bound._check()
        return bound

    def allowed(self, origin: Int[ndarray, " N"] | None = None) -> Bool[ndarray, "N 4 L"]:
        """Bases that each position may hold by what is kept and editable alone; one row without `origin`."""
        me, row = self._ready(1 if origin is None else len(origin), origin)
        return me._allowed[row]

    def ok(self, codes: UInt8[ndarray, "N L"], origin: Int[ndarray, " N"] | None = None,
           starts: UInt8[ndarray, "S L"] | None = None) -> Bool[ndarray, " N"]:
        """Whether each sequence keeps all rules."""
        me, row = self._ready(len(codes), origin, starts, codes)
        fine = me._automaton.accepts(codes) & me._holds_allowed(codes, row).all(axis=1)
        if me._max_edits is not None and me.starts is not None:
            fine &= (codes != me.starts[row]).sum(axis=1) <= me._max_edits
        for rule in me._gc_rules:
            fine &= rule.ok(codes)
        for rule in me._repeats:
            fine &= rule.ok(codes, me._around)
        return fine

    def moves(self, codes: UInt8[ndarray, "N L"], origin: Int[ndarray, " N"] | None = None,
              starts: UInt8[ndarray, "S L"] | None = None) -> Bool[ndarray, "N 4 L"]:
        """Which single substitutions give a sequence that keeps all rules; exact, for whichever sequence.

        Returns
        -------
        ndarray
            bool ``(N, 4, L)``; the present base is False. A sequence that breaks rules has the moves that mend it.
        """
        me, row = self._ready(len(codes), origin, starts, codes)
        legal = me._automaton.substitutions(codes)
        wrong = ~me._holds_allowed(codes, row)
        legal &= me._allowed[row] & (wrong.sum(axis=1, keepdims=True) == wrong)[:, None]
        if me._max_edits is not None and me.starts is not None:
            start = me.starts[row]
            changed = codes != start
            others = changed.sum(axis=1, keepdims=True) - changed
            legal &= others[:, None] + (start[:, None] != _BASES) <= me._max_edits
        for rule in me._gc_rules:
            legal &= rule.moves(codes)
        for rule in me._repeats:
            legal &= rule.moves(codes, me._around)
        return legal

    def project(self, logits: Shaped[ndarray, "N 4 L"] | Shaped[Tensor, "N 4 L"],
                origin: Int[ndarray, " N"] | None = None, starts: UInt8[ndarray, "S L"] | None = None
                ) -> tuple[UInt8[ndarray, "N L"], Float[ndarray, " N"]]:
        """Find the sequence with the highest sum of logits among those that keep all rules.

        A Viterbi path through the automaton. Where GC content in windows or repeats are among the rules and the path
        breaks them, positions are tied to G/C or A/T by an integer program and repeated words broken up one by one,
        and what comes out climbs by legal substitutions: allowed always, the best not always.

        Parameters
        ----------
        logits
            Log-probabilities, or any other worth of each base at each position; −infinity forbids.

        Returns
        -------
        tuple of ndarray
            Codes, and their sum of logits (float64). −infinity says that there is no such sequence (or, under those
            two rules, that none was found); its codes are 4.

        Raises
        ------
        SchemaError
            For NaN and +infinity.
        """
        array = logits.detach().cpu().numpy() if isinstance(logits, Tensor) else logits
        value = np.ascontiguousarray(array, dtype=np.float64)
        wrong = (np.isnan(value) | (value == np.inf)).any(axis=(1, 2))
        if wrong.any():
            raise SchemaError(f"logits are finite or −infinity; {int(wrong.sum()):,} of {len(value):,} sequences hold "
                              f"NaN or +infinity; first: {int(wrong.argmax())}")
        me, row = self._ready(len(value), origin, starts, length=value.shape[2])
        codes, score = me._best(value, me._allowed, me.starts if me.needs_starts else None, row)
        found = np.flatnonzero(score > -np.inf)
        for i in found[~me._keeps_loose(codes[found])]:
            codes[i], score[i] = me._search(value[i], int(row[i]))
        return codes, score

    def walk(self, n: int, origin: Int[ndarray, " n"] | None = None, starts: UInt8[ndarray, "S L"] | None = None
             ) -> "Walk":
        """Begin `n` sequences that are written from left to right: for who draws bases in a way of their own."""
        return Walk(*self._ready(n, origin, starts))

    def continuations(self, codes: UInt8[ndarray, "N L"], origin: Int[ndarray, " N"] | None = None,
                      starts: UInt8[ndarray, "S L"] | None = None) -> Bool[ndarray, "N 4 L"]:
        """Which bases `sample` could have drawn at each position after those before it: masks for a likelihood."""
        walk = Walk(*self._ready(len(codes), origin, starts, codes))
        legal = np.empty((len(codes), 4, codes.shape[1]), dtype=np.bool_)
        for i in range(codes.shape[1]):
            legal[:, :, i] = walk.legal()
            walk.take(codes[:, i])
        return legal

    def sample(self, step: Callable[[UInt8[ndarray, "n i"]], Shaped[ndarray, "n 4"]], n: int,
               rng: np.random.Generator, origin: Int[ndarray, " n"] | None = None,
               starts: UInt8[ndarray, "S L"] | None = None) -> UInt8[ndarray, "n L"]:
        """Draw sequences base by base from a model of the next base; all of them keep all rules.

        Bases from which no allowed sequence can be finished any more are not drawn, so that nothing is thrown away.
        GC content in windows is looked ahead for by itself; where it and other rules together, or repeats, lead into
        a dead end, those sequences are drawn again, and repaired after many times.

        Parameters
        ----------
        step
            The bases so far, uint8 ``(n, i)``, give logits ``(n, 4)`` of the next. Called with all `n` sequences in
            the order of `origin`, for every position in turn, and from the start again where some are drawn again.
            Where every legal base has −infinity, they are equally likely.

        Raises
        ------
        ConfigError
            When no sequence keeps all rules, or some could not be finished in many passes.
        SchemaError
            When `step` gives another shape, or NaN.
        """
        me, row = self._ready(n, origin, starts)
        codes, left = me._draw(step, row, rng)
        if len(left):
            codes[left], edits = me.repair(codes[left], row[left])
            if (edits < 0).any():
                raise me._unfinished(left[edits < 0], row, f"none was found in {_PASSES} passes for")
        return codes

    def random(self, n: int, rng: np.random.Generator, gc: float | None = None,
               origin: Int[ndarray, " n"] | None = None, starts: UInt8[ndarray, "S L"] | None = None
               ) -> UInt8[ndarray, "n L"]:
        """Draw random sequences that keep all rules; bases are independent but for what the rules ask.

        Parameters
        ----------
        gc
            Probability of G or C; None is 0.5, or the middle of the bounds of `GC` where these lie elsewhere.
        """
        if gc is None:
            low = max((rule.low for rule in self.rules if isinstance(rule, GC)), default=0.0)
            high = min((rule.high for rule in self.rules if isinstance(rule, GC)), default=1.0)
            gc = 0.5 if low < 0.5 < high else (low + high) / 2
        if not 0 <= gc <= 1:
            raise ConfigError(f"gc is a share from 0 to 1; got {gc}")
        with np.errstate(divide="ignore"):
            logits = np.log(np.array([1 - gc, gc, gc, 1 - gc]) / 2)
        return self.sample(lambda prefix: np.broadcast_to(logits, (len(prefix), 4)), n, rng, origin, starts)

    def repair(self, codes: UInt8[ndarray, "N L"], origin: Int[ndarray, " N"] | None = None,
               starts: UInt8[ndarray, "S L"] | None = None) -> tuple[UInt8[ndarray, "N L"], Int[ndarray, " N"]]:
        """Mend sequences with as few edits as possible.

        Returns
        -------
        tuple of ndarray
            Codes, and the edits of each (int64): 0 where nothing was to be done, −1 where it is impossible and the
            sequence stays as it was.
        """
        me, row = self._ready(len(codes), origin, starts, codes)
        mended, score = me.project(-(codes[:, None] != _BASES).astype(np.float64), row)
        failed = score == -np.inf
        edits = -np.where(failed, 1, score).astype(np.int64)
        return np.where(failed[:, None], codes, mended), edits

    def violations(self, codes: UInt8[ndarray, "N L"], origin: Int[ndarray, " N"] | None = None,
                   starts: UInt8[ndarray, "S L"] | None = None) -> pd.DataFrame:
        """Say which rules are broken, and where.

        Returns
        -------
        DataFrame
            A row for each fault: ``sequence`` (row of `codes`), ``rule``, ``start`` and ``end`` (0-based, half open, in
            the design: negative or beyond its end where a flank takes part), ``found``. Empty when all is well.
        """
        me, row = self._ready(len(codes), origin, starts, codes)
        faults = [(int(i), str(rule), *fault) for i in np.flatnonzero(~me.ok(codes, row)) for rule in me.rules
                  for fault in rule.faults(codes[i], me._around, None if me.starts is None else me.starts[row[i]])]
        table = pd.DataFrame(faults, columns=pd.Index(["sequence", "rule", "start", "end", "found"]))
        return table.astype({"sequence": np.int64, "start": np.int64, "end": np.int64})

    def _compile(self, length: int) -> None:
        """Everything that depends on rules, flanks and length, and not on starts."""
        for rule in self.rules:
            rule.check_length(length)
        words = [word for rule in self.rules if isinstance(rule, Avoid) for word in rule.spelled()]
        whole = length + sum(map(len, self.flanks))
        runs = [rule for rule in self.rules if isinstance(rule, Homopolymer) and rule.most < whole]
        words += [word for rule in runs for word in rule.spelled()]
        self._automaton = Automaton.of(words, self._around)
        self._max_edits = min((rule.k for rule in self.rules if isinstance(rule, MaxEdits)), default=None)
        self._gc_rules = [rule for rule in self.rules if isinstance(rule, GC)]
        self._repeats = [rule for rule in self.rules if isinstance(rule, Repeats)]
        bounds = [rule.bounds(length) for rule in self._gc_rules]
        whole = [bound for bound in bounds if bound[0] == length]
        self._gc = (max(low for _, low, _ in whole), min(high for *_, high in whole)) if whole else None
        self._windows = [bound for bound in bounds if bound[0] < length]
        self._is_loose = bool(self._windows or self._repeats)
        self._anyhow = np.ones((1, 4, length), dtype=np.bool_)  # allowed whatever the starts are
        for rule in self.rules:
            if isinstance(rule, Keep) and not rule.needs_starts:
                self._anyhow &= rule.allowed(np.zeros((1, length), dtype=np.uint8))
        self._allowed = self._anyhow
        self._closed: dict[bytes, ndarray] = {}  # of `_closure`

    def _bound(self, starts: ndarray) -> "Constraints":
        """These constraints with starts, whether they can be kept or not."""
        if starts.ndim != 2 or not len(starts):
            raise SchemaError(f"starts are codes (S, L), at least one; got shape {starts.shape}")
        me = copy.copy(self.sized(starts.shape[1]))
        _check_bases(starts)
        me.starts = starts
        if me.needs_starts:
            me._allowed = np.repeat(me._anyhow, len(starts), axis=0)
            for rule in me.rules:
                if isinstance(rule, Keep | EditScope):
                    me._allowed &= rule.allowed(starts)
        return me

    def _only(self, rules: Sequence[Rule], starts: ndarray | None) -> "Constraints":
        """These constraints with some of their rules and starts."""
        me = copy.copy(self)
        me.rules = tuple(rules)
        me._compile(self._allowed.shape[2])
        return me if starts is None else me._bound(starts)

    def _check_flanks(self) -> None:
        nothing = np.zeros((2, 0), dtype=np.uint8)
        for rule in self.rules:
            if not isinstance(rule, Avoid | Homopolymer | Repeats):
                continue
            for name, flank in zip(("5'", "3'"), self._around, strict=True):
                for start, end, found in rule.faults(flank, (nothing[0], nothing[1]), None):
                    raise ConfigError(f"the {name} flank breaks {rule} by itself: {found} at {start}–{end}; choose "
                                      "another flank, or drop the rule")
            if isinstance(rule, Repeats):
                before, behind = (rule.words(flank[None]) for flank in self._around)
                both = np.intersect1d(before, behind)
                if len(both):
                    raise ConfigError(f"the 5' flank and the 3' flank break {rule}: {len(both):,} words stand in both; "
                                      "choose another flank, or drop the rule")

    def _check(self) -> None:
        """Raise ConfigError and name the rules where no sequence can keep them all."""
        bad = self._impossible()
        if not bad.any():
            return
        first = int(bad.argmax())
        starts, where = None, ""
        if self.starts is not None and self.needs_starts:
            starts = self.starts[first:first + 1]
            where = f" for {int(bad.sum()):,} of {len(bad):,} starts; first: start {first}"
        some = next((some for size in (1, 2) for some in combinations(self.rules, size)
                     if self._only(some, starts)._impossible().any()), self.rules)
        named = " and ".join(map(str, some))
        raise ConfigError(f"no sequence of {self.length:,} bp between these flanks keeps {named}{where}; "
                          f"{'it' if len(some) == 1 else 'they'} cannot be kept{' together' * (len(some) > 1)}: loosen "
                          "or drop one")

    def _impossible(self) -> ndarray:
        """For which rows of `_allowed` there is no sequence, as far as can be told without searching for one."""
        n, _, length = self._allowed.shape
        out = np.zeros(n, dtype=np.bool_)
        for i in range(0, n, _ROWS):
            needed = self._automaton.edits_to_finish(self._allowed[i:i + _ROWS], None, self._gc if n == 1 else None)
            out[i:i + _ROWS] = needed[:, 0, self._automaton.start, 0] == NEVER
        if self._gc is not None:
            strong, weak = (self._allowed[:, bases].any(axis=1).sum(axis=1) for bases in ([1, 2], [0, 3]))
            out |= (np.maximum(self._gc[0], length - weak) > np.minimum(self._gc[1], strong))
        if self._windows:
            out |= [not is_bad and bool((np.diag(self._closure(a)) < 0).any()) for a, is_bad in enumerate(out)]
        before, behind = self._around
        is_single = (self._allowed.sum(axis=1) == 1).astype(np.uint8)
        fixed = with_flanks(is_single, (np.ones_like(before), np.ones_like(behind)))
        bases = with_flanks(self._allowed.argmax(axis=1).astype(np.uint8), self._around)
        for rule in self._repeats:
            words = rule.words(bases)
            if not words.size:
                continue
            out |= words.shape[1] > rule.n_words
            is_fixed = window_sums(fixed == 1, rule.length) == rule.length
            words = np.sort(np.where(is_fixed, words, -1 - np.arange(words.shape[1])), axis=1)
            out |= (words[:, 1:] == words[:, :-1]).any(axis=1)
        return out

    def _ready(self, n: int, origin: ndarray | None, starts: ndarray | None = None, codes: ndarray | None = None,
               length: int | None = None) -> tuple["Constraints", ndarray]:
        """The constraints for this length and these starts, and the row of `_allowed` of each sequence."""
        if codes is not None:
            _check_bases(codes)
            length = codes.shape[1]
        me = self if starts is None else self.bind(starts)
        length = length or me.length
        if length is None:
            raise ConfigError("it is not known how long designs are; give Constraints(..., length=...)")
        me = me.sized(length)
        if not me.needs_starts:
            return me, np.zeros(n, dtype=np.int64)
        if me.starts is None:
            named = ", ".join(str(rule) for rule in me.rules if rule.needs_starts)
            raise ConfigError(f"rules look at the starts ({named}): give them with constraints.bind(starts)")
        if origin is None:
            if len(me.starts) > 1:
                raise ConfigError(f"there are {len(me.starts):,} starts: say with origin which one each sequence "
                                  "comes from")
            return me, np.zeros(n, dtype=np.int64)
        row = np.asarray(origin, dtype=np.int64)
        if row.shape != (n,) or (n and not 0 <= row.min() <= row.max() < len(me.starts)):
            got = f"shape {row.shape}" + (f", {row.min()} to {row.max()}" if row.size else "")
            raise SchemaError(f"origin names one of {len(me.starts):,} starts for each of {n:,} sequences; got {got}")
        return me, row

    # ---------------------------------------------------------------------------------- what the methods are made of

    def _holds_allowed(self, codes: ndarray, row: ndarray) -> ndarray:
        return self._allowed[row[:, None], codes, np.arange(codes.shape[1])]

    def _keeps_loose(self, codes: ndarray) -> ndarray:
        """Whether each sequence keeps the rules that no automaton holds."""
        fine = np.ones(len(codes), dtype=np.bool_)
        for rule in self._gc_rules if self._windows else ():
            fine &= rule.ok(codes)
        for rule in self._repeats:
            fine &= rule.ok(codes, self._around)
        return fine

    def _best(self, value: ndarray, allowed: ndarray, starts: ndarray | None, row: ndarray) -> tuple[ndarray, ndarray]:
        """Viterbi, in steps that each look only at what the cheaper one before could not settle.

        Edits are first spent where they bring most, whatever words arise; G and C are counted only for sequences that
        would have too few or too many.
        """
        if self._max_edits is not None and starts is not None:
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
        start, edits = starts[row], min(self._max_edits or 0, value.shape[2])
        second, first = np.moveaxis(np.partition(worth, 2, axis=1)[:, 2:], 1, 0)
        with np.errstate(invalid="ignore"):
            gain = first - np.take_along_axis(worth, start[:, None], axis=1)[:, 0]  # NaN: nothing is allowed here
        falling = np.column_stack([np.full(len(gain), np.inf), -np.sort(-gain, axis=1), np.zeros(len(gain))])
        least, beyond = falling[:, edits], falling[:, edits + 1]
        codes = np.where((gain > 0) & (gain >= least[:, None]), worth.argmax(axis=1), start).astype(np.uint8)
        score = np.take_along_axis(worth, codes[:, None], axis=1)[:, 0].sum(axis=1)
        settled = (first > second).all(axis=1) & ((beyond <= 0) | (least > beyond))  # else others are as good
        settled &= np.isfinite(score)
        settled[settled] = self._automaton.accepts(codes[settled])
        if self._gc is not None:
            n_gc = is_gc(codes).sum(axis=1)
            settled &= (n_gc >= self._gc[0]) & (n_gc <= self._gc[1])
        return codes, score, settled

    def _paths(self, value: ndarray, allowed: ndarray, starts: ndarray | None, row: ndarray
               ) -> tuple[ndarray, ndarray]:
        codes, score = self._automaton.best(value, allowed, row, starts, self._max_edits)
        if self._gc is not None:
            n_gc = is_gc(codes).sum(axis=1)
            redo = np.flatnonzero((score > -np.inf) & ((n_gc < self._gc[0]) | (n_gc > self._gc[1])))
            if len(redo):
                codes[redo], score[redo] = self._automaton.best(value[redo], allowed, row[redo], starts,
                                                                self._max_edits, self._gc)
        return codes, score

    def _draw(self, step: Callable[[ndarray], ndarray], row: ndarray, rng: np.random.Generator
              ) -> tuple[ndarray, ndarray]:
        """Sequences that were drawn, and which of them break a rule after all passes."""
        codes = np.zeros((len(row), self._allowed.shape[2]), dtype=np.uint8)
        left = np.arange(len(row))
        for _ in range(_PASSES if self._is_loose else 1):
            walk, again = Walk(self, row), np.isin(np.arange(len(row)), left)
            for i in range(codes.shape[1]):
                legal = walk.legal()
                stuck = np.flatnonzero(~legal.any(axis=1))
                if len(stuck):
                    raise self._unfinished(stuck, row, "there is none for")
                walk.take(np.where(again, _draw(step(walk.prefix), legal, rng), codes[:, i]))
            codes = walk.prefix.copy()
            left = np.flatnonzero(~self.ok(codes, row)) if self._is_loose else left[:0]
            if not len(left):
                break
        return codes, left

    def _search(self, value: ndarray, a: int) -> tuple[ndarray, float]:
        """Project one sequence under the rules that no automaton holds; codes 4 and −infinity when none is found."""
        alone = copy.copy(self)  # with one start, and the bases that may be
        alone._allowed = self._allowed[a:a + 1] & (value > -np.inf)
        alone.starts = None if self.starts is None else self.starts[a:a + 1]
        value = np.where(value > -np.inf, value, 0)
        scale, rng = float(value.std()) or 1.0, np.random.default_rng(0)
        for attempt in range(_ATTEMPTS):
            codes = alone._tighten(value + 0.3 * attempt * scale * rng.gumbel(size=value.shape), attempt)
            if codes is not None:
                break
        else:
            drawn, left = alone._draw(lambda prefix: 4 / scale * value[None, :, prefix.shape[1]],
                                      np.zeros(1, dtype=np.int64), rng)
            if len(left):
                return np.full(value.shape[1], 4, dtype=np.uint8), -np.inf
            codes = drawn[0]
        at = np.arange(len(codes))
        while True:  # climb by legal substitutions
            gain = np.where(alone.moves(codes[None])[0], value - value[codes, at], -np.inf)
            base, i = np.unravel_index(gain.argmax(), gain.shape)
            if gain[base, i] <= 1e-9:
                return codes, float(value[codes, at].sum())
            codes[i] = base

    def _tighten(self, value: ndarray, spare: int) -> ndarray | None:
        """Narrow down the bases that are allowed until the best sequence keeps all rules, or there is none."""
        allowed = self._allowed.copy()
        while True:
            codes, score = self._best(value[None], allowed, self.starts, np.zeros(1, dtype=np.int64))
            if score[0] == -np.inf:
                return None
            if not all(rule.ok(codes)[0] for rule in self._gc_rules):
                weak = self._weak(value, allowed[0], spare)
                if weak is None:
                    return None
                allowed &= np.where(is_gc(_BASES), ~weak, weak)
                continue
            pair = next((pair for rule in self._repeats for pair in rule.pairs(codes[0], self._around)), None)
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
        for width, low, high in (rule.bounds(length) for rule in self._gc_rules):
            rows.append(LinearConstraint(before[width:] - before[:-width], low, high))
        counts_edits = False
        if self.starts is not None and self._max_edits is not None:
            counts_edits = True
            was = is_gc(self.starts[0])
            rows.append(LinearConstraint((1.0 - 2 * was) @ each, ub=max(self._max_edits - spare, 0) - was.sum()))
        found = milp(each.T @ cost, constraints=rows, bounds=Bounds(0, length),
                     integrality=np.full(length + 1, int(counts_edits)))
        return None if found.x is None else np.diff(found.x) < 0.5

    def _closure(self, a: int) -> ndarray:
        """Most G and C between any two positions ``(L + 1, L + 1)`` by all rules of GC content; row of `_allowed`.

        The shortest paths of a system of difference constraints: what is consistent so far can then be finished,
        without looking further (Dechter, Meiri & Pearl 1991, doi:10.1016/0004-3702(91)90006-6).
        """
        strong, weak = (self._allowed[a][bases].any(axis=0) for bases in ([1, 2], [0, 3]))
        key = strong.tobytes() + weak.tobytes()
        if key not in self._closed:
            length = len(strong)
            most = np.full((length + 1, length + 1), length, dtype=np.int32)
            np.fill_diagonal(most, 0)
            i = np.arange(length)
            most[i, i + 1] = strong
            most[i + 1, i] = -1 + weak
            for width, low, high in (rule.bounds(length) for rule in self._gc_rules):
                i = np.arange(length - width + 1)
                most[i, i + width] = np.minimum(most[i, i + width], high)
                most[i + width, i] = np.minimum(most[i + width, i], -low)
            _shortest_paths(most)
            self._closed[key] = most
        return self._closed[key]

    def _unfinished(self, which: ndarray, row: ndarray, why: str) -> ConfigError:
        start = f" (start {row[which[0]]})" if self.needs_starts else ""
        return ConfigError(f"no sequence keeps all of {', '.join(map(str, self.rules))}: {why} {len(which):,} of "
                           f"{len(row):,}; first: {which[0]}{start}; loosen a rule")


class Walk:
    """Sequences that are written from left to right, side by side; from `Constraints.walk`."""

    def __init__(self, constraints: Constraints, row: Int[ndarray, " n"]):
        self._rules, n = constraints, len(row)
        used, self._row = np.unique(row, return_inverse=True)
        self._allowed = constraints._allowed[used]
        counts_edits = constraints._max_edits is not None and constraints.starts is not None
        self._starts = constraints.starts[used] if counts_edits and constraints.starts is not None else None
        self._edits_left = np.full(n, constraints._max_edits or 0)
        self._needed = constraints._automaton.edits_to_finish(self._allowed, self._starts, self._gc_bounds())
        self._state = np.full(n, constraints._automaton.start)
        before, behind = constraints._around
        self._full = np.zeros((n, len(before) + self._allowed.shape[2]), dtype=np.uint8)
        self._full[:, :len(before)] = before
        self._offset, self._i = len(before), 0
        self._n_gc = np.zeros((n, self._allowed.shape[2] + 1), dtype=np.int64)  # before each position
        self._most = np.stack([constraints._closure(a) for a in used.tolist()]) if constraints._windows and n else None
        self._seen = []  # words so far, of each rule that forbids repeats
        for rule in constraints._repeats:
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
        state = self._rules._automaton.next[self._state]
        strong = is_gc(_BASES[:, 0])
        n_gc = np.minimum(self._n_gc[:, self._i, None] + strong, self._needed.shape[3] - 1)
        needed = self._needed[self._row[:, None], self._i + 1, state, n_gc].astype(np.int64)
        if self._starts is not None:
            needed += self._starts[self._row, self._i, None] != _BASES[:, 0]
        legal = (needed <= self._edits_left[:, None]) & self._allowed[self._row, :, self._i]
        strict = legal.copy()
        if self._most is not None:
            strict &= np.where(strong, self._is_consistent(1)[:, None], self._is_consistent(0)[:, None])
        for rule, seen in zip(self._rules._repeats, self._seen, strict=True):
            words = self._last_words(rule)
            if words is not None:
                strict &= (words[:, :, None] != seen[:, None]).all(axis=2)
        return np.where(strict.any(axis=1, keepdims=True), strict, legal)

    def take(self, bases: Shaped[ndarray, " n"]) -> None:
        """Write the next base of each sequence."""
        every = np.arange(len(bases))
        bases = bases.astype(np.uint8)
        for k, rule in enumerate(self._rules._repeats):
            words = self._last_words(rule)
            if words is not None:
                self._seen[k] = np.concatenate([self._seen[k], words[every, bases][:, None]], axis=1)
        if self._starts is not None:
            self._edits_left = self._edits_left - (bases != self._starts[self._row, self._i])
        self._state = self._rules._automaton.next[self._state, bases]
        self._n_gc[:, self._i + 1] = self._n_gc[:, self._i] + is_gc(bases)
        self._full[:, self._offset + self._i] = bases
        self._i += 1

    def _gc_bounds(self) -> tuple[int, int] | None:
        """Bounds of G and C in all, or None where they cannot be left: the table is a hundredfold smaller then."""
        gc = self._rules._gc
        if gc is None:
            return None
        strong, weak = (self._allowed[:, bases].any(axis=1).sum(axis=1) for bases in ([1, 2], [0, 3]))
        fewest, most = self._allowed.shape[2] - weak, strong
        if self._starts is not None:
            was, k = is_gc(self._starts).sum(axis=1), self._rules._max_edits or 0
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


def repair(codes: UInt8[ndarray, "N L"], constraints: Constraints
           ) -> tuple[UInt8[ndarray, "N L"], Int[ndarray, " N"]]:
    """Mend sequences with as few edits as possible, as `Constraints.repair`.

    Where rules look at starts and none are bound, every sequence is its own: `MaxEdits`, what is kept, and where
    edits may be count from itself.
    """
    if not constraints.needs_starts or constraints.starts is not None:
        return constraints.repair(codes)
    return constraints._bound(codes).repair(codes, np.arange(len(codes)))


def _check_bases(codes: ndarray) -> None:
    bad = np.asarray((codes > 3).any(axis=1))
    if bad.any():
        raise SchemaError(f"designs hold A, C, G and T only (codes 0..3); {int(bad.sum()):,} of {len(bad):,} sequences "
                          f"hold an N; first: {int(bad.argmax())}; leave them out or fill in bases")


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
