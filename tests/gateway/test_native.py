"""The native API's document, health and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from smoothing_proxy.gateway.openapi import openapi_document
from smoothing_proxy.gateway.serving import _listener
from tests.gateway.gateways import SECRET, picture, serving


def test_the_document_names_what_is_served() -> None:
    with serving() as there:
        document: Any = there.client.get("/openapi.json").json()
        verdict = there.ask().json()
        assert document["openapi"].startswith("3.1")
        for path, operations in document["paths"].items():
            for method in operations:
                reply = there.client.request(method, path.replace("{id}", verdict["id"]))
                assert str(reply.status_code) in operations[method]["responses"], path
        refused = there.ask("/v1/predict", b"no picture")
    fields = document["components"]["schemas"]["Verdict"]
    assert set(verdict) == set(fields["properties"])
    assert set(fields["required"]) <= set(verdict)
    assert str(refused.status_code) in document["paths"]["/v1/predict"]["post"]["responses"]


def test_each_reference_in_the_document_leads_somewhere() -> None:
    document = openapi_document()
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            found.extend([value["$ref"]] if "$ref" in value else [])
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    look(document)
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_the_metrics_tell_what_was_asked_and_spent() -> None:
    with serving() as there:
        there.ask("/v1/certify", picture(), headers={"x-smoothing-target-radius": "0.25"})
        there.ask("/v1/certify", picture(), headers={"x-smoothing-target-radius": "0.25"})
        lines = there.client.get("/metrics").text.splitlines()
    assert f'smoothing_queries_total{{kind="settled"}} {there.backend.asked:.1f}' in lines
    assert 'smoothing_requests_total{outcome="answered",vendor="native"} 2.0' in lines
    assert 'smoothing_radius_bucket{le="0.1"} 0.0' in lines
    assert 'smoothing_radius_bucket{le="0.25"} 1.0' in lines
    assert "smoothing_pending_requests 0.0" in lines
    assert not any(SECRET in line for line in lines)


def test_a_gateway_that_is_being_stopped_is_not_ready() -> None:
    with serving() as there:
        assert there.client.get("/health/ready").json()["ready"] is True
        there.gateway.closing = True
        assert there.client.get("/health/ready").status_code == 503
        assert there.client.get("/health/live").status_code == 200
        assert there.ask().status_code == 503
    assert there.backend.asked == 0


@pytest.mark.anyio
async def test_small_answers_are_sent_at_once() -> None:
    import socket

    nagle: list[int] = []
    done = asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        nagle.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()
        done.set()

    listener = _listener("127.0.0.1", 0)
    server = await asyncio.start_server(accept, sock=listener)
    _, writer = await asyncio.open_connection(*listener.getsockname())
    await asyncio.wait_for(done.wait(), 5)
    writer.close()
    server.close()
    assert nagle[0] != 0
