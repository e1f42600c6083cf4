"""What Rekognition's error codes mean to whoever pays: the code decides, a status only where the code is unknown.

Codes: the API's reference of DetectLabels, botocore's list of throttling codes, and
docs.aws.amazon.com/awsconsolehelpdocs/latest/gsg/common-errors.html. Read 2026-11-21.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from smoothing_proxy.errors import BackendError
from smoothing_proxy.wire.base import HttpReply
from smoothing_proxy.wire.statuses import Failure, failure_error, failure_of, harmless

__all__ = ["error_of", "reply_error", "retry_after_of"]

_CODES: Mapping[str, Failure] = {
    "BandwidthLimitExceeded": "throttled",
    "ProvisionedThroughputExceededException": "throttled",
    "RequestLimitExceeded": "throttled",
    "RequestThrottled": "throttled",
    "RequestThrottledException": "throttled",
    "SlowDown": "throttled",
    "ThrottledException": "throttled",
    "Throttling": "throttled",
    "ThrottlingException": "throttled",
    "TooManyRequestsException": "throttled",
    "InternalFailure": "failed",
    "InternalServerError": "failed",
    "InternalServerException": "failed",
    "ServiceUnavailable": "unavailable",
    "ServiceUnavailableException": "unavailable",
    "RequestTimeout": "timeout",
    "RequestTimeoutException": "timeout",
    "AccessDenied": "auth",
    "AccessDeniedException": "auth",
    "ExpiredToken": "auth",
    "ExpiredTokenException": "auth",
    "IncompleteSignature": "auth",
    "IncompleteSignatureException": "auth",
    "InvalidClientTokenId": "auth",
    "InvalidSignatureException": "auth",
    "MissingAuthenticationToken": "auth",
    "MissingAuthenticationTokenException": "auth",
    "NotAuthorized": "auth",
    "OptInRequired": "auth",
    "RequestExpired": "auth",
    "SignatureDoesNotMatch": "auth",
    "UnrecognizedClientException": "auth",
    "ImageTooLargeException": "rejected",
    "InvalidImageFormatException": "rejected",
    "InvalidParameterException": "rejected",
    "InvalidS3ObjectException": "rejected",
    "RequestEntityTooLargeException": "rejected",
    "SerializationException": "rejected",
    "ValidationError": "rejected",
    "ValidationException": "rejected",
    "LimitExceeded": "quota",
    "LimitExceededException": "quota",
    "ServiceQuotaExceededException": "quota",
}

_ADVICE: Mapping[Failure, str] = {
    "throttled": "lower the rate or the concurrency, or ask AWS for more transactions per second",
    "failed": "it may have been billed; try again later",
    "unavailable": "try again later",
    "timeout": "it may have been billed; try again later",
    "auth": "check the key, its permission rekognition:DetectLabels, its expiry, and this machine's clock",
    "rejected": "a picture has to be PNG or JPEG, 80 to 10000 px a side, at most 5242880 bytes",
    "quota": "raise the account's quota or wait for it to be renewed, then resume",
}
_ELSEWHERE = "check the region and the endpoint: what answers there is not Rekognition"


def error_of(code: str, message: str, status: int, retry_after: float | None, backend: str) -> BackendError:
    """The error that an error reply stands for.

    code: its `__type`, in any of AWS's spellings ("com.amazonaws.rekognition#X", "X:http://..."). retry_after: in
    seconds, where it was stated. Of the message only the first line is kept: the others of a signature's error
    repeat the request's headers.
    """
    bare = code.split(":", 1)[0].rsplit("#", 1)[-1]
    failure = _CODES.get(bare)
    advice = _ADVICE[failure or failure_of(status)]
    if failure is None and (300 <= status < 400 or status in (404, 405)):
        advice = _ELSEWHERE
    said = harmless((message.strip().splitlines() or [""])[0]) or "no message"
    text = f"AWS Rekognition DetectLabels: {bare[:80]!s} ({status}): {said}; {advice}"
    return failure_error(failure or failure_of(status), text, backend=backend, retry_after=retry_after)


def reply_error(reply: HttpReply, *, backend: str) -> BackendError:
    """The error that a reply without labels stands for: by `__type`, else by its status."""
    try:
        parsed = json.loads(reply.body)
    except (ValueError, RecursionError):
        parsed = None
    body = parsed if isinstance(parsed, dict) else {}
    code, message = body.get("__type"), body.get("message") or body.get("Message")
    return error_of(
        code if isinstance(code, str) and code else str(reply.status),
        message if isinstance(message, str) else "",
        reply.status,
        retry_after_of(reply.headers),
        backend,
    )


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait: x-amz-retry-after (milliseconds), else Retry-After in seconds.

    headers: names in lower case. None where neither is there or a number >= 0; dates are not read.
    """
    for name, unit in (("x-amz-retry-after", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None
