"""Folds by chromosome or region, and the guard that no test gene shares bases with a training gene."""

import re
from collections.abc import Mapping, Sequence

import bioframe
import numpy as np
import pandas as pd

from ciscribe.errors import ConfigError, InputError, nearest
from ciscribe.io.genes import FOLD_NAMES as FOLDS

_REGION = re.compile(r"^(?P<chrom>[^:]+):(?P<start>[\d,_]+)-(?P<end>[\d,_]+)$")


def assign_folds(genes: pd.DataFrame, *, valid: Sequence[str], test: Sequence[str],
                 train: Sequence[str] | None = None) -> pd.Series:
    """Fold of every gene from the chromosomes (``chrIV``) or regions (``chrIV:0-5,000,000``) named.

    A gene belongs to a region when its TSS lies in it. Genes named by no list are ``train`` when `train`
    is None, else ``unused``.

    Returns
    -------
    Series
        ``train``, ``valid``, ``test`` or ``unused``, index of `genes`.

    Raises
    ------
    ConfigError
        When a name matches no chromosome of the genes, a gene is claimed by two folds, or a fold is empty.
    """
    fold = pd.Series("train" if train is None else "unused", index=genes.index, name="fold", dtype=object)
    claimed = np.zeros(len(genes), dtype=bool)
    known = genes["chrom"].unique().tolist()
    for name, places in (("train", train or ()), ("valid", valid), ("test", test)):
        for place in places:
            region = _REGION.match(place)
            chrom = region["chrom"] if region else place
            if chrom not in known:
                raise ConfigError(f"fold {name} names {place!r}, but no gene lies on chromosome {chrom!r}; "
                                  + nearest(chrom, known))
            inside = (genes["chrom"] == chrom).to_numpy()
            if region:
                lo, hi = (int(re.sub("[,_]", "", region[k])) for k in ("start", "end"))
                inside &= genes["tss"].between(lo, hi - 1).to_numpy()
            if (inside & claimed).any():
                first = genes.loc[inside & claimed].iloc[0]
                raise ConfigError(f"{int((inside & claimed).sum()):,} genes of {place!r} are claimed by two folds; "
                                  f"first: {first['gene_id']} (already {fold.loc[first.name]}, now {name})")
            claimed |= inside
            fold[inside] = name
    for name in FOLDS:
        if not (fold == name).any():
            raise ConfigError(f"the {name} fold is empty: no gene of {len(genes):,} falls in it; "
                              f"chromosomes with genes: {', '.join(map(str, known[:12]))}")
    return fold


def given_folds(genes: pd.DataFrame, folds: Mapping[str, str], source: str) -> pd.Series:
    """Fold of every gene from a table of folds; genes that it does not name are ``unused``.

    Parameters
    ----------
    folds
        Gene id → fold, from `ciscribe.io.genes.read_folds`.
    source
        What it was read from, for the error.

    Raises
    ------
    InputError
        When a fold holds none of these genes.
    """
    words = [folds.get(gene, "unused") for gene in genes["gene_id"]]
    fold = pd.Series(words, index=genes.index, name="fold", dtype=object)
    for name in FOLDS:
        if not (fold == name).any():
            listed = [gene for gene, word in folds.items() if word == name]
            first = f" (first: {listed[0]})" if listed else ""
            raise InputError(f"{source}: none of the {len(listed):,} genes of the {name} fold{first} is among "
                             f"the {len(genes):,} genes with expression (first: {genes['gene_id'].iloc[0]}); "
                             "check the id version (ENSG… with or without .n) and that all files cover the same genes")
    return fold


def apply_guard(windows: pd.DataFrame, fold: pd.Series, guard: int) -> pd.Series:
    """Set aside training and validation genes whose window comes within `guard` bp of a held-out window.

    Training genes are checked against validation and test windows, validation genes against test windows.
    With whole chromosomes as folds nothing changes.

    Parameters
    ----------
    windows
        Intervals, one a gene: the bases that the model reads.
    fold
        From `assign_folds`, same index.
    guard
        Distance in bp; 0 still forbids overlap. Negative switches the guard off.

    Returns
    -------
    Series
        As `fold`, with ``guarded`` for the genes set aside.
    """
    if guard < 0:
        return fold.copy()
    fold = fold.copy()
    for victim, holders in (("valid", ("test",)), ("train", ("valid", "test"))):
        rows = windows.loc[fold == victim, ["chrom", "start", "end"]]
        held = windows.loc[fold.isin(holders), ["chrom", "start", "end"]].copy()
        if not len(rows) or not len(held):
            continue
        held["start"] -= guard
        held["end"] += guard
        hits = bioframe.count_overlaps(rows.reset_index(drop=True), held.reset_index(drop=True))["count"]
        fold.loc[rows.index[hits.to_numpy() > 0]] = "guarded"
    return fold


def chromosome_folds(genes: pd.DataFrame, n_folds: int) -> list[list[str]]:
    """Share whole chromosomes among `n_folds` groups so that each holds about as many genes.

    Largest chromosome first, each to the group with the fewest genes so far; deterministic.
    """
    counts = genes["chrom"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if len(counts) < n_folds:
        raise ConfigError(f"{n_folds} folds need at least {n_folds} chromosomes with genes; got {len(counts)}")
    groups: list[list[str]] = [[] for _ in range(n_folds)]
    load = [0] * n_folds
    for chrom, n in counts.items():
        i = load.index(min(load))
        groups[i].append(str(chrom))
        load[i] += int(n)
    return groups
