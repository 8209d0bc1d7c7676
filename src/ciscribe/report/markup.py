"""Numbers, tables and figures as HTML, escaped where they are put together.

Numbers use true minus signs and an en dash for what is not known; tables align them at the right.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsFloat, TypeGuard

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from ciscribe.plot.style import to_svg


def figure_html(figure: Figure | None, prefix: str, caption: str | None, alt: str) -> Markup:
    """Inline drawing with its caption, in a box that scrolls sideways on narrow screens."""
    if figure is None:
        return Markup("")
    text = Markup("<figcaption>{}</figcaption>").format(caption) if caption else Markup("")
    return Markup('<figure><div class="plot{}">{}</div>{}</figure>\n').format(
        Markup(" wide" if figure.get_figwidth() > 8 else ""), Markup(to_svg(figure, prefix, alt)), text
    )


def table_html(
    header: Sequence[str], rows: Iterable[Sequence[Any]], *, left: int = 1, strong: bool | int = False
) -> Markup:
    """Table whose first `left` columns are text and whose others are right-aligned numbers.

    `strong` sets one row in bold: True is the first, a number is that row.
    """

    def line(tag: str, values: Sequence[Any]) -> Markup:
        return Markup("").join(
            Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), Markup("" if j < left else ' class="num"'), value)
            for j, value in enumerate(values)
        )

    which = -1 if strong is False else 0 if strong is True else strong
    body = Markup("\n").join(
        Markup("<tr{}>{}</tr>").format(Markup(' class="strong"' if i == which else ""), line("td", row))
        for i, row in enumerate(rows)
    )
    return Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>\n{}\n</tbody></table></div>\n').format(
        line("th", header), body
    )


def number_text(value: SupportsFloat | None, decimals: int = 3, *, sign: bool = False) -> str:
    """Decimal number with a true minus sign; an en dash where there is none."""
    if not _known(value):
        return "–"
    return f"{float(value):{'+' if sign else ''}.{decimals}f}".replace("-", "−")


def count_text(value: SupportsFloat | None) -> str:
    """Whole number with thousands separators; an en dash where there is none."""
    return f"{float(value):,.0f}" if _known(value) else "–"


def spread_text(value: SupportsFloat | None, sd: SupportsFloat | None) -> str:
    """Value with its standard deviation where that is known."""
    return number_text(value, 2) + (f" ± {number_text(sd, 2)}" if _known(sd) else "")


def interval_html(score: Mapping[str, Any] | None) -> Markup:
    """Value with its confidence interval in small figures."""
    score = score or {}
    value = number_text(score.get("value"))
    if not (_known(score.get("low")) and _known(score.get("high"))):
        return Markup.escape(value)
    return Markup('{} <span class="ci">{}–{}</span>').format(
        value, number_text(score["low"]), number_text(score["high"])
    )


def _known(value: SupportsFloat | None) -> TypeGuard[SupportsFloat]:
    return value is not None and bool(np.isfinite(float(value)))
