"""Rekognition on this machine, spoken by AwsWire, with the faults that real networks have."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias
from urllib.parse import unquote

from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.aws import AwsWire
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault

KEY, SECRET = "AKIDLOOPBACK", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
WIRE = AwsWire()
PUG = Reply(
    (
        ScoredLabel("Animal", 0.875),
        ScoredLabel("Pug", 0.9375, parents=("Animal", "Dog"), aliases=("Mops",)),
        ScoredLabel("Dog", 0.9375, parents=("Animal",)),
        ScoredLabel("Sofa", 0.25),
    ),
    "3.0",
)
Answer: TypeAlias = Callable[[HttpRequest], "HttpReply | Deed"]
Deed: TypeAlias = Callable[[socket.socket], None]
"""What is done to the connection in place of an answer."""


def rekognition(request: HttpRequest, answer: Reply | RequestFault = PUG) -> HttpReply:
    """The answer to a request that is signed with SECRET."""
    try:
        if WIRE.key(request) != KEY:
            raise RequestFault(Fault.UNAUTHENTICATED, "The security token included in the request is invalid.")
        WIRE.verify(request, SECRET, datetime.now(UTC))
        return WIRE.write(request, WIRE.read(request), [answer], "id-1")
    except RequestFault as fault:
        return WIRE.refuse(request, fault, "id-1")


def reset(connection: socket.socket) -> None:
    """End the connection as a crashed server does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def cut_short(connection: socket.socket) -> None:
    """The first half of a reply."""
    connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"Labels": [')
    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def loopback(
    answer: Answer = rekognition, *, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[HttpRequest]]]:
    """The server's address, and every request that it has read."""
    asked: list[HttpRequest] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20.0

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = unquote(self.path.partition("?")[0])
            asked.append(HttpRequest("POST", path, headers, body, target=self.path))
            self._send(answer(asked[-1]))

        def _send(self, reply: HttpReply | Deed) -> None:
            if not isinstance(reply, HttpReply):
                self.close_connection = True
                return reply(self.connection)
            self.send_response(reply.status)
            for name, value in {**reply.headers, "content-length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)
            return None

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A connection that a test has broken."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()
