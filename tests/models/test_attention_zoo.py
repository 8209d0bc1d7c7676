"""Enformer and Borzoi: published sizes, the slow twin on published names, weights, crops, scales."""

import json

import cases_attention
import pandas as pd
import pytest
import torch
from torch import nn

from ciscribe.errors import CheckpointError, SchemaError
from ciscribe.models import borzoi, borzoi_weights, enformer, enformer_weights
from ciscribe.models.borzoi import Borzoi, squash, unsquash
from ciscribe.models.enformer import Enformer
from ciscribe.models.weights import fill
from reference import attention as twin

BOTH = {"enformer": {"human": 5313, "mouse": 1643}, "borzoi": {"human": 7611, "mouse": 2608}}
MODELS = {"enformer": Enformer, "borzoi": Borzoi}
LENGTHS = {"enformer": 88, "borzoi": 112}
NETWORKS = pytest.mark.parametrize("name", ["enformer", "borzoi"])


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(name, **changes):
    torch.manual_seed(0)
    return MODELS[name](**(cases_attention.CASES[name].arguments | changes)).eval()


def awake(model):
    """Let the attention, which starts as nothing, take part."""
    torch.manual_seed(1)
    for key, p in model.named_parameters():
        if "attention.output" in key:
            nn.init.normal_(p)
    return model


def sequences(length, n=2):
    codes = torch.randint(0, 4, (n, length), generator=torch.Generator().manual_seed(5))
    return nn.functional.one_hot(codes, 4).transpose(1, 2).float()


@pytest.mark.parametrize(("name", "human", "both", "trunk"), [
    ("enformer", 246_172_353, 251_221_292, 229_845_504), ("borzoi", 185_892_699, 190_902_667, None)])
def test_parameters__as_published(name, human, both, trunk):
    with torch.device("meta"):
        one, two = MODELS[name](), MODELS[name](BOTH[name])
    module = {"enformer": enformer, "borzoi": borzoi}[name]
    assert count(one) == human == module.CARD.parameters
    assert count(two) == both
    if trunk is not None:
        assert count(two) - count(two.heads) == trunk


@pytest.mark.parametrize(("name", "bins"), [("enformer", 896), ("borzoi", 6144)])
def test_shape__as_published(name, bins):
    with torch.device("meta"):
        model = MODELS[name](BOTH[name]).eval()
        X = torch.zeros(1, 4, {"enformer": 196_608, "borzoi": 524_288}[name])
    tracks = model(X)
    assert {k: tuple(v.shape) for k, v in tracks.items()} == {k: (1, n, bins) for k, n in BOTH[name].items()}


@pytest.mark.parametrize(("name", "parameters", "bins"), [("enformer", 402_132, 64), ("borzoi", 324_164, 448)])
def test_cpu_preset__size_and_shape(name, parameters, bins):
    preset = {"enformer": enformer, "borzoi": borzoi}[name].PRESETS["cpu"]
    with torch.device("meta"):
        model = MODELS[name](**preset).eval()
    assert count(model) == parameters
    assert model(torch.zeros(3, 4, 16_384, device="meta")).shape == (3, 4, bins)


def test_tower_widths__as_published():
    with torch.device("meta"):
        one, two = Enformer(), Borzoi()
    widths = [stage.point[2].out_channels for stage in one.tower]
    assert widths == [128 * round(768 * 2 ** (i / 5) / 128) for i in range(6)] == [768, 896, 1024, 1152, 1280, 1536]
    assert [stage[2].out_channels for stage in two.tower] == [608, 736, 896, 1056, 1280]
    assert {stage.first[2].kernel_size for stage in one.tower} | {stage[2].kernel_size for stage in two.tower} == {(5,)}
    assert {m.eps for m in one.modules() if isinstance(m, nn.BatchNorm1d | nn.LayerNorm)} == {1e-5}
    assert {m.eps for m in two.modules() if isinstance(m, nn.BatchNorm1d | nn.LayerNorm)} == {1e-3}


@NETWORKS
def test_output__a_tensor_for_a_number_and_a_dictionary_for_a_mapping(name):
    X = sequences(LENGTHS[name])
    one = small(name)(X)
    assert one.shape == (2, 7, {"enformer": 7, "borzoi": 24}[name])
    assert bool((one > 0).all())
    two = small(name, n_targets={"human": 7, "mouse": 5})(X)
    assert {k: v.shape[1] for k, v in two.items()} == {"human": 7, "mouse": 5}
    assert set(small(name, n_targets={"mouse": 5})(X)) == {"mouse"}
    assert small(name).embed(X).shape == (2, 19, one.shape[2])


