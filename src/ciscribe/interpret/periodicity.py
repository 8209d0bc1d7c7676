"""Reading a spacing curve: where it is highest, and whether it repeats with the turn of the DNA helix."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.interpret.arrangement import with_q

CARD = Card(
    name="periodicity", kind="interpretation",
    summary="Tells whether a spacing curve rises and falls with the turn of the DNA helix.",
    paper="least-squares spectrum: Lomb, Astrophysics and Space Science 39:447 (1976), doi:10.1007/BF00648343; "
          "red-noise null: Allen & Smith, Journal of Climate 9:3373 (1996), "
          "doi:10.1175/1520-0442(1996)009<3373:MCSDIO>2.0.CO;2",
    differences=("The trend (a polynomial) is fitted together with the wave.",
                 "The null is simulated, not a formula, so that uneven gaps are allowed."))


def peak(curve: pd.DataFrame, *, value: str | None = None, smooth: int = 1) -> pd.DataFrame:
    """The gap at which each spacing curve is highest.

    Parameters
    ----------
    curve
        Table of `spacing_curve` or `observed_spacing`.
    value
        Column that is to be highest; ``mean``, or else ``count``, unless given.
    smooth
        Width of a centered moving average, odd.

    Returns
    -------
    DataFrame
        The row of the curve at its peak, one for each order, orientation and track.
    """
    value = value or ("mean" if "mean" in curve else "count")
    rows = []
    for _, part in _series(curve):
        height = pd.Series(part[value].to_numpy()).rolling(smooth, center=True, min_periods=1).mean()
        rows.append(part.iloc[[int(np.argmax(height))]])
    return pd.concat(rows, ignore_index=True)


def spectrum(gaps: Shaped[ndarray, " n"], values: Shaped[ndarray, " n"], periods: Shaped[ndarray, " k"], *,
             trend: int = 2) -> pd.DataFrame:
    """Share of a curve's variation around its trend that one wave explains, for each period.

    Returns
    -------
    DataFrame
        ``period, power`` (0 to 1), ``amplitude`` (units of the values), ``phase`` (bp: the wave is highest at this
        gap and at every period after it).
    """
    values = np.asarray(values, float)
    rest = _without_trend(gaps, trend)(values)
    total = rest @ rest
    is_flat = total <= 1e-20 * (values @ values)  # a trend and nothing else, but for rounding
    periods = np.asarray(periods, float)
    out = {name: np.zeros(len(periods)) for name in ("period", "power", "amplitude", "phase")}
    out["period"] = periods
    for i, period in enumerate(() if is_flat else periods):
        waves = _waves(gaps, period, trend)
        (a, b), *_ = np.linalg.lstsq(waves, rest, rcond=None)
        left = rest - waves @ np.array([a, b])
        out["power"][i], out["amplitude"][i] = 1 - left @ left / total, np.hypot(a, b)
        out["phase"][i] = np.arctan2(b, a) / (2 * np.pi) * period % period
    return pd.DataFrame(out)


def periodicity(curve: pd.DataFrame, period: float = 10.5, *, value: str = "mean",
                null: str = "red", trend: int = 2,
                periods: tuple[float, float] = (5.0, 20.0), n_permutations: int = 1000, seed: int = 0
                ) -> pd.DataFrame:
    """Whether a spacing curve repeats with the turn of the DNA helix.

    A wave of the given period is fitted together with a smooth trend. Its share of the variation around the trend
    is compared with that in curves without a rhythm.

    Parameters
    ----------
    curve
        Table of `spacing_curve`, or any with ``gap`` and `value`, at least 8 gaps over two periods.
    period
        In bp.
    value
        Column that is tested.
    null
        "permutation" shuffles the curve around its trend. That takes neighbouring gaps for independent, so that any
        smooth curve looks periodic; "red" draws curves in which they are as alike as in this one (autoregressive,
        after taking out the wave itself).
    trend
        Degree of the polynomial.
    periods
        Range that is searched for the best period, in steps of 0.1 bp.
    n_permutations, seed
        Curves of the null.

    Returns
    -------
    DataFrame
        One row for each order, orientation and track: ``period, power, amplitude, phase, p_value`` (one-sided),
        ``best_period, best_power, n`` (gaps), ``q_value``. See `spectrum`.

    References
    ----------
    Lomb 1976, Astrophysics and Space Science 39:447; Allen & Smith 1996, Journal of Climate 9:3373. Differences:
    `CARD`.
    """
    if null not in ("red", "permutation"):
        raise SchemaError(f"null is red or permutation; got {null!r}")
    rng = np.random.default_rng(seed)
    grid = np.arange(periods[0], periods[1] + 0.05, 0.1)
    rows = []
    for keys, part in _series(curve):
        part = part.sort_values("gap")
        gaps, values = part["gap"].to_numpy(float), part[value].to_numpy(float)
        if len(gaps) < 8 or np.ptp(gaps) < 2 * period:
            raise SchemaError(f"periodicity of {period} bp needs 8 gaps or more over {2 * period} bp; got {len(gaps)} "
                              f"over {np.ptp(gaps):g} bp")
        found = spectrum(gaps, values, np.array([period]), trend=trend).iloc[0].to_dict()
        detrend = _without_trend(gaps, trend)
        rest = detrend(values)
        wave = found["amplitude"] * np.cos(2 * np.pi * (gaps - found["phase"]) / period)
        chance = detrend(rng.permuted(np.tile(rest, (n_permutations, 1)), axis=1) if null == "permutation"
                         else _red(rest - wave, n_permutations, rng))
        axes, _ = np.linalg.qr(_waves(gaps, period, trend))
        power = ((chance @ axes) ** 2).sum(axis=1) / np.maximum((chance**2).sum(axis=1), np.finfo(float).tiny)
        p = (1 + np.sum(power >= found["power"] - 1e-12)) / (1 + n_permutations) if found["amplitude"] else 1.0
        best = spectrum(gaps, values, grid, trend=trend)
        top = best.iloc[int(best["power"].to_numpy().argmax())]
        rows.append({**keys, **found, "p_value": p, "best_period": top["period"], "best_power": top["power"],
                     "n": len(gaps)})
    return with_q(pd.DataFrame(rows))


def _without_trend(gaps: ndarray, trend: int) -> Callable[[ndarray], ndarray]:
    """What takes a polynomial out of curves ``(..., gaps)``."""
    gaps = np.asarray(gaps, float)
    base, _ = np.linalg.qr(np.vander((gaps - gaps.mean()) / max(np.ptp(gaps), 1), trend + 1))
    return lambda curves: curves - curves @ base @ base.T


def _waves(gaps: ndarray, period: float, trend: int) -> ndarray:
    """Cosine and sine of a period ``(gaps, 2)``, without what a trend could be taken for."""
    angle = 2 * np.pi * np.asarray(gaps, float) / period
    return _without_trend(gaps, trend)(np.stack([np.cos(angle), np.sin(angle)])).T


def _series(curve: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The single curves of a long table, by order, orientation and track where it has them."""
    if "gap" not in curve.columns or curve.empty:
        raise SchemaError(f"a spacing curve has rows and a column gap; got {len(curve)} rows, columns "
                          f"{', '.join(map(str, curve.columns))}")
    names = [name for name in ("order", "orientation", "track") if name in curve.columns]
    if not names:
        return [({}, curve)]
    return [(part.iloc[0][names].to_dict(), part) for _, part in curve.groupby(names, sort=False)]


def _red(rest: ndarray, n: int, rng: np.random.Generator) -> ndarray:
    """Curves whose neighbours are as alike as those of `rest`."""
    rest = rest - rest.mean()
    total = rest @ rest
    alike = float(np.clip(rest[1:] @ rest[:-1] / total, 0, 0.98)) if total > 0 else 0.0
    curves = rng.normal(size=(n, len(rest)))
    for i in range(1, len(rest)):
        curves[:, i] = alike * curves[:, i - 1] + np.sqrt(1 - alike**2) * curves[:, i]
    return curves
