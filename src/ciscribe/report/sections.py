"""Sections of a report: each takes results, says in plain words what they mean, and shows figures and tables.

A section whose data is None is None itself, and the page leaves it out. All HTML is put together with
`markupsafe`, which escapes every value that is not markup already: a gene name can never become a tag.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ciscribe.plot.curves import plot_budget_curves, plot_precision_recall, plot_training, plot_truncation
from ciscribe.plot.scores import plot_metric_bars, plot_scatter_grid
from ciscribe.plot.style import check_columns, display_name
from ciscribe.plot.tracks import Locus, plot_locus
from ciscribe.report.markup import (
    count_text,
    figure_html,
    interval_html,
    number_text,
    spread_text,
    table_html,
)

_FOLDS = {"train": "training", "valid": "validation", "test": "test"}
_METRICS = {"pearson": "Pearson r", "spearman": "Spearman ρ", "mse": "MSE", "mae": "MAE"}
_LABEL_METRICS = {"auroc": "AUROC", "auprc": "AUPRC"}


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Parameters
    ----------
    title
        Heading, also in the contents.
    anchor
        Id of the section on the page; lower-case letters and hyphens.
    lead
        What the section shows and how to read it, one or two sentences; escaped by the page.
    html
        Body. Trusted: it must have been escaped where it was put together.
    """

    title: str
    anchor: str
    lead: str
    html: str


def data_section(metrics: Mapping[str, Any] | None) -> Section | None:
    """How the genes were divided: chromosomes and number of genes of each fold."""
    if metrics is None:
        return None
    rows = [
        (
            str(_FOLDS.get(fold, fold)).capitalize(),
            ", ".join(map(str, part["chroms"])),
            f"{part['n_genes']:,}",
        )
        for fold, part in metrics["split"].items()
    ]
    targets = Markup(", ").join(Markup("<b>{}</b>").format(t) for t in metrics["targets"])
    n = len(metrics["targets"])
    body = table_html(("Genes", "Chromosomes", "Number"), rows, left=2)
    body += Markup("<p>The model predicts {} target{} for every gene: {}.</p>").format(n, "s" if n > 1 else "", targets)
    return Section(
        "Data",
        "data",
        "Whole chromosomes are held out: the model learned on the training genes, its settings were chosen "
        "on the validation genes, and every score in this report comes from test genes that it never saw.",
        body,
    )


def accuracy_section(predictions: pd.DataFrame | None, *, units: str = "", fold: str = "test", unit: str = "gene",
                     what: str = "expression", where: str = "on test chromosomes") -> Section | None:
    """Measured against predicted values, one panel a target.

    Parameters
    ----------
    predictions
        Columns ``cell, fold, observed, predicted``, one row a gene and target.
    units
        Of the expression values, e.g. ``log10(TPM + 1)``.
    fold
        Which rows to show.
    unit, what, where
        What a row is, what is predicted, and where, for the text.
    """
    if predictions is None:
        return None
    figure = plot_scatter_grid(predictions, fold=fold, units=units)
    caption = (
        f"Each point is a {unit} (with many {unit}s, each hexagon counts {unit}s: the stronger its color, the "
        f"more). The dashed line is a perfect prediction; r is the Pearson correlation, n the number of {unit}s."
    )
    return Section(
        f"Predicted {what}",
        "accuracy",
        f"How close the predictions come to the measurements {where}. "
        "The tighter the cloud lies around the dashed line, the better.",
        figure_html(figure, "accuracy", caption, f"Measured against predicted {what} for every target"),
    )


