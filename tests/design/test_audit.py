"""What is said of designs: numbers against slow twins, calibration, verdicts, and faults of other audits."""

import numpy as np
import pandas as pd
import pytest

from ciscribe.design.audit import Panel, Thresholds, audit, audit_sequences, disagreement_percentile
from ciscribe.design.calibration import SHAPES, Calibration, fit_calibration
from ciscribe.design.natives import (
    MarkovChain,
    Natives,
    diversity,
    gc_content,
    kmer_correlation,
    kmer_share,
    longest_homopolymer,
    longest_match,
    motif_correlation,
    nearest_hamming,
    separability,
)
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError, SchemaError, UnknownNameError
from ciscribe.schema import Motif
from ciscribe.sequence import decode, encode, one_hot
from planted_law import LENGTH as LAW_LENGTH
from planted_law import objective
from reference import design_audit as slow

LENGTH = 61


def random(n: int, length: int = LENGTH, seed: int = 0, p: tuple[float, ...] = (0.25,) * 4) -> np.ndarray:
    return np.random.default_rng(seed).choice(4, (n, length), p=p).astype(np.uint8)


def texts(codes: np.ndarray) -> list[str]:
    return [decode(row) for row in codes]


@pytest.fixture(scope="module")
def natives() -> Natives:
    codes = random(211, p=(0.3, 0.2, 0.2, 0.3))
    return Natives(codes, (codes == 0).sum(axis=1) / 10 + 0.0)


