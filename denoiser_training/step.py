"""One step of training a denoiser: cut, add noise, denoise, ask the surrogates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from denoiser_training.batches import JUDGE, Batches, Place, add_noise, generator, noise_levels, to_unit
from denoiser_training.config import Best, NoiseSettings
from denoiser_training.evaluate import Judges, runner
from denoiser_training.journal import write_strip
from denoiser_training.objectives import Scene, WeightedSum
from denoiser_training.surrogates import Surrogate, in_turn

__all__ = ["DenoiserTask"]

SAMPLES = 8
"""Pictures in a sample sheet."""


@dataclass(frozen=True)
class DenoiserTask:
    """A denoiser to train (loop.Task).

    batches, objectives: of each phase. surrogates: frozen, on the network's device. per_step: how many of them
    one step looks through, 0 for all. judges, sigmas, best: what decides which weights are kept.
    """

    network: nn.Module
    batches: Sequence[Batches]
    objectives: Sequence[WeightedSum]
    surrogates: Sequence[Surrogate]
    per_step: int
    noise: NoiseSettings
    judges: Judges
    sigmas: Sequence[float]
    best: Best
    channels_last: bool
    seed: int

    def losses(self, network: Callable[..., Tensor], place: Place, part: slice) -> dict[str, Tensor]:
        """The phase's weighted sum as "loss", and its parts."""
        device, batches = next(self.network.parameters()).device, self.batches[place.phase]
        crops, labels = batches.at(place, part)
        crops = crops.to(device, non_blocking=True)
        stream = generator(device, self.seed, place)
        levels = noise_levels(self.noise, torch.rand(batches.crops, generator=stream, device=device))
        sigma = levels.repeat(batches.copies)[part]
        noisy = add_noise(crops, sigma, stream, part=part, of=batches.batch)
        if self.channels_last:
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        scene = Scene(
            clean=to_unit(crops),
            denoised=network(noisy, sigma).float(),
            labels=None if labels is None else labels.to(device),
            surrogates=in_turn(self.surrogates, self.per_step, place.step),
            copies=batches.copies,
        )
        return self.objectives[place.phase].losses(scene)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """At each sigma: psnr, ssim, each judge's accuracy; "score" is the mean of what decides."""
        figures: dict[str, float] = {}
        scores = []
        for sigma in self.sigmas:
            at = self.judges.figures(runner(network), sigma)
            figures.update({f"{name}@{sigma:g}": value for name, value in at.items()})
            scores.append(at["psnr"] if self.best == "psnr" else self._mean_accuracy(at))
        return {"score": sum(scores) / len(scores), **figures}

    def sample(self, network: nn.Module, path: Path) -> None:
        """A few validation pictures: clean, noisy, denoised, at the middle of `sigmas`."""
        crops = self.judges.crops[:: max(1, len(self.judges.crops) // SAMPLES)][:SAMPLES]
        level = sorted(self.sigmas)[len(self.sigmas) // 2]
        sigma = torch.full((len(crops),), level, device=crops.device)
        noisy = add_noise(crops, sigma, generator(crops.device, self.seed, Place(0, 0), JUDGE))
        enlarge = max(1, 64 // crops.shape[-1])
        write_strip(path, to_unit(crops), noisy, runner(network)(noisy, sigma), enlarge=enlarge)

    def _mean_accuracy(self, figures: dict[str, float]) -> float:
        return sum(figures[judge.name] for judge in self.judges.classifiers) / len(self.judges.classifiers)
