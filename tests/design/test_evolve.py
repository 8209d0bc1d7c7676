"""Screens, greedy evolution, beams, strong selection and drift, on landscapes whose best sequences are known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ciscribe.design.constraints import Avoid, Constraints, EditScope, Homopolymer
from ciscribe.design.objective import Maximize, Target
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError
from ciscribe.oracle import Oracle
from ciscribe.sequence import decode, encode
from reference import design as slow

FIRST, SECOND, SPACING = "TATAAA", "CCGGA", 11


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Grammar(nn.Module):
    """Two motifs at a fixed distance, anywhere: the best score is that of both consensus words."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        kernel = torch.zeros(1, 4, SPACING + len(SECOND))
        for word, at in ((FIRST, 0), (SECOND, SPACING)):
            for i, base in enumerate(encode(word)):
                kernel[0, :, at + i] = torch.from_numpy(rng.uniform(-1, 0.4, 4))
                kernel[0, base, at + i] = 1 + 0.1 * i
        self.kernel = nn.Parameter(kernel)

    @property
    def best(self) -> float:
        return float(self.kernel.detach().amax(dim=1).sum())

    def forward(self, X: Tensor) -> Tensor:
        return nn.functional.conv1d(X, self.kernel).amax(dim=2)


class Lookup(nn.Module):
    """A landscape of one number a sequence: a sum over positions, and chance."""

    def __init__(self, length: int, rough: float = 0.2):
        super().__init__()
        self.length = length
        rng = np.random.default_rng(1)
        bases = np.indices([4] * length).reshape(length, -1).T[:, ::-1]
        values = rng.normal(size=(length, 4))[np.arange(length), bases].sum(axis=1) + rough * rng.normal(size=4**length)
        self.register_buffer("values", torch.from_numpy(values).float())

    def forward(self, X: Tensor) -> Tensor:
        places = 4 ** torch.arange(self.length)
        return self.values[(X.argmax(dim=1) * places).sum(dim=1)][:, None]  # pyright: ignore

    def score(self, text: str) -> float:
        return float(self.values[int((encode(text).astype(int) * 4 ** np.arange(self.length)).sum())])  # pyright: ignore


def starts(n: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)


@pytest.mark.parametrize("options", [{}, {"beam": 3}])
def test_the_known_optimum_is_reached(options):
    model = Grammar()
    made = design(Maximize(Oracle(model, device="cpu")), starts(3, 31), n=3, budget=60_000, **options)
    assert made.score == pytest.approx([model.best] * 3, abs=1e-5)
    for row in made.codes:
        at = decode(row).index(FIRST)
        assert decode(row)[at + SPACING:at + SPACING + len(SECOND)] == SECOND


def test_strong_selection_reaches_the_known_optimum_for_less():
    model = Grammar()
    objective, start = Maximize(Oracle(model, device="cpu")), starts(1, 31)
    any_, greedy = (design(objective, start, method, n=1, budget=20_000) for method in ("sswm", "greedy"))
    assert any_.score == pytest.approx([model.best], abs=1e-5)
    assert any_.attrs["stopped"] == "exhausted"
    assert any_.queries < greedy.queries


@pytest.mark.parametrize("method", ["greedy", "sswm"])
def test_both_ways_to_be_greedy_equal_the_slow_one_round_by_round(method):
    model, rules = Lookup(5), [Homopolymer(2), Avoid("CG")]
    text = "ATACA"
    allowed = Constraints(rules, length=5)
    way = slow.greedy(text, model.score, lambda other: bool(allowed.ok(encode(other)[None])[0]), 99)
    assert len(way) > 3
    options = {"accept": "best"} if method == "sswm" else {}
    made = design(Maximize(Oracle(model, device="cpu")), [text], method, constraints=rules, n=1, budget=999, **options)
    assert decode(made.codes[0]) == way[-1]
    assert made.attrs["stopped"] == "exhausted"
    best = sorted(set(made.history["best"]))
    assert best == pytest.approx([model.score(one) for one in way])


@pytest.mark.parametrize("width", [2, 5])
def test_a_beam_is_the_slow_beam(width):
    model = Lookup(5)
    made = design(Maximize(Oracle(model, device="cpu")), ["ATACA"], n=width, budget=999, beam=width, rounds=2)
    assert [decode(row) for row in made.codes] == slow.beam("ATACA", model.score, lambda _: True, 2, width)


