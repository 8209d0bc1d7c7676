"""Natural sequences as a yardstick: how far a designed sequence lies from them, and what sets have in common.

All percentiles have one direction: the share of natives that are *stranger* than the design, 0 to 100. Low is strange.
What natives reach is measured without the native itself (neighbours) or by models that did not see it (likelihood).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from ciscribe.errors import SchemaError
from ciscribe.pwm import base_frequencies, scan_motifs
from ciscribe.schema import Motif
from ciscribe.sequence import N, check_codes, one_hot
from ciscribe.train.labels import auroc
from ciscribe.train.metrics import pearson, spearman
from ciscribe.train.sequence_baselines import kmer_matrix

_KMER = 6  # of the tf-idf profile; the Markov chain of order 5 counts the same words
_NEIGHBORS = 5
_FOLDS = 5
_SAMPLE = 2_000  # natives that are compared with the others
_SEED = 27  # bases that fit into one int64, five letters a base
_MOTIF_P = 1e-4


class Natives:
    """Natural (or training) sequences, prepared once, against which any number of designs are held.

    Parameters
    ----------
    codes
        uint8 ``(N, L)``, N as padding; at least 10.
    labels
        What was measured of them ``(N,)``, in the units of the scores; NaN where it was not. None: no label range and
        no top natives.
    top
        Share of natives with the highest labels that count as top natives; 20 at least.
    seed
        Of the folds and of the natives (2,000 at most) whose neighbours are looked for.
    """

    def __init__(self, codes: UInt8[ndarray, "N L"], labels: Float[ndarray, " _"] | None = None, *, top: float = 0.01,
                 seed: int = 0):
        check_codes(codes)
        if len(codes) < 2 * _FOLDS or codes.shape[1] < _KMER:
            raise SchemaError(f"natives are {2 * _FOLDS} or more sequences of {_KMER} bp or more; got {codes.shape}")
        if labels is not None and (len(labels) != len(codes) or np.isnan(labels).all()):
            raise SchemaError(f"labels are one number a native, not all NaN; got {len(labels)} for {len(codes)} "
                              "natives")
        rng = np.random.default_rng(seed)
        self.codes, self.labels = codes, labels
        self.highest = np.nan if labels is None else float(np.nanmax(labels))
        counts = kmer_matrix(codes, _KMER)
        found = np.bincount(counts.indices, minlength=4**_KMER)
        self._idf = (np.log((1 + len(codes)) / (1 + found)) + 1).astype(np.float32)
        self._profiles = self._weighed(counts)
        fold = rng.permutation(len(codes)) % _FOLDS
        self._chains = [MarkovChain.fit(codes[fold != f]) for f in range(_FOLDS)]
        self._loglik = np.sort(np.concatenate([chain.loglik(codes[fold == f]) for f, chain in enumerate(self._chains)]))
        rows = np.sort(rng.permutation(len(codes))[:_SAMPLE])
        self._distance = np.sort(self._nearest(self._profiles[rows], itself=True))
        self.top: ndarray | None = None
        if labels is not None:
            known = np.flatnonzero(~np.isnan(labels))
            n = min(len(known), max(20, round(top * len(known))))
            self.top = codes[known[np.argsort(-labels[known], kind="stable")[:n]]]

    def distance(self, codes: UInt8[ndarray, "n L"]) -> Float[ndarray, " n"]:
        """Mean cosine distance to the nearest five natives in 6-mer tf-idf; 0 is the same 6-mers, 1 none in common."""
        return self._nearest(self._weighed(kmer_matrix(codes, _KMER)))

    def loglik(self, codes: UInt8[ndarray, "n L"]) -> Float[ndarray, " n"]:
        """Log-likelihood under a Markov chain of order 5 of the natives, nats a base."""
        return np.mean([chain.loglik(codes) for chain in self._chains], axis=0)

    def knn_percentile(self, distance: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Percentage of natives that are as far from the other natives, or farther."""
        return 100 * (1 - np.searchsorted(self._distance, distance - 1e-6) / len(self._distance))

    def markov_percentile(self, loglik: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Percentage of natives that are as improbable, or more."""
        return 100 * np.searchsorted(self._loglik, loglik, side="right") / len(self._loglik)

    def _weighed(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        weighed = sparse.csr_matrix(counts.multiply(self._idf[None]))
        norm = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
        return sparse.csr_matrix(sparse.diags(1 / np.maximum(norm, 1e-12)) @ weighed)

    def _nearest(self, profiles: sparse.csr_matrix, *, itself: bool = False) -> Float[ndarray, " n"]:
        """Mean distance to the nearest natives; each row's own copy, the most similar of all, is left out."""
        out, step = np.empty(len(np.diff(profiles.indptr))), max(1, 2**23 // len(self.codes))
        for i in range(0, len(out), step):
            similar = (profiles[i:i + step] @ self._profiles.T).toarray()
            best = -np.sort(-np.partition(similar, -_NEIGHBORS - 1, axis=1)[:, -_NEIGHBORS - 1:], axis=1)
            out[i:i + step] = 1 - (best[:, 1:] if itself else best[:, :-1]).mean(axis=1)
        return np.maximum(out, 0)


@dataclass(frozen=True, eq=False)
class MarkovChain:
    """Probability of a base given the five before it; words that were not seen count a quarter each."""

    log_probability: Float[ndarray, " words"]

    @classmethod
    def fit(cls, codes: UInt8[ndarray, "N L"]) -> "MarkovChain":
        """Count all overlapping words of six bases; windows with an N are left out."""
        counts = np.asarray(kmer_matrix(codes, _KMER).sum(axis=0), float).reshape(-1, 4) + 0.25
        return cls(np.log(counts / counts.sum(axis=1, keepdims=True)).ravel())

    def loglik(self, codes: UInt8[ndarray, "n L"]) -> Float[ndarray, " n"]:
        """Mean log-probability of a base, nats, from the sixth on; 0 where there is no word without N."""
        counts = kmer_matrix(codes, _KMER)
        n = np.asarray(counts.sum(axis=1)).ravel()
        return (counts @ self.log_probability) / np.maximum(n, 1)


# One number a design


def gc_content(codes: UInt8[ndarray, "n L"]) -> Float[ndarray, " n"]:
    """Share of G and C among the bases that are known."""
    return ((codes == 1) | (codes == 2)).sum(axis=1) / np.maximum((codes < N).sum(axis=1), 1)


def longest_homopolymer(codes: UInt8[ndarray, "n L"]) -> Int[ndarray, " n"]:
    """Longest run of one base, bp; N is no base."""
    run = (codes[:, 0] < N).astype(np.int64)
    best = run.copy()
    for i in range(1, codes.shape[1]):
        run = np.where(codes[:, i] == N, 0, np.where(codes[:, i] == codes[:, i - 1], run + 1, 1))
        np.maximum(best, run, out=best)
    return best


def nearest_hamming(codes: UInt8[ndarray, "n L"], natives: UInt8[ndarray, "N L"], *, itself: bool = False
                    ) -> Float[ndarray, " n"]:
    """Positions in which each sequence differs from the native that is most like it, base by base.

    N differs from everything. With `itself`, the sequences are the natives, and each one's own row does not count.
    """
    known, length = one_hot(natives).reshape(len(natives), -1).astype(np.float32).T, codes.shape[1]
    out, step = np.empty(len(codes)), max(1, 2**23 // len(natives))
    for i in range(0, len(codes), step):  # matches are counted in float32, exact to 2^24; int8 ends at 127
        same = one_hot(codes[i:i + step]).reshape(-1, 4 * length).astype(np.float32) @ known
        if itself:
            same[np.arange(len(same)), i + np.arange(len(same))] = -1
        out[i:i + step] = length - same.max(axis=1)
    return out


def longest_match(codes: UInt8[ndarray, "n L"], natives: UInt8[ndarray, "N M"]) -> Int[ndarray, " n"]:
    """Longest stretch (bp) that each sequence has in common with any native, same strand, at any place.

    By chance alone it is about log₄(n bases × N bases) bp: 14 for a promoter in 7,000. N matches nothing.
    """
    length = codes.shape[1]
    words, (own_words, own) = _words(natives), (_words(codes), _padded(codes))
    known = _padded(natives)
    order = np.argsort(words, kind="stable")
    place = order // natives.shape[1], order % natives.shape[1]
    words = words[order]
    left, right = np.searchsorted(words, own_words), np.searchsorted(words, own_words, side="right")
    row, at = np.divmod(np.arange(len(own_words)), length)
    until = _until_n(codes).ravel()
    offset = np.arange(_SEED)
    best = np.zeros(len(own_words), np.int64)
    for other in (left - 1, left):  # in sorted order, the longest common beginning is with a neighbour
        other = np.clip(other, 0, len(words) - 1)
        same = own[row[:, None], at[:, None] + offset] == known[place[0][other, None], place[1][other, None] + offset]
        np.maximum(best, np.cumprod(same, axis=1).sum(axis=1), out=best)
    for i in np.flatnonzero((right > left) & (until > _SEED)):  # whole words match: go on from every place
        r, p = place[0][left[i]:right[i]], place[1][left[i]:right[i]]
        run = _SEED
        while len(r):
            fits = known[r, np.minimum(p + run, known.shape[1] - 1)] == own[row[i], at[i] + run]
            if not fits.any() or run >= until[i]:
                break
            r, p, run = r[fits], p[fits], run + 1
        best[i] = run
    return np.minimum(best, until).reshape(len(codes), length).max(axis=1)


def _padded(codes: ndarray) -> ndarray:
    return np.pad(codes, ((0, 0), (0, _SEED)), constant_values=N)


def _words(codes: ndarray) -> Int[ndarray, " n"]:
    """Number of the 27 bases that start at each position, N a fifth letter and what fills the end."""
    padded, length = _padded(codes).astype(np.int64), codes.shape[1]
    words = np.zeros((len(codes), length), np.int64)
    for i in range(_SEED):
        words = words * 5 + padded[:, i:i + length]
    return words.ravel()


def _until_n(codes: ndarray) -> Int[ndarray, "n L"]:
    """Bases from each position to the next N or the end."""
    out, run = np.zeros(codes.shape, np.int64), np.zeros(len(codes), np.int64)
    for i in range(codes.shape[1] - 1, -1, -1):
        run = np.where(codes[:, i] == N, 0, run + 1)
        out[:, i] = run
    return out


# One number a set


def kmer_share(codes: UInt8[ndarray, "n L"], k: int) -> Float[ndarray, " words"]:
    """Share of each word among all words of a set; overlapping ones all count (AA is four times in AAAAA)."""
    counts = np.asarray(kmer_matrix(codes, k).sum(axis=0), float).ravel()
    return counts / max(counts.sum(), 1)


def kmer_correlation(codes: UInt8[ndarray, "n L"], natives: UInt8[ndarray, "N M"], k: int = 4) -> float:
    """Correlation of the k-mer counts of two sets."""
    return pearson(kmer_share(codes, k), kmer_share(natives, k))


def motif_correlation(codes: UInt8[ndarray, "n L"], natives: UInt8[ndarray, "N M"], motifs: Sequence[Motif]) -> float:
    """Rank correlation, over motifs, of the mean number of sites a sequence (p below 1e-4, both strands)."""
    share = base_frequencies(natives)
    per_set = []
    for some in (codes, natives):
        hits = scan_motifs(some, motifs, p_value=_MOTIF_P, background=share)
        per_set.append(hits["motif"].value_counts().reindex([m.name for m in motifs], fill_value=0) / len(some))
    return spearman(per_set[0].to_numpy(float), per_set[1].to_numpy(float))


def diversity(codes: UInt8[ndarray, "n L"]) -> float:
    """Mean share of positions in which two sequences of a set differ; NaN for fewer than two."""
    n, length = codes.shape
    if n < 2:
        return float("nan")
    counts = one_hot(codes).sum(axis=0, dtype=np.int64)
    same = (counts * (counts - 1)).sum() / 2
    return float(1 - same / (n * (n - 1) / 2 * length))


def separability(codes: UInt8[ndarray, "n L"], natives: UInt8[ndarray, "N M"], *, k: int = 4,
                 groups: Int[ndarray, " n"] | None = None, seed: int = 0) -> float:
    """How well a classifier of k-mers tells designs from natives that it did not see: AUROC, ½ is not at all.

    Logistic regression (L2) on standardized k-mer counts, five folds, mean over folds.

    Parameters
    ----------
    codes, natives
        Designs, and natives that are not their starts.
    k
        bp.
    groups
        Designs that stay in one fold, such as those of one start; none unless given.
    seed
        Of the folds, and of the natives (2,000 at most).

    Returns
    -------
    float
        NaN where there are fewer than two groups of designs.
    """
    rng = np.random.default_rng(seed)
    natives = natives[np.sort(rng.permutation(len(natives))[:_SAMPLE])]
    own = np.unique(np.arange(len(codes)) if groups is None else groups, return_inverse=True)[1]
    n_folds = min(_FOLDS, int(own.max(initial=-1)) + 1, len(natives))
    if n_folds < 2:
        return float("nan")
    fold = np.concatenate([(rng.permutation(own.max() + 1) % n_folds)[own], rng.permutation(len(natives)) % n_folds])
    X = np.concatenate([kmer_matrix(some, k).toarray() for some in (codes, natives)])
    y = np.arange(len(X)) < len(codes)
    areas = []
    for f in range(n_folds):
        train, test = fold != f, fold == f
        mean, scale = X[train].mean(axis=0), np.maximum(X[train].std(axis=0), 1e-3)
        model = LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced")
        model.fit((X[train] - mean) / scale, y[train])
        areas.append(auroc(y[test], model.decision_function((X[test] - mean) / scale)))
    return float(np.mean(areas))
