"""The contract of attribution methods: our methods keep it, and each broken clause is noticed."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError
from ciscribe.interpret.gradient import (
    corrected_gradient,
    expected_gradients,
    gradient,
    integrated_gradients,
    smooth_grad,
)
from ciscribe.testing import check_attribution

METHODS = {"gradient": gradient, "corrected_gradient": corrected_gradient,
           "smooth_grad": partial(smooth_grad, n_samples=5),
           "expected_gradients": partial(expected_gradients, n_references=5)}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", METHODS)
def test_method__keeps_the_contract(name):
    check_attribution(METHODS[name])


@pytest.mark.parametrize("seed", [0, 1])
def test_integrated_gradients__keep_the_contract_and_are_complete(seed):
    method = partial(integrated_gradients, n_references=2, n_steps=10, tolerance=0.01)
    check_attribution(method, complete=True, atol=5e-3, seed=seed)


def shifted(oracle, X, **options):
    return gradient(oracle, X, **options).shift(position=1, fill_value=0)


def spilt(oracle, X, **options):
    array = gradient(oracle, X, **options)
    return array if isinstance(oracle.model, nn.Sequential) else array + array.mean("position")


def random_numbers(oracle, X, **options):
    array = gradient(oracle, X, **options)
    return array + 1e-6 * torch.rand(()).item()


def of_the_batch(oracle, X, **options):
    array = gradient(oracle, X, **options)
    return array * len(X) / 3


def of_the_batch_size(oracle, X, *, batch_size, **options):
    return gradient(oracle, X, **options) * (1 + (batch_size == 2))


def left_in_evaluation(oracle, X, **options):
    oracle.model.eval()
    return gradient(oracle, X, **options)


def hooked(oracle, X, **options):
    handle = oracle.model.register_forward_hook(lambda *_: None)
    array = gradient(oracle, X, **options)  # after an exception the hook stays
    handle.remove()
    return array


def thawed(oracle, X, **options):
    array = gradient(oracle, X, **options)
    for p in oracle.model.parameters():
        p.requires_grad_(True)
    return array


def swallowed(oracle, X, **options):
    try:
        return gradient(oracle, X, **options)
    except RuntimeError:
        return None


def overwritten(oracle, X, **options):
    array = gradient(oracle, X, **options)
    if isinstance(X, torch.Tensor) and X.ndim == 3 and oracle.model.training:
        X.zero_()
    return array


def blind_to_n(oracle, X, **options):
    array = gradient(oracle, X, **options)
    return array if X.ndim == 3 or not bool((X == 4).any()) else array * np.nan


@pytest.mark.parametrize(("broken", "clause"), [
    (lambda oracle, X, **options: gradient(oracle, X, **options)[..., :1], "attributions are a DataArray"),
    (lambda oracle, X, **options: gradient(oracle, X, **options).values, "attributions are a DataArray"),
    (shifted, "a linear model is explained by its weights"),
    (lambda oracle, X, **options: gradient(oracle, X, **options) * 2, "a linear model is explained by its weights"),
    (lambda oracle, X, **options: gradient(oracle, X, **options) * isinstance(oracle.model, nn.Sequential),
     "positions that the model reads are worth something"),
    (spilt, "positions that the model does not read are worth 0"),
    (random_numbers, "the same seed gives the same numbers"),
    (of_the_batch, "a batch gives what its members give one by one"),
    (of_the_batch_size, "it gives the same in batches of two"),
    (left_in_evaluation, "the model is left as it was$"),
    (hooked, "also after an exception"),
    (thawed, "the model is left as it was$"),
    (swallowed, "is not swallowed"),
    (overwritten, "sequences are not changed"),
    (blind_to_n, "are NaN or infinite"),
])
def test_check_attribution__notices(broken, clause):
    with pytest.raises(SchemaError, match=clause):
        check_attribution(broken)


def test_check_attribution__notices_what_does_not_add_up():
    def lazy(oracle, X, references=None, **options):
        return gradient(oracle, X, **options)

    check_attribution(lazy)
    with pytest.raises(SchemaError, match="contributions sum to"):
        check_attribution(lazy, complete=True)
