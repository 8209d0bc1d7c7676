"""Every registered model keeps the model contract, and survives being saved."""

import json

import pytest
import torch

from ciscribe.errors import CheckpointError, ConfigError, DataMissingError, SchemaError, UnknownNameError
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.sequence import one_hot_tensor, reverse_complement
from ciscribe.testing import check_model

B, L, S, C, T = 3, 352, 2, 5, 7
SMALL = {"d_model": 11, "n_layers": 1, "d_state": 3, "expand": 1}
CASES = {
    "seq2exp": {}, "seq2exp hard": {"kind": "hard"}, "seq2exp base": {"resolution": 1},
    "seq2exp attention": {"pool": "attention"}, "seq2exp no generator": {"use_generator": False},
    "seq2exp no signal branch": {"use_signals": False}, "seq2exp no mask": {"use_mask": False},
    "seq2exp published token": {"empty_token": False}, "caduceus": {"n_signals": 0}, "caduceus signals": {},
    "caduceus base rc": {"resolution": 1, "rc_equivariant": True}, "prism": {}, "prism 4": {"n_confounders": 4},
}


def case(key):
    arguments = {"n_targets": T, "n_signals": S, "n_covariates": C, "resolution": 16} | SMALL | CASES[key]
    torch.manual_seed(0)
    model = registry.create(key.split()[0], **arguments)
    X = one_hot_tensor(torch.randint(0, 5, (B, L)))
    signals = torch.rand(B, S, L // arguments["resolution"]) if arguments["n_signals"] else None
    return model, arguments, X, signals, torch.randn(B, C)


def test_cases__cover_the_registry():
    assert {k.split()[0] for k in CASES} == set(registry.names())


@pytest.mark.parametrize("key", CASES)
def test_model__keeps_the_contract(key):
    model, _, X, signals, covariates = case(key)
    check_model(model, X, signals, covariates, n_targets=T)


@pytest.mark.parametrize("key", CASES)
def test_model__trains_every_parameter(key):
    model, _, X, signals, covariates = case(key)
    model.train()
    extras = {k: v for k, v in (("S", signals), ("covariates", covariates)) if v is not None}
    out = model(X, **extras)
    sum(v.sum() for v in out.values()).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    allowed = ("bottleneck.generator", "bottleneck.empty") if "no mask" in key else ()
    assert [n for n in idle if not n.startswith(allowed)] == [] if allowed else idle == []


@pytest.mark.parametrize("key", ["seq2exp", "caduceus signals", "prism"])
def test_save_load__same_predictions_without_code(key, tmp_path):
    model, arguments, X, signals, covariates = case(key)
    name = key.split()[0]
    registry.save(tmp_path / "model", name, model, arguments, tracks=["a", "b"])
    loaded, facts = registry.load(tmp_path / "model", expect=name)
    assert facts == {"tracks": ["a", "b"]}
    torch.testing.assert_close(Oracle(loaded).predict(X, signals, covariates),
                               Oracle(model).predict(X, signals, covariates))
    assert (tmp_path / "model" / "card.md").read_text().startswith(f"# {name}")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["card.md", "config.json", "model.safetensors"]


def test_load__refuses_what_does_not_fit(tmp_path):
    model, arguments, *_ = case("seq2exp")
    folder = tmp_path / "model"
    with pytest.raises(DataMissingError, match=r"config\.json is missing"):
        registry.load(folder)
    registry.save(folder, "seq2exp", model, arguments)
    with pytest.raises(CheckpointError, match="holds the model 'seq2exp', but 'prism' was expected"):
        registry.load(folder, expect="prism")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"arguments": arguments | {"d_model": 13}}))
    with pytest.raises(CheckpointError, match="do not fit the model"):
        registry.load(folder)
    (folder / "config.json").write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(CheckpointError, match="model format 99, this ciscribe reads 1"):
        registry.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        registry.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="damaged"):
        registry.load(folder)


def test_create__names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'seq2exp'"):
        registry.create("seq2expp")
    with pytest.raises(ConfigError, match="did you mean 'd_model'"):
        registry.create("seq2exp", dmodel=3)


@pytest.mark.parametrize("name", registry.names())
def test_card__states_the_published_size(name):
    """With default arguments: stacks of 4 tied bidirectional layers of width 128, as published."""
    model = registry.create(name)
    assert sum(p.numel() for p in model.parameters()) == registry.card(name).parameters


def test_seq2exp__published_mask():
    model = registry.create("seq2exp")
    assert model.bottleneck.mask.prior == (10.0, pytest.approx(90.0))
    hard = registry.create("seq2exp", kind="hard").bottleneck.mask
    assert (hard.sparsity, hard.concentration, hard.prior_scale, hard.beta_min) == (0.45, 0.1, 1.0, 0.0)


def test_seq2exp__erased_element_is_not_seen():
    model, _, X, signals, covariates = case("seq2exp")
    model.eval()
    keep = torch.ones(B, L // 16)
    keep[:, 3] = 0
    other = X.clone()
    other[:, :, 3 * 16 + 7] = 0  # inside the bin and out of reach of the stem's neighbours
    far = signals.clone()
    far[:, :, 3] += 5
    a = model(X, signals, covariates, keep=keep)["expression"]
    b = model(X, far, covariates, keep=keep)["expression"]
    torch.testing.assert_close(a, b)
    assert not torch.allclose(a, model(X, signals, covariates)["expression"])


def test_caduceus__reverse_complement_gives_the_same():
    model, _, X, signals, covariates = case("caduceus base rc")
    model.eval()
    a = model(X, signals, covariates)["expression"]
    b = model(reverse_complement(X), signals.flip(-1), covariates)["expression"]
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_prism__training_output_and_adjustment():
    model, _, X, signals, covariates = case("prism")
    model.train()
    out = model(X, signals, covariates)
    assert {k: tuple(v.shape) for k, v in out.items()} == {
        "expression": (B, T), "expression_do": (B, T), "diversity": (B, 1)}
    assert set(model.eval()(X, signals, covariates)) == {"expression"}
    torch.testing.assert_close(model(X, signals, covariates)["expression"], out["expression_do"], atol=0.2, rtol=1)


def test_check_model__notices_a_broken_model():
    class Leaky(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.randn(T))

        def forward(self, X):
            return X.mean() * self.w.expand(len(X), T) + X.sum((1, 2), keepdim=True)[:, :, 0]

    with pytest.raises(SchemaError, match="one by one"):
        check_model(Leaky(), one_hot_tensor(torch.randint(0, 4, (B, 37))) * torch.rand(B, 1, 1), n_targets=T)
    with pytest.raises(SchemaError, match=r"outputs are \(B, 5\)"):
        check_model(Leaky(), one_hot_tensor(torch.randint(0, 4, (B, 37))), n_targets=5)
