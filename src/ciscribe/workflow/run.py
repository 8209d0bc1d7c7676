"""The main job, step by step: data, train, predict, evaluate, elements, report.

A run is a folder. Each step reads files of the steps before and writes its own, whole or not at all, and is
signed with a fingerprint of what it depends on: a second run does only what is missing or out of date, and a
training that was killed continues from its last checkpoint.
"""

from pathlib import Path
from typing import Any, ClassVar

import bioframe
import numpy as np
import pandas as pd
import torch

from ciscribe import elements
from ciscribe.card import Card
from ciscribe.config import RunConfig, read_config, resolve_root, write_config
from ciscribe.data.inputs import build_store, covariate_columns, input_paths, read_inputs, read_tracks
from ciscribe.data.windows import WindowStore
from ciscribe.design import CARDS as DESIGN
from ciscribe.elements.benchmark import benchmark_calls, benchmark_links, sufficiency_necessity
from ciscribe.elements.call import call_elements, measure_effects, pool_elements, to_bed
from ciscribe.elements.peaks import call_peaks
from ciscribe.errors import DataMissingError
from ciscribe.interpret.cards import CARDS as INTERPRETATION
from ciscribe.io.bed import write_bed
from ciscribe.links import CARDS as LINKS
from ciscribe.models import registry
from ciscribe.oracle import MaskPosterior, Oracle
from ciscribe.provenance import atomic_path, checksum, digest, write_json, write_text
from ciscribe.report.run import write_run_report
from ciscribe.schema import ELEMENT_COLUMNS
from ciscribe.train import baselines, gapped_kmers, sequence_baselines
from ciscribe.train.evaluate import model_inputs, predict_rows, prediction_table, truncation_curve
from ciscribe.train.metrics import evaluate
from ciscribe.variants import CARDS as VARIANTS
from ciscribe.workflow.expression import baseline_predictions, fit_genes, model_arguments, new_model
from ciscribe.workflow.steps import Job, file_state

_BENCHMARKS = ("benchmark.parquet", "benchmark_curves.parquet", "benchmark_links.parquet")
_MACHINE = ("device", "n_devices", "n_workers", "n_threads")  # a run may move to another machine
_CHECKSUM_BELOW = 2 * 2**30  # bytes; larger inputs are named by size and time only


