"""A database that goes away and comes back: PostgreSQL behind a proxy that is cut, SQLite locked by another."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, Protocol

from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy import make_url

Mode = Literal["there", "gone", "mute", "hiccup", "silent"]
"""gone: connections are cut and refused. mute: what is asked still arrives, but its reply is cut off, and all is
gone. hiccup: likewise, but whoever connects again is let in. silent: nothing passes, and nothing is cut."""


class Outage(Protocol):
    """address: of the database, as whoever suffers the outage has it."""

    address: str

    def begin(self) -> None: ...

    def end(self) -> None: ...


class LockedFile:
    """A SQLite file that somebody else is writing to."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._other: sqlite3.Connection | None = None

    def begin(self) -> None:
        self._other = sqlite3.connect(self.address, isolation_level=None, check_same_thread=False)
        self._other.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        if self._other is not None:
            self._other.close()
            self._other = None


class Proxy:
    """PostgreSQL behind a proxy on loopback, in a thread of its own. bad: how it is during an outage."""

    def __init__(self, portal: BlockingPortal, address: str, bad: Mode) -> None:
        url = make_url(address)
        assert url.port is not None
        self._portal = portal
        self._target = url.port
        self._url = url
        self._bad: Mode = bad
        self._mode: Mode = "there"
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.address = address

    def begin(self) -> None:
        self._portal.call(self._become, self._bad)

    def end(self) -> None:
        self._portal.call(self._become, "there")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        ours = self._url.set(port=server.sockets[0].getsockname()[1])
        self.address = ours.render_as_string(hide_password=False)
        try:
            yield
        finally:
            server.close()
            await self._become("gone")
            await asyncio.gather(*self._serving)

    async def _become(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "gone":
            self._cut()
        self._changed.set()
        self._changed = asyncio.Event()

    def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "gone":
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, back}
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer, replies=True))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool = False
    ) -> None:
        try:
            while data := await source.read(65_536):
                while self._mode == "silent":
                    await self._changed.wait()
                if replies and self._mode in ("mute", "hiccup"):
                    self._cut()
                    await self._become("gone" if self._mode == "mute" else "there")
                    return
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()


@contextmanager
def proxied(address: str, bad: Mode = "gone") -> Iterator[Proxy]:
    """PostgreSQL at this URL, behind a proxy."""
    with start_blocking_portal() as portal:
        proxy = Proxy(portal, address, bad)
        with portal.wrap_async_context_manager(proxy.listening()):
            yield proxy
