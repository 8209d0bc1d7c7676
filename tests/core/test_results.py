"""What analyses return: shapes and names that fit, or an error that says what does not."""

import numpy as np
import pytest
import torch
import xarray as xr

from ciscribe.errors import SchemaError
from ciscribe.results import ATTRIBUTION_DIMS, Perturbation, attribution_array, check_attribution_array, contributions
from ciscribe.sequence import N, one_hot

B, L, T = 3, 7, 5


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(B, 4, L, T))


@pytest.fixture
def codes():
    X = np.random.default_rng(1).integers(0, 4, (B, L)).astype(np.uint8)
    X[1, 2:4] = N
    return X


def test_perturbation__effect_is_before_minus_after():
    before, after = np.array([[5.0, 1.0]]), np.array([[3.0, 4.0]])
    assert Perturbation(before, after).effect.tolist() == [[2.0, -3.0]]
    assert tuple(Perturbation(before, after)) == (before, after)


def test_attribution_array__names_everything(values):
    array = attribution_array(values, "ism", units="log2", reference="shuffle", seed=None)
    assert array.dims == ATTRIBUTION_DIMS == ("region", "base", "position", "track")
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, values, rtol=1e-6)
    assert array.attrs == {"method": "ism", "units": "log2", "reference": "shuffle"}
    assert array["base"].values.tolist() == ["A", "C", "G", "T"]
    assert array["region"].values.tolist() == [0, 1, 2]
    assert array["track"].values.tolist() == [0, 1, 2, 3, 4]
    named = attribution_array(values, "ism", units="log2", regions=["a", "b", "c"], tracks=list("vwxyz"))
    assert float(named.sel(region="b", base="G", track="w")[6]) == pytest.approx(values[1, 2, 6, 1])
    check_attribution_array(named)


def test_attribution_array__takes_a_tensor_that_needs_gradients(values):
    tensor = torch.from_numpy(values).requires_grad_()
    array = attribution_array(tensor, "gradient", units="log2")
    assert array.equals(attribution_array(values, "gradient", units="log2"))
    array[0, 0, 0, 0] = 99.0
    assert float(tensor.detach()[0, 0, 0, 0]) == values[0, 0, 0, 0]


@pytest.mark.parametrize(("names", "message"), [
    ({"regions": ["a", "b"]}, "3 regions need 3 names; got 2"), ({"tracks": ["a"]}, "5 tracks need 5 names; got 1")])
def test_attribution_array__refuses_too_few_names(values, names, message):
    with pytest.raises(SchemaError, match=message):
        attribution_array(values, "ism", units="log2", **names)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_contributions__are_those_of_the_base_that_is_there(values, codes, as_tensor):
    array = attribution_array(values, "ism", units="log2", regions=["a", "b", "c"])
    X = one_hot(codes)
    result = contributions(array, torch.from_numpy(X) if as_tensor else X)
    assert result.dims == ("region", "position", "track")
    assert result.attrs == array.attrs
    assert result["region"].values.tolist() == ["a", "b", "c"]
    for r in range(B):
        for i in range(L):
            expected = np.zeros(T) if codes[r, i] == N else values[r, codes[r, i], i]
            np.testing.assert_allclose(result[r, i], expected, rtol=1e-6)


def test_contributions__refuses_sequences_of_another_batch(values, codes):
    array = attribution_array(values, "ism", units="log2")
    with pytest.raises(SchemaError, match=r"\(3, 4, 7\) and one-hot sequences \(2, 4, 7\) differ"):
        contributions(array, one_hot(codes[:2]))
    with pytest.raises(SchemaError, match=r"one-hot sequences \(3, 4, 6\) differ"):
        contributions(array, one_hot(codes[:, 1:]))


def test_check_attribution_array__says_what_is_wrong(values):
    good = attribution_array(values, "ism", units="log2")
    check_attribution_array(good)
    for bad, message in ((good.transpose("region", "position", "base", "track"), r"got \('region', 'position', 'base'"),
                         (good.isel(track=0), r"got \('region', 'base', 'position'\)"),
                         (good.isel(base=[3, 2, 1, 0]), "bases A C G T"),
                         (xr.DataArray(values, dims=ATTRIBUTION_DIMS), "bases A C G T")):
        with pytest.raises(SchemaError, match=message):
            check_attribution_array(bad)
    for number in (np.nan, np.inf):
        broken = good.copy()
        broken[1, 2, 3, 4] = broken[2, 0, 0, 0] = number
        with pytest.raises(SchemaError, match="2 of 420 attributions are NaN or infinite; first: region 1, base G, "
                                              "position 3, track 4"):
            check_attribution_array(broken)
        with pytest.raises(SchemaError, match="NaN or infinite"):
            contributions(broken, one_hot(np.zeros((B, L), np.uint8)))
