"""Are the elements real? Scores of bins held against what is known, in ways that a lucky caller does not pass.

A mask that is open around every TSS finds promoters without having read a base. So every test here comes with controls
that keep what is not of interest: scores permuted over all bins (`shuffled`), the scores of another gene, which keep
every distance from the TSS (`another_gene`), and distance alone; and every test can be asked within bands of distance.

`benchmark_bins` and `by_distance` compare with known elements, `composition` says what kinds of elements fill the best
base pairs (decoys, where they are known), `agreement` how far two runs choose the same ones, `target_pairs` makes
tested element–gene pairs from annotated targets, and `specific_sites` finds sites of one condition that another lacks.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.elements.benchmark import CallBenchmark, summarize_ranking
from ciscribe.elements.bins import Bins, Scores
from ciscribe.errors import SchemaError
from ciscribe.schema import check_intervals

CARD = Card(
    name="element_evidence", kind="benchmark",
    summary="Holds the scores of all bins of all windows against known elements, beside scores of another gene, "
            "distance and chance, within bands of distance.",
    paper="own; what reviewers missed in Su et al., ICLR 2025, arXiv:2502.13991: seeds, decoys, an outside truth",
)
OTHER = "none"
"""Kind of the base pairs that no known element covers."""


def benchmark_bins(bins: Bins, methods: Mapping[str, Float[ndarray, " pieces"]], truth: pd.DataFrame, *,
                   within: Bool[ndarray, " pieces"] | None = None, controls: Sequence[str] = (),
                   budget_bp: int | None = None, seed: int = 0) -> CallBenchmark:
    """Compare scores of all pieces of the windows with true elements, base by base.

    Parameters
    ----------
    bins
        Where the pieces are.
    methods
        Score of every piece (`Bins.pool`, `Bins.height`), higher is better; ties in random order.
    truth
        True elements. A piece that they cover in part counts in part.
    within
        Pieces that are evaluated; all unless given.
    controls
        Methods that are controls.
    budget_bp
        Base pairs that each method may call; None takes those that are true.
    seed
        Of ties.

    Returns
    -------
    CallBenchmark
        As of `benchmark_calls`, of which this is the case where everything is called. ``auprc_full`` of scores without
        meaning is the share that is true, ``prevalence``.

    Raises
    ------
    SchemaError
        If a method has another number of scores, one that is not finite, or no true base is evaluated.
    """
    check_intervals(truth, name="truth")
    use = np.ones(len(bins), dtype=bool) if within is None else within
    size, hit = bins.size[use], bins.cover(truth)[use]
    if not hit.sum():
        raise SchemaError(f"the truth must cover some of what is evaluated; none of its {len(truth):,} intervals "
                          f"lies in the {size.sum():,} bp; check names and windows")
    rng = np.random.default_rng(seed)
    ranked = {}
    for name, score in methods.items():
        order = _best_first(_checked(bins, name, score)[use], rng)
        ranked[name] = size[order], hit[order]
    budget = int(hit.sum()) if budget_bp is None else budget_bp
    return summarize_ranking(ranked, set(methods) - set(controls), budget, int(hit.sum()), int(size.sum()), "bp")


def fold_intervals(bins: Bins, methods: Mapping[str, Float[ndarray, " pieces"]], truth: pd.DataFrame, *,
                   within: Bool[ndarray, " pieces"] | None = None, versus: str | None = None, n: int = 100,
                   block_bp: int = 100_000, seed: int = 0) -> pd.DataFrame:
    """Intervals of 95 % of AUPRC over chance, by drawing stretches of the genome with replacement.

    Parameters
    ----------
    versus
        Method whose AUPRC the others' are divided by, in the same draws.
    n, block_bp
        Draws, and bp of a stretch: what lies close is not independent.

    Returns
    -------
    DataFrame
        ``method, low, high`` and, with `versus`, ``ratio, ratio_low, ratio_high``.
    """
    use = np.ones(len(bins), dtype=bool) if within is None else within
    size, hit = bins.size[use].astype(float), bins.cover(truth)[use].astype(float)
    place = bins.table.loc[use, "chrom"].astype(str) + ":" + (bins.table.loc[use, "start"] // block_bp).astype(str)
    block, _ = pd.factorize(place)
    rng = np.random.default_rng(seed)
    n_blocks = block.max() + 1
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n)
    weights = np.concatenate([np.ones((1, n_blocks), dtype=drawn.dtype), drawn])  # the first are the data themselves
    area = {}
    for name, score in methods.items():
        order = _best_first(_checked(bins, name, score)[use], np.random.default_rng(seed))
        own_size, own_hit, own_block = size[order], hit[order], block[order]
        values = []
        for weight in weights:
            w = weight[own_block]
            called, found = np.cumsum(own_size * w), np.cumsum(own_hit * w)
            if not found[-1]:
                values.append((np.nan, np.nan))
                continue
            precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
            values.append(((own_hit * w * precision).sum() / found[-1], found[-1] / called[-1]))
        area[name] = np.array(values)
    rows = []
    for name, values in area.items():
        low, high = np.nanquantile(values[1:, 0] / values[1:, 1], [0.025, 0.975])
        row = {"method": name, "low": low, "high": high}
        if versus is not None:
            ratio = values[:, 0] / area[versus][:, 0]
            low, high = np.nanquantile(ratio[1:], [0.025, 0.975])
            row |= {"ratio": ratio[0], "ratio_low": low, "ratio_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def by_distance(bins: Bins, methods: Mapping[str, Float[ndarray, " pieces"]], truth: pd.DataFrame,
                edges: Sequence[int], *, controls: Sequence[str] = (), seed: int = 0) -> pd.DataFrame:
    """`benchmark_bins` within bands of distance from the nearest TSS.

    Parameters
    ----------
    edges
        Borders of the bands in bp, ascending. Bands without truth are left out.

    Returns
    -------
    DataFrame
        That of `CallBenchmark.table`, with ``band`` (``low–high``, bp), ``prevalence`` and ``fold`` (``auprc_full``
        over the prevalence of the band: 1 is chance).
    """
    parts = []
    for low, high in pairwise(edges):
        within = (bins.distance >= low) & (bins.distance < high)
        if not within.any() or not bins.cover(truth)[within].any():
            continue
        found = benchmark_bins(bins, methods, truth, within=within, controls=controls, seed=seed)
        parts.append(found.table.assign(band=f"{low:,}–{high:,}", prevalence=found.prevalence,
                                        fold=found.table["auprc_full"] / found.prevalence))
    if not parts:
        raise SchemaError(f"no band of {', '.join(map(str, edges))} bp holds a true base; widen the bands")
    return pd.concat(parts, ignore_index=True)


def best_pieces(bins: Bins, score: Float[ndarray, " pieces"], budget_bp: int, *, seed: int = 0
                ) -> Bool[ndarray, " pieces"]:
    """Pieces with the highest scores, as many as fit into a number of bp; ties in random order."""
    if not 1 <= budget_bp <= bins.size.sum():
        raise SchemaError(f"the budget lies in 1 to {bins.size.sum():,} bp, all that is evaluated; got {budget_bp:,}")
    order = _best_first(_checked(bins, "the method", score), np.random.default_rng(seed))
    chosen = np.zeros(len(bins), dtype=bool)
    chosen[order[np.cumsum(bins.size[order]) <= budget_bp]] = True
    return chosen


def composition(bins: Bins, methods: Mapping[str, Float[ndarray, " pieces"]], annotation: pd.DataFrame,
                kinds: Sequence[str], budget_bp: int, *, seed: int = 0) -> pd.DataFrame:
    """What fills the best base pairs of each method.

    Parameters
    ----------
    annotation
        Intervals with a ``kind``.
    kinds
        Those that are told apart. A base in several belongs to the first of this list.
    budget_bp
        Base pairs of every method.

    Returns
    -------
    DataFrame
        ``method, kind, bp, share, enrichment``: share of the method's base pairs, and that over the kind's share of all
        that is evaluated. The last kind is `OTHER`.
    """
    check_intervals(annotation, name="annotation")
    if "kind" not in annotation.columns:
        raise SchemaError(f"an annotation needs the column kind; got {', '.join(map(str, annotation.columns))}")
    before, covered = np.zeros(len(bins), np.int64), {}
    for i, kind in enumerate(kinds):
        now = bins.cover(annotation.loc[annotation["kind"].isin(list(kinds[:i + 1]))])
        covered[kind], before = now - before, now
    covered[OTHER] = bins.size - before
    rows = []
    for name, score in methods.items():
        chosen = best_pieces(bins, score, budget_bp, seed=seed)
        total = bins.size[chosen].sum()
        for kind, bp in covered.items():
            own, all_ = int(bp[chosen].sum()), bp.sum() / bins.size.sum()
            rows.append((name, kind, own, own / total, own / total / all_ if all_ else np.nan))
    return pd.DataFrame(rows, columns=pd.Index(["method", "kind", "bp", "share", "enrichment"]))


def agreement(bins: Bins, methods: Mapping[str, Float[ndarray, " pieces"]],
              budgets: Sequence[float] = (0.01, 0.05, 0.1), *, seed: int = 0) -> pd.DataFrame:
    """How far two methods (seeds, folds) choose the same base pairs, at equal numbers of them.

    Parameters
    ----------
    budgets
        Shares of all that is evaluated.

    Returns
    -------
    DataFrame
        ``a, b, budget, jaccard, chance, shared_bp``, one row a pair and budget: base pairs of both over those of
        either, and what two draws of as many would share, ``f / (2 − f)`` at a budget f.
    """
    rows = []
    for budget in budgets:
        chosen = {name: best_pieces(bins, score, max(1, round(budget * bins.size.sum())), seed=seed + i)
                  for i, (name, score) in enumerate(methods.items())}
        for a, b in combinations(chosen, 2):
            both, either = (int(bins.size[x].sum()) for x in (chosen[a] & chosen[b], chosen[a] | chosen[b]))
            rows.append((a, b, budget, both / max(1, either), budget / (2 - budget), both))
    return pd.DataFrame(rows, columns=pd.Index(["a", "b", "budget", "jaccard", "chance", "shared_bp"]))


def target_pairs(bins: Bins, elements: pd.DataFrame) -> pd.DataFrame:
    """Every element and gene whose window it touches, true where the gene is one of its annotated targets.

    Parameters
    ----------
    elements
        Intervals with ``targets``: a collection of gene ids, empty where none is known.

    Returns
    -------
    DataFrame
        ``chrom, start, end, gene_id, label, distance`` (bp, middle of the element to the TSS), ready for
        `benchmark_links`. Elements without a target among the genes of the windows are no test and left out.
    """
    check_intervals(elements, name="elements with targets")
    if "targets" not in elements.columns:
        raise SchemaError("elements with targets need the columns chrom, start, end, targets; got "
                          f"{', '.join(map(str, elements.columns))}")
    once = elements.drop_duplicates(["chrom", "start", "end"]).reset_index(drop=True)
    row, gene, _, _ = bins.pairs(once)
    table = once.loc[row, ["chrom", "start", "end"]].reset_index(drop=True)
    table["gene_id"] = bins.gene_ids[gene]
    sets = [set(targets) for targets in once["targets"]]
    label = np.array([g in sets[i] for g, i in zip(table["gene_id"], row, strict=True)], dtype=bool)
    table["label"] = label
    table["distance"] = np.abs((table["start"] + table["end"]) // 2 - bins.tss[gene])
    tested = np.isin(row, row[label])
    return table.loc[tested].reset_index(drop=True)


def pair_scores(bins: Bins, scores: Scores, pairs: pd.DataFrame) -> Float[ndarray, " n"]:
    """Highest score that the bins of the gene's own window have on the element of each pair."""
    wanted = pd.Index(bins.gene_ids).get_indexer(pd.Index(pairs["gene_id"]))
    row, gene, first, last = bins.pairs(pairs)
    own = wanted[row] == gene
    out = np.full(len(pairs), -np.inf)
    for i, g, a, b in zip(row[own], gene[own], first[own], last[own], strict=True):
        out[i] = scores[g, a:b].max()
    if np.isneginf(out).any():
        i = int(np.isneginf(out).argmax())
        raise SchemaError(f"{int(np.isneginf(out).sum()):,} of {len(pairs):,} pairs lie off the window of their gene; "
                          f"first: {pairs['chrom'].iloc[i]}:{pairs['start'].iloc[i]}-{pairs['end'].iloc[i]} "
                          f"{pairs['gene_id'].iloc[i]}")
    return out


