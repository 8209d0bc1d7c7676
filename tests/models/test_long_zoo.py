"""The networks of long sequences and LegNet: published sizes, fields of view, lengths, and what they promise."""

import jaxtyping
import pytest
import torch
from cases_long import BELUGA, CASES, EXPECTO, HUMAN, YEAST
from torch import nn

from ciscribe.errors import SchemaError
from ciscribe.models import basenji, basenji2, expecto, expresnet, legnet
from ciscribe.models.basenji import Basenji
from ciscribe.models.basenji2 import Basenji2
from ciscribe.models.expecto import Beluga, Expecto, ridge_head, spatial_features
from ciscribe.models.expresnet import ExpResNet
from ciscribe.models.legnet import LegNet
from ciscribe.nn.conv import AvgPool1d, BatchNorm1d, GELUSigmoid, MaxPool1d
from ciscribe.oracle import ExpectedBin, Oracle
from ciscribe.sequence import one_hot_tensor, reverse_complement
from reference.expecto import naive_features, naive_spatial

# PyTorch's own way of padding an even kernel, where ours is not used (float64, meta)
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")

CLASSES = {"beluga": Beluga, "expecto": Expecto, "basenji": Basenji, "basenji2": Basenji2, "expresnet": ExpResNet,
           "legnet": LegNet}
CARDS = {"beluga": expecto.CARD_BELUGA, "expecto": expecto.CARD, "basenji": basenji.CARD, "basenji2": basenji2.CARD,
         "expresnet": expresnet.CARD, "legnet": legnet.CARD}


def n_parameters(name, **arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in CLASSES[name](**arguments).parameters())


def dna(B, L, seed=0):
    return one_hot_tensor(torch.randint(0, 5, (B, L), generator=torch.Generator().manual_seed(seed)))


def randomized(model):
    """Random weights everywhere, also where a gamma starts at 0; in double precision, for evaluation."""
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = torch.rand(p.shape, generator=generator, dtype=torch.float64) - 0.5
    return model.double().eval()


# ---- published sizes


@pytest.mark.parametrize(("name", "n"), [
    ("beluga", 149_536_251), ("expecto", 149_536_251 + 20_021), ("basenji", 15_190_636), ("basenji2", 30_088_228),
    ("expresnet", 2_976_833), ("legnet", 857_825),
])
def test_parameters__as_published_and_on_the_card(name, n):
    assert CARDS[name].name == name
    assert n_parameters(name) == n == CARDS[name].parameters


@pytest.mark.parametrize(("name", "arguments", "n"), [
    ("basenji2", {"n_targets": 1_643}, 24_447_438), ("expresnet", {"pool": "flatten"}, 33_205_313),
    ("legnet", {"version": "optimised"}, 2_129_602), ("legnet", {"version": "dream"}, 1_725_122),
])
def test_parameters__of_the_other_published_versions(name, arguments, n):
    assert n_parameters(name, **arguments) == n


@pytest.mark.parametrize(("name", "preset", "n_targets", "n"), [
    ("beluga", expecto.PRESETS_BELUGA, 16, 532_848),
    ("expecto", expecto.PRESETS, 1, 532_848 + 161),
    # the page of the zoo counted 104,940: its preset had one bias more in each of the 504 filters of the trunk
    ("basenji", basenji.PRESETS, 4, 104_940 - 504),
    ("basenji2", basenji2.PRESETS, 4, 277_716),
    ("expresnet", expresnet.PRESETS, 1, 177_953),
    ("legnet", legnet.PRESETS, 1, 52_329),
])
def test_parameters__of_the_cpu_presets(name, preset, n_targets, n):
    assert n_parameters(name, n_targets=n_targets, **preset["cpu"]) == n


@pytest.mark.parametrize(("name", "length", "shape"), [
    ("beluga", 2_000, (2, 2_002)), ("expecto", 40_000, (2, 1)), ("basenji", 131_072, (2, 4_229, 960)),
    ("basenji2", 131_072, (2, 5_313, 896)), ("expresnet", 95_000, (2, 1)), ("legnet", 230, (2, 1)),
])
def test_output__published_shape(name, length, shape):
    assert CARDS[name].input_length == length
    with torch.device("meta"), torch.no_grad():
        assert CLASSES[name]().eval()(torch.zeros(2, 4, length)).shape == shape


@pytest.mark.parametrize(("name", "preset", "length", "shape"), [
    ("beluga", expecto.PRESETS_BELUGA, 2_000, (2, 3)), ("expecto", expecto.PRESETS, 8_000, (2, 3)),
    ("basenji", basenji.PRESETS, 16_384, (2, 3, 128)), ("basenji2", basenji2.PRESETS, 16_384, (2, 3, 96)),
    ("expresnet", expresnet.PRESETS, 9_500, (2, 3)), ("legnet", legnet.PRESETS, 150, (2, 3)),
])
def test_output__shape_of_the_cpu_presets(name, preset, length, shape):
    with torch.device("meta"), torch.no_grad():
        model = CLASSES[name](n_targets=3, **preset["cpu"]).eval()
        assert model(torch.zeros(2, 4, length)).shape == shape


