"""The known-truth lab: a small genome whose regulation is known to the last base.

`world` grows a genome with genes, enhancers and decoys out of real motifs, measures signals and expression
with noise, and tells the truth: what every element does to every gene in every cell, what variants change,
how well any predictor can do (the noise ceiling), and, by `World.oracle`, what any edited sequence would do.
Recovery tests, the demo and the benchmarks stand on it. The law itself is in `ciscribe.data.grammar`, the
motifs are in `ciscribe.data.motif_table`.
"""

import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from numpy import ndarray

from ciscribe.data.grammar import Elements, WorldOracle, index_of, ranges, within
from ciscribe.data.landscape import place_genes, plan_elements, plant, sequence_of
from ciscribe.data.motif_table import Factor
from ciscribe.errors import UnknownNameError
from ciscribe.io.bed import write_bed
from ciscribe.io.genes import write_gtf
from ciscribe.io.genome import write_fasta
from ciscribe.io.tracks import Runs, Track, write_bigwig
from ciscribe.io.variants import write_vcf
from ciscribe.provenance import atomic_folder, provenance, write_json
from ciscribe.schema import check_expression, check_genes, check_links, check_variants
from ciscribe.sequence import BASES, N

ELEMENT_KINDS = ("promoter", "enhancer", "decoy_open", "decoy_poised", "decoy_closed")
SIGNAL_BIN = 32
"""Resolution of the signals in bp."""
_ACETYLATED = {"decoy_open": 0.85, "decoy_poised": 0.15}  # share of decoys that the signals cannot tell from enhancers
_NOISE = {"atac": 0.45, "h3k27ac": 0.2}  # sd of ln height, drawn an element, cell and assay
TRUE_EFFECT = 0.02
"""Smallest drop of log10 expression that counts as a true link."""


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
        ``atac_<cell>`` and ``h3k27ac_<cell>``, reads a bin of 32 bp. Openness shows in the first, activity in the
        second, both with noise; acetylated decoys show the activity of an enhancer that they do not have.
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

    def windows(self, gene_ids: list[str] | None = None, half: int = 11_264) -> tuple[ndarray, int]:
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
          seed: int = 0, *, noise: int | float = 0.17) -> World:
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
    genes, sizes = place_genes(n_genes, n_chroms, rng)
    genome = sequence_of(sizes, rng)
    plan, planted = plan_elements(genes, sizes, oracle, rng)
    plant(genome, plan, planted, oracle, rng)

    # From here on the genome is finished, and everything is what the oracle says about it.
    sites = pd.concat([oracle.sites(codes[None]).assign(window=i) for i, codes in enumerate(genome.values())],
                      ignore_index=True)
    chrom_index = index_of(genes["chrom"], list(genome))
    tss = genes["tss"].to_numpy()
    clean = oracle.respond(sites, chrom_index, tss)
    noisy = np.maximum(clean + rng.normal(0.0, noise, clean.shape), 0.0)
    index = pd.Index(genes["gene_id"], name="gene_id")
    expression = pd.DataFrame(noisy, index=index, columns=pd.Index(cells))
    expression_clean = pd.DataFrame(clean, index=index, columns=pd.Index(cells))
    variance = clean.var(axis=0)
    ceiling = dict(zip(cells, np.sqrt(variance / (variance + noise**2)).tolist(), strict=True))

    elements = _elements(oracle, oracle.elements(sites), genes, plan, list(genome), rng)
    links = _links(oracle, sites, elements, genes, list(genome), clean)
    own = links.query("kind == 'promoter' and distance == 0")
    for cell in cells:
        adds = own.loc[(own["cell"] == cell).to_numpy()]
        order = pd.Index(elements["name"]).get_indexer(pd.Index(adds["name"]))
        elements.loc[order, f"activity_{cell}"] = adds["effect"].to_numpy()
    sizes = {chrom: len(codes) for chrom, codes in genome.items()}
    tracks = _tracks(elements, sizes, oracle.cells, rng)
    variants = _variants(oracle, sites, links, genes, genome, clean, rng)
    elements = elements.drop(columns=[f"mark_{cell}" for cell in cells])
    check_genes(genes, sizes)
    check_expression(expression)
    check_links(links)
    check_variants(variants)
    return World(seed, genome, genes, expression, expression_clean, tracks, elements, links, variants, ceiling,
                 oracle)


