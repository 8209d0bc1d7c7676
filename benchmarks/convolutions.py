"""Convolutions of the zoo beside the same networks of plain `torch.nn` modules, and beside bpnet-lite, in one run.

    python benchmarks/convolutions.py            # print the tables
    python benchmarks/convolutions.py --write    # also write validation/convolutions.md

One constructor builds each network; its plain twin has every module of `ciscribe.nn.conv` turned into the `torch.nn`
class that it extends, with the same weights. The programs take turns; seconds are medians. The first table is BPNet
(64 filters, 8 dilated layers) forward; bpnet-lite's network of the same weights must predict the same. The others are
training steps (forward, backward, AdamW) and single layers. Needs the extra `bench` for bpnet-lite, without which
its row says so: install it without its dependencies (pip install --no-deps bpnet-lite), of which none is needed here.
"""

import argparse
import copy
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from ciscribe.models.basset import Basset
from ciscribe.models.bpnet import BPNet
from ciscribe.models.chrombpnet import ChromBPNet
from ciscribe.models.deepstarr import DeepSTARR
from ciscribe.models.legnet import LegNet
from ciscribe.nn import conv
from ciscribe.provenance import provenance, write_text
from ciscribe.sequence import one_hot_tensor

PAGE = Path(__file__).resolve().parent.parent / "validation" / "convolutions.md"
THREADS = 2
RUNS = 7
BATCH, LENGTH = 32, 2_114
PLAIN = {getattr(conv, name): getattr(nn, name) for name in ("Conv1d", "BatchNorm1d", "MaxPool1d", "AvgPool1d")}
FORMS = {"not padded": "chrombpnet", "padded": "paper"}
PEER = "bpnet-lite, CountWrapper"

TRAINED = {  # what, batch, length
    "DeepSTARR": (lambda: DeepSTARR(), 128, 249),
    "LegNet (human)": (lambda: LegNet(), 64, 230),
    "Basset": (lambda: Basset(), 32, 600),
    "BPNet (64 filters, 8 dilated)": (lambda: BPNet(1, variant="chrombpnet", n_strands=2), 16, LENGTH),
    "ChromBPNet": (lambda: ChromBPNet(), 2, LENGTH),
}
LAYERS = {  # batch, length, channels in and out, kernel, further arguments
    "first, 21 of 4 to 64": (32, 2_114, 4, 64, 21, {}),
    "first, 19 of 4 to 300": (32, 600, 4, 300, 19, {}),
    "dilated by 2": (32, 2_114, 64, 64, 3, {"padding": "same", "dilation": 2}),
    "dilated by 256": (32, 2_114, 64, 64, 3, {"padding": "same", "dilation": 256}),
    "dilated by 256, 512 channels": (2, 1_586, 512, 512, 3, {"dilation": 256}),
    "profile, 75 of 64 to 2": (32, 1_074, 64, 2, 75, {}),
    "depthwise, 7 of 1,024": (32, 150, 1_024, 1_024, 7, {"padding": "same", "groups": 1_024}),
    "11 of 300 to 200": (32, 200, 300, 200, 11, {"padding": "same"}),
    "5 of 768": (1, 2_048, 768, 768, 5, {"padding": "same"}),
    "5 of 1,280 to 1,536": (1, 1_536, 1_280, 1_536, 5, {"padding": "same"}),
    "1 of 256 to 1,024": (32, 150, 256, 1_024, 1, {}),
    "one short sequence, 3 of 64": (1, 50, 64, 64, 3, {"padding": "same"}),
}


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of a network with the same weights, of `torch.nn` modules only."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return twin


def sequences(batch: int, length: int) -> Tensor:
    return one_hot_tensor(torch.randint(0, 4, (batch, length), generator=torch.Generator().manual_seed(1)))


def load_peer(ours: BPNet) -> nn.Module | None:
    """bpnet-lite's network with our weights behind its count wrapper, or None where it is not installed."""
    if find_spec("bpnetlite") is None:
        return None
    for package, modules in {"h5py": ["h5py"], "tqdm": ["tqdm"], "tangermeme": ["tangermeme", "tangermeme.predict"]
                             }.items():
        if find_spec(package) is None:  # bpnet-lite imports it, but does not use it in a forward pass
            sys.modules |= {name: MagicMock() for name in modules}
    module = importlib.import_module("bpnetlite.bpnet")
    peer = module.BPNet(n_filters=64, n_layers=8, n_outputs=2, n_control_tracks=0, verbose=False)
    names = {"first": "iconv", "dilated": "rconvs", "profile": "fconv", "counts": "linear"}
    peer.load_state_dict({f"{names[k.partition('.')[0]]}.{k.partition('.')[2]}": v
                          for k, v in ours.state_dict().items()})
    return module.CountWrapper(peer).eval()


def medians(programs: dict[str, Callable[[], object]], runs: int = RUNS) -> dict[str, float]:
    """Median seconds of each program; they take turns after a run to warm up."""
    seconds = {name: [] for name in programs}
    for i in range(runs + 1):
        for name, run in programs.items():
            start = time.perf_counter()
            run()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_bpnet() -> tuple[dict[str, float], float]:
    """Seconds of one forward pass, and the largest difference in log counts between programs of the same weights."""
    X, networks, apart = sequences(BATCH, LENGTH), {}, 0.0
    for form, variant in FORMS.items():
        torch.manual_seed(0)
        model = BPNet(1, variant=variant, n_layers=8, n_strands=2).eval()
        twin, peer = plain(model), load_peer(model) if variant == "chrombpnet" else None
        for name, network in (("ciscribe", model), ("torch.nn", twin)):
            networks |= {f"{name}, {form}, both": network, f"{name}, {form}, counts": network.only("counts")}
        networks |= {PEER: peer} if peer else {}
        with torch.inference_mode():
            found = [y["counts"] for y in (model(X), model.only("counts")(X), twin(X))] + ([peer(X)] if peer else [])
        apart = max(apart, *(float((y - found[0]).abs().max()) for y in found))
    with torch.inference_mode():
        return medians({name: lambda n=network: n(X) for name, network in networks.items()}), apart


