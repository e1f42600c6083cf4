"""Cloud Vision's format as a server speaks it, without a socket."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, Question, RequestFault, Wire
from smoothing_proxy.wire.google import GoogleWire

WIRE = GoogleWire()
PATH = "/v1/images:annotate"
DOG = Reply((ScoredLabel("cat", 0.25, "/m/1"), ScoredLabel("dog", 0.75, "/m/2"), ScoredLabel("ape", 0.25)))


def item(content: bytes = b"picture", **feature: Any) -> dict[str, Any]:
    features = [{"type": "LABEL_DETECTION", **feature}]
    return {"image": {"content": base64.b64encode(content).decode()}, "features": features}


def request(*items: Any, path: str = PATH, **query: str) -> HttpRequest:
    return HttpRequest("POST", path, {}, json.dumps({"requests": items}).encode(), query)


def fault_of(asked: HttpRequest) -> RequestFault:
    with pytest.raises(RequestFault) as caught:
        WIRE.read(asked)
    return caught.value


def written(asked: HttpRequest, *answers: Reply | RequestFault) -> list[dict[str, Any]]:
    reply = WIRE.write(asked, WIRE.read(asked), answers, "id")
    assert reply.status == 200
    responses: list[dict[str, Any]] = json.loads(reply.body)["responses"]
    return responses


def refused(fault: Fault, *, retry_after_s: float | None = None) -> tuple[HttpReply, dict[str, Any]]:
    reply = WIRE.refuse(request(), RequestFault(fault, "because", retry_after_s=retry_after_s), "id")
    error: dict[str, Any] = json.loads(reply.body)["error"]
    return reply, error


def test_it_is_a_wire() -> None:
    wire: Wire = WIRE
    assert (wire.name, wire.limits.batch, wire.limits.image_bytes) == ("google", 16, 20_000_000)


@pytest.mark.parametrize(
    ("path", "serves", "answers"),
    [
        (PATH, True, True),
        ("/team/a" + PATH, True, True),
        ("/v1/projects/p/images:annotate", True, True),
        ("/team/v1/projects/p/locations/eu/images:annotate", True, True),
        ("/v1/images:asyncBatchAnnotate", True, False),
        ("/v1/files:annotate", True, False),
        ("/v1/projects/p/locations/eu/productSets", True, False),
        ("/v1/images/generations", False, False),
        ("/v1/chat/completions", False, False),
        ("/v2/users/u/apps/a/models/m/outputs", False, False),
        ("/", False, False),
    ],
)
def test_a_path_is_googles_and_labelling_is_the_only_operation(path: str, serves: bool, answers: bool) -> None:
    asked = request(item(), path=path)
    assert WIRE.serves(asked) is serves
    if answers:
        assert WIRE.read(asked).images == (b"picture",)
    else:
        assert fault_of(asked).fault is Fault.UNKNOWN_OPERATION


def test_another_method_than_post_is_an_unknown_operation() -> None:
    assert fault_of(HttpRequest("GET", PATH)).fault is Fault.UNKNOWN_OPERATION


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({"x-goog-api-key": "k"}, {}, "k"),
        ({}, {"key": "k"}, "k"),
        ({"authorization": "Bearer t"}, {}, "t"),
        ({"authorization": "bearer  t "}, {}, "t"),
        ({"x-goog-api-key": "k", "authorization": "Bearer t"}, {}, "k"),
    ],
)
def test_a_key_is_found_and_verified(headers: dict[str, str], query: dict[str, str], key: str) -> None:
    asked = HttpRequest("POST", PATH, headers, query=query)
    assert WIRE.key(asked) == key
    WIRE.verify(asked, key, datetime.now(UTC))
    with pytest.raises(RequestFault) as caught:
        WIRE.verify(asked, key + "é", datetime.now(UTC))
    assert caught.value.fault is Fault.UNAUTHENTICATED
    assert key + "é" not in caught.value.message


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic abc"}, {"authorization": "Bearer "}])
def test_no_key_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(RequestFault) as caught:
        WIRE.key(HttpRequest("POST", PATH, headers))
    assert caught.value.fault is Fault.UNAUTHENTICATED


@pytest.mark.parametrize(
    "features",
    [
        [{"type": "LABEL_DETECTION", "maxResults": 3}],
        [{"type": 4, "maxResults": 3}],
        [{"type": 4, "max_results": 3}],
        [{"type": 4, "maxResults": "3"}],
    ],
)
def test_numbers_and_names_and_both_spellings_are_read(features: list[Any]) -> None:
    picture = base64.b64encode(b"\xff\x00picture").decode()
    asked = request({"image": {"content": picture}, "features": features})
    assert WIRE.read(asked) == Question((b"\xff\x00picture",), max_labels=3)


@pytest.mark.parametrize(
    ("wanted", "most"),
    [((0, 0), None), ((3, 3), 3), ((3, 7), 7), ((0, 3), 10), ((50, 0), 50)],
)
def test_a_question_asks_enough_labels_for_each_image(wanted: tuple[int, ...], most: int | None) -> None:
    assert WIRE.read(request(*(item(maxResults=n) for n in wanted))).max_labels == most


def test_a_named_model_is_read() -> None:
    assert WIRE.read(request(item(model="builtin/latest"))).model == "builtin/latest"


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([], "0 images"),
        ([item()] * 17, "17 images"),
        ([{**item(), "features": []}], "LABEL_DETECTION"),
        ([item(type="FACE_DETECTION")], "LABEL_DETECTION"),
        ([{**item(), "features": [{"type": 4}, {"type": "WEB_DETECTION"}]}], "LABEL_DETECTION"),
        ([item(), item(type=5)], "requests[1]"),
        ([item(maxResults=-1)], "maxResults"),
        ([item(model="a"), item(model="b")], "same model"),
        ([{**item(), "image": {"source": {"imageUri": "http://x/y.png"}}}], "source"),
        ([{**item(), "image": {"content": "aGk=", "source": {"gcsImageUri": "gs://x"}}}], "source"),
        ([item(b"")], "must specify image"),
        ([{"features": [{"type": 4}]}], "must specify image"),
        ([{**item(), "image": {"content": "abcde"}}], "Invalid JSON payload"),
        ([{**item(), "wings": 2}], "Invalid JSON payload"),
        ([item(type="LABELS")], "Invalid JSON payload"),
        ([5], "Invalid JSON payload"),
    ],
)
def test_what_is_not_understood_in_whole_is_refused(items: list[Any], says: str) -> None:
    fault = fault_of(request(*items))
    assert fault.fault is Fault.BAD_REQUEST
    assert says in fault.message


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"5", b'"a"', b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    assert fault_of(HttpRequest("POST", PATH, {}, body)).fault is Fault.BAD_REQUEST


def test_a_body_above_ten_megabytes_is_refused_before_it_is_read() -> None:
    assert "payload size" in fault_of(HttpRequest("POST", PATH, {}, b" " * 10_000_001)).message


def test_a_fault_repeats_no_more_than_a_little_of_a_body() -> None:
    assert len(fault_of(request(item(maxResults="7" * 5000))).message) < 400


def test_labels_are_ranked_and_cut_for_each_image() -> None:
    responses = written(request(item(maxResults=1), item()), DOG, DOG)
    assert responses[0]["labelAnnotations"] == [
        {"mid": "/m/2", "description": "dog", "score": 0.75, "topicality": 0.75}
    ]
    assert [label["description"] for label in responses[1]["labelAnnotations"]] == ["dog", "ape", "cat"]


def test_ten_labels_are_written_unless_more_are_asked() -> None:
    many = Reply(tuple(ScoredLabel(f"l{i}", i / 100) for i in range(30)))
    responses = written(request(item(), item(maxResults=20)), many, many)
    assert [len(response["labelAnnotations"]) for response in responses] == [10, 20]


def test_an_images_own_fault_stands_in_its_place() -> None:
    bad, slow = RequestFault(Fault.BAD_IMAGE, "Bad image data."), RequestFault(Fault.THROTTLED, "slow")
    responses = written(request(item(), item(), item(), item()), DOG, bad, Reply(()), slow)
    assert responses[1] == {"error": {"code": 3, "message": "Bad image data."}}
    assert responses[2] == {}
    assert responses[3]["error"]["code"] == 8
    assert responses[3]["error"]["details"][0]["reason"] == "RATE_LIMIT_EXCEEDED"


def test_the_sdks_own_query_is_taken() -> None:
    asked = request(item(), **{"$alt": "json;enum-encoding=int"})
    assert written(asked, DOG)[0]["labelAnnotations"][0]["description"] == "dog"


@pytest.mark.parametrize(
    ("fault", "http", "status"),
    [
        (Fault.BAD_REQUEST, 400, "INVALID_ARGUMENT"),
        (Fault.BAD_IMAGE, 400, "INVALID_ARGUMENT"),
        (Fault.IMAGE_TOO_LARGE, 400, "INVALID_ARGUMENT"),
        (Fault.UNAUTHENTICATED, 401, "UNAUTHENTICATED"),
        (Fault.FORBIDDEN, 403, "PERMISSION_DENIED"),
        (Fault.UNKNOWN_OPERATION, 404, "NOT_FOUND"),
        (Fault.THROTTLED, 429, "RESOURCE_EXHAUSTED"),
        (Fault.QUOTA, 403, "PERMISSION_DENIED"),
        (Fault.INTERNAL, 500, "INTERNAL"),
        (Fault.UNAVAILABLE, 503, "UNAVAILABLE"),
        (Fault.TIMEOUT, 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_each_fault_has_googles_own_status(fault: Fault, http: int, status: str) -> None:
    reply, error = refused(fault)
    assert reply.status == http
    assert (error["code"], error["status"], error["message"]) == (http, status, "because")


def test_every_fault_has_a_status() -> None:
    assert {fault: refused(fault)[0].status for fault in Fault}.keys() == set(Fault)


def test_a_throttle_says_how_long_to_wait() -> None:
    reply, error = refused(Fault.THROTTLED, retry_after_s=2.5)
    assert {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.500s"} in error["details"]
    assert reply.headers["retry-after"] == "3"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    ["requests", "image", "content", "source", "features", "type", "maxResults", "imageContext"]
)


def _mutated(tree: Any, path: list[int], value: Any, name: str) -> Any:
    """The tree with a value somewhere inside replaced, and one added beside it."""
    if not path or not isinstance(tree, list | dict) or not tree:
        return value
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = keys[path[0] % len(keys)]
    copy: Any = tree.copy()
    copy[key] = _mutated(tree[key], path[1:], value, name)
    if len(path) == 1 and isinstance(copy, dict):
        copy[name] = value
    return copy


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=6), JSON, KNOWN)
def test_a_mutated_request_is_read_or_refused_and_nothing_else(path: list[int], value: Any, name: str) -> None:
    tree = _mutated({"requests": [item(maxResults=2), item()]}, path, value, name)
    _read_or_refused(json.dumps(tree).encode())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 200))
def test_a_damaged_body_is_read_or_refused_and_nothing_else(damage: bytes, at: int) -> None:
    body = request(item(), item()).body
    _read_or_refused(body[:at] + damage + body[at + len(damage) :])


def _read_or_refused(body: bytes) -> None:
    try:
        question: Question | RequestFault = WIRE.read(HttpRequest("POST", PATH, {}, body))
    except RequestFault as fault:
        question = fault
    if isinstance(question, RequestFault):
        assert WIRE.refuse(request(), question, "id").status == 400
    else:
        assert 1 <= len(question.images) <= 16
        assert all(question.images)
