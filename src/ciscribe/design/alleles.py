"""Breeding by editing: every allele that CRISPR guides can make of a promoter, and what each is predicted to do.

Nothing is searched: guides are found by their PAM, what they can make is listed, and every allele is scored. What is
wanted (a weaker promoter, a level) is weighed against what it takes: guides in one plant, and bp that are lost.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.data.motif_table import IUPAC
from ciscribe.design.designer import Problem, Proposal
from ciscribe.design.rounds import RoundDesigner, Search
from ciscribe.design.score import Objective
from ciscribe.errors import ConfigError, SchemaError, UnknownNameError, nearest
from ciscribe.sequence import N, check_codes, decode, encode, reverse_complement_codes

_COLUMNS = ("allele", "kind", "tool", "guides", "strands", "cuts", "n_guides", "start", "end", "alt", "deleted",
            "substituted", "ways", "sequence")
_LETTERS = IUPAC | {"B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG"}
_KINDS = ("wild type", "indel", "deletion", "base edit")


@dataclass(frozen=True)
class Nuclease:
    """What cuts: where it needs its PAM, and where it then cuts.

    Parameters
    ----------
    name
        As in the table of alleles.
    pam
        IUPAC letters, read on the strand of the protospacer.
    pam_first
        Whether the PAM lies 5' of the protospacer.
    protospacer
        bp that the guide pairs with.
    cuts
        Bases of the protospacer, from its 5' end, before each place where ends can be joined again: one of a blunt
        cut, two of a staggered one (kept overhang, lost overhang).
    """

    name: str
    pam: str
    pam_first: bool
    protospacer: int
    cuts: tuple[int, ...]


@dataclass(frozen=True)
class BaseEditor:
    """What writes one base into another without a cut, in a window of the protospacer.

    Parameters
    ----------
    name
        As in the table of alleles.
    old, new
        Base that is changed, and what it becomes, on the strand of the protospacer.
    first, last
        Positions of the protospacer that it reaches, counted from 1 at its PAM-distal end.
    nuclease
        Whose PAM the guides need.
    """

    name: str
    old: str
    new: str
    nuclease: Nuclease
    first: int = 4
    last: int = 8


CAS9 = Nuclease("Cas9", "NGG", False, 20, (17,))
CAS12A = Nuclease("Cas12a", "TTTV", True, 23, (18, 23))
TOOLS: dict[str, Nuclease | BaseEditor] = {
    "Cas9": CAS9, "Cas12a": CAS12A, "CBE": BaseEditor("CBE", "C", "T", CAS9), "ABE": BaseEditor("ABE", "A", "G", CAS9)}
"""What `enumerate_alleles` takes by name: SpCas9 (NGG, blunt, 3 bp before the PAM), Cas12a (TTTV), C→T, A→G."""


class _Way(NamedTuple):
    """One way to an allele: window[start:end] becomes `alt`, by these guides (rows of their table)."""

    kind: str
    start: int
    end: int
    alt: UInt8[ndarray, " w"]
    guides: tuple[int, ...]
    deleted: int = 0
    substituted: int = 0


def find_guides(window: UInt8[ndarray, " W"], nuclease: Nuclease = CAS9) -> pd.DataFrame:
    """Find all protospacers next to a PAM, on both strands.

    Parameters
    ----------
    window
        Codes without N.
    nuclease
        Which PAM, how long, and where it cuts.

    Returns
    -------
    DataFrame
        By position: ``strand`` (of the protospacer), ``start`` and ``end`` of the protospacer in the window (0-based,
        half open, forward strand), ``guide`` and ``pam`` (5' to 3'), ``cuts`` (tuple of positions: the cut lies
        before that base of the forward strand). Whether a guide is unique in the genome is not looked at.
    """
    _check_window(window)
    pam, long = nuclease.pam, nuclease.protospacer
    first, pam_at = (len(pam), 0) if nuclease.pam_first else (0, long)
    found = []
    for strand, codes in (("+", window), ("-", reverse_complement_codes(window))):
        for at in (_sites(pam, codes) - pam_at).tolist():
            a, b, p = at + first, at + first + long, at + pam_at
            if a < 0 or b > len(codes):
                continue
            cuts = [a + cut for cut in nuclease.cuts]
            if strand == "-":
                cuts = [len(window) - cut for cut in cuts]
            start, end = (a, b) if strand == "+" else (len(window) - b, len(window) - a)
            found.append((strand, start, end, decode(codes[a:b]), decode(codes[p:p + len(pam)]), tuple(sorted(cuts))))
    table = pd.DataFrame(found, columns=pd.Index(["strand", "start", "end", "guide", "pam", "cuts"]))
    return table.astype({"start": np.int64, "end": np.int64}).sort_values(["start", "strand"], ignore_index=True)


@dataclass(frozen=True, eq=False)
class Alleles:
    """Alleles of one promoter, each once, the wild type first and then by what they take.

    Parameters
    ----------
    codes
        What a model reads of each, uint8 ``(n, L)``.
    table
        One row an allele: ``allele`` (name), ``kind`` (wild type, indel, deletion, base edit), ``tool``, ``guides``
        (5' to 3', joined by ;), ``strands``, ``cuts``, ``n_guides``, ``start`` and ``end`` of what is replaced, ``alt``
        (what stands there instead), ``deleted`` and ``substituted`` (bp), ``ways`` (how many choices of guides and
        outcomes give the same sequence; the one with the fewest guides is shown), ``sequence``. Positions are those
        of the window, 0-based and half open.
    """

    codes: UInt8[ndarray, "n L"]
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.codes)

    def score(self, objective: Objective, batch_size: int = 256) -> pd.DataFrame:
        """Score every allele, and mark those that no other beats.

        Parameters
        ----------
        objective
            Higher is better: ``Target(oracle, value)`` for a level, ``Maximize`` or ``-Maximize`` for a direction.
        batch_size
            Alleles a call of the model.

        Returns
        -------
        DataFrame
            The table with the components of the objective, ``score``, ``gain`` (over the wild type) and ``front``:
            the Pareto front of score against guides and deleted bp.
        """
        parts: list[pd.DataFrame] = []
        with objective.evaluating(), torch.no_grad():
            for piece in torch.from_numpy(self.codes).split(batch_size):
                made = objective.components(piece)
                columns = made | {"score": objective.combine(made)}
                parts.append(pd.DataFrame({name: value.cpu().double().numpy() for name, value in columns.items()}))
        found = pd.concat(parts, ignore_index=True)
        score = found["score"].to_numpy()
        return pd.concat([self.table, found], axis=1).assign(
            gain=score - score[0],
            front=pareto_front(score, self.table["n_guides"].to_numpy(), self.table["deleted"].to_numpy()))

    def find(self, codes: UInt8[ndarray, "k L"]) -> pd.DataFrame:
        """Rows of the table that belong to these sequences, in their order: how to make the designs of a run.

        Raises
        ------
        SchemaError
            When a sequence is none of the alleles.
        """
        place = {row.tobytes(): i for i, row in enumerate(self.codes)}
        rows = [place.get(row.tobytes(), -1) for row in codes]
        if -1 in rows:
            raise SchemaError(f"{rows.count(-1):,} of {len(rows):,} sequences are none of these {len(self):,} alleles; "
                              f"first: row {rows.index(-1)}")
        return self.table.iloc[rows].reset_index(drop=True)


def enumerate_alleles(window: UInt8[ndarray, " W"], offset: int, length: int, *,
                      tools: Sequence[str | Nuclease | BaseEditor] = ("Cas9", "CBE", "ABE"),
                      indels: Sequence[int] = (-1, -2, -3, -5, -10, 1), max_span: int | None = None,
                      scope: tuple[int, int] | None = None, anchor: int | None = None) -> Alleles:
    """List every allele that one or two guides can make of a promoter, as a model will read it.

    From every cut small indels; from every two cuts of one nuclease the deletion between them (a staggered cut gives
    the loss of its overhang by one guide); from every guide of a base editor all subsets of the bases that it reaches.
    After a deletion the model's sequence is filled up from the genome around it, so that its length is constant.

    Parameters
    ----------
    window
        The locus, codes without N: the model's sequence and enough of the genome around it.
    offset, length
        Where the model's sequence lies in the window, and its length in bp.
    tools
        Names out of `TOOLS`, or nucleases and base editors of your own.
    indels
        Changes of length at a single cut. −d: each of the d + 1 deletions of d bp that touch the cut. +1: the base on
        the PAM-distal side of the cut (4 bp before the PAM) twice, the commonest insertion of Cas9; of blunt cuts only.
    max_span
        Longest deletion, bp. None: as long as the window can fill up; those it cannot are left out.
    scope
        Part of the window that may change, ``(start, end)``; None is the model's sequence.
    anchor
        Position of the window that stays at its place in the model's sequence, such as the TSS: after a deletion
        upstream of it the genome shifts in from upstream, after one downstream from downstream. None is the last
        base of the model's sequence. Where it is deleted itself, the base after the junction takes its place.

    Raises
    ------
    SchemaError
        For a window with N, or too short for the model's sequence.
    ConfigError
        For a tool or indel that is none, or when the window cannot fill up deletions of `max_span`.

    Notes
    -----
    Two cuts can also invert what lies between, and single cuts make other indels too; these are not listed. Which
    allele arises is for the cell to choose: a breeder screens for it.

    Models know nothing of context beyond their sequence, and a deletion changes the distance of all that remains.
    That a promoter edit *raises* expression is rare (`base_rates`).

    Examples
    --------
    Weak alleles of *ZmFCP1*, a peptide that limits the meristem of the maize ear, enlarge the ear, while the null
    allele spoils it (Liu et al. 2021): a *level* is wanted, so ``Target(oracle, value=0.6 * wild_type)`` and of the
    front the allele with the fewest guides. In rice *IPA1* one deletion of 54 bp in the promoter parted panicle size
    from panicle number (Song et al. 2022): ``-Specific(...)`` of the two tissues, with `max_span` and `scope` around
    the region.

    >>> rng = np.random.default_rng(0)
    >>> locus = rng.integers(0, 4, 300).astype(np.uint8)
    >>> alleles = enumerate_alleles(locus, offset=120, length=170, tools=["Cas9"])
    >>> alleles.codes.shape[1], alleles.table["kind"].iloc[0]
    (170, 'wild type')

    ``table = alleles.score(objective); table[table["front"]]`` is what to choose from.

    References
    ----------
    Liu et al., Nat Plants 2021, doi:10.1038/s41477-021-00858-5 (*ZmCLE7*, *ZmFCP1*); Song et al., Nat Biotechnol 2022,
    doi:10.1038/s41587-022-01281-7 (*IPA1*); Rodríguez-Leal et al., Cell 2017, doi:10.1016/j.cell.2017.08.030 (tomato).
    Cuts: Jinek et al., Science 2012, doi:10.1126/science.1225829 (Cas9); Zetsche et al., Cell 2015,
    doi:10.1016/j.cell.2015.09.038 (Cas12a). The duplicated base: Lemos et al., PNAS 2018, doi:10.1073/pnas.1716855115.
    Base editors: Komor et al., Nature 2016, doi:10.1038/nature17946; Gaudelli et al., Nature 2017,
    doi:10.1038/nature24644.
    """
    _check_window(window)
    if length < 1 or not 0 <= offset <= len(window) - length:
        raise SchemaError(f"the model's {length:,} bp from {offset:,} on lie within the window; got a window of "
                          f"{len(window):,} bp")
    anchor = offset + length - 1 if anchor is None else anchor
    low, high = (offset, offset + length) if scope is None else scope
    if not offset <= anchor < offset + length:
        raise ConfigError(f"anchor is a position of the model's sequence, {offset} to {offset + length - 1}; got "
                          f"{anchor}")
    if not 0 <= low < high <= len(window):
        raise ConfigError(f"scope is a part (start, end) of the window of {len(window):,} bp; got {(low, high)}")
    if max_span is not None and max_span < 1:
        raise ConfigError(f"max_span is the longest deletion, at least 1 bp; got {max_span}")
    for size in indels:
        if size > 1 or size == 0:
            raise ConfigError(f"indels are deletions (−1, −2 …) or the duplicated base (1); got {size}")
    most = len(window) if max_span is None else max_span

    rows: dict[bytes, list] = {}
    sequences: list[ndarray] = []
    missing = np.zeros(2, np.int64)  # bp left and right of the window that would be needed
    n_missing = 0
    wild = window[offset:offset + length]
    own = wild.tobytes()
    rows[own] = ["wild type", "wild type", "", "", "", "", 0, offset, offset, "", 0, 0, 1, decode(wild)]
    sequences.append(wild)
    for cost, tool, guides, way in sorted(_all_ways(window, tools, indels, most, (low, high)), key=lambda w: w[0]):
        edited = np.concatenate([window[:way.start], way.alt, window[way.end:]])
        begin = _moved(anchor, way) - (anchor - offset)
        short = np.array([-begin, begin + length - len(edited)]).clip(min=0)
        if short.any():
            missing, n_missing = np.maximum(missing, short), n_missing + 1
            continue
        codes = edited[begin:begin + length]
        key = codes.tobytes()
        if key == own:
            continue
        if key in rows:
            rows[key][_COLUMNS.index("ways")] += 1
            continue
        used = [guides[guide] for guide in way.guides]
        cuts = ["/".join(map(str, guide["cuts"])) for guide in used] if isinstance(tool, Nuclease) else []
        rows[key] = [_name(window, way), way.kind, tool.name, ";".join(guide["guide"] for guide in used),
                     ";".join(guide["strand"] for guide in used), ";".join(cuts), cost[0], way.start, way.end,
                     decode(way.alt), way.deleted, way.substituted, 1, decode(codes)]
        sequences.append(codes)
    if n_missing and max_span is not None:
        raise ConfigError(f"{n_missing:,} alleles with deletions of up to {max_span:,} bp cannot be filled up from the "
                          f"window: it needs {missing[0]:,} bp more on the left and {missing[1]:,} bp on the right; "
                          "widen it, lower max_span, or give None to leave them out")
    table = pd.DataFrame(list(rows.values()), columns=pd.Index(_COLUMNS))
    table["kind"] = pd.Categorical(table["kind"], categories=list(_KINDS))
    return Alleles(np.stack(sequences), table)


def pareto_front(score: Float[ndarray, " n"], n_guides: Int[ndarray, " n"], deleted: Int[ndarray, " n"]
                 ) -> Bool[ndarray, " n"]:
    """Mark alleles that no other equals or beats in score, guides and deleted bp together; ties all stay.

    Parameters
    ----------
    score
        Higher is better.
    n_guides, deleted
        What it takes; lower is better.
    """
    aims, which = np.unique(np.column_stack([-score, n_guides, deleted]), axis=0, return_inverse=True)
    least = np.full(int(n_guides.max(initial=0)) + 1, np.inf)  # bp of what came before, with as many guides or fewer
    is_best = np.zeros(len(aims), np.bool_)
    for i, (_, guides, lost) in enumerate(aims):  # best score first: only what came before can beat a row
        is_best[i] = lost < least[int(guides)]
        least[int(guides):] = np.minimum(least[int(guides):], lost)
    return is_best[which.ravel()]


def base_rates(scored: pd.DataFrame) -> pd.DataFrame:
    """How often each kind of allele is any better than the wild type; most promoter edits are not.

    Parameters
    ----------
    scored
        From `Alleles.score`.

    Returns
    -------
    DataFrame
        One row a kind: ``n``, ``better`` (share with a gain above 0), ``best`` and ``median`` gain.
    """
    kinds = scored[scored["kind"] != "wild type"].groupby("kind", observed=True)["gain"]
    return kinds.agg(n="size", better=lambda gain: float((gain > 0).mean()), best="max", median="median").reset_index()


class EnumerateAlleles(RoundDesigner):
    """Proposes every allele of a list once, those with the fewest guides and the shortest deletions first.

    Alleles that break a constraint are not proposed: a guide makes what it makes, and nothing else can be ordered.

    Parameters
    ----------
    alleles
        From `enumerate_alleles`; of several promoters one list each, in the order of the starts, which are their wild
        types. `Alleles.find` gives the guides of the designs.
    """

    card: ClassVar[Card] = Card(
        name="alleles", kind="designer",
        summary="Scores every allele that one or two CRISPR guides can make of a promoter.",
        paper="own; after promoter editing in crops: Rodríguez-Leal et al., Cell 2017, doi:10.1016/j.cell.2017.08.030; "
              "Liu et al., Nat Plants 2021, doi:10.1038/s41477-021-00858-5",
        differences=(
            "All alleles of one guide and all deletions between two are listed and scored; nothing is searched.",
            "A Cas12a cut is joined before or after its overhang; trimming on both sides is not modelled.",
            "Uniqueness and efficiency of guides are left to tools that know the genome.",
        ),
        n_policy="refused")

    def __init__(self, alleles: Alleles | Sequence[Alleles]):
        self.alleles = [alleles] if isinstance(alleles, Alleles) else list(alleles)

    def search(self, problem: Problem) -> Search:
        """Loop of ``score = yield Proposal(codes, origin)``."""
        n_starts = 1 if problem.starts is None else len(problem.starts)
        if len(self.alleles) != n_starts:
            raise ConfigError(f"alleles of {n_starts:,} promoters are wanted, one list for each start; got "
                              f"{len(self.alleles):,}")
        for i, mine in enumerate(self.alleles):
            if mine.codes.shape[1] != problem.length:
                raise ConfigError(f"the design has {problem.length:,} bp; alleles {i} were listed for "
                                  f"{mine.codes.shape[1]:,} bp")
            if problem.starts is not None and not np.array_equal(problem.starts[i], mine.codes[0]):
                raise ConfigError(f"the starts are the wild types that the alleles were listed for, and not repaired; "
                                  f"start {i} differs; give alleles.codes[:1]")
        first = 0 if problem.starts is None else 1  # the wild types are paid for
        codes = np.concatenate([mine.codes[first:] for mine in self.alleles])
        origin = np.repeat(np.arange(n_starts), [len(mine) - first for mine in self.alleles])
        costs = pd.concat([mine.table[["deleted", "n_guides"]].iloc[first:] for mine in self.alleles])
        order = np.lexsort((costs["deleted"].to_numpy(), costs["n_guides"].to_numpy()))
        order = order[problem.constraints.ok(codes[order], origin[order])]
        if len(order):
            yield Proposal(codes[order], origin[order])


def _check_window(window: ndarray) -> None:
    check_codes(window)
    if (unknown := window == N).any():
        raise SchemaError(f"a window of known bases is needed; {int(unknown.sum()):,} of {len(window):,} are N, the "
                          f"first at {int(unknown.argmax()):,}")


def _sites(pam: str, codes: ndarray) -> ndarray:
    """Where a PAM begins, on this strand."""
    width = max(len(codes) - len(pam) + 1, 0)
    found = np.ones(width, np.bool_)
    for i, letter in enumerate(pam):
        found &= np.isin(codes[i:i + width], encode(_LETTERS[letter]))
    return np.flatnonzero(found)


def _all_ways(window: ndarray, tools: Iterable[str | Nuclease | BaseEditor], indels: Sequence[int], most: int,
              scope: tuple[int, int]) -> Iterator[tuple[tuple[int, int, int, int], Nuclease | BaseEditor,
                                                        list[dict], _Way]]:
    """What it takes (guides, bp lost, bp substituted, where), by which tool, its guides, and the way."""
    for named in tools:
        if isinstance(named, str) and named not in TOOLS:
            raise UnknownNameError(f"no editing tool is called {named!r}; {nearest(named, TOOLS)}")
        tool = TOOLS[named] if isinstance(named, str) else named
        table = find_guides(window, tool if isinstance(tool, Nuclease) else tool.nuclease)
        guides = table.to_dict("records")
        ways = _cut_ways(window, guides, tool, indels, most) if isinstance(tool, Nuclease) else _base_ways(
            window, guides, tool)
        for way in ways:
            if scope[0] <= way.start and way.end <= scope[1]:
                yield (len(way.guides), way.deleted, way.substituted, way.start), tool, guides, way


def _cut_ways(window: ndarray, guides: list[dict], tool: Nuclease, indels: Sequence[int], most: int
              ) -> Iterator[_Way]:
    """Indels at every cut, deletions between every two."""
    nothing = window[:0]
    cuts = [(cut, guide) for guide, site in enumerate(guides) for cut in site["cuts"]]
    for cut, guide in cuts:
        for size in indels:
            if size < 0:
                for start in range(cut + size, cut + 1):
                    if start >= 0 and start - size <= len(window):
                        yield _Way("indel", start, start - size, nothing, (guide,), -size)
            elif len(tool.cuts) == 1:
                distal = cut - 1 if (guides[guide]["strand"] == "+") != tool.pam_first else cut
                yield _Way("indel", cut, cut, window[distal:distal + 1], (guide,))
    for (a, one), (b, other) in combinations(sorted(cuts), 2):
        if 0 < b - a <= most:
            yield _Way("deletion", a, b, nothing, (one,) if one == other else (one, other), b - a)


def _base_ways(window: ndarray, guides: list[dict], tool: BaseEditor) -> Iterator[_Way]:
    """All subsets of the bases that a base editor reaches."""
    for guide, site in enumerate(guides):
        strand, start, end = site["strand"], site["start"], site["end"]
        old, new = encode(tool.old + tool.new)
        if strand == "-":
            old, new = 3 - old, 3 - new
        # the PAM-distal end is the left one where strand and side of the PAM say so
        left = (strand == "+") != tool.nuclease.pam_first
        reach = range(start + tool.first - 1, start + tool.last) if left else range(end - tool.last,
                                                                                    end - tool.first + 1)
        places = [at for at in reach if window[at] == old]
        for k in range(1, len(places) + 1):
            for chosen in combinations(places, k):
                alt = window[chosen[0]:chosen[-1] + 1].copy()
                alt[np.array(chosen) - chosen[0]] = new
                yield _Way("base edit", chosen[0], chosen[-1] + 1, alt, (guide,), 0, k)


def _moved(position: int, way: _Way) -> int:
    """Where a position of the window comes to lie by the edit."""
    if position < way.start:
        return position
    if position >= way.end:
        return position + len(way.alt) - (way.end - way.start)
    return way.start + min(position - way.start, len(way.alt))


def _name(window: ndarray, way: _Way) -> str:
    if way.substituted:
        old, new = decode(window[way.start:way.end]), decode(way.alt)
        return " ".join(f"{a}{way.start + i}{b}" for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
    return f"del {way.start}-{way.end}" if way.deleted else f"ins {decode(way.alt)} at {way.start}"
