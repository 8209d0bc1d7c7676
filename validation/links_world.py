"""Links on simulated worlds: ``python validation/links.py world [--write]``, or this file to choose folder and seeds.

Genes of two chromosomes that the model was not trained on: everything is chosen on one (validation), and the figures
are of the other (test). The truth is what deleting an element does to a gene, by the law of the world.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy import ndarray

from ciscribe.config import parse_config
from ciscribe.data.world import World, world
from ciscribe.demo import demo_config
from ciscribe.elements.peaks import call_peaks
from ciscribe.interpret.methods import attribute
from ciscribe.links.abc import candidate_elements
from ciscribe.links.benchmark import pr_metrics
from ciscribe.links.combine import fit_combiner, predict_combiner
from ciscribe.links.model import abc_attribution_links, mask_links
from ciscribe.results import contributions
from ciscribe.sequence import one_hot_tensor
from ciscribe.workflow.run import Run

N_GENES = 1200
REACH = 10_000
"""bp beyond which an element of the world does nothing."""
FOLDS = {"valid": "chr5", "test": "chr6"}
KEY = ["chrom", "start", "end", "gene_id", "cell"]

HALF = (150, 250, 400)
AROUND = (0, 250)
NEAREST = (500, 1_000, 2_000, 3_000, 5_000)
GAMMA = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
SHAPES = {"max(d, d0)": lambda d, d0: np.maximum(d, d0), "d0 + d": lambda d, d0: d0 + d}


def trained(folder: Path, seed: int) -> Run:
    """The demonstration's run on the world of a seed, trained unless it is there."""
    folder = folder.resolve() / f"demo{seed}"
    if not (folder / "world").exists():
        world(n_genes=N_GENES, seed=seed).write(folder / "world")
    if (folder / "config.yaml").exists():
        run = Run(folder, progress=False)
    else:
        raw = demo_config(folder, ("liver", "blood", "neuron"), seed=seed)
        run = Run(folder, parse_config(raw, "the demonstration"), progress=False)
    run.run("train")
    return run


class Chromosome:
    """What was measured on one chromosome of a world, and its tested pairs."""

    def __init__(self, truth: World, chrom: str):
        self.chrom, self.cells, size = chrom, truth.cells, len(truth.genome[chrom])
        self.genes = truth.genes.loc[(truth.genes["chrom"] == chrom).to_numpy()].reset_index(drop=True)
        atac = [t for t in truth.tracks if t.name.startswith("atac_")]
        self.peaks = pd.concat([call_peaks(t, {chrom: size}, method="local") for t in atac], ignore_index=True)
        self.area = {t.name: _area(t.runs[chrom], size) for t in truth.tracks}
        links = truth.links.loc[(truth.links["chrom"] == chrom).to_numpy()]
        own = ((links["kind"] == "promoter") & (links["distance"] == 0)).to_numpy()  # no screen tests these
        self.tested = links.loc[~own, [*KEY, "distance", "label", "effect"]].reset_index(drop=True)

    def candidates(self, half: int) -> pd.DataFrame:
        """Peaks of all cells, and promoters, summit ± half."""
        return candidate_elements(self.peaks, self.peaks["score"].to_numpy(), self.genes, half=half)

    def pairs(self, elements: pd.DataFrame, around: int = 0) -> pd.DataFrame:
        """Links of every candidate and gene within reach in every cell, with the activity of the element."""
        middle, tss = (elements["start"] + elements["end"]).to_numpy() // 2, self.genes["tss"].to_numpy()
        gene, element = np.nonzero(np.abs(middle[None] - tss[:, None]) <= REACH)
        start, end = (elements[c].to_numpy() for c in ("start", "end"))
        parts = []
        for cell in self.cells:
            atac, k27 = self._mean(f"atac_{cell}", start, end), self._mean(f"h3k27ac_{cell}", start - around,
                                                                           end + around)
            parts.append(pd.DataFrame({
                "chrom": self.chrom, "start": start[element], "end": end[element],
                "gene_id": self.genes["gene_id"].to_numpy()[gene], "cell": cell,
                "distance": np.abs(middle[element] - tss[gene]), "activity": np.sqrt(atac * k27)[element],
                "atac": atac[element], "h3k27ac": k27[element]}))
        return pd.concat(parts, ignore_index=True)

    def _mean(self, name: str, start: ndarray, end: ndarray) -> ndarray:
        area = self.area[name]
        start, end = np.maximum(start, 0), np.minimum(end, len(area) - 1)
        return (area[end] - area[start]) / (end - start)

    def matches(self, pairs: pd.DataFrame) -> tuple[ndarray, ndarray]:
        """Rows of the tested pairs and of the candidates' that overlap, of one gene and cell."""
        both = self.tested[KEY].assign(i=np.arange(len(self.tested))).merge(
            pairs[KEY].assign(j=np.arange(len(pairs))), on=["chrom", "gene_id", "cell"], suffixes=("", "_c"))
        both = both.loc[(both["start"] < both["end_c"]) & (both["start_c"] < both["end"])]
        return both["i"].to_numpy(), both["j"].to_numpy()

    def read(self, match: tuple[ndarray, ndarray], score: ndarray, how: str = "max") -> ndarray:
        """Score of each tested pair from those of the candidates on it; 0 where there is none."""
        out = np.zeros(len(self.tested))
        (np.maximum if how == "max" else np.add).at(out, match[0], score[match[1]])
        return out


