"""Designs of a world whose law is known: real gain, how much of the best gain that is, and what was promised.

``python validation/design.py world [--write]``, or this file alone. A model is trained on a simulated reporter assay
(or read from ``--model``); designers improve weak sequences by what it predicts, with so many model calls a start; the
law itself, which no designer sees, then measures every design. Beside them greedy evolution that asks the law.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ciscribe.config import ReporterConfig
from ciscribe.data.grammar import WorldOracle
from ciscribe.data.world_assay import simulate_assay
from ciscribe.design.audit import audit_sequences
from ciscribe.design.benchmark import world_numbers
from ciscribe.design.calibration import fit_calibration
from ciscribe.design.natives import Natives
from ciscribe.design.objective import Maximize
from ciscribe.design.runner import design
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.sequence import decode
from ciscribe.train.metrics import pearson
from ciscribe.workflow.reporter import ReporterRun

N_TRAIN, LENGTH, NOISE, CELL = 60_000, 250, 0.05, 0
METHODS = ("screen", "greedy", "anneal", "genetic", "adalead")
SHAPE = "gain per edit"
BUDGET, N_STARTS, N_EACH = 20_000, 12, 8


def trained(folder: Path) -> Oracle:
    """A DeepSTARR-like model of the simulated assay, trained unless it is there."""
    run = folder.resolve() / "world"
    if not (run / "model").exists():
        folder.mkdir(parents=True, exist_ok=True)
        assay = simulate_assay(N_TRAIN, length=LENGTH, noise=NOISE, seed=0)
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


def law(codes: np.ndarray) -> np.ndarray:
    """What the world would measure without noise, in the cell that is designed for."""
    return WorldOracle()(codes, LENGTH // 2)[:, CELL]


def greedy_by_law(start: np.ndarray, rounds: int = 200) -> tuple[np.ndarray, int]:
    """The best of all single substitutions, again and again, as the law says, until none improves."""
    best, value = start[None], law(start[None])[0]
    for done in range(rounds):
        near = np.repeat(best, 3 * LENGTH, axis=0)
        row = np.arange(3 * LENGTH)
        near[row, row // 3] = (near[row, row // 3] + 1 + row % 3) % 4
        values = law(near)
        if values.max() <= value + 1e-12:
            return best[0], done
        best, value = near[values.argmax()][None], values.max()
    return best[0], rounds


def starts(n: int, seed: int = 1) -> np.ndarray:
    """Weak sequences that the model never saw: of the lower half by the law."""
    assay = simulate_assay(40 * n, length=LENGTH, noise=NOISE, seed=1000 + seed)
    weak = np.flatnonzero(assay.truth[:, CELL] <= np.median(assay.truth[:, CELL]))
    return assay.codes[np.random.default_rng(seed).permutation(weak)[:n]]


def run_designers(oracle: Oracle, begin: np.ndarray, highest: float, methods: Sequence[str] = METHODS, *,
                  budget: int = BUDGET, n_each: int = N_EACH) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Designs of every method, a run a start; and the codes of the best of each start."""
    objective = Maximize(oracle, track=CELL).clip(high=highest)
    true_start = law(begin)
    rows, best = [], {}
    for method in methods:
        made = []
        for i, start in enumerate(begin):
            found = design(objective, start[None], method, n=n_each, budget=budget, seed=i)
            table = found.table()
            true = law(found.codes) - true_start[i]
            made.append(found.codes[0])
            rows.append(pd.DataFrame({
                "method": method, "origin": i, "place": np.arange(len(found)), "queries": found.queries,
                "seconds": found.seconds, "edits": table["edits"], "predicted_gain": table["gain"],
                "true_gain": true}))
        best[method] = np.stack(made)
    return pd.concat(rows, ignore_index=True), best


