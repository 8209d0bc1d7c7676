"""Folds that no family of sequences straddles: groups by shared k-mers, then whole groups to folds.

A reporter library holds tiles that overlap, variants of one base, homologs and both strands of one piece of
DNA. Dealt out at random, a near copy of a test sequence is trained on, and the score measures memory. Here
two sequences that share a good part of their k-mers come into one group, groups are closed under that
relation, and a fold takes groups whole.
"""

from typing import no_type_check

import numba
import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Int8, Shaped, UInt8
from numpy import ndarray

from ciscribe.errors import ConfigError, SchemaError
from ciscribe.sequence import check_codes

K = 10
THRESHOLD = 0.15
UBIQUITOUS = 0.5
_STRATA = 10  # quantile bins of a target among which folds are evened out


def kmer_sets(codes: UInt8[ndarray, "N L"], k: int, both_strands: bool = True
              ) -> tuple[Shaped[ndarray, " M"], Shaped[ndarray, " N1"]]:
    """Distinct k-mers of every sequence; windows that touch an N are left out.

    Parameters
    ----------
    codes
        Sequences, codes 0..4.
    k
        Length, bp; at most 31.
    both_strands
        A k-mer and its reverse complement count as one.

    Returns
    -------
    values
        int64, sorted within each sequence; those of sequence i are ``values[bounds[i]:bounds[i + 1]]``.
    bounds
        int64, one more than there are sequences.
    """
    if not 1 <= k <= 31:
        raise ConfigError(f"k must lie in 1..31; got {k}")
    check_codes(codes)
    values, n = _kmer_sets(np.ascontiguousarray(codes), k, both_strands)
    return values, np.concatenate([[0], np.cumsum(n)])


@numba.njit(cache=True, nogil=True)
@no_type_check  # pytest's shape checks cannot wrap compiled functions
def _kmer_sets(codes, k, both_strands):  # pragma: no cover - compiled
    n, length = codes.shape
    values = np.empty(n * max(length - k + 1, 0), np.int64)
    sizes = np.zeros(n, np.int64)
    mask = (np.int64(1) << (2 * k)) - 1
    at = 0
    for i in range(n):
        first, forward, reverse, run = at, np.int64(0), np.int64(0), 0
        for p in range(length):
            c = np.int64(codes[i, p])
            if c > 3:
                run = 0
                continue
            forward = ((forward << 2) | c) & mask
            reverse = (reverse >> 2) | ((3 - c) << (2 * (k - 1)))
            run += 1
            if run >= k:
                values[at] = min(forward, reverse) if both_strands else forward
                at += 1
        row = np.unique(values[first:at])
        values[first:first + len(row)] = row
        at = first + len(row)
        sizes[i] = len(row)
    return values[:at].copy(), sizes


@numba.njit(cache=True, nogil=True)
@no_type_check
def _link(kmer, bounds, post, post_bounds, size, threshold, parent):  # pragma: no cover - compiled
    """Union of all pairs that share enough, in place on `parent`; an inverted index counts what they share."""
    n = len(bounds) - 1
    shared = np.zeros(n, np.int64)
    touched = np.empty(n, np.int64)
    for i in range(n):
        n_touched = 0
        for a in range(bounds[i], bounds[i + 1]):
            for b in range(post_bounds[kmer[a]], post_bounds[kmer[a] + 1]):
                j = post[b]
                if j >= i:
                    break
                if shared[j] == 0:
                    touched[n_touched] = j
                    n_touched += 1
                shared[j] += 1
        for t in range(n_touched):
            j = touched[t]
            if shared[j] >= threshold * min(size[i], size[j]):
                x, y = i, j
                while parent[x] != x:
                    parent[x] = parent[parent[x]]
                    x = parent[x]
                while parent[y] != y:
                    parent[y] = parent[parent[y]]
                    y = parent[y]
                parent[max(x, y)] = min(x, y)
            shared[j] = 0


