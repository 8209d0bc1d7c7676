import dataclasses
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from ciscribe.errors import SchemaError
from ciscribe.plot import (
    GenePanel,
    IntervalPanel,
    Locus,
    MaskPanel,
    SignalPanel,
    locus_panels,
    plot_locus,
    plot_region,
)
from ciscribe.plot.panels import View, stack_rows

START, END = 100_000, 140_000


def genes(n, seed=2, width=9_000):
    rng = np.random.default_rng(seed)
    start = np.sort(rng.integers(START - 1000, END, n))
    table = pd.DataFrame(
        {
            "chrom": "chr2",
            "start": start,
            "end": start + rng.integers(150, width, n),
            "strand": rng.choice(["+", "-"], n),
            "gene_id": [f"id{i}" for i in range(n)],
            "gene_name": [f"LOC10{i}-long" for i in range(n)],
        }
    )
    return table.assign(tss=np.where(table["strand"] == "+", table["start"], table["end"] - 1))


def elements(n, seed=3):
    rng = np.random.default_rng(seed)
    start = np.sort(rng.integers(START, END - 800, n))
    return pd.DataFrame(
        {"start": start, "end": start + 307, "score": rng.uniform(0, 1, n), "effect": rng.normal(0, 0.3, n)}
    )


def locus(n_genes=13, n_elements=11, truth=True):
    edges = np.arange(START, END + 1, 100)
    values = np.random.default_rng(1).gamma(1, 1, len(edges) - 1)
    table = elements(n_elements)
    return Locus(
        chrom="chr2",
        start=START,
        end=END,
        gene_id=f"id{n_genes // 2}",
        gene_name="MAIN",
        tss=START + 17_003,
        strand="+",
        signals={
            "ATAC": (edges, values),
            "H3K27ac in a cell with quite a long name (merged)": (edges, values * 3),
        },
        mask_edges=edges,
        mask_mean=np.clip(values / 5, 0, 1),
        mask_sd=np.full(len(values), 0.07),
        elements=table,
        genes=genes(n_genes),
        truth=table[["start", "end"]].assign(kind="enhancer") if truth else None,
    )


@pytest.mark.parametrize(("n_genes", "n_elements"), [(0, 0), (1, 1), (13, 11), (61, 53)])
def test_plot_locus__no_label_touches_another(n_genes, n_elements, assert_readable):
    assert_readable(plot_locus(locus(n_genes, n_elements), title="chr2:100,001–140,000"), at_least=8)


def test_plot_locus__panels_do_not_overlap():
    figure = plot_locus(locus())
    back, *panels = figure.axes
    edges = [ax.get_position() for ax in panels]
    assert all(above.y0 >= below.y1 for above, below in pairwise(edges))
    assert edges[0].y1 <= 1
    assert edges[-1].y0 >= back.get_position().y0 - 1e-9


def test_locus_panels__truth_row_only_where_known():
    assert [type(p).__name__ for p in locus_panels(locus())] == [
        "SignalPanel",
        "SignalPanel",
        "MaskPanel",
        "IntervalPanel",
        "IntervalPanel",
        "GenePanel",
    ]
    assert len(locus_panels(locus(truth=False))) == 5


def test_locus_panels__effect_is_written_with_its_sign():
    panel = locus_panels(dataclasses.replace(locus(), elements=elements(2).assign(effect=[0.5, -0.25])))[3]
    assert list(panel.intervals["text"]) == ["+0.50", "−0.25"]


def test_plot_locus__empty_elements_say_so():
    figure = plot_locus(locus(n_elements=0))
    assert "none in this region" in [t.get_text() for ax in figure.axes for t in ax.texts]


def test_stack_rows__boxes_and_labels_of_a_row_keep_apart():
    view = View("chr2", START, END)
    table = genes(83)
    texts = list(table["gene_name"])
    rows = stack_rows(table["start"].to_numpy(), table["end"].to_numpy(), texts, view)
    placed = rows.row >= 0
    assert placed.any()
    assert not placed.all()  # 83 genes do not fit, and the packing must say so
    for r in range(rows.n_rows):
        spans = sorted((max(s, START), min(e, END)) for s, e in table.loc[rows.row == r, ["start", "end"]].to_numpy())
        assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_stack_rows__label_moves_left_at_the_right_edge():
    view = View("chr2", START, END)
    rows = stack_rows(np.array([END - 50]), np.array([END + 700]), ["a gene at the edge"], view)
    assert rows.row.tolist() == [0]
    assert START < rows.text_x[0] < END - 50


def test_gene_panel__highlighted_gene_is_always_named_and_dark():
    table = genes(97)
    figure = plot_region([GenePanel("genes", table, "id90")], "chr2", START, END)
    text = next(t for t in figure.axes[1].texts if t.get_text() == "LOC1090-long")
    assert text.get_fontweight() == "bold"
    assert to_hex(text.get_color()) == "#1f2933"


def test_gene_panel__arrow_points_along_the_strand():
    table = genes(1).assign(start=110_000, end=120_000, tss=[119_999], strand=["-"])
    ax = plot_region([GenePanel("genes", table)], "chr2", START, END).axes[1]
    x = ax.lines[0].get_xdata()
    assert x[0] == 119_999
    assert x[-1] < x[0]


def test_signal_panel__narrow_peak_survives_thinning():
    edges = np.arange(START, END + 1, 10)
    values = np.zeros(len(edges) - 1)
    values[1777] = 13.0
    ax = plot_region([SignalPanel("s", edges, values)], "chr2", START, END).axes[1]
    assert ax.patches[0].get_data().values.max() == 13.0
    assert ax.texts[0].get_text() == "13"


def test_mask_panel__band_stays_between_0_and_1():
    edges = np.array([START, 120_000, END])
    ax = plot_region([MaskPanel("m", edges, np.array([0.02, 0.97]), np.array([0.3, 0.3]))], "chr2", START, END).axes[1]
    band = ax.patches[0].get_data()
    assert np.asarray(band.values).max() == 1
    assert np.asarray(band.baseline).min() == 0


def test_interval_panel__only_rows_of_the_chromosome():
    table = pd.DataFrame({"chrom": ["chr2", "chr3"], "start": [110_000] * 2, "end": [111_000] * 2})
    ax = plot_region([IntervalPanel("i", table)], "chr2", START, END).axes[1]
    assert len(ax.patches) == 1


def test_signal_panel__wrong_number_of_edges_is_named():
    with pytest.raises(SchemaError, match=r"panel 'ATAC' needs one bin edge more than values; got \(7,\) edges"):
        SignalPanel("ATAC", np.arange(7), np.zeros(7))


def test_interval_panel__missing_column_is_named():
    with pytest.raises(SchemaError, match="missing: end"):
        IntervalPanel("calls", pd.DataFrame({"start": [3]}))


def test_plot_region__empty_region_is_an_error():
    with pytest.raises(ValueError, match="start < end"):
        plot_region([MaskPanel("m", np.array([0, 1]), np.zeros(1), np.zeros(1))], "chr2", 7, 7)
