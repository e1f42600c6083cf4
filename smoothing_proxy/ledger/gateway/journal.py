"""The draws of one request in the gateway's store: the Journal that charges its reservation as it writes.

A draw's row and its charge are one commit, made before the send; many requests share their commits. So whatever
happens to this process, what the vendor billed is at most what is settled and unknown.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, select, update

from smoothing_proxy.ledger.gateway import money
from smoothing_proxy.ledger.gateway.database import Database, UndoError, upsert_of, writable
from smoothing_proxy.ledger.gateway.loose_ends import LooseEnds
from smoothing_proxy.ledger.gateway.nouns import OutageError, Reservation
from smoothing_proxy.ledger.gateway.schema import draws
from smoothing_proxy.ledger.journal import outcome_columns
from smoothing_proxy.smoothing.observe import Outcome, Recalled
from smoothing_proxy.types import Cost, Label, Reply, ScoredLabel

__all__ = ["RequestJournal", "recalled", "replies"]

_IN_FLIGHT = (
    (draws.c.request_id == bindparam("request"))
    & (draws.c.picture == bindparam("of_picture"))
    & (draws.c.number == bindparam("draw"))
    & (draws.c.status == "sent")
)
_SETTLE = (
    update(draws)
    .where(_IN_FLIGHT)
    .values(
        status=bindparam("new_status"),
        unknown=draws.c.unknown + bindparam("maybe_billed"),
        label=bindparam("vote"),
        reply=bindparam("answer"),
        model_version=bindparam("version"),
        error=bindparam("fault"),
        settled_at=bindparam("now"),
    )
)
_WITHDRAW = (
    update(draws)
    .where(_IN_FLIGHT)
    .values(status=bindparam("new_status"), unknown=draws.c.unknown + bindparam("maybe_billed"))
)


_COUNTED = {"preserve_rowcount": True}
"""Of an INSERT, SQLAlchemy counts the rows only when it is told to."""


class RequestJournal:
    """Implements the Journal protocol for the pictures of one request.

    extend: holds further queries when resends need more than was reserved; it raises BudgetExceededError.
    ends: where an outcome is kept while the database is away. It was charged before it was sent, so that whoever
    asked may hear of it; but nothing more is sent before it is written down.
    """

    def __init__(
        self,
        database: Database,
        request_id: str,
        reservation: Reservation,
        extend: Callable[[Reservation, int], Awaitable[None]],
        ends: LooseEnds,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._request_id = request_id
        self._reservation = reservation
        self._extend = extend
        self._ends = ends
        self._clock = clock

    async def sent(self, picture: int, numbers: Sequence[int]) -> None:
        """See Journal.sent."""
        rows = [self._row(picture, number) for number in numbers]

        def write(connection: Connection) -> None:
            money.charge(connection, self._reservation.id, len(rows))
            _must_be_all(_changed(connection, _send(connection.dialect.name), rows), rows)

        await self._all_is_written()
        while True:
            try:
                return await self._database.append(write)
            except money.ShortError:
                await self._extend(self._reservation, len(rows))
            except OutageError:  # the rows may be there all the same, though nothing is sent
                self._ends.owe(self._request_id, lambda: self._append(partial(self._unsend, picture, numbers)))
                raise

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Journal.settled."""
        now = self._clock()
        rows = [self._key(picture, x.draw) | _columns(x) | {"now": now} for x in outcomes]
        answered = sum(x.cost.queries for x in outcomes)
        unbilled = sum(x.cost == Cost() for x in outcomes)
        await self._land(_SETTLE, rows, answered, unbilled)

    async def withdrawn(self, picture: int, numbers: Sequence[int], *, maybe_billed: bool = False) -> None:
        """See Journal.withdrawn."""
        landed = {"new_status": "withdrawn", "maybe_billed": int(maybe_billed)}
        rows = [self._key(picture, number) | landed for number in numbers]
        await self._land(_WITHDRAW, rows, 0, 0 if maybe_billed else len(rows))

    async def _land(self, statement: Any, rows: Sequence[dict[str, Any]], answered: int, unbilled: int) -> None:
        """Draws that were in flight are so no more."""

        def write(connection: Connection) -> None:
            money.note(connection, self._reservation.id, answered=answered, unbilled=unbilled)
            changed = _changed(connection, statement, rows)
            if changed == 0 and self._has_landed(connection, rows):  # by a try that nobody heard of
                money.note(connection, self._reservation.id, answered=-answered, unbilled=-unbilled)
            else:
                _must_be_all(changed, rows)

        await self._ends.write(self._request_id, lambda: self._append(write))

    def _has_landed(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> bool:
        """Whether these draws have come to this before, under this very reservation."""
        wanted = {(row["draw"], row["new_status"]) for row in rows}
        query = select(draws.c.number, draws.c.status).where(*self._mine(rows[0]["of_picture"], dict(wanted)))
        return {(row.number, row.status) for row in connection.execute(query)} == wanted

    def _unsend(self, picture: int, numbers: Sequence[int], connection: Connection) -> None:
        """Those of these draws that are said to be in flight never left."""
        back = update(draws).where(*self._mine(picture, numbers), draws.c.status == "sent")
        unbilled = connection.execute(back.values(status="withdrawn")).rowcount
        if unbilled:
            money.note(connection, self._reservation.id, answered=0, unbilled=unbilled)

    def _mine(self, picture: int, numbers: Iterable[int]) -> Sequence[ColumnElement[bool]]:
        return (
            draws.c.request_id == self._request_id,
            draws.c.picture == picture,
            draws.c.number.in_(list(numbers)),
            draws.c.reservation_id == self._reservation.id,
        )

    async def _append(self, work: Callable[[Connection], None]) -> None:
        await self._database.append(work)

    async def _all_is_written(self) -> None:
        """Raises OutageError where something about this request is still owed to the database."""
        if self._request_id in self._ends:
            await self._ends.tie()
        if self._request_id in self._ends:
            raise OutageError(f"{self._database.where}: is away; nothing more is sent meanwhile")

    def _key(self, picture: int, number: int) -> dict[str, Any]:
        return {"request": self._request_id, "of_picture": picture, "draw": number}

    def _row(self, picture: int, number: int) -> dict[str, Any]:
        return {
            "request_id": self._request_id,
            "picture": picture,
            "number": number,
            "reservation_id": self._reservation.id,
            "status": "sent",
            "sends": 1,
            "unknown": 0,
            "sent_at": self._clock(),
        }


def replies(connection: Connection, request_id: str, picture: int) -> dict[int, Reply]:
    """What the classifier said about a picture's answered draws, by number."""
    query = select(draws.c.number, draws.c.reply, draws.c.model_version).where(
        draws.c.request_id == request_id, draws.c.picture == picture, draws.c.status == "settled"
    )
    return {
        row.number: Reply(tuple(ScoredLabel(*label) for label in json.loads(row.reply)), row.model_version or "")
        for row in connection.execute(query)
    }


def _columns(outcome: Outcome) -> dict[str, Any]:
    columns = outcome_columns(outcome)
    return {name: writable(value) if isinstance(value, str) else value for name, value in columns.items()}


def recalled(connection: Connection, request_id: str, picture: int) -> Recalled:
    """What is settled of a picture's draws, and what all of them have cost so far, in queries."""
    columns = (draws.c.number, draws.c.status, draws.c.label, draws.c.unknown, draws.c.model_version)
    query = select(*columns).where(draws.c.request_id == request_id, draws.c.picture == picture)
    votes: dict[int, Label | None] = {}
    versions: set[str] = set()
    cost = Cost()
    for row in connection.execute(query):
        cost += Cost(queries=int(row.status == "settled"), unknown=row.unknown)
        if row.status in ("settled", "failed"):
            votes[row.number] = row.label
            versions.add(row.model_version or "")
    return Recalled(votes, cost, frozenset(versions - {""}))


@cache  # to build this statement takes longer than to execute it
def _send(kind: str) -> Any:
    """A row for a draw that is sent for the first time, or again after it was withdrawn."""
    fresh = upsert_of(kind, draws)
    again = {
        "status": "sent",
        "sends": draws.c.sends + 1,
        "reservation_id": fresh.excluded.reservation_id,
        "sent_at": fresh.excluded.sent_at,
        "error": None,
    }
    return fresh.on_conflict_do_update(
        index_elements=["request_id", "picture", "number"], set_=again, where=draws.c.status == "withdrawn"
    )


def _changed(connection: Connection, statement: Any, rows: Sequence[dict[str, Any]]) -> int:
    return connection.execute(statement, rows, execution_options=_COUNTED).rowcount


def _must_be_all(changed: int, rows: Sequence[dict[str, Any]]) -> None:
    """Raises, so that the charge is undone too, unless every row was what the statement expects."""
    if changed != len(rows):
        raise UndoError(f"{len(rows) - changed} of {len(rows)} draws are not in the state that was expected")