class Run(Job):
    """One run folder and its steps.

    Parameters
    ----------
    folder
        The run folder; it must hold ``config.yaml`` unless `config` is given.
    config
        A checked configuration with an absolute ``data.root``; it is written to the folder.
    **options
        As in `ciscribe.workflow.steps.Job`.
    """

    STEPS = ("data", "train", "predict", "evaluate", "elements", "report")
    OUTPUTS: ClassVar = {
        "data": ("data/meta.json",), "train": ("model/model.safetensors", "log.csv"),
        "predict": ("predictions.parquet",), "evaluate": ("metrics.json",),
        "elements": ("elements.bed", "elements.parquet"), "report": ("report.html",)}

    def __init__(self, folder: str | Path, config: RunConfig | None = None, **options: Any):
        folder = Path(folder)
        if config is None:
            if not (folder / "config.yaml").is_file():
                raise DataMissingError(f"{folder} is not a run folder (no config.yaml); "
                                       "make one with: ciscribe run CONFIG, or ciscribe data build CONFIG")
            config = read_config(folder / "config.yaml")
        else:
            write_text(folder / "config.yaml", write_config(config))
        super().__init__(folder, seed=config.seed, **options)
        self.config = config
        self._store: WindowStore | None = None

    @classmethod
    def from_config(cls, path: str | Path, folder: str | Path | None = None, **options: Any) -> "Run":
        """Start or continue the run of a configuration file; its folder is ``runs/<name>`` unless named."""
        config = read_config(path)
        root = resolve_root(config.data.root, Path(path).parent.absolute())
        data = config.data.model_copy(update={"root": str(root.resolve())})
        config = config.model_copy(update={"data": data})
        return cls(folder or Path("runs") / config.name, config, **options)

    # ---- what is done and what is not

    def fingerprint(self, step: str) -> str:
        """What a step depends on, as a short digest: its configuration, its inputs and the steps before."""
        c = self.config.model_dump(mode="json")
        files = self._files()
        annotation = files.pop("annotation", None)
        if step == "data":
            data = {k: v for k, v in c["data"].items() if k not in ("root", "annotation", "truth")}
            return digest([data, c["window"], c["split"], c["train"]["max_shift"], files])
        plan = {k: v for k, v in c["train"].items() if k not in _MACHINE}
        depends = {"train": ("data", [c["seed"], c["model"], plan]), "predict": ("train", []),
                   "evaluate": ("predict", [c["data"]["truth"]]), "elements": ("evaluate", [c["elements"]]),
                   "report": ("elements", [c["report"], annotation])}
        before, own = depends[step]
        return digest([self.fingerprint(before), step, own])

    def _files(self) -> dict[str, list[Any]]:
        """Name, size and time of every input file."""
        return {name: file_state(name, path) for name, path in input_paths(self.config).items()}

    # ---- what the steps share

    @property
    def store(self) -> WindowStore:
        """The window store of this run."""
        if self._store is None:
            self._store = WindowStore(self.folder / "data")
        return self._store

    def oracle(self) -> Oracle:
        """The trained model of this run."""
        model, _ = registry.load(self.folder / "model", expect=self.config.model.name)
        return Oracle(model, device=self.config.train.device)

    def arguments(self) -> dict[str, Any]:
        """Model arguments: those of the configuration, and what the data decide."""
        return model_arguments(self.store, self.config.model, resolution=self.store.spec.resolution)

    @property
    def _batch_size(self) -> int:
        return max(self.config.train.batch_size, 64 if self.store.spec.length <= 65_536 else 4)

    # ---- the steps

    def _data(self) -> dict[str, Any]:
        inputs = read_inputs(self.config)
        for note in inputs.notes:
            self.tell("  " + note)
        self._store = None
        build_store(self.folder / "data", self.config, inputs)
        self.tell(f"  {self.store}")
        if missing := self.store.meta.get("contacts_missing"):
            self.tell(f"  contacts: {missing:.2%} of the bases are NaN, read as 0")
        return {"notes": inputs.notes, "inputs": {
            name: checksum(p) if p.stat().st_size < _CHECKSUM_BELOW else f"{p.name}, {p.stat().st_size} bytes"
            for name, p in input_paths(self.config).items()}}

    def _train(self) -> dict[str, Any]:
        c, store = self.config, self.store
        arguments = self.arguments()
        model = new_model(store, c.model.name, arguments, seed=c.seed)
        n = sum(p.numel() for p in model.parameters())
        self.tell(f"  {c.model.name}: {n:,} parameters, {len(store.rows('train')):,} training genes")
        model, log = fit_genes(model, store, c.train, batch_size=self._batch_size, seed=c.seed,
                               folder=self.folder / "checkpoints", identity=self.fingerprint("train"),
                               progress=self.progress, tell=lambda line: self.tell("  " + line))
        registry.save(self.folder / "model", c.model.name, model, arguments, tracks=store.track_names,
                      targets=store.target_names, covariates=store.covariate_names, window=store.meta["spec"],
                      seed=c.seed)
        with atomic_path(self.folder / "log.csv") as temporary:
            log.to_csv(temporary, index=False)
        return {"parameters": n, "epochs": len(log)}

    def _predict(self) -> None:
        store = self.store
        predicted = predict_rows(self.oracle(), store, np.arange(len(store)), batch_size=self._batch_size,
                                 progress=self.progress)
        with atomic_path(self.folder / "predictions.parquet") as temporary:
            prediction_table(store, {"predicted": predicted}).to_parquet(temporary, index=False)

    def _evaluate(self) -> None:
        c, store = self.config, self.store
        table = pd.read_parquet(self.folder / "predictions.parquet")
        n_targets = len(store.target_names)
        predicted = table["predicted"].to_numpy(np.float32).reshape(-1, n_targets)
        test = store.rows("test")
        rivals = baseline_predictions(store, n_covariates=len(covariate_columns(c)), seed=c.seed,
                                      n_jobs=c.train.n_threads or torch.get_num_threads())
        models = {c.model.name: predicted, **rivals}
        metrics: dict[str, Any] = {
            "split": {f: {"chroms": sorted(store.genes.loc[store.genes["fold"] == f, "chrom"].unique()),
                          "n_genes": len(store.rows(f))} for f in ("train", "valid", "test")},
            "targets": store.target_names, "main": c.model.name,
            "models": {name: evaluate(store.targets[test], values[test], store.target_names, seed=c.seed)
                       for name, values in models.items()},
            "noise_ceiling": self._ceiling(test),
            "truncation": truncation_curve(self.oracle(), store, test, batch_size=self._batch_size)}
        with atomic_path(self.folder / "predictions.parquet") as temporary:
            prediction_table(store, {"predicted": predicted, **rivals}).to_parquet(temporary, index=False)
        write_json(self.folder / "metrics.json", metrics)
        for line in metrics_lines(metrics):
            self.tell("  " + line)

    def _ceiling(self, test: np.ndarray) -> dict[str, Any] | None:
        """Correlation of noiseless and measured expression of the test genes, where the truth is known."""
        if self.config.data.truth is None:
            return None
        clean = pd.read_csv(self._truth("expression_clean.tsv"), sep="\t", index_col="gene_id")
        store = self.store
        clean_values = clean.loc[store.genes["gene_id"].iloc[test], store.target_names].to_numpy()
        r = {t: float(np.corrcoef(clean_values[:, i], store.targets[test, i])[0, 1])
             for i, t in enumerate(store.target_names)}
        return {"pearson": r, "mean": float(np.mean(list(r.values())))}

    def _truth(self, name: str) -> Path:
        path = Path(self.config.data.root) / str(self.config.data.truth) / name
        if not path.is_file():
            raise DataMissingError(f"data.truth names a folder without {name}: {path}")
        return path

    def _elements(self) -> dict[str, Any]:
        c, store, oracle = self.config, self.store, self.oracle()
        rows = np.concatenate([store.rows(f) for f in c.elements.folds])
        rows.sort()
        for name in ("sufficiency_necessity.parquet", "mask.npz", *_BENCHMARKS):
            (self.folder / name).unlink(missing_ok=True)
        if not oracle.has_mask:
            self.tell(f"  {c.model.name} has no mask, so it calls no elements; beacon and seq2exp do")
            empty = pd.DataFrame({name: [] for name in ELEMENT_COLUMNS})
            write_bed(self.folder / "elements.bed", pd.DataFrame({"chrom": [], "start": [], "end": []}, dtype=int))
            with atomic_path(self.folder / "elements.parquet") as temporary:
                empty.to_parquet(temporary, index=False)
            return {"elements": 0}
        posterior = self._posterior(oracle, rows)
        genes = store.genes.iloc[rows]
        starts, flip = store.starts(rows)
        strands = np.where(flip, "-", "+").tolist()
        sizes = dict(zip(store.meta["chroms"], store.meta["sizes"], strict=True))
        called = call_elements(posterior.mean.numpy(), posterior.sd.numpy(), starts, genes["chrom"].tolist(),
                               genes["gene_id"].tolist(), resolution=store.spec.resolution,
                               threshold=c.elements.threshold or 0.5,
                               max_bp_fraction=None if c.elements.threshold else c.elements.bp_fraction,
                               merge_bins=c.elements.merge_bins, trim=c.elements.trim, strands=strands,
                               chrom_sizes=sizes)
        batch = store.batch(rows)
        inputs = model_inputs(batch)
        measured = measure_effects(
            oracle, batch.codes, inputs["S"], inputs["covariates"], called, starts, gene_ids=genes["gene_id"].tolist(),
            resolution=store.spec.resolution, cells=store.target_names, strands=strands,
            max_per_gene=c.elements.max_per_gene, batch_size=self._batch_size, progress=self.progress)
        names = dict(zip(store.genes["gene_id"], store.genes["gene_name"], strict=True))
        measured["gene_name"] = [names[g] for g in measured["gene_id"]]
        n = len(called)
        share = (called["end"] - called["start"]).sum() / max(1, posterior.mean.numel() * store.spec.resolution)
        self.tell(f"  {n:,} elements of {len(rows):,} genes, {share:.1%} of the bases read")
        curves = sufficiency_necessity(oracle, batch.codes, inputs["S"], inputs["covariates"],
                                       posterior.mean.numpy(), seed=c.seed, batch_size=self._batch_size)
        self._benchmark(measured, rows)
        write_bed(self.folder / "elements.bed", to_bed(measured))
        for name, table in (("elements", measured), ("sufficiency_necessity", curves)):
            with atomic_path(self.folder / f"{name}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        with atomic_path(self.folder / "mask.npz") as temporary:
            np.savez_compressed(temporary, rows=rows, mean=posterior.mean.numpy().astype(np.float16),
                                sd=posterior.sd.numpy().astype(np.float16))
        return {"elements": n, "threshold": called.attrs["threshold"]}

    def _posterior(self, oracle: Oracle, rows: np.ndarray) -> MaskPosterior:
        parts = []
        for i in range(0, len(rows), self._batch_size):
            batch = self.store.batch(rows[i:i + self._batch_size])
            mean, sd = oracle.posterior(batch.codes, model_inputs(batch)["S"])
            parts.append(MaskPosterior(mean * batch.keep, sd * batch.keep))
        return MaskPosterior(*(torch.cat(p) for p in zip(*parts, strict=True)))

    def _benchmark(self, called: pd.DataFrame, rows: np.ndarray) -> None:
        """Compare the calls and the peaks of every track with the truth, where it is known."""
        if self.config.data.truth is None:
            return
        links = pd.read_csv(self._truth("links.tsv"), sep="\t")
        store = self.store
        universe = store.windows().iloc[rows]
        sizes = dict(zip(store.meta["chroms"], store.meta["sizes"], strict=True))
        universe = universe.assign(start=universe["start"].clip(lower=0),
                                   end=np.minimum(universe["end"], universe["chrom"].map(sizes)))
        links = links.loc[links["gene_id"].isin(universe["gene_id"])]
        true = links.loc[links["label"] == 1]
        main = self.config.model.name
        # the truth names what raises expression, so calls are ranked by how much they raise it, in their best cell
        raising = called.assign(score=called["effect"]).dropna(subset=["score"])
        methods = {main: pool_elements(raising, "score"), f"{main}_mask": pool_elements(called, "score")}
        chroms = {c: sizes[c] for c in universe["chrom"].unique()}
        for track in read_tracks(self.config):
            if self.config.elements.peak_tracks is None or track.name in self.config.elements.peak_tracks:
                peaks = call_peaks(track, chroms, method=self.config.elements.peak_method)
                methods[f"peaks_{track.name}"] = peaks
        peaks = [calls for name, calls in methods.items() if name.startswith("peaks_")]
        if peaks:
            methods["peaks_all"] = pd.concat(peaks, ignore_index=True)
        result = benchmark_calls(methods, true.drop_duplicates(["chrom", "start", "end"]), universe,
                                 control_of=main, seed=self.config.seed)
        pair = links.groupby(["chrom", "start", "end", "gene_id"], as_index=False)
        tested = pd.DataFrame(pair.agg(label=("label", "max"), distance=("distance", "first")))
        pairs = {main: raising}
        if peaks:
            near = pair_with_genes(methods["peaks_all"], universe, store.genes)
            pairs["peaks_all"] = near
            pairs["peaks_all_by_distance"] = near.assign(score=near["score"] / (1 + near["distance"] / 5000))
        link_result = benchmark_links(pairs, tested, control_of=main, seed=self.config.seed)
        for name, table in (("benchmark", result.table), ("benchmark_curves", result.curves),
                            ("benchmark_links", link_result.table)):
            with atomic_path(self.folder / f"{name}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        for row in result.table.to_dict("records"):
            self.tell(f"  {row['method']}: AUPRC {row['auprc']:.3f} at {row['budget_bp']:,} bp")

    def _report(self) -> None:
        write_run_report(self.folder, self.config, self.store)


def pair_with_genes(calls: pd.DataFrame, windows: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """Every call with every gene whose window it touches: ``chrom, start, end, score, gene_id, distance`` (bp)."""
    calls = calls.loc[:, ["chrom", "start", "end", "score"]].reset_index(drop=True)
    windows = windows.loc[:, ["chrom", "start", "end", "gene_id"]].reset_index(drop=True)
    both = bioframe.overlap(calls, windows, how="inner")
    pairs = both[["chrom", "start", "end", "score"]].assign(gene_id=both["gene_id_"])
    tss = pairs["gene_id"].map(genes.set_index("gene_id")["tss"])
    return pairs.assign(distance=((pairs["start"] + pairs["end"]) // 2 - tss).abs())


def metrics_lines(metrics: dict[str, Any]) -> list[str]:
    """The figures of an evaluation as lines of text, the model first."""
    lines = []
    ceiling = metrics["noise_ceiling"]
    for name, scores in metrics["models"].items():
        m = scores["mean"]
        across = scores["across_target"]
        line = (f"{name:>22}: r {m['pearson']['value']:.3f} [{m['pearson']['low']:.3f}, {m['pearson']['high']:.3f}], "
                f"MSE {m['mse']['value']:.4f}")
        lines.append(line + (f", across targets r {across['value']:.3f}" if across else ""))
    if ceiling:
        lines.append(f"{'noise ceiling':>22}: r {ceiling['mean']:.3f}")
    return lines


def catalog() -> list[Card]:
    """Cards of every registered method."""
    return [*(registry.card(n) for n in registry.names()), *baselines.CARDS.values(),
            *sequence_baselines.CARDS.values(), gapped_kmers.CARD, *elements.CARDS, *INTERPRETATION, *VARIANTS, *LINKS,
            *DESIGN]
