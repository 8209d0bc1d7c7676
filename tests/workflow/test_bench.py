"""Cross-validation of models on reporter assays: what is held out, what is done again, what comes out."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from ciscribe.config import BenchConfig, parse_config
from ciscribe.errors import ConfigError, DataMissingError, UnknownNameError
from ciscribe.train.metrics import pearson, spearman
from ciscribe.workflow import bench as module
from ciscribe.workflow.bench import BASELINES, Bench, Fit, load_prepared
from planted import planted, write

PLAIN = {"name": "deepbind", "arguments": {"filters": 5, "kernel": 9, "hidden": 7}}
TASTE = {"epochs": 2, "batch_size": 16, "learning_rate": 0.02, "average": 0.0, "device": "cpu"}


def relatives(first, second):
    """Two tables that share sequences: the last 40 of the first are the first 40 of the second, one base changed."""
    second = second.copy()
    for i in range(40):
        s = first["sequence"].iloc[-40 + i]
        second.loc[i, "sequence"] = s[:3] + ("A" if s[3] != "A" else "C") + s[4:]
    return first, second


def config(folder, **changes):
    raw = {"name": "tiny", "seed": 5, "root": str(folder), "folds": 3, "seeds": 2, "train": TASTE,
           "assays": {"liver": {"path": "liver.tsv", "family": "cells"}, "blood": {"path": "blood.tsv",
                                                                                   "family": "cells"}},
           "models": {"plain": PLAIN, "primed": PLAIN | {"pretrain": {"liver": "blood"}, "seeds": 1}},
           "transfers": [{"train": "blood", "test": "liver"}]}
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) else value
    return raw


def start(folder, raw, lines=None, **options):
    tell = (lambda line: None) if lines is None else lines.append
    return Bench(folder / "bench", parse_config(raw, "it.yaml", BenchConfig), tell=tell, **options)


def fits_done(folder, raw):
    """Fits that were not done before, and the summary."""
    seen = []
    original = module._run_fit

    def spy(path, given, fit, fingerprint):
        seen.append(fit)
        return original(path, given, fit, fingerprint)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_run_fit", spy)
        return seen, start(folder, raw).run()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    liver, blood = relatives(planted(150, seed=1), planted(170, seed=2))
    write(liver, folder / "liver.tsv")
    write(blood, folder / "blood.tsv")
    lines = []
    bench = start(folder, config(folder), lines)
    threads = torch.get_num_threads()
    summary = bench.run()
    assert torch.get_num_threads() == threads
    return folder, bench, summary, lines


# -- what is held out ----------------------------------------------------------------------------------------


def test_prepare__families_share_groups_and_folds(finished):
    folder, _, _, _ = finished
    liver, group_a, fold_a = load_prepared(folder / "bench", "liver")
    blood, group_b, fold_b = load_prepared(folder / "bench", "blood")
    assert (len(liver), len(blood)) == (150, 170)
    assert (group_a[-40:] == group_b[:40]).all()
    fold_of = dict(zip(group_a, fold_a, strict=True))
    assert all(fold_of[g] == f for g, f in zip(group_a, fold_a, strict=True))
    assert all(fold_of.get(g, f) == f for g, f in zip(group_b, fold_b, strict=True))
    assert set(fold_a) == set(fold_b) == {0, 1, 2}
    np.testing.assert_allclose(liver.targets[:, 0], planted(150, seed=1)["activity"], rtol=1e-6)


def test_run_fit__trains_on_no_relative_of_what_it_is_tested_on(finished, monkeypatch):
    """Also when a model is trained on another data set beforehand."""
    folder, bench, _, _ = finished
    seen = []

    def spy(model, data, rows, *arguments, **options):
        seen.append((data, rows, options.get("fresh", True)))
        return model, pd.DataFrame({"valid_mse": [1.0], "valid_pearson": [0.5]})

    monkeypatch.setattr(module, "fit_assay", spy)
    before = (folder / "bench" / "fits" / "liver" / "primed" / "fold1_seed0.npz").read_bytes()
    module._run_fit(folder / "bench", bench.config, Fit("liver", "primed", 1, 0), "")
    (folder / "bench" / "fits" / "liver" / "primed" / "fold1_seed0.npz").write_bytes(before)
    (_, group_a, fold_a), (_, group_b, _) = (load_prepared(folder / "bench", n) for n in ("liver", "blood"))
    [(first, rows_b, new), (second, rows_a, again)] = seen
    assert (len(first), len(second), new, again) == (170, 150, True, False)
    test = set(group_a[fold_a == 1])
    for group, rows in ((group_b, rows_b), (group_a, rows_a)):
        for part in ("train", "valid"):
            assert len(rows[part]) > 20
            assert not test & set(group[rows[part]])
        assert not set(group[rows["train"]]) & set(group[rows["valid"]])
    assert rows_a["test"].tolist() == np.flatnonzero(fold_a == 1).tolist()
    assert test & set(group_b)  # there are relatives to leave out


def test_transfer__leaves_relatives_of_the_test_set_out(finished):
    folder, _, _, _ = finished
    table = pd.read_parquet(folder / "bench" / "transfers.parquet")
    (_, group_a, _), (_, group_b, fold_b) = (load_prepared(folder / "bench", n) for n in ("liver", "blood"))
    clean = ~np.isin(group_b, group_a)
    assert clean.sum() <= 130
    assert table["model"].tolist() == ["plain", "plain"]  # one a seed; none of the model that knew the other set
    assert table["seed"].tolist() == [0, 1]
    assert set(table["n_train"]) == {int((clean & (fold_b != 0)).sum())}
    assert set(table["n_test"]) == {150}
    assert table["pearson"].between(-1, 1).all()


def test_transfer__another_family_has_group_numbers_of_its_own(finished, tmp_path):
    folder, _, _, _ = finished
    for name in ("liver", "blood"):
        write(pd.read_csv(folder / f"{name}.tsv", sep="\t"), tmp_path / f"{name}.tsv")
    assays = {"liver": {"path": "liver.tsv", "family": "one"}, "blood": {"path": "blood.tsv", "family": "two"}}
    raw = config(tmp_path, seeds=1) | {"assays": assays, "models": {"plain": PLAIN}}
    bench = start(tmp_path, raw)
    bench.prepare()
    bench._transfer("blood", "liver")
    assert pd.read_parquet(tmp_path / "bench" / "transfers.parquet")["n_train"].tolist() == [
        int((load_prepared(tmp_path / "bench", "blood")[2] != 0).sum())]


# -- what comes out ------------------------------------------------------------------------------------------


def test_fits__cover_models_folds_and_seeds(finished):
    _, bench, _, lines = finished
    fits = list(bench.fits())
    assert len(fits) == len(set(fits)) == 3 * (2 * 1 + 2 * 2 + 1)  # folds × (baselines + two seeds + primed liver)
    assert {(f.assay, f.seed) for f in fits if f.model == "primed"} == {("liver", 0)}
    assert all(bench.is_done(f) for f in fits)
    assert "0 of 21 fits done before" in lines
    assert len([line for line in lines if "about" in line]) == 21
    assert any(line.startswith("liver: 150 sequences of 41 bp, ") for line in lines)


def test_summary__says_what_the_predictions_say(finished):
    folder, _, summary, _ = finished
    assert list(summary[list(module.SHOWN)].columns) == list(module.SHOWN)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "bench" / "summary.parquet"), summary)
    rows = summary.set_index(["assay", "model"])
    assert set(rows.index) == {("liver", "primed"), *((a, m) for a in ("liver", "blood")
                                                      for m in ("plain", "gbm_kmers", "ridge_kmers"))}
    data, _, fold = load_prepared(folder / "bench", "liver")
    r, rank, error, ensemble = [], [], [], []
    for k in range(3):
        truth, runs = data.targets[fold == k, 0], []
        for seed in range(2):
            with np.load(folder / "bench" / Fit("liver", "plain", k, seed).file) as file:
                runs.append(file["plain"][:, 0])
            r.append(pearson(truth, runs[-1]))
            rank.append(spearman(truth, runs[-1]))
            error.append(((truth - runs[-1]) ** 2).mean())
        ensemble.append(pearson(truth, (runs[0] + runs[1]) / 2))
    row = rows.loc[("liver", "plain")]
    assert row["n_fits"] == 6
    assert row["pearson"] == pytest.approx(np.mean(r), abs=1e-5)
    assert row["pearson_sd"] == pytest.approx(np.std(r, ddof=1), abs=1e-5)
    assert row["spearman"] == pytest.approx(np.mean(rank), abs=1e-5)
    assert row["mse"] == pytest.approx(np.mean(error), rel=1e-4)
    assert row["ensemble"] == pytest.approx(np.mean(ensemble), abs=1e-5)
    assert rows.loc[("liver", "gbm_kmers")]["pearson"] == 0  # 50 rows do not make a tree: it does not vary
    better = max(rows.loc[("liver", b)]["pearson"] for b in ("gbm_kmers", "ridge_kmers"))
    assert better > 0
    assert row["gain"] == pytest.approx(np.mean(r) - better, abs=1e-4)
    assert row["parameters"] == 235
    assert row["epochs"] == 2
    for _, one in rows.loc[[("liver", "plain"), ("liver", "primed")]].iterrows():
        assert one["gain_low"] < one["gain"] < one["gain_high"]
        assert one["ensemble_gain_low"] < one["ensemble_gain"] < one["ensemble_gain_high"]
    assert rows.loc[("liver", "ridge_kmers")][["gain", "gain_low", "parameters"]].isna().all()
    fits = pd.read_parquet(folder / "bench" / "fits.parquet")
    plain = fits[(fits["assay"] == "liver") & (fits["model"] == "plain")].sort_values(["fold", "seed"])
    np.testing.assert_allclose(plain["pearson"], r, atol=1e-5)


def test_resampled__whole_groups_and_the_sample_itself_first():
    group = np.array([3, 7, 3, 11, 7, 7])
    weights = module._resampled(group, 500, 0)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert not (weights[:, 0] == weights[:, 1]).all()
    assert set(weights[1:, [0, 1, 3]].sum(axis=1)) == {3}
    a, b = np.arange(6.0), np.array([0.0, 2, 1, 3, 3, 7])
    r = module._weighted_r(a, b, weights)
    assert r[0] == pytest.approx(pearson(a, b))
    i = int(np.flatnonzero((weights[:, 0] == 2) & (weights[:, 1] == 1))[0])
    again = np.repeat(np.arange(6), weights[i].astype(int))
    assert r[i] == pytest.approx(pearson(a[again], b[again]))


# -- what is done again --------------------------------------------------------------------------------------


@pytest.fixture
def copy(finished, tmp_path):
    folder, _, _, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy", config(tmp_path / "copy")


def test_run__resumes_and_repeats_the_summary(copy, finished):
    folder, raw = copy
    seen, summary = fits_done(folder, raw)
    assert seen == []
    pd.testing.assert_frame_equal(summary, finished[2])
    lost = [Fit("liver", "plain", 2, 1), Fit("blood", BASELINES, 0, 0)]
    for fit in lost:
        (folder / "bench" / fit.file).unlink()
    seen, summary = fits_done(folder, raw)
    assert set(seen) == set(lost)
    pd.testing.assert_frame_equal(summary.drop(columns="seconds"), finished[2].drop(columns="seconds"), atol=1e-5)


def needed(folder, raw):
    """(assay, model) of the fits that a changed configuration does again."""
    bench = start(folder, raw)
    return {(f.assay, f.model) for f in bench.fits() if not bench.is_done(f)}


LIVER, BLOOD = "liver", "blood"


@pytest.mark.parametrize(("change", "expected"), [
    ({}, set()),
    ({"train": {"epochs": 3}}, {(LIVER, "plain"), (BLOOD, "plain"), (LIVER, "primed")}),
    ({"assays": {LIVER: {"path": "liver.tsv", "family": "cells", "train": {"epochs": 3}}}},
     {(LIVER, "plain"), (LIVER, "primed")}),
    # what a model was trained on beforehand, and how, is part of it
    ({"assays": {BLOOD: {"path": "blood.tsv", "family": "cells", "train": {"epochs": 3}}}},
     {(BLOOD, "plain"), (LIVER, "primed")}),
    # a relative's rows make the groups and folds of the other
    ({"assays": {BLOOD: {"path": "blood.tsv", "family": "cells", "where": {"gene": ["gene3", "gene5"]}}}},
     {(LIVER, "primed"), *((a, m) for a in (LIVER, BLOOD) for m in ("plain", BASELINES))}),
    ({"models": {"plain": PLAIN | {"train": {"augment": {"shift": 3}}}}}, {(LIVER, "plain"), (BLOOD, "plain")}),
    ({"models": {"primed": PLAIN | {"seeds": 1}}}, {(LIVER, "primed"), (BLOOD, "primed")}),
    ({"transfers": []}, set()),
])
def test_is_done__follows_what_a_fit_depends_on(copy, change, expected):
    folder, raw = copy
    changed = config(folder, **change)
    assert needed(folder, changed) == expected
    assert raw["seeds"] == 2


def test_is_done__inputs_and_motifs(copy):
    folder, raw = copy
    (folder / "known.meme").write_text("MEME version 4\n\nALPHABET= ACGT\n\nMOTIF x\nletter-probability matrix: w= 1\n"
                                       "0.7 0.1 0.1 0.1\n")
    raw["assays"][LIVER]["motifs"] = "known.meme"
    assert {a for a, _ in needed(folder, raw)} == {LIVER}
    os.utime(folder / "blood.tsv")
    assert {a for a, _ in needed(folder, raw)} == {LIVER, BLOOD}


def test_transfer__a_changed_plan_replaces_its_rows(copy):
    folder, raw = copy
    before = pd.read_parquet(folder / "bench" / "transfers.parquet")
    start(folder, raw)._transfer(BLOOD, LIVER)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "bench" / "transfers.parquet"), before)
    start(folder, config(folder, train={"learning_rate": 0.01}, seeds=1))._transfer(BLOOD, LIVER)
    after = pd.read_parquet(folder / "bench" / "transfers.parquet")
    assert after["seed"].tolist() == [0]
    assert after["key"].iloc[0] not in set(before["key"])


def test_run__killed_between_fits_keeps_what_was_done(copy):
    folder, _ = copy
    raw = config(folder, train={"learning_rate": 0.01})

    def stop(line):
        if line.startswith("3/"):
            raise KeyboardInterrupt

    bench = Bench(folder / "bench", parse_config(raw, "it.yaml", BenchConfig), tell=stop)
    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert torch.get_num_threads() == threads
    assert sum(bench.is_done(f) for f in bench.fits()) == 6 + 3  # the baselines do not depend on the plan


@pytest.mark.slow
def test_run__several_at_a_time_give_the_same(finished, tmp_path):
    folder, _, summary, _ = finished
    for name in ("liver.tsv", "blood.tsv"):
        write(pd.read_csv(folder / name, sep="\t"), tmp_path / name)
    lines = []
    other = start(tmp_path, config(tmp_path), lines, n_jobs=2).run()
    pd.testing.assert_frame_equal(other.drop(columns="seconds"), summary.drop(columns="seconds"), atol=1e-5)


# -- the dry run, losses, bad configurations -----------------------------------------------------------------


def test_estimate__counts_fits_and_times_them(copy):
    folder, _ = copy
    bench = start(folder, config(folder, train={"epochs": 50}))
    bench.prepare()
    table = bench.estimate().set_index(["assay", "model"])
    assert table["fits"].to_dict() == {(LIVER, "plain"): 6, (BLOOD, "plain"): 6, (LIVER, "primed"): 3}
    assert (table["parameters"] == 235).all()
    assert table["seconds_a_fit"].between(0.01, 600).all()
    np.testing.assert_allclose(table["minutes"], table["fits"] * table["seconds_a_fit"] / 60)
    done = start(folder, config(folder)).estimate()
    assert len(done) == 0
    assert done["minutes"].sum() == 0


@pytest.mark.parametrize("loss", ["smooth_l1", "poisson", "l1_kl"])
def test_run__other_losses(tmp_path, loss):
    table = planted(90, seed=1)
    table = table.assign(activity=1.0 + 3 * table["active"], weak=1.0 + table["active"])
    write(table, tmp_path / "liver.tsv")
    raw = config(tmp_path, seeds=1, transfers=[], train={"loss": loss}) | {"models": {"plain": PLAIN}}
    raw["assays"] = {LIVER: {"path": "liver.tsv", "activity": ["activity", "weak"], "models": ["plain"]}}
    summary = start(tmp_path, raw).run()
    assert set(summary["target"]) == {"activity", "weak"}
    assert np.isfinite(summary.loc[summary["model"] == "plain", "mse"]).all()
    if loss == "poisson":
        with np.load(tmp_path / "bench" / Fit(LIVER, "plain", 0, 0).file) as file:
            assert file["plain"].min() >= 0
            assert file["plain"].mean() == pytest.approx(2, abs=1)  # rates, not what softplus turns into rates


def bad(**changes):
    return changes


@pytest.mark.parametrize(("change", "error", "says"), [
    (bad(transfers=[{"train": "bloood", "test": LIVER}]), ConfigError, "data set 'bloood'; did you mean 'blood'"),
    (bad(models={"plain": PLAIN | {"pretrain": {LIVER: "skin"}}}), ConfigError, "the data set 'skin'"),
    (bad(assays={BLOOD: {"path": "blood.tsv"}}), ConfigError, "liver and blood must be of one family"),
    (bad(assays={BLOOD: {"path": "blood.tsv", "family": "cells", "by": "gene"}}), ConfigError,
     r"assays\.blood\.by is 'gene', but the folds of a family are made by similarity"),
    (bad(assays={LIVER: {"path": "liver.tsv", "family": "cells", "models": ["plian"]}}), ConfigError,
     "names 'plian'; did you mean 'plain'"),
    (bad(models={"gbm_kmers": PLAIN}), ConfigError, "the baselines have that name"),
    (bad(models={"plain": PLAIN | {"name": "deepbnd"}}), UnknownNameError, "did you mean 'deepbind'"),
    (bad(models={"plain": PLAIN | {"preset": "gpu"}}), ConfigError, "has no preset 'gpu'"),
    (bad(models={"plain": PLAIN | {"train": {"augmet": {"shift": 3}}}}), ConfigError,
     r"the plan of plain on liver .*\n.*train\.augmet: unknown key; did you mean 'augment'"),
    (bad(models={"plain": PLAIN | {"train": {"epochs": {"most": 3}}}}), ConfigError, r"train\.epochs: .*integer"),
])
def test_bench__names_what_cannot_be_before_anything_is_read(tmp_path, change, error, says):
    with pytest.raises(error, match=says):
        start(tmp_path, config(tmp_path, **change))
    assert not (tmp_path / "bench").exists()


def test_bench__jobs(tmp_path):
    with pytest.raises(ConfigError, match="at least 1 fit runs at a time; got n_jobs=0"):
        start(tmp_path, config(tmp_path), n_jobs=0)


def test_bench__files_and_shapes(copy):
    folder, _ = copy
    with pytest.raises(ConfigError, match=r"a model of blood \(53 bp, 1 targets\) cannot read liver \(41 bp"):
        start(folder, config(folder, assays={BLOOD: {"path": "blood.tsv", "family": "cells", "length": 53}})).run()
    (folder / "liver.tsv").unlink()
    with pytest.raises(DataMissingError, match=r"liver\.tsv"):
        start(folder, config(folder)).run()


def test_provenance__is_written(finished):
    facts = json.loads((finished[0] / "bench" / "provenance.json").read_text())
    assert facts["seed"] == 5
