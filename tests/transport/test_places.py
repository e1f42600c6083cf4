"""While every place is taken the next few are written down, and they leave, or are given back."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from smoothing_proxy.errors import BackendUnavailableError
from smoothing_proxy.transport.courier import Courier, Undelivered
from tests.transport.bookkeeper import Books, ScriptedVendor, courier_of
from tests.transport.virtual_clock import VirtualClock, run_virtually


class SlowBooks(Books):
    """Writing takes a second. ahead: how many were written down and had not left, at most."""

    def __init__(self, vendor: ScriptedVendor) -> None:
        super().__init__()
        self._vendor = vendor
        self.ahead = 0

    async def sending(self, items: Sequence[int]) -> None:
        await anyio.sleep(1.0)
        await super().sending(items)
        left = sum(len(sent) for _, sent in self._vendor.sent)
        self.ahead = max(self.ahead, self.count("sending").total() - left)


async def deliver_all(courier: Courier, items: int, vendor: ScriptedVendor, books: Books) -> set[int]:
    """Those that were not delivered, since everything stopped."""
    undelivered: set[int] = set()

    async def deliver(item: int) -> None:
        try:
            await courier.deliver([item], vendor.send, books)
        except Undelivered:
            undelivered.add(item)

    async with anyio.create_task_group() as tasks:
        for item in range(items):
            tasks.start_soon(deliver, item)
    return undelivered


@pytest.mark.parametrize(("in_flight", "ahead"), [(7, 0), (8, 1), (16, 2), (64, 8)])
def test_one_in_eight_is_written_down_before_it_has_a_place(in_flight: int, ahead: int) -> None:
    vendor = ScriptedVendor(["cat"], takes_s=10.0)
    books = SlowBooks(vendor)
    run_virtually(lambda: deliver_all(courier_of(in_flight=in_flight), 4 * in_flight, vendor, books))
    assert books.answers == dict.fromkeys(range(4 * in_flight), "cat")
    assert vendor.most == in_flight
    assert books.ahead == ahead + 1  # who leaves that very moment is among them
    second = [at for at, _ in vendor.sent[in_flight : 2 * in_flight]]
    assert [at == pytest.approx(11.0) for at in second] == [True] * ahead + [False] * (in_flight - ahead)


def test_who_is_next_when_all_stops_is_given_back_and_never_sent() -> None:
    vendor, books = ScriptedVendor(["cat"], takes_s=10.0), Books()

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliver_all, courier_of(in_flight=16), 40, vendor, books)
            await anyio.sleep(5.0)
            books.stop = True

    run_virtually(run)
    assert set(books.answers) == set(range(16))
    assert books.count("withdrawn") == {16: 1, 17: 1}
    assert books.count("sending") == dict.fromkeys(range(18), 1)


def test_who_is_next_when_the_circuit_opens_is_given_back_and_sent_once_it_closes() -> None:
    def reply() -> BackendUnavailableError | str:
        return BackendUnavailableError("refused") if VirtualClock().now() < 30.0 else "cat"

    vendor, books = ScriptedVendor([reply], takes_s=1.0), Books()
    courier = courier_of(in_flight=16, circuit_failures=1, circuit_pause_s=8.0)
    assert run_virtually(lambda: deliver_all(courier, 40, vendor, books)) == set()
    assert books.answers == dict.fromkeys(range(40), "cat")
    probes = [at for at, _ in vendor.sent if 0.0 < at < 30.0]
    assert len(probes) == len(set(probes)) <= 8
    assert books.count("withdrawn") == {16: 1, 17: 1}


def test_where_the_rate_holds_sends_back_nobody_is_written_down_before_its_turn() -> None:
    vendor = ScriptedVendor(["cat"], takes_s=30.0)
    written: list[float] = []

    class Timed(Books):
        async def sending(self, items: Sequence[int]) -> None:
            written.append(VirtualClock().now())
            await super().sending(items)

    books = Timed()
    courier = courier_of(in_flight=16, requests_per_s=1.0)
    run_virtually(lambda: deliver_all(courier, 16, vendor, books))
    assert written == [at for at, _ in vendor.sent]
    assert len(books.answers) == 16


def test_a_write_that_fails_while_it_waits_for_a_place_takes_none() -> None:
    vendor, books, broken = ScriptedVendor(["cat"], takes_s=10.0), Books(), Books()
    broken.faults["sending"] = RuntimeError("the disk is full")

    async def run() -> None:
        courier = courier_of(in_flight=8)
        async with anyio.create_task_group() as tasks:
            for item in range(8):
                tasks.start_soon(courier.deliver, [item], vendor.send, books)
            await anyio.sleep(1.0)
            with pytest.raises(RuntimeError, match="the disk is full"):
                await courier.deliver([8], vendor.send, broken)
        await deliver_all(courier, 8, vendor, Books())

    run_virtually(run)
    assert vendor.most == 8
    assert not broken.events


def test_who_is_cancelled_while_next_in_line_leaves_the_line_to_others() -> None:
    vendor, books = ScriptedVendor(["cat"], takes_s=10.0), Books()

    async def run() -> None:
        courier = courier_of(in_flight=8)
        async with anyio.create_task_group() as tasks:
            for item in range(8):
                tasks.start_soon(courier.deliver, [item], vendor.send, books)
            await anyio.sleep(1.0)
            with anyio.move_on_after(2.0):
                await courier.deliver([8], vendor.send, books)
            tasks.start_soon(courier.deliver, [9], vendor.send, books)

    run_virtually(run)
    assert set(books.answers) == {*range(8), 9}
