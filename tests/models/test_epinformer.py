"""EPInformer: sizes, what its slots mean, and what its attention shows."""

import pytest
import torch

from ciscribe.errors import SchemaError
from ciscribe.interpret.attention import attention_weights
from ciscribe.models.epinformer import CARD, PRESETS, EPInformer
from ciscribe.oracle import Oracle
from ciscribe.sequence import one_hot_tensor

B, F, C, T, LENGTH, SLOTS = 3, 2, 5, 7, 37, 11
MIDDLE = SLOTS // 2


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny networks: threads would wait for each other
    yield
    torch.set_num_threads(before)


def small(**changes):
    torch.manual_seed(0)
    given = {"n_targets": T, "n_signals": F, "n_covariates": C, "length": LENGTH, "channels": (13, 11, 6),
             "n_layers": 2, "n_heads": 3} | changes
    return EPInformer(**given).eval()


def inputs(n=SLOTS, seed=1):
    draw = torch.Generator().manual_seed(seed)
    X = one_hot_tensor(torch.randint(0, 4, (B, n * LENGTH), generator=draw))
    return X, torch.randn(B, F, n, generator=draw), torch.randn(B, C, generator=draw)


def segments(X):
    return X.unflatten(-1, (-1, LENGTH))  # a view: B 4 slots LENGTH


def test_parameters__of_the_published_size_and_of_the_preset():
    with torch.device("meta"):
        published, preset = EPInformer(), EPInformer(**PRESETS["cpu"])
    assert sum(p.numel() for p in published.parameters()) == CARD.parameters == 655_489
    assert sum(p.numel() for p in preset.parameters()) == 86_209
    stem, blocks = published.tower[0], published.tower[2:]
    assert (stem.out_channels, stem.kernel_size) == (256, (8,))
    assert [block.main[0].out_channels for block in blocks] == [128, 64, 64, 128]
    assert {block.main[0].kernel_size for block in blocks} == {(3,)}
    assert len(published.layers) == 3
    assert published.layers[0].n_heads == 4


def test_elements__have_no_order():
    model, (X, S, covariates) = small(), inputs()
    order = torch.tensor([3, 9, 0, 1, 10, MIDDLE, 2, 8, 4, 7, 6])
    mixed = segments(X)[:, :, order].flatten(2)
    torch.testing.assert_close(model(mixed, S[..., order], covariates), model(X, S, covariates))
    promoter_moved = torch.roll(S, 1, dims=-1), torch.roll(segments(X), 1, dims=2).flatten(2)
    assert not torch.allclose(model(promoter_moved[1], promoter_moved[0], covariates), model(X, S, covariates))


def test_free_slots__are_not_there():
    model, (X, S, covariates) = small(), inputs()
    few, few_S, _ = (X[..., 3 * LENGTH:-3 * LENGTH], S[..., 3:-3], None)
    padded, features = X.clone(), S.clone()
    segments(padded)[:, :, [0, 1, 2, -3, -2, -1]] = 0
    torch.testing.assert_close(model(padded, features, covariates), model(few, few_S, covariates))
    features[..., 1] += 5
    torch.testing.assert_close(model(padded, features, covariates), model(few, few_S, covariates))
    assert not torch.allclose(model(X, features, covariates), model(X, S, covariates))


def test_keep__takes_an_element_away_but_never_the_promoter():
    model, (X, S, covariates) = small(), inputs()
    keep, without = torch.ones(B, SLOTS), X.clone()
    keep[:, 2] = 0
    segments(without)[:, :, 2] = 0
    torch.testing.assert_close(model(X, S, covariates, keep=keep), model(without, S, covariates))
    keep[:, 2], keep[:, MIDDLE] = 1, 0
    torch.testing.assert_close(model(X, S, covariates, keep=keep), model(X, S, covariates))


