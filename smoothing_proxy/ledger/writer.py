"""One thread that writes: whatever was asked while it committed goes into its next transaction."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from smoothing_proxy.errors import LedgerError

__all__ = ["Writer"]

Write: TypeAlias = Callable[[Connection], object]

GROUP = 256
"""The most writes that share one transaction."""


class Writer:
    """Runs writes in order, in one thread, many to a transaction; each future is done once its write is safe.

    A future fails with LedgerError when its write could not be committed, nothing of it being kept then.
    """

    def __init__(self, engine: Engine, *, where: str) -> None:
        self._engine = engine
        self._where = where
        self._queue: queue.SimpleQueue[tuple[Write, Future[None]] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> Future[None]:
        """Queue one write. Raises LedgerError when the writer was closed."""
        if self._closed:
            raise LedgerError(f"{self._where}: the ledger was closed")
        future: Future[None] = Future()
        self._queue.put((write, future))
        return future

    def close(self) -> None:
        """Finish what is queued, then end the thread. Calling it twice is fine."""
        if not self._closed:
            self._closed = True
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

    def _gather(self) -> tuple[list[tuple[Write, Future[None]]], bool]:
        """What is queued, at least one write unless the end was asked for; and whether it was."""
        group: list[tuple[Write, Future[None]]] = []
        while len(group) < GROUP:
            try:
                item = self._queue.get(block=not group)
            except queue.Empty:
                break
            if item is None:
                return group, True
            group.append(item)
        return group, False

    def _committed(self, group: list[tuple[Write, Future[None]]], *, last_try: bool = False) -> bool:
        """Whether the whole group is safe; on the last try whoever waits is told that it is not."""
        # Whoever stopped waiting (a cancelled task) still gets the write: it may say that a draw was paid for.
        waiting = [future for _, future in group if future.running() or future.set_running_or_notify_cancel()]
        try:
            with self._engine.begin() as connection:
                for write, _ in group:
                    write(connection)
        except Exception as error:  # noqa: BLE001 (handed to whoever waits for the write)
            if last_try:
                for future in waiting:
                    future.set_exception(self._fault(error))
            return False
        for future in waiting:
            future.set_result(None)
        return True

    def _fault(self, error: Exception) -> LedgerError:
        hint = " (is the disk full?)" if isinstance(error, OperationalError) else ""
        reason = getattr(error, "orig", error)
        fault = LedgerError(f"{self._where}: cannot write: {reason}{hint}; what was settled before is kept")
        fault.__cause__ = error
        return fault
