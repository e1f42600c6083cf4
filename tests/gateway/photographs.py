"""A CIFAR-10 network as a vendor may have one, and a photograph that its gradients have changed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from denoiser_training.config import SurrogateSettings
from denoiser_training.surrogates import load_surrogate
from smoothing_proxy.images import pixels

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Pixels: TypeAlias = npt.NDArray[np.uint8]

SIDE = 32
TIMES = 3
"""A photograph is sent so many times as large, since the vendor takes none below 80 px."""

L2 = 0.15
"""Of the change, [0, 1] pixel scale at 32 x 32, before it is rounded to 8 bits."""


def resnet(shared: Path) -> torch.nn.Module:
    """resnet56, which took no part in the training of the denoiser."""
    weights = shared / "cifar10-classifiers" / "resnet56.safetensors"
    settings = SurrogateSettings(name="resnet56", network="cifar-resnet", weights=weights)
    return load_surrogate(settings).eval()


def photograph(shared: Path, name: str) -> Pixels:
    """uint8 [32, 32, 3] out of the test pictures."""
    with zipfile.ZipFile(shared / "cifar10-jpeg" / "test.zip") as archive:
        return pixels.decode(archive.read(name))


def enlarged(picture: Pixels) -> Pixels:
    """Each pixel as a square of 3 x 3."""
    return picture.repeat(TIMES, axis=0).repeat(TIMES, axis=1)


def classify(network: torch.nn.Module, pictures: Pixels) -> list[str]:
    """The vendor's answers to uint8 [n, h, w, 3]: the middle pixel of each of 32 x 32 cells is seen."""
    height, width = pictures.shape[1:3]
    middle = np.arange(SIDE) * 2 + 1
    small = pictures[:, (middle * height // (2 * SIDE))[:, np.newaxis], middle * width // (2 * SIDE)]
    with torch.no_grad():
        return [NAMES[int(best)] for best in network(_tensor(small)).argmax(1)]


def attacked(network: torch.nn.Module, picture: Pixels, label: int) -> Pixels:
    """The picture, changed by projected gradient ascent on how far another label is ahead (Madry et al. 2018)."""
    clean = _tensor(picture[np.newaxis])
    change = torch.zeros_like(clean)
    for _ in range(30):
        change.requires_grad_()
        (slope,) = torch.autograd.grad(_lead_of_others(network(clean + change)[0], label), change)
        change = change.detach() + L2 / 6 * slope / slope.norm().clamp(min=1e-12)
        change = change * min(1.0, L2 / float(change.norm()))
        change = (clean + change).clamp(0.0, 1.0) - clean
    moved = ((clean + change)[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
    return moved.contiguous().numpy()


def _lead_of_others(scores: torch.Tensor, label: int) -> torch.Tensor:
    others = torch.cat([scores[:label], scores[label + 1 :]])
    return others.max() - scores[label]


def _tensor(pictures: Pixels) -> torch.Tensor:
    return torch.tensor(pictures).permute(0, 3, 1, 2).float() / 255.0
