"""Classifiers and pictures for the tests of studies: which third of the grey scale a picture is in."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

SHADES = ("dark", "grey", "light")
CENTRES = (0.2, 0.5, 0.8)


class Shades(nn.Module):
    """The nearest of three shades; it cannot be told from a picture's mean that it was attacked only a little.

    steep: how fast logits fall with the distance. slow_s: that each look takes.
    """

    def __init__(self, steep: float = 40.0, slow_s: float = 0.0) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor(CENTRES))
        self.steep, self.slow_s = steep, slow_s

    def forward(self, pictures: Tensor) -> Tensor:
        """Float [n, 3, h, w] to logits [n, 3]."""
        time.sleep(self.slow_s)
        return -self.steep * (pictures.mean(dim=(1, 2, 3))[:, None] - self.centres) ** 2


def shades(steep: float = 40.0, slow_s: float = 0.0) -> tuple[nn.Module, tuple[str, ...]]:
    return Shades(steep, slow_s), SHADES


def shades_of_more(extra: int = 1) -> tuple[nn.Module, tuple[str, ...]]:
    """A network with fewer outputs than names."""
    return Shades(), (*SHADES, *("more" for _ in range(extra)))


def animals() -> tuple[nn.Module, tuple[str, ...]]:
    return Shades(), ("cat", "dog", "bird")


def turned() -> tuple[nn.Module, tuple[str, ...]]:
    """The same names in another order."""
    return Shades(), SHADES[::-1]


def no_module() -> tuple[object, tuple[str, ...]]:
    return object(), SHADES


def shaded_pictures(folder: Path, each: int = 3) -> Path:
    """8x8 pictures, each shade in a folder of its own."""
    stream = np.random.default_rng(0)
    for name, centre in zip(SHADES, CENTRES, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            level = stream.normal(255 * centre, 6, (8, 8, 3)).clip(0, 255)
            Image.fromarray(level.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


STUDY = """
name = "shades"
seed = 3
pictures = 0
radii = [0.0, 0.05]
note = "A note."

[data]
source = "pictures"

[[classifiers]]
name = "net"
network = "tests.redteam.study_nets:shades"

[[classifiers]]
name = "steeper"
network = "tests.redteam.study_nets:shades"
steep = 60.0

[[defences]]
name = "none"
classifiers = ["net", "steeper"]

[[defences]]
name = "blur"
classifiers = ["net"]
denoiser = "gaussian:1"

[[defences]]
name = "smoothing"
classifiers = ["net"]
denoiser = "median:3"
smoothing = { sigma = 0.1, votes = 9, n0 = 5, n = 40, copies = 2, certify_pictures = 3 }

[[attacks]]
name = "far"
attack = "eot-pgd"
norm = "l2"
eps = 5.0
options = { steps = 3 }
made_on = "none/net"

[[attacks]]
name = "near"
attack = "eot-pgd"
norm = "l2"
eps = 0.05
options = { steps = 3 }

[[attacks]]
name = "aimed"
attack = "descend"
aims = true
rounded = false
options = { step = 0.4, steps = 40 }
defences = ["none", "blur"]
"""
