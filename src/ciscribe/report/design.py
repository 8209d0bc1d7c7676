"""The report of a design run: how it climbed, what was changed, and whether to believe it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ciscribe.card import Card
from ciscribe.design.audit import Audit
from ciscribe.design.designs import Designs
from ciscribe.plot.design import plot_edits, plot_predicted_judged, plot_trajectory
from ciscribe.plot.style import display_name
from ciscribe.report.build import build_report
from ciscribe.report.markup import count_text, figure_html, number_text, table_html
from ciscribe.report.sections import Section

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
        rows.append([display_name(str(metric)), number_text(row["value"]), number_text(row.get("natives", np.nan))])
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
    shown = [c for c in ("score", "judge_score", "gain", "edits") if c in numbers]
    shown += [c for c in numbers if c not in shown and c not in ("origin", "start_score", "found_at")][:8]
    words = [c for c in ("verdict",) if c in table.columns]
    body = table_html(["design", *words, *map(display_name, shown), "sequence"], [
        [f"design{i + 1}", *(row[w] for w in words),
         *(count_text(row[c]) if c == "edits" else number_text(row[c]) for c in shown),
         Markup('<code>{}</code>').format(row["sequence"])]
        for i, row in enumerate(table.to_dict("records"))], left=1 + len(words))
    lead = f"The best {len(table)} of {len(designs):,}; all are in designs.tsv and designs.fasta."
    return Section("Designs", "designs", lead, body)
