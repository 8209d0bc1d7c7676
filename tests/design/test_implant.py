"""Motifs written into sequences: the best place, nothing written over, rules of a grammar followed to the base."""

import numpy as np
import pandas as pd
import pytest
import torch

from ciscribe.design.constraints import Avoid, Constraints, Homopolymer, Keep, MaxEdits
from ciscribe.design.implant import Implant, Syntax, spelled
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.interpret.syntax import position_curve, spacing_curve
from ciscribe.oracle import Oracle
from ciscribe.schema import Motif
from ciscribe.sequence import decode, encode, one_hot, reverse_complement_codes
from planted_law import BEST, FIRST, GAP, LENGTH, SECOND, Law, objective

MOTIFS = {"first": FIRST, "second": SECOND}
RULES = (Avoid(["BsaI", "CATG"]), Homopolymer(3))


@pytest.fixture(autouse=True)
def one_thread():
    """Of tiny models, several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def codes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (n, LENGTH)).astype(np.uint8)


def spacing(**columns) -> pd.DataFrame:
    """The true rule of the planted law, and one that is worse."""
    rows = {"motif_a": "first", "motif_b": "second", "order": "ab", "orientation": "++", "gap": [GAP, 1],
            "mean": [2.0, 0.3]}
    return pd.DataFrame(rows | columns)


def position(motif: str, at: dict[int, float], strand: str = "+") -> pd.DataFrame:
    return pd.DataFrame({"motif": motif, "strand": strand, "position": list(at), "mean": list(at.values())})


# ---- one motif after the other


def test_every_place_on_both_strands_is_tried_and_the_best_kept():
    start = codes(1, seed=3)
    found = design(objective(), start, Implant, motifs={"first": FIRST}, n=1)
    word = encode(FIRST)
    tried = []
    for at in range(LENGTH - len(word) + 1):
        for codes_ in (word, reverse_complement_codes(word)):
            made = start[0].copy()
            made[at:at + len(word)] = codes_
            tried.append(made)
    with torch.no_grad():
        score = Law().eval()(torch.from_numpy(one_hot(np.stack(tried)).astype(np.float32)))[:, 0].numpy()
    assert found.score[0] == pytest.approx(score.max())
    assert found.history["proposed"].iloc[-1] == len(np.unique(np.stack(tried), axis=0))


def test_motifs_are_not_written_over_by_later_ones():
    found = design(objective(), codes(5), Implant, motifs=MOTIFS, n=5, strands="+")
    assert found.score.max() == pytest.approx(BEST)
    assert all(FIRST in decode(row) and SECOND in decode(row) for row in found.codes)


def test_positions_and_order_are_those_given():
    starts = np.repeat(np.array([[0], [1], [3]], np.uint8), LENGTH, axis=1)
    found = design(objective(), starts, Implant, motifs=MOTIFS, n=3, strands="+",
                   order=["second", "first"], positions={"first": 2, "second": [12, 14, 20]})
    for row in found.codes:
        text = decode(row)
        assert text[2:2 + len(FIRST)] == FIRST
        assert SECOND in (text[12:18], text[14:20], text[20:26])  # each as good as the others, before first is there
    assert found.history["proposed"].tolist()[1:] == [3, 1] * 3  # of the start's own score, then of each motif


def test_without_starts_backgrounds_are_drawn_until_the_budget_ends():
    found = design(objective(), method=Implant, length=LENGTH, motifs=MOTIFS, n=13, budget=997)
    assert found.queries == 997
    assert found.score[0] == pytest.approx(BEST)


@pytest.mark.parametrize("extra", [(), (Keep([0, 15, 30]), MaxEdits(14))])
def test_surroundings_give_way_to_constraints_and_motifs_do_not(extra):
    starts = Constraints(RULES, length=LENGTH).random(5, np.random.default_rng(2))
    found = design(objective(), starts, Implant, constraints=(*RULES, *extra), motifs={"runs": "CCCTTTGGG"}, n=5,
                   strands="+")
    assert found.history["infeasible"].sum() == 0
    assert Constraints((*RULES, *extra), length=LENGTH).bind(starts).ok(found.codes, found.origin).all()
    assert all("CCCTTTGGG" in decode(row) for row in found.codes[found.edits > 0])
    assert (found.edits > 0).any()


@pytest.mark.parametrize("start", [None, codes(2)])
def test_a_motif_that_breaks_a_rule_itself_is_an_error(start):
    start = None if start is None else Constraints(RULES, length=LENGTH).repair(start)[0]
    with pytest.raises(ConfigError, match="none of the motifs can be written"):
        design(objective(), start, Implant, length=LENGTH if start is None else None, constraints=RULES,
               motifs={"site": "GGTCTC"})


# ---- many motifs by the rules of a grammar


def test_designs_follow_the_rules_to_the_base():
    found = design(objective(), codes(5), Syntax, motifs=MOTIFS, spacing=spacing(), n_motifs=2, temperature=0, n=5,
                   budget=97)
    whole = [row for row, edits in zip(found.codes, found.edits, strict=True) if edits]
    assert len(whole) >= 3
    for row in whole:
        at = decode(row).index(FIRST)
        assert decode(row)[at + len(FIRST) + GAP:].startswith(SECOND)
    assert found.score.max() == pytest.approx(BEST)


@pytest.mark.parametrize(("order", "orientation", "expected"), [
    ("ab", "++", FIRST + "....." + SECOND), ("ba", "++", SECOND + "....." + FIRST),
    ("ab", "-+", "TGAGTCA....." + SECOND), ("ba", "+-", "ACTTCC....." + FIRST)])
def test_order_and_orientation_read_as_in_tables_of_spacing(order, orientation, expected):
    table = spacing(order=order, orientation=orientation)
    found = design(objective(), np.full((1, LENGTH), 1, np.uint8), Syntax, motifs=MOTIFS, spacing=table, n_motifs=2,
                   temperature=0, n=3, budget=31)
    text = ["".join(letter if letter != "C" else "." for letter in decode(row)) for row in found.codes]
    assert any(expected.replace("C", ".") in row for row in text)


def test_positions_are_read_along_a_line_and_strands_left_out_are_not_used():
    rules = pd.concat([position("first", {3: 0.0, 13: 1.0, 14: -1.0}), position("second", {0: -1.0, 30: -1.0}, "-")])
    found = design(objective(), codes(2), Syntax, motifs=MOTIFS, position=rules, temperature=0, n_motifs=3, n=2,
                   budget=29)
    for row in found.codes[found.edits > 0]:
        assert decode(row)[13:13 + len(FIRST)] == FIRST
        assert "ACTTCC" not in decode(row)  # what a motif takes away is not added


def test_rules_learned_by_asking_the_model_lead_to_its_optimum():
    oracle, backgrounds = Oracle(Law(), device="cpu"), codes(11, seed=5)
    gaps = spacing_curve(oracle, FIRST, SECOND, backgrounds, range(9), n_bootstrap=10)
    places = [position_curve(oracle, word, backgrounds, [0, 12, 24], n_bootstrap=10).assign(motif=name)
              for name, word in MOTIFS.items()]
    found = design(objective(), method=Syntax, length=LENGTH, motifs=MOTIFS, n=7, budget=97, n_motifs=2,
                   spacing=gaps.assign(motif_a="first", motif_b="second"), position=pd.concat(places))
    assert found.score[0] == pytest.approx(BEST)
    assert found.found_at[0] < 60


def test_good_layouts_are_improved_upon():
    """Rules that favour a wrong gap: the model corrects them, as single motifs are drawn again."""
    wrong = spacing(gap=[1, GAP], mean=[0.5, 0.4])
    found = design(objective(), method=Syntax, length=LENGTH, motifs=MOTIFS, spacing=wrong, n_motifs=2, n=5, budget=499)
    assert found.score[0] == pytest.approx(BEST)


@pytest.mark.parametrize(("method", "options"), [
    (Implant, {"motifs": MOTIFS}), (Syntax, {"motifs": MOTIFS, "spacing": spacing()})])
def test_the_same_seed_makes_the_same_designs(method, options):
    a, b, c = (design(objective(), method=method, length=LENGTH, n=3, budget=199, seed=seed, **options)
               for seed in (7, 7, 8))
    assert np.array_equal(a.codes, b.codes)
    assert not np.array_equal(a.codes, c.codes)
    assert max(a.queries, c.queries) <= 199


@pytest.mark.parametrize("extra", [(), (Keep([0, 15, 30]), MaxEdits(14))])
def test_syntax_never_leaves_the_constraints(extra):
    starts = Constraints(RULES, length=LENGTH).random(5, np.random.default_rng(2))
    found = design(objective(), starts, Syntax, constraints=(*RULES, *extra), motifs=MOTIFS, spacing=spacing(), n=10,
                   budget=299)
    assert found.history["infeasible"].sum() == 0
    assert Constraints((*RULES, *extra), length=LENGTH).bind(starts).ok(found.codes, found.origin).all()
    assert found.score.max() == pytest.approx(BEST)


# ---- what is a motif, what is a rule


def test_motifs_are_spelled_without_what_they_do_not_care_about():
    ppm = np.full((4, 5), 0.25)
    ppm[:, 1], ppm[:, 3] = (0.97, 0.01, 0.01, 0.01), (0.01, 0.01, 0.01, 0.97)
    assert spelled([Motif("m", ppm)])["m"].tolist() == [0, 4, 3]
    assert spelled({"text": "aNt"})["text"].tolist() == [0, 4, 3]


@pytest.mark.parametrize(("motifs", "fault"), [
    ([], "one motif or more"), ({"x": "ACR"}, "made of ACGTN"), ({"x": "NN"}, "prefer no base"),
    ([Motif("m", np.eye(4)), Motif("m", np.eye(4))], "came twice")])
def test_motifs_that_cannot_be_used_are_refused(motifs, fault):
    with pytest.raises(SchemaError, match=fault):
        Implant(motifs)


@pytest.mark.parametrize(("options", "fault"), [
    ({"order": ["frist"]}, "did you mean 'first'"), ({"positions": {"x": 1}}, "none of the motifs"),
    ({"strands": "*"}, "strands"), ({"positions": {"first": 99}}, "can start at 0 to 24")])
def test_impossible_options_are_refused(options, fault):
    with pytest.raises(ConfigError, match=fault):
        design(objective(), codes(1), Implant, motifs=MOTIFS, n=1, **options)


@pytest.mark.parametrize(("options", "error", "fault"), [
    ({}, ConfigError, "needs rules"), ({"spacing": spacing(), "n_motifs": 0}, ConfigError, "n_motifs"),
    ({"spacing": spacing().drop(columns="gap")}, SchemaError, "missing: gap"),
    ({"spacing": spacing(motif_a="third")}, SchemaError, "'third'; options: first, second"),
    ({"spacing": spacing(orientation="+")}, SchemaError, r"options: \+\+"),
    ({"spacing": spacing(gap=[-1, 2])}, SchemaError, "1 of 2 rules of spacing"),
    ({"spacing": spacing(mean=[np.nan, 1.0])}, SchemaError, "mean"),
    ({"spacing": spacing(track=3)}, SchemaError, "no rows of track 0; tracks: 3"),
    ({"position": position("first", {1: 1.0}, ".")}, SchemaError, "strand")])
def test_rules_that_cannot_be_used_are_refused(options, error, fault):
    with pytest.raises(error, match=fault):
        Syntax(MOTIFS, **options)
