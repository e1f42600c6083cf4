"""What a denoiser is worth on held-out pictures: PSNR, SSIM, and the answers of classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from denoiser_training.batches import JUDGE, Place, add_noise, generator, to_unit
from denoiser_training.surrogates import Surrogate

__all__ = ["Denoise", "Judges", "psnr", "runner", "ssim"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy float32 [n, 3, h, w], sigma [n]) to the same shape."""


@dataclass(frozen=True)
class Judges:
    """Held-out pictures and the classifiers that look at them. Every call sees the same noise.

    crops: uint8 [n, 3, h, w]. labels: [n] or None; a classifier that knows another number of classes than
    `known`, or pictures without labels, are judged against the classifier's own answer on the clean picture.
    copies: noisy copies of each picture. batch: pictures at a time.
    """

    crops: Tensor
    labels: Tensor | None
    known: int
    classifiers: Sequence[Surrogate]
    copies: int
    batch: int
    seed: int
    _references: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def figures(self, denoise: Denoise, sigma: float) -> dict[str, float]:
        """psnr (dB) and ssim, and in % the accuracy of each classifier by name: means over pictures and copies."""
        sums: dict[str, float] = {}
        for copy in range(self.copies):
            for part, batch in enumerate(torch.split(self.crops, self.batch)):
                stream = generator(batch.device, self.seed, Place(copy, part), JUDGE)
                level = torch.full((len(batch),), sigma, device=batch.device)
                denoised = _quantised(denoise(add_noise(batch, level, stream), level))
                for name, value in self._judge(denoised, part).items():
                    sums[name] = sums.get(name, 0.0) + value
        return {name: value / (self.copies * len(self.crops)) for name, value in sums.items()}

    def clean(self) -> dict[str, float]:
        """Accuracy of each classifier on the clean pictures, in %."""
        return {
            c.name: 100 * float((self._answers(c) == self._reference(c)).float().mean()) for c in self.classifiers
        }

    def _judge(self, denoised: Tensor, part: int) -> dict[str, float]:
        """Sums over one batch."""
        where = slice(part * self.batch, (part + 1) * self.batch)
        clean = to_unit(self.crops[where])
        sums = {"psnr": float(psnr(denoised, clean).sum()), "ssim": float(ssim(denoised, clean).sum())}
        for classifier in self.classifiers:
            right = classifier(denoised).argmax(1) == self._reference(classifier)[where]
            sums[classifier.name] = 100 * float(right.sum())
        return sums

    def correct(self, classifier: Surrogate) -> str:
        """What its answers are compared with, in words."""
        return "its own answer to the clean picture" if self._labels(classifier) is None else "the picture's label"

    def _reference(self, classifier: Surrogate) -> Tensor:
        labels = self._labels(classifier)
        return self._answers(classifier) if labels is None else labels

    def _labels(self, classifier: Surrogate) -> Tensor | None:
        """Those of the pictures, where the classifier knows as many classes; else None."""
        return self.labels if classifier.classes(self.crops.shape[-1]) == self.known else None

    @torch.no_grad()
    def _answers(self, classifier: Surrogate) -> Tensor:
        """On the clean pictures; asked once."""
        if classifier.name not in self._references:
            parts = [classifier(to_unit(batch)).argmax(1) for batch in torch.split(self.crops, self.batch)]
            self._references[classifier.name] = torch.cat(parts)
        return self._references[classifier.name]


def runner(network: nn.Module) -> Denoise:
    """The network in eval mode, without gradients."""

    @torch.no_grad()
    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        denoised: Tensor = network.eval()(noisy, sigma)
        return denoised.float()

    return denoise


def psnr(pictures: Tensor, clean: Tensor) -> Tensor:
    """Both float [n, 3, h, w] on [0, 1]; per picture [n], in dB, at most 100."""
    errors = (pictures - clean).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(errors.clamp_min(1e-10))


def ssim(pictures: Tensor, clean: Tensor, window: int = 7) -> Tensor:
    """Wang, Bovik, Sheikh, Simoncelli 2004, with an even window and sample variances; per picture [n].

    pictures, clean: float [n, 3, h, w] on [0, 1], h and w >= window. Same as scikit-image's default.
    """

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, window, stride=1)

    c1, c2 = 0.01**2, 0.03**2
    sample = window**2 / (window**2 - 1)
    x, y = pictures.double(), clean.double()
    mx, my = mean(x), mean(y)
    vx, vy = sample * (mean(x * x) - mx * mx), sample * (mean(y * y) - my * my)
    cov = sample * (mean(x * y) - mx * my)
    index = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return index.mean(dim=(1, 2, 3))


def _quantised(pictures: Tensor) -> Tensor:
    """Clipped and rounded to bytes, as the codec does before a classifier sees them."""
    return (pictures.clamp(0, 1) * 255).round() / 255
