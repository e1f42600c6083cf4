"""The backend against Azure's format on loopback: one send a call, and every failure by its meaning."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError, ServiceResponseTimeoutError

from smoothing_proxy.backends.azure_vision import AzureVision
from smoothing_proxy.backends.base import Backend
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
from smoothing_proxy.wire.azure import AzureWire, Version
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault
from tests.backends.backend_asking import noise_pictures
from tests.wire.loopback import serving
from tests.wire.wire_server import PANDA, SECRET, answering

pytestmark = pytest.mark.anyio

WIRE = AzureWire()
KEY = {"AZURE_VISION_KEY": f" {SECRET}\n"}
COPY = encode(noise_pictures(1, 60, 80)[0], Encoding("png"))
SMALL = encode(noise_pictures(1, 8, 8)[0], Encoding("png"))


def made(url: str, **options: Any) -> AzureVision:
    usual: dict[str, Any] = {
        "endpoint": url,
        "environ": KEY,
        "connect_timeout_s": 5.0,
        "read_timeout_s": 5.0,
        "price_usd_per_1000": 1.0,
    }
    return AzureVision(**(usual | options))


async def ask(backend: Backend, copies: Sequence[EncodedImage] = (COPY,)) -> Sequence[Reply | BackendError]:
    try:
        async with asyncio.timeout(10):
            return await backend.classify(copies)
    finally:
        await backend.aclose()


@pytest.mark.parametrize("version", ["4.0", "3.2"])
async def test_tags_come_back_with_the_models_version(version: Version) -> None:
    seen: list[HttpRequest] = []
    with serving(answering(WIRE, PANDA, seen)) as url:
        backend = made(url + "/", version=version, model_version="2023-10-01")
        (reply,) = await ask(backend)
    assert isinstance(backend, Backend)
    assert isinstance(reply, Reply)
    assert [(label.name, label.confidence) for label in reply.labels] == [("panda", 0.75), ("mammal", 0.25)]
    assert (reply.model_version, reply.request_id) == ("2023-10-01", "request-1")
    assert [request.body for request in seen] == [COPY.data]
    assert seen[0].query["model-version"] == "2023-10-01"


@pytest.mark.parametrize(
    ("fault", "kind", "maybe_billed"),
    [
        (Fault.BAD_IMAGE, RequestRejectedError, False),
        (Fault.FORBIDDEN, AuthenticationError, False),
        (Fault.UNKNOWN_OPERATION, AuthenticationError, False),
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
        pytest.raises(kind, match=r"azure-vision: .*because") as raised,
    ):
        await ask(made(url))
    assert type(raised.value) is kind
    assert raised.value.maybe_billed is maybe_billed
    assert getattr(raised.value, "retry_after", None) == (
        3.0 if fault in (Fault.THROTTLED, Fault.UNAVAILABLE) else None
    )
    assert len(seen) == 1


async def test_a_date_to_wait_for_is_counted_from_now() -> None:
    reply = HttpReply(429, {"retry-after": "Sat, 21 Nov 2026 12:01:00 GMT"}, b"")
    backend_time = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    with (
        serving(answering(WIRE, reply, [])) as url,
        pytest.raises(RateLimitedError) as raised,
    ):
        await ask(made(url, now=lambda: backend_time))
    assert raised.value.retry_after == 60.0


async def test_a_wrong_key_stops_and_is_not_repeated_in_the_error() -> None:
    with (
        serving(answering(WIRE, PANDA, [])) as url,
        pytest.raises(AuthenticationError, match="invalid subscription key") as raised,
    ):
        await ask(made(url, environ={"OTHER": "wrong-key"}, key_env="OTHER"))
    assert "wrong-key" not in str(raised.value) + repr(vars(raised.value))


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"tagsResult": {}}'])
async def test_an_answer_that_is_none_is_kept(body: bytes) -> None:
    with (
        serving(answering(WIRE, HttpReply(200, {}, body), [])) as url,
        pytest.raises(MalformedReplyError) as raised,
    ):
        await ask(made(url))
    assert raised.value.reply == body
    assert raised.value.maybe_billed


async def test_a_service_that_hangs_is_asked_once() -> None:
    connections = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(2**16):
            pass
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(BackendTimeoutError, match="azure-vision: no answer"):
        await ask(made(url, read_timeout_s=0.2))
    server.close()
    assert connections == 1
    with pytest.raises(BackendUnavailableError, match="azure-vision: no connection"):
        await ask(made(url))


def large(size: int) -> EncodedImage:
    return EncodedImage(bytes(size), "png", 100, 100)


@pytest.mark.parametrize(
    ("copy", "version", "words"),
    [
        (large(20 * 2**20), "4.0", "encoding to jpeg"),
        (large(4 * 2**20), "3.2", "encoding to jpeg"),
        (SMALL, "4.0", "min_side_px to 51"),
        (EncodedImage(b"x", "png", 100, 16_000), "4.0", "15999"),
        (EncodedImage(b"x", "raw", 100, 100), "4.0", "png, jpeg"),
    ],
)
async def test_what_would_be_refused_is_not_sent(copy: EncodedImage, version: Version, words: str) -> None:
    seen: list[HttpRequest] = []
    with (
        serving(answering(WIRE, PANDA, seen)) as url,
        pytest.raises(RequestRejectedError, match=words) as raised,
    ):
        await ask(made(url, version=version), [copy])
    assert (seen, raised.value.attempts) == ([], 0)


def test_its_usual_encoding_is_large_enough() -> None:
    backend = made("https://example.com")
    copy = encode(noise_pictures(1, 8, 16)[0], backend.encoding)
    assert (backend.batch_size, copy.format, copy.height, copy.width) == (1, "png", 51, 102)


def test_prices_are_the_users_or_the_listed() -> None:
    assert made("https://example.com", price_usd_per_1000=2.5, price_as_of="2026-01-01").price_usd == 0.0025
    listed = made("https://example.com", price_usd_per_1000=None)
    assert listed.price_usd > 0
    assert listed.price_as_of


def test_the_fingerprint_says_what_was_asked_without_a_secret() -> None:
    backend = made("https://example.com/", version="3.2")
    assert backend.fingerprint == {
        "name": "azure-vision",
        "endpoint": "https://example.com",
        "version": "3.2",
        "model_version": "latest",
    }
    assert SECRET not in repr(backend)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"environ": {}}, MissingCredentialError, "AZURE_VISION_KEY"),
        ({"environ": {"MINE": " "}, "key_env": "MINE"}, MissingCredentialError, "MINE"),
        ({"endpoint": ""}, ConfigError, "AZURE_VISION_ENDPOINT"),
        ({"endpoint": "example.com"}, ConfigError, "endpoint.*https://"),
        ({"endpoint": "", "environ": {**KEY, "E": "ftp://x"}, "endpoint_env": "E"}, ConfigError, "E: .*https://"),
        ({"version": "3.1"}, ConfigError, "3.2"),
        ({"model_version": "newest"}, ConfigError, "model_version"),
        ({"encoding": "raw"}, ConfigError, "encoding"),
        ({"concurrency": 0}, ConfigError, "concurrency"),
        ({"price_usd_per_1000": -1.0}, ConfigError, "price"),
        ({"verify": "no-such.pem"}, ConfigError, "verify"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    options: dict[str, Any], error: type[ConfigError], words: str
) -> None:
    with pytest.raises(error, match=words):
        made("https://example.com", **options)


def test_the_endpoint_may_come_from_the_environment() -> None:
    environ = {**KEY, "AZURE_VISION_ENDPOINT": "https://a.example.com/"}
    assert made("", environ=environ).fingerprint["endpoint"] == "https://a.example.com"


@pytest.mark.skipif(importlib.util.find_spec("azure.identity") is not None, reason="azure-identity is installed")
def test_entra_needs_its_library(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="azure-identity"):
        made("https://example.com", entra=True)


class Signing:
    """A credential whose tokens live for an hour."""

    def __init__(self, now: Callable[[], datetime], error: Exception | None = None) -> None:
        self.now = now
        self.error = error
        self.asked: list[str] = []
        self.closed = 0

    async def get_token(self, *scopes: str) -> AccessToken:
        await asyncio.sleep(0)
        self.asked += scopes
        if self.error:
            raise self.error
        return AccessToken(f"token-{len(self.asked)}", int(self.now().timestamp()) + 3600)

    async def close(self) -> None:
        self.closed += 1


async def test_a_token_is_asked_for_once_and_renewed_before_it_expires() -> None:
    time = datetime(2026, 11, 21, 12, tzinfo=UTC)
    seen: list[HttpRequest] = []

    def any_token(request: HttpRequest) -> HttpReply:
        seen.append(request)
        return WIRE.write(request, WIRE.read(request), [PANDA], "r")

    credential = Signing(lambda: time)
    with serving(any_token) as url:
        backend = made(url, credential=credential, environ={}, now=lambda: time)
        await asyncio.gather(*(backend.classify([COPY]) for _ in range(3)))
        time += timedelta(seconds=3299)
        await backend.classify([COPY])
        time += timedelta(seconds=1)
        await ask(backend)
        await backend.aclose()
    assert [request.headers["authorization"] for request in seen] == ["Bearer token-1"] * 4 + ["Bearer token-2"]
    assert credential.asked == ["https://cognitiveservices.azure.com/.default"] * 2
    assert credential.closed == 1


async def test_a_token_that_is_not_to_be_had_stops_before_anything_is_sent() -> None:
    credential = Signing(lambda: datetime.now(UTC), RuntimeError("secret in the words"))
    with pytest.raises(AuthenticationError, match=r"RuntimeError.*az login") as raised:
        await ask(made("http://127.0.0.1:1", credential=credential, environ={}))
    assert raised.value.attempts == 0
    assert raised.value.__context__ is None


def answer_of(status: int) -> Any:
    """Entra's answer, as azure-core's errors hold one."""
    return SimpleNamespace(status_code=status, reason="because", headers={}, content_type=None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ServiceRequestError("name resolution failed"), BackendUnavailableError),
        (ServiceResponseTimeoutError("no answer"), BackendUnavailableError),
        (ConnectionResetError("reset"), BackendUnavailableError),
        (TimeoutError(), BackendUnavailableError),
        (ClientAuthenticationError("busy", response=answer_of(503)), BackendUnavailableError),
        (ClientAuthenticationError("slow down", response=answer_of(429)), BackendUnavailableError),
        (ClientAuthenticationError("unknown client", response=answer_of(401)), AuthenticationError),
        (ClientAuthenticationError("no credential of the chain"), AuthenticationError),
        (FileNotFoundError("az"), AuthenticationError),
    ],
)
async def test_a_token_that_the_network_keeps_back_is_asked_for_again(
    error: Exception, kind: type[BackendError]
) -> None:
    credential = Signing(lambda: datetime.now(UTC), error)
    with pytest.raises(kind) as raised:
        await ask(made("http://127.0.0.1:1", credential=credential, environ={}))
    assert not raised.value.maybe_billed
    assert raised.value.retryable is (kind is BackendUnavailableError)
