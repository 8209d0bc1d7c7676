"""Every attribution method by its name."""

from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor

from ciscribe.errors import UnknownNameError, UnsupportedError, nearest
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
        Further arguments of the method.

    Returns
    -------
    DataArray
        ``(region, base, position, track)``, hypothetical; see `ciscribe.results.attribution_array`. Its ``method``
        attribute says what was used.

    Raises
    ------
    UnknownNameError
        Listing the names.
    UnsupportedError
        When the method has no answer for the model.
    """
    given = {"batch_size": batch_size, "seed": seed, "progress": progress, "regions": regions} | options
    if method == "auto":
        for name in AUTO[:-1]:
            try:
                return METHODS[name](oracle, X, S, covariates, **given)
            except UnsupportedError:
                continue
        method = AUTO[-1]
    name = ALIASES.get(method, method)
    if name not in METHODS:
        raise UnknownNameError(f"no attribution method is called {method!r}; {nearest(method, [*METHODS, *ALIASES])}")
    return METHODS[name](oracle, X, S, covariates, **given)
