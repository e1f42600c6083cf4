"""Google's two fronts: several pictures in a request, and gRPC calls that end early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio  # type: ignore[import-untyped, unused-ignore]
import pytest
from google.cloud.vision_v1 import types as vision

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.simulator.faults import Fate
from smoothing_proxy.wire.google import GoogleWire
from tests.simulator.asking import Bench, bench, by_level, run
from tests.simulator.plain_wire import picture

METHOD = "/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages"
KEY = "simulator-secret"

Call = Callable[[Bench, Any], Awaitable[Any]]


def question(*images: bytes) -> Any:
    feature = vision.Feature(type_=vision.Feature.Type.LABEL_DETECTION)
    requests = [
        vision.AnnotateImageRequest(image=vision.Image(content=image), features=[feature]) for image in images
    ]
    return vision.BatchAnnotateImagesRequest(requests=requests)


async def by_grpc(there: Bench, asked: Any, key: str = KEY, timeout_s: float = 5.0) -> Any:
    async with grpc.aio.insecure_channel(there.address.grpc) as channel:
        return await over(channel, asked, key, timeout_s)


async def over(channel: grpc.aio.Channel, asked: Any, key: str = KEY, timeout_s: float = 5.0) -> Any:
    call = channel.unary_unary(
        METHOD,
        vision.BatchAnnotateImagesRequest.serialize,
        vision.BatchAnnotateImagesResponse.deserialize,
    )
    return await call(asked, metadata=[("x-goog-api-key", key)], timeout=timeout_s)


async def by_rest(there: Bench, asked: Any) -> Any:
    seen = await there.ask(
        vision.BatchAnnotateImagesRequest.to_json(asked),
        path="/v1/images:annotate?$alt=json;enum-encoding=int",
        headers={"x-goog-api-key": KEY, "content-type": "application/json"},
    )
    assert seen.status == 200, seen.body
    return vision.BatchAnnotateImagesResponse.from_json(seen.body)


@pytest.mark.parametrize("call", [by_grpc, by_rest])
def test_each_picture_of_a_request_has_its_own_answer_or_fault(call: Call) -> None:
    async def work() -> tuple[list[str | int], dict[str, Any]]:
        async with bench(ScriptedBackend(by_level), GoogleWire()) as there:
            reply = await call(there, question(picture(10), b"no picture", picture(200)))
            return [one.error.code or one.label_annotations[0].description for one in reply.responses], (
                await there.till()
            )

    answers, till = run(work)
    assert answers == ["dark", 3, "light"]
    assert (till["billed"], till["answered"], till["outcomes"]) == (2, 2, {"answered": 1})


def test_work_is_billed_though_the_grpc_client_left() -> None:
    async def work() -> dict[str, Any]:
        async with bench(wire=GoogleWire(), latency_s=1.5) as there:
            with pytest.raises(grpc.aio.AioRpcError) as seen:
                await by_grpc(there, question(picture()), timeout_s=0.8)
            assert seen.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return await there.settled()

    till = run(work)
    assert (till["requests"], till["billed"]) == (1, 1)


def test_a_wrong_key_is_refused_by_grpc_and_counted() -> None:
    async def work() -> tuple[object, dict[str, Any]]:
        async with bench(wire=GoogleWire()) as there:
            with pytest.raises(grpc.aio.AioRpcError) as seen:
                await by_grpc(there, question(picture()), key="wrong")
            return seen.value.code(), await there.till()

    code, till = run(work)
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert (till["requests"], till["outcomes"]) == (1, {"unauthenticated": 1})


def test_under_all_faults_at_once_the_till_is_what_grpc_clients_saw() -> None:
    rates: dict[str, Any] = dict.fromkeys(("throttle", "unavailable", "timeout", "hang", "empty"), 0.1)
    requests = 80

    async def one(channel: grpc.aio.Channel, number: int) -> str:
        try:
            reply = await over(channel, question(picture(number)), timeout_s=8.0)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "answered" if reply.responses[0].label_annotations else "empty"

    async def work() -> tuple[list[str], dict[str, Any]]:
        async with bench(wire=GoogleWire(), seed=7, **rates) as there:
            async with grpc.aio.insecure_channel(there.address.grpc) as channel:
                seen = await asyncio.gather(*(one(channel, number) for number in range(requests)))
            return seen, await there.until(lambda till: sum(till["outcomes"].values()) == requests)

    seen, till = run(work)
    outcomes = till["outcomes"]
    assert till["requests"] == sum(outcomes.values()) == requests
    assert seen.count("RESOURCE_EXHAUSTED") == outcomes[Fate.THROTTLED]
    assert seen.count("UNAVAILABLE") == outcomes[Fate.UNAVAILABLE]
    assert seen.count("DEADLINE_EXCEEDED") == outcomes[Fate.TIMEOUT] + outcomes[Fate.HANG]
    assert seen.count("answered") == outcomes[Fate.ANSWERED]
    assert seen.count("empty") == outcomes[Fate.EMPTY]
    assert till["billed"] == outcomes[Fate.ANSWERED] + outcomes[Fate.EMPTY] + outcomes[Fate.HANG]
    assert till["answered"] == outcomes[Fate.ANSWERED] + outcomes[Fate.EMPTY]
