"""What every picture is asked: does any text touch another, or run off the page?"""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def _words(figure):
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent(renderer)
            axes = text.axes
            # Ticks outside the limits exist as artists and are not drawn.
            inside = (
                axes is None
                or not any(
                    text in (t.label1, t.label2)
                    for axis in (axes.xaxis, axes.yaxis)
                    for t in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
                )
                or (
                    axes.bbox.x0 - 2 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 2
                    or axes.bbox.y0 - 2 <= (box.y0 + box.y1) / 2 <= axes.bbox.y1 + 2
                )
            )
            if inside and box.width > 0:
                found.append((text.get_text(), box))
    return found


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
