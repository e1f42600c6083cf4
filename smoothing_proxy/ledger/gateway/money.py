"""Budgets: what is tracked and what is enforced are the same rows.

A request reserves its queries before its first send: under the lock of its key (and of the gateway, where that has
a budget of its own), what is spent and held in the period is added up, and the day's row then holds these queries
too. Sends are charged to the reservation alone, which nobody else touches. Closing it moves what was used into
what is spent and releases the rest, in one transaction.

Every function takes the Connection of a transaction that its caller owns.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, insert, literal, select, union_all, update

from smoothing_proxy.errors import BudgetExceededError, LedgerError
from smoothing_proxy.ledger.gateway import passes
from smoothing_proxy.ledger.gateway.database import UndoError, upsert
from smoothing_proxy.ledger.gateway.nouns import Budget, Period, Reservation, Spend
from smoothing_proxy.ledger.gateway.schema import days, draws, keys, master, reservations
from smoothing_proxy.types import Cost

__all__ = [
    "ShortError",
    "charge",
    "close",
    "day_of",
    "extend",
    "nano",
    "note",
    "open_of",
    "open_reservation",
    "spent",
]

NANO = 1_000_000_000


class ShortError(LedgerError):
    """A reservation holds fewer queries than are to be sent; it may be extended."""


def nano(usd: float) -> int:
    """Dollars as billionths, rounded up; the dollars are taken as they are written in decimal."""
    return math.ceil(Decimal(repr(float(usd))) * NANO)


def day_of(now: float) -> str:
    """The day of UTC, as in "2026-11-21". now: unix seconds."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def open_reservation(
    connection: Connection, reservation: Reservation, *, overall: Budget, replica: str, now: float
) -> None:
    """Hold the queries for a request, if both budgets have room for all of them.

    Raises BudgetExceededError when they have not, LedgerError for an unknown or disabled key.
    """
    day = day_of(now)
    _take(connection, reservation, reservation.queries, day, overall=overall)
    row = {
        "id": reservation.id,
        "key_id": reservation.key_id,
        "day": day,
        "replica": replica,
        "nano": nano(reservation.price_usd),
        "queries": reservation.queries,
        "used": 0,
        "calls": 0,
        "plain": 0,
        "open": True,
    }
    connection.execute(insert(reservations), [row])


def extend(connection: Connection, reservation: Reservation, sends: int, *, overall: Budget) -> None:
    """Hold what is missing for so many sends, in the reservation's own day.

    Raises as `open_reservation` and `charge` do.
    """
    row = connection.execute(select(reservations).where(_open(reservation.id))).first()
    if row is None:
        raise _lapsed(reservation.id)
    missing = row.used + sends - row.queries
    if missing <= 0:
        return
    _take(connection, reservation, missing, row.day, overall=overall)
    more = update(reservations).where(_open(reservation.id)).values(queries=reservations.c.queries + missing)
    if connection.execute(more).rowcount != 1:
        raise UndoError(f"reservation {reservation.id} was closed meanwhile")  # undoes what was just held


_CHARGE = (
    update(reservations)
    .where(
        reservations.c.id == bindparam("reservation"),
        reservations.c.open,
        reservations.c.used + bindparam("sends") <= reservations.c.queries,
    )
    .values(used=reservations.c.used + bindparam("sends"), plain=reservations.c.plain + bindparam("without_draw"))
)


def charge(connection: Connection, reservation_id: str, sends: int, *, plain: bool = False) -> None:
    """Before so many sends. plain: none of them has a draw's row.

    Raises ShortError when the reservation holds fewer, LedgerError when it was closed: its replica was taken for
    dead, and its sends for unknown.
    """
    values = {"reservation": reservation_id, "sends": sends, "without_draw": sends if plain else 0}
    if connection.execute(_CHARGE, values).rowcount == 1:
        return
    if connection.execute(select(reservations.c.id).where(_open(reservation_id))).first() is None:
        raise _lapsed(reservation_id)
    raise ShortError(f"reservation {reservation_id} is used up")


_NOTE = (
    update(reservations)
    .where(reservations.c.id == bindparam("reservation"), reservations.c.open)
    .values(used=reservations.c.used - bindparam("unbilled"), calls=reservations.c.calls + bindparam("answered"))
)


def note(connection: Connection, reservation_id: str, *, answered: int, unbilled: int) -> None:
    """Of the sends charged, so many were answered, and so many cost nothing. Raises LedgerError as `charge`."""
    values = {"reservation": reservation_id, "unbilled": unbilled, "answered": answered}
    if connection.execute(_NOTE, values).rowcount != 1:
        raise _lapsed(reservation_id)


def close(connection: Connection, reservation_id: str, *, now: float, plain: Cost | None = None) -> Cost:
    """Charge what was used, release the rest, and return what was charged, in queries and dollars.

    What is still in flight is unknown from now on. plain: what sends without a draw came to; None takes them all
    for unknown. Closing twice changes nothing.
    """
    where = reservations.c.id == reservation_id
    row = connection.execute(select(reservations).where(where).with_for_update()).first()
    if row is None:
        raise LedgerError(f"reservation {reservation_id}: there is none of this id")
    if not row.open:
        return _cost(row.calls, row.used, row.nano)
    connection.execute(
        update(draws)
        .where(draws.c.reservation_id == reservation_id, draws.c.status == "sent")
        .values(status="withdrawn", unknown=draws.c.unknown + 1)
    )
    if row.plain:
        passes.end(connection, reservation_id, plain, now)
    calls, used = _final(row, plain)
    connection.execute(update(reservations).where(where).values(open=False, calls=calls, used=used, closed_at=now))
    connection.execute(
        update(days)
        .where(days.c.key_id == row.key_id, days.c.day == row.day)
        .values(
            calls=days.c.calls + calls,
            unknown=days.c.unknown + used - calls,
            nano=days.c.nano + used * row.nano,
            held=days.c.held - row.queries,
            held_nano=days.c.held_nano - row.queries * row.nano,
        )
    )
    return _cost(calls, used, row.nano)


