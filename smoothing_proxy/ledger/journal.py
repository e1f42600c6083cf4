"""The draws of a run in its ledger: the Journal that survives the process.

Every draw has a row before it is sent, and is settled in it afterwards. A row that still says `sent` when the
ledger is opened again was in flight when the process died: its outcome is unknown, it is charged, and the same
draw (the same noise) is sent once more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, func, insert, select, update
from sqlalchemy.sql.dml import Insert, Update

from smoothing_proxy.ledger.records import reply_to_json
from smoothing_proxy.ledger.schema import draws
from smoothing_proxy.ledger.writer import Writer
from smoothing_proxy.smoothing.observe import CLEAN, Outcome, Recalled
from smoothing_proxy.types import Cost, Label

__all__ = ["DrawJournal", "reopen"]

_THIS_DRAW = (
    (draws.c.run_id == bindparam("run"))
    & (draws.c.picture_id == bindparam("picture"))
    & (draws.c.number == bindparam("draw"))
)
_SEND_AGAIN = (
    update(draws)
    .where(_THIS_DRAW)
    .values(status="sent", sends=draws.c.sends + 1, sent_at=bindparam("now"), error=None)
)
_SETTLE = (
    update(draws)
    .where(_THIS_DRAW)
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
_WITHDRAW = update(draws).where(_THIS_DRAW).values(status="withdrawn")


def reopen(connection: Connection, run: int) -> None:
    """Make the draws that a dead process left in flight unknown, to be charged and sent once more."""
    left = (draws.c.run_id == run) & (draws.c.status == "sent")
    connection.execute(update(draws).where(left).values(status="withdrawn", unknown=draws.c.unknown + 1))


class DrawJournal:
    """Implements the Journal protocol over one run of a ledger."""

    def __init__(self, engine: Engine, writer: Writer, run: int) -> None:
        self._engine = engine
        self._writer = writer
        self._run = run
        self._to_send_again = self._withdrawn_before()

    async def sent(self, picture: int, numbers: Sequence[int]) -> None:
        """See Journal.sent."""
        now = time.time()
        again = {number for number in numbers if (picture, number) in self._to_send_again}
        self._to_send_again.difference_update((picture, number) for number in again)
        fresh = [self._fresh_row(picture, number, now) for number in numbers if number not in again]
        repeated = [self._key(picture, number) | {"now": now} for number in again]

        def write(connection: Connection) -> None:
            if fresh:
                connection.execute(insert(draws), fresh)
            if repeated:
                connection.execute(_SEND_AGAIN, repeated)

        await self._write(write)

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Journal.settled."""
        now = time.time()
        await self._execute(_SETTLE, [self._key(picture, x.draw) | _settled(x) | {"now": now} for x in outcomes])

    async def withdrawn(self, picture: int, numbers: Sequence[int]) -> None:
        """See Journal.withdrawn."""
        await self._execute(_WITHDRAW, [self._key(picture, number) for number in numbers])
        self._to_send_again.update((picture, number) for number in numbers)

    def recall(self, picture: int) -> Recalled:
        """What is settled of a picture's draws, and what all of its draws have cost so far, in queries."""
        query = select(draws.c.number, draws.c.status, draws.c.label, draws.c.unknown).where(
            draws.c.run_id == self._run, draws.c.picture_id == picture
        )
        votes: dict[int, Label | None] = {}
        cost = Cost()
        with self._engine.connect() as connection:
            for number, status, label, unknown in connection.execute(query):
                cost += Cost(queries=int(status == "settled"), unknown=unknown)
                if status in ("settled", "failed"):
                    votes[number] = label
        return Recalled(votes, cost)

    def cost(self) -> Cost:
        """What all draws of the run have cost so far, in queries."""
        query = select(
            func.count().filter(draws.c.status == "settled"), func.coalesce(func.sum(draws.c.unknown), 0)
        ).where(draws.c.run_id == self._run)
        with self._engine.connect() as connection:
            queries, unknown = connection.execute(query).one()
        return Cost(queries=queries, unknown=unknown)

    def failures(self) -> dict[str, int]:
        """Why draws failed for good, with how many did, most first."""
        query = (
            select(draws.c.error, func.count())
            .where(draws.c.run_id == self._run, draws.c.status == "failed")
            .group_by(draws.c.error)
            .order_by(func.count().desc(), draws.c.error)
        )
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def clean_pictures(self) -> int:
        """How many pictures the classifier was asked about as they are."""
        query = select(func.count()).where(draws.c.run_id == self._run, draws.c.number == CLEAN)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def model_versions(self) -> list[str]:
        """Every model version that answered, in alphabetical order."""
        query = select(draws.c.model_version).where(draws.c.run_id == self._run).distinct()
        with self._engine.connect() as connection:
            return sorted(version for (version,) in connection.execute(query) if version)

    def _withdrawn_before(self) -> set[tuple[int, int]]:
        query = select(draws.c.picture_id, draws.c.number).where(
            draws.c.run_id == self._run, draws.c.status == "withdrawn"
        )
        with self._engine.connect() as connection:
            return {(picture, number) for picture, number in connection.execute(query)}

    def _key(self, picture: int, number: int) -> dict[str, Any]:
        return {"run": self._run, "picture": picture, "draw": number}

    def _fresh_row(self, picture: int, number: int, now: float) -> dict[str, Any]:
        return {
            "run_id": self._run,
            "picture_id": picture,
            "number": number,
            "status": "sent",
            "sends": 1,
            "unknown": 0,
            "sent_at": now,
        }

    async def _execute(self, statement: Insert | Update, rows: Sequence[Mapping[str, Any]]) -> None:
        await self._write(lambda connection: _execute(connection, statement, rows))

    async def _write(self, write: Callable[[Connection], None]) -> None:
        await asyncio.wrap_future(self._writer.submit(write))


def _settled(outcome: Outcome) -> dict[str, Any]:
    reply, error = outcome.reply, outcome.error
    return {
        "new_status": "settled" if error is None else "failed",
        "maybe_billed": outcome.cost.unknown,
        "vote": outcome.label,
        "answer": None if reply is None else reply_to_json(reply),
        "version": None if reply is None else reply.model_version,
        "fault": None if error is None else f"{type(error).__name__}: {error}",
    }


def _execute(connection: Connection, statement: Insert | Update, rows: Sequence[Mapping[str, Any]]) -> None:
    connection.execute(statement, rows)
