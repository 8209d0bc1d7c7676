"""Nulls of variant scores: shuffled surroundings, p-values and percentiles by counting, matched random variants."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError
from ciscribe.io.genome import MemoryGenome
from ciscribe.oracle import Oracle
from ciscribe.schema import check_effects, check_variants
from ciscribe.sequence import decode, encode, kmer_counts
from ciscribe.variants import null
from ciscribe.variants.alleles import check_reference
from ciscribe.variants.null import matched_variants, p_values, percentiles, shuffled_null
from ciscribe.variants.score import score_variants
from reference.perturb import A, Grammar, replaced

SIZE, LENGTH = 60_013, 89
RNG = np.random.default_rng(2)
GC = 0.5 + 0.25 * np.sin(np.arange(SIZE) / 900)  # islands
LETTERS = "".join(np.where(RNG.random(SIZE) < GC, RNG.choice(list("CG"), SIZE), RNG.choice(list("AT"), SIZE)))
for _site in range(500, SIZE, 1499):
    LETTERS = replaced(LETTERS, _site, A)
GENOME = MemoryGenome({"chr1": encode(LETTERS), "chr2": encode(LETTERS[:700])})
TSS = pd.DataFrame({"chrom": "chr1", "tss": [7000, 30_000, 51_000]})


class Keeps(nn.Module):
    """Keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, X):
        codes = np.where(X.numpy().any(1), X.numpy().argmax(1), 4).astype(np.uint8)
        self.seen += [decode(c) for c in codes]
        return X.sum((1, 2))[:, None]


def oracle(model=None):
    torch.set_num_threads(1)
    return Oracle(model or Grammar(), device="cpu")


def variants_at(pos, width=1, alt=None):
    pos = np.asarray(pos)
    ref = [LETTERS[p:p + width] for p in pos]
    alt = [alt or "ACGT"[("ACGT".index(r[0]) + 1) % 4] for r in ref]
    return pd.DataFrame({"chrom": "chr1", "pos": pos, "ref": ref, "alt": alt})


@pytest.mark.parametrize(("width", "alt"), [(1, "T"), (1, "GATTA"), (4, "C")])
def test_shuffled_null__alleles_stand_in_shuffles_of_their_surroundings(width, alt):
    pos = 2001 if LETTERS[2001] != alt else 2002
    variants = variants_at([pos], width, alt)
    model = Keeps()
    table = shuffled_null(oracle(model), GENOME, variants, length=LENGTH, n=5, both_strands=False)
    check_effects(table.drop(columns="shuffle").drop_duplicates(["chrom", "pos"]))
    assert table["shuffle"].tolist() == [0, 1, 2, 3, 4]
    assert (table["pos"] == pos).all()
    at, ref = LENGTH // 2 - (width - 1) // 2, variants["ref"][0]
    shown = set(model.seen)
    refs = {s for s in shown if s[at:at + width] == ref}
    grown = len(alt) - width
    alts = {s for s in shown if s[at:at + len(alt)] == alt or s[at - grown:at - grown + len(alt)] == alt}
    assert len(refs) >= 5
    assert refs | alts == shown
    real = LETTERS[pos - at:pos - at + LENGTH]
    assert all(sum(a == b for a, b in zip(s, real, strict=True)) < LENGTH * 0.7 for s in shown)
    if len(alt) == width:  # nothing but the allele differs between the two
        assert all(any(r[:at] + alt + r[at + width:] == s for r in refs) for s in alts)
        # the dinucleotides are those of the real sequence but for those at the allele
        change = kmer_counts(np.stack([encode(s) for s in refs]), 2) - kmer_counts(encode(real)[None], 2)
        assert np.abs(change).sum(axis=1).max() <= 8


