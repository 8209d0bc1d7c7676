"""A reporter assay whose law is known: what a sequence does is whether it holds a motif, plus noise."""

import numpy as np
import pandas as pd

MOTIF = "TGACGTCA"
LENGTH = 41


def planted(n=300, *, seed=0, noise=0.2, length=LENGTH, motif=MOTIF, copies=1):
    """Table ``sequence, activity, weak, active, gene``: half of the random sequences hold the motif somewhere."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("ACGT"))[rng.integers(0, 4, (n, length))]
    has = rng.permutation(n) % 2 == 0
    for i in np.flatnonzero(has):
        for at in rng.integers(0, length - len(motif) + 1, copies):
            letters[i, at:at + len(motif)] = list(motif)
    return pd.DataFrame({"sequence": ["".join(row) for row in letters],
                         "activity": 2.0 * has + noise * rng.normal(size=n),
                         "weak": 0.5 * has + noise * rng.normal(size=n),
                         "active": has.astype(int),
                         "gene": [f"gene{i % 17}" for i in range(n)]})


def write(table, path):
    """Write a table as tab-separated text and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False)
    return path


def one_model(folder, **changes):
    """Configuration of a run on ``assay.tsv`` of a folder: a small DeepBind, a few epochs."""
    raw = {"name": "planted", "seed": 3, "root": str(folder), "assay": {"path": "assay.tsv"}, "folds": {"n": 3},
           "model": {"name": "deepbind", "arguments": {"filters": 5, "kernel": 9, "hidden": 7}},
           "train": {"epochs": 3, "batch_size": 16, "learning_rate": 0.02, "average": 0.0, "device": "cpu",
                     "n_threads": 1}}
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) and key in raw else value
    return raw
