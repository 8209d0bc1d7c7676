"""Edits predicted from differences equal edits predicted in full, for every model there is."""

import numpy as np
import pytest
import torch
from torch import nn
from zoo_cases import CASES, case

from ciscribe.errors import SchemaError
from ciscribe.models import registry
from ciscribe.oracle import LogCounts, Oracle
from ciscribe.perturb import local
from ciscribe.perturb.edits import Edits, apply_edits, predict_edited
from ciscribe.perturb.mutagenesis import indel_scan, ism, saturation_mutagenesis
from ciscribe.sequence import one_hot_tensor
from ciscribe.testing import check_attribution


def random_edits(rng, codes, n, width):
    rows, length = codes.shape
    return Edits(rng.integers(0, rows, n), rng.integers(0, length - width + 1, n),
                 rng.integers(0, 5, (n, width)).astype(np.uint8))


def written_out(oracle, codes, edits, *extras):
    """The slow, obvious way."""
    rows = [None if v is None else v[edits.row] for v in extras]
    return oracle.predict(torch.from_numpy(apply_edits(codes, edits)), *rows).numpy()


def same(a, b, scale):
    np.testing.assert_allclose(a, b, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("key", [pytest.param(key, marks=pytest.mark.slow) if key == "expecto flanks" else key
                                 for key in CASES])
def test_predict_edited__equals_the_full_computation(key):
    model, _, X, extras = case(key)
    trained(model)
    oracle = Oracle(model, CASES[key].readout)
    codes = np.where(X.numpy().any(1), X.numpy().argmax(1), 4).astype(np.uint8)
    rng = np.random.default_rng(0)
    for width in (1, min(7, codes.shape[1])):
        edits = random_edits(rng, codes, 23, width)
        expected = written_out(oracle, codes, edits, extras.get("S"), extras.get("covariates"))
        y = predict_edited(oracle, codes, edits, extras.get("S"), extras.get("covariates"), batch_size=11)
        same(y, expected, 1 + np.abs(expected).max())


def trained(model):
    """Running statistics as after some training: an untrained batch norm divides by 1."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)


class Block(nn.Module):
    """Residual block as people write it: in-place activations and additions."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(13, 13, 5, padding=2)
        self.norm = nn.BatchNorm1d(13)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.norm(self.conv(self.act(x.clone())))
        y += x
        return y


def chain(*layers):
    return nn.Sequential(nn.Conv1d(4, 13, 7, padding=3), *layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(),
                         nn.Linear(13, 3))


FOREIGN = {
    "plain": chain(nn.ReLU(), nn.Conv1d(13, 13, 3)),
    "residual in place": chain(Block(), Block()),
    "strided": chain(nn.SiLU(), nn.Conv1d(13, 13, 5, stride=3, padding=1), nn.ELU(inplace=True)),
    "grouped": chain(nn.Conv1d(13, 13, 3, groups=13, padding="same"), nn.GELU()),
    "max pool overlapping": chain(nn.MaxPool1d(5, stride=2, padding=2), nn.Tanh()),
    "max pool ceil": chain(nn.MaxPool1d(3, ceil_mode=True), nn.Conv1d(13, 13, 3, dilation=4)),
    "max pool dilated": chain(nn.MaxPool1d(3, stride=1, dilation=3), nn.Softplus()),
    "average pool": chain(nn.AvgPool1d(4, stride=3, padding=1), nn.Sigmoid()),
    "average pool uncounted": chain(nn.AvgPool1d(4, padding=1, count_include_pad=False), nn.LeakyReLU(0.1, True)),
    "even kernel": chain(nn.Conv1d(13, 13, 4, padding="same", dilation=2), nn.Hardtanh(-0.2, 0.3, True)),
    "padded by hand": chain(nn.ConstantPad1d((5, 2), 0.3), nn.Conv1d(13, 13, 3), nn.ReLU(), nn.Dropout(0.5)),
    "dense": nn.Sequential(nn.Conv1d(4, 5, 7), nn.ReLU(True), nn.MaxPool1d(4), nn.Flatten(), nn.Dropout(0.3),
                           nn.Linear(5 * 51, 11), nn.ReLU(), nn.Linear(11, 3)),
    "largest": nn.Sequential(nn.Conv1d(4, 5, 7), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(5, 3)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_predict_edited__follows_other_peoples_models(name, monkeypatch):
    torch.manual_seed(1)
    model = FOREIGN[name]
    trained(model)
    oracle = Oracle(model)
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 4, (2, 211)).astype(np.uint8)
    edits = Edits(np.repeat([0, 1], 211), np.tile(np.arange(211), 2), rng.integers(0, 5, (422, 1)).astype(np.uint8))
    expected = written_out(oracle, codes, edits)
    full = []
    monkeypatch.setattr(local.Difference, "full", lambda self, old=local.Difference.full: full.append(1) or old(self))
    y = predict_edited(oracle, codes, edits, batch_size=101)
    same(y, expected, 1 + np.abs(expected).max())
    if name != "average pool uncounted":
        assert not full, "it was computed in full"


class Odd(nn.Module):
    """Changes a tensor behind the back of its other names."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv1d(4, 3, 5), how

    def forward(self, x):
        x = self.conv(x)
        if self.how == "assigned":
            x[..., 3:40] = 0
        elif self.how == "flat view":
            torch.relu_(x.flatten(1))
        elif self.how == "refuses":
            if isinstance(x, local.Difference):
                raise KeyError("no")
        elif self.how == "data":
            x.data = x.data.exp()
        elif self.how == "numpy":
            x = torch.from_numpy(np.asarray(x.detach()))
        elif self.how == "unknown":
            x = x.cumsum(2)
        return x.mean(2)


@pytest.mark.parametrize("how", ["assigned", "flat view", "refuses", "data", "numpy", "unknown"])
def test_predict_edited__computes_in_full_what_it_cannot_follow(how):
    torch.manual_seed(0)
    oracle = Oracle(Odd(how))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (1, 61)).astype(np.uint8)
    edits = random_edits(rng, codes, 31, 3)
    same(predict_edited(oracle, codes, edits), written_out(oracle, codes, edits), 1)


def test_predict_edited__stays_local_in_dilated_and_pooled_networks(monkeypatch):
    def fail(self):
        raise AssertionError("computed in full")

    monkeypatch.setattr(local.Difference, "full", fail)
    rng = np.random.default_rng(0)
    for name, length, arguments, readout in (
            ("bpnet", 499, {"n_targets": 1, "n_layers": 5, "n_filters": 7}, LogCounts()),
            ("deepstarr", 249, {}, None), ("deepsea", 1000, {"n_targets": 3}, None)):
        model = registry.create(name, **arguments)
        model = model.only("counts") if name == "bpnet" else model
        oracle = Oracle(model, readout)
        codes = rng.integers(0, 4, (1, length)).astype(np.uint8)
        edits = random_edits(rng, codes, 17, 1)
        same(predict_edited(oracle, codes, edits), written_out(oracle, codes, edits), 1)


def test_predict_edited__threads_give_the_same(monkeypatch):
    oracle = Oracle(registry.create("deepstarr", n_targets=3))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (5, 249)).astype(np.uint8)
    edits = random_edits(rng, codes, 331, 2)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = predict_edited(oracle, codes, edits, batch_size=37)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        one = predict_edited(oracle, codes, edits, batch_size=37)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(one, two)


def test_predict_edited__refuses_what_leaves_the_sequence():
    oracle = Oracle(nn.Sequential(nn.Flatten(), nn.Linear(4 * 31, 2)))
    codes = np.zeros((2, 31), np.uint8)
    with pytest.raises(SchemaError, match=r"1 of 3 edits leave their sequence of 31 bp; first: edit 2, sequence 1, "
                                          r"position 30 to 32"):
        predict_edited(oracle, codes, Edits(np.array([0, 0, 1]), np.array([0, 29, 30]), np.ones((3, 2), np.uint8)))
    with pytest.raises(SchemaError, match="not among the 2"):
        predict_edited(oracle, codes, Edits(np.array([2]), np.array([0]), np.ones((1, 2), np.uint8)))
    with pytest.raises(SchemaError, match="other than codes"):
        predict_edited(oracle, codes, Edits(np.array([1]), np.array([0]), np.full((1, 2), 7, np.uint8)))
    with pytest.raises(SchemaError, match="one-hot"):
        predict_edited(oracle, np.full((2, 4, 31), 0.5), Edits(np.array([1]), np.array([0]), np.ones((1, 2), np.uint8)))
    none = Edits(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 1), np.uint8))
    assert predict_edited(oracle, codes, none).shape == (0, 2)


class Linear(nn.Module):
    """Known answer: a weight for each base and position."""

    def __init__(self, length=23, n_targets=2):
        super().__init__()
        torch.manual_seed(3)
        self.weight = nn.Parameter(torch.randn(n_targets, 4, length))

    def forward(self, X):
        return torch.einsum("bcl,tcl->bt", X, self.weight)


def test_saturation_mutagenesis__is_the_difference_of_weights():
    model = Linear()
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (3, 23)).astype(np.uint8)
    codes[1, 5] = 4
    effects = saturation_mutagenesis(Oracle(model), codes, regions=["a", "b", "c"])
    weight = model.weight.detach().numpy()
    X = one_hot_tensor(torch.from_numpy(codes)).numpy()
    there = np.einsum("ncl,tcl->ntl", X, weight)
    expected = weight[None].transpose(0, 2, 3, 1) - there.transpose(0, 2, 1)[:, None]
    np.testing.assert_allclose(effects.values, expected, atol=2e-5)
    assert effects.dims == ("region", "base", "position", "track")
    assert list(effects.region.values) == ["a", "b", "c"]
    part = saturation_mutagenesis(Oracle(model), codes, start=3, end=8)
    np.testing.assert_allclose(part.values[:, :, 3:8], expected[:, :, 3:8], atol=2e-5)
    assert not part.values[:, :, 8:].any()
    assert not part.values[:, :, :3].any()
    with pytest.raises(SchemaError, match="positions to mutate lie in 0 to 23"):
        saturation_mutagenesis(Oracle(model), codes, start=3, end=24)


def test_ism__keeps_the_contract_of_attributions():
    check_attribution(ism)


@pytest.mark.parametrize("stays", ["start", "end"])
def test_indel_scan__equals_string_editing(stays):
    model = Linear()
    oracle = Oracle(model)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (2, 23)).astype(np.uint8)
    deletions, insertions = indel_scan(oracle, codes, stays=stays)
    letters = ["".join("ACGTN"[c] for c in row) for row in codes]

    def score(text):
        row = np.array([["ACGTN".index(c) for c in text]], np.uint8)
        return oracle.predict(torch.from_numpy(row)).numpy()[0]

    for i, text in enumerate(letters):
        for p in range(23):
            cut = text[:p] + text[p + 1:]
            cut = "N" + cut if stays == "end" else cut + "N"
            np.testing.assert_allclose(deletions.values[i, p], score(cut) - score(text), atol=1e-5)
            for b, base in enumerate("ACGT"):
                longer = text[:p] + base + text[p:] if stays == "end" else text[:p + 1] + base + text[p + 1:]
                longer = longer[1:] if stays == "end" else longer[:-1]
                np.testing.assert_allclose(insertions.values[i, b, p], score(longer) - score(text), atol=1e-5)
