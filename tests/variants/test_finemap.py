"""Fine-mapping against enumeration; coverage of its sets, use of its prior, and its checks, on simulated LD."""

import numpy as np
import pytest
from scipy.special import softmax

from ciscribe.errors import SchemaError
from ciscribe.variants.finemap import (
    CARDS,
    check_ld,
    fine_map,
    fit_temperature,
    ld_consistency,
    softmax_prior,
    summary_statistics,
)
from reference import finemap as twin

N = 401


def copied_haplotypes(rng, p, n, block=13, founders=19):
    """Dosages of people whose haplotypes copy founders in blocks."""
    seed = rng.random((founders, p)) < rng.beta(0.6, 1.2, p)
    haplotypes = np.empty((2 * n, p), bool)
    for row in haplotypes:
        last = np.maximum.accumulate(np.where(rng.random(p) < 1 / block, np.arange(p), 0))
        row[:] = seed[rng.integers(0, founders, p)[last], np.arange(p)]
    dosage = (haplotypes[:n].astype(int) + haplotypes[n:]).T
    return dosage[dosage.std(axis=1) > 0.1]


def locus(seed, n_causal=1, p=97, n=N, h2=0.15, **ld):
    """z-scores, LD and causal variants of one simulated locus; effects are of equal size, signs are random."""
    rng = np.random.default_rng(seed)
    dosage = copied_haplotypes(rng, p, n, **ld)
    causal = rng.choice(len(dosage), n_causal, replace=False)
    standard = (dosage[causal] - dosage[causal].mean(axis=1, keepdims=True)) / dosage[causal].std(axis=1)[:, None]
    genetic = (rng.choice([-1, 1], n_causal)[:, None] * standard).sum(axis=0)
    trait = genetic / genetic.std() * np.sqrt(h2) + rng.normal(0, np.sqrt(1 - h2), n)
    z, R = summary_statistics(dosage, trait)
    return z, R, causal, dosage, trait


def test_summary_statistics__are_those_of_single_regressions():
    z, R, _, dosage, trait = locus(3, p=23)
    np.testing.assert_allclose(z, twin.association(dosage, trait), rtol=1e-9)
    np.testing.assert_allclose(R, np.corrcoef(dosage), atol=1e-12)
    check_ld(R)


@pytest.mark.parametrize("variance", [0.01, 0.2])
def test_fine_map__of_one_effect_is_the_posterior_by_enumeration(variance):
    z, R, *_ = locus(5, p=29)
    R = 0.98 * R + 0.02 * np.eye(len(R))  # the twin needs a density
    prior = softmax(np.random.default_rng(1).normal(size=len(z)))
    found = fine_map(z, R, N, prior=prior * 7, L=1, prior_variance=variance)
    np.testing.assert_allclose(found.pip, twin.one_causal(z, R, N, prior, variance), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.alpha.sum(), 1.0)


def test_fine_map__of_two_effects_is_near_the_posterior_by_enumeration():
    z, R, causal, *_ = locus(11, n_causal=2, p=17, h2=0.3)
    R = 0.98 * R + 0.02 * np.eye(len(R))
    found = fine_map(z, R, N, L=2, prior_variance=0.1)
    exact = twin.two_causal(z, R, N, 0.1)
    assert np.abs(found.pip - exact).max() < 0.05  # variational, so not equal
    assert set(np.argsort(-found.pip)[:2]) == set(causal) == set(np.argsort(-exact)[:2])


def test_fine_map__sets_hold_a_causal_variant_and_the_bound_never_falls():
    held, n_causal, found_causal = [], 0, 0
    for seed in range(31):
        z, R, causal, *_ = locus(100 + seed, n_causal=1 + seed % 3, block=(13, 43)[seed % 2])
        found = fine_map(z, R, N, on_mismatch="keep")
        assert found.converged
        assert (np.diff(found.elbo) > -1e-8).all()
        assert 0 <= found.pip.min() <= found.pip.max() <= 1
        sets = found.credible_sets["variants"]
        held += [bool(set(s) & set(causal)) for s in sets]
        n_causal += len(causal)
        found_causal += sum(any(c in s for s in sets) for c in causal)
        for row in found.credible_sets.itertuples():
            inside = np.array(row.variants)
            alpha = found.alpha[row.effect]
            assert row.n == len(inside)
            assert row.purity == np.abs(R[np.ix_(inside, inside)]).min() >= 0.5
            assert row.coverage == pytest.approx(alpha[inside].sum())
            assert alpha[inside[:-1]].sum() < 0.95 <= row.coverage
            assert alpha[inside].min() >= np.delete(alpha, inside).max()
    assert len(held) > 31
    assert np.mean(held) >= 0.9
    assert found_causal / n_causal > 0.6


