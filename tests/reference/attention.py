"""Slow twins of the attention, of Enformer and of Borzoi: pair by pair, straight from the description.

The two networks read tensors under the names of the published PyTorch ports, so that they check the mapping of names
and our modules at once. Evaluation mode only.
"""

import math

import torch
from torch.nn import functional as F


def enformer_features(distance, n, n_features):
    """Features of one distance, before the division of the gamma densities by their maximum; list of floats."""
    f, a = n_features // 6, abs(distance)
    step = (math.log2(n) - 3) / (f - 1)
    exponential = [0.5 ** (a / 2 ** (3 + step * i)) for i in range(f)]
    central = [float(2 ** (i + 1) - 1 > a) for i in range(f)]
    gamma = []
    for i in range(f):
        mean, sd = n / f + (n - n / f) * i / (f - 1), n / (2 * f)
        c, b = (mean / sd) ** 2, mean / sd**2
        log_pdf = (c - 1) * math.log(a) - b * a - math.lgamma(c) + c * math.log(b) if a else -math.inf
        gamma.append(math.exp(log_pdf) + 1e-8)
    return exponential, central, gamma


def enformer_table(n, n_features):
    """``{distance: list}`` for all distances of n tokens."""
    raw = {d: enformer_features(d, n, n_features) for d in range(1 - n, n)}
    peak = [max(raw[d][2][i] for d in raw) for i in range(n_features // 6)]
    table = {}
    for d, (exponential, central, gamma) in raw.items():
        row = exponential + central + [g / p for g, p in zip(gamma, peak, strict=True)]
        table[d] = row + [(d > 0) * v - (d < 0) * v for v in row]
    return table


def borzoi_table(n, n_features):
    """As `enformer_table`, Borzoi's features."""
    f, table = n_features // 2, {}
    for d in range(1 - n, n):
        row = [float((n + 1) ** ((i + 1) / f) - 1 > abs(d)) for i in range(f)]
        table[d] = row + [(d > 0) * v - (d < 0) * v for v in row]
    return table


def attention(x, table, to_q, to_k, to_v, to_rel_k, u, v, to_out, bias, n_heads):
    """One sequence ``(n, d)``: output ``(n, d)`` and weights ``(heads, n, n)``."""
    n = len(x)
    key, value = len(to_q) // n_heads, len(to_v) // n_heads
    weights = torch.zeros(n_heads, n, n, dtype=x.dtype)
    joined = torch.zeros(n, n_heads * value, dtype=x.dtype)
    for h in range(n_heads):
        rows, out = slice(h * key, (h + 1) * key), slice(h * value, (h + 1) * value)
        for i in range(n):
            q = to_q[rows] @ x[i] * key**-0.5
            logits = []
            for j in range(n):
                r = to_rel_k[rows] @ torch.tensor(table[j - i], dtype=x.dtype)
                logits.append((q + u[0, h, 0]) @ (to_k[rows] @ x[j]) + (q + v[0, h, 0]) @ r)
            weights[h, i] = torch.stack(logits).softmax(dim=0)
            joined[i, out] = sum(weights[h, i, j] * (to_v[out] @ x[j]) for j in range(n))
    return joined @ to_out.T + bias, weights


def attention_pool(x, W):
    """``(C, L)`` to ``(C, L / 2)`` by a softmax over each pair."""
    C, L = x.shape
    out = torch.zeros(C, L // 2, dtype=x.dtype)
    for p in range(L // 2):
        pair = x[:, 2 * p:2 * p + 2]
        out[:, p] = (pair * (W @ pair).softmax(dim=1)).sum(dim=1)
    return out


def _transformer(x, state, table, n_heads, eps):
    layer = 0
    while f"transformer.{layer}.0.fn.0.weight" in state:
        a, m = f"transformer.{layer}.0.fn.", f"transformer.{layer}.1.fn."
        normed = F.layer_norm(x, x.shape[-1:], state[a + "0.weight"], state[a + "0.bias"], eps)
        part = {k: state[f"{a}1.{k}.weight"] for k in ("to_q", "to_k", "to_v", "to_rel_k", "to_out")}
        x = x + attention(normed, table, u=state[a + "1.rel_content_bias"], v=state[a + "1.rel_pos_bias"],
                          bias=state[a + "1.to_out.bias"], n_heads=n_heads, **part)[0]
        hidden = F.layer_norm(x, x.shape[-1:], state[m + "0.weight"], state[m + "0.bias"], eps)
        hidden = (hidden @ state[m + "1.weight"].T + state[m + "1.bias"]).relu()
        x = x + hidden @ state[m + "4.weight"].T + state[m + "4.bias"]
        layer += 1
    return x


def _conv_block(x, state, norm, conv, gelu, eps):
    x = F.batch_norm(x, state[norm + "running_mean"], state[norm + "running_var"], state[norm + "weight"],
                     state[norm + "bias"], eps=eps)
    weight = state[conv + "weight"]
    return F.conv1d(gelu(x), weight, state[conv + "bias"], padding=weight.shape[-1] // 2)


def enformer(X, state, n_heads, crop, organism):
    """Tracks ``(1, T, bins)`` of one sequence ``(1, 4, L)``."""
    def gelu(x):
        return x / (1 + (-1.702 * x).exp())

    def stage(x, point, pool):
        x = x + _conv_block(x, state, point + "0.", point + "2.", gelu, 1e-5)
        return attention_pool(x[0], state[pool][:, :, 0, 0])[None]

    x = F.conv1d(X, state["stem.0.weight"], state["stem.0.bias"], padding=7)
    x = stage(x, "stem.1.fn.", "stem.2.to_attn_logits.weight")
    i = 0
    while f"conv_tower.{i}.0.0.weight" in state:
        tower = f"conv_tower.{i}."
        x = _conv_block(x, state, tower + "0.0.", tower + "0.2.", gelu, 1e-5)
        x = stage(x, tower + "1.fn.", tower + "2.to_attn_logits.weight")
        i += 1
    table = enformer_table(x.shape[2], state["transformer.0.0.fn.1.to_rel_k.weight"].shape[1])
    H = _transformer(x[0].T, state, table, n_heads, 1e-5)[crop:-crop]
    H = gelu(_conv_block(H.T[None], state, "final_pointwise.1.0.", "final_pointwise.1.2.", gelu, 1e-5))
    head = f"_heads.{organism}.0."
    return F.softplus(H[0].T @ state[head + "weight"].T + state[head + "bias"]).T[None]


def borzoi(X, state, n_heads, crop, organism):
    """Tracks ``(1, T, bins)`` of one sequence ``(1, 4, L)``."""
    def gelu(x):
        return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())

    def block(x, name):
        return _conv_block(x, state, name + ".norm.", name + ".conv_layer.", gelu, 1e-3)

    def up(x, skip, which):
        below, beside = block(x, f"upsampling_unet{which}.0"), block(skip, f"horizontal_conv{which}")
        x = torch.stack([below, below], dim=3).flatten(2) + beside
        depthwise, pointwise = f"separable{which}.conv_layer.0.", f"separable{which}.conv_layer.1."
        x = F.conv1d(x, state[depthwise + "weight"], padding=1, groups=x.shape[1])
        return F.conv1d(x, state[pointwise + "weight"], state[pointwise + "bias"])

    x = F.conv1d(X, state["conv_dna.conv_layer.weight"], state["conv_dna.conv_layer.bias"], padding=7)
    i = 0
    while f"res_tower.{i}.norm.weight" in state:
        x = block(F.max_pool1d(x, 2), f"res_tower.{i}")
        i += 2
    bins = x
    half = block(F.max_pool1d(bins, 2), "unet1.1")
    tokens = F.max_pool1d(half, 2)[0].T
    table = borzoi_table(len(tokens), state["transformer.0.0.fn.1.to_rel_k.weight"].shape[1])
    x = up(_transformer(tokens, state, table, n_heads, 1e-3).T[None], half, 1)
    x = up(x, bins, 0)[:, :, crop:-crop]
    x = gelu(block(x, "final_joined_convs.0"))
    return F.softplus(F.conv1d(x, state[f"{organism}_head.weight"], state[f"{organism}_head.bias"]))
