import pytest
import torch

from ciscribe.nn.conv import ConvStem
from ciscribe.nn.heads import ExpressionHead

B, D, T, C, BINS = 3, 11, 5, 7, 13


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sequences(length, seed=0):
    codes = torch.randint(0, 4, (B, length), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(codes, 4).transpose(1, 2).float()


@pytest.mark.parametrize("resolution", [1, 4, 8, 16, 32, 128])
def test_conv_stem__one_vector_a_bin(resolution):
    stem = ConvStem(D, resolution, channels=7).eval()
    y = stem(sequences(3 * resolution))
    assert y.shape == (B, 3, D)
    assert bool(torch.isfinite(y).all())
    assert bool(torch.isfinite(stem(torch.zeros(B, 4, 3 * resolution))).all())  # only N


def test_conv_stem__at_one_bp_is_a_linear_map_of_each_base():
    stem = ConvStem(D, 1)
    X = sequences(37)
    weight, bias = stem.layers.weight[:, :, 0, 0], stem.layers.bias
    assert torch.allclose(stem(X), X.transpose(1, 2) @ weight.T + bias, atol=1e-6)


@pytest.mark.parametrize(("resolution", "reach"), [(4, 1), (32, 2), (128, 2)])
def test_conv_stem__a_base_reaches_the_bins_around_it_only(resolution, reach):
    stem = ConvStem(D, resolution, channels=7).eval()
    X = sequences(11 * resolution)
    changed = X.clone()
    at = 5 * resolution + resolution // 2
    changed[:, :, at] = X[:, :, at].roll(1, dims=1)
    changed_bins = (stem(X) - stem(changed)).abs().amax(dim=(0, 2)).nonzero().flatten()
    far = (changed_bins - 5).abs().max() if len(changed_bins) else 0
    assert far <= reach + 4 // (resolution // 4)


def test_conv_stem__gradient_reaches_the_sequence_and_batches_do_not_mix():
    stem = ConvStem(D, 16, channels=7).eval()
    X = sequences(80).requires_grad_()
    y = stem(X)
    (gradient,) = torch.autograd.grad(y[1].sum(), X)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0
    assert torch.allclose(y[2:], stem(X[2:]), atol=1e-6)


def test_conv_stem__refuses():
    for resolution in (2, 3, 10, 48):
        with pytest.raises(ValueError, match=f"1 or a power of two from 4 bp; got {resolution}"):
            ConvStem(D, resolution)
    with pytest.raises(ValueError, match="window of 37 bp is not a multiple of the resolution 4 bp"):
        ConvStem(D, 4)(sequences(37))


@pytest.mark.parametrize("pool", ["center", "window", "attention"])
def test_expression_head__shape_covariates_and_batch_invariance(pool):
    head = ExpressionHead(D, T, n_covariates=C, center_bins=3, pool=pool).eval()
    H, covariates = draw(B, BINS, D), draw(B, C, seed=1)
    y = head(H, covariates)
    assert y.shape == (B, T)
    assert torch.allclose(y[1:2], head(H[1:2], covariates[1:2]), atol=1e-6)
    assert not torch.allclose(y, head(H, covariates + 1))
    for wrong in (None, covariates[:, :2]):
        with pytest.raises(ValueError, match=f"expects 7 covariates a gene; got {0 if wrong is None else 2}"):
            head(H, wrong)


def test_expression_head__center_reads_the_central_bins_only():
    head = ExpressionHead(D, T, center_bins=3).eval()
    H = draw(B, BINS, D)
    inside, outside = H.clone(), H.clone()
    inside[:, 5:8] += draw(B, 3, D, seed=1)
    outside[:, :5] += 1
    outside[:, 8:] += 1
    assert torch.equal(head(H), head(outside))
    assert not torch.allclose(head(H), head(inside))
    assert torch.allclose(head(H), head.mlp(H[:, 5:8].mean(dim=1)), atol=1e-6)


@pytest.mark.parametrize("pool", ["window", "attention"])
def test_expression_head__other_pools_see_every_bin(pool):
    head = ExpressionHead(D, T, center_bins=3, pool=pool).eval()
    H = draw(B, BINS, D).requires_grad_()
    (gradient,) = torch.autograd.grad(head(H).square().sum(), H)
    assert bool((gradient.abs().sum(dim=2) > 0).all())


def test_expression_head__more_central_bins_than_bins_takes_all():
    H = draw(B, BINS, D)
    many, every = ExpressionHead(D, T, center_bins=101).eval(), ExpressionHead(D, T).eval()
    every.load_state_dict(many.state_dict())
    assert torch.equal(many(H), every(H))
