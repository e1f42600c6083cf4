"""The part of the gateway's store that counts: budgets reserved, sends charged, reservations closed."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from smoothing_proxy.ledger.gateway import money, passes, replicas
from smoothing_proxy.ledger.gateway.database import Database
from smoothing_proxy.ledger.gateway.key_ring import KeyRing
from smoothing_proxy.ledger.gateway.loose_ends import LooseEnds
from smoothing_proxy.ledger.gateway.nouns import OutageError, Period, Reservation, Spend, StoreSettings
from smoothing_proxy.ledger.gateway.vault import Vault
from smoothing_proxy.types import Cost

__all__ = ["Till"]


class Till(KeyRing):
    """Reservations in a database. Those of this replica that are open are known here too, so that a stray is told.

    settings: see StoreSettings. replica: this process's own name.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        *,
        settings: StoreSettings,
        replica: str,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        super().__init__(database, vault, clock, random)
        self.settings = settings
        self.replica = replica
        self._ends = LooseEnds()
        self._promised: dict[str, str] = {}  # open reservations, and what their loose ends are about
        self._to_be_seen_at = -math.inf
        self._was_away = False
        self._judges_from = -math.inf

    async def reserve(self, key_id: str, queries: int, price_usd: float) -> Reservation:
        """Hold queries for one request: all of them or none, whatever other replicas do at the same time.

        Every reservation must be settled. Raises BudgetExceededError when the key's budget or the gateway's own
        has no room for them, LedgerError when the key is unknown or disabled.
        """
        if queries < 0 or not 0 <= price_usd < float("inf"):
            raise ValueError(f"expected queries and a price >= 0, got {queries} at {price_usd}")
        reservation = Reservation(self._random(16).hex(), key_id, queries, price_usd)
        await self._ends.tie()
        now, replica, overall = self._clock(), self.replica, self.settings.overall
        await self._be_seen(now)
        self._promised[reservation.id] = reservation.id
        try:
            await self._database.write(
                lambda connection: money.open_reservation(
                    connection, reservation, overall=overall, replica=replica, now=now
                )
            )
        except OutageError:  # it may be open all the same
            self._ends.owe(reservation.id, partial(self._close, reservation.id, now, None))
            raise
        except BaseException:
            del self._promised[reservation.id]
            raise
        return reservation

    async def charge(self, reservation: Reservation, queries: int) -> None:
        """Before so many sends that no journal knows of. Raises as a journal's `sent` does."""
        while True:
            try:
                return await self._database.append(
                    lambda connection: money.charge(connection, reservation.id, queries, plain=True)
                )
            except money.ShortError:
                await self._extend(reservation, queries)

    async def pass_on(self, reservation: Reservation, operation: str) -> None:
        """Before a request that goes to the vendor as it came, with all that is reserved; it has its own row.

        operation: as the vendor calls it. `settle` is told what it came to.
        """
        now = self._clock()

        def work(connection: Connection) -> None:
            money.charge(connection, reservation.id, reservation.queries, plain=True)
            passes.begin(connection, reservation, operation, now)

        await self._database.append(work)

    async def settle(self, reservation: Reservation, cost: Cost | None = None) -> Cost | None:
        """Release what was not used, and return what was charged. Settling twice changes nothing.

        cost: what the sends of `charge` and `pass_on` came to, in queries; None takes all of them for unknown.
        Sends that a journal knows of are charged as it tells, whatever `cost` says.
        Returns None where the database is away: it is done once it is back.
        """
        about = self._promised.get(reservation.id, reservation.id)
        return await self._ends.write(about, partial(self._close, reservation.id, self._clock(), cost))

    async def spend(self, key_id: str | None, period: Period) -> Spend:
        """What a key, or None for all keys, has spent in the current day or month of UTC, or in all."""
        now = self._clock()
        return await self._database.read(lambda connection: money.spent(connection, key_id, period, now))

    async def _close(self, reservation_id: str, now: float, cost: Cost | None) -> Cost:
        try:
            charged = await self._database.write(
                lambda connection: money.close(connection, reservation_id, now=now, plain=cost)
            )
        except OutageError:
            raise
        except BaseException:
            self._promised.pop(reservation_id, None)
            raise
        self._promised.pop(reservation_id, None)
        return charged

    async def _close_strays(self) -> None:
        """Reservations of this replica that nobody here knows of: made while the database was going away."""
        found = await self._database.read(lambda connection: money.open_of(connection, self.replica))
        for stray in found - self._promised.keys():
            await self._close(stray, self._clock(), None)

    async def _be_seen(self, now: float) -> None:
        """Nothing may be begun in the name of a replica that the others do not know to be alive."""
        if now < self._to_be_seen_at:
            return
        try:
            await self._database.write(lambda connection: replicas.touch(connection, self.replica, now))
        except OutageError:
            self._was_away = True
            raise
        self._to_be_seen_at = now + self.settings.lease_s / 6
        if self._was_away:  # so were the others, perhaps: they are given the time to say that they are alive
            self._was_away, self._judges_from = False, now + self.settings.lease_s / 2

    async def _extend(self, reservation: Reservation, queries: int) -> None:
        overall = self.settings.overall
        await self._database.write(
            lambda connection: money.extend(connection, reservation, queries, overall=overall)
        )
