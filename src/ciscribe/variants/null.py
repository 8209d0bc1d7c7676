"""Is a score more than chance: the same alleles in shuffled sequence, and other variants like the scored ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int, UInt8
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.errors import SchemaError, nearest
from ciscribe.oracle import Oracle
from ciscribe.schema import EFFECT_COLUMNS, check_effects
from ciscribe.sequence import N, Reference, decode, dinucleotide_shuffle, encode
from ciscribe.variants.alleles import centered_start, check_reference, fetch_windows
from ciscribe.variants.score import score_variants

_SEQUENCES = 1024  # shuffled sequences that are held at once
_DRAWN = 1 << 14  # positions of the genome that are looked at at once
_ROUNDS = 50
_DISTANCES = (1_000, 5_000, 10_000, 50_000, 100_000)  # bp; borders of the classes of distance to a TSS

CARD = Card(
    name="variant_null", kind="variants",
    summary="Compares the score of a variant with the same alleles in shuffled sequence, and with random variants of "
            "the same alleles, GC content and distance to a TSS.",
    paper="shuffled contexts: kundajelab/variant-scorer; matched controls as in Avsec et al., Nat Methods 2021, "
          "doi:10.1038/s41592-021-01252-x; add-one p-values: Phipson & Smyth 2010, doi:10.2202/1544-6115.1585",
    differences=("The alleles keep their place; the bases around them are shuffled with their dinucleotides.",
                 "Both nulls are pooled over the variants, track by track."),
)


def shuffled_null(oracle: Oracle | Sequence[Oracle], genome: Reference, variants: pd.DataFrame, *, length: int,
                  n: int = 10, seed: int | None = 0, **options: Any) -> pd.DataFrame:
    """Scores of the same alleles where nothing but chance stands around them: the null of `p_values`.

    The sequence around each allele is shuffled, dinucleotides kept, and the allele put back in its place.

    Parameters
    ----------
    oracle, genome, variants, length
        See `ciscribe.variants.score.score_variants`.
    n
        Shuffles of each variant.
    seed
        Of the shuffles; None draws fresh entropy.
    **options
        Handed to `score_variants`; windows, signals, covariates and a grid do not go with shuffled sequence.

    Returns
    -------
    DataFrame
        As `score_variants` returns it (places of the genome), with a column ``shuffle`` (0 to n − 1): `n` times the
        rows.

    Raises
    ------
    SchemaError
        When a variant does not fit the genome, there are no shuffles, or an option makes no sense here.
    """
    if n < 1:
        raise SchemaError(f"a null needs at least one shuffle of each variant; got n={n}")
    odd = {"windows", "S", "covariates", "snap"} & set(options)
    if odd:
        raise SchemaError(f"shuffled sequences are made around each variant, of the sequence alone: {sorted(odd)[0]} "
                          "does not go with them")
    variants = check_reference(variants, genome).variants
    rng = np.random.default_rng(seed)
    step = max(1, _SEQUENCES // n)
    tables = []
    for lo in range(0, len(variants), step):
        some = variants.iloc[lo:lo + step]
        shuffled, moved = _shuffled(genome, some, length, n, rng)
        table = score_variants(oracle, shuffled, moved, length=length, **options)
        row = table.pop("_row").to_numpy()
        tables.append(table.assign(chrom=some["chrom"].to_numpy()[row], pos=some["pos"].to_numpy()[row]))
    if not tables:
        raise SchemaError("a null needs variants; got none")
    return pd.concat(tables, ignore_index=True)


def p_values(effects: pd.DataFrame, null: pd.DataFrame, scores: Sequence[str] | None = None) -> pd.DataFrame:
    """How often a score of this size comes by chance: two-sided p-values against `shuffled_null`.

    Parameters
    ----------
    effects, null
        Scored variants, and the scores of the null, of the same tracks. The null is pooled over variants.
    scores
        Columns; None takes all scores that both have.

    Returns
    -------
    DataFrame
        `effects` with a column ``<score>_p``: (1 + number of null scores that are at least as large in magnitude) /
        (1 + number of null scores) of the track. Never 0, and no smaller than one more than the null's size allows.

    Raises
    ------
    SchemaError
        When a track has no null, or a score is not in both tables.
    """
    return _compared(effects, null, scores, "_p", lambda above, equal, n: (1 + above + equal) / (1 + n))


def percentiles(effects: pd.DataFrame, background: pd.DataFrame, scores: Sequence[str] | None = None) -> pd.DataFrame:
    """Which share of like variants has a smaller effect: percentiles (0 to 100) against scored `matched_variants`.

    As `p_values`; adds ``<score>_percentile``, of magnitudes, ties counted half.
    """
    return _compared(effects, background, scores, "_percentile",
                     lambda above, equal, n: 100 * (n - above - equal / 2) / n)


def matched_variants(variants: pd.DataFrame, genome: Reference, n_per: int, *, seed: int | None = 0,
                     genes: pd.DataFrame | None = None, gc_width: int = 500, n_gc_classes: int = 10) -> pd.DataFrame:
    """Random variants that are like the given ones in all that has nothing to do with function.

    Each is matched in its alleles (a substitution or an insertion after one base: the same bases; a longer reference
    allele: its length and first base, with what the genome has there), in the GC content of its surroundings, and, with
    `genes`, in its distance to the nearest TSS.

    Parameters
    ----------
    variants
        Variants that fit the genome.
    genome
        Positions are drawn evenly from the contigs that hold variants, none within `gc_width` of their ends.
    n_per
        Matched variants of each; they are different positions, and none that is given.
    seed
        Of the draw.
    genes
        Table with ``chrom, tss``; classes of distance end at 1, 5, 10, 50 and 100 kb.
    gc_width
        bp around the variant whose GC content counts.
    n_gc_classes
        Classes of GC content between 0 and 1.

    Returns
    -------
    DataFrame
        ``chrom, pos, ref, alt, name, match``: `match` is the row (from 0) of the variant that it belongs to.

    Raises
    ------
    SchemaError
        When variants find no match, with their count and the first.
    """
    if n_per < 1 or gc_width < 1 or n_gc_classes < 1:
        raise SchemaError(f"matching needs n_per, gc_width and n_gc_classes of at least 1; got {n_per}, {gc_width}, "
                          f"{n_gc_classes}")
    variants = check_reference(variants, genome).variants
    rng = np.random.default_rng(seed)
    sizes = genome.chrom_sizes
    contigs = [name for name in variants["chrom"].unique() if sizes[name] > 2 * gc_width]
    if not contigs:
        raise SchemaError(f"no contig with variants is longer than twice the {gc_width} bp around a variant; lower "
                          "gc_width")
    chrom, pos = variants["chrom"].to_numpy(dtype=object), variants["pos"].to_numpy(np.int64)
    known = {name: np.sort(pos[chrom == name]) for name in contigs}
    tss = None if genes is None else {str(name): np.sort(part.to_numpy(np.int64)) for name, part in
                                      genes.groupby("chrom")["tss"]}
    strata = _strata(genome, chrom, pos, tss, gc_width, n_gc_classes)
    wanted = dict(pd.Series(strata).groupby(strata).indices)
    missing = {stratum: n_per * len(rows) for stratum, rows in wanted.items()}
    found: dict[Any, list[tuple[str, int]]] = {stratum: [] for stratum in wanted}
    seen: set[tuple[str, int]] = set()
    share = np.array([sizes[name] for name in contigs], dtype=float)
    for _ in range(_ROUNDS):
        which = rng.choice(len(contigs), _DRAWN, p=share / share.sum())
        low, high = gc_width, np.array([sizes[name] for name in contigs])[which] - gc_width
        at = rng.integers(low, high)
        names = np.asarray(contigs, dtype=object)[which]
        for stratum, name, p in zip(_strata(genome, names, at, tss, gc_width, n_gc_classes), names, at.tolist(),
                                    strict=True):
            i = int(np.searchsorted(known[name], p))
            given = i < len(known[name]) and known[name][i] == p
            if missing.get(stratum, 0) and not given and (name, p) not in seen:
                seen.add((name, p))
                found[stratum].append((name, p))
                missing[stratum] -= 1
        if not any(missing.values()):
            break
    short = [stratum for stratum, n in missing.items() if n]
    if short:
        n_short = sum(len(wanted[stratum]) for stratum in short)
        chrom_, pos_, ref_, alt_ = variants[["chrom", "pos", "ref", "alt"]].iloc[min(wanted[s][0] for s in short)]
        raise SchemaError(f"{n_short:,} of {len(variants):,} variants find fewer than {n_per} like them; first: "
                          f"{chrom_}:{pos_} {ref_}>{alt_}; ask for fewer (n_per) or for wider classes of GC "
                          "(n_gc_classes), or leave out rare surroundings")
    places = [(int(row), name, p) for stratum, several in wanted.items() for (name, p), row in
              zip(found[stratum], np.repeat(several, n_per), strict=True)]
    ref, alt = variants["ref"].tolist(), variants["alt"].tolist()
    rows = [(name, p, *_alleles(genome, name, p, ref[row], alt[row]), ".", row) for row, name, p in sorted(places)]
    return pd.DataFrame(rows, columns=pd.Index(["chrom", "pos", "ref", "alt", "name", "match"]))


class _Sequences:
    """Sequences in memory that are asked like a genome: contig ``"17"`` is row 17."""

    def __init__(self, codes: list[UInt8[ndarray, " L"]]):
        self.codes = codes

    @property
    def chrom_sizes(self) -> dict[str, int]:
        return {str(i): len(codes) for i, codes in enumerate(self.codes)}

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[ndarray, " L"]:
        codes = self.codes[int(chrom)]
        out = np.full(end - start, N, np.uint8)
        part = codes[max(start, 0):max(end, 0)]
        out[max(-start, 0):max(-start, 0) + len(part)] = part
        return out


def _shuffled(genome: Reference, variants: pd.DataFrame, length: int, n: int, rng: np.random.Generator
              ) -> tuple[_Sequences, pd.DataFrame]:
    """Shuffled sequences with the reference alleles, as wide as refilled windows need, and the variants there."""
    sequences, pos, order = [], [], []
    n_ref, n_alt = (variants[c].str.len().to_numpy(np.int64) for c in ("ref", "alt"))
    start = centered_start(variants["pos"].to_numpy(np.int64), n_ref, length)
    for row, (chrom, at, ref) in enumerate(variants[["chrom", "pos", "ref"]].itertuples(index=False)):
        reach = int(abs(n_alt[row] - n_ref[row]))
        low, high = min(int(start[row]), at) - reach, max(int(start[row]) + length, at + len(ref)) + reach
        around = genome.fetch(chrom, low, high)
        for codes in dinucleotide_shuffle(around, n, seed=int(rng.integers(2**63))):
            codes[at - low:at - low + len(ref)] = encode(ref)
            sequences.append(codes)
            pos.append(at - low)
            order.append(row)
    row = np.array(order, dtype=np.int64)
    table = variants.iloc[row].reset_index(drop=True)
    return _Sequences(sequences), table.assign(chrom=[str(i) for i in range(len(row))], pos=np.array(pos, np.int64),
                                               shuffle=np.arange(len(row)) % n, _row=row)


def _strata(genome: Reference, chrom: ndarray, pos: Int[ndarray, " n"], tss: dict[str, ndarray] | None,
            gc_width: int, n_classes: int) -> ndarray:
    """A number for what is matched: the base, the class of GC content, the class of distance to a TSS."""
    around = fetch_windows(genome, chrom, pos - gc_width // 2, gc_width)
    is_base = around < N
    gc = ((around == 1) | (around == 2)).sum(axis=1) / np.maximum(is_base.sum(axis=1), 1)
    gc_class = np.minimum((gc * n_classes).astype(np.int64), n_classes - 1)
    distance = np.zeros(len(pos), np.int64)
    if tss is not None:
        distance[:] = len(_DISTANCES)
        for name in np.unique(chrom.astype(str)):
            here, at = np.flatnonzero(chrom == name), tss.get(name, np.zeros(0, np.int64))
            if len(at):
                i = np.searchsorted(at, pos[here])
                nearest_one = np.minimum(np.abs(at[np.minimum(i, len(at) - 1)] - pos[here]),
                                         np.abs(at[np.maximum(i - 1, 0)] - pos[here]))
                distance[here] = np.searchsorted(_DISTANCES, nearest_one, side="right")
    return (around[:, gc_width // 2].astype(np.int64) * n_classes + gc_class) * (len(_DISTANCES) + 1) + distance


def _alleles(genome: Reference, chrom: str, pos: int, ref: str, alt: str) -> tuple[str, str]:
    """Alleles at a matched position, which has the first base of `ref`."""
    if len(ref) == 1:
        return ref, alt
    there = decode(genome.fetch(chrom, pos, pos + len(ref)))
    if there != alt:
        return there, alt
    return there, "ACGT"[("ACGT".find(there[0]) + 1) % 4] + alt[1:]  # the change must be one


def _compared(effects: pd.DataFrame, null: pd.DataFrame, scores: Sequence[str] | None, suffix: str, formula: Any
              ) -> pd.DataFrame:
    """A column for each score that says how many null scores of its track are larger or as large in magnitude."""
    check_effects(effects)
    if scores is None:
        skip = {*EFFECT_COLUMNS, "shuffle", "match", "flipped"}
        scores = [c for c in effects if c in null and c not in skip and pd.api.types.is_float_dtype(effects[c])
                  and not c.endswith(("_sd", "_p", "_percentile"))]
    for name in scores:
        for table, what in ((effects, "effects"), (null, "the null")):
            if name not in table:
                raise SchemaError(f"{what} have no score {name!r}; {nearest(name, table.columns)}")
    if not scores:
        raise SchemaError("effects and their null share no score; score both with the same scorers")
    lost = sorted(set(effects["track"]) - set(null["track"]), key=str)
    if lost:
        raise SchemaError(f"{len(lost):,} tracks have no null; first: {lost[0]!r}; score both with the same readout")
    groups = null.groupby("track").indices
    made = {f"{name}{suffix}": np.full(len(effects), np.nan) for name in scores}
    for track, rows in effects.groupby("track").indices.items():
        for name in scores:
            chance = np.sort(np.abs(null[name].to_numpy(float)[groups[track]]))
            chance = chance[np.isfinite(chance)]
            size = np.abs(effects[name].to_numpy(float)[rows])
            above = len(chance) - np.searchsorted(chance, size, side="right")
            equal = np.searchsorted(chance, size, side="right") - np.searchsorted(chance, size, side="left")
            made[f"{name}{suffix}"][rows] = np.where(np.isfinite(size), formula(above, equal, len(chance)), np.nan)
    return effects.assign(**made)
