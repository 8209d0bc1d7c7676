"""Personal genomes against edited strings; ridge, signs and epistasis against what was planted."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ciscribe.data.world import world
from ciscribe.data.world_people import simulate_people
from ciscribe.errors import SchemaError
from ciscribe.io.genome import MemoryGenome
from ciscribe.oracle import Oracle
from ciscribe.sequence import decode, encode, from_one_hot
from ciscribe.variants.personal import (
    CARDS,
    across_people,
    epistasis,
    predict_people,
    ridge_people,
    sign_test,
)
from reference import personal as twin

HALF = 37
WORDS = ("GATA", "TGAC", "CC")


def words(letters):
    """Places of words, weighted by where they are: neither strand nor shift goes unseen."""
    return [sum((i + 1) / len(letters) for i in range(len(letters)) if letters[i:].startswith(w)) for w in WORDS]


class Words(nn.Module):
    """The same as a model, and how often it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, X, S=None):
        self.asked += len(X)
        y = torch.tensor([words(decode(codes)) for codes in from_one_hot(X.numpy())], dtype=torch.float32)
        return y if S is None else y + S.mean(dim=(1, 2))[:, None]


def genome(seed=0):
    rng = np.random.default_rng(seed)
    return {"chr1": "".join(rng.choice(list("ACGT"), 401)), "chr2": "".join(rng.choice(list("ACGT"), 211))}


def genes():
    tss = [100, 190, 7, 150]
    return pd.DataFrame({"chrom": ["chr1", "chr1", "chr1", "chr2"], "start": tss, "end": [t + 5 for t in tss],
                         "strand": ["+", "-", "-", "+"], "gene_id": list("abcd"), "gene_name": list("abcd"),
                         "tss": tss})


def phased(letters, n_people=11, seed=1):
    """Substitutions, insertions and deletions that do not touch each other or a TSS, phased at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for pos in range(11, 331, 13):
        kind = rng.integers(3)
        ref = letters["chr1"][pos:pos + (4 if kind == 2 else 1)]
        other = "ACGT"[("ACGT".index(ref[0]) + rng.integers(1, 4)) % 4]
        alt = [other, ref + "".join(rng.choice(list("ACGT"), 3)), ref[0]][kind]
        if not any(pos <= t < pos + len(ref) for t in genes()["tss"]):
            rows.append(("chr1", pos, ref, alt))
    table = pd.DataFrame(rows, columns=["chrom", "pos", "ref", "alt"])
    return table, rng.integers(0, 2, (len(table), n_people, 2)).astype(np.int8)


def memory(letters):
    return MemoryGenome({name: encode(s) for name, s in letters.items()})


def oracle():
    torch.set_num_threads(1)
    return Oracle(Words(), device="cpu")


@pytest.mark.parametrize("strand_aware", [True, False])
def test_predict_people__is_what_edited_strings_give(strand_aware):
    letters = genome()
    variants, alleles = phased(letters)
    kinds = variants["alt"].str.len() - variants["ref"].str.len()
    assert {-3, 0, 3} == set(kinds)
    kept = variants.copy()
    found = predict_people(oracle(), memory(letters), variants, alleles, genes(), HALF, strand_aware=strand_aware)
    np.testing.assert_allclose(found.values, twin.people(words, letters, variants, alleles, genes(), HALF,
                                                         strand_aware), rtol=1e-5, atol=1e-6)
    assert found.values.shape == (4, 11, 3)
    pd.testing.assert_frame_equal(variants, kept)


def test_predict_people__asks_once_for_what_is_the_same():
    letters = genome()
    variants, alleles = phased(letters)
    alleles = np.repeat(alleles[:, :2], 23, axis=1)
    asked = oracle()
    found = predict_people(asked, memory(letters), variants, alleles, genes(), HALF)
    assert asked.model.asked == found.n_sequences.sum()
    assert found.n_sequences.max() <= 4
    assert found.n_sequences[3] == 1  # nobody differs on chr2
    assert np.ptp(found.values[3], axis=0).max() == 0
    assert np.ptp(found.values[0], axis=0).max() > 0


def test_predict_people__signals_are_of_the_gene():
    letters = genome()
    variants, alleles = phased(letters)
    S = torch.arange(4.0)[:, None, None].expand(4, 2, 5)
    plain = predict_people(oracle(), memory(letters), variants, alleles, genes(), HALF)
    found = predict_people(oracle(), memory(letters), variants, alleles, genes(), HALF, S)
    np.testing.assert_allclose(found.values - plain.values, np.broadcast_to(np.arange(4.0)[:, None, None], (4, 11, 3)),
                               atol=1e-5)


class Law(nn.Module):
    """The world's law as a model."""

    def __init__(self, law, tss):
        super().__init__()
        self.law, self.tss = law, tss

    def forward(self, X):
        return torch.from_numpy(self.law(from_one_hot(X.numpy()), self.tss)).float()


