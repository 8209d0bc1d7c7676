"""Fronts of several aims: by the definition, and of a law whose front is known."""

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.design.front import Pareto, crowding, design_front, front
from ciscribe.design.objective import Maximize, Minimize
from ciscribe.design.rules import Homopolymer
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError
from ciscribe.oracle import Oracle

L = 13


class Roots(nn.Module):
    """Square roots of the numbers of A and of C: all sequences of A and C alone are unbeaten, and no other is."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, X):
        self.asked += len(X)
        return (X[:, :2].sum(dim=2) + 1e-6).sqrt()


@pytest.fixture
def X():
    codes = np.random.default_rng(0).integers(0, 4, (7, L)).astype(np.uint8)
    return torch.eye(4)[torch.from_numpy(codes).long()].transpose(1, 2)


def aims(model):
    oracle = Oracle(model)
    return Pareto(Maximize(oracle, 0), Maximize(oracle, 1), weights=[3, 1])


@pytest.mark.parametrize("method", ["greedy", "genetic"])
def test_design_front__finds_the_known_front_and_its_ends(method):
    model = Roots()
    start = np.random.default_rng(1).integers(0, 4, (2, L)).astype(np.uint8)
    found = design_front(aims(model), start, method, n_weights=3, n=11, budget=7_000)
    assert found.queries <= 7_000
    if method != "greedy":  # which asks for differences, after a look at the model
        assert model.asked == found.queries
    assert (found.components["front"] == 0).all()
    assert np.isin(found.codes, (0, 1)).all()  # A and C
    n_a = (found.codes == 0).sum(axis=1)
    assert {0, L} <= set(n_a)
    assert len(set(n_a)) >= 3
    assert len(np.unique(np.column_stack([found.origin, found.codes]), axis=0)) == len(found) == 11
    np.testing.assert_allclose(found.score, 0.75 * np.sqrt(n_a) + 0.25 * np.sqrt(L - n_a), atol=1e-2)
    X = torch.eye(4)[torch.from_numpy(start).long()].transpose(1, 2)
    np.testing.assert_allclose(found.start_score, aims(Roots())(X), atol=1e-5)
    assert found.history["queries"].is_monotonic_increasing
    assert found.history["run"].unique().tolist() == [0, 1, 2]
    assert (found.found_at <= found.queries).all()
    one = design(aims(Roots()), start, method, n=11, budget=7_000)
    assert len(set((one.codes == 0).sum(axis=1))) < len(set(n_a))  # a single weighting finds one end of it
    again = design_front(aims(Roots()), start, method, n_weights=3, n=11, budget=7_000)
    np.testing.assert_array_equal(again.codes, found.codes)


def test_design_front__keeps_rules_and_orders_by_front():
    found = design_front(aims(Roots()), None, "genetic", n_weights=4, n=50, budget=4_000, length=L,
                         constraints=[Homopolymer(3)])
    values = np.sqrt(np.stack([(found.codes == base).sum(axis=1) for base in (0, 1)], axis=1) + 1e-6)
    assert found.components["front"].is_monotonic_increasing
    rank = found.components["front"].to_numpy()
    assert rank.max() > 0
    for i in np.flatnonzero(rank == 0):
        assert not ((values >= values[i]).all(axis=1) & (values > values[i]).any(axis=1)).any()
    assert not any("AAAA" in row or "CCCC" in row for row in found.table()["sequence"])


def test_design_front__bad_settings_are_refused():
    with pytest.raises(ConfigError, match="a front of 2 aims needs n_weights of 2 or more; got 1"):
        design_front(aims(Roots()), None, length=L, n_weights=1)
    with pytest.raises(ConfigError, match="the budget of 33 calls pays for 33"):
        design_front(aims(Roots()), None, "genetic", length=L, n_weights=3, budget=100)


def oracle():
    torch.manual_seed(0)
    return Oracle(nn.Sequential(nn.Flatten(), nn.Linear(4 * L, 3)))


def test_pareto__keeps_the_vector(X):
    a, b = Maximize(oracle(), 0), Minimize(oracle(), 1)
    both = Pareto(a, b, weights=[3, 1])
    parts = both.components(X)
    torch.testing.assert_close(both.values(parts), torch.stack([a(X), b(X)], dim=1))
    torch.testing.assert_close(both(X), 0.75 * a(X) + 0.25 * b(X))
    for bad in ([1], [1, -1], [0, 0]):
        with pytest.raises(ConfigError, match="as many weights"):
            Pareto(a, b, weights=bad)
    with pytest.raises(ConfigError, match="two or more objectives; got 1"):
        Pareto(a)


def test_front__by_the_definition():
    values = np.random.default_rng(0).integers(0, 7, (83, 3)).astype(float)
    left, expected, level = list(range(83)), np.zeros(83, int), 0
    while left:
        best = [i for i in left
                if not any((values[j] >= values[i]).all() and (values[j] > values[i]).any() for j in left)]
        expected[best] = level
        left, level = [i for i in left if i not in best], level + 1
    assert front(values).tolist() == expected.tolist()
    assert level > 3
    assert front(np.zeros((0, 2))).tolist() == []
    assert front(np.ones((3, 2))).tolist() == [0, 0, 0]  # equal rows do not beat each other


def test_crowding__prefers_the_ends_and_the_lonely():
    values = np.array([[0, 10], [1, 9], [2, 8], [9, 1], [10, 0], [0, 0.0]])
    rank = front(values)
    assert rank.tolist() == [0, 0, 0, 0, 0, 1]
    got = crowding(values, rank)
    np.testing.assert_allclose(got, [np.inf, 0.4, 1.6, 1.6, np.inf, np.inf])
    assert sorted(np.lexsort((-got, rank))[:4]) == [0, 2, 3, 4]
