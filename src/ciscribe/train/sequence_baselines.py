"""What a simple method reaches on a reporter assay: the figures that stand beside every network.

`gbm_kmers` boosts trees on counts of k-mers and on the best match of each known motif; `ridge_kmers` is linear
in the k-mers. Both know which words a sequence holds and nothing of their order, spacing or place, so that the
gap to a network is what syntax adds. Words are counted on the strand that was measured: a promoter has a
direction.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from numpy import ndarray
from scipy import sparse

from ciscribe.card import Card
from ciscribe.data.similarity import grouped_folds, similarity_groups
from ciscribe.errors import SchemaError
from ciscribe.schema import Motif, check_motifs
from ciscribe.sequence import N, check_codes, one_hot_tensor

SHORTEST = 3
_ROUNDS = 1000
_PATIENCE = 50
_PARAMETERS: dict[str, Any] = {
    "objective": "regression", "metric": "l2", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 40,
    "feature_fraction": 0.2, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0, "max_bin": 63,
    "deterministic": True, "force_row_wise": True, "verbosity": -1,
}
_KMER_BINS, _MOTIF_BINS = 7, 63  # a sequence rarely holds a word more often
_ALPHAS = 10.0 ** np.arange(-2, 3.5, 0.5)
_INNER_FOLDS = 4
_PPM_FLOOR = 1e-3

CARDS = {
    "gbm_kmers": Card(
        name="gbm_kmers", kind="baseline",
        summary="Gradient-boosted trees on counts of 3- to 6-mers and, where given, the best match of each motif.",
        paper="own; LightGBM: Ke et al., NeurIPS 2017", code="written by us on microsoft/LightGBM",
        differences=("One regressor a target; longest word and number of trees are chosen on the validation rows.",
                     "K-mers are counted on the given strand, motifs are scored on both.",
                     "Blind to the position of a word in the sequence."),
        n_policy="k-mers that touch an N are not counted; in a motif match an N scores 0"),
    "ridge_kmers": Card(
        name="ridge_kmers", kind="baseline",
        summary="Linear regression with an L2 penalty on frequencies of k-mers and the GC content.",
        paper="own; ridge: Hoerl & Kennard 1970, Technometrics 12:55", code="written by us",
        differences=("k and penalty are chosen by cross-validation within the training rows, in folds that keep "
                     "similar sequences together.", "Blind to the position of a word in the sequence."),
        n_policy="k-mers that touch an N are not counted"),
}


def kmer_matrix(codes: UInt8[ndarray, "B L"], k: int) -> sparse.csr_matrix:
    """Counts of the k-mers of each sequence as a sparse float32 matrix ``(B, 4**k)``.

    As `ciscribe.sequence.kmer_counts` (one strand, lexicographic order, no window with an N), without the
    zeros.
    """
    check_codes(codes)
    n, length = codes.shape
    if length < k:
        return sparse.csr_matrix((n, 4**k), dtype=np.float32)
    index = np.zeros((n, length - k + 1), np.int32)
    clean = np.ones(index.shape, bool)
    for j in range(k):
        part = codes[:, j:length - k + 1 + j]
        index = index * 4 + np.minimum(part, 3)
        clean &= part < N
    bounds = np.concatenate([[0], np.cumsum(clean.sum(axis=1))])
    counts = sparse.csr_matrix((np.ones(int(bounds[-1]), np.float32), index[clean], bounds), shape=(n, 4**k))
    counts.sum_duplicates()
    return counts


def motif_scores(codes: UInt8[ndarray, "B L"], motifs: Sequence[Motif], *, batch_size: int = 512
                 ) -> Float[ndarray, "B M"]:
    """Best match of each motif on either strand, log2 odds against even bases, float32.

    An N adds nothing; probabilities below 0.001 count as 0.001. A motif longer than the sequences is scored
    from their first base.
    """
    check_motifs(motifs)
    length = codes.shape[1]
    width = max((m.ppm.shape[1] for m in motifs), default=1)
    weights = np.zeros((2, len(motifs), 4, width), np.float32)
    for i, motif in enumerate(motifs):
        odds = np.log2(np.maximum(motif.ppm, _PPM_FLOOR) / 0.25)
        weights[0, i, :, :odds.shape[1]], weights[1, i, :, :odds.shape[1]] = odds, odds[::-1, ::-1]
    last = torch.tensor([max(length - m.ppm.shape[1], 0) for m in motifs])
    beyond = torch.arange(length) > last[:, None]
    kernel = torch.from_numpy(weights.reshape(-1, 4, width))
    out = np.zeros((len(codes), len(motifs)), np.float32)
    with torch.inference_mode():
        for start in range(0, len(codes) if motifs else 0, batch_size):
            X = one_hot_tensor(torch.from_numpy(np.ascontiguousarray(codes[start:start + batch_size])))
            hits = torch.nn.functional.conv1d(torch.nn.functional.pad(X, (0, width - 1)), kernel)
            best = hits.view(len(X), 2, len(motifs), length).amax(dim=1).masked_fill(beyond, -torch.inf)
            out[start:start + batch_size] = best.amax(dim=-1).numpy()
    return out


def _features(codes: ndarray, k: int, scores: ndarray) -> sparse.csr_matrix:
    """Scores of motifs, then counts of all k-mers from `SHORTEST` to k, side by side."""
    words = [kmer_matrix(codes, i) for i in range(min(SHORTEST, k), k + 1)]
    return sparse.csr_matrix(sparse.hstack([sparse.csr_matrix(scores), *words]))


@dataclass(frozen=True)
class FittedGBM:
    """Boosted trees of every target, cut at the round that was best on the validation rows."""

    boosters: tuple[lgb.Booster, ...]
    ks: tuple[int, ...]
    """Longest k-mer of each."""
    motifs: tuple[Motif, ...] = ()
    n_jobs: int = 1

    def predict(self, codes: UInt8[ndarray, "B L"]) -> Float[ndarray, "B T"]:
        """Predictions in the units of the fitted targets, float32."""
        features = {k: _features(codes, k, motif_scores(codes, self.motifs)) for k in set(self.ks)}
        columns = [np.asarray(b.predict(features[k], num_threads=self.n_jobs))
                   for b, k in zip(self.boosters, self.ks, strict=True)]
        return np.stack(columns, axis=1).astype(np.float32)


def fit_gbm(train: UInt8[ndarray, "N L"], y_train: Shaped[ndarray, "N T"], valid: UInt8[ndarray, "V L"],
            y_valid: Shaped[ndarray, "V T"], *, motifs: Sequence[Motif] | None = None, k: int | Sequence[int] = (4, 6),
            seed: int = 0, n_jobs: int = 1) -> FittedGBM:
    """Fit boosted trees, one regressor a target, squared loss, stopped early on the validation rows.

    Parameters
    ----------
    train, valid
        Codes.
    y_train, y_valid
        Targets; rows that are NaN for a target are left out for it.
    motifs
        Motifs whose best match is a feature.
    k
        Longest k-mer, all from 3 to k are counted; of several, the best on the validation rows is kept.
    seed, n_jobs
        Of the trees' subsampling; threads. The same data and `seed` give the same trees.

    Raises
    ------
    SchemaError
        When a target has fewer than two rows in either part.

    References
    ----------
    Ke et al. 2017, LightGBM: a highly efficient gradient boosting decision tree, NeurIPS 30.
    """
    motifs = tuple(motifs or ())
    scores = motif_scores(train, motifs), motif_scores(valid, motifs)
    features = {one: (_features(train, one, scores[0]), _features(valid, one, scores[1]))
                for one in ([k] if isinstance(k, int) else k)}
    best: list[tuple[float, lgb.Booster, int]] = []
    for t in range(y_train.shape[1]):
        rows, held = _measured(y_train, t, "training"), _measured(y_valid, t, "validation")
        found = []
        for one, (X, X_held) in features.items():
            bins = [_MOTIF_BINS] * len(motifs) + [_KMER_BINS] * (_n_columns(X) - len(motifs))
            parameters = _PARAMETERS | {"seed": seed, "num_threads": n_jobs, "max_bin_by_feature": bins}
            data = lgb.Dataset(X[rows], y_train[rows, t], params=parameters)
            check = lgb.Dataset(X_held[held], y_valid[held, t], reference=data, params=parameters)
            booster = lgb.train(parameters, data, _ROUNDS, valid_sets=[check],
                                callbacks=[lgb.early_stopping(_PATIENCE, verbose=False)])
            found.append((booster.best_score["valid_0"]["l2"], booster, one))
        best.append(min(found, key=lambda f: f[0]))
    return FittedGBM(tuple(b for _, b, _ in best), tuple(one for *_, one in best), motifs, n_jobs)


def _n_columns(matrix: sparse.csr_matrix) -> int:
    _, n = matrix.get_shape()
    return int(n)


def _measured(y: ndarray, t: int, what: str) -> ndarray:
    rows = np.flatnonzero(np.isfinite(y[:, t]))
    if len(rows) < 2:
        raise SchemaError(f"target {t} was measured in {len(rows)} of {len(y):,} {what} rows; at least 2 are needed")
    return rows


@dataclass(frozen=True)
class FittedRidge:
    """One linear function of the k-mers a target."""

    weights: tuple[Float[ndarray, " F"], ...]
    """Of the features of that target's k."""
    intercepts: tuple[float, ...]
    ks: tuple[int, ...]
    alphas: tuple[float, ...]
    """Penalty that was chosen, in units of the mean sum of squares of a feature."""

    def predict(self, codes: UInt8[ndarray, "B L"]) -> Float[ndarray, "B T"]:
        """Predictions in the units of the fitted targets, float32."""
        matrices = {k: _frequencies(codes, k) for k in set(self.ks)}
        columns = [matrices[k] @ w + b for w, b, k in zip(self.weights, self.intercepts, self.ks, strict=True)]
        return np.stack(columns, axis=1).astype(np.float32)


