"""Clarifai's predictions: its own client's JSON channel against the server's side, and every kind of answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from clarifai_grpc.channel.clarifai_channel import ClarifaiChannel  # type: ignore[import-untyped]
from clarifai_grpc.grpc.api import (  # type: ignore[import-untyped]
    resources_pb2,
    service_pb2,
    service_pb2_grpc,
)
from clarifai_grpc.grpc.api.status import status_code_pb2  # type: ignore[import-untyped]
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
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, Question, RequestFault
from smoothing_proxy.wire.clarifai import ClarifaiWire, headers_for, outputs_url, replies_of, request_body
from smoothing_proxy.wire.clarifai_codes import CODES, NUMBERS, REFUSALS
from tests.wire.loopback import serving
from tests.wire.wire_server import NOW, PANDA, RECORDED, SECRET, answering, picture

WIRE = ClarifaiWire()
PATH = "/v2/users/u/apps/a/models/general/versions/v1/outputs"


def asking(body: object, *, path: str = PATH, method: str = "POST") -> HttpRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpRequest(method, path, headers_for(SECRET), raw)


def inputs(*images: bytes) -> list[dict[str, object]]:
    return [{"data": {"image": {"base64": base64.b64encode(image).decode()}}} for image in images]


def asked_by_the_sdk(url: str, images: list[bytes], config: dict[str, Any] | None = None) -> Any:
    """By the official client's JSON channel, without the version that has to be pinned elsewhere."""
    stub = service_pb2_grpc.V2Stub(ClarifaiChannel.get_json_channel(url))
    output = resources_pb2.OutputConfig(**(config or {}))
    request = service_pb2.PostModelOutputsRequest(
        user_app_id=resources_pb2.UserAppIDSet(user_id="u", app_id="a"),
        model_id="general",
        version_id="v1",
        inputs=[
            resources_pb2.Input(data=resources_pb2.Data(image=resources_pb2.Image(base64=image)))
            for image in images
        ],
        model=resources_pb2.Model(output_info=resources_pb2.OutputInfo(output_config=output)),
    )
    return stub.PostModelOutputs(request, metadata=(("authorization", f"Key {SECRET}"),))


def test_the_official_client_gets_concepts_over_json() -> None:
    seen: list[HttpRequest] = []
    images = [picture(), b"another"]
    with serving(answering(WIRE, PANDA, seen)) as url:
        answer = asked_by_the_sdk(url, images, {"max_concepts": 5})
    assert answer.status.code == status_code_pb2.SUCCESS
    assert [[(c.id, c.name, c.value) for c in output.data.concepts] for output in answer.outputs] == [
        [("ai_panda", "panda", 0.75), ("mammal", "mammal", 0.25)]
    ] * 2
    assert answer.outputs[0].model.model_version.id == PANDA.model_version
    assert WIRE.read(seen[0]) == Question(tuple(images), 5, 0.0, (), "general/v1")


@pytest.mark.parametrize("fault", list(Fault))
def test_the_official_client_reads_the_status_of_every_fault(fault: Fault) -> None:
    with serving(answering(WIRE, RequestFault(fault, "because"), [])) as url:
        answer = asked_by_the_sdk(url, [b"picture"])
    assert (answer.status.code, answer.status.details) == (REFUSALS[fault][1], "because")


FAULTS: list[tuple[Fault, type[BackendError], bool]] = [
    (Fault.BAD_REQUEST, RequestRejectedError, False),
    (Fault.BAD_IMAGE, RequestRejectedError, False),
    (Fault.IMAGE_TOO_LARGE, RequestRejectedError, False),
    (Fault.UNAUTHENTICATED, AuthenticationError, False),
    (Fault.FORBIDDEN, AuthenticationError, False),
    (Fault.UNKNOWN_OPERATION, AuthenticationError, False),
    (Fault.THROTTLED, RateLimitedError, False),
    (Fault.QUOTA, QuotaExceededError, False),
    (Fault.INTERNAL, BackendUnavailableError, True),
    (Fault.UNAVAILABLE, BackendUnavailableError, False),
    (Fault.TIMEOUT, BackendTimeoutError, True),
]


def test_every_fault_has_its_row() -> None:
    assert [row[0] for row in FAULTS] == list(Fault)


