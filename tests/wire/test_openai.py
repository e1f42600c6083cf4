"""Chat completions as pure functions: what a client makes of answers, and what a server makes of requests."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    MalformedReplyError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault, Wire
from smoothing_proxy.wire.openai import OpenAiWire, chat_url, error_of, reply_of, request_body
from tests.wire.openai_exchanges import (
    LABELS,
    PNG,
    chat_request,
    completion,
    picture_message,
    recorded,
    schema_format,
)

WIRE: Wire = OpenAiWire()
NOW = datetime(2026, 11, 21, tzinfo=UTC)
Enum = {"type": "string", "enum": ["dog", "cat"]}


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://h", "http://h/v1/chat/completions"),
        ("http://h/", "http://h/v1/chat/completions"),
        ("http://h/v1", "http://h/v1/chat/completions"),
        ("http://h/openai/v1/", "http://h/openai/v1/chat/completions"),
        ("http://h/v1beta/openai", "http://h/v1beta/openai/chat/completions"),
        ("http://h/my/chat/completions", "http://h/my/chat/completions"),
    ],
)
def test_a_base_may_end_before_or_after_its_version(base: str, url: str) -> None:
    assert chat_url(base) == url


def test_the_request_holds_the_picture_the_closed_list_and_no_freedom() -> None:
    body = json.loads(request_body(PNG, "image/png", LABELS, model="m", detail="low", extra={"seed": 1}))
    assert (body["model"], body["temperature"], body["n"], body["seed"]) == ("m", 0.0, 1, 1)
    assert body["response_format"]["json_schema"]["strict"] is True
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == list(LABELS)
    assert schema["additionalProperties"] is False
    text, picture = body["messages"][0]["content"]
    assert '["dog", "cat", "hot dog"]' in text["text"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert picture["image_url"]["detail"] == "low"
    assert "temperature" not in json.loads(request_body(PNG, "image/png", LABELS, model="m", temperature=None))


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (recorded("completion.json"), "dog"),
        (completion('{"label": "hot dog"}'), "hot dog"),
        (completion(' {"label":"cat"}\n'), "cat"),
        (completion("cat"), "cat"),
        (completion("It is a cat."), None),
        (completion('{"label": "Cat"}'), None),
        (completion('{"label": "horse"}'), None),
        (completion('{"label": ["cat"]}'), None),
        (completion('{"label": "cat", "label": "dog"}'), None),
        (completion('{"label": "cat", "why": "whiskers"}'), None),
        (completion('{"class": "cat"}'), None),
        (completion('[["label", "cat"]]'), None),
        (completion("[" * 100_000), None),
        (completion(""), None),
        (completion(None), None),
        (completion(None, refusal="I cannot help with that."), None),
        (completion('{"label": "cat"}', refusal="No."), None),
        (completion('{"label": "cat"}', finish_reason="length"), None),
        (completion('{"label": "cat"}', finish_reason="content_filter"), None),
    ],
)
def test_an_answer_is_one_label_of_the_list_or_nothing(answer: HttpReply, label: str | None) -> None:
    reply = reply_of(answer, LABELS)
    assert reply.labels == (() if label is None else (ScoredLabel(label, 1.0),))
    assert reply.model_version == "gpt-4.1-mini-2025-04-14"
    assert reply.request_id.startswith("chatcmpl-")


def test_the_fingerprint_is_part_of_the_version_only_where_asked_for() -> None:
    answer = recorded("completion.json")
    assert reply_of(answer, LABELS, with_fingerprint=True).model_version == "gpt-4.1-mini-2025-04-14/fp_7c233bf9d1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"choices": []}',
        b'{"choices": [1]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": "dog"}]}',
        b'{"choices": [{"message": {"content": ["dog"]}}]}',
        b'{"error": {"message": "upstream"}}',
    ],
)
def test_a_body_outside_of_the_format_is_malformed_and_kept(body: bytes) -> None:
    with pytest.raises(MalformedReplyError) as caught:
        reply_of(HttpReply(200, {}, body), LABELS)
    assert caught.value.reply == body


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["dog", '{"label":"dog"}']),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "error", "code", "model", "id"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_any_json_is_a_reply_or_malformed_and_any_error_body_a_backend_error(value: object) -> None:
    answer = HttpReply(500, {}, json.dumps(value).encode())
    with contextlib.suppress(MalformedReplyError):
        assert isinstance(reply_of(answer, LABELS), Reply)
    assert isinstance(error_of(answer, backend="b"), BackendError)


@pytest.mark.parametrize(
    ("answer", "kind", "billed", "words"),
    [
        (recorded("error_401.json", 401), AuthenticationError, False, "HTTP 401: invalid_api_key"),
        (recorded("error_404_model.json", 404), AuthenticationError, False, "`gpt-9` does not exist"),
        (recorded("error_429_quota.json", 429), QuotaExceededError, False, "current quota"),
        (recorded("error_429_rate.json", 429), RateLimitedError, False, "tokens per min"),
        (HttpReply(403, {}, b""), AuthenticationError, False, "HTTP 403"),
        (HttpReply(402, {}, b'{"error": "no credits"}'), QuotaExceededError, False, "no credits"),
        (HttpReply(307, {"location": "/x"}, b""), AuthenticationError, False, "HTTP 307"),
        (
            HttpReply(400, {}, b'{"error": {"code": "content_policy_violation"}}'),
            RequestRejectedError,
            False,
            "pol",
        ),
        (HttpReply(413, {}, b"<html>too large</html>"), RequestRejectedError, False, "HTTP 413"),
        (HttpReply(422, {}, b'{"error": {"message": "bad schema"}}'), RequestRejectedError, False, "bad schema"),
        (HttpReply(408, {}, b""), BackendTimeoutError, True, "HTTP 408"),
        (HttpReply(500, {}, b""), BackendUnavailableError, True, "HTTP 500"),
        (HttpReply(502, {}, b"\xff"), BackendUnavailableError, True, "HTTP 502"),
        (HttpReply(503, {}, b"{}"), BackendUnavailableError, False, "HTTP 503"),
        (HttpReply(504, {}, b""), BackendTimeoutError, True, "HTTP 504"),
        (HttpReply(529, {}, b""), BackendUnavailableError, False, "HTTP 529"),
    ],
)
def test_an_error_reply_means(answer: HttpReply, kind: type[BackendError], billed: bool, words: str) -> None:
    error = error_of(answer, backend="openai-vision", retry_after=3.0)
    assert type(error) is kind
    assert error.maybe_billed is billed
    assert str(error).startswith("openai-vision: HTTP ")
    assert words in str(error)
    assert getattr(error, "retry_after", 3.0) == 3.0


def test_an_error_repeats_neither_key_nor_picture() -> None:
    said = "bad key sk-proj-0123456789abcdefghijklmnopqrstuvwxyz for data:image/png;base64," + "iVBORw0KGgo" * 99
    for status in (400, 401, 500):
        error = error_of(HttpReply(status, {}, json.dumps({"error": {"message": said}}).encode()), backend="b")
        assert "0123456789" not in str(error)
        assert "iVBOR" not in str(error)


def test_the_clients_own_request_is_read_as_it_was_meant() -> None:
    question = WIRE.read(chat_request(model="gpt-5"))
    assert (question.images, question.labels, question.model) == ((PNG,), LABELS, "gpt-5")


@pytest.mark.parametrize(
    ("wanted", "labels", "content"),
    [
        (None, (), "dog"),
        ({"type": "text"}, (), "dog"),
        ({"type": "json_object"}, (), '{"label":"dog"}'),
        (schema_format(Enum), ("dog", "cat"), '"dog"'),
        (schema_format({"properties": {"kind": Enum}}), ("dog", "cat"), '{"kind":"dog"}'),
        (schema_format({"properties": {"a": {"properties": {"b": Enum}}}}), ("dog", "cat"), '{"a":{"b":"dog"}}'),
        (schema_format({"properties": {"a": Enum, "b": {}}, "required": ["a"]}), ("dog", "cat"), '{"a":"dog"}'),
        (schema_format({"properties": {"a": {"const": "dog"}}}), ("dog",), '{"a":"dog"}'),
        (schema_format({"properties": {"a": {"type": "string"}}}), (), '{"a":"dog"}'),
        (
            schema_format({"$defs": {"A": Enum}, "properties": {"a": {"$ref": "#/$defs/A"}}}),
            ("dog", "cat"),
            '{"a":"dog"}',
        ),
    ],
)
def test_the_answer_has_the_shape_that_the_schema_asks_for(
    wanted: dict[str, Any] | None, labels: tuple[str, ...], content: str
) -> None:
    request = chat_request(response_format=wanted)
    question = WIRE.read(request)
    assert question.labels == labels
    reply = WIRE.write(request, question, [Reply((ScoredLabel("cat", 0.1), ScoredLabel("dog", 0.9)))], "r1")
    assert json.loads(reply.body)["choices"][0]["message"]["content"] == content


@pytest.mark.parametrize(
    ("scores", "content"),
    [
        ({"dog": 0.4, "cat": 0.6}, '{"label":"cat"}'),
        ({"dog": 0.5, "cat": 0.5}, '{"label":"cat"}'),
        ({"horse": 0.9, "hot dog": 0.1}, '{"label":"hot dog"}'),
        ({"horse": 0.9}, None),
        ({}, None),
    ],
)
def test_the_best_label_of_the_list_is_written_and_none_is_a_refusal(
    scores: dict[str, float], content: str | None
) -> None:
    request = chat_request()
    answer = Reply(tuple(ScoredLabel(name, score) for name, score in scores.items()), model_version="v7")
    written = WIRE.write(request, WIRE.read(request), [answer], "r1")
    message = json.loads(written.body)["choices"][0]["message"]
    assert message["content"] == content
    assert bool(message["refusal"]) is (content is None)
    assert json.loads(written.body)["model"] == "v7"
    voted = [label.name for label in reply_of(written, LABELS).labels]
    assert voted == ([] if content is None else [json.loads(content)["label"]])


URL = "data:image/png;base64,aGVsbG8="


@pytest.mark.parametrize(
    ("changes", "fault", "words"),
    [
        ({"stream": True}, Fault.BAD_REQUEST, "stream"),
        ({"n": 2}, Fault.BAD_REQUEST, "n:"),
        ({"tools": [{"type": "function"}]}, Fault.BAD_REQUEST, "tools"),
        ({"model": ""}, Fault.BAD_REQUEST, "model"),
        ({"messages": []}, Fault.BAD_REQUEST, "0 pictures"),
        ({"messages": "dog"}, Fault.BAD_REQUEST, "0 pictures"),
        ({"messages": [{"role": "user", "content": "dog?"}]}, Fault.BAD_REQUEST, "0 pictures"),
        ({"messages": picture_message(URL, URL)}, Fault.BAD_REQUEST, "2 pictures"),
        ({"messages": picture_message("https://example.com/a.png")}, Fault.BAD_REQUEST, "no address is fetched"),
        ({"messages": picture_message("data:text/plain;base64,aGk=")}, Fault.BAD_IMAGE, "data:image"),
        ({"messages": picture_message("data:image/png,aGk=")}, Fault.BAD_IMAGE, "data:image"),
        ({"messages": picture_message("data:image/png;base64,a!k=")}, Fault.BAD_IMAGE, "not base64"),
        ({"messages": picture_message("data:image/png;base64,")}, Fault.BAD_IMAGE, "empty"),
        ({"messages": picture_message(URL[:22] + "A" * 28_000_000)}, Fault.IMAGE_TOO_LARGE, "larger than"),
        ({"response_format": {"type": "grammar"}}, Fault.BAD_REQUEST, "response_format"),
        ({"response_format": 1}, Fault.BAD_REQUEST, "response_format"),
        ({"response_format": {"type": "json_schema"}}, Fault.BAD_REQUEST, "no object"),
        ({"response_format": schema_format({"type": "integer"})}, Fault.BAD_REQUEST, "no text"),
        ({"response_format": schema_format({"enum": [1, 2]})}, Fault.BAD_REQUEST, "enum"),
        ({"response_format": schema_format({"enum": []})}, Fault.BAD_REQUEST, "enum"),
        (
            {"response_format": schema_format({"properties": {"a": Enum, "why": {}}})},
            Fault.BAD_REQUEST,
            "2 values",
        ),
        ({"response_format": schema_format({"properties": {"a": 1}})}, Fault.BAD_REQUEST, "'a' has no schema"),
        ({"response_format": schema_format({"$ref": "#/$defs/A"})}, Fault.BAD_REQUEST, "leads nowhere"),
        ({"response_format": schema_format({"$ref": 1})}, Fault.BAD_REQUEST, "leads nowhere"),
        ({"response_format": schema_format({"properties": {"a": {"$ref": "#"}}})}, Fault.BAD_REQUEST, "in itself"),
        ({"response_format": schema_format({"properties": {"a": Enum}, "required": [[]]})}, None, ""),
    ],
)
def test_what_a_classifier_cannot_answer_is_refused(
    changes: dict[str, Any], fault: Fault | None, words: str
) -> None:
    if fault is None:
        assert WIRE.read(chat_request(**changes)).labels == ("dog", "cat")
        return
    with pytest.raises(RequestFault) as caught:
        WIRE.read(chat_request(**changes))
    assert caught.value.fault is fault
    assert words in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_request_that_is_no_json_object_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(RequestFault) as caught:
        WIRE.read(HttpRequest("POST", "/v1/chat/completions", {}, body))
    assert caught.value.fault is Fault.BAD_REQUEST


@pytest.mark.parametrize(
    ("method", "path", "served", "readable"),
    [
        ("POST", "/v1/chat/completions", True, True),
        ("POST", "/team/v1/chat/completions/", True, True),
        ("GET", "/v1/chat/completions", True, False),
        ("GET", "/v1/models", True, False),
        ("POST", "/v1/responses", True, False),
        ("POST", "/v1/images:annotate", False, False),
        ("POST", "/v2/users/u/apps/a/models/m/outputs", False, False),
        ("POST", "/", False, False),
    ],
)
def test_a_request_is_known_by_its_path(method: str, path: str, served: bool, readable: bool) -> None:
    request = HttpRequest(method, path, body=chat_request().body)
    assert WIRE.serves(request) is served
    if readable:
        assert WIRE.read(request).images
    else:
        with pytest.raises(RequestFault) as caught:
            WIRE.read(request)
        assert caught.value.fault is Fault.UNKNOWN_OPERATION


@pytest.mark.parametrize("header", ["", "Basic x", "Bearer", "Bearer  "])
def test_a_request_without_a_bearer_token_is_unauthenticated(header: str) -> None:
    with pytest.raises(RequestFault) as caught:
        WIRE.key(HttpRequest("POST", "/v1/chat/completions", {"authorization": header}))
    assert caught.value.fault is Fault.UNAUTHENTICATED


@pytest.mark.parametrize("secret", ["Secret", "", "secret2", "\udcff"])
def test_another_secret_is_unauthenticated(secret: str) -> None:
    WIRE.verify(chat_request(), "secret", NOW)
    request = HttpRequest("POST", "/", {"authorization": f"Bearer {secret or '-'}"})
    with pytest.raises(RequestFault) as caught:
        WIRE.verify(request, "secret", NOW)
    assert caught.value.fault is Fault.UNAUTHENTICATED
