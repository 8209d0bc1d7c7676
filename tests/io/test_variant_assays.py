"""Files of measured variants: what they say, and what damage is called."""

import gzip

import numpy as np
import pytest

from ciscribe.errors import DataMissingError, InputError
from ciscribe.io.variant_assays import read_allele_pairs, read_saturation_mutagenesis
from ciscribe.schema import check_variants
from ciscribe.sequence import decode

HEADER = "Chrom\tPos\tRef\tAlt\tBarcodes\tDNA\tRNA\tCoefficient\tpValue\tElement\tRelease\n"
ROWS = ["5\t101\tA\tC\t11\t1\t1\t-0.5\t1e-9\tE\tGRCh38", "5\t101\tA\t-\t12\t1\t1\t0.25\t0.5\tE\tGRCh38",
        "5\t102\tG\t-\t13\t1\t1\t0.125\t0.5\tE\tGRCh38", "5\t104\tT\tA\t14\t1\t1\t1\t0.5\tE\tGRCh38",
        "NA\tNA\tNA\tNA\t3\t1\t1\t0\t1\tE\tGRCh38", "X\t7\tC\tT\t15\t1\t1\t2\t0.5\tF.2\tGRCh38"]


def written(path, rows):
    path.write_bytes(gzip.compress((HEADER + "\n".join(rows) + "\n").encode()))
    return path


