"""The rate: it uses a vendor's limit nearly in full, is hardly ever throttled, and follows it as it changes."""

from __future__ import annotations

import itertools
import random

import anyio
import pytest

from smoothing_proxy.transport.rate import RateLimiter, Ticket
from smoothing_proxy.transport.settings import TransportSettings
from tests.transport.rate_limited_vendor import Vendor, simulate
from tests.transport.virtual_clock import VirtualClock, run_virtually

SETTLED_S = 20.0
"""The first seconds, in which the rate is sought, are judged on their own."""


def never() -> bool:
    return False


@pytest.mark.parametrize("burst_s", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("limit", "seconds", "in_flight", "latency_s"),
    [
        (5.0, 400.0, 64, (0.03, 0.3)),
        (50.0, 150.0, 64, (0.03, 0.3)),
        (50.0, 150.0, 64, (0.3, 0.3)),
        (500.0, 32.0, 256, (0.03, 0.3)),
    ],
)
def test_a_limit_is_used_to_95_percent_with_under_1_percent_throttled(
    limit: float, seconds: float, in_flight: int, latency_s: tuple[float, float], known: bool, burst_s: float
) -> None:
    settings = TransportSettings(requests_per_s=limit if known else None)
    log = simulate(
        Vendor([(0.0, limit)], burst_s), settings, seconds=seconds, in_flight=in_flight, latency_s=latency_s
    )
    assert log.used(SETTLED_S, seconds, limit) >= 0.95
    assert log.throttles(SETTLED_S, seconds) < 0.01
    assert log.throttles(0.0, SETTLED_S) < 0.1


@pytest.mark.parametrize("burst_s", [0.0, 1.0])
def test_a_limit_that_changes_is_followed_down_within_seconds_and_up_within_a_minute(burst_s: float) -> None:
    vendor = Vendor([(0.0, 50.0), (100.0, 20.0), (250.0, 80.0)], burst_s)
    log = simulate(vendor, TransportSettings(), seconds=420.0)
    for since, until, limit in ((SETTLED_S, 100.0, 50.0), (115.0, 250.0, 20.0), (315.0, 420.0, 80.0)):
        assert log.used(since, until, limit) >= 0.95
        assert log.throttles(since, until) < 0.01
    assert log.throttles(100.0, 115.0) < 0.15


def test_a_limit_below_the_known_one_is_found_and_the_known_one_is_never_passed() -> None:
    log = simulate(
        Vendor([(0.0, 20.0), (120.0, 1000.0)], 1.0), TransportSettings(requests_per_s=50.0), seconds=240.0
    )
    assert log.used(SETTLED_S, 120.0, 20.0) >= 0.95
    assert log.throttles(SETTLED_S, 120.0) < 0.01
    assert log.used(200.0, 240.0, 50.0) >= 0.95
    assert max(rate for _, rate in log.rates) <= 50.0


def test_rare_throttles_that_no_rate_would_end_do_not_bring_it_to_a_halt() -> None:
    """Somebody else's bursts on the same account, for instance."""
    dice = random.Random(5)

    class Moody(Vendor):
        def accepts(self, at: float, count: int) -> bool:
            return super().accepts(at, count) and dice.random() > 1 / 85

    log = simulate(Moody([(0.0, 50.0)], 1.0), TransportSettings(), seconds=1500.0)
    assert log.used(SETTLED_S, 1500.0, 50.0) >= 0.2
    assert log.used(1300.0, 1500.0, 50.0) >= 0.2


def test_a_known_limit_is_not_passed_by_the_search_that_follows_rare_throttles() -> None:
    async def after_rare_throttles() -> float:
        limiter = RateLimiter(TransportSettings(requests_per_s=50.0), VirtualClock())
        tickets = (Ticket(float(at), 1, waited=True) for at in itertools.count(1))
        while limiter.per_s > 24.5:
            for ticket in itertools.islice(tickets, 20):
                limiter.answered(ticket)
            limiter.throttled(next(tickets))
        limiter.throttled(next(tickets))
        for ticket in itertools.islice(tickets, 1_000):
            limiter.answered(ticket)
        return limiter.per_s

    assert 24.5 < run_virtually(after_rare_throttles) <= 50.0


