"""Protocols on tables whose answer is known, and on the real assays."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from ciscribe.errors import SchemaError, UnknownNameError
from ciscribe.io.variant_assays import read_saturation_mutagenesis
from ciscribe.variants.benchmark import replicate_ceilings, saturation_benchmark, sign_benchmark

N = 211


def measured(seed=0):
    """Three experiments on two loci; the second of locus A is the first with noise, B has few significant changes."""
    rng = np.random.default_rng(seed)
    parts = []
    truth = rng.normal(0, 1, N)
    for name, coefficient, p in (("A.1", truth, 1e-7), ("A-2", truth + rng.normal(0, 0.2, N), 1e-7),
                                 ("B", rng.normal(0, 1, N), 0.5)):
        parts.append(pd.DataFrame({
            "experiment": name, "genome_chrom": "chr1" if name[0] == "A" else "chr2", "genome_pos": np.arange(N),
            "ref": "A", "alt": "C", "barcodes": 10, "coefficient": coefficient,
            "p_value": np.where(np.arange(N) < (131 if p < 1e-5 else 7), 1e-7, 0.5)}))
    return pd.concat(parts, ignore_index=True)


def test_saturation_benchmark__counts_loci_once():
    table = measured()
    rng = np.random.default_rng(1)
    scores = {"perfect": table["coefficient"].to_numpy(), "wrong": -table["coefficient"].to_numpy(),
              "noisy": table["coefficient"].to_numpy() + rng.normal(0, 1, len(table))}
    found = saturation_benchmark(table, scores, n_bootstrap=101)
    summary = found.summary.set_index("method")
    assert summary.loc["perfect", "spearman"] == pytest.approx(1)
    assert summary.loc["wrong", "spearman_loci"] == pytest.approx(-1)
    each = found.experiments.set_index(["method", "experiment"])
    noisy = each.loc["noisy"]
    for experiment, rows in table.groupby("experiment"):
        assert noisy.loc[experiment, "spearman"] == pytest.approx(
            spearmanr(scores["noisy"][rows.index], rows["coefficient"])[0])
        assert noisy.loc[experiment, "pearson"] == pytest.approx(
            pearsonr(scores["noisy"][rows.index], rows["coefficient"])[0])
    a, b = noisy.loc[["A.1", "A-2"], "spearman"].mean(), noisy.loc["B", "spearman"]
    assert summary.loc["noisy", "spearman_loci"] == pytest.approx((a + b) / 2)
    assert summary.loc["noisy", "spearman_strong"] == pytest.approx(a)
    assert (summary.loc["noisy", "low"], summary.loc["noisy", "high"]) == pytest.approx((min(a, b), max(a, b)))
    assert noisy["weak"].to_dict() == {"A.1": False, "A-2": False, "B": True}
    assert noisy["n_significant"].to_dict() == {"A.1": 131, "A-2": 131, "B": 7}
    assert noisy.loc["A.1", "prevalence"] == pytest.approx(131 / N)


def test_saturation_benchmark__leaves_out_what_was_not_measured_well():
    table = measured()
    score = table["coefficient"].to_numpy().copy()
    poor, deletion, unscored = 0, 1, 2
    table.loc[poor, "barcodes"], table.loc[deletion, "ref"] = 9, "AC"
    table.loc[[poor, deletion], "coefficient"] = 99.0
    score[unscored] = np.nan
    found = saturation_benchmark(table, {"one": score, "other": table["coefficient"].to_numpy()}, n_bootstrap=3)
    assert (found.experiments.query("experiment == 'A.1'")["n"] == N - 3).all()
    assert found.summary["spearman"].tolist() == pytest.approx([1, 1])


def test_saturation_benchmark__ranks_significant_changes_by_size():
    table = measured()
    big = (table["p_value"] < 1e-5).to_numpy()
    signs = np.where(np.arange(len(table)) % 2, 1.0, -1.0)
    found = saturation_benchmark(table, {"size": np.where(big, 3, 0.1) * signs}, n_bootstrap=3)
    assert found.experiments["auprc"].tolist() == pytest.approx([1, 1, 1])


def test_replicate_ceilings__compares_experiments_of_a_locus():
    table = measured()
    found = replicate_ceilings(table)
    assert found[["locus", "first", "second", "n"]].to_numpy().tolist() == [["A", "A.1", "A-2", N]]
    x, y = (table.loc[table["experiment"] == e, "coefficient"] for e in ("A.1", "A-2"))
    assert found.loc[0, "pearson"] == pytest.approx(pearsonr(x, y)[0])
    assert found.loc[0, "spearman"] == pytest.approx(spearmanr(x, y)[0])


@pytest.mark.parametrize(("message", "table", "scores"), [
    ("missing: p_value", measured().drop(columns="p_value"), {"m": np.zeros(3 * N)}),
    ("'m' needs a score of each of 633 variants; got shape", measured(), {"m": np.zeros(3)}),
    ("1 of 633 measured variants have no coefficient", measured().assign(
        coefficient=[np.nan, *np.zeros(3 * N - 1)]), {"m": np.zeros(3 * N)}),
    ("none of 633 variants is a scored", measured().assign(barcodes=1), {"m": np.zeros(3 * N)}),
])
def test_saturation_benchmark__of_bad_input(message, table, scores):
    with pytest.raises(SchemaError, match=message):
        saturation_benchmark(table, scores)


def test_sign_benchmark__compares_in_pairs():
    rng = np.random.default_rng(0)
    raised = rng.random(401) < 0.5
    signal = np.where(raised, 1.0, -1.0)
    scores = {"weak": signal + rng.normal(0, 3, 401), "strong": signal + rng.normal(0, 1, 401), "sure": signal,
              "silent": np.zeros(401)}
    found = sign_benchmark(raised, scores, n_bootstrap=211).set_index("method")
    assert found.loc["sure", ["auroc", "low", "high", "accuracy"]].tolist() == [1, 1, 1, 1]
    assert found.loc["silent", ["auroc", "accuracy"]].tolist() == [0.5, 0.5]
    assert found.loc["weak", ["difference", "difference_low", "difference_high"]].tolist() == [0, 0, 0]
    assert found.loc["strong", "difference_low"] > 0
    wide = sum(found.loc[m, "high"] - found.loc[m, "low"] for m in ("strong", "weak"))
    assert found.loc["strong", "difference_high"] - found.loc["strong", "difference_low"] < wide
    turned = sign_benchmark(~raised, {"weak": -scores["weak"]}, n_bootstrap=2)
    assert turned.loc[0, "auroc"] == pytest.approx(found.loc["weak", "auroc"])


def test_sign_benchmark__resamples_groups():
    rng = np.random.default_rng(0)
    raised = np.repeat(rng.random(53) < 0.5, 17)
    score = np.repeat(np.where(raised[::17], 1, -1) + rng.normal(0, 2, 53), 17)
    alone = sign_benchmark(raised, {"m": score}, n_bootstrap=211).iloc[0]
    together = sign_benchmark(raised, {"m": score}, groups=np.repeat(np.arange(53), 17), n_bootstrap=211).iloc[0]
    assert alone["auroc"] == together["auroc"]
    assert together["high"] - together["low"] > 2.5 * (alone["high"] - alone["low"])


@pytest.mark.parametrize(("error", "message", "options"), [
    (SchemaError, "variants of both kinds", {"raised": np.ones(3, bool)}),
    (SchemaError, "at least one method", {"scores": {}}),
    (SchemaError, "3 finite scores; got shape", {"scores": {"m": np.zeros(2)}}),
    (SchemaError, "1 of them not finite", {"scores": {"m": np.array([0, np.nan, 1])}}),
    (SchemaError, "as many groups", {"groups": np.zeros(2, int)}),
    (UnknownNameError, "against 'n', which is none", {"against": "n"}),
])
def test_sign_benchmark__of_bad_input(error, message, options):
    options = {"raised": np.array([True, False, True]), "scores": {"m": np.zeros(3)}} | options
    with pytest.raises(error, match=message):
        sign_benchmark(**options)


@pytest.mark.realdata
def test_replicate_ceilings__are_the_published_ones(data_dir):
    assay = read_saturation_mutagenesis(data_dir / "variants/satmut/elements.GRCh38.tsv.gz")
    found = replicate_ceilings(assay.variants).set_index(["first", "second"])
    for pair, r, rho in ((("SORT1.2", "SORT1"), 0.962, 0.868), (("LDLR.2", "LDLR"), 0.973, 0.865),
                         (("PKLR-24h", "PKLR-48h"), 0.882, 0.765), (("TERT-GBM", "TERT-HEK"), 0.759, 0.592)):
        assert found.loc[pair, "pearson"] == pytest.approx(r, abs=0.01)
        assert found.loc[pair, "spearman"] == pytest.approx(rho, abs=0.01)
