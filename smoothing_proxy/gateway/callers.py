"""Who asks: the vendors' own ways to present a key, checked against the store."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

from smoothing_proxy.gateway.ports import Caller, Store
from smoothing_proxy.wire.base import Fault, HttpRequest, RequestFault, Wire

__all__ = ["any_caller", "caller_by_headers", "check_signature", "token_caller"]

SIGNED = ("aws",)
"""Vendors whose keys have an id, and whose requests are signed."""


async def caller_by_headers(store: Store, wire: Wire, head: HttpRequest, now: datetime) -> Caller:
    """The caller, as far as headers tell, so that a stranger's body is never read.

    Raises RequestFault in the vendor's words.
    """
    key = wire.key(head)
    signed = wire.name in SIGNED
    caller = await (store.key(wire.name, key) if signed else store.check_token(wire.name, key))
    if caller is None and not signed:
        wire.verify(head, secrets.token_hex(), now)  # which is refused as the vendor would
    if caller is None:
        raise RequestFault(Fault.UNAUTHENTICATED, "The security token included in the request is invalid.")
    return caller


async def check_signature(store: Store, wire: Wire, caller: Caller, request: HttpRequest, now: datetime) -> None:
    """What only a whole request tells. Raises RequestFault."""
    if wire.name in SIGNED:
        wire.verify(request, await store.secret_of(caller), now)


async def token_caller(store: Store, token: str, vendor: str) -> Caller:
    """Whose token this is. Raises RequestFault."""
    caller = await store.check_token(vendor, token) if token else None
    if caller is None:
        raise RequestFault(Fault.UNAUTHENTICATED, "the key is missing, or not known here")
    return caller


async def any_caller(store: Store, wires: Sequence[Wire], head: HttpRequest, token: str, now: datetime) -> Caller:
    """The caller of a request without a body, by a native token or as any vendor's key. Raises RequestFault."""
    for wire in wires:
        try:
            caller = await caller_by_headers(store, wire, head, now)
            await check_signature(store, wire, caller, head, now)
        except RequestFault:
            continue
        return caller
    return await token_caller(store, token, "native")
