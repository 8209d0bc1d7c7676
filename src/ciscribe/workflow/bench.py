"""Which model is best on which reporter assay: cross-validation of models × data sets, beside simple baselines.

Every model of a data set sees the same folds, made of whole groups of similar sequences; data sets of one family
share groups and folds, so that a model trained beforehand on one of them has seen no relative of another's test
sequences. Each fit is a file, so a benchmark that was stopped goes on where it was; several run at a time, each on a
thread of its own.
"""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray

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
from ciscribe.errors import ConfigError, nearest
from ciscribe.nn.motifs import start_from_motifs
from ciscribe.oracle import Oracle
from ciscribe.provenance import atomic_path, digest, provenance, write_json, write_text
from ciscribe.train.metrics import pearson, spearman
from ciscribe.train.sequence_baselines import CARDS, run_sequence_baselines
from ciscribe.workflow.reporter import build_model, fit_assay, group_sequences, read_assay, read_motifs, split_rows
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
        Fits at a time, each in a process with one thread.
    tell
        Called with one line of progress at a time.
    """

    def __init__(self, folder: str | Path, config: BenchConfig, *, n_jobs: int = 1,
                 tell: Callable[[str], None] = print):
        self.folder, self.config, self.n_jobs, self.tell = Path(folder), config, n_jobs, tell
        self.root = Path(config.root)
        for label, model in config.models.items():
            for name in (*model.pretrain, *model.pretrain.values()):
                self._known(name, f"models.{label}.pretrain")
            for a, b in model.pretrain.items():
                if config.assays[a].family is None or config.assays[a].family != config.assays[b].family:
                    raise ConfigError(f"models.{label}.pretrain: {a} and {b} must be of one family, so that their "
                                      "folds agree")
        for transfer in config.transfers:
            self._known(transfer.train, "transfers")
            self._known(transfer.test, "transfers")
        for name, assay in config.assays.items():
            for label in assay.models or ():
                if label not in config.models:
                    raise ConfigError(f"assays.{name}.models names {label!r}; {nearest(label, config.models)}")
        write_text(self.folder / "config.yaml", write_config(config))

    @classmethod
    def from_config(cls, path: str | Path, folder: str | Path | None = None, **options: Any) -> "Bench":
        """Start or continue the benchmark of a configuration file; its folder is ``runs/<name>`` unless named."""
        config = read_config(path, BenchConfig)
        root = resolve_root(config.root, Path(path).parent.absolute()).resolve()
        return cls(folder or Path("runs") / config.name, config.model_copy(update={"root": str(root)}), **options)

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
                        if seed < (entry.seeds or c.seeds) and fold < (entry.folds or c.folds):
                            yield Fit(name, label, fold, seed)

    def fingerprint(self, fit: Fit) -> str:
        """What a fit depends on."""
        assay = self.config.assays[fit.assay]
        own: list[Any] = [assay.model_dump(mode="json", exclude={"models", "train"}), self.config.folds,
                          self.config.seed, self._family_files(fit.assay), fit.fold, fit.seed]
        if fit.model != BASELINES:
            own += [self.config.models[fit.model].model_dump(mode="json", exclude={"seeds", "folds"}),
                    self.plan(fit).model_dump(mode="json")]
        return digest(own)

    def _family_files(self, name: str) -> list[Any]:
        family = self.config.assays[name].family
        members = [n for n, a in self.config.assays.items() if n == name or (family and a.family == family)]
        found = []
        for member in members:
            path = self.config.assays[member].path
            found += [file_state("assay", self.root / p) for p in ([path] if isinstance(path, str) else path)]
        return found

    def plan(self, fit: Fit) -> AssayTrainConfig:
        """Training plan of a fit: that of the benchmark, changed by the data set, changed by the model."""
        changes = {**self.config.assays[fit.assay].train, **self.config.models[fit.model].train}
        merged = self.config.train.model_dump()
        for key, value in changes.items():
            merged[key] = merged[key] | value if isinstance(value, dict) else value
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
        families: dict[str, list[str]] = {}
        for name, assay in c.assays.items():
            families.setdefault(f"family {assay.family}" if assay.family else name, []).append(name)
        for members in families.values():
            sets = {n: read_assay(c.assays[n], self.root) for n in members}
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
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.n_jobs, mp_context=context, initializer=_one_thread) as pool:
            running = {pool.submit(_run_fit, self.folder, self.config, fit, self.fingerprint(fit)): fit for fit in todo}
            try:
                for i, future in enumerate(as_completed(running), 1):
                    fit, facts = running[future], future.result()
                    left = (time.perf_counter() - start) / i * (len(todo) - i)
                    valid = f"validation r {facts['valid_pearson']:.3f}, " if "valid_pearson" in facts else ""
                    self.tell(f"{i}/{len(todo)} {fit.assay}, {fit.model}, fold {fit.fold}, seed {fit.seed}: {valid}"
                              f"{facts['seconds']:.0f} s; about {left / 60:.0f} min left")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for transfer in self.config.transfers:
            self._transfer(transfer.train, transfer.test)
        return self.summarize()

    def _load(self, name: str) -> tuple[ReporterSet, ndarray, ndarray]:
        return load_prepared(self.folder, name)

    def _transfer(self, source: str, target: str) -> None:
        """Train every model of the source on all of it, predict all of the target: ``transfers.parquet``."""
        path = self.folder / "transfers.parquet"
        table = pd.read_parquet(path) if path.exists() else pd.DataFrame()
        for label in self.config.assays[source].models or self.config.models:
            entry = self.config.models[label]
            if entry.pretrain:
                continue
            key = digest([self.fingerprint(Fit(source, label, 0, 0)), self._family_files(target), target])
            if len(table) and (table["key"] == key).any():
                continue
            data, group, fold = self._load(source)
            other, other_group, _ = self._load(target)
            joint = self.config.assays[source].family is not None
            clean = ~np.isin(group, other_group) if joint else np.ones(len(data), bool)
            rows = {"train": np.flatnonzero(clean & (fold != 0)), "valid": np.flatnonzero(clean & (fold == 0))}
            found = []
            for seed in range(entry.seeds or self.config.seeds):
                torch.manual_seed(seed)
                plan = self.plan(Fit(source, label, 0, seed))
                model, _ = build_model(entry.name, data.targets.shape[1], data.codes.shape[1], preset=entry.preset,
                                       arguments=entry.arguments, both_strands=entry.both_strands)
                model, _ = fit_assay(model, data, rows, "regression", plan, seed=seed)
                predicted = Oracle(model, device="cpu").predict(torch.from_numpy(other.codes), batch_size=256).numpy()
                found.append({"key": key, "train": source, "test": target, "model": label, "seed": seed,
                              "n_train": len(rows["train"]), "n_test": len(other),
                              "pearson": pearson(other.targets[:, 0], predicted[:, 0]),
                              "spearman": spearman(other.targets[:, 0], predicted[:, 0])})
                self.tell(f"{source} → {target}, {label}, seed {seed}: r {found[-1]['pearson']:.3f}")
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
            seeds, with ``pearson_sd``; ``ensemble``, r of the mean of the seeds' predictions, mean over folds;
            ``gain`` of the mean over the better baseline with its 95 % interval, and ``ensemble_gain`` with its;
            ``parameters``, ``seconds`` a fit, ``epochs``. Intervals resample groups of similar sequences within
            folds.
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
        summary = pd.DataFrame(parts)
        for file, table in (("summary", summary), ("fits", pd.concat(fits, ignore_index=True))):
            with atomic_path(self.folder / f"{file}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        write_json(self.folder / "provenance.json", provenance(seed=self.config.seed))
        return summary


def _one_thread() -> None:
    torch.set_num_threads(1)


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
    """One fit, in a process of its own: predictions of the held-out fold and facts go to its file."""
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
        model, _ = build_model(entry.name, data.targets.shape[1], data.codes.shape[1], preset=entry.preset,
                               arguments=entry.arguments, both_strands=entry.both_strands)
        if entry.motif_start and motifs:
            start_from_motifs(model, [m.ppm for m in motifs])
        first = entry.pretrain.get(fit.assay)
        if first is not None:
            earlier, _, earlier_fold = load_prepared(folder, first)
            before = bench.plan(Fit(first, fit.model, fit.fold, fit.seed))
            model, _ = fit_assay(model, earlier, split_rows(earlier_fold, fit.fold, config.folds), "regression", before,
                                 seed=fit.seed)
            plan = plan.model_copy(update={"learning_rate": plan.learning_rate / 4})
        model, log = fit_assay(model, data, rows, "regression", plan, seed=fit.seed, fresh=first is None)
        codes = torch.from_numpy(data.codes[rows["test"]])
        predicted = {fit.model: Oracle(model, device="cpu").predict(codes, batch_size=256).numpy()}
        facts |= {"parameters": sum(p.numel() for p in model.parameters()), "epochs": len(log),
                  "valid_pearson": float(log.loc[log["valid_mse"].idxmin(), "valid_pearson"])}
    facts["seconds"] = time.perf_counter() - start
    with atomic_path(folder / fit.file) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{"facts": np.array(json.dumps(facts))} | predicted)  # type: ignore[arg-type]
    return facts


def _seconds_a_step(entry: ContestantConfig, data: ReporterSet, plan: AssayTrainConfig, n: int = 4
                    ) -> tuple[float, int]:
    """Forward, backward and update of one step on one thread: median of `n`, and the number of parameters."""
    model, _ = build_model(entry.name, data.targets.shape[1], data.codes.shape[1], preset=entry.preset,
                           arguments=entry.arguments, both_strands=entry.both_strands)
    few = np.arange(min(len(data), plan.batch_size))
    quick = plan.model_copy(update={"epochs": n + 1, "patience": None})
    part = replace(data, targets=np.random.default_rng(0).normal(size=data.targets.shape).astype(np.float32))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stamps = [time.perf_counter()]
        fit_assay(model, part, {"train": few, "valid": few[:2]}, "regression", quick,
                  tell=lambda line: stamps.append(time.perf_counter()))
    finally:
        torch.set_num_threads(threads)
    return float(np.median(np.diff(stamps)[1:])), sum(p.numel() for p in model.parameters())


def _summary(predicted: dict[str, dict[int, list[ndarray]]], observed: Float[ndarray, " N"], fold: ndarray,
             group: ndarray, *, seed: int) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Figures of one target: a row a model, and a table of single fits."""
    known = {k: np.isfinite(observed[fold == k]) for k in np.unique(fold)}
    truth = {k: observed[fold == k][known[k]] for k in known}
    weights = {k: _resampled(group[fold == k][known[k]], _DRAWS, seed + int(k)) for k in known}
    table, draws, ensembles = [], {}, {}
    for model, by_fold in predicted.items():
        single, together = [], []
        for k, runs in sorted(by_fold.items()):
            runs = [r[known[k]] for r in runs]
            for i, run in enumerate(runs):
                table.append({"model": model, "fold": int(k), "seed": i, "pearson": pearson(truth[k], run),
                              "spearman": spearman(truth[k], run), "mse": float(np.mean((truth[k] - run) ** 2))})
            single.append(np.mean([_weighted_r(truth[k], r, weights[k]) for r in runs], axis=0))
            together.append(_weighted_r(truth[k], np.mean(runs, axis=0), weights[k]))
        draws[model], ensembles[model] = np.mean(single, axis=0), np.mean(together, axis=0)
    frame = pd.DataFrame(table)
    mean = {m: float(np.mean([np.mean([pearson(truth[k], r[known[k]]) for r in runs]) for k, runs in by.items()]))
            for m, by in predicted.items()}
    baselines = [m for m in mean if m in CARDS]
    better = max(baselines, key=lambda m: mean[m]) if baselines else None
    rows = []
    for model in predicted:
        of = frame.loc[frame["model"] == model]
        row: dict[str, Any] = {"model": model, "n_fits": len(of), "pearson": mean[model],
                               "pearson_sd": float(of["pearson"].std(ddof=1)) if len(of) > 1 else np.nan,
                               "spearman": float(of["spearman"].mean()), "mse": float(of["mse"].mean()),
                               "ensemble": float(ensembles[model][0])}
        same = better is not None and model not in baselines and set(predicted[model]) == set(predicted[better])
        for key, drawn in (("gain", draws[model]), ("ensemble_gain", ensembles[model])):
            difference = drawn - draws[better] if same and better is not None else np.full(len(drawn), np.nan)
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
