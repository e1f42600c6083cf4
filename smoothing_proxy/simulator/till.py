"""What a simulated vendor was sent, answered and billed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PictureTally", "Till"]


@dataclass(slots=True)
class PictureTally:
    """One picture's record. sends: requests that held it. billed: how often. answered: replies written out."""

    sends: int = 0
    billed: int = 0
    answered: int = 0


@dataclass(slots=True)
class Till:
    """The books, by picture: the sha256 of its bytes as they were sent, in hex.

    requests: how many began to arrive. outcomes: how many ended in which way: a Fate, or a Fault of the request.
    billed: pictures, in all. answered: pictures whose answer was written to a client that was still there.
    sent_again: sends of a picture that had been answered before.
    Until a request has ended it is in no outcome, though its pictures may be billed.
    """

    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    billed: int = 0
    answered: int = 0
    sent_again: int = 0
    pictures: dict[str, PictureTally] = field(default_factory=dict)

    def sent(self, images: Iterable[bytes]) -> tuple[str, ...]:
        """Note that these pictures were sent. Returns their digests, by which the rest of the books goes."""
        digests = tuple(hashlib.sha256(image).hexdigest() for image in images)
        for digest in digests:
            tally = self.pictures.get(digest)
            if tally is None:
                tally = self.pictures[digest] = PictureTally()
            tally.sends += 1
            self.sent_again += tally.answered > 0
        return digests

    def bill(self, digests: Iterable[str]) -> None:
        """Note that these pictures are paid for."""
        for digest in digests:
            self.billed += 1
            self.pictures[digest].billed += 1

    def answer(self, digests: Iterable[str]) -> None:
        """Note that the answers about these pictures were written out."""
        for digest in digests:
            self.answered += 1
            self.pictures[digest].answered += 1

    def end(self, outcome: str) -> None:
        """Note how a request ended."""
        self.outcomes[outcome] += 1

    def report(self, *, by_picture: bool = False) -> dict[str, Any]:
        """The books as JSON values. by_picture: with `pictures`, digest -> sends, billed, answered."""
        totals = {
            "requests": self.requests,
            "outcomes": dict(sorted(self.outcomes.items())),
            "throttled": self.outcomes["throttled"],
            "billed": self.billed,
            "answered": self.answered,
            "sent_again": self.sent_again,
            "distinct": len(self.pictures),
        }
        return totals | ({"pictures": self._by_picture()} if by_picture else {})

    def _by_picture(self) -> dict[str, dict[str, int]]:
        return {
            digest: {"sends": tally.sends, "billed": tally.billed, "answered": tally.answered}
            for digest, tally in self.pictures.items()
        }
