"""The demo's vendor: its black box behind the simulator, in Amazon's wire format and in a process of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from smoothing_proxy.errors import BackendUnavailableError

if TYPE_CHECKING:
    from smoothing_proxy.backends.base import Backend

__all__ = ["Vendor", "vendor"]

BLACK_BOX = "local:smoothing_proxy.demo.digits:read_digits"
START_S = 60.0


@dataclass(frozen=True)
class Vendor:
    """A running simulator. url: where it listens. environment: where boto3's chain finds its key."""

    url: str
    environment: dict[str, str]

    def backend(self) -> Backend:
        """The classifier as a customer of Amazon's would ask it."""
        from smoothing_proxy.backends.aws_rekognition import AwsRekognition

        before = {key: os.environ.get(key) for key in self.environment}
        os.environ.update(self.environment)
        try:
            return AwsRekognition(endpoint=self.url, concurrency=32)
        finally:
            for key, value in before.items():
                os.environ.pop(key)
                if value is not None:
                    os.environ[key] = value

    def till(self) -> dict[str, Any]:
        """What it was sent and billed."""
        with urlopen(f"{self.url}/_simulator/till", timeout=10) as reply:  # noqa: S310 (its own loopback address)
            return dict(json.loads(reply.read()))


@contextmanager
def vendor() -> Iterator[Vendor]:
    """The simulator, stopped at the end. Raises BackendUnavailableError when it does not start within a minute."""
    secret = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="smoothing-proxy-demo-") as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "smoothing_proxy", "simulate", "aws", "--backend", BLACK_BOX]
        process = subprocess.Popen(  # noqa: S603 (this package itself)
            [*command, "--key", f"demo:{secret}", "--ready-file", str(ready)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            url = _url(process, ready)
            keys = {
                "AWS_ACCESS_KEY_ID": "demo",
                "AWS_SECRET_ACCESS_KEY": secret,
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            yield Vendor(url, keys)
        finally:
            process.kill()
            process.communicate()


def _url(process: subprocess.Popen[bytes], ready: Path) -> str:
    deadline = time.monotonic() + START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            reason = process.communicate()[1].decode(errors="replace").strip()
            raise BackendUnavailableError(f"the demo's simulated vendor did not start: {reason[-500:]}")
        time.sleep(0.05)
    url: str = json.loads(ready.read_text(encoding="utf-8"))["url"]
    return url