# ---- attribution


@pytest.mark.parametrize("key", [k for k in CASES if "deeplift" in CARDS[k.split()[0]].attribution])
def test_case__calls_each_module_once(key):
    """What DeepLIFT hooks need, for the models whose card promises it."""
    case = CASES[key]
    model = CLASSES[key.split()[0]](**case.arguments).eval()
    calls = []
    for name, module in model.named_modules(remove_duplicate=False):
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    model(dna(3, case.length))
    leaves = [n for n, m in model.named_modules(remove_duplicate=False) if not list(m.children())]
    assert sorted(calls) == sorted(leaves)


# ---- fields of view


def smooth(module):
    """The same geometry without choices: averages for maxima, softplus for activations; gradients reach everything."""
    for name, child in module.named_children():
        if isinstance(child, MaxPool1d):
            setattr(module, name, AvgPool1d(child.kernel_size))
        elif isinstance(child, nn.ReLU | GELUSigmoid):
            setattr(module, name, nn.Softplus())
        else:
            smooth(child)
    return module


def field_of_view(model, length):
    """First and last base with a gradient from the middle position of the output."""
    X = torch.rand(1, 4, length, dtype=torch.float64, requires_grad=True)
    out = model(X)
    gradient, = torch.autograd.grad(out[0, :, out.shape[-1] // 2].sum(), X)
    seen = (gradient[0] != 0).any(dim=0).nonzero().flatten()
    return int(seen[0]), int(seen[-1])


@pytest.mark.parametrize(("model", "width"), [
    (Basenji(1, channels=(2,) * 6, dilated_channels=1, head_channels=2), 32_871),
    (Basenji2(1, stem_channels=2, channels=(2,) * 6, residual_channels=2, head_channels=2), 54_918),
], ids=["basenji", "basenji2"])
def test_field_of_view__as_published(model, width):
    first, last = field_of_view(smooth(randomized(model)), 131_072)
    assert last - first + 1 == width
    assert 0 < first < 65_536 < last < 131_071


def test_field_of_view__expresnet():
    model = smooth(randomized(ExpResNet(channels=(2, 2, 2, 2))))
    first, last = field_of_view(model.units, 4_003)
    assert last - first + 1 == 1_022


def test_dilations__rounded_at_every_step():
    assert basenji2.dilations(11) == [1, 2, 3, 4, 6, 9, 14, 21, 32, 48, 72]
    with torch.device("meta"):
        built = [m.dilation[0] for m in Basenji2().modules() if isinstance(m, nn.Conv1d) and m.kernel_size == (3,)]
        older = [m.dilation[0] for m in Basenji().modules() if isinstance(m, nn.Conv1d) and m.dilation[0] > 1]
    assert built == basenji2.dilations(11)
    assert older == [2, 4, 8, 16, 32, 64]


# ---- what the reference does, and is easily lost


def test_basenji2__residual_blocks_start_as_identities():
    model = Basenji2(3, stem_channels=2, channels=(2,) * 6, n_residual=2, residual_channels=5, head_channels=7, crop=0)
    blocks = [m for m in model.trunk if hasattr(m, "layers")]
    x = torch.randn(3, 2, 11)
    assert len(blocks) == 2
    assert all(torch.equal(block.eval()(x), x) for block in blocks)


def test_basenji2__activates_the_one_hot():
    model = Basenji2(3, stem_channels=2, channels=(2,) * 6, n_residual=1, residual_channels=5, head_channels=7, crop=0)
    reads = []
    model.trunk[1].register_forward_hook(lambda _, inputs, __: reads.append(inputs[0]))
    model.eval()(dna(2, 256))
    assert reads[0].unique().tolist() == pytest.approx([0, 0.84579577])


@pytest.mark.parametrize("model", [Basenji(1), Basenji2(1, stem_channels=3)], ids=["basenji", "basenji2"])
def test_batch_norm__has_the_epsilon_of_keras(model):
    assert {m.eps for m in model.modules() if isinstance(m, BatchNorm1d)} == {1e-3}


def test_basenji__link():
    x = torch.tensor([-200.0, -1.0, 0.0, 2.0, 200.0], requires_grad=True)
    y = Basenji(1, channels=(2,) * 6, head_channels=2).link(x)
    assert y.tolist() == pytest.approx([0, 0.36787944, 1, 3, 201])
    gradient, = torch.autograd.grad(y.sum(), x)
    assert gradient.tolist() == pytest.approx([0, 0.36787944, 1, 1, 1])


def test_basenji__crop_takes_bins_off_both_sides():
    torch.manual_seed(0)
    arguments = {"channels": (2,) * 6, "dilated_channels": 3, "head_channels": 5}
    whole, cropped = Basenji(7, crop=0, **arguments).eval(), Basenji(7, crop=256, **arguments).eval()
    cropped.load_state_dict(whole.state_dict())
    X = dna(2, 7 * 128)
    torch.testing.assert_close(cropped(X), whole(X)[:, :, 2:5])


# ---- ExPecto


def test_spatial_features__match_the_slow_twin():
    chromatin = torch.rand(3, 5, 7, dtype=torch.float64)
    distance = [-601.0, -200.0, -199.0, 0.0, 3.0, 450.0, 1000.0]
    got = spatial_features(chromatin, torch.tensor(distance))
    assert got.shape == (3, 50)
    torch.testing.assert_close(got, naive_spatial(chromatin, distance), atol=1e-12, rtol=1e-12)


def test_spatial_features__of_one_bin_by_hand():
    up = spatial_features(torch.tensor([[[2.0], [3.0]]]), torch.tensor([-1000.0]))
    expected = [v * 2.718281828 ** (-5 * a) for a in (0.01, 0.02, 0.05, 0.1, 0.2) for v in (2, 3)] + [0] * 10
    assert up[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("flank", [0, 311], ids=["N beyond the edge", "flanks given"])
def test_expecto__features_match_the_slow_twin(flank):
    model = randomized(Expecto(**EXPECTO))
    X = dna(2, 5 * 53 + flank).double()
    # bin 0 is centred n_bins // 2 steps after the first one, on the start of the gene
    tss = 2 * 53 + flank // 2
    with torch.no_grad():
        slow = naive_features(model.beluga, X, tss, 5, 53, 311)
        torch.testing.assert_close(model.features(X), slow, atol=1e-12, rtol=1e-12)


def test_expecto__start_of_the_gene_is_in_the_middle():
    model = Expecto(n_bins=40, n_features=3, channels=(3, 5, 7), hidden=11)
    assert model.distance.tolist() == [200.0 * i for i in range(-20, 20)]


def test_expecto__chunks_change_nothing_nor_does_the_gradient():
    whole, parts = (randomized(Expecto(**EXPECTO, chunk_size=n)) for n in (64, 2))
    results = []
    for model in (whole, parts):
        X = dna(2, 5 * 53).double().requires_grad_()
        y = model(X)
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), [X, *model.beluga.parameters()])))
    with torch.no_grad():
        torch.testing.assert_close(parts(dna(2, 5 * 53).double()), results[0][0])
    for a, b in zip(*results, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b)