def test_shuffled_null__is_repeatable_and_seeded():
    variants = variants_at([500, 1003, 2005])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 3, 7), nn.ReLU(), nn.Flatten(), nn.Linear(3 * (LENGTH - 6), 2))
    a, b, c = (shuffled_null(oracle(model), GENOME, variants, length=LENGTH, n=3, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(a, b)
    assert not a["diff"].equals(c["diff"])


def test_p_values__planted_sites_stand_out_of_the_null():
    sites = np.arange(500, SIZE - 200, 1499)
    inside, outside = variants_at(sites + 1), variants_at(sites + 40)
    variants = pd.concat([inside, outside], ignore_index=True)
    effects = score_variants(oracle(), GENOME, variants, length=LENGTH)
    chance = shuffled_null(oracle(), GENOME, variants, length=LENGTH, n=5)
    p = p_values(effects, chance)
    first = p[p["track"] == 0]["diff_p"].to_numpy()
    assert (first[:len(sites)] < 0.05).mean() > 0.9
    assert (first[len(sites):] < 0.05).mean() < 0.15
    assert "diff_p" not in effects


def effects_of(values, track=0, **more):
    n = len(values)
    return pd.DataFrame({"chrom": "c", "pos": np.arange(n), "ref": "A", "alt": "C", "name": ".", "track": track,
                         "gene_id": ".", "diff": np.asarray(values, float), **more})


def test_p_values_and_percentiles__by_counting():
    effects = pd.concat([effects_of([3.0, -1.0, 0.0, -9.0, np.nan]), effects_of([2.0], track=1)], ignore_index=True)
    chance = pd.concat([effects_of([0.0, 1.0, -1.0, 2.0, -4.0, 0.5, 3.0]), effects_of([5.0, -7.0], track=1)])
    p = p_values(effects, chance)["diff_p"]
    np.testing.assert_allclose(p, [3 / 8, 6 / 8, 1.0, 1 / 8, np.nan, 1.0])
    share = percentiles(effects, chance)["diff_percentile"]
    np.testing.assert_allclose(share, [100 * 5.5 / 7, 100 * 3 / 7, 100 * 0.5 / 7, 100.0, np.nan, 0.0])


@pytest.mark.parametrize(("effects", "chance", "scores", "fault"), [
    (effects_of([1.0]), effects_of([1.0], track=1), None, "1 tracks have no null; first: 0"),
    (effects_of([1.0]), effects_of([1.0]), ["dif"], "effects have no score 'dif'; did you mean 'diff'"),
    (effects_of([1.0], jsd=1.0), effects_of([1.0]), ["jsd"], "the null have no score 'jsd'"),
    (effects_of([1.0]).rename(columns={"diff": "l2"}), effects_of([1.0]), None, "share no score"),
])
def test_p_values__refuse(effects, chance, scores, fault):
    with pytest.raises(SchemaError, match=fault):
        p_values(effects, chance, scores)


def test_matched_variants__have_the_same_alleles_gc_and_distance():
    rng = np.random.default_rng(4)
    snvs = variants_at(rng.choice(np.arange(600, SIZE - 600), 41, replace=False))
    longer = pd.concat([variants_at([9001, 20_011], 3, "C"), variants_at([12_007], 1, "ACC"),
                        variants_at([33_003], 2, "GT")])
    variants = pd.concat([snvs, longer], ignore_index=True)
    kept = variants.copy()
    made = matched_variants(variants, GENOME, 5, seed=3, genes=TSS, gc_width=200, n_gc_classes=5)
    pd.testing.assert_frame_equal(variants, kept)
    check_variants(made)
    check_reference(made, GENOME)
    assert made["match"].tolist() == np.repeat(np.arange(len(variants)), 5).tolist()
    assert not made.duplicated(["chrom", "pos"]).any()
    assert not set(made["pos"]) & set(variants["pos"])
    own = variants.iloc[made["match"]].reset_index(drop=True)
    assert (made["ref"].str[0] == own["ref"].str[0]).all()
    assert (made["ref"].str.len() == own["ref"].str.len()).all()
    assert (made["alt"].str.len() == own["alt"].str.len()).all()
    assert (made["ref"] != made["alt"]).all()
    short = own["ref"].str.len() == 1
    assert (made.loc[short, "alt"] == own.loc[short, "alt"]).all()

    def facts(table):
        out = []
        for pos in table["pos"]:
            around = LETTERS[pos - 100:pos + 100]
            distance = np.abs(TSS["tss"] - pos).min()
            out.append((min(int((around.count("G") + around.count("C")) / 200 * 5), 4),
                        sum(distance >= d for d in (1_000, 5_000, 10_000, 50_000, 100_000))))
        return out

    assert facts(made) == facts(own)
    assert len(set(facts(own))) > 4
    again = matched_variants(variants, GENOME, 5, seed=3, genes=TSS, gc_width=200, n_gc_classes=5)
    pd.testing.assert_frame_equal(made, again)
    other = matched_variants(variants, GENOME, 5, seed=4, genes=TSS, gc_width=200, n_gc_classes=5)
    assert not made["pos"].equals(other["pos"])


def test_matched_variants__keep_their_row_through_the_scores():
    variants = variants_at([5003, 9001])
    made = matched_variants(variants, GENOME, 3, seed=0)
    scored = score_variants(oracle(), GENOME, made, length=LENGTH)
    assert scored["match"].tolist() == np.repeat(np.repeat([0, 1], 3), 2).tolist()
    share = percentiles(score_variants(oracle(), GENOME, variants, length=LENGTH), scored)
    assert share["diff_percentile"].between(0, 100).all()
    assert "match_percentile" not in share


def test_matched_variants__refuse_what_has_no_like(monkeypatch):
    monkeypatch.setattr(null, "_ROUNDS", 3)
    variants = variants_at([5003])
    with pytest.raises(SchemaError, match=r"1 of 1 variants find fewer than 70000 like them; first: chr1:5003 .*n_per"):
        matched_variants(variants, GENOME, 70_000)
    with pytest.raises(SchemaError, match="at least 1; got 0, 500, 10"):
        matched_variants(variants, GENOME, 0)
    small = pd.DataFrame({"chrom": "chr2", "pos": [300], "ref": [LETTERS[300]], "alt": ["N"]})
    with pytest.raises(SchemaError, match="longer than twice the 500 bp"):
        matched_variants(small, GENOME, 1)


def test_shuffled_null__refuses():
    variants = variants_at([5003])
    with pytest.raises(SchemaError, match="got n=0"):
        shuffled_null(oracle(), GENOME, variants, length=LENGTH, n=0)
    with pytest.raises(SchemaError, match="of the sequence alone: snap does not go"):
        shuffled_null(oracle(), GENOME, variants, length=LENGTH, snap=4)
    with pytest.raises(SchemaError, match="got none"):
        shuffled_null(oracle(), GENOME, variants[:0], length=LENGTH)
