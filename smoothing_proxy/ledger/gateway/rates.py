"""How fast a key may ask, kept in the memory of one replica: behind an address with R of them it may R times that.

Budgets are shared and exact; a rate only keeps one customer from crowding out the others, which each replica can
do by itself without asking the store about every request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from smoothing_proxy.errors import SmoothingProxyError
from smoothing_proxy.ledger.gateway.nouns import VirtualKey

__all__ = ["KeyRates", "TooManyRequestsError"]

MINUTE = 60.0

REMEMBERED = 10_000
"""Keys with tokens missing; beyond them, those that are full again are forgotten."""


class TooManyRequestsError(SmoothingProxyError):
    """The key asks faster, or for more at once, than it may. retry_after_s: seconds until it may ask again."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    running: int = 0


class KeyRates:
    """clock: seconds, of any kind that never runs backwards. For one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    @contextmanager
    def admitted(self, key: VirtualKey, *, joins: bool = False) -> Iterator[None]:
        """One request of the key, for as long as the context lasts. Raises TooManyRequestsError.

        joins: it waits for work that is under way already, and takes no place among the parallel ones.
        """
        if key.requests_per_minute is None and key.parallel is None:
            yield
            return
        bucket = self._bucket(key)
        if key.parallel is not None and not joins and bucket.running >= key.parallel:
            raise TooManyRequestsError(f"this key may have {key.parallel} requests under way", retry_after_s=1.0)
        if key.requests_per_minute is not None:
            _spend(bucket, key.requests_per_minute)
        places = 0 if joins else 1
        bucket.running += places
        try:
            yield
        finally:
            bucket.running -= places

    def _bucket(self, key: VirtualKey) -> _Bucket:
        now = self._clock()
        if len(self._buckets) > REMEMBERED:
            # After a minute every bucket is full, as a new one would be.
            kept = {name: x for name, x in self._buckets.items() if x.running or now - x.filled_at < MINUTE}
            self._buckets = kept
        most = float(key.requests_per_minute or 0)
        bucket = self._buckets.setdefault(key.id, _Bucket(most, now))
        bucket.tokens = min(most, bucket.tokens + (now - bucket.filled_at) * most / MINUTE)
        bucket.filled_at = now
        return bucket


def _spend(bucket: _Bucket, per_minute: int) -> None:
    if bucket.tokens < 1:
        wait = (1 - bucket.tokens) * MINUTE / per_minute
        raise TooManyRequestsError(f"this key may ask {per_minute} times a minute", retry_after_s=wait)
    bucket.tokens -= 1
