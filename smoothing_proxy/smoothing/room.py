"""Room in memory, given out in the order in which it was asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

__all__ = ["Room"]


class Room:
    """So many places, shared by all pictures of one event loop. places: >= 1."""

    def __init__(self, places: int) -> None:
        self._places = self._free = places
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    @asynccontextmanager
    async def taken(self, count: int) -> AsyncIterator[None]:
        """Wait until `count` places are free, and keep them for as long as the context lasts.

        A count above all the places takes them all.
        """
        count = min(count, self._places)
        turn = anyio.Event()
        self._waiting.append((count, turn))
        self._admit()
        try:
            await turn.wait()
            yield
        finally:
            if turn.is_set():
                self._free += count
            else:
                self._waiting.remove((count, turn))
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            count, turn = self._waiting.popleft()
            self._free -= count
            turn.set()
