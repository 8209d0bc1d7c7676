"""Greedy in-silico evolution: time and memory, beside tangermeme, on the same model and budget.

    python benchmarks/design.py            # print
    python benchmarks/design.py --write    # also write validation/design_speed.md
    python benchmarks/design.py --starts 3 --peer-starts 1 --rounds 2    # a quick look

The network is of the size of the published plant-promoter CNN (Jores et al. 2021), with the same weights for both
programs, of `torch.nn` modules only for the peer. Each makes as many rounds of the best single substitution from the
same starts. The peer takes one start at a time; it is measured on some of them and scaled. Needs the extra `bench` for
tangermeme, without which its row is left out.
"""

import argparse
import copy
import importlib
import resource
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ciscribe.design.objective import Maximize
from ciscribe.design.runner import Designs, design
from ciscribe.design.score import Objective
from ciscribe.models.jores import Jores
from ciscribe.nn import conv
from ciscribe.oracle import Oracle
from ciscribe.provenance import provenance, write_text
from ciscribe.sequence import codes_of, one_hot_tensor

PAGE = Path(__file__).resolve().parent.parent / "validation" / "design_speed.md"
LENGTH = 170
PLAIN = {getattr(conv, name): getattr(nn, name) for name in ("Conv1d", "BatchNorm1d", "MaxPool1d", "AvgPool1d")}


class InFull(Maximize):
    """Predicts every edited sequence from its first base to its last."""

    components_of_edits = Objective.components_of_edits


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of a network with the same weights, of `torch.nn` modules only."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return twin.eval()


def evolve(objective: Objective, starts: np.ndarray, rounds: int) -> tuple[Designs, float, float]:
    """Designs, seconds, and the most memory that the process has held so far, MiB."""
    begun = time.perf_counter()
    made = design(objective, starts, "greedy", n=len(starts), budget=10**9, rounds=rounds)
    return made, time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peer(model: nn.Module, starts: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
    """Codes and seconds of tangermeme's greedy substitution, one start after the other."""
    greedy = importlib.import_module("tangermeme.design").greedy_substitution
    X = one_hot_tensor(torch.from_numpy(starts))
    begun = time.perf_counter()
    made = [greedy(model, X[i:i + 1], max_iter=rounds, tol=0, device="cpu") for i in range(len(X))]
    return codes_of(torch.cat(made)), time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--peer-starts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model, rng = Jores().eval(), np.random.default_rng(0)
    starts = rng.integers(0, 4, (options.starts, LENGTH)).astype(np.uint8)
    few = starts[:options.peer_starts]
    oracle = Oracle(model, device="cpu")

    evolve(Maximize(oracle), starts[:1], 1)  # compiles loops once
    after_one = evolve(Maximize(oracle), starts, 1)[2]
    made, seconds, most = evolve(Maximize(oracle), starts, options.rounds)
    whole, whole_seconds, _ = evolve(InFull(oracle), few, options.rounds)
    scale = len(starts) / len(few)
    rows = [("ciscribe", seconds, made.queries), ("ciscribe, every mutant in full (scaled)", whole_seconds * scale,
                                                   whole.queries * scale)]
    same = "tangermeme is not installed."
    if find_spec("tangermeme") is not None:
        theirs, peer_seconds = peer(plain(model), few, options.rounds)
        rows.append(("tangermeme, greedy_substitution (scaled)", peer_seconds * scale,
                     scale * len(few) * options.rounds * (4 * LENGTH) + len(starts)))
        ends = oracle.predict(torch.from_numpy(theirs))[:, 0].numpy()
        ours = np.array([made.score[made.origin == i].max() for i in range(len(few))])
        equal = sum((made.codes[made.origin == i] == theirs[i]).all(axis=1).any() for i in range(len(few)))
        same = (f"Of {len(few)} starts that both evolved, {equal} end in the same sequence; the scores differ by "
                f"{np.abs(ours - ends).max():.1e} at most, after a mean gain of "
                f"{float((ours - made.start_score[:len(few)]).mean()):.2g}.")  # type: ignore[index]
    lines = ["| program | seconds | sequences scored | sequences/s | × ciscribe |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {name} | {value:,.1f} | {n:,.0f} | {n / value:,.0f} | {value / seconds:.1f} |"
              for name, value, n in rows]
    facts = provenance()
    text = "\n".join([
        "# Greedy in-silico evolution", "", "Written by `python benchmarks/design.py --write`. "
        f"{len(starts)} starts of {LENGTH} bp, {options.rounds} rounds, Jores network (128 filters × 13, random "
        f"weights), {options.threads} threads.", "", *lines, "",
        f"Rows marked scaled were measured on {len(few)} starts and multiplied. tangermeme scores four bases a "
        "position, the present one included.", "", same, "",
        f"Memory: the process held {after_one:,.0f} MiB at most after one round and {most:,.0f} MiB after "
        f"{options.rounds} more.", "", f"{facts['platform']}, Python {facts['python']}, PyTorch {torch.__version__}.",
        ""])
    print(text)
    if options.write:
        write_text(PAGE, text)


if __name__ == "__main__":
    main()
