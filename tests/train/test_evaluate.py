import numpy as np
import pytest
import torch
from torch import nn

import small_world as small
from ciscribe.data.windows import WindowSpec
from ciscribe.oracle import Oracle
from ciscribe.sequence import one_hot_tensor
from ciscribe.train.evaluate import (
    bin_importance,
    model_inputs,
    predict_rows,
    prediction_table,
    rate_curve,
    truncation_curve,
)

T = len(small.CELLS)


class Sum(nn.Module):
    """Adds up everything it is shown, bin by bin, and writes down what it was shown."""

    def forward(self, X, S=None, covariates=None, keep=None):
        self.shown = X, S, covariates, keep
        bins = S.sum(dim=1)
        y = (bins if keep is None else bins * keep).sum(dim=1, keepdim=True)
        return {"expression": torch.cat([y, X[:, 1].sum(dim=1, keepdim=True), 0 * y], dim=1)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small.build(tmp_path_factory.mktemp("evaluate"), WindowSpec(640, 64), blacklist=small.BLACKLIST,
                       covariates=["gc"])


def test_predict_rows__equals_one_big_batch_in_the_order_asked_for(store):
    rows = np.array([30, 0, 7, 19, 3, 11, 2])
    batch = store.batch(rows)
    expected = Sum()(one_hot_tensor(batch.codes), batch.signals, batch.covariates, batch.keep)["expression"]
    for size in (1, 3, 64):
        found = predict_rows(Oracle(Sum(), device="cpu"), store, rows, batch_size=size)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == np.float32
    assert predict_rows(Oracle(Sum(), device="cpu"), store, rows[:0]).shape == (0, T)


def test_predict_rows__a_smaller_window_blanks_sequence_signals_and_mask(store):
    model = Sum()
    predict_rows(Oracle(model, device="cpu"), store, np.array([5, 6]), window_bp=3 * 128)
    X, S, covariates, keep = model.shown
    outside = np.r_[0:448, 832:1280]
    assert X[:, :, outside].sum() == 0
    assert X[:, :, 448:832].sum() > 2 * 300
    assert S[:, :, np.r_[0:7, 13:20]].abs().sum() == 0
    assert keep.tolist() == [[0.0] * 7 + [1.0] * 6 + [0.0] * 7] * 2
    batch = store.batch([5, 6])
    assert torch.equal(S[:, :, 7:13], batch.signals[:, :, 7:13])
    assert torch.equal(covariates, batch.covariates)


def test_model_inputs__what_the_data_lack_is_none(store, tmp_path):
    given = model_inputs(store.batch([10]))
    assert given["keep"] is None  # nothing of the blacklist here
    assert given["S"].shape == (1, 2, 20)
    assert model_inputs(store.batch([0]))["keep"] is not None
    bare = small.build(tmp_path, tracks=[])
    assert model_inputs(bare.batch([5])) == {"S": None, "covariates": None, "keep": None}


def test_truncation_curve__a_model_of_the_center_loses_nothing_until_it_is_cut(store):
    class Center(Sum):
        def forward(self, X, S=None, covariates=None, keep=None):
            super().forward(X, S, covariates, keep)
            return {"expression": S[:, 0, 9:11].mean(dim=1, keepdim=True).repeat(1, T)}

    oracle = Oracle(Center(), device="cpu")
    rows = store.rows("train")
    curve = truncation_curve(oracle, store, rows, [1280, 640, 128])
    assert [c["window_bp"] for c in curve] == [1280, 640, 128]
    assert curve[0]["pearson"] == pytest.approx(curve[2]["pearson"])
    far = truncation_curve(Oracle(Sum(), device="cpu"), store, rows, [1280, 128])
    assert far[0]["pearson"] != pytest.approx(far[1]["pearson"])
    assert [c["window_bp"] for c in truncation_curve(oracle, store, rows)] == [1280, 640]


def test_prediction_table__one_row_a_gene_and_target(store):
    values = np.arange(len(store) * T, dtype=np.float32).reshape(-1, T)
    table = prediction_table(store, {"predicted": values, "other": -values})
    assert len(table) == 31 * T
    row = table[(table["gene_id"] == "chr2g1") & (table["cell"] == "skin")].iloc[0]
    assert row["predicted"] == values[20, 2]
    assert row["other"] == -values[20, 2]
    assert row["observed"] == pytest.approx(store.targets[20, 2])
    assert (row["fold"], row["chrom"], row["strand"]) == ("valid", "chr2", "-")
    assert (table["predicted"].to_numpy().reshape(-1, T) == values).all()


class Weighted(Sum):
    """Sees every bin with a weight of its own."""

    weight = torch.arange(20.0)[torch.randperm(20, generator=torch.Generator().manual_seed(3))]

    def forward(self, X, S=None, covariates=None, keep=None):
        keep = torch.ones(len(X), 20) if keep is None else keep
        return {"expression": (S[:, 0] * keep * self.weight).sum(dim=1, keepdim=True).repeat(1, T)}


def test_bin_importance__is_the_gradient_of_keep(store):
    batch = store.batch([5, 6, 21])
    found = bin_importance(Oracle(Weighted(), device="cpu"), batch)
    expected = T * (batch.signals[:, 0] * Weighted.weight).abs()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bin_importance__none_where_the_model_cannot_close_a_bin(store):
    class Blind(nn.Module):
        def forward(self, X, S=None, covariates=None):
            return {"expression": S.sum(dim=(1, 2))[:, None].repeat(1, T)}

    class AllOrNothing(Sum):
        def forward(self, X, S=None, covariates=None, keep=None):
            return super().forward(X, S, covariates, None if keep is None else (keep > 0).float())

    for model in (Blind(), AllOrNothing()):
        oracle = Oracle(model, device="cpu")
        assert bin_importance(oracle, store.batch([5])) is None
        assert rate_curve(oracle, store, store.rows("train"), [0.1]) == []


def test_rate_curve__shows_the_bins_that_matter_most(store):
    oracle, rows = Oracle(Weighted(), device="cpu"), store.rows("train")
    curve = rate_curve(oracle, store, rows, [0.05, 0.25, 1.0], batch_size=7)
    assert [c["fraction"] for c in curve] == [0.05, 0.25, 1.0]
    batch = store.batch(rows)
    worth = (batch.signals[:, 0] * Weighted.weight * batch.keep).numpy()
    top = np.sort(worth, axis=1)[:, ::-1]
    for row, k in zip(curve, (1, 5, 20), strict=True):
        expected = np.mean([np.corrcoef(store.targets[rows, t], top[:, :k].sum(axis=1))[0, 1] for t in range(T)])
        assert row["pearson"] == pytest.approx(expected, abs=1e-5)
