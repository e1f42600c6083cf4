"""Who is told about draws: a journal that must remember them, and observers that only watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smoothing_proxy.errors import BackendError
from smoothing_proxy.types import Cost, Label, Reply

__all__ = ["CLEAN", "ForgetfulJournal", "Journal", "Observer", "Outcome", "Recalled"]

CLEAN = -1
"""The number of the draw that asks about the picture itself, with neither noise nor denoiser.

Numbers below it ask the same once more, to see whether the classifier still answers as it did.
"""

_ANSWERED, _UNKNOWN, _FREE = Cost(queries=1), Cost(unknown=1), Cost()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one draw ended: answered, or failed where `error` is set.

    label: its vote, None for nothing. reply: what was answered, also where nothing could be made of it.
    """

    draw: int
    label: Label | None
    reply: Reply | None = None
    error: BackendError | None = None

    @property
    def cost(self) -> Cost:
        """Of its last send, in queries alone: an answer was billed, a failure may have been."""
        if self.error is None:
            return _ANSWERED
        return _UNKNOWN if self.error.maybe_billed else _FREE


@dataclass(frozen=True, slots=True)
class Recalled:
    """What is known of a picture from before.

    votes: of the settled draws by number. cost: of all its draws. model_versions: that answered them.
    """

    votes: Mapping[int, Label | None] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    model_versions: frozenset[str] = frozenset()


class Journal(Protocol):
    """Remembers every draw before it is sent and after it is settled, so that none is paid for twice.

    Each method returns once the fact is safe, and raises LedgerError when it cannot be made so.
    """

    async def sent(self, picture: int, draws: Sequence[int]) -> None:
        """These draws are about to be sent in one request. Raises BudgetExceededError when they cost too much."""
        ...

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """These draws are answered, or have failed for good."""
        ...

    async def withdrawn(self, picture: int, draws: Sequence[int], *, maybe_billed: bool = False) -> None:
        """This send of these draws came to nothing; they will be sent again, now or by a later run."""
        ...


class ForgetfulJournal:
    """Remembers nothing: for one certificate in a program that does not want a ledger."""

    async def sent(self, picture: int, draws: Sequence[int]) -> None:
        """Does nothing."""

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """Does nothing."""

    async def withdrawn(self, picture: int, draws: Sequence[int], *, maybe_billed: bool = False) -> None:
        """Does nothing."""


class Observer(Protocol):
    """Watches draws settle, for progress bars and metrics. Called in the event loop: return at once."""

    def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """These draws are answered, or have failed for good."""
        ...

    def withdrawn(self, picture: int, draws: Sequence[int], error: BackendError) -> None:
        """One send of these draws came to nothing; it is charged where `error.maybe_billed`."""
        ...
