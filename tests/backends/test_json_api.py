"""Two vendors of different shapes, described in TOML and served on this machine."""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Callable, Sequence
from email import message_from_bytes
from email.message import Message
from typing import Any

import anyio
import pytest

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.json_api import JsonApi
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigError,
    MalformedReplyError,
    MissingCredentialError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage, Encoding, encode
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import HttpReply, HttpRequest
from tests.backends.backend_asking import noise_pictures
from tests.wire.loopback import serving

TAGGER = """
headers = { Authorization = "Token {env:TAGGER_KEY}", X-Region = "eu" }
body = { inputs = [{ image = { b64 = "{image_base64}" }, top = 5 }], kind = "tags" }
labels_path = "$.result.tags[*].tag.en"
scores_path = "$.result.tags[*].percent"
score_scale = 100
model_version_path = "$.model.version"
request_id_path = "$.id"
errors = { "418" = "quota", "400" = "throttled" }
price_usd_per_1000 = 0.5
"""
FORM = """
method = "PUT"
multipart_field = "picture"
label_path = "$.best"
price_usd_per_1000 = 0
"""
ENVIRON = {"TAGGER_KEY": "secret-key"}


def tagger(request: HttpRequest) -> HttpReply:
    """Takes base64 in nested JSON, answers percents; repeats the picture's size as its first tag."""
    body = json.loads(request.body)
    size = len(base64.b64decode(body["inputs"][0]["image"]["b64"], validate=True))
    if request.headers["authorization"] != "Token secret-key" or body["inputs"][0]["top"] != 5:
        return HttpReply(401)
    tags = [{"tag": {"en": f"{size} bytes"}, "percent": 97.5}, {"tag": {"en": "dog"}, "percent": 2}]
    return answered({"result": {"tags": tags}, "model": {"version": 3}, "id": "q-1"})


