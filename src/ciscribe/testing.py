"""Contracts that any model, and any method that explains models, can be held to, ours or yours.

``check_model(model, ...)``, ``check_attribution(method, ...)`` and ``check_designer(design, ...)`` raise with what is
broken; the project runs them over its whole registry and over all of its methods and designers.
"""

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import UInt8
from numpy import ndarray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle, Readout
from ciscribe.results import check_attribution_array, contributions
from ciscribe.sequence import one_hot_tensor


def check_model(model: nn.Module, X: Tensor, S: Tensor | None = None, covariates: Tensor | None = None, *,
                n_targets: int, readout: Readout | None = None, card: Card | None = None, atol: float = 1e-5) -> None:
    """Hold a model to the contract of `docs/spec.md`.

    Output shape and type; the same answer twice; a batch equals its members one by one; the gradient reaches the
    sequence and the signals; N-only input gives finite numbers; weights survive safetensors; the oracle leaves the
    training mode as it was; the parameter count is the card's, where the card states one.

    Parameters
    ----------
    model
        Anything that an `Oracle` takes.
    X
        One-hot sequences ``(B, 4, L)``, B ≥ 2.
    S, covariates
        Further inputs of the model.
    n_targets
        Columns expected.
    readout
        What is read off the output.
    card
        Checked against the model when given; the model must have its published size then.
    atol
        Largest difference between a batch and its members.

    Raises
    ------
    SchemaError
        With the clause that is broken.
    """
    oracle = Oracle(model, readout, device="cpu")
    training = model.training
    y = oracle.predict(X, S, covariates)
    _demand(tuple(y.shape) == (len(X), n_targets), f"outputs are (B, {n_targets}); got {tuple(y.shape)}")
    _demand(bool(torch.isfinite(y).all()), "outputs are finite")
    _demand(model.training == training, "the oracle restores the training mode")
    _demand(torch.equal(y, oracle.predict(X, S, covariates)), "evaluation gives the same answer twice")
    singles = oracle.predict(X, S, covariates, batch_size=1)
    _demand(torch.allclose(y, singles, atol=atol, rtol=1e-4),
            f"a batch equals its members one by one; largest difference {float((y - singles).abs().max()):.2g}")
    empty = oracle.predict(torch.zeros_like(X), S, covariates)
    _demand(bool(torch.isfinite(empty).all()), "N-only sequences give finite numbers")
    _check_gradient(model, oracle.readout, X, S, covariates)
    _check_weights(model, X, S, covariates, y, oracle.readout)
    if card is not None and card.parameters is not None:
        n = sum(p.numel() for p in model.parameters())
        _demand(n == card.parameters, f"the card states {card.parameters:,} parameters; the model has {n:,}")


def _demand(kept: bool, clause: str, what: str = "model") -> None:
    if not kept:
        raise SchemaError(f"the {what} breaks its contract: {clause}")


def _extras(S: Tensor | None, covariates: Tensor | None) -> dict[str, Tensor]:
    return {k: v for k, v in (("S", S), ("covariates", covariates)) if v is not None}


def _check_gradient(model: nn.Module, readout: Readout, X: Tensor, S: Tensor | None, covariates: Tensor | None) -> None:
    model = copy.deepcopy(model).eval()
    X = X.clone().requires_grad_()
    S = None if S is None else S.clone().requires_grad_()
    readout(model(X, **_extras(S, covariates))).sum().backward()
    for name, value in (("X", X), ("S", S)):
        if value is not None:
            gradient = torch.zeros(1) if value.grad is None else value.grad
            reached = bool((gradient != 0).any()) and bool(torch.isfinite(gradient).all())
            _demand(reached, f"the gradient reaches {name} and is finite")