@pytest.mark.parametrize(("name", "crop", "bins"), [("enformer", 16, 2), ("borzoi", 8, 2)])
def test_crop__takes_bins_off_both_sides(name, crop, bins):
    X = sequences(LENGTHS[name])
    whole = awake(small(name, crop=0))(X)
    torch.testing.assert_close(awake(small(name, crop=crop))(X), whole[:, :, bins:-bins])


@NETWORKS
def test_length__multiples_longer_than_the_crop(name):
    model, step, cropped = small(name), {"enformer": 8, "borzoi": 16}[name], {"enformer": 32, "borzoi": 16}[name]
    for length in (LENGTHS[name] + 1, cropped):
        with pytest.raises(SchemaError, match=rf"multiples of {step} bp longer than {cropped} bp.*got {length} bp"):
            model(sequences(length))
    assert model(sequences(cropped + step)).shape[2] == {"enformer": 1, "borzoi": 4}[name]
    with pytest.raises(ValueError, match=r"crop is a multiple of \d bp; got 6"):
        small(name, crop=6)


@NETWORKS
def test_attention__of_all_tokens(name):
    model, X = awake(small(name)), sequences(LENGTHS[name])
    n = {"enformer": 11, "borzoi": 7}[name]
    weights = model.attention(X, per_head=True)
    assert weights.shape == (2, 2, 3, n, n)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 3, n))
    torch.testing.assert_close(model.attention(X), weights.mean(dim=2))


@NETWORKS
def test_output__sees_every_token(name):
    model, X = awake(small(name)), sequences(LENGTHS[name]).requires_grad_()
    (gradient,) = torch.autograd.grad(model(X)[0, :, 3].sum(), X)
    assert bool((gradient[0].abs().sum(dim=0) > 0).all())
    assert gradient[1].abs().sum() == 0


@NETWORKS
def test_checkpointing__changes_no_number(name):
    X = sequences(LENGTHS[name])
    found = []
    for checkpointing in (False, True):
        model = awake(small(name, checkpointing=checkpointing)).train()
        torch.manual_seed(3)
        y = model(X)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters())), *model.buffers()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-5, atol=1e-6)


# ---- published weights ----------------------------------------------------------------------------------------------

def drawn(shapes):
    """A checkpoint: small random tensors, positive variances."""
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator) * 0.4
        state[name] = (value.abs() + 0.5) if name.endswith("running_var") else value
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(17)
    return state


def norm_shapes(name, c):
    return {f"{name}.{k}": (c,) for k in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()}


