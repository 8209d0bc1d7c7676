"""Seqlets: the short stretches of a sequence that a model pays attention to."""

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Shaped
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.errors import ConfigError, SchemaError

CARD = Card(
    name="seqlets",
    kind="interpretation",
    summary="Calls the short windows of a sequence whose summed importance stands out of the rest.",
    paper="Shrikumar et al. 2018, arXiv:1811.00416 (TF-MoDISco)",
    differences=(
        "The mode is the middle of the shortest interval that holds a twentieth of the window sums, not a histogram's; "
        "sums that are exactly 0 do not make the scale 0.",
        "Windows are chosen by their p-values (Benjamini-Hochberg) instead of samples of the null and a regression; at "
        "least a tenth of them, not 3 %, go on.",
        "Seqlets are the windows without flanks, never overlap, and reach to the very ends of a sequence.",
    ),
    n_policy="an N contributes 0",
)
COLUMNS = ("region", "start", "end", "contribution", "p_value", "sign")
SHARES = (0.1, 0.2)
"""Least and most share of windows that stand out. TF-MoDISco has 0.03 and 0.2, which finds half as many in noise."""


def call_seqlets(contributions: Shaped[ndarray, "B L"] | xr.DataArray, *, width: int = 21, window: int | None = None,
                 fdr: float = 0.2, shares: tuple[float, float] = SHARES) -> pd.DataFrame:
    """Find the short windows of each sequence whose summed importance stands out of the rest, up or down.

    The sums of all windows are compared with a Laplace distribution around their mode. Its scale is fitted on each side
    for itself, to the percentile that implies the smallest: windows of motifs, which may be many, only ever widen it.
    Of the windows that stand out the strongest is taken, those that overlap it are struck off, and so on.

    Parameters
    ----------
    contributions
        Importance of the base that is there, ``(B, L)``, of one track: `ciscribe.results.contributions`. Positive
        raises the output.
    width
        Length of a seqlet, bp.
    window
        Look only at this many bp in the middle of every sequence; None looks at all of it.
    fdr
        Share of false windows among those that stand out, if windows were independent (Benjamini–Hochberg).
    shares
        At least and at most this share of all windows stands out, whatever `fdr` says: the null is far too strict for
        noise with thin tails, and too lax where importance is spread all over. Filter by ``p_value``, or give
        ``(0, 1)``, to have significance alone.

    Returns
    -------
    DataFrame
        ``region`` (row of `contributions`), ``start, end`` (within the whole sequence, 0-based half-open),
        ``contribution`` (sum over the seqlet, units of the attribution), ``p_value`` (of the Laplace distribution,
        two-sided), ``sign`` (+1, −1); by region and start. Empty when nothing stands out.

    Raises
    ------
    SchemaError
        When contributions are not finite numbers ``(B, L)``, are all 0, or have fewer positions than `width`.

    References
    ----------
    Shrikumar et al. 2018, arXiv:1811.00416; written from the paper. Differences: `CARD`.
    """
    values = np.asarray(contributions)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise SchemaError(f"contributions are numbers (B, L), one track; got {values.dtype} {values.shape}; choose a "
                          "track, and sum hypothetical importance over bases with results.contributions()")
    length = values.shape[1]
    if width < 1 or not 0 < fdr < 1 or (window is not None and window < 1) or not 0 <= shares[0] < shares[1] <= 1:
        raise ConfigError("need width >= 1, window >= 1, 0 < fdr < 1 and 0 <= least < most share <= 1; got "
                          f"{width=}, {window=}, {fdr=}, {shares=}")
    if width > min(length, window or length):
        raise SchemaError(f"a seqlet of {width} bp does not fit into {'the window' if window else 'sequences'} of "
                          f"{min(length, window or length)} bp; lower width")
    if window is not None and window > length:
        raise SchemaError(f"a window of {window} bp is wider than the sequences of {length} bp; leave it out to look "
                          "at all of them")
    bad = ~np.isfinite(values)
    if bad.any():
        i, position = np.argwhere(bad)[0]
        raise SchemaError(f"{int(bad.sum()):,} of {bad.size:,} contributions are NaN or infinite; first: region {i}, "
                          f"position {position}")
    if not values.any():
        raise SchemaError(f"all {values.size:,} contributions are 0: the model does not depend on the sequence there, "
                          "or they were computed for another track")

    first = 0 if window is None else (length - window) // 2
    values = values[:, first:length if window is None else first + window].astype(np.float64)
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    sums = sums[:, width:] - sums[:, :-width]
    sums[np.abs(sums) < 1e-9 * np.abs(values).max()] = 0  # what rounding leaves of a sum of zeros
    distance = sums - _mode(sums)
    z = np.abs(distance)
    scales = _scale(z[distance >= 0]), _scale(z[distance <= 0])
    z /= np.where(distance > 0, *scales)
    # A window that is above the mode and yet lowers the output, or the other way round, is neither.
    z[np.sign(distance) != np.sign(sums)] = 0
    least, most = np.quantile(z, [1 - shares[0], 1 - shares[1]])
    z[z < np.clip(_cutoff(z, fdr), most, least if shares[0] else None)] = 0

    rows, starts = _take_strongest(z, width)
    table = pd.DataFrame({"region": rows, "start": starts + first, "end": starts + first + width,
                          "contribution": sums[rows, starts], "p_value": np.exp(-z[rows, starts]),
                          "sign": np.sign(sums[rows, starts]).astype(np.int64)}, columns=pd.Index(COLUMNS))
    return table.sort_values(["region", "start"], ignore_index=True)


def _mode(values: ndarray) -> float:
    """Middle of the shortest interval that holds a twentieth of the values."""
    values = np.sort(values.ravel()[::1 + values.size // 1_000_000])
    step = max(1, len(values) // 20)
    at = int(np.argmin(values[step:] - values[:-step])) if len(values) > step else 0
    return float(values[at:at + step + 1].mean())


def _scale(distance: ndarray) -> float:
    """Smallest scale of an exponential distribution that some percentile implies, or the mean; none of them is 0."""
    shares = np.arange(0.2, 1, 0.05)  # below, a few windows more or less at the mode decide
    implied = np.append(np.quantile(distance, shares) / -np.log(1 - shares), distance.mean())
    return float(min(implied[implied > 0], default=1.0))


def _cutoff(z: ndarray, fdr: float) -> float:
    """Smallest z whose window is significant (Benjamini–Hochberg), infinite if none is; p = exp(−z)."""
    tail = np.sort(z[z >= -np.log(fdr)])[::-1]
    passing = np.flatnonzero(-tail <= np.log(fdr) + np.log(np.arange(1, len(tail) + 1)) - np.log(z.size))
    return float(tail[passing[-1]]) if len(passing) else np.inf


def _take_strongest(z: ndarray, width: int) -> tuple[ndarray, ndarray]:
    """Row and start of windows that do not overlap, strongest first; 0 is no window."""
    left, offsets = z.copy(), np.arange(z.shape[1])
    rows: list[ndarray] = [np.empty(0, dtype=np.int64)]
    starts: list[ndarray] = [np.empty(0, dtype=np.int64)]
    active = np.flatnonzero(left.any(axis=1))
    while len(active):  # one seqlet of every sequence a turn
        best = left[active].argmax(axis=1)
        rows.append(active)
        starts.append(best)
        left[active] *= np.abs(offsets - best[:, None]) >= width
        active = active[left[active].any(axis=1)]
    return np.concatenate(rows), np.concatenate(starts)
