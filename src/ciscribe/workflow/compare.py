"""Is one model really better than another? Models × chromosome folds × seeds on the data of one run.

The folder grows fit by fit, and the same call goes on where it was stopped:

============================ =========================================================================================
data/                        one window store for each way of reading the data (window, tracks)
fits/<model>/<fold>_<seed>/  predictions.npz of the held-out genes, curves.json, facts.json, and the model
fits.parquet                 one row a fit
summary.parquet              one row a model: figures with their spread, and the gain over the reference
differences.parquet          the paired test behind the gains, also across targets
deciles, calibration,
rate, truncation .parquet    curves
report.html                  all of it; provenance.json
============================ =========================================================================================
"""

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy import ndarray
from torch import nn

from ciscribe.config import (
    CompareConfig,
    ContenderConfig,
    HeldOutConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    parse_config,
    read_config,
    resolve_root,
    write_config,
)
from ciscribe.data.candidates import CandidateSpec, CandidateStore
from ciscribe.data.inputs import build_store, covariate_columns, input_paths, read_inputs, read_tracks
from ciscribe.data.split import FOLDS, apply_guard, assign_folds, chromosome_folds
from ciscribe.data.windows import WindowStore, gene_windows
from ciscribe.elements.peaks import call_peaks
from ciscribe.errors import CiscribeError, ConfigError, DataMissingError, nearest
from ciscribe.intervals import merge
from ciscribe.io.bed import read_intervals
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.provenance import atomic_folder, atomic_path, digest, provenance, write_json, write_text
from ciscribe.report.compare import write_compare_report
from ciscribe.sequence import one_hot_tensor
from ciscribe.train import baselines
from ciscribe.train.comparison import Fitted, by_decile, calibration, ensemble, paired_differences, spread
from ciscribe.train.evaluate import model_inputs, predict_rows, rate_curve, truncation_curve
from ciscribe.workflow.expression import baseline_predictions, fit_genes, model_arguments, new_model
from ciscribe.workflow.steps import file_state

ABLATIONS: dict[str, dict[str, Any]] = {
    "no generator": {"use_generator": False}, "no signal branch": {"use_signals": False}, "no KL": {"use_kl": False},
    "random mask": {"mask": "random"}, "peak mask": {"mask": "peaks"}, "unmasked": {"mask": "open"},
    "uncalibrated": {"calibrate": False}}
"""Name → arguments of `ciscribe.models.seq2exp.Seq2Exp`; an entry ``ablations: true`` is followed by one row each."""
_WIDTHS = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
_TIMED_STEPS = 3


@dataclass(frozen=True)
class Fit:
    """One training: which model, which fold held out, which seed."""

    model: str
    fold: str
    seed: int

    @property
    def folder(self) -> Path:
        """Under the folder of the comparison."""
        safe = {ord(c): "_" for c in "/:,+ "}
        return Path("fits") / self.model.translate(safe) / f"{self.fold.translate(safe)}_{self.seed}"


