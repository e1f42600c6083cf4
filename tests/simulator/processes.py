"""A simulator in a process of its own, as a user starts it: bounded in time, and gone at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_S, STOP_S = 30.0, 10.0

SECRET = "simulator-secret"


@dataclass(frozen=True)
class Simulation:
    """A running one. url: of HTTP. grpc_port: None but for google. folder: where its files are."""

    process: subprocess.Popen[str]
    url: str
    port: int
    grpc_port: int | None
    folder: Path

    def till(self) -> dict[str, Any]:
        """Its books, by picture too."""
        return self._control("till?pictures=1")

    def switch(self, **faults: object) -> dict[str, Any]:
        """These faults in place of all that were set."""
        return self._control("faults", json.dumps(faults).encode())

    def stop(self) -> str:
        """Stop it by SIGTERM; all that it printed."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=STOP_S)
        return output

    def _control(self, path: str, data: bytes | None = None) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/_simulator/{path}", data, timeout=10) as reply:
            return dict(json.loads(reply.read()))


@contextmanager
def simulation(
    vendor: str, folder: Path, *arguments: str, backend: str = "scripted:cat", environment: Mapping[str, str] = {}
) -> Iterator[Simulation]:
    """`smoothing-proxy simulate VENDOR --backend BACKEND ARGUMENTS`, killed at the end. folder: for its files."""
    ready = folder / f"{vendor}.ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "smoothing_proxy", "simulate", vendor, "--backend", backend]
    process = subprocess.Popen(
        [*command, "--ready-file", str(ready), *arguments],
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        where = _where(process, ready)
        yield Simulation(process, where["url"], where["port"], where["grpc_port"], folder)
    finally:
        process.kill()
        process.communicate(timeout=STOP_S)


def _where(process: subprocess.Popen[str], ready: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            output, _ = process.communicate(timeout=STOP_S)
            raise AssertionError(f"the simulator did not start: {output}")
        time.sleep(0.02)
    return dict(json.loads(ready.read_text()))
