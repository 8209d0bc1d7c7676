"""Tensors that stand for something else: which operations reach their rule, under which names, and what cannot."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ciscribe.errors import UnsupportedError
from ciscribe.nn.intercept import Intercepted

B, C, L = 3, 5, 7


class Boxed(Intercepted):
    """Stands for a tensor that it keeps elsewhere; its rule does the operation there and notes its name."""

    value: torch.Tensor
    names: list[str]

    @classmethod
    def of(cls, value, names):
        new = cls.stand_in(tuple(value.shape), value)
        new.value, new.names = value, names
        return new

    @classmethod
    def rule(cls, name, func, args, kwargs):
        names = found((args, kwargs))[0].names
        names.append(name)
        made = func(*opened(args), **opened(kwargs))
        if name.endswith("_"):  # what was changed stays the same object
            return args[0]
        return closed(made, names)


class Refusing(Intercepted):
    """Has a rule that refuses everything."""

    error: type[Exception] = ValueError

    @classmethod
    def rule(cls, name, func, args, kwargs):
        raise cls.error(f"no rule for {name}")


def found(x):
    if isinstance(x, Boxed):
        return [x]
    items = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
    return [box for item in items for box in found(item)]


def opened(x):
    if isinstance(x, Boxed):
        return x.value
    if isinstance(x, dict):
        return {k: opened(v) for k, v in x.items()}
    return type(x)(opened(v) for v in x) if isinstance(x, list | tuple) else x


def closed(x, names):
    if isinstance(x, torch.Tensor):
        return Boxed.of(x, names)
    return type(x)(closed(v, names) for v in x) if type(x) in (list, tuple) else x


@pytest.fixture
def value():
    return torch.randn(B, C, L, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def other():
    return torch.rand(B, C, L, generator=torch.Generator().manual_seed(1)) + 0.5


def plus_one(x):
    x += 1
    return x


def halved(x):
    x /= 2
    return x


def blanked(x):
    x[..., 2] = 0
    return x


OPERATIONS = {
    "x + y": (lambda x, y: x + y, ["add"]),
    "y + x": (lambda x, y: y + x, ["add"]),
    "1 - x": (lambda x, y: 1 - x, ["rsub"]),
    "y - x": (lambda x, y: y - x, ["sub"]),
    "2 * x": (lambda x, y: 2 * x, ["mul"]),
    "x / y": (lambda x, y: x / y, ["div"]),
    "1 / x": (lambda x, y: 1 / x, ["rdiv"]),
    "-x": (lambda x, y: -x, ["neg"]),
    "x ** 2": (lambda x, y: x**2, ["pow"]),
    "x @ y.mT": (lambda x, y: x @ y.mT, ["matmul"]),
    "y @ x.mT": (lambda x, y: y @ x.mT, ["mT", "matmul"]),
    "x > 0": (lambda x, y: x > 0, ["gt"]),
    "x += 1": (lambda x, y: plus_one(x), ["add_"]),
    "x /= 2": (lambda x, y: halved(x), ["div_"]),
    "x[...] = 0": (lambda x, y: blanked(x), ["setitem"]),
    "x.add_": (lambda x, y: x.add_(y), ["add_"]),
    "x.relu_": (lambda x, y: x.relu_(), ["relu_"]),
    "x[0].T": (lambda x, y: x[0].T, ["getitem", "T"]),
    "x[..., 1:3]": (lambda x, y: x[..., 1:3], ["getitem"]),
    "first of many": (lambda x, y: next(iter(x)), ["unbind"]),
    "cat": (lambda x, y: torch.cat([y, x], dim=1), ["cat"]),
    "by keyword": (lambda x, y: torch.add(input=y, other=x), ["add"]),
    "mean": (lambda x, y: x.mean(dim=(1, 2)), ["mean"]),
    "einsum": (lambda x, y: torch.einsum("bcl,bcl->b", x, y), ["einsum"]),
    "functional": (lambda x, y: F.gelu(x), ["gelu"]),
    "a function of its own": (lambda x, y: Doubled.apply(x), ["mul"]),
    "without gradients": (lambda x, y: unwatched(x), ["exp"]),
}


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


@torch.inference_mode()
def unwatched(x):
    return x.exp()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_rule__is_given_each_operation_by_its_name(operation, value, other):
    do, expected = OPERATIONS[operation]
    names = []
    made = do(Boxed.of(value.clone(), names), other)
    assert names == expected
    assert isinstance(made, Boxed)
    assert torch.equal(made.value, do(value.clone(), other))
    assert made.shape == made.value.shape


def test_rule__is_given_the_layers_of_a_network(value):
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv1d(C, 11, 3), nn.BatchNorm1d(11), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(),
                            nn.AvgPool1d(2), nn.Flatten(), nn.Linear(11, 2), nn.LayerNorm(2), nn.Softplus()).eval()
    names = []
    made = network(Boxed.of(value, names))
    assert names == ["conv1d", "batch_norm", "relu", "max_pool1d", "dropout", "avg_pool1d", "flatten", "linear",
                     "layer_norm", "softplus"]
    assert torch.equal(made.value, network(value))


@pytest.mark.parametrize("layer", [nn.ReLU(inplace=True), nn.ELU(inplace=True), nn.LeakyReLU(inplace=True),
                                   nn.Dropout(inplace=True), lambda x: F.relu(x, True)])
def test_rule__learns_by_keyword_that_a_function_works_in_place(layer, value):
    """Such a function keeps its name; a rule has to look."""
    class Notes(Boxed):
        @classmethod
        def rule(cls, name, func, args, kwargs):
            args[0].names.append((name.endswith("_"), kwargs.get("inplace")))
            return args[0]

    names = []
    layer(Notes.of(value, names))
    assert names == [(False, True)]


def test_facts__are_answered_without_a_rule():
    x = Refusing.stand_in((B, C, L), torch.zeros(1, dtype=torch.float64))
    assert x.shape == torch.Size([B, C, L])
    assert (len(x), x.ndim, x.dim(), x.numel(), x.nelement()) == (B, 3, 3, B * C * L, B * C * L)
    assert (x.size(1), tuple(x.size()), x.stride()) == (C, (B, C, L), (C * L, L, 1))
    assert x.dtype == torch.float64
    assert x.device.type == "cpu"
    assert x.is_floating_point()
    assert torch.is_floating_point(x)
    assert not x.is_complex()
    assert not x.requires_grad
    assert not x.is_cuda
    assert x.is_contiguous()
    assert isinstance(x, torch.Tensor)
    assert torch.zeros(x.shape, dtype=x.dtype, device=x.device).shape == x.shape
    assert repr(x).startswith("Refusing(")  # nothing is read for it


def test_rule__refusals_come_through_operators(other):
    x = Refusing.stand_in((B, C, L), other)
    for name, do in (("relu", F.relu), ("add", lambda x: x + other), ("add", lambda x: other + x),
                     ("rdiv", lambda x: 1 / x), ("eq", lambda x: x == 0), ("add_", plus_one),
                     ("matmul", lambda x: other @ x), ("setitem", blanked), ("bool", bool)):
        with pytest.raises(ValueError, match=f"no rule for {name}$"):
            do(x)


def test_rule__an_unsupported_operation_keeps_its_message(other):
    class Unsupported(Refusing):
        error = UnsupportedError

    x = Unsupported.stand_in((B, C, L), other)
    for do in (lambda x: x + other, lambda x: x % 2, lambda x: x == 0, plus_one):
        with pytest.raises(UnsupportedError, match="no rule for"):
            do(x)


def test_rule__what_goes_around_it_raises(value):
    x = Boxed.of(value, [])
    with pytest.raises(Exception, match=r"detach.* reached the data of a Boxed, which has none; an operation went "
                                        "around its rules"):
        _ = x.data
    assert x.names == []


def test_rule__of_the_base_is_to_be_defined(value):
    with pytest.raises(NotImplementedError):
        Intercepted.stand_in((B,), value).exp()


def test_stand_in__holds_no_data_and_leaves_other_tensors_alone(value):
    x = Boxed.of(value, [])
    before = value.clone()
    _ = x * 3 + x[:, :1]
    assert torch.equal(value, before)
    huge = Refusing.stand_in((10**6, 10**6), value)  # 4 TB if it were there
    assert huge.numel() == 10**12
    assert type(value + 1) is torch.Tensor
