"""BPNet: the profile of a binding or accessibility assay at every base, and its total count, from sequence.

Avsec et al., "Base-resolution models of transcription-factor binding reveal soft motif syntax", Nat Genet 2021,
doi:10.1038/s41588-021-00782-6; maintained form for windows of 2,114 bp: kundajelab/bpnet@f4593ee:bpnet/model/arch.py.
The towers of ChromBPNet (`ciscribe.models.chrombpnet`) are a third variant of the same class. Written from the
paper's tables; the profile head is a convolution where the paper's is a transposed one of stride 1, which is the same
with its kernel reversed.
"""

import copy
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.nn.conv import Activation, AvgPool1d, Conv1d, activation

Variant = Literal["paper", "2114", "chrombpnet"]

CARD = Card(
    name="bpnet", kind="model", task="profile",
    summary="Predicts the base-resolution profile of a binding assay on both strands, and its total count.",
    paper="Avsec et al., Nat Genet 2021, doi:10.1038/s41588-021-00782-6",
    code="kundajelab/bpnet@f4593ee:bpnet/model/arch.py (cited; written from the paper)",
    parameters=130_960, input_length=1000, receptive_field=2093, resolution=1, crop=0,
    attribution=("gradient", "ism", "deeplift"),
    differences=(
        "The profile head is a convolution; published kernels of the transposed one are reversed in length.",
        "The control tracks' layers carry no bias of their own in the paper's form: what they are added to has one.",
        "One control serves all targets; the paper's gives each transcription factor its own.",
    ),
)
PRESETS = {"cpu": {"n_targets": 1, "n_filters": 32, "n_layers": 6}}


class _Form(NamedTuple):
    first: int  # width of the first convolution
    layers: int
    head: int  # width of the profile head
    n_strands: int
    valid: bool  # no padding: each layer crops
    pre: bool  # ReLU before the dilated convolution
    count_each_strand: bool


_FORMS = {
    "paper": _Form(25, 9, 25, 2, valid=False, pre=False, count_each_strand=True),
    "2114": _Form(21, 8, 75, 2, valid=True, pre=True, count_each_strand=False),
    "chrombpnet": _Form(21, 8, 75, 1, valid=True, pre=False, count_each_strand=False),
}


def _crop(x: Tensor, length: int) -> Tensor:
    start = (x.shape[2] - length) // 2
    return x[:, :, start:start + length]


