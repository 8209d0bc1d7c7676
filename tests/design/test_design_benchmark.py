"""Protocols of design: measured designs, leagues, targets, generators, a known world; and the real replay."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ciscribe.design.benchmark import (
    CARDS,
    generator_numbers,
    jensen_shannon,
    league,
    replay_detectors,
    replay_gains,
    replay_scores,
    targeted,
    world_numbers,
)
from ciscribe.design.natives import kmer_share
from ciscribe.errors import SchemaError
from ciscribe.sequence import decode
from ciscribe.train.labels import auroc
from reference import design_audit as slow


def evolved(strength: float = 0.25, n: int = 101, seed: int = 0) -> pd.DataFrame:
    """Designs whose every edit promises as much as it adds error; rounds 0, 3 and 10."""
    rng, rows = np.random.default_rng(seed), []
    for origin in range(n):
        step = rng.uniform(0.3, 1.2)
        for number in (0, 3, 10):
            gain = step * number**0.7
            true = gain * gain / (gain + strength * number) if number else 0.0
            rows.append({"objective": "leaf", "round": number, "origin": origin, "predicted_gain": gain,
                         "measured_gain": true + (rng.normal(0, 0.3) if number else 0), "edits": number})
    return pd.DataFrame(rows)


def runs(**changes: float) -> pd.DataFrame:
    """Three methods, five seeds: b is twice as good as a; c promises most and is judged above all labels."""
    rows = []
    for seed in range(5):
        for method, gain, judged, level in (("a", 2.0, 1.0, 3.0), ("b", 3.0, 2.0, 4.0), ("c", 9.0, 5.0, 7.0)):
            rows.append({"dataset": "plant", "budget": 1_000, "method": method, "seed": seed, "queries": 1_000,
                         "gain": gain, "judge_gain": judged + 0.1 * seed, "judge_score": level, "seconds": 7.0})
    return pd.DataFrame(rows).assign(**changes)


def test_every_protocol_has_a_card():
    assert set(CARDS) == {"replay", "league", "targeted", "generators", "world"}
    assert all(card.kind == "benchmark" for card in CARDS.values())


# Replay


def test_replay_fits_early_rounds_only():
    table = evolved()
    found = replay_gains(table).set_index(["round", "method"])
    assert found.loc[(10, "raw"), "error"] > 1
    assert abs(found.loc[(10, "gain per edit"), "error"]) < 0.15
    assert found.loc[(10, "gain per edit"), "low"] < 0 < found.loc[(10, "gain per edit"), "high"]
    assert found.loc[(10, "gain per edit"), "ratio"] == pytest.approx(1, abs=0.1)
    assert found.loc[(3, "constant"), "error"] == pytest.approx(0, abs=1e-9)
    assert found["fitted"].to_dict() == {key: key[0] == 3 for key in found.index}
    table.loc[table["round"] == 10, "measured_gain"] += 7  # the fit does not see the test
    again = replay_gains(table).set_index(["round", "method"])
    assert (again["expected"] == found["expected"]).all()


def test_replay_needs_both_sides():
    table = evolved(n=13)
    with pytest.raises(SchemaError, match=r"needs designs of rounds \[0, 3\] and of others"):
        replay_gains(table.loc[(table["round"] < 10).to_numpy()])
    with pytest.raises(SchemaError, match="origin missing"):
        replay_gains(table.drop(columns="origin"))
    table.loc[5, "measured_gain"] = np.nan
    with pytest.raises(SchemaError, match="1 of 39 measured designs have no measured_gain; first: row 5"):
        replay_gains(table)


def test_scores_are_judged_by_error_rank_and_what_one_would_order():
    measured = np.arange(20.0)
    table = pd.DataFrame({"measured": measured, "same": measured, "high": measured + 2, "turned": measured[::-1]})
    found = replay_scores(table, ["same", "high", "turned"]).set_index("score")
    assert found.loc["same", ["rmse", "bias", "regret"]].tolist() == [0, 0, 0]
    assert found.loc["high", ["rmse", "bias", "spearman", "regret"]].tolist() == [2, 2, 1, 0]
    assert found.loc["turned", ["spearman", "regret"]].tolist() == [-1, 18]


def test_detectors_stand_beside_the_score_alone():
    rng = np.random.default_rng(0)
    score = rng.uniform(0, 5, 997)
    error = score / 2 + rng.normal(0, 1, 997)  # higher scores are more over-predicted
    table = pd.DataFrame({"score": score, "measured": score - error, "origin": np.arange(997) // 7,
                          "echo": score**3, "knows": error + rng.normal(0, 0.5, 997), "noise": rng.random(997)})
    found = replay_detectors(table, ["echo", "knows", "noise"], limit=1.5, highest=4.0, n_bootstrap=199
                             ).set_index("detector")
    assert list(found.index[:2]) == ["score alone", "clip"]
    assert found.loc["score alone", "auroc"] == pytest.approx(auroc(error > 1.5, score))
    assert found.loc["echo", "auroc"] > 0.75  # a high area that says nothing new
    assert found.loc["echo", ["gain", "low", "high"]].tolist() == [0, 0, 0]
    assert found.loc["echo", "within"] == found.loc["score alone", "within"] < 0.65
    assert found.loc["knows", "low"] > 0
    assert found.loc["knows", "within"] > 0.8
    assert found.loc["noise", "high"] < 0
    assert 0.5 < found.loc["clip", "auroc"] < found.loc["score alone", "auroc"]


# League


def test_league_ranks_what_judges_grant_and_not_extrapolation():
    found = league(runs(), highest=5.0).set_index("method")
    assert found["rank"].to_dict() == pytest.approx({"b": 1, "a": 2, "c": np.nan}, nan_ok=True)
    assert list(found.index) == ["b", "a", "c"]
    assert found.loc["c", "extrapolating"] == 1
    assert found.loc["a", "inflation"] == pytest.approx(1 - 1.2 / 2)
    assert found.loc["b", "per_thousand"] == pytest.approx(2.2)
    assert found.loc["b", ["lead", "lead_low", "lead_high"]].tolist() == pytest.approx([1, 1, 1])
    half = 2.776445 * np.std(0.1 * np.arange(5), ddof=1) / np.sqrt(5)
    assert found.loc["a", ["judge_low", "judge_high"]].tolist() == pytest.approx([1.2 - half, 1.2 + half])
    assert league(runs(), highest={"plant": 9.0}).loc[0, "method"] == "c"


def test_league_counts_queries_that_were_asked():
    table = runs()
    table.loc[table["method"] == "a", "queries"] = 100
    assert league(table, highest=5.0).loc[0, ["method", "per_thousand"]].tolist() == ["a", pytest.approx(12)]


def test_league_refuses_unequal_budgets_and_repeats():
    table = runs()
    table.loc[4, "queries"] = 1_001
    with pytest.raises(SchemaError, match=r"1 of 15 runs asked .* b on plant, seed 1, 1,001 of 1,000"):
        league(table, highest=5.0)
    with pytest.raises(SchemaError, match="15 of 30 runs are there twice"):
        league(pd.concat([runs(), runs()]), highest=5.0)


# Targets


def test_success_needs_level_edits_and_constraints():
    table = pd.DataFrame({
        "method": "edit", "constraints": "sites", "most_edits": 3, "percentile": 90, "target": 2.0, "tolerance": 0.5,
        "score": [2.0, 2.5, 2.6, 2.0, 2.0], "judge_score": [2.0, 0.0, 0.0, 2.0, 2.0], "edits": [3, 1, 1, 4, 1],
        "feasible": [True, True, True, True, False]})
    found = targeted(table).iloc[0]
    assert found[["n", "success", "judged_success", "feasible"]].tolist() == [5, 0.4, 0.2, 0.8]
    assert (found["low"], found["high"]) == pytest.approx((0.1176, 0.7693), abs=1e-3)  # Wilson
    assert np.isnan(targeted(table.drop(columns="judge_score")).loc[0, "judged_success"])


# Generators


def test_divergence_equals_its_twin():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 4, (n, 29)).astype(np.uint8) for n in (5, 7))
    assert jensen_shannon(kmer_share(a, 2), kmer_share(b, 2)) == pytest.approx(
        slow.jensen_shannon([decode(r) for r in a], [decode(r) for r in b], 2))
    assert jensen_shannon(np.array([1.0, 0]), np.array([0.0, 1])) == 1
    assert jensen_shannon(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0


def test_generators_stand_beside_real_sequences():
    rng = np.random.default_rng(1)

    def draw(n: int, p: tuple[float, ...] = (0.35, 0.15, 0.15, 0.35)) -> np.ndarray:
        return rng.choice(4, (n, 53), p=p).astype(np.uint8)

    train, held = draw(307), draw(401)
    good = generator_numbers(draw(199), train, held)
    copies = generator_numbers(train[:199], train, held)
    wrong = generator_numbers(draw(199, (0.15, 0.35, 0.35, 0.15)), train, held)
    assert good.loc["js_3", "generated"] < 2 * good.loc["js_3", "real"]
    assert wrong.loc["js_3", "generated"] > 20 * wrong.loc["js_3", "real"]
    assert wrong.loc["separability", "generated"] > 0.95
    assert abs(good.loc["separability", "generated"] - 0.5) < 0.12
    assert copies.loc["copies"].tolist() == [1, 0]
    assert copies.loc["longest_match", "generated"] == 53
    assert good.loc["longest_match", "generated"] < 12


def test_fidelity_is_what_the_judge_says_of_what_was_asked():
    rng = np.random.default_rng(1)
    codes, held = (rng.integers(0, 4, (n, 31)).astype(np.uint8) for n in (47, 101))

    def judge(x: np.ndarray) -> np.ndarray:
        return (x == 2).mean(axis=1)

    found = generator_numbers(codes, held, held, asked=judge(codes) + 0.1, judge=judge, ks=(3,))["generated"]
    assert found["fidelity_r"] == pytest.approx(1)
    assert found["fidelity_mse"] == pytest.approx(0.01)
    with pytest.raises(SchemaError, match="both asked and judge"):
        generator_numbers(codes, held, held, judge=judge)
    with pytest.raises(SchemaError, match="4 or more held-out"):
        generator_numbers(codes, held, held[:3])


# A known world


def test_world_shares_are_of_the_best_that_is_known():
    table = pd.DataFrame({"method": ["a"] * 4 + ["b"] * 4, "origin": [0, 1, 2, 3] * 2,
                          "predicted_gain": [2.0, 2, 4, 4, 1, 1, 1, 1], "true_gain": [1.0, 1, 2, 2, 1, 1, 1, -1],
                          "expected_gain": [1.0, 1, 2, 2, 0.5, 0.5, 0.5, 0.5]})
    found = world_numbers(table, np.array([1.0, 1, 2, 2])).set_index("method")
    assert found.loc["a", ["share", "low", "high", "realised", "calibrated", "worse"]].tolist() == [1, 1, 1, 0.5, 1, 0]
    assert found.loc["b", ["share", "realised", "worse"]].tolist() == pytest.approx([1 / 3, 0.5, 0.25])
    assert found.loc["b", "low"] < 1 / 3 < found.loc["b", "high"]


# Real data


@pytest.mark.realdata
def test_plant_replay_has_its_golden_numbers(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "validation")
    replay = importlib.import_module("design_replay")
    table = pd.concat([replay.designs(c, data=data_dir) for c in replay.CONDITIONS], ignore_index=True)
    found = replay_gains(table).set_index(["objective", "round", "method"])
    expected = {("tobacco", 3): (2.05, 1.57), ("tobacco", 10): (3.44, 2.13), ("maize", 3): (1.60, 1.10),
                ("maize", 10): (2.68, 1.37)}
    for (objective, number), (predicted, measured) in expected.items():
        row = found.loc[(objective, number, "raw")]
        assert (row["predicted"], row["measured"]) == pytest.approx((predicted, measured), abs=0.006)
        assert abs(found.loc[(objective, number, "gain per edit"), "error"]) < 0.15
