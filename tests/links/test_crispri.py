import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import SchemaError, UnknownNameError
from ciscribe.io.crispri import read_crispri
from ciscribe.io.genes import read_genes
from ciscribe.io.text import read_table
from ciscribe.links.benchmark import benchmark_crispri, pr_metrics
from ciscribe.links.contact import power_law
from ciscribe.links.crispri import Predictor, Protocol, baselines, count_between, match_predictions, select_pairs


def screen(n=211, n_genes=13, seed=0, cells=("K562",)):
    """Tested pairs in which near elements are the enhancers."""
    rng = np.random.default_rng(seed)
    gene = rng.integers(0, n_genes, n)
    start = rng.permutation(n) * 5_003 + 101
    tss = 70_001 * gene + 17
    distance = np.abs(start + 250 - tss)
    label = rng.random(n) < 0.9 * np.exp(-distance / 150_000)
    return pd.DataFrame({"chrom": np.where(gene % 2, "chr1", "chr2"), "start": start, "end": start + 500,
                         "gene_id": [f"g{i}" for i in gene], "cell": rng.choice(cells, n), "distance": distance,
                         "score": 0.0, "effect": np.where(label, -0.4, 0.1), "significant": label,
                         "power_25": rng.random(n), "tss": tss})


def universe(pairs):
    genes = pairs.drop_duplicates("gene_id")[["chrom", "gene_id", "tss"]]
    return genes.assign(start=genes["tss"], end=genes["tss"] + 997).reset_index(drop=True)


# --- which pairs count -------------------------------------------------------------------------------------------

def test_select_pairs__every_filter_counts_what_it_leaves_out():
    pairs = screen().assign(connection="TRUE", regulated=pd.Series([True] * 211, dtype="boolean"))
    pairs.loc[:1, "connection"] = "PromoterElement"
    pairs.loc[2:4, "regulated"] = pd.NA
    genes = universe(pairs)
    genes = genes[genes["gene_id"] != "g3"]
    before = pairs.copy()
    out, counts = select_pairs(pairs, Protocol(min_power=0.8), genes=genes)
    left = pairs.iloc[5:]
    left = left[left["gene_id"] != "g3"]
    assert counts["not_valid"] == 2
    assert counts["no_call"] == 3
    assert counts["gene_unknown"] == len(pairs) - 5 - len(left)
    wanted = left[left["significant"] | (left["power_25"] >= 0.8)]
    assert counts["low_power"] == len(left) - len(wanted)
    assert out["start"].tolist() == wanted["start"].tolist()
    assert counts["pairs"] == len(wanted)
    assert counts["positives"] == wanted["significant"].sum()
    assert counts["tested"] == counts["pairs"] + sum(counts[k] for k in (
        "not_valid", "no_call", "gene_unknown", "low_power"))
    pd.testing.assert_frame_equal(pairs, before)


def test_select_pairs__positive_is_significant_and_decreased():
    pairs = screen().assign(regulated=True)
    pairs["effect"] = np.where(np.arange(len(pairs)) % 2, -0.2, 0.2)
    out, _ = select_pairs(pairs)
    np.testing.assert_array_equal(out["label"], out["significant"] & (out["effect"] < 0))
    plain = pairs.drop(columns=["effect", "significant", "regulated"]).assign(label=pairs["effect"] > 0)
    np.testing.assert_array_equal(select_pairs(plain)[0]["label"], plain["label"])


def test_select_pairs__fills_a_missing_distance_from_the_tss():
    pairs = screen()
    gone = pairs.assign(distance=np.where(np.arange(len(pairs)) < 7, np.nan, pairs["distance"]))
    out, _ = select_pairs(gone, genes=universe(pairs))
    np.testing.assert_array_equal(out["distance"], pairs["distance"])


def test_select_pairs__bad_input():
    pairs = screen()
    genes = universe(pairs)
    with pytest.raises(SchemaError, match=r"1 of 14 genes repeat a gene_id; first: g\d+.*matches twice"):
        select_pairs(pairs, genes=pd.concat([genes, genes[:1]]))
    with pytest.raises(SchemaError, match=r"no tested pair is left of 211: gene_unknown 211"):
        select_pairs(pairs, genes=genes.assign(gene_id="ENSG" + genes["gene_id"]))
    with pytest.raises(SchemaError, match="no pair is positive among the selected pairs"):
        select_pairs(pairs.assign(significant=False))
    with pytest.raises(SchemaError, match="power_10; the pairs have power_25"):
        select_pairs(pairs, Protocol(min_power=0.8, power_column="power_10"))
    with pytest.raises(SchemaError, match="column gene_name"):
        select_pairs(pairs, Protocol(match_on="gene_name"))
    with pytest.raises(SchemaError, match="significant and effect, or regulated, or label"):
        select_pairs(pairs.drop(columns=["significant"]))


