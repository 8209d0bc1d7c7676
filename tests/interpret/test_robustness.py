"""Checks of explanations, on models of which the truth is known: the right one passes and the false ones are caught."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr
from torch import nn

from ciscribe.errors import SchemaError, UnknownNameError, UnsupportedError
from ciscribe.interpret.robustness import (
    CARDS,
    compare_methods,
    consistency,
    faithfulness,
    label_check,
    randomization_check,
)
from ciscribe.oracle import Oracle, Scalar
from ciscribe.results import attribution_array, contributions
from ciscribe.sequence import N, one_hot, one_hot_tensor

B, L, T = 7, 53, 3
FRACTIONS = (0.1, 0.3)


class Additive(nn.Module):
    """A sum of weights of bases at a few places; the places differ between targets."""

    def __init__(self, n_places=5):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        weight = torch.zeros(T, 4, L)
        for t in range(T):
            places = torch.randperm(L, generator=generator)[:n_places]
            weight[t][:, places] = torch.randn(4, n_places, generator=generator) * 3
        self.weight = nn.Parameter(weight)

    def forward(self, X):
        return torch.einsum("bal,tal->bt", X, self.weight)


class Network(nn.Module):
    """Layers that are named in another order than they run, and a weight that no layer owns."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(13, T)
        self.deep = nn.Conv1d(11, 13, 5, padding=2)
        self.norm = nn.BatchNorm1d(11)
        self.stem = nn.Conv1d(4, 11, 7, padding=3)
        self.at = nn.Parameter(torch.linspace(-1, 1, L))

    def forward(self, X, S=None, covariates=None):
        H = self.deep(self.norm(self.stem(X)).relu()).relu()
        return self.head((H * self.at).mean(dim=2)) + (0 if S is None else S.sum(dim=(1, 2))[:, None])


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small are slower with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def codes():
    generator = torch.Generator().manual_seed(0)
    X = torch.randint(4, (B, L), generator=generator, dtype=torch.uint8).numpy()
    X[2, 11:17] = N
    return X


@pytest.fixture
def additive():
    return Oracle(Additive(), device="cpu")


@pytest.fixture
def network():
    torch.manual_seed(3)
    return Oracle(Network(), device="cpu")


def gradient(oracle, X, S=None, covariates=None):
    """Gradients, by hand, less their mean over bases: exact for an additive model."""
    X = one_hot_tensor(torch.from_numpy(X))
    columns = []
    with oracle.evaluating(gradients=True) as ask:
        for t in range(T):
            asked = X.clone().requires_grad_()
            ask(asked, S, covariates)[:, t].sum().backward()
            columns.append(asked.grad)
    values = torch.stack(columns, dim=-1)
    return attribution_array(values - values.mean(dim=1, keepdim=True), "gradient", units="expression")


def edges(oracle, X, S=None, covariates=None):
    """Shows where a base differs from the one before, whatever the model."""
    edge = (np.roll(X, 1, axis=1) != X).astype(float)
    return attribution_array(one_hot(X)[..., None] * edge[:, None, :, None] * np.ones(T), "edges", units="none")


def itself(oracle, X, S=None, covariates=None):
    return attribution_array(one_hot(X)[..., None] * np.ones(T), "input", units="none")


def noise(like, seed):
    return like.copy(data=np.random.default_rng(seed).normal(size=like.shape).astype(np.float32))


def figure(table, column="value", **which):
    for key, value in which.items():
        table = table[table[key] == value]
    assert len(table) == 1, f"{len(table)} rows"
    return table[column].item()


# --- consistency


