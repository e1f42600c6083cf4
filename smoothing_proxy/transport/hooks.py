"""What the courier tells whoever keeps the books of its deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from smoothing_proxy.errors import BackendError

__all__ = ["Hooks", "Undelivered"]

Carried = TypeVar("Carried", contravariant=True)
Brought = TypeVar("Brought", contravariant=True)


class Undelivered(Exception):  # noqa: N818 (being asked to stop is no error)
    """Some items were not sent, or not sent again, since `stopped()`. Those that were settled are settled."""


class Hooks(Protocol[Carried, Brought]):
    """Who keeps the books. Every item that was sent ends in exactly one of `settled` and `withdrawn`.

    (Unless one of these methods raises, or the task is cancelled: then the last word told of an item stands.) One
    that was to leave next and then could not, since all stops or the vendor is down, is `withdrawn` as well, and
    told as `sending` again where it leaves later.
    """

    def stopped(self) -> bool:
        """Whether nothing more may be sent. Polled while waiting."""
        ...

    async def sending(self, items: Sequence[Carried]) -> None:
        """These leave now, or next of all. What it raises comes out of `deliver`, and nothing is sent."""
        ...

    async def returned(self, items: Sequence[Carried], error: BackendError) -> None:
        """This send of these failed, and it was not their last word: charge it where error.maybe_billed."""
        ...

    async def settled(self, items: Sequence[Carried], answers: Sequence[Brought | BackendError]) -> None:
        """These have their final answers; an error's own maybe_billed speaks of the last send only."""
        ...

    async def withdrawn(self, items: Sequence[Carried]) -> None:
        """These are given back without an answer, or did not leave; what is not charged by now costs nothing."""
        ...
