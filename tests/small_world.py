"""A genome of a few kb, in memory and as files: genes on both strands and at both ends, N, two tracks, a blacklist.

Expression follows the signal around the TSS, so that a training has something to find.
"""

import numpy as np
import pandas as pd
import yaml

from ciscribe.data.windows import WindowSpec, WindowStore
from ciscribe.io.bed import write_bed
from ciscribe.io.genome import Genome, write_fasta
from ciscribe.io.tracks import Runs, Track, write_bigwig
from ciscribe.sequence import decode

SIZES = {"chr1": 6007, "chr2": 4001, "chr3": 3001}
FOLD = {"chr1": "train", "chr2": "valid", "chr3": "test"}
CELLS = ("liver", "blood", "skin")


def make_genome(seed=0):
    rng = np.random.default_rng(seed)
    genome = {c: rng.integers(0, 4, n).astype(np.uint8) for c, n in SIZES.items()}
    for codes in genome.values():
        for at in rng.integers(0, len(codes) - 11, 5):
            codes[at:at + 11] = 4
    return genome


def make_track(name, seed, sizes=SIZES):
    """Runs of uneven length with gaps between some; whole numbers over 8, so that sums of bins are exact."""
    rng = np.random.default_rng(seed)
    runs = {}
    for chrom, size in sizes.items():
        borders = np.r_[0, np.unique(rng.integers(1, size, size // 19)), size]
        value = rng.gamma(0.6, 24.0, len(borders) - 1).round() / 8 * (rng.random(len(borders) - 1) < 0.7)
        some = value > 0
        runs[chrom] = Runs(borders[:-1][some].astype(np.int32), borders[1:][some].astype(np.int32),
                           value[some].astype(np.float32))
    return Track(name, runs, chrom_sizes=dict(sizes))


def dense(track, sizes=SIZES):
    """One number a base."""
    out = {}
    for chrom, size in sizes.items():
        out[chrom] = [0.0] * size
        for start, end, value in zip(*track.runs[chrom], strict=True):
            for p in range(start, end):
                out[chrom][p] = float(value)
    return out


def make_genes(n_per_chrom=(19, 7, 5), seed=1):
    """First and last gene of each chromosome sit on its ends."""
    rng = np.random.default_rng(seed)
    rows = []
    for (chrom, size), n in zip(SIZES.items(), n_per_chrom, strict=True):
        tss = np.sort(rng.choice(np.arange(40, size - 40), n, replace=False))
        tss[0], tss[-1] = 2, size - 3
        for i, t in enumerate(tss):
            strand = "+-"[i % 2]
            lo, hi = (t, min(t + 31, size)) if strand == "+" else (max(t - 30, 0), t + 1)
            rows.append((chrom, int(lo), int(hi), strand, f"{chrom}g{i}", f"name{len(rows)}", int(t), FOLD[chrom],
                         float(rng.normal(5, 2))))
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "strand", "gene_id", "gene_name", "tss", "fold", "gc"])


def make_expression(genes, track, reach=160, seed=2):
    """Log of the mean signal around the TSS, with a slope of its own in each cell."""
    values = dense(track)
    rng = np.random.default_rng(seed)
    level = [np.log1p(np.mean(values[c][max(0, t - reach):t + reach])) for c, t in zip(genes["chrom"], genes["tss"],
                                                                                     strict=True)]
    table = {cell: 0.5 + (i + 1) * np.array(level) / 2 + rng.normal(0, 0.01, len(genes)) ** 2
             for i, cell in enumerate(CELLS)}
    return pd.DataFrame(table, index=pd.Index(genes["gene_id"], name="gene_id"))


BLACKLIST = pd.DataFrame({"chrom": ["chr1", "chr1", "chr1", "chr3"], "start": [0, 901, 950, 2903],
                          "end": [83, 1013, 1100, 3001]})


def build(folder, spec=None, *, tracks=None, genes=None, expression=None, blacklist=None, covariates=()):
    """A store in `folder`/store, from files where it takes files."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "genome.fa").exists():
        write_fasta(folder / "genome.fa", make_genome())
    tracks = [make_track("atac", 3), make_track("mark", 4)] if tracks is None else tracks
    genes = make_genes() if genes is None else genes
    expression = make_expression(genes, make_track("atac", 3)) if expression is None else expression
    return WindowStore.build(folder / "store", Genome(folder / "genome.fa"), tracks, genes, expression,
                             spec or WindowSpec(112, 16), covariates=covariates, blacklist=blacklist)


def letters():
    return {c: decode(codes) for c, codes in make_genome().items()}


def write_inputs(folder, n_per_chrom=(19, 7, 5)):
    """Everything as files, and a configuration that trains in a second; returns the dictionary."""
    folder.mkdir(parents=True, exist_ok=True)
    write_fasta(folder / "genome.fa", make_genome())
    genes = make_genes(n_per_chrom)
    atac, mark = make_track("atac", 3), make_track("mark", 4)
    genes.drop(columns="fold").to_csv(folder / "genes.tsv", sep="\t", index=False)
    make_expression(genes, atac).to_csv(folder / "expression.tsv", sep="\t")
    for track in (atac, mark):
        write_bigwig(folder / f"{track.name}.bw", track, SIZES)
    write_bed(folder / "blacklist.bed", BLACKLIST)
    return {
        "name": "small", "seed": 5,
        "data": {"root": str(folder), "genome": "genome.fa", "genes": {"path": "genes.tsv"},
                 "expression": {"path": "expression.tsv"},
                 "tracks": [{"name": "atac", "bigwig": "atac.bw"}, {"name": "mark", "bigwig": "mark.bw"}],
                 "blacklist": "blacklist.bed"},
        "window": {"half_width": 112, "resolution": 16},
        "split": {"valid": ["chr2"], "test": ["chr3"]},
        "model": {"name": "seq2exp", "arguments": {"d_model": 8, "n_layers": 1, "d_state": 2, "expand": 1,
                                                   "stem_channels": 4, "include_bp": 32, "center_bp": 32}},
        "train": {"epochs": 1, "batch_size": 7, "device": "cpu", "n_threads": 1},
    }


def write_yaml(path, raw):
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path
