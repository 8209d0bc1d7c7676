"""BPNet and ChromBPNet, each option once."""

from model_case import Case

from ciscribe.oracle import Scalar

_SMALL = {"n_targets": 7, "n_filters": 11, "n_layers": 2}
_VALID = {"variant": "2114", "profile_length": 13}
_CHROM = {"n_targets": 7, "n_filters": 11, "n_layers": 2, "bias_filters": 5, "bias_layers": 1, "profile_length": 13}
_EXPONENTIAL = {"first_activation": "exponential"}


def _case(arguments, length, n_targets=7, n_signals=0):
    return Case(arguments | ({"n_signals": n_signals} if n_signals else {}), length=length, n_targets=n_targets,
                n_signals=n_signals, signal_bins=length if n_signals else 0, readout=Scalar("counts"))


CASES = {
    "bpnet": _case(_SMALL, 61, n_targets=14),
    "bpnet control": _case(_SMALL, 61, n_targets=14, n_signals=3),
    "bpnet strandless": _case(_SMALL | {"n_strands": 1, "profile_length": 31}, 61),
    "bpnet exponential": _case(_SMALL | _EXPONENTIAL, 61, n_targets=14),
    "bpnet 2114": _case(_SMALL | _VALID, 127),
    "bpnet 2114 control": _case(_SMALL | _VALID, 127, n_signals=3),
    "bpnet 2114 exponential": _case(_SMALL | _VALID | _EXPONENTIAL, 127),
    "bpnet chrombpnet": _case(_SMALL | {"variant": "chrombpnet"}, 127),
    "chrombpnet": _case(_CHROM, 127),
    "chrombpnet body": _case(_CHROM | {"with_bias": False}, 127),
    "chrombpnet exponential": _case(_CHROM | _EXPONENTIAL, 127),
}
