"""The runner: budgets, archives, repairs, interrupts; and the contract that every designer is held to."""

import functools
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.design.archive import Archive, Scores, spread
from ciscribe.design.constraints import GC, Avoid, Constraints, Homopolymer, Keep, MaxEdits
from ciscribe.design.designer import Designer, Proposal
from ciscribe.design.generators import AutoregressiveLM, MaskedDiffusion
from ciscribe.design.methods import DESIGNERS, make_designer
from ciscribe.design.objective import Lower, Maximize, Motifs
from ciscribe.design.runner import design, prune
from ciscribe.design.score import Objective
from ciscribe.errors import ConfigError, SchemaError, UnknownNameError, UnsupportedError
from ciscribe.oracle import Oracle
from ciscribe.schema import Motif
from ciscribe.sequence import decode, encode
from ciscribe.testing import check_designer
from reference import design as slow

LENGTH, BUDGET = 23, 317
NEEDS_STARTS, TAKES_NONE = {"edit"}, {"latent"}


class Decoder(nn.Module):
    """A generator without training, which writes the same half of every sequence."""

    n_latent = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, LENGTH, generator=torch.Generator().manual_seed(0)))

    def decode(self, z: Tensor) -> Tensor:
        return torch.einsum("nz,zbl->nbl", z, self.weight).softmax(dim=1)


@functools.cache
def options(method: str) -> dict:
    """What a designer cannot be made without, and little of what takes its time."""
    words = {"TATA": "TATAA", "box": "CCAT"}
    rules = pd.DataFrame({"motif": ["TATA", "box"], "strand": "+", "position": [3, 11], "mean": [1.0, 0.5]})
    return {"implant": {"motifs": words}, "grammar": {"motifs": words, "position": rules, "n_motifs": 1},
            "seqprop": {"n_steps": 5}, "edit": {"n_steps": 5, "n_samples": 3},
            "latent": {"generator": Decoder(), "n_steps": 5},
            }.get(method, {}) | learned(method)


def learned(method: str) -> dict:
    """A small generator for those that draw from one."""
    if method not in LEARNING:
        return {}
    kind = MaskedDiffusion if method == "drakes" else AutoregressiveLM
    codes = np.random.default_rng(0).integers(0, 4, (67, LENGTH)).astype(np.uint8)
    fitted = kind(LENGTH, channels=8, n_layers=2).fit(codes, epochs=1, seed=0)
    few = {} if method == "sample" else {"batch": 7} | ({"steps": 4, "last": 2} if method == "drakes" else {})
    return {"generator": fitted} | few


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Plain(Objective):
    """The plainest of objectives; counts what it is asked."""

    names = ("c", "g")

    def __init__(self, n_calls: int = 1):
        self.n_calls, self.asked = n_calls, []

    def components(self, X):
        X = torch.as_tensor(X)
        codes = X if X.ndim == 2 else X.argmax(dim=1)
        self.asked += [decode(row) for row in codes.to(torch.uint8).numpy()]
        return {"c": (codes == 1).double().sum(dim=1), "g": (codes == 2).double().sum(dim=1)}

    def combine(self, parts):
        return parts["c"] - 2 * parts["g"]


class Listed(Designer):
    """Proposes what it is given, and writes down what it hears."""

    card = Card(name="listed", kind="designer", summary="Proposes a list.", paper="own")

    def __init__(self, proposals: list):
        self.proposals, self.heard, self.offered = list(proposals), [], []

    def start(self, problem):
        self.problem = problem

    def propose(self, n):
        self.offered.append(n)
        texts, origin = self.proposals.pop(0) if self.proposals else ([], [])
        codes = np.stack([encode(text) for text in texts]) if texts else np.zeros((0, 0), np.uint8)
        return Proposal(codes, np.array(origin, np.int64))

    def observe(self, proposal, score):
        self.heard.append(score.tolist())


def listed(proposals, **given):
    """Run `Listed` and give the designs, the designer and the objective."""
    designer = Listed(proposals)
    objective = given.pop("objective", None) or Plain()
    made = design(objective, method=lambda_class(designer), **given)
    return made, designer, objective


def lambda_class(designer):
    """A class whose only member is that designer."""
    return type("One", (Listed,), {"__new__": lambda cls: designer, "__init__": lambda self: None})


def convolution(n_filters: int = 5) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv1d(4, n_filters, 5), nn.BatchNorm1d(n_filters), nn.ReLU(), nn.Dropout(0.5),
                         nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(n_filters, 1))


def starts(n: int, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)


# The contract, of all designers


