"""Models beside each other: by fold, by tenth of expression, calibrated or not, with less to see.

Every function takes tables of a comparison (`ciscribe.train.comparison`) and the models to draw, the first strongest.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from ciscribe.errors import SchemaError
from ciscribe.plot.style import (
    BLUE,
    DASHES,
    LINE,
    MUTED,
    ORANGE,
    SLATE,
    axes_grid,
    check_columns,
    fit_text,
    series_colors,
    style,
)

_SHARE = FuncFormatter(lambda share, _: f"{100 * share:g} %")
_BP = FuncFormatter(lambda bp, _: f"{bp / 1000:.3g} kb" if bp >= 1000 else f"{bp:g} bp")
_NAME = 170  # points left of the axes for names


@style()
def plot_by_fold(fits: pd.DataFrame, models: Sequence[str], *, reference: str | None = None) -> Figure:
    """Correlation of every model on every fold: a dot a fold (mean of its seeds), a tick for the mean of the folds.

    Parameters
    ----------
    fits
        Columns ``model, fold, pearson``, one row a fit.
    models
        Rows of the figure, from the top.
    reference
        Drawn in orange, with a line down through its mean.
    """
    check_columns(fits, ("model", "fold", "pearson"), "a table of fits")
    mean = fits.groupby(["model", "fold"], as_index=False)["pearson"].mean()
    figure, (ax,) = axes_grid(1, 1, panel_height=0.5 + 0.27 * len(models), left=_NAME / 72 + 0.2)
    for i, model in enumerate(models):
        values = mean.loc[mean["model"] == model, "pearson"].to_numpy(float)
        if not len(values):
            raise SchemaError(f"no fit of {model!r} is in the table; it has "
                              + ", ".join(map(str, fits["model"].unique())))
        color = ORANGE if model == reference else BLUE if not i else SLATE
        ax.plot(values, np.full(len(values), i), ls="", marker="o", ms=5, mfc=color, mec="none", alpha=0.55, zorder=3)
        ax.plot([values.mean()] * 2, [i - 0.32, i + 0.32], color=color, lw=2.4, zorder=4)
        if model == reference:
            ax.axvline(values.mean(), color=LINE, lw=1, zorder=1)
    ax.set_yticks(range(len(models)), [fit_text(m, _NAME) for m in models])
    ax.set(ylim=(len(models) - 0.4, -0.6), xlabel="Pearson r over the genes of a fold, mean over targets")
    ax.grid(axis="y", visible=False)
    return figure


@style()
def plot_lines(table: pd.DataFrame, x: str, y: str, models: Sequence[str], *, xlabel: str, ylabel: str,
               scale: str = "linear", diagonal: bool = False) -> Figure:
    """One line a model of `y` against `x`, mean over folds.

    Parameters
    ----------
    table
        Columns ``model``, `x`, `y`; several rows a point are averaged.
    models
        What is drawn, the first strongest; models without a row are left out.
    xlabel, ylabel
        Titles of the axes.
    scale
        ``linear``; ``bp``, log with bp and kb; ``share``, log with per cent.
    diagonal
        Draw the line on which y is x.
    """
    check_columns(table, ("model", x, y), "a table of curves")
    mean = pd.DataFrame(table.groupby(["model", x], as_index=False)[y].mean()).sort_values(x)
    drawn = [m for m in models if (mean["model"] == m).any()]
    if not drawn:
        raise SchemaError(f"none of the models {', '.join(models)} has a curve of {y}")
    colors = series_colors(drawn)
    figure, (ax,) = axes_grid(1, 1, width=9, panel_height=3.0, right=3.2)
    for i, (model, dash) in enumerate(zip(drawn, DASHES * len(drawn), strict=False)):
        rows = mean.loc[mean["model"] == model]
        ax.plot(rows[x], rows[y], color=colors[model], ls=dash, marker="o", ms=3.5, lw=2.2 if not i else 1.6,
                zorder=4 if not i else 3)
    _scale(ax, scale, np.unique(mean[x].to_numpy(float)))
    if diagonal:
        limits = [min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])]
        ax.plot(limits, limits, color=LINE, lw=1, zorder=1)
        ax.set(xlim=limits, ylim=limits)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    handles = [Line2D([], [], color=colors[m], ls=d, lw=2, marker="o", ms=3.5, label=fit_text(m, 150))
               for m, d in zip(drawn, DASHES * len(drawn), strict=False)]
    legend = ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.03, 1.02), title="mean over folds",
                       alignment="left")
    legend.get_title().set(color=MUTED)
    return figure


def _scale(ax: Axes, scale: str, values: np.ndarray) -> None:
    if scale == "linear":
        return
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(values)
    ax.xaxis.set_major_formatter(_BP if scale == "bp" else _SHARE)
