"""A small case of every registered model, for tests over the whole registry."""

import cases_attention
import cases_bpnet
import cases_lm
import cases_long
import cases_small
import torch
from model_case import Case

from ciscribe.models import registry
from ciscribe.sequence import one_hot_tensor

B, L, S, C, T = 3, 352, 2, 5, 7

_EPINFORMER = {"n_targets": T, "length": 37, "channels": (11, 13, 6), "n_layers": 2, "n_heads": 3}


def _expression(n_signals=S, **changes):
    """Case of the family of Seq2Exp."""
    given = {"n_targets": T, "n_signals": n_signals, "n_covariates": C, "resolution": 16, "d_model": 11, "n_layers": 1,
             "d_state": 3, "expand": 1} | changes
    return Case(given, length=L, n_targets=T, n_signals=n_signals, signal_bins=L // given["resolution"],
                n_covariates=C)


def _graph(n_signals=S, **changes):
    """Case of a graph of 7 nodes."""
    given = {"n_targets": T, "n_signals": n_signals, "n_covariates": C, "resolution": 16, "node_bp": 48, "d_model": 12,
             "n_layers": 2, "n_heads": 3} | changes
    return Case(given, length=L, n_targets=T, n_signals=n_signals, signal_bins=L // 16, n_covariates=C)


def _beacon(n_signals=S, **changes):
    """Case of two levels."""
    given = {"n_targets": T, "n_signals": n_signals, "n_covariates": C, "resolution": 16, "d_model": 11,
             "stem_channels": 13, "n_levels": 2, "n_blocks": 1, "reader_blocks": 1, "include_bp": 32} | changes
    return Case(given, length=L, n_targets=T, n_signals=n_signals, signal_bins=L // 16, n_covariates=C)


CASES = {
    "seq2exp": _expression(), "seq2exp hard": _expression(kind="hard"), "seq2exp base": _expression(resolution=1),
    "seq2exp attention": _expression(pool="attention"), "seq2exp no generator": _expression(use_generator=False),
    "seq2exp no signal branch": _expression(use_signals=False), "seq2exp open": _expression(mask="open"),
    "seq2exp random": _expression(mask="random"), "seq2exp peaks": _expression(mask="peaks"),
    "seq2exp no kl": _expression(use_kl=False),
    "seq2exp published token": _expression(empty_token=False), "caduceus": _expression(n_signals=0),
    "caduceus signals": _expression(), "caduceus base rc": _expression(resolution=1, rc_equivariant=True),
    "beacon": _beacon(), "beacon sequence": _beacon(n_signals=0), "beacon hard": _beacon(kind="hard"),
    "beacon no mask": _beacon(use_mask=False), "beacon no generator": _beacon(use_generator=False),
    "graphreg": _graph(), "graphreg sequence": _graph(n_signals=0),
    "prism": _expression(), "prism 4": _expression(n_confounders=4),
    "epinformer": Case(_EPINFORMER | {"n_signals": S, "n_covariates": C}, length=5 * 37, n_targets=T, n_signals=S,
                       signal_bins=5, n_covariates=C),
    "epinformer sequence": Case(_EPINFORMER | {"n_signals": 0, "n_covariates": 0}, length=3 * 37, n_targets=T),
    **cases_small.CASES, **cases_long.CASES, **cases_bpnet.CASES, **cases_attention.CASES, **cases_lm.CASES,
}


def case(key, **changes):
    """Model, arguments, sequences, and the further inputs by name."""
    of = CASES[key]
    torch.manual_seed(0)
    model = registry.create(key.split()[0], **of.arguments | changes)
    X = one_hot_tensor(torch.randint(0, 5, (B, of.length)))
    extras = {"S": torch.rand(B, of.n_signals, of.signal_bins)} if of.n_signals else {}
    extras |= {"covariates": torch.randn(B, of.n_covariates)} if of.n_covariates else {}
    return model, of.arguments | changes, X, extras
