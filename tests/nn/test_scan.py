"""The chunked scan beside the recurrence that it stands for."""

import jaxtyping
import pytest
import torch
from torch import Tensor

from ciscribe.errors import SchemaError
from ciscribe.nn.scan import selective_scan
from reference.scan import naive_scan

NAMES = ("x", "delta", "A", "B", "C", "D")


def arguments(L: int, B: int = 3, E: int = 5, N: int = 7, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(L)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    made = (normal(B, L, E), normal(B, L, E).abs(), -normal(E, N).abs() - 0.01, normal(B, L, N),
            normal(B, L, N), normal(E))
    return [t.to(dtype).requires_grad_() for t in made]


def output_and_gradients(scan, args: list[Tensor], **kw) -> dict[str, Tensor]:
    y = scan(*args, **kw)
    signs = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).sign().view(y.shape)
    gradients = torch.autograd.grad(y, args, signs.to(y.dtype))
    return {"y": y.detach(), **dict(zip(NAMES, gradients, strict=False))}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("chunk", [None, 1, 13, 64])
@pytest.mark.parametrize("L", [1, 2, 11, 101])
def test_selective_scan__equals_the_recurrence(L: int, chunk: int | None, reverse: bool) -> None:
    args = arguments(L)
    ours = output_and_gradients(selective_scan, args, chunk=chunk, reverse=reverse)
    theirs = output_and_gradients(naive_scan, args, reverse=reverse)
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() < 1e-8, name


def test_selective_scan__gradcheck() -> None:
    for reverse in (False, True):
        args = arguments(11, B=2, E=3, N=2)
        assert torch.autograd.gradcheck(lambda *a, r=reverse: selective_scan(*a, chunk=5, reverse=r), args)


def test_selective_scan__without_skip() -> None:
    args = arguments(37)[:5]
    ours, theirs = (output_and_gradients(scan, args) for scan in (selective_scan, naive_scan))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-10)


def test_selective_scan__many_sequences_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    args = arguments(53, B=7)
    theirs = output_and_gradients(naive_scan, args)
    monkeypatch.setattr("ciscribe.nn.scan._CPU_BUFFER", 5 * 7 * 16 * 3 // torch.get_num_threads())
    ours = output_and_gradients(selective_scan, args)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-10)


def test_selective_scan__strided_arguments() -> None:
    x, delta, A, B, C, D = arguments(37)
    wide = torch.cat([C, B], -1).detach()
    y = selective_scan(x.mT.contiguous().mT, delta, A, wide[..., 7:], wide[..., :7], D)
    torch.testing.assert_close(y, naive_scan(x, delta, A, B, C, D))
    seen = torch.autograd.grad(y.sum(), x)[0]  # the gradient of a sum is expanded from one number
    torch.testing.assert_close(seen, torch.autograd.grad(naive_scan(x, delta, A, B, C, D).sum(), x)[0])


def test_selective_scan__half_precision_keeps_fp32_states() -> None:
    args = arguments(211)
    half = [t.detach().to(torch.bfloat16).requires_grad_() for t in args]
    # The twin sees the rounded inputs, so what differs is the arithmetic only: one rounding of the result.
    exact = output_and_gradients(naive_scan, [t.detach().double().requires_grad_() for t in half])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = output_and_gradients(selective_scan, half)
    assert ours["y"].dtype is torch.bfloat16
    for name, value in exact.items():
        error = (ours[name].double() - value).abs().max() / value.abs().max()
        assert error < 2**-8, f"{name}: {error}"


def test_selective_scan__is_the_same_for_one_sequence_and_many() -> None:
    x, delta, A, B, C, D = arguments(211, dtype=torch.float32)
    together = selective_scan(x, delta, A, B, C, D)
    for i in range(len(x)):
        one = slice(i, i + 1)
        alone = selective_scan(x[one], delta[one], A, B[one], C[one], D)
        torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_selective_scan__saves_no_state_per_position(reverse: bool) -> None:
    L, E, N = 2003, 13, 11
    args = arguments(L, B=1, E=E, N=N, dtype=torch.float32)
    inputs = {t.data_ptr() for t in args}
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = selective_scan(*args, chunk=64, reverse=reverse)
    extra = sum(t.numel() for t in saved if t.data_ptr() not in inputs)
    assert 0 < extra <= -(-L // 64) * E * N  # a state per chunk; all of them would be L E N
    torch.autograd.grad(y.sum(), args)


def test_selective_scan__a_position_that_adds_nothing_changes_nothing() -> None:
    x, delta, A, B, C, D = (t.detach() for t in arguments(41))
    hole = torch.ones(41, dtype=torch.bool)
    hole[11:29] = False
    delta[:, ~hole] = 0
    y = selective_scan(x, delta, A, B, C, D)
    squeezed = selective_scan(x[:, hole], delta[:, hole], A, B[:, hole], C[:, hole], D)
    torch.testing.assert_close(y[:, hole], squeezed)


def test_selective_scan__strong_decay_and_zeros_stay_finite() -> None:
    args = arguments(127, dtype=torch.float32)
    with torch.no_grad():
        args[1].mul_(1e4)
        args[0][1] = 0
    assert all(value.isfinite().all() for value in output_and_gradients(selective_scan, args).values())


def test_selective_scan__empty_batch() -> None:
    x, delta, A, B, C, D = arguments(11)
    assert selective_scan(x[:0], delta[:0], A, B[:0], C[:0], D).shape == (0, 11, 5)


def test_selective_scan__says_what_does_not_fit() -> None:
    x, delta, A, B, C, D = arguments(11)
    with pytest.raises(ValueError, match="chunk must be at least 1 position; got 0"):
        selective_scan(x, delta, A, B, C, D, chunk=0)
    plain = selective_scan
    while hasattr(plain, "__wrapped__"):  # the message is for those who run without jaxtyping's checks
        plain = plain.__wrapped__
    message = r"B must be \(3, 11, 7\).*got \(3, 10, 7\)"
    with jaxtyping.jaxtyped("context"), pytest.raises(SchemaError, match=message):
        plain(x, delta, A, B[:, 1:], C, D)
