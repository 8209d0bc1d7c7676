"""One small instance of a registered model, for the contract test that runs over the whole registry."""

from dataclasses import dataclass, field
from typing import Any

from ciscribe.oracle import Scalar


@dataclass(frozen=True)
class Case:
    """Arguments of the model and the inputs that it reads."""

    arguments: dict[str, Any] = field(default_factory=dict)
    length: int = 61
    n_targets: int = 7  # columns that the readout gives
    n_signals: int = 0
    signal_bins: int = 0
    n_covariates: int = 0
    readout: Any = field(default_factory=Scalar)
