from math import e, lgamma, log

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from ciscribe.train import losses
from ciscribe.train.losses import LossSpec, expression_loss

B, T, L = 5, 3, 7
NAN = float("nan")


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


# ---- against numbers worked out by hand


def test_numbers__by_hand():
    predicted = torch.tensor([[1.0, 4.0], [0.5, -1.0]])
    y = torch.tensor([[3.0, 4.0], [0.0, NAN]])
    assert float(losses.mse(predicted, y)) == pytest.approx((4 + 0 + 0.25) / 3)
    assert float(losses.smooth_l1(predicted, y)) == pytest.approx((1.5 + 0 + 0.125) / 3)
    assert float(losses.mse(predicted, y, torch.tensor([2.0, 6.0]))) == pytest.approx((2 * 4 + 6 * 0 + 2 * 0.25) / 10)


def test_bce_from_logits__by_hand():
    logits = torch.tensor([[0.0, log(3)], [-log(4), 0.0]])  # p = 1/2, 3/4; 1/5, 1/2
    y = torch.tensor([[1.0, 0.0], [0.0, NAN]])
    terms = [log(2), log(4), log(5 / 4)]
    assert float(losses.bce_from_logits(logits, y)) == pytest.approx(sum(terms) / 3)
    weighted = losses.bce_from_logits(logits, y, torch.tensor([1.0, 2.0]), torch.tensor([7.0, 11.0]))
    assert float(weighted) == pytest.approx((7 * terms[0] + 2 * terms[1] + terms[2]) / 4)


def test_poisson__by_hand():
    predicted, y = torch.tensor([[e, 1.0], [2.0, 0.0]]), torch.tensor([[3.0, 5.0], [NAN, 0.0]])
    assert float(losses.poisson(predicted, y)) == pytest.approx(((e - 3) + (1 - 0) + 0) / 3, abs=1e-6)


def test_poisson_multinomial__by_hand():
    predicted, y = torch.tensor([[[1.0, 3.0, 4.0]]]), torch.tensor([[[2.0, 0.0, 5.0]]])
    shape = -(2 * log(1 / 8) + 5 * log(4 / 8))
    total = 8 - 7 * log(8)
    assert float(losses.poisson_multinomial(predicted, y)) == pytest.approx((shape + 0.2 * total) / 3, abs=1e-5)
    assert float(losses.poisson_multinomial(predicted, y, total_weight=0.5, rescale=True)) == pytest.approx(
        (shape + 0.5 * total) / 3 * 2 / 1.5, abs=1e-5)
    y[0, 0, 1] = NAN  # left out of sums and of the length
    shape, total = -(2 * log(1 / 5) + 5 * log(4 / 5)), 5 - 7 * log(5)
    assert float(losses.poisson_multinomial(predicted, y)) == pytest.approx((shape + 0.2 * total) / 2, abs=1e-5)


def test_poisson_multinomial__does_not_know_the_order_of_the_bins(draw):
    predicted, y = torch.rand(B, T, L, generator=draw), torch.rand(B, T, L, generator=draw) * 9
    order = torch.randperm(L, generator=draw)
    whole = losses.poisson_multinomial(predicted, y)
    assert torch.allclose(losses.poisson_multinomial(predicted[..., order], y[..., order]), whole)
    assert not torch.allclose(losses.poisson_multinomial(predicted[..., order], y), whole, atol=1e-3)


def test_poisson_multinomial__is_least_at_the_truth_and_finite_at_nothing(draw):
    y = torch.rand(B, T, L, generator=draw) + 0.1
    predicted = y.clone().requires_grad_()
    losses.poisson_multinomial(predicted, y).backward()
    assert float(predicted.grad.abs().max()) < 1e-5
    assert torch.isfinite(losses.poisson_multinomial(torch.zeros(B, T, L), y))


