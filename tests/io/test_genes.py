import gzip

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import DataMissingError, InputError, SchemaError
from ciscribe.io.genes import read_folds, read_gene_features, read_genes, write_gtf
from ciscribe.schema import check_genes

GTF = """#!genome-build x
chr1\tsrc\tgene\t11\t20\t.\t+\t.\tgene_id "g1"; gene_name "alpha"; gene_type "protein_coding"; level 2;
chr1\tsrc\ttranscript\t11\t20\t.\t+\t.\tgene_id "g1"; transcript_id "t1";
chr1\tsrc\texon\t11\t13\t.\t+\t.\tgene_id "g1"; transcript_id "t1";
chr2\tsrc\tgene\t31\t47\t.\t-\t.\tgene_id "g2"; gene_type "lncRNA";
"""
GFF = """##gff-version 3
1\tsrc\tregion\t1\t99\t.\t.\t.\tID=chromosome:1
1\tsrc\tgene\t11\t20\t.\t+\t.\tID=gene:g1;Name=al%3Bpha;biotype=protein_coding;gene_id=g1
1\tsrc\tmRNA\t11\t20\t.\t+\t.\tID=transcript:t1;Parent=gene:g1
2\tsrc\tncRNA_gene\t31\t47\t.\t-\t.\tID=gene-g2;gene_biotype=lncRNA
##FASTA
>1
ACGT
"""


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text", "chroms", "first"),
    [
        ("g.gtf", GTF, ["chr1", "chr2"], "alpha"),
        ("g.gtf.gz", GTF, ["chr1", "chr2"], "alpha"),
        ("g.gff3", GFF, ["1", "2"], "al;pha"),
        ("g.v1.gff.gz", GFF, ["1", "2"], "al;pha"),
    ],
)
def test_read_genes__annotation_is_half_open_and_strand_aware(tmp_path, name, text, chroms, first):
    genes = read_genes(write(tmp_path / name, text))
    assert genes.to_dict("list") == {
        "chrom": chroms,
        "start": [10, 30],
        "end": [20, 47],
        "strand": ["+", "-"],
        "gene_id": ["g1", "g2"],
        "gene_name": [first, "g2"],
        "tss": [10, 46],
        "biotype": ["protein_coding", "lncRNA"],
    }
    check_genes(genes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "g.gtf",
            'c\ts\ttranscript\t11\t20\t.\t-\t.\tgene_id "g1"; transcript_id "a"; gene_name "n";\n'
            'c\ts\ttranscript\t7\t17\t.\t-\t.\tgene_id "g1"; transcript_id "b"; gene_name "n";\n',
        ),
        (
            "g.gff3",
            "c\ts\tmRNA\t11\t20\t.\t-\t.\tID=a;Parent=gene:g1;gene_name=n\n"
            "c\ts\tmRNA\t7\t17\t.\t-\t.\tID=b;Parent=gene:g1;gene_name=n\n",
        ),
    ],
)
def test_read_genes__without_gene_features_merges_transcripts(tmp_path, name, text):
    genes = read_genes(write(tmp_path / name, text))
    assert genes.to_dict("records") == [
        {"chrom": "c", "start": 6, "end": 20, "strand": "-", "gene_id": "g1", "gene_name": "n", "tss": 19}
    ]


def test_read_genes__headerless_table_keeps_extra_columns(tmp_path):
    path = write(tmp_path / "genes.bed.gz", "chrI\t4\t10\tWB1\tY7.3\t-\t3\nchrI\t12\t17\tWB2\t\t+\t6\n")
    genes = read_genes(
        path, columns=["chrom", "start", "end", "gene_id", "gene_name", "strand", "n_transcripts"]
    )
    assert genes["tss"].tolist() == [9, 12]
    assert genes["gene_name"].tolist() == ["Y7.3", "WB2"]
    assert genes["n_transcripts"].tolist() == [3, 6]
    with pytest.raises(InputError, match="has 7 columns, but 3 names"):
        read_genes(path, columns=["chrom", "start", "end"])


def test_read_genes__bed_name_is_the_gene_id(tmp_path):
    genes = read_genes(write(tmp_path / "genes.bed", "chr1\t4\t10\tNAN\t0\t-\n"))
    assert genes[["gene_id", "gene_name", "tss"]].to_numpy().tolist() == [["NAN", "NAN", 9]]


def test_read_genes__csv_with_renamed_columns_and_stated_tss(tmp_path):
    path = write(tmp_path / "genes.csv", 'Stable ID,chrom,start,end,strand,tss,note\ng1,1,4,10,-,7,"a, b"\n')
    genes = read_genes(path, columns={"gene_id": "Stable ID"})
    assert genes["tss"].tolist() == [7]
    assert genes["note"].tolist() == ["a, b"]
    with pytest.raises(
        InputError, match=r"lacks 1 of 1 columns; first: 'Stable_ID'; did you mean 'Stable ID'"
    ):
        read_genes(path, columns={"gene_id": "Stable_ID"})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("g.gtf", GTF + GTF, "2 of 4 genes repeat a gene_id; first: row 2 .*g1"),
        (
            "g.gtf",
            GTF.replace("\t+\t", "\t.\t"),
            r"1 of 2 .*strand other than \+ and -.*first: row 0, g1 has '\.'",
        ),
        ("g.gtf", GTF.replace('gene_id "g2"', 'gene "g2"'), "1 of 2 genes have no gene_id"),
        ("g.gtf", 'chr1\tsrc\texon\t1\t5\t.\t+\t.\tgene_id "g";\n', "no gene, transcript or mRNA"),
        ("g.gtf", GTF + "chr2\tsrc\tge", "9 tab-separated columns.*is the file whole"),
        ("g.gtf", GTF.replace("\t11\t20", "\t21\t20"), "end at or before their start"),
        ("g.tsv", "gene_id\tchrom\tstart\tend\ng\t1\t2\t5\n", "lacks 1 of 5 columns; first: 'strand'"),
        ("g.tsv", "gene_id\tchrom\tstart\tend\tstrand\ng\t1\t\t5\t+\n", "start that is not a whole number"),
    ],
)
def test_read_genes__bad_files(tmp_path, name, text, says):
    with pytest.raises(InputError, match=says):
        read_genes(write(tmp_path / name, text))


