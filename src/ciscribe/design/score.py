"""What every objective is made of: the contract, how oracles are asked, how components and scores come together.

The objectives themselves stand in `ciscribe.design.objective` and `ciscribe.design.fitness`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from numbers import Real
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray
from torch import Tensor

from ciscribe.errors import ConfigError, SchemaError, UnsupportedError, nearest
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import Edits, apply_edits, predict_edited
from ciscribe.sequence import codes_of, decode, encode, one_hot_tensor, reverse_complement, reverse_complement_codes

Parts = dict[str, Tensor]
Limits = tuple[float | None, float | None]

POSITIONS = 2**17  # of the sequences of a batch: memory stays flat, whatever the number of sequences
_WRITTEN = 2**22  # of the edited sequences that are written out at once
_EDITED = 256  # edited sequences a forward pass, where a model has to be asked in full
_SHOWN = 40  # bases of an offending sequence in an error


class Query(NamedTuple):
    """One way to ask an oracle: what stands around the sequences, and on which strands they are read."""

    oracle: Oracle
    flanks: tuple[str, str] = ("", "")
    both_strands: bool = False

    @property
    def n_calls(self) -> int:
        """Forward passes a sequence."""
        return 2 if self.both_strands else 1

    def flanked(self, X: Float[Tensor, "N 4 L"]) -> Float[Tensor, "N 4 M"]:
        """Put the flanks on."""
        left, right = (one_hot_tensor(torch.from_numpy(encode(flank)[None])).to(X).expand(len(X), -1, -1)
                       for flank in self.flanks)
        return torch.cat([left, X, right], dim=2)

    def __call__(self, X: Float[Tensor, "N 4 L"]) -> Float[Tensor, "N T"]:
        """Predict in batches, on the device of `X`; with gradients where `X` asks for them.

        Raises
        ------
        UnsupportedError
            When a gradient is asked for and the model has none.
        """
        gradients = X.requires_grad and torch.is_grad_enabled()
        out = []
        with self.oracle.evaluating(gradients=gradients) as ask:
            for part in X.split(max(1, POSITIONS // max(1, X.shape[2]))):
                part = self.flanked(part).to(self.oracle.device)
                y = ask(part)
                if self.both_strands:
                    y = (y + ask(reverse_complement(part))) / 2
                if gradients and not y.requires_grad:
                    raise UnsupportedError(f"{type(self.oracle.model).__name__} gives no gradient to its sequence; use "
                                           "a designer that needs none, such as greedy or genetic")
                out.append(y.to(X))
        return torch.cat(out).clone()

    def edited(self, codes: UInt8[ndarray, "P L"], edits: Edits) -> Float[Tensor, "n T"]:
        """Predict edited sequences; only what the edits can reach is computed (`ciscribe.perturb.edits`)."""
        left, right = (encode(flank) for flank in self.flanks)
        codes = np.concatenate([np.tile(left, (len(codes), 1)), codes, np.tile(right, (len(codes), 1))], axis=1)
        edits = edits._replace(start=edits.start + len(left))
        y = predict_edited(self.oracle, codes, edits, batch_size=_EDITED)
        if self.both_strands:
            turned = Edits(edits.row, codes.shape[1] - edits.start - edits.bases.shape[1],
                           reverse_complement_codes(edits.bases))
            other = predict_edited(self.oracle, reverse_complement_codes(codes), turned, batch_size=_EDITED)
            y = (y + other) / 2
        return torch.from_numpy(y)


class Objective(ABC):
    """What is wanted of sequences, as numbers; higher is better.

    A class of your own defines `components`, `combine` and, where they are others, `names`, `differentiable`,
    `n_calls` and `oracles`. Objectives add (``a + 0.1 * b - c``) and nest (`Context`, `Lower`, `Pareto` …).
    """

    name: str = ""
    """Label where the objective is part of another; its class unless given."""
    names: tuple[str, ...] = ("score",)
    """Keys of `components`, in their order."""
    differentiable: bool = False
    """Whether gradients of the score reach a relaxed sequence."""
    n_calls: int = 1
    """Model queries a sequence costs."""
    oracles: tuple[Oracle, ...] = ()
    """All that are asked."""

    @abstractmethod
    def components(self, X: Shaped[Tensor, "N ..."] | Shaped[ndarray, "N ..."]) -> Parts:
        """Each term as it is predicted or counted, ``(N,)``; of codes ``(N, L)`` or one-hot/relaxed ``(N, 4, L)``.

        Raises
        ------
        SchemaError
            When a component is NaN or infinite: which one, and the first sequence.
        """

    @abstractmethod
    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""

    def __call__(self, X: Shaped[Tensor, "N ..."] | Shaped[ndarray, "N ..."]) -> Float[Tensor, " N"]:
        """Score sequences; see `components`."""
        X = as_one_hot(X)
        score = self.combine(check_finite(self.components(X), X))
        return check_finite({"score": score}, X)["score"]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Hold all models ready (evaluation mode, on their device, frozen), and leave them as they were.

        Not needed for the answer: every call does so by itself. It spares a search from doing it every time, and the
        models from being trained by a designer that follows gradients.
        """
        with ExitStack() as stack:
            for oracle in self.oracles:
                stack.enter_context(oracle.evaluating(gradients=True))
            yield

    def clip(self, low: float | None = None, high: float | None = None) -> "Objective":
        """Credit nothing outside of what was ever measured, such as the range of the training labels.

        Where the objective reads predictions of one oracle (`Maximize`, `Target`, `Specific` …), each prediction is
        clipped; of any other objective the score is. Components stay as they came, so that what is out of range is
        seen.

        Notes
        -----
        The gradient passes where following it leads back into the range and is exactly 0 where it leads further out: a
        start below the range climbs, a design that has reached the top is no longer pulled (other terms of a sum still
        pull). A small leak instead would undo the clipping: optimisers such as Adam divide the gradient by its size.
        Searches without gradients see ties on either plateau; leave `low` out unless scores below it mean nothing.
        """
        return Clip(self, low, high)

    def __add__(self, other: object) -> "Objective":
        return Sum([self, other]) if isinstance(other, Objective) else NotImplemented

    def __sub__(self, other: object) -> "Objective":
        return Sum([self, other], [1, -1]) if isinstance(other, Objective) else NotImplemented

    def __mul__(self, weight: object) -> "Objective":
        return Sum([self], [float(weight)]) if isinstance(weight, Real) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return self * -1.0

    def score_edits(self, codes: UInt8[ndarray, "P L"], edits: Edits) -> Float[Tensor, " n"]:
        """Score small changes of a few sequences, in the order of the edits; see `components_of_edits`."""
        return self.combine(self.components_of_edits(codes, edits))

    def components_of_edits(self, codes: UInt8[ndarray, "P L"], edits: Edits) -> Parts:
        """Components of edited sequences: those of the sequences written out, sooner where the models allow it."""
        return self.components(torch.from_numpy(apply_edits(codes, edits)))

    # Within a composition every oracle is asked once for all, and each member reads the answers.
    queries: tuple[Query, ...] = ()

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """Components from the `answers` to `queries`, and from `X`."""
        return self.components(X)


