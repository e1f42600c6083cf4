"""What a failed HTTP request means to a payer: whether it can have arrived, and what to check."""

from __future__ import annotations

import aiohttp
import httpx

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
    # httpx's own, of other transports
    (httpx.ConnectError, BackendUnavailableError, _NO_CONNECTION),
    (httpx.ConnectTimeout, BackendUnavailableError, _CONNECT_TIMEOUT),
    (httpx.PoolTimeout, BackendUnavailableError, "no free connection in time"),
    (httpx.ProxyError, BackendUnavailableError, _PROXY),
    (httpx.ReadTimeout, BackendTimeoutError, _READ_TIMEOUT),
    (httpx.WriteTimeout, BackendTimeoutError, "the request could not be sent in time"),
    (httpx.DecodingError, MalformedReplyError, _NOT_HTTP),
)
"""The first that fits. Whatever is not here broke a connection that stood, so the request may have arrived."""


def request_failure(error: Exception, backend: str) -> BackendError:
    """The error that floors above act on, for one of httpx or aiohttp. It holds nothing of the request."""
    # httpx_aiohttp's names mix up what was sent and what was not: a server that hangs up becomes a ConnectTimeout.
    # The cause is aiohttp's own.
    cause = error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError) else error
    for kind, failure, message in _MEANINGS:
        if isinstance(cause, kind):
            return failure(f"{backend}: {message}", backend=backend)
    return BackendTimeoutError(f"{backend}: the connection broke before the answer was complete", backend=backend)
