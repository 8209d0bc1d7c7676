"""DeepLIFT beside a twin by hand, and complete on every model of the zoo that has rules."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ciscribe.errors import SchemaError, UnknownNameError, UnsupportedError
from ciscribe.interpret.deeplift import deep_lift, deep_lift_signals
from ciscribe.models import registry
from ciscribe.oracle import Oracle, Probability, Scalar
from ciscribe.results import check_attribution_array, contributions
from ciscribe.sequence import one_hot_tensor
from ciscribe.testing import check_attribution
from reference.deeplift import hypothetical, rescale, reveal_cancel

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from test_contracts import CASES, case

B, R, L, C, T = 3, 5, 37, 11, 2
COMPLETE = {"deepbind", "deepsea", "basset", "deepstarr", "malinois", "jores", "xpresso", "beluga", "expecto",
            "basenji", "basenji2", "expresnet", "legnet", "bpnet", "chrombpnet", "enformer", "borzoi", "hyenadna",
            "epinformer", "graphreg"}
NO_RULE = {"danq": "lstm in layer 'lstm'", "seq2exp": r"(layers\.0\.mixer|floor)", "beacon": "'bottleneck.mask'",
           "caduceus": r"layers\.0\.mixer",
           "prism": r"layers\.0\.mixer", "caduceus_lm": r"layers\.0\.mixer"}
NO_MASK = {"beacon no mask", "beacon no generator"}  # no base passes through its mask
REVEALED = {"deepbind", "deepsea", "basset", "deepstarr", "malinois", "jores", "xpresso", "beluga", "expresnet",
            "bpnet", "chrombpnet"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny networks: threads would wait for each other
    yield
    torch.set_num_threads(before)


def codes(n=B, length=L, seed=1, high=4):
    return torch.randint(0, high, (n, length), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def explain(model, X=None, rule="rescale", **options):
    torch.manual_seed(7)
    return deep_lift(Oracle(model, device="cpu"), codes() if X is None else X, n_references=R, rule=rule, **options)


def network(activation=nn.ReLU, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv1d(4, 7, 5, padding=2), activation(), nn.MaxPool1d(3, 2, 1), nn.Conv1d(7, 5, 3),
                          nn.BatchNorm1d(5), activation(), nn.Flatten(), nn.Linear(5 * 17, 3), activation(),
                          nn.Linear(3, T))
    for i in (0, 3, 7):
        model[i].weight.data *= 3
    return model


class Function(nn.Module):
    """A few channels, a function of them that the test names, and a linear head."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(3)
        self.scan, self.other = nn.Conv1d(4, C, 5, padding=2), nn.Conv1d(4, C, 3, padding=1)
        self.head, self.function = nn.LazyLinear(T), function
        self(torch.zeros(2, 4, L))
        self.requires_grad_(False)

    def forward(self, X):
        x, y = self.scan(X), self.other(X)
        made = self.function(x, y) if self.function.__code__.co_argcount == 2 else self.function(x)
        return self.head(made.flatten(1))


# Twin ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.GELU])
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_deep_lift__gives_what_the_rules_give_by_hand(activation, rule):
    model = network(activation).eval()
    model[4].running_mean.uniform_(-1, 1)
    model[4].weight.data.uniform_(-2, 2)
    X, others = codes(), one_hot_tensor(codes(B * 2, seed=2)).view(B, 2, 4, L)
    found = explain(model, X, rule, references=others)
    layers, one_hot, mean = copy.deepcopy(model), one_hot_tensor(X).double(), 0
    for r in others[1].double():
        if rule == "rescale":
            plus = minus = rescale(layers, one_hot[1], r)
        else:
            plus, minus = reveal_cancel(layers, one_hot[1], r)
        mean = mean + hypothetical(plus, minus, r.numpy()) / 2
    np.testing.assert_allclose(found[1, :, :, 0], mean, atol=2e-5 * abs(mean).max(), rtol=2e-4)


def test_reveal_cancel__sees_two_causes_that_cancel():
    class Less(nn.Module):  # min(a, b) of Shrikumar et al.: a - relu(a - b), a and b are A at 0 and C at 1
        def forward(self, X):
            a, b = X[:, 0, 0], X[:, 1, 1]
            return (a - (a - b).relu())[:, None]

    X = torch.tensor([[0, 1, 2]], dtype=torch.uint8)
    shares = {rule: contributions(explain(Less(), X, rule, references="zeros"), one_hot_tensor(X)).values[0, :, 0]
              for rule in ("rescale", "reveal_cancel")}
    np.testing.assert_allclose(shares["rescale"], [1, 0, 0], atol=1e-6)  # the derivative of the ReLU at 0
    np.testing.assert_allclose(shares["reveal_cancel"], [0.5, 0.5, 0], atol=1e-6)


