"""What a model is trained for: the loss, what validation compares, and how a test set is scored.

A task turns a model's raw output (a tensor, or a dictionary of named heads) and the targets of a batch into loss
terms, and the output into predictions in the units of the targets. It knows no model and holds nothing but its
settings, so ``print(task)`` says all there is to say. Targets are ``(B, T)`` or ``(B, T, bins)``; NaN is not
measured, and left out of losses, figures and scores.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from ciscribe.errors import ConfigError, SchemaError, nearest
from ciscribe.train import losses
from ciscribe.train.labels import auprc, auroc, evaluate_labels
from ciscribe.train.losses import LossSpec, expression_loss
from ciscribe.train.metrics import evaluate
from ciscribe.train.profiles import evaluate_profiles, evaluate_tracks

Output = Tensor | Mapping[str, Tensor]


@runtime_checkable
class Task(Protocol):
    """What `train.fit` and the benchmarks ask of a task."""

    def terms(self, output: Any, targets: Tensor) -> dict[str, Tensor]:
        """Terms of the loss, each a scalar already weighted; their sum is minimized."""
        ...

    def predictions(self, output: Any) -> Tensor:
        """Predictions of a raw output, shaped and scaled as the targets."""
        ...

    def figures(self, predicted: Tensor, observed: Tensor) -> dict[str, float]:
        """Figures of an epoch's validation; the first is the error that is minimized, and chooses the epoch."""
        ...

    def score(self, observed: ndarray, predicted: ndarray, names: Sequence[str], *, seed: int = 0,
              n_bootstrap: int = 1000) -> dict[str, Any]:
        """Figures of a test set with 95 % intervals, JSON-ready; `predicted` as `predictions` gives them."""
        ...


@dataclass(frozen=True)
class Expression(LossSpec):
    """Expression of genes by a model of the family of Seq2Exp: a `LossSpec`, whose fields are its fields.

    Minimized: the error and the penalties that the output names (`train.losses.expression_loss`). Validation: mean
    squared error. Scored: errors and correlations of every target and across targets (`train.metrics.evaluate`).
    """

    def terms(self, output: Output, targets: Float[Tensor, "B T"]) -> dict[str, Tensor]:
        """See `expression_loss`."""
        _same(_head(output, "expression"), targets)
        return expression_loss({"expression": output} if isinstance(output, Tensor) else dict(output), targets, self)

    def predictions(self, output: Output) -> Float[Tensor, "B T"]:
        """The output itself."""
        return _head(output, "expression")

    def figures(self, predicted: Float[Tensor, "B T"], observed: Float[Tensor, "B T"]) -> dict[str, float]:
        """``mse``, and ``pearson``, the mean over targets."""
        return {"mse": float(losses.mse(predicted, observed)), "pearson": _pearson(predicted, observed)}

    def score(self, observed: Float[ndarray, "N T"], predicted: Float[ndarray, "N T"], names: Sequence[str], *,
              seed: int = 0, n_bootstrap: int = 1000) -> dict[str, Any]:
        """See `evaluate`."""
        return dict(evaluate(observed, predicted, names, seed=seed, n_bootstrap=n_bootstrap))


@dataclass(frozen=True)
class Regression:
    """Numbers, one or more a sequence: activities of a reporter assay, expression of genes.

    Minimized: `loss`. Validation: mean squared error; for ``poisson`` and ``l1_kl`` the loss itself. Scored:
    `train.metrics.evaluate`.

    Parameters
    ----------
    loss
        ``mse``; ``smooth_l1``; ``poisson`` for counts, whose rate is the softplus of the model's number; ``l1_kl``,
        of Malinois. Formulas in `train.losses`.
    target_weights
        Weight of each target in the loss; only their proportions matter.
    head
        Key of the output when the model returns a dictionary.
    """

    loss: Literal["mse", "smooth_l1", "poisson", "l1_kl"] = "mse"
    target_weights: tuple[float, ...] | None = None
    head: str = "expression"

    def __post_init__(self) -> None:
        _choose("loss", self.loss, ("mse", "smooth_l1", "poisson", "l1_kl"))

    def terms(self, output: Output, targets: Float[Tensor, "B T"]) -> dict[str, Tensor]:
        """``error``."""
        return {"error": self._loss(self.predictions(output), targets)}

    def predictions(self, output: Output) -> Float[Tensor, "B T"]:
        """The numbers; rates for ``poisson``."""
        values = _head(output, self.head)
        return F.softplus(values) if self.loss == "poisson" else values

    def figures(self, predicted: Float[Tensor, "B T"], observed: Float[Tensor, "B T"]) -> dict[str, float]:
        """``mse`` or ``loss``, and ``pearson``, the mean over targets."""
        error = ({"loss": self._loss(predicted, observed)} if self.loss in ("poisson", "l1_kl")
                 else {"mse": losses.mse(predicted, observed)})
        return {name: float(value) for name, value in error.items()} | {"pearson": _pearson(predicted, observed)}

    def score(self, observed: Float[ndarray, "N T"], predicted: Float[ndarray, "N T"], names: Sequence[str], *,
              seed: int = 0, n_bootstrap: int = 1000) -> dict[str, Any]:
        """See `evaluate`."""
        return dict(evaluate(observed, predicted, names, seed=seed, n_bootstrap=n_bootstrap))

    def _loss(self, predicted: Tensor, y: Tensor) -> Tensor:
        _same(predicted, y)
        formula = {"mse": losses.mse, "smooth_l1": losses.smooth_l1, "poisson": losses.poisson, "l1_kl": losses.l1_kl}
        return formula[self.loss](predicted, y, _weights(self.target_weights, y))