@pytest.mark.parametrize(("fault", "kind", "maybe_billed"), FAULTS)
def test_a_fault_that_the_server_writes_is_understood(
    fault: Fault, kind: type[BackendError], maybe_billed: bool
) -> None:
    refused = WIRE.refuse(asking(b""), RequestFault(fault, "because", retry_after_s=1.5), "r")
    assert (refused.status, refused.headers["retry-after"]) == (REFUSALS[fault][0], "2")
    with pytest.raises(kind, match=r"clarifai: HTTP \d+.*because") as raised:
        replies_of(refused, 1, backend="clarifai", retry_after=1.5)
    assert type(raised.value) is kind
    assert raised.value.maybe_billed is maybe_billed


def test_our_numbers_are_those_of_the_official_client() -> None:
    official = dict(status_code_pb2.StatusCode.items())
    assert {name: official[name] for name in NUMBERS} == NUMBERS
    assert set(CODES) <= set(NUMBERS.values())
    assert {code for _, code, _ in REFUSALS.values()} <= set(CODES)


def test_a_recorded_answer_of_mixed_success_is_read() -> None:
    body = (RECORDED / "clarifai" / "mixed.json").read_bytes()
    first, second = replies_of(HttpReply(200, {}, body), 2, backend="clarifai")
    labels = (
        ScoredLabel("people", 0.9963529, "ai_l8TKp2h5"),
        ScoredLabel("adult", 1.0, "ai_VPmHr5bm"),
        ScoredLabel("ai_unnamed", 0.5, "ai_unnamed"),
        ScoredLabel("zero", 0.0, "ai_zero"),
    )
    assert first == Reply(labels, "aa7f35c01e0642fda5cf400f543e7c40", "20ab5bcf0566429f9b350e50372456ce")
    assert isinstance(second, RequestRejectedError)
    assert "47104 Image decode failed: not a picture" in str(second)


@pytest.mark.parametrize(
    ("answers", "http", "code", "kinds"),
    [
        ([PANDA, PANDA], 200, 10000, [Reply, Reply]),
        ([PANDA, RequestFault(Fault.BAD_IMAGE, "x")], 200, 10010, [Reply, RequestRejectedError]),
        ([RequestFault(Fault.INTERNAL, "x"), PANDA], 200, 10010, [BackendUnavailableError, Reply]),
        ([RequestFault(Fault.BAD_IMAGE, "x")] * 2, 400, 10020, [RequestRejectedError] * 2),
    ],
)
def test_each_picture_has_its_own_outcome(
    answers: list[Reply | RequestFault], http: int, code: int, kinds: list[type[object]]
) -> None:
    request = asking({"inputs": inputs(b"one", b"two")})
    written = WIRE.write(request, WIRE.read(request), answers, "r")
    assert (written.status, json.loads(written.body)["status"]["code"]) == (http, code)
    assert [type(outcome) for outcome in replies_of(written, 2, backend="clarifai")] == kinds


def test_where_nothing_was_answered_for_one_reason_the_reply_is_that_fault() -> None:
    request = asking({"inputs": inputs(b"one")})
    written = WIRE.write(request, WIRE.read(request), [RequestFault(Fault.QUOTA, "spent")], "r")
    assert written == WIRE.refuse(request, RequestFault(Fault.QUOTA, "spent"), "r")


def test_one_refused_credential_stands_beside_what_was_paid_for() -> None:
    outputs = [{"status": {"code": 10000}, "data": {}}, {"status": {"code": 11009}}]
    body = json.dumps({"status": {"code": 10010}, "outputs": outputs}).encode()
    answer, refusal = replies_of(HttpReply(200, {}, body), 2, backend="clarifai")
    assert answer == Reply(())
    assert isinstance(refusal, AuthenticationError)
    assert "check the token" in str(refusal)


