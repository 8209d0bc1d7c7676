"""Properties of DNA arrays, over random sequences."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ciscribe import sequence
from ciscribe.errors import SchemaError

letters = st.text("ACGTN", min_size=1, max_size=67)
codes = hnp.arrays(np.uint8, st.integers(1, 67), elements=st.integers(0, 4))


@given(letters)
def test_encode__decode_is_its_inverse(text):
    assert sequence.decode(sequence.encode(text)) == text
    assert sequence.decode(sequence.encode(text.lower().encode())) == text


@given(st.text(max_size=67))
def test_encode__any_text_keeps_its_length_and_the_rest_is_n(text):
    encoded = sequence.encode(text)
    assert encoded.dtype == np.uint8
    expected = ["ACGT".find(c.upper()) % 5 if c.upper() in "ACGT" and c.isascii() else 4 for c in text]
    assert encoded.tolist() == expected


@given(codes)
def test_one_hot__from_one_hot_is_its_inverse(x):
    X = sequence.one_hot(x)
    assert X.shape == (4, len(x))
    assert X.dtype == np.int8
    assert (X.sum(axis=0) == (x < 4)).all()
    np.testing.assert_array_equal(sequence.from_one_hot(X), x)


@given(hnp.arrays(np.uint8, (3, 37), elements=st.integers(0, 4)))
def test_one_hot_tensor__equals_the_array_version(x):
    X = sequence.one_hot_tensor(torch.from_numpy(x))
    assert X.dtype == torch.float32
    np.testing.assert_array_equal(X.numpy(), sequence.one_hot(x))


@given(codes)
def test_reverse_complement__twice_is_the_same(x):
    np.testing.assert_array_equal(
        sequence.reverse_complement_codes(sequence.reverse_complement_codes(x)), x)
    X = torch.from_numpy(sequence.one_hot(x))
    assert torch.equal(sequence.reverse_complement(sequence.reverse_complement(X)), X)


@given(letters)
def test_reverse_complement__pairs_the_bases_on_codes_and_on_one_hot(text):
    pair = dict(zip("ACGTN", "TGCAN", strict=True))
    expected = "".join(pair[c] for c in reversed(text))
    x = sequence.encode(text)
    assert sequence.decode(sequence.reverse_complement_codes(x)) == expected
    X = sequence.reverse_complement(torch.from_numpy(sequence.one_hot(x))).numpy()
    assert sequence.decode(sequence.from_one_hot(X)) == expected


@given(hnp.arrays(np.uint8, (3, 31), elements=st.integers(0, 4)), st.integers(1, 3))
def test_kmer_counts__equals_counting_by_hand(x, k):
    words = ["".join(word) for word in product("ACGT", repeat=k)]
    counts = sequence.kmer_counts(x, k)
    for row, got in zip(x, counts, strict=True):
        text = sequence.decode(row)
        seen = Counter(text[i:i + k] for i in range(len(text) - k + 1))
        assert got.tolist() == [seen[word] for word in words]


def test_kmer_counts__sequence_shorter_than_k_counts_nothing():
    assert sequence.kmer_counts(np.zeros((3, 2), np.uint8), 5).sum() == 0


@pytest.mark.parametrize("k", [0, 9])
def test_kmer_counts__refuses_k_out_of_range(k):
    with pytest.raises(ValueError, match=r"1\.\.8"):
        sequence.kmer_counts(np.zeros((3, 31), np.uint8), k)


@given(codes, st.integers(0, 2**32))
def test_dinucleotide_shuffle__keeps_pairs_and_ends(x, seed):
    before = Counter(zip(x[:-1].tolist(), x[1:].tolist(), strict=True))
    shuffled = sequence.dinucleotide_shuffle(x, 3, seed=seed)
    assert shuffled.shape == (3, len(x))
    assert shuffled.dtype == np.uint8
    for y in shuffled:
        assert (y[0], y[-1]) == (x[0], x[-1])
        assert Counter(zip(y[:-1].tolist(), y[1:].tolist(), strict=True)) == before


def test_dinucleotide_shuffle__draws_every_arrangement_equally():
    x = sequence.encode("ACAGATCA")
    pairs = Counter(zip(x[:-1].tolist(), x[1:].tolist(), strict=True))
    # All paths with these pairs and these ends, found by brute force over the arrangements of the middle.
    paths = {path for path in product(range(4), repeat=len(x) - 2)
             if Counter(zip((x[0], *path), (*path, x[-1]), strict=True)) == pairs}
    n = 400 * len(paths)
    drawn = Counter(tuple(y[1:-1].tolist()) for y in sequence.dinucleotide_shuffle(x, n, seed=5))
    assert set(drawn) == paths
    chi2 = sum((drawn[path] - 400) ** 2 / 400 for path in paths)
    freedom = len(paths) - 1
    assert chi2 < freedom + 5 * (2 * freedom) ** 0.5


def test_dinucleotide_shuffle__seed_decides():
    x = np.random.default_rng(3).integers(0, 4, 211).astype(np.uint8)
    one, same, other = (sequence.dinucleotide_shuffle(x, 2, seed=seed) for seed in (7, 7, 11))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert (one[0] != x).any()


@pytest.mark.timeout(60)
def test_dinucleotide_shuffle__long_repeat_is_as_fast_as_any_sequence():
    # Redrawing until the exits form a tree would here take some 2.5 billion draws.
    x = sequence.encode("AT" * 50_000 + "N" * 50_000 + "C")
    y = sequence.dinucleotide_shuffle(x, 1, seed=0)[0]
    assert (y[-1], len(y)) == (1, len(x))
    np.testing.assert_array_equal(np.bincount(x), np.bincount(y))


def test_check_codes__names_dtype_count_and_first():
    with pytest.raises(SchemaError, match="int64"):
        sequence.check_codes(np.array([0, 1]))
    with pytest.raises(SchemaError, match=r"2 of 5 codes .* first: 65"):
        sequence.check_codes(np.array([0, 65, 4, 67, 1], np.uint8))
    sequence.check_codes(np.array([0, 4], np.uint8))
