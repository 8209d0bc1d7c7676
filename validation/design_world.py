"""Designs of a world whose law is known: real gain, how much of the best gain that is, and what was promised.

``python validation/design.py world [--write]``, or this file alone. A model is trained on a simulated reporter assay
(or read from ``--folder``); designers improve weak sequences by what it predicts, within a number of model calls; the
law itself, which no designer sees, then measures every design. The yardsticks are searches that ask the law. What was
designed is kept under ``--folder``; what is there is not made again.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from ciscribe.config import ReporterConfig
from ciscribe.data.grammar import WorldOracle
from ciscribe.data.motif_table import FACTORS
from ciscribe.data.world_assay import Assay, simulate_assay
from ciscribe.design.audit import VERDICTS, audit_sequences
from ciscribe.design.benchmark import world_numbers
from ciscribe.design.calibration import fit_calibration
from ciscribe.design.generators import GENERATORS, Generator
from ciscribe.design.implant import spelled
from ciscribe.design.natives import Natives
from ciscribe.design.objective import Maximize
from ciscribe.design.runner import design
from ciscribe.errors import SchemaError
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.schema import Motif
from ciscribe.sequence import N, codes_of, decode, encode, reverse_complement_codes
from ciscribe.train.labels import auroc
from ciscribe.train.metrics import pearson
from ciscribe.train.sequence_baselines import fit_gbm
from ciscribe.workflow.reporter import ReporterRun

N_TRAIN, LENGTH, NOISE, CELL = 60_000, 250, 0.05, 0
N_NATIVES, N_LEARNED, N_JUDGE = 5_000, 10_000, 20_000
BUDGET, N_STARTS, N_EACH = 20_000, 12, 8
SHAPE = "gain per edit"
WORLD = WorldOracle()
MOTIFS = [Motif(f.name, f.ppm) for f in FACTORS if f.role in ("pioneer", "activator", "core")]
"""Of all factors that can raise expression in some cell; which of them do so in this one is not told."""


def law(codes: UInt8[ndarray, "n L"]) -> Float[ndarray, " n"]:
    """What the world would measure without noise, in the cell that is designed for."""
    return WORLD(codes, LENGTH // 2)[:, CELL]


class Law(nn.Module):
    """The law as a model, so that designers can ask it."""

    def forward(self, X: Tensor) -> Tensor:
        """Expression."""
        return torch.from_numpy(law(codes_of(X)))[:, None].float()


def rules() -> dict[str, Any]:
    """The grammar of the world in this cell, as `interpret.syntax` would tell it if it made no mistake."""
    activity = WORLD.tf_activity.iloc[CELL]
    words = spelled(MOTIFS)
    pioneers, activators, cores = ([f for f in FACTORS if f.role == role] for role in ("pioneer", "activator", "core"))
    effect = {f.name: f.weight * activity[f.name] for f in activators}
    alone = dict.fromkeys((f.name for f in pioneers), 0.0) | {f.name: f.weight for f in cores}
    alone |= {name: WORLD.proximal * value for name, value in effect.items()}
    together = [(p.name, a.name, range(WORLD.reach - (len(words[p.name]) + len(words[a.name])) // 2),
                 effect[a.name] * activity[p.name]**2 / (activity[p.name]**2 + WORLD.half_open**2))
                for p in pioneers for a in activators]
    one, other = WORLD.partners
    together.append((one, other, range(WORLD.spacing[0], WORLD.spacing[1] + 1),
                     WORLD.synergy * activity[one] * activity[other]))
    position = [{"motif": name, "strand": strand, "position": 0, "mean": mean}
                for name, mean in alone.items() for strand in "+-"]
    spacing = [{"motif_a": a, "motif_b": b, "order": order, "orientation": turn, "gap": gap, "mean": mean}
               for a, b, gaps, mean in together for order in ("ab", "ba") for turn in ("++", "+-", "-+", "--")
               for gap in gaps]
    return {"position": pd.DataFrame(position), "spacing": pd.DataFrame(spacing)}


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "screen": ("screen", {}), "drift": ("drift", {}), "sswm": ("sswm", {}), "greedy": ("greedy", {}),
    "beam 4": ("greedy", {"beam": 4}), "anneal": ("anneal", {}), "genetic": ("genetic", {}),
    "adalead": ("adalead", {}), "seqprop": ("seqprop", {}), "edit": ("edit", {}),
    "implant": ("implant", {"motifs": MOTIFS}),
    "grammar": ("grammar", {"motifs": MOTIFS, "n_motifs": 12} | rules()),
    "sample": ("sample", {}), "reinforce": ("reinforce", {}), "grpo": ("grpo", {}), "drakes": ("drakes", {}),
    "latent": ("latent", {})}
MOST = {"grammar": 2_000}
"""Queries a start of designers that take long to think, where the budget is larger."""
BY_LAW = ("greedy", "beam 4", "genetic", "adalead", "implant", "grammar")
NETWORK = {"channels": 64, "n_layers": 4}
LEARNED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **dict.fromkeys(("sample", "reinforce", "grpo"), ("autoregressive", NETWORK, {"epochs": 8})),
    "drakes": ("masked_diffusion", NETWORK, {"epochs": 8}),
    "latent": ("wgan", {"channels": 16}, {"epochs": 20})}
FROM_NOTHING = ("screen", *LEARNED)
"""These take nothing from a start: one run for all, its designs dealt out to the starts, best first."""


class World:
    """What is asked, what designers may be told of it, and where designs are kept."""

    def __init__(self, folder: Path, begin: UInt8[ndarray, "S L"], budget: int, n_each: int):
        self.begin, self.budget, self.n_each = begin, budget, n_each
        self.assay = simulate_assay(N_TRAIN, length=LENGTH, noise=NOISE, seed=0)
        self.labels = self.assay.activity[:, CELL].astype(float)
        self.model = trained(folder, self.assay)
        self.kept = folder / f"world_{len(begin)}x{budget}"
        self.kept.mkdir(parents=True, exist_ok=True)
        self.generators: dict[str, Generator] = {}

    def predict(self, codes: UInt8[ndarray, "n L"]) -> Float[ndarray, " n"]:
        """What the model says."""
        return self.model.predict(torch.from_numpy(codes))[:, CELL].double().numpy()

    def options(self, name: str) -> dict[str, Any]:
        """What a designer is given beside its defaults."""
        if name == "edit":
            return {"label_sd": float(self.labels.std())}
        if name not in LEARNED:
            return {}
        kind, size, plan = LEARNED[name]
        if kind not in self.generators:
            begun = time.process_time()
            self.generators[kind] = GENERATORS[kind](LENGTH, **size).fit(
                self.assay.codes[:N_LEARNED], self.labels[:N_LEARNED], **plan)
            print(f"{kind}: {time.process_time() - begun:.0f} s of CPU", flush=True)
        asked = {} if name == "latent" else {"y": float(self.labels.max())}
        return asked | {"generator": self.generators[kind]}

    def designs(self, name: str, oracle: Oracle, row: str, high: float | None = None) -> pd.DataFrame:
        """Designs of one designer: ``method, origin, place, sequence, edits, queries, seconds``, best first."""
        path = self.kept / f"{row}.csv"
        if path.exists():
            return pd.read_csv(path)
        method, options = METHODS[name]
        options = options | self.options(name)
        objective = Maximize(oracle, track=CELL if oracle is self.model else 0)
        objective = objective if high is None else objective.clip(high=high)
        begun, budget = time.process_time(), min(self.budget, MOST.get(name, self.budget))
        if name in FROM_NOTHING:
            runs = [design(objective, None, method, length=LENGTH, n=self.n_each * len(self.begin), budget=budget,
                           **options)]
        else:
            runs = [design(objective, start[None], method, n=self.n_each, budget=budget, seed=i, **options)
                    for i, start in enumerate(self.begin)]
        seconds = time.process_time() - begun
        rows = []
        for i, made in enumerate(runs):
            place = np.arange(len(made))
            origin, place = (place % len(self.begin), place // len(self.begin)) if name in FROM_NOTHING else (i, place)
            rows.append(pd.DataFrame({"method": row, "origin": origin, "place": place, "queries": made.queries,
                                      "sequence": [decode(codes) for codes in made.codes]}))
        table = pd.concat(rows, ignore_index=True)
        codes = coded(table)
        table["edits"] = (codes != self.begin[table["origin"]]).sum(axis=1)
        table["seconds"] = seconds
        table.to_csv(path, index=False)
        print(f"{row}: {seconds:.0f} s of CPU", flush=True)
        return table


def trained(folder: Path, assay: Assay) -> Oracle:
    """A DeepSTARR-like model of the simulated assay, trained unless it is there."""
    run = folder.resolve() / "world"
    if not (run / "model").exists():
        folder.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame({"sequence": [decode(row) for row in assay.codes]})
        pd.concat([table, pd.DataFrame(assay.activity, columns=pd.Index(assay.cells))], axis=1).to_csv(
            folder / "world.tsv", sep="\t", index=False, float_format="%.4f")
        ReporterRun(run, ReporterConfig(
            name="design_world", root=str(folder.resolve()),
            assay={"path": "world.tsv", "activity": list(assay.cells)},  # type: ignore[arg-type]
            model={"name": "deepstarr", "arguments": {"filters": [96, 60, 60, 120]}},  # type: ignore[arg-type]
            train={"epochs": 12, "patience": 4, "augment": {"shift": 8}, "batch_size": 64,  # type: ignore[arg-type]
                   "learning_rate": 0.002, "weight_decay": 0.01, "average": 0.99}), progress=False).run("train")
    return Oracle(registry.load(run / "model")[0])


def starts(n: int, seed: int = 1) -> UInt8[ndarray, "n L"]:
    """Weak sequences that the model never saw: of the lower half by the law."""
    assay = simulate_assay(40 * n, length=LENGTH, noise=NOISE, seed=1000 + seed)
    weak = np.flatnonzero(assay.truth[:, CELL] <= np.median(assay.truth[:, CELL]))
    return assay.codes[np.random.default_rng(seed).permutation(weak)[:n]]


def coded(table: pd.DataFrame) -> UInt8[ndarray, "n L"]:
    """Codes of the sequences of a table."""
    return np.stack([encode(text) for text in table["sequence"]])


def pick(table: pd.DataFrame, which: Any) -> pd.DataFrame:
    """Some rows."""
    return table.loc[np.asarray(which, bool)]


# Yardsticks


def climbed(codes: UInt8[ndarray, " L"], *, implants: bool) -> UInt8[ndarray, " L"]:
    """The best single substitution by the law, again and again until none improves; or the best motif anywhere."""
    layouts = np.full((3 * LENGTH, LENGTH), N, np.uint8)
    row = np.arange(3 * LENGTH)
    at, value = row // 3, float(law(codes[None])[0])
    written = [] if not implants else [
        np.pad(word, (place, LENGTH - place - len(word)), constant_values=N) for text in spelled(MOTIFS).values()
        for word in (text, reverse_complement_codes(text)) for place in range(LENGTH - len(word) + 1)]
    while True:
        layouts[row, at] = (codes[at] + 1 + row % 3) % 4
        all_layouts = np.stack([*layouts, *written])
        near = np.where(all_layouts < N, all_layouts, codes)
        values = law(near)
        if values.max() <= value + 1e-9:
            return codes
        codes, value = near[values.argmax()], float(values.max())


def best_known(begin: UInt8[ndarray, "S L"], budget: int) -> UInt8[ndarray, "n L"]:
    """Sequences with the highest expression that a long search by the law finds."""
    packed = np.stack([climbed(start, implants=True) for start in begin])
    bred = design(Maximize(Oracle(Law(), device="cpu")), packed[[law(packed).argmax()]], "genetic", n=1, budget=budget)
    return np.concatenate([packed, climbed(bred.codes[0], implants=True)[None]])


# Numbers


def calibrated(table: pd.DataFrame, shape: str = SHAPE) -> pd.DataFrame:
    """Expected gains, each half of the starts by a calibration of the same method on the other half.

    NaN for methods to which none can be fitted, as they predict no gain.
    """
    expected = pd.Series(np.nan, index=table.index)
    for _, part in table.groupby("method", sort=False):
        try:
            for half in (0, 1):
                seen, other = (pick(part, part["origin"] % 2 == h) for h in (1 - half, half))
                fitted = fit_calibration(seen.rename(columns={"true_gain": "measured_gain"}), shape=shape,
                                         n_bootstrap=0)
                expected[other.index] = fitted.expected(other["predicted_gain"].to_numpy(float),
                                                        other["edits"].to_numpy(float))
        except SchemaError:
            expected[part.index] = np.nan
    return table.assign(expected_gain=expected)


def numbers_of(first: pd.DataFrame, greedy: Float[ndarray, " S"], best: Float[ndarray, " S"]) -> pd.DataFrame:
    """`world_numbers` of the best design of every start, with the share of another yardstick, highest gain first."""
    parts = []
    for _, part in first.groupby("method", sort=False):
        known = bool(np.isfinite(part["expected_gain"].to_numpy(float)).all())
        part = part if known else part.drop(columns="expected_gain")
        row = world_numbers(part, greedy)
        parts.append(row.assign(share_best=part["true_gain"].sum() / best[part["origin"]].sum(),
                                edits=part["edits"].mean(), queries=part["queries"].mean(),
                                seconds=part["seconds"].mean()))
    return pd.concat(parts, ignore_index=True).sort_values("true", ascending=False, ignore_index=True)


def judged(seed: int = 5) -> Any:
    """Trees on k-mers, fitted to another assay of the same world."""
    assay = simulate_assay(N_JUDGE, length=LENGTH, noise=NOISE, seed=seed)
    y, cut = assay.activity[:, [CELL]], N_JUDGE * 4 // 5
    return fit_gbm(assay.codes[:cut], y[:cut], assay.codes[cut:], y[cut:], k=5)


def audits(first: pd.DataFrame, world: World) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of every method the verdict of the audit; and of every design, beside what it gained."""
    natives = Natives(world.assay.codes[:N_NATIVES], world.labels[:N_NATIVES])
    trees = judged()
    level, granted = world.predict(world.begin), trees.predict(world.begin)[:, 0].astype(float)
    sets, single = [], []
    for method, part in first.groupby("method", sort=False):
        codes, origin = coded(part), part["origin"].to_numpy()
        found = audit_sequences(
            codes, natives, score=level[origin] + part["predicted_gain"].to_numpy(float), starts=world.begin,
            origin=origin, start_score=level, judge_score=trees.predict(codes)[:, 0].astype(float),
            judge_start_score=granted)
        single.append(part.assign(verdict=found.table["verdict"].to_numpy(),
                                  judge_gain=found.table["judge_gain"].to_numpy()))
        sets.append({"method": method, "verdict": found.verdict,
                     **{name: int((found.table["verdict"] == name).sum()) for name in VERDICTS},
                     "judged": found.table["judge_gain"].mean() / found.table["gain"].mean()})
    return pd.DataFrame(sets), pd.concat(single, ignore_index=True)


