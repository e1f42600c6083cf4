"""Which replicas are alive, and what becomes of the work of those that are not.

Every function takes the Connection of a transaction that its caller owns. Rows are locked in one order everywhere:
the gateway, a key, a replica, a request, a reservation, its draws, a day.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, select, update

from smoothing_proxy.ledger.gateway.database import upsert
from smoothing_proxy.ledger.gateway.money import close
from smoothing_proxy.ledger.gateway.nouns import Recovered
from smoothing_proxy.ledger.gateway.schema import replicas, requests, reservations

__all__ = ["alive", "bury", "named", "silent", "touch"]


def touch(connection: Connection, replica: str, now: float) -> None:
    """The replica is alive at `now`."""
    statement = upsert(connection, replicas).values(id=replica, seen_at=now)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"seen_at": now}))


def alive(connection: Connection, replica: str, since: float) -> bool:
    """Whether the replica was heard of at `since` or later."""
    query = select(replicas.c.id).where(replicas.c.id == replica, replicas.c.seen_at >= since)
    return connection.execute(query).first() is not None


def silent(but: str, since: float) -> ColumnElement[bool]:
    """The replicas that were not heard of since then, except one."""
    return (replicas.c.seen_at < since) & (replicas.c.id != but)


def named(replica: str) -> ColumnElement[bool]:
    """One replica."""
    return replicas.c.id == replica


def bury(connection: Connection, who: ColumnElement[bool], now: float) -> Recovered:
    """Close what these replicas left open: their sends in flight are unknown, their requests failed."""
    dead = connection.execute(select(replicas.c.id).where(who).order_by(replicas.c.id).with_for_update())
    names = sorted({*dead.scalars(), *_nobodys(connection)})
    if not names:
        return Recovered()
    interrupted = connection.execute(
        update(requests)
        .where(requests.c.state == "running", requests.c.replica.in_(names))
        .values(state="failed", error="the replica that was at it died", ended_at=now)
    )
    left = select(reservations.c.id).where(reservations.c.open, reservations.c.replica.in_(names))
    open_ones = list(connection.execute(left.order_by(reservations.c.id)).scalars())
    unknown = sum(close(connection, reservation, now=now).unknown for reservation in open_ones)
    connection.execute(delete(replicas).where(replicas.c.id.in_(names)))
    return Recovered(len(names), interrupted.rowcount, len(open_ones), unknown)


def _nobodys(connection: Connection) -> set[str]:
    """Replicas that were buried before they wrote their last."""
    known = select(replicas.c.id)
    held = select(reservations.c.replica).where(reservations.c.open, reservations.c.replica.not_in(known))
    running = select(requests.c.replica).where(requests.c.state == "running", requests.c.replica.not_in(known))
    return set(connection.execute(held.union(running)).scalars())
