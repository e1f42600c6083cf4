"""Asking on behalf of attacks: one thread and event loop, numbered draws, the journal that keeps them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from smoothing_proxy.errors import BackendError
from smoothing_proxy.smoothing.observe import ForgetfulJournal, Journal, Outcome
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.types import Cost

__all__ = ["Listener", "Queries", "Renumbered"]

Answer = TypeVar("Answer")


class Queries:
    """The numbers of an attack's paid draws, the journal that keeps them, and the thread that asks.

    journal: of a ledger with a picture for each attacked one, numbered as the subjects are. One of these is shared
    by all that ask the same backend, whose connections live in one event loop. Close it, or use it as a context
    manager; the backend stays the caller's, who may close it with `run(backend.aclose)`.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal or ForgetfulJournal()
        self._next: dict[int, int] = {}
        self._open = ExitStack()
        self._portal = self._open.enter_context(start_blocking_portal())

    def run(self, function: Callable[..., Coroutine[Any, Any, Answer]], *arguments: Any) -> Answer:
        """Call a coroutine function in the thread, and wait for it. Ctrl-C while waiting cancels it."""
        future = self._portal.start_task_soon(function, *arguments)
        try:
            answer: Answer = future.result()
            return answer
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread. Calling it twice is fine."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def numbers(self, subject: int, draws: int) -> int:
        """The first of so many fresh numbers."""
        first = self._next.get(subject, 0)
        self._next[subject] = first + draws
        return first


class Renumbered:
    """A Journal that writes the draws of one query under its subject, from `first` on; CLEAN is `first` itself."""

    def __init__(self, queries: Queries) -> None:
        self._journal = queries.journal
        self._queries = queries
        self._places: dict[int, tuple[int, int]] = {}

    def place(self, query: int, subject: int, draws: int) -> None:
        """What this query's draws are written under."""
        self._places[query] = (subject, self._queries.numbers(subject, draws))

    async def sent(self, picture: int, draws: Sequence[int]) -> None:
        """See Journal.sent."""
        subject, first = self._places[picture]
        await self._journal.sent(subject, [first + max(draw, 0) for draw in draws])

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Journal.settled."""
        subject, first = self._places[picture]
        moved = [Outcome(first + max(x.draw, 0), x.label, x.reply, x.error) for x in outcomes]
        await self._journal.settled(subject, moved)

    async def withdrawn(self, picture: int, draws: Sequence[int], *, maybe_billed: bool = False) -> None:
        """See Journal.withdrawn."""
        subject, first = self._places[picture]
        await self._journal.withdrawn(subject, [first + max(x, 0) for x in draws], maybe_billed=maybe_billed)


class Listener:
    """An Observer that keeps what the raw classifier answered to each query, and what all of it cost."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.cost = Cost()

    def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Observer.settled."""
        self.outcomes[picture] = outcomes[-1]
        self.cost = sum((outcome.cost for outcome in outcomes), self.cost)

    def withdrawn(self, picture: int, draws: Sequence[int], error: BackendError) -> None:
        """See Observer.withdrawn."""
        if error.maybe_billed:
            self.cost += Cost(unknown=len(draws))

    def forget(self, picture: Picture) -> None:
        """Its answers were used."""
        self.outcomes.pop(picture.id, None)
