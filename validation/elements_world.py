"""Elements of a world whose truth is known, with decoys: ``python validation/elements.py world [--write]``.

The demonstration's model with everything, without signals, and with a mask that signals alone decide, held against the
true elements of chromosome 6, which it was not trained on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from elements_worm import bands, curves, evidence, kept, kinds, of, pairs, stability

from ciscribe.config import parse_config
from ciscribe.data.world import world
from ciscribe.demo import demo_config
from ciscribe.workflow.element_benchmark import benchmark_elements
from ciscribe.workflow.run import Run

CELLS = ("liver", "blood", "neuron")
RUNS = ("full", "sequence_only", "signal_gate")
EPOCHS = 8
FINDINGS = """After 8 epochs the mask of `full` is that of its signals: it shares 86 % of its best tenth with
`signal_gate`, where the sequence has no say, and puts as many base pairs on open decoys. A mask by itself does not
tell an enhancer from an open stretch that does nothing; that is asked of effects, and of a longer training ([the
demonstration](demo.md), 30 epochs: calls ranked by effect reach AUPRC 0.384 at equal bp, the best peaks 0.248).
`sequence_only` learned nothing from 800 genes and windows of 20 kb, and its mask finds nothing."""
N_ERASED = 40
"""Genes whose tiles are erased; the mask is asked about all."""
FOLDER = Path("runs/elements_world")


def configuration(root: Path, name: str) -> dict[str, Any]:
    """The demonstration, and what is left of it without signals, or with a mask that signals alone decide."""
    raw = demo_config(root, CELLS)
    if name == "sequence_only":
        raw["data"]["tracks"] = []
        raw["window"]["contact"] = False
        del raw["model"]["arguments"]["weights"]
    elif name == "signal_gate":
        raw["model"]["arguments"]["use_generator"] = False
    raw["train"] |= {"epochs": EPOCHS, "n_threads": 1}
    return raw | {"name": name}


def trained(root: Path, name: str) -> Run:
    """One of `RUNS` on the world of the demonstration, trained unless it is there."""
    root = root.resolve()
    if not (root / "world").exists():
        world(n_genes=1200, seed=0).write(root / "world")
    folder = root / name
    if (folder / "config.yaml").exists():
        run = Run(folder)
    else:
        run = Run(folder, parse_config(configuration(root, name), name))
    run.run("train")
    return run


def page(folder: Path = FOLDER) -> str:
    """Markdown of the section."""
    runs = [trained(folder, name).folder for name in RUNS]
    out, erased = (folder.resolve() / name for name in ("benchmark", "benchmark_erased"))
    if not (out / "benchmark.json").exists():
        benchmark_elements(runs[0], runs[1:], out, erase=False, progress=False)
    if not (erased / "benchmark.json").exists():
        benchmark_elements(runs[0], out=erased, n=N_ERASED, progress=False)
    table = pd.read_parquet(out / "benchmark.parquet")
    facts = json.loads((out / "benchmark.json").read_text())
    return "\n".join([
        "## The simulated world: truth and decoys", "",
        f"The world of `ciscribe demo`, {EPOCHS} epochs instead of 30, one thread. `full` reads sequence and six "
        "signals; `sequence_only` the sequence; in `signal_gate` the signals alone decide the mask, and the "
        f"predictor still reads both. {kept(folder, RUNS)} Figures are of the {facts['genes']:,} genes of chr6, "
        f"{facts['bp']:,} bp of windows.", "",
        "### True elements", "", evidence(of(table, "true elements")), "",
        "### True enhancers, promoters left out", "",
        "Every gene has its promoter at its TSS, which distance knows. Without them:", "",
        evidence(of(table, "true enhancers")), "",
        "By distance from the nearest TSS, AUPRC over chance:", "",
        bands(pd.read_parquet(out / "by_distance.parquet"), "true enhancers"), "",
        f"### Erasing tiles ({N_ERASED} genes, `full`)", "",
        evidence(of(pd.read_parquet(erased / "benchmark.parquet"), "true elements")), "", "True enhancers only:", "",
        evidence(of(pd.read_parquet(erased / "benchmark.parquet"), "true enhancers")), "",
        "### Decoys", "",
        FINDINGS, "",
        "The best base pairs of each method, as many as promoters and enhancers have. `decoy_open` and "
        "`decoy_poised` are open and do nothing; most of the open ones carry the acetylation of an enhancer. In "
        "brackets, times their share of the windows.", "", kinds(pd.read_parquet(out / "composition.parquet")), "",
        "### Which element for which gene", "", pairs(pd.read_parquet(out / "pairs.parquet")).replace(
            "a putative enhancer", "an element").replace(
            " annotated as its target. The annotation goes by position, so distance all but decides it.",
            " true in some cell."), "",
        "### Agreement of the three", "", stability(pd.read_parquet(out / "agreement.parquet")), "",
        "### Necessity and sufficiency", "", curves(pd.read_parquet(out / "sufficiency_necessity.parquet"))])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=RUNS)
    parser.add_argument("--runs", type=Path, default=FOLDER)
    given = parser.parse_args()
    for which in given.names:
        trained(given.runs, which)
