"""Relative attention, its positions, attention pooling and recomputation beside slow twins."""

import pytest
import torch
from torch import nn

from ciscribe.nn.attention import (
    AttentionPool,
    RelativeAttention,
    Transformer,
    TransformerBlock,
    borzoi_positions,
    enformer_positions,
    recompute,
    relative_shift,
)
from reference import attention as twin

B, N, D, HEADS, KEY, VALUE = 2, 7, 11, 3, 5, 13
TABLES = {"enformer": (enformer_positions, twin.enformer_table), "borzoi": (borzoi_positions, twin.borzoi_table)}
SIZES = {"n_heads": HEADS, "key_size": KEY, "value_size": VALUE}


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def randomized(module):
    """All parameters drawn, so that nothing is zero; float64."""
    module = module.double()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(draw(*p.shape, seed=i) * 0.5)
    return module


@pytest.mark.parametrize("n", [1, 2, 7])
def test_relative_shift__gives_j_minus_i(n):
    distances = torch.arange(1 - n, n).double().expand(B, HEADS, n, 2 * n - 1)
    position = torch.arange(n).double()
    expected = (position[None, :] - position[:, None]).expand(B, HEADS, n, n)
    assert torch.equal(relative_shift(distances), expected)


def test_relative_shift__keeps_rows_apart():
    x = draw(N, 2 * N - 1)
    shifted = relative_shift(x)
    for i in range(N):
        assert torch.equal(shifted[i], x[i, N - 1 - i:2 * N - 1 - i])


@pytest.mark.parametrize("n", [17, 384, 1536])
def test_enformer_positions__every_gamma_column_peaks_at_one_over_positions(n):
    features = enformer_positions(n, 192)
    assert features.shape == (2 * n - 1, 192)
    assert features.dtype == torch.float64
    gamma = features[:, 64:96]
    torch.testing.assert_close(gamma.amax(dim=0), torch.ones(32, dtype=torch.float64), rtol=0, atol=0)
    assert not torch.allclose(gamma.amax(dim=1), torch.ones(2 * n - 1, dtype=torch.float64))  # not over features


