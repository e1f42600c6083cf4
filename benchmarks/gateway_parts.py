"""What benchmarks of the gateway are made of: servers in processes of their own, and a client that asks them.

python benchmarks/gateway_parts.py READY-FILE        a bare Starlette echo of Rekognition's format
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import numpy as np

from smoothing_proxy.images.codec import Encoding, encode

__all__ = [
    "SECRET",
    "VENDOR_KEYS",
    "Asked",
    "Load",
    "Server",
    "echo",
    "gateway",
    "pictures",
    "signed",
    "simulator",
]

KEY_ID, SECRET = "AKIABENCHMARK", "a-secret-of-the-benchmark"
START_S = 60.0

VENDOR_KEYS = {
    "AWS_ACCESS_KEY_ID": "simulator",
    "AWS_SECRET_ACCESS_KEY": "simulator-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "SECRET_OF_THE_BENCHMARK": SECRET,
}

CONFIG = """
[gateway]
port = 0
verdict_ttl_s = 0
max_pending = 1000
{gateway}
[[keys]]
id = "{key}"
secret_env = "SECRET_OF_THE_BENCHMARK"
[smoothing]
{smoothing}
[backend]
{backend}
[denoiser]
name = "{denoiser}"
[encoding]
format = "{encoding}"
[run]
in_flight = {in_flight}
[transport]
requests_per_s = {rate}
"""


@dataclass(frozen=True)
class Server:
    """One that runs. url: without a slash at its end."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """Processor seconds of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _server(command: Sequence[str], ready: Path) -> Iterator[Server]:
    environment = os.environ | VENDOR_KEYS
    process = Popen([sys.executable, *command], stdout=DEVNULL, stderr=DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} did not start")
            time.sleep(0.02)
        yield Server(json.loads(ready.read_text())["url"], process.pid)
    finally:
        process.kill()
        process.wait()


@contextmanager
def simulator(*options: str) -> Iterator[Server]:
    """Rekognition, simulated; it trusts pictures, so that it leaves the cores to who is measured."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = ["-m", "smoothing_proxy", "simulate", "aws", "--backend", "scripted:cat", "--no-check"]
        with _server([*command, "--ready-file", str(ready), *options], ready) as server:
            yield server


@contextmanager
def gateway(
    *,
    smoothing: str,
    vendor: Server | None = None,
    options: str = "",
    denoiser: str = "identity",
    in_flight: int = 64,
    rate: float = 100_000,
) -> Iterator[Server]:
    """`smoothing-proxy serve`. vendor: the simulator behind it; None for a classifier that does nothing."""
    local = 'name = "scripted:cat"'
    backend = local if vendor is None else f'name = "aws-rekognition"\nendpoint = "{vendor.url}"\nconcurrency = 64'
    with tempfile.TemporaryDirectory() as folder:
        config, ready = Path(folder) / "gateway.toml", Path(folder) / "ready.json"
        text = CONFIG.format(
            gateway=options,
            key=KEY_ID,
            smoothing=smoothing,
            backend=backend,
            denoiser=denoiser,
            encoding="raw" if vendor is None else "jpeg",
            in_flight=in_flight,
            rate=rate,
        )
        config.write_text(text)
        command = ["-m", "smoothing_proxy", "serve", "--config", str(config), "--ready-file", str(ready)]
        with _server(command, ready) as server:
            yield server


@contextmanager
def echo() -> Iterator[Server]:
    """A Starlette application that reads the body, as the gateway's own does, and answers in the same format."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        with _server([__file__, str(ready)], ready) as server:
            yield server


def pictures(count: int, side_px: int, *, first: int = 0) -> list[bytes]:
    """JPEG files with grain, no two alike: about 20 KB at 224 px."""
    return [_picture(number, side_px) for number in range(first, first + count)]


def _picture(number: int, side_px: int) -> bytes:
    grain = np.random.default_rng(number).integers(90, 166, (side_px, side_px, 3), np.uint8)
    return encode(grain, Encoding("jpeg", 80)).data


@dataclass(frozen=True)
class Asked:
    """A request that is ready to be sent."""

    body: bytes
    headers: dict[str, str]


def signed(url: str, images: Sequence[bytes]) -> list[Asked]:
    """A DetectLabels request about each picture, signed as boto3 does."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    signer = SigV4Auth(Credentials(KEY_ID, SECRET), "rekognition", "us-east-1")
    asked = []
    for image in images:
        body = json.dumps({"Image": {"Bytes": base64.b64encode(image).decode()}, "MinConfidence": 0}).encode()
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": "RekognitionService.DetectLabels",
        }
        request = AWSRequest("POST", f"{url}/", data=body, headers=headers)
        signer.add_auth(request)
        asked.append(Asked(body, dict(request.headers.items())))
    return asked


class Load:
    """So many clients that ask one after another. latencies_s: of each request that was answered.

    answered_s: when, by time.perf_counter().
    """

    def __init__(self, url: str, requests: Sequence[Asked], clients: int) -> None:
        self.latencies_s: list[float] = []
        self.answered_s: list[float] = []
        self._url = url
        self._requests = iter(requests)
        self._clients = clients

    async def run(self) -> float:
        """Send all of them; seconds."""
        import aiohttp

        connector = aiohttp.TCPConnector(limit=self._clients)
        async with aiohttp.ClientSession(connector=connector) as session:
            start = time.perf_counter()
            await asyncio.gather(*(self._client(session) for _ in range(self._clients)))
            return time.perf_counter() - start

    async def _client(self, session: Any) -> None:
        for asked in self._requests:
            start = time.perf_counter()
            async with session.post(f"{self._url}/", data=asked.body, headers=asked.headers) as reply:
                text = await reply.read()
                if reply.status != 200:
                    raise RuntimeError(f"{reply.status}: {text[:300]!r}")
            self.answered_s.append(time.perf_counter())
            self.latencies_s.append(self.answered_s[-1] - start)


def _serve_echo(ready: Path) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from smoothing_proxy.gateway.serving import _listener

    answer = json.dumps(
        {"Labels": [{"Name": "cat", "Confidence": 100.0, "Instances": [], "Parents": []}], "LabelModelVersion": ""}
    )

    async def reply(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/x-amz-json-1.1")

    listener = _listener("127.0.0.1", 0)
    new = ready.with_suffix(".new")
    new.write_text(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}))
    new.replace(ready)
    app = Starlette(routes=[Route("/", reply, methods=["POST"])])
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, loop="none", ws="none")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    _serve_echo(Path(sys.argv[1]))
