"""gRPC messages that are slow to come, or never do: strangers' are not waited for, and nobody's for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]
import pytest

from smoothing_proxy.gateway.grpc_front import GoogleFront
from smoothing_proxy.serving.google_grpc import METHOD, REQUEST_BYTES, Call
from smoothing_proxy.wire.base import Fault, RequestFault
from tests.gateway import sdks
from tests.gateway.gateways import SECRET, There, picture, serving

PATIENCE_S = 20.0
AT_ONCE = 2
KEY = (("x-goog-api-key", SECRET),)
WRONG_KEY = (("x-goog-api-key", "a-key-of-nobodys"),)


async def unsaid(there: There, keys: Sequence[Any]) -> list[tuple[str, str]]:
    """How calls end, one after the other, whose message never comes: code and words."""
    told = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel:
        method = channel.stream_unary(METHOD)
        for metadata in keys:
            call = method(metadata=metadata, timeout=PATIENCE_S)
            told.append(((await call.code()).name, await call.details()))
    return told


def test_a_stranger_is_refused_before_its_message_comes() -> None:
    with serving(max_pending=AT_ONCE, body_timeout_s=3_600.0) as there:
        told = asyncio.run(unsaid(there, [(), WRONG_KEY] * AT_ONCE))
        labels = sdks.google_grpc(there, picture())
    assert {code for code, _ in told} == {"UNAUTHENTICATED"}
    assert labels[0][0] == "Dog"


def test_a_message_that_does_not_come_is_given_up_and_leaves_its_place_to_others() -> None:
    async def all_at_once(there: There) -> list[tuple[str, str]]:
        told = await asyncio.gather(*(unsaid(there, [KEY]) for _ in range(AT_ONCE)))
        return [one for (one,) in told]

    with serving(max_pending=AT_ONCE, body_timeout_s=0.2) as there:
        told = asyncio.run(all_at_once(there))
        labels = sdks.google_grpc(there, picture())
        assert there.gateway.bodies == 0
    assert told == [("INVALID_ARGUMENT", "the request did not arrive within 0.2 s")] * AT_ONCE
    assert labels[0][0] == "Dog"


def test_no_more_messages_arrive_at_once_than_there_is_memory_for() -> None:
    """Each may be of the largest size, as far as anybody knows."""
    with serving(bodies_bytes=2 * REQUEST_BYTES) as there:
        arriving = there.portal.call(_arriving, GoogleFront(there.gateway).answer, 5)
        assert there.gateway.bodies == 0
    assert arriving == [2, 2, 1]


async def _told(_: Any) -> None:
    """Nobody listens."""


async def _arriving(answer: Callable[[Call], Any], calls: int) -> list[int]:
    """How many messages are waited for at a time, where they come only once no further one is waited for."""
    waited: list[asyncio.Future[bytes]] = []

    async def message() -> bytes:
        waited.append(asyncio.get_running_loop().create_future())
        return await waited[-1]

    tasks = [asyncio.create_task(answer(Call(SECRET, {}, message, _told))) for _ in range(calls)]
    counts = []
    while waited or not all(task.done() for task in tasks):
        for _ in range(100):  # all that can be done without a message
            await asyncio.sleep(0)
        counts.append(len(waited))
        for one in waited:
            one.set_result(b"no message at all")
        waited.clear()
        for _ in range(100):
            await asyncio.sleep(0)
    for task in tasks:
        assert isinstance(task.exception(), RequestFault)
    return counts


def test_who_finds_no_place_in_time_is_told_to_come_back() -> None:
    async def second(answer: Callable[[Call], Any]) -> BaseException | None:
        over = asyncio.Event()

        async def stubborn() -> bytes:
            while not over.is_set():
                with suppress(asyncio.CancelledError):  # or its place would be free in time
                    await over.wait()
            return b"no message at all"

        first, second = (asyncio.create_task(answer(Call(SECRET, {}, stubborn, _told))) for _ in range(2))
        await asyncio.wait([second])
        over.set()
        await asyncio.wait([first])
        return second.exception()

    with serving(bodies_bytes=REQUEST_BYTES, body_timeout_s=0.1) as there:
        fault = there.portal.call(second, GoogleFront(there.gateway).answer)
    assert isinstance(fault, RequestFault)
    assert (fault.fault, fault.retry_after_s) == (Fault.THROTTLED, 1.0)


@pytest.mark.parametrize(("size", "code"), [(REQUEST_BYTES + 1, "RESOURCE_EXHAUSTED"), (None, "INVALID_ARGUMENT")])
def test_a_message_that_is_too_large_or_none_is_refused(size: int | None, code: str) -> None:
    async def sent(there: There) -> str:
        options = (("grpc.max_send_message_length", -1),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{there.address.grpc_port}", options) as channel:
            call = channel.stream_unary(METHOD)(metadata=KEY, timeout=PATIENCE_S)
            if size is not None:
                await call.write(bytes(size))
            await call.done_writing()
            return str((await call.code()).name)

    with serving() as there:
        assert asyncio.run(sent(there)) == code
