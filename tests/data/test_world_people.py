"""Simulated people: alleles fit the genome, expression is the law's, neighbours are in LD, noise is as asked."""

import numpy as np
import pandas as pd
import pytest

from ciscribe.data.world import world
from ciscribe.data.world_people import simulate_people
from ciscribe.errors import UnknownNameError
from ciscribe.schema import check_variants
from ciscribe.sequence import BASES

GENES = ["gene0002", "gene0003", "gene0009"]
N_PEOPLE = 53


@pytest.fixture(scope="module")
def seen():
    return world(n_genes=14, n_chroms=2, seed=1)


@pytest.fixture(scope="module")
def people(seen):
    return simulate_people(seen, N_PEOPLE, cell="blood", genes=GENES, n_causal=4, n_neutral=17, seed=5)


def carrying(seen, gene, variants, carried):
    """The whole window of a gene, each variant written in by itself."""
    codes, tss = seen.windows([gene], half=seen.oracle.half_window)
    row = seen.genes.set_index("gene_id").loc[gene]
    for variant, here in zip(variants.to_dict("records"), carried, strict=True):
        at = variant["pos"] - row["tss"] + tss
        if here and variant["chrom"] == row["chrom"] and 0 <= at < codes.shape[1]:
            codes[0, at] = BASES.index(variant["alt"])
    return seen.oracle(codes, tss)[0, seen.cells.index("blood")]


def test_people__alleles_fit_the_genome_and_vary(seen, people):
    v = people.variants
    check_variants(v)
    assert [BASES[seen.genome[c][p]] for c, p in zip(v["chrom"], v["pos"], strict=True)] == v["ref"].tolist()
    assert (v["ref"] != v["alt"]).all()
    assert not v.duplicated(["chrom", "pos"]).any()
    assert people.alleles.shape == (len(v), N_PEOPLE, 2)
    assert people.alleles.dtype == np.int8
    share = people.alleles.mean(axis=(1, 2))
    assert 0 < share.min() < share.max() < 1
    assert people.expression.shape == people.genetic.shape == (3, N_PEOPLE)
    assert people.expression.index.tolist() == GENES
    for _, rows in v.groupby("chrom"):
        assert rows["pos"].is_monotonic_increasing


def test_people__express_what_the_law_says_of_their_sequences(seen, people):
    for gene in GENES:
        for person in (0, 7, 52):
            both = [carrying(seen, gene, people.variants, people.alleles[:, person, h]) for h in (0, 1)]
            assert people.genetic.loc[gene].iloc[person] == pytest.approx(np.mean(both), abs=1e-9)


def test_people__effects_are_alternative_minus_reference_of_each_variant_alone(seen, people):
    nobody = np.zeros(len(people.variants), dtype=bool)
    without = {gene: carrying(seen, gene, people.variants, nobody) for gene in GENES}
    for i, variant in people.variants.iloc[::2].iterrows():
        alone = np.arange(len(people.variants)) == i
        effect = carrying(seen, variant["gene_id"], people.variants, alone) - without[variant["gene_id"]]
        assert variant["effect"] == pytest.approx(effect, abs=1e-8)
        assert variant["kind"] == ("causal" if variant["effect"] else "neutral")
    causal = people.variants["kind"] == "causal"
    assert causal.sum() >= 5
    assert (people.variants["element"] == ".")[~causal].any()
    assert (people.variants["element"] != ".")[causal].mean() > 0.8


def test_people__neighbours_are_in_ld_and_strangers_are_not(seen):
    many = simulate_people(seen, 401, genes=GENES, n_neutral=31, block=8_000, seed=2)
    flat = many.alleles.reshape(len(many.alleles), -1).astype(float)
    r2 = np.corrcoef(flat) ** 2
    pos, chrom = many.variants["pos"].to_numpy(), many.variants["chrom"].to_numpy()
    apart = np.abs(pos[:, None] - pos)
    same = chrom[:, None] == chrom
    pair = ~np.eye(len(pos), dtype=bool)
    near, far = r2[same & pair & (apart < 500)].mean(), r2[same & (apart > 20_000)].mean()
    assert near > 3 * far
    assert r2[~same].mean() < 0.01


def test_people__heritability_is_as_asked(seen):
    many = simulate_people(seen, 997, genes=GENES, heritability=0.3, seed=4)
    share = many.genetic.var(axis=1) / many.expression.var(axis=1)
    np.testing.assert_allclose(share, 0.3, atol=0.05)
    sure = simulate_people(seen, 23, genes=GENES, heritability=1.0, seed=4)
    pd.testing.assert_frame_equal(sure.expression, sure.genetic)


def test_people__a_gene_without_effects_has_noise_alone(seen):
    still = simulate_people(seen, 499, genes=GENES, n_causal=0, n_neutral=0, noise=0.2)
    assert not len(still.variants)
    np.testing.assert_allclose(still.genetic, np.broadcast_to(
        seen.expression_clean.loc[GENES, "liver"].to_numpy()[:, None], (3, 499)))
    np.testing.assert_allclose((still.expression - still.genetic).std(axis=1), 0.2, rtol=0.1)


def test_people__the_same_seed_gives_the_same_people(seen, people):
    again = simulate_people(seen, N_PEOPLE, cell="blood", genes=GENES, n_causal=4, n_neutral=17, seed=5)
    pd.testing.assert_frame_equal(again.variants, people.variants)
    np.testing.assert_array_equal(again.alleles, people.alleles)
    pd.testing.assert_frame_equal(again.expression, people.expression)
    other = simulate_people(seen, N_PEOPLE, cell="blood", genes=GENES, n_causal=4, n_neutral=17, seed=6)
    assert not other.variants["pos"].equals(people.variants["pos"])


def test_people__bad_input(seen):
    with pytest.raises(UnknownNameError, match="no cell type 'live'; did you mean 'liver'"):
        simulate_people(seen, cell="live")
    with pytest.raises(UnknownNameError, match="no gene 'gene9999'"):
        simulate_people(seen, genes=["gene9999"])
    for change in ({"n_people": 1}, {"n_founders": 1}, {"heritability": 0.0}, {"heritability": 1.1}):
        with pytest.raises(ValueError, match="people need"):
            simulate_people(seen, **({"n_people": 5} | change))