def test_attention__rows_sum_to_one_and_free_slots_get_none():
    model, (X, S, _) = small(), inputs()
    segments(X)[1, :, 4] = 0
    weights = model.attention(X, S, per_head=True).detach()
    assert weights.shape == (B, 2, 3, SLOTS, SLOTS)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(B, 2, 3, SLOTS))
    assert float(weights[1, ..., 4].max()) == 0 < float(weights[0, ..., 4].min())
    torch.testing.assert_close(model.attention(X, S), weights.mean(dim=2))


def test_attention__is_what_the_prediction_is_made_of():
    model, (X, S, covariates) = small(), inputs()
    with torch.no_grad():
        for layer in model.layers:
            layer.query.bias.zero_()
            layer.query.weight.zero_()  # all look at all alike
    torch.testing.assert_close(model.attention(X, S), torch.full((B, 2, SLOTS, SLOTS), 1 / SLOTS))
    gradient = torch.autograd.grad(model(X, S.requires_grad_(), covariates).sum(), S)[0]
    assert bool((gradient != 0).all())


def test_attention_weights__reads_a_model_of_sequence_alone():
    model, (X, _, _) = small(n_signals=0, n_covariates=0), inputs()
    array = attention_weights(Oracle(model, device="cpu"), X, batch_size=2)
    assert array.shape == (B, 2, SLOTS, SLOTS)
    assert array["bin"].values.tolist() == [i * LENGTH for i in range(SLOTS)]


def test_errors():
    model, (X, S, covariates) = small(), inputs()
    with pytest.raises(SchemaError, match=r"odd number of segments of 37 bp.*got 370 bp"):
        model(X[..., LENGTH:], S[..., 1:], covariates)
    with pytest.raises(SchemaError, match=r"odd number of segments of 37 bp.*got 406 bp"):
        model(X[..., 1:], S, covariates)
    with pytest.raises(SchemaError, match=r"takes 2 features of each of the 11 segments, S \(B, 2, 11\); got none"):
        model(X, None, covariates)
    with pytest.raises(SchemaError, match=r"got \(2, 10\)"):
        model(X, S[..., 1:], covariates)
    with pytest.raises(ValueError, match="length is at least 4 bp; got 3"):
        small(length=3)
    with pytest.raises(ValueError, match="shared out among 4 heads; got 6"):
        small(n_heads=4)


def test_model__learns_which_element_matters():
    draw, motif = torch.Generator().manual_seed(3), torch.tensor([3, 2, 0, 1, 2, 3, 1, 0])

    def genes(n):
        codes = torch.randint(0, 4, (n, 5, LENGTH), generator=draw)
        has, slot = torch.rand(n, generator=draw) < 0.6, torch.tensor([0, 1, 3, 4])[torch.randint(4, (n,),
                                                                                             generator=draw)]
        for i in torch.nonzero(has)[:, 0]:
            codes[i, slot[i], 11:11 + len(motif)] = motif
        return one_hot_tensor(codes.flatten(1)), has, slot

    torch.manual_seed(0)
    model = EPInformer(n_signals=0, n_covariates=0, length=LENGTH, channels=(16, 16, 12), n_layers=1, n_heads=3,
                       dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    X, has, _ = genes(600)
    for step in range(120):
        rows = torch.arange(step * 60, step * 60 + 60) % 600
        optimizer.zero_grad()
        (model(X[rows])[:, 0] - has[rows].float()).square().mean().backward()
        optimizer.step()
    X, has, slot = genes(200)
    oracle = Oracle(model, device="cpu")
    y = oracle.predict(X)[:, 0]
    assert float(torch.corrcoef(torch.stack([y, has.float()]))[0, 1]) > 0.7
    lost = torch.stack([y - oracle.predict(X, keep=(torch.arange(5) != s).float().expand(200, 5))[:, 0]
                        for s in range(5)])
    assert float((lost.argmax(dim=0) == slot)[has].float().mean()) > 0.8
