"""Whether requests should be sent to this gateway, told within bounded time and without a paid query.

The vendor behind is judged by the traffic first: by its circuit, and by what its last answers were. Where that
says nothing (since nobody asks), by a connection to its address, over which nothing is sent. What the traffic says
against it holds for some time only, since without traffic there would never be better news.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from smoothing_proxy.backends.base import Addressed
from smoothing_proxy.backends.http_route import route_to
from smoothing_proxy.errors import SmoothingProxyError
from smoothing_proxy.gateway.engine import Engine, most_queries
from smoothing_proxy.gateway.looks import WITHIN_S, Look
from smoothing_proxy.gateway.ports import Store
from smoothing_proxy.transport.clock import Clock

__all__ = ["FRESH_S", "Health", "Watch"]

FRESH_S = 5.0
"""For which the vendor's address and the budget are not looked at again."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """reasons: why nothing should be asked here, () where all is well. warnings: what should be known besides."""

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Watch:
    """Over one gateway. harden: whether its answers take a whole fan-out."""

    def __init__(self, engine: Engine, store: Store, clock: Clock, *, harden: bool) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._needed = most_queries("predict" if harden else "unhardened", engine.smoothing) or 1
        self._looks = (
            Look(self._of_store, clock, late="the store does not answer"),
            Look(self._of_budget, clock, late="", fresh_s=FRESH_S),
            Look(self._of_address, clock, late=_UNREACHABLE, fresh_s=FRESH_S),
        )
        self._told: tuple[str, ...] = ()

    async def health(self, *, closing: bool) -> Health:
        """closing: whether it is being stopped."""
        found = await asyncio.gather(*(look.wrong() for look in self._looks))
        stopping = "the gateway is being stopped" if closing else ""
        reasons = tuple(dict.fromkeys(reason for reason in (stopping, self._traffic(), *found) if reason))
        if reasons != self._told:
            self._told = reasons
            _logger.log(logging.ERROR if reasons else logging.INFO, "ready: %s", "; ".join(reasons) or "yes")
        return Health(reasons, self._warnings())

    def close(self) -> None:
        """Look no more."""
        for look in self._looks:
            look.close()

    def _traffic(self) -> str:
        """What the last answers say, as long as they are news."""
        signs, courier = self._engine.timed.signs, self._engine.courier
        if self._clock.now() - signs.failed_at > courier.settings.circuit_pause_max_s:
            return ""
        if signs.refusal is not None:
            return "the classifier behind refuses this gateway's credentials or is beyond its quota"
        return "the classifier behind does not answer" if courier.circuit.is_open else ""

    def _warnings(self) -> tuple[str, ...]:
        versions = self._engine.timed.signs.versions
        if len(versions) < 2:
            return ()
        first, last = versions[0][:100], versions[-1][:100]
        return (f"the classifier behind was version {first!r} at first; since then it was also {last!r}",)

    async def _of_store(self) -> str:
        return await _said(self._store.check, "the store cannot be used")

    async def _of_budget(self) -> str:
        """A store that cannot be asked says so itself."""
        try:
            price_usd = self._engine.timed.backend.price_usd
            has_room = await self._store.has_room(self._needed, price_usd)
        except SmoothingProxyError:
            return ""
        return "" if has_room else "the gateway's own budget is used up"

    async def _of_address(self) -> str:
        backend = self._engine.timed.backend
        answered = self._clock.now() - self._engine.timed.signs.answered_at < FRESH_S
        if answered or not isinstance(backend, Addressed):
            return ""
        return await _said(lambda: _connect(backend.address, backend.name), _UNREACHABLE)


_UNREACHABLE = "the classifier behind cannot be reached"


async def _said(look: Callable[[], Awaitable[None]], wrong: str) -> str:
    try:
        await look()
    except (SmoothingProxyError, OSError, TimeoutError) as error:
        _logger.warning("%s: %s", wrong, error or type(error).__name__)
        return wrong
    return ""


async def _connect(address: str, name: str) -> None:
    """To the vendor, or to the proxy before it, and nothing is sent. Raises OSError, TimeoutError, ConfigError."""
    route = route_to(address, name)
    there = route.proxy or route.url
    async with asyncio.timeout(WITHIN_S):
        _, writer = await asyncio.open_connection(there.host, there.port)
    writer.close()
