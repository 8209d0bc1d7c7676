"""HDF5 files opened with errors that say what to do; h5py is an optional package."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ciscribe.errors import DependencyError, InputError, nearest
from ciscribe.io.text import PathLike, existing_file


@contextmanager
def open_hdf5(path: PathLike, what: str) -> Iterator[Any]:
    """Open an HDF5 file for reading, an `h5py.File`; the errors cover what the caller reads inside the block.

    Raises
    ------
    DataMissingError
        If there is no file at `path`.
    InputError
        If the file is empty, truncated or no HDF5.
    DependencyError
        If h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise DependencyError.of("h5py", "hdf5", f"reading {what} from HDF5") from error
    path = existing_file(path, what)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise InputError(f"{what} {path} is truncated or no HDF5 ({error}); download or copy it again, and compare "
                         "its size or checksum with the source's") from error


def need_arrays(file: Any, shapes: Mapping[str, tuple[int | None, ...]], path: PathLike, what: str) -> None:
    """Raise InputError for the first array that a file lacks, or whose shape is another; None is any length."""
    for name, shape in shapes.items():
        if name not in file:
            missing = [n for n in shapes if n not in file]
            raise InputError(f"{what} {path} lacks {len(missing)} of {len(shapes)} arrays; first: '{name}'; "
                             f"{nearest(name, map(str, file))}")
        came = tuple(getattr(file[name], "shape", ()))
        if len(came) != len(shape) or any(want not in (None, n) for want, n in zip(shape, came, strict=True)):
            wanted = ", ".join("any" if n is None else f"{n:,}" for n in shape)
            raise InputError(f"{what} {path}: '{name}' must have the shape ({wanted}); got {came}")
