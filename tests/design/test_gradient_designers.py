"""Designers that follow slopes: hard and allowed sequences only, models left alone, the published steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ciscribe.design.constraints import GC, Avoid, Constraints, Homopolymer, Keep, MaxEdits
from ciscribe.design.designer import Designer, Problem
from ciscribe.design.gradient import Edit, Latent, SeqProp
from ciscribe.design.objective import Maximize, Target
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError, DivergedError, SchemaError, UnsupportedError
from ciscribe.oracle import Oracle
from ciscribe.sequence import one_hot_tensor
from planted_law import BEST, LENGTH, Law, objective
from reference.straight_through import ledidi, seqprop

RULES = (Avoid(["BsaI", "CATG"]), Homopolymer(3), GC(0.3, 0.6))
STEPS = 7


@pytest.fixture(autouse=True)
def one_thread():
    """Of tiny models, several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Decoder(nn.Module):
    """A generator without training: random relaxed sequences, smooth in z."""

    n_latent = 11

    def __init__(self, length: int = LENGTH):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(11, 4, length, generator=generator))
        self.dropout = nn.Dropout(0.5)

    def decode(self, z: Tensor) -> Tensor:
        return torch.einsum("nz,zbl->nbl", self.dropout(z), self.weight).softmax(dim=1)


LATENT = {"generator": Decoder(), "n_steps": 30, "learning_rate": 0.1}


class Watched:
    """The planted law, and everything that it was asked."""

    def __init__(self, model: nn.Module | None = None):
        self.model = (model or Law()).eval().requires_grad_(False)
        self.asked: list[np.ndarray] = []

    def __call__(self, X: Tensor) -> Tensor:
        assert ((X == 0) | (X == 1)).all()
        assert (X.sum(dim=1) == 1).all()
        self.asked.append(X.detach().argmax(dim=1).numpy().astype(np.uint8))
        return self.model(X)[:, 0]


def codes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (n, LENGTH)).astype(np.uint8)


def problem(ask, starts: np.ndarray | None = None, *, n: int = 1, rules: tuple = (), seed: int = 0,
            budget: int = 10**6) -> Problem:
    constraints, score = Constraints(rules, length=LENGTH), None
    if starts is not None:
        constraints = constraints.bind(starts)
        with torch.no_grad():
            score = Law().eval()(one_hot_tensor(torch.from_numpy(starts)))[:, 0].double().numpy()
    return Problem(starts, score, LENGTH, constraints, n, budget, np.random.default_rng(seed), ask)


def run_out(designer: Designer, of: Problem, score: float = 0.0) -> list[np.ndarray]:
    """Every round that a designer proposes until its end."""
    designer.start(of)
    rounds = []
    while len((proposal := designer.propose(10**6)).codes):
        rounds.append(proposal.codes)
        designer.observe(proposal, np.full(len(proposal.codes), score))
    return rounds


def rows(batches: list[np.ndarray]) -> set[bytes]:
    return {row.tobytes() for batch in batches for row in batch}


# ---- the published steps


def test_edit_draws_what_ledidi_draws():
    starts = codes(2)
    law, steps = Watched(), 17
    designer = Edit(penalty=0.07, learning_rate=0.7, n_steps=steps, n_samples=13, prune=False)
    designer.start(problem(law, starts, n=2, seed=3))
    designer.propose(10**6)
    rng = np.random.default_rng(3)
    noise = np.stack([rng.gumbel(size=(2, 13, 4, LENGTH)) for _ in range(steps)])
    drawn = [batch for i in range(2) for batch in ledidi(lambda X: law.model(X)[:, 0], starts[i], noise[:, i],
                                                         penalty=0.07, rate=0.7)]
    assert len(rows(drawn)) > 50
    assert rows(law.asked) == rows(drawn)
    assert sum(map(len, law.asked)) == len(rows(drawn))  # nothing is asked twice


def test_seqprop_draws_what_fast_seqprop_draws():
    law = Watched()
    designer = SeqProp(n_steps=STEPS, n_samples=11)
    designer.start(problem(law, seed=5))
    designer.propose(10**6)
    rng = np.random.default_rng(5)
    theta = rng.standard_normal((1, 4, LENGTH))
    noise = np.stack([rng.gumbel(size=(1, 11, 4, LENGTH))[0] for _ in range(STEPS)])
    drawn = seqprop(lambda X: law.model(X)[:, 0], theta[0], noise, rate=0.5)
    assert len(rows(drawn)) > 50
    assert rows(drawn) == rows(law.asked)


