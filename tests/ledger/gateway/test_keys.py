"""Keys are shown once, checked in constant time, and never at rest in clear."""

from __future__ import annotations

import base64
import contextlib
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from smoothing_proxy.errors import ConfigError, LedgerError, MissingCredentialError, SchemaError
from smoothing_proxy.ledger.gateway.nouns import Budget, KeyTerms, StoreSettings
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.ledger.gateway.vault import Vault, referred_master_key
from tests.ledger.gateway.postgres import Postgres
from tests.ledger.gateway.stores import MASTER, open_store, plain_engine

pytestmark = pytest.mark.anyio

TERMS = KeyTerms(
    calls_limit=1_000,
    usd_limit=1.5,
    period="day",
    requests_per_minute=60,
    parallel=4,
    certify=True,
    target_radius=0.25,
)


async def test_a_token_proves_its_key_and_nothing_else_does(address: str) -> None:
    async with open_store(address) as store:
        key, token = await store.create_key("ann", "google", TERMS)
        other, _ = await store.create_key("bob", "google")
        assert token.startswith(key.id)
        assert await store.check_token("google", token) == key
        wrong = [
            "",
            key.id,
            f"{key.id}_",
            token[:-1],
            token + "A",
            token.lower(),
            token.replace(key.id, other.id),
            token.replace("_", "-"),
            "ü" * len(token),
            "\ud800" * len(token),
            "x\0" + token[2:],
        ]
        for presented in wrong:
            assert await store.check_token("google", presented) is None, presented
            assert presented == key.id or await store.key("google", presented) is None
        assert await store.check_token("azure", token) is None


async def test_a_signing_secret_is_known_to_its_own_key_only(address: str) -> None:
    async with open_store(address) as store:
        aws, secret = await store.create_key("ann", "aws")
        token_key, _ = await store.create_key("bob", "azure")
        assert await store.key("aws", aws.id) == aws
        assert await store.key("google", aws.id) is None
        assert await store.key("aws", "AKIAIOSFODNN7EXAMPLE") is None
        assert await store.secret_of(aws) == secret
        assert await store.check_token("aws", f"{aws.id}_{secret}") is None
        with pytest.raises(LedgerError, match="no signing secret"):
            await store.secret_of(token_key)


async def test_disabling_and_rotating_are_seen_by_the_other_replica_at_once(address: str) -> None:
    async with open_store(address) as here, open_store(address) as there:
        key, token = await here.create_key("ann", "openai")
        aws, first = await here.create_key("bob", "aws")
        await here.disable_key(key.id)
        await here.disable_key(aws.id)
        assert await there.check_token("openai", token) is None
        assert await there.key("aws", aws.id) is None
        with pytest.raises(LedgerError, match="unknown or disabled"):
            await there.reserve(key.id, 1, 0.0)
        await there.disable_key(key.id, disabled=False)
        assert await here.check_token("openai", token) == key
        _, new_token = await there.rotate_key(key.id)
        assert await here.check_token("openai", token) is None
        assert await here.check_token("openai", new_token) == key
        _, second = await there.rotate_key(aws.id)
        assert await here.secret_of(aws) == second != first


async def test_keys_come_back_as_they_were_made_and_changed(address: str) -> None:
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "clarifai", TERMS)
        assert {name: getattr(key, name) for name in ("calls_limit", "usd_limit", "period", "parallel")} == {
            "calls_limit": 1_000,
            "usd_limit": 1.5,
            "period": "day",
            "parallel": 4,
        }
        assert await store.keys() == [key]
        changed = await store.update_key(key.id, replace(TERMS, calls_limit=None, certify=False))
        assert changed == replace(key, calls_limit=None, certify=False)
        assert await store.key_by_id(key.id) == changed
        with pytest.raises(LedgerError, match="there is none"):
            await store.update_key("SPAKNOBODY", TERMS)


