"""What is owed to a database that is away: facts that must not be lost, written down once it is back.

An answer that was paid for, the end of a request, the release of a budget: none of them may depend on the database
being there in that very moment. Until they are written the books err on the safe side, since each send was charged
before it was made.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.ledger.gateway.nouns import OutageError

__all__ = ["LooseEnds"]

T = TypeVar("T")

Write: TypeAlias = Callable[[], Awaitable[object]]

_logger = logging.getLogger(__name__)


class LooseEnds:
    """Writes that are owed, by what they are about: those about one thing are made in their order.

    Each is done once at least and perhaps twice, as its first try may have been written although nobody heard so.
    """

    def __init__(self) -> None:
        self._owed: dict[str, deque[Write]] = {}
        self._tying: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def __contains__(self, about: str) -> bool:
        return about in self._owed

    def __bool__(self) -> bool:
        return bool(self._owed)

    async def write(self, about: str, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do it now; or, where the database is away or owes it something about the same, later: None then.

        Raises as `work` does, apart from OutageError.
        """
        if about not in self._owed:
            try:
                return await work()
            except OutageError as error:
                if not self._owed:
                    _logger.warning("%s; what cannot be written now is kept, to be written later", error)
        self.owe(about, work)
        return None

    def owe(self, about: str, work: Write) -> None:
        """Do it later."""
        self._owed.setdefault(about, deque()).append(work)
        self._news.set()

    async def wait(self) -> None:
        """Return once something is owed."""
        while not self._owed:
            self._news.clear()
            await self._news.wait()

    async def tie(self) -> None:
        """Try to write all that is owed, together with whoever tries at the moment; the rest stays owed."""
        if not self._owed:
            return
        if self._tying is None or self._tying.done():
            self._tying = asyncio.get_running_loop().create_task(self._try_all())
        await asyncio.shield(self._tying)

    async def _try_all(self) -> None:
        for about in list(self._owed):
            if not await self._tied(about):
                self._owed[about] = self._owed.pop(about)  # the others first, next time
                return
        _logger.info("what could not be written before is written")

    async def _tied(self, about: str) -> bool:
        owed = self._owed[about]
        while owed:
            try:
                await owed[0]()
            except OutageError:
                return False
            except LedgerError as error:  # it was written before, or is no longer ours to write
                _logger.warning("not written any more: %s", error)
            owed.popleft()
        del self._owed[about]
        return True
