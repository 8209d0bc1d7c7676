"""Sections about links and variants: which element serves which gene, what changes it, and how well that is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ciscribe.plot.curves import plot_precision_recall
from ciscribe.plot.links import ArcPanel, plot_reliability
from ciscribe.plot.panels import GenePanel, IntervalPanel, Panel, SignalPanel, View, inside
from ciscribe.plot.style import ORANGE, check_columns, display_name
from ciscribe.plot.tracks import plot_region
from ciscribe.plot.variants import LollipopPanel, plot_intervals
from ciscribe.report.markup import count_text, figure_html, number_text, table_html
from ciscribe.report.sections import Section

_MOST_ROWS = 25
_MOST_ELEMENTS = 60  # in view; more of them hide what is linked
_BASELINES = {"n_tss_between": "TSSs between", "nearest_tss": "nearest TSS", "within_100kb": "within 100 kb",
              "nearest_expressed_tss": "nearest expressed TSS"}


@dataclass(frozen=True)
class LinkedLocus:
    """A gene with its links, what was measured there, and the variants.

    Parameters
    ----------
    chrom, start, end
        The region in view, 0-based half-open.
    gene_id, gene_name, tss
        Whose links are shown.
    links
        Columns ``start, end, score`` of this gene's links, and ``label`` where it was tested; None where links are not
        known.
    genes
        Genes in the region, columns of `ciscribe.plot.panels.GenePanel`.
    elements
        All candidate elements in the region.
    tested
        CRISPRi pairs of this gene: ``start, end, label``; None where none was tested.
    variants
        Scored variants: ``pos`` and the column `value`; None where none was scored.
    value
        Score of the variants that is drawn.
    signals
        Track name → bin edges and values.
    """

    chrom: str
    start: int
    end: int
    gene_id: str
    gene_name: str
    tss: int
    links: pd.DataFrame | None
    genes: pd.DataFrame
    elements: pd.DataFrame | None = None
    tested: pd.DataFrame | None = None
    variants: pd.DataFrame | None = None
    value: str = "diff"
    signals: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None

    def panels(self) -> list[Panel]:
        """From top to bottom: signals, elements, links, what was tested, variants, genes."""
        panels: list[Panel] = [SignalPanel(name, *track) for name, track in (self.signals or {}).items()]
        if self.elements is not None:
            view = View(self.chrom, self.start, self.end)
            if len(inside(self.elements, view)) <= _MOST_ELEMENTS:
                panels.append(IntervalPanel("candidate elements", self.elements))
            elif self.links is not None:
                panels.append(IntervalPanel("linked elements", self.links))
        if self.links is not None:
            panels.append(ArcPanel("links", self.links.assign(tss=self.tss)))
        if self.tested is not None:
            regulated = self.tested["label"].astype(bool)
            panels.append(IntervalPanel("CRISPRi: regulated", self.tested.loc[regulated], color=ORANGE))
            panels.append(IntervalPanel("CRISPRi: no effect", self.tested.loc[~regulated]))
        if self.variants is not None:
            panels.append(LollipopPanel("variants", self.variants, self.value))
        panels.append(GenePanel("genes", self.genes, self.gene_id))
        return panels


def links_section(links: pd.DataFrame | None, *, threshold: float | None = None, names: Mapping[str, str] | None = None
                  ) -> Section | None:
    """Strongest links, one row a link, with what is known about them.

    Parameters
    ----------
    links
        Links table.
    threshold
        Score from which a link counts as called.
    names
        Gene id → name.
    """
    if links is None or not len(links):
        return None
    called = links if threshold is None else links.loc[links["score"] >= threshold]
    what = f"{len(called):,} of {len(links):,} candidate links reach the score {threshold:g}" if threshold is not None \
        else f"{len(links):,} links"
    genes = called["gene_id"].nunique()
    rows = called.sort_values("score", ascending=False, kind="stable").head(_MOST_ROWS)
    known = names or {}
    columns: list[tuple[str, Any]] = [
        ("element", lambda row: f"{row['chrom']}:{row['start']:,}–{row['end']:,}"),
        ("gene", lambda row: known.get(row["gene_id"], row["gene_id"])),
        ("cell", lambda row: row["cell"]),
        ("distance, bp", lambda row: count_text(row["distance"])),
        ("score", lambda row: number_text(row["score"])),
    ]
    for title, column, show in (("activity", "activity", number_text), ("contact", "contact", number_text),
                                ("motifs", "motifs", str), ("variants", "n_variants", count_text),
                                ("strongest variant", "top_variant", str), ("its effect", "top_effect", number_text)):
        if column in rows.columns:
            columns.append((title, lambda row, column=column, show=show: show(row[column])))
    records = rows.to_dict("records")
    body = table_html([title for title, _ in columns], [[show(row) for _, show in columns] for row in records], left=3)
    lead = (f"{what}, to {genes:,} genes. A link says that the element is predicted to serve the gene; "
            f"the {len(rows)} strongest are listed.")
    return Section("Links between elements and genes", "links", lead, body)


def loci_section(loci: Sequence[LinkedLocus]) -> Section | None:
    """Genes with their links as arcs, tested pairs and variants, one figure a gene."""
    if not loci:
        return None
    body = Markup("")
    for i, locus in enumerate(loci, 1):
        figure = plot_region(locus.panels(), locus.chrom, locus.start, locus.end, title=locus.gene_name, tss=locus.tss)
        body += figure_html(figure, f"linked-{i}", None, f"Links of {locus.gene_name}")
    tested = any(locus.tested is not None for locus in loci)
    linked = any(locus.links is not None for locus in loci)
    lead = (("Arcs run from elements to the gene's start; the stronger the link, the thicker, and the strongest score "
             "stands at the right." if linked else "Genes with their surroundings.") +
            (" Orange: the experiment found regulation, gray: it found none, blue: not tested." if tested else "") +
            (" Variants point up where the alternative allele raises the output."
             if any(locus.variants is not None for locus in loci) else ""))
    return Section("Loci", "linked-loci", lead, body)


def link_benchmark_section(table: pd.DataFrame | None, curves: pd.DataFrame | None = None, *,
                           by_distance: pd.DataFrame | None = None, reliability: pd.DataFrame | None = None,
                           n_pairs: int = 0, n_positive: int = 0, cautions: Sequence[str] = ()) -> Section | None:
    """How well links find what CRISPRi experiments found.

    Parameters
    ----------
    table
        One row a method: ``method, auprc, average_precision, precision_at_recall`` and, where known, ``low, high``
        (of `auprc`).
    curves
        ``method, precision, recall``.
    by_distance
        ``method, bin, auprc, n, n_positive``.
    reliability
        See `ciscribe.plot.links.plot_reliability`.
    n_pairs, n_positive
        Of the benchmark.
    cautions
        What keeps figures from being what they seem; they stand above them.
    """
    if table is None or not len(table):
        return None
    check_columns(table, ("method", "auprc"), "a table of methods")
    by = [name for name in ("auprc", "average_precision") if name in table.columns]
    ranked = _named(table).sort_values(by, ascending=False, kind="stable")
    interval = {"low", "high"} <= set(ranked.columns)
    header = ["method", "AUPRC", *(["95 % interval"] if interval else []), "average precision",
              "precision at 70 % recall"]
    rows = [[display_name(str(row["method"])), number_text(row["auprc"]),
             *([_interval_text(row)] if interval else []),
             number_text(row.get("average_precision")), number_text(row.get("precision_at_recall"))]
            for row in ranked.to_dict("records")]
    body = Markup("").join(Markup('<p class="note"><strong>Caution:</strong> {}.</p>\n').format(text)
                           for text in cautions)
    body += table_html(header, rows, strong=True)
    if curves is not None and len(curves):
        shown = ranked.loc[ranked["auprc"].notna()].head(6)
        curves = _named(curves)
        body += figure_html(plot_precision_recall(curves.loc[curves["method"].isin(list(shown["method"]))], shown,
                                                  calls="pairs"), "link-curves", None,
                            "Precision and recall of the methods")
    if by_distance is not None and len(by_distance):
        wide = _named(by_distance).pivot_table(index="method", columns="bin", values="auprc", sort=False)
        wide = wide.loc[[m for m in ranked["method"] if m in wide.index]]
        sizes = {row["bin"]: row for row in by_distance.to_dict("records")}
        header = ["AUPRC by distance", *(f"{b} ({count_text(sizes[b]['n_positive'])} of {count_text(sizes[b]['n'])})"
                                         for b in wide.columns)]
        body += table_html(header, [[display_name(str(m)), *(number_text(v) for v in values)]
                                    for m, *values in wide.itertuples()])
    if reliability is not None and len(reliability):
        body += figure_html(plot_reliability(reliability), "link-reliability",
                            "Points on the diagonal: the predicted probability is the share that is regulated.",
                            "Reliability of predicted probabilities")
    chance = f" A method that guesses reaches {number_text(n_positive / n_pairs)}." if n_pairs else ""
    lead = (f"{n_pairs:,} tested element–gene pairs, {n_positive:,} of them regulated.{chance} AUPRC follows the "
            "community's protocol, which takes area from scores with many ties, and has none for a yes or no; average "
            "precision does not.")
    return Section("Against CRISPRi experiments", "crispri", lead, body)


def variants_section(effects: pd.DataFrame | None, motifs: pd.DataFrame | None = None, *, value: str | None = None,
                     names: Mapping[str, str] | None = None, n: int | None = None) -> Section | None:
    """Variants with the largest effects, and the motifs that they change.

    Parameters
    ----------
    effects
        Effects table.
    motifs
        ``chrom, pos, ref, alt, motif, d_pwm``: changes of motifs.
    value
        Score that ranks; the first of the table unless given.
    names
        Gene id → name.
    n
        Variants that were scored, where `effects` holds the strongest of them only.
    """
    if effects is None or not len(effects):
        return None
    scores = score_columns(effects)
    if not scores:
        return None
    value = value or scores[0]
    rows = _strongest(effects, value).head(_MOST_ROWS)
    changed: dict[tuple[Any, ...], str] = {}
    if motifs is not None and len(motifs):
        strong = _strongest(motifs, "d_pwm").drop_duplicates(["chrom", "pos", "ref", "alt"])
        for row in strong.to_dict("records"):
            if row["d_pwm"]:
                key = (row["chrom"], row["pos"], row["ref"], row["alt"])
                changed[key] = f"{row['motif']} {number_text(row['d_pwm'], 1, sign=True)} bits"
    known = names or {}
    has_gene = bool((effects["gene_id"].astype(str) != ".").any())
    header = ["variant", "name", *(["gene"] if has_gene else []), "track",
              *(["strongest change of a motif"] if changed else []), *(display_name(s) for s in scores)]
    body = table_html(header, [
        [f"{row['chrom']}:{row['pos'] + 1:,} {row['ref']}>{row['alt']}", row["name"],
         *([known.get(row["gene_id"], row["gene_id"])] if has_gene else []), row["track"],
         *([changed.get((row["chrom"], row["pos"], row["ref"], row["alt"]), "–")] if changed else []),
         *(number_text(row[s], sign=not s.endswith(("_sd", "_p", "_percentile"))) for s in scores)]
        for row in rows.to_dict("records")], left=3 + has_gene + bool(changed))
    n = len(effects.drop_duplicates(["chrom", "pos", "ref", "alt"])) if n is None else n
    lead = (f"{n:,} variants, ranked by the size of {display_name(value)}; positive where the alternative allele "
            "raises the output. Positions count from 1, as in VCF.")
    return Section("Variants with the largest effects", "variants", lead, body)


def variant_benchmark_section(table: pd.DataFrame | None, *, measure: str, xlabel: str, reference: float | None = None,
                              experiments: pd.DataFrame | None = None) -> Section | None:
    """How well scores of variants agree with what was measured, one row a method.

    Parameters
    ----------
    table
        ``method, value`` and, where known, ``low, high``.
    measure, xlabel
        How `value` was measured, in a sentence and in a word.
    reference
        Value of chance.
    experiments
        ``experiment, n, method, spearman``: each experiment on its own.
    """
    if table is None or not len(table):
        return None
    figure = plot_intervals(table, xlabel=xlabel, reference=reference)
    rows = [[display_name(str(row["method"])), number_text(row["value"]),
             _interval_text(row)]
            for row in table.sort_values("value", ascending=False, kind="stable").to_dict("records")]
    body = figure_html(figure, "variant-benchmark", None, measure)
    body += table_html(["method", xlabel, "95 % interval"], rows, strong=True)
    if experiments is not None:
        each = experiments.pivot_table(index=["experiment", "n"], columns="method", values="spearman", sort=False)
        each = each[table.sort_values("value", ascending=False, kind="stable")["method"]]
        body += table_html(["experiment", "variants", *(display_name(str(m)) for m in each.columns)],
                           [[name, count_text(n), *map(number_text, values)]
                            for name, n, *values in each.reset_index().itertuples(index=False)])
    return Section("Against measured effects", "measured-effects", measure, body)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """With the names of baselines as people write them."""
    return table.assign(method=table["method"].replace(_BASELINES))


def _interval_text(row: Mapping[str, Any]) -> str:
    known = np.isfinite(float(row.get("low", np.nan)))
    return f"{number_text(row['low'])} to {number_text(row['high'])}" if known else "–"


def _strongest(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Rows by the size of a column, the largest first, unknown ones last."""
    return table.iloc[np.argsort(-np.abs(table[column].to_numpy(float)), kind="stable")]


def score_columns(effects: pd.DataFrame) -> list[str]:
    """Columns of an effects table that hold scores."""
    known = {"chrom", "pos", "ref", "alt", "name", "track", "gene_id", "start", "end", "strand", "region"}
    return [c for c in effects.columns if c not in known and pd.api.types.is_float_dtype(effects[c])]
