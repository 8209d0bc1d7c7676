"""How good scores of variants are, held against measured effects: saturation mutagenesis, and which allele is higher.

Scores come as columns beside what was measured, so that any method can be compared with any other on the same variants.
What counts as one observation is what is independent: a locus, not one of its two thousand bases; a group of variants
that share a window, not each of them.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Shaped
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.train.labels import auprc, auroc
from ciscribe.train.metrics import interval, pearson, spearman

CARDS = {
    "saturation": Card(
        name="saturation-mutagenesis", kind="benchmark",
        summary="Compares scores of all single-base changes of regulatory elements with what each did to a reporter.",
        paper="Kircher et al., Nature Communications 2019, doi:10.1038/s41467-019-11526-w",
        differences=("Single-base changes with at least 10 barcodes.",
                     "Experiments on one element count together as one locus in the mean over loci, whose interval is "
                     "bootstrapped over loci.",
                     "Experiments with few significant changes stand apart: they measure noise.")),
    "signs": Card(
        name="allele-signs", kind="benchmark",
        summary="Asks which of two alleles is more open or better bound.",
        paper="Degner et al., Nature 2012, doi:10.1038/nature10808 (DNase I QTL); Lee et al., Nature Genetics 2015, "
              "doi:10.1038/ng.3331 (scored by deltaSVM)",
        differences=("Area under the ROC of the signed score; intervals, also of the difference between methods, are "
                     "bootstrapped over groups of variants that share sequence.",)),
}
SIGNIFICANT = 1e-5
MEASURED = ("experiment", "ref", "alt", "barcodes", "coefficient", "p_value")


class SaturationBenchmark(NamedTuple):
    """Scores of methods on saturation mutagenesis.

    Parameters
    ----------
    experiments
        One row a method × experiment: ``method, experiment, locus, n, n_significant, weak, spearman, pearson`` (score
        against coefficient), ``auprc`` (of significant changes by the absolute score), ``prevalence`` (what a random
        score reaches).
    summary
        One row a method: ``spearman`` and ``pearson``, mean over all experiments; ``spearman_loci``, mean over loci of
        the mean of their experiments, with ``low, high``; ``spearman_strong``, that over loci that are not weak;
        ``auprc``, mean over experiments; ``n_experiments, n_loci``.
    """

    experiments: pd.DataFrame
    summary: pd.DataFrame


def locus_of(experiment: str) -> str:
    """Locus of an experiment named as in Kircher et al.: what stands before the first ``.`` or ``-``."""
    return experiment.replace(".", "-").split("-")[0]


def saturation_benchmark(measured: pd.DataFrame, scores: Mapping[str, Shaped[ndarray, " V"]], *,
                         min_barcodes: int = 10, min_significant: int = 100,
                         locus: Callable[[str], str] = locus_of, n_bootstrap: int = 1000, seed: int = 0
                         ) -> SaturationBenchmark:
    """Hold scores of variants against what saturation mutagenesis measured, an experiment at a time.

    Parameters
    ----------
    measured
        One row a variant: ``experiment, ref, alt, barcodes, coefficient`` (log2, alternative minus reference),
        ``p_value``, as `ciscribe.io.variant_assays.read_saturation_mutagenesis` gives. Insertions and deletions are
        left out.
    scores
        Method → score of each row, alternative minus reference. Rows without a score (NaN) are left out for all
        methods.
    min_barcodes
        Fewer is noise.
    min_significant
        Experiments with fewer changes of p < 1e-5 are weak.
    locus
        Experiment → locus.
    n_bootstrap, seed
        Of the interval of the mean over loci.

    Raises
    ------
    SchemaError
        When columns or scores are missing or of another length, a coefficient is not finite, or no variant is left.

    References
    ----------
    Kircher et al. 2019, doi:10.1038/s41467-019-11526-w. Differences: see `CARDS`.
    """
    _check(measured, scores)
    used = (measured["ref"].str.len() == 1) & (measured["alt"].str.len() == 1) & (measured["barcodes"] >= min_barcodes)
    used = used.to_numpy(bool)
    for values in scores.values():
        used &= ~np.isnan(np.asarray(values, float))
    if not used.any():
        raise SchemaError(f"none of {len(measured):,} variants is a scored single-base change with at least "
                          f"{min_barcodes} barcodes")
    rows = []
    for experiment in dict.fromkeys(measured["experiment"]):
        at = np.flatnonzero(used & (measured["experiment"] == experiment).to_numpy())
        truth = measured["coefficient"].to_numpy(float)[at]
        significant = measured["p_value"].to_numpy(float)[at] < SIGNIFICANT
        for method, values in scores.items():
            score = np.asarray(values, float)[at]
            rows.append({"method": method, "experiment": experiment, "locus": locus(str(experiment)), "n": len(at),
                         "n_significant": int(significant.sum()), "weak": bool(significant.sum() < min_significant),
                         "spearman": spearman(score, truth), "pearson": pearson(score, truth),
                         "auprc": auprc(significant, np.abs(score)),
                         "prevalence": float(significant.mean()) if len(at) else np.nan})
    table = pd.DataFrame(rows)
    loci = sorted(set(table["locus"]))
    drawn = np.random.default_rng(seed).integers(0, len(loci), (n_bootstrap, len(loci)))
    summary = []
    for method, part in table.groupby("method", sort=False):
        mean = part.groupby("locus")["spearman"].mean().loc[loci].to_numpy(float)
        strong = part[~part["weak"]].groupby("locus")["spearman"].mean()
        limits = interval(float(np.nanmean(mean)), mean[drawn].mean(axis=1))
        summary.append({"method": method, "spearman": part["spearman"].mean(), "pearson": part["pearson"].mean(),
                        "spearman_loci": limits["value"], "low": limits["low"], "high": limits["high"],
                        "spearman_strong": strong.mean(), "auprc": part["auprc"].mean(), "n_experiments": len(part),
                        "n_loci": len(loci)})
    return SaturationBenchmark(table, pd.DataFrame(summary))


def replicate_ceilings(measured: pd.DataFrame, *, min_barcodes: int = 10, locus: Callable[[str], str] = locus_of
                       ) -> pd.DataFrame:
    """How well two experiments on one locus agree: what no score can be expected to exceed by much.

    Returns
    -------
    DataFrame
        One row a pair of experiments that share a locus: ``locus, first, second, n, spearman, pearson``, over
        single-base changes with enough barcodes in both. `measured` needs ``genome_chrom, genome_pos``, too.
    """
    _check(measured, {}, (*MEASURED, "genome_chrom", "genome_pos"))
    kept = measured.loc[(measured["ref"].str.len() == 1) & (measured["alt"].str.len() == 1)
                        & (measured["barcodes"] >= min_barcodes)]
    rows = []
    for a, b in combinations(dict.fromkeys(kept["experiment"]), 2):
        if locus(str(a)) != locus(str(b)):
            continue
        both = kept.loc[kept["experiment"] == a].merge(kept.loc[kept["experiment"] == b],
                                                       on=["genome_chrom", "genome_pos", "ref", "alt"])
        x, y = both["coefficient_x"].to_numpy(float), both["coefficient_y"].to_numpy(float)
        rows.append((locus(str(a)), a, b, len(both), spearman(x, y), pearson(x, y)))
    return pd.DataFrame(rows, columns=pd.Index(["locus", "first", "second", "n", "spearman", "pearson"]))


def sign_benchmark(raised: Bool[ndarray, " V"], scores: Mapping[str, Shaped[ndarray, " S"]], *,
                   groups: Shaped[ndarray, " G"] | None = None, against: str | None = None, n_bootstrap: int = 1000,
                   seed: int = 0) -> pd.DataFrame:
    """Ask whether scores tell variants whose alternative allele is higher from those whose reference allele is.

    Parameters
    ----------
    raised
        Whether the alternative allele was measured to be more open or better bound.
    scores
        Method → score of each variant, alternative minus reference.
    groups
        Variants that share sequence, such as overlapping windows, carry one label; they are resampled together. Each
        is its own unless given.
    against
        Method with which all others are compared; the first unless given.
    n_bootstrap, seed
        Of the intervals; the same resamples serve all methods, so that differences are paired.

    Returns
    -------
    DataFrame
        One row a method: ``method, n, auroc, low, high, accuracy`` (sign of the score right, 0 counting half),
        ``against, difference, difference_low, difference_high`` (AUROC minus that of `against`).

    Raises
    ------
    SchemaError
        When lengths differ, a score is not finite, or all variants have one label.
    UnknownNameError
        When `against` is no method.
    """
    raised = np.asarray(raised, bool)
    if not scores or raised.all() or not raised.any():
        raise SchemaError(f"signs are compared on variants of both kinds by at least one method; got {raised.sum():,} "
                          f"of {len(raised):,} raised and {len(scores)} methods")
    values = {name: np.asarray(score, float) for name, score in scores.items()}
    for name, score in values.items():
        if score.shape != raised.shape or not np.isfinite(score).all():
            raise SchemaError(f"method '{name}' needs {len(raised):,} finite scores; got shape {score.shape}, "
                              f"{int((~np.isfinite(score)).sum()):,} of them not finite")
    against = next(iter(values)) if against is None else against
    if against not in values:
        raise UnknownNameError(f"methods are compared against '{against}', which is none; {nearest(against, values)}")
    members = np.unique(np.arange(len(raised)) if groups is None else groups, return_inverse=True)[1]
    if members.shape != raised.shape:
        raise SchemaError(f"{len(raised):,} variants need as many groups; got {members.shape}")
    order = np.argsort(members, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(members))[:-1])
    rng = np.random.default_rng(seed)
    draws = np.full((n_bootstrap, len(values)), np.nan)
    for i in range(n_bootstrap):
        rows = np.concatenate([rows_of[g] for g in rng.integers(0, len(rows_of), len(rows_of))])
        draws[i] = [auroc(raised[rows], score[rows]) for score in values.values()]
    base, base_draws = auroc(raised, values[against]), draws[:, list(values).index(against)]
    found = []
    for j, (name, score) in enumerate(values.items()):
        own = interval(auroc(raised, score), draws[:, j])
        gain = interval(own["value"] - base, draws[:, j] - base_draws)
        right = np.where(score == 0, 0.5, (score > 0) == raised)
        found.append({"method": name, "n": len(raised), "auroc": own["value"], "low": own["low"], "high": own["high"],
                      "accuracy": float(right.mean()), "against": against, "difference": gain["value"],
                      "difference_low": gain["low"], "difference_high": gain["high"]})
    return pd.DataFrame(found)


def _check(measured: pd.DataFrame, scores: Mapping[str, ndarray], columns: tuple[str, ...] = MEASURED) -> None:
    missing = [c for c in columns if c not in measured]
    if missing:
        raise SchemaError(f"measured variants need the columns {', '.join(columns)}; missing: {', '.join(missing)}")
    bad = ~np.isfinite(measured[["coefficient", "p_value"]].to_numpy(float)).all(axis=1)
    if bad.any():
        raise SchemaError(f"{int(bad.sum()):,} of {len(measured):,} measured variants have no coefficient or p-value; "
                          f"first: row {int(bad.argmax())}")
    for name, values in scores.items():
        if np.shape(values) != (len(measured),):
            raise SchemaError(f"method '{name}' needs a score of each of {len(measured):,} variants; got shape "
                              f"{np.shape(values)}")
