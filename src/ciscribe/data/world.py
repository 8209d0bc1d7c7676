"""The known-truth lab: a small genome whose regulation is known to the last base.

`world` grows a genome with genes, enhancers and decoys out of real motifs, measures signals and expression
with noise, and tells the truth: what every element does to every gene in every cell, what variants change,
how well any predictor can do (the noise ceiling), and, by `World.oracle`, what any edited sequence would do.
Recovery tests, the demo and the benchmarks stand on it. The law itself is in `ciscribe.data.grammar`, the
motifs are in `ciscribe.data.motif_table`.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from numpy import ndarray

from ciscribe.data.grammar import Elements, WorldOracle, ranges
from ciscribe.data.motif_table import CELLS, Factor
from ciscribe.errors import UnknownNameError
from ciscribe.io.bed import write_bed
from ciscribe.io.genes import write_gtf
from ciscribe.io.genome import write_fasta
from ciscribe.io.tracks import Runs, Track, write_bigwig
from ciscribe.io.variants import write_vcf
from ciscribe.provenance import atomic_folder, provenance, write_json
from ciscribe.schema import GENE_COLUMNS, check_expression, check_genes, check_links, check_variants
from ciscribe.sequence import BASES, N, reverse_complement_codes

ELEMENT_KINDS = ("promoter", "enhancer", "decoy_open", "decoy_poised", "decoy_closed")
SIGNAL_BIN = 32
"""Resolution of the signals in bp."""
TRUE_EFFECT = 0.02
"""Smallest drop of log10 expression that counts as a true link."""

_MARGIN = 20_000  # from the end of a chromosome to the first gene, so that windows of ±16 kb stay inside
_MIN_GAP, _MEAN_GAP = 8_000, 20_000  # between neighbouring TSSs
_NEAR, _FAR = 1_000, 14_000  # distances of planted elements from their gene
_PER_GENE = {"enhancer": 2.5, "decoy_open": 1.5, "decoy_poised": 1.0, "decoy_closed": 0.7}
_SLOT = 26  # bp between neighbouring planted sites of an element: the widest motif and some air
_ORDER = 3  # of the Markov background


@dataclass(frozen=True)
class World:
    """A simulated genome with its measurements and its truth.

    Attributes
    ----------
    seed
        What it was grown from.
    genome
        Chromosome → codes (A C G T = 0..3).
    genes
        Genes table (`schema.check_genes`).
    expression, expression_clean
        Index `gene_id`, one column a cell, log10(TPM + 1)-like; measured with noise, and without.
    tracks
        ``atac_<cell>`` and ``h3k27ac_<cell>``, reads a bin of 32 bp.
    elements
        Intervals with ``name, kind, factor, acetylated, openness_<cell>, activity_<cell>``; `kind` is one of
        `ELEMENT_KINDS`, `factor` what opens it, `acetylated` a decoy with the H3K27ac of an enhancer. Activity
        is in log10 units at contact 1; for a promoter it is what it adds to its own gene.
    links
        Links table (`schema.check_links`), every element and gene within reach in every cell, with `kind`,
        `name` and `effect`: the drop of noiseless expression when the element's bases become N. `score` is
        the effect, `label` is effect > `TRUE_EFFECT`.
    variants
        Variants table with ``name, kind, gene_id, element, effect_<cell>``; `kind` is ``breaking`` (a base of
        a working site, changed for the worst) or ``neutral`` (in the element, outside sites). Effect: noiseless
        expression of `gene_id` with `ref` minus with `alt`; positive when the variant lowers it.
    noise_ceiling
        Expected Pearson r between noiseless and measured expression over genes, a cell: nothing can predict
        better.
    oracle
        The law: expression of any sequence.
    """

    seed: int
    genome: dict[str, ndarray]
    genes: pd.DataFrame
    expression: pd.DataFrame
    expression_clean: pd.DataFrame
    tracks: list[Track]
    elements: pd.DataFrame
    links: pd.DataFrame
    variants: pd.DataFrame
    noise_ceiling: dict[str, float]
    oracle: WorldOracle

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cell types."""
        return self.oracle.cells

    @property
    def motifs(self) -> tuple[Factor, ...]:
        """Factors and their motifs."""
        return self.oracle.factors

    @property
    def tf_activity(self) -> pd.DataFrame:
        """Activity of each factor (columns) in each cell (rows), 0 to 1."""
        return self.oracle.tf_activity

    @cached_property
    def chrom_sizes(self) -> dict[str, int]:
        """Length of each chromosome in bp."""
        return {chrom: len(codes) for chrom, codes in self.genome.items()}

    def windows(self, gene_ids: list[str] | None = None, half: int = 16_384) -> tuple[ndarray, int]:
        """Sequence around the TSS of genes, and where the TSS is in it.

        Parameters
        ----------
        gene_ids
            Which genes; all by default.
        half
            Bases on either side: the window is ``tss - half`` to ``tss + half``, on the plus strand.
            Positions off the chromosome are N.

        Returns
        -------
        tuple
            Codes ``(B, 2 * half)`` and the TSS's position in each, `half`; ready for `oracle`.

        Raises
        ------
        UnknownNameError
            If the world has no such gene.
        """
        row = {gene: i for i, gene in enumerate(self.genes["gene_id"])}
        for gene in gene_ids or ():
            if gene not in row:
                raise UnknownNameError(f"the world has no gene '{gene}'; it has {', '.join([*row][:5])} …")
        chosen = self.genes if gene_ids is None else self.genes.iloc[[row[gene] for gene in gene_ids]]
        return _windows(self.genome, chosen["chrom"].tolist(), chosen["tss"].tolist(), half), half

    def write(self, folder: str | os.PathLike[str]) -> dict[str, Path]:
        """Write the world and its truth as files, the whole folder or nothing.

        Parameters
        ----------
        folder
            Made, or replaced when it exists.

        Returns
        -------
        dict
            What → path: ``genome, genes, expression, expression_clean, elements`` (BED), ``element_table``
            (with the columns that BED cannot hold), ``links, variants`` (VCF), ``variant_effects, truth`` and
            one for each track by its name.
        """
        files = {"genome": "genome.fa", "genes": "genes.gtf", "expression": "expression.tsv",
                 "expression_clean": "expression_clean.tsv", "elements": "elements.bed",
                 "element_table": "elements.tsv", "links": "links.tsv",
                 "variants": "variants.vcf", "variant_effects": "variants.tsv", "truth": "truth.json"}
        files |= {track.name: f"{track.name}.bw" for track in self.tracks}
        with atomic_folder(folder) as temporary:
            path = {what: temporary / name for what, name in files.items()}
            write_fasta(path["genome"], self.genome)
            write_gtf(path["genes"], self.genes)
            write_bed(path["elements"], self.elements)
            write_vcf(path["variants"], self.variants, self.chrom_sizes)
            for track in self.tracks:
                write_bigwig(path[track.name], track, self.chrom_sizes)
            self.expression.to_csv(path["expression"], sep="\t", float_format="%.6f")
            self.expression_clean.to_csv(path["expression_clean"], sep="\t", float_format="%.9f")
            self.elements.to_csv(path["element_table"], sep="\t", index=False, float_format="%.9g")
            self.links.to_csv(path["links"], sep="\t", index=False, float_format="%.9g")
            self.variants.to_csv(path["variant_effects"], sep="\t", index=False, float_format="%.9g")
            law = {k: v for k, v in asdict(self.oracle).items() if k != "factors"}
            write_json(path["truth"], {
                "seed": self.seed, "cells": self.cells, "noise_ceiling": self.noise_ceiling, "law": law,
                "tf_activity": self.tf_activity.to_dict("index"), "motifs": [asdict(f) for f in self.motifs],
                "provenance": provenance(seed=self.seed)})
        return {what: Path(folder) / name for what, name in files.items()}


