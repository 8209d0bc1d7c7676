"""Arcs, lollipops and figures of benchmarks: what is drawn is what the tables say, and can be read."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import PathPatch

from ciscribe.errors import SchemaError
from ciscribe.plot import (
    ArcPanel,
    GenePanel,
    LollipopPanel,
    plot_intervals,
    plot_measured_effects,
    plot_region,
    plot_reliability,
)

START, END = 10_000, 50_000
LINKS = pd.DataFrame({"start": [11_000, 30_000, 45_000], "end": [11_500, 30_500, 45_500], "tss": 20_000,
                      "score": [0.2, 0.9, 0.5], "label": [True, False, None]})
VARIANTS = pd.DataFrame({"pos": [12_000, 12_100, 40_000], "diff": [0.5, -1.5, 1.0],
                         "name": ["rs12345", "rs23456", "rs34567"]})
GENES = pd.DataFrame({"start": [20_000], "end": [25_000], "strand": ["+"], "gene_name": ["HBE1"], "tss": [20_000]})


def draw(*panels):
    return plot_region(panels, "chr1", START, END, title="HBE1")


def arcs(figure):
    return [patch for ax in figure.axes for patch in ax.patches if isinstance(patch, PathPatch)]


def test_arcs_run_from_the_element_to_the_tss(assert_readable):
    figure = draw(ArcPanel("links", LINKS), GenePanel("genes", GENES))
    found = arcs(figure)
    ends = {tuple(patch.get_path().vertices[[0, -1], 0]) for patch in found}
    assert ends == {(11_250, 20_000), (30_250, 20_000), (45_250, 20_000)}
    widths = {patch.get_path().vertices[0, 0]: patch.get_linewidth() for patch in found}
    assert widths[30_250] > widths[45_250] > widths[11_250]  # the stronger, the thicker
    assert len({patch.get_edgecolor()[:3] for patch in found}) == 3  # regulated, not regulated, not tested
    assert_readable(figure)


def test_arcs_that_leave_the_view_or_the_chromosome_are_not_drawn():
    outside = LINKS.assign(tss=[20_000, 90_000, 20_000])
    assert len(arcs(draw(ArcPanel("links", outside)))) == 2
    assert not arcs(draw(ArcPanel("links", LINKS.assign(chrom="chr2"))))


def test_only_the_strongest_arcs_are_drawn_and_the_others_counted():
    figure = draw(ArcPanel("links", LINKS, most=1))
    assert [patch.get_path().vertices[0, 0] for patch in arcs(figure)] == [30_250]
    assert "+2" in [text.get_text() for ax in figure.axes for text in ax.texts]


def test_lollipops_point_the_way_of_the_effect(assert_readable):
    figure = draw(LollipopPanel("variants", VARIANTS))
    stems = next(c for ax in figure.axes for c in ax.collections if hasattr(c, "get_segments"))
    assert [segment[1, 1] for segment in stems.get_segments()] == [0.5, -1.5, 1.0]
    names = {text.get_text() for ax in figure.axes for text in ax.texts}
    assert "rs23456" in names
    assert "rs12345" not in names  # no room beside a stronger one
    assert_readable(figure)


def test_an_empty_region_says_so():
    figure = draw(ArcPanel("links", LINKS.head(0)), LollipopPanel("variants", VARIANTS.head(0)))
    assert sum(text.get_text() == "none in this region" for ax in figure.axes for text in ax.texts) == 2


def test_reliability_draws_every_bin_that_holds_something(assert_readable):
    table = pd.DataFrame({"predicted": [0.05, 0.4, 0.9], "observed": [0.04, 0.5, np.nan], "n": [700, 11, 0],
                          "low": [0.03, 0.2, np.nan], "high": [0.05, 0.8, np.nan]})
    figure = plot_reliability(table)
    points = figure.axes[0].collections[-1].get_offsets()
    assert np.allclose(points, [[0.05, 0.04], [0.4, 0.5]])
    assert_readable(figure)


def test_measured_effects_say_their_correlation(assert_readable):
    table = pd.DataFrame({"pos": np.repeat(np.arange(7), 3), "alt": ["A", "C", "G"] * 7,
                          "measured": np.arange(21.0), "score": np.arange(21.0) ** 3})
    figure = plot_measured_effects(table, predicted="score", title="SORT1")
    assert any("1.000" in text.get_text() or "1.00" in text.get_text() for text in figure.texts)
    assert_readable(figure)
    with pytest.raises(SchemaError, match="at least one row"):
        plot_measured_effects(table.head(0), predicted="score")


def test_intervals_are_ranked(assert_readable):
    table = pd.DataFrame({"method": ["a", "b", "c"], "value": [0.1, 0.5, 0.3], "low": 0.05, "high": 0.6})
    figure = plot_intervals(table, xlabel="AUPRC", reference=0.2)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "c", "a"]
    assert_readable(figure)


@pytest.mark.parametrize("panel", [ArcPanel, LollipopPanel])
def test_a_missing_column_is_named(panel):
    with pytest.raises(SchemaError, match=r"panel 'x' needs the columns"):
        panel("x", pd.DataFrame({"pos": [1], "start": [1]}))
