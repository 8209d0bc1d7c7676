"""Every registered model keeps the model contract, and survives being saved."""

import inspect
import json

import pytest
import torch
from zoo_cases import CASES, B, L, T, case

from ciscribe.errors import CheckpointError, ConfigError, DataMissingError, SchemaError, UnknownNameError
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.sequence import one_hot_tensor, reverse_complement
from ciscribe.testing import check_model
from ciscribe.train.fit import new_head

FIRST = {key.split()[0]: key for key in reversed(CASES)}  # one case a model
LANGUAGE = {name for name in registry.names() if registry.card(name).task == "language model"}


def tensors(output):
    return output.values() if isinstance(output, dict) else [output]


def n_parameters(name, **arguments):
    """Parameters of a model that takes no memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in registry.create(name, **arguments).parameters())


def test_cases__cover_the_registry():
    assert set(FIRST) == set(registry.names())


@pytest.mark.parametrize("key", CASES)
def test_model__keeps_the_contract(key):
    model, _, X, extras = case(key)
    check_model(model, X, **extras, n_targets=CASES[key].n_targets, readout=CASES[key].readout)


@pytest.mark.parametrize("key", CASES)
def test_model__trains_every_parameter(key):
    model, _, X, extras = case(key)
    sum(v.square().sum() for v in tensors(model.train()(X, **extras))).backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    idle = [n for n, gradient in trained.items() if gradient is None or not torch.isfinite(gradient).all()]
    allowed = ("bottleneck.generator", "bottleneck.empty") if "no mask" in key else ()
    assert [n for n in idle if not n.startswith(allowed)] == [] if allowed else idle == []
    assert len(idle) < len(trained)


@pytest.mark.parametrize("name", FIRST)
def test_save_load__same_predictions_without_code(name, tmp_path):
    model, arguments, X, extras = case(FIRST[name])
    registry.save(tmp_path / "model", name, model, arguments, tracks=["a", "b"])
    loaded, facts = registry.load(tmp_path / "model", expect=name)
    assert facts == {"tracks": ["a", "b"]}
    readout = CASES[FIRST[name]].readout
    torch.testing.assert_close(Oracle(loaded, readout, device="cpu").predict(X, **extras),
                               Oracle(model, readout, device="cpu").predict(X, **extras), rtol=0, atol=0)
    assert (tmp_path / "model" / "card.md").read_text().startswith(f"# {name}")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["card.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("name", sorted(set(FIRST) - LANGUAGE))
def test_both_strands__cannot_tell_a_sequence_from_its_complement(name, tmp_path):
    model, arguments, X, extras = case(FIRST[name], both_strands="mean")
    registry.save(tmp_path / "model", name, model, arguments)
    oracle = Oracle(registry.load(tmp_path / "model")[0], CASES[FIRST[name]].readout, device="cpu")
    turned = {k: v.flip(-1) if k == "S" else v for k, v in extras.items()}
    there = oracle.predict(X, **extras)
    torch.testing.assert_close(there, oracle.predict(reverse_complement(X), **turned), atol=1e-5, rtol=1e-4)
    alone = Oracle(case(FIRST[name])[0], CASES[FIRST[name]].readout, device="cpu")
    torch.testing.assert_close(there, (alone.predict(X, **extras) + alone.predict(reverse_complement(X), **turned)) / 2,
                               atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(LANGUAGE))
def test_both_strands__is_refused_by_language_models(name):
    model, _, X, extras = case(FIRST[name], both_strands="mean")
    with pytest.raises(SchemaError, match="tokens of a language model have complements of their own"):
        model(X, **extras)


@pytest.mark.parametrize("name", sorted(n for n in FIRST if registry.card(n).task in ("regression", "classification")))
def test_new_head__is_that_of_a_model_with_so_many_targets(name):
    model, arguments, X, extras = case(FIRST[name])
    if name == "malinois":  # its head is a layer for each target
        with pytest.raises(SchemaError, match=r"Malinois has no linear layer .* create it with n_targets=3"):
            new_head(model, 3)
        return
    new_head(model, 3)
    wanted = registry.create(name, **arguments | {"n_targets": 3}).state_dict()
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in wanted.items()}
    output = model.eval()(X, **extras)
    assert (output["expression"] if isinstance(output, dict) else output).shape == (B, 3)


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
def test_card__states_the_published_size_task_and_attribution(name):
    card = registry.card(name)
    assert card.name == name
    assert n_parameters(name) == card.parameters
    assert card.task is not None
    assert {"gradient", "ism"} <= set(card.attribution)


@pytest.mark.parametrize("name", [n for n in registry.names() if registry.presets(n)])
def test_presets__build_and_are_no_larger(name):
    most = 2_129 if name == "deepbind" else registry.card(name).parameters  # whose preset has the paper's wider kernel
    for which in registry.presets(name):
        assert n_parameters(name, preset=which) <= most
    with pytest.raises(ConfigError, match=rf"model '{name}' has no preset 'gpu'; it has: cpu"):
        registry.create(name, preset="gpu")


@pytest.mark.parametrize("name", registry.names())
def test_model__hyperparameters_have_defaults_and_are_public(name):
    given = inspect.signature(type(case(FIRST[name])[0])).parameters
    assert all(p.default is not p.empty for p in given.values())
    assert list(registry.arguments(name)) == list(given)


def test_seq2exp__published_mask():
    model = registry.create("seq2exp")
    assert model.bottleneck.mask.prior == (10.0, pytest.approx(90.0))
    hard = registry.create("seq2exp", kind="hard").bottleneck.mask
    assert (hard.sparsity, hard.concentration, hard.prior_scale, hard.beta_min) == (0.45, 0.1, 1.0, 0.0)


def test_seq2exp__erased_element_is_not_seen():
    model, _, X, extras = case("seq2exp")
    signals, covariates = extras["S"], extras["covariates"]
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
    model, _, X, extras = case("caduceus base rc")
    signals, covariates = extras["S"], extras["covariates"]
    model.eval()
    a = model(X, signals, covariates)["expression"]
    b = model(reverse_complement(X), signals.flip(-1), covariates)["expression"]
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_prism__training_output_and_adjustment():
    model, _, X, extras = case("prism")
    signals, covariates = extras["S"], extras["covariates"]
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
