"""A database that is away: whoever asks hears so in time, and what could not be written is written later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from sqlalchemy import event

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.ledger.gateway.loose_ends import LooseEnds
from smoothing_proxy.ledger.gateway.nouns import Finished, OutageError, Recovered, Running, Spend, StoreSettings
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.types import Cost
from tests.ledger.gateway.outages import LockedFile, Outage, proxied
from tests.ledger.gateway.postgres import Postgres
from tests.ledger.gateway.stores import (
    BODY,
    ENTROPY,
    MASTER,
    PICTURE,
    SETTINGS,
    HandClock,
    answered,
    fresh,
    open_store,
)

pytestmark = pytest.mark.anyio

BOUND_S = 60.0
SHORT = StoreSettings(timeout_s=0.05)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes after an outage asks again at once."""
    monkeypatch.setattr("smoothing_proxy.ledger.gateway.doorstep.VAIN_S", 0.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outage]:
    """A database that can be made to go away."""
    if request.param == "sqlite":
        yield LockedFile(str(tmp_path / "gateway.db"))
        return
    server: Postgres = request.getfixturevalue("postgres")
    with proxied(server.new_schema()) as proxy:
        yield proxy


def settings_for(outage: Outage) -> StoreSettings:
    return SHORT if isinstance(outage, LockedFile) else StoreSettings()


@pytest.mark.usefixtures("quick")
async def test_what_may_not_be_lost_waits_for_the_database_in_its_order(outage: Outage, clock: HandClock) -> None:
    async with open_store(outage.address, clock, settings_for(outage)) as store:
        key, _ = await store.create_key("ann", "aws")
        request = await fresh(store, key.id, "an id")
        await store.picture(request, 0, PICTURE, ENTROPY)
        reservation = await store.reserve(key.id, 10, 0.0)
        journal = store.journal(request, reservation)
        await journal.sent(0, [0, 1, 2])
        outage.begin()
        await journal.settled(0, [answered(0), answered(1)])
        await journal.withdrawn(0, [2], maybe_billed=True)
        with pytest.raises(OutageError):
            await journal.sent(0, [2])
        assert await store.settle(reservation) is None
        await store.remember(key.id, PICTURE, SETTINGS, '"a verdict"', verdict_id="verdict-1")
        await store.finish(request, '"done"', Cost(2, 1))
        assert store.owes
        with pytest.raises(OutageError):
            await store.reserve(key.id, 10, 0.0)
        outage.end()
        assert await store.begin(key.id, "an id", BODY, SETTINGS) == Finished(request, '"done"')
        assert not store.owes
        assert await store.spend(key.id, "day") == Spend(calls=2, unknown=1)
        assert await store.verdict("verdict-1", key.id) == '"a verdict"'


@pytest.mark.usefixtures("quick")
async def test_a_replica_that_ends_in_an_outage_is_buried_with_what_it_owed(
    outage: Outage, clock: HandClock
) -> None:
    settings = settings_for(outage)
    async with open_store(outage.address, clock, settings) as store:
        key, _ = await store.create_key("ann", "aws")
        request = await fresh(store, key.id, "an id")
        journal = store.journal(request, await store.reserve(key.id, 10, 0.0))
        await journal.sent(0, [0, 1])
        outage.begin()
        await journal.settled(0, [answered(0), answered(1)])
    outage.end()
    clock.time += settings.lease_s + 1
    async with open_store(outage.address, clock, settings) as other:
        assert await other.heartbeat() == Recovered(1, 1, 1, unknown=2)
        assert await other.spend(key.id, "day") == Spend(unknown=2), "they were billed"


@pytest.mark.usefixtures("quick")
async def test_after_an_outage_nobody_is_taken_for_dead_before_he_could_speak(
    postgres: Postgres, clock: HandClock
) -> None:
    settings = StoreSettings()
    with proxied(postgres.new_schema()) as outage:
        async with (
            open_store(outage.address, clock, settings) as here,
            open_store(outage.address, clock, settings) as there,
        ):
            key, _ = await there.create_key("ann", "aws")
            request = await fresh(there, key.id, "an id")
            await here.heartbeat()
            outage.begin()
            clock.time += settings.lease_s + 1
            for store in (here, there):
                with pytest.raises(OutageError):
                    await store.heartbeat()
            outage.end()
            assert await here.heartbeat() == Recovered()
            assert isinstance(await here.begin(key.id, "an id", BODY, SETTINGS), Running)
            await there.heartbeat()
            await there.finish(request, "{}", Cost())
            assert isinstance(await here.begin(key.id, "an id", BODY, SETTINGS), Finished)


