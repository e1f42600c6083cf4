"""The base classifier f: backend after codec after denoiser, applied to numbered draws."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.errors import BackendError, MalformedReplyError
from smoothing_proxy.images import codec, noise
from smoothing_proxy.images.codec import EncodedImage, Encoding
from smoothing_proxy.smoothing.observe import CLEAN, Outcome
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.types import Reply

__all__ = ["BaseClassifier"]

LARGE_SIDE = 4096
"""Pixels; no denoiser is made for larger pictures alone."""


class BaseClassifier:
    """f of the proof. `copies` is the part on this machine, `ask` the part that is paid for.

    One denoiser, one encoding, one label map and one backend for its whole life, so that every draw of a
    certificate meets the same f.
    """

    def __init__(
        self,
        backend: Backend,
        denoiser: Denoiser,
        *,
        sigma: float,
        labels: LabelMap | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        self.backend = backend
        self.denoiser = denoiser
        self.sigma = sigma
        self.labels = labels or LabelMap()
        # What the classifier takes is not for the user to change.
        self.encoding = (encoding or backend.encoding).within(backend.encoding)
        self._one_denoiser = threading.Lock()

    def check_sigma(self) -> None:
        """Raises DenoiserError when the denoiser was not made for this noise level, whatever the picture."""
        self.denoiser.check(self.sigma, LARGE_SIDE, LARGE_SIDE)

    def check(self, picture: Picture) -> None:
        """Raises DenoiserError when the denoiser was not made for this noise level or size."""
        self.denoiser.check(self.sigma, *picture.working_size)

    def copies(self, picture: Picture, draws: Sequence[int]) -> list[EncodedImage]:
        """The encoded copies of these draws; blocks for as long as the denoiser computes. Safe in any thread."""
        if draws[0] <= CLEAN:
            images = picture.grid[np.newaxis].astype(np.float32) / np.float32(noise.GRID_SCALE)
        else:
            noisy = noise.noisy_batch(picture.grid, picture.entropy, draws, self.sigma)
            with self._one_denoiser:
                images = self.denoiser.denoise(noisy, self.sigma)
        return [codec.encode(pixels, self.encoding) for pixels in codec.quantise(images)]

    async def ask(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """One request about all copies. Raises BackendError when none of them was answered."""
        return await self.backend.classify(copies)

    def outcome(self, draw: int, answer: Reply | BackendError) -> Outcome:
        """How a draw with this answer ends: the label map's vote, or a failure."""
        if isinstance(answer, BackendError):
            return Outcome(draw, None, error=answer)
        try:
            return Outcome(draw, self.labels.vote(answer), reply=answer)
        except MalformedReplyError as error:
            return Outcome(draw, None, reply=answer, error=error)
