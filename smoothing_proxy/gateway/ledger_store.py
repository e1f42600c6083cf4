"""The gateway's store in a database: GatewayStore, as the gateway's ports want it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import anyio

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.gateway.ports import Begun, Caller, Recollection, Reservation
from smoothing_proxy.ledger.gateway import nouns
from smoothing_proxy.ledger.gateway.rates import KeyRates, TooManyRequestsError
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.smoothing.observe import Journal
from smoothing_proxy.types import Cost
from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["LedgerStore"]

PURGE_S = 3_600.0
"""Between two looks for rows that are too old."""

AGAIN_S = 1.0
"""Until a database that was away is tried again."""


class LedgerStore:
    """Implements Store over a GatewayStore, which stays its owner's to close.

    Rates are counted in this process: so many replicas allow so many times as much. clock: unix seconds.
    """

    def __init__(self, inner: GatewayStore, clock: Callable[[], float] = time.time) -> None:
        self._inner = inner
        self._clock = clock
        self._rates = KeyRates(time.monotonic)
        self._seen: dict[str, nouns.VirtualKey] = {}
        self._open: dict[str, nouns.Reservation] = {}

    @property
    def inner(self) -> GatewayStore:
        """The store itself, for who makes and changes keys."""
        return self._inner

    async def key(self, vendor: str, presented_id: str) -> Caller | None:
        """See Store."""
        return self._caller(await self._inner.key(vendor, presented_id))

    async def secret_of(self, caller: Caller) -> str:
        """See Store."""
        return await self._inner.secret_of(self._seen[caller.id])

    async def check_token(self, vendor: str, token: str) -> Caller | None:
        """See Store."""
        return self._caller(await self._inner.check_token(vendor, token))

    def admitted(self, caller: Caller, *, joins: bool = False) -> AbstractContextManager[None]:
        """See Store."""
        return self._admitted(self._seen[caller.id], joins=joins)

    async def reserve(self, caller: str, queries: int, price_usd: float) -> Reservation:
        """See Store."""
        made = await self._inner.reserve(caller, queries, price_usd)
        self._open[made.id] = made
        return Reservation(made.id, caller, queries, price_usd)

    async def settle(self, reservation: Reservation, cost: Cost) -> None:
        """See Store. What draws came to stands in their rows, so that `cost` has nothing to add to them."""
        made = self._made(reservation)
        self._open.pop(reservation.id, None)
        await self._inner.settle(made, cost)

    async def pass_on(self, reservation: Reservation, operation: str) -> None:
        """See Store."""
        await self._inner.pass_on(self._made(reservation), operation)

    def journal(self, request_id: str, reservation: Reservation) -> Journal:
        """See Store."""
        return self._inner.journal(request_id, self._made(reservation))

    async def begin(self, caller: str, name: str | None, body_sha256: str, settings_sha256: str) -> Begun:
        """See Store."""
        try:
            begun = await self._inner.begin(caller, name, body_sha256, settings_sha256)
        except nouns.RequestConflictError as error:
            raise RequestFault(Fault.BAD_REQUEST, str(error)) from error
        if isinstance(begun, nouns.Finished):
            return Begun("finished", begun.request_id, begun.verdict)
        return Begun("new" if isinstance(begun, nouns.Fresh) else "running", begun.request_id)

    async def picture(self, request_id: str, number: int, sha256: str, entropy: bytes) -> Recollection:
        """See Store."""
        kept = await self._inner.picture(request_id, number, sha256, entropy)
        return Recollection(kept.entropy, kept.recalled, kept.replies)

    async def finish(self, request_id: str, document: str, cost: Cost) -> None:
        """See Store."""
        await self._inner.finish(request_id, document, cost)

    async def fail(self, request_id: str, error: Exception) -> None:
        """See Store."""
        await self._inner.fail(request_id, error)

    async def remember(
        self, caller: str, picture_sha256: str, settings_sha256: str, document: str, *, verdict_id: str
    ) -> None:
        """See Store."""
        await self._inner.remember(caller, picture_sha256, settings_sha256, document, verdict_id=verdict_id)

    async def cached(self, caller: str, picture_sha256: str, settings_sha256: str) -> str | None:
        """See Store."""
        return await self._inner.cached(caller, picture_sha256, settings_sha256)

    async def verdict(self, verdict_id: str, caller: str) -> str | None:
        """See Store."""
        return await self._inner.verdict(verdict_id, caller)

    async def verdicts(self, picture_sha256: str, caller: str, most: int) -> Sequence[str]:
        """See Store."""
        return await self._inner.verdicts(picture_sha256, caller, most)

    async def has_room(self, queries: int, price_usd: float) -> bool:
        """See Store."""
        budget = self._inner.settings.overall
        if budget.calls_limit is None and budget.usd_limit is None:
            return True
        spent = await self._inner.spend(None, budget.period)
        calls = spent.calls + spent.unknown + queries
        usd = spent.usd + queries * price_usd
        return (budget.calls_limit is None or calls <= budget.calls_limit) and (
            budget.usd_limit is None or usd <= budget.usd_limit
        )

    async def check(self) -> None:
        """See Store."""
        await self._inner.check()

    async def tend(self) -> None:
        """See Store: heartbeats, the burial of dead replicas, now and then a purge. A database may be away."""
        purged_at, next_s = self._clock(), self._inner.settings.lease_s / 3
        while True:
            away = False
            try:
                await self._inner.heartbeat()
                if self._clock() - purged_at >= PURGE_S:
                    purged_at = self._clock()
                    await self._inner.purge(purged_at)
            except LedgerError:
                away = True  # `check` tells whoever asks whether the gateway is ready
            if away or self._inner.owes:
                await anyio.sleep(min(AGAIN_S, next_s))
            else:
                with anyio.move_on_after(next_s):
                    await self._inner.owing()

    async def reload(self) -> bool:
        """See Store. Keys are read from the database whenever they are shown."""
        return False

    def _caller(self, key: nouns.VirtualKey | None) -> Caller | None:
        if key is None:
            return None
        self._seen[key.id] = key
        return Caller(key.id, key.certify, key.target_radius, passthrough=key.passthrough)

    def _made(self, reservation: Reservation) -> nouns.Reservation:
        known = self._open.get(reservation.id)
        if known is not None:
            return known
        return nouns.Reservation(reservation.id, reservation.caller, reservation.queries, reservation.price_usd)

    @contextmanager
    def _admitted(self, key: nouns.VirtualKey, *, joins: bool) -> Iterator[None]:
        try:
            with self._rates.admitted(key, joins=joins):
                yield
        except TooManyRequestsError as error:
            raise RequestFault(Fault.THROTTLED, str(error), retry_after_s=error.retry_after_s) from error
