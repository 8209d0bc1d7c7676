"""DNA as arrays: codes at rest, one-hot at the model.

Codes are one byte a base: A C G T = 0 1 2 3 and everything else (N, gaps, off the end) = 4. One-hot has
channels in the same order and four zeros for code 4.
"""

from itertools import product
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int8, Shaped, UInt8
from numpy import ndarray
from torch import Tensor

from ciscribe.errors import SchemaError
from ciscribe.schema import check_one_hot

BASES = "ACGT"
N = 4

_ENCODE = np.full(256, N, dtype=np.uint8)
for _i, _base in enumerate(BASES):
    _ENCODE[ord(_base)] = _ENCODE[ord(_base.lower())] = _i
_DECODE = np.frombuffer(b"ACGTN", dtype=np.uint8)
_COMPLEMENT = np.array([3, 2, 1, 0, 4], dtype=np.uint8)


@runtime_checkable
class Reference(Protocol):
    """A genome that can be asked for its bases, wherever it lies: `ciscribe.io.genome.Genome`, `MemoryGenome`."""

    @property
    def chrom_sizes(self) -> dict[str, int]:
        """Length of each chromosome in bp."""
        ...

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[ndarray, " L"]:
        """Codes of ``chrom:start-end``; positions off the chromosome are 4 (N)."""
        ...


def encode(sequence: str | bytes) -> UInt8[ndarray, " L"]:
    """Turn letters into codes; lower case reads as upper case, anything but ACGT is 4.

    Examples
    --------
    >>> encode("acGTN").tolist()
    [0, 1, 2, 3, 4]
    """
    data = sequence.encode("latin-1", "replace") if isinstance(sequence, str) else sequence
    return _ENCODE[np.frombuffer(data, dtype=np.uint8)]


def decode(codes: UInt8[ndarray, " L"]) -> str:
    """Turn codes back into upper-case letters; 4 becomes N."""
    return _DECODE[codes].tobytes().decode("ascii")


def one_hot(codes: UInt8[ndarray, "*batch L"]) -> Int8[ndarray, "*batch 4 L"]:
    """One-hot encode codes, channels A C G T before positions; N is four zeros.

    Examples
    --------
    >>> one_hot(encode("CN")).tolist()
    [[0, 0], [1, 0], [0, 0], [0, 0]]
    """
    return (codes[..., None, :] == np.arange(4, dtype=np.uint8)[:, None]).view(np.int8)


def one_hot_tensor(codes: Shaped[Tensor, "B L"]) -> Float[Tensor, "B 4 L"]:
    """One-hot encode a batch of codes on its own device, as float32."""
    bases = torch.arange(4, device=codes.device, dtype=codes.dtype).view(1, 4, 1)
    return (codes.unsqueeze(1) == bases).float()


def from_one_hot(X: Shaped[ndarray, "*batch 4 L"]) -> UInt8[ndarray, "*batch L"]:
    """Codes of one-hot sequences; columns without a base become 4."""
    X = np.asarray(X)
    return np.where(X.any(axis=-2), X.argmax(axis=-2), N).astype(np.uint8)


