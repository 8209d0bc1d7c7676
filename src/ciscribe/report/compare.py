"""The page of a comparison: who is better, on which folds, by how much more than chance, and what each needs to see."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ciscribe.card import Card
from ciscribe.plot.comparison import plot_by_fold, plot_lines
from ciscribe.report.build import build_report
from ciscribe.report.markup import count_text, figure_html, number_text, table_html
from ciscribe.report.sections import Section

_MOST_LINES = 6


def write_compare_report(path: Path, title: str, summary: pd.DataFrame, tables: Mapping[str, pd.DataFrame], *,
                         reference: str, targets: Sequence[str], cards: Sequence[Card],
                         provenance: Mapping[str, Any]) -> None:
    """Write the page of a comparison.

    Parameters
    ----------
    path
        Where to.
    title
        Of the page.
    summary, tables
        What `ciscribe.workflow.compare.Compare.summarize` makes: one row a model, best first; by name ``fits,
        differences, deciles, calibration, rate, truncation``.
    reference
        The row that gains are over.
    targets
        Names of the targets, over which figures are means.
    cards
        Of what was compared.
    provenance
        What made it.
    """
    best = summary.iloc[0]
    rival = summary[summary["model"] == reference].iloc[0]
    shown = list(dict.fromkeys([*summary["model"].head(_MOST_LINES - 1), reference]))
    tiles = [("best", str(best["model"]), f"r {number_text(best['pearson'])} ± {number_text(best['pearson_sd_folds'])} "
              "over folds"),
             ("over " + reference, number_text(best.get("gain"), sign=True),
              f"95 % {number_text(best.get('gain_low'))} to {number_text(best.get('gain_high'))}, paired over genes"),
             ("fits", count_text(summary["n_fits"].sum()), f"{count_text(best['n_folds'])} folds, "
              f"{count_text(best['n_seeds'])} seeds of the best")]
    build_report(path, title=title, subtitle=f"{len(summary)} models; targets: {', '.join(targets)}; reference "
                 f"{reference} (r {number_text(rival['pearson'])})", summary=tiles,
                 sections=[table_section(summary, reference), across_section(tables["differences"], reference),
                           fold_section(tables["fits"], summary, reference), *curve_sections(tables, shown)],
                 cards=cards, provenance=dict(provenance))


def table_section(summary: pd.DataFrame, reference: str) -> Section:
    """Every model with its spread and its gain."""
    rows = [[row["model"], number_text(row["pearson"]), _gain(row, "gain"), number_text(row.get("p")),
             number_text(row["pearson_sd_folds"]), number_text(row["pearson_sd_seeds"]), number_text(row["ensemble"]),
             count_text(row["n_fits"])] for row in summary.to_dict("records")]
    others = [[row["model"], number_text(row["spearman"]), number_text(row["mse"]), number_text(row["mae"]),
               number_text(row["across_target"]), number_text(row["slope"], 2), count_text(row["parameters"]),
               count_text(row["seconds"])] for row in summary.to_dict("records")]
    lead = ("Means over targets, seeds and folds; r is over the genes of a fold. ± is the standard deviation over "
            "folds (of the means of seeds) and over seeds (mean over folds). Ensemble: r of the mean of the seeds' "
            f"predictions. Gain over {reference} on the same folds, with its 95 % interval: genes are resampled "
            "within folds, the same for all models; p is two-sided and not corrected for the number of models. Slope "
            "of measured on predicted: 1 is calibrated.")
    body = table_html(["model", "r", "gain in r", "p", "± folds", "± seeds", "ensemble", "fits"], rows, strong=True)
    body += table_html(["model", "ρ", "MSE", "MAE", "across targets", "slope", "parameters", "s a fit"], others)
    return Section("Results", "results", lead, body)


def across_section(differences: pd.DataFrame, reference: str) -> Section | None:
    """The same test on what varies within genes."""
    table = pd.DataFrame(differences.loc[differences["figure"] == "across_target"])
    if not len(table):
        return None
    rows = [[row["model"], _interval(row, "value", ("low", "high")), _gain(row, "gain"), number_text(row["p"])]
            for row in table.sort_values("value", ascending=False).to_dict("records")]
    return Section("Between targets", "across", "Does the model know which of a gene's own targets is higher? "
                   f"Correlation of what is left when each gene's mean is taken off, and the gain over {reference}.",
                   table_html(["model", "r across targets", "gain", "p"], rows, strong=True))


def fold_section(fits: pd.DataFrame, summary: pd.DataFrame, reference: str) -> Section:
    """A dot a fold."""
    figure = plot_by_fold(fits, [str(m) for m in summary["model"]], reference=reference)
    per_fold = fits.pivot_table(index="model", columns="fold", values="pearson", sort=False)
    per_fold = per_fold.loc[summary["model"]]
    body = figure_html(figure, "by-fold", "A dot a fold, the mean of its seeds; the bar is the mean over folds.",
                       "Correlation by fold")
    body += table_html(["model", *map(str, per_fold.columns)],
                       [[m, *(number_text(v) for v in row)] for m, row in zip(per_fold.index, per_fold.to_numpy(),
                                                                             strict=True)])
    lead = "Chromosomes differ more than good models do: compare models within a fold."
    return Section("By fold", "folds", lead, body)


def curve_sections(tables: Mapping[str, pd.DataFrame], shown: Sequence[str]) -> list[Section]:
    """Tenths of expression, calibration, rate–distortion, truncation."""
    found = []
    curves: list[tuple[str, str, str, dict[str, Any]]] = [
        ("deciles", "By level of expression",
         "Correlation among genes of about the same measured level, from the lowest tenth to the highest. A model "
         "that only tells silent genes from active ones has nothing left here.",
         {"x": "decile", "y": "r", "xlabel": "tenth of measured expression", "ylabel": "Pearson r within"}),
        ("calibration", "Calibration",
         "Mean of what was measured where the model says so much; on the line, a prediction means what it says.",
         {"x": "predicted", "y": "observed", "xlabel": "predicted, mean of a tenth", "ylabel": "measured",
          "diagonal": True}),
        ("rate", "Rate–distortion",
         "Accuracy when the model sees only the share of each window that matters most to it (by its mask; models "
         "without one by the gradient). High on the left: little is needed, and the model knows what.",
         {"x": "fraction", "y": "pearson", "xlabel": "share of the window that is seen", "ylabel": "Pearson r",
          "scale": "share"}),
        ("truncation", "Truncation",
         "Accuracy when everything beyond a distance is hidden at test. A flat line to the left: what is far away "
         "is not used.",
         {"x": "window_bp", "y": "pearson", "xlabel": "window that is seen around the TSS", "ylabel": "Pearson r",
          "scale": "bp"})]
    for name, title, lead, given in curves:
        table = tables[name]
        if bool(table["model"].isin(list(shown)).to_numpy().any()):
            figure = plot_lines(table, models=shown, **given)
            found.append(Section(title, name, lead, figure_html(figure, name, None, title)))
    return found


def _interval(row: Mapping[str, Any], value: str, limits: tuple[str, str], sign: bool = False) -> str:
    text = number_text(row.get(value), sign=sign)
    low, high = (number_text(row.get(limit)) for limit in limits)
    return text if low == "–" else f"{text} [{low}, {high}]"


def _gain(row: Mapping[str, Any], name: str) -> str:
    if row.get(f"{name}_low") == row.get(f"{name}_high"):  # the reference itself
        return "–"
    return _interval(row, name, (f"{name}_low", f"{name}_high"), sign=True)
