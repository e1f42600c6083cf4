"""What every vendor's wire format has in common: requests, replies, limits, and what can be wrong with one."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from smoothing_proxy.images.codec import Format
from smoothing_proxy.types import Reply

__all__ = [
    "ElsewhereFault",
    "Fault",
    "FetchFault",
    "HttpReply",
    "HttpRequest",
    "Limits",
    "NotServedFault",
    "Place",
    "Question",
    "RequestFault",
    "Wire",
]


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
class Place:
    """Where a picture is that was not sent along.

    address: "https://...", or "s3://BUCKET/NAME" and "gs://BUCKET/NAME", whose names stand there as they are.
    version: of an object in S3, "" for the latest. most_bytes: of the largest one that the vendor would fetch.
    """

    address: str
    most_bytes: int
    version: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks, in no vendor's words.

    images: encoded pictures, one or more. max_labels: per picture, None for the vendor's own default.
    min_confidence: in [0, 1], None likewise. labels: a closed set to answer from, () for any label.
    model: the model or version that was named in the request, "" where none was.
    places: by number, where those pictures are that were not sent along, and are b"" among `images`.
    size_px: (height, width) of a single picture that is not here any more, since its answer was known.
    """

    images: tuple[bytes, ...]
    max_labels: int | None = None
    min_confidence: float | None = None
    labels: tuple[str, ...] = ()
    model: str = ""
    places: Mapping[int, Place] = field(default_factory=dict)
    size_px: tuple[int, int] | None = None


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


class NotServedFault(RequestFault):
    """For something else than labels of pictures that are sent along: the vendor itself may well answer it."""


class ElsewhereFault(NotServedFault):
    """For labels, but of a picture that was not sent along. question: what is asked once it has been fetched."""

    def __init__(self, message: str, question: Question) -> None:
        RequestFault.__init__(self, Fault.BAD_REQUEST, message)
        self.question = question


class FetchFault(RequestFault):
    """A picture that was not sent along could not be had, and nothing was asked about it."""

    def __init__(self, message: str, fault: Fault = Fault.BAD_REQUEST) -> None:
        super().__init__(fault, message)

    @property
    def unreachable(self) -> bool:
        """Whether nothing came from its address, for which some vendors have a word of its own."""
        return self.fault is Fault.BAD_REQUEST


class Wire(Protocol):
    """A vendor's format as a server speaks it. One without state; every method is pure.

    The other direction, what a client of the vendor needs, are functions of the vendor's own module.
    """

    @property
    def name(self) -> str:
        """The vendor: "aws", "google", "azure", "clarifai", "openai"."""
        ...

    @property
    def limits(self) -> Limits:
        """What the vendor takes."""
        ...

    def serves(self, request: HttpRequest) -> bool:
        """Whether this request is in this vendor's format, whatever it asks for: by path and headers alone."""
        ...

    def key(self, request: HttpRequest) -> str:
        """The id of the key that was presented; where keys have no id, the secret itself.

        Raises RequestFault (UNAUTHENTICATED) where there is none, or it is not in the vendor's form.
        """
        ...

    def verify(self, request: HttpRequest, secret: str, now: datetime) -> None:
        """Check the request against the key's secret, in constant time. now: aware, for signatures that expire.

        Raises RequestFault (UNAUTHENTICATED).
        """
        ...

    def read(self, request: HttpRequest) -> Question:
        """What is asked. Raises RequestFault for anything else than asking for labels of pictures sent along."""
        ...

    def write(
        self, request: HttpRequest, question: Question, answers: Sequence[Reply | RequestFault], request_id: str
    ) -> HttpReply:
        """The answers to the question's images, in order, as the vendor would write them.

        Labels are cut and ordered as the question and the vendor want it. An image's own fault stands in its place
        where the format has such a place, otherwise the reply is the fault.
        """
        ...

    def refuse(self, request: HttpRequest, fault: RequestFault, request_id: str) -> HttpReply:
        """The vendor's own status, headers and error body."""
        ...
