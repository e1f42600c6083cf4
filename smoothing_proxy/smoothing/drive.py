"""The two drivers of a plan: one awaits its votes, one has them already."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Generic, TypeVar

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.types import Draws, Label, Votes

__all__ = ["Recording", "Tape", "drive", "replay"]

Verdict = TypeVar("Verdict")
Told = TypeVar("Told")
Item = TypeVar("Item")


async def drive(plan: Generator[Draws, Told, Verdict], draw: Callable[[Draws], Awaitable[Told]]) -> Verdict:
    """Answer every request of the plan through `draw`; returns the plan's verdict."""
    try:
        request = next(plan)
        while True:
            request = plan.send(await draw(request))
    except StopIteration as verdict:
        return verdict.value  # type: ignore[no-any-return]  # StopIteration does not know the plan's type


def replay(plan: Generator[Draws, Told, Verdict], draw: Callable[[Draws], Told]) -> Verdict:
    """Answer every request of the plan at once, without a call to anybody."""
    try:
        request = next(plan)
        while True:
            request = plan.send(draw(request))
    except StopIteration as verdict:
        return verdict.value  # type: ignore[no-any-return]  # StopIteration does not know the plan's type


class Tape(Generic[Item]):
    """What each draw answered before, told again in issue order.

    Raises LedgerError where a plan asks for more draws than were recorded.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._told = 0

    def take(self, request: Draws) -> Sequence[Item]:
        """The next recorded answers, as many as the live answer held."""
        remaining = len(self._items) - self._told
        if remaining < request.answered:
            asked = f"the {request.phase} phase asks for {request.answered} draws"
            raise LedgerError(f"the recording ends: {asked}, {remaining} remain")
        end = self._told + request.answered
        items = self._items[self._told : end]
        self._told = end
        return items


class Recording:
    """Votes that were cast before, told again in issue order.

    votes: the label of each draw, None for a draw that voted for nothing. Raises LedgerError where the plan asks
    for more draws than were recorded.
    """

    def __init__(self, votes: Sequence[Label | None]) -> None:
        self._tape = Tape(votes)

    def __call__(self, request: Draws) -> Votes:
        """The next recorded votes, as many as the live answer held."""
        return Votes.tally(self._tape.take(request))