class BPNet(nn.Module):
    """Dilated convolutions from sequence (and control tracks) to profile logits and log counts.

    Parameters
    ----------
    n_targets
        Assays, such as transcription factors.
    variant
        "paper": padded, `L` positions out, a count for each strand. "2114": without padding (2,114 bp in, 1,000 out),
        ReLU before each dilated convolution, one count for both strands. "chrombpnet": without padding, ReLU after
        each dilated convolution, one strand.
    n_filters
        Channels of every layer.
    n_layers
        Dilated layers of width 3 with dilation 2, 4, 8 …; None is 9 for "paper" and 8 for the others.
    n_strands
        Profile tracks of a target; None is the variant's.
    n_signals
        Control tracks in `S` (0: none).
    profile_length
        Positions of the profile, the central ones of those that there are; None keeps all.
    first_activation
        After the first convolution. The published "2114" has none there, which is what "relu" gives it.

    References
    ----------
    Paper and code in the module's docstring. With control tracks, "paper" adds to the logits a convolution of width 1
    of the tracks and their moving average over 50 bp, and to the log counts a linear map of ln(1 + total of each
    track); the others put the tracks, or ln(1 + total of all), beside the output and mix both linearly.
    """

    def __init__(self, n_targets: int = 4, *, variant: Variant = "paper", n_filters: int = 64,
                 n_layers: int | None = None, n_strands: int | None = None, n_signals: int = 0,
                 profile_length: int | None = None, first_activation: Activation = "relu"):
        super().__init__()
        if variant not in _FORMS:
            raise ValueError(f"variant is one of {', '.join(_FORMS)}; got {variant!r}")
        form = self._form = _FORMS[variant]
        n_layers = form.layers if n_layers is None else n_layers
        n_tracks = n_targets * (n_strands or form.n_strands)
        n_counts = n_tracks if form.count_each_strand else n_targets
        padding = "valid" if form.valid else "same"
        dilations = [2 ** i for i in range(1, n_layers + 1)]
        self.variant, self.n_signals, self.profile_length = variant, n_signals, profile_length
        self.outputs: tuple[str, ...] = ("profile", "counts")
        self._lost = form.first + form.head - 2 + 2 * sum(dilations) if form.valid else 0
        self.first = Conv1d(4, n_filters, form.first, padding=padding)
        plain = form.pre and first_activation == "relu"
        self.first_activation = nn.Identity() if plain else activation(first_activation)
        self.dilated = nn.ModuleList(Conv1d(n_filters, n_filters, 3, padding=padding, dilation=d) for d in dilations)
        self.activations = nn.ModuleList(nn.ReLU() for _ in dilations)
        self.last_activation = nn.ReLU() if form.pre else nn.Identity()
        self.profile = Conv1d(n_filters, n_tracks, form.head, padding=padding)
        self.counts = nn.Linear(n_filters, n_counts)
        if n_signals and form.valid:
            self.control_profile = Conv1d(n_tracks + n_signals, n_tracks, 1)
            self.control_counts = nn.Linear(n_counts + 1, n_counts)
        elif n_signals:
            self.smooth = nn.Sequential(nn.ConstantPad1d((24, 25), 0.0), AvgPool1d(50, stride=1))
            self.control_profile = Conv1d(2 * n_signals, n_tracks, 1, bias=False)
            self.control_counts = nn.Linear(n_signals, n_counts, bias=False)

    def only(self, *outputs: Literal["profile", "counts"]) -> "BPNet":
        """Return this model with the same weights that computes no other output: ``only("counts")`` is a third faster.

        Raises
        ------
        ValueError
            Listing the outputs there are.
        """
        unknown = [name for name in outputs if name not in ("profile", "counts")]
        if unknown or not outputs:
            raise ValueError(f"outputs are profile, counts; got {unknown[0] if unknown else 'none'!r}")
        model = copy.copy(self)
        model.outputs = outputs
        return model

    def forward(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"] | None = None) -> dict[str, Tensor]:
        """Predict profiles and counts.

        Parameters
        ----------
        X
            One-hot sequence.
        S
            Counts of the control tracks at every base of it.

        Returns
        -------
        dict
            "profile": logits ``(B, n_targets · n_strands, L_out)``, the strands of a target side by side; a softmax
            over positions is the profile. "counts": ln(1 + total count), ``(B, n)``.

        Raises
        ------
        SchemaError
            For a sequence that is too short, or control tracks that are missing or of another number or length.
        """
        n_positions = X.shape[2] - self._lost
        if n_positions < (self.profile_length or 1):
            raise SchemaError(f"this BPNet reads sequences of at least {self._lost + (self.profile_length or 1):,} bp; "
                              f"got {X.shape[2]:,} bp; widen the windows, or lower profile_length or n_layers")
        n_positions = self.profile_length or n_positions
        control = self._control(X, S, n_positions)
        x = self.first_activation(self.first(X))
        for conv, act in zip(self.dilated, self.activations, strict=True):
            y = conv(act(x)) if self._form.pre else act(conv(x))
            x = _crop(x, y.shape[2]) + y
        x = self.last_activation(x)
        out = {}
        if "profile" in self.outputs:
            out["profile"] = self._predict_profile(x, control, n_positions)
        if "counts" in self.outputs:
            out["counts"] = self._predict_counts(x, control)
        return out

    def _control(self, X: Tensor, S: Tensor | None, n_positions: int) -> Tensor | None:
        if not self.n_signals:
            return None
        wanted = (len(X), self.n_signals, X.shape[2])
        if S is None or tuple(S.shape) != wanted:
            raise SchemaError(f"this BPNet reads {self.n_signals} control tracks at every base, S of {wanted}; got "
                              f"{'none' if S is None else tuple(S.shape)}; without a control pass zeros")
        return _crop(S, n_positions)

    def _predict_profile(self, x: Tensor, control: Tensor | None, n_positions: int) -> Tensor:
        valid = self._form.valid
        logits = self.profile(_crop(x, n_positions + self._form.head - 1) if valid else x)
        logits = _crop(logits, n_positions)
        if control is None:
            return logits
        if valid:
            return self.control_profile(torch.cat([logits, control], dim=1))
        return logits + self.control_profile(torch.cat([control, self.smooth(control)], dim=1))

    def _predict_counts(self, x: Tensor, control: Tensor | None) -> Tensor:
        counts = self.counts(x.mean(dim=2))
        if control is None:
            return counts
        if self._form.valid:
            return self.control_counts(torch.cat([counts, torch.log1p(control.sum((1, 2)))[:, None]], dim=1))
        return counts + self.control_counts(torch.log1p(control.sum(2)))
