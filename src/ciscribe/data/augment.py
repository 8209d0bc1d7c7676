"""Evolution-like augmentations: training sequences mutate, lose, gain, move and turn pieces of DNA.

Each copy keeps the activity of its original, which is not quite true of any of them but teaches a network that
most bases matter little. As published, a network is trained on augmented sequences and then tuned for a few
epochs on the sequences as they are.

References
----------
Lee, Tang, Toneyan & Koo 2023, "EvoAug: improving generalization and interpretability of genomic deep neural
networks with evolution-inspired data augmentations", Genome Biol 24:105, doi:10.1186/s13059-023-02941-w; written
by us; names and default strengths after p-koo/evoaug@2d390b5:evoaug/augment.py. Differences: (1) codes go in and
come out, so there is no Gaussian noise on the one-hot; (2) the length stays: an insertion pushes bases out at both
ends, where the original makes every sequence longer; (3) a mutation always changes the base, and each base mutates
on its own, so that `mutation` is the expected share of changed bases; (4) N stays N; (5) pieces may lie anywhere in
the sequence, up to its last base; (6) `shift` is ours.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from ciscribe.errors import ConfigError
from ciscribe.sequence import N

_OPERATIONS = ("mutation", "insertion", "deletion", "translocation", "inversion", "reverse_complement")


@dataclass(frozen=True)
class Augment:
    """Draws some of the augmentations that are switched on for every sequence of a batch.

    Parameters
    ----------
    mutation
        Share of the bases that change into another one, 0..1.
    insertion, deletion
        A piece of random length, up to this many bp, is put in or taken out at a random place. Bases that an
        insertion pushes out at the ends are lost; a deletion fills up with random bases at both ends.
    translocation
        The sequence is cut in two and its parts swap places: a roll by up to this many bp, either way.
    inversion
        A piece of up to this many bp is replaced by its reverse complement.
    reverse_complement
        Probability that the whole sequence is. Leave it at 0 where the assay has a direction (promoters).
    n_per_sequence
        How many of those that are on are drawn for a sequence, without repeats; they act in the order above.
    shift
        Every sequence also moves by up to this many bp either way, drawn evenly.
    fill
        What a shift lets in: ``N`` or, with ``roll``, what it pushes out.

    Raises
    ------
    ConfigError
        When a strength is out of range.

    Examples
    --------
    >>> import torch
    >>> codes = torch.tensor([[0, 1, 2, 3, 3, 1, 4]], dtype=torch.uint8)
    >>> Augment(reverse_complement=1.0)(codes).tolist()
    [[4, 2, 0, 0, 1, 2, 3]]
    """

    mutation: float = 0.0
    insertion: int = 0
    deletion: int = 0
    translocation: int = 0
    inversion: int = 0
    reverse_complement: float = 0.0
    n_per_sequence: int = 2
    shift: int = 0
    fill: Literal["N", "roll"] = "N"

    def __post_init__(self) -> None:
        for name in ("mutation", "reverse_complement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share or probability in 0..1; got {getattr(self, name)}")
        for name in ("insertion", "deletion", "translocation", "inversion", "n_per_sequence", "shift"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is a whole number, 0 or more; got {getattr(self, name)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Augmentations that are switched on."""
        return tuple(name for name in _OPERATIONS if getattr(self, name))

    def __call__(self, codes: UInt8[Tensor, "B L"], generator: torch.Generator | None = None) -> UInt8[Tensor, "B L"]:
        """Augmented copy of a batch of codes, same shape and device.

        Parameters
        ----------
        codes
            Sequences; they stay as they are.
        generator
            On the device of `codes`; the same state gives the same copy. None draws from PyTorch's own.
        """
        length = codes.shape[1]
        longest = max(self.insertion, self.deletion, self.inversion)
        if longest > length:
            raise ConfigError(f"pieces of up to {longest} bp do not fit into sequences of {length} bp; "
                              "lower insertion, deletion or inversion")
        draw = _Draw(codes, generator)
        # the ranks of random numbers pick without repeats
        rank = draw.uniform(len(codes), len(self.names)).argsort(dim=1).argsort(dim=1)
        for i, name in enumerate(self.names):
            changed = getattr(self, f"_{name}")(codes, draw)
            codes = torch.where((rank[:, i] < self.n_per_sequence)[:, None], changed, codes)
        if self.shift:
            by = draw.integers(-self.shift, self.shift)
            moved = _gather(codes, draw.position - by)
            inside = (draw.position >= by) & (draw.position < length + by)
            codes = moved if self.fill == "roll" else torch.where(inside, moved, torch.full_like(moved, N))
        return codes.clone() if not self.names and not self.shift else codes

    def _mutation(self, codes: Tensor, draw: "_Draw") -> Tensor:
        hit = (draw.uniform(*codes.shape) < self.mutation) & (codes < N)
        step = draw.bases(1, 3)  # 1..3 further in the alphabet: always another base
        return torch.where(hit, (codes + step) % 4, codes)

    def _insertion(self, codes: Tensor, draw: "_Draw") -> Tensor:
        size = draw.integers(0, self.insertion)
        start = draw.integers(0, codes.shape[1])  # before this base, or behind the last
        p = draw.position + size // 2  # in the longer sequence, of which both ends are cut off
        source = torch.where(p < start, p, p - size)
        return torch.where((p >= start) & (p < start + size), draw.bases(0, 3), _gather(codes, source))

    def _deletion(self, codes: Tensor, draw: "_Draw") -> Tensor:
        size = draw.integers(0, self.deletion)
        start = draw.up_to(codes.shape[1] - size)
        p = draw.position - size // 2  # in the shorter sequence
        source = torch.where(p < start, p, p + size)
        outside = (p < 0) | (p >= codes.shape[1] - size)
        return torch.where(outside, draw.bases(0, 3), _gather(codes, source))

    def _translocation(self, codes: Tensor, draw: "_Draw") -> Tensor:
        return _gather(codes, draw.position - draw.integers(-self.translocation, self.translocation))

    def _inversion(self, codes: Tensor, draw: "_Draw") -> Tensor:
        size = draw.integers(0, self.inversion)
        start = draw.up_to(codes.shape[1] - size)
        inside = (draw.position >= start) & (draw.position < start + size)
        return torch.where(inside, _complement(_gather(codes, 2 * start + size - 1 - draw.position)), codes)

    def _reverse_complement(self, codes: Tensor, draw: "_Draw") -> Tensor:
        turn = draw.uniform(len(codes), 1) < self.reverse_complement
        return torch.where(turn, _complement(codes.flip(1)), codes)


