"""Score the variants of simulated worlds, where every effect is known: ``python validation/variants_world.py``.

A model of 250 bp learns the world's law from a simulated reporter assay (``validation/interpretation.py world`` trains
it; ``--model`` names the folder, otherwise it is trained first, about 20 minutes). It never sees a genome. It scores
the variants of worlds that nothing was chosen on, and is judged beside the difference of known motifs, guessing, and
the law itself. Then people of those worlds: whether causal variants and eQTL point the way that is predicted, what
scores add to fine-mapping, and whether people are ranked. What could be chosen (the sequence around a variant, the
temperature of the prior) was chosen on world 101. ``--write`` writes ``validation/variants_world.md``.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ciscribe.data.world import World, world
from ciscribe.data.world_people import People, simulate_people
from ciscribe.io.genome import MemoryGenome
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.provenance import write_text
from ciscribe.schema import Motif
from ciscribe.sequence import encode, from_one_hot, one_hot_tensor
from ciscribe.train.labels import auprc, auroc, evaluate_labels
from ciscribe.train.metrics import interval, pearson, spearman
from ciscribe.variants.alleles import fetch_windows
from ciscribe.variants.finemap import FineMapping, fine_map, fit_temperature, softmax_prior, summary_statistics
from ciscribe.variants.motif_effects import motif_effects
from ciscribe.variants.personal import across_people, predict_people, ridge_people, sign_test

HERE = Path(__file__).resolve().parent
PAGE = HERE / "variants_world.md"
CHOOSE, REPORT = 101, (102, 103, 104)
LENGTH, EDGE = 250, 15  # of the model; how near to the window's end a variant may lie
SHIFTS = {"centered on the variant": (0,), "mean of 9 windows, up to 100 bp either way": tuple(range(-100, 101, 25))}
CLEAR = 0.02  # log10 units; what counts as a clear effect in a cell
N_PEOPLE, N_GENES, N_NEUTRAL, APART, REACH = 200, 40, 40, 21_000, 10_000
LD = {"Short LD": (16, 10_000), "Long LD": (8, 40_000)}  # founders, mean length in bp that is copied from one


def reporter_effects(oracle: Oracle, seen: World, variants: pd.DataFrame, shifts: tuple[int, ...],
                     middle: np.ndarray | None = None) -> np.ndarray:
    """Alternative minus reference of the reporter model, ``(V, cells)``: the mean over windows.

    Windows lie `shifts` bp from the variant, or from `middle`, as far as the variant lets them.
    """
    pos, alt = variants["pos"].to_numpy(), np.concatenate([encode(a) for a in variants["alt"]])
    low, high = pos - LENGTH // 2 + EDGE, pos + LENGTH // 2 - EDGE
    genome, rows, total = MemoryGenome(seen.genome), np.arange(len(pos)), 0.0
    for shift in shifts:
        center = np.clip((pos if middle is None else middle) + shift, low, high)
        start = center - LENGTH // 2
        ref = fetch_windows(genome, variants["chrom"].tolist(), start, LENGTH)
        changed = ref.copy()
        changed[rows, pos - start] = alt
        y = [oracle.predict(torch.from_numpy(codes), batch_size=512).numpy() for codes in (ref, changed)]
        total = total + (y[1] - y[0]) / len(shifts)
    return np.asarray(total)


def motif_difference(seen: World, variants: pd.DataFrame) -> np.ndarray:
    """Of the world's own motifs, the one whose best match changes most, with its sign; the same in all cells."""
    motifs = [Motif(f.name, f.ppm) for f in seen.motifs]
    found = motif_effects(MemoryGenome(seen.genome), variants, motifs).summarize()
    return np.repeat(found["d_pwm"].to_numpy()[:, None], len(seen.cells), axis=1)


def distance(seen: World, variants: pd.DataFrame, at: np.ndarray) -> np.ndarray:
    """From `at` to the TSS of the variants' genes."""
    return np.abs(at - seen.genes.set_index("gene_id").loc[variants["gene_id"], "tss"].to_numpy())


