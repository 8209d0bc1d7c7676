"""Annealing, genetic, AdaLead: fair mutations, rollouts that stop, starts kept apart, constraints never left."""

import numpy as np
import pytest
import torch
from scipy import stats

from ciscribe.design.constraints import GC, Avoid, Constraints, EditScope, Homopolymer, Keep, MaxEdits
from ciscribe.design.designer import Designer, Problem, Proposal
from ciscribe.design.population import AdaLead, Anneal, Genetic
from ciscribe.design.rounds import draw, mutate, settle
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError
from planted_law import BEST, LENGTH, objective

DESIGNERS = (Anneal, Genetic, AdaLead)
RULES = (Avoid(["BsaI", "CATG"]), Homopolymer(3), GC(0.3, 0.6))


@pytest.fixture(autouse=True)
def one_thread():
    """Of tiny models, several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def codes(n: int, seed: int = 0, length: int = LENGTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)


def problem(starts: np.ndarray | None = None, score: float = 0.0, n: int = 7, rules: tuple = (), seed: int = 0,
            length: int = LENGTH) -> Problem:
    constraints = Constraints(rules, length=length)
    return Problem(starts, None if starts is None else np.full(len(starts), score), length,
                   constraints if starts is None else constraints.bind(starts), n, 10**6, np.random.default_rng(seed))


def begun(designer: Designer, of: Problem) -> Designer:
    designer.start(of)
    return designer


def answered(designer: Designer, proposal: Proposal, score: np.ndarray) -> Proposal:
    """The next proposal, after the scores of the last."""
    designer.observe(proposal, score)
    return designer.propose(10**6)


# ---- mutations


def test_all_positions_and_all_twelve_substitutions_are_equally_probable():
    before = np.tile(np.arange(4, dtype=np.uint8), (9_973, 5))
    after = mutate(before, np.zeros(len(before), int), np.ones(len(before), int), Constraints((), length=20),
                   np.random.default_rng(3))
    row, position = np.nonzero(after != before)
    assert np.array_equal(row, np.arange(len(before)))
    table = np.zeros((4, 4))
    np.add.at(table, (before[row, position], after[row, position]), 1)
    assert (table.diagonal() == 0).all()
    assert stats.chisquare(table[~np.eye(4, dtype=bool)]).pvalue > 1e-3
    assert stats.chisquare(np.bincount(position, minlength=20)).pvalue > 1e-3


@pytest.mark.parametrize("base", range(4))
def test_the_genetic_algorithm_mutates_every_base_to_the_three_others(base: int):
    """In the published notebook G and T never become A, and may become themselves."""
    start = np.full((1, LENGTH), base, np.uint8)
    designer = begun(Genetic(population=997, crossover=0), problem(start))
    children = designer.propose(10**6).codes
    counts = np.bincount(children[children != base], minlength=4)
    assert counts[base] == 0
    assert stats.chisquare(np.delete(counts, base)).pvalue > 1e-3
    assert abs(counts.sum() / len(children) - 1) < 0.15  # one mutation a child


def test_several_mutations_hit_several_positions():
    before, counts = codes(11), np.arange(11)
    after = mutate(before, np.zeros(11, int), counts, Constraints((), length=LENGTH), np.random.default_rng(0))
    assert (after != before).sum(axis=1).tolist() == counts.tolist()


def test_mutations_stay_allowed_and_stop_where_nothing_is():
    of = problem(codes(1), rules=(MaxEdits(2), EditScope([3, 5, 7])))
    after = mutate(np.repeat(of.starts, 13, axis=0), np.zeros(13, int), np.full(13, 5), of.constraints, of.rng)
    assert ((after != of.starts).sum(axis=1) == 2).all()
    assert of.constraints.ok(after, np.zeros(13, int)).all()


def test_settling_makes_the_fewest_changes_and_none_of_what_is_fixed():
    constraints = Constraints([Homopolymer(3)], length=7)
    broken = np.array([[0, 0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 0, 1, 2]], np.uint8)
    made, is_possible = settle(broken, np.zeros(2, int), constraints)
    assert is_possible.all()
    assert (made != broken).sum(axis=1).tolist() == [1, 0]
    fixed = np.array([[1, 1, 1, 0, 1, 1, 1], [1] * 7], bool)
    made, _ = settle(broken, np.zeros(2, int), constraints, fixed)
    assert (made != broken)[0].tolist() == [False] * 3 + [True] + [False] * 3
    _, is_possible = settle(broken, np.zeros(2, int), constraints, np.ones((2, 7), bool))
    assert is_possible.tolist() == [False, True]


def test_drawing_is_the_argmax_where_that_is_allowed():
    logits = np.random.default_rng(5).normal(size=(53, 4, 13))
    constraints = Constraints([Homopolymer(1)], length=13)
    made = draw(logits, np.zeros(53, int), constraints, np.random.default_rng(0))
    fine = constraints.ok(logits.argmax(axis=1).astype(np.uint8))
    assert 0 < fine.sum() < 53
    assert np.array_equal(made[fine], logits.argmax(axis=1)[fine])
    assert constraints.ok(made).all()


# ---- each algorithm


def test_crossing_takes_one_stretch_from_the_other_parent():
    starts = np.zeros((1, LENGTH), np.uint8)
    designer = begun(Genetic(population=31, mutation=0, crossover=1), problem())
    first = designer.propose(10**6)
    assert len(first.codes) == 31
    assert starts.shape[1] == LENGTH
    children = answered(designer, first, np.arange(31.0)).codes
    for child in children:
        alike = first.codes == child  # one parent outside of a stretch, another inside
        explained = [(alike[a] | (alike[b] & inside)).all() for a in range(31) for b in range(31)
                     for inside in [_stretch(~alike[a])]]
        assert any(explained)


def _stretch(changed: np.ndarray) -> np.ndarray:
    inside = np.zeros(len(changed), bool)
    if changed.any():
        inside[changed.argmax():len(changed) - changed[::-1].argmax()] = True
    return inside


def test_the_best_individual_survives():
    designer = begun(Genetic(population=17), problem())
    round_ = designer.propose(10**6)
    best = round_.codes[5].copy()
    for _ in range(3):
        round_ = answered(designer, round_, (round_.codes == best).mean(axis=1))
        assert (round_.codes == best).all(axis=1).any()


@pytest.mark.parametrize("make", [lambda: Genetic(mutation=0, crossover=1), lambda: AdaLead(mu=1, recombination=0.5)])
def test_what_comes_of_one_start_never_meets_another(make):
    """With two bases a start, allowed are only these: a mixture would show."""
    starts = np.stack([np.tile([0, 1], LENGTH)[:LENGTH], np.tile([2, 3], LENGTH)[:LENGTH]]).astype(np.uint8)
    designer = begun(make(), problem(starts, rules=(MaxEdits(4),)))
    round_ = designer.propose(10**6)
    for step in range(5):
        assert set(round_.origin.tolist()) == {0, 1} or step
        assert ((round_.codes != starts[round_.origin]).sum(axis=1) <= 4).all()
        round_ = answered(designer, round_, np.random.default_rng(step).random(len(round_.codes)))


def test_adalead_rolls_out_until_a_child_is_worse_than_its_root():
    start = codes(1)
    designer = begun(AdaLead(n_roots=1, recombination=0), problem(start, score=1.0))
    root = designer.propose(10**6)
    assert np.array_equal(root.codes, start)  # provided starts are the first parents
    node, round_ = root.codes, answered(designer, root, np.array([1.0]))
    for value in (3.0, 2.0, 1.0):  # never worse than the root, though worse than the node before
        assert (round_.codes != node).sum() >= 1
        node, round_ = round_.codes, answered(designer, round_, np.array([value]))
    assert (round_.codes != node).sum() >= 1
    best = answered(designer, round_, np.array([0.5])).codes  # worse: a new generation, from the best of all
    assert not np.array_equal(best, round_.codes)
    assert 1 <= (best != start).sum() <= LENGTH


def test_adalead_begins_with_all_starts_it_is_given():
    starts = codes(5)
    designer = begun(AdaLead(recombination=0), problem(starts))
    roots = designer.propose(10**6)
    assert np.array_equal(np.unique(roots.codes, axis=0), np.unique(starts, axis=0))
    assert (roots.codes == starts[roots.origin]).all()


def test_adalead_takes_parents_close_to_the_best_whatever_the_sign_of_scores():
    designer = begun(AdaLead(n_roots=101, kappa=0.05, recombination=0), problem())
    first = designer.propose(10**6)
    roots = answered(designer, first, -np.arange(101.0)).codes  # best 0, worst -100: parents are 0 to -5
    assert np.array_equal(np.unique(roots, axis=0), np.unique(first.codes[:6], axis=0))


def test_annealing_without_temperature_only_climbs():
    designer = begun(Anneal(temperature=0, n_positions=3), problem(n=13))
    round_, values = designer.propose(10**6), []
    rng, now = np.random.default_rng(0), round_.codes
    score = rng.random(13)
    for _ in range(20):
        changed = answered(designer, round_, score if not values else new)
        edits = (changed.codes != now).sum(axis=1)
        assert edits.min() >= 1
        assert edits.max() <= 3
        new = rng.random(13)
        values.append(new)
        now = np.where((new >= score)[:, None], changed.codes, now)
        score, round_ = np.maximum(score, new), changed


def test_annealing_accepts_losses_as_often_as_the_temperature_says():
    of = problem(np.zeros((1, LENGTH), np.uint8), n=4_999)
    designer = begun(Anneal(temperature=0.5, n_positions=1), of)
    first = designer.propose(10**6)
    second = answered(designer, first, np.full(4_999, -0.5)).codes  # of zeros: accepted with exp(-1)
    accepted = (second != 0).sum(axis=1) - 1  # 0 or 1 edits stand when the next is added; hitting one twice is rare
    assert abs((accepted >= 1).mean() - np.exp(-1) * (1 - 1 / LENGTH)) < 0.03


# ---- through the runner


@pytest.mark.parametrize("method", DESIGNERS)
def test_the_known_optimum_is_reached_within_the_budget(method):
    found = design(objective(), method=method, length=LENGTH, n=17, budget=5_000, seed=1)
    assert found.score[0] == pytest.approx(BEST)
    assert found.queries <= 5_000


@pytest.mark.parametrize("method", DESIGNERS)
def test_the_same_seed_makes_the_same_designs(method):
    a, b, c = (design(objective(), method=method, length=LENGTH, n=19, budget=499, seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(a.codes, b.codes)
    assert np.array_equal(a.found_at, b.found_at)
    assert not np.array_equal(a.codes, c.codes)


@pytest.mark.parametrize("method", DESIGNERS)
@pytest.mark.parametrize("extra", [(), (MaxEdits(5), Keep([2, 11, 17])), (EditScope(range(4, 29)),)])
def test_nothing_is_proposed_that_is_not_allowed(method, extra):
    starts = Constraints(RULES, length=LENGTH).random(5, np.random.default_rng(2))
    found = design(objective(), starts, method, constraints=(*RULES, *extra), n=20, budget=1_499)
    assert found.history["infeasible"].sum() == 0
    assert found.history["proposed"].sum() > 500
    assert Constraints((*RULES, *extra), length=LENGTH).bind(starts).ok(found.codes, found.origin).all()
    assert (found.gain >= 0).all()
    assert set(found.origin) == set(range(5))


@pytest.mark.parametrize(("make", "fault"), [
    (lambda: Anneal(n_positions=0), "n_positions"), (lambda: Anneal(temperature=-1), "temperature"),
    (lambda: Genetic(population=1), "population"), (lambda: Genetic(crossover=1.5), "crossover"),
    (lambda: Genetic(mutation=-0.1), "mutation"), (lambda: AdaLead(kappa=2), "kappa"),
    (lambda: AdaLead(mu=0), "mu"), (lambda: AdaLead(n_roots=0), "n_roots")])
def test_impossible_options_are_refused(make, fault):
    with pytest.raises(ConfigError, match=fault):
        make()
