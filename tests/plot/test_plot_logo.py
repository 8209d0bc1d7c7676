import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch, StepPatch

from ciscribe.errors import SchemaError
from ciscribe.plot import plot_contributions, plot_logo, plot_motif, plot_patterns, to_svg
from ciscribe.plot.gallery import best_matches, q_text
from ciscribe.plot.glyphs import BASE_COLORS, draw_bars, draw_cells
from ciscribe.plot.logo import busiest_window, letter_heights
from ciscribe.plot.style import BLUE, COLORS, ORANGE
from ciscribe.results import attribution_array


def letters(ax):
    """Base and box (left, bottom, right, top) of every letter of a logo, by position."""
    base_of = {to_hex(color): base for base, color in BASE_COLORS.items()}
    found = []
    for patch in ax.findobj(lambda a: isinstance(a, PathPatch) and not isinstance(a, StepPatch)):
        path = patch.get_path()
        columns = np.floor(path.vertices[:, 0] + 1e-9).astype(int)
        found += [(column, base_of[to_hex(patch.get_facecolor())], *path.vertices[columns == column].min(axis=0),
                   *path.vertices[columns == column].max(axis=0)) for column in np.unique(columns)]
    return sorted(found)


def sequence(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, n), rng.integers(0, 4, n).astype(np.uint8)


def pattern(name, width, n=11, sign=1):
    ppm = np.random.default_rng(width).dirichlet(np.full(4, 0.3), width).T
    return SimpleNamespace(name=name, motif=SimpleNamespace(ppm=ppm), cwm=sign * ppm,
                           seqlets=pd.DataFrame({"region": np.arange(n)}))


def test_plot_logo__letters_have_the_size_place_and_color_of_their_value():
    matrix = np.zeros((4, 3))
    matrix[0, 0], matrix[3, 1], matrix[2, 2] = 2.0, -1.5, 0.5
    found = letters(plot_logo(matrix, start=101))
    assert [(column, base) for column, base, *_ in found] == [(101, "A"), (102, "T"), (103, "G")]
    for (_, _, left, bottom, right, top), (low, high), at in zip(found, ((0, 2), (-1.5, 0), (0, 0.5)),
                                                                 (101, 102, 103), strict=True):
        assert (bottom, top) == pytest.approx((low, high))
        assert at < left < at + 0.1
        assert at + 0.9 < right < at + 1


def test_plot_logo__what_lowers_the_output_is_upside_down_and_paler():
    tips = {}
    for sign in (1, -1):
        matrix = np.zeros((4, 1))
        matrix[0] = sign
        ax = plot_logo(matrix)
        (patch,) = ax.findobj(lambda a: isinstance(a, PathPatch))
        points = patch.get_path().vertices
        tips[sign] = np.ptp(points[np.isclose(points[:, 1], sign), 0]), patch.get_alpha()
    assert tips[1][0] == pytest.approx(tips[-1][0])  # the tip of an A is narrow, its feet are wide
    assert tips[1][0] < 0.5
    assert tips[-1][1] < tips[1][1]


def test_plot_logo__a_stack_has_its_largest_letter_outermost():
    matrix = np.array([[0.2], [0.7], [-0.1], [-0.6]])
    boxes = {base: (bottom, top) for _, base, _, bottom, _, top in letters(plot_logo(matrix))}
    assert boxes["A"] == pytest.approx((0, 0.2))
    assert boxes["C"] == pytest.approx((0.2, 0.9))
    assert boxes["G"] == pytest.approx((-0.1, 0))
    assert boxes["T"] == pytest.approx((-0.7, -0.1))


def test_plot_logo__codes_choose_the_base_that_is_there_and_n_is_empty():
    codes = np.array([3, 4, 1], dtype=np.uint8)
    hypothetical = np.ones((4, 3))
    assert [(c, b) for c, b, *_ in letters(plot_logo(hypothetical, codes))] == [(0, "T"), (2, "C")]
    assert [(c, b) for c, b, *_ in letters(plot_logo(np.ones(3), codes))] == [(0, "T"), (2, "C")]


def test_plot_logo__takes_one_region_of_an_attribution_array():
    values = np.random.default_rng(0).normal(size=(2, 4, 7, 3)).astype(np.float32)
    array = attribution_array(values, "ism", units="x")
    np.testing.assert_allclose(letter_heights(array.isel(region=1, track=2)), values[1, ..., 2])
    np.testing.assert_allclose(letter_heights(array.isel(region=[1], track=2).transpose()), values[1, ..., 2])
    with pytest.raises(SchemaError, match=r"choose with .isel\(region=0, track=0\)"):
        plot_logo(array)


def test_plot_logo__long_sequences_become_steps_with_a_note(assert_readable):
    values, codes = sequence(701)
    ax = plot_logo(values, codes)
    assert not letters(ax)
    assert "steps instead of letters: 701 bp" in [t.get_text() for t in ax.texts]
    assert_readable(ax.get_figure())


def test_plot_contributions__closer_view_of_the_stretch_that_matters(assert_readable):
    values, codes = sequence(1009)
    values[613:621] = 5
    figure = plot_contributions(values, codes, start=2000, title="a peak " * 40, units="log2")
    whole, near = figure.axes
    assert whole.get_xlim() == (2000, 3009)
    low, high = near.get_xlim()
    assert high - low == 100
    assert low < 2613 - 20  # in the middle, not at the edge
    assert high > 2621 + 20
    assert len(letters(near)) > 50
    assert_readable(figure, at_least=12)


