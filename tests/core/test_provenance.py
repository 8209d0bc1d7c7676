"""Files are whole or absent, whatever interrupts their writing."""

import errno
import hashlib
import json
import os
import stat

import numpy as np
import pytest

from ciscribe import __version__
from ciscribe.provenance import (
    atomic_folder,
    atomic_path,
    checksum,
    digest,
    provenance,
    write_json,
    write_text,
)

FAULTS = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), SystemExit(3), ValueError()]
faults = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)


@faults
def test_atomic_path__fault_keeps_the_old_file_and_leaves_nothing(tmp_path, fault):
    target = tmp_path / "a.tsv"
    target.write_text("old")
    with pytest.raises(type(fault)), atomic_path(target) as temporary:  # noqa: PT012 - the write is the point
        temporary.write_text("half of the ne")
        raise fault
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.tsv"]


@faults
def test_atomic_path__fault_leaves_no_file_where_none_was(tmp_path, fault):
    with pytest.raises(type(fault)), atomic_path(tmp_path / "deep" / "a.tsv") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise fault
    assert os.listdir(tmp_path / "deep") == []


def test_atomic_path__target_is_untouched_until_the_block_ends(tmp_path):
    target = tmp_path / "a.bed.gz"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent  # a rename across file systems would not be atomic
        assert temporary.name.endswith(".bed.gz")  # writers choose their format by it
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.bed.gz"]


def test_atomic_path__file_has_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@faults
def test_atomic_folder__fault_keeps_the_old_folder_and_leaves_nothing(tmp_path, fault):
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(type(fault)), atomic_folder(target) as temporary:  # noqa: PT012
        (temporary / "weights").write_text("half")
        raise fault
    assert (target / "weights").read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_atomic_folder__replaces_as_a_whole(tmp_path):
    target = tmp_path / "model"
    for round_ in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / round_).write_text(round_)
        assert os.listdir(target) == [round_]
    assert os.listdir(tmp_path) == ["model"]


def test_atomic_folder__fault_between_the_renames_brings_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    rename = os.replace

    def fail_on_the_new_one(source, destination):
        if str(destination) == str(target) and ".partial-" in str(source):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, destination)

    monkeypatch.setattr(os, "replace", fail_on_the_new_one)
    with pytest.raises(OSError, match="No space"), atomic_folder(target) as temporary:
        (temporary / "weights").write_text("new")
    assert (target / "weights").read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_write_text__full_disk_keeps_the_old_file(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="No space"), atomic_path(target) as temporary:  # noqa: PT012
        temporary.unlink()
        temporary.symlink_to("/dev/full")  # a device that is always out of space
        temporary.write_text("new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_write_json__nan_and_infinity_become_null(tmp_path):
    path = tmp_path / "m.json"
    write_json(path, {"r": float("nan"), "deep": [np.float32("inf"), -np.inf, 1.5],
                      "x": np.array([np.nan, 2])})
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text) == {"r": None, "deep": [None, None, 1.5], "x": [None, 2.0]}


def test_write_json__numpy_and_paths_become_plain(tmp_path):
    path = tmp_path / "m.json"
    write_json(path, {3: np.int64(7), "flag": np.bool_(True), "at": tmp_path, "pair": (1, "x"), "no": None})
    assert json.loads(path.read_text()) == {"3": 7, "flag": True, "at": str(tmp_path), "pair": [1, "x"],
                                            "no": None}


def test_checksum__is_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"ACGT" * 1009)
    assert checksum(path) == "sha256:" + hashlib.sha256(b"ACGT" * 1009).hexdigest()


def test_digest__ignores_key_order_and_sees_values():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest([])) == 16


def test_provenance__is_json_and_keeps_the_facts(tmp_path):
    record = json.loads(json.dumps(provenance(seed=3, inputs={"genome": "sha256:0"})))
    assert record["program"] == "ciscribe"
    assert record["version"] == __version__
    assert record["seed"] == 3
    assert record["inputs"] == {"genome": "sha256:0"}
    assert record["packages"]["numpy"] == np.__version__
    assert "created" in record
