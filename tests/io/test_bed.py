import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciscribe.errors import DataMissingError, InputError, SchemaError
from ciscribe.io.bed import NARROWPEAK_COLUMNS, read_bed, read_narrowpeak, write_bed, write_narrowpeak

PEAKS = pd.DataFrame(
    {
        "chrom": ["chr2", "chr1"],
        "start": [3, 5],
        "end": [7, 11],
        "name": ["NA", "b"],
        "score": [13.0, 1700.0],
        "strand": ["+", "."],
        "signal": [1.25, 3.5],
        "p_value": [2.0, -1.0],
        "q_value": [1.5, -1.0],
        "summit": [2, -1],
    }
)


def test_read_bed__passes_over_remarks_and_names_columns(tmp_path):
    path = tmp_path / "t.bed.gz"
    path.write_bytes(
        gzip.compress(
            b"#track gffTags=on\nbrowser position chr1\ntrack name=x\n"
            b"chr1\t2\t5\tNA\t7\t-\t2\t5\t0,1,2\n\nchr1\t3\t11\tb\t0\t.\t3\t11\t.\n"
        )
    )
    table = read_bed(path)
    assert list(table.columns) == [
        "chrom",
        "start",
        "end",
        "name",
        "score",
        "strand",
        "thick_start",
        "thick_end",
        "item_rgb",
    ]
    assert table["name"].tolist() == ["NA", "b"]  # a word, not a missing value
    assert table[["start", "end", "score", "thick_end"]].dtypes.tolist() == [np.int64] * 4
    assert table["item_rgb"].tolist() == ["0,1,2", "."]


def test_read_bed__three_columns_and_more_than_twelve(tmp_path):
    path = tmp_path / "t.bed"
    path.write_text("chr1 2 5\n")
    assert read_bed(path).to_dict("list") == {"chrom": ["chr1"], "start": [2], "end": [5]}
    path.write_text(
        "\t".join(["chr1", "2", "5", "n", "0", "+", "2", "5", ".", "1", "3", "0", "x", "9"]) + "\n"
    )
    assert list(read_bed(path).columns[-2:]) == ["column_13", "column_14"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "chr1\t7\t5\nchr1\t2\t5\n",
            r"t.bed: 1 of 2 intervals end at or before their start; first: row 0 chr1:7-5",
        ),
        ("chr1\t-2\t5\n", "start before 0"),
        ("chr1\tx\t5\n", "start that is not a whole number; first: row 0, 'x'"),
        ("chr1\t2\n", "at least 3 columns"),
        ("chr1\t2\t5\tn\t0\tplus\n", "strand other than"),
        ("chr1\t2\t5\nchr1\t7\t9\textra\n", "1 of 2 rows .*another number of columns"),
        ("#\n", "no rows"),
    ],
)
def test_read_bed__bad_rows(tmp_path, text, says):
    (tmp_path / "t.bed").write_text(text)
    with pytest.raises(InputError, match=says):
        read_bed(tmp_path / "t.bed")
    with pytest.raises(DataMissingError):
        read_bed(tmp_path / "absent.bed")


@pytest.mark.parametrize("name", ["t.bed", "t.bed.gz"])
def test_write_bed__round_trip_with_extra_numeric_columns(tmp_path, name):
    elements = PEAKS.assign(effect=[-0.5, 1e-7], gene_id=["g1", "g2"])
    write_bed(tmp_path / name, elements)
    expected = elements.drop(columns="gene_id")
    pd.testing.assert_frame_equal(read_bed(tmp_path / name), expected, check_dtype=False)


def test_write_bed__three_columns_stay_three_and_defaults_fill_up_to_six(tmp_path):
    path = tmp_path / "t.bed"
    write_bed(path, PEAKS[["chrom", "start", "end"]], header="called by me")
    assert path.read_text() == "#called by me\nchr2\t3\t7\nchr1\t5\t11\n"
    write_bed(path, PEAKS[["chrom", "start", "end", "strand"]])
    assert path.read_text() == "chr2\t3\t7\t.\t0\t+\nchr1\t5\t11\t.\t0\t.\n"


def test_write_bed__checks_and_keeps_the_old_file(tmp_path):
    write_bed(tmp_path / "t.bed", PEAKS)
    before = (tmp_path / "t.bed").read_bytes()
    with pytest.raises(SchemaError, match="end at or before"):
        write_bed(tmp_path / "t.bed", PEAKS.assign(end=1))
    assert (tmp_path / "t.bed").read_bytes() == before


def test_narrowpeak__round_trip_and_score_range(tmp_path):
    path = tmp_path / "t.narrowPeak"
    write_narrowpeak(path, PEAKS)
    expected = PEAKS.assign(score=[13.0, 1000.0])
    pd.testing.assert_frame_equal(read_narrowpeak(path), expected)
    assert path.read_text().splitlines()[1].split("\t")[4] == "1000"
    write_narrowpeak(path, PEAKS[["chrom", "start", "end", "score"]])
    table = read_narrowpeak(path)
    assert tuple(table.columns) == NARROWPEAK_COLUMNS
    assert table["signal"].tolist() == [13.0, 1700.0]
    assert table["summit"].tolist() == [-1, -1]


def test_read_narrowpeak__wrong_number_of_columns(tmp_path):
    (tmp_path / "t.bed").write_text("chr1\t2\t5\n")
    with pytest.raises(InputError, match="must have 10 columns"):
        read_narrowpeak(tmp_path / "t.bed")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["chr1", "I", "2"]),
            st.integers(0, 10**9),
            st.integers(1, 10**6),
            st.floats(-1e6, 1e6, width=32),
        ),
        min_size=1,
        max_size=7,
    )
)
def test_write_bed__round_trip_of_any_intervals(tmp_path_factory, rows):
    table = pd.DataFrame(
        {
            "chrom": [r[0] for r in rows],
            "start": [r[1] for r in rows],
            "end": [r[1] + r[2] for r in rows],
            "name": "n",
            "score": 0,
            "strand": "+",
            "value": np.array([r[3] for r in rows], np.float32),
        }
    )
    path = tmp_path_factory.mktemp("bed") / "t.bed"
    write_bed(path, table)
    pd.testing.assert_frame_equal(read_bed(path), table, check_dtype=False, rtol=1e-7)
