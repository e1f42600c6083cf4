"""A replica in a process of its own, to be killed: it asks the vendor on a port about draw after draw.

python -m tests.ledger.gateway.fan_out ADDRESS KEY_ID PORT
"""

from __future__ import annotations

import asyncio
import socket
import socketserver
import sys
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from smoothing_proxy.ledger.gateway.nouns import Fresh
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.smoothing.observe import Outcome
from tests.ledger.gateway.stores import BODY, ENTROPY, MASTER, PICTURE, SETTINGS, HandClock, answered

DRAWS = 2_000
IN_FLIGHT = 24
BATCH = 3


class Vendor:
    """Bills every draw that reaches it, whatever becomes of the answer. billed: times by draw."""

    def __init__(self) -> None:
        self.billed: Counter[int] = Counter()
        self.busy = threading.Event()
        self._enough = 0
        vendor = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    draws = [int(word) for word in line.split()]
                    vendor.bill(draws)
                    self.wfile.write(line)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A killed client's connection breaks; its draws are billed."""

        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def bill(self, draws: list[int]) -> None:
        with self._lock:
            self.billed.update(draws)
            if self.billed.total() >= self._enough:
                self.busy.set()

    def await_billed(self, enough: int, within_s: float) -> bool:
        """Whether so many draws were billed in time."""
        with self._lock:
            self._enough = enough
        return self.busy.wait(within_s)

    def ask(self, draws: list[int]) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b" ".join(b"%d" % draw for draw in draws) + b"\n")
            assert connection.recv(1_000)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


async def fan_out(address: str, key_id: str, port: int) -> None:
    store = await GatewayStore.open(address, secret_key=MASTER, clock=HandClock())
    begun = await store.begin(key_id, "an id", BODY, SETTINGS)
    assert isinstance(begun, Fresh)
    await store.picture(begun.request_id, 0, PICTURE, ENTROPY)
    journal = store.journal(begun.request_id, await store.reserve(key_id, DRAWS, 0.001))
    batches = iter([list(range(first, first + BATCH)) for first in range(0, DRAWS, BATCH)])

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for draws in batches:
            await journal.sent(0, draws)
            writer.write(" ".join(map(str, draws)).encode() + b"\n")
            await writer.drain()
            replies = await reader.readline()
            outcomes: list[Outcome] = [answered(int(word)) for word in replies.split()]
            await journal.settled(0, outcomes)

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    raise SystemExit("it was not killed")


if __name__ == "__main__":
    asyncio.run(fan_out(sys.argv[1], sys.argv[2], int(sys.argv[3])))
