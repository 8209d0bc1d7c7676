"""Rules of motifs, asked of models whose law is written down here."""

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError
from ciscribe.interpret.periodicity import peak, periodicity
from ciscribe.interpret.syntax import (
    flank_effect,
    interaction_matrix,
    motif_codes,
    number_curve,
    position_curve,
    spacing_curve,
)
from ciscribe.oracle import Oracle
from ciscribe.perturb.experiments import space
from ciscribe.schema import Motif
from ciscribe.sequence import decode, encode, one_hot, one_hot_tensor, reverse_complement_codes

A, B = "TTGACGCA", "GGAATTTCC"  # 8 and 9 bp; B is nearly its own reverse complement
L, N_BACKGROUNDS = 113, 11


class Law(nn.Module):
    """Readouts of exact matches: additive with a position effect, synergy by gap, saturation, and A's own PWM."""

    def __init__(self, kernel=None, cap=2.0):
        super().__init__()
        for name, word in (("a", A), ("b", B)):
            self.register_buffer(name, torch.from_numpy(one_hot(encode(word))).float()[None])
        self.kernel, self.cap = kernel or {}, cap

    def forward(self, X):
        a, b = ((nn.functional.conv1d(X, k) - k.shape[2] + 1).relu()[:, 0] for k in (self.a, self.b))
        pair = X.new_zeros(len(X))
        for gap, weight in self.kernel.items():
            shift = len(A) + gap
            pair = pair + weight * (a[:, :b.shape[1] - shift] * b[:, shift:]).sum(1)
        ramp = torch.linspace(0, 1, a.shape[1])
        gc = X[:, 1:3].mean((1, 2))
        return torch.stack([(a * ramp).sum(1) - 0.5 * b.sum(1) + pair + gc, a.sum(1).clamp(max=self.cap)], 1)


def backgrounds(n=N_BACKGROUNDS, length=L, seed=0):
    """Random sequences without A, B or their ends."""
    return np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)


def law(**arguments):
    return Oracle(Law(**arguments), device="cpu")


def test_motif_codes__keeps_what_a_motif_prefers():
    ppm = np.full((4, 5), 0.25)
    ppm[:, 1], ppm[:, 3] = [0.97, 0.01, 0.01, 0.01], [0.01, 0.01, 0.01, 0.97]
    assert decode(motif_codes(Motif("m", ppm))) == "ANT"
    assert decode(motif_codes("NACN")) == "NACN"
    with pytest.raises(SchemaError, match="prefers no base"):
        motif_codes(Motif("flat", np.full((4, 3), 0.25)))
    with pytest.raises(SchemaError, match="prefers no base"):
        motif_codes("NN")


def test_spacing_curve__finds_the_planted_gap_and_nothing_else():
    oracle = law(kernel={16: 1.0, 17: 3.0, 18: 1.0})
    curve = spacing_curve(oracle, A, B, backgrounds(), range(10, 25), orientations=("++", "-+"), orders=("ab", "ba"))
    assert len(curve) == 15 * 2 * 2 * 2
    first = curve.query("track == 0 and order == 'ab' and orientation == '++'").set_index("gap")
    np.testing.assert_allclose(first["mean"].loc[[15, 16, 17, 18, 19]], [0, 1, 3, 1, 0], atol=1e-5)
    rest = curve.drop(curve.query("track == 0 and order == 'ab' and orientation == '++' and gap in [16, 17, 18]").index)
    np.testing.assert_allclose(rest["mean"], 0, atol=1e-5)
    assert (rest["q_value"] > 0.5).all()
    assert (first.loc[[16, 17, 18], "q_value"] < 1e-6).all()
    tops = peak(curve)
    assert tops.query("track == 0 and order == 'ab' and orientation == '++'")["gap"].item() == 17


