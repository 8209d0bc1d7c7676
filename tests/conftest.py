"""What every test shares: where the real data sets are, one thread a worker, no display."""

import os
from pathlib import Path

import matplotlib
import pytest
import torch
from hypothesis import HealthCheck, settings

matplotlib.use("Agg")
torch.set_num_threads(1)  # workers share the cores; more threads would wait for each other
# Slow shared machines must not make a property test fail by its clock.
settings.register_profile("ciscribe", deadline=None, max_examples=50, derandomize=True, database=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ciscribe")

ROOT = Path(__file__).resolve().parent.parent


def data_folder() -> Path | None:
    """$CISCRIBE_DATA, or the data folder beside the checkout, or None."""
    named = os.environ.get("CISCRIBE_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of real data and of the GPU where there are none."""
    no_data = data_folder() is None
    no_gpu = not torch.cuda.is_available()
    for item in items:
        if no_data and item.get_closest_marker("realdata"):
            item.add_marker(pytest.mark.skip(reason="no data folder; set CISCRIBE_DATA"))
        if no_gpu and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    """Top folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the public data sets; skips the test where it is absent."""
    folder = data_folder()
    if folder is None:
        pytest.skip("no data folder; set CISCRIBE_DATA")
    return folder
