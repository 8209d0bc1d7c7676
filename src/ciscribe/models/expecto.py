"""ExPecto: expression per tissue from 40 kb around a gene's start, through predicted chromatin; and its trunk, Beluga.

Zhou et al., "Deep learning sequence-based ab initio prediction of variant effects on expression and disease risk",
Nature Genetics 2018, doi:10.1038/s41588-018-0160-6. Reference code: FunctionLab/ExPecto@1b89458:chromatin.py, train.py,
predict.py (academic licence, not copied; written from the paper and the published layer table).

Channels are A C G T here as everywhere. The published weights read A G C T and keep their kernels as images
``(out, in, 1, 8)``: whoever loads them swaps channels 1 and 2 of the first kernel and drops the third axis.

The published road to expression trains Beluga on chromatin, freezes it, and fits the head to its features::

    phi = torch.cat([model.features(X) for X in batches])  # (genes, 10 · n_features), model.eval(), no gradient
    model.fit_head(phi, y)                                 # ridge, closed form
    lightgbm.LGBMRegressor().fit(phi.numpy(), y[:, 0].numpy())  # or boosted trees on the same features, a tissue each

With chromatin predicted or measured elsewhere, `spatial_features` gives the same features.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.nn.conv import Activation, Conv1d, MaxPool1d, activation, need_length
from ciscribe.sequence import reverse_complement

_PAPER = "Zhou et al., Nat Genet 2018, doi:10.1038/s41588-018-0160-6"
_LICENCE = "MIT (ours); published code and weights academic, non-commercial"

CARD_BELUGA = Card(
    name="beluga", kind="model", task="classification", parameters=149_536_251,
    summary="Predicts 2,002 chromatin features (marks, accessibility, bound factors) of 200 bp from 2 kb of sequence.",
    paper=_PAPER, code="FunctionLab/ExPecto@1b89458:chromatin.py", licence=_LICENCE, input_length=2_000,
    attribution=("gradient", "ism", "deeplift"),
    differences=(
        "Channels are A C G T; the published weights read A G C T, and swapping them is the loader's part.",
        "Returns logits; their sigmoid is the published output.",
    ),
)
CARD = Card(
    name="expecto", kind="model", task="regression", parameters=149_536_251 + 20_021,
    summary="Predicts a gene's expression per tissue from 40 kb around its start, through predicted chromatin that "
            "fades with distance.",
    paper=_PAPER, code="FunctionLab/ExPecto@1b89458:chromatin.py, train.py, predict.py", licence=_LICENCE,
    input_length=40_000, receptive_field=41_800, resolution=200, attribution=("gradient", "ism"),
    differences=(
        "Sequences are read 5'→3' of the gene with its start at L // 2, so that distances need no flipping.",
        "The head is solved in closed form or trained by gradient; the published linear booster stops before it gets "
        "there.",
        "No dummy feature before each block of features, as older published heads have.",
        "All layers may be trained together; published, Beluga is fixed.",
    ),
)
PRESETS = {"cpu": {"n_bins": 40, "n_features": 16, "channels": (32, 48, 64), "hidden": 64}}
PRESETS_BELUGA = {"cpu": {"channels": (32, 48, 64), "hidden": 64}}

RATES = (0.01, 0.02, 0.05, 0.1, 0.2)


class Beluga(nn.Module):
    """Six convolutions in three pairs, no residual connections, then two dense layers.

    Parameters
    ----------
    n_targets
        Chromatin features out.
    length
        bp of the sequences.
    channels
        Filters of the three pairs of 8-wide convolutions; the first two pairs are pooled by 4.
    hidden
        Width of the dense layer.
    first_activation
        After the first convolution.

    References
    ----------
    See the head of this file.
    """

    def __init__(self, n_targets: int = 2_002, *, length: int = 2_000, channels: tuple[int, ...] = (320, 480, 640),
                 hidden: int = 2_003, first_activation: Activation = "relu"):
        super().__init__()
        if len(channels) != 3:
            raise ValueError(f"channels are those of 3 pairs of convolutions; got {len(channels)}")
        left = ((length - 14) // 4 - 14) // 4 - 14
        if left < 1:
            raise ValueError(f"length is at least 310 bp; got {length}")
        self.length = length
        layers: list[nn.Module] = []
        n_in = 4
        for i, n_out in enumerate(channels):
            layers += [Conv1d(n_in, n_out, 8), activation("relu" if i else first_activation),
                       Conv1d(n_out, n_out, 8), nn.ReLU(), nn.Dropout(0.5 if i == 2 else 0.2)]
            layers += [MaxPool1d(4)] if i < 2 else []
            n_in = n_out
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(left * n_in, hidden), nn.ReLU(), nn.Linear(hidden, n_targets))

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Predict one logit a chromatin feature.

        Raises
        ------
        SchemaError
            When the sequence has another length than the model was built for.
        """
        need_length(X, self.length, "Beluga")
        return self.head(self.trunk(X).flatten(1))


