from pathlib import Path

import pytest
import yaml

from ciscribe.config import (
    BenchConfig,
    CompareConfig,
    DesignConfig,
    LinksConfig,
    ReporterConfig,
    RunConfig,
    parse_config,
    read_config,
    resolve_root,
    write_config,
)
from ciscribe.errors import ConfigError, DataMissingError

RAW = {
    "name": "one",
    "data": {"genome": "g.fa", "genes": {"path": "g.gtf"}, "expression": {"path": "e.tsv"},
             "tracks": [{"name": "atac", "bigwig": "a.bw"}]},
    "window": {"half_width": 1024},
    "split": {"valid": ["chr1"], "test": ["chr2"]},
}


def changed(path, value):
    """RAW with one value set; the path is dotted."""
    raw = yaml.safe_load(yaml.safe_dump(RAW))
    part = raw
    *parents, last = path.split(".")
    for key in parents:
        part = part[int(key)] if isinstance(part, list) else part.setdefault(key, {})
    part[last] = value
    return raw


@pytest.mark.parametrize(("path", "value", "says"), [
    ("traim", {}, r"traim: unknown key; did you mean 'train'\? options: data, elements"),
    ("train.learning_rat", 1.0, r"train\.learning_rat: unknown key; did you mean 'learning_rate'\?"),
    ("train.loss.mask_k", 1.0, r"train\.loss\.mask_k: unknown key; did you mean 'mask_kl'\?"),
    ("data.tracks.0.bigwgi", "b.bw", r"data\.tracks\.0\.bigwgi: unknown key; did you mean 'bigwig'\?"),
    ("data.genes.colums", [], r"data\.genes\.colums: unknown key; did you mean 'columns'\?"),
    ("window.half_width", "wide", r"window\.half_width: .*valid integer.*got 'wide'"),
    ("window.half_width", 1.5, r"window\.half_width: .*integer.*got 1\.5"),
    ("window.half_width", -3, r"window\.half_width: .*greater than 0; got -3"),
    ("window.transform", "sqrt", r"window\.transform: .*'none', 'log1p' or 'quantile'; got 'sqrt'"),
    ("train.epochs", 0, r"train\.epochs: .*greater than or equal to 1; got 0"),
    ("train.average", 1.0, r"train\.average: .*less than 1; got 1\.0"),
    ("train.warmup", 2, r"train\.warmup: .*less than or equal to 1; got 2"),
    ("elements.threshold", 1.0, r"elements\.threshold: .*less than 1; got 1\.0"),
    ("elements.folds", ["tset"], r"elements\.folds\.0: .*'train', 'valid' or 'test'; got 'tset'"),
    ("split.test", [], r"split\.test: .*at least 1 item"),
    ("split.test", "chr2", r"split\.test: .*valid list; got 'chr2'"),
    ("data.tracks.0.bedgraph", "a.bg", r"data\.tracks\.0: a track has exactly one of bigwig, bedgraph, sites"),
    ("data.tracks.0", {"name": "none"}, "exactly one of bigwig, bedgraph, sites"),
    ("split", {"valid": ["chr1"]}, "split: name the chromosomes of valid and test, or a table of folds"),
    ("split.folds", {"path": "f.csv", "column": "fold_1"}, "split: folds says which genes are train, valid and test"),
    ("split.folds", {"path": "f.csv"}, r"split\.folds\.column: Field required"),
    ("train.steps", 0, r"train\.steps: .*greater than or equal to 1; got 0"),
    ("data.contacts", {"path": "{chrom}.h5", "nmae": "x"}, r"data\.contacts\.nmae: unknown key; did you mean 'name'\?"),
    ("data.contacts", {"path": "{chrom}.h5", "max_missing": 2}, r"data\.contacts\.max_missing: .*less than or equal"),
    ("data.features", [{"path": "f.csv", "colums": []}], r"data\.features\.0\.colums: unknown key; .*'columns'\?"),
    ("data.expression.transform", "ln", r"data\.expression\.transform: .*'log10p1'.*got 'ln'"),
])
def test_parse_config__names_key_fault_and_value(path, value, says):
    if path == "data.tracks.0":
        raw = changed("data.tracks", [value])
    else:
        raw = changed(path, value)
    with pytest.raises(ConfigError, match=says) as caught:
        parse_config(raw, "run.yaml")
    assert str(caught.value).startswith("run.yaml cannot be used; 1 fault(s):\n")


def test_parse_config__contacts_measured_or_by_distance():
    raw = changed("data.contacts", {"path": "hic_{chrom}.h5"})
    assert parse_config(raw).data.contacts is not None
    with pytest.raises(ConfigError, match=r"data\.contacts reads measured contacts, window\.contact makes them"):
        parse_config(raw | {"window": {"half_width": 1024, "contact": True}})


