"""Every attribution method by its name."""

from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor

from ciscribe.errors import ConfigError, UnknownNameError, UnsupportedError, nearest
from ciscribe.interpret import deeplift, gradient
from ciscribe.oracle import Oracle
from ciscribe.perturb import mutagenesis

METHODS: dict[str, Callable[..., xr.DataArray]] = {
    "deeplift": deeplift.deep_lift,
    "integrated_gradients": gradient.integrated_gradients,
    "expected_gradients": gradient.expected_gradients,
    "gradient": gradient.gradient,
    "corrected_gradient": gradient.corrected_gradient,
    "smooth_grad": gradient.smooth_grad,
    "ism": mutagenesis.ism,
}
"""Each is ``f(oracle, X, S, covariates, *, batch_size, seed, progress, regions, ...)``."""

ALIASES = {"deepshap": "deeplift", "deep_shap": "deeplift", "deep_lift": "deeplift", "saliency": "gradient",
           "gradient_x_input": "gradient", "smoothgrad": "smooth_grad", "mutagenesis": "ism"}
AUTO = ("deeplift", "corrected_gradient", "ism")
"""What ``method="auto"`` tries, in this order, until one supports the model."""


def method_name(name: str) -> str:
    """Name in `METHODS` of a method that may go by an alias, such as ``deepshap``.

    Raises
    ------
    UnknownNameError
        Listing the names.
    """
    found = ALIASES.get(name, name)
    if found not in METHODS:
        raise UnknownNameError(f"no attribution method is called {name!r}; {nearest(name, [*METHODS, *ALIASES])}")
    return found


def attribute(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], S: Tensor | None = None,
              covariates: Tensor | None = None, *, method: str = "auto", batch_size: int = 64, seed: int = 0,
              progress: bool = False, regions: Sequence[str] | None = None, **options: Any) -> xr.DataArray:
    """How much every base matters to the prediction, by a method of that name.

    Parameters
    ----------
    oracle, X, S, covariates
        The model and its inputs; X as codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    method
        One of `METHODS` or `ALIASES`; ``"auto"`` takes the first of `AUTO` that supports the model: DeepSHAP for
        networks whose layers all have a rule, corrected gradients for other networks, mutagenesis for the rest.
    **options
        Further arguments of the method; they need its name.

    Returns
    -------
    DataArray
        ``(region, base, position, track)``, hypothetical; see `ciscribe.results.attribution_array`. Its ``method``
        attribute says what was used.

    Raises
    ------
    UnknownNameError
        Listing the names.
    ConfigError
        For options of a method that is not named.
    UnsupportedError
        When the method has no answer for the model.
    """
    given = {"batch_size": batch_size, "seed": seed, "progress": progress, "regions": regions} | options
    if method != "auto":
        return METHODS[method_name(method)](oracle, X, S, covariates, **given)
    if options:
        raise ConfigError(f"{', '.join(options)}: options belong to one method, and auto may take any; name the method")
    for name in AUTO[:-1]:
        try:
            return METHODS[name](oracle, X, S, covariates, **given)
        except UnsupportedError:
            continue
    return METHODS[AUTO[-1]](oracle, X, S, covariates, **given)
