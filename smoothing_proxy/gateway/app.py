"""The gateway as an ASGI application: every route on one port, and what holds for each answer.

GET  /health/live, /health/ready, /metrics, /openapi.json
POST /v1/predict, /v1/certify            GET /v1/verdicts?sha256=..., /v1/verdicts/{id}
any other address                        the vendors' own formats, told apart by address and headers
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from smoothing_proxy.gateway.engine import Kind
from smoothing_proxy.gateway.exchange import Exchange
from smoothing_proxy.gateway.faults import fault_of
from smoothing_proxy.gateway.metrics import CONTENT_TYPE, Metrics
from smoothing_proxy.gateway.native_front import Events, NativeFront, refusal
from smoothing_proxy.gateway.openapi import openapi_document
from smoothing_proxy.gateway.ports import Store
from smoothing_proxy.gateway.proxies import TrustedProxies
from smoothing_proxy.gateway.references import NoReferences
from smoothing_proxy.gateway.requests import head_of, response_of
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.gateway.traces import NoTraces, TracedEngine, Traces
from smoothing_proxy.gateway.vendor_front import VendorFront
from smoothing_proxy.images import pixels
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.clock import Clock, SystemClock
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.wire.base import Fault, RequestFault, Wire

if TYPE_CHECKING:
    from smoothing_proxy.gateway.admin import Admin

__all__ = ["every_wire", "make_app", "make_gateway"]

SECURITY: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}

OVER_TLS: Mapping[str, str] = {"strict-transport-security": "max-age=31536000"}

GONE = 499
"""What the log says of a client that left in the middle of its request."""

_logger = logging.getLogger(__name__)


def every_wire() -> tuple[Wire, ...]:
    """The vendors' formats, those first whose requests are the easiest to tell."""
    from smoothing_proxy.wire.aws import AwsWire
    from smoothing_proxy.wire.azure import AzureWire
    from smoothing_proxy.wire.clarifai import ClarifaiWire
    from smoothing_proxy.wire.google import GoogleWire
    from smoothing_proxy.wire.openai import OpenAiWire

    return AwsWire(), AzureWire(), ClarifaiWire(), GoogleWire(), OpenAiWire()


def make_gateway(
    settings: GatewaySettings,
    classifier: BaseClassifier,
    smoothing: Smoothing,
    store: Store,
    *,
    in_flight: int | None = None,
    transport: TransportSettings | None = None,
    clock: Clock | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    traces: Traces = NoTraces(),  # noqa: B008 (without state)
    references: NoReferences = NoReferences(),  # noqa: B008 (without state)
    admin: Admin | None = None,
) -> Gateway:
    """What the fronts have in common. admin: None leaves /v1/admin out.

    Raises DenoiserError when the denoiser is not made for sigma, ConfigError for a passthrough that leads nowhere.
    """
    clock = clock or SystemClock()
    limits = pixels.Limits(pixels=settings.pixels, side_px=settings.side_px)
    engine = TracedEngine(classifier, smoothing, clock, in_flight=in_flight, transport=transport, limits=limits)
    engine.traces = traces
    return Gateway(settings, engine, store, clock, Metrics(), now, traces, references, admin)


def make_app(gateway: Gateway, wires: Sequence[Wire]) -> Starlette:
    """The application. Its shutdown finishes what is under way; the classifier stays open."""
    routes = _Routes(gateway, wires)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await gateway.close()

    return Starlette(
        routes=[
            Route("/health/live", routes.live),
            Route("/health/ready", routes.ready),
            Route("/metrics", routes.metrics),
            Route("/openapi.json", routes.openapi),
            *(routes.native() if "native" in gateway.settings.vendors else ()),
            Route("/v1/verdicts", routes.verdicts, methods=["GET"]),
            Route("/v1/verdicts/{id}", routes.verdict, methods=["GET"]),
            *routes.admins(),
            Route("/{path:path}", _AnyMethod(routes.vendor)),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: routes.unrouted},
        middleware=[Middleware(TrustedProxies, networks=gateway.settings.trusted_proxies)],
    )


