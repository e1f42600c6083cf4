"""What is passed on, sent again: one reply, paid for once and at its own price, and nothing refused for it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from smoothing_proxy.backends.azure_vision import AzureVision
from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.metrics import Metrics
from smoothing_proxy.gateway.passage import Passage
from smoothing_proxy.gateway.passes import is_complete
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.ledger.gateway.nouns import KeyTerms, Spend
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.transport.clock import SystemClock
from smoothing_proxy.wire.base import HttpReply, HttpRequest
from smoothing_proxy.wire.errands import errand_of
from tests.gateway import sdks
from tests.gateway.gateways import KEY_ID, PASSING, PASSING_ID, SECRET, There, picture, serving
from tests.gateway.test_passthrough import ON, OUR_SECRET, QUICK, before_aws
from tests.gateway.upstream import Upstream, http_upstream

DESCRIBE = "/vision/v3.2/describe"
NAME = "x-ms-client-request-id"


def azure(upstream: Upstream) -> AzureVision:
    return AzureVision(endpoint=upstream.url, environ={"AZURE_VISION_KEY": OUR_SECRET}, price_usd_per_1000=1.0)


@contextmanager
def before_azure(**passthrough: Any) -> Iterator[tuple[There, Upstream]]:
    with http_upstream() as upstream:
        upstream.answer = (200, {"description": {"captions": [{"text": "a cat"}]}})
        backend = azure(upstream)
        with serving(backend, transport=QUICK, passthrough={**ON, **passthrough}) as there:
            yield there, upstream
            there.portal.call(backend.aclose)


def described(there: There, image: bytes, secret: str = SECRET, name: str = "") -> httpx.Response:
    headers = {"ocp-apim-subscription-key": secret, "content-type": "application/octet-stream"}
    return there.client.post(DESCRIBE, content=image, headers=headers | ({NAME: name} if name else {}))


ONE, OTHER = picture(1), picture(2)


@pytest.mark.parametrize(
    ("again", "asked"),
    [
        ({"image": ONE, "name": "a"}, 1),
        ({"image": ONE, "name": "b"}, 2),
        ({"image": OTHER, "name": "a"}, 2),
        ({"image": ONE, "name": "a", "secret": PASSING}, 2),
    ],
    ids=["the same", "another request about it", "a name that is used for everything", "another key"],
)
def test_the_same_request_of_the_same_key_gets_the_same_reply_and_no_other_one_is_refused(
    again: Mapping[str, Any], asked: int
) -> None:
    with before_azure() as (there, upstream):
        first, second = described(there, ONE, name="a"), described(there, **again)
        spent = there.store.spent(KEY_ID) + there.store.spent(PASSING_ID)
    assert (first.status_code, first.json()) == (second.status_code, second.json())
    assert first.headers["content-type"] == second.headers["content-type"]
    told = [reply.headers["x-smoothing-replayed"] for reply in (first, second)]
    assert told == ["false", "true" if asked == 1 else "false"]
    assert len(upstream.asked) == spent == asked


def test_a_request_without_a_name_is_the_same_where_the_operation_keeps_nothing() -> None:
    with before_azure() as (there, upstream):
        told = [described(there, ONE).headers["x-smoothing-replayed"] for _ in range(2)]
    assert (told, len(upstream.asked)) == (["false", "true"], 1)


@pytest.mark.parametrize(("name", "asked"), [("", 2), ("mine", 1)])
def test_an_operation_that_keeps_something_happens_again_unless_its_name_says_that_it_is_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, asked: int
) -> None:
    def call_it(request: Any, **_: object) -> None:
        del request.headers["amz-sdk-invocation-id"]
        if name:
            request.headers["amz-sdk-invocation-id"] = name

    passthrough = {**ON, "operations": ("IndexFaces",)}
    with before_aws(monkeypatch, passthrough=passthrough) as (there, upstream), sdks.rekognition(there) as client:
        client.meta.events.register("before-send.rekognition.IndexFaces", call_it)
        for _ in range(2):
            client.index_faces(CollectionId="people", Image={"Bytes": ONE})
    assert len(upstream.asked) == asked


def test_boto3s_own_retries_of_a_slow_pass_cost_one_query(monkeypatch: pytest.MonkeyPatch) -> None:
    patient: dict[str, Any] = {"read_timeout": 0.3, "retries": {"total_max_attempts": 20, "mode": "standard"}}
    with before_aws(monkeypatch, passthrough=ON) as (there, upstream):
        upstream.may_answer.clear()
        sent = itertools.count(1)

        def answer_the_second(**_: object) -> None:
            if next(sent) == 2:
                upstream.may_answer.set()

        with sdks.rekognition(there, **patient) as client:
            client.meta.events.register("before-send.rekognition.DetectFaces", answer_the_second)
            reply = client.detect_faces(Image={"Bytes": ONE})
        spent = there.store.spent(KEY_ID)
    assert reply["ResponseMetadata"]["RetryAttempts"] > 0
    assert reply["FaceDetails"]
    assert (len(upstream.asked), spent) == (1, 1)


def test_passes_of_the_same_thing_at_the_same_time_are_one() -> None:
    with before_azure() as (there, upstream), ThreadPoolExecutor(4) as pool:
        upstream.may_answer.clear()
        threading.Timer(0.3, upstream.may_answer.set).start()
        replies = list(pool.map(lambda _: described(there, ONE), range(4)))
        spent = there.store.spent(KEY_ID)
    assert {reply.status_code for reply in replies} == {200}
    assert sorted(reply.headers["x-smoothing-replayed"] for reply in replies) == ["false", *["true"] * 3]
    assert (len(upstream.asked), spent) == (1, 1)


def test_an_error_of_the_vendor_is_not_told_again() -> None:
    with before_azure() as (there, upstream):
        good, upstream.answer = upstream.answer, (503, {"error": {"code": "busy", "message": "later"}})
        first = described(there, ONE, name="a").status_code
        upstream.answer = good
        second = described(there, ONE, name="a")
    assert (first >= 500, second.status_code, second.headers["x-smoothing-replayed"]) == (True, 200, "false")


def test_googles_errors_of_single_pictures_are_not_kept() -> None:
    from google.cloud.vision_v1 import types as vision
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped, unused-ignore]

    def reply(*failed: bool) -> HttpReply:
        errors = [Status(code=14, message="later") if bad else None for bad in failed]
        responses = [vision.AnnotateImageResponse(error=error) for error in errors]
        whole = vision.BatchAnnotateImagesResponse(responses=responses)
        return HttpReply(200, {}, bytes(vision.BatchAnnotateImagesResponse.serialize(whole)))

    kept = [
        is_complete("google", told) for told in (reply(False), reply(False, True), HttpReply(200, {}, b"\xff"))
    ]
    assert kept == [True, False, False]


@pytest.mark.parametrize(("own", "usd"), [({}, 0.001), ({"price_usd": 0.0035}, 0.0035), ({"price_usd": 0.0}, 0.0)])
def test_a_pass_is_counted_at_its_own_price_or_at_a_labels(own: dict[str, float], usd: float) -> None:
    with before_azure(**own) as (there, _):
        described(there, ONE)
        counted = there.gateway.metrics.registry.get_sample_value("smoothing_spend_usd_total")
    assert counted == pytest.approx(usd)


def test_the_database_knows_a_passes_price_and_tells_its_reply_again_by_another_replica(tmp_path: Path) -> None:
    settings = GatewaySettings.model_validate({"passthrough": {**ON, "price_usd": 0.25}})
    request = HttpRequest("POST", DESCRIBE, {"content-type": "image/png"}, ONE, target=DESCRIBE)

    async def work(upstream: Upstream) -> None:
        backend = azure(upstream)
        address = tmp_path / "gateway.db"
        async with (
            await GatewayStore.open(address, secret_key=bytes(32), replica="a") as first,
            await GatewayStore.open(address, secret_key=bytes(32), replica="b") as second,
        ):
            key, token = await first.create_key("ann", "azure", KeyTerms(passthrough=True, usd_limit=0.4))
            told = []
            for inner in (first, second):
                store = LedgerStore(inner)
                caller = await store.check_token("azure", token)
                assert caller is not None
                passage = Passage(settings, backend, store, Metrics(), SystemClock())
                told.append(await passage.carry(caller, errand_of("azure", request), "a"))
            assert [one.replayed for one in told] == [False, True]
            assert told[0].reply == HttpReply(told[1].reply.status, told[1].reply.headers, told[1].reply.body)
            assert await first.spend(key.id, "month") == Spend(calls=1, usd=0.25)
        await backend.aclose()

    with http_upstream() as upstream:
        anyio.run(work, upstream)
        assert len(upstream.asked) == 1
