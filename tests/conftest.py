"""Fixtures that every floor's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded


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