def metrics_section(metrics: Mapping[str, Any] | None, *, unit: str = "gene") -> Section | None:
    """Scores of the model beside its baselines, with confidence intervals and the noise ceiling.

    A `unit` is what a row of the data is. Scores of labels (AUROC, AUPRC) take the place of correlations where the
    metrics hold them.
    """
    if metrics is None:
        return None
    models, main = metrics["models"], metrics.get("main")
    labels = all("auroc" in m["mean"] for m in models.values())
    shown = _LABEL_METRICS if labels else _METRICS
    names = [n for n in models if n == main] + [n for n in models if n != main]
    ceiling = metrics.get("noise_ceiling") or {}
    caption = f"Bars are values on the test {unit}s, lines their 95 % bootstrap intervals."
    if ceiling.get("pearson"):
        caption += (
            " The dashed mark is the noise ceiling: the correlation that a perfect model would reach, "
            "because the measurements themselves are noisy."
        )
    figure = plot_metric_bars(metrics, next(iter(shown)))
    body = figure_html(figure, "metrics", caption, f"{next(iter(shown.values()))} of every model and target")

    several = len(metrics["targets"]) > 1
    across = any(models[n].get("across_target") for n in names)
    header = ["Model", *shown.values(), *(["Across targets r"] if across else [])]
    rows = []
    for name in names:
        scores = [models[name]["mean"].get(m) for m in shown] + (
            [models[name].get("across_target")] if across else []
        )
        rows.append((display_name(name), *map(interval_html, scores)))
    if ceiling.get("pearson"):
        rows.append(("noise ceiling", number_text(ceiling["pearson"].get("mean")), *[""] * (len(header) - 2)))
    body += Markup("<h3>{}</h3>").format("Mean over targets" if several else "Scores")
    body += table_html(header, rows, strong=main is not None)
    note = ("Higher is better" + ("" if labels else " for r and ρ, lower for the errors (MSE, MAE)")
            + ". Small figures: 95 % interval.")
    if across:
        note += (
            f" Across targets r: the correlation of what is left when each {unit}'s mean over the targets is taken "
            f"off; it asks whether the model knows where a {unit} is active, not only how active it is."
        )
    body += Markup('<p class="note">{}</p>').format(note)
    if several:
        rows = [
            (
                target if name == names[0] else "",
                display_name(name),
                *(interval_html(models[name]["per_target"].get(target, {}).get(m)) for m in shown),
            )
            for target in metrics["targets"]
            for name in names
        ]
        table = table_html(("Target", "Model", *shown.values()), rows, left=2)
        body += Markup("<details><summary>Every target in numbers</summary>{}</details>").format(table)
    return Section(
        "Accuracy beside baselines",
        "metrics",
        f"The same scores for the model and for simpler methods that were fitted on the same {unit}s. The model "
        "earns its keep only where its interval lies clear of the baselines.",
        body,
    )


def training_section(log: pd.DataFrame | None) -> Section | None:
    """Loss and validation correlation over the epochs."""
    if log is None or not len(log):
        return None
    return Section(
        "Training",
        "training",
        "Loss falls while the model learns; when the validation curve turns while the training curve still "
        "falls, the model begins to memorize. The weights of the best validation epoch are kept.",
        figure_html(plot_training(log), "training", "One point an epoch.", "Loss and correlation by epoch"),
    )


def truncation_section(metrics: Mapping[str, Any] | None) -> Section | None:
    """Correlation against the width of the window; None where it was not measured."""
    if metrics is None or not metrics.get("truncation"):
        return None
    figure = plot_truncation(metrics["truncation"]).get_figure(root=True)
    return Section(
        "How far the model looks",
        "truncation",
        "The trained model sees only the middle of its window; sequence and signals outside are blanked. "
        "Where the curve is flat, distant elements add nothing to the prediction.",
        figure_html(
            figure,
            "truncation",
            "Pearson r on test genes, mean over targets; logarithmic axis.",
            "Correlation by window width",
        ),
    )


