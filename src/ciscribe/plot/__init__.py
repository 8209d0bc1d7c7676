"""Pictures of results: a result goes in, Matplotlib axes or a figure come out.

Nothing here reads files, touches ``pyplot`` or changes Matplotlib's global settings. `scores` and `curves`
draw how good a model and its elements are, `elements` how these compare with what is known, `tracks` stacks `panels`
into a piece of the genome; `logo`, `gallery`, `importance`, `syntax` and `faithfulness` show what a model listens to,
with the letters and cells of `glyphs`; `links` and `variants` show which element serves which gene and what a variant
changes; `style` holds the one look and the SVG writer.
"""

from ciscribe.plot.curves import plot_budget_curves, plot_precision_recall, plot_training, plot_truncation
from ciscribe.plot.elements import plot_by_distance, plot_folds, plot_shares
from ciscribe.plot.faithfulness import plot_consistency, plot_faithfulness, plot_randomization
from ciscribe.plot.gallery import plot_patterns
from ciscribe.plot.importance import AttributionPanel, plot_mutagenesis, plot_tiles
from ciscribe.plot.links import ArcPanel, plot_reliability
from ciscribe.plot.logo import plot_contributions, plot_logo, plot_motif
from ciscribe.plot.panels import GenePanel, IntervalPanel, MaskPanel, SignalPanel
from ciscribe.plot.scores import plot_metric_bars, plot_scatter, plot_scatter_grid
from ciscribe.plot.style import to_svg
from ciscribe.plot.syntax import plot_interactions, plot_position_effect, plot_spacing
from ciscribe.plot.tracks import Locus, locus_panels, plot_locus, plot_region
from ciscribe.plot.variants import LollipopPanel, plot_intervals, plot_measured_effects

__all__ = [
    "ArcPanel",
    "AttributionPanel",
    "GenePanel",
    "IntervalPanel",
    "Locus",
    "LollipopPanel",
    "MaskPanel",
    "SignalPanel",
    "locus_panels",
    "plot_budget_curves",
    "plot_by_distance",
    "plot_consistency",
    "plot_contributions",
    "plot_faithfulness",
    "plot_folds",
    "plot_interactions",
    "plot_intervals",
    "plot_locus",
    "plot_logo",
    "plot_measured_effects",
    "plot_metric_bars",
    "plot_motif",
    "plot_mutagenesis",
    "plot_patterns",
    "plot_position_effect",
    "plot_precision_recall",
    "plot_randomization",
    "plot_region",
    "plot_reliability",
    "plot_scatter",
    "plot_scatter_grid",
    "plot_shares",
    "plot_spacing",
    "plot_tiles",
    "plot_training",
    "plot_truncation",
    "to_svg",
]
