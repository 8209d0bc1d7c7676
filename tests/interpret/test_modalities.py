"""Shares of modalities of models whose law is known, and what erasing signal or DNA does to them."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError
from ciscribe.interpret.modalities import erase_signal, input_groups, modality_shapley
from ciscribe.oracle import Oracle

G, L, BINS, S_, C, T = 3, 35, 7, 2, 5, 2
TRACKS, COVARIATES = ["atac", "k27"], ["length", "gc", "exons", "atac@-1024", "atac@+0"]


class Known(nn.Module):
    """Sums of G, of each track and of covariates, and a product; `law` picks what counts."""

    def __init__(self, law):
        super().__init__()
        self.law = law
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, X, S=None, covariates=None, keep=None):
        parts = {"G": X[:, 2].sum(dim=1), "TG": (X[:, 3, :-1] * X[:, 2, 1:]).sum(dim=1)}
        if S is not None:
            parts |= {"atac": S[:, 0].sum(dim=1), "k27": S[:, 1].sum(dim=1)}
        if covariates is not None:
            parts |= {"covariates": covariates[:, :3].sum(dim=1), "around": covariates[:, 3:].sum(dim=1)}
        y = self.law(parts)
        return {"expression": torch.stack([y, 3 * y], dim=1)}


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (G, L)).astype(np.uint8)
    return codes, torch.from_numpy(rng.random((G, S_, BINS)).astype(np.float32)), torch.from_numpy(
        rng.normal(size=(G, C)).astype(np.float32))


def split(law, seed=0, **options):
    codes, S, covariates = inputs(seed)
    names = {"tracks": TRACKS, "covariate_names": COVARIATES} | options
    return modality_shapley(Oracle(Known(law), device="cpu"), codes, S, covariates, seed=seed, **names)


def of(table, region, target=0):
    own = table.loc[(table["region"] == region) & (table["target"] == target)]
    return own.set_index("group")["shapley"].to_dict()


def test_input_groups__surroundings_are_not_covariates():
    groups = input_groups([*TRACKS, "contact"], COVARIATES)
    assert groups == {"sequence": [], "atac": ["atac"], "k27": ["k27"], "surroundings": ["atac@-1024", "atac@+0"],
                      "covariates": ["length", "gc", "exons"]}
    assert input_groups([], []) == {"sequence": []}


def test_modality_shapley__a_model_of_one_signal_gives_it_everything():
    table = split(lambda p: p["k27"] ** 2)
    _, S, _ = inputs()
    assert len(table) == G * T * 5
    for region in range(G):
        total = float(S[region, 1].sum()) ** 2
        assert of(table, region) == pytest.approx({"sequence": 0, "atac": 0, "k27": total, "surroundings": 0,
                                                   "covariates": 0}, abs=1e-4)
        assert of(table, region, 1)["k27"] == pytest.approx(3 * total, rel=1e-5)
    assert (table["standard_error"] == 0).all()


def test_modality_shapley__of_an_additive_model_are_its_terms():
    profile = np.full((S_, BINS), 0.25, np.float32)
    average = np.array([0.0, 1.0, 0.0, 2.0, 0.0], np.float32)
    law = lambda p: 2 * p["G"] + p["atac"] - p["k27"] + 5 * p["covariates"] + 7 * p["around"]  # noqa: E731
    table = split(law, sequence="N", signals=profile, average=average)
    codes, S, c = inputs()
    for i in range(G):
        expected = {"sequence": 2 * (codes[i] == 2).sum(), "atac": float(S[i, 0].sum()) - 0.25 * BINS,
                    "k27": 0.25 * BINS - float(S[i, 1].sum()), "surroundings": 7 * (float(c[i, 3:].sum()) - 2),
                    "covariates": 5 * (float(c[i, :3].sum()) - 1)}
        assert of(table, i) == pytest.approx(expected, abs=1e-3)
    total = table.groupby(["region", "target"])["shapley"].sum()
    ends = table.drop_duplicates(["region", "target"]).set_index(["region", "target"])
    np.testing.assert_allclose(total, ends["prediction"] - ends["baseline"], atol=1e-3)


def test_modality_shapley__equals_all_orders_one_by_one():
    law = lambda p: p["G"] * p["atac"] + p["k27"] * p["covariates"] * p["atac"]  # noqa: E731
    table = split(law, sequence="N", seed=2)
    codes, S, c = inputs(2)
    groups = list(input_groups(TRACKS, COVARIATES))
    for i in range(G):
        def worth(who, i=i):
            values = {"sequence": float((codes[i] == 2).sum()), "atac": float(S[i, 0].sum()),
                      "k27": float(S[i, 1].sum()), "covariates": float(c[i, :3].sum())}
            g, a, k, x = (value * (name in who) for name, value in values.items())
            return g * a + k * x * a
        expected = dict.fromkeys(groups, 0.0)
        orders = list(permutations(groups))
        for order in orders:
            for at, one in enumerate(order):
                expected[one] += (worth(order[:at + 1]) - worth(order[:at])) / len(orders)
        assert of(table, i) == pytest.approx(expected, abs=1e-3)


def test_modality_shapley__shuffles_keep_the_bases_and_lose_the_order():
    assert of(split(lambda p: p["G"]), 0)["sequence"] == pytest.approx(0, abs=1e-5)  # composition is kept
    assert of(split(lambda p: p["TG"]), 0)["sequence"] == pytest.approx(0, abs=1e-5)  # and dinucleotides


def test_modality_shapley__more_groups_are_sampled_and_add_up():
    groups = {"sequence": [], "atac": ["atac"], "k27": ["k27"], **{name: [name] for name in COVARIATES}}
    table = split(lambda p: p["atac"] * p["covariates"] + p["G"], groups=groups, n_permutations=20)
    assert table["standard_error"].max() > 0
    total = table.groupby(["region", "target"])["shapley"].sum()
    ends = table.drop_duplicates(["region", "target"]).set_index(["region", "target"])
    np.testing.assert_allclose(total, ends["prediction"] - ends["baseline"], atol=1e-4)
    one = split(lambda p: p["k27"], groups={"signals": TRACKS})
    assert set(one["group"]) == {"signals"}  # what no group holds stays


def test_modality_shapley__of_a_model_without_signals():
    codes, _, covariates = inputs()
    oracle = Oracle(Known(lambda p: p["covariates"]), device="cpu")
    table = modality_shapley(oracle, codes, None, covariates, covariate_names=COVARIATES,
                             regions=["a", "b", "c"], targets=["x", "y"])
    assert set(table["group"]) == {"sequence", "surroundings", "covariates"}
    assert table["region"].unique().tolist() == ["a", "b", "c"]
    assert table.loc[table["group"] == "covariates", "shapley"].iloc[0] == pytest.approx(float(covariates[0, :3].sum()))


@pytest.mark.parametrize(("change", "message"), [
    ({"groups": {"atac": ["atak"]}}, "1 names of groups are no track and no covariate; first: 'atak'"),
    ({"groups": {"a": ["atac"], "b": ["atac"]}}, "stand in two groups; first: 'atac'"),
    ({"groups": {"a": []}}, "groups without a member; first: 'a'"),
    ({"groups": {}}, "at least 1 group"),
    ({"tracks": ["atac"]}, "tracks must hold 2 different names, as the inputs have; got 1"),
    ({"sequence": "zeros"}, "absent bases are shuffle or N; got 'zeros'"),
    ({"signals": "mean"}, "absent signals are zeros or an array; got 'mean'"),
    ({"signals": np.zeros((BINS, S_), np.float32)}, r"are a profile \(2, 7\); got \(7, 2\)"),
    ({"average": np.zeros(3, np.float32)}, "has 5 covariates; got 3"),
    ({"targets": ["one"]}, "2 targets need 2 names; got 1"),
])
def test_modality_shapley__says_what_is_wrong(change, message):
    with pytest.raises(SchemaError, match=message):
        split(lambda p: p["G"], **change)


class Place(nn.Module):
    """What the G of 10–15 and the first track of the bin there do: alone, together, or one in place of the other."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, X, S=None, covariates=None, keep=None):
        dna = (X[:, 2, 10:15].sum(dim=1) == 5).float()
        signal = (S[:, 0, 2] > 0.5).float()
        laws = {"add": dna + signal, "both": dna * signal, "either": torch.maximum(dna, signal), "signal": signal}
        return {"expression": laws[self.kind][:, None]}


