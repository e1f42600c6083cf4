"""Where a request over HTTP goes, and through which proxy of the environment (HTTPS_PROXY, NO_PROXY)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from smoothing_proxy.errors import ConfigError

__all__ = ["Route", "route_to"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, and through which proxy."""

    url: URL
    proxy: URL | None

    @property
    def host(self) -> str:
        """With its port, for messages."""
        return f"{self.url.host}:{self.url.port}"


def route_to(address: str, backend: str) -> Route:
    """The way to an address. Raises ConfigError, which begins with `backend`, where it or the proxy's is none."""
    try:
        url = URL(address)
    except ValueError as error:
        raise ConfigError(f"{backend}: its address is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{backend}: its address does not start with https:// and a host")
    return Route(url, _proxy(url, backend))


def _proxy(url: URL, backend: str) -> URL | None:
    """That of the environment, with the user it names."""
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    try:
        proxy = URL(found if "://" in found else f"http://{found}")
    except ValueError:
        proxy = URL()
    if proxy.scheme not in ("http", "https") or not proxy.host:
        raise ConfigError(
            f"{backend}: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY does not hold a proxy's http:// address"
        )
    return proxy
