"""Enformer and Borzoi, each option once."""

from model_case import Case

from ciscribe.oracle import WindowSum

_ENFORMER = {"n_targets": 7, "widths": (11, 13, 17), "n_layers": 2, "n_heads": 3, "key_size": 5, "value_size": 7,
             "n_positions": 12, "final_width": 19, "crop": 16}
_BORZOI = {"n_targets": 7, "widths": (11, 13, 17), "d_model": 23, "n_layers": 2, "n_heads": 3, "key_size": 5,
           "value_size": 7, "n_positions": 10, "final_width": 19, "crop": 8}
_BOTH = {"n_targets": {"human": 7, "mouse": 5}}

CASES = {
    "enformer": Case(_ENFORMER, length=88, readout=WindowSum()),
    "enformer both": Case(_ENFORMER | _BOTH, length=88, n_targets=5, readout=WindowSum(head="mouse")),
    "enformer checkpointing": Case(_ENFORMER | {"checkpointing": True}, length=88, readout=WindowSum()),
    "borzoi": Case(_BORZOI, length=112, readout=WindowSum()),
    "borzoi both": Case(_BORZOI | _BOTH, length=112, n_targets=5, readout=WindowSum(head="mouse")),
    "borzoi checkpointing": Case(_BORZOI | {"checkpointing": True}, length=112, readout=WindowSum()),
}
