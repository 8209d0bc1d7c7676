"""What is known of a design before it is ordered: how it compares with DNA that models know, and what gain is likely.

A predicted gain is not a gain. Designers find what the model likes, the model's errors included, so that every set of
designs comes with numbers that the designer did not climb: natives that look like it, models of other families, and how
much of a predicted gain was realised when such designs were measured (`fit_calibration`).

Percentiles are shares of natives that are *stranger* than the design, 0 to 100: low is strange.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.design.calibration import Calibration
from ciscribe.design.designs import Designs
from ciscribe.design.natives import (
    Natives,
    diversity,
    gc_content,
    kmer_correlation,
    longest_homopolymer,
    longest_match,
    motif_correlation,
    nearest_hamming,
    separability,
)
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.schema import Motif
from ciscribe.sequence import N, check_codes

CARD = Card(
    name="design-audit",
    kind="benchmark",
    summary="Says of designed sequences how far they lie from natural ones, and how much of their predicted gain to "
            "believe.",
    paper="own; k-mer, motif and classifier checks as in polygraph (Genome Biology 2025) and DRAKES (Wang et al., "
          "arXiv:2410.13643)",
    code="written from descriptions of Genentech/polygraph and ChenyuWang-Monica/DRAKES",
    differences=(
        "K-mers are counted with overlaps.",
        "The classifier that tells designs from natives is judged on sequences that it did not see.",
        "Disagreement of models is compared with natives of equal predicted score, not with all natives.",
        "Every set-level number stands beside what as many natives reach.",
    ),
)

VERDICTS = ("supported", "extrapolating", "out of distribution")
_EQUAL_SCORE = 100  # natives of the nearest predicted score


@dataclass(frozen=True)
class Thresholds:
    """Where the verdicts change.

    Parameters
    ----------
    out
        A design is out of distribution when its neighbours or its likelihood are stranger than in all but this
        percentage of natives.
    unusual
        It extrapolates below this percentile of neighbours, likelihood or disagreement, or above the highest label.
    judged
        A set extrapolates when the judge grants less than this share of the predicted gain.
    supported
        Share of supported designs that makes a set supported, of the share that is expected of natives: each
        percentile that is looked at calls its `unusual` % of them strange.
    majority
        Share of designs out of distribution that puts the set there.
    """

    out: float = 1.0
    unusual: float = 5.0
    judged: float = 0.5
    supported: float = 0.9
    majority: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.out <= self.unusual <= 100 or not all(0 <= s <= 1 for s in (self.supported, self.majority)):
            raise ConfigError(f"out and unusual are percentages, out the lower, supported and majority shares; got "
                              f"{self}")

    def describe(self) -> str:
        """In words."""
        return (f"out of distribution: neighbours or likelihood below percentile {self.out:g} of natives; "
                f"extrapolating: below percentile {self.unusual:g}, models disagree more than in all but "
                f"{self.unusual:g} % of natives of equal score, or above the highest label; a set is supported with "
                f"{self.supported:.0%} of the supported designs that as many natives have and {self.judged:.0%} of its "
                "gain granted by the judge, "
                f"and out of distribution with {self.majority:.0%} of its designs")


DEFAULT = Thresholds()


class Panel(NamedTuple):
    """Predictions of several models, in one unit, for designs and natives: where they disagree, none is to be trusted.

    Parameters
    ----------
    designs
        ``(M, n)``.
    natives
        ``(M, N)``, models in the same order, rows as in the natives.
    """

    designs: Float[ndarray, "M n"]
    natives: Float[ndarray, "M N"]


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found.

    Parameters
    ----------
    table
        One row a design; columns as in `audit_sequences`.
    summary
        Index: metric; columns ``value``, ``natives`` (the same of as many natives; NaN where it has no meaning).
    verdict
        One of `VERDICTS`.
    line
        The verdict in one sentence: counts, what was not looked at, and the thresholds.
    """

    table: pd.DataFrame
    summary: pd.DataFrame
    verdict: str
    line: str
    attrs: dict[str, Any] = field(default_factory=dict)


