"""A vendor with a rate limit, and clients that send as fast as a limiter lets them: counted second by second."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import anyio

from smoothing_proxy.transport.rate import RateLimiter
from smoothing_proxy.transport.settings import TransportSettings
from tests.transport.virtual_clock import VirtualClock, run_virtually

__all__ = ["Log", "Vendor", "simulate"]

UPLINK_S = 0.015


def _never() -> bool:
    return False


class Vendor:
    """A bucket of tokens that fills at the limit of the moment. limits: (from second, items a second), in order.

    burst_s: how many seconds of the limit it holds; 0.0 holds a single token.
    """

    def __init__(self, limits: list[tuple[float, float]], burst_s: float) -> None:
        self._limits = limits
        self._burst_s = burst_s
        self._filled_at = 0.0
        self._tokens = self._most(0.0)

    def limit(self, at: float) -> float:
        return [limit for since, limit in self._limits if since <= at][-1]

    def accepts(self, at: float, count: int) -> bool:
        self._tokens = min(self._most(at), self._tokens + (at - self._filled_at) * self.limit(at))
        self._filled_at = at
        if self._tokens < count - 1e-6:
            return False
        self._tokens -= count
        return True

    def _most(self, at: float) -> float:
        return max(1.0, self.limit(at) * self._burst_s)


@dataclass
class Log:
    """When items were accepted, and sends throttled."""

    accepted: list[float] = field(default_factory=list)
    throttled: list[float] = field(default_factory=list)
    rates: list[tuple[float, float]] = field(default_factory=list)

    def used(self, since: float, until: float, limit: float) -> float:
        """The part of the limit that was used between two moments."""
        return sum(since <= at < until for at in self.accepted) / (limit * (until - since))

    def throttles(self, since: float, until: float) -> float:
        """The part of the sends that was throttled between two moments."""
        refused = sum(since <= at < until for at in self.throttled)
        return refused / max(1, refused + sum(since <= at < until for at in self.accepted))


def simulate(
    vendor: Vendor,
    settings: TransportSettings,
    *,
    seconds: float,
    latency_s: tuple[float, float] = (0.03, 0.3),
    in_flight: int = 64,
    pause_s: float = 0.0,
    retry_after: float = 0.0,
    seed: int = 1,
) -> Log:
    """`in_flight` clients that send one item after the other through one limiter, for so many virtual seconds.

    pause_s: what each client rests between two sends, so that demand stays below the limit.
    """
    log, rng, clock = Log(), random.Random(seed), VirtualClock()

    async def client(limiter: RateLimiter) -> None:
        while clock.now() < seconds:
            ticket = await limiter.take(1, _never)
            await clock.sleep(UPLINK_S)
            at = clock.now()
            accepted = vendor.accepts(at, 1)
            (log.accepted if accepted else log.throttled).append(at)
            await clock.sleep(rng.uniform(*latency_s) - UPLINK_S)
            if accepted:
                limiter.answered(ticket)
            else:
                limiter.throttled(ticket, retry_after)
            log.rates.append((clock.now(), limiter.per_s))
            await clock.sleep(pause_s)

    async def run() -> None:
        limiter = RateLimiter(settings, clock)
        async with anyio.create_task_group() as clients:
            for _ in range(in_flight):
                clients.start_soon(client, limiter)

    run_virtually(run)
    return log
