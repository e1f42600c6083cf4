"""A gateway that works for long: its process with its log and its memory, and customers of every kind."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx

from smoothing_proxy.ledger.gateway.nouns import Spend
from smoothing_proxy.ledger.gateway.store import GatewayStore
from tests.gateway.forms import Form, forms
from tests.gateway.gateways import picture

START_S = 60.0

UNHURT = ("native", "aws", "azure", "clarifai", "google", "openai", "google gRPC")

FAILED_BEHIND = {500, 502, 503, 504}


@dataclass(frozen=True)
class Running:
    """A gateway in a process of its own. log: where its standard error goes."""

    process: subprocess.Popen[bytes]
    url: str
    grpc_port: int
    log: Path

    def memory_mib(self) -> float:
        """Resident, of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> int:
        """By SIGTERM, which finishes what is under way; the exit status."""
        self.process.terminate()
        return self.process.wait(60)

    def complaints(self) -> list[str]:
        """Lines that are no JSON, or tell of an error that is not one of the house's own."""
        return [line for line in self.log.read_text().splitlines() if _is_complaint(line)]


def _is_complaint(line: str) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return True
    if said["level"] not in ("error", "critical"):
        return False
    last = said.get("traceback", "").strip().rpartition("\n")[2]
    return said["logger"] != "smoothing_proxy.gateway.faults" or not last.startswith("smoothing_proxy.errors.")


@contextmanager
def running(config: Path, environment: Mapping[str, str]) -> Iterator[Running]:
    """`smoothing-proxy serve`, killed at the end."""
    ready, log = config.with_suffix(".ready.json"), config.with_suffix(".log")
    command = [sys.executable, "-m", "smoothing_proxy", "serve", "--config", str(config), "--grpc-port", "0"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready)],
            env=os.environ | dict(environment),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        deadline = time.monotonic() + START_S
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        where = json.loads(ready.read_text())
        yield Running(process, where["url"], where["grpc_port"], log)
    finally:
        process.kill()
        process.wait(10)


@dataclass(frozen=True)
class Key:
    """A virtual key. id: what AWS calls its access key id."""

    id: str
    secret: str


