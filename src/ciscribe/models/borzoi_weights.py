"""Released Borzoi weights in the layout of their PyTorch port, renamed to ours.

The layout is that of johahi/borzoi-pytorch@37686b4:borzoi_pytorch/pytorch_borzoi_model.py, in which
johahi/borzoi-replicate-0 … 3 (and their -mouse) are published (facts: names and shapes). Flashzoi is another network
(rotary positions) and is refused.
"""

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ciscribe.errors import CheckpointError
from ciscribe.models.enformer_weights import BLOCK_RULES, Rules, block_arguments, rename

# a block's norm and convolution stand at 0 and 2 of ours; a stage of the tower has its pool within, theirs beside it
_BLOCKS = ((r"^horizontal_conv([01])\.", r"up\1.skip."), (r"^upsampling_unet([01])\.0\.", r"up\1.below."),
           (r"^final_joined_convs\.0\.", "final."))

RULES: Rules = (
    (r"^human_head_bak\.", None),  # a copy that the port keeps when tracks were chosen
    (r"^conv_dna\.conv_layer\.", "stem.0."),
    (r"^res_tower\.(\d+)\.norm\.", lambda m: f"tower.{int(m[1]) // 2}.0."),
    (r"^res_tower\.(\d+)\.conv_layer\.", lambda m: f"tower.{int(m[1]) // 2}.2."),
    (r"^unet1\.1\.norm\.", "bottom.1."), (r"^unet1\.1\.conv_layer\.", "bottom.3."),
    *((rf"{theirs}{layer}\.", f"{ours}{i}.") for theirs, ours in _BLOCKS
      for layer, i in (("norm", 0), ("conv_layer", 2))),
    *BLOCK_RULES,
    (r"^separable([01])\.conv_layer\.0\.", r"up\1.depthwise."),
    (r"^separable([01])\.conv_layer\.1\.", r"up\1.pointwise."),
    (r"^(human|mouse)_head\.", r"heads.\1.0."),
)


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
    return rename(state, RULES, organisms)


def arguments_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments of `ciscribe.models.borzoi.Borzoi` in the size of a published checkpoint (its crop is not in it).

    Raises
    ------
    CheckpointError
        When the tensors are not a Borzoi's.
    """
    needed = ("conv_dna.conv_layer.weight", "unet1.1.conv_layer.weight", "transformer.0.0.fn.1.to_q.weight",
              "final_joined_convs.0.conv_layer.weight")
    missing = [name for name in needed if name not in state]
    if missing:
        raise CheckpointError(f"no Borzoi in the layout of borzoi-pytorch: {missing[0]} is missing; the tensors are "
                              f"{', '.join(sorted(state)[:3])}, …")
    tower = sorted((int(m[1]), len(value)) for name, value in state.items()
                   if (m := re.fullmatch(r"res_tower\.(\d+)\.conv_layer\.weight", name)))
    return block_arguments(state) | {
        "n_targets": {m[1]: len(value) for name, value in state.items()
                      if (m := re.fullmatch(r"(human|mouse)_head\.weight", name))},
        "widths": [len(state["conv_dna.conv_layer.weight"]), *(width for _, width in tower)],
        "d_model": len(state["unet1.1.conv_layer.weight"]),
        "final_width": len(state["final_joined_convs.0.conv_layer.weight"]),
    }
