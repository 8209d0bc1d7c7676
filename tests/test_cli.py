import json
import shutil
import subprocess
import sys

import pytest
import yaml

import ciscribe
import small_world as small
from ciscribe import cli
from ciscribe.config import ReporterConfig, parse_config
from ciscribe.errors import InputError
from ciscribe.models import registry
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.run import Run, catalog
from planted import one_model, planted, write

# The entry point reads sys.argv, as in the shell.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens:UserWarning")
VERBS = ("demo", "run", "data", "train", "evaluate", "predict", "elements", "report", "catalog", "reporter",
         "models", "bench", "explain", "motifs", "syntax", "design", "alleles")


def call(monkeypatch, capsys, *words):
    """Exit status, standard output and standard error of a command."""
    monkeypatch.setattr(sys, "argv", ["ciscribe", *map(str, words)])
    status = 0
    try:
        cli.main()
    except SystemExit as stop:
        status = stop.code or 0
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *words: call(monkeypatch, capsys, *words)


def test_main__help_lists_the_verbs(terminal):
    status, out, _ = terminal("--help")
    assert status == 0
    for verb in VERBS:
        assert f"{verb} " in out
    assert "Reads, explains and writes the cis-regulatory code" in out
    status, out, _ = terminal("data", "build", "--help")
    assert status == 0
    assert "Read genome, signals, genes and expression" in out
    assert terminal("--version")[1].strip() == ciscribe.__version__


@pytest.mark.parametrize("verb", VERBS)
def test_main__every_verb_has_its_help(terminal, verb):
    status, out, _ = terminal(verb, "--help")
    assert status == 0
    assert "Usage: ciscribe" in out


def test_main__expected_error_is_one_message_and_status_1(terminal, tmp_path):
    status, out, err = terminal("run", tmp_path / "none.yaml")
    assert status == 1
    assert out == ""
    assert err.startswith("error: there is no configuration at ")
    assert err.count("\n") == 1
    status, _, err = terminal("report", tmp_path)
    assert status == 1
    assert "is not a run folder (no config.yaml); make one with: ciscribe run CONFIG" in err


def test_main__unknown_config_key_names_the_nearest(terminal, tmp_path):
    raw = small.write_inputs(tmp_path)
    raw["train"]["epoch"] = 3
    path = small.write_yaml(tmp_path / "small.yaml", raw)
    status, _, err = terminal("run", path, "--out", tmp_path / "run")
    assert status == 1
    assert "train.epoch: unknown key; did you mean 'epochs'?" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_main__message_is_not_read_as_markup(terminal, monkeypatch):
    def fail(*arguments, **options):
        raise InputError("row [3] of [bold]x[/bold]")

    monkeypatch.setattr(Run, "from_config", fail)
    assert terminal("run", "x.yaml") == (1, "", "error: row [3] of [bold]x[/bold]\n")


def test_main__ctrl_c_is_status_130(terminal, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "from_config", stop)
    status, _, err = terminal("run", "x.yaml")
    assert status == 130
    assert err == "stopped; what was complete is kept, the same command continues\n"


def test_main__ctrl_c_in_training_is_status_130(terminal, monkeypatch, tmp_path):
    raw = small.write_inputs(tmp_path)
    path = small.write_yaml(tmp_path / "small.yaml", raw)

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("ciscribe.train.tasks.expression_loss", stop)
    status, _, err = terminal("run", path, "--out", tmp_path / "run", "--quiet")
    assert status == 130
    assert "the same command continues" in err


def test_main__unknown_verb_and_missing_argument(terminal):
    status, out, err = terminal("trian")
    assert status > 0
    assert "trian" in out + err
    status, out, err = terminal("run")
    assert status > 0
    assert "CONFIG" in (out + err).upper()


def test_catalog__prints_all_methods_and_one_kind(terminal):
    status, out, _ = terminal("catalog")
    assert status == 0
    for card in catalog():
        assert card.name in out
    _, out, _ = terminal("catalog", "--kind", "baseline")
    assert "gbm_signals" in out
    assert "caduceus" not in out