def measured(shape: str, strength: float, n: int = 307, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    gain, edits = rng.uniform(0.5, 4, n), rng.integers(1, 11, n).astype(float)
    return pd.DataFrame({"predicted_gain": gain, "edits": edits, "origin": np.arange(n) // 3,
                         "measured_gain": gain * SHAPES[shape](strength, gain, edits) + rng.normal(0, noise, n)})


# Numbers of sequences


def test_homopolymers_and_gc_equal_their_twins():
    codes = random(23, 19, p=(0.1, 0.2, 0.3, 0.4))
    codes[3, 5:9] = 4
    codes[4] = 4
    assert longest_homopolymer(codes).tolist() == [slow.homopolymer(t) for t in texts(codes)]
    assert gc_content(codes[:1])[0] == np.isin(codes[0], (1, 2)).mean()
    assert gc_content(codes)[4] == 0


def test_longest_match_equals_all_pieces():
    known = random(13, 47, seed=1)
    known[2, 30:] = 4
    codes = random(11, 43, seed=2)
    codes[0, 2:37] = known[5, 7:42]  # longer than a word of 27
    codes[1] = known[6, :43]  # a whole copy
    codes[2, 20:] = known[7, 24:]  # to both ends
    codes[3, 10] = codes[0, 12] = 4
    codes[3, 11:41] = known[8, 0:30]
    codes[4, :40] = np.tile(known[9, :4], 10)
    found = longest_match(codes, known)
    assert found.tolist() == [slow.longest_match(t, texts(known)) for t in texts(codes)]
    assert found[1] == 43


def test_longest_match_does_not_count_where_sequences_end():
    assert longest_match(encode("ACG")[None], encode("TTACG")[None]).tolist() == [3]
    assert longest_match(encode("CGNN")[None], encode("ACGNN")[None]).tolist() == [2]
    assert longest_match(encode("AAAA")[None], encode("CCCC")[None]).tolist() == [0]


def test_identity_of_249_bases_is_not_counted_in_one_byte():
    same = random(1, 249)
    assert nearest_hamming(same, same)[0] == 0
    assert int((one_hot(same) * one_hot(same)).sum(dtype=np.int8)) == -7  # what one byte makes of it


def test_nearest_hamming_equals_its_twin():
    known, codes = random(17, 29, seed=3), random(7, 29, seed=4)
    known[2, :5] = 4
    assert nearest_hamming(codes, known).tolist() == [
        min(slow.hamming(a, b) for b in texts(known)) for a in texts(codes)]
    assert nearest_hamming(known, known, itself=True)[0] == min(
        slow.hamming(decode(known[0]), decode(row)) for row in known[1:])


def test_overlapping_words_all_count():
    share = kmer_share(encode("AAAAA")[None], 2)
    assert share[0] == 1
    assert share.sum() == 1
    assert kmer_share(encode("AAAAAC")[None], 2)[:2].tolist() == [0.8, 0.2]  # AA four times, not twice
    one, other = random(3, 31), random(5, 37, seed=1)
    counts = [[sum(slow.words(t, 2).count(w) for t in texts(s)) for w in sorted(a + b for a in "ACGT" for b in "ACGT")]
              for s in (one, other)]
    assert kmer_correlation(one, other, k=2) == pytest.approx(np.corrcoef(np.array(counts))[0, 1])


def test_diversity_equals_all_pairs():
    codes = random(7, 13)
    assert diversity(codes) == pytest.approx(slow.diversity(texts(codes)))
    assert diversity(codes[[0, 0, 0]]) == 0
    assert np.isnan(diversity(codes[:1]))


# Natives


def test_neighbours_and_likelihood_equal_their_twins():
    codes = random(31, 41)
    natives, own = Natives(codes), random(5, 41, seed=9)
    assert natives.distance(own) == pytest.approx([slow.knn_distance(t, texts(codes)) for t in texts(own)], abs=1e-5)
    left_out = sorted(slow.knn_distance(decode(row), texts(codes), skip=i) for i, row in enumerate(codes))
    assert natives._distance == pytest.approx(left_out, abs=1e-5)
    chain = MarkovChain.fit(codes)
    assert chain.loglik(own) == pytest.approx([slow.markov_loglik(t, texts(codes)) for t in texts(own)], abs=1e-5)


def test_percentiles_of_new_natives_are_even_and_of_others_low(natives: Natives):
    like = random(199, seed=5, p=(0.3, 0.2, 0.2, 0.3))
    knn = natives.knn_percentile(natives.distance(like))
    markov = natives.markov_percentile(natives.loglik(like))
    assert abs(np.median(knn) - 50) < 12
    assert abs(np.median(markov) - 50) < 12
    repeats = np.tile(encode("CG"), (7, 31))[:, :LENGTH]
    assert natives.knn_percentile(natives.distance(repeats)).max() < 1


def test_disagreement_is_compared_at_equal_score():
    rng = np.random.default_rng(0)
    level = np.linspace(0, 10, 1_009)
    spread = level / 10  # disagreement grows with the score
    known = np.stack([level + spread, level - spread]) + rng.normal(0, 0.05, (2, len(level)))
    own = np.stack([[9.9, 2.0, 2.0], [8.1, 1.6, 0.2]])
    sd, percentile = disagreement_percentile(Panel(own, known))
    assert sd == pytest.approx([0.9, 0.2, 0.9])
    assert 20 < percentile[0] < 80
    assert 20 < percentile[1] < 90
    assert percentile[2] == 0  # the same disagreement, where natives have none
    with pytest.raises(SchemaError, match="two or more models"):
        disagreement_percentile(Panel(own[:1], known[:1]))


def test_natives_need_sequences_and_labels():
    with pytest.raises(SchemaError, match="10 or more sequences"):
        Natives(random(9))
    with pytest.raises(SchemaError, match="one number a native"):
        Natives(random(11), np.zeros(7))
    with pytest.raises(SchemaError, match="not all NaN"):
        Natives(random(11), np.full(11, np.nan))


# Sets


def test_separability_is_out_of_sample():
    codes, same = random(83, seed=1), random(307, seed=2)
    assert abs(separability(codes, same) - 0.5) < 0.12  # 256 words tell any 83 sequences that they saw
    assert separability(random(83, seed=3, p=(0.45, 0.05, 0.05, 0.45)), same) > 0.95
    assert np.isnan(separability(codes[:1], same))


def test_separability_keeps_families_together():
    starts, native = random(5, seed=4), random(307, seed=2)
    rng, family = np.random.default_rng(0), np.repeat(np.arange(5), 17)
    codes = starts[family].copy()
    codes[np.arange(85), rng.integers(0, LENGTH, 85)] = rng.integers(0, 4, 85)
    assert separability(codes, native) > 0.99  # recognizes relatives
    assert separability(codes, native, groups=family) < 0.85


def test_motif_correlation_sees_motifs():
    motifs = [Motif(f"m{i}", np.eye(4)[encode(w)].T * 0.97 + 0.0075) for i, w in
              enumerate(("TGACTCATT", "GGAAGTGAC", "CACGTGACC", "TATAAATAG", "GATAAGATA"))]
    top, good, bad = random(97), random(61, seed=1), random(61, seed=2)
    for some, n in ((top, (60, 40, 25, 10, 0)), (good, (55, 38, 22, 9, 0)), (bad, (0, 9, 22, 38, 55))):
        for motif, k in zip(motifs, n, strict=True):
            width = motif.ppm.shape[1]
            at = motifs.index(motif) * 11
            some[:k, at:at + width] = motif.ppm.argmax(axis=0)
    assert motif_correlation(good, top, motifs) > 0.9
    assert motif_correlation(bad, top, motifs) < -0.5


# Calibration


@pytest.mark.parametrize("shape", list(SHAPES))
def test_calibration_recovers_its_own_law(shape: str):
    fitted = fit_calibration(measured(shape, 0.3, noise=0.2), shape=shape)
    assert fitted.strength == pytest.approx(0.3, rel=0.15)
    assert fitted.low < 0.3 < fitted.high
    assert fitted.residual_sd == pytest.approx(0.2, rel=0.15)
    assert (fitted.n, fitted.most_edits) == (307, 10)


def test_calibration_is_right_on_average_and_unbiased_on_other_designs():
    fitted = fit_calibration(measured("gain per edit", 0.25, noise=0.5), n_bootstrap=0)
    other = measured("gain per edit", 0.25, n=5_003, seed=1)
    expected = fitted.expected(other["predicted_gain"].to_numpy(), other["edits"].to_numpy())
    assert expected.mean() == pytest.approx(other["measured_gain"].mean(), rel=0.05)
    assert np.isnan(fitted.low)


def test_calibration_leaves_alone_what_has_no_edits_and_never_inflates():
    fitted = Calibration("gain per edit", 0.5, 0.4, 0.6, 1.0, 100, 3)
    assert fitted.expected(np.array([2.0, 0.0, -2.0]), np.zeros(3)).tolist() == [2.0, 0.0, -2.0]
    share = fitted.share(np.array([1.0, 2.0, 4.0]), np.full(3, 3.0))
    assert (np.diff(share) > 0).all()
    assert 0 < share[0] < 1
    table = measured("constant", 0.0)
    table["measured_gain"] *= 1.5
    assert fit_calibration(table, n_bootstrap=0).strength == 0


def test_calibration_does_not_depend_on_starts_among_the_designs():
    table = measured("edits", 0.1)
    starts = pd.DataFrame({"predicted_gain": 0.0, "measured_gain": 0.0, "edits": 0.0, "origin": np.arange(50)})
    both = pd.concat([starts, table])
    assert fit_calibration(both).strength == fit_calibration(table).strength


def test_calibration_of_designs_that_gained_nothing_is_finite():
    table = measured("edits", 0.1)
    table["measured_gain"] = -1.0
    fitted = fit_calibration(table, n_bootstrap=0)
    assert np.isfinite(fitted.strength)
    assert abs(fitted.expected(np.array([3.0]), np.array([5.0]))[0]) < 0.01


def test_calibration_refuses_what_it_cannot_use():
    table = measured("edits", 0.1)
    with pytest.raises(UnknownNameError, match="did you mean 'edits'"):
        fit_calibration(table, shape="edit")
    with pytest.raises(SchemaError, match="edits missing"):
        fit_calibration(table.drop(columns="edits"))
    with pytest.raises(SchemaError, match="10 or more designs"):
        fit_calibration(table.head(9))
    with pytest.raises(SchemaError, match="10 or more designs"):
        fit_calibration(table.assign(predicted_gain=-1.0))
    table.loc[[4, 8], "measured_gain"] = np.nan
    with pytest.raises(SchemaError, match=r"2 of 307 measured designs .* first: row 4"):
        fit_calibration(table)


# The audit


def test_audit_of_natives_supports_them_and_of_repeats_does_not(natives: Natives):
    like = random(67, seed=7, p=(0.3, 0.2, 0.2, 0.3))
    panel = Panel(np.ones((2, 67)), np.stack([np.ones(211), np.ones(211) + 0.5]))
    found = audit_sequences(like, natives, score=np.ones(67), panel=panel)
    assert found.table["verdict"].value_counts()["supported"] >= 55
    assert "not looked at: a judge." in found.line
    assert "disagreement of models" not in found.line
    strange = audit_sequences(np.tile(encode("CG"), (5, 31))[:, :LENGTH], natives)
    assert strange.verdict == "out of distribution"
    assert strange.line.startswith("out of distribution: 0 of 5 designs supported, 5 out of distribution;")
    assert "percentile 1 of natives" in strange.line  # thresholds are stated


def test_sets_of_new_natives_are_supported_and_sets_with_more_strange_ones_are_not(natives: Natives):
    sets = [random(67, seed=100 + i, p=(0.3, 0.2, 0.2, 0.3)) for i in range(11)]
    verdicts = [audit_sequences(some, natives).verdict for some in sets]
    assert verdicts.count("supported") >= 10  # by chance, each of two percentiles calls 5 % of them strange
    mixed = sets[0].copy()
    mixed[:17] = np.tile(encode("CG"), (17, 31))[:, :LENGTH]
    assert audit_sequences(mixed, natives).verdict == "extrapolating"
    single = audit_sequences(mixed[:1], natives, thresholds=Thresholds(out=0))
    assert single.verdict == "extrapolating"


def test_scores_above_all_labels_extrapolate(natives: Natives):
    like = random(29, seed=7, p=(0.3, 0.2, 0.2, 0.3))
    score = np.full(29, natives.highest)
    score[:13] += 0.01
    found = audit_sequences(like, natives, score=score, thresholds=Thresholds(out=0, unusual=0))
    assert found.table["above_labels"].sum() == 13
    assert found.verdict == "extrapolating"
    assert "13 score above the highest label" in found.line
    assert audit_sequences(like, natives, score=score - 1, thresholds=Thresholds(out=0, unusual=0)
                           ).verdict == "supported"


def test_gains_are_each_over_their_own_start(natives: Natives):
    starts, origin = natives.codes[[3, 5]].copy(), np.array([1, 0, 1])
    codes = starts[origin].copy()
    codes[0, :7] = (codes[0, :7] + 1) % 4
    codes[2, 11] = (codes[2, 11] + 2) % 4
    calibration = Calibration("edits", 0.1, 0.0, 0.2, 1.0, 100, 10)
    found = audit_sequences(
        codes, natives, score=np.array([3.0, 1.0, 2.0]), judge_score=np.array([1.0, 0.5, 1.0]), starts=starts,
        origin=origin, start_score=np.array([1.0, 0.0]), judge_start_score=np.array([0.5, 0.0]),
        calibration=calibration, feasible=np.array([True, False, True]),
        thresholds=Thresholds(out=0, unusual=0, judged=0.5))
    table, value = found.table, found.summary["value"]
    assert table["gain"].tolist() == [3.0, 0.0, 2.0]
    assert table["judge_gain"].tolist() == [1.0, 0.0, 1.0]
    assert table["edits"].tolist() == [7, 0, 1]
    assert table["calibrated_gain"].to_numpy() == pytest.approx([3 / 1.7, 0, 2 / 1.1])
    assert table["nearest_hamming"].tolist() == [7, 0, 1]
    assert table["longest_match"].tolist() == [LENGTH - 7, LENGTH, LENGTH - 12]
    assert value["judged_share"] == pytest.approx(2 / 5)
    assert value["judged_slope"] == pytest.approx(np.polyfit([3, 0, 2], [1, 0, 1], 1)[0])
    assert value["improved"] == pytest.approx(2 / 3)
    assert value["feasible"] == pytest.approx(2 / 3)
    assert found.verdict == "extrapolating"
    assert "the judge grants 40% of the predicted gain" in found.line


def test_set_numbers_stand_beside_those_of_natives(natives: Natives):
    one = audit_sequences(random(53, seed=11, p=(0.3, 0.2, 0.2, 0.3)), natives)
    again = audit_sequences(random(53, seed=11, p=(0.3, 0.2, 0.2, 0.3)), natives)
    pd.testing.assert_frame_equal(one.summary, again.summary)
    both = one.summary.loc[["gc", "diversity", "novelty", "longest_match", "kmer_correlation", "separability"]]
    assert np.isfinite(both.to_numpy()).all()
    assert both["value"].to_numpy() == pytest.approx(both["natives"].to_numpy(), rel=0.25, abs=0.1)


def test_audit_of_a_run_counts_its_queries():
    natives = Natives(random(101, LAW_LENGTH))
    start = random(3, LAW_LENGTH, seed=1)
    made = design(objective(), start, "greedy", n=6, budget=2_000, judge=objective())
    found = audit(made, natives)
    assert found.summary.loc["queries", "value"] == made.queries
    assert found.summary.loc["judged_share", "value"] == pytest.approx(1)
    assert (found.table["edits"] == made.edits).all()
    assert found.attrs["designer"] == "greedy"


def test_audit_names_what_does_not_fit(natives: Natives):
    codes = random(7)
    bad = codes.copy()
    bad[2, 3] = 4
    with pytest.raises(SchemaError, match="1 of 7 hold N; first: row 2"):
        audit_sequences(bad, natives)
    with pytest.raises(SchemaError, match="no design"):
        audit_sequences(codes[:0], natives)
    with pytest.raises(SchemaError, match="score has 5 numbers for 7"):
        audit_sequences(codes, natives, score=np.zeros(5))
    with pytest.raises(SchemaError, match="1 of 7 numbers of judge_score are not finite; first: row 6"):
        audit_sequences(codes, natives, judge_score=np.array([0.0] * 6 + [np.nan]))
    with pytest.raises(SchemaError, match="origin among the 2 starts"):
        audit_sequences(codes, natives, starts=codes[:2], origin=np.full(7, 2))
    with pytest.raises(SchemaError, match="panel is"):
        audit_sequences(codes, natives, panel=Panel(np.zeros((2, 7)), np.zeros((2, 5))))
    with pytest.raises(ConfigError, match="out the lower"):
        Thresholds(out=6)