def test_read_genes__missing_and_truncated(tmp_path):
    with pytest.raises(DataMissingError):
        read_genes(tmp_path / "absent.gtf")
    path = write(tmp_path / "g.gtf.gz", GTF * 7)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_genes(path)


@pytest.mark.parametrize("name", ["out.gtf", "out.gtf.gz"])
def test_write_gtf__round_trip(tmp_path, name):
    genes = read_genes(write(tmp_path / "g.gtf", GTF))
    write_gtf(tmp_path / name, genes)
    pd.testing.assert_frame_equal(read_genes(tmp_path / name), genes)
    with pytest.raises(SchemaError, match="repeat a gene_id"):
        write_gtf(tmp_path / name, pd.concat([genes, genes]))
    pd.testing.assert_frame_equal(read_genes(tmp_path / name), genes)


def test_write_gtf__has_gene_transcript_and_exon(tmp_path):
    write_gtf(tmp_path / "out.gtf", read_genes(write(tmp_path / "g.gtf", GTF)))
    rows = [line.split("\t") for line in (tmp_path / "out.gtf").read_text().splitlines()]
    assert [row[2] for row in rows] == ["gene", "transcript", "exon"] * 2
    assert {(row[3], row[4]) for row in rows} == {("11", "20"), ("31", "47")}


FEATURES = 'ENSID,Gene name,len,gc,a,b\ng1,"one, the first",-0.5,0.25,2,8\ng2,two,1.5,0.5,0,3\n,none,x,y,z,w\n'


def test_read_gene_features__columns_and_geometric_means(tmp_path):
    path = write(tmp_path / "f.csv", FEATURES)
    found = read_gene_features(path, ["gc", "len"], gene_id="ENSID", geometric_mean={"activity": ["a", "b"]})
    assert found.columns.tolist() == ["gc", "len", "activity"]
    assert found.index.tolist() == ["g1", "g2"]
    assert found.loc["g1"].tolist() == [0.25, -0.5, 4.0]
    assert found.loc["g2"].tolist() == [0.5, 1.5, 0.0]
    three = read_gene_features(path, [], gene_id="ENSID", geometric_mean={"m": ["a", "b", "b"]})
    np.testing.assert_allclose(three["m"], [128 ** (1 / 3), 0])


@pytest.mark.parametrize(("edit", "says"), [
    (("ENSID", "gene"), r"gene features .*f\.csv lacks 1 of 1 columns; first: 'ENSID'"),
    ((",gc,", ",gcc,"), r"lacks 1 of 3 columns; first: 'gc'; did you mean 'gcc'"),
    (("g2,", "g1,"), r"1 of 2 rows of gene features .*f\.csv repeat a ENSID; first: row 1, g1"),
    (("0.25", ""), r"1 of 2 rows of gene features .*f\.csv have no finite gc; first: row 0, gene g1 = nan"),
    (("0.25", "low"), r"1 of 2 rows .* have a gc that is not a number; first: row 0, 'low'"),
    ((",0,3", ",-1,3"), r"negative a, of which 'm' is to take the geometric mean; first: row 1, gene g2 = -1\.0"),
])
def test_read_gene_features__faults_are_named(tmp_path, edit, says):
    path = write(tmp_path / "f.csv", FEATURES.replace(*edit))
    with pytest.raises(InputError, match=says):
        read_gene_features(path, ["gc"], gene_id="ENSID", geometric_mean={"m": ["a", "b"]})


SPLIT = "ENSID,fold_1,fold_2\ng1,train,test\ng2,valid,train\ng3,test,train\n"


def test_read_folds__one_column_of_several(tmp_path):
    path = write(tmp_path / "s.csv.gz", SPLIT)
    assert read_folds(path, "fold_1", gene_id="ENSID") == {"g1": "train", "g2": "valid", "g3": "test"}


@pytest.mark.parametrize(("column", "edit", "says"), [
    ("fold_2", ("", ""), r"folds .*s\.csv: column 'fold_2' puts none of 3 genes into valid; name another column"),
    ("fold_3", ("", ""), "lacks 1 of 2 columns; first: 'fold_3'; did you mean 'fold_"),
    ("fold_1", ("g2", "g1"), r"1 of 3 rows of folds .*s\.csv repeat a ENSID; first: row 1, g1"),
    ("fold_1", (",valid,", ",validation,"), "have a fold_1 other than train, valid, test; first: row 1, gene g2 has "
                                            "'validation'"),
])
def test_read_folds__faults_are_named(tmp_path, column, edit, says):
    path = write(tmp_path / "s.csv", SPLIT.replace(*edit))
    with pytest.raises(InputError, match=says):
        read_folds(path, column, gene_id="ENSID")


def test_read_genes__columns_of_a_table_may_be_mapped(tmp_path):
    path = write(tmp_path / "GeneList.txt", "chr\tstart\tend\tname\tstrand\tsymbol\ttss\tRPM\n"
                                            "chr1\t10\t20\tn1\t-\tENSG1\t20\t0.5\n")
    gene = read_genes(path, columns={"gene_id": "symbol", "chrom": "chr"}).iloc[0]
    assert (gene["gene_id"], gene["chrom"], gene["tss"], gene["RPM"]) == ("ENSG1", "chr1", 20, 0.5)
