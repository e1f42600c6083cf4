"""Pictures from addresses: fetched from listed hosts only, over connections that were checked, bounded in all."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from urllib.parse import urljoin

import httpcore
import httpx

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.gateway.fetch_addresses import (
    CheckedConnections,
    ForbiddenAddressError,
    MachineNames,
    Resolve,
)
from smoothing_proxy.gateway.references_settings import ReferencesTable
from smoothing_proxy.wire.base import Fault, FetchFault, Place

__all__ = ["HttpPictures", "too_large"]

ADDRESS_CHARACTERS = 8_192

USUAL_PORTS = {"https": 443, "http": 80}

_HEADERS = (
    (b"Accept", b"image/*, */*;q=0.1"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"smoothing-proxy"),
    (b"Connection", b"close"),
)
_REDIRECTS = (301, 302, 303, 307, 308)
_UNREACHABLE = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    ForbiddenAddressError,
    OSError,  # of looking up names and of TLS
    ValueError,  # of names and headers that are none
)

_logger = logging.getLogger(__name__)


def too_large(most_bytes: int) -> FetchFault:
    """Of a picture that goes on beyond the limit."""
    return FetchFault(f"the picture is larger than the {most_bytes} bytes allowed", Fault.IMAGE_TOO_LARGE)


class HttpPictures:
    """Fetches what `table` lists. resolve: None as the machine does. Raises ConfigError for an unusable ca_file.

    Neither proxies nor authorities of the environment are used, no cookie is kept, no credential is sent, and no
    connection serves twice.
    """

    def __init__(self, table: ReferencesTable, resolve: Resolve | None = None) -> None:
        self._table = table
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_authorities(table.ca_file),
            max_keepalive_connections=0,
            network_backend=CheckedConnections(
                resolve or MachineNames(table.at_once), allow_private=table.allow_private
            ),
        )

    def allows(self, place: Place) -> bool:
        """Whether it is an address from which pictures are fetched."""
        return self._listed(place.address) is not None

    async def fetch(self, place: Place, most_bytes: int) -> bytes:
        """The picture. Raises FetchFault, which tells nothing of where the name leads."""
        address = place.address
        for _ in range(self._table.redirects + 1):
            url = self._listed(address)
            if url is None:
                raise FetchFault("the picture's address leads to one from which no picture is fetched here")
            found = await self._asked(url, most_bytes)
            if isinstance(found, bytes):
                return found
            address = found
        raise FetchFault(f"the picture's address redirects more than {self._table.redirects} times")

    async def _asked(self, url: httpx.URL, most_bytes: int) -> bytes | str:
        """The picture, or the address that it is redirected to."""
        try:
            return await self._answer(url, most_bytes)
        except _UNREACHABLE as error:
            _logger.warning("no picture from %s: %s", url.host, type(error).__name__)
        raise FetchFault("the picture could not be fetched: its address cannot be reached from here")

    async def _answer(self, url: httpx.URL, most_bytes: int) -> bytes | str:
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers = [(b"Host", url.netloc), *_HEADERS]
        step_s = dict.fromkeys(("connect", "read", "write", "pool"), self._table.timeout_s)
        async with self._pool.stream("GET", target, headers=headers, extensions={"timeout": step_s}) as answer:
            told = {name.lower(): value for name, value in answer.headers}
            if answer.status in _REDIRECTS and b"location" in told:
                return urljoin(str(url), told[b"location"].decode("latin-1"))
            if answer.status != 200:
                raise FetchFault(f"the picture could not be fetched: its address answers {answer.status}")
            if told.get(b"content-encoding", b"identity").lower() != b"identity":
                raise FetchFault("the picture could not be fetched: its address answers in another encoding")
            return await _body(answer, _size(told), most_bytes)

    def _listed(self, address: str) -> httpx.URL | None:
        """The address, parsed by what connects to it, where it is one that is listed."""
        if not 0 < len(address) <= ADDRESS_CHARACTERS or not address.isprintable() or " " in address:
            return None
        try:
            url = httpx.URL(address)
            host = url.raw_host.decode("ascii")
        except (httpx.InvalidURL, UnicodeError):
            return None
        usual = USUAL_PORTS.get(url.scheme)
        if url.scheme not in self._table.schemes or url.userinfo:
            return None
        port_is_listed = url.port is None or url.port == usual or url.port in self._table.ports
        return url if port_is_listed and self._table.lists_host(host) else None


async def _body(answer: httpcore.Response, size: int, most_bytes: int) -> bytes:
    if size > most_bytes:
        raise too_large(most_bytes)
    body = bytearray()
    async for part in answer.aiter_stream():
        body += part
        if len(body) > most_bytes:
            raise too_large(most_bytes)
    return bytes(body)


def _size(told: dict[bytes, bytes]) -> int:
    """What the answer says of its length; 0 where it says nothing."""
    size = told.get(b"content-length", b"")
    return int(size) if size.isdigit() else 0


def _authorities(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise ConfigError(f"references.ca_file: {ca_file}: no certificates in PEM: {error}") from error
