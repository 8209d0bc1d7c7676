"""Explain a trained run: importance of bases, motifs, their rules, and whether to believe them.

Works on the folder of either kind of run (genes or a reporter assay) and writes into ``<run>/explain``; what the files
hold is in `ciscribe.report.explain_files`. `find_motifs` builds on `explain`, `find_syntax` on `find_motifs`: a part
that is done again removes the files of those after it, which would no longer fit, and says so. A model that was trained
anew makes all of them void.

Each part ends by writing ``explain/report.html`` from whatever is there. The report of the run shows the same sections;
it is not written here, since that may need steps that were not done, but it counts as out of date: the next
``ciscribe run`` or ``ciscribe report`` writes it.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy import ndarray
from rich.progress import track as progress_bar

from ciscribe.errors import ConfigError, DataMissingError, SchemaError, UnsupportedError
from ciscribe.interpret import arrangement, hits, modisco, motifs, robustness, surrogate, syntax
from ciscribe.interpret.methods import attribute, method_name
from ciscribe.interpret.patterns import Pattern
from ciscribe.interpret.references import references
from ciscribe.io.motifs import read_meme, write_meme
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.perturb import mutagenesis, tiles
from ciscribe.provenance import atomic_path, checksum, provenance, write_json
from ciscribe.report.explain import write_explain_report
from ciscribe.report.explain_files import Explanation, read_explanation, write_patterns
from ciscribe.report.run import explanation_cards
from ciscribe.results import attribution_array, contributions
from ciscribe.schema import Motif
from ciscribe.sequence import from_one_hot, one_hot
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.subject import LONG, Subject, index_of, open_run, subject

Tell = Callable[[str], None]

FILES = {
    "explain": ("attributions.npz", "ism.npz", "tiles.parquet"),
    "motifs": ("patterns.npz", "patterns.parquet", "patterns.meme", "matches.parquet", "hits.parquet"),
    "syntax": ("interactions.parquet", "spacing.parquet", "observed.parquet", "position.parquet", "surrogate.json",
               "surrogate.parquet"),
    "attribution benchmark": ("faithfulness.parquet", "methods.parquet", "randomization.parquet",
                              "consistency.parquet"),
    "modalities": ("modalities.parquet", "counterfactuals.parquet"),
}
"""What each part writes."""
BENCHED = ("deeplift", "integrated_gradients", "gradient", "corrected_gradient", "ism")
"""What `compare_attributions` compares unless told; mutagenesis not of long windows."""


# ---- importance


def explain(folder: str | Path, *, method: str = "auto", genes: Sequence[str] = (), fold: str = "all",
            n: int | None = None, track: str | None = None, mutate: int = 3, seed: int = 0, tell: Tell = print,
            progress: bool = True) -> Path:
    """Importance of every base of a run's sequences, and mutagenesis and tiling deletion of the most telling.

    Parameters
    ----------
    folder
        A run folder.
    method
        See `ciscribe.interpret.methods.attribute`.
    genes, fold, n, track
        See `ciscribe.workflow.subject.subject`.
    mutate
        How many sequences, those with the largest contributions, are mutated base by base (up to 5 kb) and tile by
        tile (10 bp, or a fiftieth of the sequence).

    Returns
    -------
    Path
        The folder ``explain`` of the run.

    Raises
    ------
    UnknownNameError, UnsupportedError
        When there is no such method, or it has no answer for the model.
    DataMissingError, ConfigError, InputError
        See `ciscribe.workflow.subject.subject`.
    """
    method = method if method == "auto" else method_name(method)
    of = subject(folder, genes=genes, fold=fold, n=n, track=track, seed=seed)
    out = begin(folder, tell)
    start = time.perf_counter()
    tell(f"attributions: {len(of.codes):,} sequences of {of.length:,} bp …")
    found = _attribute(of, method, seed, progress)
    error = found.attrs.get("completeness_error")
    tell(f"  {found.attrs['method']}, {time.perf_counter() - start:.0f} s"
         + ("" if error is None else f"; contributions add up, relative error {error:.1e}"))
    size = np.abs(contributions(found, one_hot(of.codes)).values).sum(axis=(1, 2))
    if not size.any():
        tell("  all contributions are 0: the model does not respond to these sequences")
    most = np.argsort(-size, kind="stable")[:mutate]
    ism, windows = _change(of.take(most), seed, progress) if len(most) else (None, None)
    remove(out, ("explain", "motifs", "syntax"), tell, made="explain")
    observed = {} if of.observed is None else {"observed": of.observed}
    _write_maps(out / "attributions.npz", "hypothetical", found, of, predicted=_predict(of), **observed)
    if ism is not None:
        _write_maps(out / "ism.npz", "effects", ism, of.take(most))
    if windows is not None:
        write_table(out / "tiles.parquet", windows.assign(region=most[windows["region"].to_numpy(int)]))
    used = [found.attrs["method"], *(["ism"] if ism is not None else []), *(["tile_deletion"] if len(most) else [])]
    finish(out, folder, "explain", seed, used, n=len(of.codes), fold=fold)
    return out


def _attribute(of: Subject, method: str, seed: int, progress: bool = False) -> xr.DataArray:
    found = attribute(*of.inputs, method=method, batch_size=of.batch_size, seed=seed, progress=progress,
                      regions=of.regions)
    return found.assign_coords(track=of.tracks)


def _predict(of: Subject) -> ndarray:
    oracle, codes, S, covariates = of.inputs
    return oracle.predict(torch.from_numpy(codes), S, covariates, batch_size=of.batch_size).numpy()


def _change(of: Subject, seed: int, progress: bool) -> tuple[xr.DataArray | None, pd.DataFrame]:
    """Effects of all substitutions, unless of long windows, and of tiling deletion."""
    is_long = of.length > LONG
    ism = None if is_long else mutagenesis.saturation_mutagenesis(
        *of.inputs, batch_size=of.batch_size, progress=progress, regions=of.regions).assign_coords(track=of.tracks)
    width = min(max(10, 2 * (of.length // 100)), of.length)  # about a hundred windows at most
    windows = tiles.tile_deletion(*of.inputs, width=width, stride=(width + 1) // 2, n_fills=3 if is_long else 10,
                                  batch_size=of.batch_size, seed=seed, progress=progress).windows
    return ism, _with_names(windows, of)


# ---- motifs


def find_motifs(folder: str | Path, *, database: Sequence[str | Path] = (), engine: str | None = None,
                track: str | None = None, max_seqlets: int | None = None, min_seqlets: int = 20, seed: int = 0,
                tell: Tell = print, progress: bool = True) -> Path:
    """Motifs of a run's attributions: patterns, what they resemble, and where they stand.

    Attributions are made with the defaults of `explain` where there are none. Instances are named by their sequence
    (the gene, of genes): start and end count from its first base, in its direction.

    Parameters
    ----------
    database
        MEME files of known motifs; those that the configuration names unless given. Of motifs with one name in two
        files, each is named with its file.
    engine
        ``modisco`` (extra `motifs`) or ``clusters``; the first where it is installed.
    track
        Name of the target that is explained; the first unless given.
    max_seqlets, min_seqlets
        See `ciscribe.interpret.modisco.discover_motifs`.

    Returns
    -------
    Path
        The folder ``explain`` of the run.

    Raises
    ------
    SchemaError
        When all attributions are 0, or there are fewer than `min_seqlets` seqlets.
    DataMissingError, ConfigError, InputError, UnknownNameError
        See `ciscribe.workflow.subject.subject`, `ciscribe.io.motifs.read_meme` and `discover_motifs`.
    """
    known = _database(folder, database)
    out = begin(folder, tell)
    if not (out / "attributions.npz").exists():
        explain(folder, seed=seed, tell=tell, progress=progress)
    maps = read_explanation(out).maps
    if maps is None:
        raise DataMissingError(f"{out} lost its attributions; make them with: ciscribe explain {folder}")
    found = attribution_array(maps.values, maps.method, units=maps.units, regions=maps.regions, tracks=maps.tracks)
    at = index_of(maps.tracks, track)
    start = time.perf_counter()
    engine = engine or modisco.default_engine()
    patterns = modisco.discover_motifs(maps.codes, found, track=at, engine=engine, max_seqlets=max_seqlets,
                                       min_seqlets=min_seqlets, seed=seed)
    called = hits.call_hits(maps.codes, found, patterns, track=at) if patterns else None
    tell(f"motifs: {len(patterns)} patterns" + ("" if called is None else f", {len(called):,} instances")
         + f", {time.perf_counter() - start:.0f} s")
    remove(out, ("motifs", "syntax"), tell, made="motifs")
    write_patterns(out, patterns)
    used = ["seqlets", "tf-modisco" if engine == "modisco" else "seqlet-clusters"]
    if called is not None:
        write_meme(out / "patterns.meme", [p.motif for p in patterns])
        write_table(out / "hits.parquet", called)
        used += ["hit-caller", *(["tomtom"] if known else [])]
        _name_patterns(out, patterns, known, tell)
    finish(out, folder, "motifs", seed, used, track=maps.tracks[at], patterns=len(patterns))
    return out


def _database(folder: str | Path, paths: Sequence[str | Path]) -> list[Motif]:
    """Known motifs of MEME files; those of the run's configuration unless named."""
    job = open_run(folder)
    if not paths and isinstance(job, ReporterRun):
        named = job.config.motifs or []
        paths = [job.root / path for path in ([named] if isinstance(named, str) else named)]
    known = [motif for path in dict.fromkeys(map(Path, paths)) for motif in read_meme(path)]
    count = Counter(motif.name for motif in known)
    return [replace(m, name=f"{m.name} ({m.source})") if count[m.name] > 1 else m for m in known]


