"""A look at something that may take long or never return, for one who cannot wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from smoothing_proxy.transport.clock import Clock

__all__ = ["WITHIN_S", "Look"]

WITHIN_S = 2.0
"""Whoever asks gets an answer by then."""


class Look:
    """At most one look at a time, which all who ask meanwhile share.

    look: what is wrong, "" where nothing is; it raises nothing. late: what is said while it takes too long.
    fresh_s: how long its answer holds. For one event loop.
    """

    def __init__(
        self, look: Callable[[], Awaitable[str]], clock: Clock, *, late: str, fresh_s: float = 0.0
    ) -> None:
        self._look = look
        self._clock = clock
        self._late = late
        self._fresh_s = fresh_s
        self._task: asyncio.Task[str] | None = None
        self._began_at = 0.0
        self._said: tuple[float, str] | None = None

    async def wrong(self) -> str:
        """What the look says; never later than WITHIN_S after it began."""
        if self._said is not None and self._clock.now() - self._said[0] < self._fresh_s:
            return self._said[1]
        if self._task is None:
            self._began_at = self._clock.now()
            self._task = asyncio.get_running_loop().create_task(self._looked())
            self._task.add_done_callback(self._over)
        left = self._began_at + WITHIN_S - self._clock.now()
        done, _ = await asyncio.wait([self._task], timeout=max(0.0, left))
        return next((task.result() for task in done if not task.cancelled()), self._late)

    def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _looked(self) -> str:
        said = await self._look()
        self._said = (self._clock.now(), said)
        return said

    def _over(self, _: object) -> None:
        self._task = None