@dataclass(frozen=True)
class Classification:
    """Yes or no, for one target or many at once (multi-label).

    Minimized: binary cross-entropy of the logits that the model returns. Validation: the same, unweighted by class
    and target. Scored: AUROC and AUPRC (`train.labels.evaluate_labels`). Predictions are probabilities, which
    `positive_weights` pull towards ½ for rare targets.

    Parameters
    ----------
    target_weights
        Weight of each target in the loss; only their proportions matter.
    positive_weights
        How many negatives a positive of each target counts for; `balanced` takes them from the training targets.
    head
        Key of the output when the model returns a dictionary.
    """

    target_weights: tuple[float, ...] | None = None
    positive_weights: tuple[float, ...] | None = None
    head: str = "expression"

    @classmethod
    def balanced(cls, targets: Float[ndarray, "N T"], *, limit: float = 100.0, head: str = "expression"
                 ) -> "Classification":
        """Positives and negatives of each training target weigh the same; no positive more than `limit` negatives."""
        targets = np.asarray(targets, float)
        positive, negative = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
        weights = np.where((positive > 0) & (negative > 0), negative / np.maximum(positive, 1), 1.0)
        return cls(positive_weights=tuple(float(w) for w in np.minimum(weights, limit)), head=head)

    def terms(self, output: Output, targets: Float[Tensor, "B T"]) -> dict[str, Tensor]:
        """``error``."""
        logits = _head(output, self.head)
        _same(logits, targets)
        return {"error": losses.bce_from_logits(logits, targets, _weights(self.target_weights, targets),
                                                _weights(self.positive_weights, targets))}

    def predictions(self, output: Output) -> Float[Tensor, "B T"]:
        """Probabilities."""
        return _head(output, self.head).sigmoid()

    def figures(self, predicted: Float[Tensor, "B T"], observed: Float[Tensor, "B T"]) -> dict[str, float]:
        """``bce``; ``auroc`` and ``auprc``, means over the targets that have both labels."""
        error = float(losses.bce_from_logits(predicted.double().logit(eps=1e-12), observed.double()))
        p, y = predicted.cpu().numpy(), observed.cpu().numpy()
        known = ~np.isnan(y)
        curves = np.array([[auroc(y[m, t], p[m, t]), auprc(y[m, t], p[m, t])] for t, m in enumerate(known.T)])
        both = np.isfinite(curves[:, 0])
        roc, precision = curves[both].mean(axis=0) if both.any() else (np.nan, np.nan)
        return {"bce": error, "auroc": float(roc), "auprc": float(precision)}

    def score(self, observed: Float[ndarray, "N T"], predicted: Float[ndarray, "N T"], names: Sequence[str], *,
              seed: int = 0, n_bootstrap: int = 1000) -> dict[str, Any]:
        """See `evaluate_labels`."""
        return dict(evaluate_labels(observed, predicted, names, seed=seed, n_bootstrap=n_bootstrap))


