"""What a pretrained model knows: embeddings, small heads on top of them, and likelihoods of language models."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle

POOLS = ("mean", "max", "center")
_PENALTIES = {"ridge": np.logspace(-2, 6, 17), "mlp": np.logspace(-3, 1, 3)}


class _Pooled(nn.Module):
    """A model that gives one vector a sequence."""

    def __init__(self, model: nn.Module, pool: str):
        super().__init__()
        self.model, self.pool = model, pool

    def forward(self, X: Tensor) -> Tensor:
        own = getattr(self.model, "embed", None)
        output = own(X) if callable(own) and not isinstance(own, nn.Module) else self.model(X)
        H = output.get("embedding") if isinstance(output, dict) else output
        if not isinstance(H, Tensor) or H.ndim != 3:
            raise SchemaError(f"{type(self.model).__name__} gives no embedding (B, d, positions): forward returns no "
                              "'embedding' and there is no method embed(X)")
        if self.pool == "center":
            return H[:, :, H.shape[2] // 2]
        return H.mean(dim=2) if self.pool == "mean" else H.amax(dim=2)


def embed(model: nn.Module | Oracle, X: Shaped[Tensor, "N ..."], *, pool: str = "mean", batch_size: int = 32,
          device: str | None = None) -> Float[ndarray, "N d"]:
    """One vector a sequence from a pretrained model.

    Parameters
    ----------
    model
        Its forward gives ``"embedding"`` ``(B, d, positions)`` (language models), or it has a method ``embed(X)`` of
        that shape (Enformer, Borzoi).
    X
        Codes ``(N, L)`` or one-hot ``(N, 4, L)``.
    pool
        Over positions: their ``"mean"``; ``"max"``, the largest value of each feature; ``"center"``, the position in
        the middle.
    batch_size, device
        As in `Oracle`; the device of an oracle is kept.

    Raises
    ------
    SchemaError
        When the model gives no embedding.
    """
    if pool not in POOLS:
        raise SchemaError(f"pool is one of {', '.join(POOLS)}; got {pool!r}")
    return _scores(model, lambda inner: _Pooled(inner, pool), X, batch_size, device)


def _scores(model: nn.Module | Oracle, wrap: Any, X: Tensor, batch_size: int, device: str | None) -> ndarray:
    """Run a wrapped model over all sequences."""
    if isinstance(model, Oracle):
        oracle = Oracle(wrap(model.model), layout="B L 4" if model.layout == "B L 4" else "B 4 L",
                        device=device or model.device)
    else:
        oracle = Oracle(wrap(model), device=device)
    return oracle.predict(X, batch_size=batch_size).numpy()


@dataclass(frozen=True)
class Probe:
    """A small head on embeddings, one part a target.

    Parameters
    ----------
    kind
        ``"ridge"`` or ``"mlp"``.
    penalties
        Strength of the L2 penalty that the inner folds chose, for each target.
    parts
        Fitted scikit-learn pipelines.
    """

    kind: str
    penalties: tuple[float, ...]
    parts: tuple[Pipeline, ...]

    def predict(self, embedding: Float[ndarray, "N d"]) -> Float[ndarray, "N T"]:
        """Predict all targets."""
        return np.stack([part.predict(embedding) for part in self.parts], axis=1)


def fit_probe(embedding: Float[ndarray, "N d"], y: Float[ndarray, "M *T"], kind: str = "ridge", *,
              groups: Shaped[ndarray, " K"] | Sequence[Any] | None = None, folds: int = 5, seed: int = 0) -> Probe:
    """Fit a ridge regression or a small network from embeddings to measurements.

    Features are standardized. The penalty of each target is chosen by the mean squared error of inner folds that never
    divide a group, then the head is fitted on all rows.

    Parameters
    ----------
    embedding
        From `embed`.
    y
        Measurements ``(N,)`` or ``(N, T)``; NaN is not measured.
    kind
        ``"ridge"``, or ``"mlp"``: a network with one hidden layer of 128.
    groups
        Rows of one group (similar sequences, a chromosome) stay together in the inner folds; None: each row is its own.
    folds
        Inner folds.
    seed
        Of the folds and of the network.

    Raises
    ------
    SchemaError
        When the inputs do not fit each other, a target is constant, or there are fewer groups than folds.
    """
    if kind not in _PENALTIES:
        raise SchemaError(f"a probe is ridge or mlp; got {kind!r}")
    Y = y[:, None] if y.ndim == 1 else y
    if len(embedding) != len(Y) or (groups is not None and len(groups) != len(Y)):
        raise SchemaError(f"{len(embedding)} embeddings, {len(Y)} measurements"
                          f"{'' if groups is None else f' and {len(groups)} groups'}; one of each a sequence")
    if not np.isfinite(embedding).all():
        raise SchemaError(f"{int((~np.isfinite(embedding)).any(axis=1).sum())} embeddings are not finite; first: row "
                          f"{int(np.argmax((~np.isfinite(embedding)).any(axis=1)))}")
    names = np.arange(len(Y)) if groups is None else np.asarray(groups)
    parts, penalties = [], []
    for t in range(Y.shape[1]):
        measured = np.isfinite(Y[:, t])
        values, group = Y[measured, t], names[measured]
        n_groups = len(np.unique(group))
        if n_groups < folds:
            raise SchemaError(f"target {t} is measured in {n_groups} groups; {folds} folds need as many; "
                              "use fewer folds")
        if np.ptp(values) == 0:
            raise SchemaError(f"target {t} is constant ({values[0]:g}) in its {len(values)} rows; leave it out")
        splitter = (KFold if groups is None else GroupKFold)(folds, shuffle=True, random_state=seed)
        if kind == "ridge":
            head = make_pipeline(StandardScaler(), Ridge())
        else:
            network = MLPRegressor(hidden_layer_sizes=(128,), max_iter=100, random_state=seed)
            head = make_pipeline(StandardScaler(), network)
        step = head.steps[-1][0]
        search = GridSearchCV(head, {f"{step}__alpha": _PENALTIES[kind]}, scoring="neg_mean_squared_error",
                              cv=list(splitter.split(embedding[measured], values, None if groups is None else group)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 100 epochs are meant as an end
            search.fit(embedding[measured], values)
        parts.append(search.best_estimator_)
        penalties.append(float(search.best_params_[f"{step}__alpha"]))
    return Probe(kind, tuple(penalties), tuple(parts))


class _MaskedLikelihood(nn.Module):
    def __init__(self, model: nn.Module, positions: Sequence[int] | None, at_once: int):
        super().__init__()
        self.model, self.positions, self.at_once = model, positions, at_once

    def forward(self, X: Tensor) -> Tensor:
        tokens, scored = _tokens(self.model, X)
        n_tokens = tokens.shape[1]
        positions = torch.tensor(range(n_tokens) if self.positions is None else self.positions, device=X.device)
        if len(positions) and not (int(positions.min()) >= 0 and int(positions.max()) < n_tokens):
            raise SchemaError(f"positions count tokens from 0 to {n_tokens - 1}; got "
                              f"{int(positions.min())} to {int(positions.max())}")
        total = X.new_zeros(len(X))
        n_passes = -(-len(positions) // self.at_once)
        for i in range(n_passes):
            hidden = positions[i::n_passes]  # far from each other
            mask = torch.zeros_like(scored)
            mask[:, hidden] = True
            log_p = _log_probability(self.model(X, mask=mask)["logits"], tokens)
            total = total + (log_p * scored)[:, hidden].sum(dim=1)
        return total[:, None]


class _CausalLikelihood(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, X: Tensor) -> Tensor:
        tokens, scored = _tokens(self.model, X)
        log_p = _log_probability(self.model(X)["logits"][:, :, :-1], tokens[:, 1:])
        return (log_p * scored[:, 1:]).sum(dim=1, keepdim=True)


def _tokens(model: nn.Module, X: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens, and whether each is one that can be scored (not N, not unknown)."""
    tokens: Tensor = model.tokens(X)  # type: ignore[operator]
    return tokens, ~torch.isin(tokens, torch.tensor(model.unscored_tokens, device=X.device))


