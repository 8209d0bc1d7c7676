"""Scripts of `validation/`: pages in parts, the law and yardsticks of the known world, controls of generators."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from ciscribe.design.objective import Maximize
from ciscribe.design.runner import design
from ciscribe.oracle import Oracle
from ciscribe.sequence import encode, kmer_counts

SCRIPTS = Path(__file__).resolve().parents[2] / "validation"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    if not SCRIPTS.is_dir():
        pytest.skip("the scripts are not part of this installation")
    sys.path.insert(0, str(SCRIPTS))
    yield {name: import_module(name) for name in ("parts", "design_world", "design_generators")}
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def world(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["design_world"]


def test_page__keeps_the_sections_of_other_parts_in_order(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    path, put = tmp_path / "page.md", scripts["parts"].put
    for part, text in (("two", "a"), ("one", "b"), ("two", "c")):
        put(path, "A page", ("one", "two"), part, f"<!-- {part} -->\n{text}\n<!-- end {part} -->\n")
    assert path.read_text() == ("# A page\n\n<!-- one -->\nb\n<!-- end one -->\n\n"
                                "<!-- two -->\nc\n<!-- end two -->\n")


def test_law__as_a_model_climbs_as_the_law_itself(world: ModuleType) -> None:
    start = world.starts(3)[1]
    assert world.law(start[None]) <= 0.7
    top = world.climbed(start, implants=False)
    made = design(Maximize(Oracle(world.Law(), device="cpu")), start[None], "greedy", n=1, budget=20_000)
    assert world.law(top[None])[0] > world.law(start[None])[0] + 0.1
    assert made.score[0] == pytest.approx(world.law(top[None])[0], abs=1e-5)


def test_rules__say_what_the_law_does(world: ModuleType) -> None:
    """A pioneer with an activator, and two partners: effects alone and together add up to the law."""
    rules = world.rules()
    alone = rules["position"].query("strand == '+'").set_index("motif")["mean"]
    words = {name: "".join("ACGTA"[b] for b in word) for name, word in world.spelled(world.MOTIFS).items()}

    def gain(*parts: str) -> float:
        text = "A" * 60 + "".join(parts)
        return float(np.diff(world.law(np.stack([encode("A" * 250), encode(text.ljust(250, "A"))])))[0])

    def together(a: str, b: str, gap: int) -> float:
        found = rules["spacing"].query(f"motif_a == {a!r} and motif_b == {b!r} and order == 'ab' and gap == {gap} and "
                                       "orientation == '++'")
        return float(found["mean"].sum())

    assert gain(words["TBP"]) == pytest.approx(alone["TBP"], abs=0.05)
    assert gain(words["FOXA2"]) == pytest.approx(alone["FOXA2"], abs=1e-9)
    both = alone["HNF1A"] + together("FOXA2", "HNF1A", 20)
    assert gain(words["FOXA2"], "A" * 20, words["HNF1A"]) == pytest.approx(both, rel=0.15)
    assert both > 1.5 * alone["HNF1A"]
    assert together("CEBPA", "FOS::JUN", 8) > 0 == together("CEBPA", "FOS::JUN", 7)


def test_calibrated__by_the_other_half_of_the_starts(world: ModuleType) -> None:
    rng = np.random.default_rng(0)
    n = 60
    promised = rng.uniform(1, 2, n)
    honest = pd.DataFrame({"method": "half is real", "origin": np.arange(n) % 6, "edits": rng.integers(1, 9, n),
                           "predicted_gain": promised, "true_gain": promised / 2})
    none = honest.assign(method="promises nothing", predicted_gain=-1.0)
    table = world.calibrated(pd.concat([honest, none], ignore_index=True), shape="constant")
    np.testing.assert_allclose(table["expected_gain"][:n], promised / 2, rtol=1e-6)
    assert table["expected_gain"][n:].isna().all()
    numbers = world.numbers_of(table.assign(queries=1, seconds=1.0), np.full(6, 2.0), np.full(6, 4.0))
    assert numbers["method"].tolist() == ["half is real", "promises nothing"]
    assert numbers["calibrated"][0] == pytest.approx(1)
    np.testing.assert_allclose(numbers["share"], 2 * numbers["share_best"])


def test_verdicts__stand_beside_the_truth(world: ModuleType) -> None:
    single = pd.DataFrame({"verdict": ["supported"] * 3 + ["out of distribution"] * 3, "predicted_gain": 1.0,
                           "judge_gain": [0.9, 0.8, 0.7, 0.1, 0.1, 0.0], "true_gain": [1, 0.8, 0.9, 0.1, -0.2, 0]})
    sets = pd.DataFrame({"method": ["a", "b"], "verdict": ["supported", "supported"]})
    lines = world.verdicts(sets, single, pd.DataFrame({"method": ["b", "a"], "realised": [0.1, 0.9]}))
    assert "supported: 3 designs, true / predicted 0.90, 0% lost" in lines[0]
    assert "33% lost" in lines[1]
    assert "in 50% of 6 designs" in lines[2]
    assert "verdict 1.00" in lines[2]
    assert "for 1 of 2 rows" in lines[3]


def test_controls__keep_words(scripts: dict[str, ModuleType]) -> None:
    script = scripts["design_generators"]
    codes = np.stack([encode("ACGTT" * 7), encode("GGCAA" * 7)])
    made = script.shuffled(codes, 23, 1)
    pairs = kmer_counts(codes, 2)
    assert all((row == pairs).all(axis=1).any() for row in kmer_counts(made, 2))
    drawn = script.markov(np.repeat(codes, 300, axis=0), 41, 1)  # unseen words count a quarter each, of hundreds
    seen = kmer_counts(codes, 6).sum(axis=0) > 0
    assert kmer_counts(drawn, 6)[:, ~seen].sum() < 0.02 * kmer_counts(drawn, 6).sum()
