"""Whole elements kept, moved, copied and destroyed: the law of the model says what must come out."""

import numpy as np
import pandas as pd
import pytest
import torch

from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle
from ciscribe.perturb.context import CARD, context_dependence, higher_order, multiplicity, sufficiency
from ciscribe.sequence import decode, encode, one_hot_tensor
from reference import perturb as twin

L, CORE = 127, (59, 71)
PLAIN = "".join(np.random.default_rng(11).choice(list("ACGT"), L))


def planted(*pieces):
    sequence = PLAIN
    for at, motif in pieces:
        sequence = twin.replaced(sequence, at, motif)
    return sequence


FIRST = planted((61, twin.B), (20, twin.A), (61 - twin.GAP - 7, twin.A), (100, twin.R))  # the A at 43 pairs with B
SECOND = planted((61, twin.B), (90, twin.A))
SEQUENCES = (FIRST, SECOND)
X = np.stack([encode(s) for s in SEQUENCES])
FAR, PAIRED, REPRESSOR = (17, 30), (41, 52), (97, 109)
WIDE = ((0, 90, 115), (0, 58, 80), (0, 37, 58), (0, 8, 36))  # R, B, A, A; long: a shuffle hardly ever leaves a motif


def oracle():
    torch.set_num_threads(1)
    return Oracle(twin.Grammar(), device="cpu")


def tiles(*rows, **more):
    return pd.DataFrame(rows, columns=["region", "start", "end"]).assign(**more)


def first_track(table):
    return table[table["track"] == 0].reset_index(drop=True)


def test_planted__holds_what_it_should():
    assert [twin.grammar(s)[0] for s in SEQUENCES] == [7 + 1 + 4 + 5 - 3, 7 + 1 + 2]


def test_context_dependence__own_surroundings_against_shuffles():
    table = first_track(context_dependence(oracle(), X, CORE, n_shuffles=31))
    assert table["before"].tolist() == pytest.approx([14, 10], abs=1e-4)
    assert table["effect"].tolist() == pytest.approx([6, 2], abs=0.6)  # 4 + 5 − 3, and 2, are not in the core
    np.testing.assert_allclose(table["relative"], table["effect"] / table["before"], atol=1e-6)
    whole = context_dependence(oracle(), one_hot_tensor(torch.from_numpy(X)), (0, L), n_shuffles=3)
    assert abs(whole["effect"]).max() < 1e-5  # all is kept
    assert whole["se"].max() == pytest.approx(0, abs=1e-6)


def test_context_swap__is_the_string():
    others = [PLAIN, SECOND, PLAIN[::-1]]
    table = context_dependence(oracle(), X, CORE, contexts=np.stack([encode(s) for s in others]))
    assert table[["region", "context"]].to_numpy()[::2].tolist() == [[i, j] for i in (0, 1) for j in range(3)]
    for (i, j), rows in table.groupby(["region", "context"]):
        made = others[j][:CORE[0]] + SEQUENCES[i][CORE[0]:CORE[1]] + others[j][CORE[1]:]
        np.testing.assert_allclose(rows["after"], twin.grammar(made), atol=1e-5)
    assert table["se"].isna().all()
    assert abs(table.loc[(table["region"] == 1) & (table["context"] == 1), "effect"]).max() < 1e-5  # its own


def test_sufficiency__of_elements_in_their_place():
    given = tiles((0, *REPRESSOR), (1, 88, 99), (0, *PAIRED), (0, *FAR), name=["r", "a", "pair", "far"])
    table = first_track(sufficiency(oracle(), X, CORE, given, n_shuffles=31))
    assert table["name"].tolist() == ["r", "a", "pair", "far"]
    assert table["effect"].tolist() == pytest.approx([-3, 2, 7, 2], abs=0.5)  # the pair needs the B of the core
    np.testing.assert_allclose(table["with_tile"] - table["control"], table["effect"], atol=1e-6)
    np.testing.assert_allclose(table["effect"] / table["wild_type"], table["relative"], atol=1e-6)
    assert table["control"].to_numpy() == pytest.approx(8, abs=0.6)  # B and nothing else
    assert (table["position"] == table["start"]).all()


def test_sufficiency__at_other_distances_finds_where_the_pair_works():
    places = [3, 31, 41, 47, 75, 111]  # from 41 the A lies 11 bp before the B of the core
    table = first_track(sufficiency(oracle(), X, CORE, tiles((0, *PAIRED)), positions=places, n_shuffles=31))
    assert table["position"].tolist() == places
    assert table["effect"].tolist() == pytest.approx([2, 2, 7, 2, 2, 2], abs=0.5)
    assert table["se"].max() < 0.3


