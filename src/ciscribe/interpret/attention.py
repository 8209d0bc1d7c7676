"""Where a transformer looks: attention between places of the sequence, layer by layer and through all of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Shaped
from numpy import ndarray
from rich.progress import track
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnsupportedError
from ciscribe.oracle import Oracle
from ciscribe.sequence import codes_of, one_hot_tensor

DIMS = ("region", "head", "bin", "bin_")
CARDS = {
    "attention": Card(
        name="attention", kind="attribution",
        summary="How much each place of the sequence looks at every other, in each layer of a transformer.",
        paper="Vaswani et al., NeurIPS 2017, arXiv:1706.03762; read as enhancers by Avsec et al. 2021, "
              "doi:10.1038/s41592-021-01252-x"),
    "attention_rollout": Card(
        name="attention_rollout", kind="attribution",
        summary="How much of each place arrives at every other through all layers of a transformer.",
        paper="Abnar & Zuidema, ACL 2020, arXiv:2005.00928"),
}


def attention_weights(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], *, per_head: bool = False,
                      batch_size: int = 1, progress: bool = False, regions: Sequence[str] | None = None
                      ) -> xr.DataArray:
    """How much each bin of the sequence looks at every other bin, in every layer.

    Weights say where information may come from, not what it does to the output: they have no sign, belong to no target,
    and change with training more than predictions do.

    Parameters
    ----------
    oracle
        Its model has a method ``attention(X) -> (B, layers, n, n)``, one-hot in the layout of the oracle, queries in
        rows; with `per_head` ``attention(X, per_head=True) -> (B, layers, heads, n, n)``. Enformer and Borzoi have.
    X
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    per_head
        Keep the heads of a layer apart instead of their mean.
    batch_size
        Sequences a pass; n² weights a layer are kept.
    progress, regions
        As in `ciscribe.interpret.gradient.gradient`.

    Returns
    -------
    DataArray
        float32 ``(region, head, bin, bin_)``: row ``bin`` looks at column ``bin_``, every row sums to 1. ``head`` runs
        over the layers (and within each over its heads); coordinate ``layer`` says of which layer it is. Bins are the
        model's tokens over the whole input, those that it crops away too; ``bin`` holds their first position in bp.

    Raises
    ------
    UnsupportedError
        When the model has no such method.
    SchemaError
        When it returns another shape.
    """
    read = getattr(oracle.model, "attention", None)
    if not callable(read) or isinstance(read, torch.nn.Module):
        raise UnsupportedError(f"{type(oracle.model).__name__} shows no attention: it has no method attention(X) -> "
                               "(B, layers, n, n); Enformer and Borzoi have; use gradients or in-silico mutagenesis")
    codes = codes_of(X)
    if not len(codes):
        raise SchemaError("X holds no sequence")
    options = {"per_head": True} if per_head else {}
    wanted = "(B, layers, heads, n, n)" if per_head else "(B, layers, n, n)"
    parts = []
    with oracle.evaluating():
        for i in track(range(0, len(codes), batch_size), description="attention", disable=not progress):
            part = one_hot_tensor(torch.from_numpy(codes[i:i + batch_size]).to(oracle.device))
            weights: Any = read(part.transpose(1, 2) if oracle.layout == "B L 4" else part, **options)
            if weights.ndim != 4 + per_head or weights.shape[-1] != weights.shape[-2] or len(weights) != len(part):
                raise SchemaError(f"attention(X) returns {wanted} for {len(part)} sequences; got "
                                  f"{tuple(weights.shape)}")
            parts.append(weights.float().cpu().numpy())
    values = np.concatenate(parts)
    n_layers, n_heads, n = values.shape[1], values.shape[2] if per_head else 1, values.shape[-1]
    first = np.arange(n) * codes.shape[1] // n
    return xr.DataArray(values.reshape(len(values), n_layers * n_heads, n, n), dims=DIMS, coords={
        "region": np.arange(len(codes)) if regions is None else list(regions),
        "layer": ("head", np.repeat(np.arange(n_layers), n_heads)), "bin": first, "bin_": first},
        attrs={"method": "attention", "units": "weight"})


def attention_rollout(weights: xr.DataArray, residual: float = 0.5) -> xr.DataArray:
    """How much of each bin of the sequence arrives at every other bin through all layers.

    Each layer passes on `residual` of a bin itself and the rest by its attention; the layers are multiplied.

    Parameters
    ----------
    weights
        From `attention_weights`; heads of a layer are averaged.
    residual
        Share that goes around the attention, 0 to 1; the paper has 0.5.

    Returns
    -------
    DataArray
        float32 ``(region, bin, bin_)``: row ``bin`` of the last layer holds so much of column ``bin_`` of the input;
        every row sums to 1.

    Notes
    -----
    Norms, values and the MLPs between the layers are left out, so this is a path count, not an attribution.

    References
    ----------
    Abnar & Zuidema, ACL 2020, arXiv:2005.00928. Difference: the share of the residual can be chosen.
    """
    if not isinstance(weights, xr.DataArray) or weights.dims != DIMS or "layer" not in weights.coords:
        raise SchemaError(f"rollout reads attention weights ({', '.join(DIMS)}) with the coordinate layer, as "
                          "attention_weights() makes them")
    if not 0 <= residual <= 1:
        raise SchemaError(f"residual lies in 0 to 1; got {residual}")
    layer = weights["layer"].values
    n = weights.sizes["bin"]
    total = np.broadcast_to(np.eye(n), (weights.sizes["region"], n, n))
    for which in np.unique(layer):
        step = weights.values[:, layer == which].mean(axis=1, dtype=np.float64)
        total = (residual * np.eye(n) + (1 - residual) * step) @ total
    coords = {name: weights.coords[name] for name in ("region", "bin", "bin_")}
    return xr.DataArray(total.astype(np.float32), dims=("region", "bin", "bin_"), coords=coords,
                        attrs={"method": "attention_rollout", "units": "share", "residual": residual})
