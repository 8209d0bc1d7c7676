import numpy as np
import pytest
from planted_motifs import REPRESSORS, planted_importance

from ciscribe.errors import ConfigError, SchemaError
from ciscribe.interpret.seqlets import COLUMNS, call_seqlets
from ciscribe.results import contributions
from ciscribe.sequence import one_hot


@pytest.fixture(scope="module")
def planted():
    codes, attributions, sites, _ = planted_importance()
    return contributions(attributions, one_hot(codes)).isel(track=0), sites


def test_finds_planted_sites_with_their_sign(planted):
    array, sites = planted
    seqlets = call_seqlets(array, width=13)
    assert list(seqlets.columns) == list(COLUMNS)
    at = {}
    for region, start, end, _, name in sites:
        at.setdefault(region, []).append((start, end, -1 if name in REPRESSORS else 1))
    found = sum(any(min(row.end, end) - max(row.start, start) >= 6 and row.sign == sign for row in rows.itertuples())
                for region, rows in seqlets.groupby("region") for start, end, sign in at[region])
    assert found / len(sites) > 0.9


def test_coordinates_sums_and_order(planted):
    array, _ = planted
    values = array.values
    seqlets = call_seqlets(array, width=13)
    sums = [values[r, s:e].sum() for r, s, e in zip(seqlets["region"], seqlets["start"], seqlets["end"], strict=True)]
    np.testing.assert_allclose(seqlets["contribution"], sums, rtol=1e-4)
    np.testing.assert_array_equal(seqlets["sign"], np.sign(sums))
    assert (seqlets["end"] - seqlets["start"] == 13).all()
    assert seqlets.equals(seqlets.sort_values(["region", "start"], ignore_index=True))
    for _, rows in seqlets.groupby("region"):
        assert (np.diff(rows["start"]) >= 13).all()


def test_reaches_both_ends_and_takes_the_best_window():
    values = np.random.default_rng(0).normal(0, 0.01, (17, 101))
    values[3, :5] += 1
    values[11, -7:] -= 1
    seqlets = call_seqlets(values, width=5, shares=(0, 1), fdr=0.01)
    assert seqlets["region"].tolist() == [3, 11]
    assert seqlets["start"].iloc[0] == 0  # 5 of the 5 raised bases
    assert seqlets["start"].iloc[1] in (94, 95, 96)  # 5 of the 7 lowered ones
    assert seqlets["sign"].tolist() == [1, -1]
    assert (seqlets["p_value"] < 1e-6).all()


def test_window_is_the_middle_and_keeps_coordinates():
    values = np.random.default_rng(0).normal(0, 0.01, (17, 101))
    values[3, 2:9] += 1
    values[5, 48:55] += 1
    everywhere = call_seqlets(values, width=7, shares=(0, 1), fdr=0.01)
    middle = call_seqlets(values, width=7, window=31, shares=(0, 1), fdr=0.01)
    assert everywhere[["region", "start"]].to_numpy().tolist() == [[3, 2], [5, 48]]
    assert middle[["region", "start", "end"]].to_numpy().tolist() == [[5, 48, 55]]


def test_noise_alone_is_not_significant_but_a_share_is_passed():
    values = np.random.default_rng(0).normal(size=(53, 211))
    assert call_seqlets(values, shares=(0, 1), fdr=0.05).empty
    assert len(call_seqlets(values)) > 20


def test_sparse_importance_stands_out_of_zeros():
    values = np.zeros((53, 211), dtype=np.float32)
    values[::2, 100:108] = np.random.default_rng(0).uniform(0.5, 1.5, (27, 1))
    seqlets = call_seqlets(values, width=8)
    assert seqlets["start"].tolist() == [100] * 27
    assert seqlets["region"].tolist() == list(range(0, 53, 2))


def test_scale_and_sign_do_not_matter(planted):
    array, _ = planted
    a, b = call_seqlets(array.values), call_seqlets(array.values * -1e-6)
    assert a[["region", "start"]].equals(b[["region", "start"]])
    np.testing.assert_array_equal(a["sign"], -b["sign"])
    np.testing.assert_allclose(a["p_value"], b["p_value"], rtol=1e-3)


@pytest.mark.parametrize(("values", "options", "error", "words"), [
    (np.zeros((3, 41)), {}, SchemaError, "all 123 contributions are 0"),
    (np.ones((3, 4, 41)), {}, SchemaError, r"\(B, L\)"),
    (np.ones((3, 17)), {}, SchemaError, "21 bp does not fit into sequences of 17 bp"),
    (np.ones((3, 41)), {"window": 19}, SchemaError, "does not fit into the window of 19 bp"),
    (np.ones((3, 41)), {"window": 43}, SchemaError, "wider than the sequences"),
    (np.full((3, 41), np.nan), {}, SchemaError, "123 of 123 contributions are NaN"),
    (np.ones((3, 41)), {"fdr": 0.0}, ConfigError, "fdr"),
    (np.ones((3, 41)), {"shares": (0.5, 0.1)}, ConfigError, "share"),
])
def test_bad_input(values, options, error, words):
    with pytest.raises((error, TypeError) if values.ndim == 3 else error) as caught:
        call_seqlets(values, **options)
    if isinstance(caught.value, error):
        caught.match(words)
