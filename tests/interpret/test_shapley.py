"""Shapley values: games with known answer, the axioms, and elements planted in models."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError, UnknownNameError, UnsupportedError
from ciscribe.interpret.shapley import element_shapley, shapley
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.sequence import decode, encode


def pairwise(n, seed=0):
    """Linear and pairwise game with two outputs, and its values: each pair shares its term."""
    rng = np.random.default_rng(seed)
    linear, pairs = rng.normal(size=(n, 2)), np.triu(rng.normal(size=(n, n)), 1)

    def value(who):
        both = np.einsum("ki,kj,ij->k", who, who, pairs)
        return 3 + who @ linear + np.stack([both, -2 * both], axis=1)

    half = (pairs + pairs.T).sum(axis=1) / 2
    return value, linear + np.stack([half, -2 * half], axis=1)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_shapley__exact_values_of_a_pairwise_game(n):
    value, wanted = pairwise(n)
    found = shapley(value, n)
    np.testing.assert_allclose(found.values, wanted, atol=1e-10)
    np.testing.assert_allclose(found.values.sum(axis=0), found.together, atol=1e-10)
    assert not found.standard_error.any()


def test_shapley__is_the_mean_over_all_orders():
    worth = np.random.default_rng(1).normal(size=16)
    found = shapley(lambda who: worth[who @ (1 << np.arange(4))], 4).values[:, 0]
    wanted = np.zeros(4)
    for order in permutations(range(4)):
        code = 0
        for player in order:
            wanted[player] += (worth[code | 1 << player] - worth[code]) / 24
            code |= 1 << player
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_shapley__samples_beyond_twelve_players():
    n = 17
    value, wanted = pairwise(n)
    found = shapley(value, n, n_permutations=4)
    np.testing.assert_allclose(found.values, wanted, atol=1e-10)  # an order and its reverse see each pair both ways
    np.testing.assert_allclose(found.standard_error, 0, atol=1e-10)

    def all_of_three(who):
        return who[:, :3].all(axis=1) * 1.0 + who[:, 5] * 0.5

    near = shapley(all_of_three, n, n_permutations=400, seed=3)
    np.testing.assert_allclose(near.values[:3, 0], 1 / 3, atol=4 * near.standard_error[:3, 0].max())
    assert 0 < near.standard_error[:3].max() < 0.05
    assert near.values[5, 0] == pytest.approx(0.5)
    assert not near.values[6:].any()
    np.testing.assert_allclose(near.values.sum(), 1.5, atol=1e-12)
    again, other = (shapley(all_of_three, n, n_permutations=400, seed=s) for s in (3, 4))
    np.testing.assert_array_equal(again.values, near.values)
    assert (other.values != near.values).any()


def test_shapley__standard_error_is_how_far_values_spread():
    def value(who):
        return who[:, :5].all(axis=1) * 1.0

    runs = [shapley(value, 13, n_permutations=40, seed=s) for s in range(60)]
    spread = np.std([run.values[:5, 0] for run in runs], axis=0).mean()
    assert spread == pytest.approx(np.mean([run.standard_error[:5, 0] for run in runs]), rel=0.25)


def test_shapley__asks_no_coalition_twice():
    asked = []

    def value(who):
        asked.append(who)
        return who.sum(axis=1) * 1.0

    shapley(value, 13, n_permutations=8)
    who = np.concatenate(asked)
    assert len(np.unique(who, axis=0)) == len(who) <= 2 + 8 * 12


def test_shapley__refuses_bad_games():
    with pytest.raises(SchemaError, match="at least 1 player; got 0"):
        shapley(lambda who: who, 0)
    with pytest.raises(SchemaError, match="permutations come in pairs"):
        shapley(lambda who: who.sum(axis=1) * 1.0, 13, n_permutations=5)
    with pytest.raises(SchemaError, match=r"4 coalitions is finite numbers \(4, T\); got shape \(4, 1\) with NaN"):
        shapley(lambda who: who.sum(axis=1) * np.nan, 2)
    with pytest.raises(SchemaError, match=r"got shape \(3, 1\)$"):
        shapley(lambda who: np.zeros(3), 2)


class Redundant(nn.Module):
    """1 when TTTTT stands anywhere, twice or once; the number of C; 1 when a T stands at position 14."""

    def forward(self, X):
        found = nn.functional.conv1d(X[:, 3:], X.new_ones(1, 1, 5)).amax(2) == 5
        return torch.cat([found.float(), X[:, 1].sum(1, keepdim=True), X[:, 3, 14:15]], dim=1)


WINDOW = encode("ACGAC" + "TTTTT" + "GACG" + "TTTTT" + "CAGCC" + "CACGA")
ELEMENTS = pd.DataFrame({"region": [1, 1, 1, 0], "start": [5, 14, 19, 5], "end": [10, 19, 24, 10],
                         "gene_id": ["g", "g", "g", "h"]})


def windows():
    other = WINDOW.copy()
    other[14:19] = 0
    return torch.from_numpy(np.stack([other, WINDOW]))


def test_element_shapley__shares_what_redundant_elements_do():
    table = element_shapley(Oracle(Redundant(), device="cpu"), windows(), ELEMENTS, hide="N")
    assert list(table.columns) == ["region", "start", "end", "gene_id", "track", "shapley", "standard_error"]
    by = table.set_index(["region", "start", "track"])["shapley"]
    np.testing.assert_allclose([by[1, 5, 0], by[1, 14, 0], by[1, 19, 0], by[0, 5, 0]], [0.5, 0.5, 0, 1], atol=1e-6)
    np.testing.assert_allclose([by[1, 5, 1], by[1, 14, 1], by[1, 19, 1]], [0, 0, decode(WINDOW[19:24]).count("C")],
                               atol=1e-5)
    assert list(ELEMENTS.columns) == ["region", "start", "end", "gene_id"]


def test_element_shapley__shuffles_by_default_and_keeps_composition():
    oracle, X = Oracle(Redundant(), device="cpu"), windows()
    elements = pd.DataFrame({"region": [1, 1], "start": [3, 12], "end": [12, 22]})
    table = element_shapley(oracle, X, elements, n_shuffles=7, seed=2)
    count = table[table["track"] == 1]["shapley"]
    np.testing.assert_allclose(count, 0, atol=1e-5)
    here = table[table["track"] == 2]["shapley"].tolist()
    assert here[0] == pytest.approx(0, abs=1e-6)
    assert 0 < here[1] < 1
    pd.testing.assert_frame_equal(table, element_shapley(oracle, X, elements, n_shuffles=7, seed=2, batch_size=3))


class Masked(nn.Module):
    """Bins 2 and 5 are needed together, bin 7 adds the first signal there; erased bins are not seen."""

    def posterior(self, X, S=None):
        raise NotImplementedError

    def forward(self, X, S, covariates, keep=None):
        keep = X.new_ones(len(X), X.shape[2] // 5) if keep is None else keep
        return (keep[:, 2] * keep[:, 5] * covariates[:, 0] + keep[:, 7] * S[:, 0, 7])[:, None]


def test_element_shapley__erases_bins_of_the_mask():
    X = torch.zeros(2, 55, dtype=torch.uint8)
    S, covariates = torch.rand(2, 3, 11), torch.tensor([[4.0], [6.0]])
    elements = pd.DataFrame({"region": 1, "start": [10, 26, 33, 45], "end": [15, 28, 35, 55]})
    oracle = Oracle(Masked(), device="cpu")
    table = element_shapley(oracle, X, elements, S, covariates, resolution=5)
    np.testing.assert_allclose(table["shapley"], [3, 3, 0, 0], atol=1e-5)
    elements = elements.assign(end=[15, 28, 36, 55])  # one bp of bin 7
    table = element_shapley(oracle, X, elements, S, covariates, resolution=5)
    np.testing.assert_allclose(table["shapley"], [3, 3, float(S[1, 0, 7]), 0], atol=1e-5)
    hidden = torch.ones(1, 11)
    hidden[:, [2, 5, 6, 7, 9, 10]] = 0
    alone = oracle.predict(X[1:], S[1:], covariates[1:])
    np.testing.assert_allclose(table["shapley"].sum(), alone - oracle.predict(X[1:], S[1:], covariates[1:], hidden),
                               rtol=1e-5)


def test_element_shapley__of_our_masked_model_sums_to_the_erasure_of_all():
    torch.manual_seed(0)
    model = registry.create("seq2exp", n_targets=2, n_signals=2, n_covariates=5, resolution=16, d_model=11, n_layers=1,
                            d_state=3, expand=1).train()
    X = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (1, 112)).astype(np.uint8))
    S, covariates = torch.rand(1, 2, 7), torch.randn(1, 5)
    elements = pd.DataFrame({"region": 0, "start": [0, 32, 64], "end": [16, 64, 96]})
    oracle = Oracle(model, device="cpu")
    table = element_shapley(oracle, X, elements, S, covariates, resolution=16)
    keep = torch.tensor([[0.0, 1, 0, 0, 0, 0, 1]])
    wanted = oracle.predict(X, S, covariates) - oracle.predict(X, S, covariates, keep)
    np.testing.assert_allclose(table.groupby("track")["shapley"].sum(), wanted[0], atol=1e-5)
    assert (table["shapley"] != 0).all()
    assert model.training


def test_element_shapley__refuses_what_it_cannot_hide():
    oracle, masked = Oracle(Redundant(), device="cpu"), Oracle(Masked(), device="cpu")
    with pytest.raises(UnsupportedError, match="Redundant has no mask to erase elements from; use hide='shuffle'"):
        element_shapley(oracle, windows(), ELEMENTS, hide="keep", resolution=5)
    with pytest.raises(UnknownNameError, match="did you mean 'shuffle'"):
        element_shapley(oracle, windows(), ELEMENTS, hide="shufle")
    with pytest.raises(SchemaError, match="give the resolution of its bins, which divides the window of 35 bp; got 4"):
        element_shapley(masked, torch.zeros(2, 35, dtype=torch.uint8), ELEMENTS, resolution=4)
    with pytest.raises(SchemaError, match="missing: start, end"):
        element_shapley(oracle, windows(), ELEMENTS[["region"]])
    with pytest.raises(SchemaError, match=r"1 of 4 elements are not an interval in one of the 2 windows of 29 bp; "
                                          r"first: row 2, region 1, 19-31"):
        element_shapley(oracle, windows(), ELEMENTS.assign(end=[10, 19, 31, 10]))
