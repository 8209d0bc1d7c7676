"""From a trained run to sequences that can be ordered: allowed, audited, written whole, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ciscribe.config import ReporterConfig, RulesConfig, parse_config
from ciscribe.errors import CiscribeError, ConfigError, InputError
from ciscribe.io.genome import Genome
from ciscribe.sequence import decode
from ciscribe.workflow.design import design_config, rules_of
from ciscribe.workflow.reporter import ReporterRun
from planted import LENGTH, one_model, planted, write

QUIET = {"tell": lambda line: None, "progress": False}
FILES = {"config.yaml", "designs.fasta", "designs.tsv", "history.parquet", "audit.parquet", "report.html",
         "provenance.json"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose model has learned the planted motif, and another of another seed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("design")
    write(planted(), folder / "assay.tsv")
    for name, seed in (("run", 3), ("judge", 4)):
        raw = one_model(folder, train={"epochs": 12}, seed=seed)
        ReporterRun(folder / name, parse_config(raw, "it.yaml", ReporterConfig), **QUIET).run("train")
    yield folder
    torch.set_num_threads(before)


def run(folder, out, **changes):
    raw = {"name": "new", "root": str(folder), "run": "run", "method": "greedy", "n": 5, "budget": 3_000,
           "start": {"n": 3}, "rules": {"avoid": ["BsaI"], "homopolymer": 5}} | changes
    path = folder / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return design_config(path, out, **QUIET)


def test_designs_are_better_allowed_and_there_in_every_file(trained, tmp_path):
    out = run(trained, tmp_path / "out", judge="judge")
    assert {p.name for p in out.iterdir()} == FILES
    table = pd.read_csv(out / "designs.tsv", sep="\t")
    assert len(table) == 5
    assert (table["gain"] > 0).all()
    assert table["feasible"].all()
    assert {"judge_score", "knn_percentile", "verdict", "edits"} <= set(table.columns)
    for sequence in table["sequence"]:
        assert len(sequence) == LENGTH
        assert "GGTCTC" not in sequence
        assert "GAGACC" not in sequence
        assert not any(base * 6 in sequence for base in "ACGT")
    fasta = Genome(out / "designs.fasta")
    assert [decode(fasta.codes(name)) for name in fasta.chrom_sizes] == table["sequence"].tolist()
    page = (out / "report.html").read_text()
    for anchor in ("run", "changes", "audit", "designs"):
        assert f'id="{anchor}"' in page
    state = json.loads((out / "provenance.json").read_text())
    assert state["queries"] <= 3_000
    assert "Avoid(BsaI)" in state["rules"]


def test_the_same_seed_makes_the_same_designs(trained, tmp_path):
    tables = [pd.read_csv(run(trained, tmp_path / name, method="genetic", seed=seed) / "designs.tsv", sep="\t")
              for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert tables[0]["sequence"].tolist() == tables[1]["sequence"].tolist()
    assert tables[0]["sequence"].tolist() != tables[2]["sequence"].tolist()


def test_starts_come_from_a_file_or_from_nothing(trained, tmp_path):
    starts = planted(7, seed=9)["sequence"]
    (trained / "starts.fa").write_text("".join(f">s{i}\n{s}\n" for i, s in enumerate(starts)))
    table = pd.read_csv(run(trained, tmp_path / "file", start={"path": "starts.fa"}) / "designs.tsv", sep="\t")
    first = table.iloc[0]
    differ = sum(a != b for a, b in zip(first["sequence"], starts[int(first["origin"])], strict=True))
    assert differ == first["edits"]
    nothing = pd.read_csv(run(trained, tmp_path / "nothing", start={"choose": "none"}, method="screen")
                          / "designs.tsv", sep="\t")
    assert "edits" not in nothing.columns
    (trained / "short.fa").write_text(">s\nACGT\n")
    with pytest.raises(InputError, match="1 of 1 starts"):
        run(trained, tmp_path / "short", start={"path": "short.fa"})


def test_a_target_is_hit_and_others_make_it_conservative(trained, tmp_path):
    with pytest.warns(UserWarning, match="another architecture"):  # both are of one kind here
        out = run(trained, tmp_path / "target", goal={"kind": "target", "value": 1.0, "tolerance": 0.2},
                  others=["judge"])
    table = pd.read_csv(out / "designs.tsv", sep="\t")
    assert table["score"].max() > -0.5
    assert (table["score"] <= 0).all()


@pytest.mark.parametrize(("change", "error", "says"), [
    ({"method": "greddy"}, CiscribeError, "greedy"),
    ({"goal": {"kind": "target"}}, ConfigError, r"goal\.value"),
    ({"goal": {"kind": "specific"}}, ConfigError, "other targets"),
    ({"rules": {"gc_window": 10}}, ConfigError, r"rules\.gc"),
    ({"rules": {"scope": ["5-900"]}}, ConfigError, "rules.scope"),
    ({"budget": 3}, ConfigError, "budget"),
    ({"run": "nowhere"}, CiscribeError, "nowhere"),
])
def test_what_cannot_be_used_is_said_and_nothing_is_left(trained, tmp_path, change, error, says):
    with pytest.raises(error, match=says):
        run(trained, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_rules_of_a_configuration():
    config = RulesConfig(avoid=["BsaI"], homopolymer=4, repeats=9, gc=(0.3, 0.6), gc_window=20, keep=["TATAAT", "3-7"],
                         max_edits=5, scope=["0-10", "8-12"])
    rules = {type(rule).__name__: rule for rule in rules_of(config, 50)}
    assert set(rules) == {"Avoid", "Homopolymer", "Repeats", "GC", "Keep", "MaxEdits", "EditScope"}
    assert len(rules_of(config, 50)) == 8
    assert not rules_of(RulesConfig(), 50)
    assert np.isclose(rules["GC"].low, 0.3)
