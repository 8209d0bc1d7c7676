"""The benchmark of a Seq2Exp step: it measures a small one, and its page claims nothing that was not measured."""

import importlib.util
import sys

import pytest

TINY = {"d_model": 8, "n_layers": 1, "d_state": 2, "expand": 1, "include_bp": 20, "center_bp": 20}


@pytest.fixture(scope="module")
def script(root):
    spec = importlib.util.spec_from_file_location("seq2exp_step", root / "benchmarks" / "seq2exp_step.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # a norm in bf16, without a fused kernel
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_measure_step__gives_seconds_and_memory(script, precision):
    found = script.measure_step("cpu", 173, 3, precision, 1, 1, TINY)
    assert found["seconds"] > 0
    assert found["memory"] >= 0


def test_measure_step__memory_that_ran_out_is_told(script, monkeypatch):
    def hungry(*given):
        raise MemoryError

    monkeypatch.setattr(script, "make_step", hungry)
    assert script.measure_step("cpu", 173, 3, "fp32", 1, 1) == {"seconds": None, "memory": None}


def test_page__a_small_window_is_not_called_the_published_one(script):
    rows = [["chunked", "bf16", "3", "0.17", "29"]]
    small = script.page({"device": "cpu", "name": "CPU"}, 173, rows, 0.5)
    assert "the window is 173 bp\nand not the published 200,000, so no figure here is of the full size." in small
    assert "| chunked | bf16 | 3 | 0.17 | 29 |" in small
    whole = script.page({"device": "cuda", "name": "H200"}, 200_000, rows, 0.5)
    assert "the window is the published one." in whole
