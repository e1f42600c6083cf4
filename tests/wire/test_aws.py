from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendUnavailableError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.aws import LIMITS, AwsWire, error_of, retry_after_of
from smoothing_proxy.wire.base import Fault, HttpRequest, Question, RequestFault, Wire

WIRE = AwsWire()
RECORDED = Path(__file__).with_name("recorded") / "aws"
PICTURE = b"\x89PNG picture"
HEADERS = {"x-amz-target": "RekognitionService.DetectLabels", "content-type": "application/x-amz-json-1.1"}
BYTES = {"Bytes": base64.b64encode(PICTURE).decode()}
LARGEST = base64.b64encode(bytes(LIMITS.image_bytes)).decode()


def request(body: object, **headers: str) -> HttpRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpRequest("POST", "/", {**HEADERS, **{k.replace("_", "-"): v for k, v in headers.items()}}, data)


def refused(asked: HttpRequest) -> tuple[str, int, str]:
    """What a client of the vendor would see: `__type`, status and message."""
    with pytest.raises(RequestFault) as fault:
        WIRE.read(asked)
    reply = WIRE.refuse(asked, fault.value, "id-1")
    body = json.loads(reply.body)
    return body["__type"], reply.status, body["message"]


def written(labels: tuple[ScoredLabel, ...], **question: Any) -> list[dict[str, Any]]:
    reply = WIRE.write(request({}), Question((PICTURE,), **question), [Reply(labels, "3.0")], "id-1")
    assert reply.status == 200
    labels_written: list[dict[str, Any]] = json.loads(reply.body)["Labels"]
    return labels_written


def test_it_is_a_wire() -> None:
    wire: Wire = WIRE
    assert wire.name == "aws"
    assert (wire.limits.image_bytes, wire.limits.batch) == (5 * 2**20, 1)
    assert (wire.limits.min_side_px, wire.limits.max_side_px) == (80, 10_000)
    assert len(LARGEST) < wire.limits.request_bytes


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        (request({}), True),
        (replace(request({}), path="/any/prefix/"), True),
        (request({}, x_amz_target="RekognitionService.DetectFaces"), True),
        (HttpRequest("POST", "/", {"authorization": "AWS4-HMAC-SHA256 Credential=..."}), True),
        (replace(request({}), method="GET"), False),
        (HttpRequest("POST", "/", {"authorization": "Bearer key"}), False),
        (HttpRequest("POST", "/", {"x-amz-target": "DynamoDB_20120810.GetItem"}), False),
        (HttpRequest("POST", "/v1/images:annotate"), False),
    ],
)
def test_target_or_signature_makes_a_request_its_own(asked: HttpRequest, served: bool) -> None:
    assert WIRE.serves(asked) is served


@pytest.mark.parametrize(
    ("body", "max_labels", "min_confidence"),
    [
        ({"Image": BYTES}, None, None),
        ({"Image": BYTES, "MaxLabels": 10, "MinConfidence": 75}, 10, 0.75),
        ({"Image": BYTES, "MaxLabels": 0, "MinConfidence": 0}, 0, 0.0),
        ({"Image": BYTES, "MinConfidence": 55.5}, None, 0.555),
        (
            {"Image": BYTES, "MaxLabels": None, "MinConfidence": None, "Features": None, "Settings": None},
            None,
            None,
        ),
        ({"Image": {**BYTES, "S3Object": None}, "Features": ["GENERAL_LABELS"]}, None, None),
        ({"Image": BYTES, "Features": [], "Settings": {}}, None, None),
        ({"Image": BYTES, "Settings": {"GeneralLabels": {"LabelInclusionFilters": []}}}, None, None),
        ({"Image": BYTES, "Unknown": {"ignored": True}}, None, None),
    ],
)
def test_a_request_asks(body: dict[str, Any], max_labels: int | None, min_confidence: float | None) -> None:
    expected = Question((PICTURE,), max_labels=max_labels, min_confidence=min_confidence)
    assert WIRE.read(request(body)) == expected
    assert WIRE.read(request(body, content_type="Application/X-Amz-Json-1.1; charset=utf-8")) == expected


INVALID, SERIALIZATION = ("InvalidParameterException", 400), ("SerializationException", 400)


