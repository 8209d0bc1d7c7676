import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

import small_world as small
from ciscribe.config import parse_config
from ciscribe.data.world import world
from ciscribe.errors import CheckpointError, ConfigError, DataMissingError, DeviceError, InputError, SchemaError
from ciscribe.io.bed import read_bed
from ciscribe.io.tracks import Track, write_bigwig
from ciscribe.models import registry
from ciscribe.train.fit import start_at_mean
from ciscribe.workflow.run import Run, catalog, pair_with_genes

STEPS = Run.STEPS

FILES = ["config.yaml", "provenance.json", "model/model.safetensors", "model/config.json", "model/card.md",
         "predictions.parquet", "elements.bed", "metrics.json", "report.html"]


def start(folder, raw, lines=None):
    tell = (lambda line: None) if lines is None else lines.append
    return Run(folder, parse_config(raw), tell=tell, progress=False)


def again(folder, raw):
    """Run once more; the steps that were done, and those that had been done before."""
    lines = []
    start(folder, raw, lines).run()
    done = [step for step in STEPS if f"{step}: …" in lines]
    assert [step for step in STEPS if f"{step}: done before" in lines] == [s for s in STEPS if s not in done]
    return done


def merged(raw, change):
    """Copy of a configuration with some keys of some parts set."""
    return raw | {k: raw.get(k, {}) | v for k, v in change.items()}


# -- the whole job on a simulated world ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A finished run with a truth, its configuration and what it told."""
    folder = tmp_path_factory.mktemp("simulated")
    truth = world(n_genes=75, n_chroms=5, cells=("liver", "blood"), seed=1)
    truth.write(folder / "world")
    raw = {
        "name": "simulated", "seed": 3,
        "data": {"root": str(folder), "genome": "world/genome.fa", "genes": {"path": "world/genes.gtf"},
                 "expression": {"path": "world/expression.tsv"}, "truth": "world",
                 "tracks": [{"name": t.name, "bigwig": f"world/{t.name}.bw"} for t in truth.tracks]},
        "window": {"half_width": 2048, "resolution": 64, "contact": True},
        "split": {"valid": ["chr2"], "test": ["chr3"]},
        "model": {"name": "seq2exp", "arguments": {"d_model": 8, "n_layers": 1, "d_state": 2, "expand": 1,
                                                   "stem_channels": 4, "include_bp": 256, "center_bp": 256}},
        "train": {"epochs": 2, "batch_size": 5, "learning_rate": 0.003, "device": "cpu", "n_threads": 1},
        "elements": {"peak_method": "local", "bp_fraction": 0.2},
        "report": {"n_loci": 1},
    }
    lines = []
    start(folder / "run", raw, lines).run()
    return folder / "run", raw, lines


def test_run__makes_every_file_that_was_promised(simulated):
    folder, _, lines = simulated
    for name in FILES:
        assert (folder / name).stat().st_size > 0, name
    assert [line for line in lines if line.endswith(": …")] == [f"{step}: …" for step in STEPS]
    assert not [p for p in folder.rglob("*") if p.name.startswith((".partial", ".replaced"))]
    record = json.loads((folder / "provenance.json").read_text())["steps"]
    assert list(record) == list(STEPS)
    assert record["train"]["provenance"]["seed"] == 3
    assert record["data"]["inputs"]["genome"].startswith("sha256:")


def test_run__model_without_a_mask_gets_a_report_and_no_elements(simulated, tmp_path):
    folder, raw, _ = simulated
    shutil.copytree(folder, tmp_path / "run")
    model = {"name": "prism", "arguments": {k: v for k, v in raw["model"]["arguments"].items()
                                            if k not in ("include_bp", "center_bp")}}
    lines = []
    start(tmp_path / "run", raw | {"model": model}, lines).run()
    assert any("has no mask" in line for line in lines)
    assert len(pd.read_parquet(tmp_path / "run" / "elements.parquet")) == 0
    assert (tmp_path / "run" / "elements.bed").exists()
    assert not (tmp_path / "run" / "mask.npz").exists()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "prism" in page
    assert 'id="benchmark"' not in page