@dataclass(frozen=True)
class SoftBins:
    """A number that was measured by sorting into bins, predicted as a distribution over them (LegNet).

    Minimized: KL of `train.losses.soft_classes` from the softmax of the model's `n_bins` logits. Validation: mean
    squared error of the expected bin. Scored: the expected bin (`train.metrics.evaluate`).

    Parameters
    ----------
    n_bins
        Logits of the model; targets ``(B, 1)`` run from 0 to n_bins − 1 and need not be whole.
    sd
        Of the normal around each target, in bins; 0.5 in the published runs.
    head
        Key of the output when the model returns a dictionary.
    """

    n_bins: int = 18
    sd: float = 0.5
    head: str = "expression"

    def terms(self, output: Output, targets: Float[Tensor, "B 1"]) -> dict[str, Tensor]:
        """``error``."""
        _same(self.predictions(output), targets)
        return {"error": losses.soft_class_kl(_head(output, self.head), targets[:, 0], sd=self.sd)}

    def predictions(self, output: Output) -> Float[Tensor, "B 1"]:
        """Expected bin, Σ p · bin."""
        logits = _head(output, self.head)
        if logits.ndim != 2 or logits.shape[1] != self.n_bins:
            raise SchemaError(f"SoftBins needs {self.n_bins} logits a sequence, (B, {self.n_bins}); the model returned "
                              f"{tuple(logits.shape)}; create it with n_targets={self.n_bins}")
        return logits.softmax(1) @ torch.arange(self.n_bins, dtype=logits.dtype, device=logits.device)[:, None]

    def figures(self, predicted: Float[Tensor, "B 1"], observed: Float[Tensor, "B 1"]) -> dict[str, float]:
        """``mse`` and ``pearson`` of the expected bin."""
        return {"mse": float(losses.mse(predicted, observed)), "pearson": _pearson(predicted, observed)}

    def score(self, observed: Float[ndarray, "N 1"], predicted: Float[ndarray, "N 1"], names: Sequence[str], *,
              seed: int = 0, n_bootstrap: int = 1000) -> dict[str, Any]:
        """See `evaluate`."""
        return dict(evaluate(observed, predicted, names, seed=seed, n_bootstrap=n_bootstrap))


@dataclass(frozen=True)
class ProfileCounts:
    """Counts at every base, as a shape and a total (BPNet, ChromBPNet).

    Minimized: multinomial likelihood of each profile given its total + `count_weight` · squared error of
    ln(1 + total). Validation: the same sum. Scored: `train.profiles.evaluate_profiles`. Predictions are expected
    counts ``(B, tracks, L)``: softmax of the profile's logits times the predicted total.

    Parameters
    ----------
    count_weight
        λ; 10 for BPNet. `balanced` takes it from the training counts by ChromBPNet's rule.
    strands
        So many consecutive tracks share one total: the model's count head has tracks / strands numbers.
    together
        Whether tracks that share a total also share one multinomial over all of their positions; otherwise each
        track has its own.
    profile, counts
        Keys of the output.
    """

    count_weight: float = 10.0
    strands: int = 1
    together: bool = False
    profile: str = "profile"
    counts: str = "counts"

    @classmethod
    def balanced(cls, targets: Float[ndarray, "N tracks L"], *, strands: int = 1, together: bool = False
                 ) -> "ProfileCounts":
        """λ = max(1, median total of the training regions / 10), so that shape and total weigh alike."""
        totals = np.asarray(targets, float).sum(axis=-1)
        totals = totals.reshape(len(totals), -1, strands).sum(axis=-1)
        totals = totals[~np.isnan(totals)]
        if not len(totals):
            raise SchemaError("no training region was measured over its whole length, so there is no median count")
        return cls(max(1.0, float(np.median(totals)) / 10), strands=strands, together=together)

    def terms(self, output: Output, targets: Float[Tensor, "B tracks L"]) -> dict[str, Tensor]:
        """``profile`` and ``counts``."""
        logits, log_counts = self._heads(output)
        _same(logits, targets)
        return self._terms(self._shared(logits), log_counts, targets)

    def predictions(self, output: Output) -> Float[Tensor, "B tracks L"]:
        """Expected counts; a total is at least 0.001, so that the shape of an empty region is not lost.

        Tracks that share a total but no multinomial take equal parts of it.
        """
        logits, log_counts = self._heads(output)
        total = log_counts.expm1().clamp_min(1e-3).unsqueeze(-1)
        if self.together:
            return (self._shared(logits).softmax(-1) * total).reshape(logits.shape)
        return logits.softmax(-1) * total.repeat_interleave(self.strands, dim=1) / self.strands

    def figures(self, predicted: Float[Tensor, "B tracks L"], observed: Float[Tensor, "B tracks L"]
                ) -> dict[str, float]:
        """``loss``, its terms ``profile`` and ``counts``, and ``pearson`` of the log totals, mean over totals."""
        log_counts = self._totals(predicted).log1p()
        terms = self._terms(self._shared(predicted).clamp_min(1e-30).log(), log_counts, observed)
        return {"loss": float(sum(terms.values())), **{name: float(term) for name, term in terms.items()},
                "pearson": _pearson(log_counts, self._totals(observed).log1p())}

    def score(self, observed: Float[ndarray, "N tracks L"], predicted: Float[ndarray, "N tracks L"],
              names: Sequence[str], *, seed: int = 0, n_bootstrap: int = 1000) -> dict[str, Any]:
        """See `evaluate_profiles`."""
        return dict(evaluate_profiles(observed, predicted, names, strands=self.strands, seed=seed,
                                      n_bootstrap=n_bootstrap))

    def _heads(self, output: Output) -> tuple[Tensor, Tensor]:
        if isinstance(output, Tensor):
            raise SchemaError(f"ProfileCounts needs a model that returns the outputs {self.profile!r} and "
                              f"{self.counts!r}; it returned one tensor {tuple(output.shape)}")
        logits, counts = _head(output, self.profile), _head(output, self.counts)
        if logits.ndim != 3 or counts.ndim != 2 or counts.shape[1] * self.strands != logits.shape[1]:
            raise SchemaError(f"with strands={self.strands} a profile (B, tracks, L) comes with counts "
                              f"(B, tracks / {self.strands}); the model returned {tuple(logits.shape)} and "
                              f"{tuple(counts.shape)}; set strands to the tracks that share a total")
        return logits, counts

    def _terms(self, logits: Tensor, log_counts: Tensor, observed: Tensor) -> dict[str, Tensor]:
        return {"profile": losses.multinomial_nll(logits, self._shared(observed)),
                "counts": self.count_weight * losses.count_mse(log_counts, self._totals(observed))}

    def _shared(self, values: Tensor) -> Tensor:
        """Positions of one multinomial in one row."""
        return values.reshape(len(values), -1, self.strands * values.shape[-1]) if self.together else values

    def _totals(self, values: Tensor) -> Tensor:
        return values.sum(-1).reshape(len(values), -1, self.strands).sum(-1)


