"""Time as an argument: nothing on this floor reads a clock or sleeps on its own."""

from __future__ import annotations

import time
from typing import Protocol

import anyio

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Monotonic seconds, and waiting for them to pass."""

    def now(self) -> float:
        """Seconds since some moment; never runs backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once so many seconds have passed; at once for 0 or less, after letting others run."""
        ...


class SystemClock:
    """The machine's own."""

    def now(self) -> float:
        """See Clock.now."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See Clock.sleep."""
        await anyio.sleep(max(0.0, seconds))
