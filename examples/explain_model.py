"""Train a network of your own in plain PyTorch, explain it in several ways, and see which way finds the true sites.

Run it as ``python examples/explain_model.py``.

The library is simulated, so every binding site that counts is known. A method of explanation is asked for the bases
that matter most; what share of them lies in a site? Nothing here is special to the network: any module that turns
one-hot DNA into numbers can stand in its place.
"""

import numpy as np
import torch
from torch import nn

from ciscribe.data.grammar import WorldOracle
from ciscribe.data.world_assay import Assay, simulate_assay
from ciscribe.interpret.methods import attribute
from ciscribe.interpret.robustness import faithfulness
from ciscribe.nn.motifs import start_from_motifs
from ciscribe.oracle import Oracle
from ciscribe.results import contributions
from ciscribe.sequence import one_hot, one_hot_tensor
from ciscribe.train.metrics import pearson

METHODS = ("deeplift", "gradient", "ism")
N_TRAIN, N_TEST, LENGTH = 3_000, 40, 120


def network() -> nn.Module:
    """A convolutional network like many; its first layer starts from the motifs of the factors."""
    model = nn.Sequential(nn.Conv1d(4, 48, 15, padding=7), nn.ReLU(), nn.MaxPool1d(4), nn.Conv1d(48, 32, 5, padding=2),
                          nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 1))
    start_from_motifs(model, [f.ppm for f in WorldOracle().factors])
    return model


def train(model: nn.Module, assay: Assay, epochs: int = 9) -> None:
    """Minimize the squared error, in steps of 64 sequences."""
    X = one_hot_tensor(torch.from_numpy(assay.codes[:N_TRAIN]))
    y = torch.from_numpy(assay.activity[:N_TRAIN])
    center, spread = y.mean(), y.std()
    steps = epochs * -(-N_TRAIN // 64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(N_TRAIN).split(64):
            optimizer.zero_grad()
            (model(X[rows]) - (y[rows] - center) / spread).square().mean().backward()
            optimizer.step()
            schedule.step()


def sites(assay: Assay, rows: range) -> np.ndarray:
    """Whether each base lies in a site of a factor that the cell has, bool ``(rows, L)``."""
    active = WorldOracle(assay.cells).tf_activity.iloc[0]
    inside = np.zeros((len(rows), assay.codes.shape[1]), dtype=bool)
    for site in assay.sites[assay.sites["window"].isin(rows)].itertuples():
        if active[site.factor] >= 0.5:
            inside[site.window - rows[0], site.start:site.end] = True
    return inside


def main() -> dict[str, float]:
    """Train, explain the test sequences by each method; return the shares of the top bases that lie in a site."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small, one is fastest
    assay = simulate_assay(N_TRAIN + N_TEST, length=LENGTH, cells=("liver",), noise=0.05, seed=0)
    model = network()
    train(model, assay)

    test = range(N_TRAIN, N_TRAIN + N_TEST)
    oracle, X, inside = Oracle(model, device="cpu"), assay.codes[test], sites(assay, test)
    predicted = oracle.predict(torch.from_numpy(X)).numpy()
    found = {"prediction": pearson(assay.truth[test, 0], predicted[:, 0]), "chance": float(inside.mean())}

    maps = {name: attribute(oracle, X, method=name) for name in METHODS}
    for name, array in maps.items():
        strength = np.abs(contributions(array, one_hot(X)).values[:, :, 0])
        found[name] = float(inside[strength >= np.quantile(strength, 0.95)].mean())
    areas = faithfulness(oracle, X[:6], {name: array[:6] for name, array in maps.items()}).areas
    gaps = areas[areas["curve"] == "difference"].set_index("method")["gap"]
    return found | {f"faithfulness of {name}": float(gaps[name]) for name in METHODS}


if __name__ == "__main__":
    found = main()
    print(f"prediction of new sequences: r {found['prediction']:.2f} with the truth")
    print(f"bases in a true site, of all: {found['chance']:.0%}")
    for name in METHODS:
        print(f"bases in a true site, of the top 5 % by {name}: {found[name]:.0%}; the model bears its order out by "
              f"{found[f'faithfulness of {name}']:.2f} over chance")
