"""What the sequences show: how number, position, order, orientation and spacing of motifs go with activity.

Everything here starts from hits of motifs and the activity (or prediction) of each sequence. The sequences were not
drawn to answer us: motifs that go together are confounded, which `ciscribe.interpret.surrogate` takes apart in part,
and asking a model (`ciscribe.interpret.syntax`) in full.

Tables are long; a figure is always ``mean, sd, low, high, n``, in units of the activity, with a 95 % band from a
bootstrap over sequences. Differences are *with minus without*. P-values are two-sided unless said otherwise, and
``q_value`` is Benjamini & Hochberg's over the rows of its table.

Order ``ab`` has A before B from left to right. Orientation names the strand of A, then that of B, as they stand in
the sequence. A gap counts the bases between the two, 0 where they touch.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray
from scipy import stats

from ciscribe.errors import SchemaError, UnknownNameError, nearest

INSTANCE_COLUMNS = ("region", "start", "end", "strand", "motif")
ORIENTATIONS = ("++", "+-", "-+", "--")
ORDERS = ("ab", "ba")
LIMITS = (0.025, 0.975)
"""Quantiles between which a band lies."""

_FIGURE = ["mean", "sd", "low", "high", "n"]


class Pairs(NamedTuple):
    """Pairs of hits that stand in one sequence and do not overlap."""

    a: Int[ndarray, " n"]
    """Row of the hit of A."""
    b: Int[ndarray, " n"]
    is_ab: Bool[ndarray, " n"]
    """Whether A comes first."""
    orientation: Int[ndarray, " n"]
    """Index into `ORIENTATIONS`."""
    gap: Int[ndarray, " n"]


def check_instances(hits: pd.DataFrame, n_regions: int | None = None) -> None:
    """Raise SchemaError unless `hits` are instances of motifs in sequences: hits of which only the place counts.

    Parameters
    ----------
    hits
        ``region`` (row of the sequences), ``start, end`` (within it, 0-based half-open), ``strand`` (+ or -) and
        ``motif``.
    n_regions
        Number of sequences; not checked when None.
    """
    missing = [c for c in INSTANCE_COLUMNS if c not in hits.columns]
    if missing:
        raise SchemaError(f"hits need the columns {', '.join(INSTANCE_COLUMNS)}; missing: {', '.join(missing)}")
    region, start, end, strand, _ = _columns(hits)
    if not all(values.dtype.kind in "iu" for values in (region, start, end)):
        raise SchemaError("region, start and end of hits are whole numbers; got "
                          f"{region.dtype}, {start.dtype} and {end.dtype}")
    beyond = np.inf if n_regions is None else n_regions
    for bad, fault in (((region < 0) | (region >= beyond), f"lie in no sequence (there are {n_regions})"),
                       ((start < 0) | (start >= end), "do not have 0 ≤ start < end"),
                       (~np.isin(strand, ["+", "-"]), "have a strand other than + and -")):
        if bad.any():
            first = hits.iloc[int(bad.argmax())]
            raise SchemaError(f"{int(bad.sum()):,} of {len(hits):,} hits {fault}; first: {first['motif']} in region "
                              f"{first['region']}, {first['start']} to {first['end']}, strand {first['strand']}")


def find_pairs(hits: pd.DataFrame, motif_a: str, motif_b: str, *, stranded: bool = True) -> Pairs:
    """Every instance of one motif with every instance of another in the same sequence.

    Parameters
    ----------
    hits
        See `check_instances`.
    motif_a, motif_b
        Two names. The same name twice gives each pair once, the left one as A.
    stranded
        False turns pairs so that A is on the + strand (of the same name twice: ``--`` becomes ``++``).
    """
    region, start, end, strand, motif = _columns(hits)
    _known(motif, [motif_a, motif_b])
    a, b = np.flatnonzero(motif == motif_a), np.flatnonzero(motif == motif_b)
    i, j = _join(region[a], region[b])
    return _geometry(a[i], b[j], start, end, strand == "+", motif_a == motif_b, stranded)


def number_response(hits: pd.DataFrame, y: Float[ndarray, " B"], *, motifs: Sequence[str] | None = None,
                    max_count: int = 5, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Activity of sequences with 0, 1, 2 … instances of a motif.

    Parameters
    ----------
    hits
        See `check_instances`.
    y
        Measured or predicted activity of every sequence, by its row.
    motifs
        Those to look at; all in `hits` unless given.
    max_count
        Sequences with more instances are counted here.
    n_bootstrap, seed
        Resamples of the sequences behind each mean.

    Returns
    -------
    DataFrame
        ``motif, count, mean, sd, low, high, n``; `n` sequences, counts that none has left out.
    """
    rows = [{"motif": motif, "count": int(count), **_figure(y[clipped == count], n_bootstrap, seed)}
            for motif, counts in _counts(hits, y, motifs).items()
            for clipped in (np.minimum(counts, max_count),) for count in np.unique(clipped)]
    return pd.DataFrame(rows)


