"""New sequences from a trained model: designed within rules and a budget, audited, written so that they can be ordered.

The folder appears when all of it is written, also after an interrupt (with what was found until then):

================== ====================================================================================================
designs.fasta      the designs, best first, flanks not included
designs.tsv        sequence, score, components, gain, edits, judge, and the audit of each; expected_gain where there is
                   a calibration
history.parquet    how the run climbed; ``audit.parquet``: the audit of the whole set
generator/         where the designer begins from one
report.html        trajectory, starts and designs with their edits, audit
provenance.json    configuration, versions, queries, seconds
================== ====================================================================================================
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ciscribe.config import write_config
from ciscribe.design.audit import Audit, Natives, Panel, audit
from ciscribe.design.calibration import COLUMNS, Calibration, fit_calibration
from ciscribe.design.constraints import Constraints
from ciscribe.design.designs import Designs
from ciscribe.design.gradient import Edit
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError
from ciscribe.io.genome import write_fasta
from ciscribe.io.text import naming, need_columns, read_table, real_numbers
from ciscribe.provenance import atomic_folder, provenance, write_json, write_text
from ciscribe.report.design import write_design_report
from ciscribe.workflow.design_setup import Setup, measured, objective_of, open_setup, rules_of, scored, start_pool
from ciscribe.workflow.designers import check, feed, unused

Tell = Callable[[str], None]


def design_config(path: str | Path, out: str | Path | None = None, *, tell: Tell = print, progress: bool = True
                  ) -> Path:
    """Design the sequences of a configuration.

    Parameters
    ----------
    path
        YAML file; see `ciscribe.config.DesignConfig` and ``configs/design_ecoli.yaml``.
    out
        Folder; ``runs/<name>`` unless given.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError, DataMissingError, InputError, SchemaError
        For a configuration, runs or sequences that cannot be used.
    """
    setup = open_setup(path)
    config, length = setup.config, setup.model.length
    start = _starts(setup)
    rules = rules_of(config.rules, length)
    check(config.method, setup)
    if reason := unused(setup):
        raise ConfigError(reason)
    calibration = None if config.calibration is None else _calibration(setup)
    judged = None if setup.judge is None else objective_of(config.goal, [setup.judge])
    folder = Path(out) if out is not None else Path("runs") / config.name
    with atomic_folder(folder) as temporary:
        options = feed(config.method, setup, temporary / "generator", tell=tell, progress=progress)
        tell(f"design: {config.method}, {config.n} designs of {length} bp from "
             f"{'nothing' if start is None else f'{len(start)} starts'}, {config.budget:,} model calls, "
             f"{len(rules)} rules …")
        designs = design(setup.objective, start, config.method, length=length if start is None else None,
                         constraints=rules, flanks=config.rules.flanks, n=config.n, budget=config.budget, judge=judged,
                         infeasible=config.infeasible, diversity=config.diversity, seed=config.seed,
                         progress=progress, **options)
        tell(f"  {len(designs)} designs, best score {designs.score.max():.3f}, {designs.queries:,} calls, "
             f"{designs.seconds:.0f} s; ended by: {designs.attrs['stopped']}")
        if config.method == "edit" and designs.edits is not None and not designs.edits.any():
            tell(f"  the starts stay as they were: no edit brings the {Edit(**options).cost:.3g} that it costs; lower "
                 "that with options: {penalty: …}, in standard deviations of the activity")
        checked = _audited(setup, designs, calibration)
        tell(f"  audit: {checked.verdict}")
        _write(temporary, setup, designs, checked, [str(rule) for rule in rules])
    return folder


def _write(folder: Path, setup: Setup, designs: Designs, checked: Audit, rules: list[str]) -> None:
    config, names = setup.config, [f"design{i + 1}" for i in range(len(designs))]
    write_text(folder / "config.yaml", write_config(config))
    write_fasta(folder / "designs.fasta", dict(zip(names, designs.codes, strict=True)))
    table = pd.concat([designs.table(), checked.table], axis=1)
    table = table.loc[:, ~table.columns.duplicated()]
    table.insert(0, "name", names)
    table.to_csv(folder / "designs.tsv", sep="\t", index=False, float_format="%.6g")
    designs.history.to_parquet(folder / "history.parquet", index=False)
    checked.summary.rename_axis("metric").reset_index().to_parquet(folder / "audit.parquet", index=False)
    facts = {"run": setup.model.name, "method": designs.attrs["method"], "queries": designs.queries,
             "seconds": designs.seconds, "stopped": designs.attrs["stopped"], "verdict": checked.line, "rules": rules}
    write_json(folder / "provenance.json", provenance(seed=config.seed, **facts))
    write_design_report(folder / "report.html", designs, checked, title=config.title or config.name,
                        subtitle=f"{config.goal.kind} {setup.model.tracks[setup.track]} by the model of "
                                 f"{setup.model.name}", rules=rules, provenance=facts)


def _starts(setup: Setup) -> Any:
    """What is improved: all sequences of a file, or the first of the run's."""
    config = setup.config
    if config.method == "latent" and (config.start.path is not None or config.start.choose != "none"):
        raise ConfigError("latent takes its sequences from a generator and cannot start from others; give "
                          "start: {choose: none}, or take method edit")
    pool = start_pool(setup)
    return pool if pool is None or config.start.path is not None else pool[:config.start.n]


