"""Thousands of requests of every kind under faults: nothing grows or breaks, and the ledger has every query."""

from __future__ import annotations

import base64
import logging
import os
from pathlib import Path

import pytest

from tests.gateway.soaking import Customers, Running, made_keys, running, spent
from tests.simulator.processes import Simulation, simulation
from tests.vendors.runs import ENVIRONMENT

CONFIG = """
[gateway]
port = 0
deadline_s = 300.0
drain_s = 30.0
[smoothing]
sigma = 0.1
alpha = 0.05
max_queries = 60
[backend]
name = "aws-rekognition"
region = "eu-west-1"
endpoint = "{url}"
read_timeout_s = 2.0
[transport]
requests_per_s = 5000
start_per_s = 5000
min_per_s = 1000
attempts = 8
backoff_base_s = 0.02
backoff_max_s = 0.1
circuit_pause_s = 0.05
circuit_pause_max_s = 0.2
[store]
address = "{store}"
master_key_env = "MASTER"
"""

# The throttles are chance and no limit, so that no rate would end them: hence min_per_s.
FAULTS = {
    "throttle": 0.01,
    "unavailable": 0.03,
    "internal": 0.03,
    "timeout": 0.02,
    "reset_before": 0.02,
    "reset_after": 0.02,
    "cut_off": 0.01,
    "malformed": 0.01,
    "blank": 0.01,
    "empty": 0.01,
    "hang": 0.001,
    "error_billed": 0.5,
}

VENDORS = ("aws", "azure", "clarifai", "google", "native", "openai")

_logger = logging.getLogger(__name__)


@pytest.mark.parametrize(
    ("warm", "count"),
    [
        pytest.param(100, 200, id="short", marks=pytest.mark.timeout(240)),
        pytest.param(1_000, 10_000, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(7_200)]),
    ],
)
def test_under_faults_nothing_grows_nothing_breaks_and_the_ledger_knows_every_bill(
    warm: int, count: int, tmp_path: Path
) -> None:
    master = os.urandom(32)
    environment = ENVIRONMENT | {"MASTER": base64.b64encode(master).decode()}
    store = tmp_path / "gateway.db"
    options = [x for key, value in FAULTS.items() for x in ("-f", f"{key}={value}")]
    config = tmp_path / "gateway.toml"
    with simulation("aws", tmp_path, *options, "--no-check", backend="scripted:cat") as vendor:
        config.write_text(CONFIG.format(url=vendor.url, store=store))
        keys = made_keys(store, master, VENDORS)
        with running(config, environment) as there:
            customers = Customers(there, keys, seed=count)
            memory_mib = [_memory_after(warm, customers, there) for _ in range(count // warm)]
            customers.close()
            assert there.stop() == 0
            _check_answers(customers, count)
            _check_log(there, count)
        _check_bills(vendor, store, master)
    if count == 10_000:
        assert memory_mib[-1] < 1.05 * memory_mib[0], memory_mib


def _memory_after(count: int, customers: Customers, there: Running) -> float:
    customers.ask(count)
    memory_mib = there.memory_mib()
    _logger.warning("%d requests: %.1f MiB", customers.seen.total(), memory_mib)
    return memory_mib


def _check_answers(customers: Customers, count: int) -> None:
    assert customers.odd == []
    assert customers.seen.total() == count
    good = {said: seen for said, seen in customers.seen.items() if said.startswith(("good", "again"))}
    assert good["good 200"] + good["again 200"] > 0.98 * sum(good.values()), good
    _logger.warning("%s", dict(sorted(customers.seen.items())))


def _check_log(there: Running, count: int) -> None:
    assert there.complaints() == []
    assert there.log.read_text().count('"message": "request"') > count // 2


def _check_bills(vendor: Simulation, store: Path, master: bytes) -> None:
    all_keys = spent(store, master)
    calls, unknown = all_keys.calls, all_keys.unknown
    till = vendor.till()
    _logger.warning("billed %d, settled %d, unknown %d", till["billed"], calls, unknown)
    assert calls <= till["billed"] <= calls + unknown
    assert all_keys.held == 0
    assert till["sent_again"] <= unknown
    assert unknown > 0
