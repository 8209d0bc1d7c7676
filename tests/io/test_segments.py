"""EPInformer's file: sequences and features of every slot, read when asked; broken files are named."""

import pickle

import h5py
import numpy as np
import pytest

import published_layout as layout
from ciscribe.errors import InputError
from ciscribe.io.segments import Segments

GENES = layout.make_genes()
N, SLOTS, LENGTH = 42, layout.N_SEGMENTS, layout.LENGTH


@pytest.fixture
def path(tmp_path):
    layout.write_segments(tmp_path / "pe.h5", GENES)
    return tmp_path / "pe.h5"


def change(path, name, edit):
    with h5py.File(path, "a") as file:
        values = edit(file[name][:])
        del file[name]
        if values is not None:
            file[name] = values


def test_segments__give_what_the_file_holds(path):
    segments = Segments(path)
    assert (len(segments), segments.n_segments, segments.length) == (N, SLOTS, LENGTH)
    assert segments.gene_ids == GENES["name"].tolist()
    assert segments.row_of[segments.gene_ids[5]] == 5
    rows = [11, 3, 0, 41]
    codes, features = segments.codes(rows), segments.features(rows)
    assert (codes.dtype, codes.shape, features.shape) == (np.uint8, (4, SLOTS, LENGTH), (4, 3, SLOTS))
    with h5py.File(path) as file:
        for i, row in enumerate(rows):
            X = np.eye(5)[codes[i]][..., :4]
            assert np.array_equal(X, file["pe_code"][row])
            for part, name in zip(features[i], ("distance", "activity", "hic"), strict=True):
                np.testing.assert_allclose(part, np.nan_to_num(file[name][row]), rtol=1e-6)
        assert 0 < segments.missing < 0.5
        assert np.isnan(file["hic"][:]).any()
    assert (codes == 4).any()


def test_segments__features_may_have_a_last_axis_of_one(path):
    before = Segments(path).features([7, 2])
    change(path, "activity", lambda a: a[..., None])
    assert np.array_equal(Segments(path).features([7, 2]), before)


def test_segments__another_process_reads_for_itself(path):
    segments = Segments(path)
    again = pickle.loads(pickle.dumps(segments))
    assert np.array_equal(again.codes([5]), segments.codes([5]))


@pytest.mark.parametrize(("name", "edit", "says"), [
    ("hic", lambda a: None, r"segments .*pe\.h5 lacks 1 of 4 arrays; first: 'hic'"),
    ("pe_code", lambda a: a[..., :3], r"'pe_code' must have the shape \(any, any, any, 4\); got \(42, 7, 53, 3\)"),
    ("distance", lambda a: a[:, :5], r"'distance' must have the shape \(42, 7\); got \(42, 5\)"),
    ("ensid", lambda a: a[:41], r"'ensid' must have the shape \(42\); got \(41,\)"),
    ("ensid", lambda a: np.r_[a[:1], a[:41]], "1 of 42 genes come twice; first: ENSG00000000000"),
    ("hic", lambda a: np.where(a > 0, np.nan, a), r"contacts \('hic'\) are NaN; first: ENSG00000000000, slot 1; NaN is "
                                                  "read as 0"),
    ("activity", lambda a: np.where(np.arange(7) == 2, np.nan, a), "42 values of 'activity' are no numbers; first: "
                                                                   "ENSG00000000000, slot 2"),
])
def test_segments__broken_files_are_named(path, name, edit, says):
    change(path, name, edit)
    with pytest.raises(InputError, match=says):
        Segments(path)


def test_codes__what_is_not_one_hot(path):
    def blur(a):
        a[5, 1, 11] = [0.5, 0.5, 0, 0]
        a[5, 2, 3] = [1, 1, 0, 0]
        return a

    change(path, "pe_code", blur)
    segments = Segments(path)
    assert segments.codes([4, 6]).shape == (2, SLOTS, LENGTH)
    with pytest.raises(InputError, match="2 positions of gene ENSG00000000005 are not one-hot; first: slot 1, base "
                                         r"11: \[0\.5 0\.5"):
        segments.codes([4, 5])
