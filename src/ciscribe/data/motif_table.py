"""Eighteen transcription factors, what they bind, what they do, and which cells have them.

The facts from which `ciscribe.data.world` builds its genomes. A motif is one consensus in IUPAC letters,
written from the literature and named by the JASPAR matrix of the same factor; its matrix is made from the
letters by one rule, so that no database has to be shipped. The roles are a deliberate simplification:
pioneers open chromatin, activators add to what is open, REST silences, CTCF opens and does nothing else,
and core promoter factors set the basal strength of a gene.

References
----------
Consensus sequences after JASPAR (Rauluseviciute et al. 2024, doi:10.1093/nar/gkad1059), matrix ids in the
table. Roles after Zaret & Carroll 2011, doi:10.1101/gad.176826.111 (pioneers), Schoenherr & Anderson 1995,
doi:10.1126/science.7871435 (REST), Haberle & Stark 2018, doi:10.1038/s41580-018-0028-8 (core promoters).
The numbers (weights, activities) are ours.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

IUPAC = {"A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT",
         "M": "AC", "N": "ACGT"}
STRONG, WEAK = 0.91, 0.64
"""Share of an upper-case and of a lower-case consensus letter; the other bases divide the rest."""
THRESHOLD = 0.7
"""A site scores at least this share of the best possible log-odds score."""

Role = Literal["pioneer", "activator", "repressor", "insulator", "core"]


@dataclass(frozen=True)
class Factor:
    """One transcription factor of the simulated world.

    Parameters
    ----------
    name
        Gene symbol.
    role
        What a bound site does.
    weight
        Strength of one perfect site at full activity, in log10 units of expression; unused for pioneers and
        insulators, whose effect is openness.
    consensus
        IUPAC letters, one a position; lower case is a weak preference.
    source
        JASPAR matrix id of the factor.

    Examples
    --------
    >>> factor("SPI1").ppm.shape
    (4, 12)
    >>> factor("SPI1").ppm[:, 0].round(2).tolist()
    [0.91, 0.03, 0.03, 0.03]
    """

    name: str
    role: Role
    weight: float
    consensus: str
    source: str

    @property
    def width(self) -> int:
        """Length of the site in bp."""
        return len(self.consensus)

    @cached_property
    def ppm(self) -> Float[ndarray, "4 W"]:
        """Probability of each base (A C G T) at each position; columns sum to 1."""
        columns = np.empty((4, self.width))
        for i, letter in enumerate(self.consensus):
            bases = IUPAC[letter.upper()]
            share = STRONG if letter.isupper() else WEAK
            inside = np.array([base in bases for base in "ACGT"])
            if inside.all():
                columns[:, i] = 0.25
            else:
                columns[:, i] = np.where(inside, share / inside.sum(), (1 - share) / (~inside).sum())
        return columns

    @cached_property
    def pwm(self) -> Float[ndarray, "4 W"]:
        """Log-odds against equal bases, in bits."""
        return np.log2(self.ppm / 0.25)

    @property
    def best(self) -> float:
        """Highest possible score, in bits."""
        return float(self.pwm.max(axis=0).sum())

    @property
    def threshold(self) -> float:
        """Lowest score of a site, in bits."""
        return THRESHOLD * self.best


FACTORS = (
    Factor("FOXA2", "pioneer", 0.0, "TGTTTACWYAnr", "MA0047"),
    Factor("SPI1", "pioneer", 0.0, "AAAGAGGAAGTG", "MA0080"),
    Factor("ASCL1", "pioneer", 0.0, "nRGCAGCTGCYn", "MA1100"),
    Factor("HNF4A", "activator", 0.32, "grGKnCAAAGTCCA", "MA0114"),
    Factor("HNF1A", "activator", 0.34, "rGTTAATGATTAACy", "MA0046"),
    Factor("CEBPA", "activator", 0.28, "rTTGCGCAAy", "MA0102"),
    Factor("RUNX1", "activator", 0.28, "nyTGTGGTTWr", "MA0002"),
    Factor("GATA1", "activator", 0.28, "nAGATAAGAr", "MA0035"),
    Factor("MEF2C", "activator", 0.32, "kCTATAAATAGm", "MA0497"),
    Factor("POU3F2", "activator", 0.34, "wTATGCWAATkA", "MA0787"),
    Factor("FOS::JUN", "activator", 0.32, "rTGASTCAy", "MA0099"),
    Factor("REST", "repressor", 0.80, "TTCAGCACCATGGACAGCGCC", "MA0138"),
    Factor("CTCF", "insulator", 0.0, "TGGCCACyAGGKGGCGCyA", "MA0139"),
    Factor("TBP", "core", 0.30, "sTATAAAAGGc", "MA0108"),
    Factor("SP1", "core", 0.26, "rGGGGCGGGGCy", "MA0079"),
    Factor("NFYA", "core", 0.30, "RRCCAATSAGc", "MA0060"),
    Factor("NRF1", "core", 0.30, "yGCGCATGCGCr", "MA0506"),
    Factor("YY1", "core", 0.26, "CAARATGGCGGC", "MA0095"),
)
"""Every factor; the order is the order of the columns of `WorldOracle.tf_activity`."""

CELLS: dict[str, dict[str, float]] = {
    "liver": {"FOXA2": 1.0, "SPI1": 0.05, "ASCL1": 0.05, "HNF4A": 1.0, "HNF1A": 1.0, "CEBPA": 0.9,
              "RUNX1": 0.1, "GATA1": 0.1, "MEF2C": 0.2, "POU3F2": 0.0, "FOS::JUN": 0.6, "REST": 1.0},
    "blood": {"FOXA2": 0.05, "SPI1": 1.0, "ASCL1": 0.05, "HNF4A": 0.1, "HNF1A": 0.0, "CEBPA": 0.7,
              "RUNX1": 1.0, "GATA1": 1.0, "MEF2C": 0.5, "POU3F2": 0.1, "FOS::JUN": 0.9, "REST": 0.8},
    "neuron": {"FOXA2": 0.35, "SPI1": 0.05, "ASCL1": 1.0, "HNF4A": 0.1, "HNF1A": 0.1, "CEBPA": 0.1,
               "RUNX1": 0.3, "GATA1": 0.2, "MEF2C": 1.0, "POU3F2": 1.0, "FOS::JUN": 0.7, "REST": 0.0},
    "muscle": {"FOXA2": 0.1, "SPI1": 0.1, "ASCL1": 0.8, "HNF4A": 0.0, "HNF1A": 0.0, "CEBPA": 0.3,
               "RUNX1": 0.5, "GATA1": 0.3, "MEF2C": 0.9, "POU3F2": 0.1, "FOS::JUN": 0.8, "REST": 0.7},
}
"""Activity of the factors in the cell types, 0 to 1; those that are not named (CTCF, core promoter) are 1."""


def factor(name: str) -> Factor:
    """Factor of that name.

    Raises
    ------
    KeyError
        If the table has no such factor.
    """
    return {f.name: f for f in FACTORS}[name]