def _frequencies(codes: ndarray, k: int) -> Float[ndarray, "B F"]:
    """Share of each k-mer among the windows of a sequence, and its GC content; float64."""
    counts = kmer_matrix(codes, k).toarray().astype(np.float64)
    known = np.maximum((codes < N).sum(axis=1), 1)
    gc = ((codes == 1) | (codes == 2)).sum(axis=1) / known
    return np.concatenate([counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), gc[:, None]], axis=1)


def fit_ridge_kmers(train: UInt8[ndarray, "N L"], y_train: Shaped[ndarray, "N T"], *, k: int | Sequence[int] = (4, 5),
                    groups: Int[ndarray, " N"] | None = None, seed: int = 0, n_jobs: int = 1
                    ) -> FittedRidge:
    """Fit ridge regression on k-mer frequencies; k and penalty by cross-validation in the training rows.

    Parameters
    ----------
    train, y_train
        Codes and targets; rows that are NaN for a target are left out for it.
    k
        One length, or several to choose from.
    groups
        Rows that the inner folds keep together; None takes `similarity_groups`.
    seed, n_jobs
        Of the inner folds; threads.

    Raises
    ------
    SchemaError
        When a target has fewer than two rows.
    """
    ks = [k] if isinstance(k, int) else list(k)
    groups = similarity_groups(train) if groups is None else groups
    features = {one: torch.from_numpy(_frequencies(train, one)) for one in ks}
    found = []
    for t in range(y_train.shape[1]):
        rows = _measured(y_train, t, "training")
        y = torch.from_numpy(y_train[rows, t].astype(np.float64))
        parts = np.unique(groups[rows], return_inverse=True)[1]
        n_folds = min(_INNER_FOLDS, int(parts.max()) + 1)
        balanced = n_folds > 1 and np.bincount(parts).max() <= len(rows) / 2
        folds = grouped_folds(parts, n_folds, seed=seed) if balanced else None
        with _threads(n_jobs):
            found.append(min((_ridge(X[rows], y, folds, one) for one, X in features.items()), key=lambda r: r[0]))
    return FittedRidge(tuple(r[1] for r in found), tuple(r[2] for r in found), tuple(r[3] for r in found),
                       tuple(r[4] for r in found))


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Let PyTorch use n threads: on a shared machine, idle ones that wait for each other cost a hundredfold."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ridge(X: torch.Tensor, y: torch.Tensor, folds: ndarray | None, k: int) -> tuple[float, ndarray, float, int, float]:
    """Inner error, weights, intercept, k and penalty of one feature set."""
    errors = torch.zeros(len(_ALPHAS), dtype=torch.float64)
    for f in np.unique(folds) if folds is not None else ():
        held = torch.from_numpy(folds == f)
        weights, intercepts = _solve(X[~held], y[~held], _ALPHAS)
        errors += ((X[held] @ weights + intercepts - y[held, None]) ** 2).sum(dim=0)
    best = len(_ALPHAS) // 2 if folds is None else int(errors.argmin())
    weights, intercepts = _solve(X, y, _ALPHAS[best:best + 1])
    return float(errors[best]), weights[:, 0].numpy(), float(intercepts[0]), k, float(_ALPHAS[best])


