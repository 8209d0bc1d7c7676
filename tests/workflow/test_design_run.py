"""From a trained run to sequences that can be ordered: allowed, audited, written whole, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ciscribe.config import GoalConfig, ReporterConfig, RulesConfig, parse_config
from ciscribe.design.calibration import fit_calibration
from ciscribe.design.generators import GENERATORS
from ciscribe.errors import CheckpointError, CiscribeError, ConfigError, DataMissingError, InputError
from ciscribe.io.genome import Genome
from ciscribe.io.motifs import write_meme
from ciscribe.schema import Motif
from ciscribe.sequence import decode, encode, one_hot
from ciscribe.workflow.design import design_config
from ciscribe.workflow.design_setup import measured, open_trained, rules_of
from ciscribe.workflow.designers import load_generator, read_rules
from ciscribe.workflow.explain import find_syntax
from ciscribe.workflow.reporter import ReporterRun
from planted import LENGTH, MOTIF, one_model, planted, write

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


def test_edits_that_are_not_worth_their_cost_are_not_made_and_that_is_said(trained, tmp_path):
    said = []
    path = trained / "dear.yaml"
    path.write_text(yaml.safe_dump({"name": "new", "root": str(trained), "run": "run", "method": "edit", "n": 3,
                                    "budget": 3_000, "start": {"n": 3}, "options": {"penalty": 1_000}}))
    table = pd.read_csv(design_config(path, tmp_path / "dear", tell=said.append, progress=False) / "designs.tsv",
                        sep="\t")
    assert (table["edits"] == 0).all()
    assert any("no edit brings the" in line and "penalty" in line for line in said)


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
    ({"goal": {"flanks": ["ACGTACGT", ""]}}, ConfigError, r"none of the 100 training sequences .* 'ACGTACGT'"),
    ({"method": "implant"}, ConfigError, r"motifs: FILE\.meme"),
    ({"method": "grammar"}, ConfigError, "ciscribe syntax RUN"),
    ({"method": "grammar", "syntax": "run"}, DataMissingError, "find them with: ciscribe syntax"),
    ({"method": "sample"}, ConfigError, r"sample begins from a generator; give generator: \{\}"),
    ({"generator": {}}, ConfigError, "greedy takes no generator; leave it out, or take method sample or"),
    ({"motifs": "m.meme"}, ConfigError, "greedy takes no motifs"),
    ({"method": "drakes", "generator": {"name": "wgan"}}, ConfigError, "begins from masked_diffusion, not from wgan"),
    ({"method": "sample", "generator": {"name": "wagn"}}, ConfigError, "no generator is called 'wagn'.*'wgan'"),
    ({"method": "sample", "generator": {"arguments": {"chanels": 3}}}, ConfigError, "did you mean 'channels'"),
    ({"method": "grpo", "generator": {}, "options": {"clp": 0.2}}, ConfigError, "no option 'clp'; did you mean 'clip'"),
    ({"method": "latent", "generator": {}}, ConfigError, r"start: \{choose: none\}"),
    ({"method": "sample", "generator": {"path": "run"}}, DataMissingError, "config.json is missing"),
    ({"calibration": "assay.tsv"}, InputError, "lacks 3 of 3 columns"),
    ({"calibration": "assay.tsv", "start": {"choose": "none"}}, ConfigError, "calibration is of gains over starts"),
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


def test_flanks_of_the_goal_stay_and_what_lies_between_is_designed(trained, tmp_path):
    sequence = pd.read_csv(trained / "assay.tsv", sep="\t")["sequence"]
    ends = (sequence[0][:1], "")
    having = sequence[sequence.str.startswith(ends[0])]
    inner = open_trained(trained / "run", ends)
    assert [decode(codes) for codes in inner.codes] == [text[1:] for text in having]
    table = pd.read_csv(run(trained, tmp_path / "out", goal={"flanks": list(ends)}, start={"n": 1})
                        / "designs.tsv", sep="\t")
    assert set(table["sequence"].str.len()) == {LENGTH - 1}
    oracle = inner.oracle
    whole = np.stack([encode(f"{ends[0]}{text}") for text in table["sequence"]])
    np.testing.assert_allclose(oracle.predict(torch.from_numpy(whole))[:, 0], table["prediction"], atol=1e-4)


def test_measured_activities_score_as_the_goal_says(trained):
    model = open_trained(trained / "run")
    rows = np.arange(17)
    label = model.targets[rows, 0].astype(float)
    for kind, score in (("maximize", label), ("minimize", -label)):
        activity, found = measured(GoalConfig(kind=kind), model, rows)
        np.testing.assert_array_equal(activity, label)
        np.testing.assert_array_equal(found, score)
    _, found = measured(GoalConfig(kind="target", value=1.0, tolerance=0.5), model, rows)
    assert found.max() == 0  # within what was measured: no design is beyond it by hitting
    assert (found[np.abs(label - 1.0) > 0.5] < 0).sum() >= len(rows) - (np.abs(label - 1.0) <= 0.5).sum() - 1
    assert measured(GoalConfig(kind="target", value=99.0), model, rows)[1].max() == pytest.approx(label.max() - 99)


SMALL = {"arguments": {"channels": 5}, "fit": {"epochs": 1}}


def test_a_generator_is_fitted_on_training_sequences_kept_and_taken_again(trained, tmp_path, monkeypatch):
    seen = []
    honest = GENERATORS["autoregressive"].fit

    def fit(self, codes, y, **plan):
        seen.append((codes, y))
        return honest(self, codes, y, **plan)

    monkeypatch.setattr(GENERATORS["autoregressive"], "fit", fit)
    out = run(trained, tmp_path / "first", method="sample", generator=SMALL, budget=40)
    (codes, y), = seen
    model = open_trained(trained / "run")
    np.testing.assert_array_equal(codes, model.codes[model.fold == "train"])  # no test or validation fold
    np.testing.assert_allclose(y, model.targets[model.fold == "train", 0])
    kept, facts = load_generator(out / "generator")
    assert (kept.card.name, facts["run"], facts["sequences"]) == ("autoregressive", "run", len(codes))
    again = run(trained, tmp_path / "again", method="sample", generator={"path": str(out / "generator")}, budget=40)
    assert len(seen) == 1
    tables = [pd.read_csv(folder / "designs.tsv", sep="\t")["sequence"].tolist() for folder in (out, again)]
    assert tables[0] == tables[1]
    own = run(trained, out, method="sample", generator={"path": str(out / "generator"), "level": 0.0}, budget=40)
    assert load_generator(own / "generator")[1] == facts  # also from the folder that it replaces

    (out / "generator" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="damaged"):
        load_generator(out / "generator")


@pytest.mark.parametrize(("method", "change"), [
    ("latent", {"generator": {"name": "wgan"}, "options": {"n_steps": 3}, "start": {"choose": "none"}}),
    ("sample", {"generator": {"name": "dirichlet_flow"}, "options": {"y": 0.0}})])
def test_designers_that_begin_from_a_generator(trained, tmp_path, method, change):
    asked = change | {"generator": SMALL | change["generator"], "rules": {}}
    out = run(trained, tmp_path / "out", **({"method": method, "budget": 40, "n": 2} | asked))
    assert load_generator(out / "generator")[0].card.name == change["generator"]["name"]
    assert pd.read_csv(out / "designs.tsv", sep="\t")["feasible"].all()


def test_motifs_of_a_file_and_rules_of_a_run_are_written(trained, tmp_path):
    write_meme(trained / "m.meme", [Motif("site", one_hot(encode(MOTIF)[None])[0].astype(float))])
    quiet = {"rules": {}, "start": {"n": 1}, "n": 1, "budget": 200}
    table = pd.read_csv(run(trained, tmp_path / "implant", method="implant", motifs="m.meme", **quiet)
                        / "designs.tsv", sep="\t")
    assert MOTIF in table["sequence"][0]
    find_syntax(trained / "judge", words=[MOTIF, "TTTTTT"], n_backgrounds=3, max_gap=2, **QUIET)
    table = pd.read_csv(run(trained, tmp_path / "grammar", method="grammar", syntax="judge", **quiet)
                        / "designs.tsv", sep="\t")
    assert MOTIF in table["sequence"][0]  # a palindrome
    less = pd.read_csv(run(trained, tmp_path / "less", method="grammar", syntax="judge", goal={"kind": "minimize"},
                           **quiet) / "designs.tsv", sep="\t")
    assert MOTIF not in less["sequence"][0]
    with pytest.raises(ConfigError, match="not about 'leaf'"):
        read_rules(trained / "judge", "leaf")


def test_calibration_says_what_to_expect(trained, tmp_path):
    edits = np.arange(1, 21) % 2 + 1
    known = pd.DataFrame({"predicted_gain": 0.3 * edits, "measured_gain": 0.15 * edits, "edits": edits})
    write(known, trained / "measured.tsv")
    out = run(trained, tmp_path / "out", calibration="measured.tsv", title="Promoters")
    table = pd.read_csv(out / "designs.tsv", sep="\t")
    expected = fit_calibration(known).expected(table["gain"].to_numpy(), table["edits"].to_numpy(float))
    np.testing.assert_allclose(table["expected_gain"], expected, rtol=1e-4)
    audit = pd.read_parquet(out / "audit.parquet").set_index("metric")["value"]
    assert audit["expected_share"] == pytest.approx(expected.sum() / table["gain"].sum(), rel=1e-4)
    beyond = int((table["edits"] > 2).sum())
    assert beyond > 0
    page = (out / "report.html").read_text()
    assert f"extrapolated for {beyond} of 5 designs, which have more edits than any measured one (2)" in page
    assert "<title>Promoters" in page
