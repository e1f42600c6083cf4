"""A classifier's card and weights that no training made."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import torch

from denoiser_training.classifier_card import save_classifier
from denoiser_training.networks import CifarResNet


def saved(folder: Path) -> Path:
    """The card of a cifar-resnet of depth 8 with random weights: three animals, 8x8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CifarResNet(1, 3)
    facts = {
        "name": "animals",
        "network": "cifar-resnet",
        "classes": ("cat", "dog", "eel"),
        "side_px": 8,
        "input_px": 0,
        "training_data": "none",
        "training_data_license": "test",
        "start": "random weights",
        "schedule": "none",
        "figures": {},
        "hardware": "none",
        "steps": 0,
        "seconds": 0.0,
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "license": "Apache-2.0",
        "versions": {},
    }
    return save_classifier(folder, network.state_dict(), facts)
