"""Models beside each other on the same genes: whether one is better, where, and how sure we are.

A figure of one model on one split says little: chromosomes differ, seeds differ. Here every model is fitted on several
folds with several seeds, and differences are taken between models on the same genes, resampled together. The figure
that is compared is the mean over targets, seeds and folds of the correlation over the genes of a fold, which is what
a table of this field reports; never the correlation of pooled folds, which folds of different means would raise.
Predictions that do not vary tell nothing: their correlation counts as 0.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ciscribe.errors import SchemaError
from ciscribe.train.metrics import (
    across_sums,
    correlation,
    correlation_of_sums,
    correlation_sums,
    pearson,
    resamples,
)


class Fitted(NamedTuple):
    """What one fit predicts of its held-out genes."""

    fold: str
    seed: int
    rows: Int[ndarray, " n"]
    """Genes, as row numbers of `observed`."""
    predicted: Float[ndarray, "n T"]


FIGURES = ("pearson", "across_target")


def paired_differences(observed: Float[ndarray, "G T"], fits: Mapping[str, list[Fitted]], reference: str, *,
                       n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How much better every model is than a reference, on the folds that both were fitted on.

    Parameters
    ----------
    observed
        Expression of all genes.
    fits
        Of every model.
    reference
        The one that the others are compared with.
    n_bootstrap, seed
        Resamples of genes within folds, the same for all models.

    Returns
    -------
    DataFrame
        One row a model and figure, in the order of `fits`: ``model, figure, n_folds, value, low, high, gain, gain_low,
        gain_high, p``. `figure` is ``pearson``, the mean over targets of r over genes, or ``across_target`` (see
        `ciscribe.train.metrics.across_target_r`; absent with one target); `value` is its mean over seeds, then folds.
        ``gain`` is the model less the reference over their common folds, with the 95 % interval of the resamples; `p`
        the two-sided share of resamples on the other side of 0, at least 1 / `n_bootstrap`.

    Raises
    ------
    SchemaError
        When the reference has no fit, or a model shares no fold with it.
    """
    if not fits.get(reference):
        raise SchemaError(f"the reference {reference!r} has no fits; those that have: "
                          f"{', '.join(m for m, f in fits.items() if f)}")
    figures = FIGURES if observed.shape[1] > 1 else FIGURES[:1]
    draws = {model: _by_fold(observed, of, n_bootstrap, seed) for model, of in fits.items() if of}
    rows = []
    for model, by_fold in draws.items():
        common = [f for f in by_fold if f in draws[reference]]
        if not common:
            raise SchemaError(f"{model} and {reference} were fitted on no fold in common")
        for i, figure in enumerate(figures):
            own = np.mean([by_fold[f][i] for f in by_fold], axis=0)
            gain = np.mean([by_fold[f][i] - draws[reference][f][i] for f in common], axis=0)
            low, high = np.percentile(own[1:], [2.5, 97.5])
            gain_low, gain_high = np.percentile(gain[1:], [2.5, 97.5])
            beyond = min(float((gain[1:] <= 0).mean()), float((gain[1:] >= 0).mean()))
            rows.append({"model": model, "figure": figure, "n_folds": len(by_fold), "value": own[0], "low": low,
                         "high": high, "gain": gain[0], "gain_low": gain_low, "gain_high": gain_high,
                         "p": min(1.0, max(2 * beyond, 1 / n_bootstrap))})
    return pd.DataFrame(rows)


def _by_fold(observed: ndarray, fits: list[Fitted], n: int, seed: int) -> dict[str, Float[ndarray, "figures draws"]]:
    """Figures of every fold, mean over its seeds: as measured, then of each resample of its genes."""
    out = {}
    for fold in dict.fromkeys(f.fold for f in fits):
        of = [f for f in fits if f.fold == fold]
        rows = of[0].rows
        if any(not np.array_equal(f.rows, rows) for f in of):
            raise SchemaError(f"fits of fold {fold} hold out different genes; remove the folder of the comparison, or "
                              "those of its fits that another configuration made")
        o = observed[rows]
        sums = [correlation_sums(o[:, :, None], f.predicted[:, :, None]) for f in of]
        within = [across_sums(o, f.predicted) for f in of]
        values = np.empty((2, 1 + n))
        values[:, 0] = _figures(np.ones((1, len(rows))), sums, within)[:, 0]
        for draws, weight in resamples(len(rows), n, seed):
            values[:, draws.start + 1:draws.stop + 1] = _figures(weight, sums, within)
        out[fold] = values
    return out