LEARNING = ("sample", "reinforce", "grpo", "drakes")  # train networks on the way
METHODS = [pytest.param(name, marks=pytest.mark.slow) if name in LEARNING else name for name in DESIGNERS]


@pytest.mark.parametrize("from_nothing", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_every_designer_keeps_the_contract(method, from_nothing):
    objective = Maximize(Oracle(convolution(), device="cpu"))
    constraints = Constraints([Avoid(["CCGG", "GATC"]), Homopolymer(3), GC(0.3, 0.7)], flanks=("ACCG", "TCGA"),
                              length=LENGTH)
    if method in (NEEDS_STARTS if from_nothing else TAKES_NONE):
        pytest.skip(f"{method} designs {'from starts' if from_nothing else 'from nothing'} only")
    start = None if from_nothing else constraints.random(2, np.random.default_rng(0))
    check_designer(partial(design, method=method), objective, constraints, start, budget=BUDGET, **options(method))


@pytest.mark.parametrize("method", [one for one in METHODS if not isinstance(one, str) or one not in TAKES_NONE])
def test_every_designer_keeps_what_the_start_says(method):
    start = starts(2)
    constraints = Constraints([MaxEdits(5), Keep([2, 3, 5, 7])], length=LENGTH)
    objective = Maximize(Oracle(convolution(), device="cpu"))
    check_designer(partial(design, method=method), objective, constraints, start, budget=BUDGET, **options(method))


def test_the_contract_refuses_a_designer_that_leaves_the_constraints():
    class Loose(Listed):
        def __init__(self):
            super().__init__([(["A" * LENGTH, "ACGT" * 5 + "ACG"], [0, 0])])

    objective = Maximize(Oracle(convolution(), device="cpu"))
    with pytest.raises(SchemaError, match="1 of 2 were not"):
        check_designer(partial(design, method=Loose), objective, Constraints(Homopolymer(3), length=LENGTH), n=1)


def test_the_contract_refuses_chance_that_is_not_the_seed():
    class Chance(Listed):
        def __init__(self):
            super().__init__([(["".join("ACGT"[i] for i in torch.randint(4, (LENGTH,)))], [0])])

    objective = Maximize(Oracle(convolution(), device="cpu"))
    with pytest.raises(SchemaError, match="global generators"):
        check_designer(partial(design, method=Chance), objective, Constraints((), length=LENGTH), n=1)


# What is asked, and what it costs


@pytest.mark.parametrize(("n_calls", "budget"), [(1, 301), (3, 901)])
def test_the_budget_is_kept_to_the_last_query(n_calls, budget):
    """The last round does not fit: what fits of it is scored, and nothing is asked twice but the designs."""
    objective, start = Plain(n_calls), starts(2)
    made = design(objective, start, n=5, budget=budget)
    assert made.attrs["stopped"] == "budget"
    assert len(objective.asked) * n_calls == made.queries == budget - budget % n_calls
    searched = objective.asked[:-5]
    assert len(set(searched)) == len(searched)
    assert objective.asked[-5:] != searched[-5:]
    assert made.history["queries"].is_monotonic_increasing
    assert made.history["queries"].iloc[-1] + 5 * n_calls == made.queries
    assert (made.found_at <= made.history["queries"].iloc[-1]).all()


def test_what_is_known_is_free_and_what_is_forbidden_is_not_asked():
    rounds = [(["CCA", "AAA", "CCA", "GGG"], [0] * 4), (["CCA", "CTA", "GGG"], [0] * 3)]
    made, designer, objective = listed(rounds, length=3, n=2, budget=99, constraints=[Homopolymer(2)])
    assert designer.heard == [[2, -np.inf, 2, -np.inf], [2, 1, -np.inf]]
    assert objective.asked == ["CCA", "CTA", "CCA", "CTA"]  # the last two for the designs
    assert made.queries == 4
    assert made.history.to_dict("list") == {
        "queries": [1, 2], "best": [2, 2], "mean": [2, 1.5], "proposed": [4, 3], "infeasible": [2, 1],
        "repeated": [1, 1]}
    assert [decode(row) for row in made.codes] == ["CCA", "CTA"]
    assert made.found_at.tolist() == [1, 2]
    assert made.components.to_dict("list") == {"c": [2, 1], "g": [0, 0]}
    assert made.attrs["stopped"] == "exhausted"


def test_a_round_is_cut_where_the_money_ends():
    rounds = [(["AAA", "CAA", "AAA", "CCA", "CCC"], [0] * 5), (["CCT"], [0])]
    made, designer, objective = listed(rounds, length=3, n=1, budget=3)
    assert designer.offered == [2]
    assert designer.heard == []  # an answer that is not whole is none
    assert objective.asked == ["AAA", "CAA", "CAA"]
    assert made.history["proposed"].tolist() == [3]
    assert made.attrs["stopped"] == "budget"


def test_a_designer_that_repeats_itself_does_not_run_for_ever():
    made, designer, _ = listed([(["CAA"], [0])] * 3_000, length=3, n=1, budget=99)
    assert made.queries == 2
    assert len(designer.offered) == 1_001


def test_scores_are_found_among_many_and_sequences_are_told_apart():
    scores = Scores(17)
    codes = np.unique(starts(200_003, 17), axis=0)
    keys = scores.keys(codes)
    assert len(np.unique(keys)) == len(codes)
    for i in range(0, len(codes), 50_021):
        scores.add(keys[i:i + 50_021], np.arange(i, min(i + 50_021, len(codes)), dtype=float))
    assert np.array_equal(scores.find(keys[::-1]), np.arange(len(codes))[::-1])
    assert np.isnan(scores.find(scores.keys((codes[:7] + 1) % 4)[:0])).all()
    other = codes[:101].copy()
    other[:, 8] = (other[:, 8] + 1) % 4
    new = ~(other[:, None] == codes[None, :50_000]).all(axis=2).any(axis=1)
    assert np.isnan(scores.find(scores.keys(other))[new]).all() or new.sum() < 101


def test_neighbours_score_as_sequences_do():
    """Flanks, two strands, two models and counted motifs: the shorter way is the same as the whole one."""
    a, b = Oracle(convolution(), device="cpu"), Oracle(nn.Sequential(nn.Flatten(), nn.Linear(4 * 27, 1)), device="cpu")
    motif = Motif("m", np.full((4, 5), 0.1) + 0.6 * np.eye(4)[:, [0, 1, 2, 3, 0]], "own")
    objective = Lower([Maximize(a, flanks=("ACG", "T")), Maximize(b, flanks=("ACG", "T"), both_strands=True)]
                      ) + 0.1 * Motifs([motif], least=1, p_value=0.01)
    made = design(objective, starts(3), n=3, budget=3_000)
    assert made.score == pytest.approx(objective(torch.from_numpy(made.codes)).detach().numpy(), abs=1e-5)
    assert made.history["best"].iloc[-1] == pytest.approx(made.score.max(), abs=1e-5)
    assert made.queries <= 3_000
    assert list(made.components) == list(objective.names)


# What is kept


def test_one_start_that_stalls_does_not_stop_another():
    """gReLU keeps one best score for all sequences: where that stalls, all stop, and worse steps are accepted."""
    made = design(Plain(), ["CCCCCCC", "GGGGGGG", "ACACCCA"], n=3, budget=999)
    assert {decode(row) for row in made.codes} == {"CCCCCCC"}
    assert sorted(made.origin) == [0, 1, 2]
    assert sorted(made.edits) == [0, 3, 7]  # type: ignore[arg-type]
    assert (made.gain >= 0).all()  # type: ignore[operator]
    assert made.history["best"].eq(7).all()  # known from the first on; the others go on
    assert len(made.history) == 1 + 1 + 7


def test_the_best_of_every_start_comes_before_the_second_of_any():
    proposals = [(["CCCCA", "CCCAA", "CCAAA", "CTTTT", "TTTTT"], [0, 0, 0, 1, 1])]
    made, _, _ = listed(proposals, start=["AAAAA", "GGGGG"], n=4, budget=99)
    assert [(decode(row), i) for row, i in zip(made.codes, made.origin, strict=True)] == [
        ("CCCCA", 0), ("CCCAA", 0), ("CTTTT", 1), ("TTTTT", 1)]
    fewer, _, _ = listed(proposals, start=["AAAAA", "GGGGG"], n=1, budget=99)
    assert [decode(row) for row in fewer.codes] == ["CCCCA"]


def test_an_archive_keeps_designs_apart():
    rng = np.random.default_rng(0)
    codes, score = np.unique(starts(997, 11), axis=0), rng.permutation(1_000).astype(float)
    score = score[:len(codes)]
    archive = Archive(1, 13, 11, 0.5)
    for i in range(0, len(codes), 101):
        part = slice(i, i + 101)
        archive.add(codes[part], score[part], np.zeros(len(codes[part]), int), np.arange(len(codes))[part])
    kept = archive.codes[0, archive.score[0] > -np.inf]
    apart = (kept[:, None] != kept).sum(axis=2) + 11 * np.eye(len(kept))
    assert apart.min() >= 5.5
    assert archive.score[0, 0] == score.max()
    rows = spread(codes, score, 13, 5.5)  # with everything at hand
    assert archive.score[0].sum() >= 0.9 * score[rows].sum()


def test_diversity_of_a_run_and_of_a_selection():
    made = design(Plain(), starts(1), n=7, budget=4_000, diversity=0.2)
    for some in (made, made.select(4, 0.3)):
        apart = (some.codes[:, None] != some.codes).mean(axis=2) + np.eye(len(some))
        assert apart.min() >= (0.2 if some is made else 0.3)
    assert made.select(1).score == made.score.max()
    assert len(made.select(4, 0.3).components) == len(made.select(4, 0.3))


def test_tables_say_what_was_gained():
    made = design(Plain(), ["ACGTA", "GGGTC"], n=2, budget=999, judge=Plain(2))
    table = made.table()
    assert list(table) == ["sequence", "score", "c", "g", "judge_score", "origin", "start_score", "gain", "edits",
                           "found_at"]
    assert table["sequence"].tolist() == ["CCCCC", "CCCCC"]
    assert (table["score"] - table["gain"] == table["start_score"]).all()
    assert table["judge_score"].tolist() == [5, 5]
    assert made.judge_start_score.tolist() == made.start_score.tolist() == [-1, -5]  # type: ignore[union-attr]
    assert made.attrs["judge_queries"] == 2 * 4
    assert made.queries < 2 * 4 * 5 * 5


# How it ends


def test_patience_and_target():
    made = design(Plain(), ["AAAAAAA"], n=1, budget=9_999, target=3)
    assert made.attrs["stopped"] == "target"
    assert made.score[0] == 3
    made = design(Plain(), length=7, method="screen", n=1, budget=99_999, patience=5_000)
    assert made.attrs["stopped"] in ("patience", "exhausted")
    assert made.queries < 99_999


def test_an_interrupt_returns_what_was_found():
    class Interrupted(Plain):
        def components(self, X):
            if len(self.asked) == 2 + 2 * 69:
                self.asked.append("interrupted")
                raise KeyboardInterrupt
            return super().components(X)

    model_free = Interrupted()
    made = design(model_free, starts(2), n=2, budget=9_999, batch_size=23)
    assert made.attrs["stopped"] == "interrupted"
    assert (made.gain > 0).all()  # type: ignore[operator]
    assert made.history["proposed"].tolist() == [2, 2 * 69]


def test_an_interrupt_leaves_the_model_as_it_was():
    class Tired(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = convolution(), 0

        def forward(self, X: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 5:
                raise KeyboardInterrupt if self.calls == 6 else RuntimeError("again")
            return self.inner(X)

    model = Tired().train()
    with pytest.raises(RuntimeError, match="again"):  # the last look fails
        design(Maximize(Oracle(model, device="cpu")), starts(2), "screen", n=2, budget=5_000)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("mode", [True, False])
def test_dropout_and_batch_statistics_rest_during_a_run(mode):
    model = convolution().train(mode)
    made = design(Maximize(Oracle(model, device="cpu")), starts(2), n=2, budget=999)
    assert all(module.training == mode for module in model.modules())
    model.eval()
    assert made.score == pytest.approx(Oracle(model, device="cpu").predict(torch.from_numpy(made.codes))[:, 0].numpy())


# Starts and settings


def test_starts_that_break_a_rule_are_an_error_or_repaired():
    given = ["ACGTTTTTTACG", "ACGTACGTACGT"]
    rules = [Homopolymer(3), MaxEdits(4)]
    with pytest.raises(SchemaError, match=r"1 of 2 starts break a constraint; first: start 0.*repair"):
        design(Plain(), given, constraints=rules, n=2)
    made = design(Plain(), given, constraints=rules, n=4, infeasible="repair", budget=2_000)
    assert made.attrs["repaired"] == 1
    assert [decode(row) for row in made.starts] == given  # type: ignore[union-attr]
    assert made.start_score.tolist() == [2 - 4, 3 - 6]  # type: ignore[union-attr]
    assert made.edits.max() <= 4  # type: ignore[union-attr]
    assert Constraints(rules, length=12).bind(made.starts).ok(made.codes, made.origin).all()  # type: ignore[arg-type]


def test_words_across_the_junctions_do_not_arise():
    made = design(Plain(), ["AAAAAAA"], constraints=[Avoid("GCCCC", both_strands=False)], flanks=("ACG", "CGA"), n=1,
                  budget=999)
    assert decode(made.codes[0]) != "CCCCCCC"
    assert "GCCCC" not in "ACG" + decode(made.codes[0]) + "CGA"
    assert made.flanks == ("ACG", "CGA")


def test_pruning_is_the_slow_pruning():
    start, end = "AAGATAGA", "CCCATTGC"
    rng = np.random.default_rng(5)
    weight = torch.from_numpy(rng.integers(-3, 9, (8, 4)).astype(np.float32))
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 1, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(weight.T.reshape(1, -1))

    def score(text: str) -> float:
        return float(sum(weight[i, base] for i, base in enumerate(encode(text))))

    objective = Maximize(Oracle(model, device="cpu"))
    made, _, _ = listed([([end, "AAGATAGC"], [0, 0])], objective=objective, start=[start], n=2, budget=99)
    by_text = {decode(row): i for i, row in enumerate(made.codes)}
    for tolerance in (0.0, 2.5, 99.0):
        pruned = prune(made, objective, tolerance=tolerance)
        for text, i in by_text.items():
            assert decode(pruned.codes[i]) == slow.prune(text, start, score, tolerance)
            assert pruned.score[i] == pytest.approx(score(decode(pruned.codes[i])))
        assert pruned.queries > made.queries
        assert pruned.edits.tolist() == (pruned.codes != encode(start)).sum(axis=1).tolist()  # type: ignore[union-attr]


def test_pruning_keeps_the_constraints():
    start, end = "CTTC", "CCTC"
    objective = Plain()
    made, _, _ = listed([([end], [0])], objective=objective, start=[start], n=1, budget=99)
    assert decode(prune(made, objective, tolerance=9).codes[0]) == start
    assert decode(prune(made, objective, [Homopolymer(1)], tolerance=9).codes[0]) == end
    with pytest.raises(ConfigError, match="no starts"):
        prune(design(Plain(), length=5, method="screen", n=1, budget=50), objective)


class Broken(Plain):
    def combine(self, parts):
        return parts["c"] / parts["c"].sub(3).relu()


def test_an_objective_that_gives_no_number_is_named():
    with pytest.raises(SchemaError, match="NaN or infinite; first: sequence 0, AC"):
        design(Broken(), ["ACACA"])


def test_a_designer_that_needs_gradients_is_refused():
    class Climber(Listed):
        needs_gradient = True

    with pytest.raises(UnsupportedError, match="listed follows the gradient"):
        design(Plain(), ["ACGTA"], Climber, proposals=[])


@pytest.mark.parametrize(("given", "error", "match"), [
    ({"method": "gredy"}, UnknownNameError, "did you mean 'greedy'"),
    ({"beams": 3}, ConfigError, "greedy has no option 'beams'; did you mean 'beam'"),
    ({"budget": 5}, ConfigError, "the budget of 5 calls pays for 5 sequences"),
    ({"n": 0}, ConfigError, "n, batch_size and patience are at least 1; got n=0"),
    ({"patience": 0}, ConfigError, "patience=0"),
    ({"diversity": 3}, ConfigError, "a share of positions"),
    ({"length": 9}, ConfigError, "length is 9 bp and the starts have 5"),
    ({"start": None}, ConfigError, "need a length"),
    ({"start": "ACGTA"}, SchemaError, r"give \[start\]"),
    ({"start": ["ACGTA", "ACG"]}, SchemaError, r"got lengths \[3, 5\]"),
    ({"start": ["ACGTA", "ACNTA"]}, SchemaError, "1 of 2 hold something else; first: start 1, position 2"),
])
def test_settings_that_cannot_be_used(given, error, match):
    with pytest.raises(error, match=match):
        design(Plain(), **({"start": ["ACGTA"], "n": 5} | given))


def test_a_proposal_of_another_length_is_an_error():
    with pytest.raises(SchemaError, match=r"a designer proposes codes 0..3 \(n, 5\)"):
        listed([(["ACG"], [0])], start=["ACGTA"], n=1)


def test_compiled_constraints_are_taken_as_they_are():
    rules = Constraints([Avoid("CCC")], flanks=("AC", "T"), length=5)
    assert design(Plain(), ["AAAAA"], constraints=rules, n=1, budget=99).flanks == ("AC", "T")
    with pytest.raises(SchemaError, match="5 bp; got 7 bp"):
        design(Plain(), ["AAAAAAA"], constraints=rules, n=1)
    with pytest.raises(ConfigError, match="leave them out"):
        design(Plain(), ["AAAAA"], constraints=rules, flanks=("G", "T"), n=1)


def test_designers_are_made_by_name_or_class():
    assert set(DESIGNERS) >= {"screen", "greedy", "sswm", "drift"}
    for name, kind in DESIGNERS.items():
        assert (kind.card.name, kind.card.kind) == (name, "designer")
    assert isinstance(make_designer(DESIGNERS["greedy"], beam=2), DESIGNERS["greedy"])