def test_fine_map__without_a_signal_finds_nothing():
    z, R, _, dosage, _ = locus(7)
    z, R = summary_statistics(dosage, np.random.default_rng(0).normal(size=N))
    found = fine_map(z, R, N)
    assert not len(found.credible_sets)
    assert found.pip.max() < 0.5
    assert list(found.credible_sets) == ["effect", "n", "coverage", "purity", "log_bf", "top", "top_pip", "variants"]


def test_fine_map__effects_have_the_sign_and_size_of_the_trait():
    rng = np.random.default_rng(13)
    dosage = rng.binomial(2, 0.4, (31, 2003))
    x = (dosage[[4, 19]] - dosage[[4, 19]].mean(axis=1, keepdims=True)) / dosage[[4, 19]].std(axis=1)[:, None]
    trait = 0.5 * x[0] - 0.3 * x[1] + rng.normal(0, np.sqrt(1 - 0.34), 2003)
    z, R = summary_statistics(dosage, trait)
    found = fine_map(z, R, 2003)
    b = (found.alpha * found.effect).sum(axis=0)
    np.testing.assert_allclose(b[[4, 19]], [0.5, -0.3], atol=0.06)
    assert found.credible_sets["variants"].tolist() == [(4,), (19,)]  # the stronger first
    assert found.credible_sets["top"].tolist() == [4, 19]


def test_prior__of_informative_scores_raises_causal_variants_and_its_temperature_is_found():
    rng = np.random.default_rng(17)

    def with_scores(seed):
        z, R, causal, *_ = locus(seed, p=61, h2=0.1, block=97, founders=5)
        scores = rng.normal(0, 1, len(z))
        scores[causal] += 3.0 * rng.choice([-1, 1], len(causal))
        return z, R, causal, scores

    train = [with_scores(300 + i) for i in range(17)]
    fits = [(fine_map(z, R, N, on_mismatch="keep"), scores) for z, R, _, scores in train]
    temperature = fit_temperature(fits)
    assert 0.1 < temperature < 3
    plain, informed = [], []
    for i in range(13):
        z, R, causal, scores = with_scores(400 + i)
        plain += fine_map(z, R, N, on_mismatch="unchecked").pip[causal].tolist()
        prior = softmax_prior(scores, temperature)
        informed += fine_map(z, R, N, prior=prior, on_mismatch="unchecked").pip[causal].tolist()
    assert np.mean(informed) > np.mean(plain) + 0.1
    noise = [(fit, rng.normal(size=len(fit.pip))) for fit, _ in fits]
    assert fit_temperature(noise) > 2 * temperature
    assert fit_temperature([(fit, np.zeros(len(fit.pip))) for fit, _ in fits]) == np.inf


def test_fit_temperature__maximizes_the_evidence_written_out():
    z, R, _, *_ = locus(23, p=19)
    fit = fine_map(z, R, N, L=1)
    scores = np.abs(np.random.default_rng(2).normal(size=len(z))) + 2.0 * (fit.pip > 0.05)
    temperature = fit_temperature([(fit, scores)])

    def evidence(t):
        return np.log(sum(p * np.exp(bf) for p, bf in zip(softmax(scores / t), fit.log_bf[0], strict=True)))

    assert all(evidence(temperature) >= evidence(temperature * f) - 1e-6 for f in (0.5, 0.9, 1.1, 2.0, 100.0))


def test_softmax_prior__multiplies_link_and_element():
    scores, link, element = np.array([-2.0, 1.0, 3.0]), np.array([0.5, 1.0, 0.0]), np.array([1.0, 0.2, 1.0])
    prior = softmax_prior(scores, 0.7, link=link, element=element)
    np.testing.assert_allclose(prior, softmax(np.array([1.0, 0.2, 0.0]) / 0.7))
    np.testing.assert_allclose(softmax_prior(scores, np.inf), 1 / 3)


