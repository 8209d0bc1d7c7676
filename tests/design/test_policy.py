"""Policy gradients against exact ones, the pull of the KL, masks, and reward through diffusion."""

import copy
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ciscribe.design.constraints import Constraints
from ciscribe.design.designer import Problem, Proposal
from ciscribe.design.generators import AutoregressiveLM, MaskedDiffusion
from ciscribe.design.objective import Maximize
from ciscribe.design.policy import GRPO, Drakes, Reinforce, divergence, masked_logps
from ciscribe.design.rules import Avoid, Homopolymer, MaxEdits
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError, UnsupportedError
from ciscribe.oracle import Oracle
from ciscribe.sequence import one_hot_tensor
from ciscribe.testing import check_designer

pytestmark = pytest.mark.slow  # networks are trained

LENGTH = 19
ORIGIN = np.zeros(64, np.int64)
RULES = Constraints([Homopolymer(2), Avoid("CG", both_strands=False), Avoid("GAT")], flanks=("AC", "GG"),
                    length=LENGTH)


class Count(nn.Module):
    """A is good, T is bad."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 0.2, 0.0, -1.0]))

    def forward(self, X: Tensor) -> Tensor:
        return (X * self.weight[:, None]).sum(dim=(1, 2))[:, None]


def objective() -> Maximize:
    return Maximize(Oracle(Count(), device="cpu"))


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks of seven channels: a second thread only waits for the first."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def writer(length: int = LENGTH, seed: int = 0) -> AutoregressiveLM:
    torch.manual_seed(seed)
    return AutoregressiveLM(length, channels=7, n_layers=2).eval()


def revealer(length: int = LENGTH, seed: int = 0) -> MaskedDiffusion:
    torch.manual_seed(seed)
    return MaskedDiffusion(length, channels=7, n_layers=2, kernel=3).eval()


def everything(length: int) -> np.ndarray:
    return np.array(list(product(range(4), repeat=length)), np.uint8)


def problem(constraints: Constraints, seed: int = 0, ask=None) -> Problem:
    assert constraints.length is not None
    return Problem(None, None, constraints.length, constraints, 3, 10**6, np.random.default_rng(seed), ask)


def disturbed(model: nn.Module, size: float) -> None:
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in model.parameters():
            value += size * torch.randn(value.shape, generator=noise)


def log_table(designer, model, codes: np.ndarray, constraints: Constraints) -> Tensor:
    return masked_logps(model, codes, designer.labels(len(codes)), constraints.continuations(codes)).sum(1)


# ---- the probabilities within the constraints


def test_the_allowed_sequences_have_all_the_probability():
    rules = Constraints([Homopolymer(1), Avoid("CA")], flanks=("G", "T"), length=4)
    designer = Reinforce(writer(4))
    designer.start(problem(rules))
    codes = everything(4)
    codes = codes[rules.ok(codes)]
    p = log_table(designer, designer.policy, codes, rules).exp()
    assert float(p.sum().detach()) == pytest.approx(1, abs=1e-5)
    drawn = np.concatenate([designer.write(ORIGIN) for _ in range(80)])
    assert rules.ok(drawn).all()
    places = {row.tobytes(): i for i, row in enumerate(codes)}
    share = np.bincount([places[row.tobytes()] for row in drawn], minlength=len(codes)) / len(drawn)
    error = np.sqrt(p.detach().numpy() / len(drawn))
    assert np.abs((share - p.detach().numpy()) / error).max() < 4.5


# ---- gradients


def test_the_gradient_of_reinforce_is_the_exact_one_in_expectation():
    rules = Constraints([Homopolymer(1), Avoid(["CG", "AC", "TA"])], length=3)
    codes = everything(3)
    codes = codes[rules.ok(codes)]
    reward = torch.from_numpy(np.random.default_rng(0).normal(size=len(codes)))
    designer = Reinforce(writer(3).double(), kl=0.37)
    designer.start(problem(rules))
    disturbed(designer.policy, 0.2)
    weights = list(designer.policy.parameters())

    logp = log_table(designer, designer.policy, codes, rules)
    known = log_table(designer, designer.reference, codes, rules)
    exact = (logp.exp() * (reward - 0.37 * (logp - known))).sum()
    wanted = torch.autograd.grad(exact, weights, allow_unused=True)

    p = logp.detach().exp()
    legal = rules.continuations(codes)
    expected = torch.zeros((), dtype=torch.float64)
    for i, j in product(range(len(codes)), repeat=2):  # every batch of two, as often as the policy draws it
        pair = [i, j]
        expected = expected - p[i] * p[j] * designer.loss(codes[pair], legal[pair], reward[pair])
    found = torch.autograd.grad(expected, weights, allow_unused=True)
    size = max(float(value.abs().max()) for value in wanted if value is not None)
    assert size > 1e-3
    for a, b in zip(wanted, found, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert torch.allclose(a, b, atol=1e-6 * size)


def test_reinforce_settles_on_the_best_policy_under_its_kl():
    rules = Constraints([Homopolymer(1)], length=2)
    codes = everything(2)
    codes = codes[rules.ok(codes)]
    designer = Reinforce(writer(2), kl=1.0, learning_rate=0.02, batch=64)
    designer.start(problem(rules))
    designer.scale = 1.0
    worth = dict(zip(map(bytes, codes), np.random.default_rng(1).normal(size=len(codes)) * 2, strict=True))
    for _ in range(150):
        made = Proposal(designer.write(ORIGIN), ORIGIN)  # not propose: all twelve are soon known
        designer.observe(made, np.array([worth[bytes(row)] for row in made.codes]))
    reward = torch.tensor([worth[bytes(row)] for row in codes])
    with torch.no_grad():
        best = (log_table(designer, designer.reference, codes, rules).double() + reward).softmax(0)
        found = log_table(designer, designer.policy, codes, rules).double().exp()
        before = log_table(designer, designer.reference, codes, rules).double().exp()
    assert float((found - best).abs().sum() / 2) < 0.02
    assert float((before - best).abs().sum() / 2) > 0.2


@pytest.mark.parametrize(("kind", "kl"), [(Reinforce, 1.0), (GRPO, 1.0)])
def test_without_reward_the_kl_pulls_a_policy_back_to_the_reference(kind, kl):
    rules = Constraints([Homopolymer(2)], length=4)
    codes = everything(4)
    codes = codes[rules.ok(codes)]

    def away() -> float:
        with torch.no_grad():
            logp, known = (log_table(designer, model, codes, rules) for model in (designer.policy, designer.reference))
        return float((logp.exp() * (logp - known)).sum())

    designer = kind(writer(4), kl=kl, learning_rate=0.01, batch=64)
    designer.start(problem(rules))
    disturbed(designer.policy, 0.3)
    first = away()
    for _ in range(40):
        designer.observe(Proposal(designer.write(ORIGIN), ORIGIN), np.zeros(64))
    assert first > 0.1
    assert away() < 0.3 * first


@pytest.mark.parametrize("kind", [Reinforce, GRPO])
def test_more_kl_stays_nearer_to_the_reference(kind):
    kls, gains = [], []
    for kl in (0.0, 1.0):
        designer = kind(writer(), kl=kl, learning_rate=0.01, batch=32)
        designer.start(problem(RULES))
        score = np.zeros(0)
        for _ in range(25):
            proposal = designer.propose(32)
            score = objective()(proposal.codes).detach().double().numpy()
            designer.observe(proposal, score)
        legal = RULES.continuations(proposal.codes)
        with torch.no_grad():
            kls.append(float((designer.logps(designer.policy, proposal.codes, legal)
                              - designer.logps(designer.reference, proposal.codes, legal)).sum(1).mean()))
        gains.append(score.mean())
    assert kls[1] < 0.5 * kls[0]
    assert gains[1] < gains[0]


# ---- diffusion


def test_the_gradient_through_denoising_is_that_of_the_relaxed_bases():
    designer = Drakes(revealer(), batch=5, steps=7, last=3)
    designer.start(problem(RULES, ask=objective()))
    codes, relaxed, kl = designer.denoise(np.zeros(5, np.int64))
    assert RULES.ok(codes).all()
    assert set(relaxed.detach().round(decimals=5).unique().tolist()) <= {0.0, 1.0}
    assert torch.allclose(relaxed.detach().sum(1), torch.ones(5, LENGTH))
    assert float(kl.detach().abs().max()) == pytest.approx(0, abs=1e-5)  # nothing was learned yet
    slopes = torch.autograd.grad(relaxed[:, 0].sum(), list(designer.policy.parameters()), allow_unused=True)
    assert any(slope is not None and bool(slope.abs().max() > 0) for slope in slopes)


def test_only_the_last_steps_are_trained():
    designer = Drakes(revealer(), batch=5, steps=LENGTH, last=1)
    designer.start(problem(RULES, ask=objective()))
    _, relaxed, _ = designer.denoise(np.zeros(5, np.int64))
    slope, = torch.autograd.grad(relaxed[:, 0].sum(), designer.policy.network.position)
    assert (slope.abs().sum(0) > 0).sum() <= LENGTH
    relaxed_all = Drakes(revealer(), batch=5, steps=LENGTH, last=LENGTH)
    relaxed_all.start(problem(RULES, ask=objective()))
    more, = torch.autograd.grad(relaxed_all.denoise(np.zeros(5, np.int64))[1][:, 0].sum(),
                                relaxed_all.policy.network.position)
    assert more.abs().sum() > slope.abs().sum()


def test_the_divergence_is_the_sum_over_bases():
    rng = np.random.default_rng(0)
    p, q = (torch.from_numpy(rng.normal(size=(3, 4, 5))).log_softmax(1) for _ in range(2))
    where = torch.from_numpy(rng.random((3, 1, 5)) < 0.5)
    by_hand = [sum(float(p[n, c, i].exp() * (p[n, c, i] - q[n, c, i])) for c in range(4) for i in range(5)
                   if where[n, 0, i]) for n in range(3)]
    assert divergence(p, q, where).tolist() == pytest.approx(by_hand)


def test_diffusion_learns_what_is_rewarded_and_the_kl_holds_it():
    means, away = [], []
    for kl in (0.0, 3.0):
        designer = Drakes(revealer(), batch=32, steps=8, last=4, learning_rate=0.01, kl=kl)
        designer.start(problem(RULES, ask=objective()))
        codes = np.concatenate([designer.propose(10**4).codes for _ in range(25)])
        means.append(objective()(codes[-160:]).mean().item() - objective()(codes[:32]).mean().item())
        with torch.no_grad():
            away.append(float(designer.denoise(ORIGIN)[2].mean()))
    assert means[0] > 1.5
    assert means[1] < means[0]
    assert away[1] < 0.5 * away[0]


# ---- as designers


METHODS = [(Reinforce, writer, {"batch": 32}), (GRPO, writer, {"batch": 32, "epochs": 2}),
           (Drakes, revealer, {"batch": 16, "steps": 5, "last": 2})]


@pytest.mark.parametrize(("kind", "make", "options"), METHODS)
@pytest.mark.parametrize("with_starts", [False, True])
def test_the_contract_of_designers_holds_and_the_generator_stays_as_it_was(kind, make, options, with_starts):
    generator = make()
    before = copy.deepcopy(dict(generator.named_parameters()))
    rules, start = RULES, None
    if with_starts:
        start = RULES.random(3, np.random.default_rng(0))
        rules = Constraints([*RULES.rules, MaxEdits(6)], flanks=RULES.flanks, length=LENGTH)
    check_designer(partial(design, method=kind), objective(), rules, start, n=5, budget=400, generator=generator,
                   learning_rate=0.01, **options)
    assert all(torch.equal(before[name], value) for name, value in generator.named_parameters())
    assert all(weight.requires_grad for weight in generator.parameters())


@pytest.mark.parametrize(("kind", "make", "options"), METHODS)
def test_later_designs_score_higher_than_those_of_the_generator(kind, make, options):
    made = design(objective(), None, kind, length=LENGTH, constraints=RULES.rules, flanks=RULES.flanks, n=5,
                  budget=2_500, generator=make(), learning_rate=0.02, kl=0.0, **options)
    rng = np.random.default_rng(0)
    random = float(objective()(one_hot_tensor(torch.from_numpy(RULES.random(500, rng)))).max())
    assert made.score.mean() > random
    assert made.history["infeasible"].sum() == 0


def test_a_policy_that_has_settled_ends_the_run():
    made = design(objective(), None, Reinforce, length=3, constraints=[Homopolymer(1)], n=2, budget=5_000,
                  generator=writer(3), batch=16)
    assert made.attrs["stopped"] == "exhausted"
    assert made.queries <= 36 + 2


@pytest.mark.parametrize(("kind", "make", "change", "match"), [
    (Reinforce, writer, {"batch": 1}, "at least 2 sequences; got 1"),
    (Reinforce, writer, {"kl": -1.0}, "kl 0 or more"),
    (GRPO, writer, {"clip": 1.0}, "clip"),
    (GRPO, writer, {"epochs": 0}, "epochs"),
    (Drakes, revealer, {"last": 9, "steps": 8}, "last=9, steps=8"),
    (Drakes, revealer, {"temperature": 0.0}, "temperature"),
    (GRPO, partial(writer, 7), {}, "writes sequences of 7 bp, the design wants 19 bp"),
    (Drakes, partial(revealer, 7), {}, "writes sequences of 7 bp, the design wants 19 bp"),
])
def test_impossible_settings(kind, make, change, match):
    with pytest.raises(ConfigError, match=match):
        design(objective(), None, kind, length=LENGTH, n=2, budget=100, generator=make(), **change)


def test_diffusion_needs_a_gradient():
    class Blind(Maximize):
        differentiable = False

    with pytest.raises(UnsupportedError, match="drakes follows the gradient"):
        design(Blind(Oracle(Count(), device="cpu")), None, Drakes, length=LENGTH, n=2, budget=100,
               generator=revealer())
