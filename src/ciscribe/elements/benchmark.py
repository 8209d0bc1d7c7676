"""How good called elements are: against a truth table at equal base pairs, and through the model itself.

Callers differ in how much of the genome they call, and calling more finds more. So every method here is read
from its best call downward and stopped at the same number of base pairs (`benchmark_calls`) or element–gene
pairs (`benchmark_links`), beside a random and a shuffled control. `sufficiency_necessity` needs no truth: it
asks how well the model does with only the best bins, and how much is lost without them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from rich.progress import track as progress_bar
from torch import Tensor

from ciscribe.card import Card
from ciscribe.elements.call import MaskedOracle, claim
from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.intervals import merge, region_id
from ciscribe.schema import check_intervals

CARD = Card(
    name="equal-bp",
    kind="benchmark",
    summary="Ranks the calls of every method by score, stops each at the same number of base pairs, and "
            "compares them with the truth base by base.",
    paper="own; average precision as in Davis & Goadrich, ICML 2006, doi:10.1145/1143844.1143874",
)

MAX_POINTS = 1_000  # a curve is for the eye; areas are computed from every call


@dataclass(frozen=True)
class CallBenchmark:
    """Result of a benchmark of calls against a truth.

    Parameters
    ----------
    table
        One row a method: ``method, control, auprc, auprc_full, precision, recall, f1, called_bp, total_bp,
        budget_bp``. `control` marks the random and shuffled rows; ``called_bp`` is what was used of the
        budget and ``total_bp`` what the method calls in all. A benchmark of links counts pairs:
        ``called_pairs`` and so on.
    curves
        ``method, bp, precision, recall`` (or ``pairs``) along the whole ranking, at most 1,000 points a
        method.
    budget, truth, universe
        Base pairs (or pairs) that each method may call, that are true, and that were evaluated.
    card
        How it was measured.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    budget: int
    truth: int
    universe: int
    card: Card = field(default=CARD)

    @property
    def prevalence(self) -> float:
        """Fraction of the universe that is true: the precision of a random call."""
        return self.truth / self.universe


def benchmark_calls(methods: Mapping[str, pd.DataFrame], truth: pd.DataFrame, universe: pd.DataFrame, *,
                    budget_bp: int | None = None, control_of: str | None = None,
                    seed: int = 0) -> CallBenchmark:
    """Compare called intervals with true elements, base by base, at equal called base pairs.

    Calls are cut to the universe. A base that several calls of one method cover belongs to the best of them.
    Calls are ranked by score (ties in random order) and accumulated until the budget is full; the call that
    crosses it counts in part, with its own precision. After each call precision = true bp / called bp and
    recall = true bp called / all true bp. The area is the average precision, Σ (recall step × precision after
    it).

    Parameters
    ----------
    methods
        Intervals with a finite ``score`` (higher is better), per method.
    truth
        True elements; base pairs outside the universe do not count.
    universe
        What was evaluated, e.g. the windows of the test genes. May overlap; the union counts.
    budget_bp
        Base pairs that each method may call; None takes the true base pairs of the universe.
    control_of
        Method whose calls the two controls imitate; None takes the first.
    seed
        For ties and controls.

    Returns
    -------
    CallBenchmark
        ``auprc`` is cut at the budget: a perfect caller reaches ``min(1, budget / truth)``, and no method
        gains by calling more. ``auprc_full`` uses the whole ranking; truth that is never called is never
        recalled. Controls: ``random``, intervals of the same lengths and scores placed uniformly where they
        fit in the universe (cut where none fits); ``shuffled``, the same intervals with permuted scores.

    Raises
    ------
    SchemaError
        If a method has no ``score`` or a score that is not finite, or no true base lies in the universe.
    UnknownNameError
        If `control_of` is not a method.

    Examples
    --------
    >>> frame = lambda *rows: pd.DataFrame(rows, columns=["chrom", "start", "end", "score"])
    >>> truth, universe = frame(("chr1", 10, 20, 1.0)), frame(("chr1", 0, 100, 1.0))
    >>> result = benchmark_calls({"half": frame(("chr1", 15, 25, 1.0))}, truth, universe)
    >>> float(result.table.loc[0, "precision"]), float(result.table.loc[0, "recall"])
    (0.5, 0.5)
    """
    check_intervals(truth, name="truth")
    check_intervals(universe, name="universe")
    for name, calls in methods.items():
        check_intervals(calls, name=f"calls of {name}")
        _check_score(calls, name)
    control_of = _control(methods, control_of)
    axis = _Axis(universe, truth)
    if not axis.truth_bp:
        raise SchemaError(f"the truth must cover some of the universe; none of its {len(truth):,} intervals "
                          f"lies in the {axis.universe_bp:,} bp evaluated; check names and windows")
    budget = axis.truth_bp if budget_bp is None else budget_bp
    rng = np.random.default_rng(seed)
    ranked = {}
    for name, calls in methods.items():
        ranked[name] = axis.rank(*axis.locate(calls), rng)
    start, end, score = axis.locate(methods[control_of])
    shuffled = axis.rank(start, end, rng.permutation(score), rng)
    ranked |= {"random": axis.rank(*axis.scatter(end - start, rng), score, rng), "shuffled": shuffled}
    return summarize_ranking(ranked, set(methods), budget, axis.truth_bp, axis.universe_bp, "bp")


