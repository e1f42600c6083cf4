"""A host of pictures on loopback: a folder of answers by path, and what it was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from smoothing_proxy.wire.base import HttpReply, HttpRequest


@dataclass
class PictureHost:
    """answers: by path, without the query; any other is 404. asked: in the order of arrival.

    endless: paths whose bodies go on without end. may_end: until it is set, bodies at `waiting` are not finished.
    """

    url: str = ""
    answers: dict[str, HttpReply] = field(default_factory=dict)
    asked: list[HttpRequest] = field(default_factory=list)
    endless: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    may_end: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def put(self, path: str, body: bytes, status: int = 200, headers: Mapping[str, str] = {}) -> None:
        self.answers[path] = HttpReply(status, headers, body)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: PictureHost

    def do_GET(self) -> None:
        host, path = self.host, self.path.partition("?")[0]
        headers = {name.lower(): value for name, value in self.headers.items()}
        host.asked.append(HttpRequest(self.command, path, headers, target=self.path))
        reply = host.answers.get(path, HttpReply(404, {}, b"<Error><Code>NoSuchKey</Code></Error>"))
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if path in host.endless:
            self._endless()
            return
        self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        if path in host.waiting:
            self.wfile.write(reply.body[:10])
            host.may_end.wait(20)
        self.wfile.write(reply.body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def _endless(self) -> None:
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that leaves is none."""


@contextmanager
def picture_host(tls: tuple[Path, Path] | None = None) -> Iterator[PictureHost]:
    """tls: PEM files of its certificate and key."""
    host = PictureHost()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"host": host}))
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, tls))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    host.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    try:
        yield host
    finally:
        host.may_end.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
