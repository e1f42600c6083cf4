"""What a client did wrong, in its vendor's own words and never as a fault of ours."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.forms import one_of
from tests.gateway.gateways import KEY_ID, SECRET, There, picture, serving


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving(body_timeout_s=1.0) as there:
        yield there


@dataclass(frozen=True)
class Format:
    """How one vendor is asked, and where its errors say what is wrong."""

    path: str
    headers: Mapping[str, str] = field(repr=False)
    code: tuple[str | int, ...]
    limit: int
    json: bool = True

    def body(self, image: bytes) -> bytes:
        data = base64.b64encode(image).decode()
        if self.path == "/":
            return json.dumps({"Image": {"Bytes": data}}).encode()
        if "annotate" in self.path:
            feature = {"type": "LABEL_DETECTION"}
            return json.dumps({"requests": [{"image": {"content": data}, "features": [feature]}]}).encode()
        if "outputs" in self.path:
            return json.dumps({"inputs": [{"data": {"image": {"base64": data}}}]}).encode()
        if "chat" in self.path:
            url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
            messages = [{"role": "user", "content": [url]}]
            wanted = one_of("Dog", "cat")
            return json.dumps({"model": "m", "messages": messages, "response_format": wanted}).encode()
        return image

    def ask(self, there: There, body: bytes, **headers: str) -> httpx.Response:
        sent = {**self.headers, **headers}
        request = there.client.build_request("POST", self.path, content=body, headers=sent)
        return there.client.send(_signed(request) if self.path == "/" else request)


def _signed(request: httpx.Request) -> httpx.Request:
    from botocore.auth import SigV4Auth  # type: ignore[import-untyped, unused-ignore]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped, unused-ignore]
    from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]

    names = ("content-type", "x-amz-target", "host")
    headers = {name: request.headers[name] for name in names if name in request.headers}
    signed = AWSRequest(request.method, str(request.url), data=request.content, headers=headers)
    SigV4Auth(Credentials(KEY_ID, SECRET), "rekognition", "us-east-1").add_auth(signed)
    request.headers.update(dict(signed.headers))
    return request


JSON = {"content-type": "application/json"}

FORMATS = {
    "aws": Format(
        "/",
        {"content-type": "application/x-amz-json-1.1", "x-amz-target": "RekognitionService.DetectLabels"},
        ("__type",),
        7_100_000,
    ),
    "google": Format("/v1/images:annotate", {"x-goog-api-key": SECRET, **JSON}, ("error", "status"), 10_000_000),
    "azure": Format(
        "/vision/v3.2/tag",
        {"ocp-apim-subscription-key": SECRET, "content-type": "application/octet-stream"},
        ("error", "code"),
        20 * 2**20 - 1,
        json=False,
    ),
    "clarifai": Format(
        "/v2/models/general-image-recognition/outputs",
        {"authorization": f"Key {SECRET}", **JSON},
        ("status", "code"),
        0,
    ),
    "openai": Format("/v1/chat/completions", {"authorization": f"Bearer {SECRET}", **JSON}, ("error", "type"), 0),
    "native": Format(
        "/v1/predict", {"authorization": f"Bearer {SECRET}", "content-type": "image/png"}, ("error", "code"), 0
    ),
}


def told(reply: httpx.Response, where: tuple[str | int, ...]) -> Any:
    found = reply.json()
    for key in where:
        found = found[key]
    return found


BAD_PICTURES = {
    "aws": (400, "InvalidImageFormatException"),
    "azure": (400, "InvalidRequest"),
    "clarifai": (400, 10020),
    "openai": (400, "invalid_request_error"),
    "native": (422, "bad_image"),
}


@pytest.mark.parametrize("vendor", BAD_PICTURES)
@pytest.mark.parametrize("image", [b"no picture", picture()[:100], picture()[:33] + b"\0" * 50])
def test_a_bad_picture_is_the_clients_fault(there: There, vendor: str, image: bytes) -> None:
    form = FORMATS[vendor]
    reply = form.ask(there, form.body(image))
    assert (reply.status_code, told(reply, form.code)) == BAD_PICTURES[vendor]


MALFORMED = {
    "aws": (400, "SerializationException"),
    "google": (400, "INVALID_ARGUMENT"),
    "clarifai": (400, 11102),
    "openai": (400, "invalid_request_error"),
}


@pytest.mark.parametrize("vendor", MALFORMED)
@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"\xff\xfe", b'{"a":' * 3000])
def test_a_body_that_is_no_json_is_the_clients_fault(there: There, vendor: str, body: bytes) -> None:
    form = FORMATS[vendor]
    reply = form.ask(there, body)
    assert (reply.status_code, told(reply, form.code)) in (MALFORMED[vendor], (400, "InvalidParameterException"))


UNKNOWN = {
    "aws": ("/", {"x-amz-target": "RekognitionService.DetectFaces"}, 404, "UnknownOperationException"),
    "google": ("/v1/images:asyncBatchAnnotate", {}, 404, "NOT_FOUND"),
    "azure": ("/vision/v3.2/describe", {}, 404, "404"),
    "clarifai": ("/v2/users/u/apps/a/workflows", {}, 404, 11101),
    "openai": ("/v1/responses", {}, 404, "invalid_request_error"),
}


@pytest.mark.parametrize("vendor", UNKNOWN)
def test_another_operation_is_refused_as_unknown(there: There, vendor: str) -> None:
    path, headers, status, code = UNKNOWN[vendor]
    form = FORMATS[vendor]
    other = Format(path, {**form.headers, **headers}, form.code, form.limit)
    reply = other.ask(there, form.body(picture()))
    assert (reply.status_code, told(reply, form.code)) == (status, code)


def test_another_feature_is_refused(there: There) -> None:
    body = {"requests": [{"image": {"content": "aa"}, "features": [{"type": "FACE_DETECTION"}]}]}
    reply = FORMATS["google"].ask(there, json.dumps(body).encode())
    assert reply.status_code == 400
    assert "LABEL_DETECTION" in told(reply, ("error", "message"))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("vendor", "size"), [("aws", 7_100_001), ("google", 10_000_001), ("azure", 20 * 2**20)])
def test_a_body_above_the_limit_is_never_kept(there: There, vendor: str, size: int, chunked: bool) -> None:
    form = FORMATS[vendor]
    headers = dict(form.headers)
    if vendor == "aws":
        headers = dict(_signed(there.client.build_request("POST", "/", content=b"x", headers=headers)).headers)
        del headers["content-length"]
    content: Any = (bytes(2**20) for _ in range(size // 2**20 + 1)) if chunked else bytes(size)
    reply = there.client.post(form.path, content=content, headers=headers)
    assert reply.status_code == 413
    assert told(reply, form.code)


def test_chunked_bodies_are_taken(there: There) -> None:
    image = picture(55)
    pieces = (image[i : i + 50] for i in range(0, len(image), 50))
    reply = there.client.post("/vision/v3.2/tag", content=pieces, headers=FORMATS["azure"].headers)
    assert [tag["name"] for tag in reply.json()["tags"]] == ["Dog", "Pet", "Grass"]


def test_a_picture_that_unpacks_too_large_is_refused(there: There) -> None:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    reply = there.ask(image=header + b"\0" * 100)
    assert reply.status_code == 422


def test_a_body_that_never_arrives_is_given_up(there: There) -> None:
    with socket.create_connection((there.address.host, there.address.port), timeout=10) as wire:
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: 9\r\n\r\n"
        )
        wire.sendall(head.encode() + b"abc")
        assert wire.recv(4096).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("path", ["/", "/nowhere", "/v1/predict/x", "/%00", "/v1/verdicts/"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_an_address_of_nobody_is_not_found(there: There, path: str, method: str) -> None:
    reply = there.client.request(method, path)
    assert reply.status_code == 404


@pytest.mark.parametrize("radius", ["x", "-1", "nan", "inf", "99", "1e-400", "1.7976931348623157e308"])
def test_a_radius_that_cannot_be_had_is_the_clients_fault(there: There, radius: str) -> None:
    reply = there.ask("/v1/certify", headers={"x-smoothing-target-radius": radius})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")


def test_a_radius_that_is_next_to_nothing_is_rounded_up_to_one_step(there: There) -> None:
    reply = there.ask("/v1/certify", headers={"x-smoothing-target-radius": "1e-320"})
    assert (reply.status_code, reply.json()["radius"]) == (200, 0.05)


def test_no_log_line_holds_a_picture_or_a_secret(there: There, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for form in FORMATS.values():
            form.ask(there, form.body(picture(60)))
            form.ask(there, b"{")
    lines = caplog.text + repr([getattr(record, "said", None) for record in caplog.records])
    assert "'outcome': 'answered'" in lines
    assert SECRET not in lines
    assert base64.b64encode(picture(60)).decode()[:40] not in lines


mutations = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 500), st.just(b"")),
    st.tuples(st.just("insert"), st.integers(0, 500), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("replace"), st.integers(0, 500), st.binary(min_size=1, max_size=8)),
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def mutated(body: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, at, data in changes:
        at = at % (len(body) + 1)
        end = {"cut": len(body), "insert": at, "replace": at + len(data)}[kind]
        body = body[:at] + data + body[end:]
    return body


def swapped(value: Any, path: list[int], new: Any) -> Any:
    """The document with something else somewhere."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    pairs = [(other, swapped(value[other], path[1:], new) if other == key else value[other]) for other in keys]
    return dict(pairs) if isinstance(value, dict) else [item for _, item in pairs]


