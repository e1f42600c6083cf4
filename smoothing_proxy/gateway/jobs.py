"""Work that outlives who asked for it: the same question, asked again meanwhile, joins it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from smoothing_proxy.gateway.verdicts import Verdict
from smoothing_proxy.types import Votes
from smoothing_proxy.wire.base import RequestFault

__all__ = ["Answered", "Job", "Jobs"]

Answered: TypeAlias = Verdict | RequestFault


@dataclass(eq=False)
class Job:
    """One request under way. votes: on its first picture so far. replayed: nothing had to be asked for it."""

    votes: Votes = field(default_factory=Votes)
    replayed: bool = False
    task: asyncio.Task[Sequence[Answered]] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, votes: Votes) -> None:
        """There are more votes."""
        self.votes = votes
        self._wake()

    def ended(self, _: object) -> None:
        """The answers are there, or will never be."""
        self._wake()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.task is None or self.task.done()

    async def news(self) -> None:
        """Return once there are more votes, or the answers."""
        if not self.done:
            await self._news.wait()

    async def answers(self, within_s: float) -> Sequence[Answered]:
        """An answer for each picture. Raises RequestFault, and TimeoutError; the work goes on all the same."""
        assert self.task is not None
        return await asyncio.wait_for(asyncio.shield(self.task), within_s)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Jobs:
    """The requests under way, by caller and ticket."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Job] = {}

    def __len__(self) -> int:
        return len(self._running)

    def find(self, caller: str, ticket: str) -> Job | None:
        """The job about this, if it is under way."""
        return self._running.get((caller, ticket))

    def begin(self, caller: str, ticket: str, work: Callable[[Job], Awaitable[Sequence[Answered]]]) -> Job:
        """A new job, in a task of its own."""
        job = self._running[caller, ticket] = Job()

        async def run() -> Sequence[Answered]:
            return await work(job)

        def ended(task: asyncio.Task[Sequence[Answered]]) -> None:
            del self._running[caller, ticket]
            if not task.cancelled():
                task.exception()  # whoever asked may be gone
            job.ended(task)

        job.task = asyncio.get_running_loop().create_task(run())
        job.task.add_done_callback(ended)
        return job

    async def drained(self, within_s: float) -> bool:
        """Wait for what is under way; whether all of it has ended."""
        tasks = [job.task for job in self._running.values() if job.task is not None]
        if not tasks:
            return True
        _, left = await asyncio.wait(tasks, timeout=within_s)
        return not left

    async def cancel(self) -> None:
        """Give up on what is still under way."""
        tasks = [job.task for job in self._running.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
