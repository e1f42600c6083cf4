"""Requests and their verdicts: who asks the same once more gets the same answer, and nobody pays for it twice.

Every function takes the Connection of a transaction that its caller owns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from smoothing_proxy.errors import LedgerError, ModelChangedError
from smoothing_proxy.ledger.gateway.database import upsert, writable
from smoothing_proxy.ledger.gateway.nouns import (
    Begun,
    Finished,
    Fresh,
    RequestConflictError,
    Running,
    StoreSettings,
)
from smoothing_proxy.ledger.gateway.replicas import alive
from smoothing_proxy.ledger.gateway.schema import draws, pictures, requests, reservations
from smoothing_proxy.types import Cost

__all__ = ["Ask", "Orphaned", "fail", "finish", "look", "purge", "take", "verdict"]

PURGED_AT_ONCE = 500
"""Requests of one transaction of a purge."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One arrival of a request, at the time `now`, on a replica."""

    key_id: str
    idempotency_id: str | None
    body_sha256: str
    settings_sha256: str
    replica: str
    now: float

    @property
    def identity(self) -> str:
        """What makes it the same request as another of its key; without an id, that it asks the same."""
        parts = (
            ["id", self.idempotency_id] if self.idempotency_id else ["", self.body_sha256, self.settings_sha256]
        )
        return hashlib.sha256("\n".join(parts).encode(errors="backslashreplace")).hexdigest()


@dataclass(frozen=True, slots=True)
class Orphaned:
    """It is said to be running on a replica that is dead."""

    replica: str
    request_id: str = ""


def look(connection: Connection, ask: Ask, settings: StoreSettings) -> Begun | Orphaned | None:
    """What is known of the request; None when the work is to be done, now or again.

    Raises RequestConflictError when its id came before with another body, or asks otherwise about the same one.
    """
    row = _same(connection, ask)
    if row is None or _forgotten(row, ask, settings):
        return None
    if row.body_sha256 != ask.body_sha256:
        raise RequestConflictError(
            "this idempotency id was used before with another body; a new request needs a new id"
        )
    if row.state == "failed":
        return None
    if row.settings_sha256 != ask.settings_sha256:
        raise RequestConflictError(
            "this idempotency id was used before with other settings; a new request needs a new id"
        )
    if row.state == "finished":
        return Finished(row.id, row.verdict)
    if row.replica == ask.replica or alive(connection, row.replica, ask.now - settings.lease_s):
        return Running(row.id, row.replica)
    return Orphaned(row.replica, row.id)


def take(connection: Connection, ask: Ask, settings: StoreSettings, new_id: str) -> Begun | Orphaned:
    """Make the request this replica's, unless somebody was faster. Raises as `look`."""
    if _inserted(connection, ask, new_id):
        return Fresh(new_id)
    connection.execute(select(requests.c.id).where(*_identity(ask)).with_for_update())
    found = look(connection, ask, settings)
    if found is not None:
        return found
    row = _same(connection, ask)
    if row is None:  # purged in the moment before
        return Orphaned(ask.replica)
    if _goes_on(row, ask, settings):
        again = {"state": "running", "replica": ask.replica, "attempt": row.attempt + 1, "error": None}
        connection.execute(update(requests).where(requests.c.id == row.id).values(**again, ended_at=None))
        return Fresh(row.id, row.attempt + 1)
    connection.execute(update(requests).where(requests.c.id == row.id).values(identity=None))
    connection.execute(insert(requests), [_row(ask, new_id)])
    return Fresh(new_id)


def finish(connection: Connection, request_id: str, replica: str, verdict: str, cost: Cost, now: float) -> None:
    """Keep the verdict. Raises LedgerError when the request is no longer this replica's."""
    ended = {"queries": cost.queries, "unknown": cost.unknown, "usd": cost.usd, "ended_at": now}
    statement = (
        update(requests)
        .where(requests.c.id == request_id, requests.c.state == "running", requests.c.replica == replica)
        .values(state="finished", verdict=verdict, **ended)
    )
    if connection.execute(statement).rowcount != 1:
        raise LedgerError(
            f"request {request_id}: this replica was taken for dead, and the request is no longer its own"
        )


def fail(connection: Connection, request_id: str, replica: str, error: Exception | str, now: float) -> None:
    """Let the request be asked again, with the draws that it has; without them where the classifier changed."""
    said = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    void = {"identity": None} if isinstance(error, ModelChangedError) else {}
    connection.execute(
        update(requests)
        .where(requests.c.id == request_id, requests.c.state == "running", requests.c.replica == replica)
        .values(state="failed", error=writable(said), ended_at=now, **void)
    )


def verdict(connection: Connection, request_id: str, key_id: str) -> str | None:
    """The verdict of a request, if it is finished and was made with this key."""
    query = select(requests.c.verdict).where(requests.c.id == writable(request_id), requests.c.key_id == key_id)
    return connection.execute(query.where(requests.c.state == "finished")).scalar()


def purge(connection: Connection, before: float) -> int:
    """Forget some requests that ended before, with their draws; returns how many. What was spent is kept."""
    connection.execute(delete(reservations).where(reservations.c.closed_at < before))
    old = select(requests.c.id).where(requests.c.ended_at < before).limit(PURGED_AT_ONCE)
    ids = list(connection.execute(old).scalars())
    # A failed one may have been taken up again in this moment.
    gone = delete(requests).where(requests.c.id.in_(ids), requests.c.ended_at < before).returning(requests.c.id)
    ids = list(connection.execute(gone).scalars())
    connection.execute(delete(draws).where(draws.c.request_id.in_(ids)))
    connection.execute(delete(pictures).where(pictures.c.request_id.in_(ids)))
    return len(ids)


def _same(connection: Connection, ask: Ask) -> Row[Any] | None:
    return connection.execute(select(requests).where(*_identity(ask))).first()


def _identity(ask: Ask) -> tuple[Any, Any]:
    return requests.c.key_id == ask.key_id, requests.c.identity == ask.identity


def _forgotten(row: Row[Any], ask: Ask, settings: StoreSettings) -> bool:
    """Whether it ended so long ago that it is no longer the same request."""
    return row.ended_at is not None and row.ended_at < ask.now - settings.replay_s


def _goes_on(row: Row[Any], ask: Ask, settings: StoreSettings) -> bool:
    """Whether the draws of a failed attempt answer what is asked now."""
    return (
        row.state == "failed" and row.settings_sha256 == ask.settings_sha256 and not _forgotten(row, ask, settings)
    )


def _inserted(connection: Connection, ask: Ask, new_id: str) -> bool:
    statement = upsert(connection, requests).values(**_row(ask, new_id))
    once = statement.on_conflict_do_nothing(index_elements=["key_id", "identity"])
    return connection.execute(once.returning(requests.c.id)).first() is not None


def _row(ask: Ask, new_id: str) -> dict[str, Any]:
    return {
        "id": new_id,
        "key_id": ask.key_id,
        "identity": ask.identity,
        "body_sha256": ask.body_sha256,
        "settings_sha256": ask.settings_sha256,
        "state": "running",
        "attempt": 1,
        "replica": ask.replica,
        "begun_at": ask.now,
    }
