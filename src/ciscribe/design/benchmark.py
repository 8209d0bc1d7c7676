"""How good designs and designers are: measured designs replayed, equal budgets, targets, generators, a known world.

Every protocol is a function of tables of numbers that any tool can produce, ours or not. What counts as one observation
is what is independent: a start with all that was made from it, or a seed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.stats import t as student

from ciscribe.card import Card
from ciscribe.design.calibration import SHAPES, fit_calibration
from ciscribe.design.natives import kmer_share, longest_match, separability
from ciscribe.errors import SchemaError
from ciscribe.train.labels import auroc
from ciscribe.train.metrics import pearson, spearman

CARDS = {
    "replay": Card(
        name="design-replay", kind="benchmark",
        summary="Asks of designs that were measured how much of the predicted gain was real, and what would have told.",
        paper="own; data Jores et al., Nature Plants 2021, doi:10.1038/s41477-021-00932-y",
        differences=("Fitted on few rounds of evolution, tested on many.",
                     "Detectors stand beside two controls: the score alone, and how far it is above all labels.")),
    "league": Card(
        name="design-league", kind="benchmark",
        summary="Compares designers at the same number of model calls by what models of other families grant.",
        paper="own",
        differences=("Judged scores above the label range are extrapolation and do not count as gain.",)),
    "targeted": Card(
        name="design-targeted", kind="benchmark",
        summary="How often a designer hits an asked level with few edits while keeping hard constraints.", paper="own"),
    "generators": Card(
        name="design-generators", kind="benchmark",
        summary="Whether generated sequences have the words of real ones, do what they were asked, and are not copies.",
        paper="own; measures as in Sarkar et al., bioRxiv 2024 (D3), and DRAKES (arXiv:2410.13643)",
        differences=("Every number stands beside the same number of a sample of real sequences of that size.",)),
    "world": Card(
        name="design-world", kind="benchmark",
        summary="Measures designs by the law of a simulated world, where gains are known exactly.", paper="own"),
}
_REPLAY = ("objective", "round", "origin", "predicted_gain", "measured_gain", "edits")


# Track A: measured designs


def replay_gains(table: pd.DataFrame, train: Sequence[int] = (0, 3), *, shapes: Sequence[str] = tuple(SHAPES),
                 n_bootstrap: int = 500, seed: int = 0) -> pd.DataFrame:
    """Predicted, calibrated and measured gain of designs by round of evolution; calibrated by earlier rounds only.

    Parameters
    ----------
    table
        One row a measured design: ``objective, round, origin, predicted_gain, measured_gain, edits``.
    train
        Rounds that calibrations are fitted to, each objective by itself.
    shapes
        Names from `ciscribe.design.calibration.SHAPES`.
    n_bootstrap, seed
        Resamples of the origins.

    Returns
    -------
    DataFrame
        A row an objective, round and method (``raw`` and every shape): ``n``, ``fitted`` (whether the round was fitted
        to), means ``edits, predicted, measured, expected``, ``error`` = expected − measured with ``low, high`` (95 %
        over origins, the fit held), ``ratio`` = measured / expected, ``rmse`` of single designs, and ``spearman`` of
        expected and measured.

    Raises
    ------
    SchemaError
        When columns are missing, or an objective has no design to fit to or to test on.
    """
    _need(table, _REPLAY, "measured designs")
    rows = []
    for objective, part in table.groupby("objective", sort=False):
        seen = part["round"].isin(list(train)).to_numpy()
        if not seen.any() or seen.all():
            raise SchemaError(f"objective {objective} needs designs of rounds {list(train)} and of others; got rounds "
                              f"{sorted(part['round'].unique().tolist())}")
        predicted, edits = part["predicted_gain"].to_numpy(float), part["edits"].to_numpy(float)
        expected = {"raw": predicted}
        for shape in shapes:
            fitted = fit_calibration(part.loc[seen], shape=shape, n_bootstrap=0)
            expected[shape] = fitted.expected(predicted, edits)
        for number in sorted(set(part.loc[edits > 0, "round"])):
            here = (part["round"] == number).to_numpy() & (edits > 0)
            measured = part.loc[here, "measured_gain"].to_numpy(float)
            for name, values in expected.items():
                error = values[here] - measured
                low, high = _interval(error, part.loc[here, "origin"].to_numpy(), n_bootstrap, seed)
                rows.append({"objective": objective, "round": number, "method": name, "n": int(here.sum()),
                             "fitted": number in train, "edits": edits[here].mean(),
                             "predicted": predicted[here].mean(), "measured": measured.mean(),
                             "expected": values[here].mean(), "error": error.mean(), "low": low, "high": high,
                             "ratio": measured.mean() / values[here].mean(),
                             "rmse": float(np.sqrt((error**2).mean())), "spearman": spearman(values[here], measured)})
    return pd.DataFrame(rows)


def replay_scores(table: pd.DataFrame, scores: Sequence[str], *, top: float = 0.1) -> pd.DataFrame:
    """How well scores predict the level of measured designs.

    Parameters
    ----------
    table
        One row a design: ``measured`` and a column a score, all in the same units.
    scores
        Columns.
    top
        Share of designs that one would order.

    Returns
    -------
    DataFrame
        A row a score: ``n, rmse, bias`` (score − measured), ``spearman``, and ``regret``: the mean measured level of
        the truly best share less that of the share with the best scores, in the units of the measurement.
    """
    _need(table, ("measured", *scores), "measured designs")
    measured = table["measured"].to_numpy(float)
    n, rows = max(1, round(top * len(table))), []
    for name in scores:
        values = table[name].to_numpy(float)
        picked = np.argsort(-values, kind="stable")[:n]
        rows.append({"score": name, "n": len(values), "rmse": float(np.sqrt(((values - measured)**2).mean())),
                     "bias": float((values - measured).mean()), "spearman": spearman(values, measured),
                     "regret": float(np.sort(measured)[-n:].mean() - measured[picked].mean())})
    return pd.DataFrame(rows)


def replay_detectors(table: pd.DataFrame, detectors: Sequence[str], *, limit: float, highest: float,
                     n_strata: int = 5, n_bootstrap: int = 500, seed: int = 0) -> pd.DataFrame:
    """Which numbers tell over-predicted designs from others, beside what the score alone tells.

    Parameters
    ----------
    table
        One row a design: ``score, measured, origin`` and a column a detector, larger is more suspicious.
    detectors
        Columns.
    limit
        A design is over-predicted when its score is above what was measured by more than this.
    highest
        Label of the natives; how far a score is above is the control ``clip``.
    n_strata
        Of equal numbers of designs by score, within which each detector is judged, too.
    n_bootstrap, seed
        Resamples of the origins.

    Returns
    -------
    DataFrame
        A row a detector, first the controls ``score alone`` and ``clip``: ``auroc``, ``gain`` over the score alone with
        ``low, high`` (95 % over origins), and ``within``: the mean AUROC in strata of equal score, where the score
        itself can do little.
    """
    _need(table, ("score", "measured", "origin", *detectors), "measured designs")
    score = table["score"].to_numpy(float)
    over = (score - table["measured"].to_numpy(float)) > limit
    columns = {"score alone": score, "clip": np.maximum(score - highest, 0.0),
               **{name: table[name].to_numpy(float) for name in detectors}}
    stratum = np.argsort(np.argsort(score, kind="stable"), kind="stable") * n_strata // max(len(score), 1)
    groups = _rows_by(table["origin"].to_numpy())
    rng = np.random.default_rng(seed)
    draws = [np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
             for _ in range(n_bootstrap)]
    alone = np.array([auroc(over[at], score[at]) for at in draws])
    rows = []
    for name, values in columns.items():
        gain = np.array([auroc(over[at], values[at]) for at in draws]) - alone
        low, high = _limits(gain)
        within = [auroc(over[stratum == s], values[stratum == s]) for s in range(n_strata)]
        area = auroc(over, values)
        rows.append({"detector": name, "n": len(over), "over_predicted": float(over.mean()), "auroc": area,
                     "gain": area - auroc(over, score), "low": low, "high": high,
                     "within": float(np.nanmean(within)) if np.isfinite(within).any() else np.nan})
    return pd.DataFrame(rows)


# Track B: equal budgets


def league(runs: pd.DataFrame, highest: float | dict[str, float]) -> pd.DataFrame:
    """Rank designers that were given the same number of model calls, by what the judges grant.

    Parameters
    ----------
    runs
        One row a run: ``dataset, method, budget, seed, queries``, means over the designs ``gain`` (of the oracle),
        ``judge_gain`` and ``judge_score`` (mean over judges of other families); other numbers (``seconds``,
        ``feasible``, ``edits``, ``diversity`` ...) are averaged.
    highest
        Highest label a judge was trained on, for all or by data set.

    Returns
    -------
    DataFrame
        A row a data set, budget and method, best first: ``seeds``, means, ``judge_low, judge_high`` (95 % over seeds,
        Student), ``per_thousand`` = judged gain a thousand queries, with ``per_thousand_low, per_thousand_high``,
        ``inflation`` = 1 − judged gain / oracle gain,
        ``extrapolating`` (share of runs whose mean judged score is above all labels), ``rank`` by judged gain a query
        (NaN where more than half of the runs extrapolate: that is no gain), and ``lead``: how far ahead of the next
        method it is in judged gain a thousand queries, with ``lead_low, lead_high`` over seeds that both have.

    Raises
    ------
    SchemaError
        When a run asked more than its budget, a run is there twice, or a number is missing.
    """
    keys = ["dataset", "budget", "method"]
    _need(runs, (*keys, "seed", "queries", "gain", "judge_gain", "judge_score"), "runs")
    over = (runs["queries"] > runs["budget"]).to_numpy()
    twice = runs.duplicated([*keys, "seed"]).to_numpy()
    for bad, fault in ((over, "asked the model more often than their budget allows"), (twice, "are there twice")):
        if bad.any():
            first = runs.iloc[int(bad.argmax())]
            raise SchemaError(f"{int(bad.sum())} of {len(runs)} runs {fault}; first: {first['method']} on "
                              f"{first['dataset']}, seed {first['seed']}, {first['queries']:,} of {first['budget']:,}")
    runs = runs.assign(per_thousand=1000 * runs["judge_gain"] / runs["queries"])
    top = np.array([highest[d] for d in runs["dataset"]]) if isinstance(highest, dict) else highest
    runs["extrapolating"] = (runs["judge_score"] > top).astype(float)
    numbers = [str(c) for c in runs.select_dtypes("number") if c not in ("budget", "seed")]
    rows = []
    for at, part in runs.groupby(keys, sort=False):
        low, high = _student(part["judge_gain"].to_numpy())
        less, more = _student(part["per_thousand"].to_numpy())
        gain = part["gain"].mean()
        rows.append(dict(zip(keys, at if isinstance(at, tuple) else (at,), strict=True))
                    | {"seeds": len(part), **{c: float(part[c].mean()) for c in numbers},
                       "judge_low": low, "judge_high": high, "per_thousand_low": less,
                       "per_thousand_high": more,
                       "inflation": 1 - part["judge_gain"].mean() / gain if gain > 0 else np.nan})
    table = pd.DataFrame(rows)
    counts = table["per_thousand"].where(table["extrapolating"] <= 0.5)
    table["rank"] = counts.groupby([table["dataset"], table["budget"]]).rank(ascending=False, method="min")
    table = table.sort_values(["dataset", "budget", "rank"], kind="stable", na_position="last", ignore_index=True)
    leads = [(np.nan,) * 3] * len(table)
    for i in range(len(table) - 1):
        one, after = table.iloc[i], table.iloc[i + 1]
        if (one["dataset"], one["budget"]) == (after["dataset"], after["budget"]) and np.isfinite(after["rank"]):
            leads[i] = _lead(runs, one, after)
    table[["lead", "lead_low", "lead_high"]] = np.array(leads, float).reshape(len(table), 3)
    return table


def _lead(runs: pd.DataFrame, one: pd.Series, other: pd.Series) -> tuple[float, float, float]:
    where = (runs["dataset"] == one["dataset"]) & (runs["budget"] == one["budget"])
    first, second = (runs[where & (runs["method"] == row["method"])].set_index("seed")["per_thousand"]
                     for row in (one, other))
    ahead = (first - second).dropna().to_numpy()
    return (float(ahead.mean()) if len(ahead) else np.nan, *_student(ahead))


# Track C: targets


def targeted(table: pd.DataFrame) -> pd.DataFrame:
    """How often designs reach an asked level with few edits, all constraints kept.

    Parameters
    ----------
    table
        One row a design as the tool returned it: ``method, constraints, most_edits, percentile`` (of the level that
        was asked), ``target, tolerance, score, edits, feasible``, and ``judge_score`` where there is a judge.

    Returns
    -------
    DataFrame
        A row a method, constraint set, edit limit and percentile: ``n``, shares ``feasible`` (no filter afterwards),
        ``success`` (feasible, within the edits and the tolerance) with ``low, high`` (95 %, Wilson),
        ``judged_success``, and the mean ``edits``.
    """
    keys = ["method", "constraints", "most_edits", "percentile"]
    _need(table, (*keys, "target", "tolerance", "score", "edits", "feasible"), "designs")
    kept = table["feasible"].to_numpy(bool) & (table["edits"] <= table["most_edits"]).to_numpy()
    made = table.assign(success=kept & _near(table, "score"))
    if "judge_score" in table:
        made["judged_success"] = kept & _near(table, "judge_score")
    rows = []
    for at, part in made.groupby(keys, sort=False):
        low, high = _wilson(int(part["success"].sum()), len(part))
        rows.append(dict(zip(keys, at if isinstance(at, tuple) else (at,), strict=True))
                    | {"n": len(part), "feasible": float(part["feasible"].mean()),
                       "success": float(part["success"].mean()), "low": low, "high": high,
                       "judged_success": float(part["judged_success"].mean()) if "judged_success" in part else np.nan,
                       "edits": float(part["edits"].mean())})
    return pd.DataFrame(rows)


def _near(table: pd.DataFrame, column: str) -> ndarray:
    return ((table[column] - table["target"]).abs() <= table["tolerance"] + 1e-9).to_numpy()


# Track D: generators


def jensen_shannon(p: Float[ndarray, " words"], q: Float[ndarray, " words"]) -> float:
    """Jensen–Shannon divergence of two distributions, bits: 0 the same, 1 nothing in common."""
    middle = (p + q) / 2

    def against(one: ndarray) -> float:
        some = one > 0
        return float((one[some] * np.log2(one[some] / middle[some])).sum())

    return max(0.0, (against(p) + against(q)) / 2)


def generator_numbers(generated: UInt8[ndarray, "n L"], train: UInt8[ndarray, "N L"],
                      held_out: UInt8[ndarray, "M L"], *, asked: Float[ndarray, " n"] | None = None,
                      judge: Callable[[UInt8[ndarray, "n L"]], Float[ndarray, " n"]] | None = None,
                      ks: Sequence[int] = (3, 4, 6), seed: int = 0) -> pd.DataFrame:
    """Whether generated sequences look real, do what was asked, and are not copies.

    Parameters
    ----------
    generated
        Samples of a generator.
    train, held_out
        What it was trained on, and real sequences that it did not see.
    asked, judge
        Level that each sample was to have, and a model of another family that says what it has.
    ks
        Word lengths.
    seed
        Of the real sequences that are drawn for comparison.

    Returns
    -------
    DataFrame
        Index: metric; columns ``generated`` and ``real``, the same number of as many held-out sequences: ``js_k`` of
        words against the other held-out ones (bits), ``separability`` (AUROC, ½ is best), ``longest_match`` with the
        training sequences (median, bp), ``copies`` (share that is a training sequence), ``uniqueness``,
        ``fidelity_r`` and ``fidelity_mse`` of the judge against what was asked.

    Raises
    ------
    SchemaError
        When there are fewer than 4 held-out sequences, or `asked` comes without `judge`.
    """
    if len(held_out) < 4 or not len(generated):
        raise SchemaError(f"generators need samples, and 4 or more held-out sequences; got {len(generated)} and "
                          f"{len(held_out)}")
    if (asked is None) != (judge is None):
        raise SchemaError("conditional fidelity needs both asked and judge")
    order = np.random.default_rng(seed).permutation(len(held_out))
    n = min(len(generated), len(held_out) // 2)  # samples beyond that would look better by their number alone
    real, rest = held_out[order[:n]], held_out[order[n:]]
    some = generated[np.random.default_rng(seed).permutation(len(generated))[:n]]
    found: dict[str, tuple[float, float]] = {}
    for k in ks:
        words = kmer_share(rest, k)
        found[f"js_{k}"] = (jensen_shannon(kmer_share(some, k), words), jensen_shannon(kmer_share(real, k), words))
    found["separability"] = (separability(some, rest, seed=seed), separability(real, rest, seed=seed))
    matches = longest_match(generated, train), longest_match(real, train)
    found["longest_match"] = (float(np.median(matches[0])), float(np.median(matches[1])))
    found["copies"] = tuple(float((m >= train.shape[1]).mean()) for m in matches)  # type: ignore[assignment]
    found["uniqueness"] = (len(np.unique(generated, axis=0)) / len(generated), len(np.unique(real, axis=0)) / len(real))
    if asked is not None and judge is not None:
        level = np.asarray(judge(generated), float)
        found["fidelity_r"] = (pearson(asked, level), np.nan)
        found["fidelity_mse"] = (float(((asked - level) ** 2).mean()), np.nan)
    return pd.DataFrame.from_dict(found, orient="index", columns=pd.Index(["generated", "real"])).rename_axis("metric")


# Track E: a world that is known


def world_numbers(table: pd.DataFrame, best: Float[ndarray, " S"], *, n_bootstrap: int = 500, seed: int = 0
                  ) -> pd.DataFrame:
    """True gains of designers in a world whose law is known.

    Parameters
    ----------
    table
        One row a design, the best of each start: ``method, origin, predicted_gain, true_gain``, and ``expected_gain``
        where there is a calibration.
    best
        The best true gain that is known for each start ``(S,)``, as of a greedy search by the law itself.
    n_bootstrap, seed
        Resamples of the starts.

    Returns
    -------
    DataFrame
        A row a method: ``n``, means ``predicted, true``, ``share`` = true gain / best true gain with ``low, high``,
        ``realised`` = true / predicted, ``calibrated`` = true / expected with limits, ``worse`` (share of designs that
        lost), and ``r`` of predicted and true gain.
    """
    _need(table, ("method", "origin", "predicted_gain", "true_gain"), "designs")
    rows = []
    for method, part in table.groupby("method", sort=False):
        true, predicted = (part[c].to_numpy(float) for c in ("true_gain", "predicted_gain"))
        known = best[part["origin"].to_numpy()]
        row: dict[str, Any] = {"method": method, "n": len(part), "predicted": predicted.mean(), "true": true.mean(),
                               "realised": true.mean() / predicted.mean(), "worse": float((true < 0).mean()),
                               "r": pearson(predicted, true)}
        pairs = {"share": known} | ({"calibrated": part["expected_gain"].to_numpy(float)}
                                    if "expected_gain" in part else {})
        for name, of in pairs.items():
            low, high = _ratio_limits(true, of, part["origin"].to_numpy(), n_bootstrap, seed)
            at = ("", "low", "high") if name == "share" else ("", "calibrated_low", "calibrated_high")
            row |= {name: true.sum() / of.sum(), at[1]: low, at[2]: high}
        rows.append(row)
    return pd.DataFrame(rows)


# Small change


def _need(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise SchemaError(f"{what} need the columns {', '.join(columns)}; {', '.join(missing)} missing")
    if not len(table):
        raise SchemaError(f"there are no {what}")
    for name in columns:
        bad = table[name].isna().to_numpy()
        if bad.any():
            raise SchemaError(f"{int(bad.sum()):,} of {len(table):,} {what} have no {name}; first: row "
                              f"{table.index[int(bad.argmax())]}")


def _rows_by(origin: ndarray) -> list[ndarray]:
    order = np.argsort(origin, kind="stable")
    _, first = np.unique(origin[order], return_index=True)
    return np.split(order, first[1:])


def _interval(values: ndarray, origin: ndarray, n: int, seed: int) -> tuple[float, float]:
    """95 % limits of a mean in resamples of the origins."""
    return _ratio_limits(values, np.ones(len(values)), origin, n, seed)


def _ratio_limits(above: ndarray, below: ndarray, origin: ndarray, n: int, seed: int) -> tuple[float, float]:
    """95 % limits of Σ above / Σ below in resamples of the origins."""
    sums = np.array([(above[rows].sum(), below[rows].sum()) for rows in _rows_by(origin)])
    rng = np.random.default_rng(seed)
    drawn = np.array([sums[rng.integers(len(sums), size=len(sums))].sum(axis=0) for _ in range(n)]).reshape(-1, 2)
    return _limits(drawn[:, 0] / drawn[:, 1])


def _limits(draws: ndarray) -> tuple[float, float]:
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def _student(values: ndarray) -> tuple[float, float]:
    """95 % limits of a mean of few values; NaN for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean() - half), float(values.mean() + half)


def _wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % limits of a share."""
    z, p = 1.959964, successes / n
    middle, half = (p + z**2 / (2 * n)), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return float((middle - half) / (1 + z**2 / n)), float((middle + half) / (1 + z**2 / n))
