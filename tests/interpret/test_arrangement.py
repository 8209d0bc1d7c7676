"""What sequences show of the rules that were planted in them."""

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import SchemaError, UnknownNameError
from ciscribe.interpret.arrangement import (
    ORIENTATIONS,
    check_instances,
    find_pairs,
    number_response,
    number_shape,
    observed_spacing,
    pair_effect,
    position_effect,
    q_values,
)
from ciscribe.interpret.periodicity import peak

LENGTH = 101


def table(rows):
    return pd.DataFrame(rows, columns=["region", "start", "end", "strand", "motif"])


def scattered(n=307, rates=(("a", 1.2), ("b", 1.2)), seed=0, width=7):
    rng = np.random.default_rng(seed)
    rows = [(region, start, start + width, rng.choice(["+", "-"]), motif)
            for region in range(n) for motif, rate in rates
            for start in rng.integers(0, LENGTH - width, rng.poisson(rate))]
    return table(rows)


@pytest.mark.parametrize("stranded", [True, False])
@pytest.mark.parametrize(("motif_a", "motif_b"), [("a", "b"), ("b", "a"), ("a", "a")])
def test_find_pairs__is_the_double_loop(motif_a, motif_b, stranded):
    hits = scattered(31).sample(frac=1, random_state=1)
    hits.index = np.arange(len(hits))[::-1]  # the index must not matter
    rows = list(hits.itertuples(index=False))
    expected = set()
    for i, x in enumerate(rows):
        for j, y in enumerate(rows):
            if x.motif != motif_a or y.motif != motif_b or x.region != y.region:
                continue
            gap = max(x.start, y.start) - min(x.end, y.end)
            if gap < 0 or (motif_a == motif_b and y.start < x.start):
                continue
            order, orientation = x.start < y.start, x.strand + y.strand
            if not stranded and motif_a == motif_b and orientation == "--":
                orientation = "++"
            if not stranded and motif_a != motif_b and x.strand == "-":
                order, orientation = not order, "+" + ("-" if y.strand == "+" else "+")
            expected.add((i, j, order, orientation, gap))
    pairs = find_pairs(hits, motif_a, motif_b, stranded=stranded)
    got = [(*row[:3], ORIENTATIONS[row[3]], row[4]) for row in zip(*(v.tolist() for v in pairs), strict=True)]
    assert set(got) == expected
    assert len(got) == len(expected) > 20


def test_number_response__counts_sequences():
    hits = table([(0, 1, 5, "+", "a"), (0, 7, 11, "+", "a"), (1, 1, 5, "-", "a"), (4, 1, 5, "+", "b")])
    y = np.array([5.0, 3, 1, 2, 3])
    got = number_response(hits, y, motifs=["a"]).set_index("count")
    assert got["mean"].to_dict() == {0: 2, 1: 3, 2: 5}
    assert got["n"].to_dict() == {0: 3, 1: 1, 2: 1}
    assert got.loc[0, "low"] < 2 < got.loc[0, "high"]
    clipped = number_response(hits, y, motifs=["a"], max_count=1).set_index("count")
    assert clipped["mean"].to_dict() == {0: 2, 1: 4}


def test_number_shape__names_the_law():
    hits = scattered(503, [("line", 2), ("cap", 2), ("square", 1.5), ("rep", 1.5), ("none", 1)])
    n = {m: np.bincount(hits.loc[hits["motif"] == m, "region"], minlength=503) for m in hits["motif"].unique()}
    y = n["line"] + 4 * np.minimum(n["cap"], 1) + n["square"] ** 2 - n["rep"]
    y = y + 0.3 * np.random.default_rng(1).normal(size=503)
    got = number_shape(hits, y, max_count=20).set_index("motif")
    shapes = {"line": "additive", "cap": "saturating", "square": "synergistic", "rep": "additive", "none": "none"}
    assert got["shape"].to_dict() == shapes
    assert got.loc["rep", "slope"] == pytest.approx(-1, abs=0.4)
    assert (got["q_slope"] >= got["p_slope"]).all()


def test_position_effect__is_where_it_was_planted():
    hits = scattered(701, [("a", 0.7), ("b", 1)])
    middle = (hits["start"] + hits["end"]) / 2 - 50
    strong = (hits["motif"] == "a") & middle.between(-20, -0.1) & (hits["strand"] == "+")
    y = 3.0 * np.bincount(hits.loc[strong, "region"], minlength=701) + np.random.default_rng(2).normal(size=701)
    got = position_effect(hits, y, [-50, -20, 0, 51], anchor=50, by_strand=True).set_index(["motif", "strand", "left"])
    assert got["mean"].idxmax() == ("a", "+", -20)
    assert got["mean"].max() == pytest.approx(3, abs=0.6)
    best = got.loc[("a", "+", -20)]
    assert best["low"] < best["mean"] < best["high"]
    assert best["q_value"] < 1e-6
    assert got.loc["b", "q_value"].min() > 0.05
    assert got["position"].unique().tolist() == [-35, -10, 25.5]
    whole = position_effect(hits, y, [-50, 51], anchor=50)
    assert whole["strand"].tolist() == [".", "."]


