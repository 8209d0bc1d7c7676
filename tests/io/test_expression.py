import gzip

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import DataMissingError, InputError
from ciscribe.io.expression import read_expression
from ciscribe.io.genes import read_genes
from ciscribe.schema import check_expression

TABLE = "gene_id\tsymbol\tlen\ta1\ta2\tb\ng1\tx\t1000\t10\t0\t3\ng2\ty\t500\t5\t7\t0\n\tz\t2000\t20\t4\t5\n"


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_read_expression__takes_every_numeric_column(tmp_path):
    table = read_expression(write(tmp_path / "e.tsv", TABLE))
    assert table.to_dict("list") == {"len": [1000, 500], "a1": [10, 5], "a2": [0, 7], "b": [3, 0]}
    assert table.index.tolist() == ["g1", "g2"]
    check_expression(table)


def test_read_expression__columns_are_kept_or_averaged(tmp_path):
    path = write(tmp_path / "e.csv.gz", TABLE.replace("\t", ","))
    assert read_expression(path, columns=["b", "a1"]).columns.tolist() == ["b", "a1"]
    table = read_expression(path, columns={"B": ["b"], "A": ["a1", "a2"]}, transform="log2p1")
    np.testing.assert_allclose(table["A"], np.log2(np.array([5, 6]) + 1))
    np.testing.assert_allclose(table["B"], np.log2(np.array([3, 0]) + 1))


def test_read_expression__tpm_is_per_library_over_all_rows_then_averaged(tmp_path):
    table = read_expression(
        write(tmp_path / "e.tsv", TABLE),
        columns={"A": ["a1", "a2"]},
        counts_length="len",
        transform="log10p1",
    )
    rate_1, rate_2 = (
        np.array([10, 10, 10]),
        np.array([0, 14, 2]),
    )  # counts per kb; the third row has no gene id
    tpm = (rate_1 / 30 * 1e6 + rate_2 / 16 * 1e6) / 2
    np.testing.assert_allclose(table["A"], np.log10(tpm[:2] + 1))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("\t10\t", "\t\t", "1 of 6 expression values are missing or infinite; first: gene g1, column a1"),
        ("\t5\t7", "\t5\t-7", "1 of 6 expression values are negative; first: gene g2, column a2 = -7"),
        ("\t10\t", "\tinf\t", "missing or infinite"),
        ("\t10\t", "\tten\t", "a1 that is not a number; first: row 0, 'ten'"),
        ("g2", "g1", "1 of 2 expression rows repeat a gene_id; first: g1"),
    ],
)
def test_read_expression__bad_values(tmp_path, old, new, says):
    with pytest.raises(InputError, match=says):
        read_expression(write(tmp_path / "e.tsv", TABLE.replace(old, new)), columns=["a1", "a2", "b"])


def test_read_expression__bad_requests(tmp_path):
    path = write(tmp_path / "e.tsv", TABLE)
    with pytest.raises(InputError, match="lacks 1 of 2 columns; first: 'a3'; did you mean 'a"):
        read_expression(path, columns={"A": ["a1", "a3"]})
    with pytest.raises(InputError, match="first: 'gene'; did you mean 'gene_id'"):
        read_expression(path, gene_id="gene")
    with pytest.raises(InputError, match="none for A"):
        read_expression(path, columns={"A": []})
    with pytest.raises(Exception, match="transform"):
        read_expression(path, transform="log")
    with pytest.raises(InputError, match="len that is not positive; first: row 1, gene g2 = 0"):
        read_expression(write(path, TABLE.replace("500", "0")), columns=["b"], counts_length="len")
    with pytest.raises(InputError, match="1 of 2 libraries hold no reads; first: b"):
        read_expression(
            write(path, TABLE.replace("\t3\n", "\t0\n").replace("\t5\n", "\t0\n")),
            columns=["a1", "b"],
            counts_length="len",
        )
    with pytest.raises(DataMissingError):
        read_expression(tmp_path / "absent.tsv")


@pytest.mark.realdata
def test_read_expression__worm(data_dir):
    path = data_dir / "worm" / "rnaseq_counts_CDS_unique_WS290.tsv.gz"
    raw = pd.read_csv(path, sep="\t").set_index("gene_id")
    libraries = {"emb": [c for c in raw.columns if c.startswith("2012")], "YA": ["YA", "N2_Yad-1"]}
    table = read_expression(path, columns=libraries, counts_length="cds_length", transform="log10p1")
    genes = read_genes(
        data_dir / "worm" / "WS220_genes_from_jbrowse.bed.gz",
        columns=["chrom", "start", "end", "gene_id", "gene_name", "strand", "n_transcripts"],
    )
    assert (len(table), len(genes)) == (19_984, 20_392)
    assert genes["gene_id"].isin(table.index).sum() == 19_168
    assert genes["tss"].iloc[:2].tolist() == [10_231, 10_412]
    rate = raw[libraries["YA"]].div(raw["cds_length"], axis=0)
    expected = np.log10((rate / rate.sum() * 1e6).mean(axis=1) + 1)
    np.testing.assert_allclose(table["YA"], expected.loc[table.index], rtol=1e-9)
