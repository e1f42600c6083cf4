"""Transformed copies among the pictures of a step: noise, denoisers, or one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from denoiser_training.batches import COPIES, WHOLE, Place, add_noise, generator, noise_levels, to_unit
from denoiser_training.config import CopySettings
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.registry import denoiser

__all__ = ["Copies", "Kind"]


@dataclass(frozen=True)
class Kind:
    """One kind of copy. settings: as in the config. denoisers: those that they name."""

    settings: CopySettings
    denoisers: Sequence[Denoiser]

    @classmethod
    def of(cls, settings: CopySettings) -> Kind:
        """Raises ConfigError for a denoiser that there is not, DenoiserError for damaged weights."""
        return cls(settings, [denoiser(spec) for spec in settings.denoisers])

    @property
    def name(self) -> str:
        """As the journal's column: "noise 0.1-0.5, wavelet:haar"."""
        noise = self.settings.noise
        levels = [] if noise is None else [f"noise {noise.sigma_min:g}-{noise.sigma_max:g}"]
        return ", ".join([*levels, *(one.name for one in self.denoisers)])

    def check(self, side: int) -> None:
        """Raises DenoiserError when one of the denoisers does not take such levels, or pictures of side x side."""
        noise, told = self.settings.noise, self.settings.told_sigma
        for sigma in (told,) if noise is None else (noise.sigma_min, noise.sigma_max):
            for one in self.denoisers:
                one.check(sigma, side, side)

    def of_pictures(self, crops: Tensor, stream: torch.Generator, rows: slice | Tensor, of: int) -> Tensor:
        """crops, and what is returned: uint8 [n, 3, h, w]. rows: theirs in a batch of `of` pictures, whose noise
        they get, so that it does not matter who makes them."""
        sigma = self.settings.told_sigma
        values = to_unit(crops)
        if self.settings.noise is not None:
            level = noise_levels(self.settings.noise, torch.rand(1, generator=stream, device=crops.device))
            sigma = float(level)
            values = add_noise(crops, level, stream, part=rows, of=of)
        for one in self.denoisers:
            values = _denoised(one, values, sigma)
        return (values.clamp(0, 1) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class Copies:
    """The kinds of copies of one training run. seed: of which pictures are copied, and of their noise."""

    kinds: Sequence[Kind] = ()
    seed: int = 0

    def among(self, crops: Tensor, place: Place, part: slice, of: int) -> Tensor:
        """crops: uint8 [n, 3, h, w], the rows `part` of a step's `of` pictures. The same, some of them copies."""
        if not self.kinds:
            return crops
        rows = torch.arange(of)[part]
        kinds = torch.from_numpy(self._kinds_at(place, of))[part]
        mixed = crops.clone()
        for number, kind in enumerate(self.kinds):
            chosen = kinds == number
            if bool(chosen.any()):
                stream, here = self._stream(crops, place, number), chosen.to(crops.device)
                mixed[here] = kind.of_pictures(crops[here], stream, rows[chosen].to(crops.device), of)
        return mixed

    def all_of(self, number: int, crops: Tensor, place: Place) -> Tensor:
        """Every picture as a copy of that kind; the same at each call for the same place."""
        return self.kinds[number].of_pictures(crops, self._stream(crops, place, number), WHOLE, len(crops))

    def _stream(self, crops: Tensor, place: Place, number: int) -> torch.Generator:
        return generator(crops.device, self.seed + number, place, COPIES)

    def _kinds_at(self, place: Place, of: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """For each picture of a step the number of its kind; as many as there are kinds for no copy."""
        ends = np.cumsum([kind.settings.share for kind in self.kinds])
        drawn = np.random.default_rng([self.seed, COPIES, place.phase, place.step]).random(of)
        return np.searchsorted(ends, drawn, side="right")


def _denoised(one: Denoiser, values: Tensor, sigma: float) -> Tensor:
    """float32 [n, 3, h, w] to the same, on the same device."""
    pictures = np.ascontiguousarray(values.permute(0, 2, 3, 1).cpu().numpy())
    parts = [one.denoise(pictures[i : i + one.batch_size], sigma) for i in range(0, len(pictures), one.batch_size)]
    return torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2).to(values.device)
