"""What a simple method reaches on the same genes: the figures that stand beside every model.

Two gradient-boosting baselines are fitted on the model's own split. `gbm_sequence_signals` sees the 4-mers
of −750..+250 around the TSS and each signal in 13 bins of distance; `gbm_signals` sees the signals only, so
that the gap between the two says what the promoter sequence adds. Both know nothing of syntax or position
inside the promoter: a model that does not beat them has learned nothing that counts and coverage do not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import lightgbm as lgb
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.sequence import BASES, N, check_codes, kmer_counts, reverse_complement_codes

K = 4
PROMOTER = (-750, 250)
"""Bases of the 4-mers, bp from the TSS in the direction of the gene, half-open."""
CORE = 250
"""Half-width in bp of the bin on the TSS; the other 12 grow geometrically to the edge of the window."""

_FLANKS = 6  # bins on either side of the core
_CHUNK = 2048  # genes held in memory at a time: windows are memory-mapped and may be wide
_ROUNDS = 600
_PATIENCE = 50
_PARAMETERS = {
    "objective": "regression", "metric": "l2", "learning_rate": 0.05, "num_leaves": 31,
    "min_data_in_leaf": 20, "feature_fraction": 0.5, "bagging_fraction": 0.8,
    "bagging_freq": 1, "lambda_l2": 1.0, "deterministic": True, "force_col_wise": True, "verbosity": -1,
}
_DIFFERENCES = ("One regressor a target; the number of trees is chosen on the validation fold.",)

CARDS = {
    "gbm_sequence_signals": Card(
        name="gbm_sequence_signals", kind="baseline",
        summary="Gradient-boosted trees on promoter 4-mer counts and signals in bins of distance.",
        paper="own; LightGBM: Ke et al., NeurIPS 2017", code="written by us on microsoft/LightGBM",
        differences=_DIFFERENCES, n_policy="4-mers that touch an N are not counted"),
    "gbm_signals": Card(
        name="gbm_signals", kind="baseline",
        summary="Gradient-boosted trees on signals binned by distance from the TSS, blind to the sequence.",
        paper="own; LightGBM: Ke et al., NeurIPS 2017", code="written by us on microsoft/LightGBM",
        differences=_DIFFERENCES, n_policy="does not read the sequence"),
    "gbm_sequence": Card(
        name="gbm_sequence", kind="baseline",
        summary="Gradient-boosted trees on promoter 4-mer counts; the baseline of a run without signals.",
        paper="own; LightGBM: Ke et al., NeurIPS 2017", code="written by us on microsoft/LightGBM",
        differences=_DIFFERENCES, n_policy="4-mers that touch an N are not counted"),
}


def features(codes: UInt8[ndarray, "G L"], signals: Float[ndarray, "G S n_bins"], *, resolution: int,
             tss_offset: int, flip: Bool[ndarray, " G"] | None = None, tracks: Sequence[str] | None = None,
             covariates: Shaped[ndarray, "G C"] | None = None) -> tuple[Float[ndarray, "G F"], list[str]]:
    """Describe each gene by its promoter 4-mers and its signals at growing distance from the TSS.

    Parameters
    ----------
    codes
        Windows around the TSS, codes 0..4; may be memory-mapped.
    signals
        The same windows in bins of `resolution` bp, raw units, finite. ``S`` may be 0.
    resolution
        bp a bin; ``n_bins * resolution == L``.
    tss_offset
        Index in the window of the base at which transcription starts.
    flip
        True where the gene runs right to left in its window; such a gene is read from the other side.
        None when every window already runs 5'→3' along its gene.
    tracks
        Names of the signals, for the feature names; None numbers them.
    covariates
        Further columns a gene, taken as they are.

    Returns
    -------
    matrix
        float32, one row a gene: 256 counts of 4-mers in −750..+250 (one strand, that of the gene; 4-mers
        that touch an N or the end of the window are not counted); then, a track and a bin of distance
        (negative is upstream), log1p of the mean and of the maximum, with the sign kept for negative
        signals; then covariates. NaN where a window does not reach a bin.
    names
        One a column: ``kmer_ACGT``, ``mean_<track>_<from>_<to>``, ``max_<track>_<from>_<to>``,
        ``covariate_<i>``.

    Raises
    ------
    SchemaError
        If windows and signals do not describe the same genes and bases, or a signal is not finite.
    """
    n_genes, length = codes.shape
    if signals.shape[0] != n_genes or (signals.shape[1] and signals.shape[2] * resolution != length):
        raise SchemaError(f"signals must be ({n_genes:,} genes, S, {length / resolution:g} bins of "
                          f"{resolution} bp) to fit windows of {length:,} bp; got {signals.shape}")
    if not 0 <= tss_offset < length:
        raise SchemaError(f"tss_offset must lie in the window, 0..{length - 1}; got {tss_offset}")
    n_tracks = signals.shape[1]
    tracks = [str(i) for i in range(n_tracks)] if tracks is None else list(tracks)
    for what, got, expected in (("tracks", len(tracks), n_tracks),
                                ("flip", n_genes if flip is None else len(flip), n_genes),
                                ("covariates", n_genes if covariates is None else len(covariates), n_genes)):
        if got != expected:
            raise SchemaError(f"{what} must have {expected:,} entries, as the windows have; got {got:,}")
    flip = np.zeros(n_genes, bool) if flip is None else flip
    edges = distance_edges(max(tss_offset, length - 1 - tss_offset))

    kmers = np.empty((n_genes, len(BASES)**K), np.float32)
    binned = np.full((n_genes, n_tracks, len(edges) - 1, 2), np.nan, np.float32)
    for start in range(0, n_genes, _CHUNK):
        for reverse in (False, True):
            rows = start + np.flatnonzero(flip[start:start + _CHUNK] == reverse)
            if len(rows):
                kmers[rows] = kmer_counts(_promoters(codes, rows, tss_offset, reverse), K)
                if n_tracks:
                    binned[rows] = _binned(signals, rows, resolution, tss_offset, reverse, edges)
    columns = [f"{what}_{track}_{low}_{high}" for track in tracks
               for low, high in pairwise(edges) for what in ("mean", "max")]
    flat = binned.reshape(n_genes, n_tracks * (len(edges) - 1) * 2)
    used = np.flatnonzero(~np.isnan(flat).all(axis=0))  # a bin narrower than the resolution may hold nothing
    parts = [kmers, flat[:, used]]
    names = ["kmer_" + "".join(letters) for letters in product(BASES, repeat=K)]
    names += [columns[i] for i in used]
    if covariates is not None:
        parts.append(covariates.astype(np.float32))
        names += [f"covariate_{i}" for i in range(covariates.shape[1])]
    return np.concatenate(parts, axis=1), names


def distance_edges(reach: int) -> list[int]:
    """Edges in bp of the 13 bins of distance: ±250 around the TSS, then 6 growing ones on either side.

    Parameters
    ----------
    reach
        The farthest distance in bp. Windows below ±500 bp have a narrower core, very small ones fewer bins.

    Examples
    --------
    >>> distance_edges(16000)[7:]
    [250, 500, 1000, 2000, 4000, 8000, 16000]
    """
    core = min(CORE, max(reach, 1) / 2)
    side = np.unique(np.rint(np.geomspace(core, max(reach, 1), _FLANKS + 1)).astype(int)).tolist()
    return [-edge for edge in side[::-1]] + side


def _promoters(codes: ndarray, rows: ndarray, tss_offset: int, reverse: bool) -> ndarray:
    """Codes of −750..+250 along the gene, shape ``(len(rows), 1000)``, N beyond the window."""
    low, high = PROMOTER if not reverse else (1 - PROMOTER[1], 1 - PROMOTER[0])
    first, last = tss_offset + low, tss_offset + high
    inside = slice(max(first, 0), min(last, codes.shape[1]))
    promoter = np.full((len(rows), last - first), N, np.uint8)
    promoter[:, inside.start - first:inside.stop - first] = codes[rows, inside]
    check_codes(promoter)  # not the windows: they may be gigabytes on disk
    return reverse_complement_codes(promoter) if reverse else promoter


def _binned(signals: ndarray, rows: ndarray, resolution: int, tss_offset: int, reverse: bool,
            edges: list[int]) -> ndarray:
    """Signed log1p of mean and maximum a track and bin of distance, shape ``(len(rows), S, bins, 2)``."""
    x = signals[rows].astype(np.float32)
    if not np.isfinite(x).all():
        bad = ~np.isfinite(x).all(axis=(1, 2))
        raise SchemaError(f"signals of at least {int(bad.sum()):,} genes hold NaN or infinite "
                          f"values; first: gene {rows[int(bad.argmax())]}; fill uncovered bases first")
    distance = (np.arange(x.shape[2]) + 0.5) * resolution - 0.5 - tss_offset  # of bin centres
    which = np.searchsorted(edges, -distance if reverse else distance, side="right") - 1
    which = np.clip(which, 0, len(edges) - 2)  # the outermost base may lie exactly on the last edge
    out = np.full((*x.shape[:2], len(edges) - 1, 2), np.nan, np.float32)
    for i in np.unique(which):
        part = x[:, :, which == i]
        out[:, :, i, 0] = part.mean(axis=2)
        out[:, :, i, 1] = part.max(axis=2)
    return np.sign(out) * np.log1p(np.abs(out))


@dataclass(frozen=True)
class FittedBaseline:
    """Boosted trees of every target, cut at the round that was best on the validation fold."""

    boosters: tuple[lgb.Booster, ...]
    n_jobs: int = 1

    def predict(self, matrix: Float[ndarray, "G F"]) -> Float[ndarray, "G T"]:
        """Predictions in the units of the fitted targets, float32."""
        return np.stack([np.asarray(b.predict(matrix, num_threads=self.n_jobs)) for b in self.boosters],
                        axis=1).astype(np.float32)


def fit_baselines(train: Float[ndarray, "G F"], y_train: Float[ndarray, "G T"], valid: Float[ndarray, "V F"],
                  y_valid: Float[ndarray, "V T"], *, seed: int = 0, n_jobs: int = 1) -> FittedBaseline:
    """Fit one boosted regressor a target, squared loss, stopped early on the validation fold.

    Deterministic: the same data and `seed` give the same trees, whatever `n_jobs`.

    Raises
    ------
    SchemaError
        If either fold is empty or the targets are not finite.

    References
    ----------
    Ke et al. 2017, LightGBM: a highly efficient gradient boosting decision tree, NeurIPS 30.
    """
    for name, matrix, y in (("training", train, y_train), ("validation", valid, y_valid)):
        if not len(matrix):
            raise SchemaError(f"the {name} fold holds no genes; check which chromosomes belong to it")
        if not np.isfinite(y).all():
            bad = ~np.isfinite(y)
            raise SchemaError(f"{int(bad.sum()):,} of {y.size:,} {name} targets are NaN or infinite; first: "
                              f"row {int(bad.any(axis=1).argmax())} of the fold; drop those genes")
    parameters = _PARAMETERS | {"seed": seed, "num_threads": n_jobs}
    boosters = []
    # The bins of the features are found once: only the labels change from target to target.
    train_set = lgb.Dataset(train, params=parameters)
    valid_set = lgb.Dataset(valid, reference=train_set, params=parameters)
    for t in range(y_train.shape[1]):
        train_set.set_label(np.ascontiguousarray(y_train[:, t]))
        valid_set.set_label(np.ascontiguousarray(y_valid[:, t]))
        boosters.append(lgb.train(parameters, train_set, _ROUNDS, valid_sets=[valid_set],
                                  callbacks=[lgb.early_stopping(_PATIENCE, verbose=False)]))
    return FittedBaseline(tuple(boosters), n_jobs)


def run_baselines(matrix: Float[ndarray, "G F"], names: Sequence[str], y: Float[ndarray, "G T"],
                  folds: Shaped[ndarray, " G"], *, only: Sequence[str] | None = None, seed: int = 0, n_jobs: int = 1
                  ) -> dict[str, Float[ndarray, "G T"]]:
    """Fit the baselines on the model's split and predict every gene.

    Parameters
    ----------
    matrix, names
        From `features`; a wide genome can be described part by part and the parts joined.
    y
        Targets, in the units of the predictions; only those of ``train`` and ``valid`` genes are used.
    folds
        ``"train"``, ``"valid"`` or ``"test"`` of every gene; other genes are only predicted.
    only
        Which baselines; None: ``gbm_sequence_signals`` and ``gbm_signals``; without any signal, ``gbm_sequence`` alone.
    seed, n_jobs
        Seed of the trees' subsampling; threads.

    Returns
    -------
    dict
        Name (a key of `CARDS`) → predictions of all genes, float32; of training genes, the fitted values.

    Raises
    ------
    UnknownNameError, SchemaError
        A baseline that is not known; one that reads signals where there are none.
    """
    if not len(y) == len(folds) == len(matrix):
        raise SchemaError("matrix, y and folds must have one row a gene; "
                          f"got {len(matrix):,}, {len(y):,} and {len(folds):,}")
    no_kmers = np.array([not name.startswith("kmer_") for name in names])
    no_signals = np.array([not name.startswith(("mean_", "max_")) for name in names])
    sets = {"gbm_sequence_signals": np.ones(len(names), bool), "gbm_signals": no_kmers, "gbm_sequence": no_signals}
    if only is None:
        only = ("gbm_sequence",) if no_signals.all() else ("gbm_sequence_signals", "gbm_signals")
    for name in only:
        if name not in sets:
            raise UnknownNameError(f"no baseline is called {name!r}; {nearest(name, sets)}")
        if no_signals.all() and name != "gbm_sequence":
            raise SchemaError(f"{name} reads signals, and the genes have none; use gbm_sequence")
    sets = {name: sets[name] for name in only}
    train, valid = folds == "train", folds == "valid"
    predictions = {}
    for name, columns in sets.items():
        part = np.ascontiguousarray(matrix[:, columns])
        fitted = fit_baselines(part[train], y[train], part[valid], y[valid], seed=seed, n_jobs=n_jobs)
        predictions[name] = fitted.predict(part)
    return predictions
