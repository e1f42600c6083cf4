"""The gateway's store: one object over keys, money, requests, draws and verdicts.

Several replicas share one PostgreSQL; one process, or several of one machine, share one SQLite file. It is the
same code: what must not happen twice is decided in a transaction of the database.

    store = await GatewayStore.open("postgresql://...", secret_key=key, settings=StoreSettings(...))
    begun = await store.begin(key.id, idempotency_id, body_sha256, settings_sha256)
    if isinstance(begun, Fresh):
        reservation = await store.reserve(key.id, most_queries, price_usd)
        journal = store.journal(begun.request_id, reservation)
        ...                                     # the sampler writes every draw to the journal
        await store.finish(begun.request_id, verdict_json, cost)
        await store.settle(reservation)         # in any case, also after `fail`

`heartbeat` every third of a lease keeps this replica alive for the others, and buries those that are not.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio.to_thread
from sqlalchemy import Connection, insert, select

from smoothing_proxy.errors import ConfigError, LedgerError
from smoothing_proxy.ledger.gateway import money, passes, pictures, replicas, requests
from smoothing_proxy.ledger.gateway.database import Database, upsert
from smoothing_proxy.ledger.gateway.journal import RequestJournal
from smoothing_proxy.ledger.gateway.key_ring import KeyRing
from smoothing_proxy.ledger.gateway.nouns import (
    Begun,
    Finished,
    Fresh,
    Period,
    Recovered,
    RequestPicture,
    Reservation,
    Running,
    Spend,
    StoreSettings,
)
from smoothing_proxy.ledger.gateway.schema import master, migrate, verdicts
from smoothing_proxy.ledger.gateway.vault import SALT_BYTES, Vault
from smoothing_proxy.types import Cost

__all__ = ["GatewayStore"]

TAKEOVERS = 10
"""How often one request may be found with another dead replica."""


class GatewayStore(KeyRing):
    """Made by `open`. Close it, or use it as an asynchronous context manager.

    Every method that asks the database is asynchronous, leaves the work to other threads, and returns once what it
    says is safe. Each may raise LedgerError when the database cannot be read or written.
    replica: this process's own name, new each time.
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
        self._to_be_seen_at = -math.inf

    @classmethod
    async def open(
        cls,
        address: str | Path,
        *,
        secret_key: bytes,
        settings: StoreSettings | None = None,
        replica: str = "replica",
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> GatewayStore:
        """The store at a path (SQLite) or a postgresql:// URL; it is made where there is none.

        secret_key: the master key, 32 bytes or more, the same ever after. replica: a name for people, to which
        something unique is added. clock: unix seconds. random: so many unpredictable bytes.
        Raises ConfigError for an address that cannot be, a missing driver or another master key than the store's,
        SchemaError when a newer version wrote the store, LedgerError when it cannot be opened.
        """
        database = await anyio.to_thread.run_sync(Database, address)
        try:
            vault = await anyio.to_thread.run_sync(partial(_unlocked, database, secret_key, random))
        except BaseException:
            database.close()
            raise
        name = f"{replica[:40]}-{random(6).hex()}"
        return cls(database, vault, settings=settings or StoreSettings(), replica=name, clock=clock, random=random)

    async def close(self) -> None:
        """Finish writing, and let go of the database. Calling it twice is fine."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._database.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def reserve(self, key_id: str, queries: int, price_usd: float) -> Reservation:
        """Hold queries for one request: all of them or none, whatever other replicas do at the same time.

        Every reservation must be settled. Raises BudgetExceededError when the key's budget or the gateway's own
        has no room for them, LedgerError when the key is unknown or disabled.
        """
        if queries < 0 or not 0 <= price_usd < float("inf"):
            raise ValueError(f"expected queries and a price >= 0, got {queries} at {price_usd}")
        reservation = Reservation(self._random(16).hex(), key_id, queries, price_usd)
        now, replica, overall = self._clock(), self.replica, self.settings.overall
        await self._be_seen(now)
        await self._database.write(
            lambda connection: money.open_reservation(
                connection, reservation, overall=overall, replica=replica, now=now
            )
        )
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

    async def settle(self, reservation: Reservation, cost: Cost | None = None) -> Cost:
        """Release what was not used, and return what was charged. Settling twice changes nothing.

        cost: what the sends of `charge` and `pass_on` came to, in queries; None takes all of them for unknown.
        Sends that a journal knows of are charged as it tells, whatever `cost` says.
        """
        now = self._clock()
        return await self._database.write(
            lambda connection: money.close(connection, reservation.id, now=now, plain=cost)
        )

    async def spend(self, key_id: str | None, period: Period) -> Spend:
        """What a key, or None for all keys, has spent in the current day or month of UTC, or in all."""
        now = self._clock()
        return await self._database.read(lambda connection: money.spent(connection, key_id, period, now))

    async def begin(
        self, key_id: str, idempotency_id: str | None, body_sha256: str, settings_sha256: str
    ) -> Begun:
        """Fresh: the caller does the work, and says `finish` or `fail`. Running: ask again. Finished: the answer.

        Without an id, a request of the same key with the same body and settings is the same request. One that
        failed, or whose replica died, is Fresh again, under its old id and with the draws that were paid for.
        Raises RequestConflictError when the id came before with another body.
        """
        ask = requests.Ask(key_id, idempotency_id, body_sha256, settings_sha256, self.replica, self._clock())
        new_id = self._random(16).hex()
        await self._be_seen(ask.now)
        for _ in range(TAKEOVERS):
            found = await self._database.read(lambda connection: requests.look(connection, ask, self.settings))
            if found is None:
                found = await self._database.write(
                    lambda connection: requests.take(connection, ask, self.settings, new_id)
                )
            if isinstance(found, Fresh | Running | Finished):
                return found
            await self.recover()
        raise LedgerError("a request changes hands without end: do the clocks of the replicas differ by a lease?")

    async def picture(self, request_id: str, number: int, sha256: str, entropy: bytes) -> RequestPicture:
        """Keep the entropy of a request's picture, or get back what an earlier attempt has kept and drawn.

        number: of the picture in its request, the one that the journal is told. Use the entropy of the answer.
        """
        return await self._database.write(
            lambda connection: pictures.keep(connection, request_id, number, sha256, entropy)
        )

    def journal(self, request_id: str, reservation: Reservation) -> RequestJournal:
        """Where a sampler writes the draws of this request's pictures; they are charged to the reservation.

        It may go beyond what was reserved as far as the budgets have room, and raises BudgetExceededError then.
        """
        return RequestJournal(self._database, request_id, reservation, self._extend, self._clock)

    async def finish(self, request_id: str, verdict: str, cost: Cost) -> None:
        """Keep the verdict (JSON). Raises LedgerError when this replica was taken for dead meanwhile."""
        now = self._clock()
        await self._database.write(
            lambda connection: requests.finish(connection, request_id, self.replica, verdict, cost, now)
        )

    async def fail(self, request_id: str, error: Exception | str) -> None:
        """Let the request be asked again. After a ModelChangedError it starts from nothing."""
        now = self._clock()
        await self._database.write(
            lambda connection: requests.fail(connection, request_id, self.replica, error, now)
        )

    async def verdict(self, verdict_id: str, key_id: str) -> str | None:
        """The verdict (JSON) of one of this key's finished requests, or on one picture, by the id of either."""

        def work(connection: Connection) -> str | None:
            answer = requests.verdict(connection, verdict_id, key_id)
            return pictures.verdict(connection, verdict_id, key_id) if answer is None else answer

        return await self._database.read(work)

    async def cached(self, key_id: str, picture_sha256: str, settings_sha256: str) -> str | None:
        """The latest verdict (JSON) on this picture under these settings, by this key, or by any as set."""
        of_key, now = None if self.settings.cache_shared else key_id, self._clock()
        return await self._database.read(
            lambda connection: pictures.cached(connection, of_key, picture_sha256, settings_sha256, now)
        )

    async def remember(
        self, key_id: str, picture_sha256: str, settings_sha256: str, verdict: str, *, verdict_id: str = ""
    ) -> str:
        """Keep the verdict (JSON) on one picture, and let it answer `cached` for as long as the settings say.

        verdict_id: up to 64 characters, never used before; "" makes one. Returns it.
        """
        now = self._clock()
        row = {
            "id": verdict_id or self._random(16).hex(),
            "key_id": key_id,
            "picture_sha256": picture_sha256,
            "settings_sha256": settings_sha256,
            "verdict": verdict,
            "made_at": now,
            "expires_at": now + self.settings.cache_s,
        }
        await self._database.write(lambda connection: connection.execute(insert(verdicts), [row]).close())
        return str(row["id"])

    async def check(self) -> None:
        """Raises LedgerError when the database does not answer."""
        await self._database.read(lambda connection: connection.execute(select(master.c.id)).close())

    async def heartbeat(self) -> Recovered:
        """This replica is alive; bury those that are not. Call it every `settings.lease_s / 3`."""
        self._to_be_seen_at = -math.inf
        await self._be_seen(self._clock())
        return await self.recover()

    async def recover(self, replica: str | None = None) -> Recovered:
        """Close what dead replicas left open: their sends in flight are unknown, and charged.

        replica: one that is known to be dead, whatever its lease says.
        """
        now = self._clock()
        who = (
            replicas.silent(self.replica, now - self.settings.lease_s)
            if replica is None
            else replicas.named(replica)
        )
        return await self._database.write(lambda connection: replicas.bury(connection, who, now))

    async def purge(self, now: float) -> int:
        """Forget requests, draws and cached verdicts that are older than the settings keep; how many requests.

        now: unix seconds. What was spent is kept for ever: a row for each key and day.
        """
        before, purged = now - self.settings.keep_s, 0
        await self._database.write(lambda connection: pictures.purge(connection, now, before))
        await self._database.write(lambda connection: passes.purge(connection, before))
        while True:
            some = await self._database.write(lambda connection: requests.purge(connection, before))
            purged += some
            if not some:
                return purged

    async def _be_seen(self, now: float) -> None:
        """Nothing may be begun in the name of a replica that the others do not know to be alive."""
        if now >= self._to_be_seen_at:
            await self._database.write(lambda connection: replicas.touch(connection, self.replica, now))
            self._to_be_seen_at = now + self.settings.lease_s / 6

    async def _extend(self, reservation: Reservation, queries: int) -> None:
        overall = self.settings.overall
        await self._database.write(
            lambda connection: money.extend(connection, reservation, queries, overall=overall)
        )


def _unlocked(database: Database, secret_key: bytes, random: Callable[[int], bytes]) -> Vault:
    """Bring the schema up to date, and check the master key against the store."""
    database.transaction(partial(migrate, where=database.where))
    return database.transaction(lambda connection: _vault(connection, database.where, secret_key, random))


def _vault(connection: Connection, where: str, secret_key: bytes, random: Callable[[int], bytes]) -> Vault:
    salt = random(SALT_BYTES)
    first = upsert(connection, master).values(id=1, salt=salt, proof=Vault(secret_key, salt, random).proof)
    connection.execute(first.on_conflict_do_nothing(index_elements=["id"]))
    row = connection.execute(select(master.c.salt, master.c.proof)).one()
    vault = Vault(secret_key, bytes(row.salt), random)
    if not secrets.compare_digest(vault.proof, bytes(row.proof)):
        raise ConfigError(f"{where}: this is not the master key that the store was made with")
    return vault
