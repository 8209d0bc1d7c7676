"""Models from elsewhere: fetched from the Hugging Face hub or read from a folder, and written for others to fetch.

Weights come in, code never does: a checkpoint is a ``config.json`` and tensors, its tensors are renamed to those of
our own networks (`FAMILIES`), pickles are opened as weights only, and whatever needs remote code is refused.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from ciscribe.errors import CheckpointError, DataMissingError, DependencyError, InputError, UnknownNameError, nearest
from ciscribe.models import borzoi_weights, caduceus_lm, enformer_weights, nucleotide_transformer, registry
from ciscribe.models.borzoi import Borzoi
from ciscribe.models.enformer import Enformer
from ciscribe.models.weights import PICKLES, fill, read_weights
from ciscribe.provenance import atomic_folder, write_json, write_text

_SOURCE = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>[^@]+))?")


class Family(NamedTuple):
    """How one family of published checkpoints becomes one of our networks.

    Parameters
    ----------
    model
        Name of our network.
    build
        Makes it from `arguments`.
    recognise
        Whether a ``config.json`` and the names of the tensors are of this family.
    arguments
        Arguments of `build` from ``config.json``, the tensors, and the folder.
    convert
        Published tensors under our names; one that is not known keeps its own, so that filling names it.
    """

    model: str
    build: Callable[..., nn.Module]
    recognise: Callable[[dict[str, Any], set[str]], bool]
    arguments: Callable[[dict[str, Any], dict[str, Tensor], Path], dict[str, Any]]
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]


def _nucleotide_arguments(config: dict[str, Any], state: dict[str, Tensor], folder: Path) -> dict[str, Any]:
    path = folder / "vocab.txt"
    return {"config": config, "vocabulary": path.read_text().split() if path.is_file() else None}


def _tracks_arguments(module: Any, n_bins: int, unpooled: int
                      ) -> Callable[[dict[str, Any], dict[str, Tensor], Path], dict[str, Any]]:
    """Sizes from the tensors; the crop (bp) from ``config.json``, stated there as bins kept of `n_bins`.

    All but `unpooled` of the widths halve the length.
    """
    def arguments(config: dict[str, Any], state: dict[str, Tensor], folder: Path) -> dict[str, Any]:
        if config.get("flashed"):
            raise CheckpointError("this is a Flashzoi checkpoint (flashed: true), a network with rotary positions that "
                                  "is not here; take johahi/borzoi-replicate-0 … 3")
        found = module.arguments_of(state)
        if set(found["n_targets"]) == {"human"}:
            found["n_targets"] = found["n_targets"]["human"]  # the output is a tensor then
        kept = config.get("target_length", config.get("bins_to_return"))
        if config.get("return_center_bins_only") is False:
            kept = n_bins - 32
        if kept is None:
            return found
        return found | {"crop": 0 if kept < 0 else (n_bins - kept) // 2 * 2 ** (len(found["widths"]) - unpooled)}
    return arguments


FAMILIES: dict[str, Family] = {
    "caduceus": Family(
        "caduceus_lm", caduceus_lm.CaduceusLM,
        lambda config, names: config.get("model_type") == "caduceus" or any(".mamba_fwd." in n for n in names),
        lambda config, state, folder: caduceus_lm.arguments_of(config), caduceus_lm.convert_state),
    "nucleotide-transformer": Family(
        "nucleotide_transformer", nucleotide_transformer.NucleotideTransformer,
        lambda config, names: config.get("model_type") == "esm" or any(n.startswith("esm.") for n in names),
        _nucleotide_arguments, nucleotide_transformer.convert_state),
    "enformer": Family(
        "enformer", Enformer,
        lambda config, names: config.get("model_type") == "enformer" or any("_heads.human" in n for n in names),
        _tracks_arguments(enformer_weights, 1536, 0), enformer_weights.convert_state),
    "borzoi": Family(
        "borzoi", Borzoi,
        lambda config, names: config.get("model_type") == "borzoi" or "conv_dna.conv_layer.weight" in names,
        _tracks_arguments(borzoi_weights, 16_384, 1), borzoi_weights.convert_state),
}


def load(source: str | Path, family: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Load a model from anywhere: a folder of ours, a published checkpoint, or either of them on the hub.

    Parameters
    ----------
    source
        A folder or weight file, or ``hf://owner/name[@revision][/file]``.
    family
        As in `load_published`.

    Returns
    -------
    tuple
        The model in evaluation mode, and the facts saved or published with it.

    Raises
    ------
    DataMissingError, CheckpointError, DependencyError, UnknownNameError
        When it is not there, damaged or of another shape, needs a package, or is of no known family.
    """
    path = fetch(source) if str(source).startswith("hf://") else Path(source)
    config = _config(path) if path.is_dir() else {}
    if {"format", "model", "arguments"} <= set(config):
        return registry.load(path)
    return _load_published(path, str(source), family)


