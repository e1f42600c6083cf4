"""A simulator's sockets: HTTP with replies that hang, break off or never come, and the till and faults to read.

GET  /_simulator/till[?pictures=1]    the books; with every picture's own
GET  /_simulator/faults               what goes wrong at present
POST /_simulator/faults               a JSON object of Faults, which takes the place of all that was set
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import HttpVersion11, web

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import parse_settings
from smoothing_proxy.simulator.chance import Turn
from smoothing_proxy.simulator.core import Delivery, Simulator
from smoothing_proxy.simulator.faults import Fate, Faults
from smoothing_proxy.simulator.settings import SimulatorSettings
from smoothing_proxy.simulator.vendors import speaks_grpc
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault, Wire

__all__ = ["Address", "running"]

_CONTROL = "/_simulator/"

_SHUTDOWN_S = 0.5
"""For replies under way when the simulator is stopped."""

_LOOK_AGAIN_S = 0.1
"""How often a hanging reply looks whether its client has left."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a simulator answers. grpc_port: None where the vendor's is not served by gRPC."""

    host: str
    port: int
    grpc_port: int | None
    tls: bool
    simulator: Simulator

    @property
    def url(self) -> str:
        """Of HTTP, without a slash at its end."""
        return f"{'https' if self.tls else 'http'}://{_bracketed(self.host)}:{self.port}"

    @property
    def grpc(self) -> str:
        """host:port of gRPC, "" where there is none."""
        return "" if self.grpc_port is None else f"{_bracketed(self.host)}:{self.grpc_port}"


@asynccontextmanager
async def running(
    settings: SimulatorSettings,
    wire: Wire,
    backend: Backend,
    *,
    faults: Faults = Faults(),  # noqa: B008 (frozen)
    rng: random.Random | None = None,
) -> AsyncIterator[Address]:
    """Serve `wire` from `backend` on this machine until the context ends. The backend stays open.

    rng: decides the faults; left out, they are the same in each run. Raises ConfigError when a port is taken or a
    certificate cannot be read.
    """
    simulator = Simulator(wire, backend, settings, faults=faults, rng=rng or random.Random(0))
    runner = web.ServerRunner(web.Server(_Front(simulator).handle, access_log=None), shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        port = await _listen(runner, settings)
        async with _grpc(simulator, settings) as grpc_port:
            yield Address(settings.host, port, grpc_port, settings.tls_cert is not None, simulator)
    finally:
        await runner.cleanup()
        simulator.close()


async def _listen(runner: web.ServerRunner, settings: SimulatorSettings) -> int:
    """The port that was taken."""
    try:
        await web.TCPSite(runner, settings.host, settings.port, ssl_context=_tls(settings), backlog=1024).start()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        ) from error
    return int(runner.addresses[0][1])


def _tls(settings: SimulatorSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{settings.tls_cert}, {settings.tls_key}: no certificate and its key: {error}"
        ) from error
    return context


@asynccontextmanager
async def _grpc(simulator: Simulator, settings: SimulatorSettings) -> AsyncIterator[int | None]:
    """Serve gRPC too, where the vendor speaks it; its port."""
    if not speaks_grpc(simulator.wire.name):
        yield None
        return
    from smoothing_proxy.serving.google_grpc import serve_grpc

    server = await serve_grpc(simulator.ask, simulator.check_key, settings.host, settings.grpc_port)
    try:
        yield server.port
    finally:
        await server.stop()


class _Front:
    """Carries requests to the simulator, and its deliveries to whatever end they come to."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(_CONTROL):
            return await self._control(request)
        turn = self._simulator.arrive()
        if turn.fate is Fate.RESET_BEFORE:
            self._simulator.till.end(turn.fate.value)
            return _reset(request)
        received = _request(request, b"")
        try:
            received = _request(request, await _body(request, self._simulator.limits.request_bytes))
        except RequestFault as fault:
            delivery = self._simulator.refuse(received, fault)
        except OSError:  # the client left in the middle of its request
            self._simulator.till.end("not received")
            return web.Response(status=400)
        else:
            delivery = await self._handled(received, turn)
        self._simulator.till.end(delivery.outcome)
        return await self._deliver(request, delivery)

    async def _handled(self, request: HttpRequest, turn: Turn) -> Delivery:
        try:
            return await self._simulator.handle(request, turn)
        except Exception:  # a bug, which aiohttp logs and answers with 500
            self._simulator.till.end("bug")
            raise

    async def _deliver(self, request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
        if delivery.fate is Fate.HANG:
            await _until_gone(request)
            return _reset(request)
        if delivery.fate is Fate.RESET_AFTER:
            return _reset(request)
        if delivery.fate is Fate.CUT_OFF:
            return await _cut_off(request, delivery.reply)
        response = web.Response(
            status=delivery.reply.status, headers=delivery.reply.headers, body=delivery.reply.body
        )
        await response.prepare(request)
        await response.write_eof()
        if request.transport is not None and not request.transport.is_closing():
            self._simulator.till.answer(delivery.answered)
        return response

    async def _control(self, request: web.BaseRequest) -> web.Response:
        match (request.method, request.path.removeprefix(_CONTROL)):
            case ("GET", "till"):
                return web.json_response(self._simulator.till.report(by_picture="pictures" in request.query))
            case ("GET", "faults"):
                return web.json_response(self._simulator.chance.faults.model_dump(mode="json"))
            case ("POST", "faults"):
                return self._switch(await request.read())
            case _:
                return web.json_response({"error": "known: GET till, GET faults, POST faults"}, status=404)

    def _switch(self, body: bytes) -> web.Response:
        try:
            faults = parse_settings(Faults, _json_object(body), source="faults")
        except ConfigError as error:
            return web.json_response({"error": str(error)}, status=400)
        self._simulator.chance.switch(faults)
        return web.json_response(faults.model_dump(mode="json"))


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise ConfigError(f"faults: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError("faults: a JSON object is expected")
    return value


def _request(request: web.BaseRequest, body: bytes) -> HttpRequest:
    return HttpRequest(
        method=request.method,
        path=request.path,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        query=dict(request.query),
        target=request.raw_path,
    )


async def _body(request: web.BaseRequest, most: int) -> bytes:
    """The whole body. Raises RequestFault once it is longer than `most`, OSError when the client leaves."""
    too_large = RequestFault(Fault.IMAGE_TOO_LARGE, f"the request is larger than the {most} bytes allowed")
    if (request.content_length or 0) > most:
        raise too_large
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # or the reply would be taken for begun
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > most:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def _reset(request: web.BaseRequest) -> web.Response:
    """Break the connection so that the client sees a reset. The response is nobody's."""
    if request.transport is not None:
        connection: socket.socket | None = request.transport.get_extra_info("socket")
        if connection is not None:
            no_farewell = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_farewell)
        request.transport.abort()
    return web.Response()


async def _cut_off(request: web.BaseRequest, reply: HttpReply) -> web.StreamResponse:
    """Promise the whole body, write half of it, and close."""
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = len(reply.body)
    await response.prepare(request)
    await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _until_gone(request: web.BaseRequest) -> None:
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 (no event tells)
        await asyncio.sleep(_LOOK_AGAIN_S)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
