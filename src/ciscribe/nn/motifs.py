"""Start a network from known motifs: write them into its first convolution before training.

With few sequences, a first layer that already knows the factors of the cell learns faster than one that must find
them; training then refines the kernels.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from ciscribe.errors import ConfigError, SchemaError


def start_from_motifs(model: nn.Module, ppms: Sequence[Float[ndarray, "4 _"]], *,
                      background: float | Sequence[float] = 0.25, scale: Literal["logodds", "jores"] = "logodds",
                      both_strands: bool = False, pseudocount: float = 0.01) -> int:
    """Write motifs into the first filters of a model's first convolution over bases.

    A motif longer than the kernel is cut to its most informative window, a shorter one stands in the middle of zeros.
    Biases, and the filters after the last motif, stay as they are.

    Parameters
    ----------
    model
        A network, changed in place; or the convolution itself. Taken is its first `torch.nn.Conv1d` that reads four
        channels and more than one bp.
    ppms
        Probabilities of A C G T (rows) at each position of a motif; columns sum to 1.
    background
        Frequency of a base, or of A, C, G, T.
    scale
        ``"logodds"``: log2 of probability over background, so that a filter gives a match's score in bits.
        ``"jores"``: probability over background, without logarithm: 1 where a position tells nothing.
    both_strands
        True writes the reverse complement of each motif after it.
    pseudocount
        Added to each probability before the logarithm, which is thereby bounded.

    Returns
    -------
    int
        Number of filters that were set.

    Raises
    ------
    ConfigError
        When there is no such convolution, or it has fewer filters than there are kernels to write.
    SchemaError
        When a motif is not a matrix of probabilities.

    References
    ----------
    Quang & Xie 2016, doi:10.1093/nar/gkw226 (first filters from JASPAR); Jores et al. 2021,
    doi:10.1038/s41477-021-00932-y (``"jores"``: frequencies divided by 0.25, cut to the kernel; how they were cut is
    ours, and so are the filters of the reverse strand and the log-odds).
    """
    if scale not in ("logodds", "jores"):
        raise ConfigError(f"scale is 'logodds' or 'jores'; got {scale!r}")
    share = np.broadcast_to(np.asarray(background, dtype=float), 4)[:, None]
    if (share <= 0).any() or (share >= 1).any() or pseudocount <= 0:
        raise ConfigError(f"background lies between 0 and 1 and the pseudocount above 0; got {background} and "
                          f"{pseudocount}")
    _check_ppms(ppms)
    conv = _first_convolution(model)
    width = conv.kernel_size[0]
    kernels = []
    for ppm in ppms:
        ppm = _most_informative(ppm, width, share, pseudocount)
        for strand in (ppm, ppm[::-1, ::-1])[:2 if both_strands else 1]:
            kernel = np.zeros((4, width))
            left = (width - strand.shape[1]) // 2
            values = _log_odds(strand, share, pseudocount) if scale == "logodds" else strand / share
            kernel[:, left:left + strand.shape[1]] = values
            kernels.append(kernel)
    if len(kernels) > conv.out_channels:
        raise ConfigError(f"{len(kernels)} motif kernels do not fit into the {conv.out_channels} filters of the first "
                          "convolution; pass fewer motifs or create the model with more filters")
    if kernels:
        with torch.no_grad():
            conv.weight[:len(kernels)] = torch.as_tensor(np.stack(kernels)).to(conv.weight)
    return len(kernels)


def _first_convolution(model: nn.Module) -> nn.Conv1d:
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv1d)]
    for conv in convolutions:
        if conv.weight.shape[1] == 4 and conv.groups == 1 and conv.kernel_size[0] > 1:
            return conv
    seen = ", ".join(f"{c.in_channels} × {c.kernel_size[0]} bp" for c in convolutions[:3]) or "none at all"
    raise ConfigError(f"motifs are written into a Conv1d that reads 4 channels and more than 1 bp, and "
                      f"{type(model).__name__} has none; its first convolutions: {seen}; pass the convolution itself")


def _check_ppms(ppms: Sequence[ndarray]) -> None:
    def is_ppm(m: ndarray) -> bool:
        return m.ndim == 2 and m.shape[0] == 4 and m.shape[1] > 0 and bool(
            (m >= 0).all() and np.allclose(m.sum(axis=0), 1, atol=1e-2))

    wrong = [i for i, m in enumerate(ppms) if not is_ppm(np.asarray(m))]
    if wrong:
        m = np.asarray(ppms[wrong[0]])
        raise SchemaError(f"a motif is a matrix (4, W) of probabilities whose columns sum to 1; {len(wrong)} of "
                          f"{len(ppms)} are not; first: motif {wrong[0]} of shape {m.shape}; divide counts by their "
                          "column sums, and put bases in rows A C G T")


def _log_odds(ppm: ndarray, share: ndarray, pseudocount: float) -> ndarray:
    return np.log2((ppm + pseudocount) / (1 + 4 * pseudocount) / share)


def _most_informative(ppm: ndarray, width: int, share: ndarray, pseudocount: float) -> ndarray:
    """The window of `width` columns with most information against the background, the first of equals."""
    if ppm.shape[1] <= width:
        return ppm
    information = (ppm * _log_odds(ppm, share, pseudocount)).sum(axis=0)
    start = int(np.argmax(np.convolve(information, np.ones(width), mode="valid")))
    return ppm[:, start:start + width]
