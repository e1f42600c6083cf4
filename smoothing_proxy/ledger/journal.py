"""The draws of a run in its ledger: the Journal that survives the process.

Every draw has a row before it is sent, and is settled in it afterwards. A row that still says `sent` when the
ledger is opened again was in flight when the process died: its outcome is unknown, it is charged, and the same
draw (the same noise) is sent once more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from smoothing_proxy.errors import MalformedReplyError
from smoothing_proxy.ledger.account import CANARY, Account
from smoothing_proxy.ledger.records import reply_to_json
from smoothing_proxy.ledger.schema import draws
from smoothing_proxy.ledger.writer import Rows, Writer
from smoothing_proxy.smoothing.observe import CLEAN, Outcome
from smoothing_proxy.types import Cost

__all__ = ["DrawJournal", "outcome_columns", "reopen"]

REPLY_BYTES = 16_384
"""Of a malformed reply, as much as is kept."""

_THIS_DRAW = (
    (draws.c.run_id == bindparam("run"))
    & (draws.c.picture_id == bindparam("picture"))
    & (draws.c.number == bindparam("draw"))
)
_SEND = insert(draws)
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
_WITHDRAW = (
    update(draws).where(_THIS_DRAW).values(status="withdrawn", unknown=draws.c.unknown + bindparam("maybe_billed"))
)


def reopen(connection: Connection, run: int) -> set[tuple[int, int]]:
    """Make the draws that a dead process left in flight unknown: they are charged, and sent once more.

    Returns (picture, number) of these, and of the draws that were withdrawn before.
    """
    left = (draws.c.run_id == run) & (draws.c.status == "sent")
    connection.execute(update(draws).where(left).values(status="withdrawn", unknown=draws.c.unknown + 1))
    waiting = select(draws.c.picture_id, draws.c.number).where(
        draws.c.run_id == run, draws.c.status == "withdrawn"
    )
    return {(picture, number) for picture, number in connection.execute(waiting)}


class DrawJournal:
    """Implements the Journal protocol over one run of a ledger; `to_send_again` as `reopen` returned it.

    account: what it charges each send to, and credits once it is written down that a send cost nothing: where that
    cannot be written, both count the send.
    """

    def __init__(self, writer: Writer, run: int, to_send_again: set[tuple[int, int]], account: Account) -> None:
        self._writer = writer
        self._run = run
        self._account = account
        self._to_send_again = to_send_again

    async def sent(self, picture: int, numbers: Sequence[int]) -> None:
        """See Journal.sent."""
        self._account.charge(_payer(picture, numbers[0]), len(numbers))
        now = time.time()
        again = {number for number in numbers if (picture, number) in self._to_send_again}
        self._to_send_again.difference_update((picture, number) for number in again)
        fresh = [self._fresh_row(picture, number, now) for number in numbers if number not in again]
        repeated = [self._key(picture, number) | {"now": now} for number in again]

        if not repeated:
            await self._writer.write(Rows(_SEND, fresh))
            return

        def write(connection: Connection) -> None:
            if fresh:
                connection.execute(_SEND, fresh)
            connection.execute(_SEND_AGAIN, repeated)

        await self._writer.write(write)

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Journal.settled."""
        now = time.time()
        rows = [self._key(picture, x.draw) | outcome_columns(x) | {"now": now} for x in outcomes]
        await self._writer.write(Rows(_SETTLE, rows))
        self._account.credit(_payer(picture, outcomes[0].draw), sum(x.cost == Cost() for x in outcomes))

    async def withdrawn(self, picture: int, numbers: Sequence[int], *, maybe_billed: bool = False) -> None:
        """See Journal.withdrawn."""
        rows = [self._key(picture, number) | {"maybe_billed": int(maybe_billed)} for number in numbers]
        await self._writer.write(Rows(_WITHDRAW, rows))
        if not maybe_billed:
            self._account.credit(_payer(picture, numbers[0]), len(numbers))
        self._to_send_again.update((picture, number) for number in numbers)

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


def _payer(picture: int, draw: int) -> int:
    return CANARY if draw < CLEAN else picture


def outcome_columns(outcome: Outcome) -> dict[str, Any]:
    """How a draw ended, as the parameters of _SETTLE."""
    reply, error = outcome.reply, outcome.error
    return {
        "new_status": "settled" if error is None else "failed",
        "maybe_billed": outcome.cost.unknown,
        "vote": outcome.label,
        "answer": _answer(outcome),
        "version": None if reply is None else _writable(reply.model_version),
        "fault": None if error is None else _writable(f"{type(error).__name__}: {error}"),
    }


def _answer(outcome: Outcome) -> str | None:
    """What was answered, also where nothing could be made of it."""
    if outcome.reply is not None:
        return reply_to_json(outcome.reply)
    if isinstance(outcome.error, MalformedReplyError) and outcome.error.reply:
        return outcome.error.reply[:REPLY_BYTES].decode("utf-8", "backslashreplace")
    return None


def _writable(text: str) -> str:
    """JSON may hold lone surrogates; a database may not."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
