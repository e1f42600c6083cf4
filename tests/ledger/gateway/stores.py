"""What the tests of the gateway's store share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy import Engine, NullPool, create_engine

from smoothing_proxy.ledger.gateway.nouns import Fresh, Reservation, StoreSettings
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.types import Cost, Reply, ScoredLabel

MASTER = bytes(range(32))
BODY, OTHER_BODY = "a" * 64, "b" * 64
SETTINGS, OTHER_SETTINGS = "c" * 64, "d" * 64
PICTURE = "e" * 64
ENTROPY = bytes(range(16))

CAT = Reply((ScoredLabel("cat", 0.75, "n1"), ScoredLabel("dog", 0.25)), model_version="3.0")


class HandClock:
    """Unix seconds that pass when a test says so. It starts at noon of 15 June 2026, UTC."""

    def __init__(self) -> None:
        self.time = 1_781_524_800.0

    def __call__(self) -> float:
        return self.time


def open_store(
    address: str, clock: HandClock | None = None, settings: StoreSettings | None = None
) -> AbstractAsyncContextManager[GatewayStore]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[GatewayStore]:
        async with await GatewayStore.open(
            address, secret_key=MASTER, settings=settings, clock=clock or HandClock()
        ) as store:
            yield store

    return opened()


def plain_engine(address: str) -> Engine:
    """To look at the tables, or to damage them, without the store."""
    url = address.replace("postgresql://", "postgresql+psycopg://") if "://" in address else f"sqlite:///{address}"
    return create_engine(url, poolclass=NullPool)


async def fresh(store: GatewayStore, key_id: str, idempotency_id: str | None = None) -> str:
    """The id of a request that is to be done."""
    begun = await store.begin(key_id, idempotency_id, BODY, SETTINGS)
    assert isinstance(begun, Fresh)
    return begun.request_id


def answered(draw: int) -> Outcome:
    return Outcome(draw, "cat", reply=CAT)


async def settled(store: GatewayStore, reservation: Reservation) -> Cost:
    """What was charged, by a store whose database is there."""
    charged = await store.settle(reservation)
    assert charged is not None
    return charged