def _windows(genome: dict[str, ndarray], chroms: list[str], centers: list[int], half: int
             ) -> UInt8[ndarray, "B L"]:
    out = np.full((len(chroms), 2 * half), N, dtype=np.uint8)
    for row, chrom, center in zip(out, chroms, centers, strict=True):
        lo = center - half
        part = genome[chrom][max(lo, 0) : center + half]
        row[max(-lo, 0) : max(-lo, 0) + len(part)] = part
    return out


# ---- the truth ----

def _elements(oracle: WorldOracle, found: Elements, genes: pd.DataFrame, plan: pd.DataFrame, chroms: list[str],
              rng: np.random.Generator) -> pd.DataFrame:
    """Table of every element of the finished genome: promoters, what the oracle finds open, closed decoys.

    ``mark_<cell>`` is what H3K27ac will show: the activity, or for half of the open decoys the activity of some
    enhancer of the same pioneer (of any, for CTCF).
    """
    cells = oracle.cells
    factor = np.array([f.name for f in oracle.factors])[found.factor]
    kind = np.where(factor == "CTCF", "decoy_open",
                    np.where(found.activity.max(axis=1, initial=0.0) > TRUE_EFFECT, "enhancer", "decoy_poised"))
    closed = plan.loc[(plan["kind"] == "decoy_closed").to_numpy()]
    n = (len(genes), len(found.center), len(closed))
    kinds = np.concatenate([np.repeat("promoter", n[0]), kind, np.repeat("decoy_closed", n[2])])
    center = np.concatenate([genes["tss"], found.center.astype(int), closed["center"]]).astype(np.int64)
    chrom = np.concatenate([genes["chrom"], np.array(chroms)[found.window], closed["chrom"]])
    factors = np.concatenate([np.repeat(".", n[0]), factor, np.repeat(".", n[2])])
    nothing = np.zeros((n[2], len(cells)))
    openness = np.concatenate([np.ones((n[0], len(cells))), found.openness, nothing])
    activity = np.concatenate([np.zeros((n[0], len(cells))), found.activity, nothing])

    chance = np.select([kinds == kind for kind in _ACETYLATED], list(_ACETYLATED.values()), 0.0)
    acetylated = rng.random(len(kinds)) < chance
    mark = activity.copy()
    for i in np.flatnonzero(acetylated):
        enhancers = np.flatnonzero(kinds == "enhancer")
        same = enhancers[factors[enhancers] == factors[i]]
        if len(enhancers):
            mark[i] = activity[rng.choice(same if len(same) else enhancers)]

    half = np.where(kinds == "promoter", oracle.promoter_half, oracle.reach)
    columns = {"chrom": chrom, "start": center - half, "end": center + half, "name": "", "kind": kinds,
               "factor": factors, "acetylated": acetylated}
    for title, values in (("openness", openness), ("activity", activity), ("mark", mark)):
        columns |= {f"{title}_{cell}": values[:, i] for i, cell in enumerate(cells)}
    order = np.lexsort((center - half, pd.Index(chroms).get_indexer(pd.Index(chrom))))
    table = pd.DataFrame(columns).iloc[order].reset_index(drop=True)
    table["name"] = [f"{kind}_{i + 1:05d}" for i, kind in enumerate(table["kind"])]
    return table


def _without(sites: pd.DataFrame, lo: ndarray, hi: ndarray, start: ndarray, end: ndarray) -> pd.DataFrame:
    """Copy rows ``lo[i]..hi[i]`` of the sites as window i, without those that touch ``start[i]..end[i]``."""
    window, row = ranges(lo, hi)
    copies = sites.iloc[row].assign(window=window)
    return copies.loc[(copies["start"].to_numpy() >= end[window]) | (copies["end"].to_numpy() <= start[window])]


