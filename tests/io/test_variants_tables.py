"""Variants from TSV and CSV, and from whatever a file is."""

import gzip

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import InputError, UnknownNameError
from ciscribe.io.genome import MemoryGenome
from ciscribe.io.variant_tables import iter_variants, read_variant_table
from ciscribe.sequence import encode

TABLE = """Chromosome\tPosition\tRSID\tallele1\tallele2\tbeta\tword
chr1\t5\trs1\ta\tG,ct\t0.5\t7
chr2\t2\t.\tAC\tA\t-2\tNA
"""
OURS = [["chr1", 4, "A", "G", "rs1"], ["chr1", 4, "A", "CT", "rs1"], ["chr2", 1, "AC", "A", "."]]
GENOME = MemoryGenome({"chr1": encode("ACGTTGCA"), "chr2": encode("GGACT")})
VCF = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t5\trs1\tT\tC,*\t.\t.\t.\n"


def store(folder, text, name="t.tsv"):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["t.tsv", "t.txt.gz", "t.csv", "t.vcf"])
def test_read_variant_table__usual_names(tmp_path, name):
    text = TABLE.replace("\t", ",").replace("G,ct", '"G,ct"') if name == "t.csv" else TABLE
    table = read_variant_table(store(tmp_path, text, name), one_based=True)
    assert table.iloc[:, :5].to_numpy().tolist() == OURS
    assert table.columns.tolist() == ["chrom", "pos", "ref", "alt", "name", "beta", "word"]
    assert table["beta"].tolist() == [0.5, 0.5, -2.0]
    assert table["word"].tolist() == ["7", "7", "NA"]
    moved = read_variant_table(store(tmp_path, text, name), one_based=False)
    assert (moved["pos"] - table["pos"]).tolist() == [1, 1, 1]


@pytest.mark.parametrize("header", ["#CHROM\tPOS\tREF\tALT", "# a remark\n#chr\tpos\tref\talt", "chr pos ref alt"])
def test_read_variant_table__without_names(tmp_path, header):
    rows = "\n1\t7\tA\tC\n\n# end\n".replace("\t", " " if " " in header.splitlines()[-1] else "\t")
    table = read_variant_table(store(tmp_path, header + rows), one_based=True)
    assert table.to_numpy().tolist() == [["1", 6, "A", "C", "."]]


