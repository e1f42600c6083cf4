"""The pictures of a run that wait for their verdict, handed out as far as the budget reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from smoothing_proxy.ledger.account import Account
from smoothing_proxy.ledger.records import PictureRecord

__all__ = ["Waiting"]


class Waiting:
    """records: in the order in which they will be done. queries: the most that one of them can still need."""

    def __init__(
        self, records: Iterable[PictureRecord], queries: Callable[[PictureRecord], int], account: Account
    ) -> None:
        self._records = list(records)
        self._short: list[PictureRecord] = []
        self._queries = queries
        self._account = account

    def __len__(self) -> int:
        return len(self._records)

    def take(self) -> PictureRecord | None:
        """The next picture whose queries can be promised; None when there is none.

        Pictures under way may give back what they did not need, so that a later call can succeed.
        """
        for record in self._records:
            if self._account.promise(record.id, self._queries(record)):
                self._records.remove(record)
                return record
        return None

    def put_back(self, record: PictureRecord) -> None:
        """The budget ended in the middle of this picture: what it has settled counts when it is taken again."""
        self._account.release(record.id)
        self._short.append(record)

    @property
    def short(self) -> bool:
        """Whether a picture is left that the budget does not reach for."""
        return bool(self._records or self._short)

    def done(self, record: PictureRecord) -> None:
        """What was promised to this picture and not used is free again."""
        self._account.release(record.id)
