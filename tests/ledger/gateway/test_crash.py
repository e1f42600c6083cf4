"""A replica that is killed: what was billed is charged, and nothing that was answered is asked again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.ledger.gateway.nouns import Begun, Finished, Fresh, Recovered, Running
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.types import Cost
from tests.ledger.gateway.fan_out import DRAWS, Vendor
from tests.ledger.gateway.postgres import Postgres
from tests.ledger.gateway.stores import (
    BODY,
    ENTROPY,
    PICTURE,
    SETTINGS,
    HandClock,
    answered,
    fresh,
    open_store,
    plain_engine,
    settled,
)

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
WAIT_S = 60.0
LEASE_S = 60.0


def kill_in_the_middle(address: str, key_id: str, vendor: Vendor, billed: int) -> None:
    """Run a replica until the vendor has billed so many draws, then SIGKILL."""
    command = [sys.executable, "-m", "tests.ledger.gateway.fan_out", address, key_id, str(vendor.port)]
    replica = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        assert vendor.await_billed(billed, WAIT_S), "the replica did not get so far"
    finally:
        replica.kill()
        _, said = replica.communicate(timeout=WAIT_S)
    assert replica.returncode == -9, said.decode()


@pytest.mark.parametrize("billed", [1, 300])
async def test_after_a_kill_all_that_was_billed_is_settled_or_unknown(
    address: str, clock: HandClock, billed: int
) -> None:
    async with open_store(address, clock) as store:
        key, _ = await store.create_key("ann", "google")
        with Vendor() as vendor:
            await anyio.to_thread.run_sync(kill_in_the_middle, address, key.id, vendor, billed)
            charged = vendor.billed.total()

            before = await store.spend(key.id, "day")
            assert charged <= before.calls + before.unknown <= DRAWS
            assert before.calls + before.unknown + before.held == DRAWS
            assert isinstance(await store.begin(key.id, "an id", BODY, SETTINGS), Running)
            assert await store.recover() == Recovered(), "its lease has not run out"

            clock.time += LEASE_S + 1
            recovered = await store.recover()
            after = await store.spend(key.id, "day")
            assert recovered == Recovered(replicas=1, requests=1, reservations=1, unknown=after.unknown)
            assert (after.calls, after.unknown, after.held) == (before.calls, before.unknown, 0)

            begun = await store.begin(key.id, "an id", BODY, SETTINGS)
            assert isinstance(begun, Fresh)
            assert begun.attempt == 2
            picture = await store.picture(begun.request_id, 0, PICTURE, bytes(16))
            assert picture.entropy == ENTROPY
            assert len(picture.recalled.votes) == after.calls
            assert picture.recalled.cost == Cost(after.calls, after.unknown)

            left = [draw for draw in range(DRAWS) if draw not in picture.recalled.votes][:100]
            reservation = await store.reserve(key.id, len(left), 0.001)
            journal = store.journal(begun.request_id, reservation)
            await journal.sent(0, left)
            vendor.ask(left)
            await journal.settled(0, [answered(draw) for draw in left])
            await store.settle(reservation)
            twice = {draw for draw, times in vendor.billed.items() if times > 1}
            assert twice.isdisjoint(picture.recalled.votes), "an answered draw was asked again"
            end = await store.spend(key.id, "day")
            assert (end.calls, end.unknown) == (after.calls + len(left), after.unknown)
            assert vendor.billed.total() <= end.calls + end.unknown


async def test_of_two_replicas_one_takes_up_what_a_dead_one_left(address: str, clock: HandClock) -> None:
    found: list[Begun] = []

    async def take_up(store: GatewayStore, key_id: str) -> None:
        found.append(await store.begin(key_id, None, BODY, SETTINGS))

    async with open_store(address, clock) as first, open_store(address, clock) as second:
        async with open_store(address, clock) as dead:
            key, _ = await dead.create_key("ann", "google")
            request = await fresh(dead, key.id)
            await dead.reserve(key.id, 10, 0.0)
        clock.time += LEASE_S + 1
        async with anyio.create_task_group() as tasks:
            for store in (first, second, first, second):
                tasks.start_soon(take_up, store, key.id)
        assert [x.attempt for x in found if isinstance(x, Fresh)] == [2]
        assert {x.request_id for x in found} == {request}
        assert (await first.spend(key.id, "day")).held == 0


async def test_a_replica_that_was_taken_for_dead_can_neither_send_nor_answer(
    address: str, clock: HandClock
) -> None:
    async with open_store(address, clock) as slow, open_store(address, clock) as other:
        key, _ = await slow.create_key("ann", "google")
        request = await fresh(slow, key.id)
        reservation = await slow.reserve(key.id, 10, 0.0)
        journal = slow.journal(request, reservation)
        await journal.sent(0, [0, 1])
        clock.time += LEASE_S + 1
        assert await other.heartbeat() == Recovered(1, 1, 1, unknown=2)
        for late in (journal.sent(0, [2]), journal.settled(0, [answered(0)]), slow.charge(reservation, 1)):
            with pytest.raises(LedgerError, match="not heard of"):
                await late
        taken = await other.begin(key.id, None, BODY, SETTINGS)
        assert isinstance(taken, Fresh)
        with pytest.raises(LedgerError, match="taken for dead"):
            await slow.finish(request, "{}", Cost())
        await slow.fail(request, "late")
        assert isinstance(await slow.begin(key.id, None, BODY, SETTINGS), Running)
        assert (await settled(slow, reservation)).unknown == 2
        await other.finish(request, '{"label":"cat"}', Cost())
        assert await slow.begin(key.id, None, BODY, SETTINGS) == Finished(request, '{"label":"cat"}')


async def test_what_a_buried_replica_began_is_not_stuck(address: str, clock: HandClock) -> None:
    async with open_store(address, clock) as zombie, open_store(address, clock) as other:
        key, _ = await zombie.create_key("ann", "google")
        await fresh(zombie, key.id, "first")
        await other.recover(zombie.replica)
        request = await fresh(zombie, key.id, "second")
        await zombie.reserve(key.id, 5, 0.0)
        assert await other.begin(key.id, "second", BODY, SETTINGS) == Fresh(request, attempt=2)
        assert (await other.spend(key.id, "day")).held == 0


async def test_a_replica_whose_clock_is_far_ahead_takes_over_and_is_not_taken_over(address: str) -> None:
    ahead = HandClock()
    ahead.time += 10 * LEASE_S
    async with open_store(address) as behind, open_store(address, ahead) as other:
        key, _ = await behind.create_key("ann", "google")
        await fresh(behind, key.id)
        assert isinstance(await other.begin(key.id, None, BODY, SETTINGS), Fresh), "it takes the other for dead"
        assert isinstance(await behind.begin(key.id, None, BODY, SETTINGS), Running)


async def test_a_store_goes_on_when_the_database_has_dropped_its_connections(postgres: Postgres) -> None:
    address = postgres.new_schema()
    async with open_store(address) as store:
        key, token = await store.create_key("ann", "google")
        journal = store.journal(await fresh(store, key.id), await store.reserve(key.id, 4, 0.0))
        await journal.sent(0, [0, 1])
        with plain_engine(address).begin() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            assert connection.execute(text(f"{others} AND backend_type = 'client backend'")).all()
        await store.check()
        assert await store.check_token("google", token) == key
        await journal.settled(0, [answered(0), answered(1)])
        await journal.sent(0, [2])
        assert (await store.spend(key.id, "day")).calls == 2


async def test_heartbeats_keep_a_replica_alive(address: str, clock: HandClock) -> None:
    async with open_store(address, clock) as busy, open_store(address, clock) as other:
        key, _ = await busy.create_key("ann", "google")
        await fresh(busy, key.id)
        for _ in range(5):
            clock.time += LEASE_S / 2
            await busy.heartbeat()
            assert await other.heartbeat() == Recovered()
        assert isinstance(await other.begin(key.id, None, BODY, SETTINGS), Running)
        assert await other.recover(busy.replica) == Recovered(replicas=1, requests=1)
