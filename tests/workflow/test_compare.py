import json

import numpy as np
import pandas as pd
import pytest
import yaml

import small_world as small
from ciscribe.config import CompareConfig, parse_config
from ciscribe.data.windows import WindowStore
from ciscribe.errors import ConfigError, DataMissingError, UnknownNameError
from ciscribe.io.bed import write_bed
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.provenance import digest
from ciscribe.train.comparison import Fitted, paired_differences
from ciscribe.train.evaluate import predict_rows
from ciscribe.workflow.compare import ABLATIONS, Compare, Fit, shown

TINY = {"d_model": 8, "n_layers": 1, "d_state": 2, "expand": 1, "stem_channels": 4}
MODELS = {
    "gbm": {"name": "gbm_sequence_signals"},
    "seq2exp": {"name": "seq2exp", "arguments": TINY | {"include_bp": 32, "center_bp": 32}},
    "caduceus, sequence": {"name": "caduceus", "signals": "none", "arguments": TINY, "seeds": 1},
    "prism, one track": {"name": "prism", "signals": ["mark"], "arguments": TINY, "seeds": 1, "folds": ["chr3"]},
    "epinformer": {"name": "epinformer", "preset": "cpu", "seeds": 1, "folds": ["chr3"],
                   "arguments": {"channels": [4, 4, 4], "n_layers": 1, "n_heads": 2},
                   "candidates": {"path": "elements.bed", "n": 4, "length": 32, "max_distance": 900,
                                  "min_distance": 60}},
}
FOLDS = [{"test": ["chr3"], "valid": ["chr2"]}, {"test": ["chr2"], "valid": ["chr3"]}]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    run = small.write_inputs(folder)
    small.write_yaml(folder / "run.yaml", run)
    starts = {c: range(11, size - 40, 83) for c, size in small.SIZES.items()}
    write_bed(folder / "elements.bed", pd.DataFrame(
        [(c, s, s + 31) for c, at in starts.items() for s in at], columns=["chrom", "start", "end"]))
    return folder


def write(folder, **changes):
    raw = {"name": "cmp", "run": "run.yaml", "folds": FOLDS, "seeds": 2, "models": MODELS,
           "train": {"learning_rate": 0.003}, "fractions": [0.1, 0.5], "widths": [64, 128]} | changes
    path = folder / f"compare_{digest(raw)[:8]}.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def job(inputs, out, lines=None, **changes):
    tell = (lambda line: None) if lines is None else lines.append
    return Compare.from_config(write(inputs, **changes), out, tell=tell)


@pytest.fixture(scope="module")
def done(inputs):
    lines = []
    compare = job(inputs, inputs / "out", lines)
    return compare, compare.run(), lines


def test_compare__makes_every_file_that_was_promised(done):
    compare, *_ = done
    for name in ("config.yaml", "provenance.json", "summary.parquet", "fits.parquet", "differences.parquet",
                 "deciles.parquet", "calibration.parquet", "rate.parquet", "truncation.parquet", "report.html"):
        assert (compare.folder / name).stat().st_size > 0, name
    page = (compare.folder / "report.html").read_text()
    for words in ("Results", "Rate–distortion", "Truncation", "Calibration", "By fold", "caduceus, sequence"):
        assert words in page
    assert not (compare.folder / "checkpoints").exists() or not any((compare.folder / "checkpoints").rglob("*.ckpt"))


def test_compare__each_row_has_its_folds_and_seeds(done):
    compare, summary, _ = done
    n = summary.set_index("model")["n_fits"]
    assert n.to_dict() == {"gbm": 2, "seq2exp": 4, "caduceus, sequence": 2, "prism, one track": 1, "epinformer": 1}
    fits = pd.read_parquet(compare.folder / "fits.parquet")
    assert fits.groupby(["model", "fold"])["seed"].apply(list)["seq2exp", "chr3"] == [0, 1]
    assert summary["pearson"].is_monotonic_decreasing
    assert summary.attrs["reference"] == "gbm"


def test_compare__predictions_are_those_of_the_saved_model_on_the_fold_that_it_did_not_see(done):
    compare, *_ = done
    for label in ("seq2exp", "caduceus, sequence", "prism, one track", "epinformer"):
        fit = Fit(label, "chr3", 0)
        folder = compare.folder / fit.folder
        model, _ = registry.load(folder / "model")
        store = compare.examples(label, "chr3")
        with np.load(folder / "predictions.npz") as file:
            rows, predicted = file["rows"], file["predicted"]
        assert set(store.genes["chrom"].iloc[rows]) == {"chr3"}
        np.testing.assert_allclose(predict_rows(Oracle(model, device="cpu"), store, rows), predicted, atol=1e-5)


def test_compare__models_read_the_tracks_that_they_may(done):
    compare, *_ = done
    assert compare.examples("caduceus, sequence").track_names == []
    assert compare.examples("prism, one track").track_names == ["mark"]
    assert compare.examples("seq2exp").track_names == ["atac", "mark"]
    assert compare.examples("epinformer").track_names == ["distance", "atac", "mark", "contact"]
    assert len(list((compare.folder / "data").iterdir())) == 3  # shared by those that read the same


def test_compare__gain_is_that_of_the_paired_test(done):
    compare, summary, _ = done
    observed = WindowStore(next((compare.folder / "data").iterdir())).targets
    fits = {}
    for fit in compare.fits():
        with np.load(compare.folder / fit.folder / "predictions.npz") as file:
            fits.setdefault(fit.model, []).append(Fitted(fit.fold, fit.seed, file["rows"], file["predicted"]))
    expected = paired_differences(observed, fits, "gbm").query("figure == 'pearson'").set_index("model")
    for row in summary.to_dict("records"):
        assert row["gain"] == pytest.approx(expected.loc[row["model"], "gain"])
        assert row["gain_low"] == pytest.approx(expected.loc[row["model"], "gain_low"])


def test_compare__curves_are_of_the_first_seed_and_of_models_that_can(done):
    compare, *_ = done
    rate, truncation = (pd.read_parquet(compare.folder / f"{n}.parquet") for n in ("rate", "truncation"))
    assert set(rate["model"]) == {"seq2exp", "caduceus, sequence", "prism, one track"}
    assert rate.groupby(["model", "fold"])["fraction"].apply(list)["seq2exp", "chr3"] == [0.1, 0.5]
    assert truncation.groupby(["model", "fold"])["window_bp"].apply(list)["seq2exp", "chr2"] == [224, 128, 64]
    assert set(truncation["model"]) == set(rate["model"]) | {"epinformer"}


def test_compare__goes_on_where_it_was(inputs, done):
    compare, summary, _ = done
    lines = []
    again = job(inputs, compare.folder, lines)
    stamps = {p: p.stat().st_mtime_ns for p in compare.folder.rglob("predictions.npz")}
    pd.testing.assert_frame_equal(again.run(), summary)
    assert "10 of 10 fits done before" in lines
    lost = compare.folder / Fit("seq2exp", "chr2", 1).folder
    (lost / "facts.json").unlink()
    with np.load(lost / "predictions.npz") as file:
        before = file["predicted"]
    lines.clear()
    job(inputs, compare.folder, lines).run()
    assert "9 of 10 fits done before" in lines
    with np.load(lost / "predictions.npz") as file:
        np.testing.assert_array_equal(file["predicted"], before)  # the same seed is the same fit
    now = {p: p.stat().st_mtime_ns for p in compare.folder.rglob("predictions.npz")}
    assert {p for p in stamps if now[p] != stamps[p]} == {lost / "predictions.npz"}


def test_compare__a_changed_plan_is_fitted_anew(inputs, done):
    compare, *_ = done
    other = job(inputs, inputs / "elsewhere", models=MODELS | {"gbm": {"name": "gbm_signals"}},
                train={"learning_rate": 0.002})
    same = job(inputs, inputs / "elsewhere")
    for fit in compare.fits():
        assert same.fingerprint(fit) == compare.fingerprint(fit)
        assert other.fingerprint(fit) != compare.fingerprint(fit)


def test_compare__dry_run_estimates_and_trains_nothing(inputs, tmp_path):
    compare = job(inputs, tmp_path / "dry")
    compare.prepare()
    table = compare.estimate().set_index("model")
    assert table["fits"].to_dict() == {"gbm": 2, "seq2exp": 4, "caduceus, sequence": 2, "prism, one track": 1,
                                       "epinformer": 1}
    models = table.drop(index="gbm")
    assert (models[["seconds_a_fit", "memory_gb", "minutes"]] > 0).all().all()
    assert not (tmp_path / "dry" / "fits").exists()


def test_compare__processes_give_the_same(inputs, done, tmp_path):
    compare, *_ = done
    some = {k: MODELS[k] for k in ("gbm", "caduceus, sequence")}
    two = Compare.from_config(write(inputs, models=some, seeds=1), tmp_path, n_jobs=2, folds=("chr3",),
                              tell=lambda line: None)
    two.run()
    for label in some:
        with np.load(compare.folder / Fit(label, "chr3", 0).folder / "predictions.npz") as a, \
                np.load(tmp_path / Fit(label, "chr3", 0).folder / "predictions.npz") as b:
            np.testing.assert_allclose(a["predicted"], b["predicted"], atol=1e-5)


