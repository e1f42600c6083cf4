"""One number for tracking and for enforcing: no budget is ever exceeded by one query, whoever asks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smoothing_proxy.errors import BackendTimeoutError, BudgetExceededError, LedgerError, RequestRejectedError
from smoothing_proxy.ledger.gateway.money import nano
from smoothing_proxy.ledger.gateway.nouns import Budget, KeyTerms, Reservation, Spend, StoreSettings
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.types import Cost
from tests.ledger.gateway.stores import HandClock, answered, fresh, open_store, settled

pytestmark = pytest.mark.anyio

PRICE = 0.0012
DAY = 86_400.0


def dollars(queries: int) -> float:
    """At PRICE; the store's sums are exact."""
    return queries * 1_200_000 / 10**9


async def granted(store: GatewayStore, key_id: str, queries: int, price_usd: float = PRICE) -> Reservation | None:
    try:
        return await store.reserve(key_id, queries, price_usd)
    except BudgetExceededError:
        return None


def at_the_same_time(*replicas: Callable[[], Awaitable[object]]) -> None:
    """Each in a thread and an event loop of its own, begun together."""
    barrier = threading.Barrier(len(replicas))
    faults: list[BaseException] = []

    def run(replica: Callable[[], Awaitable[object]]) -> None:
        try:
            barrier.wait(30)
            anyio.run(replica)
        except BaseException as fault:  # noqa: BLE001 (raised below, in the test's own thread)
            faults.append(fault)

    threads = [threading.Thread(target=run, args=[replica]) for replica in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults, faults[0]


@pytest.mark.parametrize(
    ("terms", "overall", "fits"),
    [
        (KeyTerms(calls_limit=23), Budget(), 7),
        (KeyTerms(usd_limit=23 * PRICE, period="total"), Budget(), 7),
        (KeyTerms(), Budget(calls_limit=23, period="day"), 7),
        (KeyTerms(calls_limit=1_000), Budget(usd_limit=0.0276), 7),
    ],
    ids=["calls of a key", "dollars of a key", "calls of the gateway", "dollars of the gateway"],
)
def test_replicas_that_race_for_a_budget_get_what_it_has_and_no_query_more(
    address: str, terms: KeyTerms, overall: Budget, fits: int
) -> None:
    common = StoreSettings(overall=overall)
    won: list[Reservation] = []

    async def make_keys() -> list[str]:
        async with open_store(address, settings=common) as store:
            names = ["ann"] if overall == Budget() else ["ann", "bob", "cyd"]
            return [(await store.create_key(name, "google", terms))[0].id for name in names]

    key_ids = anyio.run(make_keys)

    async def replica() -> None:
        async def ask(number: int) -> None:
            reservation = await granted(store, key_ids[number % len(key_ids)], 3)
            won.extend([reservation] if reservation else [])

        async with open_store(address, settings=common) as store, anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(ask, number)

    at_the_same_time(replica, replica, replica)
    assert len(won) == fits
    assert len({reservation.id for reservation in won}) == fits

    async def held() -> int:
        async with open_store(address) as store:
            return (await store.spend(None, "total")).held

    assert anyio.run(held) == 3 * fits


def test_what_replicas_spend_and_give_back_at_the_same_time_adds_up(address: str) -> None:
    """Loops of reserve, send, settle on both: the most that was ever spent or held is within the limit."""
    limit, rounds = 40, 12
    peaks: list[int] = []
    charged: list[Cost] = []

    async def make_key() -> str:
        async with open_store(address) as store:
            return (await store.create_key("ann", "azure", KeyTerms(calls_limit=limit)))[0].id

    key_id = anyio.run(make_key)

    async def replica() -> None:
        async def customer(number: int) -> None:
            for turn in range(rounds // 2):
                reservation = await granted(store, key_id, 5 + number)
                spend = await store.spend(key_id, "month")
                peaks.append(spend.calls + spend.unknown + spend.held)
                if reservation is None:
                    continue
                request = await fresh(store, key_id, f"{store.replica}-{number}-{turn}")
                journal = store.journal(request, reservation)
                await journal.sent(0, [0, 1])
                await journal.settled(0, [answered(0)])
                charged.append(await settled(store, reservation))

        async with open_store(address) as store, anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(customer, number)

    at_the_same_time(replica, replica)

    async def total() -> Spend:
        async with open_store(address) as store:
            return await store.spend(key_id, "total")

    spend = anyio.run(total)
    assert max(peaks) <= limit
    assert (spend.calls, spend.unknown, spend.held) == (len(charged), len(charged), 0)
    assert spend.usd == pytest.approx(sum(cost.usd for cost in charged))
    assert len(charged) >= 5


async def test_sends_are_charged_before_they_are_made_and_the_rest_is_released(
    address: str, clock: HandClock
) -> None:
    async with open_store(address, clock) as store:
        key, _ = await store.create_key("ann", "google", KeyTerms(calls_limit=10))
        reservation = await store.reserve(key.id, 10, PRICE)
        assert await store.spend(key.id, "day") == Spend(held=10)
        assert await granted(store, key.id, 1) is None
        journal = store.journal(await fresh(store, key.id), reservation)
        await journal.sent(0, [0, 1, 2, 3, 4, 5])
        assert await store.spend(key.id, "day") == Spend(0, 6, dollars(6), 4)
        await journal.settled(0, [answered(0), answered(1)])
        await journal.settled(0, [Outcome(2, None, error=BackendTimeoutError("60 s"))])
        await journal.settled(0, [Outcome(3, None, error=RequestRejectedError("too large"))])
        await journal.withdrawn(0, [4])
        await journal.withdrawn(0, [5], maybe_billed=True)
        assert await store.spend(key.id, "day") == Spend(2, 2, dollars(4), 6)
        assert await store.settle(reservation) == Cost(2, 2, dollars(4))
        assert await store.settle(reservation) == Cost(2, 2, dollars(4))
        assert await store.spend(key.id, "day") == Spend(2, 2, dollars(4), 0)
        assert await granted(store, key.id, 7) is None
        assert await granted(store, key.id, 6)


async def test_what_is_in_flight_when_a_request_is_settled_is_unknown(address: str) -> None:
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "google")
        reservation = await store.reserve(key.id, 5, PRICE)
        request = await fresh(store, key.id)
        journal = store.journal(request, reservation)
        await journal.sent(0, [0, 1])
        await journal.settled(0, [answered(0)])
        assert (await settled(store, reservation)).unknown == 1
        for late in (journal.settled(0, [answered(1)]), journal.sent(0, [2]), journal.withdrawn(0, [1])):
            with pytest.raises(LedgerError, match="closed"):
                await late
        assert await store.spend(key.id, "total") == Spend(1, 1, dollars(2), 0)


async def test_settled_on_two_replicas_at_the_same_time_a_reservation_is_charged_once(address: str) -> None:
    async with open_store(address) as here, open_store(address) as there:
        key, _ = await here.create_key("ann", "google")
        for _ in range(10):
            reservation = await here.reserve(key.id, 3, PRICE)
            await here.charge(reservation, 2)
            async with anyio.create_task_group() as tasks:
                for store in (here, there, here, there):
                    tasks.start_soon(store.settle, reservation)
        assert await here.spend(key.id, "total") == Spend(0, 20, dollars(20), 0)


async def test_resends_may_go_beyond_what_was_reserved_as_far_as_the_budget_reaches(address: str) -> None:
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "google", KeyTerms(calls_limit=5))
        reservation = await store.reserve(key.id, 2, PRICE)
        journal = store.journal(await fresh(store, key.id), reservation)
        for _ in range(2):
            await journal.sent(0, [0, 1])
            await journal.withdrawn(0, [0, 1], maybe_billed=True)
        with pytest.raises(BudgetExceededError, match="5 queries a month; 4 are spent") as raised:
            await journal.sent(0, [0, 1])
        assert (raised.value.spent, raised.value.limit) == (4, 5)
        await journal.sent(0, [0])
        assert await store.spend(key.id, "total") == Spend(0, 5, dollars(5), 0)


