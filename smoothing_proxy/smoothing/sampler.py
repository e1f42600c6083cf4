"""The sampler: numbered draws of many pictures, made, sent and settled at the same time.

Draws are numbered before they are sent. They settle in any order; a plan is told of them in issue order, and only
of the part without a gap, since stopping by completion order breaks the proof when slow answers favour a label.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from smoothing_proxy.errors import BackendError
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.drive import drive
from smoothing_proxy.smoothing.halt import FATAL, Halt
from smoothing_proxy.smoothing.observe import CLEAN, ForgetfulJournal, Journal, Observer, Outcome, Recalled
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.smoothing.plan import Plan
from smoothing_proxy.types import Cost, Draws, Label, Votes

__all__ = ["DrawStream", "Room", "Sampler"]

Verdict = TypeVar("Verdict")

MAKERS = 2
"""Threads that make copies: while one denoises, the other adds noise or encodes."""

CHUNK_PIXELS = 2**22
"""Pixels that one thread makes at a time: 50 MB of float32, whatever the picture's size."""


class Sampler:
    """Draws for any number of pictures over one base classifier, within common limits.

    in_flight: requests under way at once; None takes what the backend recommends. Copies wait in memory only
    for about one round of requests, whatever n is. Make one inside the event loop that uses it.
    """

    def __init__(
        self,
        classifier: BaseClassifier,
        *,
        in_flight: int | None = None,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
        halt: Halt | None = None,
    ) -> None:
        self.classifier = classifier
        self.journal = journal or ForgetfulJournal()
        self.observers = observers
        self.halt = halt or Halt()
        backend = classifier.backend
        in_flight = in_flight or backend.concurrency
        self.requests = anyio.Semaphore(in_flight)
        self.room = Room(in_flight * backend.batch_size + MAKERS * classifier.denoiser.batch_size)
        self.makers = anyio.CapacityLimiter(MAKERS)

    def chunk(self, picture: Picture) -> int:
        """How many copies of this picture are made together: the denoiser's batch, fewer of a large picture."""
        height, width = picture.working_size
        return max(1, min(self.classifier.denoiser.batch_size, CHUNK_PIXELS // (height * width)))

    async def run(self, picture: Picture, plan: Plan[Verdict], recalled: Recalled) -> tuple[Verdict, Cost]:
        """The plan's verdict over this picture's draws, and what they cost.

        Draws that `recalled` knows are told again and not sent. Raises what the halt was asked for, after the
        draws in flight have settled; BackendErrors of single draws are failed votes and never raised.
        """
        self.classifier.check(picture)
        async with _task_group() as tasks:
            stream = DrawStream(self, picture, recalled, tasks)
            verdict = await drive(plan, stream.draw)
        return verdict, stream.cost

    async def clean(self, picture: Picture, recalled: Recalled) -> tuple[Label | None, Cost]:
        """The base classifier's vote on the picture itself, with neither noise nor denoiser: one query."""
        async with _task_group() as tasks:
            stream = DrawStream(self, picture, recalled, tasks)
            vote = await stream.vote_on(CLEAN)
        return vote, stream.cost


class DrawStream:
    """The numbered draws of one picture, from 0 on."""

    def __init__(self, sampler: Sampler, picture: Picture, recalled: Recalled, tasks: TaskGroup) -> None:
        self.cost = recalled.cost
        self._sampler = sampler
        self._picture = picture
        self._tasks = tasks
        self._votes: dict[int, Label | None] = dict(recalled.votes)
        self._issued = 0
        self._told = 0
        self._prefix = 0
        self._under_way = 0
        self._news = anyio.Event()

    async def draw(self, request: Draws) -> Votes:
        """Have `request.count` further draws under way, and tell those that settled without a gap."""
        target = self._told + request.count
        self._issue(range(self._issued, target))
        self._issued = max(self._issued, target)
        needed = self._told + (request.count if request.at_least is None else request.at_least)
        await self._until(lambda: self._advance() >= needed)
        end = min(self._prefix, target)
        votes = Votes.tally(self._votes[number] for number in range(self._told, end))
        self._told = end
        return votes

    async def vote_on(self, number: int) -> Label | None:
        """The vote of one draw, asked for now unless it is known."""
        self._issue([number])
        await self._until(lambda: number in self._votes)
        return self._votes[number]

    def _advance(self) -> int:
        """The length of the settled prefix: draws 0, 1, ... without a gap."""
        while self._prefix in self._votes:
            self._prefix += 1
        return self._prefix

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done():
            if self._under_way == 0:
                self._sampler.halt.check()
            await self._news.wait()

    def _issue(self, numbers: Iterable[int]) -> None:
        fresh = iter([number for number in numbers if number not in self._votes])
        for draws in _batches(fresh, self._sampler.chunk(self._picture)):
            self._under_way += 1
            self._tasks.start_soon(self._settle, draws)

    async def _settle(self, draws: list[int]) -> None:
        """Make one chunk of copies and see every one of them settled; a fault that is fatal halts all pictures."""
        sampler = self._sampler
        try:
            async with sampler.room.for_copies(len(draws)):
                if not sampler.halt.requested:
                    await self._make_and_ask(draws)
        except FATAL as error:
            sampler.halt.request(error)
        finally:
            self._under_way -= 1
            self._tell_news()

    async def _make_and_ask(self, draws: list[int]) -> None:
        sampler = self._sampler
        copies = await anyio.to_thread.run_sync(
            sampler.classifier.copies, self._picture, draws, limiter=sampler.makers
        )
        pairs = iter(list(zip(draws, copies, strict=True)))
        async with anyio.create_task_group() as requests:
            for batch in _batches(pairs, sampler.classifier.backend.batch_size):
                requests.start_soon(self._request, batch)

    async def _request(self, batch: list[tuple[int, EncodedImage]]) -> None:
        sampler = self._sampler
        draws = [draw for draw, _ in batch]
        try:
            async with sampler.requests:
                if sampler.halt.requested:
                    return
                await sampler.journal.sent(self._picture.id, draws)
                outcomes = await self._ask(draws, [copy for _, copy in batch])
            # The next request may leave while this one's outcome is written down.
            await sampler.journal.settled(self._picture.id, outcomes)
        except FATAL as error:
            sampler.halt.request(error)
            return
        for outcome in outcomes:
            self._votes[outcome.draw] = outcome.label
            self.cost += outcome.cost
        for observer in sampler.observers:
            observer.settled(self._picture.id, outcomes)
        self._tell_news()

    async def _ask(self, draws: list[int], copies: list[EncodedImage]) -> list[Outcome]:
        """The outcomes of one request; a failure that is not fatal is a vote for nothing by each draw."""
        try:
            return await self._sampler.classifier.ask(draws, copies)
        except FATAL:
            await self._sampler.journal.withdrawn(self._picture.id, draws)
            raise
        except BackendError as error:
            return [Outcome(draw, None, error=error) for draw in draws]

    def _tell_news(self) -> None:
        self._news.set()
        self._news = anyio.Event()


class Room:
    """Room in memory for so many copies, shared by all pictures."""

    def __init__(self, copies: int) -> None:
        self._free = copies
        self._freed = anyio.Condition()

    @asynccontextmanager
    async def for_copies(self, count: int) -> AsyncIterator[None]:
        """Wait until there is room for `count` copies, and keep it for as long as the context lasts."""
        async with self._freed:
            while self._free < count:
                await self._freed.wait()
            self._free -= count
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                async with self._freed:
                    self._free += count
                    self._freed.notify_all()


@asynccontextmanager
async def _task_group() -> AsyncIterator[TaskGroup]:
    """A task group that raises its host's error as it is, where anyio's would wrap it in a group."""
    fault: Exception | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 (raised again below, whatever it is)
            fault = error
            tasks.cancel_scope.cancel()
    if fault is not None:
        raise fault


Item = TypeVar("Item")


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch
