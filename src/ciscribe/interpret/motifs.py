"""Motifs against each other: what a new one is called, which word it resembles, what it spells.

Motifs are compared by TOMTOM as memelite has it (release 0.5), which was near uniform, a little conservative, on
queries of random columns. Where motifs match sequences: `ciscribe.pwm`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from memelite import tomtom
from numpy import ndarray
from scipy.stats import false_discovery_control

from ciscribe.card import Card
from ciscribe.errors import ConfigError
from ciscribe.interpret.patterns import Alignment, Pattern
from ciscribe.schema import Motif, check_motifs
from ciscribe.sequence import BASES

CARD = Card(
    name="tomtom",
    kind="interpretation",
    summary="Finds the known motifs that a new one resembles.",
    paper="Gupta et al., Genome Biology 2007, doi:10.1186/gb-2007-8-2-r24 (TOMTOM)",
    code="jmschrei/memesuite-lite, the installed release of memelite: memelite.tomtom",
    differences=(
        "Uninformative flanks of the query are cut off first.",
        "q-values by Benjamini & Hochberg over the database, for each query apart.",
        "A similarity from -1 to 1 stands beside the p-value, which depends on the database.",
    ),
)
MIN_INFORMATION = 0.25  # bits; of 2
IUPAC = {"A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
         "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"}
_LETTER = {frozenset(bases): letter for letter, bases in IUPAC.items()}
MATCH_COLUMNS = ("pattern", "match", "p_value", "q_value", "offset", "overlap", "strand", "similarity")


def match_motifs(patterns: Sequence[Pattern] | Sequence[Motif], database: Sequence[Motif], *, n_best: int = 3,
                 min_information: float = MIN_INFORMATION) -> pd.DataFrame:
    """Name new motifs: the known ones that each resembles most, and how sure that is.

    Parameters
    ----------
    patterns
        Patterns or motifs; their flanks are trimmed (`trim_motif`) before they are compared.
    database
        Known motifs, such as `ciscribe.io.motifs.read_meme` gives. The null distribution is made of their columns:
        p-values of fewer than 25 motifs depend on which they are, and memelite warns.
    n_best
        Matches of each pattern that are kept.
    min_information
        Bits; see `trim_motif`.

    Returns
    -------
    DataFrame
        ``pattern, match`` (names), ``p_value`` (of the best of all offsets and both strands), ``q_value`` (false
        discovery rate by Benjamini & Hochberg over the database, for each pattern apart), ``offset`` (column of the
        untrimmed pattern at which the match begins, as it lies on ``strand``), ``overlap`` (columns shared with the
        trimmed pattern), ``strand``, ``similarity`` (as in `Alignment`, at that offset, 1 for the same motif). Sorted
        by pattern as given, then by p-value.

    References
    ----------
    Gupta et al. 2007, doi:10.1186/gb-2007-8-2-r24. Differences: see `CARD`.
    """
    check_motifs(database)
    if not database or n_best < 1:
        raise ConfigError(f"matching needs a database of motifs and n_best of at least 1; got {len(database)} motifs "
                          f"and {n_best}")
    queries = [_motif_of(p) for p in patterns]
    check_motifs(queries)
    if not queries:
        return pd.DataFrame({c: pd.Series(dtype=object if c in ("pattern", "match", "strand") else float)
                             for c in MATCH_COLUMNS})
    spans = [informative_span(q, min_information) for q in queries]
    trimmed = [q.ppm[:, start:end] for q, (start, end) in zip(queries, spans, strict=True)]
    n_threads = torch.get_num_threads()
    try:
        p, _, offset, overlap, turned = tomtom(trimmed, [m.ppm for m in database])
    finally:
        torch.set_num_threads(n_threads)  # memelite's threads may raise it
    p = np.clip(p, 0, 1)
    rows = []
    for i, (query, (first, _)) in enumerate(zip(queries, spans, strict=True)):
        q = false_discovery_control(p[i])
        for j in np.argsort(p[i], kind="stable")[:n_best]:
            shift, strand = -int(offset[i, j]), "-" if turned[i, j] else "+"  # memelite counts from the database motif
            known = database[j].ppm if strand == "+" else database[j].ppm[::-1, ::-1]
            rows.append((query.name, database[j].name, p[i, j], q[j], first + shift, int(overlap[i, j]), strand,
                         float(_cosines(query.ppm, known)[first + shift + known.shape[1] - 1])))
    return pd.DataFrame(dict(zip(MATCH_COLUMNS, zip(*rows, strict=True), strict=True)))


def align_motifs(pattern: Pattern | Motif, motif: Pattern | Motif) -> Alignment:
    """How alike two motifs are, at the offset and on the strand that fit best.

    The similarity is the cosine of the base frequencies minus 0.25: 1 for the same preferences, 0 for none in common.
    Columns that only one of them has count against the similarity as far as they prefer a base.
    """
    return _best(_motif_of(pattern).ppm, _motif_of(motif).ppm, within=False)


def match_consensus(pattern: Pattern | Motif, iupac: str) -> Alignment:
    """Look for a textbook box such as TATAAT in a pattern.

    Parameters
    ----------
    pattern
        What is searched; columns outside of the box do not count, so that a box is also found in a longer pattern.
    iupac
        Letters of A C G T and of R Y S W K M B D H V N for several bases.

    Returns
    -------
    Alignment
        Best place of the box. Two unrelated motifs of six columns reach about 0.6 at the best of all places.
    """
    return _best(_motif_of(pattern).ppm, _consensus_ppm(iupac), within=True)


def word_motif(iupac: str) -> Motif:
    """Make a motif of a word such as TTGACA or RTGASTCAY: the bases of each letter with equal shares.

    Raises
    ------
    ConfigError
        For letters that are not IUPAC, or N alone.
    """
    return Motif(iupac.upper(), _consensus_ppm(iupac).astype(np.float64), "word")


def consensus(motif: Pattern | Motif) -> str:
    """Write a motif in letters: one base where it is clear, the IUPAC letter of two, else N.

    One base has more than half, and at least twice the share of the next; two have more than three fourths.

    References
    ----------
    Cavener 1987, doi:10.1093/nar/15.4.1353.
    """
    letters = []
    for column in _motif_of(motif).ppm.T:
        order = np.argsort(-column, kind="stable")
        first, second = column[order[:2]]
        if first > 0.5 and first >= 2 * second:
            bases = BASES[order[0]]
        else:
            bases = "".join(BASES[i] for i in order[:2]) if first + second > 0.75 else BASES
        letters.append(_LETTER[frozenset(bases)])
    return "".join(letters)


def informative_span(motif: Motif, min_information: float = MIN_INFORMATION) -> tuple[int, int]:
    """First column and end of the part of a motif between its outermost informative columns.

    Information is in bits against equal bases, 2 at most. The whole motif where no column reaches `min_information`.
    """
    information = 2 + (motif.ppm * np.log2(np.maximum(motif.ppm, 1e-12))).sum(axis=0)
    kept = np.flatnonzero(information >= min_information)
    return (int(kept[0]), int(kept[-1]) + 1) if len(kept) else (0, len(information))


def trim_motif(motif: Motif, min_information: float = MIN_INFORMATION) -> Motif:
    """Cut off the flanks of a motif that prefer no base; see `informative_span`."""
    start, end = informative_span(motif, min_information)
    return Motif(motif.name, motif.ppm[:, start:end].copy(), motif.source)


def _motif_of(item: Pattern | Motif) -> Motif:
    return item.motif if isinstance(item, Pattern) else item


def _consensus_ppm(iupac: str) -> ndarray:
    wrong = [letter for letter in iupac.upper() if letter not in IUPAC]
    if wrong or not iupac.strip("Nn"):
        raise ConfigError(f"a consensus is letters of {''.join(IUPAC)}, not N alone; got {iupac!r}"
                          + (f", of which {wrong[0]!r} is none" if wrong else ""))
    return np.array([[(base in IUPAC[letter]) / len(IUPAC[letter]) for letter in iupac.upper()] for base in BASES])


def _cosines(pattern: ndarray, motif: ndarray, *, within: bool = False) -> ndarray:
    """Cosine of two matrices of frequencies minus 0.25 at every offset of the motif, from ``1 - its width`` on.

    `within` compares the columns under the motif only.
    """
    width = motif.shape[1]
    padded = np.pad(pattern - 0.25, ((0, 0), (width - 1, width - 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)
    dot = np.einsum("bow,bw->o", windows, motif - 0.25)
    size = (windows**2).sum(axis=(0, 2)) if within else np.full(len(dot), (padded**2).sum())
    norm = np.sqrt(size * ((motif - 0.25) ** 2).sum())
    return np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 1e-9)


def _best(pattern: ndarray, motif: ndarray, *, within: bool) -> Alignment:
    curves = np.stack([_cosines(pattern, m, within=within) for m in (motif, motif[::-1, ::-1])])
    turn, at = np.unravel_index(curves.argmax(), curves.shape)
    return Alignment(float(curves[turn, at]), int(at) - motif.shape[1] + 1, "+-"[turn])
