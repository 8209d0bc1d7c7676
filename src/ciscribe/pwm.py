"""Position weight matrices: what a motif scores at each base, how probable a score is, where sequences match.

The scanner is our own. memelite's FIMO (release 0.5) takes half to two thirds of its time, but its p-values hold for
equal bases only, which is far off in AT-rich genomes; they rest on scores rounded to 0.1 bit a column, so that on
motifs short enough to enumerate they were up to twice the exact value and up to a fourth of the hits, for some short
motifs all of them, were missed; and a window that holds an N is matched as if the N cost nothing.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check
from warnings import warn

import numba
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from numpy import ndarray
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.schema import Motif, check_motifs
from ciscribe.sequence import N, codes_of

CARD = Card(
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

N_BINS = 1_000  # of the score between the worst and the best match of a motif
PSEUDOCOUNT = 0.01
_K = 6  # bases that are looked up at once; two tables of 4^7 int16 stay in a near cache
_NEVER = -(10**4)  # score of a word with an N; others are 0 to N_BINS and a little


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


def score_threshold(scores: Float[ndarray, "4 W"], p_value: float, background: Float[ndarray, " 4"] | None = None
                    ) -> float:
    """Lowest score that random bases reach with a probability of at most `p_value`; infinite where none is so rare.

    In the units of `scores` (bits of `log_odds`), exact but for the rounding of `score_tail`.
    """
    _, tail = score_tail(scores, background)
    reached = np.flatnonzero(tail <= p_value * (1 + 1e-9))
    low, high = scores.min(axis=0).sum(), scores.max(axis=0).sum()
    return float(low + reached[0] * (high - low) / N_BINS) if len(reached) else np.inf


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
    doi:10.1093/bioinformatics/5.2.89. Differences: see `CARD`.
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
    words = {k: word_numbers(flat, k) for k in {min(_K, m.ppm.shape[1]) for m in motifs}}

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

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
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


def word_numbers(flat: UInt8[ndarray, " L"], k: int) -> Shaped[ndarray, " n"]:
    """Number of the `k` (at most 7) bases from each position on, A first; 4^k where one of them is an N; uint16."""
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
