"""Levels that are to be reached with few edits (track C), on the three reporter assays of the league.

``python validation/design.py targets [--write]``, or this file alone. Needs the public data sets (CISCRIBE_DATA names
their folder). Models are those of the league, asked and judged in the same way; what was designed is kept under
``--folder``, and what is there is not made again.
"""

import argparse
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from design_league import FOLDER, GREEDY, METHODS, RULES, Counted, Field, Ledger, markdown, prepared
from numpy import ndarray

from ciscribe.design.benchmark import targeted
from ciscribe.design.constraints import Constraints, MaxEdits
from ciscribe.design.objective import Target
from ciscribe.design.runner import design
from ciscribe.sequence import codes_of, one_hot_tensor

PERCENTILES, MOST_EDITS, N_STARTS, BUDGET = (10, 50, 90), (3, 5, 10), 8, 10_000
TARGETED = ("greedy", "genetic", "adalead", "edit", "edit, cheap")


def run_targets(fields: list[Field], folder: Path) -> pd.DataFrame:
    """Designs towards levels that natives have in the eyes of the oracle, with few edits."""
    ledger = Ledger(folder / "targets.csv")
    for field in fields:
        rng = np.random.default_rng(0)
        starts = field.constraints.repair(field.natives[rng.choice(len(field.natives), N_STARTS, False)])[0]
        levels = np.percentile(field.predict(field.natives), PERCENTILES)
        tolerance = 0.25 * float(field.labels.std())
        free = field.constraints.bind(starts)
        for percentile, level in zip(PERCENTILES, levels, strict=True):
            asked = {"constraints": field.name, "percentile": percentile, "target": level, "tolerance": tolerance}

            def keep(method: str, most: int, codes: ndarray, origin: ndarray, queries: int, seconds: float,
                     asked: dict[str, Any] = asked, field: Field = field, free: Constraints = free,
                     starts: ndarray = starts) -> None:
                said, judged = field.predict(codes), np.mean(list(field.judge(codes).values()), axis=0)
                fine, edits = free.ok(codes, origin), (codes != starts[origin]).sum(axis=1)
                ledger.add([asked | {"method": method, "most_edits": most, "score": said[i], "judge_score": judged[i],
                                     "edits": int(edits[i]), "feasible": bool(fine[i]), "queries": queries / len(codes),
                                     "seconds": seconds / len(codes)} for i in range(len(codes))])

            every = np.arange(len(starts))
            for most in MOST_EDITS:
                key = {"constraints": field.name, "percentile": percentile, "most_edits": most}
                if not ledger.has(method="no edit", **key):
                    keep("no edit", most, starts, every, 0, 0.0)
                for name in TARGETED:
                    if ledger.has(method=name, **key):
                        continue
                    method, options = METHODS[name]
                    options = options | field.options(method)
                    made = design(Target(field.oracle, level, tolerance, flanks=field.flanks), starts, method,
                                  constraints=Constraints((*RULES, MaxEdits(most)), flanks=field.constraints.flanks,
                                                          length=starts.shape[1]),
                                  n=len(starts), budget=BUDGET, target=0.0, seed=0, **options)
                    keep(name, most, made.codes, made.origin, made.queries, made.seconds)
                if find_spec("tangermeme") is not None and not ledger.has(method=GREEDY, **key):
                    greedy, model = import_module("tangermeme.design").greedy_substitution, Counted(field)
                    begun = time.perf_counter()
                    codes = codes_of(torch.cat([greedy(
                        model, one_hot_tensor(torch.from_numpy(start[None])), y=torch.tensor([[level]]).float(),
                        max_iter=most, batch_size=256, device="cpu") for start in starts]))
                    seconds = time.perf_counter() - begun
                    keep(GREEDY, most, codes, every, model.n, seconds)
                    keep("tangermeme, repaired", most, free.repair(codes, every)[0], every, model.n, seconds)
    return ledger.table


def target_text(table: pd.DataFrame) -> str:
    """Track C."""
    rows = []
    cost = table.groupby(["constraints", "method", "most_edits"], sort=False)["queries"].mean()
    whole = targeted(table.assign(percentile="all"))
    for _, r in whole.sort_values(["constraints", "most_edits", "success"], ascending=[True, True, False],
                                  kind="stable").iterrows():
        rows.append([r["constraints"], r["method"], str(r["most_edits"]), f"{r['n']:.0f}",
                     f"{r['success']:.2f} [{r['low']:.2f}, {r['high']:.2f}]", f"{r['judged_success']:.2f}",
                     f"{r['feasible']:.3f}", f"{r['edits']:.1f}",
                     f"{cost[(r['constraints'], r['method'], r['most_edits'])]:,.0f}"])
    by_level = targeted(table)
    wide = by_level[by_level["most_edits"] == 5].pivot_table(index=["constraints", "method"], columns="percentile",
                                                             values="success", sort=False)
    best = [[*at, *("–" if np.isnan(v) else f"{v:.2f}" for v in row[list(PERCENTILES)])] for at, row in wide.iterrows()]
    return "\n".join([
        "## Targets with few edits (track C)", "",
        f"{N_STARTS} natural sequences of neither half (mended where they break a rule) are to reach the "
        f"{', '.join(map(str, PERCENTILES))}th percentile of what the oracle says of natives, within a quarter of the "
        "standard deviation of the labels, under the same rules and at most so many edits. Success: within the "
        "tolerance, the edits, and the rules, without any filter afterwards; by the oracle (95 %, Wilson; designs of "
        "one start are not independent), and judged by the mean of the two judges, against the same level. `no edit` "
        f"is chance. Budget {BUDGET:,} queries for all {N_STARTS} starts; tangermeme has no budget and "
        "takes what it needs; `repaired` mends what it returns with the fewest edits. `edit, cheap` has a tenth of the "
        "default cost of an edit. Queries are a design.", "",
        markdown(["data set", "designer", "most edits", "designs", "success", "judged", "feasible", "edits", "queries"],
                 rows), "", "Success by the oracle at most 5 edits, by percentile:", "",
        markdown(["data set", "designer", *(f"{p}th" for p in PERCENTILES)], best), ""])


def page(folder: Path = FOLDER) -> str:
    """Section of the page, in Markdown."""
    return target_text(run_targets(prepared(folder), folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    print(page(parser.parse_args().folder))
