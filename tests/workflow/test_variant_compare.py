"""Scores of variants against measurements: the method that knows the motif wins, and wrong questions are refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from ciscribe.config import ReporterConfig, parse_config
from ciscribe.errors import ConfigError
from ciscribe.io.motifs import write_meme
from ciscribe.schema import Motif
from ciscribe.sequence import decode, encode
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.variant_benchmark import compare_scores
from planted import LENGTH, MOTIF, one_model, planted, write

QUIET = {"tell": lambda line: None, "progress": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Allele pairs and a saturation table in which breaking the motif lowers, and a run that learned it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(5)
    high, low, rows = [], [], []
    for i in range(37):
        codes = rng.integers(0, 4, LENGTH).astype(np.uint8)
        codes[17:17 + len(MOTIF)] = encode(MOTIF)
        other = codes.copy()
        other[19] = (codes[19] + 1 + i % 3) % 4
        high += [f">pair{i}", decode(codes)]
        low += [f">pair{i}", decode(other)]
    (folder / "high.fa").write_text("\n".join(high) + "\n")
    (folder / "low.fa").write_text("\n".join(low) + "\n")
    for name, start in (("ONE", 100), ("TWO", 5000)):
        codes = rng.integers(0, 4, LENGTH).astype(np.uint8)
        codes[17:17 + len(MOTIF)] = encode(MOTIF)
        for at in range(LENGTH):
            for step in (1, 2, 3):
                inside = 17 <= at < 17 + len(MOTIF)
                rows.append((1, start + at, "ACGT"[codes[at]], "ACGT"[(codes[at] + step) % 4], 50, 10, 10,
                             (-2.0 if inside else 0.0) + rng.normal(0, 0.1), 1e-9 if inside else 0.5, name))
    pd.DataFrame(rows, columns=["Chrom", "Pos", "Ref", "Alt", "Barcodes", "DNA", "RNA", "Coefficient", "pValue",
                                "Element"]).to_csv(folder / "satmut.tsv", sep="\t", index=False)
    ppm = np.full((4, len(MOTIF)), 0.01)
    ppm[encode(MOTIF), np.arange(len(MOTIF))] = 0.97
    write_meme(folder / "known.meme", [Motif("planted", ppm, "test")])
    write(planted(), folder / "assay.tsv")
    ReporterRun(folder / "run", parse_config(one_model(folder, train={"epochs": 12}), "it.yaml", ReporterConfig),
                **QUIET).run("train")
    yield folder
    torch.set_num_threads(before)


def test_pairs_are_told_apart(made, tmp_path):
    table, out = compare_scores(tmp_path / "out", high=made / "high.fa", low=made / "low.fa",
                                motifs=[made / "known.meme"], runs=[made / "run"], **QUIET)
    value = table.set_index("method")["value"]
    assert value["run"] > 0.95
    assert value["PWM, largest difference"] > 0.95
    assert {p.name for p in out.iterdir()} == {"benchmark.parquet", "report.html", "provenance.json"}
    swapped, _ = compare_scores(tmp_path / "swapped", high=made / "low.fa", low=made / "high.fa", runs=[made / "run"],
                                **QUIET)
    assert swapped["value"].iloc[0] < 0.05


def test_saturation_mutagenesis_is_ranked(made, tmp_path):
    table, out = compare_scores(tmp_path / "out", saturation=made / "satmut.tsv", motifs=[made / "known.meme"],
                                runs=[made / "run"], **QUIET)
    value = table.set_index("method")["value"]
    assert value["run"] > 0.25  # most changes do nothing, and their ranks are noise
    assert value["PWM, largest difference"] > 0.25
    each = pd.read_parquet(out / "experiments.parquet")
    assert set(each["experiment"]) == {"ONE", "TWO"}
    assert "measured" in (out / "report.html").read_text()


@pytest.mark.parametrize("given", [{}, {"high": "high.fa"}, {"saturation": "satmut.tsv", "high": "high.fa",
                                                             "low": "low.fa"}])
def test_one_kind_of_measurement_is_asked_for(made, tmp_path, given):
    with pytest.raises(ConfigError, match="--saturation"):
        compare_scores(tmp_path / "out", motifs=[made / "known.meme"], **given, **QUIET)
    assert not (tmp_path / "out").exists()


def test_something_must_be_compared(made, tmp_path):
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare_scores(tmp_path / "out", saturation=made / "satmut.tsv", **QUIET)
