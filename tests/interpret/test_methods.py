"""Every attribution method by its name, on one small case of every model; and what ``auto`` takes."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn
from zoo_cases import CASES, case

from ciscribe.errors import ConfigError, SchemaError, UnknownNameError, UnsupportedError
from ciscribe.interpret.cards import CARDS
from ciscribe.interpret.methods import ALIASES, AUTO, METHODS, attribute, method_name
from ciscribe.interpret.references import references
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.results import check_attribution_array, contributions
from ciscribe.sequence import codes_of, one_hot_tensor

FIRST = {key.split()[0]: key for key in reversed(CASES)}  # the plainest case of each model
WITHOUT_RULES = {"danq", "seq2exp", "caduceus", "prism", "caduceus_lm", "beacon"}  # recurrences, scans, Beta masks
FEW = {"deeplift": {"n_references": 1}, "expected_gradients": {"n_references": 2}, "smooth_grad": {"n_samples": 2},
       "integrated_gradients": {"n_references": 1, "n_steps": 5, "tolerance": 0.02}}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny networks: threads would wait for each other
    yield
    torch.set_num_threads(before)


def one_sequence(name):
    """An oracle of two targets, and its inputs."""
    model, _, X, extras = case(FIRST[name])
    readout = CASES[FIRST[name]].readout
    return Oracle(model, lambda output: readout(output)[:, :2], device="cpu"), X[:1], {
        key: value[:1] for key, value in extras.items()}


def test_methods__are_called_alike_and_have_cards():
    for name, function in METHODS.items():
        first = list(inspect.signature(function).parameters)[:4]
        assert first == ["oracle", "X", "S", "covariates"], name
        assert {"batch_size", "seed", "progress", "regions"} <= set(inspect.signature(function).parameters), name
    assert set(METHODS) <= {card.name for card in CARDS}
    assert set(ALIASES.values()) | set(AUTO) <= set(METHODS)
    assert len({card.name for card in CARDS}) == len(CARDS)


def test_cases__are_of_every_model():
    assert set(FIRST) == set(registry.names())


@pytest.mark.parametrize("name", sorted(FIRST))
def test_method__explains_every_model_or_names_what_it_cannot(name):
    oracle, X, extras = one_sequence(name)
    state = {key: value.clone() for key, value in oracle.model.state_dict().items()}
    start = references(codes_of(X), "shuffle", 1)
    f = [oracle.predict(x, **extras).numpy()[0] for x in (X, start[:, 0])]
    for method in METHODS:
        if method == "deeplift" and name in WITHOUT_RULES:
            with pytest.raises(UnsupportedError, match=r"in layer '.*integrated gradients or in-silico mutagenesis"):
                attribute(oracle, X, method=method, **extras)
            continue
        found = attribute(oracle, X, method=method, regions=["it"], **extras, **FEW.get(method, {}))
        assert found.attrs["method"] == method
        assert found.shape == (1, 4, X.shape[2], 2)
        assert found["region"].values.tolist() == ["it"]
        check_attribution_array(found)
        assert (abs(found).max(("base", "position")) > 0).all()
        own = contributions(found, X).values[0]
        assert not own[~X.numpy()[0].astype(bool).any(axis=0)].any()  # an N contributes nothing
        if method in ("deeplift", "integrated_gradients"):
            allowed = 1e-5 * np.abs(f).max() if method == "deeplift" else 0.02 * np.abs(own).sum(axis=0).max()
            np.testing.assert_allclose(own.sum(axis=0), f[0] - f[1], atol=allowed + 1e-6, rtol=0)
    assert all(torch.equal(state[key], value) for key, value in oracle.model.state_dict().items())


@pytest.mark.parametrize("name", sorted(FIRST))
def test_auto__is_deeplift_wherever_it_has_rules(name):
    oracle, X, extras = one_sequence(name)
    found = attribute(oracle, X, **extras)
    assert found.attrs["method"] == ("corrected_gradient" if name in WITHOUT_RULES else "deeplift")


class Steps(nn.Module):
    """Counts of A in the left half and of C in the right half, which no gradient reaches."""

    def forward(self, X):
        half = X.shape[2] // 2
        return torch.stack([X[:, 0, :half].sum(1), X[:, 1, half:].sum(1)], dim=1).detach().round()


def test_auto__is_mutagenesis_where_no_gradient_arrives():
    oracle = Oracle(Steps(), device="cpu")
    X = torch.tensor([[0, 1, 2, 0, 1, 4]], dtype=torch.uint8)
    for method in set(METHODS) - {"ism"}:
        with pytest.raises(UnsupportedError):
            attribute(oracle, X, method=method)
    found = attribute(oracle, X)
    assert found.attrs["method"] == "ism"
    np.testing.assert_allclose(contributions(found, one_hot_tensor(X))[0, :, 0], [0.75, -0.25, -0.25, 0, 0, 0])


def test_auto__hands_on_an_error_of_the_input():
    with pytest.raises(SchemaError, match="codes lie in"):
        attribute(Oracle(Steps(), device="cpu"), torch.full((2, 7), 9, dtype=torch.uint8))


def test_attribute__by_an_alias_and_with_options():
    oracle, X, _ = one_sequence("deepbind")
    for alias, name in ALIASES.items():
        assert method_name(alias) == name
    shuffled, zeros = (attribute(oracle, X, method="deepshap", references=kind) for kind in ("shuffle", "zeros"))
    assert (shuffled.attrs["method"], zeros.attrs["references"]) == ("deeplift", "zeros")
    assert abs(shuffled - zeros).max() > 0
    with pytest.raises(ConfigError, match="references: options belong to one method, and auto may take any"):
        attribute(oracle, X, references="zeros")
    with pytest.raises(UnknownNameError, match="no attribution method is called 'grad'; did you mean"):
        attribute(oracle, X, method="grad")
