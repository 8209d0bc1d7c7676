"""Which predicted enhancer–gene links an experiment confirms: the community's CRISPRi benchmark.

In a CRISPRi screen elements are silenced one at a time, and the expression of genes near them is measured. The
protocol decides what everything else hangs on: which pairs count (`select_pairs`), how a prediction on other
intervals becomes one number a tested pair (`match_predictions`), and how the area under a precision–recall curve is
taken (`pr_curve`). It is printed with every result.

Two areas are given because they differ where scores tie: the protocol's own (trapezoids from the first threshold on,
without the last) gives nothing for what the top score finds, average precision gives it at its precision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from numpy.typing import ArrayLike

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.intervals import region_id
from ciscribe.schema import check_intervals, check_links
from ciscribe.train.metrics import interval, resamples

CARD = Card(
    name="crispri-benchmark",
    kind="benchmark",
    summary="Asks which predicted enhancer–gene links a CRISPRi screen confirms, by the community's protocol.",
    paper="Gschwind et al., bioRxiv 2023, doi:10.1101/2023.11.09.563812; pairs of Fulco et al., Nat Genet 2019, "
          "doi:10.1038/s41588-019-0538-0, Gasperini et al., Cell 2019, doi:10.1016/j.cell.2018.11.029, and others",
    code="written from the protocol of EngreitzLab/CRISPR_comparison@e34b78d",
    differences=(
        "Average precision is reported beside the protocol's area, which loses what a tied top score finds.",
        "The p-value of a difference counts resamples on the other side of 0, with one added; the protocol inverts "
        "the interval.",
        "A predictor with a single threshold (yes or no) has no area by the protocol's rule: NaN, its average "
        "precision is given.",
        "Resamples that hold no positive pair are left out of the intervals.",
    ),
)

METRICS = ("auprc", "average_precision", "precision_at_recall")
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

    def describe(self) -> str:
        """One paragraph for reports and printouts."""
        power = "no filter by power" if self.min_power is None else \
            f"negatives need {self.power_column} ≥ {self.min_power:g}"
        bins = ", ".join(_bin_names(self.distance_bins)) or "none"
        return (f"Pairs: valid connections with a call, gene in the universe; {power}. Positive: significant and "
                f"decreased. Predictions match on cell, {self.match_on} and any overlap; pairs without one get 0 (the "
                f"largest value where small is good). auprc: trapezoids over thresholds from the first on, the last "
                f"dropped; average precision beside it; precision at the first threshold with recall ≥ {self.recall:g}."
                f" Distance bins: {bins}. Intervals: 95 %, {self.n_bootstrap:,} resamples of pairs, seed {self.seed}.")


@dataclass(frozen=True)
class CrispriBenchmark:
    """Result of `benchmark_crispri`.

    Parameters
    ----------
    table
        One row a predictor and stratum: ``predictor, stratum, n_pairs, n_positive``, each of `METRICS` with ``_low``
        and ``_high``, ``threshold_at_recall``, and ``threshold, precision_at_threshold, recall_at_threshold`` (NaN
        without a threshold). `stratum` is ``all``, a distance bin, or ``cell <name>`` (where there are several).
    curves
        ``predictor, stratum, threshold, precision, recall``, one row a distinct score, best first, in the direction of
        the column (rising for inverse predictors).
    draws
        Predictor → ``(n_bootstrap, 3)``, the `METRICS` of the resamples of all pairs.
    protocol, predictors, card
        How it was measured.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    draws: dict[str, Float[ndarray, "draws 3"]]
    protocol: Protocol
    predictors: dict[str, Predictor]
    card: Card = field(default=CARD)

    def difference(self, predictor: str, reference: str) -> pd.DataFrame:
        """How much better a predictor does than another on the same resamples of all pairs.

        Returns
        -------
        DataFrame
            Index `METRICS`; ``delta`` (predictor − reference), ``low, high`` (95 %) and two-sided ``p``: twice the
            share of resamples on the rarer side of 0, one added above and below; at least 2 / (n_bootstrap + 1).

        Raises
        ------
        UnknownNameError
            If either was not benchmarked.
        """
        for name in (predictor, reference):
            if name not in self.draws:
                raise UnknownNameError(f"no predictor '{name}' was benchmarked; {nearest(name, self.draws)}")
        whole = self.table[self.table["stratum"] == "all"].set_index("predictor")
        rows = []
        for m, metric in enumerate(METRICS):
            draws = self.draws[predictor][:, m] - self.draws[reference][:, m]
            found = interval(float(whole.loc[predictor, metric]) - float(whole.loc[reference, metric]), draws)
            draws = draws[np.isfinite(draws)]
            rarer = min((draws <= 0).sum(), (draws >= 0).sum())
            rows.append({"metric": metric, "delta": found["value"], "low": found["low"], "high": found["high"],
                         "p": min(1.0, 2 * (1 + rarer) / (1 + len(draws))) if len(draws) else np.nan})
        return pd.DataFrame(rows).set_index("metric")

    def to_dict(self) -> dict[str, Any]:
        """Protocol, predictors and table as plain values, JSON-ready."""
        return {"protocol": asdict(self.protocol), "described": self.protocol.describe(),
                "predictors": {name: asdict(p) for name, p in self.predictors.items()},
                "table": self.table.to_dict("records")}


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
    _need(pairs, (protocol.match_on,), "pairs")
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
        _need(genes, (protocol.match_on, "tss"), "genes")
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
    _positives(out["label"].to_numpy(bool), "among the selected pairs")
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
    _need(predictions, ("cell", match_on, *columns), "predictions")
    _need(pairs, ("cell", match_on), "pairs")
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
    for column, hint in ((match_on, "are both symbols, or both ids?"), ("cell", "give cells={theirs: ours}"),
                         ("chrom", "name chromosomes alike")):
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


