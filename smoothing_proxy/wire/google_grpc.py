"""Google's statuses, both ways: a fault as code, message and details, and these as the error that they mean.

Codes, HTTP statuses and details are those of google/rpc/code.proto and google/rpc/error_details.proto, as the
package googleapis-common-protos ships them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["DETAILS_KEY", "Code", "code_of", "details_in", "error_of", "status_of", "trailing_metadata"]

DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which gRPC carries a serialised google.rpc.Status."""

MESSAGE_CHARACTERS = 300
"""Of a vendor's message, as much as is repeated."""


class Code(enum.IntEnum):
    """google.rpc.Code, whose numbers are gRPC's own."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_CODES = {
    Fault.BAD_REQUEST: Code.INVALID_ARGUMENT,
    Fault.BAD_IMAGE: Code.INVALID_ARGUMENT,
    Fault.IMAGE_TOO_LARGE: Code.INVALID_ARGUMENT,
    Fault.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    Fault.FORBIDDEN: Code.PERMISSION_DENIED,
    Fault.UNKNOWN_OPERATION: Code.UNIMPLEMENTED,
    Fault.THROTTLED: Code.RESOURCE_EXHAUSTED,
    # What no later attempt can pay for must not look like what Google's clients try again.
    Fault.QUOTA: Code.PERMISSION_DENIED,
    Fault.INTERNAL: Code.INTERNAL,
    Fault.UNAVAILABLE: Code.UNAVAILABLE,
    Fault.TIMEOUT: Code.DEADLINE_EXCEEDED,
}

# google/api/error_reason.proto
_REASONS = {Fault.THROTTLED: "RATE_LIMIT_EXCEEDED", Fault.QUOTA: "RESOURCE_QUOTA_EXCEEDED"}


def code_of(fault: RequestFault) -> Code:
    """The code that Google answers with for such a fault."""
    return _CODES[fault.fault]


def status_of(fault: RequestFault) -> Any:
    """The fault as a google.rpc.Status message: ErrorInfo for limits, RetryInfo where a delay was asked for."""
    from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]

    status = status_pb2.Status(code=code_of(fault), message=fault.message)
    if reason := _REASONS.get(fault.fault):
        info = error_details_pb2.ErrorInfo(reason=reason, domain="googleapis.com")
        status.details.add().Pack(info)
    if fault.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(fault.retry_after_s * 1e9))
        status.details.add().Pack(retry)
    return status


def trailing_metadata(fault: RequestFault) -> tuple[tuple[str, bytes], ...]:
    """What a gRPC server sends after the fault's code and message."""
    return ((DETAILS_KEY, status_of(fault).SerializeToString()),)


