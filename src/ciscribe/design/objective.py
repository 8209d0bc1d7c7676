"""What a design is for: objectives that compose, state their units and sign, and show their components.

An objective turns sequences into scores, higher is better. It is built on oracles, never on models. What it shows as
components is what was predicted or counted, as it came; clipping and weighing happen when they are combined.

- *Relaxed sequences.* A differentiable objective also takes probabilities of bases ``(N, 4, L)``, which is what
  designers that follow gradients climb. A score counts only of hard sequences: one base a position.
- *Strands.* A promoter has a direction, so sequences are read as they are. ``both_strands=True`` averages with the
  reverse complement of the whole construct; for enhancers, else a design may exploit one strand of the model.
- *Flanks.* ``flanks=(left, right)`` are the constant bases around an element in the construct that was measured
  (adapters, a vector; Malinois: 200 bp on either side). They are put on before the oracle is asked and are not
  designed.
- *Cost.* `Objective.n_calls` model queries a sequence. Objectives that share an oracle, flanks and strands ask it once.
- *Changes.* `Objective.score_edits` scores small changes of a few sequences and computes only what they can reach.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable
from warnings import warn

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from numpy import ndarray
from torch import Tensor, nn

from ciscribe.design.score import (
    POSITIONS,
    Asking,
    Combined,
    Objective,
    Parts,
    Query,
    Reading,
    check_flanks,
    clipped,
    hard_codes,
    one_of,
    pick,
    standard_deviation,
)
from ciscribe.errors import ConfigError, SchemaError, UnsupportedError
from ciscribe.oracle import Oracle
from ciscribe.pwm import log_odds, scan_motifs, score_threshold
from ciscribe.schema import Motif, check_motifs
from ciscribe.sequence import codes_of, encode, kmer_counts, one_hot_tensor, reverse_complement_codes

Summary = Literal["mean", "min", "cvar"]


@runtime_checkable
class LanguageModel(Protocol):
    """Anything that knows how probable a sequence is."""

    def loglik(self, codes: UInt8[ndarray, "N L"]) -> Any:
        """Log-likelihood of each whole sequence, nats ``(N,)``, or None where the model has none."""
        ...


@dataclass(frozen=True, eq=False)
class _OneTrack(Reading):
    names = ("prediction",)

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """What is predicted, in the units of the readout."""
        return {"prediction": pick(answers[self.query], self.track, self.oracle)}  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class Maximize(_OneTrack):
    """As much as possible: the prediction itself, in the units of the readout.

    Parameters
    ----------
    oracle, flanks, both_strands, limits, name
        See `Reading`.
    track
        Of the oracle's answer; None where it has one only.
    """

    track: int | None = None

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        return clipped(parts["prediction"], self.limits, "up")


@dataclass(frozen=True, eq=False)
class Minimize(_OneTrack):
    """As little as possible: minus the prediction, in the units of the readout; parameters as in `Maximize`."""

    track: int | None = None

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        return -clipped(parts["prediction"], self.limits, "down")


@dataclass(frozen=True, eq=False)
class Target(_OneTrack):
    """A level to be hit: minus the distance of the prediction to `value` beyond `tolerance`, in its units; at most 0.

    Parameters
    ----------
    oracle, flanks, both_strands, limits, name
        See `Reading`.
    value
        What is wanted.
    tolerance
        Half-width of the flat top: a prediction within scores 0 and is not pulled.
    track
        Of the oracle's answer; None where it has one only.
    """

    value: float
    tolerance: float = 0.0
    track: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tolerance >= 0:
            raise ConfigError(f"the tolerance of a Target is 0 or more; got {self.tolerance}")

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        y = clipped(parts["prediction"], self.limits, "inside")
        return -((y - self.value).abs() - self.tolerance).relu()


@dataclass(frozen=True, eq=False)
class Specific(Reading):
    """On here, off there: the prediction of one track minus that of the others, in the units of the readout.

    Components are the predictions, ``on`` and ``off <track>``. For tracks of several oracles, add `Maximize` and a
    `Context` of `Minimize`.

    Parameters
    ----------
    oracle, flanks, both_strands, limits, name
        See `Reading`.
    on
        Track that is wanted.
    off
        Tracks that are not.
    gap
        ``max`` subtracts the highest of them (CODA's MinGap: the worst counts), ``mean`` their mean.
    bend
        0 leaves predictions as they are. b > 0 takes ``y − b (exp(−y) − 1)`` of each first: a step at a low level is
        worth more than at a high one (slope ``1 + b exp(−y)``), so that silencing where it is unwanted pays more than
        still more of what is wanted. CODA took b = 1 with FastSeqProp and AdaLead, 0 with annealing, and predictions
        clipped to −2 … 6 (`clip`); it needs such limits, exp grows without any.

    References
    ----------
    Gosai et al., Nature 2024, doi:10.1038/s41586-024-08070-z; sjgosai/boda2@03cd2ee:boda/generator/energy.py (read, not
    copied). Difference: outside of the limits the gradient passes where it leads back; a clamp has none there.
    """

    on: int
    off: Sequence[int]
    gap: Literal["max", "mean"] = "max"
    bend: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        off = list(self.off)
        if not off or len(set(off)) < len(off) or self.on in off:
            raise ConfigError(f"Specific needs one or more tracks in off, all different, on not among them; got "
                              f"on={self.on}, off={off}")
        one_of(self.gap, ("max", "mean"), "gap")
        if not self.bend >= 0:
            raise ConfigError(f"bend is 0 or more; got {self.bend}")

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Keys of the components."""
        return ("on", *(f"off {track}" for track in self.off))

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """What is predicted for each track."""
        y = answers[self.query]
        return {name: pick(y, track, self.oracle) for name, track in zip(self.names, (self.on, *self.off), strict=True)}

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        on, *off = (clipped(parts[name], self.limits, "down" if i else "up") for i, name in enumerate(self.names))
        others = torch.stack([self._bent(y) for y in off])
        return self._bent(on) - (others.amax(dim=0) if self.gap == "max" else others.mean(dim=0))

    def _bent(self, y: Tensor) -> Tensor:
        return y - self.bend * torch.expm1(-y) if self.bend else y


# What a sequence is like, without an oracle


class Naturalness(Asking):
    """How much like natural DNA of its GC content: log-likelihood a base minus that of natives, nats a base.

    0 is as probable as the natives, below is stranger. Likelihood alone would favour repeats and GC-poor or GC-rich
    stretches, which is why natives of the same GC are subtracted.

    Parameters
    ----------
    model
        Has ``loglik(codes) -> (N,)``, nats of the whole sequence, such as the generators of `ciscribe.design`.
    natives
        Natural sequences that the model was not trained on, codes or one-hot.
    neighbours
        A design is compared with so many natives nearest in GC content (all those that tie with the last included).
    name
        Label within other objectives.

    Raises
    ------
    UnsupportedError
        When the model has no likelihood.
    """

    names = ("naturalness",)
    extra_calls = 1

    def __init__(self, model: LanguageModel, natives: Shaped[Tensor, "M ..."] | Shaped[ndarray, "M ..."], *,
                 neighbours: int = 100, name: str = ""):
        codes = codes_of(natives)
        if not len(codes) or neighbours < 1:
            raise ConfigError(f"Naturalness needs natives, and 1 or more neighbours; got {len(codes)} and {neighbours}")
        self.model, self.neighbours, self.name = model, min(neighbours, len(codes)), name
        self.native_gc = _gc(codes)
        self.native_loglik = self._per_base(codes)
        if not np.isfinite(self.native_loglik).all():
            raise SchemaError("the log-likelihood of natives is NaN or infinite")

    def __repr__(self) -> str:
        return f"Naturalness({type(self.model).__name__}, {len(self.native_gc):,} natives)"

    def _per_base(self, codes: ndarray) -> ndarray:
        out = []
        step = max(1, POSITIONS // codes.shape[1])
        for i in range(0, len(codes), step):
            loglik = self.model.loglik(codes[i:i + step])
            if loglik is None:
                raise UnsupportedError(f"{type(self.model).__name__} has no likelihood; Naturalness needs a language "
                                       "model or a generator with one, such as the autoregressive")
            out.append(loglik.detach().cpu().numpy() if isinstance(loglik, Tensor) else np.asarray(loglik))
        return np.concatenate(out).astype(float) / codes.shape[1]

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """Log-likelihood a base minus that of natives."""
        codes = hard_codes(X, "Naturalness")
        gc, which = np.unique(_gc(codes), return_inverse=True)
        expected = np.empty(len(gc))
        for i, value in enumerate(gc):
            distance = np.abs(self.native_gc - value)
            reach = np.partition(distance, self.neighbours - 1)[self.neighbours - 1]
            expected[i] = self.native_loglik[distance <= reach + 1e-9].mean()
        return {"naturalness": torch.as_tensor(self._per_base(codes) - expected[which]).to(X)}

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        return parts["naturalness"]


def _gc(codes: ndarray) -> ndarray:
    return ((codes == 1) | (codes == 2)).mean(axis=1)


class Distance(Asking):
    """How far from the nearest of some sequences; far is positive, so subtract it to stay close.

    Parameters
    ----------
    references
        Codes or one-hot, such as natives or earlier designs.
    how
        ``hamming``: positions that differ (bp; the same length); relaxed sequences get the expected number, with a
        gradient. ``kmer``: 1 − cosine similarity of k-mer counts, 0 (the same) to 1 (none shared), of one strand.
    k
        Of ``kmer``, at most 8.
    name
        Label within other objectives.
    """

    names = ("distance",)
    extra_calls = 0

    def __init__(self, references: Shaped[Tensor, "M ..."] | Shaped[ndarray, "M ..."],
                 how: Literal["hamming", "kmer"] = "hamming", *, k: int = 4, name: str = ""):
        one_of(how, ("hamming", "kmer"), "distance")
        codes = codes_of(references)
        if not len(codes):
            raise ConfigError("Distance needs one or more references; got none")
        self.how, self.k, self.name = how, k, name
        self.length = codes.shape[1]
        self.references = (one_hot_tensor(torch.from_numpy(codes)).flatten(1) if how == "hamming" else
                           torch.from_numpy(_unit(kmer_counts(codes, k))))
        self.differentiable = how == "hamming"

    def __repr__(self) -> str:
        return f"Distance({len(self.references):,} references, {self.how!r})"

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """Distance to the nearest reference."""
        if self.how == "kmer":
            near = torch.from_numpy(_unit(kmer_counts(hard_codes(X, "Distance by k-mers"), self.k))).to(X)
            return {"distance": 1 - (near @ self.references.to(X).T).amax(dim=1)}
        if X.shape[2] != self.length:
            raise SchemaError(f"the references are {self.length:,} bp and the sequences {X.shape[2]:,} bp; Hamming "
                              "distance needs one length; use Distance(..., how='kmer')")
        return {"distance": self.length - (X.flatten(1) @ self.references.to(X).T).amax(dim=1)}

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        return parts["distance"]


def _unit(counts: ndarray) -> ndarray:
    return counts / np.maximum(np.sqrt((counts**2).sum(axis=1, keepdims=True)), 1e-12)


class Motifs(Asking):
    """How often motifs may occur: minus the sites that miss or are too many, summed over motifs; at most 0.

    Components are the sites of each motif, on both strands; a palindrome counts once.

    Parameters
    ----------
    motifs
        To count; for bounds of their own, add several `Motifs`.
    least, most
        Sites allowed of each; ``most=None`` is any number.
    p_value
        Largest p-value of a site (`ciscribe.pwm.scan_motifs`).
    background
        Frequency of A C G T by which sites are judged; equal unless given. It is fixed, so that a sequence's score does
        not depend on what it is scored with.
    flanks
        Bases around the sequences: a site across a junction counts, one that lies in a flank does not.
    name
        Label within other objectives.

    Raises
    ------
    ConfigError
        When a motif is too short or weak to ever reach the p-value.
    """

    extra_calls = 0

    def __init__(self, motifs: Sequence[Motif], *, least: int = 0, most: int | None = None, p_value: float = 1e-4,
                 background: Sequence[float] | Float[ndarray, " 4"] | None = None,
                 flanks: tuple[str, str] = ("", ""), name: str = ""):
        check_motifs(motifs)
        check_flanks(flanks)
        if least < 0 or (most is not None and most < least):
            raise ConfigError(f"the sites of a motif need 0 <= least <= most; got {least} and {most}")
        share = np.full(4, 0.25) if background is None else np.asarray(background, dtype=float)
        turned = (share + share[::-1]) / 2
        mute = [m.name for m in motifs if np.isinf(score_threshold(log_odds(m, turned), p_value, turned))]
        if mute:
            raise ConfigError(f"{len(mute)} of {len(motifs)} motifs can never reach p_value={p_value:g}; first: "
                              f"{mute[0]}; raise p_value or leave it out")
        self.motifs, self.least, self.most, self.p_value, self.name = tuple(motifs), least, most, p_value, name
        self.background, self.flanks = share, flanks
        self.names = tuple(m.name for m in motifs)

    def __repr__(self) -> str:
        return f"Motifs({', '.join(self.names)}; least={self.least}, most={self.most})"

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """Sites of each motif."""
        codes, (left, right) = hard_codes(X, "Motifs"), (encode(flank) for flank in self.flanks)
        whole = np.concatenate([np.tile(left, (len(codes), 1)), codes, np.tile(right, (len(codes), 1))], axis=1)
        hits = scan_motifs(whole, self.motifs, p_value=self.p_value, background=self.background)
        inside = (hits["end"] > len(left)) & (hits["start"] < len(left) + codes.shape[1])
        sites = hits[inside].groupby(["motif", "region"])["start"].nunique()  # a palindrome is hit on both strands
        rows = range(len(codes))
        return {name: torch.as_tensor(sites.reindex([(name, i) for i in rows], fill_value=0).to_numpy()).to(X)
                for name in self.names}

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        n = torch.stack([parts[motif] for motif in self.names])
        off = (self.least - n).relu() + (0 if self.most is None else (n - self.most).relu())
        return -off.sum(dim=0)


# Objectives of objectives


class Lower(Combined):
    """What even doubtful models grant: a lower bound over several models, in their common units.

    It protects where models err differently: another architecture, or trained on other data. The spread of a seed
    ensemble of one small network tells nothing of its error, so that a warning says when all are of one architecture.

    Parameters
    ----------
    members
        Oracles (their predictions, see `Maximize`) or objectives, in the same units; two or more.
    how
        ``min``: the lowest. ``sd``: mean − k · standard deviation (population; of two models with k = 1, the lowest).
        ``quantile``: the k-quantile over the members.
    k
        1 for ``sd`` and 0.25 for ``quantile`` unless given.
    track, flanks, both_strands
        How the oracles among the members are asked.
    name
        Label within other objectives.

    References
    ----------
    Mean minus one standard deviation over an ensemble: Kotopka & Smolke, Nat Commun 2020,
    doi:10.1038/s41467-020-15977-4. Difference: the minimum over different architectures is our default.
    """

    def __init__(self, members: Sequence[Oracle | Objective] | Mapping[str, Oracle | Objective],
                 how: Literal["min", "sd", "quantile"] = "min", k: float | None = None, *, track: int | None = None,
                 flanks: tuple[str, str] = ("", ""), both_strands: bool = False, name: str = ""):
        one_of(how, ("min", "sd", "quantile"), "lower bound")
        k = {"min": 0.0, "sd": 1.0, "quantile": 0.25}[how] if k is None else k
        if k < 0 or (how == "quantile" and k > 1):
            raise ConfigError(f"k is 0 or more, and at most 1 for how='quantile'; got {k}")

        def wrap(member: Oracle | Objective) -> Objective:
            if not isinstance(member, Oracle):
                return member
            return Maximize(member, track, flanks=flanks, both_strands=both_strands,
                            name=type(member.model).__name__.lower())

        super().__init__({label: wrap(m) for label, m in members.items()} if isinstance(members, Mapping) else
                         [wrap(m) for m in members], name)
        if len(self.objectives) < 2:
            raise ConfigError("Lower needs two or more models; got one; for one, use Maximize(oracle).clip(...)")
        kinds = {_architecture(oracle.model) for oracle in self.oracles}
        if len(kinds) == 1:
            warn(f"all models under Lower are {type(self.oracles[0].model).__name__}; models of one architecture err "
                 "alike, and their spread says little about the error; add one of another architecture", stacklevel=2)
        self.how, self.k = how, k

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        scores = self.scores(parts)
        if self.how == "sd":
            return scores.mean(dim=0) - self.k * standard_deviation(scores)
        return scores.amin(dim=0) if self.how == "min" else scores.quantile(self.k, dim=0)


def _architecture(model: nn.Module) -> tuple[type, ...]:
    """Class of a model; of a plain chain of layers, the classes of all of them."""
    return tuple(type(m) for m in model.modules()) if isinstance(model, nn.Sequential) else (type(model),)


class Context(Combined):
    """One sequence in several contexts (cell types, conditions, tracks): the mean, the worst, or the mean of the worst.

    Parameters
    ----------
    objectives
        One a context, in the same units; a mapping gives them names.
    how
        ``mean``, ``min``, or ``cvar``: the mean of the worst `share` of contexts (conditional value at risk, between
        the two).
    share
        Of ``cvar``, above 0 and at most 1. Where it is no whole number of contexts, the last counts in part.
    name
        Label within other objectives.

    References
    ----------
    Rockafellar & Uryasev, J Risk 2000, doi:10.21314/JOR.2000.038.
    """

    def __init__(self, objectives: Sequence[Objective] | Mapping[str, Objective], how: Summary = "mean", *,
                 share: float = 0.5, name: str = ""):
        one_of(how, ("mean", "min", "cvar"), "summary of contexts")
        if not 0 < share <= 1:
            raise ConfigError(f"share lies above 0 and at most at 1; got {share}")
        super().__init__(objectives, name)
        self.how, self.share = how, share

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        scores = self.scores(parts)
        if self.how != "cvar":
            return scores.mean(dim=0) if self.how == "mean" else scores.amin(dim=0)
        n = self.share * len(scores)
        weights = (n - torch.arange(len(scores), dtype=scores.dtype, device=scores.device)).clamp(0, 1) / n
        return weights @ scores.sort(dim=0).values


class System(Context):
    """Several elements designed as one: each has its objective, and they may not share long words.

    A design is the elements end to end: the objective cuts it. Shared words invite recombination and cross-talk.

    Parameters
    ----------
    objectives
        One an element, in their order; a mapping gives them names. For a stoichiometry, give each its `Target`.
    lengths
        Of the elements, bp.
    how, share
        How their scores become one, as in `Context`.
    longest
        Longest word (bp, either strand) that two elements may share; None does not look. The component ``shared word``
        is the longest over all pairs. It has no gradient, nor has the system then.
    weight
        Score lost for every bp above.
    name
        Label within other objectives.
    """

    def __init__(self, objectives: Sequence[Objective] | Mapping[str, Objective], lengths: Sequence[int],
                 how: Summary = "mean", *, share: float = 0.5, longest: int | None = None, weight: float = 1.0,
                 name: str = ""):
        super().__init__(objectives, how, share=share, name=name)
        if len(lengths) != len(self.objectives) or min(lengths) < 1:
            raise ConfigError(f"{len(self.objectives)} elements need as many lengths, in bp; got {list(lengths)}")
        if longest is not None and (longest < 1 or weight < 0):
            raise ConfigError(f"longest is 1 bp or more and weight 0 or more; got {longest} and {weight}")
        self.lengths, self.longest, self.weight = tuple(int(n) for n in lengths), longest, weight
        self.differentiable = self.differentiable and longest is None

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Keys of the components."""
        return super().names + (() if self.longest is None else ("shared word",))

    @property
    def queries(self) -> tuple[Query, ...]:  # type: ignore[override]
        """None of the whole: each element is asked for alone."""
        return ()

    @property
    def extra_calls(self) -> int:  # type: ignore[override]
        """Model queries a sequence costs."""
        return sum(o.n_calls for o in self.objectives)

    def split(self, X: Shaped[Tensor, "N ..."]) -> tuple[Tensor, ...]:
        """Cut designs (codes or one-hot) into their elements."""
        if X.shape[-1] != sum(self.lengths):
            raise SchemaError(f"elements of {' + '.join(map(str, self.lengths))} bp make designs of "
                              f"{sum(self.lengths):,} bp; got {X.shape[-1]:,} bp")
        return X.split(self.lengths, dim=-1)

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """Components of the elements, and the longest word that two share."""
        pieces = self.split(X)
        parts = self._side_by_side([o.components(piece) for o, piece in zip(self.objectives, pieces, strict=True)])
        if self.longest is None:
            return parts
        codes = [hard_codes(piece, "the shared word of a System") for piece in pieces]
        runs = [longest_shared_word(a, b) for i, a in enumerate(codes) for b in codes[:i]]
        shared = np.max(runs, axis=0) if runs else np.zeros(len(X), dtype=int)
        return parts | {"shared word": torch.as_tensor(shared).to(X)}

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        score = super().combine(parts)
        return score if self.longest is None else score - self.weight * (parts["shared word"] - self.longest).relu()


def longest_shared_word(a: UInt8[ndarray, "N A"], b: UInt8[ndarray, "N B"]) -> Int[ndarray, " N"]:
    """Longest word (bp) that two sequences have in common on any strands, for each row; N matches nothing."""
    best = np.zeros(len(a), dtype=np.int64)
    for other in (b, reverse_complement_codes(b)):
        run = np.zeros((len(a), b.shape[1] + 1), dtype=np.int64)  # ends at this base of a and of b
        for column in a.T:
            run[:, 1:] = (run[:, :-1] + 1) * ((other == column[:, None]) & (column < 4)[:, None])
            np.maximum(best, run.max(axis=1), out=best)
    return best
