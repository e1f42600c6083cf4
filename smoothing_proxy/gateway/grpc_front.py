"""Google's gRPC over the same gateway: the same keys, budgets and answers as over REST."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.gateway.callers import token_caller
from smoothing_proxy.gateway.exchange import Exchange
from smoothing_proxy.gateway.inquiries import Inquiry
from smoothing_proxy.gateway.label_question import labels_in
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.vendor_front import (
    headers_of,
    inquiry_name,
    passed_headers,
    radius_in,
    told_to_vendor,
    wants_proof,
)
from smoothing_proxy.serving.google_grpc import (
    METHOD,
    REQUEST_BYTES,
    Call,
    GrpcServer,
    required_key,
    serve_calls,
)
from smoothing_proxy.wire.base import Fault, NotServedFault, RequestFault
from smoothing_proxy.wire.errands import google_errand
from smoothing_proxy.wire.google_proto import parse, question_of, response_of

__all__ = ["GoogleFront", "serve_google"]


async def serve_google(gateway: Gateway) -> GrpcServer:
    """Listen on the settings' grpc_port. Raises ConfigError when it is taken, or a PEM file cannot be read."""
    settings = gateway.settings
    tls = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        tls = (_pem(settings.tls_key), _pem(settings.tls_cert))
    front = GoogleFront(gateway)
    port, most = settings.grpc_port or 0, settings.max_pending
    return await serve_calls(front.answer, settings.host, port, tls=tls, at_once=most)


class GoogleFront:
    """Calls of Google's clients, answered.

    Nothing is read of a stranger's. Messages tell their size only when they are there: as many arrive at once as
    `bodies_bytes` would hold of the largest; flow control keeps the others at their senders'.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._arriving = asyncio.Semaphore(max(1, gateway.settings.bodies_bytes // REQUEST_BYTES))

    async def answer(self, call: Call) -> bytes:
        """See serving.google_grpc.Answer."""
        exchange = Exchange(self._gateway, call.metadata)
        exchange.vendor = "google"
        status = 200
        try:
            return await self._answer(call, exchange)
        except RequestFault as fault:
            exchange.fault = fault
            status = 400
            raise
        except BaseException:
            status = 500
            raise
        finally:
            exchange.end(status, METHOD)

    async def _answer(self, call: Call, exchange: Exchange) -> bytes:
        caller = await token_caller(self._gateway.store, required_key(call), "google")
        exchange.caller = caller.id
        body = await self._body(call, exchange)
        message = parse(body)
        try:
            question = question_of(message)
        except NotServedFault as fault:
            hardened = self._gateway.references.hardens(fault)
            if hardened is None:
                if not self._gateway.passage.open_to("google", caller) or wants_proof(call.metadata):
                    raise
                reply = await exchange.pass_on(caller, google_errand(message), inquiry_name(call.metadata))
                await call.tell(passed_headers(exchange))
                return reply.body
            question = hardened
        wish = self._gateway.wish(caller, radius=radius_in(call.metadata))
        inquiry = Inquiry(
            caller,
            question.images,
            self._gateway.with_labels(caller, wish, labels_in(call.metadata)),
            hashlib.sha256(b"google gRPC" + body).hexdigest(),
            inquiry_name(call.metadata),
            question.places,
        )
        answers = await exchange.answers(inquiry)
        await call.tell({"x-request-id": exchange.id, **headers_of(answers, exchange)})
        told = [told_to_vendor(answer, inquiry.wish.abstain, question) for answer in answers]
        response: bytes = response_of(message, told).SerializeToString()
        return response

    async def _body(self, call: Call, exchange: Exchange) -> bytes:
        """The message, of a caller that is known. Raises RequestFault where it does not arrive in time."""
        within_s = self._gateway.settings.body_timeout_s
        try:
            async with asyncio.timeout(within_s):
                await self._arriving.acquire()
        except TimeoutError:
            message = "too many requests are here at the same time"
            raise RequestFault(Fault.THROTTLED, message, retry_after_s=1.0) from None
        try:
            async with asyncio.timeout(within_s):
                body = await call.message()
            exchange.hold(len(body))
        except TimeoutError:
            raise RequestFault(Fault.BAD_REQUEST, f"the request did not arrive within {within_s:g} s") from None
        finally:
            self._arriving.release()
        return body


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
