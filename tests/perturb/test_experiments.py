"""Motifs put in alone and in pairs, and double mutants, against strings; the planted syntax is found."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_rel

from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle, Scalar
from ciscribe.perturb.experiments import CARDS, double_mutants, insert, marginalize, space
from ciscribe.perturb.reading import t_test
from ciscribe.schema import Motif
from ciscribe.sequence import decode, encode, one_hot
from reference import perturb as twin

L, N_BACKGROUNDS = 61, 53
LETTERS = ["".join(row) for row in np.random.default_rng(7).choice(list("ACGT"), (N_BACKGROUNDS, L))]
LETTERS[3] = LETTERS[3][:30] + "N" + LETTERS[3][31:]
LETTERS[5] = twin.replaced(LETTERS[5], 2, twin.A)  # backgrounds need not be empty
BACKGROUNDS = np.stack([encode(s) for s in LETTERS])


def oracle(**arguments):
    torch.set_num_threads(1)
    return Oracle(twin.Grammar(), device="cpu", **arguments)


def motif_of(letters, name="m", sharp=1.0):
    ppm = np.full((4, len(letters)), (1 - sharp) / 3)
    ppm[["ACGT".index(x) for x in letters], np.arange(len(letters))] = sharp
    return Motif(name, ppm)


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize(("pattern", "position"), [("GGAAC", None), ("ggaac", 0), ("GNNAC", 56), ("N", 7)])
def test_insert__writes_letters_and_keeps_what_n_leaves(pattern, position, strand):
    kept = BACKGROUNDS.copy()
    made = insert(one_hot(BACKGROUNDS), pattern, position, strand=strand)
    start = (L - len(pattern)) // 2 if position is None else position
    assert [decode(c) for c in made] == [twin.replaced(s, start, twin.on_strand(pattern.upper(), strand))
                                         for s in LETTERS]
    assert (kept == BACKGROUNDS).all()
    made[:] = 0
    assert (kept == BACKGROUNDS).all()


def test_insert__a_motif_gives_its_best_bases_or_draws_sites():
    motif = motif_of("GGAAC", sharp=0.7)
    assert (insert(BACKGROUNDS, motif, 11) == insert(BACKGROUNDS, "GGAAC", 11)).all()
    many = np.tile(BACKGROUNDS, (40, 1))
    drawn = insert(many, motif, 11, sample=True, seed=3)
    assert (drawn == insert(many, motif, 11, sample=True, seed=3)).all()
    assert (drawn != insert(many, motif, 11, sample=True, seed=4)).any()
    frequency = np.stack([(drawn[:, 11:16] == base).mean(axis=0) for base in range(4)])
    np.testing.assert_allclose(frequency, motif.ppm, atol=0.04)
    other = insert(many, motif, 11, sample=True, seed=3, strand="-")
    np.testing.assert_array_equal(3 - other[:, 15:10:-1], drawn[:, 11:16])  # the same sites, on the other strand


@pytest.mark.parametrize(("pattern", "position", "strand", "fault"), [
    ("GGRAC", None, "+", "letters ACGTN.*got 'GGRAC'.*give a Motif"), ("", None, "+", "got ''"),
    ("GGAAC", 57, "+", "5 bp do not fit into a background of 61 bp at position 57"),
    ("GGAAC", -1, "+", "at position -1"), ("A" * 62, None, "+", "62 bp do not fit into a background of 61 bp$"),
    ("GGAAC", None, ".", "strand is"),
    (Motif("bad", np.full((4, 3), 0.3)), None, "+", "sum to 1")])
def test_insert__refuses(pattern, position, strand, fault):
    with pytest.raises(SchemaError, match=fault):
        insert(BACKGROUNDS, pattern, position, strand=strand)


def test_marginalize__is_the_mean_difference_with_its_test():
    table = marginalize(oracle(), {"a": twin.A, "r": twin.R, "none": "N", "half": "GGNAC"}, BACKGROUNDS, position=29)
    assert table["pattern"].tolist() == ["a", "a", "r", "r", "none", "none", "half", "half"]
    assert (table["n"] == N_BACKGROUNDS).all()
    for (name, track), row in table.set_index(["pattern", "track"]).iterrows():
        letters = {"a": twin.A, "r": twin.R, "none": "N", "half": "GGNAC"}[name]
        before = np.array([twin.grammar(s)[track] for s in LETTERS])
        after = np.array([twin.grammar(twin.replaced(s, 29, letters))[track] for s in LETTERS])
        got = row[["without", "with_pattern", "effect", "se"]].tolist()
        change = after - before
        wanted = [before.mean(), after.mean(), change.mean(), change.std(ddof=1) / N_BACKGROUNDS**0.5]
        np.testing.assert_allclose(got, wanted, atol=1e-5)
        if name == "half" and track == 0:  # only in some backgrounds does the N complete the motif
            assert 0 < row["effect"] < 1
            assert row["p_value"] == pytest.approx(ttest_rel(after, before).pvalue, rel=1e-3)
    effect = table.loc[table["track"] == 0].set_index("pattern")
    assert effect.loc["a", "effect"] == pytest.approx(2, abs=0.2)
    assert effect.loc["r", "effect"] == pytest.approx(-3, abs=0.2)  # a repressor is signed negative
    assert effect.loc[["a", "r"], "p_value"].max() < 1e-20
    assert effect.loc["none", "p_value"] == 1


def test_marginalize__names_strands_and_further_inputs():
    motif = motif_of(twin.A, "ap1")
    table = marginalize(oracle(), [motif, twin.B], BACKGROUNDS, strand="-")
    assert table["pattern"].drop_duplicates().tolist() == ["ap1", twin.B]
    assert abs(table["effect"]).max() < 0.3  # the model reads one strand
    S = torch.arange(1.0, 54).view(-1, 1, 1)
    weighted = marginalize(oracle(), motif, BACKGROUNDS, S, position=40)
    wanted = [(i + 1) * (twin.grammar(twin.replaced(s, 40, twin.A))[0] - twin.grammar(s)[0])
              for i, s in enumerate(LETTERS)]
    assert weighted["effect"][0] == pytest.approx(np.mean(wanted), abs=0.01)


@pytest.mark.parametrize(("patterns", "backgrounds", "fault"), [
    (twin.A, BACKGROUNDS[:1], "at least 2 backgrounds.*got 1"), ([twin.A, twin.A], BACKGROUNDS, "'TGACTCA' repeats"),
    ([], BACKGROUNDS, "got none"), ("XX", BACKGROUNDS, "letters ACGTN")])
def test_marginalize__refuses(patterns, backgrounds, fault):
    with pytest.raises(SchemaError, match=fault):
        marginalize(oracle(), patterns, backgrounds)


def test_t_test__of_differences_that_are_all_the_same():
    mean, error = np.array([[0.0, 2.0, 1.0]]), np.array([[0.0, 0.0, 0.5]])
    assert t_test(mean, error, 5)[0, :2].tolist() == [1, 0]
    assert t_test(mean, error, 5)[0, 2] == pytest.approx(0.1161165, abs=1e-6)  # t = 2, 4 degrees of freedom
    assert np.isnan(t_test(mean, error, 1)).all()


def test_space__is_the_slow_twin():
    some, gaps = BACKGROUNDS[:5], [0, 3, twin.GAP]
    table = space(oracle(), twin.A, motif_of(twin.B), some, gaps, position=19, batch_size=7)
    assert table[["gap", "orientation"]].drop_duplicates().to_numpy().tolist() == [
        [gap, o] for gap in gaps for o in ("++", "+-", "-+", "--")]
    for (gap, o), rows in table.groupby(["gap", "orientation"]):
        y = np.array([twin.cooperativity(twin.grammar, s, twin.A, twin.B, 19, gap, o) for s in LETTERS[:5]])
        np.testing.assert_allclose(rows["cooperativity"], y.mean(0), atol=1e-5)
        np.testing.assert_allclose(rows["se"], y.std(0, ddof=1) / 5**0.5, atol=1e-5)
        beyond = rows["effect"] - rows["effect_a"] - rows["effect_b"]
        np.testing.assert_allclose(beyond, rows["cooperativity"], atol=1e-5)
        a = [twin.grammar(twin.replaced(s, 19, twin.on_strand(twin.A, o[0]))) for s in LETTERS[:5]]
        none = [twin.grammar(s) for s in LETTERS[:5]]
        np.testing.assert_allclose(rows["effect_a"], np.subtract(a, none).mean(0), atol=1e-5)


def test_space__finds_the_synergy_at_its_distance_and_orientation():
    table = space(oracle(readout=Scalar(track=0)), twin.A, twin.B, BACKGROUNDS, range(23))
    found = table[(table["cooperativity"] > 1) & (table["p_value"] < 1e-6)]
    assert found[["gap", "orientation"]].to_numpy().tolist() == [[twin.GAP, "++"]]
    assert found["cooperativity"].item() == pytest.approx(5, abs=0.2)
    rest = table.drop(found.index)
    assert abs(rest["cooperativity"]).max() < 0.3
    assert rest.loc[rest["orientation"] == "++", "effect"].mean() == pytest.approx(3, abs=0.2)  # 2 of A, 1 of B
    reverse = space(oracle(readout=Scalar(track=0)), twin.B, twin.A, BACKGROUNDS, range(23), orientations=["++"])
    assert abs(reverse["cooperativity"]).max() < 0.3  # B before A is another arrangement


def test_space__places_the_widest_pair_in_the_middle_and_n_keeps_the_background():
    wide = L - len(twin.A) - len(twin.B)
    assert len(space(oracle(), twin.A, twin.B, BACKGROUNDS[:3], [wide], orientations=["+-"])) == 2
    holes = space(oracle(), "NNN", "N", BACKGROUNDS[:3], [5])
    assert (holes["effect"] == 0).all()


@pytest.mark.parametrize(("change", "fault"), [
    ({"distances": [50]}, "62 bp do not fit into a background of 61 bp$"),
    ({"distances": [3], "position": 47}, "15 bp do not fit into a background of 61 bp at position 47"),
    ({"distances": [-1]}, "gaps of 0 or more"), ({"distances": []}, "gaps of 0 or more"),
    ({"orientations": ["+", "++"]}, r"among \+\+, \+-, -\+, --.*got '\+'"), ({"orientations": []}, "got none"),
    ({"backgrounds": BACKGROUNDS[:1]}, "at least 2 backgrounds")])
def test_space__refuses(change, fault):
    arguments = {"motif_a": twin.A, "motif_b": twin.B, "backgrounds": BACKGROUNDS, "distances": [3]} | change
    with pytest.raises(SchemaError, match=fault):
        space(oracle(), **arguments)


SITE = twin.replaced(twin.replaced(LETTERS[0], 13, twin.A), 13 + 7 + twin.GAP, twin.B)  # A 13-20, B 31-36
PAIR = np.stack([encode(SITE), encode(LETTERS[3])])


@pytest.mark.parametrize("positions", [[12, 15, 19, 30, 32], [29, 30, 31]])
def test_double_mutants__are_the_slow_twin(positions):
    table = double_mutants(oracle(), PAIR, positions, batch_size=29)
    for i, sequence in enumerate((SITE, LETTERS[3])):
        wanted = twin.double_mutants(twin.grammar, sequence, positions)
        rows = table[table["region"] == i]
        keys = ["position_a", "base_a", "position_b", "base_b"]
        assert len(rows) == 2 * len(wanted)
        assert not rows.duplicated([*keys, "track"]).any()
        for key, group in rows.groupby(keys):
            values = group[["effect_a", "effect_b", "effect", "epistasis"]].to_numpy().T
            np.testing.assert_allclose(values, wanted[key], atol=1e-5)


def test_double_mutants__two_blows_to_one_motif_count_once():
    table = double_mutants(oracle(readout=Scalar(track=0)), PAIR[:1], range(11, 22))
    mean = table.groupby(["position_a", "position_b"])["epistasis"].agg(["min", "max"])
    inside = [(p, q) for p, q in mean.index if p >= 13 and q < 20]
    assert len(inside) == 21
    assert mean.loc[inside].to_numpy() == pytest.approx(7, abs=1e-4)  # 2 of A and 5 of the pair
    assert abs(mean.drop(inside)).to_numpy().max() < 1e-4
    # One base in A, one in B: each loses the synergy, both lose it once.
    both = double_mutants(oracle(readout=Scalar(track=0)), PAIR[:1], [(33, 15), (15, 33)])
    assert len(both) == 9
    assert both["epistasis"].to_numpy() == pytest.approx(5, abs=1e-4)
    assert (both["position_a"] == 15).all()


def test_double_mutants__further_inputs_and_n():
    S = torch.tensor([3.0, 1]).view(2, 1, 1)
    table = double_mutants(oracle(), PAIR, [15, 30], S)
    assert (table["region"] == 0).all()  # the second sequence holds an N there
    assert table["effect"][0] == pytest.approx(21, abs=1e-4)
    assert len(double_mutants(oracle(), PAIR[1:], [15, 30])) == 0


@pytest.mark.parametrize(("positions", "fault"), [
    ([3], "at least two whole numbers"), ([], "at least two"),
    ([3, 61], r"1 of 1 pairs are not two positions of a sequence of 61 bp; first: \[3, 61\]"),
    (np.array([[3, 4], [5, 5]]), r"1 of 2 pairs.*first: \[5, 5\]"), (np.zeros((2, 3), int), "table")])
def test_double_mutants__refuse(positions, fault):
    with pytest.raises(SchemaError, match=fault):
        double_mutants(oracle(), PAIR, positions)


def test_readings__of_any_kind_run_every_experiment():
    def composition(oracle, X, S=None, covariates=None, *, batch_size=64):
        return one_hot(X.numpy()).sum(axis=2)

    a = marginalize(oracle(), twin.A, BACKGROUNDS, func=composition)
    assert a["effect"].sum() == pytest.approx(1 / N_BACKGROUNDS)  # lengths stay; an N of one background is a base now
    assert abs(space(oracle(), twin.A, twin.B, BACKGROUNDS, [3], func=composition)["cooperativity"]).max() == 0
    assert abs(double_mutants(oracle(), PAIR, range(5), func=composition)["epistasis"]).max() == 0


def test_cards__name_themselves_and_their_source():
    for name, card in CARDS.items():
        assert card.name == name
        assert "doi" in card.paper
    assert isinstance(marginalize(oracle(), twin.A, BACKGROUNDS), pd.DataFrame)
