"""The backend against a server on this machine that speaks chat completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.openai_vision import OpenAiVision
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
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault
from smoothing_proxy.wire.openai import OpenAiWire
from tests.backends.backend_asking import noise_pictures
from tests.wire.loopback import serving
from tests.wire.openai_exchanges import completion, recorded

WIRE = OpenAiWire()
SETTINGS: dict[str, Any] = {
    "base_url": "http://127.0.0.1:9",
    "model": "m-2026",
    "labels": ["dog", "cat"],
    "price_usd_per_1000": 2.0,
    "environ": {"OPENAI_API_KEY": "sk-secret"},
    "read_timeout_s": 10.0,
}


def copy(text: str = "png") -> EncodedImage:
    return encode(noise_pictures(1, 16, 16)[0], Encoding.parse(text))


def ask(settings: dict[str, Any], copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
    async def once() -> Sequence[Reply | BackendError]:
        backend = OpenAiVision(**{**SETTINGS, **settings})
        try:
            with anyio.fail_after(20):
                return await backend.classify(copies)
        finally:
            await backend.aclose()
            await backend.aclose()

    return anyio.run(once)


class Server:
    """Answers all with one thing: a reply to write, a fault to refuse with, or bytes as they are."""

    def __init__(self, answer: Reply | RequestFault | HttpReply) -> None:
        self.answer = answer
        self.asked: list[HttpRequest] = []

    def __call__(self, request: HttpRequest) -> HttpReply:
        self.asked.append(request)
        if isinstance(self.answer, HttpReply):
            return self.answer
        return WIRE.write(request, WIRE.read(request), [self.answer], "r-1")


def test_it_is_a_backend_with_the_price_that_it_was_told() -> None:
    backend: Backend = OpenAiVision(**SETTINGS)
    assert isinstance(backend, Backend)
    assert (backend.name, backend.batch_size, backend.price_usd) == ("openai-vision", 1, 0.002)
    assert "sk-secret" not in json.dumps(dict(backend.fingerprint)) + repr(vars(backend)["_api"])


@pytest.mark.parametrize("encoding", ["png", "jpeg:80"])
def test_one_copy_is_one_request_with_the_picture_and_the_key(encoding: str) -> None:
    server = Server(Reply((ScoredLabel("dog", 0.9), ScoredLabel("cat", 0.1)), model_version="m-2026-01"))
    sent = copy(encoding)
    with serving(server) as url:
        answers = ask({"base_url": f"{url}/v1", "extra": {"seed": 7}}, [sent])
    assert answers == [Reply((ScoredLabel("dog", 1.0),), "m-2026-01", "chatcmpl-r-1")]
    (request,) = server.asked
    question = WIRE.read(request)
    assert (question.images, question.labels, question.model) == ((sent.data,), ("dog", "cat"), "m-2026")
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert json.loads(request.body)["seed"] == 7


def test_a_server_without_keys_gets_none() -> None:
    server = Server(Reply(()))
    with serving(server) as url:
        assert ask({"base_url": url, "key_env": "", "environ": {}}, [copy()])[0] == Reply(
            (), "m-2026", "chatcmpl-r-1"
        )
    assert "authorization" not in server.asked[0].headers


def test_a_pinned_fingerprint_is_part_of_the_version() -> None:
    with serving(Server(recorded("completion.json"))) as url:
        answers = ask({"base_url": url, "pin_fingerprint": True}, [copy()])
    assert isinstance(answers[0], Reply)
    assert answers[0].model_version.endswith("/fp_7c233bf9d1")


@pytest.mark.parametrize(
    ("answer", "kind", "billed"),
    [
        (RequestFault(Fault.UNAUTHENTICATED, "no"), AuthenticationError, False),
        (RequestFault(Fault.FORBIDDEN, "no"), AuthenticationError, False),
        (RequestFault(Fault.QUOTA, "no"), QuotaExceededError, False),
        (RequestFault(Fault.THROTTLED, "no", retry_after_s=4), RateLimitedError, False),
        (RequestFault(Fault.BAD_IMAGE, "no"), RequestRejectedError, False),
        (RequestFault(Fault.IMAGE_TOO_LARGE, "no"), RequestRejectedError, False),
        (RequestFault(Fault.INTERNAL, "no"), BackendUnavailableError, True),
        (RequestFault(Fault.UNAVAILABLE, "no"), BackendUnavailableError, False),
        (RequestFault(Fault.TIMEOUT, "no"), BackendTimeoutError, True),
        (HttpReply(200, {}, b"<html>"), MalformedReplyError, True),
        (completion(["dog"]), MalformedReplyError, True),
    ],
)
def test_a_failure_is_sent_once_and_named(
    answer: RequestFault | HttpReply, kind: type[BackendError], billed: bool
) -> None:
    server = Server(answer)
    with serving(server) as url, pytest.raises(BackendError) as caught:
        ask({"base_url": url}, [copy()])
    error = caught.value
    assert type(error) is kind
    assert (error.maybe_billed, error.backend, len(server.asked)) == (billed, "openai-vision", 1)
    assert "sk-secret" not in str(error)
    if isinstance(error, RateLimitedError):
        assert error.retry_after == 4.0


def test_raw_pixels_are_refused_before_they_are_sent() -> None:
    with pytest.raises(RequestRejectedError, match="encoding") as caught:
        ask({}, [copy("raw")])
    assert caught.value.attempts == 0


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"price_usd_per_1000": None}, ConfigError, "price_usd_per_1000"),
        ({"environ": {}}, MissingCredentialError, "OPENAI_API_KEY"),
        ({"key_env": "MY_KEY"}, MissingCredentialError, "MY_KEY"),
        ({"base_url": "ftp://x"}, ConfigError, "base_url"),
        ({"base_url": "https://u:p@x"}, ConfigError, "base_url"),
        ({"model": " "}, ConfigError, "model"),
        ({"labels": "dog"}, ConfigError, "labels"),
        ({"labels": ["dog"]}, ConfigError, "two or more"),
        ({"labels": ["dog", "dog "]}, ConfigError, "each once"),
        ({"labels": ["dog", ""]}, ConfigError, "none empty"),
        ({"labels": ["dog", 1]}, ConfigError, "labels"),
        ({"detail": "hihg"}, ConfigError, "did you mean 'high'"),
        ({"temperature": -1}, ConfigError, "temperature"),
        ({"temperature": "hot"}, ConfigError, "temperature"),
        ({"extra": {"stream": True}}, ConfigError, "stream"),
        ({"extra": {"x": object()}}, ConfigError, "extra"),
        ({"encoding": "raw"}, ConfigError, "encoding"),
        ({"concurrency": 0}, ConfigError, "concurrency"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    settings: dict[str, Any], kind: type[ConfigError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        OpenAiVision(**{**SETTINGS, **settings})


def test_the_fingerprint_follows_what_is_asked_and_not_the_key() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"labels": ["dog", "bird"]},
        {"model": "other"},
        {"detail": "low"},
        {"temperature": "default"},
        {"extra": {"seed": 1}},
        {"base_url": "http://127.0.0.1:8"},
    ]
    prints = [json.dumps(dict(OpenAiVision(**{**SETTINGS, **change}).fingerprint)) for change in changes]
    assert len(set(prints)) == len(changes)
    other_key = OpenAiVision(**{**SETTINGS, "environ": {"OPENAI_API_KEY": "other"}})
    assert json.dumps(dict(other_key.fingerprint)) == prints[0]
