import pytest
import torch
from torch import nn

from ciscribe.errors import DeviceError, SchemaError
from ciscribe.nn.mask import Posterior
from ciscribe.oracle import (
    ExpectedBin,
    LogCounts,
    Oracle,
    Probability,
    Profile,
    Readout,
    Scalar,
    WindowSum,
    resolve_device,
)
from ciscribe.sequence import one_hot_tensor

B, L, T, S, C = 5, 37, 3, 2, 7


class Linear(nn.Module):
    """Two heads from everything that it is given; dropout and batch norm notice the training mode."""

    def __init__(self, broken=False):
        super().__init__()
        self.broken = broken
        self.weight = nn.Linear(4 * L, T)
        self.norm = nn.BatchNorm1d(T)
        self.dropout = nn.Dropout(0.5)
        self.dropout.eval()  # a module that was frozen by hand must stay so

    def forward(self, X, S=None, covariates=None, keep=None):
        if self.broken:
            raise RuntimeError("out of memory")
        y = self.norm(self.dropout(self.weight(X.flatten(1))))
        for extra in (S, covariates, keep):
            if extra is not None:
                y = y + extra.flatten(1).sum(dim=1, keepdim=True)
        return {"expression": y, "counts": y[:, :1], "profile": y[:, :, None]}


class Masked(Linear):
    def posterior(self, X, S=None):
        total = X.sum(dim=1) + 1 + (0 if S is None else S.sum(dim=1))
        return Posterior(total, torch.ones_like(total))