def judge(name: str, score: np.ndarray, truth: np.ndarray, breaking: np.ndarray) -> dict[str, Any]:
    """One row: causal against neutral by size, direction and size among the causal."""
    size = np.abs(score).max(axis=1)
    ranked = evaluate_labels(breaking[:, None].astype(float), size[:, None], ["x"])["per_target"]["x"]["auroc"]
    row, cell = np.flatnonzero(breaking), np.abs(truth[breaking]).argmax(axis=1)
    t, s = truth[row, cell], score[row, cell]
    signs, up = sign_test(t, s), t > 0
    clear = breaking[:, None] & (np.abs(truth) > CLEAR)
    return {"row": name, "auroc": ranked, "signs": signs, "raised": (int((s[up] > 0).sum()), int(up.sum())),
            "clear": float((np.sign(score) == np.sign(truth))[clear].mean()), "n_clear": int(clear.sum()),
            "r": pearson(truth[breaking].ravel(), score[breaking].ravel()),
            "rho": spearman(truth[breaking].ravel(), score[breaking].ravel())}


class Variants(NamedTuple):
    """Variants of one or several worlds: the truth and what each method says."""

    breaking: np.ndarray
    truth: np.ndarray
    scores: dict[str, np.ndarray]


def score_world(seed: int, oracle: Oracle, shifts: tuple[int, ...]) -> Variants:
    """All methods on the variants of a world."""
    seen = world(seed=seed)
    v = seen.variants
    truth = -v[[f"effect_{cell}" for cell in seen.cells]].to_numpy()  # the world's effects are ref − alt
    element = seen.elements.set_index("name").loc[v["element"]]
    middle = (element["start"].to_numpy() + element["end"].to_numpy()) // 2
    contact = seen.oracle.contact(distance(seen, v, middle))
    model = reporter_effects(oracle, seen, v, shifts)
    return Variants((v["kind"] == "breaking").to_numpy(), truth, {
        "guess that all lower it": np.full(truth.shape, -1.0), "motif difference": motif_difference(seen, v),
        "motif difference × contact of the element": motif_difference(seen, v) * contact[:, None],
        "reporter model": model, "reporter model × contact of the element": model * contact[:, None],
        "the law itself (ceiling)": truth})