def test_sufficiency__is_paired_by_background_and_reproducible():
    given = tiles((1, 88, 99), (0, *FAR))
    a, b, c = (sufficiency(oracle(), X, CORE, given, n_shuffles=5, seed=s, batch_size=n)
               for s, n in ((3, 64), (3, 7), (4, 64)))
    np.testing.assert_allclose(a["with_tile"], b["with_tile"], atol=1e-5)
    assert not a["control"].equals(c["control"]) or not a["with_tile"].equals(c["with_tile"])
    alone = sufficiency(oracle(), X, CORE, given.iloc[1:], n_shuffles=5, seed=3)
    np.testing.assert_allclose(alone["with_tile"], a["with_tile"][2:], atol=1e-5)


def test_multiplicity__puts_the_copy_where_it_works_and_adds_up_the_rest():
    places = [3, 20, 41, 46, 80, 100]
    table = first_track(multiplicity(oracle(), X[:1], CORE, PAIRED, places, n_shuffles=31))
    assert table["copies"].tolist() == [1, 2, 3, 4, 5]  # 46 overlaps the copy at 41
    assert table["position"][0] == 41
    assert set(table["position"]) == {3, 20, 41, 80, 100}
    assert table["effect"].tolist() == pytest.approx([7, 9, 11, 13, 15], abs=0.7)
    np.testing.assert_allclose(table["expected"], table["effect"], atol=0.7)
    lowest = first_track(multiplicity(oracle(), X[:1], CORE, PAIRED, places, n_copies=2, goal="lower", n_shuffles=31))
    assert len(lowest) == 2
    assert 41 not in lowest["position"].tolist()
    other = multiplicity(oracle(), X[:1], CORE, PAIRED, places, n_copies=2, goal="lower", track=1, n_shuffles=31)
    assert other.loc[other["track"] == 1, "effect"].tolist() == pytest.approx([-0.5, -1], abs=0.2)
    assert len(other) == 4  # all tracks are reported


def test_multiplicity__expects_the_sum_where_copies_help_each_other():
    # In backgrounds whose core holds nothing, a copy of B does 1; with an A at its distance before it, 6.
    sequence = planted((20, twin.A), (20 + 7 + twin.GAP, twin.B))
    both = (18, 45)  # A and B in one tile: 2 + 1 + 5, whatever stands around it
    table = first_track(multiplicity(oracle(), encode(sequence)[None], CORE, both, [3, 75], n_shuffles=17))
    assert table["effect"].tolist() == pytest.approx([8, 16], abs=0.7)
    assert table["expected"].tolist() == pytest.approx([8, 16], abs=0.7)
    # A at 0-12 and 18-30, a copy of it: B never comes, so nothing but 2 each.
    only_a = first_track(multiplicity(oracle(), encode(sequence)[None], CORE, (18, 30), [3, 30, 75], n_shuffles=17))
    assert only_a["effect"].tolist() == pytest.approx([2, 4, 6], abs=0.7)


def test_higher_order__two_halves_of_a_pair_stand_in_for_nothing():
    given = tiles(*WIDE, (1, 85, 115))
    table = higher_order(oracle(), X, given, n_shuffles=17)
    one = first_track(table[table["region"] == 0])
    assert one["step"].tolist() == [1, 2, 3, 4]
    assert one[["start", "end"]].to_numpy()[[0, 3]].tolist() == [[37, 58], [90, 115]]
    assert one["effect"].tolist() == pytest.approx([7, 9, 10, 7], abs=0.7)  # A with the pair, A, B, and the repressor
    assert one["expected"].tolist() == pytest.approx([7, 9, 15, 12], abs=0.7)  # B alone was worth 1 + 5, too
    np.testing.assert_allclose(one["interaction"], one["effect"] - one["expected"], atol=1e-6)
    np.testing.assert_allclose(one["before"] - one["after"], one["effect"], atol=1e-6)
    two = first_track(table[table["region"] == 1])
    assert two["effect"].tolist() == pytest.approx([2], abs=0.3)
    silencer = first_track(higher_order(oracle(), X, given[:4], n_steps=1, goal="raise", n_shuffles=17))
    assert silencer["start"].tolist() == [90]
    assert silencer["effect"].tolist() == pytest.approx([-3], abs=0.3)  # its loss raises the output


