"""From a configuration to objects that fit each other: one genome, and everything else in its names.

Chromosome names are reconciled with the genome's, genes without expression are set aside, and what was
renamed or dropped is told in plain lines.
"""

from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path

import pandas as pd

from ciscribe.config import RunConfig, WindowConfig
from ciscribe.data.gene_features import GENE_FEATURES, gene_features
from ciscribe.data.split import FOLDS, apply_guard, assign_folds, given_folds
from ciscribe.data.windows import WindowSpec, WindowStore, gene_windows
from ciscribe.errors import ConfigError, InputError
from ciscribe.io.bed import read_bed
from ciscribe.io.chroms import reconcile
from ciscribe.io.expression import read_expression
from ciscribe.io.gene_contacts import GeneContacts
from ciscribe.io.genes import read_folds, read_gene_features, read_genes
from ciscribe.io.genome import Genome
from ciscribe.io.tracks import Track, read_bedgraph, read_bigwig, read_sites


@dataclass(frozen=True)
class Inputs:
    """What a window store is built from; `notes` tells what was renamed or set aside."""

    genome: Genome
    genes: pd.DataFrame
    expression: pd.DataFrame
    tracks: list[Track]
    blacklist: pd.DataFrame | None
    notes: list[str]
    contacts: GeneContacts | None = None


def input_paths(config: RunConfig) -> dict[str, Path]:
    """Every file that a configuration names, by what it is."""
    root = Path(config.data.root)
    data = config.data
    paths = {"genome": data.genome, "genes": data.genes.path, "expression": data.expression.path}
    for i, track in enumerate(data.tracks):
        source = track.bigwig or track.bedgraph or (track.sites and track.sites.path)
        paths[f"track {track.name or i + 1}"] = str(source)
    for name in ("blacklist", "annotation"):
        if (value := getattr(data, name)) is not None:
            paths[name] = value
    paths |= {f"features {i + 1}": part.path for i, part in enumerate(data.features)}
    if config.split.folds is not None:
        paths["folds"] = config.split.folds.path
    if data.contacts is not None:
        pattern = escape(str(root / data.contacts.path)).replace("{chrom}", "*")
        paths |= {f"contacts {Path(path).name}": path for path in sorted(glob(pattern))}
    return {k: root / v for k, v in paths.items()}


