"""The parts of `validation/design_league.py` that other programs are measured with."""

import importlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.errors import ConfigError

SCRIPT = Path(__file__).resolve().parents[2] / "validation" / "design_league.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("design_league", SCRIPT)
    if spec is None or spec.loader is None:
        pytest.skip("the script is not part of this installation")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_field(script: ModuleType, flanks: tuple[str, str] = ("TTTTG", "ACG")) -> object:
    rng = np.random.default_rng(0)
    natives = rng.integers(0, 4, (37, 23)).astype(np.uint8)
    length = 23 + sum(map(len, flanks))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4 * length, 1))
    judges = {"gc": lambda codes: ((codes == 1) | (codes == 2)).sum(axis=1).astype(float),
              "a": lambda codes: (codes == 0).sum(axis=1).astype(float)}
    return script.Field("a field", net, judges, flanks, natives, natives[:11], np.arange(37.0),
                        {"oracle": 36.0, "judges": 36.0}, {"oracle": 0.0, "gc": 0.0, "a": 0.0})


def test_counter_counts_gradients_twice_and_reads_flanks(script: ModuleType) -> None:
    field = a_field(script)
    model = script.Counted(field)
    codes = field.natives[:5]
    X = script.one_hot_tensor(torch.from_numpy(codes))
    with torch.no_grad():
        y = model(X)
    assert model.n == 5
    np.testing.assert_allclose(y[:, 0].numpy(), field.predict(codes), atol=1e-5)
    model(X.requires_grad_()).sum().backward()
    assert model.n == 15


def test_ours_and_theirs_keep_the_budget_and_the_ledger_remembers(script: ModuleType, tmp_path: Path) -> None:
    field = a_field(script)
    starts = script.weak_starts(field, 3)
    assert field.constraints.ok(starts).all()
    row = script.ours(field, "genetic", starts, 500, 3, False)
    assert row["queries"] <= 500
    assert row["feasible"] == 1
    assert row["gain"] > 0
    assert row["judge_gain"] == pytest.approx((row["gain_gc"] + row["gain_a"]) / 2)

    def returns_poly_a(model: nn.Module, given: np.ndarray, budget: int, seed: int) -> np.ndarray:
        return np.zeros_like(given)

    row, mended = script.theirs(field, "a tool", returns_poly_a, starts, 500, 3)
    assert (row["method"], mended["method"]) == ("a tool", "a tool, repaired")
    assert row["feasible"] == 0
    assert row["judge_gain"] == 0  # what breaks a rule cannot be ordered
    assert row["as_returned"] == pytest.approx((row["gain_gc"] + row["gain_a"]) / 2)
    assert mended["judge_gain"] == pytest.approx(mended["as_returned"])
    assert mended["feasible"] == 1
    assert row["queries"] == 0
    assert row["gain_a"] == pytest.approx((starts != 0).sum(axis=1).mean())
    ledger = script.Ledger(tmp_path / "rows.csv")
    ledger.add([{"method": "one", "seed": 2}])
    assert script.Ledger(tmp_path / "rows.csv").has(method="one", seed=2)
    assert not script.Ledger(tmp_path / "rows.csv").has(method="one", seed=3)


def test_a_round_that_is_not_affordable_is_refused(script: ModuleType) -> None:
    field = a_field(script)
    with pytest.raises(ConfigError, match="a round of all starts"):
        script.tangermeme_greedy(script.Counted(field), field.natives[:16], 16 * 4 * 23, 0)


def test_other_evolutions_get_the_answers_of_the_oracle_and_are_counted(script: ModuleType) -> None:
    field = a_field(script)
    model = script.Counted(field)
    codes, length = field.natives[:7], field.natives.shape[1]
    X = script.one_hot_tensor(torch.from_numpy(codes))
    asked = script.Answers(model, length)
    np.testing.assert_allclose(asked.predict(X.transpose(1, 2).numpy())[:, 0], field.predict(codes), atol=1e-5)
    np.testing.assert_allclose(asked.predict_on_dataset(list(X), num_workers=1)[:, 0], field.predict(codes), atol=1e-5)
    assert (model.n, asked.input_shape) == (14, (None, length, 4))


@pytest.mark.parametrize(("name", "package"), [("grelu_evolve", "grelu"), ("crested_evolution", "crested")])
def test_other_evolutions_climb_within_the_budget(script: ModuleType, name: str, package: str) -> None:
    pytest.importorskip(package)
    field = a_field(script)
    model, starts, budget = script.Counted(field), field.natives[:5], 5 * 2 * (1 + 3 * 23)
    made = getattr(script, name)(model, starts, budget, 0)
    assert model.n <= budget
    assert ((made != starts).sum(axis=1) == 2).all()
    assert (field.predict(made) > field.predict(starts)).all()
    with pytest.raises(ConfigError, match="a round of all starts"):
        getattr(script, name)(model, starts, 5 * 3 * 23, 0)


def test_page_of_designers_with_a_generator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    learned = importlib.import_module("design_learned")
    league = sys.modules["design_league"]
    field = a_field(league)
    field = replace(field, folder=tmp_path / field.name, learned=(field.natives, np.arange(37.0)))
    few = {"sample": ("autoregressive", {"channels": 3, "n_layers": 1}, {"epochs": 1})}
    for module in (league, learned):
        monkeypatch.setattr(module, "LEARNED", few)
        monkeypatch.setattr(module, "METHODS", {"screen": ("screen", {}), "sample": ("sample", {})})
    monkeypatch.setattr(league, "PROGRAMS", {})
    monkeypatch.setattr(learned, "prepared", lambda folder: [field])
    monkeypatch.setattr(learned, "BUDGET", 200)
    text = learned.page(tmp_path, {field.name: 2})
    assert "| autoregressive | sample | 3 × 1 | 1 |" in text
    assert "with a generator sample" in text
    assert "all 2 runs with a generator: 1.000 at least" in text
    assert len(league.Ledger(tmp_path / "league.csv").rows) == 4
    assert learned.page(tmp_path, {field.name: 2}) == text  # nothing is made again
    only = league.run_league([field], tmp_path, {200: 1}, ("screen",))
    assert only["method"].tolist() == ["screen"]
