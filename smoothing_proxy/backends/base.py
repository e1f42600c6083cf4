"""What a classifier is to the rest of the house: encoded copies in, replies out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from smoothing_proxy.errors import BackendError
from smoothing_proxy.images.codec import EncodedImage, Encoding
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.base import HttpReply, HttpRequest

__all__ = ["Addressed", "Backend", "Forwarded", "Forwards"]


@runtime_checkable
class Backend(Protocol):
    """A classifier that can only be asked."""

    @property
    def name(self) -> str:
        """As the user would write it: "local:model.tflite", "aws-rekognition"."""
        ...

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """What identifies the classifier for the run's manifest (name, file's sha256, region); no secrets."""
        ...

    @property
    def batch_size(self) -> int:
        """The most copies that one request may carry, >= 1."""
        ...

    @property
    def concurrency(self) -> int:
        """How many requests are best in flight at once, >= 1; of a remote one, the most that it sends at once."""
        ...

    @property
    def remote(self) -> bool:
        """Whether requests leave this machine, so that they can be throttled and lost, and may be sent again."""
        ...

    @property
    def price_usd(self) -> float:
        """Dollars for one copy, >= 0."""
        ...

    @property
    def encoding(self) -> Encoding:
        """How copies are encoded for this classifier unless the user says otherwise."""
        ...

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """One request: an answer or the failure for each copy, in order, `len(copies) <= batch_size`.

        Raises BackendError when the request failed as a whole. An error that stops every picture (the credentials,
        the quota) does so in an answer's place too, beside answers that were paid for.
        """
        ...

    async def aclose(self) -> None:
        """Release connections, threads and memory. Calling it twice is fine."""
        ...


@runtime_checkable
class Addressed(Protocol):
    """A backend whose classifier is elsewhere. A connection to it, over which nothing is sent, costs nothing."""

    @property
    def address(self) -> str:
        """As in "https://vision.example.com:8443/v1"; neither a user nor a query is in it."""
        ...


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the vendor said to a request of its own. error: what that means, where it is one."""

    reply: HttpReply
    error: BackendError | None = None


@runtime_checkable
class Forwards(Protocol):
    """A backend that also carries its vendor's own requests, unchanged but for the credentials."""

    @property
    def vendor(self) -> str:
        """As its wire format is called: "aws"."""
        ...

    async def forward(self, request: HttpRequest) -> Forwarded:
        """Send it once, to this backend's own address and with its own credentials.

        request: an Errand's (wire.errands), with nothing of the client's that is secret. Raises BackendError where
        no answer came, AuthenticationError where the vendor refuses these credentials.
        """
        ...
