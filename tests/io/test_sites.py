"""Known elements as tables: sites with heights, target genes in column 4, and what genes are called."""

import pandas as pd
import pytest

from ciscribe.errors import DataMissingError, InputError
from ciscribe.io.sites import gene_names, read_site_table, read_targets

GENES = pd.DataFrame({"gene_id": ["W1", "W2", "W3"], "gene_name": ["Y74C9A.3", "Y74C9A.2", "Y74C9A.4"]})


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_read_site_table__takes_bed_and_any_table_that_begins_with_a_place(tmp_path):
    table = read_site_table(write(tmp_path / "s.tsv", "chrom_ce10\tstart_ce10\tend_ce10\temb\tsource",
                                  "chrI\t5\t11\t1.5\tpeak", "chrII\t0\t7\t3\tpeak"))
    assert table.columns.tolist() == ["chrom", "start", "end", "emb", "source"]
    assert table["emb"].tolist() == [1.5, 3.0]
    bed = read_site_table(write(tmp_path / "s.bed", "#track gffTags=on", "chrI\t5\t11\tName=a"))
    assert bed[["chrom", "start", "end"]].to_numpy().tolist() == [["chrI", 5, 11]]


@pytest.mark.parametrize(("lines", "message"), [
    (("a\tb", "chrI\t5"), "must begin with the columns chromosome, start and end; got a, b"),
    (("chrom\tstart\tend", "chrI\tfive\t11"), "'?five'?"),
    (("chrom\tstart\tend", "chrI\t15\t11"), "chrI"),
])
def test_read_site_table__says_what_is_wrong(tmp_path, lines, message):
    with pytest.raises(InputError, match=message) as error:
        read_site_table(write(tmp_path / "bad.tsv", *lines))
    assert "bad.tsv" in str(error.value)
    with pytest.raises(DataMissingError):
        read_site_table(tmp_path / "absent.tsv")


def test_read_targets__reads_names_with_brackets_and_several(tmp_path):
    names = gene_names(GENES, write(tmp_path / "names.tsv", "gene_id\tsymbol\tcds_length", "W1\thomt-1\t99",
                                    "W2\tnlp-40\t7", "X9\tzzz\t3"))
    assert names["homt-1"] == names["Y74C9A.3"] == names["W1"] == {"W1"}
    assert "99" not in names
    assert "zzz" not in names
    table = read_targets(write(
        tmp_path / "e.bed", "#track gffTags=on", "chrI\t1\t5\tName=(homt-1);annot=x", "chrI\t7\t9\tName=;annot=x",
        "chrI\t11\t13\tName=(nlp-40,Y74C9A.4);annot=x", "chrI\t17\t19\tName=abc-1"), names)
    assert table["targets"].tolist() == [("W1",), (), ("W2", "W3"), ()]
    assert table.attrs == {"named": 3, "unknown": 1}
    plain = read_targets(write(tmp_path / "e.tsv", "chrom\tstart\tend\ttarget", "chrI\t1\t5\tW1,W2"), names)
    assert plain["targets"].tolist() == [("W1", "W2")]


@pytest.mark.parametrize(("line", "message"), [
    ("chrI\t1\t5", "need target genes in column 4 of a BED file.*got chrom, start, end"),
    ("chrI\t1\t5\tName=;annot=x", "no target gene in column 'name' of any of their 1 rows; first: 'Name=;annot=x'"),
    ("chrI\t1\t5\tcolor=red", "name no target gene"),
    ("chrI\t1\t5\tName=abc-1", r"is a gene of this run \(1 rows\); first: 'abc-1'.*--names"),
])
def test_read_targets__says_what_is_wrong(tmp_path, line, message):
    with pytest.raises(InputError, match=message) as error:
        read_targets(write(tmp_path / "bad.bed", line), gene_names(GENES))
    assert "bad.bed" in str(error.value)


def test_gene_names__says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"needs the column gene_id beside names; got gene, symbol"):
        gene_names(GENES, write(tmp_path / "n.tsv", "gene\tsymbol", "W1\ta"))
    with pytest.raises(InputError, match=r"about none of the 3 genes; its first gene_id is 'Q', theirs 'W1'"):
        gene_names(GENES, write(tmp_path / "n.tsv", "gene_id\tsymbol", "Q\ta"))