def specific_sites(sites: pd.DataFrame, stage: str, against: str, *, fold: float = 4.0, quantile: float = 0.5
                   ) -> pd.DataFrame:
    """Sites that are open in one condition and not in another.

    Parameters
    ----------
    sites
        Intervals with a column of heights for each condition.
    stage, against
        The two columns.
    fold
        The height in `stage` is at least so many times that in `against` (1 is added to both).
    quantile
        And at least this quantile of the heights in `stage`.

    Raises
    ------
    SchemaError
        If a column is missing or holds something other than heights >= 0, or no site is specific.
    """
    for column in (stage, against):
        if column not in sites.columns or not pd.api.types.is_numeric_dtype(sites[column]):
            numbers = [c for c in sites.columns[3:] if pd.api.types.is_numeric_dtype(sites[c])]
            raise SchemaError(f"sites need a column of heights called {column!r}; they have "
                              f"{', '.join(map(str, numbers)) or 'none'}")
    a, b = (sites[column].to_numpy(float) for column in (stage, against))
    bad = ~((a >= 0) & (b >= 0))
    if bad.any():
        i = int(bad.argmax())
        place = f"{sites['chrom'].iloc[i]}:{sites['start'].iloc[i]}-{sites['end'].iloc[i]}"
        raise SchemaError(f"heights are 0 or more; {int(bad.sum()):,} of {len(sites):,} sites are not; first: "
                          f"{place}, {a[i]} and {b[i]}")
    found = sites.loc[(a + 1 >= fold * (b + 1)) & (a >= np.quantile(a, quantile))]
    if not len(found):
        raise SchemaError(f"no site of {len(sites):,} is {fold:g} times as high in {stage} as in {against}")
    return found


def cover_of(bins: Bins, table: pd.DataFrame) -> Bool[ndarray, " pieces"]:
    """Pieces of which the intervals cover at least half."""
    return 2 * bins.cover(table) >= bins.size


def _best_first(score: ndarray, rng: np.random.Generator) -> ndarray:
    return np.lexsort((rng.random(len(score)), -score))


def _checked(bins: Bins, name: str, score: ndarray) -> ndarray:
    score = np.asarray(score, dtype=np.float64)
    if score.shape != (len(bins),):
        raise SchemaError(f"{name} holds one score for each of the {len(bins):,} pieces; got shape {score.shape}")
    bad = ~np.isfinite(score)
    if bad.any():
        i = int(bad.argmax())
        raise SchemaError(f"{int(bad.sum()):,} of {len(score):,} pieces have no finite score of {name}; first: "
                          f"{bins.table['chrom'].iloc[i]}:{bins.table['start'].iloc[i]}-{bins.table['end'].iloc[i]}")
    return score
