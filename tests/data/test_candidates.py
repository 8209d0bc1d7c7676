import numpy as np
import pandas as pd
import pytest
import torch

import small_world as small
from ciscribe.data.candidates import CandidateSpec, CandidateStore
from ciscribe.data.windows import WindowSpec
from ciscribe.errors import SchemaError
from ciscribe.sequence import N

SPEC = CandidateSpec(n=4, length=23, max_distance=900, min_distance=60)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small.build(tmp_path_factory.mktemp("candidates"), WindowSpec(64, 16))


@pytest.fixture(scope="module")
def elements():
    rng = np.random.default_rng(3)
    rows = [(c, int(s), int(s) + 31) for c, size in small.SIZES.items()
            for s in rng.integers(0, size - 31, size // 130)]
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


@pytest.fixture(scope="module")
def genes(store, elements):
    return CandidateStore(store, elements, SPEC)


def by_hand(store, elements, row, spec=SPEC):
    """Middles of the candidates of a gene, best first, by the definition."""
    gene = store.genes.iloc[row]
    middle = np.unique((elements["start"] + elements["end"])[elements["chrom"] == gene["chrom"]].to_numpy() // 2)
    distance = np.abs(middle - gene["tss"])
    near = middle[(distance >= spec.min_distance) & (distance <= spec.max_distance)]
    raw = store.cut_signals(np.full(len(near), gene["i_chrom"]), near - spec.length // 2, np.zeros(len(near), bool), 1,
                            spec.length)[..., 0]
    worth = np.exp(np.log(np.maximum(raw, 0) + 1e-3).mean(axis=1)) / np.maximum(np.abs(near - gene["tss"]), 5000)
    ranked = sorted(zip(-worth, np.abs(near - gene["tss"]), near, strict=True))
    return [int(m) for *_, m in ranked[:spec.n]]


def test_candidates__are_the_most_active_near_ones(store, elements, genes):
    for row in range(len(store)):
        got = genes.elements_of(row)
        minus = store.genes["strand"].iloc[row] == "-"
        others = got.loc[got["slot"] != SPEC.n // 2]
        middles = (store.genes["tss"].iloc[row] + others["distance"] * (-1 if minus else 1)).tolist()
        assert sorted(middles) == sorted(by_hand(store, elements, row))


def test_batch__holds_the_bases_of_the_genome_in_the_direction_of_the_gene(store, genes):
    rows = np.arange(len(store))
    X = genes.batch(rows).codes.numpy().reshape(len(rows), SPEC.n + 1, SPEC.length)
    sizes = dict(zip(store.meta["chroms"], store.meta["sizes"], strict=True))
    genome = small.make_genome()
    for row in rows.tolist():
        gene = store.genes.iloc[row]
        padded = np.full(sizes[gene["chrom"]] + 2000, N, np.uint8)
        padded[1000:-1000] = genome[gene["chrom"]]
        for slot in range(SPEC.n + 1):
            if not genes.present[row, slot]:
                assert (X[row, slot] == N).all()
                continue
            distance = genes.elements_of(row).set_index("slot")["distance"][slot]
            minus = gene["strand"] == "-"
            at = gene["tss"] + (-distance if minus else distance) + 1000 - SPEC.length // 2  # odd: the same both ways
            segment = padded[at:at + SPEC.length]
            expected = np.where(segment < 4, 3 - segment, segment)[::-1] if minus else segment
            assert X[row, slot].tolist() == expected.tolist()


def test_batch__promoter_has_the_tss_in_the_middle(store, genes):
    rows = np.arange(len(store))
    promoter = genes.batch(rows).codes.numpy().reshape(len(rows), SPEC.n + 1, SPEC.length)[:, SPEC.n // 2]
    window = store.batch(rows).codes.numpy()
    assert (promoter[:, SPEC.length // 2] == window[:, 64]).all()


def test_features__are_standardized_over_the_segments_of_training_genes(store, genes):
    rows = store.rows("train")
    S, present = genes.batch(rows).signals.numpy(), genes.present[rows]
    values = S.transpose(0, 2, 1)[present]
    assert np.allclose(values.mean(axis=0), 0, atol=1e-5)
    sd = values.std(axis=0)
    assert np.allclose(sd[sd > 0.1], 1, atol=1e-4)
    assert (S.transpose(0, 2, 1)[~present] == 0).all()
    assert genes.track_names == ["distance", *store.track_names, "contact"]


def test_cut__takes_away_what_reaches_beyond(store, genes):
    rows = np.arange(len(store))
    batch = genes.batch(rows)
    cut = genes.cut(batch, 700)
    X = cut.codes.numpy().reshape(len(rows), SPEC.n + 1, SPEC.length)
    for row in rows.tolist():
        table = genes.elements_of(row).set_index("slot")
        for slot, distance in table["distance"].items():
            away = abs(distance) + SPEC.length / 2 > 350 and slot != SPEC.n // 2
            assert bool(cut.keep[row, slot] == 0) == away
            assert (X[row, slot] == N).all() == away or (batch.codes[row] == N).all()
    narrow = genes.cut(batch, 10).codes.numpy().reshape(len(rows), SPEC.n + 1, SPEC.length)
    assert (narrow[:, SPEC.n // 2, :5] == N).all()
    assert torch.equal(batch.codes, genes.batch(rows).codes)  # what is cut is a copy


def test_batch__shift_moves_all_segments(genes):
    rows = np.array([5])
    there = genes.batch(rows, np.array([3])).codes.numpy().reshape(SPEC.n + 1, -1)
    here = genes.batch(rows).codes.numpy().reshape(SPEC.n + 1, -1)
    minus = genes.genes["strand"].iloc[5] == "-"
    for slot in np.flatnonzero(genes.present[5]):
        a, b = (there[slot, 3:], here[slot, :-3]) if minus else (there[slot, :-3], here[slot, 3:])
        assert a.tolist() == b.tolist()


@pytest.mark.parametrize(("changes", "what"), [({"n": 3}, "even"), ({"length": 1}, "2 bp"),
                                               ({"min_distance": 900}, "rise")])
def test_spec__refuses_what_cannot_be(changes, what):
    given = {"n": 4, "length": 23, "max_distance": 900, "min_distance": 60} | changes
    with pytest.raises(SchemaError, match=what):
        CandidateSpec(**given)


def test_store__without_any_candidate_says_so(store, elements):
    with pytest.raises(SchemaError, match="none of 31 genes has a candidate"):
        CandidateStore(store, elements.assign(chrom="chrZ"), SPEC)