# --- predictions on other intervals ------------------------------------------------------------------------------

def predicted(*rows):
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "gene_id", "cell", "value"])


def test_match_predictions__any_overlap_of_cell_and_gene_aggregated():
    pairs = pd.DataFrame({"chrom": "chr1", "start": [100, 100, 300, 900], "end": [200, 200, 400, 950],
                          "gene_id": ["a", "b", "a", "a"], "cell": "K562", "distance": 1, "label": True})
    table = predicted(("chr1", 50, 101, "a", "k", 2.0), ("chr1", 199, 301, "a", "k", 5.0),
                      ("chr1", 200, 300, "a", "k", 70.0),  # touches both, overlaps neither
                      ("chr2", 100, 200, "a", "k", 70.0), ("chr1", 100, 200, "c", "k", 90.0))
    predictors = {how: Predictor("value", how) for how in ("sum", "max", "mean", "min")}
    predictors["far"] = Predictor("value", "min", inverse=True)
    out = match_predictions(pairs, table, predictors, cells={"k": "K562"})
    assert out["sum"].tolist() == [7, 0, 5, 0]
    assert out["max"].tolist() == [5, 0, 5, 0]
    assert out["mean"].tolist() == [3.5, 0, 5, 0]
    assert out["min"].tolist() == [2, 0, 5, 0]
    assert out["far"].tolist() == [2, 90, 5, 90]
    assert out["n_predictions"].tolist() == [2, 0, 1, 0]


def test_match_predictions__equal_a_loop():
    rng = np.random.default_rng(3)
    pairs = screen(89, cells=("K562", "HCT116"))
    start = rng.integers(0, 500_000, 307)
    table = pd.DataFrame({"chrom": rng.choice(["chr1", "chr2"], 307), "start": start,
                          "end": start + rng.integers(1, 20_011, 307), "gene_id": rng.choice(pairs["gene_id"], 307),
                          "cell": rng.choice(["K562", "HCT116"], 307), "value": rng.random(307)})
    out = match_predictions(pairs, table, {"p": Predictor("value", "sum")})
    for (_, pair), value in zip(pairs.iterrows(), out["p"], strict=True):
        met = [p["value"] for _, p in table.iterrows() if p["chrom"] == pair["chrom"] and p["cell"] == pair["cell"]
               and p["gene_id"] == pair["gene_id"] and p["start"] < pair["end"] and pair["start"] < p["end"]]
        assert value == pytest.approx(sum(met))
    assert out["n_predictions"].sum() > 5


def test_match_predictions__bad_input():
    pairs = screen()
    ours = pairs.iloc[0]
    row = ("chr1", 0, 9, ours["gene_id"], "K562", 1.0)
    how = {"p": Predictor("value")}
    with pytest.raises(SchemaError, match=r"share no gene_id.*predictions ENSG1; are both symbols"):
        match_predictions(pairs, predicted((*row[:3], "ENSG1", *row[4:])), how)
    with pytest.raises(SchemaError, match=r"share no cell: pairs have K562, predictions k562; give cells"):
        match_predictions(pairs, predicted((*row[:4], "k562", 1.0)), how)
    with pytest.raises(SchemaError, match=r"share no chrom.*predictions 1; name chromosomes alike, or take pairs of"):
        match_predictions(pairs, predicted(("1", 0, 9, "ENSG1", "K562", 1.0)), how)  # that genes differ, too, follows
    with pytest.raises(SchemaError, match="1 of 1 predictions have a value that is NaN"):
        match_predictions(pairs, predicted((*row[:5], np.nan)), how)
    with pytest.raises(SchemaError, match="predictions need a column valu"):
        match_predictions(pairs, predicted(row), {"p": Predictor("valu")})
    with pytest.raises(SchemaError, match="have a column distance already"):
        match_predictions(pairs, predicted(row), {"distance": Predictor("value")})
    with pytest.raises(UnknownNameError, match="did you mean 'mean'"):
        Predictor("value", "meen")


# --- baselines ---------------------------------------------------------------------------------------------------

