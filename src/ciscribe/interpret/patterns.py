"""A motif as a model uses it: what it looks like, what it contributes, and where it was seen."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from ciscribe.errors import SchemaError
from ciscribe.schema import Motif, check_motifs

SEQLET_COLUMNS = ("region", "start", "end", "strand", "contribution")


class Alignment(NamedTuple):
    """How well one matrix fits another, and where.

    The second matrix, reverse-complemented if `strand` is ``-``, starts `offset` positions right of the first one.
    """

    similarity: float
    offset: int
    strand: str


@dataclass(frozen=True, eq=False)
class Pattern:
    """One pattern that a model responds to.

    Parameters
    ----------
    motif
        Name and base frequencies of its seqlets, ``(4, W)``.
    cwm
        Contribution weight matrix float64 ``(4, W)``: mean contribution of the bases that are there, on the strand of
        `motif`; units of the attribution.
    hypothetical
        Mean hypothetical contribution of every base, float64 ``(4, W)``.
    seqlets
        ``region`` (row of the sequences), ``start, end`` (within it, 0-based half-open), ``strand``, ``contribution``
        (sum of the contributions of the seqlet).
    """

    motif: Motif
    cwm: np.ndarray
    hypothetical: np.ndarray
    seqlets: pd.DataFrame

    def __post_init__(self) -> None:
        check_motifs([self.motif])
        if not self.cwm.shape == self.hypothetical.shape == self.motif.ppm.shape:
            raise SchemaError(f"the matrices of pattern {self.name} differ in shape: ppm {self.motif.ppm.shape}, cwm "
                              f"{self.cwm.shape}, hypothetical {self.hypothetical.shape}")
        missing = [c for c in SEQLET_COLUMNS if c not in self.seqlets.columns]
        if missing:
            raise SchemaError(f"seqlets of pattern {self.name} need the columns {', '.join(SEQLET_COLUMNS)}; missing: "
                              f"{', '.join(missing)}")

    @property
    def name(self) -> str:
        """Name of the motif."""
        return self.motif.name

    @property
    def sign(self) -> int:
        """+1 for a pattern that raises the output, −1 for one that lowers it."""
        return 1 if self.cwm.sum() >= 0 else -1

    def __repr__(self) -> str:
        return f"Pattern({self.name!r}, {self.cwm.shape[1]} bp, {len(self.seqlets):,} seqlets, {self.sign:+d})"


def pattern_similarity(a: Float[ndarray, "4 V"], b: Float[ndarray, "4 W"], *, both_strands: bool = True) -> Alignment:
    """How much two patterns look alike, slid along each other on both strands.

    The cosine of the two matrices at their best offset, each taken as 0 outside of itself: 1 for the same pattern,
    whatever its scale, its flanks and its strand; what only one of them has lowers it. Of equal fits the one with
    the smaller offset on the + strand counts.

    Parameters
    ----------
    a, b
        Contribution weight matrices, rows A C G T. Frequencies need a zero first: ``ppm - 0.25``.
    both_strands
        Compare with the reverse complement of `b`, too.

    Raises
    ------
    SchemaError
        When a matrix is not ``(4, W)``.
    """
    for matrix in (a, b):
        if matrix.ndim != 2 or matrix.shape[0] != 4 or not matrix.shape[1]:
            raise SchemaError(f"patterns are compared as matrices (4, W); got {matrix.shape}")
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    best = Alignment(-np.inf, 0, "+")
    for strand, other in (("+", b), ("-", b[::-1, ::-1]))[:2 if both_strands else 1]:
        overlap = sum(np.correlate(x, y, "full") for x, y in zip(a, other, strict=True))
        fit, at = float(np.max(overlap)), int(np.argmax(overlap))
        if fit / (norm or 1.0) > best.similarity:
            best = Alignment(fit / (norm or 1.0), at - (b.shape[1] - 1), strand)
    return best
