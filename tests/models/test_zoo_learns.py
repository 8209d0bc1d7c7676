"""Every model of short sequences, in its size for a CPU, learns a planted motif in less than two minutes."""

import time
from contextlib import suppress

import numpy as np
import pytest
import torch

from ciscribe.config import AssayTrainConfig
from ciscribe.data.reporter import reporter_set
from ciscribe.models import registry
from ciscribe.workflow.reporter import build_model, fit_assay, predict_assay, task_of
from planted import planted

N = 2_000
SECONDS = 120
LENGTHS = {"basset": 300, "malinois": 300, "deepsea": 250, "danq": 250, "xpresso": 1_000, "expresnet": 1_000}
RATES = {"deepbind": 0.02, "deepsea": 1e-2}
LONG = ("expecto", "beluga", "seq2exp", "caduceus", "prism", "epinformer")  # of kilobases, or of signals
MODELS = [n for n in registry.names() if registry.card(n).task in ("regression", "classification") and n not in LONG]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_model__learns_a_planted_motif(name):
    length = LENGTHS.get(name, registry.card(name).input_length or 100)
    data = reporter_set(planted(N, length=length, copies=max(1, length // 60)))  # about as dense as in life
    rows = {"train": np.arange(0, 1600), "valid": np.arange(1600, 1800), "test": np.arange(1800, N)}
    arguments = {"n_covariates": 0} if "n_covariates" in registry.arguments(name) else {}
    torch.manual_seed(0)
    model, _ = build_model(name, 1, length, preset="cpu", arguments=arguments)
    plan = AssayTrainConfig(epochs=100, batch_size=32, learning_rate=RATES.get(name, 2e-3), average=0.95,
                            device="cpu", patience=None, n_threads=1)
    start = time.perf_counter()

    class Enough(Exception):
        """The validation says that the motif was found, or the time is up."""

    r = 0.0

    def tell(line):
        nonlocal r
        r = float(line.rsplit(" r ", 1)[1])
        if r > 0.6 or time.perf_counter() - start > SECONDS:
            raise Enough

    with suppress(Enough):
        fit_assay(model, data, rows, "regression", plan, seed=0, tell=tell)
    took = time.perf_counter() - start
    predicted = predict_assay(model, data.codes[rows["test"]], task_of("regression", plan, data.targets), device="cpu")
    assert took < SECONDS
    assert r > 0.6
    assert np.corrcoef(predicted[:, 0], data.targets[rows["test"], 0])[0, 1] > 0.4  # a constant has none