def codes_of(X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."]) -> UInt8[ndarray, "B L"]:
    """Codes of a batch of sequences that is given as codes ``(B, L)`` or one-hot ``(B, 4, L)``; what analyses take.

    Raises
    ------
    SchemaError
        For anything else, one-hot columns with other numbers than 0 and one 1 included.
    """
    array = np.asarray(X.detach().cpu().numpy() if isinstance(X, Tensor) else X)
    if array.ndim == 2 and array.dtype.kind in "ui":
        if array.size and not 0 <= array.min() <= array.max() <= N:
            raise SchemaError(f"codes lie in 0..4 (A C G T N); got {array.min()} to {array.max()}; use encode() on "
                              "letters")
        return array.astype(np.uint8, copy=False)
    check_one_hot(array)
    return from_one_hot(array)


def reverse_complement_codes(codes: UInt8[ndarray, "*batch L"]) -> UInt8[ndarray, "*batch L"]:
    """Reverse complement of codes.

    Examples
    --------
    >>> decode(reverse_complement_codes(encode("AACN")))
    'NGTT'
    """
    return np.ascontiguousarray(_COMPLEMENT[codes][..., ::-1])


def reverse_complement(X: Shaped[Tensor, "*batch 4 L"]) -> Shaped[Tensor, "*batch 4 L"]:
    """Reverse complement of one-hot sequences: flip channels (A↔T, C↔G) and positions."""
    return X.flip(-1, -2)


def kmer_counts(codes: UInt8[ndarray, "B L"], k: int) -> Float[ndarray, "B K"]:
    """Count the k-mers of each sequence; windows that touch an N are skipped.

    Returns
    -------
    ndarray
        Shape ``(B, 4**k)``, float32; k-mers in lexicographic order (AA…A first), one strand.
    """
    if not 1 <= k <= 8:
        raise ValueError(f"k must lie in 1..8; got {k}")
    n, length = codes.shape
    counts = np.zeros((n, 4**k), dtype=np.float32)
    if length < k:
        return counts
    weights = 4 ** np.arange(k - 1, -1, -1)
    for i, row in enumerate(codes):
        windows = np.lib.stride_tricks.sliding_window_view(row, k)
        index = windows[(windows < N).all(axis=1)].astype(np.int64) @ weights
        counts[i] = np.bincount(index, minlength=4**k)
    return counts


def dinucleotide_shuffle(codes: UInt8[ndarray, " L"], n: int = 1, *, seed: int | None = None
                         ) -> UInt8[ndarray, "n L"]:
    """Shuffle a sequence keeping exactly its counts of neighbouring base pairs.

    Draws a random Eulerian path by the last-edge tree construction: every shuffle starts and ends with
    the base of the original and holds the same dinucleotides. N counts as a fifth letter. The trees are
    few (at most 4^4), so one is drawn by its exact weight, and repeats or runs of N cost no more time.

    Parameters
    ----------
    codes
        One sequence, codes 0..4.
    n
        Number of shuffles.
    seed
        None draws fresh entropy.

    References
    ----------
    Altschul & Erickson 1985, Mol Biol Evol 2:526; Kandel, Matias, Unger & Winkler 1996.
    """
    rng = np.random.default_rng(seed)
    codes = np.asarray(codes, dtype=np.uint8)
    length = len(codes)
    out = np.empty((n, length), dtype=np.uint8)
    if length <= 2:
        out[:] = codes
        return out
    followers = [codes[1:][codes[:-1] == letter] for letter in range(5)]
    trees, weights = _exit_trees(followers, int(codes[-1]))
    for i in range(n):
        exits = trees[rng.choice(len(trees), p=weights)]
        order: list[list[int]] = []
        for letter, f in enumerate(followers):
            bag = f.tolist()
            if letter in exits:
                bag.remove(exits[letter])
            bag = [bag[j] for j in rng.permutation(len(bag))]
            if letter in exits:
                bag.append(exits[letter])
            order.append(bag[::-1])  # popped from the end
        current = int(codes[0])
        path = [current]
        while order[current]:
            current = order[current].pop()
            path.append(current)
        out[i] = path
    return out


def _exit_trees(followers: list[ndarray], last: int) -> tuple[list[dict[int, int]], ndarray]:
    """All ways in which the last exits of the letters lead to the final one, and how probable each is."""
    letters = [letter for letter, f in enumerate(followers) if len(f) and letter != last]
    counts = [np.bincount(f, minlength=5) for f in followers]
    trees, weights = [], []
    for choice in product(*(np.flatnonzero(counts[letter]).tolist() for letter in letters)):
        exits = dict(zip(letters, choice, strict=True))
        if all(_reaches(letter, last, exits) for letter in letters):
            trees.append(exits)
            weights.append(np.prod([float(counts[letter][to]) for letter, to in exits.items()]))
    return trees, np.array(weights) / np.sum(weights)


def _reaches(letter: int, last: int, exits: dict[int, int]) -> bool:
    seen = set()
    while letter != last:
        if letter in seen or letter not in exits:
            return False
        seen.add(letter)
        letter = exits[letter]
    return True


def check_codes(codes: ndarray) -> None:
    """Raise SchemaError unless `codes` is uint8 with values 0..4."""
    if codes.dtype != np.uint8:
        raise SchemaError(f"codes are uint8 (A C G T N = 0..4), got dtype {codes.dtype}: use encode()")
    if codes.size and codes.max() > N:
        raise SchemaError(f"{int((codes > N).sum()):,} of {codes.size:,} codes lie outside 0..4; "
                          f"first: {codes[codes > N][0]}; use encode() on letters")
