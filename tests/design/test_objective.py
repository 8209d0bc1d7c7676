"""Objectives against their formulas: components, gradients, clipping, strands, flanks, NaN, models left alone."""

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.design.front import Pareto
from ciscribe.design.objective import (
    Context,
    Distance,
    Lower,
    Maximize,
    Minimize,
    Motifs,
    Naturalness,
    Objective,
    Specific,
    System,
    Target,
    longest_shared_word,
)
from ciscribe.design.score import Clip, Sum, one_of
from ciscribe.errors import ConfigError, SchemaError, UnsupportedError
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import Edits, apply_edits
from ciscribe.schema import Motif
from ciscribe.sequence import codes_of, decode, encode, one_hot_tensor, reverse_complement_codes

N, L, T = 7, 23, 3
torch.set_num_threads(1)


class Net(nn.Module):
    """Smooth and not linear; dropout and batch norm notice the training mode."""

    def __init__(self, seed=0, length=L, n_tracks=T):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv, self.norm = nn.Conv1d(4, 11, 5), nn.BatchNorm1d(11)
            self.drop, self.head = nn.Dropout(0.5), nn.Linear(11 * (length - 4), n_tracks)

    def forward(self, X):
        return self.head(self.drop(self.norm(self.conv(X)).tanh()).flatten(1))


class Other(Net):
    """Another architecture by name."""


class Law(nn.Module):
    """Any function of a sequence."""

    def __init__(self, law):
        super().__init__()
        self.law = law

    def forward(self, X):
        return self.law(X)


def oracle(model=None):
    return Oracle(model or Net(), device="cpu")


def law(f):
    return oracle(Law(f))


def fixed(*rows):
    """An oracle whose answers are given: one row a sequence, one column a track."""
    y = torch.tensor(rows, dtype=torch.float32)
    return law(lambda X: y[:len(X)])


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(0, 4, (N, L)).astype(np.uint8)


@pytest.fixture
def X(codes):
    return one_hot_tensor(torch.from_numpy(codes))


def scored(objective, n=N):
    return objective(torch.zeros(n, 4, L))


def test_maximize__and_minimize_are_the_prediction_of_a_track(codes, X):
    y = oracle().predict(X)
    up, down = Maximize(oracle(), 1), Minimize(oracle(), 1)
    for given in (X, codes, torch.from_numpy(codes), X.to(torch.int8), X.numpy()):
        torch.testing.assert_close(up(given), y[:, 1])
        torch.testing.assert_close(down(given), -y[:, 1])
    assert list(up.components(X)) == list(up.names) == ["prediction"]
    assert up.n_calls == 1
    assert up.differentiable
    one = oracle(Net(n_tracks=1))
    torch.testing.assert_close(Maximize(one)(X), one.predict(X)[:, 0])
    with pytest.raises(ConfigError, match=r"predicts 3 tracks; say which: track=0 to 2; got None"):
        Maximize(oracle())(X)
    with pytest.raises(ConfigError, match=r"got 3"):
        Maximize(oracle(), 3)(X)


def test_target__is_flat_inside_its_tolerance():
    asked = fixed([1.0], [1.5], [2.0], [2.5], [3.25], [-1.0], [2.4])
    torch.testing.assert_close(scored(Target(asked, 2.0, 0.5)), torch.tensor([-0.5, 0, 0, 0, -0.75, -2.5, 0]))
    torch.testing.assert_close(scored(Target(asked, 2.0)), torch.tensor([-1.0, -0.5, 0, -0.5, -1.25, -3, -0.4]))
    # clipped to the labels, the level at the border is as good as any beyond it
    torch.testing.assert_close(scored(Target(asked, 2.0, 0.5).clip(0, 3)),
                               torch.tensor([-0.5, 0, 0, 0, -0.5, -1.5, 0]))
    with pytest.raises(ConfigError, match="tolerance of a Target is 0 or more; got -1"):
        Target(asked, 2.0, -1)


