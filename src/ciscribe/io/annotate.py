"""A VCF written again with numbers of ours in its INFO, piece by piece."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from ciscribe.errors import InputError
from ciscribe.io.text import PathLike, atomic_bgzip
from ciscribe.io.variants import VariantChunk, open_vcf
from ciscribe.provenance import provenance

_INFO = 7  # column of INFO


class AnnotatedVcf:
    """The VCF that `annotated_vcf` is writing.

    Parameters
    ----------
    write
        Takes the bytes.
    source
        The VCF whose rows are annotated.
    fields
        Names of the INFO fields.
    """

    def __init__(self, write: Callable[[bytes], object], source: Path, fields: Sequence[str]) -> None:
        self._write, self._source, self._fields = write, source, tuple(fields)
        self._old = re.compile(rf"(?:^|(?<=;))(?:{'|'.join(map(re.escape, fields))})(?:=[^;]*)?(?:;|$)")
        self._n = 0
        self.complete = False

    def write(self, chunk: VariantChunk, values: Mapping[str, ArrayLike]) -> None:
        """Write the rows of one chunk, with what each of its variants was given.

        Parameters
        ----------
        chunk
            The next one of ``iter_vcf(source)``.
        values
            Field → a number for each row of ``chunk.variants``; NaN (not scored) is written as ``.``.

        Raises
        ------
        ValueError
            If the chunk is not the next one of the source, or `values` does not fit the fields or the chunk.
        """
        if chunk.source != self._source or chunk.first != self._n or self.complete:
            raise ValueError(f"expected the chunk of {self._source} after {self._n:,} rows; got that of {chunk.source} "
                             f"after {chunk.first:,}; write each chunk of iter_vcf once, in order")
        if set(values) != set(self._fields):
            raise ValueError(f"expected values of {', '.join(self._fields)}; got {', '.join(values) or 'none'}")
        cell = (np.cumsum(chunk.n_alts) - chunk.n_alts)[chunk.row] + chunk.allele
        columns = []
        for name in self._fields:
            numbers = np.asarray(values[name], dtype=np.float64)
            if numbers.shape != (len(chunk.variants),):
                raise ValueError(f"expected {len(chunk.variants):,} values of {name}, one a variant; "
                                 f"got shape {numbers.shape}")
            cells = np.full(int(chunk.n_alts.sum()), np.nan)
            cells[cell] = numbers
            columns.append(_join(cells, chunk.n_alts, name))
        out = []
        for line, *added in zip(chunk.lines, *columns, strict=True):
            parts = line.split("\t", _INFO + 1)
            old = self._old.sub("", parts[_INFO]).rstrip(";")
            parts[_INFO] = ";".join(([old] if old not in ("", ".") else []) + [a for a in added if a]) or "."
            out.append("\t".join(parts) + "\n")
        self._write("".join(out).encode("utf-8", "surrogateescape"))
        self._n += len(chunk.lines)
        self.complete = chunk.last


def _join(cells: ndarray, n_alts: ndarray, name: str) -> list[str]:
    """INFO entry of each row, ``name=0.5,.``; empty where the row has no number."""
    words = ["." if cell != cell else f"{cell:.6g}" for cell in cells.tolist()]
    if len(words) != len(n_alts):
        ends = np.cumsum(n_alts)
        words = [",".join(words[a:b]) for a, b in zip((ends - n_alts).tolist(), ends.tolist(), strict=True)]
    return ["" if not word.strip(".,") else f"{name}={word}" for word in words]


@contextmanager
def annotated_vcf(source: PathLike, path: PathLike, fields: Mapping[str, str]) -> Iterator[AnnotatedVcf]:
    r"""Write a VCF again with numbers of ours in its INFO, one for each alternative allele.

    Header lines, rows, their order, other INFO and genotypes stay as they are. Alleles without a number get ``.``, rows
    without any get no new entry. Annotating again replaces what was written before. The file appears when the block
    has ended and every row was written; after an exception there is none, or the old one.

    Parameters
    ----------
    source
        The VCF to annotate.
    path
        Where to; bgzipped when the name ends in ``.gz``.
    fields
        ID of each new INFO field → what it says, for the header (``Number=A, Type=Float``).

    Raises
    ------
    InputError
        If the source has no INFO column, or a field of the same ID that means something else.
    ValueError
        If a field's ID is none in VCF, or the block ends before all rows were written.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from ciscribe.io.variants import iter_vcf
    >>> source = pathlib.Path(tempfile.mkdtemp()) / "a.vcf"
    >>> _ = source.write_text("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t5\t.\tA\tC,*\t.\t.\tDP=7\n")
    >>> with annotated_vcf(source, source.with_name("b.vcf"), {"logfc": "log2 fold change of counts"}) as out:
    ...     for chunk in iter_vcf(source):
    ...         out.write(chunk, {"logfc": [0.25] * len(chunk.variants)})
    >>> source.with_name("b.vcf").read_text().split()[-1]
    'DP=7;logfc=0.25,.'
    """
    source = Path(source)
    for name in fields:
        if not re.fullmatch(r"[A-Za-z_][0-9A-Za-z_.]*", name):
            raise ValueError(f"an INFO field's ID starts with a letter, then letters, digits, _ and .; got {name!r}")
    if not fields:
        raise ValueError("expected at least one INFO field to write")
    with open_vcf(source) as (header, _):
        titles = header[-1].split("\t")
    if len(titles) <= _INFO or titles[_INFO] != "INFO":
        raise InputError(f"VCF {source} must have an INFO column, the eighth, to be annotated; "
                         f"its columns: {', '.join(titles[:9])}")
    ours = {}
    for name, text in fields.items():
        text = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
        ours[name] = f'##INFO=<ID={name},Number=A,Type=Float,Description="{text}">'
        taken = [line for line in header if line.startswith(f"##INFO=<ID={name},") and line != ours[name]]
        if taken:
            raise InputError(f"VCF {source} has an INFO field {name} already: {taken[0]}; take another name, or remove "
                             f"it (bcftools annotate -x INFO/{name})")
    made = provenance()
    lines = [
        *(line for line in header[:-1] if line not in ours.values()),
        *ours.values(),
        f"##{made['program']}_command={made['command']}; Version={made['version']}; Date={made['created']}",
        header[-1],
    ]
    with atomic_bgzip(path) as write:
        write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        out = AnnotatedVcf(write, source, list(fields))
        yield out
        if not out.complete:
            raise ValueError(f"{path} was not written: rows of {source} are missing; write every chunk of iter_vcf")
