"""Both strands at once: any model made blind to the strand that it is shown.

DNA has no preferred strand, but a network trained on one has. Averaging (or taking the larger of) the predictions of
a sequence and of its reverse complement is the oldest remedy, and costs one more pass.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.errors import ConfigError, SchemaError
from ciscribe.sequence import reverse_complement

Swap = Sequence[int] | Mapping[str, Sequence[int]] | None


class BothStrands(nn.Module):
    """Predict a sequence and its reverse complement, and combine the two.

    Outputs ``(B, T)`` are combined as they are. Outputs with positions last, ``(B, tracks, bins)``, are turned back
    first, and stranded tracks change places with their partners. Entries of a dictionary are treated one by one. The
    model's crop must be symmetric, or bins of the two strands do not meet.

    Parameters
    ----------
    model
        Any model of the zoo; its weights are trained through the wrapper, and found at `model`.
    combine
        ``"mean"`` of the two (DeepSEA at test), or the larger, ``"max"`` (DeepBind).
    swap
        For each track, the index of its partner on the other strand, its own where it has none: ``(1, 0, 2)`` for
        plus, minus, unstranded. A mapping gives it by the key of the model's output; keys left out do not swap. With
        a sequence, every output of that many tracks swaps, and outputs of one column do not.

    Raises
    ------
    ConfigError
        When `combine` is neither, or `swap` does not pair the tracks.

    References
    ----------
    Alipanahi et al. 2015, doi:10.1038/nbt.3300 (max); Zhou & Troyanskaya 2015, doi:10.1038/nmeth.3547 (mean).
    """

    def __init__(self, model: nn.Module, combine: Literal["mean", "max"] = "mean", swap: Swap = None):
        super().__init__()
        if combine not in ("mean", "max"):
            raise ConfigError(f"combine is 'mean' or 'max'; got {combine!r}")
        for key, partners in swap.items() if isinstance(swap, Mapping) else [("", swap or ())]:
            _check_pairs(key, partners)
        self.model, self.combine, self.swap = model, combine, swap

    def forward(self, X: Float[Tensor, "B 4 L"], S: Float[Tensor, "B S bins"] | None = None,
                covariates: Float[Tensor, "B C"] | None = None, keep: Float[Tensor, "B bins"] | None = None
                ) -> Tensor | dict[str, Tensor]:
        """Predict; signals and `keep` are turned with the sequence, covariates belong to both strands.

        Raises
        ------
        SchemaError
            For language models, and for outputs that do not have the tracks of `swap`.
        """
        ahead = self.model(X, **_given(S=S, covariates=covariates, keep=keep))
        back = self.model(reverse_complement(X), **_given(S=None if S is None else S.flip(-1), covariates=covariates,
                                                          keep=None if keep is None else keep.flip(-1)))
        keys = list(ahead) if isinstance(ahead, dict) else []
        if "logits" in keys or "embedding" in keys:
            raise SchemaError(f"BothStrands combines predictions, but the model returned {', '.join(keys)}: the tokens "
                              "of a language model have complements of their own; use the language model itself")
        unknown = [key for key in self.swap if key not in keys] if isinstance(self.swap, Mapping) else []
        if unknown:
            raise SchemaError(f"swap names the output {unknown[0]!r}, but the model returned "
                              f"{', '.join(keys) or 'one tensor; give swap as a sequence'}")
        if not isinstance(ahead, dict):
            return self._join("", ahead, back)
        return {key: self._join(key, ahead[key], back[key]) for key in keys}

    def _join(self, key: str, ahead: Tensor, back: Tensor) -> Tensor:
        if back.ndim > 2:
            back = back.flip(-1)
        n = back.shape[1] if back.ndim > 1 else 1
        if isinstance(self.swap, Mapping):
            partners = self.swap.get(key)
        else:
            partners = self.swap if n > 1 else None
        if partners is not None:
            if n != len(partners):
                name = f"output {key!r}" if key else "output"
                raise SchemaError(f"swap pairs {len(partners)} tracks, but the model's {name} has {n}; give one "
                                  "partner a track, or a mapping of outputs to partners")
            back = back[:, list(partners)]
        return torch.maximum(ahead, back) if self.combine == "max" else (ahead + back) / 2


def _given(**inputs: Tensor | None) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if value is not None}


def _check_pairs(key: str, partners: Sequence[int]) -> None:
    n = len(partners)
    wrong = [i for i, j in enumerate(partners) if not 0 <= j < n or partners[j] != i]
    if wrong:
        raise ConfigError(f"swap{f' of {key!r}' if key else ''} gives each track's partner, but {len(wrong)} of {n} "
                          f"tracks are not their partner's partner; first: track {wrong[0]} → {partners[wrong[0]]}")
