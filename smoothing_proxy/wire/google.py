"""Google Cloud Vision's images:annotate over HTTP, for LABEL_DETECTION, as a server speaks it.

https://cloud.google.com/vision/docs/reference/rest/v1/images/annotate, and what google-cloud-vision 3.16 sends.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, final

from smoothing_proxy.types import Reply
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, Limits, Question, RequestFault
from smoothing_proxy.wire.google_grpc import Code, code_of, status_of

__all__ = ["GoogleWire", "message_in", "reply_in_json"]

JSON = {"content-type": "application/json; charset=UTF-8"}

FAULT_CHARACTERS = 300
"""Of what a parser says about a body, which may repeat parts of it."""

_OURS = re.compile(r"(^|/)v1/(projects/[^/]+/|(images|files):)")
_ANNOTATE = re.compile(r"(^|/)v1/(projects/[^/]+/(locations/[^/]+/)?)?images:annotate$")

_HTTP = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


@final
class GoogleWire:
    """Implements Wire. A key is an API key (header x-goog-api-key, or ?key=) or a bearer token; it has no id.

    An image's own fault stands in its place at HTTP 200, as Google does it. The model's version and the request's
    id have no place in this format.
    """

    name = "google"

    @property
    def limits(self) -> Limits:
        """See Wire.limits; https://cloud.google.com/vision/quotas."""
        from smoothing_proxy.wire import google_proto

        return google_proto.LIMITS

    def serves(self, request: HttpRequest) -> bool:
        """See Wire.serves: below /v1, after any prefix."""
        return _OURS.search(request.path) is not None

    def key(self, request: HttpRequest) -> str:
        """See Wire.key."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        key = request.headers.get("x-goog-api-key") or request.query.get("key") or bearer
        if not key:
            raise RequestFault(
                Fault.UNAUTHENTICATED, "Request is missing required authentication credential: API key or token."
            )
        return key

    def verify(self, request: HttpRequest, secret: str, now: datetime) -> None:
        """See Wire.verify: the key is its own secret."""
        if not hmac.compare_digest(self.key(request).encode(), secret.encode()):
            raise RequestFault(Fault.UNAUTHENTICATED, "Request had invalid authentication credentials.")

    def read(self, request: HttpRequest) -> Question:
        """See Wire.read, and google_proto.question_of. max_labels: enough for each of the images."""
        from smoothing_proxy.wire import google_proto

        if request.method != "POST" or not _ANNOTATE.search(request.path):
            raise RequestFault(
                Fault.UNKNOWN_OPERATION,
                "The requested URL was not found; POST /v1/images:annotate is answered here.",
            )
        if len(request.body) > self.limits.request_bytes:
            raise RequestFault(
                Fault.BAD_REQUEST, f"Request payload size exceeds the limit: {self.limits.request_bytes} bytes."
            )
        return google_proto.question_of(message_in(request.body))

    def write(
        self, request: HttpRequest, question: Question, answers: Sequence[Reply | RequestFault], request_id: str
    ) -> HttpReply:
        """See Wire.write. The request is read once more, since each image has its own number of labels."""
        from smoothing_proxy.wire import google_proto

        return reply_in_json(request, google_proto.response_of(message_in(request.body), answers))

    def refuse(self, request: HttpRequest, fault: RequestFault, request_id: str) -> HttpReply:
        """See Wire.refuse."""
        from google.protobuf import json_format  # type: ignore[import-untyped, unused-ignore]
        from google.rpc import error_details_pb2  # type: ignore[import-untyped, unused-ignore] # noqa: F401 (its types are looked up by name)

        # Google's HTTP front does not know other paths, where its gRPC servers do not implement other methods.
        code = Code.NOT_FOUND if fault.fault is Fault.UNKNOWN_OPERATION else code_of(fault)
        error = {"code": _HTTP[code], "message": fault.message, "status": code.name}
        if details := json_format.MessageToDict(status_of(fault)).get("details"):
            error["details"] = details
        delay = {} if fault.retry_after_s is None else {"retry-after": str(math.ceil(fault.retry_after_s))}
        return HttpReply(_HTTP[code], JSON | delay, json.dumps({"error": error}).encode())


def reply_in_json(request: HttpRequest, response: Any) -> HttpReply:
    """A BatchAnnotateImagesResponse as this request wants it written."""
    from google.protobuf import json_format  # type: ignore[import-untyped, unused-ignore]

    as_numbers = "enum-encoding=int" in request.query.get("$alt", "")
    body = json_format.MessageToDict(response, use_integers_for_enums=as_numbers)
    return HttpReply(200, JSON, json.dumps(body).encode())


def message_in(body: bytes) -> Any:
    """A JSON body as BatchAnnotateImagesRequest. Raises RequestFault (BAD_REQUEST)."""
    from google.cloud.vision_v1 import types as vision
    from google.protobuf import json_format

    message = vision.BatchAnnotateImagesRequest.pb()()
    try:
        return json_format.Parse(body, message)
    except (json_format.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
        said = str(error)[:FAULT_CHARACTERS]
        raise RequestFault(Fault.BAD_REQUEST, f"Invalid JSON payload received. {said}") from None