def _audited(setup: Setup, designs: Designs, calibration: Calibration | None) -> Audit:
    """What speaks for the designs and against them, beside the sequences that the model was trained on."""
    config, model = setup.config, setup.model
    rows = model.known("train", setup.track)
    trained = model.codes[rows]
    panel = None
    if setup.others:
        level = config.goal.model_copy(update={"kind": "maximize"})
        asked = [objective_of(level, [one], clip=False) for one in (model, *setup.others)]
        panel = Panel(*(np.stack([scored(objective, codes) for objective in asked])
                        for codes in (designs.codes, trained)))
    rules = Constraints(rules_of(config.rules, model.length), flanks=config.rules.flanks, length=model.length)
    rules = rules if designs.starts is None else rules.bind(designs.starts)
    natives = Natives(trained, measured(config.goal, model, rows)[1], seed=config.seed)
    found = audit(designs, natives, panel=panel, feasible=rules.ok(designs.codes, designs.origin),
                  calibration=calibration, seed=config.seed)
    return found if calibration is None else _expecting(found, calibration)


def _calibration(setup: Setup) -> Calibration:
    """How much of a predicted gain was real in designs that were measured."""
    config = setup.config
    if config.start.path is None and config.start.choose == "none":
        raise ConfigError("calibration is of gains over starts, and start.choose none has no starts; leave it out")
    if config.goal.kind == "target":
        raise ConfigError("calibration says how much of a rise or fall is real, and goal.kind target asks for a level; "
                          "leave it out")
    path = setup.root / str(config.calibration)
    table = read_table(path, "measured designs")
    need_columns(table, list(COLUMNS), path, "measured designs")
    with naming(path):
        return fit_calibration(table.assign(**{name: real_numbers(table, name, path, "measured designs")
                                               for name in COLUMNS}), seed=config.seed)


def _expecting(checked: Audit, fitted: Calibration) -> Audit:
    """The audit with the gain that is expected, and a line on it."""
    name = {"calibrated_gain": "expected_gain"}
    table, summary = checked.table.rename(columns=name), checked.summary.rename(index=name)
    share = table["expected_gain"].sum() / table["gain"].sum() if table["gain"].sum() > 0 else np.nan
    at = summary.index.tolist().index("expected_gain") + 1
    of_share = pd.DataFrame({"value": share, "natives": np.nan}, index=pd.Index(["expected_share"]))
    summary = pd.concat([summary.iloc[:at], of_share, summary.iloc[at:]]).rename_axis("metric")
    beyond = int((table["edits"] > fitted.most_edits).sum())
    line = (f"{checked.line} Of the predicted gain {share:.0%} is expected to be real, by {fitted.n} measured designs "
            f"(single designs ± {fitted.residual_sd:.2g})")
    line += (f"; that is extrapolated for {beyond} of {len(table)} designs, which have more edits than any measured "
             f"one ({fitted.most_edits})." if beyond else ".")
    return replace(checked, table=table, summary=summary, line=line)