# Completeness ---------------------------------------------------------------------------------------------------------

def stirred(key):
    """A case of the zoo whose norms, biases and blocks that start at 0 do something, and up to two of its targets."""
    model, _, X, extras = case(key)
    torch.manual_seed(5)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("running_mean") or name.endswith("bias") or "output.weight" in name:
            value.normal_(0, 0.2)
        elif value.ndim == 1 and name.endswith("weight"):
            value.normal_(1, 0.3)
    readout = CASES[key].readout
    return Oracle(model, lambda output: readout(output)[:, :2], device="cpu"), X, extras


def test_models__are_those_of_the_registry():
    assert COMPLETE | set(NO_RULE) == set(registry.names())
    assert not COMPLETE & set(NO_RULE)
    assert {name for name in registry.names() if "deeplift" in registry.card(name).attribution} <= COMPLETE


@pytest.mark.parametrize("key", [pytest.param(key, marks=pytest.mark.slow) if key == "expecto flanks" else key
                                 for key in CASES])
def test_zoo__is_complete_or_names_the_layer(key):
    oracle, X, extras = stirred(key)
    name = key.split()[0]
    if name in NO_RULE and key not in NO_MASK:
        with pytest.raises(UnsupportedError, match=rf"DeepLIFT has no rule for .*{NO_RULE[name]}.*; .*integrated grad"):
            deep_lift(oracle, X, n_references=2, **extras)
        return
    found = deep_lift(oracle, X, n_references=2, **extras)
    check_attribution_array(found)
    assert found.attrs["completeness_error"] <= 1e-5
    assert float(abs(found).max()) > 0


@pytest.mark.parametrize("name", sorted(CASES.keys() & REVEALED))
def test_zoo__reveal_cancel_is_complete(name):
    oracle, X, extras = stirred(name)
    assert deep_lift(oracle, X, n_references=2, rule="reveal_cancel", **extras).attrs["completeness_error"] <= 1e-4


@pytest.mark.parametrize("name", ["legnet", "enformer", "basenji"])
def test_zoo__reveal_cancel_says_what_it_has_no_rule_for(name):
    oracle, X, extras = stirred(name)
    with pytest.raises(UnsupportedError, match=r"under rule='reveal_cancel' in layer '.*take rule='rescale'"):
        deep_lift(oracle, X, n_references=2, rule="reveal_cancel", **extras)


@pytest.mark.parametrize("key", ["bpnet", "legnet", "xpresso exponential"])
@pytest.mark.parametrize("combine", ["mean", "max"])
def test_both_strands__is_complete(key, combine):
    model, _, X, extras = case(key, both_strands=combine)
    found = deep_lift(Oracle(model, CASES[key].readout, device="cpu"), X, n_references=2, **extras)
    assert found.attrs["completeness_error"] <= 1e-5


def test_completeness_error__is_the_gap_of_the_worst_pair():
    model = network().eval()
    X, others = codes(), one_hot_tensor(codes(B, seed=2))[:, None]
    oracle = Oracle(model, device="cpu")
    found = deep_lift(oracle, X, references=others)
    before, after = oracle.predict(others[:, 0]), oracle.predict(X)
    total = torch.from_numpy(contributions(found, one_hot_tensor(X)).sum("position").values)
    gap = (total - (after - before)).abs().amax(0) / torch.maximum(after.abs(), before.abs()).amax(0)
    assert found.attrs["completeness_error"] == pytest.approx(float(gap.max()), abs=1e-6)  # float32 rounds both
    assert float((after - before).abs().max()) > 1e-2  # something to add up to


