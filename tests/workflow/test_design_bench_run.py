"""A league of designers on a run of one's own, and alleles of a locus, from files to pages."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ciscribe.config import ReporterConfig, parse_config
from ciscribe.design.alleles import pareto_front
from ciscribe.errors import CiscribeError, ConfigError, InputError, UnknownNameError
from ciscribe.sequence import decode
from ciscribe.workflow import design_bench
from ciscribe.workflow.alleles import score_alleles
from ciscribe.workflow.design_bench import compare_designers
from ciscribe.workflow.reporter import ReporterRun
from planted import LENGTH, MOTIF, one_model, planted, write

QUIET = {"tell": lambda line: None, "progress": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("league")
    write(planted(), folder / "assay.tsv")
    for name, seed in (("run", 3), ("judge", 4)):
        raw = one_model(folder, train={"epochs": 12}, seed=seed)
        ReporterRun(folder / name, parse_config(raw, "it.yaml", ReporterConfig), **QUIET).run("train")
    yield folder
    torch.set_num_threads(before)


def configured(folder, path, **changes):
    raw = {"name": "new", "root": str(folder), "run": "run", "judge": "judge", "n": 5, "start": {"n": 3},
           "rules": {"homopolymer": 5}} | changes
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}))
    return path


# ---- the league


def test_league_ranks_by_the_judge_and_goes_on_where_it_was_stopped(trained, tmp_path, monkeypatch):
    path, out = configured(trained, tmp_path / "it.yaml", title="Ours"), tmp_path / "out"
    table, folder = compare_designers(path, ["screen", "genetic", "anneal"], seeds=2, budgets=[200], out=out, **QUIET)
    assert folder == out
    runs = pd.read_parquet(out / "runs.parquet")
    assert len(runs) == 6
    assert (runs["queries"] <= 200).all()
    assert (runs["feasible"] == 1).all()
    assert sorted(table["method"]) == ["anneal", "genetic", "screen"]  # those that lose are there
    assert table["per_thousand"].is_monotonic_decreasing
    assert table["judge_gain"].iloc[0] == pytest.approx(
        runs.loc[runs["method"] == table["method"].iloc[0], "judge_gain"].mean())
    page = (out / "report.html").read_text()
    assert "Ours: designers" in page
    assert 'id="league-200"' in page
    assert 'id="failed"' not in page

    asked = []
    honest = design_bench.design
    monkeypatch.setattr(design_bench, "design", lambda *a, **k: asked.append((a[2], k["seed"])) or honest(*a, **k))
    compare_designers(path, ["screen", "genetic", "anneal"], seeds=2, budgets=[200], out=out, **QUIET)
    assert asked == []
    table, _ = compare_designers(path, ["screen", "genetic"], seeds=3, budgets=[200], out=out, **QUIET)
    assert sorted(table["method"]) == ["genetic", "screen"]  # what was not asked for is kept and not shown
    assert asked == [("screen", 2), ("genetic", 2)]
    del asked[:]
    configured(trained, path, rules={"homopolymer": 4})  # another league
    table, _ = compare_designers(path, ["screen"], seeds=1, budgets=[200], out=out, **QUIET)
    assert asked == [("screen", 0)]
    assert table["seeds"].tolist() == [1]


def test_an_interrupt_keeps_what_is_done(trained, tmp_path, monkeypatch):
    path, out = configured(trained, tmp_path / "it.yaml"), tmp_path / "out"
    honest, calls = design_bench.design, []

    def stopped(*given, **named):
        calls.append(given)
        made = honest(*given, **named)
        made.attrs["stopped"] = "interrupted" if len(calls) == 2 else made.attrs["stopped"]
        return made

    monkeypatch.setattr(design_bench, "design", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare_designers(path, ["screen"], seeds=3, budgets=[60], out=out, **QUIET)
    assert pd.read_parquet(out / "runs.parquet")["seed"].tolist() == [0]


def test_all_that_can_be_fed_takes_part_and_what_fails_is_told(trained, tmp_path):
    small = {"arguments": {"channels": 5}, "fit": {"epochs": 1}}
    path = configured(trained, tmp_path / "it.yaml", generator=small, method="latent", start={"n": 2},
                      options={"n_steps": 3}, n=2)
    table, out = compare_designers(path, seeds=1, budgets=[60], out=tmp_path / "out", **QUIET)
    runs = pd.read_parquet(out / "runs.parquet")
    assert {"sample", "reinforce", "grpo", "drakes", "latent", "greedy", "edit"} <= set(runs["method"])
    assert len(runs) == len(set(runs["method"]))
    assert {"implant", "grammar"}.isdisjoint(runs["method"])  # no motifs and no rules were given
    assert {p.name for p in (out / "generators").iterdir()} == {"autoregressive", "masked_diffusion", "wgan"}
    assert "latent" in set(table["method"])
    assert np.isnan(runs.set_index("method").loc["latent", "edits"])  # begins from no start

    failed = runs.set_index("method")["error"].dropna()
    assert "budget pays for" in failed["greedy"]  # 60 calls are no round of two starts
    assert failed["greedy"] in (out / "report.html").read_text()
    assert set(failed.index) == set(runs["method"]) - set(table["method"])


@pytest.mark.parametrize(("change", "methods", "error", "says"), [
    ({"judge": None}, [], ConfigError, "a league needs a judge"),
    ({}, ["greddy"], UnknownNameError, "did you mean 'greedy'"),
    ({}, ["greedy", "implant"], ConfigError, r"motifs: FILE\.meme"),
    ({}, ["drakes"], ConfigError, r"masked_diffusion.*generator: \{path: FOLDER\}"),
    ({"start": {"choose": "none"}}, ["edit"], ConfigError, "none of 1 runs was possible; first: edit: edit changes"),
])
def test_a_league_that_cannot_be_says_why(trained, tmp_path, change, methods, error, says):
    path = configured(trained, tmp_path / "it.yaml", **change)
    with pytest.raises(error, match=says):
        compare_designers(path, methods, seeds=1, budgets=[300], out=tmp_path / "out", **QUIET)


# ---- alleles


def locus(seed):
    """The planted motif in the middle of the model's sequence, between 30 bp of the genome; a PAM on either side."""
    codes = np.random.default_rng(seed).integers(0, 4, LENGTH + 60)
    text = list(decode(codes.astype(np.uint8)))
    text[46:46 + len(MOTIF)] = MOTIF
    text[44:46] = text[60:62] = "GG"
    return "".join(text)


