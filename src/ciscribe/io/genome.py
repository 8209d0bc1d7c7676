"""A genome on disk as codes (A C G T N = 0..4), fetched by coordinates or read chromosome by chromosome.

`Genome` reads plain, gzipped and bgzipped FASTA. It opens files lazily in each process and thread, so the
same object works in forked and spawned data loaders. An index (.fai, .gzi) that is missing is made beside
the FASTA, or in the user's cache folder when that place is read-only.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pysam
from jaxtyping import UInt8
from numpy import ndarray

from ciscribe.errors import InputError, UnknownNameError, nearest
from ciscribe.io.text import PathLike, atomic_bgzip, ends_bgzip, existing_file, is_gzip, open_bytes
from ciscribe.sequence import BASES, N, check_codes, encode

_CHUNK = 1 << 24  # bases turned into codes at once: bounds the memory of long fetches
_LETTERS = np.frombuffer(f"{BASES}N".encode(), dtype=np.uint8)


class Genome:
    """Sequences of a genome, read from a FASTA file.

    Parameters
    ----------
    path
        ``.fa``, ``.fa.gz`` (bgzip or plain gzip). Plain gzip has no random access: the first `fetch` or
        `codes` reads the whole genome into memory (1 byte a base); recompress with ``bgzip`` to avoid it.

    Raises
    ------
    DataMissingError
        If there is no file at `path`.
    InputError
        If the file is empty, truncated, not FASTA, or disagrees with the index beside it. A plain file cut
        off without an index beside it cannot be told from a whole one.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = existing_file(path, "FASTA").absolute()
        self._gzip = is_gzip(self.path)
        self._bgzip = self._gzip and _is_bgzip(self.path)
        with open_bytes(self.path, "FASTA") as handle:
            first = handle.readline(200).strip()
        if not first.startswith(b">"):
            raise InputError(
                f"FASTA {self.path} must start with '>'; it starts with {first[:40]!r}; "
                "check that this is the genome's sequence file"
            )
        self._index = None if self._gzip and not self._bgzip else _find_index(self.path, self._bgzip)
        self._sizes: dict[str, int] | None = None
        self._sequences: dict[str, ndarray] | None = None
        self._local = threading.local()
        if self._index is not None:
            self._sizes = _index_sizes(self._index, self.path)

    def __repr__(self) -> str:
        return f"Genome({str(self.path)!r})"

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_local": None, "_sequences": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    @property
    def chrom_sizes(self) -> dict[str, int]:
        """Length of each chromosome in bp, in the order of the file."""
        if self._sizes is None:
            self._sizes = {chrom: len(codes) for chrom, codes in self.iter_codes()}
        return dict(self._sizes)

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[ndarray, " L"]:
        """Codes of ``chrom:start-end``, always ``end - start`` of them; positions off either end are 4 (N).

        Raises
        ------
        UnknownNameError
            If the genome has no such chromosome.
        ValueError
            If `end` lies before `start`.
        """
        if end < start:
            raise ValueError(f"fetch needs start <= end; got {chrom}:{start}-{end}")
        size = self._size(chrom)
        out = np.full(end - start, N, dtype=np.uint8)
        lo, hi = max(start, 0), min(end, size)
        if self._index is None:
            if hi > lo:
                out[lo - start : hi - start] = self._in_memory()[chrom][lo:hi]
            return out
        handle = self._handle()
        for a in range(lo, hi, _CHUNK):
            b = min(a + _CHUNK, hi)
            try:
                letters = handle.fetch(chrom, a, b)
            except (OSError, ValueError) as error:
                raise self._truncated(f"{chrom}:{a}-{b} cannot be read") from error
            if len(letters) != b - a:
                raise self._truncated(f"{chrom}:{a}-{b} gives {len(letters):,} of {b - a:,} bases")
            out[a - start : b - start] = encode(letters)
        return out

    def codes(self, chrom: str) -> UInt8[ndarray, " L"]:
        """Codes of a whole chromosome."""
        return self.fetch(chrom, 0, self._size(chrom))

    def iter_codes(self) -> Iterator[tuple[str, ndarray]]:
        """Name and codes of each chromosome in the order of the file, holding one at a time in memory."""
        if self._index is not None:
            for chrom in self.chrom_sizes:
                yield chrom, self.codes(chrom)
        elif self._sequences is not None:
            yield from self._sequences.items()
        else:
            yield from _read_sequences(self.path)

    def _size(self, chrom: str) -> int:
        sizes = self._sizes if self._sizes is not None else self.chrom_sizes
        if chrom not in sizes:
            raise UnknownNameError(f"{self.path.name} has no chromosome '{chrom}'; {nearest(chrom, sizes)}")
        return sizes[chrom]

    def _in_memory(self) -> dict[str, ndarray]:
        if self._sequences is None:
            self._sequences = dict(_read_sequences(self.path))
        return self._sequences

    def _handle(self) -> pysam.FastaFile:
        # After fork a handle would share its file offset with the parent; between threads, its buffer.
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.handle = _open_indexed(self.path, self._index)
            self._local.pid = os.getpid()
        return self._local.handle

    def _truncated(self, what: str) -> InputError:
        return InputError(
            f"FASTA {self.path} is truncated or is not the file that {self._index} was made of: "
            f"{what}; download the FASTA again or delete the index"
        )


