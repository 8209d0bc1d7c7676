"""How good predictions of numbers are, with intervals that say how sure we are of it.

Two questions are kept apart. Across genes: is a high gene predicted high (`pearson`, `spearman`, errors, one
figure a target)? Across targets: within one gene, is the stage or cell type with more expression predicted
to have more (`across_target_r`)? A model can do well on the first and know nothing of regulation, because
the mean level of a gene carries most of the variance. Intervals are bootstrapped over genes, the unit that is
new in the test fold. A correlation of something constant is undefined: NaN here, ``null`` in JSON. A NaN among
the observations means "not measured": each target is judged on its own measured rows. Labels are scored in
`train.labels`, profiles and tracks in `train.profiles`; both resample as here.
"""

from collections.abc import Iterator, Sequence
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
    less of most mRNAs) stays in, and counts as predicted when it is. Means are over the measured targets.

    Returns
    -------
    float
        −1..1. NaN if there is one target only, or if no gene varies on either side.

    See Also
    --------
    across_target_r_per_gene : the mean of the genes' own correlations, in which every gene weighs the same.
    """
    return float(correlation(*across_sums(observed, predicted).sum(axis=0)))


def across_target_r_per_gene(observed: Float[ndarray, "G T"], predicted: Float[ndarray, "G T"]) -> float:
    """Mean over genes of the gene's own correlation across its targets.

    Genes that do not vary (observed or predicted) are left out. Genes whose variation is noise weigh as much
    as regulated ones, so the figure usually lies below `across_target_r`.

    Returns
    -------
    float
        −1..1; NaN if no gene is left.
    """
    r = correlation(*across_sums(observed, predicted).T)
    return float(r[np.isfinite(r)].mean()) if np.isfinite(r).any() else float("nan")


def evaluate(observed: Float[ndarray, "G T"], predicted: Float[ndarray, "G T"], targets: Sequence[str], *,
             n_bootstrap: int = 1000, seed: int = 0) -> Evaluation:
    """Score predictions against observations, with 95 % intervals from resampling genes.

    Parameters
    ----------
    observed, predicted
        Rows are genes of one fold, columns are targets; the same units, e.g. log10(TPM + 1). NaN among the
        observed is not measured, and left out.
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
        undefined if the figure of any target is; targets without any measured row are left out of it.

    Raises
    ------
    SchemaError
        If shapes or names differ, nothing was measured, or a value is infinite or a prediction NaN.

    References
    ----------
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile intervals).
    """
    observed, predicted = checked(observed, predicted, targets)
    measured = ~np.isnan(observed)
    some = measured.any(axis=0)
    values = np.array([_figures(o[m], p[m]) for o, p, m in zip(observed.T, predicted.T, measured.T, strict=True)])
    draws, across = _bootstrap(observed, predicted, n_bootstrap, seed)
    pooled = across_target_r(observed, predicted)
    return {
        "per_target": {target: {metric: interval(values[t, m], draws[:, t, m])
                                for m, metric in enumerate(METRICS)} for t, target in enumerate(targets)},
        "mean": {metric: interval(values[some, m].mean(), draws[:, some, m].mean(axis=1))
                 for m, metric in enumerate(METRICS)},
        "across_target": interval(pooled, across) if len(targets) > 1 else None,
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


def checked(observed: Shaped[ndarray, "N T *bins"], predicted: Shaped[ndarray, "N T *bins"],
            targets: Sequence[str]) -> tuple[ndarray, ndarray]:
    """Both as float64, when they can be scored.

    Raises
    ------
    SchemaError
        If shapes or names differ, there is no row, nothing was measured, a value is infinite, or a prediction NaN.
    """
    observed, predicted = np.asarray(observed, float), np.asarray(predicted, float)
    if observed.shape != predicted.shape or observed.ndim < 2 or observed.shape[1] != len(targets):
        raise SchemaError(f"observed and predicted must both be (genes, {len(targets)} targets); "
                          f"got {observed.shape} and {predicted.shape}")
    if not len(observed):
        raise SchemaError("no gene to evaluate: the fold is empty; check which chromosomes belong to it")
    if len(set(targets)) < len(targets):
        raise SchemaError(f"target names must differ; got {', '.join(targets)}")
    for name, array, bad, what in (("observed", observed, np.isinf(observed), "infinite"),
                                   ("predicted", predicted, ~np.isfinite(predicted), "NaN or infinite")):
        if bad.any():
            gene, t = np.argwhere(bad)[0][:2]
            raise SchemaError(f"{int(bad.sum()):,} of {array.size:,} {name} values are {what}; "
                              f"first: gene {gene}, target {targets[t]}")
    if np.isnan(observed).all():
        raise SchemaError("nothing to evaluate: every observed value is NaN, which means not measured")
    return observed, predicted


def resamples(n_rows: int, n: int, seed: int) -> Iterator[tuple[slice, Float[ndarray, "draws n_rows"]]]:
    """`n` bootstrap resamples of rows, in blocks: which draws these are, and how often each holds each row.

    A resample is a count a row, so that every sum over it is a matrix product, and nothing is sorted again.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, n, _BLOCK):
        draws = slice(start, min(start + _BLOCK, n))
        picks = rng.integers(n_rows, size=(draws.stop - start, n_rows))
        yield draws, np.stack([np.bincount(pick, minlength=n_rows) for pick in picks]).astype(float)


