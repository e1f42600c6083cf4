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

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

import anyio.to_thread
from sqlalchemy import Connection, insert, select

from smoothing_proxy.errors import ConfigError, LedgerError
from smoothing_proxy.ledger.gateway import passes, pictures, replicas, requests
from smoothing_proxy.ledger.gateway.database import Database, upsert
from smoothing_proxy.ledger.gateway.journal import RequestJournal
from smoothing_proxy.ledger.gateway.nouns import (
    Begun,
    Finished,
    Fresh,
    Recovered,
    RequestPicture,
    Reservation,
    Running,
    StoreSettings,
)
from smoothing_proxy.ledger.gateway.schema import master, migrate, verdicts
from smoothing_proxy.ledger.gateway.till import Till
from smoothing_proxy.ledger.gateway.vault import SALT_BYTES, Vault
from smoothing_proxy.types import Cost

__all__ = ["GatewayStore"]

TAKEOVERS = 10
"""How often one request may be found with another dead replica."""

LONG_S = 600.0
"""For what may have to go through whole tables."""


class GatewayStore(Till):
    """Made by `open`. Close it, or use it as an asynchronous context manager.

    Every method that asks the database is asynchronous, leaves the work to other threads, and returns once what it
    says is safe. Each may raise LedgerError when the database cannot be read or written, and OutageError of these
    when it is away; but what may not be lost (outcomes of draws, `settle`, `finish`, `fail`, `remember`) is kept
    then, and written once the database is back, by `heartbeat` or by whoever begins or reserves something.
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
        super().__init__(database, vault, settings=settings, replica=replica, clock=clock, random=random)
        self._live: set[str] = set()  # requests that are being answered here
        self._doors: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
        settings = settings or StoreSettings()
        database = await anyio.to_thread.run_sync(Database, address, settings.timeout_s)
        try:
            vault = await anyio.to_thread.run_sync(partial(_unlocked, database, secret_key, random))
        except BaseException:
            database.close()
            raise
        name = f"{replica[:40]}-{random(6).hex()}"
        return cls(database, vault, settings=settings, replica=name, clock=clock, random=random)

    async def close(self) -> None:
        """Finish writing, and let go of the database. Calling it twice is fine."""
        with anyio.CancelScope(shield=True):
            await self._ends.tie()
            await anyio.to_thread.run_sync(self._database.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def begin(
        self, key_id: str, idempotency_id: str | None, body_sha256: str, settings_sha256: str
    ) -> Begun:
        """Fresh: the caller does the work, and says `finish` or `fail`. Running: ask again. Finished: the answer.

        Without an id, a request of the same key with the same body and settings is the same request. One that
        failed, or whose replica died, is Fresh again, under its old id and with the draws that were paid for.
        Raises RequestConflictError when the id came before with another body, or with other settings unless it
        failed.
        """
        ask = requests.Ask(key_id, idempotency_id, body_sha256, settings_sha256, self.replica, self._clock())
        await self._ends.tie()
        await self._be_seen(ask.now)
        async with self._doors.setdefault(f"{key_id} {ask.identity}", asyncio.Lock()):
            for _ in range(TAKEOVERS):
                found = await self._found(ask)
                if isinstance(found, Fresh):
                    self._live.add(found.request_id)
                if isinstance(found, Fresh | Finished) or (
                    isinstance(found, Running) and not self._is_stray(found)
                ):
                    return found
                if isinstance(found, Running):  # its beginning was written while the database was going away
                    await self._failed(found.request_id, "nobody is at it")
                elif ask.now < self._judges_from:
                    return Running(found.request_id, found.replica)
                else:
                    await self.recover()
        raise LedgerError("a request changes hands without end: do the clocks of the replicas differ by a lease?")

    async def _found(self, ask: requests.Ask) -> Begun | requests.Orphaned:
        new_id = self._random(16).hex()
        found = await self._database.read(lambda connection: requests.look(connection, ask, self.settings))
        if found is not None:
            return found
        return await self._database.write(lambda connection: requests.take(connection, ask, self.settings, new_id))

    def _is_stray(self, found: Running) -> bool:
        """Whether it is said to be this replica's, which knows nothing of it."""
        ours = found.replica == self.replica
        return ours and found.request_id not in self._live and found.request_id not in self._ends

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
        if reservation.id in self._promised:
            self._promised[reservation.id] = request_id
        return RequestJournal(self._database, request_id, reservation, self._extend, self._ends, self._clock)

    async def finish(self, request_id: str, verdict: str, cost: Cost) -> None:
        """Keep the verdict (JSON). Raises LedgerError when this replica was taken for dead meanwhile."""
        now = self._clock()
        await self._end(
            request_id,
            lambda connection: requests.finish(connection, request_id, self.replica, verdict, cost, now),
        )

    async def fail(self, request_id: str, error: Exception | str) -> None:
        """Let the request be asked again. After a ModelChangedError it starts from nothing."""
        now = self._clock()
        await self._end(
            request_id, lambda connection: requests.fail(connection, request_id, self.replica, error, now)
        )

    async def _end(self, request_id: str, work: Callable[[Connection], None]) -> None:
        try:
            await self._ends.write(request_id, lambda: self._database.write(work))
        finally:
            self._live.discard(request_id)

    async def _failed(self, request_id: str, why: str) -> None:
        now = self._clock()
        await self._database.write(
            lambda connection: requests.fail(connection, request_id, self.replica, why, now)
        )

    async def verdict(self, verdict_id: str, key_id: str) -> str | None:
        """The verdict (JSON) of one of this key's finished requests, or on one picture, by the id of either.

        Where the cache is shared between keys, a verdict on a picture is for who knows its id: any of them may
        have been told it.
        """
        of_key = None if self.settings.cache_shared else key_id

        def work(connection: Connection) -> str | None:
            answer = requests.verdict(connection, verdict_id, key_id)
            return pictures.verdict(connection, verdict_id, of_key) if answer is None else answer

        return await self._database.read(work)

    async def verdicts(self, picture_sha256: str, key_id: str, most: int) -> list[str]:
        """At most so many verdicts (JSON) on a picture that were made for this key, the newest ones first."""
        return await self._database.read(
            lambda connection: pictures.about(connection, picture_sha256, key_id, most)
        )

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
        await self._ends.write(
            f"verdict {row['id']}",
            lambda: self._database.write(lambda connection: connection.execute(insert(verdicts), [row]).close()),
        )
        return str(row["id"])

    async def check(self) -> None:
        """Raises LedgerError when the database does not answer."""
        await self._database.read(lambda connection: connection.execute(select(master.c.id)).close())

    @property
    def owes(self) -> bool:
        """Whether something is still to be written that could not be when it was due."""
        return bool(self._ends)

    async def owing(self) -> None:
        """Return once it owes something."""
        await self._ends.wait()

    async def heartbeat(self) -> Recovered:
        """This replica is alive; write what is owed, and bury those that are not alive.

        Call it every `settings.lease_s / 3`, and soon again where it failed or something is owed.
        """
        self._to_be_seen_at = -math.inf
        await self._be_seen(self._clock())
        await self._ends.tie()
        await self._close_strays()
        return Recovered() if self._clock() < self._judges_from else await self.recover()

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
        write = partial(self._database.write, patience_s=LONG_S)
        await write(lambda connection: pictures.purge(connection, now, before))
        await write(lambda connection: passes.purge(connection, before))
        while True:
            some = await write(lambda connection: requests.purge(connection, before))
            purged += some
            if not some:
                return purged


def _unlocked(database: Database, secret_key: bytes, random: Callable[[int], bytes]) -> Vault:
    """Bring the schema up to date, and check the master key against the store."""
    database.transaction(partial(migrate, where=database.where), LONG_S)
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
