"""Enhancer–gene links as arcs over a locus, and whether their scores mean what they say."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from ciscribe.plot.panels import View
from ciscribe.plot.style import BLUE, INK, MUTED, ORANGE, SLATE, SMALL, axes_grid, check_columns, style

_MOST_ARCS = 60


@dataclass(frozen=True)
class ArcPanel:
    """Links as arcs from the middle of an element to a TSS; the stronger, the thicker and the higher.

    Parameters
    ----------
    label
        What stands at the left.
    links
        Columns ``start, end, tss, score``; ``chrom``, where there is one, must match. With a column ``label`` (True,
        False or missing: tested and found, tested and not found, not tested) arcs are orange, gray and blue.
    most
        Only so many arcs are drawn, those with the highest score; what was left out is counted at the right.
    """

    label: str
    links: pd.DataFrame
    most: int = _MOST_ARCS

    def __post_init__(self) -> None:
        check_columns(self.links, ("start", "end", "tss", "score"), f"panel '{self.label}'")

    def height(self, view: View) -> float:
        """An inch, whatever is in view."""
        return 1.0

    def draw(self, ax: Axes, view: View) -> None:
        """Arcs above a baseline; parts outside of the view are cut."""
        table = self.links
        if "chrom" in table.columns:
            table = table.loc[table["chrom"] == view.chrom]
        middle, tss = (table["start"] + table["end"]) / 2, table["tss"]
        seen = middle.between(view.start, view.end) & tss.between(view.start, view.end) & np.isfinite(table["score"])
        table = table.assign(middle=middle).loc[seen].sort_values("score", ascending=False, kind="stable")
        ax.set_ylim(0, 1.05)
        ax.axhline(0, color=MUTED, lw=0.6)
        if not len(table):
            ax.text(0.0, 0.5, "none in this region", transform=ax.transAxes, va="center", fontsize=SMALL, color=MUTED)
            return
        shown = table.head(self.most)
        top = float(shown["score"].max())
        longest = float((shown["middle"] - shown["tss"]).abs().max()) or 1.0
        for row in shown.iloc[::-1].to_dict("records"):  # the strongest on top
            share = max(row["score"], 0.0) / top if top > 0 else 0.0
            height = 0.25 + 0.75 * np.sqrt(abs(row["middle"] - row["tss"]) / longest)
            curve = Path([(row["middle"], 0), (row["middle"], 4 / 3 * height), (row["tss"], 4 / 3 * height),
                          (row["tss"], 0)], [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
            ax.add_patch(PathPatch(curve, facecolor="none", edgecolor=_color(row.get("label")),
                                   lw=0.6 + 2.4 * share, alpha=0.35 + 0.6 * share))
        ax.text(1.008, 1.0, f"{top:.3g}", transform=ax.transAxes, va="top", fontsize=SMALL, color=MUTED)
        if hidden := len(table) - len(shown):
            ax.text(1.008, 0.0, f"+{hidden}", transform=ax.transAxes, va="bottom", fontsize=SMALL, color=MUTED)


def _color(label: object) -> str:
    if label is None or pd.isna(label):  # type: ignore[call-overload]
        return BLUE
    return ORANGE if label else SLATE


@style()
def plot_reliability(table: pd.DataFrame) -> Figure:
    """Draw how often links with a given predicted probability are real; on the diagonal they mean what they say.

    Parameters
    ----------
    table
        One row a bin of predictions: ``predicted`` (mean probability), ``observed`` (share of positives), ``n`` and,
        where known, ``low, high`` (95 % interval of `observed`).
    """
    check_columns(table, ("predicted", "observed", "n"), "a reliability table")
    figure, (ax,) = axes_grid(1, 1, width=5.2, panel_height=3.4)
    rows = table.loc[table["n"] > 0]
    limit = max(0.05, 1.05 * float(np.nanmax(rows[["predicted", "observed"]].to_numpy(float), initial=0.0)))
    ax.plot([0, limit], [0, limit], color=INK, lw=0.9, ls=(0, (4, 3)))
    if {"low", "high"} <= set(rows.columns):
        span = np.stack([rows["observed"] - rows["low"], rows["high"] - rows["observed"]]).clip(min=0)
        ax.errorbar(rows["predicted"], rows["observed"], yerr=span, fmt="none", ecolor=MUTED, elinewidth=1.0)
    size = 14 + 60 * np.sqrt(rows["n"] / rows["n"].max()) if len(rows) else []
    ax.scatter(rows["predicted"], rows["observed"], s=size, color=BLUE, alpha=0.85, linewidths=0, zorder=3)
    ax.set(xlim=(0, limit), ylim=(0, limit), xlabel="predicted probability", ylabel="share that is regulated")
    return figure
