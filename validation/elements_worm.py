"""Elements of the worm without any ATAC among the inputs: ``python validation/elements.py worm [--write]``.

This file trains the runs (``python validation/elements_worm.py NAME …``; the page trains those that are not there) and
holds their scores against the accessible sites, promoters and enhancers of Jänes et al. 2018, on chromosome IV.
Readings of the scores, how far the mask is smoothed, and the rival's region and reach were chosen on chromosome III.
"""

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ciscribe.config import parse_config, resolve_root
from ciscribe.train.evaluate import predict_rows
from ciscribe.workflow.element_benchmark import benchmark_elements
from ciscribe.workflow.run import Run

HERE = Path(__file__).resolve().parent
FOLDER = Path("runs/elements")
EPOCHS = 6
STAGES = ("emb", "L1", "L2", "L3", "L4", "YA")
RUNS: dict[str, tuple[tuple[str, ...], int, int]] = {
    # name: stages whose ATAC the model reads, seed, epochs
    "sequence_1": ((), 1, EPOCHS),
    "sequence_2": ((), 2, 2),
    "atac_emb": (("emb",), 1, 3),
}
MODEL = {"d_model": 48, "n_layers": 1, "d_state": 4, "expand": 1, "pool": "attention", "include_bp": 512,
         "dropout": 0.1, "prior_scale": 1.0, "beta_min": 0.1, "z_scale": 10.0}
N_ERASED = 300
"""Genes whose tiles are erased; the mask is asked about all."""
LIMITS = """What limits it: `kmer_ridge_supervised`, five-letter words and nothing else, but trained on the accessible
sites of other chromosomes, finds far more, so most of what sequence tells about accessibility is not asked for by
expression, or not learned from 13,499 genes. The kept epoch is the one with the lowest validation MSE; r went on
rising after it, and a later epoch's mask (the third, on chrIII) found less (2.7 times chance, smoothed)."""
HEIGHT = "atac_wt_{}_height"


def configuration(name: str) -> dict[str, Any]:
    """``configs/worm.yaml`` without surroundings, with a small Seq2Exp, and with the ATAC of some stages."""
    stages, seed, epochs = RUNS[name]
    path = HERE.parent / "configs" / "worm.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["data"]["root"] = str(resolve_root(raw["data"]["root"], path.parent).resolve())
    if stages:
        values = raw["data"]["tracks"][0]["sites"]["values"]
        raw["data"]["tracks"][0]["sites"]["values"] = {f"atac_{s}": values[f"atac_{s}"] for s in stages}
    else:
        raw["data"]["tracks"] = []
    raw["window"]["context_half_width"] = 0
    raw["model"] = {"name": "seq2exp", "arguments": MODEL}
    raw["train"] |= {"epochs": epochs, "n_threads": 1, "final_learning_rate": None}
    raw["elements"] = {"bp_fraction": 0.1, "max_per_gene": 12}
    raw["report"] = {"title": f"C. elegans: {name}"}
    return raw | {"name": name, "seed": seed}


def trained(folder: Path, name: str) -> Run:
    """One of `RUNS`, trained unless it is there."""
    folder = folder.resolve() / name
    run = Run(folder) if (folder / "config.yaml").exists() else Run(folder, parse_config(configuration(name), name))
    run.run("train")
    return run


def known() -> dict[str, Path]:
    """What is known of the worm."""
    worm = Path(os.environ.get("CISCRIBE_DATA", HERE.parent.parent / "shared" / "data")) / "worm"
    return {"sites": worm / "atac_accessible_sites_heights_ce10.tsv.gz",
            "promoters": worm / "coding_promoters_6Dec17.bed.gz",
            "enhancers": worm / "putative_enhancers_6Dec17.bed.gz",
            "names": worm / "rnaseq_counts_CDS_unique_WS290.tsv.gz"}


def benchmark(folder: Path, what: str, first: str, others: tuple[str, ...] = (), **options: Any) -> Path:
    """A benchmark of runs, unless it is there."""
    out = folder.resolve() / f"benchmark_{what}"
    if not (out / "benchmark.json").exists():
        runs = [trained(folder, name).folder for name in (first, *others)]
        benchmark_elements(runs[0], runs[1:], out, progress=False, **known(), **options)
    return out