def test_spacing_curve__bands_hold_the_mean_and_follow_the_seed():
    class Noisy(nn.Module):
        def forward(self, X):
            words = nn.functional.conv1d(X, torch.from_numpy(one_hot(encode("ACG"))).float()[None])
            return words.pow(3).sum((1, 2))[:, None] ** 1.5

    ask = {"gaps": [3, 5, 7], "n_bootstrap": 200}
    curve = spacing_curve(Oracle(Noisy(), device="cpu"), "ACGACG", "ACGTACG", backgrounds(), **ask, seed=1)
    assert ((curve["low"] < curve["mean"]) & (curve["mean"] < curve["high"]) & (curve["sd"] > 0)).all()
    assert (curve["n"] == N_BACKGROUNDS).all()
    again = spacing_curve(Oracle(Noisy(), device="cpu"), "ACGACG", "ACGTACG", backgrounds(), **ask, seed=1)
    other = spacing_curve(Oracle(Noisy(), device="cpu"), "ACGACG", "ACGTACG", backgrounds(), **ask, seed=2)
    np.testing.assert_array_equal(curve["low"], again["low"])
    assert (curve["low"] != other["low"]).any()
    np.testing.assert_array_equal(curve["mean"], other["mean"])


def test_spacing_curve__is_four_predictions():
    """Cooperativity and joint effect, written out by hand for one gap of B before A."""
    oracle, X = law(kernel={2: 1.0}, cap=1.0), backgrounds()
    row = spacing_curve(oracle, "TTGNNGCA", B, X, [7], orders=["ba"], orientations=["-+"]).query("track == 1")
    start = (L - 8 - 9 - 7) // 2
    texts = []
    for with_a, with_b in ((0, 0), (1, 0), (0, 1), (1, 1)):
        Y = X.copy()
        if with_b:
            Y[:, start:start + 9] = encode(B)
        if with_a:
            turned = reverse_complement_codes(encode("TTGNNGCA"))
            here = Y[:, start + 16:start + 24]
            here[:] = np.where(turned < 4, turned, here)
        texts.append(oracle.predict(torch.from_numpy(Y)).numpy()[:, 1])
    empty, a, b, ab = texts
    assert row["mean"].item() == pytest.approx((ab - a - b + empty).mean(), abs=1e-6)
    assert row["joint"].item() == pytest.approx((ab - empty).mean(), abs=1e-6)


def test_periodicity__finds_the_helix_in_a_model():
    kernel = {gap: 1 + np.cos(2 * np.pi * (gap - 4) / 10.5) for gap in range(60)}
    curve = spacing_curve(law(kernel=kernel), A, B, backgrounds(), range(60)).query("track == 0")
    found = periodicity(curve).iloc[0]
    assert found["power"] > 0.99
    assert found["amplitude"] == pytest.approx(1, abs=0.05)
    assert found["phase"] == pytest.approx(4, abs=0.2)
    assert found["best_period"] == pytest.approx(10.5, abs=0.2)
    assert found["p_value"] < 0.01


def test_number_curve__tells_lines_from_plateaus():
    curve = number_curve(law(), A, backgrounds(), [1, 2, 3, 5], gap=3)
    capped = curve.query("track == 1")
    np.testing.assert_allclose(capped["mean"], [1, 2, 2, 2], atol=1e-6)
    np.testing.assert_allclose(capped["added"], [1, 1, 0, 0], atol=1e-6)
    assert capped["q_value"].max() < 1e-6


def test_position_curve__follows_the_ramp():
    positions = [2, 31, 53, 101]
    curve = position_curve(law(), A, backgrounds(), positions).query("track == 0")
    plus = curve.query("strand == '+'")
    content = sum(base in "CG" for base in A) / L - 0.5 * 8 / L  # what A does to the GC content, on average
    np.testing.assert_allclose(plus["mean"] - content, np.array(positions) / (L - 8), atol=0.03)
    assert (curve.query("strand == '-'")["mean"] < 0.05).all()


