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
class _Work:
    """What all who asked the same have in common. payer: the first of them to be answered; it is told the cost."""

    votes: Votes = field(default_factory=Votes)
    replayed: bool = False
    images: tuple[bytes, ...] = ()
    task: asyncio.Task[Sequence[Answered]] | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    payer: Job | None = None


class Job:
    """One request under way, for one of those who asked for it.

    images: of a request some of whose pictures had to be fetched, once they are here.
    """

    def __init__(self, work: _Work | None = None) -> None:
        self._work = work or _Work()

    def joined(self) -> Job:
        """The same request, for somebody else who asks for it."""
        return Job(self._work)

    @property
    def votes(self) -> Votes:
        """On its first picture so far."""
        return self._work.votes

    @property
    def replayed(self) -> bool:
        """Whether nothing had to be asked for it, or nothing for this one who asked."""
        return self._work.replayed or self._work.payer not in (None, self)

    @replayed.setter
    def replayed(self, replayed: bool) -> None:
        self._work.replayed = replayed

    @property
    def images(self) -> tuple[bytes, ...]:
        """See above."""
        return self._work.images

    @images.setter
    def images(self, images: tuple[bytes, ...]) -> None:
        self._work.images = images

    @property
    def task(self) -> asyncio.Task[Sequence[Answered]] | None:
        """That does it."""
        return self._work.task

    @task.setter
    def task(self, task: asyncio.Task[Sequence[Answered]]) -> None:
        self._work.task = task

    def tell(self, votes: Votes) -> None:
        """There are more votes."""
        self._work.votes = votes
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
            await self._work.news.wait()

    async def answers(self, within_s: float) -> Sequence[Answered]:
        """An answer for each picture. Raises RequestFault, and TimeoutError; the work goes on all the same."""
        assert self.task is not None
        answers = await asyncio.wait_for(asyncio.shield(self.task), within_s)
        self._work.payer = self._work.payer or self
        return answers

    def _wake(self) -> None:
        self._work.news.set()
        self._work.news = asyncio.Event()


class Jobs:
    """The requests under way, by caller and ticket."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Job] = {}

    def __len__(self) -> int:
        return len(self._running)

    def find(self, caller: str, ticket: str) -> Job | None:
        """The job about this, for who joins it, if it is under way."""
        job = self._running.get((caller, ticket))
        return None if job is None else job.joined()

    def begin(
        self,
        caller: str,
        ticket: str,
        work: Callable[[Job], Awaitable[Sequence[Answered]]],
        at_end: Callable[[], None],
    ) -> Job:
        """A new job, in a task of its own. at_end: called once it has ended, before anybody hears of it."""
        job = self._running[caller, ticket] = Job()

        async def run() -> Sequence[Answered]:
            return await work(job)

        def ended(task: asyncio.Task[Sequence[Answered]]) -> None:
            del self._running[caller, ticket]
            at_end()
            if not task.cancelled():
                task.exception()  # whoever asked may be gone
            job.ended(task)

        task = job.task = asyncio.get_running_loop().create_task(run())
        task.add_done_callback(ended)
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