def test_compare__chromosomes_are_shared_among_folds(inputs, tmp_path):
    compare = job(inputs, tmp_path, folds=3, models={"gbm": {"name": "gbm_signals"}})
    compare.prepare()
    folds = compare.folds()
    assert sorted(c for f in folds.values() for c in f.test) == ["chr1", "chr2", "chr3"]
    assert all(set(f.test).isdisjoint(f.valid) for f in folds.values())


def test_compare__ablations_are_rows_of_their_own(inputs, tmp_path):
    entry = MODELS["seq2exp"] | {"ablations": True}
    compare = job(inputs, tmp_path, models={"s": entry}, seeds=1, folds=FOLDS[:1])
    assert list(compare.config.models) == ["s", *(f"s, {name}" for name in ABLATIONS)]
    summary = compare.run()
    assert len(summary) == 1 + len(ABLATIONS)
    assert summary["pearson"].round(9).nunique() > 4  # they are not all the same model
    with pytest.raises(ConfigError, match="ablations are those of seq2exp"):
        job(inputs, tmp_path, models={"p": MODELS["prism, one track"] | {"ablations": True}})


def test_shown__fits_what_is_known(done):
    _, summary, _ = done
    table = shown(summary)
    assert table["model"].tolist() == summary["model"].tolist()
    assert any("[" in text for text in table[f"gain over {summary.attrs['reference']}, 95 %"])


@pytest.mark.parametrize(("changes", "error", "what"), [
    ({"run": "nowhere.yaml"}, DataMissingError, "no .*nowhere.yaml"),
    ({"models": {"a": {"name": "seq2ex"}}}, UnknownNameError, "seq2exp"),
    ({"models": {"a": {"name": "gbm_signals", "arguments": {"x": 1}}}}, ConfigError, "takes no arguments"),
    ({"models": {"a": {"name": "seq2exp", "train": {"epoch": 3}}}}, ConfigError, "epochs"),
    ({"models": {"a": {"name": "seq2exp", "window": {"resolution": 7}}}}, ConfigError, "resolution"),
    ({"models": {"a/b": {"name": "seq2exp"}, "a b": {"name": "seq2exp"}}}, ConfigError, "share a folder"),
    ({"reference": "gmb"}, ConfigError, "gbm"),
    ({"folds": [FOLDS[0], FOLDS[0]]}, ConfigError, "named by what they test"),
])
def test_compare__says_what_is_wrong_before_it_starts(inputs, tmp_path, changes, error, what):
    with pytest.raises(error, match=what):
        job(inputs, tmp_path, **changes).prepare()


@pytest.mark.parametrize(("changes", "what"), [
    ({"folds": [{"test": ["chr9"], "valid": ["chr2"]}]}, "no gene lies on chromosome 'chr9'"),
    ({"folds": [{"test": ["chr3:9-9"], "valid": ["chr2"]}]}, "the test fold is empty"),
    ({"folds": [{"test": ["chr3"], "valid": ["chr2"], "train": ["chr1:9-9"]}]}, "the train fold is empty"),
    ({"folds": 9}, "9 chromosomes"),
    ({"models": {"a": {"name": "seq2exp", "signals": ["atak"]}}}, "no track 'atak'"),
    ({"models": {"a": {"name": "seq2exp", "arguments": {"d_modle": 8}}}}, "cannot be built"),
    ({"models": {"a": {"name": "gbm_signals", "folds": ["chr7"]}}}, "no fold is called 'chr7'"),
])
def test_compare__says_what_does_not_fit_the_data(inputs, tmp_path, changes, what):
    with pytest.raises(ConfigError, match=what):
        job(inputs, tmp_path, **{"models": {"gbm": MODELS["gbm"]}} | changes).prepare()


def test_compare__without_peaks_candidates_need_a_table(inputs, tmp_path):
    entry = MODELS["epinformer"] | {"candidates": {"n": 4}}
    with pytest.raises(ConfigError, match="no peak was called on the 2 tracks"):
        job(inputs, tmp_path, models={"e": entry}).prepare()


def test_compare__on_a_run_folder(inputs, done, tmp_path):
    compare, *_ = done
    raw = yaml.safe_load((compare.folder / "config.yaml").read_text())
    assert parse_config(raw, kind=CompareConfig).run["data"]["root"] == str(inputs)
    assert json.loads((compare.folder / "provenance.json").read_text())["reference"] == "gbm"
