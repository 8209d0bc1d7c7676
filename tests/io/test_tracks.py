import gzip
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pyBigWig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciscribe.errors import DataMissingError, InputError, SchemaError
from ciscribe.io import tracks as tracks_module
from ciscribe.io.tracks import (
    Runs,
    Track,
    bin_means,
    check_build,
    read_bedgraph,
    read_bigwig,
    read_sites,
    write_bedgraph,
    write_bigwig,
)

SIZES = {"chr1": 101, "chr2": 53, "chrM": 17}


def make_runs(*rows):
    start, end, value = zip(*rows, strict=True)
    return Runs(np.array(start, np.int32), np.array(end, np.int32), np.array(value, np.float32))


@st.composite
def some_runs(draw, size=97):
    borders = sorted(draw(st.sets(st.integers(0, size), min_size=2, max_size=31)))
    pieces = list(pairwise(borders))
    kept = [p for p in pieces if draw(st.booleans())]
    values = [draw(st.floats(-1000, 1000, width=32)) for _ in kept]
    return Runs(
        np.array([a for a, _ in kept], np.int32),
        np.array([b for _, b in kept], np.int32),
        np.array(values, np.float32),
    )


TRACK = Track(
    "atac", {"chr1": make_runs((2, 5, 1.5), (5, 7, 0.25), (90, 101, 3.0)), "chr2": make_runs((0, 53, -2.0))}
)


def same(a, b):
    return set(a.runs) == set(b.runs) and all(
        np.array_equal(x, y) for c in a.runs for x, y in zip(a.runs[c], b.runs[c], strict=True)
    )


# -- bin_means -----------------------------------------------------------------------------------------------


def per_base(runs, starts, n_bins, resolution):
    """Unroll the chromosome base by base: the slow, obvious twin."""
    value = {}
    for s, e, v in zip(*runs, strict=True):
        for position in range(s, e):
            value[position] = float(v)
    return np.array(
        [
            [
                sum(value.get(start + i * resolution + j, 0.0) for j in range(resolution)) / resolution
                for i in range(n_bins)
            ]
            for start in starts
        ]
    )


@given(
    some_runs(),
    st.lists(st.integers(-40, 130), min_size=1, max_size=5),
    st.integers(1, 11),
    st.integers(1, 13),
)
def test_bin_means__equals_the_per_base_twin(runs, starts, n_bins, resolution):
    got = bin_means(runs, np.array(starts), n_bins, resolution)
    assert got.shape == (len(starts), n_bins)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, per_base(runs, starts, n_bins, resolution), rtol=1e-6, atol=1e-4)


def test_bin_means__starts_may_be_negative_unsorted_of_any_integer_type_or_none():
    runs = make_runs((0, 3, 6.0))
    for dtype in (np.int32, np.int64):
        assert bin_means(runs, np.array([2, -2], dtype), 2, 2).tolist() == [[3.0, 0.0], [0.0, 6.0]]
    assert bin_means(runs, np.empty(0, np.int64), 3, 2).shape == (0, 3)


def test_bin_means__no_runs_is_zero_and_far_windows_do_not_overflow():
    empty = Runs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    assert not bin_means(empty, np.array([5, 7]), 3, 11).any()
    runs = make_runs((2_000_000_000, 2_000_000_128, 5.0))
    assert bin_means(runs, np.array([1_999_999_872]), 1, 2**20).item() == pytest.approx(5.0 * 128 / 2**20)
    assert bin_means(runs, np.array([2_000_000_000]), 2, 64).tolist() == [[5.0, 5.0]]


def test_bin_means__refuses_empty_bins():
    with pytest.raises(ValueError, match="at least 1"):
        bin_means(make_runs((0, 3, 6.0)), np.array([0]), 3, 0)


# -- Track ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(5, 9, 1), (7, 11, 1)], "1 of 2 runs on chr1 overlap.*first: row 1 chr1:7-11"),
        ([(7, 11, 1), (2, 5, 1)], "not sorted"),
        ([(-3, 5, 1)], "start before 0"),
        ([(5, 5, 1)], "end at or before"),
        ([(0, 2, 1), (3, 5, np.nan), (7, 9, np.inf)], "2 of 3 runs on chr1 hold NaN or infinite.*row 1"),
    ],
)
def test_track__refuses_runs_out_of_order_or_without_value(rows, says):
    with pytest.raises(SchemaError, match=says):
        Track("t", {"chr1": make_runs(*rows)})