def test_expecto__averages_the_strands():
    model = randomized(Expecto(**EXPECTO))
    contexts = dna(3, 311).double()
    with torch.no_grad():
        torch.testing.assert_close(model._both_strands(contexts), model._both_strands(reverse_complement(contexts)))
        assert not torch.allclose(model.beluga(contexts), model.beluga(reverse_complement(contexts)))


@pytest.mark.parametrize(("n", "p"), [(41, 7), (11, 37)], ids=["tall", "wide"])
def test_ridge_head__is_at_the_minimum(n, p):
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(n, p, generator=generator) + 3
    y = torch.randn(n, 5, generator=generator)
    y[3, 1] = y[5, 2] = y[3, 2] = torch.nan
    weight, bias = (v.requires_grad_() for v in ridge_head(phi, y, 2.5))
    error = (phi.double() @ weight.T + bias - y.double())
    slopes = torch.autograd.grad(error[~y.isnan()].square().sum() + 2.5 * weight.square().sum(), [weight, bias])
    assert weight.shape == (5, p)
    assert weight.abs().max() > 0.01
    assert all(slope.abs().max() < 1e-9 for slope in slopes)


def test_fit_head__recovers_a_linear_law():
    model = Expecto(2, n_bins=5, step=53, context=311, n_features=3, **BELUGA)
    phi = torch.randn(101, 30)
    law = torch.randn(2, 30)
    model.fit_head(phi, phi @ law.T + 7, ridge=1e-6)
    torch.testing.assert_close(model.head.weight.data, law, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.head.bias.data, torch.full((2,), 7.0), atol=1e-4, rtol=1e-4)


