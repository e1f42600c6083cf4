"""A training run small enough for a test, and pictures on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TINY = """
name = "tiny"
log_every = 3

[data]
source = "digits"
license = "test"
crop_px = 8
flip = false
validation_every = 5
limit = 200

[denoiser]
options = { widths = [8], blocks = 1 }

[noise]
sigma_min = 0.1
sigma_max = 0.5

[optimiser]
batch = 8
lr = 2e-3
warm_up_steps = 5
ema = 0.9

[[phases]]
steps = 20
objective = { mse = 1.0 }

[[phases]]
steps = 20
lr = 1e-3
objective = { soft_stab = 1.0, mse = 100.0 }

[[surrogates]]
name = "mlp"
network = "mlp"
training = { steps = 30, optimiser = { precision = "fp32" } }

[evaluate]
every = 10
pictures = 20

[runtime]
threads = 1
checkpoint_every = 7
samples_every = 0
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A config file that trains in a second or two."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve 12x10 PNG files of noise, in two class sub-folders."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            pixels: Any = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds or leaves decoded pictures in the user's own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
