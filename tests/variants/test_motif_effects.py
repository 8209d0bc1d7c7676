"""Motif effects against a loop over written-out alleles, planted sites, and weights learned from known directions."""

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import ConfigError, SchemaError, UnknownNameError
from ciscribe.io.genome import MemoryGenome
from ciscribe.io.motifs import read_meme
from ciscribe.io.variant_assays import read_saturation_mutagenesis
from ciscribe.pwm import PSEUDOCOUNT, log_odds, score_tail, score_threshold
from ciscribe.schema import Motif, check_effects
from ciscribe.sequence import encode, one_hot, reverse_complement_codes
from ciscribe.variants.motif_effects import learn_weights, motif_effects
from reference import motif_effects as slow

AT_RICH = (0.31, 0.19, 0.19, 0.31)


def random_motif(name, width, seed):
    return Motif(name, np.random.default_rng(seed).dirichlet(np.full(4, 0.5), width).T.copy())


def word_motif(word, sure=0.94):
    return Motif(word, np.where(one_hot(encode(word)) == 1, sure, (1 - sure) / 3).astype(np.float64))


def table(*rows):
    return pd.DataFrame(rows, columns=["chrom", "pos", "ref", "alt"]).astype({"pos": "int64"})


@pytest.fixture(scope="module")
def genome():
    rng = np.random.default_rng(3)
    return MemoryGenome({"a": rng.choice(4, 211, p=AT_RICH).astype(np.uint8),
                         "b": rng.choice(4, 97, p=AT_RICH).astype(np.uint8)})


def some_variants(genome):
    letters = {c: "".join("ACGT"[i] for i in genome.fetch(c, 0, n)) for c, n in genome.chrom_sizes.items()}
    rows = []
    for chrom, pos, n, alt in (("a", 101, 1, "ACGT"), ("a", 0, 1, "ACGT"), ("b", 96, 1, "ACGT"), ("a", 50, 1, None),
                               ("a", 70, 4, None), ("b", 30, 2, "TTG")):
        ref = letters[chrom][pos:pos + n]
        if alt == "ACGT":
            rows += [(chrom, pos, ref, base) for base in "ACGT" if base != ref]
        else:
            rows.append((chrom, pos, ref, alt or (ref + "TGACG" if n == 1 else ref[0])))
    return table(*rows)


@pytest.mark.parametrize("width", [3, 6, 7, 13])
def test_motif_effects__are_those_of_written_out_alleles(genome, width):
    motif, variants = random_motif("m", width, width), some_variants(genome)
    level, temperature = 0.05, 0.7
    found = motif_effects(genome, variants, [motif, random_motif("wider", 17, 1)], background=AT_RICH, p_value=level,
                          temperature=temperature)
    scores = log_odds(motif, np.array(AT_RICH))
    threshold = score_threshold(scores, level, np.array(AT_RICH))
    density = -np.diff(score_tail(scores, np.array(AT_RICH))[1], append=0)
    step = (scores.max(axis=0) - scores.min(axis=0)).sum() / 1000
    level_of = scores.min(axis=0).sum() + step * np.arange(len(density))
    floor = 200 * (density / (1 + np.exp((threshold - level_of) * np.log(2) / temperature))).sum()
    passed = 0
    for i, (chrom, pos, ref, alt) in enumerate(variants.itertuples(index=False)):
        context = genome.fetch(chrom, 0, genome.chrom_sizes[chrom]).tolist()
        before, after, ratio = slow.effect(context, pos, encode(ref).tolist(), encode(alt).tolist(), motif.ppm,
                                           background=AT_RICH, threshold=threshold, temperature=temperature,
                                           floor=floor, pseudocount=PSEUDOCOUNT)
        counts = max(before, after) >= threshold
        passed += counts
        assert found.passes[i, 0] == counts
        assert found.d_pwm[i, 0] == pytest.approx(after - before if counts else 0, abs=1e-4)
        assert found.d_occupancy[i, 0] == pytest.approx(ratio, abs=1e-4)
    assert 0 < passed < len(variants)