def spatial_features(chromatin: Float[Tensor, "B F bins"], distance: Float[Tensor, " bins"], *, step: int = 200
                     ) -> Float[Tensor, "B P"]:
    """Sum chromatin over bins, upstream and downstream apart, with weights that fade exponentially.

    Parameters
    ----------
    chromatin
        F features of each bin.
    distance
        bp from the gene's start to the centre of each bin, negative upstream. A bin at 0 counts on both sides.
    step
        Distances are floored to multiples of it.

    Returns
    -------
    Tensor
        10 · F features, weight by weight: F features with upstream rate 0.01, then 0.02, 0.05, 0.1, 0.2, then the
        same five downstream.
    """
    steps = (distance.abs() / step).floor().to(chromatin.dtype)
    fade = torch.exp(-torch.tensor(RATES, dtype=steps.dtype, device=steps.device)[:, None] * steps)
    weight = torch.cat([fade * (distance <= 0), fade * (distance >= 0)])
    return torch.einsum("bfn,kn->bkf", chromatin, weight).flatten(1)


def ridge_head(phi: Float[Tensor, "n P"], y: Float[Tensor, "n T"], ridge: float = 100.0
               ) -> tuple[Float[Tensor, "T P"], Float[Tensor, " T"]]:
    """Weights and intercepts that minimize Σ (y − w·φ − b)² + ridge · |w|², in closed form and float64.

    Parameters
    ----------
    phi, y
        Features, and targets of which NaN is not measured. Neither is scaled: published, y is
        ln(RPKM + 0.0001) and the features are as `spatial_features` gives them.
    ridge
        Penalty of the weights, not of the intercept; 100 as published.

    Raises
    ------
    SchemaError
        When rows do not match, a feature is not finite, or a target was measured in no gene.
    """
    if len(phi) != len(y):
        raise SchemaError(f"one row of targets for each row of features is needed; got {len(phi)} and {len(y)}")
    if ridge <= 0:
        raise ValueError(f"ridge is above 0; got {ridge}")
    if not bool(phi.isfinite().all()):
        bad = (~phi.isfinite().all(dim=1)).nonzero().flatten()
        raise SchemaError(f"features must be finite; {len(bad)} of {len(phi)} rows are not; first: row {int(bad[0])}")
    phi, y = phi.double(), y.double()
    measured = ~y.isnan()
    if not bool(measured.any(dim=0).all()):
        empty = (~measured.any(dim=0)).nonzero().flatten()
        raise SchemaError(f"{len(empty)} of {y.shape[1]} targets were measured in no gene; first: column "
                          f"{int(empty[0])}; leave them out")
    weight, bias = phi.new_zeros(y.shape[1], phi.shape[1]), y.new_zeros(y.shape[1])
    patterns, which = torch.unique(measured, dim=1, return_inverse=True)
    for i in range(patterns.shape[1]):  # targets measured in the same genes are solved together
        rows, columns = patterns[:, i], which == i
        center, level = phi[rows].mean(dim=0), y[rows][:, columns].mean(dim=0)
        a, b = phi[rows] - center, y[rows][:, columns] - level
        # the smaller of the two systems: genes × genes, or features × features
        wide = a.shape[0] < a.shape[1]
        gram = a @ a.T if wide else a.T @ a
        gram.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(gram)
        solved = a.T @ torch.cholesky_solve(b, factor) if wide else torch.cholesky_solve(a.T @ b, factor)
        weight[columns], bias[columns] = solved.T, level - center @ solved
    return weight, bias