@pytest.mark.parametrize(
    ("status", "code", "kind", "maybe_billed"),
    [
        (429, 11005, RateLimitedError, False),
        (429, "CONN_THROTTLED", RateLimitedError, False),
        (200, 11005, RateLimitedError, False),
        (401, 11001, AuthenticationError, False),
        (400, 11009, AuthenticationError, False),
        (400, 21200, AuthenticationError, False),
        (400, 21202, AuthenticationError, False),
        (402, 11004, QuotaExceededError, False),
        (429, 11003, QuotaExceededError, False),
        (400, 30300, RequestRejectedError, False),
        (200, 21355, BackendUnavailableError, False),
        (200, 98004, BackendUnavailableError, True),
        (500, 99999, BackendUnavailableError, True),
        (503, 99999, BackendUnavailableError, False),
        (400, 12345, RequestRejectedError, False),
        (200, 12345, BackendUnavailableError, True),
        (504, 98009, BackendTimeoutError, True),
    ],
)
def test_a_status_code_counts_before_the_http_status(
    status: int, code: int | str, kind: type[BackendError], maybe_billed: bool
) -> None:
    body = json.dumps({"status": {"code": code, "description": "said", "details": "more"}}).encode()
    with pytest.raises(kind, match="said: more") as raised:
        replies_of(HttpReply(status, {}, body), 1, backend="clarifai", retry_after=2.0)
    assert type(raised.value) is kind
    assert raised.value.maybe_billed is maybe_billed
    assert getattr(raised.value, "retry_after", 2.0) == 2.0


@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, BackendUnavailableError), (502, BackendUnavailableError), (401, AuthenticationError), (413, None)],
)
def test_without_a_status_code_the_http_status_decides(status: int, kind: type[BackendError] | None) -> None:
    with pytest.raises(kind or RequestRejectedError, match=f"HTTP {status}"):
        replies_of(HttpReply(status, {}, b"<html>"), 1, backend="clarifai")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"status": {"code": 10000}, "outputs": []}',
        b'{"status": {"code": 10000}, "outputs": [{"status": {"code": 10000}}, {"status": {"code": 10000}}]}',
        b'{"status": {"code": 10000}, "outputs": [{"data": {"concepts": [{"name": "a", "value": 1.5}]}}]}',
        b'{"status": {"code": 10000}, "outputs": [{"data": {"concepts": [{"name": "a", "value": "1"}]}}]}',
        b'{"status": {"code": 10000}, "outputs": [{"data": {"concepts": [{"name": "a", "value": NaN}]}}]}',
    ],
)
def test_an_answer_in_another_shape_is_kept_in_the_error(body: bytes) -> None:
    with pytest.raises(MalformedReplyError, match="clarifai") as raised:
        replies_of(HttpReply(200, {}, body), 1, backend="clarifai")
    assert raised.value.reply == body


def test_our_request_is_read_as_it_was_meant() -> None:
    url = outputs_url("", user="u", app="a", model="general", version="v1")
    body = request_body([b"one", b"two"], max_concepts=7, concepts=["cat", 'a "b"', "katze ü"])
    question = WIRE.read(HttpRequest("POST", url, headers_for(SECRET), body))
    assert question == Question((b"one", b"two"), 7, 0.0, ("cat", 'a "b"', "katze ü"), "general/v1")
    assert json.loads(body)["inputs"] == inputs(b"one", b"two")


@pytest.mark.parametrize(
    ("model", "question"),
    [
        ({}, Question((b"x",), None, 0.0, (), "general/v1")),
        (
            {"output_info": {"output_config": {"select_concepts": [{"id": "ai_1"}, {"name": "cat", "id": "i"}]}}},
            Question((b"x",), None, 0.0, ("ai_1", "cat"), "general/v1"),
        ),
        (
            {"outputInfo": {"outputConfig": {"maxConcepts": 3, "minValue": 0.5}}},
            Question((b"x",), 3, 0.5, (), "general/v1"),
        ),
    ],
)
def test_what_is_served_is_read_in_either_spelling(model: dict[str, Any], question: Question) -> None:
    assert WIRE.read(asking({"inputs": inputs(b"x"), "model": model})) == question


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, ["panda", "mammal"]),
        ({"max_concepts": 1}, ["panda"]),
        ({"min_value": 0.5}, ["panda"]),
        ({"select_concepts": [{"name": "mammal"}]}, ["mammal"]),
        ({"select_concepts": [{"id": "ai_panda"}]}, ["panda"]),
        ({"select_concepts": [{"name": "Panda"}]}, []),
    ],
)
def test_concepts_are_cut_as_asked(config: dict[str, Any], names: list[str]) -> None:
    request = asking({"inputs": inputs(b"x"), "model": {"output_info": {"output_config": config}}})
    written = WIRE.write(request, WIRE.read(request), [PANDA], "r")
    assert [concept["name"] for concept in json.loads(written.body)["outputs"][0]["data"]["concepts"]] == names


