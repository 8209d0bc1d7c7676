"""The page that asks whether elements are real: against what is known, through the model, and from run to run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from ciscribe.card import Card
from ciscribe.elements import benchmark, scan, truth
from ciscribe.plot.curves import plot_budget_curves, plot_precision_recall
from ciscribe.plot.elements import plot_by_distance, plot_folds, plot_shares
from ciscribe.plot.style import check_columns, display_name
from ciscribe.report.build import build_report
from ciscribe.report.markup import count_text, figure_html, number_text, table_html
from ciscribe.report.sections import Section

GOAL = 2.0
"""Times chance that elements should reach; drawn beside it."""
_MOST_LINES = 6

Tables = Mapping[str, pd.DataFrame]


def write_element_report(path: Path, tables: Tables, facts: Mapping[str, Any], *, title: str) -> None:
    """Write the page of an element benchmark.

    Parameters
    ----------
    path
        Where to.
    tables
        Those of `ciscribe.workflow.element_benchmark`, of which any may be absent.
    facts
        Content of ``benchmark.json``.
    title
        Of the page.
    """
    cards: list[Card] = [truth.CARD, scan.CARD, benchmark.CARD]
    build_report(path, title=title, subtitle=f"{facts['genes']:,} genes ({facts['fold']}), {facts['bp']:,} bp of "
                 f"windows; runs: {', '.join(facts['runs'])}", summary=_tiles(tables),
                 sections=element_sections(tables, facts), cards=cards,
                 provenance={k: v for k, v in facts.items() if k not in ("skipped", "cautions")})


def element_sections(tables: Tables, facts: Mapping[str, Any]) -> list[Section | None]:
    """Sections in reading order."""
    return [
        _scope_section(facts),
        truth_section(tables.get("benchmark"), tables.get("curves"), tables.get("by_distance")),
        pairs_section(tables.get("pairs")),
        composition_section(tables.get("composition")),
        agreement_section(tables.get("agreement")),
        budget_section(tables.get("sufficiency_necessity")),
    ]


def truth_section(table: pd.DataFrame | None, curves: pd.DataFrame | None = None, bands: pd.DataFrame | None = None
                  ) -> Section | None:
    """Scores of all bins against each set of known elements."""
    if table is None or not len(table):
        return None
    check_columns(table, ("truth", "method", "auprc_full", "prevalence", "fold", "control"), "benchmark.parquet")
    body = Markup("")
    for i, (name, own) in enumerate(_groups(table, "truth"), 1):
        chance = float(own["prevalence"].iloc[0])
        body += Markup("<h3>{} <span class=\"aside\">{} of the bases</span></h3>").format(
            str(name).capitalize(), f"{chance:.1%}")
        body += figure_html(plot_folds(own, goal=GOAL), f"folds-{i}", "Hollow: controls. Dashed: chance; dotted: twice "
                            "chance." if i == 1 else None, f"AUPRC over chance, {name}")
        rows = own.sort_values("fold", ascending=False, kind="stable")
        body += Markup("<details><summary>In numbers</summary>{}</details>").format(table_html(
            ("Method", "AUPRC", "Over chance", "95 % interval", "Over 5-mer ridge", "Precision at equal bp", "Recall",
             "Base pairs"),
            [(display_name(str(r["method"])), number_text(r["auprc_full"]), number_text(r["fold"], 2),
              f"{number_text(r.get('low'), 2)}–{number_text(r.get('high'), 2)}", number_text(r.get("ratio"), 2),
              number_text(r["precision"]), number_text(r["recall"]), count_text(r["budget_bp"]))
             for r in rows.to_dict("records")]))
        shown = _shown(own)
        if curves is not None and len(part := curves.loc[(curves["truth"] == name) & curves["method"].isin(shown)]):
            ranked = own.loc[own["method"].isin(shown)].assign(auprc=lambda t: t["auprc_full"])
            body += figure_html(plot_precision_recall(part, ranked), f"curves-{i}", None,
                                f"Precision and recall, {name}")
        if bands is not None and len(part := bands.loc[(bands["truth"] == name) & bands["method"].isin(shown)]):
            body += figure_html(plot_by_distance(part, main=shown[0]), f"bands-{i}", "The same among bases at one "
                                "distance from the nearest TSS: what distance alone explains is gone.",
                                f"AUPRC over chance by distance, {name}")
    return Section(
        "Against what is known", "truth",
        "Every base of the windows is ranked by every method, so none gains by calling more. AUPRC of a ranking "
        "without meaning is the share of bases that are true; the figures are how many times that is reached. The "
        "scores of another gene keep every distance from the TSS and lose everything else.", body)


def pairs_section(table: pd.DataFrame | None) -> Section | None:
    """Does an element act on the gene that it is said to act on."""
    if table is None or not len(table):
        return None
    row = table.iloc[0]
    body = figure_html(plot_folds(table, goal=GOAL), "pairs", None, "AUPRC over chance of element–gene pairs")
    body += table_html(("Method", "AUPRC", "Over chance", "Precision at equal pairs"),
                       [(display_name(str(r["method"])), number_text(r["auprc_full"]), number_text(r["fold"], 2),
                         number_text(r["precision"]))
                        for r in table.sort_values("fold", ascending=False, kind="stable").to_dict("records")])
    return Section(
        "Which element for which gene", "pairs",
        f"{count_text(row['n_pairs'])} pairs of a known element and a gene whose window holds it, "
        f"{count_text(row['n_true'])} of them annotated as its target. Where annotated targets were chosen by "
        "position, distance is hard to beat here.", body)


def composition_section(table: pd.DataFrame | None) -> Section | None:
    """What fills the best base pairs."""
    if table is None or not len(table):
        return None
    check_columns(table, ("method", "kind", "share", "enrichment"), "composition.parquet")
    kinds = list(dict.fromkeys(table["kind"]))
    body = figure_html(plot_shares(table, name="method", part="kind", value="share", order=kinds,
                                   xlabel="share of the best base pairs"), "composition", None,
                       "Kinds of elements in the best base pairs")
    wide = table.pivot_table(index="method", columns="kind", values="enrichment", sort=False).reindex(columns=kinds)
    body += Markup("<h3>Times their share of the windows</h3>")
    body += table_html(("Method", *map(display_name, kinds)),
                       [(display_name(str(m)), *(number_text(v, 2) for v in wide.loc[m, kinds])) for m in wide.index])
    decoys = " Decoys look like elements and do nothing: a caller of open chromatin takes them." if any(
        k.startswith("decoy") for k in kinds) else ""
    return Section("What the best base pairs are", "composition",
                   f"The same number of base pairs of every method, by what is known of them.{decoys}", body)


def agreement_section(table: pd.DataFrame | None) -> Section | None:
    """Whether two runs choose the same base pairs."""
    if table is None or not len(table):
        return None
    rows = [(f"{r['a']} and {r['b']}", display_name(r["score"]), f"{r['budget']:.0%}", number_text(r["jaccard"]),
             number_text(r["another_gene"]), number_text(r["chance"])) for r in table.to_dict("records")]
    return Section(
        "Stability", "agreement",
        "Base pairs that both runs choose over those that either does, at equal numbers. Runs that agree only on how "
        "near to the TSS an element must be share what the scores of other genes share.",
        table_html(("Runs", "Score", "Base pairs", "Jaccard", "Scores of other genes", "Chance"), rows, left=2))


def budget_section(table: pd.DataFrame | None) -> Section | None:
    """Necessity and sufficiency over budgets."""
    if table is None or not len(table):
        return None
    body = Markup("")
    for i, (name, own) in enumerate(_groups(table, "run"), 1):
        body += Markup("<h3>{}</h3>").format(name)
        body += figure_html(plot_budget_curves(own), f"budgets-{i}", None, f"Sufficiency and necessity, {name}")
        mean = own.pivot_table(index="order", columns="kind", values="r", sort=False)
        body += table_html(("Ranked by", "Only these: mean r", "Without these: mean r"),
                           [(display_name(str(o)), number_text(mean.loc[o, "sufficiency"]),
                             number_text(mean.loc[o, "necessity"])) for o in mean.index])
    return Section(
        "Necessity and sufficiency", "budgets",
        "The model is asked with only the best bins of each window open, and with everything but them. r is that "
        "with the full prediction over genes; elements that matter keep it high on the left with few base pairs and "
        "pull it down on the right. No truth is needed, so this says what the model uses, not whether it is right.",
        body)


def _scope_section(facts: Mapping[str, Any]) -> Section | None:
    notes = [*(f"Caution: {text}." for text in facts["cautions"]), *(f"Left out: {text}." for text in facts["skipped"])]
    if not notes:
        return None
    body = Markup("").join(Markup("<p class=\"note\">{}</p>\n").format(text) for text in notes)
    return Section("What was asked, and what was not", "scope", "Each test runs where its input is there.", body)


def _tiles(tables: Tables) -> list[tuple[str, str, str]]:
    tiles = []
    table = tables.get("benchmark")
    if table is not None:
        for name, own in list(_groups(table, "truth"))[:3]:
            real = own.loc[~own["control"] & (own["run"] != "")].sort_values("fold")
            if len(real):
                best = real.iloc[-1]
                tiles.append((str(name).capitalize(), f"{best['fold']:.2f} ×", f"chance; {best['method']}"))
    stable = tables.get("agreement")
    if stable is not None and len(stable):
        top = stable.loc[stable["budget"] == stable["budget"].max()].sort_values("jaccard").iloc[-1]
        tiles.append(("Stability", number_text(top["jaccard"], 2),
                      f"Jaccard at {top['budget']:.0%} of bp, {top['score']}"))
    return tiles


def _shown(own: pd.DataFrame) -> list[str]:
    """Methods of a figure with lines: the best of the first run, of rivals, and the controls that matter most."""
    ranked = own.sort_values("fold", ascending=False, kind="stable")
    of_runs = ranked.loc[~ranked["control"] & (ranked["run"] != "")]["method"].tolist()
    rivals = ranked.loc[~ranked["control"] & (ranked["run"] == "")]["method"].tolist()
    controls = ranked.loc[ranked["control"]]["method"].tolist()
    first = of_runs[:1] or rivals[:1]
    return list(dict.fromkeys([*first, *rivals[:2], *controls[:2], *of_runs[1:]]))[:_MOST_LINES]


def _groups(table: pd.DataFrame, column: str) -> list[tuple[Any, pd.DataFrame]]:
    return [(name, table.loc[table[column] == name]) for name in dict.fromkeys(table[column])] if len(table) else []

