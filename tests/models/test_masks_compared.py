"""The masks that Seq2Exp is compared with, and what Beacon and GraphReg promise beside the contract of every model."""

import pytest
import torch

from ciscribe.models import registry
from ciscribe.models.graphreg import GraphReg
from ciscribe.sequence import one_hot_tensor

B, BINS, R, S, T = 5, 61, 16, 3, 2
SIZE = {"n_targets": T, "n_signals": S, "n_covariates": 0, "resolution": R, "d_model": 8, "n_layers": 1, "d_state": 2,
        "expand": 1, "stem_channels": 4, "include_bp": 64, "center_bp": 64}


def seq2exp(**changes):
    torch.manual_seed(0)
    return registry.create("seq2exp", **SIZE | changes).eval()


def inputs(seed=1):
    generator = torch.Generator().manual_seed(seed)
    X = one_hot_tensor(torch.randint(0, 4, (B, BINS * R), generator=generator))
    return X, torch.rand(B, S, BINS, generator=generator) ** 3


def test_random_mask__shows_the_share_and_knows_only_the_bases():
    model = seq2exp(mask="random", sparsity=0.3)
    X, signals = inputs()
    m = model.posterior(X, signals).mean
    assert torch.equal(m > 0.5, model.posterior(X, signals * 7).mean > 0.5)
    assert 0.2 < (m > 0.5).float().mean() < 0.4
    other = model.posterior(inputs(2)[0], signals).mean
    assert ((m > 0.5) != (other > 0.5)).float().mean() > 0.2


def test_random_mask__is_no_more_open_at_signals():
    model = seq2exp(mask="random", sparsity=0.3)
    X, signals = inputs()
    high = signals.amax(1) > signals.amax(1).median()
    m = (model.posterior(X, signals).mean > 0.5).float()
    assert abs(m[high].mean() - m[~high].mean()) < 0.15


def test_peak_mask__shows_the_share_with_the_highest_signal():
    model = seq2exp(mask="peaks", sparsity=0.2)
    X, signals = inputs()
    model.calibrate(signals)
    m = model.posterior(X, signals).mean > 0.5
    assert m.float().mean() == pytest.approx(0.2, abs=0.02)
    height = (signals * model.bottleneck.mask.scale[:, None]).amax(1)
    assert height[m].min() >= height[~m].max()
    closed = model.posterior(X, torch.zeros_like(signals)).mean
    assert closed.max() < 0.5  # a bin without signal is no peak


def test_peak_mask__a_track_without_peaks_can_be_left_out():
    model = seq2exp(mask="peaks", sparsity=0.2, peak_tracks=(0, 2))
    X, signals = inputs()
    model.calibrate(signals)
    louder = signals.clone()
    louder[:, 1] = 99
    assert torch.equal(model.posterior(X, signals).mean, model.posterior(X, louder).mean)


def test_peak_mask__survives_saving(tmp_path):
    arguments = SIZE | {"mask": "peaks"}
    model = seq2exp(mask="peaks")
    X, signals = inputs()
    model.calibrate(signals)
    registry.save(tmp_path / "m", "seq2exp", model, arguments)
    again, _ = registry.load(tmp_path / "m")
    assert torch.equal(again(X, signals)["expression"], model(X, signals)["expression"])


def test_open_mask__has_the_layers_of_the_generator_in_the_predictor():
    layers = len(seq2exp().bottleneck.predictor.stack.layers)
    model = seq2exp(mask="open")
    assert len(model.bottleneck.predictor.stack.layers) == 2 * layers
    assert model.bottleneck.generator is None
    sizes = [sum(p.numel() for p in m.parameters()) for m in (seq2exp(), model)]
    assert abs(sizes[0] - sizes[1]) < 0.05 * sizes[0]
    X, signals = inputs()
    assert (model.posterior(X, signals).mean > 0.99).all()
    assert set(model(X, signals)) == {"expression"}