# The page


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table, numbers to the right."""
    return "\n".join(["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|",
                      *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: float, digits: int = 2) -> str:
    """A number, or a dash."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def page(folder: str | Path = "runs/validation_design", methods: Sequence[str] = tuple(METHODS), *,
         budget: int = BUDGET, n_starts: int = N_STARTS, n_each: int = N_EACH, n_best: int = 4) -> str:
    """Section of the page, in Markdown."""
    begun = time.process_time()
    begin = starts(n_starts)
    world = World(Path(folder), begin, budget, n_each)
    highest = float(world.labels.max())
    unseen = simulate_assay(5_000, length=LENGTH, noise=NOISE, seed=7)
    accuracy = pearson(world.predict(unseen.codes), unseen.truth[:, CELL].astype(float))

    tables = [world.designs(name, world.model, name) for name in methods]
    tables += [world.designs(name, world.model, f"{name}, clip", highest)
               for name, table in zip(methods, tables, strict=True)
               if name not in FROM_NOTHING and world.predict(coded(table)).max() > highest]
    asked = {name: world.designs(name, Oracle(Law(), device="cpu"), f"{name} by the law")
             for name in BY_LAW if name in methods}
    table = pd.concat(tables, ignore_index=True)
    codes, origin = coded(table), table["origin"].to_numpy()
    table["predicted_gain"] = world.predict(codes) - world.predict(begin)[origin]
    table["true_gain"] = law(codes) - law(begin)[origin]
    table = calibrated(table)
    first = pick(table, table["place"] == 0)

    greedy = law(np.stack([climbed(start, implants=False) for start in begin])) - law(begin)
    best = np.zeros(n_starts)  # of the designers that may ask the law, and of all others
    for made in (*asked.values(), first):
        at = made["origin"].to_numpy()
        np.maximum.at(best, at, law(coded(made)) - law(begin)[at])
    searched = best_known(begin[:n_best], 10 * budget)
    numbers = numbers_of(first, greedy, best)
    sets, single = audits(first, world)
    lead = numbers.iloc[0]

    lines = [
        "## A world that is known (track E)", "",
        f"Model: DeepSTARR-like, {N_TRAIN:,} simulated {LENGTH} bp enhancers with noise {NOISE}; r with the noiseless "
        f"law {accuracy:.3f} on sequences that it did not see. {n_starts} starts of the lower half (mean "
        f"{law(begin).mean():.2f}; highest label {highest:.2f}), {budget:,} model calls for each, a gradient costs "
        f"two. {', '.join(name for name in methods if name in FROM_NOTHING)} take nothing from a start: one run of "
        f"{budget:,}, its best designs dealt out to the starts. `…, clip` stands where predictions of a designer with "
        "starts went above the highest label: the objective clipped there. The law measures the design with the best "
        f"prediction of every start. implant and grammar are told the {len(MOTIFS)} motifs that can raise expression "
        "in some cell, grammar the rules, too (and gets 2,000 calls); the others nothing. Generators: 64 channels × 4 "
        f"layers (WGAN: 16 channels), fitted to {N_LEARNED:,} of the training sequences with their labels. Options are "
        "defaults.", "",
        f"Best: **{lead['method']}**, {lead['share']:.2f} [{lead['low']:.2f}, {lead['high']:.2f}] of what exhaustive "
        f"greedy substitutions by the law gain, {lead['share_best']:.2f} of the best found for each start by designers "
        f"that may ask the law; true / expected {number(lead.get('calibrated', np.nan))}. Of those that are told no "
        f"motifs: {told_nothing(numbers)}.", "",
        markdown(["designer", "predicted", "true", "share of greedy by the law", "share of best found",
                  "true / predicted", "true / expected", "lost", "edits", "queries", "CPU s"],
                 [[r["method"], f"{r['predicted']:.2f}", f"{r['true']:.2f}",
                   f"{r['share']:.2f} [{r['low']:.2f}, {r['high']:.2f}]", f"{r['share_best']:.2f}",
                   number(r["realised"]),
                   "–" if np.isnan(r.get("calibrated", np.nan)) else
                   f"{r['calibrated']:.2f} [{r['calibrated_low']:.3g}, {r['calibrated_high']:.3g}]",
                   f"{r['worse']:.0%}", f"{r['edits']:.0f}", f"{r['queries']:,.0f}", f"{r['seconds']:.0f}"]
                  for r in numbers.to_dict("records")]), "",
        f"Expected: calibrated by `{SHAPE}`, each half of the starts by the other half's designs of the same method; a "
        "calibration shrinks and never inflates. – where the other half predicts no gain. 95 % over starts.", "",
        "### Yardsticks by the law", "",
        markdown(["search", "gain", "expression reached"],
                 [["greedy substitutions until none improves", f"{greedy.mean():.2f}",
                   f"{(greedy + law(begin)).mean():.2f}"],
                  *([f"{name}, {t['queries'].mean():,.0f} queries", *(f"{v:.2f}" for v in gains(t, begin))]
                    for name, t in asked.items()),
                  ["any motif anywhere or a substitution, until none improves", "",
                   f"{law(searched[:-1]).mean():.2f}"],
                  [f"the best of those, bred for {10 * budget:,} queries", "", f"{law(searched[-1:])[0]:.2f}"],
                  ["best found for each start, within the budget", f"{best.mean():.2f}",
                   f"{(best + law(begin)).mean():.2f}"]]), "",
        "Greedy substitutions get stuck, as a base alone makes no site: all of their gain is no ceiling. What the law "
        f"allows at most is far above all that was ever measured ({highest:.2f}), with sites on top of one another: no "
        "yardstick for a model of the assay.", "",
        "### The audit beside the truth", "",
        f"Natives: {N_NATIVES:,} of the training sequences; judge: trees on k-mers, fitted to {N_JUDGE:,} other "
        "sequences. Designs are those of the table above.", "",
        markdown(["designer", "verdict", *VERDICTS, "judge grants", "true / predicted", "lost"],
                 [[r["method"], r["verdict"], *(str(r[name]) for name in VERDICTS), f"{r['judged']:.0%}",
                   number(r["realised"]), f"{r['worse']:.0%}"]
                  for r in sets.merge(numbers[["method", "realised", "worse"]]).to_dict("records")]), "",
        *verdicts(sets, single, numbers), "",
        f"{(time.process_time() - begun) / 60:.0f} minutes of CPU in this call."]
    return "\n".join(lines)


