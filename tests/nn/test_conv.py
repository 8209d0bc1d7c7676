from inspect import unwrap

import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError
from ciscribe.nn import conv
from ciscribe.nn.conv import ConvStem
from ciscribe.nn.heads import ExpressionHead

B, D, T, C, BINS = 3, 11, 5, 7, 13


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sequences(length, seed=0):
    codes = torch.randint(0, 4, (B, length), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(codes, 4).transpose(1, 2).float()


def channels_last(x):
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def is_channels_last(x):
    return x.transpose(1, 2).is_contiguous()


def passes(module, x):
    """Output, its gradients, and those of the gradients (of the sum of squares), in that order."""
    x = x.detach().requires_grad_()
    inputs = [x, *module.parameters()]
    y = module(x)
    first = torch.autograd.grad(y.square().sum() / y.numel(), inputs, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), inputs[:2], retain_graph=True)
    return [y, *first, *second]


def assert_equal_to_1e6(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert float((a.double() - b.double()).detach().abs().max()) <= 2e-6 * float(b.detach().abs().max())


CONVOLUTIONS = {  # batch, length, channels in and out, kernel, further arguments
    "first layer": (3, 61, 4, 11, 19, {"padding": "same"}),
    "first layer, many outputs": (2, 61, 4, 67, 15, {"padding": 7}),
    "even kernel": (3, 61, 5, 11, 6, {"padding": "same"}),
    "even kernel, dilated": (3, 601, 17, 19, 4, {"padding": "same", "dilation": 3}),
    "long": (2, 601, 17, 19, 3, {"padding": "same", "dilation": 2}),
    "long, not padded": (2, 601, 17, 19, 5, {}),
    "far": (3, 127, 17, 19, 3, {"padding": "same", "dilation": 37}),
    "farther than the sequence": (3, 31, 17, 19, 3, {"padding": "same", "dilation": 101}),
    "far, not padded": (3, 127, 19, 17, 3, {"dilation": 37}),
    "far and wide": (3, 151, 512, 13, 3, {"padding": "same", "dilation": 131}),
    "far and wide back": (3, 277, 13, 512, 3, {"dilation": 131}),
    "few outputs": (3, 127, 19, 2, 75, {}),
    "few outputs, padded": (3, 127, 19, 7, 25, {"padding": "same"}),
    "few outputs, dilated": (3, 127, 19, 1, 7, {"padding": 5, "dilation": 5}),
    "few outputs, no bias": (3, 127, 19, 2, 11, {"padding": "same", "bias": False}),
    "grouped": (3, 151, 22, 33, 5, {"groups": 11, "padding": "same"}),
    "depthwise": (3, 151, 19, 19, 7, {"groups": 19, "padding": "same", "bias": False}),
    "strided": (3, 151, 19, 13, 7, {"stride": 3, "padding": 2}),
    "padded beyond the kernel": (3, 61, 17, 19, 3, {"padding": 5}),
    "circular": (3, 151, 19, 13, 7, {"padding": 3, "padding_mode": "circular"}),
    "width 1": (3, 61, 19, 23, 1, {}),
}


@pytest.fixture(params=["at once", "when large"])
def own_backward(request, monkeypatch):
    """Our own backward pass for tensors of any size, and only for those that are worth it."""
    if request.param == "at once":
        monkeypatch.setattr(conv, "_WORTHWHILE", 0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.usefixtures("own_backward")
@pytest.mark.parametrize("key", CONVOLUTIONS)
def test_conv__is_that_of_torch(key):
    n, length, n_in, n_out, kernel, arguments = CONVOLUTIONS[key]
    torch.manual_seed(0)
    ours = conv.Conv1d(n_in, n_out, kernel, **arguments)
    plain = nn.Conv1d(n_in, n_out, kernel, **arguments).double()
    plain.load_state_dict(ours.state_dict())
    x = draw(n, n_in, length)
    for given in (x, channels_last(x)):
        assert_equal_to_1e6(passes(ours, given), passes(plain, x.double()))
    assert_equal_to_1e6([ours.double()(x.double())], [plain(x.double())])
    assert isinstance(ours, nn.Conv1d)


@pytest.mark.parametrize("key", ["first layer", "far", "far and wide", "few outputs", "few outputs, padded", "long"])
@pytest.mark.usefixtures("own_backward")
def test_conv__without_gradients(key):
    n, length, n_in, n_out, kernel, arguments = CONVOLUTIONS[key]
    ours = conv.Conv1d(n_in, n_out, kernel, **arguments)
    x = draw(n, n_in, length)
    y = ours(x)
    assert y.requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            z = ours(x)
            assert not z.requires_grad
            assert torch.equal(z, y)
    frozen = ours.requires_grad_(False)
    assert not frozen(x).requires_grad
    (gradient,) = torch.autograd.grad(frozen(x.requires_grad_()).sum(), x)  # as attributions ask for it
    assert gradient.shape == x.shape
    assert ours(x[:0]).shape == y[:0].shape


@pytest.mark.parametrize("key", ["first layer", "far", "far and wide", "few outputs", "long"])
@pytest.mark.usefixtures("own_backward")
def test_conv__bfloat16(key):
    n, length, n_in, n_out, kernel, arguments = CONVOLUTIONS[key]
    torch.manual_seed(0)
    ours = conv.Conv1d(n_in, n_out, kernel, **arguments)
    x = draw(n, n_in, length)
    exact = passes(ours, x)[:4]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(x)
    assert y.dtype == torch.bfloat16
    gradients = torch.autograd.grad(y.float().square().sum() / y.numel(), list(ours.parameters()))
    halved = passes(ours.to(torch.bfloat16), x.bfloat16())[:4]
    for found, expected in ((y, exact[0]), *zip(gradients, exact[2:], strict=True), *zip(halved, exact, strict=True)):
        assert float((found - expected).detach().abs().max()) < 0.05 * float(expected.detach().abs().max())


def test_conv__one_sequence_without_a_batch():
    ours = conv.Conv1d(5, 11, 7)
    x = draw(5, 61)
    torch.testing.assert_close(ours(x), ours(x[None])[0])


@pytest.mark.parametrize("length", [60, 61])
@pytest.mark.parametrize("arguments", [{"kernel_size": 2}, {"kernel_size": 3}, {"kernel_size": 5, "stride": 2},
                                       {"kernel_size": 4, "padding": 1}, {"kernel_size": 7, "ceil_mode": True}])
@pytest.mark.parametrize("kind", ["MaxPool1d", "AvgPool1d"])
def test_pool__is_that_of_torch(kind, arguments, length):
    ours, plain = getattr(conv, kind)(**arguments), getattr(nn, kind)(**arguments)
    x = draw(B, D, length)
    for given in (x, channels_last(x)):
        given, other = given.detach().requires_grad_(), x.clone().requires_grad_()
        y, expected = ours(given), plain(other)
        assert is_channels_last(y)
        assert_equal_to_1e6([y], [expected])
        assert_equal_to_1e6(torch.autograd.grad(y.square().sum(), given),
                            torch.autograd.grad(expected.square().sum(), other))
        with torch.no_grad():
            assert torch.equal(ours(given), y)
    assert_equal_to_1e6([ours(x.double())], [plain(x.double())])


def test_max_pool__passes_on_what_is_not_a_number():
    x = draw(B, D, 60)
    x[1, 2, 3] = torch.nan
    assert torch.equal(conv.MaxPool1d(2)(x).isnan(), nn.MaxPool1d(2)(x).isnan())


def test_batch_norm__is_that_of_torch():
    ours, plain = conv.BatchNorm1d(D), nn.BatchNorm1d(D)
    for x in (draw(B, D, 61) + 1, draw(B, D, seed=1)):
        y = ours(x)
        assert_equal_to_1e6([y, *ours.buffers()], [plain(x), *plain.buffers()])
    assert_equal_to_1e6([ours.eval()(x)], [plain.eval()(x)])
    with pytest.raises(ValueError, match="2D or 3D"):
        ours(draw(1, B, D, 5, 7))


def test_layers__keep_the_layout_from_the_first_to_the_last():
    """No operator between two convolutions copies: all they see and give is channels last, forward and back."""
    network = nn.Sequential(
        conv.Conv1d(4, 67, 19, padding="same"), conv.BatchNorm1d(67), nn.ReLU(), conv.MaxPool1d(3), nn.Dropout(0.1),
        conv.Conv1d(67, 64, 3, padding="same", dilation=37), nn.SiLU(), conv.AvgPool1d(2),
        conv.Conv1d(64, 64, 7, padding="same", groups=64, bias=False), nn.GELU(), conv.Conv1d(64, 13, 1))
    laid_out = []
    for layer in network:
        layer.register_forward_hook(lambda module, inputs, y: laid_out.append(is_channels_last(y)))
        layer.register_full_backward_hook(lambda module, gradients, y: laid_out.append(is_channels_last(y[0])))
    y = network(sequences(601).requires_grad_())
    (y * y.detach()).sum().backward()
    assert laid_out == [True] * 2 * len(network)
    state = {k: v.shape for k, v in conv.Conv1d(4, 11, 7).state_dict().items()}
    assert state == {k: v.shape for k, v in nn.Conv1d(4, 11, 7).state_dict().items()}


@pytest.mark.gpu
@pytest.mark.parametrize("key", CONVOLUTIONS)
def test_conv__on_a_gpu(key):
    n, length, n_in, n_out, kernel, arguments = CONVOLUTIONS[key]
    ours = conv.Conv1d(n_in, n_out, kernel, **arguments)
    x = draw(n, n_in, length)
    y = ours(x)
    torch.testing.assert_close(ours.cuda()(x.cuda()).cpu(), y, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["relu", "exponential", "silu", "gelu", "gelu_tanh", "gelu_sigmoid"])
def test_activation__makes_its_own(name):
    x = draw(B, D)
    expected = {"relu": x.clamp(min=0), "exponential": x.exp(), "silu": x * x.sigmoid(),
                "gelu": x * torch.special.ndtr(x), "gelu_sigmoid": x / (1 + (-1.702 * x).exp()),
                "gelu_tanh": x / 2 * (1 + ((2 / torch.pi) ** 0.5 * (x + 0.044715 * x ** 3)).tanh())}[name]
    torch.testing.assert_close(conv.activation(name)(x), expected)
    assert conv.activation(name) is not conv.activation(name)


def test_activation__and_length_refuse():
    with pytest.raises(ValueError, match=r"activation is one of relu, .*got 'tanh'"):
        unwrap(conv.activation)("tanh")
    conv.need_length(sequences(61), 61, "Basset")
    with pytest.raises(SchemaError, match=r"Basset reads sequences of 600 bp; got 61 bp; .*length=61"):
        conv.need_length(sequences(61), 600, "Basset")


@pytest.mark.parametrize("resolution", [1, 4, 8, 16, 32, 128])
def test_conv_stem__one_vector_a_bin(resolution):
    stem = ConvStem(D, resolution, channels=7).eval()
    y = stem(sequences(3 * resolution))
    assert y.shape == (B, 3, D)
    assert bool(torch.isfinite(y).all())
    assert bool(torch.isfinite(stem(torch.zeros(B, 4, 3 * resolution))).all())  # only N


def test_conv_stem__at_one_bp_is_a_linear_map_of_each_base():
    stem = ConvStem(D, 1)
    X = sequences(37)
    weight, bias = stem.layers.weight[:, :, 0], stem.layers.bias
    assert torch.allclose(stem(X), X.transpose(1, 2) @ weight.T + bias, atol=1e-6)


@pytest.mark.parametrize(("resolution", "reach"), [(4, 1), (32, 2), (128, 2)])
def test_conv_stem__a_base_reaches_the_bins_around_it_only(resolution, reach):
    stem = ConvStem(D, resolution, channels=7).eval()
    X = sequences(11 * resolution)
    changed = X.clone()
    at = 5 * resolution + resolution // 2
    changed[:, :, at] = X[:, :, at].roll(1, dims=1)
    changed_bins = (stem(X) - stem(changed)).abs().amax(dim=(0, 2)).nonzero().flatten()
    far = (changed_bins - 5).abs().max() if len(changed_bins) else 0
    assert far <= reach + 4 // (resolution // 4)


def test_conv_stem__gradient_reaches_the_sequence_and_batches_do_not_mix():
    stem = ConvStem(D, 16, channels=7).eval()
    X = sequences(80).requires_grad_()
    y = stem(X)
    (gradient,) = torch.autograd.grad(y[1].sum(), X)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0
    assert torch.allclose(y[2:], stem(X[2:]), atol=1e-6)


def test_conv_stem__refuses():
    for resolution in (2, 3, 10, 48):
        with pytest.raises(ValueError, match=f"1 or a power of two from 4 bp; got {resolution}"):
            ConvStem(D, resolution)
    with pytest.raises(ValueError, match="window of 37 bp is not a multiple of the resolution 4 bp"):
        ConvStem(D, 4)(sequences(37))


@pytest.mark.parametrize("pool", ["center", "window", "attention"])
def test_expression_head__shape_covariates_and_batch_invariance(pool):
    head = ExpressionHead(D, T, n_covariates=C, center_bins=3, pool=pool).eval()
    H, covariates = draw(B, BINS, D), draw(B, C, seed=1)
    y = head(H, covariates)
    assert y.shape == (B, T)
    assert torch.allclose(y[1:2], head(H[1:2], covariates[1:2]), atol=1e-6)
    assert not torch.allclose(y, head(H, covariates + 1))
    for wrong in (None, covariates[:, :2]):
        with pytest.raises(ValueError, match=f"expects 7 covariates a gene; got {0 if wrong is None else 2}"):
            head(H, wrong)


def test_expression_head__center_reads_the_central_bins_only():
    head = ExpressionHead(D, T, center_bins=3).eval()
    H = draw(B, BINS, D)
    inside, outside = H.clone(), H.clone()
    inside[:, 5:8] += draw(B, 3, D, seed=1)
    outside[:, :5] += 1
    outside[:, 8:] += 1
    assert torch.equal(head(H), head(outside))
    assert not torch.allclose(head(H), head(inside))
    assert torch.allclose(head(H), head.mlp(H[:, 5:8].mean(dim=1)), atol=1e-6)


@pytest.mark.parametrize("pool", ["window", "attention"])
def test_expression_head__other_pools_see_every_bin(pool):
    head = ExpressionHead(D, T, center_bins=3, pool=pool).eval()
    H = draw(B, BINS, D).requires_grad_()
    (gradient,) = torch.autograd.grad(head(H).square().sum(), H)
    assert bool((gradient.abs().sum(dim=2) > 0).all())


def test_expression_head__more_central_bins_than_bins_takes_all():
    H = draw(B, BINS, D)
    many, every = ExpressionHead(D, T, center_bins=101).eval(), ExpressionHead(D, T).eval()
    every.load_state_dict(many.state_dict())
    assert torch.equal(many(H), every(H))
