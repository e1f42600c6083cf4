"""The vendors' formats on one port: what a vendor's SDK sends is answered as the vendor would, but hardened."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from smoothing_proxy.errors import MalformedReplyError
from smoothing_proxy.gateway.asked import check_asked
from smoothing_proxy.gateway.callers import caller_by_headers, check_signature
from smoothing_proxy.gateway.exchange import Exchange
from smoothing_proxy.gateway.faults import told
from smoothing_proxy.gateway.inquiries import Inquiry
from smoothing_proxy.gateway.jobs import Answered
from smoothing_proxy.gateway.label_question import labels_in
from smoothing_proxy.gateway.passage import UNHARDENED
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.gateway.requests import body_of, response_of
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.settings import Abstain
from smoothing_proxy.gateway.verdicts import Verdict, proof_headers
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.base import (
    ElsewhereFault,
    Fault,
    HttpReply,
    HttpRequest,
    NotServedFault,
    Question,
    RequestFault,
    Wire,
)
from smoothing_proxy.wire.errands import errand_of, reply_to

__all__ = [
    "VendorFront",
    "headers_of",
    "inquiry_name",
    "passed_headers",
    "radius_in",
    "told_to_vendor",
    "wants_proof",
]

NAMES = ("amz-sdk-invocation-id", "x-ms-client-request-id", "idempotency-key", "x-stainless-idempotency-key")
"""Headers by which a request that is sent again says that it is the same one."""

RADIUS = "x-smoothing-target-radius"


class VendorFront:
    """wires: tried in order; the first that serves a request answers it, however wrong the request is."""

    def __init__(self, gateway: Gateway, wires: Sequence[Wire]) -> None:
        self._gateway = gateway
        self._wires = [wire for wire in wires if wire.name in gateway.settings.vendors]
        self._limits = {wire.name: wire.limits for wire in self._wires}  # of some it loads a library

    def wire_for(self, head: HttpRequest) -> Wire | None:
        """Whose request this is."""
        return next((wire for wire in self._wires if wire.serves(head)), None)

    async def answer(self, wire: Wire, head: HttpRequest, request: Request, exchange: Exchange) -> Response:
        """The vendor's reply, or its refusal."""
        exchange.vendor = wire.name
        received = head
        try:
            caller = await caller_by_headers(self._gateway.store, wire, head, self._gateway.now())
            exchange.caller = caller.id
            most = self._limits[wire.name].request_bytes
            body = await body_of(request, most, self._gateway.settings.body_timeout_s, exchange.hold)
            received = replace(head, body=body)
            await check_signature(self._gateway.store, wire, caller, received, self._gateway.now())
            try:
                question = self._question(wire, received)
            except NotServedFault as fault:
                hardened = self._gateway.references.hardens(fault)
                if hardened is None:
                    return response_of(await self._passed(wire, received, caller, exchange, fault))
                question = hardened
            wish = self._gateway.wish(caller, radius=radius_in(head.headers))
            inquiry = Inquiry(
                caller,
                question.images,
                self._gateway.with_labels(caller, wish, labels_in(head.headers), question.min_confidence),
                _digest(wire, received),
                inquiry_name(head.headers),
                question.places,
            )
            answers = await exchange.answers(inquiry)
        except RequestFault as fault:
            exchange.fault = fault
            return response_of(wire.refuse(received, fault, exchange.id), fault)
        question = _with_pictures(question, exchange.images, answers)
        written = [told_to_vendor(one, inquiry.wish.abstain, question) for one in answers]
        reply = wire.write(received, question, written, exchange.id)
        return response_of(HttpReply(reply.status, {**reply.headers, **headers_of(answers, exchange)}, reply.body))

    async def _passed(
        self, wire: Wire, request: HttpRequest, caller: Caller, exchange: Exchange, fault: NotServedFault
    ) -> HttpReply:
        """The vendor's own reply to what cannot be hardened. Raises `fault` where that is not allowed."""
        if not self._gateway.passage.open_to(wire.name, caller) or wants_proof(request.headers):
            raise fault
        errand = errand_of(wire.name, request)
        reply = await exchange.pass_on(caller, errand, inquiry_name(request.headers))
        try:
            answer = reply_to(wire.name, request, reply)
        except MalformedReplyError as error:
            raise told(error) from error
        return replace(answer, headers={**answer.headers, **passed_headers(exchange)})

    def _question(self, wire: Wire, request: HttpRequest) -> Question:
        try:
            question = wire.read(request)
        except ElsewhereFault as fault:
            check_asked(self._gateway.settings, wire.name, request, fault.question)
            raise
        check_asked(self._gateway.settings, wire.name, request, question)
        limits = self._limits[wire.name]
        if not 1 <= len(question.images) <= limits.batch:
            raise RequestFault(
                Fault.BAD_REQUEST, f"{len(question.images)} pictures in a request; 1 to {limits.batch} are taken"
            )
        if max(map(len, question.images)) > limits.image_bytes:
            raise RequestFault(
                Fault.IMAGE_TOO_LARGE, f"a picture is larger than the {limits.image_bytes} bytes allowed"
            )
        return question


