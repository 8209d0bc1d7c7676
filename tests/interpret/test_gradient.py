"""Explanations by backpropagation: right on functions of known answer, honest where not; the zoo is in test_methods."""

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError, UnknownNameError, UnsupportedError
from ciscribe.interpret.gradient import (
    corrected_gradient,
    expected_gradients,
    gradient,
    integrated_gradients,
    smooth_grad,
)
from ciscribe.interpret.references import references, row_references
from ciscribe.interpret.signals import modality_split, signal_attribution
from ciscribe.oracle import Oracle
from ciscribe.results import contributions
from ciscribe.sequence import one_hot_tensor

B, L, T, S, BINS = 3, 29, 2, 5, 7


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny functions: threads would wait for each other
    yield
    torch.set_num_threads(before)


def codes(n=B, length=L, letters=4, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, letters, (n, length)).astype(np.uint8))


class Curve(nn.Module):
    """Smooth in the sequence, and in signals and covariates when they are given."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        self.w = nn.Parameter(torch.randn(T, 4, L, generator=draw) / 3)
        self.v = nn.Parameter(torch.randn(T, S, BINS, generator=draw) / 3)

    def forward(self, X, S=None, covariates=None):
        z = torch.einsum("bcl,tcl->bt", X, self.w)
        z = z if S is None else z + torch.einsum("bsn,tsn->bt", S, self.v)
        z = z.tanh()
        return z if covariates is None else z * covariates.sum(1, keepdim=True)


def test_gradient__is_the_slope():
    model, X = Curve(), codes(letters=5)
    array = gradient(Oracle(model, device="cpu"), X, regions=["a", "b", "c"])
    one_hot = one_hot_tensor(X)
    for t in range(T):
        wanted = (1 - model(one_hot)[:, t].square())[:, None, None] * model.w[t]
        np.testing.assert_allclose(array.values[..., t], wanted.detach(), atol=1e-6)
    assert (array.attrs["method"], list(array["region"].values)) == ("gradient", ["a", "b", "c"])
    corrected = corrected_gradient(Oracle(model, device="cpu"), X)
    np.testing.assert_allclose(corrected.sum("base"), 0, atol=1e-6)
    taken = (corrected - array).values
    np.testing.assert_allclose(taken, np.broadcast_to(taken[:, :1], taken.shape), atol=1e-6)
    assert corrected.attrs["method"] == "corrected_gradient"


def test_gradient__of_the_other_layout_and_of_one_hot_is_the_same():
    class Last(Curve):
        def forward(self, X, **given):
            return super().forward(X.transpose(1, 2), **given)

    X = codes(letters=5)
    array = gradient(Oracle(Curve(), device="cpu"), X)
    np.testing.assert_array_equal(array, gradient(Oracle(Curve(), device="cpu"), one_hot_tensor(X).numpy()))
    np.testing.assert_allclose(array, gradient(Oracle(Last(), layout="B L 4", device="cpu"), X), atol=1e-6)


def test_integrated_gradients__equal_the_fine_sum_done_by_hand():
    model, X = Curve(), codes(letters=5)
    array = integrated_gradients(Oracle(model, device="cpu"), X, n_references=2, tolerance=1e-3, seed=3)
    one_hot, starts = one_hot_tensor(X), references(X.numpy(), "shuffle", 2, 3)
    for i in range(B):
        wanted = torch.zeros(4, L, T)
        for start in starts[i]:
            mean = torch.zeros(4, L, T)
            for place in (np.arange(999) + 0.5) / 999:
                z = torch.einsum("cl,tcl->t", start + place * (one_hot[i] - start), model.w)
                mean += ((1 - z.tanh() ** 2) * model.w.permute(1, 2, 0)).detach() / 999
            for base in range(4):
                for_base = torch.zeros(4, L)
                for_base[base] = 1
                wanted[base] += ((for_base - start)[..., None] * mean).sum(0) / 2
        np.testing.assert_allclose(array[i], wanted, atol=2e-3)


@pytest.mark.parametrize("kind", ["zeros", "uniform", "gc", "shuffle"])
def test_integrated_gradients__add_up_also_where_there_is_n(kind):
    model, X = Curve(), codes(letters=5)
    oracle = Oracle(model, device="cpu")
    array = integrated_gradients(oracle, X, references=kind, n_references=3, n_steps=7, tolerance=3e-4, seed=1)
    starts = references(X.numpy(), kind, 3, 1)
    change = oracle.predict(X) - torch.stack([oracle.predict(own).mean(0) for own in starts])
    np.testing.assert_allclose(contributions(array, one_hot_tensor(X)).sum("position"), change, atol=2e-3)
    assert 0 < array.attrs["completeness_error"] <= 3e-4
    assert array.attrs["n_steps"] in (7, 21, 63, 189)


def test_integrated_gradients__say_when_they_do_not_add_up():
    class Jump(Curve):
        def forward(self, X):
            return super().forward(X) + X.sum((1, 2)).gt(L / 2).float()[:, None]

    with pytest.warns(UserWarning, match=r"do not add up to the difference .* raise max_steps"):
        array = integrated_gradients(Oracle(Jump(), device="cpu"), codes(), references="zeros", max_steps=60)
    assert array.attrs["completeness_error"] > 0.1
    assert array.attrs["n_steps"] == 60


def test_integrated_gradients__take_more_steps_where_they_are_needed_alone():
    steep = Curve()
    steep.w.data *= 3
    X = codes()
    few = integrated_gradients(Oracle(Curve(), device="cpu"), X, n_references=1, n_steps=5, tolerance=0.1)
    many = integrated_gradients(Oracle(steep, device="cpu"), X[:1], n_references=1, n_steps=5, tolerance=1e-4)
    assert few.attrs["n_steps"] == 5 < many.attrs["n_steps"]
    at_once = integrated_gradients(Oracle(steep, device="cpu"), X[:1], n_references=1, n_steps=many.attrs["n_steps"],
                                   tolerance=1e-4)
    np.testing.assert_allclose(many, at_once, atol=1e-5)


def test_expected_gradients__approach_integrated_ones():
    oracle, X = Oracle(Curve(), device="cpu"), codes()
    given = references(X.numpy(), "shuffle", 401, 5)
    exact = integrated_gradients(oracle, X, references=given, n_steps=7, tolerance=0.1, batch_size=512)
    near = expected_gradients(oracle, X, references=given, seed=2)
    far = expected_gradients(oracle, X, references=given[:, :5], n_references=5, seed=2)
    spread = float(abs(exact).mean())
    assert float(abs(near - exact).mean()) < 0.1 * spread < float(abs(far - exact).mean())
    assert float(abs(expected_gradients(oracle, X, n_references=5, seed=0)
                     - expected_gradients(oracle, X, n_references=5, seed=1)).max()) > 0
    zero = expected_gradients(oracle, X, references="zeros", n_references=301)
    np.testing.assert_allclose(zero, integrated_gradients(oracle, X, references="zeros", tolerance=0.001), atol=5e-3)


def test_smooth_grad__is_the_gradient_without_noise_and_close_to_it_with_little():
    oracle, X = Oracle(Curve(), device="cpu"), codes(letters=5)
    plain = gradient(oracle, X)
    np.testing.assert_allclose(smooth_grad(oracle, X, noise=0, n_samples=3), plain, atol=1e-6)
    little = smooth_grad(oracle, X, noise=0.02, n_samples=11)
    assert 0 < float(abs(little - plain).max()) < 0.1
    assert float(abs(smooth_grad(oracle, X, n_samples=3, seed=1) - smooth_grad(oracle, X, n_samples=3)).max()) > 0


@pytest.mark.parametrize(("cut", "what"), [
    (lambda z: z.argmax(dim=1, keepdim=True).float(), "none reaches the sequence"),
    (lambda z: z.gt(0).float(), "none reaches the sequence"),
    (lambda z: z.detach() * nn.Parameter(torch.ones(1)), "none reaches the sequence"),
    (torch.round, r"leads through round\(\)"),
    (lambda z: torch.floor(z * 7).relu(), r"leads through floor\(\)"),
    (torch.sign, r"leads through sign\(\)"),
])
@pytest.mark.parametrize("method", [gradient, integrated_gradients, smooth_grad, expected_gradients])
def test_method__refuses_what_has_no_gradient(method, cut, what):
    class Cut(Curve):
        def forward(self, X):
            return cut(super().forward(X))

    model = Cut().train()
    with pytest.raises(UnsupportedError, match=rf"{what}.*in-silico mutagenesis"):
        method(Oracle(model, device="cpu"), codes())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_gradient__may_be_zero_where_a_network_is_silent():
    class Silent(Curve):
        def forward(self, X):
            return (super().forward(X) - 2).relu()

    assert not gradient(Oracle(Silent(), device="cpu"), codes()).any()


def test_methods__refuse_bad_input():
    oracle = Oracle(Curve(), device="cpu")
    with pytest.raises(SchemaError, match="X holds no sequence"):
        gradient(oracle, codes(0))
    with pytest.raises(SchemaError, match="must be one-hot"):
        gradient(oracle, torch.rand(B, 4, L))
    with pytest.raises(SchemaError, match="X has 3 sequences but S has 2 rows"):
        gradient(oracle, codes(), torch.rand(2, S, BINS))
    with pytest.raises(SchemaError, match="n_steps lies in 1 to max_steps; got 0 and 540"):
        integrated_gradients(oracle, codes(), n_steps=0)
    with pytest.raises(SchemaError, match="noise is at least 0"):
        smooth_grad(oracle, codes(), noise=-1.0)
    with pytest.raises(UnknownNameError, match=r"'shufle'; did you mean 'shuffle'"):
        integrated_gradients(oracle, codes(), references="shufle")
    with pytest.raises(SchemaError, match=r"references of 3 sequences of 29 bp are \(3, S, 4, 29\)"):
        expected_gradients(oracle, codes(), references=torch.zeros(3, 4, L))


def test_references__keep_dinucleotides_composition_and_n():
    X = codes(letters=5).numpy()
    shuffled = references(X, "shuffle", 7, 1)
    assert shuffled.shape == (B, 7, 4, L)
    for kind in ("shuffle", "zeros", "uniform", "gc"):
        made = references(X, kind, 7, 1)
        assert not made.permute(0, 3, 1, 2)[torch.from_numpy(X == 4)].any()
        np.testing.assert_array_equal(made[1:2], references(X[1:2], kind, 7, 1))
        for row, own in zip(row_references(X, kind, 7, 1), made, strict=True):
            np.testing.assert_array_equal(row, own)
    np.testing.assert_array_equal(shuffled.sum(3), one_hot_tensor(torch.from_numpy(X)).sum(2)[:, None].repeat(1, 7, 1))
    assert len({tuple(own.argmax(0).tolist()) for own in shuffled[0]}) > 4
    gc = references(X, "gc")
    at = (X[0] != 4).argmax()
    share = np.isin(X[0], (1, 2)).sum() / (X[0] != 4).sum()
    np.testing.assert_allclose(gc[0, 0, :, at], [(1 - share) / 2, share / 2, share / 2, (1 - share) / 2], rtol=1e-6)
    with pytest.raises(SchemaError, match="at least 1 reference; got n=0"):
        references(X, "shuffle", 0)
    with pytest.raises(SchemaError, match="2 of 348 values of the references are NaN"):
        references(X, np.where(np.arange(B * 4 * L).reshape(B, 1, 4, L) < 2, np.nan, 0.0))


def signals(n=B, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((n, S, BINS)).astype(np.float32))


@pytest.mark.parametrize("kind", ["zeros", "mean", "shuffle"])
@pytest.mark.parametrize("sequence", [None, "shuffle", "zeros"])
def test_signal_attribution__adds_up(kind, sequence):
    first = lambda output: output[:, 1:2]  # noqa: E731
    oracle, X, s, c = Oracle(Curve(), first, device="cpu"), codes(), signals(), torch.ones(B, 1) * 2
    array = signal_attribution(oracle, X, s, c, references=kind, sequence=sequence, n_references=5, tolerance=3e-3)
    assert array.dims == ("region", "track", "bin")
    assert array.shape == (B, S, BINS)
    if sequence is None:
        start = {"zeros": torch.zeros_like(s), "mean": s.mean(2, keepdim=True).expand_as(s)}
        if kind in start:
            change = oracle.predict(X, s, c) - oracle.predict(X, start[kind], c)
            np.testing.assert_allclose(array.sum(("track", "bin")), change[:, 0], atol=0.01)
        return
    table = modality_split(oracle, X, s, c, references=kind, sequence=sequence, n_references=5, tolerance=3e-3)
    names = [f"signal_{i}" for i in range(S)]
    assert list(table.columns) == ["region", "sequence", *names, "change"]
    np.testing.assert_allclose(table[names], array.sum("bin"), atol=1e-5)
    np.testing.assert_allclose(table[["sequence", *names]].sum(axis=1), table["change"], atol=0.02)
    if kind != "shuffle" and sequence == "zeros":
        start = torch.zeros_like(s) if kind == "zeros" else s.mean(2, keepdim=True).expand_as(s)
        change = oracle.predict(X, s, c) - oracle.predict(torch.zeros(B, 4, L), start, c)
        np.testing.assert_allclose(table["change"], change[:, 0], atol=1e-5)


def test_signal_attribution__of_a_linear_model_is_weight_times_input():
    class Linear(Curve):
        def forward(self, X, S):
            return torch.einsum("bsn,tsn->bt", S, self.v)[:, :1] + X[:, 0].mean(1, keepdim=True)

    model, s = Linear(), signals()
    oracle = Oracle(model, device="cpu")
    wanted = (s * model.v[0]).detach()
    for method in ("gradient", "integrated_gradients", "expected_gradients"):
        array = signal_attribution(oracle, codes(), s, method=method, tracks=list("abcde"))
        np.testing.assert_allclose(array, wanted, atol=1e-5)
        assert list(array["track"].values) == list("abcde")
    given = torch.rand(B, 2, S, BINS)
    array = signal_attribution(oracle, codes(), s, references=given)
    np.testing.assert_allclose(array, ((s - given.mean(1)) * model.v[0]).detach(), atol=1e-5)


def test_signal_attribution__refuses_what_it_cannot_explain():
    one = Oracle(Curve(), lambda output: output[:, :1], device="cpu")
    with pytest.raises(SchemaError, match=r"one target at a time, and Scalar.* reads 2; choose one"):
        signal_attribution(Oracle(Curve(), device="cpu"), codes(), signals())
    with pytest.raises(UnknownNameError, match="did you mean 'gradient'"):
        signal_attribution(one, codes(), signals(), method="gradients")
    with pytest.raises(UnknownNameError, match="no references of signals are called 'zero'; did you mean 'zeros'"):
        signal_attribution(one, codes(), signals(), references="zero")
    with pytest.raises(SchemaError, match=r"references of signals \(3, 5, 7\) are \(3, R, 5, 7\)"):
        signal_attribution(one, codes(), signals(), references=torch.zeros(3, 5, 7))
    with pytest.raises(SchemaError, match=r"go in pairs; got \[3, 5\]"):
        signal_attribution(one, codes(), signals(), references=torch.zeros(3, 3, S, BINS), sequence="shuffle",
                           n_references=5)
    with pytest.raises(SchemaError, match="5 signals need 5 names; got 1"):
        modality_split(one, codes(), signals(), tracks=["a"])

    class Deaf(Curve):
        def forward(self, X, S):
            return super().forward(X)[:, :1] + S.argmax(2).float().mean(1, keepdim=True)

    with pytest.raises(UnsupportedError, match="none reaches the signals"):
        signal_attribution(Oracle(Deaf(), device="cpu"), codes(), signals())
