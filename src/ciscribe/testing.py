"""Contracts that any model can be held to, ours or yours.

``check_model(model, ...)`` raises with what is broken; the project runs it over its whole registry.
"""

import copy
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle, Readout


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


def _demand(kept: bool, clause: str) -> None:
    if not kept:
        raise SchemaError(f"the model breaks its contract: {clause}")


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
