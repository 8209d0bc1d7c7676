"""Explain a trained run: importance of bases, motifs, their rules, and whether to believe them.

Works on the folder of either kind of run (genes or a reporter assay) and writes into ``<run>/explain``; what the files
hold is in `ciscribe.report.explain_files`. Each part ends by writing the page anew from whatever is there, and the
report of the run has the same sections when it is written again.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
import yaml
from numpy import ndarray
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import ConfigError, DataMissingError, InputError, nearest
from ciscribe.interpret import arrangement, hits, modisco, motifs, robustness, surrogate, syntax
from ciscribe.interpret.cards import CARDS
from ciscribe.interpret.methods import ALIASES, attribute
from ciscribe.interpret.patterns import Pattern
from ciscribe.io.motifs import read_meme, write_meme
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.perturb import mutagenesis, tiles
from ciscribe.provenance import atomic_path, provenance, write_json
from ciscribe.report.explain import write_explain_report
from ciscribe.report.explain_files import read_explanation, write_patterns
from ciscribe.report.run import UNITS
from ciscribe.schema import Motif
from ciscribe.sequence import dinucleotide_shuffle
from ciscribe.train.evaluate import model_inputs
from ciscribe.workflow.reporter import FOLDS, ReporterRun
from ciscribe.workflow.run import Run

Tell = Callable[[str], None]
_LONG = 5_000  # bp from which a sequence is a genomic window: fewer are explained, and not every base is mutated


class Subject(NamedTuple):
    """What is explained: a model and sequences with their names."""

    oracle: Oracle
    codes: ndarray  # uint8 (B, L)
    S: Tensor | None
    covariates: Tensor | None
    regions: list[str]
    tracks: list[str]
    observed: ndarray  # (B, T)
    units: str  # of the predictions

    def take(self, rows: ndarray) -> "Subject":
        """Some of the sequences."""
        S, covariates = (None if v is None else v[rows] for v in (self.S, self.covariates))
        return self._replace(codes=self.codes[rows], S=S, covariates=covariates, observed=self.observed[rows],
                             regions=[self.regions[i] for i in rows])

    @property
    def inputs(self) -> tuple[Oracle, ndarray, Tensor | None, Tensor | None]:
        """The first four arguments of every analysis."""
        return self.oracle, self.codes, self.S, self.covariates


def subject(folder: str | Path, *, genes: Sequence[str] = (), fold: str = "all", n: int | None = None, seed: int = 0
            ) -> Subject:
    """Model and sequences of a run folder.

    Parameters
    ----------
    genes
        Genes (id or name) or sequences (name) to take; those of `fold` unless given.
    fold
        ``train``, ``valid``, ``test`` or ``all``.
    n
        Most sequences; more are thinned at random. None takes 1,000, or 60 of long windows.

    Raises
    ------
    DataMissingError, ConfigError
        When the folder holds no trained run, a name is not in it, or the fold is none of these.
    """
    folder = Path(folder)
    if fold not in ("all", *FOLDS):
        raise ConfigError(f"fold is one of all, {', '.join(FOLDS)}; got {fold!r}")
    config = folder / "config.yaml"
    if not config.is_file() or not (folder / "model" / "model.safetensors").is_file():
        raise DataMissingError(f"{folder} holds no trained run (config.yaml and model/); make one with: ciscribe run "
                               "CONFIG, or ciscribe reporter CONFIG")
    is_reporter = "assay" in yaml.safe_load(config.read_text())
    model, _ = registry.load(folder / "model")
    names, rows, length, units, read = (_reporter if is_reporter else _genes)(folder, fold)
    if genes:
        place = {name: i for i, known in reversed(list(enumerate(names))) for name in known}
        unknown = [g for g in genes if g not in place]
        if unknown:
            raise ConfigError(f"{len(unknown)} of {len(genes)} names are not in this run; first: {unknown[0]!r}; "
                              f"{nearest(unknown[0], list(place)[:20_000])[:300]}")
        rows = np.array([place[g] for g in genes])
    else:
        most = (60 if length > _LONG else 1_000) if n is None else n
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    codes, S, covariates, observed, tracks = read(rows)
    return Subject(Oracle(model), codes, S, covariates, [names[i][0] for i in rows], tracks, observed, units)


_Table = tuple[list[tuple[str, ...]], ndarray, int, str, Callable[[ndarray], tuple[Any, ...]]]
"""Names of every sequence, rows of the fold, length, units, and a reader of rows."""


def _reporter(folder: Path, fold: str) -> _Table:
    run = ReporterRun(folder)
    data = run.data
    rows = np.arange(len(data)) if fold == "all" else run.rows[fold]

    def read(rows: ndarray) -> tuple[Any, ...]:
        return data.codes[rows], None, None, data.targets[rows], list(data.target_names)

    log = run.config.assay.log
    units = "log-odds" if run.config.task == "classification" else f"{log}(activity)" if log else "activity"
    return [(str(name),) for name in data.table["name"]], rows, data.codes.shape[1], units, read


def _genes(folder: Path, fold: str) -> _Table:
    run = Run(folder)
    store = run.store
    rows = np.arange(len(store)) if fold == "all" else store.rows(fold)

    def read(rows: ndarray) -> tuple[Any, ...]:
        batch = store.batch(rows)
        given = model_inputs(batch)
        return batch.codes.numpy(), given["S"], given["covariates"], batch.targets.numpy(), list(store.target_names)

    names = list(zip(store.genes["gene_id"].astype(str), store.genes["gene_name"].astype(str), strict=True))
    return names, rows, store.spec.length, UNITS[run.config.data.expression.transform], read


# ---- the parts


def explain(folder: str | Path, *, method: str = "auto", genes: Sequence[str] = (), fold: str = "all",
            n: int | None = None, mutate: int = 3, seed: int = 0, tell: Tell = print, progress: bool = True) -> Path:
    """Importance of every base of a run's sequences, and mutagenesis and tiling deletion of the most telling.

    Parameters
    ----------
    folder
        A run folder.
    method
        See `ciscribe.interpret.methods.attribute`.
    genes, fold, n
        See `subject`.
    mutate
        How many sequences, those with the largest contributions, are mutated base by base and tile by tile.

    Returns
    -------
    Path
        The folder ``explain`` of the run.
    """
    of = subject(folder, genes=genes, fold=fold, n=n, seed=seed)
    out = Path(folder) / "explain"
    out.mkdir(exist_ok=True)
    start = time.perf_counter()
    tell(f"attributions: {len(of.codes):,} sequences of {of.codes.shape[1]:,} bp …")
    found = attribute(*of.inputs, method=method, seed=seed, progress=progress, regions=of.regions)
    found = found.assign_coords(track=of.tracks)
    predicted = _predict(of)
    _write_maps(out / "attributions.npz", "hypothetical", found, of, predicted=predicted, observed=of.observed)
    error = found.attrs.get("completeness_error")
    tell(f"  {found.attrs['method']}, {time.perf_counter() - start:.0f} s"
         + ("" if error is None else f"; contributions add up within {error:.1e} of the scale of the output"))
    most = np.argsort(-np.abs(_there(found, of.codes)).sum(axis=(1, 2)), kind="stable")[:mutate]
    if len(most):
        some = of.take(most)
        if of.codes.shape[1] <= _LONG:
            effects = mutagenesis.saturation_mutagenesis(*some.inputs, regions=some.regions).assign_coords(
                track=of.tracks)
            _write_maps(out / "ism.npz", "effects", effects, some)
        width = 10 if of.codes.shape[1] <= _LONG else 200
        windows = tiles.tile_deletion(*some.inputs, width=width, stride=width // 2, seed=seed).windows
        _write_table(out / "tiles.parquet", windows.assign(region=most[windows["region"].to_numpy(int)]))
    _finish(out, folder, "explain", seed, method=found.attrs["method"], n=len(of.codes), fold=fold)
    return out


def find_motifs(folder: str | Path, *, database: Sequence[str | Path] = (), engine: str | None = None,
                track: str | None = None, max_seqlets: int | None = None, min_seqlets: int = 20, seed: int = 0,
                tell: Tell = print, progress: bool = True) -> Path:
    """Motifs of a run's attributions: patterns, what they resemble, and where they stand.

    Parameters
    ----------
    database
        MEME files of known motifs; those that the configuration names unless given.
    engine
        ``modisco`` (extra `motifs`) or ``clusters``; the first where it is installed.
    track
        Name of the target that is explained; the first unless given.
    max_seqlets, min_seqlets
        See `ciscribe.interpret.modisco.discover_motifs`.
    """
    out, found, codes = _attributions(folder, seed, tell, progress)
    known = _database(folder, database)
    at = _track(found, track)
    start = time.perf_counter()
    patterns = modisco.discover_motifs(codes, found, track=at, engine=engine or modisco.default_engine(),
                                       max_seqlets=max_seqlets, min_seqlets=min_seqlets, seed=seed)
    tell(f"motifs: {len(patterns)} patterns, {time.perf_counter() - start:.0f} s")
    write_patterns(out, patterns)
    if patterns:
        write_meme(out / "patterns.meme", [p.motif for p in patterns])
    (out / "matches.parquet").unlink(missing_ok=True)
    if known and patterns:
        matches = motifs.match_motifs(patterns, known)
        _write_table(out / "matches.parquet", matches)
        for p in patterns:
            best = matches.loc[matches["pattern"] == p.name].iloc[0]
            tell(f"  {p.name}: {motifs.consensus(motifs.trim_motif(p.motif))}, {len(p.seqlets):,} seqlets; "
                 f"{best['match']} (q {best['q_value']:.2g})")
    called = hits.call_hits(codes, found, patterns, track=at) if patterns else None
    if called is not None:
        _write_table(out / "hits.parquet", called)
        tell(f"  {len(called):,} instances")
    _finish(out, folder, "motifs", seed, track=str(found["track"].values[at]), patterns=len(patterns))
    return out


def find_syntax(folder: str | Path, *, words: Sequence[str] = (), n_motifs: int = 6, n_pairs: int = 4,
                max_gap: int = 60, n_backgrounds: int = 50, seed: int = 0, tell: Tell = print, progress: bool = True
                ) -> Path:
    """Rules between the motifs of a run: who works with whom, at which distance, where, and how far that goes.

    Parameters
    ----------
    words
        Motifs as sequences or IUPAC words, e.g. ``TTGACA TATAAT``; the commonest patterns unless given.
    n_motifs
        How many patterns are asked about.
    n_pairs
        Of how many pairs, those that interact most, the spacing is scanned.
    max_gap
        Largest distance between two motifs, in bp.
    n_backgrounds
        Shuffled sequences of the run into which motifs are written.
    """
    out = Path(folder) / "explain"
    of = subject(folder, n=max(n_backgrounds, 2), seed=seed)
    explained = read_explanation(out) if out.is_dir() else None
    asked: list[Motif | Pattern] = [motifs.word_motif(w) for w in words]
    if not asked:
        if explained is None or not explained.patterns:
            raise DataMissingError(f"{folder} has no motifs yet; find them with: ciscribe motifs {folder}, or name "
                                   "words: --words TTGACA --words TATAAT")
        asked = [*sorted(explained.patterns, key=lambda p: -len(p.seqlets))[:n_motifs]]
    out.mkdir(exist_ok=True)
    backgrounds = np.concatenate([dinucleotide_shuffle(row, 1, seed=seed + i) for i, row in enumerate(of.codes)])
    given: dict[str, Any] = {"S": of.S, "covariates": of.covariates, "seed": seed}
    widest = max(motif_width(m) for m in asked)
    gaps = range(min(max_gap, of.codes.shape[1] - 2 * widest - 2) + 1)
    start = time.perf_counter()
    matrix = syntax.interaction_matrix(of.oracle, asked, backgrounds, gaps=[g for g in (5, 10, 20) if g in gaps],
                                       **given)
    _write_table(out / "interactions.parquet", matrix)
    ranked = matrix.loc[matrix.groupby(["motif_a", "motif_b"])["mean"].transform(lambda v: v.abs().max())
                        == matrix["mean"].abs()]
    ranked = ranked.loc[(-ranked["mean"].abs()).sort_values(kind="stable").index]
    by_name = {m.name: m for m in asked}
    curves, seen = [], []
    for pair in ranked.drop_duplicates(["motif_a", "motif_b"]).head(n_pairs).to_dict("records"):
        a, b = pair["motif_a"], pair["motif_b"]
        curve = syntax.spacing_curve(of.oracle, by_name[a], by_name[b], backgrounds, list(gaps), **given)
        curves.append(curve.assign(motif_a=a, motif_b=b))
        best = curve.loc[curve["mean"].abs().idxmax()]
        tell(f"  {a} then {b}: {best['mean']:+.3f} at a gap of {best['gap']:.0f} bp "
             f"[{best['low']:+.3f}, {best['high']:+.3f}]")
        if explained is not None and explained.tables["hits"] is not None and not words:
            seen.append(arrangement.observed_spacing(explained.tables["hits"], a, b, max_gap=len(gaps),
                                                     length=of.codes.shape[1], seed=seed).assign(motif_a=a, motif_b=b))
    _write_table(out / "spacing.parquet", pd.concat(curves))
    (out / "observed.parquet").unlink(missing_ok=True)
    if seen:
        _write_table(out / "observed.parquet", pd.concat(seen))
    step = max(1, of.codes.shape[1] // 40)
    places = [syntax.position_curve(of.oracle, m, backgrounds, range(0, of.codes.shape[1] - motif_width(m) + 1, step),
                                    **given).assign(motif=m.name) for m in asked]
    _write_table(out / "position.parquet", pd.concat(places))
    if explained is not None and explained.tables["hits"] is not None and explained.maps is not None and not words:
        _surrogate(out, explained, seed, tell)
    tell(f"syntax: {len(asked)} motifs, {len(curves)} pairs, {time.perf_counter() - start:.0f} s")
    _finish(out, folder, "syntax", seed, motifs=[m.name for m in asked], n_backgrounds=len(backgrounds))
    return out


def compare_attributions(folder: str | Path, *, methods: Sequence[str] = ("deeplift", "integrated_gradients",
                         "gradient", "corrected_gradient", "ism"), others: Sequence[str | Path] = (),
                         fold: str = "test", n: int = 50, seed: int = 0, tell: Tell = print, progress: bool = True
                         ) -> tuple[pd.DataFrame, Path]:
    """Put attribution methods to the test on a run: does the model bear them out, and do they see its weights.

    Parameters
    ----------
    methods
        Names of `ciscribe.interpret.methods.METHODS`.
    others
        Folders of runs of the same model, such as other seeds: do their explanations agree?
    fold, n
        Sequences.

    Returns
    -------
    table, folder
        One row a method and track, best first (`ciscribe.interpret.robustness.compare_methods`), and where it is.
    """
    of = subject(folder, fold=fold, n=n, seed=seed)
    out = Path(folder) / "explain"
    out.mkdir(exist_ok=True)
    names = list(dict.fromkeys(ALIASES.get(m, m) for m in methods))
    maps: dict[str, xr.DataArray] = {}
    seconds: dict[str, float] = {}
    for name in names:
        start = time.perf_counter()
        maps[name] = attribute(*of.inputs, method=name, seed=seed, progress=progress).assign_coords(track=of.tracks)
        seconds[name] = time.perf_counter() - start
        tell(f"  {name}: {seconds[name]:.1f} s")
    oracle, codes, S, covariates = of.inputs
    curves = robustness.faithfulness(oracle, codes, maps, S, covariates, seed=seed).curves
    _write_table(out / "faithfulness.parquet", curves)
    table = robustness.compare_methods(oracle, codes, maps, S, covariates, seconds=seconds, seed=seed)
    _write_table(out / "methods.parquet", table)
    few = of.take(np.arange(min(10, len(codes))))
    checks = [robustness.randomization_check(
        few.oracle, few.codes, lambda o, X, s, c, name=name: attribute(o, X, s, c, method=name, seed=seed),
        few.S, few.covariates, max_stages=4, seed=seed).assign(method=name) for name in names if name != "ism"]
    if checks:
        _write_table(out / "randomization.parquet", pd.concat(checks))
    if others:
        same = {"this run": maps[names[0]]}
        for other in others:
            rival = subject(other, n=2, seed=seed).oracle
            same[Path(other).name] = attribute(rival, codes, S, covariates, method=names[0], seed=seed).assign_coords(
                track=of.tracks)
        _write_table(out / "consistency.parquet", robustness.consistency(same, codes, seed=seed))
    _finish(out, folder, "attribution benchmark", seed, methods=names, n=len(codes), fold=fold)
    return table, out


# ---- files


def motif_width(motif: Motif | Pattern) -> int:
    """Width in bp."""
    return (motif.motif if isinstance(motif, Pattern) else motif).ppm.shape[1]


def _predict(of: Subject) -> ndarray:
    oracle, codes, S, covariates = of.inputs
    return oracle.predict(torch.from_numpy(codes), S, covariates).numpy()


def _there(found: xr.DataArray, codes: ndarray) -> ndarray:
    """Contributions of the bases that are there, ``(B, L, T)``."""
    return np.where((codes[:, None] == np.arange(4)[:, None])[..., None], found.values, 0).sum(axis=1)


def _write_maps(path: Path, name: str, found: xr.DataArray, of: Subject, **more: ndarray) -> None:
    arrays: dict[str, Any] = {name: found.values.astype(np.float32), "codes": of.codes, "units": of.units,
                              "regions": np.array(of.regions), "tracks": np.array(of.tracks),
                              "method": found.attrs["method"]} | more
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def _attributions(folder: str | Path, seed: int, tell: Tell, progress: bool) -> tuple[Path, xr.DataArray, ndarray]:
    """Attributions of a run, made now where there are none."""
    out = Path(folder) / "explain"
    if not (out / "attributions.npz").exists():
        explain(folder, seed=seed, tell=tell, progress=progress)
    maps = read_explanation(out).maps
    if maps is None:
        raise DataMissingError(f"{out} holds no attributions; make them with: ciscribe explain {folder}")
    array = xr.DataArray(maps.values, dims=("region", "base", "position", "track"), coords={
        "region": maps.regions, "base": list("ACGT"), "position": np.arange(maps.codes.shape[1]),
        "track": maps.tracks}, attrs={"method": maps.method, "units": maps.units})
    return out, array, maps.codes


def _track(found: xr.DataArray, name: str | None) -> int:
    tracks = [str(t) for t in found["track"].values]
    if name is None:
        return 0
    if name not in tracks:
        raise ConfigError(f"this run has no target {name!r}; {nearest(name, tracks)}")
    return tracks.index(name)


def _database(folder: str | Path, paths: Sequence[str | Path]) -> list[Motif]:
    """Known motifs of MEME files, names made unique; those of the run's configuration unless named."""
    if not paths:
        config = yaml.safe_load((Path(folder) / "config.yaml").read_text())
        named = config.get("motifs") or []
        root = Path(config.get("root", "."))
        paths = [root / p for p in ([named] if isinstance(named, str) else named)]
    known: dict[str, Motif] = {}
    for path in paths:
        for motif in read_meme(path):
            if motif.name in known:
                raise InputError(f"two motif files hold the name {motif.name!r}: {known[motif.name].source} and "
                                 f"{motif.source}; give one of them")
            known[motif.name] = motif
    return list(known.values())


