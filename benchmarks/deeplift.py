"""DeepLIFT beside tangermeme and captum, and beside a plain forward and backward pass of the same pairs, in one run.

    python benchmarks/deeplift.py            # print the tables
    python benchmarks/deeplift.py --write    # also write validation/deeplift.md
    python benchmarks/deeplift.py --small    # a few seconds, to see that it works

Every program explains the same sequences against the same shuffled references with the same weights. tangermeme and
captum hook modules, so they get the network of plain `torch.nn` modules, on which the plain passes run, too. Programs
take turns; seconds are medians. The completeness error is the largest |Σ contributions − (f(x) − f(reference))| of the
means over references, relative to the largest |f|. tangermeme and captum are left out where they are not installed.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ciscribe.interpret.deeplift import deep_lift
from ciscribe.interpret.references import references
from ciscribe.models.basset import Basset
from ciscribe.models.bpnet import BPNet
from ciscribe.models.deepstarr import DeepSTARR
from ciscribe.models.expresnet import ExpResNet
from ciscribe.models.legnet import LegNet
from ciscribe.nn import conv
from ciscribe.oracle import Oracle
from ciscribe.provenance import provenance, write_text
from ciscribe.sequence import one_hot_tensor

PAGE = Path(__file__).resolve().parent.parent / "validation" / "deeplift.md"
THREADS = 1
RUNS = 3
N_REFERENCES = 20
BATCH = 32  # pairs a pass of tangermeme (its default) and of the plain passes
PLAIN = {getattr(conv, name): getattr(nn, name) for name in ("Conv1d", "BatchNorm1d", "MaxPool1d", "AvgPool1d")}


class Counts(nn.Module):
    """BPNet's log counts as a tensor."""

    def __init__(self, model: BPNet):
        super().__init__()
        self.model = model.only("counts")

    def forward(self, X: Tensor) -> Tensor:
        """Predict."""
        return self.model(X)["counts"]


NETWORKS = {  # what, sequences, length
    "DeepSTARR": (lambda: DeepSTARR(n_targets=1), 100, 249),
    "BPNet (64 filters, 8 dilated), counts": (lambda: Counts(BPNet(1, variant="chrombpnet")), 4, 2_114),
    "Basset": (lambda: Basset(n_targets=1), 10, 600),
    "ExpResNet (residual)": (lambda: ExpResNet(channels=(16, 32, 48, 64), hidden=64), 4, 9_500),
    "LegNet (gates)": (lambda: LegNet(), 10, 230),
}


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of a network with the same weights, of `torch.nn` modules only."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return twin


def settled(model: nn.Module) -> nn.Module:
    """The network with norms that do something, so that its pieces are not all alike."""
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.05, 0.5)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)
    return model.eval()


def passes(model: nn.Module, pairs: Tensor) -> None:
    """Forward and backward of every pair's reference."""
    for part in pairs.split(BATCH):
        X = part.clone().requires_grad_()
        model(X)[:, 0].sum().backward()


def by_tangermeme(model: nn.Module, X: Tensor, R: Tensor) -> Tensor:
    from tangermeme.deep_lift_shap import deep_lift_shap
    return deep_lift_shap(model, X, references=R, batch_size=BATCH, device="cpu", warning_threshold=1e9,
                          hypothetical=True)


def by_captum(model: nn.Module, X: Tensor, R: Tensor) -> Tensor:
    from captum.attr import DeepLiftShap
    return torch.cat([DeepLiftShap(model).attribute(x[None], baselines=r, target=0) for x, r in zip(X, R, strict=True)])