class Expecto(nn.Module):
    """Beluga at every 200 bp of both strands, ten fading sums of its features, and a linear head a tissue.

    Parameters
    ----------
    n_targets
        Tissues.
    n_bins, step
        Bins around the gene's start and bp from one to the next; bins start at −n_bins // 2.
    context
        bp that Beluga reads around each bin's centre.
    n_features, channels, hidden, first_activation
        Of `Beluga`; n_features is its n_targets.
    chunk_size
        Contexts that go through Beluga at once. With gradients, chunks are computed again in the backward pass, so
        that memory does not grow with the number of bins.

    References
    ----------
    See the head of this file.
    """

    distance: Tensor

    def __init__(self, n_targets: int = 1, *, n_bins: int = 200, step: int = 200, context: int = 2_000,
                 n_features: int = 2_002, channels: tuple[int, ...] = (320, 480, 640), hidden: int = 2_003,
                 first_activation: Activation = "relu", chunk_size: int = 64):
        super().__init__()
        self.n_bins, self.step, self.context, self.chunk_size = n_bins, step, context, chunk_size
        self.beluga = Beluga(n_features, length=context, channels=channels, hidden=hidden,
                             first_activation=first_activation)
        self.head = nn.Linear(2 * len(RATES) * n_features, n_targets)
        self.register_buffer("distance", (torch.arange(n_bins) - n_bins // 2) * float(step), persistent=False)

    def _both_strands(self, contexts: Tensor) -> Tensor:
        return (self.beluga(contexts).sigmoid() + self.beluga(reverse_complement(contexts)).sigmoid()) / 2

    def _chromatin(self, contexts: Tensor) -> Tensor:
        """Features of the bins of one gene, ``(bins, 4, context)`` to ``(bins, F)``."""
        chunks = contexts.split(self.chunk_size)
        if torch.is_grad_enabled():
            return torch.cat([checkpoint(self._both_strands, c, use_reentrant=False) for c in chunks])
        return torch.cat([self._both_strands(c) for c in chunks])

    def features(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B P"]:
        """The 10 · n_features fading sums that the head reads.

        Parameters
        ----------
        X
            Sequences 5'→3' of the gene, its start in the middle (L // 2): n_bins · step bp, where the contexts of the
            outermost bins run into N, or ``context`` bp more, where they do not.

        Raises
        ------
        SchemaError
            When the sequence has neither length.
        """
        span = self.n_bins * self.step
        if X.shape[-1] == span:
            X = F.pad(X, (self.context // 2, self.context - self.context // 2))
        elif X.shape[-1] != span + self.context:
            raise SchemaError(f"Expecto reads {span:,} bp around the gene's start, or {span + self.context:,} bp with "
                              f"the surroundings of the outermost bins; got {X.shape[-1]:,} bp; pad or trim the "
                              f"sequences, or change n_bins (now {self.n_bins})")
        contexts = X.unfold(2, self.context, self.step)[:, :, :self.n_bins].transpose(1, 2)  # B bins 4 context
        chromatin = torch.stack([self._chromatin(gene) for gene in contexts])  # B bins F
        return spatial_features(chromatin.transpose(1, 2), self.distance, step=self.step)

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B T"]:
        """Predict one value a tissue, ln(RPKM + 0.0001) as published; X as in `features`."""
        return self.head(self.features(X))

    def fit_head(self, phi: Float[Tensor, "n P"], y: Float[Tensor, "n T"], ridge: float = 100.0) -> None:
        """Set the head to the ridge solution for features of `features`; see `ridge_head`."""
        if (y.shape[1], phi.shape[1]) != self.head.weight.shape:
            raise SchemaError(f"the head reads {self.head.in_features:,} features for {self.head.out_features} "
                              f"targets; got {phi.shape[1]:,} for {y.shape[1]}")
        weight, bias = ridge_head(phi, y, ridge)
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)
