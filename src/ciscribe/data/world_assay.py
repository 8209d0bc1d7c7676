"""A reporter assay of the simulated world: short sequences, their measured activity, and the true sites in them.

What an enhancer library would say about the factors of `ciscribe.data.motif_table`: random sequences with sites put in,
each cloned around a TSS and measured in several cells by the closed-form law of `ciscribe.data.grammar`. Interpretation
can be held against it: which motifs there are, their signs, and the spacing at which two of them help each other.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from numpy import ndarray

from ciscribe.data.grammar import WorldOracle
from ciscribe.sequence import reverse_complement_codes

_ROLES = {"pioneer": (2, 0.65), "activator": (5, 0.5), "repressor": (1, 0.4), "insulator": (1, 0.1), "core": (3, 0.35)}
"""Of each role: how many sites a sequence may get, and how probable each is."""


class Assay(NamedTuple):
    """Sequences and their activity.

    Parameters
    ----------
    codes
        uint8 ``(n, L)``.
    activity
        float32 ``(n, cells)``, log10 units, with noise.
    truth
        The same without noise.
    cells
        Names of the columns.
    sites
        Every site that counts: ``window, start, end, factor`` (its name) ``, affinity``.
    """

    codes: UInt8[ndarray, "n L"]
    activity: Float[ndarray, "n cells"]
    truth: Float[ndarray, "n cells"]
    cells: tuple[str, ...]
    sites: pd.DataFrame


def simulate_assay(n: int = 10_000, *, length: int = 250, cells: tuple[str, ...] = ("liver", "blood", "neuron"),
                   noise: float = 0.1, seed: int = 0) -> Assay:
    """Simulate a reporter library whose law is known.

    Parameters
    ----------
    n
        Sequences.
    length
        In bp; the TSS is in the middle.
    cells
        Cell types, as in `ciscribe.data.motif_table.CELLS`.
    noise
        Standard deviation of the measurement, in log10 units.

    Returns
    -------
    Assay
        Sites are drawn from the motifs and put at random places and strands, also over one another; the partners that
        help each other stand at a helpful spacing in a quarter of the sequences. Chance sites count as planted ones.

    Examples
    --------
    >>> assay = simulate_assay(3, length=120, seed=1)
    >>> assay.codes.shape, assay.activity.shape
    ((3, 120), (3, 3))
    """
    rng = np.random.default_rng(seed)
    oracle = WorldOracle(cells)
    codes = rng.integers(0, 4, (n, length)).astype(np.uint8)
    by_role = {role: [f for f in oracle.factors if f.role == role] for role in _ROLES}
    by_name = {f.name: f for f in oracle.factors}

    def draw(ppm: ndarray) -> ndarray:
        site = (rng.random(ppm.shape[1]) > np.cumsum(ppm, axis=0)).sum(axis=0).clip(0, 3).astype(np.uint8)
        return site if rng.random() < 0.5 else reverse_complement_codes(site)

    for row in codes:
        for role, (most, chance) in _ROLES.items():
            for _ in range(rng.binomial(most, chance)):
                site = draw(by_role[role][rng.integers(len(by_role[role]))].ppm)
                start = rng.integers(0, length - len(site) + 1)
                row[start:start + len(site)] = site
        if rng.random() < 0.25:
            one, other = (draw(by_name[name].ppm) for name in oracle.partners)
            gap = rng.integers(oracle.spacing[0], oracle.spacing[1] + 1)
            start = rng.integers(0, length - len(one) - gap - len(other) + 1)
            row[start:start + len(one)] = one
            row[start + len(one) + gap:start + len(one) + gap + len(other)] = other
    truth = oracle(codes, length // 2).astype(np.float32)
    activity = truth + rng.normal(0, noise, truth.shape).astype(np.float32)
    sites = oracle.sites(codes)
    sites["factor"] = [oracle.factors[i].name for i in sites["factor"]]
    return Assay(codes, activity, truth, cells, sites)
