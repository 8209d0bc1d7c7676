"""Attention that knows distances: relative positions, attention pooling, and the transformer built of them.

Written for Enformer and Borzoi. Nothing that depends on the number of tokens is kept: positional features are
computed in each forward pass, once for all layers, so one model reads windows of many lengths.

References
----------
Avsec et al., Nat Methods 2021, doi:10.1038/s41592-021-01252-x;
google-deepmind/deepmind-research@f5de0ed:enformer/attention_module.py.
Linder et al., Nat Genet 2025, doi:10.1038/s41588-024-02053-6; calico/baskerville@544073b:blocks.py.
Relative shift: Dai et al., Transformer-XL, ACL 2019, arXiv:1901.02860.
"""

from contextlib import AbstractContextManager, nullcontext
from math import log2, sqrt
from types import TracebackType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Positions = Literal["enformer", "borzoi"]


def enformer_positions(n: int, n_features: int) -> Float[Tensor, "distances features"]:
    """Features of the distances −n + 1 … n − 1: exponential decays, central masks and gamma densities.

    Every column of the gamma densities is divided by its maximum over the distances, so that it peaks at 1.

    Parameters
    ----------
    n
        Number of tokens; half-lives, means and widths scale with it.
    n_features
        A multiple of 6: a sixth of each kind, then the same times the sign of the distance.

    Returns
    -------
    Tensor
        float64: the gamma densities lose three digits in float32 (shape parameters reach 4,096).
    """
    if n_features % 6:
        raise ValueError(f"Enformer's positional features are a multiple of 6; got {n_features}")
    f = n_features // 6
    a = torch.arange(n, dtype=torch.float64)[:, None]
    half_life = 2 ** torch.linspace(3, log2(n), f, dtype=torch.float64)
    central = 2 ** torch.arange(1, f + 1, dtype=torch.float64) - 1 > a
    mean, sd = torch.linspace(n / f, n, f, dtype=torch.float64), n / (2 * f)
    shape, rate = (mean / sd) ** 2, mean / sd**2
    log_density = torch.xlogy(shape - 1, a) - rate * a - torch.lgamma(shape) + shape * rate.log()
    gamma = log_density.exp() + 1e-8
    return _signed(torch.cat([2 ** (-a / half_life), central, gamma / gamma.amax(dim=0)], dim=1))


def borzoi_positions(n: int, n_features: int) -> Float[Tensor, "distances features"]:
    """Features of the distances −n + 1 … n − 1: central masks whose half-widths grow geometrically to n.

    Parameters
    ----------
    n
        Number of tokens.
    n_features
        Even: half are masks, half the same times the sign of the distance.
    """
    if n_features % 2:
        raise ValueError(f"Borzoi's positional features are an even number; got {n_features}")
    f = n_features // 2
    width = (n + 1) ** (torch.arange(1, f + 1, dtype=torch.float64) / f) - 1
    return _signed((width > torch.arange(n)[:, None]).double())


def _signed(features: Tensor) -> Tensor:
    """Mirror features of 0 … n − 1 to −n + 1 … n − 1 and join the same times the sign."""
    distance = torch.arange(1 - len(features), len(features))
    both = features[distance.abs()]
    return torch.cat([both, both * distance.sign()[:, None]], dim=1)


def relative_shift(x: Float[Tensor, "*B n distances"]) -> Float[Tensor, "*B n n"]:
    """Entry (i, j) of the result is the entry of row i that belongs to the distance j − i.

    Row i starts n − 1 − i entries into itself, which is where each row of 2n − 2 starts when the table is read on
    as one line: no copy is made.
    """
    n = x.shape[-2]
    if n == 1:
        return x
    line = x.flatten(-2)[..., n - 1:n - 1 + n * (2 * n - 2)]
    return line.unflatten(-1, (n, 2 * n - 2))[..., :n]


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off, where the device has it: for sums and exponentials that half precision spoils."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


