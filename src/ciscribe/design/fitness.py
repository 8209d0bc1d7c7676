"""What evolution would make of a sequence: how mutations change its expression, as objectives.

The terms are those of Vaishnav et al. 2022, who read them off a model of yeast promoters. They cost many predictions a
sequence (`Objective.n_calls`), so use them late, or on few sequences.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from ciscribe.design.score import (
    POSITIONS,
    Parts,
    Query,
    Reading,
    as_one_hot,
    check_flanks,
    clipped,
    hard_codes,
    pick,
    standard_deviation,
)
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.oracle import Oracle
from ciscribe.perturb.mutagenesis import saturation_mutagenesis
from ciscribe.sequence import reverse_complement_codes

_NUMBERS = 2**18  # effects that are held at once, of one track
_MUTANTS = 256  # a forward pass


def substitution_effects(query: Query, X: Float[Tensor, "N 4 L"], track: int | None = None
                         ) -> Float[ndarray, "N 4 L"]:
    """Prediction with each single substitution minus prediction as it is; 0 for the base that is there.

    Only what a mutation can reach is computed (`ciscribe.perturb.mutagenesis.saturation_mutagenesis`). Flanks are not
    mutated; on both strands the effects are averaged.
    """
    codes = hard_codes(X, "the effect of mutations")
    length, left = codes.shape[1], len(query.flanks[0])
    out = np.empty((len(codes), 4, length), np.float32)
    step = max(1, _NUMBERS // (4 * length))
    for i in range(0, len(codes), step):
        whole = hard_codes(query.flanked(X[i:i + step].detach()), "the effect of mutations")
        effects = _one_strand(query.oracle, whole, left, length, track)
        if query.both_strands:
            right = whole.shape[1] - left - length
            turned = _one_strand(query.oracle, reverse_complement_codes(whole), right, length, track)
            effects = (effects + turned[:, ::-1, ::-1]) / 2
        out[i:i + step] = effects
    return out


def _one_strand(oracle: Oracle, codes: ndarray, start: int, length: int, track: int | None) -> ndarray:
    effects = saturation_mutagenesis(oracle, codes, start=start, end=start + length, batch_size=_MUTANTS)
    n_tracks = effects.sizes["track"]
    pick(torch.zeros(1, n_tracks), track, oracle)
    return effects.values[:, :, start:start + length, track or 0]


def evolvability_vector(oracle: Oracle, X: Shaped[Tensor, "N ..."] | Shaped[ndarray, "N ..."],
                        track: int | None = None, *, flanks: tuple[str, str] = ("", ""), both_strands: bool = False
                        ) -> Float[ndarray, "N M"]:
    """Effects of all 3L single substitutions of each sequence, smallest first: how expression can evolve.

    Returns
    -------
    ndarray
        ``(N, 3L)``, mutant minus sequence, in the units of the readout.

    References
    ----------
    Vaishnav et al., Nature 2022, doi:10.1038/s41586-022-04506-6.
    """
    check_flanks(flanks)
    X = as_one_hot(X)
    effects = substitution_effects(Query(oracle, flanks, both_strands), X, track)
    return np.sort(effects[X.detach().cpu().numpy() < 0.5].reshape(len(X), -1), axis=1)


class _Mutants(Reading):
    """Base of objectives that look at mutants of the sequence."""

    @property
    def queries(self) -> tuple[Query, ...]:
        """None: mutants of the sequence are asked for, in a way of their own."""
        return ()

    @property
    def oracles(self) -> tuple[Oracle, ...]:  # type: ignore[override]
        """The one that is asked."""
        return (self.oracle,)


@dataclass(frozen=True, eq=False)
class _Neighbours(_Mutants):
    """Base of objectives that look at all single substitutions."""

    length: int
    differentiable: ClassVar[bool] = False  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1:
            raise ConfigError(f"length is that of the designs, 1 bp or more; got {self.length}")

    @property
    def extra_calls(self) -> int:  # type: ignore[override]
        """Each sequence and its 3L neighbours; how many of these are computed in full is the oracle's affair."""
        return (3 * self.length + 1) * self.query.n_calls

    def clip(self, low: float | None = None, high: float | None = None) -> Reading:
        """Refuse: a clipped prediction has no neighbours that differ."""
        raise ConfigError(f"{type(self).__name__} reads differences of predictions, for which there is no label range; "
                          "clip the objective that reads the level")

    def effects(self, X: Float[Tensor, "N 4 L"], track: int | None) -> Float[Tensor, "N M"]:
        """Mutant minus sequence, of the 3L neighbours."""
        if X.shape[2] != self.length:
            raise SchemaError(f"{type(self).__name__} was told length={self.length:,}, which fixes what it costs; the "
                              f"sequences have {X.shape[2]:,} bp")
        effects = torch.from_numpy(substitution_effects(self.query, X, track)).to(X)
        return effects[X < 0.5].reshape(len(X), -1)


