"""What analyses return: named arrays of importance, and what was before and after a change."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from ciscribe.errors import SchemaError
from ciscribe.sequence import BASES

ATTRIBUTION_DIMS = ("region", "base", "position", "track")


class Perturbation(NamedTuple):
    """What was read before and after a change, arrays of one shape.

    `effect` is before − after: positive where what was changed *raised* the output.
    """

    before: ndarray
    after: ndarray

    @property
    def effect(self) -> ndarray:
        """Before minus after."""
        return self.before - self.after


def attribution_array(values: Float[ndarray, "B 4 L T"] | Float[Tensor, "B 4 L T"], method: str, *, units: str,
                      regions: Sequence[str] | None = None, tracks: Sequence[str] | None = None, **attrs: Any
                      ) -> xr.DataArray:
    """Importance of every base at every position, as the house passes it around.

    Parameters
    ----------
    values
        ``(B, 4, L, T)``, bases A C G T. Each number says what that base would mean at that place (a "hypothetical"
        contribution): times the one-hot sequence and summed over bases it is the contribution of what is there.
    method
        Name of the method.
    units
        What the numbers are measured in: the readout, as text.
    regions, tracks
        Names of the sequences and of the targets; counted from 0 unless given.
    **attrs
        What else made it, such as the reference; None is not kept.

    Returns
    -------
    DataArray
        float32, dims ``(region, base, position, track)``.
    """
    array = np.asarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values, dtype=np.float32)
    n, _, length, n_tracks = array.shape
    coords = {"region": list(regions) if regions is not None else np.arange(n), "base": list(BASES),
              "position": np.arange(length), "track": list(tracks) if tracks is not None else np.arange(n_tracks)}
    for name, size in (("region", n), ("track", n_tracks)):
        if len(coords[name]) != size:
            raise SchemaError(f"{size} {name}s need {size} names; got {len(coords[name])}")
    known = {"method": method, "units": units} | {k: v for k, v in attrs.items() if v is not None}
    return xr.DataArray(array, dims=ATTRIBUTION_DIMS, coords=coords, attrs=known)


def check_attribution_array(array: xr.DataArray) -> None:
    """Raise SchemaError unless `array` is what `attribution_array` makes, with finite numbers."""
    is_array = isinstance(array, xr.DataArray)
    if not is_array or array.dims != ATTRIBUTION_DIMS or list(array["base"].values) != list(BASES):
        raise SchemaError(f"attributions are a DataArray ({', '.join(ATTRIBUTION_DIMS)}), bases A C G T; got "
                          f"{array.dims if is_array else type(array).__name__}; make one with attribution_array()")
    bad = ~np.isfinite(array.values)
    if bad.any():
        i, base, position, track = np.argwhere(bad)[0]
        raise SchemaError(f"{int(bad.sum()):,} of {bad.size:,} attributions are NaN or infinite; first: region {i}, "
                          f"base {BASES[base]}, position {position}, track {track}")


def contributions(array: xr.DataArray, X: Shaped[Tensor, "B 4 L"] | Shaped[ndarray, "B 4 L"]) -> xr.DataArray:
    """Contribution of the base that is there: attributions times the one-hot sequence, summed over bases.

    Returns
    -------
    DataArray
        Dims ``(region, position, track)``; 0 at an N.
    """
    check_attribution_array(array)
    one_hot = np.asarray(X.detach().cpu().numpy() if isinstance(X, Tensor) else X, dtype=np.float32)
    if one_hot.shape != array.shape[:3]:
        raise SchemaError(f"attributions {array.shape[:3]} and one-hot sequences {one_hot.shape} differ")
    values = np.einsum("nblt,nbl->nlt", array.values, one_hot)
    coords = {name: array.coords[name] for name in ("region", "position", "track")}
    return xr.DataArray(values, dims=("region", "position", "track"), coords=coords, attrs=array.attrs)