def benchmark_links(methods: Mapping[str, pd.DataFrame], truth: pd.DataFrame, *,
                    budget_pairs: int | None = None, control_of: str | None = None,
                    seed: int = 0) -> CallBenchmark:
    """Compare called element–gene pairs with tested pairs, at equal numbers of pairs.

    A tested pair takes the best score of the calls that overlap it by 1 bp or more and name its gene; a pair
    without any is not called. Ranking, budget, areas and controls are those of `benchmark_calls`, a pair in
    place of a base.

    Parameters
    ----------
    methods
        Intervals with ``gene_id`` and a finite ``score``, per method. Choose the cell before.
    truth
        Tested pairs: intervals with ``gene_id`` and ``label`` (True or 1: the element drives the gene).
    budget_pairs
        Pairs that each method may call; None takes the number of true pairs.
    control_of, seed
        As in `benchmark_calls`; ``random`` gives the scores to pairs drawn from all tested ones.

    Returns
    -------
    CallBenchmark
        With columns ``called_pairs``, ``total_pairs`` and ``budget_pairs``.

    Raises
    ------
    SchemaError
        If a column is missing, a score is not finite, a pair repeats, or no pair is true.
    """
    check_intervals(truth, name="truth")
    for column in ("gene_id", "label"):
        if column not in truth.columns:
            raise SchemaError(f"tested pairs need the columns chrom, start, end, gene_id, label; got "
                              f"{', '.join(map(str, truth.columns))}")
    repeats = truth.duplicated(["chrom", "start", "end", "gene_id"])
    if repeats.any():
        i = int(repeats.to_numpy().argmax())
        raise SchemaError(f"each tested pair is one row; {int(repeats.sum()):,} of {len(truth):,} repeat; "
                          f"first: {region_id(truth).iloc[i]} {truth['gene_id'].iloc[i]}; "
                          "choose one cell")
    label = truth["label"].to_numpy().astype(bool)
    if not label.any():
        raise SchemaError(f"at least one tested pair must be true; all {len(label):,} labels are 0")
    control_of = _control(methods, control_of)
    rng = np.random.default_rng(seed)
    scores = {}
    for name, calls in methods.items():
        check_intervals(calls, name=f"calls of {name}")
        _check_score(calls, name)
        if "gene_id" not in calls.columns:
            raise SchemaError(f"calls of {name} need a column gene_id to be compared with pairs; got "
                              f"{', '.join(map(str, calls.columns))}")
        scores[name] = _pair_scores(calls, truth)
    base = scores[control_of]
    called = np.flatnonzero(np.isfinite(base))
    shuffled = np.full(len(base), -np.inf)
    shuffled[called] = rng.permutation(base[called])
    scores |= {"random": rng.permutation(base), "shuffled": shuffled}
    ranked = {}
    for name, score in scores.items():
        order = np.lexsort((rng.random(len(score)), -score))
        order = order[np.isfinite(score[order])]
        ranked[name] = (np.ones(len(order), dtype=np.int64), label[order].astype(np.int64))
    budget = int(label.sum()) if budget_pairs is None else budget_pairs
    return summarize_ranking(ranked, set(methods), budget, int(label.sum()), len(label), "pairs")