class AttentionPool(nn.Module):
    """Halve the length: each pair of positions becomes its weighted mean, with weights of every channel's own.

    The weights are the softmax over the pair of ``W x``. For two positions that is the logistic of ``W`` times their
    difference, at half the work and memory. Trained weights make large logits, so it stays in full precision under
    autocast.

    Parameters
    ----------
    channels
        C; ``W`` is C × C without bias, at first twice the identity.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.mix = nn.Linear(channels, channels, bias=False)
        with torch.no_grad():
            nn.init.eye_(self.mix.weight).mul_(2)

    def forward(self, x: Float[Tensor, "B C L"]) -> Float[Tensor, "B C bins"]:
        """Pool; L is even."""
        if x.shape[2] % 2:
            raise ValueError(f"attention pooling takes an even length; got {x.shape[2]}")
        with full_precision(x.device):
            left, right = x.to(self.mix.weight.dtype).transpose(1, 2).unflatten(1, (-1, 2)).unbind(2)
            difference = left - right
            return (right + self.mix(difference).sigmoid() * difference).transpose(1, 2)


class RelativeAttention(nn.Module):
    """Multi-head attention whose logits add a term of the distance between query and key.

    Parameters
    ----------
    d_model
        Channels in and out.
    n_heads, key_size, value_size
        Heads, and the size of each head's keys and values.
    n_positions
        Features of a distance.
    dropout, position_dropout
        Of the attention weights and of the positional features.
    """

    def __init__(self, d_model: int, *, n_heads: int, key_size: int, value_size: int, n_positions: int,
                 dropout: float = 0.05, position_dropout: float = 0.01):
        super().__init__()
        self.n_heads, self.key_size = n_heads, key_size
        self.query = nn.Linear(d_model, n_heads * key_size, bias=False)
        self.key = nn.Linear(d_model, n_heads * key_size, bias=False)
        self.value = nn.Linear(d_model, n_heads * value_size, bias=False)
        self.position = nn.Linear(n_positions, n_heads * key_size, bias=False)
        self.content_bias = nn.Parameter(torch.empty(1, n_heads, 1, key_size))
        self.position_bias = nn.Parameter(torch.empty(1, n_heads, 1, key_size))
        self.output = nn.Linear(n_heads * value_size, d_model)
        self.dropout, self.position_dropout = nn.Dropout(dropout), nn.Dropout(position_dropout)
        for layer in (self.query, self.key, self.value, self.position):
            _start(layer.weight, layer.in_features)
        _start(self.content_bias, n_heads)  # the published code counts the heads as inputs
        _start(self.position_bias, n_heads)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)  # ... heads n size

    def forward(self, x: Float[Tensor, "B n d"], positions: Float[Tensor, "distances features"]
                ) -> tuple[Float[Tensor, "B n d"], Float[Tensor, "B heads n n"]]:
        """Attend; the second value are the weights, queries in rows, before dropout."""
        q = self._split(self.query(x)) * self.key_size**-0.5
        k, v = self._split(self.key(x)), self._split(self.value(x))
        r = self._split(self.position(self.position_dropout(positions)))  # heads distances key
        far = relative_shift((q + self.position_bias) @ r.mT)
        weights = ((q + self.content_bias) @ k.mT + far).softmax(dim=-1)
        mixed = self.dropout(weights) @ v
        return self.output(mixed.transpose(1, 2).flatten(2)), weights


def _start(weight: Tensor, fan_in: int) -> None:
    """Truncated normal of variance 2 / fan_in, as published."""
    sd = sqrt(2 / fan_in) / 0.87962566  # what cutting at two standard deviations takes away
    nn.init.trunc_normal_(weight, std=sd, a=-2 * sd, b=2 * sd)


class TransformerBlock(nn.Module):
    """Norm, attention and an MLP of twice the width with ReLU, each added to its input.

    Parameters
    ----------
    d_model, n_heads, key_size, value_size, n_positions, attention_dropout, position_dropout
        As in `RelativeAttention`.
    dropout
        After the attention and in the MLP.
    norm_eps
        Of the layer norms: 1e-5 in Enformer, 1e-3 in Borzoi.
    """

    def __init__(self, d_model: int, *, n_heads: int, key_size: int, value_size: int, n_positions: int,
                 dropout: float, attention_dropout: float = 0.05, position_dropout: float = 0.01,
                 norm_eps: float = 1e-5):
        super().__init__()
        self.norm = nn.LayerNorm(d_model, eps=norm_eps)
        self.attention = RelativeAttention(d_model, n_heads=n_heads, key_size=key_size, value_size=value_size,
                                           n_positions=n_positions, dropout=attention_dropout,
                                           position_dropout=position_dropout)
        self.dropout = nn.Dropout(dropout)
        self.mlp = nn.Sequential(nn.LayerNorm(d_model, eps=norm_eps), nn.Linear(d_model, 2 * d_model),
                                 nn.Dropout(dropout), nn.ReLU(), nn.Linear(2 * d_model, d_model),
                                 nn.Dropout(dropout))

    def attend(self, x: Float[Tensor, "B n d"], positions: Float[Tensor, "distances features"]
               ) -> tuple[Float[Tensor, "B n d"], Float[Tensor, "B heads n n"]]:
        """Result and attention weights."""
        attended, weights = self.attention(self.norm(x), positions)
        x = x + self.dropout(attended)
        return x + self.mlp(x), weights

    def forward(self, x: Float[Tensor, "B n d"], positions: Float[Tensor, "distances features"]
                ) -> Float[Tensor, "B n d"]:
        """Result alone; the weights are let go of."""
        return self.attend(x, positions)[0]


class Transformer(nn.Module):
    """A stack of `TransformerBlock` over tokens.

    Parameters
    ----------
    d_model, n_layers
        Width and number of blocks.
    positions
        Which features a distance has: `enformer_positions` or `borzoi_positions`.
    n_positions
        How many.
    checkpointing
        Compute a block again in the backward pass instead of keeping what is in it.
    **block
        Further arguments of `TransformerBlock`.
    """

    def __init__(self, d_model: int, n_layers: int, *, positions: Positions, n_positions: int,
                 checkpointing: bool = False, **block: float):
        super().__init__()
        known = {"enformer": enformer_positions, "borzoi": borzoi_positions}
        if positions not in known:
            raise ValueError(f"positions is one of {', '.join(known)}; got {positions!r}")
        self.features, self.n_positions, self.checkpointing = known[positions], n_positions, checkpointing
        self.blocks = nn.ModuleList(TransformerBlock(d_model, n_positions=n_positions, **block)  # pyright: ignore
                                    for _ in range(n_layers))

    def _positions(self, x: Tensor) -> Tensor:
        return self.features(x.shape[1], self.n_positions).to(device=x.device, dtype=x.dtype)

    def forward(self, x: Float[Tensor, "B n d"]) -> Float[Tensor, "B n d"]:
        """Run all blocks."""
        positions = self._positions(x)
        for block in self.blocks:
            x = recompute(block, x, positions) if self.checkpointing else block(x, positions)
        return x

    def weights(self, x: Float[Tensor, "B n d"], *, per_head: bool = False) -> Float[Tensor, "B layers ..."]:
        """Attention weights of every layer.

        Returns
        -------
        Tensor
            ``(B, layers, n, n)``, queries in rows, mean over the heads; ``(B, layers, heads, n, n)`` with `per_head`.
        """
        positions, layers = self._positions(x), []
        for block in self.blocks:
            x, weights = block.attend(x, positions)  # pyright: ignore[reportCallIssue]
            layers.append(weights if per_head else weights.mean(dim=1))
        return torch.stack(layers, dim=1)


class _Once:
    """While open, passing through batch norms leaves their running statistics as they are; may be opened again."""

    def __init__(self, module: nn.Module):
        self.norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]

    def __enter__(self) -> None:
        self.before = [(m.momentum, m.num_batches_tracked) for m in self.norms]
        for m in self.norms:
            m.momentum = 0.0
            m.num_batches_tracked = None if m.num_batches_tracked is None else m.num_batches_tracked.clone()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for m, (momentum, seen) in zip(self.norms, self.before, strict=True):
            m.momentum, m.num_batches_tracked = momentum, seen


def recompute(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Run `module` keeping its inputs only: what the backward pass needs is computed there, a second time.

    Numbers, dropout and gradients are those of ``module(*inputs)``, and batch norms count the batch once.
    """
    if not torch.is_grad_enabled():
        return module(*inputs)
    return checkpoint(module, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _Once(module)))
