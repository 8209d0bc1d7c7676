"""Bins of windows on the genome against a base-by-base twin, erased tiles of an oracle that is known, and the rival."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV
from torch import nn

from ciscribe.elements.bins import Bins, distance_scores, erasure_scores, of_another_gene, smoothed_mask
from ciscribe.elements.scan import ALPHAS, fit_kmer_ridge
from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle
from ciscribe.sequence import N, encode, kmer_counts

R, B = 7, 11  # bp a bin, bins a window


def windows(seed, n=5, size=307):
    rng = np.random.default_rng(seed)
    chroms = rng.choice(["chr1", "chr2"], n).tolist()
    starts = rng.integers(-R * B // 2, size, n)
    strands = rng.choice(["+", "-"], n).tolist()
    return {"starts": starts, "chroms": chroms, "gene_ids": [f"g{i}" for i in range(n)], "tss": starts + R * B // 2,
            "strands": strands, "chrom_sizes": {"chr1": size, "chr2": size + 13}, "resolution": R, "n_bins": B}


def painted(parts, scores):
    """Best score of each base, one base at a time."""
    best = {}
    for i, (start, chrom, strand) in enumerate(zip(parts["starts"], parts["chroms"], parts["strands"], strict=True)):
        for j in range(B):
            place = B - 1 - j if strand == "-" else j
            for base in range(start + place * R, start + (place + 1) * R):
                if 0 <= base < parts["chrom_sizes"][chrom]:
                    best[chrom, base] = max(best.get((chrom, base), -np.inf), scores[i, j])
    return best


@given(seed=st.integers(0, 10**6))
def test_bins__pool_equals_the_painted_bases(seed):
    parts = windows(seed)
    scores = np.random.default_rng(seed).normal(size=(5, B))
    bins = Bins(**parts)
    pooled = bins.pool(scores)
    found = {(row.chrom, base): value for row, value in zip(bins.table.itertuples(), pooled, strict=True)
             for base in range(row.start, row.end)}
    assert found == painted(parts, scores)
    assert bins.size.sum() == len(found)
    for row, distance in zip(bins.table.itertuples(), bins.distance, strict=True):
        tss = [t for t, c in zip(parts["tss"], parts["chroms"], strict=True) if c == row.chrom]
        assert distance == min(abs((row.start + row.end) / 2 - t) for t in tss)


@given(seed=st.integers(0, 10**6))
def test_bins__pairs_are_the_bins_that_an_interval_touches(seed):
    parts = windows(seed)
    rng = np.random.default_rng(seed + 1)
    start = rng.integers(0, 290, 3)
    intervals = pd.DataFrame({"chrom": rng.choice(["chr1", "chr2"], 3), "start": start, "end": start + 13})
    row, gene, first, last = Bins(**parts).pairs(intervals)
    found = {(r, g, j) for r, g, a, b in zip(row, gene, first, last, strict=True) for j in range(a, b)}
    expected = set()
    for r, interval in enumerate(intervals.itertuples()):
        for g in range(5):
            for j in range(B):
                place = B - 1 - j if parts["strands"][g] == "-" else j
                left = parts["starts"][g] + place * R
                if parts["chroms"][g] == interval.chrom and left < interval.end and interval.start < left + R:
                    expected.add((r, g, j))
    on_chromosome = {(r, g) for r, g, _ in found}
    assert {t for t in expected if (t[0], t[1]) in on_chromosome} == found
    assert all(parts["starts"][g] + R * B <= 0 or min(intervals["end"]) > 0 for g in range(5))


def test_bins__heights_count_by_the_share_that_is_covered():
    bins = Bins([0], ["chr1"], ["g"], [7], resolution=10, n_bins=2, chrom_sizes={"chr1": 97})
    sites = pd.DataFrame({"chrom": "chr1", "start": [5, 8], "end": [10, 30]})
    assert bins.height(sites, np.array([4.0, 3.0])).tolist() == [2.0, 3.0]
    assert bins.cover(sites).tolist() == [5, 10]


def test_bins__say_what_is_wrong():
    bins = Bins([0, 50], ["chr1", "chr1"], ["g", "h"], [7, 57], resolution=10, n_bins=3)
    with pytest.raises(SchemaError, match=r"one number a window and bin, \(2, 3\); got \(3, 2\)"):
        bins.pool(np.zeros((3, 2)))
    bad = np.zeros((2, 3))
    bad[1, 2] = np.nan
    with pytest.raises(SchemaError, match="1 of 6 bins have no finite score; first: h, bin 2 = nan"):
        bins.pool(bad)
    with pytest.raises(SchemaError, match="tss must hold one value for each of the 2 windows; got 1"):
        Bins([0, 50], ["chr1", "chr1"], ["g", "h"], [7], resolution=10, n_bins=3)


def test_of_another_gene__keeps_every_distance_and_no_gene():
    scores = np.arange(5 * 3).reshape(5, 3).astype(float)
    other = of_another_gene(scores, seed=3)
    assert (np.sort(other, axis=0) == scores).all()
    assert (other != scores).any(axis=1).all()
    assert distance_scores(2, 4).tolist() == [[-1.5, -0.5, -0.5, -1.5]] * 2


def test_smoothed_mask__is_the_mean_of_log_odds_around():
    mean = np.random.default_rng(0).random((3, 7))
    odds = np.log(mean / (1 - mean))
    expected = [[odds[i, max(0, j - 2):j + 3].mean() for j in range(7)] for i in range(3)]
    np.testing.assert_allclose(smoothed_mask(mean, 2), expected)
    assert np.isfinite(smoothed_mask(np.array([[0.0, 1.0]]), 1)).all()


class Additive(nn.Module):
    """Reads the G of each bin of 5 bp times a weight, where the mask is open; signals add their sum."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 0.0, 5.0, 0.5, 7.0]), requires_grad=False)

    def forward(self, X, S=None, keep=None):
        g = X[:, 2].reshape(len(X), -1, 5).sum(dim=2)
        keep = torch.ones_like(g) if keep is None else keep
        y = (g * keep) @ self.weight + (0 if S is None else (S[:, 0] * keep).sum(dim=1))
        return {"expression": torch.stack([y, 2 * y], dim=1)}


