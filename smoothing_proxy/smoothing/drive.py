"""The two drivers of a plan: one awaits its votes, one has them already."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.smoothing.plan import Plan
from smoothing_proxy.types import Draws, Label, Votes

__all__ = ["Recording", "drive", "replay"]

Verdict = TypeVar("Verdict")


async def drive(plan: Plan[Verdict], draw: Callable[[Draws], Awaitable[Votes]]) -> Verdict:
    """Answer every request of the plan through `draw`; returns the plan's verdict."""
    try:
        request = next(plan)
        while True:
            request = plan.send(await draw(request))
    except StopIteration as verdict:
        return verdict.value  # type: ignore[no-any-return]  # StopIteration does not know the plan's type


def replay(plan: Plan[Verdict], draw: Callable[[Draws], Votes]) -> Verdict:
    """Answer every request of the plan at once, without a call to anybody."""
    try:
        request = next(plan)
        while True:
            request = plan.send(draw(request))
    except StopIteration as verdict:
        return verdict.value  # type: ignore[no-any-return]  # StopIteration does not know the plan's type


class Recording:
    """Votes that were cast before, told again in issue order.

    votes: the label of each draw, None for a draw that voted for nothing. Raises LedgerError where the plan asks
    for more draws than were recorded.
    """

    def __init__(self, votes: Sequence[Label | None]) -> None:
        self._votes = votes
        self._told = 0

    def __call__(self, request: Draws) -> Votes:
        """The next recorded votes, as many as the live answer held."""
        remaining = len(self._votes) - self._told
        if remaining < request.answered:
            asked = f"the {request.phase} phase asks for {request.answered} draws"
            raise LedgerError(f"the recording ends: {asked}, {remaining} remain")
        end = self._told + request.answered
        votes = Votes.tally(self._votes[self._told : end])
        self._told = end
        return votes
