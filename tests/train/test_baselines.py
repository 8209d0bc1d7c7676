import numpy as np
import pytest

from ciscribe.errors import SchemaError
from ciscribe.sequence import encode, reverse_complement_codes
from ciscribe.train import baselines, metrics

G, S, T, HALF, R = 601, 3, 2, 1024, 32
LENGTH = 2 * HALF
FOLDS = np.array(["train", "train", "train", "valid", "test"])[np.arange(G) % 5]
AT = {"resolution": R, "tss_offset": HALF}


@pytest.fixture(scope="module")
def planted():
    """Genes whose first target follows a promoter 4-mer and whose second follows a signal upstream."""
    rng = np.random.default_rng(7)
    codes = rng.integers(4, size=(G, LENGTH), dtype=np.uint8)
    copies = rng.integers(0, 30, size=G)
    for row, n in zip(codes, copies, strict=True):
        for at in rng.choice(np.arange(HALF - 700, HALF + 200, 5), n, replace=False):
            row[at:at + 4] = encode("TATA")
    signals = rng.gamma(1.0, 5.0, size=(G, S, LENGTH // R)).astype(np.float32)
    height = rng.normal(size=G)
    signals[:, 1, HALF // R - 12:HALF // R - 6] *= np.exp(height)[:, None].astype(np.float32)
    y = np.stack([0.2 * copies, height], axis=1) + rng.normal(0, 0.3, (G, T))
    return codes, signals, y.astype(np.float32)


def test_distance_edges__thirteen_bins():
    edges = baselines.distance_edges(16384)
    assert len(edges) == 14
    assert edges[0] == -16384
    assert edges[6:8] == [-250, 250]
    assert edges == [-e for e in edges[::-1]]


def test_features__values_by_hand():
    codes = np.full((2, LENGTH), 4, np.uint8)
    codes[0, HALF - 750:HALF - 746] = encode("ACGT")
    codes[0, HALF + 246:HALF + 250] = encode("GGGG")
    codes[0, HALF - 754:HALF - 750] = encode("CCCC")  # outside
    codes[0, HALF + 250:HALF + 254] = encode("CCCC")  # outside
    signals = np.zeros((2, S, LENGTH // R), np.float32)
    signals[1, 2, HALF // R - 1] = 8  # 32 bp up to the TSS: in the core
    signals[1, 0, 0] = -3  # the farthest bin upstream
    matrix, names = baselines.features(codes, signals, **AT, tracks=["x", "y", "z"],
                                       covariates=np.array([[5, 6], [7, 8]]))
    assert matrix.dtype == np.float32
    assert matrix.shape == (2, len(names))
    assert len(set(names)) == len(names)
    column = {name: matrix[:, i] for i, name in enumerate(names)}
    np.testing.assert_array_equal(column["kmer_ACGT"], [1, 0])
    np.testing.assert_array_equal(column["kmer_GGGG"], [1, 0])
    assert matrix[:, :256].sum() == 2
    np.testing.assert_allclose(column["max_z_-250_250"], [0, np.log(9)], rtol=1e-6)
    np.testing.assert_allclose(column["mean_z_-250_250"], [0, np.log1p(8 / 16)], rtol=1e-6)
    edges = baselines.distance_edges(HALF)
    n_far = np.sum(np.arange(LENGTH // R) * R + R / 2 - HALF < edges[1])
    np.testing.assert_allclose(column[f"mean_x_{edges[0]}_{edges[1]}"], [0, -np.log1p(3 / n_far)], rtol=1e-6)
    assert column[f"max_x_{edges[0]}_{edges[1]}"][1] == 0
    np.testing.assert_array_equal(column["covariate_1"], [6, 8])


def test_features__flip_reads_a_minus_gene_along_itself(planted):
    codes, signals, _ = planted
    tss = HALF - 300  # off centre, and not at the edge of a bin
    forward, names = baselines.features(codes, signals, resolution=R, tss_offset=tss)
    # the mirrored window holds the same gene when its TSS base is mirrored too
    mirrored, mirrored_names = baselines.features(
        reverse_complement_codes(codes), np.ascontiguousarray(signals[:, :, ::-1]), resolution=R,
        tss_offset=LENGTH - 1 - tss, flip=np.ones(G, bool))
    assert names == mirrored_names
    np.testing.assert_allclose(forward, mirrored, rtol=1e-5)
    assert not np.array_equal(forward, baselines.features(codes, signals, resolution=R, tss_offset=tss,
                                                          flip=np.ones(G, bool))[0])


def test_features__each_row_has_its_own_flip_and_no_neighbours(planted):
    codes, signals, _ = planted
    flip = np.arange(G) % 3 == 0
    together, _ = baselines.features(codes, signals, **AT, flip=flip)
    for i in (0, 1):
        alone, _ = baselines.features(codes[i:i + 1], signals[i:i + 1], **AT, flip=flip[i:i + 1])
        np.testing.assert_array_equal(together[i], alone[0])


def test_features__bad_input(planted):
    codes, signals, _ = planted
    with pytest.raises(SchemaError, match="128 bins of 16 bp"):
        baselines.features(codes, signals, resolution=16, tss_offset=HALF)
    with pytest.raises(SchemaError, match="tss_offset must lie in the window"):
        baselines.features(codes, signals, resolution=R, tss_offset=LENGTH)
    with pytest.raises(SchemaError, match="tracks must have 3 entries"):
        baselines.features(codes, signals, **AT, tracks=["x"])
    broken = signals.copy()
    broken[11, 1, 5] = np.nan
    with pytest.raises(SchemaError, match=r"at least 1 genes hold NaN .* gene 11;"):
        baselines.features(codes, broken, **AT)


def run(codes, signals, y, folds, *, seed=0, n_jobs=1, **at):
    matrix, names = baselines.features(codes, signals, **at)
    return baselines.run_baselines(matrix, names, y, folds, seed=seed, n_jobs=n_jobs)


def test_run_baselines__learns_what_was_planted(planted):
    codes, signals, y = planted
    predictions = run(codes, signals, y, FOLDS, **AT)
    assert list(predictions) == ["gbm_sequence_signals", "gbm_signals"]
    test = FOLDS == "test"
    r = {name: [metrics.pearson(y[test, t], p[test, t]) for t in range(T)] for name, p in predictions.items()}
    assert min(r["gbm_sequence_signals"]) > 0.7
    assert r["gbm_signals"][1] > 0.7
    assert abs(r["gbm_signals"][0]) < 0.3  # signals know nothing of the 4-mer
    assert predictions["gbm_signals"].shape == (G, T)


def test_run_baselines__deterministic_and_blind_to_test_targets(planted):
    codes, signals, y = planted
    rng = np.random.default_rng(0)
    other = y.copy()
    other[FOLDS == "test"] = rng.normal(100, 50, other[FOLDS == "test"].shape)
    first = run(codes, signals, y, FOLDS, **AT, seed=3)
    again = run(codes, signals, other, FOLDS, **AT, seed=3)
    differs = run(codes, signals, y, FOLDS, **AT, seed=4)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], differs[name])


def test_fit_baselines__threads_do_not_matter(planted, monkeypatch):
    monkeypatch.setattr(baselines, "_ROUNDS", 3)  # two threads are slow on a machine whose cores are taken
    codes, signals, y = planted
    one, two = (run(codes, signals, y, FOLDS, **AT, n_jobs=n) for n in (1, 2))
    np.testing.assert_array_equal(one["gbm_signals"], two["gbm_signals"])


def test_run_baselines__without_signals_only_the_sequence(planted):
    codes, signals, y = planted
    predictions = run(codes, signals[:, :0], y, FOLDS, **AT)
    assert list(predictions) == ["gbm_sequence"]
    assert set(baselines.CARDS) == {"gbm_sequence", "gbm_sequence_signals", "gbm_signals"}
    assert all(card.kind == "baseline" and card.name == name for name, card in baselines.CARDS.items())


def test_fit_baselines__bad_folds(planted):
    codes, signals, y = planted
    with pytest.raises(SchemaError, match="training fold holds no genes"):
        run(codes, signals, y, np.full(G, "valid"), **AT)
    with pytest.raises(SchemaError, match="validation fold holds no genes"):
        run(codes, signals, y, np.full(G, "train"), **AT)
    broken = y.copy()
    broken[3] = np.nan
    with pytest.raises(SchemaError, match="validation targets are NaN"):
        run(codes, signals, broken, FOLDS, **AT)


def test_fit_baselines__silent(planted, capfd):
    codes, signals, y = planted
    run(codes[:211], signals[:211], y[:211], FOLDS[:211], **AT)
    assert capfd.readouterr() == ("", "")
