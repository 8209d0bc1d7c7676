"""The page of a reporter-assay run: what it says, and that it says nothing of genes."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from test_report_build import Page

from ciscribe.config import ReporterConfig, parse_config
from ciscribe.report.reporter import write_reporter_report

N, MAIN = 31, "deepstarr"
LOG = pd.DataFrame({"epoch": [0, 1], "train_loss": [1.1, 0.7], "valid_mse": [1.0, 0.8], "valid_pearson": [0.1, 0.4]})
LABELS = LOG.rename(columns={"valid_mse": "valid_bce", "valid_pearson": "valid_auroc"})


def interval(value):
    if value is None:
        return dict.fromkeys(("value", "low", "high"))
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def text_of(html):
    return " ".join(Page(html).text)


def page_of(folder, *, task="regression", by="similarity", targets=("leaf",), rivals=(0.43, 0.37), notes=(), **config):
    """The page of made-up results."""
    names = ("auroc", "auprc") if task == "classification" else ("pearson", "spearman", "mse", "mae")
    values = {MAIN: 0.61, "gbm_kmers": rivals[0], "ridge_kmers": rivals[1]}
    scores = {model: {"per_target": {t: {n: interval(v) for n in names} for t in targets},
                      "mean": {n: interval(v) for n in names}, "across_target": None}
              for model, v in values.items()}
    metrics = {"split": {"train": {"n": 1009}, "valid": {"n": 211}, "test": {"n": 223}}, "by": by, "task": task,
               "targets": list(targets), "main": MAIN, "noise_ceiling": None, "models": scores}
    rng = np.random.default_rng(0)
    table = pd.concat([pd.DataFrame({"name": np.arange(N).astype(str), "fold": "test", "cell": t,
                                     "observed": rng.normal(size=N), "predicted": rng.normal(size=N)})
                       for t in targets])
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    table.to_parquet(folder / "predictions.parquet")
    (LABELS if task == "classification" else LOG).to_csv(folder / "log.csv", index=False)
    (folder / "provenance.json").write_text(json.dumps({"steps": {}}))
    raw = {"name": "promoters", "task": task, "assay": {"path": "a.tsv"}, "model": {"name": MAIN}} | config
    write_reporter_report(folder, parse_config(raw, "it.yaml", ReporterConfig), notes=notes)
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("page"), targets=("leaf", "root"), notes=["7 <b>rows</b> were joined"],
                   assay={"path": "a.tsv", "log": "log2"})


def test_report__is_well_formed_and_has_its_sections(html):
    page = Page(html)
    ids = [v for k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids))
    for section in ("data", "metrics", "accuracy", "training"):
        assert section in ids
    text = " ".join(page.text)
    assert "deepstarr on 1,443 sequences, 2 targets, folds by similarity" in text
    for what in ("1,009", "211", "223", "log2(activity)", "none of them similar to a training sequence",
                 "Predicted activity", "leaf", "root"):
        assert what in text
    assert "7 <b>rows</b> were joined" in text  # shown as text, not as markup
    assert "<b>rows</b>" not in html


def test_report__ends_with_the_cards_of_what_it_used(html):
    for source in ("de Almeida et al., Nat Genet 2022", "Ke et al., NeurIPS 2017", "Hoerl"):
        assert source in html


def test_report__speaks_of_sequences(html):
    words = " ".join(Page(html.split("<style")[0] + html.split("</style>", 1)[1]).text)
    without_cards = words.split("Nat Genet")[0]
    assert not re.search(r"\b(genes?|chromosomes?|expression|windows?)\b", without_cards, re.IGNORECASE), re.search(
        r".{40}\b(genes?|chromosomes?|expression|windows?)\b.{40}", without_cards, re.IGNORECASE)


def test_report__tiles_name_the_better_baseline(tmp_path):
    text = text_of(page_of(tmp_path / "a"))
    assert "Pearson r, test sequences" in text
    assert "0.610" in text
    assert re.search(r"Best baseline: gbm_kmers\s+0\.430", text)
    other = text_of(page_of(tmp_path / "b", rivals=(0.3, 0.37)))
    assert re.search(r"Best baseline: ridge_kmers\s+0\.370", other)


def test_report__a_baseline_that_does_not_vary_has_no_score(tmp_path):
    assert "Best baseline: ridge_kmers" in text_of(page_of(tmp_path / "a", rivals=(None, -0.2)))
    assert re.search(r"Best baseline: gbm_kmers\s+–", text_of(page_of(tmp_path / "b", rivals=(None, None))))


def test_report__of_labels_and_of_folds_by_a_column(tmp_path):
    html = page_of(tmp_path / "a", task="classification", by="locus", report={"title": "Which are active?"})
    text = text_of(html)
    assert "AUROC, test sequences" in text
    assert "Which are active?" in text
    assert "Sequences of one locus stay in one fold" in text
    assert "none of them of the same locus as a training sequence" in text
    assert "similar to a training" not in text
    assert 'id="accuracy"' not in html
