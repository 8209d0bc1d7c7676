"""The tutorial of the promoter does what it says, with the assay's data and a model that is trained in seconds."""

import numpy as np
import pytest

from ciscribe.config import ReporterConfig, read_config
from ciscribe.workflow.reporter import ReporterRun
from test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "tutorial" / "stronger-promoter.md"


@pytest.mark.realdata
@pytest.mark.slow
def test_tutorial__makes_promoters_that_keep_the_rules(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CISCRIBE_DATA", str(data_dir))
    config = read_config(ROOT / "configs" / "reporter_ecoli.yaml", ReporterConfig)
    small = {"root": str(data_dir), "model": {"name": "deepstarr", "arguments": {"filters": [29, 23, 19, 17],
                                                                               "hidden": 31}}}
    config = ReporterConfig.model_validate(config.model_dump() | small | {
        "train": config.train.model_dump() | {"epochs": 2}})
    ReporterRun(tmp_path / "runs" / "ecoli", config, progress=False).run("train")
    page = PAGE.read_text(encoding="utf-8")
    told: dict[str, object] = {}
    for block in blocks(page):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec"), told)
    designs = told["designs"]
    sequences = designs.table()["sequence"]
    assert not sequences.str.contains("GGTCTC|GAGACC").any()
    assert (designs.edits <= 10).all()
    assert (designs.gain > 0).all()
    assert len(np.unique(designs.origin)) == 4
    said = capsys.readouterr().out
    assert "trees say" in said
    assert told["checked"].verdict in said
