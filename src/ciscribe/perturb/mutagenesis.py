"""In-silico mutagenesis: what becomes of the prediction when single bases change, go or come."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import Edits, predict_edited
from ciscribe.results import attribution_array
from ciscribe.sequence import BASES, N, codes_of

CARD = Card(
    name="ism", kind="attribution",
    summary="Changes every base to every other and reads how much the prediction moves.",
    paper="Zhou & Troyanskaya, Nat Methods 2015, doi:10.1038/nmeth.3547; "
          "recomputing what changes: Nair et al., Bioinformatics 2022, doi:10.1093/bioinformatics/btac135",
    differences=("Only what a change can reach is computed, in any PyTorch model, as differences to the unchanged "
                 "sequence.",),
)


def saturation_mutagenesis(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."],
                           S: Tensor | None = None, covariates: Tensor | None = None, *, start: int = 0,
                           end: int | None = None, batch_size: int = 64, fast: bool = True, progress: bool = False,
                           regions: Sequence[str] | None = None) -> xr.DataArray:
    """Effect of every single-base substitution: prediction with the other base minus prediction as it is.

    Positive means that the base raises the output. A base that is there has 0; at an N each base is compared with N.

    Parameters
    ----------
    oracle
        Any model with a readout ``(B, T)``; see `ciscribe.perturb.edits.predict_edited` for what is computed.
    X
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    S, covariates
        Further inputs, unchanged by the mutations.
    start, end
        Positions to mutate, half-open; the others get 0. All by default.
    batch_size
        Mutants a forward pass.
    fast
        False computes every mutant in full.

    Returns
    -------
    DataArray
        ``(region, base, position, track)`` in the units of the readout.

    Raises
    ------
    SchemaError
        When X is not codes or one-hot, or the positions do not lie in the sequence.

    Notes
    -----
    Cost: three mutants a position. For a convolutional network a mutant costs its receptive field, not its sequence.
    """
    codes = codes_of(X)
    n, length = codes.shape
    last = length if end is None else end
    if not 0 <= start < last <= length:
        raise SchemaError(f"positions to mutate lie in 0 to {length}, start before end; got {start} to {last}")
    row, position, base = (v.ravel() for v in np.meshgrid(np.arange(n), np.arange(start, last), np.arange(4),
                                                         indexing="ij"))
    other = codes[row, position] != base
    row, position, base = row[other], position[other], base[other]
    edits = Edits(row, position, base[:, None].astype(np.uint8))
    y = predict_edited(oracle, codes, edits, S, covariates, batch_size=batch_size, fast=fast, progress=progress)
    before = oracle.predict(torch.from_numpy(codes), S, covariates, batch_size=batch_size).numpy()
    effects = np.zeros((n, 4, length, before.shape[1]), np.float32)
    effects[row, base, position] = y - before[row]
    return attribution_array(effects, "mutagenesis", units=str(oracle.readout), regions=regions,
                             effect="substitution minus reference")


def ism(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], S: Tensor | None = None,
        covariates: Tensor | None = None, *, batch_size: int = 64, seed: int = 0, progress: bool = False,
        regions: Sequence[str] | None = None) -> xr.DataArray:
    """Importance of every base by mutagenesis: how much better it is than the mean of the four.

    The effects of `saturation_mutagenesis` minus their mean over bases: what is there contributes the mean loss when it
    is exchanged, times 3/4.

    Parameters
    ----------
    oracle, X, S, covariates, batch_size, progress, regions
        As in `saturation_mutagenesis`.
    seed
        Nothing is random; taken so that all attribution methods are called alike.

    Returns
    -------
    DataArray
        ``(region, base, position, track)``.
    """
    effects = saturation_mutagenesis(oracle, X, S, covariates, batch_size=batch_size, progress=progress,
                                     regions=regions)
    centered = effects - effects.mean("base")
    centered.attrs = {"method": "ism", "units": str(oracle.readout)}
    return centered.transpose(*effects.dims)


def indel_scan(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], S: Tensor | None = None,
               covariates: Tensor | None = None, *, stays: Literal["start", "end"] = "end", batch_size: int = 64,
               progress: bool = False) -> tuple[xr.DataArray, xr.DataArray]:
    """Effect of deleting each base, and of inserting each base before each position.

    The length stays: the side that moves gets an N after a deletion and loses its last base to an insertion.

    Parameters
    ----------
    stays
        The end of the sequence that keeps its place, for instance the one at the TSS.

    Returns
    -------
    deletions, insertions
        ``(region, position, track)`` and ``(region, base, position, track)``: prediction with the change minus
        prediction as it is. Deleting any base of a run is the same change. An insertion stands before `position`
        when the end stays, after it when the start stays.
    """
    codes = codes_of(X)
    if stays == "start":
        turned = codes[:, ::-1]
    elif stays == "end":
        turned = codes
    else:
        raise ValueError(f"stays is 'start' or 'end'; got {stays!r}")
    n, length = codes.shape
    before = oracle.predict(torch.from_numpy(codes), S, covariates, batch_size=batch_size).numpy()
    deletions = np.zeros((n, length, before.shape[1]), np.float32)
    insertions = np.zeros((n, 4, length, before.shape[1]), np.float32)
    at = np.arange(length)
    for i in range(n):
        x = turned[i]
        gone = np.where(at[None] <= at[:, None], np.concatenate([[np.uint8(N)], x[:-1]])[None], x[None])
        come = np.where(at[None] < at[:, None], np.concatenate([x[1:], [np.uint8(N)]])[None], x[None])
        come = np.repeat(come[None], 4, axis=0)
        # an insertion before position p moves 1 .. p − 1 to the left and stands at p − 1; before 0 it falls off
        come[np.arange(4)[:, None], at[None, 1:], at[None, :-1]] = np.arange(4, dtype=np.uint8)[:, None]
        changed = np.concatenate([gone, come.reshape(4 * length, length)])
        changed = changed[:, ::-1].copy() if stays == "start" else changed
        extras = [None if v is None else v[i:i + 1].expand(len(changed), *v.shape[1:]) for v in (S, covariates)]
        y = oracle.predict(torch.from_numpy(changed), *extras, batch_size=batch_size, progress=progress).numpy()
        y = y - before[i]
        order = slice(None, None, -1) if stays == "start" else slice(None)
        deletions[i] = y[:length][order]
        insertions[i] = y[length:].reshape(4, length, -1)[:, order]
    coords = {"region": np.arange(n), "base": list(BASES), "position": at, "track": np.arange(before.shape[1])}
    attrs = {"units": str(oracle.readout), "stays": stays}
    return (xr.DataArray(deletions, dims=("region", "position", "track"), attrs=attrs | {"method": "deletion"},
                         coords={k: coords[k] for k in ("region", "position", "track")}),
            xr.DataArray(insertions, dims=("region", "base", "position", "track"), coords=coords,
                         attrs=attrs | {"method": "insertion"}))
