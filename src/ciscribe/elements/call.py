"""From a mask over positions to called regulatory elements with a score, its uncertainty and an effect.

The bottleneck of a sequence-to-expression model says, for each gene and each bin of its window, how much
of that bin the prediction may see. Here the posterior of that mask becomes intervals (`call_elements`),
each interval gets the change of the prediction when it is hidden from the model (`measure_effects`), and
intervals of many genes and cells become one disjoint set (`pool_elements`) or a BED table (`to_bed`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped
from rich.progress import track as progress_bar
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.intervals import region_id, runs
from ciscribe.schema import check_elements, check_intervals

CARD = Card(
    name="mask",
    kind="elements",
    summary="Calls as elements the runs of bins that a sequence-to-expression model lets through its "
            "information bottleneck, and measures each one by hiding it from the model.",
    paper="Su et al., ICLR 2025, arXiv:2502.13991 (Seq2Exp)",
    differences=(
        "A call is an interval with the mean mask, its posterior standard deviation and an effect; "
        "the paper keeps the mask per position.",
        "Runs that are separated by a short gap are joined, and a requested fraction of base pairs can set "
        "the threshold.",
        "The effect is the prediction before minus the prediction after the element's bins are erased from "
        "the mask, with everything else as it was.",
    ),
    n_policy="bins off the chromosome are never called",
)


@runtime_checkable
class MaskedOracle(Protocol):
    """What an analysis of elements needs of a model: predictions with chosen bins erased from the mask."""

    def predict(self, X: Tensor, S: Tensor | None = None, covariates: Tensor | None = None,
                keep: Tensor | None = None, *, batch_size: int = 64, progress: bool = False) -> Tensor:
        """Predict ``(B, T)``; `keep` ``(B, n_bins)`` multiplies the mask (1 keeps a bin, 0 erases it)."""
        ...


def call_elements(mean: Float[np.ndarray, "G n_bins"] | Float[Tensor, "G n_bins"],
                  sd: Float[np.ndarray, "G n_bins"] | Float[Tensor, "G n_bins"],
                  starts: Sequence[int] | Int[np.ndarray, " G"], chroms: Sequence[str],
                  gene_ids: Sequence[str], *, resolution: int, threshold: float = 0.5,
                  max_bp_fraction: float | None = None,
                  min_bins: int = 1, merge_bins: int = 1, trim: int | float = 0.0, strands: Sequence[str] | None = None,
                  chrom_sizes: Mapping[str, int] | None = None) -> pd.DataFrame:
    """Intervals that the model reads for each gene, from the posterior of its mask.

    A bin is open when its mean mask is at least the threshold. Open runs with at most `merge_bins` closed
    bins between them are joined; runs shorter than `min_bins` are dropped.

    Parameters
    ----------
    mean, sd
        Posterior mean (0 to 1) and standard deviation of the mask, one row a gene window, one column a bin.
        Shape ``(G, n_bins)``.
    starts
        First base of each window on the + strand, 0-based bp; may be negative (window off the chromosome).
    chroms, gene_ids
        Chromosome and gene of each window; `gene_ids` are unique.
    resolution
        bp a bin.
    threshold
        Smallest mean mask of an open bin. Not used when `max_bp_fraction` is given.
    max_bp_fraction
        Requested sparsity: one threshold for all genes, the lowest that calls at most this fraction of all
        bins (after joining and dropping). Tied bins are called together or not at all.
    min_bins, merge_bins
        Shortest element, and longest gap that is bridged, in bins (0 never joins).
    trim
        An open run keeps the bins in which the mask rises above the median of its window by at least this
        fraction of the run's highest rise (0.5: width at half height), and falls apart where it dips below.
        0 keeps whole runs. Trimming comes last, so `max_bp_fraction` is an upper bound.
    strands
        Strand each window was read on; rows with ``-`` have bin 0 at the *right* end. None: all were read on
        +.
    chrom_sizes
        Chromosome lengths in bp; elements end there. None cuts only at position 0.

    Returns
    -------
    DataFrame
        `schema.ELEMENT_COLUMNS` + ``summit`` (middle of the bin with the largest mean mask, in bp from
        `start` as in narrowPeak), sorted by gene (in the order given) and position. ``score`` is the mean
        mask over the interval (0 to 1), ``score_sd`` the posterior sd of that mean, bins being independent;
        ``cell`` is ``all`` and ``effect`` NaN until `measure_effects`. ``attrs["threshold"]`` is the
        threshold that was used.

    Raises
    ------
    SchemaError
        If shapes disagree, the mask leaves 0–1, an sd is negative, or a gene_id repeats.
    ValueError
        If an option is out of range.

    References
    ----------
    Su et al., ICLR 2025, arXiv:2502.13991; written from the paper. Differences: see `CARD`.

    Examples
    --------
    >>> mean = np.array([[0.1, 0.9, 0.7, 0.2, 0.0]])
    >>> calls = call_elements(mean, np.zeros((1, 5)), [100], ["chr1"], ["g"], resolution=10)
    >>> calls[["chrom", "start", "end"]].values.tolist()
    [['chr1', 110, 130]]
    """
    mean_, sd_ = np.array(mean, dtype=np.float64), np.array(sd, dtype=np.float64)
    starts_ = np.asarray(starts, dtype=np.int64)
    _check_windows(mean_, sd_, starts_, chroms, gene_ids, strands)
    for name, value, low in (("resolution", resolution, 1), ("min_bins", min_bins, 1),
                             ("merge_bins", merge_bins, 0)):
        if value < low:
            raise ValueError(f"{name} must be at least {low}; got {value}")
    if not 0 <= trim <= 1:
        raise ValueError(f"trim must lie in [0, 1]; got {trim}")
    if max_bp_fraction is not None and not 0 < max_bp_fraction <= 1:
        raise ValueError(f"max_bp_fraction must lie in (0, 1]; got {max_bp_fraction}")

    n_bins = mean_.shape[1]
    reverse = _reverse(strands, len(mean_))
    mean_[reverse], sd_[reverse] = mean_[reverse, ::-1], sd_[reverse, ::-1]
    left = starts_[:, None] + np.arange(n_bins) * resolution
    length = (np.full(len(mean_), np.iinfo(np.int64).max) if chrom_sizes is None
              else np.array([_length(chrom_sizes, c) for c in chroms], dtype=np.int64))
    on_chrom = (left + resolution > 0) & (left < length[:, None])
    shown = np.where(on_chrom, mean_, -np.inf)
    if max_bp_fraction is not None:
        threshold = _sparsity_threshold(shown, max_bp_fraction * mean_.size, merge_bins, min_bins)

    gene, first, last = _open_runs(shown >= threshold, merge_bins, min_bins)
    if trim:
        gene, first, last = _trim(mean_, gene, first, last, trim, min_bins)
    n = last - first
    score = _run_sum(mean_, gene, first, last) / n
    score_sd = np.sqrt(_run_sum(sd_**2, gene, first, last)) / n
    peak = np.array([f + mean_[g, f:e].argmax() for g, f, e in zip(gene, first, last, strict=True)], np.int64)
    start, end = starts_[gene] + first * resolution, starts_[gene] + last * resolution
    start, end = np.maximum(start, 0), np.minimum(end, length[gene])
    summit = np.clip(starts_[gene] + peak * resolution + resolution // 2, start, end - 1)
    calls = pd.DataFrame({
        "chrom": np.asarray(chroms, dtype=object)[gene], "start": start, "end": end,
        "gene_id": np.asarray(gene_ids, dtype=object)[gene], "cell": "all", "score": score,
        "score_sd": score_sd, "effect": np.nan, "evidence": "mask", "summit": summit - start})
    calls.attrs["threshold"] = float(threshold)
    return calls


def measure_effects(oracle: MaskedOracle, X: Shaped[Tensor, "G ..."],
                    S: Shaped[Tensor, "G ..."] | None, covariates: Shaped[Tensor, "G n_covariates"] | None,
                    elements: pd.DataFrame, starts: Sequence[int] | Int[np.ndarray, " G"], *,
                    gene_ids: Sequence[str], resolution: int, cells: Sequence[str],
                    strands: Sequence[str] | None = None, max_per_gene: int = 32, batch_size: int = 64,
                    progress: bool = False) -> pd.DataFrame:
    """Change of the predicted expression when each element is hidden from the model.

    Parameters
    ----------
    oracle
        Model that predicts with bins erased.
    X, S, covariates
        Model input, one row a gene window: sequence (codes ``(G, L)`` or one-hot ``(G, 4, L)``), signals and
        covariates (None where the model has none).
    elements
        Calls of one gene set, as `call_elements` returns them; one row an element.
    starts, gene_ids, strands
        First base (0-based, + strand), gene and reading strand of each row of `X`.
    resolution
        bp a bin of the mask.
    cells
        Names of the model's ``T`` targets, in its order.
    max_per_gene
        Only the elements with the highest score are measured; the others keep ``effect`` NaN.
    batch_size
        Windows a forward pass.
    progress
        Show a progress bar.

    Returns
    -------
    DataFrame
        One row an element and cell, in the order of `elements`. ``effect`` = prediction before − prediction
        after, in the units of the model's target: positive means that the element *raises* expression.
        ``evidence`` says ``mask+erasure`` where it was measured. Bins of an element that lie off its window
        do not count.

    Raises
    ------
    SchemaError
        If an element's gene has no window, an element lies wholly off its window, or the model's number of
        targets is not that of `cells`.

    Notes
    -----
    Cost: one forward row a gene with elements, and one an element measured.
    """
    check_elements(elements)
    if max_per_gene < 1:
        raise ValueError(f"max_per_gene must be at least 1; got {max_per_gene}")
    starts_ = np.asarray(starts, dtype=np.int64)
    if not len(X) == len(starts_) == len(gene_ids):
        raise SchemaError(f"X, starts and gene_ids hold one row a window; got {len(X)}, {len(starts_)}, "
                          f"{len(gene_ids)} rows")
    n_bins = X.shape[-1] // resolution
    gene, first, last = _locate(elements, starts_, gene_ids, n_bins, resolution)
    reverse = _reverse(strands, len(starts_))[gene]
    first, last = np.where(reverse, n_bins - last, first), np.where(reverse, n_bins - first, last)

    by_score = np.lexsort((-elements["score"].to_numpy(float), gene))
    rank = np.empty(len(elements), dtype=np.int64)
    rank[by_score] = np.arange(len(elements)) - np.searchsorted(gene[by_score], gene[by_score])
    measured = np.flatnonzero(rank < max_per_gene)
    # one row per gene with everything kept (element -1), then one per element; genes together for locality
    whole = np.unique(gene[measured])
    row_gene = np.concatenate([whole, gene[measured]])
    row_element = np.concatenate([np.full(len(whole), -1), measured])
    order = np.argsort(row_gene, kind="stable")
    row_gene, row_element = row_gene[order], row_element[order]

    before = np.full((len(starts_), len(cells)), np.nan)
    after = np.full((len(elements), len(cells)), np.nan)
    batches = range(0, len(row_gene), batch_size)
    for i in progress_bar(batches, description="element effects", disable=not progress):
        genes, rows = row_gene[i:i + batch_size], row_element[i:i + batch_size]
        keep = torch.ones(len(rows), n_bins)
        for j, e in enumerate(rows):
            if e >= 0:
                keep[j, first[e]:last[e]] = 0
        index = torch.from_numpy(genes)
        y = oracle.predict(X[index], S=None if S is None else S[index],
                           covariates=None if covariates is None else covariates[index],
                           keep=keep, batch_size=batch_size).detach().cpu().numpy()
        if y.shape != (len(rows), len(cells)):
            raise SchemaError(f"the model must predict one column for each of the {len(cells)} cells "
                              f"({', '.join(cells)}); got shape {y.shape} for {len(rows)} windows")
        before[genes[rows < 0]] = y[rows < 0]
        after[rows[rows >= 0]] = y[rows >= 0]

    long = elements.iloc[np.repeat(np.arange(len(elements)), len(cells))].reset_index(drop=True)
    long["cell"] = np.tile(np.asarray(cells, dtype=object), len(elements))
    long["effect"] = (before[gene] - after).ravel()
    long.loc[long["effect"].notna(), "evidence"] = "mask+erasure"
    return long


def pool_elements(elements: pd.DataFrame, score: Literal["score", "effect"] = "score") -> pd.DataFrame:
    """Merge the elements of all genes and cells to disjoint intervals, each base with its best score.

    Parameters
    ----------
    elements
        Elements, which may overlap.
    score
        ``score`` takes the largest mask over genes and cells; ``effect`` the largest absolute effect
        (elements whose effect was not measured are left out).

    Returns
    -------
    DataFrame
        ``chrom, start, end, score, gene_id``: disjoint and sorted. Where elements overlap, the interval is
        cut, and each part takes the score and gene of the best element over it; touching parts of equal score
        and gene are one interval.
    """
    check_elements(elements)
    values = elements[score].abs() if score == "effect" else elements[score]
    table = elements.assign(score=values.astype(float)).loc[values.notna().to_numpy()]
    pooled = []
    for chrom, group in table.sort_values("score", kind="stable").groupby("chrom", sort=True):
        start, end = group["start"].to_numpy(np.int64), group["end"].to_numpy(np.int64)
        edges = np.unique(np.concatenate([start, end]))
        owner = claim(start, end, edges)
        value = np.where(owner >= 0, group["score"].to_numpy()[owner], np.nan)
        name = np.where(owner >= 0, group["gene_id"].to_numpy(object)[owner], "")
        change = np.flatnonzero((value[1:] != value[:-1]) | (name[1:] != name[:-1])) + 1
        heads = np.concatenate([[0], change])
        tails = np.concatenate([change, [len(owner)]])
        pooled.append(pd.DataFrame({"chrom": chrom, "start": edges[heads], "end": edges[tails],
                                    "score": value[heads], "gene_id": name[heads]})[owner[heads] >= 0])
    if not pooled:
        return pd.DataFrame({"chrom": pd.Series(dtype=object), "start": pd.Series(dtype="int64"),
                             "end": pd.Series(dtype="int64"), "score": pd.Series(dtype=float),
                             "gene_id": pd.Series(dtype=object)})
    return pd.concat(pooled, ignore_index=True)


def claim(start: Int[np.ndarray, " n"], end: Int[np.ndarray, " n"],
          edges: Int[np.ndarray, " m"]) -> Int[np.ndarray, " k"]:
    """Which interval owns each piece between neighbouring `edges`: the last one that covers it, -1 for none.

    `edges` are sorted, unique and hold every start and end; intervals are given worst first.
    """
    owner = np.full(max(len(edges) - 1, 0), -1, dtype=np.int64)
    for i, (a, b) in enumerate(zip(np.searchsorted(edges, start), np.searchsorted(edges, end), strict=True)):
        owner[a:b] = i
    return owner


def to_bed(elements: pd.DataFrame) -> pd.DataFrame:
    """Elements as a BED6+ table, one row an element whatever the number of cells.

    Returns
    -------
    DataFrame
        ``chrom, start, end, name, score, strand`` and further columns, sorted by position: `name` is the
        gene, `score` 0–1000 (1000 × mean mask), `strand` is ``.``; then ``mask`` (unrounded), ``mask_sd``,
        ``summit`` where there is one, and ``effect_<cell>`` for every measured cell.
    """
    check_elements(elements)
    key = ["chrom", "start", "end", "gene_id"]
    one = elements.loc[~elements.duplicated(key).to_numpy()]
    bed = pd.DataFrame({
        "chrom": one["chrom"], "start": one["start"], "end": one["end"], "name": one["gene_id"],
        "score": (one["score"] * 1000).round().clip(0, 1000).astype("int64"), "strand": ".",
        "mask": one["score"], "mask_sd": one["score_sd"]})
    if "summit" in one:
        bed["summit"] = one["summit"]
    measured = elements.loc[elements["effect"].notna().to_numpy()]
    for cell, group in measured.groupby("cell", sort=False):
        effect = one[key].merge(group[[*key, "effect"]], on=key, how="left")["effect"]
        bed[f"effect_{cell}"] = effect.to_numpy()
    return bed.sort_values(["chrom", "start", "end", "name"], kind="stable").reset_index(drop=True)


def _check_windows(mean: np.ndarray, sd: np.ndarray, starts: np.ndarray, chroms: Sequence[str],
                   gene_ids: Sequence[str], strands: Sequence[str] | None) -> None:
    if mean.ndim != 2 or mean.shape != sd.shape:
        raise SchemaError(f"mean and sd of the mask are both (genes, bins); got {mean.shape} and {sd.shape}")
    counts = {"starts": len(starts), "chroms": len(chroms), "gene_ids": len(gene_ids)}
    if strands is not None:
        counts["strands"] = len(strands)
    for name, n in counts.items():
        if n != len(mean):
            raise SchemaError(f"{name} must hold one value for each of the {len(mean)} rows of the mask; "
                              f"got {n}")
    bad = ~((mean >= 0) & (mean <= 1) & (sd >= 0))
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise SchemaError(f"the mask lies in 0 to 1 with sd >= 0; {int(bad.sum()):,} of {mean.size:,} bins "
                          f"do not; first: gene {gene_ids[i]}, bin {j}, mean {mean[i, j]}, sd {sd[i, j]}")
    _unique(gene_ids)


def _unique(gene_ids: Sequence[str]) -> None:
    twice = pd.Series(list(gene_ids), dtype=object).duplicated().to_numpy()
    if twice.any():
        raise SchemaError(f"gene_ids are unique; {int(twice.sum()):,} repeat; first: "
                          f"{gene_ids[int(twice.argmax())]}")


def _length(chrom_sizes: Mapping[str, int], chrom: str) -> int:
    if chrom not in chrom_sizes:
        raise SchemaError(f"chrom_sizes must hold every chromosome of the windows; '{chrom}' is not in it "
                          f"({', '.join(list(chrom_sizes)[:5])})")
    return chrom_sizes[chrom]


def _reverse(strands: Sequence[str] | None, n: int) -> np.ndarray:
    """Rows that were read on the reverse strand, as a boolean vector."""
    return np.zeros(n, dtype=bool) if strands is None else np.asarray(strands, dtype=object) == "-"


def _open_runs(on: np.ndarray, merge_bins: int, min_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first bin and end bin of each called run of a boolean ``(G, n_bins)``."""
    width = on.shape[1] + 1
    padded = np.zeros((len(on), width), dtype=bool)  # a closed last column keeps runs inside their row
    padded[:, :-1] = on
    flat = runs(padded.ravel())
    row, first = np.divmod(flat[:, 0], width)
    last = first + (flat[:, 1] - flat[:, 0])
    joined = (row[1:] == row[:-1]) & (first[1:] - last[:-1] <= merge_bins)
    head = np.concatenate([[True], ~joined])[:len(row)]
    tail = np.concatenate([~joined, [True]])[-len(row):] if len(row) else head
    row, first, last = row[head], first[head], last[tail]
    long_enough = last - first >= min_bins
    return row[long_enough], first[long_enough], last[long_enough]


