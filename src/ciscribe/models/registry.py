"""Create models by name, and keep them as folders that load without running code.

A saved model is ``config.json`` (name, version, arguments), ``model.safetensors`` and ``card.md``. Only names
of this registry load; a folder never brings code of its own.
"""

import inspect
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ciscribe import __version__
from ciscribe.card import Card
from ciscribe.errors import CheckpointError, ConfigError, DataMissingError, UnknownNameError, nearest
from ciscribe.models import (
    basenji,
    basenji2,
    basset,
    beacon,
    borzoi,
    bpnet,
    caduceus,
    caduceus_lm,
    chrombpnet,
    danq,
    deepbind,
    deepsea,
    deepstarr,
    enformer,
    epinformer,
    expecto,
    expresnet,
    graphreg,
    hyenadna,
    jores,
    legnet,
    malinois,
    prism,
    seq2exp,
    xpresso,
)
from ciscribe.nn.strands import BothStrands
from ciscribe.provenance import atomic_folder, provenance, write_json, write_text

FORMAT = 1

class _Entry(NamedTuple):
    """A registered model."""

    build: type[nn.Module]
    card: Card
    presets: dict[str, dict[str, Any]]


_MODELS = {
    "basenji": _Entry(basenji.Basenji, basenji.CARD, basenji.PRESETS),
    "basenji2": _Entry(basenji2.Basenji2, basenji2.CARD, basenji2.PRESETS),
    "basset": _Entry(basset.Basset, basset.CARD, basset.PRESETS),
    "beacon": _Entry(beacon.Beacon, beacon.CARD, {}),
    "beluga": _Entry(expecto.Beluga, expecto.CARD_BELUGA, expecto.PRESETS_BELUGA),
    "borzoi": _Entry(borzoi.Borzoi, borzoi.CARD, borzoi.PRESETS),
    "bpnet": _Entry(bpnet.BPNet, bpnet.CARD, bpnet.PRESETS),
    "caduceus": _Entry(caduceus.Caduceus, caduceus.CARD, {}),
    "caduceus_lm": _Entry(caduceus_lm.CaduceusLM, caduceus_lm.CARD, caduceus_lm.PRESETS),
    "chrombpnet": _Entry(chrombpnet.ChromBPNet, chrombpnet.CARD, chrombpnet.PRESETS),
    "danq": _Entry(danq.DanQ, danq.CARD, danq.PRESETS),
    "deepbind": _Entry(deepbind.DeepBind, deepbind.CARD, deepbind.PRESETS),
    "deepsea": _Entry(deepsea.DeepSEA, deepsea.CARD, deepsea.PRESETS),
    "deepstarr": _Entry(deepstarr.DeepSTARR, deepstarr.CARD, deepstarr.PRESETS),
    "enformer": _Entry(enformer.Enformer, enformer.CARD, enformer.PRESETS),
    "epinformer": _Entry(epinformer.EPInformer, epinformer.CARD, epinformer.PRESETS),
    "expecto": _Entry(expecto.Expecto, expecto.CARD, expecto.PRESETS),
    "expresnet": _Entry(expresnet.ExpResNet, expresnet.CARD, expresnet.PRESETS),
    "graphreg": _Entry(graphreg.GraphReg, graphreg.CARD, {}),
    "hyenadna": _Entry(hyenadna.HyenaDNA, hyenadna.CARD, hyenadna.PRESETS),
    "jores": _Entry(jores.Jores, jores.CARD, jores.PRESETS),
    "legnet": _Entry(legnet.LegNet, legnet.CARD, legnet.PRESETS),
    "malinois": _Entry(malinois.Malinois, malinois.CARD, malinois.PRESETS),
    "prism": _Entry(prism.Prism, prism.CARD, {}),
    "seq2exp": _Entry(seq2exp.Seq2Exp, seq2exp.CARD, {}),
    "xpresso": _Entry(xpresso.Xpresso, xpresso.CARD, xpresso.PRESETS),
}


