"""Simple models of a complicated one, small enough to be read: what they explain, and what is left over.

`syntax_surrogate` explains many sequences by the strength, strand, place and spacing of their motifs.
`local_surrogate` explains one sequence by what each base (and pair of bases) adds, behind a saturating curve.
`two_factor_occupancy` explains expression by two factors that help each other to bind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray
from scipy import optimize, sparse, special
from sklearn.linear_model import Lasso, LassoCV, Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, KFold
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.interpret.arrangement import LIMITS, ORDERS, ORIENTATIONS, check_instances, find_pairs
from ciscribe.oracle import Oracle
from ciscribe.results import attribution_array
from ciscribe.sequence import BASES, N, codes_of

_PENALTIES = np.logspace(-3, 4, 15)
_LOCAL_PENALTIES = np.logspace(-2, 3, 6)
_ROUNDS, _STEPS = 4, 300

CARDS = {
    "syntax_surrogate": Card(
        name="syntax_surrogate", kind="interpretation",
        summary="Linear regression on the strengths of motif instances and on products of pairs by their spacing.",
        paper="own; ridge: Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634; lasso: Tibshirani 1996, "
              "doi:10.1111/j.2517-6161.1996.tb02080.x", code="written by us on scikit-learn"),
    "local_surrogate": Card(
        name="local_surrogate", kind="interpretation",
        summary="Additive or pairwise effects of the bases of one sequence, fitted to thousands of its mutants.",
        paper="Seitz, McCandlish, Kinney & Koo, Nature Machine Intelligence 6:701 (2024) (SQUID), "
              "doi:10.1038/s42256-024-00851-5",
        differences=("Each position is mutated independently, so that numbers of mutations are binomial.",
                     "The nonlinearity is a rising sum of sigmoids at fixed places, fitted in turns with a ridge "
                     "regression, by least squares; there is no model of noise.",
                     "The penalty is chosen on held-out mutants.",
                     "Pairs are those within a window."),
        n_policy="an N is not mutated and has no effect"),
    "two_factor_occupancy": Card(
        name="two_factor_occupancy", kind="interpretation",
        summary="Expression as the chance that two factors, which may help or hinder each other, sit on the DNA.",
        paper="Bintu et al., Current Opinion in Genetics & Development 15:116 (2005), doi:10.1016/j.gde.2005.02.007",
        differences=("Binding energies are linear in motif scores, with fitted slope and offset.",)),
}


# Many sequences, by their motifs


class Feature(NamedTuple):
    """One column of the design: a motif, a place of it, or a pair; None is any."""

    kind: str
    motif_a: str
    motif_b: str | None = None
    strand: str | None = None
    order: str | None = None
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True, eq=False)
class SyntaxSurrogate:
    """A fitted grammar of motifs; see `syntax_surrogate`."""

    coefficients: pd.DataFrame
    """``kind`` (motif, position or pair), ``motif_a, motif_b, strand`` (of a pair: its orientation), ``order, low,
    high`` (bp: place, or gap), ``coefficient`` (units of y for one unit of strength, or of strength²) with
    ``coefficient_low, coefficient_high`` (95 %, bootstrap), ``effect`` (coefficient × standard deviation of the
    feature) and ``n`` (sequences in which the feature is not 0)."""
    intercept: float
    r2: float
    """Share of the variance of y that is explained, held out."""
    r2_additive: float
    """The same without the pairs."""
    penalty: float
    features: tuple[Feature, ...]
    strength: str | None
    anchor: int

    def predict(self, hits: pd.DataFrame, n_regions: int | None = None) -> Float[ndarray, " B"]:
        """What the grammar says of sequences with these hits.

        Parameters
        ----------
        hits
            As in `syntax_surrogate`; motifs that it did not know are ignored.
        n_regions
            Number of sequences, so that those without hits are counted; up to the last hit unless given.
        """
        n = int(hits["region"].max()) + 1 if n_regions is None else n_regions
        design = _design(hits, n, self.features, self.strength, self.anchor)
        return self.intercept + design @ self.coefficients["coefficient"].to_numpy(float)


def syntax_surrogate(hits: pd.DataFrame, y: Float[ndarray, " B"], *, motifs: Sequence[str] | None = None,
                     strength: str | None = "score", by_strand: bool = False, positions: Sequence[int] | None = None,
                     anchor: int = 0, gaps: Sequence[int] | None = (0, 10, 30, 100), by_orientation: bool = False,
                     by_order: bool = False, penalty: str = "ridge", folds: int = 5,
                     groups: Shaped[ndarray, " B"] | None = None, n_bootstrap: int = 200, seed: int = 0
                     ) -> SyntaxSurrogate:
    """Explain activities, or the predictions of a model, by a grammar of motifs: what each adds, and each pair.

    y = intercept + Σ coefficient · strength(instance) + Σ coefficient · strength(A) · strength(B), the second sum
    over pairs that do not overlap, each pair of motifs having one coefficient for each range of gaps. The penalty is
    chosen by cross-validation within the training rows of each fold, on standardized features.

    Parameters
    ----------
    hits
        See `ciscribe.interpret.arrangement.check_instances`.
    y
        One number a sequence, by its row, e.g. an oracle's predictions.
    motifs
        Those to use; all in `hits` unless given.
    strength
        Column of `hits` with the strength of an instance (finite, larger is stronger); None counts every instance
        as 1.
    by_strand
        A coefficient for each strand of a motif.
    positions, anchor
        Edges of places in bp from `anchor`; gives each motif a coefficient for each place (of its center) on top of
        the general one.
    gaps
        Edges of ranges of gaps in bp, each with its lower and without its upper edge; None leaves pairs out.
    by_orientation, by_order
        A coefficient for each orientation, or order, of a pair; otherwise all share one.
    penalty
        "ridge" shrinks all, "lasso" leaves many at exactly 0.
    folds, groups
        Of the cross-validation; rows of one group are never divided between folds.
    n_bootstrap
        Resamples of the sequences, at the chosen penalty. Intervals therefore tell the spread of the penalized
        coefficients, which lie nearer to 0 than the true ones.
    seed
        Of folds and resamples.

    Returns
    -------
    SyntaxSurrogate
        Fitted to all sequences; its `r2` and `r2_additive` come from sequences that were held out.

    Raises
    ------
    SchemaError
        For hits or activities that break their contract, a constant `y`, or fewer rows or groups than folds.
    """
    check_instances(hits, len(y))
    if not np.isfinite(y).all() or len(y) < 2 * folds or np.ptp(y) == 0:
        raise SchemaError(f"y must be finite and vary, over {2 * folds} sequences or more; got {len(y)} values, "
                          f"{int((~np.isfinite(y)).sum())} not finite")
    if strength is not None and (strength not in hits.columns or not np.isfinite(hits[strength].to_numpy(float)).all()):
        raise SchemaError(f"hits need a column {strength!r} of finite strengths; columns: "
                          f"{', '.join(map(str, hits.columns))}; strength=None counts instances")
    there = sorted(set(hits["motif"]))
    names = there if motifs is None else list(motifs)
    for name in names:
        if name not in there:
            raise UnknownNameError(f"no hit is of the motif {name!r}; {nearest(name, there)}")
    if penalty not in ("ridge", "lasso"):
        raise SchemaError(f"penalty is ridge or lasso; got {penalty!r}")
    features = _features(names, by_strand, positions, gaps, by_orientation, by_order)
    design = _design(hits, len(y), features, strength, anchor)
    used = design.std(axis=0) > 1e-12
    features, design = [f for f, keep in zip(features, used, strict=True) if keep], design[:, used]
    if not features:
        raise SchemaError("no feature differs between the sequences; are the hits those of these sequences?")
    splits = _splits(len(y), folds, groups, seed)
    additive = np.array([f.kind != "pair" for f in features])
    r2 = [_held_out_r2(design[:, kept], y, splits, penalty, seed) if kept.any() else 0.0
          for kept in (np.ones(len(features), bool), additive)]
    center, scale = design.mean(axis=0), design.std(axis=0)
    z = (design - center) / scale
    alpha = _chosen_penalty(z, y, penalty, seed)
    model = _linear(penalty, alpha).fit(z, y)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_bootstrap):
        rows = rng.integers(0, len(y), len(y))
        drawn.append(_linear(penalty, alpha).fit(z[rows], y[rows]).coef_ / scale)
    low, high = np.quantile(drawn, LIMITS, axis=0) if drawn else np.full((2, len(features)), np.nan)
    coefficient = model.coef_ / scale
    table = pd.DataFrame(features).assign(
        coefficient=coefficient, coefficient_low=low, coefficient_high=high, effect=model.coef_,
        n=(design != 0).sum(axis=0))
    return SyntaxSurrogate(table, float(model.intercept_ - center @ coefficient), r2[0], r2[1], alpha, tuple(features),
                           strength, anchor)


def _features(names: Sequence[str], by_strand: bool, positions: Sequence[int] | None, gaps: Sequence[int] | None,
              by_orientation: bool, by_order: bool) -> list[Feature]:
    for edges, what in ((positions, "positions"), (gaps, "gaps")):
        if edges is not None and (len(edges) < 2 or (np.diff(edges) <= 0).any()):
            raise SchemaError(f"{what} are at least two growing edges, or None; got {list(edges)}")
    out = [Feature("motif", name, strand=strand)
           for name in names for strand in (("+", "-") if by_strand else (None,))]
    if positions is not None:
        out += [Feature("position", name, low=low, high=high)
                for name in names for low, high in pairwise(positions)]
    if gaps is not None:
        out += [Feature("pair", a, b, orientation, order, low, high)
                for i, a in enumerate(names) for b in names[i:]
                for orientation in (ORIENTATIONS if by_orientation else (None,))
                for order in (ORDERS if by_order and a != b else (None,))
                for low, high in pairwise(gaps)]
    return out


def _design(hits: pd.DataFrame, n: int, features: Sequence[Feature], strength: str | None, anchor: int
            ) -> Float[ndarray, "B F"]:
    """Value of every feature in every sequence."""
    check_instances(hits, n)
    region, motif, strand = (hits[c].to_numpy() for c in ("region", "motif", "strand"))
    middle = (hits["start"] + hits["end"]).to_numpy() / 2 - anchor
    weight = np.ones(len(hits)) if strength is None else hits[strength].to_numpy(float)
    known, pairs = set(motif), {}
    out = np.zeros((n, len(features)))
    for k, f in enumerate(features):
        if f.motif_a not in known or (f.kind == "pair" and f.motif_b not in known):
            continue
        if f.kind != "pair":
            kept = motif == f.motif_a
            if f.strand is not None:
                kept = kept & (strand == f.strand)
            if f.kind == "position":
                kept = kept & (middle >= f.low) & (middle < f.high)
            out[:, k] = np.bincount(region[kept], weight[kept], minlength=n)
            continue
        key = (f.motif_a, str(f.motif_b))
        if key not in pairs:
            pairs[key] = find_pairs(hits, *key)
        found = pairs[key]
        kept = (found.gap >= f.low) & (found.gap < f.high)
        if f.strand is not None:
            kept = kept & (found.orientation == ORIENTATIONS.index(f.strand))
        if f.order is not None:
            kept = kept & (found.is_ab == (f.order == "ab"))
        a, b = found.a[kept], found.b[kept]
        out[:, k] = np.bincount(region[a], weight[a] * weight[b], minlength=n)
    return out


def _splits(n: int, folds: int, groups: ndarray | None, seed: int) -> list[tuple[ndarray, ndarray]]:
    if groups is None:
        return list(KFold(folds, shuffle=True, random_state=seed).split(np.empty(n)))
    if len(groups) != n or len(np.unique(groups)) < folds:
        raise SchemaError(f"{n} sequences need {n} groups, of {folds} kinds or more; got {len(groups)} of "
                          f"{len(np.unique(groups))} kinds")
    return list(GroupKFold(folds).split(np.empty(n), groups=groups))


def _linear(penalty: str, alpha: float) -> Ridge | Lasso:
    return Ridge(alpha) if penalty == "ridge" else Lasso(alpha, max_iter=20_000)


def _chosen_penalty(z: ndarray, y: ndarray, penalty: str, seed: int) -> float:
    if penalty == "ridge":
        return np.asarray(RidgeCV(_PENALTIES).fit(z, y).alpha_).item()
    folds = KFold(5, shuffle=True, random_state=seed)
    return np.asarray(LassoCV(cv=folds, max_iter=20_000).fit(z, y).alpha_).item()


def _held_out_r2(design: ndarray, y: ndarray, splits: list[tuple[ndarray, ndarray]], penalty: str, seed: int) -> float:
    predicted = np.empty(len(y))
    for train, test in splits:
        center, scale = design[train].mean(axis=0), np.maximum(design[train].std(axis=0), 1e-12)
        z = (design - center) / scale
        alpha = _chosen_penalty(z[train], y[train], penalty, seed)
        predicted[test] = _linear(penalty, alpha).fit(z[train], y[train]).predict(z[test])
    return _r2(y, predicted)


def _r2(y: ndarray, predicted: ndarray) -> float:
    return float(1 - np.sum((y - predicted) ** 2) / np.sum((y - y.mean()) ** 2))


# One sequence, by its bases


@dataclass(frozen=True, eq=False)
class LocalSurrogate:
    """A fitted picture of one sequence; see `local_surrogate`."""

    attribution: xr.DataArray
    """Additive effects, dims ``(region, base, position, track)``, in units of the readout."""
    pairs: pd.DataFrame
    """``position_a, base_a, position_b, base_b, track, effect``: what two mutations do together beyond the sum of
    both, relative to the wild type; empty for an additive model."""
    r2: Float[ndarray, " T"]
    """Share of the variance of held-out mutants that is explained, for each track."""
    r2_linear: Float[ndarray, " T"]
    """The same without the nonlinearity."""
    curve: pd.DataFrame
    """The nonlinearity: ``track, phi, prediction`` over the range of the mutants."""
    wild_type: UInt8[ndarray, " L"]
    parts: tuple["_Fit", ...]
    window: int

    def predict(self, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."]) -> Float[ndarray, "B T"]:
        """What the surrogate says of mutants of its sequence."""
        codes = codes_of(X)
        if codes.shape[1] != len(self.wild_type):
            raise SchemaError(f"this surrogate is of a sequence of {len(self.wild_type)} bp; got {codes.shape[1]} bp")
        features = _mutations(codes, self.wild_type, self.window)
        return np.stack([part.predict(features) for part in self.parts], axis=1)


class _Fit(NamedTuple):
    """y = curve(φ), φ = features · effects + offset, both for standardized φ."""

    effects: ndarray
    offset: float
    heights: ndarray  # of the sigmoids, not negative
    base: float
    slope: float

    def curve(self, phi: ndarray) -> ndarray:
        return self.base + self.slope * phi + _sigmoids(phi) @ self.heights

    def steepness(self, phi: ndarray) -> ndarray:
        s = _sigmoids(phi)
        return self.slope + (s * (1 - s)) @ (_SHARPNESS * self.heights)

    def predict(self, features: sparse.csr_matrix) -> ndarray:
        return self.curve(features @ self.effects + self.offset)


# of standardized φ: places 0.5 apart, each with a gentle, a middle and a steep sigmoid
_KNOTS, _SHARPNESS = (values.ravel() for values in np.meshgrid(np.linspace(-3, 3, 13), (1.0, 3.0, 9.0)))


def _sigmoids(phi: ndarray) -> ndarray:
    return special.expit(_SHARPNESS * (phi[:, None] - _KNOTS))


def local_surrogate(oracle: Oracle, x: Shaped[Tensor, "..."] | Shaped[ndarray, "..."], *, mutation_rate: float = 0.1,
                    n: int = 10_000, model: str = "additive", window: int = 10,
                    nonlinearity: bool = True, gauge: str = "zero-sum",
                    held_out: float = 0.2, S: Tensor | None = None, covariates: Tensor | None = None, seed: int = 0,
                    batch_size: int = 64, progress: bool = False) -> LocalSurrogate:
    """Explain a model around one sequence: what each base adds, once saturation is accounted for.

    Thousands of random mutants of the sequence are predicted. Then y = g(φ) is fitted: φ adds up one effect for each
    mutated base, and g is a rising curve, so that effects are not blurred by a ceiling or a floor of the model.

    Parameters
    ----------
    oracle
        See `ciscribe.oracle.Oracle`.
    x
        One sequence: codes ``(L,)`` or one-hot ``(4, L)``, or a batch of one.
    mutation_rate
        Chance that a position of a mutant holds another base than the wild type, each of the three alike.
    n
        Number of mutants.
    model
        "additive", or "pairwise": also effects of two mutations at once.
    window
        Largest distance of two positions of a pair, in bp.
    nonlinearity
        False fits y = φ.
    gauge
        Of the additive effects. "wild-type": of a base relative to that of the wild type, which has 0. "zero-sum":
        the same minus their mean over the four bases of a position, so that the wild type's own base shows its
        contribution. Pairs are always relative to the wild type.
    held_out
        Share of the mutants on which `r2` is measured. Half as many more choose the penalty.
    S, covariates
        Of this sequence, one row.
    seed, batch_size, progress
        Of the mutants and folds; as in `Oracle.predict`.

    Returns
    -------
    LocalSurrogate
        Effects are in units of the readout: φ is scaled so that y rises by 1 for 1 of φ, on average over the mutants.

    Raises
    ------
    SchemaError
        For more than one sequence, a rate outside of 0 to 1, or too few mutants.

    References
    ----------
    Seitz et al., Nature Machine Intelligence 6:701 (2024), doi:10.1038/s42256-024-00851-5. Differences:
    ``CARDS["local_surrogate"]``.
    """
    wild_type = _one_sequence(x)
    if not 0 < mutation_rate < 1 or not 0 < held_out < 0.5:
        raise SchemaError("mutation_rate lies between 0 and 1, held_out between 0 and 0.5; got "
                          f"{mutation_rate} and {held_out}")
    if model not in ("additive", "pairwise") or gauge not in ("zero-sum", "wild-type"):
        raise SchemaError("model is additive or pairwise, gauge is zero-sum or wild-type; got "
                          f"{model!r} and {gauge!r}")
    if n < 50:
        raise SchemaError(f"a surrogate needs 50 mutants or more (10,000 are usual); got {n}")
    rng = np.random.default_rng(seed)
    change = (rng.random((n, len(wild_type))) < mutation_rate) & (wild_type < N)
    codes = np.where(change, (wild_type + rng.integers(1, 4, change.shape)) % 4, wild_type).astype(np.uint8)
    codes[0] = wild_type
    extras = [None if value is None else value[:1].expand(n, *value.shape[1:]) for value in (S, covariates)]
    y = oracle.predict(torch.from_numpy(codes), *extras, batch_size=batch_size, progress=progress).numpy().astype(float)
    reach = window if model == "pairwise" else 0
    features = _mutations(codes, wild_type, reach)
    order = rng.permutation(n)
    cuts = (int(n * held_out), int(n * held_out * 1.5))
    rows = (order[cuts[1]:], order[cuts[0]:cuts[1]], order[:cuts[0]])  # fit, choose, judge
    fits = [_fit_track(features, y[:, t], rows, nonlinearity) for t in range(y.shape[1])]
    additive = np.zeros((4, len(wild_type), len(fits)))
    tables, curves = [], []
    columns = _columns_of_pairs(len(wild_type), reach)
    for t, (fit, scale, *_) in enumerate(fits):
        additive[:, :, t] = (fit.effects[:4 * len(wild_type)] * scale).reshape(len(wild_type), 4).T
        if reach:
            there = np.flatnonzero(np.diff(features.tocsc().indptr)[4 * len(wild_type):])
            tables.append(columns.iloc[there].assign(
                track=t, effect=fit.effects[4 * len(wild_type):][there] * scale).reset_index(drop=True))
        phi = features @ fit.effects + fit.offset
        grid = np.linspace(phi.min(), phi.max(), 101)
        curves.append(pd.DataFrame({"track": t, "phi": grid * scale, "prediction": fit.curve(grid)}))
    if gauge == "zero-sum":
        additive -= additive.mean(axis=0)
    additive *= wild_type[None, :, None] < N
    names = ["position_a", "base_a", "position_b", "base_b", "track", "effect"]
    return LocalSurrogate(
        attribution_array(additive[None].astype(np.float32), "local_surrogate", units=str(oracle.readout), model=model,
                          gauge=gauge, mutation_rate=mutation_rate, n=n, seed=seed),
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({name: [] for name in names}),
        np.array([fit[2] for fit in fits]), np.array([fit[3] for fit in fits]), pd.concat(curves, ignore_index=True),
        wild_type, tuple(fit[0] for fit in fits), reach)


def _one_sequence(x: Any) -> UInt8[ndarray, " L"]:
    array = np.asarray(x.detach().cpu().numpy() if isinstance(x, Tensor) else x)
    is_codes = array.dtype.kind in "ui" and not (array.ndim == 2 and len(array) == 4 and array.max(initial=0) <= 1)
    batch = array[None] if array.ndim == 1 or (array.ndim == 2 and not is_codes) else array
    codes = codes_of(batch)
    if len(codes) != 1:
        raise SchemaError(f"a local surrogate is of one sequence; got {len(codes)}; call it for each")
    return codes[0]


def _mutations(codes: UInt8[ndarray, "n L"], wild_type: UInt8[ndarray, " L"], window: int) -> sparse.csr_matrix:
    """Which mutation each sequence has, column 4 · position + base; then pairs, as `_columns_of_pairs` counts them."""
    length = len(wild_type)
    changed = (codes != wild_type) & (codes < N) & (wild_type < N)
    row, position = np.nonzero(changed)
    parts = [sparse.csr_matrix((np.ones(len(row)), (row, 4 * position + codes[row, position])),
                               shape=(len(codes), 4 * length))]
    for distance in range(1, window + 1):
        row, position = np.nonzero(changed[:, :-distance] & changed[:, distance:])
        column = 16 * position + 4 * codes[row, position] + codes[row, position + distance]
        parts.append(sparse.csr_matrix((np.ones(len(row)), (row, column)),
                                       shape=(len(codes), 16 * (length - distance))))
    return sparse.csr_matrix(sparse.hstack(parts))


def _columns_of_pairs(length: int, window: int) -> pd.DataFrame:
    """Positions and bases of the columns of pairs: by distance, position, base of the left, base of the right."""
    blocks = []
    for distance in range(1, window + 1):
        position, a, b = (v.ravel() for v in np.meshgrid(np.arange(length - distance), np.arange(4), np.arange(4),
                                                         indexing="ij"))
        letters = np.array(list(BASES))
        blocks.append(pd.DataFrame({"position_a": position, "base_a": letters[a], "position_b": position + distance,
                                    "base_b": letters[b]}))
    return pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame()


def _fit_track(features: sparse.csr_matrix, y: ndarray, rows: tuple[ndarray, ndarray, ndarray], nonlinearity: bool
               ) -> tuple[_Fit, float, float, float]:
    """The fit, what 1 of its φ is in units of y, and R² with and without the curve."""
    train, choose, judge = rows
    if np.ptp(y) < 1e-12:
        raise SchemaError("all mutants have the same prediction, so there is nothing to explain; does the model see "
                          "this part of the sequence?")
    errors = []
    for alpha in _LOCAL_PENALTIES:
        ridge = _ridge(features[train], y[train], alpha)
        errors.append(np.mean((ridge.predict(features[choose]) - y[choose]) ** 2))
    alpha = float(_LOCAL_PENALTIES[int(np.argmin(errors))])
    both = np.concatenate([train, choose])
    ridge = _ridge(features[both], y[both], alpha)
    linear = _Fit(ridge.coef_, float(ridge.intercept_), np.zeros(len(_KNOTS)), 0.0, 1.0)
    r2_linear = _r2(y[judge], linear.predict(features[judge]))
    if not nonlinearity:
        return linear, 1.0, r2_linear, r2_linear
    fit = _alternate(features[train], y[train], features[choose], y[choose], linear, alpha)
    phi = features @ fit.effects + fit.offset
    scale = float(np.polyfit(phi, y, 1)[0])
    return fit, scale, _r2(y[judge], fit.predict(features[judge])), r2_linear


def _ridge(features: sparse.csr_matrix, y: ndarray, alpha: float, weight: ndarray | None = None) -> Ridge:
    return Ridge(alpha, solver="sparse_cg", tol=1e-6).fit(features, y, sample_weight=weight)


def _alternate(features: sparse.csr_matrix, y: ndarray, held: sparse.csr_matrix, y_held: ndarray, start: _Fit,
               alpha: float) -> _Fit:
    """Fit the curve for given effects, then the effects for the given curve (Gauss-Newton), and so on; then both.

    The fit that is best on the held rows wins, so that turns that only follow noise do no harm.
    """
    effects, offset, fits = start.effects, start.offset, [start]
    for _ in range(_ROUNDS):
        phi = features @ effects + offset
        center, spread = phi.mean(), max(phi.std(), 1e-12)  # the gauge of φ: mean 0, standard deviation 1
        effects, offset = effects / spread, (offset - center) / spread
        phi = (phi - center) / spread
        fits.append(_fit_curve(phi, y, effects, offset))
        slope = np.maximum(fits[-1].steepness(phi), 1e-3 * y.std())
        target = phi + np.clip((y - fits[-1].curve(phi)) / slope, -3, 3)
        ridge = _ridge(features, target, alpha, slope**2 / np.mean(slope**2))
        effects, offset = ridge.coef_, float(ridge.intercept_)
    # turns get near quickly and then crawl, because a bend of the curve and a change of φ can stand for each other
    best = min(fits[1:], key=lambda fit: np.mean((fit.predict(features) - y) ** 2))
    fits.append(_fit_jointly(features, y, best, alpha))
    return min(fits, key=lambda fit: np.mean((fit.predict(held) - y_held) ** 2))


def _fit_jointly(features: sparse.csr_matrix, y: ndarray, start: _Fit, alpha: float) -> _Fit:
    """Effects and curve at once, downhill from a good start."""
    n_effects, n_sigmoids = len(start.effects), len(start.heights)
    unit = float(y.std())
    stiffness = alpha * float(np.mean(start.steepness(features @ start.effects + start.offset) ** 2)) / unit**2

    def unpack(p: ndarray) -> _Fit:
        curve = p[n_effects + 1:] * unit
        return _Fit(p[:n_effects], p[n_effects], curve[2:], curve[0], curve[1])

    def loss(p: ndarray) -> tuple[float, ndarray]:
        fit = unpack(p)
        phi = features @ fit.effects + fit.offset
        rest = (fit.curve(phi) - y) / unit
        back = rest * fit.steepness(phi) / unit
        gradient = np.concatenate([features.T @ back + stiffness * fit.effects, [back.sum()],
                                   [rest.sum(), rest @ phi], rest @ _sigmoids(phi)])
        return 0.5 * float(rest @ rest + stiffness * fit.effects @ fit.effects), gradient

    first = np.concatenate([start.effects, [start.offset], np.r_[start.base, start.slope, start.heights] / unit])
    limits = [(None, None)] * (n_effects + 2) + [(0, None)] * (1 + n_sigmoids)
    return unpack(optimize.minimize(loss, first, jac=True, method="L-BFGS-B", bounds=limits,
                                    options={"maxiter": _STEPS}).x)


def _fit_curve(phi: ndarray, y: ndarray, effects: ndarray, offset: float) -> _Fit:
    design = np.column_stack([np.ones_like(phi), phi, _sigmoids(phi)])
    low = np.zeros(design.shape[1])
    low[0] = -np.inf
    # a little ridge keeps knots that no mutant reaches at 0
    guard = np.diag(np.r_[0, np.full(design.shape[1] - 1, 1e-3 * np.sqrt(len(y)))])
    found = optimize.lsq_linear(np.vstack([design, guard]), np.r_[y, np.zeros(len(guard))], (low, np.inf)).x
    return _Fit(effects, offset, found[2:], float(found[0]), float(found[1]))


# Two factors, by their binding


@dataclass(frozen=True, eq=False)
class TwoFactorOccupancy:
    """Two factors on one piece of DNA; see `two_factor_occupancy`."""

    omega: float
    """Cooperativity: how many times likelier the two are found together than if they ignored each other; 1 is none,
    below 1 they exclude each other."""
    omega_low: float
    omega_high: float
    """95 % interval, from the curvature of the fit."""
    coefficients: pd.DataFrame
    """``name, value, se``: ``log_scale``, ``offset_a, slope_a, offset_b, slope_b`` (energy = offset + slope ·
    strength) and ``log_omega``, in natural logarithms."""
    r2: float
    bound: str

    def predict(self, strength_a: Float[ndarray, " n"], strength_b: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Log expression (natural) for strengths of the two motifs."""
        return _log_expression(self.coefficients["value"].to_numpy(float), strength_a, strength_b, self.bound)