def _bootstrap(observed: ndarray, predicted: ndarray, n: int, seed: int) -> tuple[ndarray, ndarray]:
    """Metrics of `n` resamples of the genes: shapes ``(n, T, 4)`` and ``(n,)``."""
    n_genes, n_targets = observed.shape
    draws, across = np.empty((n, n_targets, len(METRICS))), np.empty(n)
    measured = ~np.isnan(observed)
    known = measured.astype(float)
    error = np.where(measured, observed - predicted, 0.0)
    sums = correlation_sums(observed[:, :, None], predicted[:, :, None])
    within = across_sums(observed, predicted)
    rank_of = [[np.unique(column[m], return_inverse=True)[1] for m, column in zip(measured.T, values.T, strict=True)]
               for values in (observed, predicted)]
    for rows, weight in resamples(n_genes, n, seed):
        drawn = weight @ known  # 0 where a resample holds no measured gene of a target: all is undefined there
        n_drawn = np.where(drawn > 0, drawn, np.nan)
        draws[rows, :, 0] = weight @ error**2 / n_drawn
        draws[rows, :, 1] = weight @ np.abs(error) / n_drawn
        draws[rows, :, 2] = correlation_of_sums(np.einsum("ng,gts->nts", weight, sums, optimize=True))
        by_gene = np.ascontiguousarray(weight.T)  # G resamples
        for t in range(n_targets):
            copies = by_gene if measured[:, t].all() else by_gene[measured[:, t]]
            rank_o, rank_p = (resampled_ranks(group[t], copies) for group in rank_of)
            weighted_o = copies * rank_o
            draws[rows, t, 3] = correlation(np.einsum("gn,gn->n", weighted_o, rank_p),
                                            np.einsum("gn,gn->n", weighted_o, rank_o),
                                            np.einsum("gn,gn,gn->n", copies, rank_p, rank_p))
        across[rows] = correlation(*(weight @ within).T)
    return draws, across


def _figures(o: ndarray, p: ndarray) -> list[float]:
    if not len(o):
        return [float("nan")] * len(METRICS)
    return [float(np.mean((o - p) ** 2)), float(np.mean(np.abs(o - p))), pearson(o, p), spearman(o, p)]


def resampled_ranks(group: Shaped[ndarray, " N"], copies: Float[ndarray, "N draws"]) -> Float[ndarray, "N draws"]:
    """Centred mean rank of each row's value in each resample.

    `group` numbers the distinct values in rising order, `copies` says how often a resample holds a row. In a
    resample the copies of a value fill the ranks after all smaller ones; each takes the mean of them. Centred,
    because the mean rank is known.
    """
    if not len(group):
        return copies
    order = np.argsort(group, kind="stable")
    last = np.append(np.flatnonzero(np.diff(group[order])), len(group) - 1)
    filled = np.cumsum(copies[order], axis=0)[last]  # ranks taken up to and with each distinct value
    before = np.concatenate([np.zeros((1, copies.shape[1])), filled[:-1]])
    return ((before + filled - filled[-1]) / 2)[group]


