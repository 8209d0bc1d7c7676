"""Released Enformer weights in the layout of their PyTorch port, renamed to ours.

The layout is that of lucidrains/enformer-pytorch@5a5974d:enformer_pytorch/modeling_enformer.py, in which
EleutherAI/enformer-official-rough is published (facts: names and shapes). Borzoi's port has the same transformer, so
`ciscribe.models.borzoi_weights` shares what is said here of its blocks.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ciscribe.errors import CheckpointError

Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str] | None]]

BLOCK_RULES: Rules = (
    (r"^transformer\.(\d+)\.0\.fn\.0\.", r"transformer.blocks.\1.norm."),
    (r"^transformer\.(\d+)\.0\.fn\.1\.to_q\.", r"transformer.blocks.\1.attention.query."),
    (r"^transformer\.(\d+)\.0\.fn\.1\.to_k\.", r"transformer.blocks.\1.attention.key."),
    (r"^transformer\.(\d+)\.0\.fn\.1\.to_v\.", r"transformer.blocks.\1.attention.value."),
    (r"^transformer\.(\d+)\.0\.fn\.1\.to_out\.", r"transformer.blocks.\1.attention.output."),
    (r"^transformer\.(\d+)\.0\.fn\.1\.to_rel_k\.", r"transformer.blocks.\1.attention.position."),
    (r"^transformer\.(\d+)\.0\.fn\.1\.rel_content_bias$", r"transformer.blocks.\1.attention.content_bias"),
    (r"^transformer\.(\d+)\.0\.fn\.1\.rel_pos_bias$", r"transformer.blocks.\1.attention.position_bias"),
    (r"^transformer\.(\d+)\.0\.fn\.1\.positions$", None),  # features of distances: computed here
    (r"^transformer\.(\d+)\.1\.fn\.", r"transformer.blocks.\1.mlp."),
)

RULES: Rules = (
    (r"^_trunk\.", None),  # the same tensors under a second name
    (r"gamma", None),  # tables of positional features: computed here
    (r"^stem\.0\.", "stem.first."), (r"^stem\.1\.fn\.", "stem.point."),
    (r"^stem\.2\.to_attn_logits\.", "stem.pool.mix."),
    (r"^conv_tower\.(\d+)\.0\.", r"tower.\1.first."), (r"^conv_tower\.(\d+)\.1\.fn\.", r"tower.\1.point."),
    (r"^conv_tower\.(\d+)\.2\.to_attn_logits\.", r"tower.\1.pool.mix."),
    *BLOCK_RULES,
    (r"^final_pointwise\.1\.", "final."), (r"^_heads\.(\w+)\.0\.", r"heads.\1.0."),
)

_TRUNK = {"1": "stem", "2": "conv_tower", "4": "transformer", "6": "final_pointwise"}  # second names


def convert_state(state: dict[str, Tensor], organisms: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Tensors of a published checkpoint under our names and shapes.

    Parameters
    ----------
    state
        Names and tensors of the port's checkpoint.
    organisms
        Heads to keep; None keeps all, which is what the arguments of `arguments_of` have.

    Returns
    -------
    dict
        A tensor that is not known keeps its name, so that filling a model with it fails and names it.
    """
    return rename(_named(state), RULES, organisms)


def arguments_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments of `ciscribe.models.enformer.Enformer` in the size of a published checkpoint (its crop is not in it).

    Raises
    ------
    CheckpointError
        When the tensors are not an Enformer's.
    """
    state = _named(state)
    needed = ("stem.0.weight", "transformer.0.0.fn.1.to_q.weight", "final_pointwise.1.2.weight")
    missing = [name for name in needed if name not in state]
    if missing:
        raise CheckpointError(f"no Enformer in the layout of enformer-pytorch: {missing[0]} is missing; the tensors "
                              f"are {', '.join(sorted(state)[:3])}, …")
    tower = sorted((int(m[1]), len(value)) for name, value in state.items()
                   if (m := re.fullmatch(r"conv_tower\.(\d+)\.0\.2\.weight", name)))
    return block_arguments(state) | {
        "n_targets": {m[1]: len(value) for name, value in state.items()
                      if (m := re.fullmatch(r"_heads\.(\w+)\.0\.weight", name))},
        "widths": [len(state["stem.0.weight"]), *(width for _, width in tower)],
        "final_width": len(state["final_pointwise.1.2.weight"]),
    }


def _named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Files may keep either of the two names of a tensor: bring back the first one."""
    second = {re.sub(r"^_trunk\.(\d)(?=\.)", lambda m: _TRUNK.get(m[1], m[0]), name): value
              for name, value in state.items()}
    return second | state


def block_arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Number and sizes of the transformer blocks of either port."""
    part = "transformer.0.0.fn.1."
    n_heads, key_size = state[f"{part}rel_content_bias"].shape[1::2]
    layers = {m[1] for name in state if (m := re.match(r"transformer\.(\d+)\.", name))}
    return {"n_layers": len(layers), "n_heads": n_heads, "key_size": key_size,
            "value_size": len(state[f"{part}to_v.weight"]) // n_heads,
            "n_positions": state[f"{part}to_rel_k.weight"].shape[1]}


def rename(state: dict[str, Tensor], rules: Rules, organisms: Sequence[str] | None) -> dict[str, Tensor]:
    """Rename by the first rule that matches; None drops what is known and not needed.

    Heads become convolutions of width 1, which they are, and pools dense layers. Counts of batches that a file lacks
    are 0.
    """
    ours: dict[str, Tensor] = {}
    for theirs, value in state.items():
        name: str | None = theirs
        for pattern, new in rules:
            if re.search(pattern, theirs):
                name = None if new is None else re.sub(pattern, new, theirs)
                break
        if name is None or (organisms is not None and name.startswith("heads.")
                            and name.split(".")[1] not in organisms):
            continue
        if name.endswith("pool.mix.weight"):
            value = value.reshape(value.shape[:2])
        elif name.startswith("heads.") and value.ndim == 2:
            value = value.unsqueeze(-1)
        ours[name] = value
    counts = {name.replace("running_var", "num_batches_tracked"): torch.tensor(0)
              for name in ours if name.endswith("running_var")}
    return counts | ours
