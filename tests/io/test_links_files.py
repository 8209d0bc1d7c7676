"""Files of links: round trips, published column names, arcs for browsers, and what goes wrong."""

import json

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import InputError
from ciscribe.io.links import from_abc_columns, read_links, to_abc_columns, write_bedpe, write_links
from ciscribe.schema import check_links


@pytest.fixture
def links():
    table = pd.DataFrame({
        "chrom": "chr22", "start": [100, 900, 5000], "end": [600, 1400, 5500], "gene_id": ["ENSG1", "ENSG1", "ENSG2"],
        "cell": "K562", "distance": [50.0, 850.0, 4950.5], "score": [0.7, 0.3, 1.0], "gene_name": ["A", "A", "NA"],
        "tss": [300, 300, 10200], "class": ["promoter", "genic", "intergenic"], "activity": [2.5, 1 / 3, 0.25],
        "contact": [0.3, 0.2, 0.1], "contact_source": "hic", "hic_contact": [0.2, 0.1, 0.05],
        "abc_numerator": [0.75, 0.2 / 3, 0.025], "abc": [0.7, 0.3, 1.0], "abc_reported": [1.0, 0.3, 1.0],
        "powerlaw_abc": [0.8, 0.2, 1.0], "is_self_promoter": [True, False, False],
        "expression": [np.nan, np.nan, 3.5], "is_expressed": [True, True, False],
    })
    table.attrs = {"method": "abc", "gene_universe": {"n": 2, "sha256": "ab"}}
    return table


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.parquet"])
def test_what_is_written_is_read(tmp_path, links, name):
    write_links(tmp_path / name, links, inputs={"peaks": "sha256:1"})
    got = read_links(tmp_path / name)
    pd.testing.assert_frame_equal(got, links, rtol=1e-8)
    assert got.attrs == links.attrs
    beside = json.loads((tmp_path / f"{name}.json").read_text())
    assert beside["inputs"] == {"peaks": "sha256:1"}
    assert beside["rows"] == 3
    assert beside["columns"] == list(links.columns)


def test_published_names_go_out_and_come_back(tmp_path, links):
    out = to_abc_columns(links)
    assert list(out.columns[:5]) == ["chr", "start", "end", "name", "class"]
    assert out["name"][1] == "genic|chr22:900-1400"
    assert out["ABC.Score"].tolist() == [1.0, 0.3, 1.0]
    assert out["powerlaw.Score"].tolist() == [1.0, 0.2, 1.0]
    assert {"TargetGene", "TargetGeneTSS", "isSelfPromoter", "hic_contact_pl_scaled_adj"} <= set(out.columns)
    out.drop(columns=["score", "abc"]).to_csv(tmp_path / "EnhancerPredictionsAllPutative.tsv.gz", sep="\t", index=False)
    back = read_links(tmp_path / "EnhancerPredictionsAllPutative.tsv.gz")
    for column in ("chrom", "start", "end", "gene_id", "cell", "distance", "tss", "activity", "contact", "is_expressed",
                   "is_self_promoter", "abc_reported", "gene_name"):
        assert back[column].tolist() == pytest.approx(links[column].tolist()) if back[column].dtype.kind == "f" else (
            back[column].tolist() == links[column].tolist()), column
    assert back["score"].tolist() == [1.0, 0.3, 1.0]


def test_a_power_law_table_keeps_its_contact_through_the_published_names(links):
    plain = links.assign(hic_contact=np.nan, powerlaw_contact=links["contact"], contact_source="powerlaw")
    out = to_abc_columns(plain)
    assert out["hic_contact_pl_scaled_adj"].isna().all()
    assert from_abc_columns(out)["contact"].tolist() == plain["contact"].tolist()


def test_encode_re2g_scores_come_first_and_symbols_stand_in_for_missing_ids():
    table = pd.DataFrame({"chr": "chr1", "start": [10, 30], "end": [20, 50], "TargetGene": ["A", "B"],
                          "TargetGeneEnsembl_ID": ["ENSG7", "NA"], "ABC.Score": [0.1, 0.2], "TargetGeneTSS": [100, 0],
                          "ENCODE-rE2G.Score": [0.9, 0.8], "CellType": "K562", "distanceToTSS": [np.nan, 40.0]})
    got = from_abc_columns(table)
    assert got["score"].tolist() == [0.9, 0.8]
    assert got["gene_id"].tolist() == ["ENSG7", "B"]
    assert got["distance"].tolist() == [85.0, 40.0]
    assert from_abc_columns(table, gene="symbol")["gene_id"].tolist() == ["A", "B"]


def test_arcs_lead_from_the_element_to_the_tss(tmp_path, links):
    write_bedpe(tmp_path / "a.bedpe", links)
    lines = (tmp_path / "a.bedpe").read_text().splitlines()
    assert lines[0].startswith("#chrom1\tstart1")
    assert lines[3].split("\t") == ["chr22", "5000", "5500", "chr22", "10200", "10201", "NA|K562", "1", ".", "."]
    with pytest.raises(InputError, match="column tss"):
        write_bedpe(tmp_path / "b.bedpe", links.drop(columns="tss"))
    assert not (tmp_path / "b.bedpe").exists()


def test_bad_tables_are_named(tmp_path, links):
    links.drop(columns="distance").to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match="lacks 1 of 7 columns; first: 'distance'"):
        read_links(tmp_path / "a.tsv")
    links.assign(score=[0.1, np.nan, 0.2]).to_csv(tmp_path / "b.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=r"1 of 3 rows .* no finite score; first: row 1, ENSG1"):
        read_links(tmp_path / "b.tsv")
    pd.concat([links, links.iloc[[1]]]).to_csv(tmp_path / "c.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match="1 of 4 links repeat a pair"):
        read_links(tmp_path / "c.tsv")
    links.assign(start=["100", "x", "5"]).to_csv(tmp_path / "d.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=r"1 of 3 rows .*start that is not a whole number"):
        read_links(tmp_path / "d.tsv")
    (tmp_path / "e.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="truncated or no parquet"):
        read_links(tmp_path / "e.parquet")
    with pytest.raises(InputError, match=r"parquet, .tsv or .tsv.gz"):
        write_links(tmp_path / "a.xlsx", links)
    with pytest.raises(InputError, match="none of the scores"):
        from_abc_columns(pd.DataFrame({"chr": ["chr1"], "start": [1], "end": [2], "TargetGene": ["A"]}))


@pytest.mark.realdata
@pytest.mark.parametrize(("file", "gene", "rows"), [
    ("human_chr22_k562/hg38/ABC_predictions_full_thr0.027.tsv.gz", "symbol", 1353),
    ("human_chr22_k562/hg38/encode_rE2G_predictions_thr0.243.tsv.gz", "symbol", 7218),
    ("human_chr22_k562/hg19/ABC_EnhancerPredictionsFull.txt.gz", "id", 997),
    ("crispri/ABC_K562_Fulco2019Genes_GRCh38.tsv.gz", "id", 55039),
])
def test_published_predictions_are_read(data_dir, file, gene, rows):
    got = read_links(data_dir / file, gene=gene)
    assert len(got) == rows
    check_links(got)
    assert got["score"].between(0, 1).all()
    assert got["distance"].notna().all()