def _area(runs: Any, size: int) -> ndarray:
    dense = np.zeros(size + 1)
    for start, end, value in zip(runs.start, runs.end, runs.value, strict=True):
        dense[start + 1:end + 1] = value
    return dense.cumsum()


def abc(pairs: pd.DataFrame, contact: ndarray) -> ndarray:
    """Share of each element in all that reaches its gene."""
    numerator = pairs["activity"].to_numpy() * contact
    total = pd.Series(numerator).groupby([pairs["gene_id"].to_numpy(), pairs["cell"].to_numpy()]).transform("sum")
    return numerator / np.maximum(total.to_numpy(), 1e-12)


def choose_abc(valid: Chromosome) -> dict[str, Any]:
    """The candidates, activity, contact and aggregation with which ABC does best on the validation chromosome."""
    best: dict[str, Any] = {"ap": -1.0}
    for half, around in product(HALF, AROUND):
        pairs = valid.pairs(valid.candidates(half), around)
        match, distance = valid.matches(pairs), pairs["distance"].to_numpy(float)
        for shape, d0, gamma, how in product(SHAPES, NEAREST, GAMMA, ("max", "sum")):
            score = valid.read(match, abc(pairs, SHAPES[shape](distance, d0) ** -gamma), how)
            ap = average_precision(valid.tested["label"].to_numpy(), score)
            if ap > best["ap"]:
                best = {"ap": ap, "half": half, "around": around, "shape": shape, "d0": d0, "gamma": gamma, "how": how}
    return best


