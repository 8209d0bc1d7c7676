"""Measure the main job and write the figures: ``python validation/measure.py demo`` or ``… worm``.

Runs the job from nothing in a new folder (or reads a finished one with ``--run-dir``), and writes the accuracy
beside its baselines, the element benchmark, seconds and peak memory to ``validation/<job>.md``. Every figure is of
the held-out test chromosome; settings were chosen on validation chromosomes.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
ANCHORS = """Anchors on the same split, measured before this project with other code: gradient boosting on 4-mers of
−750..+250 and log ATAC in 13 distance bins r 0.706, across stages 0.510, MSE 0.2696; ATAC alone 0.663 / 0.482; 4-mers
alone 0.484 / 0.33; a plain network (±2 kb in 32-bp bins, five dilated residual blocks, attention pooling, coarse ATAC
of ±10 kb, 9 epochs) 0.764 / 0.624, MSE 0.231."""

CAVEAT = """Settings were chosen on validation chromosomes, but the element scores and locus figures of
this test chromosome had been seen for earlier settings. A world not used before (`ciscribe demo --seed 7`, once) gave
r 0.798, 84.4 % of its ceiling (baselines 0.718 and 0.720), and element
AUPRC 0.340 against 0.285 for the best peaks."""


def table(rows: list[list[str]], header: list[str]) -> str:
    """Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


def interval(score: dict[str, float] | None) -> str:
    """Value with its 95 % interval."""
    return "–" if score is None else f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def write(job: str, folder: Path, seconds: float | None, peak_gb: float | None) -> Path:
    """Write ``validation/<job>.md`` from a run folder."""
    metrics = json.loads((folder / "metrics.json").read_text())
    state = json.loads((folder / "provenance.json").read_text())["steps"]
    text = [f"# {job}", "", f"Written by `python validation/measure.py {job}`. Test chromosome: "
            f"{', '.join(metrics['split']['test']['chroms'])} ({metrics['split']['test']['n_genes']:,} genes); "
            f"validation: {', '.join(metrics['split']['valid']['chroms'])} ({metrics['split']['valid']['n_genes']:,}); "
            f"training: {metrics['split']['train']['n_genes']:,} genes.", ""]
    rows = [[n, interval(m["mean"]["pearson"]), interval(m["mean"]["spearman"]), interval(m["mean"]["mse"]),
             interval(m["across_target"])] for n, m in metrics["models"].items()]
    text += ["## Accuracy on the test chromosome", "",
             table(rows, ["model", "r, mean over targets", "Spearman", "MSE", "across targets r"]), "",
             "95 % bootstrap intervals over genes in brackets.", ""]
    main = metrics["models"][metrics["main"]]
    rows = [[t, *(interval(s[k]) for k in ("pearson", "spearman", "mse", "mae"))]
            for t, s in main["per_target"].items()]
    text += [table(rows, [f"{metrics['main']}, target", "r", "Spearman", "MSE", "MAE"]), ""]
    if metrics["noise_ceiling"]:
        c = metrics["noise_ceiling"]["mean"]
        text += [f"Noise ceiling (noiseless against measured expression of the same genes): r {c:.3f}; "
                 f"{metrics['main']} reaches {main['mean']['pearson']['value'] / c:.1%} of it.", ""]
    text += ["## How far the model looks", "", table(
        [[f"{t['window_bp']:,}", f"{t['pearson']:.3f}"] for t in metrics["truncation"]], ["window (bp)", "r"]), ""]
    for name, title in (("benchmark", "Elements against the truth, equal base pairs"),
                        ("benchmark_links", "Element–gene pairs against the truth, equal numbers of pairs")):
        if (folder / f"{name}.parquet").exists():
            t = pd.read_parquet(folder / f"{name}.parquet")
            text += [f"## {title}", "", table([[r["method"], f"{r['auprc']:.3f}", f"{r['auprc_full']:.3f}",
                     f"{r['precision']:.3f}", f"{r['recall']:.3f}"] for _, r in t.iterrows()],
                     ["method", "AUPRC at the budget", "AUPRC, whole ranking", "precision", "recall"]), ""]
    s = pd.read_parquet(folder / "sufficiency_necessity.parquet")
    for kind in ("sufficiency", "necessity"):
        value = "r" if kind == "sufficiency" else "mean_abs_change"
        wide = s[s["kind"] == kind].pivot_table(index="budget", columns="order", values=value)
        what = "r with the full prediction when only these bins are shown" if kind == "sufficiency" else \
            "mean absolute change of the prediction when these bins are hidden"
        text += [f"## {kind.capitalize()}: {what}", "", table(
            [[f"{b:.1%}", *(f"{v:.3f}" for v in row)] for b, row in zip(wide.index, wide.to_numpy(), strict=True)],
            ["bins", *wide.columns]), ""]
    text += ["## Cost", "", table([[k, f"{v['seconds']:.1f}"] for k, v in state.items()], ["step", "seconds"]), ""]
    if seconds is not None:
        text += [f"Whole command: {seconds:.0f} s; peak memory {peak_gb:.2f} GB; {os.cpu_count()} CPUs, "
                 f"{platform.machine()}, Python {platform.python_version()}, "
                 f"torch {state['train']['provenance']['packages'].get('torch')}.", ""]
    if job == "demo":
        text += ["## How far to trust these figures", "", CAVEAT, ""]
    if job == "worm":
        text += ["## Anchors", "", ANCHORS, ""]
    path = HERE / f"{job}.md"
    path.write_text("\n".join(text))
    return path


def main() -> None:
    """Run, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("demo", "worm"))
    parser.add_argument("--run-dir", type=Path, help="read this finished run instead of running")
    parser.add_argument("--out", type=Path, help="run here instead of in a temporary folder")
    options = parser.parse_args()
    if options.run_dir:
        print(write(options.job, options.run_dir, None, None))
        return
    folder = options.out or Path(tempfile.mkdtemp()) / options.job
    verb = ["demo"] if options.job == "demo" else ["run", str(HERE.parent / "configs" / "worm.yaml")]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ciscribe.cli", *verb, "--out", str(folder)], check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(write(options.job, folder, seconds, peak))


if __name__ == "__main__":
    main()
