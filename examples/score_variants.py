"""Score variants with a network of your own and with known motifs, and see which of them find the broken sites.

Run it as ``python examples/score_variants.py``.

The genome is simulated, so the effect of every variant is known: half of them break a binding site, the others lie
beside one. The network learns from a reporter assay of random sequences and never sees the genome. Nothing here is
special to it: any module that turns one-hot DNA into numbers can stand in its place.
"""

import numpy as np
import torch
from torch import nn

from ciscribe.data.world import world
from ciscribe.data.world_assay import Assay, simulate_assay
from ciscribe.io.genome import MemoryGenome
from ciscribe.nn.motifs import start_from_motifs
from ciscribe.oracle import Oracle
from ciscribe.schema import Motif
from ciscribe.sequence import one_hot_tensor
from ciscribe.train.labels import auroc
from ciscribe.variants.motif_effects import motif_effects
from ciscribe.variants.null import p_values, shuffled_null
from ciscribe.variants.personal import sign_test
from ciscribe.variants.score import score_variants

LENGTH = 100  # bp that the network reads
EPOCHS = 8


def network(ppms: list[np.ndarray], n_cells: int) -> nn.Module:
    """A convolutional network whose first layer starts from the motifs of the factors."""
    model = nn.Sequential(nn.Conv1d(4, 48, 15, padding=7), nn.ReLU(), nn.MaxPool1d(4), nn.Conv1d(48, 32, 5, padding=2),
                          nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, n_cells))
    start_from_motifs(model, ppms)
    return model


def train(model: nn.Module, assay: Assay) -> None:
    """Minimize the squared error, in steps of 64 sequences."""
    X, y = one_hot_tensor(torch.from_numpy(assay.codes)), torch.from_numpy(assay.activity)
    y = (y - y.mean(dim=0)) / y.std(dim=0)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=EPOCHS * -(-len(X) // 64))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(X)).split(64):
            optimizer.zero_grad()
            (model(X[rows]) - y[rows]).square().mean().backward()
            optimizer.step()
            schedule.step()


def main() -> dict[str, float]:
    """Train, score the variants of a world by the network and by motifs; return how well the truth is found."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small, one is fastest
    w = world(n_genes=80, n_chroms=2, seed=2)
    model = network([f.ppm for f in w.motifs], len(w.cells))
    train(model, simulate_assay(2_000, length=LENGTH, cells=w.cells, noise=0.05, seed=0))

    genome, oracle = MemoryGenome(w.genome), Oracle(model, device="cpu")
    variants = w.variants.loc[:, ["chrom", "pos", "ref", "alt", "name"]]
    effects = score_variants(oracle, genome, variants, length=LENGTH, tracks=w.cells)
    effects = p_values(effects, shuffled_null(oracle, genome, variants, length=LENGTH, n=5, tracks=w.cells))
    motifs = motif_effects(genome, variants, [Motif(f.name, f.ppm, "world") for f in w.motifs]).summarize()

    breaking = (w.variants["kind"] == "breaking").to_numpy()
    size = effects["diff"].abs().groupby(effects["name"]).max().loc[variants["name"]].to_numpy()
    rare = effects["diff_p"].groupby(effects["name"]).min().loc[variants["name"]].to_numpy()
    cell = w.cells[0]
    truth = -w.variants[f"effect_{cell}"].to_numpy()  # the world's effects are reference − alternative
    signs = sign_test(truth, effects.loc[effects["track"] == cell, "diff"].to_numpy())
    return {"variants": len(variants), "network": auroc(breaking, size),
            "motifs": auroc(breaking, np.abs(motifs["d_pwm"].to_numpy(float))),
            "signs": signs.share, "guess": float((truth[truth != 0] < 0).mean()),
            "p_breaking": float(np.median(rare[breaking])), "p_neutral": float(np.median(rare[~breaking]))}


if __name__ == "__main__":
    found = main()
    print(f"{found['variants']} variants, half of which break a binding site; AUROC by the size of their score:")
    print(f"  the network {found['network']:.2f}, the largest change of a motif {found['motifs']:.2f}")
    print(f"direction of the effect right: {found['signs']:.0%}; by guessing that all lower it: {found['guess']:.0%}")
    print(f"median p-value of broken sites {found['p_breaking']:.3f}, of the others {found['p_neutral']:.3f}")
