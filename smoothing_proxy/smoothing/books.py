"""What becomes of draws while they travel, written into the journal first and told to their stream then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from smoothing_proxy.errors import BackendError
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.smoothing.observe import Journal, Outcome
from smoothing_proxy.types import Reply

__all__ = ["Books", "Copy", "Stream"]

Copy: TypeAlias = tuple[int, EncodedImage]
"""A draw's number, and what is sent for it."""


class Stream(Protocol):
    """The draws of one picture, as its books know them."""

    @property
    def stopped(self) -> bool:
        """Whether nothing more may be sent."""
        ...

    def take_note(self, outcomes: Sequence[Outcome]) -> None:
        """These draws have settled."""
        ...

    def take_back(self, draws: Sequence[int], error: BackendError) -> None:
        """One send of these draws came to nothing, and they will be sent again."""
        ...


class Books:
    """Keeps the books of one delivery (transport.courier.Hooks). outcome: a draw's answer as its outcome."""

    def __init__(
        self,
        journal: Journal,
        outcome: Callable[[int, Reply | BackendError], Outcome],
        picture: int,
        stream: Stream,
    ) -> None:
        self._journal = journal
        self._outcome = outcome
        self._picture = picture
        self._stream = stream
        self._in_flight: set[int] = set()

    def stopped(self) -> bool:
        """See Hooks.stopped."""
        return self._stream.stopped

    async def sending(self, items: Sequence[Copy]) -> None:
        """See Hooks.sending. Raises BudgetExceededError or LedgerError, and nothing is sent then."""
        draws = [draw for draw, _ in items]
        await self._journal.sent(self._picture, draws)
        self._in_flight.update(draws)

    async def returned(self, items: Sequence[Copy], error: BackendError) -> None:
        """See Hooks.returned."""
        draws = [draw for draw, _ in items]
        # First of all: a draw whose end cannot be written down stays written down as sent, which is charged.
        self._in_flight.difference_update(draws)
        await self._journal.withdrawn(self._picture, draws, maybe_billed=error.maybe_billed)
        self._stream.take_back(draws, error)

    async def settled(self, items: Sequence[Copy], answers: Sequence[Reply | BackendError]) -> None:
        """See Hooks.settled."""
        outcomes = [self._outcome(draw, answer) for (draw, _), answer in zip(items, answers, strict=True)]
        self._in_flight.difference_update(draw for draw, _ in items)
        await self._journal.settled(self._picture, outcomes)
        self._stream.take_note(outcomes)

    async def withdrawn(self, items: Sequence[Copy]) -> None:
        """See Hooks.withdrawn. What came back before was written down when it did."""
        draws = [draw for draw, _ in items if draw in self._in_flight]
        if draws:
            self._in_flight.difference_update(draws)
            await self._journal.withdrawn(self._picture, draws)
