"""A promoter law whose optimum is known: two motifs and the distance between them."""

import torch
from torch import Tensor, nn

from ciscribe.design.objective import Maximize
from ciscribe.oracle import Oracle
from ciscribe.sequence import encode, one_hot_tensor

FIRST, SECOND, GAP = "TGACTCA", "GGAAGT", 5
LENGTH = 31
BEST = 4.0
"""Both motifs whole, 1 each, and at the right distance, 2 more."""


class Law(nn.Module):
    """The best match of each motif (share of its bases), and twice the best product of both at the right distance."""

    def __init__(self):
        super().__init__()
        for name, word in (("first", FIRST), ("second", SECOND)):
            self.register_parameter(name, nn.Parameter(one_hot_tensor(torch.from_numpy(encode(word))[None])
                                                       / len(word)))
        self.dropout = nn.Dropout(0.5)

    def forward(self, X: Tensor) -> Tensor:
        X = self.dropout(X)
        first, second = (nn.functional.conv1d(X, kernel)[:, 0] for kernel in (self.first, self.second))
        apart = len(FIRST) + GAP
        both = (first[:, :second.shape[1] - apart] * second[:, apart:]).amax(dim=1)
        return (first.amax(dim=1) + second.amax(dim=1) + 2 * both)[:, None]


def objective() -> Maximize:
    return Maximize(Oracle(Law(), device="cpu"))
