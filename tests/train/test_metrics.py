
import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance
from sklearn.metrics import average_precision_score, roc_auc_score

from ciscribe.errors import SchemaError
from ciscribe.train import labels, metrics, profiles

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


# ---- targets that were not measured


@pytest.fixture
def holes(pair):
    o, p = pair[0].copy(), pair[1]
    o[np.random.default_rng(7).random(o.shape) < 0.3] = np.nan
    o[11] = np.nan
    o[12, 1:] = np.nan
    return o, p


def test_evaluate__judges_each_target_on_its_measured_rows(holes):
    o, p = holes
    result = metrics.evaluate(o, p, NAMES, n_bootstrap=0)
    for t, name in enumerate(NAMES):
        m = ~np.isnan(o[:, t])
        alone = metrics.evaluate(o[m, t:t + 1], p[m, t:t + 1], [name], n_bootstrap=0)
        for metric in metrics.METRICS:
            assert result["per_target"][name][metric]["value"] == alone["per_target"][name][metric]["value"]
    within = [(o[i, m] - o[i, m].mean(), p[i, m] - p[i, m].mean()) for i, m in enumerate(~np.isnan(o)) if m.any()]
    expected = stats.pearsonr(*(np.concatenate(side) for side in zip(*within, strict=True)))[0]
    assert result["across_target"]["value"] == pytest.approx(expected, abs=1e-12)


def test_evaluate__a_target_without_any_row_is_left_out_of_the_mean(holes):
    o, p = holes
    o[:, 3] = np.nan
    result, rest = metrics.evaluate(o, p, NAMES, n_bootstrap=17), [0, 1, 2, 4]
    without = metrics.evaluate(o[:, rest], p[:, rest], [NAMES[t] for t in rest], n_bootstrap=17)
    for metric in metrics.METRICS:
        assert result["mean"][metric] == pytest.approx(without["mean"][metric])
    assert np.isnan(list(result["per_target"]["d"]["mse"].values())).all()
    assert np.isfinite(list(result["mean"]["spearman"].values())).all()


def test_bootstrap__of_measured_rows_equals_resampling_by_hand(holes):
    o, p = holes
    draws, across = metrics._bootstrap(o, p, 7, seed=5)
    for i, pick in enumerate(np.random.default_rng(5).integers(G, size=(7, G))):
        a, b = o[pick], p[pick]
        for t in range(T):
            m = ~np.isnan(a[:, t])
            by_hand = [np.mean((a[m, t] - b[m, t]) ** 2), np.mean(np.abs(a[m, t] - b[m, t])),
                       stats.pearsonr(a[m, t], b[m, t])[0], stats.spearmanr(a[m, t], b[m, t])[0]]
            np.testing.assert_allclose(draws[i, t], by_hand, atol=1e-10)
        assert across[i] == pytest.approx(metrics.across_target_r(a, b), abs=1e-10)


def test_evaluate__nothing_measured_or_infinite(pair):
    o, p = pair
    with pytest.raises(SchemaError, match="every observed value is NaN"):
        metrics.evaluate(np.full_like(o, np.nan), p, NAMES)
    o[3, 4] = np.inf
    with pytest.raises(SchemaError, match=r"1 of 265 observed values are infinite; first: gene 3, target e"):
        metrics.evaluate(o, p, NAMES)


# ---- labels


@pytest.fixture
def labelled():
    rng = np.random.default_rng(2)
    y = (rng.random((G, T)) < [0.5, 0.3, 0.2, 0.6, 0.4]).astype(float)
    return y, np.round(y + rng.normal(0, 1, y.shape), 1)  # rounded: ties


def test_labels__equal_scikit_learn(labelled):
    for y, p in zip(*(v.T for v in labelled), strict=True):
        assert labels.auroc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-12)
        assert labels.auprc(y, p) == pytest.approx(average_precision_score(y, p), abs=1e-12)


def test_evaluate_labels__values_holes_and_prevalence(labelled):
    y, p = labelled
    y[3:9, 1] = np.nan
    y[:, 2] = 0  # no positive: undefined
    result = labels.evaluate_labels(y, p, NAMES, n_bootstrap=19)
    m = ~np.isnan(y[:, 1])
    assert result["per_target"]["b"]["auprc"]["value"] == pytest.approx(average_precision_score(y[m, 1], p[m, 1]))
    assert result["prevalence"]["b"] == pytest.approx(y[m, 1].mean())
    assert np.isnan(list(result["per_target"]["c"]["auroc"].values())).all()
    rest = [roc_auc_score(y[~np.isnan(y[:, t]), t], p[~np.isnan(y[:, t]), t]) for t in (0, 1, 3, 4)]
    assert result["mean"]["auroc"]["value"] == pytest.approx(np.mean(rest))
    assert result["mean"]["auroc"]["low"] < result["mean"]["auroc"]["value"] < result["mean"]["auroc"]["high"]


