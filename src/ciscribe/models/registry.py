"""Create models by name, and keep them as folders that load without running code.

A saved model is ``config.json`` (name, version, arguments), ``model.safetensors`` and ``card.md``. Only names
of this registry load; a folder never brings code of its own.
"""

import inspect
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ciscribe import __version__
from ciscribe.card import Card
from ciscribe.errors import CheckpointError, ConfigError, DataMissingError, UnknownNameError, nearest
from ciscribe.models import caduceus, prism, seq2exp
from ciscribe.provenance import atomic_folder, provenance, write_json, write_text

FORMAT = 1

_MODELS: dict[str, tuple[type[nn.Module], Card]] = {
    "caduceus": (caduceus.Caduceus, caduceus.CARD),
    "prism": (prism.Prism, prism.CARD),
    "seq2exp": (seq2exp.Seq2Exp, seq2exp.CARD),
}


def names(pattern: str = "*") -> list[str]:
    """Names of the registered models that match a shell pattern.

    Examples
    --------
    >>> names("seq*")
    ['seq2exp']
    """
    return [n for n in sorted(_MODELS) if fnmatch(n, pattern)]


def _find(name: str) -> tuple[type[nn.Module], Card]:
    if name not in _MODELS:
        raise UnknownNameError(f"no model is called {name!r}; {nearest(name, _MODELS)}")
    return _MODELS[name]


def card(name: str) -> Card:
    """Card of a registered model."""
    return _find(name)[1]


def create(name: str, **arguments: Any) -> nn.Module:
    """Build a registered model; arguments left out take their published defaults.

    Raises
    ------
    UnknownNameError
        With the nearest name.
    ConfigError
        When the model has no such argument, naming the nearest.
    """
    cls, _ = _find(name)
    known = list(inspect.signature(cls).parameters)
    for key in arguments:
        if key not in known:
            raise ConfigError(f"model {name!r} has no argument {key!r}; {nearest(key, known)}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"model {name!r} could not be built from {arguments}: {error}") from error


def save(folder: str | Path, name: str, model: nn.Module, arguments: dict[str, Any], **facts: Any) -> None:
    """Write a model folder, whole or not at all.

    Parameters
    ----------
    folder
        Where; replaced when it exists.
    name, arguments
        What `create` needs to build it again.
    model
        Its weights are saved.
    **facts
        JSON-ready, kept in ``config.json`` (tracks, targets, window …) and given back by `load`.
    """
    with atomic_folder(folder) as temporary:
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt", "model": name})
        (temporary / "model.safetensors").chmod(0o644)  # safetensors writes for the owner only
        write_json(temporary / "config.json", {"format": FORMAT, "model": name, "ciscribe": __version__,
                                               "arguments": arguments, "facts": facts, "provenance": provenance()})
        n = sum(p.numel() for p in model.parameters())
        write_text(temporary / "card.md", card(name).to_markdown() + f"\nThis model has {n:,} parameters; "
                   f"arguments: `{json.dumps(arguments)}`.\n")


def load(folder: str | Path, expect: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Read a model folder; returns the model in evaluation mode and the facts saved with it.

    Parameters
    ----------
    folder
        Made by `save`.
    expect
        Name that the model must have.

    Raises
    ------
    DataMissingError, CheckpointError
        When files are missing or damaged, the model is another one, or of a newer format.
    """
    folder = Path(folder)
    for part in ("config.json", "model.safetensors"):
        if not (folder / part).is_file():
            raise DataMissingError(f"{folder} is not a model folder: {part} is missing")
    try:
        config = json.loads((folder / "config.json").read_text())
        name, arguments, version = config["model"], config["arguments"], config["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is damaged ({error!r}); "
                              "train or copy the model again") from error
    if version != FORMAT:
        raise CheckpointError(f"{folder} has model format {version}, this ciscribe reads {FORMAT}; "
                              f"it was written by ciscribe {config.get('ciscribe')}")
    if expect is not None and name != expect:
        raise CheckpointError(f"{folder} holds the model {name!r}, but {expect!r} was expected; "
                              "use another folder or change the config")
    model = create(name, **{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})
    try:
        state = load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / 'model.safetensors'} is damaged ({error}); train or copy it again") from error
    wanted = model.state_dict()
    wrong = sorted(set(state) ^ set(wanted)) or [k for k in wanted if wanted[k].shape != state[k].shape]
    if wrong:
        raise CheckpointError(f"{len(wrong)} tensors of {folder} do not fit the model {name!r}; first: {wrong[0]}; "
                              "the weights belong to another version or other arguments")
    model.load_state_dict(state)
    return model.eval(), config["facts"]