@pytest.mark.parametrize(("kind", "signal", "dna", "both"), [
    ("signal", 1, 0, 1), ("add", 1, 1, 2), ("both", 1, 1, 1), ("either", 0, 0, 1)])
def test_erase_signal__tells_the_laws_apart(kind, signal, dna, both):
    codes = np.full((G, L), 0, np.uint8)
    codes[1, 10:15] = 2
    codes[1, 15:25] = 3
    S = torch.zeros(G, S_, BINS)
    S[1, 0, 2] = 3.0
    places = pd.DataFrame({"region": [1], "start": [10], "end": [23], "name": ["here"]})
    # 13 bp of 5 G and 8 T: a shuffle that keeps dinucleotides starts with G, and half of them break the run
    table = erase_signal(Oracle(Place(kind), device="cpu"), codes, S, places=places, resolution=5, n_shuffles=3,
                         targets=["y"])
    row = table.iloc[0]
    assert row["name"] == "here"
    assert row["target"] == "y"
    assert row["signal_effect"] == signal
    # GGGGGTTTTTTTT has one shuffle with its own dinucleotides, itself
    assert row["dna_effect"] == 0
    codes[1, 10:23] = [2, 2, 2, 2, 2, 3, 2, 3, 3, 2, 3, 3, 3]
    row = erase_signal(Oracle(Place(kind), device="cpu"), codes, S, places=places, resolution=5, n_shuffles=101,
                       seed=1).iloc[0]
    assert row["signal_effect"] == signal
    assert row["dna_effect"] == pytest.approx(dna, abs=0.35)
    assert row["both_effect"] == pytest.approx(both, abs=0.35)
    assert row["interaction"] == pytest.approx(row["both_effect"] - row["signal_effect"] - row["dna_effect"])


