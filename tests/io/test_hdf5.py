import h5py
import numpy as np
import pytest

from ciscribe.errors import DataMissingError, InputError
from ciscribe.io.hdf5 import need_arrays, open_hdf5


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((3, 5))
        file.create_group("parts")
    return tmp_path / "a.h5"


def test_open__gives_the_file_and_closes_it(path):
    with open_hdf5(path, "thing") as file:
        assert file["x"].shape == (3, 5)
    assert not file


def test_open__what_is_none(path, tmp_path):
    with pytest.raises(DataMissingError, match=r"thing expected at .*b\.h5, but nothing is there"), \
            open_hdf5(tmp_path / "b.h5", "thing"):
        pass
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    with pytest.raises(InputError, match=r"thing .*a\.h5 is truncated or no HDF5 .*download or copy it again"), \
            open_hdf5(path, "thing"):
        pass


@pytest.mark.parametrize(("shapes", "says"), [
    ({"x": (3, None), "y": (1,), "z": (2,)}, r"thing a\.h5 lacks 2 of 3 arrays; first: 'y'; options: parts, x"),
    ({"x": (3, 7)}, r"'x' must have the shape \(3, 7\); got \(3, 5\)"),
    ({"x": (None,)}, r"'x' must have the shape \(any\); got \(3, 5\)"),
    ({"parts": (None, 7)}, r"'parts' must have the shape \(any, 7\); got \(\)"),
])
def test_need_arrays__names_the_first_fault(path, shapes, says):
    with open_hdf5(path, "thing") as file:
        need_arrays(file, {"x": (None, 5)}, "a.h5", "thing")
        with pytest.raises(InputError, match=says):
            need_arrays(file, shapes, "a.h5", "thing")
