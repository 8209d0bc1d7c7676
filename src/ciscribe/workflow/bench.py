"""Which model is best on which reporter assay: cross-validation of models × data sets, beside simple baselines.

Every model of a data set sees the same folds, made of whole groups of similar sequences; data sets of one family
share groups and folds, so that a model trained beforehand on one of them has seen no relative of another's test
sequences. Each fit is a file, so a benchmark that was stopped goes on where it was; several run at a time, each on a
thread of its own.
"""

import json
import multiprocessing
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from ciscribe.config import (
    AssayTrainConfig,
    BenchConfig,
    ContestantConfig,
    ReporterConfig,
    parse_config,
    read_config,
    resolve_root,
    write_config,
)
from ciscribe.data.reporter import ReporterSet
from ciscribe.data.similarity import grouped_folds, similarity_groups
from ciscribe.errors import CiscribeError, ConfigError, nearest
from ciscribe.models import registry
from ciscribe.nn.motifs import start_from_motifs
from ciscribe.provenance import atomic_path, digest, provenance, write_json, write_text
from ciscribe.schema import Motif
from ciscribe.train.metrics import pearson, spearman
from ciscribe.train.sequence_baselines import CARDS, run_sequence_baselines
from ciscribe.workflow.reporter import (
    build_model,
    fit_assay,
    group_sequences,
    predict_assay,
    read_assay,
    read_motifs,
    split_rows,
    task_of,
)
from ciscribe.workflow.steps import file_state

BASELINES = "baselines"
"""Name under which the fits of both baselines are kept."""
SHOWN = ("assay", "target", "model", "n_fits", "pearson", "pearson_sd", "ensemble", "gain", "gain_low", "gain_high",
         "parameters", "seconds")
"""Columns of the summary that the command line prints."""
_DRAWS = 1000


@dataclass(frozen=True)
class Fit:
    """One training: which model on which data set, which fold held out, which seed."""

    assay: str
    model: str
    fold: int
    seed: int

    @property
    def file(self) -> Path:
        """Path under the folder of the benchmark."""
        return Path("fits") / self.assay / self.model / f"fold{self.fold}_seed{self.seed}.npz"