def number_shape(hits: pd.DataFrame, y: Float[ndarray, " B"], *, motifs: Sequence[str] | None = None,
                 max_count: int = 5, alpha: float = 0.05) -> pd.DataFrame:
    """Whether more instances of a motif do more: in proportion, with diminishing, or with growing returns.

    Fits activity = a + Σ slope · count, and the same + Σ curvature · count², over all motifs at once by least squares,
    so that motifs that tend to go together are told apart.

    Parameters
    ----------
    hits, y, motifs, max_count
        As in `number_response`.
    alpha
        False discovery rate of a verdict.

    Returns
    -------
    DataFrame
        ``motif, slope`` (of the straight line), ``curvature, p_slope, q_slope, p_curvature, q_curvature, n, shape``:
        "none", "additive" (a line), "saturating" (bends against the slope) or "synergistic" (with it). Curvature is
        NaN where sequences hold at most two different numbers of instances.
    """
    every = _counts(hits, y, motifs)
    count = np.minimum(np.stack(list(every.values()), axis=1), max_count).astype(float)
    n_levels = np.array([len(np.unique(column)) for column in count.T])
    bent = n_levels > 2
    slope, p_slope = (v[1:] for v in _least_squares(np.column_stack([np.ones(len(y)), count]), y))
    squares = _least_squares(np.column_stack([np.ones(len(y)), count, count[:, bent] ** 2]), y)
    curvature, p_curvature = (np.full(len(every), np.nan) for _ in range(2))
    curvature[bent], p_curvature[bent] = (v[1 + len(every):] for v in squares)
    q_slope, q_curvature = q_values(p_slope), q_values(p_curvature)
    bends, against = q_curvature <= alpha, np.sign(curvature) != np.sign(slope)
    shape = np.select([bends & against, bends, q_slope <= alpha], ["saturating", "synergistic", "additive"], "none")
    return pd.DataFrame({"motif": list(every), "slope": slope, "curvature": curvature, "p_slope": p_slope,
                         "q_slope": q_slope, "p_curvature": p_curvature, "q_curvature": q_curvature, "n": len(y),
                         "shape": shape})