@pytest.mark.parametrize(
    ("body", "fault", "said"),
    [
        (b"", SERIALIZATION, "not a JSON object"),
        (b"[]", SERIALIZATION, "not a JSON object"),
        (b"\xff\xfe", SERIALIZATION, "not a JSON object"),
        (b"[" * 100_000, SERIALIZATION, "not a JSON object"),
        (b'{"Image": ' + b"1" * 5000 + b"}", SERIALIZATION, "not a JSON object"),
        ({}, INVALID, "Image has to hold Bytes"),
        ({"Image": {}}, INVALID, "Image has to hold Bytes"),
        ({"Image": [BYTES]}, SERIALIZATION, "Image is not an object"),
        ({"Image": {"Bytes": ""}}, INVALID, "Image has to hold Bytes"),
        ({"Image": {"Bytes": [1, 2]}}, INVALID, "Image has to hold Bytes"),
        ({"Image": {"Bytes": "a"}}, SERIALIZATION, "not base64"),
        ({"Image": {"Bytes": "aGk=\n"}}, SERIALIZATION, "not base64"),
        ({"Image": {"Bytes": "ä"}}, SERIALIZATION, "not base64"),
        ({"Image": {"Bytes": "====" * 2}}, SERIALIZATION, "not base64"),
        ({"Image": {"S3Object": {"Bucket": "b", "Name": "n"}}}, ("InvalidS3ObjectException", 400), "in S3"),
        ({"Image": {**BYTES, "S3Object": {}}}, INVALID, "and nothing else"),
        ({"Image": {"Bytes": LARGEST + "AAAA"}}, ("ImageTooLargeException", 400), "more than 5242880 bytes"),
        ({"Image": BYTES, "MaxLabels": -1}, INVALID, "MaxLabels"),
        ({"Image": BYTES, "MaxLabels": 1.5}, INVALID, "MaxLabels"),
        ({"Image": BYTES, "MaxLabels": True}, INVALID, "MaxLabels"),
        ({"Image": BYTES, "MinConfidence": -0.1}, INVALID, "MinConfidence"),
        ({"Image": BYTES, "MinConfidence": 100.1}, INVALID, "MinConfidence"),
        ({"Image": BYTES, "MinConfidence": "55"}, INVALID, "MinConfidence"),
        ({"Image": BYTES, "MinConfidence": float("nan")}, INVALID, "MinConfidence"),
        ({"Image": BYTES, "Features": ["IMAGE_PROPERTIES"]}, INVALID, "only GENERAL_LABELS"),
        ({"Image": BYTES, "Features": ["GENERAL_LABELS", "IMAGE_PROPERTIES"]}, INVALID, "only GENERAL_LABELS"),
        ({"Image": BYTES, "Settings": {"ImageProperties": {"MaxDominantColors": 5}}}, INVALID, "Settings"),
        ({"Image": BYTES, "Settings": {"GeneralLabels": {"LabelExclusionFilters": ["Dog"]}}}, INVALID, "filters"),
        ({"Image": BYTES, "Settings": {"GeneralLabels": 7}}, SERIALIZATION, "GeneralLabels is not an object"),
    ],
)
def test_a_request_for_anything_else_is_refused(body: object, fault: tuple[str, int], said: str) -> None:
    *refusal, message = refused(request(body))
    assert tuple(refusal) == fault
    assert said in message


def test_the_largest_picture_is_read_and_a_larger_one_refused() -> None:
    assert len(WIRE.read(request({"Image": {"Bytes": LARGEST}})).images[0]) == LIMITS.image_bytes
    one_more = base64.b64encode(bytes(LIMITS.image_bytes + 1)).decode()
    assert refused(request({"Image": {"Bytes": one_more}}))[0] == "ImageTooLargeException"


@pytest.mark.parametrize(
    "headers",
    [
        {"x_amz_target": "RekognitionService.DetectFaces"},
        {"x_amz_target": "OtherService.DetectLabels"},
        {"x_amz_target": ""},
        {"content_type": "application/json"},
        {"content_type": ""},
    ],
)
def test_an_unknown_operation_is_refused(headers: dict[str, str]) -> None:
    assert refused(request({"Image": BYTES}, **headers))[:2] == ("UnknownOperationException", 404)


def test_labels_are_ordered_by_confidence_then_name_and_cut() -> None:
    confidences = {"d": 0.5, "b": 0.75, "c": 1.0, "a": 0.75, "e": 0.55}
    labels = tuple(ScoredLabel(name, confidence) for name, confidence in confidences.items())
    assert [label["Name"] for label in written(labels)] == ["c", "a", "b", "e"]
    assert [label["Name"] for label in written(labels, min_confidence=0.0)] == ["c", "a", "b", "e", "d"]
    assert [label["Name"] for label in written(labels, min_confidence=0.75)] == ["c", "a", "b"]
    assert [label["Name"] for label in written(labels, max_labels=2)] == ["c", "a"]
    assert written(labels, max_labels=0) == []


def test_a_written_label_has_every_part() -> None:
    pug = ScoredLabel("Pug", 0.9375, id="/m/1", parents=("Animal", "Dog"), aliases=("Mops",))
    assert written((pug,)) == [
        {
            "Name": "Pug",
            "Confidence": 93.75,
            "Instances": [],
            "Parents": [{"Name": "Animal"}, {"Name": "Dog"}],
            "Aliases": [{"Name": "Mops"}],
            "Categories": [],
        }
    ]