def world(n_genes: int = 600, cells: tuple[str, ...] = ("liver", "blood", "neuron"), n_chroms: int = 6,
          seed: int = 0, *, noise: float = 0.18) -> World:
    """Grow a genome with known regulation and measure it.

    Parameters
    ----------
    n_genes
        Genes in all, dealt evenly to the chromosomes; about 20 kb of genome each.
    cells
        Cell types, of `ciscribe.data.motif_table.CELLS`.
    n_chroms
        Chromosomes, ``chr1`` to ``chr<n>``.
    seed
        The same seed gives the same world.
    noise
        Standard deviation of the measured log10 expression; sets the noise ceiling.

    Raises
    ------
    UnknownNameError
        If a cell type is not in the table.
    ValueError
        If there are fewer genes than chromosomes, no chromosome, or the noise is negative.

    Examples
    --------
    >>> w = world(n_genes=30, n_chroms=3, seed=1)
    >>> w.expression.shape, sorted(w.genome)
    ((30, 3), ['chr1', 'chr2', 'chr3'])
    >>> codes, tss = w.windows(["gene0001"])
    >>> bool(np.allclose(w.oracle(codes, tss)[0], w.expression_clean.loc["gene0001"]))
    True
    """
    if not 1 <= n_chroms <= n_genes:
        raise ValueError("a world needs 1 <= n_chroms <= n_genes; "
                         f"got n_chroms={n_chroms}, n_genes={n_genes}")
    if not noise >= 0:
        raise ValueError(f"noise is a standard deviation, 0 or more; got {noise}")
    oracle = WorldOracle(tuple(cells))
    rng = np.random.default_rng(seed)
    genes, sizes = _place_genes(n_genes, n_chroms, rng)
    genome = _background(sizes, rng)
    plan, planted = _plan(genes, sizes, oracle, rng)
    _plant(genome, plan, planted, oracle, rng)

    # From here on the genome is finished, and everything is what the oracle says about it.
    sites = pd.concat([oracle.sites(codes[None]).assign(window=i) for i, codes in enumerate(genome.values())],
                      ignore_index=True)
    chrom_index = _index_of(genes["chrom"], genome)
    tss = genes["tss"].to_numpy()
    clean = oracle.respond(sites, chrom_index, tss)
    noisy = np.maximum(clean + rng.normal(0.0, noise, clean.shape), 0.0)
    index = pd.Index(genes["gene_id"], name="gene_id")
    expression = pd.DataFrame(noisy, index=index, columns=pd.Index(cells))
    expression_clean = pd.DataFrame(clean, index=index, columns=pd.Index(cells))
    variance = clean.var(axis=0)
    ceiling = dict(zip(cells, np.sqrt(variance / (variance + noise**2)).tolist(), strict=True))

    elements = _elements(oracle, oracle.elements(sites), genes, plan, list(genome), rng)
    links = _links(oracle, sites, elements, genes, chrom_index, clean)
    own = links.query("kind == 'promoter' and distance == 0")
    for cell in cells:
        elements.loc[elements["kind"] == "promoter", f"activity_{cell}"] = own.query("cell == @cell")["effect"].to_numpy()
    sizes = {chrom: len(codes) for chrom, codes in genome.items()}
    tracks = _tracks(elements, sizes, oracle.cells, rng)
    variants = _variants(oracle, sites, elements, links, genes, genome, clean, rng)
    elements = elements.drop(columns=[c for c in elements if c.startswith("mark_")])
    check_genes(genes, sizes)
    check_expression(expression)
    check_links(links)
    check_variants(variants)
    return World(seed, genome, genes, expression, expression_clean, tracks, elements, links, variants, ceiling,
                 oracle)


