"""How well predictions find the links that a CRISPRi screen found: precision and recall of every predictor.

`ciscribe.links.crispri` says which pairs count and gives each its predicted values; here they are ranked. How the area
under a precision–recall curve is taken is part of the protocol, and everything else hangs on it. Two areas are given
because they differ where scores tie: the protocol's own (trapezoids from the first threshold on, without the last)
gives nothing for what the top score finds, average precision gives it at its precision.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.intervals import region_id
from ciscribe.links.crispri import Predictor, Protocol, need_columns
from ciscribe.schema import check_intervals
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
    need_columns(pairs, ("label", "distance", "cell"), "pairs")
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
    need_columns(pairs, (column,), "pairs")
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
    for i, name in enumerate(protocol.bin_names):
        above = distance >= edges[i] if i == 0 else distance > edges[i]
        out[name] = above & (distance <= edges[i + 1])
    names = pairs["cell"].unique()
    if cells and len(names) > 1:
        out |= {f"cell {name}": (pairs["cell"] == name).to_numpy() for name in names}
    return out


def _positives(label: ndarray, where: str) -> None:
    if not np.any(label):
        raise SchemaError(f"no pair is positive {where} ({len(label):,} pairs): precision and recall are undefined; "
                          "choose other distance_bins, folds or filters, or check the labels")
