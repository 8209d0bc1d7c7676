"""Peaks of one signal track: the classical way to propose regulatory elements, and the baseline of ours.

One function, `call_peaks`, for two callers that answer the same question — where is the signal higher than
its neighbourhood explains? — on the same pseudo-counts and the same local background: MACS3 where it is
installed, and a small Poisson caller of our own elsewhere. It reads any step function (bigWig, bedGraph), not
reads, so the fragment model of MACS has no part in it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import gammainc, gammaln, hyp1f1

from ciscribe.card import Card
from ciscribe.errors import DependencyError, InputError, SchemaError
from ciscribe.intervals import runs
from ciscribe.io.bed import NARROWPEAK_COLUMNS, read_narrowpeak
from ciscribe.io.tracks import Runs, Track, bin_means, write_bedgraph

LOCAL_CARD = Card(
    name="local-lambda",
    kind="elements",
    summary="Calls peaks where a signal exceeds what a Poisson background of its neighbourhood explains.",
    paper="Zhang et al., Genome Biology 2008, doi:10.1186/gb-2008-9-9-r137 (MACS)",
    differences=(
        "Reads a continuous track in bins instead of aligned reads, scaled to pseudo-counts by the noise of "
        "its own background.",
        "The local background is the larger of the genome mean and the mean of the 10 kb around the bin, both of the "
        "track itself, as MACS does without a control.",
        "The Poisson tail is continued to counts that are not whole by the incomplete gamma function.",
    ),
    n_policy="uncovered bases have signal 0",
)
MACS3_CARD = Card(
    name="macs3",
    kind="elements",
    summary="Calls peaks with MACS3 on the scored signal track.",
    paper="Zhang et al., Genome Biology 2008, doi:10.1186/gb-2008-9-9-r137 (MACS)",
    code="macs3-project/MACS, the installed release: macs3 bdgcmp -m qpois, macs3 bdgpeakcall",
    licence="MACS3 is BSD-3-Clause and is called as a program",
    differences=("Treatment and local background are our pseudo-counts and λ (see local-lambda); MACS3 "
                 "scores them, corrects for multiple tests and joins the peaks.",),
    n_policy="uncovered bases have signal 0",
)

LOCAL_BP = 10_000  # MACS without a control looks at no closer neighbourhood: the peak itself would fill it
NOISE_LAG_BP = 500  # further apart than a fragment, so that the noise of the two bins is independent
MAX_BACKGROUND = 100.0  # pseudo-counts; beyond it every ripple of a smooth track would be significant


def call_peaks(track: Track, chrom_sizes: Mapping[str, int] | None = None, *,
               method: Literal["auto", "macs3", "local"] = "auto", resolution: int = 25, q: float = 0.05,
               min_length: int = 100, max_gap: int = 50, scale: float | None = None) -> pd.DataFrame:
    """Peaks of a signal track against its local background.

    Parameters
    ----------
    track
        Signal, 0 where nothing covers; not negative.
    chrom_sizes
        Length in bp of the chromosomes to call on; None takes those of the track. Their whole length, covered
        or not, is the genome that the background and the correction for multiple tests refer to.
    method
        ``macs3``, ``local`` (ours), or ``auto``: MACS3 when it is installed.
    resolution
        bp a bin: the grain of the peak borders.
    q
        False discovery rate of a significant bin (Benjamini–Hochberg over all bins of the genome).
    min_length, max_gap
        Shortest peak, and longest gap between significant bins of one peak, in bp.
    scale
        Pseudo-counts per unit of signal. None estimates it: in counts that follow Poisson, the squared
        difference of two bins of equal rate averages their sum, whatever that sum is; the scale makes this so
        for bins 500 bp apart whose sum is not in the top quarter (background), so that an overdispersed track
        gets fewer pseudo-counts. A track that is exactly 0 almost everywhere (sites with heights) has no noise
        to estimate, and every site of it is a peak.

    Returns
    -------
    DataFrame
        Columns of `ciscribe.io.bed.NARROWPEAK_COLUMNS`, sorted. ``score`` (not rounded) ranks the peaks:
        −log10 p at the summit (local) or MACS3's own −log10 q. ``signal`` is the fold over the local
        background, ``p_value`` and ``q_value`` are −log10, all three at the summit; ``summit`` is in bp from
        `start`. ``attrs["method"]`` names the caller.

    Raises
    ------
    DependencyError
        If MACS3 is asked for and not installed.
    InputError
        If MACS3 stops with an error; its last words are quoted.
    SchemaError
        If the track has negative, missing or no values, or lacks every chromosome of `chrom_sizes`.

    References
    ----------
    Zhang et al. 2008, doi:10.1186/gb-2008-9-9-r137; written from the paper. Differences: `LOCAL_CARD`,
    `MACS3_CARD`.
    """
    if method not in ("auto", "macs3", "local"):
        raise ValueError(f"method must be auto, macs3 or local; got {method!r}")
    if resolution < 1 or min_length < 1 or max_gap < 0 or not 0 < q < 1 or (scale is not None and scale <= 0):
        raise ValueError("need resolution >= 1, min_length >= 1, max_gap >= 0, 0 < q < 1 and scale > 0; got "
                         f"{resolution=}, {min_length=}, {max_gap=}, {q=}, {scale=}")
    program = None if method == "local" else _find_macs3()
    if method == "macs3" and program is None:
        raise DependencyError.of("macs3", "peaks", "call_peaks(method='macs3')")

    sizes = track.chrom_sizes if chrom_sizes is None else dict(chrom_sizes)
    if not sizes:
        raise SchemaError(f"peaks need the chromosome lengths; track '{track.name}' states none; "
                          "give chrom_sizes")
    signal = _binned(track, sizes, resolution)
    scale = _estimate_scale(signal, resolution) if scale is None else scale
    counts = {c: x * scale for c, x in signal.items()}
    background = sum(x.sum() for x in counts.values()) / sum(map(len, counts.values()))
    rate = {c: _local_rate(x, background, resolution) for c, x in counts.items()}
    p = {c: _neg_log10_p(counts[c], rate[c]) for c in counts}
    q_ = _neg_log10_q(p)
    cutoff = float(-np.log10(q))
    if program is None:
        peaks = _join(q_, counts, cutoff, sizes, resolution, min_length, max_gap)
    else:
        peaks = _run_macs3(program, counts, rate, sizes, cutoff, resolution, min_length, max_gap)

    at = list(zip(peaks["chrom"], (peaks["start"] + peaks["summit"]) // resolution, strict=True))
    peaks["signal"] = np.array([counts[c][i] / rate[c][i] for c, i in at], dtype=float)
    peaks["p_value"] = np.array([p[c][i] for c, i in at], dtype=float)
    peaks["q_value"] = np.array([q_[c][i] for c, i in at], dtype=float)
    peaks["score"] = peaks["p_value"] if program is None else peaks["score"] / 10
    peaks = peaks.sort_values(["chrom", "start"], kind="stable", ignore_index=True)
    peaks["name"] = [f"peak_{i}" for i in range(1, len(peaks) + 1)]
    peaks["strand"] = "."
    peaks = peaks.loc[:, list(NARROWPEAK_COLUMNS)]
    peaks.attrs["method"] = "local" if program is None else "macs3"
    return peaks


def _binned(track: Track, sizes: Mapping[str, int], resolution: int) -> dict[str, np.ndarray]:
    """Mean signal of each bin, chromosome by chromosome."""
    if not set(sizes) & set(track.runs):
        raise SchemaError(f"track '{track.name}' must cover one of {', '.join(list(sizes)[:5])}; "
                          f"it has {', '.join(list(track.runs)[:5]) or 'none'}; reconcile the names first")
    binned = {}
    for chrom, size in sizes.items():
        n_bins = -(-size // resolution)
        if chrom not in track.runs:
            binned[chrom] = np.zeros(n_bins)
            continue
        r = track.runs[chrom]
        if (r.value < 0).any():
            i, n = int((r.value < 0).argmax()), int((r.value < 0).sum())
            raise SchemaError(f"peaks need a signal >= 0; {n:,} of {len(r.value):,} runs of '{track.name}' on {chrom} "
                              f"are not; first: {chrom}:{r.start[i]}-{r.end[i]} = {r.value[i]}")
        x = bin_means(r, np.zeros(1, dtype=np.int64), n_bins, resolution)[0].astype(np.float64)
        x[-1] *= resolution / (size - (n_bins - 1) * resolution)  # the last bin is shorter
        binned[chrom] = x
    if not any(x.any() for x in binned.values()):
        raise SchemaError(f"track '{track.name}' is 0 on all of {', '.join(list(sizes)[:5])}; "
                          "there is nothing to call")
    return binned


def _estimate_scale(signal: Mapping[str, np.ndarray], resolution: int) -> float:
    """Pseudo-counts per unit, from pairs of background bins (see `call_peaks`)."""
    mean = sum(x.sum() for x in signal.values()) / sum(map(len, signal.values()))
    most = MAX_BACKGROUND / mean
    if _background_is_empty(signal, resolution):
        return most
    lag = max(1, -(-NOISE_LAG_BP // resolution))
    total = np.concatenate([x[lag:] + x[:-lag] for x in signal.values()])
    square = np.concatenate([(x[lag:] - x[:-lag])**2 for x in signal.values()])
    positive = total > 0
    if not positive.any():
        return most
    low = positive & (total <= np.quantile(total[positive], 0.75))
    noise = square[low].sum()
    return float(min(most, total[low].sum() / noise)) if noise > 0 else most


def _background_is_empty(signal: Mapping[str, np.ndarray], resolution: int) -> bool:
    """Whether three quarters of the stretches of 250 bp are exactly 0: a table of sites, not a measured track."""
    width = max(1, 250 // resolution)
    zero = [np.add.reduceat(x, np.arange(0, len(x), width)) == 0 for x in signal.values() if x.any()]
    return bool(np.concatenate(zero).mean() > 0.75)


def _local_rate(counts: np.ndarray, background: float, resolution: int) -> np.ndarray:
    """Return the expected pseudo-counts: the larger of the genome's and the neighbourhood's mean."""
    area = np.concatenate([[0.0], np.cumsum(counts)])
    i = np.arange(len(counts))
    half = max(1, LOCAL_BP // (2 * resolution))
    left, right = np.maximum(i - half, 0), np.minimum(i + half + 1, len(counts))
    return np.maximum(background, (area[right] - area[left]) / (right - left))


def _neg_log10_p(counts: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """−log10 of the Poisson chance of at least `counts`; 0 where counts do not exceed the rate."""
    above = np.flatnonzero(counts > rate)
    a, x = counts[above], rate[above]
    p = gammainc(a, x)
    tiny = p < 1e-250
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    a, x = a[tiny], x[tiny]
    log_p[tiny] = a * np.log(x) - x - gammaln(a + 1) + np.log(hyp1f1(1.0, a + 1, x))  # the series, in logs
    result = np.zeros(len(counts))
    result[above] = -log_p / np.log(10)
    return result


def _neg_log10_q(p: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Benjamini–Hochberg over the bins of all chromosomes together, in −log10."""
    flat = np.concatenate(list(p.values()))
    order = np.flatnonzero(flat > 0)
    order = order[np.argsort(-flat[order], kind="stable")]
    raw = flat[order] + np.log10(np.arange(1, len(order) + 1)) - np.log10(len(flat))
    q = np.zeros(len(flat))
    q[order] = np.maximum(np.maximum.accumulate(raw[::-1])[::-1], 0)
    cuts = np.cumsum([len(x) for x in p.values()])[:-1]
    return dict(zip(p, np.split(q, cuts), strict=True))


