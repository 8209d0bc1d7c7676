"""Interval algebra equals sets of positions."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from ciscribe import intervals

one = st.tuples(st.sampled_from(["chr2", "chr10", "chrX"]), st.integers(0, 41), st.integers(1, 13))


def table(rows) -> pd.DataFrame:
    frame = pd.DataFrame([(c, s, s + w) for c, s, w in rows], columns=["chrom", "start", "end"])
    return frame.astype({"chrom": object, "start": "int64", "end": "int64"})


tables = st.lists(one, max_size=11).map(table)


def positions(frame: pd.DataFrame) -> set[tuple[str, int]]:
    bare = frame[["chrom", "start", "end"]]
    return {(chrom, p) for chrom, start, end in bare.itertuples(index=False) for p in range(start, end)}


@given(tables)
def test_merge__same_positions_disjoint_sorted_apart(frame):
    merged = intervals.merge(frame)
    assert positions(merged) == positions(frame)
    assert intervals.total_bp(frame) == len(positions(frame))
    assert int((merged["end"] - merged["start"]).sum()) == len(positions(frame))
    for _, group in merged.groupby("chrom"):
        assert (group["start"].to_numpy()[1:] > group["end"].to_numpy()[:-1]).all()  # touching: joined


@given(tables, st.integers(0, 7))
def test_merge__gap_joins_exactly_the_gaps_up_to_it(frame, gap):
    touching = intervals.merge(frame)
    expected = []
    for chrom, start, end in touching.itertuples(index=False):
        if expected and expected[-1][0] == chrom and start - expected[-1][2] <= gap:
            expected[-1][2] = end
        else:
            expected.append([chrom, start, end])
    assert intervals.merge(frame, gap=gap).to_numpy().tolist() == expected


@given(tables, tables)
def test_overlap_bp__equals_counting_positions(frame, others):
    frame.index = pd.Index(range(len(frame), 0, -1))  # order by row, not by label
    covered = positions(others)
    expected = [sum((c, p) in covered for p in range(s, e)) for c, s, e in frame.itertuples(index=False)]
    got = intervals.overlap_bp(frame, others)
    assert got.dtype == np.int64
    assert got.tolist() == expected


@given(tables)
def test_merge__changes_neither_argument_nor_extra_columns(frame):
    frame["score"] = 1.0
    before = frame.copy()
    intervals.merge(frame)
    intervals.overlap_bp(frame, frame)
    pd.testing.assert_frame_equal(frame, before)


@given(st.lists(st.booleans(), max_size=61))
def test_runs__equals_walking_along(mask):
    expected, start = [], None
    for i, inside in enumerate([*mask, False]):
        if inside and start is None:
            start = i
        if not inside and start is not None:
            expected.append([start, i])
            start = None
    got = intervals.runs(np.array(mask, dtype=bool))
    assert got.shape == (len(expected), 2)
    assert got.tolist() == expected


def test_region_id__is_chrom_start_end():
    frame = table([("chr2", 5, 2), ("chrX", 0, 3)])
    ids = intervals.region_id(frame)
    assert ids.tolist() == ["chr2:5-7", "chrX:0-3"]
    assert ids.name == "region"
