"""Certifies torch classifiers behind a denoiser, copy by copy as the proxy would certify a black box.

What a draw meets is what it meets there: exact integer noise (smoothing_proxy.images.noise), the denoiser, eight
bits (images.codec.quantise), the classifier's top answer. Several classifiers look at the same copies: each
certificate holds with its own probability, they are only not independent of each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from denoiser_training.batches import to_unit
from denoiser_training.evaluate import psnr, ssim
from denoiser_training.evaluate_config import CertifySettings
from denoiser_training.surrogates import Surrogate
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.images.codec import quantise
from smoothing_proxy.images.noise import noisy_batch, pixels_to_grid
from smoothing_proxy.stats.certificates import certify_votes
from smoothing_proxy.types import Certificate, Votes

__all__ = ["Certified", "Certifier", "Pixels", "answers"]

Pixels = npt.NDArray[np.uint8]
"""Uint8 [h, w, 3], or a batch of them."""

_Noisy = npt.NDArray[np.float32]

NOTHING = -1
"""The answer of logits that are not finite: a vote for nothing."""

MOST_WORKERS = 8
"""Threads that draw noise ahead of the device; each holds one batch."""


@dataclass(frozen=True)
class Certified:
    """One picture behind one denoiser. psnr (dB), ssim: means over the denoised copies of the selection phase.

    certificates: of the classifiers, in their order; a label is the index of a class as text.
    """

    psnr: float
    ssim: float
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True)
class Certifier:
    """CERTIFY of Cohen et al. 2019 for each of `classifiers`, all behind `denoiser`.

    classifiers: on `device`; they see batches of exactly settings.batch, so that f is one function of a copy.
    """

    denoiser: Denoiser
    classifiers: Sequence[Surrogate]
    settings: CertifySettings
    device: torch.device

    def certify(self, picture: Pixels, entropy: bytes) -> Certified:
        """picture: uint8 [h, w, 3]. entropy: 16 bytes that nobody can foresee, of this picture alone.

        The first n0 draws select, the next n estimate. Raises DenoiserError when the denoiser refuses or fails.
        """
        n0, n = self.settings.n0, self.settings.n
        clean = _to_unit(picture[None], self.device)
        given: list[list[npt.NDArray[np.int64]]] = [[] for _ in self.classifiers]
        quality: list[Tensor] = []
        for first, copies in self._denoised(picture, entropy, n0 + n):
            for known, new in zip(given, self._answers(copies), strict=True):
                known.append(new)
            if first < n0:
                shown = _to_unit(copies[: n0 - first], self.device)
                quality.append(torch.stack([psnr(shown, clean).double(), ssim(shown, clean)]))
        means = torch.cat(quality, dim=1).mean(dim=1)
        certificates = tuple(self._certificate(np.concatenate(parts)) for parts in given)
        return Certified(float(means[0]), float(means[1]), certificates)

    def votes(self, picture: Pixels, entropy: bytes, draws: int) -> tuple[Votes, ...]:
        """What each classifier says to `draws` denoised copies."""
        parts = [self._answers(copies) for _, copies in self._denoised(picture, entropy, draws)]
        return tuple(_tally(np.concatenate(column)) for column in zip(*parts, strict=True))

    def _denoised(self, picture: Pixels, entropy: bytes, draws: int) -> Iterator[tuple[int, Pixels]]:
        """The number of a batch's first draw, and the batch: uint8 [<= batch, h, w, 3]."""
        batch, sigma = self.settings.batch, self.settings.sigma
        parts = [range(first, min(first + batch, draws)) for first in range(0, draws, batch)]
        noisy = _drawn_ahead(picture, entropy, sigma, parts)
        for part, copies in zip(parts, noisy, strict=True):
            yield part.start, quantise(self.denoiser.denoise(copies, sigma))

    def _answers(self, copies: Pixels) -> list[npt.NDArray[np.int64]]:
        filled = np.zeros((self.settings.batch, *copies.shape[1:]), np.uint8)
        filled[: len(copies)] = copies
        pictures = _to_unit(filled, self.device)
        return [answers(classifier, pictures)[: len(copies)] for classifier in self.classifiers]

    def _certificate(self, given: npt.NDArray[np.int64]) -> Certificate:
        selection, estimation = _tally(given[: self.settings.n0]), _tally(given[self.settings.n0 :])
        return certify_votes(
            estimation,
            selection.top(),
            sigma=self.settings.sigma,
            alpha=self.settings.alpha,
            selection=selection,
        )


@torch.inference_mode()
def answers(classifier: Surrogate, pictures: Tensor) -> npt.NDArray[np.int64]:
    """pictures: float [n, 3, h, w] on [0, 1]. Returns int64 [n]: the class with the highest logit, or -1."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        logits = classifier(pictures)
    given = logits.argmax(dim=1).masked_fill(~logits.isfinite().all(dim=1), NOTHING)
    answered: npt.NDArray[np.int64] = given.cpu().numpy()
    return answered


def _drawn_ahead(picture: Pixels, entropy: bytes, sigma: float, parts: Sequence[range]) -> Iterator[_Noisy]:
    """One batch per part, in order; the next ones are drawn while the device is busy."""
    grid = pixels_to_grid(picture)
    workers = min(MOST_WORKERS, torch.get_num_threads())
    waiting: deque[Future[_Noisy]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for part in parts:
            waiting.append(pool.submit(noisy_batch, grid, entropy, part, sigma))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _to_unit(pixels: Pixels, device: torch.device) -> Tensor:
    """uint8 [n, h, w, 3] as float32 [n, 3, h, w] on [0, 1]."""
    return to_unit(torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2))


def _tally(given: npt.NDArray[np.int64]) -> Votes:
    labels, counts = np.unique(given[given != NOTHING], return_counts=True)
    failed = int(np.count_nonzero(given == NOTHING))
    return Votes({str(label): int(count) for label, count in zip(labels, counts, strict=True)}, failed)