def test_baselines__by_hand():
    genes = pd.DataFrame({"chrom": "chr1", "start": [1_000, 5_000, 2_000], "end": [1_500, 9_000, 5_900],
                          "tss": [1_000, 5_000, 5_899], "gene_id": ["a", "b", "c"], "expressed": [True, False, True]})
    pairs = pd.DataFrame({"chrom": "chr1", "start": [2_900] * 3, "end": [3_100] * 3, "gene_id": ["a", "b", "c"],
                          "cell": "K562", "distance": [2_000.0, 2_000, 2_899], "dhs": [4.0, 4, 4], "k27": [9.0, 9, 9],
                          "label": True})
    out, predictors = baselines(pairs, genes, contact=lambda d: 1 / d, accessibility="dhs",
                                activity={"act": ("dhs", "k27")})
    assert out["nearest_tss"].tolist() == [1, 1, 0]  # a tie
    assert out["nearest_gene"].tolist() == [0, 0, 1]  # inside of c
    assert out["nearest_expressed_tss"].tolist() == [1, 0, 0]
    assert out["nearest_expressed_gene"].tolist() == [0, 0, 1]
    assert np.floor(out["n_tss_between"]).tolist() == [0, 0, 1]
    assert out["within_100kb"].tolist() == [1, 1, 1]
    assert out["act"].tolist() == [6, 6, 6]
    np.testing.assert_allclose(out["act_x_contact"], [6 / 2000, 6 / 2000, 6 / 2899])
    assert predictors["distance"].inverse
    assert not predictors["act_x_contact"].inverse
    assert set(predictors) <= set(out.columns)
    with pytest.raises(SchemaError, match="1 of 3 pairs name a gene that the gene table lacks; first: c"):
        baselines(pairs, genes[:2])


def test_count_between__equals_a_loop():
    rng = np.random.default_rng(0)
    positions, a, b = np.sort(rng.integers(0, 50, 17)), rng.integers(0, 50, 101), rng.integers(0, 50, 101)
    wanted = [sum(min(x, y) < p < max(x, y) for p in positions) for x, y in zip(a, b, strict=True)]
    np.testing.assert_array_equal(count_between(positions, a, b), wanted)


# --- real data ---------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def genes(data_dir):
    names = ["chrom", "start", "end", "gene_id", "score", "strand", "ensembl_id", "biotype"]
    table = read_genes(data_dir / "human_reference" / "CollapsedGeneBounds.hg38.TSS500bp.bed.gz", columns=names)
    return table.assign(tss=(table["start"] + table["end"]) // 2)


@pytest.mark.realdata
def test_protocol__example_of_the_community(data_dir, genes):
    protocol = Protocol(match_on="gene_name", n_bootstrap=3)
    folder = data_dir / "crispri"
    pairs, counts = select_pairs(read_crispri(folder / "EPCrisprBenchmark_Fulco2019_K562_GRCh38.tsv.gz"), protocol,
                                 genes=genes)
    assert (counts["tested"], counts["not_valid"], counts["pairs"], counts["positives"]) == (5091, 1239, 3852, 101)
    abc = read_table(folder / "ABC_K562_Fulco2019Genes_GRCh38.tsv.gz").rename(
        columns={"chr": "chrom", "TargetGene": "gene_name", "CellType": "cell"})
    abc = abc.astype({"start": int, "end": int, "powerlaw.Score": float})
    how = {"abc": Predictor("powerlaw.Score", "sum", threshold=0.02)}
    matched = match_predictions(pairs, abc, how, match_on="gene_name", cells={"K562_ID_2644": "K562"})
    row = benchmark_crispri(matched, how, protocol).table.iloc[0]
    golden = {"auprc": 0.585, "precision_at_recall": 0.486, "precision_at_threshold": 0.486,
              "recall_at_threshold": 0.693}
    assert {name: round(row[name], 3) for name in golden} == golden


@pytest.mark.realdata
def test_baselines__golden_numbers_of_the_training_table(data_dir, genes):
    pairs, counts = select_pairs(
        read_crispri(data_dir / "crispri" / "EPCrisprBenchmark_combined_data.training_K562.GRCh38.tsv.gz"),
        Protocol(match_on="gene_name"), genes=genes)
    assert counts["pairs"] == 10_356
    assert counts["positives"] == 471
    np.testing.assert_array_equal(pairs["label"], pairs["regulated"])
    out, how = baselines(pairs, genes, match_on="gene_name", contact=power_law, accessibility="dhs_rpm",
                         activity={"activity": ("dhs_rpm", "h3k27ac_rpm_expanded")})
    golden = {"distance": (0.436, 0.316), "n_tss_between": (0.481, 0.381), "contact": (0.320, 0.316),
              "dhs_rpm": (0.098, None), "activity": (0.110, None), "dhs_rpm_x_contact": (0.486, 0.359),
              "activity_x_contact": (0.516, 0.427)}
    for name, (area, at) in golden.items():
        score = -out[name] if how[name].inverse else out[name]
        found = pr_metrics(pairs["label"].to_numpy(), score.to_numpy(float))
        assert found["auprc"] == pytest.approx(area, abs=0.002), name
        assert at is None or found["precision_at_recall"] == pytest.approx(at, abs=0.002), name
    assert pr_metrics(pairs["label"].to_numpy(), -out["distance"].to_numpy())["average_precision"] == \
        pytest.approx(0.438, abs=0.001)
