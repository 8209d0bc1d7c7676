import gzip

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import DataMissingError, InputError
from ciscribe.io.crispri import read_crispri
from ciscribe.schema import check_links

HEADER = ["chrom", "chromStart", "chromEnd", "name", "EffectSize", "chrTSS", "startTSS", "endTSS",
          "measuredGeneSymbol", "measuredGeneEnsemblId", "Significant", "PowerAtEffectSize25", "ValidConnection",
          "CellType", "Regulated", "H3K27ac.RPM.expandedRegion", "H3K27ac_peak_overlap"]
ROWS = [["chr1", "100", "600", "e1", "-0.3", "chr1", "5000", "5001", "ABC1", "ENSG1", "TRUE", "0.83", "TRUE", "K562",
         "TRUE", "4.5", "1"],
        ["chr2", "700", "900", "e2", "0.1", "chr2", "NA", "NA", "NA", "ENSG2", "FALSE", "NA", "PromoterElement", "K562",
         "NA", "0", "0"]]


def write(path, header=HEADER, rows=ROWS):
    text = "\n".join("\t".join(row) for row in [header, *rows]) + "\n"
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.tsv.gz"])
def test_read_crispri__community_file(tmp_path, name):
    pairs = read_crispri(write(tmp_path / name))
    check_links(pairs)
    first, second = pairs.iloc[0], pairs.iloc[1]
    assert (first["chrom"], first["start"], first["end"], first["gene_id"], first["gene_name"], first["cell"]) == \
        ("chr1", 100, 600, "ENSG1", "ABC1", "K562")
    assert (first["effect"], first["score"], first["power_25"], first["h3k27ac_rpm_expanded"]) == (-0.3, 0.3, 0.83, 4.5)
    assert first["distance"] == 5_000 - 350
    assert first["significant"]
    assert first["regulated"]
    assert first["connection"] == "TRUE"
    assert second["gene_name"] == "NA"  # a symbol, not a gap
    assert second["regulated"] is pd.NA
    assert not second["significant"]
    assert np.isnan(second["distance"])
    assert np.isnan(second["power_25"])
    assert second["connection"] == "PromoterElement"
    assert pairs["h3k27ac_peak"].tolist() == [1, 0]


def test_read_crispri__symbols_are_ids_where_there_are_no_ids(tmp_path):
    i = HEADER.index("measuredGeneEnsemblId")
    path = write(tmp_path / "p.tsv", HEADER[:i] + HEADER[i + 1:], [row[:i] + row[i + 1:] for row in ROWS])
    assert read_crispri(path)["gene_id"].tolist() == ["ABC1", "NA"]


def test_read_crispri__plain_table(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("chrom,start,end,gene_id,label,tss,note\nchr1,10,20,g,1,115,x\nchr1,30,40,g,0,115,y\n")
    pairs = read_crispri(path)
    assert pairs["label"].tolist() == [True, False]
    assert pairs["distance"].tolist() == [100, 80]
    assert pairs["cell"].tolist() == [".", "."]
    assert pairs["note"].tolist() == ["x", "y"]
    assert pairs["score"].isna().all()


def test_read_crispri__bad_input(tmp_path):
    with pytest.raises(DataMissingError):
        read_crispri(tmp_path / "none.tsv")
    with pytest.raises(InputError, match=r"lacks 1 of .* columns; first: 'Regulated'"):
        read_crispri(write(tmp_path / "a.tsv", [*HEADER[:14], "regulated?", *HEADER[15:]]))
    with pytest.raises(InputError, match=r"1 of 2 rows .* have a start that is not a whole number; first: row 1, 'x'"):
        read_crispri(write(tmp_path / "b.tsv", rows=[ROWS[0], ["chr2", "x", *ROWS[1][2:]]]))
    with pytest.raises(InputError, match="have a significant other than TRUE, FALSE and NA; first: row 0, 'maybe'"):
        read_crispri(write(tmp_path / "c.tsv", rows=[[*ROWS[0][:10], "maybe", *ROWS[0][11:]]]))
    with pytest.raises(InputError, match="1 of 2 links repeat a pair"):
        read_crispri(write(tmp_path / "d.tsv", rows=[ROWS[0], ROWS[0]]))
    with pytest.raises(InputError, match="end at or before their start"):
        read_crispri(write(tmp_path / "e.tsv", rows=[["chr1", "600", "100", *ROWS[0][3:]]]))
    with pytest.raises(InputError, match="'label'"):
        read_crispri(write(tmp_path / "f.tsv", ["chrom", "start", "end", "gene_id"], [["chr1", "1", "2", "g"]]))


@pytest.mark.realdata
def test_read_crispri__training_table(data_dir):
    pairs = read_crispri(data_dir / "crispri" / "EPCrisprBenchmark_combined_data.training_K562.GRCh38.tsv.gz")
    assert len(pairs) == 10_356
    assert pairs["regulated"].sum() == 471
    assert pairs["gene_id"].str.startswith("ENSG").all()
    assert np.median(pairs.loc[pairs["regulated"].to_numpy(bool), "distance"]) == pytest.approx(26_000, rel=0.02)
    assert {"dhs_rpm", "h3k27ac_rpm", "h3k27ac_rpm_expanded", "ctcf_rpm", "h3k27me3_rpm", "h3k4me1_rpm", "ubiquitous",
            "power_25"} <= set(pairs.columns)
