"""The rules of motifs by asking the model: number, position, order, orientation, spacing and flanks.

Motifs are written into backgrounds that hold none of them, so that nothing is confounded, unlike in what the
sequences themselves show (`ciscribe.interpret.arrangement`, with the same words for order, orientation and gap).
`ciscribe.interpret.periodicity` reads the curves.

Every table is long and has the same columns for a figure: ``mean, sd, low, high, n``, in units of the readout, over
`n` backgrounds, with a 95 % band from a bootstrap over them. Effects are *with minus without*: positive where a motif
raises the output. `z` is the mean over its standard error; p-values are two-sided (t over backgrounds); ``q_value``
is Benjamini & Hochberg's over the rows of its table. Cooperativity is what two motifs do together beyond the sum of
what each does alone, f(AB) − f(A) − f(B) + f(empty): on a readout in logarithms, beyond the product.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray
from scipy import stats
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.interpret.arrangement import ORDERS, ORIENTATIONS, bootstrap_band, with_q
from ciscribe.interpret.patterns import Pattern
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import Edits, predict_edited
from ciscribe.schema import Motif
from ciscribe.sequence import N, codes_of, encode, reverse_complement_codes

_ROUNDING = 1e-6  # of the largest prediction: differences of float32 numbers below it mean nothing
_STEP = 16  # widths of edits are multiples of it
_FREE_BITS = 0.25  # a column of a motif with less information is left to the background

Sequences = Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."]
Grammar = Motif | Pattern | str
Layout = list[tuple[int, ndarray]]  # start and codes of what is written into a background; 4 keeps its base

CARD = Card(
    name="syntax", kind="interpretation",
    summary="Motifs written into backgrounds in every number, place, order, orientation and distance, base by base.",
    paper="Avsec et al., Nature Genetics 53:354 (2021), doi:10.1038/s41588-021-00782-6; Koo et al., PLoS "
          "Computational Biology 17:e1008925 (2021), doi:10.1371/journal.pcbi.1008925",
    differences=("Cooperativity is a difference from the sum of single effects on the readout's scale, no ratio.",
                 "Of a pair, A stays where it is, and what B does alone is asked at every place that it takes.",
                 "Bands are bootstrapped over backgrounds.",
                 "Columns of a motif with less than 0.25 bits are left to the background."),
    n_policy="an N in an inserted motif keeps the base of the background")


def motif_codes(motif: Grammar) -> UInt8[ndarray, " W"]:
    """The bases that stand for a motif in an experiment; 4 where any base will do.

    A motif or pattern gives the most frequent base of every column with at least 0.25 bits (against even bases),
    its outer free columns cut off. A text is taken as it is, with N for any base.

    Raises
    ------
    SchemaError
        When no base is preferred anywhere, or a text holds letters other than ACGTN.
    """
    if isinstance(motif, str):
        codes = encode(motif)
        if odd := sorted(set(motif.upper()) - set("ACGTN")):
            raise SchemaError(f"a motif given as text is made of ACGTN; got {motif!r} with {', '.join(odd)}; give a "
                              "Motif for other IUPAC letters")
    else:
        ppm = (motif.motif if isinstance(motif, Pattern) else motif).ppm
        bits = 2 + (ppm * np.log2(np.maximum(ppm, 1e-12))).sum(axis=0)
        codes = np.where(bits >= _FREE_BITS, ppm.argmax(axis=0), N).astype(np.uint8)
    known = np.flatnonzero(codes < N)
    if not len(known):
        raise SchemaError(f"the motif {motif if isinstance(motif, str) else motif.name!r} prefers no base anywhere")
    return codes if isinstance(motif, str) else codes[known[0]:known[-1] + 1]


class _Bench(NamedTuple):
    """An oracle and the backgrounds into which motifs are written."""

    oracle: Oracle
    codes: ndarray
    S: Tensor | None
    covariates: Tensor | None
    batch_size: int
    progress: bool

    def ask(self, layouts: Iterable[Layout]) -> Float[ndarray, "n B T"]:
        """Predict every background with each layout written into it."""
        layouts = list(layouts)
        n, length = self.codes.shape
        spans = []
        for layout in layouts:
            left = min((at for at, _ in layout), default=0)
            right = max((at + len(codes) for at, codes in layout), default=1)
            if left < 0 or right > length:
                raise SchemaError(f"the motifs would stand at {left} to {right} of a background of {length} bp; use "
                                  "longer backgrounds, or smaller gaps, numbers or flanks")
            width = min(-(-(right - left) // _STEP) * _STEP, length)  # a table of edits has one width: few tables
            spans.append((min(left, length - width), width))
        out: list[ndarray] = [np.empty(0)] * len(layouts)
        for width in {width for _, width in spans}:
            which = [i for i, span in enumerate(spans) if span[1] == width]
            bases = np.stack([self.codes[:, spans[i][0]:spans[i][0] + width] for i in which])
            for block, i in zip(bases, which, strict=True):
                for at, codes in layouts[i]:
                    here = block[:, at - spans[i][0]:at - spans[i][0] + len(codes)]
                    here[:] = np.where(codes < N, codes, here)
            edits = Edits(np.tile(np.arange(n), len(which)), np.repeat([spans[i][0] for i in which], n),
                          bases.reshape(-1, width))
            answers = predict_edited(self.oracle, self.codes, edits, self.S, self.covariates,
                                     batch_size=self.batch_size, progress=self.progress)
            for i, answer in zip(which, answers.reshape(len(which), n, -1), strict=True):
                out[i] = answer.astype(np.float64)
        return np.stack(out)


def _bench(oracle: Oracle, backgrounds: Sequences, S: Tensor | None, covariates: Tensor | None, batch_size: int,
           progress: bool) -> _Bench:
    codes = codes_of(backgrounds)
    if len(codes) < 2:
        raise SchemaError(f"experiments need 2 backgrounds or more (10 to 100 are usual); got {len(codes)}")
    return _Bench(oracle, codes, S, covariates, batch_size, progress)


def number_curve(oracle: Oracle, motif: Grammar, backgrounds: Sequences, counts: Sequence[int] = range(1, 6), *,
                 gap: int = 10, S: Tensor | None = None, covariates: Tensor | None = None, n_bootstrap: int = 1000,
                 seed: int = 0, batch_size: int = 64, progress: bool = False) -> pd.DataFrame:
    """What 1, 2, 3 … copies of a motif do to the model's output.

    Parameters
    ----------
    oracle
        See `ciscribe.oracle.Oracle`.
    motif
        See `motif_codes`. The first copy stands in the middle, the next ones beside it, right and left in turn.
    backgrounds
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``, e.g. dinucleotide shuffles.
    counts
        Numbers of copies.
    gap
        Bases between copies.
    S, covariates
        One row a background, passed to the model.
    n_bootstrap, seed
        Resamples of the backgrounds for the band.
    batch_size, progress
        As in `Oracle.predict`.

    Returns
    -------
    DataFrame
        ``count, track, mean, sd, low, high, n, z, p_value, q_value``: the effect of all copies over none; and
        ``added``, the mean effect of a copy, (effect − effect of the row before) / (copies more).
    """
    bench = _bench(oracle, backgrounds, S, covariates, batch_size, progress)
    codes, numbers = motif_codes(motif), sorted(set(counts))
    if not numbers or numbers[0] < 1:
        raise SchemaError(f"counts are numbers of copies from 1; got {list(counts)}")
    pitch, middle = len(codes) + gap, (bench.codes.shape[1] - len(codes)) // 2
    slots = [middle + pitch * ((i + 1) // 2) * (1 if i % 2 else -1) for i in range(numbers[-1])]
    answers = bench.ask([[], *([(at, codes) for at in slots[:k]] for k in numbers)])
    table = _table({"count": numbers}, answers[1:] - answers[0], answers, n_bootstrap, seed)
    steps = np.diff(numbers, prepend=0)[:, None]
    table["added"] = (np.diff(answers.mean(axis=1), axis=0) / steps).ravel()
    return table


def position_curve(oracle: Oracle, motif: Grammar, backgrounds: Sequences, positions: Sequence[int], *,
                   strands: Sequence[str] = ("+", "-"), S: Tensor | None = None, covariates: Tensor | None = None,
                   n_bootstrap: int = 1000, seed: int = 0, batch_size: int = 64, progress: bool = False
                   ) -> pd.DataFrame:
    """What a motif does to the model's output by where it stands.

    Parameters
    ----------
    oracle, motif, backgrounds, S, covariates, n_bootstrap, seed, batch_size, progress
        As in `number_curve`.
    positions
        First base of the motif, from the start of the background.
    strands
        Strands on which it is written.

    Returns
    -------
    DataFrame
        ``strand, position, track, mean, sd, low, high, n, z, p_value, q_value``.
    """
    bench = _bench(oracle, backgrounds, S, covariates, batch_size, progress)
    places = [(strand, int(at)) for strand in strands for at in positions]
    answers = bench.ask([[], *([(at, _turned(motif_codes(motif), strand))] for strand, at in places)])
    keys = {"strand": [s for s, _ in places], "position": [at for _, at in places]}
    return _table(keys, answers[1:] - answers[0], answers, n_bootstrap, seed)


def spacing_curve(oracle: Oracle, motif_a: Grammar, motif_b: Grammar, backgrounds: Sequences, gaps: Sequence[int], *,
                  orientations: Sequence[str] = ("++",), orders: Sequence[str] = ("ab",),
                  shifts: Sequence[int] = (0,), S: Tensor | None = None, covariates: Tensor | None = None,
                  n_bootstrap: int = 1000, seed: int = 0, batch_size: int = 64, progress: bool = False
                  ) -> pd.DataFrame:
    """Cooperativity of two motifs by the distance between them.

    A stays where it is and B moves away from it; the widest pair stands in the middle of the background. What B does
    alone is asked at each of its places, so that an effect of position is not taken for one of distance.

    Parameters
    ----------
    oracle, backgrounds, S, covariates, n_bootstrap, seed, batch_size, progress
        As in `number_curve`.
    motif_a, motif_b
        See `motif_codes`.
    gaps
        Bases between the two, each from 0.
    orientations, orders
        Which of `ORIENTATIONS` and `ORDERS` to ask.
    shifts
        Distances in bp from there at which all is asked again; answers are averaged within each background. A few
        even out the grid that pooling lays over the positions of a network.

    Returns
    -------
    DataFrame
        ``order, orientation, gap, track, mean, sd, low, high, n, z, p_value, q_value``; `mean` is the cooperativity,
        f(AB) − f(A) − f(B) + f(empty), over `n` backgrounds; and ``joint``, the mean of f(AB) − f(empty).

    Raises
    ------
    SchemaError
        For fewer than two backgrounds, negative gaps, or pairs that do not fit in a background.

    References
    ----------
    Avsec et al., Nature Genetics 53:354 (2021), doi:10.1038/s41588-021-00782-6; Koo et al., PLoS Computational
    Biology 17:e1008925 (2021), doi:10.1371/journal.pcbi.1008925. Differences: `CARD`.
    """
    bench = _bench(oracle, backgrounds, S, covariates, batch_size, progress)
    kinds = [(order, orientation, int(gap)) for order in orders for orientation in orientations for gap in gaps]
    a, b = motif_codes(motif_a), motif_codes(motif_b)
    excess, joint, answers = _cooperativity(bench, [_Pair(a, b, *kind, shift) for kind in kinds for shift in shifts])
    excess, joint = (v.reshape(len(kinds), len(shifts), *v.shape[1:]).mean(axis=1) for v in (excess, joint))
    keys = {name: [kind[i] for kind in kinds] for i, name in enumerate(("order", "orientation", "gap"))}
    table = _table(keys, excess, answers, n_bootstrap, seed)
    table["joint"] = joint.mean(axis=1).ravel()
    return table


def interaction_matrix(oracle: Oracle, motifs: Sequence[Motif | Pattern], backgrounds: Sequences,
                       gaps: Sequence[int] = (5, 10, 20), *, orientation: str = "++", S: Tensor | None = None,
                       covariates: Tensor | None = None, n_bootstrap: int = 1000, seed: int = 0, batch_size: int = 64,
                       progress: bool = False) -> pd.DataFrame:
    """Cooperativity of every ordered pair of motifs, averaged over a few gaps.

    Parameters
    ----------
    oracle, backgrounds, S, covariates, n_bootstrap, seed, batch_size, progress
        As in `number_curve`.
    motifs
        With unique names; each is also paired with itself.
    gaps
        Averaged within each background.
    orientation
        One of `ORIENTATIONS`.

    Returns
    -------
    DataFrame
        ``motif_a, motif_b, track, mean, sd, low, high, n, z, p_value, q_value``, `motif_a` before `motif_b` in the
        sequence. ``table.pivot(index="motif_a", columns="motif_b",
        values="z")`` of one track is the matrix.
    """
    bench = _bench(oracle, backgrounds, S, covariates, batch_size, progress)
    names = [motif.name for motif in motifs]
    if len(set(names)) < len(names) or not names or not len(gaps):
        raise SchemaError(f"a matrix needs gaps and motifs with names of their own; got {', '.join(names) or 'none'}")
    codes = [motif_codes(motif) for motif in motifs]
    excess, _, answers = _cooperativity(bench, [_Pair(a, b, "ab", orientation, int(gap))
                                                for a in codes for b in codes for gap in gaps])
    mean = excess.reshape(len(codes) ** 2, len(gaps), *excess.shape[1:]).mean(axis=1)
    return _table({"motif_a": np.repeat(names, len(names)), "motif_b": names * len(names)}, mean, answers, n_bootstrap,
                  seed)


def flank_effect(oracle: Oracle, motif: Grammar, backgrounds: Sequences, *, flank: int = 5, strand: str = "+",
                 position: int | None = None, S: Tensor | None = None, covariates: Tensor | None = None,
                 n_bootstrap: int = 1000, seed: int = 0, batch_size: int = 64, progress: bool = False
                 ) -> pd.DataFrame:
    """What every base in and around a motif does to the response: its affinity and its flanks, as a matrix of effects.

    The motif is written into every background; then each position of it and of its flanks is given each base in
    turn. The effect of a base is its output minus the mean over the four bases there, averaged over backgrounds,
    so that the flanks are averaged over what else may stand there.

    Parameters
    ----------
    oracle, motif, backgrounds, S, covariates, n_bootstrap, seed, batch_size, progress
        As in `number_curve`.
    flank
        Bases on either side of the motif.
    strand
        Strand on which the motif is written; positions and bases are read on it.
    position
        First base of the motif in the background; the middle unless given.

    Returns
    -------
    DataFrame
        ``position`` (0 is the first base of the motif, negative before it), ``base, in_motif, track, mean, sd, low,
        high, n, z, p_value, q_value``.
    """
    bench = _bench(oracle, backgrounds, S, covariates, batch_size, progress)
    codes = motif_codes(motif)
    start = (bench.codes.shape[1] - len(codes)) // 2 if position is None else position
    places = np.arange(-flank, len(codes) + flank)

    def layout(offset: int, base: int) -> Layout:
        block = np.concatenate([np.full(flank, N), codes, np.full(flank, N)]).astype(np.uint8)
        block[offset + flank] = base
        return [(start - flank, _turned(block, strand))]

    answers = bench.ask([layout(int(at), base) for at in places for base in range(4)])
    grouped = answers.reshape(len(places), 4, *answers.shape[1:])
    effects = (grouped - grouped.mean(axis=1, keepdims=True)).reshape(answers.shape)
    keys = {"position": np.repeat(places, 4), "base": list("ACGT") * len(places),
            "in_motif": np.repeat((places >= 0) & (places < len(codes)), 4)}
    return _table(keys, effects, answers, n_bootstrap, seed)


def _turned(codes: ndarray, strand: str) -> ndarray:
    if strand not in ("+", "-"):
        raise SchemaError(f"a strand is + or -; got {strand!r}")
    return codes if strand == "+" else reverse_complement_codes(codes)


class _Pair(NamedTuple):
    """One arrangement of two motifs."""

    a: ndarray
    b: ndarray
    order: str
    orientation: str
    gap: int
    shift: int = 0


def _cooperativity(bench: _Bench, pairs: Sequence[_Pair]) -> tuple[ndarray, ndarray, ndarray]:
    """Cooperativity and joint effect of each pair ``(n, B, T)``, and all answers."""
    for pair in pairs:
        if pair.order not in ORDERS or pair.orientation not in ORIENTATIONS:
            raise SchemaError(f"an order is one of {', '.join(ORDERS)} and an orientation one of "
                              f"{', '.join(ORIENTATIONS)}; got {pair.order!r} and {pair.orientation!r}")
        if pair.gap < 0:
            raise SchemaError(f"a gap counts the bases between two motifs, from 0; got {pair.gap}; for B before A use "
                              "the order ba")
    length = bench.codes.shape[1]
    widest = max((len(a) + len(b) + gap for a, b, _, _, gap, _ in pairs), default=0)
    left, right = (length - widest) // 2, (length - widest) // 2 + widest
    layouts: dict[tuple, Layout] = {(): []}  # what a motif does alone in one place is asked once
    keys = []
    for a, b, order, orientation, gap, shift in pairs:
        at = shift + (left if order == "ab" else right - len(a))
        one = (at, _turned(a, orientation[0]))
        other = (at + len(a) + gap if order == "ab" else at - gap - len(b), _turned(b, orientation[1]))
        for layout in ([one], [other], [one, other]):
            keys.append(tuple((place, codes.tobytes()) for place, codes in layout))
            layouts[keys[-1]] = layout
    answers = bench.ask(layouts.values())
    row = {key: i for i, key in enumerate(layouts)}
    alone_a, alone_b, joint = (answers[[row[key] for key in keys[i::3]]] - answers[0] for i in range(3))
    return joint - alone_a - alone_b, joint, answers


def _table(keys: dict[str, Any], effects: Float[ndarray, "n B T"], answers: ndarray, n_bootstrap: int, seed: int
           ) -> pd.DataFrame:
    """Long table of effects over backgrounds, one row for each key and track."""
    n_rows, n, n_tracks = effects.shape
    low, high = bootstrap_band(effects.transpose(1, 0, 2), n_bootstrap, seed)
    mean, sd = effects.mean(axis=1), effects.std(axis=1, ddof=1)
    rounding = _ROUNDING * max(float(np.abs(answers).max()), 1e-12)
    z = mean / np.maximum(sd / np.sqrt(n), rounding)
    table = pd.DataFrame({name: np.repeat(np.asarray(value), n_tracks) for name, value in keys.items()})
    figures = {"mean": mean, "sd": sd, "low": low, "high": high, "n": np.full_like(mean, n, dtype=int), "z": z,
               "p_value": 2 * stats.t.sf(np.abs(z), n - 1)}
    return with_q(table.assign(track=np.tile(np.arange(n_tracks), n_rows),
                               **{name: values.ravel() for name, values in figures.items()}))