def pr_curve(label: Shaped[ndarray, " N"], score: Shaped[ndarray, " N"]) -> pd.DataFrame:
    """Precision and recall of calling every pair that reaches a threshold, for each distinct score, best first.

    Returns
    -------
    DataFrame
        ``threshold, precision, recall``. The last row calls everything.

    Raises
    ------
    SchemaError
        If a score is NaN or no label is positive.

    Examples
    --------
    >>> pr_curve(np.array([1, 0, 1]), np.array([3.0, 2.0, 2.0]))["precision"].round(3).tolist()
    [1.0, 0.667]
    """
    ranking = _Ranking(label, score)
    return pd.DataFrame({"threshold": ranking.threshold, "precision": ranking.found / ranking.called,
                         "recall": ranking.found / ranking.found[-1]})


def pr_metrics(label: Shaped[ndarray, " N"], score: Shaped[ndarray, " N"], *, recall: float = 0.7
               ) -> dict[str, float]:
    """Area by the protocol's step rule, average precision, and precision at a recall.

    Returns
    -------
    dict
        ``auprc``: trapezoids between neighbouring thresholds; the area left of the first threshold does not count,
        and the last threshold, which calls everything, is dropped; NaN with fewer than three thresholds.
        ``average_precision``: Σ (recall gained at a threshold × precision there), over all thresholds.
        ``precision_at_recall``: precision at the first threshold (but the last) that finds `recall` of the positives;
        NaN if none does.

    References
    ----------
    EngreitzLab/CRISPR_comparison@e34b78d; Davis & Goadrich, ICML 2006, doi:10.1145/1143844.1143874.

    Examples
    --------
    >>> label, score = np.array([1, 1, 0, 1, 0]), np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    >>> {name: round(value, 3) for name, value in pr_metrics(label, score).items()}
    {'auprc': 0.569, 'average_precision': 0.917, 'precision_at_recall': 0.75}
    """
    ranking = _Ranking(label, score)
    return dict(zip(METRICS, ranking.metrics(np.ones((1, len(ranking.order))), recall)[0].tolist(), strict=True))


