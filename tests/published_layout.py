"""The public data of Seq2Exp and EPInformer in small: the same files, folders, columns, keys and order of tracks.

Four chromosomes of a few kb, 42 genes, windows of a few hundred bp. Expression follows DNase around the TSS, so that a
training has something to find. Names are those of divelab/AIRS (OpenBio/Seq2Exp) and pinellolab/EPInformer.
"""

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ciscribe.io.genome import write_fasta
from ciscribe.io.tracks import Runs, Track, write_bigwig
from ciscribe.sequence import one_hot

SIZES = {"chr1": 6007, "chr2": 4001, "chr3": 3001, "chrX": 2003}
N_GENES = {"chr1": 19, "chr2": 7, "chr3": 5, "chrX": 11}
FOLD = {"chr1": "train", "chr2": "valid", "chr3": "test", "chrX": "train"}
HALF = 131  # bp on each side of the TSS that the Hi-C files cover
BIN = 37  # of the Hi-C map
ABC = {"K562": "K562_DNase_ENCFF257HEE_hic_4DNFITUOMFUQ_1MB_ABC_nominated/DNase_ENCFF257HEE_Neighborhoods",
       "GM12878": "GM12878_DNase_ENCFF020WZB_hic_4DNFI1UEG1HD_1MB_ABC_nominated/DNase_ENCFF020WZB_Neighborhoods"}
BIGWIGS = {"K562": ("H3K27ac/K562/ENCFF465GBD.bigWig", "DNase-seq/K562/ENCFF414OGC.bigWig"),
           "GM12878": ("H3K27ac/GM12878/ENCFF798KYP.bigWig", "DNase-seq/GM12878/ENCFF960FMM.bigWig")}
SEGMENTS = {"K562": "K562_DNase_ENCFF257HEE_2kb_4DNFITUOMFUQ_enhancer_promoter_encoding.h5",
            "GM12878": "GM12878_DNase_ENCFF020WZB_2kb_4DNFI1UEG1HD_promoter_enhancer_encoding.h5"}
EXPRESSION = "GM12878_K562_18377_gene_expr_fromXpresso.csv"
FOLDS = "leave_chrom_out_crossvalidation_split_18377genes.csv"
MRNA = ["UTR5LEN_log10zscore", "CDSLEN_log10zscore", "INTRONLEN_log10zscore", "UTR3LEN_log10zscore", "UTR5GC", "CDSGC",
        "UTR3GC", "ORFEXONDENSITY"]
N_SEGMENTS, LENGTH = 7, 53  # slots a gene (the promoter first) and bp a slot; 61 and 2,000 as published


def make_genome(seed=0):
    rng = np.random.default_rng(seed)
    return {c: rng.integers(0, 4, n).astype(np.uint8) for c, n in SIZES.items()}


