"""Robustness, evolvability and stability against all mutants written out, one prediction at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.design.fitness import Evolvability, Robustness, Stability, evolvability_vector, substitution_effects
from ciscribe.design.objective import Maximize
from ciscribe.design.score import Query
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.oracle import Oracle
from ciscribe.sequence import encode, one_hot_tensor, reverse_complement_codes

N, L, T = 5, 13, 3
LEFT, RIGHT = "ACGTA", "GA"
torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self, length=L, n_tracks=T):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.drop, self.head = nn.Conv1d(4, 7, 5), nn.Dropout(0.5), nn.Linear(7 * (length - 4), n_tracks)

    def forward(self, X):
        return self.head(self.drop(self.conv(X).tanh()).flatten(1))


class Law(nn.Module):
    def __init__(self, law):
        super().__init__()
        self.law = law

    def forward(self, X):
        return self.law(X)


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(0, 4, (N, L)).astype(np.uint8)


def neighbours(codes):
    """All 3L single mutants."""
    out = []
    for i in range(len(codes)):
        for base in range(4):
            if base != codes[i]:
                mutant = codes.copy()
                mutant[i] = base
                out.append(mutant)
    return np.array(out)


def predict(oracle, codes, track, both):
    whole = np.concatenate([np.tile(encode(LEFT), (len(codes), 1)), codes, np.tile(encode(RIGHT), (len(codes), 1))], 1)
    y = oracle.predict(torch.from_numpy(whole))
    if both:
        y = (y + oracle.predict(torch.from_numpy(reverse_complement_codes(whole)))) / 2
    return y[:, track].numpy()


@pytest.mark.parametrize("both", [True, False])
def test_neighbours__are_all_single_substitutions(codes, both):
    oracle = Oracle(Net(L + 7), device="cpu")
    options = {"flanks": (LEFT, RIGHT), "both_strands": both}
    effects = [predict(oracle, neighbours(x), 1, both) - predict(oracle, x[None], 1, both) for x in codes]
    tolerance = float(np.sort(np.abs(effects).ravel())[96:98].mean())  # not on an effect
    robustness = Robustness(oracle, L, tolerance, 1, **options)
    np.testing.assert_allclose(robustness(codes), [(np.abs(e) < tolerance).mean() for e in effects], atol=1e-6)
    assert 0.2 < robustness(codes).mean() < 0.8
    evolvability = Evolvability(oracle, L, 1, **options)
    parts = evolvability.components(codes)
    np.testing.assert_allclose(parts["up"], [max(e.max(), 0) for e in effects], atol=1e-5)
    np.testing.assert_allclose(parts["down"], [max(-e.min(), 0) for e in effects], atol=1e-5)
    np.testing.assert_allclose(evolvability(codes), parts["up"] + parts["down"])
    np.testing.assert_allclose(evolvability_vector(oracle, codes, 1, **options), np.sort(effects, axis=1), atol=1e-5)
    assert robustness.n_calls == evolvability.n_calls == (3 * L + 1) * (1 + both)


def test_neighbours__batches_do_not_matter(codes, monkeypatch):
    oracle = Oracle(Net(), device="cpu")
    X = one_hot_tensor(torch.from_numpy(codes))
    whole = substitution_effects(Query(oracle), X, 0)
    monkeypatch.setattr("ciscribe.design.fitness._NUMBERS", 4 * L * 2)
    np.testing.assert_allclose(substitution_effects(Query(oracle), X, 0), whole, atol=1e-5)
    assert (whole[X.numpy() == 1] == 0).all()


def test_fitness__of_extremes():
    # one base is all: a peak has no way up, and a sequence far from it no way down
    law = Oracle(Law(lambda X: X[:, 0, :1]), device="cpu")
    codes = np.stack([encode("ACGT"), encode("TCGT")])
    assert Evolvability(law, 4).components(codes)["up"].tolist() == [0, 1]
    assert Evolvability(law, 4).components(codes)["down"].tolist() == [1, 0]
    np.testing.assert_allclose(Robustness(law, 4, 0.5)(codes), [9 / 12, 11 / 12])
    flat = Oracle(Law(lambda X: 0 * X[:, 0, :1]), device="cpu")
    assert Robustness(flat, 4, 0.5)(codes).tolist() == [1, 1]
    assert Stability(flat, mutations=2)(codes).tolist() == [0, 0]


def test_stability__is_the_spread_over_random_mutants(codes):
    # the prediction is the number of As, so that the law of the spread is known: with one mutation, a sequence of As
    # always loses one, and of Cs gains one in a third of mutants
    law = Oracle(Law(lambda X: X[:, 0].sum(1, keepdim=True)), device="cpu")
    all_a, all_c = np.zeros((1, L), np.uint8), np.ones((1, L), np.uint8)
    one = Stability(law, 1, 4001)
    assert float(one(all_a)) == 0
    assert float(one(all_c)) == pytest.approx(-np.sqrt(2 / 9), rel=0.03)
    assert float(Stability(law, 4, 4001)(all_c)) == pytest.approx(-np.sqrt(4 * 2 / 9), rel=0.04)
    assert float(Stability(law, L, 7)(all_a)) == 0  # at different positions, none mutates back

    oracle = Oracle(Net(), device="cpu")
    stability = Stability(oracle, track=2)
    y = stability(codes)
    assert (y < 0).all()
    torch.testing.assert_close(y, torch.cat([stability(row[None]) for row in codes]))  # not of the batch
    assert not torch.allclose(y, Stability(oracle, track=2, seed=1)(codes))
    assert stability.n_calls == 32
    assert (stability + Maximize(oracle, 2)).n_calls == 33


def test_stability__has_a_gradient(codes):
    stability = Stability(Oracle(Net().double(), device="cpu"), mutants=5, track=0)
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(2, 4, L, generator=draw, dtype=torch.float64).softmax(dim=1).requires_grad_()
    gradient, = torch.autograd.grad(stability(X).sum(), X)
    step, h = torch.randn(X.shape, generator=draw, dtype=torch.float64), 1e-6
    with torch.no_grad():
        slope = (stability(X + h * step) - stability(X - h * step)).sum() / (2 * h)
    assert float((gradient * step).sum()) == pytest.approx(float(slope), rel=1e-5)
    assert abs(float(slope)) > 1e-3
    flat = Stability(Oracle(Law(lambda X: X.sum((1, 2))[:, None]), device="cpu"), mutants=5)
    X = one_hot_tensor(torch.from_numpy(codes)).requires_grad_()
    gradient, = torch.autograd.grad(flat(X).sum(), X)
    assert torch.isfinite(gradient).all()


def test_fitness__leaves_the_model_as_it_was(codes):
    model = Net().train()
    model.drop.eval()
    model.conv.bias.requires_grad_(False)
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    oracle = Oracle(model, device="cpu")
    objective = Robustness(oracle, L, 0.1, 0) + Evolvability(oracle, L, 0) + Stability(oracle, track=0)
    assert not objective.differentiable
    first = objective(codes)
    with objective.evaluating():
        assert not model.training
        torch.testing.assert_close(objective(codes), first)
    assert ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]) == before


def test_fitness__bad_input(codes):
    oracle = Oracle(Net(), device="cpu")
    with pytest.raises(SchemaError, match=r"Evolvability was told length=12, .*the sequences have 13 bp"):
        Evolvability(oracle, 12, 0)(codes)
    with pytest.raises(ConfigError, match="predicts 3 tracks; say which"):
        Evolvability(oracle, L)(codes)
    with pytest.raises(ConfigError, match="tolerance of Robustness lies above 0; got 0"):
        Robustness(oracle, L, 0)
    with pytest.raises(ConfigError, match="1 bp or more; got 0"):
        Robustness(oracle, 0, 1)
    with pytest.raises(ConfigError, match="no label range; clip the objective that reads the level"):
        Robustness(oracle, L, 1).clip(0, 1)
    with pytest.raises(ConfigError, match="2 or more mutants; got 3 and 1"):
        Stability(oracle, mutants=1)
    with pytest.raises(SchemaError, match="17 mutations do not fit into sequences of 13 bp"):
        Stability(oracle, mutations=17, track=0)(codes)
    soft = torch.full((2, 4, L), 0.25)
    with pytest.raises(SchemaError, match="reads bases, not probabilities"):
        Robustness(oracle, L, 1, 0)(soft)
    broken = Oracle(Law(lambda X: X[:, 0, :1] / 0), device="cpu")
    for objective in (Robustness(broken, L, 1), Evolvability(broken, L), Stability(broken)):
        with pytest.raises(SchemaError, match=r"5 of 5 values of component '(robustness|up|spread)' are NaN"):
            objective(codes)
