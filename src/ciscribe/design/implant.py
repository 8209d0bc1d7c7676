"""Designers that write motifs: one after the other at the best place, or many at once by the rules of a grammar.

Rules are tables as `ciscribe.interpret.syntax` makes them: what a motif does by position, what two do together by
order, orientation and gap. What is written stays as it is: a constraint that a motif breaks with its surroundings is
met by the fewest changes of the surroundings, and a place where that cannot be done is not taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.design.designer import Problem, Proposal
from ciscribe.design.rounds import RoundDesigner, Search, settle
from ciscribe.errors import ConfigError, SchemaError, nearest
from ciscribe.schema import Motif
from ciscribe.sequence import N, encode, reverse_complement_codes

_FREE_BITS = 0.25  # a column of a motif with less information is left to the background
_STRANDS = "+-"
_FAILURES = 16  # backgrounds in a row that take no motif, before the designer gives up
_POSITION = ("motif", "strand", "position", "mean")
_SPACING = ("motif_a", "motif_b", "order", "orientation", "gap", "mean")
_HEAT = 1.2  # factor of the temperature after a round with little that is new
_KEPT = 8  # best designs of a start that are improved on

Motifs = Sequence[Motif] | Mapping[str, str]


def spelled(motifs: Motifs) -> dict[str, UInt8[ndarray, " W"]]:
    """The bases that stand for each motif, by name; 4 where any base will do.

    Parameters
    ----------
    motifs
        Motifs, of which each column with at least 0.25 bits (against even bases) gives its most frequent base, without
        the outer columns that have less. Or texts of ACGTN by name, taken as they are.

    Raises
    ------
    SchemaError
        For no motifs, names that repeat, letters other than ACGTN, and motifs that prefer no base anywhere.
    """
    found: dict[str, ndarray] = {}
    if isinstance(motifs, Mapping):
        for name, text in motifs.items():
            found[name] = encode(text)
            if odd := sorted(set(text.upper()) - set("ACGTN")):
                raise SchemaError(f"a motif given as text is made of ACGTN; {name!r} is {text!r} with "
                                  f"{', '.join(odd)}; give a Motif for other IUPAC letters")
    else:
        for motif in motifs:
            if motif.name in found:
                raise SchemaError(f"motifs have names of their own; {motif.name!r} came twice")
            bits = 2 + (motif.ppm * np.log2(np.maximum(motif.ppm, 1e-12))).sum(axis=0)
            codes = np.where(bits >= _FREE_BITS, motif.ppm.argmax(axis=0), N).astype(np.uint8)
            known = np.flatnonzero(codes < N)
            found[motif.name] = codes[known[0]:known[-1] + 1] if len(known) else codes
    if not found:
        raise SchemaError("a design by motifs needs one motif or more; got none")
    if empty := [name for name, codes in found.items() if not (codes < N).any()]:
        raise SchemaError(f"{len(empty)} of {len(found)} motifs prefer no base anywhere; first: {empty[0]!r}")
    return found


class Implant(RoundDesigner):
    """Writes motifs into sequences, one after the other, each at its best place on the better strand.

    Backgrounds are the given starts, or random sequences, one after the other while the budget lasts. Every place of
    the first motif is scored and the best is kept; what was written is not written over by the next motif. Naming a
    motif twice in `order` writes it twice.

    Parameters
    ----------
    motifs
        See `spelled`.
    order
        Names, in the order in which they are written; as in `motifs` unless given.
    positions
        First bases where a motif may stand, by name, such as ``{"TATA": 120}``; anywhere unless given.
    strands
        Strands on which motifs are written, ``+``, ``-`` or both.

    References
    ----------
    Taskiran et al., Nature 626:212 (2024), doi:10.1038/s41586-023-06936-2; Jores et al., Nature Plants 7:842 (2021),
    doi:10.1038/s41477-021-00932-y (fixed positions). Differences: `card`.
    """

    card: ClassVar[Card] = Card(
        name="implant", kind="designer",
        summary="Writes motifs into a sequence, each where the model likes it best.",
        paper="Taskiran et al., Nature 2024, doi:10.1038/s41586-023-06936-2",
        differences=("Both strands are tried.",
                     "Where a motif breaks a constraint with its surroundings, these are changed as little as needed.",
                     "Positions can be given, as of a TATA box."))

    def __init__(self, motifs: Motifs, *, order: Sequence[str] | None = None,
                 positions: Mapping[str, int | Iterable[int]] | None = None, strands: str = "+-"):
        self.words = spelled(motifs)
        self.order = list(self.words) if order is None else list(order)
        places = {name: [at] if isinstance(at, int) else list(at) for name, at in (positions or {}).items()}
        for name in (*self.order, *places):
            _known(name, self.words)
        if not set(strands) <= set(_STRANDS) or not strands or not self.order:
            raise ConfigError(f"implant writes one motif or more on strands + and -; got {len(self.order)} motifs and "
                              f"strands {strands!r}")
        self.positions, self.strands = places, strands

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        layouts = [self._layouts(name, problem.length) for name in self.order]
        done, failed = 0, 0
        while problem.starts is None or done < len(problem.starts):
            codes, start = (problem.constraints.random(1, problem.rng), 0) if problem.starts is None else (
                problem.starts[[done]], done)
            fixed, failed, done = np.zeros(codes.shape, bool), failed + 1, done + 1
            for words in layouts:
                origin = np.full(len(words), start)
                tried, written, _ = _write(np.repeat(codes, len(words), axis=0), fixed, words, origin, problem)
                if len(tried):
                    score = yield Proposal(tried, origin[:len(tried)])
                    best = int(score.argmax())
                    codes, fixed, failed = tried[[best]], fixed | written[[best]], 0
            _check_possible(failed if problem.starts is None else 0)
        _check_possible(_FAILURES if failed == done else 0)

    def _layouts(self, name: str, length: int) -> UInt8[ndarray, "n L"]:
        """A motif in all its places and strands, 4 where the background stays."""
        word = self.words[name]
        n_places = length - len(word) + 1
        places = self.positions.get(name, range(max(n_places, 0)))
        if bad := [at for at in places if not 0 <= at < n_places]:
            raise ConfigError(f"motif {name!r} of {len(word)} bp can start at 0 to {n_places - 1} of {length} bp; got "
                              f"{bad[0]}")
        if not len(places):
            raise ConfigError(f"motif {name!r} of {len(word)} bp does not fit in designs of {length} bp; give longer "
                              "ones, or leave it out")
        turned = {strand: _turned(word, strand) for strand in self.strands}
        layouts = np.full((len(places) * len(turned), length), N, np.uint8)
        for row, (at, codes) in zip(layouts, ((at, codes) for at in places for codes in turned.values()), strict=True):
            row[at:at + len(word)] = codes
        return np.unique(layouts, axis=0)


Layout = list[tuple[int, int, int]]
"""Motif, strand (0 is +) and first base of each motif of a design."""


class _Grammar:
    """Rules as arrays: what a motif does in each place, and what two do at each distance.

    Attributes
    ----------
    alone
        ``(motif, strand, first base)``; −infinity where a motif may not stand.
    together
        By both motifs and strands, ``(2 L − 1,)``, by first base of the second minus first base of the first, from
        1 − L on.
    hope
        As `alone`, with the best partner that one motif can have.
    """

    def __init__(self, words: Mapping[str, ndarray], position: pd.DataFrame, spacing: pd.DataFrame, length: int):
        self.words = [(word, reverse_complement_codes(word)) for word in words.values()]
        self.widths = [len(word) for word in words.values()]
        number = {name: i for i, name in enumerate(words)}
        self.alone = np.zeros((len(words), 2, length))
        for name in set(position["motif"]):
            self.alone[number[name]] = -np.inf
            for strand in set(position["strand"]):
                rows = ((position["motif"] == name) & (position["strand"] == strand)).to_numpy()
                at, mean = (position[column].to_numpy(float)[rows] for column in ("position", "mean"))
                if len(at):
                    order = np.argsort(at)
                    self.alone[number[name], _STRANDS.index(strand)] = np.interp(np.arange(length), at[order],
                                                                                 mean[order])
        for i, width in enumerate(self.widths):
            self.alone[i, :, max(length - width + 1, 0):] = -np.inf
        self.together: dict[tuple[int, int, int, int], ndarray] = {}
        for name_a, name_b, order, orientation, gap, mean in spacing[list(_SPACING)].to_numpy(object):
            a, b = number[name_a], number[name_b]
            strand_a, strand_b = (_STRANDS.index(strand) for strand in orientation)
            step = int(self.widths[a] + gap if order == "ab" else -self.widths[b] - gap)
            if abs(step) < length:
                for key, at in (((a, strand_a, b, strand_b), step), ((b, strand_b, a, strand_a), -step)):
                    self.together.setdefault(key, np.zeros(2 * length - 1))[at + length - 1] = mean
        self.hope = self.alone.copy()
        for (a, strand_a, b, strand_b), curve in self.together.items():
            for step in np.flatnonzero(curve) + 1 - length:
                here = slice(max(-step, 0), length - max(step, 0))
                there = slice(max(step, 0), length - max(-step, 0))
                pair = self.alone[a, strand_a, here] + self.alone[b, strand_b, there] + curve[step + length - 1]
                np.maximum(self.hope[a, strand_a, here], pair, out=self.hope[a, strand_a, here])
        effects = np.concatenate([position["mean"], spacing["mean"]]).astype(float)
        self.scale = float(np.sqrt(np.mean(effects**2)))

    def value(self, layout: Layout) -> ndarray:
        """What one more motif would add, ``(motif, strand, first base)``; −infinity where it has no room."""
        value, length = self.alone.copy(), self.alone.shape[2]
        for a, strand_a, at in layout:
            for b in range(len(self.words)):
                for strand_b in range(2):
                    if (curve := self.together.get((a, strand_a, b, strand_b))) is not None:
                        value[b, strand_b] += curve[length - 1 - at:2 * length - 1 - at]
        for a, _, at in layout:
            for b, width in enumerate(self.widths):
                value[b, :, max(at - width + 1, 0):at + self.widths[a]] = -np.inf
        return value

    def extend(self, layout: Layout, n: int, temperature: float, rng: np.random.Generator) -> Layout:
        """Add motifs up to `n`, each with probability ∝ exp(what it adds / temperature), while they add something."""
        layout = list(layout)
        while len(layout) < n:
            value = self.hope if not layout and n > 1 else self.value(layout)
            noisy = value + temperature * self.scale * rng.gumbel(size=value.shape)
            best = np.unravel_index(int(noisy.argmax()), value.shape)
            if value[best] < 0:
                break
            layout.append((int(best[0]), int(best[1]), int(best[2])))
        return layout

    def write(self, layout: Layout) -> UInt8[ndarray, " L"]:
        """The bases of the motifs, 4 elsewhere."""
        words = np.full(self.alone.shape[2], N, np.uint8)
        for motif, strand, at in layout:
            words[at:at + self.widths[motif]] = self.words[motif][strand]
        return words


class _Written(NamedTuple):
    """A background and what was written into it."""

    background: ndarray
    layout: Layout


class Syntax(RoundDesigner):
    """Arranges motifs by the rules of a grammar, writes them into sequences, and improves on what scores best.

    A layout grows motif by motif: where one stands, on which strand and how far from the others, is drawn with
    probability ∝ exp(effect / temperature), the effect being what the rules say that it adds. Each round writes new
    layouts into the starts, or into random sequences, and as many in which one motif of a good design is drawn again.

    Parameters
    ----------
    motifs
        See `spelled`.
    position
        What a motif does by where it stands: ``motif, strand, position, mean``, `position` being its first base from
        the start of the design, as `ciscribe.interpret.syntax.position_curve` counts it. Read between its rows along
        a line, and beyond them as constant. A strand that the rows of a motif leave out is not used; a motif without
        rows may stand anywhere and does nothing alone.
    spacing
        What two motifs do together beyond the sum of what each does: ``motif_a, motif_b, order, orientation, gap,
        mean``, as `ciscribe.interpret.syntax.spacing_curve` has them. 0 at gaps that are not in the table.
    n_motifs
        Most motifs of a design.
    temperature
        In units of the root mean square of the effects; the lower, the stricter the rules. It rises by a fifth
        whenever a round brought little that was new.
    track
        Rows of which track count, where the tables have more than one.

    Raises
    ------
    ConfigError
        When there are no rules, or no motif can be written within the constraints.
    SchemaError
        For tables that lack a column, name motifs that are not there, or hold no finite means.

    References
    ----------
    de Almeida et al., Nature Genetics 54:613 (2022), doi:10.1038/s41588-022-01048-5; Avsec et al., Nature Genetics
    53:354 (2021), doi:10.1038/s41588-021-00782-6 (rules). The search is ours.
    """

    card: ClassVar[Card] = Card(
        name="grammar", kind="designer",
        summary="Arranges motifs as the rules of a grammar say, and keeps what the model agrees with.",
        paper="own; rules as in Avsec et al., Nature Genetics 2021, doi:10.1038/s41588-021-00782-6, and de Almeida et "
              "al., Nature Genetics 2022, doi:10.1038/s41588-022-01048-5",
        differences=("Effects of motifs alone and in pairs add up; what three do together is left to the model.",
                     "Rules are positive where motifs raise the readout: of an objective that falls with it, turn "
                     "their sign."))

    def __init__(self, motifs: Motifs, *, position: pd.DataFrame | None = None, spacing: pd.DataFrame | None = None,
                 n_motifs: int = 4, temperature: float = 0.2, track: int = 0):
        self.words = spelled(motifs)
        self.position = _rules(position, _POSITION, self.words, track, "position")
        self.spacing = _rules(spacing, _SPACING, self.words, track, "spacing")
        if not len(self.position) + len(self.spacing):
            raise ConfigError("syntax needs rules: a table of positions, of spacing, or both; without any, use implant")
        if n_motifs < 1 or temperature < 0:
            raise ConfigError(f"n_motifs is 1 or more and temperature 0 or more; got {n_motifs} and {temperature}")
        self.n_motifs, self.temperature = n_motifs, temperature

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        rng = problem.rng
        grammar = _Grammar(self.words, self.position, self.spacing, problem.length)
        n_starts = 1 if problem.starts is None else len(problem.starts)
        best: list[list[tuple[float, _Written]]] = [[] for _ in range(n_starts)]
        origin, failed, temperature = np.arange(max(problem.n, n_starts)) % n_starts, 0, self.temperature
        seen: set[bytes] = set()
        while failed < _FAILURES:
            fresh = problem.constraints.random(len(origin), rng) if problem.starts is None else problem.starts[origin]
            tried = [_Written(background, grammar.extend([], self.n_motifs, temperature, rng))
                     for background in fresh]
            from_whom = origin
            for start, kept in enumerate(best):
                again = [kept[rng.integers(len(kept))][1] for _ in range((origin == start).sum()) if kept]
                tried += [self._redrawn(written, grammar, temperature, rng) for written in again]
                from_whom = np.append(from_whom, np.full(len(again), start))
            backgrounds = np.stack([written.background for written in tried])
            words = np.stack([grammar.write(written.layout) for written in tried])
            made, _, rows = _write(backgrounds, np.zeros(words.shape, bool), words, from_whom, problem)
            keys = {row.tobytes(): i for i, row in enumerate(made)}
            new = [i for key, i in keys.items() if key not in seen]
            made, rows, seen = made[new], rows[new], seen | keys.keys()
            failed = 0 if len(rows) else failed + 1
            _check_possible(0 if seen else failed)
            if 2 * len(rows) < len(tried):  # what the rules ask for has been tried, most of it
                temperature *= _HEAT
            score = yield Proposal(made, from_whom[rows])
            for row, value in zip(rows, score, strict=True):
                best[from_whom[row]].append((float(value), tried[row]))
            best = [sorted(kept, key=lambda pair: -pair[0])[:_KEPT] for kept in best]

    def _redrawn(self, written: _Written, grammar: _Grammar, temperature: float, rng: np.random.Generator) -> _Written:
        """Take one motif out and draw one again, or add one where there is room."""
        layout = list(written.layout)
        if layout and (len(layout) == self.n_motifs or rng.random() < 0.5):
            layout.pop(int(rng.integers(len(layout))))
        return _Written(written.background, grammar.extend(layout, len(layout) + 1, temperature, rng))


def _rules(table: pd.DataFrame | None, columns: Sequence[str], words: Mapping[str, ndarray], track: int, name: str
           ) -> pd.DataFrame:
    """The columns of a table of rules that are needed, checked; empty for none."""
    if table is None:
        return pd.DataFrame({column: [] for column in columns})
    if missing := [column for column in columns if column not in table.columns]:
        raise SchemaError(f"rules of {name} need the columns {', '.join(columns)}; missing: {', '.join(missing)}; got "
                          f"{', '.join(map(str, table.columns))}")
    if "track" in table.columns:
        is_track = (table["track"] == track).to_numpy()
        if not is_track.any():
            tracks = ", ".join(map(str, sorted(set(table["track"]))))
            raise SchemaError(f"rules of {name} have no rows of track {track}; tracks: {tracks}")
        table = pd.DataFrame(table.loc[is_track])
    options = {"motif": words, "motif_a": words, "motif_b": words, "strand": _STRANDS, "order": ("ab", "ba"),
               "orientation": ("++", "+-", "-+", "--")}
    for column in columns:
        values, named = table[column].to_numpy(), options.get(column)
        if named is not None:
            bad, advice = ~np.isin(values.astype(str), list(named)), f"options: {', '.join(named)}"
        else:
            least = 0 if column == "gap" else -np.inf
            bad, advice = ~((values >= least) & np.isfinite(values.astype(float))), "a finite number, and a gap from 0"
        if bad.any():
            raise SchemaError(f"{int(bad.sum()):,} of {len(values):,} rules of {name} have a {column} that cannot be "
                              f"used; first: {values[bad][0]!r}; {advice}")
    return pd.DataFrame(table[list(columns)])


def _write(codes: ndarray, fixed: ndarray, words: ndarray, origin: ndarray, problem: Problem
           ) -> tuple[ndarray, ndarray, ndarray]:
    """Sequences with words written into them, where words stand in them, and which rows they are; all that is possible.

    What is `fixed` is not written over.
    """
    written = words < N
    rows = np.flatnonzero(~(written & fixed & (words != codes)).any(axis=1))
    made = np.where(written, words, codes)[rows]
    made, is_possible = settle(made, origin[rows], problem.constraints, (written | fixed)[rows])
    rows = rows[is_possible]
    return made[is_possible], written[rows], rows


def _check_possible(failures: int) -> None:
    if failures >= _FAILURES:
        raise ConfigError(f"none of the motifs can be written anywhere within the constraints, in {failures} "
                          "backgrounds that were tried; do the motifs themselves break a rule, or leave too few edits?")


def _turned(word: ndarray, strand: str) -> ndarray:
    return word if strand == "+" else reverse_complement_codes(word)


def _known(name: str, words: Mapping[str, ndarray]) -> None:
    if name not in words:
        raise ConfigError(f"{name!r} is none of the motifs; {nearest(name, words)}")
