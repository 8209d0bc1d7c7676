"""The files of an explanation, ``<run>/explain/``: what they hold, and how the report reads them.

Every file is optional. Tables are those of `ciscribe.interpret` and `ciscribe.perturb` as they are, with the motifs
that they are about where the function does not know them.

=======================  ==============================================================================================
file                     holds
=======================  ==============================================================================================
attributions.npz         ``hypothetical (B, 4, L, T)`` float16 or float32, ``codes (B, L)``, ``regions (B,)``,
                         ``tracks (T,)``, ``method``, ``units``; where known ``predicted``, ``observed`` ``(B, T)``
ism.npz                  ``effects (B, 4, L, T)`` and ``codes, regions, tracks, units``, as above
tiles.parquet            `ciscribe.perturb.tiles`: ``region, start, end, track, effect``; ``region`` counts the
                         sequences of attributions.npz
patterns.npz, .parquet   `write_patterns`
matches.parquet          ``pattern, match, q_value``, and more of `match_motifs`
hits.parquet             ``region, strand, motif``, and more of `call_hits` or `scan_motifs`
spacing.parquet          `spacing_curve`, and ``motif_a, motif_b``
observed.parquet         `observed_spacing`, and ``motif_a, motif_b``
interactions.parquet     `interaction_matrix`
position.parquet         `position_curve`, and ``motif``
surrogate.json           ``r2, r2_additive`` of `syntax_surrogate`
surrogate.parquet        its ``coefficients``
faithfulness.parquet     the ``curves`` of `faithfulness`
methods.parquet          `compare_methods`
consistency.parquet      `consistency`
randomization.parquet    `randomization_check`, and where several ``method``
labels.parquet           `label_check`
modalities.parquet       `modality_shapley`, and ``units``
counterfactuals.parquet  `erase_signal`, and ``gene_id, place, units``
=======================  ==============================================================================================
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ciscribe.errors import InputError
from ciscribe.interpret.patterns import Pattern
from ciscribe.provenance import atomic_path
from ciscribe.schema import Motif

TABLES = ("tiles", "matches", "hits", "spacing", "observed", "interactions", "position", "surrogate", "faithfulness",
          "methods", "consistency", "randomization", "labels", "modalities", "counterfactuals")


@dataclass(frozen=True, eq=False)
class Maps:
    """Values of the four bases along sequences: contributions, or the effects of mutagenesis.

    Parameters
    ----------
    values
        ``(B, 4, L, T)``.
    codes
        uint8 ``(B, L)``.
    regions, tracks
        Names.
    method, units
        How the values were made, and what they are measured in.
    predicted, observed
        Values of each sequence and track ``(B, T)``; None where not known.
    """

    values: np.ndarray
    codes: np.ndarray
    regions: list[str]
    tracks: list[str]
    method: str = ""
    units: str = ""
    predicted: np.ndarray | None = None
    observed: np.ndarray | None = None

    def contributions(self) -> np.ndarray:
        """What the base that is there contributes, ``(B, L, T)``; 0 at an N."""
        there = self.codes[:, None] == np.arange(4)[:, None]
        return np.where(there[..., None], self.values, 0).sum(axis=1)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a folder holds; None for a file that is not there."""

    maps: Maps | None
    ism: Maps | None
    patterns: list[Pattern] | None
    tables: dict[str, pd.DataFrame | None]
    surrogate: dict[str, Any] | None


def read_explanation(folder: Path) -> Explanation:
    """Read all files that are there.

    Raises
    ------
    InputError
        When a file lacks an array, or arrays do not fit each other; it names the file.
    """
    tables = {n: pd.read_parquet(p) if (p := folder / f"{n}.parquet").exists() else None for n in TABLES}
    surrogate = folder / "surrogate.json"
    return Explanation(_maps(folder / "attributions.npz", "hypothetical"), _maps(folder / "ism.npz", "effects"),
                       read_patterns(folder), tables,
                       json.loads(surrogate.read_text()) if surrogate.exists() else None)


def write_patterns(folder: Path, patterns: Sequence[Pattern]) -> None:
    """Write patterns as two files that `read_patterns` reads.

    ``patterns.npz`` holds ``names, sources`` and, of pattern i, ``ppm_<i>, cwm_<i>, hypothetical_<i>``;
    ``patterns.parquet`` holds the seqlets, with the column ``pattern``.
    """
    arrays: dict[str, Any] = {"names": np.array([p.name for p in patterns], dtype=str),
                              "sources": np.array([p.motif.source for p in patterns], dtype=str)}
    for i, p in enumerate(patterns):
        arrays |= {f"ppm_{i}": p.motif.ppm, f"cwm_{i}": p.cwm, f"hypothetical_{i}": p.hypothetical}
    seqlets = [p.seqlets.assign(pattern=p.name) for p in patterns] or [pd.DataFrame({"pattern": []})]
    with atomic_path(folder / "patterns.npz") as path:
        np.savez_compressed(path, **arrays)
    with atomic_path(folder / "patterns.parquet") as path:
        pd.concat(seqlets, ignore_index=True).to_parquet(path)


def read_patterns(folder: Path) -> list[Pattern] | None:
    """Read what `write_patterns` wrote; None where it wrote nothing."""
    if not (folder / "patterns.npz").exists():
        return None
    seqlets = pd.read_parquet(folder / "patterns.parquet")
    with np.load(folder / "patterns.npz") as saved:
        _need(folder / "patterns.npz", saved, ("names", "sources"))
        return [Pattern(Motif(str(name), saved[f"ppm_{i}"], str(source)), saved[f"cwm_{i}"], saved[f"hypothetical_{i}"],
                        seqlets.loc[seqlets["pattern"] == name].drop(columns="pattern").reset_index(drop=True))
                for i, (name, source) in enumerate(zip(saved["names"], saved["sources"], strict=True))]


def _maps(path: Path, name: str) -> Maps | None:
    if not path.exists():
        return None
    with np.load(path) as saved:
        _need(path, saved, (name, "codes", "regions", "tracks"))
        values, codes = saved[name].astype(np.float32), saved["codes"]
        regions, tracks = ([str(v) for v in saved[k]] for k in ("regions", "tracks"))
        known = {k: str(saved[k]) for k in ("method", "units") if k in saved}
        of_regions = {k: saved[k].astype(float) for k in ("predicted", "observed") if k in saved}
    expected = (len(regions), 4, codes.shape[-1], len(tracks))
    if values.shape != expected or codes.shape != (len(regions), codes.shape[-1]):
        raise InputError(f"{path}: {len(regions)} regions, {len(tracks)} tracks and codes {codes.shape} need "
                         f"{name} {expected}; got {values.shape}")
    for key, array in of_regions.items():
        if array.shape != (len(regions), len(tracks)):
            raise InputError(f"{path}: {key} must be {(len(regions), len(tracks))}; got {array.shape}")
    return Maps(values, codes, regions, tracks, known.get("method", ""), known.get("units", ""),
                of_regions.get("predicted"), of_regions.get("observed"))


def _need(path: Path, saved: Any, names: Sequence[str]) -> None:
    missing = [n for n in names if n not in saved]
    if missing:
        raise InputError(f"{path} needs the arrays {', '.join(names)}; missing: {', '.join(missing)}; "
                         f"got: {', '.join(saved.files) or '(none)'}")