def calibrated(table: pd.DataFrame, shape: str = SHAPE) -> pd.DataFrame:
    """Expected gains, each half of the starts by a calibration of the same method on the other half."""
    expected = np.full(len(table), np.nan)
    half = table["origin"].to_numpy() % 2
    for method in table["method"].unique():
        own = (table["method"] == method).to_numpy()
        for h in (0, 1):
            seen = table.loc[own & (half != h)].rename(columns={"true_gain": "measured_gain"})
            fitted = fit_calibration(seen, shape=shape, n_bootstrap=0)
            rows = own & (half == h)
            expected[rows] = fitted.expected(table.loc[rows, "predicted_gain"].to_numpy(float),
                                             table.loc[rows, "edits"].to_numpy(float))
    return table.assign(expected_gain=expected)


def page(folder: str | Path = "runs/validation_design", methods: Sequence[str] = METHODS, *, budget: int = BUDGET,
         n_starts: int = N_STARTS) -> str:
    """Section of the page, in Markdown."""
    oracle = trained(Path(folder))
    assay = simulate_assay(5_000, length=LENGTH, noise=NOISE, seed=7)
    predicted = oracle.predict(torch.from_numpy(assay.codes))[:, CELL].numpy()
    natives = Natives(assay.codes, assay.activity[:, CELL].astype(float))
    begin = starts(n_starts)
    by_law = [greedy_by_law(start) for start in begin]
    best = law(np.stack([codes for codes, _ in by_law])) - law(begin)
    designs, first = run_designers(oracle, begin, natives.highest, methods, budget=budget)
    table = calibrated(designs)
    one = table.loc[(table["place"] == 0).to_numpy()]
    numbers = world_numbers(one, best)
    lines = [
        "## A world that is known", "",
        f"Model: DeepSTARR-like, {N_TRAIN:,} simulated {LENGTH} bp enhancers with noise {NOISE}; r with the noiseless "
        f"law {pearson(predicted, assay.truth[:, CELL]):.3f} on sequences it did not see. {n_starts} starts of the "
        f"lower half, {budget:,} model calls each; the objective is the prediction, clipped at the highest label "
        f"({natives.highest:.2f}). The law measures the design with the best prediction of every start. Share: true "
        f"gain over that of greedy evolution by the law itself until nothing improves ({best.mean():.2f} on average, "
        f"{np.mean([rounds for _, rounds in by_law]):.0f} edits). Calibrated: true over expected gain, "
        f"`{SHAPE}`, each half of the starts by the other half's designs of the same method. 95 % over starts.", "",
        "| designer | predicted | true | share of best | 95 % | true / predicted | true / expected | 95 % | lost "
        "| edits | s |", "|---" + "|---:" * 10 + "|"]
    for r in numbers.to_dict("records"):
        own = one.loc[(one["method"] == r["method"]).to_numpy()]
        lines.append(f"| {r['method']} | {r['predicted']:.2f} | {r['true']:.2f} | {r['share']:.2f} | {r['low']:.2f} to "
                     f"{r['high']:.2f} | {r['realised']:.2f} | {r['calibrated']:.2f} | {r['calibrated_low']:.2f} to "
                     f"{r['calibrated_high']:.2f} | {r['worse']:.0%} | {own['edits'].mean():.0f} | "
                     f"{own['seconds'].sum():.0f} |")
    lines += ["", "Audit of those designs against the assay's sequences:", ""]
    for method, codes in first.items():
        score = one.loc[(one["method"] == method).to_numpy(), "predicted_gain"].to_numpy(float)
        level = oracle.predict(torch.from_numpy(begin))[:, CELL].numpy().astype(float)
        found = audit_sequences(codes, natives, score=level + score, starts=begin, origin=np.arange(len(begin)),
                                start_score=level)
        lines.append(f"- {method}: {found.line}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/validation_design"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--starts", type=int, default=N_STARTS)
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print(page(given.folder, given.methods, budget=given.budget, n_starts=given.starts))


if __name__ == "__main__":
    main()