def _figures(weight: ndarray, sums: list[ndarray], within: list[ndarray]) -> Float[ndarray, "2 draws"]:
    r = [_defined(correlation_of_sums(np.einsum("ng,gts->nts", weight, s, optimize=True))).mean(axis=1) for s in sums]
    across = [_defined(correlation(*(weight @ w).T)) for w in within]
    return np.stack([np.mean(r, axis=0), np.mean(across, axis=0)])


def _defined(r: ArrayLike) -> ndarray:
    return np.asarray(np.nan_to_num(np.asarray(r, float), nan=0.0))


def spread(observed: Float[ndarray, "G T"], fits: list[Fitted]) -> pd.DataFrame:
    """Figures of every fit of a model: ``fold, seed, pearson, spearman, mse, across_target``, means over targets."""
    rows = []
    for f in fits:
        o, p = observed[f.rows], f.predicted
        ranked = [rankdata(v, axis=0) for v in (o, p)]
        rows.append({"fold": f.fold, "seed": f.seed, "n_genes": len(o),
                     "pearson": np.mean([_defined(pearson(a, b)) for a, b in zip(o.T, p.T, strict=True)]),
                     "spearman": np.mean([_defined(pearson(a, b)) for a, b in zip(ranked[0].T, ranked[1].T,
                                                                                 strict=True)]),
                     "mse": float(np.mean((o - p) ** 2)), "mae": float(np.mean(np.abs(o - p))),
                     "across_target": float(_defined(correlation(*across_sums(o, p).sum(axis=0))))})
    return pd.DataFrame(rows)


def ensemble(fits: list[Fitted]) -> list[Fitted]:
    """One fit a fold, of seed −1: the mean of the predictions of its seeds."""
    return [Fitted(fold, -1, of[0].rows, np.mean([f.predicted for f in of], axis=0))
            for fold in dict.fromkeys(f.fold for f in fits) for of in [[f for f in fits if f.fold == fold]]]


def by_decile(observed: Float[ndarray, "G T"], fits: list[Fitted], n: int = 10) -> pd.DataFrame:
    """Correlation and error within tenths of measured expression.

    Genes of a fold are sorted by their measured value, target by target, and cut into `n` groups of equal size. Within
    a tenth there is little to explain, so r is far below that of all genes, and lower in the middle than at the ends.

    Returns
    -------
    DataFrame
        ``decile`` (1 is the lowest), ``r``, ``rmse``, ``bias`` (predicted − observed), ``observed`` (mean): means over
        targets, folds and seeds.
    """
    rows = []
    for f in fits:
        for o, p in zip(observed[f.rows].T, f.predicted.T, strict=True):
            for i, part in enumerate(np.array_split(np.argsort(o, kind="stable"), n)):
                if len(part):
                    error = p[part] - o[part]
                    rows.append((i + 1, pearson(o[part], p[part]), float(np.mean(error**2)), float(error.mean()),
                                 float(o[part].mean())))
    table = pd.DataFrame(rows, columns=pd.Index(["decile", "r", "mse", "bias", "observed"]))
    table = table.groupby("decile", as_index=False).mean()  # over fits in which r is defined
    return pd.DataFrame(table.assign(rmse=np.sqrt(table["mse"]))[["decile", "r", "rmse", "bias", "observed"]])


def calibration(observed: Float[ndarray, "G T"], fits: list[Fitted], n: int = 10) -> pd.DataFrame:
    """What was measured where the model says so much: whether a prediction of 2 means 2.

    Genes of a fold are sorted by what is predicted, target by target, and cut into `n` groups of equal size.

    Returns
    -------
    DataFrame
        ``group`` (1 is the lowest), ``predicted``, ``observed``: means over genes, targets, folds and seeds. The same
        in every row: ``slope`` and ``intercept`` of the line from predicted to observed (1 and 0 when calibrated),
        means over fits and targets.
    """
    rows, lines = [], []
    for f in fits:
        for o, p in zip(observed[f.rows].T, f.predicted.T, strict=True):
            if np.ptp(p) > 0:
                slope = float(np.cov(p, o, ddof=0)[0, 1] / np.var(p))
                lines.append((slope, float(o.mean() - slope * p.mean())))
            for i, part in enumerate(np.array_split(np.argsort(p, kind="stable"), n)):
                if len(part):
                    rows.append((i + 1, float(p[part].mean()), float(o[part].mean())))
    table = pd.DataFrame(rows, columns=pd.Index(["group", "predicted", "observed"])).groupby("group", as_index=False)
    slope, intercept = np.mean(lines, axis=0) if lines else (np.nan, np.nan)
    return pd.DataFrame(table.mean()).assign(slope=slope, intercept=intercept)