def _index_of(chroms: pd.Series, genome: Iterable[str]) -> ndarray:
    """Row of the genome that each chromosome name is."""
    return pd.Index(genome).get_indexer(pd.Index(chroms)).astype(np.int64)


def _windows(genome: dict[str, ndarray], chroms: list[str], centers: list[int], half: int
             ) -> UInt8[ndarray, "B L"]:
    out = np.full((len(chroms), 2 * half), N, dtype=np.uint8)
    for row, chrom, center in zip(out, chroms, centers, strict=True):
        lo = center - half
        part = genome[chrom][max(lo, 0) : center + half]
        row[max(-lo, 0) : max(-lo, 0) + len(part)] = part
    return out


# ---- the genome ----

def _place_genes(n_genes: int, n_chroms: int, rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, int]]:
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


def _background(sizes: dict[str, int], rng: np.random.Generator) -> dict[str, ndarray]:
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


# ---- what is planted ----

def _plan(genes: pd.DataFrame, sizes: dict[str, int], oracle: WorldOracle, rng: np.random.Generator
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
                        free[chrom][(center - 800) // 100 : (center + 800) // 100 + 1] = False
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
    return [(chrom, tss + upstream * at, name, bool(rng.random() < 0.5)) for at, name in chosen]


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
    return [(chrom, center + at * _SLOT, name, bool(rng.random() < 0.5)) for at, name in placed]


def _plant(genome: dict[str, ndarray], plan: pd.DataFrame, planted: list[tuple[str, float, str, bool]],
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


# ---- the truth ----

def _elements(oracle: WorldOracle, found: Elements, genes: pd.DataFrame, plan: pd.DataFrame, chroms: list[str],
              rng: np.random.Generator) -> pd.DataFrame:
    """Every element of the finished genome: promoters, what the oracle finds open, and closed decoys.

    ``mark_<cell>`` is what H3K27ac will show: the activity, or for half of the open decoys the activity of some
    enhancer of the same pioneer (of any, for CTCF).
    """
    names = np.array([f.name for f in oracle.factors])
    cells = list(oracle.cells)
    open_ = pd.DataFrame({"chrom": np.array(chroms)[found.window], "center": found.center.astype(int),
                          "factor": names[found.factor]})
    open_["kind"] = np.where(open_["factor"] == "CTCF", "decoy_open",
                             np.where(found.activity.max(axis=1) > TRUE_EFFECT, "enhancer", "decoy_poised"))
    open_[[f"openness_{c}" for c in cells]] = found.openness
    open_[[f"activity_{c}" for c in cells]] = found.activity
    promoters = pd.DataFrame({"chrom": genes["chrom"], "center": genes["tss"], "factor": ".", "kind": "promoter"})
    closed = plan[plan["kind"] == "decoy_closed"].assign(factor=".")
    table = pd.concat([promoters, open_, closed], ignore_index=True)
    for cell in cells:
        table[f"openness_{cell}"] = table[f"openness_{cell}"].fillna((table["kind"] == "promoter").astype(float))
        table[f"activity_{cell}"] = table[f"activity_{cell}"].fillna(0.0)

    table["acetylated"] = table["kind"].isin(["decoy_open", "decoy_poised"]) & (rng.random(len(table)) < 0.5)
    activity = table[[f"activity_{c}" for c in cells]].to_numpy()
    mark = activity.copy()
    enhancer = (table["kind"] == "enhancer").to_numpy()
    for i in np.flatnonzero(table["acetylated"]):
        same = np.flatnonzero(enhancer & (table["factor"] == table["factor"][i]).to_numpy())
        models = same if len(same) else np.flatnonzero(enhancer)
        if len(models):
            mark[i] = activity[rng.choice(models)]
    table[[f"mark_{c}" for c in cells]] = mark

    half = np.where(table["kind"] == "promoter", oracle.promoter_half, oracle.reach)
    table["start"], table["end"] = table["center"] - half, table["center"] + half
    order = {chrom: i for i, chrom in enumerate(chroms)}
    table = table.sort_values(["chrom", "start"], key=lambda s: s.map(order) if s.name == "chrom" else s,
                              kind="stable", ignore_index=True)
    table["name"] = [f"{kind}_{i + 1:05d}" for i, kind in enumerate(table["kind"])]
    first = ["chrom", "start", "end", "name", "kind", "factor", "acetylated"]
    return table[[*first, *(c for c in table if c.startswith(("openness_", "activity_", "mark_")))]]


def _without(sites: pd.DataFrame, lo: ndarray, hi: ndarray, start: ndarray, end: ndarray) -> pd.DataFrame:
    """Copies of rows ``lo[i]..hi[i]`` of the sites as window i, without those that touch ``start[i]..end[i]``."""
    window, row = ranges(lo, hi)
    copies = sites.iloc[row].assign(window=window)
    return copies[(copies["start"].to_numpy() >= end[window]) | (copies["end"].to_numpy() <= start[window])]


def _site_ranges(oracle: WorldOracle, sites: pd.DataFrame, chrom_index: ndarray, tss: ndarray) -> tuple[ndarray, ndarray]:
    """First and last + 1 row of the sites that can matter to each TSS."""
    span = int(sites["end"].max() + tss.max()) + 2 * oracle.half_window
    key = sites["window"].to_numpy() * span + sites["start"].to_numpy()
    at = chrom_index * span + tss
    return np.searchsorted(key, at - oracle.half_window), np.searchsorted(key, at + oracle.half_window)


def _links(oracle: WorldOracle, sites: pd.DataFrame, elements: pd.DataFrame, genes: pd.DataFrame,
           chrom_index: ndarray, clean: ndarray) -> pd.DataFrame:
    """True deletion effect of every element on every gene within reach, long over cells."""
    center = (elements["start"] + elements["end"]).to_numpy() / 2
    at = elements["chrom"].map(dict(zip(genes["chrom"], chrom_index, strict=True))).to_numpy()
    # A promoter's interval has its TSS in the middle; the half base that centers of sites have does not matter here.
    pseudo = Elements(at, center, at, np.empty(0), np.empty(0))
    gene, element = oracle.in_range(pseudo, chrom_index, genes["tss"].to_numpy())
    tss = genes["tss"].to_numpy()[gene]
    lo, hi = _site_ranges(oracle, sites, chrom_index[gene], tss)
    left = _without(sites, lo, hi, elements["start"].to_numpy()[element], elements["end"].to_numpy()[element])
    effect = clean[gene] - oracle.respond(left, np.arange(len(gene)), tss)
    effect[np.abs(effect) < 1e-9] = 0.0  # sums in another order
    pairs = elements.iloc[element][["chrom", "start", "end", "name", "kind"]].reset_index(drop=True)
    pairs.insert(3, "gene_id", genes["gene_id"].to_numpy()[gene])
    pairs["distance"] = np.abs(center[element] - tss).astype(int)
    per_cell = [pairs.assign(cell=cell, score=effect[:, c], effect=effect[:, c], label=effect[:, c] > TRUE_EFFECT)
                for c, cell in enumerate(oracle.cells)]
    table = pd.concat(per_cell, ignore_index=True)
    return table[["chrom", "start", "end", "gene_id", "cell", "distance", "score", "label", "effect", "name", "kind"]]


def _variants(oracle: WorldOracle, sites: pd.DataFrame, elements: pd.DataFrame, links: pd.DataFrame,
              genes: pd.DataFrame, genome: dict[str, ndarray], clean: ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """One breaking and one neutral variant for a true link of every gene, with exact effects."""
    true = links[links["label"]].drop_duplicates(["gene_id", "name"]).sample(frac=1.0, random_state=rng)
    true = true.drop_duplicates("gene_id").sort_values("gene_id")
    number = {chrom: i for i, chrom in enumerate(genome)}
    works = {"enhancer": ("pioneer", "activator", "repressor"), "promoter": ("core", "activator")}
    role = np.array([f.role for f in oracle.factors])[sites["factor"]]
    starts, ends = sites["start"].to_numpy(), sites["end"].to_numpy()
    rows = []
    for link in true.itertuples():
        lo, hi = np.searchsorted(sites["window"], (number[link.chrom], number[link.chrom] + 1))
        inside = lo + np.flatnonzero((starts[lo:hi] >= link.start) & (ends[lo:hi] <= link.end))
        codes = genome[link.chrom]
        working = inside[np.isin(role[inside], works.get(link.kind, ()))]
        if len(working):
            i = rng.choice(working)
            site = oracle.factors[sites["factor"].iat[i]]
            here = codes[starts[i] : ends[i]]
            if site.pwm[here, np.arange(site.width)].sum() < site.threshold:  # it matches on the other strand
                j = int(site.pwm[3 - here[::-1], np.arange(site.width)].argmax())
                pos, alt = int(ends[i]) - 1 - j, 3 - int(site.pwm[:, j].argmin())
            else:
                j = int(site.pwm[here, np.arange(site.width)].argmax())
                pos, alt = int(starts[i]) + j, int(site.pwm[:, j].argmin())
            rows.append((link.chrom, pos, alt, "breaking", link.gene_id, link.name))
        outside = np.ones(link.end - link.start, bool)
        for i in inside:
            outside[starts[i] - link.start : ends[i] - link.start] = False
        if outside.any():
            pos = link.start + int(rng.choice(np.flatnonzero(outside)))
            rows.append((link.chrom, pos, int(codes[pos] + rng.integers(1, 4)) % 4, "neutral", link.gene_id, link.name))
    table = pd.DataFrame(rows, columns=["chrom", "pos", "code", "kind", "gene_id", "element"])
    table = table.drop_duplicates(["chrom", "pos"], ignore_index=True)

    # Only sites that touch the changed base can change: scan that neighbourhood again, keep the rest.
    chrom_index = table["chrom"].map(number).to_numpy()
    gene = genes.reset_index().set_index("gene_id").loc[table["gene_id"]]
    pos, tss = table["pos"].to_numpy(), gene["tss"].to_numpy()
    half = max(f.width for f in oracle.factors)
    edited = _windows(genome, table["chrom"], table["pos"], half)
    ref = edited[:, half].copy()
    edited[:, half] = table["code"]
    new = oracle.sites(edited)
    new = new[(new["start"] <= half) & (new["end"] > half)]
    shift = pos[new["window"]] - half
    new = new.assign(start=new["start"] + shift, end=new["end"] + shift)
    lo, hi = _site_ranges(oracle, sites, chrom_index, tss)
    kept = _without(sites, lo, hi, pos, pos + 1)
    effect = clean[gene["index"]] - oracle.respond(pd.concat([kept, new]), np.arange(len(table)), tss)
    effect[np.abs(effect) < 1e-9] = 0.0
    letters = np.array(list(BASES))
    out = pd.DataFrame({"chrom": table["chrom"], "pos": pos, "ref": letters[ref], "alt": letters[table["code"]],
                        "name": [f"variant{i + 1:04d}" for i in range(len(table))]})
    out[["kind", "gene_id", "element"]] = table[["kind", "gene_id", "element"]]
    out[[f"effect_{cell}" for cell in oracle.cells]] = effect
    made = (table["kind"] == "neutral") & (effect != 0).any(axis=1)  # by chance a new site: not neutral after all
    return out[~made].reset_index(drop=True)


# ---- what is measured ----

def _tracks(elements: pd.DataFrame, sizes: dict[str, int], cells: tuple[str, ...], rng: np.random.Generator
            ) -> list[Track]:
    """Read counts in bins of 32 bp: Poisson around a low background and one peak an element."""
    offset = np.arange(-60, 61)
    bp = offset * SIGNAL_BIN
    narrow = np.exp(-0.5 * (bp / 90.0) ** 2)
    broad = np.exp(-0.5 * (bp / 450.0) ** 2) * (1 - 0.6 * np.exp(-0.5 * (bp / 110.0) ** 2))  # a dip at the open site
    center = ((elements["start"] + elements["end"]) // 2 // SIGNAL_BIN).to_numpy()
    promoter = (elements["kind"] == "promoter").to_numpy()
    tracks = []
    for assay, shape, noise, background in (("atac", narrow, 0.45, 0.5), ("h3k27ac", broad, 0.5, 0.4)):
        for cell in cells:
            if assay == "atac":
                height = 40.0 * elements[f"openness_{cell}"].to_numpy()
            else:
                marked = elements[f"mark_{cell}"].to_numpy()
                height = np.where(promoter, 6.0, 20.0 * marked)
            height = height * np.exp(rng.normal(0.0, noise, len(height)))
            runs = {}
            for chrom, size in sizes.items():
                mean = np.full(-(-size // SIGNAL_BIN), background)
                here = (elements["chrom"] == chrom).to_numpy()
                at = center[here, None] + offset
                peak = height[here, None] * shape
                inside = (at >= 0) & (at < len(mean))
                np.add.at(mean, at[inside], peak[inside])
                runs[chrom] = _runs(rng.poisson(mean), size)
            tracks.append(Track(f"{assay}_{cell}", runs, f"reads per {SIGNAL_BIN} bp", dict(sizes)))
    return tracks


def _runs(counts: ndarray, size: int) -> Runs:
    """Bins as runs of equal value; zeros are left out."""
    first = np.flatnonzero(np.r_[True, counts[1:] != counts[:-1]])
    start = first * SIGNAL_BIN
    end = np.r_[start[1:], size]
    some = counts[first] > 0
    return Runs(start[some].astype(np.int32), end[some].astype(np.int32), counts[first][some].astype(np.float32))