def test_read_saturation_mutagenesis__rebuilds_the_elements(tmp_path):
    assay = read_saturation_mutagenesis(written(tmp_path / "e.tsv.gz", ROWS))
    assert assay.n_unplaced == 1
    assert assay.genome.chrom_sizes == {"E": 4, "F.2": 1}
    assert decode(assay.genome.fetch("E", 0, 4)) == "AGNT"
    check_variants(assay.variants)
    rows = assay.variants[["chrom", "pos", "ref", "alt", "genome_chrom", "genome_pos", "barcodes", "coefficient"]]
    assert rows.to_numpy().tolist() == [
        ["E", 0, "A", "C", "chr5", 100, 11, -0.5],
        ["E", 0, "AG", "G", "chr5", 100, 12, 0.25],  # the first base: anchored to the one behind it
        ["E", 0, "AG", "A", "chr5", 101, 13, 0.125],
        ["E", 3, "T", "A", "chr5", 103, 14, 1.0],
        ["F.2", 0, "C", "T", "chrX", 6, 15, 2.0]]
    assert assay.variants["name"].is_unique
    assert assay.variants["p_value"].tolist() == [1e-9, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(("message", "rows"), [
    ("1 of 2 rows .* name another reference base .* E:101 A", [ROWS[0], ROWS[0].replace("\tA\tC", "\tC\tA")]),
    ("have a Ref other than", [ROWS[0].replace("\tA\tC", "\tAC\tC")]),
    ("have a Alt other than", [ROWS[0].replace("\tA\tC", "\tA\t*")]),
    ("have a Pos that is not a whole number", [ROWS[0].replace("101", "ten")]),
    ("have a Coefficient that is not a number", [ROWS[0].replace("-0.5", "low")]),
    ("lack a number of barcodes", [ROWS[0].replace("-0.5", "NA")]),
    ("more than one chromosome; first: E", [ROWS[0], ROWS[3].replace("5\t104", "6\t104")]),
    ("no row with a position", [ROWS[4]]),
    ("another number of columns", [ROWS[0], "5\t102"]),
])
def test_read_saturation_mutagenesis__of_damage(tmp_path, message, rows):
    with pytest.raises(InputError, match=message):
        read_saturation_mutagenesis(written(tmp_path / "e.tsv.gz", rows))


def test_read_saturation_mutagenesis__without_a_column(tmp_path):
    path = tmp_path / "e.tsv"
    path.write_text("Chrom\tPos\tRef\tAlt\tTags\tCoefficient\tpValue\tElement\n1\t1\tA\tC\t1\t1\t1\tE\n")
    with pytest.raises(InputError, match="lacks 1 of 8 columns; first: 'Barcodes'"):
        read_saturation_mutagenesis(path)
    with pytest.raises(DataMissingError):
        read_saturation_mutagenesis(tmp_path / "none.tsv")


def pair_files(tmp_path, high=">a\nACGTA\n>b\nAC\nGTT\n", low=">a\nACTTA\n>b\nTCGTT\n",
               table="Chr\tPos\tID\tRef\tAlt\tBeta\nchr1\t11\tb\tT\tA\t0.5\nchr2\t21\ta\tG\tT\t-1.5\nchr3\t1\tc\tG\tT\t1\n"):
    paths = [tmp_path / name for name in ("high.fa", "low.fa", "t.tsv")]
    for path, text in zip(paths, (high, low, table), strict=True):
        path.write_text(text)
    return paths


def test_read_allele_pairs__finds_the_difference(tmp_path):
    high, low, table = pair_files(tmp_path)
    pairs = read_allele_pairs(high, low)
    assert pairs.table.to_numpy().tolist() == [["a", 2, "G", "T"], ["b", 0, "A", "T"]]
    assert [decode(row) for row in pairs.high] == ["ACGTA", "ACGTT"]
    assert (pairs.low.dtype, pairs.low.shape) == (np.uint8, (2, 5))
    listed = read_allele_pairs(high, low, table).table
    assert listed[["name", "chrom", "pos", "ref", "alt", "beta"]].to_numpy().tolist() == [
        ["a", "chr2", 20, "G", "T", -1.5], ["b", "chr1", 10, "T", "A", 0.5]]


@pytest.mark.parametrize(("message", "files"), [
    ("must name the 2 sequences .* first names 'c' for 'b'", {"low": ">a\nACTTA\n>c\nTCGTT\n"}),
    ("must name the 2 sequences .* it has 1", {"low": ">a\nACTTA\n"}),
    ("1 of 2 rows .* differ from .* at other than one base; first: row 0, a: 0", {"low": ">a\nACGTA\n>b\nTCGTT\n"}),
    ("sequences of 4 bp", {"low": ">a\nACTT\n>b\nTCGT\n"}),
    ("another length than the first", {"high": ">a\nACGTA\n>b\nACGT\n"}),
    ("repeat a name", {"high": ">a\nACGTA\n>a\nACGTT\n"}),
    ("begins without a name", {"high": "ACGT\n"}),
    ("1 of 2 rows .* are not in", {"table": "Chr\tPos\tID\tRef\tAlt\tBeta\nchr1\t11\tb\tT\tA\t0.5\n"}),
    ("repeat an ID", {"table": "Chr\tPos\tID\tRef\tAlt\tBeta\n" + "chr1\t11\tb\tT\tA\t0.5\n" * 2}),
])
def test_read_allele_pairs__of_damage(tmp_path, message, files):
    high, low, table = pair_files(tmp_path, **files)
    with pytest.raises(InputError, match=message):
        read_allele_pairs(high, low, table)


@pytest.mark.realdata
def test_readers__of_the_real_files(data_dir):
    assay = read_saturation_mutagenesis(data_dir / "variants/satmut/elements.GRCh38.tsv.gz")
    assert (len(assay.variants), assay.n_unplaced, len(assay.genome.chrom_sizes)) == (24_999, 7, 17)
    assert not any((assay.genome.fetch(c, 0, n) == 4).any() for c, n in assay.genome.chrom_sizes.items())
    folder = data_dir / "variants/dsqtl"
    pairs = read_allele_pairs(folder / "dsQTL_high.fa.gz", folder / "dsQTL_low.fa.gz", folder / "dsQTL.vcf.gz")
    assert pairs.high.shape == (5_668, 100)
    assert ((pairs.table["beta"] > 0) == (pairs.table["high_base"] == pairs.table["alt"])).all()
