"""The small convolutional models: published sizes and shapes, fields of view, and the traps of the publications."""

import cases_small
import pytest
import torch
from torch import nn

from ciscribe.errors import ConfigError, SchemaError
from ciscribe.models import basset, danq, deepbind, deepsea, deepstarr, jores, malinois, xpresso
from ciscribe.models.basset import Basset
from ciscribe.models.danq import DanQ
from ciscribe.models.deepbind import DeepBind
from ciscribe.models.deepsea import DeepSEA
from ciscribe.models.deepstarr import DeepSTARR
from ciscribe.models.jores import Jores
from ciscribe.models.malinois import BranchedLinear, Malinois
from ciscribe.models.xpresso import Xpresso
from ciscribe.nn.conv import Conv1d
from ciscribe.sequence import one_hot_tensor, reverse_complement
from ciscribe.testing import check_model

B = 3
ZOO = {"deepbind": (DeepBind, deepbind), "deepsea": (DeepSEA, deepsea), "basset": (Basset, basset),
       "danq": (DanQ, danq), "deepstarr": (DeepSTARR, deepstarr), "malinois": (Malinois, malinois),
       "jores": (Jores, jores), "xpresso": (Xpresso, xpresso)}


def sequences(length, n=B, seed=0, letters=4):
    return one_hot_tensor(torch.randint(0, letters, (n, length), generator=torch.Generator().manual_seed(seed)))


def size(cls, **arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in cls(**arguments).parameters())


@pytest.mark.parametrize("key", cases_small.CASES)
def test_model__keeps_the_contract(key):
    case = cases_small.CASES[key]
    torch.manual_seed(0)
    model = ZOO[key.split()[0]][0](**case.arguments)
    covariates = torch.randn(B, case.n_covariates) if case.n_covariates else None
    check_model(model, sequences(case.length, letters=5), covariates=covariates, n_targets=case.n_targets)


# model-zoo table: published defaults, then published variants
@pytest.mark.parametrize(("name", "arguments", "published"), [
    ("deepbind", {}, 1_617), ("deepsea", {}, 52_843_119), ("basset", {}, 4_135_064),
    ("basset", {"padding": "same"}, 4_735_064), ("danq", {}, 46_926_479 + 2 * 4 * 320),
    ("danq", {"filters": 1_024, "kernel": 30, "pool": 15, "lstm": 512}, 67_892_175 + 2 * 4 * 512),
    ("deepstarr", {}, 622_722), ("deepstarr", {"filters": (246, 60, 60, 120)}, 620_612),
    ("malinois", {}, 4_107_183), ("jores", {}, 1_825_921), ("jores", {"faithful": True}, 1_825_921),
    ("xpresso", {}, 112_485), ("xpresso", {"n_covariates": 6}, 112_357),
])
def test_size__is_the_published(name, arguments, published):
    cls, module = ZOO[name]
    assert size(cls, **arguments) == published
    if not arguments:
        assert module.CARD.parameters == published
        assert module.CARD.name == name


@pytest.mark.parametrize(("name", "n_targets", "expected"), [
    ("deepsea", 16, 377_088), ("danq", 16, 328_560), ("deepstarr", 2, 622_722), ("xpresso", 1, 112_485)])
def test_preset__is_the_size_that_was_timed(name, n_targets, expected):
    cls, module = ZOO[name]
    assert size(cls, n_targets=n_targets, **module.PRESETS["cpu"]) == expected


@pytest.mark.parametrize(("name", "n_targets", "least", "most"), [
    ("deepbind", 1, 1_600, 3_200), ("jores", 1, 376_500, 377_500),
    ("basset", 8, 130_000, 148_000),  # timed with 12 positions before the dense layers, not the 10 of this form
    ("malinois", 3, 140_000, 160_000)])  # timed with a narrower shared layer
def test_preset__is_about_the_size_that_was_timed(name, n_targets, least, most):
    cls, module = ZOO[name]
    assert least < size(cls, n_targets=n_targets, **module.PRESETS["cpu"]) < most


@pytest.mark.parametrize(("name", "n_targets"), [("deepstarr", 2), ("malinois", 3), ("jores", 1), ("xpresso", 1),
                                                  ("basset", 164)])
def test_forward__published_shape(name, n_targets):
    cls, module = ZOO[name]
    model = cls().eval()
    covariates = [torch.randn(2, 8)] if name == "xpresso" else []
    with torch.no_grad():
        assert model(sequences(module.CARD.input_length, n=2), *covariates).shape == (2, n_targets)


@pytest.mark.parametrize(("name", "bins"), [("deepsea", 53), ("basset", 10), ("danq", 75), ("deepstarr", 15),
                                            ("malinois", 13), ("jores", 170), ("xpresso", 35)])
def test_flatten__has_the_published_number_of_positions(name, bins):
    cls, _ = ZOO[name]
    with torch.device("meta"):
        model = cls()
        dense = next(m for m in model.trunk if isinstance(m, nn.Linear))
    width = {"deepsea": 960, "basset": 200, "danq": 640, "deepstarr": 120, "malinois": 200, "jores": 128, "xpresso": 32}
    assert dense.in_features == bins * width[name] + (8 if name == "xpresso" else 0)


