"""Which element serves which gene, asked of a model: what the gene loses without it, and where the model looks.

An element and a gene are a pair when the element touches the window that the model reads for the gene. Windows come as
arrays aligned to a table; a row read on the reverse strand has the last base of its interval first. Every function
returns a links table with ``effect`` = before − after where something was taken away (positive: the element raises the
gene), and ``score``, higher for a likelier link. Only elements that raise a gene score above 0.
"""

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray
from rich.progress import track
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnsupportedError
from ciscribe.intervals import overlapping
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import Edits, predict_edited
from ciscribe.perturb.tiles import ablate
from ciscribe.schema import LINK_COLUMNS, STRANDS, check_genes, check_intervals, check_links
from ciscribe.sequence import N, Reference, codes_of, one_hot_tensor, reverse_complement_codes

HOW = ("erase", "both", "n", "signals", "shuffle")
"""Ways to hide an element from a model; see `mask_links`."""
Sequences = Shaped[Tensor, "G ..."] | Shaped[ndarray, "G ..."]

CARDS = {
    "mask": Card(
        name="mask_links", kind="links",
        summary="How much the predicted expression of a gene falls when an element is hidden from the model.",
        paper="own; hiding by the mask of Su et al., ICLR 2025, arXiv:2502.13991, shuffling as Toneyan & Koo, Nat "
              "Genet 2024, doi:10.1038/s41588-024-01923-3",
        n_policy="an N that stands in an element stays"),
    "element-ism": Card(
        name="element-ism", kind="links",
        summary="How much single base changes within an element move the predicted expression of a gene.",
        paper="Zhou & Troyanskaya, Nat Methods 2015, doi:10.1038/nmeth.3547",
        differences=("Substitutions within an element become one number for the pair: the mean, or the largest loss.",),
        n_policy="an N is not mutated"),
    "attention": Card(
        name="attention_links", kind="links",
        summary="How much a gene's promoter looks at an element in EPInformer, times the element's activity.",
        paper="Lin, Luo & Pinello, Nat Commun 2026, doi:10.1038/s41467-026-70535-8",
        differences=("Averaged over layers and heads, as published; the product with the activity is one of the "
                     "paper's scores, the attention alone is kept as a column.",)),
    "abc-attribution": Card(
        name="abc-attribution", kind="links",
        summary="The ABC score of a pair times the share of what the model relies on that lies in the element.",
        paper="own; ABC is Fulco et al., Nat Genet 2019, doi:10.1038/s41588-019-0538-0"),
}


class Segments(NamedTuple):
    """Promoters and elements side by side, as EPInformer reads them.

    Parameters
    ----------
    codes
        uint8 ``(G, n · length)``; the promoter in the middle, free slots N.
    features
        float32 ``(G, F, n)``; 0 for the promoter and free slots.
    slots
        Links table of the elements that found a place, with ``row`` (gene) and ``slot`` (segment).
    """

    codes: UInt8[ndarray, "G L"]
    features: Float[ndarray, "G F n"]
    slots: pd.DataFrame


