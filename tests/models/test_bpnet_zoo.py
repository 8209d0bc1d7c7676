from inspect import unwrap

import pytest
import torch
from cases_bpnet import CASES

from ciscribe.errors import SchemaError
from ciscribe.models import bpnet, chrombpnet
from ciscribe.models.bpnet import BPNet
from ciscribe.models.chrombpnet import ChromBPNet
from ciscribe.oracle import LogCounts, Oracle
from ciscribe.sequence import one_hot_tensor
from ciscribe.testing import check_model

B, T = 3, 7
CLASSES = {"bpnet": BPNet, "chrombpnet": ChromBPNet}


def sequences(length, n=B, seed=0):
    return one_hot_tensor(torch.randint(0, 5, (n, length), generator=torch.Generator().manual_seed(seed)))


def count(model):
    return sum(p.numel() for p in model.parameters())


def small_chrombpnet(**changes):
    torch.manual_seed(0)
    return ChromBPNet(**(CASES["chrombpnet"].arguments | changes))


@pytest.mark.parametrize("key", CASES)
def test_case__keeps_the_contract(key):
    case = CASES[key]
    torch.manual_seed(0)
    model = CLASSES[key.split()[0]](**case.arguments)
    S = torch.rand(B, case.n_signals, case.signal_bins) if case.n_signals else None
    check_model(model, sequences(case.length), S, n_targets=case.n_targets, readout=case.readout)


@pytest.mark.parametrize("key", CASES)
def test_case__trains_every_parameter_that_is_not_frozen(key):
    case = CASES[key]
    torch.manual_seed(0)
    model = CLASSES[key.split()[0]](**case.arguments).train()
    S = torch.rand(B, case.n_signals, case.signal_bins) if case.n_signals else None
    out = model(sequences(case.length), **({} if S is None else {"S": S}))
    sum(v.square().sum() for v in out.values()).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not (p.grad != 0).any()]
    assert [n for n in idle if not n.startswith("bias.")] == []
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert frozen == [n for n, _ in model.named_parameters() if n.startswith("bias.")]


def test_published_sizes():
    with torch.device("meta"):
        paper, chrom = BPNet(), ChromBPNet()
        assert count(paper) == bpnet.CARD.parameters == 130_960
        assert count(chrom) == chrombpnet.CARD.parameters == 6_595_716
        assert (count(chrom.body), count(chrom.bias)) == (6_377_986, 217_730)
        assert count(BPNet(**bpnet.PRESETS["cpu"])) == 23_524
        cpu = ChromBPNet(**chrombpnet.PRESETS["cpu"])
        assert (count(cpu.body), count(cpu.bias)) == (29_986, 5_714)
        X = torch.empty(2, 4, 1000)
        assert {k: tuple(v.shape) for k, v in paper(X).items()} == {"profile": (2, 8, 1000), "counts": (2, 8)}
        X = torch.empty(2, 4, 2114)
        assert {k: tuple(v.shape) for k, v in chrom(X).items()} == {"profile": (2, 1, 1000), "counts": (2, 1)}
        maintained = BPNet(1, variant="2114", n_signals=2)
        out = maintained(X, torch.empty(2, 2, 2114))
        assert {k: tuple(v.shape) for k, v in out.items()} == {"profile": (2, 2, 1000), "counts": (2, 1)}
        assert BPNet(1, variant="chrombpnet", n_layers=4)(X)["profile"].shape == (2, 1, 1960)


