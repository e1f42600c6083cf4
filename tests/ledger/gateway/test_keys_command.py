"""`smoothing-proxy keys`: a secret is printed once, and what is listed is what was made."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result

from smoothing_proxy.cli.app import app
from tests.ledger.gateway.stores import MASTER, open_store

Invoke = Callable[..., Result]
ENVIRON = {"SMOOTHING_PROXY_MASTER_KEY": base64.b64encode(MASTER).decode(), "COLUMNS": "200"}


@pytest.fixture
def keys(address: str, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """`smoothing-proxy keys --store ADDRESS ARGUMENTS`."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, ["keys", "--store", address, *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def made(keys: Invoke, *arguments: str) -> dict[str, str]:
    result = keys("create", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, str] = json.loads(result.stdout)
    return found


def test_a_key_is_made_listed_changed_rotated_and_disabled(keys: Invoke, address: str) -> None:
    key = made(keys, "ann", "--vendor", "google", "--calls-limit", "1000", "--period", "day", "--certify")
    listed = json.loads(keys("list", "--json").stdout)
    assert listed == [{name: value for name, value in key.items() if name != "secret"}]
    assert (listed[0]["calls_limit"], listed[0]["period"], listed[0]["certify"]) == (1000, "day", True)
    changed = json.loads(keys("update", "ann", "--usd-limit", "2.5", "--json").stdout)
    assert (changed["calls_limit"], changed["usd_limit"], changed["period"]) == (1000, 2.5, "day")
    rotated = json.loads(keys("rotate", key["id"], "--json").stdout)
    assert rotated["secret"] != key["secret"]

    async def proves(secret: str) -> bool:
        async with open_store(address) as store:
            return await store.check_token("google", secret) is not None

    assert [anyio.run(proves, secret) for secret in (key["secret"], rotated["secret"])] == [False, True]
    assert "disabled" in keys("disable", "ann").output
    assert not anyio.run(proves, rotated["secret"])
    keys("disable", "ann", "--undo")
    assert anyio.run(proves, rotated["secret"])


def test_a_limit_can_be_taken_away_again(keys: Invoke) -> None:
    limits = ["--calls-limit", "1000", "--requests-per-minute", "60", "--parallel", "2", "--no-passthrough"]
    made(keys, "ann", "--vendor", "google", *limits)
    without = ["--no-limit", "requests-per-minute", "--no-limit", "passthrough", "--parallel", "3"]
    changed = json.loads(keys("update", "ann", *without, "--json").stdout)
    found = {name: changed[name] for name in ("calls_limit", "requests_per_minute", "parallel", "passthrough")}
    assert found == {"calls_limit": 1000, "requests_per_minute": None, "parallel": 3, "passthrough": None}
    refused = keys("update", "ann", "--no-limit", "parallel", "--parallel", "4")
    assert (refused.exit_code, "set by another option" in refused.output) == (2, True)
    assert json.loads(keys("list", "--json").stdout) == [changed]


def test_a_secret_is_printed_when_it_is_made_and_never_again(keys: Invoke) -> None:
    secret = made(keys, "ann", "--vendor", "aws")["secret"]
    shown = keys("create", "bob", "--vendor", "aws").output
    assert "AWS_ACCESS_KEY_ID=SPAK" in shown
    assert "shown once" in shown
    for command in (
        ["list"],
        ["list", "--json"],
        ["spend"],
        ["disable", "ann"],
        ["update", "ann", "--parallel", "2"],
    ):
        output = keys(*command).output
        assert "ann" in output
        assert secret not in output


def test_what_was_spent_is_told(keys: Invoke, address: str) -> None:
    ann = made(keys, "ann [bold]", "--vendor", "aws", "--period", "total")["id"]
    made(keys, "bob", "--vendor", "google")

    async def spend_some() -> None:
        async with open_store(address) as store:
            reservation = await store.reserve(ann, 5, 0.001)
            await store.charge(reservation, 3)
            await store.settle(reservation)

    anyio.run(spend_some)
    rows = json.loads(keys("spend", "--period", "total", "--json").stdout)
    assert [(row["name"], row["unknown"], row["usd"]) for row in rows] == [
        ("ann [bold]", 3, 0.003),
        ("bob", 0, 0.0),
    ]
    (row,) = json.loads(keys("spend", ann, "--json").stdout)
    assert (row["period"], row["calls"], row["held"]) == ("total", 0, 0)
    table = keys("spend").output
    assert "ann [bold]" in table
    assert "bob" in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["disable", "anne"], "there is no key 'anne'; did you mean 'ann'?"),
        (["create", "ann", "--vendor", "aws"], "there is a key named 'ann' already"),
        (["create", "bob", "--vendor", "aws", "--parallel", "0"], "parallel: expected a number from 1 on"),
        (["--master-key", "env:NOWHERE", "list"], "the environment variable NOWHERE is not set"),
        (["--master-key", "hunter2", "list"], "expected env:NAME or file:PATH, never the key itself"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(keys: Invoke, arguments: list[str], said: str) -> None:
    made(keys, "ann", "--vendor", "google")
    result = keys(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "hunter2" not in result.output


def test_another_master_key_is_refused(keys: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    made(keys, "ann", "--vendor", "google")
    monkeypatch.setenv("OTHER", base64.b64encode(bytes(32)).decode())
    result = keys("--master-key", "env:OTHER", "list")
    assert (result.exit_code, "not the master key" in result.output) == (2, True)


def test_the_store_of_a_configuration_file(
    keys: Invoke, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(keys, "ann", "--vendor", "google")
    monkeypatch.setenv("WHERE", address)
    monkeypatch.setenv("MASTER", ENVIRON["SMOOTHING_PROXY_MASTER_KEY"])
    monkeypatch.delenv("SMOOTHING_PROXY_MASTER_KEY")
    for table, exit_code, said in (
        ('address_env = "WHERE"\nmaster_key_env = "MASTER"', 0, "ann"),
        ('address_env = "NOWHERE"\nmaster_key_env = "MASTER"', 2, "NOWHERE is not set"),
        ('address_env = "WHERE"', 2, "SMOOTHING_PROXY_MASTER_KEY is not set"),
        ('address = "x"\naddress_env = "WHERE"', 2, "exactly one of them"),
        ('adress = "x"', 2, "store: adress: unknown key; did you mean 'address'?"),
        ('address = "x"\nlease_s = 0', 2, "lease_s: expected a number above 0"),
        ('address = "nowhere.db"\nmaster_key_env = "MASTER"', 2, "there is no store"),
    ):
        config = tmp_path / "gateway.toml"
        config.write_text(f"[store]\n{table}\n", encoding="utf-8")
        result = CliRunner().invoke(app, ["keys", "--config", str(config), "list"])
        assert (result.exit_code, said in result.output) == (exit_code, True), result.output
    assert CliRunner().invoke(app, ["keys", "list"]).exit_code == 2
