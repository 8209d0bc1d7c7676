"""What a CRISPRi screen says about enhancer–gene links, and what predictions and simple rules say of the same pairs.

In a CRISPRi screen elements are silenced one at a time, and the expression of genes near them is measured. The
community's protocol decides which pairs count (`select_pairs`) and how a prediction on other intervals becomes one
number a tested pair (`match_predictions`); `baselines` need no model. How well they do is `ciscribe.links.benchmark`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from numpy.typing import ArrayLike

from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.intervals import region_id
from ciscribe.schema import check_intervals, check_links

AGGREGATES = ("sum", "max", "mean", "min")


@dataclass(frozen=True)
class Predictor:
    """How a column of predictions is read.

    Parameters
    ----------
    column
        Name of the column.
    aggregate
        How the values of several predicted elements that overlap one tested element become one (`AGGREGATES`).
    inverse
        Small values speak for a link (a distance). Pairs without any prediction then get the largest value, not 0.
    threshold
        Value from which on (for `inverse`: down to which) a link is called; its precision and recall are reported.
    """

    column: str
    aggregate: str = "sum"
    inverse: bool = False
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise UnknownNameError(f"aggregate of {self.column}: got '{self.aggregate}'; "
                                   f"{nearest(self.aggregate, AGGREGATES)}")


@dataclass(frozen=True)
class Protocol:
    """What was decided before looking: goes with every result.

    Parameters
    ----------
    match_on
        Column that names the gene in pairs, predictions and gene universe: ``gene_id``, or ``gene_name`` where
        only symbols are shared (the community's way).
    min_power
        Pairs that show no effect count as negatives only where the screen had this power to see one; None keeps all.
        The pairs of EPCrisprBenchmark files were filtered before (0.8 at an effect of 25 %).
    power_column
        Column that holds the power.
    recall
        Where precision is read off.
    distance_bins
        Edges in bp; the first bin holds its lower edge, all hold their upper one. Empty: no bins.
    n_bootstrap
        Resamples of the pairs behind every interval and p-value.
    seed
        Of the resampling; all predictors see the same resamples.
    """

    match_on: str = "gene_id"
    min_power: float | None = None
    power_column: str = "power_25"
    recall: float = 0.7
    distance_bins: tuple[float, ...] = (0, 20_000, 100_000, 2_500_000)
    n_bootstrap: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1 or list(self.distance_bins) != sorted(set(self.distance_bins)):
            raise SchemaError(f"a protocol needs a recall in (0, 1] and rising distance_bins; got {self.recall} and "
                              f"{self.distance_bins}")

    @property
    def bin_names(self) -> list[str]:
        """Of the strata of distance, nearest first."""
        return [f"{a / 1000:g}–{b / 1000:g} kb" for a, b in pairwise(self.distance_bins)]

    def describe(self) -> str:
        """One paragraph for reports and printouts."""
        power = "no filter by power" if self.min_power is None else \
            f"negatives need {self.power_column} ≥ {self.min_power:g}"
        bins = ", ".join(self.bin_names) or "none"
        return (f"Pairs: valid connections with a call, gene in the universe; {power}. Positive: significant and "
                f"decreased. Predictions match on cell, {self.match_on} and any overlap; pairs without one get 0 (the "
                f"largest value where small is good). auprc: trapezoids over thresholds from the first on, the last "
                f"dropped; average precision beside it; precision at the first threshold with recall ≥ {self.recall:g}."
                f" Distance bins: {bins}. Intervals: 95 %, {self.n_bootstrap:,} resamples of pairs, seed {self.seed}.")


def select_pairs(pairs: pd.DataFrame, protocol: Protocol | None = None, *, genes: pd.DataFrame | None = None
                 ) -> tuple[pd.DataFrame, dict[str, int]]:
    """Tested pairs that the protocol counts, labelled, and how many fell to each filter.

    Parameters
    ----------
    pairs
        Links table of tested pairs (`ciscribe.io.crispri.read_crispri`). Filters apply where their column is there:
        ``connection`` (``TRUE`` or why the test is not valid), ``regulated`` (missing: no call).
        The label is ``significant and effect < 0``; without these columns ``regulated``, without it ``label``.
    genes
        Universe; pairs of other genes are left out, and a missing `distance` is filled with that to the gene's TSS.

    Returns
    -------
    pairs : DataFrame
        The rest in their order, with ``label`` (bool).
    counts : dict
        ``tested``, ``not_valid``, ``no_call``, ``gene_unknown``, ``low_power`` (left out, in this order), ``pairs``,
        ``positives``.

    Raises
    ------
    SchemaError
        If a column is missing, a gene matches twice, nothing is left, or no pair is positive.
    """
    protocol = protocol or Protocol()
    check_links(pairs)
    need_columns(pairs, (protocol.match_on,), "pairs")
    counts, out = {"tested": len(pairs)}, pairs.copy()

    def keep(wanted: ArrayLike, fault: str) -> None:
        nonlocal out
        wanted = np.broadcast_to(np.asarray(wanted, dtype=bool), len(out))
        counts[fault] = int((~wanted).sum())
        out = pd.DataFrame(out.loc[wanted])

    keep([str(word).upper() == "TRUE" for word in out["connection"]] if "connection" in out else True, "not_valid")
    keep(out["regulated"].notna() if "regulated" in out else True, "no_call")
    if genes is None:
        keep(True, "gene_unknown")
    else:
        need_columns(genes, (protocol.match_on, "tss"), "genes")
        tss = _one_each(genes, protocol.match_on, "tss")
        keep(np.isin(out[protocol.match_on].to_numpy(str), tss.index.to_numpy(str)), "gene_unknown")
        middle = ((out["start"] + out["end"]) // 2).to_numpy()
        distance = out["distance"].to_numpy(float)
        far = np.abs(middle - tss.reindex(out[protocol.match_on]).to_numpy(float))
        out = out.assign(distance=np.where(np.isnan(distance), far, distance))
    out = out.assign(label=_labels(out))
    if protocol.min_power is not None:
        if protocol.power_column not in out.columns:
            some = [c for c in out.columns if str(c).startswith("power_")]
            raise SchemaError(f"the power filter needs the column {protocol.power_column}; the pairs have "
                              f"{', '.join(some) if some else 'no power_… column'}; choose another power_column, or "
                              "min_power=None")
        keep(out["label"] | (out[protocol.power_column] >= protocol.min_power), "low_power")
    else:
        keep(True, "low_power")
    if not len(out):
        raise SchemaError(f"no tested pair is left of {len(pairs):,}: "
                          + ", ".join(f"{name} {n:,}" for name, n in counts.items() if n and name != "tested")
                          + "; check the gene universe and its names")
    if not out["label"].to_numpy(bool).any():
        raise SchemaError(f"no pair is positive among the selected pairs ({len(out):,}): there is nothing to find; "
                          "check the labels and the filters")
    return out.reset_index(drop=True), counts | {"pairs": len(out), "positives": int(out["label"].sum())}


def match_predictions(pairs: pd.DataFrame, predictions: pd.DataFrame, predictors: Mapping[str, Predictor], *,
                      match_on: str = "gene_id", cells: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Give every tested pair the predicted value of each predictor.

    A prediction belongs to a pair of its cell and gene whose interval it overlaps by 1 bp or more.

    Parameters
    ----------
    pairs
        From `select_pairs`.
    predictions
        Intervals with ``cell``, the column `match_on`, and those of the predictors.
    predictors
        Name → how its column is read.
    cells
        Predictions' name of a cell → the pairs' name; cells that are not listed keep theirs.

    Returns
    -------
    DataFrame
        The pairs, with a column for each predictor's name (no NaN) and ``n_predictions``, how many overlap.

    Raises
    ------
    SchemaError
        If a column is missing, a value is NaN or infinite, or no gene, cell or chromosome is in both tables.
    """
    check_intervals(predictions, name="predictions")
    columns = list(dict.fromkeys(p.column for p in predictors.values()))
    need_columns(predictions, ("cell", match_on, *columns), "predictions")
    need_columns(pairs, ("cell", match_on), "pairs")
    for column in columns:
        bad = ~np.isfinite(predictions[column].to_numpy(float))
        if bad.any():
            i = int(bad.argmax())
            raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} predictions have a {column} that is NaN or "
                              f"infinite; first: {region_id(predictions).iloc[i]} {predictions[match_on].iloc[i]}; "
                              "fill them, or leave these rows out")
    for column in (name for name in predictors if name in pairs.columns):
        raise SchemaError(f"the pairs have a column {column} already; give the predictor another name")
    theirs = pd.DataFrame(predictions[["chrom", "start", "end", "cell", match_on, *columns]])
    if cells:
        theirs = theirs.assign(cell=[cells.get(cell, cell) for cell in theirs["cell"]])
    for column, hint in (("chrom", "name chromosomes alike, or take pairs of those that the predictions cover"),
                         (match_on, "are both symbols, or both ids?"), ("cell", "give cells={theirs: ours}")):
        tested, predicted = pairs[column].to_numpy(str), theirs[column].to_numpy(str)
        if not np.isin(tested, predicted).any():
            raise SchemaError(f"pairs and predictions share no {column}: pairs have {_some(tested)}, predictions "
                              f"{_some(predicted)}; {hint}")
    keys = ["chrom", "cell", match_on]
    ours = pairs[["start", "end", *keys]].assign(_pair=np.arange(len(pairs)))
    met = ours.merge(theirs, on=keys, suffixes=("", "_predicted"))
    met = met.loc[(met["start"] < met["end_predicted"]) & (met["start_predicted"] < met["end"])].groupby("_pair")
    out = pairs.copy()
    for name, predictor in predictors.items():
        fill = float(theirs[predictor.column].max()) if predictor.inverse else 0.0
        value = met[predictor.column].agg(predictor.aggregate)
        out[name] = value.reindex(range(len(pairs))).fillna(fill).to_numpy(float)
    out["n_predictions"] = met.size().reindex(range(len(pairs)), fill_value=0).to_numpy()
    return out