def test_a_limit_that_falls_to_a_tenth_is_followed_in_spite_of_what_was_kept_up_before() -> None:
    log = simulate(Vendor([(0.0, 100.0), (100.0, 10.0)], 1.0), TransportSettings(), seconds=400.0)
    assert log.used(150.0, 400.0, 10.0) >= 0.95
    assert log.throttles(150.0, 400.0) < 0.01


def test_the_rate_does_not_grow_while_there_is_no_demand_for_it() -> None:
    log = simulate(Vendor([(0.0, 50.0)], 1.0), TransportSettings(), seconds=300.0, in_flight=1, pause_s=1.0)
    assert {rate for _, rate in log.rates} == {5.0}
    assert not log.throttled


def test_the_rate_does_not_grow_before_there_are_answers() -> None:
    log = simulate(Vendor([(0.0, 50.0)], 1.0), TransportSettings(), seconds=30.0, latency_s=(20.0, 20.0))
    assert log.used(0.0, 12.0, 5.0) == pytest.approx(1.0, abs=0.05)


def test_many_throttles_of_what_left_at_one_rate_are_one_decrease() -> None:
    async def run() -> None:
        clock = VirtualClock()
        limiter = RateLimiter(TransportSettings(requests_per_s=50.0), clock)
        tickets = [await limiter.take(1, never) for _ in range(20)]
        await clock.sleep(0.1)
        for ticket in tickets:
            limiter.throttled(ticket)
        assert limiter.per_s == pytest.approx(49.0 * 0.95)

    run_virtually(run)


def test_answers_to_what_left_before_a_decrease_do_not_raise_the_rate() -> None:
    async def run() -> None:
        limiter = RateLimiter(TransportSettings(requests_per_s=50.0), VirtualClock())
        tickets = [await limiter.take(1, never) for _ in range(20)]
        limiter.throttled(tickets[-1])
        slower = limiter.per_s
        for ticket in tickets:
            limiter.answered(ticket)
        assert limiter.per_s == slower
        limiter.answered(await limiter.take(1, never))
        assert limiter.per_s > slower

    run_virtually(run)


def test_a_throttle_that_says_for_how_long_holds_back_everybody() -> None:
    async def run() -> list[float]:
        clock = VirtualClock()
        limiter = RateLimiter(TransportSettings(requests_per_s=50.0, retry_after_max_s=40.0), clock)
        waits = []
        for asked in (7.0, 86_400.0):
            ticket = await limiter.take(1, never)
            limiter.throttled(ticket, asked)
            waits.append((await limiter.take(1, never)).at - ticket.at)
            await clock.sleep(1.0)
        return waits

    assert run_virtually(run) == pytest.approx([7.0, 40.0], abs=0.1)


def test_a_count_of_items_takes_as_many_tokens() -> None:
    async def run() -> float:
        limiter = RateLimiter(TransportSettings(requests_per_s=50.0), VirtualClock())
        for _ in range(11):
            last = await limiter.take(16, never)
        return last.at

    assert run_virtually(run) == pytest.approx(10 * 16 / 49.0, abs=0.2)


def test_tokens_are_given_out_in_the_order_in_which_they_were_asked_for() -> None:
    order: list[int] = []

    async def run() -> None:
        limiter = RateLimiter(TransportSettings(requests_per_s=10.0), VirtualClock())

        async def take(number: int) -> None:
            await limiter.take(random.Random(number).randint(1, 5), never)
            order.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(take, number)

    run_virtually(run)
    assert order == list(range(50))


def test_what_is_stopped_takes_nothing() -> None:
    async def run() -> Ticket:
        limiter = RateLimiter(TransportSettings(requests_per_s=0.1), VirtualClock())
        for _ in range(10):
            await limiter.take(1, lambda: True)
        return await limiter.take(1, never)

    assert run_virtually(run).at == 0.0


def test_the_rate_never_falls_below_its_floor() -> None:
    async def run() -> float:
        clock = VirtualClock()
        limiter = RateLimiter(TransportSettings(start_per_s=1.0, min_per_s=0.5), clock)
        for _ in range(30):
            ticket = await limiter.take(1, never)
            await clock.sleep(0.1)
            limiter.throttled(ticket)
        return limiter.per_s

    assert run_virtually(run) == 0.5
