"""Which variants of a locus are causal: sums of single effects on summary statistics, with priors from a model.

Association tests point at everything in linkage disequilibrium (LD) with a causal variant. `fine_map` takes their
z-scores and the LD matrix and gives every variant its posterior probability of being causal, and sets that hold a
causal one with given probability. What a sequence model says of the variants enters as the prior (`softmax_prior`),
and how far it is to be trusted is fitted on other loci (`fit_temperature`). Most failures of fine-mapping are z-scores
and an LD matrix of different people or alleles, so both are checked before anything is fitted (`check_ld`,
`ld_consistency`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import norm

from ciscribe.card import Card
from ciscribe.errors import SchemaError

CARDS = {
    "susie_rss": Card(
        name="susie_rss", kind="variants",
        summary="Finds the causal variants of a locus from association statistics and linkage disequilibrium, as a "
                "sum of single effects.",
        paper="Wang, Sarkar, Carbonetto & Stephens 2020, J R Stat Soc B 82:1273, doi:10.1111/rssb.12388; from summary "
              "statistics: Zou, Carbonetto, Wang & Stephens 2022, PLoS Genet 18:e1010299, "
              "doi:10.1371/journal.pgen.1010299",
        differences=(
            "z-scores and LD that do not fit each other (a switched allele) are an error before the fit.",
            "The residual variance stays 1, as the paper advises for LD of other people.",
            "Prior variances are found anew in each round by a bounded search, and an effect that is no likelier than "
            "none is switched off.",
            "A credible set that holds the same variants as an earlier one is reported once.",
        ),
        n_policy="bases are not looked at"),
    "functional_prior": Card(
        name="functional_prior", kind="variants",
        summary="Turns what a model says of the variants of a locus into prior probabilities of being causal.",
        paper="own; functional priors for fine-mapping: Weissbrod et al. 2020, Nat Genet 52:1355, "
              "doi:10.1038/s41588-020-00735-5 (PolyFun)",
        differences=(
            "A softmax of |score| x link x element state within the locus instead of heritability by annotation.",
            "Its temperature has the highest marginal likelihood over training loci, single effects held as a fit "
            "with equal priors left them.",
        ),
        n_policy="bases are not looked at"),
}

_SMALLEST = 1e-9  # a prior variance below is an effect that is not there
_FLIP_LOG_RATIO, _FLIP_Z = 2.0, 2.0  # when a z-score counts as one of the other allele (Zou et al. 2022)
_SCALES = np.geomspace(0.2, 6.0, 12)  # sd of prediction errors in units of what LD allows, for the mixture


class LDConsistency(NamedTuple):
    """Whether z-scores and LD can be of the same people and alleles.

    Parameters
    ----------
    mismatch
        λ in z ~ N(0, (1 − λ) R + λ I), of maximum likelihood, 0 to 1: near 0 in the same people, higher the less the
        LD explains the z-scores.
    table
        One row a variant: ``z``, what the others predict (``expected, sd``), ``log_ratio`` (log likelihood of −z over
        z) and ``flagged``: the sign does not fit, as after a switch of alleles.
    """

    mismatch: float
    table: pd.DataFrame


class FineMapping(NamedTuple):
    """What is causal at a locus.

    Parameters
    ----------
    pip
        float64 ``(p,)``: posterior probability that the variant is causal.
    alpha
        ``(L, p)``: of each single effect, the probability that it is this variant's; rows sum to 1.
    effect
        ``(L, p)``: posterior mean of each effect given that it is this variant's, in standard units of trait and
        dosage; positive where the counted allele raises the trait. ``(alpha * effect).sum(axis=0)`` is the estimate.
    log_bf
        ``(L, p)``: log Bayes factor of each variant against no effect, what the other effects explain taken away.
    prior_variance
        ``(L,)``, 0 where an effect was switched off.
    credible_sets
        One row a set, the strongest evidence first: ``effect`` (row of `alpha`), ``n``, ``coverage`` (probability in
        it), ``purity`` (smallest absolute r within), ``log_bf`` (of the effect), ``top`` and ``top_pip`` (its best
        variant) and ``variants`` (indices, likeliest first).
    elbo
        The bound that is raised, one number a round; it never falls.
    converged
        Whether the last round raised it by less than the tolerance.
    consistency
        The check of z-scores against LD; None where it was left out.
    """

    pip: Float[ndarray, " p"]
    alpha: Float[ndarray, "L p"]
    effect: Float[ndarray, "L p"]
    log_bf: Float[ndarray, "L p"]
    prior_variance: Float[ndarray, " L"]
    credible_sets: pd.DataFrame
    elbo: Float[ndarray, " rounds"]
    converged: bool
    consistency: LDConsistency | None


def summary_statistics(dosage: Shaped[ndarray, "p n"], trait: Float[ndarray, " n"]
                       ) -> tuple[Float[ndarray, " p"], Float[ndarray, "p p"]]:
    """Test every variant alone against a trait: z-scores and the LD between variants.

    Parameters
    ----------
    dosage
        Copies of the counted allele, a row a variant, a column a person.
    trait
        One number a person.

    Returns
    -------
    tuple
        The t statistic of each simple regression, turned into the z-score of the same p-value; and the correlations
        of the dosages.

    Raises
    ------
    SchemaError
        When there are fewer than 4 people, values are missing, or a variant does not vary.
    """
    G, y = np.asarray(dosage, dtype=float), np.asarray(trait, dtype=float)
    n = len(y)
    if n < 4 or not (np.isfinite(G).all() and np.isfinite(y).all()):
        raise SchemaError("association needs 4 or more people, and finite dosages and traits; "
                          f"got {n} people, {int((~np.isfinite(G)).sum())} missing dosages and "
                          f"{int((~np.isfinite(y)).sum())} missing traits")
    G, y = G - G.mean(axis=1, keepdims=True), y - y.mean()
    size, spread = np.sqrt((G**2).sum(axis=1)), np.sqrt((y**2).sum())
    if not spread > 0 or not (size > 0).all():
        still = np.flatnonzero(size == 0)
        what = (f"{len(still)} of {len(G)} variants do not vary among these people; first: #{still[0]}; leave them out"
                if len(still) else "the trait does not vary")
        raise SchemaError(what)
    G /= size[:, None]
    r = np.clip(G @ y / spread, -1 + 1e-12, 1 - 1e-12)
    R = G @ G.T
    np.fill_diagonal(R, 1.0)
    return r * np.sqrt((n - 2) / (1 - r**2)), np.clip(R, -1.0, 1.0)


def check_ld(R: Shaped[ndarray, "*shape"], *, tolerance: float = 1e-4) -> None:
    """Raise SchemaError unless `R` is a correlation matrix.

    Square, finite, ones on the diagonal, symmetric, nothing beyond ±1, and no negative eigenvalue larger than what
    rounding every entry by `tolerance` can make.
    """
    if R.ndim != 2 or R.shape[0] != R.shape[1] or not R.size:
        raise SchemaError(f"an LD matrix is square, one row and one column a variant; got shape {R.shape}")
    R = np.asarray(R, dtype=float)
    p = len(R)

    def reject(bad: Bool[ndarray, "p p"], what: str, advice: str) -> None:
        if bad.any():
            i, j = (int(k) for k in np.argwhere(bad)[0])
            raise SchemaError(f"{int(bad.sum()):,} of {p * p:,} entries of the LD matrix {what}; first: variants #{i} "
                              f"and #{j}, r = {R[i, j]:.6g} and {R[j, i]:.6g}; {advice}")

    reject(~np.isfinite(R), "are not numbers", "leave out variants that do not vary")
    wrong = np.abs(np.diag(R) - 1) > tolerance
    if wrong.any():
        i = int(wrong.argmax())
        raise SchemaError(f"{int(wrong.sum()):,} of {p:,} entries on the diagonal of the LD matrix are not 1; first: "
                          f"variant #{i}, {R[i, i]:.6g}; give correlations (r, not r² nor covariances), the whole "
                          "matrix and not half of it")
    upper = np.triu(np.ones_like(R, dtype=bool), 1)
    reject((np.abs(R - R.T) > tolerance) & upper, "differ from their mirror image",
           "fill both triangles (R + R.T - I for one)")
    reject((np.abs(R) > 1 + tolerance) & upper, "lie beyond ±1", "give correlations")
    values = np.linalg.eigvalsh((R + R.T) / 2)
    if values[0] < -tolerance * p:
        raise SchemaError(f"the LD matrix of {p:,} variants is not positive semi-definite: "
                          f"{int((values < -tolerance * p).sum()):,} eigenvalues are negative, the smallest "
                          f"{values[0]:.3g}; compute all correlations in the same people without missing genotypes")


def ld_consistency(z: Float[ndarray, " p"], R: Float[ndarray, "p p"], n: int) -> LDConsistency:
    """Ask of every z-score whether the others and the LD predict it, before anything is fitted.

    Parameters
    ----------
    z, R, n
        As in `fine_map`; `R` must pass `check_ld`.

    Returns
    -------
    LDConsistency
        The mismatch λ, and the variants whose sign is the wrong one.

    Notes
    -----
    Prediction errors are a mixture of normals of different scales (fitted), so that a true signal, which the
    others may not predict either, does not count as an error of alleles: only its sign is judged, for
    absolute z above 2 and a log likelihood ratio above 2.

    References
    ----------
    Zou, Carbonetto, Wang & Stephens 2022, PLoS Genet 18:e1010299, doi:10.1371/journal.pgen.1010299. Ours: the mixture
    has 12 fixed scales and is fitted by 100 rounds of EM.
    """
    scaled = _shrunk(z, n)
    values, vectors = np.linalg.eigh((R + R.T) / 2)
    values = np.maximum(values, 0.0)
    square = (vectors.T @ scaled) ** 2

    def lack(mismatch: float) -> float:
        variance = np.maximum((1 - mismatch) * values + mismatch, 1e-8)
        return float((np.log(variance) + square / variance).sum())

    mismatch, _ = _lowest(lack, 0.0, 1.0)

    # Of a normal vector with precision P, the rest predicts entry j as z_j − (P z)_j / P_jj with variance 1 / P_jj.
    # A little of the identity keeps the inverse of an LD matrix that has none.
    variance = np.maximum((1 - mismatch) * values + mismatch, 1e-3)
    precision = (vectors / variance) @ vectors.T
    sd = 1 / np.sqrt(np.diag(precision))
    expected = scaled - precision @ scaled * sd**2
    weights = np.full(len(_SCALES), 1 / len(_SCALES))
    density = norm.logpdf(((scaled - expected) / sd)[:, None], scale=_SCALES)
    for _ in range(100):
        weights = softmax(density + np.log(weights + 1e-300), axis=1).mean(axis=0)
    other = norm.logpdf(((-scaled - expected) / sd)[:, None], scale=_SCALES)
    ratio = _log_total(other + np.log(weights + 1e-300)) - _log_total(density + np.log(weights + 1e-300))
    return LDConsistency(mismatch, pd.DataFrame({
        "z": z, "expected": expected, "sd": sd, "log_ratio": ratio,
        "flagged": (ratio > _FLIP_LOG_RATIO) & (np.abs(z) > _FLIP_Z)}))


def fine_map(z: Float[ndarray, " z"], R: Float[ndarray, "p p"], n: int, *,
             prior: Float[ndarray, " prior"] | None = None, L: int = 10, coverage: float = 0.95,
             min_purity: float = 0.5, prior_variance: float | None = None,
             on_mismatch: Literal["raise", "keep", "unchecked"] = "raise", tol: float = 1e-3, max_iter: int = 100
             ) -> FineMapping:
    """Posterior probability of every variant of a locus to be causal, from z-scores and LD.

    Parameters
    ----------
    z
        z-score of each variant's own association, positive where the counted allele raises the trait.
    R
        Correlations of the counted alleles, as `check_ld` wants them.
    n
        People behind the z-scores.
    prior
        Prior probability of each variant to be the one of an effect, not negative; scaled to sum 1. Equal by default.
    L
        Most effects that are looked for; more than there are do no harm.
    coverage, min_purity
        Probability that a credible set is to hold, and the smallest absolute r between its variants: a set of unlinked
        variants says nothing and is left out.
    prior_variance
        Of each effect in standard units (share of the trait's variance that one explains); fitted by default.
    on_mismatch
        What to do with variants whose z-score has the wrong sign for their LD: ``raise``, ``keep`` (they are reported
        in the result), or ``unchecked``, for many small loci that were checked before.
    tol, max_iter
        The fit ends when a round raises the bound by less than `tol`.

    Returns
    -------
    FineMapping
        `pip` counts effects that are switched on.

    Raises
    ------
    SchemaError
        When shapes differ, z or prior cannot be used, `R` is no correlation matrix, or signs of z do not fit it.

    References
    ----------
    Wang et al. 2020, doi:10.1111/rssb.12388; Zou et al. 2022, doi:10.1371/journal.pgen.1010299. Differences: see
    `CARDS`.

    Examples
    --------
    >>> R = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> fine_map(np.array([6.0, 5.0, 0.1]), R, n=500, L=2).pip.round(2).tolist()
    [0.99, 0.01, 0.0]
    """
    R = np.asarray(R, dtype=float)
    check_ld(R)
    p = len(R)
    pi = _checked(z, p, n, prior, L, coverage)
    consistency = None if on_mismatch == "unchecked" else ld_consistency(z, R, n)
    if consistency is not None and on_mismatch == "raise":
        _reject_flagged(consistency)

    # The trait has variance 1, dosages too: the normal equations are (n − 1) R and sqrt(n − 1) z.
    m = n - 1
    R, score = (R + R.T) / 2, np.sqrt(m) * _shrunk(z, n)
    V = np.full(L, 0.2 if prior_variance is None else prior_variance)
    alpha, mu, log_bf, divergence = np.tile(pi, (L, 1)), np.zeros((L, p)), np.zeros((L, p)), np.zeros(L)
    log_pi = np.log(np.maximum(pi, 1e-300))
    fitted = np.zeros(p)  # R b, with b the sum of posterior means
    elbo: list[float] = []
    converged = False
    while len(elbo) < max_iter and not converged:
        square = np.zeros(L)
        for effect in range(L):
            fitted -= R @ (alpha[effect] * mu[effect])
            residual = score / m - fitted
            if prior_variance is None:
                V[effect] = _fit_variance(residual, m, log_pi, V[effect])
            log_bf[effect] = _log_bf(residual, m, V[effect])
            joint = log_pi + log_bf[effect]
            alpha[effect] = softmax(joint)
            shrink = V[effect] / (V[effect] + 1 / m)
            mu[effect] = shrink * residual
            square[effect] = alpha[effect] @ (mu[effect] ** 2 + shrink / m)
            mean = alpha[effect] * mu[effect]
            # Divergence from the prior: what the effect adds to the expected log likelihood, less its log evidence.
            divergence[effect] = -m / 2 * (square[effect] - 2 * mean @ residual) - float(_log_total(joint))
            fitted += R @ mean
        b = alpha * mu
        total = b.sum(axis=0)
        # E |y − Xb|²: cross terms of different effects are products of means, each effect's own is its second moment.
        error = m - 2 * total @ score + m * (total @ fitted - np.einsum("lp,lp->", b @ R, b) + square.sum())
        elbo.append(float(-n / 2 * np.log(2 * np.pi) - error / 2 - divergence.sum()))
        converged = len(elbo) > 1 and elbo[-1] - elbo[-2] < tol
    on = V > _SMALLEST
    pip = 1 - np.prod(1 - alpha[on], axis=0) if on.any() else np.zeros(p)
    sets = _credible_sets(alpha, on, R, pip, _log_total(log_pi + log_bf), coverage, min_purity)
    return FineMapping(pip, alpha, mu, log_bf, np.where(on, V, 0.0), sets, np.array(elbo), converged, consistency)


def softmax_prior(scores: Float[ndarray, " p"], temperature: float, *, link: Float[ndarray, " p"] | None = None,
                  element: Float[ndarray, " p"] | None = None) -> Float[ndarray, " p"]:
    """Prior probability of each variant of a locus to be the causal one, from what a model says of it.

    Parameters
    ----------
    scores
        Variant scores; only their size counts.
    temperature
        Above 0, in units of the scores: low trusts the model, infinity gives equal priors.
    link
        Score of the link between the variant's element and the gene, 0 or more; multiplies.
    element
        State of the variant's place, e.g. 1 in a called element and less outside; multiplies.

    Returns
    -------
    ndarray
        Sums to 1.

    Raises
    ------
    SchemaError
        When a score is missing, a factor is negative, or the temperature is not above 0.

    Examples
    --------
    >>> softmax_prior(np.array([-2.0, 0.0]), 1.0).round(2).tolist()
    [0.88, 0.12]
    """
    if not temperature > 0:
        raise SchemaError(f"a temperature lies above 0 (infinity gives equal priors); got {temperature}")
    return softmax(_utility(scores, link, element) / temperature)


def fit_temperature(loci: Sequence[tuple[FineMapping, Float[ndarray, " _"]]]) -> float:
    """Temperature of the prior that makes the data of training loci most probable.

    Parameters
    ----------
    loci
        Of each training locus, its fit with equal priors and the scores of its variants, with link and element
        multiplied in where they are used.

    Returns
    -------
    float
        For `softmax_prior`; infinity when no trust in the scores is better than some.

    Raises
    ------
    SchemaError
        When there is no locus, none has an effect, or lengths differ.

    Notes
    -----
    Maximizes Σ log Σ_j π_j(T) BF_j over the effects that the fits found; for loci of one effect that is their
    exact marginal likelihood.
    """
    pairs = []
    for i, (fit, scores) in enumerate(loci):
        if len(scores) != len(fit.pip):
            raise SchemaError(f"locus #{i} has {len(fit.pip)} variants and {len(scores)} scores")
        utility = _utility(scores, None, None)
        pairs += [(utility, row) for row in fit.log_bf[fit.prior_variance > 0]]
    if not pairs:
        raise SchemaError(f"none of {len(loci)} training loci has an effect; give loci with an association")
    scale = max(float(utility.max()) for utility, _ in pairs)
    if scale == 0:
        return float("inf")

    def evidence(trust: float) -> float:
        return sum(float(_log_total(log_softmax(utility / scale * trust) + row)) for utility, row in pairs)

    grid = np.concatenate([[0.0], np.geomspace(1e-2, 1e3, 61)])
    values = [evidence(trust) for trust in grid]
    best = int(np.argmax(values))
    if best == 0:
        return float("inf")
    low, high = grid[best - 1], grid[min(best + 1, len(grid) - 1)]
    trust, _ = _lowest(lambda trust: -evidence(trust), float(low), float(high), float(grid[best]))
    return scale / trust


def _utility(scores: ndarray, link: ndarray | None, element: ndarray | None) -> ndarray:
    utility = np.abs(np.asarray(scores, dtype=float))
    for name, factor in (("link", link), ("element", element)):
        if factor is None:
            continue
        if np.shape(factor) != utility.shape or not (np.asarray(factor) >= 0).all():
            raise SchemaError(f"{name} has one number of 0 or more a variant ({len(utility)})")
        utility = utility * factor
    if not np.isfinite(utility).all():
        raise SchemaError(f"{int((~np.isfinite(utility)).sum()):,} of {len(utility):,} variants have no score; first: "
                          f"#{int((~np.isfinite(utility)).argmax())}; score them, or set 0 for 'nothing known'")
    return utility


def _checked(z: ndarray, p: int, n: int, prior: ndarray | None, L: int, coverage: float) -> ndarray:
    """Prior that sums to 1; everything that is not a matrix is checked."""
    if len(z) != p:
        raise SchemaError(f"there are {len(z)} z-scores and an LD matrix of {p} variants; join both on the variants "
                          "first")
    if not np.isfinite(z).all():
        raise SchemaError(f"{int((~np.isfinite(z)).sum()):,} of {p:,} z-scores are not numbers; first: "
                          f"#{int((~np.isfinite(z)).argmax())}; leave those variants out, in the LD matrix too")
    if n < 4 or L < 1 or not 0 < coverage < 1:
        raise SchemaError("fine-mapping needs n of 4 or more people, L of 1 or more effects and a coverage between 0 "
                          f"and 1; got n={n}, L={L}, coverage={coverage}")
    if prior is None:
        return np.full(p, 1 / p)
    bad = ~np.isfinite(prior) | (prior < 0) if len(prior) == p else np.ones(1, bool)
    if bad.any() or not np.sum(prior) > 0:
        raise SchemaError(f"a prior is one number of 0 or more for each of {p} variants, not all 0; got "
                          f"{len(prior)} numbers, {int(bad.sum())} of them unusable")
    return np.asarray(prior, float) / np.sum(prior)


def _reject_flagged(found: LDConsistency) -> None:
    flagged = np.flatnonzero(found.table["flagged"])
    if len(flagged):
        first = found.table.iloc[flagged[0]]
        raise SchemaError(
            f"{len(flagged):,} of {len(found.table):,} z-scores have the wrong sign for their LD; first: variant "
            f"#{flagged[0]}, z = {first['z']:.2f} where the others say {first['expected']:.2f} ± {first['sd']:.2f} "
            f"(mismatch λ = {found.mismatch:.3g}); its alleles are probably switched between the two files: count the "
            "same allele in both, leave it out, or go on with on_mismatch='keep'")


def _shrunk(z: ndarray, n: int) -> ndarray:
    """z-scores as if the residual variance were the trait's whole variance: sqrt(n − 1) × correlation."""
    return z * np.sqrt((n - 1) / (z**2 + n - 2))


def _log_bf(residual: ndarray, m: int, V: float) -> ndarray:
    """Log Bayes factor of an effect ~ N(0, V) at each variant: its estimate is `residual`, of variance 1 / m."""
    return 0.5 * (m * residual**2 * V / (V + 1 / m) - np.log1p(m * V))


def _fit_variance(residual: ndarray, m: int, log_pi: ndarray, now: float) -> float:
    """Prior variance of highest evidence; 0 where no effect is as likely. Never worse than the one before."""
    signal = 0.5 * m * residual**2
    at, lack = _lowest(lambda u: 0.5 * np.log1p(m * np.exp(u))  # as `_log_bf`, with V = exp(u)
                       - np.logaddexp.reduce(log_pi + signal * (m * np.exp(u) / (1 + m * np.exp(u)))),
                       float(np.log(1e-3 / m)), 0.0, *([float(np.log(now))] if now > 0 else []))
    return float(np.exp(at)) if lack < 0 else 0.0


def _lowest(f: Callable[[float], float], low: float, high: float, *known: float) -> tuple[float, float]:
    """Where a function of one number is lowest between two bounds, or at known places if lower there; its value."""
    found: Any = minimize_scalar(f, bounds=(low, high), method="bounded")
    lack, at = min((float(f(at)), at) for at in (float(found.x), *known))
    return at, lack


def _log_total(logs: Float[ndarray, "*rows p"]) -> Float[ndarray, "*rows"]:
    """Log of the sum of what these are logs of, over the last axis."""
    return np.asarray(np.logaddexp.reduce(logs, axis=-1))


def _credible_sets(alpha: ndarray, on: ndarray, R: ndarray, pip: ndarray, evidence: ndarray, coverage: float,
                   min_purity: float) -> pd.DataFrame:
    rows, seen = [], set()
    for effect in np.flatnonzero(on)[np.argsort(-evidence[on], kind="stable")]:
        order = np.argsort(-alpha[effect], kind="stable")
        held = np.cumsum(alpha[effect, order])
        chosen = order[:int(np.searchsorted(held, coverage)) + 1]
        purity = float(np.abs(R[np.ix_(chosen, chosen)]).min())
        if purity < min_purity or frozenset(chosen.tolist()) in seen:
            continue
        seen.add(frozenset(chosen.tolist()))
        rows.append({"effect": int(effect), "n": len(chosen), "coverage": float(alpha[effect, chosen].sum()),
                     "purity": purity, "log_bf": float(evidence[effect]), "top": int(chosen[0]),
                     "top_pip": float(pip[chosen[0]]), "variants": tuple(chosen.tolist())})
    columns = ["effect", "n", "coverage", "purity", "log_bf", "top", "top_pip", "variants"]
    return pd.DataFrame(rows, columns=pd.Index(columns))
