"""New sequences from a trained model: designed within rules and a budget, audited, written so that they can be ordered.

The folder appears when all of it is written, also after an interrupt (with what was found until then):

================== ====================================================================================================
designs.fasta      the designs, best first, flanks not included
designs.tsv        sequence, score, components, gain, edits, judge, and the audit of each
history.parquet    how the run climbed; ``audit.parquet``: the audit of the whole set
report.html        trajectory, starts and designs with their edits, audit
provenance.json    configuration, versions, queries, seconds
================== ====================================================================================================
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy import ndarray

from ciscribe.config import DesignConfig, RulesConfig, read_config, resolve_root, write_config
from ciscribe.design.audit import Audit, Natives, Panel, audit
from ciscribe.design.constraints import Constraints
from ciscribe.design.designs import Designs
from ciscribe.design.objective import Lower, Maximize, Minimize, Specific, Target
from ciscribe.design.rules import GC, Avoid, EditScope, Homopolymer, Keep, MaxEdits, Repeats, Rule
from ciscribe.design.runner import design
from ciscribe.design.score import Objective
from ciscribe.errors import ConfigError, InputError
from ciscribe.io.genome import write_fasta
from ciscribe.io.text import read_lines, read_table
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.provenance import atomic_folder, provenance, write_json, write_text
from ciscribe.report.design import write_design_report
from ciscribe.sequence import N, encode
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.subject import index_of, open_run

Tell = Callable[[str], None]


class _Model(NamedTuple):
    """A trained run, ready to be asked, and what it was trained on."""

    oracle: Oracle
    name: str
    tracks: list[str]
    codes: ndarray  # all its sequences
    targets: ndarray  # what was measured (n, T)
    fold: ndarray


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
    config = read_config(path, DesignConfig)
    root = resolve_root(config.root, Path(path).parent.absolute()).resolve()
    model = _model(root / config.run)
    others = [_model(root / folder) for folder in config.others]
    judge = None if config.judge is None else _model(root / config.judge)
    length = model.codes.shape[1]
    wanted = _goal(config, [model, *others])
    judged = None if judge is None else _goal(config, [judge])
    start = _starts(config, root, model)
    rules = rules_of(config.rules, length)
    tell(f"design: {config.method}, {config.n} designs of {length} bp from "
         f"{'nothing' if start is None else f'{len(start)} starts'}, {config.budget:,} model calls, "
         f"{len(rules)} rules …")
    designs = design(wanted, start, config.method, length=length if start is None else None, constraints=rules,
                     flanks=config.rules.flanks, n=config.n, budget=config.budget, judge=judged,
                     infeasible=config.infeasible, diversity=config.diversity, seed=config.seed, progress=progress,
                     **config.options)
    tell(f"  {len(designs)} designs, best score {designs.score.max():.3f}, {designs.queries:,} calls, "
         f"{designs.seconds:.0f} s; ended by: {designs.attrs['stopped']}")
    checked = _audited(config, designs, model, others)
    tell(f"  audit: {checked.verdict}")
    folder = Path(out) if out is not None else Path("runs") / config.name
    with atomic_folder(folder) as temporary:
        write_text(temporary / "config.yaml", write_config(config))
        write_fasta(temporary / "designs.fasta", {f"design{i + 1}": codes for i, codes in enumerate(designs.codes)})
        table = pd.concat([designs.table(), checked.table], axis=1)
        table = table.loc[:, ~table.columns.duplicated()]
        table.insert(0, "name", [f"design{i + 1}" for i in range(len(table))])
        table.to_csv(temporary / "designs.tsv", sep="\t", index=False, float_format="%.6g")
        designs.history.to_parquet(temporary / "history.parquet", index=False)
        checked.summary.rename_axis("metric").reset_index().to_parquet(temporary / "audit.parquet", index=False)
        facts = {"run": str(model.name), "method": designs.attrs["method"], "queries": designs.queries,
                 "seconds": designs.seconds, "stopped": designs.attrs["stopped"], "verdict": checked.line,
                 "rules": [str(rule) for rule in rules]}
        write_json(temporary / "provenance.json", provenance(seed=config.seed, **facts))
        write_design_report(temporary / "report.html", designs, checked, title=config.report.title or config.name,
                            subtitle=f"{config.goal.kind} {config.goal.track or model.tracks[0]} by the model of "
                                     f"{model.name}", rules=[str(rule) for rule in rules], provenance=facts)
    return folder


def rules_of(config: RulesConfig, length: int) -> list[Rule]:
    """The rules of a configuration."""
    rules: list[Rule] = []
    if config.avoid:
        rules.append(Avoid(config.avoid))
    if config.homopolymer is not None:
        rules.append(Homopolymer(config.homopolymer))
    if config.repeats is not None:
        rules.append(Repeats(config.repeats))
    if config.gc is not None:
        rules.append(GC(*config.gc, window=config.gc_window))
    elif config.gc_window is not None:
        raise ConfigError("rules.gc_window says how wide the windows of rules.gc are; give rules.gc: [low, high]")
    for kept in config.keep:
        rules.append(Keep(_positions(kept, length, "rules.keep") if "-" in kept else kept))
    if config.max_edits is not None:
        rules.append(MaxEdits(config.max_edits))
    if config.scope:
        rules.append(EditScope(sorted({at for part in config.scope for at in _positions(part, length, "rules.scope")})))
    return rules


def _positions(text: str, length: int, key: str) -> list[int]:
    """Positions of ``start-end``, 0-based half-open."""
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last) <= length):
        raise ConfigError(f"{key} takes stretches start-end within the {length} bp of a design, 0-based half-open; got "
                          f"{text!r}")
    return list(range(int(first), int(last)))


def _model(folder: Path) -> _Model:
    job = open_run(folder, trained=True, tell=lambda line: None)
    if not isinstance(job, ReporterRun):
        raise ConfigError(f"{folder} is a run of genes; designs are made with the model of a reporter assay, which "
                          "reads the designed sequence alone")
    if job.config.task != "regression":
        raise ConfigError(f"{folder} was trained on {job.config.task}; designs follow a measured activity (regression)")
    model, _ = registry.load(job.folder / "model", expect=job.config.model.name)
    table = pd.read_parquet(job.folder / "folds.parquet")
    return _Model(Oracle(model, device=job.config.train.device), job.folder.name, list(job.data.target_names),
                  job.data.codes, job.data.targets, table["fold"].to_numpy(str))


def _goal(config: DesignConfig, models: Sequence[_Model]) -> Objective:
    """The objective on each model, the lower of them where there are several."""
    goal = config.goal
    made: list[Objective] = []
    for model in models:
        track = index_of(model.tracks, goal.track)
        common: dict[str, Any] = {"flanks": goal.flanks, "both_strands": goal.both_strands}
        if goal.kind == "specific":
            off = [index_of(model.tracks, name) for name in goal.off] if goal.off else \
                [i for i in range(len(model.tracks)) if i != track]
            if not off:
                raise ConfigError(f"goal.kind specific needs other targets to stay low; {model.name} has only "
                                  f"{model.tracks[0]}")
            one: Objective = Specific(model.oracle, on=track, off=off, gap=goal.gap, **common)
        elif goal.kind == "target":
            if goal.value is None:
                raise ConfigError("goal.kind target needs goal.value, the level to be hit")
            one = Target(model.oracle, value=goal.value, tolerance=goal.tolerance, track=track, **common)
        else:
            one = (Maximize if goal.kind == "maximize" else Minimize)(model.oracle, track=track, **common)
        if goal.clip:
            seen = model.targets[:, track][model.fold == "train"]
            one = one.clip(float(np.nanmin(seen)), float(np.nanmax(seen)))
        made.append(one)
    return made[0] if len(made) == 1 else Lower({model.name: one for model, one in zip(models, made, strict=True)})


def _starts(config: DesignConfig, root: Path, model: _Model) -> ndarray | None:
    """Sequences to improve."""
    wanted, length = config.start, model.codes.shape[1]
    if wanted.path is not None:
        return _read_sequences(root / wanted.path, wanted.column, length)
    if wanted.choose == "none":
        return None
    held = np.flatnonzero((model.fold == "test") & (model.codes < N).all(axis=1))
    value = model.targets[held, index_of(model.tracks, config.goal.track)]
    held, value = held[np.isfinite(value)], value[np.isfinite(value)]
    if not len(held):
        raise InputError(f"the run {model.name} has no held-out sequence without N to start from; give start.path")
    if wanted.choose == "random":
        order = np.random.default_rng(config.seed).permutation(len(held))
    else:
        order = np.argsort(value if wanted.choose == "weakest" else -value, kind="stable")
    return model.codes[held[order[:wanted.n]]]


def _read_sequences(path: Path, column: str, length: int) -> ndarray:
    """Codes of a FASTA or of a column of a table, all of the length that the model reads."""
    lines = read_lines(path, "starts")
    if lines and lines[0].startswith(">"):
        parts: list[str] = []
        for line in lines:
            if line.startswith(">"):
                parts.append("")
            else:
                parts[-1] += line.strip()
    else:
        table = read_table(path, "starts")
        if column not in table:
            raise InputError(f"starts {path} must be FASTA or a table with the column {column!r} (start.column); got "
                             f"{', '.join(map(str, table.columns))}")
        parts = table[column].astype(str).tolist()
    wrong = [i for i, part in enumerate(parts) if len(part) != length or (encode(part) == N).any()]
    if wrong or not parts:
        raise InputError(f"{len(wrong):,} of {len(parts):,} starts of {path} are not {length} bp of A C G T; first: "
                         f"{parts[wrong[0]][:60] if wrong else 'none'!r} ({len(parts[wrong[0]]) if wrong else 0} bp)")
    return np.stack([encode(part) for part in parts])


def _audited(config: DesignConfig, designs: Designs, model: _Model, others: Sequence[_Model]) -> Audit:
    """What speaks for the designs and against them, beside the sequences that the model was trained on."""
    track = index_of(model.tracks, config.goal.track)
    known = np.isfinite(model.targets[:, track]) & (model.codes < N).all(axis=1)
    trained = model.codes[known & (model.fold == "train")]
    labels = model.targets[known & (model.fold == "train"), track]
    panel = None
    if others:
        tracks = [index_of(other.tracks, config.goal.track) for other in others]
        asked = [(model.oracle, track), *((other.oracle, t) for other, t in zip(others, tracks, strict=True))]
        panel = Panel(*(np.stack([o.predict(torch.from_numpy(codes), batch_size=256).numpy()[:, t] for o, t in asked])
                        for codes in (designs.codes, trained)))
    rules = Constraints(rules_of(config.rules, designs.codes.shape[1]), flanks=config.rules.flanks,
                        length=designs.codes.shape[1])
    rules = rules if designs.starts is None else rules.bind(designs.starts)
    return audit(designs, Natives(trained, labels, seed=config.seed), panel=panel,
                 feasible=rules.ok(designs.codes, designs.origin), seed=config.seed)
