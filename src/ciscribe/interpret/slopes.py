"""Slopes of a model, and their means along straight lines: what every explanation by backpropagation is made of.

A `Line` leads from references to one sequence, to its signals, or to both together. `along` sums the slopes at places
on it, and `integrate` takes as many places as it needs for the contributions to add up to the difference of the
predictions.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from rich.progress import track as progress_bar
from torch import Tensor, nn

from ciscribe.errors import SchemaError, UnsupportedError
from ciscribe.oracle import Oracle
from ciscribe.schema import check_signals
from ciscribe.sequence import one_hot_tensor

Ask = Callable[..., Tensor]
"""What `Oracle.evaluating` yields."""

_STEPS = ("Round", "Floor", "Ceil", "Trunc", "Sign", "Sgn", "Heaviside")  # flat wherever they have a slope at all
_INSTEAD = "use in-silico mutagenesis, which only predicts"


class Inputs(NamedTuple):
    """One-hot sequences, signals and covariates of a batch, float32 on the oracle's device."""

    X: Float[Tensor, "B 4 L"]
    S: Float[Tensor, "B S bins"] | None
    covariates: Float[Tensor, "B C"] | None


class Line(NamedTuple):
    """Straight lines from R references to one sequence and its signals (`end`, a batch of one).

    An input without references is held as it is.
    """

    end: Inputs
    X0: Float[Tensor, "R 4 L"] | None = None
    S0: Float[Tensor, "R S bins"] | None = None

    @property
    def moving(self) -> tuple[str, ...]:
        """Which of X and S change on the way."""
        return tuple(name for name, start in (("X", self.X0), ("S", self.S0)) if start is not None)

    @property
    def n(self) -> int:
        """R."""
        return next(len(start) for start in (self.X0, self.S0) if start is not None)

    def at(self, row: Tensor, place: Tensor) -> Inputs:
        """Points on the lines `row`: at 0 the reference, at 1 the end."""
        def point(end: Any, start: Tensor | None = None) -> Any:
            if end is None or start is None:
                return None if end is None else end.expand(len(row), *end.shape[1:])
            return start[row] + place[:, None, None] * (end - start[row])

        return Inputs(point(self.end.X, self.X0), point(self.end.S, self.S0), point(self.end.covariates))

    def hypothetical(self, slope: Float[Tensor, "R T 4 L"]) -> Float[Tensor, "T 4 L"]:
        """Contribution of every base b: the mean over references of Σ_c m_c (onehot_b − reference_c), m the slope."""
        at_reference = 0 if self.X0 is None else (slope * self.X0[:, None]).sum(dim=2, keepdim=True)
        return (slope - at_reference).mean(dim=0)

    def contributions(self, slopes: list[Tensor]) -> dict[str, Tensor]:
        """What each moving input contributes: X ``(T, L)``, the bases that are there; S ``(T, S, bins)``."""
        found = dict(zip(self.moving, slopes, strict=True))
        if "X" in found:
            found["X"] = (self.hypothetical(found["X"]) * self.end.X).sum(dim=1)
        if "S" in found:
            found["S"] = (found["S"] * (self.end.S - self.S0)[:, None]).mean(dim=0)  # pyright: ignore
        return found


@contextmanager
def asking(oracle: Oracle) -> Iterator[Ask]:
    """`Oracle.evaluating` with gradients; recurrent layers leave cuDNN, which has no backward pass in evaluation."""
    recurrent = any(isinstance(m, nn.RNNBase) for m in oracle.model.modules())
    before = torch.backends.cudnn.enabled
    try:
        torch.backends.cudnn.enabled = before and not recurrent
        with oracle.evaluating(gradients=True) as ask:
            yield ask
    finally:
        torch.backends.cudnn.enabled = before


def batches(oracle: Oracle, codes: UInt8[ndarray, "B L"], S: Tensor | None, covariates: Tensor | None, size: int,
            progress: bool) -> Iterator[tuple[UInt8[ndarray, "b L"], Inputs]]:
    """Codes and inputs of `size` sequences at a time.

    Raises
    ------
    SchemaError
        When there is no sequence, rows disagree, or signals are not ``(B, S, bins)`` and finite.
    """
    if not len(codes):
        raise SchemaError("X holds no sequence")
    if S is not None:
        check_signals(S)
    for name, value in (("S", S), ("covariates", covariates)):
        if value is not None and len(value) != len(codes):
            raise SchemaError(f"X has {len(codes)} sequences but {name} has {len(value)} rows")
    for i in progress_bar(range(0, len(codes), size), description="explain", disable=not progress):
        part = codes[i:i + size]
        further = (None if v is None else v[i:i + size].detach().to(oracle.device).float() for v in (S, covariates))
        yield part, Inputs(one_hot_tensor(torch.from_numpy(part).to(oracle.device)), *further)


