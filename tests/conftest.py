"""Fixtures that every floor's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

# What an example costs on a busy machine says nothing about the code, and a suite that passes passes again.
# HYPOTHESIS_PROFILE=explore looks for new examples.
patient = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("same", patient, derandomize=True)
hypothesis.settings.register_profile("explore", patient, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pictures and third-party classifiers, where this machine has it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SMOOTHING_PROXY_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set SMOOTHING_PROXY_SHARED_DATA)")
    return folder


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the product does."""
    return "asyncio"