def told_nothing(numbers: pd.DataFrame) -> str:
    """The best designer that knows no motif."""
    r = pick(numbers, ~numbers["method"].str.startswith(("implant", "grammar"))).iloc[0]
    return (f"{r['method']}, {r['share']:.2f} [{r['low']:.2f}, {r['high']:.2f}] and {r['share_best']:.2f}; true / "
            f"expected {number(r.get('calibrated', np.nan))}")


def gains(table: pd.DataFrame, begin: UInt8[ndarray, "S L"]) -> tuple[float, float]:
    """Mean gain and level of the best design of every start."""
    one = pick(table, table["place"] == 0)
    reached = law(coded(one))
    return float((reached - law(begin)[one["origin"]]).mean()), float(reached.mean())


def verdicts(sets: pd.DataFrame, single: pd.DataFrame, numbers: pd.DataFrame) -> list[str]:
    """Whether verdicts tell real gains from others."""
    lines = []
    for name in VERDICTS:
        part = pick(single, single["verdict"] == name)
        if len(part):
            lines.append(f"- {name}: {len(part)} designs, true / predicted "
                         f"{part['true_gain'].sum() / part['predicted_gain'].sum():.2f}, "
                         f"{(part['true_gain'] < 0).mean():.0%} lost.")
    climbing = pick(single, single["predicted_gain"] > 0)
    true, promised, granted = (climbing[f"{name}_gain"].to_numpy(float) for name in ("true", "predicted", "judge"))
    order = np.array([VERDICTS.index(name) for name in climbing["verdict"]], float)
    hacked = true < 0.5 * promised
    realised = numbers.set_index("method")["realised"].reindex(sets["method"]).to_numpy()
    right = ((sets["verdict"] == VERDICTS[0]).to_numpy() == (realised >= 0.5)).sum()
    return [*lines, f"- Less than half of the predicted gain was real in {hacked.mean():.0%} of {len(hacked)} designs "
            f"with one. AUROC of that: verdict {auroc(hacked, order):.2f}, share that the judge does not grant "
            f"{auroc(hacked, -granted / promised):.2f}, the predicted gain alone {auroc(hacked, promised):.2f}.",
            f"- The verdict of a set says `{VERDICTS[0]}` exactly where half or more was real for {right} of "
            f"{len(sets)} rows."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/validation_design"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--starts", type=int, default=N_STARTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(page(given.folder, given.methods, budget=given.budget, n_starts=given.starts))


if __name__ == "__main__":
    main()
