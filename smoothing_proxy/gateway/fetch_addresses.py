"""Connections to the very addresses that were checked: a name is looked up once, here, and nowhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

import httpcore

__all__ = ["CheckedConnections", "ForbiddenAddressError", "MachineNames", "Resolve", "is_public"]

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> numeric addresses in the order of preference. Raises OSError."""

_NAT64 = IPv6Network("64:ff9b::/96")
_BESIDES = tuple(
    map(
        ip_network,
        (
            "168.63.129.16/32",  # public in form, but Azure's own service for the machine that asks
            "192.0.0.0/24",
            "192.88.99.0/24",
            "64:ff9b:1::/48",
            "2001::/23",
            "3fff::/20",
            "5f00::/16",
            "fec0::/10",
        ),
    )
)
"""What `ipaddress` takes for public in some releases of Python (IANA's registries of special addresses)."""


class ForbiddenAddressError(Exception):
    """The name leads to an address that is not public."""


class MachineNames:
    """Resolves as the machine does, in threads of its own, so that a slow name keeps nobody else waiting.

    at_once: names being looked up.
    """

    def __init__(self, at_once: int) -> None:
        self._threads = ThreadPoolExecutor(at_once, "smoothing-proxy-names")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Its addresses."""
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether this numeric address may be anywhere but in the house.

    One of IPv6 that leads to one of IPv4 (6to4, NAT64) is what that is; one that merely writes it is not public.
    """
    return _is_public(ip_address(address))


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv6Address):
        inner = IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else ip.sixtofour
        if inner is not None:
            return _is_public(inner)
        if ip.ipv4_mapped is not None:
            return False
    if any(ip in network for network in _BESIDES):
        return False
    elsewhere = ip.is_private or ip.is_loopback or ip.is_link_local
    return ip.is_global and not (elsewhere or ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class CheckedConnections(httpcore.AsyncNetworkBackend):
    """Where every connection of a pool is made. allow_private: to addresses that are not public, too.

    A name with one address that is not public is refused, whatever its others are.
    """

    def __init__(self, resolve: Resolve, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See AsyncNetworkBackend. Raises ForbiddenAddressError."""
        addresses = await self._resolve(host, port)
        if not self._allow_private and not all(map(is_public, addresses)):
            raise ForbiddenAddressError
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        if not addresses:
            raise httpcore.ConnectError("the name has no address")
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        """See AsyncNetworkBackend."""
        await asyncio.sleep(seconds)