FUZZED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.mark.parametrize("vendor", FORMATS)
@FUZZED
@given(changes=st.lists(mutations, min_size=1, max_size=3))
def test_damaged_requests_are_answered_or_refused(
    there: There, vendor: str, changes: list[tuple[str, int, bytes]]
) -> None:
    form = FORMATS[vendor]
    reply = form.ask(there, mutated(form.body(picture(side=64)), changes))
    assert reply.status_code < 500, reply.text


@pytest.mark.parametrize("vendor", [name for name, form in FORMATS.items() if form.json and name != "native"])
@FUZZED
@given(path=st.lists(st.integers(0, 5), max_size=5), new=values)
def test_requests_with_something_else_in_them_are_answered_or_refused(
    there: There, vendor: str, path: list[int], new: Any
) -> None:
    form = FORMATS[vendor]
    body = swapped(json.loads(form.body(picture(side=64))), path, new)
    reply = form.ask(there, json.dumps(body).encode())
    assert reply.status_code < 500, reply.text


@FUZZED
@given(
    vendor=st.sampled_from(sorted(set(FORMATS) - {"aws"})),
    name=st.sampled_from(
        ["content-type", "authorization", "x-goog-api-key", "accept", "idempotency-key", "x-api-key"]
    ),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30),
)
def test_headers_with_anything_in_them_are_answered_or_refused(
    there: There, vendor: str, name: str, value: str
) -> None:
    form = FORMATS[vendor]
    headers: Any = {**form.headers, name: value.strip().encode("latin-1")}
    reply = there.client.post(form.path, content=form.body(picture(side=64)), headers=headers)
    assert reply.status_code < 500, reply.text