class MemoryGenome:
    """Sequences in memory, asked in the way of a `Genome`.

    Parameters
    ----------
    sequences
        Name → codes.
    """

    def __init__(self, sequences: Mapping[str, UInt8[ndarray, " L"]]) -> None:
        for codes in sequences.values():
            check_codes(codes)
        self._sequences = dict(sequences)

    @property
    def chrom_sizes(self) -> dict[str, int]:
        """Length of each sequence in bp."""
        return {name: len(codes) for name, codes in self._sequences.items()}

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[ndarray, " L"]:
        """Codes of ``chrom:start-end``, always ``end - start`` of them; positions off either end are 4 (N).

        Raises
        ------
        UnknownNameError
            If there is no such sequence.
        ValueError
            If `end` lies before `start`.
        """
        if chrom not in self._sequences:
            raise UnknownNameError(f"there is no sequence '{chrom}'; {nearest(chrom, self._sequences)}")
        if end < start:
            raise ValueError(f"fetch needs start <= end; got {chrom}:{start}-{end}")
        part = self._sequences[chrom][max(start, 0):max(end, 0)]
        out = np.full(end - start, N, dtype=np.uint8)
        out[max(-start, 0):max(-start, 0) + len(part)] = part
        return out


def _is_bgzip(path: Path) -> bool:
    """Whether gzip blocks carry the BGZF mark; a bgzip file without its closing block is truncated."""
    with open(path, "rb") as handle:
        head = handle.read(16)
        if len(head) < 16 or not head[3] & 4 or head[12:14] != b"BC":
            return False
    if not ends_bgzip(path):
        raise InputError(
            f"FASTA {path} is truncated: the closing block of bgzip is missing; download or copy "
            "it again, and compare its size or checksum with the source's"
        )
    return True


def _find_index(path: Path, bgzip: bool) -> Path | None:
    """Path of a .fai that fits the FASTA (made if need be), or None when none can be made."""
    beside = Path(f"{path}.fai")
    stat = path.stat()
    has_gzi = not bgzip or Path(f"{path}.gzi").is_file()
    if beside.is_file() and has_gzi and beside.stat().st_mtime >= stat.st_mtime:
        return beside
    key = sha256(f"{path}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    cached = _cache_folder() / f"{path.name}.{key}.fai"
    index = cached if cached.is_file() else None
    if index is None:
        # The user's own index is never overwritten.
        targets = [cached] if beside.exists() else [beside, cached]
        index = next((target for target in targets if _make_index(path, target)), None)
    if beside.is_file() and index != beside:
        told = _index_sizes(beside, None)
        streamed = ((chrom, len(codes)) for chrom, codes in _read_sequences(path))
        found = dict(streamed) if index is None else _index_sizes(index, None)
        wrong = [c for c in told if found.get(c) != told[c]]
        if wrong:
            raise InputError(
                f"FASTA {path} is truncated or changed: {len(wrong)} of {len(told)} chromosomes differ "
                f"from its index {beside.name}; first: {wrong[0]} has {found.get(wrong[0], 0):,} bp, the "
                f"index says {told[wrong[0]]:,}; download it again, or delete the index if the FASTA is right"
            )
    return index


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "ciscribe" / "fasta"


def _make_index(path: Path, target: Path) -> bool:
    """Make ``target`` (.fai, and .gzi beside it for bgzip) whole or not at all; False where that fails."""
    verbosity = pysam.set_verbosity(0)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=".partial-") as folder:
            fai, gzi = Path(folder) / "fai", Path(folder) / "gzi"
            pysam.faidx(str(path), "--fai-idx", str(fai), "--gzi-idx", str(gzi))
            if gzi.is_file():
                os.replace(gzi, target.with_suffix(".gzi"))
            os.replace(fai, target)
    except (OSError, pysam.SamtoolsError):
        return False  # a read-only folder, or ragged lines: try elsewhere, else stream the file
    finally:
        pysam.set_verbosity(verbosity)
    return True


