"""Requests that go to the vendor as they came: each is a row of its own, beside the draws.

Every function takes the Connection of a transaction that its caller owns.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, update

from smoothing_proxy.ledger.gateway.database import writable
from smoothing_proxy.ledger.gateway.nouns import Reservation
from smoothing_proxy.ledger.gateway.schema import passes
from smoothing_proxy.types import Cost

__all__ = ["begin", "end", "purge"]

OPERATION_LENGTH = 200


def begin(connection: Connection, reservation: Reservation, operation: str, now: float) -> None:
    """It leaves now, with all that is reserved for it. operation: as the vendor calls it."""
    row = {
        "id": reservation.id,
        "key_id": reservation.key_id,
        "operation": writable(operation)[:OPERATION_LENGTH],
        "units": reservation.queries,
        "state": "sent",
        "sent_at": now,
    }
    connection.execute(insert(passes), [row])


def end(connection: Connection, reservation_id: str, cost: Cost | None, now: float) -> None:
    """It came to this; None where nobody knows."""
    state = "unknown" if cost is None or cost.unknown else "answered" if cost.queries else "refused"
    mine = (passes.c.id == reservation_id) & (passes.c.state == "sent")
    connection.execute(update(passes).where(mine).values(state=state, ended_at=now))


def purge(connection: Connection, before: float) -> None:
    """Forget those that ended before. What was spent is kept."""
    connection.execute(delete(passes).where(passes.c.ended_at < before))
