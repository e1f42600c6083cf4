"""/health/ready: whether requests should be sent here, told in bounded time and without a paid query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from smoothing_proxy.backends.aws_rekognition import AwsRekognition
from smoothing_proxy.backends.azure_vision import AzureVision
from smoothing_proxy.backends.base import Addressed, Backend
from smoothing_proxy.backends.clarifai import Clarifai
from smoothing_proxy.backends.google_vision import GoogleVision
from smoothing_proxy.backends.json_api import JsonApi
from smoothing_proxy.backends.openai_vision import OpenAiVision
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.errors import AuthenticationError, BackendUnavailableError, LedgerError
from smoothing_proxy.gateway import looks
from smoothing_proxy.gateway.app import make_app, make_gateway
from smoothing_proxy.gateway.health import FRESH_S
from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.memory_store import MemoryStore
from smoothing_proxy.gateway.ports import Store
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.ledger.gateway.nouns import Budget, StoreSettings
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Reply, ScoredLabel
from tests.gateway.gateways import DOG, SECRET, SMOOTHING, keys, picture
from tests.gateway.waiting import until
from tests.ledger.gateway import stores

DAY_S = 86_400.0


class HandClock:
    """Seconds that pass when a test says so."""

    time = 1_000.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Seen:
    """A gateway in this very task, and how it looks from outside."""

    def __init__(self, client: httpx.AsyncClient, clock: HandClock, token: str) -> None:
        self._client = client
        self.clock = clock
        self._token = token

    async def health(self) -> Any:
        """status, and all that is said."""
        reply = await self._client.get("/health/ready")
        assert (await self._client.get("/health/live")).status_code == 200
        document = reply.json()
        assert (reply.status_code == 200) is document["ready"] is not bool(document["reason"])
        return document

    async def later(self, seconds: float = FRESH_S) -> Any:
        """The same after some time."""
        self.clock.time += seconds
        return await self.health()

    async def ask(self, level: int = 100) -> int:
        headers = {"x-api-key": self._token, "content-type": "image/png"}
        return (await self._client.post("/v1/predict", content=picture(level), headers=headers)).status_code


@asynccontextmanager
async def seen(
    backend: Backend,
    store: Store | None = None,
    *,
    token: str = SECRET,
    transport: TransportSettings | None = None,
    deadline_s: float = 20.0,
) -> AsyncIterator[Seen]:
    clock = HandClock()
    settings = GatewaySettings(deadline_s=deadline_s, drain_s=0.0)
    classifier = BaseClassifier(backend, Identity(), sigma=SMOOTHING.sigma)
    gateway = make_gateway(
        settings, classifier, SMOOTHING, store or MemoryStore(keys), transport=transport, clock=clock
    )
    app = httpx.ASGITransport(make_app(gateway, ()))
    with anyio.fail_after(30):
        async with httpx.AsyncClient(transport=app, base_url="http://gateway") as client:
            yield Seen(client, clock, token)
        await gateway.close()
        await backend.aclose()


@pytest.mark.anyio
async def test_a_vendor_that_cannot_be_reached_is_told_by_a_connection_that_says_nothing() -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url, environ = f"http://127.0.0.1:{port}", {"CLARIFAI_PAT": "pat"}
    backend = Clarifai(user_id="u", app_id="a", model_id="m", model_version="v", base_url=url, environ=environ)
    async with seen(backend) as gateway:
        for _ in range(3):
            assert (await gateway.health())["ready"]
        await until(lambda: bool(heard))
        assert heard == [b""]
        server.close()
        assert (await gateway.health())["ready"]
        gone = await gateway.later()
        assert (gone["ready"], gone["reason"]) == (False, "the classifier behind cannot be reached")
        server = await asyncio.start_server(listen, "127.0.0.1", port)
        assert not (await gateway.health())["ready"]
        assert (await gateway.later())["ready"]
    server.close()


@pytest.mark.anyio
async def test_a_vendor_that_takes_connections_and_answers_nothing_is_down_as_long_as_that_is_news() -> None:
    down = {number: BackendUnavailableError("503") for number in range(10_000)}
    transport = TransportSettings(circuit_failures=2, circuit_pause_s=20, give_up_after_s=60, start_per_s=100)
    backend = ScriptedBackend(DOG, failures=down, remote=True)
    async with seen(backend, transport=transport, deadline_s=0.3) as gateway:
        assert (await gateway.health())["ready"]
        assert await gateway.ask() == 504
        while (await gateway.health())["ready"]:  # noqa: ASYNC110 (nobody tells of it)
            await asyncio.sleep(0.01)
        assert (await gateway.health())["reason"] == "the classifier behind does not answer"
        assert not (await gateway.later(59))["ready"]
        assert (await gateway.later(2))["ready"]


@pytest.mark.anyio
async def test_a_vendor_that_refuses_the_credentials_is_no_use_until_it_answers() -> None:
    async with seen(ScriptedBackend(DOG, failures={0: AuthenticationError("no")}, concurrency=1)) as gateway:
        assert await gateway.ask(1) == 500
        assert "credentials" in (await gateway.health())["reason"]
        assert await gateway.ask(2) == 200
        assert (await gateway.health())["ready"]


@pytest.mark.anyio
@pytest.mark.parametrize("budget", [{"calls_limit": 130}, {"usd_limit": 1.30}])
async def test_a_budget_without_room_for_a_request_is_told_until_its_period_ends(
    tmp_path: Path, budget: dict[str, Any]
) -> None:
    clock = stores.HandClock()
    settings = StoreSettings(overall=Budget(**budget, period="day"))
    async with stores.open_store(str(tmp_path / "gateway.db"), clock, settings) as inner:
        _, token = await inner.create_key("ann", "native")
        backend = ScriptedBackend(DOG, price_usd=0.01)
        async with seen(backend, LedgerStore(inner), token=token) as gateway:
            assert (await gateway.health())["ready"]
            assert await gateway.ask(1) == 200
            assert (await gateway.later())["reason"] == "the gateway's own budget is used up"
            assert await gateway.ask(2) == 402
            clock.time += DAY_S
            assert (await gateway.later())["ready"]
            assert await gateway.ask(3) == 200


@pytest.mark.anyio
async def test_another_model_version_is_a_warning_and_no_reason_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    versions = ["v1"]
    backend = ScriptedBackend(lambda _: Reply((ScoredLabel("Dog", 0.9),), versions[-1]))
    async with seen(backend) as gateway:
        assert await gateway.ask(1) == await gateway.ask(2) == 200
        assert (await gateway.health())["warnings"] == []
        versions.append("v2")
        assert await gateway.ask(3) == 200
        warned = await gateway.health()
        assert warned["ready"]
        assert "'v1'" in warned["warnings"][0]
        assert "'v2'" in warned["warnings"][0]
    assert "version v2 now" in caplog.text


class Stuck(MemoryStore):
    """A database that has gone away, or does not say so."""

    looked = 0
    error: Exception | None = None

    async def check(self) -> None:
        self.looked += 1
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()

    async def has_room(self, queries: int, price_usd: float) -> bool:
        await self.check()
        return True


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "said"), [(None, "the store does not answer"), (LedgerError("gone"), "the store cannot be used")]
)
async def test_a_store_that_is_gone_or_hangs_is_told_in_time(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, said: str
) -> None:
    monkeypatch.setattr(looks, "WITHIN_S", 0.05)
    store = Stuck(keys)
    store.error = error
    async with seen(ScriptedBackend(DOG), store) as gateway:
        assert (await gateway.health())["reason"] == said
        store.looked = 0
        assert (await gateway.later())["reason"] == said
        assert store.looked == (0 if error is None else 2), "a look that hangs is not begun twice"


def aws(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return AwsRekognition(region="eu-west-1")


@pytest.mark.parametrize(
    ("made", "address"),
    [
        (aws, "https://rekognition.eu-west-1.amazonaws.com/"),
        (lambda _: GoogleVision(api_key_env="K", environ={"K": "key"}), "https://vision.googleapis.com:443"),
        (
            lambda _: AzureVision(endpoint="https://x.example.com", environ={"AZURE_VISION_KEY": "key"}),
            "https://x.example.com",
        ),
        (
            lambda _: OpenAiVision(
                base_url="http://127.0.0.1:9/v1", model="m", labels=("a", "b"), key_env="", price_usd_per_1000=1.0
            ),
            "http://127.0.0.1:9/v1",
        ),
        (
            lambda _: JsonApi(
                url="https://x.example.com/p?key=secret", body="raw", label_path="s", price_usd_per_1000=1.0
            ),
            "https://x.example.com/p",
        ),
    ],
    ids=["aws", "google", "azure", "openai", "json"],
)
def test_each_vendor_has_an_address(
    monkeypatch: pytest.MonkeyPatch, made: Callable[[pytest.MonkeyPatch], Any], address: str
) -> None:
    backend = made(monkeypatch)
    assert isinstance(backend, Addressed)
    assert backend.address == address
