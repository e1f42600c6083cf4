"""What an HTTP status means to whoever pays for the request, for vendors whose errors say no more than that."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, get_args

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)

__all__ = ["FAILURES", "Failure", "failure_error", "failure_of", "harmless"]

Failure: TypeAlias = Literal["rejected", "auth", "quota", "throttled", "unavailable", "failed", "timeout"]
"""rejected: this picture, for good. auth, quota: stop the run. throttled: fewer requests. unavailable: nothing was
taken. failed, timeout: it was taken and then went wrong, so it may have been billed."""

FAILURES: tuple[str, ...] = get_args(Failure)

_BY_STATUS: dict[int, Failure] = {
    401: "auth",
    402: "quota",
    403: "auth",
    404: "auth",  # no such address or model, or none for this key: no other picture would fare better
    405: "auth",
    408: "timeout",
    409: "unavailable",
    425: "unavailable",
    429: "throttled",
    503: "unavailable",
    504: "timeout",
    529: "unavailable",
}

_LONGEST_MESSAGE = 300


def failure_of(status: int) -> Failure:
    """The meaning of a status that is not 2xx: by its own line, else by its hundred."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 300 <= status < 400:
        return "auth"  # a redirect: the address is wrong for every picture
    return "rejected" if 400 <= status < 500 else "failed"


def failure_error(
    failure: Failure, message: str, *, backend: str, retry_after: float | None = None
) -> BackendError:
    """The failure as the error that the floors above act on. message: begins with the backend's name."""
    if failure == "throttled":
        return RateLimitedError(message, backend=backend, retry_after=retry_after)
    if failure in ("unavailable", "failed"):
        return BackendUnavailableError(
            message, backend=backend, retry_after=retry_after, maybe_billed=failure == "failed"
        )
    kinds: dict[Failure, type[BackendError]] = {
        "rejected": RequestRejectedError,
        "auth": AuthenticationError,
        "quota": QuotaExceededError,
        "timeout": BackendTimeoutError,
    }
    return kinds[failure](message, backend=backend)


def harmless(text: object) -> str:
    """A vendor's words for a message: "" unless text; one line, cut, without long runs of key or picture."""
    if not isinstance(text, str):
        return ""
    line = " ".join(re.sub(r"[A-Za-z0-9+/=_.*-]{32,}", "...", text).split())
    printable = "".join(letter for letter in line if letter.isprintable())
    return printable if len(printable) <= _LONGEST_MESSAGE else printable[:_LONGEST_MESSAGE] + "..."