def sufficiency_necessity(oracle: MaskedOracle, X: Shaped[Tensor, "G ..."], S: Shaped[Tensor, "G ..."] | None,
                          covariates: Shaped[Tensor, "G n_covariates"] | None,
                          scores: Float[np.ndarray, "G n_bins"] | Float[Tensor, "G n_bins"],
                          budgets: Sequence[float] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
                          y: Float[np.ndarray, "G T"] | Float[Tensor, "G T"] | None = None, *,
                          rivals: Mapping[str, Float[np.ndarray, "G n_bins"]] | None = None, seed: int = 0,
                          n_random: int = 1, batch_size: int = 64, progress: bool = False) -> pd.DataFrame:
    """How much of the prediction the best bins of each window carry, alone and by their absence.

    Parameters
    ----------
    oracle
        Model that predicts with bins erased.
    X, S, covariates
        Model input, one row a gene window, as in `measure_effects`.
    scores
        What ranks the bins of each window (e.g. the mean mask), higher first; bin 0 as the model reads it.
    budgets
        Fractions of the bins of each window (at least one bin is taken).
    y
        Observed expression. None compares with the unperturbed prediction.
    rivals
        Other scores of the bins, each an `order` of its own by its name.
    seed
        For ties and random orders.
    n_random
        Draws that are averaged in the orders ``random`` and ``shuffled``.
    batch_size, progress
        Windows a forward pass; show a progress bar.

    Returns
    -------
    DataFrame
        ``budget, kind, order, r, mean_abs_change``. `kind` ``sufficiency`` keeps only the chosen bins,
        ``necessity`` erases them. `order`: ``model`` takes the bins by score; ``shuffled`` by the scores of
        another gene (right distances, wrong gene); ``distance`` from the middle of the window (the TSS)
        outward; ``random`` any. `r` is the Pearson correlation over genes with `y` (or the unperturbed
        prediction), averaged over targets, NaN where a side is constant; `mean_abs_change` the mean absolute
        difference from the unperturbed prediction, in the units of the target. Better scores: sufficiency r
        high, necessity change large.

    Raises
    ------
    SchemaError
        If shapes disagree, there are fewer than 3 windows, or scores are not finite.
    ValueError
        If a budget leaves (0, 1] or `n_random` is below 1.

    Notes
    -----
    Cost: ``1 + 2 × len(budgets) × (2 + 2 n_random + rivals)`` predictions of all windows.
    """
    scores_ = np.asarray(scores, dtype=np.float64)
    n_genes, n_bins = scores_.shape
    if len(X) != n_genes or n_genes < 3:
        raise SchemaError(f"scores hold one row for each of at least 3 windows; got {n_genes} rows, "
                          f"{len(X)} windows")
    if not np.isfinite(scores_).all():
        n = int((~np.isfinite(scores_)).sum())
        raise SchemaError(f"scores must be finite; {n:,} of {scores_.size:,} are not")
    if not budgets or min(budgets) <= 0 or max(budgets) > 1:
        raise ValueError(f"budgets are fractions of a window in (0, 1]; got {tuple(budgets)}")
    if n_random < 1:
        raise ValueError(f"n_random must be at least 1; got {n_random}")

    def predict(keep: Tensor | None) -> np.ndarray:
        after = oracle.predict(X, S=S, covariates=covariates, keep=keep, batch_size=batch_size)
        return after.detach().cpu().numpy().astype(np.float64)

    before = predict(None)
    goal = before if y is None else np.asarray(y, dtype=np.float64)
    if goal.shape != before.shape:
        raise SchemaError(f"y must have the shape of the prediction, {before.shape}; got {goal.shape}")
    rng = np.random.default_rng(seed)
    orders = list(_bin_orders(scores_, n_random, rng))
    for name, other in (rivals or {}).items():
        if name in {order for order, _ in orders} or np.shape(other) != scores_.shape or not np.isfinite(other).all():
            raise SchemaError(f"other scores have a name of their own and one finite number a bin, {scores_.shape}; "
                              f"got {name!r} with shape {np.shape(other)}")
        orders.append((name, _ranks(np.asarray(other, dtype=np.float64), rng)))
    tasks = [(order, rank, budget, kind) for order, rank in orders for budget in budgets
             for kind in ("sufficiency", "necessity")]
    rows = []
    for order, rank, budget, kind in progress_bar(tasks, "sufficiency, necessity", disable=not progress):
        chosen = rank < max(1, round(budget * n_bins))
        keep = torch.from_numpy(chosen if kind == "sufficiency" else ~chosen).float()
        after = predict(keep)
        rows.append((budget, kind, order, _mean_pearson(after, goal), np.abs(after - before).mean()))
    key = ["budget", "kind", "order"]
    table = pd.DataFrame(rows, columns=pd.Index([*key, "r", "mean_abs_change"]))
    return table.groupby(key, sort=False)[["r", "mean_abs_change"]].mean().reset_index()


