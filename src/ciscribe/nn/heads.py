"""Heads: from one vector a bin to one number a target."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ExpressionHead(nn.Module):
    """Pool the bins, join the covariates, and predict the targets with an MLP.

    Parameters
    ----------
    d_model
        Channels in.
    n_targets
        Numbers out.
    n_covariates
        Gene features joined after pooling; 0 for none.
    center_bins
        ``pool="center"`` averages this many central bins (the paper: 2,000 bp); None averages all.
    pool
        ``"center"`` as published; ``"window"`` joins the mean of all bins to it, so that distant elements add up;
        ``"attention"`` joins four learned weighted means of all bins.
    dropout
        Before each linear layer of the MLP.
    """

    def __init__(self, d_model: int, n_targets: int, *, n_covariates: int = 0, center_bins: int | None = None,
                 pool: Literal["center", "window", "attention"] = "center", dropout: float = 0.0):
        super().__init__()
        if pool not in ("center", "window", "attention"):
            raise ValueError(f"pool is 'center', 'window' or 'attention'; got {pool!r}")
        self.center_bins, self.pool, self.n_covariates = center_bins, pool, n_covariates
        width = d_model * (2 if pool == "window" else 1)
        if pool == "attention":
            self.query = nn.Linear(d_model, 4)
            width = d_model * 5
        # a few elements move a mean over hundreds of bins by little: bring every feature to unit variance
        self.norm = nn.Identity() if pool == "center" else nn.BatchNorm1d(width)
        self.mlp = nn.Sequential(nn.Dropout(dropout), nn.Linear(width + n_covariates, d_model), nn.ReLU(),
                                 nn.Dropout(dropout), nn.Linear(d_model, d_model), nn.ReLU(),
                                 nn.Linear(d_model, n_targets))

    def forward(self, H: Float[Tensor, "B bins d"], covariates: Float[Tensor, "B C"] | None = None
                ) -> Float[Tensor, "B T"]:
        """Predict; `covariates` are needed exactly when `n_covariates` is not 0."""
        given = 0 if covariates is None else covariates.shape[1]
        if given != self.n_covariates:
            raise ValueError(f"this model expects {self.n_covariates} covariates a gene; got {given}")
        n = H.shape[1]
        k = n if self.center_bins is None else min(self.center_bins, n)
        start = (n - k) // 2
        pooled = [H[:, start:start + k].mean(dim=1)]
        if self.pool == "window":
            pooled.append(H.mean(dim=1))
        elif self.pool == "attention":
            weight = self.query(H).softmax(dim=1)  # B bins 4
            pooled.append(torch.einsum("bnd,bnk->bkd", H, weight).flatten(1))
        features = self.norm(torch.cat(pooled, dim=1))
        if covariates is not None:
            features = torch.cat([features, covariates.to(H.dtype)], dim=1)
        return self.mlp(features)
