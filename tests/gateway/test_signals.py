"""Signals while the process starts, and while it finishes what is under way: nothing that was paid for is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.gateway.test_serve import CONFIG, ENVIRON, KEY, served, status
from tests.gateway.upstream import http_upstream

PATIENCE_S = 60.0

AZURE = """
[gateway]
port = 0
drain_s = 60.0
[smoothing]
sigma = 0.25
max_queries = 120
alpha = 0.001
[transport]
requests_per_s = 1000
[backend]
name = "azure-vision"
endpoint = "{0}"
"""
TAGS = {"modelVersion": "v", "metadata": {}, "tagsResult": {"values": [{"name": "cat", "confidence": 0.9}]}}


def until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Raises AssertionError where the process ends before."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pipe_to_its_reader(fifo: Path, process: subprocess.Popen[str]) -> int:
    """Open for writing, once the process has opened it."""
    pipes: list[int] = []

    def opened() -> bool:
        with suppress(OSError):  # ENXIO: nobody reads it yet
            pipes.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(pipes)

    until(opened, process)
    return pipes[0]


def test_a_hangup_while_it_starts_is_obeyed_once_it_serves(tmp_path: Path) -> None:
    """It reads its settings twice, and waits for them both times: when it begins, and for the keys."""
    config, ready, text = tmp_path / "gateway.toml", tmp_path / "ready.json", CONFIG + KEY.format("one")
    others = [tmp_path / "for the keys.toml", tmp_path / "for the hangup.toml"]
    os.mkfifo(config)
    os.mkfifo(others[0])
    others[1].write_text(text)
    command = [
        sys.executable,
        "-m",
        "smoothing_proxy",
        "serve",
        "--config",
        str(config),
        "--ready-file",
        str(ready),
    ]
    with subprocess.Popen(
        command, env=os.environ | ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            for following in others:
                pipe = pipe_to_its_reader(config, process)
                following.replace(config)
                if following is others[-1]:
                    process.send_signal(signal.SIGHUP)
                os.write(pipe, text.encode())
                os.close(pipe)
            until(ready.exists, process)
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "keys and limits were read anew" in log


def test_further_signals_do_not_end_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_VISION_KEY", "a-key-of-the-gateways-own")
    config = tmp_path / "gateway.toml"
    with http_upstream() as upstream, ThreadPoolExecutor(1) as pool:
        upstream.answer = (200, TAGS)
        upstream.may_answer.clear()
        config.write_text(AZURE.format(upstream.url) + KEY.format("one"))
        with served(config, PATIENCE_S) as (url, process):
            asked = pool.submit(status, url, ENVIRON["KEY_OF_one"])
            until(lambda: bool(upstream.asked), process)
            process.send_signal(signal.SIGTERM)
            until(lambda: listens_no_more(url), process)
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            upstream.may_answer.set()
            assert asked.result(PATIENCE_S) == 200
            process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def listens_no_more(url: str) -> bool:
    try:
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=PATIENCE_S).close()
    except ConnectionError:
        return True
    return False