class Tiled(nn.Module):
    """The reporter model along a gene's window: activities of its tiles times their contact with the TSS, added up."""

    def __init__(self, model: nn.Module, seen: World, half_width: int, stride: int = LENGTH // 2):
        super().__init__()
        self.model, self.start = model, torch.arange(0, 2 * half_width - LENGTH + 1, stride)
        weight = seen.oracle.contact(np.abs(self.start.numpy() + LENGTH // 2 - half_width)) * stride / LENGTH
        self.weight = torch.from_numpy(weight).float()

    def forward(self, X: Tensor) -> Tensor:
        """Sum over tiles ``(B, cells)``; each distinct tile is asked once."""
        codes = from_one_hot(X.numpy())[:, self.start[:, None].numpy() + np.arange(LENGTH)].reshape(-1, LENGTH)
        _, first, which = np.unique(np.ascontiguousarray(codes).view(f"V{LENGTH}").ravel(), return_index=True,
                                    return_inverse=True)
        tiles = torch.from_numpy(codes[first])
        y = torch.cat([self.model(one_hot_tensor(part)) for part in tiles.split(512)])[torch.from_numpy(which)]
        return (y.reshape(len(X), len(self.start), -1) * self.weight[:, None]).sum(dim=1)


class Locus(NamedTuple):
    """A gene's variants in people: fit with equal priors, scores, truth, slopes."""

    fit: FineMapping
    z: np.ndarray
    R: np.ndarray
    score: np.ndarray
    effect: np.ndarray


def population(seed: int, founders: int, block: int) -> tuple[World, People, pd.DataFrame]:
    """People of a world, measured in genes too far apart to share variants."""
    seen = world(seed=seed)
    chosen, last = [], ("", 0)
    for gene in seen.genes.to_dict("records"):
        if gene["chrom"] != last[0] or gene["tss"] - last[1] > APART:
            chosen.append(gene["gene_id"])
            last = (gene["chrom"], gene["tss"])
    some = sorted(np.random.default_rng(seed).choice(chosen, N_GENES, replace=False).tolist())
    people = simulate_people(seen, N_PEOPLE, genes=some, n_neutral=N_NEUTRAL, n_founders=founders, block=block,
                             seed=seed)
    return seen, people, seen.genes.set_index("gene_id", drop=False).loc[some].reset_index(drop=True)


def loci(seen: World, people: People, genes: pd.DataFrame, oracle: Oracle, shifts: tuple[int, ...]) -> list[Locus]:
    """Association, scores and a fit with equal priors for every gene."""
    v, cell = people.variants, seen.cells.index(people.cell)
    contact = seen.oracle.contact(distance(seen, v, v["pos"].to_numpy()))
    score = reporter_effects(oracle, seen, v, shifts)[:, cell] * contact
    dosage = people.alleles.sum(axis=2)
    common = dosage.std(axis=1) > 0.1
    out = []
    for gene in genes["gene_id"]:
        rows = np.flatnonzero((v["gene_id"] == gene).to_numpy() & common)
        z, R = summary_statistics(dosage[rows], people.expression.loc[gene].to_numpy())
        fit = fine_map(z, R, N_PEOPLE, on_mismatch="keep")
        out.append(Locus(fit, z, R, score[rows], v["effect"].to_numpy()[rows]))
    return out


def coverage(fits: list[FineMapping], found: list[Locus]) -> tuple[int, int, float, float]:
    """Credible sets with a causal variant, all sets, their mean size, and causal variants in some set."""
    held = [bool((locus.effect[list(s)] != 0).any()) for fit, locus in zip(fits, found, strict=True)
            for s in fit.credible_sets["variants"]]
    size = [n for fit in fits for n in fit.credible_sets["n"]]
    return sum(held), len(held), float(np.mean(size)), float(np.mean(np.array(size) == 1))


def fine_mapping_rows(train: list[Locus], test: list[Locus]) -> list[str]:
    """Table of fine-mapping with and without the scores as prior; the temperature is of the training loci."""
    temperature = fit_temperature([(locus.fit, locus.score) for locus in train])
    informed = [fine_map(locus.z, locus.R, N_PEOPLE, prior=softmax_prior(locus.score, temperature),
                         on_mismatch="keep") for locus in test]
    causal = np.concatenate([locus.effect != 0 for locus in test])
    lines = ["| | AUPRC of causal variants | mean PIP of causal ones | credible sets that hold one | mean size | "
             "sets of one variant |", "|---|---:|---:|---:|---:|---:|"]
    scores = np.concatenate([np.abs(locus.score) for locus in test])
    z = np.concatenate([np.abs(locus.z) for locus in test])
    for name, value in (("largest z", z), ("score of the model alone", scores)):
        lines.append(f"| {name} | {auprc(causal, value):.3f} | – | – | – | – |")
    for name, fits in (("fine-mapping, equal priors", [locus.fit for locus in test]),
                       ("fine-mapping, scores as prior", informed)):
        pip = np.concatenate([fit.pip for fit in fits])
        right, n, size, single = coverage(fits, test)
        lines.append(f"| {name} | {auprc(causal, pip):.3f} | {pip[causal].mean():.3f} | {right} of {n} "
                     f"({right / n:.1%}) | {size:.1f} | {single:.0%} |")
    lines += ["", f"{len(causal):,} variants of {len(test)} genes, {int(causal.sum())} with a true effect. Temperature "
              f"{temperature:.3g} (log10 units), from {len(train)} genes of world {CHOOSE}."]
    return lines


def sign_rows(found: list[Locus]) -> list[str]:
    """Directions: all causal variants, clear ones, and lead variants of eQTL."""
    effect, score = (np.concatenate([getattr(locus, name) for locus in found]) for name in ("effect", "score"))
    lead = [(locus.z[i], locus.score[i], locus.effect[i]) for locus in found for i in [int(np.abs(locus.z).argmax())]]
    z, s, e = (np.array(column) for column in zip(*lead, strict=True))
    strong = np.abs(z) > 5
    cases = (("every variant with a true effect", effect, score),
             (f"a true effect above {CLEAR}", np.where(np.abs(effect) > CLEAR, effect, 0), score),
             (f"of these, the {int((effect > CLEAR).sum())} that raise expression",
              np.where(effect > CLEAR, effect, 0), score),
             ("lead variants of eQTL (z beyond ±5), measured slope", np.where(strong, z, 0), s),
             ("of these, leads that are causal", np.where(strong & (e != 0), z, 0), s))
    lines = ["| direction of | right | share [95 % interval] |", "|---|---:|---:|"]
    for name, truth, predicted in cases:
        test = sign_test(truth, predicted)
        lines.append(f"| {name} | {test.right} of {test.n} | {test.share:.1%} [{test.low:.1%}, {test.high:.1%}] |")
    return lines


def people_rows(populations: list[tuple[World, People, pd.DataFrame]], model: nn.Module) -> list[str]:
    """Correlation across people, gene by gene: the model over both haplotypes, ridge, and what the genome allows."""
    columns: dict[str, list[np.ndarray]] = {}
    same: list[np.ndarray] = []
    for seen, people, genes in populations:
        v, cell = people.variants, seen.cells.index(people.cell)
        observed, genetic = people.expression.to_numpy(), people.genetic.to_numpy()
        oracle = Oracle(Tiled(model, seen, REACH), device="cpu")
        predicted = predict_people(oracle, MemoryGenome(seen.genome), v, people.alleles, genes, REACH,
                                   strand_aware=False, batch_size=64).values[:, :, cell]
        ridge = ridge_people(v, people.alleles, genes, observed, REACH)
        for name, values in (("genome without noise (ceiling)", genetic), ("reporter model × contact", predicted),
                             ("ridge on the same people (held out)", ridge)):
            columns.setdefault(name, []).append(across_people(observed, values)["pearson"].to_numpy())
        same.append(across_people(genetic, predicted)["pearson"].to_numpy())
    lines = ["| | genes | mean r with measured expression | genes with r < 0 |", "|---|---:|---:|---:|"]
    rng = np.random.default_rng(0)
    for name, parts in columns.items():
        r = np.concatenate(parts)
        r = r[np.isfinite(r)]
        mean = interval(float(r.mean()), rng.choice(r, (1000, len(r))).mean(axis=1))
        lines.append(f"| {name} | {len(r)} | {mean['value']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}] | "
                     f"{(r < 0).mean():.1%} |")
    r = np.concatenate(same)
    lines += ["", "The model's mean r with the noiseless expression of the genomes: "
              f"{r[np.isfinite(r)].mean():.3f}."]
    return lines


def choose(oracle: Oracle) -> tuple[str, list[str]]:
    """The sequence around a variant, chosen on world 101 by the mean of AUROC and share of right signs."""
    seen = world(seed=CHOOSE)
    v = seen.variants
    truth, breaking = -v[[f"effect_{c}" for c in seen.cells]].to_numpy(), (v["kind"] == "breaking").to_numpy()
    element = seen.elements.set_index("name").loc[v["element"]]
    middle = ((element["start"] + element["end"]) // 2).to_numpy()
    tried = {name: reporter_effects(oracle, seen, v, shifts) for name, shifts in SHIFTS.items()}
    tried["centered on the element, as far as it holds the variant"] = reporter_effects(oracle, seen, v, (0,), middle)
    lines = ["| sequence around the variant | AUROC | right signs |", "|---|---:|---:|"]
    best = {}
    for name, score in tried.items():
        row = judge(name, score, truth, breaking)
        lines.append(f"| {name} | {row['auroc']['value']:.3f} | {row['signs'].share:.1%} |")
        best[name] = row["auroc"]["value"] + row["signs"].share
    return max((name for name in best if name in SHIFTS), key=best.__getitem__), lines


def variant_rows(found: list[Variants]) -> list[str]:
    """Markdown: all methods on all variants of the reported worlds together."""
    breaking, truth = (np.concatenate([getattr(f, name) for f in found]) for name in ("breaking", "truth"))
    lines = ["| | AUROC, causal against neutral | right signs, in the cell of the largest effect | of those that raise "
             f"| right signs, every cell with an effect above {CLEAR} | r with the effect | Spearman |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for name in found[0].scores:
        row = judge(name, np.concatenate([f.scores[name] for f in found]), truth, breaking)
        a, s = row["auroc"], row["signs"]
        r = [f"{row[k]:.3f}" if np.isfinite(row[k]) else "–" for k in ("r", "rho")]
        lines.append(f"| {name} | {a['value']:.3f} [{a['low']:.3f}, {a['high']:.3f}] | {s.share:.1%} [{s.low:.1%}, "
                     f"{s.high:.1%}] | {row['raised'][0]} of {row['raised'][1]} | {row['clear']:.1%} | "
                     f"{' | '.join(r)} |")
    none = (truth[breaking] == 0).all(axis=1).sum()
    each = ", ".join(f"{auroc(f.breaking, np.abs(f.scores['reporter model']).max(axis=1)):.3f}" for f in found)
    return [*lines, "", f"{breaking.sum():,} broken sites, {none} of them without an effect in any cell (they count in "
            f"the AUROC and not in the signs), and {(~breaking).sum():,} neutral variants. AUROC of the reporter model "
            f"in worlds {', '.join(map(str, REPORT))}: {each}."]


def benchmark(model: nn.Module) -> str:
    """Everything, as a page."""
    oracle = Oracle(model, device="cpu")
    chosen, choice = choose(oracle)
    shifts = SHIFTS[chosen]
    print("chosen", *choice, sep="\n", flush=True)
    variants = variant_rows([score_world(seed, oracle, shifts) for seed in REPORT])
    print("variants", *variants, sep="\n", flush=True)
    mapped: list[str] = []
    for name, (founders, block) in LD.items():
        train = loci(*population(CHOOSE, founders, block), oracle, shifts)
        populations = [population(seed, founders, block) for seed in REPORT]
        every = [locus for some in populations for locus in loci(*some, oracle, shifts)]
        mapped += [f"{name}: haplotypes copy {founders} founders in blocks of {block // 1000} kb on average.", "",
                   *fine_mapping_rows(train, every), ""]
    print("fine-mapping", *mapped, sep="\n", flush=True)
    return "\n".join([
        "# Variants and people of the simulated world", "",
        "Written by `python validation/variants_world.py --write`. Effects are alternative − reference.", "",
        f"The model saw 36,000 sequences of a simulated reporter assay of {LENGTH} bp (`simulate_assay`, seed 0) and "
        f"no genome. Figures are of worlds {', '.join(map(str, REPORT))}, 95 % intervals over variants or genes in "
        f"brackets; what could be chosen was chosen on world {CHOOSE}.", "",
        "## Variants", "", *variants, "",
        "A broken site mostly lowers expression, so that guessing has most signs right: judge the column of those that "
        "raise it. Motif differences know which base breaks which motif of the world's own table, which is how these "
        "variants were made, but not which factor does what in which cell. Contact is the world's own fall with the "
        "distance from element to TSS.", "",
        f"Sequence around a variant, chosen on world {CHOOSE}: {chosen}.", "", *choice, "",
        "## People", "",
        f"{N_PEOPLE} people of each world, {N_GENES} genes in one cell type, heritability 0.5; each gene has 3 changes "
        f"of bases in working sites and {N_NEUTRAL} within {REACH // 1000} kb. A change is random, not the worst. "
        "Scores are of the reporter model × contact of the variant's own distance.", "",
        "### Fine-mapping", "", *mapped,
        "In long LD one variant can stand for two or three causal ones, and the sets of single effects then miss more "
        "often than they say (loci of one causal variant do not: 40 of 40 sets in a separate simulation, against 65 "
        "of 87 with three of equal size). The prior helps most there.", "",
        "### Directions, long LD", "", *sign_rows(every), "",
        "### Ranking people, long LD", "", *people_rows(populations, model), "",
        f"{platform.platform()}, Python {platform.python_version()}, PyTorch {torch.__version__}.", ""])


def main() -> None:
    """Train or read the model, measure, print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model trained on the world's reporter assay")
    parser.add_argument("--folder", type=Path, default=Path("runs/interpretation"), help="where it is trained else")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.model is None:
        import interpretation  # beside this file; it trains the model that both use
        given.model = interpretation.train("world", given.folder, given.threads).folder / "model"
    begun = time.perf_counter()
    model, _ = registry.load(given.model)
    page = benchmark(model)
    print(page)
    print(f"{time.perf_counter() - begun:.0f} s")
    if given.write:
        write_text(PAGE, page)


if __name__ == "__main__":
    main()