def _index_sizes(index: Path, fasta: Path | None) -> dict[str, int]:
    """Chromosome lengths of a .fai; with `fasta` (plain text), check that each ends inside the file."""
    rows = [line.split("\t") for line in index.read_text().splitlines() if line]
    names = [row[0] for row in rows]
    if not rows or any(len(row) < 5 for row in rows):
        raise InputError(f"index {index} is damaged; delete it, it will be made again")
    if len(set(names)) < len(names):
        raise InputError(
            f"{index} names {next(n for n in names if names.count(n) > 1)} more than once; "
            "expected one sequence per chromosome name"
        )
    if fasta is not None and not is_gzip(fasta):
        for name, length, offset, bases, width in ((r[0], *map(int, r[1:5])) for r in rows):
            end = offset + (length - 1) // bases * width + (length - 1) % bases + 1 if length else offset
            if end > fasta.stat().st_size:
                raise InputError(
                    f"FASTA {fasta} is truncated: {name} should end at byte {end:,}, but the file has "
                    f"{fasta.stat().st_size:,}; download it again, or delete the index {index.name} if "
                    "the FASTA is right"
                )
    sizes = {row[0]: int(row[1]) for row in rows}
    if not sum(sizes.values()):
        raise InputError(f"FASTA of index {index} holds names but no bases; download it again")
    return sizes


def _open_indexed(path: Path, index: Path | None) -> pysam.FastaFile:
    gzi = index.with_suffix(".gzi") if index is not None else None
    verbosity = pysam.set_verbosity(0)
    try:
        if gzi is not None and gzi.is_file():
            return pysam.FastaFile(str(path), filepath_index=str(index), filepath_index_compressed=str(gzi))
        return pysam.FastaFile(str(path), filepath_index=str(index))
    except (OSError, ValueError) as error:
        raise InputError(
            f"FASTA {path} cannot be opened with its index {index} ({error}); delete the index, it will be made again"
        ) from error
    finally:
        pysam.set_verbosity(verbosity)


def _read_sequences(path: Path) -> Iterator[tuple[str, ndarray]]:
    """Stream a FASTA without an index; each sequence once, in order."""
    name: str | None = None
    parts: list[bytes] = []
    seen: set[str] = set()
    total = 0
    with open_bytes(path, "FASTA") as handle:
        for line in handle:
            if not line.startswith(b">"):
                parts.append(line.strip())
                continue
            if name is not None:
                codes = encode(b"".join(parts))
                total += len(codes)
                yield name, codes
            words = line[1:].split()
            name, parts = (words[0].decode("latin-1") if words else ""), []
            if not name or name in seen:
                raise InputError(
                    f"FASTA {path} names a sequence '{name}' "
                    f"{'more than once' if name else '(no name)'}; expected one name per sequence"
                )
            seen.add(name)
    codes = encode(b"".join(parts))
    if not total + len(codes):
        raise InputError(f"FASTA {path} holds names but no bases; download it again")
    if name is not None:
        yield name, codes


def write_fasta(path: PathLike, sequences: Mapping[str, UInt8[ndarray, " L"]], width: int = 60) -> None:
    """Write sequences of codes as FASTA, whole or not at all; bgzipped when the name ends in ``.gz``.

    Parameters
    ----------
    path
        Where to; an old file is replaced only when the new one is whole.
    sequences
        Name → codes (A C G T N = 0..4).
    width
        Bases per line.
    """
    with atomic_bgzip(path) as write:
        for name, codes in sequences.items():
            check_codes(codes)
            letters = _LETTERS[codes]
            whole = len(letters) // width * width
            lines = np.full((whole // width, width + 1), ord("\n"), dtype=np.uint8)
            lines[:, :width] = letters[:whole].reshape(-1, width)
            tail = letters[whole:].tobytes()
            write(f">{name}\n".encode() + lines.tobytes() + (tail + b"\n" if tail else b""))