def similarity_groups(codes: UInt8[ndarray, "N L"], *, k: int = K, threshold: float = THRESHOLD,
                      both_strands: bool = True, ubiquitous: float = UBIQUITOUS) -> Int[ndarray, " N"]:
    """Group sequences that are pieces, variants or relatives of one another.

    Two sequences that share at least `threshold` of the distinct k-mers of the one that has fewer get one
    group; groups are closed under this (single linkage). K-mers that more than a share `ubiquitous` of all
    sequences hold (constant flanks, a minimal promoter) say nothing and are left out. A sequence that they
    make up more than half of is a variant of what the whole library varies, as in saturation mutagenesis:
    all such sequences are one group.

    Parameters
    ----------
    codes
        Sequences, codes 0..4, padded with N.
    k
        Length of the k-mers, bp.
    threshold
        Share of k-mers in common, above 0 and at most 1.
    both_strands
        Reverse complements count as the same sequence.
    ubiquitous
        K-mers in more than this share of the sequences are left out.

    Returns
    -------
    ndarray
        int64, groups numbered from 0 by first appearance. A sequence shorter than `k` is grouped with its
        exact copies only.

    Examples
    --------
    >>> import numpy as np
    >>> from ciscribe.sequence import encode
    >>> first = "ACGTTGCATTGACCAGATTACAGGCATCCG"
    >>> similarity_groups(np.stack([encode(first), encode("T" + first[:-1]), encode(first[::-1])])).tolist()
    [0, 0, 1]
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold is a share above 0 and at most 1; got {threshold}")
    n = len(codes)
    values, bounds = kmer_sets(codes, k, both_strands)
    row = np.repeat(np.arange(n), np.diff(bounds))
    _, kmer, count = np.unique(values, return_inverse=True, return_counts=True)
    rare = (count <= ubiquitous * n)[kmer] if n > 2 else np.ones(len(kmer), bool)
    size = np.bincount(row[rare], minlength=n)
    parent = np.arange(n)
    _, copies = np.unique(codes, axis=0, return_inverse=True)
    _join(parent, copies.ravel(), np.diff(bounds) == 0)
    _join(parent, np.zeros(n, np.int64), np.diff(bounds) > 2 * size)
    kmer, row = kmer[rare], row[rare]
    order = np.argsort(kmer, kind="stable")  # rows stay sorted within a k-mer
    _link(kmer, np.concatenate([[0], np.cumsum(size)]), row[order],
          np.concatenate([[0], np.cumsum(np.bincount(kmer, minlength=len(count)))]), size, threshold, parent)
    for i in range(n):  # a parent is never above its child
        parent[i] = parent[parent[i]]
    return pd.factorize(parent)[0].astype(np.int64)


def _join(parent: ndarray, label: ndarray, chosen: ndarray) -> None:
    """Join the chosen rows that have the same label, in place; rows must still be their own parents."""
    rows = np.flatnonzero(chosen)
    _, first, inverse = np.unique(label[rows], return_index=True, return_inverse=True)
    parent[rows] = rows[first][inverse]


def folds_by(column: pd.Series, n_folds: int, *, seed: int = 0, stratify: Shaped[ndarray, "N ..."] | None = None
             ) -> Int8[ndarray, " N"]:
    """Folds by gene, chromosome or any other column: rows with the same value stay together.

    Raises
    ------
    SchemaError
        When values are missing.
    """
    missing = column.isna().to_numpy()
    if missing.any():
        raise SchemaError(f"{int(missing.sum()):,} of {len(column):,} rows have no {column.name}, by which the folds "
                          f"are made; first: row {int(missing.argmax())}; drop them or fold by another column")
    return grouped_folds(pd.factorize(column)[0].astype(np.int64), n_folds, seed=seed, stratify=stratify)


def grouped_folds(groups: Int[ndarray, " N"], n_folds: int, *, seed: int = 0,
                  stratify: Shaped[ndarray, "N ..."] | None = None) -> Int8[ndarray, " N"]:
    """Deal whole groups out to folds of about equal size.

    The largest groups go first, those of one size in an order drawn from `seed`. No fold exceeds its share
    by more than the largest group.

    Parameters
    ----------
    groups
        Group of every row, any whole numbers.
    n_folds
        At least 2.
    seed
        Of the order among groups of one size.
    stratify
        Targets ``(N,)`` or ``(N, T)``, NaN = not measured: folds get about the same share of every tenth
        of each target.

    Returns
    -------
    ndarray
        int8, 0 .. n_folds − 1.

    Raises
    ------
    ConfigError
        When there are fewer groups than folds, or one group holds more than half of the rows.
    """
    n = len(groups)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if not 2 <= n_folds <= 127:
        raise ConfigError(f"n_folds lies in 2..127; got {n_folds}")
    if len(sizes) < n_folds:
        raise ConfigError(f"{n_folds} folds need at least {n_folds} groups; {n:,} rows fall into {len(sizes):,} groups")
    if sizes.max() > n / 2 and sizes.max() > 1:
        raise ConfigError(f"the largest of {len(sizes):,} groups holds {sizes.max():,} of {n:,} rows, so that no "
                          "balanced folds exist; raise the threshold or k of similarity_groups, or group by a column")
    strata = _strata(stratify, n)
    held = np.zeros((len(sizes), strata.shape[1]))
    np.add.at(held, group, strata)
    held /= np.maximum(strata.sum(axis=0), 1)  # share of each stratum
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    load, fill = np.zeros(n_folds, np.int64), np.zeros((n_folds, strata.shape[1]))
    cap = -(-n // n_folds)
    out = np.empty(len(sizes), np.int8)
    for g in order:
        cost = fill @ held[g]  # what the sum of squares would gain, up to what is equal for all folds
        cost = np.where(load + sizes[g] <= cap, cost, np.inf)
        best = int(np.lexsort((load, cost))[0]) if np.isfinite(cost).any() else int(load.argmin())
        out[g] = best
        load[best] += sizes[g]
        fill[best] += held[g]
    return out[group]


def _strata(targets: ndarray | None, n: int) -> Float[ndarray, "N strata"]:
    """Membership of every row in the tenths of each target, one column a tenth; one column for all without any."""
    if targets is None:
        return np.ones((n, 1))
    targets = np.asarray(targets, dtype=np.float64).reshape(n, -1)
    columns = []
    for y in targets.T:
        measured = np.isfinite(y)
        rank = pd.Series(y).rank(method="first", pct=True).to_numpy()
        tenth = np.ceil(np.nan_to_num(rank) * _STRATA)
        columns.append(((tenth[:, None] == np.arange(1, _STRATA + 1)) & measured[:, None]).astype(float))
    return np.concatenate(columns, axis=1)