def loci_section(loci: Sequence[Locus] | None) -> Section | None:
    """Genome panels of chosen genes, with the measured and predicted values of each."""
    if not loci:
        return None
    body = Markup("")
    for i, locus in enumerate(loci, 1):
        strand = {"+": "forward strand", "-": "reverse strand"}.get(locus.strand, "strand not known")
        where = f"{locus.chrom}:{locus.start + 1:,}–{locus.end:,}"
        body += Markup('<h3 id="locus-{}">{} <span class="aside">{}{} · {}</span></h3>').format(
            i,
            locus.gene_name,
            f"{locus.gene_id} · " if locus.gene_id != locus.gene_name else "",
            where,
            strand,
        )
        body += figure_html(
            plot_locus(locus), f"locus-{i}-figure", None, f"Signals, mask, elements and genes at {where}"
        )
        if locus.observed or locus.predicted:
            cells = list(dict.fromkeys([*locus.observed, *locus.predicted]))
            rows = [
                ("measured", *(number_text(locus.observed.get(c), 2) for c in cells)),
                ("predicted", *(number_text(locus.predicted.get(c), 2) for c in cells)),
            ]
            body += table_html(("Expression", *cells), rows)
    body += _reading_guide(loci)
    return Section(
        "Genes up close",
        "loci",
        "What the model read around single genes, and which stretches it called as regulatory elements. "
        "A guide to the rows follows the last gene.",
        body,
    )


def elements_section(elements: pd.DataFrame | None, *, most: int = 15) -> Section | None:
    """Sum up the called elements, and list the ones with the largest effect.

    Parameters
    ----------
    elements
        Called elements: ``chrom, start, end, gene_id, cell, score, score_sd, effect``; ``gene_name`` where
        known.
    most
        Rows of the table.
    """
    if elements is None:
        return None
    check_columns(elements, ("chrom", "start", "end", "gene_id", "cell", "score", "score_sd", "effect"), "elements")
    lead = (
        "Stretches of DNA that the model needs for its predictions. The effect is the predicted expression "
        "with the element minus that without it: positive for an enhancer, negative for a silencer."
    )
    if not len(elements):
        return Section("Called elements", "elements", lead, Markup('<p class="note">No element was called.</p>'))
    width = (elements["end"] - elements["start"]).to_numpy()
    distinct = len(elements.drop_duplicates(["chrom", "start", "end"]))
    body = Markup(
        "<p>Elements: <b>{}</b>, median width {} bp. Genes with at least one: <b>{}</b>. "
        "Effects that raise expression: <b>{}</b>; that lower it: <b>{}</b>.</p>"
    ).format(
        f"{distinct:,}",
        f"{np.median(width):,.0f}",
        f"{elements['gene_id'].nunique():,}",
        f"{int((elements['effect'] > 0).sum()):,}",
        f"{int((elements['effect'] < 0).sum()):,}",
    )
    order = np.argsort(-elements["effect"].abs().fillna(0).to_numpy(float), kind="stable")[:most]
    gene = "gene_name" if "gene_name" in elements.columns else "gene_id"
    rows = [
        (
            e[gene],
            f"{e['chrom']}:{e['start'] + 1:,}–{e['end']:,}",
            e["cell"],
            f"{e['end'] - e['start']:,}",
            spread_text(e["score"], e["score_sd"]),
            number_text(e["effect"], 2, sign=True),
        )
        for e in elements.iloc[order].to_dict("records")
    ]
    body += Markup("<h3>Largest effects</h3>")
    body += table_html(("Gene", "Position", "Target", "Width (bp)", "Score ± sd", "Effect"), rows, left=3)
    return Section("Called elements", "elements", lead, body)


