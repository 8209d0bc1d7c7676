import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ciscribe.card import Card
from ciscribe.elements import CARDS, MaskedOracle, call_elements, measure_effects, pool_elements, to_bed
from ciscribe.errors import SchemaError
from ciscribe.io.bed import read_bed, write_bed
from ciscribe.schema import check_elements, check_intervals

G, N, R, T = 5, 23, 7, 3  # genes, bins, bp a bin, cells
CELLS = ("liver", "brain", "gut")


class ToyOracle:
    """y = Σ over bins of keep · mask · weight: the effect of an element is the sum of its mask · weight."""

    def __init__(self, mask, weight):
        self.gain = torch.as_tensor(mask[:, None, :] * weight).float()  # G T N
        self.rows = 0

    def predict(self, X, S=None, covariates=None, keep=None, batch_size=64, progress=False):
        gene = X[:, 0].long()  # the first code names the gene
        self.rows += len(X)
        keep = torch.ones(len(X), N) if keep is None else keep
        return (self.gain[gene] * keep[:, None]).sum(-1)


def toy(seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.uniform(0, 1, (G, N))
    weight = rng.normal(size=(G, T, N))
    X = torch.zeros(G, N * R, dtype=torch.uint8)
    X[:, 0] = torch.arange(G)
    starts = np.array([100, 1000, 333, 5000, 77])
    return mask, weight, X, starts, [f"g{i}" for i in range(G)]


def call(mask, starts, genes, sd=None, **options):
    return call_elements(mask, np.zeros_like(mask) if sd is None else sd, starts, ["chr2"] * len(mask), genes,
                         resolution=R, **options)


def test_call_elements__merges_short_gaps_and_drops_short_runs():
    mask = np.zeros((1, N))
    mask[0, [2, 3, 5, 9, 15, 16]] = [0.6, 0.8, 0.7, 0.9, 0.5, 0.5]
    calls = call(mask, [10], ["g"], merge_bins=1, min_bins=2)
    assert calls[["start", "end"]].to_numpy().tolist() == [[10 + 2 * R, 10 + 6 * R], [10 + 15 * R, 10 + 17 * R]]
    assert calls["score"].tolist() == pytest.approx([(0.6 + 0.8 + 0 + 0.7) / 4, 0.5])
    assert calls["summit"].tolist() == [R + R // 2, R // 2]
    assert len(call(mask, [10], ["g"], merge_bins=0)) == 4
    check_elements(calls)


def test_call_elements__sd_is_that_of_the_mean_of_independent_bins():
    mask, sd = np.zeros((1, N)), np.zeros((1, N))
    mask[0, 4:6] = 0.8
    sd[0, 4:6] = [0.3, 0.4]
    draws = np.random.default_rng(0).normal(mask[0, 4:6], sd[0, 4:6], (200_000, 2)).mean(axis=1)
    assert call(mask, [0], ["g"], sd)["score_sd"].item() == pytest.approx(draws.std(), rel=0.02)


def test_call_elements__reverse_windows_are_the_mirror_image():
    mask, *_, starts, genes = toy()
    plus = call(mask, starts, genes)
    minus = call(mask[:, ::-1].copy(), starts, genes, strands=["-"] * G)
    pd.testing.assert_frame_equal(plus, minus)


def test_call_elements__stays_on_the_chromosome():
    mask = np.ones((1, N))
    calls = call(mask, [-2 * R - 3], ["g"], chrom_sizes={"chr2": 50})
    assert calls[["start", "end"]].to_numpy().tolist() == [[0, 50]]
    check_intervals(calls, {"chr2": 50})
    assert call(np.zeros((1, N)), [0], ["g"]).empty


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), fraction=st.floats(0.01, 1), merge=st.integers(0, 3), shortest=st.integers(1, 4))
def test_call_elements__fraction_is_kept_and_the_threshold_is_the_lowest(seed, fraction, merge, shortest):
    mask = np.random.default_rng(seed).integers(0, 12, (G, N)) / 11
    starts, genes = np.arange(G) * 1000, [f"g{i}" for i in range(G)]
    options = {"merge_bins": merge, "min_bins": shortest}
    calls = call(mask, starts, genes, max_bp_fraction=fraction, **options)
    budget = fraction * mask.size * R
    assert (calls["end"] - calls["start"]).sum() <= budget
    used = calls.attrs["threshold"]
    lower = [x for x in np.unique(mask) if x < used]
    if lower:
        more = call(mask, starts, genes, threshold=max(lower), **options)
        assert (more["end"] - more["start"]).sum() > budget


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), threshold=st.floats(0.05, 0.95))
def test_call_elements__without_merging_equals_a_loop_over_bins(seed, threshold):
    mask = np.random.default_rng(seed).uniform(size=(G, N))
    calls = call(mask, np.zeros(G, int), [f"g{i}" for i in range(G)], threshold=threshold, merge_bins=0)
    covered = np.zeros((G, N), bool)
    for row in calls.itertuples():
        covered[int(row.gene_id[1:]), row.start // R:row.end // R] = True
        assert mask[int(row.gene_id[1:]), row.start // R:row.end // R].mean() == pytest.approx(row.score)
    assert (covered == (mask >= threshold)).all()


@pytest.mark.parametrize(("change", "message"), [
    ({"sd": np.full((G, N), -1.0)}, "115 of 115 bins"),
    ({"mean": np.full((G, N), 1.5)}, "115 of 115 bins.*first: gene g0"),
    ({"mean": np.full((G, N), np.nan)}, "do not; first"),
    ({"gene_ids": ["a"] * G}, "4 repeat; first: a"),
    ({"starts": [1, 2]}, "starts must hold one value for each of the 5 rows"),
    ({"chrom_sizes": {"chr1": 9}}, "'chr2' is not in it"),
])
def test_call_elements__says_what_is_wrong(change, message):
    mask, *_, starts, genes = toy()
    arguments = {"mean": mask, "sd": np.zeros_like(mask), "starts": starts, "chroms": ["chr2"] * G,
                 "gene_ids": genes} | change
    with pytest.raises(SchemaError, match=message):
        call_elements(**arguments, resolution=R)
    with pytest.raises(ValueError, match="max_bp_fraction"):
        call(mask, starts, genes, max_bp_fraction=0.0)


@pytest.mark.parametrize("reverse", [False, True])
def test_measure_effects__recovers_the_known_effects(reverse):
    mask, weight, X, starts, genes = toy()
    strands = ["-" if reverse and i % 2 else "+" for i in range(G)]
    oracle = ToyOracle(mask, weight)
    assert isinstance(oracle, MaskedOracle)
    calls = call(mask, starts, genes, strands=strands)
    table = measure_effects(oracle, X, None, None, calls, starts, gene_ids=genes, resolution=R, cells=CELLS,
                            strands=strands, batch_size=4)
    assert oracle.rows == G + len(calls)
    assert len(table) == len(calls) * T
    for row in table.itertuples():
        g = int(row.gene_id[1:])
        gain = mask[g] * weight[g, CELLS.index(row.cell)]
        gain = gain[::-1] if strands[g] == "-" else gain
        first, last = (row.start - starts[g]) // R, (row.end - starts[g]) // R
        assert row.effect == pytest.approx(gain[first:last].sum(), abs=1e-5)
        assert row.evidence == "mask+erasure"


def test_measure_effects__limits_elements_per_gene_and_cuts_at_the_window():
    mask, weight, X, starts, genes = toy()
    calls = call(mask, starts, genes)
    table = measure_effects(ToyOracle(mask, weight), X, None, None, calls, starts, gene_ids=genes, resolution=R,
                            cells=CELLS, max_per_gene=2)
    one = table[table["cell"] == "gut"]
    for _, group in one.groupby("gene_id"):
        measured = group["effect"].notna()
        assert measured.sum() == 2
        assert not (group.loc[~measured, "score"] > group.loc[measured, "score"].min()).any()
        assert (group.loc[~measured, "evidence"] == "mask").all()
    wide = calls.iloc[[0]].assign(start=0, end=10**6)
    whole = measure_effects(ToyOracle(mask, weight), X, None, None, wide, starts, gene_ids=genes, resolution=R,
                            cells=CELLS)
    assert whole["effect"].to_numpy() == pytest.approx((mask[0] * weight[0]).sum(-1), abs=1e-4)


def test_measure_effects__no_elements_gives_an_empty_table():
    mask, weight, X, starts, genes = toy()
    none = call(mask * 0, starts, genes)
    table = measure_effects(ToyOracle(mask, weight), X, None, None, none, starts, gene_ids=genes, resolution=R,
                            cells=CELLS)
    assert table.empty
    assert list(table.columns) == list(none.columns)


def test_measure_effects__says_what_is_wrong():
    mask, weight, X, starts, genes = toy()
    calls = call(mask, starts, genes)

    def measure(elements=calls, cells=CELLS):
        return measure_effects(ToyOracle(mask, weight), X, None, None, elements, starts, gene_ids=genes,
                               resolution=R, cells=cells)

    with pytest.raises(SchemaError, match=r"one column for each of the 2 cells \(a, b\); got shape"):
        measure(cells=("a", "b"))
    with pytest.raises(SchemaError, match="gene without a window; first: other"):
        measure(calls.assign(gene_id="other"))
    with pytest.raises(SchemaError, match="off their gene's window; first: chr2:"):
        measure(calls.assign(start=10**6, end=10**6 + 5))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 29), score=st.sampled_from(["score", "effect"]))