def test_motif_effects__know_a_planted_site_and_its_sign():
    codes = np.random.default_rng(0).choice(4, 83, p=AT_RICH).astype(np.uint8)
    codes[40:51] = encode("GTGACGTCACC")
    genome = MemoryGenome({"x": codes})
    breaks, back = table(("x", 43, "A", "T")), table(("x", 43, "T", "A"))
    broken = codes.copy()
    broken[43] = 3
    motifs = [word_motif("GTGACGTCACC"), word_motif("GGGGCGGGGCC")]
    won = motif_effects(MemoryGenome({"x": broken}), back, motifs, background=(0.3, 0.2, 0.2, 0.3), p_value=1e-6)
    lost = motif_effects(genome, breaks, motifs, background=(0.3, 0.2, 0.2, 0.3), p_value=1e-6)
    assert lost.d_pwm[0, 0] < -4
    assert lost.d_occupancy[0, 0] < -1
    assert lost.d_pwm[0, 1] == 0
    np.testing.assert_allclose(won.d_pwm, -lost.d_pwm, atol=1e-5)
    np.testing.assert_allclose(won.d_occupancy, -lost.d_occupancy, atol=1e-5)


def test_motif_effects__are_those_of_the_other_strand(genome):
    variants = some_variants(genome)
    single = variants[(variants["ref"].str.len() == 1) & (variants["alt"].str.len() == 1)]
    turned = MemoryGenome({c: reverse_complement_codes(genome.fetch(c, 0, n)) for c, n in genome.chrom_sizes.items()})
    swap = dict(zip("ACGT", "TGCA", strict=True))
    mirrored = single.assign(pos=[genome.chrom_sizes[c] - 1 - p for c, p in zip(single["chrom"], single["pos"],
                                                                                strict=True)],
                             ref=[swap[b] for b in single["ref"]], alt=[swap[b] for b in single["alt"]])
    motifs = [random_motif("m", 7, 0), random_motif("n", 11, 1)]
    a, b = motif_effects(genome, single, motifs, p_value=0.1), motif_effects(turned, mirrored, motifs, p_value=0.1)
    assert np.abs(a.d_pwm).max() > 0.5
    np.testing.assert_allclose(a.d_pwm, b.d_pwm, atol=1e-4)
    np.testing.assert_allclose(a.d_occupancy, b.d_occupancy, atol=1e-4)


def test_motif_effects__of_an_insertion_that_changes_nothing(genome):
    codes = encode("ACGATTTTTTTTTTTTTTTTTTTTTTTTTTTTCGATC")
    longer = table(("t", 15, "T", "TT"))
    found = motif_effects(MemoryGenome({"t": codes}), longer, [word_motif("TTTTTTT")], p_value=0.01)
    assert found.d_pwm[0, 0] == pytest.approx(0)
    assert found.d_occupancy[0, 0] > 0  # one window more


def test_motif_effects__at_an_n():
    codes = encode("ACGATCAGTANNNNNNNNNNNNNGACTA")
    variants = table(("n", 12, "N", "A"), ("n", 3, "A", "C"), ("n", 4, "T", "N"))
    found = motif_effects(MemoryGenome({"n": codes}), variants, [random_motif("m", 5, 0)], p_value=0.5)
    assert np.isnan(found.d_pwm[:, 0]).tolist() == [True, False, True]
    assert np.isnan(found.d_occupancy[:, 0]).tolist() == [True, False, True]
    assert not found.passes[[0, 2]].any()
    assert np.isfinite(found.summarize()[["d_pwm", "d_occupancy", "d_pwm_sum"]]).all(axis=None)


def test_motif_effects__of_motifs_too_short_to_be_rare(genome):
    found = motif_effects(genome, some_variants(genome), [word_motif("TAT")], p_value=1e-4)
    assert not found.d_pwm.any()
    assert not found.d_occupancy.any()
    assert found.table().empty


def test_tables__say_what_changes(genome):
    variants = some_variants(genome).assign(name=[f"v{i}" for i in range(12)])
    motifs = [random_motif("m", 7, 0), random_motif("n", 11, 1), random_motif("o", 5, 2)]
    found = motif_effects(genome, variants, motifs, p_value=0.1)
    long = found.table()
    check_effects(long)
    assert len(long) == found.passes.sum() > 3
    row = long.iloc[0]
    i, j = int(row["name"][1:]), "mno".index(row["track"])
    assert (row["d_pwm"], row["d_occupancy"]) == (found.d_pwm[i, j], found.d_occupancy[i, j])
    short = found.summarize()
    check_effects(short)
    for i in range(len(variants)):
        most = np.abs(found.d_pwm[i]).argmax()
        assert short["d_pwm"][i] == found.d_pwm[i, most]
        assert short["motif"][i] == ("mno"[most] if found.d_pwm[i, most] else ".")
        assert short["d_occupancy_sum"][i] == pytest.approx(found.d_occupancy[i].sum(), abs=1e-5)
    weighted = found.summarize({"n": -2.0})
    np.testing.assert_allclose(weighted["d_occupancy_sum"], -2 * found.d_occupancy[:, 1], atol=1e-6)
    with pytest.raises(UnknownNameError, match="names the motif 'q'"):
        found.summarize({"q": 1.0})


