"""Keys over HTTP: the same as by command line, for the admin key alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.cli.app import app
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.errors import LedgerError
from smoothing_proxy.gateway.admin import Admin
from smoothing_proxy.gateway.app import every_wire, make_gateway
from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.openapi import openapi_document
from smoothing_proxy.gateway.references import NoReferences
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.serving import Address, listening
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from tests.gateway import sdks
from tests.gateway.gateways import DOG, SECRET, SMOOTHING, picture, serving

KEY = "the-admin-key-of-a-test-gateway-0123456789"
MASTER = b"\x07" * 32


@dataclass
class Administered:
    """A running gateway over a store in a file, and a client with the admin key."""

    address: Address
    gateway: Gateway
    backend: Any
    admin: httpx.Client
    portal: BlockingPortal

    @property
    def url(self) -> str:
        return self.address.url

    def create(self, name: str = "ann", vendor: str = "native", **terms: Any) -> dict[str, Any]:
        made = self.admin.post("/v1/admin/keys", json={"name": name, "vendor": vendor, **terms})
        assert made.status_code == 201, made.text
        return dict(made.json())

    def ask(self, secret: str, level: int = 100) -> httpx.Response:
        headers = {"authorization": f"Bearer {secret}", "content-type": "image/png"}
        return self.admin.post("/v1/predict", content=picture(level, 32), headers=headers)


@contextmanager
def administered(
    folder: Path,
    backend: ScriptedBackend | None = None,
    references: NoReferences = NoReferences(),  # noqa: B008 (without state)
) -> Iterator[Administered]:
    backend = backend or ScriptedBackend(DOG, batch_size=8)
    with start_blocking_portal() as portal:
        store = portal.call(lambda: GatewayStore.open(str(folder / "gateway.db"), secret_key=MASTER))
        gateway = portal.call(_made, backend, store, references)
        with (
            portal.wrap_async_context_manager(listening(gateway, every_wire())) as address,
            httpx.Client(timeout=20, base_url=address.url, headers={"authorization": f"Bearer {KEY}"}) as client,
        ):
            yield Administered(address, gateway, backend, client, portal)
        portal.call(store.close)


async def _made(backend: ScriptedBackend, store: GatewayStore, references: NoReferences) -> Gateway:
    classifier = BaseClassifier(backend, Identity(), sigma=SMOOTHING.sigma)
    settings = GatewaySettings(port=0, drain_s=2.0)
    return make_gateway(
        settings, classifier, SMOOTHING, LedgerStore(store), references=references, admin=Admin(store, KEY)
    )


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    with administered(tmp_path_factory.mktemp("store")) as there:
        yield there


def test_a_key_is_made_used_limited_rotated_disabled_and_let_in_again(tmp_path: Path) -> None:
    with administered(tmp_path) as there:
        made = there.create(calls_limit=100_000, period="day")
        one = f"/v1/admin/keys/{made['id']}"
        assert there.ask(made["secret"]).status_code == 200

        limited = there.admin.patch(one, json={"calls_limit": 1, "parallel": 2}).json()
        assert (limited["calls_limit"], limited["parallel"], limited["period"]) == (1, 2, "day")
        assert there.ask(made["secret"], 101).status_code == 402
        freed = there.admin.patch(one, json={"calls_limit": None}).json()
        assert (freed["calls_limit"], freed["parallel"]) == (None, 2)
        assert there.ask(made["secret"], 101).status_code == 200

        rotated = there.admin.post(f"{one}/rotate").json()
        assert there.ask(made["secret"], 102).status_code == 401
        assert there.ask(rotated["secret"], 102).status_code == 200

        assert there.admin.post("/v1/admin/keys/ann/disable").json()["disabled"] is True
        assert there.ask(rotated["secret"], 103).status_code == 401
        assert there.admin.post("/v1/admin/keys/ann/enable").json()["disabled"] is False
        assert there.ask(rotated["secret"], 103).status_code == 200

        (spent,) = there.admin.get("/v1/admin/spend", params={"key": "ann"}).json()["spend"]
    assert (spent["period"], spent["calls"], spent["unknown"]) == ("day", there.backend.asked, 0)


def test_http_and_command_line_tell_the_same(tmp_path: Path) -> None:
    import base64

    environ = {"SMOOTHING_PROXY_MASTER_KEY": base64.b64encode(MASTER).decode()}

    def said(*arguments: str) -> Any:
        command = ["keys", "--store", str(tmp_path / "gateway.db"), *arguments, "--json"]
        result = CliRunner(env=environ).invoke(app, command)
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    with administered(tmp_path) as there:
        there.create("ann", "aws", usd_limit=20, certify=True, target_radius=0.25, passthrough=False)
        secret = there.create("bob", requests_per_minute=600)["secret"]
        there.ask(secret)
        assert there.admin.get("/v1/admin/keys").json()["keys"] == said("list")
        assert there.admin.get("/v1/admin/spend").json()["spend"] == said("spend")
        bob = there.admin.get("/v1/admin/keys/bob").json()
        assert said("update", "bob", "--no-limit", "requests-per-minute")["requests_per_minute"] is None
        assert there.admin.get("/v1/admin/keys/bob").json() == {**bob, "requests_per_minute": None}


def test_a_secret_is_shown_once_and_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with administered(tmp_path) as there:
        secrets = [there.create("ann", "aws")["secret"]]
        secrets.append(there.admin.post("/v1/admin/keys/ann/rotate").json()["secret"])
        there.admin.post("/v1/admin/keys", json={"name": "ann", "vendor": "aws"})
        listed = there.admin.get("/v1/admin/keys").text + there.admin.get("/v1/admin/keys/ann").text
    told = "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "/v1/admin/keys/ann" in told
    assert not any(secret in listed or secret in told for secret in (*secrets, KEY))


def test_an_aws_pair_that_was_made_here_signs(tmp_path: Path) -> None:
    with administered(tmp_path) as there:
        made = there.create("ann", "aws")
        with sdks.rekognition(there, made["secret"], made["id"]) as client:  # type: ignore[arg-type]
            assert client.detect_labels(Image={"Bytes": picture()})["Labels"][0]["Name"] == "Dog"
    assert made["scheme"] == "sigv4"


OPERATIONS = [
    ("GET", "/v1/admin/keys"),
    ("POST", "/v1/admin/keys"),
    ("GET", "/v1/admin/keys/ann"),
    ("PATCH", "/v1/admin/keys/ann"),
    ("POST", "/v1/admin/keys/ann/rotate"),
    ("POST", "/v1/admin/keys/ann/disable"),
    ("POST", "/v1/admin/keys/ann/enable"),
    ("GET", "/v1/admin/spend"),
    ("GET", "/v1/admin/nothing"),
]


@pytest.mark.parametrize(
    "presented",
    [
        None,
        "",
        "Bearer",
        f"Basic {KEY}",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Bearer {KEY.upper()}",
        "Bearer ümlaut",
        "customer",
    ],
)
def test_nothing_but_the_admin_key_opens_it_and_a_failure_asks_nothing(
    there: Administered, monkeypatch: pytest.MonkeyPatch, presented: str | None
) -> None:
    customer = there.create("customer")["secret"] if presented == "customer" else ""
    value = f"Bearer {customer}" if customer else presented
    headers = {} if value is None else {b"authorization": value.encode()}
    asked: list[str] = []

    def touched(*_: object) -> None:
        asked.append("the store was asked")

    database = there.gateway.admin._store._database  # type: ignore[union-attr]
    monkeypatch.setattr(database, "read", touched)
    monkeypatch.setattr(database, "write", touched)
    with httpx.Client(base_url=there.url, timeout=20) as client:
        for method, path in OPERATIONS:
            refused = client.request(method, path, headers=headers, content=b"{")
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthenticated")
    assert asked == []


def test_the_admin_key_asks_for_no_picture(there: Administered) -> None:
    asked = there.backend.asked
    assert there.ask(KEY).status_code == 401
    body = {"model": "m", "messages": []}
    assert there.admin.post("/v1/chat/completions", json=body).status_code == 401
    assert there.admin.get("/v1/verdicts/one").status_code == 401
    assert there.backend.asked == asked


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/keys", b"{", 400, "JSON"),
        ("POST", "/keys", b"[]", 400, "object"),
        ("POST", "/keys", b'{"name": "x"}', 400, "vendor"),
        ("POST", "/keys", b'{"name": "", "vendor": "aws"}', 400, "name"),
        ("POST", "/keys", b'{"name": "\\n", "vendor": "aws"}', 400, "printable"),
        ("POST", "/keys", b'{"name": "\\ud800", "vendor": "aws"}', 400, ""),
        ("POST", "/keys", b'{"name": "x", "vendor": "ibm"}', 400, "vendor"),
        ("POST", "/keys", b'{"name": "x", "vendor": "aws", "secret": "s"}', 400, "secret"),
        ("POST", "/keys", b'{"name": "taken", "vendor": "aws"}', 400, "already"),
        ("PATCH", "/keys/taken", b'{"calls_limit": -1}', 400, "calls_limit"),
        ("PATCH", "/keys/taken", b'{"calls_limit": 1e400}', 400, "calls_limit"),
        ("PATCH", "/keys/taken", b'{"calls_limit": 99999999999999999999}', 400, "calls_limit"),
        ("PATCH", "/keys/taken", b'{"calls_limit": true}', 400, "calls_limit"),
        ("PATCH", "/keys/taken", b'{"usd_limit": NaN}', 400, "usd_limit"),
        ("PATCH", "/keys/taken", b'{"period": null}', 400, "period"),
        ("PATCH", "/keys/taken", b'{"parallel": 0}', 400, "parallel"),
        ("PATCH", "/keys/taken", b'{"target_radius": 0}', 400, "target_radius"),
        ("PATCH", "/keys/taken", b'{"vendor": "aws"}', 400, "vendor"),
        ("PATCH", "/keys/taken", b'{"name": "%s"}' % (b"x" * 2**17), 413, "larger"),
        ("PATCH", "/keys/nobody", b"{}", 404, "there is no key"),
        ("GET", "/keys/nobody", b"", 404, "there is no key"),
        ("POST", "/keys/nobody/rotate", b"", 404, "there is no key"),
        ("POST", "/keys/taken/delete", b"", 404, "no such operation"),
        ("DELETE", "/keys/taken", b"", 404, "no such operation"),
        ("GET", "/spend?period=year", b"", 400, "day, month, total"),
        ("GET", "/spend?month=may", b"", 400, "only key and period"),
        ("GET", "/spend?key=nobody", b"", 404, "there is no key"),
    ],
)
def test_bad_input_gets_a_clear_answer(
    there: Administered, method: str, path: str, body: bytes, status: int, said: str
) -> None:
    there.admin.post("/v1/admin/keys", json={"name": "taken", "vendor": "aws"})
    headers = {"content-type": "application/json"}
    refused = there.admin.request(method, f"/v1/admin{path}", content=body, headers=headers)
    assert refused.status_code == status, refused.text
    assert said in refused.json()["error"]["message"]


def test_a_store_that_is_away_is_told_as_such(there: Administered, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: object) -> None:
        raise LedgerError("the database does not answer at db.house.example")

    monkeypatch.setattr(there.gateway.admin._store._database, "read", away)  # type: ignore[union-attr]
    refused = there.admin.get("/v1/admin/keys")
    assert (refused.status_code, "house" in refused.text) == (503, False)


def test_a_body_in_another_format_is_refused(there: Administered) -> None:
    refused = there.admin.post("/v1/admin/keys", content=b"name=x", headers={"content-type": "text/plain"})
    assert (refused.status_code, "application/json" in refused.text) == (400, True)


def test_without_the_table_there_is_no_such_address() -> None:
    with serving() as there:
        for method, path in OPERATIONS:
            reply = there.client.request(method, path, headers={"authorization": f"Bearer {KEY}"})
            assert reply.status_code == 404
            assert there.client.request(method, path, headers=_customer()).status_code == 404
        assert not any("admin" in path for path in there.client.get("/openapi.json").json()["paths"])


def _customer() -> dict[str, str]:
    return {"authorization": f"Bearer {SECRET}"}


CONFIG = """
[admin]
key_env = "ADMIN_KEY"
[smoothing]
sigma = 0.25
[backend]
name = "scripted:cat"
"""
STORE = '[store]\naddress = "{}/gateway.db"\n'


@pytest.mark.parametrize(
    ("store", "key", "said"),
    [
        (False, KEY, "give it a table [store]"),
        (True, "", "ADMIN_KEY"),
        (True, "too-short", "at least 32"),
        (True, "with a space " * 4, "without spaces"),
    ],
)
def test_an_admin_key_that_cannot_be_is_refused_at_the_start(
    tmp_path: Path, store: bool, key: str, said: str
) -> None:
    import base64

    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG + (STORE.format(tmp_path) if store else '[[keys]]\nid = "one"\nsecret_env = "ONE"\n'))
    master = base64.b64encode(MASTER).decode()
    environ = {"ADMIN_KEY": key, "SMOOTHING_PROXY_MASTER_KEY": master, "ONE": "secret-of-one-key"}
    result = CliRunner(env=environ).invoke(app, ["serve", "--config", str(config), "--port", "0"])
    assert result.exit_code == 2
    assert said in result.output
    assert not key or key not in result.output


SCHEMA: Any = schemathesis.openapi.from_dict(dict(openapi_document(admin=True)))
ADMIN = {
    f"{found.ok().method} {found.ok().path}": found.ok()
    for found in SCHEMA.get_all_operations()
    if found.ok().path.startswith("/v1/admin")
}
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]


MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
CASES = [(name, mode) for name in ADMIN for mode in (MODES if name.startswith(("post", "patch")) else MODES[:1])]


@pytest.mark.parametrize(("name", "mode"), CASES, ids=[f"{name} {mode.value}" for name, mode in CASES])
def test_whatever_is_sent_the_answer_is_in_the_document(there: Administered, name: str, mode: Any) -> None:
    operation = ADMIN[name]

    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        reply = case.call(base_url=there.url, headers=headers, timeout=20)
        case.validate_response(reply, checks=CHECKS, headers=headers)

    ask()