def test_multinomial_nll__equals_torch_distributions(draw):
    logits, counts = torch.randn(B, T, L, generator=draw), torch.randint(0, 9, (B, T, L), generator=draw).float()
    expected = [-torch.distributions.Multinomial(int(k.sum()), logits=z).log_prob(k)
                for z, k in zip(logits.flatten(0, 1), counts.flatten(0, 1), strict=True)]
    assert float(losses.multinomial_nll(logits, counts)) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    counts[1, 2, 3] = NAN  # that profile has no total
    del expected[1 * T + 2]
    assert float(losses.multinomial_nll(logits, counts)) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_multinomial_nll__by_hand():
    counts = torch.tensor([[[2.0, 1.0]]])
    nll = -lgamma(4) + lgamma(3) + lgamma(2) - (2 * log(3 / 4) + log(1 / 4))
    assert float(losses.multinomial_nll(torch.tensor([[[log(3), 0.0]]]), counts)) == pytest.approx(nll, abs=1e-6)


def test_count_mse__by_hand():
    log_counts, totals = torch.tensor([[1.0, 0.5], [2.0, 0.0]]), torch.tensor([[e - 1, 0.0], [NAN, e**3 - 1]])
    assert float(losses.count_mse(log_counts, totals)) == pytest.approx((0 + 0.25 + 9) / 3, abs=1e-6)


def test_l1_kl__by_hand(draw):
    predicted = torch.tensor([[0.0, log(3)]])
    y = torch.tensor([[log(2), log(3)]])
    kl = 0.4 * log(0.4 / 0.25) + 0.6 * log(0.6 / 0.75)
    assert float(losses.l1_kl(predicted, y)) == pytest.approx(log(2) / 2 + 5 * kl / 2, abs=1e-6)
    predicted, y = torch.randn(B, T, generator=draw), torch.randn(B, T, generator=draw)
    by_torch = F.l1_loss(predicted, y) + 5 * F.kl_div(predicted.log_softmax(1), y.log_softmax(1), reduction="none",
                                                                 log_target=True).mean()
    assert torch.allclose(losses.l1_kl(predicted, y), by_torch)
    y[3, 1] = NAN
    rest = [0, 1, 2, 4]  # a row with a hole keeps its errors and has no KL
    kl = F.kl_div(predicted[rest].log_softmax(1), y[rest].log_softmax(1), reduction="none", log_target=True).mean()
    error = (predicted - y).abs().nanmean()
    assert torch.allclose(losses.l1_kl(predicted, y, kl_weight=7.0), error + 7 * kl)


def test_soft_classes__are_the_normal_cut_at_the_bins():
    y = torch.tensor([0.0, 11.3, 17.0])
    shares = losses.soft_classes(y)
    assert torch.allclose(shares.sum(1), torch.ones(3))
    normal = stats.norm(11.3 + 0.5, 0.5)
    assert float(shares[1, 11]) == pytest.approx(normal.cdf(12) - normal.cdf(11), abs=1e-6)
    assert float(shares[0, 0]) == pytest.approx(stats.norm(0.5, 0.5).cdf(1), abs=1e-6)  # open to the left
    assert float(shares[2, 17]) == pytest.approx(stats.norm(17.5, 0.5).sf(17), abs=1e-6)  # and to the right
    assert losses.soft_classes(y[:2], 13, 1.5).shape == (2, 13)


def test_soft_class_kl__is_zero_at_the_truth_and_a_mean_over_the_batch(draw):
    y, logits = torch.tensor([2.2, 5.0, 11.9]), torch.randn(3, 13, generator=draw)
    shares = losses.soft_classes(y, 13)
    assert float(losses.soft_class_kl(shares.clamp_min(1e-30).log(), y)) == pytest.approx(0, abs=1e-6)
    expected = F.kl_div(logits.log_softmax(1), shares, reduction="batchmean")
    assert torch.allclose(losses.soft_class_kl(logits, y), expected)
    with_hole = losses.soft_class_kl(torch.cat([logits, logits[:1]]), torch.cat([y, torch.tensor([NAN])]))
    assert torch.allclose(with_hole, expected)


