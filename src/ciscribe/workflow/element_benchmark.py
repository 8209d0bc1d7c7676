"""Are the elements of a run real? Its scores held against all that is known, beside controls, rivals and other runs.

Every bin of the windows of held-out genes is scored in up to four ways: the mean mask, its log-odds averaged over the
64 bp to either side, the drop of the prediction when the mask is closed over the tile of 128 bp around it, and the drop
when its bases become N (drops in the target where they are largest). Each test runs where its input is there; what is
left out is said, in the report and in ``benchmark.json``.

=======================  ==============================================================================================
file                     holds
=======================  ==============================================================================================
benchmark.tsv, .parquet  ``truth, run, score, method, control, auprc_full, prevalence, fold, precision, recall …`` of
                         `ciscribe.elements.truth.benchmark_bins`
by_distance.parquet      the same within bands of distance from the TSS
curves.parquet           precision and recall along each ranking, with ``truth``
pairs.parquet            `ciscribe.elements.benchmark.benchmark_links` on annotated targets
composition.parquet      `ciscribe.elements.truth.composition` by ``annotation``
agreement.parquet        `ciscribe.elements.truth.agreement` of the runs, by ``score``
sufficiency_necessity    `ciscribe.elements.benchmark.sufficiency_necessity`, with ``run``
benchmark.json           inputs, what was skipped and why, cautions, seconds
report.html              all of it
=======================  ==============================================================================================
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from ciscribe.elements.benchmark import benchmark_links, sufficiency_necessity
from ciscribe.elements.bins import Bins, distance_scores, erasure_scores, of_another_gene, smoothed_mask
from ciscribe.elements.scan import KmerScan, fit_kmer_ridge
from ciscribe.elements.truth import (
    agreement,
    benchmark_bins,
    by_distance,
    composition,
    fold_intervals,
    pair_scores,
    specific_sites,
    target_pairs,
)
from ciscribe.errors import ConfigError, DataMissingError, InputError
from ciscribe.io.chroms import reconcile
from ciscribe.io.sites import gene_names, read_site_table, read_targets
from ciscribe.io.text import naming
from ciscribe.provenance import atomic_folder, checksum, provenance, write_json
from ciscribe.report.elements import write_element_report
from ciscribe.train.evaluate import model_inputs
from ciscribe.workflow.run import Run
from ciscribe.workflow.subject import open_run

Tell = Callable[[str], None]

EDGES = (0, 125, 250, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 10_000_000)
"""Borders of the bands of distance, bp."""
BUDGETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of a window in sufficiency and necessity."""
WORLD_KINDS = ("promoter", "enhancer", "decoy_open", "decoy_poised", "decoy_closed")
PROMOTER_BP = (-1_000, 250)
"""Where the 5-mers are counted that the rival's regression of expression is fitted on, bp from the TSS."""
CONTROLS = ("random", "shuffled", "distance", "another_gene_mask", "another_gene_mask_smoothed", "another_gene_erasure",
            "another_gene_erased_bases")
_CURVE_BP = 1_250_000  # of windows in necessity and sufficiency, which ask the model some hundred times
_TILE_BP = 128
_REACH_BP = 64  # to either side of a bin: a site is some 150 bp
_SITE_BINS = 30_000  # training examples of the supervised rival


class Scored(NamedTuple):
    """A run and what it says of each bin of the genes that are evaluated."""

    name: str
    run: Run
    rows: ndarray  # of its store
    scores: dict[str, ndarray]  # each (genes, bins)
    effects: ndarray | None  # (genes, bins, targets) by mask, else by bases