def form(request: HttpRequest) -> HttpReply:
    """Takes a multipart form, answers one label."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    parts = message_from_bytes(head + request.body).get_payload()
    assert isinstance(parts, list)
    (part,) = parts
    assert isinstance(part, Message)
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    name = part.get_param("name", header="content-disposition")
    return answered({"best": f"{request.method} {name} {part.get_content_type()} {len(data)}"})


def answered(value: object, status: int = 200) -> HttpReply:
    return HttpReply(status, {"content-type": "application/json"}, json.dumps(value).encode())


def always(reply: HttpReply) -> Callable[[HttpRequest], HttpReply]:
    return lambda _: reply


def options(toml: str, **changes: Any) -> dict[str, Any]:
    known = {"url": "http://127.0.0.1:9/x", "environ": ENVIRON, "read_timeout_s": 10.0}
    merged = {**known, **tomllib.loads(toml), **changes}
    return {key: value for key, value in merged.items() if value is not ...}


def copy(text: str = "png", side: int = 16) -> EncodedImage:
    return encode(noise_pictures(1, side, side)[0], Encoding.parse(text))


def ask(settings: dict[str, Any], sent: EncodedImage) -> Reply:
    async def once() -> Sequence[Reply | BackendError]:
        backend = JsonApi(**settings)
        try:
            with anyio.fail_after(20):
                return await backend.classify([sent])
        finally:
            await backend.aclose()

    (answer,) = anyio.run(once)
    assert isinstance(answer, Reply)
    return answer


def reply_to(toml: str, value: object, **changes: Any) -> Reply:
    with serving(always(answered(value))) as url:
        return ask(options(toml, url=url, **changes), copy())


def test_a_vendor_with_base64_in_nested_json_and_percents() -> None:
    sent = copy()
    with serving(tagger) as url:
        reply = ask(options(TAGGER, url=f"{url}/v7/tags?lang=en"), sent)
    labels = (ScoredLabel(f"{len(sent.data)} bytes", 0.975), ScoredLabel("dog", 0.02))
    assert reply == Reply(labels, "3", "q-1")


def test_a_vendor_with_a_form_and_one_label() -> None:
    sent = copy("jpeg:90")
    with serving(form) as url:
        reply = ask(options(FORM, url=url, encoding="jpeg:90"), sent)
    assert reply == Reply((ScoredLabel(f"PUT picture image/jpeg {len(sent.data)}", 1.0),))


def test_a_data_url_or_the_bare_bytes_are_sent_too() -> None:
    seen: list[HttpRequest] = []

    def listen(request: HttpRequest) -> HttpReply:
        seen.append(request)
        return answered({"best": "dog"})

    sent = copy()
    with serving(listen) as url:
        template = {"image": ["see {image_data_url}"]}
        ask(options(FORM, url=url, multipart_field="", body=template), sent)
        ask(options(FORM, url=url, multipart_field="", body="raw"), sent)
    data_url = f"data:image/png;base64,{base64.b64encode(sent.data).decode()}"
    assert json.loads(seen[0].body) == {"image": [f"see {data_url}"]}
    assert (seen[1].body, seen[1].headers["content-type"]) == (sent.data, "image/png")


@pytest.mark.parametrize(
    ("paths", "value", "labels"),
    [
        (
            {"labels_path": "$[*].n", "scores_path": "$[*].s"},
            [{"n": "a", "s": 1}, {"n": "b", "s": 0}],
            {"a": 1, "b": 0},
        ),
        (
            {"labels_path": "$.l[*]", "scores_path": "$.s[*]"},
            {"l": ["a", "b"], "s": [0.2, 0.8]},
            {"a": 0.2, "b": 0.8},
        ),
        ({"labels_path": "$.s.`keys`", "scores_path": "$.s.*"}, {"s": {"a": 0.2, "b": 0.8}}, {"a": 0.2, "b": 0.8}),
        ({"labels_path": "$.l", "scores_path": "$.s"}, {"l": "a", "s": 0.5}, {"a": 0.5}),
        ({"labels_path": "$[*].n", "scores_path": "$[*].s"}, [{"n": 7, "s": 1.0}], {"7": 1.0}),
        ({"labels_path": "$[*].n", "scores_path": "$[*].s"}, [], {}),
        ({"label_path": "$.best"}, {"best": "a"}, {"a": 1.0}),
        ({"label_path": "$.best"}, {}, {}),
    ],
)
def test_labels_are_found_by_their_paths(paths: dict[str, str], value: object, labels: dict[str, float]) -> None:
    reply = reply_to(FORM, value, **{"label_path": "", **paths})
    assert {label.name: label.confidence for label in reply.labels} == labels


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([{"n": "a", "s": 1}, {"n": "b"}], "2 labels and 1 scores"),
        ([{"n": "a"}, {"s": 1}], "do not belong together"),
        ([{"n": "a", "s": 1.5}], "check score_scale"),
        ([{"n": "a", "s": -0.1}], "check score_scale"),
        ([{"n": "a", "s": 10**400}], "check score_scale"),
        ([{"n": "a", "s": "1"}], "no number"),
        ([{"n": "a", "s": True}], "no number"),
        ([{"n": None, "s": 1}], "neither text nor number"),
        ([{"n": "", "s": 1}], "neither text nor number"),
    ],
)
def test_a_reply_that_does_not_fit_is_malformed_and_kept(value: object, words: str) -> None:
    paths = {"label_path": "", "labels_path": "$[*].n", "scores_path": "$[*].s"}
    with pytest.raises(MalformedReplyError, match=words) as caught:
        reply_to(FORM, value, **paths)
    assert json.loads(caught.value.reply) == value


def test_two_values_for_the_one_label_are_malformed() -> None:
    with pytest.raises(MalformedReplyError, match="2 values"):
        reply_to(FORM, [{"best": "a"}, {"best": "b"}], label_path="$[*].best")


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000, b'{"best": NaN}'])
def test_an_answer_that_is_no_json_is_malformed(body: bytes) -> None:
    with serving(always(HttpReply(200, {}, body))) as url, pytest.raises(MalformedReplyError, match="not JSON"):
        ask(options(FORM, url=url), copy())


@pytest.mark.parametrize(
    ("status", "kind", "billed"),
    [
        (418, QuotaExceededError, False),
        (400, RateLimitedError, False),
        (401, AuthenticationError, False),
        (404, AuthenticationError, False),
        (422, RequestRejectedError, False),
        (429, RateLimitedError, False),
        (500, BackendUnavailableError, True),
        (503, BackendUnavailableError, False),
        (504, BackendTimeoutError, True),
    ],
)
def test_a_status_means_the_usual_unless_the_table_says_otherwise(
    status: int, kind: type[BackendError], billed: bool
) -> None:
    failing = HttpReply(status, {"retry-after": "7"}, b"Token secret-key is wrong")
    with serving(always(failing)) as url, pytest.raises(BackendError) as caught:
        ask(options(TAGGER, url=url), copy())
    assert type(caught.value) is kind
    assert caught.value.maybe_billed is billed
    assert "secret-key" not in str(caught.value)
    assert getattr(caught.value, "retry_after", 7.0) == 7.0


@pytest.mark.parametrize(
    ("limits", "sent", "words"),
    [
        ({"max_bytes": 100}, copy(), "larger than the 100"),
        ({"max_side_px": 15}, copy(), "at most 15 px"),
        ({"min_side_px": 50}, copy(), "too small"),
        ({}, copy("raw"), "encoding"),
    ],
)
def test_a_copy_outside_of_the_limits_is_not_sent(limits: dict[str, int], sent: EncodedImage, words: str) -> None:
    with pytest.raises(RequestRejectedError, match=words) as caught:
        ask(options(FORM, **limits), sent)
    assert caught.value.attempts == 0
    assert JsonApi(**options(FORM, min_side_px=50)).encoding.min_side_px == 50


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"environ": {}}, MissingCredentialError, "headers.Authorization: .* TAGGER_KEY is not set"),
        ({"headers": {"Authorization": "Bearer abc"}}, ConfigError, r"\{env:NAME\}"),
        ({"headers": {"x": 1}}, ConfigError, "headers.x"),
        ({"body": {"image": "base64"}}, ConfigError, "where the picture belongs"),
        ({"body": "image"}, ConfigError, "where the picture belongs"),
        ({"body": {"image": "{image_base64}", "x": float("nan")}}, ConfigError, "body"),
        ({"body": ...}, ConfigError, "set one of body"),
        ({"multipart_field": "image"}, ConfigError, "set one of body"),
        ({"body": ..., "multipart_field": 'a"b'}, ConfigError, "form field"),
        ({"labels_path": "$.["}, ConfigError, r"labels_path: '\$.\[' is no JSONPath"),
        ({"scores_path": "$..[?("}, ConfigError, "scores_path"),
        ({"scores_path": ""}, ConfigError, "set either"),
        ({"label_path": "$.x"}, ConfigError, "set either"),
        ({"labels_path": "", "scores_path": ""}, ConfigError, "set either"),
        ({"score_scale": 0}, ConfigError, "score_scale"),
        ({"method": "GET"}, ConfigError, "carries no picture"),
        ({"url": "vision.example.com"}, ConfigError, "url"),
        ({"errors": {"418": "qota"}}, ConfigError, "errors.418: .*did you mean 'quota'"),
        ({"errors": {"teapot": "quota"}}, ConfigError, "no status"),
        ({"max_bytes": -1}, ConfigError, "max_bytes"),
        ({"min_side_px": 9, "max_side_px": 8}, ConfigError, "less than min_side_px"),
        ({"encoding": "raw"}, ConfigError, "encoding"),
        ({"price_usd_per_1000": None}, ConfigError, "price_usd_per_1000"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    changes: dict[str, Any], kind: type[ConfigError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        JsonApi(**options(TAGGER, **changes))


def test_it_is_a_backend_whose_fingerprint_holds_no_secret() -> None:
    backend: Backend = JsonApi(**options(TAGGER))
    assert isinstance(backend, Backend)
    assert (backend.name, backend.batch_size, backend.price_usd) == ("json-api", 1, 0.0005)
    other = JsonApi(**options(TAGGER, environ={"TAGGER_KEY": "another"}))
    assert other.fingerprint == backend.fingerprint
    changed = JsonApi(**options(TAGGER, body={"i": "{image_base64}"}))
    assert changed.fingerprint != backend.fingerprint