def test_consistency__is_the_mean_of_correlations_within_regions_without_n(additive, codes):
    a = noise(gradient(additive, codes), 0)
    b = a + noise(a, 1)
    table = consistency({"a": a, "b": b, "c": noise(a, 2)}, codes, top=[0.1], n_bootstrap=211)
    assert table.groupby(["a", "b"], sort=False).ngroups == 3
    assert list(table.columns) == ["a", "b", "track", "metric", "value", "low", "high", "chance", "n_regions"]
    pair = table.query("a == 'a' and b == 'b'")
    one, other = (contributions(x, one_hot(codes)).values for x in (a, b))
    for t in range(T):
        pearson, spearman, absolute, shared = [], [], [], []
        for r in range(B):
            there = codes[r] < N
            p, q = one[r, there, t], other[r, there, t]
            pearson.append(np.corrcoef(p, q)[0, 1])
            spearman.append(spearmanr(p, q).statistic)
            absolute.append(spearmanr(abs(p), abs(q)).statistic)
            k = round(0.1 * len(p))
            tops = [set(np.argsort(-abs(v))[:k]) for v in (p, q)]
            shared.append(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
        for name, each in (("pearson", pearson), ("spearman", spearman), ("spearman_abs", absolute),
                             ("jaccard_0.1", shared)):
            row = pair[(pair["track"] == t) & (pair["metric"] == name)].iloc[0]
            assert row["value"] == pytest.approx(np.mean(each), abs=1e-6)
            assert min(each) - 1e-6 <= row["low"] < row["value"] < row["high"] <= max(each) + 1e-6
            assert row["n_regions"] == B
    unrelated = table.query("b == 'c' and metric == 'pearson'")["value"]
    assert (unrelated.abs() < 0.2).all()
    assert (table.query("a == 'a' and b == 'b' and metric == 'pearson'")["value"] > 0.6).all()


def test_consistency__chance_is_what_unrelated_maps_reach():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, (211, 101)).astype(np.uint8)
    maps = [attribution_array(rng.normal(size=(211, 4, 101, 1)), "noise", units="none") for _ in range(2)]
    table = consistency(maps, X, top=[0.1, 0.5], n_bootstrap=101)
    assert list(table["a"].unique()) == ["0"]
    assert (table["low"] < table["chance"] + 0.02).all()
    assert (table["high"] > table["chance"] - 0.02).all()
    assert figure(table, "chance", metric="jaccard_0.5") == pytest.approx(1 / 3)


def test_consistency__the_same_map_agrees_and_one_that_does_not_vary_is_undefined(additive, codes):
    flat = itself(additive, codes)
    same = consistency([flat, flat.copy(), gradient(additive, codes)], codes, n_bootstrap=11)
    assert (same.query("b == '1'")["value"] == 1).all()
    against = same.query("a == '0' and b == '2'")
    assert against.query("metric == 'pearson'")["value"].isna().all()
    assert (against.query("metric == 'pearson'")["n_regions"] == 0).all()


def test_consistency__ties_at_the_border_of_the_top_do_not_count_as_agreement():
    X = np.zeros((1, 11), np.uint8)
    values = np.zeros((2, 1, 4, 11, 1))
    values[0, 0, 0, [1, 4], 0] = 5.0, 3.0  # two bases matter, nine are zeros
    values[1, 0, 0, [1, 7], 0] = 5.0, 3.0
    a, b = (attribution_array(v, "sparse", units="none") for v in values)
    table = consistency([a, b], X, top=[0.1, 0.5], n_bootstrap=3)
    assert figure(table, metric="jaccard_0.1") == 1  # the largest of each
    assert figure(table, metric="jaccard_0.5") == pytest.approx(1 / 3)  # {1, 4} and {1, 7}, none of the zeros


def test_label_check__finds_a_model_that_shuffled_labels_do_not_change(additive, codes):
    true = gradient(additive, codes)
    table = label_check(true, {"blind": noise(true, 1), "stubborn": true.copy()}, codes, n_bootstrap=11)
    pearson = table[table["metric"] == "pearson"]
    assert (pearson[pearson["model"] == "stubborn"]["value"] == 1).all()
    assert (pearson[pearson["model"] == "blind"]["value"].abs() < 0.3).all()


# --- randomization


def test_randomization_check__falls_for_gradients_and_catches_what_ignores_the_model(network, codes):
    by_method = {m.__name__: randomization_check(network, codes, m, n=2, n_bootstrap=11)
                 for m in (gradient, edges, itself)}
    last = {name: t[(t["metric"] == "pearson") & (t["n_layers"] == 5)]["value"] for name, t in by_method.items()}
    assert len(last["gradient"]) == 2 * T
    assert (last["edges"] == 1).all()
    assert (last["itself"] == 1).all()
    assert (last["gradient"].abs() < 0.4).all()
    assert last["gradient"].abs().mean() < 0.2