def benchmark_elements(folder: str | Path, others: Sequence[str | Path] = (), out: str | Path | None = None, *,
                       sites: str | Path | None = None, promoters: str | Path | None = None,
                       enhancers: str | Path | None = None, names: str | Path | None = None,
                       stage: str | None = None, against: str | None = None, target: str | None = None,
                       fold: str = "test", n: int | None = None, erase: bool = True, seed: int = 0,
                       tell: Tell = print, progress: bool = True) -> tuple[pd.DataFrame, Path]:
    """Test the elements of one run or several in all ways for which there is input.

    Parameters
    ----------
    folder, others
        Trained runs of genes with the same windows: other seeds, folds, less input. Controls are made from the first.
    out
        Where to; ``elements_benchmark`` in the first unless given.
    sites
        Accessible sites: BED, or a table that begins with chromosome, start and end; further columns of numbers are
        heights.
    promoters
        Annotated promoters, in the same formats.
    enhancers
        Elements that name their target genes in column 4; see `ciscribe.io.sites.read_targets`.
    names
        Table of ``gene_id`` and other names of the genes, for those targets.
    stage, against
        Two columns of heights in `sites`: also asks for the sites that are open in the first and not in the second.
    target
        Target of the model that goes with `stage`; that whose name is in it unless given.
    fold
        ``train``, ``valid``, ``test`` or ``all`` of the first run.
    n
        Most genes; more are thinned at random. All unless given.
    erase
        Also score by erasing tiles, which takes most of the time; False is the mask alone.
    seed
        Of ties, controls, and of which genes are taken.

    Returns
    -------
    table, folder
        ``benchmark.tsv`` and where it is.

    Raises
    ------
    DataMissingError, ConfigError, InputError, SchemaError
        When a folder holds no trained run of genes, runs have other windows or lack genes, or a file is not what it
        should be; the message names the file and the first offender.
    """
    start = time.perf_counter()
    runs = _open(folder, others)
    first = next(iter(runs.values()))
    out = Path(out) if out is not None else first.folder / "elements_benchmark"
    genes = _genes(first, fold, n, seed)
    bins = _bins(first, genes)
    given = {"sites": sites, "promoters": promoters, "enhancers": enhancers, "names": names}
    known = _read(first, bins, given, stage, against)
    if not known and first.config.data.truth is None:
        tell("no sites, promoters or enhancers: only what needs no truth is asked")
    skipped, cautions = [], []
    scored = [_score(name, run, genes, erase, tell, progress) for name, run in runs.items()]
    if not erase:
        skipped.append("effects of erasing: not asked for")
    for of in scored:
        seen = (of.run.store.genes["fold"].to_numpy(str)[of.rows] == "train").sum()
        if seen:
            cautions.append(f"{of.name} was trained on {seen:,} of these {len(genes):,} genes")
    methods, extra = _methods(scored, bins, known, seed, skipped, tell)
    tables = _against_truth(bins, methods, extra, scored, known, target, stage, seed, skipped, tell)
    tables |= _targets(bins, scored, known, seed, skipped)
    tables |= _composition(bins, first, methods, known, seed, skipped)
    tables |= _agreement(bins, scored, seed, skipped)
    tables |= _curves(scored, extra, bins, seed, skipped, tell)
    facts: dict[str, Any] = {
        "runs": {name: str(run.folder) for name, run in runs.items()}, "fold": fold, "genes": len(genes),
        "bp": int(bins.size.sum()), "skipped": skipped, "cautions": cautions,
        "inputs": {k: [str(v), checksum(v)] for k, v in given.items() if v is not None},
        "stage": stage, "against": against, "seconds": round(time.perf_counter() - start, 1)}
    with atomic_folder(out) as temporary:
        for name, table in tables.items():
            table.to_parquet(temporary / f"{name}.parquet", index=False)
        if "benchmark" in tables:
            tables["benchmark"].to_csv(temporary / "benchmark.tsv", sep="\t", index=False, float_format="%.6g")
        write_json(temporary / "benchmark.json", facts | {"provenance": provenance(seed=seed)})
        write_element_report(temporary / "report.html", tables, facts,
                             title=f"{next(iter(runs))}: are the elements real?")
    for line in skipped:
        tell(f"  left out: {line}")
    return tables.get("benchmark", pd.DataFrame()), out


# ---- runs, genes, files


