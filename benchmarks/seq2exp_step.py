"""Seconds and peak memory of a training step of Seq2Exp as published, on the device that is at hand.

    python benchmarks/seq2exp_step.py            print the table
    python benchmarks/seq2exp_step.py --write    also write validation/seq2exp_step.md

The model is that of configs/human_k562.yaml (resolution 1, d_model 128, 4 + 4 layers), the input synthetic: random
bases, three signals, nine covariates. A step is forward pass, loss, backward pass, clipping and AdamW. Every row is
measured in a fresh process: one step to warm up, then the median of some. On a GPU the window is the published 200 kb,
batches are 1 to 8, and seconds are those of the clock. On a CPU window and batches are smaller unless asked for, and
seconds are those of the processor, which other programs on the machine stretch less. The page holds nothing but what
was measured.
There is one scan so far, the chunked one of `ciscribe.nn.scan`; another is another entry of `SCANS`.

This process does not import torch: a child inherits the high-water mark of the process that starts it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ciscribe.config import read_config
from ciscribe.provenance import provenance, write_text

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "validation" / "seq2exp_step.md"
CONFIG = ROOT / "configs" / "human_k562.yaml"
SCANS = ("chunked",)
PUBLISHED = 200_000  # bp
DEFAULTS = {"cuda": (PUBLISHED, (1, 2, 4, 8)), "cpu": (10_000, (1, 2))}  # bp of the window, batches


def synthetic(batch: int, length: int, device: Any) -> tuple[Any, ...]:
    """Sequences, signals, covariates and targets of random genes."""
    import torch

    from ciscribe.sequence import one_hot_tensor

    draw = torch.Generator().manual_seed(0)
    X = one_hot_tensor(torch.randint(0, 4, (batch, length), generator=draw))
    S = torch.rand(batch, 3, length, generator=draw) * 3
    given = X, S, torch.randn(batch, 9, generator=draw), torch.rand(batch, 1, generator=draw) * 3
    return tuple(t.to(device) for t in given)


def make_step(batch: int, length: int, precision: str, device: Any, sizes: dict[str, Any]) -> Callable[[], None]:
    """One training step as `ciscribe.train.fit` does it, ready to be called."""
    import torch

    from ciscribe.models import registry
    from ciscribe.train.tasks import Expression

    config = read_config(CONFIG)
    torch.manual_seed(0)
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in config.model.arguments.items()} | sizes
    model = registry.create("seq2exp", n_targets=1, n_signals=3, n_covariates=9, **given).to(device).train()
    plan, task = config.train, Expression(**config.train.loss.model_dump())
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay,
                                  betas=(0.9, 0.95), fused=True)
    X, S, covariates, targets = synthetic(batch, length, device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            terms = task.terms(model(X, S, covariates), targets)
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.gradient_clip)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def measure_step(device: str, length: int, batch: int, precision: str, runs: int, threads: int,
                 sizes: dict[str, Any] | None = None) -> dict[str, float | None]:
    """Median seconds a step and peak memory (MB) in this process, which must be fresh; None where memory ran out."""
    import torch

    torch.set_num_threads(threads)
    where = torch.device(device)
    try:
        step = make_step(batch, length, precision, where, sizes or {})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        clock = time.perf_counter if where.type == "cuda" else time.process_time
        step()
        seconds = []
        for _ in range(runs):
            start = clock()
            step()
            seconds.append(clock() - start)
    except (torch.OutOfMemoryError, MemoryError):
        return {"seconds": None, "memory": None}
    if where.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": statistics.median(seconds), "memory": memory}


def describe() -> dict[str, Any]:
    """The device that PyTorch would take, and its name."""
    import torch

    if torch.cuda.is_available():
        return {"device": "cuda", "name": torch.cuda.get_device_name()}
    return {"device": "cpu", "name": "CPU"}


JOBS = {"step": measure_step, "describe": describe}


def child(job: str, **arguments: Any) -> dict[str, Any]:
    """Run one measurement in a fresh process; a process that was killed for memory counts as out of memory."""
    command = [sys.executable, __file__, "--job", json.dumps([job, arguments])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -9:
        return {"seconds": None, "memory": None}
    if done.returncode:
        sys.exit(f"the measurement {job} {arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(found: dict[str, Any], length: int, rows: list[list[str]], load: float) -> str:
    """What was measured, and nothing else."""
    record = provenance()
    on_gpu = found["device"] == "cuda"
    size = ("the window is the published one." if length == PUBLISHED else
            f"the window is {length:,} bp\nand not the published {PUBLISHED:,}, so no figure here is of the full size.")
    return f"""# A training step of Seq2Exp at resolution 1

Written by `benchmarks/seq2exp_step.py --write` ({record["created"]}, {record["platform"]},
Python {record["python"]}, torch {record["packages"]["torch"]}; load {load:.1f} on {os.cpu_count()} cores at the start).
Device: {found["name"]}. The model is that of `configs/human_k562.yaml` on synthetic input; {size}
Seconds are medians after a step to warm up, {"by the clock" if on_gpu else "of the processor, one thread"}; memory is
the peak {"on the device" if on_gpu else "that the steps add to the process"}.

{table(["scan", "precision", "batch", "seconds a step", "peak memory, MB"], rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}")
    parser.add_argument("--device", help="cuda or cpu; the GPU where there is one")
    parser.add_argument("--length", type=int, help="bp of the window; 200,000 on a GPU, 10,000 on a CPU")
    parser.add_argument("--batches", type=int, nargs="+", help="genes a step; 1 2 4 8 on a GPU, 1 2 on a CPU")
    parser.add_argument("--runs", type=int, default=3, help="steps that are timed")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job:
        job, arguments = json.loads(chosen.job)
        print(json.dumps(JOBS[job](**arguments)))
        return
    load, found = os.getloadavg()[0], child("describe")
    if chosen.device and chosen.device != found["device"]:
        found = {"device": chosen.device, "name": chosen.device.upper()}
    length, batches = DEFAULTS[found["device"]]
    length, rows = chosen.length or length, []
    for scan in SCANS:
        for precision in ("bf16", "fp32"):
            for batch in chosen.batches or batches:
                cell = child("step", device=found["device"], length=length, batch=batch, precision=precision,
                             runs=chosen.runs, threads=chosen.threads)
                out = cell["seconds"] is None
                rows.append([scan, precision, str(batch), "out of memory" if out else f"{cell['seconds']:.2f}",
                             "" if out else f"{cell['memory']:,.0f}"])
                print(" | ".join(rows[-1]), flush=True)
    text = page(found, length, rows, load)
    print("\n" + text)
    if chosen.write:
        write_text(PAGE, text)


if __name__ == "__main__":
    main()
