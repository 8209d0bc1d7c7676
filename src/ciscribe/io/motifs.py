"""Motifs ↔ MEME files: the text format in which JASPAR, HOCOMOCO and most papers give theirs."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ciscribe.errors import InputError
from ciscribe.io.text import PathLike, naming, read_lines, write_text_file
from ciscribe.schema import Motif, check_motifs

_HEADER = """MEME version 4

ALPHABET= ACGT

strands: + -

Background letter frequencies
A 0.25 C 0.25 G 0.25 T 0.25
"""
_ROUNDING = 0.02  # a row of rounded probabilities may miss 1 by this; more is damage
_WIDTH = re.compile(r"\bw\s*=\s*(\d+)")


def read_meme(path: PathLike) -> list[Motif]:
    """Read the motifs of a MEME file (minimal or full text format), plain or gzipped.

    A motif is named by what follows the word MOTIF: its identifier, and its second name where that
    differs (``MA0004.1 Arnt``). Rounded probabilities are scaled so that each column sums to 1.
    Backgrounds, site counts, E-values and URLs are not kept.

    Raises
    ------
    DataMissingError, InputError
        When there is no file, it holds no DNA motif, or a row is not four probabilities.

    References
    ----------
    MEME suite, "MEME Motif Format", https://meme-suite.org/meme/doc/meme-format.html.
    """
    what = "motif file"
    lines = read_lines(path, what)
    alphabet = next((line.split("=", 1)[1].strip() for line in lines if line.upper().startswith("ALPHABET=")), "ACGT")
    if alphabet.upper() != "ACGT":
        raise InputError(f"{what} {path} has the alphabet {alphabet!r}; expected DNA, ALPHABET= ACGT")
    source = re.sub(r"\.gz$", "", Path(path).name)
    motifs: list[Motif] = []
    name = ""
    for i, line in enumerate(lines):
        words = line.split()
        if words[0] == "MOTIF":
            if len(words) < 2:
                raise InputError(f"{what} {path}: the line 'MOTIF' of motif {len(motifs) + 1} gives no name")
            name = words[1] if words[2:3] in ([], [words[1]]) else f"{words[1]} {words[2]}"
        elif line.lstrip().startswith("letter-probability matrix"):
            if not name:
                raise InputError(f"{what} {path} has a matrix before any line 'MOTIF <name>'; is it a MEME file?")
            width = _WIDTH.search(line)
            rows = _rows(lines[i + 1:], int(width[1]) if width else None)
            motifs.append(Motif(name, _ppm(rows, name, path), source))
    if not motifs:
        raise InputError(f"{what} {path} holds no motif; expected lines 'MOTIF <name>' and 'letter-probability "
                         f"matrix: …', the MEME text format; its first line: {lines[0][:80] if lines else ''!r}")
    with naming(path):
        check_motifs(motifs)
    return motifs


def _rows(lines: list[str], width: int | None) -> list[list[str]]:
    """Words of the rows of a matrix: as many as it says, else up to the first line that is no row of numbers."""
    rows: list[list[str]] = []
    for line in lines if width is None else lines[:width]:
        if not re.match(r"\s*[-+.\d]", line):
            break
        rows.append(line.split())
    return rows if width is None or len(rows) == width else [*rows, []]  # an empty row: one is missing


def _ppm(rows: list[list[str]], name: str, path: PathLike) -> np.ndarray:
    """Matrix ``(4, W)`` of a motif's rows, columns summing to 1."""
    out = np.zeros((len(rows), 4))
    for i, row in enumerate(rows):
        try:
            out[i] = [float(word) for word in row]
        except ValueError as error:
            raise InputError(f"motif {name} of {path}: row {i} must be the four probabilities of A C G T; "
                             f"got {' '.join(row) or 'nothing'!r}") from error
        if not (out[i] >= 0).all() or not abs(out[i].sum() - 1) <= _ROUNDING:
            raise InputError(f"motif {name} of {path}: row {i} must be four probabilities that sum to 1; "
                             f"got {' '.join(row)} (sum {out[i].sum():.3g}); counts are divided by their sum first")
    return (out / out.sum(axis=1, keepdims=True)).T.copy()


def write_meme(path: PathLike, motifs: Sequence[Motif]) -> None:
    """Write motifs in the minimal MEME format, whole or not at all; gzipped when the name ends in ``.gz``.

    Probabilities keep nine digits. A name of several words is written as identifier and second name; blanks
    beyond the first become ``_``.
    """
    check_motifs(motifs)
    parts = [_HEADER]
    for motif in motifs:
        first, _, second = motif.name.partition(" ")
        title = f"{first} {second.replace(' ', '_')}".strip()
        rows = "\n".join(" ".join(f"{p:.9f}" for p in column) for column in motif.ppm.T)
        parts.append(f"\nMOTIF {title}\nletter-probability matrix: alength= 4 w= {motif.ppm.shape[1]}\n{rows}\n")
    write_text_file(path, "".join(parts))
