"""Tensors from files that others made: read without running code, and put only where they fit."""

import json
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ciscribe.errors import CheckpointError, DataMissingError

PICKLES = (".bin", ".pt", ".pth")
# In the order in which they are looked for: safe and whole first.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read tensors by name, on the CPU, without running code.

    Parameters
    ----------
    path
        ``.safetensors``, ``.bin``, ``.pt``, ``.pth`` (weights only), the ``.index.json`` of a checkpoint in pieces, or
        a folder that holds one of them.

    Raises
    ------
    DataMissingError
        When it, or a piece of it, is not there.
    CheckpointError
        When it is damaged, or a pickle holds more than tensors.
    """
    path = Path(path)
    if path.is_dir():
        path = _weights_in(path)
    if not path.is_file():
        raise DataMissingError(f"there is no file or folder {path}; a model on the hub is named hf://owner/name")
    if path.name.endswith(".index.json"):
        return _read_pieces(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); download it again") from error
    if path.suffix not in PICKLES:
        raise CheckpointError(f"weights are .safetensors, {', '.join(PICKLES)} or .index.json; got {path.name}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} does not open as weights only: it is damaged, or a pickle that would run code, which ciscribe "
            f"refuses ({str(error).splitlines()[0] if str(error) else type(error).__name__}); ask for a .safetensors "
            "file, or convert it where you trust it") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no dictionary of tensors; save model.state_dict()")
    return content


def _weights_in(folder: Path) -> Path:
    found = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not found:
        found = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", *PICKLES))
        if len(found) > 1:
            raise CheckpointError(f"{folder} holds {len(found)} weight files ({found[0].name}, {found[1].name}, …); "
                                  "name one of them")
    if not found:
        raise DataMissingError(f"{folder} holds no weights; put model.safetensors (or pytorch_model.bin) beside "
                               "config.json")
    return found[0]


def _read_pieces(index: Path) -> dict[str, Tensor]:
    try:
        places: dict[str, str] = json.loads(index.read_text())["weight_map"]
        files = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged ({error!r}); download it again") from error
    outside = [name for name in files if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{index} names {outside[0]!r}, which is not in its own folder; that is refused")
    missing = [name for name in files if not (index.parent / name).is_file()]
    if missing:
        raise DataMissingError(f"{len(missing)} of {len(files)} pieces that {index} names are missing; first: "
                               f"{missing[0]}; download them into the same folder")
    state: dict[str, Tensor] = {}
    for name in files:
        state |= read_weights(index.parent / name)
    return state


def fill(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load tensors that fit exactly.

    Raises
    ------
    CheckpointError
        Listing the first three that do not, with both shapes; `source` says where they are from.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [name for name in [*wanted, *sorted(set(shapes) - set(wanted))] if shapes.get(name) != wanted.get(name)]
    if wrong:
        lines = [f"{name}: file {shapes.get(name, 'absent')}, model {wanted.get(name, 'absent')}" for name in wrong[:3]]
        raise CheckpointError(f"{len(wrong)} tensors of {source} do not fit {type(model).__name__}: {'; '.join(lines)}"
                              "; the checkpoint is of another size or family than its config.json says")
    model.load_state_dict(state)
