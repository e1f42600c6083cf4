"""Whether to send again, and when: what a failure may cost decides.

A send that cost nothing is repeated patiently, one that may have been billed at most as often as the user allows,
one whose failure is final never. tenacity runs the rounds; the rules are here.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_result
from tenacity.wait import wait_base

from smoothing_proxy.errors import BackendError, RateLimitedError
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.transport.settings import TransportSettings

__all__ = ["Backoff", "Tally", "nap", "rounds"]

POLL_S = 0.25
"""How soon a wait notices that everything stops."""


@dataclass(slots=True)
class Tally:
    """How the sends of one item have failed so far.

    failures: unreachable, internal error, timeout. unknown: those among them that may have been billed.
    throttles: sends that the vendor refused as too many, or that cost nothing and failed as all others did.
    """

    failures: int = 0
    unknown: int = 0
    throttles: int = 0

    def is_final_after(
        self, error: BackendError, settings: TransportSettings, *, spent_s: float, outage: bool
    ) -> bool:
        """Count one more failed send; whether the item has failed for good.

        spent_s: seconds in failed sends and between them. outage: whether the vendor answers nobody, so that a
        failure that cost nothing says nothing about the item.
        """
        if not error.retryable:
            return True
        if isinstance(error, RateLimitedError) or (outage and not error.maybe_billed):
            self.throttles += 1
            return self.throttles >= settings.throttle_attempts
        self.failures += 1
        self.unknown += error.maybe_billed
        return (
            self.unknown > settings.resends_after_unknown
            or self.failures >= settings.attempts
            or spent_s >= settings.deadline_s
        )


class Backoff(wait_base):
    """tenacity's waiting: what the vendor asked for, and on top of it a random part that grows with every round.

    "Full jitter" of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, settings: TransportSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds to wait after this round, whose result is the errors of what is left."""
        settings = self._settings
        assert retry_state.outcome is not None
        asked = max(_asked_wait(error) for error in retry_state.outcome.result())
        doublings = min(retry_state.attempt_number - 1, 60)
        most = min(settings.backoff_max_s, settings.backoff_base_s * 2.0**doublings)
        return min(asked, settings.retry_after_max_s) + self._rng.uniform(0.0, most)


def _asked_wait(error: BackendError) -> float:
    """The seconds that the vendor asked to wait; 0.0 where it did not."""
    return getattr(error, "retry_after", None) or 0.0


def rounds(
    settings: TransportSettings, rng: random.Random, sleep: Callable[[float], Awaitable[None]]
) -> AsyncRetrying:
    """Rounds of sends until one returns no errors of items to send again.

    One for each delivery: tenacity keeps the state of the round under way in it. Whether an item is given up is
    for its Tally to say, since the items of one request fail in different ways.
    """
    return AsyncRetrying(sleep=sleep, wait=Backoff(settings, rng), retry=retry_if_result(bool))


async def nap(clock: Clock, seconds: float, stopped: Callable[[], bool]) -> None:
    """Sleep, and return early when stopped."""
    end = clock.now() + seconds
    while (left := end - clock.now()) > 0 and not stopped():
        await clock.sleep(min(left, POLL_S))