def test_randomization_check__takes_layers_from_the_last_that_runs_to_the_first(network, codes):
    table = randomization_check(network, codes, gradient, n_bootstrap=3)
    stages = table[["n_layers", "layer"]].drop_duplicates()
    # the model itself, which owns `at`, ends after all of its layers
    assert list(stages["layer"]) == ["(model)", "head", "deep", "norm", "stem"]
    assert list(stages["n_layers"]) == [1, 2, 3, 4, 5]
    few = randomization_check(network, codes, gradient, max_stages=2, n_bootstrap=3)
    assert list(few["n_layers"].unique()) == [1, 5]
    at_once = randomization_check(network, codes, gradient, cascading=False, n_bootstrap=3)
    assert list(at_once["n_layers"].unique()) == [5]
    assert list(at_once["layer"].unique()) == ["stem"]


def test_randomization_check__draws_by_seed_and_leaves_everybody_alone(network, codes):
    torch.manual_seed(5)
    expected = torch.rand(3)
    before = {k: v.clone() for k, v in network.model.state_dict().items()}
    torch.manual_seed(5)
    run = partial(randomization_check, network, codes, gradient, n=2, max_stages=2, n_bootstrap=3)
    first, again, other = run(seed=1), run(seed=1), run(seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert first.equals(again)
    assert not np.allclose(first["value"], other["value"], equal_nan=True)
    values = first[first["n_layers"] == 5].groupby("draw")["value"].apply(list)
    assert values[0] != values[1]
    assert all(torch.equal(v, before[k]) for k, v in network.model.state_dict().items())
    assert network.model.training
    assert not network.model.stem._forward_hooks


def test_randomization_check__a_method_that_fails_leaves_the_model(network, codes):
    asked = []

    def breaks(oracle, X, S, covariates):
        asked.append(oracle.model)
        if len(asked) == 2:
            raise RuntimeError("out of memory")
        return gradient(oracle, X, S, covariates)

    before = {k: v.clone() for k, v in network.model.state_dict().items()}
    with pytest.raises(RuntimeError, match="out of memory"):
        randomization_check(network, codes, breaks)
    assert asked[0] is network.model
    assert asked[1] is not network.model
    assert all(torch.equal(v, before[k]) for k, v in network.model.state_dict().items())
    assert all(p.requires_grad for p in network.model.parameters())


def test_randomization_check__weights_without_an_initialization_are_permuted(additive, codes):
    seen = []

    def method(oracle, X, S, covariates):
        seen.append(oracle.model.weight.detach().clone())
        return gradient(oracle, X, S, covariates)

    randomization_check(additive, codes, method, n_bootstrap=3)
    original, drawn = seen
    assert not torch.equal(original, drawn)
    assert torch.equal(original.flatten().sort().values, drawn.flatten().sort().values)


def test_randomization_check__hands_on_signals(network, codes):
    S = torch.randn(B, 2, 3)

    def method(oracle, X, given, covariates):
        assert given is S
        assert covariates is None
        return gradient(oracle, X, given, covariates)

    assert len(randomization_check(network, codes, method, S, cascading=False, n_bootstrap=3))


def test_randomization_check__needs_weights_and_a_model_that_can_be_copied(codes):
    class Counts(nn.Module):
        def forward(self, X):
            return X.sum(dim=2)[:, :T]

    with pytest.raises(UnsupportedError, match=r"Counts holds no weights that could be drawn anew.*faithfulness"):
        randomization_check(Oracle(Counts(), device="cpu"), codes, edges)
    model = Network()
    model.cache = model.at * 2  # the result of an operation: PyTorch will not copy it
    with pytest.raises(UnsupportedError, match="Network cannot be copied"):
        randomization_check(Oracle(model, device="cpu"), codes, edges)


# --- faithfulness


def test_faithfulness__truth_beats_a_corrupted_map_beats_chance(additive, codes):
    truth = gradient(additive, codes)
    spoiled = truth + 2 * truth.values.std() * noise(truth, 3)
    result = faithfulness(additive, codes, {"truth": truth, "spoiled": spoiled, "noise": noise(truth, 4)},
                          n_fills=3, n_bootstrap=101)
    area = result.areas.query("curve == 'difference'").groupby("method")["area"].mean()
    assert area["truth"] > area["spoiled"] + 0.1
    assert area["spoiled"] > area["random"] + 0.1
    assert area["noise"] == pytest.approx(area["random"], abs=0.35)
    gaps = result.areas[result.areas["method"] == "truth"]
    assert (gaps["gap_low"] > 0).all()
    assert (result.areas[result.areas["method"] == "random"]["gap"] == 0).all()
    assert (result.areas["low"] <= result.areas["area"]).all()
    assert (result.areas["area"] <= result.areas["high"]).all()


def test_faithfulness__of_an_additive_model_without_background_is_a_sum_of_contributions(additive, codes):
    """With N as background, f(b) = 0 and what is kept is the sum of its contributions: both curves by hand."""
    values = torch.einsum("tal->alt", additive.model.weight.detach()).expand(B, 4, L, T)
    exact = attribution_array(values, "weights", units="expression")
    result = faithfulness(additive, codes, {"exact": exact}, fractions=FRACTIONS, fill="N", n_bootstrap=11)
    c = contributions(exact, one_hot(codes)).values.astype(float)
    of_exact = result.curves[result.curves["method"] == "exact"]
    assert sorted(result.curves["fraction"].unique()) == [0, *FRACTIONS, 1]
    assert list(result.curves.columns) == ["method", "curve", "track", "fraction", "score", "low", "high"]
    for t in range(T):
        whole = c[:, :, t].sum(axis=1)
        assert (whole < 0).any()  # else directions were not tested
        curves = {"insertion": [], "deletion": []}
        for fraction in (0, *FRACTIONS, 1):
            kept = lost = 0.0
            for r in range(B):
                there = codes[r] < N
                ranked = np.sort(np.sign(whole[r]) * c[r, there, t])[::-1]
                k = int(np.floor(fraction * there.sum() + 0.5))
                kept, lost = kept + ranked[:k].sum(), lost + ranked[k:].sum()
            curves["insertion"].append(kept / abs(whole).sum())
            curves["deletion"].append(lost / abs(whole).sum())
        for curve, expected in curves.items():
            rows = of_exact[(of_exact["curve"] == curve) & (of_exact["track"] == t)]
            np.testing.assert_allclose(rows["score"], expected, atol=1e-5)
            area = sum((right - left) * (expected[i] + expected[i + 1]) / 2 for i, (left, right) in
                       enumerate(pairwise((0, *FRACTIONS, 1))))
            assert figure(result.areas, "area", method="exact", curve=curve, track=t) == pytest.approx(area, abs=1e-5)


@pytest.mark.parametrize("fill", ["shuffle", "N"])
def test_faithfulness__curves_run_between_sequence_and_background(network, codes, fill):
    result = faithfulness(network, codes, {"gradient": gradient(network, codes)}, fractions=FRACTIONS, fill=fill,
                          n_fills=2, controls=["center"], n_bootstrap=11)
    assert set(result.curves["method"]) == {"gradient", "random", "center"}
    by_end = result.curves.groupby(["curve", "fraction"])
    for end, expected in {("insertion", 0): 0, ("insertion", 1): 1, ("deletion", 0): 1, ("deletion", 1): 0}.items():
        rows = by_end.get_group(end)
        assert len(rows) == 3 * T
        np.testing.assert_allclose(rows[["score", "low", "high"]], expected, atol=1e-9)


def asked_by(oracle, codes, **options):
    """Every sequence that the model is asked about, as codes."""
    seen = []

    def note(module, args):
        X = args[0].numpy()
        seen.append(np.where(X.any(axis=1), X.argmax(axis=1), N))

    hook = oracle.model.register_forward_pre_hook(note)
    result = faithfulness(oracle, codes, n_bootstrap=3, **options)
    hook.remove()
    return result, np.concatenate(seen)


def test_faithfulness__changes_only_bases_and_keeps_n(additive, codes):
    one = codes[2:3]
    truth = gradient(additive, codes).isel(region=[2])
    _, seen = asked_by(additive, one, attributions={"truth": truth}, n_fills=3)
    was_n = one[0] == N
    assert (seen[:, was_n] == N).all()
    assert (seen[:, ~was_n] < N).all()
    same = np.concatenate([seen[:, ~was_n] == one[0, ~was_n]])
    backgrounds = seen[1:4]  # asked first, after the sequence itself
    counts = [np.bincount(s, minlength=5).tolist() for s in backgrounds]
    assert counts == [np.bincount(one[0], minlength=5).tolist()] * 3
    assert same.mean() < 0.9


def test_faithfulness__ties_are_broken_at_random_and_the_centre_goes_first(additive, codes):
    zeros = 0 * gradient(additive, codes)
    result = faithfulness(additive, codes, {"zeros": zeros}, n_fills=2, n_bootstrap=3)
    by = {name: rows["score"].to_numpy() for name, rows in result.curves.groupby("method")}
    np.testing.assert_allclose(by["zeros"], by["random"])  # nothing but ties
    _, seen = asked_by(additive, codes[:1], attributions={}, fractions=[5 / L], fill="N", controls=["center"])
    *_, inserted, deleted = seen
    middle = np.arange(L // 2 - 2, L // 2 + 3)
    assert np.flatnonzero(inserted < N).tolist() == middle.tolist()
    assert np.flatnonzero(deleted == N).tolist() == middle.tolist()


def test_faithfulness__a_sequence_that_does_nothing_carries_no_weight(additive, codes):
    truth = gradient(additive, codes)
    alone = faithfulness(additive, codes, {"truth": truth}, fill="N", n_bootstrap=3)
    silent = np.full((1, L), N, np.uint8)
    more = xr.concat([truth, (0 * truth).isel(region=[0]).assign_coords(region=[B])], dim="region")
    more.attrs = truth.attrs
    with_silent = faithfulness(additive, np.concatenate([codes, silent]), {"truth": more}, fill="N", n_bootstrap=3)
    one, other = (r.curves.query("method == 'truth'")["score"].to_numpy() for r in (alone, with_silent))
    np.testing.assert_allclose(one, other, atol=1e-6)
    only = faithfulness(additive, silent, {"truth": more.isel(region=[B])}, fill="N", n_bootstrap=3)
    assert only.curves["score"].isna().all()
    assert only.areas["gap"].isna().all()


def test_faithfulness__asks_with_the_signals_of_each_sequence(additive, codes):
    class Gated(Additive):
        def forward(self, X, S):
            return super().forward(X) * S[:, 0]

    truth = gradient(additive, codes)
    S = torch.zeros(B, 1, 1)
    S[3] = 2.0  # nothing else counts
    gated = faithfulness(Oracle(Gated(), device="cpu"), codes, {"truth": truth}, S, fill="N", n_bootstrap=3)
    alone = faithfulness(additive, codes[3:4], {"truth": truth.isel(region=[3])}, fill="N", n_bootstrap=3)
    one, other = (r.curves.query("method == 'truth'")["score"].to_numpy() for r in (gated, alone))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_faithfulness__depends_on_the_seed_alone(network, codes):
    truth = {"gradient": gradient(network, codes)}
    run = partial(faithfulness, network, codes, truth, n_fills=2, n_bootstrap=11)
    first, again, other = (run(seed=1), run(seed=1, batch_size=3), run(seed=2))
    np.testing.assert_allclose(first.curves["score"], again.curves["score"], atol=1e-4)
    assert not np.allclose(first.curves["score"], other.curves["score"], atol=1e-2)


# --- side by side


def test_compare_methods__ranks_and_correlates_with_the_reference(additive, codes):
    truth = gradient(additive, codes)
    maps = {"noise": noise(truth, 1), "ism": truth, "spoiled": truth + 3 * truth.values.std() * noise(truth, 2)}
    table = compare_methods(additive, codes, maps, n_fills=5, n_bootstrap=53, seconds={"ism": 7.0},
                            controls=["center"])
    assert list(table.columns) == ["method", "track", "insertion", "deletion", "gap", "gap_low", "gap_high",
                                   "agreement", "agreement_low", "agreement_high", "seconds"]
    assert table["track"].tolist() == sorted([0, 1, 2] * 5)
    for t, rows in table.groupby("track"):
        assert rows["method"].tolist()[:2] == ["ism", "spoiled"]
        assert rows["gap"].is_monotonic_decreasing
        assert figure(rows, "agreement", method="ism") == 1
        expected = consistency({"a": truth, "b": maps["spoiled"]}, codes, n_bootstrap=53)
        assert figure(rows, "agreement", method="spoiled") == figure(expected, track=t, metric="pearson")
        assert figure(rows, "seconds", method="ism") == 7
    assert table[table["method"].isin(["random", "center"])]["agreement"].isna().all()
    assert table[table["method"] != "ism"]["seconds"].isna().all()
    without = compare_methods(additive, codes, {"truth": truth}, n_fills=2, n_bootstrap=3)
    assert without["agreement"].isna().all()


# --- bad input


def test_robustness__refuses_maps_that_do_not_fit(additive, codes):
    truth = gradient(additive, codes)
    with pytest.raises(SchemaError, match="needs two attributions or more; got 1"):
        consistency([truth], codes)
    with pytest.raises(SchemaError, match=r"\(7, 4, 53\) and one-hot sequences \(6, 4, 53\) differ"):
        consistency([truth, truth], codes[:-1])
    renamed = truth.assign_coords(region=list("abcdefg"))
    with pytest.raises(SchemaError, match=r"'1' and '0' differ in their regions: a, b, c … \(7\) and 0, 1, 2 … \(7\)"):
        consistency([truth, renamed], codes)
    with pytest.raises(SchemaError, match="differ in their tracks"):
        label_check(truth, [truth.isel(track=[0, 2])], codes)
    with pytest.raises(SchemaError, match="oracle reads 3 targets and the attributions hold 1 tracks"):
        faithfulness(additive, codes, {"a": truth.isel(track=[1])})
    picked = Oracle(additive.model, Scalar(track=1), device="cpu")
    assert len(faithfulness(picked, codes, {"a": truth.isel(track=[1])}, n_fills=1, n_bootstrap=3).areas) == 2 * 3
    broken = truth.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(SchemaError, match="1 of 4,452 attributions are NaN"):
        faithfulness(additive, codes, {"a": broken})


def test_robustness__refuses_options_without_a_meaning(additive, codes):
    truth = gradient(additive, codes)
    with pytest.raises(SchemaError, match=r"top are fractions, 0 to 1; got \[5\]"):
        consistency([truth, truth], codes, top=[5])
    with pytest.raises(SchemaError, match=r"fractions are fractions, 0 to 1; got \[-0.1\]"):
        faithfulness(additive, codes, {"a": truth}, fractions=[-0.1])
    with pytest.raises(SchemaError, match="n_fills at least 1; got 'shuffle' and 0"):
        faithfulness(additive, codes, {"a": truth}, n_fills=0)
    with pytest.raises(UnknownNameError, match="no control order 'centre'; did you mean 'center'"):
        faithfulness(additive, codes, {"a": truth}, controls=["centre"])
    with pytest.raises(SchemaError, match="'random' is the name of a control"):
        faithfulness(additive, codes, {"random": truth})
    with pytest.raises(SchemaError, match=r"X is empty, \(0, 53\)"):
        faithfulness(additive, codes[:0], {"a": truth})
    with pytest.raises(SchemaError, match="max_stages is at least 1; got 0"):
        randomization_check(additive, codes, gradient, max_stages=0)


def test_cards__name_their_publications():
    assert all(card.name == name for name, card in CARDS.items())
    assert "1810.03292" in CARDS["weight_randomization"].paper
    assert "1806.07421" in CARDS["insertion_deletion"].paper
