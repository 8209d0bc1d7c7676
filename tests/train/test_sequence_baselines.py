"""Baselines of reporter assays: features by hand, planted words and motifs recovered, honest splits."""

from time import process_time

import numpy as np
import pytest

from ciscribe.errors import SchemaError
from ciscribe.schema import Motif
from ciscribe.sequence import decode, encode, kmer_counts, reverse_complement_codes
from ciscribe.train.sequence_baselines import (
    CARDS,
    fit_gbm,
    fit_ridge_kmers,
    kmer_matrix,
    motif_scores,
    run_sequence_baselines,
)


def planted(n=601, length=53, seed=0, word="TGACTCA"):
    """Sequences, every third with a word, on which the first target depends; the second counts GC."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (n, length), dtype=np.uint8)
    for row in codes[::3]:
        at = rng.integers(0, length - len(word))
        row[at:at + len(word)] = encode(word)
    has = np.array([word in decode(row) for row in codes])
    gc = ((codes == 1) | (codes == 2)).mean(axis=1)
    y = np.stack([2.0 * has + rng.normal(0, 0.3, n), 9 * gc + rng.normal(0, 0.3, n)], axis=1)
    return codes, y.astype(np.float32)


def pwm(word, p=0.97):
    ppm = np.full((4, len(word)), (1 - p) / 3)
    ppm[encode(word), np.arange(len(word))] = p
    return Motif(word, ppm)


def pearson(a, b):
    return np.corrcoef(a, b)[0, 1]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_kmer_matrix__is_kmer_counts(k):
    codes = np.random.default_rng(k).integers(0, 5, (13, 37), dtype=np.uint8)
    np.testing.assert_array_equal(kmer_matrix(codes, k).toarray(), kmer_counts(codes, k))
    assert kmer_matrix(codes[:, :2], 3).shape == (13, 64)
    assert kmer_matrix(codes[:, :2], 3).nnz == 0


def test_motif_scores__are_the_best_of_both_strands_by_hand():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 5, (17, 31), dtype=np.uint8)
    motifs = [Motif(f"m{w}", rng.dirichlet(np.full(4, 0.5), w).T) for w in (1, 5, 11)] + [pwm("TGACTCA", 1.0)]
    scores = motif_scores(codes, motifs, batch_size=7)
    for m, motif in enumerate(motifs):
        odds = np.vstack([np.log2(np.maximum(motif.ppm, 1e-3) / 0.25), np.zeros(motif.ppm.shape[1])])
        width = motif.ppm.shape[1]
        for i, row in enumerate(codes):
            best = max(sum(odds[c, j] for j, c in enumerate(strand[start:start + width]))
                       for strand in (row, reverse_complement_codes(row)) for start in range(31 - width + 1))
            assert scores[i, m] == pytest.approx(best, abs=1e-4)
    assert motif_scores(codes, []).shape == (17, 0)
    assert np.isfinite(motif_scores(codes[:, :3], motifs)).all()


def test_fit_gbm__finds_a_planted_word_and_a_motif_helps():
    codes, y = planted()
    test, y_test = planted(seed=1)
    plain = fit_gbm(codes[:401], y[:401], codes[401:], y[401:])
    found = fit_gbm(codes[:401], y[:401], codes[401:], y[401:], motifs=[pwm("TGACTCA")])
    p, q = plain.predict(test), found.predict(test)
    assert p.shape == y_test.shape
    assert p.dtype == np.float32
    assert pearson(p[:, 0], y_test[:, 0]) > 0.8
    assert pearson(q[:, 0], y_test[:, 0]) > 0.9
    assert pearson(q[:, 0], y_test[:, 0]) > pearson(p[:, 0], y_test[:, 0])
    assert pearson(p[:, 1], y_test[:, 1]) > 0.5
    again = fit_gbm(codes[:401], y[:401], codes[401:], y[401:])
    np.testing.assert_array_equal(again.predict(test), p)
    assert set(plain.ks) <= {4, 6}


def test_fit_ridge_kmers__finds_words_and_gc_and_chooses_a_penalty():
    codes, y = planted()
    test, y_test = planted(seed=1)
    ridge = fit_ridge_kmers(codes, y)
    p = ridge.predict(test)
    assert pearson(p[:, 0], y_test[:, 0]) > 0.6
    assert pearson(p[:, 1], y_test[:, 1]) > 0.85
    noise = np.random.default_rng(3).normal(size=y.shape)
    assert np.std(fit_ridge_kmers(codes, noise).predict(test)) < 0.3  # of 1: nothing to learn is not learned


def test_fit_ridge_kmers__inner_folds_keep_relatives_together():
    rng = np.random.default_rng(5)
    families = np.repeat(rng.integers(0, 4, (61, 53), dtype=np.uint8), 9, axis=0)
    families[np.arange(549), rng.integers(0, 53, 549)] = 0
    y = np.repeat(rng.normal(size=61), 9)[:, None]  # by family, nothing else
    honest = fit_ridge_kmers(families, y, k=4).alphas[0]
    fooled = fit_ridge_kmers(families, y, k=4, groups=np.arange(549)).alphas[0]
    assert honest >= 3 * fooled


def test_baselines__leave_out_what_was_not_measured():
    codes, y = planted()
    y[::2, 0] = np.nan
    y[1::2, 1] = np.nan
    split = [np.arange(0, 401), np.arange(401, 501), np.arange(601) > 500]
    predictions = run_sequence_baselines(codes, y, *split)
    assert set(predictions) == set(CARDS)
    for p in predictions.values():
        assert p.shape == (100, 2)
        assert np.isfinite(p).all()
    # the rows without a measurement have no say
    left = np.isfinite(y[:, 0])
    alone = fit_ridge_kmers(codes[:401][left[:401]], y[:401][left[:401]][:, :1], seed=0)
    np.testing.assert_allclose(predictions["ridge_kmers"][:, 0], alone.predict(codes[501:])[:, 0], atol=1e-4)
    y[:, 1] = np.nan
    with pytest.raises(SchemaError, match="target 1 was measured in 0 of 401 training rows"):
        run_sequence_baselines(codes, y, *split)


def test_run_sequence_baselines__test_targets_have_no_say():
    codes, y = planted(n=301)
    split = [np.arange(0, 201), np.arange(201, 251), np.arange(251, 301)]
    before = run_sequence_baselines(codes, y, *split)
    y[251:] = 99
    after = run_sequence_baselines(codes, y, *split)
    for name in CARDS:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.slow
def test_fit_gbm__of_ten_thousand_sequences_takes_seconds():
    codes, y = planted(n=12_007, length=150)
    start = process_time()
    fit_gbm(codes[:10_000], y[:10_000, :1], codes[10_000:], y[10_000:, :1], k=6)
    assert process_time() - start < 30