def test_a_picture_that_failed_is_refused_as_a_whole() -> None:
    fault = RequestFault(Fault.BAD_IMAGE, "no picture")
    reply = WIRE.write(request({}), Question((PICTURE,)), [fault], "id-1")
    assert reply == WIRE.refuse(request({}), fault, "id-1")
    assert (reply.status, json.loads(reply.body)["__type"]) == (400, "InvalidImageFormatException")


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        (Fault.BAD_REQUEST, RequestRejectedError, 400),
        (Fault.BAD_IMAGE, RequestRejectedError, 400),
        (Fault.IMAGE_TOO_LARGE, RequestRejectedError, 400),
        (Fault.UNAUTHENTICATED, AuthenticationError, 403),
        (Fault.FORBIDDEN, AuthenticationError, 400),
        (Fault.UNKNOWN_OPERATION, AuthenticationError, 404),
        (Fault.THROTTLED, RateLimitedError, 500),
        (Fault.QUOTA, QuotaExceededError, 400),
        (Fault.INTERNAL, BackendUnavailableError, 500),
        (Fault.UNAVAILABLE, BackendUnavailableError, 503),
        (Fault.TIMEOUT, BackendUnavailableError, 504),
    ],
)
def test_the_client_understands_every_fault_that_the_server_writes(
    fault: Fault, kind: type[BackendError], status: int
) -> None:
    reply = WIRE.refuse(request({}), RequestFault(fault, "why", retry_after_s=1.2), "id-1")
    body = json.loads(reply.body)
    assert reply.status == status
    assert reply.headers["x-amzn-requestid"] == "id-1"
    assert (reply.headers["retry-after"], retry_after_of(reply.headers)) == ("2", 1.2)
    error = error_of(body["__type"], body["message"], reply.status, 1.2, "mine")
    assert type(error) is kind
    assert error.backend == "mine"
    assert f"AWS Rekognition DetectLabels: {body['__type']} ({status}): why; " in str(error)
    assert error.maybe_billed is (fault in (Fault.INTERNAL, Fault.TIMEOUT))


def test_every_fault_can_be_written() -> None:
    for fault in Fault:
        assert WIRE.refuse(request({}), RequestFault(fault, "why"), "id-1").status >= 400


def recorded(name: str) -> HttpRequest:
    """A request of boto3's as it came from the socket."""
    head, _, body = (RECORDED / name).read_bytes().partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    method, target, _ = line.split(" ")
    headers = {key.lower(): value for key, _, value in (field.partition(": ") for field in fields)}
    return HttpRequest(method, unquote(target), headers, body, target=target)


@pytest.mark.parametrize(
    ("name", "path", "max_labels", "min_confidence"),
    [
        ("boto3-detect-labels.http", "/", None, None),
        ("boto3-detect-labels-prefix-session.http", "/proxy/a b", 10, 0.755),
    ],
)
def test_a_recorded_request_is_verified_and_read(
    name: str, path: str, max_labels: int | None, min_confidence: float | None
) -> None:
    asked = recorded(name)
    assert WIRE.serves(asked)
    assert (asked.path, WIRE.key(asked)) == (path, "AKIDEXAMPLE")
    sent_at = datetime.strptime(asked.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    WIRE.verify(asked, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", sent_at)
    question = WIRE.read(asked)
    assert question.images[0].startswith(b"\x89PNG\r\n")
    assert (question.max_labels, question.min_confidence) == (max_labels, min_confidence)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
QUESTION = {
    "Image": JSON | st.fixed_dictionaries({"Bytes": JSON | st.just(BYTES["Bytes"])}, optional={"S3Object": JSON}),
    "MaxLabels": JSON,
    "MinConfidence": JSON,
    "Features": JSON,
    "Settings": JSON | st.dictionaries(st.sampled_from(["GeneralLabels", "ImageProperties"]), JSON),
}


@given(st.fixed_dictionaries({}, optional=QUESTION))
@settings(deadline=None)
def test_whatever_is_asked_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        question = WIRE.read(request(json.dumps(body).encode()))
    except RequestFault as fault:
        refusal = WIRE.refuse(request({}), fault, "id-1")
    else:
        assert question.images == (PICTURE,)
        return
    assert json.loads(refusal.body)["message"]


@given(st.binary(max_size=5), st.integers(0, 200), st.integers(0, 20))
@settings(deadline=None)
def test_a_damaged_body_is_read_or_refused(inserted: bytes, at: int, cut: int) -> None:
    body = json.dumps({"Image": BYTES, "MaxLabels": 10, "MinConfidence": 55, "Settings": {}}).encode()
    with contextlib.suppress(RequestFault):
        assert WIRE.read(request(body[:at] + inserted + body[at + cut :])).images[0]