FUNCTIONS = {
    # activations
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu_": lambda x: x.relu_(),
    "leaky relu": lambda x: F.leaky_relu(x, 0.1),
    "prelu": lambda x: F.prelu(x, torch.linspace(-1, 1, C)),
    "elu": lambda x: F.elu(x),
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": lambda x: F.silu(x),
    "softplus": lambda x: F.softplus(x),
    "tanh": lambda x: x.tanh(),
    "log1p of exp": lambda x: x.exp().log1p(),
    "sqrt": lambda x: (x.square() + 1).sqrt(),
    "power": lambda x: x ** 3,
    "reciprocal": lambda x: 2 / (3 + x.square()),
    "exponent": lambda x: 2 ** x,
    "abs": lambda x: x.abs(),
    "threshold": lambda x: F.threshold(x, 0.1, -1.0),
    "clamp": lambda x: x.clamp(-0.2, 0.3),
    "clamp by channel": lambda x: x.clamp(min=torch.linspace(-1, 1, C)[:, None]),
    # the larger of several
    "maximum": lambda x, y: torch.maximum(x, y),
    "minimum": lambda x, y: torch.minimum(x, y[:, :1]),
    "maximum of a number": lambda x: torch.maximum(x, torch.tensor(0.1)),
    "max": lambda x: x.max(dim=2).values,
    "max of two dimensions": lambda x: x.amax((1, 2), keepdim=True),
    "min": lambda x: x.min(dim=1)[0],
    "max of all": lambda x: torch.stack([row.max() for row in x])[:, None],
    "max pool": lambda x: F.max_pool1d(x, 3, 2, 1, 2, ceil_mode=True),
    "max pool of rows": lambda x: torch.stack([F.max_pool1d(row, 3) for row in x]),
    "max pool to a size": lambda x: F.adaptive_max_pool1d(x, 5),
    "max pool of an image": lambda x: F.max_pool2d(x[:, None], (2, 3)),
    # products
    "product": lambda x, y: x * y,
    "square by hand": lambda x: x * x,
    "division": lambda x, y: x / (1 + y.exp()),
    "glu": lambda x: F.glu(x[:, :10], dim=1),
    "matmul": lambda x, y: x @ y.transpose(1, 2),
    "einsum": lambda x, y: torch.einsum("bcl,bdl->bcd", x, y),
    "bmm": lambda x, y: torch.bmm(x, y.mT),
    "gate": lambda x, y: torch.lerp(x, y, x.mean(2, keepdim=True).sigmoid()),
    "addcmul": lambda x, y: torch.addcmul(x, x, y, value=2),
    "attention": lambda x, y: F.scaled_dot_product_attention(x, y, x + y, is_causal=True),
    # sums of exponentials, and norms
    "softmax": lambda x: (9 * x).softmax(1),
    "softmax over positions": lambda x: F.softmax(99 * x, dim=-1),
    "log softmax": lambda x: x.log_softmax(dim=1),
    "logsumexp": lambda x: x.logsumexp((1, 2), keepdim=True),
    "logsumexp of channels": lambda x: x.logsumexp(1),
    "logaddexp": lambda x, y: torch.logaddexp(x, 5 * y),
    "layer norm": lambda x: F.layer_norm(x.mT, (C,), torch.linspace(1, 2, C), torch.ones(C)),
    "group norm": lambda x: F.group_norm(x[:, :10], 5),
    "instance norm": lambda x: F.instance_norm(x),
    "rms norm": lambda x: F.rms_norm(x, (L,)),
    "standard deviation": lambda x: x.std(dim=2),
    # choices
    "where": lambda x, y: torch.where(x > 0, y, 2 * y + 1),
    "where of two": lambda x, y: torch.where(x > y, x.exp(), 3.0),
    "constant mask": lambda x: torch.where(torch.arange(L) < 9, x, 0.0),
    "mask": lambda x: x * (x > 0.1),
    "mask as a number": lambda x: (x > 0.1).float() + x,
    "straight through": lambda x: x + ((x > 0).to(x.dtype) - x).detach(),
    "no gradient": lambda x: _without_gradient(x),
    # linear
    "add_": lambda x, y: x.add_(y),
    "+=": lambda x, y: _add(x, y),
    "difference": lambda x, y: 1 - torch.sub(x, y, alpha=2),
    "zeros": lambda x: x + torch.zeros_like(x) + x.new_ones(L),
    "mean pool": lambda x: F.avg_pool1d(x, 4, 3, 1, True, False),
    "mean pool to a size": lambda x: F.adaptive_avg_pool1d(x, 5),
    "pad": lambda x: F.pad(x, (2, 3), value=0.25),
    "turn": lambda x: x.flip(1, 2).roll(3, 2).cumsum(2),
    "unfold": lambda x: x.unfold(2, 5, 3),
    "repeat": lambda x: x.repeat_interleave(2, dim=2)[..., 3:50],
    "upsample": lambda x: F.interpolate(x, scale_factor=2.0),
    "interpolate": lambda x: F.interpolate(x, size=50, mode="linear"),
    "chunks": lambda x: torch.cat([part * i for i, part in enumerate(x.split(4, dim=1))], dim=1),
    "gather": lambda x: x.gather(2, torch.arange(7).expand(len(x), C, 7)),
    "pick": lambda x: x[:, [2, 3]][..., None, ::2],
    "fourier": lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.linspace(0, 1, 19), n=L),
    "transposed convolution": lambda x: F.conv_transpose1d(x, torch.ones(C, 3, 4), stride=2),
    "image": lambda x: F.conv2d(x[:, None], torch.ones(2, 1, 3, 3) / 9),
}
REVEALED_FUNCTIONS = [
    "relu in place", "gelu tanh", "log1p of exp", "clamp by channel", "maximum", "minimum", "max of two dimensions",
    "min", "max pool", "logaddexp", "add_", "+=", "difference", "zeros", "mean pool", "mean pool to a size", "pad",
    "turn", "chunks", "gather", "constant mask", "transposed convolution",
]