def add_features(genes: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
    """Gene table with the columns of the configuration's feature tables."""
    for part in config.data.features:
        path = Path(config.data.root) / part.path
        table = read_gene_features(path, part.columns, gene_id=part.gene_id, geometric_mean=part.geometric_mean)
        known = set(table.index)
        if absent := [gene for gene in genes["gene_id"] if gene not in known]:
            raise InputError(f"gene features {path} lack {len(absent):,} of {len(genes):,} genes; first: {absent[0]}; "
                             "complete the table, or leave the genes out of the gene table")
        if twice := [c for c in table.columns if c in genes.columns]:
            raise ConfigError(f"data.features: {path} gives '{twice[0]}', which the genes have already; name it once "
                              "(a column of the gene table is a covariate by data.covariates)")
        genes = genes.join(table, on="gene_id")
    return genes


def read_tracks(config: RunConfig) -> list[Track]:
    """Signals of a configuration, in its order, with the chromosome names of their files."""
    root = Path(config.data.root)
    tracks: list[Track] = []
    for part in config.data.tracks:
        if part.bigwig:
            tracks.append(read_bigwig(root / part.bigwig, part.name))
        elif part.bedgraph:
            tracks.append(read_bedgraph(root / part.bedgraph, part.name))
        elif part.sites:
            s = part.sites
            tracks += read_sites(root / s.path, s.chrom, s.start, s.end, {c: name for name, c in s.values.items()})
    names = [track.name for track in tracks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{len(twice)} of {len(names)} tracks are called {twice[0]!r}; give each a name of its own")
    return tracks


def covariate_columns(config: RunConfig) -> list[str]:
    """Columns of the genes that models are given beside sequence and signals."""
    return [*config.data.covariate_names, *(GENE_FEATURES if config.data.gene_features else ())]


def window_spec(window: WindowConfig) -> WindowSpec:
    """Window of a configuration."""
    return WindowSpec(**window.model_dump())


def read_inputs(config: RunConfig) -> Inputs:
    """Read and reconcile all inputs, and assign the folds.

    Raises
    ------
    DataMissingError, InputError, SchemaError, ConfigError
        With what was expected, what came and what to do.
    """
    data, root = config.data, Path(config.data.root)
    notes: list[str] = []
    genome = Genome(root / data.genome)
    sizes = genome.chrom_sizes

    genes = read_genes(root / data.genes.path, columns=data.genes.columns)
    names = reconcile(genes["chrom"].unique(), sizes, "genes")
    notes.append(names.report())
    genes = names.rename(genes)
    expression = read_expression(root / data.expression.path, gene_id=data.expression.gene_id,
                                 columns=data.expression.columns, counts_length=data.expression.counts_length,
                                 transform=data.expression.transform)
    if data.gene_features:  # of all genes: one whose expression is not known is a neighbor too
        if taken := [name for name in GENE_FEATURES if name in genes.columns]:
            raise ConfigError(f"data.gene_features would replace the column {taken[0]!r} of the genes; rename it, or "
                              "leave gene_features out and name the columns in covariates")
        genes = pd.concat([genes, gene_features(genes)], axis=1)
    both = genes["gene_id"].isin(list(expression.index)).to_numpy()
    if not both.any():
        raise InputError(f"no gene_id of the {len(genes):,} genes (first: {genes['gene_id'].iloc[0]}) is among the "
                         f"{len(expression):,} rows of expression (first: {expression.index[0]}); "
                         "check data.expression.gene_id and the id version (ENSG… with or without .n)")
    notes.append(f"expression: {int(both.sum()):,} of {len(genes):,} genes have it; "
                 f"{len(expression) - int(both.sum()):,} rows of expression have no gene")
    genes = add_features(genes.loc[both].reset_index(drop=True), config)

    tracks = []
    for track in read_tracks(config):
        renamed, names = track.rename_chroms(sizes)
        if not tracks or names.report().split(":")[1:] != notes[-1].split(":")[1:]:
            notes.append(names.report())
        tracks.append(renamed)
    blacklist = None
    if data.blacklist:
        blacklist = read_bed(root / data.blacklist)
        blacklist = reconcile(blacklist["chrom"].unique(), sizes, "blacklist").rename(blacklist)

    split = config.split
    if split.folds is not None:
        source = root / split.folds.path
        fold = given_folds(genes, read_folds(source, split.folds.column, gene_id=split.folds.gene_id),
                           f"folds {source}, column '{split.folds.column}'")
    else:
        fold = assign_folds(genes, valid=split.valid or [], test=split.test or [], train=split.train)
    reach = max(config.window.half_width, config.window.context_half_width)
    guard = split.guard
    if guard >= 0:
        guard += config.train.max_shift  # a shifted training window must not reach a held-out one either
    fold = apply_guard(gene_windows(genes, reach, config.window.strand_aware), fold, guard)
    counts = fold.value_counts()
    for name in FOLDS:
        if name not in counts:
            raise ConfigError(f"the guard of {guard:,} bp leaves no {name} gene: all {counts['guarded']:,} genes set "
                              f"aside lie too near to held-out windows of {2 * reach:,} bp; hold out whole "
                              "chromosomes, or lower split.guard or the window")
    notes.append("folds: " + ", ".join(f"{counts[f]:,} {f}" for f in ("train", "valid", "test", "guarded", "unused")
                                       if f in counts))
    contacts = None
    if data.contacts is not None:
        contacts = GeneContacts(str(root / data.contacts.path), data.contacts.name, data.contacts.max_missing)
    return Inputs(genome, genes.assign(fold=fold.to_numpy()), expression, tracks, blacklist, notes, contacts)


def build_store(folder: Path, config: RunConfig, inputs: Inputs) -> WindowStore:
    """Build the window store of a configuration from its inputs."""
    return WindowStore.build(folder, inputs.genome, inputs.tracks, inputs.genes, inputs.expression,
                             window_spec(config.window), covariates=covariate_columns(config),
                             blacklist=inputs.blacklist, contacts=inputs.contacts,
                             facts={"name": config.name, "notes": inputs.notes})
