"""Variants on a locus, and predicted beside measured effects of single bases."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ciscribe.errors import SchemaError
from ciscribe.plot.panels import View
from ciscribe.plot.style import (
    BLUE,
    MUTED,
    ORANGE,
    SMALL,
    WIDTH,
    axes_grid,
    check_columns,
    display_name,
    number,
    style,
    text_width,
)

_MOST_NAMES = 8


@dataclass(frozen=True)
class LollipopPanel:
    """Effects of variants as lollipops: up where the alternative allele raises the output, down where it lowers it.

    Parameters
    ----------
    label
        What stands at the left.
    variants
        Columns ``pos`` (0-based) and `value`; ``chrom``, where there is one, must match; ``name`` is written beside
        the strongest where there is room.
    value
        Column of the effects, alternative minus reference.
    """

    label: str
    variants: pd.DataFrame
    value: str = "diff"

    def __post_init__(self) -> None:
        check_columns(self.variants, ("pos", self.value), f"panel '{self.label}'")

    def height(self, view: View) -> float:
        """Under an inch, whatever is in view."""
        return 0.8

    def draw(self, ax: Axes, view: View) -> None:
        """Stems, heads and the names of the strongest."""
        table = self.variants.loc[self.variants["pos"].between(view.start, view.end - 1)]
        if "chrom" in table.columns:
            table = table.loc[table["chrom"] == view.chrom]
        value = table[self.value].to_numpy(float)
        table, value = table.loc[np.isfinite(value)], value[np.isfinite(value)]
        limit = float(np.abs(value).max(initial=0.0)) or 1.0
        ax.set_ylim(-1.35 * limit, 1.35 * limit)
        ax.axhline(0, color=MUTED, lw=0.6)
        if not len(table):
            ax.text(0.0, 0.5, "none in this region", transform=ax.transAxes, va="center", fontsize=SMALL, color=MUTED)
            return
        color = np.where(value >= 0, BLUE, ORANGE)
        ax.vlines(table["pos"], 0, value, color=color, lw=0.9, alpha=0.8)
        ax.scatter(table["pos"], value, s=16, color=color, linewidths=0, zorder=3)
        ax.text(1.008, 1.0, f"±{limit:.2g}", transform=ax.transAxes, va="top", fontsize=SMALL, color=MUTED)
        if "name" in table.columns:
            self._names(ax, view, table, value, limit)

    @staticmethod
    def _names(ax: Axes, view: View, table: pd.DataFrame, value: np.ndarray, limit: float) -> None:
        """Names of the strongest, left out where they would touch one that is written already."""
        taken: list[tuple[float, float]] = []
        for i in np.argsort(-np.abs(value), kind="stable")[:_MOST_NAMES]:
            name, pos = str(table["name"].iloc[i]), float(table["pos"].iloc[i])
            width = text_width(name) * view.bp_per_point
            low = min(pos + 5 * view.bp_per_point, view.end - width)
            if name in (".", "nan") or any(low < b and a < low + width for a, b in taken):
                continue
            taken.append((low, low + width))
            ax.text(low, float(value[i] + np.sign(value[i]) * 0.06 * limit), name, fontsize=SMALL, color=MUTED,
                    va="bottom" if value[i] >= 0 else "top")


@style()
def plot_measured_effects(table: pd.DataFrame, *, predicted: str, measured: str = "measured", title: str = "",
                          units: str = "log2") -> Figure:
    """Measured and predicted effect of every substitution along one element, one above the other.

    Parameters
    ----------
    table
        One row a variant of one element: ``pos, alt`` and the columns `predicted` and `measured`.
    predicted, measured
        Which columns.
    units
        Of the measurement.

    Raises
    ------
    SchemaError
        When a column is missing or there is no row.
    """
    check_columns(table, ("pos", "alt", predicted, measured), "a table of measured variants")
    if not len(table):
        raise SchemaError("a figure of measured variants needs at least one row; the table has none")
    figure, axes = axes_grid(2, 1, width=WIDTH, panel_height=1.35, row_gap=0.5, left=0.8)
    for ax, column, unit in zip(axes, (measured, predicted), (f", {units}", ""), strict=True):
        value = table[column].to_numpy(float)
        keep = np.isfinite(value)
        color = np.where(value[keep] >= 0, BLUE, ORANGE)
        ax.vlines(table["pos"].to_numpy()[keep], 0, value[keep], color=color, lw=1.0, alpha=0.8)
        ax.axhline(0, color=MUTED, lw=0.6)
        ax.set_xlim(table["pos"].min() - 1, table["pos"].max() + 1)
        ax.set_title(f"{display_name(column)}{unit}")
    axes[1].set_xlabel("position (bp)")
    both = table[[measured, predicted]].dropna().rank().to_numpy(float)
    rho = float(np.corrcoef(both.T)[0, 1]) if len(both) > 2 else np.nan
    figure.text(0.995, 0.995, f"{title}{' · ' if title else ''}Spearman ρ = {number(rho)}", ha="right", va="top",
                fontsize=SMALL, color=MUTED)
    return figure


@style()
def plot_intervals(table: pd.DataFrame, *, value: str = "value", label: str = "method", xlabel: str = "",
                   reference: float | None = None) -> Figure:
    """One figure of merit of several methods with its interval, one above the other, best first.

    Parameters
    ----------
    table
        Columns `label` and `value`, and ``low, high`` where the interval is known.
    reference
        Drawn as a dashed line: chance, or a target.
    """
    check_columns(table, (label, value), "a table of methods")
    rows = table.sort_values(value, ascending=False, kind="stable").reset_index(drop=True)
    names = [display_name(str(name)) for name in rows[label]]
    left = 0.25 + max((text_width(name) for name in names), default=0.0) / 72
    figure, (ax,) = axes_grid(1, 1, width=7.4, panel_height=0.24 * max(1, len(rows)) + 0.1, left=min(left, 3.4))
    y = -np.arange(len(rows), dtype=float)
    if reference is not None:
        ax.axvline(reference, color=MUTED, lw=1.0, ls=(0, (4, 3)))
    if {"low", "high"} <= set(rows.columns):
        ax.hlines(y, rows["low"].to_numpy(float), rows["high"].to_numpy(float), color=BLUE, lw=1.6, alpha=0.6)
    ax.scatter(rows[value].to_numpy(float), y, s=34, color=BLUE, linewidths=0, zorder=3)
    ax.set_yticks(y, names)
    ax.set(ylim=(-len(rows) + 0.4, 0.6), xlabel=xlabel)
    return figure