def _name_patterns(out: Path, patterns: Sequence[Pattern], known: Sequence[Motif], tell: Tell) -> None:
    """Match patterns with known motifs, where there are any, and say what was found."""
    matches = motifs.match_motifs(patterns, known) if known else None
    if matches is not None:
        write_table(out / "matches.parquet", matches)
    for p in patterns:
        text = f"  {p.name}: {motifs.consensus(motifs.trim_motif(p.motif))}, {len(p.seqlets):,} seqlets"
        if matches is not None:
            best = matches.loc[matches["pattern"] == p.name].iloc[0]
            text += f"; {best['match']} (q {best['q_value']:.2g})"
        tell(text)


# ---- rules


def find_syntax(folder: str | Path, *, words: Sequence[str] = (), n_motifs: int = 6, n_pairs: int = 4,
                max_gap: int = 60, n_backgrounds: int | None = None, seed: int = 0, tell: Tell = print,
                progress: bool = True) -> Path:
    """Rules between the motifs of a run: who works with whom, at which distance, where, and how far that goes.

    Motifs are written into shuffles of the run's sequences, which keep their N, signals and covariates. Curves of
    spacing are averages over five places, up to 8 bp to either side, of which long windows have one. How the motifs
    stand in the sequences themselves, and how much of the predictions they explain, is added where they are those of
    `find_motifs`.

    Parameters
    ----------
    words
        Motifs as sequences or IUPAC words, e.g. ``TTGACA TATAAT``; the commonest patterns unless given.
    n_motifs
        How many patterns are asked about; those that prefer no base are passed over.
    n_pairs
        Of how many pairs, those that interact most, the spacing is scanned.
    max_gap
        Largest distance between two motifs, in bp; less where they would not fit.
    n_backgrounds
        Shuffled sequences of the run into which motifs are written; 50 unless given, or 10 of windows of 5 kb or more.

    Returns
    -------
    Path
        The folder ``explain`` of the run.

    Raises
    ------
    DataMissingError
        When there are neither motifs nor words.
    ConfigError
        For letters that are not IUPAC, numbers out of range, and motifs that do not fit into the sequences.
    """
    if min(n_motifs, n_pairs) < 1 or max_gap < 0:
        raise ConfigError(f"need n_motifs >= 1, n_pairs >= 1 and max_gap >= 0; got {n_motifs}, {n_pairs} and {max_gap}")
    out = begin(folder, tell)
    known = read_explanation(out)
    asked = _asked(folder, words, known.patterns, n_motifs)
    of = subject(folder, n=n_backgrounds, usual=(50, 10), seed=seed)
    backgrounds = from_one_hot(references(of.codes, "shuffle", 1, seed)[:, 0].numpy())
    given: dict[str, Any] = {"S": of.S, "covariates": of.covariates, "seed": seed, "batch_size": of.batch_size}
    gaps, shifts = _layout(asked, of.length, max_gap)
    start = time.perf_counter()
    tell(f"syntax: {len(asked)} motifs in {len(backgrounds)} backgrounds …")
    matrix = syntax.interaction_matrix(of.oracle, asked, backgrounds, [g for g in (5, 10, 20) if g <= gaps[-1]] or [0],
                                       **given)
    order = np.argsort(-matrix["mean"].abs().to_numpy(), kind="stable")
    pairs = matrix.iloc[order].drop_duplicates(["motif_a", "motif_b"]).head(n_pairs)
    by_name, curves = {m.name: m for m in asked}, []
    for a, b in zip(pairs["motif_a"], pairs["motif_b"], strict=True):
        curve = syntax.spacing_curve(of.oracle, by_name[a], by_name[b], backgrounds, gaps, shifts=shifts, **given)
        curves.append(curve.assign(motif_a=a, motif_b=b))
        best = curve.loc[curve["mean"].abs().idxmax()]
        tell(f"  {a} then {b}: {best['mean']:+.3f} at a gap of {best['gap']:.0f} bp "
             f"[{best['low']:+.3f}, {best['high']:+.3f}]")
    step, places = max(1, of.length // 40), []
    for motif in progress_bar(asked, description="positions", disable=not progress):
        at = range(0, of.length - _width(motif) + 1, step)
        places.append(syntax.position_curve(of.oracle, motif, backgrounds, at, **given).assign(motif=motif.name))
    remove(out, ("syntax",), tell, made="syntax")
    for name, table in (("interactions", matrix), ("spacing", pd.concat(curves)), ("position", pd.concat(places))):
        write_table(out / f"{name}.parquet", _with_names(table, of))
    used = ["syntax"]
    if not words and known.tables["hits"] is not None:
        _observe(out, known.tables["hits"], pairs, of.length, gaps[-1], seed)
        used += _surrogate(out, known, [m.name for m in asked], seed, tell)
    tell(f"  {time.perf_counter() - start:.0f} s")
    finish(out, folder, "syntax", seed, used, motifs=[m.name for m in asked], n_backgrounds=len(backgrounds))
    return out


def _asked(folder: str | Path, words: Sequence[str], patterns: Sequence[Pattern] | None, n: int
           ) -> list[Motif] | list[Pattern]:
    """Motifs whose rules are looked for."""
    if words:
        return [motifs.word_motif(word) for word in dict.fromkeys(word.upper() for word in words)]
    found = [p for p in sorted(patterns or [], key=lambda p: -len(p.seqlets)) if _width(p)][:n]
    if not found:
        why = "no motifs yet; find them" if patterns is None else "no motifs that prefer a base; look for others"
        raise DataMissingError(f"{folder} has {why} with: ciscribe motifs {folder}, or name words: --words TTGACA "
                               "--words TATAAT")
    return found


def _width(motif: Motif | Pattern) -> int:
    """Bases that stand for a motif when it is written into a sequence; 0 for one that prefers none."""
    try:
        return len(syntax.motif_codes(motif))
    except SchemaError:
        return 0


def _layout(asked: Sequence[Motif | Pattern], length: int, max_gap: int) -> tuple[list[int], list[int]]:
    """Gaps that fit into sequences of a length, and by how much the pair may be moved to either side."""
    widest = max(map(_width, asked))
    room = length - 2 * widest
    if room < 0:
        raise ConfigError(f"two motifs of {widest} bp do not fit into sequences of {length} bp; ask about shorter "
                          "words")
    gaps = list(range(min(max_gap, room) + 1))
    reach = 0 if length > LONG else min(8, (room - gaps[-1]) // 2)
    return gaps, sorted({-reach, -(reach // 2), 0, reach // 2, reach})


def _observe(out: Path, called: pd.DataFrame, pairs: pd.DataFrame, length: int, max_gap: int, seed: int) -> None:
    """Distances at which the motifs of pairs stand in the sequences."""
    there = set(called["motif"])
    seen = [arrangement.observed_spacing(called, a, b, max_gap=max_gap, length=length, seed=seed).assign(
        motif_a=a, motif_b=b) for a, b in zip(pairs["motif_a"], pairs["motif_b"], strict=True) if {a, b} <= there]
    if seen:
        write_table(out / "observed.parquet", pd.concat(seen))


def _surrogate(out: Path, known: Explanation, names: Sequence[str], seed: int, tell: Tell) -> list[str]:
    """How much of the predictions a grammar of the motif instances explains; cards of what was used."""
    called, maps = known.tables["hits"], known.maps
    names = [] if called is None else sorted(set(names) & set(called["motif"]))
    if called is None or maps is None or maps.predicted is None or not names or len(maps.regions) < 50:
        tell("  no grammar of the instances: it takes 50 sequences and some instances")
        return []
    at = index_of(maps.tracks, _state(out).get("motifs", {}).get("track"))
    fitted = surrogate.syntax_surrogate(called, maps.predicted[:, at], motifs=names, seed=seed)
    write_json(out / "surrogate.json", {"r2": fitted.r2, "r2_additive": fitted.r2_additive, "track": maps.tracks[at]})
    write_table(out / "surrogate.parquet", fitted.coefficients)
    tell(f"  a grammar of motifs and pairs explains R² {fitted.r2:.2f} of the predictions "
         f"({fitted.r2_additive:.2f} without pairs)")
    return ["syntax_surrogate"]


# ---- can it be believed


def compare_attributions(folder: str | Path, *, methods: Sequence[str] = (), others: Sequence[str | Path] = (),
                         fold: str = "test", n: int | None = None, track: str | None = None, seed: int = 0,
                         tell: Tell = print, progress: bool = True) -> tuple[pd.DataFrame, Path]:
    """Put attribution methods to the test on a run: does the model bear them out, and do they see its weights.

    Parameters
    ----------
    methods
        Names of `ciscribe.interpret.methods.METHODS`; `BENCHED` unless given. Those that do not support the model are
        left out, and said so.
    others
        Folders of runs of the same model on the same data, such as other seeds: do their explanations agree? The first
        method is asked.
    fold, n, track
        See `ciscribe.workflow.subject.subject`; `n` is 50 unless given, or 10 of windows of 5 kb or more.

    Returns
    -------
    table, folder
        One row a method and track, best first (`ciscribe.interpret.robustness.compare_methods`), and where it is.

    Raises
    ------
    UnknownNameError, UnsupportedError
        When there is no such method, or none supports the model.
    ConfigError
        When another run has other inputs or targets; see also `subject`.
    """
    names = list(dict.fromkeys(map(method_name, methods or BENCHED)))
    for other in others:
        _check_alike(folder, other)
    of = subject(folder, fold=fold, n=n, track=track, usual=(50, 10), seed=seed)
    out = begin(folder, tell)
    if not methods and of.length > LONG:
        names.remove("ism")
    maps, seconds = _timed(of, names, seed, tell, progress)
    oracle, codes, S, covariates = of.inputs
    given: dict[str, Any] = {"S": S, "covariates": covariates, "seed": seed}
    asking = given | {"batch_size": of.batch_size, "progress": progress}
    measured = robustness.faithfulness(oracle, codes, maps, **asking)
    tables = {"faithfulness": measured.curves,
              "methods": robustness.compare_methods(oracle, codes, maps, measured=measured, seconds=seconds, **asking)}
    few = of.take(np.arange(min(10, len(codes))))
    checks = []
    for name in maps:
        if name != "ism":  # which cannot but see the weights, and takes longest
            again = lambda other, X, s, c, name=name: _attribute(few._replace(oracle=other), name, seed)  # noqa: E731
            checks.append(robustness.randomization_check(few.oracle, few.codes, again, few.S, few.covariates,
                                                         max_stages=4, seed=seed).assign(method=name))
    if checks:
        tables["randomization"] = pd.concat(checks)
    if others:
        first = next(iter(maps))
        same = {"this run": maps[first]} | {name: _attribute(of._replace(oracle=rival), first, seed)
                                            for name, rival in _rivals(others, oracle).items()}
        tables["consistency"] = robustness.consistency(same, codes, seed=seed)
    remove(out, ("attribution benchmark",), tell, made="attribution benchmark")
    for name, table in tables.items():
        write_table(out / f"{name}.parquet", table)
    finish(out, folder, "attribution benchmark", seed, [*maps, "insertion_deletion", *(
        ["weight_randomization"] if checks else []), *(["consistency"] if others else [])], n=len(codes), fold=fold)
    return tables["methods"], out


def _timed(of: Subject, names: Sequence[str], seed: int, tell: Tell, progress: bool
           ) -> tuple[dict[str, xr.DataArray], dict[str, float]]:
    """Attributions and seconds of the methods that support the model."""
    maps, seconds = {}, {}
    for name in names:
        start = time.perf_counter()
        try:
            maps[name] = _attribute(of, name, seed, progress)
        except UnsupportedError as error:
            tell(f"  {name} is left out: {error}")
            if name == names[-1] and not maps:
                raise
            continue
        seconds[name] = time.perf_counter() - start
        tell(f"  {name}: {seconds[name]:.1f} s")
    return maps, seconds


def _check_alike(folder: str | Path, other: str | Path) -> None:
    ours, theirs = (registry.describe(Path(f) / "model")[2] for f in (folder, other))
    for what in ("targets", "tracks", "covariates", "length", "window"):
        if ours.get(what) != theirs.get(what):
            raise ConfigError(f"explanations of models of the same data are compared; {other} has other {what} than "
                              f"{folder}: {theirs.get(what)} and {ours.get(what)}")


def _rivals(folders: Sequence[str | Path], oracle: Oracle) -> dict[str, Oracle]:
    """Models of other runs, asked in the same way; by the name of their folder, or its path where two are alike."""
    short = [Path(folder).resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return {name: Oracle(registry.load(Path(folder) / "model")[0], oracle.readout, device=oracle.device)
            for name, folder in zip(names, folders, strict=True)}


# ---- files


def begin(folder: str | Path, tell: Tell) -> Path:
    """Folder of the explanation of a run, without what explains a model that was trained anew since."""
    out = open_run(folder, trained=True).folder / "explain"
    made = _state(out).get("model")
    if made is not None and made != checksum(Path(folder) / "model" / "model.safetensors"):
        tell("  the model was trained anew")
        remove(out, tuple(FILES), tell)
    return out


def _state(out: Path) -> dict[str, Any]:
    path = out / "provenance.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def remove(out: Path, parts: Sequence[str], tell: Tell, made: str = "") -> None:
    """Remove the files of parts, and say which, but for the one that is `made` anew."""
    state = _state(out)
    gone = [part for part in parts if any((out / name).exists() for name in FILES[part])]
    for name in (name for part in gone for name in FILES[part]):
        (out / name).unlink(missing_ok=True)
    if any(part in state for part in parts):
        write_json(out / "provenance.json", {k: v for k, v in state.items() if k not in parts})
    if stale := [part for part in gone if part != made]:
        tell(f"  removed, as they no longer fit: {', '.join(stale)}")


def _with_names(table: pd.DataFrame, of: Subject) -> pd.DataFrame:
    """A table that counts tracks, with their names."""
    return table.assign(track=np.array(of.tracks, dtype=object)[table["track"].to_numpy(int)])


def _write_maps(path: Path, name: str, found: xr.DataArray, of: Subject, **more: ndarray) -> None:
    arrays: dict[str, Any] = {name: found.values.astype(np.float32), "codes": of.codes, "units": of.units,
                              "regions": np.array(of.regions), "tracks": np.array(of.tracks),
                              "method": found.attrs["method"]} | more
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table of an explanation, whole or not at all."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def finish(out: Path, folder: str | Path, part: str, seed: int, methods: Sequence[str], **facts: Any) -> None:
    """Note what made the files, write the page, and put the report of the run out of date."""
    model = checksum(Path(folder) / "model" / "model.safetensors")
    state = _state(out) | {"model": model, part: provenance(seed=seed, run=str(folder), methods=methods, **facts)}
    write_json(out / "provenance.json", state)
    write_explain_report(out, title=f"{Path(folder).resolve().name}: explained", cards=explanation_cards(state))
    steps = Path(folder) / "provenance.json"
    record = json.loads(steps.read_text()) if steps.is_file() else {"steps": {}}
    if record["steps"].pop("report", None) is not None:
        write_json(steps, record)