def _add(x, y):
    x += y
    return x.relu()


def _without_gradient(x):
    with torch.no_grad():
        return x.sigmoid()


def changes(model, found, X, others):
    """What contributions add up to, and what they should; both far from 0."""
    oracle = Oracle(model, device="cpu")
    after, before = oracle.predict(X), oracle.predict(others)
    assert float((after - before).abs().max()) > 1e-3 * float(after.abs().max())
    return contributions(found, one_hot_tensor(X)).sum("position").values, (after - before).numpy(), after.abs().max()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operation__is_complete(name):
    model, X, others = Function(FUNCTIONS[name]), codes(), one_hot_tensor(codes(seed=4))
    found = explain(model, X, references=others[:, None])
    total, change, scale = changes(model, found, X, others)
    np.testing.assert_allclose(total, change, atol=1e-5 * float(scale))
    assert explain(model).attrs["completeness_error"] <= 1e-5  # with several references


@pytest.mark.parametrize("name", REVEALED_FUNCTIONS)
def test_operation__is_complete_with_reveal_cancel(name):
    model, X, others = Function(FUNCTIONS[name]), codes(), one_hot_tensor(codes(seed=4))
    found = explain(model, X, "reveal_cancel", references=others[:, None])
    total, change, scale = changes(model, found, X, others)
    np.testing.assert_allclose(total, change, atol=2e-5 * float(scale))


@pytest.mark.parametrize(("function", "message"), [
    (lambda x: x.sort(dim=2).values, "sort in Function"),
    (lambda x: x.exp_() + _view_relu(x), "relu_, which writes into what other tensors look at"),
    (lambda x: torch.zeros_like(x).add_(x), "add_, which writes into a constant"),
    (lambda x: _assigned(x), "setitem in Function"),
    (lambda x: F.dropout(x, 0.5, training=True), "dropout that goes on after training"),
    (lambda x: F.batch_norm(x, None, None, training=True), "batch norm by the statistics of the batch"),
    (lambda x: x if x.mean() > 0 else -x, "bool of a comparison in Function"),
    (lambda x: torch.where(x == 0, x, 1.0), "eq in Function"),
    (lambda x: torch.div(x, 2, rounding_mode="floor"), "division with rounding"),
])
def test_operation__without_a_rule_is_named(function, message):
    model = Function(function)
    with pytest.raises(UnsupportedError, match=rf"DeepLIFT has no rule for {message}.*in-silico mutagenesis"):
        explain(model)


def _view_relu(x):
    x[:, :3].relu_()
    return x


def _assigned(x):
    x[:, 0] = 0
    return x


def test_readout__of_the_model_is_explained_too():
    oracle = Oracle(network().eval(), Probability(track=1), device="cpu")
    found = deep_lift(oracle, codes(), references="gc")
    assert found.shape == (B, 4, L, 1)
    assert found.attrs["completeness_error"] <= 1e-5
    assert found.attrs["n_references"] == 1
    with pytest.raises(UnsupportedError, match="output does not depend on what is to be explained"):
        explain(Function(lambda x: torch.zeros(x.shape)))


def test_layout__of_the_model_does_not_matter():
    class Turned(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, X):
            return self.model(X.transpose(1, 2))

    model = network().eval()
    found = deep_lift(Oracle(Turned(model), layout="B L 4", device="cpu"), codes(), n_references=R)
    np.testing.assert_allclose(found, explain(model), atol=1e-7)