def element_segments(reference: Reference, genes: pd.DataFrame, links: pd.DataFrame, *,
                     features: Sequence[str] = ("distance", "activity", "contact"), length: int = 2000,
                     n_elements: int = 60, max_distance: int = 100_000, min_distance: int = 1000) -> Segments:
    """Cut a gene's promoter and its nearest candidate elements out of the genome, for a model that reads sets.

    Parameters
    ----------
    reference
        The genome; what lies off a chromosome is N.
    genes
        Genes table; one row of the result each, in its order.
    links
        Candidate pairs of one cell, with the columns of `features`; pairs of other genes are left out.
    features
        Columns of `links` given for each element, as they are.
    length
        bp of a segment, around the TSS and around the middle of an element.
    n_elements
        Slots for elements, even; the nearest are taken.
    max_distance, min_distance
        Elements farther from the TSS, or not farther than the second, are left out (the promoter stands for those).

    Returns
    -------
    Segments
        Segments of a gene on the minus strand are reverse complemented.

    Raises
    ------
    SchemaError
        When tables are broken, pairs are of several cells, or a feature is missing or not finite.
    """
    check_genes(genes, dict(reference.chrom_sizes))
    check_links(links)
    if n_elements < 0 or n_elements % 2:
        raise SchemaError(f"n_elements is even, so that the promoter has the middle; got {n_elements}")
    if len(cells := links["cell"].unique()) > 1:
        raise SchemaError(f"the candidates of one cell are needed; got {', '.join(map(str, cells))}")
    missing = [c for c in features if c not in links]
    if missing:
        raise SchemaError(f"links need a column for each feature; missing: {', '.join(missing)}; got: "
                          f"{', '.join(map(str, links.columns))}")
    values = links[list(features)].to_numpy(np.float32)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        i = int(bad.argmax())
        raise SchemaError(f"features must be finite; {int(bad.sum()):,} of {len(links):,} links have others; first: "
                          f"row {i} {links['chrom'].iloc[i]}:{links['start'].iloc[i]}")
    row = pd.Index(genes["gene_id"]).get_indexer(pd.Index(links["gene_id"]))
    distance = links["distance"].to_numpy()
    order = np.lexsort((links["start"], distance, row))
    order = order[(row >= 0)[order] & (distance <= max_distance)[order] & (distance > min_distance)[order]]
    rank = np.arange(len(order)) - np.searchsorted(row[order], row[order])
    order, rank = order[rank < n_elements], rank[rank < n_elements]
    slot = rank + (rank >= n_elements // 2)

    codes = np.full((len(genes), n_elements + 1, length), N, np.uint8)
    flip = (genes["strand"] == "-").to_numpy()
    middle = (links["start"].to_numpy() + links["end"].to_numpy()) // 2
    places = [(g, n_elements // 2, c, t) for g, (c, t) in enumerate(zip(genes["chrom"], genes["tss"], strict=True))]
    places += zip(row[order], slot, links["chrom"].to_numpy()[order], middle[order], strict=True)
    for g, s, chrom, at in places:
        start = int(at) - ((length - 1) // 2 if flip[g] else length // 2)  # it stands at length // 2 either way
        piece = reference.fetch(chrom, start, start + length)
        codes[g, s] = reverse_complement_codes(piece) if flip[g] else piece
    made = np.zeros((len(genes), len(features), n_elements + 1), np.float32)
    made[row[order], :, slot] = values[order]
    slots = links.iloc[order].assign(row=row[order], slot=slot).reset_index(drop=True)
    return Segments(codes.reshape(len(genes), -1), made, slots)


def mask_links(oracle: Oracle, X: Sequences, S: Tensor | None, covariates: Tensor | None, windows: pd.DataFrame,
               elements: pd.DataFrame, *, cells: Sequence[str], how: str = "erase", tracks: Sequence[int] | None = None,
               resolution: int | None = None, max_distance: int | None = None, n_shuffles: int = 5,
               batch_size: int = 64, seed: int | None = 0, progress: bool = False) -> pd.DataFrame:
    """How much the predicted expression of each gene falls when an element near it is hidden from the model.

    Parameters
    ----------
    oracle
        Predicts one number a cell.
    X, S, covariates
        Codes ``(G, L)`` or one-hot ``(G, 4, L)``, signals ``(G, S, bins)`` and gene features, one row a window.
    windows
        ``chrom, start, end, strand, gene_id``, one row a row of `X`: the bases it covers (may run off the chromosome),
        and the strand on which it was read (``-``: reverse complemented, signals reversed). ``tss`` where it is not
        position L // 2 of the row.
    elements
        Intervals, each one once. Every element is paired with every window that it touches; what lies off the
        window does not count.
    cells
        Names of the oracle's targets.
    how
        ``"erase"``: closes the model's own mask (`keep`) over the bins that the element touches. ``"n"``: its bases
        become N. ``"signals"``: the bins that it touches become 0. ``"both"``: N and 0. ``"shuffle"``: its bases are
        shuffled with their pairs of neighbours kept, mean over `n_shuffles`.
    tracks
        Rows of `S` that ``"signals"`` and ``"both"`` set to 0, all by default: leave out what is no measurement, such
        as the contact with the TSS.
    resolution
        bp a bin of mask and signals; None: that of `S`, else 1.
    max_distance
        Largest distance in bp from the middle of an element to the TSS; None: no limit.
    batch_size, progress
        Windows a forward pass; show a bar.
    seed
        Of the shuffles.

    Returns
    -------
    DataFrame
        Links table with ``effect`` = before − after, ``effect_se`` (standard error over shuffles, else NaN), ``before``
        and ``method``; ``score`` is the effect, 0 where it is negative.

    Raises
    ------
    SchemaError
        When tables and arrays do not fit, elements repeat, or there are no signals to erase.
    UnsupportedError
        When the model has no mask to close.
    """
    if how not in HOW:
        raise SchemaError(f"how is one of {', '.join(HOW)}; got {how!r}")
    codes = codes_of(X)
    bins = _bins(codes, S, resolution)
    pairs = _pairs(windows, elements, codes.shape, max_distance)
    if how in ("n", "shuffle"):
        fill = "N" if how == "n" else "dinucleotide"
        table = ablate(oracle, codes, pairs.loc[:, ["region", "start", "end"]], S, covariates, fill=fill,
                       n_fills=n_shuffles, batch_size=batch_size, seed=seed, progress=progress)
        before, effect, error = (table[c].to_numpy().reshape(len(pairs), -1) for c in ("before", "effect", "se"))
    else:
        keep, signals = None, None if S is None else S.clone()
        if how == "erase":
            if "keep" not in inspect.signature(oracle.model.forward).parameters:
                raise UnsupportedError(f"{type(oracle.model).__name__} has no mask that could be closed (no argument "
                                       "keep); use how='both', 'n' or 'shuffle'")
            keep = torch.ones(len(codes), codes.shape[1] // bins)
        elif S is None:
            raise SchemaError(f"how={how!r} sets signals to 0, but there are none; use how='n' or 'shuffle'")
        rows = np.arange(S.shape[1]) if tracks is None and S is not None else np.asarray(tracks or (), dtype=np.int64)
        whole = oracle.predict(torch.from_numpy(codes), S, covariates, keep, batch_size=batch_size).numpy()
        after = np.zeros((len(pairs), whole.shape[1]))
        region, start, end = (pairs[c].to_numpy() for c in ("region", "start", "end"))
        for i in track(range(0, len(pairs), batch_size), "links", disable=not progress):
            at = region[i:i + batch_size]
            x, s, k = codes[at], None if signals is None else signals[at], None if keep is None else keep[at]
            for j in range(len(at)):
                lo, hi = start[i + j], end[i + j]
                if how == "both":
                    x[j, lo:hi] = N
                if k is not None:
                    k[j, lo // bins:-(-hi // bins)] = 0
                elif s is not None:
                    s[j, rows, lo // bins:-(-hi // bins)] = 0
            c = None if covariates is None else covariates[at]
            after[i:i + len(at)] = oracle.predict(torch.from_numpy(x), s, c, k, batch_size=batch_size).numpy()
        before = whole[region].astype(np.float64)
        effect, error = before - after, np.full(before.shape, np.nan)
    return _table(pairs, cells, effect, effect_se=error, before=before, method=f"mask_{how}")


def ism_links(oracle: Oracle, X: Sequences, S: Tensor | None, covariates: Tensor | None, windows: pd.DataFrame,
              elements: pd.DataFrame, *, cells: Sequence[str], summary: str = "mean",
              step: int = 1, max_distance: int | None = None, batch_size: int = 64, progress: bool = False
              ) -> pd.DataFrame:
    """How much single base changes within an element move the predicted expression of each gene near it.

    The loss at a position is the mean over its three substitutions of before − after.

    Parameters
    ----------
    oracle, X, S, covariates, windows, elements, cells, max_distance, batch_size, progress
        As in `mask_links`.
    summary
        ``"mean"`` loss over the positions of the element, or the ``"largest"`` in absolute value, with its sign.
    step
        Mutate every so many positions (counted in the window), to save time.

    Returns
    -------
    DataFrame
        Links table with ``effect`` (the summary), ``n_positions`` and ``method``; ``score`` is the effect, 0 where it
        is negative. An element without a base to mutate has effect 0.

    Raises
    ------
    SchemaError
        As `mask_links`.
    """
    if summary not in ("mean", "largest") or step < 1:
        raise SchemaError(f"summary is mean or largest, and step at least 1; got {summary!r} and {step}")
    codes = codes_of(X)
    pairs = _pairs(windows, elements, codes.shape, max_distance)
    before = oracle.predict(torch.from_numpy(codes), S, covariates, batch_size=batch_size).numpy()
    effect, n_positions = np.zeros((len(pairs), before.shape[1])), np.zeros(len(pairs), np.int64)
    groups = pairs.groupby("region").indices
    for region, rows in track(groups.items(), "links", total=len(groups), disable=not progress):
        one = slice(int(region), int(region) + 1)  # pyright: ignore[reportArgumentType]
        wanted = np.zeros(codes.shape[1] + 1, np.int64)
        np.add.at(wanted, pairs["start"].to_numpy()[rows], 1)
        np.add.at(wanted, pairs["end"].to_numpy()[rows], -1)
        at = np.flatnonzero(wanted.cumsum()[:-1] > 0)
        at = at[(at % step == 0) & (codes[one][0, at] < N)]
        if not len(at):
            continue
        bases = (codes[one][0, at][:, None] + np.arange(1, 4)) % 4
        edits = Edits(np.zeros(3 * len(at), np.int64), np.repeat(at, 3), bases.reshape(-1, 1).astype(np.uint8))
        extras = (None if v is None else v[one] for v in (S, covariates))
        y = predict_edited(oracle, codes[one], edits, *extras, batch_size=batch_size)
        loss = before[one] - y.reshape(len(at), 3, -1).mean(axis=1)
        for r in rows:
            lo, hi = np.searchsorted(at, (pairs["start"].iloc[r], pairs["end"].iloc[r]))
            n_positions[r] = hi - lo
            if hi > lo:
                part = loss[lo:hi]
                best = np.abs(part).argmax(axis=0)
                effect[r] = part.mean(axis=0) if summary == "mean" else part[best, np.arange(part.shape[1])]
    return _table(pairs.assign(n_positions=n_positions), cells, effect, method=f"ism_{summary}")


def attention_links(oracle: Oracle, X: Sequences, S: Tensor | None, slots: pd.DataFrame, *, activity: str = "activity",
                    batch_size: int = 64, progress: bool = False) -> pd.DataFrame:
    """How much a gene's promoter looks at each of its elements, times the element's activity.

    Attention has no sign and belongs to no target: it says what the model uses, not what that does.

    Parameters
    ----------
    oracle
        Its model has ``attention(X[, S]) -> (B, layers, n, n)`` with the promoter in row n // 2, as EPInformer.
    X, S
        Segments and their features, of `element_segments`.
    slots
        Which element stands in which segment, of `element_segments`.
    activity
        Column of `slots` that the attention is multiplied by.

    Returns
    -------
    DataFrame
        `slots` without ``row`` and ``slot``, with ``attention`` (mean over layers and heads), ``score`` = attention ×
        activity, and ``method``.

    Raises
    ------
    UnsupportedError
        When the model shows no attention.
    SchemaError
        When slots do not fit the arrays, or an activity is missing, negative or not a number.
    """
    read = getattr(oracle.model, "attention", None)
    if not callable(read) or isinstance(read, torch.nn.Module):
        raise UnsupportedError(f"{type(oracle.model).__name__} shows no attention: it has no method attention(X, S); "
                               "epinformer has")
    check_links(slots)
    for column in ("row", "slot", activity):
        if column not in slots:
            raise SchemaError(f"slots need the columns row, slot, {activity}; got {', '.join(map(str, slots.columns))}")
    level = slots[activity].to_numpy(float)
    bad = ~(level >= 0)
    if bad.any():
        i = int(bad.argmax())
        raise SchemaError(f"{int(bad.sum()):,} of {len(slots):,} elements have a negative activity or none; first: row "
                          f"{i} {slots['chrom'].iloc[i]}:{slots['start'].iloc[i]} = {level[i]}")
    codes, row, slot = codes_of(X), slots["row"].to_numpy(), slots["slot"].to_numpy()
    parts = []
    with oracle.evaluating():
        for i in track(range(0, len(codes), batch_size), "attention", disable=not progress):
            part = one_hot_tensor(torch.from_numpy(codes[i:i + batch_size]).to(oracle.device))
            extra = () if S is None else (S[i:i + batch_size].to(oracle.device),)
            weights = torch.as_tensor(read(part, *extra))
            parts.append(weights[:, :, weights.shape[-1] // 2].mean(dim=1).float().cpu().numpy())
    looks = np.concatenate(parts)
    if len(slots) and (row.max() >= len(looks) or slot.max() >= looks.shape[1]):
        raise SchemaError(f"slots name row {row.max()} and segment {slot.max()}; X has {len(looks)} rows of "
                          f"{looks.shape[1]} segments")
    attention = looks[row, slot].astype(float)
    out = slots.drop(columns=["row", "slot"]).assign(attention=attention, score=attention * level, method="attention")
    return out.reset_index(drop=True)


def abc_attribution_links(links: pd.DataFrame, mass: Float[ndarray, "G *T bins"], windows: pd.DataFrame, *,
                          cells: Sequence[str] | None = None) -> pd.DataFrame:
    """Weigh each pair's ABC score by how much of what the model relies on lies in the element.

    Parameters
    ----------
    links
        Links whose ``score`` is ABC's, or any that is not negative.
    mass
        ``(G, bins)`` or ``(G, T, bins)``, one row a window: the mean mask, attention, or contributions of an
        attribution summed over bases. Absolute values count; bins are in the order in which the row was read.
    windows
        As in `mask_links`.
    cells
        Names of T; pairs of other cells are an error. Not needed when there is no T.

    Returns
    -------
    DataFrame
        The links, with ``mass`` (share of the window's mass in the element, 0 where it lies off the window; a bin that
        it covers in part counts in part), ``abc`` (the score that came) and ``score`` = abc × mass.

    Raises
    ------
    SchemaError
        When a gene has no window, a cell has no mass, or arrays and tables do not fit.
    """
    check_links(links)
    if mass.ndim not in (2, 3) or not np.isfinite(mass).all():
        raise SchemaError(f"mass is finite, (G, bins) or (G, T, bins); got {mass.shape}, "
                          f"{int((~np.isfinite(mass)).sum()):,} not finite")
    genes, reverse, _ = _check_windows(windows, len(mass), None)
    start, end = (windows[c].to_numpy() for c in ("start", "end"))
    bin_bp, rest = divmod(int((end - start).max(initial=0)), mass.shape[-1])
    if rest:
        raise SchemaError(f"a bin of mass is a whole number of bp; got {mass.shape[-1]:,} bins for windows of "
                          f"{end[0] - start[0]:,} bp")
    row = genes.get_indexer(pd.Index(links["gene_id"]))
    if (row < 0).any():
        raise SchemaError(f"{int((row < 0).sum()):,} of {len(links):,} links belong to a gene without a window; first: "
                          f"{links['gene_id'].iloc[int((row < 0).argmax())]}")
    target = np.zeros(len(links), np.int64)
    if mass.ndim == 3:
        if cells is None or len(cells) != mass.shape[1]:
            raise SchemaError(f"mass (G, T, bins) needs the names of its {mass.shape[1]} cells; got {cells}")
        target = pd.Index(list(cells)).get_indexer(pd.Index(links["cell"]))
        if (target < 0).any():
            raise SchemaError(f"{int((target < 0).sum()):,} of {len(links):,} links are of a cell without mass; first: "
                              f"{links['cell'].iloc[int((target < 0).argmax())]}; there are {', '.join(cells)}")
    amount = np.abs(mass if mass.ndim == 3 else mass[:, None]).astype(np.float64)
    amount[reverse] = amount[reverse][..., ::-1]  # to the order of the genome
    area = np.concatenate([np.zeros((*amount.shape[:2], 1)), amount.cumsum(axis=-1)], axis=-1)

    def up_to(position: ndarray) -> ndarray:
        at = np.clip((position - start[row]) / bin_bp, 0, mass.shape[-1])
        whole = np.minimum(at.astype(np.int64), mass.shape[-1] - 1)
        return area[row, target, whole] + (at - whole) * amount[row, target, whole]

    inside = up_to(links["end"].to_numpy()) - up_to(links["start"].to_numpy())
    same = links["chrom"].to_numpy() == windows["chrom"].to_numpy()[row]
    total = area[row, target, -1]
    share = np.divide(np.where(same, inside, 0.0), total, out=np.zeros(len(links)), where=total > 0)
    score = links["score"].to_numpy(float)
    return links.assign(abc=score, mass=share, score=score * share)


def _check_windows(windows: pd.DataFrame, n: int, length: int | None) -> tuple[pd.Index, ndarray, ndarray]:
    """Genes, whether each row was read in reverse, and the TSS; `length` None: whatever it is, the same for all."""
    missing = [c for c in ("chrom", "start", "end", "strand", "gene_id") if c not in windows]
    if missing:
        raise SchemaError(f"windows need the columns chrom, start, end, strand, gene_id; missing: {', '.join(missing)}")
    start, end = windows["start"].to_numpy(np.int64), windows["end"].to_numpy(np.int64)
    width = end - start
    length = int(width.max(initial=1)) if length is None else length
    if len(windows) != n or (width != length).any():
        raise SchemaError(f"windows have one row for each of the {n:,} sequences, {length:,} bp long; got "
                          f"{len(windows):,} rows, {int((width != length).sum()):,} of another length")
    genes = pd.Index(windows["gene_id"])
    if genes.has_duplicates:
        raise SchemaError(f"each gene has one window; {int(genes.duplicated().sum()):,} repeat; first: "
                          f"{genes[genes.duplicated()][0]}")
    strands = windows["strand"].unique()
    if not set(strands) <= set(STRANDS):
        raise SchemaError(f"strand of windows is one of {' '.join(STRANDS)}; got {', '.join(map(str, strands))}")
    reverse = (windows["strand"] == "-").to_numpy()
    middle = np.where(reverse, end - 1 - length // 2, start + length // 2)
    return genes, reverse, windows["tss"].to_numpy() if "tss" in windows else middle


def _pairs(windows: pd.DataFrame, elements: pd.DataFrame, shape: tuple[int, ...], max_distance: int | None
           ) -> pd.DataFrame:
    """Each element with each window that it touches: the link's own columns first, then where it is in the row.

    ``region, start, end`` are those within the row, as it was read; the element's are ``_start, _end``.
    """
    check_intervals(elements, name="elements")
    twice = elements.duplicated(["chrom", "start", "end"])
    if twice.any():
        e = elements.iloc[int(twice.to_numpy().argmax())]
        raise SchemaError(f"each element is given once; {int(twice.sum()):,} of {len(elements):,} repeat; first: "
                          f"{e['chrom']}:{e['start']}-{e['end']}; drop duplicates, every element meets every gene")
    genes, reverse, tss = _check_windows(windows, shape[0], shape[1])
    row, element = overlapping(windows, elements)
    first, last = (elements[c].to_numpy(np.int64)[element] for c in ("start", "end"))
    distance = np.abs((first + last) // 2 - tss[row])
    near = np.ones(len(row), bool) if max_distance is None else distance <= max_distance
    row, element, first, last, distance = (v[near] for v in (row, element, first, last, distance))
    start = np.maximum(first - windows["start"].to_numpy()[row], 0)
    end = np.minimum(last - windows["start"].to_numpy()[row], shape[1])
    start, end = np.where(reverse[row], shape[1] - end, start), np.where(reverse[row], shape[1] - start, end)
    return pd.DataFrame({"chrom": elements["chrom"].to_numpy()[element], "_start": first, "_end": last,
                         "gene_id": genes.to_numpy()[row], "distance": distance, "region": row, "start": start,
                         "end": end})


def _table(pairs: pd.DataFrame, cells: Sequence[str], effect: Float[ndarray, "n T"], *, method: str,
           **more: Float[ndarray, "n T"]) -> pd.DataFrame:
    """Links table, one row a pair and cell, from effects ``(n, T)``."""
    n, n_cells = effect.shape
    if n and n_cells != len(cells):
        raise SchemaError(f"the oracle gives {n_cells} numbers a gene, so there are {n_cells} cells; got "
                          f"{', '.join(cells)}")
    out = pairs.drop(columns=["region", "start", "end"]).rename(columns={"_start": "start", "_end": "end"})
    out = out.iloc[np.repeat(np.arange(n), len(cells))].reset_index(drop=True)
    values = {"effect": effect, **more}
    out = out.assign(cell=np.tile(np.asarray(cells, dtype=object), n), score=np.maximum(effect, 0).reshape(-1),
                     **{name: v.reshape(-1) for name, v in values.items()}, method=method)
    return out[[*LINK_COLUMNS, *(c for c in out.columns if c not in LINK_COLUMNS)]]


def _bins(codes: ndarray, S: Tensor | None, resolution: int | None) -> int:
    """Width of a bin of signals and mask in bp."""
    n_bins = codes.shape[1] // (resolution or 1) if S is None else S.shape[2]
    bins = codes.shape[1] // n_bins
    if bins * n_bins != codes.shape[1] or resolution not in (None, bins):
        raise SchemaError(f"signals or mask have a whole number of bp a bin; got {n_bins:,} bins over "
                          f"{codes.shape[1]:,} bp and resolution={resolution}")
    return bins