def baselines(pairs: pd.DataFrame, genes: pd.DataFrame, *, match_on: str = "gene_id",
              contact: Callable[[Float[ndarray, " N"]], Float[ndarray, " N"]] | None = None,
              accessibility: str | None = None, activity: Mapping[str, tuple[str, str]] | None = None
              ) -> tuple[pd.DataFrame, dict[str, Predictor]]:
    """What needs no model: distance, the nearest gene, accessibility and activity, alone and times contact.

    Parameters
    ----------
    pairs
        Tested pairs with ``distance`` and the signal columns that are named below.
    genes
        Universe: ``chrom, start, end, tss`` and `match_on`; with ``expressed`` (bool) the nearest among expressed
        genes is a baseline, too.
    contact
        Distance in bp → contact, e.g. the power law of `ciscribe.links`.
    accessibility
        Column of the element's accessibility.
    activity
        Name → two columns whose geometric mean is the activity (DHS and H3K27ac).

    Returns
    -------
    pairs : DataFrame
        With a column a baseline. ``distance``; ``n_tss_between`` (ties: the nearer); ``nearest_tss``,
        ``nearest_gene`` (by its body; 0 bp inside of it), ``nearest_expressed_tss``, ``nearest_expressed_gene``,
        ``within_100kb`` (1 or 0); ``contact``; and each signal, alone and ``_x_contact``.
    predictors : dict
        How they are read.
    """
    need_columns(pairs, ("distance", match_on), "pairs")
    need_columns(genes, ("chrom", "start", "end", "tss", match_on), "genes")
    distance = pairs["distance"].to_numpy(float)
    if not np.isfinite(distance).all():
        raise SchemaError(f"{int((~np.isfinite(distance)).sum()):,} of {len(pairs):,} pairs have no distance; "
                          "give genes to select_pairs, which fills it")
    out: dict[str, ndarray] = {"distance": distance}
    between = np.zeros(len(pairs))
    middle = ((pairs["start"] + pairs["end"]) // 2).to_numpy()
    own_tss = _one_each(genes, match_on, "tss").reindex(pairs[match_on]).to_numpy(float)
    if np.isnan(own_tss).any():
        raise SchemaError(f"{int(np.isnan(own_tss).sum()):,} of {len(pairs):,} pairs name a gene that the gene table "
                          f"lacks; first: {pairs[match_on].iloc[int(np.isnan(own_tss).argmax())]}; leave them out with "
                          "select_pairs(…, genes=…)")
    kinds = {"nearest": genes}
    if "expressed" in genes.columns:
        kinds["nearest_expressed"] = pd.DataFrame(genes.loc[genes["expressed"].to_numpy(bool)])
    nearest_ = {f"{kind}_{what}": np.zeros(len(pairs)) for kind in kinds for what in ("tss", "gene")}
    for chrom, row in pairs.groupby("chrom", sort=False).indices.items():
        tss = np.sort(genes.loc[genes["chrom"] == chrom, "tss"].to_numpy())
        between[row] = count_between(tss, middle[row], own_tss[row])
        for kind, table in kinds.items():
            here = pd.DataFrame(table.loc[table["chrom"] == chrom])
            if not len(here):
                continue
            mine = pairs[match_on].to_numpy()[row, None] == here[match_on].to_numpy()[None]
            position = middle[row, None]
            start, end = here["start"].to_numpy(), here["end"].to_numpy()
            for what, away in (("tss", np.abs(position - here["tss"].to_numpy())),
                               ("gene", np.maximum(np.maximum(start - position, position - (end - 1)), 0))):
                nearest_[f"{kind}_{what}"][row] = (mine & (away == away.min(axis=1, keepdims=True))).any(axis=1)
    out["n_tss_between"] = between + distance / (distance.max() + 1) / 2  # half a gene at most: breaks ties only
    out |= nearest_ | {"within_100kb": (distance <= 100_000).astype(float)}
    signals: dict[str, ndarray] = {}
    if accessibility is not None:
        need_columns(pairs, (accessibility,), "pairs")
        signals[accessibility] = pairs[accessibility].to_numpy(float)
    for name, both in (activity or {}).items():
        need_columns(pairs, both, "pairs")
        signals[name] = np.sqrt(pairs[both[0]].to_numpy(float) * pairs[both[1]].to_numpy(float))
    out |= signals
    if contact is not None:
        out["contact"] = contact(distance)
        out |= {f"{name}_x_contact": value * out["contact"] for name, value in signals.items()}
    predictors = {name: Predictor(name, "min" if name in ("distance", "n_tss_between") else "max",
                                  inverse=name in ("distance", "n_tss_between"),
                                  threshold=1.0 if name.startswith(("nearest", "within")) else None) for name in out}
    return pairs.assign(**out), predictors


def count_between(positions: Shaped[ndarray, " P"], a: Shaped[ndarray, " N"], b: Shaped[ndarray, " N"]
                  ) -> Shaped[ndarray, " N"]:
    """Count the sorted positions strictly between `a` and `b`, in either order.

    Examples
    --------
    >>> count_between(np.array([3, 5, 7]), np.array([7]), np.array([3])).tolist()
    [1]
    """
    low, high = np.minimum(a, b), np.maximum(a, b)
    n = np.searchsorted(positions, high, "left") - np.searchsorted(positions, low, "right")
    return np.maximum(n, 0)


def need_columns(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Raise `SchemaError` with the first column that the table `name` lacks, and the nearest that it has."""
    for column in columns:
        if column not in table.columns:
            raise SchemaError(f"{name} need a column {column}; {nearest(column, map(str, table.columns))}")


def _labels(pairs: pd.DataFrame) -> Bool[ndarray, " N"]:
    """Significant and decreased; else what the table calls regulated, or its label."""
    if {"significant", "effect"} <= set(pairs.columns):
        return (pairs["significant"].fillna(False).astype(bool) & (pairs["effect"] < 0)).to_numpy(bool)
    for column in ("regulated", "label"):
        if column in pairs.columns:
            missing = int(pairs[column].isna().to_numpy().sum())
            if missing:
                raise SchemaError(f"{missing:,} of {len(pairs):,} pairs have no {column}; leave them out")
            return pairs[column].to_numpy().astype(bool)
    raise SchemaError("pairs need significant and effect, or regulated, or label; got "
                      f"{', '.join(map(str, pairs.columns))}")


def _one_each(genes: pd.DataFrame, match_on: str, column: str) -> pd.Series:
    """Column by gene, if every gene is one row."""
    twice = genes[match_on].duplicated()
    if twice.any():
        raise SchemaError(f"{int(twice.sum()):,} of {len(genes):,} genes repeat a {match_on}; first: "
                          f"{genes.loc[twice, match_on].iloc[0]}; a symbol that matches twice cannot be scored: keep "
                          "one TSS a gene, or match on gene_id")
    return pd.Series(genes[column].to_numpy(), index=pd.Index(genes[match_on]))


def _some(names: ndarray) -> str:
    return ", ".join(np.unique(names)[:3])