def load_published(source: str | Path, family: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Build our network in the size of a published checkpoint and fill it.

    Parameters
    ----------
    source
        A folder (``config.json`` beside the weights), a weight file, or ``hf://owner/name[@revision][/file]``.
    family
        Name in `FAMILIES`; None recognises it from ``config.json`` or the names of the tensors.

    Returns
    -------
    tuple
        The model in evaluation mode, and facts: ``model`` and ``arguments`` (what `registry.save` needs), ``family``,
        ``source`` and the published ``config``.

    Raises
    ------
    CheckpointError
        When no family is recognised, code would have to be run, or tensors do not fit (the first three are listed).
    """
    path = fetch(source) if str(source).startswith("hf://") else Path(source)
    return _load_published(path, str(source), family)


def _load_published(path: Path, source: str, family: str | None) -> tuple[nn.Module, dict[str, Any]]:
    if family is not None and family not in FAMILIES:
        raise UnknownNameError(f"no family of published checkpoints is called {family!r}; {nearest(family, FAMILIES)}")
    folder = path if path.is_dir() else path.parent
    state = read_weights(path)
    config = _config(folder)
    if family is None:
        family = next((name for name, known in FAMILIES.items() if known.recognise(config, set(state))), None)
    if family is None:
        first = ", ".join(sorted(state)[:3])
        raise CheckpointError(f"the checkpoint {source} is of no family known here (model_type "
                              f"{config.get('model_type')!r}; tensors {first}, …); families: "
                              f"{', '.join(sorted(FAMILIES))}; name one with family=…")
    known = FAMILIES[family]
    arguments = known.arguments(config, state, folder)
    model = known.build(**arguments)
    fill(model, known.convert(state), source)
    return model.eval(), {"model": known.model, "arguments": arguments, "family": family, "source": source,
                          "config": config}


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); download it again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a {type(config).__name__}, not an object; download it again")
    return config


def fetch(source: str | Path, cache: str | Path | None = None) -> Path:
    """Download a model, or one file of it, from the hub; what was downloaded before is not again.

    Parameters
    ----------
    source
        ``hf://owner/name[@revision][/file]``. Without a file, the configuration, vocabulary and weights are
        fetched (pickles only where there are no safetensors), never code.
    cache
        Folder; None is the cache of huggingface_hub. The variable ``HF_ENDPOINT`` names another hub.

    Returns
    -------
    Path
        The file, or the folder of the model.

    Raises
    ------
    InputError
        When `source` does not name a model.
    DependencyError
        Without huggingface_hub.
    DataMissingError
        When the hub does not have it or cannot be reached, saying what to download by hand and where to put it.
    """
    match = _SOURCE.fullmatch(str(source))
    if match is None:
        raise InputError(f"a model on the hub is named hf://owner/name[@revision][/file]; got {str(source)!r}")
    repo, revision, file = match["repo"], match["revision"], match["file"]
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise DependencyError.of("huggingface_hub", "hub", f"loading {source}") from error
    hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    place: dict[str, Any] = {"revision": revision, "cache_dir": cache, "endpoint": hub}
    try:
        if file is not None:
            return Path(hf_hub_download(repo, file, **place))
        folder = Path(snapshot_download(repo, allow_patterns=["config.json", "vocab.txt", "*.safetensors",
                                                              "*.safetensors.index.json"], **place))
        if not any(folder.glob("*.safetensors")):
            patterns = [f"*{suffix}" for suffix in PICKLES]
            folder = Path(snapshot_download(repo, allow_patterns=[*patterns, "*.bin.index.json"],
                                            ignore_patterns=["training_args.bin", "*/*"], **place))
        return folder
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        if not isinstance(error, LocalEntryNotFoundError):  # that one means: not cached, and the hub is out of reach
            raise DataMissingError(f"{hub} has no {source}, or it is private or gated: {_first_line(error)}; check the "
                                   "spelling, or log in with `hf auth login`") from error
        reason: Exception = error
    except Exception as error:  # whatever the HTTP client of huggingface_hub raises, which changes between versions
        reason = error
    files = file or "config.json and model.safetensors (or pytorch_model.bin; vocab.txt where there is one)"
    raise DataMissingError(f"{source} cannot be fetched from {hub} ({type(reason).__name__}: {_first_line(reason)}); "
                           f"where you have access, download {files} from {hub}/{repo}, put them into one folder, and "
                           "use models.load(\"path/to/folder\")") from reason


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def export_folder(folder_in: str | Path, folder_out: str | Path, *, repo: str = "owner/name", licence: str = "mit",
                  tags: Sequence[str] = (), metrics: Mapping[str, Mapping[str, float]] | None = None) -> None:
    """Write a model folder of ours as the hub shows it: ``config.json``, ``model.safetensors``, ``README.md``.

    Parameters
    ----------
    folder_in
        Made by `registry.save`; it is loaded, so a damaged one is not exported.
    folder_out
        Where; replaced when it exists. Without the provenance of the run, which names this machine's paths.
    repo
        ``owner/name`` that it will have on the hub, for the lines that say how to load it.
    licence
        Of the weights, as the hub abbreviates it.
    tags
        Further words to find it by.
    metrics
        What was measured: data set → metric → value.

    Raises
    ------
    DataMissingError, CheckpointError
        As `registry.load`.
    """
    model, facts = registry.load(folder_in)
    config = {key: value for key, value in _config(Path(folder_in)).items() if key != "provenance"}
    card = registry.card(config["model"])
    front: dict[str, Any] = {"license": licence, "library_name": "ciscribe",
                             "tags": ["genomics", "dna", card.name, *tags]}
    if metrics:
        front["model-index"] = [{"name": repo.split("/")[-1], "results": [
            {"task": {"type": card.task or "regression"}, "dataset": {"name": data, "type": data},
             "metrics": [{"type": name, "value": float(value)} for name, value in values.items()]}
            for data, values in metrics.items()]}]
    n = sum(p.numel() for p in model.parameters())
    text = [f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n", card.to_markdown(),
            f"This model has {n:,} parameters; arguments: `{json.dumps(config['arguments'])}`."]
    if facts:
        text.append("## These weights\n\n" + "\n".join(f"- **{key}**: `{json.dumps(value)}`"
                                                       for key, value in facts.items()))
    if metrics:
        rows = [f"| {data} | {name} | {value:.4g} |" for data, values in metrics.items()
                for name, value in values.items()]
        text.append("\n".join(["## Measured\n", "| data | metric | value |", "|---|---|---|", *rows]))
    text.append(f"## Use\n\n```python\nfrom ciscribe import models  # pip install 'ciscribe[hub]'\n"
                f"model, facts = models.load(\"hf://{repo}\")\ny = model(X)  # X: one-hot (B, 4, L)\n```\n")
    with atomic_folder(folder_out) as temporary:
        write_json(temporary / "config.json", config)
        save_file(model.state_dict(), temporary / "model.safetensors", metadata={"format": "pt",
                                                                                "model": config["model"]})
        (temporary / "model.safetensors").chmod(0o644)  # safetensors writes for the owner only
        write_text(temporary / "README.md", "\n\n".join(part.strip("\n") for part in text) + "\n")
