"""Groups against a slow twin, what must stay together, and what must not chain."""

from time import process_time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciscribe.data.similarity import folds_by, grouped_folds, kmer_sets, similarity_groups
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.sequence import decode, encode, reverse_complement_codes
from reference.similarity import flood, kmer_set, linked


def random_codes(rng, *shape):
    return rng.integers(0, 4, shape, dtype=np.uint8)


def pad(sequences):
    width = max(map(len, sequences))
    return np.stack([encode(s.center(width, "N")) for s in sequences])


@given(st.lists(st.text("ACGTN", max_size=29), min_size=1, max_size=13), st.integers(1, 5), st.booleans(),
       st.sampled_from([0.15, 0.5, 1.0]), st.sampled_from([0.2, 0.5, 1.0]))
def test_similarity_groups__are_those_of_the_slow_twin(sequences, k, both_strands, threshold, ubiquitous):
    codes = pad([*sequences, "ACGTTGCATT"])
    padded = [decode(row) for row in codes]
    groups = similarity_groups(codes, k=k, threshold=threshold, both_strands=both_strands, ubiquitous=ubiquitous)
    assert groups.tolist() == flood(len(padded), linked(padded, k, threshold, both_strands, ubiquitous))


@given(st.lists(st.text("ACGTN", max_size=41), min_size=1, max_size=5), st.integers(1, 31), st.booleans())
def test_kmer_sets__hold_each_kmer_once(sequences, k, both_strands):
    codes = pad([*sequences, "A" * 37])
    values, bounds = kmer_sets(codes, k, both_strands)
    for i, row in enumerate(codes):
        words = kmer_set(decode(row), k, both_strands)
        numbers = [int("".join(str("ACGT".index(letter)) for letter in word), 4) for word in words]
        assert values[bounds[i]:bounds[i + 1]].tolist() == sorted(numbers)


