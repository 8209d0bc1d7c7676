"""One model of one reporter assay, from table to page, on an assay whose law is known."""

import json
import os
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ciscribe import cli
from ciscribe.config import AssayTrainConfig, ReporterConfig, parse_config
from ciscribe.data.reporter import reporter_set
from ciscribe.errors import CheckpointError, ConfigError, DataMissingError, InputError
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.sequence import encode, one_hot_tensor, reverse_complement
from ciscribe.workflow.reporter import ReporterRun, build_model, fit_assay, group_sequences, predict_assay, task_of
from planted import LENGTH, MOTIF, one_model, planted, write

STEPS = ReporterRun.STEPS
FILES = ("config.yaml", "provenance.json", "model/model.safetensors", "model/config.json", "model/card.md", "log.csv",
         "folds.parquet", "metrics.json", "predictions.parquet", "report.html")
MEME = "\n".join([
    "MEME version 4\n\nALPHABET= ACGT\n\nMOTIF planted", f"letter-probability matrix: alength= 4 w= {len(MOTIF)}",
    *(" ".join("0.97" if base == letter else "0.01" for base in "ACGT") for letter in MOTIF), ""])
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens:UserWarning")


def start(folder, raw, lines=None, to="run"):
    tell = (lambda line: None) if lines is None else lines.append
    return ReporterRun(folder / to, parse_config(raw, "it.yaml", ReporterConfig), tell=tell, progress=False)


def done_again(folder, raw):
    """Run once more and name the steps that were not done before."""
    lines = []
    start(folder, raw, lines).run()
    done = [step for step in STEPS if f"{step}: …" in lines]
    assert [step for step in STEPS if f"{step}: done before" in lines] == [s for s in STEPS if s not in done]
    return done