# ---- what all share


FLAT = [losses.mse, losses.smooth_l1, losses.l1_kl, losses.bce_from_logits, losses.poisson]
WITH_BINS = [losses.mse, losses.smooth_l1, losses.poisson, losses.poisson_multinomial, losses.multinomial_nll]


@pytest.mark.parametrize(("loss", "shape"), [*((f, (B, T)) for f in FLAT), *((f, (B, T, L)) for f in WITH_BINS)])
def test_losses__holes_have_no_gradient_and_change_nothing_else(loss, shape, draw):
    predicted = torch.rand(shape, generator=draw).requires_grad_()
    y = torch.rand(shape, generator=draw).round()
    y[:, 1] = NAN  # one target was never measured
    value = loss(predicted, y)
    value.backward()
    assert float(predicted.grad[:, 1].abs().max()) == 0
    assert bool(torch.isfinite(predicted.grad).all())
    if loss is not losses.l1_kl:
        assert torch.allclose(value, loss(predicted[:, [0, 2]], y[:, [0, 2]]))
        assert float(predicted.grad[:, [0, 2]].abs().max()) > 0
    nothing = loss(predicted, torch.full(shape, NAN))
    assert float(nothing.detach()) == 0
    nothing.backward()
    assert bool(torch.isfinite(predicted.grad).all())


@pytest.mark.parametrize("loss", [losses.mse, losses.poisson, losses.poisson_multinomial])
def test_losses__weights_of_tracks_take_a_weighted_mean(loss, draw):
    predicted, y = torch.rand(B, T, L, generator=draw), torch.rand(B, T, L, generator=draw)
    each = [float(loss(predicted[:, t:t + 1], y[:, t:t + 1])) for t in range(T)]
    weights = np.array([1.0, 0.0, 3.0])
    assert float(loss(predicted, y, torch.tensor(weights, dtype=torch.float32))) == pytest.approx(
        np.average(each, weights=weights), rel=1e-5)


# ---- the loss of Seq2Exp and Prism


def test_expression_loss__terms_are_weighted_and_only_those_asked_for():
    y = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    output = {"expression": y + torch.tensor([2.0, -0.5, 0.0]), "mask_kl": torch.tensor([[3.0], [5.0]])}
    terms = expression_loss(output, y, LossSpec(mask_kl=0.25))
    assert set(terms) == {"error", "mask_kl"}
    assert float(terms["error"]) == pytest.approx((1.5 + 0.125 + 0) / 3)
    assert float(terms["mask_kl"]) == pytest.approx(1.0)
    more = {"expression_do": y + 2, "diversity": torch.tensor(7.0), "signal_error": torch.tensor([[1.0], [2.0]])}
    terms = expression_loss(output | more, y,
                            LossSpec("mse", contrast=0.5, expression_do=0.5, diversity=2.0, signal_error=3.0))
    assert float(terms["signal_error"]) == pytest.approx(4.5)
    assert float(terms["error"]) == pytest.approx((4 + 0.25) / 3)
    assert float(terms["contrast"]) == pytest.approx(0.5 * (1.5**2 + 1 + 0.5**2) / 3)
    assert float(terms["expression_do"]) == pytest.approx(2.0)
    assert float(terms["diversity"]) == pytest.approx(14.0)


def test_expression_loss__holes_are_left_out_of_the_mean_of_a_gene():
    y = torch.tensor([[1.0, NAN, 6.0], [NAN, NAN, NAN]])
    output = {"expression": torch.tensor([[3.0, 99.0, 6.0], [1.0, 2.0, 3.0]])}
    terms = expression_loss(output, y, LossSpec("mse", contrast=0.5))
    assert float(terms["error"]) == pytest.approx((4 + 0) / 2)
    assert float(terms["contrast"]) == pytest.approx(0.5 * (1 + 1) / 2)  # errors 2, 0 less their mean 1
