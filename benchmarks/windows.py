"""Windows of sequence and signal per second: per-window pyfaidx + pyBigWig, tangermeme, and ours.

    python benchmarks/windows.py            # print
    python benchmarks/windows.py --write    # also write validation/windows.md

Makes a genome of 50 Mb and a bigWig of about 2.16 million intervals in a temporary folder (fixed seed), then
cuts the same 10,000 random windows of 2,048 bp out of them with each program, by turns, and checks that all get
the same bytes: one-hot int8 (B, 4, L) and signal float32 (B, 1, L) at 1 bp. Needs the extra `bench`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyBigWig
import pyfaidx
import torch
from tangermeme.io import extract_loci

from ciscribe.data.windows import WindowSpec, WindowStore
from ciscribe.io.genome import Genome, write_fasta
from ciscribe.io.tracks import Runs, Track, read_bigwig, write_bigwig
from ciscribe.provenance import provenance, write_text
from ciscribe.sequence import one_hot

PAGE = Path(__file__).resolve().parent.parent / "validation" / "windows.md"
CHROM_SIZES = {f"chr{i}": 10_000_000 for i in range(1, 6)}
N_INTERVALS = 2_160_000
N_WINDOWS = 10_000
WIDTH = 2_048
STEP = 256  # windows that ours cuts at once, as a training step would
ROUNDS = 3
BY_HAND = "pyfaidx + pyBigWig, window by window"
PEER = "tangermeme extract_loci"
PEER_ONE = "tangermeme extract_loci, n_jobs=1"
OURS = "ciscribe, step by step"
OURS_KEPT = "ciscribe, all windows kept"
TARGETS = {BY_HAND: 10, PEER: 3}

Windows = tuple[np.ndarray, np.ndarray]


def make_inputs(folder: Path, seed: int = 0) -> pd.DataFrame:
    """Write genome.fa and signal.bw; return the windows (chrom, start, end), unsorted, all on the chromosomes."""
    rng = np.random.default_rng(seed)
    write_fasta(folder / "genome.fa", {c: rng.integers(0, 4, n, dtype=np.uint8) for c, n in CHROM_SIZES.items()})
    runs = {}
    for chrom, size in CHROM_SIZES.items():
        borders = np.unique(rng.integers(0, size, int(1.14 * 2 * N_INTERVALS / len(CHROM_SIZES))))
        borders = np.sort(rng.permutation(borders)[: 2 * (N_INTERVALS // len(CHROM_SIZES))]).astype(np.int32)
        value = rng.gamma(0.7, 3.0, len(borders) // 2).astype(np.float32)
        runs[chrom] = Runs(borders[::2], borders[1::2], value)
    write_bigwig(folder / "signal.bw", Track("signal", runs), CHROM_SIZES)
    chrom = rng.choice(list(CHROM_SIZES), N_WINDOWS)
    start = rng.integers(0, min(CHROM_SIZES.values()) - WIDTH, N_WINDOWS)
    return pd.DataFrame({"chrom": chrom, "start": start, "end": start + WIDTH})


def by_hand(folder: Path, windows: pd.DataFrame) -> Callable[[], Windows]:
    """Read each window from the two files, as a plain data set class does; the files are open."""
    fasta = pyfaidx.Fasta(str(folder / "genome.fa"), as_raw=True, sequence_always_upper=True)
    signal = pyBigWig.open(str(folder / "signal.bw"))
    table = np.zeros((256, 4), dtype=np.int8)
    table[[ord(c) for c in "ACGT"], range(4)] = 1
    rows = list(windows.itertuples(index=False, name=None))

    def run() -> Windows:
        X = np.empty((len(rows), 4, WIDTH), dtype=np.int8)
        S = np.empty((len(rows), 1, WIDTH), dtype=np.float32)
        for i, (chrom, start, end) in enumerate(rows):
            X[i] = table[np.frombuffer(fasta[chrom][start:end].encode(), np.uint8)].T
            S[i, 0] = np.nan_to_num(signal.values(chrom, start, end, numpy=True))
        return X, S

    return run


def peer(folder: Path, windows: pd.DataFrame, n_jobs: int) -> Callable[[], Windows]:
    """Read all windows in one call, the peer's fastest form; its .fai index is there."""
    def run() -> Windows:
        X, S = extract_loci(windows, str(folder / "genome.fa"), signals=[str(folder / "signal.bw")], in_window=WIDTH,
                            out_window=WIDTH, n_jobs=n_jobs)
        return X.numpy(), S.numpy()

    return run


def steps(store: WindowStore) -> Iterator[tuple[np.ndarray, Windows]]:
    """Cut the windows from the memory-mapped store, a step of rows at a time."""
    for i in range(0, len(store), STEP):
        rows = np.arange(i, min(i + STEP, len(store)))
        yield rows, (one_hot(store.read_codes(rows)), store.read_signals(rows))