def test_run__a_step_done_again_puts_the_later_ones_out_of_date(simulated, tmp_path):
    folder, raw, _ = simulated
    shutil.copytree(folder, tmp_path / "run")
    start(tmp_path / "run", raw).run("predict", again=True)
    assert again(tmp_path / "run", raw) == ["evaluate", "elements", "report"]


def test_fingerprint__another_machine_is_the_same_run(simulated):
    folder, raw, _ = simulated
    other = merged(raw, {"train": {"n_threads": 2, "n_workers": 1, "device": None}})
    ours = Run(folder, parse_config(raw)).fingerprint("report")
    assert Run(folder, parse_config(other)).fingerprint("report") == ours
    assert Run(folder, parse_config(raw | {"seed": 4})).fingerprint("report") != ours


def test_run__predictions_metrics_and_elements_say_what_they_should(simulated):
    folder, _, _ = simulated
    table = pd.read_parquet(folder / "predictions.parquet")
    assert len(table) == 150
    assert {"observed", "predicted", "gbm_signals", "gbm_sequence_signals", "fold", "cell"} <= set(table.columns)
    assert np.isfinite(table["predicted"]).all()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["targets"] == ["liver", "blood"]
    assert metrics["split"]["test"] == {"chroms": ["chr3"], "n_genes": 15}
    assert set(metrics["models"]) == {"seq2exp", "gbm_signals", "gbm_sequence_signals"}
    test = table[(table["fold"] == "test") & (table["cell"] == "blood")]
    r = np.corrcoef(test["observed"], test["predicted"])[0, 1]
    assert metrics["models"]["seq2exp"]["per_target"]["blood"]["pearson"]["value"] == pytest.approx(r, abs=1e-5)
    assert 0.5 < metrics["noise_ceiling"]["mean"] <= 1
    assert [c["window_bp"] for c in metrics["truncation"]] == [4096, 2048, 1024, 512]
    assert len(read_bed(folder / "elements.bed"))
    elements = pd.read_parquet(folder / "elements.parquet")
    assert set(elements["gene_id"]) <= set(test["gene_id"])
    assert {"score", "score_sd", "effect", "evidence", "cell"} <= set(elements.columns)
    benchmark = pd.read_parquet(folder / "benchmark.parquet")
    assert {"seq2exp", "peaks_atac_liver", "peaks_all"} <= set(benchmark["method"])
    page = (folder / "report.html").read_text()
    assert "simulated" in page
    assert "src=\"http" not in page


def test_run__second_time_does_nothing(simulated):
    folder, raw, _ = simulated
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != "config.yaml"}
    assert again(folder, raw) == []
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != "config.yaml"} == before


def test_run__oracle_repeats_the_stored_predictions(simulated):
    folder, _, _ = simulated
    run = Run(folder, tell=lambda line: None)
    batch = run.store.batch([4, 17])
    predicted = run.oracle().predict(batch.codes, batch.signals)
    table = pd.read_parquet(folder / "predictions.parquet")
    np.testing.assert_allclose(predicted, table["predicted"].to_numpy().reshape(-1, 2)[[4, 17]], rtol=1e-4, atol=1e-5)