def page(folder: Path = FOLDER) -> str:
    """Markdown of the section."""
    valid = benchmark(folder, "valid", "sequence_1", fold="valid", erase=False)
    test = benchmark(folder, "test", "sequence_1", erase=False)
    erased = benchmark(folder, "erased", "sequence_1", n=N_ERASED)
    table = pd.read_parquet(test / "benchmark.parquet")
    on_valid = pd.read_parquet(valid / "benchmark.parquet")
    sites = of(table, "accessible sites")
    facts = json.loads((test / "benchmark.json").read_text())
    lines = [
        "## The worm, without ATAC among the inputs", "",
        "Seq2Exp reads 4,096 bp around the TSS and nothing else (no track, no surroundings): one layer, 48 channels, "
        f"{EPOCHS} epochs, one thread. That is smaller and shorter than `configs/worm.yaml`, to fit into the time "
        f"there was. Trained without chrIII (validation) and chrIV (test). {kept(folder, ['sequence_1'])} "
        f"Figures are of the {facts['genes']:,} genes of chrIV, {facts['bp']:,} bp of windows.", "",
        "### Accessible sites", "",
        f"{sites['prevalence'].iloc[0]:.1%} of the bases lie in one of the 42,245 accessible sites: the AUPRC of "
        "chance. 95 % intervals over stretches of 100 kb. The last column is the same on chrIII, where readings were "
        "chosen.", "", evidence(sites, of(on_valid, "accessible sites")), "", verdict(sites), "", LIMITS, "",
        "### By distance from the nearest TSS", "",
        "AUPRC over chance among the bases of a band, where distance alone is worth nothing.", "",
        bands(pd.read_parquet(test / "by_distance.parquet"), "accessible sites"), "",
        "### Promoters, enhancers", "",
        evidence(of(table, "promoters")), "", "Promoters above, putative enhancers below; `peak_height` is the "
        "height of the accessible sites, from which both were annotated.", "", evidence(of(table, "enhancers")), "",
        "### Which enhancer for which gene", "", pairs(pd.read_parquet(test / "pairs.parquet")), "",
        "### What the best base pairs are", "", kinds(pd.read_parquet(test / "composition.parquet")), "",
        f"### Erasing tiles ({N_ERASED} genes)", "",
        "The mask is read off; erasing asks the model again. `erasure` closes the mask over 128 bp, `erased_bases` "
        "turns them into N. Both say what the prediction rests on, and that is not the same as what is open: they find "
        "less than the mask, and no more than the ridge.", "",
        evidence(of(pd.read_parquet(erased / "benchmark.parquet"), "accessible sites")), "",
        "### Necessity and sufficiency", "",
        "The 512 bp around the TSS are always open to this model, and without signals most of the prediction is made "
        "there: distance beats the mask, and hiding a fifth of the window by the mask costs little. Ranked by "
        "`erasure`, fewer bases carry more.", "", curves(pd.read_parquet(erased / "sufficiency_necessity.parquet"))]
    return "\n".join(lines)


def kept(folder: Path, names: Iterable[str]) -> str:
    """Which epoch each run kept, with its r on validation and test genes."""
    said = []
    for name in names:
        log = pd.read_csv(folder / name / "log.csv")
        epoch = int(log["valid_mse"].to_numpy().argmin())
        run = Run(folder / name, progress=False)
        rows = run.store.rows("test")
        predicted, observed = predict_rows(run.oracle(), run.store, rows), run.store.targets[rows]
        r = float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, observed.T, strict=True)]))
        said.append(f"{name} {log['valid_pearson'].iloc[epoch]:.3f} and {r:.3f} (epoch {epoch + 1} of {len(log)}, the "
                    "lowest validation MSE)")
    return f"r on validation and on test genes, mean over targets: {'; '.join(said)}."


def of(table: pd.DataFrame, truth: str) -> pd.DataFrame:
    """Rows of one truth, best first."""
    return table.loc[table["truth"] == truth].sort_values("fold", ascending=False, kind="stable")


