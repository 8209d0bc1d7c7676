"""Slow twins of fine-mapping: every causal configuration written out as a multivariate normal of the z-scores."""

from itertools import combinations

import numpy as np
from scipy.stats import multivariate_normal


def adjusted(z, n):
    """Z-scores turned back into correlations with the trait, times sqrt(n - 1)."""
    r = np.array([score / np.sqrt(score**2 + n - 2) for score in z])
    return r * np.sqrt(n - 1)


def log_density(z, R, n, causal, variance):
    """Log density of adjusted z-scores when each causal variant has an effect ~ N(0, variance)."""
    covariance = R.copy()
    for j in causal:
        covariance = covariance + (n - 1) * variance * np.outer(R[:, j], R[:, j])
    return multivariate_normal.logpdf(adjusted(z, n), cov=covariance)


def one_causal(z, R, n, prior, variance):
    """Posterior of each variant when exactly one is causal."""
    weight = np.array([np.log(prior[j]) + log_density(z, R, n, [j], variance) for j in range(len(z))])
    weight = np.exp(weight - weight.max())
    return weight / weight.sum()


def two_causal(z, R, n, variance):
    """Posterior inclusion of each variant when exactly two are causal, all pairs as probable."""
    pairs = list(combinations(range(len(z)), 2))
    weight = np.array([log_density(z, R, n, pair, variance) for pair in pairs])
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    return np.array([sum(w for pair, w in zip(pairs, weight, strict=True) if j in pair) for j in range(len(z))])


def association(dosage, trait):
    """Z-scores one regression at a time: slope over its standard error."""
    z = []
    for row in dosage:
        X = np.column_stack([np.ones(len(row)), row])
        b, residual, *_ = np.linalg.lstsq(X, trait, rcond=None)
        error = np.sqrt(residual[0] / (len(row) - 2) * np.linalg.inv(X.T @ X)[1, 1])
        z.append(b[1] / error)
    return np.array(z)