def test_plot_contributions__short_sequences_are_one_logo(assert_readable):
    figure = plot_contributions(*sequence(127), units="a readout with a name that is longer than the axis is high")
    assert [ax.get_ylabel() for ax in figure.axes] == ["contribution"]
    assert_readable(figure)


@pytest.mark.parametrize(("matrix", "codes", "message"), [
    (np.zeros((7, 4)), None, r"got shape \(7, 4\); transpose it"),
    (np.zeros(7), None, r"with the codes"),
    (np.zeros((4, 0)), None, r"got shape \(4, 0\)"),
    (np.zeros((4, 7)), np.zeros(5, np.uint8), "codes of 5 bp do not fit a matrix of 7 bp"),
    (np.where(np.arange(28).reshape(4, 7) == 9, np.nan, 0), None, "1 of 28 values .*: base C, position 2")])
def test_plot_logo__bad_matrices(matrix, codes, message):
    with pytest.raises(SchemaError, match=message):
        plot_logo(matrix, codes)


def test_plot_motif__column_height_is_its_information():
    ppm = np.array([[1, 0.25, 0.5], [0, 0.25, 0.5], [0, 0.25, 0], [0, 0.25, 0]])
    ax = plot_motif(ppm, title="GAL4")
    found = letters(ax)
    assert [(c, b) for c, b, *_ in found] == [(0, "A"), (2, "A"), (2, "C")]  # even bases say nothing
    assert found[0][-1] == pytest.approx(2)
    assert max(f[-1] for f in found[1:]) == pytest.approx(1)
    assert ax.get_ylim() == (0, 2)


def test_plot_motif__contributions_are_refused():
    with pytest.raises(SchemaError, match=r"column 1 is .*contributions go to plot_logo"):
        plot_motif(np.array([[1, 0.5], [0, 0], [0, 0], [0, 0]]))


def test_plot_patterns__every_pattern_with_its_best_match(assert_readable):
    patterns = [pattern("pos_0", 7), pattern("neg_0", 31, 1009, sign=-1), pattern("a name that is too long " * 3, 5)]
    matches = pd.DataFrame({"pattern": ["pos_0", "pos_0", "neg_0"], "match": ["X", "REB1", "ABF1 of yeast " * 9],
                            "q_value": [0.5, 2e-8, 0.03]})
    figure = plot_patterns(patterns, matches)
    texts = [t.get_text() for t in figure.texts]
    for text in ("pos_0", "11 seqlets", "raises the output", "REB1", "q 2 × 10⁻⁸", "1,009 seqlets", "lowers the output",
                 "q 0.03", "none"):
        assert text in texts
    assert "X" not in texts
    assert len(figure.axes) == 6
    assert_readable(figure, at_least=15)


def test_plot_patterns__counts_what_is_not_shown(assert_readable):
    figure = plot_patterns([pattern(f"p{i}", 11) for i in range(7)], most=5)
    assert "+2 more patterns" in [t.get_text() for t in figure.texts]
    assert_readable(figure)
    with pytest.raises(SchemaError, match="at least one pattern"):
        plot_patterns([])


def test_best_matches__missing_column_is_named():
    with pytest.raises(SchemaError, match="missing: q_value"):
        best_matches(pd.DataFrame({"pattern": [], "match": []}))


@pytest.mark.parametrize(("value", "text"), [(0.0432, "0.043"), (2.6e-12, "3 × 10⁻¹²"), (np.nan, "n/a"), (0, "0")])
def test_q_text__as_people_write_it(value, text):
    assert q_text(value) == text


def test_busiest_window__holds_the_peak_in_its_middle():
    values = np.zeros(101)
    values[47:50] = -1
    first, last = busiest_window(values, 21)
    assert (first + last) / 2 == pytest.approx(48.5, abs=1)
    assert busiest_window(values, 500) == (0, 101)
    values[:3] = 2
    assert busiest_window(values, 21)[0] < 3


def test_draw_bars__joined_steps_keep_peaks_of_both_signs():
    values = np.zeros(5003)
    values[1234], values[4321] = 3.0, -2.0
    ax = plot_logo(np.zeros((4, 1)))
    ax.clear()
    draw_bars(ax, values, 7)
    high, low = (p.get_data() for p in ax.findobj(StepPatch))
    assert (high.values.max(), low.values.min()) == (3, -2)
    assert len(high.values) < 1000
    at = int(np.searchsorted(high.edges, 7 + 1234, side="right")) - 1
    assert high.values[at] == 3
    assert (high.edges[0], high.edges[-1]) == (7, 7 + 5003)


def test_draw_cells__sign_is_a_color_and_size_an_opacity():
    ax = plot_logo(np.zeros((4, 1)))
    ax.clear()
    draw_cells(ax, np.array([[1.0, 0.5, 0.0], [-1.0, np.nan, 9.0]]), 1)
    patches = {(to_hex(p.get_facecolor()), p.get_alpha()): p.get_path().get_extents() for p in ax.findobj(PathPatch)}
    full = max(alpha for _, alpha in patches)
    assert {key: tuple(box.extents) for key, box in patches.items()} == {
        (BLUE, full): (0, -2, 3, 0),  # 1 and what is beyond the limit
        (BLUE, full / 2): (1, -1, 2, 0), (ORANGE, full): (0, -2, 1, -1)}


def test_to_svg__a_logo_has_only_palette_colors_and_few_paths():
    svg = to_svg(plot_logo(*sequence(131)).get_figure(), "logo", "x")
    assert not [s.light for s in COLORS.values() if s.light in svg]
    assert svg.count("<path") < 40
    assert {"teal", "blue", "orange", "purple"} <= set(re.findall(r"var\(--(\w+)\)", svg))
