"""Ask a trained model about the genes of a store: predictions, and how far it looks."""

import inspect
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy import ndarray
from rich.progress import track

from ciscribe.data.candidates import CandidateStore
from ciscribe.data.windows import Batch, Examples, WindowStore
from ciscribe.oracle import Oracle
from ciscribe.sequence import one_hot_tensor
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


def truncation_curve(oracle: Oracle, store: WindowStore | CandidateStore, rows: ndarray,
                     widths: Sequence[int] | None = None, *, batch_size: int = 64) -> list[dict[str, float]]:
    """Accuracy when the model sees only the middle of its window.

    A model that uses distant elements loses accuracy as the window shrinks; one that predicts as well from
    2.5 kb as from 200 kb does not. Covariates are left as they are.

    Parameters
    ----------
    widths
        Window widths in bp; None halves the window until it is below 500 bp. Of genes with candidates, elements that
        reach beyond are taken away.

    Returns
    -------
    list of dict
        ``window_bp`` and ``pearson`` (mean over targets), widest first.
    """
    length = store.spec.length
    if widths is None:
        widths = [length // 2**i for i in range(16) if length // 2**i >= 500]
    observed = store.targets[rows]
    curve = []
    for width in widths:
        predicted = predict_rows(oracle, store, rows, batch_size=batch_size,
                                 window_bp=None if width >= length else width)
        r = [pearson(observed[:, t], predicted[:, t]) for t in range(observed.shape[1])]
        curve.append({"window_bp": int(width), "pearson": float(np.nanmean(r))})
    return curve


def bin_importance(oracle: Oracle, batch: Batch) -> ndarray | None:
    """How much a model wants to see each bin of some windows, ``(B, n_bins)``.

    The mean mask, of a model that draws one; of others the change of the prediction (summed over targets, absolute)
    that closing the bin would make to first order: its gradient with respect to `keep`. None for models that know no
    `keep`, or only all of it or nothing.
    """
    given = model_inputs(batch)
    if oracle.has_mask:
        return oracle.posterior(batch.codes, given["S"], batch_size=len(batch.codes)).mean.numpy()
    if "keep" not in inspect.signature(oracle.model.forward).parameters:
        return None
    device = oracle.device
    with oracle.evaluating(gradients=True) as ask:
        keep = batch.keep.clone().to(device).requires_grad_(True)
        extras = {k: v.to(device) for k, v in given.items() if v is not None and k != "keep"}
        predicted = ask(one_hot_tensor(batch.codes.to(device)), keep=keep, **extras)
        found = torch.autograd.grad(predicted.sum(), keep, allow_unused=True)[0] if predicted.requires_grad else None
    if found is None or not bool(found.abs().sum() > 0):
        return None
    return found.abs().cpu().numpy()


def rate_curve(oracle: Oracle, store: WindowStore | CandidateStore, rows: ndarray, fractions: Sequence[float], *,
               batch_size: int = 64) -> list[dict[str, float]]:
    """Rate–distortion: accuracy when the model sees only the share of each window that matters most to it.

    Parameters
    ----------
    fractions
        Shares of the bins of a window, 0 to 1; at least one bin is shown. `bin_importance` ranks them, ties go left.

    Returns
    -------
    list of dict
        ``fraction`` and ``pearson`` with the measured values (mean over targets), in the order given; empty where the
        model has no ranking. Bins that a model holds open around the TSS count as any other: closed, they are erased.
    """
    observed, shown = store.targets[rows], []
    for i in range(0, len(rows), batch_size):
        batch = store.batch(rows[i:i + batch_size])
        importance = bin_importance(oracle, batch)
        if importance is None:
            return []
        order = np.argsort(-np.where(batch.keep.numpy() > 0, importance, -np.inf), axis=1, kind="stable")
        rank = np.argsort(order, axis=1)
        given, predicted = model_inputs(batch), []
        for fraction in fractions:
            keep = batch.keep * torch.from_numpy(rank < max(1, round(fraction * rank.shape[1]))).float()
            predicted.append(oracle.predict(batch.codes, given["S"], given["covariates"], keep,
                                            batch_size=batch_size).numpy())
        shown.append(np.stack(predicted))
    by_fraction = np.concatenate(shown, axis=1)
    r = [[pearson(observed[:, t], p[:, t]) for t in range(observed.shape[1])] for p in by_fraction]
    return [{"fraction": float(f), "pearson": float(np.nanmean(v))} for f, v in zip(fractions, r, strict=True)]


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
