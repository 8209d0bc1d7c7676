"""DeepBind: sixteen motif detectors, the best match of each, and a small network that weighs them.

Alipanahi, Delong, Weirauch & Frey, "Predicting the sequence specificities of DNA- and RNA-binding proteins by
deep learning", Nat Biotechnol 2015, doi:10.1038/nbt.3300. Reference code, not copied:
jisraeli/DeepBind@a9bbf5f:code/cfg, code/deepbind_util.py. What differs is on the card.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.card import Card
from ciscribe.errors import ConfigError
from ciscribe.nn.conv import Activation, Conv1d, activation

CARD = Card(
    name="deepbind", kind="model",
    summary="Scores how well a protein binds a short sequence, from the best match of each of its motifs.",
    paper="Alipanahi et al., Nat Biotechnol 2015, doi:10.1038/nbt.3300",
    code="jisraeli/DeepBind@a9bbf5f:code/cfg, code/deepbind_util.py",
    licence="MIT; the reference code is BSD",
    differences=(
        "One network is built from given sizes; the published calibration draws 30 configurations and keeps the best.",
        "The threshold of a motif is the bias of its convolution, with the opposite sign.",
        "Several targets share the motifs; the paper trains one network a protein.",
        "Published recipe: SGD with sampled rate (5e-4 to .05) and momentum (.95 to .99), batches of 64, at most "
        "20,000 steps, dinucleotide-shuffled negatives, ChIP-seq scored on both strands and the larger taken.",
    ),
    receptive_field=16, n_policy="N is 0.25 of each base, and so are the positions beyond the ends",
    parameters=1_617, task="classification", attribution=("gradient", "ism", "deeplift"),
)

PRESETS = {"cpu": {"kernel": 24}}


class DeepBind(nn.Module):
    """Motif scan, the best match of each motif, a small network: sequence of any length to one score a target.

    Parameters
    ----------
    n_targets
        Scores: logits for a classifier, values for a regression (PBM).
    filters
        Motif detectors.
    kernel
        Their length in bp: 16 in the released ChIP-seq and PBM configurations, 24 in the paper's text.
    pool
        ``"max"`` for DNA; ``"max_mean"`` joins the mean match over the sequence (the paper: RNA).
    hidden
        Width of the hidden layer; 0 leaves it out, as calibration may.
    dropout
        On the pooled matches; calibration chose among 0, 0.25 and 0.5.
    first_activation
        After the motif scan.
    """

    def __init__(self, n_targets: int = 1, *, filters: int = 16, kernel: int = 16,
                 pool: Literal["max", "max_mean"] = "max", hidden: int = 32, dropout: float = 0.0,
                 first_activation: Activation = "relu"):
        super().__init__()
        if pool not in ("max", "max_mean"):
            raise ConfigError(f"pool is 'max' or 'max_mean'; got {pool!r}")
        self.kernel = kernel
        self.scan = nn.Sequential(Conv1d(4, filters, kernel), activation(first_activation))
        self.best = nn.AdaptiveMaxPool1d(1)
        self.mean = nn.AdaptiveAvgPool1d(1) if pool == "max_mean" else None
        width = filters if self.mean is None else 2 * filters
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        if hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(hidden or width, n_targets)

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Score sequences of any length."""
        # What a position lacks of one base is spread over the four: linear, so that gradients and references of
        # attributions keep their meaning.
        X = X + 0.25 * (1 - X.sum(dim=1, keepdim=True))
        H = self.scan(F.pad(X, (self.kernel - 1, self.kernel - 1), value=0.25))
        pooled = [self.best(H)] if self.mean is None else [self.best(H), self.mean(H)]
        return self.head(self.trunk(torch.cat(pooled, dim=1).flatten(1)))
