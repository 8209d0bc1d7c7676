"""What every picture is asked: does any text touch another, or run off the page?"""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def _words(figure):
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    outside = set()  # ticks beyond the limits exist as artists and are not drawn
    for axis in (a for axes in figure.axes for a in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        outside |= {tick.label1 for tick in ticks if not low - 1e-9 <= tick.get_loc() <= high + 1e-9}
    return [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in outside
    ]


@pytest.fixture
def assert_readable():
    """Raise unless all texts of a figure keep clear of each other and lie on the page."""

    def check(figure, at_least=1):
        words = _words(figure)
        assert len(words) >= at_least
        for (a, box_a), (b, box_b) in itertools.combinations(words, 2):
            apart = (
                box_a.x1 <= box_b.x0 + 0.5
                or box_b.x1 <= box_a.x0 + 0.5
                or box_a.y1 <= box_b.y0 + 0.5
                or box_b.y1 <= box_a.y0 + 0.5
            )
            assert apart, f"{a!r} touches {b!r}"
        for text, box in words:
            page = figure.bbox
            on_page = (box.x0 >= -0.5, box.y0 >= -0.5, box.x1 <= page.x1 + 0.5, box.y1 <= page.y1 + 0.5)
            assert all(on_page), f"{text!r} is clipped"

    return check