def test_rename_chroms__renames_runs_and_sizes_and_reports():
    track = Track(
        "dnase",
        {"1": make_runs((2, 5, 1)), "MT": make_runs((3, 7, 2)), "GL": make_runs((0, 1, 3))},
        chrom_sizes={"1": 101, "2": 53, "MT": 17, "GL": 5},
    )
    renamed, names = track.rename_chroms(SIZES)
    assert list(renamed.runs) == ["chr1", "chrM"]
    assert renamed.chrom_sizes == SIZES
    assert "track dnase" in names.report()
    assert names.unmatched == ("GL",)
    with pytest.raises(InputError, match="no chromosome name of the track dnase"):
        track.rename_chroms({"scaffold_7": 5})


def test_check_build__names_the_first_chromosome_of_another_length():
    track = Track("h3k27ac", {}, chrom_sizes={"chr1": 249_250_621, "chr2": 53, "chr9": 7})
    with pytest.raises(
        InputError,
        match=r"1 of 2 .*chr1 has 249,250,621 bp in the track, 248,956,422 in the genome: "
        r"another build\?",
    ):
        check_build(track, {"chr1": 248_956_422, "chr2": 53, "chr3": 5})
    check_build(Track("same", {}, chrom_sizes=SIZES), SIZES)


def test_check_build__runs_past_the_end():
    with pytest.raises(InputError, match=r"1 of 2 .*chr2 has 47 bp in the genome, its last run ends at 53"):
        check_build(TRACK, {"chr1": 101, "chr2": 47})


# -- bigWig and bedGraph -------------------------------------------------------------------------------------


def test_bigwig__round_trip(tmp_path):
    write_bigwig(tmp_path / "signal.bw", TRACK, SIZES)
    track = read_bigwig(tmp_path / "signal.bw")
    assert track.name == "signal"
    assert track.chrom_sizes == SIZES
    assert same(track, TRACK)
    assert read_bigwig(tmp_path / "signal.bw", "K562").name == "K562"
    assert [a.dtype for a in track.runs["chr1"]] == [np.int32, np.int32, np.float32]


@given(runs=some_runs(size=101))
def test_bigwig_and_bedgraph__round_trip_of_any_runs(tmp_path_factory, runs):
    folder = tmp_path_factory.mktemp("tracks")
    if len(runs.start):
        track = Track("t", {"chr1": runs})
        write_bigwig(folder / "t.bw", track, SIZES)
        assert same(read_bigwig(folder / "t.bw"), track)
        write_bedgraph(folder / "t.bedgraph.gz", track)
        assert same(read_bedgraph(folder / "t.bedgraph.gz"), track)


def test_bigwig__track_without_runs_round_trips(tmp_path):
    write_bigwig(tmp_path / "t.bw", Track("t", {}), SIZES)
    assert read_bigwig(tmp_path / "t.bw") == Track("t", {}, chrom_sizes=SIZES)


def test_read_bigwig__nan_is_uncovered(tmp_path):
    file = pyBigWig.open(str(tmp_path / "t.bw"), "w")
    file.addHeader([("chr1", 101)])
    file.addEntries(["chr1"] * 3, [2, 5, 11], ends=[5, 7, 13], values=[1.0, float("nan"), 3.0])
    file.close()
    track = read_bigwig(tmp_path / "t.bw")
    assert track.runs["chr1"].start.tolist() == [2, 11]
    assert bin_means(track.runs["chr1"], np.array([4]), 2, 2).tolist() == [[0.5, 0.0]]


