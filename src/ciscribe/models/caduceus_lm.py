"""Caduceus as published: a masked language model of DNA, one token a base, that may be equal on both strands.

Schiff et al., "Caduceus: Bi-directional equivariant long-range DNA sequence modeling", ICML 2024,
arXiv:2403.03234. Facts from kuleshov-group/caduceus@0060a6d:caduceus/modeling_{caduceus,rcps}.py and
configuration_caduceus.py; written anew. `ciscribe.models.caduceus` is the expression model of the same blocks.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import CheckpointError
from ciscribe.nn.ssm import BiMambaStack
from ciscribe.sequence import reverse_complement

CARD = Card(
    name="caduceus_lm", kind="model", task="language model",
    summary="Predicts hidden bases from the bases on both sides, the same on either strand.",
    paper="Schiff et al., ICML 2024, arXiv:2403.03234",
    code="kuleshov-group/caduceus@0060a6d:caduceus/modeling_caduceus.py, modeling_rcps.py (read, not copied)",
    licence="MIT; published code and weights Apache-2.0",
    parameters=7_725_312, input_length=131_072, resolution=1, attribution=("gradient", "ism"),
    n_policy="four zeros are the token N",
    differences=(
        "fused_order=False, the default, keeps the two strands in place; the released weights were trained with a "
        "fused kernel that exchanges them before every layer, which is another function: they need fused_order=True.",
        "With rcps the embedding is the mean of the two strands, aligned by position: what both together say, and the "
        "same for a sequence and its reverse complement.",
        "No separator token is appended.",
        "Each layer's output projection starts divided by the square root of the number of layers.",
    ),
)
PRESETS = {"cpu": {"d_model": 32, "n_layers": 2, "d_state": 8}}

N_TOKENS = 16  # 12 of the vocabulary, padded to a multiple of 8
BASE_TOKENS = (7, 8, 9, 10)  # A C G T, after [CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK]
MASK_TOKEN, N_TOKEN = 3, 11
_COMPLEMENT = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15]


class CaduceusLM(nn.Module):
    """Bidirectional state-space language model of DNA.

    Parameters
    ----------
    d_model, n_layers, d_state, d_conv, expand
        As in `ciscribe.nn.ssm.BiMambaStack`. Published sizes: 256 × 16 (131 kb), 118 × 4 and others (1 kb).
    rcps
        True is Caduceus-PS: the reverse complement of a sequence gives the same logits and embedding, reversed
        (logits also complemented), at twice the cost. False is Caduceus-Ph: average the strands yourself.
    fused_order
        Exchange the two strands before every layer, as the released PS weights need; see the card. No effect
        without `rcps`.
    dropout
        Share of each layer's output set to zero in training.
    """

    base_tokens: ClassVar = BASE_TOKENS
    unscored_tokens: ClassVar = (N_TOKEN,)
    causal: ClassVar = False

    def __init__(self, d_model: int = 256, n_layers: int = 16, *, d_state: int = 16, d_conv: int = 4, expand: int = 2,
                 rcps: bool = True, fused_order: bool = False, dropout: float = 0.0):
        super().__init__()
        self.rcps, self.fused_order = rcps, fused_order
        self.word_embeddings = nn.Parameter(0.02 * torch.randn(N_TOKENS, d_model))  # also the head
        self.stack = BiMambaStack(d_model, n_layers, d_state=d_state, d_conv=d_conv, expand=expand, dropout=dropout)

    def tokens(self, X: Float[Tensor, "B 4 L"]) -> Int64[Tensor, "B L"]:
        """Token of each position, as `logits` count them; a column of zeros is N."""
        bases = torch.tensor(BASE_TOKENS, device=X.device)[X.argmax(dim=1)]
        return torch.where(X.sum(dim=1) > 0, bases, N_TOKEN)

    def _embed(self, X: Tensor, mask: Tensor | None) -> Tensor:
        bases = X.transpose(1, 2)  # a product with the one-hot, so that gradients reach it
        h = bases @ self.word_embeddings[list(BASE_TOKENS)]
        h = h + (1 - bases.sum(dim=2, keepdim=True)) * self.word_embeddings[N_TOKEN]
        return h if mask is None else torch.where(mask.unsqueeze(2), self.word_embeddings[MASK_TOKEN], h)

    def forward(self, X: Float[Tensor, "B 4 L"], mask: Bool[Tensor, "B L"] | None = None) -> dict[str, Tensor]:
        """Read sequences of any length.

        Parameters
        ----------
        X
            One-hot sequences; a column of zeros is the token N.
        mask
            True hides a position: its token becomes [MASK].

        Returns
        -------
        dict
            ``"logits"`` ``(B, 16, L)`` of the token at each position, ``"embedding"`` ``(B, d_model, L)``.
        """
        h = self._embed(X, mask)
        if not self.rcps:
            h = self.stack(h)
            return {"logits": (h @ self.word_embeddings.t()).transpose(1, 2), "embedding": h.transpose(1, 2)}
        # Both strands, each 5' to 3', as one batch. The published layout stores the second one flipped in length
        # and channels, which is why an exchange of the halves flips both.
        h = torch.cat([h, self._embed(reverse_complement(X), None if mask is None else mask.flip(1))])
        for layer in self.stack.layers:
            if self.fused_order:
                h = torch.cat(h.chunk(2)[::-1]).flip(1, 2)
            h = layer(h)
        plus, minus = self.stack.norm(h).chunk(2)
        minus = minus.flip(1)
        logits = plus @ self.word_embeddings.t() + minus @ self.word_embeddings[_COMPLEMENT].t()
        return {"logits": logits.transpose(1, 2), "embedding": ((plus + minus) / 2).transpose(1, 2)}


def arguments_of(config: dict) -> dict:
    """Arguments of `CaduceusLM` from the ``config.json`` of a published checkpoint.

    Raises
    ------
    CheckpointError
        When the checkpoint has an option that this model does not have.
    """
    ssm = config.get("ssm_cfg") or {}
    needed = [
        ("bidirectional", config.get("bidirectional", True), True),
        ("bidirectional_strategy", config.get("bidirectional_strategy") or "add", "add"),
        ("bidirectional_weight_tie", config.get("bidirectional_weight_tie", True), True),
        ("rms_norm", config.get("rms_norm", True), True),
        ("norm_epsilon", config.get("norm_epsilon", 1e-5), 1e-5),
        ("ssm_cfg.dt_rank", ssm.get("dt_rank", "auto"), "auto"),
        ("ssm_cfg.bias", ssm.get("bias", False), False),
        ("ssm_cfg.conv_bias", ssm.get("conv_bias", True), True),
    ]
    for name, value, expected in needed:
        if value != expected:
            raise CheckpointError(f"this Caduceus checkpoint has {name} = {value!r}; the model is written for "
                                  f"{expected!r} only")
    missing = [key for key in ("d_model", "n_layer") if key not in config]
    if missing:
        raise CheckpointError(f"the config.json of a Caduceus checkpoint states d_model and n_layer; {missing[0]} is "
                              "missing; take the config.json that was published beside the weights")
    return {"d_model": config["d_model"], "n_layers": config["n_layer"], "d_state": ssm.get("d_state", 16),
            "d_conv": ssm.get("d_conv", 4), "expand": ssm.get("expand", 2), "rcps": bool(config.get("rcps", False)),
            "fused_order": bool(config.get("fused_add_norm", True))}


def convert_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published checkpoint to those of `CaduceusLM`.

    Copies of tied tensors (head, backward projections) and the complement tables are left out; names that are not
    known stay, so that whoever fills the model can complain about them.
    """
    directions = {"mamba_fwd": "0", "mamba_rev": "1"}
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        path = name.replace(".submodule", "").removeprefix("caduceus.").removeprefix("backbone.").split(".")
        tied = path[0] == "lm_head" or path[-1] == "complement_map" or (
            "mamba_rev" in path and path[-2] in ("in_proj", "out_proj"))
        if tied:
            continue
        if path[0] == "embeddings":
            converted["word_embeddings"] = tensor
        elif path[0] == "norm_f":
            converted["stack.norm.weight"] = tensor
        elif path[0] == "layers" and path[2] == "mixer" and path[3] in directions:
            layer, part = f"stack.layers.{path[1]}.mixer", path[4:]
            scanner = f"{layer}.scanners.{directions[path[3]]}"
            if part[0] in ("in_proj", "out_proj"):
                converted[f"{layer}.{part[0]}.0.{part[1]}"] = tensor
            elif part == ["conv1d", "weight"]:
                converted[f"{scanner}.conv_weight"] = tensor.squeeze(1)
            elif part == ["conv1d", "bias"]:
                converted[f"{scanner}.conv_bias"] = tensor
            else:
                converted[f"{scanner}.{'.'.join(part)}"] = tensor
        elif path[0] == "layers" and path[2] == "norm":
            converted[f"stack.layers.{path[1]}.norm.weight"] = tensor
        else:
            converted[name] = tensor
    return converted