def medians(programs: dict[str, Callable[[], object]]) -> tuple[dict[str, float], dict[str, object]]:
    """Median seconds and the last answer of each program; they take turns after a run to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    answers = {}
    for i in range(RUNS + 1):
        for name, run in programs.items():
            start = time.perf_counter()
            answers[name] = run()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}, answers


def measure(name: str, small: bool) -> list[str]:
    """One row of the table."""
    build, n, length = NETWORKS[name]
    n, n_references = (2, 3) if small else (n, N_REFERENCES)
    torch.manual_seed(0)
    model = settled(build())
    twin = plain(model)
    for p in (*model.parameters(), *twin.parameters()):
        p.requires_grad_(False)
    codes = torch.randint(0, 4, (n, length), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    X, R = one_hot_tensor(codes), references(codes.numpy(), "shuffle", n_references)
    oracle = Oracle(model, device="cpu")
    programs: dict[str, Callable[[], object]] = {
        "plain": lambda: passes(twin, R.flatten(0, 1)),
        "ours": lambda: deep_lift(oracle, codes, references=R).values[..., 0],
    }
    if find_spec("tangermeme"):
        programs["tangermeme"] = lambda: by_tangermeme(twin, X, R).numpy()
    if find_spec("captum"):
        programs["captum"] = lambda: by_captum(twin, X, R).detach().numpy()
    seconds, answers = medians(programs)
    with torch.inference_mode():
        after, before = model(X)[:, 0], torch.stack([model(r)[:, 0] for r in R])
    change, scale = (after - before.mean(dim=1)).numpy(), float(torch.cat([after, before.flatten()]).abs().max())
    row = [name, f"{n} x {n_references} x {length:,}", f"{seconds['plain']:.2f}", f"{seconds['ours']:.2f}",
           f"{seconds['ours'] / seconds['plain']:.2f}", _error(answers["ours"], X, change, scale)]
    for peer in ("tangermeme", "captum"):
        if peer in seconds:
            row += [f"{seconds[peer]:.2f}", f"{seconds[peer] / seconds['ours']:.2f}",
                    _error(answers[peer], X, change, scale)]
        else:
            row += ["not installed", "", ""]
    if "tangermeme" in answers:
        ours, theirs = answers["ours"], answers["tangermeme"]
        row.append(f"{np.abs(ours - theirs).max() / np.abs(ours).max():.1e}")  # type: ignore[operator]
    else:
        row.append("")
    return row


def _error(values: object, X: Tensor, change: np.ndarray, scale: float) -> str:
    total = (np.asarray(values) * X.numpy()).sum((1, 2))
    return f"{np.abs(total - change).max() / scale:.1e}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(small: bool) -> str:
    """Measure everything; return the page."""
    load, rows = os.getloadavg()[0], []
    for name in NETWORKS:
        rows.append(measure(name, small))
        print(" | ".join(rows[-1]), flush=True)
    record = provenance()
    header = ["network", "sequences x references x bp", "plain passes, s", "ciscribe, s", "times plain", "error",
              "tangermeme, s", "times ours", "error", "captum, s", "times ours", "error", "largest difference"]
    return f"""# DeepLIFT: speed and completeness beside tangermeme and captum

Written by `benchmarks/deeplift.py --write` ({record["created"]}, {record["platform"]},
Python {record["python"]}, torch {record["packages"]["torch"]}; load {load:.1f} on {os.cpu_count()} cores at the
start{"; other work was running, so that times are too long and uneven" if load > 0.5 else ""}). float32,
{THREADS} thread; the programs alternate, medians of {RUNS} runs. Weights are random, sequences and references are the
same for all programs.

Targets (DeepSTARR): at most 2 times the plain passes, at least 2.5 times as fast as tangermeme, an error of at most
1e-5.

{table(header, rows)}

"Plain passes" are a forward and a backward pass of the references through the same network of `torch.nn` modules. The
error is the largest distance between the sum of the contributions and the difference of the outputs that they
explain, relative to the largest output; captum is given no hypothetical contributions to compare, so its sum is of its
own attributions. "Largest difference" is between the hypothetical contributions of ciscribe and of tangermeme,
relative to the largest.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}")
    parser.add_argument("--small", action="store_true", help="2 sequences with 3 references")
    chosen = parser.parse_args()
    torch.set_num_threads(THREADS)
    text = page(chosen.small)
    print("\n" + text)
    if chosen.write:
        write_text(PAGE, text)


if __name__ == "__main__":
    main()
