"""The report of a run: one HTML file that holds everything and loads nothing.

`sections` turns results into sections (a title, what it means, the figures and tables), `build` sets them
into the page and writes it whole or not at all.
"""

from ciscribe.report.build import build_report
from ciscribe.report.sections import (
    Section,
    accuracy_section,
    benchmark_section,
    data_section,
    elements_section,
    loci_section,
    metrics_section,
    training_section,
    truncation_section,
)

__all__ = [
    "Section",
    "accuracy_section",
    "benchmark_section",
    "build_report",
    "data_section",
    "elements_section",
    "loci_section",
    "metrics_section",
    "training_section",
    "truncation_section",
]
