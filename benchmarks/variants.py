"""Variants a second of a network of DeepSEA's size, from VCF to table, and the memory it takes.

    python benchmarks/variants.py            # print
    python benchmarks/variants.py --write    # also write validation/variants_speed.md
    python benchmarks/variants.py --quick    # few variants, to see that it works

Makes a genome of 8 Mb and VCF files in a temporary folder (fixed seed). Every row is a process of its own that reads
the bgzipped VCF in chunks, checks REF against the FASTA, scores all 919 tracks and makes the tables; loading the model
and one small chunk come before the clock starts. Weights are random, which changes nothing here.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ciscribe.io.genome import Genome, write_fasta
from ciscribe.io.variants import iter_vcf, write_vcf
from ciscribe.models.deepsea import PRESETS, DeepSEA
from ciscribe.oracle import Oracle
from ciscribe.provenance import provenance, write_text
from ciscribe.sequence import decode
from ciscribe.variants.alleles import check_reference
from ciscribe.variants.score import iter_scores

PAGE = Path(__file__).resolve().parent.parent / "validation" / "variants_speed.md"
SIZE, LENGTH, THREADS, CHUNK = 8_000_000, 1_000, 2, 2_048
GFLOP = 1.1  # of one prediction of 1,000 bp: 549 million multiply-adds, nearly all in the convolutions
SETS = {"sparse": "one SNV every 1,999 bp", "dense": "one SNV every 30 bp", "locus": "all three SNVs of every base"}


def positions(name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a set, and by how much the base moves on (A → C → G → T → A)."""
    row = np.arange(n)
    if name == "locus":
        return 5_000 + row // 3, row % 3 + 1
    return 5_000 + row * (1_999 if name == "sparse" else 30) % (SIZE - 10_000), row % 3 + 1


def make_inputs(folder: Path, sizes: dict[str, int], seed: int = 0) -> None:
    """Write genome.fa and a bgzipped VCF of each set."""
    codes = np.random.default_rng(seed).integers(0, 4, SIZE, dtype=np.uint8)
    write_fasta(folder / "genome.fa", {"chr1": codes})
    for name, n in sizes.items():
        pos, step = positions(name.partition(".")[0], n)
        ref, alt = codes[pos], (codes[pos] + step.astype(np.uint8)) % 4
        write_vcf(folder / f"{name}.vcf.gz", pd.DataFrame({"chrom": "chr1", "pos": pos, "ref": list(decode(ref)),
                                                           "alt": list(decode(alt)), "name": "."}), {"chr1": SIZE})


def chunks(path: Path) -> Iterator[pd.DataFrame]:
    """Variants of a VCF, some at a time."""
    for piece in iter_vcf(path, chunk=CHUNK):
        yield piece.variants


def work(folder: Path, name: str, network: str, snap: int, both_strands: bool) -> dict[str, Any]:
    """What one process does and measures; network ``none`` reads and checks only."""
    torch.set_num_threads(THREADS)
    genome, path = Genome(folder / "genome.fa"), folder / f"{name}.vcf.gz"
    n_variants = n_rows = 0
    if network == "none":
        start = time.perf_counter()
        for variants in chunks(path):
            n_variants += check_reference(variants, genome).tally["kept"]
    else:
        torch.manual_seed(0)
        model = DeepSEA(length=LENGTH, **(PRESETS["cpu"] if network == "small" else {}))
        oracle = Oracle(model, device="cpu")
        options: dict[str, Any] = {"length": LENGTH, "snap": snap, "both_strands": both_strands}
        few = next(chunks(path)).iloc[:8]
        for _ in iter_scores(oracle, genome, [few], **options):
            pass
        start = time.perf_counter()
        for table in iter_scores(oracle, genome, chunks(path), **options):
            n_rows += len(table)
        n_variants = n_rows // 919
    seconds = time.perf_counter() - start
    return {"n": n_variants, "seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}


def measure(folder: Path, name: str, network: str = "full", snap: int = 1, both_strands: bool = True) -> dict[str, Any]:
    """Run `work` in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--name", name, "--network", network,
               "--snap", str(snap)] + ([] if both_strands else ["--one-strand"])
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def gflops() -> float:
    """What the machine reaches in the middle convolution of the network."""
    torch.set_num_threads(THREADS)
    X, conv = torch.randn(64, 320, 248), torch.nn.Conv1d(320, 480, 8)
    best = 0.0
    with torch.inference_mode():
        for _ in range(5):
            start = time.perf_counter()
            conv(X)
            best = max(best, 2 * 64 * 241 * 320 * 480 * 8 / (time.perf_counter() - start) / 1e9)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--network", choices=("full", "small", "none"), default="full")
    parser.add_argument("--snap", type=int, default=1)
    parser.add_argument("--one-strand", action="store_true")
    given = parser.parse_args()
    if given.folder is not None:
        print(json.dumps(work(given.folder, given.name, given.network, given.snap, not given.one_strand)))
        return
    share = 20 if given.quick else 1
    sizes = {"sparse": 120, "dense": 600, "locus": 3_000, "dense.4k": 4_000, "dense.16k": 16_000,
             "sparse.200k": 200_000}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder, {name: n // share for name, n in sizes.items()})
        rows = []
        for name, snap in (("sparse", 1), ("dense", 1), ("dense", 64), ("locus", 1), ("locus", 64)):
            for both in (True, False):
                one = measure(folder, name, snap=snap, both_strands=both)
                rows.append([SETS[name], "centered" if snap == 1 else f"at most {snap // 2} bp off",
                             "both" if both else "one", f"{one['n']:,}", f"{one['n'] / one['seconds']:,.0f}",
                             f"{one['peak']:,.0f}"])
        read = measure(folder, "sparse.200k", "none")
        memory = {n: measure(folder, f"dense.{n}", "small", 64, False) for n in ("4k", "16k")}
    rate = gflops()
    header = ["variants", "in their window", "strands", "n", "variants/s", "peak MiB"]
    lines = ["| " + " | ".join(row) + " |" for row in [header, *rows]]
    lines.insert(1, "|---|---|---|---:|---:|---:|")
    facts = provenance()
    text = "\n".join([
        "# Variants a second", "", "Written by `python benchmarks/variants.py --write`. DeepSEA with its published "
        f"sizes (52.8 million parameters, {LENGTH:,} bp, 919 tracks), {THREADS} threads of a CPU, from the bgzipped "
        "VCF over the check of REF to the table of all tracks.", "", *lines, "",
        f"Reading and checking alone: {read['n'] / read['seconds']:,.0f} variants/s.", "",
        f"Memory: {memory['4k']['n']:,} variants take {memory['4k']['peak']:,.0f} MiB at most, "
        f"{memory['16k']['n']:,} take {memory['16k']['peak']:,.0f} MiB (small preset of the network, snap=64).", "",
        f"What has to be computed: a window costs {GFLOP} GFLOP on each strand, and the difference that a substitution "
        f"makes about 0.06. The machine reaches {rate:,.0f} GFLOP/s in the widest convolution, so where every variant "
        f"has a window of its own no more than {rate / GFLOP:,.0f} a second can be scored on one strand and "
        f"{rate / GFLOP / 2:,.0f} on both, whatever the program; variants that share windows (`snap`, or alleles of "
        f"one position) are bound by their differences: {rate / 0.06:,.0f} and {rate / 0.12:,.0f}.", "",
        f"{facts['platform']}, Python {facts['python']}, PyTorch {torch.__version__}.", ""])
    print(text)
    if given.write:
        write_text(PAGE, text)


if __name__ == "__main__":
    main()
