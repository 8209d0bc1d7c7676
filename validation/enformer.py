"""Measure Enformer at full size on a CPU and write the figures: ``python validation/enformer.py``.

Builds the published network with both heads, and runs one step without its update: the forward pass in training mode
on one random sequence of 196,608 bp, the Poisson loss of both heads, the backward pass. Writes parameters, seconds and
peak memory to ``validation/enformer.md``.
"""

import argparse
import os
import platform
import resource
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from ciscribe.models.enformer import CARD, Enformer
from ciscribe.sequence import one_hot_tensor

HERE = Path(__file__).resolve().parent
HEADS = {"human": 5313, "mouse": 1643}
PUBLISHED, LIMIT_GB = 251_221_292, 24


def peak_gb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(threads: int, checkpointing: bool, length: int) -> dict[str, float]:
    """Seconds and memory of one forward and backward pass."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    start_gb, start = peak_gb(), time.perf_counter()
    model = Enformer(HEADS, checkpointing=checkpointing).train()
    built, built_gb = time.perf_counter(), peak_gb()
    X = one_hot_tensor(torch.randint(0, 4, (1, length), dtype=torch.uint8)).requires_grad_()
    begun = time.perf_counter()
    tracks = model(X)
    losses = [(y - torch.log(y + 1e-7)).mean() for y in tracks.values()]  # of the target 1 everywhere
    loss = torch.stack(losses).sum()
    forward = time.perf_counter()
    loss.backward()
    done = time.perf_counter()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    if idle or X.grad is None:
        raise SystemExit(f"{len(idle)} parameters have no finite gradient, the first {idle[:1]}")
    return {"parameters": sum(p.numel() for p in model.parameters()), "bins": tracks["human"].shape[2],
            "loss": loss.item(), "reached": float((X.grad.abs().sum(dim=1) > 0).double().mean()),
            "start_gb": start_gb, "built_gb": built_gb, "build": built - start, "forward": forward - begun,
            "backward": done - forward, "peak_gb": peak_gb()}


def write(found: dict[str, float], threads: int, checkpointing: bool, length: int, load: float) -> Path:
    """Write ``validation/enformer.md``."""
    rows = [["build", f"{found['build']:.1f}", f"{found['built_gb']:.2f}"],
            ["forward pass", f"{found['forward']:.1f}", ""],
            ["backward pass", f"{found['backward']:.1f}", f"{found['peak_gb']:.2f}"]]
    kept = "computed again in the backward pass (`checkpointing=True`)" if checkpointing else "kept"
    match = "the published number" if found["parameters"] == PUBLISHED else f"published: {PUBLISHED:,}"
    verdict = "within" if found["peak_gb"] <= LIMIT_GB else "NOT within"
    text = ["# Enformer at full size on a CPU", "",
            f"Written by `python validation/enformer.py{'' if checkpointing else ' --keep'}` "
            f"({datetime.now(UTC).isoformat(timespec='seconds')}, {platform.machine()}, Python "
            f"{platform.python_version()}, torch {torch.__version__}; {threads} threads, load {load:.1f} on "
            f"{os.cpu_count()} cores at the start).",
            "One random sequence, training mode, fp32, Poisson loss of both heads; the pass of a training step without "
            f"its update. What the layers hold is {kept}. Weights are random: no figure here is about accuracy.", "",
            "| step | seconds | peak memory so far (GB) |", "| --- | ---: | ---: |",
            *(f"| {' | '.join(row)} |" for row in rows), "",
            f"- Parameters with both heads: {found['parameters']:,}, {match}; with the human head alone "
            f"{CARD.parameters:,}.",
            f"- Input {length:,} bp, output {found['bins']:,.0f} bins for {sum(HEADS.values()):,} tracks.",
            f"- Every parameter has a finite gradient; {found['reached']:.1%} of the bases have one that is not zero.",
            f"- Peak memory {found['peak_gb']:.2f} GB is {verdict} the {LIMIT_GB} GB asked for (Python and PyTorch "
            f"alone: {found['start_gb']:.2f} GB). An optimizer such as Adam adds 2 GB for its two moments.", ""]
    path = HERE / "enformer.md"
    path.write_text("\n".join(text))
    return path


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep what the layers hold, instead of computing it again")
    parser.add_argument("--length", type=int, default=196_608, help="another length measures, and writes nothing")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure(options.threads, not options.keep, options.length)
    print(found)
    if options.length == 196_608:
        print(write(found, options.threads, not options.keep, options.length, load))


if __name__ == "__main__":
    main()
