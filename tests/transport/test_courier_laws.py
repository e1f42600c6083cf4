"""Laws of the courier under random faults: nothing lost, nothing twice, nothing uncharged."""

from __future__ import annotations

import random
from collections.abc import Sequence

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendDownError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    MalformedReplyError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.transport.courier import Courier, Undelivered
from tests.transport.bookkeeper import Books, courier_of
from tests.transport.virtual_clock import VirtualClock, run_virtually

ATTEMPTS, RESENDS, THROTTLES = 4, 1, 10

FAULTS = (
    lambda: BackendUnavailableError("connection refused"),
    lambda: BackendUnavailableError("503", retry_after=1.0),
    lambda: BackendUnavailableError("500", maybe_billed=True),
    lambda: BackendTimeoutError("no answer"),
    lambda: RateLimitedError("slow down"),
    lambda: RateLimitedError("slow down", retry_after=0.5),
    lambda: RequestRejectedError("bad picture"),
    lambda: MalformedReplyError("no json"),
)


class FaultyVendor:
    """Fails for the whole request or for single items, at random. unknown: sends that it may have billed."""

    def __init__(self, rng: random.Random, faulty: float, fatal: float) -> None:
        self._rng = rng
        self._faulty = faulty
        self._fatal = fatal
        self.under_way = self.most = 0
        self.sends: dict[int, int] = {}
        self.unknown: dict[int, int] = {}

    async def send(self, items: list[int]) -> list[str | BackendError]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        for item in items:
            self.sends[item] = self.sends.get(item, 0) + 1
        await anyio.sleep(self._rng.uniform(0.01, 2.0))
        self.under_way -= 1
        if self._rng.random() < self._fatal:
            raise AuthenticationError("key refused")
        if self._rng.random() < self._faulty / 2:
            error = self._fault()
            for item in items:
                self._bill(item, error)
            raise error
        return [self._reply(item) for item in items]

    def _reply(self, item: int) -> str | BackendError:
        if self._rng.random() >= self._faulty / 2:
            return "cat"
        error = self._fault()
        self._bill(item, error)
        return error

    def _fault(self) -> BackendError:
        return self._rng.choice(FAULTS)()

    def _bill(self, item: int, error: BackendError) -> None:
        self.unknown[item] = self.unknown.get(item, 0) + error.maybe_billed


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    faulty=st.sampled_from([0.0, 0.3, 0.7]),
    fatal=st.sampled_from([0.0, 0.02]),
    in_flight=st.integers(1, 6),
    batch=st.integers(1, 5),
    stop_after_s=st.sampled_from([None, 1.0, 6.0]),
    circuit_failures=st.sampled_from([2, 10_000]),
)
def test_every_item_that_is_sent_is_settled_or_withdrawn_once_and_charged_for_all_it_may_have_cost(
    seed: int,
    faulty: float,
    fatal: float,
    in_flight: int,
    batch: int,
    stop_after_s: float | None,
    circuit_failures: int,
) -> None:
    rng, books = random.Random(seed), Books()
    vendor = FaultyVendor(rng, faulty, fatal)
    items = list(range(batch * 12))

    async def deliver(courier: Courier, carried: list[int]) -> None:
        try:
            await courier.deliver(carried, vendor.send, books)  # type: ignore[arg-type]
        except Undelivered:
            assert books.stop
        except (AuthenticationError, BackendDownError):
            books.stop = True

    async def run() -> None:
        courier = courier_of(
            in_flight=in_flight,
            seed=seed,
            attempts=ATTEMPTS,
            resends_after_unknown=RESENDS,
            throttle_attempts=THROTTLES,
            circuit_failures=circuit_failures,
        )
        async with anyio.create_task_group() as tasks:
            for start in range(0, len(items), batch):
                tasks.start_soon(deliver, courier, items[start : start + batch])
            if stop_after_s is not None:
                await VirtualClock().sleep(stop_after_s)
                books.stop = True

    run_virtually(run)
    ended = books.count("settled") + books.count("withdrawn")
    assert ended == dict.fromkeys(vendor.sends, 1)
    assert books.count("sending") == vendor.sends
    assert vendor.most <= in_flight
    assert {item: count for item, count in vendor.unknown.items() if count} == dict(books.unknown)
    assert all(count <= 1 + RESENDS for count in books.unknown.values())
    if not books.stop:
        assert set(books.answers) == set(items)
    if circuit_failures == 10_000:
        assert all(count <= ATTEMPTS + THROTTLES - 1 for count in vendor.sends.values())


class Ledger(Books):
    """Books that check each word against the last one. ahead: written down and not sent, at most."""

    def __init__(self, vendor: FaultyVendor) -> None:
        super().__init__()
        self._vendor = vendor
        self._out: set[int] = set()
        self.ahead = 0

    def _note(self, what: str, items: Sequence[int]) -> None:
        super()._note(what, items)
        if what == "sending":
            assert self._out.isdisjoint(items)
            self._out.update(items)
            self.ahead = max(self.ahead, len(self._out) - self._vendor.under_way)
        elif what != "withdrawn":  # which may follow `returned`
            assert self._out.issuperset(items)
        if what != "sending":
            self._out.difference_update(items)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    faulty=st.sampled_from([0.0, 0.3, 0.7]),
    in_flight=st.integers(8, 40),
    stop_after_s=st.sampled_from([None, 1.0, 6.0]),
    circuit_failures=st.sampled_from([2, 10_000]),
)
def test_who_is_written_down_as_the_next_one_is_sent_or_given_back_and_nobody_is_sent_unwritten(
    seed: int, faulty: float, in_flight: int, stop_after_s: float | None, circuit_failures: int
) -> None:
    vendor = FaultyVendor(random.Random(seed), faulty, fatal=0.0)
    books = Ledger(vendor)

    async def deliver(courier: Courier, item: int) -> None:
        try:
            await courier.deliver([item], vendor.send, books)  # type: ignore[arg-type]
        except Undelivered:
            assert books.stop
        except BackendDownError:
            books.stop = True

    async def run() -> None:
        courier = courier_of(in_flight=in_flight, seed=seed, circuit_failures=circuit_failures)
        async with anyio.create_task_group() as tasks:
            for item in range(3 * in_flight):
                tasks.start_soon(deliver, courier, item)
            if stop_after_s is not None:
                await VirtualClock().sleep(stop_after_s)
                books.stop = True

    run_virtually(run)
    written, given_back = books.count("sending"), books.count("withdrawn")
    assert vendor.most <= in_flight
    assert books.ahead <= in_flight // 8 + 1  # who leaves that very moment is among them
    for item in range(3 * in_flight):
        unsent = written[item] - vendor.sends.get(item, 0)
        assert 0 <= unsent <= given_back[item]
    assert {item: count for item, count in vendor.unknown.items() if count} == dict(books.unknown)
    ended = set(books.answers) | set(given_back)
    assert ended >= set(written)
    if not books.stop:
        assert set(books.answers) == set(range(3 * in_flight))