class Asking(Objective):
    """Base of the project's objectives: asks each query once, reads the answers, and looks for NaN."""

    extra_calls: int = 0
    """Model queries a sequence costs beside `queries`."""

    @property
    def n_calls(self) -> int:  # type: ignore[override]
        """Model queries a sequence costs; at least 1."""
        return max(1, sum(query.n_calls for query in self.queries) + self.extra_calls)

    @property
    def oracles(self) -> tuple[Oracle, ...]:  # type: ignore[override]
        """All that are asked."""
        return tuple(dict.fromkeys(query.oracle for query in self.queries))

    def components(self, X: Shaped[Tensor, "N ..."] | Shaped[ndarray, "N ..."]) -> Parts:
        """See `Objective.components`."""
        X = as_one_hot(X)
        return check_finite(self.measure(X, {query: query(X) for query in self.queries}), X)

    def components_of_edits(self, codes: UInt8[ndarray, "P L"], edits: Edits) -> Parts:
        """See `Objective.components_of_edits`."""
        measured = []
        step = max(1, _WRITTEN // codes.shape[1])
        for i in range(0, max(1, len(edits.row)), step):
            some = Edits._make(field[i:i + step] for field in edits)
            X = as_one_hot(apply_edits(codes, some))
            measured.append(check_finite(self.measure(X, {q: q.edited(codes, some) for q in self.queries}), X))
        return {name: torch.cat([parts[name] for parts in measured]) for name in measured[0]}

    @abstractmethod
    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """Components from the `answers` to `queries`, and from `X`."""


def as_one_hot(X: Shaped[Tensor, "N ..."] | Shaped[ndarray, "N ..."]) -> Float[Tensor, "N 4 L"]:
    """Float one-hot (or relaxed, as they are) sequences of codes ``(N, L)`` or ``(N, 4, L)``."""
    X = torch.as_tensor(X)
    if X.ndim == 2 and not X.is_floating_point():
        return one_hot_tensor(torch.from_numpy(codes_of(X)).to(X.device))
    if X.ndim != 3 or X.shape[1] != 4:
        raise SchemaError(f"an objective takes codes (N, L) or one-hot (N, 4, L); got shape {tuple(X.shape)}")
    return X if X.is_floating_point() else X.float()


def hard_codes(X: Float[Tensor, "N 4 L"], who: str) -> UInt8[ndarray, "N L"]:
    """Codes of sequences that hold one base a position, up to rounding.

    Raises
    ------
    SchemaError
        For probabilities of bases: counts of them are not the counts of any sequence.
    """
    X = X.detach()
    whole = X.round()
    if X.numel() and not float((X - whole).abs().max()) < 1e-4:
        raise SchemaError(f"{who} reads bases, not probabilities of bases; score the sequences that are drawn from "
                          "them, or use a designer without gradients")
    return codes_of(whole)


def check_finite(parts: Parts, X: Float[Tensor, "N 4 L"]) -> Parts:
    """Pass components on; raise SchemaError where one is no finite number for each sequence."""
    for name, values in parts.items():
        if tuple(values.shape) != (len(X),):
            raise SchemaError(f"component {name!r} of an objective is one number a sequence, ({len(X)},); got "
                              f"{tuple(values.shape)}")
        bad = ~torch.isfinite(values)
        if bad.any():
            i = int(bad.int().argmax())
            letters = decode(X[i].detach().argmax(dim=0).to(torch.uint8).cpu().numpy())
            letters = letters if len(letters) <= _SHOWN else f"{letters[:_SHOWN]}… ({len(letters):,} bp)"
            raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} values of component {name!r} are NaN or infinite; "
                              f"first: sequence {i}, {letters}: {float(values[i])}; look at what the model makes of it")
    return parts


