"""Azure AI Vision's tags, both ways: Image Analysis 4.0 and Computer Vision 3.2.

    POST {endpoint}/computervision/imageanalysis:analyze?api-version=2023-10-01&features=tags     4.0
    POST {endpoint}/vision/v3.2/tag       and      /vision/v3.2/analyze?visualFeatures=Tags       3.2

Shapes and error codes: the models of azure-ai-vision-imageanalysis 1.0 and azure-cognitiveservices-vision-
computervision 0.9. Sizes: the vendor's overview of Image Analysis ("less than 20 megabytes", in 3.2 "less than 4
megabytes"; "greater than 50 x 50 pixels and less than 16,000 x 16,000 pixels"), read 2026-11-21. Image Analysis
retires on 25 September 2028.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, NoReturn, final
from urllib.parse import quote

from pydantic import Field, ValidationError

from smoothing_proxy.errors import BackendError, MalformedReplyError
from smoothing_proxy.images.formats import open_header, sniff
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.azure_query import API_VERSION, Version, asked_model
from smoothing_proxy.wire.azure_url import question_about_url
from smoothing_proxy.wire.base import (
    Fault,
    FetchFault,
    HttpReply,
    HttpRequest,
    Limits,
    NotServedFault,
    Question,
    RequestFault,
)
from smoothing_proxy.wire.shapes import Score, Shape, fault_in
from smoothing_proxy.wire.statuses import Failure, failure_error, failure_of, harmless

__all__ = ["LIMITS", "AzureWire", "Version", "error_of", "headers_for", "reply_of", "tag_url"]

LIMITS: Mapping[Version, Limits] = {
    "4.0": Limits(20 * 2**20 - 1, 20 * 2**20 - 1, min_side_px=51, max_side_px=15_999),
    "3.2": Limits(4 * 2**20 - 1, 4 * 2**20 - 1, min_side_px=51),
}

_KEY = "ocp-apim-subscription-key"
_QUOTA = re.compile(
    r"out of call volume|quota will be replenished|quota.{0,20}exceeded|exceeded.{0,40}quota", re.I
)


# The client's side: what a backend sends and what it makes of the answer.


def tag_url(endpoint: str, version: Version, *, model_version: str = "latest") -> str:
    """The address that tags a picture. endpoint: without a slash at its end. model_version: "latest" or a date."""
    pinned = "" if model_version == "latest" else f"model-version={quote(model_version, safe='')}"
    if version == "3.2":
        return f"{endpoint}/vision/v3.2/tag" + (f"?{pinned}" if pinned else "")
    path = f"/computervision/imageanalysis:analyze?api-version={API_VERSION}&features=tags"
    return f"{endpoint}{path}" + (f"&{pinned}" if pinned else "")


def headers_for(*, key: str = "", token: str = "") -> dict[str, str]:
    """Of a request whose body is the picture itself. token: of Entra ID, used where it is given."""
    signed = {"authorization": f"Bearer {token}"} if token else {_KEY: key}
    return {**signed, "content-type": "application/octet-stream"}


class _Tag(Shape):
    name: str = Field(min_length=1)
    confidence: Score


class _Tags(Shape):
    values: tuple[_Tag, ...]


class _Analysis40(Shape):
    modelVersion: str = ""  # noqa: N815 (the vendor's)
    tagsResult: _Tags  # noqa: N815


class _Analysis32(Shape):
    modelVersion: str = ""  # noqa: N815
    requestId: str = ""  # noqa: N815
    tags: tuple[_Tag, ...]


def reply_of(reply: HttpReply, version: Version, *, backend: str) -> Reply:
    """The tags of an answer with status 200. Raises MalformedReplyError, which keeps the body."""
    try:
        if version == "4.0":
            modern = _Analysis40.model_validate_json(reply.body)
            tags, model_version, named = modern.tagsResult.values, modern.modelVersion, ""
        else:
            older = _Analysis32.model_validate_json(reply.body)
            tags, model_version, named = older.tags, older.modelVersion, older.requestId
    except ValidationError as error:
        raise MalformedReplyError(
            f"{backend}: the answer is not in the format of version {version}: {fault_in(error)}",
            backend=backend,
            reply=reply.body,
        ) from None
    labels = tuple(ScoredLabel(tag.name, tag.confidence) for tag in tags)
    return Reply(labels, model_version, reply.headers.get("apim-request-id") or named)


def error_of(reply: HttpReply, *, backend: str, retry_after: float | None = None) -> BackendError:
    """What an answer with another status means. retry_after: seconds that it asked to wait.

    An error code's words count before the status for the quota only, which comes with 403 as well as 429.
    """
    code, message = _said(reply.body)
    failure: Failure = failure_of(reply.status)
    if reply.status in (403, 429) and _QUOTA.search(message):
        failure = "quota"
    text = f"{backend}: HTTP {reply.status}{_ADVICE.get(failure, '')}: {code} {harmless(message)}"
    return failure_error(failure, text.rstrip(": "), backend=backend, retry_after=retry_after)


_ADVICE: Mapping[Failure, str] = {
    "auth": " (check the endpoint, the key or token, and that the resource offers Image Analysis)",
    "quota": " (wait until the quota is renewed or change the pricing tier, then resume)",
    "throttled": " (lower the concurrency or change the pricing tier)",
}


def _said(body: bytes) -> tuple[str, str]:
    """Code and message of an error body, nested or, as the service's front writes it, flat; or "".

    The innermost code says the most: InvalidRequest is InvalidImageSize inside.
    """
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    outer = said.get("error", said) if isinstance(said, dict) else None
    if not isinstance(outer, dict):
        return "", ""
    inner = outer.get("innererror")
    inner = inner if isinstance(inner, dict) else {}
    code = harmless(inner.get("code")) or harmless(outer.get("code"))
    message = inner.get("message") or outer.get("message")
    return code, message if isinstance(message, str) else ""


# The server's side: what a simulator and a gateway read and write.


class _Refusal(NamedTuple):
    """status, code of the error and, where there is one, of what is inside it."""

    status: int
    code: str
    inner: str = ""


_REFUSALS: Mapping[Fault, _Refusal] = {
    Fault.BAD_REQUEST: _Refusal(400, "InvalidRequest", "BadArgument"),
    Fault.BAD_IMAGE: _Refusal(400, "InvalidRequest", "InvalidImageFormat"),
    Fault.IMAGE_TOO_LARGE: _Refusal(400, "InvalidRequest", "InvalidImageSize"),
    Fault.UNAUTHENTICATED: _Refusal(401, "401"),
    Fault.FORBIDDEN: _Refusal(403, "403"),
    Fault.UNKNOWN_OPERATION: _Refusal(404, "404"),
    Fault.THROTTLED: _Refusal(429, "429"),
    Fault.QUOTA: _Refusal(403, "403"),
    Fault.INTERNAL: _Refusal(500, "InternalServerError", "InternalServerError"),
    Fault.UNAVAILABLE: _Refusal(503, "ServiceUnavailable"),
    Fault.TIMEOUT: _Refusal(408, "Timeout", "Timeout"),  # azure-core sends a POST again after 504, not after 408
}
_NO_PICTURE = _Refusal(400, "InvalidRequest", "InvalidImageUrl")
_WAITING = (Fault.THROTTLED, Fault.UNAVAILABLE)
"""azure-core sends again whatever comes with Retry-After, so nothing else may carry it."""

_SPENT = "Out of call volume quota. "
_OURS = re.compile(r"(^|/)(computervision|vision/v[0-9][0-9.]*)(/|$)")
_OPERATIONS = re.compile(
    r"/(computervision/(?P<modern>imageanalysis:analyze)|vision/v3\.2/(?P<older>tag|analyze))/?$"
)


@final
class AzureWire:
    """Azure AI Vision as a server speaks it, 4.0 and 3.2; see wire.base.Wire. Under any path prefix.

    Answered are tags, in English, of a picture that is the body itself. What asks for other features or languages,
    for a model of the customer's own, or for a picture elsewhere, is refused; options of other features are passed
    over.
    """

    name = "azure"
    limits = LIMITS["4.0"]

    def serves(self, request: HttpRequest) -> bool:
        """A path of the vision service, or the header that carries its key."""
        return _OURS.search(request.path) is not None or _KEY in request.headers

    def key(self, request: HttpRequest) -> str:
        """The key or the token itself: neither has an id."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = request.headers.get(_KEY, "") or (token.strip() if scheme.lower() == "bearer" else "")
        if not key:
            raise RequestFault(
                Fault.UNAUTHENTICATED, "Access denied due to missing subscription key or bearer token."
            )
        return key

    def verify(self, request: HttpRequest, secret: str, now: datetime) -> None:
        """The key is the secret."""
        if not hmac.compare_digest(self.key(request).encode(errors="surrogateescape"), secret.encode()):
            raise RequestFault(
                Fault.UNAUTHENTICATED, "Access denied due to invalid subscription key or wrong API endpoint."
            )

    def read(self, request: HttpRequest) -> Question:
        """Tags of one picture."""
        version = _version(request)
        model = asked_model(request, version)
        if _media_type(request) == "application/json":
            return question_about_url(request, LIMITS[version], model)
        _check_picture(request, LIMITS[version])
        return Question((request.body,), model=model)

    def write(
        self, request: HttpRequest, question: Question, answers: Sequence[Reply | RequestFault], request_id: str
    ) -> HttpReply:
        """Tags by confidence, then name, in the version that was asked."""
        (answer,) = answers
        if isinstance(answer, RequestFault):
            return self.refuse(request, answer, request_id)
        labels = sorted(answer.labels, key=lambda label: (-label.confidence, label.name))
        tags = [{"name": label.name, "confidence": label.confidence} for label in labels]
        kind, width, height = _picture(question.images[0])
        height, width = question.size_px or (height, width)
        body: dict[str, object] = {"modelVersion": answer.model_version}
        if _version(request) == "4.0":
            body |= {"metadata": {"width": width, "height": height}, "tagsResult": {"values": tags}}
        else:
            metadata = {"height": height, "width": width, "format": kind}
            body |= {"tags": tags, "requestId": request_id, "metadata": metadata}
        return HttpReply(200, _headers(request_id), json.dumps(body).encode())

    def refuse(self, request: HttpRequest, fault: RequestFault, request_id: str) -> HttpReply:
        """The error, alike in both versions. A quota's is one that azure-core does not send again."""
        refusal = _REFUSALS[fault.fault]
        if isinstance(fault, FetchFault) and fault.unreachable:
            refusal = _NO_PICTURE
        message = (_SPENT if fault.fault is Fault.QUOTA else "") + fault.message
        error: dict[str, object] = {"code": refusal.code, "message": message}
        if refusal.inner:
            error["innererror"] = {"code": refusal.inner, "message": message}
        headers = _headers(request_id)
        if fault.retry_after_s is not None and fault.fault in _WAITING:
            headers["retry-after"] = str(math.ceil(fault.retry_after_s))
        return HttpReply(refusal.status, headers, json.dumps({"error": error}).encode())


