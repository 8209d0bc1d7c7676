"""In-silico mutagenesis beside tangermeme, and beside predicting every mutant in full, in one run.

    python benchmarks/mutagenesis.py            # print the tables
    python benchmarks/mutagenesis.py --write    # also write validation/mutagenesis.md

All programs are given the same networks with the same weights (of `torch.nn` modules, and for us of our own), and every
substitution of the same sequences. They take turns; seconds are medians. The peer's plain mode and our full
computation of the long network take minutes, and are measured on evenly spaced mutants and scaled. Needs the extra
`bench` for tangermeme, without which its rows say so.
"""

import argparse
import copy
import importlib
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ciscribe.models.bpnet import BPNet
from ciscribe.models.deepstarr import DeepSTARR
from ciscribe.nn import conv
from ciscribe.oracle import LogCounts, Oracle
from ciscribe.perturb.edits import Edits, predict_edited
from ciscribe.perturb.mutagenesis import saturation_mutagenesis
from ciscribe.provenance import provenance, write_text
from ciscribe.sequence import one_hot_tensor

PAGE = Path(__file__).resolve().parent.parent / "validation" / "mutagenesis.md"
RUNS = 3
PLAIN = {getattr(conv, name): getattr(nn, name) for name in ("Conv1d", "BatchNorm1d", "MaxPool1d", "AvgPool1d")}


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of a network with the same weights, of `torch.nn` modules only."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return twin.eval()


class Counts(nn.Module):
    """The log count of a BPNet as a tensor, which is what the peer takes."""

    def __init__(self, model: BPNet):
        super().__init__()
        self.model = model

    def forward(self, X: Tensor) -> Tensor:
        """Log counts ``(B, n)``."""
        return self.model(X)["counts"]


