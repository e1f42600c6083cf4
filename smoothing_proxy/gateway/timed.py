"""The base classifier under observation: how fast it is, and what it says of itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from smoothing_proxy.errors import BackendError
from smoothing_proxy.gateway.pace import Latency, Throughput
from smoothing_proxy.gateway.signs import Signs
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.observe import CLEAN
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.smoothing.sampler import CHUNK_PIXELS
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.types import Reply

__all__ = ["Timed"]


class Timed(BaseClassifier):
    """The same classifier. latency: of its requests. making: pixels of copies a second. signs: see Signs.

    A copy above the sampler's usual chunk takes some hundred MB to make: of these one is made at a time.
    """

    def __init__(self, classifier: BaseClassifier, clock: Clock) -> None:
        super().__init__(
            classifier.backend,
            classifier.denoiser,
            sigma=classifier.sigma,
            labels=classifier.labels,
            encoding=classifier.encoding,
        )
        self.latency = Latency(clock)
        self.making = Throughput(clock)
        self.signs = Signs(clock)
        self._one_large = threading.Lock()

    def copies(self, picture: Picture, draws: Sequence[int]) -> list[EncodedImage]:
        """See BaseClassifier."""
        height, width = picture.working_size
        pixels = len(draws) * height * width
        alone: AbstractContextManager[object] = self._one_large if pixels > CHUNK_PIXELS else nullcontext()
        with alone:
            if draws[0] <= CLEAN:
                return super().copies(picture, draws)
            with self.making.timed(pixels):
                return super().copies(picture, draws)

    async def ask(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """See BaseClassifier."""
        try:
            with self.latency.timed():
                answers = await super().ask(copies)
        except BackendError as error:
            self.signs.failed(error)
            raise
        self.signs.heard(answers)
        return answers
