"""What a sequence is compared with: the references of DeepLIFT, integrated and expected gradients."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.sequence import N, dinucleotide_shuffle, one_hot_tensor

KINDS = ("shuffle", "zeros", "uniform", "gc")


def references(codes: UInt8[ndarray, "B L"], kind: str | Tensor | ndarray, n: int = 20, seed: int = 0
               ) -> Float[Tensor, "B S 4 L"]:
    """References of every sequence: what it could look like if it said nothing.

    An N of the sequence is an N of its references (four zeros), so that nothing is explained by it. Row i depends on
    sequence i and the seed alone, never on the rest of the batch.

    Parameters
    ----------
    codes
        Sequences, uint8 ``(B, L)``.
    kind
        ``"shuffle"``: `n` shuffles that keep the dinucleotides (those of the bases left when N are cut out);
        ``"zeros"``: no base anywhere; ``"uniform"``: a quarter of each base; ``"gc"``: the sequence's own GC content,
        the same at every position and on both strands. Or the references themselves, ``(B, S, 4, L)``.
    n
        Number of shuffles; the other kinds have one reference.
    seed
        Of the shuffles.

    Returns
    -------
    Tensor
        float32 ``(B, S, 4, L)`` on the CPU; S is `n` for shuffles and 1 for the other kinds.

    Raises
    ------
    UnknownNameError
        For a kind that is not known.
    SchemaError
        When references that were given do not fit the sequences or are not finite.
    """
    n_rows, length = codes.shape
    if not isinstance(kind, str):
        return _given(kind, n_rows, length)
    known = torch.from_numpy(codes != N)[:, None, None].float()
    if kind == "zeros":
        return torch.zeros(n_rows, 1, 4, length)
    if kind == "uniform":
        return known.expand(-1, -1, 4, -1) / 4
    if kind == "gc":
        is_gc = torch.from_numpy((codes == 1) | (codes == 2))[:, None, None].float()
        gc = is_gc.sum(3, keepdim=True) / known.sum(3, keepdim=True).clamp(min=1)
        return torch.cat([1 - gc, gc, gc, 1 - gc], dim=2) / 2 * known
    if kind != "shuffle":
        raise UnknownNameError(f"no references are called {kind!r}; {nearest(kind, KINDS)}; or give an array "
                               "(B, S, 4, L)")
    if n < 1:
        raise SchemaError(f"a sequence has at least 1 reference; got n={n}")
    shuffled = np.full((n_rows, n, length), N, dtype=np.uint8)
    for row, own in zip(shuffled, codes, strict=True):
        bases = own != N
        row[:, bases] = dinucleotide_shuffle(own[bases], n, seed=seed)
    return one_hot_tensor(torch.from_numpy(shuffled.reshape(n_rows * n, length))).view(n_rows, n, 4, length)


def row_references(codes: UInt8[ndarray, "B L"], kind: str | Tensor | ndarray, n: int = 20, seed: int = 0
                   ) -> Iterator[Float[Tensor, "S 4 L"]]:
    """Give `references` of one sequence after the other, each made when its turn comes."""
    if not isinstance(kind, str):
        yield from references(codes, kind)
        return
    for i in range(len(codes)):
        yield references(codes[i:i + 1], kind, n, seed)[0]


def name_of(kind: str | Tensor | ndarray) -> str:
    """Name of a kind of references, for attributes."""
    return kind if isinstance(kind, str) else "given"


def _given(array: Tensor | ndarray, n_rows: int, length: int) -> Tensor:
    tensor = torch.as_tensor(array).detach().float().cpu()
    if tensor.ndim != 4 or tensor.shape[1] < 1 or (tensor.shape[0], *tensor.shape[2:]) != (n_rows, 4, length):
        raise SchemaError(f"references of {n_rows} sequences of {length} bp are ({n_rows}, S, 4, {length}), S at least "
                          f"1; got {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        raise SchemaError(f"{int((~torch.isfinite(tensor)).sum()):,} of {tensor.numel():,} values of the references "
                          "are NaN or infinite")
    return tensor
