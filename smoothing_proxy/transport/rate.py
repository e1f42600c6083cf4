"""How fast to send: a paced bucket of tokens whose rate finds the vendor's limit and stays just below it.

The rate grows with what was answered, not with time, so it rests while there is no demand and while answers are
outstanding. Until the first throttle it doubles; after one it falls a little and returns along a cubic: fast far
below the last ceiling, flat around it, fast again once it is outlived (as CUBIC does with windows, RFC 9438, 4.2).
It must be gentler than a network's: a lost vote is dear, and against a bucket of one token, half of all sends are
throttled as soon as the rate is above the limit at all.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.transport.retry import nap
from smoothing_proxy.transport.settings import TransportSettings

__all__ = ["RateLimiter", "Ticket"]

HEADROOM = 0.98
"""Of a known limit: the vendor's clock is not ours, and a request that arrives a moment early is refused."""

DOUBLING_S = 1.0
DOUBLING_SENDS = 4
"""The search doubles once in so many seconds of sending, and not before so many answers."""

RETURN_S = 12.0
RETURN_SENDS = 300
"""From a decrease back to the ceiling, at least."""

SENDS_PER_THROTTLE = 150
LONGEST_RETURN_S = 40.0
"""Each return ends in throttles; where they were many, the next return is the longer, so that they stay rare."""

SEARCH_POWER = 4
"""Beyond the ceiling the rate grows by so high a power: 5 % above it after one more return, 80 % after two."""

DECREASE = 0.05
SEARCH_DECREASE = 0.3
LARGEST_DECREASE = 0.5
"""How much a throttle takes off; twice as much when the last decrease was not enough."""

TOO_SOON = 0.1
"""The part of a return within which another throttle shows that the last decrease was not enough."""


LATELY, RARE = 40, 3
"""Throttles are rare while there are at most so many among the latest sends. Rare ones far below a rate that was
kept up before are not its doing (somebody else's bursts on the account, say), and a slower one would not end them.
"""

FAR_BELOW = 0.5


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to send `count` items. at: when (the clock's seconds). waited: whether the rate held it back."""

    at: float
    count: int
    waited: bool


class RateLimiter:
    """One per account and region. Tokens are given out in the order in which they were asked for."""

    def __init__(self, settings: TransportSettings, clock: Clock) -> None:
        known = settings.requests_per_s
        self._top = math.inf if known is None else known * HEADROOM
        self._settings = settings
        self._clock = clock
        self._rate = settings.start_per_s if known is None else self._top
        self._ceiling = None if known is None else self._top
        self._decrease = 0.0
        self._returned = 1.0
        self._throttles = 0
        self._kept_up = 0.0
        self._lately: deque[bool] = deque(maxlen=LATELY)
        self._cut_at = -math.inf
        self._free_at = -math.inf
        self._turn = asyncio.Lock()
        self._waiting = 0

    @property
    def per_s(self) -> float:
        """Items a second, now."""
        return self._rate

    @property
    def is_free(self) -> bool:
        """Whether nobody has to wait."""
        return not self._waiting and self._free_at <= self._clock.now()

    async def take(self, count: int, stopped: Callable[[], bool]) -> Ticket:
        """Wait until `count` >= 1 items may be sent; at once, and taking nothing, when stopped.

        A count above what the bucket holds leaves as one, and the next wait is the longer.
        """
        if self.is_free:
            return self._given(count, self._clock.now(), stopped, waited=False)
        self._waiting += 1
        try:
            async with self._turn:
                return await self._in_turn(count, stopped)
        finally:
            self._waiting -= 1

    async def _in_turn(self, count: int, stopped: Callable[[], bool]) -> Ticket:
        waited = False
        while (left := self._free_at - self._clock.now()) > 0 and not stopped():
            waited = True
            await nap(self._clock, left, stopped)
        return self._given(count, self._clock.now(), stopped, waited=waited)

    def _given(self, count: int, now: float, stopped: Callable[[], bool], *, waited: bool) -> Ticket:
        if not stopped():
            self._free_at = max(self._free_at, now - self._settings.burst_s) + count / self._rate
        return Ticket(now, count, waited)

    def answered(self, ticket: Ticket) -> None:
        """The vendor took this send: the rate may grow, if it was the rate that held the send back."""
        self._lately.append(False)
        if not ticket.waited or ticket.at <= self._cut_at:
            return
        if self._ceiling is None:
            doubled = 2 ** (ticket.count / max(DOUBLING_SENDS, DOUBLING_S * self._rate))
            self._rate = min(self._top, self._rate * doubled)
        else:
            self._returned += ticket.count / self._return_sends()
            if self._returned >= 1:
                self._kept_up = max(self._kept_up, self._rate)
            self._rate = min(self._top, self._ceiling * self._along_the_return())

    def throttled(self, ticket: Ticket, retry_after: float = 0.0) -> None:
        """The vendor refused this send as too much; of what was sent at one rate, only the first refusal counts.

        retry_after: seconds within which it wants no request at all.
        """
        if ticket.at <= self._cut_at:
            self._throttles += 1
            return
        now = self._clock.now()
        self._lately.append(True)
        if sum(self._lately) > RARE or self._ceiling is None:
            self._kept_up = self._rate / 2  # where the search came from
        elif self._rate <= FAR_BELOW * self._kept_up:
            self._ceiling, self._cut_at = None, now
            self._free_at = max(self._free_at, now + min(retry_after, self._settings.retry_after_max_s))
            return
        self._decrease = self._next_decrease()
        self._ceiling = self._rate
        self._rate = max(self._settings.min_per_s, self._rate * (1 - self._decrease))
        self._free_at += ticket.count * (1 / self._rate - 1 / self._ceiling)  # the next one is as rare already
        self._returned = 0.0
        self._throttles = 1
        self._cut_at = now
        self._free_at = max(self._free_at, now + min(retry_after, self._settings.retry_after_max_s))

    def _next_decrease(self) -> float:
        if self._ceiling is None:
            return SEARCH_DECREASE
        if self._returned < TOO_SOON:
            return min(LARGEST_DECREASE, 2 * self._decrease)
        return DECREASE

    def _return_sends(self) -> float:
        """How many answers make one return."""
        usual = max(RETURN_SENDS, RETURN_S * self._rate)
        if self._decrease > DECREASE or self._returned > 1:  # far below the ceiling, or above: do not linger
            return usual
        return max(usual, min(SENDS_PER_THROTTLE * self._throttles, LONGEST_RETURN_S * self._rate))

    def _along_the_return(self) -> float:
        """The part of the ceiling: 1 - decrease just after it, 1 after one return, more after that."""
        beyond = self._returned - 1
        return 1 + (self._decrease * beyond**3 if beyond < 0 else DECREASE * beyond**SEARCH_POWER)
