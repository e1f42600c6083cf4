"""One thread that writes: whatever was asked while it committed goes into its next transaction."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

from sqlalchemy import Connection, Engine

from smoothing_proxy.errors import LedgerError

__all__ = ["Writer"]

Write: TypeAlias = Callable[[Connection], object]

GROUP = 256
"""The most writes that share one transaction."""


class Writer:
    """Runs writes in order, in one thread, many to a transaction; each future is done once its write is safe.

    A future fails with LedgerError when its transaction could not be committed; nothing of that transaction is
    kept then.
    """

    def __init__(self, engine: Engine, *, where: str) -> None:
        self._engine = engine
        self._where = where
        self._queue: queue.SimpleQueue[tuple[Write, Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> Future[None]:
        """Queue one write."""
        future: Future[None] = Future()
        self._queue.put((write, future))
        return future

    def close(self) -> None:
        """Finish what is queued, then end the thread. Calling it twice is fine."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            group, ended = self._gather()
            self._commit(group)

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

    def _commit(self, group: list[tuple[Write, Future[None]]]) -> None:
        # Whoever stopped waiting (a cancelled task) still gets the write: it may say that a draw was paid for.
        waiting = [future for _, future in group if future.set_running_or_notify_cancel()]
        try:
            with self._engine.begin() as connection:
                for write, _ in group:
                    write(connection)
        except Exception as error:  # noqa: BLE001 (handed to whoever waits for the write)
            fault = LedgerError(
                f"{self._where}: cannot write: {getattr(error, 'orig', error)} (is the disk full?); "
                "what was settled before is kept"
            )
            fault.__cause__ = error
            for future in waiting:
                future.set_exception(fault)
        else:
            for future in waiting:
                future.set_result(None)