def test_verbs__are_steps_of_the_library(terminal, monkeypatch, tmp_path):
    raw = small.write_inputs(tmp_path / "inputs")
    path = small.write_yaml(tmp_path / "small.yaml", raw)
    seen = []
    monkeypatch.setattr(Run, "run",
                        lambda self, until="report", again=False: seen.append((until, again)) or self.folder)
    out = tmp_path / "run"
    assert terminal("data", "build", path, "--out", out)[0] == 0
    for verb in ("train", "predict", "evaluate", "elements"):
        assert terminal(verb, out, "--quiet")[0] == 0
    assert terminal("train", out, "--again")[0] == 0
    _, text, _ = terminal("report", out)
    assert seen == [("data", False), ("train", False), ("predict", False), ("evaluate", False), ("elements", False),
                    ("train", True), ("report", False)]
    assert str(out / "report.html") in text
    assert str(out / "report.html") in terminal("run", path, "--out", out)[1]


def test_data_build__tells_what_it_read(terminal, tmp_path):
    path = small.write_yaml(tmp_path / "small.yaml", small.write_inputs(tmp_path))
    status, out, _ = terminal("data", "build", path, "--out", tmp_path / "run")
    assert status == 0
    assert "genes: 3 of 3 chromosome names match the genome" in out
    assert "WindowStore(31 genes × 224 bp, 2 tracks at 16 bp, 3 targets)" in out
    status, out, _ = terminal("data", "build", path, "--out", tmp_path / "run")
    assert out == "data: done before\n"
    assert terminal("data", "build", path, "--out", tmp_path / "run", "--quiet")[1] == ""


# -- models --------------------------------------------------------------------------------------------------


def test_models_list__all_and_by_pattern(terminal):
    status, out, _ = terminal("models", "list")
    assert status == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *registry.names()]
    assert "622,722  Predicts how strongly" in next(line for line in lines if line.startswith("deepstarr"))
    out = terminal("models", "list", "*bp*")[1]
    assert [line.split()[0] for line in out.splitlines()] == ["name", "bpnet", "chrombpnet"]


def test_models_show__card_arguments_and_presets(terminal):
    status, out, _ = terminal("models", "show", "deepbind")
    assert status == 0
    for line in ("# deepbind", "- **Task**: classification", "- kernel = 16", "- first_activation = 'relu'",
                 "Preset cpu: kernel=24"):
        assert line in out
    assert "Preset cpu: as published" in terminal("models", "show", "deepstarr")[1]
    status, out, err = terminal("models", "show", "deepstar")
    assert (status, out) == (1, "")
    assert "no model is called 'deepstar'; did you mean 'deepstarr'" in err


@pytest.fixture
def saved(tmp_path):
    """A model folder of ours."""
    arguments = {"n_targets": 3, "filters": 5, "kernel": 7, "hidden": 11}
    registry.save(tmp_path / "model", "deepbind", registry.create("deepbind", **arguments), arguments,
                  targets=["a", "[b]", "c"])
    return tmp_path / "model"


def test_models_load__says_what_it_is(terminal, saved):
    status, out, _ = terminal("models", "load", saved)
    assert status == 0
    n = sum(p.numel() for p in registry.load(saved)[0].parameters())
    assert out == f"DeepBind: {n} parameters\n- targets: ['a', '[b]', 'c']\n"


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
    (lambda folder: (folder / "config.json").unlink(), "is of no family known here"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "model.safetensors is damaged"),
    (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
])
def test_models_load__damaged_folder_is_one_message(terminal, saved, spoil, says):
    spoil(saved)
    status, out, err = terminal("models", "load", saved)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert says in err
    assert "Traceback" not in err


def test_models_export__writes_a_folder_that_loads(terminal, saved, tmp_path):
    status, out, _ = terminal("models", "export", saved, tmp_path / "hub", "--repo", "lab/promoters", "--licence",
                              "cc-by-4.0")
    assert status == 0
    assert str(tmp_path / "hub") in out
    page = (tmp_path / "hub" / "README.md").read_text()
    assert "license: cc-by-4.0" in page
    assert "hf://lab/promoters" in page
    assert "## Measured" not in page
    assert terminal("models", "load", tmp_path / "hub")[0] == 0
    assert terminal("models", "export", tmp_path / "none", tmp_path / "hub")[0] == 1