class _AnyMethod:
    """An endpoint that Starlette does not bind to GET."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)


class _Routes:
    def __init__(self, gateway: Gateway, wires: Sequence[Wire]) -> None:
        self._gateway = gateway
        self._vendors = VendorFront(gateway, wires)
        self._native = NativeFront(gateway, wires)
        self._document = openapi_document(admin=gateway.admin is not None)

    def native(self) -> list[Route]:
        return [
            Route("/v1/predict", self.predict, methods=["POST"]),
            Route("/v1/certify", self.certify, methods=["POST"]),
        ]

    async def unrouted(self, request: Request, error: Exception) -> Response:
        """An address, or a method of one, that nobody answers."""
        assert isinstance(error, HTTPException)
        exchange = self._exchange("unknown", request)
        exchange.fault = RequestFault(Fault.UNKNOWN_OPERATION, f"{error.detail}: see /openapi.json")
        response = refusal(exchange.fault, exchange.id)
        response.status_code = error.status_code
        response.headers.update(error.headers or {})
        return self._ended(response, request, exchange)

    async def live(self, request: Request) -> Response:
        return self._safe(PlainTextResponse("live\n"), request)

    async def ready(self, request: Request) -> Response:
        health = await self._gateway.watch.health(closing=self._gateway.closing)
        reason, warnings = "; ".join(health.reasons), list(health.warnings)
        said = {"ready": not reason, "reason": reason, "warnings": warnings}
        return self._safe(JSONResponse(said, 503 if reason else 200), request)

    async def metrics(self, request: Request) -> Response:
        return self._safe(Response(self._gateway.metrics.page(), headers={"content-type": CONTENT_TYPE}), request)

    async def openapi(self, request: Request) -> Response:
        return self._safe(JSONResponse(self._document), request)

    async def predict(self, request: Request) -> Response:
        return await self._asked("predict", request)

    async def certify(self, request: Request) -> Response:
        return await self._asked("certify", request)

    async def _asked(self, kind: Kind, request: Request) -> Response:
        exchange = self._exchange("native", request)
        try:
            response = await self._native.ask(kind, request, exchange)
        except ClientDisconnect:
            response = Response(status_code=GONE)
        except Exception as error:  # noqa: BLE001 (nothing but an answer leaves here)
            response = refusal(self._unexpected(error, exchange), exchange.id)
        return self._ended(response, request, exchange)

    async def verdicts(self, request: Request) -> Response:
        return await self._read(self._native.verdicts, request)

    async def verdict(self, request: Request) -> Response:
        return await self._read(self._native.verdict, request)

    async def _read(self, read: Callable[[Request, Exchange], Awaitable[Response]], request: Request) -> Response:
        exchange = self._exchange("native", request)
        try:
            response = await read(request, exchange)
        except Exception as error:  # noqa: BLE001 (nothing but an answer leaves here)
            response = refusal(self._unexpected(error, exchange), exchange.id)
        return self._ended(response, request, exchange)

    def admins(self) -> list[Route]:
        """None where nobody administers keys over HTTP."""
        if self._gateway.admin is None:
            return []
        admin = partial(self._administer, self._gateway.admin)
        return [Route("/v1/admin/{path:path}", _AnyMethod(admin))]

    async def _administer(self, admin: Admin, request: Request) -> Response:
        exchange = self._exchange("admin", request)
        try:
            response = await admin.answer(request, exchange)
        except ClientDisconnect:
            response = Response(status_code=GONE)
        except Exception as error:  # noqa: BLE001 (nothing but an answer leaves here)
            response = refusal(self._unexpected(error, exchange), exchange.id)
        return self._ended(response, request, exchange)

    async def vendor(self, request: Request) -> Response:
        exchange = self._exchange("unknown", request)
        head = head_of(request)
        wire = self._vendors.wire_for(head)
        try:
            if wire is None:
                raise RequestFault(Fault.UNKNOWN_OPERATION, "no vendor's format has such an address")
            response = await self._vendors.answer(wire, head, request, exchange)
        except ClientDisconnect:
            response = Response(status_code=GONE)
        except Exception as error:  # noqa: BLE001 (nothing but an answer leaves here)
            fault = self._unexpected(error, exchange)
            if wire is None:
                response = refusal(fault, exchange.id)
            else:
                response = response_of(wire.refuse(head, fault, exchange.id))
        return self._ended(response, request, exchange)

    def _exchange(self, vendor: str, request: Request) -> Exchange:
        exchange = Exchange(self._gateway, request.headers)
        exchange.vendor = vendor
        return exchange

    def _unexpected(self, error: Exception, exchange: Exchange) -> RequestFault:
        exchange.fault = fault_of(error)
        if exchange.fault.fault is Fault.INTERNAL:
            _logger.error("request %s failed", exchange.id, exc_info=error)
        return exchange.fault

    def _ended(self, response: Response, request: Request, exchange: Exchange) -> Response:
        """A stream ends when it has been sent, any other answer now."""
        if isinstance(response, Events):
            response.at_end.callback(exchange.end, response.status_code, request.scope["path"])
        else:
            exchange.end(response.status_code, request.scope["path"])
        return self._safe(response, request)

    def _safe(self, response: Response, request: Request) -> Response:
        response.headers.update(SECURITY if request.scope["scheme"] != "https" else {**SECURITY, **OVER_TLS})
        return response
