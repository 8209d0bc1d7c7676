
import numpy as np
import pytest
from scipy import stats

from ciscribe.errors import SchemaError
from ciscribe.train import metrics

G, T = 53, 5
NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def pair():
    rng = np.random.default_rng(3)
    observed = np.round(rng.normal(2, 1, (G, T)), 1)  # rounded: ties
    predicted = np.round(0.6 * observed + rng.normal(0, 0.7, (G, T)), 1)
    return observed, predicted


def test_pearson_spearman__equal_scipy(pair):
    o, p = pair[0][:, 0], pair[1][:, 0]
    assert metrics.pearson(o, p) == pytest.approx(stats.pearsonr(o, p)[0], abs=1e-12)
    assert metrics.spearman(o, p) == pytest.approx(stats.spearmanr(o, p)[0], abs=1e-12)


def test_pearson__constant_is_nan():
    line = np.arange(7.0)
    for f in (metrics.pearson, metrics.spearman):
        assert np.isnan(f(line, np.full(7, 0.1)))
        assert np.isnan(f(np.full(7, 0.1), line))
        assert np.isnan(f(line[:1], line[:1]))


def test_across_target_r__pools_what_is_left_of_each_gene(pair):
    o, p = pair
    a, b = o - o.mean(1, keepdims=True), p - p.mean(1, keepdims=True)
    expected = stats.pearsonr(a.ravel(), b.ravel())[0]
    assert metrics.across_target_r(o, p) == pytest.approx(expected, abs=1e-12)
    gene_level = np.arange(G)[:, None] * np.array([[3.0]])
    assert metrics.across_target_r(o + gene_level, p - gene_level) == pytest.approx(expected, abs=1e-9)


def test_across_target_r_per_gene__means_and_skips(pair):
    o, p = pair
    expected = np.mean([stats.pearsonr(a, b)[0] for a, b in zip(o, p, strict=True)])
    assert metrics.across_target_r_per_gene(o, p) == pytest.approx(expected, abs=1e-12)
    flat = np.vstack([o, np.full((1, T), 0.1)])
    assert metrics.across_target_r_per_gene(flat, np.vstack([p, o[:1]])) == pytest.approx(expected, abs=1e-12)


def test_across_target_r__undefined_is_nan(pair):
    o, p = pair
    flat = np.repeat(o[:, :1], T, axis=1)
    for f in (metrics.across_target_r, metrics.across_target_r_per_gene):
        assert np.isnan(f(flat, p))
        assert np.isnan(f(o[:, :1], p[:, :1]))


def test_evaluate__values(pair):
    o, p = pair
    result = metrics.evaluate(o, p, NAMES, n_bootstrap=11)
    assert list(result) == ["per_target", "mean", "across_target"]
    assert list(result["per_target"]) == NAMES
    expected = {"mse": np.mean((o - p) ** 2, axis=0), "mae": np.mean(np.abs(o - p), axis=0),
                "pearson": [stats.pearsonr(a, b)[0] for a, b in zip(o.T, p.T, strict=True)],
                "spearman": [stats.spearmanr(a, b)[0] for a, b in zip(o.T, p.T, strict=True)]}
    for metric, values in expected.items():
        got = [result["per_target"][name][metric]["value"] for name in NAMES]
        np.testing.assert_allclose(got, values, atol=1e-12)
        assert result["mean"][metric]["value"] == pytest.approx(np.mean(values))
    assert result["across_target"]["value"] == pytest.approx(metrics.across_target_r(o, p))


def test_bootstrap__equals_resampling_by_hand(pair):
    o, p = pair
    draws, across = metrics._bootstrap(o, p, 7, seed=5)
    picks = np.random.default_rng(5).integers(G, size=(7, G))
    for i, pick in enumerate(picks):
        a, b = o[pick], p[pick]
        for t in range(T):
            by_hand = [np.mean((a[:, t] - b[:, t]) ** 2), np.mean(np.abs(a[:, t] - b[:, t])),
                       stats.pearsonr(a[:, t], b[:, t])[0], stats.spearmanr(a[:, t], b[:, t])[0]]
            np.testing.assert_allclose(draws[i, t], by_hand, atol=1e-10)
        assert across[i] == pytest.approx(metrics.across_target_r(a, b), abs=1e-10)


def test_evaluate__intervals_hold_the_truth_about_95_percent():
    rng, rho, inside, n = np.random.default_rng(0), 0.7, 0, 200
    for i in range(n):
        x = rng.normal(size=(211, 1))
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=x.shape)
        r = metrics.evaluate(x, y, ["a"], n_bootstrap=199, seed=i)["per_target"]["a"]["pearson"]
        inside += r["low"] <= rho <= r["high"]
    assert 0.88 <= inside / n <= 0.99


def test_evaluate__seed_and_single_target(pair):
    o, p = pair
    first, same = (metrics.evaluate(o, p, NAMES, n_bootstrap=31, seed=2) for _ in range(2))
    other = metrics.evaluate(o, p, NAMES, n_bootstrap=31, seed=3)
    assert first == same
    assert first["mean"]["mse"]["low"] != other["mean"]["mse"]["low"]
    assert first["mean"]["mse"]["value"] == other["mean"]["mse"]["value"]
    assert metrics.evaluate(o[:, :1], p[:, :1], ["a"], n_bootstrap=3)["across_target"] is None


def test_evaluate__constant_prediction_is_nan_not_a_crash(pair):
    o, _ = pair
    result = metrics.evaluate(o, np.full((G, T), 0.1), NAMES, n_bootstrap=13)
    assert result["mean"]["mse"]["low"] < result["mean"]["mse"]["value"] < result["mean"]["mse"]["high"]
    for figure in (result["mean"]["pearson"], result["per_target"]["b"]["spearman"], result["across_target"]):
        assert np.isnan(list(figure.values())).all()


def test_evaluate__bad_input(pair):
    o, p = pair
    with pytest.raises(SchemaError, match=r"\(genes, 4 targets\)"):
        metrics.evaluate(o, p, NAMES[:4])
    with pytest.raises(SchemaError, match="empty"):
        metrics.evaluate(o[:0], p[:0], NAMES)
    broken = p.copy()
    broken[17, 2] = np.nan
    with pytest.raises(SchemaError, match=r"1 of 265 predicted values .* gene 17, target c"):
        metrics.evaluate(o, broken, NAMES)
    with pytest.raises(SchemaError, match="differ"):
        metrics.evaluate(o, p, ["a"] * T)


def test_noise_ceiling__replicates_agree_with_truth():
    rng = np.random.default_rng(1)
    clean = rng.normal(size=(20011, 2))
    first, second = (clean + rng.normal(0, 0.5, clean.shape) for _ in range(2))
    ceiling = metrics.noise_ceiling(clean, first)
    assert ceiling.shape == (2,)
    np.testing.assert_allclose(ceiling, 1 / np.sqrt(1.25), atol=0.01)
    r = metrics.pearson(first[:, 0], second[:, 0])
    assert metrics.ceiling_from_replicates(r) == pytest.approx(ceiling[0], abs=0.01)
    mean = metrics.noise_ceiling(clean, (first + second) / 2)[0]
    assert metrics.ceiling_from_replicates(r, n_averaged=2) == pytest.approx(mean, abs=0.01)
    assert metrics.ceiling_from_replicates(-0.2) == 0
    with pytest.raises(ValueError, match="at most 1"):
        metrics.ceiling_from_replicates(1.2)
