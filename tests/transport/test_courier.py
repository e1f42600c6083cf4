"""The courier: every item comes back with its final answer, and each failure is repeated as its price allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import anyio
import pytest

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendDownError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    BudgetExceededError,
    ConfigError,
    LedgerError,
    MalformedReplyError,
    ModelChangedError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
    SmoothingProxyError,
)
from smoothing_proxy.transport.courier import Courier, Undelivered
from smoothing_proxy.transport.settings import TransportSettings
from tests.transport.bookkeeper import Books, ScriptedVendor, courier_of
from tests.transport.rate_limited_vendor import Vendor
from tests.transport.virtual_clock import VirtualClock, run_virtually


def unreachable() -> BackendError:
    return BackendUnavailableError("connection refused")


def internal_error() -> BackendError:
    return BackendUnavailableError("500", maybe_billed=True)


def timeout() -> BackendError:
    return BackendTimeoutError("no answer")


def throttle() -> BackendError:
    return RateLimitedError("slow down")


def delivered(script: Sequence[Any], **settings: Any) -> tuple[Books, ScriptedVendor]:
    """One item, carried to a vendor that answers it from this script."""
    vendor, books = ScriptedVendor(script), Books()

    async def run() -> None:
        await courier_of(**settings).deliver([0], vendor.send, books)

    run_virtually(run)
    return books, vendor


@pytest.mark.parametrize(
    ("script", "sends", "unknown", "outcome"),
    [
        (["cat"], 1, 0, "cat"),
        ([unreachable, "cat"], 2, 0, "cat"),
        ([unreachable], 6, 0, BackendUnavailableError),
        ([unreachable] * 5 + ["cat"], 6, 0, "cat"),
        ([throttle] * 99 + ["cat"], 100, 0, "cat"),
        ([throttle], 100, 0, RateLimitedError),
        ([throttle] * 20 + [unreachable] * 5 + ["cat"], 26, 0, "cat"),
        ([timeout, "cat"], 2, 1, "cat"),
        ([timeout], 2, 2, BackendTimeoutError),
        ([internal_error, "cat"], 2, 1, "cat"),
        ([internal_error], 2, 2, BackendUnavailableError),
        ([timeout, internal_error], 2, 2, BackendUnavailableError),
        ([timeout, throttle, throttle, unreachable, timeout], 5, 2, BackendTimeoutError),
        ([RequestRejectedError("bad picture")], 1, 0, RequestRejectedError),
        ([timeout, RequestRejectedError("bad picture")], 2, 1, RequestRejectedError),
        ([MalformedReplyError("no json")], 1, 1, MalformedReplyError),
        ([ModelChangedError("v2")], 1, 0, ModelChangedError),
        ([BackendError("something else")], 1, 0, BackendError),
    ],
)
def test_the_price_of_a_failure_decides_how_often_it_is_sent(
    script: list[Any], sends: int, unknown: int, outcome: str | type[BackendError]
) -> None:
    books, vendor = delivered(script, give_up_after_s=100_000.0)
    assert len(vendor.sent) == sends
    assert books.unknown[0] == unknown
    answer = books.answers[0]
    if isinstance(outcome, str):
        assert answer == outcome
    else:
        assert type(answer) is outcome
        assert answer.attempts == sends
    assert books.count("sending")[0] == sends
    assert books.count("returned")[0] == sends - 1
    assert books.count("settled")[0] == 1
    assert not books.count("withdrawn")


@pytest.mark.parametrize(("resends", "sends"), [(0, 1), (1, 2), (3, 4)])
def test_what_may_have_been_billed_is_sent_again_as_often_as_the_user_allows(resends: int, sends: int) -> None:
    books, vendor = delivered([timeout], resends_after_unknown=resends)
    assert len(vendor.sent) == sends
    assert books.unknown[0] == sends


def test_backing_off_is_random_below_a_doubling_bound() -> None:
    gaps: list[list[float]] = []
    for seed in range(40):
        _, vendor = delivered([unreachable], seed=seed, backoff_base_s=1.0, backoff_max_s=8.0, attempts=7)
        at = [when for when, _ in vendor.sent]
        gaps.append([later - earlier - 0.1 for earlier, later in pairwise(at)])
    for waits, most in zip(zip(*gaps, strict=True), [1.0, 2.0, 4.0, 8.0, 8.0, 8.0], strict=True):
        assert max(waits) <= most + 1e-6
        assert max(waits) > 0.8 * most
        assert min(waits) < 0.2 * most
        assert sum(waits) / len(waits) == pytest.approx(most / 2, rel=0.35)


@pytest.mark.parametrize("error", [RateLimitedError, BackendUnavailableError])
@pytest.mark.parametrize(("asked", "least"), [(20.0, 20.0), (86_400.0, 300.0), (None, 0.0)])
def test_the_wait_that_the_vendor_asks_for_is_kept_within_reason(
    error: Callable[..., BackendError], asked: float | None, least: float
) -> None:
    _, vendor = delivered([error("later", retry_after=asked), "cat"])
    (first, _), (second, _) = vendor.sent
    assert least <= second - first <= least + 0.1 + 0.5 + 0.01


def test_the_deadline_counts_failed_sends_and_backing_off_but_neither_throttles_nor_waiting_for_a_turn() -> None:
    books, vendor = delivered([unreachable], attempts=100, deadline_s=60.0, circuit_failures=1000)
    assert 60.0 <= vendor.sent[-1][0] + 0.1 <= 60.0 + 30.0
    throttled, _ = delivered(
        [RateLimitedError("later", retry_after=50.0)] * 5 + [unreachable, "cat"], deadline_s=60.0
    )
    assert throttled.answers[0] == "cat"
    assert type(books.answers[0]) is BackendUnavailableError


def test_of_a_batch_only_what_failed_is_sent_again() -> None:
    vendor = ScriptedVendor(
        {
            0: ["cat"],
            1: [throttle, unreachable, "dog"],
            2: [RequestRejectedError("bad picture")],
            3: [timeout],
        }
    )
    books = Books()

    async def run() -> None:
        await courier_of().deliver([0, 1, 2, 3], vendor.send, books)

    run_virtually(run)
    assert [items for _, items in vendor.sent] == [(0, 1, 2, 3), (1, 3), (1,)]
    assert books.events == [
        ("sending", (0, 1, 2, 3)),
        ("settled", (0, 2)),
        ("returned", (1,)),
        ("returned", (3,)),
        ("sending", (1, 3)),
        ("settled", (3,)),
        ("returned", (1,)),
        ("sending", (1,)),
        ("settled", (1,)),
    ]
    assert [getattr(books.answers[item], "attempts", None) for item in range(4)] == [None, None, 1, 2]
    assert books.unknown == {3: 2}


def test_an_error_of_the_whole_request_is_one_of_each_of_its_items() -> None:
    books, tries = Books(), []

    async def send(items: Sequence[int]) -> list[str | BackendError]:
        tries.append(tuple(items))
        if len(tries) == 1:
            raise BackendTimeoutError("no answer")
        return ["cat"] * len(items)

    async def run() -> None:
        await courier_of().deliver([0, 1, 2], send, books)

    run_virtually(run)
    assert tries == [(0, 1, 2)] * 2
    assert books.unknown == {0: 1, 1: 1, 2: 1}
    assert books.answers == {0: "cat", 1: "cat", 2: "cat"}


def test_a_reply_for_too_few_items_is_malformed() -> None:
    books = Books()

    async def send(items: Sequence[int]) -> list[str | BackendError]:
        return ["cat"]

    async def run() -> None:
        await courier_of().deliver([0, 1], send, books)

    run_virtually(run)
    assert {type(answer) for answer in books.answers.values()} == {MalformedReplyError}
    assert str(books.answers[0]) == "acme: 1 replies to a request of 2"


@pytest.mark.parametrize(
    "fatal",
    [
        AuthenticationError("key refused"),
        QuotaExceededError("monthly quota"),
        BackendDownError("down"),
        LedgerError("disk full"),
        ConfigError("no such model"),
        ZeroDivisionError("a bug"),
    ],
)
@pytest.mark.parametrize("earlier", [[], [timeout]])
def test_what_stops_the_run_comes_out_as_it_is_after_the_items_are_given_back(
    fatal: Exception, earlier: list[Any]
) -> None:
    vendor, books = ScriptedVendor([*earlier, lambda: fatal]), Books()

    async def run() -> None:
        with pytest.raises(type(fatal)) as caught:
            await courier_of().deliver([0, 1], vendor.send, books)
        assert caught.value is fatal

    run_virtually(run)
    assert books.events[-1] == ("withdrawn", (0, 1))
    assert not books.answers
    not_foreseen = not isinstance(fatal, SmoothingProxyError)
    assert books.unknown[0] == len(earlier) + not_foreseen, "nobody knows how far such a request came"


def test_an_answer_beside_an_error_that_stops_the_run_is_kept() -> None:
    vendor = ScriptedVendor({0: ["cat"], 1: [AuthenticationError("key refused")], 2: [timeout]})
    books = Books()

    async def run() -> None:
        with pytest.raises(AuthenticationError):
            await courier_of().deliver([0, 1, 2], vendor.send, books)

    run_virtually(run)
    assert books.answers == {0: "cat"}
    assert books.events[-1] == ("withdrawn", (1, 2))
    assert books.unknown == {2: 1}


def test_a_budget_that_is_spent_before_the_first_send_sends_nothing() -> None:
    vendor, books = ScriptedVendor(["cat"]), Books()
    books.faults["sending"] = BudgetExceededError("spent", spent=1.0, limit=1.0)

    async def run() -> None:
        with pytest.raises(BudgetExceededError):
            await courier_of().deliver([0], vendor.send, books)

    run_virtually(run)
    assert not vendor.sent
    assert not books.events


def test_a_budget_that_is_spent_before_a_resend_gives_the_item_back() -> None:
    vendor, books = ScriptedVendor([timeout]), Books()

    async def run() -> None:
        async def spend() -> None:
            await anyio.sleep(0.05)
            books.faults["sending"] = BudgetExceededError("spent", spent=1.0, limit=1.0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(spend)
            with pytest.raises(BudgetExceededError):
                await courier_of().deliver([0], vendor.send, books)

    run_virtually(run)
    assert [event for event, _ in books.events] == ["sending", "returned", "withdrawn"]
    assert len(vendor.sent) == 1


@pytest.mark.parametrize("hook", ["settled", "returned"])
def test_a_ledger_that_fails_stops_the_delivery(hook: str) -> None:
    vendor, books = ScriptedVendor([timeout if hook == "returned" else "cat"]), Books()
    books.faults[hook] = LedgerError("disk full")

    async def run() -> None:
        with pytest.raises(LedgerError, match="disk full"):
            await courier_of().deliver([0], vendor.send, books)

    run_virtually(run)
    assert len(vendor.sent) == 1


@pytest.mark.parametrize(
    ("replies", "stop_at", "items"),
    [([unreachable], 3.0, {0}), ([RateLimitedError("later", retry_after=200.0)], 3.0, {0})],
)
def test_stopped_while_backing_off_it_gives_the_item_back_at_once(
    replies: list[Any], stop_at: float, items: set[int]
) -> None:
    vendor, books = ScriptedVendor(replies), Books()

    async def run() -> float:
        async def stop() -> None:
            await anyio.sleep(stop_at)
            books.stop = True

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            with pytest.raises(Undelivered):
                await courier_of(attempts=100, backoff_base_s=2.0).deliver([0], vendor.send, books)
        return VirtualClock().now()

    assert run_virtually(run) <= stop_at + 0.5
    assert set(books.count("withdrawn")) == items


def test_stopped_while_backing_off_it_does_not_wait_for_a_place_first() -> None:
    books = Books()

    async def run() -> None:
        courier = courier_of(in_flight=1)

        async def backing_off() -> None:
            with pytest.raises(Undelivered):
                await courier.deliver(
                    [0], ScriptedVendor([RateLimitedError("later", retry_after=9.0)]).send, books
                )
            assert VirtualClock().now() < 6.0

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backing_off)
            tasks.start_soon(courier.deliver, [1], ScriptedVendor(["cat"], takes_s=100.0).send, Books())
            await anyio.sleep(5.0)
            books.stop = True

    run_virtually(run)
    assert books.count("withdrawn") == {0: 1}


def test_stopped_before_it_leaves_an_item_is_not_sent_and_what_is_under_way_settles() -> None:
    vendor, books = ScriptedVendor(["cat"], takes_s=1.0), Books()
    undelivered: list[int] = []

    async def run() -> None:
        courier = courier_of(in_flight=2)

        async def deliver(item: int) -> None:
            try:
                await courier.deliver([item], vendor.send, books)
            except Undelivered:
                undelivered.append(item)

        async with anyio.create_task_group() as tasks:
            for item in range(6):
                tasks.start_soon(deliver, item)
            await anyio.sleep(1.5)
            books.stop = True

    run_virtually(run)
    assert books.answers == dict.fromkeys(range(4), "cat")
    assert undelivered == [4, 5]
    assert not books.count("withdrawn")


def test_who_asks_first_is_sent_first() -> None:
    vendor, books = ScriptedVendor(["cat"]), Books()

    async def run() -> None:
        courier = courier_of(in_flight=3, requests_per_s=20.0)
        async with anyio.create_task_group() as tasks:
            for item in range(60):
                tasks.start_soon(courier.deliver, [item], vendor.send, books)

    run_virtually(run)
    assert [items for _, items in vendor.sent] == [(item,) for item in range(60)]


def test_backing_off_and_writing_down_hold_no_place_in_flight() -> None:
    vendor = ScriptedVendor({0: [RateLimitedError("later"), "cat"], 1: ["cat"], 2: ["cat"]})

    class SlowBooks(Books):
        async def settled(self, items: Sequence[int], answers: Sequence[str | BackendError]) -> None:
            await anyio.sleep(50.0)
            await super().settled(items, answers)

    async def run() -> None:
        courier = courier_of(in_flight=1, seed=3)
        async with anyio.create_task_group() as tasks:
            for item in range(3):
                tasks.start_soon(courier.deliver, [item], vendor.send, SlowBooks())

    run_virtually(run)
    assert max(at for at, _ in vendor.sent) < 5.0


def test_a_throttle_slows_everybody_and_an_answer_does_not() -> None:
    async def run() -> tuple[float, float]:
        courier = courier_of(requests_per_s=100.0)
        await courier.deliver([0], ScriptedVendor(["cat"]).send, Books())
        before = courier.limiter.per_s
        await courier.deliver([0], ScriptedVendor([throttle, "cat"]).send, Books())
        return before, courier.limiter.per_s

    before, after = run_virtually(run)
    assert before == pytest.approx(98.0)
    assert after < before


@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_a_vendor_with_an_unknown_limit_loses_no_draw_and_is_used_nearly_in_full(
    retry_after: float | None,
) -> None:
    """Three thousand draws at 50 a second: one minute at best."""
    vendor, books, refused = Vendor([(0.0, 50.0)], burst_s=1.0), Books(), Counter[bool]()

    async def send(items: Sequence[int]) -> list[str | BackendError]:
        accepted = vendor.accepts(VirtualClock().now(), len(items))
        refused[not accepted] += 1
        await anyio.sleep(0.2)
        return ["cat" if accepted else RateLimitedError("slow down", retry_after=retry_after) for _ in items]

    async def run() -> float:
        courier = courier_of(in_flight=64, requests_per_s=None)
        async with anyio.create_task_group() as tasks:
            for item in range(3000):
                tasks.start_soon(courier.deliver, [item], send, books)
        return VirtualClock().now()

    assert run_virtually(run) <= 75.0
    assert books.answers == dict.fromkeys(range(3000), "cat")
    assert refused[True] < 0.05 * refused[False]  # the search in the first seconds included


def test_nothing_to_deliver_is_delivered() -> None:
    async def run() -> None:
        await courier_of().deliver([], ScriptedVendor(["cat"]).send, Books())

    run_virtually(run)


def test_no_request_in_flight_is_refused() -> None:
    with pytest.raises(ConfigError, match="in_flight is 0"):
        Courier(TransportSettings(), in_flight=0, backend="acme")