def _site_ranges(oracle: WorldOracle, sites: pd.DataFrame, chrom_index: ndarray, tss: ndarray
                 ) -> tuple[ndarray, ndarray]:
    """First and last + 1 row of the sites that can matter to each TSS."""
    span = int(sites["end"].max() + tss.max()) + 2 * oracle.half_window
    key = sites["window"].to_numpy() * span + sites["start"].to_numpy()
    at = chrom_index * span + tss
    return np.searchsorted(key, at - oracle.half_window), np.searchsorted(key, at + oracle.half_window)


def _links(oracle: WorldOracle, sites: pd.DataFrame, elements: pd.DataFrame, genes: pd.DataFrame,
           chroms: list[str], clean: ndarray) -> pd.DataFrame:
    """Delete every element for every gene within reach, and tabulate the true effects."""
    start, end = elements["start"].to_numpy(), elements["end"].to_numpy()
    center = (start + end) // 2
    chrom_index, all_tss = index_of(genes["chrom"], chroms), genes["tss"].to_numpy()
    gene, element = within(index_of(elements["chrom"], chroms), center, chrom_index, all_tss, oracle.max_distance)
    tss = all_tss[gene]
    lo, hi = _site_ranges(oracle, sites, chrom_index[gene], tss)
    left = _without(sites, lo, hi, start[element], end[element])
    effect = clean[gene] - oracle.respond(left, np.arange(len(gene)), tss)
    effect[np.abs(effect) < 1e-9] = 0.0  # the same sum in another order
    pair = {name: np.tile(elements[name].to_numpy()[element], len(oracle.cells))
            for name in ("chrom", "start", "end", "name", "kind")}
    flat = effect.T.ravel()
    return pd.DataFrame({
        "chrom": pair["chrom"], "start": pair["start"], "end": pair["end"],
        "gene_id": np.tile(genes["gene_id"].to_numpy()[gene], len(oracle.cells)),
        "cell": np.repeat(oracle.cells, len(gene)),
        "distance": np.tile(np.abs(center[element] - tss), len(oracle.cells)),
        "score": flat, "label": flat > TRUE_EFFECT, "effect": flat, "name": pair["name"], "kind": pair["kind"]})


