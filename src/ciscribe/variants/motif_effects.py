"""What a variant does to the sites of known factors: the change of the best match, and of how much factor is bound.

Two views of one matrix. `d_pwm` looks at the best window before and after, and is silent where neither is a site.
`d_occupancy` adds up how often each window would be bound, weak ones too, so that two neighbouring weak sites count and
a site that moves is no loss. Signs are those of variants: alternative minus reference, positive where the alternative
allele is bound better.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.optimize import minimize
from scipy.special import expit

from ciscribe.card import Card
from ciscribe.errors import ConfigError, SchemaError, UnknownNameError, nearest
from ciscribe.pwm import N_BINS, base_frequencies, log_odds, score_tail, score_threshold, word_numbers
from ciscribe.schema import EFFECT_COLUMNS, Motif, check_motifs, check_variants
from ciscribe.sequence import Reference, decode, encode

CARDS = {
    "d_pwm": Card(
        name="d_pwm", kind="variants",
        summary="How much better the best match of a motif fits the alternative allele than the reference allele.",
        paper="Coetzee, Coetzee & Hazelett, Bioinformatics 2015, doi:10.1093/bioinformatics/btv470 (motifbreakR)",
        differences=("Log odds against the bases around the variants, in bits; motifbreakR reports shares of the "
                     "motif's range, and can weigh columns by their information.",
                     "The best window may be another one, on another strand, for each allele.",
                     "A motif counts where either allele passes the p-value; else the difference is 0."),
        n_policy="windows that touch an N are skipped; NaN where an allele has no other"),
    "d_occupancy": Card(
        name="d_occupancy", kind="variants",
        summary="How much more of a factor would sit on the alternative allele than on the reference allele, weak "
                "sites included.",
        paper="Manke, Heinig & Vingron, Human Mutation 2010, doi:10.1002/humu.21209 (sTRAP); Roider et al., "
              "Bioinformatics 2007, doi:10.1093/bioinformatics/btl565 (TRAP)",
        differences=("Log odds are the energies; the level at which half of the factor is bound is the score of the "
                     "p-value, where TRAP fits it to ChIP data and the width of the motif.",
                     "Only windows over the variant are summed; the sequence around it, the same for both alleles, "
                     "stands in as what random bases would hold.",
                     "Log2 of the ratio of expected occupancies instead of a ratio of p-values."),
        n_policy="windows that touch an N hold nothing; NaN where an allele has no other"),
}
_K = 6  # bases that are looked up at once
_NOTHING = 14.0  # so far below the level of half occupancy (in kT) a window holds less than 1e-6
_AROUND = 100  # bp around a variant that compete for the factor: the floor under the occupancy of a weak site


@dataclass(frozen=True, eq=False)
class MotifEffects:
    """What variants do to motifs, one row a variant and one column a motif.

    Parameters
    ----------
    variants
        As given.
    motifs
        Names.
    d_pwm
        Bits, float32 ``(V, M)``: best log odds, alternative minus reference; 0 where no allele passes the p-value.
    d_occupancy
        Log2 of the ratio of expected occupancies, float32 ``(V, M)``.
    passes
        Whether either allele's best match passes the p-value, bool ``(V, M)``.
    """

    variants: pd.DataFrame
    motifs: tuple[str, ...]
    d_pwm: ndarray
    d_occupancy: ndarray
    passes: ndarray

    def table(self) -> pd.DataFrame:
        """Effects on every motif that either allele matches, one row a variant × motif (`check_effects`).

        ``track`` is the motif; ``d_pwm, d_occupancy`` the scores.
        """
        row, column = np.nonzero(self.passes)
        table = _keys(self.variants.iloc[row], np.array(self.motifs, dtype=object)[column])
        return table.assign(d_pwm=self.d_pwm[row, column].astype(float),
                            d_occupancy=self.d_occupancy[row, column].astype(float))

    def summarize(self, weights: Mapping[str, float] | None = None) -> pd.DataFrame:
        """Say in few numbers what a variant does to all motifs together.

        Parameters
        ----------
        weights
            Motif → weight, its sign positive for activators; motifs not named count 0. All 1 unless given.

        Returns
        -------
        DataFrame
            Effects (`check_effects`, track ``motifs``): ``d_pwm, d_occupancy`` of the motif that changes most, with
            its sign; ``motif``, the one whose `d_pwm` that is (``.`` where none changes); ``d_pwm_sum,
            d_occupancy_sum`` over motifs. Each is weighted. NaN (an N over the variant) counts as no change.

        Raises
        ------
        UnknownNameError
            If a weight names no motif.
        """
        weight = np.ones(len(self.motifs)) if weights is None else np.zeros(len(self.motifs))
        column = {name: i for i, name in enumerate(self.motifs)}
        for name, value in (weights or {}).items():
            if name not in column:
                raise UnknownNameError(f"a weight names the motif '{name}', which was not scored; "
                                       f"{nearest(name, self.motifs)}")
            weight[column[name]] = value
        out = _keys(self.variants, np.full(len(self.variants), "motifs", dtype=object))
        rows = np.arange(len(out))
        for name, values in (("d_pwm", self.d_pwm), ("d_occupancy", self.d_occupancy)):
            values = np.nan_to_num(values) * weight
            most = np.abs(values).argmax(axis=1) if values.size else np.zeros(len(out), int)
            out[name] = values[rows, most] if values.size else np.zeros(len(out))
            out[f"{name}_sum"] = values.sum(axis=1)
            if name == "d_pwm":
                names = np.array([*self.motifs, "."], dtype=object)
                out["motif"] = names[np.where(out[name] != 0, most, len(self.motifs))]
        return out


def motif_effects(genome: Reference, variants: pd.DataFrame, motifs: Sequence[Motif], *,
                  background: Sequence[float] | Float[ndarray, " 4"] | None = None, p_value: float = 1e-4,
                  temperature: float = 0.7) -> MotifEffects:
    """Compare how well each motif matches the two alleles of each variant, on both strands.

    Windows count that overlap the allele: the reference allele in the genome, the alternative in its place. Those of an
    insertion or deletion include the base that it is anchored to, which is the same in both.

    Parameters
    ----------
    genome
        Where the variants lie.
    variants
        ``chrom, pos, ref, alt[, name]``; SNVs, insertions, deletions.
    motifs
        What to look for.
    background
        Frequency of A C G T in random bases; by default that of the bases around the variants. A and T are averaged,
        and so are C and G.
    p_value
        Of one window: how seldom a score is reached by chance. It sets which motifs count in `d_pwm`, and at which
        score a window is bound half of the time in `d_occupancy`. Motifs too short or weak to be that rare count in
        neither: 0.
    temperature
        Of the occupancy, in units of the natural logarithm of the odds: 1 takes the log odds as energies in kT, higher
        values let weak windows count more. 0.7 is the published λ of TRAP.

    Returns
    -------
    MotifEffects
        Float32 ``(V, M)`` each. The expected occupancy of an allele is the sum of 1 / (1 + exp((μ − E) / T)) over its
        windows, plus what 100 bp of random bases hold.

    Raises
    ------
    SchemaError
        For variants whose reference allele is not the genome's (with the count), or that break their contract.
    UnknownNameError
        For a chromosome that the genome does not have.
    ConfigError
        For a p-value outside of (0, 1) or a temperature not above 0.

    References
    ----------
    Coetzee et al. 2015, doi:10.1093/bioinformatics/btv470; Roider et al. 2007, doi:10.1093/bioinformatics/btl565.
    Differences: see `CARDS`.
    """
    check_variants(variants)
    check_motifs(motifs)
    if not 0 < p_value < 1 or not temperature > 0:
        raise ConfigError(f"p_value lies between 0 and 1 and the temperature above 0; got {p_value} and {temperature}")
    flank = max((m.ppm.shape[1] for m in motifs), default=1) - 1
    flat, start, size, ref, alt = _alleles(genome, variants, flank)
    share = base_frequencies(flat[None]) if background is None else np.asarray(background, dtype=float)
    share = (share + share[::-1]) / 2
    words = {k: word_numbers(flat, k) for k in {min(_K, m.ppm.shape[1]) for m in motifs}}
    d_pwm, d_occupancy = (np.zeros((len(motifs), len(variants)), np.float32) for _ in range(2))
    passes = np.zeros(d_pwm.shape, bool)

    def score(i: int) -> None:
        scores = log_odds(motifs[i], share)
        width = scores.shape[1]
        threshold = score_threshold(scores, p_value, share)
        if not np.isfinite(threshold):
            return
        k = min(_K, width)
        tables = np.stack([_tables(s, k) for s in (scores, scores[::-1, ::-1])])
        slope = np.log(2) / temperature
        best, bound = _compiled(words[k], tables, _starts(width, k), start + (flank - width + 1), size + width - 1,
                                np.float32(threshold), np.float32(slope))
        occupied = np.log2(bound + 2 * _AROUND * _mean_occupancy(scores, share, threshold, slope))
        known = np.isfinite(best[ref]) & np.isfinite(best[alt])
        passes[i] = known & (np.maximum(best[ref], best[alt]) >= threshold - 1e-4)
        with np.errstate(invalid="ignore"):
            d_pwm[i] = np.where(known, np.where(passes[i], best[alt] - best[ref], 0), np.nan)
        d_occupancy[i] = np.where(known, occupied[alt] - occupied[ref], np.nan)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(score, range(len(motifs))))
    return MotifEffects(variants, tuple(m.name for m in motifs), d_pwm.T, d_occupancy.T, passes.T)


def learn_weights(effects: MotifEffects, raised: Bool[ndarray, " V"], *, penalty: float = 0.1) -> dict[str, float]:
    """Learn from measured alleles how much each motif matters: which changes of occupancy raise the output.

    Logistic regression of the direction on `d_occupancy`, without an intercept (exchanged alleles have the opposite
    effect) and with no weight below 0: a factor that binds better is taken to open chromatin or to do nothing, which
    spares the model from explaining noise by a thousand correlated motifs with opposite signs.

    Parameters
    ----------
    effects
        Of the measured variants.
    raised
        Whether the alternative allele is higher.
    penalty
        Half of it times the squared weights (of motifs scaled to root mean square 1) is added to the mean loss.

    Returns
    -------
    dict
        Motif → weight of its `d_occupancy`, for `MotifEffects.summarize`; its sum is the log odds.

    Raises
    ------
    SchemaError
        When labels and variants differ in number, or all labels are the same.
    """
    if np.shape(raised) != (len(effects.variants),) or np.all(raised) or not np.any(raised):
        raise SchemaError(f"{len(effects.variants):,} variants need as many labels of both kinds; got "
                          f"{np.shape(raised)}, {int(np.sum(raised)):,} of them raised")
    X = np.nan_to_num(effects.d_occupancy).astype(np.float64)
    scale = np.sqrt((X**2).mean(axis=0)) + 1e-3  # motifs that hardly move stay small
    X, sign = X / scale, np.where(raised, 1.0, -1.0)

    def loss(w: ndarray) -> tuple[float, ndarray]:
        margin = sign * (X @ w)
        gradient = -X.T @ (sign * expit(-margin)) / len(X) + penalty * w
        return float(np.logaddexp(0, -margin).mean() + penalty / 2 * w @ w), gradient

    found = minimize(loss, np.zeros(X.shape[1]), jac=True, method="L-BFGS-B", bounds=[(0, None)] * X.shape[1])
    return dict(zip(effects.motifs, (found.x / scale).tolist(), strict=True))


def _keys(variants: pd.DataFrame, track: ndarray) -> pd.DataFrame:
    name = variants["name"].to_numpy() if "name" in variants else np.full(len(variants), ".", dtype=object)
    columns = {c: variants[c].to_numpy() for c in ("chrom", "pos", "ref", "alt")}
    keys = columns | {"name": name, "track": track, "gene_id": "."}
    return pd.DataFrame(keys, columns=pd.Index(EFFECT_COLUMNS))


def _alleles(genome: Reference, variants: pd.DataFrame, flank: int
             ) -> tuple[ndarray, ndarray, ndarray, ndarray, ndarray]:
    """Alleles with `flank` bases on either side, end to end, each once: where it begins, its length without flanks.

    Then the numbers of the reference and of the alternative allele of each variant.
    """
    number: dict[tuple[str, int, int, str], int] = {}
    parts: list[ndarray] = []
    index, wrong = np.zeros((2, len(variants)), np.int64), []
    for row, (chrom, pos, *alleles) in enumerate(zip(*(variants[c] for c in ("chrom", "pos", "ref", "alt")),
                                                     strict=True)):
        n = len(alleles[0])
        if (chrom, pos, n, alleles[0]) not in number:
            number[chrom, pos, n, alleles[0]] = len(parts)
            parts.append(genome.fetch(chrom, pos - flank, pos + n + flank))
            if not np.array_equal(parts[-1][flank:flank + n], encode(alleles[0])):
                wrong.append((row, decode(parts[-1][flank:flank + n])))
        index[0, row] = number[chrom, pos, n, alleles[0]]
        if (chrom, pos, n, alleles[1]) not in number:
            number[chrom, pos, n, alleles[1]] = len(parts)
            context = parts[index[0, row]]
            parts.append(np.concatenate([context[:flank], encode(alleles[1]), context[flank + n:]]))
        index[1, row] = number[chrom, pos, n, alleles[1]]
    if wrong:
        row, here = wrong[0]
        first = variants.iloc[row]
        raise SchemaError(f"{len(wrong):,} reference alleles of {len(variants):,} variants are not what the genome "
                          f"has; first: {first['chrom']}:{first['pos']} {first['ref']}>{first['alt']}, where the "
                          f"genome has {here}; is it the right build, and is pos 0-based?")
    length = np.array([len(part) for part in parts], dtype=np.int64)
    flat = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    return flat, np.cumsum(length) - length, length - 2 * flank, index[0], index[1]


def _starts(width: int, k: int) -> ndarray:
    """Where the pieces of `k` columns begin; the last one ends with the motif."""
    return np.array([min(first, width - k) for first in range(0, width, k)])


def _tables(scores: ndarray, k: int) -> ndarray:
    """Scores of all words on each piece of a motif; columns shared with the piece before count there."""
    tables = []
    for first, start in zip(range(0, scores.shape[1], k), _starts(scores.shape[1], k), strict=True):
        table = np.zeros(1)
        for j in range(start, start + k):
            table = (table[:, None] + (scores[:, j] if j >= first else 0 * scores[:, j])).ravel()
        tables.append(np.append(table, -np.inf))
    return np.stack(tables).astype(np.float32)


def _mean_occupancy(scores: ndarray, share: ndarray, threshold: float, slope: float) -> float:
    """Expected occupancy of one window of random bases."""
    _, tail = score_tail(scores, share)
    low, high = scores.min(axis=0).sum(), scores.max(axis=0).sum()
    score = low + np.arange(len(tail)) * (high - low) / N_BINS
    return float(((tail - np.append(tail[1:], 0)) * expit(slope * (score - threshold))).sum())


@numba.njit(cache=True, nogil=True)
@no_type_check  # pytest's shape checks cannot wrap compiled functions
def _compiled(words, tables, pieces, start, n_windows, threshold, slope):  # pragma: no cover - compiled
    """Best score and summed occupancy over the windows of each allele, both strands."""
    best, bound = np.empty(len(start), np.float32), np.empty(len(start), np.float32)
    for a in range(len(start)):
        most, total = np.float32(-np.inf), np.float32(0)
        for at in range(start[a], start[a] + n_windows[a]):
            for strand in range(2):
                s = np.float32(0)
                for b in range(len(pieces)):
                    s += tables[strand, b, words[at + pieces[b]]]
                most = max(most, s)
                x = slope * (threshold - s)
                if x < _NOTHING:
                    total += np.float32(1) / (np.float32(1) + np.exp(x))
        best[a], bound[a] = most, total
    return best, bound