class Bench:
    """A benchmark and its folder.

    Parameters
    ----------
    folder
        Where fits and tables go.
    config
        Checked, with an absolute ``root``.
    n_jobs
        Fits at a time, each on one thread; more than one run in processes of their own.
    tell
        Called with one line of progress at a time.
    """

    def __init__(self, folder: str | Path, config: BenchConfig, *, n_jobs: int = 1,
                 tell: Callable[[str], None] = print):
        self.folder, self.config, self.n_jobs, self.tell = Path(folder), config, n_jobs, tell
        self.root = Path(config.root)
        self._check()
        write_text(self.folder / "config.yaml", write_config(config))

    @classmethod
    def from_config(cls, path: str | Path, folder: str | Path | None = None, **options: Any) -> "Bench":
        """Start or continue the benchmark of a configuration file; its folder is ``runs/<name>`` unless named."""
        config = read_config(path, BenchConfig)
        root = resolve_root(config.root, Path(path).parent.absolute()).resolve()
        return cls(folder or Path("runs") / config.name, config.model_copy(update={"root": str(root)}), **options)

    def _check(self) -> None:
        """Everything that can be wrong before a table is read."""
        c = self.config
        if self.n_jobs < 1:
            raise ConfigError(f"at least 1 fit runs at a time; got n_jobs={self.n_jobs}")
        for label, model in c.models.items():
            if label in (BASELINES, *CARDS):
                raise ConfigError(f"models.{label}: the baselines have that name; use another")
            registry.preset_of(model.name, model.preset)
            for name in (*model.pretrain, *model.pretrain.values()):
                self._known(name, f"models.{label}.pretrain")
            for a, b in model.pretrain.items():
                if b not in self._family(a):
                    raise ConfigError(f"models.{label}.pretrain: {a} and {b} must be of one family, so that their "
                                      "folds agree")
        for transfer in c.transfers:
            self._known(transfer.train, "transfers")
            self._known(transfer.test, "transfers")
            for label in transfer.models or ():
                if label not in c.models:
                    raise ConfigError(f"transfers.models names {label!r}; {nearest(label, c.models)}")
        for name, assay in c.assays.items():
            if len(self._family(name)) > 1 and assay.by != "similarity":
                raise ConfigError(f"assays.{name}.by is {assay.by!r}, but the folds of a family are made by similarity "
                                  "of all its sequences; leave by or family out")
            for label in assay.models or c.models:
                if label not in c.models:
                    raise ConfigError(f"assays.{name}.models names {label!r}; {nearest(label, c.models)}")
                self.plan(Fit(name, label, 0, 0))

    def _family(self, name: str) -> list[str]:
        """Data sets that share groups and folds with one, itself included."""
        family = self.config.assays[name].family
        return [n for n, a in self.config.assays.items() if n == name or (family is not None and a.family == family)]

    def _known(self, name: str, where: str) -> None:
        if name not in self.config.assays:
            raise ConfigError(f"{where} names the data set {name!r}; {nearest(name, self.config.assays)}")

    # ---- what there is to do

    def fits(self) -> Iterator[Fit]:
        """Every fit, in the order in which they are done: all models see a fold before the next fold."""
        c = self.config
        for seed in range(c.seeds):
            for fold in range(c.folds):
                for name, assay in c.assays.items():
                    if seed == 0:
                        yield Fit(name, BASELINES, fold, 0)
                    for label in assay.models or c.models:
                        entry = c.models[label]
                        if entry.pretrain and name not in entry.pretrain:
                            continue  # nothing to train on beforehand
                        if seed < (entry.seeds or c.seeds) and fold < (entry.folds or c.folds):
                            yield Fit(name, label, fold, seed)

    def fingerprint(self, fit: Fit) -> str:
        """What a fit depends on: its data set and the relatives that make its folds, its model and its plan."""
        c = self.config
        own: list[Any] = [fit.assay, self._inputs(fit.assay), c.folds, c.seed, fit.fold, fit.seed]
        if fit.model != BASELINES:
            entry = c.models[fit.model]
            first = entry.pretrain.get(fit.assay)
            own += [entry.model_dump(mode="json", exclude={"seeds", "folds", "pretrain"}),
                    self.plan(fit).model_dump(mode="json"), first]
            if first is not None:
                own.append(self.plan(replace(fit, assay=first)).model_dump(mode="json"))
        return digest(own)

    def _inputs(self, name: str) -> list[Any]:
        """How a data set and its relatives are read, and the state of their files."""
        found: list[Any] = []
        for member in self._family(name):
            assay = self.config.assays[member]
            files = [("assay", assay.path), ("activities", assay.activities)]
            found.append(assay.model_dump(mode="json", exclude={"models", "train", "motifs"}))
            files += [("motifs", assay.motifs)] if member == name else []
            found += [file_state(what, self.root / p) for what, paths in files
                      for p in ([paths] if isinstance(paths, str) else paths or [])]
        return found

    def plan(self, fit: Fit) -> AssayTrainConfig:
        """Training plan of a fit: that of the benchmark, changed by the data set, changed by the model."""
        changes = {**self.config.assays[fit.assay].train, **self.config.models[fit.model].train}
        merged = self.config.train.model_dump()
        for key, value in changes.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merged[key] | value if both else value
        raw = {"name": "plan", "assay": {"path": ""}, "train": merged | {"n_threads": 1}}
        return parse_config(raw, f"the plan of {fit.model} on {fit.assay}", ReporterConfig).train

    def is_done(self, fit: Fit) -> bool:
        """Whether its file is there and still fits the configuration and inputs."""
        path = self.folder / fit.file
        if not path.is_file():
            return False
        with np.load(path, allow_pickle=False) as file:
            return json.loads(str(file["facts"]))["fingerprint"] == self.fingerprint(fit)

    # ---- doing it

    def prepare(self) -> None:
        """Read every data set and give its sequences groups and folds: ``data/<name>.npz``."""
        c = self.config
        shapes = {}
        for members in {tuple(self._family(name)): None for name in c.assays}:
            sets = {n: read_assay(c.assays[n], self.root) for n in members}
            shapes |= {n: (s.codes.shape[1], s.targets.shape[1]) for n, s in sets.items()}
            if len(members) == 1:
                groups = group_sequences(sets[members[0]], c.assays[members[0]].by)
            else:
                width = max(s.codes.shape[1] for s in sets.values())
                groups = similarity_groups(np.concatenate([_padded(s.codes, width) for s in sets.values()]))
            fold = grouped_folds(groups, c.folds, seed=c.seed)
            start = 0
            for name, data in sets.items():
                own = slice(start, start + len(data))
                start += len(data)
                with atomic_path(self.folder / "data" / f"{name}.npz") as temporary, temporary.open("wb") as file:
                    np.savez_compressed(file, codes=data.codes, targets=data.targets, fold=fold[own],
                                        group=groups[own], target_names=np.array(data.target_names))
                self.tell(f"{name}: {len(data):,} sequences of {data.codes.shape[1]} bp, "
                          f"{len(np.unique(groups[own])):,} groups; folds of "
                          f"{', '.join(f'{n:,}' for n in np.bincount(fold[own], minlength=c.folds))}")
                for note in data.notes:
                    self.tell(f"  {note}")
        with torch.device("meta"):  # a model that cannot read a data set says so before the first hour, not after
            for f in self.fits():
                if f.model != BASELINES and f.fold == f.seed == 0:
                    entry, (length, n_targets) = c.models[f.model], shapes[f.assay]
                    try:
                        build_model(entry.name, n_targets, length, preset=entry.preset, arguments=entry.arguments)
                    except (ValueError, CiscribeError) as error:
                        raise ConfigError(f"models.{f.model} cannot be built for {f.assay}: {error}") from error
        pairs = [(t.train, t.test, "transfers") for t in c.transfers]
        pairs += [(b, a, f"models.{m}.pretrain") for m, e in c.models.items() for a, b in e.pretrain.items()]
        for a, b, where in pairs:
            if shapes[a] != shapes[b]:
                raise ConfigError(f"{where}: a model of {a} ({shapes[a][0]} bp, {shapes[a][1]} targets) cannot read "
                                  f"{b} ({shapes[b][0]} bp, {shapes[b][1]} targets); pad with length, choose activity")

    def estimate(self) -> pd.DataFrame:
        """Fits that are left and about how long they take, from a few timed training steps each: the dry run.

        Returns
        -------
        DataFrame
            ``assay, model, fits, parameters, seconds_a_fit, minutes``: all epochs on one thread, no early stop.
        """
        rows = []
        left = pd.Series([(f.assay, f.model) for f in self.fits() if not self.is_done(f)], dtype=object).value_counts()
        for (name, label), n in left.items():  # type: ignore[misc]
            if label == BASELINES:
                rows.append({"assay": name, "model": label, "fits": n, "parameters": 0, "seconds_a_fit": np.nan})
                continue
            data, _, _ = self._load(name)
            plan = self.plan(Fit(name, label, 0, 0))
            seconds, n_parameters = _seconds_a_step(self.config.models[label], data, plan)
            steps = plan.epochs * len(data) * (self.config.folds - 2) / self.config.folds / plan.batch_size
            rows.append({"assay": name, "model": label, "fits": n, "parameters": n_parameters,
                         "seconds_a_fit": seconds * steps})
        table = pd.DataFrame(rows or {c: [] for c in ("assay", "model", "fits", "parameters", "seconds_a_fit")})
        return table.assign(minutes=table["fits"] * table["seconds_a_fit"] / 60 / self.n_jobs)

    def run(self) -> pd.DataFrame:
        """Do every fit that is not done, then write and return the summary."""
        self.prepare()
        todo = [f for f in self.fits() if not self.is_done(f)]
        n_all = len(list(self.fits()))
        self.tell(f"{n_all - len(todo):,} of {n_all:,} fits done before")
        start = time.perf_counter()
        with closing(self._done(todo)) as done:
            for i, (fit, facts) in enumerate(done, 1):
                left = (time.perf_counter() - start) / i * (len(todo) - i)
                valid = f"validation r {facts['valid_pearson']:.3f}, " if "valid_pearson" in facts else ""
                self.tell(f"{i}/{len(todo)} {fit.assay}, {fit.model}, fold {fit.fold}, seed {fit.seed}: {valid}"
                          f"{facts['seconds']:.0f} s; about {left / 60:.0f} min left")
        with _one_thread():
            for transfer in self.config.transfers:
                self._transfer(transfer.train, transfer.test, transfer.models)
        return self.summarize()

    def _done(self, todo: list[Fit]) -> Generator[tuple[Fit, dict[str, Any]], None, None]:
        """Do fits, and tell of each when it is finished."""
        if self.n_jobs == 1:
            with _one_thread():
                for fit in todo:
                    yield fit, _run_fit(self.folder, self.config, fit, self.fingerprint(fit))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.n_jobs, context, torch.set_num_threads, (1,)) as pool:
            running = {pool.submit(_run_fit, self.folder, self.config, fit, self.fingerprint(fit)): fit for fit in todo}
            try:
                for future in as_completed(running):
                    yield running[future], future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _load(self, name: str) -> tuple[ReporterSet, ndarray, ndarray]:
        return load_prepared(self.folder, name)

    def _transfer(self, source: str, target: str, models: list[str] | None = None) -> None:
        """Train the models named, or all of the source, on all of it, predict all of the target: ``transfers.parquet``.

        Scored is the first target. Of two data sets of one family, relatives of test sequences are not trained on.
        """
        path = self.folder / "transfers.parquet"
        table = pd.read_parquet(path) if path.exists() else pd.DataFrame()
        for label in models or self.config.assays[source].models or self.config.models:
            entry = self.config.models[label]
            if entry.pretrain:
                continue
            seeds, motifs = entry.seeds or self.config.seeds, read_motifs(self.config.assays[source].motifs, self.root)
            key = digest([self.fingerprint(Fit(source, label, 0, 0)), target, self._inputs(target), seeds])
            if len(table) and (table["key"] == key).any():
                continue
            data, group, fold = self._load(source)
            other, other_group, _ = self._load(target)
            clean = ~np.isin(group, other_group) if target in self._family(source) else np.ones(len(data), bool)
            rows = {"train": np.flatnonzero(clean & (fold != 0)), "valid": np.flatnonzero(clean & (fold == 0))}
            found = []
            for seed in range(seeds):
                torch.manual_seed(seed)
                plan = self.plan(Fit(source, label, 0, seed))
                model = _new_model(entry, data, motifs)
                model, _ = fit_assay(model, data, rows, "regression", plan, seed=seed)
                predicted = predict_assay(model, other.codes, task_of("regression", plan, data.targets), device="cpu")
                known = np.isfinite(other.targets[:, 0])
                truth, guess = other.targets[known, 0], predicted[known, 0]
                found.append({"key": key, "train": source, "test": target, "model": label, "seed": seed,
                              "n_train": len(rows["train"]), "n_test": len(truth),
                              "pearson": pearson(truth, guess), "spearman": spearman(truth, guess)})
                self.tell(f"{source} → {target}, {label}, seed {seed}: r {found[-1]['pearson']:.3f}")
            if len(table):  # what an earlier plan gave
                same = (table["train"] == source) & (table["test"] == target) & (table["model"] == label)
                table = table.loc[~same]
            table = pd.concat([table, pd.DataFrame(found)], ignore_index=True)
            with atomic_path(path) as temporary:
                table.to_parquet(temporary, index=False)

    # ---- what came out

    def summarize(self) -> pd.DataFrame:
        """Tables of all finished fits: ``fits.parquet`` (one row each) and ``summary.parquet``, which is returned.

        Returns
        -------
        DataFrame
            One row a data set, target and model: ``n_fits``; ``pearson`` and ``spearman``, means over folds and
            seeds (predictions that do not vary count as 0), with ``pearson_sd``; ``ensemble``, r of the mean of the
            seeds' predictions, mean over folds; ``gain`` of the mean over the better baseline with its 95 %
            interval, and ``ensemble_gain`` with its; ``parameters``, ``seconds`` a fit, ``epochs``. Intervals
            resample groups of similar sequences within folds.
        """
        fits, parts = [], []
        for name in self.config.assays:
            done = [f for f in self.fits() if f.assay == name and self.is_done(f)]
            if not done:
                continue
            data, group, fold = self._load(name)
            predicted: dict[str, dict[int, list[ndarray]]] = {}
            facts: dict[str, list[dict[str, Any]]] = {}
            for f in done:
                with np.load(self.folder / f.file, allow_pickle=False) as file:
                    fact = json.loads(str(file["facts"]))
                    for key in file.files:
                        if key != "facts":
                            predicted.setdefault(key, {}).setdefault(f.fold, []).append(file[key])
                            facts.setdefault(key, []).append(fact)
            for t, target in enumerate(data.target_names):
                rows, table = _summary({m: {k: [p[:, t] for p in of] for k, of in by.items()}
                                        for m, by in predicted.items()}, data.targets[:, t], fold, group,
                                       seed=self.config.seed)
                for row in rows:
                    about = facts[row["model"]]
                    parts.append({"assay": name, "target": target} | row | {
                        "parameters": about[0].get("parameters"),
                        "seconds": float(np.mean([a["seconds"] for a in about])),
                        "epochs": float(np.mean([a.get("epochs", np.nan) for a in about]))})
                fits.append(table.assign(assay=name, target=target))
        summary = pd.DataFrame(parts).astype({"parameters": "Int64"})  # baselines have none
        for file, table in (("summary", summary), ("fits", pd.concat(fits, ignore_index=True))):
            with atomic_path(self.folder / f"{file}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        write_json(self.folder / "provenance.json", provenance(seed=self.config.seed))
        return summary


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _padded(codes: ndarray, width: int) -> ndarray:
    return np.pad(codes, ((0, 0), (0, width - codes.shape[1])), constant_values=4)


def load_prepared(folder: Path, name: str) -> tuple[ReporterSet, ndarray, ndarray]:
    """Data set, groups and folds that `Bench.prepare` wrote."""
    with np.load(folder / "data" / f"{name}.npz", allow_pickle=False) as file:
        data = ReporterSet(table=pd.DataFrame({"name": np.arange(len(file["codes"])).astype(str)}),
                           codes=file["codes"], targets=file["targets"],
                           target_names=tuple(str(n) for n in file["target_names"]))
        return data, file["group"], file["fold"]


def _run_fit(folder: Path, config: BenchConfig, fit: Fit, fingerprint: str) -> dict[str, Any]:
    """One fit: predictions of the held-out fold and facts go to its file."""
    bench = Bench.__new__(Bench)
    bench.folder, bench.config, bench.root = folder, config, Path(config.root)
    data, group, fold = load_prepared(folder, fit.assay)
    rows = split_rows(fold, fit.fold, config.folds)
    start = time.perf_counter()
    motifs = read_motifs(config.assays[fit.assay].motifs, bench.root)
    facts: dict[str, Any] = {"fingerprint": fingerprint}
    if fit.model == BASELINES:
        predicted = run_sequence_baselines(data.codes, data.targets, rows["train"], rows["valid"], rows["test"],
                                           motifs=motifs, seed=fit.seed, groups=group)
    else:
        entry, plan = config.models[fit.model], bench.plan(fit)
        torch.manual_seed(fit.seed)
        model = _new_model(entry, data, motifs)
        first = entry.pretrain.get(fit.assay)
        if first is not None:
            earlier, _, earlier_fold = load_prepared(folder, first)
            before = bench.plan(Fit(first, fit.model, fit.fold, fit.seed))
            model, _ = fit_assay(model, earlier, split_rows(earlier_fold, fit.fold, config.folds), "regression", before,
                                 seed=fit.seed)
            plan = plan.model_copy(update={"learning_rate": plan.learning_rate / 4})
        model, log = fit_assay(model, data, rows, "regression", plan, seed=fit.seed, fresh=first is None)
        task = task_of("regression", plan, data.targets[rows["train"]])
        predicted = {fit.model: predict_assay(model, data.codes[rows["test"]], task, device="cpu")}
        error = "valid_mse" if "valid_mse" in log else "valid_loss"
        facts |= {"parameters": sum(p.numel() for p in model.parameters()), "epochs": len(log),
                  "valid_pearson": float(log.loc[log[error].idxmin(), "valid_pearson"])}
    facts["seconds"] = time.perf_counter() - start
    with atomic_path(folder / fit.file) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{"facts": np.array(json.dumps(facts))} | predicted)  # type: ignore[arg-type]
    return facts