def _open(folder: str | Path, others: Sequence[str | Path]) -> dict[str, Run]:
    """Runs by the name of their folder, or its path where two are called alike."""
    folders = [Path(f) for f in (folder, *others)]
    short = [f.resolve().name for f in folders]
    labels = short if len(set(short)) == len(short) else [str(f) for f in folders]
    if len(set(labels)) < len(labels):
        twice = next(name for name in labels if labels.count(name) > 1)
        raise ConfigError(f"each run is given once; {twice} came {labels.count(twice)} times")
    runs = {}
    for label, path in zip(labels, folders, strict=True):
        job = open_run(path, trained=True, tell=lambda line: None, progress=False)
        if not isinstance(job, Run):
            raise ConfigError(f"elements are those of runs of genes; {path} is a run of a reporter assay")
        runs[label] = job
    first = next(iter(runs.values())).store.spec
    for label, run in runs.items():
        spec = run.store.spec
        for what in ("half_width", "resolution", "strand_aware"):
            if getattr(spec, what) != getattr(first, what):
                raise ConfigError(f"runs are compared bin by bin, so their windows must be alike; window.{what} of "
                                  f"{label} is {getattr(spec, what)}, of {next(iter(runs))} {getattr(first, what)}")
    return runs


def _genes(run: Run, fold: str, n: int | None, seed: int) -> list[str]:
    if fold not in ("train", "valid", "test", "all"):
        raise ConfigError(f"fold is train, valid, test or all; got {fold!r}")
    if n is not None and n < 3:
        raise ConfigError(f"at least 3 genes are needed; got n={n}")
    store = run.store
    rows = np.arange(len(store)) if fold == "all" else store.rows(fold)
    if n is not None and n < len(rows):
        rows = np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))
    return store.genes["gene_id"].iloc[rows].astype(str).tolist()


def _rows(run: Run, label: str, genes: Sequence[str]) -> ndarray:
    rows = pd.Index(run.store.genes["gene_id"].astype(str)).get_indexer(pd.Index(genes))
    if (rows < 0).any():
        raise ConfigError(f"{int((rows < 0).sum()):,} of {len(genes):,} genes are not in the run {label}; first: "
                          f"{genes[int((rows < 0).argmax())]}; compare runs of the same genes")
    return rows


def _bins(run: Run, genes: Sequence[str]) -> Bins:
    store = run.store
    rows = _rows(run, "", genes)
    starts, flip = store.starts(rows)
    table = store.genes.iloc[rows]
    return Bins(starts, table["chrom"].tolist(), list(genes), table["tss"].to_numpy(), resolution=store.spec.resolution,
                n_bins=store.spec.n_bins, strands=np.where(flip, "-", "+").tolist(),
                chrom_sizes=dict(zip(store.meta["chroms"], store.meta["sizes"], strict=True)))


def _read(run: Run, bins: Bins, given: Mapping[str, str | Path | None], stage: str | None, against: str | None
          ) -> dict[str, Any]:
    """Tables of what is known, in the names of the run's genome."""
    if (stage is None) != (against is None) or (stage is not None and given["sites"] is None):
        raise ConfigError("sites of one condition that another lacks take three options: --sites with columns of "
                          "heights, --stage and --against")
    known: dict[str, Any] = {}
    for what in ("sites", "promoters"):
        if (path := given[what]) is not None:
            known[what] = _renamed(read_site_table(path), run, path)
    if stage is not None and against is not None:
        with naming(str(given["sites"])):
            known["specific"] = specific_sites(known["sites"], stage, against)
    if (path := given["enhancers"]) is not None:
        aliases = gene_names(run.store.genes, given["names"])
        known["targets"] = _renamed(read_targets(path, aliases), run, path)
    for what, table in known.items():
        if not bins.cover(table).any():
            path = given[{"specific": "sites", "targets": "enhancers"}.get(what, what)]
            row = table.iloc[0]
            raise InputError(f"{path}: none of the {len(table):,} intervals ({what}) lies in the windows of the "
                             f"{len(bins.gene_ids):,} genes; first: {row['chrom']}:{row['start']}-{row['end']}, the "
                             f"first window is {bins.chroms[0]}:{bins.starts[0]}; check genome build and fold")
    return known


def _renamed(table: pd.DataFrame, run: Run, path: str | Path) -> pd.DataFrame:
    attrs = table.attrs
    table = reconcile(table["chrom"].unique(), run.store.meta["chroms"], str(path)).rename(table).reset_index(drop=True)
    table.attrs |= attrs
    return table


# ---- scores


