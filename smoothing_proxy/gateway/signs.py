"""What the traffic tells of the classifier behind: whether it answers, and as which version."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from smoothing_proxy.errors import AuthenticationError, BackendError, QuotaExceededError
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.types import Reply

__all__ = ["Signs"]

REFUSES_ALL: tuple[type[BackendError], ...] = (AuthenticationError, QuotaExceededError)
"""What no other picture would escape."""

MOST_VERSIONS = 100
"""That are remembered; a classifier that names each answer's version anew is not worth more memory."""

_logger = logging.getLogger(__name__)


class Signs:
    """Told of each answer and each failure. answered_at, failed_at: seconds of the clock, of the last one.

    refusal: the last error that stands for all pictures, None once anything was answered since.
    versions: of the answers since the start, in the order in which they came.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.answered_at = -math.inf
        self.failed_at = -math.inf
        self.refusal: BackendError | None = None
        self.versions: list[str] = []

    def heard(self, answers: Sequence[Reply | BackendError]) -> None:
        """One request's answers."""
        for answer in answers:
            if isinstance(answer, Reply):
                self._answered(answer)
            else:
                self.failed(answer)

    def failed(self, error: BackendError) -> None:
        """A picture, or a request as a whole."""
        self.failed_at = self._clock.now()
        if isinstance(error, REFUSES_ALL):
            self.refusal = error

    def _answered(self, reply: Reply) -> None:
        self.answered_at, self.refusal = self._clock.now(), None
        version = reply.model_version
        if not version or version in self.versions or len(self.versions) >= MOST_VERSIONS:
            return
        self.versions.append(version)
        if len(self.versions) > 1:
            _logger.warning("the classifier behind is version %s now; it was %s", *reversed(self.versions[-2:]))
