"""Pictures with known noise, and a network that was trained for no time: what the denoisers' tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothing_proxy.denoisers import weights
from smoothing_proxy.denoisers.architectures import build
from smoothing_proxy.denoisers.batches import Pictures


def scene(height: int = 64, width: int = 80) -> Pictures:
    """[1, h, w, 3] on [0, 1]: a shaded sky, a disc and stripes: flat parts, edges and texture."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    disc = (y - 0.35) ** 2 + (x - 0.4) ** 2 < 0.05
    stripes = 0.5 + 0.5 * np.sign(np.sin(40 * x)) * (y > 0.6)
    planes = [np.where(disc, 0.9, 0.3 + 0.4 * y), np.where(disc, 0.6, 0.5 * stripes), np.where(disc, 0.2, 1 - x)]
    return np.stack(planes, axis=-1).astype(np.float32)[None]


def with_noise(clean: Pictures, sigma: float, *, copies: int = 1, seed: int = 0) -> Pictures:
    """[copies, h, w, 3], unclipped."""
    noise = np.random.default_rng(seed).standard_normal((copies, *clean.shape[1:]), dtype=np.float32)
    return clean + np.float32(sigma) * noise


def psnr_db(restored: Pictures, clean: Pictures) -> float:
    return float(-10 * np.log10(np.mean((np.clip(restored, 0, 1) - clean) ** 2)))


@contextmanager
def one_thread() -> Iterator[None]:
    """Small pictures gain nothing from more, and threads that spin while they wait slow down everything else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def provenance(**changes: Any) -> weights.Provenance:
    fields: dict[str, Any] = {
        "name": "tiny",
        "architecture": "unet",
        "options": {"widths": [4, 8], "blocks": 1},
        "sigma_min": 0.1,
        "sigma_max": 0.5,
        "training_data": "none",
        "training_data_license": "CC0-1.0",
        "schedule": "no steps",
        "hardware": "none",
        "steps": 0,
        "seconds": 0.0,
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "license": "Apache-2.0",
    }
    return weights.Provenance(**fields | changes)


def save_untrained(folder: Path, *, dtype: Any = "float32", **changes: Any) -> Path:
    """A card and weights with random weights; the card's path."""
    torch.manual_seed(0)
    described = provenance(**changes)
    network = build(described.architecture, described.options)
    return weights.save(folder, network.state_dict(), described, dtype=dtype)


def rewrite(card: Path, **fields: Any) -> None:
    """Set fields of a card by hand; None deletes one."""
    kept = json.loads(card.read_text()) | fields
    card.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))