def audit(designs: Designs, natives: Natives, *, panel: Panel | None = None,
          feasible: Bool[ndarray, " n"] | None = None, calibration: Calibration | None = None,
          motifs: Sequence[Motif] | None = None, thresholds: Thresholds = DEFAULT, seed: int = 0) -> Audit:
    """Audit what a run found; see `audit_sequences`."""
    found = audit_sequences(
        designs.codes, natives, score=designs.score, judge_score=designs.judge_score, starts=designs.starts,
        origin=designs.origin, start_score=designs.start_score, judge_start_score=designs.judge_start_score,
        panel=panel, feasible=feasible, calibration=calibration, motifs=motifs, thresholds=thresholds, seed=seed)
    for name, value in (("queries", designs.queries), ("seconds", designs.seconds)):
        found.summary.loc[name] = (float(value), np.nan)
    found.attrs["designer"] = designs.card.name
    return found


def audit_sequences(codes: UInt8[ndarray, "n L"], natives: Natives, *, score: Float[ndarray, " _"] | None = None,
                    judge_score: Float[ndarray, " _"] | None = None, starts: UInt8[ndarray, "S _"] | None = None,
                    origin: Int[ndarray, " _"] | None = None, start_score: Float[ndarray, " _"] | None = None,
                    judge_start_score: Float[ndarray, " _"] | None = None, panel: Panel | None = None,
                    feasible: Bool[ndarray, " n"] | None = None, calibration: Calibration | None = None,
                    motifs: Sequence[Motif] | None = None, thresholds: Thresholds = DEFAULT, seed: int = 0) -> Audit:
    """Audit designed sequences, wherever they come from.

    Parameters
    ----------
    codes
        Designs, uint8 ``(n, L)``, without N.
    natives
        What they are held against; the training sequences of the model, else matches to them are not seen.
    score, judge_score
        Predicted by the model that was climbed, and by one of another family on other data, in the units of the
        labels.
    starts, origin, start_score, judge_start_score
        What was improved, which of them each design comes from, and their scores; together.
    panel
        Predictions of several models of different architecture. Seeds of one small network do not count: their spread
        knows nothing of the error.
    feasible
        Which designs keep all constraints (`Constraints.ok`).
    calibration
        From predicted to expected gain (`fit_calibration`).
    motifs
        Adds their correlation to top natives.
    thresholds
        Of the verdict.
    seed
        Of folds and of the natives that are drawn for comparison.

    Returns
    -------
    Audit
        Columns of the table, those that can be known: ``score, judge_score, gain, judge_gain, edits, calibrated_gain,
        above_labels, knn_distance, knn_percentile, markov_loglik, markov_percentile, disagreement,
        disagreement_percentile, gc, homopolymer, longest_match, nearest_hamming, feasible, verdict``. Percentiles: low
        is strange.

    Raises
    ------
    SchemaError
        When there is no design, a design holds N, or lengths do not fit.

    Notes
    -----
    A start with a few edits keeps most of its 6-mers, and where the start is a native, its neighbours look native: the
    percentiles speak of composition, not of whether the edits do what was predicted. That is what the judge, the
    panel and the calibration are for.
    """
    _check(codes, score, judge_score, starts, origin, start_score, judge_start_score, panel, natives)
    table = pd.DataFrame(index=pd.RangeIndex(len(codes)))
    for name, value in (("score", score), ("judge_score", judge_score)):
        if value is not None:
            table[name] = value
    if starts is not None and origin is not None:
        for name, value, before in (("gain", score, start_score), ("judge_gain", judge_score, judge_start_score)):
            if value is not None and before is not None:
                table[name] = value - before[origin]
        table["edits"] = (codes != starts[origin]).sum(axis=1)
        if calibration is not None and "gain" in table:
            table["calibrated_gain"] = calibration.expected(table["gain"].to_numpy(), table["edits"].to_numpy(float))
    if score is not None and natives.labels is not None:
        table["above_labels"] = score > natives.highest
    table["knn_distance"] = natives.distance(codes)
    table["knn_percentile"] = natives.knn_percentile(table["knn_distance"].to_numpy())
    table["markov_loglik"] = natives.loglik(codes)
    table["markov_percentile"] = natives.markov_percentile(table["markov_loglik"].to_numpy())
    if panel is not None:
        table["disagreement"], table["disagreement_percentile"] = disagreement_percentile(panel)
    table["gc"], table["homopolymer"] = gc_content(codes), longest_homopolymer(codes)
    table["longest_match"] = longest_match(codes, natives.codes)
    if natives.codes.shape[1] == codes.shape[1]:
        table["nearest_hamming"] = nearest_hamming(codes, natives.codes)
    if feasible is not None:
        table["feasible"] = feasible
    table["verdict"] = _verdicts(table, thresholds)
    groups = origin if starts is not None and len(starts) > 1 else None
    summary = _summary(codes, table, natives, groups, motifs, seed)
    verdict, line = _line(table, summary, natives, thresholds)
    return Audit(table, summary, verdict, line)


