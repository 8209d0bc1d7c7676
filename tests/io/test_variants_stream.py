"""VCF read in pieces, and written again with scores."""

import gzip
import re
import tracemalloc

import numpy as np
import pandas as pd
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciscribe.errors import DataMissingError, InputError
from ciscribe.io.annotate import annotated_vcf
from ciscribe.io.variants import Skipped, iter_vcf, read_vcf

HEADER = """##fileformat=VCFv4.3
##contig=<ID=chr1,length=1000>
##contig=<ID=chr2,length=1000>
##FILTER=<ID=low,Description="low">
##INFO=<ID=DP,Number=1,Type=Integer,Description="depth">
##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">
"""
TITLES = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\ts2\n"
ROWS = """chr2\t11\trs1\ta\tg,*,CT\t31\tPASS\tDP=7\tGT\t0|1\t3|1
chr1\t5\t.\tACG\tA\t.\tlow\t.\tGT\t0|1\t0|0
chr1\t6\t.\tC\t<DEL>\t.\t.\tEND=9;DP=3\tGT\t0|0\t0|1
chr1\t7\t.\tG\tG]chr2:5]\t.\t.\t.\tGT\t0|0\t0|0
chr1\t8\t.\tT\t.\t.\t.\t.\tGT\t0|0\t0|0
chr1\t9\t.\tR\tT,C\t.\t.\t.\tGT\t0|0\t0|0
chr1\t2\trs7\tT\tTAG\t.\t.\tDP=2;DB\tGT\t./.\t1|0
"""
VCF = HEADER + TITLES + ROWS


def store(folder, text, name="v.vcf"):
    path = folder / name
    if name.endswith(".bgz.gz"):
        with pysam.BGZFile(str(path), "wb") as handle:
            handle.write(text.encode())
    else:
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def score_all(source, path, fields=("x",), chunk=10_000, value=lambda table: table["pos"] / 8):
    with annotated_vcf(source, path, dict.fromkeys(fields, "what it says")) as out:
        for piece in iter_vcf(source, chunk=chunk):
            out.write(piece, {name: value(piece.variants) for name in fields})


@pytest.mark.parametrize("name", ["v.vcf", "v.vcf.gz", "v.bgz.gz"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 11])
def test_iter_vcf__pieces_join_to_the_whole(tmp_path, name, chunk):
    pieces = list(iter_vcf(store(tmp_path, VCF, name), chunk=chunk))
    assert [len(piece.lines) for piece in pieces[:-1]] == [chunk] * (len(pieces) - 1)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    table = pd.concat([piece.variants for piece in pieces])
    assert table.to_numpy().tolist() == [
        ["chr2", 10, "A", "G", "rs1"],
        ["chr2", 10, "A", "CT", "rs1"],
        ["chr1", 4, "ACG", "A", "."],
        ["chr1", 1, "T", "TAG", "rs7"],
    ]
    assert table["pos"].dtype == np.int64
    rows = [(piece.first + r, a) for piece in pieces for r, a in zip(piece.row, piece.allele, strict=True)]
    assert rows == [(0, 0), (0, 2), (1, 0), (6, 0)]
    assert np.concatenate([piece.n_alts for piece in pieces]).tolist() == [3, 1, 1, 1, 1, 2, 1]
    assert "\n".join(line for piece in pieces for line in piece.lines) + "\n" == ROWS
    skipped = sum((piece.skipped for piece in pieces), Skipped())
    assert skipped.counts == {"star": 1, "symbolic": 1, "breakend": 1, "missing": 1, "ambiguous": 2}
    assert skipped.first["symbolic"] == "row 2, 'chr1 6 . C <DEL>'"
    assert skipped.first["ambiguous"] == "row 5, 'chr1 9 . R T,C'"
    assert len(skipped) == 6
    assert str(skipped).startswith("6 alleles left out: ")


@pytest.mark.parametrize("alt", ["]chr2:5]A", "[chr2:5[A", "A]chr2:5]", "A[<ctg>:5[", ".A", "A."])
def test_iter_vcf__break_ends(tmp_path, alt):
    (piece,) = iter_vcf(store(tmp_path, VCF.replace("G]chr2:5]", alt)))
    assert piece.skipped.counts["breakend"] == 1


def test_skipped__nothing():
    assert not Skipped()
    assert str(Skipped()) == "no allele left out"


def test_iter_vcf__windows_line_ends_blank_lines_and_header_only(tmp_path):
    windows = store(tmp_path, VCF.replace("\n", "\r\n") + "\r\n")
    (piece,) = iter_vcf(windows)
    assert len(piece.variants) == 4
    (empty,) = iter_vcf(store(tmp_path, HEADER + TITLES))
    assert empty.variants.shape == (0, 5)
    assert empty.last


def test_iter_vcf__long_rows_end_a_piece_early(tmp_path, monkeypatch):
    monkeypatch.setattr("ciscribe.io.variants._PIECE", 50)
    pieces = list(iter_vcf(store(tmp_path, VCF)))
    assert [len(piece.lines) for piece in pieces] == [2, 2, 2, 1]
    assert sum(len(piece.variants) for piece in pieces) == 4


BAD = {
    "no header": (ROWS, r"must have a header line '#CHROM POS ID REF ALT …'.* got 'chr2"),
    "binary": ("BCF\2\2", r"it is BCF: convert it"),
    "columns": (VCF.replace("PASS\t", ""), r"1 of 7 rows of VCF .* another number of columns than the header \(11\)"),
    "cut off in a row": (VCF[:-9], r"1 of 7 rows .*columns.*cut off.*first: row 6, 'chr1 2 rs7 T TAG'"),
    "word": (VCF.replace("\t5\t", "\t5.5\t"), r"1 of 7 rows .* whole number; first: row 1, 'chr1 5.5 . ACG A'"),
    "huge": (VCF.replace("\t5\t", f"\t{'9' * 23}\t"), r"whole number; first: row 1"),
    "zero": (VCF.replace("\t5\t", "\t0\t"), r"position before 1, where counting starts; first: row 1"),
    "negative": (VCF.replace("\t5\t", "\t-5\t"), r"whole number; first: row 1, 'chr1 -5"),
    "gap": (VCF.replace("ACG\tA", "ACG\t-"), r"1 of 7 rows .* not letters.*bcftools norm.*row 1, 'chr1 5 . ACG -'"),
    "no alt": (VCF.replace("ACG\tA", "ACG\t"), r"not letters.*first: row 1"),
    "comma": (VCF.replace("g,*,CT", "g,,CT"), r"1 of 7 rows .* not letters.*first: row 0"),
    "ref": (VCF.replace("\tACG\t", "\t<DEL>\t"), r"not letters.*first: row 1"),
    "ref missing": (VCF.replace("\tACG\t", "\t.\t"), r"not letters.*first: row 1"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_iter_vcf__bad_rows(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        list(iter_vcf(store(tmp_path, text)))


def test_iter_vcf__the_row_is_counted_through_the_file(tmp_path):
    path = store(tmp_path, VCF.replace("\t2\trs7", "\tx\trs7"))
    with pytest.raises(InputError, match=r"1 of 1 rows \(after the first 6\) of VCF .*first: row 6, 'chr1 x rs7"):
        list(iter_vcf(path, chunk=3))


def test_iter_vcf__bad_arguments(tmp_path):
    with pytest.raises(DataMissingError):
        list(iter_vcf(tmp_path / "none.vcf"))
    with pytest.raises(ValueError, match="at least 1 row; got 0"):
        list(iter_vcf(store(tmp_path, VCF), chunk=0))


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_iter_vcf__order(tmp_path, chunk):
    lines = ["chr2\t5", "chr2\t5", "chr1\t2", "chr1\t9"]

    def text(lines):
        return HEADER + TITLES + "".join(f"{line}\t.\tA\tC\t.\t.\t.\tGT\t0|0\t0|0\n" for line in lines)

    assert sum(len(p.variants) for p in iter_vcf(store(tmp_path, text(lines)), chunk=chunk, ordered=True)) == 4
    for wrong, row in ((["chr1\t8"], 4), (["chr2\t7"], 4)):
        path = store(tmp_path, text(lines + wrong))
        assert sum(len(p.variants) for p in iter_vcf(path, chunk=chunk)) == 5
        with pytest.raises(InputError, match=rf"1 of \d+ rows.* lie before an earlier row .*sort.*first: row {row}, "):
            list(iter_vcf(path, chunk=chunk, ordered=True))


def test_truncated__nothing_is_written(tmp_path):
    many = HEADER + TITLES + "".join(
        f"chr1\t{i}\t.\tA\tC\t.\t.\tX={i * 7919 % 10007}\tGT\t0|1\t0|0\n" for i in range(1, 20_000)
    )
    for name in ("v.bgz.gz", "v.vcf.gz"):
        path = store(tmp_path, many, name)
        data = path.read_bytes()
        cut = tmp_path / f"cut.{name}"
        # bgzip: without its closing block the rest reads well
        cut.write_bytes(data[:-28] if "bgz" in name else data[: len(data) // 2])
        out = tmp_path / "out.vcf.gz"
        with pytest.raises(InputError, match="truncated"):
            score_all(cut, out, chunk=1000)
        assert not out.exists()
        assert not list(tmp_path.glob(".partial*"))


def test_iter_vcf__memory_is_that_of_one_piece(tmp_path):
    def peak(n):
        path = tmp_path / f"{n}.vcf"
        with open(path, "w") as handle:
            handle.write(HEADER + TITLES.replace("\tFORMAT\ts1\ts2", ""))
            handle.writelines(f"chr1\t{i}\trs{i}\tA\tC\t.\tPASS\tDP={i:0101d}\n" for i in range(1, n + 1))
        tracemalloc.start()
        total = sum(len(piece.variants) for piece in iter_vcf(path, chunk=500))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == n
        return most, path.stat().st_size

    few, _ = peak(2_000)
    most, size = peak(50_000)
    assert most < 1.2 * few
    assert most < size / 7


@pytest.mark.parametrize("name", ["o.vcf", "o.vcf.gz"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_annotated_vcf__adds_to_info_and_keeps_the_rest(tmp_path, name, chunk):
    source = store(tmp_path, VCF)
    score_all(source, tmp_path / name, ("x", "y.2"), chunk)
    data = (tmp_path / name).read_bytes()
    text = (gzip.decompress(data) if name.endswith("gz") else data).decode()
    header, rows = text.split(TITLES)
    assert header.startswith(HEADER)
    added = header.removeprefix(HEADER).splitlines()
    for field, line in zip(("x", "y.2"), added, strict=False):
        assert line == f'##INFO=<ID={field},Number=A,Type=Float,Description="what it says">'
    assert re.fullmatch(r"##ciscribe_command=.*; Version=\S+; Date=\S+", added[2])
    assert len(added) == 3
    expected = (
        ROWS.replace("DP=7", "DP=7;x=1.25,.,1.25;y.2=1.25,.,1.25")
        .replace("low\t.", "low\tx=0.5;y.2=0.5")
        .replace("DP=2;DB", "DP=2;DB;x=0.125;y.2=0.125")
    )
    assert rows == expected
    if name.endswith("gz"):
        with pysam.VariantFile(str(tmp_path / name)) as file:
            assert [record.info.get("x") for record in file][:2] == [(1.25, None, 1.25), (0.5,)]


def test_annotated_vcf__again_replaces_and_missing_values_are_left_out(tmp_path):
    first, second = tmp_path / "a.vcf", tmp_path / "b.vcf"
    score_all(store(tmp_path, VCF), first)
    score_all(first, second, value=lambda table: np.where(table["pos"] > 4, -1e-7 / 3, np.nan))
    text = second.read_text()
    assert text.count("##INFO=<ID=x,") == 1
    assert "DP=7;x=-3.33333e-08,.,-3.33333e-08\t" in text
    assert "low\t.\tGT" in text  # was x=0.5 only
    assert "DP=2;DB\t" in text
    assert text.count("##ciscribe_command=") == 2
    score_all(second, second)  # onto itself
    assert first.read_text().split(TITLES)[1] == second.read_text().split(TITLES)[1]


def test_annotated_vcf__only_whole_entries_of_that_name_are_replaced(tmp_path):
    source = store(tmp_path, VCF.replace("DP=7", "ax=1;x;xa=2;x=9;b=x=3;x.b=4"))
    score_all(source, tmp_path / "o.vcf")
    assert "ax=1;xa=2;b=x=3;x.b=4;x=1.25,.,1.25\t" in (tmp_path / "o.vcf").read_text()


def test_annotated_vcf__bytes_that_are_no_text_stay(tmp_path):
    path = tmp_path / "v.vcf"
    path.write_bytes(VCF.encode().replace(b"DP=7", b"DP=\xff\xe9"))
    score_all(path, tmp_path / "o.vcf")
    assert b"DP=\xff\xe9;x=1.25" in (tmp_path / "o.vcf").read_bytes()


@given(
    rows=st.lists(
        st.tuples(
            st.integers(1, 50),
            st.lists(st.sampled_from(["A", "cg", "*", "<DEL>", ".", "TTN", "Y"]), min_size=1, max_size=4),
            st.sampled_from([".", "DP=3", "DP=3;x=1", "x=5,.;F"]),
        ),
        max_size=9,
    ),
    chunk=st.integers(1, 5),
)
def test_annotated_vcf__each_allele_gets_its_own_number(tmp_path_factory, rows, chunk):
    folder = tmp_path_factory.mktemp("property")
    text = HEADER + TITLES + "".join(f"chr1\t{p}\t.\tG\t{','.join(a)}\t.\t.\t{i}\tGT\t0|0\t0|0\n" for p, a, i in rows)
    source, out = store(folder, text), folder / "o.vcf"
    codes = {}

    def value(table):
        keys = list(zip(table["pos"], table["alt"], strict=True))
        return [codes.setdefault(key, float(len(codes))) for key in keys]

    score_all(source, out, chunk=chunk, value=value)
    written = [line.split("\t") for line in out.read_text().splitlines() if not line.startswith("#")]
    assert len(written) == len(rows)
    for (pos, alts, info), cells in zip(rows, written, strict=True):
        expected = [f"{codes[pos - 1, a.upper()]:g}" if a in ("A", "cg", "TTN") else "." for a in alts]
        entries = dict(entry.partition("=")[::2] for entry in cells[7].split(";"))
        assert entries.get("x", ",".join("." * len(alts))) == ",".join(expected)
        assert ("DP" in entries, "F" in entries) == ("DP" in info, "F" in info)
        assert cells[:5] == ["chr1", str(pos), ".", "G", ",".join(alts)]
    pieces = list(iter_vcf(out, chunk=chunk))
    assert sum(len(p.variants) + len(p.skipped) for p in pieces) == sum(len(alts) for _, alts, _ in rows)


def test_annotated_vcf__chunks_once_and_in_order(tmp_path):
    source, out = store(tmp_path, VCF), tmp_path / "o.vcf"
    out.write_text("old")
    pieces = list(iter_vcf(source, chunk=3))
    zeros = [{"x": np.zeros(len(piece.variants))} for piece in pieces]
    (other,) = iter_vcf(store(tmp_path, VCF, "w.vcf"))

    def write(*order):
        with annotated_vcf(source, out, {"x": "x"}) as file:
            for i in order:
                file.write(pieces[i], zeros[i])

    for order in ((1,), (0, 0), (0, 2), (0, 1, 2, 2)):
        with pytest.raises(ValueError, match=r"expected the chunk of .*v\.vcf after \d rows; got that of .*v\.vcf"):
            write(*order)
    with pytest.raises(ValueError, match=r"rows of .* are missing; write every chunk"):
        write(0, 1)
    with annotated_vcf(source, tmp_path / "p.vcf", {"x": "x"}) as file:
        with pytest.raises(ValueError, match=r"got that of .*w\.vcf"):
            file.write(other, {"x": np.zeros(4)})
        for piece, zero in zip(pieces, zeros, strict=True):
            with pytest.raises(ValueError, match="expected values of x; got z"):
                file.write(piece, {"z": zero["x"]})
            with pytest.raises(ValueError, match=r"expected \d values of x, one a variant; got shape \(7,\)"):
                file.write(piece, {"x": np.zeros(7)})
            file.write(piece, zero)
    assert out.read_text() == "old"
    write(0, 1, 2)
    assert out.read_text() != "old"


@pytest.mark.parametrize(
    ("text", "fields", "error", "says"),
    [
        (VCF, {"2x": ""}, ValueError, "ID starts with a letter.*got '2x'"),
        (VCF, {}, ValueError, "at least one INFO field"),
        (VCF, {"DP": "ours"}, InputError, r"has an INFO field DP already: ##INFO=<ID=DP.*bcftools annotate -x INFO/DP"),
        ("#CHROM\tPOS\tID\tREF\tALT\n", {"x": ""}, InputError, "must have an INFO column"),
        (ROWS, {"x": ""}, InputError, "must have a header line"),
    ],
)
def test_annotated_vcf__bad_files_and_fields(tmp_path, text, fields, error, says):
    source = store(tmp_path, text)
    with pytest.raises(error, match=says), annotated_vcf(source, tmp_path / "o.vcf", fields):
        pass
    assert not (tmp_path / "o.vcf").exists()


def test_annotated_vcf__header_only_and_quotes(tmp_path):
    source, out = store(tmp_path, HEADER + TITLES), tmp_path / "o.vcf"
    with annotated_vcf(source, out, {"x": 'a "b"\n c\\d'}) as file:
        for piece in iter_vcf(source):
            file.write(piece, {"x": []})
    assert 'Description="a \\"b\\" c\\\\d">' in out.read_text()
    assert read_vcf(out).shape == (0, 5)