def names(pattern: str = "*") -> list[str]:
    """Names of the registered models that match a shell pattern.

    Examples
    --------
    >>> names("seq*")
    ['seq2exp']
    """
    return [n for n in sorted(_MODELS) if fnmatch(n, pattern)]


def _find(name: str) -> _Entry:
    if name not in _MODELS:
        raise UnknownNameError(f"no model is called {name!r}; {nearest(name, _MODELS)}")
    return _MODELS[name]


def card(name: str) -> Card:
    """Card of a registered model."""
    return _find(name).card


def arguments(name: str) -> dict[str, Any]:
    """Arguments of a registered model and their defaults, as published."""
    parameters = inspect.signature(_find(name).build).parameters.values()
    return {p.name: None if p.default is p.empty else p.default for p in parameters}


def presets(name: str) -> dict[str, dict[str, Any]]:
    """Named sets of arguments of a registered model."""
    return {which: dict(given) for which, given in _find(name).presets.items()}


def preset_of(name: str, which: str | None) -> dict[str, Any]:
    """Arguments of a named preset; None is the published size, which changes nothing.

    Raises
    ------
    ConfigError
        When the model has no such preset, listing those that it has.
    """
    known = presets(name)
    if which is None:
        return {}
    if which not in known:
        raise ConfigError(f"model {name!r} has no preset {which!r}; it has: {', '.join(known) or 'none'}")
    return known[which]


def create(name: str, *, preset: str | None = None, both_strands: str | None = None, **arguments: Any) -> nn.Module:
    """Build a registered model; arguments left out take their published defaults.

    Parameters
    ----------
    name
        One of `names`.
    preset
        ``"cpu"``: a reduced width that trains on a laptop. Arguments given beside it win.
    both_strands
        ``"mean"`` or ``"max"``: the model reads both strands and combines what it predicts
        (`ciscribe.nn.strands.BothStrands`).
    **arguments
        Of the model's class.

    Raises
    ------
    UnknownNameError
        With the nearest name.
    ConfigError
        When the model has no such argument, naming the nearest.
    """
    cls = _find(name).build
    known = list(inspect.signature(cls).parameters)
    for key in arguments:
        if key not in known:
            raise ConfigError(f"model {name!r} has no argument {key!r}; {nearest(key, known)}")
    arguments = preset_of(name, preset) | arguments
    try:
        model = cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"model {name!r} could not be built from {arguments}: {error}") from error
    return model if both_strands is None else BothStrands(model, both_strands)  # type: ignore[arg-type]


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


def describe(folder: str | Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, arguments and facts of a model folder, without its weights; errors as `load`."""
    folder = Path(folder)
    for part in ("config.json", "model.safetensors"):
        if not (folder / part).is_file():
            raise DataMissingError(f"{folder} is not a model folder: {part} is missing")
    try:
        config = json.loads((folder / "config.json").read_text())
        name, version, facts = config["model"], config["format"], config["facts"]
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in config["arguments"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is damaged ({error!r}); "
                              "train or copy the model again") from error
    if version != FORMAT:
        raise CheckpointError(f"{folder} has model format {version}, this ciscribe reads {FORMAT}; "
                              f"it was written by ciscribe {config.get('ciscribe')}")
    return name, given, facts


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
    name, arguments, facts = describe(folder)
    if expect is not None and name != expect:
        raise CheckpointError(f"{folder} holds the model {name!r}, but {expect!r} was expected; "
                              "use another folder or change the config")
    model = create(name, **arguments)
    try:
        state = load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / 'model.safetensors'} is damaged ({error}); train or copy it again") from error
    wanted = model.state_dict()
    wrong = [f"{k}: {_shape(state, k)} in the file, {_shape(wanted, k)} in the model"
             for k in sorted(set(state) | set(wanted)) if _shape(state, k) != _shape(wanted, k)]
    if wrong:
        raise CheckpointError(f"{len(wrong)} tensors of {folder} do not fit the model {name!r}; first: "
                              f"{'; '.join(wrong[:3])}; the weights belong to another version or other arguments")
    model.load_state_dict(state)
    return model.eval(), facts


def _shape(tensors: dict[str, Any], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "missing"
