"""The humble rival of a learned mask: a ridge regression on k-mer counts, scanned over the same windows.

Trained on expression it knows of accessibility as little as a model of sequence does. Trained on the accessible sites
of other chromosomes it knows the answer there, and shows what sequence can tell when it is supervised.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.sequence import N, check_codes, kmer_counts

CARD = Card(
    name="kmer_ridge_scan", kind="elements",
    summary="Scores each bin by the k-mers around it, weighted by a ridge regression of expression on the k-mers of "
            "whole windows, or of accessibility on those of single bins.",
    paper="own; k-mer regression as in Ghandi et al. 2014, doi:10.1371/journal.pcbi.1003711 (without gaps)",
    n_policy="k-mers that touch an N are not counted",
)
ALPHAS = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6)


@dataclass(frozen=True, eq=False)
class KmerScan:
    """Weights of k-mers.

    Parameters
    ----------
    weights
        ``(4**k, T)``, k-mers in lexicographic order, units of the target a k-mer.
    k
        Their length.
    alpha
        Penalty that was chosen.
    """

    weights: Float[ndarray, "K T"]
    k: int
    alpha: float

    def scan(self, codes: UInt8[ndarray, "G L"], *, resolution: int, reach: int = 64) -> Float[ndarray, "G n_bins T"]:
        """Sum of the weights of the k-mers within `reach` bp of each bin, k-mers that leave the window aside.

        Parameters
        ----------
        codes
            Windows, read in the direction that the weights were fitted in.
        resolution, reach
            bp of a bin, and around it.
        """
        check_codes(codes)
        n, length = codes.shape
        if resolution < 1 or length % resolution or length < self.k:
            raise SchemaError(f"a window of {length:,} bp must have whole bins of {resolution} bp and hold {self.k} bp")
        n_kmers = length - self.k + 1
        edge = np.arange(0, length, resolution)
        low = np.clip(edge - reach, 0, n_kmers)
        high = np.clip(edge + resolution + reach - self.k + 1, 0, n_kmers)
        high = np.maximum(high, low)
        table = np.vstack([self.weights, np.zeros((1, self.weights.shape[1]))])
        out = np.empty((n, len(edge), self.weights.shape[1]), dtype=np.float32)
        for i in range(0, n, 128):
            total = np.cumsum(table[_kmer_index(codes[i:i + 128], self.k)], axis=1)
            total = np.concatenate([np.zeros_like(total[:, :1]), total], axis=1)
            out[i:i + 128] = total[:, high] - total[:, low]
        return out


def fit_kmer_ridge(codes: UInt8[ndarray, "n L"], y: Float[ndarray, "m T"], *, k: int = 5) -> KmerScan:
    """Ridge regression of numbers on the k-mer counts of sequences; the penalty by leave-one-out error.

    Parameters
    ----------
    codes
        Training sequences: whole windows with the expression of their genes, or bins with their accessibility.
    y
        What is regressed, one column a target.
    k
        Length of the k-mers, one strand.

    Raises
    ------
    SchemaError
        If there are fewer than 3 sequences, or numbers are missing.
    """
    y = np.asarray(y, dtype=np.float64)
    if len(codes) != len(y) or len(y) < 3:
        raise SchemaError(f"a ridge regression takes one row of numbers for each of at least 3 sequences; got "
                          f"{len(codes):,} sequences and {len(y):,} rows")
    bad = ~np.isfinite(y).all(axis=1)
    if bad.any():
        raise SchemaError(f"{int(bad.sum()):,} of {len(y):,} rows have a number that is missing or infinite; first: "
                          f"row {int(bad.argmax())}")
    counts = kmer_counts(codes, k).astype(np.float64)
    counts -= counts.mean(axis=0)
    y = y - y.mean(axis=0)
    values, vectors = np.linalg.eigh(counts.T @ counts)
    turned = counts @ vectors
    squares, onto = turned**2, turned.T @ y
    best = (np.inf, ALPHAS[0])
    for alpha in ALPHAS:
        shrink = 1 / (np.maximum(values, 0) + alpha)
        left_out = (y - turned @ (shrink[:, None] * onto)) / (1 - 1 / len(y) - squares @ shrink)[:, None]
        best = min(best, (float((left_out**2).mean()), alpha))
    shrink = 1 / (np.maximum(values, 0) + best[1])
    return KmerScan(vectors @ (shrink[:, None] * onto), k, best[1])


def _kmer_index(codes: UInt8[ndarray, "G L"], k: int) -> ndarray:
    """Number of the k-mer that begins at each position; 4**k where it touches an N."""
    n = codes.shape[1] - k + 1
    index, missing = np.zeros((len(codes), n), dtype=np.int64), np.zeros((len(codes), n), dtype=bool)
    for j in range(k):
        part = codes[:, j:j + n]
        index = index * 4 + np.minimum(part, 3)
        missing |= part == N
    index[missing] = 4**k
    return index