def test_a_beam_crosses_a_valley_where_greedy_stops():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4 * 7, 1))
    with torch.no_grad():
        model[1].weight.fill_(-1)
        model[1].weight.view(4, 7)[0] = 0  # AAAAAAA is a peak …

    class Peak(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            return model(X) + 5 * (X[:, 3, 2] * X[:, 3, 4])[:, None] + 0.5 * X[:, 3, 2:3]  # … below the two T

    objective = Maximize(Oracle(Peak(), device="cpu"))
    stuck, crossed = (design(objective, ["AAAAAAA"], n=1, budget=999, beam=beam) for beam in (1, 2))
    assert decode(stuck.codes[0]) == "AAAAAAA"
    assert decode(crossed.codes[0]) == "AATATAA"


def test_a_step_is_taken_only_if_it_improves():
    """CREsted and the publications apply the best mutation even where all of them are worse."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4 * 7, 1))
    with torch.no_grad():
        model[1].weight.fill_(-1).view(4, 7)[1] = 0
    made = design(Maximize(Oracle(model, device="cpu")), ["CCCCCCC"], n=1, budget=500)
    assert decode(made.codes[0]) == "CCCCCCC"
    assert made.edits.tolist() == [0]  # type: ignore[union-attr]
    assert made.queries == 1 + 21 + 1  # start, one round, last look
    assert made.attrs["stopped"] == "exhausted"


def test_strong_selection_ends_in_local_optima_and_takes_any_improvement():
    model = Lookup(3, rough=3)
    optima = slow.local_optima(model.score, 3)
    assert 1 < len(optima) < 16
    starts_ = np.repeat(encode("ACG")[None], 12, axis=0)
    made = design(Maximize(Oracle(model, device="cpu")), starts_, "sswm", n=12, budget=5_000, block=1)
    ends = {decode(row) for row in made.codes}
    assert ends <= optima
    assert len(ends) > 1  # the walks part


def test_drift_accepts_everything_within_the_scope():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4 * 13, 1))
    scope = np.zeros(13, bool)
    scope[[2, 3, 5, 7]] = True
    made = design(Maximize(Oracle(model, device="cpu")), ["ACGTACGTACGTA"], "drift", n=3,
                  constraints=[EditScope(scope)], budget=200, walks=2, steps=29)
    assert len(made.history) == 1 + 29
    assert made.history["proposed"].iloc[1:].eq(2).all()
    assert not made.history["infeasible"].any()
    assert np.array_equal(made.codes[:, ~scope], np.repeat(encode("ACGTACGTACGTA")[None, ~scope], 3, axis=0))


def test_a_screen_takes_the_base_composition_of_each_start():
    class Origin(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            return X[:, :1].sum(dim=2)

    rich, poor = encode("GC" * 50), encode("AT" * 50)
    low, high = (rich.copy(), poor.copy())
    low[:20], high[:20] = 0, 1
    made = design(Maximize(Oracle(Origin(), device="cpu")), np.stack([low, high]), "screen", n=40, budget=300,
                  constraints=[Homopolymer(20)])
    share = ((made.codes == 1) | (made.codes == 2)).mean(axis=1)
    assert share[made.origin == 0].mean() > 0.65
    assert share[made.origin == 1].mean() < 0.35


def test_greedy_stops_at_a_target_as_closely_as_it_can():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4 * 11, 1))
    torch.manual_seed(3)
    nn.init.uniform_(model[1].weight, -1, 1)
    objective = Target(Oracle(model, device="cpu"), value=0.7)
    made = design(objective, starts(5, 11), n=5, budget=20_000)
    assert (made.score > made.start_score[made.origin]).all()  # type: ignore[index]
    assert (made.score > -0.1).all()


def test_without_starts_it_begins_at_random_sequences():
    model = Grammar()
    made = design(Maximize(Oracle(model, device="cpu")), length=31, n=7, budget=5_000, constraints=[Homopolymer(4)])
    assert (made.starts, made.edits, made.gain) == (None, None, None)
    assert made.history["proposed"].iloc[0] == 5  # ten rounds of 93 fit five times
    assert made.score.max() == pytest.approx(model.best, abs=1e-5)


@pytest.mark.parametrize(("method", "options"), [
    ("greedy", {"beam": 0}), ("greedy", {"rounds": 0}), ("sswm", {"walks": 0}),
    ("sswm", {"block": 0}), ("drift", {"steps": 0}), ("drift", {"walks": 0}), ("screen", {"gc": 40}),
])
def test_impossible_options(method, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        design(Maximize(Oracle(Grammar(), device="cpu")), starts(1, 31), method, **options)


def test_a_budget_below_one_round():
    with pytest.raises(ConfigError, match=r"a round of greedy evolution scores all 279 .* of 3 sequences"):
        design(Maximize(Oracle(Grammar(), device="cpu")), starts(3, 31), n=2, budget=200)
