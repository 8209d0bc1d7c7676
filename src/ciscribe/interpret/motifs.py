"""Motifs against sequences and against each other: where they match, and what a new one is called.

Sequences are scanned by a scanner of our own, motifs are compared by TOMTOM as memelite has it. memelite's FIMO
(release 0.5) takes half to two thirds of our time, but its p-values hold for equal bases only, which is
far off in AT-rich genomes; they rest on scores rounded to 0.1 bit a column, so that on motifs short enough to enumerate
they were up to twice the exact value and up to a fourth of the hits, for some short motifs all of them, were missed;
and a window that holds an N is matched as if the N cost nothing. Its TOMTOM was near uniform, a little conservative,
on queries of random columns.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, no_type_check
from warnings import warn

import numba
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from memelite import tomtom
from numpy import ndarray
from scipy.stats import false_discovery_control
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.interpret.patterns import Pattern
from ciscribe.schema import Motif, check_motifs
from ciscribe.sequence import BASES, N, codes_of

SCAN_CARD = Card(
    name="pwm-scan",
    kind="interpretation",
    summary="Finds where a motif matches a sequence better than chance allows.",
    paper="Grant, Bailey & Noble, Bioinformatics 2011, doi:10.1093/bioinformatics/btr064 (FIMO); Staden, "
          "Bioinformatics 1989, doi:10.1093/bioinformatics/5.2.89 (exact p-values)",
    differences=(
        "The background is that of the scanned sequences unless given.",
        "Scores are rounded to 1/1000 of the range of the motif, and the p-value is exact for the rounded score.",
        "The pseudocount is a share of the background mixed into each column; the number of sites is not known.",
        "No q-values: windows overlap, and the number of sequences scanned is the user's choice.",
    ),
    n_policy="windows that touch an N are skipped",
)
MATCH_CARD = Card(
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
CARDS = (SCAN_CARD, MATCH_CARD)

N_BINS = 1_000  # of the score between the worst and the best match of a motif
PSEUDOCOUNT = 0.01
MIN_INFORMATION = 0.25  # bits; of 2
_K = 6  # bases that are looked up at once; two tables of 4^7 int16 stay in a near cache
_NEVER = -(10**4)  # score of a word with an N; others are 0 to N_BINS and a little
IUPAC = {"A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
         "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"}
_LETTER = {frozenset(bases): letter for letter, bases in IUPAC.items()}
MATCH_COLUMNS = ("pattern", "match", "p_value", "q_value", "offset", "overlap", "strand", "similarity")


class Alignment(NamedTuple):
    """How a motif lies on a pattern.

    Parameters
    ----------
    similarity
        Cosine of the base frequencies minus 0.25: 1 for the same preferences, 0 for none in common.
    offset
        Column of the pattern at which the motif, as it lies on `strand`, begins; negative where it begins before.
    strand
        ``"-"`` where the reverse complement of the motif fits.
    """

    similarity: float
    offset: int
    strand: str


def log_odds(motif: Motif, background: Float[ndarray, " 4"] | None = None, *, pseudocount: float = PSEUDOCOUNT
             ) -> Float[ndarray, "4 W"]:
    """Score in bits of each base at each position of a motif: how much likelier it is there than by chance.

    Parameters
    ----------
    motif
        Its columns are mixed with a share ``pseudocount / (1 + pseudocount)`` of the background, so that no score is
        infinite.
    background
        Frequency of A C G T; equal unless given.
    pseudocount
        Above 0.
    """
    share = _background(background)
    if pseudocount <= 0:
        raise ConfigError(f"the pseudocount lies above 0, else a base never seen scores -infinity; got {pseudocount}")
    return np.log2((motif.ppm + pseudocount * share[:, None]) / (1 + pseudocount) / share[:, None])


def score_tail(scores: Float[ndarray, "4 W"], background: Float[ndarray, " 4"] | None = None, *, n_bins: int = N_BINS
               ) -> tuple[Int[ndarray, "4 W"], Float[ndarray, " S"]]:
    """Whole-number scores of a motif, and how probable it is that random bases reach each sum of them.

    Parameters
    ----------
    scores
        Such as `log_odds` gives.
    background
        Frequency of A C G T in random bases, which are independent; equal unless given.
    n_bins
        Steps between the lowest and the highest sum.

    Returns
    -------
    whole
        int64, lowest of each column 0.
    tail
        ``tail[s]`` is the probability of a sum of at least `s`; exact, by dynamic programming over columns.

    References
    ----------
    Staden 1989, doi:10.1093/bioinformatics/5.2.89.
    """
    share = _background(background)
    raised = scores - scores.min(axis=0)
    step = raised.max(axis=0).sum() / n_bins or 1.0  # a motif without preferences: every score is 0
    whole = np.rint(raised / step).astype(np.int64)
    density = np.ones(1)
    for column in whole.T:
        longer = np.zeros(len(density) + column.max())
        for probability, value in zip(share, column, strict=True):
            longer[value:value + len(density)] += probability * density
        density = longer
    return whole, np.minimum(np.cumsum(density[::-1])[::-1], 1.0)


def scan_motifs(X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], motifs: Sequence[Motif], *,
                p_value: float = 1e-4, background: Sequence[float] | Float[ndarray, " 4"] | None = None,
                both_strands: bool = True, names: Sequence[str] | None = None, pseudocount: float = PSEUDOCOUNT
                ) -> pd.DataFrame:
    """Find where motifs match sequences better than random bases would.

    Parameters
    ----------
    X
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``. Windows that touch an N are skipped.
    motifs
        What to look for. A warning names those that even their best match cannot bring to `p_value`.
    p_value
        Largest p-value of a hit: probability that one window of random bases scores at least as high. With 1e-4, one
        in 10,000 windows is a hit by chance, on each strand.
    background
        Frequency of A C G T in random bases; by default that of `X`. With both strands, A and T are averaged, and so
        are C and G, so that a site is judged alike on either.
    both_strands
        Also look for the reverse complement. A palindrome is then found on both.
    names
        Of the sequences; counted from 0 unless given.
    pseudocount
        See `log_odds`.

    Returns
    -------
    DataFrame
        Hits (`ciscribe.schema.check_hits`) sorted by region and start: ``chrom`` (name of the sequence), ``start, end``
        within it, ``strand, motif, score`` (log2 odds, bits), ``p_value``, ``region`` (row of `X`). The p-value is
        exact for the score rounded to a thousandth of the motif's range.

    Raises
    ------
    SchemaError
        For sequences or motifs that break their contracts, or another number of names than sequences.
    ConfigError
        For a p-value outside of (0, 1] or a background that is not four shares above 0.

    References
    ----------
    Grant, Bailey & Noble 2011, doi:10.1093/bioinformatics/btr064 (FIMO); Staden 1989,
    doi:10.1093/bioinformatics/5.2.89. Differences: see `SCAN_CARD`.
    """
    codes = codes_of(X)
    check_motifs(motifs)
    if not 0 < p_value <= 1:
        raise ConfigError(f"p_value lies above 0 and at most at 1; got {p_value}")
    labels = np.array([str(i) for i in range(len(codes))] if names is None else list(names), dtype=object)
    if len(labels) != len(codes):
        raise SchemaError(f"{len(codes):,} sequences need as many names; got {len(labels):,}")
    share = base_frequencies(codes) if background is None else _background(background)
    if both_strands:
        share = (share + share[::-1]) / 2
    length = codes.shape[1]
    flat = np.pad(codes, ((0, 0), (0, 1)), constant_values=N).ravel()  # no window crosses from one to the next
    words = {k: _words(flat, k) for k in {min(_K, m.ppm.shape[1]) for m in motifs}}

    def scan(motif: Motif) -> tuple[list[tuple[ndarray, ndarray, ndarray]], float]:
        scores = log_odds(motif, share, pseudocount=pseudocount)
        whole, tail = score_tail(scores, share)
        reached = np.flatnonzero(tail <= p_value * (1 + 1e-9))
        if not len(reached):
            return [], float(tail[-1])
        found = []
        for turn in (1, -1) if both_strands else (1,):
            at, total = _scan(words[min(_K, whole.shape[1])], *_blocks(whole[::turn, ::turn]), int(reached[0]))
            window = flat[at[:, None] + np.arange(whole.shape[1])]
            found.append((at, scores[::turn, ::turn][window, np.arange(whole.shape[1])].sum(axis=1), tail[total]))
        return found, 0.0

    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        results = list(pool.map(scan, motifs))
    mute = [(m.name, best) for m, (_, best) in zip(motifs, results, strict=True) if best]
    if mute:
        warn(f"{len(mute):,} of {len(motifs):,} motifs are too short or too weak for p_value={p_value:g} and have no "
             f"hits; first: {mute[0][0]}, whose best match has p = {mute[0][1]:.2g}; raise p_value to find them",
             stacklevel=2)
    parts = [(i, turn, *part) for i, (found, _) in enumerate(results) for turn, part in enumerate(found)]
    which = np.repeat([p[0] for p in parts], [len(p[2]) for p in parts]).astype(np.int64)
    turns = np.repeat([p[1] for p in parts], [len(p[2]) for p in parts]).astype(np.int64)
    at, score, p = (np.concatenate([part[j] for part in parts] or [np.zeros(0)]) for j in (2, 3, 4))
    region, start = np.divmod(at.astype(np.int64), length + 1)
    width = np.array([m.ppm.shape[1] for m in motifs], dtype=np.int64)
    order = np.lexsort((turns, which, start, region))
    table = pd.DataFrame({
        "chrom": labels[region], "start": start, "end": start + width[which],
        "strand": np.array(["+", "-"], dtype=object)[turns],
        "motif": np.array([m.name for m in motifs], dtype=object)[which],
        "score": score.astype(float), "p_value": p.astype(float), "region": region})
    return table.iloc[order].reset_index(drop=True)


def base_frequencies(codes: UInt8[ndarray, "B L"]) -> Float[ndarray, " 4"]:
    """Share of A C G T among the bases of sequences; one base is added to each, so that none is 0."""
    counts = np.bincount(codes.ravel(), minlength=N + 1)[:N] + 1.0
    return counts / counts.sum()


def _background(background: Sequence[float] | ndarray | None) -> ndarray:
    share = np.full(4, 0.25) if background is None else np.asarray(background, dtype=float)
    if share.shape != (4,) or not (share > 0).all() or not abs(share.sum() - 1) < 1e-3:
        raise ConfigError(f"the background is the frequencies of A C G T, above 0 and with sum 1; got {background}")
    return share / share.sum()


def _words(flat: ndarray, k: int) -> ndarray:
    """Number of the `k` bases from each position on; 4^k where one of them is an N."""
    n = max(len(flat) - k + 1, 0)
    words, dead = np.zeros(n, dtype=np.uint16), np.zeros(n, dtype=bool)
    for j in range(k):
        code = flat[j:j + n]
        words = words * np.uint16(4) + (code & 3)
        dead |= code > 3
    words[dead] = 4**k
    return words


def _blocks(whole: ndarray) -> tuple[ndarray, ndarray]:
    """Score tables of pieces of a motif and where they start, those that tell most first.

    The last piece ends with the motif; columns that it shares with the one before count there.
    """
    width = whole.shape[1]
    k = min(_K, width)
    tables, starts = [], []
    for first in range(0, width, k):
        start = min(first, width - k)
        table = np.zeros(1, dtype=np.int64)
        for j in range(start, start + k):
            table = (table[:, None] + (whole[:, j] if j >= first else 0 * whole[:, j])).ravel()
        tables.append(np.append(table, _NEVER))
        starts.append(start)
    if len(tables) == 1:  # the scan looks two pieces up at once
        tables.append(np.zeros_like(tables[0]))
        starts.append(0)
    order = np.argsort([t[:-1].mean() - t.max() for t in tables])
    return np.stack(tables)[order].astype(np.int16), np.array(starts)[order]


def _scan(words: ndarray, tables: ndarray, starts: ndarray, threshold: int) -> tuple[ndarray, ndarray]:
    best = tables.max(axis=1)
    rest = best.sum() - np.cumsum(best)  # what the pieces still to come can add at most
    return _compiled_scan(words, tables, starts, rest, threshold)


@numba.njit(cache=True, nogil=True)
@no_type_check  # pytest's shape checks cannot wrap compiled functions
def _compiled_scan(words, tables, starts, rest, threshold):  # pragma: no cover - compiled
    """Windows whose whole-number score reaches the threshold, and the score."""
    at, total, n = np.empty(1024, np.int64), np.empty(1024, np.int64), 0
    bar = threshold - rest[1]
    for p in range(len(words) - starts.max()):
        s = np.int64(tables[0, words[p + starts[0]]]) + tables[1, words[p + starts[1]]]
        if s < bar:  # nearly always
            continue
        b = 2
        while b < len(starts):
            s += tables[b, words[p + starts[b]]]
            if s < threshold - rest[b]:
                break
            b += 1
        if b == len(starts):
            if n == len(at):
                at, total = np.concatenate((at, np.empty(n, np.int64))), np.concatenate((total, np.empty(n, np.int64)))
            at[n], total[n] = p, s
            n += 1
    return at[:n].copy(), total[:n].copy()


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
    Gupta et al. 2007, doi:10.1186/gb-2007-8-2-r24. Differences: see `MATCH_CARD`.
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