def _with_pictures(question: Question, images: tuple[bytes, ...], answers: Sequence[Answered]) -> Question:
    """The question with the pictures that were fetched for it, or what is known of the one that was not."""
    if images or not question.places:
        return replace(question, images=images or question.images)
    known = [answer.input_size for answer in answers if isinstance(answer, Verdict)]
    return replace(question, size_px=known[0] if len(known) == 1 else None)


def told_to_vendor(answer: Answered, abstain: Abstain, question: Question) -> Reply | RequestFault:
    """A verdict as a reply; an abstention as the picture's own fault, where that was wished.

    Where one label out of a closed list is asked for, it is the one that was voted, or none: the best of those
    that are on the list would be an answer that nobody voted for.
    """
    if not isinstance(answer, Verdict):
        return answer
    if answer.label is None and abstain == "error":
        return RequestFault(Fault.BAD_IMAGE, f"no label of this picture is certain enough (verdict {answer.id})")
    reply = answer.reply
    if question.max_labels == 1 and question.labels and answer.label is not None:
        listed = [label for label in reply.labels[:1] if {label.name, label.id} & set(question.labels)]
        return replace(reply, labels=tuple(listed))
    return reply


def headers_of(answers: Sequence[Answered], exchange: Exchange) -> Mapping[str, str]:
    """The proof, and whether it was told before."""
    proof = proof_headers([answer if isinstance(answer, Verdict) else None for answer in answers])
    return {**proof, "x-smoothing-replayed": str(exchange.replayed).lower()} if proof else proof


def passed_headers(exchange: Exchange) -> Mapping[str, str]:
    """That the answer is the vendor's own, and whether it was told before."""
    replayed = {"x-smoothing-replayed": str(exchange.replayed).lower()}
    return {"x-request-id": exchange.id, **UNHARDENED, **replayed}


def inquiry_name(headers: Mapping[str, str]) -> str:
    """How a request names itself, "" where it does not; names of several kinds differ."""
    found = next((f"{name}: {headers[name]}" for name in NAMES if headers.get(name)), "")
    return found[:300]


def radius_in(headers: Mapping[str, str]) -> float | None:
    """The radius that a request wants certified. Raises RequestFault (BAD_REQUEST)."""
    text = headers.get(RADIUS, "").strip()
    if not text:
        return None
    try:
        radius = float(text)
    except ValueError:
        radius = math.nan
    if not (math.isfinite(radius) and radius > 0):
        raise RequestFault(Fault.BAD_REQUEST, f"{RADIUS}: expected a number above 0")
    return radius


def wants_proof(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for what only a hardened answer has. Raises RequestFault (BAD_REQUEST)."""
    return RADIUS in headers or labels_in(headers) not in (None, False)


def _digest(wire: Wire, request: HttpRequest) -> str:
    """Of all that is asked; signatures and dates are left out."""
    asked = [wire.name, request.method, request.path, sorted(request.query.items())]
    return hashlib.sha256(json.dumps(asked).encode() + request.body).hexdigest()
