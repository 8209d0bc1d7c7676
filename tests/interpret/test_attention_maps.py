"""Attention weights and rollout, on our transformers and on matrices that can be multiplied by hand."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from ciscribe.errors import SchemaError, UnsupportedError
from ciscribe.interpret.attention import attention_rollout, attention_weights
from ciscribe.models import registry
from ciscribe.oracle import Oracle, WindowSum
from ciscribe.sequence import one_hot_tensor

B, LAYERS, HEADS = 2, 2, 3
ARGUMENTS = {
    "enformer": {"n_targets": 7, "widths": (11, 13, 17), "n_layers": LAYERS, "n_heads": HEADS, "key_size": 5,
                 "value_size": 7, "n_positions": 12, "final_width": 19, "crop": 16},
    "borzoi": {"n_targets": 7, "widths": (11, 13, 17), "d_model": 23, "n_layers": LAYERS, "n_heads": HEADS,
               "key_size": 5, "value_size": 7, "n_positions": 10, "final_width": 19, "crop": 8},
}


def codes(length):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 5, (B, length)).astype(np.uint8))


def weights(matrices, layer=None):
    """Array of `attention_weights` made by hand."""
    values = np.asarray(matrices, dtype=np.float32)
    place = np.arange(values.shape[2])
    of = range(values.shape[1]) if layer is None else layer
    return xr.DataArray(values, dims=("region", "head", "bin", "bin_"),
                        coords={"region": ["r"], "layer": ("head", list(of)), "bin": place, "bin_": place})


@pytest.mark.parametrize("name", ARGUMENTS)
def test_attention_weights__of_our_transformers(name):
    torch.manual_seed(0)
    length = 88 if name == "enformer" else 112
    model, X = registry.create(name, **ARGUMENTS[name]).train(), codes(length)
    oracle = Oracle(model, WindowSum(), device="cpu")
    array = attention_weights(oracle, X, regions=["a", "b"])
    n = array.sizes["bin"]
    assert array.dims == ("region", "head", "bin", "bin_")
    assert array.shape == (B, LAYERS, n, n)
    assert model.training
    np.testing.assert_allclose(array.sum("bin_"), 1, atol=1e-5)
    assert list(array["bin"].values) == [i * (length // n) for i in range(n)]
    model.eval()
    with torch.no_grad():
        np.testing.assert_allclose(array, model.attention(one_hot_tensor(X)), atol=1e-6)
    heads = attention_weights(oracle, X, per_head=True, batch_size=2)
    assert list(heads["layer"].values) == [0] * HEADS + [1] * HEADS
    np.testing.assert_allclose(heads.values.reshape(B, LAYERS, HEADS, n, n).mean(axis=2), array, atol=1e-6)
    np.testing.assert_allclose(attention_rollout(heads), attention_rollout(array), atol=1e-6)
    np.testing.assert_allclose(attention_rollout(array).sum("bin_"), 1, atol=1e-5)


def test_attention_weights__reads_any_model_with_the_method():
    class Outside(nn.Module):
        def attention(self, X):
            return torch.softmax(X @ X.transpose(1, 2), dim=2)[:, None]

    X = codes(7)
    array = attention_weights(Oracle(Outside(), layout="B L 4", device="cpu"), X)
    assert array.shape == (B, 1, 7, 7)
    np.testing.assert_allclose(array, Outside().attention(one_hot_tensor(X).transpose(1, 2)))


def test_attention_weights__refuses_models_without():
    with pytest.raises(UnsupportedError, match=r"Linear shows no attention: it has no method attention\(X\)"):
        attention_weights(Oracle(nn.Linear(2, 2), device="cpu"), codes(7))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.Identity()

    with pytest.raises(UnsupportedError, match="Layer shows no attention"):
        attention_weights(Oracle(Layer(), device="cpu"), codes(7))

    class Odd(nn.Module):
        def attention(self, X):
            return X

    model = Odd().train()
    with pytest.raises(SchemaError, match=r"returns \(B, layers, n, n\) for 1 sequences; got \(1, 4, 7\)"):
        attention_weights(Oracle(model, device="cpu"), codes(7))
    assert model.training
    with pytest.raises(SchemaError, match="X holds no sequence"):
        attention_weights(Oracle(model, device="cpu"), codes(7)[:0])


def test_attention_rollout__multiplies_the_layers_last_one_first():
    first = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    last = np.array([[1, 0, 0], [1, 0, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(attention_rollout(weights([[first, last]]), residual=0)[0], last @ first, atol=1e-6)
    eye = np.eye(3)
    np.testing.assert_allclose(attention_rollout(weights([[first, last]]))[0],
                               (last + eye) @ (first + eye) / 4, atol=1e-6)
    np.testing.assert_allclose(attention_rollout(weights([[first, last]]), residual=1)[0], eye)
    two_heads = attention_rollout(weights([[first, last]], layer=[0, 0]), residual=0)
    np.testing.assert_allclose(two_heads[0], (first + last) / 2, atol=1e-6)


def test_attention_rollout__refuses_what_it_cannot_read():
    with pytest.raises(SchemaError, match="rollout reads attention weights"):
        attention_rollout(weights([[np.eye(3)]]).transpose("head", "region", "bin", "bin_"))
    with pytest.raises(SchemaError, match="residual lies in 0 to 1; got 2"):
        attention_rollout(weights([[np.eye(3)]]), residual=2.0)
