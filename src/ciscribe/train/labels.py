"""How good scores of yes-or-no labels are: AUROC and AUPRC a target, with intervals.

Only the order of the scores within a target counts, so probabilities and logits give the same figures. Judge the
AUPRC beside the `prevalence`, which is what guessing reaches; the AUROC of guessing is ½. A label that is NaN was
not measured. Intervals are bootstrapped over rows, as in `train.metrics`.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from ciscribe.errors import SchemaError
from ciscribe.train.metrics import Interval, checked, interval, resampled_ranks, resamples

LABEL_METRICS = ("auroc", "auprc")
"""Per-target metrics of labels, in the order in which they are printed."""


class LabelEvaluation(TypedDict):
    """What `evaluate_labels` measures; JSON-ready."""

    per_target: dict[str, dict[str, Interval]]
    mean: dict[str, Interval]
    prevalence: dict[str, float]


def auroc(labels: Shaped[ndarray, " N"], scores: Shaped[ndarray, " N"]) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN unless there are both.

    Examples
    --------
    >>> auroc(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.4, 0.3]))
    0.75
    """
    return float(_curves(labels, scores, np.ones((len(labels), 1)))[0, 0])


def auprc(labels: Shaped[ndarray, " N"], scores: Shaped[ndarray, " N"]) -> float:
    """Average precision: precision at each distinct score, weighted by the recall gained there.

    No interpolation, which would be too kind. NaN unless there are positives and negatives.

    Examples
    --------
    >>> auprc(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.4, 0.3]))
    0.8333333333333333
    """
    return float(_curves(labels, scores, np.ones((len(labels), 1)))[0, 1])


def evaluate_labels(observed: Float[ndarray, "N T"], predicted: Float[ndarray, "N T"], targets: Sequence[str], *,
                    n_bootstrap: int = 1000, seed: int = 0) -> LabelEvaluation:
    """Score predictions of labels, with 95 % intervals from resampling rows.

    Parameters
    ----------
    observed
        1, 0, or NaN where a label was not measured.
    predicted
        Scores, higher for a likelier 1: probabilities or logits.
    targets
        Names of the columns.
    n_bootstrap
        Resamples; 0 gives NaN for the limits. The work grows with rows × targets × resamples.
    seed
        Of the resampling.

    Returns
    -------
    dict
        ``per_target[target]["auroc" | "auprc"]``, ``mean`` over the targets that have both labels (others are NaN),
        each ``{"value", "low", "high"}``; and ``prevalence[target]``, the share of ones.

    Raises
    ------
    SchemaError
        As `train.metrics.checked`, and for labels other than 0, 1 and NaN.
    """
    observed, predicted = checked(observed, predicted, targets)
    wrong = ~(np.isnan(observed) | (observed == 0) | (observed == 1))
    if wrong.any():
        row, t = np.argwhere(wrong)[0]
        raise SchemaError(f"labels are 0, 1 or NaN (not measured); {int(wrong.sum()):,} of {observed.size:,} are not; "
                          f"first: row {row}, target {targets[t]}: {observed[row, t]:g}; "
                          "binarize them, or score them as numbers")
    measured = ~np.isnan(observed)
    columns = [(observed[m, t], predicted[m, t], m) for t, m in enumerate(measured.T)]
    values = np.concatenate([_curves(o, p, np.ones((len(o), 1))) for o, p, _ in columns])
    draws = np.empty((n_bootstrap, len(targets), len(LABEL_METRICS)))
    for rows, weight in resamples(len(observed), n_bootstrap, seed):
        copies = np.ascontiguousarray(weight.T)
        for t, (o, p, m) in enumerate(columns):
            draws[rows, t] = _curves(o, p, copies[m])
    both = np.isfinite(values[:, 0])
    return {
        "per_target": {target: {metric: interval(values[t, m], draws[:, t, m])
                                for m, metric in enumerate(LABEL_METRICS)} for t, target in enumerate(targets)},
        "mean": {metric: interval(values[both, m].mean() if both.any() else np.nan,
                                  draws[:, both, m].mean(axis=1) if both.any() else draws[:0, 0, 0])
                 for m, metric in enumerate(LABEL_METRICS)},
        "prevalence": {target: float(o.mean()) if len(o) else float("nan")
                       for target, (o, _, _) in zip(targets, columns, strict=True)},
    }


def _curves(labels: ndarray, scores: ndarray, copies: ndarray) -> ndarray:
    """AUROC and AUPRC of rows that a resample holds `copies` times; ``(draws, 2)``."""
    if not len(labels):
        return np.full((copies.shape[1], 2), np.nan)
    group = np.unique(np.asarray(scores, float), return_inverse=True)[1]
    positive = np.asarray(labels, float)[:, None] * copies
    n, n_positive = copies.sum(axis=0), positive.sum(axis=0)
    n_negative = n - n_positive
    defined = (n_positive > 0) & (n_negative > 0)
    n_positive, n_negative = np.where(defined, n_positive, 1), np.where(defined, n_negative, 1)
    # ranks are centred, so those of the negatives add up to what those of the positives lack of zero
    lead = (positive * resampled_ranks(group, copies)).sum(axis=0)
    roc = 0.5 + lead / (n_positive * n_negative)
    order = np.argsort(-group, kind="stable")
    last = np.append(np.flatnonzero(np.diff(group[order])), len(group) - 1)
    found, called = np.cumsum(positive[order], axis=0)[last], np.cumsum(copies[order], axis=0)[last]
    gained = np.diff(found, axis=0, prepend=0)
    precision = (gained * found / np.maximum(called, 1)).sum(axis=0) / n_positive
    return np.where(defined, np.stack([roc, precision]), np.nan).T
