"""uvicorn's HTTP connections, with an end to each wait: for clients that say nothing, too little or half."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from smoothing_proxy.gateway.requests import BROKEN, DISCARDED

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HEAD_BYTES", "PIPELINED", "connections"]

HEAD_BYTES = 2**16
"""Of a request line and headers, and of what stands in a body between its parts or behind it (chunks' extensions,
trailers); httptools itself would take any number."""

PIPELINED = 16
"""Requests that one connection may send ahead of the one that is being answered."""

_UPGRADE = re.compile(rb"(?<=\r\n)upgrade:[^\r\n]*\r\n", re.IGNORECASE)


def connections(head_timeout_s: float) -> Callable[..., asyncio.Protocol]:
    """What uvicorn takes as `http`. head_timeout_s: for a request line and headers to arrive."""
    return partial(_Connection, head_timeout_s)


class _Connection(HttpToolsProtocol):
    """uvicorn itself waits for ever for the first request, and for one that has begun.

    A client that has sent a whole request may close its sending half, and still gets the answer. One that would
    rather speak HTTP/2 or WebSocket (Java's own client, curl --http2) is answered as if it had not said so, where
    uvicorn would lose its body (RFC 9110, 7.8: a server may ignore it). One that is answered before its request is
    all here (a stranger, whose body nobody reads) may send the rest of it: some hear nothing before that is done.
    One that sends more requests ahead than anybody does has its connection closed: uvicorn would keep them all.
    Trailers are dropped (RFC 9110, 6.5.1); uvicorn would put them among the headers. A body that cannot be read on
    ends for the application, which finds BROKEN in its state and says so in its own words; then nothing is read.
    """

    def __init__(self, head_timeout_s: float, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timeout_s = head_timeout_s
        self._waiting: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._has_rest = False
        self._rest_bytes = 0
        self._is_flooded = False
        self._is_broken = False
        self._line = b""  # the beginning of one, of a head under way
        self._beside_bytes = 0  # of a body, since the last part of its content

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._is_broken:
            return
        if self._under_way and self._has_rest:
            self._take_body(data)
        elif self._under_way:
            self._take_ahead(data)
        elif self._has_rest:
            self._drop(data)
        else:
            self._take_head(data)

    def _take_body(self, data: bytes) -> None:
        self._beside_bytes += len(data)
        super().data_received(data)
        if self._beside_bytes > HEAD_BYTES and self._has_rest and not self._is_broken:
            self.send_400_response("The trailers are too large.")

    def _drop(self, data: bytes) -> None:
        """What is left of a request that was answered already, and maybe the beginning of the next one."""
        self._rest_bytes += len(data)
        super().data_received(data)
        if self._under_way or self.transport.is_closing():
            return
        if not self._has_rest:
            self._wait_no_more()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self._rest_bytes > DISCARDED:
            self.transport.close()
        elif self._waiting is None:
            self._wait_for_head()

    def _take_ahead(self, data: bytes) -> None:
        """The next request, before the present one is answered."""
        self._feed_head(data)
        if self._head_bytes > HEAD_BYTES:
            self._is_flooded = True
            self.transport.abort()

    def _take_head(self, data: bytes) -> None:
        self._feed_head(data)
        if self._under_way or self._has_rest or self.transport.is_closing():
            return
        if self._head_bytes > HEAD_BYTES:
            self.send_400_response(f"The head of the request is larger than the {HEAD_BYTES} bytes allowed.")
        elif self._waiting is None:
            self._wait_for_head()

    def _feed_head(self, data: bytes) -> None:
        self._head_bytes += len(data)
        data, self._line = _without_upgrade(self._line + data)
        super().data_received(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See HttpToolsProtocol. A trailer is none."""
        if not self._has_rest:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """See HttpToolsProtocol."""
        self._beside_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._wait_no_more()
        self._head_bytes = self._rest_bytes = self._beside_bytes = 0
        self._has_rest = True
        if len(self.pipeline) >= PIPELINED:
            self._is_flooded = True
            raise OverflowError("too many requests ahead")  # which httptools ends its parsing for
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._has_rest = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """See HttpToolsProtocol. Nothing more is read before what came ahead is answered."""
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()
        elif self._is_broken:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """See HttpToolsProtocol. Where a request is under way, its own answer comes, and the connection's end."""
        if self._is_flooded:
            self.transport.abort()
        elif self._under_way:
            self._break()
        elif self._has_rest:
            self.transport.close()  # its answer is there already
        else:
            super().send_400_response(msg)

    def _break(self) -> None:
        self._is_broken = True
        if self._has_rest:
            self.cycle.scope["state"][BROKEN] = True
            self.cycle.keep_alive = self.cycle.more_body = False
            self.cycle.message_event.set()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Whether the connection stays open for an answer; TLS has no halves."""
        whole = self._under_way and not self.cycle.more_body and self.scheme != "https"
        if whole:
            self.cycle.keep_alive = False
        return whole

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._wait_no_more()
        super().connection_lost(exc)

    @property
    def _under_way(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._waiting = self.loop.call_later(self._head_timeout_s, self._late)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _late(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response(f"The request did not arrive within {self._head_timeout_s:g} s.")


def _without_upgrade(data: bytes) -> tuple[bytes, bytes]:
    """What may be parsed of a head, without its wish for another protocol; and the line that is not whole yet."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if end:
        return _UPGRADE.sub(b"", head + b"\r\n") + b"\r\n" + rest, b""
    whole = data.rfind(b"\r\n")
    if whole < 0:
        whole = len(data) - data.endswith(b"\r")
    lines = _UPGRADE.sub(b"", data[:whole] + b"\r\n")
    return lines.removesuffix(b"\r\n"), data[whole:]
