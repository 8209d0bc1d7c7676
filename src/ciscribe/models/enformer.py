"""Enformer: convolutions to tokens of 128 bp, eleven transformer layers, and thousands of tracks.

Avsec et al., "Effective gene expression prediction from sequence by integrating long-range interactions", Nat Methods
2021, doi:10.1038/s41592-021-01252-x. Written from the description in the paper and from facts of
google-deepmind/deepmind-research@f5de0ed:enformer/{enformer,attention_module}.py; released weights in the layout of
lucidrains/enformer-pytorch@5a5974d are read by `ciscribe.models.enformer_weights`.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.nn.attention import AttentionPool, Transformer, full_precision, recompute
from ciscribe.nn.conv import BatchNorm1d, Conv1d, activation, need_bins

CARD = Card(
    name="enformer", kind="model", task="tracks", attribution=("gradient", "ism", "deeplift", "attention"),
    summary="Predicts thousands of genome-wide tracks from 196,608 bp, with attention between distant places.",
    paper="Avsec et al., Nat Methods 2021, doi:10.1038/s41592-021-01252-x",
    code="google-deepmind/deepmind-research@f5de0ed:enformer/enformer.py; "
         "layout of weights: lucidrains/enformer-pytorch@5a5974d",
    licence="MIT; published weights CC-BY-4.0",
    parameters=246_172_353, input_length=196_608, receptive_field=196_608, resolution=128, crop=40_960,
    differences=(
        "The default has the human head alone; n_targets={'human': 5313, 'mouse': 1643} has both (251,221,292).",
        "Positional features are computed in float64; the released weights were trained with float32 ones, which "
        "differ by up to 0.0025 at 1,536 tokens.",
        "The published hub model takes 393,216 bp and reads the central 196,608; here all of the input is read.",
        "Outside the attention, weights start as PyTorch starts them.",
    ),
)

PRESETS = {"cpu": {"n_targets": 4, "widths": (48, 56, 64, 72, 80, 88, 96), "n_layers": 2, "n_heads": 4,
                   "key_size": 16, "value_size": 24, "n_positions": 24, "final_width": 192, "crop": 4_096}}


def _conv_block(c_in: int, c_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(BatchNorm1d(c_in), activation("gelu_sigmoid"), Conv1d(c_in, c_out, kernel, padding="same"))


class _Stage(nn.Module):
    """A convolution, a pointwise one added to it, and pooling to half the length."""

    def __init__(self, first: nn.Module, width: int):
        super().__init__()
        self.first, self.point, self.pool = first, _conv_block(width, width, 1), AttentionPool(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.pool(x + self.point(x))


class Enformer(nn.Module):
    """Sequence to tracks in bins of 128 bp.

    Parameters
    ----------
    n_targets
        Tracks. A number gives one head, called human, and forward returns its tensor; a mapping such as
        ``{"human": 5313, "mouse": 1643}`` gives a head for each name, and forward returns a dictionary.
    widths
        Channels of the stem and of the tower's stages; each halves the length, so the bin is 2 to the number of them.
        The last is the width of the transformer.
    n_layers, n_heads, key_size, value_size
        Transformer blocks, and heads with the size of their keys and values.
    n_positions
        Features of a distance, a multiple of 6.
    final_width
        Channels before the heads.
    crop
        bp cut off the output on either side (40,960 are 320 bins), a multiple of the bin.
    dropout, attention_dropout, position_dropout
        In the transformer (an eighth of the first before the heads), of the attention weights, of the positions.
    checkpointing
        Trade a third more time for a smaller memory of training: stages and blocks are computed again in the
        backward pass.
    """

    def __init__(self, n_targets: int | Mapping[str, int] = 5313, *,
                 widths: Sequence[int] = (768, 768, 896, 1024, 1152, 1280, 1536), n_layers: int = 11,
                 n_heads: int = 8, key_size: int = 64, value_size: int = 192, n_positions: int = 192,
                 final_width: int = 3072, crop: int = 40_960, dropout: float = 0.4, attention_dropout: float = 0.05,
                 position_dropout: float = 0.01, checkpointing: bool = False):
        super().__init__()
        self.one_head = isinstance(n_targets, int)
        self.bin, self.crop, self.checkpointing = 2 ** len(widths), crop, checkpointing
        if crop < 0 or crop % self.bin:
            raise ValueError(f"crop is a multiple of {self.bin} bp; got {crop}")
        self.stem = _Stage(Conv1d(4, widths[0], 15, padding="same"), widths[0])
        self.tower = nn.ModuleList(_Stage(_conv_block(i, o, 5), o) for i, o in pairwise(widths))
        self.transformer = Transformer(
            widths[-1], n_layers, positions="enformer", n_positions=n_positions, checkpointing=checkpointing,
            n_heads=n_heads, key_size=key_size, value_size=value_size, dropout=dropout,
            attention_dropout=attention_dropout, position_dropout=position_dropout)
        self.final = nn.Sequential(*_conv_block(widths[-1], final_width, 1), nn.Dropout(dropout / 8),
                                   activation("gelu_sigmoid"))
        organisms = {"human": n_targets} if isinstance(n_targets, int) else n_targets
        self.heads = nn.ModuleDict({name: nn.Sequential(Conv1d(final_width, n, 1), nn.Softplus())
                                    for name, n in organisms.items()})

    def _tokens(self, X: Tensor) -> Tensor:
        need_bins(X, self.bin, self.crop, "Enformer")
        for stage in (self.stem, *self.tower):
            X = recompute(stage, X) if self.checkpointing else stage(X)
        return X.transpose(1, 2)

    def embed(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B d bins"]:
        """What the heads read: `final_width` numbers for each bin that is kept."""
        H, margin = self.transformer(self._tokens(X)), self.crop // self.bin
        return self.final(H[:, margin:H.shape[1] - margin].transpose(1, 2))

    def attention(self, X: Float[Tensor, "B 4 L"], *, per_head: bool = False) -> Float[Tensor, "B layers ..."]:
        """Attention weights between all tokens, the cropped ones too; see `Transformer.weights`."""
        return self.transformer.weights(self._tokens(X), per_head=per_head)

    def forward(self, X: Float[Tensor, "B 4 L"]
                ) -> Float[Tensor, "B T bins"] | dict[str, Float[Tensor, "B _T bins"]]:
        """Predict tracks ≥ 0: ``(B, T, L / 128 − 640)`` with the published sizes.

        Raises
        ------
        SchemaError
            When L is not a multiple of the bin, or no bin is left after the crop.
        """
        H = self.embed(X)
        with full_precision(H.device):  # sums over thousands of channels
            tracks = {name: head(H.to(head[0].weight.dtype)) for name, head in self.heads.items()}  # pyright: ignore
        return tracks["human"] if self.one_head else tracks