def benchmark_section(
    table: pd.DataFrame | None,
    curves: pd.DataFrame | None = None,
    suff_nec: pd.DataFrame | None = None,
    *,
    links: pd.DataFrame | None = None,
    main: str | None = None,
) -> Section | None:
    """Compare calls with known elements at equal base pairs, and ask whether the prediction rests on them.

    Parameters
    ----------
    table
        Columns ``method, auprc`` and any of ``auprc_full, precision, recall, f1, called_bp, budget_bp``.
    curves
        Columns ``method, bp, precision, recall``.
    suff_nec
        Columns ``budget, kind, order, r``.
    links
        The same of element–gene pairs, with ``called_pairs`` and ``budget_pairs``.
    main
        The method that the report is about; None takes the first of the table.
    """
    if table is None and suff_nec is None:
        return None
    body = Markup("")
    if table is not None and len(table):
        main = main or str(table["method"].iloc[0])
        if curves is not None and len(curves):
            caption = (
                "Every method calls base pairs from its most to its least certain. Filled points mark the "
                "shared budget: the same number of base pairs for each method. AUPRC is the area under "
                "the curve."
            )
            body += figure_html(
                plot_precision_recall(curves, table, main=main),
                "precision-recall",
                caption,
                "Precision against recall of element calls",
            )
        body += _ranking(table, main)
        if links is not None and len(links):
            body += Markup(
                "<h3>Which element for which gene?</h3><p>The same for pairs of an element and a gene, at equal "
                "numbers of pairs; peaks are paired with every gene whose window they lie in, as they are and "
                "divided by distance.</p>"
            )
            body += _ranking(links, main)
    if suff_nec is not None and len(suff_nec):
        caption = (
            "Base pairs are ranked by each method. Left: the model sees only the best ones. Right: the model "
            "sees everything but them. Elements that matter keep r high on the left and pull it down on the "
            "right with few base pairs."
        )
        body += Markup("<h3>Does the prediction rest on them?</h3>")
        body += figure_html(plot_budget_curves(suff_nec), "budget", caption, "Sufficiency and necessity of elements")
    return Section(
        "Do predictions rest on the elements?" if table is None else "Elements against the truth",
        "benchmark",
        "How much of the prediction the best bases carry, alone and by their absence."
        if table is None
        else "Are the called base pairs the ones that drive expression? Methods are compared at equal base pairs, "
        "so that calling more is no advantage.",
        body,
    )


def _ranking(table: pd.DataFrame, main: str) -> Markup:
    """Scores of the methods of a benchmark, best first."""
    columns = [c for c in _BENCHMARK if c in table.columns]
    ranked = table.sort_values("auprc", ascending=False, kind="stable")
    rows = [
        (
            display_name(str(row["method"])),
            *(count_text(row[c]) if c.endswith(("_bp", "_pairs")) else number_text(row[c]) for c in columns),
        )
        for row in ranked.to_dict("records")
    ]
    strong = [i for i, name in enumerate(ranked["method"]) if str(name) == main]
    return table_html(("Method", *(_BENCHMARK[c] for c in columns)), rows, strong=strong[0] if strong else False)


_BENCHMARK = {
    "auprc": "AUPRC",
    "auprc_full": "AUPRC, all calls",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "called_bp": "Called bp",
    "budget_bp": "Budget bp",
    "called_pairs": "Called pairs",
    "budget_pairs": "Budget pairs",
}


def _reading_guide(loci: Sequence[Locus]) -> Markup:
    """Say what each row of a locus figure means."""
    rows = [
        (
            "Signals",
            "Chromatin tracks that the model reads beside the sequence; the number at the right is the "
            "highest value in view.",
        ),
        (
            "Mask",
            "Share of each stretch that the model lets through to its prediction: 0 hides it, 1 keeps it "
            "all. The band is one posterior standard deviation to each side.",
        ),
        (
            "Called elements",
            "Stretches that the mask keeps, shaded through all rows. The number is the effect: "
            "prediction with the element minus without it.",
        ),
    ]
    if any(locus.truth is not None for locus in loci):
        label = next(locus.truth_label for locus in loci if locus.truth is not None)
        rows.append((label.capitalize(), "For comparison; the model has not seen these."))
    rows.append(
        (
            "Genes",
            "Gene bodies with an arrow from the start of transcription; the gene of the figure is dark and "
            "its start is the dashed line. Names are left out where there is no "
            "room, and +n at the right counts genes that are not drawn at all.",
        )
    )
    items = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(*row) for row in rows)
    return Markup('<h3>How to read the rows</h3><dl class="guide">{}</dl>').format(items)