def test_ld_consistency__finds_switched_alleles_and_nothing_else():
    switched = []
    for seed in range(12):
        z, R, *_ = locus(500 + seed)
        assert not ld_consistency(z, R, N).table["flagged"].any()
        at = int(np.argsort(-np.abs(z))[2])
        z[at] *= -1
        flagged = ld_consistency(z, R, N).table["flagged"].to_numpy()
        switched.append(flagged[at] and flagged.sum() == 1)
    assert np.mean(switched) > 0.8
    with pytest.raises(SchemaError, match=rf"1 of {len(z)} z-scores have the wrong sign.*variant #{at}, z = .*switch"):
        fine_map(z, R, N)
    kept = fine_map(z, R, N, on_mismatch="keep")
    assert kept.consistency.table["flagged"].sum() == 1
    assert kept.consistency.mismatch > 0
    assert fine_map(z, R, N, on_mismatch="unchecked").consistency is None


def test_ld_consistency__other_people_have_a_larger_mismatch():
    z, R, *_ = locus(41, p=59)
    _, other, *_ = locus(42, p=59)
    p = min(len(R), len(other))
    same = ld_consistency(z[:p], R[:p, :p], N).mismatch
    assert same < 0.2 < ld_consistency(z[:p], other[:p, :p], N).mismatch


def spoiled(change):
    R = np.array([[1, 0.3, 0.1], [0.3, 1, 0.2], [0.1, 0.2, 1]])
    change(R)
    return R


@pytest.mark.parametrize(("R", "message"), [
    (np.ones((2, 3)), r"square.*\(2, 3\)"), (np.ones(3), "square"), (np.zeros((0, 0)), "square"),
    (spoiled(lambda R: R.__setitem__((0, 2), 0.5)), r"1 of 9 .*mirror image; first: variants #0 and #2, r = 0.5 and"),
    (spoiled(lambda R: R.__setitem__((1, 1), 0.0)), "1 of 3 entries on the diagonal.*#1, 0"),
    (spoiled(lambda R: R.__setitem__((1, 2), np.nan)), "1 of 9 .*not numbers; first: variants #1 and #2"),
    (spoiled(lambda R: R.__setitem__(([0, 1], [1, 0]), 1.3)), "1 of 9 .*beyond ±1; first: variants #0 and #1"),
    (np.array([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1.0]]), "not positive semi-definite: 1 eigen"),
])
def test_check_ld__says_what_is_wrong_and_where(R, message):
    with pytest.raises(SchemaError, match=message):
        check_ld(R)


def test_check_ld__takes_rounded_correlations():
    check_ld(np.round(np.corrcoef(np.random.default_rng(0).normal(size=(53, 29))), 4))


@pytest.mark.parametrize(("change", "message"), [
    ({"z": np.zeros(4)}, "4 z-scores and an LD matrix of 3"), ({"z": np.array([1, np.nan, 2.0])}, "1 of 3 .*first: #1"),
    ({"prior": np.ones(2)}, "for each of 3 variants"), ({"prior": np.array([0.2, -0.1, 0.3])}, "1 of them unusable"),
    ({"prior": np.zeros(3)}, "not all 0"), ({"n": 3}, "n=3"), ({"L": 0}, "L=0"), ({"coverage": 1.0}, "coverage=1.0"),
])
def test_fine_map__bad_input(change, message):
    given = {"z": np.array([1.0, 2.0, 3.0]), "R": np.eye(3), "n": 101} | change
    with pytest.raises(SchemaError, match=message):
        fine_map(**given)


def test_priors_and_statistics__bad_input():
    with pytest.raises(SchemaError, match="got 0"):
        softmax_prior(np.ones(3), 0.0)
    with pytest.raises(SchemaError, match="1 of 2 variants have no score; first: #1"):
        softmax_prior(np.array([0.1, np.nan]), 1.0)
    with pytest.raises(SchemaError, match="link has one number of 0 or more"):
        softmax_prior(np.ones(3), 1.0, link=np.array([0.1, -0.1, 1]))
    null = fine_map(np.zeros(3), np.eye(3), 101)
    with pytest.raises(SchemaError, match="none of 1 training loci"):
        fit_temperature([(null, np.ones(3))])
    with pytest.raises(SchemaError, match="locus #0 has 3 variants and 2 scores"):
        fit_temperature([(null, np.ones(2))])
    with pytest.raises(SchemaError, match=r"1 of 2 variants do not vary.*first: #1"):
        summary_statistics(np.array([[0, 1, 2, 1], [1, 1, 1, 1]]), np.arange(4.0))
    with pytest.raises(SchemaError, match="got 3 people"):
        summary_statistics(np.eye(3), np.arange(3.0))
    with pytest.raises(SchemaError, match="the trait does not vary"):
        summary_statistics(np.eye(5), np.ones(5))


def test_cards__name_papers():
    assert {"susie_rss", "functional_prior"} == set(CARDS)
    assert all(c.kind == "variants" for c in CARDS.values())
