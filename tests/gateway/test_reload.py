"""A limit that is taken away, and a SIGHUP: the running gateway knows."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway.test_ledger_store import keys
from tests.gateway.test_serve import CONFIG, ENVIRON, KEY, served, status

STORE = '[store]\naddress = "{0}"\nmaster_key_env = "MASTER"\n'


def in_the_store(config: Path) -> tuple[str, Callable[[], object]]:
    """A key of one request a minute; and how it loses that limit."""
    config.write_text(CONFIG + STORE.format(config.with_suffix(".db")))
    secret = keys(config.parent, "create", "shop", "--vendor", "native", "--requests-per-minute", "1")["secret"]
    return secret, lambda: keys(config.parent, "update", "shop", "--no-limit", "requests-per-minute")


def in_the_file(config: Path) -> tuple[str, Callable[[], object]]:
    """A key of a single fan-out, for which 1,000 queries are held; likewise."""
    unlimited = CONFIG + KEY.format("one")
    config.write_text(unlimited + "limit_queries = 1005\n")
    return ENVIRON["KEY_OF_one"], lambda: config.write_text(unlimited)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("made", "refusal", "said"),
    [
        (in_the_store, 429, ["there is nothing to read anew"]),
        (in_the_file, 402, ["is forgotten when this process ends", "keys and limits were read anew"]),
    ],
)
def test_a_limit_that_was_taken_away_holds_no_longer_after_a_reload(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: Callable[[Path], tuple[str, Callable[[], object]]],
    refusal: int,
    said: list[str],
) -> None:
    monkeypatch.setenv("MASTER", base64.b64encode(os.urandom(32)).decode())
    config = tmp_path / "gateway.toml"
    secret, take_away = made(config)
    with served(config, 120.0) as (url, process):
        assert status(url, secret, 1) == 200
        assert status(url, secret, 2) == refusal
        take_away()
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while status(url, secret, 2) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [status(url, secret, level) for level in (3, 4)] == [200, 200]
        process.terminate()
        _, log = process.communicate(timeout=60)
    told = [json.loads(line)["message"] for line in log.splitlines()]
    found = [line for line in told if "read anew" in line or "is forgotten" in line]
    assert [text in line for text, line in zip(said, found, strict=True)] == [True] * len(said)
