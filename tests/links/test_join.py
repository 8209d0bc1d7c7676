"""Links joined with motif hits and variants: each counts where it lies, for its gene and its cell."""

import pandas as pd
import pytest

from ciscribe.errors import SchemaError
from ciscribe.links.join import describe_links

LINKS = pd.DataFrame({"chrom": ["chr1", "chr1", "chr2"], "start": [100, 100, 100], "end": [200, 200, 200],
                      "gene_id": ["a", "b", "c"], "cell": "blood", "distance": [1, 2, 3], "score": 0.5})
HITS = pd.DataFrame({"chrom": ["chr1", "chr1", "chr1", "chr2"], "start": [110, 190, 300, 90],
                     "end": [118, 210, 310, 100], "motif": ["GATA1", "TAL1", "SP1", "KLF1"],
                     "score": [3.0, 9.0, 5.0, 8.0]})
EFFECTS = pd.DataFrame({"chrom": "chr1", "pos": [150, 150, 199, 200], "ref": "A", "alt": ["C", "C", "G", "T"],
                        "name": ".", "track": "blood", "gene_id": ["a", "b", ".", "a"], "diff": [-0.7, 0.1, 0.3, 9.0]})


def test_hits_are_listed_from_the_best_and_only_inside():
    out = describe_links(LINKS, hits=HITS)
    assert out["n_hits"].tolist() == [2, 2, 0]
    assert out["motifs"].tolist() == ["TAL1, GATA1", "TAL1, GATA1", ""]
    assert "n_variants" not in out


def test_a_variant_counts_for_its_gene():
    out = describe_links(LINKS, effects=EFFECTS)
    assert out["n_variants"].tolist() == [2, 2, 0]
    assert out["top_variant"].tolist() == ["chr1:150 A>C", "chr1:199 A>G", ""]
    assert out["top_effect"].tolist()[:2] == [-0.7, 0.3]
    assert pd.isna(out["top_effect"].iloc[2])


def test_another_cell_does_not_count():
    other = pd.concat([EFFECTS, EFFECTS.assign(track="liver", diff=5.0)], ignore_index=True)
    assert describe_links(LINKS, effects=other)["top_effect"].iloc[0] == -0.7
    # where no track is called like the cell, a track is what it is
    assert describe_links(LINKS, effects=EFFECTS.assign(track="mean"))["n_variants"].tolist() == [2, 2, 0]


def test_tables_are_checked_and_left_alone():
    before = LINKS.copy()
    describe_links(LINKS, hits=HITS, effects=EFFECTS)
    pd.testing.assert_frame_equal(LINKS, before)
    with pytest.raises(SchemaError, match="effects need the columns"):
        describe_links(LINKS, effects=EFFECTS.drop(columns="track"))
