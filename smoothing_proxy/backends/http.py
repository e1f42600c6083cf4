"""The client of every vendor that is asked over HTTP: one call is one send, and every failure has its meaning.

aiohttp, since processor time is what bounds a client that asks hundreds of times at once. It never retries and
follows no redirect, so that each call is paid for at most once; proxies are those of the environment (HTTPS_PROXY,
NO_PROXY). Errors never hold a header's value or a picture, and no answer repeats a credential.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, final

import aiohttp
import httpx

from smoothing_proxy.backends.http_failures import request_failure
from smoothing_proxy.backends.http_route import Route, route_to
from smoothing_proxy.backends.secrecy import Veil, credentials_in
from smoothing_proxy.errors import BackendError, BackendTimeoutError, ConfigError, MalformedReplyError
from smoothing_proxy.wire.base import HttpReply

__all__ = ["HttpApi", "http_url", "json_of", "retry_after_s"]

KEEPALIVE_S = 4.0
"""Shorter than servers keep an idle connection: a request sent as one is closed may have been billed."""

LARGEST_REPLY = 16 * 2**20
"""Bytes. Labels of a full batch take a hundredth of it."""

KEPT_REPLY = 64 * 2**10

KEPT_ROUTES = 64

PIECE = 2**20
"""Bytes. aiohttp warns of larger ones, since copying them in one go would hold up the other requests."""


@final
class HttpApi:
    """A pool of connections to one vendor, opened by the first request and used in one event loop.

    name: of the backend, for errors. concurrency: the most requests at once; further ones wait here for their
        turn, for as long as it takes.
    connect_timeout_s: for name, connection, proxy and TLS. read_timeout_s: between two pieces of the answer; a
        whole request takes at most the first and twice the second.
    verify: file of the authorities to trust instead of the usual ones (PEM).
    secrets: that are hidden in every answer, beside those of the usual headers.

    Raises ConfigError when a number is out of its range or the file cannot be used.
    """

    def __init__(
        self,
        name: str,
        *,
        concurrency: int,
        connect_timeout_s: float,
        read_timeout_s: float,
        verify: str = "",
        secrets: Sequence[str] = (),
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"{name}: concurrency is {concurrency}; it must be 1 or more")
        for key, seconds in (("connect_timeout_s", connect_timeout_s), ("read_timeout_s", read_timeout_s)):
            if not 0 < seconds < math.inf:
                raise ConfigError(f"{name}: {key} is {seconds}; expected a number of seconds above 0")
        if verify and not Path(verify).is_file():
            raise ConfigError(f"{name}: verify: {verify}: no such file; expected certificates in PEM")
        self.name = name
        self._concurrency = concurrency
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._verify = verify
        self._secrets = secrets
        self._room = asyncio.Semaphore(concurrency)
        self._routes: dict[str, Route] = {}
        self._session: aiohttp.ClientSession | None = None
        self._authorities: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"HttpApi({self.name!r}, concurrency={self._concurrency})"

    async def send(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes) -> HttpReply:
        """Send once, whatever comes of it. Any status is an answer, also a redirect.

        Raises BackendUnavailableError where the request cannot have arrived, BackendTimeoutError where it may have
        and no complete answer came, MalformedReplyError for what is no HTTP or over 16 MiB, BackendError after
        `aclose`, ConfigError when the URL or a header cannot be sent.
        """
        session, route = self._opened(), self._route(url)
        _check(headers, self.name)
        async with self._room:
            self._check_open()
            outcome = await self._outcome(session, method, route, headers, content)
        if isinstance(outcome, BackendError):
            raise outcome  # here, so that no failed request with its headers hangs on it as its context
        return outcome

    async def aclose(self) -> None:
        """Close the connections; requests under way fail. Calling it twice is fine."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.name} was closed", backend=self.name, attempts=0)

    def _opened(self) -> aiohttp.ClientSession:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._session, self._loop = self._made(), loop
        if self._loop is not loop:
            raise BackendError(
                f"{self.name} was opened in another event loop; make one backend for each",
                backend=self.name,
                attempts=0,
            )
        return self._session

    def _made(self) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency, keepalive_timeout=KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(
                connect=self._connect_timeout_s,  # all of connecting
                sock_connect=self._connect_timeout_s,
                sock_read=self._read_timeout_s,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept-encoding": "identity", "user-agent": "smoothing-proxy"},
            skip_auto_headers=("content-type",),
        )
        # A PUT on a kept connection that breaks would be sent again, though it may have been billed.
        session._retry_connection = False  # noqa: SLF001 (there is no public switch; a test counts the sends)
        return session

    def _trusted(self, route: Route) -> ssl.SSLContext | bool:
        """Whom to trust on the way, which takes long to read; True where nothing there is encrypted."""
        if "https" not in (route.url.scheme, route.proxy and route.proxy.scheme):
            return True
        if self._authorities is None:
            self._authorities = self._read_authorities()
        return self._authorities

    def _read_authorities(self) -> ssl.SSLContext:
        if not self._verify:
            return httpx.create_ssl_context()
        try:
            return ssl.create_default_context(cafile=self._verify)
        except OSError as error:
            raise ConfigError(f"{self.name}: verify: {self._verify}: not certificates in PEM ({error})") from None

    def _route(self, address: str) -> Route:
        """A backend has one address, or a few; what it passes on for others has any number."""
        if address not in self._routes:
            if len(self._routes) >= KEPT_ROUTES:
                self._routes.clear()
            self._routes[address] = route_to(address, self.name)
        return self._routes[address]

    async def _outcome(
        self,
        session: aiohttp.ClientSession,
        method: str,
        route: Route,
        headers: Mapping[str, str],
        content: bytes,
    ) -> HttpReply | BackendError:
        limit_s = self._connect_timeout_s + 2 * self._read_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._answer(session, method, route, headers, content)
        except TimeoutError as error:
            # aiohttp's own timeouts are TimeoutErrors too, and know more.
            if not isinstance(error, aiohttp.ClientError):
                return BackendTimeoutError(
                    f"{self.name}: no complete answer within {limit_s:g} s ({route.host})", backend=self.name
                )
            return request_failure(error, self.name, route.host)
        except BackendError as error:
            return error
        except (aiohttp.ClientError, OSError) as error:
            return request_failure(error, self.name, route.host)

    async def _answer(
        self,
        session: aiohttp.ClientSession,
        method: str,
        route: Route,
        headers: Mapping[str, str],
        content: bytes,
    ) -> HttpReply:
        veil = Veil([*self._secrets, *credentials_in(headers)])
        data: bytes | AsyncIterator[bytes] = content
        if len(content) > PIECE:
            data, headers = _pieces(content), {**headers, "content-length": str(len(content))}
        async with session.request(
            method,
            route.url,
            headers=headers,
            data=data or None,
            allow_redirects=False,
            proxy=route.proxy,
            ssl=self._trusted(route),
        ) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > LARGEST_REPLY:
                    raise MalformedReplyError(
                        f"{self.name}: its answer is larger than {LARGEST_REPLY} bytes",
                        backend=self.name,
                        reply=veil.bytes(bytes(body))[:KEPT_REPLY],
                    )
            received = {key.lower(): veil.text(value) for key, value in response.headers.items()}
            return HttpReply(response.status, received, veil.bytes(bytes(body)))


