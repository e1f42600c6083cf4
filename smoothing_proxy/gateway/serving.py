"""The gateway's sockets: uvicorn for HTTP and gRPC beside it, in one event loop, until it is told to stop."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.gateway.app import make_app
from smoothing_proxy.gateway.connections import connections
from smoothing_proxy.gateway.service import SETTLE_S, Gateway
from smoothing_proxy.wire.base import Wire

__all__ = ["Address", "listening"]

KEEP_ALIVE_S = 75
"""Longer than the SDKs keep an idle connection, so that none sends a request on one that is being closed."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway answers. grpc_port: None where Google's gRPC is not served."""

    host: str
    port: int
    grpc_port: int | None
    tls: bool

    @property
    def url(self) -> str:
        """Of HTTP, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


@asynccontextmanager
async def listening(gateway: Gateway, wires: Sequence[Wire]) -> AsyncIterator[Address]:
    """Serve until the context ends; then finish what is under way, and take nothing more.

    Raises ConfigError when a port is taken, or a certificate cannot be read.
    """
    settings = gateway.settings
    listener = _listener(settings.host, settings.port)
    server = _Server(_config(gateway, wires))
    grpc = None
    try:
        if settings.grpc_port is not None:
            from smoothing_proxy.gateway.grpc_front import serve_google

            grpc = await serve_google(gateway)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.begun(serving)
        port = listener.getsockname()[1]
        tending = asyncio.create_task(gateway.store.tend())
        try:
            yield Address(settings.host, port, None if grpc is None else grpc.port, settings.tls_cert is not None)
        finally:
            gateway.closing = True
            server.should_exit = True
            stopping = [] if grpc is None else [grpc.stop(settings.drain_s + SETTLE_S)]
            await asyncio.gather(gateway.close(), serving, *stopping)
            tending.cancel()
    finally:
        if grpc is not None:
            await grpc.stop()
        listener.close()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: whoever serves decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone."""
        yield

    async def begun(self, serving: asyncio.Task[None]) -> None:
        """Return once it listens. Raises ConfigError where it ended instead."""
        while not self.started:
            await asyncio.wait([serving], timeout=0.01)
            if serving.done():
                await serving
                raise ConfigError("the HTTP server ended before it listened")


def _config(gateway: Gateway, wires: Sequence[Wire]) -> uvicorn.Config:
    settings = gateway.settings
    config = uvicorn.Config(
        make_app(gateway, wires),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whom to trust is said by our own settings, not by uvicorn's
        http=connections(settings.body_timeout_s),  # type: ignore[arg-type]  # it makes such a class
        lifespan="on",
        loop="none",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.drain_s + SETTLE_S),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    try:
        config.load()
    except OSError as error:
        raise ConfigError(
            f"{settings.tls_cert}, {settings.tls_key}: no certificate and its key: {error}"
        ) from error
    return config


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only where the protocol is named does asyncio send small answers at once; they would take 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener
