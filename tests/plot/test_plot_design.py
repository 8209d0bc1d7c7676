"""Figures of designs: what was changed is what is written, and lines say what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import SchemaError
from ciscribe.plot.design import plot_edits, plot_league, plot_predicted_judged, plot_trajectory


def test_trajectory_draws_both_lines(assert_readable):
    history = pd.DataFrame({"queries": [10, 20, 40], "best": [-np.inf, 1.0, 2.0], "mean": [-np.inf, 0.5, 1.5]})
    figure = plot_trajectory(history, units="log2")
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert lines == {"best": [1.0, 2.0], "mean": [0.5, 1.5]}
    assert_readable(figure)


def test_only_changes_are_written(assert_readable):
    start = np.tile(np.arange(4, dtype=np.uint8), 31)[:113]
    design = start.copy()
    design[[5, 107]] = (start[[5, 107]] + 1) % 4
    figure = plot_edits(start, np.stack([design, start]), ["a", "b"])
    assert len(figure.axes) == 6  # two lines of a start and two designs
    marked = [len(ax.patches) for ax in figure.axes]
    assert sum(m > 0 for m in marked) >= 2
    assert_readable(figure)
    with pytest.raises(SchemaError, match="one length"):
        plot_edits(start, design[None, :50])


def test_judged_gain_and_league(assert_readable):
    table = pd.DataFrame({"gain": [1.0, 2.0, np.nan], "judge_gain": [0.5, 0.7, 0.1]})
    figure = plot_predicted_judged(table)
    assert len(figure.axes[0].collections[0].get_offsets()) == 2
    assert_readable(figure)
    league = pd.DataFrame({"method": ["greedy", "greedy", "screen", "screen"], "budget": [5_000, 20_000] * 2,
                           "judge_gain": [1, 2, 0.5, 0.7]})
    figure = plot_league(league)
    assert [line.get_label() for line in figure.axes[0].lines] == ["greedy", "screen"]
    assert_readable(figure)
