"""Designers that begin from a generator, beside all others at the same budget (track B, fewer seeds).

``python validation/design.py learned [--write]``, or this file alone. Needs the public data sets (CISCRIBE_DATA names
their folder). Models, rows and generators are kept under ``--folder``; what is there is not made again. Protocol and
rows of the others are those of `design_league`; a generator is fitted to the sequences of the oracle's half.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from design_league import (
    FOLDER,
    LABELS,
    LEARNED,
    METHODS,
    Field,
    figure,
    markdown,
    of_field,
    prepared,
    run_league,
)

from ciscribe.design.benchmark import league

BUDGET = 5_000
SEEDS = {"E. coli, 150 bp": 2, "yeast, 80 bp": 2, "plant leaf, 170 bp": 1}
"""Of each data set; what the hours on one shared core paid for."""


def fits(fields: list[Field]) -> str:
    """What generators were fitted, and how long that took."""
    kinds = dict.fromkeys(kind for kind, _, _ in LEARNED.values())
    rows = []
    for kind in kinds:
        designers = [name for name in LEARNED if LEARNED[name][0] == kind]
        _, size, plan = LEARNED[designers[0]]
        seconds = [json.loads((field.folder / kind / "config.json").read_text())["facts"]["seconds"]
                   for field in fields]
        rows.append([kind, ", ".join(designers), " × ".join(map(str, size.values())), str(plan["epochs"]),
                     *(f"{value:.0f}" for value in seconds)])
    return markdown(["generator", "designers", "channels × layers", "epochs",
                     *(f"{field.name}, CPU s" for field in fields)], rows)


def best_of(table: pd.DataFrame) -> list[str]:
    """Of each data set the best that begins from a generator, and the best of all others."""
    lines = []
    for dataset, part in table[table["rank"].notna()].groupby("dataset", sort=False):
        learned = part["method"].str.removesuffix(", clip").isin(list(LEARNED))
        said = [f"{rows.iloc[0]['method']} {figure(rows.iloc[0], 'per_thousand', 3)}, rank {rows.iloc[0]['rank']:.0f}"
                for rows in (part[learned], part[~learned]) if len(rows)]
        lines.append(f"- {dataset}: with a generator {'; without '.join(said)}; {len(part)} ranks.")
    return lines


def page(folder: Path = FOLDER, seeds: Mapping[str, int] = SEEDS) -> str:
    """Section of the page, in Markdown."""
    fields = prepared(folder)
    runs = pd.concat([run_league([field], folder, {BUDGET: seeds[field.name]}, tuple(METHODS)) for field in fields],
                     ignore_index=True)
    done = runs[runs["gain"].notna()].drop(columns=["error", "best"], errors="ignore")
    table = league(done, {field.name: field.highest["judges"] for field in fields})
    own = done[done["method"].str.removesuffix(", clip").isin(list(LEARNED))]
    parts = [
        "## With a generator, at equal budgets (track B)", "",
        "Protocol, models, starts, rules and columns of the section above. All rows of a table have the same seeds, "
        "the first of those above: " + "; ".join(f"{name} {n}" for name, n in seeds.items()) + ". Designers of "
        f"the first table below begin from a generator of {LABELS} levels of activity, fitted to the sequences of the "
        "oracle's half with their labels and asked for the highest one; that costs no queries, and its seconds are not "
        "in the last tables. They take nothing from a start, and gains are over it all the same (latent has no starts: "
        "over their mean). Options are the defaults; networks are small, as they fit a CPU. `s` is wall time on a core "
        "that others used, too.", "",
        fits(fields), "",
        "r on natural sequences of neither half: " + "; ".join(f"{f.name} " + ", ".join(
            f"{name} {value:.2f}" for name, value in f.accuracy.items()) for f in fields) + ".", "",
        *best_of(table), "",
        f"Feasible without any filter, all {len(own)} runs with a generator: {own['feasible'].min():.3f} at least.", ""]
    for field in fields:
        parts += [f"### {field.name}, {BUDGET:,} queries, all designers", "", of_field(field, table, BUDGET), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seeds", type=int, default=None, help="of every data set")
    given = parser.parse_args()
    print(page(given.folder, SEEDS if given.seeds is None else dict.fromkeys(SEEDS, given.seeds)))