def field_of_view(model, length, output):
    """First and last base that moves the middle of an output, seen from the middle of the sequence."""
    model = model.double().eval()
    for name, p in model.named_parameters():  # positive weights: no path is cut off by a ReLU or cancelled
        p.data = p.data.abs() + (0.01 if name.endswith("weight") else 0)
    X = one_hot_tensor(torch.randint(0, 4, (1, length), generator=torch.Generator().manual_seed(0))).double()
    X.requires_grad_()
    y = output(model, X)
    y[..., y.shape[-1] // 2].sum().backward()
    reached = X.grad.abs().sum((0, 1)).nonzero().flatten() - length // 2
    return int(reached[0]), int(reached[-1])


def trunk(model, X):
    seen = []
    hook = model.profile.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(X)
    hook.remove()
    return seen[0]


def profile(model, X):
    return model(X)["profile"]


@pytest.mark.parametrize(("model", "output", "width"), [
    (lambda: BPNet(1, n_filters=2), trunk, 2069), (lambda: BPNet(1, n_filters=2), profile, 2093),
    (lambda: BPNet(1, variant="2114", n_filters=2), profile, 1115),
    (lambda: ChromBPNet(n_filters=2, bias_filters=2, profile_length=5), profile, 1115),
    (lambda: ChromBPNet(n_filters=2, bias_filters=2, profile_length=5).bias, profile, 155),
])
def test_field_of_view(model, output, width):
    torch.manual_seed(0)
    assert field_of_view(model(), 2401, output) == (-(width // 2), width // 2)


def test_bpnet__residuals_are_those_of_the_variant():
    """One dilated layer, written out with functions."""
    F, X = torch.nn.functional, sequences(127)
    for variant in ("paper", "2114", "chrombpnet"):
        torch.manual_seed(0)
        model = BPNet(T, variant=variant, n_filters=11, n_layers=1).eval()
        w = dict(model.named_parameters())
        pad = (12, 2, 12) if variant == "paper" else (0, 0, 0)
        x = F.conv1d(X, w["first.weight"], w["first.bias"], padding=pad[0])
        dilated = {"weight": w["dilated.0.weight"], "bias": w["dilated.0.bias"], "dilation": 2, "padding": pad[1]}
        if variant == "2114":
            x = F.relu(x[:, :, 2:-2] + F.conv1d(F.relu(x), **dilated))
        else:
            x = F.relu(x)
            y = F.relu(F.conv1d(x, **dilated))
            x = (x if variant == "paper" else x[:, :, 2:-2]) + y
        out = model(X)
        expected = F.conv1d(x, w["profile.weight"], w["profile.bias"], padding=pad[2])
        torch.testing.assert_close(out["profile"], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out["counts"], x.mean(2) @ w["counts.weight"].T + w["counts.bias"])


def test_bpnet__control_of_the_paper():
    torch.manual_seed(0)
    model = BPNet(T, n_filters=5, n_layers=1, n_signals=3).eval()
    X, S = sequences(127), torch.rand(B, 3, 127)
    without, with_control = model(X, torch.zeros_like(S)), model(X, S)
    smooth = torch.stack([S[:, :, max(0, i - 24):i + 26].sum(2) / 50 for i in range(127)], dim=2)
    added = torch.einsum("oi,bil->bol", model.control_profile.weight[:, :, 0], torch.cat([S, smooth], dim=1))
    torch.testing.assert_close(with_control["profile"] - without["profile"], added, atol=1e-5, rtol=1e-4)
    added = torch.log1p(S.sum(2)) @ model.control_counts.weight.T
    torch.testing.assert_close(with_control["counts"] - without["counts"], added, atol=1e-5, rtol=1e-4)


def test_bpnet__control_of_the_maintained_form_counts_under_the_profile():
    torch.manual_seed(0)
    model = BPNet(T, variant="2114", n_filters=5, n_layers=1, n_signals=3, profile_length=13).eval()
    X, S = sequences(127), torch.rand(B, 3, 127)
    outside = S.clone()
    outside[:, :, :57] += 1
    outside[:, :, 70:] += 1
    for name, value in model(X, S).items():
        assert torch.equal(value, model(X, outside)[name])
        assert not torch.allclose(value, model(X, 2 * S)[name])
    plain = model.counts(torch.zeros(B, 5))
    model.counts.register_forward_hook(lambda *_: plain)
    total = torch.log1p(S[:, :, 57:70].sum((1, 2)))[:, None]
    torch.testing.assert_close(model(X, S)["counts"], model.control_counts(torch.cat([plain, total], dim=1)))


def test_bpnet__refuses():
    with pytest.raises(ValueError, match="variant is one of paper, 2114, chrombpnet; got 'old'"):
        unwrap(BPNet.__init__)(BPNet.__new__(BPNet), variant="old")
    model = BPNet(T, variant="2114", n_filters=5, n_layers=1, n_signals=3, profile_length=13)
    with pytest.raises(SchemaError, match="at least 111 bp; got 109 bp"):
        model(sequences(109), torch.rand(B, 3, 109))
    for S, came in ((None, "got none"), (torch.rand(B, 2, 127), r"got \(3, 2, 127\)"), (torch.rand(B, 3, 13), "3, 13")):
        with pytest.raises(SchemaError, match=f"3 control tracks at every base.*{came}"):
            model(sequences(127), S)
    with pytest.raises(ValueError, match="outputs are profile, counts; got 'count'"):
        unwrap(BPNet.only)(model, "count")


@pytest.mark.parametrize("output", ["profile", "counts"])
def test_bpnet__only_computes_what_is_asked_for(output):
    model = BPNet(T, n_filters=5, n_layers=1).eval()
    X = sequences(61)
    whole, part = model(X), model.only(output)
    other = model.counts if output == "profile" else model.profile
    other.register_forward_hook(lambda *_: pytest.fail("the other head was computed"))
    alone = part(X)
    assert set(alone) == {output}
    assert torch.equal(alone[output], whole[output])
    assert model.outputs == ("profile", "counts")
    assert {p.data_ptr() for p in part.parameters()} == {p.data_ptr() for p in model.parameters()}
    if output == "counts":
        torch.testing.assert_close(Oracle(part, LogCounts()).predict(X), whole["counts"].detach())


def test_chrombpnet__logits_add_and_counts_add():
    model, X = small_chrombpnet().eval(), sequences(127)
    out, body, bias = model(X), model.body(X), model.bias(X)
    assert torch.equal(out["profile"], body["profile"] + bias["profile"])
    torch.testing.assert_close(out["counts"].exp(), body["counts"].exp() + bias["counts"].exp())
    model.bias.profile.weight.zero_()
    model.bias.profile.bias.zero_()
    model.bias.counts.bias.fill_(-torch.inf)
    for name, value in model(X).items():
        assert torch.equal(value, body[name])
    without = small_chrombpnet(with_bias=False).eval()
    without.load_state_dict(model.state_dict())
    for name, value in without(X).items():
        assert torch.equal(value, body[name])


def test_chrombpnet__bias_stays_as_it_was_trained():
    model = small_chrombpnet().train()
    assert model.body.training
    assert not any(m.training for m in model.bias.modules())
    before = {k: v.clone() for k, v in model.bias.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(sequences(127))["counts"].sum().backward()
    optimiser.step()
    assert all(torch.equal(v, before[k]) for k, v in model.bias.state_dict().items())
    assert all(p.grad is None for p in model.bias.parameters())
    alone = BPNet(T, variant="chrombpnet", n_filters=5, n_layers=1, profile_length=13)  # the bias network by itself
    alone(sequences(127))["profile"].square().sum().backward()
    assert all(p.requires_grad for p in alone.parameters())
    model.bias.load_state_dict(alone.state_dict())
    assert torch.equal(model.bias(sequences(127))["profile"], alone.eval()(sequences(127))["profile"])


def test_chrombpnet__calibration_makes_the_mean_log_count_right():
    model, X = small_chrombpnet(), sequences(127, n=11)
    counts = torch.randint(0, 23, (11, T), generator=torch.Generator().manual_seed(1)).float()
    before = model.bias(X)["counts"]
    shift = model.calibrate_bias(X, counts, batch_size=5)
    torch.testing.assert_close(shift, (torch.log1p(counts) - before).mean(0))
    torch.testing.assert_close(model.bias(X)["counts"].mean(0), torch.log1p(counts).mean(0))
    for windows, wrong in ((X, counts[:3]), (X, counts[:, :2]), (X[:0], counts[:0])):
        with pytest.raises(SchemaError, match=r"windows \(B, 4, L\), B ≥ 1, and counts \(B, 7\)"):
            model.calibrate_bias(windows, wrong)
