"""Measure what interpretation finds: ``python validation/interpretation.py`` writes ``validation/interpretation.md``.

Trains a model on each assay below (or reads what a call before left in ``--folder``), explains it, and holds what comes
out against what is known: the boxes of E. coli promoters and the distance between them, plant core-promoter and factor
motifs, yeast factors, the planted truth of the simulated world, and completeness on a small case of every model. Real
assays need the public data sets (CISCRIBE_DATA names their folder); without them only the rest is measured.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ciscribe.config import ReporterConfig
from ciscribe.data.motif_table import FACTORS, factor
from ciscribe.data.world_assay import simulate_assay
from ciscribe.errors import UnsupportedError
from ciscribe.interpret import modisco, motifs
from ciscribe.interpret.deeplift import deep_lift
from ciscribe.interpret.methods import METHODS
from ciscribe.interpret.patterns import Pattern
from ciscribe.interpret.syntax import spacing_curve
from ciscribe.io.motifs import read_meme
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.perturb.experiments import marginalize
from ciscribe.provenance import provenance, write_text
from ciscribe.schema import Motif
from ciscribe.sequence import decode, dinucleotide_shuffle
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.subject import Subject, subject

HERE = Path(__file__).resolve().parent
PAGE = HERE / "interpretation.md"
DATA = Path(os.environ.get("CISCRIBE_DATA", HERE.parent.parent / "shared" / "data"))
LEGNET = {"name": "legnet", "arguments": {"stem_channels": 64, "channels": [64, 64, 64, 64]}}
DEEPSTARR = {"name": "deepstarr", "arguments": {"filters": [96, 60, 60, 120]}}
ECOLI = {"assay": {"path": "mpra/ecoli_150bp/train_genome_split.txt.gz", "columns": ["sequence", "activity"],
                   "duplicates": "mean", "log": "log2", "floor": 0.0, "pseudocount": 0.1},
         "model": LEGNET, "train": {"epochs": 12, "patience": 6, "augment": {"mutation": 0.05, "shift": 5}}}
ASSAYS: dict[str, dict[str, Any]] = {
    "ecoli": ECOLI,
    "ecoli_second": ECOLI | {"folds": {"test": 1}, "seed": 1},
    "plant": {
        "assay": {"path": "mpra/plant/CNN_test_leaf.tsv.gz", "activity": "enrichment"},
        "model": DEEPSTARR, "train": {"epochs": 16, "patience": 6, "augment": {"mutation": 0.05, "shift": 8}}},
    "yeast": {
        "assay": {"path": "mpra/yeast/Native_testdata_defined_media.csv.gz", "sequence": "seq110",
                  "activity": "meanEL", "duplicates": "mean"},
        "model": {"name": "legnet", "arguments": {"stem_channels": 32, "channels": [40, 48, 56, 64]}},
        "train": {"epochs": 20, "patience": 8}},
    "world": {
        "assay": {"path": "world.tsv", "activity": ["liver", "blood", "neuron"]},
        "model": DEEPSTARR, "train": {"epochs": 12, "patience": 4, "augment": {"shift": 8}}},
}
"""What is trained on each assay: one fold of five held out, another to choose the epoch."""

BOXES = {"-10 box": "TATAAT", "-35 box": "TTGACA"}
YEAST = {"Reb1": "TTACCCG", "Abf1": "TCRNNNNNNACG", "Rap1": "ACCCRTACA", "Cbf1": "CACGTG", "Mbp1": "ACGCGT",
         "Dot6 / Tod6": "GCGATGAG", "Stb3": "AAAAATTT", "poly-dA:dT": "AAAAAAAA", "Gcn4": "TGACTC",
         "Rsc3": "CGCGCG", "Ume6": "TAGCCGCC", "Hsf1": "TTCNNGAA"}
"""Consensus of general regulatory and other well-known factors of yeast, from the literature."""


def train(name: str, folder: Path, n_threads: int | None) -> ReporterRun:
    """Train the model of an assay, or find it trained."""
    given = ASSAYS[name]
    root = folder if name == "world" else DATA
    if name == "world" and not (folder / "world.tsv").exists():
        assay = simulate_assay(60_000, noise=0.05, seed=0)
        folder.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame({"sequence": [decode(row) for row in assay.codes]})
        pd.concat([table, pd.DataFrame(assay.activity, columns=list(assay.cells))], axis=1).to_csv(
            folder / "world.tsv", sep="\t", index=False, float_format="%.4f")
    plan = {"learning_rate": 0.002, "batch_size": 64, "weight_decay": 0.01, "average": 0.99, "n_threads": n_threads}
    config = ReporterConfig(name=f"interpret_{name}", root=str(root.resolve()), **{
        **given, "train": {**given["train"], **plan}})
    run = ReporterRun(folder / name, config, progress=False)
    run.run("train")
    return run


def accuracy(run: ReporterRun) -> str:
    """Correlation on the held-out fold, target by target."""
    of = subject(run.folder, fold="test", n=10**6)
    y = of.oracle.predict(torch.from_numpy(of.codes)).numpy()
    r = [np.corrcoef(y[:, i], of.observed[:, i])[0, 1] for i in range(len(of.tracks))]
    return f"{run.config.model.name}, r {', '.join(f'{v:.3f}' for v in r)} on the held-out fold ({len(y):,} sequences)"


def strongest(of: Subject, n: int) -> Subject:
    """The sequences with the largest predictions, where the model has something to explain."""
    y = of.oracle.predict(torch.from_numpy(of.codes)).numpy().max(axis=1)
    return of.take(np.sort(np.argsort(-y, kind="stable")[:n]))


class Mean(nn.Module):
    """The mean of several models."""

    def __init__(self, models: list[nn.Module]):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, X: Tensor) -> Tensor:
        """Mean prediction."""
        return torch.stack([model(X) for model in self.models]).mean(dim=0)


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in [header, *rows]]
    return [*lines[:1], "|" + "---|" * len(header), *lines[1:], ""]


def described(p: Pattern) -> list[str]:
    """Name, letters, seqlets and where they stand."""
    return [p.name, motifs.consensus(motifs.trim_motif(p.motif)), f"{len(p.seqlets):,}",
            f"{p.seqlets['start'].median():.0f}"]


def found_words(patterns: list[Pattern], words: dict[str, str]) -> list[list[str]]:
    """Rows: each known word, and the pattern that is most like it."""
    rows = []
    for name, word in words.items():
        best = max(patterns, key=lambda p: motifs.match_consensus(p, word).similarity)
        rows.append([name, word, f"{motifs.match_consensus(best, word).similarity:.2f}", *described(best)])
    return rows


def explained(of: Subject, track: int = 0, width: int = 15, n_references: int = 20) -> tuple[list[Pattern], str]:
    """Patterns of a model by DeepSHAP and TF-MoDISco, and what it took."""
    start = time.perf_counter()
    found = deep_lift(*of.inputs, n_references=n_references)
    seconds, start = time.perf_counter() - start, time.perf_counter()
    patterns = modisco.discover_motifs(of.codes, found, track=track, width=width)
    return patterns, (f"DeepSHAP of {len(of.codes):,} sequences with {n_references} references, {seconds:.0f} s "
                      f"(completeness error {found.attrs['completeness_error']:.1e}); TF-MoDISco, "
                      f"{time.perf_counter() - start:.0f} s, {len(patterns)} patterns.")


def measure_ecoli(folder: Path, n_threads: int | None) -> list[str]:
    """Boxes of E. coli promoters, and the distance that the model likes best between them."""
    runs = [train(name, folder, n_threads) for name in ("ecoli", "ecoli_second")]
    of = subject(runs[0].folder, n=10**6)
    patterns, took = explained(strongest(of, 1_500))
    lines = ["## E. coli promoters (Urtecho 2023)", "", "; ".join(accuracy(run) for run in runs) + ".", "",
             "The 1,500 sequences with the largest predictions of the first model. " + took, ""]
    lines += table(["pattern", "letters", "seqlets", "median start, bp"], [described(p) for p in patterns])
    lines += table(["box", "consensus", "similarity", "of pattern", "letters", "seqlets", "median start, bp"],
                   found_words(patterns, BOXES))
    lines += ["Spacing: TTGACA and TATAAT written into 60 shuffled sequences, at 11 places each; the textbook optimum "
              "is 17 bp between them.", ""]
    backgrounds = np.concatenate([dinucleotide_shuffle(row, 1, seed=i) for i, row in enumerate(of.codes[::200][:60])])
    models = [registry.load(run.folder / "model")[0] for run in runs]
    gaps = list(range(10, 26))
    curves = {name: spacing_curve(Oracle(model), "TTGACA", "TATAAT", backgrounds, gaps, shifts=range(-45, 46, 9))
              for name, model in (("first", models[0]), ("second", models[1]), ("their mean", Mean(models)))}
    rows = []
    for name, curve in curves.items():
        for what, column in (("cooperativity", "mean"), ("joint effect", "joint")):
            best = int(curve.loc[curve[column].idxmax(), "gap"])
            values = ", ".join(f"{row['gap']}: {row[column]:.3f}" for row in curve.to_dict("records"))
            rows.append([name, what, f"{best} bp", values])
    return lines + table(["model", "curve", "peak", "by gap"], rows)


def measure_plant(folder: Path, n_threads: int | None) -> list[str]:
    """Known plant motifs by database match."""
    run = train("plant", folder, n_threads)
    known = [m for name in ("CPEs", "TF-clusters") for m in read_meme(DATA / f"mpra/plant/{name}.meme")]
    patterns, took = explained(subject(run.folder, n=4_000), width=13, n_references=10)
    matches = motifs.match_motifs(patterns, known)
    rows = []
    for p in patterns:
        best = matches.loc[matches["pattern"] == p.name].iloc[0]
        rows.append([*described(p), best["match"], f"{best['q_value']:.2g}", f"{best['similarity']:.2f}"])
    sure = {row[4] for row in rows if float(row[5]) <= 0.05}
    return ["## Plant core promoters (Jores 2021, tobacco leaves)", "", accuracy(run) + ".", "", took, "",
            *table(["pattern", "letters", "seqlets", "median start, bp", "best match", "q", "similarity"], rows),
            f"Known motifs with q ≤ 0.05: {len(sure)} ({', '.join(sorted(sure))}).", ""]


def measure_yeast(folder: Path, n_threads: int | None) -> list[str]:
    """Known yeast factors by their consensus."""
    run = train("yeast", folder, n_threads)
    patterns, took = explained(subject(run.folder, n=10**6), width=13, n_references=5)
    words = [Motif(name, motifs.word_motif(word).ppm, word) for name, word in YEAST.items()]
    decoys = read_meme(DATA / "motifs/jaspar_2024_consensus.meme.gz")
    matches = motifs.match_motifs(patterns, [*words, *decoys], n_best=1)
    rows = []
    for p in patterns:
        best = matches.loc[matches["pattern"] == p.name].iloc[0]
        rows.append([*described(p), f"{best['match']}{f' ({YEAST[name]})' if (name := best['match']) in YEAST else ''}",
                     f"{best['q_value']:.2g}", f"{best['similarity']:.2f}"])
    sure = {row[4] for row in rows if float(row[5]) <= 0.05 and row[4].split(" (")[0] in YEAST}
    return ["## Yeast native promoters (Vaishnav 2022)", "", accuracy(run) + ".", "", took, "",
            f"Matched by TOMTOM with the consensus of {len(YEAST)} well-known yeast factors from the literature, among "
            f"{len(decoys)} motifs of other species (JASPAR 2024).", "",
            *table(["pattern", "letters", "seqlets", "median start, bp", "best match", "q", "similarity"], rows),
            f"Yeast factors with q ≤ 0.05: {len(sure)} ({', '.join(sorted(sure))}).", ""]


def measure_world(folder: Path, n_threads: int | None) -> list[str]:
    """Every planted motif, the sign of the repressor, and the spacing at which two factors help each other."""
    run = train("world", folder, n_threads)
    of = subject(run.folder, fold="test", n=10**6)
    some = subject(run.folder, fold="test", n=3_000)
    start = time.perf_counter()
    found = deep_lift(*some.inputs, n_references=8)
    seconds = time.perf_counter() - start
    best: dict[str, tuple[float, Pattern, str]] = {}
    for track, cell in enumerate(of.tracks):
        for p in modisco.discover_motifs(some.codes, found, track=track, width=21):
            for f in FACTORS:
                similarity = motifs.align_motifs(p.motif, Motif(f.name, f.ppm, f.source)).similarity
                if similarity > best.get(f.name, (0.0, p, cell))[0]:
                    best[f.name] = (similarity, p, cell)
    backgrounds = strongest(of, 200).codes
    rng = np.random.default_rng(0)
    rows = []
    for f in FACTORS:
        similarity, p, cell = best[f.name]
        word = "".join(c if c in "ACGT" else "N" for c in decode(f.ppm.argmax(axis=0).astype(np.uint8)))
        control = "".join(rng.permutation(list(word)))  # what is written over is lost with any word
        effect = marginalize(of.oracle, {"site": word, "control": control}, backgrounds)
        by_cell = (effect.loc[effect["pattern"] == "site", "effect"].to_numpy()
                   - effect.loc[effect["pattern"] == "control", "effect"].to_numpy())
        cell_of = int(np.abs(by_cell).argmax())
        rows.append([f.name, f.role, f"{similarity:.3f}" if similarity > 0.9 else f"{similarity:.3f} (not found)",
                     f"{p.name} in {cell}", motifs.consensus(motifs.trim_motif(p.motif)), f"{len(p.seqlets):,}",
                     f"{by_cell[cell_of]:+.3f} ({of.tracks[cell_of]})"])
    one, other = (decode(factor(name).ppm.argmax(axis=0).astype(np.uint8)) for name in ("CEBPA", "FOS::JUN"))
    curve = spacing_curve(of.oracle, one, other, backgrounds, list(range(0, 31)), shifts=(-24, -11, 0, 11, 24))
    blood = curve.loc[curve["track"] == of.tracks.index("blood")]
    peak = int(blood.loc[blood["mean"].idxmax(), "gap"])
    inside = blood.loc[blood["gap"].between(8, 14), "mean"].mean()
    outside = blood.loc[~blood["gap"].between(6, 16), "mean"].mean()
    recovered = [f.name for f in FACTORS if best[f.name][0] > 0.9]
    values = ", ".join(f"{row['gap']}: {row['mean']:+.3f}" for row in blood.to_dict("records"))
    return ["## The simulated world", "", f"An assay of 60,000 sequences of 250 bp with planted sites "
            f"(`ciscribe.data.world_assay`). {accuracy(run)}. DeepSHAP of 3,000 test sequences, "
            f"8 references, {seconds:.0f} s; TF-MoDISco for each cell.", "",
            *table(["factor", "role", "similarity of the best pattern", "pattern", "letters", "seqlets",
                    "effect of its consensus less that of its shuffled bases, 200 active sequences"], rows),
            f"Recovered with a similarity above 0.9: {len(recovered)} of {len(FACTORS)}; CTCF does nothing to "
            "expression in this world, so a model of expression cannot know it.", "",
            f"Planted synergy of CEBPA and FOS::JUN at gaps of 8 to 14 bp, asked in 200 active sequences, in blood: "
            f"the cooperativity peaks at {peak} bp; its mean is {inside:+.3f} at 8 to 14 bp and {outside:+.3f} "
            f"elsewhere. By gap: {values}.", ""]


def measure_completeness(*_: Any) -> list[str]:
    """What adds up, on a small case of every registered model."""
    sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "models")]
    cases = __import__("zoo_cases")
    rows = []
    for name in registry.names():
        key = next((k for k in cases.CASES if k.split()[0] == name), None)
        if key is None:
            continue
        model, _, X, extras = cases.case(key)
        oracle = Oracle(model, cases.CASES[key].readout)
        given = (extras.get("S"), extras.get("covariates"))
        cells = []
        for method in ("deeplift", "integrated_gradients"):
            try:
                error = METHODS[method](oracle, X, *given).attrs["completeness_error"]
                cells.append(f"{error:.0e}")
            except UnsupportedError as refusal:
                cells.append("no: " + str(refusal).split(":")[0].split(";")[0])
        rows.append([name, key, *cells])
    return ["## Completeness", "", "A small case of every registered model, untrained. DeepLIFT: the worst pair of a "
            "sequence and a reference, relative to the largest output. Integrated gradients: relative to the sum of "
            "absolute contributions, with the number of steps that its tolerance of 0.005 asks for.", "",
            *table(["model", "case", "DeepLIFT, DeepSHAP", "integrated gradients"], rows)]


PARTS: dict[str, Callable[[Path, int | None], list[str]]] = {
    "ecoli": measure_ecoli, "plant": measure_plant, "yeast": measure_yeast, "world": measure_world,
    "completeness": measure_completeness}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--folder", type=Path, default=Path("runs/validation_interpretation"))
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.parts:
        if name in ("ecoli", "plant", "yeast") and not DATA.is_dir():
            print(f"{name}: no data at {DATA}; set CISCRIBE_DATA")
            continue
        lines = PARTS[name](options.folder, options.threads)
        (options.folder / f"{name}.md").write_text("\n".join(lines))  # parts may be measured one at a time
        print("\n".join(lines), flush=True)
    texts = [(options.folder / f"{name}.md").read_text() for name in PARTS if (options.folder / f"{name}.md").exists()]
    facts = provenance()
    write_text(PAGE, "\n".join(["# What interpretation finds", "", "Written by `python validation/interpretation.py`. "
                                "Models are trained on three of five folds of sequences, one chooses the epoch; "
                                "figures on the held-out fold say so.", "", *texts,
                                f"{facts['platform']}, Python {facts['python']}, PyTorch {torch.__version__}.", ""]))


if __name__ == "__main__":
    main()