class Compare:
    """A comparison and its folder.

    Parameters
    ----------
    folder
        Where stores, fits and tables go.
    config
        Checked, with the configuration of the run in it and an absolute root.
    n_jobs
        Fits at a time, each on one thread in a process of its own; 1 runs them here, on all threads.
    folds
        Only these folds, by name; none is all.
    tell, progress
        Called with one line at a time; show bars.
    """

    def __init__(self, folder: str | Path, config: CompareConfig, *, n_jobs: int = 1, folds: tuple[str, ...] = (),
                 tell: Callable[[str], None] = print, progress: bool = False):
        if isinstance(config.run, str):
            raise ConfigError("the configuration of the run must be read first; use Compare.from_config")
        self.folder, self.config, self.n_jobs = Path(folder), config, n_jobs
        self.tell, self.progress, self.only = tell, progress, folds
        self.base = parse_config(config.run, "run")
        self._folds: dict[str, HeldOutConfig] | None = None
        self._check()
        write_text(self.folder / "config.yaml", write_config(config))

    @classmethod
    def from_config(cls, path: str | Path, folder: str | Path | None = None, **options: Any) -> "Compare":
        """Start or continue the comparison of a configuration file; its folder is ``runs/<name>`` unless named."""
        path = Path(path)
        config = read_config(path, CompareConfig)
        base, beside = config.run, path.parent.absolute()
        if isinstance(base, str):
            found = beside / base
            if not found.is_file():
                raise DataMissingError(f"{path} compares on the run {base}, but there is no {found}; name the YAML of "
                                       "a run, or the config.yaml of a run folder (for the demonstration: run "
                                       "ciscribe demo first)")
            base, beside = read_config(found).model_dump(mode="json"), found.parent
        checked = parse_config(base, f"run of {path}")
        root = resolve_root(checked.data.root, beside).resolve()
        data = checked.data.model_copy(update={"root": str(root)})
        raw = checked.model_copy(update={"data": data}).model_dump(mode="json")
        config = config.model_copy(update={"run": raw, "models": _with_ablations(config.models)})
        return cls(folder or Path("runs") / config.name, config, **options)

    # ---- what is compared

    def _check(self) -> None:
        """Everything that can be wrong before a table is read."""
        c = self.config
        if self.n_jobs < 1:
            raise ConfigError(f"at least 1 fit runs at a time; got n_jobs={self.n_jobs}")
        if isinstance(c.folds, list) and len({f.name for f in c.folds}) < len(c.folds):
            raise ConfigError("folds are named by what they test, so each tests something else; got "
                              + ", ".join(f.name for f in c.folds))
        for label, entry in c.models.items():
            if entry.name in baselines.CARDS:
                if entry.arguments or entry.preset or entry.candidates or entry.train:
                    raise ConfigError(f"models.{label}: a baseline takes no arguments, preset, candidates or train")
            else:
                registry.preset_of(entry.name, entry.preset)
                self.plan(label)
            self.variant(label)
        if c.reference is not None and c.reference not in c.models:
            raise ConfigError(f"reference names no row of models; {nearest(c.reference, c.models)}")
        folders: dict[Path, str] = {}
        for label in c.models:
            if (other := folders.setdefault(Fit(label, "", 0).folder, label)) != label:
                raise ConfigError(f"models {other!r} and {label!r} would share a folder; rename one")

    def variant(self, label: str) -> RunConfig:
        """Configuration of the run as a model reads it: its window, its tracks."""
        entry, base = self.config.models[label], self.base
        window = base.window.model_dump() | self.config.window | entry.window
        raw = base.model_dump(mode="json") | {"window": window, "name": self.config.name}
        if entry.signals == "none":
            raw["data"] |= {"tracks": [], "contacts": None}
            raw["window"] |= {"context_half_width": 0, "contact": False}
        return parse_config(raw, f"models.{label}")

    def plan(self, label: str) -> TrainConfig:
        """Training plan of a model: that of the run, changed by the comparison, changed by the model."""
        merged = self.base.train.model_dump()
        for changes in (self.config.train, self.config.models[label].train):
            for key, value in changes.items():
                both = isinstance(value, dict) and isinstance(merged.get(key), dict)
                merged[key] = merged[key] | value if both else value
        if self.n_jobs > 1:
            merged["n_threads"] = 1
        return parse_config(self.base.model_dump(mode="json") | {"train": merged}, f"models.{label}").train

    def _variant_key(self, label: str) -> str:
        v = self.variant(label).model_dump(mode="json")
        data = {k: x for k, x in v["data"].items() if k not in ("root", "annotation", "truth")}
        tracks = self.config.models[label].signals
        files = [file_state(name, path) for name, path in input_paths(self.base).items() if name != "annotation"]
        return digest([data, v["window"], tracks, files])[:16]

    def folds(self) -> dict[str, HeldOutConfig]:
        """What each fold holds out, by name; needs the genes, so the stores must be there."""
        if self._folds is None:
            given = self.config.folds
            if isinstance(given, int):
                groups = chromosome_folds(self._any_store().genes, given)
                if given < 3:
                    raise ConfigError("one fold is tested, one chooses the epoch, the rest is trained on: folds is 3 "
                                      f"or more; got {given}")
                given = [HeldOutConfig(test=groups[i], valid=groups[(i + 1) % len(groups)]) for i in range(len(groups))]
            self._folds = {fold.name: fold for fold in given}
            for name in (*self.only, *(f for m in self.config.models.values() for f in m.folds or ())):
                if name not in self._folds:
                    raise ConfigError(f"no fold is called {name!r}; {nearest(name, self._folds)}")
        return self._folds

    def fits(self) -> Iterator[Fit]:
        """Every fit, in the order in which they are done: all models see a fold before the next fold."""
        for seed in range(self.config.seeds):
            for fold in self.folds():
                for label, entry in self.config.models.items():
                    n_seeds = 1 if entry.name in baselines.CARDS else entry.seeds or self.config.seeds
                    wanted = (not self.only or fold in self.only) and (entry.folds is None or fold in entry.folds)
                    if wanted and seed < n_seeds:
                        yield Fit(label, fold, self.config.seed + seed)

    def fingerprint(self, fit: Fit) -> str:
        """What a fit depends on: data as it reads them, what is held out, model, plan and seed."""
        entry, fold = self.config.models[fit.model], self.folds()[fit.fold]
        own = [self._variant_key(fit.model), fold.model_dump(), fit.seed, self.base.split.guard,
               entry.model_dump(mode="json", include={"name", "preset", "arguments", "candidates", "signals"}),
               self.config.fractions, self.config.widths]
        if entry.name not in baselines.CARDS:
            own.append(self.plan(fit.model).model_dump(
                mode="json", exclude={"device", "n_devices", "n_workers", "n_threads"}))
        return digest(own)

    def is_done(self, fit: Fit) -> bool:
        """Whether its files are there and still fit the configuration and inputs."""
        path = self.folder / fit.folder / "facts.json"
        return path.is_file() and json.loads(path.read_text())["fingerprint"] == self.fingerprint(fit)

    # ---- data

    def prepare(self) -> None:
        """Build the store of every way of reading the data, and check every model and fold against it."""
        for label in self.config.models:
            folder = self._store_folder(label)
            if not (folder / "meta.json").exists():
                entry, config = self.config.models[label], self.variant(label)
                inputs = read_inputs(config)
                tracks = inputs.tracks
                if isinstance(entry.signals, list):
                    known = {t.name: t for t in tracks}
                    for name in entry.signals:
                        if name not in known:
                            raise ConfigError(f"models.{label}.signals names no track {name!r}; {nearest(name, known)}")
                    inputs.tracks[:] = [known[name] for name in entry.signals]
                self.tell(f"data: {build_store(folder, config, inputs)}")
        genes = self._any_store().genes
        for name, fold in self.folds().items():
            counts = self._fold_of(genes, fold, self.base).value_counts()
            if missing := [f for f in FOLDS if f not in counts]:
                raise ConfigError(f"fold {name} leaves no gene to {missing[0]} on: " + ", ".join(
                    f"{n:,} {f}" for f, n in counts.items()) + "; choose other chromosomes or a smaller guard")
            self.tell(f"fold {name}: " + ", ".join(f"{counts.get(f, 0):,} {f}" for f in ("train", "valid", "test")))
        with torch.device("meta"):  # a model that cannot be built says so before the first hour, not after
            for label, entry in self.config.models.items():
                if entry.name not in baselines.CARDS:
                    try:
                        registry.create(entry.name, **self._arguments(label, self.examples(label)))
                    except (TypeError, ValueError, CiscribeError) as error:
                        raise ConfigError(f"models.{label} cannot be built: {error}") from error

    def _store_folder(self, label: str) -> Path:
        return self.folder / "data" / self._variant_key(label)

    def _any_store(self) -> WindowStore:
        return WindowStore(self._store_folder(next(iter(self.config.models))))

    def _fold_of(self, genes: pd.DataFrame, held: HeldOutConfig, config: RunConfig) -> pd.Series:
        fold = assign_folds(genes, valid=held.valid, test=held.test, train=held.train)
        reach = max(config.window.half_width, config.window.context_half_width)
        guard = config.split.guard
        guard = guard + config.train.max_shift if guard >= 0 else guard
        return apply_guard(gene_windows(genes, reach, config.window.strand_aware), fold, guard)

    def examples(self, label: str, fold: str | None = None) -> WindowStore | CandidateStore:
        """Genes as a model reads them, under a fold (or that of the run)."""
        entry, store = self.config.models[label], WindowStore(self._store_folder(label))
        if fold is not None:
            store = store.refold(self._fold_of(store.genes, self.folds()[fold], self.variant(label)).to_numpy())
        if entry.candidates is None:
            return store
        given = entry.candidates
        if given.path is not None:
            elements = read_intervals(Path(self.base.data.root) / given.path, given.columns)
        else:
            sizes = dict(zip(store.meta["chroms"], store.meta["sizes"], strict=True))
            tracks = read_tracks(self.base)
            if not tracks:
                raise ConfigError(f"models.{label}.candidates needs a path: the run has no tracks to call peaks on")
            called = pd.concat([call_peaks(t, sizes, method="local") for t in tracks], ignore_index=True)
            elements = merge(pd.DataFrame(called[["chrom", "start", "end"]]))
            if not len(elements):
                raise ConfigError(f"models.{label}.candidates: no peak was called on the {len(tracks)} tracks of the "
                                  "run; give a table of elements, candidates.path")
        return CandidateStore(store, elements, CandidateSpec(**given.model_dump(exclude={"path", "columns"})))

    def _arguments(self, label: str, store: WindowStore | CandidateStore) -> dict[str, Any]:
        entry = self.config.models[label]
        model = ModelConfig(name=entry.name, preset=entry.preset, arguments=entry.arguments)
        takes = "resolution" in registry.arguments(entry.name)
        arguments = model_arguments(store, model, resolution=store.spec.resolution if takes else None)
        return arguments | ({"length": store.candidates.length} if isinstance(store, CandidateStore) else {})

    # ---- doing it

    def estimate(self) -> pd.DataFrame:
        """Fits that are left, how long they take and how much memory: the dry run.

        Returns
        -------
        DataFrame
            ``model, fits, parameters, seconds_a_fit, memory_gb, minutes``: a few training steps are timed, all epochs
            are counted, no early stop; validation and curves are counted as forward passes. Memory is what one fit
            holds: weights, gradients, optimizer, what a step keeps for its backward pass. Baselines are not timed.
        """
        left = pd.Series([f.model for f in self.fits() if not self.is_done(f)], dtype=object).value_counts()
        rows = []
        for label in self.config.models:
            if label not in left:
                continue
            n = int(left[label])
            if self.config.models[label].name in baselines.CARDS:
                rows.append({"model": label, "fits": n})
                continue
            rows.append({"model": label, "fits": n} | self._timed(label))
        columns = ["model", "fits", "parameters", "seconds_a_fit", "memory_gb"]
        table = pd.DataFrame(rows, columns=pd.Index(columns)).astype({"parameters": "Int64", "fits": "Int64"})
        seconds = table["fits"].astype(float) * table["seconds_a_fit"].astype(float)
        return table.assign(minutes=seconds / 60 / self.n_jobs)

    def _timed(self, label: str) -> dict[str, Any]:
        fold = next(iter(self.folds()))
        store, plan = self.examples(label, fold), self.plan(label)
        model = new_model(store, self.config.models[label].name, self._arguments(label, store), seed=0).train()
        batch = store.batch(store.rows("train")[:plan.batch_size])
        before, kept = torch.get_num_threads(), [0]
        torch.set_num_threads(plan.n_threads or before)
        try:
            seconds = [_step(model, batch, plan, kept) for _ in range(_TIMED_STEPS)]
        finally:
            torch.set_num_threads(before)
        n_train, n_valid, n_test = (len(store.rows(f)) for f in ("train", "valid", "test"))
        curves = len(self.config.fractions) + len(_WIDTHS)
        steps = plan.epochs * (n_train + n_valid / 3) + n_test * curves / 3
        n_parameters = sum(p.numel() for p in model.parameters())
        return {"parameters": n_parameters, "seconds_a_fit": min(seconds) * steps / plan.batch_size,
                "memory_gb": (kept[0] + 4 * n_parameters * (5 if plan.average else 4)) / 1e9}

    def run(self) -> pd.DataFrame:
        """Do every fit that is not done, then write and return the summary."""
        self.prepare()
        fits = list(self.fits())
        todo = [f for f in fits if not self.is_done(f)]
        self.tell(f"{len(fits) - len(todo):,} of {len(fits):,} fits done before")
        start = time.perf_counter()
        with closing(self._done(todo)) as done:
            for i, (fit, facts) in enumerate(done, 1):
                left = (time.perf_counter() - start) / i * (len(todo) - i)
                self.tell(f"{i}/{len(todo)} {fit.model}, {fit.fold}, seed {fit.seed}: validation r "
                          f"{facts['valid_pearson']:.3f}, {facts['seconds']:.0f} s; about {left / 60:.0f} min left")
        return self.summarize()

    def _done(self, todo: list[Fit]) -> Generator[tuple[Fit, dict[str, Any]], None, None]:
        """Do fits, and tell of each when it is finished."""
        if self.n_jobs == 1:
            for fit in todo:
                yield fit, self.do(fit)
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.n_jobs, context, torch.set_num_threads, (1,)) as pool:
            running = {pool.submit(_do, self.folder, self.config, self.n_jobs, fit): fit for fit in todo}
            try:
                for future in as_completed(running):
                    yield running[future], future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def do(self, fit: Fit) -> dict[str, Any]:
        """One fit, from its store to its files, which are there whole or not at all; gives its facts."""
        begin = time.perf_counter()
        entry, store = self.config.models[fit.model], self.examples(fit.model, fit.fold)
        valid, test = store.rows("valid"), store.rows("test")
        facts: dict[str, Any] = {"fingerprint": self.fingerprint(fit), "model": fit.model, "fold": fit.fold,
                                 "seed": fit.seed}
        curves: dict[str, Any] = {"rate": [], "truncation": []}
        model, arguments = None, {}
        checkpoints = self.folder / "checkpoints" / fit.folder.relative_to("fits")
        if isinstance(store, WindowStore) and entry.name in baselines.CARDS:
            threads = 1 if self.n_jobs > 1 else torch.get_num_threads()
            predicted = baseline_predictions(store, n_covariates=len(covariate_columns(self.variant(fit.model))),
                                             names=[entry.name], seed=fit.seed, n_jobs=threads)[entry.name]
            at_valid, at_test = predicted[valid], predicted[test]
        else:
            plan, arguments = self.plan(fit.model), self._arguments(fit.model, store)
            batch_size = max(plan.batch_size, 64 if store.spec.length <= 65_536 else 4)
            model = new_model(store, entry.name, arguments, seed=fit.seed)
            model, log = fit_genes(model, store, plan, batch_size=batch_size, seed=fit.seed, folder=checkpoints,
                                   identity=facts["fingerprint"], progress=self.progress and self.n_jobs == 1)
            oracle = Oracle(model, device=plan.device)
            at_valid, at_test = (predict_rows(oracle, store, rows, batch_size=batch_size) for rows in (valid, test))
            facts |= {"parameters": sum(p.numel() for p in model.parameters()), "epochs": len(log),
                      "train_seconds": round(time.perf_counter() - begin, 1)}
            if fit.seed == self.config.seed:
                curves = {"rate": rate_curve(oracle, store, test, self.config.fractions, batch_size=batch_size),
                          "truncation": truncation_curve(oracle, store, test, self._widths(store.spec.length),
                                                         batch_size=batch_size)}
        facts |= {"seconds": round(time.perf_counter() - begin, 1), "n_test": len(test),
                  "valid_pearson": float(spread(store.targets, [Fitted("", 0, valid, at_valid)])["pearson"].iloc[0])}
        with atomic_folder(self.folder / fit.folder) as temporary:
            np.savez_compressed(temporary / "predictions.npz", rows=test, predicted=at_test.astype(np.float32))
            write_json(temporary / "curves.json", curves)
            if model is not None:
                registry.save(temporary / "model", entry.name, model, arguments, tracks=store.track_names,
                              targets=store.target_names, covariates=store.covariate_names, seed=fit.seed)
            write_json(temporary / "facts.json", facts | {"provenance": provenance(seed=fit.seed)})
        shutil.rmtree(checkpoints, ignore_errors=True)
        return facts

    def _widths(self, length: int) -> list[int]:
        given = self.config.widths or [w for w in _WIDTHS if w < length]
        return sorted({*(w for w in given if w < length), length}, reverse=True)

    # ---- what came out

    def summarize(self) -> pd.DataFrame:
        """Write the tables and the report of all finished fits.

        Returns
        -------
        DataFrame
            One row a model, best first: ``n_fits, n_folds, n_seeds``; ``pearson, spearman, mse, mae, across_target``:
            means over targets, seeds, then folds; ``pearson_sd_folds``, the standard deviation over folds of the means
            of their seeds, and ``pearson_sd_seeds``, that over seeds, mean over folds; ``ensemble``, r of the mean of
            the seeds' predictions; ``gain`` of pearson over the reference on the same folds with the interval of the
            paired test and its ``p``; ``slope`` of observed on predicted; ``parameters``, ``seconds`` a fit.
        """
        done = [f for f in self.fits() if self.is_done(f)]
        if not done:
            raise ConfigError(f"no fit of {self.folder} is finished; run the comparison first")
        observed, targets = self._any_store().targets, self._any_store().target_names
        fits: dict[str, list[Fitted]] = {}
        facts, curves = [], {"rate": [], "truncation": []}
        for f in done:
            with np.load(self.folder / f.folder / "predictions.npz", allow_pickle=False) as file:
                fits.setdefault(f.model, []).append(Fitted(f.fold, f.seed, file["rows"], file["predicted"]))
            facts.append(json.loads((self.folder / f.folder / "facts.json").read_text()))
            for name, rows in json.loads((self.folder / f.folder / "curves.json").read_text()).items():
                curves[name] += [{"model": f.model, "fold": f.fold} | row for row in rows]
        each = {m: spread(observed, of) for m, of in fits.items()}
        reference = self.config.reference if self.config.reference in fits else self._best_baseline(each)
        common = [m for m in fits if {f.fold for f in fits[m]} & {f.fold for f in fits[reference]}]
        differences = paired_differences(observed, {m: fits[m] for m in common}, reference, seed=self.config.seed)
        figures = differences.loc[differences["figure"] == "pearson", ["model", "gain", "gain_low", "gain_high", "p"]]
        gains = {row.pop("model"): row for row in figures.to_dict("records")}
        rows = []
        for m, table in each.items():
            per_fold = table.groupby("fold", sort=False)
            mean = pd.DataFrame(per_fold[["pearson", "spearman", "mse", "mae", "across_target"]].mean())
            cal = calibration(observed, fits[m])
            own = [fact for fact in facts if fact["model"] == m]
            rows.append({
                "model": m, "method": self.config.models[m].name, "n_fits": len(table), "n_folds": len(mean),
                "n_seeds": int(per_fold["seed"].nunique().max()),
                **{name: float(mean[name].mean()) for name in mean.columns},
                "pearson_sd_folds": float(mean["pearson"].std()),
                "pearson_sd_seeds": float(per_fold["pearson"].std().mean()),
                "ensemble": float(spread(observed, ensemble(fits[m])).groupby("fold")["pearson"].mean().mean()),
                **gains.get(m, {}), "slope": float(cal["slope"].iloc[0]),
                "parameters": own[0].get("parameters", np.nan),
                "seconds": float(np.mean([fact["seconds"] for fact in own]))})
        summary = pd.DataFrame(rows).sort_values("pearson", ascending=False, ignore_index=True)
        summary = summary.astype({"parameters": "Int64"})
        summary.attrs["reference"] = reference
        tables = {
            "fits": pd.concat([t.assign(model=m) for m, t in each.items()], ignore_index=True).merge(
                pd.DataFrame(facts).drop(columns=["provenance", "fingerprint"]), on=["model", "fold", "seed"]),
            "differences": differences,
            "deciles": _of_all(by_decile, observed, fits), "calibration": _of_all(calibration, observed, fits),
            "rate": pd.DataFrame(curves["rate"], columns=pd.Index(["model", "fold", "fraction", "pearson"])),
            "truncation": pd.DataFrame(curves["truncation"],
                                       columns=pd.Index(["model", "fold", "window_bp", "pearson"]))}
        for name, table in {"summary": summary, **tables}.items():
            with atomic_path(self.folder / f"{name}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        write_json(self.folder / "provenance.json", provenance(seed=self.config.seed, reference=reference))
        cards = {entry.name: _card(entry) for label, entry in self.config.models.items() if label in fits}
        write_compare_report(self.folder / "report.html", self.config.name, summary, tables, reference=reference,
                             targets=targets, cards=list(cards.values()), provenance=provenance(seed=self.config.seed))
        return summary

    def _best_baseline(self, each: dict[str, pd.DataFrame]) -> str:
        """The baseline (or, without any, the model) with the highest mean correlation."""
        mean = {m: float(t.groupby("fold")["pearson"].mean().mean()) for m, t in each.items()}
        simple = {m: v for m, v in mean.items() if self.config.models[m].name in baselines.CARDS}
        return max(simple or mean, key=lambda m: (simple or mean)[m])


def shown(summary: pd.DataFrame) -> pd.DataFrame:
    """What a terminal shows of a summary: r with its spread over folds and seeds, across targets, and the gain."""
    def signed(row: pd.Series) -> str:
        known = bool(np.isfinite(row["gain"])) if "gain" in row else False
        return f"{row['gain']:+.3f} [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]" if known else "–"

    def spread_of(row: pd.Series) -> str:
        parts = [f"{v:.3f}" for v in (row["pearson_sd_folds"], row["pearson_sd_seeds"]) if np.isfinite(v)]
        return " / ".join(parts) or "–"

    gain = f"gain over {summary.attrs['reference']}, 95 %"
    return pd.DataFrame({"model": summary["model"], "fits": summary["n_fits"], "r": summary["pearson"],
                         "± folds / seeds": summary.apply(spread_of, axis=1), "across": summary["across_target"],
                         "ensemble": summary["ensemble"], gain: summary.apply(signed, axis=1),
                         "s a fit": summary["seconds"].round().astype(int)})


def _with_ablations(models: dict[str, ContenderConfig]) -> dict[str, ContenderConfig]:
    """Rows as they are named, each that asks for ablations followed by them."""
    found: dict[str, ContenderConfig] = {}
    for label, entry in models.items():
        found[label] = entry.model_copy(update={"ablations": False})
        if entry.ablations and entry.name != "seq2exp":
            raise ConfigError(f"models.{label}: ablations are those of seq2exp; got {entry.name}")
        for name, changes in ABLATIONS.items() if entry.ablations else ():
            found[f"{label}, {name}"] = found[label].model_copy(update={"arguments": entry.arguments | changes})
    return found


def _of_all(measure: Callable[..., pd.DataFrame], observed: ndarray, fits: dict[str, list[Fitted]]) -> pd.DataFrame:
    """A table of each model, one below the other."""
    return pd.concat([measure(observed, of).assign(model=m) for m, of in fits.items()], ignore_index=True)


def _card(entry: ContenderConfig) -> Any:
    return baselines.CARDS[entry.name] if entry.name in baselines.CARDS else registry.card(entry.name)


def _do(folder: Path, config: CompareConfig, n_jobs: int, fit: Fit) -> dict[str, Any]:
    """A fit in a process of its own."""
    return Compare(folder, config, n_jobs=n_jobs, tell=lambda line: None).do(fit)


def _step(model: nn.Module, batch: Any, plan: TrainConfig, kept: list[int]) -> float:
    """Seconds of one training step; the bytes that it keeps for its backward pass go to `kept`."""
    from_step: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        from_step[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    begin = time.perf_counter()
    bf16 = plan.precision == "bf16"
    inputs = {k: v for k, v in model_inputs(batch).items() if v is not None}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16, bf16):
        output = model(one_hot_tensor(batch.codes), **inputs)
        found = output if isinstance(output, torch.Tensor) else output["expression"]
    found.float().square().mean().backward()
    kept[0] = max(kept[0], sum(from_step.values()))
    return time.perf_counter() - begin