def test_higher_order__redundant_elements_matter_only_together():
    class Either(torch.nn.Module):
        """1 as long as any A is left."""

        def __init__(self):
            super().__init__()
            self.grammar = twin.Grammar()

        def forward(self, X):
            return self.grammar.a(X).relu().sum(2).clamp(max=1)

    given = tiles(*WIDE[2:])
    table = higher_order(Oracle(Either(), device="cpu"), X[:1], given, n_shuffles=7)
    assert table["effect"].tolist() == pytest.approx([0, 1], abs=1e-5)
    assert table["interaction"].tolist() == pytest.approx([0, 1], abs=1e-5)


def test_tests__pass_on_the_further_inputs_of_their_sequence():
    S, covariates = torch.tensor([10.0, 1]).view(2, 1, 1), torch.tensor([[1.0, 2], [3, 4]])
    extras = (S, covariates)
    dependence = first_track(context_dependence(oracle(), X, CORE, *extras, n_shuffles=7))
    assert dependence["before"].tolist() == pytest.approx([143, 17], abs=1e-3)
    enough = first_track(sufficiency(oracle(), X, CORE, tiles((1, 88, 99), (0, *FAR)), *extras, n_shuffles=17))
    assert enough["effect"].tolist() == pytest.approx([2, 20], abs=6)
    assert enough["effect"].tolist() != pytest.approx([20, 2], abs=6)
    assert enough["wild_type"].tolist() == pytest.approx([17, 143], abs=1e-3)
    copies = first_track(multiplicity(oracle(), X, CORE, PAIRED, [41], *extras, n_shuffles=17))
    assert copies["wild_type"].tolist() == pytest.approx([143, 17], abs=1e-3)
    assert copies["effect"][0] == pytest.approx(70, abs=6)
    order = first_track(higher_order(oracle(), X, tiles((1, 85, 115), WIDE[2]), *extras, n_shuffles=7))
    assert order["effect"].tolist() == pytest.approx([70, 2], abs=6)


@pytest.mark.parametrize(("ask", "fault"), [
    (lambda o: context_dependence(o, X, (71, 59)), "core is an interval.*got 71-59"),
    (lambda o: context_dependence(o, X, (3, 128)), "within the sequence of 127 bp"),
    (lambda o: context_dependence(o, X, CORE, n_shuffles=0), "at least one shuffle"),
    (lambda o: context_dependence(o, X, CORE, contexts=X[:, :99]), r"contexts are sequences of 127 bp; got \(2, 99\)"),
    (lambda o: sufficiency(o, X, CORE, tiles((0, 3, 9), (1, 70, 80))), "1 of 2 elements would lie on the core 59-71; "
                                                                       "first: 70-80"),
    (lambda o: sufficiency(o, X, CORE, tiles((0, 3, 9)), positions=[4, 122]), "1 of 2.*leave the sequence.*122-128"),
    (lambda o: sufficiency(o, X, CORE, tiles((2, 3, 9))), "1 of 1 tiles name a sequence"),
    (lambda o: multiplicity(o, X, CORE, (5, 5), [3]), "tile is an interval"),
    (lambda o: multiplicity(o, X, CORE, FAR, [50]), "lie on the core"),
    (lambda o: multiplicity(o, X, CORE, FAR, [3], goal="up"), "goal is raise or lower; got 'up'"),
    (lambda o: higher_order(o, X, tiles((0, 3, 9)), track=2), "tracks 0 to 1; got track 2"),
    (lambda o: higher_order(o, X, tiles((0, 8, 12), (1, 3, 9), (0, 3, 9))), "1 of 3 tiles overlap the one before; "
                                                                            "first: sequence 0, 8-12"),
])
def test_tests__refuse(ask, fault):
    with pytest.raises(SchemaError, match=fault):
        ask(oracle())


def test_tests__without_elements_give_empty_tables():
    none = tiles((0, 3, 9)).iloc[:0]
    assert len(sufficiency(oracle(), X, CORE, none)) == 0
    assert "interaction" in higher_order(oracle(), X, none)
    assert len(multiplicity(oracle(), X, CORE, FAR, np.zeros(0, np.int64))) == 0


def test_arguments__are_left_alone():
    kept = X.copy()
    higher_order(oracle(), X, tiles((0, *FAR), (0, *PAIRED)), n_shuffles=2)
    multiplicity(oracle(), X, CORE, FAR, [3, 100], n_shuffles=2)
    context_dependence(oracle(), X, CORE, contexts=X)
    assert (kept == X).all()
    assert decode(X[0]) == FIRST
    assert "doi" in CARD.paper