@pytest.mark.parametrize(
    ("name", "vendor", "said"),
    [
        ("", "aws", "name: expected 1 to 200"),
        ("a\nb", "aws", "printable"),
        ("ann", "amazon", "vendor: unknown: 'amazon'"),
        ("taken", "aws", "there is a key named 'taken' already"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(address: str, name: str, vendor: str, said: str) -> None:
    async with open_store(address) as store:
        await store.create_key("taken", "google")
        with pytest.raises(ConfigError, match=said):
            await store.create_key(name, vendor)
        assert len(await store.keys()) == 1


@pytest.mark.parametrize(
    "terms",
    [
        {"calls_limit": -1},
        {"usd_limit": float("nan")},
        {"usd_limit": float("inf")},
        {"period": "week"},
        {"requests_per_minute": 0},
        {"parallel": 0},
        {"target_radius": 0.0},
        {"target_radius": float("nan")},
    ],
)
def test_terms_out_of_their_range_are_refused(terms: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(terms))):
        KeyTerms(**terms)  # type: ignore[arg-type]


async def test_no_secret_is_at_rest_in_clear(address: str, request: pytest.FixtureRequest) -> None:
    async with open_store(address) as store:
        _, token = await store.create_key("ann", "google")
        aws, signing = await store.create_key("bob", "aws")
        _, rotated = await store.rotate_key(aws.id)
        at_rest = _all_that_is_written(address, request)
    assert aws.id.encode() in at_rest
    for secret in (token.partition("_")[2].encode(), signing.encode(), rotated.encode(), MASTER):
        for form in (secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")):
            assert form not in at_rest


def _all_that_is_written(address: str, request: pytest.FixtureRequest) -> bytes:
    if "://" not in address:
        return b"".join(path.read_bytes() for path in Path(address).parent.glob("gateway.db*"))
    server: Postgres = request.getfixturevalue("postgres")
    return server.run("pg_dump", server.url).encode()


async def test_another_master_key_is_refused_and_harms_nothing(address: str) -> None:
    async with open_store(address) as store:
        _, token = await store.create_key("ann", "google")
    with pytest.raises(ConfigError, match="not the master key that the store was made with"):
        await GatewayStore.open(address, secret_key=bytes(32))
    with pytest.raises(ConfigError, match="has 8 bytes, expected at least 32"):
        await GatewayStore.open(address, secret_key=b"too weak")
    async with open_store(address) as store:
        assert await store.check_token("google", token)


async def test_a_store_of_a_newer_version_is_refused(address: str) -> None:
    async with open_store(address):
        pass
    with plain_engine(address).begin() as connection:
        connection.execute(text("INSERT INTO gateway_schema (number) VALUES (99)"))
    with pytest.raises(SchemaError, match="schema 99"):
        await GatewayStore.open(address, secret_key=MASTER)


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("sqlite://", ConfigError, "expected a file"),
        ("mysql://ann:hunter2@host/db", ConfigError, "got mysql://"),
        ("postgresql://ann:hunter2@127.0.0.1:1/db", LedgerError, "postgresql://127.0.0.1/db: cannot write"),
        ("/nowhere/at/all/gateway.db", LedgerError, "/nowhere/at/all/gateway.db: cannot write"),
    ],
)
async def test_an_address_that_cannot_be_opened_is_said_without_its_password(
    address: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        await GatewayStore.open(address, secret_key=MASTER)
    assert "hunter2" not in str(raised.value)


async def test_replicas_may_make_the_store_at_the_same_time(address: str) -> None:
    tokens: list[str] = []

    async def replica(name: str) -> None:
        async with open_store(address) as store:
            tokens.append((await store.create_key(name, "google"))[1])

    async with anyio.create_task_group() as tasks:
        for name in ("ann", "bob", "cyd", "dan"):
            tasks.start_soon(replica, name)
    async with open_store(address) as store:
        assert [await store.check_token("google", token) is not None for token in tokens] == [True] * 4


async def test_a_new_file_that_somebody_else_writes_is_waited_for(tmp_path: Path) -> None:
    """SQLite refuses at once to turn it to WAL then, whatever its patience with locks is."""
    path = tmp_path / "gateway.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE something (x)")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked"):
            async with open_store(str(path), settings=StoreSettings(timeout_s=0.1)):
                pass
        threading.Timer(0.3, other.execute, ("COMMIT",)).start()
        async with open_store(str(path)) as store:
            await store.check()


async def test_a_store_whose_database_is_gone_says_so(address: str) -> None:
    async with open_store(address) as store:
        await store.check()
        with plain_engine(address).begin() as connection:
            connection.execute(text("ALTER TABLE gateway_master RENAME TO elsewhere"))
        with pytest.raises(LedgerError, match="cannot read"):
            await store.check()


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    async def make() -> None:
        async with open_store(str(tmp_path / "gateway.db")) as store:
            await store.create_key("ann", "google")
            modes = modes_in(tmp_path)
            assert set(modes.values()) == {0o600}, modes

    anyio.run(make)


def test_a_sealed_secret_opens_for_its_own_key_and_store_only() -> None:
    vault = Vault(MASTER, bytes(16), lambda count: bytes(count))
    sealed = vault.seal("SPAK1", "secret")
    assert vault.unseal("SPAK1", sealed) == "secret"
    for other, key_id, damaged in (
        (vault, "SPAK2", sealed),
        (vault, "SPAK1", sealed[:-1] + b"\0"),
        (Vault(MASTER, b"another store's.", lambda count: bytes(count)), "SPAK1", sealed),
    ):
        with pytest.raises(LedgerError, match="rotate the key"):
            other.unseal(key_id, damaged)
    assert vault.hash("SPAK1", "secret") != vault.hash("SPAK2", "secret")


def test_the_master_key_is_read_from_where_it_is_referred_to(tmp_path: Path) -> None:
    text_of_key = base64.b64encode(MASTER).decode()
    path = tmp_path / "master"
    path.write_text(text_of_key + "\n")
    assert referred_master_key("env:MASTER", {"MASTER": text_of_key}) == MASTER
    assert referred_master_key(f"file:{path}", {}) == MASTER
    for reference, error in (
        ("env:MASTER", MissingCredentialError),
        ("file:/nowhere", MissingCredentialError),
        (text_of_key, ConfigError),
        ("env:", ConfigError),
    ):
        with pytest.raises(error) as raised:
            referred_master_key(reference, {})
        assert text_of_key not in str(raised.value)
    for weak in ("hunter2hunter2", base64.b64encode(bytes(31)).decode(), "ü"):
        with pytest.raises(ConfigError, match="32 bytes or more in base64"):
            referred_master_key("env:MASTER", {"MASTER": weak})


@pytest.mark.parametrize(
    "settings",
    [
        {"lease_s": 0},
        {"timeout_s": 0},
        {"replay_s": -1},
        {"keep_s": 10.0, "replay_s": 20.0},
        {"cache_s": float("nan")},
    ],
)
def test_settings_out_of_their_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        StoreSettings(**settings)  # type: ignore[arg-type]
    assert StoreSettings().overall == Budget()