def test_models_export__of_a_run_tells_its_test_scores(terminal, saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run" / "model")
    scores = {"per_target": {"leaf": {"pearson": {"value": 0.6875}, "spearman": {"value": None}}}}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({"main": "it", "models": {"it": scores, "gbm": {}}}))
    assert terminal("models", "export", tmp_path / "run" / "model", tmp_path / "hub")[0] == 0
    page = (tmp_path / "hub" / "README.md").read_text()
    assert "| test fold, leaf | pearson | 0.6875 |" in page
    assert "spearman" not in page


# -- reporter assays -----------------------------------------------------------------------------------------


@pytest.fixture
def assay(tmp_path):
    """Folder with a table, and a configuration of one model."""
    write(planted(90), tmp_path / "assay.tsv")
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(one_model(tmp_path, train={"epochs": 1})))
    return tmp_path


def test_reporter__one_command_from_table_to_page(terminal, assay):
    status, out, _ = terminal("reporter", assay / "one.yaml", "--out", assay / "run")
    assert status == 0
    for line in ("train: …", "epoch 1/1", "gbm_kmers: pearson", "report: …"):
        assert line in out
    assert str(assay / "run" / "report.html") in out
    out = terminal("reporter", assay / "one.yaml", "--out", assay / "run", "--quiet")[1]
    assert out.split() == ["report:", str(assay / "run" / "report.html")]


def bench(folder, **changes):
    model = {"name": "deepbind", "arguments": {"filters": 5, "kernel": 9, "hidden": 7}}
    raw = {"name": "tiny", "root": str(folder), "folds": 3, "seeds": 1, "train": {"epochs": 1, "batch_size": 16},
           "assays": {"one": {"path": "assay.tsv"}}, "models": {"small": model}} | changes
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_bench_reporter__estimates_then_runs(terminal, assay):
    status, out, _ = terminal("bench", "reporter", bench(assay), "--out", assay / "bench", "--dry-run")
    assert status == 0
    assert "one: 90 sequences of 41 bp" in out
    assert "6 fits, about 0 minutes on 1 thread (baselines, early stops and transfers not counted)" in out
    assert not (assay / "bench" / "fits").exists()
    status, out, _ = terminal("bench", "reporter", bench(assay), "--out", assay / "bench", "--quiet")
    assert status == 0
    row = next(line for line in out.splitlines() if " small " in line)
    assert " 235 " in row  # a whole number
    assert "ridge_kmers" in out
    assert "nan" not in out
    assert str(assay / "bench") in out
    assert "0 fits" in terminal("bench", "reporter", bench(assay), "--out", assay / "bench", "--dry-run")[1]


@pytest.mark.parametrize(("change", "words", "says"), [
    ({"modles": {}}, (), "modles: unknown key; did you mean 'models'?"),
    ({"models": {"small": {"name": "deepbnd"}}}, (), "no model is called 'deepbnd'; did you mean 'deepbind'"),
    ({"assays": {"one": {"path": "none.tsv"}}}, (), "none.tsv"),
    ({"assays": {"one": {"path": "assay.tsv", "activity": "activty"}}}, (), "activty"),
    ({}, ("--jobs", "0"), "at least 1 fit runs at a time; got n_jobs=0"),
])
def test_bench_reporter__expected_error_is_one_message_and_status_1(terminal, assay, change, words, says):
    path = bench(assay, **change)
    status, out, err = terminal("bench", "reporter", path, "--out", assay / "bench", "--quiet", *words)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert says in err


# -- explanations --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Run folder of a model that was trained for an epoch."""
    folder = tmp_path_factory.mktemp("trained")
    write(planted(90), folder / "assay.tsv")
    raw = one_model(folder, train={"epochs": 1})
    ReporterRun(folder / "run", parse_config(raw, "it.yaml", ReporterConfig), tell=lambda line: None,
                progress=False).run()
    return folder / "run"


