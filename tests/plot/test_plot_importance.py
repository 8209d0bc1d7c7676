from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch, StepPatch

from ciscribe.errors import SchemaError
from ciscribe.plot import (
    AttributionPanel,
    GenePanel,
    plot_consistency,
    plot_faithfulness,
    plot_interactions,
    plot_mutagenesis,
    plot_position_effect,
    plot_randomization,
    plot_region,
    plot_spacing,
    plot_tiles,
)
from ciscribe.plot.panels import View
from ciscribe.plot.style import BLUE, INK, MUTED, ORANGE, SLATE

GAPS = np.arange(31)


def mutants(n, seed=0):
    """Changes of the output ``(4, n)``, 0 at the base that is there, and the codes."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, n).astype(np.uint8)
    effects = rng.normal(0, 0.01, (4, n))
    effects[codes, np.arange(n)] = 0
    return effects, codes


def cells(ax, color):
    """Row and column of the cells of one colour that are not faint."""
    found = set()
    for patch in ax.findobj(lambda a: isinstance(a, PathPatch) and not isinstance(a, StepPatch)):
        if to_hex(patch.get_facecolor()) == color and patch.get_alpha() > 0.5:
            boxes = patch.get_path().vertices.reshape(-1, 5, 2)
            found |= {(int(-y - 1), int(x)) for x, y in boxes.min(axis=1)}
    return found


def spacing(order="ab", orientation="++", peak=17, size=1.0, **columns):
    mean = size * np.exp(-((GAPS - peak) ** 2) / 9)
    return pd.DataFrame({"order": order, "orientation": orientation, "gap": GAPS, "mean": mean, "low": mean - 0.1,
                         "high": mean + 0.1, **columns})


def interactions(names, **columns):
    rng = np.random.default_rng(0)
    table = pd.DataFrame([(a, b) for a in names for b in names], columns=pd.Index(["motif_a", "motif_b"]))
    return table.assign(mean=rng.normal(size=len(table)), **columns)


def curves(methods, track=0):
    at = np.array([0, 0.01, 0.1, 0.5, 1])
    return pd.concat([pd.DataFrame({"method": m, "curve": c, "track": track, "fraction": at, "score": at, "low": at,
                                    "high": at}) for m in methods for c in ("insertion", "deletion")])


def agreement(names, metric="pearson", **columns):
    table = pd.DataFrame(list(combinations(names, 2)), columns=pd.Index(["a", "b"]))
    return table.assign(metric=metric, value=(np.arange(len(table)) + 1) / 20, **columns)


def texts(figure):
    return [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_text()]


def test_plot_mutagenesis__changes_have_their_cell_and_sign(assert_readable):
    effects, codes = mutants(71)
    codes[13], codes[29] = 2, 1
    effects[:, 13], effects[:, 29] = [-1, -1, 0, -1], [0, 0, 0, 1]
    figure = plot_mutagenesis(effects, codes, title="promoter", units="log2", start=100)
    logo, ax, _ = figure.axes
    assert cells(ax, ORANGE) == {(0, 113), (1, 113), (3, 113)}
    assert cells(ax, BLUE) == {(3, 129)}
    assert logo.get_xlim() == ax.get_xlim() == (100, 171)
    high = {to_hex(p.get_facecolor()): p.get_path().vertices[:, 1].max()
            for p in logo.findobj(lambda a: isinstance(a, PathPatch)) if p.get_alpha() == 1}
    assert high[ORANGE] == pytest.approx(0.75)  # the G, against the mean of the four
    assert_readable(figure, at_least=15)


def test_plot_mutagenesis__the_same_for_hypothetical_contributions():
    effects, codes = mutants(71)
    effects[:, 13] = -1
    effects[codes[13], 13] = 0
    maps = [cells(plot_mutagenesis(e, codes).axes[1], ORANGE) for e in (effects, effects - effects.mean(axis=0))]
    assert maps[0] == maps[1]
    assert len(maps[0]) == 3


def test_plot_mutagenesis__bases_that_are_there_are_marked_and_n_is_not():
    effects, codes = mutants(31)
    codes[7] = 4
    ax = plot_mutagenesis(effects, codes).axes[1]
    (dots,) = [p for p in ax.findobj(PathPatch) if to_hex(p.get_facecolor()) == INK]
    middle = dots.get_path().vertices.reshape(-1, 5, 2).mean(axis=1)
    marked = {(int(-y), int(x)) for x, y in middle}
    assert marked == {(int(c), i) for i, c in enumerate(codes) if c < 4}


def test_plot_mutagenesis__long_sequences_show_the_stretch_that_matters(assert_readable):
    effects, codes = mutants(2111)
    effects[:, 1201:1209] = -3
    effects[codes[1201:1209], np.arange(1201, 1209)] = 0
    figure = plot_mutagenesis(effects, codes)
    low, high = figure.axes[1].get_xlim()
    assert high - low == 120
    assert low < 1201 < 1209 < high
    assert "position in the sequence (bp); 120 of 2,111 bp, the most important" in texts(figure)
    assert_readable(figure)
    assert plot_mutagenesis(effects, codes, window=(401, 443)).axes[1].get_xlim() == (401, 443)


def test_plot_mutagenesis__bad_input():
    effects, codes = mutants(31)
    with pytest.raises(SchemaError, match=r"needs codes \(31,\); got shape \(29,\)"):
        plot_mutagenesis(effects, codes[:29])
    with pytest.raises(SchemaError, match="window 20 to 37 does not lie in the sequence, 0 to 31"):
        plot_mutagenesis(effects, codes, window=(20, 37))


def test_plot_tiles__scores_are_means_of_the_windows_over_a_base(assert_readable):
    windows = pd.DataFrame({"start": [0, 5, 10], "end": [10, 15, 17], "effect": [1.0, 3.0, -2.0]})
    ax = plot_tiles(windows, title="tiles", units="log2")
    high, low = (p.get_data() for p in ax.findobj(StepPatch))
    values = high.values + low.values
    assert values.tolist() == [1] * 5 + [2] * 5 + [0.5] * 5 + [-2] * 2
    assert ax.get_ylim()[1] > 3  # the dashes are in view
    assert_readable(ax.get_figure())
    given = plot_tiles(windows, np.full(17, 0.25)).findobj(StepPatch)[0].get_data().values
    assert set(given) == {0.25}


def test_plot_tiles__bad_tables():
    windows = pd.DataFrame({"start": [0, 5], "end": [10, 15], "effect": [1.0, 3.0], "region": [0, 1]})
    with pytest.raises(SchemaError, match="shows one region; the table holds 2: 0, 1"):
        plot_tiles(windows)
    with pytest.raises(SchemaError, match="missing: effect"):
        plot_tiles(windows.drop(columns="effect"))
    with pytest.raises(SchemaError, match="at least one row"):
        plot_tiles(windows.iloc[:0])


def panel(n=3001, start=50_000, codes=True):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.01, n)
    values[1001:1009], values[1103] = 1.5, -0.5
    return AttributionPanel("contribution, deeplift", start, values,
                            rng.integers(0, 4, n).astype(np.uint8) if codes else None)


@pytest.mark.parametrize(("width", "spelled"), [(151, True), (1009, False), (2999, False)])
def test_attribution_panel__letters_near_and_steps_far(width, spelled, assert_readable):
    genes = pd.DataFrame({"start": [50_990], "end": [51_010], "strand": "+", "gene_name": "YFG1", "gene_id": "g"})
    figure = plot_region([panel(), GenePanel("genes", genes)], "chrI", 50_990, 50_990 + width)
    ax = figure.axes[1]
    assert bool(ax.findobj(StepPatch)) is not spelled
    assert ax.get_xlim() == (50_990, 50_990 + width)
    assert {"+1.5", "−0.5"} <= set(texts(figure))
    assert_readable(figure, at_least=6)


def test_attribution_panel__is_aligned_with_the_chromosome():
    ax = plot_region([panel()], "chrI", 50_500, 52_500).axes[1]
    data = ax.findobj(StepPatch)[0].get_data()
    left = data.edges[:-1][data.values > 1]
    right = data.edges[1:][data.values > 1]
    assert left.min() <= 51_001 < left.min() + 4
    assert right.max() - 4 < 51_009 <= right.max()


def test_attribution_panel__without_codes_or_outside_of_the_view():
    assert plot_region([panel(codes=False)], "chrI", 51_000, 51_100).axes[1].findobj(StepPatch)
    assert "none in this region" in texts(plot_region([panel()], "chrI", 10, 500))
    assert panel().height(View("chrI", 0, 100)) > panel().height(View("chrI", 0, 10_000))


def test_attribution_panel__lengths_must_fit():
    with pytest.raises(SchemaError, match=r"got \(7,\) and \(5,\)"):
        AttributionPanel("x", 0, np.zeros(7), np.zeros(5, np.uint8))


def test_plot_spacing__the_peak_is_marked_and_series_named_as_they_stand(assert_readable):
    table = pd.concat([spacing(), spacing("ab", "+-", 5, 0.3), spacing("ba", "-+", 23, -0.4)])
    figure = plot_spacing(table, title="a and b", units="log2")
    assert {"17 bp", "A(+) B(+)", "A(+) B(−)", "B(+) A(−)"} <= set(texts(figure))
    assert_readable(figure, at_least=15)
    named = plot_spacing(table.assign(motif_a="REB1", motif_b="ABF1"))
    assert {"REB1(+) ABF1(−)", "ABF1(+) REB1(−)"} <= set(texts(named))


def test_plot_spacing__a_dip_can_be_the_peak():
    assert "23 bp" in texts(plot_spacing(pd.concat([spacing(size=0.3), spacing("ba", "++", 23, -0.4)])))


def test_plot_spacing__all_orders_and_orientations_with_long_names(assert_readable):
    table = pd.concat([spacing(o, k, motif_a="a_long_motif", motif_b="another_motif") for o in ("ab", "ba")
                       for k in ("++", "+-", "-+", "--")])
    assert_readable(plot_spacing(table, title="x"), at_least=20)


def test_plot_spacing__counts_of_orders_are_summed(assert_readable):
    seen = pd.DataFrame({"gap": np.tile(GAPS, 2), "count": np.repeat([2, 5], 31), "expected": 3.0, "low": 1.0,
                         "high": 5.0})
    figure = plot_spacing(spacing(), seen)
    below = figure.axes[1]
    assert {bar.get_height() for bar in below.patches} == {7}
    assert set(below.get_lines()[0].get_ydata()) == {6}
    band = below.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((6 - np.sqrt(8), 6 + np.sqrt(8)))
    assert_readable(figure)


def test_plot_spacing__one_pair_and_track():
    with pytest.raises(SchemaError, match="shows one track; the table holds 2: 0, 1"):
        plot_spacing(pd.concat([spacing(track=0), spacing(track=1)]))
    with pytest.raises(SchemaError, match="needs at least one row"):
        plot_spacing(spacing().iloc[:0])
    with pytest.raises(SchemaError, match="missing: mean"):
        plot_spacing(spacing().drop(columns="mean"))


def test_plot_position_effect__a_line_for_each_strand(assert_readable):
    table = pd.concat([pd.DataFrame({"motif": "REB1", "strand": s, "position": np.arange(-200, 200, 11), "mean": v,
                                     "low": v - 1, "high": v + 1}) for s, v in (("+", 1.0), ("-", 2.0))])
    figure = plot_position_effect(table, title="REB1", units="log2")
    assert {"REB1 forward", "REB1 reverse"} <= set(texts(figure))
    assert_readable(figure)


@pytest.mark.parametrize("names", [["a"], ["TATA", "a_rather_long_motif_name", "REB1"],
                                   [f"pos_pattern_{i}" for i in range(19)]])
def test_plot_interactions__readable_at_any_size(names, assert_readable):
    assert_readable(plot_interactions(interactions(names), units="cooperativity, log2"), at_least=len(names))


def test_plot_interactions__rows_are_the_first_motif_and_unsure_values_are_grey():
    table = interactions(["a", "b"], q_value=[0.01, 0.2, 0.3, 0.04]).assign(mean=[0.11, -0.22, -0.001, 0.44])
    ax = plot_interactions(table.iloc[:3]).axes[0]
    written = {t.get_text(): (t.get_position(), t.get_color()) for t in ax.texts if t.get_text()[-1].isdigit()}
    assert written == {"0.11": ((0.5, -0.5), INK), "−0.22": ((1.5, -0.5), MUTED), "0.00": ((0.5, -1.5), MUTED)}
    with pytest.raises(SchemaError, match="shows one track"):
        plot_interactions(pd.concat([table.assign(track=0), table.assign(track=1)]))


def test_plot_faithfulness__controls_are_grey_and_come_last(assert_readable):
    methods = ["random", "ism", "integrated_gradients", "expected_gradients", "deeplift", "saliency", "center"]
    figure = plot_faithfulness(curves(methods))
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()][-2:] == ["random order", "from the center"]
    grey = [t.get_text() for t, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
            if line.get_color() == SLATE]
    assert grey == ["random order", "from the center"]
    assert_readable(figure, at_least=20)


def test_plot_faithfulness__bad_tables():
    with pytest.raises(SchemaError, match="one track; the table holds 2"):
        plot_faithfulness(pd.concat([curves(["ism"]), curves(["ism"], track=1)]))
    with pytest.raises(SchemaError, match="insertion or deletion; got: other"):
        plot_faithfulness(curves(["ism"]).assign(curve="other"))


def test_plot_consistency__dots_for_few_and_a_matrix_for_many(assert_readable):
    few = plot_consistency(agreement(["ism", "deeplift", "saliency"], low=0.01, high=0.9, chance=-0.2))
    assert {"ism – deeplift", "0.150"} <= set(texts(few))
    assert few.axes[0].get_xlim()[0] < -0.2
    many = plot_consistency(agreement(["ism", "deeplift", "saliency", "integrated_gradients"]))
    values = {t.get_position(): t.get_text() for t in many.axes[0].texts if t.get_text().startswith("0.")}
    assert values[0.5, -1.5] == values[1.5, -0.5] == "0.05"
    assert (0.5, -0.5) not in values
    for figure in (few, many):
        assert_readable(figure)


def test_plot_consistency__models_against_one_map_and_other_metrics(assert_readable):
    table = pd.DataFrame({"model": ["1", "2"], "metric": "jaccard_0.05", "value": [0.1, np.nan]})
    figure = plot_consistency(table, metric="jaccard_0.05")
    assert {"overlap of the top 5% (Jaccard)", "0.100", "n/a"} <= set(texts(figure))
    assert_readable(figure)
    with pytest.raises(SchemaError, match=r"measured as 'pearson'; metrics in the table: jaccard_0.05"):
        plot_consistency(table)


def test_plot_randomization__starts_at_full_agreement_and_averages_draws(assert_readable):
    table = pd.DataFrame({"n_layers": [1, 1, 5], "draw": [0, 1, 0], "metric": "spearman_abs", "value": [0.4, 0.6, 0.1],
                          "chance": 0.0})
    figure = plot_randomization(table)
    line = figure.axes[0].get_lines()[0]
    assert list(line.get_xdata()) == [0, 1, 5]
    assert list(line.get_ydata()) == pytest.approx([1, 0.5, 0.1])
    assert_readable(figure)
