"""Phased genotypes of a region."""

import gzip

import numpy as np
import pysam
import pytest

from ciscribe.errors import InputError, UnknownNameError
from ciscribe.io.haplotypes import read_haplotypes

HEADER = """##fileformat=VCFv4.3
##contig=<ID=chr1,length=1000>
##contig=<ID=chrX,length=1000>
##contig=<ID=chr3,length=1000>
##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="depth">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tann\tbob\tcid
"""
ROWS = """chr1\t5\t.\tA\tC\t.\t.\t.\tGT\t1|1\t1|1\t1|1
chr1\t8\t.\tTTTT\tT\t.\t.\t.\tGT\t1|1\t1|1\t1|1
chr1\t11\trs1\ta\tg,*,CT\t.\t.\t.\tGT\t0|1\t3|1\t2|3
chr1\t13\t.\tAC\tA\t.\t.\t.\tDP:GT\t7:1|0\t9:./.\t2:.|1
chr1\t17\t.\tC\t<DEL>\t.\t.\t.\tGT\t0|1\t0|0\t0|0
chr1\t19\t.\tG\tT\t.\t.\t.\tGT:DP\t0/0:3\t1/1\t0|1:7
chr1\t20\t.\tGAAA\tG\t.\t.\t.\tGT\t0|0\t0|1\t.
chr1\t21\t.\tG\tT\t.\t.\t.\tGT\t1|1\t1|1\t1|1
chrX\t11\t.\tG\tT\t.\t.\t.\tGT\t0|1\t1\t0
"""


def store(folder, text, kind="plain"):
    path = folder / ("v.vcf" if kind == "plain" else "v.vcf.gz")
    if kind == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path = folder / "v.vcf"
        path.write_text(text)
    if kind in ("tbi", "csi"):
        return folder / pysam.tabix_index(str(path), preset="vcf", force=True, csi=kind == "csi")
    return path


@pytest.mark.parametrize("kind", ["plain", "gzip", "tbi", "csi"])
def test_read_haplotypes__a_region(tmp_path, kind):
    haplotypes = read_haplotypes(store(tmp_path, HEADER + ROWS, kind), "chr1", 10, 20)
    assert haplotypes.samples == ("ann", "bob", "cid")
    assert haplotypes.variants.to_numpy().tolist() == [
        ["chr1", 10, "A", "G", "rs1"],
        ["chr1", 10, "A", "CT", "rs1"],
        ["chr1", 12, "AC", "A", "."],
        ["chr1", 18, "G", "T", "."],
        ["chr1", 19, "GAAA", "G", "."],
    ]
    assert haplotypes.variants.index.tolist() == [0, 1, 2, 3, 4]
    assert haplotypes.alleles.dtype == np.int8
    assert haplotypes.alleles.tolist() == [
        [[0, 1], [0, 1], [0, 0]],
        [[0, 0], [1, 0], [0, 1]],
        [[1, 0], [-1, -1], [-1, 1]],
        [[0, 0], [1, 1], [0, 1]],
        [[0, 0], [0, 1], [-1, -1]],
    ]
    assert (haplotypes.n_missing, haplotypes.n_haploid, haplotypes.n_unphased) == (5, 0, 0)
    assert haplotypes.skipped.counts == {"star": 1, "symbolic": 1}


@pytest.mark.parametrize("kind", ["plain", "tbi"])
def test_read_haplotypes__haploid_samples_and_empty_regions(tmp_path, kind):
    path = store(tmp_path, HEADER + ROWS, kind)
    males = read_haplotypes(path, "chrX", 0, 1000, ["cid", "bob"])
    assert males.samples == ("cid", "bob")
    assert males.alleles.tolist() == [[[0, 0], [1, 1]]]
    assert (males.n_haploid, males.n_missing) == (2, 0)
    for chrom, start, end in (("chr1", 500, 600), ("chr1", 10, 10), ("chr3", 0, 1000)):
        none = read_haplotypes(path, chrom, start, end)
        assert none.alleles.shape == (0, 3, 2)
        assert none.variants.shape == (0, 5)


