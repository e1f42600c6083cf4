"""Every error that this package raises on purpose, split by whose fault it is.

SmoothingProxyError
├─ ConfigError                 yours: file, key, what was expected
│  └─ MissingCredentialError   names the variable, never its value
├─ ImageError                  yours: cannot decode, too large, wrong shape
├─ DenoiserError               the denoiser cannot be used as asked
│  └─ WeightsMismatchError     the weights are not what their card says
├─ BackendError                theirs: .backend .attempts .retryable
│  ├─ BackendTimeoutError      may have been billed
│  ├─ BackendUnavailableError  retryable
│  ├─ BackendDownError         it stayed unavailable: stops the run, to be resumed
│  ├─ RateLimitedError         .retry_after
│  ├─ QuotaExceededError       the account's quota is used up: stops the run, to be resumed
│  ├─ AuthenticationError      final, stops the run
│  ├─ RequestRejectedError     final: too large, bad picture, content policy
│  ├─ MalformedReplyError      final, billed: the reply is kept in the ledger
│  └─ ModelChangedError        final: the certificate under way is void
├─ BudgetExceededError         .spent .limit
└─ LedgerError                 the run's memory cannot be read or written
   ├─ SchemaError              written by a newer version
   └─ RunMismatchError         the manifest differs: refuse to resume

Abstaining is a value, never an error. A BackendError of one draw that outlived its retries becomes one failed
draw; AuthenticationError, QuotaExceededError, BackendDownError, BudgetExceededError, ConfigError and LedgerError
stop the run, since they say nothing about the picture.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AuthenticationError",
    "BackendDownError",
    "BackendError",
    "BackendTimeoutError",
    "BackendUnavailableError",
    "BudgetExceededError",
    "ConfigError",
    "DenoiserError",
    "ImageError",
    "LedgerError",
    "MalformedReplyError",
    "MissingCredentialError",
    "ModelChangedError",
    "QuotaExceededError",
    "RateLimitedError",
    "RequestRejectedError",
    "RunMismatchError",
    "SchemaError",
    "SmoothingProxyError",
    "WeightsMismatchError",
    "nearest",
]


class SmoothingProxyError(Exception):
    """The root: `except SmoothingProxyError` catches all that this package raises on purpose."""


class ConfigError(SmoothingProxyError):
    """A setting is missing, unknown, of the wrong type or out of its range."""


class MissingCredentialError(ConfigError):
    """A credential is not set. The message names where it was looked for, never its value."""


class ImageError(SmoothingProxyError):
    """A picture cannot be decoded, is larger than the limits allow, or has the wrong shape."""


class DenoiserError(SmoothingProxyError):
    """A denoiser is unknown, refuses the noise level, or is in a state that would break the proof."""


class WeightsMismatchError(DenoiserError):
    """A weights file differs from its card: sha256, architecture or sigma range."""


class BackendError(SmoothingProxyError):
    """The classifier did not answer one request.

    backend: the backend's name. attempts: how often the request was sent. retryable: whether the same request
    may be sent again. maybe_billed: whether the vendor may have charged for it all the same.
    """

    retryable = False
    maybe_billed = False

    def __init__(self, message: str, *, backend: str = "", attempts: int = 1) -> None:
        super().__init__(message)
        self.backend = backend
        self.attempts = attempts


class BackendTimeoutError(BackendError):
    """No answer in time, or the connection broke after the request was sent: it may have been billed."""

    retryable = True
    maybe_billed = True


class BackendUnavailableError(BackendError):
    """The classifier cannot be reached or says that it is down.

    maybe_billed: True where it failed after it had taken the request (an internal error, a bad gateway).
    retry_after: seconds that it asked to wait, where it did.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        backend: str = "",
        attempts: int = 1,
        retry_after: float | None = None,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(message, backend=backend, attempts=attempts)
        self.retry_after = retry_after
        self.maybe_billed = maybe_billed


class BackendDownError(BackendError):
    """The classifier stayed unavailable for longer than the run wants to wait. It stops the run; resume later."""


class RateLimitedError(BackendError):
    """The classifier asks for fewer requests. retry_after: seconds that it asked to wait, where it did."""

    retryable = True

    def __init__(
        self, message: str, *, backend: str = "", attempts: int = 1, retry_after: float | None = None
    ) -> None:
        super().__init__(message, backend=backend, attempts=attempts)
        self.retry_after = retry_after


class QuotaExceededError(BackendError):
    """The account's quota for the day or month is used up. It stops the run; resume when there is quota again."""


class AuthenticationError(BackendError):
    """The classifier refuses the credentials. Final, and it stops the run."""


class RequestRejectedError(BackendError):
    """The classifier refuses this picture: too large, unreadable, against its content policy. Final."""


class MalformedReplyError(BackendError):
    """The classifier answered something that its wire format does not allow. reply: what it sent."""

    maybe_billed = True

    def __init__(self, message: str, *, backend: str = "", attempts: int = 1, reply: bytes = b"") -> None:
        super().__init__(message, backend=backend, attempts=attempts)
        self.reply = reply


class ModelChangedError(BackendError):
    """The classifier's model version changed between the draws of one certificate."""


class BudgetExceededError(SmoothingProxyError):
    """The next request would cost more than is left. spent and limit are in the budget's own unit."""

    def __init__(self, message: str, *, spent: float, limit: float) -> None:
        super().__init__(message)
        self.spent = spent
        self.limit = limit


class LedgerError(SmoothingProxyError):
    """The ledger cannot be opened, read or written (a full disk, a locked or damaged file)."""


class SchemaError(LedgerError):
    """The ledger was written by a newer version of this package."""


class RunMismatchError(LedgerError):
    """The run folder was made with other settings, so that its draws answer another question."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word nearest to `word`, or what is known where none is near."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(choices)}" if choices else ""
