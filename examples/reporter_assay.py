"""Train a model on a reporter assay, then ask it what a binding site is worth, and where.

Run it as ``python examples/reporter_assay.py``.

The library is simulated, so the truth is known: promoters of 80 bp carry sites of four factors, and a site counts the
more the nearer it lies to the transcription start at the right end. K-mers cannot say that, since they know which
words a sequence holds and not where; a network can.
"""

import numpy as np
import pandas as pd
import torch

from ciscribe.config import AssayTrainConfig, AugmentConfig
from ciscribe.data.motif_table import factor
from ciscribe.data.reporter import reporter_set
from ciscribe.data.similarity import grouped_folds, similarity_groups
from ciscribe.nn.motifs import start_from_motifs
from ciscribe.oracle import Oracle
from ciscribe.sequence import encode
from ciscribe.train.metrics import pearson
from ciscribe.train.sequence_baselines import run_sequence_baselines
from ciscribe.workflow.reporter import build_model, fit_assay, split_rows

LENGTH = 80  # bp
STRENGTH = {"HNF1A": 1.5, "CEBPA": 1.0, "FOS::JUN": 1.2, "REST": -1.5}  # log2 units of a site at the right end


def library(n: int, seed: int = 0) -> pd.DataFrame:
    """Promoters with random sites and their measured activity, log2 RNA/DNA."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        sequence, activity = rng.choice(list("ACGT"), LENGTH), rng.normal(0, 0.2)
        for name, strength in STRENGTH.items():
            ppm = factor(name).ppm
            for _ in range(rng.poisson(0.6)):
                at = int(rng.integers(0, LENGTH - ppm.shape[1]))
                sequence[at:at + ppm.shape[1]] = [rng.choice(list("ACGT"), p=column) for column in ppm.T]
                activity += strength * at / LENGTH
        rows.append({"sequence": "".join(sequence), "activity": activity})
    return pd.DataFrame(rows)


def main() -> dict[str, float]:
    """Train, compare with k-mers on held-out promoters, move a site through new ones; return the correlations."""
    data = reporter_set(library(1200))
    groups = similarity_groups(data.codes)  # relatives stay in one fold
    rows = split_rows(grouped_folds(groups, 5, stratify=data.targets), test=0, n=5)

    torch.manual_seed(0)
    model, _ = build_model("jores", 1, LENGTH, arguments={"filters": 24})
    start_from_motifs(model, [factor(name).ppm for name in STRENGTH])
    plan = AssayTrainConfig(epochs=10, batch_size=32, learning_rate=3e-3, average=0.9, patience=None,
                            augment=AugmentConfig(shift=4), device="cpu", n_threads=1)  # so small, one is fastest
    model, _ = fit_assay(model, data, rows, "regression", plan)
    oracle = Oracle(model, device="cpu")

    test = rows["test"]
    predicted = oracle.predict(torch.from_numpy(data.codes[test])).numpy()
    rivals = run_sequence_baselines(data.codes, data.targets, rows["train"], rows["valid"], test, groups=groups)
    scores = {name: pearson(data.targets[test, 0], p[:, 0]) for name, p in ({"model": predicted} | rivals).items()}

    rng = np.random.default_rng(1)
    site = encode("GGTTAATGATTAACC")  # the consensus of HNF1A
    background = rng.integers(0, 4, (64, LENGTH)).astype(np.uint8)
    before = oracle.predict(torch.from_numpy(background))
    places = np.arange(0, LENGTH - len(site), 5)
    effect = []
    for at in places:
        planted = background.copy()
        planted[:, at:at + len(site)] = site
        effect.append(float((oracle.predict(torch.from_numpy(planted)) - before).mean()))
    return scores | {"place": pearson(STRENGTH["HNF1A"] * places / LENGTH, np.array(effect))}


if __name__ == "__main__":
    found = main()
    for name in ("model", "gbm_kmers", "ridge_kmers"):
        print(f"activity of held-out promoters, {name}: r {found[name]:.2f}")
    print(f"what a site of HNF1A is worth at each place: r {found['place']:.2f} with the truth")
