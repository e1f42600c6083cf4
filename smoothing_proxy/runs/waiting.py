"""The pictures of a run that wait for their verdict, handed out as far as the budget reaches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from smoothing_proxy.ledger.account import Account
from smoothing_proxy.ledger.records import PictureRecord

__all__ = ["Waiting"]


class Waiting:
    """records: in the order in which they will be done. queries: the most that one of them can still need."""

    def __init__(
        self, records: Iterable[PictureRecord], queries: Callable[[PictureRecord], int], account: Account
    ) -> None:
        self._records = deque(records)
        self._queries = queries
        self._account = account

    def __len__(self) -> int:
        return len(self._records)

    def take(self) -> PictureRecord | None:
        """The next picture, its queries promised; None when there is none, or its queries cannot be promised now.

        Pictures under way may give back what they did not need, so that a later call can succeed.
        """
        if not self._records or not self._account.promise(self._records[0].id, self._queries(self._records[0])):
            return None
        return self._records.popleft()

    def done(self, record: PictureRecord) -> None:
        """What was promised to this picture and not used is free again."""
        self._account.release(record.id)
