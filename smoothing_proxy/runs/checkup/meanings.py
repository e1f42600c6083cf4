"""What each error says to whoever set the configuration up: whose fault it is, and what to do now."""

from __future__ import annotations

import re
from dataclasses import dataclass

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    DenoiserError,
    MalformedReplyError,
    MissingCredentialError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
    SmoothingProxyError,
    WeightsMismatchError,
)
from smoothing_proxy.runs.checkup.finding import Finding

__all__ = ["failed"]


@dataclass(frozen=True, slots=True)
class _Meaning:
    """kind and words (a pattern in the message) of the errors that it explains."""

    kind: type[SmoothingProxyError]
    mend: str
    words: str = ""
    theirs: bool = False


_TLS = r"certificate|\bSSL|\bTLS|secure connection|handshake|WRONG_VERSION"
_PROXY = r"\bproxy\b"
_NETWORK = (
    r"not known|resol|[Cc]ould not connect|no connection|failed to connect|connect timeout|check the network"
)
_ELSEWHERE = r"HTTP (3\d\d|404|405)|\((3\d\d|404|405)\)|NOT_FOUND|DOES_NOT_EXIST|UNIMPLEMENTED|code 21200"
_DISABLED = r"SERVICE_DISABLED|BILLING|has not been used|is disabled|OptInRequired"
_FORBIDDEN = r"AccessDenied|NotAuthorized|PERMISSION_DENIED|INSUFFICIENT_SCOPES|insufficient_permissions|HTTP 403"
_EXPIRED = r"ExpiredToken|RequestExpired|\bhas expired|key expired|Signature expired"

_MEANINGS = (
    _Meaning(MissingCredentialError, "set the credential in one of these places; it is never read from the file"),
    _Meaning(
        AuthenticationError,
        "no such address or model, or none for this credential: check the address, the model's name or ids, "
        "and its version",
        _ELSEWHERE,
    ),
    _Meaning(AuthenticationError, "turn the service and its billing on for this account or project", _DISABLED),
    _Meaning(
        AuthenticationError, "renew the credential (sign in again), and check this machine's clock", _EXPIRED
    ),
    _Meaning(
        AuthenticationError,
        "the credential is known but not allowed: give it the permission to classify pictures",
        _FORBIDDEN,
    ),
    _Meaning(AuthenticationError, "the credential is refused: check it for a typing error, or make a new one"),
    _Meaning(QuotaExceededError, "the account's quota is used up: raise it, or wait until it is renewed"),
    _Meaning(
        RateLimitedError,
        "the credential works, but one query was too many: wait, find out who else uses the account, or ask "
        "the vendor for a higher rate",
        theirs=True,
    ),
    _Meaning(
        RequestRejectedError,
        "change what it refuses: [encoding], working_size, or the backend's option that it names",
    ),
    _Meaning(
        MalformedReplyError,
        "the reply has another shape: check labels_path, scores_path and label_path",
        "json-api:",
    ),
    _Meaning(
        MalformedReplyError,
        "what answers there does not speak the vendor's format: check the address, or try again later",
        theirs=True,
    ),
    _Meaning(
        BackendUnavailableError,
        "let `verify` name a file with the server's authority; check that the address should be https, its port, "
        "and this machine's clock",
        _TLS,
    ),
    _Meaning(BackendUnavailableError, "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment", _PROXY),
    _Meaning(
        BackendUnavailableError,
        "nothing answers there: check this machine's network, the region, and the address with its port",
        _NETWORK,
    ),
    _Meaning(BackendUnavailableError, "the service is down or overloaded: try again later", theirs=True),
    _Meaning(
        BackendTimeoutError,
        "it may have been billed; try again later, and raise read_timeout_s where it is always so slow",
        theirs=True,
    ),
    _Meaning(BackendError, "look at the classifier's own error", theirs=True),
    _Meaning(WeightsMismatchError, "fetch the weights and their card again, from one place"),
    _Meaning(DenoiserError, "choose a denoiser that was made for this sigma and size, or change [smoothing]"),
)
"""The first that fits. Other errors (ConfigError) say themselves what was expected."""


def failed(check: str, error: SmoothingProxyError, *, where: str = "") -> Finding:
    """The finding that an error is. where: the credential was found, named where a credential is refused."""
    text = str(error)
    meaning = next((m for m in _MEANINGS if isinstance(error, m.kind) and re.search(m.words, text)), None)
    mend = meaning.mend if meaning else ""
    if where and isinstance(error, AuthenticationError):
        mend += f" (it was taken from {where})"
    if isinstance(error, BackendError) and error.maybe_billed and "billed" not in text + mend:
        mend += "; this query may have been billed"
    figures = {"error": type(error).__name__}
    return Finding(check, "fail", text, mend, theirs=bool(meaning and meaning.theirs), figures=figures)
