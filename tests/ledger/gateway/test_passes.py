"""Requests that went to the vendor as they came: rows of their own, charged like everything else."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text

from smoothing_proxy.ledger.gateway.nouns import Spend, StoreSettings
from smoothing_proxy.ledger.gateway.schema import migrations, passes
from smoothing_proxy.types import Cost
from tests.ledger.gateway.stores import HandClock, open_store, plain_engine

pytestmark = pytest.mark.anyio

LEASE_S = StoreSettings().lease_s


def rows(address: str) -> list[tuple[str, int, str]]:
    """(operation, units, state) of each."""
    with plain_engine(address).connect() as connection:
        found = connection.execute(select(passes).order_by(passes.c.sent_at, passes.c.operation))
        return [(row.operation, row.units, row.state) for row in found]


@pytest.mark.parametrize(
    ("cost", "state", "spent"),
    [
        (Cost(queries=3), "answered", Spend(calls=3, usd=0.003)),
        (Cost(unknown=3), "unknown", Spend(unknown=3, usd=0.003)),
        (Cost(), "refused", Spend()),
    ],
)
async def test_what_a_pass_came_to_stands_in_its_row_and_in_what_was_spent(
    address: str, clock: HandClock, cost: Cost, state: str, spent: Spend
) -> None:
    async with open_store(address, clock) as store:
        key, _ = await store.create_key("ann", "aws")
        reservation = await store.reserve(key.id, 3, 0.001)
        await store.pass_on(reservation, "DetectFaces")
        assert rows(address) == [("DetectFaces", 3, "sent")]
        assert (await store.spend(key.id, "day")).unknown == 3, "it is charged before it is sent"
        await store.settle(reservation, cost)
        assert rows(address) == [("DetectFaces", 3, state)]
        assert await store.spend(key.id, "day") == spent
        await store.purge(clock.time + store.settings.keep_s + 1)
        assert rows(address) == []
        assert await store.spend(key.id, "day") == spent, "what was spent is never forgotten"


async def test_a_pass_of_a_dead_replica_is_unknown_and_charged(address: str, clock: HandClock) -> None:
    async with open_store(address, clock) as other:
        async with open_store(address, clock) as dead:
            key, _ = await dead.create_key("ann", "aws")
            await dead.pass_on(await dead.reserve(key.id, 1, 0.0), "DetectText")
        clock.time += LEASE_S + 1
        assert (await other.heartbeat()).unknown == 1
        assert rows(address) == [("DetectText", 1, "unknown")]
        assert await other.spend(key.id, "day") == Spend(unknown=1)


async def test_a_store_from_before_has_its_keys_and_learns_to_pass_on(address: str, clock: HandClock) -> None:
    async with open_store(address, clock) as store:
        key, _ = await store.create_key("ann", "aws")
    with plain_engine(address).begin() as connection:
        connection.execute(text("DROP TABLE gateway_passes"))
        connection.execute(text("ALTER TABLE gateway_keys DROP COLUMN passthrough"))
        connection.execute(text(f"DELETE FROM gateway_schema WHERE number = {len(migrations)}"))
    async with open_store(address, clock) as store:
        assert await store.keys() == [key]
        await store.pass_on(await store.reserve(key.id, 1, 0.0), "DetectFaces")
    assert len(rows(address)) == 1
