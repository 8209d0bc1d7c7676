"""What predictions are made of: ``python validation/elements.py modalities [--write]``.

Checks on a law that is known, then the runs of the other two parts.
"""

from pathlib import Path

import elements_world
import elements_worm
import numpy as np
import pandas as pd
import torch
from elements_worm import markdown
from torch import Tensor, nn

from ciscribe.interpret.modalities import modality_shapley
from ciscribe.oracle import Oracle
from ciscribe.workflow.modalities import split_modalities

N_GENES = 40


class Law(nn.Module):
    """Twice the first signal, and its product with the second; bases and covariates do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, X: Tensor, S: Tensor, covariates: Tensor) -> dict[str, Tensor]:
        """Expression of the law."""
        a, b = S.mean(dim=2).T
        return {"expression": (2 * a + a * b)[:, None]}


def page() -> str:
    """Markdown of the section."""
    rng = np.random.default_rng(0)
    S = torch.from_numpy(rng.gamma(2, 1, (31, 2, 7))).float()
    found = modality_shapley(Oracle(Law(), device="cpu"), rng.integers(0, 4, (31, 35)).astype(np.uint8), S,
                             torch.ones(31, 1), tracks=["a", "b"], covariate_names=["x"], n_shuffles=2)
    wide = found.pivot_table(index="region", columns="group", values="shapley", sort=False)
    a, b = S.mean(dim=2).T.double().numpy()
    truth = {"sequence": 0 * a, "a": 2 * a + a * b / 2, "b": a * b / 2, "covariates": 0 * a}
    worst = max(float(np.abs(wide[name].to_numpy() - value).max()) for name, value in truth.items())
    lines = ["## Modalities", "",
             "On a law that is known (2a + ab of two signals, 31 genes): largest error of any Shapley value "
             f"{worst:.1e}; bases and covariates get 0.", ""]
    for title, folder, name in (("World, `full`", elements_world.FOLDER, "full"),
                                ("World, `signal_gate`", elements_world.FOLDER, "signal_gate"),
                                ("Worm, `atac_emb`", elements_worm.FOLDER, "atac_emb")):
        lines += section(title, folder.resolve() / name)
    return "\n".join(lines)


def section(title: str, run: Path) -> list[str]:
    """Shares and counterfactuals of a run."""
    out = run / "explain"
    if not (out / "modalities.parquet").exists():
        split_modalities(run, n=N_GENES, progress=False)
    split = pd.read_parquet(out / "modalities.parquet")
    size = split.assign(size=split["shapley"].abs()).groupby(["target", "group"], sort=False)["size"].mean()
    wide = size.reset_index().pivot_table(index="target", columns="group", values="size", sort=False)
    share = wide.div(wide.sum(axis=1), axis=0)
    lines = [f"### {title}", "",
             f"{split['region'].nunique()} test genes; absent: bases shuffled (5 dinucleotide shuffles), signals as "
             "in the average training gene. Mean size of the contribution, and its share.", "",
             markdown(["target", *wide.columns],
                      [[str(t), *(f"{wide.loc[t, g]:.3f} ({share.loc[t, g]:.0%})" for g in wide.columns)]
                       for t in wide.index])]
    if (out / "counterfactuals.parquet").exists():
        erased = pd.read_parquet(out / "counterfactuals.parquet")
        columns = ["signal_effect", "dna_effect", "both_effect", "interaction"]
        mean = erased[columns].mean()
        lines += ["", f"{erased['place'].nunique()} highest peaks of their windows: mean effect of erasing the signal "
                  f"{mean['signal_effect']:+.3f}, of shuffling the DNA {mean['dna_effect']:+.3f}, of both "
                  f"{mean['both_effect']:+.3f}; interaction {mean['interaction']:+.3f}."]
    return [*lines, ""]
