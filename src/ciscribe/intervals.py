"""Interval algebra on data frames: 0-based, half-open, one table per idea.

Thin over bioframe, which owns overlap and merging; here is what the house needs beside it.
"""

import bioframe
import numpy as np
import pandas as pd


def region_id(intervals: pd.DataFrame) -> pd.Series:
    """Name of each interval, ``chrom:start-end``, the region id used everywhere."""
    return (intervals["chrom"].astype(str) + ":" + intervals["start"].astype(str) + "-"
            + intervals["end"].astype(str)).rename("region")


def merge(intervals: pd.DataFrame, gap: int = 0) -> pd.DataFrame:
    """Union of intervals as disjoint sorted intervals; neighbours up to `gap` bp apart are joined."""
    bare = intervals.loc[:, ["chrom", "start", "end"]]
    if not len(bare):
        return bare.copy()
    return pd.DataFrame(bioframe.merge(bare, min_dist=gap)).loc[:, ["chrom", "start", "end"]]


def overlap_bp(intervals: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Count the bp of each interval that `others` cover, each base once; int64, row order kept."""
    if not len(intervals) or not len(others):
        return np.zeros(len(intervals), dtype=np.int64)
    query = intervals[["chrom", "start", "end"]].reset_index(drop=True)
    covered = bioframe.coverage(query, merge(others))["coverage"]
    return covered.fillna(0).to_numpy(dtype=np.int64)


def overlapping(intervals: pd.DataFrame, others: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `intervals` and of `others`, by place, that share at least one base; int64, sorted by the first.

    Examples
    --------
    >>> table = pd.DataFrame({"chrom": "chr1", "start": [0, 10], "end": [5, 20]})
    >>> [rows.tolist() for rows in overlapping(table, table.assign(start=[4, 20], end=[11, 30]))]
    [[0, 1], [0, 0]]
    """
    if not len(intervals) or not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    left, right = (table.loc[:, ["chrom", "start", "end"]].reset_index(drop=True) for table in (intervals, others))
    found = bioframe.overlap(left, right, how="inner", return_input=False, return_index=True)
    i, j = (found[name].to_numpy(np.int64) for name in ("index", "index_"))
    order = np.lexsort((j, i))
    return i[order], j[order]


def total_bp(intervals: pd.DataFrame) -> int:
    """Count the bp in the union of the intervals."""
    merged = merge(intervals)
    return int((merged["end"] - merged["start"]).sum()) if len(merged) else 0


def runs(mask: np.ndarray) -> np.ndarray:
    """Start and end of each run of True in a boolean vector; shape ``(n_runs, 2)``, half-open.

    Examples
    --------
    >>> runs(np.array([True, True, False, True])).tolist()
    [[0, 2], [3, 4]]
    """
    padded = np.concatenate([[False], np.asarray(mask, bool), [False]])
    return np.flatnonzero(np.diff(padded.astype(np.int8))).reshape(-1, 2)