def step(model: nn.Module, X: Tensor) -> Callable[[], object]:
    """One training step."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    model.train()

    def run() -> None:
        optimiser.zero_grad()
        out = model(X)
        sum(y.square().mean() for y in (out.values() if isinstance(out, dict) else [out])).backward()
        optimiser.step()

    return run


def measure_training(name: str) -> dict[str, float]:
    build, batch, length = TRAINED[name]
    torch.manual_seed(0)
    model, X = build(), sequences(batch, length)
    twin = plain(model)
    return medians({"ours": step(model, X), "plain": step(twin, X)}, runs=5)


def measure_layer(name: str) -> list[dict[str, float]]:
    """Seconds of the forward pass without gradients, and of forward and backward, each layer in its own layout."""
    batch, length, n_in, n_out, kernel, arguments = LAYERS[name]
    torch.manual_seed(0)
    layer = conv.Conv1d(n_in, n_out, kernel, **arguments)
    x = torch.randn(batch, n_in, length)
    inputs = {"ours": x.transpose(1, 2).contiguous().transpose(1, 2), "plain": x}
    layers = {"ours": layer, "plain": plain(layer)}
    gradients = {}
    with torch.no_grad():
        for k, x in inputs.items():
            gradients[k] = torch.randn_like(layers[k](x))
        forward = medians({k: lambda k=k: layers[k](inputs[k]) for k in layers})

    def both(k: str) -> None:
        x = inputs[k].detach().requires_grad_(n_in != 4)  # sequences need no gradient in training
        layers[k](x).backward(gradients[k])

    return [forward, medians({k: lambda k=k: both(k) for k in layers})]


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measure() -> str:
    """Measure everything; return the page."""
    load = os.getloadavg()[0]
    seconds, apart = measure_bpnet()
    print(seconds, flush=True)
    rows = []
    for form in FORMS:
        for what in ("both", "counts"):
            ours, twin = seconds[f"ciscribe, {form}, {what}"], seconds[f"torch.nn, {form}, {what}"]
            peer = f"{seconds[PEER] / ours:.2f}" if PEER in seconds else "not installed"
            rows.append([f"{'profile and counts' if what == 'both' else 'counts only'}, {form}", f"{twin * 1e3:.0f}",
                         f"{ours * 1e3:.0f}", f"{twin / ours:.2f}", peer])
    peer = f"{seconds[PEER] * 1e3:.0f} ms" if PEER in seconds else "not installed"
    trained = []
    for name, (_, batch, length) in TRAINED.items():
        t = measure_training(name)
        trained.append([name, f"{batch} x {length:,}", f"{t['plain'] * 1e3:.0f}", f"{t['ours'] * 1e3:.0f}",
                        f"{t['plain'] / t['ours']:.2f}"])
        print(" | ".join(trained[-1]), flush=True)
    layers = []
    for name, (batch, length, *_) in LAYERS.items():
        cells = [cell for t in measure_layer(name)
                 for cell in (f"{t['plain'] * 1e3:.2f}", f"{t['ours'] * 1e3:.2f}", f"{t['plain'] / t['ours']:.2f}")]
        layers.append([name, f"{batch} x {length:,}", *cells])
        print(" | ".join(layers[-1]), flush=True)
    record = provenance()
    return f"""# Convolutions: speed beside torch.nn and bpnet-lite

Written by `benchmarks/convolutions.py --write` ({record["created"]}, {record["platform"]},
Python {record["python"]}, torch {record["packages"]["torch"]}; load {load:.1f} on {os.cpu_count()} cores at the
start{"; other work was running, so that times are too long and uneven" if load > 0.5 else ""}). float32,
{THREADS} threads; the programs alternate, medians of {RUNS} runs (training: 5). `torch.nn` is the same network with the
same weights, its layers of `ciscribe.nn.conv` turned into their namesakes.

## Target: BPNet forward, 64 filters, 8 dilated layers, {BATCH} x {LENGTH:,} bp

At least 1.5 times as fast as the same network of plain `nn.Conv1d`, and counts at least 2.5 times as fast as
bpnet-lite's count wrapper, which computes the profile as well.

{table(["", "torch.nn", "ciscribe", "times torch.nn", "times bpnet-lite"], rows)}

Milliseconds; bpnet-lite's count wrapper: {peer}. "Not padded" is the maintained form with 1,000 positions out, which
computes bpnet-lite's numbers; "padded" is the published one. With the same weights the log counts of all programs
differ by at most {apart:.1e}.

## Training steps

Forward, backward and AdamW; ms.

{table(["", "batch x L", "torch.nn", "ciscribe", "times faster"], trained)}

## Single layers

Forward without gradients, then forward and backward (to the input too, except for the first layer); ms. Each in its
own memory layout, as in a network.

{table(["layer", "batch x L", "torch.nn", "ciscribe", "times faster", "with backward: torch.nn", "ciscribe",
        "times faster"], layers)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}")
    chosen = parser.parse_args()
    torch.set_num_threads(THREADS)
    page = measure()
    print("\n" + page)
    if chosen.write:
        write_text(PAGE, page)


if __name__ == "__main__":
    main()