def open_of(connection: Connection, replica: str) -> set[str]:
    """The reservations that this replica has open."""
    query = select(reservations.c.id).where(reservations.c.open, reservations.c.replica == replica)
    return set(connection.execute(query).scalars())


def spent(connection: Connection, key_id: str | None, period: Period, now: float) -> Spend:
    """What a key has spent in the period that `now` is in; key_id None: all keys together."""
    of_key: list[ColumnElement[bool]] = [] if key_id is None else [days.c.key_id == key_id]
    of_open: list[ColumnElement[bool]] = [] if key_id is None else [reservations.c.key_id == key_id]
    used, price = reservations.c.used, reservations.c.nano
    # One statement sees one moment: what a reservation has in flight is never counted twice, nor forgotten.
    both = union_all(
        select(days.c.calls, days.c.unknown, days.c.nano, days.c.held).where(
            _within(days.c.day, period, now), *of_key
        ),
        select(reservations.c.calls, used - reservations.c.calls, used * price, literal(0) - used).where(
            _within(reservations.c.day, period, now), reservations.c.open, *of_open
        ),
    ).subquery()
    sums = [func.coalesce(func.sum(column), 0) for column in both.c]
    calls, unknown, billionths, held = (int(value) for value in connection.execute(select(*sums)).one())
    return Spend(calls, unknown, billionths / NANO, held)


def _take(connection: Connection, reservation: Reservation, queries: int, day: str, *, overall: Budget) -> None:
    """Check both budgets under their locks, the gateway's first, and hold the queries."""
    price = nano(reservation.price_usd)
    # The day decides, not the clock: what is added to an old reservation counts for the day that it has.
    now = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
    if overall.calls_limit is not None or overall.usd_limit is not None:
        connection.execute(select(master.c.id).with_for_update())
        _check(connection, None, "the gateway", overall, queries, price, now)
    key = connection.execute(select(keys).where(keys.c.id == reservation.key_id).with_for_update()).first()
    if key is None or key.disabled:
        raise LedgerError(f"key {reservation.key_id}: unknown or disabled")
    budget = Budget(key.calls_limit, key.usd_limit, key.period)
    _check(connection, key.id, f"key {key.name!r}", budget, queries, price, now)
    _hold(connection, reservation.key_id, day, queries, queries * price)


def _check(
    connection: Connection, key_id: str | None, who: str, budget: Budget, queries: int, price: int, now: float
) -> None:
    if budget.calls_limit is None and budget.usd_limit is None:
        return
    held = func.coalesce(func.sum(days.c.calls + days.c.unknown + days.c.held), 0)
    held_nano = func.coalesce(func.sum(days.c.nano + days.c.held_nano), 0)
    of_key: list[ColumnElement[bool]] = [] if key_id is None else [days.c.key_id == key_id]
    query = select(held, held_nano).where(_within(days.c.day, budget.period, now), *of_key)
    calls, billionths = (int(value) for value in connection.execute(query).one())
    span = "in all" if budget.period == "total" else f"a {budget.period}"
    if budget.calls_limit is not None and calls + queries > budget.calls_limit:
        raise BudgetExceededError(
            f"the budget of {who} is {budget.calls_limit:,} queries {span}; {calls:,} are spent or held by "
            f"requests under way, and this needs {queries:,}",
            spent=calls,
            limit=budget.calls_limit,
        )
    if budget.usd_limit is not None and billionths + queries * price > _floor_nano(budget.usd_limit):
        raise BudgetExceededError(
            f"the budget of {who} is ${budget.usd_limit:,.2f} {span}; ${billionths / NANO:,.4f} are spent or held "
            f"by requests under way, and this needs ${queries * price / NANO:,.4f}",
            spent=billionths / NANO,
            limit=budget.usd_limit,
        )


def _hold(connection: Connection, key_id: str, day: str, queries: int, billionths: int) -> None:
    row = {"calls": 0, "unknown": 0, "nano": 0, "held": queries, "held_nano": billionths}
    statement = upsert(connection, days).values(key_id=key_id, day=day, **row)
    more = {"held": days.c.held + queries, "held_nano": days.c.held_nano + billionths}
    connection.execute(statement.on_conflict_do_update(index_elements=["key_id", "day"], set_=more))


def _within(day: ColumnElement[str], period: Period, now: float) -> ColumnElement[bool]:
    today = day_of(now)
    if period == "day":
        return day == today
    if period == "month":
        return day.between(f"{today[:7]}-01", f"{today[:7]}-31")
    return day == day


def _open(reservation_id: str) -> ColumnElement[bool]:
    return (reservations.c.id == reservation_id) & reservations.c.open


def _final(row: Row[Any], plain: Cost | None) -> tuple[int, int]:
    """(answered, charged) of a reservation that is closed now."""
    if plain is None:
        return row.calls, row.used
    answered = min(row.plain, plain.queries)
    unknown = min(row.plain - answered, plain.unknown)
    return row.calls + answered, row.used - row.plain + answered + unknown


def _cost(calls: int, used: int, price: int) -> Cost:
    return Cost(calls, used - calls, used * price / NANO)


def _floor_nano(usd: float) -> int:
    return math.floor(Decimal(repr(float(usd))) * NANO)


def _lapsed(reservation_id: str) -> LedgerError:
    return LedgerError(
        f"reservation {reservation_id} is closed: this replica was not heard of for longer than its lease, and "
        "what it had sent was charged as unknown; is it starved of processor time, or cut off from the store?"
    )
