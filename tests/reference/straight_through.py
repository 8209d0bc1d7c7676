"""Ledidi and FastSeqProp without constraints, one start at a time, by autograd through hard samples."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def hard(p: Tensor, codes: Tensor) -> Tensor:
    """One-hot of the codes forwards, the probabilities backwards."""
    s = torch.nn.functional.one_hot(codes, 4).transpose(-1, -2).to(p)
    return s - p.detach() + p


def ledidi(score: Callable[[Tensor], Tensor], start: np.ndarray, noise: np.ndarray, *, penalty: float, rate: float
           ) -> list[np.ndarray]:
    """All sequences drawn, step by step; `noise` is Gumbel ``(steps, samples, 4, L)``."""
    x = torch.nn.functional.one_hot(torch.from_numpy(start.astype(np.int64)), 4).T.float()
    weights = torch.zeros_like(x, requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=rate)
    drawn = []
    for gumbel in torch.from_numpy(noise.astype(np.float32)):
        logits = (x + 1e-4).log() + weights + gumbel
        p = logits.softmax(dim=1)
        drawn.append(logits.argmax(dim=1).numpy().astype(np.uint8))
        X = hard(p, logits.argmax(dim=1))
        loss = -score(X).mean() + penalty * (X - x).abs().sum() / (2 * len(X))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return drawn


def seqprop(score: Callable[[Tensor], Tensor], theta: np.ndarray, noise: np.ndarray, *, rate: float
            ) -> list[np.ndarray]:
    """All sequences drawn, step by step; `theta` is ``(4, L)``, `noise` is Gumbel ``(steps, samples, 4, L)``."""
    norm = torch.nn.InstanceNorm1d(4, affine=True, track_running_stats=False)
    logits = torch.from_numpy(theta[None].astype(np.float32)).requires_grad_()
    optimizer = torch.optim.Adam([logits, *norm.parameters()], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(noise), 1e-6)
    drawn = []
    for gumbel in torch.from_numpy(noise.astype(np.float32)):
        log_p = norm(logits).log_softmax(dim=1)
        codes = (log_p + gumbel).argmax(dim=1)
        drawn.append(codes.numpy().astype(np.uint8))
        optimizer.zero_grad()
        (-score(hard(log_p.exp().expand(len(codes), -1, -1), codes)).mean()).backward()
        optimizer.step()
        schedule.step()
    return drawn