def _log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.log_softmax(dim=1).gather(1, tokens[:, None]).squeeze(1)


def _need_language_model(model: nn.Module | Oracle, causal: bool) -> None:
    inner = model.model if isinstance(model, Oracle) else model
    kind = getattr(inner, "causal", None)
    if kind is None or not callable(getattr(inner, "tokens", None)):
        raise SchemaError(f"{type(inner).__name__} is no language model; likelihoods come from caduceus_lm, hyenadna "
                          "or a Nucleotide Transformer")
    if kind != causal:
        raise SchemaError(f"{type(inner).__name__} is a {'causal' if kind else 'masked'} language model; use "
                          f"{'causal' if kind else 'masked'}_log_likelihood")


def masked_log_likelihood(model: nn.Module | Oracle, X: Shaped[Tensor, "N ..."], positions: Sequence[int] | None = None,
                          *, at_once: int = 1, batch_size: int = 32, device: str | None = None) -> Float[ndarray, " N"]:
    """Pseudo-log-likelihood of sequences under a masked language model, in nats.

    Each token is hidden in turn and its log-probability given the others is summed. N is not scored, nor is a 6-mer
    that holds one.

    Parameters
    ----------
    model
        ``caduceus_lm`` or a Nucleotide Transformer.
    X
        Codes ``(N, L)`` or one-hot ``(N, 4, L)``.
    positions
        Tokens to score, e.g. those around a variant; None is all. A pass of the model is needed for each.
    at_once
        Tokens hidden in one pass, evenly spread: that many times as fast, and an approximation.
    batch_size, device
        As in `Oracle`.

    Raises
    ------
    SchemaError
        When the model is no masked language model, or a position is outside.

    References
    ----------
    Salazar et al., ACL 2020, doi:10.18653/v1/2020.acl-main.240.
    """
    _need_language_model(model, causal=False)
    if at_once < 1:
        raise SchemaError(f"at_once is at least 1 token; got {at_once}")
    return _scores(model, lambda inner: _MaskedLikelihood(inner, positions, at_once), X, batch_size, device)[:, 0]


def causal_log_likelihood(model: nn.Module | Oracle, X: Shaped[Tensor, "N ..."], *, batch_size: int = 32,
                          device: str | None = None) -> Float[ndarray, " N"]:
    """Log-likelihood of sequences under a causal language model, given their first base, in nats; N is not scored.

    Parameters
    ----------
    model
        ``hyenadna``.
    X
        Codes ``(N, L)`` or one-hot ``(N, 4, L)``.
    batch_size, device
        As in `Oracle`.

    Raises
    ------
    SchemaError
        When the model is no causal language model.
    """
    _need_language_model(model, causal=True)
    return _scores(model, _CausalLikelihood, X, batch_size, device)[:, 0]