@pytest.mark.usefixtures("quick")
async def test_a_replica_that_stays_away_after_an_outage_is_buried(postgres: Postgres, clock: HandClock) -> None:
    settings = StoreSettings()
    with proxied(postgres.new_schema()) as outage:
        async with open_store(outage.address, clock, settings) as here:
            async with open_store(outage.address, clock, settings) as there:
                key, _ = await there.create_key("ann", "aws")
                await fresh(there, key.id, "an id")
            outage.begin()
            clock.time += settings.lease_s + 1
            with pytest.raises(OutageError):
                await here.heartbeat()
            outage.end()
            assert await here.heartbeat() == Recovered()
            clock.time += settings.lease_s / 2
            assert (await here.heartbeat()).requests == 1


async def test_a_reservation_that_nobody_knows_of_is_closed(address: str, clock: HandClock) -> None:
    async with open_store(address, clock) as store:
        key, _ = await store.create_key("ann", "aws")
        known = await store.reserve(key.id, 3, 0.0)
        stray = await store.reserve(key.id, 5, 0.0)
        del store._promised[stray.id]
        await store.heartbeat()
        assert (await store.spend(key.id, "day")).held == 3
        assert await store.settle(known) == Cost()


async def test_an_outcome_that_was_written_and_not_acknowledged_is_written_once(postgres: Postgres) -> None:
    with proxied(postgres.new_schema(), "hiccup") as outage:
        async with open_store(outage.address) as store:
            key, _ = await store.create_key("ann", "aws")
            request = await fresh(store, key.id, "an id")
            await store.picture(request, 0, PICTURE, ENTROPY)
            reservation = await store.reserve(key.id, 10, 0.0)
            journal = store.journal(request, reservation)
            await journal.sent(0, [0, 1, 2])
            hiccup = [outage.begin]
            event.listen(store._database.engine, "commit", lambda _: hiccup.pop()() if hiccup else None)
            await journal.settled(0, [answered(0), answered(1)])
            assert not hiccup, "it was committed, and nobody heard so"
            hiccup.append(outage.begin)
            await journal.withdrawn(0, [2], maybe_billed=True)
            assert not store.owes
            assert await store.settle(reservation) == Cost(2, 1)
            assert (await store.picture(request, 0, PICTURE, ENTROPY)).recalled.votes == {0: "cat", 1: "cat"}


@pytest.mark.timeout(180)
async def test_a_database_that_is_silent_is_away(postgres: Postgres) -> None:
    with proxied(postgres.new_schema(), "silent") as outage:
        settings = StoreSettings(timeout_s=0.5)
        async with await GatewayStore.open(outage.address, secret_key=MASTER, settings=settings) as store:
            key, _ = await store.create_key("ann", "aws")
            request = await fresh(store, key.id, "an id")
            journal = store.journal(request, await store.reserve(key.id, 100, 0.0))
            for draw in range(50):
                await journal.sent(0, [draw])
            outage.begin()
            with anyio.fail_after(BOUND_S):
                for ask in (store.check, store.heartbeat):
                    with pytest.raises(OutageError):
                        await ask()
                async with anyio.create_task_group() as tasks:
                    for draw in range(50):
                        tasks.start_soon(journal.settled, 0, [answered(draw)])
            outage.end()
            with anyio.fail_after(BOUND_S):
                while store.owes:
                    with suppress(OutageError):  # who has waited in vain is not asked again at once
                        await store.heartbeat()
                    await anyio.sleep(0.02)
            assert (await store.spend(key.id, "day")).calls == 50


async def test_what_cannot_be_written_does_not_hold_up_the_rest() -> None:
    ends, written = LooseEnds(), list[str]()

    async def never() -> None:
        raise OutageError("never")

    async def refused() -> None:
        raise LedgerError("no longer ours")

    async def write(what: str) -> None:
        written.append(what)

    await ends.write("stuck", never)
    await ends.write("stuck", lambda: write("behind it"))
    ends.owe("fine", refused)
    ends.owe("fine", lambda: write("fine"))
    for _ in range(2):
        await ends.tie()
    assert written == ["fine"]
    assert ("stuck" in ends, "fine" in ends) == (True, False)
