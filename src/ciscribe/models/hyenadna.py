"""HyenaDNA: a causal language model of DNA, one token a base, built of long implicit convolutions.

Nguyen et al., "HyenaDNA: long-range genomic sequence modeling at single nucleotide resolution", NeurIPS 2023,
arXiv:2306.15794; the operator is Poli et al., ICML 2023, arXiv:2302.10866. Facts from
HazyResearch/hyena-dna@d553021:standalone_hyenadna.py; written anew.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.nn.conv import Conv1d, activation
from ciscribe.sequence import reverse_complement

CARD = Card(
    name="hyenadna", kind="model", task="language model",
    summary="Predicts each base from all bases before it, over windows of up to a million bases.",
    paper="Nguyen et al., NeurIPS 2023, arXiv:2306.15794; operator Poli et al., ICML 2023, arXiv:2302.10866",
    code="HazyResearch/hyena-dna@d553021:standalone_hyenadna.py (read, not copied)",
    licence="MIT; published code and weights Apache-2.0",
    parameters=6_550_528, input_length=160_000, resolution=1, attribution=("gradient", "ism", "deeplift"),
    n_policy="four zeros are the token N",
    differences=(
        "The default is the published size of the 160-kb model (width 256, 8 layers); the filters depend on l_max, "
        "which is an argument.",
        "The position features of the filters are computed and fixed, as in the released configurations "
        "(learning rate 0).",
        "bidirectional=True averages the embeddings of both strands; the logits stay causal.",
        "Written for order 2 only.",
    ),
)
PRESETS = {"cpu": {"d_model": 32, "n_layers": 2, "filter_order": 32, "l_max": 1026}}

N_TOKENS = 16  # 12 of the vocabulary, padded to a multiple of 8
BASE_TOKENS = (7, 8, 9, 10)  # A C G T, after [CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK]
N_TOKEN = 11


class _Sine(nn.Module):
    """sin(f x) with trained frequencies; one set serves all hidden layers of a filter."""

    def __init__(self, width: int, frequency: float):
        super().__init__()
        self.frequency = nn.Parameter(torch.full((width,), float(frequency)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.frequency * x)


class _ImplicitFilter(nn.Module):
    """A small network from a position to the value of the filter there, one filter per channel."""

    def __init__(self, d_model: int, l_max: int, emb_dim: int, width: int, frequency: float):
        super().__init__()
        if emb_dim < 3 or emb_dim % 2 == 0:
            raise ValueError(f"emb_dim is odd and at least 3 (time, cosines, sines); got {emb_dim}")
        self.d_model, self.l_max, self.n_bands = d_model, l_max, (emb_dim - 1) // 2
        self.sine = _Sine(width, frequency)
        self.dense_in = nn.Linear(emb_dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.dense_out = nn.Linear(width, d_model, bias=False)

    def forward(self, length: int) -> Float[Tensor, "d L"]:
        like = self.dense_in.weight
        position = torch.arange(length, dtype=like.dtype, device=like.device)[:, None]
        time = position / max(1, self.l_max - 1)  # of the longest window, so that a filter is the same in all
        bands = torch.linspace(1e-4, self.n_bands - 1, self.n_bands, dtype=like.dtype, device=like.device)
        angle = 2 * math.pi * position / self.l_max * bands
        h = self.sine(self.dense_in(torch.cat([time, angle.cos(), -angle.sin()], dim=1)))
        for dense in self.hidden:
            h = self.sine(dense(h))
        decay = torch.linspace(math.log(100) / 1.5, math.log(100) / 0.3, self.d_model, dtype=like.dtype,
                               device=like.device)
        return (self.dense_out(h) * (torch.exp(-time * decay) + 0.05)).t()


class HyenaOperator(nn.Module):
    """Mixes positions causally: two gates around a convolution as long as the sequence.

    Parameters
    ----------
    d_model
        Features per position, in and out.
    l_max
        Longest sequence; positions are measured by it, so filters of another `l_max` are other filters.
    emb_dim, filter_order, frequency
        Position features, width, and first frequency of the sines of the filter network.
    """

    def __init__(self, d_model: int, l_max: int, *, emb_dim: int = 5, filter_order: int = 64, frequency: float = 10):
        super().__init__()
        self.in_proj = nn.Linear(d_model, 3 * d_model)
        self.short_filter = Conv1d(3 * d_model, 3 * d_model, 3, padding=2, groups=3 * d_model)
        self.filter = _ImplicitFilter(d_model, l_max, emb_dim, filter_order, frequency)
        self.bias = nn.Parameter(torch.randn(d_model))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Float[Tensor, "B L d"]) -> Float[Tensor, "B L d"]:
        """Mix ``(B, L, d)``; a position sees itself and those before it."""
        length = x.shape[1]
        streams = self.short_filter(self.in_proj(x).transpose(1, 2))[..., :length]
        gate, inner, v = streams.chunk(3, dim=1)  # B d L
        v = v * inner
        n = 2 * length  # twice the length, so that the end does not wrap onto the beginning
        spectrum = torch.fft.rfft(v, n=n) * torch.fft.rfft(self.filter(length), n=n)
        v = torch.fft.irfft(spectrum, n=n)[..., :length] + v * self.bias[:, None]
        return self.out_proj((gate * v).transpose(1, 2))


class _Block(nn.Module):
    def __init__(self, mixer: HyenaOperator, d_model: int, d_inner: int, dropout_in: float, dropout: float):
        super().__init__()
        self.dropout_in, self.dropout = nn.Dropout(dropout_in), nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.mixer = mixer
        self.fc1, self.act, self.fc2 = (nn.Linear(d_model, d_inner), activation("gelu_tanh"),
                                        nn.Linear(d_inner, d_model))

    def forward(self, hidden: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Dropout acts on what is about to be added, so a block hands over its addition and the sum so far."""
        residual = residual + self.dropout_in(hidden)
        residual = residual + self.dropout(self.mixer(self.norm1(residual)))
        return self.fc2(self.act(self.fc1(self.norm2(residual)))), residual