def test_covariate_names__those_of_the_gene_table_first():
    raw = changed("data.features", [{"path": "a.csv", "columns": ["gc", "len"], "geometric_mean": {"m": ["x", "y"]}},
                                    {"path": "b.csv", "columns": ["z"]}])
    raw["data"]["covariates"] = ["n"]
    assert parse_config(raw).data.covariate_names == ["n", "gc", "len", "m", "z"]


def test_parse_config__tells_every_fault_at_once():
    raw = changed("window.half_width", 0) | {"nmae": "x"}
    del raw["data"]["genome"]
    with pytest.raises(ConfigError, match=r"3 fault\(s\)") as caught:
        parse_config(raw)
    for line in ("data.genome: Field required\n", "window.half_width:", "nmae: unknown key; did you mean 'name'?"):
        assert line in str(caught.value) + "\n"


def test_parse_config__fills_in_defaults_and_freezes():
    config = parse_config(RAW)
    assert config.model.name == "beacon"
    assert config.elements.folds == ["test"]
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_read_config__missing_file_and_what_is_no_mapping(tmp_path):
    with pytest.raises(DataMissingError, match=r"no configuration at .*none\.yaml; examples are in configs/"):
        read_config(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("name: [one\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml is not valid YAML"):
        read_config(path)
    path.write_text("- name\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml must be a mapping of keys; got list"):
        read_config(path)


def test_write_config__read_back_is_the_same(tmp_path):
    config = parse_config(changed("train.loss", {"kind": "mse"}))
    path = tmp_path / "config.yaml"
    path.write_text(write_config(config))
    assert read_config(path) == config
    assert "final_learning_rate: null" in path.read_text()


def test_configs__every_shipped_one_parses(root):
    kinds = {"worm.yaml": RunConfig, "reporter.yaml": ReporterConfig, "reporter_ecoli.yaml": ReporterConfig,
             "reporter_ecoli_judge.yaml": ReporterConfig, "bench_reporter.yaml": BenchConfig,
             "human_k562.yaml": RunConfig, "human_gm12878.yaml": RunConfig,
             "links_chr22.yaml": LinksConfig, "compare_worm.yaml": CompareConfig, "compare_demo.yaml": CompareConfig,
             "design_ecoli.yaml": DesignConfig}
    paths = sorted((root / "configs").glob("*.yaml"))
    assert {p.name for p in paths} == set(kinds)
    for path in paths:
        config = read_config(path, kinds[path.name])
        if isinstance(config, CompareConfig):  # of a run, which has the root
            continue
        at = config.data.root if isinstance(config, RunConfig) else config.root
        assert resolve_root(at, path.parent.absolute()).is_absolute()


@pytest.mark.parametrize(("kind", "raw", "says"), [
    (ReporterConfig, {"assay": {"path": "t.tsv", "activty": "y"}},
     r"assay\.activty: unknown key; did you mean 'activity'\?"),
    (ReporterConfig, {"assay": {"path": "t.tsv"}, "folds": {"n": 2}}, r"folds\.n: .*greater than or equal to 3; got 2"),
    (ReporterConfig, {"assay": {"path": "t.tsv"}, "train": {"augment": {"shfit": 3}}},
     r"train\.augment\.shfit: unknown key; did you mean 'shift'\?"),
    (BenchConfig, {"assays": {"a": {"path": "t.tsv", "famly": "x"}}, "models": {"m": {"name": "deepbind"}}},
     r"assays\.a\.famly: unknown key; did you mean 'family'\?"),
    (BenchConfig, {"assays": {"a": {"path": "t.tsv"}}, "models": {}}, r"models: .*at least 1 item"),
    (DesignConfig, {"run": "r", "generator": {"nmae": "wgan"}},
     r"generator\.nmae: unknown key; did you mean 'name'\?"),
    (DesignConfig, {"run": "r", "generator": {"path": "g", "fit": {"epochs": 3}}}, "generator: path names a generator"),
])
def test_parse_config__other_kinds_name_key_fault_and_value(kind, raw, says):
    with pytest.raises(ConfigError, match=says):
        parse_config({"name": "one"} | raw, "it.yaml", kind)


def test_resolve_root__variables_defaults_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.delenv("CISCRIBE_T", raising=False)
    base = Path("/base")
    assert resolve_root("data", base) == Path("/base/data")
    assert resolve_root("/data", base) == Path("/data")
    assert resolve_root("${CISCRIBE_T:../x}/y", base) == Path("/base/../x/y")
    with pytest.raises(ConfigError, match="needs the environment variable CISCRIBE_T, which is not set"):
        resolve_root("${CISCRIBE_T}", base)
    monkeypatch.setenv("CISCRIBE_T", str(tmp_path))
    assert resolve_root("${CISCRIBE_T:../x}/y", base) == tmp_path / "y"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CISCRIBE_T", "here")
    assert resolve_root("${CISCRIBE_T}", base) == tmp_path / "here"