def test_pool_elements__equals_the_largest_value_of_each_base(seed, n, score):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 60, n)
    table = pd.DataFrame({"chrom": rng.choice(["chr1", "chr2"], n), "start": start,
                          "end": start + rng.integers(1, 20, n), "gene_id": "g", "cell": "all",
                          "score": rng.integers(0, 5, n) / 4, "score_sd": 0.0,
                          "effect": rng.normal(size=n).round(1), "evidence": "mask"})
    expected = {c: np.full(100, np.nan) for c in ("chr1", "chr2")}
    for row in table.itertuples():
        value = abs(row.effect) if score == "effect" else row.score
        part = expected[row.chrom][row.start:row.end]
        expected[row.chrom][row.start:row.end] = np.fmax(part, value)
    got = {c: np.full(100, np.nan) for c in ("chr1", "chr2")}
    pooled = pool_elements(table, score)
    for row in pooled.itertuples():
        assert np.isnan(got[row.chrom][row.start:row.end]).all()  # disjoint
        got[row.chrom][row.start:row.end] = row.score
    for c in expected:
        np.testing.assert_array_equal(got[c], expected[c])
    check_intervals(pooled)


def test_pool_elements__leaves_out_what_was_not_measured():
    mask, *_, starts, genes = toy()
    pooled = pool_elements(call(mask, starts, genes), "effect")
    assert pooled.empty
    assert list(pooled.columns) == ["chrom", "start", "end", "score", "gene_id"]


