"""Random checkpoints in the published layouts of language models, and Caduceus as published, slow and plain."""

import json

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

COMPLEMENT = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15]


def caduceus_config(d=5, n_layers=3, d_state=2, rcps=True, fused=True):
    return {"architectures": ["CaduceusForMaskedLM"], "model_type": "caduceus", "d_model": d, "n_layer": n_layers,
            "auto_map": {"AutoModelForMaskedLM": "modeling_caduceus.CaduceusForMaskedLM"},
            "rcps": rcps, "fused_add_norm": fused, "rms_norm": True, "norm_epsilon": 1e-5, "bidirectional": True,
            "bidirectional_strategy": "add", "bidirectional_weight_tie": True, "vocab_size": 16,
            "ssm_cfg": {"d_state": d_state, "d_conv": 4, "expand": 2, "dt_rank": "auto", "bias": False}}


def caduceus_state(config, dtype=torch.float32, seed=0):
    """Tensors with the names and shapes of the published files, every value random."""
    generator = torch.Generator().manual_seed(seed)
    d, n, e, r = config["d_model"], config["ssm_cfg"]["d_state"], 2 * config["d_model"], -(-config["d_model"] // 16)
    sub = ".submodule" if config["rcps"] else ""
    norm = ".submodule" if config["rcps"] and not config["fused_add_norm"] else ""
    embedding = "embedding.weight" if config["rcps"] else "weight"
    shapes = {f"caduceus.backbone.embeddings.word_embeddings.{embedding}": (16, d),
              f"caduceus.backbone.norm_f{norm}.weight": (d,)}
    for i in range(config["n_layer"]):
        layer = f"caduceus.backbone.layers.{i}"
        shapes[f"{layer}.norm{norm}.weight"] = (d,)
        for way in ("mamba_fwd", "mamba_rev"):
            for name, shape in {"in_proj.weight": (2 * e, d), "conv1d.weight": (e, 1, 4), "conv1d.bias": (e,),
                                "x_proj.weight": (r + 2 * n, e), "dt_proj.weight": (e, r), "dt_proj.bias": (e,),
                                "A_log": (e, n), "D": (e,), "out_proj.weight": (d, e)}.items():
                shapes[f"{layer}.mixer{sub}.{way}.{name}"] = shape
    state = {k: 0.5 * torch.randn(shape, generator=generator, dtype=dtype) for k, shape in shapes.items()}
    for name in list(state):
        if ".mamba_rev.in_proj" in name or ".mamba_rev.out_proj" in name:  # tied
            state[name] = state[name.replace("mamba_rev", "mamba_fwd")]
    head = "lm_head.lm_head.weight" if config["rcps"] else "lm_head.weight"
    state[head] = state[f"caduceus.backbone.embeddings.word_embeddings.{embedding}"]
    if config["rcps"]:
        state["lm_head.complement_map"] = torch.tensor(COMPLEMENT)
        state["caduceus.backbone.embeddings.word_embeddings.complement_map"] = torch.tensor(COMPLEMENT)
    return state


def _norm(x, weight):
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight


def _mamba(x, state, prefix):
    w = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    length, n = x.shape[1], w["A_log"].shape[1]
    stream, gate = (x @ w["in_proj.weight"].t()).chunk(2, dim=-1)
    stream = F.conv1d(stream.mT, w["conv1d.weight"], w["conv1d.bias"], padding=3, groups=stream.shape[-1])[..., :length]
    stream = F.silu(stream.mT)
    dt, B, C = (stream @ w["x_proj.weight"].t()).split([w["dt_proj.weight"].shape[1], n, n], dim=-1)
    delta = F.softplus(dt @ w["dt_proj.weight"].t() + w["dt_proj.bias"])
    h, out = torch.zeros(*stream[:, 0].shape, n, dtype=x.dtype), []
    for t in range(length):
        h = torch.exp(-delta[:, t, :, None] * w["A_log"].exp()) * h
        h = h + delta[:, t, :, None] * B[:, t, None] * stream[:, t, :, None]
        out.append((h * C[:, t, None]).sum(-1) + w["D"] * stream[:, t])
    return (torch.stack(out, 1) * F.silu(gate)) @ w["out_proj.weight"].t()


def caduceus_logits(tokens, state, config):
    """Logits (B, L, 16) with the halves stored as in the published code: the second flipped in length and channels."""
    pick = {k.replace(".submodule", "").replace("word_embeddings.embedding", "word_embeddings"): v
            for k, v in state.items()}
    body = "caduceus.backbone"
    embedding, final = pick[f"{body}.embeddings.word_embeddings.weight"], pick[f"{body}.norm_f.weight"]

    def mix(x, i):
        prefix = f"{body}.layers.{i}.mixer."
        return _mamba(x, pick, prefix + "mamba_fwd.") + _mamba(x.flip(1), pick, prefix + "mamba_rev.").flip(1)

    if not config["rcps"]:
        hidden, residual = embedding[tokens], 0
        for i in range(config["n_layer"]):
            residual = residual + hidden
            hidden = mix(_norm(residual, pick[f"{body}.layers.{i}.norm.weight"]), i)
        return _norm(hidden + residual, final) @ embedding.t()
    complement = torch.tensor(COMPLEMENT)
    a, b = embedding[tokens], embedding[complement[tokens.flip(1)]].flip(1, 2)
    ra, rb = torch.zeros_like(a), torch.zeros_like(b)
    for i in range(config["n_layer"]):
        weight = pick[f"{body}.layers.{i}.norm.weight"]
        first, second = (b + rb, a + ra) if config["fused_add_norm"] else (a + ra, b + rb)
        ra, rb = first, second
        a = mix(_norm(first, weight), i)
        b = mix(_norm(second.flip(1, 2), weight), i).flip(1, 2)
    a, b = _norm(a + ra, final), _norm((b + rb).flip(1, 2), final).flip(1, 2)
    return a @ embedding.t() + b.flip(2) @ embedding[complement].t()


def write_checkpoint(folder, config, state):
    """A folder as on the hub: config.json and model.safetensors, tied tensors saved once more."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: v.clone().contiguous() for k, v in state.items()}, folder / "model.safetensors")
    return folder


ESM = {"model_type": "esm", "architectures": ["EsmForMaskedLM"], "vocab_size": 4105, "mask_token_id": 2,
       "pad_token_id": 1, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 7,
       "max_position_embeddings": 17, "position_embedding_type": "absolute", "token_dropout": False,
       "emb_layer_norm_before": False, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
       "is_folding_model": False, "tie_word_embeddings": False, "torch_dtype": "float32",
       "transformers_version": "4.32.0.dev0"}
