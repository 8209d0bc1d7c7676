"""Ask a trained model about the genes of a store: predictions, and how far it looks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy import ndarray
from rich.progress import track

from ciscribe.data.windows import Batch, Examples, WindowStore
from ciscribe.oracle import Oracle
from ciscribe.train.metrics import pearson


def model_inputs(batch: Batch) -> dict[str, torch.Tensor | None]:
    """Arguments of `Oracle.predict` for a batch; inputs that the data do not have are None."""
    return {"S": batch.signals if batch.signals.shape[1] else None,
            "covariates": batch.covariates if batch.covariates.shape[1] else None,
            "keep": batch.keep if bool((batch.keep == 0).any()) else None}


def predict_rows(oracle: Oracle, store: Examples, rows: ndarray, *, batch_size: int = 64,
                 window_bp: int | None = None, progress: bool = False) -> ndarray:
    """Predict genes of a store, reading and forgetting their windows batch by batch.

    Parameters
    ----------
    oracle, store, rows
        The model, the data, and row numbers.
    batch_size
        Genes a forward pass.
    window_bp
        Blank everything outside this many central bp: sequence to N, signals to 0, mask closed. None keeps all.
    progress
        Show a bar.

    Returns
    -------
    ndarray
        float32 ``(len(rows), T)``.
    """
    steps = range(0, len(rows), batch_size)
    out = []
    for i in (track(steps, description="predict") if progress else steps):
        batch = store.batch(rows[i:i + batch_size])
        if window_bp is not None:
            batch = store.cut(batch, window_bp)
        given = model_inputs(batch)
        out.append(oracle.predict(batch.codes, given["S"], given["covariates"], given["keep"],
                                  batch_size=batch_size).numpy())
    return np.concatenate(out) if out else np.zeros((0, len(store.target_names)), np.float32)


def truncation_curve(oracle: Oracle, store: WindowStore, rows: ndarray,
                     widths: Sequence[int] | None = None, *, batch_size: int = 64) -> list[dict[str, float]]:
    """Accuracy when the model sees only the middle of its window.

    A model that uses distant elements loses accuracy as the window shrinks; one that predicts as well from
    2.5 kb as from 200 kb does not. Covariates are left as they are.

    Parameters
    ----------
    widths
        Window widths in bp; None halves the window until it is below 500 bp.

    Returns
    -------
    list of dict
        ``window_bp`` and ``pearson`` (mean over targets), widest first.
    """
    if widths is None:
        widths = [store.spec.length // 2**i for i in range(16) if store.spec.length // 2**i >= 500]
    observed = store.targets[rows]
    curve = []
    for width in widths:
        predicted = predict_rows(oracle, store, rows, batch_size=batch_size,
                                 window_bp=None if width >= store.spec.length else width)
        r = [pearson(observed[:, t], predicted[:, t]) for t in range(observed.shape[1])]
        curve.append({"window_bp": int(width), "pearson": float(np.nanmean(r))})
    return curve


def prediction_table(store: WindowStore, predictions: dict[str, ndarray]) -> pd.DataFrame:
    """Long table of predictions, one row a gene and target.

    Parameters
    ----------
    predictions
        Column name → ``(G, T)``, one row a gene of the store; the model's own is called ``predicted``.

    Returns
    -------
    DataFrame
        ``gene_id, gene_name, chrom, tss, strand, fold, cell, observed`` and one column a prediction.
    """
    columns = ["gene_id", "gene_name", "chrom", "tss", "strand", "fold"]
    n_targets = len(store.target_names)
    table = store.genes[columns].loc[store.genes.index.repeat(n_targets)].reset_index(drop=True)
    table["cell"] = np.tile(np.array(store.target_names, dtype=object), len(store))
    table["observed"] = store.targets.reshape(-1)
    for name, values in predictions.items():
        table[name] = values.reshape(-1)
    return table