def details_in(metadata: Sequence[tuple[str, str | bytes]]) -> tuple[Any, ...] | None:
    """The details (google.protobuf.Any) in a gRPC call's trailing metadata; None where the peer sent no status.

    A status that cannot be read counts as sent, without details.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
    from google.rpc import status_pb2

    raw = next((value for key, value in metadata if key == DETAILS_KEY), None)
    if not isinstance(raw, bytes):
        return None
    try:
        return tuple(status_pb2.Status.FromString(raw).details)
    except DecodeError:
        return ()


def error_of(
    code: int, message: str, details: Sequence[Any] = (), *, answered: bool = True, backend: str = "google-vision"
) -> BackendError:
    """What a status means to a client that pays.

    details: google.protobuf.Any messages. answered: False where the status may be the gRPC library's own, which
    uses the same codes as Google; then UNAVAILABLE may be a connection that broke after the request had left, and
    is not billed only where its words say that nothing was sent.
    """
    told = _told(message, details)
    text = f"{backend}: {_name(code)}: {told.message}"
    error = _limit(code, told, text, backend) or _refusal(code, told, text, backend)
    if error is None and code == Code.UNAVAILABLE:
        error = _unavailable(told, text, answered, backend)
    return error or _failure(code, told, text, backend)


@dataclass(frozen=True, slots=True)
class _Told:
    """A status, read. message: as it may be shown. reason: of its ErrorInfo. everything: all its words."""

    message: str
    reason: str
    everything: str
    retry_after: float | None


_LONG_LIMIT = re.compile(r"per[\s_-]*(day|month)|\b1/(d|mo)\b|\bdaily\b|\bmonthly\b", re.IGNORECASE)
_TOO_LARGE = re.compile(r"message larger than max", re.IGNORECASE)
_BAD_KEY = re.compile(r"API key (not valid|not found|expired)", re.IGNORECASE)
_BAD_TOKEN = re.compile(
    r"invalid_grant|invalid_client|unauthorized_client|invalid_scope|account_disabled|reauth", re.IGNORECASE
)
_NO_TOKEN = re.compile(r"metadata from plugin failed", re.IGNORECASE)
_NEVER_SENT = re.compile(
    r"failed to connect|name resolution|DNS resolution|empty address list|metadata from plugin failed",
    re.IGNORECASE,
)
_BROKEN = re.compile(
    r"socket closed|stream removed|reset|broken pipe|goaway|cancelling all|keepalive|transport closed",
    re.IGNORECASE,
)

_KEY = re.compile(r"(api_key:|[?&]key=)[^\s'\"&]+|\bAIza[\w-]{10,}")

_ADVICE = {
    "SERVICE_DISABLED": "enable the Cloud Vision API for the project",
    "BILLING_DISABLED": "turn billing on for the project",
    "API_KEY_INVALID": "check the API key",
    "API_KEY_SERVICE_BLOCKED": "allow the API key to call the Cloud Vision API",
    "API_KEY_IP_ADDRESS_BLOCKED": "allow the API key to be used from this address",
    "CONSUMER_SUSPENDED": "the project is suspended",
    "IAM_PERMISSION_DENIED": "give the account the right to use the project's services",
    "ACCESS_TOKEN_EXPIRED": "sign in again",
}
_ANY_ADVICE = "check the credentials, that the project's Cloud Vision API is enabled, and that its billing is on"


def _limit(code: int, told: _Told, text: str, backend: str) -> BackendError | None:
    if code != Code.RESOURCE_EXHAUSTED and told.reason not in _REASONS.values():
        return None
    if _TOO_LARGE.search(told.message):
        return RequestRejectedError(f"{text}; send fewer or smaller pictures in one request", backend=backend)
    if told.reason == _REASONS[Fault.QUOTA] or _LONG_LIMIT.search(told.everything):
        return QuotaExceededError(f"{text}; wait, or ask Google for a larger quota", backend=backend)
    return RateLimitedError(text, backend=backend, retry_after=told.retry_after)


def _refusal(code: int, told: _Told, text: str, backend: str) -> BackendError | None:
    no_key = told.reason == "API_KEY_INVALID" or (code == Code.INVALID_ARGUMENT and _BAD_KEY.search(told.message))
    no_token = _NO_TOKEN.search(told.message) and _BAD_TOKEN.search(told.message)
    if no_key or no_token or code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED):
        return AuthenticationError(f"{text}; {_ADVICE.get(told.reason, _ANY_ADVICE)}", backend=backend)
    if code in (Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE, Code.FAILED_PRECONDITION):
        return RequestRejectedError(text, backend=backend)
    if code in (Code.UNIMPLEMENTED, Code.NOT_FOUND):
        # No other picture would fare better, so it stops the run.
        return AuthenticationError(f"{text}; nothing here labels pictures: check `endpoint`", backend=backend)
    return None


def _unavailable(told: _Told, text: str, answered: bool, backend: str) -> BackendError:  # noqa: FBT001
    if answered or _NEVER_SENT.search(told.message):
        return BackendUnavailableError(text, backend=backend, retry_after=told.retry_after)
    if _BROKEN.search(told.message):
        return BackendTimeoutError(f"{text} (it may have been billed)", backend=backend)
    return BackendUnavailableError(
        f"{text} (it may have been billed)", backend=backend, retry_after=told.retry_after, maybe_billed=True
    )


def _failure(code: int, told: _Told, text: str, backend: str) -> BackendError:
    """Google took the request and then failed over it."""
    text = f"{text} (it may have been billed)"
    if code in (Code.DEADLINE_EXCEEDED, Code.CANCELLED):
        return BackendTimeoutError(text, backend=backend)
    return BackendUnavailableError(text, backend=backend, retry_after=told.retry_after, maybe_billed=True)


def _told(message: str, details: Sequence[Any]) -> _Told:
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2

    reason, retry_after, words = "", None, [message]
    for detail in details:
        try:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason = info.reason
                words += info.metadata.values()
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo.FromString(detail.value)
                retry_after = max(0.0, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
            elif detail.Is(error_details_pb2.QuotaFailure.DESCRIPTOR):
                words.append(str(error_details_pb2.QuotaFailure.FromString(detail.value)))
        except DecodeError:
            continue
    return _Told(_clean(message), reason, " ".join(words), retry_after)


def _clean(message: str) -> str:
    """Google's messages may name the API key that was used."""
    return _KEY.sub("(key)", message)[:MESSAGE_CHARACTERS]


def _name(code: int) -> str:
    return Code(code).name if code in Code.__members__.values() else f"code {code}"
