"""Measure what interpretation finds, and write ``validation/interpretation.md``: ``python validation/interpretation.py``.

Trains a model on each assay below (or reads the folder that a call before left; ``--folder`` names it), explains it
with `ciscribe explain`, `ciscribe motifs` and `ciscribe syntax`, and holds what comes out against what is known: the
boxes and the spacing of E. coli promoters, plant core-promoter and factor motifs, and the planted truth of the
simulated world. Real assays need the public data sets (CISCRIBE_DATA names their folder); without them only the
simulated one is measured.
"""

import argparse
import os
from pathlib import Path

import pandas as pd

from ciscribe.config import ReporterConfig
from ciscribe.data.world_assay import Assay, simulate_assay
from ciscribe.sequence import decode
from ciscribe.workflow.reporter import ReporterRun

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("CISCRIBE_DATA", HERE.parent.parent / "shared" / "data"))
WIDE = {"name": "deepstarr", "arguments": {"filters": [96, 60, 60, 120]}}
ASSAYS = {
    "ecoli": {
        "assay": {"path": "mpra/ecoli_150bp/train_genome_split.txt.gz", "columns": ["sequence", "activity"],
                  "duplicates": "mean", "log": "log2", "floor": 0.0, "pseudocount": 0.1},
        "model": WIDE, "train": {"epochs": 8, "learning_rate": 0.002, "patience": 6,
                                 "augment": {"mutation": 0.1, "shift": 5}}},
    "plant": {
        "assay": {"path": "mpra/plant/CNN_test_leaf.tsv.gz", "activity": "enrichment"},
        "motifs": ["mpra/plant/CPEs.meme", "mpra/plant/TF-clusters.meme"],
        "model": WIDE, "train": {"epochs": 16, "learning_rate": 0.002, "patience": 6,
                                 "augment": {"mutation": 0.05, "shift": 8}}},
    "yeast": {
        "assay": {"path": "mpra/yeast/Native_testdata_defined_media.csv.gz", "sequence": "seq110",
                  "activity": "meanEL", "duplicates": "mean"},
        "model": {"name": "legnet", "arguments": {"stem_channels": 32, "channels": [40, 48, 56, 64]}},
        "train": {"epochs": 20, "learning_rate": 0.002, "patience": 8}},
    "world": {
        "assay": {"path": "world.tsv", "activity": ["liver", "blood", "neuron"]},
        "model": WIDE, "train": {"epochs": 12, "learning_rate": 0.002, "patience": 4, "augment": {"shift": 8}}},
}
"""What is trained on each assay: the settings that the benchmark of reporter assays chose, one fold held out."""


def write_world(path: Path) -> Assay:
    """Write the simulated assay as a table; the same bytes each time."""
    assay = simulate_assay(60_000, noise=0.05, seed=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"sequence": [decode(row) for row in assay.codes]})
    pd.concat([table, pd.DataFrame(assay.activity, columns=list(assay.cells))], axis=1).to_csv(
        path, sep="\t", index=False, float_format="%.4f")
    return assay


def train(name: str, folder: Path, n_threads: int | None) -> ReporterRun:
    """Train the model of an assay, or find it trained."""
    given = ASSAYS[name]
    root = folder if name == "world" else DATA
    if name == "world" and not (folder / "world.tsv").exists():
        write_world(folder / "world.tsv")
    config = ReporterConfig(name=f"interpret_{name}", root=str(root.resolve()), **{
        **given, "train": {**given["train"], "batch_size": 64, "weight_decay": 0.01, "average": 0.99,
                           "n_threads": n_threads}})
    run = ReporterRun(folder / name, config, progress=False)
    run.run()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("assays", nargs="*", default=list(ASSAYS), help=", ".join(ASSAYS))
    parser.add_argument("--folder", type=Path, default=Path("runs/validation_interpretation"))
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    for name in options.assays:
        train(name, options.folder, options.threads)


if __name__ == "__main__":
    main()