@pytest.mark.parametrize(("positions", "n_features"), [("enformer", 18), ("borzoi", 10)])
def test_positions__equal_the_slow_twin(positions, n_features):
    ours, theirs = TABLES[positions]
    n = 37
    table = theirs(n, n_features)
    expected = torch.tensor([table[d] for d in range(1 - n, n)], dtype=torch.float64)
    torch.testing.assert_close(ours(n, n_features), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("positions", ["enformer", "borzoi"])
def test_positions__half_symmetric_half_signed(positions):
    features = TABLES[positions][0](N, 12)
    assert torch.equal(features[:, :6], features[:, :6].flip(0))
    assert torch.equal(features[:, 6:], -features[:, 6:].flip(0))
    assert torch.equal(features[N:, 6:], features[N:, :6])
    assert features[N - 1, 6:].abs().sum() == 0  # no sign at distance 0


def test_borzoi_positions__the_widest_mask_covers_all_and_the_narrowest_one_token():
    features = borzoi_positions(4096, 32)
    assert bool((features[:, 15] == 1).all())
    assert features[:, 0].sum() == 1


def test_positions__refuse_numbers_that_do_not_divide():
    with pytest.raises(ValueError, match="multiple of 6; got 16"):
        enformer_positions(N, 16)
    with pytest.raises(ValueError, match="even number; got 7"):
        borzoi_positions(N, 7)


def test_attention_pool__without_weights_is_the_mean():
    pool = AttentionPool(D).double()
    nn.init.zeros_(pool.mix.weight)
    x = draw(B, D, 2 * N)
    torch.testing.assert_close(pool(x), x.unflatten(2, (N, 2)).mean(dim=3))


def test_attention_pool__starts_at_twice_the_identity_and_equals_the_slow_twin():
    pool = AttentionPool(D).double()
    assert torch.equal(pool.mix.weight, 2 * torch.eye(D).double())
    x = draw(B, D, 2 * N)
    first = (x.unflatten(2, (N, 2)) * (2 * x).unflatten(2, (N, 2)).softmax(dim=3)).sum(dim=3)
    torch.testing.assert_close(pool(x), first)
    pool = randomized(pool)
    expected = torch.stack([twin.attention_pool(one, pool.mix.weight.detach()) for one in x])
    torch.testing.assert_close(pool(x), expected)


def test_attention_pool__stays_in_full_precision_under_autocast():
    pool = AttentionPool(D)
    x = 100 * draw(B, D, 2 * N, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool(x)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, pool(x))


def test_attention_pool__refuses_an_odd_length():
    with pytest.raises(ValueError, match="even length; got 7"):
        AttentionPool(D)(torch.zeros(B, D, 7))


@pytest.mark.parametrize(("positions", "n_features"), [("enformer", 12), ("borzoi", 10)])
def test_relative_attention__equals_the_slow_twin(positions, n_features):
    attention = randomized(RelativeAttention(D, n_positions=n_features, **SIZES)).eval()
    ours, theirs = TABLES[positions]
    x = draw(B, N, D, seed=99)
    out, weights = attention(x, ours(N, n_features))
    for one, out_one, weights_one in zip(x, out, weights, strict=True):
        expected, expected_weights = twin.attention(
            one, theirs(N, n_features), attention.query.weight, attention.key.weight, attention.value.weight,
            attention.position.weight, attention.content_bias, attention.position_bias, attention.output.weight,
            attention.output.bias, HEADS)
        torch.testing.assert_close(out_one, expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(weights_one, expected_weights, rtol=1e-9, atol=1e-10)


def test_relative_attention__adds_nothing_at_first():
    torch.manual_seed(0)
    attention = RelativeAttention(D, n_positions=6, **SIZES)
    out, weights = attention(draw(B, N, D, dtype=torch.float32), enformer_positions(N, 6).float())
    assert out.abs().max() == 0
    assert weights.std() > 0
    assert 0.5 < attention.content_bias.std() * (HEADS / 2) ** 0.5 < 1.5


def test_transformer_block__adds_attention_then_the_mlp():
    block = randomized(TransformerBlock(D, n_positions=6, dropout=0.3, norm_eps=1e-3, **SIZES)).eval()
    x, positions = draw(B, N, D, seed=99), enformer_positions(N, 6)
    attended = x + block.attention(nn.functional.layer_norm(x, (D,), block.norm.weight, block.norm.bias, 1e-3),
                                   positions)[0]
    first, second = block.mlp[1], block.mlp[4]
    normed = nn.functional.layer_norm(attended, (D,), block.mlp[0].weight, block.mlp[0].bias, 1e-3)
    expected = attended + second(first(normed).clamp(min=0))
    torch.testing.assert_close(block(x, positions), expected)
    assert first.out_features == 2 * D


def transformer(**options):
    return randomized(Transformer(D, 2, positions="enformer", n_positions=12, dropout=0.3, **SIZES, **options))


def test_transformer__reads_any_number_of_tokens_and_saves_no_positions():
    model = transformer().eval()
    before = set(model.state_dict())
    for n in (1, 5, 17):
        assert model(draw(B, n, D)).shape == (B, n, D)
    assert set(model.state_dict()) == before == {name for name, _ in model.named_parameters()}


def test_transformer__weights_of_every_layer():
    model = transformer().eval()
    x = draw(B, N, D, seed=99)
    weights = model.weights(x, per_head=True)
    assert weights.shape == (B, 2, HEADS, N, N)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(B, 2, HEADS, N, dtype=torch.float64))
    torch.testing.assert_close(model.weights(x), weights.mean(dim=2))
    second = model.blocks[1].attend(model.blocks[0](x, enformer_positions(N, 12)), enformer_positions(N, 12))[1]
    torch.testing.assert_close(weights[:, 1], second)


def test_transformer__checkpointing_changes_no_number():
    x = draw(B, N, D, seed=99)
    found = {}
    for checkpointing in (False, True):
        model = transformer(checkpointing=checkpointing)
        torch.manual_seed(3)  # dropout is drawn again in the backward pass
        y = model(x)
        found[checkpointing] = [y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))]
    for plain, again in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(plain, again, rtol=0, atol=0)


def test_recompute__counts_a_batch_once_and_goes_back_twice():
    def network():
        return randomized(nn.Sequential(nn.Conv1d(4, D, 3), nn.BatchNorm1d(D), nn.ReLU(), nn.Dropout(0.3)))

    X = draw(B, 4, 23)
    plain, again = network(), network()
    torch.manual_seed(3)
    y = plain(X)
    torch.manual_seed(3)
    z = recompute(again, X)
    assert torch.equal(y, z)
    for keep in (True, False):
        gradients = [torch.autograd.grad(out.square().sum(), list(net.parameters()), retain_graph=keep)
                     for out, net in ((y, plain), (z, again))]
        for a, b in zip(*gradients, strict=True):
            assert torch.equal(a, b)
    assert again[1].num_batches_tracked == 1
    assert again[1].momentum == 0.1
    for (name, a), b in zip(plain.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_recompute__keeps_the_inputs_only():
    held = []

    def note(x):
        held.append(x.numel())
        return x

    network, X = nn.Sequential(nn.Linear(D, 101), nn.Tanh(), nn.Linear(101, 3)), draw(B, D, dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        network(X)
        plain = sum(held)
        held.clear()
        recompute(network, X)
    assert sum(held) < plain / 10
