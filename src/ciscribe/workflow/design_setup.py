"""What a configuration of designs means: trained models, what is wanted of them, rules, and where designs start."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from ciscribe.config import DesignConfig, GoalConfig, RulesConfig, read_config, resolve_root
from ciscribe.design.designer import Proposal
from ciscribe.design.designs import score_proposal
from ciscribe.design.objective import Lower, Maximize, Minimize, Specific, Target
from ciscribe.design.rules import GC, Avoid, EditScope, Homopolymer, Keep, MaxEdits, Repeats, Rule
from ciscribe.design.score import Objective
from ciscribe.errors import ConfigError, InputError
from ciscribe.io.text import need_columns, read_lines, read_table
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.provenance import checksum
from ciscribe.sequence import N, encode
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.subject import index_of, open_run


class Trained(NamedTuple):
    """A trained run, ready to be asked, and the sequences that it knows."""

    oracle: Oracle
    name: str
    tracks: list[str]
    codes: ndarray  # of all that have the flanks, what lies between them
    targets: ndarray  # what was measured (n, T)
    fold: ndarray
    checksum: str  # of the weights

    @property
    def length(self) -> int:
        """Of a design, bp."""
        return self.codes.shape[1]

    def known(self, fold: str, track: int) -> ndarray:
        """Rows of a fold of which all bases and the target are known."""
        return np.flatnonzero((self.fold == fold) & (self.codes < N).all(axis=1) & np.isfinite(self.targets[:, track]))


@dataclass(frozen=True, eq=False)
class Setup:
    """A configuration with its models opened; paths are those below `root`."""

    config: DesignConfig
    root: Path
    model: Trained
    others: tuple[Trained, ...]
    judge: Trained | None

    @property
    def track(self) -> int:
        """Of the model, the target that the goal is about."""
        return index_of(self.model.tracks, self.config.goal.track)

    @property
    def objective(self) -> Objective:
        """What designers climb: the goal on the model, or the lowest of several models."""
        return objective_of(self.config.goal, (self.model, *self.others))


def open_setup(path: str | Path) -> Setup:
    """Read a configuration and open the runs that it names.

    Raises
    ------
    ConfigError, DataMissingError, InputError
        For a configuration that cannot be used, and runs that cannot be designed with.
    """
    config = read_config(path, DesignConfig)
    root = resolve_root(config.root, Path(path).parent.absolute()).resolve()
    model, *more = (open_trained(root / folder, config.goal.flanks)
                    for folder in (config.run, *config.others, *([] if config.judge is None else [config.judge])))
    for other in more:
        if other.length != model.length:
            raise ConfigError(f"models that are asked together read sequences of one length; {model.name} was trained "
                              f"on {model.length} bp, {other.name} on {other.length} bp")
    n = len(config.others)
    return Setup(config, root, model, tuple(more[:n]), None if config.judge is None else more[n])


def open_trained(folder: Path, flanks: tuple[str, str] = ("", "")) -> Trained:
    """A trained reporter run; of its sequences those that have the flanks, without them."""
    job = open_run(folder, trained=True, tell=lambda line: None)
    if not isinstance(job, ReporterRun):
        raise ConfigError(f"{folder} is a run of genes; designs are made with the model of a reporter assay, which "
                          "reads the designed sequence alone")
    if job.config.task != "regression":
        raise ConfigError(f"{folder} was trained on {job.config.task}; designs follow a measured activity (regression)")
    fold, codes = pd.read_parquet(job.folder / "folds.parquet")["fold"].to_numpy(str), job.data.codes
    if len(fold) != len(codes):
        raise InputError(f"the assay of {folder} holds {len(codes):,} sequences, and {len(fold):,} when the model was "
                         "trained; train it again with: ciscribe reporter CONFIG")
    left, right = (encode(flank) for flank in flanks)
    inside = slice(len(left), codes.shape[1] - len(right))
    rows = np.arange(len(codes))
    if len(left) + len(right):
        ends = np.concatenate([codes[:, :inside.start], codes[:, max(inside.start, inside.stop):]], axis=1)
        fits = ends.shape[1] == len(left) + len(right) < codes.shape[1]
        rows = rows[(ends == np.concatenate([left, right])).all(axis=1)] if fits else rows[:0]
    if not (fold[rows] == "train").any():
        raise ConfigError(f"goal.flanks are the constant ends of the sequences of a run; none of the "
                          f"{int((fold == 'train').sum()):,} training sequences of {folder} ({codes.shape[1]} bp) has "
                          f"{flanks[0]!r} and {flanks[1]!r}")
    model, _ = registry.load(job.folder / "model", expect=job.config.model.name)
    return Trained(Oracle(model, device=job.config.train.device), job.folder.name, list(job.data.target_names),
                   codes[rows, inside], job.data.targets[rows], fold[rows],
                   checksum(job.folder / "model" / "model.safetensors"))


def objective_of(goal: GoalConfig, models: Sequence[Trained], *, clip: bool | None = None) -> Objective:
    """The objective on each model, the lowest of them where there are several; `clip` overrules that of the goal."""
    made: list[Objective] = []
    for model in models:
        track = index_of(model.tracks, goal.track)
        common: dict[str, Any] = {"flanks": goal.flanks, "both_strands": goal.both_strands}
        if goal.kind == "specific":
            one: Objective = Specific(model.oracle, on=track, off=_off(goal, model, track), gap=goal.gap, **common)
        elif goal.kind == "target":
            one = Target(model.oracle, value=_level(goal), tolerance=goal.tolerance, track=track, **common)
        else:
            one = (Maximize if goal.kind == "maximize" else Minimize)(model.oracle, track=track, **common)
        if goal.clip if clip is None else clip:
            seen = model.targets[:, track][model.fold == "train"]
            one = one.clip(float(np.nanmin(seen)), float(np.nanmax(seen)))
        made.append(one)
    return made[0] if len(made) == 1 else Lower({model.name: one for model, one in zip(models, made, strict=True)})


def scored(objective: Objective, codes: ndarray) -> ndarray:
    """Scores of sequences ``(n,)``."""
    with objective.evaluating():
        return score_proposal(objective, Proposal(codes, np.arange(len(codes))), 256)


def measured(goal: GoalConfig, model: Trained, rows: ndarray) -> tuple[ndarray, ndarray]:
    """What was measured of some sequences: the activity that the goal is about, and how it would score.

    The activity is the target, or what it exceeds the others by (specific). Where a level is asked for that lies
    within what was measured, the nearest counts as a hit.
    """
    track = index_of(model.tracks, goal.track)
    activity = model.targets[rows, track].astype(float)
    if goal.kind == "specific":
        off = model.targets[rows][:, _off(goal, model, track)].astype(float)
        activity = activity - (off.max(axis=1) if goal.gap == "max" else off.mean(axis=1))
    if goal.kind == "minimize":
        return activity, -activity
    if goal.kind != "target":
        return activity, activity
    score = -np.maximum(np.abs(activity - _level(goal)) - goal.tolerance, 0.0)
    if len(score) and np.nanmin(activity) <= _level(goal) <= np.nanmax(activity):
        score[np.nanargmax(score)] = 0.0
    return activity, score


def _off(goal: GoalConfig, model: Trained, track: int) -> list[int]:
    off = [index_of(model.tracks, name) for name in goal.off] if goal.off else \
        [i for i in range(len(model.tracks)) if i != track]
    if not off:
        raise ConfigError(f"goal.kind specific needs other targets to stay low; {model.name} has only "
                          f"{model.tracks[0]}")
    return off


def _level(goal: GoalConfig) -> float:
    if goal.value is None:
        raise ConfigError("goal.kind target needs goal.value, the level to be hit")
    return goal.value


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


def start_pool(setup: Setup) -> ndarray | None:
    """Sequences that could be improved, best suited first: those of a file, or of the run's test fold."""
    wanted, model = setup.config.start, setup.model
    if wanted.path is not None:
        return _read_sequences(setup.root / wanted.path, wanted.column, model.length)
    if wanted.choose == "none":
        return None
    return held_out(setup, wanted.choose)


def held_out(setup: Setup, choose: str = "random") -> ndarray:
    """Sequences of the test fold without N whose activity is known."""
    model, rng = setup.model, np.random.default_rng(setup.config.seed)
    rows = model.known("test", setup.track)
    if not len(rows):
        raise InputError(f"the run {model.name} has no held-out sequence without N to start from; give start.path")
    value = model.targets[rows, setup.track]
    order = rng.permutation(len(rows)) if choose == "random" else np.argsort(value if choose == "weakest" else -value,
                                                                             kind="stable")
    return model.codes[rows[order]]


def _read_sequences(path: Path, column: str, length: int) -> ndarray:
    """Codes of a FASTA or of a column of a table, all of the length of a design."""
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
        need_columns(table, [column], path, "starts")
        parts = table[column].astype(str).tolist()
    wrong = [i for i, part in enumerate(parts) if len(part) != length or (encode(part) == N).any()]
    if wrong or not parts:
        raise InputError(f"{len(wrong):,} of {len(parts):,} starts of {path} are not {length} bp of A C G T; first: "
                         f"{parts[wrong[0]][:60] if wrong else 'none'!r} ({len(parts[wrong[0]]) if wrong else 0} bp)")
    return np.stack([encode(part) for part in parts])
