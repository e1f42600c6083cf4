"""How fast work is done at present, by what was seen lately; what is too old to tell is forgotten.

It must be forgotten: who is refused since things are slow does nothing that would show that they no longer are.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from smoothing_proxy.transport.clock import Clock

__all__ = ["FORGOTTEN_S", "Latency", "Throughput"]

FORGOTTEN_S = 60.0
"""Without any work for so long, nothing is known."""

KEPT = 0.9
"""Of what was known, at each new piece of work."""


class Latency:
    """Seconds that a request takes, a moving average over those that ended well. For one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._under_way = 0
        self._ended_at = -math.inf
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """0.0 where nothing is known."""
        return 0.0 if self._is_forgotten() else self._seconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """One request, for as long as the context lasts."""
        began, self._seconds = self._clock.now(), self.seconds
        self._under_way += 1
        try:
            yield
            took = self._clock.now() - began
            self._seconds = KEPT * self._seconds + (1 - KEPT) * took if self._seconds else took
        finally:
            self._under_way -= 1
            self._ended_at = self._clock.now()

    def _is_forgotten(self) -> bool:
        return not self._under_way and self._clock.now() - self._ended_at > FORGOTTEN_S


class Throughput:
    """Units of work a second, of several threads together, while any of them works; the first piece warms up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        self._since = -math.inf
        self._is_warm = False
        self._units = self._seconds = 0.0

    @property
    def per_s(self) -> float:
        """Infinite where nothing is known."""
        with self._lock:
            if self._is_forgotten() or not self._seconds:
                return math.inf
            return self._units / self._seconds

    @contextmanager
    def timed(self, units: int) -> Iterator[None]:
        """One piece of work, for as long as the context lasts."""
        with self._lock:
            if self._is_forgotten():
                self._units = self._seconds = 0.0
            if not self._running:
                self._since = self._clock.now()
            self._running += 1
        done = 0
        try:
            yield
            done = units
        finally:
            with self._lock:
                self._ended(done)

    def _ended(self, units: int) -> None:
        """Time since the last end is this piece's: of two at once, each is told a part of it."""
        self._running -= 1
        took, self._since = self._clock.now() - self._since, self._clock.now()
        if self._is_warm:
            self._units = KEPT * self._units + units
            self._seconds = KEPT * self._seconds + took
        self._is_warm = True

    def _is_forgotten(self) -> bool:
        return not self._running and self._clock.now() - self._since > FORGOTTEN_S