def test_specific__subtracts_the_worst_or_the_mean_off_target():
    asked = fixed([3.0, 1.0, 2.0], [5.0, -2.0, -6.0], [0.0, 1.0, -1.0])
    worst, mean = Specific(asked, 0, [1, 2]), Specific(asked, 0, [1, 2], "mean")
    assert scored(worst, 3).tolist() == [1, 7, -1]
    assert scored(mean, 3).tolist() == [1.5, 9, 0]
    assert scored(Specific(asked, 2, [0]), 3).tolist() == [-1, -11, -1]
    assert worst.names == ("on", "off 1", "off 2")
    assert {k: v.tolist() for k, v in worst.components(torch.zeros(3, 4, L)).items()} == {
        "on": [3, 5, 0], "off 1": [1, -2, 1], "off 2": [2, -6, -1]}
    bent = Specific(asked, 0, [1, 2], bend=1.0).clip(-2, 6)  # CODA

    def bend(x):
        return x - (np.exp(-x) - 1)

    expected = [bend(3) - bend(2), bend(5) - bend(-2), bend(0) - bend(1)]
    np.testing.assert_allclose(scored(bent, 3), expected, rtol=1e-6)
    assert bent.components(torch.zeros(3, 4, L))["off 2"].tolist() == [2, -6, -1]  # as it came
    for bad in ({"on": 0, "off": []}, {"on": 0, "off": [0, 1]}, {"on": 0, "off": [1, 1]}):
        with pytest.raises(ConfigError, match="one or more tracks in off, all different, on not among them"):
            Specific(asked, **bad)
    with pytest.raises(ConfigError, match="there is no gap 'maxx'; did you mean 'max'"):
        one_of("maxx", ("max", "mean"), "gap")


def test_lower__minimum_standard_deviation_and_quantile(X):
    members = [Maximize(fixed(*[[float(v)] for v in row])) for row in ([1, 4, 2], [3, 0, 2], [8, 2, 2])]
    z, values = torch.zeros(3, 4, L), np.array([[1, 4, 2], [3, 0, 2], [8, 2, 2.0]])
    with pytest.warns(UserWarning, match="all models under Lower are Law; models of one architecture err alike"):
        lowest = Lower(members)
    assert lowest(z).tolist() == [1, 0, 2]
    with pytest.warns(UserWarning, match="one architecture"):
        np.testing.assert_allclose(Lower(members, "sd", 2)(z), values.mean(0) - 2 * values.std(0), rtol=1e-6)
    with pytest.warns(UserWarning, match="one architecture"):
        np.testing.assert_allclose(Lower(members, "quantile")(z), np.quantile(values, 0.25, axis=0), rtol=1e-6)
    with pytest.warns(UserWarning, match="one architecture"):  # of two models, mean - sd is the lower one
        np.testing.assert_allclose(Lower(members[:2], "sd")(z), values[:2].min(0), atol=1e-6)
    two = Lower([oracle(), oracle(Other(1))], track=2)  # no warning
    assert two.names == ("net", "other")
    assert two.n_calls == 2
    expected = torch.minimum(oracle().predict(X)[:, 2], oracle(Other(1)).predict(X)[:, 2])
    torch.testing.assert_close(two(X), expected)
    seeds = [oracle(nn.Sequential(nn.Flatten(), nn.Linear(4 * L, 1))) for _ in range(2)]
    with pytest.warns(UserWarning, match="one architecture"):
        Lower(seeds)
    Lower([seeds[0], oracle(nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4 * L, 1)))])  # no warning
    with pytest.raises(ConfigError, match="two or more models; got one"):
        Lower([oracle()])
    with pytest.raises(ConfigError, match="at most 1 for how='quantile'; got 2"):
        Lower(members, "quantile", 2)


def test_lower__gradient_exists_where_all_members_agree(X):
    same = [Maximize(law(lambda X: X[:, 0].sum(1, keepdim=True))) for _ in range(3)]
    with pytest.warns(UserWarning, match="one architecture"):
        both = Lower(same, "sd")
    X = X.requires_grad_()
    gradient, = torch.autograd.grad(both(X).sum(), X)
    assert torch.equal(gradient[:, 0], torch.ones(N, L))


