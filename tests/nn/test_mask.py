"""The bottleneck: its KL, its branches, its calibration, and that a closed bin hides what is in it."""

import pytest
import torch

from ciscribe.errors import SchemaError
from ciscribe.nn.mask import BetaMask, Bottleneck, Posterior, beta_kl, top_fraction

B, S, L, D = 3, 2, 37, 7


def test_beta_kl__agrees_with_monte_carlo():
    torch.manual_seed(0)
    for a, b, a0, b0 in ((2.0, 5.0, 1.0, 9.0), (0.5, 0.7, 0.1, 0.2), (30.0, 3.0, 10.0, 90.0)):
        q, p = torch.distributions.Beta(a, b), torch.distributions.Beta(a0, b0)
        x = q.sample((400_000,)).clamp(1e-7, 1 - 1e-7)
        sampled = (q.log_prob(x) - p.log_prob(x)).mean()
        exact = beta_kl(torch.tensor([a]), torch.tensor([b]), a0, b0)
        assert exact.item() == pytest.approx(sampled.item(), rel=0.02)


def test_beta_kl__zero_at_the_prior_and_positive_elsewhere():
    a = torch.tensor([1.0, 1.5, 0.5])
    kl = beta_kl(a, torch.full((3,), 9.0), 1.0, 9.0)
    assert kl[0].abs() < 1e-5
    assert (kl[1:] > 0).all()


def test_posterior__fusion_follows_the_paper():
    mask = BetaMask(S, prior_scale=3.0, beta_min=0.5, z_scale=2.0, thresholds=(1.5, 0.2), weights=(2.0, 1.0))
    z, x = torch.randn(B, L, 2), torch.rand(B, S, L)
    p = mask.posterior(z, x)
    soft = torch.nn.functional.softplus
    w = torch.tensor([2 / 3, 1 / 3])
    alpha = soft(z[..., 1]) + 0.5 + 3.0 * ((x + 0.5) * w[:, None]).sum(1)
    beta = soft(z[..., 0]) + 0.5 + 3.0 * ((torch.tensor([1.5, 0.2]) + 0.5) * w).sum()
    torch.testing.assert_close(p.alpha, 2 * alpha)
    torch.testing.assert_close(p.beta, 2 * beta)
    exact = torch.distributions.Beta(p.alpha, p.beta)
    torch.testing.assert_close(p.mean, exact.mean)
    torch.testing.assert_close(p.sd, exact.stddev)


def test_calibrate__units_do_not_decide_the_mask():
    torch.manual_seed(1)
    x = torch.rand(B, S, 1009) ** 4
    small, large = (BetaMask(S, use_generator=False, sparsity=0.2) for _ in range(2))
    small.calibrate(x)
    units = torch.tensor([1000.0, 0.01])[:, None]
    large.calibrate(x * units)
    a, b = small.posterior(None, x).mean, large.posterior(None, x * units).mean
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    one = BetaMask(1, use_generator=False, sparsity=0.2)
    one.calibrate(x[:, :1])
    assert (one.posterior(None, x[:, :1]).mean > 0.5).float().mean().item() == pytest.approx(0.2, abs=0.01)


def test_calibrate__sparse_track_is_scaled_by_its_peaks():
    x = torch.zeros(B, 1, 101)
    x[:, :, :2] = 40.0
    mask = BetaMask(1, use_generator=False)
    mask.calibrate(x)
    assert mask.scale.item() == pytest.approx(1 / 40)
    untouched = BetaMask(1, use_generator=False)
    untouched.calibrate(torch.zeros(B, 1, 11))
    assert untouched.scale.item() == 1.0


def test_draw__mean_at_test_and_noise_in_training():
    mask = BetaMask(0)
    p = Posterior(torch.full((B, L), 3.0), torch.full((B, L), 1.0))
    mask.eval()
    torch.testing.assert_close(mask.draw(p), torch.full((B, L), 0.75))
    mask.train()
    torch.manual_seed(0)
    draws = torch.stack([mask.draw(p) for _ in range(500)])
    torch.testing.assert_close(draws.mean(0), p.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(draws.std(0), p.sd, atol=0.05, rtol=0)


def test_draw__hard_is_zero_or_one_with_a_straight_through_gradient():
    mask = BetaMask(0, kind="hard").eval()
    alpha = torch.tensor([[0.5, 2.0, 3.0]], requires_grad=True)
    m = mask.draw(Posterior(alpha, torch.ones(1, 3)))
    assert m.tolist() == [[0.0, 1.0, 1.0]]
    m.sum().backward()
    torch.testing.assert_close(alpha.grad, 1 / (alpha.detach() + 1) ** 2)


def test_draw__keep_erases_also_what_is_forced_open():
    mask = BetaMask(0).eval()
    p = Posterior(torch.ones(1, 3), torch.ones(1, 3))
    m = mask.draw(p, keep=torch.tensor([[1.0, 1.0, 0.0]]), include=torch.tensor([0.0, 1.0, 1.0]))
    assert m.tolist() == [[0.5, 1.0, 0.0]]


@pytest.mark.parametrize("d_empty", [None, D])
def test_bottleneck__an_erased_bin_changes_nothing(d_empty):
    torch.manual_seed(0)
    predictor = torch.nn.Module()
    predictor.forward = lambda H, covariates=None: torch.nn.functional.normalize(H, dim=-1).mean(1)
    b = Bottleneck(torch.nn.Linear(D, 2), BetaMask(0), predictor, d_empty=d_empty).eval()
    E = torch.randn(B, L, D)
    keep = torch.ones(B, L)
    keep[:, 5] = 0
    other = E.clone()
    other[:, 5] += 10
    y, kl = b(E, E, keep=keep)
    y2, _ = b(E, other, keep=keep)
    torch.testing.assert_close(y, y2)
    assert kl.shape == (B,)
    assert not torch.allclose(b(E, E)[0], b(E, other)[0])


def test_bottleneck__half_closed_bins_show_less_after_normalization():
    """With zeros for closed bins a normalization shows them in full; the empty token hides them by degrees."""
    torch.manual_seed(0)
    cover = Bottleneck(None, BetaMask(1), torch.nn.Identity(), d_empty=D).cover
    with torch.no_grad():
        token = torch.randn(1, 1, D)
        seen = [torch.cosine_similarity(cover(token, torch.full((1, 1), m)), token, dim=-1).item()
                for m in (0.0, 0.01, 0.5, 1.0)]
    assert seen[0] < 0.99
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


def test_top_fraction__keeps_the_best():
    score = torch.tensor([[0.1, 0.9, 0.5, 0.9], [1.0, 1.0, 1.0, 1.0]])
    assert top_fraction(score, 0.5).tolist() == [[0, 1, 0, 1], [1, 1, 0, 0]]
    assert top_fraction(score, 0.01).sum().item() == 2
    with pytest.raises(ValueError, match="fraction lies in"):
        top_fraction(score, 0.0)


def test_beta_mask__bad_arguments():
    with pytest.raises(ValueError, match="one number a track: expected 2, got 1"):
        BetaMask(2, weights=(1.0,))
    with pytest.raises(ValueError, match="both are switched off"):
        BetaMask(0, use_generator=False)
    with pytest.raises(ValueError, match="sparsity lies in"):
        BetaMask(0, sparsity=1.0)
    with pytest.raises(SchemaError, match="uses 2 signal tracks; got none"):
        BetaMask(2).posterior(torch.zeros(1, 3, 2), None)