@pytest.mark.parametrize("length", [50, 110, 170])
def test_similarity_groups__keep_relatives_together_and_strangers_apart(length):
    rng = np.random.default_rng(7)
    left, right = random_codes(rng, 17), random_codes(rng, 13)
    genome = random_codes(rng, 101 * length)
    parents = genome.reshape(101, length)
    tiled = np.arange(0, 89, 11)
    tiles = np.stack([genome[i * length + length // 2:][:length] for i in tiled])  # half of two parents each
    variants = parents[:97].copy()
    variants[np.arange(97), rng.integers(0, length, 97)] = random_codes(rng, 97)
    diverged = np.where(rng.random(parents.shape) < 0.08, (parents + 1) % 4, parents)[:61]
    turned = reverse_complement_codes(parents[:31])
    parts = [parents, variants, turned, tiles, diverged]
    codes = np.concatenate([np.concatenate([np.tile(left, (len(p), 1)), p, np.tile(right, (len(p), 1))], axis=1)
                            for p in parts])
    groups = similarity_groups(codes)
    at = np.cumsum([0, *map(len, parts)])
    assert len(np.unique(groups[:101])) == 101 - len(tiled)
    assert (groups[at[3]:at[4]] == groups[tiled]).all()
    assert (groups[tiled] == groups[tiled + 1]).all()
    assert (groups[at[1]:at[2]] == groups[:97]).all()
    assert (groups[at[2]:at[3]] == groups[:31]).all()
    assert (groups[at[4]:at[5]] == groups[:61]).mean() > 0.9
    strand = similarity_groups(codes, both_strands=False)
    assert not np.isin(strand[at[2]:at[3]], strand[:101]).any()


def test_similarity_groups__do_not_chain_random_sequences_with_constant_flanks():
    rng = np.random.default_rng(3)
    codes = random_codes(rng, 1999, 110)
    codes[:, :17], codes[:, -13:] = random_codes(rng, 17), random_codes(rng, 13)
    codes[::7, 0] = 4  # not all of them are whole
    sizes = np.bincount(similarity_groups(codes))
    assert sizes.max() <= 2
    assert len(sizes) > 1990
    low = random_codes(rng, 499, 110)
    low[:, 40:60] = 0  # a run of A in all
    assert len(np.unique(similarity_groups(low))) == 499


def test_similarity_groups__take_a_saturation_mutagenesis_as_one_group():
    rng = np.random.default_rng(5)
    wild = np.tile(random_codes(rng, 1, 83), (83, 1))
    wild[np.arange(83), np.arange(83)] = (wild[np.arange(83), np.arange(83)] + 1) % 4
    assert similarity_groups(wild).max() == 0
    two = np.concatenate([wild, random_codes(rng, 7, 83)])
    assert len(np.unique(similarity_groups(two))) == 8


def test_similarity_groups__of_sequences_too_short_for_a_kmer_join_copies():
    codes = np.stack([encode(s) for s in ("ACGTN", "ACGTN", "ACGTA", "NNNNN")])
    assert similarity_groups(codes).tolist() == [0, 0, 1, 2]
    assert similarity_groups(codes[:0]).tolist() == []


@pytest.mark.parametrize(("options", "message"), [({"threshold": 0}, "share above 0"), ({"threshold": 1.1}, "got 1.1$"),
                                                  ({"k": 32}, "k must lie in .*; got 32")])
def test_similarity_groups__refuse_impossible_options(options, message):
    with pytest.raises(ConfigError, match=message):
        similarity_groups(np.zeros((2, 37), np.uint8), **options)


def test_similarity_groups__refuse_letters():
    with pytest.raises(SchemaError, match="use encode"):
        similarity_groups(np.full((2, 37), 65, np.uint8))


@given(st.lists(st.integers(0, 23), min_size=5, max_size=199), st.integers(2, 5), st.integers(0, 3))
def test_grouped_folds__are_whole_and_even(groups, n_folds, seed):
    groups = np.array(groups)
    sizes = np.unique(groups, return_counts=True)[1]
    if len(sizes) < n_folds or sizes.max() > len(groups) / 2:
        with pytest.raises(ConfigError):
            grouped_folds(groups, n_folds, seed=seed)
        return
    folds = grouped_folds(groups, n_folds, seed=seed)
    assert folds.dtype == np.int8
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    n = np.bincount(folds, minlength=n_folds)
    assert len(n) == n_folds
    assert n.max() - len(groups) / n_folds <= sizes.max()
    assert (folds == grouped_folds(groups, n_folds, seed=seed)).all()


def test_grouped_folds__seed_changes_the_folds():
    groups = np.arange(101)
    assert (grouped_folds(groups, 5, seed=0) != grouped_folds(groups, 5, seed=1)).any()


def test_grouped_folds__stratify_evens_out_the_targets():
    rng = np.random.default_rng(11)
    groups = rng.integers(0, 307, 1009)
    y = np.stack([rng.normal(size=1009), rng.exponential(size=1009)], axis=1)
    y[::13, 1] = np.nan

    def spread(folds):
        means = [np.nanmean(y[folds == f], axis=0) for f in range(5)]
        return np.std(means, axis=0) / np.nanstd(y, axis=0)

    plain = np.mean([spread(grouped_folds(groups, 5, seed=s)) for s in range(7)], axis=0)
    even = np.mean([spread(grouped_folds(groups, 5, seed=s, stratify=y)) for s in range(7)], axis=0)
    assert (even < 0.5 * plain).all()
    assert np.ptp(np.bincount(grouped_folds(groups, 5, stratify=y[:, 0]))) <= 5


def test_grouped_folds__say_why_there_are_none():
    with pytest.raises(ConfigError, match="5 folds need at least 5 groups; 7 rows fall into 3 groups"):
        grouped_folds(np.array([0, 0, 0, 1, 1, 2, 2]), 5)
    with pytest.raises(ConfigError, match="largest of 3 groups holds 5 of 7 rows"):
        grouped_folds(np.array([0, 0, 0, 0, 0, 1, 2]), 3)
    with pytest.raises(ConfigError, match=r"n_folds lies in .*; got 1"):
        grouped_folds(np.arange(7), 1)


def test_folds_by__keep_a_gene_in_one_fold():
    genes = pd.Series(["b", "a", "b", "c", "d", "a", "e"], name="gene")
    folds = folds_by(genes, 3)
    assert folds[0] == folds[2]
    assert folds[1] == folds[5]
    assert len(set(folds)) == 3
    with pytest.raises(SchemaError, match=r"2 of 7 rows have no gene, .* first: row 3"):
        folds_by(genes.where(~genes.isin(["c", "d"])), 2)


def test_similarity_groups__take_seconds_for_a_library():
    codes = random_codes(np.random.default_rng(0), 15_013, 151)
    similarity_groups(codes[:7])  # compile
    start = process_time()
    similarity_groups(codes)
    assert process_time() - start < 6


@pytest.mark.realdata
def test_similarity_groups__of_yeast_natives_never_split_a_gene(data_dir):
    table = pd.read_csv(data_dir / "mpra" / "yeast" / "Native_testdata_defined_media.csv.gz")
    groups = similarity_groups(np.stack([encode(s) for s in table["seq110"]]))
    of_gene = pd.Series(groups).groupby(table["baseSeq"])
    assert (of_gene.min() == of_gene.max()).all()
    assert np.bincount(groups).max() < 0.02 * len(groups)
