import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ciscribe.errors import CheckpointError, SchemaError, UnknownNameError
from ciscribe.io.crispri import read_crispri
from ciscribe.io.genes import read_genes
from ciscribe.links import combine
from ciscribe.links.benchmark import pr_metrics
from ciscribe.links.combine import (
    FEATURES,
    Combiner,
    cross_predict,
    fit_combiner,
    link_features,
    predict_combiner,
    reliability,
)
from ciscribe.links.contact import power_law
from ciscribe.links.crispri import Protocol, select_pairs

NAMES = ("distance", "activity", "ctcf")


def planted(n=1_201, seed=0, n_chroms=7):
    """Pairs whose log-odds are known: nearer and more active is better, CTCF says nothing."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"chrom": [f"chr{i}" for i in rng.integers(1, n_chroms + 1, n)],
                          "distance": np.exp(rng.normal(11, 1, n)), "activity": np.exp(rng.normal(1, 1, n)),
                          "ctcf": np.exp(rng.normal(0, 1, n))})
    odds = -1.5 - 1.3 * (np.log(table["distance"]) - 11) + 0.9 * (np.log(table["activity"]) - 1)
    return table.assign(label=rng.random(n) < 1 / (1 + np.exp(-odds)), odds=odds)


@pytest.fixture
def few_rounds(monkeypatch):
    monkeypatch.setattr(combine, "_ROUNDS", 67)


# --- features ----------------------------------------------------------------------------------------------------

def locus(n=61, seed=0):
    rng = np.random.default_rng(seed)
    genes = pd.DataFrame({"chrom": rng.choice(["chr1", "chr2"], 19), "tss": rng.permutation(19) * 50_021 + 7_000})
    genes = genes.assign(gene_id=[f"g{i}" for i in range(19)], expressed=rng.random(19) < 0.6)
    gene = rng.integers(0, 19, n)
    start = rng.permutation(n) * 15_013 + 100
    pairs = pd.DataFrame({"chrom": genes["chrom"].to_numpy()[gene], "start": start,
                          "end": start + 2 * rng.integers(50, 500, n),
                          "gene_id": genes["gene_id"].to_numpy()[gene], "cell": "c"})
    middle = (pairs["start"] + pairs["end"]) // 2
    return pairs.assign(distance=np.abs(middle - genes["tss"].to_numpy()[gene]).astype(float), score=0.0,
                        accessibility=rng.random(n) * 9, activity=rng.random(n) * 7, ctcf=rng.random(n),
                        ubiquitous=pd.array(rng.random(n) < 0.5, dtype="boolean")), genes


def contact(distance):
    return 1 / (np.maximum(distance, 5_000) + 1)


def slow_features(pair, pairs, genes):
    """Everything that looks around, one element and one gene after another."""
    m = (pair.start + pair.end) // 2
    elements = [((e.start + e.end) // 2, e.activity, e.ctcf) for e in pairs.itertuples() if e.chrom == pair.chrom]
    tss = int(genes.loc[genes["gene_id"] == pair.gene_id, "tss"].iloc[0])
    out = {}
    low, high = min(m, tss), max(m, tss)
    inner = [(a, c) for x, a, c in elements if low < x < high]
    out["n_elements_between"], out["activity_between"] = len(inner), sum(a for a, _ in inner)
    out["ctcf_between"] = sum(c for _, c in inner)
    out["activity_5kb"] = sum(a for x, a, _ in elements if abs(x - m) <= 5_000)
    out["activity_50kb"] = sum(a for x, a, _ in elements if abs(x - m) <= 50_000)
    strength = [a * contact(abs(x - tss)) for x, a, _ in elements if abs(x - tss) < 5_000_000]
    mine = pair.activity * contact(abs(m - tss))
    out["activity_total"], out["activity_share"] = sum(strength), mine / sum(strength)
    out["activity_rank"] = sum(s > mine * (1 + 1e-9) for s in strength)
    for word, kind in (("", genes), ("expressed_", genes[genes["expressed"]])):
        others = [int(t) for c, t in zip(kind["chrom"], kind["tss"], strict=True) if c == pair.chrom]
        out[f"n_{word}tss_between"] = sum(low < t < high for t in others)
        out[f"closer_{word}tss"] = sum(abs(t - m) < abs(tss - m) for t in others)
        out[f"nearest_{word}tss"] = min(abs(t - m) for t in others)
        out[f"{word}tss_100kb"] = sum(abs(t - tss) <= 100_000 for t in others)
    other_contact = sum(contact(abs(t - m)) for t in {*others, tss})
    out["contact_share"] = contact(abs(m - tss)) / other_contact
    return out


def test_link_features__equal_the_loop():
    pairs, genes = locus()
    before = pairs.copy(), genes.copy()
    found = link_features(pairs, genes, contact=contact)
    for i, pair in enumerate(pairs.itertuples()):
        wanted = slow_features(pair, pairs, genes)
        for name, value in wanted.items():
            assert found[name].iloc[i] == pytest.approx(value, rel=1e-9), (i, name)
    np.testing.assert_allclose(found["activity_contact"], pairs["activity"] * contact(pairs["distance"]))
    assert set(found.columns) == set(FEATURES) - {"h3k27ac", "h3k27me3", "h3k4me1"}
    assert [name for name in FEATURES if name in found] == list(found.columns)
    pd.testing.assert_frame_equal(pairs, before[0])
    pd.testing.assert_frame_equal(genes, before[1])


def test_link_features__see_no_result_and_keep_the_index():
    pairs, genes = locus()
    other = pairs.assign(label=True, effect=-0.5, significant=True, power_25=1.0, score=9.0).set_index(pairs.index + 7)
    found = link_features(other, genes, contact=contact)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), link_features(pairs, genes, contact=contact))
    assert found.index.equals(other.index)


def test_link_features__elements_of_its_own_and_no_expression():
    pairs, genes = locus()
    found = link_features(pairs[:5], genes.drop(columns="expressed"), contact=contact,
                          elements=pairs.drop(columns="ctcf"))
    whole = link_features(pairs, genes, contact=contact)
    assert not any("expressed" in name for name in found)
    assert "ctcf_between" not in found
    assert (found["activity_rank"] == whole["activity_rank"][:5]).all()
    assert (found["contact_share"] != whole["contact_share"][:5]).any()  # over all genes, not the expressed


def test_link_features__bad_input():
    pairs, genes = locus()
    with pytest.raises(SchemaError, match=r"3 of 61 pairs have a NaN or infinite value; first: activity of chr\d:"):
        link_features(pairs.assign(activity=pairs["activity"].where(pairs.index > 2)), genes, contact=contact)
    with pytest.raises(SchemaError, match="pairs need a column accessibility"):
        link_features(pairs.drop(columns="accessibility"), genes, contact=contact)
    with pytest.raises(SchemaError, match=r"1 of 20 genes repeat a gene_id; first: g0"):
        link_features(pairs, pd.concat([genes, genes[:1]]), contact=contact)
    gone = pairs["gene_id"].iloc[0]
    with pytest.raises(SchemaError, match=f"name a gene that the gene table lacks; first: {gone}"):
        link_features(pairs, genes[genes["gene_id"] != gone], contact=contact)


# --- the combiner ------------------------------------------------------------------------------------------------

def test_logistic__is_the_regression_on_logs_that_it_says():
    pairs = planted()
    fitted = fit_combiner(pairs, NAMES, penalties=(0.7,), calibrator="none")
    Z = np.log(np.abs(pairs[list(NAMES)].to_numpy()) + 0.01)
    Z = (Z - Z.mean(axis=0)) / Z.std(axis=0)
    wanted = LogisticRegression(C=0.7).fit(Z, pairs["label"]).predict_proba(Z)[:, 1]
    np.testing.assert_allclose(predict_combiner(fitted, pairs), wanted, atol=1e-4)
    assert fitted.penalty == 0.7


def test_logistic__recovers_the_planted_law():
    pairs = planted(20_011)
    fitted = fit_combiner(pairs, NAMES)
    weights = fitted.table().set_index("feature")["weight"]  # a standard deviation of each log is 1
    np.testing.assert_allclose(weights, [-1.3, 0.9, 0], atol=0.1)
    assert fitted.trained_on == tuple(f"chr{i}" for i in range(1, 8))
    new = planted(5_003, seed=5)
    np.testing.assert_allclose(predict_combiner(fitted, new), 1 / (1 + np.exp(-new["odds"])), atol=0.06)


@pytest.mark.parametrize("model", ["logistic", "boosting", "both"])
def test_combiner__finds_links_on_chromosomes_it_never_saw(model, few_rounds):
    pairs = planted()
    before = pairs.copy()
    probability, combiners = cross_predict(pairs, NAMES, model=model, n_boosters=2)
    best = roc_auc_score(pairs["label"], pairs["odds"])
    assert roc_auc_score(pairs["label"], probability) > best - 0.04
    for chrom, combiner in combiners.items():
        assert chrom not in combiner.trained_on
        mine = (pairs["chrom"] == chrom).to_numpy()
        np.testing.assert_array_equal(probability[mine], predict_combiner(combiner, pairs[mine]))
    assert len(combiners) == 7
    assert reliability(pairs["label"].to_numpy(), probability)[1]["ece"] < 0.06
    pd.testing.assert_frame_equal(pairs, before)


def test_cross_predict__never_looks_at_the_labels_of_the_chromosome(few_rounds):
    pairs = planted(401, n_chroms=5)
    out = pairs["chrom"] == "chr2"
    turned = pairs.assign(label=pairs["label"] ^ out)
    a, b = (cross_predict(table, NAMES, model="both", n_boosters=1)[0] for table in (pairs, turned))
    np.testing.assert_array_equal(a[out], b[out])
    assert (a[~out] != b[~out]).any()


@pytest.mark.parametrize(("model", "calibrator"), [("logistic", "platt"), ("both", "isotonic"), ("boosting", "none")])
def test_combiner__text_round_trip_is_exact(model, calibrator, few_rounds):
    pairs = planted(503)
    fitted = fit_combiner(pairs, NAMES, model=model, calibrator=calibrator, n_boosters=2)
    text = fitted.to_json()
    read = Combiner.from_json(text)
    assert read == fitted
    np.testing.assert_array_equal(predict_combiner(read, pairs), predict_combiner(fitted, pairs))
    assert json.loads(text)["features"] == list(NAMES)


def test_combiner__same_seed_same_boosters(few_rounds):
    pairs = planted(307)
    a, b, c = (fit_combiner(pairs, NAMES, model="boosting", seed=seed, n_boosters=1, calibrator="none")
               for seed in (3, 3, 4))
    assert a == b
    assert a.boosters != c.boosters


def test_boosting__keeps_to_the_direction(few_rounds):
    pairs = planted(701)
    fitted = fit_combiner(pairs, ("distance", "ctcf"), model="boosting", n_boosters=2)
    grid = pd.DataFrame({"distance": np.exp(np.linspace(8, 14, 53)), "ctcf": 1.0})
    assert (np.diff(predict_combiner(fitted, grid)) <= 0).all()


def test_platt__keeps_the_order_and_repairs_the_scale():
    pairs = planted(4_001)
    raw, calibrated, steps = (fit_combiner(pairs, NAMES, penalties=(1e-4,), calibrator=c)
                              for c in ("none", "platt", "isotonic"))
    p, q, r = (predict_combiner(c, pairs) for c in (raw, calibrated, steps))
    np.testing.assert_array_equal(np.argsort(p, kind="stable"), np.argsort(q, kind="stable"))
    label = pairs["label"].to_numpy()
    worst = reliability(label, p)[1]["ece"]  # so strong a penalty shrinks every probability to the base rate
    assert reliability(label, q)[1]["ece"] < worst / 2
    assert reliability(label, r)[1]["ece"] < worst / 2
    assert len(np.unique(r)) < len(np.unique(q)) / 10


def test_fit__bad_input():
    pairs = planted(211, n_chroms=3)
    with pytest.raises(SchemaError, match="pairs need a column distnace; did you mean 'distance'"):
        fit_combiner(pairs, ("distnace",))
    with pytest.raises(SchemaError, match=r"5 of 211 pairs have a NaN or infinite value; first: activity of"):
        fit_combiner(pairs.assign(activity=pairs["activity"].where(pairs.index > 4), start=1, end=2), NAMES)
    with pytest.raises(SchemaError, match=r"among the training pairs there are 0 positives of 211"):
        fit_combiner(pairs.assign(label=False), NAMES)
    with pytest.raises(SchemaError, match="two groups"):
        fit_combiner(pairs.assign(chrom="chr1"), NAMES)
    with pytest.raises(SchemaError, match="labels are 0 or 1; 211 of 211"):
        fit_combiner(pairs.assign(label=2), NAMES)
    with pytest.raises(SchemaError, match="each once"):
        fit_combiner(pairs, ("distance", "distance"))
    one = pairs.assign(label=pairs["label"] & (pairs["chrom"] == "chr1"))
    with pytest.raises(SchemaError, match=r"when the groups chr1 are held out there are 0 positives"):
        fit_combiner(one, NAMES)
    with pytest.raises(SchemaError, match="when the group chr1 is held out there are 0 positives"):
        cross_predict(one, NAMES)


def test_unknown_model_and_calibrator():
    with pytest.raises(UnknownNameError, match="did you mean 'logistic'"):
        fit_combiner(planted(53), NAMES, model="logistics")
    with pytest.raises(UnknownNameError, match="did you mean 'platt'"):
        fit_combiner(planted(53), NAMES, calibrator="plat")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"card": "combiner", "format": 1}',
                                  '{"card": "combiner", "format": 9}'])
def test_from_json__damaged(text):
    with pytest.raises(CheckpointError):
        Combiner.from_json(text)


# --- calibration -------------------------------------------------------------------------------------------------

def test_reliability__by_hand():
    label = np.array([1, 0, 1, 1])
    table, figures = reliability(label, np.array([0.25, 0.25, 0.5, 1.0]), n_bins=2)
    assert table["n"].tolist() == [3, 1]
    np.testing.assert_allclose(table["predicted"], [1 / 3, 1])
    np.testing.assert_allclose(table["observed"], [2 / 3, 1])
    assert figures["ece"] == pytest.approx(0.25)
    assert figures["brier"] == pytest.approx((0.5625 + 0.0625 + 0.25) / 4)
    assert figures["brier_skill"] == pytest.approx(1 - figures["brier"] / (3 / 16))
    assert ((table["low"] <= table["observed"]) & (table["observed"] <= table["high"])).all()


def test_reliability__true_probabilities_are_calibrated_and_wrong_ones_are_not():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 3, 20_011)
    label = rng.random(len(p)) < p
    table, figures = reliability(label, p)
    assert figures["ece"] < 0.01
    assert ((table["low"] <= table["predicted"]) & (table["predicted"] <= table["high"])).mean() >= 0.7
    assert reliability(label, np.sqrt(p))[1]["ece"] > 0.1
    assert table["n"].sum() == len(p)


def test_reliability__bad_input():
    with pytest.raises(SchemaError, match=r"probabilities in 0\.\.1"):
        reliability(np.array([1, 0]), np.array([0.5, 1.5]))


# --- real data ---------------------------------------------------------------------------------------------------

@pytest.mark.realdata
@pytest.mark.slow
def test_combiner__training_table_of_k562(data_dir):
    names = ["chrom", "start", "end", "gene_id", "score", "strand", "ensembl_id", "biotype"]
    genes = read_genes(data_dir / "human_reference" / "CollapsedGeneBounds.hg38.TSS500bp.bed.gz", columns=names)
    genes = genes.assign(tss=(genes["start"] + genes["end"]) // 2)
    pairs, _ = select_pairs(
        read_crispri(data_dir / "crispri" / "EPCrisprBenchmark_combined_data.training_K562.GRCh38.tsv.gz"),
        Protocol(match_on="gene_name"), genes=genes)
    pairs = pairs.rename(columns={"dhs_rpm": "accessibility"} | {f"{mark}_rpm": mark for mark in (
        "h3k27ac", "ctcf", "h3k27me3", "h3k4me1")})
    pairs = pairs.assign(activity=np.sqrt(pairs["accessibility"] * pairs["h3k27ac_rpm_expanded"]))
    features = link_features(pairs, genes, contact=power_law, match_on="gene_name")
    table = pd.concat([pairs[["chrom", "label"]], features], axis=1)
    seven = ["distance", "n_tss_between", "accessibility", "activity", "ubiquitous", "accessibility_contact",
             "activity_contact"]
    label = table["label"].to_numpy()
    simple = pr_metrics(label, cross_predict(table, seven, penalties=(float("inf"),))[0])
    assert simple["auprc"] == pytest.approx(0.609, abs=0.003)
    probability, _ = cross_predict(table, list(features.columns))
    found = pr_metrics(label, probability)
    assert found["auprc"] > 0.66
    assert found["average_precision"] > 0.66
    assert reliability(label, probability)[1]["ece"] < 0.02
