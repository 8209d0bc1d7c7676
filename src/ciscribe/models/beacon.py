"""Beacon: expression through a learned mask, read by a pyramid of convolutions.

Ours. The idea of the mask is Seq2Exp's (Su et al., ICLR 2025, arXiv:2502.13991); what reads the sequence and the masked
window is convolutions instead of state spaces, which are cheaper on a CPU, and the window is read at several
resolutions at once: what stands next to each other in the fine levels, what is far apart in the coarse ones. Every bin
is told where it is, and in training the sequence alone must also say where the signals are (`LossSpec.signal_error`).
``validation/compare.md`` says what it reaches.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.card import Card
from ciscribe.nn.conv import AvgPool1d, BatchNorm1d, Conv1d, ConvStem
from ciscribe.nn.mask import BetaMask, Bottleneck, Posterior

CARD = Card(
    name="beacon", kind="model", task="regression", parameters=249_860, attribution=("gradient", "ism"),
    summary="Predicts a gene's expression from DNA and signals through a sparse mask, read at several resolutions.",
    paper="own; the mask after Su et al., ICLR 2025, arXiv:2502.13991 (Seq2Exp)",
    code="written by us",
    differences=(
        "Beside Seq2Exp: convolutions instead of state spaces in generator and predictor; the predictor halves its "
        "resolution level by level and every level is pooled by attention; bins are told their distance from the TSS; "
        "training also guesses the signals from the sequence; the mask's signal branch is weak against the generator "
        "by default (prior_scale 1, z_scale 10).",
        "Whole channels are dropped, not single numbers.",
    ),
    n_policy="N is four zeros; a blacklisted bin has mask 0",
)


_SCALES = (64, 256, 1024, 4096, 16_384, 65_536)  # bp


class _Block(nn.Module):
    """Residual: norm, a wide convolution, GELU, a convolution of width 1; channels are dropped from what it adds."""

    def __init__(self, d_model: int, dilation: int, dropout: float):
        super().__init__()
        self.norm = BatchNorm1d(d_model)
        self.wide = Conv1d(d_model, d_model, 3, padding=dilation, dilation=dilation)
        self.point = Conv1d(d_model, d_model, 1)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "B d n"]) -> Float[Tensor, "B d n"]:
        y = self.point(F.gelu(self.wide(F.relu(self.norm(x)))))
        if self.training and self.dropout:
            y = y * F.dropout(y.new_ones(y.shape[0], y.shape[1], 1), self.dropout)
        return x + y


class _Reader(nn.Module):
    """Residual blocks over the embedded sequence: what the mask, and the guess of the signals, are read from."""

    def __init__(self, d_model: int, n_blocks: int, dropout: float):
        super().__init__()
        self.blocks = nn.Sequential(*(_Block(d_model, 2**i, dropout) for i in range(n_blocks)))

    def forward(self, E: Float[Tensor, "B bins d"]) -> Float[Tensor, "B bins d"]:
        return self.blocks(E.transpose(1, 2)).transpose(1, 2)


class _Position(nn.Module):
    """What a bin is told of where it is: on which side of the center (the TSS), and how far, on several scales."""

    def __init__(self, d_model: int, resolution: int):
        super().__init__()
        self.resolution = resolution
        self.out = nn.Linear(2 * len(_SCALES), d_model, bias=False)

    def forward(self, n_bins: int) -> Float[Tensor, "bins d"]:
        weight = self.out.weight
        x = (torch.arange(n_bins, device=weight.device) + 0.5 - n_bins / 2) * self.resolution
        x = x[:, None] / weight.new_tensor(_SCALES)
        return self.out(torch.cat([torch.tanh(x), torch.exp(-x.abs())], dim=1))


class _Pyramid(nn.Module):
    """The masked window at several resolutions, each pooled by attention; then the targets."""

    def __init__(self, d_model: int, n_targets: int, n_covariates: int, n_levels: int, n_blocks: int, n_queries: int,
                 center_bins: int, dropout: float):
        super().__init__()
        self.center_bins, self.n_covariates = center_bins, n_covariates
        self.levels = nn.ModuleList(nn.Sequential(*(_Block(d_model, 2**i, dropout) for i in range(n_blocks)))
                                    for _ in range(n_levels))
        self.queries = nn.ModuleList(nn.Linear(d_model, n_queries) for _ in range(n_levels))
        self.pool = AvgPool1d(2)
        width = d_model * (1 + n_levels * n_queries)
        self.norm = nn.BatchNorm1d(width)  # a few elements move a mean by little: every feature to unit variance
        self.mlp = nn.Sequential(nn.Dropout(dropout), nn.Linear(width + n_covariates, 2 * d_model), nn.ReLU(),
                                 nn.Dropout(dropout), nn.Linear(2 * d_model, d_model), nn.ReLU(),
                                 nn.Linear(d_model, n_targets))

    def forward(self, H: Float[Tensor, "B bins d"], covariates: Float[Tensor, "B C"] | None = None
                ) -> Float[Tensor, "B T"]:
        given = 0 if covariates is None else covariates.shape[1]
        if given != self.n_covariates:
            raise ValueError(f"this model expects {self.n_covariates} covariates a gene; got {given}")
        x, pooled = H.transpose(1, 2), []
        for i, (blocks, query) in enumerate(zip(self.levels, self.queries, strict=True)):
            x = self.pool(x) if i and x.shape[-1] > 1 else x
            x = blocks(x)
            if not i:
                k = min(self.center_bins, x.shape[-1])
                start = (x.shape[-1] - k) // 2
                pooled.append(x[..., start:start + k].mean(dim=-1))
            weight = query(x.transpose(1, 2)).softmax(dim=1)  # B n queries
            pooled.append(torch.einsum("bdn,bnk->bkd", x, weight.to(x.dtype)).flatten(1))
        y = self.norm(torch.cat(pooled, dim=1).float())
        return self.mlp(y if covariates is None else torch.cat([y, covariates.to(y)], dim=1))


class Beacon(nn.Module):
    """Sequence and signals to expression through a Beta mask and a pyramid of convolutions.

    Parameters
    ----------
    n_targets, n_signals, n_covariates
        As in `ciscribe.models.seq2exp.Seq2Exp`; without signals the sequence alone draws the mask.
    resolution
        Bin of mask, signals and tokens in bp.
    d_model, stem_channels
        Channels of tokens and levels; of the motif layer.
    n_levels, n_blocks
        Resolutions, each half the one before, and residual blocks (dilations 1, 2, 4 …) at each.
    n_queries
        Weighted means that attention takes of each level.
    reader_blocks
        Residual blocks that read the sequence for the mask and for the guess of the signals.
    kind, sparsity, concentration, prior_scale, beta_min, z_scale, thresholds, weights
        Of the mask; see `ciscribe.nn.mask.BetaMask`.
    center_bp, include_bp
        The finest level is also averaged over so many central bp; the mask is open over so many.
    dropout
        Of channels in the blocks, and of numbers in the prediction.
    use_generator, use_signals, use_mask, use_position
        Ablations: no generator, no signal branch, no mask at all; bins are not told where they are.
    """

    def __init__(self, n_targets: int = 1, n_signals: int = 3, n_covariates: int = 9, *, resolution: int = 32,
                 d_model: int = 64, stem_channels: int = 48, n_levels: int = 3, n_blocks: int = 2, n_queries: int = 2,
                 reader_blocks: int = 2, kind: str = "soft", sparsity: float = 0.1, concentration: float = 10.0,
                 prior_scale: float = 1.0, beta_min: float = 0.1, z_scale: float = 10.0,
                 thresholds: tuple[float, ...] | None = None, weights: tuple[float, ...] | None = None,
                 center_bp: int = 2000, include_bp: int = 512, dropout: float = 0.1, use_generator: bool = True,
                 use_signals: bool = True, use_mask: bool = True, use_position: bool = True):
        super().__init__()
        self.resolution, self.include_bp, self.n_signals, self.use_mask = resolution, include_bp, n_signals, use_mask
        self.embed = ConvStem(d_model, resolution, channels=stem_channels)
        self.embed_signals = nn.Linear(n_signals, d_model) if n_signals else None
        self.position = _Position(d_model, resolution) if use_position else None
        mask = BetaMask(n_signals, kind=kind, sparsity=sparsity, concentration=concentration,  # type: ignore[arg-type]
                        prior_scale=prior_scale, beta_min=beta_min, z_scale=z_scale, thresholds=thresholds,
                        weights=weights, use_generator=use_generator, use_signals=use_signals)
        draws = use_generator and use_mask
        self.guess = nn.Linear(d_model, n_signals) if n_signals else None
        self.reader = _Reader(d_model, reader_blocks, dropout) if draws or n_signals else nn.Identity()
        generator = nn.Linear(d_model, 2) if draws else None
        predictor = _Pyramid(d_model, n_targets, n_covariates, n_levels, n_blocks, n_queries,
                             max(1, center_bp // resolution), dropout)
        self.bottleneck = Bottleneck(generator, mask, predictor, d_empty=d_model)

    def _embed(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B bins d"]:
        """Bins of the sequence, each with where it is."""
        E = self.embed(X)
        return E if self.position is None else E + self.position(E.shape[1])

    def posterior(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"] | None = None) -> Posterior:
        """Beta distribution of the mask, bin by bin, before bins are forced open or erased."""
        return self.bottleneck.posterior(self.reader(self._embed(X)), S if self.n_signals else None)

    def calibrate(self, S: Float[Tensor, "B S bins"]) -> None:
        """Set the per-track scale of the mask's signal branch from training windows."""
        if self.n_signals:
            self.bottleneck.mask.calibrate(S)

    def include(self, n_bins: int) -> Float[Tensor, " bins"]:
        """1 on the bins around the TSS (the window's center) that are always open."""
        center = (torch.arange(n_bins) + 0.5) * self.resolution - n_bins * self.resolution / 2
        return (center.abs() < self.include_bp / 2).float()

    def forward(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"] | None = None,
                covariates: Float[Tensor, "B C"] | None = None, keep: Float[Tensor, "B bins"] | None = None
                ) -> dict[str, Tensor]:
        """Predict.

        Parameters
        ----------
        X, S, covariates, keep
            As in `ciscribe.models.seq2exp.Seq2Exp.forward`.

        Returns
        -------
        dict
            ``expression`` ``(B, T)``; with a mask ``mask_kl`` ``(B, 1)``, the mean KL of the window's bins in nats; in
            training with signals ``signal_error`` ``(B, 1)``, the mean error of ``ln(1 + signal)`` guessed from the
            sequence alone, signals in the units of the mask.
        """
        if self.n_signals and S is None:
            raise ValueError(f"this model reads {self.n_signals} signal tracks; got none; pass S (B, S, bins)")
        S = S if self.n_signals else None
        E = self._embed(X)
        R = self.reader(E)
        tokens = E if self.embed_signals is None or S is None else E + self.embed_signals(S.transpose(1, 2))
        if self.use_mask:
            y, kl = self.bottleneck(R, tokens, S, covariates, keep, self.include(E.shape[1]).to(E.device))
            out = {"expression": y, "mask_kl": kl.unsqueeze(1)}
        else:
            m = torch.ones(E.shape[:2], device=E.device) if keep is None else keep
            out = {"expression": self.bottleneck.predictor(self.bottleneck.cover(tokens, m), covariates)}
        if self.training and self.guess is not None and S is not None:
            seen = (S.clamp_min(0) * self.bottleneck.mask.scale[:, None]).log1p().transpose(1, 2)
            error = F.smooth_l1_loss(self.guess(R).float(), seen, reduction="none")
            out["signal_error"] = error.mean(dim=(1, 2)).unsqueeze(1)
        return out
