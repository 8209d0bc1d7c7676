"""Surrogates give back the laws that were planted."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError, UnknownNameError
from ciscribe.interpret.surrogate import local_surrogate, syntax_surrogate, two_factor_occupancy
from ciscribe.oracle import Oracle
from ciscribe.results import check_attribution_array
from ciscribe.sequence import one_hot, one_hot_tensor

LENGTH = 211


def planted_hits(n=401, seed=0):
    """Random instances of an activator, a partner, a repressor and a bystander."""
    rng = np.random.default_rng(seed)
    rows = []
    for region in range(n):
        for motif, rate in (("act", 1.3), ("part", 1.3), ("rep", 0.8), ("none", 1.1)):
            for _ in range(rng.poisson(rate)):
                start = int(rng.integers(0, LENGTH - 8))
                rows.append((region, start, start + 8, rng.choice(["+", "-"]), motif, rng.uniform(0.5, 1.5)))
    return pd.DataFrame(rows, columns=["region", "start", "end", "strand", "motif", "score"])


def law_of(hits, n, synergy=2.0, noise=0.1, seed=1):
    """1 act + 0.3 part − 0.8 rep + synergy · act · part at gaps 10 to 30, written out pair by pair."""
    y = np.zeros(n)
    for region, rows in hits.groupby("region"):
        weight = rows["motif"].map({"act": 1.0, "part": 0.3, "rep": -0.8, "none": 0.0})
        y[region] += (weight * rows["score"]).sum()
        for a in rows.query("motif == 'act'").itertuples():
            for b in rows.query("motif == 'part'").itertuples():
                gap = max(a.start, b.start) - min(a.end, b.end)
                y[region] += synergy * a.score * b.score * (10 <= gap < 30)
    return y + noise * np.random.default_rng(seed).normal(size=n)


HITS = planted_hits()
Y = law_of(HITS, 401)


def test_syntax_surrogate__finds_activator_repressor_and_spaced_synergy():
    fit = syntax_surrogate(HITS, Y, n_bootstrap=50, seed=3)
    single = fit.coefficients.query("kind == 'motif'").set_index("motif_a")["coefficient"]
    for motif, truth in (("act", 1.0), ("part", 0.3), ("rep", -0.8), ("none", 0.0)):
        assert single[motif] == pytest.approx(truth, abs=0.06)
    pairs = fit.coefficients.query("kind == 'pair'").set_index(["motif_a", "motif_b", "low", "high"])
    planted = ("act", "part", 10, 30)
    assert pairs.loc[planted, "coefficient"] == pytest.approx(2.0, abs=0.1)
    assert pairs.loc[planted, "coefficient_low"] > 1.8
    assert pairs["coefficient"].drop(index=[planted]).abs().max() < 0.25
    assert fit.r2 > 0.98
    assert 0.2 < fit.r2_additive < fit.r2 - 0.1
    fresh = planted_hits(101, seed=7)
    np.testing.assert_allclose(fit.predict(fresh, 101), law_of(fresh, 101, noise=0), atol=0.5)


def test_syntax_surrogate__additive_law_needs_no_pairs():
    y = law_of(HITS, 401, synergy=0)
    fit = syntax_surrogate(HITS, y, n_bootstrap=0)
    assert fit.r2 == pytest.approx(fit.r2_additive, abs=0.01)
    assert np.isnan(fit.coefficients["coefficient_low"]).all()
    alone = syntax_surrogate(HITS, y, gaps=None, n_bootstrap=0)
    assert set(alone.coefficients["kind"]) == {"motif"}
    assert alone.r2 == alone.r2_additive


def test_syntax_surrogate__noise_is_not_explained():
    y = np.random.default_rng(5).normal(size=401)
    assert syntax_surrogate(HITS, y, n_bootstrap=0).r2 < 0.05


def test_syntax_surrogate__place_strand_order_and_orientation():
    mine = HITS.query("motif in ['act', 'part']")
    y = np.zeros(401)
    for region, rows in mine.groupby("region"):
        acts = rows.query("motif == 'act'")
        y[region] += ((acts["strand"] == "+") * acts["score"]).sum()
        y[region] += (((acts["start"] + 4).between(50, 99)) * acts["score"]).sum()
        for a in acts.itertuples():
            for b in rows.query("motif == 'part'").itertuples():
                is_planted = a.strand == "+" and b.strand == "-" and 0 <= b.start - a.end < 100
                y[region] += a.score * b.score * is_planted
    fit = syntax_surrogate(mine, y, positions=[0, 50, 100, LENGTH], gaps=[0, 100], by_strand=True, by_orientation=True,
                           by_order=True, n_bootstrap=0)
    assert fit.r2 > 0.97
    table = fit.coefficients.set_index(["kind", "motif_a", "motif_b", "strand", "order", "low"])["coefficient"]
    pairs = table.loc["pair"]
    assert pairs.idxmax() == ("act", "part", "+-", "ab", 0)
    assert pairs.max() > 0.9
    assert pairs.drop(index=[pairs.idxmax()]).abs().max() < 0.15
    np.testing.assert_allclose(fit.predict(mine, 401), y, atol=0.9)


def test_syntax_surrogate__lasso_leaves_the_bystander_out():
    fit = syntax_surrogate(HITS, Y, penalty="lasso", gaps=[10, 30], n_bootstrap=0)
    single = fit.coefficients.query("kind == 'motif'").set_index("motif_a")["coefficient"]
    assert abs(single["none"]) < 0.02
    assert single["rep"] < -0.7
    assert fit.r2 > 0.98


def test_syntax_surrogate__refuses():
    with pytest.raises(SchemaError, match="y must be finite and vary"):
        syntax_surrogate(HITS, np.zeros(401))
    with pytest.raises(SchemaError, match="a column 'strength'"):
        syntax_surrogate(HITS, Y, strength="strength")
    with pytest.raises(UnknownNameError, match="did you mean 'act'"):
        syntax_surrogate(HITS, Y, motifs=["actt"])
    with pytest.raises(SchemaError, match="gaps are at least two growing edges"):
        syntax_surrogate(HITS, Y, gaps=[30, 10])
    with pytest.raises(SchemaError, match="of 5 kinds or more"):
        syntax_surrogate(HITS, Y, groups=np.arange(401) % 3)
    with pytest.raises(SchemaError, match="lie in no sequence"):
        syntax_surrogate(HITS, Y[:101])


class Mutable(nn.Module):
    """A sum of base effects (and one pair), through an optional ceiling; the second readout is another sum."""

    def __init__(self, weights, pair=0.0, ceiling=False):
        super().__init__()
        self.register_buffer("weights", torch.as_tensor(weights).float())
        self.pair, self.ceiling = pair, ceiling

    def forward(self, X):
        phi = (X * self.weights[0]).sum((1, 2)) + self.pair * X[:, 2, 5] * X[:, 0, 8]
        if self.ceiling:
            phi = 5 * torch.sigmoid(phi)
        return torch.stack([phi, (X * self.weights[1]).sum((1, 2))], 1)


L = 23
WEIGHTS = np.random.default_rng(0).normal(size=(2, 4, L))
WEIGHTS -= WEIGHTS.mean(axis=1, keepdims=True)
WILD = np.random.default_rng(1).integers(0, 4, L).astype(np.uint8)
WILD[5], WILD[8] = 1, 1


def test_local_surrogate__gives_back_a_linear_model():
    fit = local_surrogate(Oracle(Mutable(WEIGHTS), device="cpu"), WILD, n=1009, nonlinearity=False, seed=2)
    check_attribution_array(fit.attribution)
    assert fit.attribution.shape == (1, 4, L, 2)
    np.testing.assert_allclose(fit.attribution.values[0], WEIGHTS.transpose(1, 2, 0), atol=0.01)
    assert (fit.r2 > 0.9999).all()
    assert fit.pairs.empty
    X = np.random.default_rng(3).integers(0, 4, (7, L)).astype(np.uint8)
    truth = Mutable(WEIGHTS)(one_hot_tensor(torch.from_numpy(X)))
    np.testing.assert_allclose(fit.predict(X), truth, atol=0.1)


def test_local_surrogate__wild_type_gauge():
    fit = local_surrogate(Oracle(Mutable(WEIGHTS), device="cpu"), one_hot(WILD[None]), n=1009, nonlinearity=False,
                          gauge="wild-type")
    relative = WEIGHTS[0] - np.take_along_axis(WEIGHTS[0], WILD[None].astype(int), 0)
    np.testing.assert_allclose(fit.attribution.values[0, :, :, 0], relative, atol=0.02)


def test_local_surrogate__sees_through_a_ceiling():
    """Behind a sigmoid the additive effects are found again up to scale, and much better than by a straight line."""
    oracle = Oracle(Mutable(WEIGHTS, ceiling=True), device="cpu")
    options = {"n": 2003, "mutation_rate": 0.3, "seed": 4}
    bent, straight = (local_surrogate(oracle, WILD, nonlinearity=on, **options) for on in (True, False))
    assert bent.r2[0] > 0.995
    assert straight.r2[0] < 0.95
    assert bent.r2_linear[0] == pytest.approx(straight.r2[0], abs=1e-6)
    r = [np.corrcoef(fit.attribution.values[0, :, :, 0].ravel(), WEIGHTS[0].ravel())[0, 1] for fit in (bent, straight)]
    assert r[0] > 0.999
    assert r[0] > r[1]
    curve = bent.curve.query("track == 0")
    assert (np.diff(curve["prediction"]) >= -1e-9).all()


def test_local_surrogate__finds_the_pair():
    oracle = Oracle(Mutable(WEIGHTS, pair=3.0), device="cpu")
    options = {"n": 4001, "mutation_rate": 0.3, "nonlinearity": False, "seed": 5}
    additive = local_surrogate(oracle, WILD, **options)
    pairwise = local_surrogate(oracle, WILD, model="pairwise", window=4, **options)
    assert pairwise.r2[0] > 0.99 > additive.r2[0]
    top = pairwise.pairs.query("track == 0").sort_values("effect").iloc[-1]
    assert (top["position_a"], top["base_a"], top["position_b"], top["base_b"]) == (5, "G", 8, "A")
    assert top["effect"] == pytest.approx(3, abs=0.2)
    assert pairwise.pairs.query("track == 1")["effect"].abs().max() < 0.1


def test_local_surrogate__leaves_n_alone_and_follows_the_seed():
    wild = WILD.copy()
    wild[3] = 4
    oracle = Oracle(Mutable(WEIGHTS), device="cpu")
    fits = [local_surrogate(oracle, wild, n=211, seed=seed).attribution.values for seed in (1, 1, 2)]
    assert (fits[0][:, :, 3] == 0).all()
    np.testing.assert_array_equal(fits[0], fits[1])
    assert (fits[0] != fits[2]).any()


def test_local_surrogate__refuses():
    oracle = Oracle(Mutable(WEIGHTS), device="cpu")
    with pytest.raises(SchemaError, match="one sequence; got 2"):
        local_surrogate(oracle, np.stack([WILD, WILD]))
    with pytest.raises(SchemaError, match="between 0 and 1"):
        local_surrogate(oracle, WILD, mutation_rate=0)
    with pytest.raises(SchemaError, match="50 mutants or more"):
        local_surrogate(oracle, WILD, n=49)
    with pytest.raises(SchemaError, match="additive or pairwise"):
        local_surrogate(oracle, WILD, model="cubic")
    with pytest.raises(SchemaError, match="same prediction"):
        local_surrogate(Oracle(Mutable(0 * WEIGHTS), device="cpu"), WILD, n=101)
    fit = local_surrogate(oracle, WILD, n=101, nonlinearity=False)
    with pytest.raises(SchemaError, match="a sequence of 23 bp; got 19 bp"):
        fit.predict(np.zeros((3, 19), np.uint8))


@pytest.mark.parametrize("bound", ["any", "both", "b"])
@pytest.mark.parametrize("omega", [4.0, 20.0])  # with bound="b" and 1, A does nothing and cannot be seen
def test_two_factor_occupancy__finds_the_cooperativity(bound, omega):
    rng = np.random.default_rng(6)
    a, b = rng.uniform(0, 10, (2, 2003))
    wa, wb = np.exp(-5 + 0.8 * a), np.exp(-6 + 0.9 * b)
    states = {"any": wa + wb + omega * wa * wb, "both": omega * wa * wb, "b": wb + omega * wa * wb}[bound]
    y = 2 + np.log(states / (1 + wa + wb + omega * wa * wb)) + 0.05 * rng.normal(size=2003)
    fit = two_factor_occupancy(a, b, y, bound=bound, seed=1)
    assert fit.omega == pytest.approx(omega, rel=0.2)
    assert fit.omega_low < omega < fit.omega_high
    values = fit.coefficients.set_index("name")["value"]
    np.testing.assert_allclose(values[["log_scale", "slope_a", "slope_b"]], [2, 0.8, 0.9], atol=0.1)
    assert fit.r2 > 0.98
    np.testing.assert_allclose(fit.predict(a, b), y, atol=0.4)


def test_two_factor_occupancy__refuses():
    a, b, y = np.random.default_rng(0).normal(size=(3, 31))
    with pytest.raises(SchemaError, match="12 or more"):
        two_factor_occupancy(a[:11], b[:11], y[:11])
    with pytest.raises(SchemaError, match="strength_b must be finite and vary"):
        two_factor_occupancy(a, np.full(31, 2.0), y)
    with pytest.raises(SchemaError, match="1 of 31 are not finite"):
        two_factor_occupancy(np.where(np.arange(31) == 3, np.nan, a), b, y)
    with pytest.raises(SchemaError, match="any, both or b"):
        two_factor_occupancy(a, b, y, bound="none")
