"""The sampler: numbered draws of many pictures, made, sent and settled at the same time.

Draws are numbered before they are sent. They settle in any order; a plan is told of them in issue order, and only
of the part without a gap, since stopping by completion order breaks the proof when slow answers favour a label.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from smoothing_proxy.denoisers.base import FixedBatches
from smoothing_proxy.errors import BackendError, ConfigError, ModelChangedError
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.books import Books, Copy
from smoothing_proxy.smoothing.drive import drive
from smoothing_proxy.smoothing.halt import FATAL, Halt
from smoothing_proxy.smoothing.observe import CLEAN, ForgetfulJournal, Journal, Observer, Outcome, Recalled
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.smoothing.plan import Plan
from smoothing_proxy.smoothing.room import Room
from smoothing_proxy.transport.courier import Courier, Undelivered
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Cost, Draws, Label, Reply, Votes

__all__ = ["DrawStream", "Sampler", "task_group"]

Verdict = TypeVar("Verdict")

MAKERS = 2
"""Threads that make copies: while one denoises, the other adds noise or encodes."""

PARTS = 2 * MAKERS
"""Of a few copies, each made on its own: while one part is made the others travel."""

SMALLEST_PART = 4
"""Copies that are worth a walk to another thread."""

CHUNK_PIXELS = 2**22
"""Pixels that one thread makes at a time: 50 MB of float32, whatever the picture's size."""

ON_THIS_MACHINE = TransportSettings(
    requests_per_s=100_000, attempts=1, resends_after_unknown=0, throttle_attempts=1, circuit_failures=10_000
)

COPY_PIXELS = 2**20
"""A larger copy takes the room of several."""


