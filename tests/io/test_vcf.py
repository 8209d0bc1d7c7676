import gzip

import pandas as pd
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciscribe.errors import InputError
from ciscribe.io.variants import read_vcf, write_vcf

SIZES = {"chr2": 101, "chr1": 53}
VCF = """##fileformat=VCFv4.3
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1
chr1\t5\trs1\tA\tg,CT\t.\t.\t.\tGT\t0/1
chr1\t7\t.\tC\t.\t.\t.\t.\tGT\t0/0
chr2\t11\trs2\tACG\tA\t.\t.\t.\tGT\t0/1
"""


def test_read_vcf__splits_alleles_and_is_zero_based(tmp_path):
    for name, data in (("v.vcf", VCF.encode()), ("v.vcf.gz", gzip.compress(VCF.encode()))):
        (tmp_path / name).write_bytes(data)
        table = read_vcf(tmp_path / name)
        assert table.to_dict("list") == {
            "chrom": ["chr1", "chr1", "chr2"],
            "pos": [4, 4, 10],
            "ref": ["A", "A", "ACG"],
            "alt": ["G", "CT", "A"],
            "name": ["rs1", "rs1", "rs2"],
        }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            VCF.replace("g,CT", "g,<DEL>"),
            r"must hold sequences .* 1 symbolic \(first: row 0, 'chr1 5 rs1 A g,<DEL>'\)",
        ),
        (VCF.replace("\t5\t", "\tx\t"), "1 of 3 rows .* position that is not a whole number"),
        (VCF.replace("#CHROM", "##CHROM"), "must have a header line"),
        (VCF.replace("\t5\t", "\t0\t"), "1 of 3 rows .* position before 1"),
    ],
)
def test_read_vcf__bad_files(tmp_path, text, says):
    (tmp_path / "v.vcf").write_text(text)
    with pytest.raises(InputError, match=says):
        read_vcf(tmp_path / "v.vcf")


def test_read_vcf__header_only_is_an_empty_table(tmp_path):
    (tmp_path / "v.vcf").write_text("\n".join(VCF.splitlines()[:2]) + "\n")
    assert read_vcf(tmp_path / "v.vcf").shape == (0, 5)


def test_write_vcf__sorted_by_contig_and_readable_by_others(tmp_path):
    table = pd.DataFrame(
        {
            "chrom": ["chr1", "chr2", "chr2"],
            "pos": [4, 100, 10],
            "ref": ["A", "T", "ACG"],
            "alt": ["G", "C", "A"],
        },
        index=[7, 5, 3],
    )
    write_vcf(tmp_path / "v.vcf.gz", table, SIZES)
    with pysam.VariantFile(str(tmp_path / "v.vcf.gz")) as file:
        assert dict(file.header.contigs.items())["chr2"].length == 101
        assert [(r.chrom, r.pos, r.ref, r.alts) for r in file] == [
            ("chr2", 11, "ACG", ("A",)),
            ("chr2", 101, "T", ("C",)),
            ("chr1", 5, "A", ("G",)),
        ]
    with pytest.raises(InputError, match=r"1 of 3 rows .*first: row 1, chr2:102"):
        write_vcf(tmp_path / "v.vcf.gz", table.assign(pos=[4, 101, 10]), SIZES)
    assert len(read_vcf(tmp_path / "v.vcf.gz")) == 3


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(SIZES)),
            st.integers(0, 47),
            st.text("ACGTN", min_size=1, max_size=5),
            st.text("ACGT", min_size=1, max_size=5),
        ),
        max_size=7,
    )
)
def test_vcf__round_trip(tmp_path_factory, rows):
    table = pd.DataFrame(rows, columns=["chrom", "pos", "ref", "alt"]).astype({"pos": "int64"})
    table["name"] = [f"v{i}" for i in range(len(rows))]
    path = tmp_path_factory.mktemp("vcf") / "v.vcf"
    write_vcf(path, table, SIZES)
    order = table.assign(c=[list(SIZES).index(c) for c in table["chrom"]]).sort_values(
        ["c", "pos"], kind="stable"
    )
    assert (
        read_vcf(path).to_numpy().tolist()
        == order[["chrom", "pos", "ref", "alt", "name"]].to_numpy().tolist()
    )