def test_evaluate_labels__limits_equal_resampling_by_hand(labelled):
    y, p = (v[:, :1] for v in labelled)
    result = labels.evaluate_labels(y, p, ["a"], n_bootstrap=7, seed=5)["per_target"]["a"]
    picks = np.random.default_rng(5).integers(G, size=(7, G))
    for metric, function in (("auroc", roc_auc_score), ("auprc", average_precision_score)):
        draws = [function(y[pick, 0], p[pick, 0]) for pick in picks]
        assert [result[metric]["low"], result[metric]["high"]] == pytest.approx(
            np.percentile(draws, [2.5, 97.5]).tolist(), abs=1e-12)


def test_evaluate_labels__no_target_with_both_labels_and_wrong_labels(labelled):
    y, p = labelled
    result = labels.evaluate_labels(np.zeros_like(y), p, NAMES, n_bootstrap=3)
    assert np.isnan(list(result["mean"]["auprc"].values())).all()
    y[5, 3] = 2
    with pytest.raises(SchemaError, match=r"1 of 265 are not; first: row 5, target d: 2; binarize them"):
        labels.evaluate_labels(y, p, NAMES)


# ---- profiles and tracks

N, L = 11, 7


@pytest.fixture
def tracks():
    rng = np.random.default_rng(4)
    rate = rng.gamma(2, 3, (N, T, L))
    return rng.poisson(rate).astype(float), rate


def test_jensen_shannon__equals_scipy(tracks):
    o, p = tracks
    got = profiles.jensen_shannon(o, p)
    for i in range(N):
        for t in range(T):
            assert got[i, t] == pytest.approx(distance.jensenshannon(o[i, t], p[i, t]), abs=1e-12)
    edge = profiles.jensen_shannon(np.array([[1.0, 0], [0, 0], [1, np.nan]]), np.array([[0.0, 3], [1, 2], [1, 2]]))
    np.testing.assert_allclose(edge, [np.sqrt(np.log(2)), np.nan, np.nan])


def test_evaluate_profiles__shape_and_totals_apart(tracks):
    o, p = tracks
    o[2, 1] = 0  # nothing to judge the shape by
    o[5, 3, 4] = np.nan
    result = profiles.evaluate_profiles(o, 10 * p, NAMES, n_bootstrap=13)
    rows = [i for i in range(N) if i != 2]
    expected = np.mean([distance.jensenshannon(o[i, 1], p[i, 1]) for i in rows])
    assert result["profile"]["b"]["jsd"]["value"] == pytest.approx(expected, abs=1e-12)
    expected = np.mean([stats.pearsonr(o[i, 1], p[i, 1])[0] for i in rows])
    assert result["profile"]["b"]["pearson"]["value"] == pytest.approx(expected, abs=1e-12)
    assert result["mean"]["jsd"]["low"] < result["mean"]["jsd"]["value"] < result["mean"]["jsd"]["high"]
    rows = [i for i in range(N) if i != 5]
    expected = stats.spearmanr(o[rows, 3].sum(1), p[rows, 3].sum(1))[0]
    assert result["counts"]["per_target"]["d"]["spearman"]["value"] == pytest.approx(expected)


def test_evaluate_profiles__strands_share_their_total(tracks):
    o, p = (v[:, :4] for v in tracks)
    result = profiles.evaluate_profiles(o, p, NAMES[:4], strands=2, n_bootstrap=0)
    assert list(result["counts"]["per_target"]) == ["a/b", "c/d"]
    expected = stats.pearsonr(np.log1p(o[:, 2:].sum((1, 2))), np.log1p(p[:, 2:].sum((1, 2))))[0]
    assert result["counts"]["per_target"]["c/d"]["pearson"]["value"] == pytest.approx(expected)


def test_evaluate_tracks__over_regions_and_bins_and_across_tracks(tracks):
    o, p = tracks
    o[4, 2, 1:3] = np.nan
    result = profiles.evaluate_tracks(o, p, NAMES, n_bootstrap=7, seed=5)
    flat_o, flat_p = (v.transpose(0, 2, 1).reshape(N * L, T) for v in (o, p))
    for t, name in enumerate(NAMES):
        m = ~np.isnan(flat_o[:, t])
        assert result["per_target"][name]["pearson"]["value"] == pytest.approx(
            stats.pearsonr(flat_o[m, t], flat_p[m, t])[0], abs=1e-12)
    assert result["across_target"]["value"] == pytest.approx(metrics.across_target_r(flat_o, flat_p), abs=1e-12)
    draws = []
    for pick in np.random.default_rng(5).integers(N, size=(7, N)):  # whole regions, with all of their bins
        a, b = o[pick, 0].ravel(), p[pick, 0].ravel()
        draws.append(stats.pearsonr(a, b)[0])
    limits = result["per_target"]["a"]["pearson"]
    assert [limits["low"], limits["high"]] == pytest.approx(np.percentile(draws, [2.5, 97.5]).tolist(), abs=1e-10)
    assert profiles.evaluate_tracks(o[:, :1], p[:, :1], ["a"], n_bootstrap=3)["across_target"] is None


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
