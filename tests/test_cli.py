import subprocess
import sys

import pytest

import ciscribe
import small_world as small
from ciscribe import cli, workflow
from ciscribe.errors import InputError
from ciscribe.workflow.run import catalog

# The entry point reads sys.argv, as in the shell.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens:UserWarning")
VERBS = ("demo", "run", "data", "train", "evaluate", "predict", "elements", "report", "catalog")


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

    monkeypatch.setattr(workflow.Run, "from_config", fail)
    assert terminal("run", "x.yaml") == (1, "", "error: row [3] of [bold]x[/bold]\n")


def test_main__ctrl_c_is_status_130(terminal, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow.Run, "from_config", stop)
    status, _, err = terminal("run", "x.yaml")
    assert status == 130
    assert err == "stopped; what was complete is kept, the same command continues\n"


def test_main__ctrl_c_in_training_is_status_130(terminal, monkeypatch, tmp_path):
    raw = small.write_inputs(tmp_path)
    path = small.write_yaml(tmp_path / "small.yaml", raw)

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("ciscribe.train.fit.expression_loss", stop)
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
    monkeypatch.setattr(workflow.Run, "run",
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


def test_cli__imports_nothing_heavy():
    code = ("import sys, ciscribe.cli; "
            "print([m for m in ('torch', 'lightning', 'pandas', 'matplotlib', 'numba') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