def evidence(table: pd.DataFrame, other: pd.DataFrame | None = None) -> str:
    """AUPRC over chance with its interval, one row a method."""
    beside = {} if other is None else dict(zip(other["method"], other["fold"], strict=True))
    rows = [[f"{r['method']}{' (control)' if r['control'] else ''}", f"{r['auprc_full']:.3f}",
             f"{r['fold']:.2f} [{r['low']:.2f}, {r['high']:.2f}]",
             f"{r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}]", f"{r['precision']:.3f}",
             *([f"{beside[r['method']]:.2f}" if r["method"] in beside else "–"] if beside else [])]
            for r in table.to_dict("records")]
    return markdown(["method", "AUPRC", "over chance", "over kmer_ridge", "precision at equal bp",
                     *(["validation"] if beside else [])], rows)


def verdict(table: pd.DataFrame) -> str:
    """What was asked for, and what was reached."""
    row = {r["method"]: r for r in table.to_dict("records")}
    said = []
    for name in ("sequence_1: mask", "sequence_1: mask_smoothed"):
        r = row[name]
        over = r["auprc_full"] / row["shuffled"]["auprc_full"]
        said.append(f"`{name}` {over:.2f} times the shuffled control and {r['ratio']:.2f} times the 5-mer ridge "
                    f"(95 % interval {r['ratio_low']:.2f} to {r['ratio_high']:.2f})")
    return ("Asked for: at least twice the shuffled control, and above a 5-mer ridge scan of the same windows. "
            f"Reached: {'; '.join(said)}.")


def bands(table: pd.DataFrame, truth: str) -> str:
    """Folds by distance."""
    own = table.loc[table["truth"] == truth]
    names = list(dict.fromkeys(own["band"]))
    wide = own.pivot_table(index="method", columns="band", values="fold", sort=False)[names]
    share = own.drop_duplicates("band").set_index("band")["prevalence"]
    head = [f"{name} bp ({share[name]:.1%})" for name in names]
    return markdown(["method", *head], [[m, *(f"{v:.2f}" for v in row)] for m, *row in wide.itertuples()])


def pairs(table: pd.DataFrame) -> str:
    """Element–gene pairs."""
    row = table.iloc[0]
    rows = [[f"{r['method']}{' (control)' if r['control'] else ''}", f"{r['auprc_full']:.3f}", f"{r['fold']:.2f}"]
            for r in table.sort_values("fold", ascending=False, kind="stable").to_dict("records")]
    return (f"{row['n_pairs']:,} pairs of a putative enhancer and a gene whose window holds it, {row['n_true']:,} of "
            "them annotated as its target. The annotation goes by position, so distance all but decides it.\n\n"
            + markdown(["method", "AUPRC", "over chance"], rows))


def kinds(table: pd.DataFrame) -> str:
    """Shares of the best base pairs, and times their share of the windows."""
    names = list(dict.fromkeys(table["kind"]))
    rows = []
    for method in dict.fromkeys(table["method"]):
        own = table.loc[table["method"] == method].set_index("kind")
        rows.append([method, *(f"{own.loc[k, 'share']:.1%} ({own.loc[k, 'enrichment']:.2f} ×)" for k in names)])
    return markdown(["method", *names], rows)


def stability(table: pd.DataFrame) -> str:
    """Jaccard of runs."""
    rows = [[f"{r['a']}, {r['b']}", r["score"], f"{r['budget']:.0%}", f"{r['jaccard']:.3f}", f"{r['another_gene']:.3f}",
             f"{r['chance']:.3f}"] for r in table.to_dict("records")]
    return markdown(["runs", "score", "base pairs", "Jaccard", "genes changed", "chance"], rows)


def curves(table: pd.DataFrame) -> str:
    """Sufficiency and necessity by budget."""
    out = []
    for name in dict.fromkeys(table["run"]):
        own = table.loc[table["run"] == name]
        for kind, what in (("sufficiency", "r with the full prediction, only these bins shown"),
                           ("necessity", "r with the full prediction, these bins hidden")):
            wide = own.loc[own["kind"] == kind].pivot_table(index="order", columns="budget", values="r", sort=False)
            out += [f"{name}, {own['n_genes'].iloc[0]} genes: {what}", "", markdown(
                ["ranked by", *(f"{b:.1%}" for b in wide.columns)],
                [[o, *(f"{v:.3f}" for v in row)] for o, *row in wide.itertuples()]), ""]
    return "\n".join(out).strip()


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Table, numbers to the right."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(RUNS))
    parser.add_argument("--runs", type=Path, default=FOLDER)
    given = parser.parse_args()
    for which in given.names:
        trained(given.runs, which)