def test_to_bed__one_row_an_element_and_survives_the_file(tmp_path):
    mask, weight, X, starts, genes = toy()
    calls = call(mask, starts, genes)
    table = measure_effects(ToyOracle(mask, weight), X, None, None, calls, starts, gene_ids=genes, resolution=R,
                            cells=CELLS)
    bed = to_bed(table)
    assert len(bed) == len(calls)
    assert bed["score"].between(0, 1000).all()
    first = table[(table["gene_id"] == bed["name"][0]) & (table["start"] == bed["start"][0])]
    assert bed.loc[0, [f"effect_{c}" for c in CELLS]].tolist() == pytest.approx(first["effect"].tolist())
    write_bed(tmp_path / "elements.bed", bed)
    back = read_bed(tmp_path / "elements.bed")
    pd.testing.assert_frame_equal(back[["chrom", "start", "end", "name"]], bed[["chrom", "start", "end", "name"]],
                                  check_dtype=False)
    assert "effect_brain" in back.columns
    assert not any(c.startswith("effect_") for c in to_bed(calls).columns)


def test_cards__are_complete():
    assert all(isinstance(card, Card) for card in CARDS)
    assert len({card.name for card in CARDS}) == len(CARDS) == 6


def test_call_elements__trim_keeps_the_width_at_half_height():
    mean = np.full((1, 31), 0.1)
    mean[0, 2:7] = (0.3, 0.55, 0.9, 0.5, 0.3)  # half height over the median: 0.5
    mean[0, 9:12] = (0.7, 0.3, 0.7)  # two summits and a dip below their half height, 0.4
    at = {"starts": [0], "chroms": ["chr1"], "gene_ids": ["g"], "resolution": 10, "threshold": 0.25, "merge_bins": 0}
    whole = call_elements(mean, np.zeros_like(mean), **at)
    assert whole[["start", "end"]].values.tolist() == [[20, 70], [90, 120]]
    trimmed = call_elements(mean, np.zeros_like(mean), trim=0.5, **at)
    assert trimmed[["start", "end"]].values.tolist() == [[30, 60], [90, 100], [110, 120]]
    with pytest.raises(ValueError, match=r"trim must lie in \[0, 1\]; got 2"):
        call_elements(mean, np.zeros_like(mean), trim=2, **at)