def make_track(name, seed, scale):
    rng = np.random.default_rng(seed)
    runs = {}
    for chrom, size in SIZES.items():
        borders = np.r_[0, np.unique(rng.integers(1, size, size // 23)), size]
        value = rng.gamma(0.6, scale, len(borders) - 1)
        some = rng.random(len(value)) < 0.7
        runs[chrom] = Runs(borders[:-1][some].astype(np.int32), borders[1:][some].astype(np.int32),
                           value[some].astype(np.float32))
    return Track(name, runs, chrom_sizes=dict(SIZES))


def dense(track):
    """One number a base."""
    out = {}
    for chrom, size in SIZES.items():
        out[chrom] = np.zeros(size, np.float32)
        for start, end, value in zip(*track.runs[chrom], strict=True):
            out[chrom][start:end] = value
    return out


def make_genes(seed=1):
    """Genes as the ABC pipeline lists them; the first and last of a chromosome sit on its ends."""
    rng = np.random.default_rng(seed)
    rows = []
    for chrom, size in SIZES.items():
        tss = np.sort(rng.choice(np.arange(40, size - 40), N_GENES[chrom], replace=False))
        tss[0], tss[-1] = 29, size - 31
        for i, t in enumerate(map(int, tss)):
            start, end = (t, t + 30) if i % 2 == 0 else (t - 29, t)  # on − the list calls the end of the gene its TSS
            rows.append((chrom, start, end, f"ENSG{len(rows):011d}", 0, "+-"[i % 2], t))
    genes = pd.DataFrame(rows, columns=["chr", "start", "end", "name", "score", "strand", "tss"])
    genes["symbol"] = genes["name"]
    for name in ("H3K27ac.RPM.TSS1Kb", "DHS.RPM.TSS1Kb"):
        genes[name] = rng.gamma(2.0, 3.0, len(genes))
    return genes


def contact(chrom, tss, half=HALF):
    """As the published files hold it: constant over bins of the map, 0 off the chromosome."""
    p = np.arange(tss - half, tss + half)
    values = 17.0 / (1 + np.abs(p // BIN - tss // BIN)) + 0.03
    return np.where((p >= 0) & (p < SIZES[chrom]), values, 0.0)


def write_hic(folder, genes, half=HALF):
    folder.mkdir(parents=True, exist_ok=True)
    for chrom, own in genes.groupby("chr"):
        with h5py.File(folder / f"hic_feat_{chrom}.h5", "w") as file:
            for tss in own["tss"].unique():
                file.create_dataset(f"{chrom}_{tss}", data=contact(chrom, tss, half).tolist())


def write_segments(path, genes, seed=5):
    """Promoter and up to six candidates a gene, some shorter than their slot, one beyond 100 kb, some contacts NaN."""
    rng = np.random.default_rng(seed)
    n = len(genes)
    codes = rng.integers(0, 4, (n, N_SEGMENTS, LENGTH)).astype(np.uint8)
    distance = np.sort(rng.integers(1_001, 90_000, (n, N_SEGMENTS)), axis=1).astype(float)
    distance[:, 0] = 0
    distance[3, N_SEGMENTS - 1] = 100_003
    activity, hic = rng.gamma(2.0, 3.0, (n, N_SEGMENTS)), rng.gamma(1.0, 0.1, (n, N_SEGMENTS))
    hic[rng.random(hic.shape) < 0.1] = np.nan
    for i in range(n):
        free = 1 + int(rng.integers(1, N_SEGMENTS))
        codes[i, free:] = 4
        for table in (distance, activity, hic):
            table[i, free:] = 0
        codes[i, 1, :5] = codes[i, 1, -5:] = 4
    distance[3], activity[3], hic[3], codes[3] = [0, 2000, 3000, 4000, 5000, 6000, 100_003], 3.0, 0.5, codes[3] % 4
    with h5py.File(path, "w") as file:
        file["ensid"] = genes["name"].to_numpy("S")
        file["pe_code"] = one_hot(codes.reshape(n * N_SEGMENTS, LENGTH)).transpose(0, 2, 1).reshape(
            n, N_SEGMENTS, LENGTH, 4).astype(float)
        for name, table in (("distance", distance), ("activity", activity), ("hic", hic)):
            file[name] = table


def write(folder, cell="K562", seed=2):
    """Everything under `folder`, as a download would leave it; returns the genes."""
    folder = Path(folder)
    inter = folder / "promo_enhan_inter"
    for place in ("hg38", *(Path("promo_enhan_inter", b).parent for b in BIGWIGS[cell]),
                  Path("promo_enhan_inter", ABC[cell])):
        (folder / place).mkdir(parents=True, exist_ok=True)
    write_fasta(folder / "hg38" / "hg38.ml.fa", make_genome())
    genes = make_genes()
    genes.to_csv(inter / ABC[cell] / "GeneList.txt", sep="\t", index=False)
    h3k27ac, dnase = make_track("h3k27ac", 3, 2.0), make_track("dnase", 4, 1.0)
    for name, track in zip(BIGWIGS[cell], (h3k27ac, dnase), strict=True):
        write_bigwig(inter / name, track, SIZES)
    write_hic(inter / "HiC" / cell, genes)
    (folder / "hg38-blacklist.bed.gz").write_bytes(gzip.compress(b"chr1\t0\t83\tlow\nchr1\t901\t1013\tlow\n"))
    rng = np.random.default_rng(seed)
    around = dense(dnase)
    level = np.array([around[c][max(0, t - 100):t + 100].mean() for c, t in zip(genes["chr"], genes["tss"],
                                                                              strict=True)])
    table = pd.DataFrame({"ENSID": genes["name"], "Gene name": [f"gene, {i}" for i in range(len(genes))]})
    for name in MRNA:
        table[name] = rng.normal(size=len(genes))
    table["Actual_K562"] = rng.normal(size=len(genes))
    for name in ("K562", "GM12878"):
        table[f"{name}_CAGE_128*3_sum"] = 30 * level + rng.random(len(genes))
    table.sample(frac=1, random_state=0).to_csv(inter / EXPRESSION, index=False)
    folds = pd.DataFrame({"ENSID": genes["name"], "chrom": genes["chr"].str.removeprefix("chr")})
    for i in range(1, 13):
        folds[f"fold_{i}"] = "train"
    folds["fold_11"] = genes["chr"].map(FOLD)
    folds["Gene name"] = table["Gene name"]
    folds.to_csv(inter / FOLDS, index=False)
    write_segments(inter / SEGMENTS[cell], genes)
    return genes