@dataclass(frozen=True)
class BinnedTracks:
    """Signal tracks in bins, after the model's own positive link (Basenji, Enformer, Borzoi).

    Minimized: `loss`. Validation: the same. Scored: `train.profiles.evaluate_tracks`.

    Parameters
    ----------
    loss
        ``poisson`` or ``poisson_multinomial``; formulas in `train.losses`.
    weights
        Weight of each track in the loss; `group_weights` makes every cell type count the same.
    total_weight
        w of ``poisson_multinomial``.
    head
        Key of the output when the model returns a dictionary, e.g. the organism.
    """

    loss: Literal["poisson", "poisson_multinomial"] = "poisson"
    weights: tuple[float, ...] | None = None
    total_weight: float = 0.2
    head: str = "human"

    def __post_init__(self) -> None:
        _choose("loss", self.loss, ("poisson", "poisson_multinomial"))

    def terms(self, output: Output, targets: Float[Tensor, "B T bins"]) -> dict[str, Tensor]:
        """``error``."""
        return {"error": self._loss(self.predictions(output), targets)}

    def predictions(self, output: Output) -> Float[Tensor, "B T bins"]:
        """The tracks."""
        return _head(output, self.head)

    def figures(self, predicted: Float[Tensor, "B T bins"], observed: Float[Tensor, "B T bins"]) -> dict[str, float]:
        """``loss``, and ``pearson`` over regions and bins, the mean over tracks."""
        return {"loss": float(self._loss(predicted, observed)),
                "pearson": _pearson(predicted.transpose(1, 2).flatten(0, 1), observed.transpose(1, 2).flatten(0, 1))}

    def score(self, observed: Float[ndarray, "N T bins"], predicted: Float[ndarray, "N T bins"],
              names: Sequence[str], *, seed: int = 0, n_bootstrap: int = 1000) -> dict[str, Any]:
        """See `evaluate_tracks`."""
        return dict(evaluate_tracks(observed, predicted, names, seed=seed, n_bootstrap=n_bootstrap))

    def _loss(self, predicted: Tensor, y: Tensor) -> Tensor:
        _same(predicted, y)
        weights = _weights(self.weights, y)
        if self.loss == "poisson":
            return losses.poisson(predicted, y, weights)
        return losses.poisson_multinomial(predicted, y, weights, total_weight=self.total_weight)