def weights(folder):
    return registry.load(folder / "model")[0].state_dict()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, its configuration and what it told; copies of it are cheap."""
    folder = tmp_path_factory.mktemp("finished")
    write(planted(), folder / "assay.tsv")
    (folder / "known.meme").write_text(MEME)
    raw, lines = one_model(folder, train={"epochs": 12}, motifs="known.meme"), []
    start(folder, raw, lines).run()
    return folder, raw, lines


@pytest.fixture
def copy(finished, tmp_path):
    folder, raw, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy", raw | {"root": str(tmp_path / "copy")}


# -- what comes out ------------------------------------------------------------------------------------------


def test_run__makes_every_file_that_was_promised(finished):
    folder, _, lines = finished
    for name in FILES:
        assert (folder / "run" / name).stat().st_size > 0, name
    assert [line for line in lines if line.endswith(": …")] == [f"{step}: …" for step in STEPS]
    assert "  deepbind: 235 parameters; 100 train, 100 valid, 100 test sequences" in lines
    assert not [p for p in (folder / "run").rglob("*") if p.name.startswith((".partial", "checkpoints"))]
    record = json.loads((folder / "run" / "provenance.json").read_text())["steps"]
    assert list(record) == list(STEPS)
    assert record["train"]["parameters"] == 235


def test_run__figures_are_those_of_the_saved_model_on_the_held_out_fold(finished):
    folder, _, _ = finished
    table = planted()
    fold = pd.read_parquet(folder / "run" / "folds.parquet")["fold"].to_numpy()
    assert dict(zip(*np.unique(fold, return_counts=True), strict=True)) == {"train": 100, "valid": 100, "test": 100}
    model, facts = registry.load(folder / "run" / "model", expect="deepbind")
    assert (facts["targets"], facts["task"], facts["length"]) == (["activity"], "regression", LENGTH)
    codes = torch.from_numpy(np.stack([encode(s) for s in table["sequence"]]))
    predicted = Oracle(model, device="cpu").predict(codes)[:, 0].numpy()
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    figures = metrics["models"]["deepbind"]["per_target"]["activity"]
    test = fold == "test"
    observed = table["activity"].to_numpy()
    assert figures["pearson"]["value"] == pytest.approx(np.corrcoef(observed[test], predicted[test])[0, 1], abs=1e-4)
    assert figures["mse"]["value"] == pytest.approx(((observed - predicted)[test] ** 2).mean(), rel=1e-3)
    assert figures["pearson"]["value"] > 0.9  # the law was found
    assert figures["mse"]["value"] < 0.2 * observed[test].var()  # in the units of the table
    assert set(metrics["models"]) == {"deepbind", "gbm_kmers", "ridge_kmers"}
    rows = pd.read_parquet(folder / "run" / "predictions.parquet").set_index("name")
    rows = rows.loc[[f"seq{i}" for i in range(300)]]
    np.testing.assert_allclose(rows["predicted"], predicted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows["observed"], observed, rtol=1e-5)
    assert (rows["fold"].to_numpy() == fold).all()
    for name in ("gbm_kmers", "ridge_kmers"):
        assert (np.isfinite(rows[name].to_numpy()) == test).all()
        r = np.corrcoef(rows[name][test], observed[test])[0, 1]
        assert metrics["models"][name]["per_target"]["activity"]["pearson"]["value"] == pytest.approx(r, abs=1e-4)


def test_run__log_and_page(finished):
    folder, raw, _ = finished
    log = pd.read_csv(folder / "run" / "log.csv")
    assert log["epoch"].tolist() == list(range(12))
    assert log["valid_mse"].iloc[0] == pytest.approx(1, abs=0.2)  # standard units, starting at the mean
    page = (folder / "run" / "report.html").read_text()
    assert "planted" in page
    assert yaml.safe_load((folder / "run" / "config.yaml").read_text())["assay"]["path"] == raw["assay"]["path"]


# -- what is done again, and what is not ---------------------------------------------------------------------


def test_run__second_time_does_nothing(finished):
    folder, raw, _ = finished
    before = {p: p.stat().st_mtime_ns for p in (folder / "run").rglob("*") if p.name != "config.yaml"}
    assert done_again(folder, raw) == []
    assert {p: p.stat().st_mtime_ns for p in (folder / "run").rglob("*") if p.name != "config.yaml"} == before
    lines = []
    ReporterRun(folder / "run", tell=lines.append).run()  # the folder alone says what it is
    assert lines == [f"{step}: done before" for step in STEPS]


@pytest.mark.parametrize(("change", "expected"), [
    ({"report": {"title": "Another"}}, ["report"]),
    ({"seed": 4}, list(STEPS)),
    ({"train": {"epochs": 2, "batch_size": 16, "device": "cpu", "n_threads": 1}}, list(STEPS)),
    ({"folds": {"n": 3, "test": 2}}, list(STEPS)),
    ({"both_strands": "mean"}, list(STEPS)),
])
def test_run__does_again_what_depends_on_the_change(copy, change, expected):
    folder, raw = copy
    assert done_again(folder, raw | change) == expected
    assert done_again(folder, raw | change) == []


def test_run__another_machine_is_the_same_run(copy):
    folder, raw = copy
    elsewhere = raw | {"train": raw["train"] | {"n_threads": 2, "n_workers": 1, "device": None}}
    assert all(start(folder, elsewhere).is_done(step) for step in STEPS)


@pytest.mark.parametrize("name", ["assay.tsv", "known.meme"])
def test_run__an_input_that_was_touched_does_all_again(copy, name):
    folder, raw = copy
    os.utime(folder / name)
    run = start(folder, raw)
    assert [step for step in STEPS if run.is_done(step)] == []


class Stop:
    """Ctrl-C when a line begins with a text."""

    def __init__(self, text):
        self.text = text

    def __call__(self, line):
        if line.strip().startswith(self.text):
            raise KeyboardInterrupt


def killed(folder, raw, to):
    with pytest.raises(KeyboardInterrupt):
        ReporterRun(folder / to, parse_config(raw, "it.yaml", ReporterConfig), tell=Stop("epoch 3/"),
                    progress=False).run()


def test_run__killed_training_continues_and_ends_as_if_nothing_had_happened(copy):
    folder, raw = copy
    raw = raw | {"train": raw["train"] | {"epochs": 5, "average": 0.5,
                                          "augment": {"mutation": 0.1, "shift": 3, "reverse_complement": 0.5}}}
    start(folder, raw, to="whole").run("train")
    killed(folder, raw, "part")
    assert (folder / "part" / "checkpoints" / "last.ckpt").exists()
    assert not (folder / "part" / "model").exists()
    lines = []
    start(folder, raw, lines, to="part").run("train")
    assert not any(line.strip().startswith("epoch 2/") for line in lines)
    whole, part = weights(folder / "whole"), weights(folder / "part")
    assert all(torch.allclose(whole[k], part[k], atol=1e-6) for k in whole)
    assert not (folder / "part" / "checkpoints").exists()


def test_run__killed_training_is_not_continued_with_another_plan(copy):
    folder, raw = copy
    killed(folder, raw, "part")
    other = raw | {"train": raw["train"] | {"learning_rate": 0.003}}
    with pytest.raises(CheckpointError, match=r"another model, data set or training plan.* remove its checkpoints/"):
        start(folder, other, to="part").run()
    start(folder, other, to="part").run("train", again=True)  # this is how to give it up
    assert (folder / "part" / "model" / "model.safetensors").exists()


# -- transfer ------------------------------------------------------------------------------------------------


def test_transfer__frozen_parts_stay_and_the_head_is_new(copy):
    folder, raw = copy
    write(planted().assign(weak=lambda t: t["weak"] + 30), folder / "assay.tsv")
    two = raw | {"assay": {"path": "assay.tsv", "activity": ["weak", "activity"]}, "start_from": "run/model",
                 "train": raw["train"] | {"freeze": ["scan.*", "trunk.*"]}}
    start(folder, two, to="other").run()
    before, after = weights(folder / "run"), weights(folder / "other")
    assert {k for k in before if torch.equal(before[k], after[k])} == {k for k in before if not k.startswith("head.")}
    assert after["head.weight"].shape == (2, 7)
    metrics = json.loads((folder / "other" / "metrics.json").read_text())
    assert metrics["targets"] == ["weak", "activity"]
    assert metrics["models"]["deepbind"]["per_target"]["weak"]["pearson"]["value"] > 0.6  # what it knows helps
    log = pd.read_csv(folder / "other" / "log.csv")
    assert log["valid_mse"].iloc[0] < 1.5  # a new head starts at the mean


def test_transfer__same_targets_go_on_where_training_ended(copy):
    folder, raw = copy
    more = raw | {"start_from": str(folder / "run" / "model"), "train": raw["train"] | {"epochs": 1,
                                                                                         "learning_rate": 1e-6}}
    start(folder, more, to="more").run("train")
    earlier = pd.read_csv(folder / "run" / "log.csv")["valid_mse"].min()
    assert pd.read_csv(folder / "more" / "log.csv")["valid_mse"].iloc[0] == pytest.approx(earlier, rel=0.05)
    before, after = weights(folder / "run"), weights(folder / "more")
    assert all(torch.allclose(before[k], after[k], atol=1e-3) for k in before)


def test_transfer__a_source_that_was_trained_anew_puts_the_run_out_of_date(copy):
    folder, raw = copy
    more = raw | {"start_from": "run/model", "train": raw["train"] | {"epochs": 1}}
    start(folder, more, to="more").run("train")
    assert start(folder, more, to="more").is_done("train")
    os.utime(folder / "run" / "model" / "model.safetensors")
    assert not start(folder, more, to="more").is_done("train")


@pytest.mark.parametrize(("change", "error", "says"), [
    ({"model": {"name": "deepstarr"}}, ConfigError, "start_from holds the model 'deepbind', but model.name is"),
    ({"start_from": "nowhere"}, DataMissingError, "the start_from file is not there: .*nowhere"),
    ({"both_strands": "mean"}, ConfigError, "start_from was trained with both_strands=None, but"),
    ({"train": {"freeze": ["scna.*"]}}, ConfigError, r"no parameter is called 'scna\.\*'.*did you mean 'scan\.\*'"),
])
def test_transfer__what_does_not_fit(copy, change, error, says):
    folder, raw = copy
    with pytest.raises(error, match=says):
        start(folder, raw | {"start_from": "run/model"} | change, to="other").run()


# -- tasks, folds, motifs, strands ---------------------------------------------------------------------------


def test_classification__probabilities_and_labels(copy):
    folder, raw = copy
    raw = raw | {"assay": {"path": "assay.tsv", "activity": "active"}, "task": "classification",
                 "train": raw["train"] | {"balance": True}}
    start(folder, raw, to="labels").run()
    metrics = json.loads((folder / "labels" / "metrics.json").read_text())
    assert metrics["models"]["deepbind"]["mean"]["auroc"]["value"] > 0.9
    rows = pd.read_parquet(folder / "labels" / "predictions.parquet")
    assert rows["predicted"].between(0, 1).all()
    assert rows["predicted"].max() > 0.8
    page = (folder / "labels" / "report.html").read_text()
    assert "AUROC, test sequences" in page
    assert 'id="accuracy"' not in page  # no scatter of labels


def test_classification__of_numbers_is_refused(copy):
    folder, raw = copy
    with pytest.raises(ConfigError, match=r"activities are not all 0 or 1; use task: regression, or threshold them"):
        start(folder, raw | {"task": "classification"}, to="labels").run()


def test_counts__are_predicted_as_rates(copy):
    folder, raw = copy
    table = planted()
    counts = np.random.default_rng(5).poisson(np.where(table["active"] == 1, 11.0, 1.0))
    write(table.assign(activity=counts), folder / "assay.tsv")
    start(folder, raw | {"train": raw["train"] | {"loss": "poisson", "epochs": 20}}, to="counts").run()
    rows = pd.read_parquet(folder / "counts" / "predictions.parquet")
    rows = rows.loc[rows["fold"] == "test"]
    assert rows["predicted"].min() >= 0
    active = rows["name"].isin([f"seq{i}" for i in np.flatnonzero(table["active"])])
    assert rows.loc[active, "predicted"].mean() == pytest.approx(11, rel=0.2)
    assert rows.loc[~active, "predicted"].mean() == pytest.approx(1, abs=1)


def test_folds__of_a_column_keep_its_values_together(copy):
    folder, raw = copy
    start(folder, raw | {"folds": {"n": 3, "by": "gene"}}, to="genes").run()
    fold = pd.read_parquet(folder / "genes" / "folds.parquet")["fold"]
    assert len(pd.DataFrame({"gene": planted()["gene"], "fold": fold}).drop_duplicates()) == 17
    assert set(fold) == {"train", "valid", "test"}
    page = (folder / "genes" / "report.html").read_text()
    assert "Sequences of one gene stay in one fold" in page
    assert "none of them of the same gene as a training sequence" in page
    assert "similar" not in page.split("<footer")[0].split('id="cards"')[0]


def test_folds__that_cannot_be_made(copy):
    folder, raw = copy
    for folds, says in (({"by": "gne"}, r"folds\.by names the column 'gne', .* did you mean 'gene'"),
                        ({"test": 3, "n": 3}, "folds.test is 3, but there are 3 folds, numbered from 0"),
                        ({"by": "active"}, "3 folds need at least 3 groups of sequences; by 'active' there are 2")):
        with pytest.raises(ConfigError, match=says):
            start(folder, raw | {"folds": {"n": 3} | folds}, to="genes").run()
    table = planted()
    table.loc[[4, 7], "gene"] = None
    write(table, folder / "assay.tsv")
    with pytest.raises(InputError, match=r"2 of 300 sequences have no 'gene', the column by .* made; first: seq4"):
        start(folder, raw | {"folds": {"n": 3, "by": "gene"}}, to="genes").run()


def test_motif_start__writes_the_motif_before_training(copy):
    folder, raw = copy
    lines = []
    slow = raw | {"motif_start": True, "train": raw["train"] | {"epochs": 1, "learning_rate": 1e-9}}
    start(folder, slow, lines, to="motifs").run("train")
    assert "  1 filters of the first layer start from motifs" in lines
    kernel = weights(folder / "motifs")["scan.0.weight"][0]
    assert "".join("ACGT"[i] for i in kernel[:, :8].argmax(0)) == MOTIF
    with pytest.raises(ConfigError, match="motif_start needs motifs"):
        start(folder, slow | {"motifs": None}, to="motifs").run()


def test_both_strands__saved_model_is_blind_to_the_strand(copy):
    folder, raw = copy
    start(folder, raw | {"both_strands": "mean"}, to="strands").run("evaluate")
    model, _ = registry.load(folder / "strands" / "model")
    X = one_hot_tensor(torch.randint(0, 4, (5, LENGTH)))
    torch.testing.assert_close(model(X), model(reverse_complement(X)))
    metrics = json.loads((folder / "strands" / "metrics.json").read_text())
    assert metrics["models"]["deepbind"]["mean"]["pearson"]["value"] > 0.8


# -- training in standard units ------------------------------------------------------------------------------


PLAN = AssayTrainConfig(epochs=4, batch_size=16, learning_rate=0.02, average=0.0, device="cpu", n_threads=1)
ROWS = {"train": np.arange(200), "valid": np.arange(200, 250), "test": np.arange(250, 300)}


def fitted(targets, plan=PLAN):
    """Predictions of a model that was trained on a planted table with these targets ``(N, T)``."""
    data = reporter_set(planted())
    names = tuple(f"t{i}" for i in range(targets.shape[1]))
    data = replace(data, targets=targets.astype(np.float32), target_names=names)
    torch.manual_seed(0)
    model, _ = build_model("deepbind", len(names), LENGTH, arguments={"filters": 5, "kernel": 9, "hidden": 7})
    model, _ = fit_assay(model, data, ROWS, "regression", plan, seed=1)
    return predict_assay(model, data.codes, task_of("regression", plan, data.targets), device="cpu")


def test_fit_assay__units_do_not_matter():
    y = planted()[["activity"]].to_numpy()
    predicted = fitted(y)
    for scale, shift in ((1e-3, 0.0), (1000.0, -70_000.0)):
        np.testing.assert_allclose((fitted(scale * y + shift) - shift) / scale, predicted, atol=0.03)


def test_fit_assay__each_target_has_its_unit():
    table = planted()
    y = table[["activity", "weak"]].to_numpy()
    together = fitted(np.stack([1000 * y[:, 0], y[:, 1] - 50], axis=1))
    np.testing.assert_allclose(together / [1000, 1] + [0, 50], fitted(y), atol=0.03)


def test_fit_assay__rows_that_are_held_out_are_not_read():
    y = planted()[["activity"]].to_numpy()
    other = y.copy()
    other[250:] = 1e6
    assert np.array_equal(fitted(y), fitted(other))


def test_fit_assay__a_target_that_does_not_vary_in_training_or_was_not_measured():
    y = planted()[["activity", "weak"]].to_numpy()
    y[:200, 1] = 0.1
    predicted = fitted(y)
    assert np.isfinite(predicted).all()
    assert predicted[:, 1].mean() == pytest.approx(0.1, abs=0.2)
    y[:200, 1] = np.nan
    with pytest.raises(InputError, match=r"1 of 2 targets were not measured in any of 200 training .*; first: t1"):
        fitted(y)


def test_fit_assay__holes_in_a_target_are_left_out():
    y = planted()[["activity", "weak"]].to_numpy()
    y[::3, 0] = np.nan
    predicted = fitted(y, plan=PLAN.model_copy(update={"epochs": 12}))
    known = np.isfinite(y[250:, 0])
    assert np.corrcoef(predicted[250:, 0][known], y[250:, 0][known])[0, 1] > 0.85


def test_group_sequences__similar_ones_and_a_column():
    table = planted(20)
    table.loc[7, "sequence"] = table.loc[3, "sequence"][1:] + "A"
    data = reporter_set(table)
    groups = group_sequences(data)
    assert groups[7] == groups[3]
    assert 15 < len(np.unique(groups)) < 20
    assert group_sequences(data, "gene").tolist() == [*range(17), 0, 1, 2]


# -- bad input, through the command line ---------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("TERM", "dumb")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["ciscribe", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()
    return call


def reporter(command, folder, raw, *words):
    path = folder / "it.yaml"
    path.write_text(yaml.safe_dump(raw))
    return command("reporter", path, "--out", folder / "run", *words)


def at(row, column, value):
    def change(table):
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table
    return change


@pytest.mark.parametrize(("spoil", "says"), [
    (at(5, "sequence", "ACGTXACGT"), "1 of 300 .*hold letters other than ACGTN; first: row 5.*'X' at position 4"),
    (at(5, "activity", "high"), "activity.*row 5.*'high'"),
    (lambda t: t.assign(activity=3.5), "all 300 activities in 'activity' of .* are 3.5: there is nothing to learn"),
    (lambda t: pd.concat([t, t.head(2).assign(activity=9.0)]),
     "2 sequences of .* more than once with different activities; first: row 0 activity = .*, row 300 activ.* = 9"),
    (lambda t: t.drop(columns="activity"), "activity"),
    (lambda t: t.head(0), "no rows"),
])
def test_reporter__bad_table_is_one_message_and_status_1(command, tmp_path, spoil, says):
    write(spoil(planted()), tmp_path / "assay.tsv")
    status, out, err = reporter(command, tmp_path, one_model(tmp_path), "--quiet")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(says, err), err


def test_reporter__mixed_lengths_are_padded_for_a_model_of_one_length(command, tmp_path):
    table = planted()
    table["sequence"] = [s[:LENGTH - i % 3] for i, s in enumerate(table["sequence"])]
    write(table, tmp_path / "assay.tsv")
    model = {"name": "deepstarr", "arguments": {"filters": [5, 3, 3, 3], "hidden": 7}}
    raw = one_model(tmp_path, train={"epochs": 1}) | {"model": model}
    status, out, _ = reporter(command, tmp_path, raw)
    assert status == 0
    assert "200 of 300 sequences of 39 to 41 bp were padded with N on both sides to 41 bp" in out
    assert registry.describe(tmp_path / "run" / "model")[1]["length"] == 41
    assert "were padded with N" in (tmp_path / "run" / "report.html").read_text()
    raw["model"]["arguments"]["length"] = 53
    status, _, err = reporter(command, tmp_path, raw, "--quiet")
    assert status == 1
    assert "53 bp" in err
    assert "41" in err


def test_reporter__checkpoint_of_other_shapes_lists_the_first_three(command, copy):
    folder, raw = copy
    path = folder / "run" / "model" / "config.json"
    path.write_text(path.read_text().replace('"filters": 5', '"filters": 11'))
    shutil.copytree(folder / "run" / "model", folder / "source")
    status, out, err = reporter(command, folder, raw | {"start_from": "source"}, "--quiet")
    assert (status, out) == (1, "")
    assert "3 tensors of " in err
    for line in ("scan.0.bias: (5,) in the file, (11,) in the model",
                 "scan.0.weight: (5, 4, 9) in the file, (11, 4, 9) in the model",
                 "trunk.1.weight: (7, 5) in the file, (7, 11) in the model"):
        assert line in err
    assert command("models", "load", folder / "source")[0] == 1


@pytest.mark.parametrize(("model", "says"), [
    ({"name": "deepstar"}, "no model is called 'deepstar'; did you mean 'deepstarr'"),
    ({"name": "deepbind", "arguments": {"filter": 3}}, "no argument 'filter'; did you mean 'filters'"),
    ({"name": "deepbind", "preset": "gpu"}, "model 'deepbind' has no preset 'gpu'; it has: cpu"),
    ({"name": "bpnet"}, "a reporter assay needs a model of one number a target; 'bpnet' is of the task 'profile'"),
    ({"name": "hyenadna"}, "'hyenadna' is of the task 'language model'; take one of basset, beacon, beluga, "),
    ({"name": "deepstarr", "arguments": {"length": 7}}, "at least 16 bp"),
])
def test_reporter__a_model_that_does_not_do(command, tmp_path, model, says):
    write(planted(), tmp_path / "assay.tsv")
    status, _, err = reporter(command, tmp_path, one_model(tmp_path) | {"model": model}, "--quiet")
    assert status == 1
    assert says in err
    assert "Traceback" not in err


def test_reporter__again_and_what_it_prints(command, copy):
    folder, raw = copy
    status, out, _ = reporter(command, folder, raw)
    assert status == 0
    assert out.startswith("train: done before\nevaluate: done before\nreport: done before\n")
    assert str(folder / "run" / "report.html") in out
    out = reporter(command, folder, raw, "--again")[1]
    assert "train: …" in out
    assert "report: …" in out


def test_run__folder_without_a_configuration(tmp_path):
    with pytest.raises(DataMissingError, match=r"not a run folder \(no config\.yaml\); make one with: ciscribe repo"):
        ReporterRun(tmp_path)
