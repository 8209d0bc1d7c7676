"""What a run and a comparison do with a store of genes: make a model for it, train it, fit the baselines."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy import ndarray
from torch import nn

from ciscribe.config import ModelConfig, TrainConfig
from ciscribe.data.windows import Examples, WindowStore, loader
from ciscribe.errors import ConfigError
from ciscribe.models import registry
from ciscribe.train.baselines import features, run_baselines
from ciscribe.train.fit import FitSpec, fit, start_at_mean
from ciscribe.train.tasks import Expression

_CALIBRATION, _MOST_BASES = 2000, 50_000_000  # training windows from which the scales of a mask are read


def model_arguments(store: Examples, model: ModelConfig, *, resolution: int | None = None) -> dict[str, Any]:
    """Arguments of a model: those of the configuration, and what the data decide.

    Parameters
    ----------
    store
        Whose targets, tracks and covariates are counted.
    model
        Name, preset and arguments.
    resolution
        Bin of the store in bp, for models that have one; None for those that do not.

    Raises
    ------
    ConfigError
        When the model is to have another resolution than the store.
    """
    known: dict[str, Any] = {"n_targets": len(store.target_names), "n_signals": len(store.track_names),
                             "n_covariates": len(store.covariate_names)}
    given = registry.preset_of(model.name, model.preset) | model.arguments
    if resolution is not None:
        given = {"resolution": resolution} | given
        if given["resolution"] != resolution:
            raise ConfigError(f"model.arguments.resolution is {given['resolution']} bp but window.resolution is "
                              f"{resolution} bp; they must be equal")
    return known | {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}


def new_model(store: Examples, name: str, arguments: dict[str, Any], *, seed: int) -> nn.Module:
    """A fresh model for a store: its mask, if any, calibrated, its output starting at the mean of the targets."""
    torch.manual_seed(seed)
    model = registry.create(name, **arguments)
    train = store.rows("train")
    if hasattr(model, "calibrate") and store.track_names:
        n = max(1, min(_CALIBRATION, _MOST_BASES // store.batch(train[:1]).codes.shape[1]))
        model.calibrate(store.batch(train[:: max(1, len(train) // n)]).signals)  # type: ignore[operator]
    start_at_mean(model, store.targets[train].mean(axis=0))
    return model


def fit_genes(model: nn.Module, store: Examples, plan: TrainConfig, *, batch_size: int, seed: int,
              folder: Path | None = None, identity: str = "", progress: bool = False,
              tell: Callable[[str], None] | None = None) -> tuple[nn.Module, pd.DataFrame]:
    """Train on the training genes of a store, choosing the epoch on its validation genes; see `train.fit.fit`.

    Parameters
    ----------
    batch_size
        Genes a validation step.
    folder, identity
        Of checkpoints.
    """
    spec = FitSpec(task=Expression(**plan.loss.model_dump()), **plan.model_dump(exclude={"loss"}))
    return fit(model, loader(store, "train", spec.batch_size, shuffle=True, max_shift=spec.max_shift, seed=seed,
                             n_workers=spec.n_workers),
               loader(store, "valid", batch_size, n_workers=spec.n_workers), spec, folder=folder, seed=seed,
               identity=identity, progress=progress, tell=tell)


def baseline_predictions(store: WindowStore, *, n_covariates: int = 0, names: Sequence[str] | None = None,
                         seed: int = 0, n_jobs: int = 1) -> dict[str, ndarray]:
    """Gradient boosting on the split of a store, from the widest surroundings that its models see.

    Parameters
    ----------
    n_covariates
        The first so many covariates of the store are given to the baselines too (the others are its context).
    names
        Of `train.baselines.CARDS`; None fits those of `run_baselines`.
    seed, n_jobs
        Of the trees; threads.

    Returns
    -------
    dict
        Name → predictions of all genes, float32 ``(G, T)``.
    """
    spec = store.spec
    half = max(spec.half_width, spec.context_half_width)
    resolution = next(r for r in (128, 64, 32, 16, 8, 4, 2, 1) if 2 * half % r == 0)
    reverse = (store.genes["strand"] == "-").to_numpy() & (not spec.strand_aware)
    parts, columns = [], []
    for i in range(0, len(store), 1024):
        rows = np.arange(i, min(i + 1024, len(store)))
        signals = store.read_signals(rows, half_width=half, resolution=resolution, raw=True)
        part, columns = features(store.read_codes(rows, half_width=half), signals, resolution=resolution,
                                 tss_offset=half, flip=reverse[rows], tracks=store.track_names[:signals.shape[1]],
                                 covariates=store.covariates[rows, :n_covariates] if n_covariates else None)
        parts.append(part)
    return run_baselines(np.concatenate(parts), columns, store.targets, store.genes["fold"].to_numpy(str),
                         only=names, seed=seed, n_jobs=n_jobs)