def _check(codes: ndarray, score: ndarray | None, judge_score: ndarray | None, starts: ndarray | None,
           origin: ndarray | None, start_score: ndarray | None, judge_start_score: ndarray | None,
           panel: Panel | None, natives: Natives) -> None:
    check_codes(codes)
    if not len(codes):
        raise SchemaError("there is no design to audit")
    if (codes == N).any():
        bad = (codes == N).any(axis=1)
        raise SchemaError(f"designs are A C G T only; {int(bad.sum()):,} of {len(codes):,} hold N; first: row "
                          f"{int(bad.argmax())}")
    n_starts = 0 if starts is None else len(starts)
    for name, values, n in (("score", score, len(codes)), ("judge_score", judge_score, len(codes)),
                            ("start_score", start_score, n_starts), ("judge_start_score", judge_start_score, n_starts)):
        if values is None:
            continue
        if len(values) != n:
            raise SchemaError(f"{name} has {len(values)} numbers for {n} sequences")
        if not np.isfinite(values).all():
            raise SchemaError(f"{int((~np.isfinite(values)).sum()):,} of {n:,} numbers of {name} are not finite; "
                              f"first: row {int((~np.isfinite(values)).argmax())}")
    if starts is not None and (origin is None or starts.shape[1] != codes.shape[1] or len(origin) != len(codes)
                               or not ((origin >= 0) & (origin < n_starts)).all()):
        raise SchemaError(f"each of {len(codes)} designs of {codes.shape[1]} bp needs its origin among the {n_starts} "
                          f"starts, which are {starts.shape[1]} bp long")
    if panel is not None and (panel.designs.shape[1] != len(codes) or panel.natives.shape[1] != len(natives.codes)):
        raise SchemaError(f"the panel is (models, {len(codes)} designs) and (models, {len(natives.codes)} natives); "
                          f"got {panel.designs.shape} and {panel.natives.shape}")


def _verdicts(table: pd.DataFrame, limits: Thresholds) -> pd.Series:
    strange = table[["knn_percentile", "markov_percentile"]].min(axis=1)
    out = strange < limits.out
    beyond = strange < limits.unusual
    if "above_labels" in table:
        beyond |= table["above_labels"]
    if "disagreement_percentile" in table:
        beyond |= table["disagreement_percentile"] < limits.unusual
    return pd.Series(np.select([out, beyond], [VERDICTS[2], VERDICTS[1]], VERDICTS[0]), index=table.index)


def _supported_natives(table: pd.DataFrame, limits: Thresholds) -> float:
    """Share of natives that every percentile of the table finds usual, if each calls other ones strange."""
    looked_at = sum(name in table for name in ("knn_percentile", "markov_percentile", "disagreement_percentile"))
    return 1 - looked_at * limits.unusual / 100