# ---- edits


def test_starts_are_edited_independently_of_each_other():
    starts = codes(3)
    with torch.no_grad():
        starts[1] = design(objective(), starts[[1]], SeqProp, n=1, budget=1_000).codes[0]  # nothing is left to gain
    found = design(objective(), starts, Edit, n=3, budget=2_000)
    by_start = np.argsort(found.origin)
    assert found.origin[by_start].tolist() == [0, 1, 2]
    assert found.edits[by_start][1] == 0
    assert (found.gain[by_start][[0, 2]] > 1).all()


def test_no_edit_is_left_that_brings_less_than_it_costs():
    starts, law = codes(5, seed=1), Watched()
    cost = 0.2
    made = run_out(Edit(penalty=0.4, label_sd=0.5, n_steps=60), problem(law, starts, n=5, budget=20_000))[0]
    score = law(one_hot_tensor(torch.from_numpy(made)))
    rough = run_out(Edit(penalty=0.4, label_sd=0.5, n_steps=60, prune=False), problem(law, starts, n=5))[0]
    assert ((made != starts).sum() <= (rough != starts).sum())
    assert (made != starts).any()
    for i, position in np.argwhere(made != starts):
        back = made[[i]].copy()
        back[0, position] = starts[i, position]
        assert float(score[i] - law(one_hot_tensor(torch.from_numpy(back)))[0]) >= cost - 1e-6


def test_useless_edits_are_pruned_for_all_starts_at_once():
    """A model that wants one base; all other changes bring a little, which is less than they cost."""
    class First(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            return X[:, :1, 0] + 0.01 * (X[:, 0] + X[:, 1]).sum(dim=1, keepdim=True)

    starts, law = np.full((7, LENGTH), 2, np.uint8), Watched(First())
    of = replace(problem(law, starts, n=7), start_score=np.zeros(7))
    designers = [Edit(penalty=0.02, n_steps=9, n_samples=2, prune=prune) for prune in (False, True)]
    for designer in designers:
        designer.start(replace(of, rng=np.random.default_rng(0)))
    rough, made = (designer.propose(10**6).codes for designer in designers)
    assert (rough[:, 0] == 0).all()
    assert ((rough != starts).sum(axis=1) > 1).any()
    assert (made[:, 0] == 0).all()
    assert ((made != starts).sum(axis=1) == 1).all()
    assert len(law.asked) <= 2 * 9 + (rough != starts).sum(axis=1).max()  # a call a step, and a round of reversals


def test_a_higher_price_means_fewer_edits():
    starts = codes(5, seed=2)
    cheap, dear = (design(objective(), starts, Edit, n=5, budget=2_000, penalty=penalty) for penalty in (0.01, 0.3))
    assert dear.edits.mean() < cheap.edits.mean()


def test_edit_needs_starts():
    with pytest.raises(ConfigError, match="edit changes given sequences"):
        design(objective(), method=Edit, length=LENGTH)


# ---- latent space


def test_latent_ascent_beats_the_decoder_and_leaves_it_alone():
    decoder = Decoder()
    decoder.train()
    decoder.weight.requires_grad_(True)
    with torch.no_grad():
        z = torch.from_numpy(np.random.default_rng(0).standard_normal((997, 11)).astype(np.float32))
        drawn = decoder.eval().decode(z).argmax(dim=1).numpy().astype(np.uint8)
        decoder.train()
    law = Watched()
    natural = float(law(one_hot_tensor(torch.from_numpy(drawn))).max())
    found = design(objective(), method=Latent, length=LENGTH, n=7, budget=1_500, generator=decoder, learning_rate=0.1,
                   n_steps=60)
    assert found.score[0] > natural
    assert decoder.training
    assert decoder.dropout.training
    assert decoder.weight.requires_grad
    assert decoder.weight.grad is None


def test_latent_refuses_starts_and_other_lengths():
    with pytest.raises(ConfigError, match="starts have no place"):
        design(objective(), codes(2), Latent, generator=Decoder(), n=2)
    with pytest.raises(SchemaError, match=r"decodes 2 points to \(2, 4, 29\)"):
        design(objective(), method=Latent, length=LENGTH, generator=Decoder(29), n=2)


# ---- what holds for all


def test_the_known_optimum_is_reached_within_the_budget():
    found = design(objective(), method=SeqProp, length=LENGTH, n=4, budget=2_000, seed=1)
    assert found.score[0] == pytest.approx(BEST)
    edited = design(objective(), codes(3), Edit, n=3, budget=2_000, seed=1)
    assert edited.score.max() == pytest.approx(BEST)


@pytest.mark.parametrize(("method", "start", "options"), [
    (SeqProp, None, {}), (SeqProp, codes(2), {}), (Edit, codes(2), {}), (Latent, None, LATENT)])
def test_budget_seed_and_hard_sequences(method, start, options):
    """Every sequence that the model sees is one that could be ordered; each counts once forwards and once back."""
    seen = []

    class Counting(Law):
        def forward(self, X: Tensor) -> Tensor:
            seen.append((X.detach().clone(), X.requires_grad))
            return super().forward(X)

    def run(seed: int):
        seen.clear()
        of = Maximize(Oracle(Counting(), device="cpu"))
        return design(of, start, method, length=None if start is not None else LENGTH, n=3, budget=401, seed=seed,
                      **options)

    found = run(4)
    assert all(((X == 0) | (X == 1)).all() for X, _ in seen)
    counted = sum(len(X) * (2 if follows else 1) for X, follows in seen)
    assert found.queries == counted
    assert 100 < counted <= 401
    again, other = run(4), run(5)
    assert np.array_equal(found.codes, again.codes)
    assert np.array_equal(found.score, again.score)
    assert not np.array_equal(found.codes, other.codes) or found.queries != other.queries


@pytest.mark.parametrize(("method", "options"), [(SeqProp, {}), (Edit, {})])
@pytest.mark.parametrize("extra", [(), (MaxEdits(5), Keep([2, 11, 17]))])
def test_nothing_is_proposed_that_is_not_allowed(method, options, extra):
    starts = Constraints(RULES, length=LENGTH).random(5, np.random.default_rng(2))
    found = design(objective(), starts, method, constraints=(*RULES, *extra), n=10, budget=1_500, **options)
    assert found.history["infeasible"].sum() == 0
    assert Constraints((*RULES, *extra), length=LENGTH).bind(starts).ok(found.codes, found.origin).all()
    assert found.gain.max() > 0.3


def test_latent_designs_are_allowed():
    found = design(objective(), method=Latent, length=LENGTH, constraints=RULES, n=5, budget=500, **LATENT)
    assert found.history["infeasible"].sum() == 0
    assert Constraints(RULES, length=LENGTH).ok(found.codes).all()


@pytest.mark.parametrize("method", [SeqProp, Edit])
def test_models_are_left_as_they_were(method):
    model = Law()
    model.train()
    model.first.requires_grad_(False)
    design(Maximize(Oracle(model, device="cpu")), codes(2), method, n=2, budget=500)
    assert model.training
    assert model.dropout.training
    assert not model.first.requires_grad
    assert model.second.requires_grad
    assert model.first.grad is None
    assert model.second.grad is None


def test_targets_are_approached_from_both_sides():
    found = design(Target(Oracle(Law(), device="cpu"), value=1.7, tolerance=0.1), codes(5), Edit, n=5, budget=2_000)
    assert (found.score > -0.3).all()


def test_small_budgets_take_fewer_steps_and_too_small_ones_are_refused():
    found = design(objective(), method=SeqProp, length=LENGTH, n=2, budget=300)
    assert 200 < found.queries <= 300
    with pytest.raises(ConfigError, match="seqprop needs 100 queries"):
        design(objective(), method=SeqProp, length=LENGTH, n=2, budget=100)


def test_objectives_without_gradient_are_refused():
    designer = SeqProp()
    designer.start(problem(None))
    with pytest.raises(UnsupportedError, match="genetic"):
        designer.propose(10)


def test_a_gradient_that_is_not_a_number_is_an_error():
    class Root(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            return (X.sum(dim=(1, 2)) - LENGTH).clamp_min(0).sqrt()[:, None]

    with pytest.raises(DivergedError, match="gradient of the objective"):
        run_out(SeqProp(n_steps=3), problem(Watched(Root())))


@pytest.mark.parametrize(("make", "fault"), [
    (lambda: SeqProp(n_steps=0), "n_steps"), (lambda: SeqProp(n_samples=0), "n_samples"),
    (lambda: Edit(patience=0), "patience"), (lambda: Edit(penalty=-1), "penalty"),
    (lambda: Latent(Decoder(), n_steps=0), "n_steps")])
def test_impossible_options_are_refused(make, fault):
    with pytest.raises(ConfigError, match=fault):
        make()
