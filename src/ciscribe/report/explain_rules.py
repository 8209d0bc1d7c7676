"""Sections of an explanation that judge: the rules between motifs, and whether the explanation can be believed."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
from markupsafe import Markup

from ciscribe.plot.faithfulness import plot_consistency, plot_faithfulness, plot_randomization
from ciscribe.plot.style import check_columns, display_name
from ciscribe.plot.syntax import plot_interactions, plot_position_effect, plot_spacing, series_of
from ciscribe.report.markup import count_text, figure_html, number_text, table_html
from ciscribe.report.sections import Section

_MOST_CURVES = 4
_MOST_MOTIFS = 20  # rows of a matrix
_SEEN = (" Bars count how often they stand so in the sequences, against what chance expects (dashed, with its 95 % "
         "band).")


def syntax_section(
    spacing: pd.DataFrame | None = None,
    observed: pd.DataFrame | None = None,
    interactions: pd.DataFrame | None = None,
    position: pd.DataFrame | None = None,
    surrogate: Mapping[str, Any] | None = None,
    coefficients: pd.DataFrame | None = None,
    *,
    tracks: Sequence[str] = (),
    units: str = "",
) -> Section | None:
    """Rules between motifs: who works with whom, at which distance, and where a motif works.

    Parameters
    ----------
    spacing, observed, interactions, position, surrogate, coefficients
        See `ciscribe.report.explain_files`. Of several tracks, the one with the strongest effect is shown.
    tracks
        Their names.
    units
        Of the effects.
    """
    body = Markup("")
    if filled(interactions):
        part, named = _strongest(interactions, "mean", tracks)
        names = list(dict.fromkeys([*part["motif_a"], *part["motif_b"]]))[:_MOST_MOTIFS]
        part = part.loc[part["motif_a"].isin(names) & part["motif_b"].isin(names)]
        caption = ("What two motifs do together beyond the sum of what each does alone: blue for more, orange for "
                   "less; values with a q-value above 0.05 are grey." + named)
        body += Markup("<h3>Who works with whom</h3>")
        body += figure_html(plot_interactions(part, units=units), "interactions", caption, "Interactions of motifs")
    if filled(spacing):
        body += _spacing(spacing, observed, tracks, units)
    if filled(position):
        check_columns(position, ("motif", "position", "mean"), "position.parquet")
        body += Markup("<h3>Where a motif works</h3>")
        part, named = _strongest(position, "mean", tracks)
        ranked = part.iloc[np.argsort(-part["mean"].abs().to_numpy(float), kind="stable")]["motif"]
        for i, motif in enumerate(list(ranked.unique())[:_MOST_CURVES], 1):
            figure = plot_position_effect(part.loc[part["motif"] == motif].drop(columns="motif"), units=units,
                                          title=str(motif))
            caption = "Effect of writing the motif into backgrounds, with a 95 % band." + named if i == 1 else None
            body += figure_html(figure, f"position-{i}", caption, f"Effect of {motif} by its position")
    if surrogate is not None or filled(coefficients):
        body += _surrogate(surrogate, coefficients)
    if not body:
        return None
    return Section("Rules between motifs", "syntax", "Motifs are written into backgrounds that hold none of them, and "
                   "the model is asked. A rule that shows here is the model's own, not an accident of the genome.",
                   body)


def robustness_section(
    curves: pd.DataFrame | None = None,
    methods: pd.DataFrame | None = None,
    consistency: pd.DataFrame | None = None,
    randomization: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
    *,
    tracks: Sequence[str] = (),
) -> Section | None:
    """Whether the explanation can be believed: does the model act on it, does it repeat, does it see the weights.

    Parameters
    ----------
    curves, methods, consistency, randomization, labels
        See `ciscribe.report.explain_files`. Of several tracks, the first is shown.
    tracks
        Their names.
    """
    body = Markup("")
    if filled(curves):
        part, named = _first_track(curves, tracks)
        caption = ("Bases are ranked by each method and kept (left) or destroyed (right), best first. A method that "
                   "finds the bases that matter rises fast on the left and falls fast on the right." + named)
        body += Markup("<h3>Does the model act on these bases?</h3>")
        body += figure_html(plot_faithfulness(part), "faithfulness", caption, "Insertion and deletion curves by method")
    if filled(methods):
        part, _ = _first_track(methods, tracks)
        columns = {"insertion": "Insertion area", "deletion": "Deletion area", "gap": "Gain over random order",
                   "agreement": "Agreement with mutagenesis", "seconds": "Seconds"}
        here = [c for c in columns if c in part.columns and part[c].notna().to_numpy().any()]
        rows = [(display_name(str(row["method"])), *(number_text(row[c], 1 if c == "seconds" else 3) for c in here))
                for row in part.to_dict("records")]
        body += table_html(("Method", *(columns[c] for c in here)), rows)
    for table, anchor, heading, text in (
        (consistency, "consistency", "Does it repeat?",
         "Agreement of the contributions within each sequence, averaged over sequences."),
        (labels, "labels", "Is it learned?",
         "Agreement with models that were trained on shuffled labels; it should be as low as chance."),
    ):
        if filled(table):
            part, named = _first_track(table, tracks)
            metric = "pearson" if (part["metric"] == "pearson").any() else str(part["metric"].iloc[0])
            drawn = " Lines are 95 % intervals, dashed ticks what unrelated maps reach."
            figure = plot_consistency(part, metric=metric)
            body += Markup("<h3>{}</h3>").format(heading)
            body += figure_html(figure, anchor, text + (drawn if "low" in part.columns else "") + named, heading)
    if filled(randomization):
        part, named = _first_track(randomization, tracks)
        metric = "spearman_abs" if (part["metric"] == "spearman_abs").any() else str(part["metric"].iloc[0])
        caption = ("Weights are drawn anew from the output down. A map that explains the model loses all agreement "
                   "with itself; one that only shows the sequence keeps it." + named)
        body += Markup("<h3>Does it depend on the model?</h3>")
        body += figure_html(plot_randomization(part, metric=metric), "randomization", caption,
                            "Agreement with the original map by layers drawn anew")
    if not body:
        return None
    return Section("Can this be believed?", "robustness", "An explanation can look convincing and be wrong. These "
                   "checks ask the model itself.", body)


def _spacing(spacing: pd.DataFrame, observed: pd.DataFrame | None, tracks: Sequence[str], units: str) -> Markup:
    """Curves of the pairs with the strongest cooperativity, and the peaks of all."""
    check_columns(spacing, ("motif_a", "motif_b", "gap", "mean"), "spacing.parquet")
    part, named = _strongest(spacing, "mean", tracks)
    pairs = [((str(p["motif_a"].iloc[0]), str(p["motif_b"].iloc[0])), p) for _, p in
             part.groupby(["motif_a", "motif_b"], sort=False)]
    pairs.sort(key=lambda pair: -float(pair[1]["mean"].abs().max()))
    body, rows = Markup("<h3>At which distance</h3>"), []
    for i, ((a, b), curve) in enumerate(pairs, 1):
        for name, series in series_of(curve).items():
            best = series.to_dict("records")[int(np.nanargmax(series["mean"].abs().to_numpy(float)))]
            known = "low" in series.columns
            rows.append((f"{a}, {b}", name, f"{best['gap']:g}", number_text(best["mean"], 3, sign=True),
                         *([f"{number_text(best['low'])} to {number_text(best['high'])}"] if known else [])))
        if i > _MOST_CURVES:
            continue
        seen = None if observed is None else observed.loc[observed["motif_a"].eq(a) & observed["motif_b"].eq(b)]
        figure = plot_spacing(curve, seen if filled(seen) else None, units=units, title=f"{a} and {b}")
        caption = ("What the pair does beyond the sum of both alone, by gap, with a 95 % band; (+) and (−) are the "
                   "strands, in the order in which the motifs stand." + (_SEEN if filled(seen) else "") + named
                   if i == 1 else None)
        body += figure_html(figure, f"spacing-{i}", caption, f"Cooperativity of {a} and {b} by their distance")
    header = ("Pair", "As they stand", "Best gap (bp)", "Cooperativity", "95 % interval")[:len(rows[0])]
    return body + Markup("<details><summary>Best gap of every pair</summary>{}</details>").format(
        table_html(header, rows, left=2))


def _surrogate(surrogate: Mapping[str, Any] | None, coefficients: pd.DataFrame | None) -> Markup:
    """How much of the model a sum of motifs and pairs says, and the largest terms."""
    body = Markup("<h3>A grammar that can be read</h3>")
    if surrogate is not None:
        body += Markup("<p>Motifs added up explain <b>{}</b> of the variance of the predictions (held out R²), with "
                       "pairs <b>{}</b>. What is left, the grammar does not know.</p>").format(
            number_text(surrogate.get("r2_additive")), number_text(surrogate.get("r2")))
    if filled(coefficients):
        order = np.argsort(-coefficients["effect"].abs().to_numpy(float), kind="stable")[:15]
        rows = []
        for row in coefficients.iloc[order].to_dict("records"):
            words = {k: str(row[k]) for k in ("motif_b", "strand", "order") if pd.notna(row.get(k)) and row[k] != ""}
            name = f"{row['motif_a']} with {words['motif_b']}" if "motif_b" in words else row["motif_a"]
            where = [words.get("strand", "").replace("-", "−"), words.get("order", ""),
                     f"{row['low']:g} to {row['high']:g} bp" if pd.notna(row.get("low")) else ""]
            rows.append((name, row["kind"], " ".join(w for w in where if w),
                         number_text(row["coefficient"], 3, sign=True), number_text(row["effect"], 3, sign=True),
                         count_text(row.get("n"))))
        body += table_html(("Term", "Kind", "Where", "Coefficient", "Effect of one sd", "Sequences"), rows, left=3)
    return body


def track_name(track: Any, tracks: Sequence[str]) -> str:
    """Name of a track that a table may only count."""
    counted = isinstance(track, (int, np.integer)) and 0 <= track < len(tracks)
    return tracks[int(track)] if counted else str(track)


def _strongest(table: pd.DataFrame, value: str, tracks: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Rows of the track with the largest value, and words that name it where there are several."""
    if "track" not in table.columns or len(set(table["track"])) < 2:
        return table, ""
    track = table["track"].iloc[int(np.nanargmax(table[value].abs().to_numpy(float)))]
    return table.loc[table["track"] == track], f" Track: {track_name(track, tracks)}, where effects are strongest."


def _first_track(table: pd.DataFrame, tracks: Sequence[str]) -> tuple[pd.DataFrame, str]:
    if "track" not in table.columns or len(set(table["track"])) < 2:
        return table, ""
    track = table["track"].iloc[0]
    return table.loc[table["track"] == track], f" Track: {track_name(track, tracks)}, the first of the run."


def filled(table: pd.DataFrame | None) -> TypeGuard[pd.DataFrame]:
    """Whether there is a table, and it has rows."""
    return table is not None and len(table) > 0
