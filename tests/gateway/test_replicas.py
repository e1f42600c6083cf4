"""Two replicas over one PostgreSQL, one of them killed under load: one budget, one set of verdicts, one truth."""

from __future__ import annotations

import base64
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.gateways import picture
from tests.gateway.test_ledger_store import keys
from tests.gateway.test_serve import served
from tests.ledger.gateway.postgres import NoPostgresError, running_postgres
from tests.simulator.processes import Simulation, simulation
from tests.vendors.runs import ENVIRONMENT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

START_S, WAIT_S = 120.0, 120.0
LEVELS = range(2, 26)
POOR_LIMIT = 150

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
address_env = "STORE"
master_key_env = "MASTER"
lease_s = 3.0
cache_s = 3600
"""


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    """Rekognition, simulated; and a database whose address is in the environment."""
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL (smoothing-proxy[postgres])")
    for name, value in {**ENVIRONMENT, "MASTER": base64.b64encode(os.urandom(32)).decode()}.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        try:
            monkeypatch.setenv("STORE", stack.enter_context(running_postgres()).new_schema())
        except NoPostgresError as error:
            pytest.skip(str(error))
        yield stack.enter_context(simulation("aws", tmp_path, "-f", "latency_s=0.05"))


@contextmanager
def replica(folder: Path, name: str) -> Iterator[tuple[str, int]]:
    """One of this name: its address and process."""
    config = folder / f"{name}.toml"
    config.write_text((folder / "gateway.toml").read_text())
    config.with_suffix(".ready.json").unlink(missing_ok=True)
    with served(config, START_S) as (url, process):
        yield url, process.pid


def ask(url: str, secret: str, level: int) -> tuple[int, str]:
    """PREDICT one grey picture: status and the verdict's id; 0 where nobody answered."""
    headers = {"x-api-key": secret, "content-type": "image/png", "idempotency-key": f"picture-{level}"}
    try:
        reply = httpx.post(f"{url}/v1/predict", content=picture(level, 96), headers=headers, timeout=WAIT_S)
    except httpx.TransportError:
        return 0, ""
    return reply.status_code, str(reply.json().get("id", ""))


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def spread(clients: ThreadPoolExecutor, urls: Sequence[str], secret: str) -> list[Any]:
    """Every picture to one replica after the other; their answers to come."""
    return [clients.submit(ask, urls[level % len(urls)], secret, level) for level in LEVELS]


def test_a_killed_replica_leaves_budgets_and_verdicts_as_they_are(vendor: Simulation, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(CONFIG.format(url=vendor.url))
    secret = keys(tmp_path, "create", "shop", "--vendor", "native", "--calls-limit", "5000")["secret"]
    poor = keys(tmp_path, "create", "poor", "--vendor", "native", "--calls-limit", str(POOR_LIMIT))["secret"]
    with ThreadPoolExecutor(len(LEVELS)) as clients, replica(tmp_path, "second") as (second, _):
        with replica(tmp_path, "first") as (first, pid):
            verdict = ask(first, secret, 1)
            paid = vendor.till()["billed"]
            assert ask(second, secret, 1) == verdict, "what one replica has answered, the other tells again"
            assert vendor.till()["billed"] == paid
            waiting = spread(clients, [first, second], secret)
            eventually(lambda: vendor.till()["billed"] >= paid + 40, "the vendor is not asked")
            os.kill(pid, signal.SIGKILL)
            found = [one.result() for one in waiting]
            assert any(status == 0 for status, _ in found), "the kill came too late to matter"
        again = [one.result() for one in spread(clients, [second], secret)]
        assert {status for status, _ in again} == {200}
        told = [(new, old) for new, old in zip(again, found, strict=True) if old[0] == 200]
        assert all(new == old for new, old in told), "an answer that was given is given again"
        eventually(
            lambda: keys(tmp_path, "spend", "shop")[0]["held"] == 0, "a dead replica's promise is kept for ever"
        )
        paid = vendor.till()["billed"]
        with replica(tmp_path, "first") as (first, _):
            assert [one.result() for one in spread(clients, [first], secret)] == again
            assert vendor.till()["billed"] == paid, "a replica that comes back pays for nothing again"
            statuses = {one.result()[0] for one in spread(clients, [first, second], poor)}
        assert 402 in statuses, "the smaller budget is enough for all"
        [shop] = keys(tmp_path, "spend", "shop")
        [small] = keys(tmp_path, "spend", "poor")
        billed = vendor.till()["billed"]
    assert shop["calls"] + small["calls"] <= billed
    assert billed <= shop["calls"] + shop["unknown"] + small["calls"] + small["unknown"]
    assert 0 < small["calls"] + small["unknown"] <= POOR_LIMIT
    assert small["held"] == 0