def test_read_variant_table__named_columns(tmp_path):
    path = store(tmp_path, "chr\tstart\tpos\tA0\tA1\nchr1\t3\t99\tA\tC\n")
    table = read_variant_table(path, one_based=False, columns={"pos": "start", "ref": "A0", "alt": "A1"})
    assert table.to_numpy().tolist() == [["chr1", 3, "A", "C", "."]]
    with pytest.raises(InputError, match=r"lacks 1 of 1 columns; first: 'strat'; did you mean 'start'"):
        read_variant_table(path, one_based=False, columns={"pos": "strat"})
    with pytest.raises(ValueError, match=r"no column 'posn' of variants; did you mean 'pos'"):
        read_variant_table(path, one_based=False, columns={"posn": "start"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TABLE.replace("allele2", "effect"), r"lacks 1 of 4 columns \(alt\); 'alt' may be called alt, .*file has: Chr"),
        (TABLE.replace("\t5\t", "\t1e3x\t"), r"1 of 2 rows of variant table .* whole number; first: row 0, 'chr1 1e3x"),
        (TABLE.replace("\t5\t", "\t\t"), "whole number; first: row 0"),
        (TABLE.replace("\t5\t", "\t0\t"), "position before 1, where counting starts; first: row 0"),
        (TABLE.replace("\tAC\t", "\tA-C\t"), "not letters.*first: row 1"),
        (TABLE.replace("\tAC\tA\t", "\t-\t-\t"), "not letters.*first: row 1"),
        (TABLE.replace("\tA\t-2", "\t*\t-2"), r"must hold sequences .* 1 star \(first: row 1, 'chr2 2 \. AC \*'\)"),
        (TABLE.replace("\tAC\tA\t", "\tAC\t-\t"), r"1 of 2 rows .* allele '-'; .* give the genome.*first: row 1"),
        (TABLE.replace("\tNA\n", "\n"), "another number of columns"),
        ("\0\1\2\n", "must be text"),
        ("# a remark\n", "whose first line names the columns; got ''"),
    ],
)
def test_read_variant_table__bad_tables(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        read_variant_table(store(tmp_path, text), one_based=True)


def test_read_variant_table__header_only(tmp_path):
    table = read_variant_table(store(tmp_path, TABLE.splitlines()[0] + "\n"), one_based=True)
    assert table.shape == (0, 7)
    assert table["pos"].dtype == np.int64


def test_read_variant_table__gaps_get_the_base_before(tmp_path):
    """Written back into the sequence, an anchored allele gives what the gap meant."""
    text = "chrom\tpos\tref\talt\nchr1\t3\tGT\t-\nchr1\t5\t-\tAA\nchr1\t2\tC\tG,-\nchr2\t5\tT\tG\n"
    table = read_variant_table(store(tmp_path, text), one_based=True, genome=GENOME)
    assert table.iloc[:, :4].to_numpy().tolist() == [
        ["chr1", 1, "CGT", "C"],
        ["chr1", 3, "T", "TAA"],
        ["chr1", 0, "AC", "AG"],
        ["chr1", 0, "AC", "A"],
        ["chr2", 4, "T", "G"],
    ]
    changed = []
    for row in table.itertuples():
        letters = {"chr1": "ACGTTGCA", "chr2": "GGACT"}[row.chrom]
        assert letters[row.pos:row.pos + len(row.ref)] == row.ref
        changed.append(letters[:row.pos] + row.alt + letters[row.pos + len(row.ref):])
    # a deletion of bases 3-4; AA before base 5; base 2 becomes G; base 2 lost; SNV
    assert changed == ["ACTGCA", "ACGTAATGCA", "AGGTTGCA", "AGTTGCA", "GGACG"]


def test_read_variant_table__gaps_that_cannot_be_anchored(tmp_path):
    with pytest.raises(InputError, match=r"1 of 1 rows .* first base, with no base before it.*first: row 0"):
        read_variant_table(store(tmp_path, "chrom\tpos\tref\talt\nchr1\t1\tA\t-\n"), one_based=True, genome=GENOME)
    with pytest.raises(UnknownNameError, match="no sequence 'chr3'"):
        read_variant_table(store(tmp_path, "chrom\tpos\tref\talt\nchr3\t2\tA\t-\n"), one_based=True, genome=GENOME)


@pytest.mark.parametrize("chunk", [1, 2, 50])
def test_iter_variants__either(tmp_path, chunk):
    pieces = list(iter_variants(store(tmp_path, TABLE), chunk=chunk, one_based=True))
    assert pd.concat([p.variants for p in pieces]).iloc[:, :5].to_numpy().tolist() == OURS
    assert [p.last for p in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [i for p in pieces for i in p.row + p.first] == [0, 0, 1]
    # A VCF is one by its first line, whatever its name; its positions need no statement.
    for name in ("v.vcf", "v.txt", "v.gz"):
        for text in (VCF, VCF.partition("\n")[2]):
            (piece,) = iter_variants(store(tmp_path, text, name), chunk=chunk)
            assert piece.variants.to_numpy().tolist() == [["chr1", 4, "T", "C", "rs1"]]
            assert piece.skipped.counts == {"star": 1}
            assert len(piece.lines) == 1


def test_iter_variants__errors(tmp_path):
    with pytest.raises(InputError, match=r"is a table, not VCF.*state one_based=True"):
        list(iter_variants(store(tmp_path, TABLE, "t.vcf.gz")))
    with pytest.raises(InputError, match="must have a header line '#CHROM"):
        list(iter_variants(store(tmp_path, VCF.splitlines()[2] + "\n", "v.vcf")))
    text = TABLE + "chr2\t0\t.\tA\tC\t1\t1\n"
    with pytest.raises(InputError, match=r"1 of 1 rows \(after the first 2\) .*first: row 2"):
        list(iter_variants(store(tmp_path, text), chunk=2, one_based=True))


@pytest.mark.realdata
def test_read_variant_table__of_dsqtl(data_dir):
    path = data_dir / "variants/dsqtl/dsQTL.vcf.gz"  # a table, in spite of its name
    assert not (next(iter_variants(path, one_based=True))).lines
    table = read_variant_table(path, one_based=True)
    assert len(table) > 5000
    assert table["Beta"].dtype == np.float64
    assert table["ref"].str.fullmatch("[ACGT]").all()
    assert (table["name"].str.replace(".", ":") == table["chrom"] + ":" + (table["pos"] + 1).astype(str)).all()
