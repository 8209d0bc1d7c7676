"""The road from a reporter-assay table to a trained, evaluated, shareable model.

A test fold is never trained on, validated on or looked at before the last step, and no group of similar sequences
straddles folds. The same functions make one model (`ReporterRun`) and the cross-validation of many
(`ciscribe.workflow.bench`).
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import nn

from ciscribe.config import (
    AssayConfig,
    AssayTrainConfig,
    ReporterConfig,
    read_config,
    resolve_root,
    write_config,
)
from ciscribe.data.augment import Augment
from ciscribe.data.reporter import ReporterSet, loader, read_reporter
from ciscribe.data.similarity import grouped_folds, similarity_groups
from ciscribe.errors import ConfigError, DataMissingError, InputError, nearest
from ciscribe.io.motifs import read_meme
from ciscribe.models import registry
from ciscribe.nn.motifs import start_from_motifs
from ciscribe.oracle import Oracle
from ciscribe.provenance import atomic_path, digest, write_json, write_text
from ciscribe.report.reporter import write_reporter_report
from ciscribe.schema import Motif
from ciscribe.sequence import one_hot_tensor
from ciscribe.train.fit import FitSpec, fit, new_head, scale_head, start_at_mean
from ciscribe.train.sequence_baselines import run_sequence_baselines
from ciscribe.train.tasks import Classification, Regression, Task
from ciscribe.workflow.steps import Job, file_state

FOLDS = ("train", "valid", "test")


def read_assay(config: AssayConfig, root: Path) -> ReporterSet:
    """Read the tables of a configuration; paths are relative to `root`."""
    paths = [config.path] if isinstance(config.path, str) else config.path
    given = config.model_dump(include={"sequence", "activity", "columns", "separator", "log", "pseudocount", "floor",
                                       "length", "duplicates"})
    found = [root / p for p in paths]
    return read_reporter(found if len(found) > 1 else found[0], **given, where=config.where or None,
                         activities=None if config.activities is None else root / config.activities)


def group_sequences(data: ReporterSet, by: str = "similarity") -> Int[ndarray, " N"]:
    """Groups that stay together: similar sequences, or equal values of a column (gene, chromosome …)."""
    if by == "similarity":
        return similarity_groups(data.codes)
    if by not in data.table:
        raise ConfigError(f"folds.by names the column {by!r}, which the table does not have; {nearest(by, data.table)}")
    missing = (data.table[by].isna() | (data.table[by].astype(str).str.strip() == "")).to_numpy()
    if missing.any():
        raise InputError(f"{int(missing.sum()):,} of {len(data):,} sequences have no {by!r}, the column by which folds "
                         f"are made; first: {data.table['name'].iloc[int(missing.argmax())]}; fill it in, or leave "
                         "them out with where")
    return pd.factorize(data.table[by])[0].astype(np.int64)


def split_rows(fold: Int[ndarray, " N"], test: int, n: int) -> dict[str, Int[ndarray, " _"]]:
    """Rows of ``train``, ``valid`` and ``test`` when fold `test` is held out; the next fold chooses the epoch."""
    valid = (test + 1) % n
    return {"train": np.flatnonzero((fold != test) & (fold != valid)), "valid": np.flatnonzero(fold == valid),
            "test": np.flatnonzero(fold == test)}


def task_of(kind: str, train: AssayTrainConfig, targets: Float[ndarray, "N T"]) -> Task:
    """The task of a configuration; `targets` of the training rows give the class weights."""
    weights = None if train.target_weights is None else tuple(train.target_weights)
    if kind == "classification":
        if not np.isin(targets[~np.isnan(targets)], (0, 1)).all():
            raise ConfigError("task is classification, but the activities are not all 0 or 1; "
                              "use task: regression, or threshold them")
        balanced = Classification.balanced(targets).positive_weights if train.balance else None
        return Classification(target_weights=weights, positive_weights=balanced)
    return Regression(loss=train.loss, target_weights=weights)


def fit_spec(train: AssayTrainConfig, task: Task) -> FitSpec:
    """The plan of a configuration."""
    plan = train.model_dump(exclude={"augment", "loss", "target_weights", "balance"})
    augment = Augment(**train.augment.model_dump())
    return FitSpec(**plan | {"task": task, "freeze": tuple(train.freeze),
                             "augment": augment if augment.names or augment.shift else None})


def build_model(name: str, n_targets: int, length: int, *, preset: str | None = None,
                arguments: dict[str, Any] | None = None, both_strands: str | None = None
                ) -> tuple[nn.Module, dict[str, Any]]:
    """A new model that fits the data, and the arguments that build it again."""
    task = registry.card(name).task
    if task not in ("regression", "classification"):
        fitting = [n for n in registry.names() if registry.card(n).task in ("regression", "classification")]
        raise ConfigError(f"a reporter assay needs a model of one number a target; {name!r} is of the task {task!r}; "
                          f"take one of {', '.join(fitting)}")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in (arguments or {}).items()}
    accepted = registry.arguments(name)
    full: dict[str, Any] = registry.preset_of(name, preset) | {"n_targets": n_targets}
    full |= ({"length": length} if "length" in accepted else {}) | given
    model = registry.create(name, both_strands=both_strands, **full)
    return model, full | ({} if both_strands is None else {"both_strands": both_strands})


def fit_assay(model: nn.Module, data: ReporterSet, rows: dict[str, ndarray], kind: str, train: AssayTrainConfig, *,
              seed: int = 0, folder: Path | None = None, identity: str = "", progress: bool = False,
              tell: Callable[[str], None] | None = None, fresh: bool = True) -> tuple[nn.Module, pd.DataFrame]:
    """Train a model on the training rows; the validation rows choose the epoch, the others are not read.

    Squared errors are minimized in standard units of the training targets, and the last layer is scaled back
    afterwards, so that one learning rate does for assays of any unit. A model whose last layer is not a plain linear
    one is trained in the units of the data.

    Parameters
    ----------
    kind
        ``regression`` or ``classification``.
    fresh
        The layer that yields the targets is new. False for a model that predicts in the units of the data already
        (transfer): it is trained on in standard units as well, and its last layer brought there first.

    Returns
    -------
    model, DataFrame
        As `ciscribe.train.fit.fit`; predictions in the units of the data, the log in the units of training.

    Raises
    ------
    InputError
        When a target was not measured in any training sequence.
    """
    targets = data.targets[rows["train"]]
    task = task_of(kind, train, targets)
    spec = fit_spec(train, task)
    mean, sd = _moments(targets, data.target_names)
    sample = one_hot_tensor(torch.from_numpy(data.codes[rows["train"][:4]]))
    weights = copy.deepcopy(model.state_dict())
    standard = kind == "regression" and train.loss in ("mse", "smooth_l1") and scale_head(
        model, 1 / sd, -mean / sd, sample)
    if fresh and kind == "regression":
        model.load_state_dict(weights)  # that was a trial: a new head starts at its own scale, whatever the units
        level = _inverse_softplus(mean) if train.loss == "poisson" else mean
        start_at_mean(model, np.zeros_like(mean) if standard else level)
    used = replace(data, targets=((data.targets - mean) / sd).astype(np.float32)) if standard else data
    model, log = fit(model, loader(used, rows["train"], spec.batch_size, shuffle=True, seed=seed,
                                   n_workers=spec.n_workers),
                     loader(used, rows["valid"], 512, n_workers=spec.n_workers), spec, folder=folder, seed=seed,
                     identity=identity, progress=progress, tell=tell)
    if standard:
        scale_head(model, sd, mean, sample)
    return model, log


def _moments(targets: Float[ndarray, "N T"], names: tuple[str, ...]) -> tuple[ndarray, ndarray]:
    """Mean and standard deviation of the training targets; 1 for one that does not vary."""
    unknown = np.isnan(targets).all(axis=0)
    if unknown.any():
        raise InputError(f"{int(unknown.sum())} of {len(names)} targets were not measured in any of {len(targets):,} "
                         f"training sequences; first: {names[int(unknown.argmax())]}; leave it out of activity, or "
                         "hold another fold out")
    values = targets.astype(np.float64)
    mean, sd = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    return mean, np.where(sd > 1e-6 * np.abs(mean), sd, 1.0)


def _inverse_softplus(rate: ndarray) -> ndarray:
    rate = np.maximum(rate, 1e-3)
    return rate + np.log(-np.expm1(-rate))


def predict_assay(model: nn.Module, codes: UInt8[ndarray, "N L"], task: Task, *, device: str | None = None,
                  progress: bool = False) -> Float[ndarray, "N T"]:
    """Predictions of a trained model in the units of the data: numbers, rates of counts, probabilities of labels."""
    raw = Oracle(model, device=device).predict(torch.from_numpy(codes), batch_size=256, progress=progress)
    return task.predictions(raw).numpy()


def read_motifs(paths: str | list[str] | None, root: Path) -> list[Motif] | None:
    """Motifs of the MEME files named in a configuration, or None."""
    paths = [paths] if isinstance(paths, str) else paths
    return None if paths is None else [motif for path in paths for motif in read_meme(root / path)]


class ReporterRun(Job):
    """One model of one reporter assay: train, evaluate on the held-out fold, report.

    Parameters
    ----------
    folder
        The run folder; it must hold ``config.yaml`` unless `config` is given.
    config
        A checked configuration with an absolute ``root``; it is written to the folder.
    **options
        As in `Job`.
    """

    STEPS = ("train", "evaluate", "report")
    OUTPUTS: ClassVar = {"train": ("model/model.safetensors", "log.csv", "folds.parquet"),
               "evaluate": ("metrics.json", "predictions.parquet"), "report": ("report.html",)}

    def __init__(self, folder: str | Path, config: ReporterConfig | None = None, **options: Any):
        folder = Path(folder)
        if config is None:
            if not (folder / "config.yaml").is_file():
                raise DataMissingError(f"{folder} is not a run folder (no config.yaml); "
                                       "make one with: ciscribe reporter CONFIG")
            config = read_config(folder / "config.yaml", ReporterConfig)
        else:
            write_text(folder / "config.yaml", write_config(config))
        super().__init__(folder, seed=config.seed, **options)
        self.config = config
        self.root = Path(config.root)

    @classmethod
    def from_config(cls, path: str | Path, folder: str | Path | None = None, **options: Any) -> "ReporterRun":
        """Start or continue the run of a configuration file; its folder is ``runs/<name>`` unless named."""
        config = read_config(path, ReporterConfig)
        root = resolve_root(config.root, Path(path).parent.absolute()).resolve()
        return cls(folder or Path("runs") / config.name, config.model_copy(update={"root": str(root)}), **options)

    def fingerprint(self, step: str) -> str:
        """See `Job.fingerprint`."""
        c = self.config.model_dump(mode="json")
        if step == "train":
            plan = {k: v for k, v in c["train"].items() if k not in ("device", "n_devices", "n_workers", "n_threads")}
            own = [c[k] for k in ("seed", "assay", "folds", "task", "model", "both_strands", "motif_start",
                                  "start_from")]
            return digest([own, plan, self._files()])
        depends = {"evaluate": ("train", []), "report": ("evaluate", [c["report"]])}
        before, own = depends[step]
        return digest([self.fingerprint(before), step, own])

    def _files(self) -> list[Any]:
        c = self.config
        paths = [c.assay.path] if isinstance(c.assay.path, str) else c.assay.path
        named = [("assay", p) for p in paths]
        motifs = [c.motifs] if isinstance(c.motifs, str) else c.motifs or []
        named += [("motifs", p) for p in motifs] + [("activities", p) for p in (c.assay.activities,) if p is not None]
        named += [("start_from", self._source / "model.safetensors")] if c.start_from is not None else []
        return [file_state(name, self.root / p) for name, p in named]

    @property
    def _source(self) -> Path:
        """Folder of the model to start from."""
        return self.root / Path(self.config.start_from or "").expanduser()

    @cached_property
    def data(self) -> ReporterSet:
        """The sequences and their activities."""
        return read_assay(self.config.assay, self.root)

    @cached_property
    def groups(self) -> ndarray:
        """Group of every sequence; groups stay in one fold."""
        return group_sequences(self.data, self.config.folds.by)

    @cached_property
    def rows(self) -> dict[str, ndarray]:
        """Rows of the three folds."""
        f = self.config.folds
        if f.test >= f.n:
            raise ConfigError(f"folds.test is {f.test}, but there are {f.n} folds, numbered from 0")
        groups = self.groups
        if len(np.unique(groups)) < f.n:
            raise ConfigError(f"{f.n} folds need at least {f.n} groups of sequences; by {f.by!r} there are "
                              f"{len(np.unique(groups))}; use fewer folds or another column")
        fold = grouped_folds(groups, f.n, seed=self.seed, stratify=self.data.targets[:, 0])
        return split_rows(fold, f.test, f.n)

    def _train(self) -> dict[str, Any]:
        c, data, rows = self.config, self.data, self.rows
        for note in data.notes:
            self.tell("  " + note)
        torch.manual_seed(c.seed)
        name, (model, arguments, fresh) = c.model.name, self._model()
        if c.motif_start:
            motifs = read_motifs(c.motifs, self.root)
            if not motifs:
                raise ConfigError("motif_start needs motifs: a MEME file")
            n = start_from_motifs(model, [m.ppm for m in motifs])
            self.tell(f"  {n} filters of the first layer start from motifs")
        n = sum(p.numel() for p in model.parameters())
        self.tell(f"  {name}: {n:,} parameters; " + ", ".join(f"{len(rows[f]):,} {f}" for f in FOLDS) + " sequences")
        model, log = fit_assay(model, data, rows, c.task, c.train, seed=c.seed, folder=self.folder / "checkpoints",
                               identity=self.fingerprint("train"), progress=self.progress,
                               tell=lambda line: self.tell("  " + line), fresh=fresh)
        registry.save(self.folder / "model", name, model, arguments, targets=list(data.target_names), task=c.task,
                      loss=c.train.loss, length=data.codes.shape[1], seed=c.seed)
        fold = np.full(len(data), "", dtype=object)
        for part, of in rows.items():
            fold[of] = part
        with atomic_path(self.folder / "folds.parquet") as temporary:
            pd.DataFrame({"name": data.table["name"], "fold": fold}).to_parquet(temporary, index=False)
        with atomic_path(self.folder / "log.csv") as temporary:
            log.to_csv(temporary, index=False)
        return {"parameters": n, "epochs": len(log), "notes": list(data.notes)}

    def _model(self) -> tuple[nn.Module, dict[str, Any], bool]:
        """A new model, or one that was trained before, its arguments, and whether its last layer is new."""
        c, data = self.config, self.data
        n_targets = len(data.target_names)
        if c.start_from is None:
            return *build_model(c.model.name, n_targets, data.codes.shape[1], preset=c.model.preset,
                                arguments=c.model.arguments, both_strands=c.both_strands), True
        name, arguments, facts = registry.describe(self._source)
        if name != c.model.name:
            raise ConfigError(f"start_from holds the model {name!r}, but model.name is {c.model.name!r}; "
                              "they must be the same")
        if c.both_strands not in (None, arguments.get("both_strands")):
            raise ConfigError(f"start_from was trained with both_strands={arguments.get('both_strands')!r}, but the "
                              f"configuration says {c.both_strands!r}; leave it out to go on as it was trained")
        model, _ = registry.load(self._source)
        fresh = facts.get("targets") != list(data.target_names)
        if fresh:
            new_head(model, n_targets)
        return model, arguments | {"n_targets": n_targets}, fresh

    def _evaluate(self) -> None:
        c, data, rows = self.config, self.data, self.rows
        model, _ = registry.load(self.folder / "model", expect=c.model.name)
        task = task_of(c.task, c.train, data.targets[rows["train"]])
        predicted = predict_assay(model, data.codes, task, device=c.train.device, progress=self.progress)
        rivals = run_sequence_baselines(data.codes, data.targets, rows["train"], rows["valid"], rows["test"],
                                        motifs=read_motifs(c.motifs, self.root), seed=c.seed,
                                        groups=self.groups, n_jobs=c.train.n_threads or torch.get_num_threads())
        observed = data.targets[rows["test"]]
        models = {c.model.name: predicted[rows["test"]]} | rivals
        metrics = {"split": {f: {"n": len(rows[f])} for f in FOLDS}, "by": c.folds.by, "task": c.task,
                   "targets": list(data.target_names), "main": c.model.name, "noise_ceiling": None,
                   "models": {name: task.score(observed, values, list(data.target_names), seed=c.seed)
                              for name, values in models.items()}}
        table = prediction_rows(data, rows, predicted, rivals)
        with atomic_path(self.folder / "predictions.parquet") as temporary:
            table.to_parquet(temporary, index=False)
        write_json(self.folder / "metrics.json", metrics)
        for line in score_lines(metrics):
            self.tell("  " + line)

    def _report(self) -> None:
        write_reporter_report(self.folder, self.config, notes=self.data.notes)


def prediction_rows(data: ReporterSet, rows: dict[str, ndarray], predicted: Float[ndarray, "N T"],
                    rivals: dict[str, ndarray]) -> pd.DataFrame:
    """Long table ``name, fold, cell, observed, predicted, …``: one row a measured sequence and target."""
    parts = []
    for fold in FOLDS:
        of = rows[fold]
        for t, target in enumerate(data.target_names):
            part = pd.DataFrame({"name": data.table["name"].to_numpy()[of], "fold": fold, "cell": target,
                                 "observed": data.targets[of, t], "predicted": predicted[of, t]})
            for name, values in rivals.items():
                part[name] = values[:, t] if fold == "test" else np.float32(np.nan)
            parts.append(part)
    return pd.concat(parts, ignore_index=True).dropna(subset=["observed"]).reset_index(drop=True)


def score_lines(metrics: dict[str, Any]) -> list[str]:
    """The figures of an evaluation as lines of text, the model first."""
    lines = []
    for name, scores in metrics["models"].items():
        figures = ", ".join(f"{m} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]"
                            for m, v in scores["mean"].items() if m in ("pearson", "spearman", "auroc", "auprc"))
        lines.append(f"{name:>24}: {figures}")
    return lines