async def test_plain_charges_count_as_the_caller_says_and_unknown_otherwise(address: str) -> None:
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "google", KeyTerms(calls_limit=20))
        said, unsaid = await store.reserve(key.id, 3, PRICE), await store.reserve(key.id, 3, PRICE)
        for reservation in (said, unsaid):
            await store.charge(reservation, 4)
        assert (await store.spend(key.id, "day")).unknown == 8
        assert await store.settle(said, Cost(queries=2, unknown=1)) == Cost(2, 1, dollars(3))
        assert await store.settle(unsaid) == Cost(0, 4, dollars(4))
        with pytest.raises(BudgetExceededError):
            await store.charge(await store.reserve(key.id, 13, PRICE), 14)


@pytest.mark.parametrize(
    ("period", "later_days", "again"),
    [("day", 0, False), ("day", 1, True), ("month", 15, False), ("month", 16, True), ("total", 400, False)],
)
async def test_a_budget_is_there_again_in_its_next_period(
    address: str, clock: HandClock, period: str, later_days: int, again: bool
) -> None:
    async with open_store(address, clock) as store:
        key, _ = await store.create_key("ann", "google", KeyTerms(calls_limit=3, period=period))  # type: ignore[arg-type]
        assert await granted(store, key.id, 3)
        clock.time += later_days * DAY
        assert bool(await granted(store, key.id, 3)) is again