def benchmark_crispri(pairs: pd.DataFrame, predictors: Mapping[str, Predictor], protocol: Protocol | None = None, *,
                      strata: bool = True) -> CrispriBenchmark:
    """Score predictors on tested pairs, over all pairs and by distance and cell, with bootstrap intervals.

    Parameters
    ----------
    pairs
        From `select_pairs`, with a column for each predictor: its name (after `match_predictions`) or its `column`.
    predictors
        Name → how its values are read (direction and threshold; aggregation is done).
    protocol
        None takes the community's.
    strata
        Also score each distance bin, and each cell where there are several.

    Returns
    -------
    CrispriBenchmark
        Each metric with its 95 % interval: percentiles over resamples of the pairs of the stratum.

    Raises
    ------
    SchemaError
        If a column is missing or not finite, or a stratum holds no positive pair.
    """
    protocol = protocol or Protocol()
    check_intervals(pairs, name="pairs")
    _need(pairs, ("label", "distance", "cell"), "pairs")
    if not predictors:
        raise SchemaError("a benchmark needs at least one predictor; got none")
    values = {name: _values(pairs, name, predictor) for name, predictor in predictors.items()}
    label = pairs["label"].to_numpy().astype(bool)
    rows, curves, all_draws = [], [], {}
    for stratum, inside in _strata(pairs, protocol if strata else replace(protocol, distance_bins=()), strata).items():
        _positives(label[inside], f"in the stratum '{stratum}'" if stratum != "all" else "among the pairs")
        rankings = {name: _Ranking(label[inside], score[inside]) for name, score in values.items()}
        draws = {name: np.empty((protocol.n_bootstrap, len(METRICS))) for name in values}
        for part, weight in resamples(int(inside.sum()), protocol.n_bootstrap, protocol.seed):
            for name, ranking in rankings.items():
                draws[name][part] = ranking.metrics(weight, protocol.recall)
        for name, predictor in predictors.items():
            sign = -1.0 if predictor.inverse else 1.0
            curve = pr_curve(label[inside], values[name][inside])
            rows.append({"predictor": name, "stratum": stratum, "n_pairs": int(inside.sum()),
                         "n_positive": int(label[inside].sum()),
                         **_summary(rankings[name], draws[name], protocol.recall),
                         **_at_threshold(curve, predictor, protocol.recall, sign)})
            curves.append(curve.assign(predictor=name, stratum=stratum, threshold=sign * curve["threshold"]))
        if stratum == "all":
            all_draws = draws
    columns = ["predictor", "stratum", "threshold", "precision", "recall"]
    return CrispriBenchmark(pd.DataFrame(rows), pd.concat(curves, ignore_index=True).reindex(columns=columns),
                            all_draws, protocol, dict(predictors))


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
    _need(pairs, ("distance", match_on), "pairs")
    _need(genes, ("chrom", "start", "end", "tss", match_on), "genes")
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
        _need(pairs, (accessibility,), "pairs")
        signals[accessibility] = pairs[accessibility].to_numpy(float)
    for name, both in (activity or {}).items():
        _need(pairs, both, "pairs")
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


class _Ranking:
    """Pairs from best to worst, asked again and again how good the order is under other weights.

    Between two positives precision only falls and recall stands still, so the curve is known from how many pairs are
    called before and after each run of equal scores that holds a positive; nothing else is added up.
    """

    def __init__(self, label: ndarray, score: ndarray) -> None:
        score, label = np.asarray(score, float), np.asarray(label).astype(bool)
        if np.isnan(score).any():
            raise SchemaError(f"{int(np.isnan(score).sum()):,} of {len(score):,} scores are NaN; fill them first")
        _positives(label, "among the labels")
        self.order = np.argsort(-score, kind="stable")
        ranked, label = score[self.order], label[self.order]
        last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        self.threshold = ranked[last]
        self.found, self.called = np.cumsum(label)[last], last + 1
        run = np.searchsorted(last, np.flatnonzero(label))
        runs, self._first_of_run = np.unique(run, return_index=True)
        self._positive = self.order[label]
        start, end = np.append(0, last + 1)[runs], last[runs] + 1
        self._cuts = np.unique(np.concatenate([[0], start, end[end < len(ranked)]]))
        self._before, self._after = (np.searchsorted(np.append(self._cuts, len(ranked)), at) for at in (start, end))

    def metrics(self, weight: ndarray, recall: float) -> Float[ndarray, "draws 3"]:
        """`METRICS` of resamples that hold each pair `weight` times; a threshold that a resample lacks is no point."""
        called = np.cumsum(np.add.reduceat(weight[:, self.order], self._cuts, axis=1), axis=1)
        total = called[:, -1:]
        called = np.concatenate([np.zeros_like(total), called], axis=1)
        before, after = called[:, self._before], called[:, self._after]
        gained = np.add.reduceat(weight[:, self._positive], self._first_of_run, axis=1)
        found = np.cumsum(gained, axis=1)
        positives = np.where(found[:, -1:] > 0, found[:, -1:], np.nan)
        precision = found / np.maximum(after, 1)
        inner = (before > 0) & (after < total)  # the segments that end in the first or the last point are not counted
        left = (found - gained) / np.maximum(before, 1)
        area = (gained / positives * (precision + left) / 2 * inner).sum(axis=1)
        average = (gained / positives * precision).sum(axis=1)
        enough = (found >= recall * positives * (1 - 1e-12)) & (after < total)
        at = np.where(enough.any(axis=1), precision[np.arange(len(weight)), enough.argmax(axis=1)], np.nan)
        return np.stack([area if len(self.threshold) > 2 else np.full(len(area), np.nan), average, at], axis=1)


