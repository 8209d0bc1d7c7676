"""Every example runs as a newcomer would run it, and shows what it says it shows."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def start(name, monkeypatch, *arguments):
    """Run a script of examples/ from its first line to its last; gives back its names."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_plot_locus__writes_a_figure_with_peaks_and_elements(tmp_path, monkeypatch, capsys):
    start("plot_locus.py", monkeypatch, tmp_path / "locus.svg")
    text = (tmp_path / "locus.svg").read_text()
    assert text.rstrip().endswith("</svg>")
    assert "locus.svg" in capsys.readouterr().out


def test_own_model_as_oracle__agrees_with_the_truth_in_part(monkeypatch, capsys):
    names = start("own_model_as_oracle.py", monkeypatch)
    out = capsys.readouterr().out
    assert "expression of genes: r 0." in out
    found = names["main"]()
    assert found["elements"] > 100
    for what in ("expression of genes", "effect of elements"):
        assert 0.2 < found[what] < 0.95, what  # a hand-made model sees something, and not all of it


def test_reporter_assay__beats_the_words_and_knows_where_a_site_counts(monkeypatch, capsys):
    found = start("reporter_assay.py", monkeypatch)["found"]
    assert "activity of held-out promoters, model: r 0." in capsys.readouterr().out
    assert 0.5 < found["model"] < 0.95  # the measurement is noisy
    assert found["model"] > max(found["gbm_kmers"], found["ridge_kmers"]) > 0.3
    assert found["place"] > 0.8


def test_explain_model__points_at_the_true_sites(monkeypatch, capsys):
    found = start("explain_model.py", monkeypatch)["found"]
    assert "bases in a true site, of the top 5 % by deeplift: " in capsys.readouterr().out
    assert 0.4 < found["prediction"] < 0.95
    for method in ("deeplift", "ism"):
        assert found[method] > max(3 * found["chance"], found["gradient"]), method
        assert found[f"faithfulness of {method}"] > 0.5


def test_score_variants__finds_the_broken_sites(monkeypatch, capsys):
    found = start("score_variants.py", monkeypatch)["found"]
    assert "160 variants, half of which break a binding site" in capsys.readouterr().out
    for method in ("network", "motifs"):
        assert 0.85 < found[method] < 1, method
    assert found["signs"] > 0.85
    assert found["p_breaking"] < 0.05 < found["p_neutral"]


def test_examples__each_has_a_test():
    tested = {"plot_locus.py", "own_model_as_oracle.py", "reporter_assay.py", "explain_model.py", "score_variants.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples__say_how_to_run_them(path):
    assert f"python examples/{path.name}" in path.read_text()