@dataclass(frozen=True, eq=False)
class Robustness(_Neighbours):
    """Mutational robustness: share of the 3L single mutants whose expression stays within `tolerance`; 0 to 1.

    Parameters
    ----------
    oracle, flanks, both_strands, name
        See `ciscribe.design.score.Reading`.
    length
        Of the designs, bp; it fixes the cost, 3L + 1 predictions a sequence.
    tolerance
        Change that counts as none, in the units of the readout. Vaishnav et al. took twice the standard deviation of
        the measurement.
    track
        Of the oracle's answer; None where it has one only.

    References
    ----------
    Vaishnav et al., Nature 2022, doi:10.1038/s41586-022-04506-6.
    """

    tolerance: float
    track: int | None = None
    names = ("robustness",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tolerance > 0:
            raise ConfigError(f"the tolerance of Robustness lies above 0; got {self.tolerance}")

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """Share of the neighbours that stay."""
        effects = self.effects(X, self.track)
        share = (effects.abs() < self.tolerance).to(X).mean(dim=1)
        return {"robustness": torch.where(effects.isfinite().all(dim=1), share, torch.nan)}

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        return parts["robustness"]


@dataclass(frozen=True, eq=False)
class Evolvability(_Neighbours):
    """How far one mutation can move expression: the range that the 3L single mutants span, in the readout's units.

    Components are ``up`` (highest mutant minus sequence, 0 at a peak) and ``down`` (sequence minus lowest mutant, 0 at
    the bottom); the score is their sum. The whole spectrum is `evolvability_vector`.

    Parameters
    ----------
    oracle, flanks, both_strands, name
        See `ciscribe.design.score.Reading`.
    length
        Of the designs, bp; it fixes the cost, 3L + 1 predictions a sequence.
    track
        Of the oracle's answer; None where it has one only.

    References
    ----------
    After Vaishnav et al., Nature 2022, doi:10.1038/s41586-022-04506-6. Difference: they describe the vector of effects
    by its archetypes; its range is our single number.
    """

    track: int | None = None
    names = ("up", "down")

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """What the best and the worst mutation do."""
        effects = self.effects(X, self.track)
        return {"up": effects.amax(dim=1).clamp(min=0), "down": (-effects).amax(dim=1).clamp(min=0)}

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        return parts["up"] + parts["down"]


@dataclass(frozen=True, eq=False)
class Stability(_Mutants):
    """Expression stability under drift: minus the standard deviation of expression over random mutants; at most 0.

    In the units of the readout. Every sequence gets the same mutations (position and step from base to base), so that a
    score does not depend on what it is scored with, and differences between sequences are not those of the draw.

    Parameters
    ----------
    oracle, flanks, both_strands, name
        See `ciscribe.design.score.Reading`.
    mutations
        Substitutions a mutant, at different positions.
    mutants
        Drawn; each costs a prediction.
    track
        Of the oracle's answer; None where it has one only.
    seed
        Of the draw.
    limits
        Range of the predictions (`Objective.clip`).

    References
    ----------
    After the simulated variants in the expression conservation coefficient of Vaishnav et al., Nature 2022,
    doi:10.1038/s41586-022-04506-6. Difference: they compare with natural variants of the same promoter, which a design
    has none of.
    """

    mutations: int = 3
    mutants: int = 32
    track: int | None = None
    seed: int = 0
    names = ("spread",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mutations < 1 or self.mutants < 2:
            raise ConfigError(f"Stability needs 1 or more mutations and 2 or more mutants; got {self.mutations} and "
                              f"{self.mutants}")

    @property
    def extra_calls(self) -> int:  # type: ignore[override]
        """One a mutant and strand."""
        return self.mutants * self.query.n_calls

    def measure(self, X: Float[Tensor, "N 4 L"], answers: Mapping[Query, Tensor]) -> Parts:
        """Standard deviation over the mutants."""
        length = X.shape[2]
        if self.mutations > length:
            raise SchemaError(f"{self.mutations} mutations do not fit into sequences of {length} bp")
        rng = np.random.default_rng(self.seed)
        at = np.stack([rng.permutation(length)[:self.mutations] for _ in range(self.mutants)])
        step = np.zeros((self.mutants, 1, length), np.int64)
        np.put_along_axis(step[:, 0], at, rng.integers(1, 4, at.shape), axis=1)
        # a mutation turns the channels of its position, so that relaxed sequences mutate too
        source = torch.from_numpy((np.arange(4)[:, None] - step) % 4).to(X.device)
        y = []
        for some in source.split(max(1, POSITIONS // max(1, len(X) * length))):
            shape = (len(some), *X.shape)
            mutants = X.expand(shape).gather(2, some[:, None].expand(shape)).flatten(0, 1)
            y.append(pick(self.query(mutants), self.track, self.oracle).reshape(len(some), len(X)))
        y = clipped(torch.cat(y), self.limits, "inside")
        return {"spread": standard_deviation(y, sample=True)}

    def combine(self, parts: Parts) -> Float[Tensor, " N"]:
        """Turn the components into the score."""
        return -parts["spread"]
