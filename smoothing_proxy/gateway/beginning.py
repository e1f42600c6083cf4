"""Whose a request is to answer, where several processes of one gateway may be asked the same."""

from __future__ import annotations

from smoothing_proxy.gateway.ports import Begun, Store
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["begun"]

LOOK_AGAIN_S = 0.25
"""How often a request that another process answers is looked up."""


async def begun(
    store: Store,
    clock: Clock,
    within_s: float,
    caller: str,
    name: str | None,
    body_sha256: str,
    settings_sha256: str,
) -> Begun:
    """New, or finished: waits while another process answers it. See Store.begin.

    Raises RequestFault (TIMEOUT) where that takes too long, and as Store.begin.
    """
    until = clock.now() + within_s
    while clock.now() < until:
        begun = await store.begin(caller, name, body_sha256, settings_sha256)
        if begun.state != "running":
            return begun
        await clock.sleep(LOOK_AGAIN_S)
    raise RequestFault(Fault.TIMEOUT, "another process of this gateway is still computing the answer")
