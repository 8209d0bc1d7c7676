"""What a reporter-assay run folder says: its files → sections → one page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from ciscribe.card import Card
from ciscribe.config import ReporterConfig
from ciscribe.models import registry
from ciscribe.report import sections as parts
from ciscribe.report.build import build_report
from ciscribe.report.markup import number_text, table_html
from ciscribe.report.run import explanation
from ciscribe.train.sequence_baselines import CARDS


def write_reporter_report(folder: Path, config: ReporterConfig, *, notes: Sequence[str] = ()) -> None:
    """Write ``report.html`` of a reporter-assay run from the files that its steps left there."""
    metrics = json.loads((folder / "metrics.json").read_text())
    predictions = pd.read_parquet(folder / "predictions.parquet")
    units = "" if config.assay.log is None else f"{config.assay.log}(activity)"
    main = config.model.name
    n = sum(part["n"] for part in metrics["split"].values())
    numbers = config.task == "regression"
    explained, methods = explanation(folder)
    build_report(
        folder / "report.html", title=config.report.title or config.name,
        subtitle=f"{main} on {n:,} sequences, {len(metrics['targets'])} "
                 f"target{'s' if len(metrics['targets']) > 1 else ''}, folds by {metrics['by']}",
        summary=_tiles(metrics),
        sections=[
            _data(metrics, notes),
            parts.metrics_section(metrics, unit="sequence"),
            parts.accuracy_section(predictions, units=units, unit="sequence", what="activity",
                                   where=f"on test sequences, {_apart(metrics)}") if numbers else None,
            *explained,
            parts.training_section(pd.read_csv(folder / "log.csv")),
        ],
        cards=[*_cards(metrics), *methods], provenance=json.loads((folder / "provenance.json").read_text()))


def _tiles(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    main = metrics["models"][metrics["main"]]["mean"]
    name = "pearson" if "pearson" in main else "auroc"
    label = {"pearson": "Pearson r", "auroc": "AUROC"}[name]
    rivals = {n: m["mean"][name]["value"] for n, m in metrics["models"].items() if n != metrics["main"]}
    best = max(rivals, key=lambda n: -2.0 if rivals[n] is None else rivals[n])  # none where it is not defined
    return [(f"{label}, test sequences", number_text(main[name]["value"]),
             f"95 % interval {number_text(main[name]['low'])} to {number_text(main[name]['high'])}"),
            (f"Best baseline: {best}", number_text(rivals[best]), "fitted on the same sequences"),
            ("Test sequences", f"{metrics['split']['test']['n']:,}", _apart(metrics))]


def _apart(metrics: dict[str, Any]) -> str:
    """How test sequences differ from training sequences."""
    by = metrics["by"]
    return ("none of them similar to a training sequence" if by == "similarity"
            else f"none of them of the same {by} as a training sequence")


def _data(metrics: dict[str, Any], notes: Sequence[str]) -> parts.Section:
    names = {"train": "Training", "valid": "Validation", "test": "Test"}
    body = table_html(("Sequences", "Number"), [(names[f], f"{p['n']:,}") for f, p in metrics["split"].items()])
    if notes:
        body += Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(n) for n in notes))
    together = ("Sequences that share a good part of their k-mers stay in one fold" if metrics["by"] == "similarity"
                else f"Sequences of one {metrics['by']} stay in one fold")
    return parts.Section(
        "Data", "data", f"{together}: the model learned on the training sequences, its best epoch was chosen on the "
        "validation sequences, and every score comes from test sequences that it never saw.", body)


def _cards(metrics: dict[str, Any]) -> list[Card]:
    return [registry.card(metrics["main"]), *(CARDS[n] for n in metrics["models"] if n in CARDS)]
