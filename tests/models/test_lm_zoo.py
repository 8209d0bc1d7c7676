"""Caduceus and HyenaDNA as language models: published sizes, strands, causality, masks."""

import cases_lm
import pytest
import torch
from published_lm import caduceus_config, caduceus_logits, caduceus_state

from ciscribe.errors import CheckpointError, SchemaError
from ciscribe.models import caduceus_lm, hyenadna, nucleotide_transformer
from ciscribe.models.caduceus_lm import CaduceusLM
from ciscribe.models.hyenadna import HyenaDNA, HyenaOperator
from ciscribe.sequence import encode, one_hot_tensor, reverse_complement
from ciscribe.testing import check_model

B, L = 3, 37
MODELS = {"caduceus_lm": (CaduceusLM, caduceus_lm), "hyenadna": (HyenaDNA, hyenadna)}


def size(model):
    return sum(p.numel() for p in model.parameters())


def sequences(length=L, seed=0):
    return one_hot_tensor(torch.randint(0, 5, (B, length), generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("key", cases_lm.CASES)
def test_case__keeps_the_contract_and_trains(key):
    case = cases_lm.CASES[key]
    torch.manual_seed(0)
    model = MODELS[key.split()[0]][0](**case.arguments)
    X = sequences(case.length)
    check_model(model, X, n_targets=case.n_targets, readout=case.readout)
    case.readout(model.train()(X)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize(("build", "n"), [
    (lambda: CaduceusLM(118, 4), 470_702), (lambda: HyenaDNA(128, 2, l_max=1026), 436_096),
    (lambda: HyenaOperator(128, 1026), 84_672), (lambda: HyenaOperator(256, 1026), 291_648)])
def test_size__is_the_published(build, n):
    with torch.device("meta"):
        assert size(build()) == n


@pytest.mark.parametrize(("name", "n"), [("caduceus_lm", 7_725_312), ("hyenadna", 6_550_528)])
def test_card_and_preset(name, n):
    cls, module = MODELS[name]
    with torch.device("meta"):
        assert size(cls()) == module.CARD.parameters == n
    out = cls(**module.PRESETS["cpu"]).eval()(sequences(131))
    assert {k: tuple(v.shape) for k, v in out.items()} == {"logits": (B, 16, 131), "embedding": (B, 32, 131)}


@pytest.mark.parametrize("fused", [False, True])
def test_caduceus_ps__equal_on_both_strands(fused):
    torch.manual_seed(1)
    model = CaduceusLM(7, 3, d_state=3, fused_order=fused).double().eval()
    X = sequences().double()
    mask = torch.rand(B, L) < 0.2
    out, back = model(X, mask=mask), model(reverse_complement(X), mask=mask.flip(1))
    complement = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15]
    torch.testing.assert_close(back["logits"].flip(2)[:, complement], out["logits"], atol=1e-6, rtol=0)
    torch.testing.assert_close(back["embedding"].flip(2), out["embedding"], atol=1e-6, rtol=0)
    single = CaduceusLM(7, 3, d_state=3, rcps=False).double().eval()
    single.load_state_dict(model.state_dict())
    assert not torch.allclose(single(reverse_complement(X))["embedding"].flip(2), single(X)["embedding"], atol=1e-3)


def test_caduceus__the_fused_order_is_another_function_of_the_same_weights():
    torch.manual_seed(1)
    X = sequences()
    fused, ours = (CaduceusLM(7, 3, d_state=3, fused_order=f).eval() for f in (True, False))
    fused.load_state_dict(ours.state_dict())
    assert not torch.allclose(fused(X)["logits"], ours(X)["logits"], atol=1e-3)


@pytest.mark.parametrize(("rcps", "fused"), [(True, True), (True, False), (False, True)])
def test_caduceus__published_checkpoint_gives_the_published_logits(rcps, fused):
    config = caduceus_config(rcps=rcps, fused=fused)
    state = caduceus_state(config, torch.float64)
    model = CaduceusLM(**caduceus_lm.arguments_of(config)).double().eval()
    model.load_state_dict(caduceus_lm.convert_state(state))
    X = sequences().double()
    expected = caduceus_logits(model.tokens(X), state, config)
    torch.testing.assert_close(model(X)["logits"].transpose(1, 2), expected, atol=1e-9, rtol=1e-9)


def test_caduceus__other_options_are_refused():
    with pytest.raises(CheckpointError, match=r"bidirectional_strategy = 'ew_multiply'.*'add' only"):
        caduceus_lm.arguments_of(caduceus_config() | {"bidirectional_strategy": "ew_multiply"})
    with pytest.raises(CheckpointError, match="n_layer is missing"):
        caduceus_lm.arguments_of({"d_model": 5})


def test_caduceus__a_masked_base_is_not_seen():
    torch.manual_seed(1)
    model = CaduceusLM(7, 2, d_state=3).eval()
    X, other = sequences(), sequences()
    other[:, :, 11] = other[:, [3, 2, 1, 0], 11] + torch.eye(4)[0] * (other[:, :, 11].sum(1, keepdim=True) == 0)
    mask = torch.zeros(B, L, dtype=torch.bool)
    mask[:, 11] = True
    torch.testing.assert_close(model(X, mask=mask)["logits"], model(other, mask=mask)["logits"])
    assert not torch.allclose(model(X)["logits"], model(other)["logits"])
    assert not torch.allclose(model(X)["logits"], model(X, mask=mask)["logits"])


@pytest.mark.parametrize("model", [CaduceusLM(7, 1, d_state=3), HyenaDNA(7, 1, l_max=L)])
def test_tokens__are_those_of_the_published_vocabulary(model):
    X = one_hot_tensor(torch.from_numpy(encode("ACGTN"))[None])
    assert model.tokens(X).tolist() == [[7, 8, 9, 10, 11]]


def test_hyena__fft_equals_the_sum():
    torch.manual_seed(1)
    length, d = 23, 5
    operator = HyenaOperator(d, 29, filter_order=7).double()
    x = torch.randn(B, length, d, dtype=torch.float64)
    streams = operator.in_proj(x)
    padded = torch.cat([torch.zeros(B, 2, 3 * d, dtype=x.dtype), streams], dim=1)
    weight = operator.short_filter.weight[:, 0]
    streams = sum(padded[:, i:i + length] * weight[:, i] for i in range(3)) + operator.short_filter.bias
    gate, inner, v = streams.chunk(3, dim=-1)
    v, h = v * inner, operator.filter(length)
    long = torch.stack([sum(h[:, t - s] * v[:, s] for s in range(t + 1)) for t in range(length)], dim=1)
    expected = operator.out_proj(gate * (long + operator.bias * v))
    torch.testing.assert_close(operator(x), expected, atol=1e-10, rtol=1e-10)


def test_hyena__filter_is_the_published_formula_at_one_position():
    torch.manual_seed(1)
    f = HyenaOperator(5, 29, filter_order=7).double().filter
    k, angle = 13, 2 * torch.pi * 13 / 29
    z = torch.tensor([k / 28, *(torch.tensor([1e-4, 1.0]).double() * angle).cos(),
                      *(-(torch.tensor([1e-4, 1.0]).double() * angle).sin())], dtype=torch.float64)
    h = torch.sin(f.sine.frequency * f.dense_in(z))
    for dense in f.hidden:
        h = torch.sin(f.sine.frequency * dense(h))
    log = torch.tensor(0.01).double().log()
    decay = torch.linspace(float(log / 1.5), float(log / 0.3), 5, dtype=torch.float64).abs()
    torch.testing.assert_close(f(29)[:, k], f.dense_out(h) * (torch.exp(-k / 28 * decay) + 0.05), atol=1e-7, rtol=1e-6)


def test_hyenadna__sees_all_before_and_nothing_after():
    torch.manual_seed(1)
    model = HyenaDNA(7, 2, l_max=41).double().eval()
    X = sequences().double().requires_grad_()
    model(X)["logits"][:, :, 19].sum().backward()
    reach = X.grad.abs().sum((0, 1))
    assert (reach[:20] > 0).all()
    assert reach[20:].max() < 1e-12  # the rounding of the Fourier transform


def test_hyenadna__filters_depend_on_l_max_and_not_on_the_length():
    torch.manual_seed(1)
    model, other = HyenaDNA(7, 2, l_max=41).eval(), HyenaDNA(7, 2, l_max=83).eval()
    other.load_state_dict(model.state_dict())
    X = sequences()
    torch.testing.assert_close(model(X[:, :, :23])["embedding"], model(X)["embedding"][:, :, :23], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model(X)["embedding"], other(X)["embedding"], atol=1e-4)
    with pytest.raises(SchemaError, match=r"up to l_max = 41 bp; got 43 bp.*l_max=43"):
        model(sequences(43))


def test_hyenadna__both_strands_in_the_embedding_alone():
    torch.manual_seed(1)
    one, both = HyenaDNA(7, 2, l_max=41).eval(), HyenaDNA(7, 2, l_max=41, bidirectional=True).eval()
    both.load_state_dict(one.state_dict())
    X = sequences()
    torch.testing.assert_close(both(X)["logits"], one(X)["logits"])
    torch.testing.assert_close(both(reverse_complement(X))["embedding"].flip(2), both(X)["embedding"])
    assert not torch.allclose(both(X)["embedding"], one(X)["embedding"], atol=1e-3)


def test_nucleotide_transformer__vocabulary_in_the_published_order():
    words = nucleotide_transformer.standard_vocabulary()
    assert len(words) == len(set(words)) == 4105
    assert words[:7] == ["<unk>", "<pad>", "<mask>", "<cls>", "AAAAAA", "AAAAAT", "AAAAAC"]
    assert words[-6:] == ["GGGGGG", "A", "T", "C", "G", "N"]
