"""The pages of designs: a run and whether to believe it, a league of designers, alleles that guides can make."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ciscribe.card import Card
from ciscribe.design.audit import Audit
from ciscribe.design.designs import Designs
from ciscribe.plot.design import plot_alleles, plot_edits, plot_league, plot_predicted_judged, plot_trajectory
from ciscribe.plot.style import display_name
from ciscribe.plot.variants import plot_intervals
from ciscribe.report.build import build_report
from ciscribe.report.markup import count_text, figure_html, number_text, table_html
from ciscribe.report.sections import Section

_COUNTS = ("designs", "homopolymer", "longest_match", "queries", "seconds")
_MOST_ROWS, _MOST_STARTS, _MOST_DESIGNS = 25, 4, 3


def write_design_report(path: Path, designs: Designs, checked: Audit, *, title: str, subtitle: str = "",
                        units: str = "", rules: Sequence[str] = (), cards: Sequence[Card] = (),
                        provenance: Mapping[str, Any] | None = None) -> None:
    """Write the page of a design run.

    Parameters
    ----------
    path
        Where to.
    designs
        What the run found.
    checked
        The audit of the designs.
    title, subtitle, units
        What was designed, for what, and the units of the score.
    rules
        The constraints, as text.
    cards
        Of further methods.
    provenance
        What made it.
    """
    gain = designs.gain
    summary = [("designs", f"{len(designs):,}", f"of {designs.queries:,} model calls"),
               ("best score", number_text(designs.score.max()) if len(designs) else "–", units or "of the objective"),
               ("verdict", checked.verdict, "see Audit")]
    if gain is not None and len(gain):
        summary.insert(2, ("mean gain", number_text(float(np.mean(gain)), sign=True), "over the starts, as predicted"))
    build_report(path, title=title, subtitle=subtitle, summary=summary,
                 sections=[run_section(designs, rules, units=units), changes_section(designs),
                           audit_section(designs, checked, units=units), table_section(designs, checked)],
                 cards=[designs.card, *cards], provenance=dict(provenance or {}))


def run_section(designs: Designs, rules: Sequence[str] = (), *, units: str = "") -> Section | None:
    """How the best designs improved with the queries, and within which rules."""
    if not len(designs.history):
        return None
    last = designs.history.iloc[-1]
    body = figure_html(plot_trajectory(designs.history, units=units), "trajectory", None, "Score against queries")
    refused = int(designs.history["infeasible"].sum())
    kept = f" Every design keeps: {'; '.join(rules)}." if rules else " No rules were set."
    lead = (f"{display_name(designs.card.name)}: {designs.queries:,} model calls in {designs.seconds:,.0f} s, ended by "
            f"{designs.attrs.get('stopped', 'the budget')}; best score {number_text(last['best'])}.{kept} "
            f"{refused:,} proposals broke a rule and were not scored.")
    return Section("The run", "run", lead, body)


def changes_section(designs: Designs) -> Section | None:
    """Starts and their best designs, letter by letter, with what was changed."""
    if designs.starts is None or not len(designs):
        return None
    body = Markup("")
    shown = list(dict.fromkeys(designs.origin.tolist()))[:_MOST_STARTS]
    for i, origin in enumerate(shown, 1):
        rows = np.flatnonzero(designs.origin == origin)[:_MOST_DESIGNS]
        names = [f"design {row + 1}" for row in rows]
        figure = plot_edits(designs.starts[origin], designs.codes[rows], names)
        gained = designs.score[rows] - designs.start_score[origin] if designs.start_score is not None else []
        gain = ", ".join(number_text(value, 2, sign=True) for value in gained)
        body += figure_html(figure, f"edits-{i}", f"Start {origin + 1}; predicted gains {gain}.",
                            f"Edits of start {origin + 1}")
    return Section("What was changed", "changes", "The start in full, and under it each design, in which only the "
                   "bases that differ are written.", body)


def audit_section(designs: Designs, checked: Audit, *, units: str = "") -> Section:
    """Whether the designs can be believed."""
    rows = []
    for metric, row in checked.summary.iterrows():
        shown = count_text if metric in _COUNTS else number_text
        rows.append([display_name(str(metric)), shown(row["value"]), shown(row.get("natives", np.nan))])
    body = table_html(["measure", "designs", "natives"], rows)
    if designs.judge_score is not None and designs.judge_start_score is not None and designs.gain is not None:
        judged = designs.judge_score - designs.judge_start_score[designs.origin]
        table = pd.DataFrame({"gain": designs.gain, "judge_gain": judged})
        body += figure_html(plot_predicted_judged(table, units=units), "judged",
                            "On the line, the judge grants all that was predicted.", "Predicted and judged gain")
    return Section("Audit", "audit", checked.line, body)


def table_section(designs: Designs, checked: Audit) -> Section | None:
    """Designs, one row each."""
    if not len(designs):
        return None
    table = pd.concat([designs.table(), checked.table], axis=1)
    table = table.loc[:, ~table.columns.duplicated()].head(_MOST_ROWS)
    numbers = [c for c in table.columns if pd.api.types.is_numeric_dtype(table[c]) and table[c].dtype != bool]
    shown = [c for c in ("score", "judge_score", "gain", "expected_gain", "edits") if c in numbers]
    shown += [c for c in numbers if c not in shown and c not in ("origin", "start_score", "found_at")][:8]
    words = [c for c in ("verdict",) if c in table.columns]
    body = table_html(["design", *words, *map(display_name, shown), "sequence"], [
        [f"design{i + 1}", *(row[w] for w in words),
         *(count_text(row[c]) if c == "edits" else number_text(row[c]) for c in shown),
         Markup('<code>{}</code>').format(row["sequence"])]
        for i, row in enumerate(table.to_dict("records"))], left=1 + len(words))
    lead = f"The best {len(table)} of {len(designs):,}; all are in designs.tsv and designs.fasta."
    return Section("Designs", "designs", lead, body)


def write_league_report(path: Path, table: pd.DataFrame, failed: pd.DataFrame, *, title: str, subtitle: str = "",
                        cards: Sequence[Card] = (), provenance: Mapping[str, Any] | None = None) -> None:
    """Write the page of a league of designers.

    Parameters
    ----------
    path
        Where to.
    table
        From `ciscribe.design.benchmark.league`, of one data set.
    failed
        Runs that were not possible: ``method, budget, error``.
    title, subtitle, cards, provenance
        As in `write_design_report`.
    """
    best = table.loc[table["rank"] == 1]
    summary = [(f"best at {row['budget']:,} calls", str(row["method"]),
                f"{number_text(row['per_thousand'], sign=True)} judged gain a thousand calls")
               for row in best.drop_duplicates("budget").to_dict("records")]
    sections: list[Section | None] = [
        league_section(table.loc[table["budget"] == budget], budget) for budget in sorted(set(table["budget"]))]
    if len(set(table["budget"])) > 1:
        figure = plot_league(table)
        sections.append(Section("Across budgets", "budgets", "Judged gain of each designer by what it may ask.",
                                figure_html(figure, "budgets", None, "Judged gain against budgets")))
    if len(failed):
        sections.append(Section("Not possible", "failed", "Runs that were not possible, each with its reason.",
                                table_html(["designer", "calls", "why"],
                                           failed[["method", "budget", "error"]].to_numpy(object).tolist(), left=3)))
    build_report(path, title=title, subtitle=subtitle, summary=summary, sections=sections, cards=cards,
                 provenance=dict(provenance or {}))


def league_section(table: pd.DataFrame, budget: int) -> Section:
    """All designers at one budget, best first, also those that lost."""
    limits = {"per_thousand_low": "low", "per_thousand_high": "high"}
    names = table["method"].where(table["rank"].notna(), table["method"] + " (extrapolating)")
    figure = plot_intervals(table.rename(columns=limits).assign(method=names), value="per_thousand",
                            xlabel="judged gain a thousand calls", reference=0.0)
    body = figure_html(figure, f"league-{budget}", "Points are means over seeds, lines 95 % intervals (Student).",
                       "Judged gain of each designer a thousand calls")
    columns = {"per_thousand": "judged gain / 1,000 calls", "judge_gain": "judged gain", "gain": "own gain",
               "inflation": "inflation", "edits": "edits", "feasible": "feasible", "queries": "calls", "seconds": "s",
               "seeds": "seeds"}
    body += table_html(["designer", "rank", *columns.values()], [
        [row["method"], "extrapolating" if np.isnan(row["rank"]) else count_text(row["rank"]),
         *(_league_number(name, row, limits) for name in columns)] for row in table.to_dict("records")],
        left=1, strong=bool(table["rank"].notna().any()))
    lead = ("Gain is over the starts: by the judge, which no designer asks, and by the model itself. Inflation is the "
            "share of its own gain that the judge does not grant. Extrapolating: by the judge, designs lie above all "
            "that it was trained on, in most runs; that is not counted as gain.")
    return Section(f"{budget:,} model calls", f"league-{budget}", lead, body)


def _league_number(name: str, row: Mapping[str, Any], limits: Mapping[str, str]) -> str:
    if name in ("edits", "queries", "seeds"):
        return count_text(row[name])
    text = number_text(row[name], 1 if name == "seconds" else 2 if name == "feasible" else 3)
    if name != "per_thousand" or np.isnan(row["per_thousand_low"]):
        return text
    return f"{text} [{', '.join(number_text(row[limit]) for limit in limits)}]"


def write_alleles_report(path: Path, scored: Mapping[str, pd.DataFrame], rates: pd.DataFrame, *, title: str,
                         subtitle: str = "", value: str = "score", cards: Sequence[Card] = (),
                         provenance: Mapping[str, Any] | None = None) -> None:
    """Write the page of alleles that guides can make.

    Parameters
    ----------
    path
        Where to.
    scored
        Name of a locus → its alleles, from `ciscribe.design.alleles.Alleles.score`.
    rates
        From `ciscribe.design.alleles.base_rates`, of all loci.
    title, subtitle, cards, provenance
        As in `write_design_report`.
    value
        Column that is drawn: ``prediction`` where there is one, else ``score``.
    """
    n = sum(len(table) for table in scored.values()) - len(scored)
    front = sum(int((table["front"] & (table["kind"] != "wild type")).sum()) for table in scored.values())
    better = int(sum((table["gain"] > 0).sum() for table in scored.values()))
    kinds = table_html(["kind", "alleles", "better than the wild type", "best gain", "median gain"], [
        [row["kind"], count_text(row["n"]), f"{row['better']:.1%}", number_text(row["best"], sign=True),
         number_text(row["median"], sign=True)] for row in rates.to_dict("records")])
    rate_lead = "Most edits of a promoter do not bring what is wanted; how many do is what a lucky find has to beat."
    build_report(path, title=title, subtitle=subtitle,
                 summary=[("alleles", f"{n:,}", f"of {len(scored):,} loc{'us' if len(scored) == 1 else 'i'}"),
                          ("better than the wild type", f"{better:,}", "by the model"),
                          ("on the front", f"{front:,}", "no other is as good for as few guides and lost bp")],
                 sections=[*(alleles_section(name, table, i, value) for i, (name, table) in
                             enumerate(list(scored.items())[:_MOST_STARTS], 1)),
                           Section("How often", "rates", rate_lead, kinds)],
                 cards=cards, provenance=dict(provenance or {}))


def alleles_section(name: str, table: pd.DataFrame, number: int, value: str = "score") -> Section:
    """Alleles of one locus: what each guide or two can reach, and those that no other beats."""
    front = table.loc[table["front"] & (table["kind"] != "wild type")].sort_values(
        ["score", "n_guides", "deleted"], ascending=[False, True, True], kind="stable").head(_MOST_ROWS)
    body = figure_html(plot_alleles(table, value=value), f"alleles-{number}",
                       "Each point is an allele; blue are those on the front, the dashed line is the wild type.",
                       f"Alleles of {name}")
    body += table_html(["allele", "tool", "guides", "bp lost", value, "gain", "guides, 5' to 3'"], [
        [str(row["allele"]).replace(" ", "\u00a0"), row["tool"], count_text(row["n_guides"]),
         count_text(row["deleted"]), number_text(row[value]), number_text(row["gain"], sign=True),
         Markup("<code>{}</code>").format(row["guides"])] for row in front.to_dict("records")], left=2)
    wild = table.loc[table["kind"] == "wild type", value]
    lead = (f"{len(table) - 1:,} alleles; the wild type has {number_text(wild.iloc[0])}. On the front: no other allele "
            "scores as high with as few guides and as few bp lost. Positions are those of the file, from 0.")
    return Section(name, f"alleles-{number}", lead, body)