def check_flanks(flanks: tuple[str, str]) -> None:
    """Raise ConfigError unless flanks are two texts of bases."""
    if len(flanks) != 2 or any(set(flank.upper()) - set("ACGTN") for flank in flanks):
        raise ConfigError(f"flanks are two texts of A C G T N, left and right; got {flanks!r}")


def pick(y: Float[Tensor, "N T"], track: int | None, oracle: Oracle) -> Float[Tensor, " N"]:
    """One track of an oracle's answer; None where it has one only."""
    n = y.shape[1]
    if (track is None and n != 1) or (track is not None and not 0 <= track < n):
        raise ConfigError(f"{oracle} predicts {n} tracks; say which: track=0 to {n - 1}; got {track}")
    return y[:, track or 0]


def standard_deviation(values: Float[Tensor, "K N"], *, sample: bool = False) -> Float[Tensor, " N"]:
    """Over the first axis, with gradient 0 (not NaN) where all are equal; `sample` divides by K − 1."""
    variance = values.var(dim=0, correction=int(sample))
    varies = variance != 0  # NaN stays NaN
    return torch.where(varies, variance, 1.0).sqrt() * varies


def check_limits(low: float | None, high: float | None) -> None:
    """Raise ConfigError unless `low` lies below `high`."""
    if (low is None and high is None) or (low is not None and high is not None and not low < high):
        raise ConfigError(f"clip takes the lowest and the highest label, low < high, or one of them; got {low}, {high}")


