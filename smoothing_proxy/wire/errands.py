"""Requests that go to their vendor as they came, since they ask for something else than labels.

What identifies the client stays here: of the headers only those go along that say how the body is to be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from smoothing_proxy.errors import MalformedReplyError
from smoothing_proxy.wire import aws
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault

__all__ = ["USUAL", "VENDORS", "Errand", "errand_of", "google_errand", "reply_to"]

USUAL: Mapping[str, frozenset[str]] = {
    "aws": frozenset(
        {
            "CompareFaces",
            "DetectFaces",
            "DetectLabels",
            "DetectModerationLabels",
            "DetectProtectiveEquipment",
            "DetectText",
            "RecognizeCelebrities",
        }
    ),
    "azure": frozenset(
        {
            "analyze",
            "areaOfInterest",
            "describe",
            "detect",
            "generateThumbnail",
            "imageanalysis:analyze",
            "ocr",
            "tag",
        }
    ),
    "google": frozenset({"images:annotate"}),
}
"""Operations that look at a picture and keep nothing, by vendor."""

VENDORS = tuple(sorted(USUAL))

_OF_THE_ACCOUNT = ("S3Object", "HumanLoopConfig", "ProjectVersion")
_AZURE = re.compile(
    r"/(?P<path>computervision/(?P<modern>imageanalysis:analyze)|"
    r"vision/v3\.[012]/(?P<older>analyze|areaOfInterest|describe|detect|generateThumbnail|ocr|tag))/?$"
)
_AZURE_FEATURES = ("features", "visualfeatures", "details")
"""Names in the query, where Azure tells no capitals from small letters."""

_AZURE_MODEL = "model-name"
"""Of a model that the account's owner has trained; it is billed as a feature is."""

_AZURE_PICTURES = ("application/octet-stream", "multipart/form-data")
"""Bodies that hold the picture itself; the others are JSON under some name, with its address."""

_MEDIA = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+")
_BOUNDARY = re.compile(
    r"""; *boundary=("[^"\\\x00-\x1f\x7f-\xff]{1,70}"|[A-Za-z0-9'()+_,./:=?-]{1,70}) *(;|$)""", re.I
)
_REPLY_HEADERS = (
    "content-type",
    "retry-after",
    "x-amz-retry-after",
    "x-amzn-requestid",
    "apim-request-id",
    "x-ms-request-id",
    "x-envoy-upstream-service-time",
)


@dataclass(frozen=True, slots=True)
class Errand:
    """operation: as the vendor calls it. request: as it leaves; `target` begins below the vendor's own address,
    and Google's body is the serialised message. units: that the vendor bills, one for each feature of a picture.
    references: whether it names what is not in it, for the vendor to fetch with the account's own rights.
    """

    operation: str
    request: HttpRequest
    units: int = 1
    references: bool = False


def errand_of(vendor: str, request: HttpRequest) -> Errand:
    """The request as it leaves for `vendor`, one of VENDORS.

    Raises RequestFault for one that is not in the vendor's format, and for an address that is not known here.
    """
    return _ERRANDS[vendor](request)


def google_errand(message: Any) -> Errand:
    """A BatchAnnotateImagesRequest. Raises RequestFault (FORBIDDEN) for one in another project's name."""
    if message.parent:
        raise RequestFault(Fault.FORBIDDEN, "parent: the project is this service's own; leave it out.")
    units = sum(max(1, len(item.features)) for item in message.requests)
    references = any(
        item.image.HasField("source") or item.image_context.HasField("product_search_params")
        for item in message.requests
    )
    request = HttpRequest("POST", "", body=message.SerializeToString())
    return Errand("images:annotate", request, max(1, units), references)


def reply_to(vendor: str, request: HttpRequest, reply: HttpReply) -> HttpReply:
    """What the client of `request` gets of the vendor's reply. Raises MalformedReplyError (Google's alone)."""
    if vendor == "google":
        return _google_reply(request, reply)
    kept = {name: reply.headers[name] for name in _REPLY_HEADERS if name in reply.headers}
    return replace(reply, headers=kept)


def _aws(request: HttpRequest) -> Errand:
    operation = aws.operation_of(request)
    body = aws.json_object(request.body)
    features = body.get("Features") if operation == "DetectLabels" else None
    kept = {"content-type": aws.JSON, "x-amz-target": request.headers["x-amz-target"]}
    # What was looked through is what leaves: of a key that stands there twice, the vendor may read the other one.
    return Errand(
        operation,
        HttpRequest("POST", "/", kept, json.dumps(body).encode(), target="/"),
        max(1, len(features)) if isinstance(features, list) else 1,
        _mentions(body, _OF_THE_ACCOUNT),
    )


def _azure(request: HttpRequest) -> Errand:
    found = _AZURE.search(request.path)
    if found is None or request.method != "POST":
        raise RequestFault(Fault.UNKNOWN_OPERATION, "Resource not found: no such operation is passed on here")
    query = {name: value for name, value in request.query.items() if name.lower() != "subscription-key"}
    content_type = request.headers.get("content-type", "application/octet-stream")
    media = content_type.partition(";")[0].strip().lower()
    if not _MEDIA.fullmatch(media):
        raise RequestFault(Fault.BAD_REQUEST, "the content type is none")
    boundary = _BOUNDARY.search(content_type) if media == "multipart/form-data" else None
    path = f"/{found['path']}"
    asked = [value for name, value in query.items() if name.lower() in (*_AZURE_FEATURES, _AZURE_MODEL)]
    its_own = any(name.lower() == _AZURE_MODEL for name in query)
    return Errand(
        found["modern"] or found["older"],
        HttpRequest(
            "POST",
            path,
            {"content-type": f"{media}; boundary={boundary[1]}" if boundary else media},
            request.body,
            query,
            target=f"{path}?{urlencode(query, safe=',')}" if query else path,
        ),
        max(1, sum(len(list(filter(None, names.split(",")))) for names in asked)),
        its_own or not (media in _AZURE_PICTURES or media.startswith("image/")),
    )


def _google(request: HttpRequest) -> Errand:
    from smoothing_proxy.wire.google import message_in

    return google_errand(message_in(request.body))


_ERRANDS: Mapping[str, Callable[[HttpRequest], Errand]] = {"aws": _aws, "azure": _azure, "google": _google}


def _google_reply(request: HttpRequest, reply: HttpReply) -> HttpReply:
    from google.cloud.vision_v1 import types as vision
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

    from smoothing_proxy.wire.google import reply_in_json

    try:
        response = vision.BatchAnnotateImagesResponse.pb().FromString(reply.body)
    except DecodeError:
        raise MalformedReplyError("the reply is no BatchAnnotateImagesResponse", reply=reply.body) from None
    return reply_in_json(request, response)


def _mentions(value: Any, keys: Collection[str]) -> bool:
    """Whether any object in it has one of these keys, with something under it."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if any(one.get(key) is not None for key in keys):
                return True
            left += one.values()
        elif isinstance(one, list):
            left += one
    return False
