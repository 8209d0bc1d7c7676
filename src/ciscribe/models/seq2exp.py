"""Seq2Exp: expression from DNA and signals through a learned mask of regulatory elements.

Su et al., "Learning to discover regulatory elements for gene expression prediction", ICLR 2025,
arXiv:2502.13991. Written from the paper.

A generator reads the sequence and proposes, bin by bin, how open the mask should be; a parameter-free branch
does the same from the signals; their product (a Beta) multiplies the input of the predictor. ``resolution=1``
with ``d_model=128, n_layers=4`` is the paper; larger resolutions run mask and state space on bins after a
convolutional stem and train on a CPU.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.nn.conv import ConvStem
from ciscribe.nn.heads import ExpressionHead
from ciscribe.nn.mask import BetaMask, Bottleneck, Posterior
from ciscribe.nn.ssm import BiMambaStack

CARD = Card(
    name="seq2exp", kind="model",
    summary="Predicts a gene's expression from DNA and signals through a mask that it learns to keep sparse.",
    paper="Su et al., ICLR 2025, arXiv:2502.13991",
    code="written from the paper",
    parameters=1_114_371, task="regression", attribution=("gradient", "ism"),
    differences=(
        "The two directions of a layer share the in- and out-projection; convolution, step sizes and state matrix are "
        "each direction's own.",
        "resolution > 1 embeds the sequence with a convolutional stem and runs mask and state space on bins.",
        "The signal branch of the mask is calibrated per track on training windows (calibrate=False: as published).",
        "The stem is shared by generator and predictor.",
        "A masked bin is mixed with a learned empty token, m·token + (1 − m)·empty with tokens of unit size, instead "
        "of being scaled by m: the normalization of the first layer undoes a scaling, so that a half-closed bin "
        "would be seen in full (empty_token=False: as published).",
        "The hard variant multiplies by the 0/1 mask; it does not pack the selected positions next to each other, "
        "so its cost does not fall with the mask.",
        "pool='window' or 'attention' joins means over all bins to the mean of the central 2,000 bp.",
        "Several targets are predicted at once; covariates are whatever the gene table names.",
    ),
    n_policy="N is four zeros; a blacklisted bin has mask 0",
)

MASKS = ("learned", "open", "random", "peaks")
_SURE, _UNSEEN = 1e4, 1e-4  # Beta parameters of a mask that is not in doubt


class _Generator(nn.Module):
    """Two numbers a bin from the embedded sequence."""

    def __init__(self, d_model: int, n_layers: int, d_state: int, d_conv: int, expand: int, dropout: float):
        super().__init__()
        self.stack = BiMambaStack(d_model, n_layers, d_state=d_state, d_conv=d_conv, expand=expand, dropout=dropout)
        self.out = nn.Linear(d_model, 2)

    def forward(self, E: Float[Tensor, "B bins d"]) -> Float[Tensor, "B bins 2"]:
        return self.out(self.stack(E))


class _Predictor(nn.Module):
    """State space over the masked tokens, then the expression head."""

    def __init__(self, stack: nn.Module, head: ExpressionHead):
        super().__init__()
        self.stack, self.head = stack, head

    def forward(self, H: Float[Tensor, "B bins d"], covariates: Tensor | None = None) -> Float[Tensor, "B T"]:
        return self.head(self.stack(H), covariates)


class Seq2Exp(nn.Module):
    """Sequence and signals to expression through a Beta information bottleneck.

    Parameters
    ----------
    n_targets
        Cell types or stages predicted.
    n_signals, n_covariates
        Tracks and gene features given beside the sequence; 0 for none.
    kind
        ``"soft"`` or ``"hard"`` mask.
    resolution
        Bin of mask, signals and tokens in bp; 1 is the paper.
    d_model, n_layers, d_state, d_conv, expand
        Size of generator and predictor (each has its own layers).
    sparsity, concentration, prior_scale, beta_min, z_scale
        Of the mask; None takes the published value of `kind` (soft 0.1, 10, 10, 1, 1; hard 0.45, 0.1, 1, 0, 1).
    thresholds, weights
        Of the signal branch, one a track; None means 1 and equal. The paper, for H3K27ac, DNase and Hi-C:
        (1.5, 0.2, 1.0) and (2, 2, 1).
    center_bp
        The head averages the outputs over this many central bp; the mask is forced open over `include_bp`.
    include_bp
        Bases around the TSS where the mask is 1 (the paper: 2,000).
    pool
        See `ciscribe.nn.heads.ExpressionHead`.
    stem_channels, dropout
        Of the convolutional stem (resolution > 1), and in the layers.
    empty_token
        What a closed bin shows: True a learned vector, False zeros (published).
    calibrate
        Whether `calibrate` (called before training) scales the tracks in the mask; False: as published.
    use_generator, use_signals, use_kl
        Ablations: no generator (signals decide), no signal branch (sequence decides), no pull of the mask towards
        the sparse prior.
    mask
        ``"learned"``; or, to compare with, ``"open"``: every bin is seen, and the layers of the generator go to the
        predictor, so that its capacity is that of both; ``"random"``: a share `sparsity` of the bins is seen, chosen
        by a hash of their bases, which knows nothing; ``"peaks"``: the share `sparsity` of the bins with the highest
        signal in any track, scaled by `calibrate`, is seen. The bins around the TSS are open in all of them.
    peak_tracks
        Numbers of the tracks that have peaks; None is all. A contact track has none.
    """

    peak_cut: Tensor

    def __init__(self, n_targets: int = 1, n_signals: int = 3, n_covariates: int = 9, *,
                 kind: Literal["soft", "hard"] = "soft", resolution: int = 1, d_model: int = 128, n_layers: int = 4,
                 d_state: int = 16, d_conv: int = 4, expand: int = 2, sparsity: float | None = None,
                 concentration: float | None = None, prior_scale: float | None = None, beta_min: float | None = None,
                 z_scale: float = 1.0, thresholds: tuple[float, ...] | None = None,
                 weights: tuple[float, ...] | None = None, center_bp: int = 2000, include_bp: int = 2000,
                 pool: Literal["center", "window", "attention"] = "center", stem_channels: int = 48,
                 dropout: float = 0.0, empty_token: bool = True, calibrate: bool = True, use_generator: bool = True,
                 use_signals: bool = True, use_kl: bool = True,
                 mask: Literal["learned", "open", "random", "peaks"] = "learned",
                 peak_tracks: tuple[int, ...] | None = None):
        super().__init__()
        if mask not in MASKS:
            raise ValueError(f"mask is one of {', '.join(MASKS)}; got {mask!r}")
        if mask == "peaks" and not n_signals:
            raise ValueError("a mask of peaks needs at least one signal track; got n_signals=0")
        soft = kind == "soft"
        self.resolution, self.include_bp, self.mask = resolution, include_bp, mask
        self.n_signals, self.is_calibrated, self.use_kl = n_signals, calibrate, use_kl
        self.sparsity = sparsity if sparsity is not None else (0.1 if soft else 0.45)
        self.peak_tracks = tuple(range(n_signals)) if peak_tracks is None else tuple(peak_tracks)
        if mask == "peaks":
            self.register_buffer("peak_cut", torch.tensor(1.0))
        self.embed = ConvStem(d_model, resolution, channels=stem_channels)
        self.embed_signals = nn.Linear(n_signals, d_model) if n_signals else None
        beta = BetaMask(
            n_signals, kind=kind, sparsity=self.sparsity,
            concentration=concentration if concentration is not None else (10.0 if soft else 0.1),
            prior_scale=prior_scale if prior_scale is not None else (10.0 if soft else 1.0),
            beta_min=beta_min if beta_min is not None else (1.0 if soft else 0.0), z_scale=z_scale,
            thresholds=thresholds, weights=weights, use_generator=use_generator, use_signals=use_signals)
        sizes = (d_model, n_layers, d_state, d_conv, expand, dropout)
        depth = n_layers * (2 if mask == "open" and use_generator else 1)
        stack = BiMambaStack(d_model, depth, d_state=d_state, d_conv=d_conv, expand=expand, dropout=dropout)
        head = ExpressionHead(d_model, n_targets, n_covariates=n_covariates,
                              center_bins=max(1, center_bp // resolution), pool=pool, dropout=dropout)
        generator = _Generator(*sizes) if use_generator and mask == "learned" else None
        self.bottleneck = Bottleneck(generator, beta, _Predictor(stack, head), d_empty=d_model if empty_token else None)

    def posterior(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"] | None = None) -> Posterior:
        """Beta distribution of the mask, bin by bin, before bins are forced open or erased.

        A mask that is not learned is 0 or 1 for sure.
        """
        if self.mask != "learned":
            m = self._fixed_mask(X, S)
            return Posterior((_SURE * m).clamp_min(_UNSEEN), (_SURE * (1 - m)).clamp_min(_UNSEEN))
        return self.bottleneck.posterior(self.embed(X), S)

    def _fixed_mask(self, X: Tensor, S: Tensor | None) -> Float[Tensor, "B bins"]:
        """Mask of the ablations, 0 or 1."""
        n_bins = X.shape[-1] // self.resolution
        if self.mask == "open":
            return torch.ones(len(X), n_bins, device=X.device)
        if self.mask == "peaks":
            if S is None:
                raise ValueError(f"a mask of peaks reads {self.n_signals} signal tracks; got none; pass S (B, S, bins)")
            return (self._peak_height(S) >= self.peak_cut).float()
        weight = torch.sin(torch.arange(1, 4 * self.resolution + 1, device=X.device) * 12.9898).reshape(4, 1, -1)
        mixed = (X.float().unflatten(-1, (n_bins, -1)) * weight).sum(dim=(1, 3)) * 43758.5453
        return (mixed - mixed.floor() < self.sparsity).float()

    def _peak_height(self, S: Tensor) -> Float[Tensor, "B bins"]:
        """Highest scaled signal of the tracks that have peaks."""
        scaled = S.float().clamp_min(0) * (self.bottleneck.mask.scale / self.bottleneck.mask.thresholds)[:, None]
        return scaled[:, list(self.peak_tracks)].amax(dim=1)

    def calibrate(self, S: Float[Tensor, "B S bins"]) -> None:
        """Set the per-track scale of the mask's signal branch, and the height of a peak, from training windows."""
        if self.n_signals and self.is_calibrated:
            self.bottleneck.mask.calibrate(S)
        if self.mask == "peaks":
            height = self._peak_height(S).flatten().sort().values
            cut = height[int((1 - self.sparsity) * (len(height) - 1))]
            lowest = height[height > 0].min() if (height > 0).any() else cut
            self.peak_cut.copy_(torch.maximum(cut, lowest))  # a bin without signal is no peak

    def include(self, n_bins: int) -> Float[Tensor, " bins"]:
        """1 on the bins around the TSS (the window's center) that are always open."""
        center = (torch.arange(n_bins) + 0.5) * self.resolution - n_bins * self.resolution / 2
        return (center.abs() < self.include_bp / 2).float()

    def forward(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"] | None = None,
                covariates: Float[Tensor, "B C"] | None = None, keep: Float[Tensor, "B bins"] | None = None
                ) -> dict[str, Tensor]:
        """Predict expression.

        Parameters
        ----------
        X
            One-hot windows, TSS at position L/2.
        S
            Signals at `resolution`, finite; their order is that of `thresholds` and `weights`.
        covariates
            Gene features, standardized.
        keep
            0 erases a bin from the mask, also one that is forced open.

        Returns
        -------
        dict
            ``expression`` ``(B, T)`` and, of a learned mask with `use_kl`, ``mask_kl`` ``(B, 1)``, the mean KL of the
            window's bins in nats.
        """
        E = self.embed(X)  # B bins d
        tokens = E if self.embed_signals is None or S is None else E + self.embed_signals(S.transpose(1, 2))
        if self.mask != "learned":
            m = self._fixed_mask(X, S)
            m = m + (1 - m) * self.include(E.shape[1]).to(E.device)
            m = m if keep is None else m * keep
            return {"expression": self.bottleneck.predictor(self.bottleneck.cover(tokens, m), covariates)}
        y, kl = self.bottleneck(E, tokens, S, covariates, keep, self.include(E.shape[1]).to(E.device))
        return {"expression": y, "mask_kl": kl.unsqueeze(1)} if self.use_kl else {"expression": y}