def test_interaction_matrix__names_the_pair_in_its_order():
    motifs = [Motif(name, 0.9 * one_hot(encode(word)) + 0.025) for name, word in (("a", A), ("b", B), ("c", "CACGTG"))]
    table = interaction_matrix(law(kernel={5: 1.0, 7: -3.0}), motifs, backgrounds(), gaps=[5, 7, 11])
    first = table.query("track == 0").set_index(["motif_a", "motif_b"])
    assert len(first) == 9
    assert first.loc[("a", "b"), "mean"] == pytest.approx(-2 / 3, abs=1e-5)
    assert first.loc[("a", "b"), "z"] < -100
    assert first.drop(index=("a", "b"))["mean"].abs().max() < 1e-5
    assert first.drop(index=("a", "b"))["q_value"].min() > 0.5
    with pytest.raises(SchemaError, match="names of their own; got a, a"):
        interaction_matrix(law(), [motifs[0], motifs[0]], backgrounds())


class Affinity(nn.Module):
    """Linear in the bases around a word that must be there."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", torch.as_tensor(weights).float())

    def forward(self, X):
        width = self.weights.shape[1]
        start = (X.shape[2] - width) // 2
        return (X[:, :, start:start + width] * self.weights).sum((1, 2))[:, None]


@pytest.mark.parametrize("strand", ["+", "-"])
def test_flank_effect__reads_the_weights_of_every_base(strand):
    weights = np.random.default_rng(3).normal(size=(4, 13))
    placed = weights if strand == "+" else weights[::-1, ::-1].copy()
    oracle = Oracle(Affinity(placed), device="cpu")
    table = flank_effect(oracle, "GATTACA", backgrounds(length=41), flank=3, strand=strand)
    assert table["position"].tolist() == np.repeat(range(-3, 10), 4).tolist()
    assert table.query("in_motif")["position"].unique().tolist() == list(range(7))
    got = table["mean"].to_numpy().reshape(13, 4).T
    np.testing.assert_allclose(got, weights - weights.mean(axis=0), atol=1e-5)


def test_syntax__refuses():
    oracle, X = law(), backgrounds()
    with pytest.raises(SchemaError, match="2 backgrounds or more"):
        spacing_curve(oracle, A, B, X[:1], [3])
    with pytest.raises(SchemaError, match="a background of 113 bp"):
        spacing_curve(oracle, A, B, X, [97])
    with pytest.raises(SchemaError, match="from 0; got -2"):
        spacing_curve(oracle, A, B, X, [-2])
    with pytest.raises(SchemaError, match=r"one of \+\+, \+-, -\+, --; got 'ab' and '\+'"):
        spacing_curve(oracle, A, B, X, [3], orientations=["+"])
    with pytest.raises(SchemaError, match="copies from 1"):
        number_curve(oracle, A, X, [0, 1])
    with pytest.raises(SchemaError, match=r"a strand is \+ or -; got '\.'"):
        position_curve(oracle, A, X, [3], strands=["."])
    with pytest.raises(SchemaError, match="one-hot"):
        number_curve(oracle, A, one_hot_tensor(torch.from_numpy(X)) * 0.5)


def test_syntax__leaves_sequences_as_they_were():
    X = backgrounds()
    before = X.copy()
    number_curve(law(), A, X)
    np.testing.assert_array_equal(X, before)


def test_spacing_curve__agrees_with_space():
    """The experiment of `perturb` and this one ask the same question."""
    oracle, X = law(kernel={3: 1.0, 5: -2.0}), backgrounds()
    ours = spacing_curve(oracle, A, B, X, [3, 5, 8], orientations=("++", "-+"))
    theirs = space(oracle, A, B, X, [3, 5, 8], orientations=("++", "-+"))
    both = ours.merge(theirs, on=["gap", "orientation", "track"], suffixes=("", "_space"))
    assert len(both) == len(ours) == 12
    np.testing.assert_allclose(both["mean"], both["cooperativity"], atol=1e-5)
    np.testing.assert_allclose(both["joint"], both["effect"], atol=1e-5)
