"""Personal genomes: what a model makes of whole haplotypes, and whether it knows which way a variant pushes.

`predict_people` writes both sequences of every person around every gene and asks the model for each distinct one once.
Models that rank genes well need not rank people: `across_people` correlates person by person, beside `ridge_people`,
which learns from the same people and no sequence; `sign_test` counts how often a variant's predicted direction is the
measured one. `epistasis` says what variants do together beyond the sum of each alone.

Everywhere, effects are alternative minus reference: positive where the alternative allele raises the output.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray
from rich.progress import track
from scipy.stats import binomtest
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ciscribe.card import Card
from ciscribe.data.windows import gene_windows
from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle
from ciscribe.perturb.reading import tabulate
from ciscribe.schema import check_genes, check_variants
from ciscribe.sequence import Reference, reverse_complement_codes
from ciscribe.train.metrics import pearson, spearman
from ciscribe.variants.alleles import haplotype_window

CARDS = {
    "personal_genomes": Card(
        name="personal_genomes", kind="variants",
        summary="Predicts the expression of every person from both of their sequences around a gene.",
        paper="Sasse et al. 2023, Nat Genet 55:2060, doi:10.1038/s41588-023-01524-6; Huang et al. 2023, Nat Genet "
              "55:2056, doi:10.1038/s41588-023-01574-w",
        differences=("Insertions and deletions are written too; the TSS keeps its place in the window.",
                     "Haplotypes that are the same in a window are predicted once."),
        n_policy="off the chromosome is N"),
    "sign_test": Card(
        name="sign_test", kind="variants",
        summary="Counts how often the predicted direction of a variant's effect is the measured one.",
        paper="as in Sasse et al. 2023, doi:10.1038/s41588-023-01524-6; interval: Clopper & Pearson 1934, Biometrika "
              "26:404",
        differences=("A prediction of exactly 0 counts as wrong.",), n_policy="bases are not looked at"),
    "ridge_people": Card(
        name="ridge_people", kind="baseline",
        summary="Predicts a person's expression from the alleles near the gene, learned from other people.",
        paper="after PrediXcan: Gamazon et al. 2015, Nat Genet 47:1091, doi:10.1038/ng.3367",
        code="written by us on scikit-learn/scikit-learn",
        differences=("Ridge regression instead of elastic net.", "Every person is predicted from the others' folds."),
        n_policy="bases are not looked at"),
    "epistasis": Card(
        name="epistasis", kind="variants",
        summary="Asks what several variants do together beyond the sum of what each does alone.",
        paper="own", n_policy="off the chromosome is N"),
}

_ALPHAS = tuple(10.0 ** np.arange(-1, 5, 0.5))


class PersonalPredictions(NamedTuple):
    """Predictions for people.

    Parameters
    ----------
    values
        float32 ``(G, P, T)``: mean over the person's two haplotypes.
    n_sequences
        int64 ``(G,)``: distinct sequences that the model was asked for; 1 where nobody differs.
    """

    values: Float[ndarray, "G P T"]
    n_sequences: Shaped[ndarray, " G"]


class SignTest(NamedTuple):
    """How many directions are right: `share` = `right` / `n`, its 95 % interval, and p against guessing (one-sided)."""

    n: int
    right: int
    share: float
    low: float
    high: float
    p_value: float


class Epistasis(NamedTuple):
    """What variants do together and alone, alternative minus reference.

    Parameters
    ----------
    joint
        float64 ``(T,)``: f(all) − f(reference).
    single
        ``(V, T)``: f(one) − f(reference).
    gap
        ``(T,)``: joint − Σ single, 0 where variants add up.
    pairs
        One row a pair and track: ``variant_a, variant_b`` (rows of the table), ``track``, ``effect_a, effect_b,
        effect`` (both) and ``epistasis`` = effect − effect_a − effect_b.
    """

    joint: Float[ndarray, " T"]
    single: Float[ndarray, "V T"]
    gap: Float[ndarray, " T"]
    pairs: pd.DataFrame


def predict_people(oracle: Oracle, genome: Reference, variants: pd.DataFrame, alleles: Shaped[ndarray, "V P two"],
                   genes: pd.DataFrame, half_width: int, S: Tensor | None = None, covariates: Tensor | None = None, *,
                   strand_aware: bool = True, batch_size: int = 64, progress: bool = False) -> PersonalPredictions:
    """Predict every gene for every person from both of their haplotypes.

    Parameters
    ----------
    oracle
        A model of windows around genes.
    genome
        The reference.
    variants
        Variants table with the alleles of the genome.
    alleles
        Phased, ``(V, P, 2)``: 1 or True where the haplotype carries the alternative, as
        `ciscribe.io.haplotypes.read_haplotypes` gives them; ``alleles > 0`` takes missing ones as the reference.
    genes
        Genes table.
    half_width
        Windows reach this far to either side of the TSS, in bp; as in training.
    S, covariates
        Signals ``(G, S, bins)`` and features ``(G, C)`` of the genes, the same for all people.
    strand_aware
        Windows of genes on the minus strand are reversed, as `ciscribe.data.windows` does for training.
    batch_size, progress
        Sequences a forward pass; show a bar.

    Returns
    -------
    PersonalPredictions
        The TSS stays at `half_width` in every window; insertions push bases out at the ends, deletions draw them in.

    Raises
    ------
    SchemaError
        When alleles are not 0 and 1 (say, missing), do not fit the variants, collide on a haplotype, or have another
        reference than the genome.
    """
    check_genes(genes)
    check_variants(variants)
    carried = _carried(alleles, len(variants))
    for name, given in (("S", S), ("covariates", covariates)):
        if given is not None and len(given) != len(genes):
            raise SchemaError(f"{name} has one row a gene ({len(genes)}); got {len(given)}")
    n_people = carried.shape[1]
    windows = gene_windows(genes, half_width, strand_aware)
    out, n_sequences = [], np.zeros(len(genes), dtype=np.int64)
    steps = range(len(genes))
    for g in track(steps, description="people") if progress else steps:
        start, tss = int(windows["start"].iloc[g]), int(genes["tss"].iloc[g])
        chrom = str(genes["chrom"].iloc[g])
        near = _near(variants, chrom, start, start + 2 * half_width)
        kinds, which = np.unique(carried[near].reshape(len(near), 2 * n_people), axis=1, return_inverse=True)
        codes = np.stack([haplotype_window(genome, variants.iloc[near[kind]], chrom, start, start + 2 * half_width,
                                           center=tss).codes for kind in kinds.T])
        if strand_aware and genes["strand"].iloc[g] == "-":
            codes = reverse_complement_codes(codes)
        y = _ask(oracle, codes, None if S is None else S[g:g + 1], None if covariates is None else covariates[g:g + 1],
                 batch_size)
        n_sequences[g] = len(codes)
        out.append(y[which.ravel()].reshape(n_people, 2, -1).mean(axis=1))
    values = np.stack(out) if out else np.zeros((0, n_people, 0))
    return PersonalPredictions(values.astype(np.float32), n_sequences)


def across_people(observed: Shaped[ndarray, "G P"], predicted: Shaped[ndarray, "genes people"]) -> pd.DataFrame:
    """Correlation of each gene across people: ``pearson, spearman``; NaN where either side does not vary.

    Raises
    ------
    SchemaError
        When shapes differ.
    """
    observed, predicted = np.asarray(observed, float), np.asarray(predicted, float)
    if observed.shape != predicted.shape:
        raise SchemaError("observed and predicted are both (genes, people); got "
                          f"{observed.shape} and {predicted.shape}")
    pairs = list(zip(observed, predicted, strict=True))
    return pd.DataFrame({"pearson": [pearson(o, p) for o, p in pairs], "spearman": [spearman(o, p) for o, p in pairs]})


def ridge_people(variants: pd.DataFrame, alleles: Shaped[ndarray, "V P two"], genes: pd.DataFrame,
                 expression: Shaped[ndarray, "G people"], reach: int, *, n_folds: int = 5, seed: int = 0
                 ) -> Float[ndarray, "G P"]:
    """Predict people from other people: the yardstick of personal prediction, which learns each gene anew.

    Parameters
    ----------
    variants, alleles, genes
        As in `predict_people`.
    expression
        Measured, a row a gene in the order of `genes`.
    reach
        Variants within this many bp of the TSS are used.
    n_folds, seed
        Folds of people; each is predicted from the others, the penalty chosen within those.

    Returns
    -------
    ndarray
        NaN for genes without a variant in reach.

    Raises
    ------
    SchemaError
        When shapes do not fit, or there are fewer people than two a fold.

    References
    ----------
    Gamazon et al. 2015, Nat Genet 47:1091, doi:10.1038/ng.3367 (PrediXcan). Differences: see `CARDS`.
    """
    dosage = _carried(alleles, len(variants)).sum(axis=2)
    y = np.asarray(expression, dtype=float)
    n_people = dosage.shape[1]
    if y.shape != (len(genes), n_people) or n_people < 2 * n_folds:
        raise SchemaError(f"expression is (genes, people) = ({len(genes)}, {n_people}) with two or more people for "
                          f"each of {n_folds} folds; got {y.shape}")
    out = np.full(y.shape, np.nan)
    folds = list(KFold(n_folds, shuffle=True, random_state=seed).split(dosage.T))
    chrom, pos = variants["chrom"].to_numpy(), variants["pos"].to_numpy()
    for g, (name, tss) in enumerate(zip(genes["chrom"], genes["tss"], strict=True)):
        X = dosage[(chrom == name) & (np.abs(pos - tss) <= reach)].T
        if not X.shape[1]:
            continue
        for rest, held in folds:
            model = make_pipeline(StandardScaler(), RidgeCV(alphas=_ALPHAS)).fit(X[rest], y[g, rest])
            out[g, held] = model.predict(X[held])
    return out


def sign_test(measured: Shaped[ndarray, " n"], predicted: Shaped[ndarray, " scores"]) -> SignTest:
    """How often the direction of variants' effects is predicted right.

    Parameters
    ----------
    measured
        Effects of variants (true ones, or slopes of the lead variants of eQTL); those that are 0 have no direction
        and are left out.
    predicted
        Scores, with the same allele counted. A score of exactly 0 is wrong.

    Raises
    ------
    SchemaError
        When lengths differ, numbers are missing, or no effect has a direction.

    Examples
    --------
    >>> sign_test(np.array([0.3, -0.1, 0.0]), np.array([2.0, -5.0, 1.0]))[:3]
    (2, 2, 1.0)
    """
    measured, predicted = np.asarray(measured, float), np.asarray(predicted, float)
    if measured.shape != predicted.shape or not (np.isfinite(measured).all() and np.isfinite(predicted).all()):
        raise SchemaError("a sign test takes as many finite effects as scores; got "
                          f"{len(measured)} and {len(predicted)}, "
                          f"{int((~np.isfinite(measured)).sum())} and {int((~np.isfinite(predicted)).sum())} missing")
    directed = measured != 0
    n = int(directed.sum())
    if not n:
        raise SchemaError(f"none of {len(measured)} effects has a direction: all are 0")
    right = int((np.sign(measured) == np.sign(predicted))[directed].sum())
    test = binomtest(right, n, alternative="greater")
    low, high = binomtest(right, n).proportion_ci(0.95)
    return SignTest(n, right, right / n, float(low), float(high), float(test.pvalue))


def epistasis(oracle: Oracle, genome: Reference, variants: pd.DataFrame, length: int, S: Tensor | None = None,
              covariates: Tensor | None = None, *, center: int | None = None, reverse: bool = False,
              batch_size: int = 64) -> Epistasis:
    """What variants of one haplotype do together beyond the sum of each alone, all at once and pair by pair.

    Parameters
    ----------
    oracle, genome
        The model and the reference.
    variants
        Two or more, of one chromosome, that do not overlap.
    length
        Of the window in bp.
    S, covariates
        Further inputs of the one window, ``(1, …)``.
    center
        Position that stays at ``length // 2``, such as the TSS; the middle of the variants by default.
    reverse
        Ask for the other strand (genes on the minus strand, where the model knows strands).
    batch_size
        Sequences a forward pass.

    Raises
    ------
    SchemaError
        When there are fewer than two variants, several chromosomes, or one that is not in the window.

    Notes
    -----
    Costs V (V + 1) / 2 + 2 predictions.
    """
    check_variants(variants)
    first, last = variants["pos"], variants["pos"] + variants["ref"].str.len()
    chroms = sorted(set(variants["chrom"]))
    if len(variants) < 2 or len(chroms) != 1:
        raise SchemaError("epistasis is of two or more variants of one chromosome; got "
                          f"{len(variants)} of {', '.join(chroms) or 'none'}")
    center = int(first.min() + last.max()) // 2 if center is None else center
    start = center - (length - 1 - length // 2 if reverse else length // 2)
    outside = ((first < start) | (last > start + length)).to_numpy()
    if outside.any():
        row = variants.iloc[int(outside.argmax())]
        raise SchemaError(f"{int(outside.sum())} of {len(variants)} variants are not in the window "
                          f"{row['chrom']}:{start}-{start + length}; first: {row['chrom']}:{row['pos']} "
                          f"{row['ref']}>{row['alt']}; widen it, or leave them out")
    n = len(variants)
    pairs = list(combinations(range(n), 2))
    asked = [(), *((i,) for i in range(n)), *pairs, *([tuple(range(n))] if n > 2 else [])]
    codes = np.stack([haplotype_window(genome, variants.iloc[list(some)], chroms[0], start, start + length,
                                       center=center).codes for some in asked])
    y = _ask(oracle, reverse_complement_codes(codes) if reverse else codes, S, covariates, batch_size)
    effect = y - y[0]
    single, both, joint = effect[1:n + 1], effect[n + 1:n + 1 + len(pairs)], effect[-1]
    a, b = np.array(pairs).T
    table = tabulate({"variant_a": a, "variant_b": b}, effect_a=single[a], effect_b=single[b], effect=both,
                     epistasis=both - single[a] - single[b])
    return Epistasis(joint, single, joint - single.sum(axis=0), table)


def _carried(alleles: Shaped[ndarray, "V P two"], n_variants: int) -> Bool[ndarray, "V P 2"]:
    alleles = np.asarray(alleles)
    if alleles.ndim != 3 or alleles.shape[0] != n_variants or alleles.shape[2] != 2:
        raise SchemaError(f"alleles are (variants, people, 2), with {n_variants} variants; got {alleles.shape}")
    wrong = (alleles != 0) & (alleles != 1)
    if wrong.any():
        v, person, _ = (int(i) for i in np.argwhere(wrong)[0])
        raise SchemaError(f"{int(wrong.sum()):,} of {alleles.size:,} alleles are neither 0 nor 1; first: "
                          f"{alleles[v, person].tolist()} of person #{person}, variant #{v}; give alleles > 0 to take "
                          "missing genotypes (-1) as the reference, and one row to each alternative")
    return alleles.astype(bool)


def _near(variants: pd.DataFrame, chrom: str, start: int, end: int) -> Shaped[ndarray, " n"]:
    """Rows that can matter to a window; deletions draw in what stands beside it."""
    first, width = variants["pos"].to_numpy(), variants["ref"].str.len().to_numpy(dtype=np.int64)
    lost = np.maximum(width - variants["alt"].str.len().to_numpy(dtype=np.int64), 0)
    here = (variants["chrom"] == chrom).to_numpy()
    reach = 0
    while True:
        near = np.flatnonzero(here & (first < end + reach) & (first + width > start - reach))
        if lost[near].sum() <= reach:
            return near
        reach = int(lost[near].sum())


def _ask(oracle: Oracle, codes: UInt8[ndarray, "n L"], S: Tensor | None, covariates: Tensor | None, batch_size: int
         ) -> Float[ndarray, "n T"]:
    """Predictions of sequences that share their other inputs, float64."""
    extras: Sequence[Tensor | None] = [None if x is None else x.expand(len(codes), *x.shape[1:])
                                       for x in (S, covariates)]
    return oracle.predict(torch.from_numpy(codes), *extras, batch_size=batch_size).numpy().astype(np.float64)
