"""The patterns that were found in contributions, one under the other, beside the known motifs that they are like."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ciscribe.errors import SchemaError
from ciscribe.plot.glyphs import draw_letters
from ciscribe.plot.logo import letter_heights, plot_motif
from ciscribe.plot.style import INK, MUTED, SMALL, WIDTH, check_columns, fit_text, style, wrap_text


@runtime_checkable
class PatternLike(Protocol):
    """What a gallery asks of a pattern; `ciscribe.interpret.patterns.Pattern` has it."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def motif(self) -> Any:
        """With ``ppm``: base frequencies ``(4, W)``."""
        ...

    @property
    def cwm(self) -> np.ndarray:
        """Mean contributions ``(4, W)``."""
        ...

    @property
    def seqlets(self) -> pd.DataFrame:
        """One row an instance."""
        ...


@style()
def plot_patterns(patterns: Sequence[PatternLike], matches: pd.DataFrame | None = None, *, most: int = 20) -> Figure:
    """Gallery of patterns: contributions, base frequencies, how often each was seen, and which known motif it is like.

    Parameters
    ----------
    patterns
        In the order in which they are shown.
    matches
        Columns ``pattern, match, q_value``; the row with the lowest q-value of each pattern is shown.
    most
        Patterns shown; a note counts the others.

    Raises
    ------
    SchemaError
        If there is no pattern.
    """
    if not len(patterns):
        raise SchemaError("a gallery needs at least one pattern; none was given")
    best = best_matches(matches)
    shown = patterns[:most]
    left, middle, right, gap, row, head = 1.9, 3.1, 1.85, 0.25, 0.92, 0.34
    foot = 0.3 if len(patterns) > most else 0.08
    height = head + row * len(shown) + foot
    figure = Figure(figsize=(WIDTH, height))
    longest = max(p.cwm.shape[1] for p in shown)
    second, third = left + middle + gap, WIDTH - right
    heads = {0.05: "pattern", left: "contributions", second: "base frequencies (2 bits)", third: "most similar motif"}
    for x, text in heads.items():
        figure.text(x / WIDTH, 1 - 0.08 / height, text, va="top", fontsize=SMALL, color=MUTED)
    widths = {left: middle, second: third - second - gap}
    for i, pattern in enumerate(shown):
        y = height - head - row * (i + 1)
        middle_y = (y + row / 2) / height
        sign = "raises" if np.sum(pattern.cwm) >= 0 else "lowers"
        _lines(figure, 0.05, middle_y, [
            (pattern.name, INK, True), (f"{len(pattern.seqlets):,} seqlets", MUTED, False),
            (f"{sign} the output", MUTED, False)], left - 0.2)
        for x, matrix in ((left, pattern.cwm), (second, None)):
            wide = widths[x] * pattern.cwm.shape[1] / longest
            ax = figure.add_axes((x / WIDTH, (y + 0.08) / height, wide / WIDTH, (row - 0.16) / height))
            if matrix is None:
                plot_motif(pattern.motif.ppm, ax=ax)
            else:
                draw_letters(ax, letter_heights(matrix))
            ax.axhline(0, color=MUTED, lw=0.6)
            ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
            for spine in ax.spines.values():
                spine.set_visible(False)
        match = best.get(pattern.name)
        _lines(figure, third, middle_y, [(match[0], INK, False), (f"q {q_text(match[1])}", MUTED, False)]
               if match else [("none", MUTED, False)], right - 0.05, n_lines=2)
    if len(patterns) > most:
        figure.text(0.05 / WIDTH, 0.08 / height, f"+{len(patterns) - most} more patterns", va="bottom",
                    fontsize=SMALL, color=MUTED)
    return figure


def best_matches(matches: pd.DataFrame | None) -> dict[str, tuple[str, float]]:
    """The most certain match of each pattern, and its q-value."""
    if matches is None:
        return {}
    check_columns(matches, ("pattern", "match", "q_value"), "a table of matches")
    ranked = matches.dropna(subset="match").sort_values("q_value", kind="stable").drop_duplicates("pattern")
    return {str(r["pattern"]): (str(r["match"]), float(r["q_value"])) for r in ranked.to_dict("records")}


def q_text(value: float) -> str:
    """A q-value as people write it: 0.03, or 2 × 10⁻⁷."""
    if not np.isfinite(value):
        return "n/a"
    if value == 0 or value >= 0.001:
        return f"{value:.2g}"
    digits, power = f"{value:.0e}".split("e")
    return f"{digits} × 10{str(int(power)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def _lines(figure: Figure, x: float, y: float, lines: list[tuple[str, str, bool]], inches: float, n_lines: int = 1
           ) -> None:
    """Lines of text from `x` inches, centred on `y` (figure fraction); the first may take several."""
    (head, color, bold), *rest = lines
    written = [(part, color, bold) for part in wrap_text(head, inches * 72, n_lines)] + rest
    step = SMALL * 1.3 / 72 / figure.get_figheight()
    for i, (text, color, bold) in enumerate(written):
        figure.text(x / WIDTH, y + ((len(written) - 1) / 2 - i) * step, fit_text(text, inches * 72, bold=bold),
                    va="center", fontsize=SMALL, color=color, fontweight="bold" if bold else "normal")
