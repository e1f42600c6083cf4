"""Streams whose client is gone before they begin: nothing of the request stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.gateway.app import make_app, make_gateway
from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.ledger.gateway.nouns import KeyTerms
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from tests.gateway.gateways import DOG, SMOOTHING, picture
from tests.ledger.gateway.stores import open_store

PICTURE = picture()


def scope(token: str, accept: str) -> dict[str, Any]:
    headers = {"x-api-key": token, "content-type": "image/png", "accept": accept}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }


async def asked(app: Any, token: str, *, accept: str, leaves: bool, image: bytes = PICTURE) -> int:
    """The status of one request, 0 where nothing was sent; its client `leaves` and reads nothing."""
    messages = iter([{"type": "http.request", "body": image, "more_body": False}])
    statuses = [0]

    async def receive() -> dict[str, Any]:
        if (message := next(messages, None)) is not None:
            return message
        if not leaves:
            await anyio.sleep_forever()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if leaves:
            await anyio.sleep_forever()
        statuses.append(message.get("status", statuses[-1]))

    await app(scope(token, accept), receive, send)
    return statuses[-1]


def test_a_stream_that_never_began_gives_back_its_place_and_its_memory(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_store(str(tmp_path / "gateway.db")) as inner:
            _, token = await inner.create_key("ann", "native", KeyTerms(parallel=1))
            classifier = BaseClassifier(ScriptedBackend(DOG), Identity(), sigma=SMOOTHING.sigma)
            gateway = make_gateway(GatewaySettings(), classifier, SMOOTHING, LedgerStore(inner))
            app = make_app(gateway, ())
            with anyio.fail_after(20):
                assert await asked(app, token, accept="text/event-stream", leaves=True) == 0
                assert gateway.bodies == 0
                assert await asked(app, token, accept="application/json", leaves=False) == 200
                assert await asked(app, token, accept="text/event-stream", leaves=False) == 200
            counted = gateway.metrics.registry.get_sample_value(
                "smoothing_requests_total", {"vendor": "native", "outcome": "answered"}
            )
            assert counted == 3
            await gateway.close()

    anyio.run(work)