def test_pair_effect__order_and_orientation():
    hits = scattered(907, [("a", 1), ("b", 1)])
    pairs = find_pairs(hits, "a", "b")
    planted = pairs.is_ab & (pairs.orientation == ORIENTATIONS.index("+-"))
    region = hits["region"].to_numpy()
    y = np.random.default_rng(3).normal(size=907)
    y[np.unique(region[pairs.a[planted]])] += 2
    got = pair_effect(hits, "a", "b", y).set_index(["order", "orientation"])
    assert len(got) == 8
    assert got["mean"].idxmax() == ("ab", "+-")
    assert got["mean"].max() == pytest.approx(2, abs=0.5)
    assert got["pairs"].sum() == len(pairs.gap)
    assert got["expected"].sum() == pytest.approx(got["pairs"].sum())
    assert (got["q_pairs"] > 0.05).all()  # strands were drawn at random
    one_way = hits.assign(strand=np.where(hits["motif"] == "a", "+", "-"))
    assert pair_effect(one_way, "a", "b", y).set_index(["order", "orientation"]).loc[("ab", "+-"), "pairs"] > 100


def promoters(n=211, seed=0):
    """An a near 20, and a b 17 bp after it in most; both have a preferred place in any case."""
    rng = np.random.default_rng(seed)
    rows = []
    for region in range(n):
        start = int(np.clip(rng.normal(20, 4), 0, 40))
        gap = int(rng.choice([16, 17, 17, 17, 18])) if region % 4 else int(np.clip(rng.normal(17, 4), 0, 35))
        rows += [(region, start, start + 6, "+", "a"), (region, start + 6 + gap, start + 12 + gap, "+", "b")]
    return table(rows)


@pytest.mark.parametrize("null", ["positions", "regions"])
def test_observed_spacing__peaks_where_it_was_planted(null):
    hits = pd.concat([promoters(), scattered(211)], ignore_index=True)
    curve = observed_spacing(hits, "a", "b", max_gap=40, length=LENGTH, null=null, seed=1)
    top = peak(curve).query("order == 'ab' and orientation == '++'")
    assert top["gap"].item() == 17
    assert top["q_value"].item() < 1e-6
    assert top["count"].item() > top["high"].item() > top["expected"].item() > top["low"].item()
    others = curve.query("not (order == 'ab' and orientation == '++')")
    assert (others["q_value"] < 0.05).sum() <= 1
    if null == "positions":
        assert others["count"].sum() == pytest.approx(others["expected"].sum(), rel=0.15)


def test_observed_spacing__chance_is_chance():
    for motif_b, stranded in (("b", True), ("b", False), ("a", False)):
        curve = observed_spacing(scattered(), "a", motif_b, max_gap=50, length=LENGTH, stranded=stranded, seed=2)
        assert (curve["q_value"] > 0.05).all()
        assert (curve["p_value"] < 0.1).mean() < 0.2
        inside = curve["count"].between(curve["low"], curve["high"]).mean()
        assert inside > 0.9
        assert curve["expected"].sum() == pytest.approx(curve["count"].sum(), rel=0.15)


def test_q_values__are_benjamini_hochberg():
    np.testing.assert_allclose(q_values(np.array([0.01, np.nan, 0.04, 0.03])), [0.03, np.nan, 0.04, 0.04])


def test_check_instances__refuses():
    good = table([(0, 1, 5, "+", "a"), (2, 1, 5, "-", "b")])
    check_instances(good, 3)
    with pytest.raises(SchemaError, match="missing: motif"):
        check_instances(good.drop(columns="motif"))
    with pytest.raises(SchemaError, match=r"1 of 2 hits lie in no sequence \(there are 2\); first: b in region 2"):
        check_instances(good, 2)
    with pytest.raises(SchemaError, match="0 ≤ start < end; first: a in region 0, 1 to 1"):
        check_instances(good.assign(end=[1, 5]))
    with pytest.raises(SchemaError, match="strand other than"):
        check_instances(good.assign(strand="."))
    with pytest.raises(SchemaError, match="whole numbers; got int64, float64"):
        check_instances(good.assign(start=[1.0, 2.0]))


def test_arrangement__refuses():
    hits, y = scattered(), np.zeros(307)
    with pytest.raises(UnknownNameError, match="no hit is of the motif 'c'; options: a, b"):
        observed_spacing(hits, "a", "c")
    with pytest.raises(SchemaError, match="1 of 307 activities are NaN"):
        number_response(hits, np.where(np.arange(307) == 3, np.nan, y))
    with pytest.raises(SchemaError, match="growing positions"):
        position_effect(hits, y, [10, 0])
    with pytest.raises(SchemaError, match="null is positions or regions; got 'genes'"):
        observed_spacing(hits, "a", "b", null="genes")
    with pytest.raises(SchemaError, match="end beyond the length of 50 bp"):
        observed_spacing(hits, "a", "b", length=50)