def test_explain__one_command_a_part(terminal, trained):
    status, out, err = terminal("explain", trained, "--n", "7", "--method", "gradient", "--fold", "test")
    assert (status, err) == (0, "")
    assert "attributions: 7 sequences of 41 bp …" in out
    assert str(trained / "explain" / "report.html") in out
    status, out, _ = terminal("motifs", trained, "--engine", "clusters", "--min-seqlets", "2", "--quiet")
    assert status == 0
    assert out.split() == ["report:", str(trained / "explain" / "report.html")]
    status, out, _ = terminal("syntax", trained, "--words", "TGAC", "--words", "TATAAR", "--n-backgrounds", "3",
                              "--max-gap", "2")
    assert status == 0
    assert "syntax: 2 motifs in 3 backgrounds" in out
    status, out, _ = terminal("bench", "attribution", trained, "--methods", "gradient", "--n", "2", "--quiet")
    assert status == 0
    assert " gradient " in out
    assert " random " in out
    assert {"attributions.npz", "patterns.npz", "spacing.parquet", "methods.parquet"} <= {
        path.name for path in (trained / "explain").iterdir()}
    status, out, _ = terminal("report", trained)  # out of date by now, and of either kind of run
    assert status == 0
    assert "report: …" in out
    assert 'id="contributions"' in (trained / "report.html").read_text()
    assert "report: done before" in terminal("report", trained)[1]


@pytest.mark.parametrize(("words", "says"), [
    (("explain", "--method", "salience"), "no attribution method is called 'salience'; did you mean 'saliency'?"),
    (("explain", "--genes", "seq1", "--genes", "sek2"), "1 of 2 names are not in this run of 90 sequences; first: "),
    (("explain", "--track", "activty"), "no target is called 'activty' here; did you mean 'activity'?"),
    (("motifs", "--database", "none.meme"), "none.meme"),
    (("syntax", "--words", "T!"), "'T!', of which '!' is none"),
    (("bench", "attribution", "--methods", "deeplft"), "no attribution method is called 'deeplft'; did you mean"),
    (("bench", "attribution", "--others", "nowhere"), "nowhere/model is not a model folder"),
])
def test_explain__expected_error_is_one_message_and_status_1(terminal, trained, words, says):
    n = 2 if words[0] == "bench" else 1
    status, out, err = terminal(*words[:n], trained, *words[n:], "--quiet")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err


# -- designs -------------------------------------------------------------------------------------------------


def designed(trained, path, **changes):
    raw = {"name": "new", "root": str(trained.parent), "run": "run", "judge": "run", "n": 2, "budget": 30,
           "method": "screen"} | changes
    path.write_text(yaml.safe_dump(raw))
    return path


def test_design__league_and_alleles_print_what_they_found(terminal, trained, tmp_path):
    path = designed(trained, tmp_path / "it.yaml")
    status, out, _ = terminal("design", path, "--out", tmp_path / "new")
    assert status == 0
    assert "design: screen, 2 designs of 41 bp from 16 starts, 30 model calls, 0 rules …" in out
    assert str(tmp_path / "new" / "report.html") in out
    status, out, _ = terminal("bench", "design", path, "--methods", "screen", "--methods", "anneal", "--seeds", "1",
                              "--budgets", "30", "--budgets", "40", "--out", tmp_path / "league", "--quiet")
    assert status == 0
    assert [out.count(f" {word} ") for word in ("screen", "anneal", "30", "40")] == [2, 2, 2, 2]
    assert str(tmp_path / "league" / "report.html") in out
    (tmp_path / "locus.fa").write_text(">here\n" + "ACGGTCATTGGCCATA" * 5 + "\n")
    status, out, _ = terminal("alleles", tmp_path / "locus.fa", "--run", trained, "--tools", "Cas9", "--scope", "20",
                              "60", "--max-span", "9", "--goal", "minimize")
    assert status == 0
    assert "here: " in out
    assert "wild type" in out
    assert str(trained / "alleles" / "locus" / "report.html") in out


@pytest.mark.parametrize(("change", "words", "says"), [
    ({"methd": "screen"}, ("design",), "methd: unknown key; did you mean 'method'?"),
    ({"method": "sample"}, ("design",), "sample begins from a generator; give generator: {}"),
    ({"judge": None}, ("bench", "design"), "a league needs a judge"),
])
def test_design__expected_error_is_one_message_and_status_1(terminal, trained, tmp_path, change, words, says):
    status, out, err = terminal(*words, designed(trained, tmp_path / "it.yaml", **change), "--quiet")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert says in err


def test_cli__imports_nothing_heavy():
    code = ("import sys, ciscribe.cli; "
            "print([m for m in ('torch', 'lightning', 'pandas', 'matplotlib', 'numba') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
