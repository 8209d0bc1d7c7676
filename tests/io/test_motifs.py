"""MEME files: what they say, what damage is called, and that writing loses nothing."""

import gzip

import numpy as np
import pytest

from ciscribe.errors import DataMissingError, InputError, SchemaError
from ciscribe.io.motifs import read_meme, write_meme
from ciscribe.schema import Motif

HEAD = "MEME version 4\n\nALPHABET= ACGT\n\nstrands: + -\n\nBackground letter frequencies\nA 0.3 C 0.2 G 0.2 T 0.3\n\n"
TWO = (HEAD + "MOTIF MA1.1 Arnt\nletter-probability matrix: alength= 4 w= 3 nsites= 20 E= 0\n"
       " 0.7 0.1 0.1 0.1\n0.0 1.0 0.0 0.0 \n\t0.3333 0.3333 0.3333 0.0\nURL http://x.org/1\n\n"
       "MOTIF TATA TATA\nletter-probability matrix:\n0 0 0 1\n1 0 0 0\n")


def test_read_meme__gives_names_and_columns(tmp_path):
    path = tmp_path / "two.meme.gz"
    path.write_bytes(gzip.compress(TWO.encode()))
    first, second = read_meme(path)
    assert (first.name, second.name, first.source) == ("MA1.1 Arnt", "TATA", "two.meme")
    assert first.ppm.dtype == np.float64
    np.testing.assert_allclose(first.ppm, [[0.7, 0, 1 / 3], [0.1, 1, 1 / 3], [0.1, 0, 1 / 3], [0.1, 0, 0]])
    assert second.ppm.tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize("name", ["m.meme", "m.meme.gz"])
def test_write_meme__is_read_back(tmp_path, name):
    rng = np.random.default_rng(0)
    motifs = [Motif(n, rng.dirichlet(np.ones(4), w).T) for n, w in (("a", 1), ("MA7 b (var.2)", 23), ("c d", 7))]
    write_meme(tmp_path / name, motifs)
    back = read_meme(tmp_path / name)
    assert [m.name for m in back] == ["a", "MA7 b_(var.2)", "c d"]
    for old, new in zip(motifs, back, strict=True):
        np.testing.assert_allclose(new.ppm, old.ppm, atol=2e-9)
    assert (tmp_path / name).read_bytes()[:2] == (b"\x1f\x8b" if name.endswith("gz") else b"ME")


def test_write_meme__checks_first(tmp_path):
    with pytest.raises(SchemaError, match="repeats the name"):
        write_meme(tmp_path / "m.meme", [Motif("a", np.full((4, 3), 0.25))] * 2)
    assert not (tmp_path / "m.meme").exists()


@pytest.mark.parametrize(("text", "message"), [
    (TWO.replace("w= 3", "w= 4"), "motif MA1.1 Arnt .*: row 3 must be the four probabilities .*; got 'nothing'"),
    (TWO.replace("0.0 1.0 0.0 0.0", "0.0 1.0 0.0"), "row 1 must be the four probabilities .* got '0.0 1.0 0.0'"),
    (TWO.replace("0.0 1.0 0.0 0.0", "0 12 3 5"), "row 1 must be four probabilities .*sum 20.* counts are divided"),
    (TWO.replace("0.7 0.1 0.1 0.1", "1.2 -0.2 0 0"), "row 0 must be four probabilities"),
    (TWO.replace("0.7 0.1 0.1 0.1", "nan 1 0 0"), "row 0"),
    (TWO.replace("MOTIF TATA TATA", "MOTIF MA1.1 Arnt"), "m.meme: motif 1 of 2 repeats the name"),
    (TWO.replace("MOTIF TATA TATA", "MOTIF"), "motif 2 gives no name"),
    (TWO.replace("MOTIF MA1.1 Arnt\n", ""), "matrix before any line"),
    (TWO.replace("= ACGT", "= ACDEFGHIKLMNPQRSTVWY"), "alphabet 'ACDEF.*expected DNA"),
    (HEAD, "holds no motif"),
    (">chr1\nACGT\n", "holds no motif.* first line: '>chr1'"),
])
def test_read_meme__names_the_damage(tmp_path, text, message):
    path = tmp_path / "m.meme"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_meme(path)


def test_read_meme__of_nothing(tmp_path):
    with pytest.raises(DataMissingError):
        read_meme(tmp_path / "none.meme")


@pytest.mark.realdata
@pytest.mark.parametrize(("file", "n", "name", "width"), [
    ("mpra/plant/CPEs.meme", 6, "TCT", 6), ("mpra/plant/TF-clusters.meme", 72, "TF-cluster_72 SRS", 23),
    ("motifs/H12CORE_meme_format.meme.gz", 1443, "ZSCA4.H12CORE.0.SM.B", 17),
    ("motifs/jaspar_2024_consensus.meme.gz", 182, "C182:ZFX:C2H2_ZF", 9)])
def test_read_meme__of_published_collections(data_dir, file, n, name, width):
    motifs = read_meme(data_dir / file)
    assert (len(motifs), motifs[-1].name, motifs[-1].ppm.shape[1]) == (n, name, width)
