"""A vendor of no brand: the whole Wire protocol in a few lines, and pictures and requests for it.

Request: POST /plain, `authorization: Plain ID SECRET`, {"images": [base64], "max_labels": n}.
Reply: {"answers": [{"labels": [[name, confidence]]} or {"error": fault}], "version"}.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from smoothing_proxy.images.codec import Encoding, Format, encode
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, Limits, Question, RequestFault, Wire

AUTHORIZATION = {"authorization": "Plain simulator simulator-secret"}

STATUS = {
    Fault.UNAUTHENTICATED: 401,
    Fault.UNKNOWN_OPERATION: 404,
    Fault.IMAGE_TOO_LARGE: 413,
    Fault.THROTTLED: 429,
    Fault.QUOTA: 402,
    Fault.INTERNAL: 500,
    Fault.UNAVAILABLE: 503,
    Fault.TIMEOUT: 504,
}


class PlainWire:
    """Implements Wire; an image's own fault stands in its place."""

    name = "plain"

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits(
            image_bytes=20_000, request_bytes=100_000, batch=4, min_side_px=8, max_side_px=64
        )

    def serves(self, request: HttpRequest) -> bool:
        return request.path == "/plain"

    def key(self, request: HttpRequest) -> str:
        return self._parts(request)[0]

    def verify(self, request: HttpRequest, secret: str, now: datetime) -> None:
        assert now.tzinfo is not None
        if self._parts(request)[1] != secret:
            raise RequestFault(Fault.UNAUTHENTICATED, "wrong secret")

    def read(self, request: HttpRequest) -> Question:
        try:
            body = json.loads(request.body)
            return Question(tuple(base64.b64decode(image) for image in body["images"]), body.get("max_labels"))
        except (ValueError, KeyError) as error:
            raise RequestFault(Fault.BAD_REQUEST, f"not in the format: {error!r}") from error

    def write(
        self, request: HttpRequest, question: Question, answers: Sequence[Reply | RequestFault], request_id: str
    ) -> HttpReply:
        version = next((answer.model_version for answer in answers if isinstance(answer, Reply)), "")
        return _reply(200, {"answers": [_written(answer) for answer in answers], "version": version})

    def refuse(self, request: HttpRequest, fault: RequestFault, request_id: str) -> HttpReply:
        wait = {} if fault.retry_after_s is None else {"retry-after": str(fault.retry_after_s)}
        reply = _reply(STATUS.get(fault.fault, 400), {"error": fault.fault.value, "message": fault.message})
        return HttpReply(reply.status, {**reply.headers, **wait}, reply.body)

    def _parts(self, request: HttpRequest) -> tuple[str, str]:
        parts = request.headers.get("authorization", "").split(" ")
        if len(parts) != 3 or parts[0] != "Plain":
            raise RequestFault(Fault.UNAUTHENTICATED, "no key")
        return parts[1], parts[2]


PLAIN: Wire = PlainWire()


def picture(level: int = 100, side: int = 16, kind: Format = "png") -> bytes:
    """A file of one grey level."""
    return encode(np.full((side, side, 3), level, np.uint8), Encoding(kind)).data


def body(*images: bytes) -> bytes:
    return json.dumps({"images": [base64.b64encode(image).decode() for image in images]}).encode()


def _written(answer: Reply | RequestFault) -> dict[str, object]:
    if isinstance(answer, RequestFault):
        return {"error": answer.fault.value}
    return {"labels": [[label.name, label.confidence] for label in answer.labels]}


def _reply(status: int, value: object) -> HttpReply:
    return HttpReply(status, {"content-type": "application/json"}, json.dumps(value).encode())