def test_context__mean_minimum_and_conditional_value_at_risk():
    asked = fixed([4.0, 1.0, 2.5], [0.0, 3.0, 9.0])
    cells = {"root": Maximize(asked, 0), "leaf": Maximize(asked, 1), "stem": Maximize(asked, 2)}
    z = torch.zeros(2, 4, L)
    assert Context(cells)(z).tolist() == [2.5, 4]
    assert Context(cells, "min")(z).tolist() == [1, 0]
    np.testing.assert_allclose(Context(cells, "cvar", share=0.5)(z), [(1 + 0.5 * 2.5) / 1.5, 1.5 / 1.5])
    np.testing.assert_allclose(Context(cells, "cvar", share=1)(z), [2.5, 4])
    np.testing.assert_allclose(Context(cells, "cvar", share=1 / 3)(z), [1, 0])
    assert Context(cells).names == ("root", "leaf", "stem")
    assert Context(cells).n_calls == 1  # one oracle is asked once, whatever is read of it
    assert Context(list(cells.values())).names == ("maximize", "maximize 2", "maximize 3")
    for share in (0, 1.1):
        with pytest.raises(ConfigError, match=r"share lies above 0"):
            Context(cells, "cvar", share=share)
    with pytest.raises(ConfigError, match="Context needs one or more objectives; got none"):
        Context({})


def test_arithmetic__is_a_weighted_sum_with_all_components(X):
    asked = oracle()
    a, b, c = Maximize(asked, 0), Specific(asked, 1, [0, 2]), Distance(X[:3])
    whole = a + 0.5 * b - c * 2 + -a
    torch.testing.assert_close(whole(X), 0.5 * b(X) - 2 * c(X))
    assert whole.weights == (1, 0.5, -2, -1)
    assert whole.names == ("maximize", "specific.on", "specific.off 0", "specific.off 2", "distance", "maximize 2")
    parts = whole.components(X)
    assert tuple(parts) == whole.names
    torch.testing.assert_close(whole.combine(parts), whole(X))
    assert whole.n_calls == 1
    assert Sum({"x": a, "y": c}, [2, 1]).names == ("x", "y")
    named = Maximize(oracle(), 0, name="leaf") - Maximize(oracle(), 0, name="root")
    assert named.names == ("leaf", "root")
    assert named.n_calls == 2  # two oracles, though of equal weights
    for bad in (lambda: a + 1, lambda: 1 - a, lambda: a * b, lambda: a * "2"):
        with pytest.raises(TypeError):
            bad()
    with pytest.raises(ConfigError, match="finite weights"):
        a * float("nan")


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.n, self.largest = 0, 0

    def forward(self, X):
        self.n, self.largest = self.n + len(X), max(self.largest, X.shape[0] * X.shape[2])
        return X.sum(dim=2)


def test_n_calls__is_what_the_models_see(X):
    model = Counting()
    asked = oracle(model)
    panel = Context([Maximize(asked, i) for i in range(4)] + [Target(asked, 3, 1, 2), Specific(asked, 0, [1])])
    objectives = [panel, panel + Maximize(asked, 1, flanks=("AC", "")), Maximize(asked, 2, both_strands=True) + panel,
                  System([panel, panel], [10, 13]), Pareto(panel, Maximize(asked, 0)).clip(0)]
    for objective, n in zip(objectives, (1, 2, 3, 2, 1), strict=True):
        model.n = 0
        objective(X)
        assert model.n / N == objective.n_calls == n
    assert Distance(X).n_calls == 1  # scoring is never free


def test_memory__batches_are_of_limited_size():
    model = Counting()
    Maximize(oracle(model), 0, flanks=("A" * 100, ""))(torch.zeros(401, 4, 1009))
    assert model.n == 401
    assert model.largest <= 2**17 * 1.2


# Gradients


