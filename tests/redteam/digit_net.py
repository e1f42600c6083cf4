"""A small network that knows the demo's digits, and the digits to attack it with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from smoothing_proxy.demo.digits import TEST_EVERY
from smoothing_proxy.redteam.grid import Pictures
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.targets import GradientTarget, Int64

CLASSES = tuple("0123456789")


FEATURES = 384


@cache
def digit_module() -> nn.Module:
    """float32 [n, 3, 8, 8] in [0, 1] to 10 logits: random features, and the readout of them with least squares."""
    pictures, labels = _digits()
    training = np.arange(len(labels)) % TEST_EVERY != 0
    stream = torch.Generator().manual_seed(0)
    hidden, readout = nn.Linear(192, FEATURES), nn.Linear(FEATURES, 10)
    hidden.weight.data = torch.randn(FEATURES, 192, generator=stream) / 12
    hidden.bias.data = torch.randn(FEATURES, generator=stream) / 2
    seen = torch.relu(hidden(pictures[training].flatten(1))).detach()
    wanted = nn.functional.one_hot(labels[training], 10).float() - 0.1
    weights = torch.linalg.solve(seen.T @ seen + 3.0 * torch.eye(FEATURES), seen.T @ wanted)
    readout.weight.data, readout.bias.data = 12 * weights.T.contiguous(), torch.zeros(10)
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), readout).eval().requires_grad_(False)


def digit_target() -> GradientTarget:
    """The network as attacks see it."""
    return GradientTarget(Network(digit_module(), name="digits", classes=CLASSES))


def test_digits(count: int) -> tuple[Pictures, Int64]:
    """Test digits that the network reads rightly, and their labels."""
    pictures, labels = _digits()
    right = digit_module()(pictures).argmax(dim=1) == labels
    chosen = [i for i in range(0, len(labels), TEST_EVERY) if right[i]][:count]
    return pictures[chosen].numpy(), labels[chosen].numpy()


test_digits.__test__ = False  # type: ignore[attr-defined]


def save_digit_program(path: Path) -> str:
    """The network in a .pt2 file; returns it as `backend` takes it."""
    program = torch.export.export(
        digit_module(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, path)
    return f"local:{path}"


def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    digits = load_digits()
    levels = torch.from_numpy(digits.images * (255 / 16)).round().float() / 255
    return levels[:, None].repeat(1, 3, 1, 1), torch.from_numpy(digits.target)
