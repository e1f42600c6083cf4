"""What a failed HTTP request means to a payer: whether it can have arrived, and what to check."""

from __future__ import annotations

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError

from smoothing_proxy.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    MalformedReplyError,
)

__all__ = ["request_failure"]

_UNTRUSTED = "its certificate is not trusted here; check the address, or name its authority's file in `verify`"
_PROXY = "the proxy did not connect; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
_UNKNOWN_HOST = "the host's name is not known; check the address"
_NO_CONNECTION = "no connection; check the address"
_CONNECT_TIMEOUT = "no connection within the connect timeout"
_READ_TIMEOUT = "no answer within the read timeout"
_NOT_HTTP = "its answer is not HTTP; check the address and the port"

_MEANINGS: tuple[tuple[type[Exception], type[BackendError], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, BackendUnavailableError, _UNTRUSTED),
    (aiohttp.ClientSSLError, BackendUnavailableError, "no secure connection; check the address and the port"),
    (aiohttp.ClientProxyConnectionError, BackendUnavailableError, _PROXY),
    (aiohttp.ClientHttpProxyError, BackendUnavailableError, _PROXY),
    (aiohttp.ClientConnectorDNSError, BackendUnavailableError, _UNKNOWN_HOST),
    (aiohttp.ClientConnectorError, BackendUnavailableError, _NO_CONNECTION),
    (aiohttp.ConnectionTimeoutError, BackendUnavailableError, _CONNECT_TIMEOUT),
    (aiohttp.SocketTimeoutError, BackendTimeoutError, _READ_TIMEOUT),
    (aiohttp.ClientResponseError, MalformedReplyError, _NOT_HTTP),
    (ContentEncodingError, MalformedReplyError, _NOT_HTTP),
)
"""The first that fits. Whatever is not here broke a connection that stood, so the request may have arrived."""


def request_failure(error: Exception, backend: str, host: str) -> BackendError:
    """The error that floors above act on, for one of aiohttp's or the system's, without the request.

    host: that was asked, with its port.
    """
    cause = error.__cause__ if isinstance(error.__cause__, ContentEncodingError) else error
    for kind, failure, message in _MEANINGS:
        if isinstance(cause, kind):
            return failure(f"{backend}: {message} ({host})", backend=backend)
    return BackendTimeoutError(
        f"{backend}: the connection broke before the answer was complete ({host})", backend=backend
    )
