"""What every generator is: fitted on natural sequences, it draws new ones that are allowed, of a wanted activity.

Wanted activity is a label: the quantile of the training activities that it falls into. Known bases and hard
constraints hold by construction: a drawn sequence is projected onto what is allowed, or drawn inside of it.
"""

import copy
import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped, UInt8
from numpy import ndarray
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.design.constraints import Constraints
from ciscribe.errors import CheckpointError, ConfigError, SchemaError, nearest
from ciscribe.sequence import N, check_codes
from ciscribe.train.generative import Examples, GenerativeSpec, fit_generator

FREE = N
"""In `fixed`: a base that is to be made."""
_LABEL_DROPOUT = 0.1
_Own = TypeVar("_Own", bound="Generator")


@dataclass(frozen=True, eq=False)
class Allowed:
    """What the sequences of one batch may be.

    Parameters
    ----------
    fixed
        Given bases, uint8 ``(n, L)``; `FREE` where one is to be made.
    constraints
        What all obey, or None.
    origin
        Which start of the constraints each belongs to, int64 ``(n,)``, or None.
    """

    fixed: UInt8[ndarray, "n L"]
    constraints: Constraints | None = None
    origin: Int[ndarray, " n"] | None = None

    def __getitem__(self, some: slice) -> "Allowed":
        return Allowed(self.fixed[some], self.constraints, None if self.origin is None else self.origin[some])

    def best(self, scores: Float[Tensor, "n 4 L"] | Float[ndarray, "n 4 L"]) -> UInt8[ndarray, "n L"]:
        """The allowed sequences with the highest sums of scores.

        With log-probabilities plus Gumbel noise, what comes out without constraints is a sample (the Gumbel-max
        trick), and with them the allowed sequence that the same noise ranks highest.

        Raises
        ------
        ConfigError
            When given bases and constraints leave no sequence.
        """
        scores = scores.double().cpu().numpy() if isinstance(scores, Tensor) else scores
        scores = np.where((self.fixed != FREE)[:, None] & (self.fixed[:, None] != np.arange(4)[:, None]), -np.inf,
                          scores)
        if self.constraints is None:
            return scores.argmax(axis=1).astype(np.uint8)
        codes, total = self.constraints.project(scores, self.origin)
        if (impossible := np.isneginf(total)).any():
            raise ConfigError("no sequence obeys the constraints and keeps the fixed bases, in "
                              f"{int(impossible.sum()):,} of {len(total):,} (first: row {int(impossible.argmax())}); "
                              "fix fewer bases or drop a rule")
        return codes