@pytest.mark.parametrize("mask", ["open", "random", "peaks"])
def test_fixed_masks__keep_erases_a_bin(mask):
    model = seq2exp(mask=mask)
    X, signals = inputs()
    model.calibrate(signals)
    keep = torch.ones(B, BINS)
    keep[:, BINS // 2] = 0  # one of those that are always shown
    assert not torch.allclose(model(X, signals, keep=keep)["expression"], model(X, signals)["expression"])


def test_no_kl__leaves_the_pull_out_and_nothing_else():
    X, signals = inputs()
    with_kl, without = seq2exp()(X, signals), seq2exp(use_kl=False)(X, signals)
    assert set(without) == {"expression"}
    assert torch.equal(with_kl["expression"], without["expression"])


def test_peak_mask__needs_a_signal():
    with pytest.raises(ValueError, match="at least one signal track"):
        seq2exp(mask="peaks", n_signals=0)


def beacon(**changes):
    torch.manual_seed(0)
    given = {"n_targets": T, "n_signals": S, "n_covariates": 0, "resolution": R, "d_model": 8, "stem_channels": 4,
             "include_bp": 0, "dropout": 0.0}
    return registry.create("beacon", **given | changes)


def test_beacon__hides_what_its_mask_closes():
    model = beacon().eval()
    X, signals = inputs()
    closed = torch.ones(B, BINS)
    closed[:, 40:] = 0
    other = signals.clone()
    other[:, :, 45:] = 5  # beyond the reach of the stem from what is open
    with torch.no_grad():
        a, b = (model.bottleneck.cover(model.embed(X) + model.embed_signals(s.transpose(1, 2)), closed)
                for s in (signals, other))
        assert torch.equal(a, b)
        assert not torch.equal(model(X, signals)["expression"], model(X, other)["expression"])
        assert torch.allclose(a[:, 41:], model.bottleneck.empty.expand_as(a[:, 41:]))


def test_beacon__is_told_where_a_bin_is():
    everywhere = one_hot_tensor(torch.zeros(1, BINS * R, dtype=torch.long))  # one base all along: bins look the same
    inner = slice(15, -15)  # out of the reach of the ends
    for use_position in (True, False):
        m = beacon(n_signals=0, use_position=use_position).eval().posterior(everywhere).mean[0, inner]
        assert (m.max() - m.min() > 1e-4) == use_position


def test_beacon__learns_where_the_signals_are_from_the_sequence_alone():
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, 4, (48, BINS * R), generator=generator)
    at = torch.rand(48, BINS, generator=generator) < 0.2
    codes.view(48, BINS, R)[at] = torch.tensor([2, 0, 3, 0, 0, 2, 2, 0, 3, 0, 0, 2, 0, 0, 3, 3])
    X, signals = one_hot_tensor(codes), at[:, None].float().repeat(1, S, 1)
    model = beacon().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    errors = []
    for _ in range(60):
        error = model(X, signals)["signal_error"]
        assert error.shape == (48, 1)
        optimizer.zero_grad()
        error.mean().backward()
        optimizer.step()
        errors.append(error.mean().item())
    seen = signals.log1p()
    constant = torch.nn.functional.smooth_l1_loss(seen.mean().expand_as(seen), seen).item()
    assert errors[-1] < 0.3 * constant  # what a guess that does not read the sequence reaches at best
    assert set(model.eval()(X, signals)) == {"expression", "mask_kl"}


def test_graphreg__contact_by_distance_weighs_the_edges():
    torch.manual_seed(0)
    model = GraphReg(T, S, resolution=R, node_bp=4 * R, d_model=8, n_layers=1, n_heads=2, stem_channels=4).eval()
    X, signals = inputs()
    weights = model.attention(X, signals)[:, 0]
    n = weights.shape[-1]
    assert n == 15
    assert torch.allclose(weights.sum(-1), torch.ones(B, n), atol=1e-5)
    far = GraphReg(T, S, resolution=R, node_bp=4 * R, d_model=8, n_layers=1, n_heads=2, stem_channels=4,
                   reach_bp=4 * R).eval()
    banded = far.attention(X, signals)[:, 0]
    apart = (torch.arange(n)[:, None] - torch.arange(n)).abs() > 1
    assert (banded[:, apart] < 1e-6).all()
    assert (banded[:, ~apart] > 0).all()


def test_graphreg__a_window_of_two_nodes_is_refused():
    model = GraphReg(T, 0, resolution=R, node_bp=32 * R, d_model=8, n_heads=2)
    with pytest.raises(ValueError, match="3 nodes"):
        model(inputs()[0])
