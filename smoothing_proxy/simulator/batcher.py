"""Pictures that arrive one by one, asked in the classifier's own batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.errors import BackendError, SmoothingProxyError
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.types import Reply

__all__ = ["Batcher"]

Outcome: TypeAlias = Reply | SmoothingProxyError


class Batcher:
    """Keeps a backend busy with full batches: what waits when a request ends makes up the next. Nothing waits
    for a batch to fill up.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: deque[tuple[EncodedImage, asyncio.Future[Outcome]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, copies: Sequence[EncodedImage]) -> list[Outcome]:
        """A reply, or what went wrong, for each copy. One that is cancelled is asked about all the same."""
        loop = asyncio.get_running_loop()
        asked = [(copy, loop.create_future()) for copy in copies]
        self._waiting.extend(asked)
        self._start()
        return [await future for _, future in asked]

    def _start(self) -> None:
        while self._waiting and len(self._tasks) < self._backend.concurrency:
            size = min(len(self._waiting), self._backend.batch_size)
            batch = [self._waiting.popleft() for _ in range(size)]
            task = asyncio.create_task(self._classify(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start()

    async def _classify(self, batch: Sequence[tuple[EncodedImage, asyncio.Future[Outcome]]]) -> None:
        outcomes = await self._outcomes([copy for copy, _ in batch])
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    async def _outcomes(self, copies: Sequence[EncodedImage]) -> Sequence[Outcome]:
        try:
            return await self._backend.classify(copies)
        except SmoothingProxyError as error:
            return [error] * len(copies)
        except Exception as error:  # noqa: BLE001 (a bug in a backend must not leave its askers waiting)
            return [BackendError(f"{type(error).__name__}: {error}")] * len(copies)
