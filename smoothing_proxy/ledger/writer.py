"""One thread that writes: whatever was asked while it committed goes into its next transaction."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.exc import OperationalError

from smoothing_proxy.errors import LedgerError

__all__ = ["Rows", "Writer"]

Write: TypeAlias = Callable[[Connection], object]
Waiter: TypeAlias = "Future[None] | asyncio.Future[None]"
Group: TypeAlias = list[tuple[Write, Waiter]]

GROUP = 256
"""Writes that share one transaction, and no more join them."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A write of one statement for each of these rows; its neighbours of the same statement are done with it.

    A statement costs the more, by far, to begin than to repeat.
    """

    statement: Executable
    rows: Sequence[Mapping[str, Any]]

    def __call__(self, connection: Connection) -> None:
        """Write them."""
        connection.execute(self.statement, self.rows)


class Writer:
    """Runs writes in order, in one thread, many to a transaction; each future is done once its write is safe.

    A future fails with LedgerError when its write could not be committed, nothing of it being kept then.
    """

    def __init__(self, engine: Engine, *, where: str) -> None:
        self._engine = engine
        self._where = where
        self._queue: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._soon: dict[asyncio.AbstractEventLoop, Group] = {}
        self._closed = False
        self._door = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> Future[None]:
        """Queue one write. Raises LedgerError when the writer was closed."""
        future: Future[None] = Future()
        self._put(write, future)
        return future

    async def write(self, write: Write) -> None:
        """The same from an event loop, which is woken up once for all writes of a transaction.

        What the loop's tasks ask for in one turn is queued together at its end: an answer, and the send that
        takes its place in flight, then need one transaction, and the send does not wait for the answer's.

        Raises LedgerError also when the write could not be committed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._door:
            self._check_open()
            if loop not in self._soon:
                self._soon[loop] = []
                loop.call_soon(self._queue_all_of, loop)
            self._soon[loop].append((write, future))
        await future

    def _queue_all_of(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._door:
            if loop in self._soon:  # unless the writer was closed meanwhile
                self._queue.put(self._soon.pop(loop))

    def _put(self, write: Write, waiter: Waiter) -> None:
        with self._door:
            self._check_open()
            self._queue.put([(write, waiter)])

    def _check_open(self) -> None:
        if self._closed:  # a write that comes after the end would be waited for in vain
            raise LedgerError(f"{self._where}: the ledger was closed")

    def close(self) -> None:
        """Finish what is queued, then end the thread. Calling it twice is fine."""
        with self._door:
            if self._closed:
                return
            self._closed = True
            for group in self._soon.values():
                self._queue.put(group)
            self._soon.clear()
            self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            group, ended = self._gather()
            if not self._committed(group):
                # One write that cannot be made must not take the others down with it.
                for alone in group:
                    self._committed([alone], last_try=True)

    def _gather(self) -> tuple[Group, bool]:
        """What is queued, at least one write unless the end was asked for; and whether it was."""
        group: Group = []
        while len(group) < GROUP:
            try:
                writes = self._queue.get(block=not group)
            except queue.Empty:
                break
            if writes is None:
                return group, True
            group += writes
        return group, False

    def _committed(self, group: Group, *, last_try: bool = False) -> bool:
        """Whether the whole group is safe; on the last try whoever waits is told that it is not."""
        # Whoever stopped waiting (a cancelled task) still gets the write: it may say that a draw was paid for.
        waiting = [waiter for _, waiter in group if _waits(waiter)]
        try:
            with self._engine.begin() as connection:
                for write in _merged(write for write, _ in group):
                    write(connection)
        except Exception as error:  # noqa: BLE001 (handed to whoever waits for the write)
            if last_try:
                _tell(waiting, self._fault(error))
            return False
        _tell(waiting, None)
        return True

    def _fault(self, error: Exception) -> LedgerError:
        hint = " (is the disk full?)" if isinstance(error, OperationalError) else ""
        reason = getattr(error, "orig", error)
        fault = LedgerError(f"{self._where}: cannot write: {reason}{hint}; what was settled before is kept")
        fault.__cause__ = error
        return fault


def _merged(writes: Iterable[Write]) -> Iterator[Write]:
    """The writes in their order, those of one statement in a row made one."""
    for statement, same in groupby(writes, lambda write: write.statement if isinstance(write, Rows) else None):
        if statement is None:
            yield from same
        else:
            yield Rows(statement, [row for write in same if isinstance(write, Rows) for row in write.rows])


def _waits(waiter: Waiter) -> bool:
    if isinstance(waiter, asyncio.Future):
        return True  # whether it was cancelled is for its loop to see
    # Asked once more where the group failed, and a cancelled one may not be notified twice.
    return waiter.running() or (not waiter.cancelled() and waiter.set_running_or_notify_cancel())


def _tell(waiting: Iterable[Waiter], fault: LedgerError | None) -> None:
    in_loops: dict[asyncio.AbstractEventLoop, list[Waiter]] = {}
    for waiter in waiting:
        if isinstance(waiter, asyncio.Future):
            in_loops.setdefault(waiter.get_loop(), []).append(waiter)
        else:
            _settle([waiter], fault)
    for loop, futures in in_loops.items():
        with suppress(RuntimeError):  # a loop that was closed meanwhile
            loop.call_soon_threadsafe(_settle, futures, fault)


def _settle(waiting: Iterable[Waiter], fault: LedgerError | None) -> None:
    for waiter in waiting:
        if waiter.done():
            continue
        if fault is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(fault)