def score_chromosome(run: Run, of: Chromosome, fold: str, chosen: dict[str, Any]) -> dict[str, ndarray]:
    """Every score of the tested pairs of a chromosome."""
    elements = of.candidates(chosen["half"])
    pairs = of.pairs(elements, chosen["around"])
    distance = pairs["distance"].to_numpy(float)
    contact = SHAPES[chosen["shape"]](distance, chosen["d0"]) ** -chosen["gamma"]
    match = of.matches(pairs)
    pairs["score"] = abc(pairs, contact)
    out = {"distance": -of.tested["distance"].to_numpy(float),
           "activity": of.read(match, pairs["activity"].to_numpy()),
           "abc": of.read(match, pairs["score"].to_numpy(), chosen["how"]),
           "activity × contact": of.read(match, pairs["activity"].to_numpy() * contact, chosen["how"]),
           "contact": of.read(match, contact)}

    store, oracle = run.store, run.oracle()
    rows = store.rows(fold)
    batch = store.batch(rows)
    covariates = batch.covariates if batch.covariates.shape[1] else None
    _, flip = store.starts(rows)
    windows = store.windows().iloc[rows].assign(strand=np.where(flip, "-", "+")).reset_index(drop=True)
    windows["tss"] = store.genes["tss"].to_numpy()[rows]
    n_tracks = len(store.track_names) - bool(store.spec.contact)
    for how in ("erase", "both", "n"):
        links = mask_links(oracle, batch.codes, batch.signals, covariates, windows, elements, cells=store.target_names,
                           how=how, tracks=range(n_tracks), max_distance=REACH)
        at = pairs[KEY].merge(links[[*KEY, "effect"]], on=KEY, how="left")["effect"].fillna(0).to_numpy()
        pairs[f"effect_{how}"] = at
        out[f"effect, {how}"] = of.read(match, np.maximum(at, 0))
    mask = oracle.posterior(batch.codes, batch.signals).mean.numpy()
    slope = attribute(oracle, batch.codes, batch.signals, covariates, method="corrected_gradient")
    slope = contributions(slope, one_hot_tensor(batch.codes)).transpose("region", "track", "position").values
    for name, mass in (("mask", mask), ("gradient", slope)):
        shared = abc_attribution_links(pairs, mass, windows, cells=store.target_names)
        out[f"abc × {name}"] = of.read(match, shared["score"].to_numpy(), chosen["how"])
        out[name] = of.read(match, shared["mass"].to_numpy())
    return out


MEASURED = ("distance_bp", "activity", "contact", "abc", "activity × contact")
ASKED = ("effect, erase", "effect, both", "effect, n", "mask", "gradient")


