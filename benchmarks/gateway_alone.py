"""What one process of this machine manages alone: the denoiser, and whole copies, with nothing else to do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.images import noise
from smoothing_proxy.images.codec import Encoding
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.picture import prepare
from smoothing_proxy.smoothing.sampler import MAKERS, Sampler

__all__ = ["SIGMA", "Alone", "N"]

N, SIGMA = 32, 0.25
ALONE_S = 3.0


class Alone:
    """A grey picture and the base classifier that makes its N copies."""

    def __init__(self, name: str, side_px: int, encoding: str = "jpeg") -> None:
        grey = np.full((side_px, side_px, 3), 128, np.uint8)
        self._denoiser = denoiser(name)
        self._picture = prepare(grey, "original")
        self._classifier = BaseClassifier(
            ScriptedBackend("cat"), self._denoiser, sigma=SIGMA, encoding=Encoding.parse(encoding)
        )
        self._batch = Sampler(self._classifier).chunk(self._picture, N)
        self._noisy = noise.noisy_batch(self._picture.grid, self._picture.entropy, range(N), SIGMA)

    def denoise_s(self) -> float:
        """For the denoiser's part."""
        start = time.perf_counter()
        self._denoiser.denoise(self._noisy, SIGMA)
        return time.perf_counter() - start

    def denoised_per_s(self) -> float:
        """Copies a second that the denoiser manages in such batches as a sampler makes, one after another."""
        batch = self._noisy[: self._batch]
        return len(batch) / statistics.median(_repeated(lambda: self._denoiser.denoise(batch, SIGMA)))

    def made_per_s(self) -> float:
        """Whole copies a second that as many threads as a sampler has make."""
        start = time.perf_counter()

        def made(_: int) -> int:
            rounds = 0
            while time.perf_counter() - start < ALONE_S:
                self._classifier.copies(self._picture, range(self._batch))
                rounds += 1
            return rounds * self._batch

        with ThreadPoolExecutor(MAKERS) as makers:
            total = sum(makers.map(made, range(MAKERS)))
        return total / (time.perf_counter() - start)

    def make_s(self) -> float:
        """For all of it."""
        start = time.perf_counter()
        self._classifier.copies(self._picture, range(N))
        return time.perf_counter() - start


def _repeated(work: Callable[[], object]) -> list[float]:
    """Seconds of each time, for a while."""
    seen: list[float] = []
    until = time.perf_counter() + ALONE_S
    while time.perf_counter() < until or len(seen) < 3:
        start = time.perf_counter()
        work()
        seen.append(time.perf_counter() - start)
    return seen