def test_personal__the_law_predicts_simulated_people_and_ridge_learns_from_them():
    seen = world(n_genes=12, n_chroms=2, seed=1)
    some = ["gene0002", "gene0005"]
    people = simulate_people(seen, 61, genes=some, n_causal=3, n_neutral=5, heritability=0.8, seed=3)
    table = seen.genes.set_index("gene_id", drop=False).loc[some].reset_index(drop=True)
    half = seen.oracle.half_window
    found = predict_people(Oracle(Law(seen.oracle, half), device="cpu"), MemoryGenome(seen.genome), people.variants,
                           people.alleles, table, half, strand_aware=False)
    np.testing.assert_allclose(found.values[:, :, 0], people.genetic, atol=1e-6)
    perfect = across_people(people.genetic.to_numpy(), found.values[:, :, 0])
    assert perfect["pearson"].min() > 0.999
    ridge = ridge_people(people.variants, people.alleles, table, people.expression.to_numpy(), 10_000)
    assert across_people(people.genetic.to_numpy(), ridge)["pearson"].min() > 0.5


def test_ridge_people__predicts_each_person_from_others():
    rng = np.random.default_rng(5)
    alleles = rng.integers(0, 2, (19, 101, 2))
    variants = pd.DataFrame({"chrom": "chr1", "pos": np.arange(19) * 10, "ref": "A", "alt": "C"})
    noise = ridge_people(variants, alleles, genes(), rng.normal(size=(4, 101)), 1000)
    assert np.isnan(noise[3]).all()  # nothing on chr2
    y = rng.normal(size=(4, 101))
    assert np.abs(across_people(y[:3], ridge_people(variants, alleles, genes(), y, 1000)[:3])["pearson"]).max() < 0.35
    y[0] = alleles[4].sum(axis=1) - 2.0 * alleles[9].sum(axis=1) + rng.normal(0, 0.2, 101)
    assert across_people(y[:1], ridge_people(variants, alleles, genes(), y, 1000)[:1])["pearson"][0] > 0.95


def test_across_people__is_gene_by_gene():
    found = across_people(np.array([[1.0, 2, 3, 4], [1, 2, 3, 4]]), np.array([[2.0, 4, 6, 7], [5, 5, 5, 5]]))
    assert found["pearson"][0] == pytest.approx(np.corrcoef([1, 2, 3, 4], [2, 4, 6, 7])[0, 1])
    assert found["spearman"][0] == pytest.approx(1)
    assert np.isnan(found.loc[1]).all()


def test_sign_test__counts_and_has_the_exact_interval():
    measured = np.array([1.0, -1, 1, -1, 2, 0, 3, -4, 5, 6, 7])
    predicted = np.array([0.1, -2, 1, 1, 9, 4, 0.0, -1, 1, 1, 1])
    found = sign_test(measured, predicted)
    assert (found.n, found.right, found.share) == (10, 8, 0.8)
    assert found.p_value == pytest.approx((45 + 10 + 1) / 2**10)  # 8, 9 or 10 of 10
    assert found.low == pytest.approx(0.4439, abs=1e-4)  # Clopper-Pearson, from tables
    assert found.high == pytest.approx(0.9748, abs=1e-4)


class Interacting(nn.Module):
    """Three bases: two that need each other, one that adds, all in the same window."""

    def forward(self, X):
        codes = from_one_hot(X.numpy())
        a, b, c = (codes[:, at] == 3 for at in (10, 14, 20))
        return torch.tensor(np.stack([2.0 * (a & b) + 1.0 * c, a + 0.5 * b - c], axis=1), dtype=torch.float32)


