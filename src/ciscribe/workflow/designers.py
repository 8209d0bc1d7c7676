"""What designers are given beside sequences: motifs, rules of a grammar, and generators, which are fitted and kept.

A generator is a folder like that of a model: ``config.json`` (its name, arguments, and what it was fitted to) and
``model.safetensors``.
"""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ciscribe import __version__
from ciscribe.config import GeneratorConfig
from ciscribe.design.generators import GENERATORS, Generator
from ciscribe.design.methods import DESIGNERS, make_designer
from ciscribe.errors import CheckpointError, ConfigError, DataMissingError, UnknownNameError, nearest
from ciscribe.interpret.motifs import word_motif
from ciscribe.interpret.syntax import motif_codes
from ciscribe.provenance import atomic_folder, digest, provenance, write_json
from ciscribe.report.explain_files import read_explanation
from ciscribe.sequence import N, decode
from ciscribe.workflow.design_setup import Setup, measured
from ciscribe.workflow.reporter import read_motifs

Tell = Callable[[str], None]

BEGIN: dict[str, tuple[str, ...]] = {
    "sample": ("autoregressive", "masked_diffusion", "dirichlet_flow", "wgan"), "reinforce": ("autoregressive",),
    "grpo": ("autoregressive",), "drakes": ("masked_diffusion",), "latent": ("wgan",)}
"""Designers that begin from a generator, and from which; the first is the usual one."""
_FORMAT = 1


def lacks(method: str, setup: Setup) -> str | None:
    """What a configuration does not have and the designer needs; None where it has all.

    Raises
    ------
    UnknownNameError
        When no designer has that name.
    """
    config = setup.config
    if method not in DESIGNERS:
        raise UnknownNameError(f"no designer is called {method!r}; {nearest(method, DESIGNERS)}")
    if method == "implant" and config.motifs is None:
        return "implant writes motifs; give motifs: FILE.meme"
    if method == "grammar" and config.syntax is None:
        return ("grammar writes motifs by rules; give syntax: RUN, the folder of a run whose rules were found with "
                "ciscribe syntax RUN; rules of your own go to ciscribe.design.implant.Syntax from Python")
    if method not in BEGIN:
        return None
    usual, *_ = BEGIN[method]
    if config.generator is None:
        return (f"{method} begins from a generator; give generator: {{}} to fit the usual one ({usual}) to the "
                "training sequences of the run, or generator: {path: FOLDER} of one that was fitted before")
    name = _read(setup.root / config.generator.path)[0] if config.generator.path else config.generator.name
    return None if name is None else _unsuited(method, name)


def unused(setup: Setup) -> str | None:
    """What a configuration has and its designer does not take."""
    method = setup.config.method
    for key, takers in (("motifs", ("implant",)), ("syntax", ("grammar",)), ("generator", tuple(BEGIN))):
        if getattr(setup.config, key) is not None and method not in takers:
            return f"{method} takes no {key}; leave it out, or take method {' or '.join(takers)}"
    return None


def check(method: str, setup: Setup) -> None:
    """Raise an error for what a designer lacks, or options that it does not have, before anything is fitted."""
    if reason := lacks(method, setup):
        raise ConfigError(reason)
    if method not in ("implant", "grammar"):  # which look into what they are given
        small: dict[str, Any] = {"length": 2, "channels": 4}
        stand_in = {"generator": GENERATORS[BEGIN[method][0]](**small)} if method in BEGIN else {}
        make_designer(method, **stand_in, **options_of(method, setup))


def options_of(method: str, setup: Setup) -> dict[str, Any]:
    """Arguments that a configuration has for a designer; those of another are not its."""
    return dict(setup.config.options) if method == setup.config.method else {}


def feed(method: str, setup: Setup, folder: Path, *, tell: Tell, progress: bool = False) -> dict[str, Any]:
    """All arguments of a designer by a configuration.

    Parameters
    ----------
    folder
        Where its generator is kept; one that is there and was fitted in the same way is taken.
    """
    check(method, setup)
    config, given = setup.config, {}
    if method in BEGIN:
        generator, facts = _generator(method, setup, folder, tell, progress)
        given["generator"] = generator
        level = config.generator.level if config.generator is not None else None
        if method != "latent" and level is not None:
            if facts["activity"] != _activity(setup):
                raise ConfigError(f"the generator was fitted to {facts['activity']}, and the goal is about "
                                  f"{_activity(setup)}; fit another, or give generator.level: null")
            activity, score = measured(config.goal, setup.model, _training(setup))
            given["y"] = float(activity[np.nanargmax(score)]) if level == "highest" else level
    elif method == "implant":
        given["motifs"] = read_motifs(config.motifs, setup.root)
    elif method == "grammar" and config.syntax is not None:
        given |= read_rules(setup.root / config.syntax, config.goal.track, -1 if config.goal.kind == "minimize" else 1)
    elif method == "edit":
        activity, _ = measured(config.goal, setup.model, _training(setup))
        given["label_sd"] = float(np.nanstd(activity))
    return given | options_of(method, setup)