def differentiable_objectives():
    a, b = oracle(Net().double()), oracle(Other(1).double())
    refs = np.random.default_rng(5).integers(0, 4, (5, 13)).astype(np.uint8)
    flanks = {"flanks": ("ACGTA", "GATTC")}
    return {
        "maximize": Maximize(a, 1, **flanks), "both strands": Maximize(a, 1, both_strands=True, **flanks),
        "minimize": Minimize(a, 0, **flanks), "target": Target(a, 3.0, 0.1, 0, **flanks),
        "specific": Specific(a, 0, [1, 2], bend=0.5, **flanks).clip(-3, 4),
        "mean": Specific(a, 0, [1, 2], "mean", **flanks),
        "lower": Lower([a, b], "sd", 0.7, track=1, **flanks), "distance": Distance(refs),
        "quantile": Lower([a, b], "quantile", track=1, **flanks),
        "sum": 2 * Maximize(a, 0, **flanks) - 0.1 * Distance(refs),
        "cvar": Context([Maximize(a, t, **flanks) for t in range(3)], "cvar", share=0.6),
        "pareto": Pareto(Maximize(a, 0, **flanks), Minimize(b, 1, **flanks), weights=[1, 3]),
        "system": System([Maximize(a, 0, flanks=("A" * 9, "ACGTACG")), Minimize(b, 1, flanks=("C" * 10, "GTTCTAC"))],
                         [7, 6]),
    }


@pytest.mark.parametrize("name", list(differentiable_objectives()))
def test_gradient__equals_finite_differences(name):
    objective = differentiable_objectives()[name]
    assert objective.differentiable
    draw = torch.Generator().manual_seed(3)
    relaxed = torch.randn(3, 4, 13, generator=draw, dtype=torch.float64).softmax(dim=1)
    X = relaxed.clone().requires_grad_()
    gradient, = torch.autograd.grad(objective(X).sum(), X)
    for _ in range(7):
        step, h = torch.randn(relaxed.shape, generator=draw, dtype=torch.float64), 1e-6
        slope = (objective(relaxed + h * step) - objective(relaxed - h * step)) / (2 * h)
        torch.testing.assert_close((gradient * step).sum((1, 2)), slope, atol=1e-7, rtol=1e-5)
    assert gradient.abs().max() > 1e-3


def test_gradient__reaches_the_sequence_and_nothing_else(X):
    model = Net().train()
    X = X.requires_grad_()
    Maximize(oracle(model), 0)(X).sum().backward()
    assert X.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_gradient__of_a_model_that_has_none_is_an_error(X):
    numpy = law(lambda X: torch.from_numpy(X.detach().numpy().sum(axis=2)))
    objective = Maximize(numpy, 0)
    assert torch.equal(objective(X), X[:, 0].sum(1))
    with pytest.raises(UnsupportedError, match="Law gives no gradient to its sequence; use a designer that needs none"):
        objective(X.requires_grad_())


# Clipping


def ramp(values):
    """Sequences whose prediction is what is asked for, through one number of the input."""
    X = torch.zeros(len(values), 4, 5)
    X[:, 0, 0] = torch.tensor(values)
    return X.requires_grad_()


@pytest.mark.parametrize(("make", "score", "slope"), [
    (lambda o: Maximize(o).clip(0, 3), [0, 0, 1, 3, 3], [1, 1, 1, 1, 0]),
    (lambda o: Maximize(o).clip(high=3), [-2, 0, 1, 3, 3], [1, 1, 1, 1, 0]),
    (lambda o: Minimize(o).clip(0, 3), [0, 0, -1, -3, -3], [0, -1, -1, -1, -1]),
    (lambda o: Target(o, 1.5).clip(0, 3), [-1.5, -1.5, -0.5, -1.5, -1.5], [1, 1, 1, -1, -1]),
    (lambda o: (2 * Maximize(o)).clip(0, 6), [0, 0, 2, 6, 6], [2, 2, 2, 2, 0]),
    (lambda o: Context([Maximize(o)]).clip(0, 3), [0, 0, 1, 3, 3], [1, 1, 1, 1, 0]),
])
def test_clip__passes_the_gradient_only_where_it_leads_back(make, score, slope):
    X = ramp([-2.0, 0.0, 1.0, 3.0, 7.0])
    objective = make(law(lambda X: X[:, :1, 0]))
    y = objective(X)
    assert y.tolist() == score  # exact, so that a plateau is a tie
    y.sum().backward()
    assert X.grad[:, 0, 0].tolist() == slope
    assert next(iter(objective.components(X).values())).tolist() == [-2, 0, 1, 3, 7]  # as it came