def test_epistasis__is_the_joint_effect_beyond_the_sum():
    start = 100 - 15  # the window has its middle at 100
    variants = pd.DataFrame({"chrom": "chr1", "pos": [start + 10, start + 14, start + 20], "ref": "A", "alt": "T"})
    found = epistasis(Oracle(Interacting(), device="cpu"), MemoryGenome({"chr1": np.zeros(211, np.uint8)}), variants,
                      31, center=100)
    np.testing.assert_allclose(found.single, [[0, 1], [0, 0.5], [1, -1]])
    np.testing.assert_allclose(found.joint, [3, 0.5])
    np.testing.assert_allclose(found.gap, [2, 0])
    first = found.pairs.query("track == 0").set_index(["variant_a", "variant_b"])
    assert first["epistasis"].to_dict() == {(0, 1): 2.0, (0, 2): 0.0, (1, 2): 0.0}
    assert first["effect"].to_dict() == {(0, 1): 2.0, (0, 2): 1.0, (1, 2): 1.0}
    assert (found.pairs.query("track == 1")["epistasis"] == 0).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_epistasis__of_indels_is_what_edited_strings_give(reverse):
    letters = genome(3)
    at = letters["chr1"]
    rows = [(150, at[150], at[150] + "GATA"), (160, at[160:164], at[160]),
            (171, at[171], "ACGT"["CGTA".index(at[171])])]
    variants = pd.DataFrame(rows, columns=["pos", "ref", "alt"]).assign(chrom="chr1")
    found = epistasis(oracle(), memory(letters), variants, 2 * HALF, center=155, reverse=reverse)

    def f(*some):
        return np.array(words(twin.window(at, [rows[i] for i in some], 155, HALF, reverse)))

    np.testing.assert_allclose(found.joint, f(0, 1, 2) - f(), atol=1e-5)
    np.testing.assert_allclose(found.single, [f(i) - f() for i in range(3)], atol=1e-5)
    pair = found.pairs.query("variant_a == 0 and variant_b == 2")
    np.testing.assert_allclose(pair["epistasis"], f(0, 2) - f(0) - f(2) + f(), atol=1e-5)


def test_personal__bad_input():
    letters = genome()
    variants, alleles = phased(letters)
    ask, where = oracle(), memory(letters)
    missing = alleles.copy()
    missing[4, 7, 1] = -1
    with pytest.raises(SchemaError, match=r"1 of .* neither 0 nor 1; first: \[\d, -1\] of person #7, variant #4"):
        predict_people(ask, where, variants, missing, genes(), HALF)
    with pytest.raises(SchemaError, match=r"\(variants, people, 2\), with 2 variants"):
        predict_people(ask, where, variants[:2], alleles, genes(), HALF)
    with pytest.raises(SchemaError, match="reference allele"):
        predict_people(ask, where, variants.assign(pos=variants["pos"] + 1), alleles, genes(), HALF)
    with pytest.raises(SchemaError, match=r"S has one row a gene \(4\); got 3"):
        predict_people(ask, where, variants, alleles, genes(), HALF, torch.zeros(3, 1, 2))
    with pytest.raises(SchemaError, match=r"expression is .*\(4, 11\).*got \(3, 11\)"):
        ridge_people(variants, alleles, genes(), np.zeros((3, 11)), 100)
    with pytest.raises(SchemaError, match=r"got \(2, 3\) and \(2, 4\)"):
        across_people(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(SchemaError, match="none of 3 effects has a direction"):
        sign_test(np.zeros(3), np.ones(3))
    with pytest.raises(SchemaError, match="0 and 1 missing"):
        sign_test(np.ones(2), np.array([1.0, np.nan]))
    with pytest.raises(SchemaError, match="two or more variants of one chromosome; got 1 of chr1"):
        epistasis(ask, where, variants[:1], 50)
    with pytest.raises(SchemaError, match=r"1 of 2 variants are not in the window chr1:.*; first: chr1:11 "):
        epistasis(ask, where, variants.iloc[[0, 5]], 40, center=int(variants["pos"][5]))


def test_cards__are_of_variants_and_a_baseline():
    assert {name: card.kind for name, card in CARDS.items()} == {
        "personal_genomes": "variants", "sign_test": "variants", "ridge_people": "baseline", "epistasis": "variants"}