# -- what is done again, and what is not ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the small world; copies of it are cheap."""
    folder = tmp_path_factory.mktemp("finished")
    raw = small.write_inputs(folder / "inputs", (43, 7, 5))  # enough for a tree of the baselines to split
    raw["elements"] = {"bp_fraction": 0.3}
    raw["report"] = {"n_loci": 0}
    start(folder / "run", raw).run()
    return folder, raw


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of run and inputs (same times), and the configuration that names them."""
    folder, raw = finished
    shutil.copytree(folder, tmp_path / "copy")
    data = raw["data"] | {"root": str(tmp_path / "copy" / "inputs")}
    return tmp_path / "copy", raw | {"data": data}


@pytest.mark.parametrize(("change", "expected"), [
    ({}, []),
    ({"report": {"title": "Another"}}, ["report"]),
    ({"elements": {"max_per_gene": 3}}, ["elements", "report"]),
    ({"model": {"arguments": {"d_model": 5, "n_layers": 1, "d_state": 2, "expand": 1, "stem_channels": 4}}},
     ["train", "predict", "evaluate", "elements", "report"]),
    ({"window": {"transform": "none"}}, list(STEPS)),
])
def test_run__does_again_what_depends_on_the_change(copy, change, expected):
    folder, raw = copy
    raw = merged(raw, change)
    assert again(folder / "run", raw) == expected
    assert again(folder / "run", raw) == []
    for name in FILES:
        assert (folder / "run" / name).exists(), name


def test_run__an_input_that_was_touched_does_all_again(copy):
    folder, raw = copy
    os.utime(folder / "inputs" / "atac.bw")
    assert again(folder / "run", raw) == list(STEPS)


def test_run__an_annotation_is_the_reports_alone(copy):
    folder, raw = copy
    (folder / "inputs" / "known.bed").write_text("chr3\t100\t200\tpromoter\n")
    raw["data"]["annotation"] = "known.bed"
    run = start(folder / "run", raw)
    assert [step for step in STEPS if not run.is_done(step)] == ["report"]


def test_run__lost_output_is_made_again(copy):
    folder, raw = copy
    (folder / "run" / "report.html").unlink()
    assert again(folder / "run", raw) == ["report"]


def test_run__stops_where_it_is_told_and_again_forces_the_step(copy):
    folder, raw = copy
    lines = []
    run = start(folder / "run", raw, lines)
    run.run("predict", again=True)
    assert "predict: …" in lines
    assert "train: done before" in lines
    assert not any(line.startswith("evaluate") for line in lines)
    run.run("train", again=True)
    assert "train: …" in lines
    with pytest.raises(ConfigError, match="step is one of data, train, predict, evaluate, elements, report; got"):
        run.run("tran")


def test_run__failing_step_leaves_what_was_there(copy, monkeypatch):
    folder, raw = copy
    before = {name: (folder / "run" / name).read_bytes() for name in FILES if name != "config.yaml"}

    def full(*arguments, **named):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ciscribe.workflow.run.write_bed", full)
        with pytest.raises(OSError, match="No space left"):
            start(folder / "run", merged(raw, {"elements": {"max_per_gene": 5}})).run()
    assert {name: (folder / "run" / name).read_bytes() for name in before} == before
    assert not [p for p in (folder / "run").rglob("*") if p.name.startswith(".partial")]
    assert again(folder / "run", merged(raw, {"elements": {"max_per_gene": 5}})) == ["elements", "report"]


# -- killed and continued ------------------------------------------------------------------------------------


class Stop:
    """Ctrl-C when a line begins with a text."""

    def __init__(self, text):
        self.text, self.lines = text, []

    def __call__(self, line):
        self.lines.append(line)
        if line.strip().startswith(self.text):
            raise KeyboardInterrupt


def killed(folder, raw):
    with pytest.raises(KeyboardInterrupt):
        Run(folder, parse_config(raw), tell=Stop("epoch 2/"), progress=False).run()


def test_run__killed_training_continues_and_ends_as_if_nothing_had_happened(finished, tmp_path):
    raw = merged(finished[1], {"train": {"epochs": 3, "average": 0.5}})
    start(tmp_path / "whole", raw).run("train")
    killed(tmp_path / "part", raw)
    assert (tmp_path / "part" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "part" / "model").exists()
    lines = []
    start(tmp_path / "part", raw, lines).run("train")
    assert "data: done before" in lines
    assert not any(line.strip().startswith("epoch 1/") for line in lines)
    whole, part = (registry.load(tmp_path / name / "model")[0].state_dict() for name in ("whole", "part"))
    assert all(torch.allclose(whole[k], part[k], atol=1e-6) for k in whole)
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "part")]
    pd.testing.assert_frame_equal(logs[0], logs[1][logs[0].columns], atol=1e-6)
    assert not (tmp_path / "part" / "checkpoints").exists()


def test_run__killed_training_is_not_continued_with_another_plan(finished, tmp_path):
    raw = merged(finished[1], {"train": {"epochs": 3}})
    killed(tmp_path / "run", raw)
    other = merged(raw, {"train": raw["train"] | {"batch_size": 5}})
    with pytest.raises(CheckpointError, match=r"another model, data set or training plan.* remove its checkpoints/"):
        start(tmp_path / "run", other).run()
    start(tmp_path / "run", other).run("train", again=True)  # this is how to give it up
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_run__sigkill_in_training_loses_nothing_that_was_written(finished, tmp_path):
    raw = merged(finished[1], {"train": {"epochs": 7}})
    config = small.write_yaml(tmp_path / "small.yaml", raw)
    command = [sys.executable, "-m", "ciscribe.cli", "run", str(config), "--out", str(tmp_path / "part")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "epoch 3/" in line:
                process.send_signal(signal.SIGKILL)
                break
    time.sleep(0.1)
    lines = []
    start(tmp_path / "part", raw, lines).run()
    assert not any(line.strip().startswith("epoch 1/") for line in lines)
    start(tmp_path / "whole", raw).run("train")
    whole, part = (registry.load(tmp_path / name / "model")[0].state_dict() for name in ("whole", "part"))
    assert all(torch.allclose(whole[k], part[k], atol=1e-6) for k in whole)


# -- bad input -----------------------------------------------------------------------------------------------


def table(name, change):
    def spoil(folder, raw):
        rows = pd.read_csv(folder / name, sep="\t")
        change(rows).to_csv(folder / name, sep="\t", index=False)
        return raw
    return spoil


def cell(row, column, value):
    def change(rows):
        rows = rows.astype({column: object})
        rows.loc[row, column] = value
        return rows
    return change


def other_build(folder, raw):
    write_bigwig(folder / "atac.bw", Track("atac", small.make_track("atac", 3).runs), small.SIZES | {"chr1": 6073})
    return raw


def missing(name):
    def spoil(folder, raw):
        (folder / name).unlink()
        return raw
    return spoil


def config(change):
    return lambda folder, raw: merged(raw, change)


@pytest.mark.parametrize(("spoil", "error", "says"), [
    (table("genes.tsv", cell(42, "end", 6100)), SchemaError,
     "1 of 55 genes run off the end of their chromosome; first: row 42 chr1:.*-6100 chr1g42"),
    (table("genes.tsv", cell(4, "gene_id", "chr1g3")), InputError, "1 of 55 genes repeat a gene_id; first: row 4"),
    (table("expression.tsv", cell(2, "blood", "NaN")), InputError,
     "1 of 165 expression values are missing or infinite; first: gene chr1g2, column blood"),
    (table("expression.tsv", cell(2, "blood", -3)), InputError, "1 of 165 expression values are negative; first: gene"),
    (table("genes.tsv", lambda t: t.assign(chrom="sc" + t["chrom"])), InputError,
     "the genes has scchr1, scchr2, scchr3; the genome has chr1, chr2, chr3; perhaps scchr1 → chr1"),
    (other_build, InputError, "track atac: .*chr1 has 6,073 bp in the track, 6,007 in the genome: another build?"),
    (config({"split": {"valid": ["chr1"], "test": ["chr3", "chr2"]}}), ConfigError, "the train fold is empty: no gene"),
    (config({"split": {"valid": ["chr2"], "test": ["chr4"]}}), ConfigError, "no gene lies on chromosome 'chr4'"),
    (config({"window": {"half_width": 113, "resolution": 16}}), ConfigError, "226 bp must be a positive multiple"),
    (config({"model": {"name": "seq2xp"}}), KeyError, "no model is called 'seq2xp'; did you mean 'seq2exp'"),
    (config({"model": {"arguments": {"d_modle": 8}}}), ConfigError, "no argument 'd_modle'; did you mean 'd_model'"),
    (config({"model": {"arguments": {"resolution": 32}}}), ConfigError,
     "model.arguments.resolution is 32 bp but window.resolution is 16 bp; they must be equal"),
    (missing("genome.fa"), DataMissingError, r"the genome file is not there: .*genome\.fa; check the root"),
    (missing("atac.bw"), DataMissingError, r"the track atac file is not there: .*atac\.bw"),
])
def test_run__bad_input_is_named_and_nothing_is_lost(copy, spoil, error, says):
    folder, raw = copy
    before = {name: (folder / "run" / name).read_bytes() for name in FILES if name != "config.yaml"}
    raw = spoil(folder / "inputs", raw)
    with pytest.raises(error, match=says):
        start(folder / "run", raw).run()
    kept = {name: (folder / "run" / name).read_bytes() for name in before if name != "provenance.json"}
    assert kept == {name: before[name] for name in kept}


def test_run__absent_gpu(copy, monkeypatch):
    folder, raw = copy
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"device 'cuda' was asked for, but PyTorch sees no GPU.* use device cpu"):
        start(folder / "run", merged(raw, {"seed": 99, "train": {"device": "cuda"}})).run()


def test_run__model_folder_of_another_model(copy):
    folder, raw = copy
    path = folder / "run" / "model" / "config.json"
    path.write_text(path.read_text().replace('"model": "seq2exp"', '"model": "caduceus"'))
    with pytest.raises(CheckpointError, match="holds the model 'caduceus', but 'seq2exp' was expected"):
        start(folder / "run", raw).run("predict", again=True)



def test_run__truth_folder_without_the_file(copy):
    folder, raw = copy
    raw["data"]["truth"] = "."
    with pytest.raises(DataMissingError, match=r"data\.truth names a folder without expression_clean\.tsv"):
        start(folder / "run", raw).run()


def test_run__folder_that_is_none(tmp_path):
    with pytest.raises(DataMissingError, match=r"is not a run folder \(no config\.yaml\); make one with: ciscribe run"):
        Run(tmp_path)


def test_from_config__root_is_relative_to_the_file_and_folder_to_the_caller(finished, tmp_path, monkeypatch):
    folder, raw = finished
    (tmp_path / "configs").mkdir()
    raw = merged(raw, {"data": {"root": os.path.relpath(folder / "inputs", tmp_path / "configs")}})
    path = small.write_yaml(tmp_path / "configs" / "small.yaml", raw)
    monkeypatch.chdir(tmp_path)
    run = Run.from_config(path, tell=lambda line: None, progress=False)
    assert str(run.folder) == "runs/small"
    assert run.config.data.root == str((folder / "inputs").resolve())
    assert Run(run.folder, tell=lambda line: None).config == run.config


# -- small parts ---------------------------------------------------------------------------------------------


def test_start_at_mean__sets_the_last_bias_only():
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    start_at_mean(model, np.array([1.0, 2.0, 5.0]))
    assert model[3].bias.tolist() == [1, 2, 5]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if k != "3.bias")


def test_pair_with_genes__every_gene_whose_window_a_call_touches():
    calls = pd.DataFrame({"chrom": ["a", "a", "b"], "start": [10, 90, 10], "end": [20, 110, 20],
                          "score": [3.0, 2.0, 1.0]})
    windows = pd.DataFrame({"chrom": ["a", "a", "c"], "start": [0, 100, 0], "end": [100, 200, 100],
                            "gene_id": ["x", "y", "z"]})
    genes = pd.DataFrame({"gene_id": ["y", "x", "z"], "tss": [150, 50, 50]})
    pairs = pair_with_genes(calls, windows, genes)
    found = sorted(zip(pairs["start"], pairs["gene_id"], pairs["distance"], pairs["score"], strict=True))
    assert found == [(10, "x", 35, 3.0), (90, "x", 50, 2.0), (90, "y", 50, 2.0)]


def test_catalog__holds_every_model_baseline_and_caller():
    names = [card.name for card in catalog()]
    assert len(names) == len(set(names))
    assert {*registry.names(), "gbm_signals", "gbm_sequence_signals"} <= set(names)