def _headers(request_id: str) -> dict[str, str]:
    return {"content-type": "application/json", "apim-request-id": request_id, "x-ms-request-id": request_id}


def _bad(message: str) -> NoReturn:
    raise RequestFault(Fault.BAD_REQUEST, message)


def _version(request: HttpRequest) -> Version:
    found = _OPERATIONS.search(request.path)
    if found is None or request.method != "POST":
        message = "Resource not found: only tagging a picture is served here"
        raise NotServedFault(Fault.UNKNOWN_OPERATION, message)
    return "4.0" if found["modern"] else "3.2"


def _media_type(request: HttpRequest) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_picture(request: HttpRequest, limits: Limits) -> None:
    media = _media_type(request)
    if media not in ("", "application/octet-stream") and not media.startswith("image/"):
        _bad("the content type has to be application/octet-stream or image/*")
    if not request.body:
        _bad("the body is empty; it has to be a picture")
    if len(request.body) > limits.image_bytes:
        raise RequestFault(Fault.IMAGE_TOO_LARGE, f"The picture has more than {limits.image_bytes} bytes.")


def _picture(data: bytes) -> tuple[str, int, int]:
    """Format as the service writes it, width and height; zeros for what cannot be read."""
    kind = sniff(data)
    if kind is None:
        return "", 0, 0
    try:
        with open_header(data, kind) as header:
            width, height = header.size
    except Exception:  # noqa: BLE001 (Pillow's plugins raise anything on a bad header)
        return kind.capitalize(), 0, 0
    return kind.capitalize(), width, height