@dataclass(frozen=True)
class MultiTask:
    """Several tasks at once, on consecutive targets.

    The targets of all tasks are stacked along their axis, ``sizes[name]`` of them for each, and NaN where an
    example has none. A model that returns a dictionary hands all of it to every task, which takes its `head`; a
    tensor is cut like the targets. Minimized and compared on validation: the sum of the tasks' own. Scored: each.

    Parameters
    ----------
    tasks
        By name, in the order of their targets.
    sizes
        Targets of each.

    Examples
    --------
    >>> both = MultiTask({"activity": Regression(), "active": Classification()}, {"activity": 3, "active": 2})
    >>> sorted(both.terms(torch.zeros(7, 5), torch.ones(7, 5)))
    ['active_error', 'activity_error']
    """

    tasks: Mapping[str, Task]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        if list(self.tasks) != list(self.sizes):
            raise ConfigError(f"tasks and sizes name the same tasks in the same order; got {', '.join(self.tasks)} "
                              f"and {', '.join(self.sizes)}")

    def terms(self, output: Output, targets: Tensor) -> dict[str, Tensor]:
        """Terms of every task, each after its task's name."""
        outputs, parts = self._outputs(output), self._cut(targets)
        return {f"{name}_{term}": value for name, task in self.tasks.items()
                for term, value in task.terms(outputs[name], parts[name]).items()}

    def predictions(self, output: Output) -> Tensor:
        """Predictions of all tasks, stacked as the targets."""
        outputs = self._outputs(output)
        return torch.cat([task.predictions(outputs[name]) for name, task in self.tasks.items()], dim=1)

    def figures(self, predicted: Tensor, observed: Tensor) -> dict[str, float]:
        """``error``, the sum of the tasks' errors, and every task's figures after its name."""
        p, y = self._cut(predicted), self._cut(observed)
        each = {name: task.figures(p[name], y[name]) for name, task in self.tasks.items()}
        return {"error": sum(next(iter(figures.values())) for figures in each.values()),
                **{f"{name}_{key}": value for name, figures in each.items() for key, value in figures.items()}}

    def score(self, observed: ndarray, predicted: ndarray, names: Sequence[str], *, seed: int = 0,
              n_bootstrap: int = 1000) -> dict[str, Any]:
        """Every task's score, by its name."""
        y, p = self._cut(observed), self._cut(predicted)
        labels = self._cut(np.asarray(names)[None])
        return {name: task.score(y[name], p[name], labels[name][0].tolist(), seed=seed, n_bootstrap=n_bootstrap)
                for name, task in self.tasks.items()}

    def _outputs(self, output: Output) -> Mapping[str, Any]:
        return self._cut(output) if isinstance(output, Tensor) else dict.fromkeys(self.tasks, output)

    def _cut(self, values: Any) -> dict[str, Any]:
        """Consecutive columns of a tensor or array, by task."""
        total = sum(self.sizes.values())
        if values.shape[1] != total:
            raise SchemaError(f"the tasks have {total} targets together ({dict(self.sizes)}); "
                              f"got {values.shape[1]} columns")
        ends = np.cumsum(list(self.sizes.values())).tolist()
        return {name: values[:, end - size:end] for (name, size), end in zip(self.sizes.items(), ends, strict=True)}


def group_weights(groups: Sequence[Hashable]) -> tuple[float, ...]:
    """Weights of targets that make every group count the same, e.g. every cell type, however many tracks it has.

    Examples
    --------
    >>> group_weights(["leaf", "leaf", "root"])
    (0.5, 0.5, 1.0)
    """
    size = Counter(groups)
    return tuple(1 / size[group] for group in groups)


def _head(output: Output, name: str) -> Tensor:
    """One head as float32; a tensor is its own only head."""
    if isinstance(output, Tensor):
        return output.float()
    if name not in output:
        raise SchemaError(f"the task wants the output {name!r}; {nearest(name, output)}; name one with head=...")
    return output[name].float()


def _same(predicted: Tensor, targets: Tensor) -> None:
    if predicted.shape != targets.shape:
        raise SchemaError(f"predictions {tuple(predicted.shape)} and targets {tuple(targets.shape)} of a batch must "
                          "have one shape; create the model with the n_targets (and bins) of the data")


def _weights(weights: tuple[float, ...] | None, y: Tensor) -> Tensor | None:
    if weights is None:
        return None
    if len(weights) != y.shape[1]:
        raise ConfigError(f"the task has {len(weights)} weights for {y.shape[1]} targets; give one for each")
    return y.new_tensor(weights)


def _choose(what: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ConfigError(f"{what} {value!r} is unknown; {nearest(value, options)}")


def _pearson(predicted: Tensor, observed: Tensor) -> float:
    """Mean over the measured targets (columns) of the correlation over their measured rows; a constant gives 0."""
    known = ~observed.isnan()
    n = known.sum(0)
    a, b = (torch.where(known, v, 0) for v in (predicted, observed))
    a, b = (torch.where(known, v - v.sum(0) / n.clamp_min(1), 0) for v in (a, b))
    r = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-12)
    return float(r[n > 0].mean())