class Sampler:
    """Draws for any number of pictures over one base classifier, within common limits.

    in_flight: requests under way at once; None takes what the backend recommends. Copies wait in memory only
    for about one round of requests, whatever n is. transport: retries, rate and outages; None takes the defaults
    for a vendor, and for a classifier on this machine neither limits nor retries.
    Raises ConfigError when in_flight is below 1, or more than a remote backend sends at once.
    """

    def __init__(
        self,
        classifier: BaseClassifier,
        *,
        in_flight: int | None = None,
        transport: TransportSettings | None = None,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        backend = classifier.backend
        in_flight = backend.concurrency if in_flight is None else in_flight
        if backend.remote and in_flight > backend.concurrency:
            raise ConfigError(
                f"in_flight is {in_flight}, and {backend.name} sends {backend.concurrency} requests at once: make "
                f"it with concurrency={in_flight}, or leave in_flight out"
            )
        self.classifier = classifier
        self.journal = journal or ForgetfulJournal()
        self.observers = observers
        if transport is None:
            transport = TransportSettings() if backend.remote else ON_THIS_MACHINE
        self.courier = Courier(transport, in_flight=in_flight, backend=backend.name)
        self.room = Room(in_flight * backend.batch_size + MAKERS * classifier.denoiser.batch_size)
        self.makers = anyio.CapacityLimiter(MAKERS)

    async def run(
        self, picture: Picture, plan: Plan[Verdict], recalled: Recalled, halt: Halt | None = None
    ) -> tuple[Verdict, Cost]:
        """The plan's verdict over this picture's draws, and what they cost.

        Draws that `recalled` knows are told again and not sent. halt: shared by what must stop together.
        Raises what the halt was asked for, ModelChangedError when the classifier changed between draws, and
        ImageError when a copy cannot be encoded, each after the draws in flight have settled. BackendErrors of
        single draws are failed votes and never raised.
        """
        self.classifier.check(picture)
        async with task_group() as tasks:
            stream = DrawStream(self, picture, recalled, tasks, halt or Halt())
            try:
                verdict = await drive(plan, stream.draw)
            finally:
                stream.end()
        return verdict, stream.cost

    async def clean(
        self, picture: Picture, recalled: Recalled, halt: Halt | None = None, *, number: int = CLEAN
    ) -> tuple[Label | None, Cost]:
        """The base classifier's vote on the picture itself, with neither noise nor denoiser: one query.

        number: CLEAN or below, each its own draw.
        """
        async with task_group() as tasks:
            stream = DrawStream(self, picture, recalled, tasks, halt or Halt())
            vote = await stream.vote_on(number)
        return vote, stream.cost

    def chunk(self, picture: Picture, count: int) -> int:
        """How many of `count` copies of this picture are made together.

        The denoiser's batch, fewer of a large picture, and of a few copies a part; but whole batches, where the
        denoiser computes these anyway.
        """
        height, width = picture.working_size
        denoiser = self.classifier.denoiser
        most = max(1, min(denoiser.batch_size, CHUNK_PIXELS // (height * width)))
        rows = denoiser.rows(height, width) if isinstance(denoiser, FixedBatches) else 1
        wanted = max(SMALLEST_PART, math.ceil(count / PARTS))
        return min(most, max(1, min(math.ceil(wanted / rows), most // rows)) * rows)


class DrawStream:
    """The numbered draws of one picture, from 0 on."""

    def __init__(
        self, sampler: Sampler, picture: Picture, recalled: Recalled, tasks: TaskGroup, halt: Halt
    ) -> None:
        self.cost = recalled.cost
        self.picture_id = picture.id
        self.sampler = sampler
        self._picture = picture
        self._tasks = tasks
        self._halt = halt
        self._fault: Exception | None = None
        self._ended = False
        self._votes: dict[int, Label | None] = dict(recalled.votes)
        self._versions = set(recalled.model_versions)
        self._issued = 0
        self._told = 0
        self._prefix = 0
        self._under_way = 0
        self._news: asyncio.Future[None] | None = None
        self._awaited: Callable[[], bool] = bool

    async def draw(self, request: Draws) -> Votes:
        """Have `request.count` further draws under way, and tell the next `at_least` in issue order."""
        target = self._told + request.count
        self._issue(range(self._issued, target))
        self._issued = max(self._issued, target)
        end = self._told + request.answered
        await self._until(lambda: self._advance() >= end)
        votes = Votes.tally(self._votes[number] for number in range(self._told, end))
        self._told = end
        return votes

    async def vote_on(self, number: int) -> Label | None:
        """The vote of one draw, asked for now unless it is known."""
        self._issue([number])
        await self._until(lambda: number in self._votes)
        return self._votes[number]

    def end(self) -> None:
        """Send nothing more; what is in flight still settles."""
        self._ended = True

    def _advance(self) -> int:
        """The length of the settled prefix: draws 0, 1, ... without a gap."""
        while self._prefix in self._votes:
            self._prefix += 1
        return self._prefix

    async def _until(self, done: Callable[[], bool]) -> None:
        while True:
            if self._under_way == 0 or self.stopped:
                await self._raise_once_settled()
            if len(self._versions) > 1:
                self._fault = self._fault or self._model_changed()
                continue
            if done():
                return
            await self._news_that(lambda: done() or len(self._versions) > 1 or self.stopped)

    async def _raise_once_settled(self) -> None:
        while self.stopped and self._under_way > 0:
            await self._news_that(lambda: False)
        if self._fault is not None:
            raise self._fault
        self._halt.check()

    @property
    def stopped(self) -> bool:
        """Whether nothing more may be sent."""
        return self._ended or self._fault is not None or self._halt.requested

    def _model_changed(self) -> ModelChangedError:
        versions = ", ".join(sorted(self._versions))
        name = self.sampler.classifier.backend.name
        return ModelChangedError(
            f"{name}: its model changed between the draws of one picture ({versions}); this certificate is void",
            backend=name,
        )

    def _issue(self, numbers: Iterable[int]) -> None:
        fresh = [number for number in numbers if number not in self._votes]
        for draws in _batches(iter(fresh), self.sampler.chunk(self._picture, len(fresh))):
            self._under_way += 1
            self._tasks.start_soon(self._settle, draws)

    async def _settle(self, draws: list[int]) -> None:
        """Make one chunk of copies and see every one of them settled, unless something stops it."""
        try:
            async with self.sampler.room.taken(self._size(draws)):
                if not self.stopped:
                    await self._make_and_ask(draws)
        except Exception as error:  # noqa: BLE001 (raised by `draw` once everything in flight has settled)
            self._stop(error)
        finally:
            self._under_way -= 1
            self._tell_news()

    def _size(self, draws: Sequence[int]) -> int:
        height, width = self._picture.working_size
        return len(draws) * max(1, height * width // COPY_PIXELS)

    def _stop(self, error: Exception) -> None:
        """What says nothing about this picture stops all of them; anything else stops this one."""
        if isinstance(error, FATAL):
            self._halt.request(error)
        else:
            self._fault = self._fault or error

    async def _make_and_ask(self, draws: list[int]) -> None:
        sampler = self.sampler
        copies = await anyio.to_thread.run_sync(
            sampler.classifier.copies, self._picture, draws, limiter=sampler.makers
        )
        pairs = iter(list(zip(draws, copies, strict=True)))
        async with asyncio.TaskGroup() as requests:  # a third of what anyio's costs
            for batch in _batches(pairs, sampler.classifier.backend.batch_size):
                requests.create_task(self._request(batch))

    async def _request(self, batch: list[Copy]) -> None:
        try:
            await self.sampler.courier.deliver(batch, self._ask, self._books())
        except Undelivered:
            pass
        except Exception as error:  # noqa: BLE001 (raised by `draw` once everything in flight has settled)
            self._stop(error)

    def _books(self) -> Books:
        sampler = self.sampler
        return Books(sampler.journal, sampler.classifier.outcome, self.picture_id, self)

    async def _ask(self, batch: Sequence[Copy]) -> Sequence[Reply | BackendError]:
        return await self.sampler.classifier.ask([copy for _, copy in batch])

    def take_note(self, outcomes: Sequence[Outcome]) -> None:
        """These draws have settled."""
        for outcome in outcomes:
            self._votes[outcome.draw] = outcome.label
            self.cost += outcome.cost
            if outcome.reply is not None and outcome.reply.model_version:
                self._versions.add(outcome.reply.model_version)
        for observer in self.sampler.observers:
            observer.settled(self.picture_id, outcomes)
        self._tell_news()

    def take_back(self, draws: Sequence[int], error: BackendError) -> None:
        """One send of these draws came to nothing, and they will be sent again."""
        if error.maybe_billed:
            self.cost += Cost(unknown=len(draws))
        for observer in self.sampler.observers:
            observer.withdrawn(self.picture_id, draws, error)

    async def _news_that(self, awaited: Callable[[], bool]) -> None:
        """Wait for what is awaited, or until nothing is under way: most news is neither."""
        self._awaited, self._news = awaited, asyncio.get_running_loop().create_future()
        await self._news

    def _tell_news(self) -> None:
        news = self._news
        if news is not None and not news.done() and (self._under_way == 0 or self._awaited()):
            news.set_result(None)


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """A task group that lets its tasks finish, and raises its host's error as it is, not wrapped in a group."""
    fault: Exception | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 (raised again below, whatever it is)
            fault = error
    if fault is not None:
        raise fault


Item = TypeVar("Item")


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch
