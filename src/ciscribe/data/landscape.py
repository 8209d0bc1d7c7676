"""How a simulated genome is laid out: genes, background sequence, and the sites that are planted in it.

The first half of `ciscribe.data.world`: nothing here knows what the sites do; it decides only where bases go.
"""

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from numpy import ndarray

from ciscribe.data.grammar import WorldOracle
from ciscribe.data.motif_table import CELLS, Factor
from ciscribe.schema import GENE_COLUMNS
from ciscribe.sequence import N, reverse_complement_codes

_MARGIN = 12_000  # from the end of a chromosome to the first gene, so that windows of ±11 kb stay inside
_MIN_GAP, _MEAN_GAP = 6_000, 14_000  # between neighbouring TSSs
_NEAR, _FAR = 1_000, 9_000  # distances of planted elements from their gene
_PER_GENE = {"enhancer": 2.5, "decoy_open": 1.8, "decoy_poised": 0.8, "decoy_closed": 0.6}
_SLOT = 26  # bp between neighbouring planted sites of an element: the widest motif and some air
_ORDER = 3  # of the Markov background


def place_genes(n_genes: int, n_chroms: int, rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, int]]:
    """Genes along the chromosomes and the chromosomes' lengths."""
    rows, sizes, n = [], {}, 0
    for i in range(n_chroms):
        count = n_genes // n_chroms + (i < n_genes % n_chroms)
        tss = _MARGIN + np.cumsum(_MIN_GAP + rng.exponential(_MEAN_GAP - _MIN_GAP, count)).astype(int)
        chrom = f"chr{i + 1}"
        sizes[chrom] = int(tss[-1]) + _MARGIN + 1
        for at in tss.tolist():
            n += 1
            length, plus = int(rng.integers(1_000, 8_000)), bool(rng.random() < 0.5)
            start, end = (at, at + length) if plus else (at + 1 - length, at + 1)
            rows.append((chrom, start, end, "+" if plus else "-", f"gene{n:04d}", f"GENE{n}", at))
    return pd.DataFrame(rows, columns=pd.Index(GENE_COLUMNS)), sizes


def sequence_of(sizes: dict[str, int], rng: np.random.Generator) -> dict[str, ndarray]:
    """Markov sequence of order 3 with GC domains of about 60 kb and few CpG."""
    gc = np.array([0.36, 0.40, 0.44, 0.50, 0.56])
    base = np.stack([(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2], axis=1)
    taste = np.exp(rng.normal(0.0, 0.15, (4**_ORDER, 4)))
    taste[1::4, 2] *= 0.4  # G after C
    chance = base[:, None, :] * taste
    cumulative = np.cumsum(chance / chance.sum(axis=2, keepdims=True), axis=2)[:, :, :3]

    total = sum(sizes.values())
    ends = np.cumsum(rng.exponential(60_000, 2 * total // 60_000 + 20))
    domain = rng.integers(0, len(gc), len(ends))
    streams = 1024  # grown side by side, so that each step is one array operation
    steps = -(-total // streams)
    kind = domain[np.searchsorted(ends, np.arange(streams * steps)).clip(0, len(ends) - 1)].reshape(streams, steps)
    out = np.empty((steps, streams), dtype=np.uint8)
    context = rng.integers(0, 4**_ORDER, streams)
    for t in range(steps):
        letter = (rng.random(streams)[:, None] > cumulative[kind[:, t], context]).sum(axis=1)
        out[t] = letter
        context = (context * 4 + letter) % 4**_ORDER
    flat = np.ascontiguousarray(out.T).ravel()
    cuts = np.cumsum([0, *sizes.values()])
    return {chrom: flat[a:b].copy() for chrom, a, b in zip(sizes, cuts[:-1], cuts[1:], strict=True)}


def plan_elements(genes: pd.DataFrame, sizes: dict[str, int], oracle: WorldOracle, rng: np.random.Generator
                  ) -> tuple[pd.DataFrame, list[tuple[str, float, str, bool]]]:
    """Where elements go, and the sites to write: (chromosome, center, factor, reverse).

    Returns a table ``chrom, center, kind`` of the elements, promoters excepted, and the sites.
    """
    free = {chrom: np.ones(size // 100 + 1, bool) for chrom, size in sizes.items()}
    rows, sites = [], []
    for chrom, tss, strand in zip(genes["chrom"], genes["tss"], genes["strand"], strict=True):
        free[chrom][(tss - 900) // 100 : (tss + 900) // 100 + 1] = False
        sites += _promoter_sites(chrom, tss, strand, oracle, rng)
    counts = np.stack([rng.poisson(mean, len(genes)) for mean in _PER_GENE.values()], axis=1)
    for chrom, tss, wanted in zip(genes["chrom"], genes["tss"], counts, strict=True):
        for kind, number in zip(_PER_GENE, wanted, strict=True):
            for _ in range(number):
                for _ in range(30):  # a crowded place may stay without
                    away = np.exp(rng.uniform(np.log(_NEAR), np.log(_FAR)))
                    center = int(tss + away * rng.choice((-1, 1)))
                    if free[chrom][center // 100]:
                        free[chrom][(center - 600) // 100 : (center + 600) // 100 + 1] = False
                        rows.append((chrom, center, kind))
                        sites += _element_sites(chrom, center, kind, oracle, rng)
                        break
    return pd.DataFrame(rows, columns=pd.Index(["chrom", "center", "kind"])), sites


def _promoter_sites(chrom: str, tss: int, strand: str, oracle: WorldOracle, rng: np.random.Generator
                    ) -> list[tuple[str, float, str, bool]]:
    """Core factors upstream of a TSS, each with probability 1/2, and up to two activators."""
    upstream = -1 if strand == "+" else 1
    others = rng.permutation(["SP1", "NFYA", "NRF1", "YY1"]).tolist()
    spots = [(30, "TBP"), *zip((55, 85, 115, 145), others, strict=True)]
    chosen = [(at, name) for at, name in spots if rng.random() < 0.5]
    activators = [f.name for f in oracle.factors if f.role == "activator"]
    chosen += [(at, str(rng.choice(activators))) for at in (180, 215) if rng.random() < 0.4]
    return [(chrom, float(tss + upstream * at), name, bool(rng.random() < 0.5)) for at, name in chosen]


def _element_sites(chrom: str, center: int, kind: str, oracle: WorldOracle, rng: np.random.Generator
                   ) -> list[tuple[str, float, str, bool]]:
    """Sites of one element: its pioneer or CTCF in the middle, others in slots on both sides."""
    cell = oracle.cells[rng.integers(len(oracle.cells))]  # the cell that it is for

    def pick(role: str, floor: float, n: int) -> list[str]:
        names = [f.name for f in oracle.factors if f.role == role]
        share = np.array([CELLS[cell][name] for name in names]) + floor
        return rng.choice(names, n, p=share / share.sum()).tolist()

    if kind == "decoy_open":
        placed = [(0, "CTCF")]
    else:
        placed = [] if kind == "decoy_closed" else [(0, pick("pioneer", 0.02, 1)[0])]
        if kind != "decoy_poised":
            slots = rng.permutation([s for s in range(-5, 6) if s]).tolist()
            n = int(rng.integers(2, 7))
            if rng.random() < 0.3:  # partners at their spacing, on two neighbouring slots of one side
                side = int(rng.choice((-1, 1)))
                first = side * int(rng.integers(1, 5))
                widths = [f.width for name in oracle.partners for f in oracle.factors if f.name == name]
                gap = int(rng.integers(oracle.spacing[0], oracle.spacing[1] + 1))
                step = (sum(widths) / 2 + gap) / _SLOT
                placed += [(first, oracle.partners[0]), (first + side * step, oracle.partners[1])]
                slots = [s for s in slots if s not in (first, first + side, first + 2 * side)]
                n -= 2
            if rng.random() < 0.2:
                placed.append((slots.pop(), "REST"))
            placed += list(zip(slots[: max(n, 0)], pick("activator", 0.1, max(n, 0)), strict=False))
    return [(chrom, float(center + at * _SLOT), name, bool(rng.random() < 0.5)) for at, name in placed]


def plant(genome: dict[str, ndarray], plan: pd.DataFrame, planted: list[tuple[str, float, str, bool]],
           oracle: WorldOracle, rng: np.random.Generator) -> None:
    """Write the sites into the genome, in place, then re-draw bases that make pioneers or CTCF by chance.

    In poised decoys chance activators are re-drawn too. Bases of planted sites are never changed, so a chance
    match made of them alone stays, and is part of the truth.
    """
    factors = {f.name: f for f in oracle.factors}
    kept = {chrom: np.zeros(len(codes), bool) for chrom, codes in genome.items()}
    for chrom, center, name, reverse in planted:
        site = _draw_site(factors[name], rng)
        start = round(center - len(site) / 2)
        genome[chrom][start : start + len(site)] = reverse_complement_codes(site) if reverse else site
        kept[chrom][start : start + len(site)] = True
    opening = tuple(f.name for f in oracle.factors if f.role in ("pioneer", "insulator"))
    activating = tuple(f.name for f in oracle.factors if f.role == "activator")
    for chrom, codes in genome.items():
        poised = np.zeros(len(codes), bool)
        for center in plan.loc[(plan["chrom"] == chrom) & (plan["kind"] == "decoy_poised"), "center"]:
            poised[center - oracle.reach - 20 : center + oracle.reach + 20] = True
        inside = np.flatnonzero(poised)
        for _ in range(8):
            changed = 0
            hits = oracle.sites(codes[None], opening)
            spots = [(s, e) for s, e in zip(hits["start"], hits["end"], strict=True)]
            if len(inside):
                hits = oracle.sites(np.where(poised, codes, N).astype(np.uint8)[None], activating)
                spots += list(zip(hits["start"], hits["end"], strict=True))
            for start, end in spots:
                at = start + np.flatnonzero(~kept[chrom][start:end])
                if len(at):  # a planted site is kept whole: its own hit has nothing to change
                    codes[at] = rng.choice(4, len(at), p=(0.29, 0.21, 0.21, 0.29))
                    changed += 1
            if not changed:
                break


def _draw_site(factor: Factor, rng: np.random.Generator) -> UInt8[ndarray, " W"]:
    """One site drawn from the motif, at least as good as its threshold."""
    cumulative = factor.ppm.cumsum(axis=0)
    while True:
        site = (rng.random(factor.width) > cumulative).sum(axis=0).clip(0, 3).astype(np.uint8)
        if factor.pwm[site, np.arange(factor.width)].sum() >= factor.threshold:
            return site
