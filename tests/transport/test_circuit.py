"""The circuit: while a vendor is down one request at a time asks for it, and the run is stopped at last."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest

from smoothing_proxy.errors import (
    BackendDownError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    MalformedReplyError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.transport.circuit import Circuit
from smoothing_proxy.transport.courier import Undelivered
from smoothing_proxy.transport.settings import TransportSettings
from tests.transport.bookkeeper import Books, ScriptedVendor, courier_of
from tests.transport.virtual_clock import VirtualClock, run_virtually

PAUSES: dict[str, Any] = {
    "circuit_failures": 3,
    "circuit_pause_s": 4.0,
    "circuit_pause_max_s": 16.0,
    "give_up_after_s": 100.0,
}


def circuit_of(**settings: float) -> Circuit:
    return Circuit(
        TransportSettings(**(PAUSES | settings)),
        "acme",
        VirtualClock(),
        random.Random(1),
    )


def unavailable() -> BackendError:
    return BackendUnavailableError("down")


@pytest.mark.parametrize(
    ("life", "opens"),
    [(None, True), (Circuit.answered, False), (Circuit.throttled, True)],
)
def test_only_failures_in_a_row_open_it(life: Callable[[Circuit], None] | None, opens: bool) -> None:
    async def run() -> bool:
        circuit = circuit_of()
        for _ in range(2):
            circuit.failed(probe=False)
        if life is not None:
            life(circuit)
        circuit.failed(probe=False)
        return circuit.is_open

    assert run_virtually(run) is opens


def test_pauses_between_probes_double_up_to_a_maximum_with_jitter() -> None:
    async def run() -> list[float]:
        circuit = circuit_of()
        for _ in range(3):
            circuit.failed(probe=False)
        pauses = []
        for _ in range(5):
            since = VirtualClock().now()
            assert await circuit.ready(lambda: False)
            pauses.append(VirtualClock().now() - since)
            circuit.failed(probe=True)
            circuit.leave()
        return pauses

    pauses = run_virtually(run)
    for pause, longest in zip(pauses, [4.0, 8.0, 16.0, 16.0, 16.0], strict=True):
        assert longest / 2 <= pause <= longest
    assert len(set(pauses[2:])) == 3


def test_what_left_before_it_opened_does_not_prolong_the_pause() -> None:
    async def run() -> float:
        circuit = circuit_of()
        for _ in range(60):
            circuit.failed(probe=False)
        assert await circuit.ready(lambda: False)
        return VirtualClock().now()

    assert run_virtually(run) <= 4.0


def test_in_an_outage_one_request_at_a_time_is_sent_and_no_draw_is_lost() -> None:
    """Twenty items; the vendor is unreachable for the first minute."""
    vendor = ScriptedVendor([lambda: unavailable() if VirtualClock().now() < 60.0 else "cat"])
    books = Books()

    async def run() -> None:
        courier = courier_of(in_flight=8, attempts=4, **PAUSES)
        async with anyio.create_task_group() as tasks:
            for item in range(20):
                tasks.start_soon(courier.deliver, [item], vendor.send, books)

    run_virtually(run)
    assert books.answers == dict.fromkeys(range(20), "cat")
    assert sum(at <= 1.0 for at, _ in vendor.sent) <= 8 + 2  # two places were free before the third failure
    probes = [at for at, _ in vendor.sent if 1.0 < at < 60.0]
    assert 3 <= len(probes) <= 16
    assert all(later - earlier >= 2.0 for earlier, later in pairwise(probes))
    assert max(books.settled_at.values()) <= max(probes) + 16.0 + 2.0


def test_a_probe_that_cost_nothing_is_no_attempt_of_its_draw() -> None:
    vendor = ScriptedVendor([lambda: unavailable() if VirtualClock().now() < 60.0 else "cat"])
    books = Books()

    async def run() -> None:
        await courier_of(attempts=1, circuit_failures=1, circuit_pause_s=4.0).deliver([0], vendor.send, books)

    run_virtually(run)
    assert books.answers == {0: "cat"}
    assert len(vendor.sent) > 3


@pytest.mark.parametrize("reply", [unavailable(), RateLimitedError("slow down", retry_after=2.0)])
def test_a_vendor_that_stays_silent_stops_the_run_and_gives_every_item_back(reply: BackendError) -> None:
    vendor, books = ScriptedVendor([reply]), Books()
    stops: list[float] = []

    async def run() -> None:
        courier = courier_of(in_flight=4, throttle_attempts=10_000, **PAUSES)

        async def deliver(item: int) -> None:
            with pytest.raises(BackendDownError, match=r"acme: no answer for 1\d\d s .*resume when it is back"):
                await courier.deliver([item], vendor.send, books)
            stops.append(VirtualClock().now())

        async with anyio.create_task_group() as tasks:
            for item in range(4):
                tasks.start_soon(deliver, item)

    run_virtually(run)
    assert min(stops) >= 100.0
    assert not books.answers
    assert books.count("withdrawn") == dict.fromkeys(range(4), 1)


@pytest.mark.parametrize("life", ["cat", RequestRejectedError("bad picture")])
def test_an_answer_or_a_refusal_of_another_picture_is_a_sign_of_life(life: str | BackendError) -> None:
    async def run() -> bool:
        courier = courier_of(**PAUSES)
        for _ in range(2):
            courier.circuit.failed(probe=False)
        await courier.deliver([0], ScriptedVendor([life]).send, Books())
        courier.circuit.failed(probe=False)
        return courier.circuit.is_open

    assert run_virtually(run) is False


def test_what_never_left_this_machine_is_no_sign_of_life() -> None:
    too_large = RequestRejectedError("larger than what is taken", attempts=0)

    async def run() -> bool:
        courier = courier_of(**PAUSES)
        for _ in range(2):
            courier.circuit.failed(probe=False)
        await courier.deliver([0], ScriptedVendor([too_large]).send, Books())
        courier.circuit.failed(probe=False)
        return courier.circuit.is_open

    assert run_virtually(run) is True


def test_answers_in_another_format_stop_the_run_before_they_have_used_it_up() -> None:
    vendor, books = ScriptedVendor([MalformedReplyError("no JSON but a login page")]), Books()

    async def run() -> list[BackendDownError]:
        courier, stops = courier_of(**PAUSES), []
        for item in range(3):
            try:
                await courier.deliver([item], vendor.send, books)
            except BackendDownError as error:
                stops.append(error)
        return stops

    [stop] = run_virtually(run)
    assert "3 answers in a row are not in its format" in str(stop)
    assert "no JSON but a login page" in str(stop)
    assert books.unknown == dict.fromkeys(range(3), 1), "each is charged, and its draw has failed"
    assert books.count("withdrawn") == {}


@pytest.mark.parametrize(
    ("between", "stops"),
    [
        ("cat", False),
        (RequestRejectedError("bad picture"), False),
        (BackendTimeoutError("late"), True),
        (RateLimitedError("slow down"), True),
    ],
)
def test_only_an_answer_in_its_format_shows_that_it_is_the_vendor_who_answers(
    between: str | BackendError, stops: bool
) -> None:
    malformed = MalformedReplyError("no JSON")

    async def run() -> bool:
        courier = courier_of(**PAUSES | {"attempts": 1, "throttle_attempts": 1})
        try:
            for item, reply in enumerate([malformed, malformed, between, malformed]):
                await courier.deliver([item], ScriptedVendor([reply]).send, Books())
        except BackendDownError:
            return True
        return False

    assert run_virtually(run) is stops


def test_who_gives_up_says_why_the_last_send_failed() -> None:
    async def run() -> str:
        courier = courier_of(**PAUSES | {"attempts": 1})
        for item in range(2):
            await VirtualClock().sleep(60.0 * item)
            await courier.deliver([item], ScriptedVendor([BackendUnavailableError("no TLS there")]).send, Books())
        await VirtualClock().sleep(60.0)
        return str(courier.circuit.given_up())

    assert "no answer for 120 s" in (said := run_virtually(run))
    assert "the last time: no TLS there" in said


def test_old_trouble_with_nobody_asking_since_is_no_reason_to_give_up() -> None:
    async def run() -> None:
        circuit = circuit_of()
        circuit.failed(probe=False)
        await VirtualClock().sleep(10_000.0)
        circuit.failed(probe=False)
        assert circuit.given_up() is None

    run_virtually(run)


def test_an_answer_between_two_outages_starts_the_wait_for_the_next_one_anew() -> None:
    async def run() -> list[bool]:
        circuit, gave_up = circuit_of(), []
        for life in (False, True, False):
            circuit.failed(probe=False)
            gave_up.append(circuit.given_up() is not None)
            if life:
                circuit.answered()
            await VirtualClock().sleep(60.0)
        circuit.failed(probe=False)
        gave_up.append(circuit.given_up() is not None)
        return gave_up

    assert run_virtually(run) == [False, False, False, False]


def test_a_picture_that_alone_cannot_be_sent_fails_at_last_though_it_opens_the_circuit_each_time() -> None:
    vendor, books = ScriptedVendor({0: [unavailable()], 1: ["cat"]}), Books()

    async def run() -> None:
        courier = courier_of(circuit_failures=1, circuit_pause_s=1.0, throttle_attempts=8)

        async def others() -> None:
            while 0 not in books.answers:
                await courier.deliver([1], vendor.send, Books())
                await anyio.sleep(5.0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(others)
            await courier.deliver([0], vendor.send, books)

    run_virtually(run)
    answer = books.answers[0]
    assert isinstance(answer, BackendUnavailableError)
    assert answer.attempts == 8


def test_all_that_wait_wake_soon_when_stopped() -> None:
    vendor, books = ScriptedVendor([unavailable()]), Books()
    stopped_at: list[float] = []

    async def run() -> None:
        courier = courier_of(in_flight=4, circuit_failures=1, circuit_pause_s=60.0)

        async def deliver(item: int) -> None:
            with pytest.raises(Undelivered):
                await courier.deliver([item], vendor.send, books)
            stopped_at.append(VirtualClock().now())

        async with anyio.create_task_group() as tasks:
            for item in range(20):
                tasks.start_soon(deliver, item)
            await anyio.sleep(10.0)
            books.stop = True

    run_virtually(run)
    assert len(stopped_at) == 20
    assert 10.0 <= min(stopped_at) <= max(stopped_at) <= 10.5
    assert books.count("withdrawn") == books.count("sending")


def test_a_probe_that_is_cancelled_lets_another_one_probe() -> None:
    async def run() -> bool:
        courier = courier_of(circuit_failures=1, circuit_pause_s=1.0)
        courier.circuit.failed(probe=False)
        with anyio.move_on_after(5.0):
            await courier.deliver([0], ScriptedVendor(["cat"], takes_s=1000.0).send, Books())
        assert courier.circuit.is_open
        with anyio.fail_after(5.0):
            await courier.deliver([1], ScriptedVendor(["cat"]).send, Books())
        return courier.circuit.is_open

    assert run_virtually(run) is False


def test_a_timeout_counts_as_a_failure() -> None:
    vendor, books = ScriptedVendor([BackendTimeoutError("late")]), Books()

    async def run() -> bool:
        courier = courier_of(circuit_failures=2)
        await courier.deliver([0], vendor.send, books)
        return courier.circuit.is_open

    assert run_virtually(run)
