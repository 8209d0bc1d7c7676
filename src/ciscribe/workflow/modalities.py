"""What the predictions of a run are made of: its modalities shared out, and the signals and DNA of its elements erased.

A part of the explanation of a run (`ciscribe.workflow.explain`): it writes into ``<run>/explain`` and its page, and a
model that was trained anew makes it void.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from ciscribe.errors import ConfigError, UnsupportedError
from ciscribe.interpret.modalities import SURROUNDINGS, erase_signal, input_groups, modality_shapley
from ciscribe.intervals import runs
from ciscribe.report.run import UNITS
from ciscribe.train.evaluate import model_inputs
from ciscribe.workflow.explain import Tell, begin, finish, remove, write_table
from ciscribe.workflow.run import Run
from ciscribe.workflow.subject import open_run

MOST_SIGNALS = 3
"""Tracks that are groups of their own where all groups together would be more than five; else they are one."""
_MEAN_OF = 1_000  # training genes


def split_modalities(folder: str | Path, *, genes: Sequence[str] = (), fold: str = "test", n: int = 50,
                     absent: str = "average", each: bool = False, n_places: int = 100, n_shuffles: int = 5,
                     seed: int = 0, tell: Tell = print, progress: bool = True) -> Path:
    """Share predictions among the modalities, and erase the signals and the DNA of called elements.

    Parameters
    ----------
    folder
        Of a trained run of genes.
    genes, fold, n
        Genes by id or name; else at most `n` of a fold (``train``, ``valid``, ``test``, ``all``), drawn at random.
    absent
        What absent signals become: ``average``, the mean profile of training genes, or ``zeros``.
    each
        Every track is a group of its own, also where there are more than five groups and values are sampled; else
        all signals are one group then.
    n_places
        Called elements of these genes whose counterfactuals are asked, those with the largest effects. Where none was
        called, the highest peak of the signals in each window.
    n_shuffles, seed
        Shuffles of the bases, and of what is drawn.

    Returns
    -------
    Path
        The folder ``explain`` of the run, with ``modalities.parquet`` and, of models that read signals,
        ``counterfactuals.parquet``.

    Raises
    ------
    DataMissingError, ConfigError
        When the folder holds no trained run, or a gene or fold is not in it.
    UnsupportedError
        When the model reads the sequence and nothing else.
    """
    job = open_run(folder, trained=True)
    if not isinstance(job, Run):
        raise UnsupportedError(f"{folder} is a run of a reporter assay, whose model reads the sequence and nothing "
                               "else; there is nothing to share out")
    store = job.store
    groups = signal_groups(store.track_names, store.covariate_names, each=each)
    if len(groups) < 2:
        raise UnsupportedError(f"the model of {folder} reads the sequence and nothing else; there is nothing to share "
                               "out")
    if absent not in ("average", "zeros"):
        raise ConfigError(f"absent signals become average or zeros; got {absent!r}")
    rows = _chosen(job, genes, fold, n, seed)
    out = begin(folder, tell)
    start = time.perf_counter()
    tell(f"modalities: {', '.join(groups)} of {len(rows):,} genes …")
    batch = store.batch(rows)
    given = model_inputs(batch)
    oracle = job.oracle()
    ids = store.genes["gene_id"].iloc[rows].astype(str).tolist()
    split = modality_shapley(
        oracle, batch.codes, given["S"], given["covariates"], given["keep"],
        tracks=store.track_names if given["S"] is not None else (), covariate_names=store.covariate_names,
        groups=groups, signals=_average(job, seed) if absent == "average" and given["S"] is not None else "zeros",
        n_shuffles=n_shuffles, batch_size=_size(job), seed=seed, progress=progress, regions=ids,
        targets=store.target_names)
    for group, values in split.assign(size=split["shapley"].abs()).groupby("group", sort=False):
        tell(f"  {group}: mean {values['shapley'].mean():+.3f}, mean size {values['size'].mean():.3f}")
    if SURROUNDINGS in groups:
        tell(f"  {SURROUNDINGS} are signals too: the coarse tracks around the window that the covariates hold")
    places, what = None, "elements"
    if given["S"] is not None:
        places = _elements(job, rows, n_places)
        if places is None:
            places, what = _peaks(job, rows, n_places), "peaks (no element was called of these genes)"
    remove(out, ("modalities",), tell, made="modalities")
    units = UNITS[job.config.data.expression.transform]
    write_table(out / "modalities.parquet", split.assign(units=units))
    used = ["modality_shapley"]
    if places is not None and len(places) and given["S"] is not None:
        signals = [i for i, name in enumerate(store.track_names) if name != "contact"]
        found = erase_signal(oracle, batch.codes, given["S"], given["covariates"], given["keep"], places=places,
                             resolution=store.spec.resolution, tracks=signals, n_shuffles=n_shuffles,
                             batch_size=_size(job), seed=seed, progress=progress, targets=store.target_names)
        write_table(out / "counterfactuals.parquet", found.assign(units=units))
        used.append("signal_counterfactual")
        tell(f"  {len(places):,} {what}: mean effect of the signal alone {found['signal_effect'].mean():+.3f}, of "
             f"the DNA alone {found['dna_effect'].mean():+.3f}, of both {found['both_effect'].mean():+.3f}")
    else:
        tell("  no counterfactuals: the model reads no signals, or they are 0 around these genes")
    tell(f"  {time.perf_counter() - start:.0f} s")
    finish(out, folder, "modalities", seed, used, n=len(rows), fold=fold, absent=absent, groups=groups)
    return out


def signal_groups(tracks: Sequence[str], covariates: Sequence[str], *, each: bool = False) -> dict[str, list[str]]:
    """Groups of inputs: each track its own where all groups are five or fewer (or `each`), else all signals one."""
    groups = input_groups(tracks, covariates)
    own = [name for name in tracks if name in groups]
    if each or len(groups) <= MOST_SIGNALS + 2:
        return groups
    rest = {name: members for name, members in groups.items() if name not in own}
    return {"sequence": rest.pop("sequence"), "signals": own, **rest}


def _chosen(job: Run, genes: Sequence[str], fold: str, n: int, seed: int) -> ndarray:
    """Rows of the genes that are named, or drawn from a fold."""
    store = job.store
    if genes:
        ids, names = (store.genes[c].astype(str).tolist() for c in ("gene_id", "gene_name"))
        place = {name: i for i, name in enumerate(names)} | {name: i for i, name in enumerate(ids)}
        unknown = [g for g in genes if g not in place]
        if unknown:
            raise ConfigError(f"{len(unknown)} of {len(genes)} genes are not in this run of {len(ids):,}; first: "
                              f"{unknown[0]!r}; its first is {ids[0]!r}")
        return np.array([place[g] for g in dict.fromkeys(genes)])
    if fold not in ("train", "valid", "test", "all") or n < 1:
        raise ConfigError(f"fold is train, valid, test or all, and n at least 1; got {fold!r} and {n}")
    rows = np.arange(len(store)) if fold == "all" else store.rows(fold)
    return rows if len(rows) <= n else np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))


def _average(job: Run, seed: int) -> ndarray:
    """Mean profile of the signals of training genes."""
    train = job.store.rows("train")
    rows = np.random.default_rng(seed).permutation(train)[:_MEAN_OF]
    return job.store.read_signals(np.sort(rows)).mean(axis=0)


def _size(job: Run) -> int:
    return 64 if job.store.spec.length <= 65_536 else 4


def _elements(job: Run, rows: ndarray, most: int) -> pd.DataFrame | None:
    """Called elements of some genes as places in their windows, the largest effects first; None where none is known."""
    path = job.folder / "elements.parquet"
    if not path.exists():
        return None
    store = job.store
    table = pd.read_parquet(path)
    ids = store.genes["gene_id"].iloc[rows].astype(str).tolist()
    table = table.loc[table["gene_id"].astype(str).isin(ids)]
    if not len(table):
        return None
    table = table.assign(size=table["effect"].abs().fillna(0.0)).sort_values("size", ascending=False, kind="stable")
    table = table.drop_duplicates(["chrom", "start", "end", "gene_id"]).head(most)
    region = pd.Index(ids).get_indexer(pd.Index(table["gene_id"].astype(str)))
    starts, flip = store.starts(rows)
    left = np.maximum(table["start"].to_numpy() - starts[region], 0)
    right = np.minimum(table["end"].to_numpy() - starts[region], store.spec.length)
    back = flip[region]
    return pd.DataFrame({
        "region": region, "start": np.where(back, store.spec.length - right, left),
        "end": np.where(back, store.spec.length - left, right), "gene_id": table["gene_id"].to_numpy(),
        "place": [f"{c}:{a}-{b}" for c, a, b in zip(table["chrom"], table["start"], table["end"], strict=True)]})


def _peaks(job: Run, rows: ndarray, most: int) -> pd.DataFrame:
    """The highest peak of the signals in each window, to half its height, as places; the highest first."""
    store = job.store
    raw = store.read_signals(rows, raw=True)
    height = (raw / np.maximum(raw.mean(axis=(0, 2), keepdims=True), 1e-12)).max(axis=1)
    step, starts, flip = store.spec.resolution, *store.starts(rows)
    found = []
    for i in np.argsort(-height.max(axis=1), kind="stable")[:most]:
        top = int(height[i].argmax())
        if height[i, top] <= 0:
            continue
        first, last = next((a, b) for a, b in runs(height[i] >= height[i, top] / 2).tolist() if a <= top < b)
        start, end = first * step, last * step
        left = starts[i] + (store.spec.length - end if flip[i] else start)
        gene = store.genes.iloc[rows[i]]
        found.append((i, start, end, gene["gene_id"], f"{gene['chrom']}:{left}-{left + end - start}"))
    return pd.DataFrame(found, columns=pd.Index(["region", "start", "end", "gene_id", "place"]))
