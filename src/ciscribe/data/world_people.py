"""People of the simulated world: two genomes each, in linkage disequilibrium, and what their genes express.

The genomes of `ciscribe.data.world` with variants in them, some in working sites, most beside. A person's haplotypes
copy those of a few founders in blocks, as recombination leaves them, so that neighbouring variants go together and an
association does not say which one is causal. Expression is the closed-form law on both haplotypes, with noise. The
truth is known for every variant, gene and person: fine-mapping, personal windows and tests of signs are held
against it.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Int8, UInt8
from numpy import ndarray

from ciscribe.data.grammar import WorldOracle, ranges
from ciscribe.data.world import World
from ciscribe.errors import UnknownNameError, nearest
from ciscribe.schema import check_variants
from ciscribe.sequence import BASES, N

_WORKING = {"enhancer": ("pioneer", "activator", "repressor"), "promoter": ("core", "activator")}


class People(NamedTuple):
    """Simulated people and what is true of them.

    Parameters
    ----------
    variants
        Variants table (`ciscribe.schema.check_variants`), sorted along the genome, with ``name``, ``gene_id`` (whose
        neighbourhood it was put in), ``element`` (whose working site it was put in, or ``.``), ``kind`` and
        ``effect``: noiseless expression of that gene with the alternative allele on both haplotypes minus without, all
        else as in the reference (positive: the alternative raises it). `kind` is ``causal`` where that is not 0.
    alleles
        int8 ``(V, P, 2)``: 1 where the haplotype has the alternative allele.
    people
        Names.
    expression, genetic
        Index `gene_id`, one column a person, log10(TPM + 1)-like: measured, and what the genomes alone make.
    cell
        The cell type that was measured.
    """

    variants: pd.DataFrame
    alleles: Int8[ndarray, "V P 2"]
    people: tuple[str, ...]
    expression: pd.DataFrame
    genetic: pd.DataFrame
    cell: str


def simulate_people(world: World, n_people: int = 200, *, cell: str | None = None, genes: list[str] | None = None,
                    n_causal: int = 3, n_neutral: int = 12, spread: int = 10_000, n_founders: int = 16,
                    block: int | float = 10_000, heritability: float = 0.5, noise: float = 0.1, seed: int = 0
                    ) -> People:
    """Simulate people with personal genomes and expression.

    Parameters
    ----------
    world
        The reference genome and its law.
    n_people
        2 or more.
    cell
        The cell type that is measured; the world's first by default.
    genes
        Which are measured and get variants; all by default (a few genes take a second).
    n_causal, n_neutral
        Changes of a base that are drawn for every gene: in working sites of its true links in `cell`, and anywhere
        within `spread` bp of its TSS. What they do is the law's to say: a change in a site may do nothing, and one
        elsewhere may make a site.
    spread
        In bp.
    n_founders
        Haplotypes that all others copy; few of them make long LD.
    block
        Mean length in bp that is copied from one founder.
    heritability
        Share of a gene's variance across people that is due to its sequence, above 0 and up to 1.
    noise
        Standard deviation of the measurement of a gene that does not vary by its sequence.
    seed
        The same seed gives the same people.

    Returns
    -------
    People
        Every variant is present and absent among the people.

    Raises
    ------
    UnknownNameError
        If the world has no such cell or gene.
    ValueError
        If there are fewer than 2 people or founders, or the heritability cannot be.

    Examples
    --------
    >>> from ciscribe.data.world import world
    >>> people = simulate_people(world(n_genes=12, n_chroms=2, seed=1), 5, genes=["gene0001", "gene0002"])
    >>> people.alleles.shape[1:], people.expression.shape
    ((5, 2), (2, 5))
    """
    cell = world.cells[0] if cell is None else cell
    if cell not in world.cells:
        raise UnknownNameError(f"the world has no cell type '{cell}'; {nearest(cell, world.cells)}")
    if n_people < 2 or n_founders < 2 or not 0 < heritability <= 1:
        raise ValueError("people need n_people and n_founders of 2 or more and a heritability above 0 and up to 1; "
                         f"got {n_people}, {n_founders} and {heritability}")
    chosen = world.genes["gene_id"].tolist() if genes is None else list(genes)
    codes, tss = world.windows(chosen, half=world.oracle.half_window)
    table = world.genes.set_index("gene_id").loc[chosen]
    rng = np.random.default_rng(seed)
    variants = pd.concat([_draw(world, gene, table.loc[gene], cell, n_causal, n_neutral, spread, rng)
                          for gene in chosen], ignore_index=True)
    order = np.lexsort((variants["pos"], pd.Index(list(world.genome)).get_indexer(pd.Index(variants["chrom"]))))
    variants = variants.iloc[order].drop_duplicates(["chrom", "pos"]).reset_index(drop=True)
    alleles = _copied(variants, n_people, n_founders, block, rng)
    varies = alleles.any(axis=(1, 2)) & ~alleles.all(axis=(1, 2))
    variants, alleles = variants.loc[varies].reset_index(drop=True), alleles[varies]
    variants.insert(4, "name", [f"snv{i + 1:05d}" for i in range(len(variants))])
    check_variants(variants)

    chrom, pos = variants["chrom"].to_numpy(), variants["pos"].to_numpy()
    alt = np.array([BASES.index(letter) for letter in variants["alt"]], dtype=np.uint8)
    own, column = variants["gene_id"].to_numpy(), world.cells.index(cell)
    effect = np.zeros(len(variants))
    genetic = np.empty((len(chosen), n_people))
    for g, gene in enumerate(chosen):
        at = pos - table.loc[gene, "tss"] + tss
        rows = np.flatnonzero((chrom == table.loc[gene, "chrom"]) & (at >= 0) & (at < codes.shape[1]))
        held = alleles[rows].reshape(len(rows), 2 * n_people).astype(bool)
        kinds, which = np.unique(held, axis=1, return_inverse=True)
        alone = np.flatnonzero(own[rows] == gene)
        singles = np.zeros((len(rows), len(alone) + 1), dtype=bool)  # each variant alone; the last is the reference
        singles[alone, np.arange(len(alone))] = True
        asked = np.concatenate([kinds, singles], axis=1).T
        y = _respond(world.oracle, codes[g], tss, at[rows], alt[rows], asked)[:, column]
        effect[rows[alone]] = y[kinds.shape[1]:-1] - y[-1]
        genetic[g] = y[which.ravel()].reshape(n_people, 2).mean(axis=1)
    effect[np.abs(effect) < 1e-9] = 0.0  # the same sum in another order
    variants["kind"], variants["effect"] = np.where(effect != 0, "causal", "neutral"), effect
    variance = genetic.var(axis=1)
    varies = variance > 1e-12
    sd = np.where(varies, np.sqrt(variance * (1 - heritability) / heritability), noise)
    measured = genetic + sd[:, None] * rng.normal(size=genetic.shape)
    people = tuple(f"person{i + 1:04d}" for i in range(n_people))
    index, columns = pd.Index(chosen, name="gene_id"), pd.Index(people)
    return People(variants, alleles, people, pd.DataFrame(measured, index, columns),
                  pd.DataFrame(genetic, index, columns), cell)


def _draw(world: World, gene: str, row: pd.Series, cell: str, n_causal: int, n_neutral: int, spread: int,
          rng: np.random.Generator) -> pd.DataFrame:
    """Changes of single bases around a gene: in working sites of its links first, then anywhere."""
    chrom, tss = str(row["chrom"]), int(row["tss"])
    codes = world.genome[chrom]
    links = world.links
    true = links.loc[(links["gene_id"] == gene).to_numpy() & (links["cell"] == cell).to_numpy()
                     & links["label"].to_numpy(bool)]
    role = np.array([f.role for f in world.motifs])
    place: dict[int, str] = {}  # position in a working site → its element
    for link in true.to_dict("records"):
        sites = world.oracle.sites(codes[None, link["start"]:link["end"]])
        works = np.isin(role[sites["factor"]], _WORKING.get(link["kind"], ()))
        for start, end in zip(sites["start"][works], sites["end"][works], strict=True):
            place |= dict.fromkeys(range(link["start"] + start, link["start"] + end), str(link["name"]))
    inside = rng.permutation(np.array(sorted(place), dtype=np.int64))[:n_causal]
    low, high = max(tss - spread, 0), min(tss + spread, len(codes))
    others = rng.choice(np.arange(low, high), min(n_neutral, high - low), replace=False)
    pos = np.concatenate([inside, np.setdiff1d(others, inside)])
    pos = pos[codes[pos] < N]
    alt = (codes[pos] + rng.integers(1, 4, len(pos))) % 4
    letters = np.array(list(BASES))
    return pd.DataFrame({"chrom": chrom, "pos": pos, "ref": letters[codes[pos]], "alt": letters[alt],
                         "gene_id": gene,
                         "element": [place[p] if p in set(inside.tolist()) else "." for p in pos.tolist()]})


def _respond(oracle: WorldOracle, codes: UInt8[ndarray, " L"], tss: int, at: Int[ndarray, " n"],
             alt: UInt8[ndarray, " n"], carried: Bool[ndarray, "K n"]) -> Float[ndarray, "K cells"]:
    """Noiseless expression of a window with each set of variants, at ascending positions `at`.

    As the law over all windows in full, but only what touches a variant is scanned anew, and each of it once.
    """
    if not len(at):
        return np.repeat(oracle(codes[None], tss), len(carried), axis=0)
    half = max(f.width for f in oracle.factors)
    sites = oracle.sites(codes[None])
    first = np.searchsorted(at, sites["start"])
    touches = (first < len(at)) & (at[first.clip(max=len(at) - 1)] < sites["end"])
    kept = sites.loc[~touches]
    kept = kept.iloc[np.tile(np.arange(len(kept)), len(carried))].assign(
        window=np.repeat(np.arange(len(carried)), len(kept)))
    windows = np.repeat(np.pad(codes, half, constant_values=N)[None], len(carried), axis=0)
    windows[:, at + half] = np.where(carried, alt, codes[at])
    width = 2 * half + 1
    pieces = np.ascontiguousarray(windows[:, at[:, None] + np.arange(width)]).reshape(-1, width)
    _, chosen, which = np.unique(pieces.view(f"V{width}").ravel(), return_index=True, return_inverse=True)
    found = oracle.sites(pieces[chosen])
    edge = np.searchsorted(found["window"], np.arange(len(chosen) + 1))
    piece, row = ranges(edge[which], edge[which + 1])
    window, variant = np.divmod(piece, len(at))
    new = found.iloc[row]
    new = new.assign(window=window, start=new["start"] + at[variant] - half, end=new["end"] + at[variant] - half)
    # A site that holds several variants is in the piece of each: it counts with the first.
    holds = (np.searchsorted(at, new["start"]) == variant) & (new["end"].to_numpy() > at[variant])
    return oracle.respond(pd.concat([kept, new.loc[holds]]), np.arange(len(carried)), np.full(len(carried), tss))


def _copied(variants: pd.DataFrame, n_people: int, n_founders: int, block: float, rng: np.random.Generator
            ) -> Int8[ndarray, "V P 2"]:
    """Haplotypes that copy a founder and change to another one along the way (Li & Stephens 2003, Genetics 165:2213).

    A variant is carried by 1 to n − 1 founders, few more often than many (∝ 1 / k, as without selection).
    """
    counts = np.arange(1, n_founders)
    carriers = rng.choice(counts, len(variants), p=1 / counts / (1 / counts).sum())
    rank = rng.permuted(np.tile(np.arange(n_founders), (len(variants), 1)), axis=1)
    founders: Bool[ndarray, "V F"] = rank < carriers[:, None]
    alleles = np.empty((len(variants), 2 * n_people), dtype=np.int8)
    chrom, pos = variants["chrom"].to_numpy(), variants["pos"].to_numpy()
    source = np.zeros(2 * n_people, dtype=np.int64)
    for i in range(len(variants)):
        far = i == 0 or chrom[i] != chrom[i - 1]
        change = rng.random(2 * n_people) < (1.0 if far else -np.expm1(-(pos[i] - pos[i - 1]) / block))
        source = np.where(change, rng.integers(0, n_founders, 2 * n_people), source)
        alleles[i] = founders[i, source]
    return alleles.reshape(len(variants), n_people, 2)