class _Axis:
    """All chromosomes of the universe on one line, with the truth painted on it."""

    def __init__(self, universe: pd.DataFrame, truth: pd.DataFrame):
        self.segments = merge(universe)
        self.length: dict[str, int] = {}
        self.offset: dict[str, int] = {}
        for chrom, end in self.segments.groupby("chrom", sort=False)["end"].max().items():
            self.offset[str(chrom)] = sum(self.length.values())
            self.length[str(chrom)] = int(end)
        self.u_start, self.u_end, _ = self.locate(self.segments)
        self.t_start, self.t_end, _ = self.locate(merge(truth))
        self.universe_bp = int((self.u_end - self.u_start).sum())
        edges = self._edges()
        self.truth_bp = int(np.diff(edges)[self._covered(edges, self.u_start, self.u_end)
                                           & self._covered(edges, self.t_start, self.t_end)].sum())

    def locate(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Start, end and score on the line; what lies beyond the universe's chromosomes is cut or dropped."""
        table = table.loc[table["chrom"].isin(list(self.length)).to_numpy()]
        offset, length = (np.array([x[c] for c in table["chrom"]], dtype=np.int64)
                          for x in (self.offset, self.length))
        start = table["start"].to_numpy(np.int64)
        end = np.minimum(table["end"].to_numpy(np.int64), length)
        score = table["score"].to_numpy(float) if "score" in table.columns else np.zeros(len(table))
        inside = start < end
        return (start + offset)[inside], (end + offset)[inside], score[inside]

    def rank(self, start: np.ndarray, end: np.ndarray, score: np.ndarray,
             rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Count the base pairs, and true base pairs, that each call adds in the universe, best call first."""
        worst_first = np.lexsort((rng.random(len(score)), score))
        start, end = start[worst_first], end[worst_first]
        edges = self._edges(start, end)
        owner = claim(start, end, edges)
        counted = (owner >= 0) & self._covered(edges, self.u_start, self.u_end)
        true = counted & self._covered(edges, self.t_start, self.t_end)
        width = np.diff(edges)
        bp, hit = (np.bincount(owner[x], width[x], minlength=len(start)).astype(np.int64)[::-1]
                   for x in (counted, true))
        return bp[bp > 0], hit[bp > 0]

    def scatter(self, length: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Uniform places in the universe for intervals of the given lengths, drawn until they fit."""
        cumulative = np.cumsum(self.u_end - self.u_start)
        start, segment = np.empty(len(length), np.int64), np.empty(len(length), np.int64)
        open_ = np.arange(len(length))
        for _ in range(200):
            draw = rng.integers(0, cumulative[-1], len(open_))
            segment[open_] = np.searchsorted(cumulative, draw, side="right")
            start[open_] = self.u_end[segment[open_]] - (cumulative[segment[open_]] - draw)
            open_ = open_[start[open_] + length[open_] > self.u_end[segment[open_]]]
            if not len(open_):
                break
        return start, np.minimum(start + length, self.u_end[segment])  # cut the few that fit nowhere

    def _edges(self, *more: np.ndarray) -> np.ndarray:
        return np.unique(np.concatenate([self.u_start, self.u_end, self.t_start, self.t_end, *more]))

    @staticmethod
    def _covered(edges: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Pieces between edges that disjoint intervals cover."""
        step = np.zeros(len(edges), dtype=np.int64)
        np.add.at(step, np.searchsorted(edges, start), 1)
        np.add.at(step, np.searchsorted(edges, end), -1)
        return np.cumsum(step)[:-1] > 0


def summarize_ranking(ranked: Mapping[str, tuple[np.ndarray, np.ndarray]], real: set[str], budget: int, truth: int,
               universe: int, unit: str) -> CallBenchmark:
    """Areas, the point at the budget, and curves of every ranking.

    Parameters
    ----------
    ranked
        Method → what each call adds, and how much of it is true, best call first.
    real
        Methods that are no controls.
    budget, truth, universe
        As in `CallBenchmark`.
    unit
        ``bp`` or ``pairs``.
    """
    if budget < 1:
        raise ValueError(f"the budget must be at least 1 {unit}; got {budget}")
    rows, curves = [], []
    for name, (size, hit) in ranked.items():
        called, found = np.cumsum(size), np.cumsum(hit)
        precision, recall = found / called, found / truth
        n = int(np.searchsorted(called, budget, side="right"))  # calls that fit whole
        cut_size, cut_hit = size[:n].astype(float), hit[:n].astype(float)
        room = budget - (called[n - 1] if n else 0)
        if n < len(size) and room:
            cut_size, cut_hit = np.append(cut_size, room), np.append(cut_hit, hit[n] * room / size[n])
        used, got = cut_size.sum(), cut_hit.sum()
        p, r = (got / used if used else np.nan), got / truth
        rows.append({"method": name, "control": name not in real,
                     "auprc": _average_precision(cut_size, cut_hit, truth),
                     "auprc_full": _average_precision(size, hit, truth),
                     "precision": p, "recall": r, "f1": 2 * p * r / (p + r) if got else 0.0,
                     f"called_{unit}": int(used), f"total_{unit}": int(size.sum()), f"budget_{unit}": budget})
        keep = np.unique(np.linspace(0, len(size) - 1, MAX_POINTS).round().astype(int)) if len(size) else []
        curves.append(pd.DataFrame({"method": name, unit: called[keep], "precision": precision[keep],
                                    "recall": recall[keep]}))
    return CallBenchmark(pd.DataFrame(rows), pd.concat(curves, ignore_index=True), budget, truth, universe)


def _average_precision(size: np.ndarray, hit: np.ndarray, truth: int) -> float:
    """Σ (recall step × precision after it); 0 for no calls."""
    return float((hit / truth * (np.cumsum(hit) / np.cumsum(size))).sum())


def _pair_scores(calls: pd.DataFrame, truth: pd.DataFrame) -> np.ndarray:
    """Best score of the calls on each tested pair, −inf where there is none."""
    pairs = truth[["chrom", "start", "end", "gene_id"]].assign(i=np.arange(len(truth)))
    both = pairs.merge(calls[["chrom", "start", "end", "gene_id", "score"]], on=["chrom", "gene_id"],
                       suffixes=("", "_call"))
    both = both.loc[(both["start"] < both["end_call"]) & (both["start_call"] < both["end"])]
    best = np.full(len(truth), -np.inf)
    np.maximum.at(best, both["i"].to_numpy(np.int64), both["score"].to_numpy(float))
    return best


def _bin_orders(scores: np.ndarray, n_random: int,
                rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rank (0 is taken first) of every bin, for each order."""
    n_genes, n_bins = scores.shape
    yield "model", _ranks(scores, rng)
    yield "distance", _ranks(np.broadcast_to(-np.abs(np.arange(n_bins) - (n_bins - 1) / 2), scores.shape), rng)
    for _ in range(n_random):
        yield "random", _ranks(np.zeros_like(scores), rng)
        # a random cycle: no gene keeps its own scores
        cycle = rng.permutation(n_genes)
        other = np.empty(n_genes, dtype=np.int64)
        other[cycle] = np.roll(cycle, 1)
        yield "shuffled", _ranks(scores[other], rng)


def _ranks(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rank of each bin of each window, 0 for the highest; ties in random order."""
    order = np.lexsort((rng.random(values.shape), -values), axis=-1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(values.shape[1]), values.shape), axis=-1)
    return ranks


def _mean_pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson r over rows, averaged over columns; NaN where a column is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(norm > 0, (a * b).sum(axis=0) / norm, np.nan)
    return float(r.mean())


def _check_score(calls: pd.DataFrame, name: str) -> None:
    if "score" not in calls.columns:
        raise SchemaError(f"calls of {name} need a column score to be ranked by; got "
                          f"{', '.join(map(str, calls.columns))}")
    bad = ~np.isfinite(calls["score"].to_numpy(float))
    if bad.any():
        i = int(bad.argmax())
        raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} calls of {name} have no finite score; first: "
                          f"{region_id(calls).iloc[i]} = {calls['score'].iloc[i]}")


def _control(methods: Mapping[str, pd.DataFrame], control_of: str | None) -> str:
    if not methods:
        raise ValueError("give at least one method to benchmark; got none")
    if taken := {"random", "shuffled"} & set(methods):
        raise ValueError("the names random and shuffled are those of the controls; "
                         f"rename the method {min(taken)}")
    if control_of is None:
        return next(iter(methods))
    if control_of not in methods:
        raise UnknownNameError(f"control_of names one of the methods; got '{control_of}'; "
                               f"{nearest(control_of, methods)}")
    return control_of
