"""Contact files: every format gives the same numbers; damaged and wrong files say what to do."""

import gzip
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ciscribe.errors import DataMissingError, DependencyError, InputError, SchemaError
from ciscribe.io.contacts import Contacts, open_contacts, row_sums

N, RESOLUTION = 13, 500


@pytest.fixture
def dense():
    """Symmetric counts of 13 bins, some 0."""
    rng = np.random.default_rng(3)
    upper = np.triu(rng.poisson(2.0, (N, N)))
    upper[2, 11] = 7
    upper[N - 1, N - 1] = 1  # the last bin is seen, also in text
    return upper + np.triu(upper, 1).T


def write_text(path, dense, start=0):
    rows = [f"{(start + i) * RESOLUTION}\t{(start + j) * RESOLUTION}\t{dense[i, j]}\n"
            for i in range(N) for j in range(i, N) if dense[i, j]]
    path.write_bytes(gzip.compress("".join(rows).encode()) if path.suffix == ".gz" else "".join(rows).encode())


def write_cool(path, dense, weights=None):
    cooler = pytest.importorskip("cooler", reason="reads .cool files; pip install 'ciscribe[hic]'")
    bins = pd.DataFrame({"chrom": ["chr1"] * 3 + ["chr22"] * N,
                         "start": [*range(0, 3 * RESOLUTION, RESOLUTION), *range(0, N * RESOLUTION, RESOLUTION)]})
    bins["end"] = bins["start"] + RESOLUTION
    if weights is not None:
        bins["weight"] = np.r_[np.ones(3), weights]
    i, j = np.nonzero(np.triu(dense))
    pixels = pd.DataFrame({"bin1_id": i + 3, "bin2_id": j + 3, "count": dense[i, j]})
    cooler.create_cooler(str(path), bins, pixels)
    return cooler


def check_same(contacts, dense, shift=0):
    bin_a, bin_b = (x.ravel() for x in np.meshgrid(np.arange(N), np.arange(N)))
    np.testing.assert_allclose(contacts.pairs("chr22", bin_a + shift, bin_b + shift), dense[bin_a, bin_b])
    assert contacts.resolution == RESOLUTION


def test_text_gives_the_counts_in_either_order(tmp_path, dense):
    for name in ("a.txt", "a.RAWobserved.gz"):
        write_text(tmp_path / name, dense)
        contacts = open_contacts(tmp_path / name, chrom="chr22")
        check_same(contacts, dense)
        assert not contacts.balanced
        assert contacts.chroms == ("chr22",)


def test_npz_gives_the_counts_where_the_map_starts(tmp_path, dense):
    start = (17 + np.arange(N)) * RESOLUTION
    np.savez(tmp_path / "a.npz", matrix=dense, start=start)
    contacts = open_contacts(tmp_path / "a.npz", chrom="chr22", balanced=True)
    check_same(contacts, dense, shift=17)
    assert contacts.balanced  # as stated
    np.savez(tmp_path / "b.npz", matrix=np.triu(dense), start=start[0])
    check_same(open_contacts(tmp_path / "b.npz", chrom="chr22", resolution=RESOLUTION), dense, shift=17)


def test_cool_gives_counts_or_balanced_values(tmp_path, dense):
    weights = np.linspace(0.5, 2, N)
    weights[4] = np.nan  # a masked bin
    write_cool(tmp_path / "a.cool", dense, weights)
    check_same(open_contacts(tmp_path / "a.cool", balanced=False), dense)
    balanced = open_contacts(tmp_path / "a.cool")
    assert balanced.balanced
    got = balanced.row("chr22", 2)
    expected = dense[2] * weights[2] * weights
    expected[4] = np.nan if dense[2, 4] else 0
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert np.isnan(balanced.row("chr22", 4)[dense[4] > 0]).all()


def test_cool_without_weights_gives_counts_and_says_how_to_balance(tmp_path, dense):
    write_cool(tmp_path / "a.cool", dense)
    assert not open_contacts(tmp_path / "a.cool").balanced
    with pytest.raises(InputError, match=r"cooler balance .*balanced=False"):
        open_contacts(tmp_path / "a.cool", balanced=True)


def test_mcool_lists_its_resolutions(tmp_path, dense):
    cooler = write_cool(tmp_path / "a.cool", dense)
    cooler.zoomify_cooler(str(tmp_path / "a.cool"), str(tmp_path / "a.mcool"), [2 * RESOLUTION], 1000)
    check_same(open_contacts(tmp_path / "a.mcool", resolution=RESOLUTION), dense)
    check_same(open_contacts(f"{tmp_path / 'a.mcool'}::/resolutions/{RESOLUTION}"), dense)
    with pytest.raises(InputError, match="no contacts at 700 bp; it has 500, 1,000 bp"):
        open_contacts(tmp_path / "a.mcool", resolution=700)
    with pytest.raises(InputError, match=r"several resolutions.*500, 1,000"):
        open_contacts(tmp_path / "a.mcool")


def test_hic_gives_the_counts(tmp_path, dense):
    hictkpy = pytest.importorskip("hictkpy", reason="reads .hic files; pip install 'ciscribe[hic]'")
    writer = hictkpy.hic.FileWriter(str(tmp_path / "a.hic"), {"22": N * RESOLUTION, "1": 700}, RESOLUTION,
                                    tmpdir=str(tmp_path))
    i, j = np.nonzero(np.triu(dense))
    writer.add_pixels(pd.DataFrame({"bin1_id": i, "bin2_id": j, "count": dense[i, j].astype(float)}))
    writer.finalize()
    contacts = open_contacts(tmp_path / "a.hic")
    check_same(contacts, dense)  # asked for as chr22, named 22
    assert not contacts.balanced
    with pytest.raises(InputError, match="no normalization SCALE or KR at 500 bp"):
        open_contacts(tmp_path / "a.hic", balanced=True)
    with pytest.raises(InputError, match="no contacts at 5,000 bp; it has 500 bp"):
        open_contacts(tmp_path / "a.hic", resolution=5000)
    whole = (tmp_path / "a.hic").read_bytes()
    (tmp_path / "b.hic").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        open_contacts(tmp_path / "b.hic").matrix("22")


