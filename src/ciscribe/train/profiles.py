"""How good predictions along positions are: the shape of profiles, their total counts, and binned tracks.

A profile is judged twice: by its shape (where do the counts of a region fall?) and by its total (how many are
there?), as models of base-resolution profiles predict the two apart. Binned tracks are judged over all bins.
Intervals are bootstrapped over regions, the unit that is new in the test fold; NaN is not measured.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ciscribe.train.metrics import (
    Evaluation,
    Interval,
    across_sums,
    checked,
    correlation,
    correlation_of_sums,
    correlation_sums,
    evaluate,
    interval,
    resamples,
)

PROFILE_METRICS = ("jsd", "pearson")
"""Per-track metrics of profile shapes."""


class ProfileEvaluation(TypedDict):
    """What `evaluate_profiles` measures; JSON-ready."""

    profile: dict[str, dict[str, Interval]]
    mean: dict[str, Interval]
    counts: Evaluation


class TrackEvaluation(TypedDict):
    """What `evaluate_tracks` measures; JSON-ready."""

    per_target: dict[str, dict[str, Interval]]
    mean: dict[str, Interval]
    across_target: Interval | None


def jensen_shannon(a: Float[ndarray, "*shape L"], b: Float[ndarray, "*shape L"]) -> Float[ndarray, "*shape"]:
    """Jensen–Shannon distance of two profiles: √ of the divergence in nats, 0 (equal) to √ln 2 ≈ 0.833 (disjoint).

    Each side is divided by its sum; NaN where a side has no counts or a position that was not measured.

    References
    ----------
    Endres & Schindelin 2003, IEEE Trans Inf Theory 49:1858.
    """
    total_a, total_b = a.sum(axis=-1), b.sum(axis=-1)
    defined = (total_a > 0) & (total_b > 0)
    a = a / np.where(defined, total_a, 1)[..., None]
    b = b / np.where(defined, total_b, 1)[..., None]
    middle = (a + b) / 2
    divergence = (_relative_entropy(a, middle) + _relative_entropy(b, middle)) / 2
    return np.where(defined, np.sqrt(np.maximum(divergence, 0)), np.nan)


def _relative_entropy(a: ndarray, b: ndarray) -> ndarray:
    some = a > 0
    return np.where(some, a * np.log(np.where(some, a, 1) / np.where(some, b, 1)), 0).sum(axis=-1)


def profile_pearson(a: Float[ndarray, "*shape L"], b: Float[ndarray, "*shape L"]) -> Float[ndarray, "*shape"]:
    """Correlation of two profiles over their positions; NaN where one is flat or not measured."""
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (a, b))
    return correlation((a * b).sum(axis=-1), (a * a).sum(axis=-1), (b * b).sum(axis=-1))


def evaluate_profiles(observed: Float[ndarray, "N tracks L"], predicted: Float[ndarray, "N tracks L"],
                      tracks: Sequence[str], *, strands: int = 1, n_bootstrap: int = 1000, seed: int = 0
                      ) -> ProfileEvaluation:
    """Score predicted counts at positions: the shape of each profile, and the totals.

    Parameters
    ----------
    observed, predicted
        Counts; a region with a position that is NaN counts as not measured in that track.
    tracks
        Names.
    strands
        So many consecutive tracks share one total.
    n_bootstrap, seed
        Resamples of the regions.

    Returns
    -------
    dict
        ``profile[track]["jsd" | "pearson"]``: mean over regions that have counts of `jensen_shannon` and
        `profile_pearson`; ``mean`` of them over tracks; ``counts``: `train.metrics.evaluate` of ln(1 + total).
    """
    observed, predicted = checked(observed, predicted, tracks)
    each = np.stack([jensen_shannon(observed, predicted), profile_pearson(observed, predicted)], axis=-1)
    known = np.isfinite(each)
    filled = np.where(known, each, 0.0)
    values = _means(filled.sum(axis=0), known.sum(axis=0))
    draws = np.empty((n_bootstrap, *values.shape))
    for rows, weight in resamples(len(observed), n_bootstrap, seed):
        draws[rows] = _means(np.einsum("ng,gtm->ntm", weight, filled, optimize=True),
                             np.einsum("ng,gtm->ntm", weight, known.astype(float), optimize=True))
    groups = ["/".join(tracks[i:i + strands]) for i in range(0, len(tracks), strands)]
    totals = [np.log1p(v.sum(axis=-1).reshape(len(v), -1, strands).sum(axis=-1)) for v in (observed, predicted)]
    return {
        "profile": {track: {metric: interval(values[t, m], draws[:, t, m])
                            for m, metric in enumerate(PROFILE_METRICS)} for t, track in enumerate(tracks)},
        "mean": {metric: interval(values[:, m].mean(), draws[:, :, m].mean(axis=1))
                 for m, metric in enumerate(PROFILE_METRICS)},
        "counts": evaluate(totals[0], totals[1], groups, n_bootstrap=n_bootstrap, seed=seed),
    }


def _means(total: ndarray, n: ndarray) -> ndarray:
    return np.where(n > 0, total / np.where(n > 0, n, 1), np.nan)


def evaluate_tracks(observed: Float[ndarray, "N T bins"], predicted: Float[ndarray, "N T bins"],
                    tracks: Sequence[str], *, n_bootstrap: int = 1000, seed: int = 0) -> TrackEvaluation:
    """Score binned tracks: correlation over all regions and bins, and across tracks within bins.

    Parameters
    ----------
    observed, predicted
        Signal a bin; NaN among the observed is not measured.
    tracks
        Names.
    n_bootstrap, seed
        Resamples of the regions, each with all of its bins.

    Returns
    -------
    dict
        ``per_target[track]["pearson"]``, their ``mean``, and ``across_target`` (None for one track): as
        `train.metrics.across_target_r` with every bin of every region in the place of a gene. Tracks of larger
        scale weigh more in it; bring them to one scale first when they shall not.
    """
    observed, predicted = checked(observed, predicted, tracks)
    n, _, n_bins = observed.shape
    sums = correlation_sums(observed, predicted)
    flat = [v.transpose(0, 2, 1).reshape(n * n_bins, -1) for v in (observed, predicted)]
    within = across_sums(flat[0], flat[1]).reshape(n, n_bins, 3).sum(axis=1)
    values = correlation_of_sums(sums.sum(axis=0))
    some = sums[:, :, 0].any(axis=0)
    draws, across = np.empty((n_bootstrap, len(tracks))), np.empty(n_bootstrap)
    for rows, weight in resamples(n, n_bootstrap, seed):
        draws[rows] = correlation_of_sums(np.einsum("ng,gts->nts", weight, sums, optimize=True))
        across[rows] = correlation(*(weight @ within).T)
    return {
        "per_target": {track: {"pearson": interval(values[t], draws[:, t])} for t, track in enumerate(tracks)},
        "mean": {"pearson": interval(values[some].mean(), draws[:, some].mean(axis=1))},
        "across_target": (interval(float(correlation(*within.sum(axis=0))), across) if len(tracks) > 1 else None),
    }
