"""Motif discovery on importance whose motifs are known: time, copies and misses, by the number of Leiden runs.

    python benchmarks/modisco.py            # print the tables
    python benchmarks/modisco.py --write    # also write validation/modisco.md

Plants 3 sites of 5 motifs (one a repressor) in each of 1,000 random sequences of 400 bp, on either strand, 9 of 10
bases as in the motif, and gives every base of a site its importance, times a strength of the site, plus noise
everywhere. Each program sees the same. Needs the extra `motifs`.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr
from modiscolite.tfmodisco import TFMoDISco

from ciscribe.interpret.modisco import discover_motifs, merge_patterns
from ciscribe.interpret.patterns import pattern_similarity
from ciscribe.provenance import provenance, write_text
from ciscribe.results import attribution_array
from ciscribe.sequence import encode, one_hot

PAGE = Path(__file__).resolve().parent.parent / "validation" / "modisco.md"
MOTIFS = {"CRE": "TGACGTCA", "TATA": "TATAAAAG", "GATA": "AGATAAGG", "CTCF": "CCAGCAGGGGGC", "REST": "TTCAGCACC"}
REPRESSORS = {"REST"}
N, LENGTH, SITES, CERTAIN = 1_000, 400, 3, 0.9
NOISES = (0.1, 0.3)
LEIDEN_RUNS = (1, 2, 5)
TARGET = 120
RECOVERED = 0.9


def frequencies(word: str) -> np.ndarray:
    ppm = np.full((4, len(word)), (1 - CERTAIN) / 3)
    ppm[encode(word), np.arange(len(word))] = CERTAIN
    return ppm


def planted(noise: float, n: int = N, seed: int = 0) -> tuple[np.ndarray, xr.DataArray]:
    """Codes and their hypothetical importance."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (n, LENGTH), dtype=np.uint8)
    values = rng.normal(0, noise, (n, 4, LENGTH))
    for i in range(n):
        for slot in rng.choice(LENGTH // 20, SITES, replace=False):
            name = str(rng.choice(list(MOTIFS)))
            ppm = frequencies(MOTIFS[name])
            if rng.random() < 0.5:
                ppm = ppm[::-1, ::-1]
            at = slot * 20 + int(rng.integers(0, 21 - ppm.shape[1]))
            codes[i, at:at + ppm.shape[1]] = [rng.choice(4, p=column) for column in ppm.T]
            values[i, :, at:at + ppm.shape[1]] += ((ppm - 0.25) * rng.uniform(0.5, 1.5)
                                                   * (-1 if name in REPRESSORS else 1))
    return codes, attribution_array(values[..., None], "planted", units="planted")


def judge(ppms: list[np.ndarray]) -> dict[str, object]:
    """How many patterns there are, how many planted motifs are among them, and how alike the best of each is."""
    best, nearest = dict.fromkeys(MOTIFS, 0.0), Counter()
    for ppm in ppms:
        fits = {name: pattern_similarity(ppm - 0.25, frequencies(word) - 0.25).similarity
                for name, word in MOTIFS.items()}
        name = max(fits, key=fits.__getitem__)
        best[name] = max(best[name], fits[name])
        nearest[name] += 1
    return {"patterns": len(ppms), "copies": sum(n - 1 for n in nearest.values()),
            "recovered": sum(fit > RECOVERED for fit in best.values()), "lowest": min(best.values())}


def timed(run: Callable[[], list]) -> tuple[list, float]:
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


def library(codes: np.ndarray, attributions: xr.DataArray, runs: int) -> list[np.ndarray]:
    """Frequencies of the patterns of modisco-lite's own pipeline."""
    X, values = (np.ascontiguousarray(a.transpose(0, 2, 1), dtype=np.float32)
                 for a in (one_hot(codes), attributions.values[..., 0]))
    return [p.sequence.T for sign in TFMoDISco(X, values, n_leiden_runs=runs) for p in sign or []]


def measure(noise: float) -> list[list[str]]:
    """Rows of one table."""
    codes, attributions = planted(noise)
    rows = []

    def row(name: str, ppms: list[np.ndarray], merged: list[np.ndarray] | None, seconds: float) -> None:
        before, after = judge(ppms), judge(ppms if merged is None else merged)
        rows.append([name, f"{seconds:.0f}", str(before["patterns"]), str(before["copies"]),
                     "" if merged is None else str(after["patterns"]), f"{after['recovered']} of {len(MOTIFS)}",
                     f"{after['lowest']:.3f}"])
        print(noise, " | ".join(rows[-1]), flush=True)

    found, seconds = timed(lambda: library(codes, attributions, 2))
    row("modisco-lite alone, 2 runs", found, None, seconds)
    for engine, runs in [("clusters", 0), *(("modisco", n) for n in LEIDEN_RUNS)]:
        found, seconds = timed(lambda e=engine, n=runs: discover_motifs(
            codes, attributions, engine=e, n_leiden_runs=max(n, 1), merge=2))
        merged, extra = timed(lambda p=found: merge_patterns(p, codes, attributions))
        name = f"`{engine}`" + (f", {runs} run{'s' if runs > 1 else ''}" if runs else "")
        row(name, [p.motif.ppm for p in found], [p.motif.ppm for p in merged], seconds + extra)
    return rows


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page() -> str:
    load = os.getloadavg()[0]
    codes, attributions = planted(NOISES[0], n=59)
    discover_motifs(codes, attributions, min_seqlets=5)  # kernels are compiled here
    header = ["", "seconds", "patterns", "of which copies", "after merging", "motifs recovered", "lowest similarity"]
    parts = [f"## Noise {noise}\n\n{table(header, measure(noise))}\n" for noise in NOISES]
    record = provenance()
    return f"""# Motif discovery: time and patterns

Written by `benchmarks/modisco.py --write` ({record["created"]}, {record["platform"]}, Python {record["python"]},
modisco-lite {version("modisco-lite")}; load {load:.1f} on {os.cpu_count()} cores at the start\
{"; other work was running, so that times are too long and uneven" if load > 0.5 else ""}). One run of each.
{N:,} sequences of {LENGTH} bp, {SITES} sites of {len(MOTIFS)} motifs in each; a base that fits adds 0.65 times the
strength of its site, 0.5 to 1.5, and every base has noise of the standard deviation given. Target: done within {TARGET}
seconds, every motif recovered (cosine of frequencies above {RECOVERED}). The library's own default is 50 Leiden runs.

A copy is a second pattern of the same motif. `merge_patterns` joins patterns whose contribution weight matrices have a
cosine of 0.9 or more; its time is counted.

{chr(10).join(parts)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}")
    chosen = parser.parse_args()
    text = page()
    print("\n" + text)
    if chosen.write:
        write_text(PAGE, text)


if __name__ == "__main__":
    main()