def read_rules(run: Path, track: str | None = None, sign: int = 1) -> dict[str, Any]:
    """Motifs and their rules as `ciscribe.workflow.explain.find_syntax` left them; arguments of the designer `grammar`.

    Parameters
    ----------
    run
        Folder of an explained run.
    track
        Target whose rules count; the first unless given.
    sign
        −1 turns rules, which are positive where motifs raise the target.
    """
    found = read_explanation(run / "explain")
    position, spacing = found.tables["position"], found.tables["spacing"]
    if position is None or spacing is None:
        raise DataMissingError(f"{run} has no rules of motifs yet; find them with: ciscribe syntax {run}")
    tracks = position["track"].unique().tolist()
    if track is not None and track not in tracks:
        raise ConfigError(f"the rules of {run} are not about {track!r}; {nearest(track, tracks)}")
    rules = {name: table.loc[table["track"] == (track or tracks[0])].drop(columns="track").assign(
        mean=lambda t: sign * t["mean"]) for name, table in (("position", position), ("spacing", spacing))}
    names = [*position["motif"], *spacing["motif_a"], *spacing["motif_b"]]
    patterns = {pattern.name: pattern for pattern in found.patterns or []}
    return rules | {"motifs": {name: decode(motif_codes(patterns.get(name) or word_motif(name)))
                               for name in dict.fromkeys(names)}}


# ---- generators


def _generator(method: str, setup: Setup, folder: Path, tell: Tell, progress: bool) -> tuple[Generator, dict[str, Any]]:
    """The generator of a designer: read, or fitted and kept."""
    config = setup.config.generator or GeneratorConfig()
    if config.path is not None:
        generator, facts = load_generator(setup.root / config.path)
        save_generator(folder, generator, facts)
    else:
        name = config.name or BEGIN[method][0]
        made = digest([name, config.arguments, config.fit, setup.config.seed, setup.model.checksum, _activity(setup),
                       setup.config.goal.flanks])
        if (folder / "config.json").is_file() and _read(folder)[2].get("made") == made:
            generator, facts = load_generator(folder)
        else:
            generator, facts = _fitted(name, setup, config, tell, progress)
            save_generator(folder, generator, facts | {"made": made})
    generator.check_writes(setup.model.length)
    return generator, facts


def _fitted(name: str, setup: Setup, config: GeneratorConfig, tell: Tell, progress: bool
            ) -> tuple[Generator, dict[str, Any]]:
    rows = _training(setup)
    codes = setup.model.codes[rows]
    activity, _ = measured(setup.config.goal, setup.model, rows)
    known = [key for key in inspect.signature(GENERATORS[name]).parameters if key not in ("length", "n_targets")]
    for key in config.arguments:
        if key not in known:
            raise ConfigError(f"generator.arguments: {name} has no argument {key!r}; {nearest(key, known)}")
    tell(f"generator: {name} on {len(codes):,} training sequences …")
    generator = GENERATORS[name](codes.shape[1], **config.arguments)
    plan: dict[str, Any] = {"seed": setup.config.seed, "progress": progress} | config.fit
    generator = generator.fit(codes, activity, **plan)
    return generator, {"run": setup.model.name, "activity": _activity(setup), "sequences": len(codes),
                       "fit": config.fit}


def _training(setup: Setup) -> ndarray:
    """What a generator may learn from: training sequences with all bases known."""
    return np.flatnonzero((setup.model.fold == "train") & (setup.model.codes < N).all(axis=1))


def _activity(setup: Setup) -> str:
    """What activities of a generator are, in words."""
    goal, name = setup.config.goal, setup.model.tracks[setup.track]
    return f"{name} over {' '.join(goal.off or ['others'])} ({goal.gap})" if goal.kind == "specific" else name


def _unsuited(method: str, name: str) -> str | None:
    if name not in GENERATORS:
        return f"no generator is called {name!r}; {nearest(name, GENERATORS)}"
    return None if name in BEGIN[method] else f"{method} begins from {' or '.join(BEGIN[method])}, not from {name}"


def save_generator(folder: str | Path, generator: Generator, facts: dict[str, Any]) -> None:
    """Write a generator as a folder, whole or not at all; `facts` say what it was fitted to."""
    state = generator.state()
    with atomic_folder(folder) as temporary:
        tensors = {name: weight.contiguous() for name, weight in state["weights"].items()}
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt", "model": state["generator"]})
        (temporary / "model.safetensors").chmod(0o644)  # safetensors writes for the owner only
        write_json(temporary / "config.json", {"format": _FORMAT, "generator": state["generator"],
                                               "ciscribe": __version__, "arguments": state["config"], "facts": facts,
                                               "provenance": provenance()})


def load_generator(folder: str | Path) -> tuple[Generator, dict[str, Any]]:
    """Read what `save_generator` wrote.

    Raises
    ------
    DataMissingError, CheckpointError
        When a file is missing, or cannot be read.
    """
    name, arguments, facts = _read(Path(folder))
    try:
        weights = load_file(Path(folder) / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{Path(folder) / 'model.safetensors'} is damaged ({error}); fit or copy the generator "
                              "again") from error
    return GENERATORS[name].from_state({"generator": name, "config": arguments, "weights": weights}), facts


def _read(folder: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, arguments and facts of a generator folder."""
    for part in ("config.json", "model.safetensors"):
        if not (folder / part).is_file():
            raise DataMissingError(f"{folder} is no folder of a generator: {part} is missing; ciscribe design writes "
                                   "one where its method begins from a generator")
    try:
        config = json.loads((folder / "config.json").read_text())
        version, name, arguments, facts = (config[key] for key in ("format", "generator", "arguments", "facts"))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is damaged ({error!r}); fit or copy the generator "
                              "again") from error
    if version != _FORMAT or name not in GENERATORS:
        raise CheckpointError(f"{folder} holds format {version} of {name!r}; this ciscribe reads format {_FORMAT} of "
                              f"{', '.join(GENERATORS)}")
    return name, arguments, facts
