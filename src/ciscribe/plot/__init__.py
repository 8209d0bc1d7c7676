"""Pictures of results: a result goes in, Matplotlib axes or a figure come out.

Nothing here reads files, touches ``pyplot`` or changes Matplotlib's global settings. `scores` and `curves`
draw how good a model and its elements are, `tracks` stacks `panels` into a piece of the genome, `style` holds
the one look and the SVG writer.
"""

from ciscribe.plot.curves import plot_budget_curves, plot_precision_recall, plot_training, plot_truncation
from ciscribe.plot.panels import GenePanel, IntervalPanel, MaskPanel, SignalPanel
from ciscribe.plot.scores import plot_metric_bars, plot_scatter, plot_scatter_grid
from ciscribe.plot.style import to_svg
from ciscribe.plot.tracks import Locus, locus_panels, plot_locus, plot_region

__all__ = [
    "GenePanel",
    "IntervalPanel",
    "Locus",
    "MaskPanel",
    "SignalPanel",
    "locus_panels",
    "plot_budget_curves",
    "plot_locus",
    "plot_metric_bars",
    "plot_precision_recall",
    "plot_region",
    "plot_scatter",
    "plot_scatter_grid",
    "plot_training",
    "plot_truncation",
    "to_svg",
]