def position_effect(hits: pd.DataFrame, y: Float[ndarray, " B"], edges: Sequence[int], *,
                    motifs: Sequence[str] | None = None, anchor: int = 0, by_strand: bool = False,
                    n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Effect of a motif by where it lies, e.g. relative to the TSS.

    The effect in a bin is the mean activity of sequences with an instance there minus that of sequences without the
    motif anywhere.

    Parameters
    ----------
    hits, y, motifs, n_bootstrap, seed
        As in `number_response`; both groups are resampled.
    edges
        Edges of the bins in bp from `anchor`, at least two; a hit belongs to the bin of its center.
    anchor
        Position of the sequence that counts as 0.
    by_strand
        Look at the two strands apart; `strand` is "." otherwise.

    Returns
    -------
    DataFrame
        ``motif, strand, position`` (center of the bin, from `anchor`), ``left, right, mean, sd, low, high, n,
        p_value`` (Welch's t), ``q_value``. NaN where there are fewer than two sequences on either side.
    """
    bounds = np.asarray(edges, float)
    if len(bounds) < 2 or (np.diff(bounds) <= 0).any():
        raise SchemaError(f"edges are at least two growing positions; got {list(edges)}")
    every = _counts(hits, y, motifs)
    region, start, end, strand, motif = _columns(hits)
    bin_ = np.searchsorted(bounds, (start + end) / 2 - anchor, side="right") - 1
    rows = []
    for name, counts in every.items():
        for side in ("+", "-") if by_strand else (".",):
            mine = (motif == name) & ((strand == side) | (side == "."))
            for i, (left, right) in enumerate(pairwise(bounds)):
                here = np.unique(region[mine & (bin_ == i)])
                rows.append({"motif": name, "strand": side, "position": (left + right) / 2, "left": left,
                             "right": right, **_difference(y[here], y[counts == 0], n_bootstrap, seed)})
    return with_q(pd.DataFrame(rows))


def pair_effect(hits: pd.DataFrame, motif_a: str, motif_b: str, y: Float[ndarray, " B"], *, max_gap: int = 100,
                n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Whether the order and the orientation of two motifs matter.

    Parameters
    ----------
    hits, y, n_bootstrap, seed
        As in `number_response`.
    motif_a, motif_b
        Two names; may be the same.
    max_gap
        Pairs farther apart are not counted, in bp; overlapping hits are none.

    Returns
    -------
    DataFrame
        ``order, orientation, pairs, expected, p_pairs, q_pairs, mean, sd, low, high, n, p_value, q_value``.
        `pairs` is against what independent strands and either order would give (binomial test, pairs taken for
        independent). `mean` is the activity of the `n` sequences with such a pair minus that of the sequences with
        other pairs of the two only (Welch's t). Two of the same motif have the order ``ab`` only.
    """
    _counts(hits, y, [motif_a, motif_b])
    pairs = _near(find_pairs(hits, motif_a, motif_b), max_gap)
    region = hits["region"].to_numpy()[pairs.a]
    is_plus = np.stack([pairs.orientation < 2, pairs.orientation % 2 == 0])  # of A, of B
    forward = is_plus.mean(axis=1) if len(pairs.gap) else np.full(2, 0.5)
    orders = ORDERS[:1] if motif_a == motif_b else ORDERS
    rows = []
    for order in orders:
        for i, orientation in enumerate(ORIENTATIONS):
            these = (pairs.is_ab == (order == "ab")) & (pairs.orientation == i)
            share = float(np.prod(np.where([s == "+" for s in orientation], forward, 1 - forward))) / len(orders)
            n = int(these.sum())
            test = stats.binomtest(n, len(these), share).pvalue if len(these) else np.nan
            here = np.unique(region[these])
            rows.append({"order": order, "orientation": orientation, "pairs": n, "expected": share * len(these),
                         "p_pairs": test, **_difference(y[here], y[np.setdiff1d(region, here)], n_bootstrap, seed)})
    table = with_q(pd.DataFrame(rows))
    table.insert(5, "q_pairs", q_values(table["p_pairs"].to_numpy()))
    return table


def observed_spacing(hits: pd.DataFrame, motif_a: str, motif_b: str, *, max_gap: int = 100,
                     length: int | None = None, null: str = "positions",
                     stranded: bool = True, n_permutations: int = 200, seed: int = 0) -> pd.DataFrame:
    """How often two motifs lie at each distance from each other, against what chance would give.

    Parameters
    ----------
    hits
        See `check_instances`.
    motif_a, motif_b, stranded
        As in `find_pairs`. Sequences without a direction are looked at with ``stranded=False``.
    max_gap
        Largest gap in bp. Overlapping hits are not counted.
    length
        Of the sequences, in bp; the largest end of any hit unless given. Used by the null "positions".
    null
        "positions" puts every hit of B (of both, if they are the same motif) at a random place of its own sequence.
        "regions" takes A from one sequence with hits and B from another: what is left over is more than both motifs
        having a preferred place.
    n_permutations, seed
        Of the null.

    Returns
    -------
    DataFrame
        ``order, orientation, gap, count, expected, low, high`` (95 % of permutations), ``n`` (pairs of this order
        and orientation up to `max_gap`), ``p_value`` (one-sided, for more than expected: negative binomial with the
        mean and variance of the permutations), ``q_value``.
    """
    check_instances(hits)
    if null not in ("positions", "regions"):
        raise SchemaError(f"null is positions or regions; got {null!r}")
    region, start, end, strand, motif = _columns(hits)
    _known(motif, [motif_a, motif_b])
    length = int(end.max()) if length is None else length
    if (end > length).any():
        raise SchemaError(f"{int((end > length).sum()):,} of {len(hits):,} hits end beyond the length of {length} bp")
    a, b = np.flatnonzero(motif == motif_a), np.flatnonzero(motif == motif_b)
    same, plus, moves = motif_a == motif_b, strand == "+", motif == motif_b
    i, j = _join(region[a], region[b])
    rng = np.random.default_rng(seed)
    names, codes = np.unique(region, return_inverse=True)

    def histogram(i: ndarray, j: ndarray, start: ndarray, end: ndarray) -> ndarray:
        pairs = _near(_geometry(a[i], b[j], start, end, plus, same, stranded), max_gap)
        kind = 4 * ~pairs.is_ab + pairs.orientation
        return np.bincount(kind * (max_gap + 1) + pairs.gap, minlength=8 * (max_gap + 1))

    def by_chance() -> ndarray:
        if null == "positions":
            moved = np.where(moves, rng.integers(0, length - (end - start) + 1), start)
            return histogram(i, j, moved, moved + end - start)
        partner = rng.permutation(len(names))
        return histogram(*_join(partner[codes[a]], codes[b]), start, end)

    counts = histogram(i, j, start, end)
    chance = np.stack([by_chance() for _ in range(n_permutations)])
    low, high = np.quantile(chance, LIMITS, axis=0)
    order, orientation, gap = (values.ravel() for values in np.meshgrid(ORDERS, ORIENTATIONS, np.arange(max_gap + 1),
                                                                        indexing="ij"))
    table = pd.DataFrame({"order": order, "orientation": orientation, "gap": gap, "count": counts,
                          "expected": chance.mean(axis=0), "low": low, "high": high,
                          "n": np.repeat(counts.reshape(8, -1).sum(axis=1), max_gap + 1),
                          "p_value": _more_than(counts, chance)})
    possible = ORIENTATIONS if stranded else ORIENTATIONS[:3 if same else 2]
    kept = np.isin(orientation, possible) & np.isin(order, ORDERS[:1] if same else ORDERS)
    return with_q(table.loc[kept].reset_index(drop=True))


def bootstrap_band(values: Float[ndarray, "n ..."], n_bootstrap: int = 1000, seed: int = 0) -> tuple[Any, Any]:
    """Low and high limit of the mean over the first axis, the same resamples for all of the rest."""
    n = len(values)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_bootstrap) / n
    low, high = np.quantile(drawn @ values.reshape(n, -1), LIMITS, axis=0).reshape(2, *values.shape[1:])
    return low, high


def q_values(p: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Benjamini & Hochberg's q-values; NaN stays NaN and is no test.

    References
    ----------
    Benjamini & Hochberg, J R Stat Soc B 57:289 (1995), doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    q = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested])
    return q