@pytest.fixture
def codes():
    return torch.randint(0, 5, (B, L), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def extras():
    draw = torch.Generator().manual_seed(1)
    return {"S": torch.rand(B, S, L, generator=draw), "covariates": torch.randn(B, C, generator=draw),
            "keep": torch.rand(B, L, generator=draw)}


def state_of(model):
    return ([m.training for m in model.modules()], [(p.requires_grad, p.grad) for p in model.parameters()],
            {k: v.clone() for k, v in model.state_dict().items()})


def assert_same(model, before):
    modes, grads, values = state_of(model)
    assert modes == before[0]
    assert grads == before[1]
    assert all(torch.equal(v, before[2][k]) for k, v in values.items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("broken", [True, False])
def test_predict__leaves_the_model_as_it_was_also_after_an_exception(codes, training, broken):
    model = Masked(broken)
    model.weight.requires_grad_(False)
    model.train(training)
    model.dropout.eval()
    before = state_of(model)
    oracle = Oracle(model, device="cpu")
    if broken:
        with pytest.raises(RuntimeError, match="out of memory"):
            oracle.predict(codes)
    else:
        oracle.predict(codes)
        oracle.posterior(codes)
    assert_same(model, before)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_predict__is_evaluation_whatever_the_mode_of_the_model(codes):
    model = Linear().train()
    a = Oracle(model, device="cpu").predict(codes)
    assert torch.equal(a, Oracle(model, device="cpu").predict(codes))
    with torch.no_grad():
        assert torch.allclose(a, model.eval()(one_hot_tensor(codes))["expression"])
    assert a.dtype == torch.float32
    a += 1  # an ordinary tensor, no inference one


def test_predict__batch_size_does_not_matter(codes, extras):
    oracle = Oracle(Masked(), device="cpu")
    whole = oracle.predict(codes, **extras)
    assert whole.shape == (B, T)
    for size in (1, 2, 5, 64):
        assert torch.allclose(oracle.predict(codes, **extras, batch_size=size), whole, atol=1e-6)
        for a, b in zip(oracle.posterior(codes, extras["S"], batch_size=size), oracle.posterior(codes, extras["S"]),
                        strict=True):
            assert torch.equal(a, b)
    order = torch.tensor([3, 0, 4, 1, 2])
    again = oracle.predict(codes[order], **{k: v[order] for k, v in extras.items()}, batch_size=2)
    assert torch.allclose(again, whole[order], atol=1e-6)


def test_predict__codes_one_hot_and_both_layouts_agree(codes):
    class Last(Linear):
        def forward(self, X):
            assert X.shape[1:] == (L, 4)
            return super().forward(X.transpose(1, 2))

    model = Linear()
    last = Last()
    last.load_state_dict(model.state_dict())
    expected = Oracle(model, device="cpu").predict(codes)
    assert torch.equal(Oracle(model, device="cpu").predict(one_hot_tensor(codes)), expected)
    assert torch.equal(Oracle(model, device="cpu").predict(one_hot_tensor(codes).to(torch.int8)), expected)
    oracle = Oracle(last, layout="B L 4", device="cpu")
    assert torch.equal(oracle.predict(codes), expected)
    assert "Last, Scalar(head='expression', track=None), layout='B L 4', device='cpu'" in repr(oracle)


def test_predict__passes_on_only_what_is_given(codes, extras):
    class Plain(nn.Module):
        def forward(self, X):
            return X.sum(dim=(1, 2))[:, None]

    y = Oracle(Plain(), device="cpu").predict(codes)  # no parameters, and a plain tensor
    assert y[:, 0].tolist() == (codes < 4).sum(dim=1).tolist()
    with pytest.raises(TypeError, match="keep"):
        Oracle(Plain(), device="cpu").predict(codes, keep=extras["keep"])


def test_readout__takes_a_head_and_a_track(codes):
    model = Linear()
    whole = Oracle(model, device="cpu").predict(codes)
    assert torch.equal(Oracle(model, Scalar(track=1), device="cpu").predict(codes), whole[:, 1:2])
    assert Oracle(model, Scalar("counts"), device="cpu").predict(codes).shape == (B, 1)
    with pytest.raises(SchemaError, match=r"wants the output 'expresion'; the model returned expression, counts, "
                                          r"profile; use Scalar\(head=...\)"):
        Oracle(model, Scalar("expresion"), device="cpu").predict(codes)
    with pytest.raises(SchemaError, match=r"needs outputs \(B, T\); got shape \(5, 3, 1\)"):
        Oracle(model, Scalar("profile"), device="cpu").predict(codes)


def test_readout__of_any_kind_takes_tensors_and_dictionaries(codes):
    output = torch.arange(B * T * L, dtype=torch.float32).reshape(B, T, L)
    for got in (WindowSum(2, 5)(output), WindowSum(2, 5, head="mouse")({"mouse": output, "human": -output})):
        assert torch.equal(got, output[:, :, 2] + output[:, :, 3] + output[:, :, 4])
    assert torch.equal(WindowSum(track=1)(output), output[:, 1:2].sum(dim=2))
    flat = output[:, :, 0]
    assert torch.equal(LogCounts(track=2)({"counts": flat, "profile": output}), flat[:, 2:])
    assert torch.equal(Probability()(flat - 40), 1 / (1 + (40 - flat).exp()))
    one_bin = torch.log(torch.tensor([[0.25, 0.0, 0.75], [0.0, 1.0, 0.0]]))
    assert torch.allclose(ExpectedBin()(one_bin), torch.tensor([[1.5], [1.0]]))

    bins = Profile(n_tracks=T, logits=False)({"profile": output})
    assert torch.equal(bins.reshape(B, T, L), output)
    shape = Profile(n_tracks=T)(output / 50).reshape(B, T, L)
    assert torch.allclose(shape, (output / 50).exp() / (output / 50).exp().sum(dim=2, keepdim=True))

    class Tracks(nn.Module):
        def forward(self, X):
            return X

    assert torch.equal(Oracle(Tracks(), WindowSum(), device="cpu").predict(codes), one_hot_tensor(codes).sum(dim=2))
    for readout in (Scalar(), WindowSum(), LogCounts(), Probability(), ExpectedBin(), Profile()):
        assert isinstance(readout, Readout)
        with pytest.raises(SchemaError, match=rf"the model returned profil; use {type(readout).__name__}\(head="):
            readout({"profil": output})


@pytest.mark.parametrize(("readout", "message"), [
    (WindowSum(3, 38), r"returns 37 bins, .* 0 to 37, start before end; got 3 and 38"),
    (WindowSum(5, 5), r"got 5 and 5"),
    (WindowSum(-1), r"got -1 and 37"),
    (WindowSum(track=3), r"has targets 0 to 2; got track 3"),
    (Probability(), r"a Probability readout needs outputs \(B, T\); got shape \(5, 3, 37\)"),
    (LogCounts(), r"a LogCounts readout needs outputs \(B, n\)"),
    (Profile(), r"the model returns 3 tracks, Profile says 1; use Profile\(n_tracks=3\)"),
])
def test_readout__that_does_not_fit(readout, message):
    with pytest.raises(SchemaError, match=message):
        readout(torch.zeros(B, T, L))


def test_predict__refuses_shapes_that_do_not_fit(codes, extras):
    oracle = Oracle(Linear(), device="cpu")
    with pytest.raises(SchemaError, match=r"codes \(B, L\) or one-hot \(B, 4, L\); got \(5, 37, 4\)"):
        oracle.predict(one_hot_tensor(codes).transpose(1, 2))
    with pytest.raises(SchemaError, match="X has 5 sequences but S has 4 rows"):
        oracle.predict(codes, extras["S"][:4])
    assert oracle.predict(codes[:0]).numel() == 0


def test_posterior__needs_a_mask(codes, extras):
    oracle = Oracle(Linear(), device="cpu")
    assert not oracle.has_mask
    with pytest.raises(SchemaError, match="Linear has no mask; elements can be called from beacon and seq2exp"):
        oracle.posterior(codes)
    masked = Oracle(Masked(), device="cpu").posterior(codes, extras["S"], extras["covariates"])
    assert masked.mean.shape == masked.sd.shape == (B, L)
    assert bool((masked.sd > 0).all())


def test_resolve_device__absent_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device(None).type == "cpu"
    with pytest.raises(DeviceError, match=r"device 'cuda:1' was asked for, but PyTorch sees no GPU.* use device cpu"):
        resolve_device("cuda:1")
    with pytest.raises(DeviceError):
        Oracle(Linear(), device="cuda")


@pytest.mark.gpu
def test_predict__brings_the_model_home_from_the_gpu(codes):
    model = Linear()
    on_gpu = Oracle(model, device="cuda").predict(codes)
    assert next(model.parameters()).device.type == "cpu"
    assert torch.allclose(on_gpu, Oracle(model, device="cpu").predict(codes), atol=1e-4)
