"""Importance of sequences whose motifs are known: planted on both strands, with noise everywhere else."""

import numpy as np

from ciscribe.results import attribution_array
from ciscribe.sequence import encode

MOTIFS = {"cre": "TGACGTCA", "tata": "TATAAAAG", "rest": "TTCAGCACC"}
REPRESSORS = {"rest"}


def planted_importance(n=151, length=107, *, seed=0, noise=0.05, certain=0.9):
    """Codes ``(n, length)``, hypothetical attributions, sites ``(region, start, end, strand, motif)``, frequencies.

    Every sequence has two sites in different slots of 20 bp.
    """
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (n, length), dtype=np.uint8)
    values = rng.normal(0, noise, (n, 4, length))
    ppms, sites = {}, []
    for name, word in MOTIFS.items():
        ppms[name] = np.full((4, len(word)), (1 - certain) / 3)
        ppms[name][encode(word), np.arange(len(word))] = certain
    for i in range(n):
        for slot in rng.choice(length // 20, 2, replace=False):
            name = str(rng.choice(list(MOTIFS)))
            ppm, strand = ppms[name], str(rng.choice(["+", "-"]))
            if strand == "-":
                ppm = ppm[::-1, ::-1]
            width = ppm.shape[1]
            start = slot * 20 + int(rng.integers(0, 20 - width + 1))
            codes[i, start:start + width] = [rng.choice(4, p=column) for column in ppm.T]
            values[i, :, start:start + width] += (ppm - 0.25) * (-1 if name in REPRESSORS else 1)
            sites.append((i, start, start + width, strand, name))
    return codes, attribution_array(values[..., None], "planted", units="output"), sites, ppms
