"""Cross-validate the zoo on real reporter assays and write the figures: ``python validation/reporter.py --jobs 2``.

Runs ``configs/bench_reporter.yaml`` in ``runs/bench_reporter`` (or continues there, or reads a finished folder with
``--bench-dir``), and writes ``validation/reporter.md``. Needs the public data sets; CISCRIBE_DATA names their folder.
"""

import argparse
import os
import platform
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from ciscribe.config import BenchConfig, read_config
from ciscribe.train.sequence_baselines import CARDS
from ciscribe.workflow.bench import BASELINES, Bench, load_prepared

HERE = Path(__file__).resolve().parent
PUBLISHED = {"plant_leaf": "mpra/plant/CNN_test_leaf_pred.tsv.gz",
             "plant_proto": "mpra/plant/CNN_test_proto_pred.tsv.gz"}
"""Predictions of the published network (Jores 2021), trained on 65,000 promoters, for the rows of these sets."""


def signed(row: dict, key: str) -> str:
    """A gain with its interval; a dash where there is none."""
    if not np.isfinite(row[key]):
        return "–"
    return f"{row[key]:+.3f} [{row[f'{key}_low']:+.3f}, {row[f'{key}_high']:+.3f}]"


def model_table(bench: Bench, summary: pd.DataFrame) -> list[str]:
    """Markdown: every data set, baselines first, then models by their correlation; says which are unfinished."""
    planned = Counter((f.assay, f.model) for f in bench.fits())
    lines = ["| data set | model | fits | r, mean ± sd | gain over the better baseline | r, mean of the seeds | "
             "its gain | parameters | s a fit |", "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    several = summary.groupby("assay")["target"].nunique()
    for (assay, target), rows in summary.groupby(["assay", "target"], sort=False):
        name = f"{assay}, {target}" if several[assay] > 1 else str(assay)
        order = rows.assign(model_first=~rows["model"].isin(CARDS)).sort_values(["model_first", "pearson"])
        for row in order.to_dict("records"):
            baseline = row["model"] in CARDS
            wanted = planned[assay, BASELINES if baseline else row["model"]]
            n = str(row["n_fits"]) if row["n_fits"] == wanted else f"{row['n_fits']} of {wanted}"
            lines.append(
                f"| {name} | {row['model']} | {n} | {row['pearson']:.3f} ± {row['pearson_sd']:.3f} | "
                f"{'–' if baseline else signed(row, 'gain')} | {'–' if baseline else format(row['ensemble'], '.3f')} | "
                f"{'–' if baseline else signed(row, 'ensemble_gain')} | "
                f"{'–' if baseline else format(int(row['parameters']), ',')} | "
                f"{'–' if baseline else format(row['seconds'], '.0f')} |")
    return lines


def published_table(bench: Bench, summary: pd.DataFrame) -> list[str]:
    """Markdown: our cross-validated models beside the published network on the same rows."""
    lines = ["| data set | model | training sequences | r, mean over folds and seeds |", "|---|---|---:|---:|"]
    for assay, path in PUBLISHED.items():
        file = bench.root / path
        if assay not in bench.config.assays or not file.is_file():
            continue
        table = pd.read_csv(file, sep="\t")
        r = np.corrcoef(table["enrichment"], table["prediction"])[0, 1]
        lines.append(f"| {assay} | published CNN (its own test rows, as published) | 65,000 | {r:.3f} |")
        data, _, _ = load_prepared(bench.folder, assay)
        n = len(data) * (bench.config.folds - 2) // bench.config.folds
        for row in summary.loc[summary["assay"] == assay].sort_values("pearson").to_dict("records"):
            lines.append(f"| {assay} | {row['model']} | {n:,} | {row['pearson']:.3f} |")
            if row["model"] not in CARDS and row["n_fits"] > bench.config.folds:  # several seeds
                lines.append(f"| {assay} | {row['model']}, mean of the seeds | {n:,} | {row['ensemble']:.3f} |")
    return lines


def transfer_table(folder: Path) -> list[str]:
    """Markdown: trained on all of one set, tested on all of another."""
    path = folder / "transfers.parquet"
    if not path.exists():
        return []
    table = pd.read_parquet(path)
    lines = ["| trained on | tested on | model | seeds | r, mean ± sd | Spearman |", "|---|---|---|---:|---:|---:|"]
    for (train, test, model), rows in table.groupby(["train", "test", "model"], sort=False):
        lines.append(f"| {train} ({rows['n_train'].iloc[0]:,}) | {test} ({rows['n_test'].iloc[0]:,}) | {model} | "
                     f"{len(rows)} | {rows['pearson'].mean():.3f} ± {rows['pearson'].std(ddof=1):.3f} | "
                     f"{rows['spearman'].mean():.3f} |")
    return lines


def write(bench: Bench, summary: pd.DataFrame) -> Path:
    """Write ``validation/reporter.md``."""
    c = bench.config
    sets = []
    for name in c.assays:
        data, group, _ = load_prepared(bench.folder, name)
        sets.append(f"| {name} | {len(data):,} | {data.codes.shape[1]} | {len(np.unique(group)):,} | "
                    f"{', '.join(data.target_names)} |")
    text = [
        "# Reporter assays", "",
        "Written by `python validation/reporter.py` from `configs/bench_reporter.yaml`: "
        f"{c.folds}-fold cross-validation, whole groups of similar sequences to a fold, up to {c.seeds} seeds. One "
        "fold is tested, the next chooses the epoch, the others train. r is the Pearson correlation on the held-out "
        "fold, mean over folds and seeds, ± its standard deviation over fits. A gain is the difference to the better "
        "of the two baselines on the same folds, with a 95 % interval from resampling groups of similar sequences "
        "within folds. "
        "`_from_…` was first trained on another set of its family, without relatives of held-out "
        "sequences. "
        "Models with few fits are there for breadth: reduced widths, two folds, one seed.",
        "", "## Data", "",
        "| data set | sequences | bp | groups | target |", "|---|---:|---:|---:|---|", *sets, "",
        "## Models and baselines", "", *model_table(bench, summary), "",
        "## Beside the published plant network", "",
        "The published CNN saw about 65,000 training promoters that are not here; ours see 3 folds of the 7,000 "
        "promoters of its test set, by cross-validation.", "",
        *published_table(bench, summary), "",
    ]
    transfers = transfer_table(bench.folder)
    if transfers:
        text += ["## From one set to another", "", *transfers, ""]
    text += [f"{os.cpu_count()} CPU cores, one thread a fit, Python {platform.python_version()}. Settings were chosen "
             "on validation folds."]
    path = HERE / "reporter.md"
    path.write_text("\n".join(text) + "\n")
    return path


def main() -> None:
    """Run or read the benchmark, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE.parent / "configs" / "bench_reporter.yaml")
    parser.add_argument("--bench-dir", type=Path, default=Path("runs/bench_reporter"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--read-only", action="store_true", help="write what is finished, fit nothing")
    arguments = parser.parse_args()
    read_config(arguments.config, BenchConfig)
    bench = Bench.from_config(arguments.config, arguments.bench_dir, n_jobs=arguments.jobs)
    summary = bench.summarize() if arguments.read_only else bench.run()
    print(write(bench, summary))


if __name__ == "__main__":
    main()