class HyenaDNA(nn.Module):
    """Causal language model of DNA.

    Parameters
    ----------
    d_model, n_layers
        Width and blocks. Published sizes: 128 × 2 (tiny, 1 kb), 256 × 4 (32 kb), 256 × 8 (160 kb to 1 Mb).
    d_inner
        Width of the dense layers; None is four times `d_model`.
    l_max
        Longest sequence in bp, plus 2 in the published models. The filters depend on it.
    emb_dim, filter_order, frequency
        As in `HyenaOperator`.
    embed_dropout, dropout
        Share of the embedding, and of what each layer adds, set to zero in training.
    bidirectional
        The embedding is the mean over both strands, aligned by position, at twice the cost: without it a
        position knows nothing of what follows.
    """

    base_tokens: ClassVar = BASE_TOKENS
    unscored_tokens: ClassVar = (N_TOKEN,)
    causal: ClassVar = True

    def __init__(self, d_model: int = 256, n_layers: int = 8, *, d_inner: int | None = None, l_max: int = 160_002,
                 emb_dim: int = 5, filter_order: int = 64, frequency: float = 10, embed_dropout: float = 0.1,
                 dropout: float = 0.0, bidirectional: bool = False):
        super().__init__()
        self.l_max, self.bidirectional = l_max, bidirectional
        self.word_embeddings = nn.Parameter(torch.empty(N_TOKENS, d_model))
        self.layers = nn.ModuleList(
            _Block(HyenaOperator(d_model, l_max, emb_dim=emb_dim, filter_order=filter_order, frequency=frequency),
                   d_model, d_inner or 4 * d_model, dropout if i else embed_dropout, dropout)
            for i in range(n_layers))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(d_model)
        nn.init.normal_(self.word_embeddings, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):  # what a layer adds is smaller the more layers there are
                last = name.endswith(("out_proj", "fc2"))
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * n_layers) if last else 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def tokens(self, X: Float[Tensor, "B 4 L"]) -> Int64[Tensor, "B L"]:
        """Token of each position, as `logits` count them; a column of zeros is N."""
        bases = torch.tensor(BASE_TOKENS, device=X.device)[X.argmax(dim=1)]
        return torch.where(X.sum(dim=1) > 0, bases, N_TOKEN)

    def _encode(self, X: Tensor) -> Tensor:
        bases = X.transpose(1, 2)  # a product with the one-hot, so that gradients reach it
        hidden = bases @ self.word_embeddings[list(BASE_TOKENS)]
        hidden = hidden + (1 - bases.sum(dim=2, keepdim=True)) * self.word_embeddings[N_TOKEN]
        residual = torch.zeros_like(hidden)
        for layer in self.layers:
            hidden, residual = layer(hidden, residual)
        return self.norm(residual + self.dropout(hidden))

    def forward(self, X: Float[Tensor, "B 4 L"]) -> dict[str, Tensor]:
        """Read sequences of any length up to `l_max`.

        Returns
        -------
        dict
            ``"logits"`` ``(B, 16, L)``: at position l, of the token at l + 1; ``"embedding"`` ``(B, d_model, L)``.

        Raises
        ------
        SchemaError
            When the sequences are longer than `l_max`.
        """
        if X.shape[-1] > self.l_max:
            raise SchemaError(f"HyenaDNA reads sequences of up to l_max = {self.l_max:,} bp; got {X.shape[-1]:,} bp; "
                              f"trim them, or create the model with l_max={X.shape[-1]}")
        H = self._encode(X)
        logits = H @ self.word_embeddings.t()
        if self.bidirectional:
            H = (H + self._encode(reverse_complement(X)).flip(1)) / 2
        return {"logits": logits.transpose(1, 2), "embedding": H.transpose(1, 2)}