def test_read_bigwig__missing_empty_foreign_and_truncated(tmp_path):
    path = tmp_path / "t.bw"
    with pytest.raises(DataMissingError, match="bigWig expected at"):
        read_bigwig(path)
    for data, says in ((b"", "is empty"), (b"chr1\t2\t5\t1\n" * 99, "not a whole bigWig")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=says):
            read_bigwig(path)
    n = 20_011
    starts = np.arange(n, dtype=np.int32) * 7
    values = np.random.default_rng(3).random(n).astype(np.float32)
    write_bigwig(path, Track("t", {"chr1": Runs(starts, starts + 5, values)}), {"chr1": 7 * n, "chr2": 11})
    whole = path.read_bytes()
    assert len(read_bigwig(path).runs["chr1"].start) == n
    for kept in (10, len(whole) // 3, len(whole) // 2):
        path.write_bytes(whole[:kept])
        with pytest.raises(InputError, match=r"not a whole bigWig.*truncated.*again"):
            read_bigwig(path)


def test_write_bigwig__refuses_another_build_and_unknown_chromosomes(tmp_path):
    with pytest.raises(InputError, match="go past the end"):
        write_bigwig(tmp_path / "t.bw", TRACK, {"chr1": 97, "chr2": 53})
    with pytest.raises(InputError, match="1 of 2 chromosomes are not in the genome; first: chr2"):
        write_bigwig(tmp_path / "t.bw", TRACK, {"chr1": 101})
    assert not (tmp_path / "t.bw").exists()


def test_write_bigwig__interrupt_and_full_disk_leave_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.bw"
    write_bigwig(path, TRACK, SIZES)
    real = pyBigWig.open
    other = Track("t", {"chr1": make_runs((2, 5, 7.0))})

    class Failing:
        def __init__(self, name, error):
            self.file, self.error = real(name, "w"), error

        def addHeader(self, header):
            self.file.addHeader(header)

        def addEntries(self, *args, **kwargs):
            raise self.error

    for error, expected in ((KeyboardInterrupt(), KeyboardInterrupt), (RuntimeError("no space"), OSError)):
        monkeypatch.setattr(
            tracks_module.pyBigWig, "open", lambda name, mode, error=error: Failing(name, error)
        )
        with pytest.raises(expected):
            write_bigwig(path, other, SIZES)
    monkeypatch.undo()

    def lose_the_end(name, mode="r"):  # a disk that fills up at close: the program hears nothing of it
        if mode == "w":
            return real(name, mode)
        write = real(name, "w")
        write.addHeader([("chr1", 101)])
        write.addEntries(["chr1"], [2], ends=[3], values=[7.0])
        write.close()
        return real(name)

    monkeypatch.setattr(tracks_module.pyBigWig, "open", lose_the_end)
    with pytest.raises(OSError, match=r"1 of 3 bp arrived; is the disk full\?"):
        write_bigwig(path, other, SIZES)
    monkeypatch.undo()
    assert same(read_bigwig(path), TRACK)
    assert [p.name for p in tmp_path.iterdir()] == ["t.bw"]


def test_read_bedgraph__sorts_and_passes_over_remarks_and_nan(tmp_path):
    path = tmp_path / "t.bedGraph"
    path.write_text(
        "browser position chr1\ntrack type=bedGraph\n#note\nchr1 11 13 2\nchr1 2 5 1.5\nchr1 5 7 NaN\n"
    )
    track = read_bedgraph(path)
    assert track.name == "t"
    assert track.chrom_sizes is None
    assert same(track, Track("t", {"chr1": make_runs((2, 5, 1.5), (11, 13, 2))}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chr1\t2\t5\t1\nchr1\t4\t7\t1\n", "overlap the run before"),
        ("chr1\t2\t5\n", "must have 4 columns"),
        ("chr1\t2\t5\tx\nchr1\t7\t8\t1\n", "1 of 2 rows .*value that is not a number; first: row 0, 'x'"),
        ("chr1\t2.5\t5\t1\n", "start that is not a whole number"),
        ("#only a remark\n", "holds no rows"),
        ("chr1\t2\t5\t1\nchr1\t7\n", "1 of 2 rows .*another number of columns .*row 1, 2 columns"),
    ],
)
def test_read_bedgraph__bad_rows(tmp_path, text, says):
    (tmp_path / "t.bedgraph").write_text(text)
    with pytest.raises(InputError, match=says):
        read_bedgraph(tmp_path / "t.bedgraph")


def test_read_bedgraph__truncated_gzip_and_binary(tmp_path):
    path = tmp_path / "t.bedgraph.gz"
    data = gzip.compress(b"".join(b"chr1\t%d\t%d\t1\n" % (i, i + 1) for i in range(997)))
    path.write_bytes(data[:-100])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_bedgraph(path)
    path.write_bytes(b"\xff\xfe\x00\x00 nothing")
    with pytest.raises(InputError, match="is not text"):
        read_bedgraph(path)


# -- tables of sites -----------------------------------------------------------------------------------------


def write_sites(path, rows):
    pd.DataFrame(rows, columns=["c", "s", "e", "emb", "ya", "note"]).to_csv(path, sep="\t", index=False)
    return {"path": path, "chrom": "c", "start": "s", "end": "e"}


def test_read_sites__overlaps_take_the_larger_height(tmp_path):
    where = write_sites(
        tmp_path / "sites.tsv.gz",
        [
            ("I", 10, 20, 1.0, 7, "."),
            ("I", 15, 25, 3.0, 5, "."),
            ("I", 0, 30, 2.0, 0, "."),
            ("II", 5, 7, 1.5, 2, "."),
        ],
    )
    emb, ya = read_sites(**where, values={"emb": "embryo", "ya": "adult"})
    assert (emb.name, ya.name, emb.units) == ("embryo", "adult", "height")
    for track, heights in ((emb, (1, 3, 2)), (ya, (7, 5, 0))):
        base = np.zeros(31)
        for (a, b), h in zip(((10, 20), (15, 25), (0, 30)), heights, strict=True):
            base[a:b] = np.maximum(base[a:b], h)
        np.testing.assert_array_equal(bin_means(track.runs["I"], np.array([0]), 31, 1)[0], base)
    assert [a.tolist() for a in ya.runs["II"]] == [[5], [7], [2.0]]
    assert [t.name for t in read_sites(**where, values=["ya", "emb"])] == ["ya", "emb"]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 13), st.integers(-9, 9)), min_size=1, max_size=17)
)
def test_read_sites__equals_the_per_base_maximum(tmp_path_factory, sites):
    where = write_sites(
        tmp_path_factory.mktemp("sites") / "s.tsv", [("I", s, s + n, h, 1, ".") for s, n, h in sites]
    )
    (track,) = read_sites(**where, values=["emb"])
    expected = [max((h for s, n, h in sites if s <= i < s + n), default=0) for i in range(59)]
    assert bin_means(track.runs["I"], np.array([0]), 59, 1)[0].tolist() == expected


