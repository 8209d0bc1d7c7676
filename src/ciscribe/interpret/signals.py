"""What the signals (accessibility, histone marks …) contribute to a prediction, bin by bin, and beside the sequence."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.interpret.references import name_of, row_references
from ciscribe.interpret.slopes import (
    Ask,
    Inputs,
    Line,
    along,
    asking,
    batches,
    integrate,
    random_places,
    take_turns,
    warn_unless_complete,
)
from ciscribe.oracle import Oracle
from ciscribe.sequence import codes_of

Sequences = Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."]
METHODS = ("integrated_gradients", "expected_gradients", "gradient")
KINDS = ("zeros", "mean", "shuffle")


def signal_attribution(oracle: Oracle, X: Sequences, S: Float[Tensor, "B S bins"], covariates: Tensor | None = None, *,
                       method: str = "integrated_gradients", references: str | Tensor | ndarray = "zeros",
                       sequence: str | Tensor | ndarray | None = None, n_references: int = 10, n_steps: int = 20,
                       max_steps: int = 540, tolerance: float = 0.005, batch_size: int = 64, seed: int = 0,
                       progress: bool = False, regions: Sequence[str] | None = None,
                       tracks: Sequence[str] | None = None) -> xr.DataArray:
    """Contribution of every bin of every signal (accessibility, histone marks …) to the prediction.

    Positive: what the signal is here, instead of the reference, raises the output.

    Parameters
    ----------
    oracle
        Model and a readout of one target.
    X, S, covariates
        Sequences, signals ``(B, S, bins)`` and gene features.
    method
        ``"gradient"`` is gradient × input, without references; the others as the functions of that name.
    references
        What a signal is compared with: ``"zeros"`` (no signal), ``"mean"`` (its own mean over the window, flat),
        ``"shuffle"`` (its bins in random order, the same for all signals), or an array ``(B, R, S, bins)``.
    sequence
        References of the sequence: both move together, and the contributions of bases and bins add up to the
        difference (`modality_split` sums them). None holds the sequence as it is.
    n_references, n_steps, max_steps, tolerance, batch_size, seed, progress, regions
        As in `integrated_gradients`; with ``"expected_gradients"`` `n_references` is the number of places.
    tracks
        Names of the signals.

    Returns
    -------
    DataArray
        ``(region, track, bin)``, float32, units of the readout.

    Raises
    ------
    SchemaError
        When the readout gives several targets, or shapes disagree.
    UnsupportedError
        When no gradient reaches the signals.
    """
    found, error = _explain(oracle, X, S, covariates, method, references, sequence, n_references, seed, progress,
                            n_steps=n_steps, max_steps=max_steps, tolerance=tolerance, batch_size=batch_size)
    warn_unless_complete(error, tolerance)
    attrs: dict[str, Any] = {"method": method, "units": str(oracle.readout)}
    if method != "gradient":
        attrs |= {"references": name_of(references), "sequence": "fixed" if sequence is None else name_of(sequence),
                  "seed": seed}
    if method == "integrated_gradients":
        attrs["completeness_error"] = error
    values = np.stack([part.signals for part in found])
    coords = {"region": np.arange(len(values)) if regions is None else list(regions),
              "track": np.arange(values.shape[1]) if tracks is None else _names(tracks, S),
              "bin": np.arange(values.shape[2])}
    return xr.DataArray(values, dims=("region", "track", "bin"), coords=coords, attrs=attrs)


def modality_split(oracle: Oracle, X: Sequences, S: Float[Tensor, "B S bins"], covariates: Tensor | None = None, *,
                   references: str | Tensor | ndarray = "zeros", sequence: str | Tensor | ndarray = "shuffle",
                   n_references: int = 10, n_steps: int = 20, max_steps: int = 540, tolerance: float = 0.005,
                   batch_size: int = 64, seed: int = 0, progress: bool = False, regions: Sequence[str] | None = None,
                   tracks: Sequence[str] | None = None) -> pd.DataFrame:
    """How much of a prediction comes from the sequence, and how much from each signal.

    Integrated gradients on the line that takes sequence and signals together from their references to what they are.

    Parameters
    ----------
    oracle, X, S, covariates, references, sequence, n_references, n_steps, max_steps, tolerance, batch_size, seed
        As in `signal_attribution`.
    progress, regions, tracks
        As there.

    Returns
    -------
    DataFrame
        One row a sequence: ``region``, ``sequence``, one column a signal (its name, else ``signal_0`` …), ``change`` =
        f − mean f(references). Sequence and signals sum to ``change`` up to `tolerance`; units of the readout.
    """
    found, error = _explain(oracle, X, S, covariates, "integrated_gradients", references, sequence, n_references, seed,
                            progress, n_steps=n_steps, max_steps=max_steps, tolerance=tolerance, batch_size=batch_size)
    warn_unless_complete(error, tolerance)
    names = [f"signal_{i}" for i in range(S.shape[1])] if tracks is None else _names(tracks, S)
    per_signal = np.stack([part.signals.sum(axis=1, dtype=np.float64) for part in found])
    return pd.DataFrame({"region": np.arange(len(found)) if regions is None else list(regions),
                         "sequence": [part.sequence for part in found], **dict(zip(names, per_signal.T, strict=True)),
                         "change": [part.change for part in found]})


class _Part(NamedTuple):
    """What the signals ``(S, bins)`` and the whole sequence of one region contribute, and the change to explain."""

    signals: ndarray
    sequence: float
    change: float


def _explain(oracle: Oracle, X: Sequences, S: Tensor, covariates: Tensor | None, method: str,
             references: str | Tensor | ndarray, sequence: str | Tensor | ndarray | None, n: int, seed: int,
             progress: bool, **integration: Any) -> tuple[list[_Part], float]:
    """Explain one region after the other; the second value is the largest completeness error."""
    if method not in METHODS:
        raise UnknownNameError(f"no method for signals is called {method!r}; {nearest(method, METHODS)}")
    codes = codes_of(X)
    of_signals = _signal_references(S, "zeros" if method == "gradient" else references, n, seed)
    of_sequence = None if sequence is None or method == "gradient" else row_references(codes, sequence, n, seed)
    found, worst = [], 0.0
    with asking(oracle) as ask:
        for _, inputs in batches(oracle, codes, S, covariates, 1, progress):
            _need_one_target(ask, inputs, oracle)
            S0, X0 = next(of_signals), None if of_sequence is None else next(of_sequence)
            line = _paired(inputs, X0, S0, n if method == "expected_gradients" else 1)
            change = float("nan")
            if method == "integrated_gradients":
                integral = integrate(ask, line, **integration)
                slopes, change, worst = integral.slopes, float(integral.change), max(worst, integral.error)
            else:
                places = random_places(line.n, seed) if method == "expected_gradients" else torch.ones(1, 1)
                slopes = along(ask, line, places, integration["batch_size"])
            parts = line.contributions(slopes)
            found.append(_Part(parts["S"][0].cpu().numpy(), float(parts["X"].sum()) if "X" in parts else 0.0, change))
    return found, worst


@torch.no_grad()
def _need_one_target(ask: Ask, inputs: Inputs, oracle: Oracle) -> None:
    n = ask(*inputs).shape[1]
    if n != 1:
        raise SchemaError(f"signals are explained for one target at a time, and {oracle.readout} reads {n}; choose one "
                          "with its track, e.g. Scalar(track=0)")


def _paired(end: Inputs, X0: Tensor | None, S0: Tensor, n: int) -> Line:
    """Lines from references of the sequence and of the signals; a single one goes with all of the other."""
    sizes = {len(start) for start in (X0, S0) if start is not None} - {1}
    if len(sizes) > 1:
        raise SchemaError(f"references of sequence and signals go in pairs; got {sorted(sizes)} a region")
    n = max(n, *sizes, 1)
    device = end.X.device
    return Line(end, None if X0 is None else take_turns(X0, n).to(device), take_turns(S0, n).to(device))


def _signal_references(S: Tensor, kind: str | Tensor | ndarray, n: int, seed: int) -> Iterator[Tensor]:
    """References ``(R, S, bins)`` of the signals of one region after the other."""
    if not isinstance(kind, str):
        given = torch.as_tensor(kind).detach().float().cpu()
        if given.ndim != 4 or given.shape[1] < 1 or (given.shape[0], *given.shape[2:]) != S.shape:
            raise SchemaError(f"references of signals {tuple(S.shape)} are ({S.shape[0]}, R, {S.shape[1]}, "
                              f"{S.shape[2]}), R at least 1; got {tuple(given.shape)}")
        yield from given
        return
    if kind not in KINDS:
        raise UnknownNameError(f"no references of signals are called {kind!r}; {nearest(kind, KINDS)}; or give an "
                               "array (B, R, S, bins)")
    draw = np.random.default_rng(seed)
    orders = [torch.from_numpy(draw.permutation(S.shape[2])) for _ in range(n)]
    for own in S.detach().float().cpu():
        if kind == "shuffle":
            yield torch.stack([own[:, order] for order in orders])
        else:
            level = own.mean(dim=1, keepdim=True) if kind == "mean" else torch.zeros(len(own), 1)
            yield level.expand(1, *own.shape)


def _names(tracks: Sequence[str], S: Tensor) -> list[str]:
    if len(tracks) != S.shape[1]:
        raise SchemaError(f"{S.shape[1]} signals need {S.shape[1]} names; got {len(tracks)}")
    return list(tracks)