def test_fit_head__refuses_what_does_not_fit():
    model = Expecto(2, n_bins=5, step=53, context=311, n_features=3, **BELUGA)
    phi, y = torch.randn(11, 30), torch.randn(11, 2)
    with pytest.raises(SchemaError, match="reads 30 features for 2 targets; got 29 for 2"):
        model.fit_head(phi[:, 1:], y)
    with pytest.raises((SchemaError, jaxtyping.TypeCheckError)):
        model.fit_head(phi, y[1:])
    with pytest.raises(SchemaError, match="1 of 2 targets were measured in no gene; first: column 1"):
        model.fit_head(phi, y * torch.tensor([1, torch.nan]))
    phi[[3, 7], 2] = torch.inf
    with pytest.raises(SchemaError, match="2 of 11 rows are not; first: row 3"):
        model.fit_head(phi, y)
    with pytest.raises(ValueError, match="above 0"):
        model.fit_head(phi, y, ridge=0)


# ---- LegNet


def test_legnet__bins_read_as_their_mean():
    model = LegNet(version="optimised", **YEAST)
    y = Oracle(model, ExpectedBin(), device="cpu").predict(dna(3, 31))
    assert y.shape == (3, 1)
    assert ((y > 0) & (y < 12)).all()


def test_legnet__reads_n_as_a_quarter():
    model = randomized(LegNet(**HUMAN))
    X = dna(3, 61).double()
    quarter = X + 0.25 * (X.sum(1, keepdim=True) == 0)
    assert (quarter != X).any()
    torch.testing.assert_close(model(X), model(quarter))


def test_legnet__flags_are_zero_when_left_out():
    model = randomized(LegNet(version="optimised", **YEAST))
    X = dna(3, 31).double()
    torch.testing.assert_close(model(X), model(X, covariates=torch.zeros(3, 2)))
    torch.testing.assert_close(model(X), model(X, covariates=torch.zeros(3, 0)))
    for flags in ([1.0, 0.0], [0.0, 1.0]):
        assert not torch.allclose(model(X), model(X, covariates=torch.tensor([flags] * 3)))
    with pytest.raises(SchemaError, match=r"reads 2 covariates \(is reverse, is singleton\); got 3"):
        model(X, covariates=torch.zeros(3, 3))
    with pytest.raises(SchemaError, match="reads 0 covariates; got 2"):
        LegNet(**HUMAN)(dna(3, 61), covariates=torch.zeros(3, 2))


@pytest.mark.parametrize("length", [16, 17, 101])
def test_legnet__reads_any_length_from_16(length):
    model = LegNet(stem_channels=5, channels=(3, 5, 7, 11)).eval()
    assert model(dna(2, length)).shape == (2, 1)


# ---- lengths and arguments that cannot be


@pytest.mark.parametrize(("model", "length", "message"), [
    (Beluga(3, length=331, **BELUGA), 330, "Beluga reads sequences of 331 bp; got 330 bp"),
    (Expecto(**EXPECTO), 266, r"reads 265 bp around the gene's start, or 576 bp with .* got 266 bp"),
    (Basenji(3, channels=(2,) * 6, head_channels=2, crop=256), 513, "multiples of 128 bp longer than 512 bp.* got 513"),
    (Basenji(3, channels=(2,) * 6, head_channels=2, crop=256), 512, "multiples of 128 bp longer than 512 bp.* got 512"),
    (Basenji2(3, stem_channels=2, channels=(2,) * 6, crop=128), 300, "multiples of 128 bp longer than 256 .* got 300"),
    (ExpResNet(channels=(2, 2, 2, 2)), 427, "sequences of 428 bp and more; got 427 bp"),
    (ExpResNet(channels=(2, 2, 2, 2), pool="flatten", length=1201), 1202, "of 1,201 bp; got 1,202 bp"),
    (LegNet(), 15, "sequences of 16 bp and more; got 15 bp"),
], ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else None)
def test_wrong_length__names_what_is_read(model, length, message):
    with pytest.raises(SchemaError, match=message):
        model.eval()(dna(2, length))


def test_shortest_lengths__are_read():
    assert ExpResNet(channels=(2, 2, 2, 2)).eval()(dna(2, 428)).shape == (2, 1)
    assert Beluga(3, length=310, **BELUGA)(dna(2, 310)).shape == (2, 3)


@pytest.mark.parametrize(("cls", "arguments", "message"), [
    (Beluga, {"length": 309}, "at least 310 bp; got 309"), (Beluga, {"channels": (3, 5)}, "3 pairs"),
    (Basenji, {"crop": 100}, "multiple of 128 bp; got 100"), (Basenji, {"channels": (3,)}, "6 layers"),
    (Basenji2, {"crop": -128}, "multiple of 128 bp"), (Basenji2, {"channels": (3,)}, "6 layers"),
    (ExpResNet, {"channels": (3,)}, "4 units"), (ExpResNet, {"pool": "flatten", "length": 427}, "at least 428 bp"),
])
def test_wrong_arguments__say_what_is_possible(cls, arguments, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        cls(**arguments)
