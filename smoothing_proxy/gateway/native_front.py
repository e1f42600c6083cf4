"""The gateway's own API: /v1/predict, /v1/certify and /v1/verdicts, with the whole proof in JSON."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from smoothing_proxy.gateway.callers import any_caller, token_caller
from smoothing_proxy.gateway.engine import Kind
from smoothing_proxy.gateway.exchange import Exchange
from smoothing_proxy.gateway.faults import fault_of
from smoothing_proxy.gateway.inquiries import Inquiry, Wish
from smoothing_proxy.gateway.jobs import Job
from smoothing_proxy.gateway.label_question import labels_in
from smoothing_proxy.gateway.native_request import REQUEST_BYTES, native_token, read_native
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.gateway.references import NOT_LISTED
from smoothing_proxy.gateway.requests import body_of, head_of
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.vendor_front import headers_of, inquiry_name, radius_in
from smoothing_proxy.types import Votes
from smoothing_proxy.wire.base import Fault, HttpRequest, Place, RequestFault, Wire

__all__ = ["STATUS", "Events", "NativeFront", "refusal"]

STATUS: Mapping[Fault, int] = {
    Fault.BAD_REQUEST: 400,
    Fault.BAD_IMAGE: 422,
    Fault.IMAGE_TOO_LARGE: 413,
    Fault.UNAUTHENTICATED: 401,
    Fault.FORBIDDEN: 403,
    Fault.UNKNOWN_OPERATION: 404,
    Fault.THROTTLED: 429,
    Fault.QUOTA: 402,
    Fault.INTERNAL: 500,
    Fault.UNAVAILABLE: 503,
    Fault.TIMEOUT: 504,
}

MOST_VERDICTS = 20
"""In one answer."""

SHA256 = re.compile(r"[0-9a-f]{64}")

KEEP_ALIVE_S = 15.0
"""Of a stream without news, so that nobody on the way takes it for dead."""


class Events(StreamingResponse):
    """A stream of events. at_end: closed when it ends, even where its client has left before it began."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], headers: Mapping[str, str], at_end: ExitStack) -> None:
        super().__init__(events, headers=headers)
        self.at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        with self.at_end:
            await super().__call__(scope, receive, send)