def test_read_sites__missing_heights_are_absent_and_bad_cells_are_named(tmp_path):
    path = tmp_path / "sites.tsv"
    where = write_sites(path, [("I", 10, 20, None, 7, "."), ("I", 30, 40, 3.0, 5, ".")])
    assert read_sites(**where, values=["emb"])[0].runs["I"].start.tolist() == [30]
    with pytest.raises(InputError, match="lacks 1 of 4 columns; first: 'embr'; did you mean 'emb'"):
        read_sites(**where, values=["embr"])
    with pytest.raises(InputError, match="note that is not a number"):
        read_sites(**where, values=["note"])
    where = write_sites(path, [("I", 10, 20, 1.0, 7, "."), ("I", 40, 40, 3.0, 5, ".")])
    with pytest.raises(
        InputError, match=r"sites.tsv: 1 of 2 sites end at or before their start; first: row 1 I:40-40"
    ):
        read_sites(**where, values=["emb"])


@pytest.mark.realdata
def test_read_sites__worm(data_dir):
    path = data_dir / "worm" / "atac_accessible_sites_heights_ce10.tsv.gz"
    columns = [f"atac_wt_{stage}_height" for stage in ("emb", "l1", "l2", "l3", "l4", "ya")]
    tracks = read_sites(path, chrom="chrom_ce10", start="start_ce10", end="end_ce10", values=columns)
    table = pd.read_csv(path, sep="\t")
    assert len(table) == 42_245
    assert len(tracks) == 6
    row = table.iloc[1]
    height = bin_means(tracks[5].runs[row["chrom_ce10"]], np.array([row["start_ce10"]]), 1, 151).item()
    assert height == pytest.approx(row["atac_wt_ya_height"])


def test_full_disk__text_writer_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.bedgraph"
    write_bedgraph(path, TRACK)
    before = path.read_bytes()

    def full(self, data):
        with open(self, "wb") as handle:
            handle.write(data[:11])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_bedgraph(path, Track("t", {"chr1": make_runs((0, 1, 1))}))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.bedgraph"]
    shutil.rmtree(tmp_path)
