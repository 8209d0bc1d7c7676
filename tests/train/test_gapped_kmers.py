"""Gapped k-mers against a dictionary of words, both strands, planted words, pairs of alleles."""

import numpy as np
import pytest

from ciscribe.errors import ConfigError, SchemaError
from ciscribe.io.variant_assays import read_allele_pairs
from ciscribe.sequence import decode, encode, reverse_complement_codes
from ciscribe.train.gapped_kmers import GappedKmerModel, gapped_kmer_matrix
from ciscribe.train.labels import auroc
from reference import motif_effects as slow


def codes_of(n=7, length=29, seed=0):
    codes = np.random.default_rng(seed).integers(0, 4, (n, length), dtype=np.uint8)
    codes[1, 13] = 4
    return codes


@pytest.mark.parametrize(("length", "k"), [(5, 3), (7, 4), (4, 4), (6, 2)])
def test_gapped_kmer_matrix__counts_what_the_dictionary_counts(length, k):
    codes = codes_of()
    found = gapped_kmer_matrix(codes, length, k)
    words = [slow.gapped_words(decode(row), length, k) for row in codes]
    # Numbers of words are ours alone; the inner products of sequences are not.
    kernel = [[sum(v * b.get(w, 0) for w, v in a.items()) for b in words] for a in words]
    np.testing.assert_allclose((found @ found.T).toarray(), kernel, atol=1e-5)
    assert np.diff(found.indptr).tolist() == [len(w) for w in words]
    turned = gapped_kmer_matrix(reverse_complement_codes(codes), length, k)
    np.testing.assert_array_equal(found.toarray(), turned.toarray())


def test_gapped_kmer_matrix__of_sequences_without_words():
    codes = np.concatenate([np.full((1, 11), 4, np.uint8), codes_of()[:1, :11]])
    found = gapped_kmer_matrix(codes, 6, 4)
    assert found[0].nnz == 0
    assert gapped_kmer_matrix(codes[:, :3], 6, 4).nnz == 0
    assert np.isfinite(found.data).all()


def planted(n=601, seed=0, word="GATA-AG"):
    """Half of the sequences hold a word with a gap, on either strand."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (n, 61), dtype=np.uint8)
    y = rng.random(n) < 0.5
    for i in np.flatnonzero(y):
        at = int(rng.integers(0, 61 - len(word)))
        site = np.array([encode(c)[0] if c != "-" else rng.integers(0, 4) for c in word], np.uint8)
        codes[i, at:at + len(word)] = site if rng.random() < 0.5 else reverse_complement_codes(site)
    return codes, y


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
def test_fit__learns_a_word_with_a_gap(loss):
    codes, y = planted()
    model = GappedKmerModel.fit(codes[:401], y[:401], length=7, k=5, loss=loss, C=10)
    scores = model.predict(codes[401:])
    assert auroc(y[401:], scores) > 0.85
    np.testing.assert_allclose(scores, model.predict(reverse_complement_codes(codes[401:])), atol=1e-6)
    again = GappedKmerModel.fit(codes[:401], y[:401], length=7, k=5, loss=loss, C=10)
    np.testing.assert_array_equal(model.weights, again.weights)
    background = encode("CTTCACCGTTCAATGCTATTC")
    site = background.copy()
    site[7:14] = encode("GATACAG")
    broken = site.copy()
    broken[9] = encode("C")[0]
    low, high = model.predict(np.stack([broken, site]))
    assert high > low


def test_fit_pairs__learns_the_direction_and_is_antisymmetric():
    codes, _ = planted(307, seed=1)
    high = codes.copy()
    high[:, 20:26] = encode("CACGTG")
    low = high.copy()
    low[:, 22] = encode("T")[0]
    model = GappedKmerModel.fit_pairs(high[:211], low[:211], length=6, k=5)
    turned = GappedKmerModel.fit_pairs(low[:211], high[:211], length=6, k=5)
    assert model.intercept == 0
    assert (model.predict(high[211:]) > model.predict(low[211:])).all()
    assert (turned.predict(high[211:]) < turned.predict(low[211:])).all()
    assert not len(model.predict(high[:0]))


@pytest.mark.parametrize(("error", "message", "options"), [
    (SchemaError, "need as many labels", {"y": np.ones(7)}),
    (SchemaError, "need as many labels", {"y": np.array([0, 1])}),
    (SchemaError, "need as many labels", {"y": np.array([0, 1, 2, 0, 1, 2, 0])}),
    (SchemaError, "codes are uint8", {"codes": codes_of().astype(int)}),
    (ConfigError, "k=6, length=5", {"length": 5, "k": 6}),
    (ConfigError, "within at most 12 bp", {"length": 13, "k": 6}),
])
def test_fit__of_bad_input(error, message, options):
    options = {"codes": codes_of(), "y": np.array([0, 1, 0, 1, 0, 1, 1])} | options
    with pytest.raises(error, match=message):
        GappedKmerModel.fit(**options)


def test_fit_pairs__of_bad_input():
    with pytest.raises(SchemaError, match="arrays of one shape"):
        GappedKmerModel.fit_pairs(codes_of(), codes_of(5))


@pytest.mark.realdata
def test_fit_pairs__tells_the_more_open_allele(data_dir):
    folder = data_dir / "variants/dsqtl"
    pairs = read_allele_pairs(folder / "dsQTL_high.fa.gz", folder / "dsQTL_low.fa.gz", folder / "dsQTL.vcf.gz")
    held = pairs.table["chrom"].isin(["chr1", "chr19", "chr2"]).to_numpy()
    high, low = (np.ascontiguousarray(codes[:, 37:62]) for codes in (pairs.high, pairs.low))
    model = GappedKmerModel.fit_pairs(high[~held], low[~held], length=7, k=6, C=0.01, loss="logistic")
    assert (model.predict(high[held]) > model.predict(low[held])).mean() > 0.55