class Generator(nn.Module, ABC):
    """Draws new sequences like those it was fitted on.

    Parameters
    ----------
    length
        Of all sequences, bp.
    n_labels
        Quantiles of activity that are told apart (regLM: 5).
    n_targets
        Activities of a sequence, e.g. cell types.
    config
        All arguments of the constructor, kept for `state`.

    Notes
    -----
    In a tenth of the training examples the labels are hidden, so that one generator also draws without any.
    """

    card: ClassVar[Card]
    spec: ClassVar[GenerativeSpec] = GenerativeSpec()
    """How it is trained unless `fit` is told otherwise."""

    edges: Tensor
    levels: Tensor
    n_fits: Tensor

    def __init__(self, length: int, n_labels: int, n_targets: int, config: dict[str, Any]):
        super().__init__()
        if length < 2 or n_labels < 2 or n_targets < 1:
            raise ConfigError("a generator needs length >= 2, n_labels >= 2 and n_targets >= 1; got "
                              f"{length}, {n_labels} and {n_targets}")
        self.length, self.n_labels, self.n_targets = length, n_labels, n_targets
        self.config = {"length": length, "n_labels": n_labels, "n_targets": n_targets} | config
        self.log = pd.DataFrame()
        self.register_buffer("n_fits", torch.tensor(0))
        # between the labels, and the median activity within each; NaN: fitted without activities, infinite: no such
        self.register_buffer("edges", torch.full((n_targets, n_labels - 1), torch.nan, dtype=torch.float64))
        self.register_buffer("levels", torch.full((n_targets, n_labels), torch.nan, dtype=torch.float64))

    # ---- what a generator defines

    @abstractmethod
    def loss(self, batch: Examples) -> Float[Tensor, ""]:
        """What training minimizes (an adversary: compares), in nats a base where it is a likelihood."""

    @abstractmethod
    def draw(self, labels: Int64[Tensor, "n T"], allowed: Allowed, rng: np.random.Generator
             ) -> UInt8[ndarray, "n L"]:
        """Draw one batch; options of a generator are further keywords with defaults."""

    def loglik(self, codes: UInt8[ndarray, "N L"], y: Shaped[ndarray, "..."] | float | None = None, *,
               batch_size: int = 256, seed: int = 0) -> Float[ndarray, " N"] | None:
        """How natural sequences are: log-likelihood in nats a sequence, or None where it cannot be computed.

        Parameters
        ----------
        codes
            Of the generator's length.
        y
            Given these activities, as in `sample`; None: whatever they are.
        batch_size, seed
            Sequences at a time; of the noise of a bound.
        """
        return None

    # ---- what all share

    def fit(self: _Own, codes: UInt8[ndarray, "N L"], y: Shaped[ndarray, "N ..."] | None = None, *,
            valid: float | Bool[ndarray, " N"] = 0.1, seed: int = 0, progress: bool = False, **plan: Any
            ) -> _Own:
        """Learn from natural sequences; gives a fitted copy, and this generator stays as it was.

        A fitted generator can be fitted further, e.g. first on many sequences without activities and then on few.

        Parameters
        ----------
        codes
            Aligned, without N.
        y
            Activities ``(N,)`` or ``(N, n_targets)``; NaN is unknown. Quantiles of the first fit with activities stay.
        valid
            By which epochs are compared: a share drawn by chance, or which sequences; take a whole fold where there
            are families of similar sequences. 0 compares none and keeps the last epoch.
        seed
            Of all that is random: the weights (of a generator that was not fitted before), order and noise.
        progress
            Show a bar.
        **plan
            Fields of `ciscribe.train.generative.GenerativeSpec`: ``epochs, batch_size, learning_rate, patience …``

        Raises
        ------
        SchemaError
            For sequences with an N, of another length, or activities that do not fit them.
        ConfigError
            For an unknown field of the plan.
        """
        self._check(codes)
        known = [field.name for field in fields(GenerativeSpec)]
        for name in plan:
            if name not in known:
                raise ConfigError(f"fit() has no option {name!r}; {nearest(name, known)}")
        fitted = copy.deepcopy(self) if self.n_fits else self._anew(seed)
        labels = np.full((len(codes), self.n_targets), self.n_labels, dtype=np.int64)
        if y is not None:
            activities = self._activities(y, len(codes))
            if not self.is_conditional:
                fitted._learn_labels(activities)
            labels = fitted._labels(activities)
        held_out = self._held_out(valid, len(codes), seed)

        def examples(which: ndarray) -> Examples:
            return Examples(torch.from_numpy(np.ascontiguousarray(codes[which])), torch.from_numpy(labels[which]))

        trained, log = fit_generator(fitted, examples(~held_out), examples(held_out) if held_out.any() else None,
                                     replace(self.spec, **plan), seed=seed, progress=progress)
        fitted = cast(_Own, trained)
        fitted.log = log
        fitted.n_fits += 1
        return fitted

    def sample(self, n: int, *, y: Shaped[ndarray, "..."] | float | None = None,
               fixed: UInt8[ndarray, "... L"] | None = None, constraints: Constraints | None = None,
               origin: Int[ndarray, " n"] | None = None, seed: int = 0, batch_size: int = 256, **options: Any
               ) -> UInt8[ndarray, "n L"]:
        """Draw sequences.

        Parameters
        ----------
        n
            How many.
        y
            Wanted activity in the units of training: one number, one for each target, one for each sequence
            ``(n,)``, or both ``(n, n_targets)``; NaN does not care. It stands for the quantile that it falls into;
            ``levels`` are their medians. None draws from all.
        fixed
            Bases that are given: codes ``(L,)`` or ``(n, L)``, with `FREE` (4) where a base is to be made.
        constraints
            What all drawn sequences obey.
        origin
            Which of the starts that the constraints are bound to each sequence belongs to; None: the first.
        seed
            Same seed, same sequences; in another `batch_size` others.
        batch_size
            Sequences drawn at once.
        **options
            Of the generator's own `draw`: temperature, steps, guidance …

        Raises
        ------
        ConfigError
            For an option that `draw` does not have, activities wanted of a generator that was fitted without any,
            or given bases that the constraints forbid.
        """
        known = list(inspect.signature(self.draw).parameters)[3:]
        for name in options:
            if name not in known:
                raise ConfigError(f"{self.card.name} has no sampling option {name!r}; {nearest(name, known)}")
        labels = self.wanted(y, n)
        template = np.full((n, self.length), FREE, np.uint8)
        if fixed is not None:
            check_codes(fixed)
            if fixed.shape not in ((self.length,), (n, self.length)):
                raise SchemaError(f"fixed is codes of shape ({self.length},) or ({n}, {self.length}), {FREE} where a "
                                  f"base is to be made; got {fixed.shape}")
            template[:] = fixed
        allowed, rng = Allowed(template, constraints, origin), np.random.default_rng(seed)
        drawn = [np.empty((0, self.length), np.uint8)]
        with torch.no_grad():
            drawn += [self.draw(labels[some].to(self.device), allowed[some], rng, **options)
                      for some in rows(n, batch_size)]
        return np.concatenate(drawn)

    def check_writes(self, length: int) -> None:
        """Raise ConfigError unless it draws sequences of that length."""
        if self.length != length:
            raise ConfigError(f"the generator writes sequences of {self.length:,} bp, the design wants {length:,} bp; "
                              "fit one for this length")

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def is_conditional(self) -> bool:
        """Whether it was fitted with activities."""
        return not bool(self.edges.isnan().any())

    def state(self) -> dict[str, Any]:
        """All there is to keep: ``generator`` (a name), ``config`` (JSON-ready) and ``weights`` (named tensors)."""
        return {"generator": self.card.name, "config": dict(self.config),
                "weights": {name: value.detach().cpu().clone() for name, value in self.state_dict().items()}}

    @classmethod
    def from_state(cls: type[_Own], state: dict[str, Any]) -> _Own:
        """The generator that `state` came from.

        Raises
        ------
        CheckpointError
            For the state of another generator, or weights that do not fit the configuration.
        """
        if state.get("generator") != cls.card.name:
            raise CheckpointError(f"expected the state of {cls.card.name}, got that of {state.get('generator')}")
        generator = cls._made(state["config"])
        try:
            generator.load_state_dict(state["weights"])
        except RuntimeError as error:
            raise CheckpointError(f"the weights do not fit this {cls.card.name}: {error}") from error
        return generator.eval()

    def hide(self, labels: Int64[Tensor, "B T"]) -> Int64[Tensor, "B T"]:
        """Labels of training examples, a tenth of them made unknown."""
        if not self.training:
            return labels
        return torch.where(torch.rand(len(labels), 1, device=labels.device) < _LABEL_DROPOUT, self.n_labels, labels)

    def wanted(self, y: Any, n: int) -> Int64[Tensor, "n T"]:
        """Labels of wanted activities, as they are given to `sample`.

        Returns
        -------
        Tensor
            ``(n, n_targets)``; `n_labels` is unknown.

        Raises
        ------
        ConfigError
            When the generator was fitted without activities.
        """
        if y is None:
            return torch.full((n, self.n_targets), self.n_labels, dtype=torch.int64)
        if not self.is_conditional:
            raise ConfigError(f"y={np.round(np.asarray(y).ravel()[:3], 3).tolist()}: this {self.card.name} was fitted "
                              "without activities and cannot draw for one; give y to fit()")
        values = np.asarray(y, dtype=np.float64)
        if values.ndim == 0 or values.shape == (self.n_targets,) != (n,):
            values = np.broadcast_to(values, (n, self.n_targets))
        return torch.from_numpy(self._labels(self._activities(values, n)))

    # ---- inside

    @classmethod
    def _made(cls: type[_Own], config: Any) -> _Own:
        return cls(**config)

    def _anew(self: _Own, seed: int) -> _Own:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._made(self.config).to(self.device)

    def _check(self, codes: ndarray) -> None:
        check_codes(codes)
        if codes.ndim != 2 or codes.shape[1] != self.length:
            raise SchemaError(f"this {self.card.name} is made for sequences of {self.length} bp, codes (N, "
                              f"{self.length}); got shape {codes.shape}")
        unknown = (codes == N).any(axis=1)
        if unknown.any():
            raise SchemaError(f"{int(unknown.sum()):,} of {len(codes):,} sequences hold an N (first: row "
                              f"{int(unknown.argmax())}); a generator learns from known bases only: leave them out")

    def _activities(self, y: Any, n: int) -> Float[ndarray, "n T"]:
        """Activities as a matrix of `n` rows."""
        values, wanted = np.asarray(y, dtype=np.float64), (n, self.n_targets)
        if values.ndim == 1 and len(values) == n and self.n_targets == 1:
            values = values[:, None]
        if values.shape != wanted:
            raise SchemaError(f"activities have shape {wanted}; got {np.shape(y)}")
        return values

    def _learn_labels(self, y: Float[ndarray, "n T"]) -> None:
        """Set the edges between labels: quantiles, or the middles between values where these are few."""
        for target, values in enumerate(y.T):
            values = values[np.isfinite(values)]
            if not len(values):
                raise SchemaError(f"activities of target {target} hold no finite number")
            distinct = np.unique(values)
            if len(distinct) <= self.n_labels:
                edges = (distinct[1:] + distinct[:-1]) / 2
            else:
                edges = np.unique(np.quantile(values, np.linspace(0, 1, self.n_labels + 1)[1:-1]))
            labels = np.searchsorted(edges, values, side="right")
            for label in np.unique(labels):
                self.levels[target, label] = float(np.median(values[labels == label]))
            self.edges[target] = torch.inf  # ties leave fewer labels
            self.edges[target, :len(edges)] = torch.from_numpy(edges)

    def _labels(self, y: Float[ndarray, "n T"]) -> Int64[ndarray, "n T"]:
        edges = self.edges.cpu().numpy()
        labels = np.stack([np.searchsorted(edges[t], y[:, t], side="right") for t in range(self.n_targets)], axis=1)
        return np.where(np.isnan(y), self.n_labels, labels).astype(np.int64)

    def _held_out(self, valid: float | ndarray, n: int, seed: int) -> Bool[ndarray, " N"]:
        if isinstance(valid, np.ndarray):
            if valid.shape != (n,) or valid.dtype != bool or valid.all():
                raise SchemaError(f"valid marks some of the {n} sequences, not all; got {valid.dtype} of shape "
                                  f"{valid.shape} with {int(valid.sum())} marked")
            return valid
        if not 0 <= valid < 1:
            raise ConfigError(f"valid is a share in [0, 1) or a mask; got {valid}")
        held_out = np.zeros(n, bool)
        held_out[np.random.default_rng(seed).permutation(n)[:int(valid * n)]] = True
        return held_out


# ---- drawing


def gumbel(rng: np.random.Generator, like: Tensor) -> Tensor:
    """Standard Gumbel noise, the same on every device."""
    return torch.from_numpy(rng.gumbel(size=tuple(like.shape))).to(like)


def guided(network: Any, labels: Int64[Tensor, "n T"], unknown: int, guidance: float) -> Float[Tensor, "n 4 L"]:
    """Log-probabilities of a network of labels, pushed away from what it says without them.

    ``(1 + w) log p(base | label) − w log p(base)``, normalized; w = 0 is the network itself.

    References
    ----------
    Ho & Salimans 2022, arXiv:2207.12598 (classifier-free guidance).
    """
    with_labels = network(labels).log_softmax(1)
    if not guidance:
        return with_labels
    without = network(torch.full_like(labels, unknown)).log_softmax(1)
    return ((1 + guidance) * with_labels - guidance * without).log_softmax(1)


def rows(n: int, size: int) -> list[slice]:
    """Slices of at most `size` of `n` rows."""
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]
