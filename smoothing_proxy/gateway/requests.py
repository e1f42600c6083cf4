"""From Starlette's requests to the wires', with bodies that are bounded before they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault

__all__ = ["BROKEN", "body_of", "head_of", "response_of", "too_large"]

DISCARDED = 32 * 2**20
"""Bytes of a body that is too large which are read and dropped, so that its sender hears why."""


BROKEN = "smoothing_proxy.broken"
"""In the state (scope["state"]) of a request whose body ended since it could not be read on: it is not whole."""


def head_of(request: Request) -> HttpRequest:
    """All but the body."""
    scope = request.scope
    query = scope.get("query_string", b"").decode("latin-1")
    path = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
    return HttpRequest(
        method=request.method,
        path=scope["path"],
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
        query=dict(parse_qsl(query, keep_blank_values=True, max_num_fields=None)),
        target=f"{path}?{query}" if query else path,
    )


async def body_of(request: Request, most: int, within_s: float, hold: Callable[[int], None]) -> bytes:
    """The whole body, chunked or not. Raises RequestFault once it is longer than `most`, or takes too long.

    hold: told of the bytes before they are kept; what it raises is raised here.

    Raises ClientDisconnect when the client leaves in the middle of it.
    """
    try:
        async with asyncio.timeout(within_s):
            return await _read(request, most, hold)
    except TimeoutError:
        raise RequestFault(Fault.BAD_REQUEST, f"the request did not arrive within {within_s:g} s") from None


async def _read(request: Request, most: int, hold: Callable[[int], None]) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            hold(len(part))
            parts.append(part)
        elif parts:
            parts.clear()
        if size > most + DISCARDED:
            break
    if size > most:
        raise too_large(most)
    if BROKEN in request.scope.get("state", ()):
        raise RequestFault(Fault.BAD_REQUEST, "the body is not in the chunks that the request promised")
    return b"".join(parts)


def too_large(most: int) -> RequestFault:
    """A body above the limit."""
    return _TooLarge(Fault.IMAGE_TOO_LARGE, f"the request is larger than the {most} bytes allowed")


class _TooLarge(RequestFault):
    """Its status is 413, whatever the vendor's is for a picture."""


def response_of(reply: HttpReply, fault: RequestFault | None = None) -> Response:
    """As Starlette sends it. fault: that the reply tells, if it tells one."""
    status = 413 if isinstance(fault, _TooLarge) else reply.status
    headers = dict(reply.headers)
    if isinstance(fault, _TooLarge):
        headers["connection"] = "close"
    return Response(reply.body, status, headers)
