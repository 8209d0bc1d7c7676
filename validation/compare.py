"""Compare models and write the figures: ``python validation/compare.py worm|demo [--jobs 2] [--write]``.

Runs ``configs/compare_worm.yaml`` or ``configs/compare_demo.yaml`` in ``runs/`` (or continues there), or reads what is
finished in a folder with ``--folder``, and writes the section of ``validation/compare.md``. What is not finished is
said. The worm needs the public data sets (CISCRIBE_DATA names their folder); the demonstration is simulated first.
"""

import argparse
import platform
import resource
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from parts import put

from ciscribe.config import parse_config, write_config
from ciscribe.data.world import world
from ciscribe.demo import demo_config
from ciscribe.provenance import provenance, write_text
from ciscribe.workflow.compare import Compare

HERE = Path(__file__).resolve().parent
PARTS = ("worm", "demo")


def simulate() -> None:
    """The world of the demonstration and the configuration of its run, where they are not there."""
    folder = HERE.parent / "runs" / "demo"
    if not (folder / "world").exists():
        world(n_genes=1200, seed=0).write(folder / "world")
    if not (folder / "config.yaml").exists():
        config = parse_config(demo_config(folder, ("liver", "blood", "neuron")))
        write_text(folder / "config.yaml", write_config(config))


def signed(row: dict, key: str) -> str:
    """A gain with its interval; a dash where there is none."""
    if not np.isfinite(row[key]):
        return "–"
    return f"{row[key]:+.3f} [{row[f'{key}_low']:+.3f}, {row[f'{key}_high']:+.3f}]"


def figure(value: float) -> str:
    """Three decimals; a dash where there is none."""
    return "–" if not np.isfinite(value) else f"{value:.3f}"


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """Table whose first column is text."""
    return ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1),
            *("| " + " | ".join(row) + " |" for row in rows)]


def section(compare: Compare, summary: pd.DataFrame) -> list[str]:
    """What is on the page, of all finished fits."""
    planned = Counter(f.model for f in compare.fits())
    reference = summary.attrs["reference"]
    across = pd.read_parquet(compare.folder / "differences.parquet").query("figure == 'across_target'")
    across = across.set_index("model")
    rows = []
    for row in summary.to_dict("records"):
        n = planned[row["model"]]
        rows.append([row["model"], str(row["n_fits"]) if row["n_fits"] == n else f"{row['n_fits']} of {n}",
                     f"{row['pearson']:.3f}", figure(row["pearson_sd_folds"]), figure(row["pearson_sd_seeds"]),
                     signed(row, "gain"), figure(row["ensemble"]), f"{row['mse']:.3f}", f"{row['across_target']:.3f}",
                     signed(across.loc[row["model"]].to_dict(), "gain") if row["model"] in across.index else "–",
                     "–" if pd.isna(row["parameters"]) else f"{row['parameters']:,}", f"{row['seconds']:.0f}"])
    text = markdown(["model", "fits", "r", "± folds", "± seeds", f"gain over {reference}", "r, mean of the seeds",
                     "MSE", "r across targets", "its gain", "parameters", "s a fit"], rows)
    missing = sum(planned.values()) - int(summary["n_fits"].sum())
    text += ["", "r: over the genes of a fold, mean over targets, seeds, then folds. Gains are over the folds that "
             "both have, with the 95 % interval of genes resampled within folds. Seconds depend on what else ran."]
    if missing:
        text += ["", f"**Not finished: {missing} of {sum(planned.values())} fits.** Rows of fewer folds are means over "
                 "those; compare gains, not r."]
    per_fold = pd.read_parquet(compare.folder / "fits.parquet").pivot_table(
        index="model", columns="fold", values="pearson", sort=False).reindex(summary["model"])
    text += ["", "By fold (mean of its seeds):", "", *markdown(["model", *map(str, per_fold.columns)], [
        [str(m), *(figure(v) for v in values)] for m, values in zip(per_fold.index, per_fold.to_numpy(), strict=True)])]
    for name, x, what in (("rate", "fraction", "Rate–distortion: r when only this share of the window is seen"),
                          ("truncation", "window_bp", "Truncation: r when only so many bp around the TSS are seen")):
        table = pd.read_parquet(compare.folder / f"{name}.parquet")
        if len(table):
            wide = table.pivot_table(index="model", columns=x, values="pearson", sort=False)
            wide = wide[sorted(wide.columns)].reindex([m for m in summary["model"] if m in wide.index])
            names = [f"{c:.1%}" if x == "fraction" else f"{c:,}" for c in wide.columns]
            text += ["", f"{what} (first seed, mean over folds):", "", *markdown(["model", *names], [
                [str(m), *(figure(v) for v in values)] for m, values in zip(wide.index, wide.to_numpy(), strict=True)])]
    return text


def main() -> None:
    """Run, and print or write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--folds", nargs="*", default=[])
    parser.add_argument("--finished", action="store_true", help="read what is finished, fit nothing")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.part == "demo":
        simulate()
    compare = Compare.from_config(HERE.parent / "configs" / f"compare_{given.part}.yaml",
                                  given.folder or HERE.parent / "runs" / f"compare_{given.part}", n_jobs=given.jobs,
                                  folds=tuple(given.folds))
    begin = time.perf_counter()
    summary = compare.summarize() if given.finished else compare.run()
    seconds = time.perf_counter() - begin
    facts, peak = provenance(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    title = {"worm": "C. elegans, six stages", "demo": "The simulated world of the demonstration"}[given.part]
    how = "read from finished fits" if given.finished else (f"{seconds / 60:.0f} minutes in this call, peak "
                                                            f"{peak:.1f} GB")
    text = "\n".join([f"<!-- {given.part} -->", f"## {title}", "", *section(compare, summary), "",
                      f"Written by `python validation/compare.py {given.part} --write` ({facts['created']}, Python "
                      f"{platform.python_version()}, ciscribe {facts['version']}; {how}, {given.jobs} fits at a time).",
                      f"<!-- end {given.part} -->", ""])
    if given.write:
        put(HERE / "compare.md", "Models compared", PARTS, given.part, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
