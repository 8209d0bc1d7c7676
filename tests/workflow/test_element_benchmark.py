"""Elements of a run tested from folder to page, on a small world and on files as of a real genome."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from ciscribe import cli
from ciscribe.config import parse_config
from ciscribe.data.world import world
from ciscribe.demo import demo_config
from ciscribe.errors import CiscribeError, ConfigError, DataMissingError, InputError
from ciscribe.workflow.element_benchmark import CONTROLS, benchmark_elements
from ciscribe.workflow.modalities import signal_groups, split_modalities
from ciscribe.workflow.run import Run

QUIET = {"tell": lambda line: None, "progress": False}
CELLS = ("liver", "blood", "neuron")


def configuration(root, *, signals=True, truth=True, model="seq2exp", seed=0):
    raw = demo_config(root, CELLS, fast=True, seed=seed)
    raw["window"] |= {"half_width": 1_024}
    raw["model"]["arguments"] |= {"d_model": 4, "n_layers": 1, "d_state": 2, "stem_channels": 4}
    raw["train"] |= {"epochs": 1, "n_threads": 1, "device": "cpu"}
    if not signals:
        raw["data"]["tracks"], raw["window"]["contact"] = [], False
        del raw["model"]["arguments"]["weights"]
    if not truth:
        del raw["data"]["truth"]
    return raw


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    world(n_genes=42, seed=0).write(root / "world")
    for name, options in {"full": {}, "sequence": {"signals": False}, "real": {"truth": False}}.items():
        run = Run(root / name, parse_config(configuration(root, **options), name), **QUIET)
        run.run("train")
    return root


def known(root, folder):
    """The truth of the world as files that a laboratory would have."""
    elements = pd.read_csv(root / "world" / "elements.tsv", sep="\t")
    links = pd.read_csv(root / "world" / "links.tsv", sep="\t")
    folder.mkdir(exist_ok=True)
    sites = elements[["chrom", "start", "end", "openness_liver", "openness_blood", "factor"]]
    sites = sites.assign(**{f"openness_{cell}": 100 * sites[f"openness_{cell}"] for cell in ("liver", "blood")})
    sites.to_csv(folder / "sites.tsv", sep="\t", index=False)
    promoters = elements.loc[elements["kind"] == "promoter", ["chrom", "start", "end"]]
    promoters.to_csv(folder / "promoters.bed", sep="\t", index=False, header=False)
    target = links.loc[links["label"] & (links["kind"] != "promoter")].groupby(["chrom", "start", "end"])["gene_id"]
    rows = [(c, s, e, f"Name=({','.join(sorted(set(genes)))});annot=x") for (c, s, e), genes in target]
    pd.DataFrame(rows).to_csv(folder / "enhancers.bed", sep="\t", index=False, header=False)
    return {"sites": folder / "sites.tsv", "promoters": folder / "promoters.bed", "enhancers": folder / "enhancers.bed"}


def test_benchmark_elements__of_a_world_writes_tables_and_a_page(runs, tmp_path, capsys):
    cli.app(["elements", "benchmark", str(runs / "full"), str(runs / "sequence"), "--out", str(tmp_path / "out"),
             "--quiet"], result_action="return_value")
    assert "true elements" in capsys.readouterr().out
    out = tmp_path / "out"
    table = pd.read_csv(out / "benchmark.tsv", sep="\t")
    assert {"full: mask", "sequence: mask", "full: erasure", "full: erased_bases", "kmer_ridge", "peak_height",
            "shuffled", "distance", "another_gene_mask"} <= set(table["method"])
    assert table.loc[table["method"].isin(CONTROLS), "control"].all()
    assert set(table.loc[table["run"] == "sequence", "score"]) == {"mask", "erasure", "erased_bases"}
    kinds = pd.read_parquet(out / "composition.parquet")
    shares = kinds.groupby("method")["share"].sum()
    np.testing.assert_allclose(shares, 1)
    assert {"decoy_open", "promoter", "none"} <= set(kinds["kind"])
    agree = pd.read_parquet(out / "agreement.parquet")
    assert set(agree["score"]) == {"mask", "erasure", "erased_bases"}
    curves = pd.read_parquet(out / "sufficiency_necessity.parquet")
    assert set(curves["run"]) == {"full", "sequence"}
    assert {"mask", "erasure", "kmer_ridge", "distance", "another_gene", "random"} <= set(curves["order"])
    assert "peak_height" in set(curves.loc[curves["run"] == "full", "order"])
    facts = json.loads((out / "benchmark.json").read_text())
    assert facts["genes"] == 7
    page = (out / "report.html").read_text()
    assert all(f'id="{anchor}"' in page for anchor in ("truth", "pairs", "composition", "agreement", "budgets"))


def test_benchmark_elements__of_files_as_of_a_real_genome(runs, tmp_path):
    files = known(runs, tmp_path / "known")
    table, out = benchmark_elements(runs / "real", out=tmp_path / "out", **files, stage="openness_liver",
                                    against="openness_blood", fold="all", n=23, **QUIET)
    truths = set(table["truth"])
    assert truths == {"accessible sites", "promoters", "enhancers", "sites of openness_liver only",
                      "sites of openness_liver only, among all sites"}
    sites = table.loc[table["truth"] == "accessible sites"].set_index("method")
    assert "peak_height" not in sites.index  # it is the truth itself
    assert "kmer_ridge_supervised" in sites.index
    assert "real: effect on liver, over the others" in set(table["method"])
    facts = json.loads((out / "benchmark.json").read_text())
    assert any("stability" in line for line in facts["skipped"])
    assert any("was trained on" in line for line in facts["cautions"])  # all folds
    assert set(facts["inputs"]) == {"sites", "promoters", "enhancers"}
    made = (out / "pairs.parquet").exists()
    assert made or any("pairs in these windows, all of one label" in line for line in facts["skipped"])


def test_benchmark_elements__says_what_is_left_out(runs, tmp_path):
    said = []
    table, out = benchmark_elements(runs / "real", out=tmp_path / "out", erase=False, tell=said.append, progress=False)
    assert not len(table)
    facts = json.loads((out / "benchmark.json").read_text())
    assert len([line for line in facts["skipped"] if "no file was given" in line]) == 3
    assert any("left out: accessible sites" in line for line in said)
    assert "What was asked, and what was not" in (out / "report.html").read_text()


def test_benchmark_elements__says_what_is_wrong(runs, tmp_path):
    files = known(runs, tmp_path / "known")
    ask = lambda **options: benchmark_elements(runs / "real", out=tmp_path / "out", **options, **QUIET)  # noqa: E731
    with pytest.raises(DataMissingError, match="not a run folder"):
        benchmark_elements(tmp_path, out=tmp_path / "out", **QUIET)
    with pytest.raises(ConfigError, match=r"each run is given once; .* came 2 times"):
        benchmark_elements(runs / "full", [runs / "full"], tmp_path / "out", **QUIET)
    with pytest.raises(ConfigError, match="--sites with columns of heights, --stage and --against"):
        ask(stage="openness_liver")
    with pytest.raises(InputError, match=r"sites.tsv: sites need a column of heights called 'emb'; they have open"):
        ask(sites=files["sites"], stage="emb", against="openness_blood")
    far = tmp_path / "far.bed"
    far.write_text("chr6\t1\t2\n")
    with pytest.raises(InputError, match=r"far.bed: none of the 1 intervals \(promoters\) lies in the windows"):
        ask(promoters=far)
    bare = tmp_path / "bare.bed"
    bare.write_text("chr6\t1000\t2000\tName=;x\n")
    with pytest.raises(InputError, match=r"bare\.bed name no target gene"):
        ask(enhancers=bare)
    with pytest.raises(ConfigError, match="at least 3 genes"):
        ask(n=1)
    with pytest.raises(ConfigError, match="fold is train, valid, test or all"):
        ask(fold="tset")
    other = yaml.safe_load((runs / "sequence" / "config.yaml").read_text())
    other["window"]["half_width"] = 512
    Run(tmp_path / "narrow", parse_config(other, "narrow"), **QUIET).run("train")
    with pytest.raises(ConfigError, match=r"window\.half_width of narrow is 512, of full 1024"):
        benchmark_elements(runs / "full", [tmp_path / "narrow"], tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()


def test_split_modalities__joins_the_explanation(runs, tmp_path, capsys):
    folder = tmp_path / "full"
    shutil.copytree(runs / "full", folder)
    Run(folder, **QUIET).run("elements")
    cli.app(["modalities", str(folder), "--n", "5", "--quiet"], result_action="return_value")
    table = pd.read_parquet(folder / "explain" / "modalities.parquet")
    assert table["region"].nunique() == 5
    assert list(dict.fromkeys(table["group"])) == ["sequence", "signals"]
    assert table["units"].unique().tolist() == ["expression"]
    ends = table.drop_duplicates(["region", "target"]).set_index(["region", "target"])
    np.testing.assert_allclose(table.groupby(["region", "target"])["shapley"].sum(),
                               (ends["prediction"] - ends["baseline"]).sort_index(), atol=1e-5)
    erased = pd.read_parquet(folder / "explain" / "counterfactuals.parquet")
    assert {"gene_id", "place", "target", "signal_effect", "dna_effect", "both_effect"} <= set(erased)
    assert set(erased["gene_id"]) <= set(table["region"])
    page = (folder / "explain" / "report.html").read_text()
    assert 'id="modalities"' in page
    assert "signal_counterfactual" in page or "Erase the signal" in page
    assert "What predictions are made of" in page
    capsys.readouterr()


def test_split_modalities__takes_the_highest_peaks_where_no_element_was_called(runs, tmp_path):
    folder = tmp_path / "full"
    shutil.copytree(runs / "full", folder)
    out = split_modalities(folder, n=3, fold="all", n_shuffles=1, **QUIET)
    erased = pd.read_parquet(out / "counterfactuals.parquet").drop_duplicates("region")
    store = Run(folder, **QUIET).store
    rows = pd.Index(store.genes["gene_id"]).get_indexer(pd.Index(erased["gene_id"]))
    raw = store.read_signals(rows, raw=True)
    for signal, place in zip(raw, erased.to_dict("records"), strict=True):
        a, b = place["start"] // 128, place["end"] // 128
        inside = signal[:, a:b].max(axis=1) / signal.max(axis=1)
        assert inside.max() == 1  # the top of some track
        left, right = map(int, place["place"].split(":")[1].split("-"))
        assert right - left == place["end"] - place["start"]


def test_split_modalities__says_what_is_wrong(runs, tmp_path):
    with pytest.raises(CiscribeError, match="reads the sequence and nothing else"):
        split_modalities(runs / "sequence", **QUIET)
    with pytest.raises(ConfigError, match="1 of 2 genes are not in this run of 42; first: 'nobody'"):
        split_modalities(runs / "full", genes=["gene0001", "nobody"], **QUIET)
    with pytest.raises(ConfigError, match="absent signals become average or zeros"):
        split_modalities(runs / "full", absent="mean", **QUIET)
    with pytest.raises(ConfigError, match="fold is train, valid, test or all"):
        split_modalities(runs / "full", fold="tset", **QUIET)


def test_signal_groups__are_one_where_they_would_be_too_many():
    assert list(signal_groups(["a", "b", "contact"], ["x"])) == ["sequence", "a", "b", "covariates"]
    many = signal_groups(list("abcdef"), ["a@+0", "x"])
    assert many == {"sequence": [], "signals": list("abcdef"), "surroundings": ["a@+0"], "covariates": ["x"]}
    assert len(signal_groups(list("abcdef"), ["a@+0"], each=True)) == 8