def test_alleles_of_a_file_are_scored_and_shown(trained, tmp_path):
    fasta = tmp_path / "loci.fa"
    fasta.write_text(f">one\n{locus(1)}\n>two\n{locus(2)}\n")
    table, out = score_alleles(fasta, trained / "run", tmp_path / "out", goal="minimize", tools=["Cas9"],
                               tell=lambda line: None)
    assert {p.name for p in out.iterdir()} == {"alleles.tsv", "report.html", "provenance.json"}
    written = pd.read_csv(out / "alleles.tsv", sep="\t")
    assert written["locus"].unique().tolist() == ["one", "two"]
    for name, part in table.groupby("locus"):
        assert part["kind"].iloc[0] == "wild type"
        assert part["sequence"].iloc[0] == locus(1 if name == "one" else 2)[30:30 + LENGTH]  # its middle
        assert (part["score"] == -part["prediction"]).all()
        np.testing.assert_array_equal(part["front"], pareto_front(
            part["score"].to_numpy(), part["n_guides"].to_numpy(), part["deleted"].to_numpy()))
    best = table.loc[table["score"].idxmax()]
    assert MOTIF not in best["sequence"]  # what raises the output is what guides take away
    page = (out / "report.html").read_text()
    for anchor in ("alleles-1", "alleles-2", "rates"):
        assert f'id="{anchor}"' in page
    moved, _ = score_alleles(fasta, trained / "run", tmp_path / "moved", offset=7, tools=["ABE"],
                             tell=lambda line: None)
    assert moved["sequence"].iloc[0] == locus(1)[7:7 + LENGTH]
    assert set(moved["kind"]) == {"wild type", "base edit"}


@pytest.mark.parametrize(("text", "given", "error", "says"), [
    (">short\nACGT\n", {}, ConfigError, "the model reads 41 bp, short has 4 bp"),
    (f">gap\n{'ACGT' * 20}NNNN\n", {}, CiscribeError, "gap: .*4 of 84 are N"),
    (f">one\n{'ACGT' * 20}\n", {"tools": ["Cas8"]}, CiscribeError, "one: no editing tool is called 'Cas8'"),
    (f">one\n{'ACGT' * 20}\n", {"goal": "target"}, ConfigError, r"goal\.value"),
    ("ACGT\n", {}, InputError, "must start with '>'"),
])
def test_loci_that_cannot_be_used(trained, tmp_path, text, given, error, says):
    (tmp_path / "loci.fa").write_text(text)
    with pytest.raises(error, match=says):
        score_alleles(tmp_path / "loci.fa", trained / "run", tmp_path / "out", tell=lambda line: None, **given)
    assert not (tmp_path / "out").exists()