def _summary(ranking: _Ranking, draws: ndarray, recall: float) -> dict[str, float]:
    value = ranking.metrics(np.ones((1, len(ranking.order))), recall)[0]
    out = {}
    for m, metric in enumerate(METRICS):
        found = interval(float(value[m]), draws[:, m])
        out |= {metric: found["value"], f"{metric}_low": found["low"], f"{metric}_high": found["high"]}
    return out


def _at_threshold(curve: pd.DataFrame, predictor: Predictor, recall: float, sign: float) -> dict[str, float]:
    """Where `recall` is reached, and how good the predictor's own threshold is."""
    threshold, precision, found = (curve[name].to_numpy() for name in ("threshold", "precision", "recall"))
    enough = threshold[:-1][found[:-1] >= recall * (1 - 1e-12)]
    out = {"threshold_at_recall": sign * enough[0] if len(enough) else np.nan,
           "threshold": np.nan, "precision_at_threshold": np.nan, "recall_at_threshold": np.nan}
    if predictor.threshold is not None:
        called = np.flatnonzero(threshold >= sign * predictor.threshold)
        out |= {"threshold": predictor.threshold,
                "precision_at_threshold": precision[called[-1]] if len(called) else np.nan,
                "recall_at_threshold": found[called[-1]] if len(called) else 0.0}
    return {name: float(value) for name, value in out.items()}


def _values(pairs: pd.DataFrame, name: str, predictor: Predictor) -> ndarray:
    """Scores of a predictor, turned so that high speaks for a link."""
    column = name if name in pairs.columns else predictor.column
    _need(pairs, (column,), "pairs")
    value = pairs[column].to_numpy(float)
    bad = ~np.isfinite(value)
    if bad.any():
        raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} pairs have a {column} that is NaN or infinite; first: "
                          f"{region_id(pairs).iloc[int(bad.argmax())]}; fill them as the protocol does (0, or the "
                          "largest value where small is good)")
    return -value if predictor.inverse else value


def _strata(pairs: pd.DataFrame, protocol: Protocol, cells: bool) -> dict[str, ndarray]:
    """Name → which pairs."""
    out = {"all": np.ones(len(pairs), dtype=bool)}
    distance, edges = pairs["distance"].to_numpy(float), protocol.distance_bins
    for i, name in enumerate(_bin_names(edges)):
        above = distance >= edges[i] if i == 0 else distance > edges[i]
        out[name] = above & (distance <= edges[i + 1])
    names = pairs["cell"].unique()
    if cells and len(names) > 1:
        out |= {f"cell {name}": (pairs["cell"] == name).to_numpy() for name in names}
    return out


def _bin_names(edges: Sequence[float]) -> list[str]:
    return [f"{a / 1000:g}–{b / 1000:g} kb" for a, b in pairwise(edges)]


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


def _positives(label: ndarray, where: str) -> None:
    if not np.any(label):
        raise SchemaError(f"no pair is positive {where} ({len(label):,} pairs): precision and recall are undefined; "
                          "choose other distance_bins, folds or filters, or check the labels")


def _need(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    for column in columns:
        if column not in table.columns:
            raise SchemaError(f"{name} need a column {column}; {nearest(column, map(str, table.columns))}")


def _some(names: ndarray) -> str:
    return ", ".join(np.unique(names)[:3])