def linear_twin(layers, n_in=4):
    """The convolutions and pools of a network with unit weights, means for maxima and no activations."""
    twin = []
    for layer in layers:
        if isinstance(layer, nn.Flatten):
            break
        if isinstance(layer, nn.Conv1d):
            conv = Conv1d(n_in, 1, layer.kernel_size[0], padding=layer.padding, bias=False)
            nn.init.ones_(conv.weight)
            twin.append(conv)
            n_in = 1
        elif isinstance(layer, nn.MaxPool1d):
            twin.append(nn.AvgPool1d(layer.kernel_size, padding=layer.padding))
    return nn.Sequential(*twin)


@pytest.mark.parametrize(("name", "field"), [("deepsea", 163), ("basset", 168), ("deepstarr", 58), ("malinois", 168),
                                             ("xpresso", 545), ("danq", 26 + 12)])
def test_convolutions__see_the_published_field(name, field):
    """Gradient of one position before the dense layers, which see all."""
    cls, module = ZOO[name]
    with torch.device("meta"):
        model = cls()
    layers = model.scan if name in ("xpresso", "danq") else model.trunk
    X = sequences(module.CARD.input_length, n=1).requires_grad_()
    H = linear_twin(layers)(X)
    (gradient,) = torch.autograd.grad(H[0, 0, H.shape[2] // 2], X)
    seen = gradient.abs().sum(dim=(0, 1)).nonzero().flatten()
    assert len(seen) == int(seen.max() - seen.min()) + 1 == field


def test_jores__convolutions_see_the_published_field():
    model = Jores(length=101, filters=5).eval()
    X = sequences(101, n=1).requires_grad_()
    H = model.trunk[0](model.conv2(model.conv1(X)))
    (gradient,) = torch.autograd.grad(H[0, :, 50].sum(), X)
    seen = gradient.abs().sum(dim=(0, 1)).nonzero().flatten()
    assert (int(seen.min()), int(seen.max())) == (50 - 18, 50 + 18)  # 37 bp


@pytest.mark.parametrize(("name", "shortest"), [("deepsea", 163), ("basset", 168), ("danq", 38), ("deepstarr", 16),
                                                ("malinois", 24), ("jores", 1), ("xpresso", 300)])
def test_length__shortest_works_and_shorter_is_refused(name, shortest):
    cls, module = ZOO[name]
    arguments = {"n_targets": 5} | module.PRESETS["cpu"] | ({"n_covariates": 0} if name == "xpresso" else {})
    with torch.no_grad():
        y = cls(length=shortest, **arguments).eval()(sequences(shortest))
    assert y.shape == (B, 5)
    assert bool(torch.isfinite(y).all())
    with pytest.raises(ConfigError, match=f"{name}.*at least {shortest} bp.*got length={shortest - 1}"):
        cls(length=shortest - 1, **arguments)


@pytest.mark.parametrize("name", [n for n in ZOO if n != "deepbind"])
def test_forward__refuses_another_length(name):
    case = cases_small.CASES[name]
    model = ZOO[name][0](**case.arguments)
    with pytest.raises(SchemaError, match=f"{name} reads sequences of {case.length} bp; got {case.length + 2} bp"):
        model(sequences(case.length + 2))


@pytest.mark.parametrize(("cls", "arguments", "message"), [
    (DeepSEA, {"threshold": 1e-6, "first_activation": "exponential"}, "leave one of the two out"),
    (Jores, {"kernel": 12}, "odd kernel.*got kernel=12"),
])
def test_arguments__refused(cls, arguments, message):
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        cls(**arguments)


def test_deepbind__n_is_a_quarter_of_each_base_and_so_are_the_ends():
    torch.manual_seed(0)
    model = DeepBind(5, filters=11, kernel=7, pool="max_mean").eval()
    X = sequences(31, letters=5)
    X[:, :, 13] = 0
    spread = torch.where(X.sum(dim=1, keepdim=True) == 0, 0.25, X)
    torch.testing.assert_close(model(X), model(spread))
    quarter = torch.full((B, 4, 6), 0.25)
    H = model.scan(torch.cat([quarter, spread, quarter], dim=2))
    assert H.shape == (B, 11, 31 + 7 - 1)
    pooled = torch.cat([H.amax(dim=2), H.mean(dim=2)], dim=1)
    torch.testing.assert_close(model(X), model.head(model.trunk(pooled)))


def test_deepbind__finds_its_best_match_wherever_it_lies():
    """Also where the motif hangs over the end, which the padding is for."""
    model = DeepBind(1, filters=1, kernel=5, hidden=0).eval()
    motif = one_hot_tensor(torch.tensor([[0, 1, 2, 3, 0]]))[0]
    with torch.no_grad():
        model.scan[0].weight[0] = motif
        for p in (model.scan[0].bias, model.head.bias):
            p.zero_()
        model.head.weight.fill_(1)
        X = one_hot_tensor(torch.full((4, 23), 4))
        X[0, :, :5] = motif
        X[1, :, 11:16] = motif
        X[2, :, 20:] = motif[:, :3]
        torch.testing.assert_close(model(X).flatten(), torch.tensor([5.0, 5, 3 + 2 * 0.25, 5 * 0.25]))


def test_deepsea__threshold_is_the_floor_of_torch7():
    arguments = cases_small.CASES["deepsea"].arguments
    relu, floor = DeepSEA(**arguments), DeepSEA(**arguments, threshold=0.125)
    floor.load_state_dict(relu.state_dict())
    X = sequences(199)
    h = relu.trunk[0](X)
    torch.testing.assert_close(floor.trunk[1](h), torch.where(h > 0, h, 0.125))
    assert sum(isinstance(m, nn.Threshold) for m in floor.modules()) == 4
    assert not torch.allclose(relu.eval()(X), floor.eval()(X))


def test_danq__recurrence_runs_over_positions_not_over_the_batch():
    """A published port reads (L, B, C) as (B, L, C)."""
    torch.manual_seed(0)
    model = DanQ(**cases_small.CASES["danq"].arguments).eval()
    X = sequences(61)
    other = X.clone()
    other[1:] = sequences(61, seed=1)[1:]
    torch.testing.assert_close(model(X)[0], model(other)[0])
    E = model.scan(X).transpose(1, 2)  # B bins d
    H, _ = model.lstm(E)
    E[:, 0] += 1
    assert bool(((model.lstm(E)[0] - H).abs().amax(dim=2) > 0).all())  # the first bin is felt in every bin


def test_malinois__one_matrix_product_equals_separate_branches():
    torch.manual_seed(0)
    layer = BranchedLinear(3, 5, 7)
    assert layer.weight.shape == (3, 5, 7)
    H = torch.randn(11, 3, 5)
    expected = torch.stack([H[:, t] @ layer.weight[t] + layer.bias[t] for t in range(3)], dim=1)
    torch.testing.assert_close(layer(H), expected)


def test_malinois__branches_are_independent():
    model = Malinois(**cases_small.CASES["malinois"].arguments).eval()
    X = sequences(107)
    before = model(X)
    with torch.no_grad():
        for layer in (*model.branches, model.head):
            if isinstance(layer, BranchedLinear):
                layer.weight[2] += 1
    changed = (model(X) - before).abs().amax(dim=0) > 1e-6
    assert changed.tolist() == [t == 2 for t in range(7)]


def test_jores__reads_both_strands_alike():
    """The two-strand part of a sequence is that of its reverse complement turned around."""
    torch.manual_seed(0)
    model = Jores(**cases_small.CASES["jores"].arguments).eval()
    seen = []
    model.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    X = sequences(61)
    model(X)
    model(reverse_complement(X))
    torch.testing.assert_close(seen[0], seen[1].flip(-1))


def test_jores__reverse_branch_has_kernels_reversed_in_length_and_base():
    torch.manual_seed(0)
    model = Jores(**cases_small.CASES["jores"].arguments).eval()
    X = sequences(61)
    first = nn.functional.conv1d(X, model.conv1.weight.flip(1, 2), model.conv1.bias, padding=2).relu()
    second = nn.functional.conv1d(first, model.conv2.weight.flip(2), model.conv2.bias, padding=2).relu()
    torch.testing.assert_close(model._read(reverse_complement(X), 1).flip(-1), second)


def test_jores__faithful_sees_the_forward_strand_twice():
    model = Jores(**cases_small.CASES["jores"].arguments).eval()
    faithful = Jores(**cases_small.CASES["jores faithful"].arguments).eval()
    faithful.load_state_dict(model.state_dict())
    X = sequences(61)
    torch.testing.assert_close(faithful(X), model.head(model.trunk(2 * model._read(X, 0))))
    assert not torch.allclose(faithful(X), model(X))


def test_xpresso__joins_the_covariates():
    case = cases_small.CASES["xpresso"]
    torch.manual_seed(0)
    model = Xpresso(**case.arguments).eval()
    X, covariates = sequences(607), torch.randn(B, 5)
    assert not torch.allclose(model(X, covariates), model(X, covariates + 1))
    for wrong, n in ((None, 0), (covariates[:, :2], 2)):
        with pytest.raises(SchemaError, match=f"expects 5 covariates a gene; got {n}"):
            model(X, wrong)


@pytest.mark.parametrize("name", ZOO)
def test_activations__are_modules_used_once(name):
    """Rules of DeepLIFT are attached to modules: one call a pass for each activation and pool."""
    case = cases_small.CASES[name]
    model = ZOO[name][0](**case.arguments).eval()
    calls = {}
    nonlinear = (nn.ReLU, nn.MaxPool1d, nn.AdaptiveMaxPool1d)
    for key, module in model.named_modules():
        if isinstance(module, nonlinear):
            calls[key] = 0
            module.register_forward_hook(lambda *_, key=key: calls.__setitem__(key, calls[key] + 1))
    model(sequences(case.length), *([torch.randn(B, 5)] if case.n_covariates else []))
    assert calls
    assert set(calls.values()) == {1}