def _variants(oracle: WorldOracle, sites: pd.DataFrame, links: pd.DataFrame, genes: pd.DataFrame,
              genome: dict[str, ndarray], clean: ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Change one base of a working site and one beside the sites, in one true link of every gene."""
    works = {"enhancer": ("pioneer", "activator", "repressor"), "promoter": ("core", "activator")}
    role = np.array([f.role for f in oracle.factors])[sites["factor"]]
    starts, ends, which = (sites[name].to_numpy() for name in ("start", "end", "factor"))
    rows = []
    true = links.query("label").sample(frac=1.0, random_state=rng)
    true = true.loc[~true["gene_id"].duplicated().to_numpy()].sort_values(by="gene_id")
    number = index_of(true["chrom"], list(genome))
    for link, i_chrom in zip(true.to_dict("records"), number, strict=True):
        start, end, codes = link["start"], link["end"], genome[link["chrom"]]
        lo, hi = np.searchsorted(sites["window"], (i_chrom, i_chrom + 1))
        inside = lo + np.flatnonzero((ends[lo:hi] > start) & (starts[lo:hi] < end))
        working = inside[np.isin(role[inside], works.get(link["kind"], ()))]
        outside = np.ones(end - start, bool)
        for i in inside:
            outside[max(starts[i] - start, 0) : ends[i] - start] = False
        if len(working):
            i = rng.choice(working)
            rows.append((*_worst_change(codes, int(starts[i]), oracle.factors[which[i]]), "breaking", link))
        if outside.any():
            pos = start + int(rng.choice(np.flatnonzero(outside)))
            rows.append((pos, int(codes[pos] + rng.integers(1, 4)) % 4, "neutral", link))
    letters = np.array(list(BASES))
    pos = np.array([row[0] for row in rows], dtype=np.int64)
    alt = np.array([row[1] for row in rows], dtype=np.uint8)
    table = pd.DataFrame({"chrom": [row[3]["chrom"] for row in rows], "pos": pos, "ref": "", "alt": letters[alt],
                          "name": [f"variant{i + 1:04d}" for i in range(len(rows))],
                          "kind": [row[2] for row in rows], "gene_id": [row[3]["gene_id"] for row in rows],
                          "element": [row[3]["name"] for row in rows]})

    # Only sites that touch the changed base can change: scan its neighbourhood again, keep all others.
    gene = pd.Index(genes["gene_id"]).get_indexer(pd.Index(table["gene_id"]))
    tss = genes["tss"].to_numpy()[gene]
    half = max(f.width for f in oracle.factors)
    edited = _windows(genome, table["chrom"].tolist(), pos.tolist(), half)
    table["ref"] = letters[edited[:, half]]
    edited[:, half] = alt
    new = oracle.sites(edited)
    new = new.loc[((new["start"] <= half) & (new["end"] > half)).to_numpy()]
    shift = pos[new["window"]] - half
    new = new.assign(start=new["start"] + shift, end=new["end"] + shift)
    lo, hi = _site_ranges(oracle, sites, index_of(table["chrom"], list(genome)), tss)
    kept = _without(sites, lo, hi, pos, pos + 1)
    effect = clean[gene] - oracle.respond(pd.concat([kept, new]), np.arange(len(table)), tss)
    effect[np.abs(effect) < 1e-9] = 0.0
    for i, cell in enumerate(oracle.cells):
        table[f"effect_{cell}"] = effect[:, i]
    made = (table["kind"] == "neutral").to_numpy() & (effect != 0).any(axis=1)  # made a site by chance: not neutral
    return table.loc[~made & ~table.duplicated(["chrom", "pos"]).to_numpy()].reset_index(drop=True)


def _worst_change(codes: ndarray, start: int, factor: Factor) -> tuple[int, int]:
    """Position and new base that harm a site most: a best base of the motif becomes its rarest."""
    here = codes[start : start + factor.width]
    columns = np.arange(factor.width)
    if factor.pwm[here, columns].sum() >= factor.threshold:
        j = int(factor.pwm[here, columns].argmax())
        return start + j, int(factor.pwm[:, j].argmin())
    j = int(factor.pwm[3 - here[::-1], columns].argmax())  # the site is on the other strand
    return start + factor.width - 1 - j, 3 - int(factor.pwm[:, j].argmin())


# ---- what is measured ----

def _tracks(elements: pd.DataFrame, sizes: dict[str, int], cells: tuple[str, ...], rng: np.random.Generator
            ) -> list[Track]:
    """Read counts in bins of 32 bp: Poisson around a low background and one peak an element."""
    offset = np.arange(-60, 61)
    bp = offset * SIGNAL_BIN
    narrow = np.exp(-0.5 * (bp / 90.0) ** 2)
    broad = np.exp(-0.5 * (bp / 300.0) ** 2) * (1 - 0.6 * np.exp(-0.5 * (bp / 110.0) ** 2))  # a dip at the open site
    center = ((elements["start"] + elements["end"]) // 2 // SIGNAL_BIN).to_numpy()
    promoter = (elements["kind"] == "promoter").to_numpy()
    tracks = []
    for assay, shape, background in (("atac", narrow, 0.5), ("h3k27ac", broad, 0.4)):
        for cell in cells:
            if assay == "atac":
                height = 40.0 * elements[f"openness_{cell}"].to_numpy()
            else:
                strength = elements[f"activity_{cell}"].to_numpy()
                height = np.where(promoter, 2.0 + 12.0 * strength, 20.0 * elements[f"mark_{cell}"].to_numpy())
            height = height * np.exp(rng.normal(0.0, _NOISE[assay], len(height)))
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
