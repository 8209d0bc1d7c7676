"""What a designed sequence may be, so that it can be ordered and cloned: kept during the search, not checked after it.

Rules are compiled once (`Constraints`); designers ask which substitutions are legal (`moves`), for the most probable
legal sequence (`project`), or for legal sequences base by base (`sample`).

Whatever comes back keeps all rules. `ok`, `moves` and `violations` are exact for all of them. `project`, `sample`,
`random` and `repair` are exact (the best, the nearest, an answer whenever there is one) for forbidden words,
homopolymers, kept and editable positions, the most edits, and GC content of the whole design. GC content in windows
and repeats are beyond an automaton: under those two what comes back may be neither the best nor the nearest, and
"none" means that none was found. How it is done is in `ciscribe.design.feasible`.
"""

import copy
from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from numpy import ndarray
from torch import Tensor

from ciscribe.design.feasible import PASSES, FeasibleSet, Walk
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
)
from ciscribe.errors import ConfigError, SchemaError

__all__ = ["ENZYMES", "GC", "Avoid", "Constraints", "EditScope", "Homopolymer", "Keep", "MaxEdits", "Repeats", "Rule",
           "Walk", "repair"]

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
            self._feasible = FeasibleSet(self.rules, self._around, length)
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
        return me._feasible.allowed[row]

    def ok(self, codes: UInt8[ndarray, "N L"], origin: Int[ndarray, " N"] | None = None,
           starts: UInt8[ndarray, "S L"] | None = None) -> Bool[ndarray, " N"]:
        """Whether each sequence keeps all rules."""
        me, row = self._ready(len(codes), origin, starts, codes)
        return me._feasible.ok(codes, row)

    def moves(self, codes: UInt8[ndarray, "N L"], origin: Int[ndarray, " N"] | None = None,
              starts: UInt8[ndarray, "S L"] | None = None) -> Bool[ndarray, "N 4 L"]:
        """Which single substitutions give a sequence that keeps all rules; exact, for whichever sequence.

        Returns
        -------
        ndarray
            bool ``(N, 4, L)``; the present base is False. A sequence that breaks rules has the moves that mend it.
        """
        me, row = self._ready(len(codes), origin, starts, codes)
        return me._feasible.moves(codes, row)

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
        return me._feasible.best(value, row)

    def walk(self, n: int, origin: Int[ndarray, " n"] | None = None, starts: UInt8[ndarray, "S L"] | None = None
             ) -> "Walk":
        """Begin `n` sequences that are written from left to right: for who draws bases in a way of their own."""
        me, row = self._ready(n, origin, starts)
        return Walk(me._feasible, row)

    def continuations(self, codes: UInt8[ndarray, "N L"], origin: Int[ndarray, " N"] | None = None,
                      starts: UInt8[ndarray, "S L"] | None = None) -> Bool[ndarray, "N 4 L"]:
        """Which bases `sample` could have drawn at each position after those before it: masks for a likelihood."""
        me, row = self._ready(len(codes), origin, starts, codes)
        walk = Walk(me._feasible, row)
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
        codes, left = me._feasible.draw(step, row, rng)
        if len(left):
            codes[left], edits = me.repair(codes[left], row[left])
            if (edits < 0).any():
                raise me._feasible.unfinished(left[edits < 0], row, f"none was found in {PASSES} passes for")
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

    def _bound(self, starts: ndarray) -> "Constraints":
        """These constraints with starts, whether they can be kept or not."""
        if starts.ndim != 2 or not len(starts):
            raise SchemaError(f"starts are codes (S, L), at least one; got shape {starts.shape}")
        me = copy.copy(self.sized(starts.shape[1]))
        _check_bases(starts)
        me.starts, me._feasible = starts, me._feasible.bound(starts)
        return me

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
        bad = self._feasible.impossible()
        if not bad.any():
            return
        first = int(bad.argmax())
        starts, where = None, ""
        if self.starts is not None and self.needs_starts:
            starts = self.starts[first:first + 1]
            where = f" for {int(bad.sum()):,} of {len(bad):,} starts; first: start {first}"
        some = next((some for size in (1, 2) for some in combinations(self.rules, size)
                     if self._feasible.only(some, starts).impossible().any()), self.rules)
        named = " and ".join(map(str, some))
        raise ConfigError(f"no sequence of {self.length:,} bp between these flanks keeps {named}{where}; "
                          f"{'it' if len(some) == 1 else 'they'} cannot be kept{' together' * (len(some) > 1)}: loosen "
                          "or drop one")

    def _ready(self, n: int, origin: ndarray | None, starts: ndarray | None = None, codes: ndarray | None = None,
               length: int | None = None) -> tuple["Constraints", ndarray]:
        """The constraints for this length and these starts, and the start that each sequence is held against."""
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