def test_motif_effects__of_nothing(genome):
    none = motif_effects(genome, table(), [random_motif("m", 7, 0)])
    assert none.summarize().empty
    assert none.d_pwm.shape == (0, 1)
    empty = motif_effects(genome, some_variants(genome), [])
    assert (empty.summarize()["motif"] == ".").all()


@pytest.mark.parametrize(("error", "message", "options"), [
    (SchemaError, "2 reference alleles of 3 variants are not what the genome has; first: g:1 G>T, where the genome "
                  "has C", {"variants": table(("g", 1, "G", "T"), ("g", 0, "A", "T"), ("g", 99, "A", "T"))}),
    (SchemaError, "other than letters", {"variants": table(("g", 0, "A", "-"))}),
    (UnknownNameError, "no sequence 'h'", {"variants": table(("h", 0, "A", "T"))}),
    (ConfigError, "p_value lies between", {"p_value": 0}),
    (ConfigError, "temperature above 0", {"temperature": 0.0}),
    (ConfigError, "frequencies of A C G T", {"background": [1, 1, 1, 1]}),
    (SchemaError, "repeats the name", {"motifs": [random_motif("m", 5, 0)] * 2}),
])
def test_motif_effects__of_bad_input(error, message, options):
    options = {"genome": MemoryGenome({"g": encode("ACGT")}), "variants": table(("g", 0, "A", "T")),
               "motifs": [random_motif("m", 3, 0)]} | options
    with pytest.raises(error, match=message):
        motif_effects(**options)


def test_learn_weights__finds_the_motif_that_decides():
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 4, (307, 41), dtype=np.uint8)
    deciding, other = word_motif("AGATAAGAAC"), word_motif("GCCACGTGGC")
    for row, word in zip(codes, rng.choice([0, 1], len(codes)), strict=True):
        row[16:26] = encode(("AGATAAGAAC", "GCCACGTGGC")[word])
    genome = MemoryGenome({str(i): row for i, row in enumerate(codes)})
    variants = table(*((str(i), 20, "ACGT"[row[20]], "ACGT"[(row[20] + 1) % 4]) for i, row in enumerate(codes)))
    effects = motif_effects(genome, variants, [deciding, other], p_value=1e-3)
    raised = np.where(np.abs(effects.d_occupancy[:, 0]) > 1, effects.d_occupancy[:, 0] > 0, rng.random(307) < 0.5)
    raised[:3] = True
    weights = learn_weights(effects, raised, penalty=0.1)
    assert weights["AGATAAGAAC"] > 0.2
    assert 0 <= weights["GCCACGTGGC"] < weights["AGATAAGAAC"] / 4
    mirrored = learn_weights(effects, ~raised, penalty=0.1)
    assert mirrored["AGATAAGAAC"] == 0
    with pytest.raises(SchemaError, match="labels of both kinds"):
        learn_weights(effects, np.ones(307, bool))


@pytest.mark.realdata
def test_motif_effects__on_saturation_mutagenesis(data_dir):
    assay = read_saturation_mutagenesis(data_dir / "variants/satmut/elements.GRCh38.tsv.gz")
    motifs = [m for m in read_meme(data_dir / "motifs/H12CORE_meme_format.meme.gz")
              if m.name.startswith(("ELK1.", "ETV1.", "GABPA."))]
    tert = assay.variants[assay.variants["experiment"] == "TERT-GBM"].reset_index(drop=True)
    found = motif_effects(assay.genome, tert, motifs, p_value=1e-3)
    # The two promoter mutations known from tumours (C228T, C250T) make sites of the ETS family.
    gain = np.flatnonzero(tert["genome_pos"].isin([1_295_112, 1_295_134]) & (tert["ref"] == "G") & (tert["alt"] == "A"))
    assert len(gain) == 2
    assert (found.d_occupancy[gain] > 0).all()
    assert (found.d_pwm[gain].max(axis=1) > 3).all()