def test_truncated_files_say_so(tmp_path, dense):
    write_text(tmp_path / "a.gz", dense)
    np.savez(tmp_path / "a.npz", matrix=dense, start=np.arange(N) * RESOLUTION)
    write_cool(tmp_path / "a.cool", dense)
    for name in ("a.gz", "a.npz", "a.cool"):
        whole = (tmp_path / name).read_bytes()
        cut = tmp_path / f"cut_{name}"
        cut.write_bytes(whole[:len(whole) // 2])
        with pytest.raises(InputError, match="truncated"):
            open_contacts(cut, chrom="chr22").matrix("chr22")


@pytest.mark.parametrize(("package", "name"), [("cooler", "a.cool"), ("hictkpy", "a.hic")])
def test_an_absent_reader_names_the_extra(tmp_path, monkeypatch, package, name):
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf"'{package}'.*pip install 'ciscribe\[hic\]'"):
        open_contacts(tmp_path / name)


def test_names_of_chromosomes_are_reconciled_and_absent_ones_named(dense):
    contacts = Contacts.of({"22": dense, "X": dense}, RESOLUTION)
    assert contacts.name_of("chr22") == "22"
    with pytest.raises(InputError, match=r"no chromosome 'chr2'.*options: 22, X"):
        contacts.pairs("chr2", np.array([0]), np.array([1]))


def test_bins_beyond_the_end_are_0_and_before_0_an_error(dense):
    contacts = Contacts.of({"chr22": np.triu(dense)}, RESOLUTION)
    assert contacts.pairs("chr22", np.array([2, 2]), np.array([11, 99])).tolist() == [7.0, 0.0]
    with pytest.raises(SchemaError, match="1 of 2 pairs have a bin before 0"):
        contacts.pairs("chr22", np.array([2, -1]), np.array([11, 3]))
    with pytest.raises(SchemaError, match=r"0\.\.12"):
        contacts.row("chr22", 13)


def test_only_the_last_chromosome_is_kept_and_none_travels(dense):
    loaded = []
    stored = Contacts.of({"a": dense, "b": dense * 2}, RESOLUTION)

    def load(chrom):
        loaded.append(chrom)
        return stored.load(chrom)

    contacts = Contacts("test", RESOLUTION, stored.n_bins, False, load)
    for chrom in ("a", "a", "b", "a"):
        contacts.matrix(chrom)
    assert loaded == ["a", "b", "a"]
    copy = pickle.loads(pickle.dumps(stored))
    np.testing.assert_array_equal(copy.row("b", 2), dense[2] * 2)


def test_row_sums_are_of_the_symmetric_map(dense):
    holed = dense.astype(float)
    holed[1, 3] = holed[3, 1] = np.nan
    upper = Contacts.of({"a": holed}, 1).matrix("a")
    np.testing.assert_allclose(row_sums(upper), np.nansum(holed, axis=1))


@pytest.mark.parametrize(("text", "message"), [
    ("0 500\n", "3 columns"),
    ("0 500 1\n0 -500 1\n", "1 of 2 rows .* not a whole number of bp from 0 up"),
    ("0 500 1\n0 1000 -2\n", "1 of 2 rows .* negative count.*0 1000 -2"),
    ("bin1 bin2 count\n0 500 1\n", "without a header"),
])
def test_bad_text_is_named(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_contacts(tmp_path / "a.txt", chrom="chr1")


def test_wrong_use_is_named(tmp_path, dense):
    write_text(tmp_path / "a.txt", dense)
    with pytest.raises(InputError, match="give chrom="):
        open_contacts(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"multiples of 300 bp.*fits is 500 bp"):
        open_contacts(tmp_path / "a.txt", chrom="a", resolution=300)
    with pytest.raises(DataMissingError, match="nothing is there"):
        open_contacts(tmp_path / "b.txt", chrom="a")
    np.savez(tmp_path / "a.npz", matrix=dense)
    with pytest.raises(InputError, match="matrix and start; got matrix"):
        open_contacts(tmp_path / "a.npz", chrom="a")
    askew = dense.copy()
    askew[0, 5] += 3
    np.savez(tmp_path / "b.npz", matrix=askew, start=np.arange(N) * RESOLUTION)
    with pytest.raises(InputError, match="neither symmetric"):
        open_contacts(tmp_path / "b.npz", chrom="a")
    with pytest.raises(InputError, match="neither symmetric"):
        Contacts.of({"a": sparse.csr_array(askew)}, RESOLUTION)
    with pytest.raises(SchemaError, match=r"square matrix; got shape \(13, 5\)"):
        Contacts.of({"a": dense[:, :5]}, RESOLUTION)


@pytest.mark.realdata
def test_real_maps_open(data_dir):
    pytest.importorskip("cooler", reason="reads .cool files; pip install 'ciscribe[hic]'")
    contacts = open_contacts(data_dir / "hic" / "hg19.GM12878-MboI.matrix.2000kb.cool")
    assert contacts.resolution == 2_000_000
    assert not contacts.balanced
    assert contacts.pairs("22", np.array([10]), np.array([10]))[0] > 0
    dense = open_contacts(data_dir / "hic" / "GM12878_rao_chr22_prim_50kb.npz", chrom="chr22")
    assert dense.resolution == 50_000
    assert dense.row("chr22", 400).argmax() == 400