def _check_weights(model: nn.Module, X: Tensor, S: Tensor | None, covariates: Tensor | None, y: Tensor,
                   readout: Readout) -> None:
    other = copy.deepcopy(model)
    for p in other.parameters():
        p.data.zero_()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, path)
        other.load_state_dict(load_file(path))
    again = Oracle(other, readout, device="cpu").predict(X, S, covariates)
    _demand(torch.equal(y, again), "weights survive saving and loading")


def check_attribution(method: Callable[..., xr.DataArray], *, complete: bool = False, atol: float = 1e-4,
                      seed: int = 0, **options: Any) -> None:
    """Hold a method that explains models to what its users rely on, on small models of known answer.

    A linear model is explained by its weights; bases that the model does not read are worth nothing; contributions add
    up, where that is promised; a batch gives what its members give one by one; the same seed gives the same numbers;
    the result is a valid attribution of every target, also where the sequence has N; sequences, and the model with its
    modes, gradients, hooks, weights and forward methods, stay as they were, also after an exception.

    Parameters
    ----------
    method
        ``method(oracle, X, *, batch_size, seed, **options)`` → attributions of `ciscribe.results.attribution_array`.
    complete
        The method promises that contributions sum to f(sequence) − mean f(references); it takes ``references=`` as an
        array ``(B, R, 4, L)``.
    atol
        Largest difference from the right answer, whose size is about 1. For a promise within a tolerance, give that.
    seed
        Given to the method, and draws models and sequences.
    **options
        Given to the method, such as a number of steps.

    Raises
    ------
    SchemaError
        With the clause that is broken.
    """
    demand = partial(_demand, what="method")
    draw = torch.Generator().manual_seed(seed)
    n, length, n_targets, reach = 3, 29, 2, 17
    codes = torch.randint(0, 4, (n, length), generator=draw, dtype=torch.uint8)
    X = one_hot_tensor(codes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(4 * length, n_targets))
        curved = _Half(reach, n_targets)

    def explain(model: nn.Module, X: Tensor = X, *, batch_size: int = 64, **more: Any) -> Any:  # checked below
        oracle = Oracle(model, device="cpu")
        return method(oracle, X, batch_size=batch_size, seed=seed, **options | more)

    def same(a: xr.DataArray, b: Any) -> bool:
        return bool(np.allclose(a, b, atol=atol, rtol=0))

    array = explain(linear)
    shape = (n, 4, length, n_targets)
    demand(isinstance(array, xr.DataArray) and array.shape == shape,
           f"attributions are a DataArray {shape}; got {getattr(array, 'shape', type(array).__name__)}")
    check_attribution_array(array)
    weight = linear[1].weight.detach().view(n_targets, 4, length).permute(1, 2, 0)  # pyright: ignore
    demand(same(array - array.mean("base"), (weight - weight.mean(dim=0)).expand(n, -1, -1, -1).numpy()),
           "a linear model is explained by its weights, up to what all four bases of a position share")

    array = explain(curved)
    beyond = float(abs(array[:, :, reach:]).max())
    demand(beyond <= atol, f"positions that the model does not read are worth 0; the largest is worth {beyond:.2g}")
    demand(float(abs(array).max()) > atol, "positions that the model reads are worth something")
    demand(np.array_equal(array, explain(curved)), "the same seed gives the same numbers")
    for size, what in ((1, "in batches of one"), (2, "in batches of two")):
        demand(np.allclose(array, explain(curved, batch_size=size), atol=1e-5), f"it gives the same {what}")
    singles = np.concatenate([explain(curved, X[i:i + 1]).values for i in range(n)])
    demand(np.allclose(array, singles, atol=1e-5), "a batch gives what its members give one by one")
    if complete:
        others = one_hot_tensor(torch.randint(0, 4, (n * 5, length), generator=draw)).view(n, 5, 4, length)
        for model in (linear, curved):
            oracle = Oracle(model, device="cpu")
            change = oracle.predict(X) - oracle.predict(others.flatten(0, 1)).view(n, 5, n_targets).mean(dim=1)
            total = contributions(explain(model, references=others), X).sum("position")
            miss = float(abs(total - change.numpy()).max())
            demand(miss <= atol, f"contributions sum to f(sequence) - mean f(references); they miss it by {miss:.2g}")
    _check_leaves_alone(explain, curved, X, codes)


