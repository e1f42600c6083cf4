"""The gateway over its database, killed in the middle: nothing billed that the store does not know."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.gateways import picture
from tests.gateway.test_serve import served
from tests.simulator.processes import simulation
from tests.vendors.runs import ENVIRONMENT

CONFIG = """
[gateway]
port = 0
drain_s = 2.0
[smoothing]
sigma = 0.1
max_queries = 100
[backend]
name = "aws-rekognition"
region = "eu-west-1"
endpoint = "{url}"
[transport]
requests_per_s = 2000
[store]
address = "{store}"
master_key_env = "MASTER"
lease_s = 2.0
"""


def keys(folder: Path, *arguments: str) -> Any:
    """`smoothing-proxy keys ... --json` on the gateway's store."""
    command = [sys.executable, "-m", "smoothing_proxy", "keys", "--config", str(folder / "gateway.toml")]
    done = subprocess.run([*command, *arguments, "--json"], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def ask(url: str, secret: str, level: int) -> tuple[int, str]:
    """PREDICT one grey picture: status and label; 0 where nobody answered."""
    headers = {"x-api-key": secret, "content-type": "image/png", "idempotency-key": f"picture-{level}"}
    try:
        reply = httpx.post(f"{url}/v1/predict", content=picture(level, 96), headers=headers, timeout=30)
    except httpx.TransportError:
        return 0, ""
    return reply.status_code, str(reply.json().get("label"))


@pytest.mark.timeout(180)
def test_killed_under_load_the_gateway_goes_on_with_its_budgets_and_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER", base64.b64encode(os.urandom(32)).decode())
    with simulation("aws", tmp_path, "-f", "latency_s=0.05", backend="scripted:cat") as vendor:
        config = tmp_path / "gateway.toml"
        config.write_text(CONFIG.format(url=vendor.url, store=tmp_path / "gateway.db"))
        made = keys(tmp_path, "create", "shop", "--vendor", "native", "--calls-limit", "5000")
        secret = made["secret"]
        with served(config) as (url, process), ThreadPoolExecutor(12) as clients:
            assert ask(url, secret, 1) == (200, "cat")
            paid_before = vendor.till()["billed"]
            waiting = [clients.submit(ask, url, secret, level) for level in range(2, 14)]
            deadline = time.monotonic() + 30
            while vendor.till()["billed"] < paid_before + 30:
                assert time.monotonic() < deadline, "the vendor is not asked"
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
            assert any(client.result()[0] == 0 for client in waiting), "the kill came too late to matter"
        config.with_suffix(".ready.json").unlink()
        with served(config) as (url, _), ThreadPoolExecutor(12) as clients:
            paid = vendor.till()["billed"]
            assert ask(url, secret, 1) == (200, "cat")
            assert vendor.till()["billed"] == paid, "a verdict of before is not paid for again"
            assert {clients.submit(ask, url, secret, level).result() for level in range(2, 14)} == {(200, "cat")}
        [spent] = keys(tmp_path, "spend", "--period", "total")
        billed = vendor.till()["billed"]
    assert spent["calls"] <= billed <= spent["calls"] + spent["unknown"]
    assert secret.encode() not in (tmp_path / "gateway.db").read_bytes()
