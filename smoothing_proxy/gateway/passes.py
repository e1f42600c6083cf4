"""A request that is passed on, as it is told from others, and the vendor's reply to it as a document."""

from __future__ import annotations

import binascii
import hashlib
import json
from dataclasses import dataclass

from smoothing_proxy.gateway.inquiries import sha256_of
from smoothing_proxy.types import Cost
from smoothing_proxy.wire.base import HttpReply
from smoothing_proxy.wire.errands import Errand

__all__ = ["KEPT_BYTES", "Passed", "document_of", "is_complete", "pass_name", "passed_in"]

KEPT_BYTES = 2**21
"""Of the largest reply that is kept to be told again."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The vendor's own reply. cost: in queries. replayed: it was given before, to the same request."""

    reply: HttpReply
    cost: Cost
    replayed: bool = False


def pass_name(vendor: str, errand: Errand, name: str) -> str:
    """The same for the same request, sent again. name: by which the client says so, "" where it does not.

    It holds the digest of all that leaves, so that a name which its client uses for everything does no harm.
    """
    request = errand.request
    headers = map(":".join, sorted(request.headers.items()))
    asked = [vendor, errand.operation, request.method, request.target, *headers]
    return sha256_of("passed on", name, *asked, hashlib.sha256(request.body).hexdigest())


def is_complete(vendor: str, reply: HttpReply) -> bool:
    """Whether the reply holds no error that another attempt may not meet: Google has one for each picture."""
    if len(reply.body) > KEPT_BYTES:
        return False
    if vendor != "google":
        return True
    from google.cloud.vision_v1 import types as vision
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

    try:
        response = vision.BatchAnnotateImagesResponse.pb().FromString(reply.body)
    except DecodeError:
        return False
    return not any(one.HasField("error") for one in response.responses)


def document_of(reply: HttpReply) -> str:
    """The reply as JSON, its body in base64."""
    body = binascii.b2a_base64(reply.body, newline=False).decode()
    return json.dumps({"status": reply.status, "headers": dict(reply.headers), "body": body})


def passed_in(document: str) -> Passed:
    """What `document_of` wrote, told again at no cost."""
    kept = json.loads(document)
    reply = HttpReply(kept["status"], kept["headers"], binascii.a2b_base64(kept["body"]))
    return Passed(reply, Cost(), replayed=True)