@pytest.mark.parametrize(
    ("request_", "fault", "words"),
    [
        (asking(b"not JSON"), Fault.BAD_REQUEST, "JSON"),
        (asking({"inputs": []}), Fault.BAD_REQUEST, "inputs"),
        (asking({"inputs": inputs(*[b"x"] * 129)}), Fault.BAD_REQUEST, "inputs.*128"),
        (asking({"inputs": [{"data": {"text": {"raw": "x"}}}]}), Fault.BAD_REQUEST, r"inputs\[0\].*missing"),
        (asking({"inputs": [{"data": {"image": {"url": "http://x"}}}]}), Fault.BAD_REQUEST, "not fetched"),
        (asking({"inputs": [{"data": {"image": {"base64": "?"}}}]}), Fault.BAD_REQUEST, "not base64"),
        (asking({"inputs": [{"data": {"image": {"base64": "ü"}}}]}), Fault.BAD_REQUEST, "not base64"),
        (
            asking(
                {
                    "inputs": inputs(b"x"),
                    "model": {"output_info": {"output_config": {"select_concepts": [{}]}}},
                }
            ),
            Fault.BAD_REQUEST,
            "select_concepts",
        ),
        (asking({"inputs": inputs(bytes(20 * 2**20 + 1))}), Fault.IMAGE_TOO_LARGE, "bytes"),
        (asking({}, path="/v2/users/u/apps/a/models"), Fault.UNKNOWN_OPERATION, "outputs"),
        (asking({}, method="GET"), Fault.UNKNOWN_OPERATION, "outputs"),
    ],
)
def test_what_is_not_served_is_refused(request_: HttpRequest, fault: Fault, words: str) -> None:
    with pytest.raises(RequestFault, match=words) as raised:
        WIRE.read(request_)
    assert raised.value.fault is fault


@pytest.mark.parametrize(
    ("path", "authorization", "served"),
    [
        (PATH, "", True),
        ("/prefix" + PATH, "Bearer x", True),
        ("/v2/models/general/outputs", "", True),
        ("/", "Key x", True),
        ("/v1/images:annotate", "Bearer x", False),
        ("/vision/v2/tag", "", False),
    ],
)
def test_its_own_requests_are_known(path: str, authorization: str, served: bool) -> None:
    assert WIRE.serves(HttpRequest("POST", path, {"authorization": authorization})) is served


def test_the_token_is_key_and_secret_at_once() -> None:
    request = asking({})
    assert WIRE.key(request) == SECRET
    WIRE.verify(request, SECRET, NOW)
    for other, secret in ((request, "another"), (HttpRequest("POST", PATH), SECRET)):
        with pytest.raises(RequestFault) as raised:
            WIRE.verify(other, secret, NOW)
        assert raised.value.fault is Fault.UNAUTHENTICATED


TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from([10000, 10010, 11005]) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "status",
                    "code",
                    "outputs",
                    "data",
                    "concepts",
                    "name",
                    "value",
                    "inputs",
                    "image",
                    "base64",
                    "model",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)
BODIES = st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode())


@given(body=BODIES, path=st.just(PATH) | TEXT, headers=st.dictionaries(st.just("authorization"), TEXT))
def test_reading_raises_nothing_but_request_faults(body: bytes, path: str, headers: dict[str, str]) -> None:
    request = HttpRequest("POST", path, headers, body)
    for act in (WIRE.read, WIRE.key, WIRE.serves):
        try:
            act(request)
        except RequestFault as fault:
            assert WIRE.refuse(request, fault, "r").status >= 400  # noqa: PT017 (either may happen)


@given(body=BODIES, status=st.integers(200, 599), expected=st.integers(1, 3))
def test_any_answer_is_replies_or_one_of_our_errors(body: bytes, status: int, expected: int) -> None:
    try:
        assert len(replies_of(HttpReply(status, {}, body), expected, backend="b")) == expected
    except BackendError as error:
        assert error.backend == "b"  # noqa: PT017