def test_erase_signal__background_is_the_median_of_the_window():
    codes, S, _ = inputs()
    S[:, 0] += 1
    class Sum(nn.Module):
        nothing = nn.Parameter(torch.zeros(1))

        def forward(self, X, S=None, covariates=None, keep=None):
            return S.sum(dim=2)

    places = pd.DataFrame({"region": [0, 2], "start": [5, 0], "end": [15, 1]})
    table = erase_signal(Oracle(Sum(), device="cpu"), codes, S, places=places, resolution=5, tracks=[0])
    value = S[0, 0, 1:3].sum() - 2 * S[0, 0].median()
    assert table["signal_effect"].tolist() == pytest.approx(
        [float(value), 0.0, float(S[2, 0, 0] - S[2, 0].median()), 0.0], abs=1e-5)
    zeros = erase_signal(Oracle(Sum(), device="cpu"), codes, S, places=places, resolution=5, background="zeros")
    assert zeros["signal_effect"][0] == pytest.approx(float(S[0, 0, 1:3].sum()), rel=1e-5)
    assert (table["dna_effect"] == 0).all()


def test_erase_signal__says_what_is_wrong():
    codes, S, _ = inputs()
    oracle = Oracle(Place("add"), device="cpu")

    def ask(places, **options):
        return erase_signal(oracle, codes, S, places=places, **({"resolution": 5} | options))

    good = pd.DataFrame({"region": [0, 1], "start": [5, 0], "end": [15, 1]})
    with pytest.raises(SchemaError, match="missing: end; got region, start"):
        ask(good.drop(columns="end"))
    with pytest.raises(SchemaError, match="1 of 2 places are no interval in one of the 3 windows of 35 bp; first: row "
                                          "1, region 1, 30-36"):
        ask(good.assign(start=[5, 30], end=[15, 36]))
    with pytest.raises(SchemaError, match="in bins of 6 bp"):
        ask(good, resolution=6)
    with pytest.raises(SchemaError, match="median or zeros; got 'mean'"):
        ask(good, background="mean")
    with pytest.raises(SchemaError, match="at least 1 shuffle"):
        ask(good, n_shuffles=0)
