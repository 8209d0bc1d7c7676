"""A linear model of gapped k-mers: words of a few bases that stand at fixed distances, on either strand.

What a gapped k-mer SVM learns: which short, degenerate words tell regulatory sequences from others, or the better of
two alleles from the worse. A word with gaps is seen far more often than one without, so that sites of ten bases can be
learned from few sequences. Blind to where in the sequence a word lies, and to which words lie side by side.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from ciscribe.card import Card
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.sequence import N, check_codes

CARD = Card(
    name="gapped_kmers", kind="baseline",
    summary="A linear classifier on words of a few bases with gaps between them, the same on both strands.",
    paper="Ghandi et al., PLoS Comput Biol 2014, doi:10.1371/journal.pcbi.1003711 (gkm-SVM); Lee et al., Nature "
          "Genetics 2015, doi:10.1038/ng.3331 (deltaSVM)",
    differences=("Fitted on the counts themselves (they are sparse) instead of a kernel; every word is a weight.",
                 "A word is kept once whatever the gaps around it, so that words of a short span weigh less than in "
                 "the kernel, and the truncated filter of mismatches is not used.",
                 "A variant is scored by the model on both alleles in their context, not by a table of 10-mer "
                 "weights.",
                 "Can also be fitted on pairs of alleles, on the difference of their counts."),
    n_policy="words that touch an N are not counted",
)
_BATCH = 512


@dataclass(frozen=True, eq=False)
class GappedKmerModel:
    """Weights of gapped k-mers.

    Parameters
    ----------
    weights
        float64 ``(P · 4**k,)``, of every arrangement of gaps and word; of a word and its reverse complement one
        carries the weight, the other is 0.
    intercept
        Added to every prediction; 0 for a model of pairs.
    length, k
        Longest span of a word in bp; bases in it.
    """

    weights: ndarray
    intercept: float
    length: int
    k: int

    @classmethod
    def fit(cls, codes: Shaped[ndarray, "B L"], y: Shaped[ndarray, " N"], *, length: int = 10, k: int = 6,
            C: float = 1.0, loss: Literal["hinge", "logistic"] = "hinge", seed: int = 0) -> "GappedKmerModel":
        """Learn which words tell the sequences labelled 1 (or true) from those labelled 0.

        Parameters
        ----------
        codes
            Sequences; their counts are scaled to length 1, as in the kernel.
        y
            0 or 1.
        length, k
            Span and bases of a word. Counts take ``C(length - 1, k - 1)`` words at each position.
        C
            Inverse strength of the penalty on the sum of squared weights; classes are balanced.
        loss
            ``hinge`` is a support-vector machine.
        seed
            Of the solver's order of rows.

        Raises
        ------
        SchemaError
            When sequences and labels differ in number or one class is absent.
        ConfigError
            When `k` does not lie in 2..`length`, `length` above 12, or `k` above 8.
        """
        check_codes(codes)
        labels = np.asarray(y).astype(float)
        if labels.shape != (len(codes),) or not set(np.unique(labels)) == {0.0, 1.0}:
            raise SchemaError(f"{len(codes):,} sequences need as many labels, of which some are 0 and some are 1; got "
                              f"shape {labels.shape} with the values {np.unique(labels)[:5].tolist()}")
        features = gapped_kmer_matrix(codes, length, k)
        return cls._of(features, labels, True, length, k, C, loss, seed)

    @classmethod
    def fit_pairs(cls, high: UInt8[ndarray, "B L"], low: UInt8[ndarray, "A W"], *, length: int = 10, k: int = 6,
                  C: float = 1.0, loss: Literal["hinge", "logistic"] = "hinge", seed: int = 0) -> "GappedKmerModel":
        """Learn which words make the better of two alleles: row i of `high` is to be predicted above row i of `low`.

        Options as in `fit`; arrays of one shape. There is no intercept, so that exchanged alleles have the opposite
        effect.
        """
        check_codes(high)
        check_codes(low)
        if high.shape != low.shape or not len(high):
            raise SchemaError(f"pairs are two arrays of one shape with at least one row; got {high.shape} and "
                              f"{low.shape}")
        gain = gapped_kmer_matrix(high, length, k) - gapped_kmer_matrix(low, length, k)
        gain.eliminate_zeros()
        scale = np.sqrt(np.asarray(gain.multiply(gain).sum(axis=1)).mean()) or 1.0
        rows = sparse.vstack([gain, -gain]).tocsr() / scale
        model = cls._of(rows, np.repeat([1.0, 0.0], len(high)), False, length, k, C, loss, seed)
        return cls(model.weights / scale, 0.0, length, k)

    @classmethod
    def _of(cls, features: sparse.csr_matrix, labels: ndarray, intercept: bool, length: int, k: int, C: float,
            loss: str, seed: int) -> "GappedKmerModel":
        options: dict[str, Any] = {"C": C, "class_weight": "balanced", "random_state": seed, "fit_intercept": intercept}
        used = np.unique(features.indices)  # most words of a long span are in no sequence
        solver = (LinearSVC(loss="hinge", max_iter=20_000, tol=1e-3, **options) if loss == "hinge" else
                  LogisticRegression(solver="liblinear", dual=True, max_iter=1_000, tol=1e-3, **options))
        solver = solver.fit(features[:, used], labels)
        weights = np.zeros(len(_arrangements(length, k)[0]) * 4**k)
        weights[used] = np.ravel(solver.coef_)
        return cls(weights, float(np.ravel(solver.intercept_)[0]) if intercept else 0.0, length, k)

    def predict(self, codes: UInt8[ndarray, "B L"]) -> Float[ndarray, " B"]:
        """Score of each sequence, positive for those like the ones labelled 1; the same for its reverse complement.

        The effect of a variant is the score of the alternative minus that of the reference allele.
        """
        check_codes(codes)
        parts = [gapped_kmer_matrix(codes[i:i + _BATCH], self.length, self.k) @ self.weights
                 for i in range(0, len(codes), _BATCH)]
        return np.concatenate([*parts, np.zeros(0)]) + self.intercept


def gapped_kmer_matrix(codes: UInt8[ndarray, "B L"], length: int, k: int) -> sparse.csr_matrix:
    """Counts of the gapped k-mers of each sequence on both strands, scaled to length 1; float32 ``(B, P · 4**k)``.

    A gapped k-mer is `k` bases at fixed offsets that span at most `length` bp; there are
    ``P = C(length - 1, k - 1)`` arrangements. A word and its reverse complement are one feature. Words that touch an N
    are not counted; a sequence without any is a row of zeros.
    """
    if not 2 <= k <= min(length, 8) or length > 12:
        raise ConfigError(f"gapped k-mers have k of 2..8 bases within at most 12 bp; got k={k}, length={length}")
    offsets, turned = _arrangements(length, k)
    n, width = codes.shape
    n_words = 4**k
    index = np.empty((n, len(offsets) * width), np.int32)
    filled = _compiled(np.ascontiguousarray(codes), offsets, turned, index)
    flat = index[np.arange(index.shape[1]) < filled[:, None]]
    counts = sparse.csr_matrix((np.ones(len(flat), np.float32), flat, np.concatenate([[0], np.cumsum(filled)])),
                               shape=(n, len(offsets) * n_words))
    counts.sum_duplicates()
    norm = np.sqrt(np.bincount(np.repeat(np.arange(n), np.diff(counts.indptr)), counts.data**2, minlength=n))
    counts.data /= np.repeat(np.maximum(norm, 1), np.diff(counts.indptr)).astype(np.float32)
    return counts


def _arrangements(length: int, k: int) -> tuple[ndarray, ndarray]:
    """Offsets of the bases of each arrangement, the first 0: ``(P, k)``; and which arrangement is its mirror image."""
    found: list[tuple[int, ...]] = [(0, *rest) for rest in combinations(range(1, length), k - 1)]
    number = {offsets: i for i, offsets in enumerate(found)}
    mirror = [number[tuple(offsets[-1] - o for o in reversed(offsets))] for offsets in found]
    return np.array(found, dtype=np.int64), np.array(mirror, dtype=np.int64)


@numba.njit(cache=True, nogil=True)
@no_type_check  # pytest's shape checks cannot wrap compiled functions
def _compiled(codes, offsets, turned, index):  # pragma: no cover - compiled
    """Number of every gapped k-mer of each sequence into `index`; how many there are."""
    n, width = codes.shape
    n_offsets, k = offsets.shape
    n_words = 4**k
    filled = np.zeros(n, np.int64)
    for i in range(n):
        for p in range(n_offsets):
            for start in range(width - offsets[p, k - 1]):
                word, back, clean = 0, 0, True
                for j in range(k):
                    base = np.int64(codes[i, start + offsets[p, j]])
                    if base >= N:
                        clean = False
                        break
                    word = word * 4 + base
                    back += (3 - base) * 4**j
                if clean:
                    index[i, filled[i]] = min(p * n_words + word, turned[p] * n_words + back)
                    filled[i] += 1
    return filled
