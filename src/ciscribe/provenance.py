"""What made this file, and files that are whole or absent.

`provenance` is the record that every written result carries. `atomic_path` and `write_json` write to a
temporary neighbour and rename it, so that a full disk or Ctrl-C leaves the old file, never half of a new one.
"""

import hashlib
import json
import math
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import mkdtemp, mkstemp
from typing import Any

from ciscribe import __version__

_PACKAGES = ("numpy", "pandas", "torch", "lightning", "lightgbm", "scikit-learn", "numba", "pysam",
             "pybigtools")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def provenance(**facts: Any) -> dict[str, Any]:
    """Record of what makes a file: program, versions, command, time, machine, and `facts`.

    Parameters
    ----------
    **facts
        Anything of the caller that JSON can hold, e.g. ``seed=3``, ``inputs={"genome": checksum}``.

    Returns
    -------
    dict
        JSON-ready; keys ``program, version, python, packages, platform, command, created`` and the facts.
    """
    return {
        "program": "ciscribe",
        "version": __version__,
        "python": platform.python_version(),
        "packages": {p: v for p in _PACKAGES if (v := _version(p))},
        "platform": platform.platform(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }


def checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as ``sha256:<hex>``."""
    with open(path, "rb") as handle:
        return f"sha256:{hashlib.file_digest(handle, 'sha256').hexdigest()}"


def digest(value: Any) -> str:
    """Short stable fingerprint (16 hex digits) of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it onto `path` when the block ends well.

    After an exception (a full disk, Ctrl-C) the temporary file is removed and `path` is as it was.
    The temporary name keeps the suffixes of `path`, because some writers choose a format by them.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = mkstemp(dir=path.parent, prefix=".partial-", suffix="".join(path.suffixes[-2:]))
    os.close(handle)
    temporary = Path(name)
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only the owner may read
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it replaces `path` when the block ends well.

    A folder that was at `path` is set aside until the new one has its name, then removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(mkdtemp(dir=path.parent, prefix=".partial-"))
    temporary.chmod(0o755)
    try:
        yield temporary
        if path.exists():
            aside = Path(mkdtemp(dir=path.parent, prefix=".replaced-"))
            try:
                os.replace(path, aside / path.name)
                os.replace(temporary, path)
            finally:
                if not path.exists():  # interrupted between the two renames: the old folder comes back
                    os.replace(aside / path.name, path)
                shutil.rmtree(aside)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file whole or not at all; NumPy scalars become numbers, NaN becomes null."""
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)