def _summary(codes: ndarray, table: pd.DataFrame, natives: Natives, groups: ndarray | None,
             motifs: Sequence[Motif] | None, seed: int) -> pd.DataFrame:
    """Numbers of the set, beside those of as many natives."""
    rows = np.random.default_rng(seed).permutation(len(natives.codes))[:len(codes)]
    drawn, rest = natives.codes[rows], np.delete(natives.codes, rows, axis=0)
    length = codes.shape[1]
    found: dict[str, tuple[float, float]] = {
        "designs": (float(len(codes)), float(len(drawn))),
        "gc": (float(table["gc"].mean()), float(gc_content(drawn).mean())),
        "homopolymer": (float(table["homopolymer"].max()), float(longest_homopolymer(drawn).max())),
        "longest_match": (float(table["longest_match"].median()),
                          float(np.median(longest_match(drawn, rest))) if len(rest) else np.nan),
        "uniqueness": (len(np.unique(codes, axis=0)) / len(codes), len(np.unique(drawn, axis=0)) / len(drawn)),
        "diversity": (diversity(codes), diversity(drawn)),
        "separability": (separability(codes, natives.codes, groups=groups, seed=seed),
                         separability(drawn, rest, seed=seed) if len(rest) >= 2 else np.nan),
    }
    if "nearest_hamming" in table and len(rest):
        found["novelty"] = (float(table["nearest_hamming"].median() / length),
                            float(np.median(nearest_hamming(drawn, rest)) / length))
    if natives.top is not None:
        found["kmer_correlation"] = (kmer_correlation(codes, natives.top), kmer_correlation(drawn, natives.top))
        if motifs:
            found["motif_correlation"] = (motif_correlation(codes, natives.top, motifs),
                                          motif_correlation(drawn, natives.top, motifs))
    for name in ("gain", "judge_gain", "calibrated_gain", "edits", "feasible"):
        if name in table:
            found[name] = (float(table[name].mean()), np.nan)
    if "gain" in table:
        found["improved"] = (float((table["gain"] > 0).mean()), np.nan)
    if "judge_gain" in table:
        found["judge_improved"] = (float((table["judge_gain"] > 0).mean()), np.nan)
        if "gain" in table and table["gain"].mean() > 0:
            found["judged_share"] = (float(table["judge_gain"].mean() / table["gain"].mean()), np.nan)
            spread = table["gain"].to_numpy() - table["gain"].mean()
            if (spread**2).sum() > 0:
                found["judged_slope"] = (float(spread @ table["judge_gain"].to_numpy() / (spread @ spread)), np.nan)
    return pd.DataFrame.from_dict(found, orient="index", columns=pd.Index(["value", "natives"])).rename_axis("metric")


def _line(table: pd.DataFrame, summary: pd.DataFrame, natives: Natives, limits: Thresholds) -> tuple[str, str]:
    n, count = len(table), {name: int((table["verdict"] == name).sum()) for name in VERDICTS}
    judged = float(summary["value"].reindex(["judged_share"]).iloc[0])
    if count[VERDICTS[2]] >= limits.majority * n:
        verdict = VERDICTS[2]
    elif count[VERDICTS[0]] < limits.supported * _supported_natives(table, limits) * n or judged < limits.judged:
        verdict = VERDICTS[1]
    else:
        verdict = VERDICTS[0]
    parts = [", ".join([f"{count[VERDICTS[0]]} of {n} designs supported",
                        *(f"{count[name]} {name}" for name in VERDICTS[1:] if count[name])])]
    above = 0 if "above_labels" not in table else int(table["above_labels"].sum())
    if above:
        parts.append(f"{above} score above the highest label ({natives.highest:.3g})")
    if np.isfinite(judged):
        parts.append(f"the judge grants {judged:.0%} of the predicted gain")
    missing = [what for column, what in (("judge_score", "a judge"), ("above_labels", "the label range"),
                                         ("disagreement", "disagreement of models")) if column not in table]
    if missing:
        parts.append(f"not looked at: {', '.join(missing)}")
    return verdict, f"{verdict}: {'; '.join(parts)}. Thresholds: {limits.describe()}."


def disagreement_percentile(panel: Panel) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """How much models disagree (SD), and the percentage of natives of equal score in which they disagree as much.

    Disagreement grows with the score itself, so each design is compared with the 100 natives whose mean prediction is
    nearest to its own.
    """
    if len(panel.designs) < 2 or len(panel.designs) != len(panel.natives):
        raise SchemaError(f"a panel is two or more models, the same for designs and natives; got {len(panel.designs)} "
                          f"and {len(panel.natives)}")
    spread, native_spread = panel.designs.std(axis=0), panel.natives.std(axis=0)
    level, native_level = panel.designs.mean(axis=0), panel.natives.mean(axis=0)
    n = min(_EQUAL_SCORE, len(native_level))
    out = np.empty(len(level))
    for i, (mean, sd) in enumerate(zip(level, spread, strict=True)):
        near = np.argpartition(np.abs(native_level - mean), n - 1)[:n]
        out[i] = 100 * (native_spread[near] >= sd).mean()
    return spread, out
