"""How much of a predicted gain to expect: shrinkage that is fitted to designs that were measured.

A designer picks, of many edits, those whose predicted effect is largest, and with them those whose error is largest.
The more edits, and the less each of them is predicted to bring, the smaller the share of the gain that is real. One
number, the strength, is fitted to a table of designs with predicted and measured gain; its shape says how the share
falls. Without edits a prediction is left as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import root_scalar

from ciscribe.errors import SchemaError, UnknownNameError, nearest

_Shape = Callable[[float, ndarray, ndarray], ndarray]
SHAPES: dict[str, _Shape] = {
    "gain per edit": lambda k, g, e: np.abs(g) / np.maximum(np.abs(g) + k * e, 1e-12),
    "distance": lambda k, g, e: 1 / (1 + k * np.sqrt(e)),
    "edits": lambda k, g, e: 1 / (1 + k * e),
    "constant": lambda k, g, e: 1 / (1 + k) + 0 * e,
}
"""Share of a predicted gain g that is real after e edits, by the strength k ≥ 0.

``gain per edit``: g / (g + k e): an edit adds as much expected error as every other, whatever it promises.
``distance``: 1 / (1 + k √e), with √(2e) the distance of two one-hot sequences. ``edits``: 1 / (1 + k e).
``constant``: 1 / (1 + k), a control.
"""
COLUMNS = ("predicted_gain", "measured_gain", "edits")
_STRONGEST = 1e4


@dataclass(frozen=True)
class Calibration:
    """A fitted shrinkage: numbers only, so that it can be kept beside a model.

    Parameters
    ----------
    shape
        One of `SHAPES`.
    strength, low, high
        Strength, and its 95 % interval over origins.
    residual_sd
        Of single designs around their expected gain: model error and measurement noise together.
    n
        Designs that it was fitted to.
    most_edits
        The most that any of them had; beyond, the shape is extrapolated.
    """

    shape: str
    strength: float
    low: float
    high: float
    residual_sd: float
    n: int
    most_edits: int

    def share(self, predicted_gain: Float[ndarray, " n"], edits: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Share of each predicted gain that is expected to be real, 0 to 1."""
        return SHAPES[self.shape](self.strength, predicted_gain, edits)

    def expected(self, predicted_gain: Float[ndarray, " n"], edits: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Calibrated gain: what is expected to be measured, in the units of the prediction."""
        return predicted_gain * self.share(predicted_gain, edits)


def fit_calibration(table: pd.DataFrame, *, shape: str = "gain per edit", n_bootstrap: int = 200, seed: int = 0
                    ) -> Calibration:
    """Fit the share of predicted gains that was real in designs that were measured.

    The strength is the one with which the summed calibrated gain equals the summed measured gain: the calibration is
    right on average, and noise of single measurements does not bias it.

    Parameters
    ----------
    table
        One row a design: ``predicted_gain``, ``measured_gain`` (in the same units, each over the design's own start)
        and ``edits``; optionally ``origin``, the start, over which the interval is bootstrapped.
    shape
        One of `SHAPES`. Designs of one number of edits do not tell the shapes apart; look at several numbers.
    n_bootstrap, seed
        Resamples of the origins for the interval; 0 leaves it NaN.

    Returns
    -------
    Calibration
        Strength 0 where designs gained as much as predicted, or more: gains are never inflated.

    Raises
    ------
    SchemaError
        When columns are missing, a value is not finite, fewer than 10 designs have edits, or their predicted gains do
        not sum to more than 0.
    """
    if shape not in SHAPES:
        raise UnknownNameError(f"no shape of a calibration is called {shape!r}; {nearest(shape, SHAPES)}")
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise SchemaError(f"measured designs need the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing; got "
                          f"{', '.join(map(str, table.columns))}")
    values = table[list(COLUMNS)].to_numpy(float)
    bad = ~np.isfinite(values).all(axis=1) | (values[:, 2] < 0)
    if bad.any():
        raise SchemaError(f"{int(bad.sum()):,} of {len(table):,} measured designs have a gain that is not finite, or "
                          f"negative edits; first: row {table.index[int(bad.argmax())]}; drop what was not measured")
    predicted, measured, edits = values[values[:, 2] > 0].T
    if len(edits) < 10 or predicted.sum() <= 0:
        raise SchemaError(f"a calibration needs 10 or more designs with edits whose predicted gain is above 0 on "
                          f"average; got {len(edits)} with a mean of "
                          f"{predicted.mean() if len(edits) else float('nan'):.3g}")
    strength = _strength(shape, predicted, measured, edits)
    origin = table.loc[values[:, 2] > 0, "origin"].to_numpy() if "origin" in table else np.arange(len(edits))
    rows = pd.Series(np.arange(len(edits))).groupby(origin).agg(list).tolist()
    rng, draws = np.random.default_rng(seed), []
    for _ in range(n_bootstrap):
        at = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        draws.append(_strength(shape, predicted[at], measured[at], edits[at]))
    low, high = np.quantile(draws, (0.025, 0.975)) if draws else (np.nan, np.nan)
    residual = measured - predicted * SHAPES[shape](strength, predicted, edits)
    return Calibration(shape, strength, float(low), float(high), float(residual.std()), len(edits), int(edits.max()))


def _strength(shape: str, predicted: ndarray, measured: ndarray, edits: ndarray) -> float:
    """Strength at which expected and measured gains are equal on average; 0 at least."""
    def excess(k: float) -> float:
        return float((predicted * SHAPES[shape](k, predicted, edits)).sum() - measured.sum())

    if excess(0.0) <= 0:
        return 0.0
    return _STRONGEST if excess(_STRONGEST) >= 0 else float(root_scalar(excess, bracket=(0.0, _STRONGEST)).root)