def _new_model(entry: ContestantConfig, data: ReporterSet, motifs: list[Motif] | None) -> nn.Module:
    model, _ = build_model(entry.name, data.targets.shape[1], data.codes.shape[1], preset=entry.preset,
                           arguments=entry.arguments, both_strands=entry.both_strands)
    if entry.motif_start and motifs:
        start_from_motifs(model, [m.ppm for m in motifs])
    return model


def _seconds_a_step(entry: ContestantConfig, data: ReporterSet, plan: AssayTrainConfig, n: int = 4
                    ) -> tuple[float, int]:
    """Forward, backward and update of one step on one thread: median of `n`, and the number of parameters."""
    model = _new_model(entry, data, None)
    few = np.arange(min(len(data), plan.batch_size))
    quick = plan.model_copy(update={"epochs": n + 1, "patience": None})
    part = replace(data, targets=np.random.default_rng(0).normal(size=data.targets.shape).astype(np.float32))
    with _one_thread():
        stamps = [time.perf_counter()]
        fit_assay(model, part, {"train": few, "valid": few[:2]}, "regression", quick,
                  tell=lambda line: stamps.append(time.perf_counter()))
    return float(np.median(np.diff(stamps)[1:])), sum(p.numel() for p in model.parameters())


def _summary(predicted: dict[str, dict[int, list[ndarray]]], observed: Float[ndarray, " N"], fold: ndarray,
             group: ndarray, *, seed: int) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Figures of one target: a row a model, and a table of single fits."""
    known = {k: np.isfinite(observed[fold == k]) for k in np.unique(fold)}
    truth = {k: observed[fold == k][known[k]] for k in known}
    weights = {k: _resampled(group[fold == k][known[k]], _DRAWS, seed + int(k)) for k in known}
    table = []
    draws: dict[str, dict[int, ndarray]] = {}
    ensembles: dict[str, dict[int, ndarray]] = {}
    for model, by_fold in predicted.items():
        draws[model], ensembles[model] = {}, {}
        for k, runs in sorted(by_fold.items()):
            runs = [r[known[k]] for r in runs]
            for i, run in enumerate(runs):
                # a prediction that does not vary knows nothing: r is 0, not undefined
                table.append({"model": model, "fold": int(k), "seed": i,
                              "pearson": float(np.nan_to_num(pearson(truth[k], run))),
                              "spearman": float(np.nan_to_num(spearman(truth[k], run))),
                              "mse": float(np.mean((truth[k] - run) ** 2))})
            draws[model][k] = np.mean([_weighted_r(truth[k], r, weights[k]) for r in runs], axis=0)
            ensembles[model][k] = _weighted_r(truth[k], np.mean(runs, axis=0), weights[k])
    frame = pd.DataFrame(table)
    mean = {str(m): float(r) for m, r in
            frame.groupby(["model", "fold"])["pearson"].mean().groupby("model").mean().items()}
    baselines = [m for m in mean if m in CARDS]
    better = max(baselines, key=lambda m: mean[m]) if baselines else None
    rows = []
    for model in predicted:
        of = frame.loc[frame["model"] == model]
        row: dict[str, Any] = {"model": model, "n_fits": len(of), "pearson": mean[model],
                               "pearson_sd": float(of["pearson"].std(ddof=1)) if len(of) > 1 else np.nan,
                               "spearman": float(of["spearman"].mean()), "mse": float(of["mse"].mean()),
                               "ensemble": float(np.mean([e[0] for e in ensembles[model].values()]))}
        rival = draws[better] if better is not None and model not in baselines else {}
        for key, drawn in (("gain", draws[model]), ("ensemble_gain", ensembles[model])):
            both = [drawn[k] - rival[k] for k in drawn if k in rival]  # on the folds that the model has
            difference = np.mean(both, axis=0) if both else np.full(_DRAWS + 1, np.nan)
            low, high = np.percentile(difference[1:], [2.5, 97.5])
            row |= {key: float(difference[0]), f"{key}_low": float(low), f"{key}_high": float(high)}
        rows.append(row)
    return rows, frame


def _resampled(group: ndarray, n: int, seed: int) -> ndarray:
    """Weights of the rows ``(n + 1, N)``: row 0 is all ones, the others are resamples of whole groups."""
    _, index = np.unique(group, return_inverse=True)
    n_groups = int(index.max()) + 1
    counts = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n)
    return np.concatenate([np.ones((1, len(group))), counts[:, index]]).astype(np.float32)


def _weighted_r(a: ndarray, b: ndarray, weights: ndarray) -> ndarray:
    """Pearson correlation under every row of weights."""
    total = weights.sum(axis=1)
    a, b = a - a.mean(), b - b.mean()
    columns = np.stack([a, b, a * b, a * a, b * b], axis=1).astype(np.float64)
    m = weights.astype(np.float64) @ columns / total[:, None]
    covariance = m[:, 2] - m[:, 0] * m[:, 1]
    spread = np.sqrt(np.clip((m[:, 3] - m[:, 0] ** 2) * (m[:, 4] - m[:, 1] ** 2), 1e-30, None))
    return covariance / spread