def _surrogate(out: Path, explained: Any, seed: int, tell: Tell) -> None:
    """How much of the predictions a grammar of the motif instances explains."""
    predicted = explained.maps.predicted
    called = explained.tables["hits"]
    if predicted is None or len(called) < 50 or len(predicted) < 50:
        return
    named = json.loads((out / "provenance.json").read_text()).get("motifs", {}).get("track")
    at = explained.maps.tracks.index(named) if named in explained.maps.tracks else 0
    fitted = surrogate.syntax_surrogate(called, predicted[:, at], seed=seed)
    write_json(out / "surrogate.json", {"r2": fitted.r2, "r2_additive": fitted.r2_additive,
                                        "track": explained.maps.tracks[at]})
    _write_table(out / "surrogate.parquet", fitted.coefficients)
    tell(f"  a grammar of motifs and pairs explains R² {fitted.r2:.2f} of the predictions "
         f"({fitted.r2_additive:.2f} without pairs)")


def _finish(out: Path, folder: str | Path, part: str, seed: int, **facts: Any) -> None:
    """Note what made the files, and write the page."""
    path = out / "provenance.json"
    state = json.loads(path.read_text()) if path.exists() else {}
    state |= {part: provenance(seed=seed, run=str(folder), **facts)}
    write_json(path, state)
    write_explain_report(out, title=f"{Path(folder).resolve().name}: explained", cards=_used(state))


def _used(state: dict[str, Any]) -> list[Card]:
    """Cards of the methods that made what is there."""
    names = {"explain": [state.get("explain", {}).get("method", ""), "ism", "tile_deletion"],
             "motifs": ["tf-modisco", "seqlet-clusters", "seqlets", "hit-caller", "tomtom"],
             "syntax": ["syntax", "syntax_surrogate"], "attribution benchmark": [c.name for c in CARDS]}
    used = {name for part in state for name in names.get(part, ())}
    return [card for card in CARDS if card.name in used]