def _trim(mean: np.ndarray, row: np.ndarray, first: np.ndarray, last: np.ndarray, trim: float, min_bins: int
          ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs cut back to where the mask stands at `trim` of their height over the window's median."""
    base = np.median(mean, axis=1)
    on = np.zeros(mean.shape, dtype=bool)
    for g, f, e in zip(row, first, last, strict=True):
        part = mean[g, f:e]
        on[g, f:e] = part >= base[g] + trim * (part.max() - base[g])
    return _open_runs(on, 0, min_bins)


def _run_sum(values: np.ndarray, row: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sum of ``values[row, first:last]`` for each run."""
    if not len(row):
        return np.zeros(0)
    n = values.shape[1]
    bounds = np.stack([row * n + first, row * n + last], axis=1).ravel()
    return np.add.reduceat(np.append(values.ravel(), 0.0), bounds)[::2]


def _sparsity_threshold(shown: np.ndarray, budget_bins: float, merge_bins: int, min_bins: int) -> float:
    """Lowest threshold that calls at most `budget_bins` bins.

    The called set only grows as the threshold falls (joining and dropping are both monotone), so bisection
    holds.
    """
    levels = np.unique(shown[np.isfinite(shown)])
    low, high = 0, len(levels)  # the answer is the first level that fits; `high` = none does
    while low < high:
        middle = (low + high) // 2
        _, first, last = _open_runs(shown >= levels[middle], merge_bins, min_bins)
        if (last - first).sum() <= budget_bins:
            high = middle
        else:
            low = middle + 1
    return float(levels[low]) if low < len(levels) else float("inf")


def _locate(elements: pd.DataFrame, starts: np.ndarray, gene_ids: Sequence[str], n_bins: int,
            resolution: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Window and bins (genome order) of each element, cut to its window."""
    _unique(gene_ids)
    check_intervals(elements, name="elements")
    gene = pd.Index(list(gene_ids)).get_indexer(pd.Index(elements["gene_id"]))
    if (gene < 0).any():
        raise SchemaError(f"{int((gene < 0).sum()):,} of {len(elements):,} elements belong to a gene without "
                          f"a window; first: {elements['gene_id'].iloc[int((gene < 0).argmax())]}")
    first = (elements["start"].to_numpy(np.int64) - starts[gene]) // resolution
    last = -((starts[gene] - elements["end"].to_numpy(np.int64)) // resolution)
    first, last = np.maximum(first, 0), np.minimum(last, n_bins)
    off = first >= last
    if off.any():
        i = int(off.argmax())
        raise SchemaError(f"{int(off.sum()):,} of {len(elements):,} elements lie off their gene's window; "
                          f"first: {region_id(elements).iloc[i]} of {elements['gene_id'].iloc[i]}; "
                          "were they called from other windows?")
    return gene, first, last
