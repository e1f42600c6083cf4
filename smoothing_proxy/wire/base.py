"""What every vendor's wire format has in common: requests, replies, limits, and what can be wrong with one."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from smoothing_proxy.images.codec import Format

__all__ = ["Fault", "HttpReply", "HttpRequest", "Limits", "Question", "RequestFault"]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it arrived or will be sent.

    path: decoded, without the query. query: the last value of each key. headers: names in lower case.
    target: path and query exactly as they stood on the wire, for signatures; "" where nobody signs.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    query: Mapping[str, str] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer as it arrived or will be sent. headers: names in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks, in no vendor's words.

    images: encoded pictures, one or more. max_labels: per picture, None for the vendor's own default.
    min_confidence: in [0, 1], None likewise. labels: a closed set to answer from, () for any label.
    model: the model or version that was named in the request, "" where none was.
    """

    images: tuple[bytes, ...]
    max_labels: int | None = None
    min_confidence: float | None = None
    labels: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a vendor takes, with the place where it says so in the docstring of the module that states it.

    image_bytes: of one encoded picture. request_bytes: of a whole request body. batch: pictures per request.
    min_side_px, max_side_px: of a picture; 0 for no limit. formats: that it can decode, those we know.
    """

    image_bytes: int
    request_bytes: int
    batch: int = 1
    min_side_px: int = 0
    max_side_px: int = 0
    formats: tuple[Format, ...] = ("png", "jpeg")


class Fault(enum.StrEnum):
    """Why a vendor does not answer. Each vendor's module knows its own words and status for it."""

    BAD_REQUEST = "bad request"
    BAD_IMAGE = "bad image"
    IMAGE_TOO_LARGE = "image too large"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    UNKNOWN_OPERATION = "unknown operation"
    THROTTLED = "throttled"
    QUOTA = "quota exceeded"
    INTERNAL = "internal error"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"


class RequestFault(Exception):  # noqa: N818 (a vendor's answer, raised where it is found)
    """A request that gets no labels. message: for the vendor's error body. retry_after_s: asked for, or None."""

    def __init__(self, fault: Fault, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.retry_after_s = retry_after_s
