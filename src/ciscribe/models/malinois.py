"""Malinois: Basset's convolutions and one branch of dense layers a cell type, from 600 bp to reporter activities.

Gosai, Castro et al., "Machine-guided design of cell-type-targeting cis-regulatory elements", Nature 2024,
doi:10.1038/s41586-024-08070-z. Reference code, not copied: sjgosai/boda2@d74deca:boda/model/basset.py. What differs
is on the card.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import ConfigError
from ciscribe.nn.conv import Activation, BatchNorm1d, Conv1d, MaxPool1d, activation, need_length

CARD = Card(
    name="malinois", kind="model",
    summary="Predicts the reporter activity of 200 bp between its plasmid flanks in three human cell lines.",
    paper="Gosai et al., Nature 2024, doi:10.1038/s41586-024-08070-z",
    code="sjgosai/boda2@d74deca:boda/model/basset.py",
    licence="MIT; published network and weights: MIT; the rest of the reference code: AGPL-3.0",
    differences=(
        "The last pool is padded by the pool itself, not by zeros; after a ReLU that is the same.",
        "Published recipe: Adam (amsgrad) with rate 3.27e-3, betas .866 and .879, weight decay 3.44e-4, cosine warm "
        "restarts every 4,096 steps, batches of 1,076, both strands, L1 plus 5 times the KL between the cell types.",
    ),
    input_length=600, receptive_field=600, n_policy="N is four zeros; flanks are given as bases, not as N",
    parameters=4_107_183, task="regression", attribution=("gradient", "ism", "deeplift"),
)

PRESETS = {"cpu": {"filters": (64, 48, 48), "hidden": 128, "branch": 32}}


class BranchedLinear(nn.Module):
    """A linear layer of its own for each branch, as one batched matrix product.

    Parameters
    ----------
    branches
        Number of branches.
    n_in, n_out
        Width of a branch before and after. The weight is ``(branches, n_in, n_out)``, as published.
    """

    def __init__(self, branches: int, n_in: int, n_out: int):
        super().__init__()
        bound = n_in**-0.5  # as torch.nn.Linear
        self.weight = nn.Parameter(torch.empty(branches, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(branches, 1, n_out).uniform_(-bound, bound))

    def forward(self, H: Float[Tensor, "B branches n_in"]) -> Float[Tensor, "B branches n_out"]:
        """Apply each branch to its own features."""
        return torch.baddbmm(self.bias, H.transpose(0, 1), self.weight).transpose(0, 1)


class Malinois(nn.Module):
    """Sequence of `length` bp to activities, log2 RNA/DNA in the publication.

    The flattened features run channel by channel, ``(C, L)``, as in the published weights.

    Parameters
    ----------
    n_targets
        Cell types, each with a branch; published: K562, HepG2, SK-N-SH.
    length
        Sequence in bp with its flanks, at least 24.
    filters
        Of the three convolutions, 19, 11 and 7 bp wide, max-pooled by 3, 4 and 4.
    hidden
        Width of the shared dense layer.
    branch
        Width of the three dense layers of a branch.
    dropout
        After the shared dense layer, and after the first two layers of the branches.
    first_activation
        After the first convolution and its normalization.

    Raises
    ------
    ConfigError
        When `length` is too short.
    """

    def __init__(self, n_targets: int = 3, *, length: int = 600, filters: tuple[int, int, int] = (300, 200, 200),
                 hidden: int = 1_000, branch: int = 140, dropout: tuple[float, float] = (0.1163, 0.5758),
                 first_activation: Activation = "relu"):
        super().__init__()
        if length < 24:
            raise ConfigError(f"malinois needs sequences of at least 24 bp for its three pools; got length={length}")
        self.length, self.n_targets = length, n_targets
        bins = (length // 12 + 2) // 4
        a, b, c = filters
        self.trunk = nn.Sequential(
            Conv1d(4, a, 19, padding="same"), BatchNorm1d(a), activation(first_activation), MaxPool1d(3),
            Conv1d(a, b, 11, padding="same"), BatchNorm1d(b), nn.ReLU(), MaxPool1d(4),
            Conv1d(b, c, 7, padding="same"), BatchNorm1d(c), nn.ReLU(), MaxPool1d(4, padding=1),
            nn.Flatten(), nn.Linear(c * bins, hidden), BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout[0]))
        self.branches = nn.Sequential(
            BranchedLinear(n_targets, hidden, branch), nn.ReLU(), nn.Dropout(dropout[1]),
            BranchedLinear(n_targets, branch, branch), nn.ReLU(), nn.Dropout(dropout[1]),
            BranchedLinear(n_targets, branch, branch))  # without an activation, as published
        self.head = BranchedLinear(n_targets, branch, 1)

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Activities."""
        need_length(X, self.length, "malinois")
        H = self.trunk(X).unsqueeze(1).expand(-1, self.n_targets, -1)
        return self.head(self.branches(H)).squeeze(-1)