def _join(q: Mapping[str, np.ndarray], counts: Mapping[str, np.ndarray], cutoff: float,
          sizes: Mapping[str, int], resolution: int, min_length: int, max_gap: int) -> pd.DataFrame:
    """Significant bins to peaks with a summit."""
    rows = []
    for chrom, values in q.items():
        parts = runs(values >= cutoff)
        if not len(parts):
            continue
        apart = (parts[1:, 0] - parts[:-1, 1]) * resolution > max_gap
        first = parts[np.append(True, apart), 0]
        last = parts[np.append(apart, True), 1]
        for a, b in zip(first.tolist(), last.tolist(), strict=True):
            start, end = a * resolution, min(b * resolution, sizes[chrom])
            if end - start >= min_length:
                top = int(counts[chrom][a:b].argmax())
                rows.append((chrom, start, end, min(top * resolution + resolution // 2, end - start - 1)))
    return _peak_rows(rows)


def _peak_rows(rows: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=pd.Index(["chrom", "start", "end", "summit"]))
    return table.astype({"chrom": object, "start": "int64", "end": "int64", "summit": "int64"})


def _find_macs3() -> str | None:
    """Path of the program: on PATH, or beside the running Python (an environment that is not activated)."""
    beside = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    return shutil.which("macs3", path=beside)


def _run_macs3(program: str, counts: Mapping[str, np.ndarray], rate: Mapping[str, np.ndarray],
               sizes: Mapping[str, int], cutoff: float, resolution: int, min_length: int,
               max_gap: int) -> pd.DataFrame:
    """MACS3 on our pseudo-counts and λ: score each base, then join to peaks."""
    with tempfile.TemporaryDirectory(prefix="ciscribe-macs3-") as folder:
        for name, values in (("treatment", counts), ("lambda", rate)):
            write_bedgraph(Path(folder) / f"{name}.bdg", _as_track(name, values, sizes, resolution))
        _macs3([program, "bdgcmp", "-t", "treatment.bdg", "-c", "lambda.bdg", "-m", "qpois", "-o", "q.bdg"],
               folder)
        _macs3([program, "bdgpeakcall", "-i", "q.bdg", "-c", f"{cutoff:.6g}", "-l", str(min_length),
                "-g", str(max_gap), "--no-trackline", "-o", "peaks.narrowPeak"], folder)
        found = Path(folder) / "peaks.narrowPeak"
        if not found.exists() or not found.stat().st_size:  # MACS3 found nothing
            return _peak_rows([]).assign(score=0.0)
        return read_narrowpeak(found)  # score: 10 × −log10 q at the summit


def _macs3(command: list[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise InputError(f"macs3 {command[1]} must end well; it ended with status {done.returncode}: {last}; "
                         "method='local' needs no MACS3")


def _as_track(name: str, values: Mapping[str, np.ndarray], sizes: Mapping[str, int],
              resolution: int) -> Track:
    runs_ = {}
    for chrom, x in values.items():
        head = np.flatnonzero(np.append(True, x[1:] != x[:-1]))  # equal neighbours are one run
        start, end = head * resolution, np.append(head[1:] * resolution, sizes[chrom])
        runs_[chrom] = Runs(start.astype(np.int32), end.astype(np.int32), x[head].astype(np.float32))
    return Track(name, runs_)
