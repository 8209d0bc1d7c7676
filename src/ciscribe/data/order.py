"""Which examples make up each step of an epoch: a function of seed and epoch only.

So the order is the same for any number of reading processes, a resumed training continues with its own, and
processes that train together share the steps out without speaking to each other.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy import ndarray
from torch.utils.data import Sampler


class EpochOrder(Sampler):
    """Rows, and shifts where windows move, of every step.

    Parameters
    ----------
    rows
        Row numbers to go through once an epoch.
    batch_size
        Rows a step. The last step may be smaller; when shuffling, a single row that is left over joins the step
        before, because batch norm cannot train on one.
    shuffle
        New order every epoch.
    max_shift
        Every row also gets a whole number in −max_shift..max_shift, drawn evenly; 0 draws none.
    seed
        Of order and shifts.
    """

    def __init__(self, rows: ndarray, batch_size: int, *, shuffle: bool = False, max_shift: int = 0, seed: int = 0):
        self.rows, self.shuffle, self.max_shift, self.seed = rows, shuffle, max_shift, seed
        self.epoch = 0
        n_steps = -(-len(rows) // batch_size)
        if shuffle and n_steps > 1 and len(rows) % batch_size == 1:
            n_steps -= 1
        self.bounds = [*range(0, n_steps * batch_size, batch_size), len(rows)]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-(len(self.bounds) - 1) // _share()[1])

    def __iter__(self) -> Iterator[tuple[ndarray, ndarray | None]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = rng.permutation(self.rows) if self.shuffle else self.rows
        shift = rng.integers(-self.max_shift, self.max_shift + 1, len(rows)) if self.max_shift else None
        rank, world = _share()
        for i in range(len(self)):  # processes that train together take turns; the last round may start over
            step = (i * world + rank) % (len(self.bounds) - 1)
            part = slice(self.bounds[step], self.bounds[step + 1])
            yield rows[part], None if shift is None else shift[part]


def _share() -> tuple[int, int]:
    """Rank of this process, and how many train together."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
