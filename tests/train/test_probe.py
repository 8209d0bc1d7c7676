"""Embeddings, heads on top of them, and likelihoods of language models."""

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError
from ciscribe.models.caduceus_lm import CaduceusLM
from ciscribe.models.hyenadna import HyenaDNA
from ciscribe.oracle import Oracle
from ciscribe.sequence import one_hot_tensor
from ciscribe.train.probe import Probe, causal_log_likelihood, embed, fit_probe, masked_log_likelihood

N, L, D = 5, 29, 7
CODES = torch.randint(0, 4, (N, L), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def caduceus(**arguments):
    torch.manual_seed(0)
    model = CaduceusLM(D, 2, d_state=3, **arguments)
    nn.init.normal_(model.word_embeddings)
    return model


def hyena():
    torch.manual_seed(0)
    model = HyenaDNA(D, 2, l_max=31, filter_order=5)
    nn.init.normal_(model.word_embeddings)
    return model


@pytest.mark.parametrize("pool", ["mean", "max", "center"])
def test_embed__pools_what_the_model_gives(pool):
    model = caduceus()
    H = model.eval()(one_hot_tensor(CODES))["embedding"].detach()
    expected = {"mean": H.mean(2), "max": H.max(2).values, "center": H[:, :, 14]}[pool]
    model.train()
    for source in (model, Oracle(model, device="cpu")):
        got = embed(source, CODES, pool=pool, batch_size=2, device="cpu")
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert model.training


def test_embed__by_the_method_of_a_model_of_tracks():
    class Tracks(nn.Module):
        def embed(self, X):
            return X.repeat(1, 2, 1)[:, :D]

        def forward(self, X):
            raise AssertionError("the heads are not needed")

    got = embed(Tracks(), CODES, device="cpu")
    assert got.shape == (N, D)
    np.testing.assert_allclose(got[:, 0], (CODES == 0).float().mean(1), rtol=1e-6)


def test_embed__refuses():
    with pytest.raises(SchemaError, match="Sequential gives no embedding"):
        embed(nn.Sequential(nn.Flatten(), nn.Linear(4 * L, 3)), CODES, device="cpu")
    with pytest.raises(SchemaError, match="pool is one of mean, max, center; got 'min'"):
        embed(caduceus(), CODES, pool="min")


def made_up(n=211, d=13, seed=0):
    rng = np.random.default_rng(seed)
    E = rng.normal(3, 2, (n, d)) * np.logspace(-2, 2, d)
    z = (E - E.mean(0)) / E.std(0)
    return E, z, rng


def test_fit_probe__ridge_finds_a_line_and_distrusts_noise():
    E, z, rng = made_up()
    Y = np.stack([z @ rng.normal(size=13) + 5, rng.normal(size=211)], axis=1)
    truth = Y[:, 0].copy()
    Y[::7, 0] = np.nan
    probe = fit_probe(E, Y, seed=3)
    assert isinstance(probe, Probe)
    assert probe.predict(E).shape == (211, 2)
    np.testing.assert_allclose(probe.predict(E)[:, 0], truth, atol=0.05)  # also where it was not measured
    assert probe.penalties[1] > 100 * probe.penalties[0]


def test_fit_probe__mlp_finds_a_curve_that_ridge_cannot():
    E, z, _ = made_up(331, 2)
    y = z[:, 0] ** 2 - z[:, 1] ** 2
    train, test = np.arange(331) < 251, np.arange(331) >= 251
    r = {}
    for kind in ("ridge", "mlp"):
        probe = fit_probe(E[train], y[train], kind, folds=2, seed=1)
        r[kind] = np.corrcoef(probe.predict(E[test])[:, 0], y[test])[0, 1]
        np.testing.assert_array_equal(fit_probe(E[train], y[train], kind, folds=2, seed=1).predict(E[test]),
                                      probe.predict(E[test]))
    assert r["mlp"] > 0.8
    assert r["ridge"] < 0.4


def test_fit_probe__groups_are_never_divided():
    """Every group has its own level and its own features: across groups nothing is to be learned."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(23), 11)
    E = rng.normal(size=(23, 40))[groups] + 0.01 * rng.normal(size=(253, 40))
    y = rng.normal(size=23)[groups] + 0.01 * rng.normal(size=253)
    apart = fit_probe(E, y, groups=groups.astype(str))
    mixed = fit_probe(E, y)
    assert apart.penalties[0] > 100 * mixed.penalties[0]


def test_fit_probe__refuses():
    E, z, _ = made_up(41)
    with pytest.raises(SchemaError, match="41 embeddings, 40 measurements; one of each"):
        fit_probe(E, z[:40, 0])
    with pytest.raises(SchemaError, match="and 3 groups"):
        fit_probe(E, z[:, 0], groups=["a", "b", "c"])
    with pytest.raises(SchemaError, match="measured in 2 groups; 5 folds need as many"):
        fit_probe(E, z[:, 0], groups=["a"] * 20 + ["b"] * 21)
    with pytest.raises(SchemaError, match=r"target 1 is constant \(2\) in its 41 rows"):
        fit_probe(E, np.stack([z[:, 0], np.full(41, 2.0)], axis=1))
    bad = E.copy()
    bad[[7, 11], 3] = np.inf
    with pytest.raises(SchemaError, match="2 embeddings are not finite; first: row 7"):
        fit_probe(bad, z[:, 0])
    with pytest.raises(SchemaError, match="ridge or mlp; got 'svm'"):
        fit_probe(E, z[:, 0], "svm")


def test_masked_log_likelihood__sums_one_hidden_base_at_a_time():
    model = caduceus().eval()
    codes = CODES.clone()
    codes[1, 3] = 4  # N, not scored
    X = one_hot_tensor(codes)
    expected = torch.zeros(N)
    for i in (3, 11, 2):
        mask = torch.zeros(N, L, dtype=torch.bool)
        mask[:, i] = True
        log_p = model(X, mask=mask)["logits"].detach()[:, :, i].log_softmax(1)
        for n in range(N):
            if codes[n, i] < 4:
                expected[n] += log_p[n, 7 + int(codes[n, i])]
    got = masked_log_likelihood(model, codes, positions=[3, 11, 2], batch_size=2, device="cpu")
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    whole = masked_log_likelihood(Oracle(model, device="cpu"), codes)
    single = sum(masked_log_likelihood(model, codes, positions=[i], device="cpu") for i in range(L))
    np.testing.assert_allclose(whole, single, rtol=1e-5)
    assert (whole < got).all()


def test_masked_log_likelihood__several_at_once_is_near_and_cheaper():
    model, calls = caduceus().eval(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    exact = masked_log_likelihood(model, CODES, device="cpu")
    assert len(calls) == L
    calls.clear()
    near = masked_log_likelihood(model, CODES, at_once=4, device="cpu")
    assert len(calls) == 8
    assert not np.allclose(near, exact)
    np.testing.assert_allclose(near, exact, rtol=0.2)


def test_causal_log_likelihood__is_the_chain_rule():
    model = hyena().eval()
    codes = CODES.clone()
    codes[2, 7] = 4
    logits = model(one_hot_tensor(codes))["logits"].detach().log_softmax(1)
    expected = [sum(float(logits[n, 7 + int(codes[n, i]), i - 1]) for i in range(1, L) if codes[n, i] < 4)
                for n in range(N)]
    np.testing.assert_allclose(causal_log_likelihood(model, codes, device="cpu"), expected, rtol=1e-5)


def test_log_likelihoods__refuse():
    with pytest.raises(SchemaError, match="HyenaDNA is a causal language model; use causal_log_likelihood"):
        masked_log_likelihood(hyena(), CODES)
    with pytest.raises(SchemaError, match="CaduceusLM is a masked language model; use masked_log_likelihood"):
        causal_log_likelihood(caduceus(), CODES)
    with pytest.raises(SchemaError, match="Linear is no language model"):
        causal_log_likelihood(nn.Linear(3, 2), CODES)
    with pytest.raises(SchemaError, match="positions count tokens from 0 to 28; got 0 to 29"):
        masked_log_likelihood(caduceus(), CODES, positions=[0, 29], device="cpu")
    with pytest.raises(SchemaError, match="at_once is at least 1"):
        masked_log_likelihood(caduceus(), CODES, at_once=0, device="cpu")
