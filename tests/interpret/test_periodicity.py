"""Rhythms in spacing curves."""

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import SchemaError
from ciscribe.interpret.periodicity import peak, periodicity, spectrum

GAPS = np.arange(3, 70)


def curve(values, gaps=GAPS, **keys):
    return pd.DataFrame({"gap": gaps, "mean": values, **keys})


def wave(period=10.5, phase=4.0, amplitude=1.5, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    decay = 3 * np.exp(-GAPS / 40)
    return decay + amplitude * np.cos(2 * np.pi * (GAPS - phase) / period) + noise * rng.normal(size=len(GAPS))


@pytest.mark.parametrize("null", ["red", "permutation"])
def test_periodicity__finds_the_helix(null):
    found = periodicity(curve(wave()), null=null).iloc[0]
    assert found["p_value"] < 0.01
    assert found["amplitude"] == pytest.approx(1.5, abs=0.2)
    assert found["phase"] == pytest.approx(4, abs=0.4)
    assert found["best_period"] == pytest.approx(10.5, abs=0.3)
    assert found["n"] == len(GAPS)


def test_periodicity__another_rhythm_is_not_the_helix():
    found = periodicity(curve(wave(period=7.0))).iloc[0]
    assert found["p_value"] > 0.1
    assert found["best_period"] == pytest.approx(7, abs=0.2)


@pytest.mark.parametrize("null", ["red", "permutation"])
def test_periodicity__noise_is_found_as_often_as_it_should(null):
    p = [periodicity(curve(np.random.default_rng(seed).normal(size=len(GAPS))), null=null, n_permutations=99,
                     periods=(10, 11))["p_value"]
         for seed in range(40)]
    assert np.mean(np.array(p) < 0.1) < 0.25
    assert np.mean(np.array(p) < 0.5) > 0.25


def test_periodicity__a_smooth_curve_fools_permutations_only():
    """Neighbours that are alike make any period strong: the reason for the red null."""
    p = {"red": [], "permutation": []}
    for seed in range(50):
        noise = np.random.default_rng(seed).normal(size=len(GAPS) + 8)
        smooth = np.convolve(noise, np.exp(-0.5 * (np.arange(-4, 5) / 1.2) ** 2), "valid")
        for null in p:
            p[null].append(periodicity(curve(smooth), null=null, n_permutations=99, periods=(10, 11))["p_value"].item())
    assert np.mean(np.array(p["permutation"]) < 0.05) > 0.15
    assert np.mean(np.array(p["red"]) < 0.05) < 0.12


def test_periodicity__one_row_a_curve_and_uneven_gaps():
    kept = np.random.default_rng(1).permutation(len(GAPS))[:50]
    both = pd.concat([curve(wave()[kept], GAPS[kept], track=0), curve(np.ones(50), GAPS[kept], track=1)])
    found = periodicity(both).set_index("track")
    assert found.loc[0, "p_value"] < 0.01
    assert found.loc[0, "phase"] == pytest.approx(4, abs=0.5)
    assert found.loc[1, "p_value"] == 1
    assert (found["q_value"] >= found["p_value"]).all()


def test_spectrum__is_exact_for_a_wave():
    got = spectrum(GAPS, wave(noise=0) - 3 * np.exp(-GAPS / 40) + 0.01 * GAPS**2, np.array([7.0, 10.5]))
    assert got["power"][1] == pytest.approx(1)
    assert got["amplitude"][1] == pytest.approx(1.5)
    assert got["phase"][1] == pytest.approx(4)
    assert got["power"][0] < 0.1


def test_peak__of_each_curve():
    both = pd.concat([curve(-(GAPS - 17.0) ** 2, order="ab"), curve(-abs(GAPS - 31.0), order="ba")])
    assert peak(both)["gap"].tolist() == [17, 31]
    spiky = curve(np.where(GAPS == 60, 5.0, np.exp(-0.5 * (GAPS - 20.0) ** 2 / 16) * 4))
    assert peak(spiky)["gap"].item() == 60
    assert peak(spiky, smooth=7)["gap"].item() == 20
    assert peak(spiky.rename(columns={"mean": "count"}))["gap"].item() == 60


def test_periodicity__refuses():
    with pytest.raises(SchemaError, match=r"8 gaps or more over 21\.0 bp; got 15 over 14 bp"):
        periodicity(curve(np.arange(15.0), np.arange(15)))
    with pytest.raises(SchemaError, match="a column gap"):
        peak(pd.DataFrame({"distance": [1]}))
    with pytest.raises(SchemaError, match="red or permutation"):
        periodicity(curve(wave()), null="white")