# References, batches, arguments ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_deep_lift__is_an_attribution(rule):
    check_attribution(deep_lift, complete=True, atol=1e-5, rule=rule, n_references=3)


@pytest.mark.parametrize("size", [1, 2, 7, 500])
def test_batch_size__changes_nothing(size):
    model = network().eval()
    np.testing.assert_allclose(explain(model, batch_size=size), explain(model), atol=1e-6)


def test_n__is_never_explained():
    X = codes(high=5)
    others = one_hot_tensor(codes(B * 2, seed=2)).view(B, 2, 4, L)
    for references in ("shuffle", "zeros", "uniform", "gc", others):
        found = explain(network().eval(), X, references=references)
        assert found.attrs["completeness_error"] <= 1e-5
        known = (X < 4)[:, None, None]
        masked = others * known if references is others else references
        again = explain(network().eval(), X, references=masked)
        np.testing.assert_allclose(found, again, atol=1e-7)
        assert not contributions(found, one_hot_tensor(X)).values[(X == 4).numpy()].any()


def test_deep_lift__tells_the_planted_motif():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 1, 5), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten())
    motif = torch.tensor([3, 0, 3, 0, 0], dtype=torch.uint8)
    model[0].weight.data = 2 * one_hot_tensor(motif[None]) - 1
    model[0].bias.data[:] = -2
    X = codes()
    X[:, 11:16] = motif
    share = contributions(explain(model, X, references="shuffle"), one_hot_tensor(X)).values[..., 0]
    assert np.all(share[:, 11:16].sum(1) > 0.6 * abs(share).sum(1))
    uniform = explain(model, X, references="uniform")
    np.testing.assert_allclose(abs(contributions(uniform, one_hot_tensor(X)).values[:, :11]).max(), 0, atol=1e-6)


def test_signals__are_explained_beside_a_sequence_that_stays():
    oracle, X, extras = stirred("bpnet control")
    oracle.readout = Scalar("counts", track=2)
    found = deep_lift_signals(oracle, X, batch_size=2, **extras)
    assert (found.dims, found.shape) == (("region", "track", "bin"), extras["S"].shape)
    change = oracle.predict(X, **extras) - oracle.predict(X, torch.zeros_like(extras["S"]))
    np.testing.assert_allclose(found.sum(("track", "bin")), change[:, 0], atol=1e-5)
    others = torch.rand(B, 2, *extras["S"].shape[1:])
    change = oracle.predict(X, **extras) - sum(oracle.predict(X, others[:, i]) for i in range(2)) / 2
    for rule in ("rescale", "reveal_cancel"):
        found = deep_lift_signals(oracle, X, references=others, rule=rule, **extras)
        np.testing.assert_allclose(found.sum(("track", "bin")), change[:, 0], atol=1e-5)
        assert found.attrs["completeness_error"] <= 1e-5


def test_signals__arguments_that_do_not_fit():
    oracle, X, extras = stirred("bpnet control")
    with pytest.raises(SchemaError, match="explained for one target at a time"):
        deep_lift_signals(oracle, X, **extras)
    with pytest.raises(UnknownNameError, match="no references of signals are called 'mean'"):
        deep_lift_signals(oracle, X, references="mean", **extras)
    with pytest.raises(SchemaError, match=r"are \(3, R, 3, 61\)"):
        deep_lift_signals(oracle, X, references=extras["S"], **extras)
    with pytest.raises(SchemaError, match="NaN"):
        deep_lift_signals(oracle, X, references=extras["S"][:, None] * float("nan"), **extras)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"rule": "rescaled"}, UnknownNameError, "did you mean 'rescale'"),
    ({"references": "shufle"}, UnknownNameError, "did you mean 'shuffle'"),
    ({"references": torch.zeros(B, 4, L)}, SchemaError, "references of 3 sequences"),
    ({"references": torch.full((B, 1, 4, L), float("nan"))}, SchemaError, "NaN"),
    ({"batch_size": 0}, SchemaError, "at least 1 pair"),
    ({"covariates": torch.zeros(2, 1)}, SchemaError, "covariates has 2 rows"),
    ({"X": torch.full((B, 4, L), 0.25)}, SchemaError, "one-hot"),
    ({"X": codes()[:0]}, SchemaError, "no sequence"),
    ({"regions": ["a"]}, SchemaError, "3 regions need 3 names"),
])
def test_arguments__that_do_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        deep_lift(Oracle(network(), device="cpu"), options.pop("X", codes()), **options)