def layer_shapes(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def block_shapes(i, d, heads=3, key=5, value=7, positions=12):
    a, m = f"transformer.{i}.0.fn", f"transformer.{i}.1.fn"
    return {f"{a}.0.weight": (d,), f"{a}.0.bias": (d,), f"{a}.1.rel_content_bias": (1, heads, 1, key),
            f"{a}.1.rel_pos_bias": (1, heads, 1, key), f"{a}.1.to_q.weight": (heads * key, d),
            f"{a}.1.to_k.weight": (heads * key, d), f"{a}.1.to_v.weight": (heads * value, d),
            f"{a}.1.to_rel_k.weight": (heads * key, positions), f"{m}.0.weight": (d,), f"{m}.0.bias": (d,),
            } | layer_shapes(f"{a}.1.to_out", d, heads * value) | layer_shapes(f"{m}.1", 2 * d, d) | layer_shapes(
            f"{m}.4", d, 2 * d)


def published_enformer():
    """Names and shapes of the port, small; both heads."""
    shapes = layer_shapes("stem.0", 11, 4, 15) | norm_shapes("stem.1.fn.0", 11) | layer_shapes("stem.1.fn.2", 11, 11, 1)
    shapes["stem.2.to_attn_logits.weight"] = (11, 11, 1, 1)
    for i, (c_in, c) in enumerate([(11, 13), (13, 17)]):
        tower = f"conv_tower.{i}"
        shapes |= norm_shapes(f"{tower}.0.0", c_in) | layer_shapes(f"{tower}.0.2", c, c_in, 5)
        shapes |= norm_shapes(f"{tower}.1.fn.0", c) | layer_shapes(f"{tower}.1.fn.2", c, c, 1)
        shapes[f"{tower}.2.to_attn_logits.weight"] = (c, c, 1, 1)
    shapes |= block_shapes(0, 17) | block_shapes(1, 17)
    shapes |= norm_shapes("final_pointwise.1.0", 17) | layer_shapes("final_pointwise.1.2", 19, 17, 1)
    return drawn(shapes | layer_shapes("_heads.human.0", 7, 19) | layer_shapes("_heads.mouse.0", 5, 19))


def published_borzoi():
    """Names and shapes of the port, small; both heads."""
    def block(name, c_in, c, kernel):
        return norm_shapes(f"{name}.norm", c_in) | layer_shapes(f"{name}.conv_layer", c, c_in, kernel)

    shapes = layer_shapes("conv_dna.conv_layer", 11, 4, 15)
    shapes |= block("res_tower.0", 11, 13, 5) | block("res_tower.2", 13, 17, 5) | block("unet1.1", 17, 23, 5)
    shapes |= block_shapes(0, 23, positions=10) | block_shapes(1, 23, positions=10)
    shapes |= block("horizontal_conv0", 17, 23, 1) | block("horizontal_conv1", 23, 23, 1)
    for i in (0, 1):
        shapes |= block(f"upsampling_unet{i}.0", 23, 23, 1) | {f"separable{i}.conv_layer.0.weight": (23, 1, 3)}
        shapes |= layer_shapes(f"separable{i}.conv_layer.1", 23, 23, 1)
    shapes |= block("final_joined_convs.0", 23, 19, 1)
    return drawn(shapes | layer_shapes("human_head", 7, 19, 1) | layer_shapes("mouse_head", 5, 19, 1))


PUBLISHED = {"enformer": (published_enformer, enformer_weights, twin.enformer, 16, 8),
             "borzoi": (published_borzoi, borzoi_weights, twin.borzoi, 8, 4)}


@NETWORKS
def test_published_weights__fill_the_model_and_give_the_twins_numbers(name):
    make, weights, network, crop, width = PUBLISHED[name]
    state = make()
    arguments = json.loads(json.dumps(weights.arguments_of(state)))
    assert arguments["n_targets"] == {"human": 7, "mouse": 5}
    model = MODELS[name](**arguments, crop=crop)
    converted = weights.convert_state(state)
    assert len(converted) == len(state)  # nothing of theirs lost …
    fill(model, converted, "a test")  # … and nothing of ours left out
    model = model.double().eval()
    X = sequences(LENGTHS[name], n=1).double()
    state = {k: v.double() for k, v in state.items()}
    for organism, tracks in model(X).items():
        expected = network(X, state, 3, crop // width, organism)
        torch.testing.assert_close(tracks, expected, rtol=1e-8, atol=1e-10)
        assert expected.std() > 0.01


@NETWORKS
def test_published_weights__one_organism(name):
    make, weights, *_ = PUBLISHED[name]
    state, case = make(), cases_attention.CASES[name].arguments
    model = MODELS[name](**case)
    fill(model, weights.convert_state(state, ["human"]), "a test")
    kept = {k: v for k, v in state.items() if not k.startswith(("_heads.mouse", "mouse"))}
    assert len(weights.convert_state(kept)) == len(model.state_dict())
    mouse = {k: v for k, v in state.items() if not k.startswith(("_heads.human", "human"))}
    assert weights.arguments_of(mouse)["n_targets"] == {"mouse": 5}


def test_published_weights__what_is_stored_beside_them_is_left_out():
    state = published_enformer()
    expected = enformer_weights.convert_state(state)
    trunk = {"stem": 1, "conv_tower": 2, "transformer": 4, "final_pointwise": 6}
    second = {f"_trunk.{trunk[k.split('.')[0]]}.{k.split('.', 1)[1]}": v for k, v in state.items() if k[0] != "_"}
    heads = {k: v for k, v in state.items() if k[0] == "_"}
    for both in (state | second, second | heads, state | {"transformer.0.0.fn.1.tf_gammas": torch.zeros(3)}):
        found = enformer_weights.convert_state(both)
        assert set(found) == set(expected)
        assert all(torch.equal(found[k], v) for k, v in expected.items())
        assert enformer_weights.arguments_of(both) == enformer_weights.arguments_of(state)
    state = published_borzoi()
    more = {"human_head_bak.weight": torch.zeros(3), "transformer.1.0.fn.1.positions": torch.zeros(5)}
    assert set(borzoi_weights.convert_state(state | more)) == set(borzoi_weights.convert_state(state))
    uncounted = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert borzoi_weights.convert_state(uncounted)["tower.0.0.num_batches_tracked"] == 0


@NETWORKS
def test_published_weights__refused_when_they_do_not_fit(name):
    make, weights, *_ = PUBLISHED[name]
    state, case = make(), cases_attention.CASES[name].arguments
    organisms = {"n_targets": {"human": 7, "mouse": 5}}
    with pytest.raises(CheckpointError, match=r"do not fit .*attention\.content_bias: file \(1, 3, 1, 5\), model"):
        fill(MODELS[name](**case | organisms | {"key_size": 11}), weights.convert_state(state), "a test")
    with pytest.raises(CheckpointError, match=r"surprise: file \(3,\), model absent"):
        fill(MODELS[name](**case | organisms), weights.convert_state(state | {"surprise": torch.zeros(3)}), "a test")
    with pytest.raises(CheckpointError, match=r"blocks\.2\.attention\.content_bias: file absent"):
        fill(MODELS[name](**case | organisms | {"n_layers": 3}), weights.convert_state(state), "a test")
    other = {"enformer": published_borzoi, "borzoi": published_enformer}[name]()
    with pytest.raises(CheckpointError, match=rf"no {name.capitalize()} in the layout of {name}-pytorch.*missing"):
        weights.arguments_of(other)


# ---- scales of Borzoi's targets -------------------------------------------------------------------------------------

def targets(**columns):
    return pd.DataFrame({"scale": [0.5, 0.01, 2.0], "clip_soft": [3.0, 384.0, 5.0],
                         "sum_stat": ["mean", "sum_sqrt", "sum_sqrt"]} | columns)


def test_squash__values_by_hand():
    coverage = torch.tensor([[[2.0, 12.0], [16.0, 10_000.0], [0.0, 16.0]]], dtype=torch.float64)
    older = torch.tensor([[[2 * 0.5, (3 + 9**0.5) * 0.5], [8 * 0.01, (384 + 616**0.5) * 0.01],
                           [0.0, (5 + 3**0.5) * 2]]], dtype=torch.float64)
    torch.testing.assert_close(squash(coverage, targets()), older)
    newer = torch.tensor([[[1.0, 2 + 4**0.5], [1.16**0.75 - 1, 101**0.75 - 1],
                           [0.0, 4 + (33**0.75 - 5) ** 0.5]]], dtype=torch.float64)
    torch.testing.assert_close(squash(coverage, targets(), form="newer"), newer)


@pytest.mark.parametrize("form", ["older", "newer"])
def test_unsquash__undoes_squash(form):
    coverage = torch.rand(2, 3, 101, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4 * 1e5
    squashed = squash(coverage, targets(), form=form)
    assert squashed.max() < coverage.max() / 20
    torch.testing.assert_close(unsquash(squashed, targets(), form=form), coverage, rtol=1e-9, atol=1e-9)
    half = squash(coverage, targets(), form=form, power=0.5)
    torch.testing.assert_close(unsquash(half, targets(), form=form, power=0.5), coverage, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(half, squashed)


def test_unsquash__needs_the_columns_of_every_track():
    values = torch.ones(2, 3, 5)
    for function in (squash, unsquash):
        with pytest.raises(SchemaError, match=r"needs the columns scale, clip_soft and sum_stat.*; clip_soft missing"):
            function(values, targets().drop(columns="clip_soft"))
        with pytest.raises(SchemaError, match="has 2 rows, but there are 3 tracks"):
            function(values, targets().iloc[:2])
        with pytest.raises(SchemaError, match="1 tracks have others, the first in row 1"):
            function(values, targets(scale=[1.0, float("nan"), 1.0]))
        with pytest.raises(SchemaError, match=r"2 tracks have others, the first in row 0 .*'big'"):
            function(values, targets(clip_soft=["big", 3, 0]))