@pytest.mark.parametrize("kind", ["plain", "tbi"])
def test_read_haplotypes__unphased(tmp_path, kind):
    text = HEADER + ROWS.replace("3|1", "3/1").replace("0|1\t.\n", "0/1\t.\n")
    path = store(tmp_path, text, kind)
    with pytest.raises(InputError, match=r"2 of 5 rows .* not phased.*first: row 0, 'chr1 11 rs1 a g,\*,CT … 3/1'"):
        read_haplotypes(path, "chr1", 10, 20)
    dropped = read_haplotypes(path, "chr1", 10, 20, unphased="drop")
    assert dropped.variants["pos"].tolist() == [12, 18]
    assert dropped.n_unphased == 3
    assert dropped.alleles[:, 0].tolist() == [[1, 0], [0, 0]]
    # only those who are read need a phase
    assert len(read_haplotypes(path, "chr1", 10, 20, ["ann", "cid"]).variants) == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ROWS.replace("3|1", "4|1"), r"1 of 5 rows .* genotypes that are none.*first: row 0, 'chr1 11 .* 4\|1'"),
        (ROWS.replace("3|1", "0|0|1"), "genotypes that are none"),
        (ROWS.replace("3|1", "x"), "genotypes that are none"),
        (ROWS.replace("3|1", "123456|0"), "genotypes that are none"),
        (ROWS.replace("GT:DP", "DP:GQ"), r"no genotypes \(GT\) in FORMAT; first: row 3"),
        (ROWS.replace("chr1\t19", "chr1\tx"), "whole number"),
        (ROWS.replace("\t3|1", ""), "another number of columns"),
    ],
)
def test_read_haplotypes__bad_rows(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        read_haplotypes(store(tmp_path, HEADER + text), "chr1", 10, 20)


@pytest.mark.parametrize("kind", ["plain", "tbi"])
def test_read_haplotypes__wrong_names(tmp_path, kind):
    path = store(tmp_path, HEADER + ROWS, kind)
    with pytest.raises(InputError, match=r"has no chromosome '1'; .*options: chr1, chr3, chrX"):
        read_haplotypes(path, "1", 10, 20)
    with pytest.raises(UnknownNameError, match=r"1 of 2 samples are not among the 3 .*'bop'; did you mean 'bob'"):
        read_haplotypes(path, "chr1", 10, 20, ["ann", "bop"])
    with pytest.raises(ValueError, match=r"start <= end; got chr1:20-10"):
        read_haplotypes(path, "chr1", 20, 10)
    none = HEADER.replace("\tFORMAT\tann\tbob\tcid", "") + "chr1\t5\t.\tA\tC\t.\t.\t.\n"
    with pytest.raises(InputError, match="has no samples"):
        read_haplotypes(store(tmp_path, none), "chr1", 10, 20)


def test_read_haplotypes__indexed_and_streamed_agree(tmp_path):
    rng = np.random.default_rng(0)
    calls = rng.integers(0, 2, (211, 13, 2))
    pos = np.sort(rng.choice(np.arange(1, 5000), 211, replace=False))
    names = "\t".join(f"s{i}" for i in range(13))
    text = f"##fileformat=VCFv4.2\n##contig=<ID=1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{names}\n"
    for p, row in zip(pos, calls, strict=True):
        text += f"1\t{p}\t.\tA\tT\t.\t.\t.\tGT\t" + "\t".join(f"{a}|{b}" for a, b in row) + "\n"
    inside = (pos > 1000) & (pos <= 3001)
    for kind in ("plain", "tbi"):
        haplotypes = read_haplotypes(store(tmp_path, text, kind), "1", 1000, 3001)
        assert (haplotypes.variants["pos"] + 1).tolist() == pos[inside].tolist()
        np.testing.assert_array_equal(haplotypes.alleles, calls[inside])
