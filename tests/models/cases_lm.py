"""Cases of the language models for the contract test over the registry."""

import torch
from model_case import Case

from ciscribe.oracle import Scalar


class MeanAndMiddle(Scalar):
    """(B, d + 16): the mean embedding, and the logits in the middle."""

    def __call__(self, output):
        middle = output["logits"].shape[2] // 2
        return torch.cat([output["embedding"].mean(dim=2), output["logits"][:, :, middle]], dim=1)


SMALL = {"d_model": 7, "n_layers": 2}
CASES = {
    "caduceus_lm": Case(SMALL | {"d_state": 3}, length=37, n_targets=23, readout=MeanAndMiddle()),
    "caduceus_lm fused": Case(SMALL | {"d_state": 3, "fused_order": True}, length=37, n_targets=23,
                              readout=MeanAndMiddle()),
    "caduceus_lm ph": Case(SMALL | {"expand": 1, "d_conv": 3, "rcps": False, "dropout": 0.1}, length=37, n_targets=23,
                           readout=MeanAndMiddle()),
    "hyenadna": Case(SMALL | {"l_max": 41, "filter_order": 5}, length=37, n_targets=23, readout=MeanAndMiddle()),
    "hyenadna both strands": Case(SMALL | {"l_max": 41, "filter_order": 5, "emb_dim": 7, "d_inner": 11,
                                           "bidirectional": True}, length=37, n_targets=23, readout=MeanAndMiddle()),
}