def test_erasure_scores__of_an_additive_oracle_are_its_terms():
    codes = np.full((3, 35), 2, np.uint8)
    codes[1, :10] = 0
    oracle = Oracle(Additive(), device="cpu")
    S = torch.arange(21.0).reshape(3, 1, 7)
    weight = 5 * np.array([1.0, -2, 3, 0, 5, 0.5, 7])
    tile = np.array([weight[:2].sum()] * 2 + [weight[2:4].sum()] * 2 + [weight[4:6].sum()] * 2 + [weight[6]])
    by_bases = erasure_scores(oracle, codes, S, resolution=5, width=2, how="sequence", batch_size=3)
    np.testing.assert_allclose(by_bases[[0, 2], :, 0], [tile] * 2, rtol=1e-6)
    assert by_bases[1, :2].tolist() == [[0, 0]] * 2  # no G there
    np.testing.assert_allclose(by_bases[..., 1], 2 * by_bases[..., 0])
    single = erasure_scores(oracle, codes, S, resolution=5, width=1, how="mask")
    np.testing.assert_allclose(single[2, :, 0], weight + S[2, 0].numpy(), rtol=1e-5)
    # what is erased anyway has no effect
    keep = torch.ones(3, 7)
    keep[:, 4] = 0
    assert (erasure_scores(oracle, codes, S, keep=keep, resolution=5, width=1)[:, 4] == 0).all()
    with pytest.raises(SchemaError, match="whole bins"):
        erasure_scores(oracle, codes, resolution=4)
    with pytest.raises(ValueError, match="mask or sequence"):
        erasure_scores(oracle, codes, resolution=5, how="both")


def test_kmer_scan__equals_counting_by_hand_and_finds_the_planted_word():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (211, 130)).astype(np.uint8)
    word = encode("TGACG")
    where = rng.integers(0, 25, 211) * 5
    has = rng.random(211) < 0.5
    for i in np.flatnonzero(has):
        codes[i, where[i]:where[i] + 5] = word
    y = np.stack([has * 3.0, has * -1.0], axis=1) + rng.normal(0, 0.1, (211, 2))
    found = fit_kmer_ridge(codes, y)
    assert found.weights.shape == (4**5, 2)
    twin = RidgeCV(alphas=ALPHAS).fit(kmer_counts(codes, 5).astype(float), y)
    assert found.alpha == twin.alpha_
    np.testing.assert_allclose(found.weights.T, twin.coef_, atol=1e-6)
    codes[0, 17] = N
    scan = found.scan(codes, resolution=10, reach=3)
    assert scan.shape == (211, 13, 2)
    expected = kmer_counts(codes[:, 20 - 3:30 + 3], 5) @ found.weights
    np.testing.assert_allclose(scan[:, 2], expected, atol=1e-4)
    np.testing.assert_allclose(scan[:, 0], kmer_counts(codes[:, :13], 5) @ found.weights, atol=1e-4)
    best = scan[has, :, 0].argmax(axis=1)
    assert np.mean(np.abs(best - where[has] / 10) <= 1) > 0.9


def test_fit_kmer_ridge__says_what_is_wrong():
    codes = np.zeros((5, 13), np.uint8)
    with pytest.raises(SchemaError, match="5 sequences and 3 rows"):
        fit_kmer_ridge(codes, np.zeros((3, 1)))
    y = np.zeros((5, 1))
    y[3] = np.inf
    with pytest.raises(SchemaError, match="1 of 5 rows have a number that is missing or infinite; first: row 3"):
        fit_kmer_ridge(codes, y)
