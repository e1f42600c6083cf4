"""The backend against Clarifai's format on loopback: a batch is one send, and each copy has its own outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from smoothing_proxy.backends import clarifai
from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.clarifai import Clarifai
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigError,
    MalformedReplyError,
    MissingCredentialError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage, Encoding, encode
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, Limits, RequestFault
from smoothing_proxy.wire.clarifai import MOST_CONCEPTS, ClarifaiWire
from tests.backends.backend_asking import noise_pictures
from tests.wire.loopback import serving
from tests.wire.wire_server import PANDA, SECRET, answering

pytestmark = pytest.mark.anyio

WIRE = ClarifaiWire()
COPIES = [encode(picture, Encoding("png")) for picture in noise_pictures(3, 16, 16)]
HUGE = EncodedImage(bytes(20 * 2**20 + 1), "png", 100, 100)


def made(url: str = "https://example.com", **options: Any) -> Clarifai:
    usual: dict[str, Any] = {
        "base_url": url,
        "user_id": "u",
        "app_id": "main",
        "model_id": "general",
        "model_version": "v1",
        "environ": {"CLARIFAI_PAT": SECRET},
        "connect_timeout_s": 5.0,
        "read_timeout_s": 5.0,
        "price_usd_per_1000": 1.2,
    }
    return Clarifai(**(usual | options))


async def ask(backend: Backend, copies: Sequence[EncodedImage] = COPIES) -> Sequence[Reply | BackendError]:
    try:
        async with asyncio.timeout(10):
            return await backend.classify(copies)
    finally:
        await backend.aclose()


async def test_a_batch_is_one_request_for_the_pinned_version() -> None:
    seen: list[HttpRequest] = []
    with serving(answering(WIRE, PANDA, seen)) as url:
        backend = made(url, concepts=["panda", "cat"])
        replies = await ask(backend)
    assert isinstance(backend, Backend)
    assert [reply.labels[0].name for reply in replies if isinstance(reply, Reply)] == ["panda"] * 3
    (request,) = seen
    assert request.path == "/v2/users/u/apps/main/models/general/versions/v1/outputs"
    question = WIRE.read(request)
    assert question.images == tuple(copy.data for copy in COPIES)
    assert (question.labels, question.max_labels, question.min_confidence) == (("panda", "cat"), 2, 0.0)


@pytest.mark.parametrize(
    ("fault", "kind", "maybe_billed"),
    [
        (Fault.BAD_REQUEST, RequestRejectedError, False),
        (Fault.UNAUTHENTICATED, AuthenticationError, False),
        (Fault.THROTTLED, RateLimitedError, False),
        (Fault.QUOTA, QuotaExceededError, False),
        (Fault.INTERNAL, BackendUnavailableError, True),
        (Fault.UNAVAILABLE, BackendUnavailableError, False),
        (Fault.TIMEOUT, BackendTimeoutError, True),
    ],
)
async def test_a_fault_is_sent_once_and_has_its_meaning(
    fault: Fault, kind: type[BackendError], maybe_billed: bool
) -> None:
    seen: list[HttpRequest] = []
    with (
        serving(answering(WIRE, RequestFault(fault, "because", retry_after_s=3.0), seen)) as url,
        pytest.raises(kind, match=r"clarifai: .*because") as raised,
    ):
        await ask(made(url))
    assert type(raised.value) is kind
    assert raised.value.maybe_billed is maybe_billed
    assert getattr(raised.value, "retry_after", 3.0) == 3.0
    assert len(seen) == 1
    assert SECRET not in str(raised.value) + repr(vars(raised.value))


async def test_each_copy_has_its_own_outcome() -> None:
    def second_is_bad(request: HttpRequest) -> HttpReply:
        bad = RequestFault(Fault.BAD_IMAGE, "not a picture")
        return WIRE.write(request, WIRE.read(request), [PANDA, bad, PANDA], "r")

    with serving(second_is_bad) as url:
        first, second, third = await ask(made(url))
    assert isinstance(first, Reply)
    assert isinstance(second, RequestRejectedError)
    assert isinstance(third, Reply)


async def test_a_key_that_may_not_do_all_is_told_beside_the_answers_that_were_paid_for() -> None:
    def second_is_forbidden(request: HttpRequest) -> HttpReply:
        body = json.loads(WIRE.write(request, WIRE.read(request), [PANDA] * 3, "r").body)
        body["status"]["code"] = 10010
        body["outputs"][1] = {"status": {"code": 21201, "description": "MODEL_PERMISSION_DENIED"}, "data": {}}
        return HttpReply(200, {}, json.dumps(body).encode())

    with serving(second_is_forbidden) as url:
        outcomes = await ask(made(url))
    assert [type(outcome) for outcome in outcomes] == [Reply, AuthenticationError, Reply]


async def test_a_copy_that_is_too_large_is_not_sent_and_the_others_are() -> None:
    seen: list[HttpRequest] = []
    with serving(answering(WIRE, PANDA, seen)) as url:
        first, second, third = await ask(made(url), [COPIES[0], HUGE, COPIES[2]])
    assert isinstance(second, RequestRejectedError)
    assert (isinstance(first, Reply), isinstance(third, Reply), second.attempts) == (True, True, 0)
    assert WIRE.read(seen[0]).images == (COPIES[0].data, COPIES[2].data)


async def test_nothing_is_sent_where_every_copy_is_too_large() -> None:
    with pytest.raises(RequestRejectedError, match="encoding to jpeg"):
        await ask(made("http://127.0.0.1:1"), [HUGE, HUGE])


async def test_copies_beyond_a_full_request_go_in_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(COPIES[0].data)
    full = clarifai.WRAPPING * (MOST_CONCEPTS + 2) + 2 * 4 * -(-size // 3)
    monkeypatch.setattr(clarifai, "LIMITS", Limits(size, full, batch=128))
    seen: list[HttpRequest] = []

    def single_ones_fail(request: HttpRequest) -> HttpReply:
        seen.append(request)
        images = WIRE.read(request).images
        if len(images) == 1:
            return WIRE.refuse(request, RequestFault(Fault.UNAVAILABLE, "because"), "r")
        return WIRE.write(request, WIRE.read(request), [PANDA] * len(images), "r")

    with serving(single_ones_fail) as url:
        outcomes = await ask(made(url), [COPIES[0]] * 3)
    assert [type(outcome) for outcome in outcomes] == [Reply, Reply, BackendUnavailableError]
    assert sorted(len(WIRE.read(request).images) for request in seen) == [1, 2]
    assert max(len(request.body) for request in seen) <= full


@pytest.mark.parametrize("body", [b"", b"{", b'{"status": {"code": 10000}, "outputs": []}'])
async def test_an_answer_that_is_none_is_kept(body: bytes) -> None:
    with (
        serving(answering(WIRE, HttpReply(200, {}, body), [])) as url,
        pytest.raises(MalformedReplyError) as raised,
    ):
        await ask(made(url))
    assert raised.value.reply == body


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"environ": {}}, MissingCredentialError, "CLARIFAI_PAT"),
        ({"pat_env": "MINE"}, MissingCredentialError, "MINE"),
        ({"model_version": ""}, ConfigError, "model_version"),
        ({"user_id": "a/b"}, ConfigError, "user_id"),
        ({"batch": 0}, ConfigError, "batch"),
        ({"batch": 129}, ConfigError, "128"),
        ({"max_concepts": 0}, ConfigError, "max_concepts"),
        ({"concepts": "cat"}, ConfigError, "list"),
        ({"concepts": ["cat", "cat"]}, ConfigError, "once"),
        ({"concepts": [str(i) for i in range(201)]}, ConfigError, "200"),
        ({"encoding": "raw"}, ConfigError, "encoding"),
        ({"base_url": "clarifai"}, ConfigError, "base_url"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    options: dict[str, Any], error: type[ConfigError], words: str
) -> None:
    with pytest.raises(error, match=words):
        made(**options)


def test_the_version_has_to_be_pinned() -> None:
    with pytest.raises(TypeError, match="model_version"):
        Clarifai(user_id="u", app_id="a", model_id="m")  # type: ignore[call-arg]


def test_the_fingerprint_changes_with_what_is_asked_and_holds_no_secret() -> None:
    backend = made(concepts=["cat", "dog"], batch=4)
    assert backend.fingerprint["concepts"] == "cat\ndog"
    assert backend.fingerprint != made(concepts=["cat"]).fingerprint
    assert backend.fingerprint != made(concepts=["cat", "dog"], model_version="v2").fingerprint
    assert SECRET not in repr(backend.fingerprint) + repr(backend)
    assert (backend.batch_size, backend.price_usd, backend.encoding) == (
        4,
        0.0012,
        Encoding("png", max_bytes=20 * 2**20),
    )
