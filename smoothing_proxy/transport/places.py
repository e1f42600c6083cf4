"""So many requests in flight at once, and whoever is next in line ready to leave.

Writing a send down takes as long as the disk does. While every place is taken, the next few are written down
already, so that no place stays empty for that long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import final

__all__ = ["Places"]

ONE_READY_FOR = 8
"""Places. A process that dies has so few more sends whose outcome it does not know."""


@final
class Places:
    """in_flight: >= 1. Given out in the order in which they were asked for."""

    def __init__(self, in_flight: int) -> None:
        self._places = asyncio.Semaphore(in_flight)
        ready = in_flight // ONE_READY_FOR
        self._next_in_line = asyncio.Semaphore(ready) if ready else nullcontext()
        self._some_get_ready = ready > 0

    async def take(self, get_ready: Callable[[], Awaitable[None]]) -> None:
        """Wait for a place. get_ready: called where one has to wait for it and is next in line; what it raises
        comes out of here, without a place.
        """
        async with self._next_in_line:
            if self._some_get_ready and self._places.locked():
                await get_ready()
            await self._places.acquire()

    def give_back(self) -> None:
        """Give one place back."""
        self._places.release()