def check_designer(design: Callable[..., Any], objective: Any, constraints: Any,
                   start: UInt8[ndarray, "S L"] | None = None, *, n: int = 5, budget: int = 600, seed: int = 0,
                   **options: Any) -> None:
    """Hold a designer to what its users rely on.

    Every sequence that it proposes is allowed, without any filter; the budget is kept to, and every query counted; no
    start's best design is worse than the start; scores are the objective's; the same seed makes the same designs,
    whatever the state of the global generators of random numbers, and leaves that alone; sequences and models stay as
    they were; an interrupt returns what was found.

    Parameters
    ----------
    design
        ``ciscribe.design.runner.design`` with its `method`, as by ``functools.partial(design, method="greedy")``.
    objective
        An objective of ``ciscribe.design``.
    constraints
        ``ciscribe.design.constraints.Constraints`` of the designs' length, not bound to starts.
    start
        Sequences to improve, codes; None designs from nothing.
    n, budget, seed
        Given to the runner.
    **options
        Of the designer.

    Raises
    ------
    SchemaError
        With the clause that is broken.
    """
    demand = partial(_demand, what="designer")
    given = None if start is None else start.copy()
    models = [oracle.model for oracle in objective.oracles]
    for model in models:
        model.train()
    before = [_state(model) for model in models]

    def run(asked: Any) -> Any:
        return design(asked, given, length=None if given is not None else constraints.length, constraints=constraints,
                      n=n, budget=budget, seed=seed, **options)

    counted = _Count.of(objective)
    chance = repr(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    made = run(counted)
    demand(chance[0] == repr(np.random.get_state()) and torch.equal(chance[1], torch.get_rng_state()),  # noqa: NPY002
           "the global generators of random numbers are left alone")
    codes, rules = made.codes, constraints if start is None else constraints.bind(start)
    shape = (codes.dtype, codes.ndim, codes.shape[-1])
    demand(shape == (np.uint8, 2, constraints.length) and 1 <= len(codes) <= n and bool((codes < 4).all()),
           f"designs are uint8 (1..{n}, {constraints.length}), codes 0..3; got {codes.dtype} {codes.shape}")
    demand(len({(i, row.tobytes()) for i, row in zip(made.origin.tolist(), codes, strict=True)}) == len(codes),
           "no design of a start comes twice")
    demand(bool(rules.ok(codes, made.origin).all()), "designs keep all constraints")
    n_bad, n_all = int(made.history["infeasible"].sum()), int(made.history["proposed"].sum())
    demand(not n_bad, f"every proposal is allowed by construction; {n_bad:,} of {n_all:,} were not")
    demand(made.queries <= budget, f"the budget of {budget:,} queries is kept to; {made.queries:,} were used")
    demand(counted.count == made.queries, f"{made.queries:,} queries are stated; {counted.count:,} were made")
    demand(np.allclose(made.score, objective(torch.from_numpy(codes)).detach(), atol=1e-5),
           "scores are those of the objective")
    if start is not None and given is not None:
        demand(np.array_equal(given, start), "starts are not changed")
        demand(bool((np.array([made.score[made.origin == i].max() for i in np.unique(made.origin)])
                     >= made.start_score[np.unique(made.origin)] - 1e-5).all()), "no start ends worse than it began")
    demand([_state(model) for model in models] == before, "the models are left as they were")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        again = run(objective)
    demand(np.array_equal(codes, again.codes) and made.history.equals(again.history),
           "the same seed makes the same designs")
    stopped = run(_Count.of(objective, made.queries // 2))
    demand(stopped.attrs["stopped"] == "interrupted" and len(stopped.codes) <= n and
           bool(rules.ok(stopped.codes, stopped.origin).all()), "an interrupt returns what was found")
    demand([_state(model) for model in models] == before, "the models are left as they were, also after an interrupt")


class _Count:
    """What is mixed into the class of an objective: counts what it is asked, and is interrupted once if told to."""

    count: int
    until: int | None

    @classmethod
    def of(cls, objective: Any, until: int | None = None) -> Any:
        """Copy an objective that counts."""
        made = object.__new__(type("Counted", (cls, type(objective)), {}))
        vars(made).update(vars(objective), count=0, until=until)  # also where a dataclass is frozen
        return made

    def _counts(self, count: int) -> None:
        vars(self)["count"] = count
        if self.until is not None and count > self.until:
            vars(self)["until"] = None
            raise KeyboardInterrupt

    def components(self, X: Any) -> Any:
        """Count sequences; those that carry gradients count twice."""
        gradient = isinstance(X, Tensor) and X.requires_grad and torch.is_grad_enabled()
        self._counts(self.count + len(X) * (2 if gradient else 1) * self.n_calls)  # pyright: ignore
        return super().components(X)  # pyright: ignore

    def components_of_edits(self, codes: Any, edits: Any) -> Any:
        """Count sequences."""
        before = self.count
        parts = super().components_of_edits(codes, edits)  # pyright: ignore
        self._counts(before + len(edits.row) * self.n_calls)  # pyright: ignore
        return parts


def _check_leaves_alone(explain: Callable[..., Any], model: nn.Module, X: Tensor, codes: Tensor) -> None:
    """N is no obstacle; nothing that was given is changed, whether the method ends well or not."""
    demand = partial(_demand, what="method")
    model.train()
    model.trunk[1].eval()  # pyright: ignore
    model.trunk[0].weight.requires_grad_(False)  # pyright: ignore
    before = _state(model)
    explain(model)
    demand(torch.equal(X, one_hot_tensor(codes)), "sequences are not changed")
    demand(_state(model) == before, "the model is left as it was")
    with_n = codes.clone()
    with_n[1, 3:7] = 4
    check_attribution_array(explain(model, with_n))
    for calls in (0, 1):  # one by one, so that there is a second call
        failing = copy.deepcopy(model)
        failing.fail_after = calls  # pyright: ignore
        before, failed = _state(failing), False
        try:
            explain(failing, batch_size=1)
        except Exception:
            failed = True
        failing.calls = 0  # pyright: ignore
        demand(failed, "an exception in the model is not swallowed")
        demand(_state(failing) == before, "the model is left as it was, also after an exception")


def _state(model: nn.Module) -> dict[str, Any]:
    """What an analysis may not change about a model."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        hooks = {key: len(value) for key, value in vars(module).items() if "hooks" in key and hasattr(value, "__len__")}
        state[f"module {name}"] = (type(module), module.training, hooks, sorted(vars(module)))
    for name, p in model.named_parameters():
        state[name] = (p.requires_grad, p.grad is None, p.device, p.detach().numpy().tobytes())
    for name, b in model.named_buffers():
        state[name] = b.numpy().tobytes()
    return state


class _Half(nn.Module):
    """A small network that reads the first positions only, and fails after some calls if told to."""

    def __init__(self, reach: int, n_targets: int):
        super().__init__()
        self.reach, self.calls, self.fail_after = reach, 0, -1
        self.trunk = nn.Sequential(nn.Conv1d(4, 7, 5), nn.BatchNorm1d(7), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(),
                                   nn.Linear(7 * ((reach - 4) // 2), n_targets))

    def forward(self, X: Tensor) -> Tensor:
        self.calls += 1
        if 0 <= self.fail_after < self.calls:
            raise RuntimeError("the model fails, as it was told to")
        return self.trunk(X[:, :, :self.reach])