def two_factor_occupancy(strength_a: Float[ndarray, " n"], strength_b: Float[ndarray, " n"],
                         log_expression: Float[ndarray, " n"], *, bound: str = "any",
                         n_starts: int = 5, seed: int = 0) -> TwoFactorOccupancy:
    """How much two factors help each other to bind, read from expression and the strengths of their motifs.

    With weights w = exp(energy) of the states "A bound" and "B bound" against "empty", and ω · w_A · w_B of "both",
    the partition function is Z = 1 + w_A + w_B + ω w_A w_B, and log expression = log_scale + log P(bound). Energies
    rise linearly with the strength of the motif; without that sign, a helper and a hinderer could not be told apart
    where expression needs "b".

    Parameters
    ----------
    strength_a, strength_b
        Strength of the (best) site of each motif in every sequence, e.g. log-odds scores; finite, also where nothing
        was called.
    log_expression
        Natural logarithm.
    bound
        What expression needs: "any" factor, "both", or "b" (a polymerase, say, which A recruits).
    n_starts, seed
        Random starts of the optimization; the best end counts.

    Returns
    -------
    TwoFactorOccupancy

    Raises
    ------
    SchemaError
        For lengths that differ, fewer than 12 sequences, numbers that are not finite, or a strength that does not
        vary.

    References
    ----------
    Bintu et al., Current Opinion in Genetics & Development 15:116 (2005), doi:10.1016/j.gde.2005.02.007.
    """
    a, b, y = (np.asarray(v, float) for v in (strength_a, strength_b, log_expression))
    if not len(a) == len(b) == len(y) or len(y) < 12:
        raise SchemaError("strengths and expression are of the same sequences, 12 or more; got "
                          f"{len(a)}, {len(b)} and {len(y)}")
    for values, name in ((a, "strength_a"), (b, "strength_b"), (y, "log_expression")):
        if not np.isfinite(values).all() or values.std() == 0:
            raise SchemaError(f"{name} must be finite and vary; {int((~np.isfinite(values)).sum())} of {len(values)} "
                              "are not finite; give the best score also where no site was called")
    if bound not in ("any", "both", "b"):
        raise SchemaError(f"bound is any, both or b; got {bound!r}")
    # fitted on standardized strengths, then turned back
    move = np.array([a.mean(), b.mean()])
    scale = np.array([a.std(), b.std()])
    za, zb = (a - move[0]) / scale[0], (b - move[1]) / scale[1]
    rng = np.random.default_rng(seed)
    best = None
    for i in range(n_starts):
        start = np.array([y.max(), 0, 1, 0, 1, 0.0]) + (rng.uniform(-0.9, 0.9, 6) if i else 0)
        found = optimize.least_squares(lambda p: _log_expression(p, za, zb, bound) - y, start, x_scale="jac",
                                       bounds=([-60, -60, 0, -60, 0, -60], 60))
        if best is None or found.cost < best.cost:
            best = found
    if best is None:
        raise SchemaError(f"n_starts is at least 1; got {n_starts}")
    turn = np.eye(6)
    for offset, m, s in ((1, *(move[0], scale[0])), (3, *(move[1], scale[1]))):
        turn[offset, offset + 1], turn[offset + 1, offset + 1] = -m / s, 1 / s
    values = turn @ best.x
    variance = 2 * best.cost / max(len(y) - 6, 1)
    covariance = turn @ np.linalg.pinv(best.jac.T @ best.jac) @ turn.T * variance
    se = np.sqrt(np.diag(covariance))
    names = ["log_scale", "offset_a", "slope_a", "offset_b", "slope_b", "log_omega"]
    low, high = np.exp(np.clip(values[5] + np.array([-1.96, 1.96]) * se[5], -700, 700))
    return TwoFactorOccupancy(float(np.exp(values[5])), float(low), float(high),
                              pd.DataFrame({"name": names, "value": values, "se": se}),
                              _r2(y, _log_expression(best.x, za, zb, bound)), bound)


def _log_expression(p: ndarray, a: ndarray, b: ndarray, bound: str) -> ndarray:
    scale, offset_a, slope_a, offset_b, slope_b, log_omega = p
    energy_a, energy_b = offset_a + slope_a * a, offset_b + slope_b * b
    both = energy_a + energy_b + log_omega
    states = {"any": (energy_a, energy_b, both), "both": (both,), "b": (energy_b, both)}[bound]
    empty = np.zeros_like(energy_a)
    return (scale + special.logsumexp(np.stack(states), axis=0)
            - special.logsumexp(np.stack([empty, energy_a, energy_b, both]), axis=0))