def test_clip__gradient_ascent_climbs_from_below_and_stops_at_the_top():
    objective = Maximize(law(lambda X: X[:, :1, 0])).clip(0, 3)
    X = ramp([-5.0, 2.0, 40.0])
    optimizer = torch.optim.Adam([X], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        (-objective(X).sum()).backward()
        optimizer.step()
    reached = X.detach()[:, 0, 0]
    assert reached[0] > 2.9  # a dead plateau below the range would have kept it at -5
    assert 3 <= reached[1] < 5  # momentum only; Adam would blow a small leak up to full steps
    assert reached[2] == 40


def test_clip__specific_clips_predictions_and_not_their_gap():
    asked = fixed([9.0, 7.0])
    assert scored(Specific(asked, 0, [1]).clip(-1, 5), 1).tolist() == [0]  # both are beyond belief: no gap is left
    assert scored(Sum([Specific(asked, 0, [1])]).clip(-1, 5), 1).tolist() == [2]
    assert isinstance(Sum([Maximize(asked, 0)]).clip(0), Clip)
    for bad in ((None, None), (2, 2), (3, 1)):
        with pytest.raises(ConfigError, match="low < high"):
            Maximize(asked, 0).clip(*bad)
        with pytest.raises(ConfigError, match="low < high"):
            (2 * Maximize(asked, 0)).clip(*bad)


# What was wrong elsewhere, and must not be here


def test_strands__average_the_whole_construct(codes, X):
    """A model that reads one strand is not exploited; by default promoters keep their direction."""
    asked = oracle(Net(length=L + 5))
    whole = np.concatenate([np.tile(encode("ACC"), (N, 1)), codes, np.tile(encode("GT"), (N, 1))], axis=1)
    forward = asked.predict(torch.from_numpy(whole))[:, 0]
    reverse = asked.predict(torch.from_numpy(reverse_complement_codes(whole)))[:, 0]
    assert (forward - reverse).abs().max() > 0.1
    torch.testing.assert_close(Maximize(asked, 0, flanks=("acc", "GT"))(X), forward)
    torch.testing.assert_close(Maximize(asked, 0, flanks=("ACC", "GT"), both_strands=True)(X), (forward + reverse) / 2)


def test_flanks__of_malinois_make_the_length_that_the_model_wants(X):
    asked = oracle(Net(length=L + 400))
    objective = Maximize(asked, 0, flanks=("A" * 200, "C" * 200))
    assert objective(X).shape == (N,)
    with pytest.raises(ConfigError, match="two texts of A C G T N, left and right"):
        Maximize(asked, 0, flanks=("AX", "C"))


def test_relaxed__sequences_are_not_scored_where_bases_are_counted(X):
    soft = (0.9 * X + 0.025).requires_grad_()
    motif = Motif("m", np.eye(4)[encode("GATTACA")].T)
    for objective in (Motifs([motif]), Distance(X, "kmer"), Naturalness(Bernoulli(), X)):
        assert not objective.differentiable
        with pytest.raises(SchemaError, match="reads bases, not probabilities of bases"):
            objective(soft)
        straight_through = X - soft.detach() + soft  # hard up to rounding
        torch.testing.assert_close(objective(straight_through), objective(X))
    assert not (Maximize(oracle(), 0) + Motifs([motif])).differentiable  # a term without gradient would be ignored
    # one number of a relaxed sequence is not that of the best hard one: the hard one is what a score means
    peak = Maximize(law(lambda X: (X**2).sum((1, 2))[:, None]))
    assert float(peak(X)[0]) == L
    assert float(peak(soft)[0].detach()) < L


def test_evaluating__dropout_is_off_and_modes_come_back_also_after_an_exception(X):
    models = [Net().train(), Other(1).train()]
    models[0].norm.eval()
    models[1].head.weight.requires_grad_(False)
    objective = Lower([oracle(m) for m in models], track=0) + Maximize(oracle(models[0]), 1)

    def state():
        return [([m.training for m in model.modules()], [(p.requires_grad, p.grad) for p in model.parameters()],
                 {k: v.clone() for k, v in model.state_dict().items()}) for model in models]

    before = state()
    first = objective(X)
    with objective.evaluating():
        assert not any(m.training for model in models for m in model.modules())
        assert not any(p.requires_grad for model in models for p in model.parameters())
        assert torch.is_grad_enabled()  # a designer may train a model of its own within
        assert torch.equal(objective(X), first)
        assert torch.equal(objective(X.clone().requires_grad_()), first)
        assert not torch.is_inference(objective(X))
    with pytest.raises(KeyError), objective.evaluating():
        raise KeyError
    models[1].forward = lambda X: 1 / 0
    for given in (X, X.clone().requires_grad_()):
        with pytest.raises(ZeroDivisionError):
            objective(given)
    for (modes, grads, values), (modes_, grads_, values_) in zip(before, state(), strict=True):
        assert modes == modes_
        assert grads == grads_
        assert all(torch.equal(values[k], values_[k]) for k in values)


def test_nan__names_the_component_and_the_first_sequence(codes, X):
    y = torch.ones(N, 2)
    y[3, 1], y[5, 1] = float("nan"), float("inf")
    objective = Context({"leaf": Maximize(law(lambda X: y), 0), "root": Specific(law(lambda X: y), 0, [1])})
    with pytest.raises(SchemaError, match=rf"2 of 7 values of component 'root.off 1' are NaN or infinite; first: "
                                          rf"sequence 3, {decode(codes[3])}: nan"):
        objective(X)
    with pytest.raises(SchemaError, match=r"component 'prediction'.*A{40}… \(101 bp\): inf"):
        Maximize(law(lambda X: X.sum((1, 2))[:, None] / 0)).components(torch.eye(4)[:1, :, None].expand(1, 4, 101))

    class Own(Objective):
        def components(self, X):
            return {"score": X[:, 0, 0].log()}

        def combine(self, parts):
            return parts["score"]

    with pytest.raises(SchemaError, match=r"component 'score'.*-inf"):
        Own()(X)


def test_own_objective__composes(X):
    class Own(Objective):
        names = ("gc", "at")
        n_calls = 5

        def components(self, X):
            return {"gc": X[:, 1:3].sum((1, 2)), "at": X[:, [0, 3]].sum((1, 2))}

        def combine(self, parts):
            return parts["gc"] - parts["at"]

    whole = 2 * Own() + Maximize(oracle(), 0)
    own = X[:, 1:3].sum((1, 2)) - X[:, [0, 3]].sum((1, 2))
    torch.testing.assert_close(whole(X), 2 * own + oracle().predict(X)[:, 0])
    assert whole.names == ("own.gc", "own.at", "maximize")
    assert whole.n_calls == 6
    assert not whole.differentiable

    class Wrong(Own):
        names = ("gc",)

    with pytest.raises(SchemaError, match="names of Wrong are gc, but its components are gc, at"):
        (Wrong() + Own())(X)

    class Flat(Own):
        def components(self, X):
            return {"gc": X[:, 1], "at": X[:, 2]}

    with pytest.raises(SchemaError, match=r"component 'gc' of an objective is one number a sequence, \(7,\)"):
        Flat()(X)


def test_input__that_is_no_sequence():
    for bad in (torch.zeros(3, 5, 7), torch.zeros(4, 7), torch.zeros(3, 7, 4)):
        with pytest.raises(SchemaError, match=r"takes codes \(N, L\) or one-hot \(N, 4, L\); got"):
            Maximize(oracle(), 0)(bad)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("width", [1, 3])
def test_score_edits__equals_the_sequences_written_out(codes, both, width):
    rng = np.random.default_rng(2)
    n = 211
    edits = Edits(rng.integers(0, N, n), rng.integers(0, L - width + 1, n),
                  rng.integers(0, 4, (n, width)).astype(np.uint8))
    asked = oracle(Net(length=L + 9))
    one = Maximize(asked, 1, flanks=("ACGTA", "GATT"), both_strands=both)
    for objective in (one, Specific(asked, 0, [2], flanks=("ACGTA", "GATT")) - 0.1 * Distance(codes[:2]) + one):
        got, expected = objective.score_edits(codes, edits), objective(apply_edits(codes, edits))
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        assert expected.std() > 0.01


# Without an oracle


class Bernoulli:
    """Bases are independent, GC more probable than AT."""

    def loglik(self, codes):
        gc = ((codes == 1) | (codes == 2)).sum(axis=1)
        return torch.from_numpy(gc * np.log(0.35) + (codes.shape[1] - gc) * np.log(0.15))


def test_naturalness__is_relative_to_natives_of_the_same_gc():
    rng = np.random.default_rng(1)
    bases = np.array([0, 1, 2, 3], np.uint8)
    natives = np.stack([rng.permutation(np.repeat(bases, [20 - g, g, 0, 0])) for g in range(1, 20)])
    designs = np.stack([rng.permutation(np.repeat(bases, [0, 0, g, 20 - g])) for g in (0, 3, 11)])
    got = Naturalness(Bernoulli(), natives, neighbours=1)(designs)
    np.testing.assert_allclose(got, [(np.log(0.15) - np.log(0.35)) / 20, 0, 0], atol=1e-6)

    class Odd(Bernoulli):
        def loglik(self, codes):  # likes the first base to be A, by 2 nats
            return super().loglik(codes).numpy() + 2.0 * (codes[:, 0] == 0)

    fair = rng.integers(0, 4, (997, 20)).astype(np.uint8)
    starts = fair[:6].copy()
    starts[:3, 0], starts[3:, 0] = 0, 3
    gc = ((fair == 1) | (fair == 2)).sum(1)
    got = Naturalness(Odd(), fair, neighbours=1)(starts)  # all natives that tie are neighbours
    for i, row in enumerate(starts):
        mates = fair[gc == ((row == 1) | (row == 2)).sum()]
        assert float(got[i]) == pytest.approx((2.0 * (row[0] == 0) - 2.0 * (mates[:, 0] == 0).mean()) / 20, abs=1e-6)

    class Mute:
        def loglik(self, codes):
            return None

    with pytest.raises(UnsupportedError, match="Mute has no likelihood"):
        Naturalness(Mute(), fair)
    with pytest.raises(ConfigError, match="needs natives"):
        Naturalness(Bernoulli(), fair[:0])


def test_distance__to_the_nearest(codes, X):
    references = np.random.default_rng(8).integers(0, 4, (11, L)).astype(np.uint8)
    expected = (codes[:, None] != references).sum(2).min(1)
    assert Distance(references)(X).tolist() == expected.tolist()
    assert Distance(codes)(X).tolist() == [0] * N
    near = Distance(references, "kmer", k=2)(X)

    def count(s):
        return np.array([sum(s[i:i + 2] == a + b for i in range(len(s) - 1)) for a in "ACGT" for b in "ACGT"])

    for row, got in zip(codes, near, strict=True):
        x = count(decode(row))
        cosines = [x @ r / np.sqrt((x @ x) * (r @ r)) for r in (count(decode(ref)) for ref in references)]
        assert float(got) == pytest.approx(1 - max(cosines), abs=1e-6)
    with pytest.raises(SchemaError, match=r"references are 23 bp and the sequences 22 bp; .*how='kmer'"):
        Distance(references)(X[:, :, :22])
    with pytest.raises(ConfigError, match="got none"):
        Distance(references[:0])


def test_motifs__are_counted_on_both_strands_and_across_junctions():
    site, palindrome = (Motif(name, np.eye(4)[encode(s)].T) for name, s in (("site", "GATTACAG"), ("pal", "ACGCGCGT")))
    letters = ["CC" + "GATTACAG" + "C" * 20, "CTGTAATC" + "TTT" + "GATTACAG" + "C" * 11,
               "A" * 7 + "ACGCGCGT" + "C" * 15, "TTACAG" + "C" * 24, "C" * 30]
    codes = np.stack([encode(s) for s in letters])
    assert Motifs([site, palindrome]).components(codes)["site"].tolist() == [1, 2, 0, 0, 0]
    assert Motifs([site, palindrome]).components(codes)["pal"].tolist() == [0, 0, 1, 0, 0]
    flanked = Motifs([site], most=0, flanks=("GATTACAG" + "GA", "CTGTAATC"))
    assert flanked.components(codes)["site"].tolist() == [1, 2, 0, 1, 0]  # the junction, not the flanks
    assert flanked(codes).tolist() == [-1, -2, 0, -1, 0]
    assert Motifs([site, palindrome], least=1, most=1)(codes).tolist() == [-1, -2, -1, -2, -2]
    assert Motifs([site], least=2)(codes).tolist() == [-1, 0, -2, -2, -2]
    alone = torch.cat([Motifs([site, palindrome])(codes[i:i + 1]) for i in range(5)])  # whatever else is scored
    assert torch.equal(alone, Motifs([site, palindrome])(codes))
    assert Motifs([site])(codes[4:]).tolist() == [0]
    with pytest.raises(ConfigError, match=r"1 of 2 motifs can never reach p_value=0\.0001; first: short"):
        Motifs([site, Motif("short", np.eye(4)[encode("GAT")].T)])
    with pytest.raises(ConfigError, match="0 <= least <= most; got 2 and 1"):
        Motifs([site], least=2, most=1)


# Several elements, several aims


def test_system__scores_the_elements_and_their_shared_words(codes, X):
    first, second = oracle(Net(length=10)), oracle(Other(1, length=13))
    parts = {"enhancer": Maximize(first, 0), "promoter": Target(second, 1, 0, 2)}
    system = System(parts, [10, 13], "min", longest=3, weight=0.5)
    a, b = first.predict(X[:, :, :10])[:, 0], -(second.predict(X[:, :, 10:])[:, 2] - 1).abs()
    words = longest_shared_word(codes[:, :10], codes[:, 10:])
    torch.testing.assert_close(system(X), torch.minimum(a, b) - 0.5 * (torch.from_numpy(words) - 3).clamp(min=0))
    assert system.names == ("enhancer", "promoter", "shared word")
    assert not system.differentiable
    assert System(parts, [10, 13]).differentiable
    assert system.n_calls == 2
    assert [tuple(p.shape) for p in system.split(X)] == [(N, 4, 10), (N, 4, 13)]
    with pytest.raises(SchemaError, match=r"elements of 10 \+ 13 bp make designs of 23 bp; got 22 bp"):
        system(X[:, :, :22])
    with pytest.raises(ConfigError, match="2 elements need as many lengths"):
        System(parts, [23])
    # a stoichiometry of 1 : 2
    y = torch.tensor([[1.0, 2.0]])
    pair = System([Target(law(lambda X: y[:, :1]), 1), Target(law(lambda X: y[:, 1:]), 2)], [3, 4])
    assert float(pair(torch.zeros(1, 4, 7))) == 0


def test_shared_word__by_strings():
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 4, (5, n)).astype(np.uint8) for n in (31, 19))
    a[0, 3:15] = b[0, 6:18]
    a[1, 20:29] = reverse_complement_codes(b[1, 2:11])

    def words(s, k):
        return {s[i:i + k] for i in range(len(s) - k + 1)}

    def longest(s, t, turned):
        return max(k for k in range(20) if words(s, k) & (words(t, k) | words(turned, k)))

    expected = [longest(decode(s), decode(t), decode(reverse_complement_codes(t))) for s, t in zip(a, b, strict=True)]
    assert longest_shared_word(a, b).tolist() == expected
    assert expected[0] >= 12
    assert expected[1] >= 9
    assert longest_shared_word(np.full((1, 6), 4, np.uint8), np.full((1, 5), 4, np.uint8)).tolist() == [0]


def test_repr__says_what_is_asked():
    text = repr((Maximize(oracle(), 1).clip(0, 3) + 0.5 * Distance(np.zeros((2, 5), np.uint8))).clip(high=2))
    for piece in ("Maximize(oracle=Oracle(Net", "track=1", "limits=(0, 3)", "0.5 * Distance(2 references, 'hamming')",
                  ".clip(None, 2)"):
        assert piece in text
    assert codes_of(np.zeros((2, 5), np.uint8)).shape == (2, 5)