def medians(programs: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each program; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(runs):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def some_mutants(codes: np.ndarray, n: int) -> Edits:
    """Evenly spaced substitutions of the first sequence."""
    position = np.linspace(0, codes.shape[1] - 1, n).astype(int)
    other = (codes[0, position] + 1 + np.arange(n) % 3) % 4
    return Edits(np.zeros(n, int), position, other[:, None].astype(np.uint8))


def trained_statistics(model: nn.Module) -> nn.Module:
    """Give batch norms the statistics of a trained network; an untrained one divides by 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def deviation(oracle: Oracle, codes: np.ndarray, n: int = 200) -> float:
    """Largest difference between the fast way and predicting in full, relative to the largest output."""
    row = np.repeat(np.arange(len(codes)), n)
    position = np.tile(np.linspace(0, codes.shape[1] - 1, n).astype(int), len(codes))
    other = ((codes[row, position] + 1 + np.arange(len(row)) % 3) % 4).astype(np.uint8)[:, None]
    edits = Edits(row, position, other)
    fast, full = (predict_edited(oracle, codes, edits, fast=mode) for mode in (True, False))
    return float(np.abs(fast - full).max() / np.abs(full).max())


def measure(name: str, peer_model: nn.Module, oracle: Oracle, codes: np.ndarray, threads: int, share: int,
            both: nn.Module | None = None) -> list[list[str]]:
    """Rows of one network; ways that take minutes are measured on one mutant in `share` and scaled.

    `both` is the network with all its heads, of which the peer reads one.
    """
    torch.set_num_threads(threads)
    n_mutants = 3 * codes.size
    few = some_mutants(codes, max(1, codes.shape[1] // share))
    scale = n_mutants / len(few.row)
    X = one_hot_tensor(torch.from_numpy(codes))
    programs: dict[str, Callable[[], object]] = {
        "ciscribe": lambda: saturation_mutagenesis(oracle, codes),
        "ciscribe, every mutant in full (scaled)": lambda: predict_edited(oracle, codes, few, fast=False)}
    scaled = {"ciscribe, every mutant in full (scaled)"}
    with torch.no_grad():
        saturation_mutagenesis(oracle, codes[:, :])  # compiles two loops once
    if find_spec("tangermeme") is not None:
        peer = importlib.import_module("tangermeme.saturation_mutagenesis").saturation_mutagenesis
        given = {"device": "cpu", "raw_outputs": True, "verbose": False}
        programs["tangermeme, fast=True"] = lambda: peer(peer_model, X, fast=True, batch_size=32, **given)
        if share == 1:
            programs["tangermeme, default"] = lambda: peer(peer_model, X, **given)
            programs["tangermeme, fast=False"] = lambda: peer(peer_model, X, fast=False, **given)
        else:
            width = 20
            middle = codes.shape[1] // 2
            slow = {"fast": False, "start": middle, "end": middle + width, **given}
            programs["tangermeme, fast=False (scaled)"] = lambda: peer(peer_model, X, **slow)
            if both is not None:
                programs["tangermeme, fast=True, network of both heads"] = lambda: peer(both, X, fast=True,
                                                                                        batch_size=32, **given)
                programs["tangermeme, fast=False, network of both heads (scaled)"] = lambda: peer(both, X, **slow)
    seconds = medians(programs, RUNS)
    for which in list(seconds):
        if which in scaled:
            seconds[which] *= scale
        elif which.startswith("tangermeme") and which.endswith("(scaled)"):
            seconds[which] *= codes.shape[1] / 20
    ours = seconds["ciscribe"]
    return [[name, str(threads), which, f"{value:.2f}", f"{n_mutants / value:,.0f}", f"{value / ours:.1f}"]
            for which, value in seconds.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    whole = BPNet(1, variant="paper", n_filters=64, n_layers=8, n_strands=1).eval()
    bpnet = whole.only("counts")
    deepstarr = trained_statistics(DeepSTARR())
    long, short = (rng.integers(0, 4, shape).astype(np.uint8) for shape in ((1, 2_114), (10, 249)))
    oracles = {"bpnet": Oracle(bpnet, LogCounts()), "deepstarr": Oracle(deepstarr)}
    rows = measure("BPNet, counts only, 1 × 2,114 bp", Counts(plain(bpnet)), oracles["bpnet"], long, 2, 20,
                   Counts(plain(whole)))
    rows += measure("DeepSTARR, 10 × 249 bp", plain(deepstarr), oracles["deepstarr"], short, 1, 1)
    exact = {"BPNet": deviation(oracles["bpnet"], long), "DeepSTARR": deviation(oracles["deepstarr"], short, 60)}
    header = ["network and sequences", "threads", "program", "seconds", "mutants/s", "× ciscribe"]
    lines = ["| " + " | ".join(row) + " |" for row in [header, *rows]]
    lines.insert(1, "|---|---:|---|---:|---:|---:|")
    # Σ over layers of the positions that a mutation reaches before each layer, times what a position costs
    reached = [21, 25, 33, 49, 81, 145, 273, 529]
    flop = 2 * 3 * 64 * 64 * sum(reached) * 3 * long.size
    facts = provenance()
    text = "\n".join([
        "# In-silico mutagenesis", "", "Written by `python benchmarks/mutagenesis.py --write`. All substitutions of "
        f"every position; medians of {RUNS} runs that take turns.", "", *lines, "",
        "Rows marked scaled were measured on some mutants and multiplied. A network of both heads computes the profile "
        "as well, as the usual count wrappers of BPNet do; ours leaves out what the readout does not ask for.", "",
        f"Largest difference from predicting every mutant in full, relative to the largest output: BPNet "
        f"{exact['BPNet']:.1e}, DeepSTARR {exact['DeepSTARR']:.1e}.", "",
        f"What has to be computed at least (BPNet): the differences of a mutant are {', '.join(map(str, reached))} "
        f"positions wide before the eight dilated layers, {flop / 1e9:.0f} GFLOP for all mutants as differences; "
        "recomputed windows would be nearly twice as much, 339 GFLOP.", "",
        f"{facts['platform']}, Python {facts['python']}, PyTorch {torch.__version__}.", ""])
    print(text)
    if options.write:
        write_text(PAGE, text)


if __name__ == "__main__":
    main()