class Customers:
    """Send requests of every kind; `odd` holds what should not have been answered as it was.

    seed: decides which ones, and about which pictures.
    """

    def __init__(self, there: Running, keys: Mapping[str, Key], seed: int, *, at_once: int = 8) -> None:
        self.odd: list[str] = []
        self.seen: Counter[str] = Counter()
        self._forms = forms({vendor: (key.id, key.secret) for vendor, key in keys.items()})
        self._keys = keys
        self._there = there
        self._rng = random.Random(seed)
        self._pool = ThreadPoolExecutor(at_once)
        self._client = httpx.Client(base_url=there.url, timeout=120.0)
        self._lock = threading.Lock()
        self._pictures = 0
        self._asked: list[tuple[str, bytes]] = []
        self._grpc = _Grpc(there.grpc_port, keys["google"].secret)

    def close(self) -> None:
        """Let go of all connections."""
        self._pool.shutdown()
        self._client.close()
        self._grpc.close()

    def ask(self, count: int) -> None:
        """So many requests, several at a time."""
        list(self._pool.map(lambda request: request(), [self._next() for _ in range(count)]))

    def _next(self) -> Any:
        kinds = {
            self._good: 50,
            self._again: 20,
            self._bad_picture: 6,
            self._bad_body: 6,
            self._bad_key: 5,
            self._unknown: 5,
            self._plain: 8,
        }
        (make,) = self._rng.choices(list(kinds), list(kinds.values()))
        return make()

    def _good(self) -> Any:
        vendor = self._rng.choice(UNHURT)
        self._pictures += 1
        image = picture(self._pictures % 256, 80 + self._pictures // 256)
        self._asked.append((vendor, image))
        return lambda: self._send("good", vendor, image, {200} | FAILED_BEHIND)

    def _again(self) -> Any:
        """One of the last ones, so that it may still be under way; at first a new one."""
        if not self._asked:
            return self._good()
        vendor, image = self._rng.choice(self._asked[-20:])
        return lambda: self._send("again", vendor, image, {200} | FAILED_BEHIND)

    def _bad_picture(self) -> Any:
        vendor = self._rng.choice(UNHURT)
        image = self._rng.randbytes(self._rng.choice((0, 1, 500))) + picture()[: self._rng.choice((0, 60))]
        expected = {200, 400} if vendor.startswith("google") else {400, 413, 422}
        return lambda: self._send("bad picture", vendor, image, expected)

    def _bad_body(self) -> Any:
        form = self._forms[self._rng.choice(sorted(self._forms))]
        body = self._rng.choice((b"", b"{", b"[]", b"\xff" * 50, b'{"a":' * 500))
        return lambda: self._told("bad body", form, form.sent(self._client, body), {400, 422})

    def _bad_key(self) -> Any:
        vendor = self._rng.choice(sorted(self._forms))
        form = forms({vendor: ("AKIANOBODY", "nobody-has-such-a-secret")})[vendor]
        return lambda: self._told("bad key", form, form.sent(self._client, form.body(picture())), {401, 403, 400})

    def _unknown(self) -> Any:
        path = self._rng.choice(
            ("/nowhere", "/v1/images:asyncBatchAnnotate", "/v2/nothing", "/vision/v3.2/describe")
        )
        method = self._rng.choice(("GET", "POST", "PUT"))
        return lambda: self._judge(
            "unknown", path, self._client.request(method, path).status_code, {401, 403, 404}
        )

    def _plain(self) -> Any:
        path = self._rng.choice(
            ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/v1/verdicts/none")
        )
        headers = {"x-api-key": self._keys["native"].secret}
        return lambda: self._judge("plain", path, self._client.get(path, headers=headers).status_code, {200, 404})

    def _send(self, kind: str, vendor: str, image: bytes, expected: set[int]) -> None:
        if vendor == "google gRPC":
            self._judge(kind, vendor, self._grpc.ask(image), expected)
            return
        form = self._forms[vendor]
        self._told(kind, form, form.sent(self._client, form.body(image)), expected)

    def _told(self, kind: str, form: Form, reply: httpx.Response, expected: set[int]) -> None:
        self._judge(kind, form.path, reply.status_code, expected, reply.text)

    def _judge(self, kind: str, what: str, status: int, expected: set[int], text: str = "") -> None:
        with self._lock:
            self.seen[f"{kind} {status}"] += 1
            if status not in expected:
                self.odd.append(f"{kind}, {what}: {status} {text[:300]}")


class _Grpc:
    """Google's gRPC with messages that are written here, so that they may be wrong."""

    def __init__(self, port: int, secret: str) -> None:
        import grpc  # type: ignore[import-untyped, unused-ignore]

        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._method = self._channel.unary_unary(
            "/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages",
            request_serializer=None,
            response_deserializer=None,
        )
        self._metadata = [("x-goog-api-key", secret)]
        self._error = grpc.RpcError

    def ask(self, image: bytes) -> int:
        """The status, as REST would have it."""
        from google.cloud import vision

        feature = vision.Feature(type_=vision.Feature.Type.LABEL_DETECTION)
        one = vision.AnnotateImageRequest(image=vision.Image(content=image), features=[feature])
        message = vision.BatchAnnotateImagesRequest(requests=[one])
        body = vision.BatchAnnotateImagesRequest.serialize(message)
        try:
            self._method(body, metadata=self._metadata, timeout=120)
        except self._error as error:
            return _HTTP[error.code().name]  # type: ignore[attr-defined, unused-ignore]
        return 200

    def close(self) -> None:
        """The channel."""
        self._channel.close()


_HTTP = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "UNIMPLEMENTED": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def made_keys(store: Path, master: bytes, vendors: Sequence[str]) -> dict[str, Key]:
    """A key for each vendor's format, in a store at this path."""

    async def make() -> dict[str, Key]:
        async with await GatewayStore.open(store, secret_key=master) as opened:
            made = {vendor: await opened.create_key(vendor, vendor) for vendor in vendors}
        return {vendor: Key(key.id, secret) for vendor, (key, secret) in made.items()}

    return anyio.run(make)


def spent(store: Path, master: bytes) -> Spend:
    """What all keys have spent."""

    async def read() -> Spend:
        async with await GatewayStore.open(store, secret_key=master) as opened:
            return await opened.spend(None, "total")

    return anyio.run(read)