def with_q(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column ``q_value`` made from its ``p_value``."""
    return table.assign(q_value=q_values(table["p_value"].to_numpy(float)))


def _columns(hits: pd.DataFrame) -> tuple[ndarray, ...]:
    return tuple(hits[column].to_numpy() for column in INSTANCE_COLUMNS)


def _known(there: ndarray, motifs: Iterable[str]) -> None:
    for motif in motifs:
        if not (there == motif).any():
            raise UnknownNameError(f"no hit is of the motif {motif!r}; {nearest(motif, set(there.astype(str)))}")


def _counts(hits: pd.DataFrame, y: ndarray, motifs: Sequence[str] | None) -> dict[str, ndarray]:
    """Instances of each motif in every sequence, after checking hits and activities."""
    check_instances(hits, len(y))
    bad = ~np.isfinite(y)
    if bad.any():
        raise SchemaError(f"{int(bad.sum()):,} of {len(y):,} activities are NaN or infinite; first: row "
                          f"{int(bad.argmax())}; leave those sequences out")
    region, *_, motif = _columns(hits)
    names = sorted(set(motif)) if motifs is None else list(motifs)
    _known(motif, names)
    return {name: np.bincount(region[motif == name], minlength=len(y)) for name in names}


def _join(region_a: ndarray, region_b: ndarray) -> tuple[ndarray, ndarray]:
    """Indices of all pairs of equal regions."""
    order = np.argsort(region_b, kind="stable")
    first, last = (np.searchsorted(region_b[order], region_a, side=side) for side in ("left", "right"))
    n = last - first
    i = np.repeat(np.arange(len(region_a)), n)
    within = np.arange(len(i)) - np.repeat(np.cumsum(n) - n, n)
    return i, order[np.repeat(first, n) + within]


def _geometry(a: ndarray, b: ndarray, start: ndarray, end: ndarray, plus: ndarray, same: bool, stranded: bool
              ) -> Pairs:
    """How the pairs of hits `a` and `b` stand to each other; overlapping ones are left out."""
    if same:  # each pair once, A the left one
        a, b = a[a < b], b[a < b]
        swap = start[b] < start[a]
        a, b = np.where(swap, b, a), np.where(swap, a, b)
    is_ab = start[a] <= start[b]
    gap = np.where(is_ab, start[b] - end[a], start[a] - end[b])
    plus_a, plus_b = plus[a], plus[b]
    if not stranded:
        turned = ~plus_a & ~plus_b if same else ~plus_a
        plus_a, plus_b = plus_a ^ turned, plus_b ^ turned
        is_ab = is_ab if same else is_ab ^ turned
    apart = gap >= 0
    return Pairs(a[apart], b[apart], is_ab[apart], (2 * ~plus_a + ~plus_b)[apart], gap[apart])


def _near(pairs: Pairs, max_gap: int) -> Pairs:
    near = pairs.gap <= max_gap
    return Pairs(*(values[near] for values in pairs))


def _figure(values: ndarray, n_bootstrap: int, seed: int) -> dict[str, float]:
    low, high = bootstrap_band(values, n_bootstrap, seed)
    sd = values.std(ddof=1) if len(values) > 1 else np.nan
    return dict(zip(_FIGURE, (values.mean(), sd, low, high, len(values)), strict=True))


def _difference(values: ndarray, others: ndarray, n_bootstrap: int, seed: int) -> dict[str, float]:
    """Mean of one group minus that of another, with a band from resampling both, and Welch's p-value."""
    if min(len(values), len(others)) < 2:
        return dict.fromkeys(_FIGURE, np.nan) | {"n": len(values), "p_value": np.nan}
    rng = np.random.default_rng(seed)
    means = [rng.multinomial(len(v), np.full(len(v), 1 / len(v)), size=n_bootstrap) @ v / len(v)
             for v in (values, others)]
    low, high = np.quantile(means[0] - means[1], LIMITS)
    mean, sds = values.mean() - others.mean(), (values.std(ddof=1), others.std(ddof=1))
    p = stats.ttest_ind_from_stats(values.mean(), sds[0], len(values), others.mean(), max(sds[1], 1e-12), len(others),
                                   equal_var=False)[1]
    return dict(zip(_FIGURE, (mean, sds[0], low, high, len(values)), strict=True)) | {"p_value": p}


def _least_squares(design: ndarray, y: ndarray) -> tuple[ndarray, ndarray]:
    """Coefficients and their p-values; NaN where there are no more rows than coefficients."""
    inverse = np.linalg.pinv(design)
    coefficients = inverse @ y
    freedom = len(y) - design.shape[1]
    if freedom < 1:
        return coefficients, np.full(len(coefficients), np.nan)
    rest = y - design @ coefficients
    error = np.sqrt((inverse**2).sum(axis=1) * (rest @ rest) / freedom)
    return coefficients, 2 * stats.t.sf(np.abs(coefficients) / np.maximum(error, 1e-12), freedom)


def _more_than(counts: Int[ndarray, " k"], chance: Shaped[ndarray, "n k"]) -> Float[ndarray, " k"]:
    """Chance of counts as large: negative binomial where permutations vary more than a Poisson, else Poisson."""
    mean = np.maximum(chance.mean(axis=0), 1 / len(chance))
    variance = np.maximum(chance.var(axis=0), mean * (1 + 1e-6))
    return stats.nbinom.sf(counts - 1, mean**2 / (variance - mean), mean / variance)