def clipped(y: Float[Tensor, "*N"], limits: Limits, wanted: Literal["up", "down", "inside"]) -> Float[Tensor, "*N"]:
    """Values within limits; the gradient passes from where what is wanted leads back (`Objective.clip`)."""
    low, high = limits
    if low is None and high is None:
        return y
    through = y
    if wanted == "up" and high is not None:
        through = y.clamp(max=high)
    elif wanted == "down" and low is not None:
        through = y.clamp(min=low)
    return y.detach().clamp(low, high) + (through - through.detach())


@dataclass(frozen=True, eq=False)
class Reading(Asking):
    """Base of objectives that read one oracle.

    Parameters
    ----------
    oracle
        Whose predictions count.
    flanks
        Constant bases before and behind each sequence, for the oracle only.
    both_strands
        Average with the prediction of the reverse complement, flanks included; for elements without a direction.
    limits
        See `Objective.clip`.
    name
        Label within other objectives.
    """

    oracle: Oracle
    _: KW_ONLY
    flanks: tuple[str, str] = ("", "")
    both_strands: bool = False
    limits: Limits = (None, None)
    name: str = ""
    differentiable = True

    def __post_init__(self) -> None:
        check_flanks(self.flanks)

    @property
    def query(self) -> Query:
        """How the oracle is asked."""
        return Query(self.oracle, tuple(flank.upper() for flank in self.flanks), self.both_strands)  # type: ignore[arg-type]

    @property
    def queries(self) -> tuple[Query, ...]:  # type: ignore[override]
        """How the oracle is asked."""
        return (self.query,)

    def clip(self, low: float | None = None, high: float | None = None) -> "Reading":
        """Clip each prediction; see `Objective.clip`."""
        check_limits(low, high)
        return replace(self, limits=(low, high))



def one_of(value: str, options: Sequence[str], what: str) -> None:
    """Raise ConfigError for a `value` that is not among the options."""
    if value not in options:
        raise ConfigError(f"there is no {what} {value!r}; {nearest(value, options)}")


