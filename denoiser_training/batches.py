"""Which pictures a step sees, how they are cut, and the noise on them: all a function of (seed, phase, step).

Nothing here remembers anything, so a resumed run needs the step's number alone to see what it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from denoiser_training.config import NoiseSettings
from denoiser_training.pictures import Pictures
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.noise import GRID_SCALE

__all__ = [
    "COPIES",
    "JUDGE",
    "Batches",
    "Place",
    "add_noise",
    "centre_crops",
    "generator",
    "noise_levels",
    "to_unit",
]

ORDER, CUT, NOISE, JUDGE, COPIES = range(5)
"""What a random stream is for, so that no two uses share one."""


WHOLE = slice(None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where training stands. phase: from 0. step: within the phase, from 0."""

    phase: int
    step: int


@dataclass(frozen=True)
class Batches:
    """Crops of `pictures`, each picture once per epoch in a new order.

    batch: rows per step. crop_px: side of the crops. pad_px: mirrored around a picture first. flip: mirror
    half of the crops. seed: of order and cuts. copies: how often each crop is there, a divisor of batch: row i
    and row i + batch / copies are the same crop.
    """

    pictures: Pictures
    batch: int
    crop_px: int
    pad_px: int
    flip: bool
    seed: int
    copies: int = 1

    @property
    def crops(self) -> int:
        """How many different ones a step has."""
        return self.batch // self.copies

    def __post_init__(self) -> None:
        smallest = self.pictures.smallest_side
        if smallest + 2 * self.pad_px < self.crop_px:
            raise ConfigError(
                f"data: the smallest picture's side is {smallest} px (+ 2 x {self.pad_px} px of padding), the "
                f"crops' is {self.crop_px} px; lower crop_px or remove small pictures"
            )
        if self.pad_px >= smallest:
            raise ConfigError(f"data.pad_px: {self.pad_px} px mirrored around pictures of {smallest} px; lower it")

    def at(self, place: Place, part: slice = WHOLE) -> tuple[Tensor, Tensor | None]:
        """uint8 [n, 3, crop_px, crop_px] and the labels [n], or None, of one step. part: rows of the batch."""
        indices = self._indices(place)
        rng = np.random.default_rng([self.seed, CUT, place.phase, place.step])
        corners = [self._corner(self.pictures.pixels[i], rng) for i in indices]
        flips = rng.random(len(indices)) < 0.5
        indices, flips = np.tile(indices, self.copies)[part], np.tile(flips, self.copies)[part]
        corners = (corners * self.copies)[part]
        crops = torch.stack(
            [self._crop(self.pictures.pixels[i], *at) for i, at in zip(indices, corners, strict=True)]
        )
        if self.flip:
            mirrored = torch.from_numpy(flips).to(crops.device)
            crops = torch.where(mirrored[:, None, None, None], crops.flip(3), crops)
        labels = self.pictures.labels
        return crops, None if labels is None else labels[torch.from_numpy(indices).to(labels.device)]

    def _indices(self, place: Place) -> npt.NDArray[np.int64]:
        """The next `crops` of the phase's endless row of shuffled epochs."""
        positions = place.step * self.crops + np.arange(self.crops)
        epochs, offsets = np.divmod(positions, len(self.pictures))
        orders = {epoch: _order(self.seed, place.phase, int(epoch), len(self.pictures)) for epoch in set(epochs)}
        return np.array([orders[epoch][offset] for epoch, offset in zip(epochs, offsets, strict=True)])

    def _corner(self, picture: Tensor, rng: np.random.Generator) -> tuple[int, int]:
        """Top and left of a crop in the padded picture."""
        height, width = (side + 2 * self.pad_px for side in picture.shape[1:])
        return int(rng.integers(height - self.crop_px + 1)), int(rng.integers(width - self.crop_px + 1))

    def _crop(self, picture: Tensor, top: int, left: int) -> Tensor:
        if self.pad_px:
            padded = functional.pad(picture[None].float(), (self.pad_px,) * 4, mode="reflect")
            picture = padded[0].to(torch.uint8)
        return picture[:, top : top + self.crop_px, left : left + self.crop_px]


def centre_crops(pictures: Pictures, crop_px: int) -> Tensor:
    """uint8 [n, 3, crop_px, crop_px] from the middle of each. Raises ConfigError when one is smaller."""
    if pictures.smallest_side < crop_px:
        raise ConfigError(f"evaluate: a validation picture is smaller than crop_px = {crop_px}")
    cuts = []
    for picture in pictures.pixels:
        top, left = (picture.shape[1] - crop_px) // 2, (picture.shape[2] - crop_px) // 2
        cuts.append(picture[:, top : top + crop_px, left : left + crop_px])
    return torch.stack(cuts)


def generator(device: torch.device, seed: int, place: Place, use: int = NOISE) -> torch.Generator:
    """The random stream of one step's noise and noise levels; `use` JUDGE is another one, for evaluation."""
    state = np.random.SeedSequence([seed, use, place.phase, place.step]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) & (2**63 - 1))


def to_unit(crops: Tensor) -> Tensor:
    """uint8 as float32 on [0, 1]."""
    return crops.float() / 255


def noise_levels(noise: NoiseSettings, u: Tensor) -> Tensor:
    """u: even on [0, 1]. Returns sigma, spread over the range."""
    low, high = noise.sigma_min, noise.sigma_max
    return low * (high / low) ** u if noise.spread == "log" else low + (high - low) * u


def add_noise(
    crops: Tensor, sigma: Tensor, stream: torch.Generator, *, part: slice | Tensor = WHOLE, of: int | None = None
) -> Tensor:
    """crops: uint8 [n, 3, h, w]. sigma: float [n], on the [0, 1] scale. Returns float32, not clipped.

    part, of: the crops are these rows of a batch of so many pictures, and get the noise that they have there.

    As at certification (smoothing_proxy.images.noise): picture and noise are integers on one grid, and the sum
    is exact in float32. Here z is float32, which the proof would not allow and a gradient does not notice.
    """
    shape = (len(crops) if of is None else of, *crops.shape[1:])
    z = torch.randn(shape, generator=stream, device=crops.device)[part]
    noise = torch.floor(z * (sigma * GRID_SCALE)[:, None, None, None] + 0.5)
    return (crops.float() * (GRID_SCALE // 255) + noise) / GRID_SCALE


@lru_cache(maxsize=4)
def _order(seed: int, phase: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, ORDER, phase, epoch]).permutation(count)