def _check(headers: Mapping[str, str], backend: str) -> None:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(
                f"{backend}: header {name!r} holds characters that HTTP does not allow; look for a line end or a "
                "quotation mark in the credential"
            )


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]


def http_url(text: str, *, source: str) -> str:
    """`text` without a slash at its end. Raises ConfigError, which begins with `source`, unless it is a http(s)
    address with a host and, maybe, a port and a path; a user, a query or a fragment are refused.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{source}: expected an address such as https://vision.example.com")
    if url.userinfo or url.query or url.fragment:
        raise ConfigError(f"{source}: expected an address without a user, `?` and `#`")
    return text.rstrip("/")


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds from `now` (aware) that a reply asks to wait, >= 0; None where it does not say, or not legibly.

    headers: names in lower case. Retry-After in seconds or as a date (RFC 9110, 10.2.3), before it the finer
    retry-after-ms and x-ms-retry-after-ms of Azure.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _seconds(headers.get(name, ""))
        if milliseconds is not None:
            return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _seconds(text)
    if seconds is not None:
        return seconds
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - now).total_seconds())


def json_of(reply: HttpReply, backend: str) -> object:
    """The body as JSON. Raises MalformedReplyError, which keeps the body; also for NaN and too deep nesting."""
    try:
        parsed: object = json.loads(reply.body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise MalformedReplyError(
            f"{backend}: its answer (HTTP {reply.status}, {len(reply.body)} bytes) is not JSON",
            backend=backend,
            reply=reply.body,
        ) from None
    return parsed


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