def ours(store: WindowStore) -> Callable[[], None]:
    """Make every step and let go of it, as a training does."""
    def run() -> None:
        for _ in steps(store):
            pass

    return run


def ours_kept(store: WindowStore) -> Callable[[], Windows]:
    """Collect all steps in two arrays, as the peers return them."""
    def run() -> Windows:
        X = np.empty((len(store), 4, WIDTH), dtype=np.int8)
        S = np.empty((len(store), 1, WIDTH), dtype=np.float32)
        for rows, (x, s) in steps(store):
            X[rows[0]:rows[-1] + 1], S[rows[0]:rows[-1] + 1] = x, s
        return X, S

    return run


def build(folder: Path, windows: pd.DataFrame) -> WindowStore:
    """Read both files and build the store: the windows are those of genes whose TSS is in the middle."""
    middle = windows["start"] + WIDTH // 2
    ids = [f"w{i}" for i in range(len(windows))]
    genes = pd.DataFrame({"chrom": windows["chrom"], "start": middle, "end": middle + 1, "strand": "+",
                          "gene_id": ids, "gene_name": ids, "tss": middle, "fold": "train"})
    expression = pd.DataFrame({"none": 0.0}, index=pd.Index(ids, name="gene_id"))
    return WindowStore.build(folder / "store", Genome(folder / "genome.fa"), [read_bigwig(folder / "signal.bw")],
                             genes, expression, WindowSpec(WIDTH // 2, 1, transform="none"))


def differences(results: dict[str, Windows]) -> list[str]:
    """Say where a program's windows differ from ours; empty when all agree to the last bit."""
    X, S = results[OURS_KEPT]
    found = []
    for name, (theirs, signal) in results.items():
        if theirs.dtype != np.int8 or not np.array_equal(X, theirs):
            found.append(f"{name}: sequences differ")
        if signal.shape != S.shape or not np.array_equal(S, signal):
            found.append(f"{name}: signals differ")
    return found


def measure(folder: Path) -> str:
    """Measure everything; return the page."""
    load = os.getloadavg()[0]
    windows = make_inputs(folder)
    pyfaidx.Faidx(str(folder / "genome.fa"))  # the index that all three read
    start = time.perf_counter()
    store = build(folder, windows)
    build_seconds = time.perf_counter() - start
    size = sum(f.stat().st_size for f in (folder / "store").iterdir())
    programs = {BY_HAND: by_hand(folder, windows), PEER: peer(folder, windows, 4), PEER_ONE: peer(folder, windows, 1),
                OURS_KEPT: ours_kept(store), OURS: ours(store)}
    results = {name: run() for name, run in programs.items()}  # warms up: compiled code, page cache
    wrong = differences({name: found for name, found in results.items() if found is not None})
    if wrong:
        raise SystemExit("the programs do not agree: " + "; ".join(wrong))
    del results
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, run in programs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    lines = []
    for name, value in median.items():
        target = f"≥ {TARGETS[name]}" if name in TARGETS else ""
        ratio = "" if name in (OURS, OURS_KEPT) else f"{value / median[OURS]:.1f}"
        lines.append(f"| {name} | {value:.2f} | {len(windows) / value:,.0f} | {ratio} | {target} |")
    record = provenance()
    return "\n".join([
        "# Windows per second beside pyfaidx + pyBigWig and tangermeme",
        "",
        f"Written by `benchmarks/windows.py --write` ({record['created']}, {record['platform']},",
        f"Python {record['python']}, pyfaidx {version('pyfaidx')}, pyBigWig {version('pyBigWig')}, tangermeme "
        f"{version('tangermeme')}; load {load:.1f} on {os.cpu_count()} cores at the start).",
        f"{len(windows):,} random windows of {WIDTH:,} bp from a genome of {sum(CHROM_SIZES.values()):,} bp and a "
        f"bigWig of {N_INTERVALS:,} intervals; every program",
        "makes the same one-hot int8 (B, 4, L) and float32 (B, 1, L) at 1 bp (checked, equal to the last bit). The "
        f"programs take turns, medians of {ROUNDS}",
        f"runs after one to warm up. tangermeme runs on 4 threads (its default) and on 1, all windows in one call. "
        f"Ours runs on one thread and makes {STEP}",
        "windows a step; a training lets go of each step, which saves the memory traffic of keeping all of them.",
        "",
        "| program | s | windows/s | ours, step by step, is faster by | target |",
        "| --- | --- | --- | --- | --- |",
        *lines,
        "",
        f"Ours first builds its store, once a data set: {build_seconds:.1f} s here, {size / 2**20:.0f} MB "
        f"({build_seconds / median[OURS]:.0f} times one pass over the windows).",
        ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        page = measure(Path(folder))
    print(page)
    if chosen.write:
        write_text(PAGE, page)


if __name__ == "__main__":
    main()