class NativeFront:
    """Answers the native routes of one gateway. wires: whose keys may read their own verdicts here, too."""

    def __init__(self, gateway: Gateway, wires: Sequence[Wire]) -> None:
        self._gateway = gateway
        self._wires = wires

    async def ask(self, kind: Kind, request: Request, exchange: Exchange) -> Response:
        """PREDICT or CERTIFY one picture."""
        head = head_of(request)
        try:
            inquiry = await self._inquiry(kind, request, head, exchange)
            if "text/event-stream" in head.headers.get("accept", ""):
                return self._stream(inquiry, exchange)
            answers = await exchange.answers(inquiry)
            (answer,) = answers
            if isinstance(answer, RequestFault):
                raise answer
        except RequestFault as fault:
            exchange.fault = fault
            return refusal(fault, exchange.id)
        headers = _headers(exchange, headers_of(answers, exchange))
        return Response(answer.text, media_type="application/json", headers=headers)

    async def verdict(self, request: Request, exchange: Exchange) -> Response:
        """One of the caller's own verdicts, again."""
        try:
            caller = await self._reader(head_of(request), exchange)
            kept = await self._gateway.store.verdict(request.path_params["id"][:64], caller.id)
            if kept is None:
                raise RequestFault(Fault.UNKNOWN_OPERATION, "no verdict of this key has this id")
        except RequestFault as fault:
            exchange.fault = fault
            return refusal(fault, exchange.id)
        return Response(kept, media_type="application/json", headers=_headers(exchange, {}))

    async def verdicts(self, request: Request, exchange: Exchange) -> Response:
        """The caller's own verdicts on one picture, for who has the picture and not their ids."""
        try:
            head = head_of(request)
            caller = await self._reader(head, exchange)
            sha256 = head.query.get("sha256", "").lower()
            if not SHA256.fullmatch(sha256):
                raise RequestFault(Fault.BAD_REQUEST, "sha256: expected that of the picture's bytes, in hex")
            kept = await self._gateway.store.verdicts(sha256, caller.id, MOST_VERDICTS)
        except RequestFault as fault:
            exchange.fault = fault
            return refusal(fault, exchange.id)
        told = f'{{"verdicts": [{", ".join(kept)}]}}'
        return Response(told, media_type="application/json", headers=_headers(exchange, {}))

    async def _reader(self, head: HttpRequest, exchange: Exchange) -> Caller:
        """Any vendor's key may read what it was told. Raises RequestFault."""
        now = self._gateway.now()
        caller = await any_caller(self._gateway.store, self._wires, head, native_token(head), now)
        exchange.caller = caller.id
        return caller

    async def _inquiry(self, kind: Kind, request: Request, head: HttpRequest, exchange: Exchange) -> Inquiry:
        caller = await token_caller(self._gateway.store, native_token(head), "native")
        exchange.caller = caller.id
        body = await body_of(request, REQUEST_BYTES, self._gateway.settings.body_timeout_s, exchange.hold)
        question = await read_native(request, head, body)
        radius = question.target_radius or radius_in(head.headers)
        if kind == "predict" and radius is not None:
            raise RequestFault(Fault.BAD_REQUEST, "target_radius: ask /v1/certify for a radius")
        asked = labels_in(head.headers) if question.per_label is None else question.per_label
        wish = self._gateway.wish(caller, radius=radius, kind=kind)
        wish = self._gateway.with_labels(caller, wish, asked)
        name = inquiry_name(head.headers)
        if question.place is not None:
            return self._elsewhere(caller, wish, question.place, name)
        digest = hashlib.sha256(b"native" + question.image).hexdigest()
        return Inquiry(caller, (question.image,), wish, digest, name)

    def _elsewhere(self, caller: Caller, wish: Wish, place: Place, name: str) -> Inquiry:
        """About a picture that has to be fetched. Raises RequestFault (FORBIDDEN) where it may not be."""
        if not self._gateway.references.allows(place):
            raise RequestFault(Fault.FORBIDDEN, f"url: {NOT_LISTED}")
        digest = hashlib.sha256(b"native url" + place.address.encode()).hexdigest()
        return Inquiry(caller, (b"",), wish, digest, name, {0: place})

    def _stream(self, inquiry: Inquiry, exchange: Exchange) -> Response:
        with exchange.trace.current():
            job = self._gateway.take(inquiry)
        return Events(self._told(job, exchange), _headers(exchange, {}), ExitStack())

    async def _told(self, job: Job, exchange: Exchange) -> AsyncIterator[str]:
        """The votes as they grow, then the verdict or the error."""
        told = Votes()
        while not job.done:
            if job.votes.n > told.n:
                told = job.votes
                said = {"copies": told.n, "votes": dict(told.counts), "failed": told.failed}
                yield _event("votes", json.dumps(said))
            try:
                await asyncio.wait_for(job.news(), KEEP_ALIVE_S)
            except TimeoutError:
                yield ": still asking\n\n"
        try:
            (answer,) = exchange.told(await job.answers(math.inf))
            exchange.replayed = job.replayed
            if isinstance(answer, RequestFault):
                raise answer
            yield _event("verdict", answer.text)
        except Exception as error:  # noqa: BLE001 (told in the stream, since its status is long gone)
            exchange.fault = fault_of(error)
            yield _event("error", json.dumps(_error(exchange.fault, exchange.id)))


def refusal(fault: RequestFault, request_id: str) -> Response:
    """The error as native clients get it."""
    headers = {"x-request-id": request_id}
    if fault.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(fault.retry_after_s))
    return JSONResponse({"error": _error(fault, request_id)}, STATUS[fault.fault], headers)


def _error(fault: RequestFault, request_id: str) -> dict[str, str]:
    return {"code": fault.fault.name.lower(), "message": fault.message, "request_id": request_id}


def _headers(exchange: Exchange, proof: Mapping[str, str]) -> dict[str, str]:
    return {"x-request-id": exchange.id, **proof}


def _event(kind: str, data: str) -> str:
    """data: JSON on one line."""
    return f"event: {kind}\ndata: {data}\n\n"
