"""Generators of sequences: likelihoods against enumeration, samplers against exact posteriors, labels, constraints."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import beta, betainc

from ciscribe.design.constraints import GC, Avoid, Constraints, Homopolymer, MaxEdits
from ciscribe.design.designer import Problem
from ciscribe.design.generators import GENERATORS, WGAN, AutoregressiveLM, DirichletFlow, MaskedDiffusion, Sample
from ciscribe.design.generators.autoregressive import shaped
from ciscribe.design.generators.base import FREE
from ciscribe.design.generators.flow import c_factor
from ciscribe.errors import CheckpointError, ConfigError, SchemaError
from ciscribe.sequence import decode, encode
from ciscribe.train.generative import Examples
from reference import markov_source as source

pytestmark = pytest.mark.slow  # networks are trained

L = 11
STEP = source.table(2, evenness=2.0)
SMALL = {"channels": 32, "n_layers": 2}
QUICK = {"epochs": 1, "valid": 0.0, "batch_size": 37}


def tiny(name, length=L, **arguments):
    small = {"channels": 5} if name == "wgan" else {"channels": 5, "n_layers": 2}
    return GENERATORS[name](length, **small | arguments)


def codes_of(n, length=L, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)


@pytest.fixture(scope="module")
def quick():
    """One of each kind, fitted in no time, with activities: the share of G and C."""
    codes = codes_of(73)
    y = np.isin(codes, (1, 2)).mean(axis=1)
    return {name: tiny(name).fit(codes, y, **QUICK) for name in GENERATORS}


# ---- what is learned


@pytest.fixture(scope="module")
def many():
    """So many sequences of the source that their own noise does not count."""
    return source.draw(STEP, 40_000, L, seed=2)


@pytest.mark.parametrize(("cls", "arguments", "plan"), [
    (AutoregressiveLM, {}, {"epochs": 5, "learning_rate": 5e-3}),
    (MaskedDiffusion, {"kernel": 3}, {"epochs": 20, "learning_rate": 1e-2, "batch_size": 128}),
    (DirichletFlow, {"kernel": 3}, {"epochs": 20, "learning_rate": 1e-2, "batch_size": 128}),
], ids=lambda v: getattr(v, "__name__", ""))
def test_fit__draws_the_words_of_its_source(cls, arguments, plan, many):
    train = source.draw(STEP, 4000, L, seed=1)
    generator = cls(L, **SMALL | arguments).fit(train, valid=0.02, **plan)
    n = 60
    drawn = np.mean([source.divergence(generator.sample(n, seed=seed), many) for seed in range(8)])
    real = np.mean([source.divergence(source.draw(STEP, n, L, seed), many) for seed in range(10, 40)])
    even = source.divergence(codes_of(n), many)
    assert drawn < 1.5 * real
    assert even > 2.5 * real  # chance would not have passed
    found = generator.loglik(train[:500])
    if found is not None:  # of a source that it never saw exactly, below its entropy but not by much
        assert -0.03 < (found - source.loglik(STEP, train[:500])).mean() / L < 0.01


def test_wgan__approaches_its_source():
    skewed = np.random.default_rng(1).choice(4, p=[0.7, 0.1, 0.1, 0.1], size=(600, L)).astype(np.uint8)
    generator = WGAN(L, channels=7, n_latent=5)
    fitted = generator.fit(skewed, epochs=8, learning_rate=3e-3, seed=1)
    before, after = (source.divergence(g.sample(500), skewed, k=1) for g in (generator, fitted))
    assert after < 0.6 * source.divergence(codes_of(500), skewed, k=1)
    assert after < before


# ---- likelihoods


def every(length):
    return np.array(list(product(range(4), repeat=length)), dtype=np.uint8)


def test_autoregressive__probabilities_of_all_sequences_sum_to_one():
    torch.manual_seed(1)
    generator = AutoregressiveLM(5, channels=7, n_layers=2)
    with torch.no_grad():
        generator.network.head.weight.mul_(20)
    p = np.exp(generator.loglik(every(5), batch_size=101))
    assert p.sum() == pytest.approx(1, abs=1e-6)
    assert p.max() > 3 / 4**5  # not even


def test_autoregressive__a_base_is_read_by_later_ones_only():
    torch.manual_seed(2)
    generator = AutoregressiveLM(L, channels=7, n_layers=3)
    codes = torch.from_numpy(codes_of(3))
    changed = codes.clone()
    changed[:, 4] = (codes[:, 4] + 1) % 4
    with torch.no_grad():
        moved = (generator(codes) - generator(changed)).abs().amax((0, 1)) > 1e-6
    assert moved.tolist() == [False] * 5 + [True] * (L - 5)


def test_autoregressive__writing_step_by_step_gives_the_same_logits_also_when_it_starts_again():
    torch.manual_seed(3)
    generator = AutoregressiveLM(23, channels=7, n_layers=3)
    codes, labels = codes_of(5, 23), torch.arange(5)[:, None]
    with torch.no_grad():
        whole = generator(torch.from_numpy(codes), labels).numpy()
    step = generator.writer(labels)
    for i in [*range(23), 7, 0, 1, 2, 22]:
        np.testing.assert_allclose(step(codes[:, :i]).numpy(), whole[:, :, i], atol=2e-5)
    other = codes.copy()
    other[:, 3] = 3 - other[:, 3]
    with torch.no_grad():
        whole = generator(torch.from_numpy(other), labels).numpy()
    step(codes[:, :10])
    np.testing.assert_allclose(step(other[:, :11]).numpy(), whole[:, :, 11], atol=2e-5)
    with pytest.raises(ConfigError, match="writer of 5 sequences was asked for 2"):
        step(codes[:2, :3])


def test_autoregressive__draws_as_often_as_it_says():
    torch.manual_seed(1)
    generator = AutoregressiveLM(3, channels=7, n_layers=2)
    with torch.no_grad():
        generator.network.head.weight.mul_(20)
    drawn = generator.sample(10_000, batch_size=4001)
    counts = np.bincount(drawn.astype(int) @ [16, 4, 1], minlength=64)
    expected = 10_000 * np.exp(generator.loglik(every(3)))
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * np.sqrt(2 * 63)


def test_masked_diffusion__its_bound_is_one_and_every_mask_counts_as_it_should():
    torch.manual_seed(4)
    generator = MaskedDiffusion(3, channels=7, n_layers=2, kernel=3)
    with torch.no_grad():
        generator.network.head.weight.mul_(6)
    codes = every(3)
    exact = np.zeros(len(codes))  # of the continuous-time loss: each set S of masks weighs 1 / (|S| binom(L, |S|))
    for masked in product([False, True], repeat=3):
        size = sum(masked)
        if size:
            X = np.where(masked, 4, codes)
            hot = torch.from_numpy((X[:, None] == np.arange(5)[:, None]).astype(np.float32))
            with torch.no_grad():
                logp = generator(hot).log_softmax(1).numpy()
            told = np.take_along_axis(logp, codes[:, None].astype(int), axis=1)[:, 0]
            exact += (told * masked).sum(axis=1) / size / (3 if size in (1, 2) else 1)
    found = generator.loglik(codes, n_samples=500)
    assert np.square(found - exact).mean() ** 0.5 < 0.35 < 0.1 * exact.std()  # noise of 500 masks
    assert found.mean() == pytest.approx(exact.mean(), abs=0.1)
    assert np.exp(exact).sum() <= 1 + 1e-6  # a bound on probabilities


def test_masked_diffusion__the_bound_is_below_the_truth_and_reaches_it_with_the_exact_posterior():
    step = source.table(1, evenness=0.4)
    codes = source.draw(step, 300, L, seed=5)
    truth = source.loglik(step, codes).mean()
    exact = OfChain(step).loglik(codes, n_samples=33).mean()
    assert exact == pytest.approx(truth, abs=0.15)
    other = OfChain(source.table(1, evenness=0.4, seed=9)).loglik(codes, n_samples=33).mean()
    assert other < truth - 1


def test_loglik__is_none_where_there_is_none(quick):
    assert quick["wgan"].loglik(codes_of(3)) is None
    assert quick["dirichlet_flow"].loglik(codes_of(3)) is None


# ---- samplers, with a network that is never wrong


class OfChain(MaskedDiffusion):
    """Knows the chain of order 1 behind its sequences."""

    def __init__(self, step):
        super().__init__(L, channels=2, n_layers=1)
        self.step = step

    def forward(self, X, labels=None):
        evidence = np.where(X[:, 4:] > 0, 0, np.log(X[:, :4].numpy() + 1e-30))
        return torch.from_numpy(source.posterior(self.step, evidence))


class FlowOfChain(DirichletFlow):
    """Knows the chain of order 1 behind its sequences."""

    def __init__(self, step):
        super().__init__(L, channels=2, n_layers=1)
        self.step = step

    def forward(self, X, time, labels=None):
        evidence = (time[:, None, None].numpy() - 1) * np.log(X.numpy().astype(float) + 1e-30)
        return torch.from_numpy(source.posterior(self.step, evidence))


@pytest.mark.parametrize("cls", [OfChain, FlowOfChain])
def test_sample__with_exact_posteriors_is_the_source(cls):
    step = source.table(1, evenness=0.4)
    many = source.draw(step, 40_000, L, seed=1)
    n = 1500
    real = np.mean([source.divergence(source.draw(step, n, L, seed), many, k=3) for seed in range(2, 12)])
    assert source.divergence(cls(step).sample(n, batch_size=1500), many, k=3) < 1.5 * real


def test_sample__masked_diffusion_fills_in_between_given_bases():
    step = np.full((4, 4), 0.02) + 0.92 * np.roll(np.eye(4), 1, axis=1)  # A → C → G → T → A, nearly always
    fixed = np.full(L, FREE, np.uint8)
    fixed[5] = 1
    drawn = OfChain(step).sample(200, fixed=fixed)
    assert (drawn[:, 5] == 1).all()
    assert (drawn[:, 4] == 0).mean() > 0.85  # also to the left
    assert (drawn[:, 6] == 2).mean() > 0.85


@pytest.mark.parametrize("time", [1.0, 1.37, 2.9, 7.3])
def test_c_factor__is_the_quadrature(time):
    x = np.array([0.003, 0.07, 0.31, 0.77, 0.98])
    h = 1e-5  # the derivative of the regularized incomplete beta function, by differences
    slope = (betainc(time + h, 3, x) - betainc(time - h, 3, x)) / (2 * h)
    expected = -slope * beta(time, 3) / ((1 - x) ** 3 * x ** (time - 1))
    np.testing.assert_allclose(c_factor(torch.from_numpy(x), time).numpy(), expected, rtol=2e-4)
    ends = c_factor(torch.tensor([0.0, 1 - 2e-4, 1.0]), time)
    assert ends[0] == pytest.approx(0, abs=1e-9)
    assert ends[2] == pytest.approx(ends[1].item(), rel=1e-3)


def test_c_factor__makes_the_dirichlet_path():
    rng = np.random.default_rng(0)
    x, a, h = rng.dirichlet([1, 1, 1, 1], 20_000), 1.0, 0.02
    while a < 4 - h / 2:  # all flow to base 0
        x += h * c_factor(torch.from_numpy(x[:, :1]), a + h / 2).numpy() * (np.eye(4)[0] - x)
        a += h
    true = rng.dirichlet([4, 1, 1, 1], 20_000)
    np.testing.assert_allclose(x.mean(axis=0), true.mean(axis=0), atol=0.01)
    at = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(np.quantile(x[:, 0], at), np.quantile(true[:, 0], at), atol=0.02)


def test_shaped__temperature_top_k_and_top_p():
    p = np.array([[0.5, 0.3, 0.15, 0.05]])
    np.testing.assert_allclose(shaped(np.log(p), 0.5, None, None), 2 * np.log(p))
    assert (shaped(np.log(p), 1, 2, None) > -100).tolist() == [[True, True, False, False]]
    assert (shaped(np.log(p), 1, None, 0.81) > -100).tolist() == [[True, True, True, False]]
    assert (shaped(np.log(p[:, ::-1]), 1, None, 0.4) > -100).tolist() == [[False, False, False, True]]
    for wrong in ((0.0, None, None), (1.0, 0, None), (1.0, None, 1.2)):
        with pytest.raises(ConfigError, match="temperature > 0, top_k >= 1"):
            shaped(np.log(p), *wrong)


# ---- activity


@pytest.fixture(scope="module")
def conditional():
    """Knows that activity is the share of A."""
    rng = np.random.default_rng(3)
    share = rng.beta(2, 2, size=1500)
    codes = np.where(rng.random((1500, L)) < share[:, None], 0, rng.integers(1, 4, (1500, L))).astype(np.uint8)
    y = (codes == 0).mean(axis=1) + 0.01 * rng.normal(size=1500)
    return AutoregressiveLM(L, **SMALL).fit(codes, y, epochs=6, learning_rate=5e-3)


def test_sample__has_the_wanted_activity(conditional):
    levels = conditional.levels[0].numpy()
    assert (np.diff(levels) > 0).all()
    made = [(conditional.sample(200, y=level) == 0).mean() for level in levels]
    np.testing.assert_allclose(made, levels, atol=0.08)
    mixed = conditional.sample(200, y=np.repeat([levels[0], levels[-1]], 100))
    assert (mixed[100:] == 0).mean() - (mixed[:100] == 0).mean() > 0.5
    assert levels[1] < (conditional.sample(200) == 0).mean() < levels[-2]  # nothing wanted: all of them


def test_posterior__knows_the_label(conditional):
    few, many = encode("CGTCGTCGTCG"), encode("AAAAAAAACAA")
    posterior = conditional.posterior(np.stack([few, many]))
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert posterior.argmax(axis=1).tolist() == [0, 4]
    assert conditional.loglik(many[None], y=0.9) > conditional.loglik(many[None]) > conditional.loglik(
        many[None], y=0.05)


@pytest.mark.parametrize("name", GENERATORS)
def test_labels__any_number_of_them_is_never_taken_for_bases(name):
    y = np.arange(73.0)
    generator = tiny(name, n_labels=13).fit(codes_of(73), y, **QUICK)  # regLM: from the 6th on, labels were A C G T N
    labels = generator.wanted(y, 73)
    assert sorted(set(labels.flatten().tolist())) == list(range(13))
    drawn = generator.sample(73, y=y)
    assert drawn.max() < 4
    if name == "autoregressive":
        assert generator(torch.from_numpy(drawn), labels).shape == (73, 4, L)
        assert generator.base.weight is not generator.label.table.weight
        before = generator.base.weight.detach().clone()
        generator.label(labels).sum().backward()
        assert generator.base.weight.grad is None
        assert torch.equal(generator.base.weight, before)


def test_labels__ties_few_values_and_unknown_ones():
    codes = codes_of(60)
    generator = tiny("autoregressive").fit(codes, np.repeat([0.0, 1.0, 7.0], 20), **QUICK)
    assert generator.levels[0, :3].tolist() == [0, 1, 7]
    assert generator.wanted(np.array([0.4, 0.6, 99, np.nan]), 4).flatten().tolist() == [0, 1, 2, 5]
    ties = tiny("autoregressive").fit(codes, np.r_[np.zeros(45), 1:16], **QUICK)
    assert int(ties.levels[0].isfinite().sum()) < 5
    assert ties.sample(3, y=15.0).shape == (3, L)
    two = tiny("autoregressive", n_targets=2).fit(codes, np.random.default_rng(0).normal(size=(60, 2)), **QUICK)
    assert two.wanted([9.0, -9.0], 3).tolist() == [[4, 0]] * 3
    assert two.wanted([np.nan, 9.0], 1).tolist() == [[5, 4]]


# ---- constraints and given bases


RULES = (Avoid(("ACG", "GT"), both_strands=True), Homopolymer(3))


@pytest.mark.parametrize("name", GENERATORS)
def test_sample__keeps_all_constraints(name, quick):
    constraints = Constraints(RULES, flanks=("CCA", "TTG"), length=L)
    drawn = quick[name].sample(150, constraints=constraints)
    assert constraints.ok(drawn).all()
    assert not constraints.ok(quick[name].sample(150)).all()
    windowed = Constraints((*RULES, GC(0.2, 0.8, window=5)), length=L)
    assert windowed.ok(quick[name].sample(30, constraints=windowed)).all()


@pytest.mark.parametrize("name", GENERATORS)
def test_sample__keeps_given_bases_and_constraints_together(name, quick):
    constraints = Constraints(RULES, length=L)
    fixed = np.full((40, L), FREE, np.uint8)
    fixed[:20, 2:6], fixed[20:, 7:9] = encode("TATA"), encode("CA")
    for rules in (None, constraints):
        drawn = quick[name].sample(40, fixed=fixed, constraints=rules)
        assert (drawn[fixed != FREE] == fixed[fixed != FREE]).all()
        assert len(np.unique(drawn, axis=0)) > 20
    assert constraints.ok(drawn).all()
    with pytest.raises(ConfigError, match=r"in 3 of 3 \(first: row 0\)"):
        quick[name].sample(3, fixed=encode("GTNNNNNNNNN"), constraints=constraints)


@pytest.mark.parametrize("name", GENERATORS)
def test_sample__stays_near_the_start_of_each(name, quick):
    starts = Constraints(RULES, length=L).random(2, np.random.default_rng(0))
    constraints = Constraints((*RULES, MaxEdits(3)), length=L).bind(starts)
    origin = np.arange(40) % 2
    drawn = quick[name].sample(40, constraints=constraints, origin=origin)
    assert (drawn != starts[origin]).sum(axis=1).max() <= 3
    assert constraints.ok(drawn, origin).all()


# ---- the interface


@pytest.mark.parametrize("name", GENERATORS)
def test_sample__same_seed_same_sequences_and_no_other_chance(name, quick):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = quick[name].sample(29, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, quick[name].sample(29, seed=5))
    assert (first != quick[name].sample(29, seed=6)).any()
    assert first.dtype == np.uint8
    assert quick[name].sample(0).shape == (0, L)


@pytest.mark.parametrize("name", GENERATORS)
def test_fit__same_seed_same_generator_and_the_unfitted_stays(name):
    codes, generator = codes_of(73), tiny(name)
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    torch.manual_seed(3)
    first = generator.fit(codes, **QUICK, seed=1)
    assert all(value.isnan().any() or torch.equal(value, before[key]) for key, value in generator.state_dict().items())
    torch.manual_seed(4)
    second, other = tiny(name).fit(codes, **QUICK, seed=1), generator.fit(codes, **QUICK, seed=2)
    np.testing.assert_array_equal(first.sample(13), second.sample(13))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    further = first.fit(codes, **QUICK, learning_rate=1e-9, weight_decay=0.0)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(first.parameters(), further.parameters(), strict=True))


@pytest.mark.parametrize("name", GENERATORS)
def test_state__comes_back_as_it_was(name, quick):
    state = quick[name].state()
    assert state["generator"] == name
    again = GENERATORS[name].from_state(state)
    np.testing.assert_array_equal(again.sample(13, y=0.9, seed=3), quick[name].sample(13, y=0.9, seed=3))
    other = next(cls for key, cls in GENERATORS.items() if key != name)
    with pytest.raises(CheckpointError, match=f"got that of {name}"):
        other.from_state(state)
    with pytest.raises(CheckpointError, match=f"do not fit this {name}"):
        GENERATORS[name].from_state(state | {"weights": {}})


@pytest.mark.parametrize("name", GENERATORS)
def test_card__counts_the_weights(name):
    card = GENERATORS[name].card
    assert card.kind == "designer"
    assert card.differences
    if card.parameters is not None:
        n = sum(p.numel() for p in GENERATORS[name](170).parameters())
        assert card.parameters == n
        assert 3e5 <= n <= 3e6


@pytest.mark.parametrize("name", ["masked_diffusion", "dirichlet_flow"])
def test_sample__guidance_goes_further(name):
    rng = np.random.default_rng(0)
    y = np.repeat([0.0, 1.0], 300)
    codes = np.where(rng.random((600, L)) < 0.25 + 0.35 * y[:, None], 0, rng.integers(1, 4, (600, L))).astype(np.uint8)
    generator = GENERATORS[name](L, channels=13, n_layers=1).fit(codes, y, epochs=8, learning_rate=1e-2, average=0.0)
    plain, pushed = ((generator.sample(150, y=1.0, guidance=w) == 0).mean() for w in (0.0, 2.0))
    assert plain == pytest.approx(0.6, abs=0.1)
    assert pushed > plain + 0.1


def test_wgan__decodes_differentiably():
    generator = tiny("wgan", n_latent=7)
    z = torch.randn(3, 7, requires_grad=True)
    made = generator.decode(z)
    torch.testing.assert_close(made.sum(1), torch.ones(3, L))
    made[:, 0].sum().backward()
    assert z.grad is not None
    assert z.grad.abs().min() > 0


def test_wgan__penalty_holds_the_gradient_of_the_critic():
    generator = tiny("wgan")
    batch = Examples(torch.from_numpy(codes_of(13)), torch.full((13, 1), 5))
    torch.manual_seed(0)
    low = generator.critic_loss(batch).item()
    with torch.no_grad():
        generator.critic.blocks[-1].weight.mul_(300)
    assert generator.critic_loss(batch).item() > low + 100


def test_bad_input__says_what_to_do(quick):
    generator, codes = quick["autoregressive"], codes_of(13)
    with pytest.raises(SchemaError, match=r"sequences of 11 bp, codes \(N, 11\); got shape \(13, 7\)"):
        generator.fit(codes_of(13, 7))
    unknown = codes.copy()
    unknown[5:7, 2] = 4
    with pytest.raises(SchemaError, match=r"2 of 13 sequences hold an N \(first: row 5\)"):
        generator.fit(unknown)
    with pytest.raises(SchemaError, match=r"activities have shape \(13, 1\); got \(13, 3\)"):
        generator.fit(codes, np.ones((13, 3)))
    with pytest.raises(SchemaError, match="no finite number"):
        tiny("wgan").fit(codes, np.full(13, np.nan))
    with pytest.raises(ConfigError, match="no option 'epoch'; did you mean 'epochs'"):
        generator.fit(codes, epoch=3)
    with pytest.raises(ConfigError, match="no sampling option 'temprature'; did you mean 'temperature'"):
        generator.sample(3, temprature=1.0)
    with pytest.raises(ConfigError, match="fitted without activities"):
        tiny("autoregressive").sample(3, y=1.0)
    with pytest.raises(ConfigError, match="knows no labels"):
        tiny("autoregressive").posterior(codes)
    with pytest.raises(SchemaError, match="fixed is codes of shape"):
        generator.sample(3, fixed=np.zeros(7, np.uint8))
    with pytest.raises(ConfigError, match="steps >= 1"):
        quick["masked_diffusion"].sample(3, steps=0)
    with pytest.raises(ConfigError, match="last_time > 1"):
        quick["dirichlet_flow"].sample(3, last_time=1.0)
    with pytest.raises(ConfigError, match="length >= 2"):
        tiny("wgan", length=1)
    with pytest.raises(SchemaError, match="valid marks some"):
        generator.fit(codes, valid=np.ones(13, bool))
    with pytest.raises(ConfigError, match="share in"):
        generator.fit(codes, valid=1.5)


# ---- the designer


def problem(length=L, starts=None, rules=RULES):
    constraints = Constraints(rules, length=length)
    constraints = constraints if starts is None else constraints.bind(starts)
    return Problem(starts, None if starts is None else np.zeros(len(starts)), length, constraints, 7, 500,
                   np.random.default_rng(0))


def test_sample_designer__proposes_new_allowed_sequences(quick):
    designer, told = Sample(quick["autoregressive"], y=0.9), problem()
    designer.start(told)
    proposals = [designer.propose(31) for _ in range(3)]
    for proposal in proposals:
        designer.observe(proposal, np.zeros(len(proposal.codes)))
        assert told.constraints.ok(proposal.codes).all()
        assert (proposal.origin == 0).all()
    together = np.concatenate([p.codes for p in proposals])
    assert len(np.unique(together, axis=0)) == len(together) == 93


def test_sample_designer__takes_the_starts_in_turn(quick):
    starts = Constraints(RULES, length=L).random(3, np.random.default_rng(0))
    told = problem(starts=starts, rules=(*RULES, MaxEdits(4)))
    designer = Sample(quick["masked_diffusion"])
    designer.start(told)
    proposal = designer.propose(31)
    assert np.bincount(proposal.origin).tolist() == [11, 10, 10] or len(set(proposal.origin)) == 3
    assert told.constraints.ok(proposal.codes, proposal.origin).all()
    assert (proposal.codes != starts[proposal.origin]).sum(axis=1).max() <= 4


def test_sample_designer__ends_when_nothing_new_comes(quick):
    fixed = encode("TATATCTATNC")
    designer = Sample(quick["autoregressive"], fixed=fixed)
    designer.start(problem())
    first = designer.propose(31)
    assert 1 <= len(first.codes) <= 4
    assert {decode(row)[:9] for row in first.codes} == {"TATATCTAT"}
    assert len(designer.propose(31).codes) == 0
    with pytest.raises(ConfigError, match="writes sequences of 11 bp, the design wants 13 bp"):
        designer.start(problem(13))
