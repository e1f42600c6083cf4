"""Behind a reverse proxy: the host and the scheme that the client saw, as far as the proxy is trusted.

A signature of AWS's covers the Host header, which most proxies replace by the gateway's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Network", "TrustedProxies"]

Network: TypeAlias = IPv4Network | IPv6Network

_USUAL_PORTS = {"http": ":80", "https": ":443"}


class TrustedProxies:
    """Middleware: puts X-Forwarded-Host in the place of Host, and X-Forwarded-Proto in that of the scheme.

    networks: of the proxies whose word counts. Of several values the last one counts: the nearest proxy wrote it.
    A port that is the scheme's usual one is left out, as clients do.
    """

    def __init__(self, app: ASGIApp, networks: Sequence[Network]) -> None:
        self._app = app
        self._networks = tuple(networks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and self._trusts(scope.get("client")):
            scope = _as_seen(scope)
        await self._app(scope, receive, send)

    def _trusts(self, client: Sequence[object] | None) -> bool:
        try:
            address = ip_address(str(client[0])) if client else None
        except ValueError:
            return False
        # A socket of IPv6 shows clients of IPv4 as ::ffff:192.0.2.1.
        address = getattr(address, "ipv4_mapped", None) or address
        return address is not None and any(address in network for network in self._networks)


def _as_seen(scope: Scope) -> Scope:
    proto = _last(scope, b"x-forwarded-proto").lower()
    scheme = proto if proto in _USUAL_PORTS else scope["scheme"]
    host = _last(scope, b"x-forwarded-host")
    if not host:
        return {**scope, "scheme": scheme}
    host = host.removesuffix(_USUAL_PORTS.get(scheme, ""))
    others = [(name, value) for name, value in scope["headers"] if name != b"host"]
    return {**scope, "scheme": scheme, "headers": [*others, (b"host", host.encode("latin-1"))]}


def _last(scope: Scope, wanted: bytes) -> str:
    values = [value for name, value in scope["headers"] if name == wanted]
    return values[-1].decode("latin-1").rpartition(",")[2].strip() if values else ""
