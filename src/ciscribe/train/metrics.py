"""How good predictions of expression are, with intervals that say how sure we are of it.

Two questions are kept apart. Across genes: is a high gene predicted high (`pearson`, `spearman`, errors, one
figure a target)? Across targets: within one gene, is the stage or cell type with more expression predicted
to have more (`across_target_r`)? A model can do well on the first and know nothing of regulation, because
the mean level of a gene carries most of the variance. Intervals are bootstrapped over genes, the unit that is
new in the test fold. A correlation of something constant is undefined: NaN here, ``null`` in JSON.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ciscribe.errors import SchemaError

METRICS = ("mse", "mae", "pearson", "spearman")
"""Per-target metrics, in the order in which they are printed."""
_BLOCK = 128  # resamples held at a time: 3,000 genes × 128 stay in the cache


class Interval(TypedDict):
    """A figure with its 95 % bootstrap interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


class Evaluation(TypedDict):
    """What `evaluate` measures; JSON-ready."""

    per_target: dict[str, dict[str, Interval]]
    mean: dict[str, Interval]
    across_target: Interval | None


def pearson(a: Shaped[ndarray, " G"], b: Shaped[ndarray, " G"]) -> float:
    """Linear correlation, −1..1; NaN if either side is constant or there are fewer than two values.

    Examples
    --------
    >>> pearson(np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 8.0]))
    1.0
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if len(a) < 2 or _constant(a) or _constant(b):
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def spearman(a: Shaped[ndarray, " G"], b: Shaped[ndarray, " G"]) -> float:
    """Correlation of ranks (ties share their mean rank), −1..1; NaN as for `pearson`."""
    return pearson(rankdata(a), rankdata(b))


def across_target_r(observed: Float[ndarray, "G T"], predicted: Float[ndarray, "G T"]) -> float:
    """How well the prediction tells, within genes, the targets with more expression from those with less.

    Each gene's own mean over targets is subtracted from its observed and from its predicted values; the
    Pearson correlation is then taken over all ``G × T`` differences together, so that genes that vary more
    weigh more and genes that do not vary weigh nothing. What is common to all genes of a target (a stage with
    less of most mRNAs) stays in, and counts as predicted when it is.

    Returns
    -------
    float
        −1..1. NaN if there is one target only, or if no gene varies on either side.

    See Also
    --------
    across_target_r_per_gene : the mean of the genes' own correlations, in which every gene weighs the same.
    """
    o, p = _centred(observed), _centred(predicted)
    return float(_ratio((o * p).sum(), (o * o).sum(), (p * p).sum()))


def across_target_r_per_gene(observed: Float[ndarray, "G T"], predicted: Float[ndarray, "G T"]) -> float:
    """Mean over genes of the gene's own correlation across its targets.

    Genes that do not vary (observed or predicted) are left out. Genes whose variation is noise weigh as much
    as regulated ones, so the figure usually lies below `across_target_r`.

    Returns
    -------
    float
        −1..1; NaN if no gene is left.
    """
    o, p = _centred(observed), _centred(predicted)
    r = _ratio((o * p).sum(axis=1), (o * o).sum(axis=1), (p * p).sum(axis=1))
    return float(r[np.isfinite(r)].mean()) if np.isfinite(r).any() else float("nan")


def evaluate(observed: Float[ndarray, "G T"], predicted: Float[ndarray, "G T"], targets: Sequence[str], *,
             n_bootstrap: int = 1000, seed: int = 0) -> Evaluation:
    """Score predictions against observations, with 95 % intervals from resampling genes.

    Parameters
    ----------
    observed, predicted
        Rows are genes of one fold, columns are targets; the same units, e.g. log10(TPM + 1). Finite.
    targets
        Names of the columns (cell types or stages).
    n_bootstrap
        Resamples; the same genes are drawn for every metric and target. With 0 the limits are NaN.
    seed
        Of the resampling; the same seed gives the same limits.

    Returns
    -------
    dict
        ``per_target[target][metric]`` and ``mean[metric]`` (mean over targets) with `metric` one of ``mse``,
        ``mae`` (units of `observed`, squared for mse), ``pearson``, ``spearman``; and ``across_target``, see
        `across_target_r`, None when there is one target. Each is ``{"value", "low", "high"}``: limits are the
        2.5 and 97.5 percentiles over the resamples in which the figure is defined. A mean over targets is
        undefined if the figure of any target is.

    Raises
    ------
    SchemaError
        If shapes or names differ, there is no gene, or a value is not finite.

    References
    ----------
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile intervals).
    """
    observed, predicted = _checked(observed, predicted, targets)
    values = np.array([[np.mean((o - p) ** 2), np.mean(np.abs(o - p)), pearson(o, p), spearman(o, p)]
                       for o, p in zip(observed.T, predicted.T, strict=True)])
    draws, across = _bootstrap(observed, predicted, n_bootstrap, seed)
    pooled = across_target_r(observed, predicted)
    return {
        "per_target": {target: {metric: _interval(values[t, m], draws[:, t, m])
                                for m, metric in enumerate(METRICS)} for t, target in enumerate(targets)},
        "mean": {metric: _interval(values[:, m].mean(), draws[:, :, m].mean(axis=1))
                 for m, metric in enumerate(METRICS)},
        "across_target": _interval(pooled, across) if len(targets) > 1 else None,
    }


def noise_ceiling(clean: Float[ndarray, "G T"], noisy: Float[ndarray, "G T"]) -> Float[ndarray, " T"]:
    """Best correlation that any model can reach with noisy observations: that of the truth itself, a target.

    Parameters
    ----------
    clean, noisy
        Expression without and with measurement noise, the same genes (of the fold that is judged) and units.
        Known in a simulated world only; see `ceiling_from_replicates` for measurements.
    """
    return np.array([pearson(c, n) for c, n in zip(clean.T, noisy.T, strict=True)])


def ceiling_from_replicates(r: float, n_averaged: int = 1) -> float:
    """Best correlation that any model can reach, from the correlation of two replicates.

    Under independent additive noise the correlation of one replicate with another is its reliability, and the
    correlation of a replicate with the truth is the square root of that. Averaging `n_averaged` replicates
    raises the reliability to ``n r / (1 + (n − 1) r)`` (Spearman–Brown) before the root is taken.

    Parameters
    ----------
    r
        Correlation of single replicates; values below 0 give a ceiling of 0.
    n_averaged
        Replicates whose mean is what the model is judged on.

    References
    ----------
    Spearman 1910, Br J Psychol 3:271; Brown 1910, Br J Psychol 3:296.

    Examples
    --------
    >>> ceiling_from_replicates(0.81)
    0.9
    """
    if not r <= 1 or n_averaged < 1:
        raise ValueError(f"expected a correlation of at most 1 and at least one replicate; got r={r}, "
                         f"n_averaged={n_averaged}")
    r = max(r, 0.0)
    return float(np.sqrt(n_averaged * r / (1 + (n_averaged - 1) * r)))


def _checked(observed: ndarray, predicted: ndarray, targets: Sequence[str]) -> tuple[ndarray, ndarray]:
    observed, predicted = np.asarray(observed, float), np.asarray(predicted, float)
    if observed.shape != predicted.shape or observed.ndim != 2 or observed.shape[1] != len(targets):
        raise SchemaError(f"observed and predicted must both be (genes, {len(targets)} targets); "
                          f"got {observed.shape} and {predicted.shape}")
    if not len(observed):
        raise SchemaError("no gene to evaluate: the fold is empty; check which chromosomes belong to it")
    if len(set(targets)) < len(targets):
        raise SchemaError(f"target names must differ; got {', '.join(targets)}")
    for name, array in (("observed", observed), ("predicted", predicted)):
        if not np.isfinite(array).all():
            gene, t = np.argwhere(~np.isfinite(array))[0]
            raise SchemaError(f"{int((~np.isfinite(array)).sum()):,} of {array.size:,} {name} values are NaN "
                              f"or infinite; first: gene {gene}, target {targets[t]}")
    return observed, predicted


def _bootstrap(observed: ndarray, predicted: ndarray, n: int, seed: int) -> tuple[ndarray, ndarray]:
    """Metrics of `n` resamples of the genes: shapes ``(n, T, 4)`` and ``(n,)``.

    A resample is a count a gene: every sum over it is a matrix product, and nothing is sorted again.
    """
    n_genes, n_targets = observed.shape
    rng = np.random.default_rng(seed)
    draws, across = np.empty((n, n_targets, len(METRICS))), np.empty(n)
    error = observed - predicted
    # Correlations do not move with the origin; centred values keep the sums of squares from cancelling.
    o, p = observed - observed.mean(axis=0), predicted - predicted.mean(axis=0)
    o_within, p_within = _centred(observed), _centred(predicted)
    within = np.stack([(o_within * p_within).sum(1), (o_within**2).sum(1), (p_within**2).sum(1)], axis=1)
    sorted_o = [np.unique(column, return_inverse=True)[1] for column in observed.T]
    sorted_p = [np.unique(column, return_inverse=True)[1] for column in predicted.T]
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n))
        picks = rng.integers(n_genes, size=(rows.stop - start, n_genes))
        weight = np.stack([np.bincount(pick, minlength=n_genes) for pick in picks]).astype(float)
        draws[rows, :, 0] = weight @ error**2 / n_genes
        draws[rows, :, 1] = weight @ np.abs(error) / n_genes
        mean_o, mean_p = weight @ o / n_genes, weight @ p / n_genes
        draws[rows, :, 2] = _ratio(weight @ (o * p) / n_genes - mean_o * mean_p,
                                   _variance(weight @ (o * o) / n_genes, mean_o),
                                   _variance(weight @ (p * p) / n_genes, mean_p))
        by_gene = np.ascontiguousarray(weight.T)  # G resamples
        for t in range(n_targets):
            rank_o, rank_p = _resampled_ranks(sorted_o[t], by_gene), _resampled_ranks(sorted_p[t], by_gene)
            weighted_o = by_gene * rank_o
            draws[rows, t, 3] = _ratio(np.einsum("gn,gn->n", weighted_o, rank_p),
                                       np.einsum("gn,gn->n", weighted_o, rank_o),
                                       np.einsum("gn,gn,gn->n", by_gene, rank_p, rank_p))
        across[rows] = _ratio(*(weight @ within).T)
    return draws, across


def _resampled_ranks(group: ndarray, weight: ndarray) -> ndarray:
    """Centred mean rank of each gene's value in each resample; shape ``(G, resamples)``.

    `group` numbers the distinct values in rising order. In a resample the copies of a value fill the ranks
    after all smaller ones; each takes the mean of them. Centred, because the mean rank is known.
    """
    n_genes = len(group)
    order = np.argsort(group, kind="stable")
    last = np.append(np.flatnonzero(np.diff(group[order])), n_genes - 1)
    filled = np.cumsum(weight[order], axis=0)[last]  # ranks taken up to and with each distinct value
    before = np.concatenate([np.zeros((1, weight.shape[1])), filled[:-1]])
    return ((before + filled - n_genes) / 2)[group]


def _variance(mean_square: ndarray, mean: ndarray) -> ndarray:
    """Variance from sums; what rounding leaves of a constant resample, which might correlate, becomes 0."""
    variance = mean_square - mean**2
    return np.where(variance > 1e-12 * mean_square, variance, 0.0)


def _ratio(ab: ArrayLike, aa: ArrayLike, bb: ArrayLike) -> ndarray:
    """Correlation from centred sums of products; NaN where either side has no variation."""
    product = np.asarray(aa, float) * np.asarray(bb, float)
    defined = product > 0
    r = np.asarray(ab, float) / np.sqrt(np.where(defined, product, 1.0))
    return np.where(defined, np.clip(r, -1, 1), np.nan)


def _centred(values: ndarray) -> ndarray:
    """Values less each gene's mean over targets; exactly zero in a gene that does not vary."""
    values = np.asarray(values, float)
    constant = (values == values[:, :1]).all(axis=1, keepdims=True)
    return np.where(constant, 0.0, values - values.mean(axis=1, keepdims=True))


def _constant(values: ndarray) -> bool:
    return bool((values == values[0]).all())


def _interval(value: float, draws: ndarray) -> Interval:
    defined = draws[np.isfinite(draws)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return {"value": float(value), "low": float(low), "high": float(high)}