class Combined(Asking):
    """Several objectives: their components side by side, named ``label`` or ``label.part``."""

    def __init__(self, objectives: Sequence[Objective] | Mapping[str, Objective], name: str = ""):
        named = isinstance(objectives, Mapping)
        self.objectives: tuple[Objective, ...] = tuple(objectives.values() if named else objectives)  # type: ignore[union-attr]
        if not self.objectives:
            raise ConfigError(f"{type(self).__name__} needs one or more objectives; got none")
        wrong = [o for o in self.objectives if not isinstance(o, Objective)]
        if wrong:
            raise ConfigError(f"{type(self).__name__} takes objectives, such as Maximize(oracle); got "
                              f"{type(wrong[0]).__name__}")
        given = list(objectives) if named else [o.name or type(o).__name__.lower() for o in self.objectives]
        self.labels = _unique(given)
        self.name = name
        self.differentiable = all(o.differentiable for o in self.objectives)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.objectives))})"

    @property
    def _keys(self) -> list[dict[str, str]]:
        """Of each objective: what its components are called here."""
        return [{part: label if len(o.names) == 1 else f"{label}.{part}" for part in o.names}
                for label, o in zip(self.labels, self.objectives, strict=True)]

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Keys of the components."""
        return tuple(key for keys in self._keys for key in keys.values())

    @property
    def queries(self) -> tuple[Query, ...]:  # type: ignore[override]
        """What all of them ask, each once."""
        return tuple(dict.fromkeys(query for o in self.objectives for query in o.queries))

    @property
    def extra_calls(self) -> int:  # type: ignore[override]
        """Model queries a sequence costs beside `queries`."""
        return sum(o.extra_calls if isinstance(o, Asking) else o.n_calls for o in self.objectives)

    @property
    def oracles(self) -> tuple[Oracle, ...]:  # type: ignore[override]
        """All that are asked."""
        return tuple(dict.fromkeys(oracle for o in self.objectives for oracle in o.oracles))

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """Components of all."""
        return self._side_by_side([o.measure(X, answers) for o in self.objectives])

    def _side_by_side(self, measured: list[Parts]) -> Parts:
        out = {}
        for o, keys, parts in zip(self.objectives, self._keys, measured, strict=True):
            if set(parts) != set(keys):
                raise SchemaError(f"names of {type(o).__name__} are {', '.join(o.names)}, but its components are "
                                  f"{', '.join(parts)}")
            out |= {keys[part]: values for part, values in parts.items()}
        return out

    def scores(self, parts: Parts) -> Float[Tensor, "K N"]:
        """Score of each of the K objectives."""
        return torch.stack([o.combine({part: parts[key] for part, key in keys.items()})
                            for o, keys in zip(self.objectives, self._keys, strict=True)])


def _unique(labels: Sequence[str]) -> tuple[str, ...]:
    """Count what repeats: a, a 2, a 3."""
    out: list[str] = []
    for label in labels:
        n, name = 1, label
        while name in out:
            n += 1
            name = f"{label} {n}"
        out.append(name)
    return tuple(out)


class Sum(Combined):
    """Weighted sum of objectives; what ``a + 0.1 * b - c`` makes. Units are those of the terms, so weights convert.

    Parameters
    ----------
    objectives
        Terms; sums among them are taken apart.
    weights
        One each; 1 unless given.
    name
        Label within other objectives.
    """

    def __init__(self, objectives: Sequence[Objective] | Mapping[str, Objective],
                 weights: Sequence[float] | None = None, *, name: str = ""):
        weights = [1.0] * len(objectives) if weights is None else [float(w) for w in weights]
        if len(weights) != len(objectives) or not np.isfinite(weights).all():
            raise ConfigError(f"{len(objectives)} objectives need as many finite weights; got {list(weights)}")
        if not isinstance(objectives, Mapping):
            terms = [(t, w * v) for o, w in zip(objectives, weights, strict=True) for t, v in
                     (zip(o.objectives, o.weights, strict=True) if isinstance(o, Sum) and not o.name else [(o, 1.0)])]
            objectives, weights = [t for t, _ in terms], [w for _, w in terms]
        super().__init__(objectives, name)
        self.weights = tuple(weights)

    def __repr__(self) -> str:
        return "Sum(" + " + ".join(f"{w:g} * {o!r}" for w, o in zip(self.weights, self.objectives, strict=True)) + ")"

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        scores = self.scores(parts)
        return scores.new_tensor(self.weights) @ scores


class Clip(Combined):
    """An objective whose score stays within limits; what `Objective.clip` makes. Its components are unchanged."""

    def __init__(self, objective: Objective, low: float | None = None, high: float | None = None):
        check_limits(low, high)
        super().__init__([objective], objective.name or type(objective).__name__.lower())
        self.limits = (low, high)

    def __repr__(self) -> str:
        return f"{self.objectives[0]!r}.clip({self.limits[0]}, {self.limits[1]})"

    @property
    def _keys(self) -> list[dict[str, str]]:
        return [{part: part for part in self.objectives[0].names}]

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        return clipped(self.scores(parts)[0], self.limits, "up")