def _solve(X: torch.Tensor, y: torch.Tensor, alphas: ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(F, A)`` and intercepts ``(A,)``, of one eigendecomposition on the shorter side of `X`."""
    mean, level = X.mean(dim=0), y.mean()
    X, y = X - mean, y - level
    wide = X.shape[0] < X.shape[1]
    values, vectors = torch.linalg.eigh(X @ X.T if wide else X.T @ X)
    onto = vectors.T @ (y if wide else X.T @ y)
    unit = max(float(values.sum()) / X.shape[1], 1e-12)
    weights = vectors @ (onto[:, None] / (values.clamp(min=0)[:, None] + torch.from_numpy(alphas) * unit))
    weights = X.T @ weights if wide else weights
    return weights, level - mean @ weights


def run_sequence_baselines(codes: UInt8[ndarray, "N L"], targets: Shaped[ndarray, "N T"],
                           train: Shaped[ndarray, " a"], valid: Shaped[ndarray, " b"], test: Shaped[ndarray, " c"], *,
                           motifs: Sequence[Motif] | None = None, seed: int = 0, n_jobs: int = 1,
                           groups: Int[ndarray, " N"] | None = None) -> dict[str, Float[ndarray, "n T"]]:
    """Fit both baselines on the model's own split and predict the test rows.

    Parameters
    ----------
    codes, targets
        Of all rows; NaN = not measured.
    train, valid, test
        Row numbers or masks. The ridge uses the training rows only.
    motifs
        For the boosted trees.
    groups
        Of all rows, for the ridge's inner folds; None finds similar sequences.

    Returns
    -------
    dict
        Name (a key of `CARDS`) → predictions of the test rows, float32.
    """
    a, b, c = (np.arange(len(codes))[part] for part in (train, valid, test))
    gbm = fit_gbm(codes[a], targets[a], codes[b], targets[b], motifs=motifs, seed=seed, n_jobs=n_jobs)
    ridge = fit_ridge_kmers(codes[a], targets[a], groups=None if groups is None else groups[a], seed=seed,
                            n_jobs=n_jobs)
    return {"gbm_kmers": gbm.predict(codes[c]), "ridge_kmers": ridge.predict(codes[c])}
