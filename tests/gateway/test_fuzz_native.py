"""The native API against its own OpenAPI document: whatever is sent, the answer is one that it states."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from smoothing_proxy.gateway.openapi import openapi_document
from tests.gateway.gateways import SECRET, There, picture, serving

SCHEMA: Any = schemathesis.openapi.from_dict(dict(openapi_document()))

CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.response_headers_conformance,
]

OPERATIONS = {f"{found.ok().method} {found.ok().path}": found.ok() for found in SCHEMA.get_all_operations()}

MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving() as there:
        yield there


def mediums(name: str) -> list[str | None]:
    body = OPERATIONS[name].definition.raw.get("requestBody", {})
    return sorted(body.get("content", {})) or [None]


def modes(name: str) -> list[Any]:
    """What has neither parameters nor a body cannot be asked wrongly."""
    return MODES if name.startswith("post") else MODES[:1]


CASES = [(name, media, mode) for name in OPERATIONS for media in mediums(name) for mode in modes(name)]


@pytest.mark.parametrize(
    "count", [pytest.param(12, id="some"), pytest.param(400, id="many", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("name", "media", "mode"), CASES, ids=[f"{n} {m} {k.value}" for n, m, k in CASES])
def test_what_is_answered_is_in_the_document(
    there: There, name: str, media: str | None, mode: Any, count: int
) -> None:
    operation = OPERATIONS[name]
    few = settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @few
    @given(case=operation.as_strategy(generation_mode=mode, media_type=media))
    def ask(case: Any) -> None:
        headers = {"x-api-key": SECRET}
        reply = case.call(base_url=there.url, headers=headers, timeout=PATIENCE_S)
        case.validate_response(reply, checks=CHECKS, headers=headers)

    ask()


def test_real_answers_are_in_the_document(there: There) -> None:
    """Of what is made up, next to nothing is a picture."""
    image = base64.b64encode(picture()).decode()
    headers = {"x-api-key": SECRET}
    for name, asked in (("predict", {"image": image}), ("certify", {"image": image, "target_radius": 0.25})):
        case = OPERATIONS[f"post /v1/{name}"].Case(body=asked, media_type="application/json")
        reply = case.call(base_url=there.url, headers=headers, timeout=PATIENCE_S)
        assert reply.status_code == 200
        case.validate_response(reply, checks=CHECKS, headers=headers)
        again = OPERATIONS["get /v1/verdicts/{id}"].Case(path_parameters={"id": reply.json()["id"]})
        kept = again.call(base_url=there.url, headers=headers, timeout=PATIENCE_S)
        assert kept.json() == reply.json()
        again.validate_response(kept, checks=CHECKS, headers=headers)


def form(*, boundary: bytes = b"x", disposition: bytes = b'form-data; name="image"; filename="x"') -> bytes:
    head = b"--" + boundary + b"\r\nContent-Disposition: " + disposition + b"\r\n\r\n"
    return head + picture() + b"\r\n--" + boundary + b"--\r\n"


MANY_FIELDS = b"".join(b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nv\r\n' for _ in range(1_000))

MULTIPART = "multipart/form-data; boundary="


@pytest.mark.parametrize(
    ("media", "body"),
    [
        (MULTIPART, form()),
        (MULTIPART + "b" * 5_000, form(boundary=b"b" * 5_000)),
        (MULTIPART + "\xff", form()),
        ("multipart/form-data", form()),
        (MULTIPART + "x", form(disposition=b"")),
        (MULTIPART + "x", form(disposition=b'form-data; name="\xff\xfe"; filename="\xff"')),
        (MULTIPART + "x", form(disposition=b'form-data; name="image"; filename="' + b"x" * 100_000 + b'"')),
        (MULTIPART + "x", MANY_FIELDS + b"--x--\r\n"),
        ("application/json", b'{"image":' * 100_000),
        ("application/json", b'{"image":"\\ud800"}'),
        ("application/json", '{"image":"AA=="}'.encode("utf-16")),
        ("application/json", b'{"image":"AAAA","target_radius":' + b"1" * 5_000 + b"}"),
        ("application/json", b'{"image":"AAAA","target_radius":1e999}'),
        ("application/json", b'{"image":"AAAA","target_radius":1.7976931348623157e308}'),
    ],
)
def test_bodies_of_odd_shapes_are_the_clients_fault(there: There, media: str, body: bytes) -> None:
    headers: dict[str, Any] = {"x-api-key": SECRET, "content-type": media.encode("latin-1")}
    reply = there.client.post("/v1/certify", content=body, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
