import re

import numpy as np
import pytest

from ciscribe.plot import plot_scatter, to_svg
from ciscribe.plot.style import COLORS, display_name, fit_text, series_colors, text_width, wrap_text


def figure(title="a"):
    rng = np.random.default_rng(0)
    return plot_scatter(rng.normal(size=37), rng.normal(size=37), title=title).get_figure()


def test_to_svg__same_figure_same_bytes():
    assert to_svg(figure(), "one", "x") == to_svg(figure(), "one", "x")


def test_to_svg__ids_are_prefixed_and_all_references_resolve():
    svg = to_svg(figure(), "one", "x")
    ids, used = re.findall(r'id="([^"]+)"', svg), re.findall(r'(?:url\(|href=")#([^)"]+)', svg)
    assert ids
    assert all(i.startswith("one-") for i in ids)
    assert set(used) == set(ids)
    assert len(ids) == len(set(ids))


def test_to_svg__no_address_date_or_style_sheet():
    svg = to_svg(figure(), "one", "x")
    assert not re.search(r"https?:|<style|<metadata|<!--|xmlns|20\d\d-", svg)


def test_to_svg__palette_becomes_variables_and_text_stays_text():
    svg = to_svg(figure("Title"), "one", "x")
    assert ">Title</text>" in svg
    assert "var(--ink)" in svg
    assert not [s.light for s in COLORS.values() if s.light in svg]


def test_to_svg__names_are_escaped():
    svg = to_svg(figure("<script>&$x^2$"), "one", 'a "b" <c>')
    assert "&lt;script&gt;&amp;$x^2$" in svg
    assert 'aria-label="a &quot;b&quot; &lt;c&gt;"' in svg


def test_to_svg__bad_prefix():
    with pytest.raises(ValueError, match="got '1 a'"):
        to_svg(figure(), "1 a", "x")


def test_fit_text__never_wider_than_asked():
    for width in (10.0, 53.0, 211.0):
        assert text_width(fit_text("a rather long name of a tissue", width)) <= width
    assert fit_text("short", 500) == "short"


def test_wrap_text__all_words_when_they_fit_else_an_ellipsis():
    assert " ".join(wrap_text("one two three four", 70, 3)) == "one two three four"
    lines = wrap_text("one two three four five six seven", 60, 2)
    assert len(lines) == 2
    assert lines[-1].endswith("…")
    assert all(text_width(line) <= 60 for line in lines)


def test_series_colors__main_is_blue_and_first():
    assert series_colors(["a", "b", "c"], main="c")["c"] == COLORS["blue"].light


def test_display_name__baselines_and_targets():
    assert display_name("gbm_sequence_signals") == "GBM, sequence + signals"
    assert display_name("T_cell") == "T cell"