async def test_an_old_reservation_grows_in_the_day_that_it_was_made_in(address: str, clock: HandClock) -> None:
    async with open_store(address, clock) as store:
        key, _ = await store.create_key("ann", "google", KeyTerms(calls_limit=3, period="day"))
        reservation = await store.reserve(key.id, 2, PRICE)
        clock.time += DAY
        assert await granted(store, key.id, 3)
        journal = store.journal(await fresh(store, key.id), reservation)
        await journal.sent(0, [0, 1, 2])
        with pytest.raises(BudgetExceededError):
            await journal.sent(0, [3])


@pytest.mark.parametrize(
    ("usd", "expected"), [(0.0012, 1_200_000), (1 / 3, 333_333_334), (1e-12, 1), (0.1, 10**8)]
)
def test_a_price_is_a_whole_number_of_billionths_never_less(usd: float, expected: int) -> None:
    assert nano(usd) == expected


async def test_a_dollar_budget_buys_exactly_what_it_is_worth(address: str) -> None:
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "google", KeyTerms(usd_limit=0.3))
        assert sum([bool(await granted(store, key.id, 1, 0.1)) for _ in range(5)]) == 3
        assert await granted(store, key.id, 100, 0.0), "what costs nothing is within any dollar budget"


names = itertools.count()
steps = st.lists(
    st.tuples(st.sampled_from(["reserve", "send", "answer", "reject", "lose", "settle"]), st.integers(1, 4)),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps, limit=st.integers(0, 12))
def test_after_any_history_what_is_spent_and_held_is_what_happened(
    address: str, script: list[tuple[str, int]], limit: int
) -> None:
    anyio.run(_play, address, script, limit)


async def _play(address: str, script: list[tuple[str, int]], limit: int) -> None:
    calls = unknown = 0
    held: int | None = None
    in_flight: list[int] = []
    numbers = itertools.count()
    async with open_store(address) as store:
        key, _ = await store.create_key(f"key {next(names)}", "google", KeyTerms(calls_limit=limit))
        request = await fresh(store, key.id)
        for step, count in script:
            if step == "reserve" and held is None:
                reservation = await granted(store, key.id, count)
                assert (reservation is not None) == (calls + unknown + count <= limit)
                held = count if reservation else None
                continue
            if held is None:
                continue
            assert reservation is not None
            journal = store.journal(request, reservation)
            if step == "send":
                sends = [next(numbers) for _ in range(count)]
                room = limit - calls - unknown - len(in_flight)
                try:
                    await journal.sent(0, sends)
                    in_flight += sends
                    held = max(held - count, 0)
                    assert count <= room
                except BudgetExceededError:
                    assert count > room
            elif step == "settle":
                assert (await settled(store, reservation)).unknown >= len(in_flight)
                unknown += len(in_flight)
                in_flight, held = [], None
            elif in_flight:
                draw = in_flight.pop()
                if step == "answer":
                    await journal.settled(0, [answered(draw)])
                    calls += 1
                elif step == "reject":
                    await journal.withdrawn(0, [draw])
                    held += 1
                else:
                    await journal.withdrawn(0, [draw], maybe_billed=True)
                    unknown += 1
            spend = await store.spend(key.id, "day")
            assert (spend.calls, spend.unknown, spend.held) == (calls, unknown + len(in_flight), held or 0)
            assert spend.calls + spend.unknown + spend.held <= limit