def correlation_sums(observed: Shaped[ndarray, "N T bins"], predicted: Shaped[ndarray, "N T bins"]
                     ) -> Float[ndarray, "N T 6"]:
    """What a correlation over rows and bins needs of each row and target: n, Σo, Σp, Σo², Σp², Σop.

    Of values less the mean of their target: correlations do not move with the origin, and centred sums of squares
    do not cancel.
    """
    known = ~np.isnan(observed)
    n = np.maximum(known.sum(axis=(0, 2)), 1)[:, None]
    o, p = (np.where(known, values, 0.0) for values in (observed, predicted))
    o, p = (np.where(known, v - v.sum(axis=(0, 2))[:, None] / n, 0.0) for v in (o, p))
    return np.stack([known.astype(float).sum(2), o.sum(2), p.sum(2), (o * o).sum(2), (p * p).sum(2), (o * p).sum(2)],
                    axis=-1)


def correlation_of_sums(sums: Float[ndarray, "*shape 6"]) -> Float[ndarray, "*shape"]:
    """Pearson correlation from added-up `correlation_sums`; NaN where either side has no variation."""
    n = np.where(sums[..., 0] > 0, sums[..., 0], 1.0)
    mean_o, mean_p, square_o, square_p, product = (sums[..., i] / n for i in range(1, 6))
    return correlation(product - mean_o * mean_p, _variance(square_o, mean_o), _variance(square_p, mean_p))


def _variance(mean_square: ndarray, mean: ndarray) -> ndarray:
    """Variance from sums; what rounding leaves of a constant resample, which might correlate, becomes 0."""
    variance = mean_square - mean**2
    return np.where(variance > 1e-12 * mean_square, variance, 0.0)


def correlation(ab: ArrayLike, aa: ArrayLike, bb: ArrayLike) -> ndarray:
    """Correlation from centred sums of products; NaN where either side has no variation."""
    product = np.asarray(aa, float) * np.asarray(bb, float)
    defined = product > 0
    r = np.asarray(ab, float) / np.sqrt(np.where(defined, product, 1.0))
    return np.where(defined, np.clip(r, -1, 1), np.nan)


def across_sums(observed: Shaped[ndarray, "G T"], predicted: Shaped[ndarray, "G T"]) -> Float[ndarray, "G 3"]:
    """Σop, Σo², Σp² of each gene, of values less the gene's mean over its measured targets."""
    measured = ~np.isnan(np.asarray(observed, float))
    o, p = _centred(observed, measured), _centred(predicted, measured)
    return np.stack([(o * p).sum(axis=1), (o * o).sum(axis=1), (p * p).sum(axis=1)], axis=1)


def _centred(values: ndarray, measured: ndarray) -> ndarray:
    """Values less each gene's mean over measured targets; exactly zero in a gene that does not vary."""
    values = np.where(measured, np.asarray(values, float), 0.0)
    mean = values.sum(axis=1, keepdims=True) / np.maximum(measured.sum(axis=1, keepdims=True), 1)
    low = np.where(measured, values, np.inf).min(axis=1, keepdims=True)
    varies = low < np.where(measured, values, -np.inf).max(axis=1, keepdims=True)
    return np.where(measured & varies, values - mean, 0.0)


def _constant(values: ndarray) -> bool:
    return bool((values == values[0]).all())


def interval(value: float, draws: Shaped[ndarray, " n"]) -> Interval:
    """A figure with the 2.5 and 97.5 percentiles of its resamples, of those in which it is defined."""
    defined = draws[np.isfinite(draws)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return {"value": float(value), "low": float(low), "high": float(high)}