def combine(chromosomes: dict[str, Chromosome], scores: dict[str, dict[str, ndarray]], seed: int) -> None:
    """Add the combiners, fitted to the pairs of the validation chromosome, to the scores of the test chromosome."""
    tables = {}
    for fold, of in chromosomes.items():
        made = {name: scores[fold][name] for name in (*MEASURED, *ASKED) if name in scores[fold]}
        scale = {"activity": 1.0, "mask": 100.0, "gradient": 100.0}
        table = pd.DataFrame({name: value * scale.get(name, 10.0) for name, value in made.items()})
        table["distance_bp"] = of.tested["distance"] / 1000
        tables[fold] = table.assign(label=of.tested["label"].to_numpy(), chrom=of.tested["start"] // 400_000)
    for name, features in (("combiner, measurements alone", MEASURED), ("combiner with the model", MEASURED + ASKED)):
        fitted = fit_combiner(tables["valid"], features, model="both", seed=seed)
        scores["test"][name] = predict_combiner(fitted, tables["test"])


def average_precision(label: ndarray, score: ndarray) -> float:
    """Area under precision and recall, ties together."""
    return pr_metrics(np.asarray(label), np.asarray(score, float))["average_precision"]


def intervals(of: Chromosome, scores: dict[str, ndarray], n: int = 500, seed: int = 0) -> dict[str, ndarray]:
    """Average precision of each score in resamples of the genes, the same for all: ``(n,)``."""
    genes = of.tested["gene_id"].to_numpy()
    rows = pd.Series(np.arange(len(genes))).groupby(genes).agg(list).tolist()
    label, rng = of.tested["label"].to_numpy(), np.random.default_rng(seed)
    draws = {name: np.zeros(n) for name in scores}
    for i in range(n):
        at = np.concatenate([rows[j] for j in rng.integers(len(rows), size=len(rows))])
        for name, score in scores.items():
            draws[name][i] = average_precision(label[at], score[at])
    return draws


def world_links(folder: str | Path = "runs/validation_links", seeds: tuple[int, ...] = (0, 1), *,
                n_bootstrap: int = 500) -> pd.DataFrame:
    """Average precision of every score, a world each.

    Returns
    -------
    DataFrame
        ``seed, method, valid, test, low, high, gain, gain_low, gain_high, n, positives``: 95 % intervals over genes;
        `gain` is the difference to ABC on the test chromosome. ``attrs["abc"]`` are the choices made for ABC.
    """
    rows, choices = [], {}
    for seed in seeds:
        run, truth = trained(Path(folder), seed), world(n_genes=N_GENES, seed=seed)
        chromosomes = {fold: Chromosome(truth, chrom) for fold, chrom in FOLDS.items()}
        choices[seed] = choose_abc(chromosomes["valid"])
        scores = {fold: score_chromosome(run, of, fold, choices[seed]) for fold, of in chromosomes.items()}
        combine(chromosomes, scores, seed)
        test = chromosomes["test"]
        draws = intervals(test, scores["test"], n_bootstrap, seed)
        label = test.tested["label"].to_numpy()
        base = average_precision(label, scores["test"]["abc"])
        for name, score in scores["test"].items():
            ap, gain = average_precision(label, score), draws[name] - draws["abc"]
            seen = scores["valid"].get(name)
            rows.append({"seed": seed, "method": name, "test": ap, "gain": ap - base,
                         "valid": np.nan if seen is None else
                         average_precision(chromosomes["valid"].tested["label"].to_numpy(), seen),
                         **dict(zip(("low", "high"), np.quantile(draws[name], (0.025, 0.975)), strict=True)),
                         **dict(zip(("gain_low", "gain_high"), np.quantile(gain, (0.025, 0.975)), strict=True)),
                         "n": len(label), "positives": int(label.sum())})
    table = pd.DataFrame(rows)
    table.attrs["abc"] = choices
    return table


def page(folder: str | Path = "runs/validation_links", seeds: tuple[int, ...] = (0, 1)) -> str:
    """Section of the page, in Markdown."""
    table = world_links(folder, seeds)
    lines = [
        "## Simulated worlds", "",
        "Every element within 10 kb of a gene of the test chromosome (chr6; without the gene's own promoter), in three "
        "cells; true where deleting the element lowers expression by more than 0.02. Models and combiners never saw "
        "these genes; ABC's candidates, activity, contact and aggregation, and the combiners' weights, are from the "
        "validation chromosome (chr5). Candidates are peaks of the simulated ATAC of any cell and promoters, the same "
        "for all; a tested element without one scores 0. The effect of an element is asked of the demonstration's "
        "Seq2Exp, with its mask closed (erase), bases N and signals 0 (both), or bases N alone (n); mask and gradient "
        "are the share of the window's mask, or of its contributions by corrected gradients, that lies in the element. "
        "Average precision with 95 % intervals over genes; the gain is over ABC.", ""]
    for seed, part in table.groupby("seed"):
        choice = table.attrs["abc"][seed]
        first = part.iloc[0]
        lines += [f"### World {seed}", "", f"{first['n']:,} pairs, {first['positives']:,} true "
                  f"({first['positives'] / first['n']:.1%}). ABC at its best on validation: candidates of ± "
                  f"{choice['half']} bp, H3K27ac of ± {choice['around']} bp more, contact ({choice['shape']}, d0 "
                  f"{choice['d0']:,} bp)^−{choice['gamma']:g}, {choice['how']} over candidates.", "",
                  "| method | test | 95 % | gain over ABC | 95 % | validation |", "|---|---:|---:|---:|---:|---:|"]
        for r in part.sort_values("test", ascending=False).to_dict("records"):
            seen = "–" if np.isnan(r["valid"]) else f"{r['valid']:.3f}"
            lines.append(f"| {r['method']} | {r['test']:.3f} | {r['low']:.3f} to {r['high']:.3f} | {r['gain']:+.3f} | "
                         f"{r['gain_low']:+.3f} to {r['gain_high']:+.3f} | {seen} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/validation_links"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print(page(given.folder, tuple(given.seeds)))


if __name__ == "__main__":
    main()