def slopes_at(ask: Ask, inputs: Inputs, of: tuple[str, ...] = ("X",)) -> list[Tensor]:
    """Slope of every target with respect to each input in `of`: ``(B, T, ...)``, one backward pass a target.

    Raises
    ------
    UnsupportedError
        When no gradient arrives there.
    """
    X, S = (None if v is None else v.detach().requires_grad_(name in of)
            for name, v in (("X", inputs.X), ("S", inputs.S)))
    y = ask(X, S, inputs.covariates)
    wanted = [v for name, v in (("X", X), ("S", S)) if v is not None and name in of]
    made = [torch.autograd.grad(y[:, t].sum(), wanted, retain_graph=t + 1 < y.shape[1], allow_unused=True)
            for t in range(y.shape[1] if y.requires_grad else 0)]
    what = " and ".join({"X": "the sequence", "S": "the signals"}[name] for name in of)
    if not made or any(slope is None for one in made for slope in one):
        raise UnsupportedError(f"gradients explain differentiable models, but here none reaches {what}: the model does "
                               f"not read it, or cuts the way (argmax, a comparison, detach, no_grad); {_INSTEAD}")
    if not any(bool(slope.any()) for one in made for slope in one) and (step := _flat_operation(y.grad_fn)):
        raise UnsupportedError(f"gradients explain differentiable models, but the way to {what} leads through "
                               f"{step.lower()}(), whose slope is 0; {_INSTEAD}")
    return [torch.stack(slopes, dim=1) for slopes in zip(*made, strict=True)]


def _flat_operation(node: Any) -> str | None:
    """Name of an operation made of steps, if the graph of an output has one."""
    seen, todo = {None}, [node]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        name = node.name().partition("Backward")[0]
        if name in _STEPS:
            return name
        todo += [parent for parent, _ in node.next_functions]
    return None


def along(ask: Ask, line: Line, places: Float[Tensor, "R K"], batch_size: int) -> list[Tensor]:
    """Slopes summed over K places on each line: ``(R, T, ...)`` for each input that moves."""
    flat = places.flatten().to(line.end.X)
    sums: list[Tensor] = []
    for chosen in torch.arange(len(flat), device=flat.device).split(batch_size):
        row = chosen // places.shape[1]
        slopes = slopes_at(ask, line.at(row, flat[chosen]), line.moving)
        sums = sums or [slope.new_zeros(line.n, *slope.shape[1:]) for slope in slopes]
        for total, slope in zip(sums, slopes, strict=True):
            total.index_add_(0, row, slope)
    return sums


class Integral(NamedTuple):
    """Mean slopes along lines, what they explain, and how well.

    `change` is the mean of f(end) − f(reference), ``(T,)``; `error` by how much contributions miss it, relative to the
    sum of their absolute values (the largest miss and sum over targets); `n_steps` the places on each line it took.
    """

    slopes: list[Tensor]
    change: Float[Tensor, " T"]
    error: float
    n_steps: int


def integrate(ask: Ask, line: Line, *, n_steps: int, max_steps: int, tolerance: float, batch_size: int) -> Integral:
    """Mean slopes by the midpoint rule, tripling the steps until contributions add up within `tolerance`.

    Of three new places in a step the middle one is the old one, so nothing is computed twice.
    """
    if not 1 <= n_steps <= max_steps:
        raise SchemaError(f"n_steps lies in 1 to max_steps; got {n_steps} and {max_steps}")
    change = _change(ask, line, batch_size)
    places = torch.arange(n_steps)
    sums: list[Tensor] = []
    while True:
        new = along(ask, line, ((places + 0.5) / n_steps).expand(line.n, -1), batch_size)
        sums = [a + b for a, b in zip(sums, new, strict=True)] if sums else new
        slopes = [total / n_steps for total in sums]
        parts = torch.cat([part.flatten(1) for part in line.contributions(slopes).values()], dim=1)
        missed, size = (parts.sum(dim=1) - change).abs().amax(), parts.abs().sum(dim=1).amax()
        error = float(missed / size.clamp(min=1e-12))
        if error <= tolerance or 3 * n_steps > max_steps:
            return Integral(slopes, change, error, n_steps)
        n_steps *= 3
        places = torch.arange(n_steps)
        places = places[places % 3 != 1]


@torch.no_grad()
def _change(ask: Ask, line: Line, batch_size: int) -> Float[Tensor, " T"]:
    """Mean of f(end) − f(reference) over the lines."""
    rows = torch.arange(line.n, device=line.end.X.device)
    starts = torch.cat([ask(*line.at(row, torch.zeros_like(row, dtype=torch.float32))) for row in
                        rows.split(batch_size)])
    return (ask(*line.end) - starts).mean(dim=0)


def random_places(n: int, seed: int) -> Float[Tensor, "n 1"]:
    """One random place on each of n lines, one in each n-th of the way."""
    draw = torch.Generator().manual_seed(seed)
    return ((torch.randperm(n, generator=draw) + torch.rand(n, generator=draw)) / n)[:, None]


def take_turns(references: Float[Tensor, "R ..."], n: int) -> Float[Tensor, "n ..."]:
    """At least `n` references: where there are fewer, they are used again in turn."""
    return references[torch.arange(max(n, len(references)), device=references.device) % len(references)]


def warn_unless_complete(error: float, tolerance: float) -> None:
    """Say when contributions do not add up; to be called by the function that a person calls."""
    if error > tolerance:
        warnings.warn(f"integrated gradients do not add up to the difference of the predictions; they miss it by "
                      f"{error:.2g} of all that they contribute, more than the tolerance of {tolerance:g}: raise "
                      "max_steps; if that does not help, the model jumps on the way from the reference (a hard mask, "
                      "N read as a letter), and in-silico mutagenesis says more", UserWarning, stacklevel=3)
