"""Edits predicted from differences equal edits predicted in full, for every model there is."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from zoo_cases import CASES, case

from ciscribe.errors import SchemaError
from ciscribe.models import registry
from ciscribe.oracle import LogCounts, Oracle
from ciscribe.perturb import local
from ciscribe.perturb.edits import Edits, _Work, apply_edits, predict_edited
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


def check_same(a, b, scale):
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
        check_same(y, expected, 1 + np.abs(expected).max())


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


def counted(monkeypatch):
    """Sequences that are predicted in full: three of a check, and all others where it fails."""
    n = []
    monkeypatch.setattr(_Work, "in_full",
                        lambda self, edits, old=_Work.in_full: n.append(len(edits.row)) or old(self, edits))
    return n


class Do(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def chain(*layers):
    return nn.Sequential(nn.Conv1d(4, 13, 7, padding=3), *layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(),
                         nn.Linear(13, 3))


class Temporary(nn.Module):
    """Weights that live for one operation each, one after another at the same place of memory."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(3, 13, 13, 3) / 5)

    def forward(self, x):
        for i in range(3):
            x = F.conv1d(torch.relu(x), self.weights[i] * 2, dilation=4)
        return x


class Fork(nn.Module):
    """Adds and subtracts what sees more and what sees less, both ways, also where windows lie apart."""

    def __init__(self):
        super().__init__()
        self.near, self.far = nn.Conv1d(4, 5, 3, padding=1), nn.Conv1d(4, 5, 7, padding=3)

    def forward(self, x):
        near, far = self.near(x), self.far(x)
        apart = near[:, :, 20:] - far[:, :, :-20]
        return apart + torch.relu(near - far)[:, :, 20:] * 2 + torch.relu(far - near)[:, :, 20:]


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
    "in place": chain(Do(torch.relu_), nn.Conv1d(13, 13, 3), Do(F.elu_), Do(lambda x: x.exp_())),
    "weights made in each pass": chain(nn.ReLU(), weight_norm(nn.Conv1d(13, 13, 3, dilation=4)), nn.ReLU(),
                                       weight_norm(nn.Conv1d(13, 13, 3, dilation=4))),
    "temporary weights": chain(Temporary()),
    "dense weights made in each pass": nn.Sequential(nn.Conv1d(4, 5, 7), nn.Flatten(),
                                                     weight_norm(nn.Linear(5 * 205, 3))),
    "flattened by hand": nn.Sequential(nn.Conv1d(4, 5, 7), Do(lambda x: x.flatten(-2)), nn.Linear(5 * 205, 3)),
    "flattened by name": nn.Sequential(nn.Conv1d(4, 5, 7), Do(lambda x: torch.flatten(x, end_dim=2, start_dim=1)),
                                       nn.Linear(5 * 205, 3)),
    "reshaped": nn.Sequential(nn.Conv1d(4, 5, 7), Do(lambda x: x.reshape(len(x), -1)), nn.Linear(5 * 205, 3)),
    "differences of branches": nn.Sequential(Fork(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
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
    full, n_in_full = [], counted(monkeypatch)
    monkeypatch.setattr("ciscribe.perturb.edits._POSITIONS", 0)  # several batches of a block
    monkeypatch.setattr(local.Difference, "full", lambda self, old=local.Difference.full: full.append(1) or old(self))
    y = predict_edited(oracle, codes, edits, batch_size=101)
    check_same(y, expected, 1 + np.abs(expected).max())
    if name != "average pool uncounted":
        assert not full, "it was computed in full"
    assert sum(n_in_full) == 3, "it was followed wrongly"


class Moody(nn.Module):
    """Takes another path where a batch holds more A than usual; both have the same operations in the same order."""

    def __init__(self, how, usual):
        super().__init__()
        self.how, self.usual = how, usual
        self.first, *paths = (nn.Conv1d(channels, 5, 3, padding=1) for channels in (4, 5, 5))
        self.paths = nn.ModuleList(paths)
        self.constants = nn.Parameter(torch.randn(2, 1, 5, 1))
        self.moods = []

    def forward(self, x):
        mood = int(x[:, 0].mean() > self.usual + 1e-6)
        self.moods.append(mood)
        x = self.first(x)
        if self.how == "weights":
            x = self.paths[mood](x)
        elif self.how == "settings":
            x = F.leaky_relu(x, (0.1, 0.7)[mood])
        elif self.how == "constants":
            x = torch.relu(x * self.constants[mood])
        elif self.how == "pieces":
            x = torch.relu(x[:, :, (3, 5)[mood]:(50, 52)[mood]])
        elif self.how == "order":
            x = torch.relu(self.paths[0](x) if mood else self.paths[0](torch.relu(x)))
        return x.mean(2)


@pytest.mark.parametrize("how", ["weights", "settings", "constants", "pieces", "order"])
def test_predict_edited__follows_a_path_that_depends_on_the_batch(how):
    torch.manual_seed(0)
    codes = np.random.default_rng(0).integers(0, 4, (1, 61)).astype(np.uint8)
    at = np.arange(61)
    edits = Edits(np.zeros(61, int), at, np.where(at // 11 % 2, 0, 3).astype(np.uint8)[:, None])
    model = Moody(how, (codes == 0).mean())
    expected = Oracle(model).predict(torch.from_numpy(apply_edits(codes, edits)), batch_size=11).numpy()
    assert model.moods == [0, 1, 0, 1, 0, 1]
    y = predict_edited(Oracle(model), codes, edits, batch_size=11)
    check_same(y, expected, np.abs(expected).max())


@pytest.mark.parametrize("scale", [1, 1e-6, 1e-12])
@pytest.mark.parametrize("wrong", [False, True])
def test_predict_edited__notices_a_wrong_rule(scale, wrong, monkeypatch):
    torch.manual_seed(0)
    oracle = Oracle(nn.Sequential(chain(nn.ReLU(), nn.AvgPool1d(3)), Do(lambda y: y * scale)))
    codes = np.random.default_rng(0).integers(0, 4, (1, 61)).astype(np.uint8)
    edits = random_edits(np.random.default_rng(1), codes, 31, 3)
    expected = written_out(oracle, codes, edits)
    if wrong:
        def halved(*args, old=local._RULES["avg_pool1d"], **kwargs):
            made = old(*args, **kwargs)
            return made.like(made.reference, made.delta / 2)
        monkeypatch.setitem(local._RULES, "avg_pool1d", halved)
    n_in_full = counted(monkeypatch)
    check_same(predict_edited(oracle, codes, edits), expected, np.abs(expected).max())
    assert sum(n_in_full) == (34 if wrong else 3)


def test_predict_edited__notices_a_result_of_another_shape(monkeypatch):
    oracle = Oracle(nn.Sequential(nn.Conv1d(4, 5, 7), Do(lambda x: x.mean(2))))
    nn.init.constant_(oracle.model[0].weight, 0)  # any number of equal targets would do
    nn.init.constant_(oracle.model[0].bias, 1)
    monkeypatch.setitem(local._RULES, "mean", lambda *args, old=local._RULES["mean"], **kwargs: old(*args)[:, :1])
    codes = np.zeros((1, 61), np.uint8)
    edits = random_edits(np.random.default_rng(1), codes, 31, 3)
    np.testing.assert_array_equal(predict_edited(oracle, codes, edits), np.ones((31, 5)))


class Attends(nn.Module):
    """Every position looks at every other; notes how many sequences it was given at once."""

    def __init__(self):
        super().__init__()
        self.conv, self.rows = nn.Conv1d(4, 5, 7), []

    def forward(self, x):
        x = self.conv(x)
        if not isinstance(x, local.Difference):
            self.rows.append(len(x))
        weight = (x.mT @ x).softmax(2)
        self.rows.append(len(weight))
        return (x @ weight.mT).mean(2)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_predict_edited__keeps_the_batch_size_of_what_is_not_local(batch_size):
    torch.manual_seed(0)
    model = Attends()
    oracle = Oracle(model)
    codes = np.random.default_rng(0).integers(0, 4, (2, 61)).astype(np.uint8)
    edits = random_edits(np.random.default_rng(1), codes, 31, 3)
    expected = written_out(oracle, codes, edits)
    model.rows.clear()
    check_same(predict_edited(oracle, codes, edits, batch_size=batch_size), expected, np.abs(expected).max())
    assert max(model.rows) == batch_size


def test_predict_edited__enlarges_batches_of_what_is_local():
    rows = []
    note = Do(lambda x: rows.append(len(x)) or x)
    oracle = Oracle(nn.Sequential(nn.Conv1d(4, 5, 7), note, nn.AdaptiveAvgPool1d(1), nn.Flatten()))
    codes = np.random.default_rng(0).integers(0, 4, (2, 61)).astype(np.uint8)
    edits = random_edits(np.random.default_rng(1), codes, 31, 3)
    expected = written_out(oracle, codes, edits)
    rows.clear()
    check_same(predict_edited(oracle, codes, edits, batch_size=7), expected, 1)
    assert max(rows) == 31


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
        elif self.how == "flattened otherwise":
            return x.flatten(end_dim=1).mean(1).view(x.shape[:2])
        elif self.how == "flattened to one":
            return x.flatten().view(len(x), 3, -1).mean(2)
        return x.mean(2)


@pytest.mark.parametrize("how", ["assigned", "flat view", "refuses", "data", "numpy", "unknown",
                                 "flattened otherwise", "flattened to one"])
def test_predict_edited__computes_in_full_what_it_cannot_follow(how):
    torch.manual_seed(0)
    oracle = Oracle(Odd(how))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (1, 61)).astype(np.uint8)
    edits = random_edits(rng, codes, 31, 3)
    check_same(predict_edited(oracle, codes, edits), written_out(oracle, codes, edits), 1)


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
        check_same(predict_edited(oracle, codes, edits), written_out(oracle, codes, edits), 1)


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