def _score(name: str, run: Run, genes: Sequence[str], erase: bool, tell: Tell, progress: bool) -> Scored:
    """The mask and the effects of erasing of a run."""
    begun = time.perf_counter()
    store, oracle, rows = run.store, run.oracle(), _rows(run, name, genes)
    if not (erase or oracle.has_mask):
        raise ConfigError(f"the model of {name} has no mask, so it is scored by erasing; leave out --no-erase")
    size = max(run.config.train.batch_size, 64 if store.spec.length <= 65_536 else 4)
    width = max(1, _TILE_BP // store.spec.resolution)
    mask, by_mask, by_bases = [], [], []
    for i in range(0, len(rows), 256):
        batch = store.batch(rows[i:i + 256])
        given = model_inputs(batch)
        inputs = (batch.codes, given["S"], given["covariates"], given["keep"])
        options: dict[str, Any] = {"resolution": store.spec.resolution, "width": width, "batch_size": size,
                                   "progress": progress}
        if oracle.has_mask:
            mask.append((oracle.posterior(batch.codes, given["S"], batch_size=size).mean * batch.keep).numpy())
        if erase and oracle.has_mask:
            by_mask.append(erasure_scores(oracle, *inputs, how="mask", **options))
        if erase:
            by_bases.append(erasure_scores(oracle, *inputs, how="sequence", **options))
    scores = {"erased_bases": np.concatenate(by_bases).max(axis=2)} if erase else {}
    effects = np.concatenate(by_mask or by_bases) if erase else None
    if effects is not None and by_mask:
        scores = {"erasure": effects.max(axis=2), **scores}
    if mask:
        mean = np.concatenate(mask)
        reach = round(_REACH_BP / store.spec.resolution)
        smooth = {"mask_smoothed": smoothed_mask(mean, reach)} if reach else {}
        scores = {"mask": mean, **smooth, **scores}
    tell(f"{name}: {', '.join(scores)} of {len(rows):,} genes, {time.perf_counter() - begun:.0f} s")
    return Scored(name, run, rows, {k: v.astype(np.float64) for k, v in scores.items()}, effects)


def _methods(scored: Sequence[Scored], bins: Bins, known: Mapping[str, Any], seed: int, skipped: list[str], tell: Tell
             ) -> tuple[dict[str, ndarray], dict[str, ndarray]]:
    """Scores of all pieces by ``run: score`` or the name of a control or rival; and of bins, of the latter."""
    first = scored[0]
    methods = {f"{of.name}: {kind}": bins.pool(values) for of in scored for kind, values in of.scores.items()}
    extra = {"distance": distance_scores(*bins.shape)}
    main = next(iter(first.scores.values()))
    shuffled = np.random.default_rng(seed).permutation(main.ravel()).reshape(main.shape)
    methods |= {"shuffled": bins.pool(shuffled), "distance": -bins.distance}
    for kind, values in first.scores.items():
        methods[f"another_gene_{kind}"] = bins.pool(of_another_gene(values, seed))
    methods["random"] = np.random.default_rng(seed + 1).random(len(bins))
    scan = expression_scan(first.run)
    extra["kmer_ridge"] = scan.scan(first.run.store.read_codes(first.rows), resolution=bins.resolution).mean(
        axis=2).astype(np.float64)
    methods["kmer_ridge"] = bins.pool(extra["kmer_ridge"])
    tell(f"kmer_ridge: penalty {scan.alpha:g}")
    tracked = next((of for of in scored if of.run.config.data.tracks), None)
    if "sites" in known:
        supervised = site_scan(first.run, known["sites"], seed)
        if supervised is None:
            skipped.append("kmer_ridge_supervised: no training gene has a site in its window")
        else:
            values = supervised.scan(first.run.store.read_codes(first.rows), resolution=bins.resolution)
            methods["kmer_ridge_supervised"] = bins.pool(values.mean(axis=2))
        heights = height_columns(known["sites"])
        if heights:
            methods["peak_height"] = bins.height(known["sites"], known["sites"][heights].max(axis=1).to_numpy(float))
    elif tracked is not None:
        extra["peak_height"] = track_height(tracked.run, tracked.rows)
        methods["peak_height"] = bins.pool(extra["peak_height"])
    if "peak_height" not in methods:
        skipped.append("peak height as a control: no run reads signals and the sites have no heights")
    return methods, extra


def expression_scan(run: Run) -> KmerScan:
    """The rival that has seen what a model of sequence has: promoters of the training genes and their expression."""
    store = run.store
    rows = store.rows("train")
    half = store.spec.half_width
    low, high = max(0, half + PROMOTER_BP[0]), min(2 * half, half + PROMOTER_BP[1])
    return fit_kmer_ridge(store.read_codes(rows)[:, low:high], store.targets[rows])


def site_scan(run: Run, sites: pd.DataFrame, seed: int, *, reach: int = 64) -> KmerScan | None:
    """The rival that was told: bins of training windows and how much of them the sites cover; None without any site."""
    store, rng = run.store, np.random.default_rng(seed)
    step, n_bins = store.spec.resolution, store.spec.n_bins
    train = store.rows("train")
    train = rng.choice(train, min(len(train), 2_000), replace=False)
    genes = store.genes["gene_id"].iloc[train].astype(str).tolist()
    bins = _bins(run, genes)
    label = np.zeros(bins.shape)
    row, gene, first, last = bins.pairs(sites)
    for g, a, b in zip(gene, first, last, strict=True):
        label[g, a:b] = 1
    if not len(row):
        return None
    edge = -(-reach // step)
    inner = np.arange(edge, n_bins - edge)
    if not len(inner):
        return None
    codes = store.read_codes(train)
    flat = rng.choice(len(train) * len(inner), min(_SITE_BINS, len(train) * len(inner)), replace=False)
    g, b = flat // len(inner), inner[flat % len(inner)]
    at = b[:, None] * step - reach + np.arange(step + 2 * reach)
    return fit_kmer_ridge(codes[g[:, None], at], label[g, b][:, None])


def height_columns(sites: pd.DataFrame) -> list[str]:
    """Columns of a table of sites that hold heights."""
    return [c for c in sites.columns if c not in ("start", "end") and pd.api.types.is_numeric_dtype(sites[c])
            and not pd.api.types.is_bool_dtype(sites[c])]


def track_height(run: Run, rows: ndarray) -> ndarray:
    """Highest of a run's signals on each bin, each over its mean."""
    raw = run.store.read_signals(rows, raw=True).astype(np.float64)
    return (raw / np.maximum(raw.mean(axis=(0, 2), keepdims=True), 1e-12)).max(axis=1)


# ---- tests


def _against_truth(bins: Bins, methods: Mapping[str, ndarray], extra: Mapping[str, ndarray], scored: Sequence[Scored],
                   known: Mapping[str, Any], target: str | None, stage: str | None, seed: int, skipped: list[str],
                   tell: Tell) -> dict[str, pd.DataFrame]:
    truths: dict[str, tuple[pd.DataFrame, dict[str, ndarray], ndarray | None]] = {}
    first = scored[0].run
    if first.config.data.truth is not None:
        links = pd.read_csv(_world_file(first, "links.tsv"), sep="\t")
        own = links.loc[links["gene_id"].isin(list(bins.gene_ids)) & (links["label"] == 1)]
        own = own.drop_duplicates(["chrom", "start", "end"])
        truths["true elements"] = own, dict(methods), None
        if bins.cover(distal := own.loc[own["kind"] != "promoter"]).any():
            truths["true enhancers"] = distal, dict(methods), None
    for name, key in (("accessible sites", "sites"), ("promoters", "promoters"), ("enhancers", "targets")):
        if key in known:
            # the height of a site is the truth itself
            use = {k: v for k, v in methods.items() if k != "peak_height" or key != "sites"}
            truths[name] = known[key], use, None
        elif first.config.data.truth is None:
            skipped.append(f"{name}: no file was given (--{'enhancers' if key == 'targets' else key})")
    if "specific" in known:
        special = _specific(bins, scored, methods, str(stage), target)
        open_ = bins.cover(known["sites"]) > 0
        truths[f"sites of {stage} only"] = known["specific"], special, None
        truths[f"sites of {stage} only, among all sites"] = known["specific"], special, open_
    elif first.config.data.truth is None:
        skipped.append("sites of one condition: needs --sites with heights, --stage and --against")
    tables, curves, bands = [], [], []
    for name, (truth, use, within) in truths.items():
        controls = [m for m in use if m in CONTROLS]
        found = benchmark_bins(bins, use, truth, within=within, controls=controls, seed=seed)
        table = found.table.assign(truth=name, prevalence=found.prevalence,
                                   fold=found.table["auprc_full"] / found.prevalence)
        sure = fold_intervals(bins, use, truth, within=within, versus="kmer_ridge", n=60, seed=seed)
        table = table.merge(sure, on="method")
        tables.append(_split(table))
        curves.append(found.curves.assign(truth=name))
        best = table.loc[~table["control"]].sort_values("fold").iloc[-1]
        tell(f"{name}: {found.prevalence:.1%} of the bases; best {best['method']}, {best['fold']:.2f} times chance")
        if within is None:
            bands.append(_split(by_distance(bins, use, truth, EDGES, controls=controls, seed=seed).assign(truth=name)))
    made = {"benchmark": tables, "curves": curves, "by_distance": bands}
    return {name: pd.concat(parts, ignore_index=True) for name, parts in made.items() if parts}


def _split(table: pd.DataFrame) -> pd.DataFrame:
    """Name of the run and of the score beside the method that they make."""
    parts = table["method"].astype(str).str.rsplit(": ", n=1)
    own = parts.str.len() == 2
    table = table.assign(run=parts.str[0].where(own, ""), score=parts.str[-1])
    first = ["truth", "run", "score"]
    return table.loc[:, [*first, *(c for c in table.columns if c not in first)]]


def _specific(bins: Bins, scored: Sequence[Scored], methods: Mapping[str, ndarray], stage: str, target: str | None
              ) -> dict[str, ndarray]:
    """Scores for sites of one condition: what erasing does to its own target, and by how much more than to others."""
    use = {k: v for k, v in methods.items() if k not in ("peak_height", "kmer_ridge_supervised")}
    for of in scored:
        names = list(of.run.store.target_names)
        own = target if target is not None else next((t for t in sorted(names, key=len, reverse=True)
                                                      if t.lower() in stage.lower()), None)
        if own not in names:
            raise ConfigError(f"the target that goes with {stage!r} is one of {', '.join(names)}; name it with "
                              "--target")
        if of.effects is None:
            continue
        at = names.index(own)
        effect = of.effects.astype(np.float64)
        use[f"{of.name}: effect on {own}"] = bins.pool(effect[..., at])
        if len(names) > 1:
            rest = np.delete(effect, at, axis=2).mean(axis=2)
            use[f"{of.name}: effect on {own}, over the others"] = bins.pool(effect[..., at] - rest)
    return use


def _targets(bins: Bins, scored: Sequence[Scored], known: Mapping[str, Any], seed: int, skipped: list[str]
             ) -> dict[str, pd.DataFrame]:
    """Element–gene pairs of annotated targets, or of the simulated world."""
    first = scored[0].run
    if first.config.data.truth is not None:
        links = pd.read_csv(_world_file(first, "links.tsv"), sep="\t")
        links = links.loc[links["gene_id"].isin(list(bins.gene_ids))]
        pairs = pd.DataFrame(links.groupby(["chrom", "start", "end", "gene_id"], as_index=False).agg(
            label=("label", "max"), distance=("distance", "first")))
        where = pd.DataFrame({"gene_id": bins.gene_ids, "left": bins.starts,
                              "right": bins.starts + bins.n_bins * bins.resolution})
        pairs = pairs.merge(where, on="gene_id")
        pairs = pairs.loc[(pairs["end"] > pairs["left"]) & (pairs["start"] < pairs["right"])].reset_index(drop=True)
    elif "targets" in known:
        pairs = target_pairs(bins, known["targets"])
    else:
        skipped.append("elements and their genes: no elements with targets were given (--enhancers)")
        return {}
    if not len(pairs) or pairs["label"].nunique() < 2:
        skipped.append(f"elements and their genes: {len(pairs):,} pairs in these windows, all of one label")
        return {}
    calls = pairs[["chrom", "start", "end", "gene_id"]]
    methods = {f"{of.name}: {kind}": calls.assign(score=pair_scores(bins, values, pairs))
               for of in scored for kind, values in of.scores.items()}
    methods["distance"] = calls.assign(score=-pairs["distance"].to_numpy(float))
    for kind, values in scored[0].scores.items():
        methods[f"another_gene_{kind}"] = calls.assign(score=pair_scores(bins, of_another_gene(values, seed), pairs))
    found = benchmark_links(methods, pairs, seed=seed)
    table = found.table.assign(prevalence=found.prevalence, fold=found.table["auprc_full"] / found.prevalence,
                               n_pairs=len(pairs), n_true=int(pairs["label"].sum()))
    table["control"] |= table["method"].isin(CONTROLS)
    return {"pairs": table}


def _composition(bins: Bins, first: Run, methods: Mapping[str, ndarray], known: Mapping[str, Any], seed: int,
                 skipped: list[str]) -> dict[str, pd.DataFrame]:
    """Kinds of elements in the best base pairs: as many as are true, or as the sites have."""
    if first.config.data.truth is not None:
        table = pd.read_csv(_world_file(first, "elements.tsv"), sep="\t")
        budget = int(bins.cover(table.loc[table["kind"].isin(["promoter", "enhancer"])]).sum())
        kinds: tuple[str, ...] = WORLD_KINDS
    else:
        parts = [known[key][["chrom", "start", "end"]].assign(kind=kind) for key, kind in
                 (("promoters", "promoter"), ("targets", "enhancer"), ("sites", "other site")) if key in known]
        if not parts:
            skipped.append("kinds of elements in the best base pairs: nothing known was given")
            return {}
        table = pd.concat(parts, ignore_index=True)
        kinds = tuple(dict.fromkeys(table["kind"]))
        budget = int(bins.cover(table).sum())
    return {"composition": composition(bins, methods, table, kinds, budget, seed=seed)}


def _agreement(bins: Bins, scored: Sequence[Scored], seed: int, skipped: list[str]) -> dict[str, pd.DataFrame]:
    """Jaccard of the runs, beside what distance from the TSS alone makes them share."""
    if len(scored) < 2:
        skipped.append("stability: give other runs (seeds, folds) beside the first")
        return {}
    parts = []
    for kind in scored[0].scores:
        with_it = {of.name: bins.pool(of.scores[kind]) for of in scored if kind in of.scores}
        if len(with_it) < 2:
            continue
        table = agreement(bins, with_it, seed=seed)
        # two runs whose scores were those of other genes, at the same distances
        others = {of.name: bins.pool(of_another_gene(of.scores[kind], seed + i)) for i, of in enumerate(scored)
                  if kind in of.scores}
        control = agreement(bins, others, seed=seed)
        parts.append(table.assign(score=kind, another_gene=control["jaccard"]))
    return {"agreement": pd.concat(parts, ignore_index=True)} if parts else {}


def _curves(scored: Sequence[Scored], extra: Mapping[str, ndarray], bins: Bins, seed: int, skipped: list[str],
            tell: Tell) -> dict[str, pd.DataFrame]:
    """Sufficiency and necessity of every run with a mask."""
    parts = []
    take = np.arange(len(bins.gene_ids))
    most = max(30, _CURVE_BP // (bins.n_bins * bins.resolution))
    if len(take) > most:
        take = np.sort(np.random.default_rng(seed).choice(take, most, replace=False))
    for of in scored:
        if "mask" not in of.scores:
            skipped.append(f"necessity and sufficiency of {of.name}: its model has no mask")
            continue
        batch = of.run.store.batch(of.rows[take])
        given = model_inputs(batch)
        rivals = {kind: values[take] for kind, values in of.scores.items() if kind not in ("mask", "erased_bases")}
        rivals["kmer_ridge"] = extra["kmer_ridge"][take]
        if of.run.config.data.tracks:
            rivals["peak_height"] = track_height(of.run, of.rows[take])
        table = sufficiency_necessity(of.run.oracle(), batch.codes, given["S"], given["covariates"],
                                      of.scores["mask"][take], BUDGETS, rivals=rivals, seed=seed)
        table["order"] = table["order"].replace({"model": "mask", "shuffled": "another_gene"})
        parts.append(table.assign(run=of.name, n_genes=len(take)))
        tell(f"{of.name}: necessity and sufficiency of {len(take):,} genes")
    return {"sufficiency_necessity": pd.concat(parts, ignore_index=True)} if parts else {}


def _world_file(run: Run, name: str) -> Path:
    path = Path(run.config.data.root) / str(run.config.data.truth) / name
    if not path.is_file():
        raise DataMissingError(f"data.truth of {run.folder} names a folder without {name}: {path}")
    return path

