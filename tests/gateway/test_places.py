"""A key's place among the requests under way belongs to the work, not to the client that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import grpc  # type: ignore[import-untyped, unused-ignore]
import httpx
import pytest
from google.cloud.vision_v1 import types as vision

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.gateway.app import every_wire, make_app, make_gateway
from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.metrics import Metrics
from smoothing_proxy.gateway.passage import Passage
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.serving import Address, listening
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.ledger.gateway.nouns import KeyTerms
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.transport.clock import SystemClock
from smoothing_proxy.wire.base import HttpRequest, RequestFault
from smoothing_proxy.wire.errands import errand_of
from tests.gateway.gateways import DOG, SMOOTHING, picture
from tests.gateway.test_passing_once import DESCRIBE, azure
from tests.gateway.test_passthrough import ON
from tests.gateway.test_streams import asked
from tests.gateway.upstream import Upstream, http_upstream
from tests.gateway.waiting import until
from tests.ledger.gateway.stores import open_store

ONE, OTHER = picture(1), picture(2)
METHOD = "/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages"


@dataclass(frozen=True)
class Single:
    """A gateway with one key that may have one request under way; its classifier waits for `open`."""

    gateway: Gateway
    address: Address
    token: str
    gate: anyio.Event
    backend: ScriptedBackend

    def ended(self) -> float:
        """Requests that the gateway is done with, whoever left."""
        family = next(one for one in self.gateway.metrics.registry.collect() if one.name == "smoothing_requests")
        return sum(sample.value for sample in family.samples if sample.name.endswith("_total"))


@asynccontextmanager
async def single(path: Path, vendor: str) -> AsyncIterator[Single]:
    gate = anyio.Event()

    async def wait(_: float) -> None:
        await gate.wait()

    async with open_store(str(path / "gateway.db")) as inner:
        _, token = await inner.create_key("ann", vendor, KeyTerms(parallel=1))
        backend = ScriptedBackend(DOG, sleep=wait)
        classifier = BaseClassifier(backend, Identity(), sigma=SMOOTHING.sigma)
        settings = GatewaySettings(port=0, grpc_port=0)
        gateway = make_gateway(settings, classifier, SMOOTHING, LedgerStore(inner))
        async with listening(gateway, every_wire()) as address:
            try:
                yield Single(gateway, address, token, gate, backend)
            finally:
                gate.set()


def call(channel: Any, there: Single, image: bytes) -> Any:
    request = {"requests": [{"image": {"content": image}, "features": [{"type_": 4}]}]}
    body = vision.BatchAnnotateImagesRequest.pb(vision.BatchAnnotateImagesRequest(request)).SerializeToString()
    return channel.unary_unary(METHOD)(body, metadata=(("x-goog-api-key", there.token),), timeout=20)


async def by_grpc(there: Single, image: bytes, *, leave: bool) -> str:
    """How it was refused, "" for an answer, also for one that was not waited for."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel:
        under_way = call(channel, there, image)
        if leave:
            await until(lambda: there.backend.asked > 0)
            under_way.cancel()
            return ""
        try:
            await under_way
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return ""


async def by_stream(there: Single, image: bytes, *, leave: bool) -> str:
    """As `by_grpc`."""
    if leave:
        await asked(make_app(there.gateway, ()), there.token, accept="text/event-stream", leaves=True, image=image)
        return ""
    headers = {"x-api-key": there.token, "content-type": "image/png"}
    async with httpx.AsyncClient(base_url=there.address.url, timeout=20) as client:
        reply = await client.post("/v1/predict", content=image, headers=headers)
        return "" if reply.status_code == 200 else str(reply.status_code)


Ask = Callable[..., Awaitable[str]]


@pytest.mark.parametrize(
    ("ask", "vendor", "refusal"), [(by_grpc, "google", "RESOURCE_EXHAUSTED"), (by_stream, "native", "429")]
)
def test_work_whose_client_has_left_keeps_its_place_and_whoever_asks_the_same_needs_none(
    tmp_path: Path, ask: Ask, vendor: str, refusal: str
) -> None:
    async def work() -> None:
        async with single(tmp_path, vendor) as there:
            with anyio.fail_after(30):
                await ask(there, ONE, leave=True)
                await until(lambda: there.ended() == 1)  # what it held, it has given back
                assert await ask(there, OTHER, leave=False) == refusal
                assert len(there.gateway.jobs) == 1
                async with anyio.create_task_group() as group:
                    joined: list[str] = []

                    async def join() -> None:
                        joined.append(await ask(there, ONE, leave=False))

                    group.start_soon(join)
                    there.gate.set()
                assert joined == [""]
                paid = there.backend.asked
                assert await ask(there, OTHER, leave=False) == ""
                assert there.backend.asked == 2 * paid

    anyio.run(work)


def test_what_is_passed_on_keeps_its_place_until_the_vendor_has_answered(tmp_path: Path) -> None:
    settings = GatewaySettings.model_validate({"passthrough": ON})

    async def work(upstream: Upstream) -> None:
        backend = azure(upstream)
        async with open_store(str(tmp_path / "gateway.db")) as inner:
            _, token = await inner.create_key("ann", "azure", KeyTerms(parallel=1))
            store = LedgerStore(inner)
            caller = await store.check_token("azure", token)
            assert caller is not None
            passage = Passage(settings, backend, store, Metrics(), SystemClock())

            async def carry(image: bytes) -> int:
                request = HttpRequest("POST", DESCRIBE, {"content-type": "image/png"}, image, target=DESCRIBE)
                return (await passage.carry(caller, errand_of("azure", request))).reply.status

            left = asyncio.create_task(carry(ONE))
            await until(lambda: len(upstream.asked) == 1)
            left.cancel()
            await asyncio.wait([left])
            with pytest.raises(RequestFault, match="may have 1 requests"):
                await carry(OTHER)
            joined = asyncio.create_task(carry(ONE))
            await asyncio.sleep(0)
            upstream.may_answer.set()
            assert await joined == await carry(OTHER) == 200
            assert len(upstream.asked) == 2
        await backend.aclose()

    async def bounded(upstream: Upstream) -> None:
        with anyio.fail_after(30):
            await work(upstream)

    with http_upstream() as upstream:
        upstream.may_answer.clear()
        anyio.run(bounded, upstream)
