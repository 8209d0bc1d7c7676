"""The bidirectional mixer: its two directions, its reach, its precision."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ciscribe.nn.ssm import BiMamba, BiMambaBlock, BiMambaStack
from reference.scan import naive_scan


def mixer(seed: int = 0, **kw) -> BiMamba:
    torch.manual_seed(seed)
    return BiMamba(d_model=13, d_state=7, d_conv=3, expand=2, **kw)


def by_hand(layer: nn.Module, in_proj: nn.Linear, out_proj: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """One causal Mamba mixer as the paper draws it, from the parameters of one direction."""
    stream, gate = in_proj(x).chunk(2, dim=-1)
    E, width = layer.conv_weight.shape
    u = F.conv1d(F.pad(stream.mT, (width - 1, 0)), layer.conv_weight[:, None], layer.conv_bias, groups=E).mT
    u = F.silu(u)
    dt, B, C = layer.x_proj(u).split([layer.dt_proj.in_features, 7, 7], dim=-1)
    y = naive_scan(u, F.softplus(layer.dt_proj(dt)), -layer.A_log.exp(), B, C, layer.D)
    return out_proj(y * F.silu(gate))


@pytest.mark.parametrize("tie_directions", [True, False])
def test_bimamba__is_the_mixer_on_the_sequence_plus_on_its_reverse(tie_directions: bool) -> None:
    layer = mixer(tie_directions=tie_directions).double()
    x = torch.randn(3, 37, 13, dtype=torch.float64, requires_grad=True)
    ends = list(zip(layer.in_proj, layer.out_proj, strict=True))
    ahead, back = layer.scanners
    expected = by_hand(ahead, *ends[0], x) + by_hand(back, *ends[-1], x.flip(1)).flip(1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)
    variables = [x, *layer.parameters()]
    ours, theirs = (torch.autograd.grad(y.square().sum(), variables) for y in (layer(x), expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("L", [1, 2])
def test_bimamba__sequence_shorter_than_the_convolution(L: int) -> None:
    layer = mixer().double()
    x = torch.randn(3, L, 13, dtype=torch.float64, requires_grad=True)
    ahead, back = layer.scanners
    ends = layer.in_proj[0], layer.out_proj[0]
    expected = by_hand(ahead, *ends, x) + by_hand(back, *ends, x.flip(1)).flip(1)
    ours, theirs = (torch.autograd.grad(y.square().sum(), [x, *layer.parameters()], allow_unused=True)
                    for y in (layer(x), expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_bimamba__directions_with_equal_weights_mirror_each_other() -> None:
    layer = mixer()
    layer.scanners[1].load_state_dict(layer.scanners[0].state_dict())
    x = torch.randn(2, 37, 13)
    torch.testing.assert_close(layer(x.flip(1)).flip(1), layer(x), rtol=1e-5, atol=1e-6)
    stream = torch.randn(2, 37, 26)
    ahead, back = layer.scanners
    torch.testing.assert_close(back(stream), ahead(stream.flip(1)).flip(1), rtol=1e-5, atol=1e-6)


def test_bimamba__each_direction_is_causal() -> None:
    layer = mixer().double()
    x = torch.randn(1, 29, 26, dtype=torch.float64)
    changed = x.clone()
    changed[:, 11] += 1
    ahead, back = layer.scanners
    for scanner, untouched, touched in ((ahead, slice(0, 11), 28), (back, slice(12, 29), 0)):
        moved = (scanner(changed) - scanner(x)).abs().sum((0, 2))
        assert moved[untouched].max() == 0
        assert moved[touched] > 0


def test_bimamba__starts_like_mamba() -> None:
    layer = BiMamba(61)
    scanner = layer.scanners[0]
    torch.testing.assert_close(scanner.A_log.exp()[5], torch.arange(1.0, 17))
    step = F.softplus(scanner.dt_proj.bias)
    assert 1e-3 * 0.99 <= step.min() < step.max() <= 1e-1 * 1.01
    assert scanner.dt_proj.in_features == 4  # ceil(61 / 16)
    shared, per_direction = 3 * 61, (5, 4 + 2 * 16, 4 + 1, 16, 1)  # convolution, x_proj, dt_proj, A, D
    assert sum(p.numel() for p in layer.parameters()) == 122 * (shared + 2 * sum(per_direction))


def test_bimamba__autocast_is_close() -> None:
    layer = mixer()
    x = torch.randn(3, 53, 13)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert (y.float() - exact).abs().max() < 0.03 * exact.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_bimamba_stack__gradient_reaches_from_one_end_to_the_other() -> None:
    torch.manual_seed(1)
    stack = BiMambaStack(d_model=11, n_layers=2, d_state=3)
    x = torch.randn(1, 1009, 11, requires_grad=True)
    y = stack(x)
    for asked, far in ((1008, 0), (0, 1008)):
        gradient = torch.autograd.grad(y[0, asked].sum(), x, retain_graph=True)[0]
        assert gradient[0, far].abs().max() > 0


def test_bimamba_stack__batch_of_one_and_many_agree() -> None:
    torch.manual_seed(2)
    stack = BiMambaStack(d_model=11, n_layers=2, d_state=5, dropout=0.3).eval()
    x = torch.randn(3, 67, 11)
    torch.testing.assert_close(stack(x), torch.cat([stack(one) for one in x.split(1)]), rtol=1e-4, atol=1e-5)


def test_bimamba_stack__zero_input_is_finite_and_every_parameter_learns() -> None:
    torch.manual_seed(3)
    stack = BiMambaStack(d_model=11, n_layers=3, d_state=5)
    assert stack(torch.zeros(2, 19, 11)).isfinite().all()
    stack(torch.randn(2, 19, 11)).square().mul(torch.rand(11)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in stack.parameters())


def test_bimamba_block__dropout_acts_in_training_only() -> None:
    torch.manual_seed(4)
    block = BiMambaBlock(d_model=11, d_state=5, dropout=0.5)
    x = torch.randn(2, 19, 11)
    assert not torch.equal(block(x), block(x))
    block.eval()
    torch.testing.assert_close(block(x), x + block.mixer(block.norm(x)))
