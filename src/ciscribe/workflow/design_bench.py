"""Designers at equal budgets on a run of one's own: who gains most, in the eyes of a judge that none of them asks.

The folder grows run by run, and the same call goes on where it was stopped:

================== ====================================================================================================
runs.parquet       one row a run: method, budget, seed, queries, gain, judge_gain …; ``error`` where it was not possible
generators/        what designers begin from, fitted once
league.parquet     one row a method and budget, best first (`ciscribe.design.benchmark.league`)
report.html        the league; provenance.json
================== ====================================================================================================
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from ciscribe.design.benchmark import CARDS, league
from ciscribe.design.constraints import Constraints
from ciscribe.design.methods import DESIGNERS
from ciscribe.design.natives import diversity
from ciscribe.design.runner import design
from ciscribe.errors import CiscribeError, ConfigError
from ciscribe.provenance import atomic_path, digest, provenance, write_json
from ciscribe.report.design import write_league_report
from ciscribe.workflow.design_setup import (
    Setup,
    Trained,
    held_out,
    measured,
    objective_of,
    open_setup,
    rules_of,
    scored,
    start_pool,
)
from ciscribe.workflow.designers import BEGIN, check, feed, lacks, options_of
from ciscribe.workflow.subject import index_of

Tell = Callable[[str], None]

SHOWN = ("method", "budget", "rank", "per_thousand", "per_thousand_low", "per_thousand_high", "judge_gain", "gain",
         "feasible", "edits", "seeds", "seconds")
"""Columns of the league that are printed."""


def compare_designers(path: str | Path, methods: Sequence[str] = (), *, seeds: int = 3,
                      budgets: Sequence[int] = (5_000,), out: str | Path | None = None, tell: Tell = print,
                      progress: bool = True) -> tuple[pd.DataFrame, Path]:
    """Give designers the same number of model calls, and rank them by the gain that the judge grants.

    Every seed draws starts anew: from a file, from the quarter of the run's test sequences that are weakest (or
    strongest), or from all of them. All designers of a seed begin from the same; those that take none (latent, and all
    where ``start.choose`` is ``none``) are compared with their mean.

    Parameters
    ----------
    path
        Configuration of a design with a judge. Its options are for its own method; others have their defaults.
    methods
        Names of designers; all that the configuration has everything for unless given.
    seeds
        Of designers and starts, from 0 on.
    budgets
        Model calls.
    out
        Folder; ``runs/<name>_league`` unless given.

    Returns
    -------
    DataFrame, Path
        The league, and the folder.

    Raises
    ------
    ConfigError
        Without a judge, for a named designer that lacks something, or when no run was possible.
    """
    setup = open_setup(path)
    config = setup.config
    if setup.judge is None:
        raise ConfigError("a league needs a judge, a model that designers do not ask; give judge: RUN, the folder of a "
                          "run of another family, best trained on other data")
    if seeds < 1 or not budgets or min(budgets) < 1:
        raise ConfigError(f"a league needs 1 seed or more and budgets of 1 call or more; got {seeds} and "
                          f"{list(budgets)}")
    chosen = list(dict.fromkeys(methods)) or [name for name in DESIGNERS if lacks(name, setup) is None]
    for name in chosen:
        check(name, setup)
    folder = Path(out) if out is not None else Path("runs") / f"{config.name}_league"
    kept = _Kept(folder / "runs.parquet")
    todo = [(budget, seed, name) for budget in dict.fromkeys(budgets) for seed in range(seeds) for name in chosen]
    keys = {name: _key(name, setup) for name in chosen}
    tell(f"league: {len(chosen)} designers × {seeds} seeds × {len(set(budgets))} budgets on {setup.model.name}, judged "
         f"by {_named(setup.judge, setup)} …")
    for i, (budget, seed, name) in enumerate(todo, 1):
        row = {"key": keys[name], "dataset": setup.model.name, "method": name, "budget": budget, "seed": seed}
        if kept.has(row):
            continue
        try:
            row |= _run(setup, setup.judge, name, budget, seed, folder, tell, progress)
            said = f"judged gain {row['judge_gain']:+.3f}, own {row['gain']:+.3f}, {row['seconds']:.0f} s"
        except CiscribeError as error:
            row["error"] = said = str(error)
        kept.add(row)
        tell(f"  {i} of {len(todo)}: {name}, {budget:,} calls, seed {seed}: {said}")
    runs = kept.of(keys, seeds, budgets)
    if not np.isfinite(runs["gain"].to_numpy(float)).any():
        raise ConfigError(f"none of {len(runs)} runs was possible; first: {runs['method'].iloc[0]}: "
                          f"{runs['error'].iloc[0]}")
    return _write(setup, setup.judge, runs, folder), folder


def _run(setup: Setup, judge: Trained, method: str, budget: int, seed: int, folder: Path, tell: Tell, progress: bool
         ) -> dict[str, Any]:
    """One designer, once."""
    config, length = setup.config, setup.model.length
    options = feed(method, setup, folder / "generators" / _generator_name(method, setup), tell=tell, progress=progress)
    natives = _draw(setup, seed)
    begins = method != "latent" and (config.start.path is not None or config.start.choose != "none")
    wanted, judged = setup.objective, objective_of(config.goal, [judge], clip=False)
    rules = Constraints(rules_of(config.rules, length), flanks=config.rules.flanks, length=length)
    made = design(wanted, natives if begins else None, method, length=None if begins else length, constraints=rules,
                  n=config.n, budget=budget, infeasible=config.infeasible, diversity=config.diversity, seed=seed,
                  progress=progress, **options)
    if made.attrs["stopped"] == "interrupted":
        raise KeyboardInterrupt
    before, judged_before = (scored(objective, natives) for objective in (wanted, judged))
    judge_score, over = scored(judged, made.codes), made.origin if begins else slice(None)
    return {"queries": made.queries, "gain": float(made.score.mean() - before[over].mean()),
            "judge_gain": float(judge_score.mean() - judged_before[over].mean()),
            "score": float(made.score.mean()), "judge_score": float(judge_score.mean()),
            "edits": np.nan if made.edits is None else float(made.edits.mean()),
            "feasible": float((rules if made.starts is None else rules.bind(made.starts)).ok(
                made.codes, made.origin).mean()),
            "diversity": diversity(made.codes), "designs": len(made), "seconds": made.seconds}


def _named(judge: Trained, setup: Setup) -> str:
    """The judge, and whether it is of the family that it judges."""
    same = type(judge.oracle.model) is type(setup.model.oracle.model)
    return judge.name + (" (of the same architecture as the model, so that it shares errors with it)" if same else "")


def _draw(setup: Setup, seed: int) -> ndarray:
    """Starts of a seed."""
    wanted, rng = setup.config.start, np.random.default_rng(seed)
    pool = start_pool(setup)
    if pool is None:
        pool = held_out(setup)
    elif wanted.path is None and wanted.choose != "random":
        pool = pool[:max(wanted.n, len(pool) // 4)]
    return pool[rng.permutation(len(pool))[:wanted.n]]


def _generator_name(method: str, setup: Setup) -> str:
    """Folder of a generator: designers of one kind share it."""
    given = setup.config.generator
    return (given and given.name) or BEGIN.get(method, ("none",))[0]


def _key(method: str, setup: Setup) -> str:
    """Fingerprint of all that makes a run, beside its budget and seed."""
    config = setup.config.model_dump(exclude={"name", "title", "method", "options", "budget", "calibration", "root",
                                              *(("generator",) if method not in BEGIN else ())})
    models = [model.checksum for model in (setup.model, *setup.others, setup.judge) if model is not None]
    return digest([config, options_of(method, setup), models])


class _Kept:
    """Rows that are there as soon as they are made."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = pd.read_parquet(path).to_dict("records") if path.is_file() else []

    def has(self, row: dict[str, Any]) -> bool:
        """Whether that run was made."""
        return any(all(old[key] == value for key, value in row.items()) for old in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row; one of another configuration gives way."""
        same = ("method", "budget", "seed")
        self.rows = [old for old in self.rows if any(old[key] != row[key] for key in same)] + [row]
        with atomic_path(self.path) as temporary:
            self.table.to_parquet(temporary, index=False)

    @property
    def table(self) -> pd.DataFrame:
        """All rows; ``error`` is None where a run was made."""
        table = pd.DataFrame(self.rows)
        for column, empty in (("gain", np.nan), ("error", None)):
            if column not in table:
                table[column] = empty
        return table.astype({"error": object}).assign(error=lambda t: t["error"].where(t["error"].notna(), None))

    def of(self, keys: dict[str, str], seeds: int, budgets: Sequence[int]) -> pd.DataFrame:
        """The rows that were asked for."""
        table = self.table
        current = [keys.get(method) == key for method, key in zip(table["method"], table["key"], strict=True)]
        wanted = np.array(current) & (table["seed"] < seeds) & table["budget"].isin(list(budgets))
        return table.loc[wanted].reset_index(drop=True)


def _write(setup: Setup, judge: Trained, runs: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The league and its page."""
    config = setup.config
    rows = judge.known("train", index_of(judge.tracks, config.goal.track))
    _, highest = measured(config.goal, judge, rows)
    done = runs.loc[runs["gain"].notna()].drop(columns=["key", "error"])
    table = league(done, float(np.nanmax(highest)))
    with atomic_path(folder / "league.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    rules = [str(rule) for rule in rules_of(config.rules, setup.model.length)]
    facts = {"run": setup.model.name, "judge": judge.name, "goal": config.goal.model_dump(exclude_none=True),
             "rules": rules, "starts": config.start.model_dump(exclude_none=True), "designs": config.n}
    failed = runs.loc[runs["gain"].isna(), ["method", "budget", "error"]].drop_duplicates(["method", "budget"])
    write_json(folder / "provenance.json", provenance(**facts))
    write_league_report(folder / "report.html", table, failed, title=f"{config.title or config.name}: designers",
                        subtitle=f"{config.goal.kind} {setup.model.tracks[setup.track]} by the model of "
                                 f"{setup.model.name}, judged by {_named(judge, setup)}",
                        cards=[CARDS["league"], *(DESIGNERS[name].card for name in dict.fromkeys(table["method"]))],
                        provenance=facts)
    return table