EVOAUG = Augment(mutation=0.05, insertion=20, deletion=20, translocation=20, inversion=20, reverse_complement=0.5)
"""All of them at the published package's default strengths, two a sequence."""


class _Draw:
    """Random numbers for the rows of a batch, on its device."""

    def __init__(self, codes: Tensor, generator: torch.Generator | None):
        self.shape, self.device, self.generator = tuple(codes.shape), codes.device, generator
        self.position = torch.arange(codes.shape[1], device=codes.device)[None]

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.device)

    def integers(self, low: int, high: int) -> Tensor:
        """One whole number a row, both ends included, ``(B, 1)``."""
        return torch.randint(low, high + 1, (self.shape[0], 1), generator=self.generator, device=self.device)

    def up_to(self, high: Tensor) -> Tensor:
        """One whole number a row, 0 up to its own end, included."""
        return (self.uniform(self.shape[0], 1) * (high + 1)).long().minimum(high)

    def bases(self, low: int, high: int) -> Tensor:
        """One code a base."""
        return torch.randint(low, high + 1, self.shape, generator=self.generator, device=self.device,
                             dtype=torch.uint8)


def _gather(codes: Tensor, source: Tensor) -> Tensor:
    """Bases at the positions `source`; those off an end come in at the other."""
    return codes.gather(1, (source % codes.shape[1]).expand(codes.shape))


def _complement(codes: Tensor) -> Tensor:
    return torch.where(codes < N, 3 - codes, codes)
