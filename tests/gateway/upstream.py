"""A vendor's own service on loopback, for what the simulator does not speak: it keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from anyio.from_thread import start_blocking_portal

from smoothing_proxy.serving.google_grpc import Call, serve_calls
from smoothing_proxy.wire.base import HttpRequest


@dataclass
class Upstream:
    """asked: requests in the order of their arrival. answer: status and JSON body for the next ones.

    may_answer: cleared, it keeps them waiting.
    """

    url: str = ""
    asked: list[HttpRequest] = field(default_factory=list)
    answer: tuple[int, Mapping[str, Any]] = (200, {})
    may_answer: threading.Event = field(default_factory=threading.Event)


@contextmanager
def http_upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = self.path.partition("?")[0]
            upstream.asked.append(HttpRequest("POST", path, headers, body, target=self.path))
            upstream.may_answer.wait(10)
            status, answer = upstream.answer
            written = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", headers.get("content-type", "application/json"))
            self.send_header("x-amzn-requestid", "of-the-vendor")
            self.send_header("set-cookie", "session=of-the-vendor")
            self.send_header("content-length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    upstream.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def grpc_upstream(answer: Callable[[bytes], bytes]) -> Iterator[tuple[str, list[Call]]]:
    """Google's service: its host:port, and the calls that reached it."""
    calls: list[Call] = []

    async def answered(call: Call) -> bytes:
        calls.append(call)
        return answer(await call.message())

    with start_blocking_portal() as portal:
        server = portal.call(serve_calls, answered)
        try:
            yield f"127.0.0.1:{server.port}", calls
        finally:
            portal.call(server.stop)
